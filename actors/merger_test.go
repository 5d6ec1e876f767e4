package actors

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
	"pando.dev/pando/split"
)

// merge has the first partition of a table absorb the second, and waits for the end.
func (c *testCluster) merge(table string) MergeInfo {
	c.tb.Helper()
	ctx, cancel := contextWithin(c.tb, patience)
	defer cancel()
	info, err := c.any().Merge(ctx, MergeRequest{Group: c.first(table), By: "test"})
	if err == nil {
		info, err = c.any().AwaitMerge(ctx, info.Task)
	}
	if err != nil {
		c.tb.Fatalf("merge: %+v, %v", info, err)
	}
	return info
}

// first is the partition with a table's first key.
func (c *testCluster) first(table string) partition.GroupID {
	c.tb.Helper()
	g, err := c.any().control.Catalog().Lookup(table, nil)
	if err != nil {
		c.tb.Fatal(err)
	}
	return g.ID
}

// TestMerge: all keys are there exactly once afterwards, on every node, all take
// writes, the partition that was absorbed is gone from every node and disk, and it can
// be divided again.
func TestMerge(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	c.table(TableSpec{Name: "t", SplitPoints: [][]byte{[]byte("k050")}})
	for i := range 100 {
		if err := put(t.Context(), c.nodes[i%3], fmt.Sprintf("k%03d", i), fmt.Sprintf("v%d", i)); err != nil {
			t.Fatalf("put %d: %v", i, err)
		}
	}
	stale, writer := c.client(t), c.client(t)
	for _, x := range []outerClient{stale, writer} {
		if _, err := x.KV("t").Get(t.Context(), []byte("k099")); err != nil {
			t.Fatal(err)
		}
	}
	plan, err := c.nodes[0].PlanMerge(MergeRequest{Group: c.first("t")})
	if err != nil || plan.State != "planned" || plan.Source.Group == 0 || plan.Table != "t" {
		t.Fatalf("%+v, %v", plan, err)
	}
	info := c.merge("t")
	// It has no session with the one that is gone, and asks it for one.
	if res, err := writer.KV("t").Put(t.Context(), []byte("k098"), []byte("v98")); err != nil || res == 0 {
		t.Errorf("a first write with old routes: %+v, %v", res, err)
	}
	for i := range 100 {
		got, err := get(t.Context(), c.nodes[i%3], fmt.Sprintf("k%03d", i))
		if err != nil || got != fmt.Sprintf("v%d", i) {
			t.Fatalf("get %d: %q, %v", i, got, err)
		}
		if err := put(t.Context(), c.nodes[i%3], fmt.Sprintf("k%03d", i), "again"); err != nil {
			t.Fatalf("put %d: %v", i, err)
		}
	}
	for _, key := range []string{"k099", "k000"} { // SPL-5 for merges
		if a, err := stale.KV("t").Get(t.Context(), []byte(key)); err != nil || string(a.Value) != "again" {
			t.Errorf("%s with old routes: %q, %v", key, a.Value, err)
		}
	}
	pairs := 0
	for _, err := range c.nodes[0].Client().KV("t").Scan(t.Context(), partition.KeyRange{}, 0) {
		if err != nil {
			t.Fatal(err)
		}
		pairs++
	}
	if pairs != 100 {
		t.Errorf("%d pairs in the table", pairs)
	}
	for _, n := range c.nodes {
		eventually(t, "the absorbed partition is gone", func() error {
			if n.cells.get(info.Source.Group) != nil {
				return fmt.Errorf("%s has it", n.ID())
			}
			return nil
		})
	}
	if _, err := c.nodes[0].PlanMerge(MergeRequest{Group: info.Group}); !errors.Is(err, partition.ErrInvalid) {
		t.Errorf("a merge with nobody: %v", err)
	}
	c.split(SplitRequest{Table: "t", At: [][]byte{[]byte("k030")}})
	c.merge("t")
	if got, err := get(t.Context(), c.nodes[1], "k099"); err != nil || got != "again" {
		t.Errorf("split and merged again: %q, %v", got, err)
	}
}

