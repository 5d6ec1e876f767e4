package actors

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"pando.dev/pando/cluster/placement"
	"pando.dev/pando/partition"
)

// never has nobody replaced within a test.
func never(c *Config) { c.LogAfter, c.ReplaceAfter = time.Hour, time.Hour }

// membership is the group's configuration as its master has it, committed.
func (g *groupOf) membership() (*partition.Membership, error) {
	for _, n := range g.nodes {
		if n == nil {
			continue
		}
		if c := n.cells.get(g.id); c != nil {
			if v := c.view.Load(); v != nil && v.Serving && v.Master == v.Self {
				if len(v.Configurations) > 1 {
					return nil, errors.New("a change is under way")
				}
				return v.Configurations[0], nil
			}
		}
	}
	return nil, errors.New("nobody serves")
}

// why says what the group's master does for it.
func (g *groupOf) why() string {
	for _, n := range g.nodes {
		if n == nil {
			continue
		}
		if step, why := n.tending(g.id); step+why != "" {
			return fmt.Sprintf("%s: %s (%s)", n.ID(), why, step)
		}
	}
	return "nothing is to be done"
}

// become waits until the group's configuration fits.
func (g *groupOf) become(what string, fits func(*partition.Membership) bool) *partition.Membership {
	g.tb.Helper()
	var m *partition.Membership
	eventually(g.tb, what, func() (err error) {
		if m, err = g.membership(); err != nil {
			return fmt.Errorf("%w; %s", err, g.why())
		}
		if !fits(m) {
			return fmt.Errorf("it is %+v; %s", m.Members, g.why())
		}
		return nil
	})
	return m
}

// fullOn fits a configuration of full eligible members on so many nodes.
func fullOn(n int) func(*partition.Membership) bool {
	return func(m *partition.Membership) bool {
		for _, x := range m.Members {
			if x.Kind != partition.Full || !x.Eligible {
				return false
			}
		}
		return len(m.Members) == n
	}
}

// at returns the index of a node.
func (c *testCluster) at(id partition.NodeID) int {
	return slices.IndexFunc(c.cfgs, func(cfg Config) bool { return cfg.NodeID == id })
}

// writer writes one key after another until it is stopped, and remembers what was
// acknowledged.
type writer struct {
	stop  context.CancelFunc
	wg    sync.WaitGroup
	mu    sync.Mutex
	acked int
	err   error
}

func (g *groupOf) write(n *Node) *writer {
	ctx, cancel := context.WithCancel(g.tb.Context())
	w := &writer{stop: cancel}
	kv := n.Client().KV("t")
	w.wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			limited, cancel := context.WithTimeout(ctx, patience)
			_, err := kv.Put(limited, fmt.Appendf(nil, "w%06d", i), fmt.Appendf(nil, "%d", i))
			cancel()
			w.mu.Lock()
			if err != nil && ctx.Err() == nil {
				w.err = fmt.Errorf("write %d: %w", i, err)
				w.mu.Unlock()
				return
			}
			if err == nil {
				w.acked = i + 1
			}
			w.mu.Unlock()
		}
	})
	g.tb.Cleanup(func() { cancel(); w.wg.Wait() })
	return w
}

// check stops the writer and reads everything back.
func (w *writer) check(tb testing.TB, n *Node) {
	tb.Helper()
	w.stop()
	w.wg.Wait()
	if w.err != nil {
		tb.Errorf("a write failed: %v", w.err)
	}
	for i := range w.acked {
		got, err := n.Client().KV("t").Get(tb.Context(), fmt.Appendf(nil, "w%06d", i))
		if err != nil || string(got.Value) != fmt.Sprint(i) {
			tb.Fatalf("write %d was acknowledged and is lost: %q, %v", i, got.Value, err)
		}
	}
	if w.acked == 0 {
		tb.Error("nothing was written")
	}
	tb.Logf("%d writes", w.acked)
}

// MEM-1, MEM-5: three replicas, five, three, under load; every version is one
// more than the last, and all members agree.
func TestTenderAltersReplicas(t *testing.T) {
	t.Parallel()
	c := newClusterWith(t, 5, never)
	g := c.group(TableSpec{Name: "t", Replicas: 3})
	w := g.write(c.nodes[0])
	for _, n := range []int{5, 3, 4, 3} {
		if _, err := c.nodes[1].AlterTable(t.Context(), "t", TableChange{Replicas: n}); err != nil {
			t.Fatal(err)
		}
		m := g.become(fmt.Sprintf("%d replicas", n), fullOn(n))
		eventually(t, "every member knows", func() error {
			for _, x := range m.Members {
				c := c.nodes[g.at(x.Node)].cells.get(g.id)
				if c == nil || c.view.Load() == nil || c.view.Load().Configurations.Last().Version != m.Version {
					return fmt.Errorf("not %s", x.Node)
				}
			}
			return nil
		})
	}
	w.check(t, c.nodes[2])
}

