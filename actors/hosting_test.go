package actors

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"pando.dev/pando/actors/client"
	"pando.dev/pando/partition"
)

// groupOf is a table of one partition in a test's cluster.
type groupOf struct {
	*testCluster
	id partition.GroupID
}

func (c *testCluster) group(spec TableSpec) *groupOf {
	c.tb.Helper()
	c.table(spec)
	infos, err := c.any().Partitions(c.tb.Context(), spec.Name)
	if err != nil || len(infos) != 1 {
		c.tb.Fatalf("partitions of %s: %v, %v", spec.Name, infos, err)
	}
	return &groupOf{testCluster: c, id: infos[0].Group}
}

// master returns the node that serves the group and its replica there.
func (g *groupOf) master() (m *Node, c *cell) {
	g.tb.Helper()
	eventually(g.tb, "a serving master", func() error {
		for _, n := range g.nodes {
			if n == nil {
				continue
			}
			if c = n.cells.get(g.id); c != nil && c.view.Load() != nil && c.view.Load().Serving {
				m = n
				return nil
			}
		}
		return errors.New("nobody serves")
	})
	return m, c
}

// change edits the group's configuration and waits until that is committed.
func (g *groupOf) change(what string, edit func(*partition.Membership)) *partition.Membership {
	g.tb.Helper()
	var next *partition.Membership
	eventually(g.tb, what, func() error {
		_, c := g.master()
		next = c.view.Load().Configurations.Last().Successor()
		edit(next)
		done := make(chan error, 1)
		c.box.PostUserMessage(&configure{membership: next, done: func(_ partition.Index, err error) { done <- err }})
		select {
		case err := <-done:
			return err
		case <-g.tb.Context().Done():
			return context.Cause(g.tb.Context())
		}
	})
	return next
}

// bring has a node host a replica and waits until it is there.
func (g *groupOf) bring(n *Node, h hosting) {
	g.tb.Helper()
	h.Group = g.id
	eventually(g.tb, fmt.Sprintf("replica %d on %s", h.Replica, n.ID()), func() error { return n.hostReplica(g.tb.Context(), h) })
}

// MEM-1, MEM-5: a node that holds nothing gets a copy of the state while writes go
// on, follows as a learner, becomes a voter, and a member that leaves deletes what
// it has.
func TestReplicaIsBroughtUpByCopy(t *testing.T) {
	c := newClusterWith(t, 4, untended)
	g := c.group(TableSpec{Name: "t", Replicas: 3, Nodes: []partition.NodeID{"n1", "n2", "n3"}})
	table := c.any().Client().KV("t")
	for i := range 500 {
		if err := set(t, table, i); err != nil {
			t.Fatal(err)
		}
	}
	master, _ := g.master()
	target := c.nodes[3]
	m := g.change("a learner", func(m *partition.Membership) {
		m.Add(partition.Member{Node: "n4", Zone: "d", Kind: partition.Learner, Eligible: true})
	})
	x, _ := m.OnNode("n4")
	g.bring(target, hosting{Replica: x.Replica, Source: master.ID(), MinIndex: 1})
	g.change("the learner as a voter", func(m *partition.Membership) { m.At(x.Replica).Kind = partition.Full })
	var gone partition.NodeID
	g.change("one voter less", func(m *partition.Membership) {
		for _, x := range m.Members {
			if x.Node != master.ID() && x.Node != "n4" {
				gone = x.Node
				m.Remove(x.Replica)
				return
			}
		}
	})
	for i := range 100 {
		if err := set(t, table, 500+i); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the new replica has everything", func() error {
		_, mc := g.master()
		st, mst := target.cells.get(g.id).status.Load(), mc.status.Load()
		if st == nil || st.Applied != mst.Applied {
			return fmt.Errorf("it has %v, the master %v", st, mst)
		}
		return nil
	})
	eventually(t, "the replica that left is gone", func() error {
		for _, n := range c.nodes {
			if n.ID() == gone {
				if _, ok := n.log.Summary(g.id); ok || n.cells.get(g.id) != nil {
					return fmt.Errorf("%s still has it: %v", gone, n.reports([]partition.GroupID{g.id}))
				}
			}
		}
		return nil
	})
	for i := range 600 {
		if v, err := table.Get(t.Context(), key(i)); err != nil || string(v.Value) != string(key(i)) {
			t.Fatalf("key %d: %+v %v", i, v, err)
		}
	}
}

// untended is for tests that change groups on their own.
func untended(c *Config) { c.untended = true }

func key(i int) []byte { return fmt.Appendf(nil, "key-%06d", i) }