// TestMergeUnderLoad covers SPL-1 and SPL-4 for merges: no acknowledged write is lost
// or doubled while partitions are divided and merged, and versions only rise.
func TestMergeUnderLoad(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	c.table(TableSpec{Name: "t", SplitPoints: [][]byte{[]byte("m")}})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	table := c.nodes[1].Client().KV("t")
	x := c.load(ctx, 16, table)
	x.more(200)
	c.merge("t")
	x.more(200)
	c.split(SplitRequest{Table: "t", At: [][]byte{[]byte("a/006"), []byte("z/005")}})
	x.more(100)
	c.merge("t")
	x.more(100)
	c.merge("t")
	x.more(200)
	stop()
	x.check(table)
	if infos, err := c.nodes[0].Partitions(t.Context(), "t"); err != nil || len(infos) != 1 {
		t.Errorf("%d partitions, %v", len(infos), err)
	}
}

// TestMergeElsewhere: the two partitions are on different nodes, and what is absorbed
// takes several pages.
func TestMergeElsewhere(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	c.table(TableSpec{Name: "t", Replicas: 1, Nodes: []partition.NodeID{"n1"}})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	table := c.client(t).KV("t")
	x := c.load(ctx, 8, table)
	x.more(50)
	c.split(SplitRequest{Table: "t", At: [][]byte{[]byte("m")}, NewNodes: true})
	large := make([]byte, 2*mergePage/20)
	for i := range 40 {
		if _, err := table.Put(ctx, fmt.Appendf(nil, "p%02d", i), append(large, byte(i))); err != nil {
			t.Fatal(err)
		}
	}
	x.more(50)
	c.merge("t")
	x.more(50)
	stop()
	x.check(table)
	for i := range 40 {
		a, err := table.Get(t.Context(), fmt.Appendf(nil, "p%02d", i))
		if err != nil || len(a.Value) != len(large)+1 || a.Value[len(large)] != byte(i) {
			t.Errorf("p%02d: %d bytes, %v", i, len(a.Value), err)
		}
	}
}

// TestMergeWhileMembersChange covers S6: both groups change their members while the one
// absorbs the other.
func TestMergeWhileMembersChange(t *testing.T) {
	t.Parallel()
	reached, goOn := make(chan struct{}, 1), make(chan struct{})
	var once atomic.Bool
	c := newClusterWith(t, 4, func(cfg *Config) {
		cfg.onMerge = func(n *Node, _ partition.GroupID, s *split.Step) {
			if s.Kind == split.TakeIn && !once.Swap(true) {
				reached <- struct{}{}
				<-goOn
			}
		}
	})
	c.table(TableSpec{Name: "t", Replicas: 3, Nodes: []partition.NodeID{"n1", "n2", "n3"}, SplitPoints: [][]byte{[]byte("m")}})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	table := c.client(t).KV("t")
	x := c.load(ctx, 8, table)
	x.more(50)
	groups := c.any().control.Catalog().Groups("t")
	info, err := c.any().Merge(t.Context(), MergeRequest{Group: groups[0].ID})
	if err != nil {
		t.Fatal(err)
	}
	<-reached
	for _, g := range groups { // learners come, and would be voters
		if _, err := c.any().Change(ctx, PartitionChange{Group: g.ID, Kind: ChangeAdd, Node: "n4"}); err != nil {
			t.Errorf("a replica of %s on n4: %v", g.ID, err)
		}
	}
	close(goOn)
	wait, cancel := contextWithin(t, patience)
	defer cancel()
	if info, err = c.any().AwaitMerge(wait, info.Task); err != nil {
		t.Fatalf("%+v, %v", info, err)
	}
	x.more(50)
	stop()
	x.check(table)
}