// CAT-3, CAT-9: a voter is lost for good. A log replica stands in for it on the
// node that is left, so that the group survives the loss of another one with
// everything acknowledged; later it gets the state and is a full replica.
func TestTenderStandsInForLostVoter(t *testing.T) {
	t.Parallel()
	// Five seats, so that the control group stands the loss of two nodes.
	c := newClusterWith(t, 5, func(c *Config) { c.LogAfter, c.ReplaceAfter, c.Expect = 300*time.Millisecond, 6*time.Second, 5 })
	g := c.group(TableSpec{Name: "t", Replicas: 3})
	writer := g.masterNode()
	w := g.write(c.nodes[g.at(writer)])
	peers := g.peers()
	// The master may have changed meanwhile.
	lost := peers[slices.IndexFunc(peers, func(id partition.NodeID) bool { return id != writer })]
	c.stop(g.at(lost))
	m := g.become("a log replica stands in", func(m *partition.Membership) bool {
		x, ok := m.OnNode(lost)
		return ok && !x.Eligible && slices.ContainsFunc(m.Members, func(x partition.Member) bool { return x.Kind == partition.LogReplica })
	})
	spare := m.Members[len(m.Members)-1]
	w.stop()
	w.wg.Wait()
	// The master goes too: the last full replica, with the log replica's help,
	// has everything.
	master := g.masterNode()
	c.stop(g.at(master))
	eventually(t, "the last full replica is master", func() error {
		n, mc := g.master()
		if n.ID() == master || n.ID() == spare.Node || mc == nil {
			return fmt.Errorf("%s is", n.ID())
		}
		return nil
	})
	w.check(t, g.nodes[g.at(spare.Node)])
	c.start(g.at(master))
	g.become("the log replica is a full one, the lost one is gone", func(m *partition.Membership) bool {
		x, ok := m.OnNode(spare.Node)
		_, still := m.OnNode(lost)
		return fullOn(3)(m) && ok && x.Replica == spare.Replica && !still
	})
	w.check(t, g.any())
}

// A voter that comes back in time is eligible again, under its id, and the log
// replica goes.
func TestTenderVoterComesBack(t *testing.T) {
	t.Parallel()
	c := newClusterWith(t, 4, func(c *Config) { c.LogAfter, c.ReplaceAfter = 300*time.Millisecond, time.Hour })
	g := c.group(TableSpec{Name: "t", Replicas: 3})
	before, err := g.membership()
	if err != nil {
		t.Fatal(err)
	}
	away := g.peers()[0]
	c.stop(g.at(away))
	g.become("a log replica", func(m *partition.Membership) bool {
		return slices.ContainsFunc(m.Members, func(x partition.Member) bool { return x.Kind == partition.LogReplica })
	})
	w := g.write(g.any())
	c.start(g.at(away))
	m := g.become("as before", fullOn(3))
	if !slices.Equal(m.Members, before.Members) {
		t.Errorf("it was %+v and is %+v", before.Members, m.Members)
	}
	w.check(t, g.any())
}

// SMF-11, in part: a replica whose log rotted is replaced on its node under a new
// id, by itself, and the group survives a loss again.
func TestTenderReplacesDamagedReplica(t *testing.T) {
	t.Parallel()
	c := newClusterWith(t, 3, never)
	g := c.group(TableSpec{Name: "t", Replicas: 3})
	const mark = "this value will rot"
	if err := put(t.Context(), c.any(), "a", mark); err != nil {
		t.Fatal(err)
	}
	for i := range 20 { // synced behind it, so it is no torn end
		if err := put(t.Context(), c.any(), fmt.Sprintf("z%d", i), "v"); err != nil {
			t.Fatal(err)
		}
	}
	bad := g.peers()[0]
	c.stop(g.at(bad))
	rot(t, c.cfgs[g.at(bad)].Dir, mark)
	c.start(g.at(bad))
	g.become("it is replaced", func(m *partition.Membership) bool {
		x, ok := m.OnNode(bad)
		return fullOn(3)(m) && ok && x.Replica == 4
	})
	for _, id := range g.peers() {
		if id != bad {
			c.stop(g.at(id))
		}
	}
	if got, err := get(t.Context(), c.any(), "a"); err != nil || got != mark {
		t.Errorf("with the new replica and one other: %q, %v", got, err)
	}
}