func set(t *testing.T, table client.KV, i int) error {
	_, err := table.Put(t.Context(), key(i), key(i))
	return err
}

// onNode returns the test's node with this id.
func (c *testCluster) onNode(id partition.NodeID) (int, *Node) {
	for i, cfg := range c.cfgs {
		if cfg.NodeID == id {
			return i, c.nodes[i]
		}
	}
	c.tb.Fatalf("no node %s", id)
	return 0, nil
}

// peers returns the nodes of the group's full members other than the master.
func (g *groupOf) peers() (out []partition.NodeID) {
	master, c := g.master()
	for _, m := range c.view.Load().Configurations.Last().Members {
		if m.Kind == partition.Full && m.Node != master.ID() {
			out = append(out, m.Node)
		}
	}
	return out
}

// level waits until the replica on n has applied what the master has.
func (g *groupOf) level(n *Node) {
	g.tb.Helper()
	eventually(g.tb, fmt.Sprintf("%s is level with the master", n.ID()), func() error {
		_, mc := g.master()
		c := n.cells.get(g.id)
		if c == nil || c.status.Load() == nil {
			return errors.New("it has no replica")
		}
		if have, want := c.status.Load(), mc.status.Load(); have.Applied != want.Applied || have.Last != want.Last {
			return fmt.Errorf("it has %v, the master %v", have, want)
		}
		return nil
	})
}

