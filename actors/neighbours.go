package actors

import (
	"time"

	"pando.dev/pando/cluster"
	"pando.dev/pando/partition"
)

// lookEvery is how often a node looks whether its neighbours still answer
// heartbeats. It is one timer per node, whatever the number of groups.
const lookEvery = 25 * time.Millisecond

// watchNeighbours tells the replicas about every change of who is reachable,
// until the node stops. A broken connection is seen at once (linkDown), a node
// that hangs when its heartbeats are overdue. Idle replicas have no timer of
// their own: they rely on being told.
func (n *Node) watchNeighbours() {
	reachable := make(map[partition.NodeID]bool)
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
		n.compareNeighbours(reachable, *members)
	}
}

func (n *Node) compareNeighbours(reachable map[partition.NodeID]bool, members []cluster.Node) {
	for _, m := range members {
		if m.ID == n.ID() {
			continue
		}
		if now := n.leases.Reachable(m.ID); now != reachable[m.ID] {
			reachable[m.ID] = now
			n.tellNeighbour(m.ID, now)
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