// TestMergeMasterStops covers SPL-2 for merges: the node that takes a step goes before
// it does, and the merge ends one way or the other, with everything that was
// acknowledged.
func TestMergeMasterStops(t *testing.T) {
	for _, at := range []string{"merge-intent", "take-in", "seal", "hold", "source-seal", "sealed take-in", "merging", "source-gone", "tell", "done"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			reached := make(chan *Node, 1)
			var once atomic.Bool
			c := newClusterWith(t, 3, func(cfg *Config) {
				cfg.onMerge = func(n *Node, _ partition.GroupID, s *split.Step) {
					name := stepName(s)
					if s.Sealed {
						name = "sealed " + name
					}
					if name == at && !once.Swap(true) {
						reached <- n
						<-n.ctx.Done()
					}
				}
			})
			c.table(TableSpec{Name: "t", SplitPoints: [][]byte{[]byte("m")}})
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			table := c.client(t).KV("t")
			x := c.load(ctx, 8, table)
			x.more(50)
			info, err := c.any().Merge(t.Context(), MergeRequest{Group: c.first("t")})
			if err != nil {
				t.Fatal(err)
			}
			m := 0
			select {
			case n := <-reached:
				m = slices.Index(c.nodes, n)
			case <-time.After(patience):
				t.Fatalf("never came to %s", at)
			}
			c.stop(m)
			other := c.any()
			x.more(50)
			c.start(m)
			wait, cancel := contextWithin(t, patience)
			defer cancel()
			if info, err = other.AwaitMerge(wait, info.Task); err != nil && !errors.Is(err, partition.ErrRefused) {
				t.Fatalf("%+v, %v", info, err)
			}
			t.Logf("%s: %s", info.State, info.Why)
			x.more(50)
			stop()
			x.check(table)
		})
	}
}

// TestMergeMasterCutOff: the node that is about to take a step is cut off, and takes it
// when others have gone on and it is back: what it has decided, it has decided as no
// master any more.
func TestMergeMasterCutOff(t *testing.T) {
	for _, at := range []string{"take-in", "source-seal", "sealed take-in", "merging", "abort", "source-gone", "done"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			reached, goOn := make(chan *Node, 1), make(chan struct{})
			var once atomic.Bool
			c, p := newCutCluster(t, func(cfg *Config) {
				if at == "abort" {
					cfg.MergeBytes = 1
				}
				cfg.onMerge = func(n *Node, _ partition.GroupID, s *split.Step) {
					name := stepName(s)
					if s.Sealed {
						name = "sealed " + name
					}
					if name == at && !once.Swap(true) {
						reached <- n
						select {
						case <-goOn:
						case <-n.ctx.Done():
						}
					}
				}
			})
			c.table(TableSpec{Name: "t", SplitPoints: [][]byte{[]byte("m")}})
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			table := c.client(t).KV("t")
			x := c.load(ctx, 8, table)
			x.more(50)
			info, err := c.any().Merge(t.Context(), MergeRequest{Group: c.first("t")})
			if err != nil {
				t.Fatal(err)
			}
			var old *Node
			select {
			case old = <-reached:
			case <-time.After(patience):
				t.Fatalf("never came to %s", at)
			}
			p.cutOff(old.ID())
			other := c.nodes[(slices.Index(c.nodes, old)+1)%3]
			eventually(t, "the others go on", func() error {
				for _, g := range other.control.Catalog().Groups("t") {
					if g.Master == old.ID() {
						return fmt.Errorf("%s is master of %s", g.Master, g.ID)
					}
				}
				return nil
			})
			x.more(50)
			close(goOn)
			x.more(50)
			p.cutOff("")
			wait, cancel := contextWithin(t, patience)
			defer cancel()
			if info, err = other.AwaitMerge(wait, info.Task); err != nil && !errors.Is(err, partition.ErrRefused) {
				t.Fatalf("%+v, %v", info, err)
			}
			t.Logf("%s: %s", info.State, info.Why)
			x.more(50)
			stop()
			x.check(table)
		})
	}
}

