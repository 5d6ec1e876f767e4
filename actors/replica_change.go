package actors

import (
	"errors"
	"slices"
	"time"

	"pando.dev/pando/actors/copies"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
	"pando.dev/pando/wal"
)

// What an operator, the tender or another part of the node asks of a replica.
type (
	// configure asks the master to change the group's configuration. Done is
	// called once, from any goroutine.
	configure struct {
		membership *partition.Membership
		force      bool
		done       func(partition.Index, error)
	}
	// transferMaster asks the master to hand over to another member, or to the
	// best of them.
	transferMaster struct {
		to   partition.ReplicaID
		why  string // for the log, if the hand-over is this node's own idea
		done func(error)
	}
	// recoverGroup is an operator's decree: this replica goes on with the given
	// configuration, whatever the others have.
	recoverGroup struct {
		membership *partition.Membership
		done       func(partition.Index, error)
	}
	// resignMaster asks the master to hand over to whoever is best, or to step down.
	resignMaster struct{ why string }
	// install puts a copied state in the place of this replica's.
	install struct {
		hosting
		state *copies.Copy
		done  func(error)
	}
)

// ask brings one of these to the replica, which answers it once in any case.
func (c *cell) ask(item any) {
	if !c.box.Post(item) {
		refuseChange(item, partition.Errorf(partition.CodeUnavailable, "the replica of %s is stopped", c.group))
	}
}

// change gives a request that is not a client's to the machine. Its answer comes
// as a Reply, like those to commands.
func (a *replicaActor) change(item any) {
	if err := a.occupied(item); err != nil {
		refuseChange(item, err)
		return
	}
	switch m := item.(type) {
	case *configure:
		if err := a.founded(m.membership); err != nil {
			m.done(0, err)
			return
		}
		id := a.remember(call{done: m.done})
		a.event(replica.Configure{ID: id, Membership: m.membership, Force: m.force})
	case *transferMaster:
		id := a.remember(call{done: func(_ partition.Index, err error) { m.done(err) }})
		if m.why != "" {
			a.node.logger.Debug("handing over", "group", a.cell.group, "to", m.to, "why", m.why)
		}
		a.event(replica.Transfer{ID: id, To: m.to})
	case *resignMaster:
		a.event(replica.Resign{Why: m.why})
	case *recoverGroup:
		id := a.remember(call{done: m.done})
		a.event(replica.Recover{ID: id, Membership: m.membership})
	}
}

// occupied refuses to change the members or to hand over while a split is under
// way: one structural operation per group at a time. What a node that stops asks
// for, and an operator's decree, are not refused.
func (a *replicaActor) occupied(item any) *partition.Error {
	x, ok := a.cell.served()
	if !ok || x.Split == nil {
		return nil
	}
	switch item.(type) {
	case *configure, *transferMaster:
		return partition.Errorf(partition.CodeBusy, "group %s is being split: %s", a.cell.group, x.Split.Describe())
	}
	return nil
}

// founded refuses a change that takes a member away while the catalog still
// names the group's first configuration: a node that is in it, holds no replica
// any more and asks the catalog would make one from the group's first record. It
// would be a replica that has forgotten everything, under an id that members may
// still count. From the second configuration on nobody does that.
func (a *replicaActor) founded(next *partition.Membership) error {
	v, route := a.cell.view.Load(), a.cell.route.Load()
	if v == nil || route == nil {
		return a.cell.notMaster()
	}
	last := v.Configurations.Last()
	stays := func(m partition.Member) bool { _, ok := next.Member(m.Replica); return ok }
	if route.Membership.Version > 1 || !slices.ContainsFunc(last.Members, func(m partition.Member) bool { return !stays(m) }) {
		return nil
	}
	if last.Version == 1 {
		// The same once more, as the second.
		again := call{done: func(partition.Index, error) {}}
		a.event(replica.Configure{ID: a.remember(again), Membership: last.Successor()})
	}
	return partition.Errorf(partition.CodeBusy, "the catalog has not yet heard of a second configuration of %s", a.cell.group)
}

// keepLog tells the log what may still be wanted of it: by peers that are behind,
// and, where there is no state, by full voters that do not have it yet.
func (a *replicaActor) keepLog(st *replica.Status) {
	wanted := st.Everywhere + 1
	for _, p := range st.Peers {
		wanted = min(wanted, p.Match+1)
	}
	if wanted > st.Last.Index {
		wanted = 0
	}
	if wanted != a.wanted {
		a.wanted = wanted
		a.node.log.Retain(a.cell.group, wanted)
	}
	// Not beyond what the machine takes for applied: it may have to hand that out.
	if through := min(st.Everywhere, st.Applied); a.state == nil && through > a.letGo {
		a.letGo = through
		a.node.log.SetFlushed(a.cell.group, through, noState)
	}
}

