package actors

import (
	"sync/atomic"
	"time"

	"pando.dev/pando/cluster"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/lease"
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
	// told are those reachable, and the incarnation that was; never changed.
	told atomic.Pointer[map[partition.NodeID]uint64]
}

var _ replica.Neighbours = (*neighbours)(nil)

func newNeighbours(self partition.NodeID, t *lease.Table) *neighbours {
	n := &neighbours{Table: t, self: self}
	n.told.Store(&map[partition.NodeID]uint64{})
	return n
}

// Reachable implements replica.Neighbours.
func (n *neighbours) Reachable(id partition.NodeID) bool {
	return id == n.self || (*n.told.Load())[id] != 0
}

// change is a node that has come, gone, or come back as another incarnation
// before anybody saw that it was gone.
type change struct {
	node partition.NodeID
	up   bool
	anew bool // it is up and was before, in another incarnation
}

// look compares who is reachable with who was, and returns the changes, which
// Reachable shows from now on. A node that was is looked at though it is no
// member any more. One goroutine calls it.
func (n *neighbours) look(members []cluster.Node) (changed []change) {
	before := *n.told.Load()
	now := make(map[partition.NodeID]uint64, len(members))
	note := func(id partition.NodeID) {
		if boot, ok := n.Table.Alive(id); ok && id != n.self {
			now[id] = boot
		}
	}
	for _, m := range members {
		note(m.ID)
	}
	for id := range before { // in no order: each is told on its own
		note(id)
		if now[id] == 0 {
			changed = append(changed, change{node: id})
		}
	}
	for id, boot := range now { // as above
		if was := before[id]; was != boot {
			changed = append(changed, change{node: id, up: true, anew: was != 0})
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
	last := n.now()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-n.linkDown:
		case <-tick.C:
			now := n.now()
			n.anomalies.wasLate(now - last - lookEvery)
			last = now
		}
		members := n.members.Load()
		if members == nil {
			continue
		}
		for _, c := range n.neighbours.look(*members) {
			// A replica that is told down looks for itself and finds it up again.
			n.tellNeighbour(c.node, c.up && !c.anew)
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