// MEM-1: an operator adds, replaces and removes replicas of one group under load.
func TestChangesOfOnePartition(t *testing.T) {
	t.Parallel()
	c := newClusterWith(t, 4, never)
	g := c.group(TableSpec{Name: "t", Replicas: 3})
	w := g.write(c.nodes[0])
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	change := func(p PartitionChange) ChangeInfo {
		t.Helper()
		p.Group = g.id
		info, err := c.nodes[1].Change(ctx, p)
		if err != nil || !info.Done {
			t.Fatalf("%+v: %+v, %v", p, info, err)
		}
		return info
	}
	free := func() partition.NodeID {
		m, err := g.membership()
		for _, n := range c.nodes {
			if _, ok := m.OnNode(n.ID()); err == nil && !ok {
				return n.ID()
			}
		}
		t.Fatal("no node is free", err)
		return ""
	}
	change(PartitionChange{Kind: ChangeAdd, Node: free()})
	if m := g.become("four", fullOn(4)); m.Asked.Replicas != 4 {
		t.Errorf("asked is %+v", m.Asked)
	}
	if err := refusedAs(c.nodes[2].Change(ctx, PartitionChange{Kind: ChangeAdd, Group: g.id, Node: "nobody"})); !errors.Is(err, partition.ErrNotFound) {
		t.Errorf("a node that is not there: %v", err)
	}
	info := change(PartitionChange{Kind: ChangeRemove, Node: g.masterNode()})
	m := g.become("three", fullOn(3))
	if _, still := m.Member(info.Replica); still {
		t.Errorf("replica %d is still there", info.Replica)
	}
	old := m.Members[0]
	change(PartitionChange{Kind: ChangeReplace, Replica: old.Replica, Node: free()})
	if _, still := g.become("three again", fullOn(3)).Member(old.Replica); still {
		t.Errorf("replica %d was not replaced", old.Replica)
	}
	to := g.peers()[0]
	change(PartitionChange{Kind: ChangeTransfer, Node: to})
	if at := g.masterNode(); at != to {
		t.Errorf("the master is on %s, not %s", at, to)
	}
	w.check(t, c.nodes[3])
}

func refusedAs(_ ChangeInfo, err error) error { return err }

// LOC-8: a node that comes back in another zone is in it for its groups once a
// record says so, and not before.
func TestTenderRecordsZone(t *testing.T) {
	t.Parallel()
	c := newClusterWith(t, 3, never)
	g := c.group(TableSpec{Name: "t", Replicas: 3})
	at := g.peers()[0]
	before, err := g.membership()
	if err != nil {
		t.Fatal(err)
	}
	c.stop(g.at(at))
	c.cfgs[g.at(at)].Zone = "elsewhere"
	c.start(g.at(at))
	m := g.become("the new zone", func(m *partition.Membership) bool {
		x, _ := m.OnNode(at)
		return x.Zone == "elsewhere"
	})
	if m.Version != before.Version+1 {
		t.Errorf("version %d after %d", m.Version, before.Version)
	}
}

// CAT-4, CAT-5: one of a pair is lost. The other goes on alone by a permit, a log
// replica joins it, and when the lost one is back it is a pair again; lost for
// good, it is replaced.
func TestTenderMendsPair(t *testing.T) {
	t.Parallel()
	c := newClusterWith(t, 3, func(c *Config) { c.LogAfter, c.ReplaceAfter = 300*time.Millisecond, 5*time.Second })
	g := c.group(TableSpec{Name: "t", Replicas: 2, Policy: "all-in-sync"})
	lost := g.peers()[0]
	w := g.write(c.nodes[g.at(g.masterNode())])
	c.stop(g.at(lost))
	g.become("a log replica beside the one that is left", func(m *partition.Membership) bool {
		x, ok := m.OnNode(lost)
		return ok && !x.Eligible && len(m.Members) == 3
	})
	c.start(g.at(lost))
	g.become("a pair", fullOn(2))
	c.stop(g.at(lost))
	m := g.become("another pair", func(m *partition.Membership) bool {
		_, still := m.OnNode(lost)
		return fullOn(2)(m) && !still
	})
	w.check(t, c.nodes[g.at(m.Members[0].Node)])
}

// A replica that is damaged again and again on the same node is replaced more and
// more seldom.
func TestRepairsOfOneNode(t *testing.T) {
	n := &Node{start: time.Now().Add(-time.Hour)}
	a := &tenderActor{node: n, groups: make(map[partition.GroupID]*tended), repairs: make(map[repairKey]repair)}
	k := repairKey{group: 7, node: "n2"}
	for i := range 3 {
		a.of(7).broken[partition.ReplicaID(i+1)] = "rot"
		next := &partition.Membership{Members: []partition.Member{{Replica: partition.ReplicaID(i + 2), Node: "n2", Kind: partition.Learner}}}
		a.repaired(&stepDone{group: 7, step: placement.Step{Kind: placement.Configure, Next: next}})
		r := a.repairs[k]
		if r.count != i+1 || len(a.of(7).broken) != 0 || a.mayReplace(7, "n2") || !a.mayReplace(7, "n3") || !a.mayReplace(8, "n2") {
			t.Fatalf("after %d: %+v, may %v", i+1, r, a.mayReplace(7, "n2"))
		}
		a.repairs[k] = repair{count: r.count, at: n.now() - repairMin<<i + repairMin/2}
		if a.mayReplace(7, "n2") {
			t.Errorf("after %d it may be replaced too soon", i+1)
		}
		a.repairs[k] = repair{count: r.count, at: n.now() - repairMin<<i}
		if !a.mayReplace(7, "n2") {
			t.Errorf("after %d it may not be replaced for too long", i+1)
		}
	}
}
