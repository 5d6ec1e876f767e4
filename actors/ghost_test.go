package actors

import (
	"errors"
	"fmt"
	"testing"

	"github.com/asynkron/protoactor-go/actor"

	"pando.dev/pando/actors/mailbox"
	"pando.dev/pando/cluster"
	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
	"pando.dev/pando/wal"
)

// remove takes the replica on a node out of the group and waits until the node has
// dropped it.
func (g *groupOf) remove(n *Node) {
	g.tb.Helper()
	g.change("one replica less", func(m *partition.Membership) {
		if x, ok := m.OnNode(n.ID()); ok {
			m.Remove(x.Replica)
		}
	})
	eventually(g.tb, "the replica is dropped", func() error {
		if _, ok := n.log.Summary(g.id); ok || n.cells.get(g.id) != nil {
			return errors.New("it is here")
		}
		return nil
	})
}

// MEM-6: a replica that has promised and acknowledged is never made again under
// its id, whoever asks for it: a master that was replaced, and takes it for new,
// or a request that was long on its way.
func TestRemovedReplicaIsNotMadeAgain(t *testing.T) {
	c := newClusterWith(t, 4, untended)
	g := c.group(TableSpec{Name: "t", Replicas: 3, Nodes: []partition.NodeID{"n1", "n2", "n3"}})
	_, target := c.onNode("n4")
	m := g.change("a learner", func(m *partition.Membership) {
		m.Add(partition.Member{Node: "n4", Zone: "d", Kind: partition.Learner, Eligible: true})
	})
	x, _ := m.OnNode("n4")
	h := hosting{Group: g.id, Replica: x.Replica, Source: g.masterNode(), MinIndex: 1}
	g.bring(target, h)
	g.change("a voter", func(m *partition.Membership) { m.At(x.Replica).Kind = partition.Full })
	g.remove(target)
	refused := func(n *Node) error {
		if err := n.hostReplica(t.Context(), h); !errors.Is(err, partition.ErrRefused) {
			return fmt.Errorf("asked for again: %v", err)
		}
		return nil
	}
	eventually(t, "refused", func() error { return refused(target) }) // busy while it goes
	i, _ := c.onNode("n4")
	c.stop(i)
	target = c.start(i)
	eventually(t, "refused after a restart", func() error { return refused(target) })
}

// MEM-6: a state that was copied for a replica which was dropped meanwhile does not
// bring it back.
func TestCopyForDroppedReplica(t *testing.T) {
	c := newClusterWith(t, 3, untended)
	g := c.group(TableSpec{Name: "t", Replicas: 3})
	_, target := c.onNode(g.peers()[0])
	self := target.cells.get(g.id).view.Load().Self
	_, mc := g.master()
	// It waits for a state that the master will have later.
	h := hosting{Group: g.id, Replica: self, Source: g.masterNode(), MinIndex: mc.status.Load().Last.Index + 20, Voter: true}
	if err := target.hostReplica(t.Context(), h); !errors.Is(err, partition.ErrBusy) {
		t.Fatalf("a copy is begun: %v", err)
	}
	g.remove(target)
	table := c.any().Client().KV("t")
	for i := range 40 {
		if err := set(t, table, i); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the copy has ended", func() error {
		if _, ok := target.copies.Fetching(g.id); ok {
			return errors.New("it goes on")
		}
		return nil
	})
	if err := target.hostReplica(t.Context(), h); !errors.Is(err, partition.ErrRefused) {
		t.Errorf("asked for again: %v", err)
	}
	if _, ok := target.log.Summary(g.id); ok {
		t.Error("the log has the dropped replica again")
	}
}

// MEM-6: a catalog that is behind still names the first configuration; a replica
// that was in it, and was dropped, is not begun again from the first record.
func TestDroppedIsNotCreated(t *testing.T) {
	n := bare(t)
	n.suspects, n.identity = new(suspects), &cluster.Identity{Node: "n"}
	genesis(t, n, 7)
	a := newReplicas(n)
	a.creating, a.leaving, a.bringing = map[partition.GroupID]bool{}, map[partition.GroupID]*leaving{}, map[partition.GroupID]*bringing{}
	c := &cell{group: 7, pid: &actor.PID{Id: "7"}, box: mailbox.New[any](mailbox.Config{})}
	c.broken.Store(&partition.Error{Code: partition.CodeCorrupt})
	a.bringing[7] = &bringing{installing: true, cancel: func() {}}
	a.drop(nil, c)
	if a.leaving[7].logged {
		t.Error("dropped from the log while a copy is installed")
	}
	delete(a.leaving, 7) // as if it were dropped, and the copy had ended
	delete(a.bringing, 7)
	m := &partition.Membership{Version: 1, Policy: partition.Policy{Rule: partition.Majority}, Next: 2}
	m.Members = []partition.Member{{Replica: 1, Node: n.ID(), Zone: "z", Kind: partition.Full, Eligible: true}}
	a.create(&control.Group{ID: 7, Membership: m})
	if a.creating[7] {
		t.Error("it is made again")
	}
}

// MEM-6: a node that was away while every member that it knows was replaced learns
// from the catalog that its replica is none any more, and drops it.
func TestReplicaThatKnowsNobodyLeaves(t *testing.T) {
	c := newClusterWith(t, 5, untended)
	g := c.group(TableSpec{Name: "t", Replicas: 3, Nodes: []partition.NodeID{"n1", "n4", "n5"}})
	away, n := c.onNode("n5")
	c.stop(away)
	add := func(id partition.NodeID) {
		_, n := c.onNode(id)
		m := g.change("a learner", func(m *partition.Membership) {
			m.Add(partition.Member{Node: id, Zone: "z", Kind: partition.Learner, Eligible: true})
		})
		x, _ := m.OnNode(id)
		g.bring(n, hosting{Replica: x.Replica, Source: g.masterNode(), MinIndex: 1})
		g.change("a voter", func(m *partition.Membership) { m.At(x.Replica).Kind = partition.Full })
	}
	add("n2")
	g.change("without the one that is away", func(m *partition.Membership) { x, _ := m.OnNode(n.ID()); m.Remove(x.Replica) })
	add("n3")
	for _, id := range []partition.NodeID{"n1", "n4"} {
		_, n := c.onNode(id)
		g.remove(n)
	}
	n = c.start(away)
	eventually(t, "its replica is dropped", func() error {
		if _, ok := n.log.Summary(g.id); ok {
			return fmt.Errorf("it is here: %v", n.reports([]partition.GroupID{g.id}))
		}
		return nil
	})
}

// Of a replica whose first write is lost the log does not know even the id; its
// group is asked to replace the one that it has on this node.
func TestDamagedReplicaWithoutID(t *testing.T) {
	n := bare(t)
	n.identity = &cluster.Identity{Node: "n"}
	c := &cell{group: 7}
	if r := n.idOf(c, &wal.Summary{}); r != 0 {
		t.Errorf("replica %d, and nobody says so", r)
	}
	m := &partition.Membership{Members: []partition.Member{{Replica: 1, Node: "o"}, {Replica: 4, Node: "n"}}}
	c.route.Store(&control.Group{ID: 7, Membership: m})
	if r := n.idOf(c, &wal.Summary{}); r != 4 {
		t.Errorf("replica %d, the catalog says 4", r)
	}
	if r := n.idOf(c, &wal.Summary{HardState: wal.HardState{Replica: 2}}); r != 2 {
		t.Errorf("replica %d, the log says 2", r)
	}
}
