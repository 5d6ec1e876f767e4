package actors

import (
	"sync/atomic"
	"time"

	"pando.dev/pando/actors/lease"
	"pando.dev/pando/cluster"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

// lookEvery is how often a node looks whether its neighbours still answer
// heartbeats. It is one timer per node, whatever the number of groups.
const lookEvery = 25 * time.Millisecond

// neighbours is what the replicas know of other nodes: the leases as they are,
// and who is reachable as they were told last. If a replica found out by itself
// that a node is overdue, and it answered before the node's next look, no hint
// would follow, and a master would never send to it again.
type neighbours struct {
	*lease.Table
	self partition.NodeID
	told atomic.Pointer[map[partition.NodeID]bool] // those reachable; never changed
}

var _ replica.Neighbours = (*neighbours)(nil)

func newNeighbours(self partition.NodeID, t *lease.Table) *neighbours {
	n := &neighbours{Table: t, self: self}
	n.told.Store(&map[partition.NodeID]bool{})
	return n
}

// Reachable implements replica.Neighbours.
func (n *neighbours) Reachable(id partition.NodeID) bool {
	return id == n.self || (*n.told.Load())[id]
}

// look compares who is reachable with who was, and returns the changes, which
// Reachable shows from now on. A node that was is looked at though it is no
// member any more. One goroutine calls it.
func (n *neighbours) look(members []cluster.Node) (changed []partition.NodeID) {
	before := *n.told.Load()
	now := make(map[partition.NodeID]bool, len(members))
	for _, m := range members {
		if m.ID != n.self && n.Table.Reachable(m.ID) {
			now[m.ID] = true
		}
	}
	for id := range before { // in no order: each is told on its own
		if n.Table.Reachable(id) {
			now[id] = true
		}
		if !now[id] {
			changed = append(changed, id)
		}
	}
	for id := range now { // as above
		if !before[id] {
			changed = append(changed, id)
		}
	}
	if len(changed) > 0 {
		n.told.Store(&now)
	}
	return changed
}

// watchNeighbours tells the replicas about every change of who is reachable,
// until the node stops. A broken connection is seen at once (linkDown), a node
// that hangs when its heartbeats are overdue. Idle replicas have no timer of
// their own: they rely on being told.
func (n *Node) watchNeighbours() {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-n.linkDown:
		case <-tick.C:
		}
		members := n.members.Load()
		if members == nil {
			continue
		}
		for _, id := range n.neighbours.look(*members) {
			n.tellNeighbour(id, n.neighbours.Reachable(id))
		}
	}
}

// tellNeighbour tells the replicas that share a group with the node that it
// became reachable or not.
func (n *Node) tellNeighbour(id partition.NodeID, up bool) {
	n.logger.Debug("neighbour", "neighbour", id, "reachable", up)
	msg := &neighbour{node: id, up: up}
	n.cells.each(func(c *cell) {
		v := c.view.Load()
		if v == nil {
			return
		}
		for _, m := range v.Configurations {
			if _, ok := m.OnNode(id); ok {
				if !c.box.TryPost(msg, 0) {
					c.box.PostUserMessage(msg)
				}
				return
			}
		}
	})
}
