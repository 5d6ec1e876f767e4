package actors

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"pando.dev/pando/actors/mailbox"
	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
	"pando.dev/pando/partition/store"
	"pando.dev/pando/wal"
)

// bare is a node of which only log and stores exist. Nothing becomes durable
// before the log's Turn.
func bare(t *testing.T) *Node {
	t.Helper()
	cfg := single(t, t.TempDir()).withDefaults()
	log, _, err := wal.Open(wal.OS{}, filepath.Join(cfg.Dir, "wal"), wal.Options{Node: "n", SegmentBytes: 1 << 20, Manual: true})
	if err != nil {
		t.Fatal(err)
	}
	engine, err := store.NewEngine(store.Options{Dir: t.TempDir(), MemoryBytes: 8 << 20, CacheBytes: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	n := &Node{suspects: new(suspects), cfg: cfg, logger: slog.New(slog.DiscardHandler), log: log, engine: engine, loading: make(chan struct{}, 1)}
	n.ctx, n.cancel = context.WithCancel(t.Context())
	t.Cleanup(func() {
		n.cancel()
		if err := log.Close(); err != nil {
			t.Error(err)
		}
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// genesis writes the first record of a group of three and returns it.
func genesis(t *testing.T, n *Node, g partition.GroupID) partition.Record {
	t.Helper()
	m := &partition.Membership{Version: 1, Policy: partition.Policy{Rule: partition.Majority}, Next: 4}
	for i, node := range []partition.NodeID{"n", "o", "p"} {
		m.Members = append(m.Members, partition.Member{Replica: partition.ReplicaID(i + 1), Node: node, Zone: "z", Kind: partition.Full, Eligible: true})
	}
	rec, err := partition.Genesis(g, m)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.log.Append(wal.Write{Group: g, Replica: 1, Commit: 1, Records: []partition.Record{rec}}, nil); err != nil {
		t.Fatal(err)
	}
	return rec
}

// TestRebuiltFromDisk covers SMF-12: a replica that is rebuilt in the same process
// takes for durable whatever the log shows, so it must not be shown what its
// predecessor appended before that is on disk. Otherwise it would stand by a
// promise, and acknowledge records, that a crash takes back.
func TestRebuiltFromDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := bare(t)
		genesis(t, n, 7)
		for n.log.Turn() {
		}
		promise := partition.NewEpoch(5, 2)
		durable := false
		if err := n.log.Append(wal.Write{Group: 7, Promise: promise}, func(error) { durable = true }); err != nil {
			t.Fatal(err)
		}
		c := &cell{group: 7, box: mailbox.New[any](mailbox.Config{})}
		c.ran.Store(true)
		var l *loaded
		var err error
		go func() { l, err = n.load(c, &control.Table{Name: "t", Kind: "kv"}) }()
		synctest.Wait()
		if l != nil || err != nil {
			t.Fatalf("loaded %+v, %v while the promise was not on disk", l, err)
		}
		for n.log.Turn() {
		}
		synctest.Wait()
		if l == nil || l.restored.Promised != promise || !durable {
			t.Fatalf("loaded %+v, %v with the promise on disk: %t", l, err, durable)
		}
	})
}

// TestNoBranchIsSent covers SMF-6: while a snip waits for room in the log, records
// of the branch that it removes are still there. A master must not send them as
// its own.
func TestNoBranchIsSent(t *testing.T) {
	n := bare(t)
	rec := genesis(t, n, 7)
	old := partition.NewEpoch(4, 2)
	branch := partition.NewRecord(partition.Header{Group: 7, Index: 2, Epoch: old, Prev: rec.Checksum(), Kind: partition.KindNoop}, nil)
	if err := n.log.Append(wal.Write{Group: 7, Promise: old, Records: []partition.Record{branch}}, nil); err != nil {
		t.Fatal(err)
	}
	for n.log.Turn() {
	}
	a := &replicaActor{node: n, cell: &cell{group: 7}}
	m := &replica.Append{Epoch: old, Prev: rec.Position(), Through: 2}
	if err := a.fill(m); err != nil || len(m.Records) != 1 {
		t.Fatalf("records %v, %v; want the one in the log", m.Records, err)
	}
	a.unwritten = []*replica.Persist{{Snip: true, After: 1}}
	m = &replica.Append{Epoch: partition.NewEpoch(5, 1), Prev: rec.Position(), Through: 2}
	if err := a.fill(m); err == nil {
		t.Errorf("records %v of a branch that is to be snipped", m.Records)
	}
}

// TestRotBelowState: a damaged record that the state has already is no longer in
// the log, and costs the replica nothing; its machine is told where the log begins
// now, so that a peer which needs the record counts as behind. One that the state
// needs is damage.
func TestRotBelowState(t *testing.T) {
	for _, flushed := range []partition.Index{2, 1} {
		n := bare(t)
		rec := genesis(t, n, 7)
		e := partition.NewEpoch(4, 1)
		payload := []byte("found by the test in the file")
		for i := partition.Index(2); i < 4; i++ {
			rec = partition.NewRecord(partition.Header{Group: 7, Index: i, Epoch: e, Prev: rec.Checksum(), Kind: partition.KindCommand}, payload)
			if err := n.log.Append(wal.Write{Group: 7, Promise: e, Records: []partition.Record{rec}}, nil); err != nil {
				t.Fatal(err)
			}
		}
		for n.log.Turn() {
		}
		n.log.SetFlushed(7, flushed, 0)
		files, err := filepath.Glob(filepath.Join(n.cfg.Dir, "wal", "*.wal"))
		if err != nil || len(files) != 1 {
			t.Fatalf("segments %v, %v", files, err)
		}
		b, err := os.ReadFile(files[0])
		if err != nil {
			t.Fatal(err)
		}
		b[bytes.Index(b, payload)] ^= 1
		if err := os.WriteFile(files[0], b, 0); err != nil {
			t.Fatal(err)
		}
		a := &replicaActor{node: n, cell: &cell{group: 7}}
		err = a.send(&replica.Send{To: 2, Message: &replica.Append{Epoch: e, Prev: partition.Position{Index: 1}, Through: 3}})
		if (err != nil) != (flushed < 2) {
			t.Errorf("state at %d: %v", flushed, err)
		}
		if flushed == 2 && (len(a.driver.events) != 1 || a.driver.events[0].Input != replica.Truncated{First: 3}) {
			t.Errorf("the machine is told %+v", a.driver.events)
		}
	}
}
