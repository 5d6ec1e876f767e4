package cluster

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pando.dev/pando/partition"
)

// TestPeersOnABadDisk: peers that cannot be written down, or read, cost nothing but
// time: they are known meanwhile, and written down when that works.
func TestPeersOnABadDisk(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, peersFile)
	if err := os.MkdirAll(filepath.Join(path, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := RememberedPeers(dir); err == nil {
		t.Error("peers out of a directory")
	}
	g := gossipNode(t, "a", func(c *GossipConfig) { c.Dir = dir })
	others := []Node{{ID: "a", Status: Alive, Gossip: "127.0.0.1:1"}, {ID: "b", Status: Alive, Gossip: "127.0.0.1:2"}, {ID: "c", Status: Failed, Gossip: "127.0.0.1:3"}}
	g.remember(others)
	g.mu.Lock()
	known := strings.Join(g.remembered, " ")
	g.mu.Unlock()
	if known != "127.0.0.1:2" {
		t.Errorf("it knows %q", known)
	}
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	g.remember(others) // the same again
	if peers, err := RememberedPeers(dir); err != nil || strings.Join(peers, " ") != "127.0.0.1:2" {
		t.Errorf("%q, %v", peers, err)
	}
}

// TestFilesThatAreNone: a directory is no key and no address is taken from what is
// none; the good ones beside it are.
func TestFilesThatAreNone(t *testing.T) {
	dir := t.TempDir()
	if _, err := ReadKey(dir); err == nil {
		t.Error("a key out of a directory")
	}
	if _, err := ReadKey(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a key of nothing: %v", err)
	}
	file := filepath.Join(dir, "join")
	if err := os.WriteFile(file, []byte("# comment\n\n127.0.0.1:4\nnowhere\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := resolveProviders([]string{"nowhere", "127.0.0.1:3", fileProvider + file, fileProvider + dir + "/none"})
	if err == nil || len(got) == 0 || got[0] != "127.0.0.1:3" || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("%q, %v", got, err)
	}
	for _, advertise := range []string{"127.0.0.1:x", "127.0.0.1:99999", "nowhere"} {
		cfg := GossipConfig{Node: "a", Boot: 1, Cluster: "c", Bind: "127.0.0.1:0", Advertise: advertise, Dir: dir, LinkAddr: "x:1"}
		if g, err := StartGossip(cfg); partition.CodeOf(err) != partition.CodeInvalid {
			t.Errorf("advertised as %q: %v", advertise, err)
			if err == nil {
				_ = g.Close()
			}
		}
	}
}
