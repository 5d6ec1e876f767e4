package actors

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/split"
)

// TestChildLostBeforeItIsOnDisk: the log says that a child begins before its state
// is on disk. If the node ends in between the state is made of the parent's once
// more, and what the child has taken since is in its log (SPL-2).
func TestChildLostBeforeItIsOnDisk(t *testing.T) {
	t.Parallel()
	cfg, log := listened(t)
	reached := make(chan struct{}, 1)
	var once atomic.Bool
	cfg.onSplit = func(n *Node, s *split.Step) {
		if stepName(s) == "done" && !once.Swap(true) {
			if x := n.cells.get(1).extent.Load(); !n.cells.get(2).durable(x.Split.At) {
				t.Error("the split is about to be done, and the child is not on disk")
			}
			reached <- struct{}{}
			<-n.ctx.Done()
			for range time.NewTicker(time.Millisecond).C {
				if n.cells.get(1).view.Load() == nil {
					return // nobody is left to take the record
				}
			}
		}
	}
	c := startSingle(t, cfg)
	n := c.any()
	c.group(TableSpec{Name: "t"})
	write := func(value string) {
		t.Helper()
		for i := range 20 {
			if err := put(t.Context(), c.any(), fmt.Sprintf("k%03d", i), value); err != nil {
				t.Fatal(err)
			}
		}
	}
	write("before")
	info, err := n.Split(t.Context(), SplitRequest{Table: "t", At: [][]byte{[]byte("k010")}})
	if err != nil {
		t.Fatal(err)
	}
	<-reached
	write("after")
	c.stop(0)
	stores, err := filepath.Glob(filepath.Join(cfg.Dir, "stores", info.Pieces[0].Group.String(), "*"))
	if err != nil || len(stores) != 1 {
		t.Fatalf("%v, %v", stores, err)
	}
	if err := os.RemoveAll(stores[0]); err != nil {
		t.Fatal(err)
	}
	c.start(0)
	ctx, cancel := contextWithin(t, patience)
	defer cancel()
	if info, err = c.any().AwaitSplit(ctx, info.Task); err != nil {
		t.Fatalf("%+v, %v", info, err)
	}
	for i := range 20 {
		if v, err := get(ctx, c.any(), fmt.Sprintf("k%03d", i)); err != nil || v != "after" {
			t.Errorf("key %d: %q, %v", i, v, err)
		}
	}
	if !log.says("state of a child made once more") {
		t.Error("the state was not lost")
	}
}

// TestChildLostForGood: once the split is done a child's state that is gone is
// damage, and is never made of what the parent has become.
func TestChildLostForGood(t *testing.T) {
	t.Parallel()
	cfg, log := listened(t)
	c := startSingle(t, cfg)
	g := c.group(TableSpec{Name: "t"})
	if err := put(t.Context(), c.any(), "k", "v"); err != nil {
		t.Fatal(err)
	}
	info := c.split(SplitRequest{Table: "t", At: [][]byte{[]byte("k")}})
	child := info.Pieces[0].Group
	n := c.any()
	eventually(t, "the split is over here", func() error {
		if x := n.cells.get(g.id).extent.Load(); x.Split != nil {
			return fmt.Errorf("%s", x.Describe())
		}
		return nil
	})
	sum, _ := n.log.Summary(child)
	if err := n.remake(child, sum); partition.CodeOf(err) != partition.CodeCorrupt {
		t.Errorf("%v", err)
	}
	c.stop(0)
	if err := os.RemoveAll(filepath.Join(cfg.Dir, "stores", child.String())); err != nil {
		t.Fatal(err)
	}
	c.start(0)
	eventually(t, "the damage is told", func() error {
		if !log.says("is not the one at record") {
			return fmt.Errorf("nothing is said")
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if v, err := get(ctx, c.any(), "k"); err == nil {
		t.Errorf("%q is served", v)
	}
}

// TestSeedThatIsNotNeeded: a seed goes with its split, and one whose parent is gone
// does not stay.
func TestSeedThatIsNotNeeded(t *testing.T) {
	t.Parallel()
	c := startSingle(t, single(t, t.TempDir()))
	g := c.group(TableSpec{Name: "t"})
	n := c.any()
	if err := put(t.Context(), n, "k", "v"); err != nil {
		t.Fatal(err)
	}
	cell := n.cells.get(g.id)
	s := &seed{node: n, parent: cell, child: &partition.Child{Group: 99, Membership: &partition.Membership{}}, hint: make(chan struct{}, 1), ended: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(n.ctx)
	defer s.cancel()
	// The parent is not split, so there is nothing that this could become.
	if err := s.grow(); err == nil || !strings.Contains(err.Error(), "too late") {
		t.Errorf("%v", err)
	}
	s.drop()
	if found, err := filepath.Glob(filepath.Join(c.cfgs[0].Dir, "stores", "g99", "*")); err != nil || len(found) > 0 {
		t.Errorf("left: %v, %v", found, err)
	}
}

// TestTurnOf: the first master's disk is busy first, then the others' one by one.
func TestTurnOf(t *testing.T) {
	c := &partition.Child{First: 4, Membership: &partition.Membership{Members: []partition.Member{{Replica: 2}, {Replica: 4}, {Replica: 7}}}}
	for r, want := range map[partition.ReplicaID]int{4: 0, 2: 1, 7: 2} {
		if got := turnOf(c, r); got != want {
			t.Errorf("replica %d is number %d, want %d", r, got, want)
		}
	}
}

// TestEarly: messages are kept for who is expected only, so many, and once.
func TestEarly(t *testing.T) {
	var e early
	if m := (&received{}); e.keep(7, m) || e.expects(7) {
		t.Error("kept for a group that nobody expects")
	}
	e.expect(7)
	for range maxEarly + 1 {
		if !e.keep(7, &received{}) {
			t.Error("not kept")
		}
	}
	if got := len(e.take(7)); got != maxEarly || e.expects(7) || len(e.take(7)) != 0 {
		t.Errorf("%d were kept", got)
	}
}

// TestChildBeginsWithItsMaster: a child is made of its seed, and its first master
// leads in the first epoch without asking anybody, with the lock that it was given
// beforehand or none.
func TestChildBeginsWithItsMaster(t *testing.T) {
	t.Parallel()
	cfg, log := listened(t)
	c := startSingle(t, cfg)
	g := c.group(TableSpec{Name: "t"})
	if err := put(t.Context(), c.any(), "k", "v"); err != nil {
		t.Fatal(err)
	}
	child := c.split(SplitRequest{Table: "t", At: [][]byte{[]byte("k")}}).Pieces[0].Group
	n := c.any()
	v := n.cells.get(child).view.Load()
	if v == nil || !v.Serving || v.Epoch != partition.NewEpoch(1, v.Self) {
		t.Errorf("the child's master: %+v", v)
	}
	sum, _ := n.log.Summary(child)
	if x, _ := n.cells.get(g.id).served(); sum.Before.Index == 0 || x.Version == 0 || sum.Promise != v.Epoch {
		t.Errorf("the log of the child begins behind %s and promises %s; the parent serves %+v", sum.Before, sum.Promise, x)
	}
	if !log.says("seed=true") {
		t.Error("the seed was not used")
	}
}
