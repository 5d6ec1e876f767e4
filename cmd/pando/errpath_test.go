package main

import (
	"path/filepath"
	"testing"
)

// TestWithoutPlace: a demo that has nowhere to keep its files does not begin.
func TestWithoutPlace(t *testing.T) {
	t.Setenv("TMPDIR", filepath.Join(t.TempDir(), "none"))
	if d := (&demo{}); d.prepareDir() == nil || d.dir != "" {
		t.Errorf("it is in %q", d.dir)
	}
}

// TestDialerWithoutCertificates: what is to be secured is never dialed without.
func TestDialerWithoutCertificates(t *testing.T) {
	c := &cli{tlsDir: t.TempDir()}
	if dial, err := c.dialer("c"); err == nil || dial != nil {
		t.Errorf("a dialer without certificates: %v", err)
	}
}

// TestReachable: an address that means all of a host's is replaced by the one that
// others dial.
func TestReachable(t *testing.T) {
	for _, x := range [][3]string{
		{"0.0.0.0:7301", "example.com:7300", "example.com:7301"}, {":7301", "10.0.0.1:7300", "10.0.0.1:7301"},
		{"10.0.0.2:7301", "10.0.0.1:7300", "10.0.0.2:7301"}, {"0.0.0.0:7301", "nonsense", "0.0.0.0:7301"}, {"nonsense", "10.0.0.1:7300", "nonsense"},
	} {
		if got := reachable(x[0], x[1]); got != x[2] {
			t.Errorf("%s, advertised %s: %s, want %s", x[0], x[1], got, x[2])
		}
	}
}