// TestMergeAllRestart: all nodes stop right behind the decision, before anybody was told
// of it, and come back with it.
func TestMergeAllRestart(t *testing.T) {
	t.Parallel()
	reached := make(chan struct{}, 8)
	var going atomic.Bool
	c := newClusterWith(t, 3, func(cfg *Config) {
		cfg.onMerge = func(n *Node, _ partition.GroupID, s *split.Step) {
			if (s.Kind == split.Tell || s.Record == partition.KindSourceGone) && !going.Load() {
				reached <- struct{}{}
				<-n.ctx.Done()
			}
		}
	})
	c.table(TableSpec{Name: "t", SplitPoints: [][]byte{[]byte("k020")}})
	for i := range 40 {
		if err := put(t.Context(), c.nodes[i%3], fmt.Sprintf("k%03d", i), "v"); err != nil {
			t.Fatal(err)
		}
	}
	info, err := c.any().Merge(t.Context(), MergeRequest{Group: c.first("t")})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-reached:
	case <-time.After(patience):
		t.Fatal("never decided")
	}
	going.Store(true)
	for i := range c.nodes {
		c.stop(i)
	}
	for i := range c.nodes {
		c.start(i)
	}
	ctx, cancel := contextWithin(t, patience)
	defer cancel()
	eventually(t, "a control group", c.nodes[0].Ready)
	if info, err = c.nodes[0].AwaitMerge(ctx, info.Task); err != nil {
		t.Fatalf("%+v, %v", info, err)
	}
	for i := range 40 {
		if got, err := get(ctx, c.nodes[i%3], fmt.Sprintf("k%03d", i)); err != nil || got != "v" {
			t.Errorf("get %d: %q, %v", i, got, err)
		}
	}
}

// TestMergeAborted covers SPL-12 for merges: one that is called off when the source is
// sealed already leaves both as they were, and another one may follow. One that is too
// large is given up with the reason.
func TestMergeAborted(t *testing.T) {
	t.Parallel()
	reached, goOn := make(chan struct{}, 1), make(chan struct{})
	var once atomic.Bool
	c := newClusterWith(t, 3, func(cfg *Config) {
		cfg.MergeBytes = 64 << 10
		cfg.onMerge = func(n *Node, _ partition.GroupID, s *split.Step) {
			if s.Kind == split.TakeIn && s.Sealed && !once.Swap(true) {
				reached <- struct{}{}
				<-goOn
			}
		}
	})
	c.table(TableSpec{Name: "t", SplitPoints: [][]byte{[]byte("m")}})
	if err := put(t.Context(), c.nodes[0], "z", "v"); err != nil {
		t.Fatal(err)
	}
	info, err := c.nodes[0].Merge(t.Context(), MergeRequest{Group: c.first("t")})
	if err != nil {
		t.Fatal(err)
	}
	<-reached
	if err := c.nodes[0].control.CancelTask(t.Context(), control.TaskID(info.Task), "a test wants it"); err != nil {
		t.Fatal(err)
	}
	for _, n := range c.nodes { // whichever is the master has heard of it
		eventually(t, "the word to give up", func() error {
			if task, ok := n.control.Catalog().Task(control.TaskID(info.Task)); !ok || task.Cancel == "" {
				return fmt.Errorf("%s has not heard it", n.ID())
			}
			return nil
		})
	}
	close(goOn)
	ctx, cancel := contextWithin(t, patience)
	defer cancel()
	if _, err := c.nodes[0].AwaitMerge(ctx, info.Task); !errors.Is(err, partition.ErrRefused) {
		t.Errorf("the aborted merge: %v", err)
	}
	if got, err := get(ctx, c.nodes[1], "z"); err != nil || got != "v" {
		t.Errorf("%q, %v", got, err)
	}
	for i := range 100 {
		if err := put(ctx, c.nodes[0], fmt.Sprintf("z%d", i), string(make([]byte, 1<<10))); err != nil {
			t.Fatal(err)
		}
	}
	if info, err = c.nodes[0].Merge(ctx, MergeRequest{Group: c.first("t")}); err != nil {
		t.Fatal(err)
	}
	if info, err = c.nodes[0].AwaitMerge(ctx, info.Task); !errors.Is(err, partition.ErrRefused) || info.Why == "" {
		t.Errorf("too large a merge: %+v, %v", info, err)
	}
	for i := range 100 {
		if _, err := get(ctx, c.nodes[1], fmt.Sprintf("z%d", i)); err != nil {
			t.Error(err)
		}
	}
}
