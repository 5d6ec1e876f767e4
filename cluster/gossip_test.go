package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pando.dev/pando/partition"
)

// gossipNode starts a node on a free port of loopback that probes fast, so that
// the tests need not wait.
func gossipNode(t *testing.T, node string, change func(*GossipConfig)) *Gossip {
	t.Helper()
	cfg := GossipConfig{
		Node: partition.NodeID(node), Boot: 1, Cluster: "test", Zone: "z-" + node, Bind: "127.0.0.1:0",
		LinkAddr: "10.0.0.1:1", HTTPAddr: "10.0.0.1:2", Version: "v0", Expect: 3, Dir: t.TempDir(),
		ProbeInterval: 100 * time.Millisecond, LeaveDelay: 50 * time.Millisecond,
	}
	if change != nil {
		change(&cfg)
	}
	g, err := StartGossip(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return g
}

// waitFor waits with Changed until the condition holds.
func waitFor(t *testing.T, g *Gossip, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(15 * time.Second)
	for {
		changed := g.Changed()
		if ok() {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("%s: no %s in time: %+v, members %+v", g.cfg.Node, what, g.Status(), g.Members())
		}
	}
}

func (g *Gossip) member(id partition.NodeID) Node {
	for _, n := range g.Members() {
		if n.ID == id {
			return n
		}
	}
	return Node{}
}

func alive(g *Gossip) int {
	n := 0
	for _, m := range g.Members() {
		if m.Status == Alive {
			n++
		}
	}
	return n
}

func TestThreeNodesFindEachOther(t *testing.T) {
	a := gossipNode(t, "a", nil)
	join := func(c *GossipConfig) { c.Join = []string{a.Address()} }
	b, c := gossipNode(t, "b", join), gossipNode(t, "c", join)
	for _, g := range []*Gossip{a, b, c} {
		waitFor(t, g, "three members", func() bool { return alive(g) == 3 && g.Status().Joined })
	}
	want := Node{
		ID: "b", Boot: 1, Status: Alive, Zone: "z-b", Gossip: b.Address(), Link: "10.0.0.1:1", HTTP: "10.0.0.1:2",
		Version: "v0", Expect: 3,
	}
	if got := c.member("b"); got != want {
		t.Fatalf("c sees b as %+v, want %+v", got, want)
	}
	if err := b.SetTag(TagSeat, "1"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, c, "seat of b", func() bool { return c.member("b").Seat })
	if err := b.Leave(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	waitFor(t, a, "leave of b", func() bool { return a.member("b").Status == Left })
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, a, "failure of c", func() bool { return a.member("c").Status == Failed })
}

func TestOtherClusterIsRefused(t *testing.T) {
	a := gossipNode(t, "a", nil)
	b := gossipNode(t, "b", func(c *GossipConfig) {
		c.Cluster, c.Join = "other", []string{a.Address()}
	})
	waitFor(t, b, "refusal", func() bool { return errors.Is(b.Status().Err, partition.ErrRefused) })
	if len(a.Members()) != 1 || len(b.Members()) != 1 || b.Status().Joined {
		t.Fatalf("clusters merged: %+v, %+v", a.Members(), b.Members())
	}
	t.Log(b.Status().Err)
}

func TestOtherControlGroupIsRefused(t *testing.T) {
	a := gossipNode(t, "a", nil)
	if err := a.SetTag(TagControlGroup, "1f"); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "join")
	b := gossipNode(t, "b", func(c *GossipConfig) { c.Join = []string{"file:" + file} })
	if err := b.SetTag(TagControlGroup, "2e"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(a.Address()), 0o600); err != nil {
		t.Fatal(err)
	}
	waitFor(t, b, "refusal", func() bool { return errors.Is(b.Status().Err, partition.ErrRefused) })
	if len(a.Members()) != 1 || len(b.Members()) != 1 {
		t.Fatalf("two control groups merged: %+v, %+v", a.Members(), b.Members())
	}
}

func TestWrongKey(t *testing.T) {
	key := func(b byte) func(*GossipConfig) {
		return func(c *GossipConfig) {
			if b != 0 {
				c.Key = bytes.Repeat([]byte{b}, KeyBytes)
			}
		}
	}
	a := gossipNode(t, "a", key(1))
	for i, other := range []byte{2, 0} {
		b := gossipNode(t, fmt.Sprintf("b%d", i), func(c *GossipConfig) {
			key(other)(c)
			c.Join = []string{a.Address()}
		})
		waitFor(t, b, "error", func() bool { return errors.Is(b.Status().Err, partition.ErrUnauthorized) })
		if len(a.Members()) != 1 {
			t.Fatalf("a node with another key is a member: %+v", a.Members())
		}
		t.Log(b.Status().Err)
	}
	c := gossipNode(t, "c", func(c *GossipConfig) {
		key(1)(c)
		c.Join = []string{a.Address()}
	})
	waitFor(t, a, "node with the same key", func() bool { return alive(a) == 2 })
	waitFor(t, c, "others", func() bool { return c.Status().Err == nil })
}

