package actors

import (
	"context"
	"errors"
	"fmt"
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
	c := newCluster(t, 4)
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

func key(i int) []byte { return fmt.Appendf(nil, "key-%06d", i) }

func set(t *testing.T, table client.KV, i int) error {
	_, err := table.Put(t.Context(), key(i), key(i))
	return err
}
