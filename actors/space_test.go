package actors

import (
	"fmt"
	"sync/atomic"
	"testing"

	"pando.dev/pando/actors/client"
	"pando.dev/pando/partition"
)

// TestLogFull: while the disk is full writes are refused at once and reads go on,
// for longer than a master waits for durability would matter; when space returns
// the node goes on by itself.
func TestLogFull(t *testing.T) {
	t.Parallel()
	var full atomic.Bool
	cfg := single(t, t.TempDir())
	cfg.diskFree = func() (int64, int64, error) {
		if full.Load() {
			return 0, 100, nil
		}
		return 50, 100, nil
	}
	c := startSingle(t, cfg)
	c.table(TableSpec{Name: "t"})
	n := c.any()
	if err := put(t.Context(), n, "k", "v"); err != nil {
		t.Fatal(err)
	}
	epoch := n.cells.get(groupsOf(n)[0]).view.Load().Epoch
	full.Store(true)
	eventually(t, "the log full", func() error {
		if !n.log.Full() {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	for range 100 {
		if err := put(t.Context(), n, "k", "w"); partition.CodeOf(err) != partition.CodeNoSpace {
			t.Fatalf("put on a full disk: %v, want no_space", err)
		}
		if got, err := get(t.Context(), n, "k"); err != nil || got != "v" {
			t.Fatalf("get on a full disk: %q, %v", got, err)
		}
	}
	// What would begin a split is refused as well, and what would end one is not, or
	// the keys that it has sealed could not be read either.
	payload, err := partition.Decision{Task: 1, Intent: 1, Version: 1}.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		kind partition.Kind
		want partition.Code
	}{{partition.KindSeal, partition.CodeNoSpace}, {partition.KindAbort, partition.CodeRefused}, {partition.KindSourceUnseal, partition.CodeRefused}} {
		done := make(chan error, 1)
		n.cells.get(groupsOf(n)[0]).ask(&structural{kind: x.kind, payload: payload, done: func(_ partition.Index, err error) { done <- err }})
		if err := <-done; partition.CodeOf(err) != x.want {
			t.Errorf("%s on a full disk: %v, want %s", x.kind, err, x.want)
		}
	}
	full.Store(false)
	eventually(t, "writes again", func() error { return put(t.Context(), n, "k", "w") })
	if now := n.cells.get(groupsOf(n)[0]).view.Load().Epoch; now != epoch {
		t.Errorf("the master changed: epoch %s, was %s", now, epoch)
	}
}

// TestBurst (P4): more bytes at once than a segment of the log holds, and than the
// store may hold in memory, are divided and waited for; no replica fails.
func TestBurst(t *testing.T) {
	t.Parallel()
	c := newClusterWith(t, 3, func(cfg *Config) { cfg.MemoryBytes = 512 << 10 })
	c.table(TableSpec{Name: "t"})
	n := c.nodes[c.master("t")]
	const puts = 60
	value := make([]byte, 100<<10)
	errs := make(chan error, puts)
	ctx, cancel := contextWithin(t, patience)
	defer cancel()
	kv := n.Client().KV("t")
	for i := range puts {
		go func() {
			_, err := kv.Put(ctx, fmt.Appendf(nil, "k%02d", i), value)
			errs <- err
		}()
	}
	for range puts {
		if err := <-errs; err != nil {
			t.Errorf("put: %v", err)
		}
	}
	for i := range puts {
		if got, err := get(t.Context(), n, fmt.Sprintf("k%02d", i)); err != nil || len(got) != len(value) {
			t.Fatalf("get %d: %d bytes, %v", i, len(got), err)
		}
	}
	var waits uint64
	for _, n := range c.nodes {
		waits += n.counters.roomWaits.Load()
		if r := n.counters.restarts.Load(); r != 0 {
			t.Errorf("%s: %d replicas failed", n.ID(), r)
		}
	}
	if waits == 0 {
		t.Error("no replica had to wait for room: the test shows nothing")
	}
	if _, err := kv.Put(t.Context(), []byte("k"), make([]byte, 1<<20)); partition.CodeOf(err) != partition.CodeTooLarge {
		t.Errorf("a value that no write to these segments holds: %v, want too_large", err)
	}
}

// propose sends one command as a client of this node would, in a session.
func propose(n *Node, req *client.Request) *client.Response {
	answer := make(chan *client.Response, 1)
	backend{n}.Propose(req, func(r *client.Response) { c := *r; answer <- &c })
	return <-answer
}

// TestFullPeer: a peer whose disk is full takes no commands, which the others
// commit without it; and when the master goes it promises and takes the first
// record of the next one, so that the group has a master and answers reads.
func TestFullPeer(t *testing.T) {
	t.Parallel()
	var full [3]atomic.Bool
	i := -1
	c := newClusterWith(t, 3, func(cfg *Config) {
		i++
		mine := &full[i]
		cfg.diskFree = func() (int64, int64, error) {
			if mine.Load() {
				return 0, 100, nil
			}
			return 50, 100, nil
		}
		cfg.untended = true
	})
	c.table(TableSpec{Name: "t"})
	g := groupsOf(c.any())[0]
	master := c.master("t")
	peer := (master + 1) % 3
	m, x := c.nodes[master], c.nodes[peer]
	fill := func(on bool) {
		full[peer].Store(on)
		eventually(t, "the peer's log to notice", func() error {
			if x.log.NoSpace() != on {
				return fmt.Errorf("full %v", !on)
			}
			return nil
		})
	}
	fill(true)
	for i := range 20 {
		if err := put(t.Context(), m, fmt.Sprint(i), "v"); err != nil {
			t.Fatalf("put with one full disk of three: %v", err)
		}
	}
	eventually(t, "the peer to take no commands", func() error {
		if x.counters.noRoom.Load() == 0 {
			return fmt.Errorf("it has refused none")
		}
		return nil
	})
	fill(false)
	eventually(t, "the peer to catch up", func() error {
		if a, b := m.cells.get(g).status.Load().Last, x.cells.get(g).status.Load().Last; a != b {
			return fmt.Errorf("%v behind %v", b, a)
		}
		return nil
	})
	fill(true)
	c.stop(master)
	eventually(t, "a read", func() error {
		got, err := get(t.Context(), c.nodes[3-master-peer], "7")
		if err == nil && got != "v" {
			t.Fatalf("read %q", got)
		}
		return err
	})
}