// install ends this incarnation and begins the next with the copied state. What
// was written for the replica before must be on disk first: the machine that
// comes takes for durable what it starts from.
func (a *replicaActor) install(m *install) {
	a.stop(partition.Errorf(partition.CodeUnknown, "the replica gets a new state"))
	a.begin()
	a.loading = true
	n, cell, table, inc, box := a.node, a.cell, a.cell.table.Load(), a.incarnation, a.box
	n.background.Go(func() {
		err := n.awaitDisk(cell.group)
		if err == nil {
			err = n.install(m.hosting, m.state)
		} else {
			n.discard(m.state)
		}
		m.done(err)
		if err != nil {
			n.logger.Warn("copied state not installed", "group", cell.group, "err", err)
		}
		l, err := n.load(cell, table)
		box.PostUserMessage(&opened{incarnation: inc, loaded: l, err: err})
	})
}

// refuseChange answers a request of this file that will not be handled.
func refuseChange(item any, why *partition.Error) {
	switch m := item.(type) {
	case *configure:
		m.done(0, why)
	case *recoverGroup:
		m.done(0, why)
	case *transferMaster:
		m.done(why)
	case *structural:
		m.done(0, why)
	case *beginHold:
		m.done(why)
	case *viewAt:
		m.give(nil, why)
	case *install:
		discarded := m.state.Discard()
		m.done(errors.Join(why, discarded))
	}
}

// unusable is a replica of this node that will not come back by itself: it has
// lost what it promised, or it never came. Its group goes on without it and is
// asked to replace it.
type unusable struct {
	group   partition.GroupID
	replica partition.ReplicaID
	why     string
}

// unusable lists the replicas that the catalog, or the log, places here and that
// can never take part again.
func (n *Node) unusable() []unusable {
	var out []unusable
	n.cells.each(func(c *cell) {
		b := c.broken.Load()
		if b == nil || !c.hopeless.Load() {
			return
		}
		if sum, ok := n.log.Summary(c.group); ok {
			out = append(out, unusable{group: c.group, replica: n.idOf(c, &sum), why: b.Why})
		}
	})
	if !n.control.Synced() || n.foreign() {
		return out
	}
	for _, g := range n.control.Catalog().AllGroups() {
		m, ok := g.Membership.OnNode(n.ID())
		never := m.Kind == partition.Learner || g.Membership.Version == 1 && (g.Parent == 0 || n.mayComeYet(g, m.Replica)) // it may still come
		if !ok || never && !n.suspects.has(g.ID, m.Replica) || n.cells.get(g.ID) != nil {
			continue
		}
		if _, ok := n.log.Summary(g.ID); !ok {
			out = append(out, unusable{group: g.ID, replica: m.Replica, why: "this node does not hold the replica"})
		}
	}
	return out
}

// idOf is the replica of a cell. The log may have lost its id with the rest: then
// it is the one that the catalog has on this node.
func (n *Node) idOf(c *cell, sum *wal.Summary) partition.ReplicaID {
	if g := c.route.Load(); sum.Replica == 0 && g != nil {
		m, _ := g.Membership.OnNode(n.ID())
		return m.Replica
	}
	return sum.Replica
}

const (
	// resignWait bounds the wait until nothing is mastered here any more, and
	// resignLook is how often that is looked at.
	resignWait = 500 * time.Millisecond
	resignLook = 2 * time.Millisecond
)

// resignAll hands over whatever is mastered here, since the node stops. What is
// left in the end others take over when they miss it.
func (n *Node) resignAll() {
	left := func() (masters []*cell) {
		n.cells.each(func(c *cell) {
			if v := c.view.Load(); v != nil && v.Master == v.Self && len(v.Configurations.Last().Members) > 1 {
				masters = append(masters, c)
			}
		})
		return masters
	}
	for _, c := range left() {
		c.box.PostUserMessage(&resignMaster{why: "its node stops"})
	}
	tick := time.NewTicker(resignLook)
	defer tick.Stop()
	for limit := time.Now().Add(resignWait); len(left()) > 0 && time.Now().Before(limit); {
		<-tick.C
	}
}
