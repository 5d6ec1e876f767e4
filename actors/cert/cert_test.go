package cert

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"pando.dev/pando/partition"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// authority makes one whose clock the test moves.
func authority(t *testing.T, now *time.Time) *Authority {
	t.Helper()
	a, err := NewAuthority("c", 0, func() time.Time { return *now })
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func issue(t *testing.T, a *Authority, name string, r Role, valid time.Duration) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, a, name, r, valid)
	return dir
}

func write(t *testing.T, dir string, a *Authority, name string, r Role, valid time.Duration) {
	t.Helper()
	id, err := a.Issue(name, r, valid)
	if err != nil {
		t.Fatal(err)
	}
	if err := id.Write(dir); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, dir string, now *time.Time) *Files {
	t.Helper()
	f, err := Open(dir, nil, func() time.Time { return *now })
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// shake does a TLS handshake and returns both sides' errors.
func shake(t *testing.T, client, server *tls.Config) (at tls.ConnectionState, clientErr, serverErr error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	deadline := time.Now().Add(20 * time.Second)
	if err := errors.Join(c.SetDeadline(deadline), s.SetDeadline(deadline)); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	sc := tls.Server(s, server)
	go func() {
		err := sc.Handshake()
		if err == nil {
			_, err = sc.Write([]byte{1})
		}
		s.Close()
		done <- err
	}()
	cc := tls.Client(c, client)
	if clientErr = cc.Handshake(); clientErr == nil {
		// In TLS 1.3 the client learns of a refusal with its first read.
		_, clientErr = cc.Read(make([]byte, 1))
	}
	c.Close()
	serverErr = <-done
	return sc.ConnectionState(), clientErr, serverErr
}

func TestBothSidesProveTheirIdentity(t *testing.T) {
	now := time.Now()
	a := authority(t, &now)
	n1, n2 := open(t, issue(t, a, "n1", Node, 0), &now), open(t, issue(t, a, "n2", Node, 0), &now)
	client := open(t, issue(t, a, "app", Client, 0), &now)
	admin := open(t, issue(t, a, "ops", Admin, 0), &now)
	for _, c := range []struct {
		files *Files
		to    partition.NodeID
		role  Role
	}{{n1, "n2", Node}, {n1, "", Node}, {client, "n2", Client}, {admin, "", Admin}} {
		at, cerr, serr := shake(t, c.files.Client(c.to), n2.Server())
		if cerr != nil || serr != nil {
			t.Fatalf("%s: %v, %v", c.role, cerr, serr)
		}
		if name, role, err := n2.Peer(at); err != nil || name != c.files.Name() || role != c.role || role != c.files.Role() || at.Version != tls.VersionTLS13 {
			t.Errorf("%s %s %v", name, role, err)
		}
	}
	if _, _, err := n2.Peer(tls.ConnectionState{}); !errors.Is(err, partition.ErrUnauthorized) {
		t.Errorf("an unfinished connection: %v", err)
	}
	if e := n1.Expires(); e.Before(now.Add(364*24*time.Hour)) || e.After(now.Add(366*24*time.Hour)) {
		t.Errorf("expires %v", e)
	}
}

// TestRefused: each wrong certificate is refused by whom it is shown to, and
// counted by its reason.
func TestRefused(t *testing.T) {
	now := time.Now()
	a, other := authority(t, &now), authority(t, &now)
	for name, c := range map[string]struct {
		client, server func() string
		to             partition.NodeID
		atServer       bool // who refuses
		count          func(Stats) uint64
	}{
		"expired client": {func() string { return issue(t, a, "n1", Node, time.Hour) }, func() string { return issue(t, a, "n2", Node, 0) },
			"n2", true, func(s Stats) uint64 { return s.Expired }},
		"expired server": {func() string { return issue(t, a, "n1", Node, 0) }, func() string { return issue(t, a, "n2", Node, time.Hour) },
			"n2", false, func(s Stats) uint64 { return s.Expired }},
		"client of another authority": {func() string { return trusting(t, issue(t, other, "n1", Node, 0), a) }, func() string { return issue(t, a, "n2", Node, 0) },
			"n2", true, func(s Stats) uint64 { return s.WrongAuthority }},
		"server of another authority": {func() string { return issue(t, a, "n1", Node, 0) }, func() string { return trusting(t, issue(t, other, "n2", Node, 0), a) },
			"n2", false, func(s Stats) uint64 { return s.WrongAuthority }},
		"client as server": {func() string { return issue(t, a, "n1", Node, 0) }, func() string { return issue(t, a, "n2", Client, 0) },
			"n2", false, func(s Stats) uint64 { return s.WrongUsage }},
		"admin as server": {func() string { return issue(t, a, "n1", Node, 0) }, func() string { return issue(t, a, "n2", Admin, 0) },
			"", false, func(s Stats) uint64 { return s.WrongUsage }},
		"another node as server": {func() string { return issue(t, a, "n1", Node, 0) }, func() string { return issue(t, a, "n3", Node, 0) },
			"n2", false, func(s Stats) uint64 { return s.WrongName }},
	} {
		t.Run(name, func(t *testing.T) {
			start := now
			defer func() { now = start }()
			client, server := open(t, c.client(), &now), open(t, c.server(), &now)
			now = now.Add(2 * time.Hour)
			_, cerr, serr := shake(t, client.Client(c.to), server.Server())
			if cerr == nil || serr == nil {
				t.Errorf("client %v, server %v", cerr, serr)
			}
			refuser, err := client, cerr
			if c.atServer {
				refuser, err = server, serr
			}
			if !errors.Is(err, partition.ErrUnauthorized) || c.count(refuser.Stats()) != 1 {
				t.Errorf("%v, %+v", err, refuser.Stats())
			}
		})
	}
}

// trusting makes a directory trust another authority, too.
func trusting(t *testing.T, dir string, a *Authority) string {
	t.Helper()
	if err := Trust(dir, a.Root()); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestNoCertificateAndOldVersions(t *testing.T) {
	now := time.Now()
	a := authority(t, &now)
	n := open(t, issue(t, a, "n", Node, 0), &now)
	bare := n.Client("n")
	bare.Certificates = nil
	if _, _, serr := shake(t, bare, n.Server()); serr == nil {
		t.Error("a client without a certificate was let in")
	}
	old := n.Client("n")
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if _, _, serr := shake(t, old, n.Server()); serr == nil {
		t.Error("TLS 1.2 was let in")
	}
}

// TestRotation goes through a change of the authority with nodes that run on.
func TestRotation(t *testing.T) {
	now := time.Now()
	old := authority(t, &now)
	dir1, dir2 := issue(t, old, "n1", Node, 0), issue(t, old, "n2", Node, 0)
	n1, n2 := open(t, dir1, &now), open(t, dir2, &now)
	step := func(what string) {
		t.Helper()
		now = now.Add(2 * reloadEvery)
		for _, pair := range [][2]*Files{{n1, n2}, {n2, n1}} {
			if _, c, s := shake(t, pair[0].Client(""), pair[1].Server()); c != nil || s != nil {
				t.Fatalf("%s: %v, %v", what, c, s)
			}
		}
	}
	fresh := authority(t, &now)
	step("before")
	trusting(t, dir1, fresh)
	trusting(t, dir2, fresh)
	step("both trusted")
	replace := func(dir, name string) {
		id, err := fresh.Issue(name, Node, 0)
		if err != nil {
			t.Fatal(err)
		}
		id.Root = append(id.Root[:len(id.Root):len(id.Root)], old.Root()...)
		if err := id.Write(dir); err != nil {
			t.Fatal(err)
		}
	}
	replace(dir1, "n1")
	step("one replaced")
	replace(dir2, "n2")
	step("both replaced")
	write(t, dir1, fresh, "n1", Node, 0)
	write(t, dir2, fresh, "n2", Node, 0)
	step("the old one is no longer trusted")
	stranger := open(t, trusting(t, issue(t, old, "n3", Node, 0), fresh), &now)
	if _, c, s := shake(t, stranger.Client(""), n1.Server()); c == nil || s == nil {
		t.Error("a certificate of the old authority was let in")
	}
	if s := n1.Stats(); s.Reloads != 3 || s.WrongAuthority != 1 {
		t.Errorf("%+v", s)
	}
}

// TestBadReloadKeepsTheOld: files that are damaged, of another identity or out
// of date do not replace what works.
func TestBadReloadKeepsTheOld(t *testing.T) {
	now := time.Now()
	a := authority(t, &now)
	dir := issue(t, a, "n1", Node, 0)
	n := open(t, dir, &now)
	for i, change := range []func(){
		func() { mustWrite(t, filepath.Join(dir, CertFile), []byte("garbage")) },
		func() { write(t, dir, a, "n2", Node, 0) },
		func() { write(t, dir, a, "n1", Client, 0) },
		func() { write(t, dir, a, "n1", Node, time.Nanosecond) },
		func() { mustRemove(t, filepath.Join(dir, KeyFile)) },
	} {
		change()
		now = now.Add(2 * reloadEvery)
		if _, c, s := shake(t, n.Client("n1"), n.Server()); c != nil || s != nil || n.Name() != "n1" {
			t.Errorf("change %d: %v, %v, %s", i, c, s, n.Name())
		}
	}
	if s := n.Stats(); s.ReloadsFailed == 0 || s.Reloads != 0 {
		t.Errorf("%+v", s)
	}
	write(t, dir, a, "n1", Node, 0)
	now = now.Add(2 * reloadEvery)
	n.Server()
	if s := n.Stats(); s.Reloads != 1 {
		t.Errorf("%+v", s)
	}
}

// TestFilesAreLookedAtRarely: a second of connections costs one look.
func TestFilesAreLookedAtRarely(t *testing.T) {
	now := time.Now()
	a := authority(t, &now)
	dir := issue(t, a, "n1", Node, 0)
	n := open(t, dir, &now)
	write(t, dir, a, "n1", Node, 0)
	n.Server()
	if s := n.Stats(); s.Reloads != 0 {
		t.Error("looked at once more within the second")
	}
	now = now.Add(reloadEvery)
	n.Server()
	n.Server()
	if s := n.Stats(); s.Reloads != 1 {
		t.Errorf("%+v", s)
	}
}

func TestFilesAreTheOwnersOnly(t *testing.T) {
	now := time.Now()
	a := authority(t, &now)
	dir := filepath.Join(t.TempDir(), "ca")
	if err := a.Write(dir); err != nil {
		t.Fatal(err)
	}
	if err := a.Write(dir); !errors.Is(err, partition.ErrExists) {
		t.Errorf("written over: %v", err)
	}
	again, err := OpenAuthority(dir)
	if err != nil || again.Cluster() != "c" || !bytes.Equal(again.Root(), a.Root()) {
		t.Fatal(again, err)
	}
	write(t, dir, again, "n1", Node, 0)
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 4 {
		t.Fatal(entries, err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", e.Name(), info.Mode(), err)
		}
	}
	for _, name := range []string{KeyFile, CAKeyFile} {
		if err := os.Chmod(filepath.Join(dir, name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(dir, nil, nil); !errors.Is(err, partition.ErrRefused) || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that others may read: %v", err)
	}
	if _, err := OpenAuthority(dir); !errors.Is(err, partition.ErrRefused) {
		t.Errorf("an authority's key that others may read: %v", err)
	}
}

func TestBadInput(t *testing.T) {
	now := time.Now()
	a := authority(t, &now)
	for _, name := range []string{"", "a b", "ü", strings.Repeat("x", MaxNameBytes+1), "a\x00"} {
		if _, err := a.Issue(name, Node, 0); !errors.Is(err, partition.ErrInvalid) {
			t.Errorf("name %q: %v", name, err)
		}
		if _, err := NewAuthority(name, 0, nil); !errors.Is(err, partition.ErrInvalid) {
			t.Errorf("cluster %q: %v", name, err)
		}
	}
	if _, err := a.Issue("x", "root", 0); !errors.Is(err, partition.ErrInvalid) {
		t.Errorf("role: %v", err)
	}
	empty := t.TempDir()
	if Exist(empty) {
		t.Error("certificates in an empty directory")
	}
	if _, err := Open(empty, nil, nil); !errors.Is(err, partition.ErrNotFound) {
		t.Errorf("an empty directory: %v", err)
	}
	if _, err := OpenAuthority(empty); !errors.Is(err, partition.ErrNotFound) {
		t.Errorf("an empty directory: %v", err)
	}
	if _, err := Open(issue(t, a, "n", Node, time.Nanosecond), nil, nil); !errors.Is(err, partition.ErrUnauthorized) {
		t.Errorf("an expired certificate: %v", err)
	}
	dir := issue(t, a, "n", Node, 0)
	if !Exist(dir) {
		t.Error("no certificates")
	}
	if err := Trust(dir, []byte("garbage")); !errors.Is(err, partition.ErrInvalid) {
		t.Errorf("trust garbage: %v", err)
	}
	for _, name := range []string{CAFile, CertFile, KeyFile} {
		dir := issue(t, a, "n", Node, 0)
		mustWrite(t, filepath.Join(dir, name), []byte("garbage"))
		if _, err := Open(dir, nil, nil); !errors.Is(err, partition.ErrCorrupt) {
			t.Errorf("garbage in %s: %v", name, err)
		}
		mustWrite(t, filepath.Join(dir, name), make([]byte, maxFileBytes+1))
		if _, err := Open(dir, nil, nil); !errors.Is(err, partition.ErrCorrupt) {
			t.Errorf("too much in %s: %v", name, err)
		}
		mustRemove(t, filepath.Join(dir, name))
		if _, err := Open(dir, nil, nil); !errors.Is(err, partition.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("no %s: %v", name, err)
		}
	}
}

func mustWrite(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func mustRemove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}