// CAT-3, CAT-9: a voter without state counts, is never master, keeps the group
// able to commit, gets a state without losing what it has acknowledged, and is
// full.
func TestLogReplicaGetsAState(t *testing.T) {
	c := newClusterWith(t, 4, untended)
	g := c.group(TableSpec{Name: "t", Replicas: 3, Nodes: []partition.NodeID{"n1", "n2", "n3"}})
	write := func(from, to int) {
		t.Helper()
		table := c.any().Client().KV("t")
		for i := from; i < to; i++ {
			if err := set(t, table, i); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(0, 200)
	master, mc := g.master()
	at, err := copyHost{master}.Describe(g.id, mc.status.Load().Everywhere)
	if err != nil {
		t.Fatal(err)
	}
	_, target := c.onNode("n4")
	m := g.change("a learner", func(m *partition.Membership) {
		m.Add(partition.Member{Node: "n4", Zone: "d", Kind: partition.Learner, Eligible: true})
	})
	x, _ := m.OnNode("n4")
	g.bring(target, hosting{Replica: x.Replica, LogOnly: true, Base: at.Position, BaseSum: at.Sum, Configuration: at.Configuration})
	dead := g.peers()[0]
	g.change("the log replica votes, a voter does not", func(m *partition.Membership) {
		m.At(x.Replica).Kind = partition.LogReplica
		for i := range m.Members {
			if m.Members[i].Node == dead {
				m.Members[i].Eligible = false
			}
		}
	})
	i, _ := c.onNode(dead)
	c.stop(i)
	write(200, 300)
	if st := target.cells.get(g.id).state.Load(); st != nil {
		t.Error("the log replica has a state")
	}
	g.bring(target, hosting{Replica: x.Replica, Source: g.masterNode()})
	g.level(target)
	g.change("the log replica is full", func(m *partition.Membership) { m.At(x.Replica).Kind = partition.Full })
	write(300, 400)
	g.level(target)
	// A restart finds the state.
	i, _ = c.onNode("n4")
	c.stop(i)
	target = c.start(i)
	g.level(target)
	if target.cells.get(g.id).state.Load() == nil {
		t.Error("after a restart it has no state")
	}
	table := c.any().Client().KV("t")
	for i := range 400 {
		if v, err := table.Get(t.Context(), key(i)); err != nil || string(v.Value) != string(key(i)) {
			t.Fatalf("key %d: %+v %v", i, v, err)
		}
	}
}

func (g *groupOf) masterNode() partition.NodeID { m, _ := g.master(); return m.ID() }

// CAT-2: a member whose next record no log has any more gets a newer state in
// the place of its own, and keeps its promise and its id.
func TestReplicaThatIsBehindGetsACopy(t *testing.T) {
	c := newClusterWith(t, 3, func(cfg *Config) {
		cfg.WALSegmentBytes, cfg.WALCapBytes, cfg.untended = 64<<10, 128<<10, true
	})
	g := c.group(TableSpec{Name: "t", Replicas: 3})
	table := c.any().Client().KV("t")
	if err := set(t, table, 0); err != nil {
		t.Fatal(err)
	}
	i, away := c.onNode(g.peers()[0])
	self := away.cells.get(g.id).view.Load().Self
	c.stop(i)
	table = c.any().Client().KV("t")
	big := make([]byte, 8<<10)
	eventually(t, "the log has let go of what the member lacks", func() error {
		for j := range 20 {
			if _, err := table.Put(t.Context(), key(j), big); err != nil {
				return err
			}
		}
		m, mc := g.master()
		mc.state.Load().store.FlushSoon()
		if sum, _ := m.log.Summary(g.id); sum.First < 300 { // so that memory has not got them either
			return fmt.Errorf("the log begins at %d", sum.First)
		}
		return nil
	})
	away = c.start(i)
	eventually(t, "the master knows that it is behind", func() error {
		_, mc := g.master()
		if st := mc.status.Load(); !slices.Contains(st.Behind, self) {
			sum, _ := g.any().log.Summary(g.id)
			return fmt.Errorf("it says %+v %+v; here %v; log %d", st.Peers, st.Behind, away.reports([]partition.GroupID{g.id}), sum.First)
		}
		return nil
	})
	_, mc := g.master()
	g.bring(away, hosting{Replica: self, Source: g.masterNode(), MinIndex: mc.status.Load().Last.Index})
	g.level(away)
	if v := away.cells.get(g.id).view.Load(); v.Self != self {
		t.Errorf("it is replica %d, was %d", v.Self, self)
	}
}

// A replica that may have forgotten what it promised falls silent for good, and
// is replaced on the same node under a new id.
func TestSuspectReplicaIsReplaced(t *testing.T) {
	c := newClusterWith(t, 3, untended)
	g := c.group(TableSpec{Name: "t", Replicas: 3})
	table := c.any().Client().KV("t")
	for i := range 100 {
		if err := set(t, table, i); err != nil {
			t.Fatal(err)
		}
	}
	i, bad := c.onNode(g.peers()[0])
	old := bad.cells.get(g.id).view.Load().Self
	if err := bad.silence("a test says so"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is silent", func() error { return silent(bad, g.id, old) })
	c.stop(i)
	bad = c.start(i)
	eventually(t, "it is silent after a restart", func() error { return silent(bad, g.id, old) })
	m := g.change("it is replaced", func(m *partition.Membership) {
		x := *m.At(old)
		m.Remove(old)
		m.Add(partition.Member{Node: x.Node, Zone: x.Zone, Kind: partition.Learner, Eligible: true})
	})
	x, _ := m.OnNode(bad.ID())
	g.bring(bad, hosting{Replica: x.Replica, Source: g.masterNode()})
	g.change("the new one votes", func(m *partition.Membership) { m.At(x.Replica).Kind = partition.Full })
	other := g.peers()
	for _, id := range other {
		if id != bad.ID() {
			j, _ := c.onNode(id)
			c.stop(j)
		}
	}
	table = c.any().Client().KV("t")
	for i := range 100 {
		if err := set(t, table, 100+i); err != nil {
			t.Fatal(err)
		}
	}
	g.level(bad)
	// Its grants count again: the master reads under a lease that rests on it.
	eventually(t, "a lease that rests on the new replica", func() error {
		n, mc := g.master()
		if v := mc.view.Load(); n.now() >= v.LeaseEnd(n.neighbours) {
			return errors.New("no lease")
		}
		return nil
	})
}

func silent(n *Node, g partition.GroupID, r partition.ReplicaID) error {
	for _, u := range n.unusable() {
		if u.group == g && u.replica == r {
			return nil
		}
	}
	return fmt.Errorf("reported are %v", n.unusable())
}

// CAT-1: a member that was away for some writes is brought level with about as
// many records, and not with the data.
func TestReturningMemberGetsTheTail(t *testing.T) {
	c := newCluster(t, 3)
	g := c.group(TableSpec{Name: "t", Replicas: 3})
	value := make([]byte, 1<<10)
	write := func(from, to int) {
		t.Helper()
		table := c.any().Client().KV("t")
		for i := from; i < to; i++ {
			if _, err := table.Put(t.Context(), key(i), value); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(0, 1000)
	i, away := c.onNode(g.peers()[0])
	g.level(away)
	c.stop(i)
	const missed = 50
	write(1000, 1000+missed)
	away = c.start(i)
	g.level(away)
	// What else there is: records of masters and members, as it went and came.
	const more = 20
	if st := away.log.Stats(); st.Records > missed+more || st.RecordBytes > (missed+more)*2<<10 {
		t.Errorf("%d records of %d bytes for %d writes of %d", st.Records, st.RecordBytes, missed, len(value))
	}
	if st := away.copies.Status(); st.Received != 0 {
		t.Errorf("%d bytes of a copy", st.Received)
	}
}
