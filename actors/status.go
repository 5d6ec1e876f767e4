package actors

import (
	"context"
	"fmt"

	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
)

// Status answers "how are we?": first of all, how many more nodes may fail.
func (n *Node) Status(ctx context.Context) (ClusterStatus, error) {
	s := ClusterStatus{Cluster: n.cfg.Cluster, Self: n.ID(), Uptime: n.now(), Control: n.controlStatus(), Anomalies: n.limping()}
	for _, m := range n.Members() {
		s.Nodes++
		if m.Status == "alive" {
			s.Alive++
		}
		if m.Mode != "" && m.Status != "left" {
			s.Drained = append(s.Drained, m.Node)
		}
	}
	s.CanLose, s.Why = n.controlTolerance(s.Control)
	infos, err := n.Partitions(ctx, "")
	if err != nil {
		s.CanLose, s.Why = -1, err.Error()
		return s, nil
	}
	for _, p := range infos {
		s.Partitions++
		if p.Master != "" {
			s.WithMaster++
		}
		if p.CanLose < s.CanLose {
			s.CanLose = p.CanLose
			s.Why = fmt.Sprintf("partition %s of table %q: %s", p.Group, p.Table, limits(p))
		}
	}
	return s, nil
}

// limits says what keeps a partition from tolerating more.
func limits(p PartitionInfo) string {
	if p.Master == "" {
		if p.Missing != "" {
			return "it has no master: " + p.Missing
		}
		return "it has no master"
	}
	if p.Missing != "" {
		return p.Missing
	}
	for _, r := range p.Replicas {
		switch r.Role {
		case "unreachable", "missing", "broken", "behind", "opening":
			return fmt.Sprintf("its replica on node %s is %s", r.Node, r.Role)
		}
	}
	return p.Rule
}

func (n *Node) controlStatus() ControlStatus {
	st := n.control.Status()
	c := ControlStatus{Leader: st.Leader, Seats: st.Seats, State: string(st.State)}
	c.Catalog = n.control.Catalog().Version
	return c
}

// controlTolerance is how many more seats of the control group may fail.
func (n *Node) controlTolerance(c ControlStatus) (int, string) {
	if stale := n.control.Stale(); stale != nil {
		return -1, stale.Error()
	}
	if c.State != string(control.Ready) {
		return -1, "the control group has no leader: " + n.control.Status().Why
	}
	up := 0
	for _, seat := range c.Seats {
		if seat == n.ID() || n.leases.Reachable(seat) {
			up++
		}
	}
	lose := up - (len(c.Seats)/2 + 1)
	if lose < 0 {
		return -1, fmt.Sprintf("only %d of %d seats of the control group are reachable", up, len(c.Seats))
	}
	return lose, fmt.Sprintf("the control group has %d of %d seats reachable", up, len(c.Seats))
}

// Ready returns nil when the node takes requests, and otherwise what it waits
// for.
func (n *Node) Ready() error {
	if err := n.Started(); err != nil {
		return err
	}
	return n.notInService()
}

// Started is Ready but for that a node that was taken out of service has
// started as well.
func (n *Node) Started() error {
	if n.closing.Load() {
		return partition.Errorf(partition.CodeClosed, "node %s is shutting down", n.ID())
	}
	if stale := n.control.Stale(); stale != nil {
		return stale
	}
	st := n.control.Status()
	if !n.control.Synced() {
		e := partition.Errorf(partition.CodeUnavailable, "the catalog is not here yet: control group: %s: %s", st.State, st.Why)
		if g := n.gossip.Status(); g.Err != nil && !g.Joined {
			e.Why += fmt.Sprintf("; joining by gossip fails: %v", g.Err)
		}
		return e
	}
	if n.foreign() {
		return &partition.Error{
			Code: partition.CodeRefused,
			Why:  fmt.Sprintf("the replicas here were made by control group %x, the one that answers is %x", n.controlGroup, st.Group),
			Next: "bring the old control group back; this node drops nothing at the word of another",
		}
	}
	var err error
	n.cells.each(func(c *cell) {
		if c.route.Load() != nil && c.view.Load() == nil && c.broken.Load() == nil {
			err = partition.Errorf(partition.CodeUnavailable, "the replica of %s is being opened", c.group)
		}
	})
	return err
}