func TestRefusedStarts(t *testing.T) {
	a := gossipNode(t, "a", nil)
	base := GossipConfig{Node: "b", Boot: 1, Cluster: "test", Bind: "127.0.0.1:0", Dir: t.TempDir()}
	for name, x := range map[string]struct {
		change func(*GossipConfig)
		code   partition.Code
	}{
		"open without a key": {func(c *GossipConfig) { c.Bind = "0.0.0.0:0" }, partition.CodeRefused},
		"no host":            {func(c *GossipConfig) { c.Bind = ":0" }, partition.CodeRefused},
		"port taken":         {func(c *GossipConfig) { c.Bind = a.Address() }, partition.CodeRefused},
		"short key":          {func(c *GossipConfig) { c.Key = []byte("short") }, partition.CodeInvalid},
		"no boot":            {func(c *GossipConfig) { c.Boot = 0 }, partition.CodeInvalid},
		"bad id":             {func(c *GossipConfig) { c.Node = "a b" }, partition.CodeInvalid},
		"bad cluster":        {func(c *GossipConfig) { c.Cluster = "" }, partition.CodeInvalid},
		"bad join":           {func(c *GossipConfig) { c.Join = []string{"nowhere"} }, partition.CodeInvalid},
		"bad advertise":      {func(c *GossipConfig) { c.Advertise = "name:1" }, partition.CodeInvalid},
		"bad bind":           {func(c *GossipConfig) { c.Bind = "127.0.0.1" }, partition.CodeInvalid},
	} {
		cfg := base
		x.change(&cfg)
		g, err := StartGossip(cfg)
		if partition.CodeOf(err) != x.code {
			t.Errorf("%s: %v, want code %v", name, err, x.code)
		}
		if g != nil {
			g.Close()
		}
	}
}

// A process that dies and is back before anybody noticed shows as another boot.
func TestFastRestartShowsAnotherBoot(t *testing.T) {
	a := gossipNode(t, "a", func(c *GossipConfig) { c.ProbeInterval = 2 * time.Second })
	dir := t.TempDir()
	start := func(boot uint64, bind string) *Gossip {
		return gossipNode(t, "b", func(c *GossipConfig) {
			c.Boot, c.Bind, c.Dir, c.Join = boot, bind, dir, []string{a.Address()}
		})
	}
	b := start(1, "127.0.0.1:0")
	waitFor(t, a, "b", func() bool { return a.member("b").Boot == 1 })
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if a.member("b").Status != Alive {
		t.Fatal("the failure was noticed before the restart; the test shows nothing")
	}
	b = start(2, b.Address())
	waitFor(t, a, "second boot of b", func() bool { n := a.member("b"); return n.Boot == 2 && n.Status == Alive })
	if d := b.Status().Duplicate; d != nil {
		t.Fatalf("its own past is taken for another process: %v", d)
	}
}

// The file may come later; it is read again at every attempt.
func TestJoinByFile(t *testing.T) {
	a := gossipNode(t, "a", nil)
	file := filepath.Join(t.TempDir(), "join")
	b := gossipNode(t, "b", func(c *GossipConfig) { c.Join = []string{"file:" + file} })
	waitFor(t, b, "error without the file", func() bool { return errors.Is(b.Status().Err, partition.ErrNotFound) })
	if b.Status().Joined {
		t.Fatal("joined nobody, says it has")
	}
	text := fmt.Sprintf("# the first node\n\n%s\nnonsense\n", a.Address())
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	waitFor(t, b, "member a", func() bool { return b.member("a").Status == Alive })
	waitFor(t, b, "joined", func() bool { return b.Status().Joined })
}

// A node that ran before finds the others without being told.
func TestRejoinByRememberedPeers(t *testing.T) {
	a := gossipNode(t, "a", nil)
	dir := t.TempDir()
	b := gossipNode(t, "b", func(c *GossipConfig) { c.Dir, c.Join = dir, []string{a.Address()} })
	waitFor(t, b, "a", func() bool {
		peers, err := RememberedPeers(dir)
		return err == nil && slices.Contains(peers, a.Address())
	})
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	// Without the library's own memory: ours must do.
	if err := os.Remove(filepath.Join(dir, "gossip.snap")); err != nil {
		t.Fatal(err)
	}
	b = gossipNode(t, "b", func(c *GossipConfig) { c.Dir, c.Boot = dir, 2 })
	waitFor(t, b, "a", func() bool { return b.member("a").Status == Alive && b.Status().Joined })
	waitFor(t, a, "second boot", func() bool { return a.member("b").Boot == 2 })
}

// Two processes with one node id: at least the older of them finds out.
func TestDuplicateNode(t *testing.T) {
	a := gossipNode(t, "a", nil)
	join := []string{a.Address()}
	first := gossipNode(t, "b", func(c *GossipConfig) { c.Join = join })
	waitFor(t, a, "b", func() bool { return a.member("b").Boot == 1 })
	second := gossipNode(t, "b", func(c *GossipConfig) { c.Join, c.Boot = append(join, first.Address()), 2 })
	waitFor(t, first, "its double", func() bool { return first.Status().Duplicate != nil })
	if !errors.Is(first.Status().Duplicate, partition.ErrRefused) {
		t.Fatal(first.Status().Duplicate)
	}
	_ = second
}

func TestNobodyAnswers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := l.Addr().String()
	l.Close()
	b := gossipNode(t, "b", func(c *GossipConfig) { c.Join = []string{gone} })
	waitFor(t, b, "error", func() bool { return errors.Is(b.Status().Err, partition.ErrUnavailable) && b.Status().Attempts > 1 })
	if b.Status().Joined {
		t.Fatal("joined nobody, says it has")
	}
}

// TestCloseWhileJoining: to close does not wait until everybody was tried who does
// not answer.
func TestCloseWhileJoining(t *testing.T) {
	var silent []string
	for range 8 {
		l, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, and says nothing
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		silent = append(silent, l.Addr().String())
	}
	g := gossipNode(t, "a", func(c *GossipConfig) { c.Join = silent })
	began := time.Now()
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	// Each is waited for for a second.
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("closed after %s", took)
	}
}
