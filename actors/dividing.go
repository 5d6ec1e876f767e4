package actors

import (
	"context"
	"errors"
	"fmt"
	"time"

	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
	"pando.dev/pando/wal"
)

// The replicas of a split's children. A member of the parent that has applied
// Activate makes those that it is to have:
//
//	hard links of its state, adopted -> first position in the log -> started
//
// Only what the log names counts, so a crash leaves nothing, and it is done again
// as long as the parent's extent says that it is to be done.

const (
	// divideWait bounds one attempt to make a child's replica, and divideAgain is
	// the pause before the next.
	divideWait  = time.Minute
	divideAgain = 100 * time.Millisecond
)

// dividing has the replicas actor look for children to be made.
type dividing struct{}

// divide makes what is missing here of the children of all splits.
func (a *replicasActor) divide() {
	a.node.cells.each(func(c *cell) {
		x, ok := c.served()
		if !ok || x.Split == nil || x.Split.Phase != partition.Activated {
			return
		}
		for i := range x.Split.Children {
			a.makeChild(c, x, &x.Split.Children[i])
		}
	})
}

// makeChild begins to make the replica of a child, unless it is here, is coming, or
// must not be made.
func (a *replicasActor) makeChild(c *cell, x *partition.Extent, child *partition.Child) {
	n, g := a.node, child.Group
	sum, here := n.log.Summary(c.group)
	st := c.state.Load()
	switch {
	case !here || st == nil || !child.MadeBy(sum.Replica, n.ID()) || a.creating[g] || a.leaving[g] != nil || a.bringing[g] != nil:
		return
	case n.cells.get(g) != nil:
		return
	}
	if _, here := n.log.Summary(g); here || !a.mayMake(child, sum.Replica) {
		return
	}
	a.creating[g] = true
	system, self, began := n.system, a.self, n.now()
	n.background.Go(func() {
		err := n.makeChild(c.group, st, x.Split.At, child, sum.Replica)
		if err == nil {
			n.logger.Info("replica of a child made", "group", g, "parent", c.group, "took", n.now()-began)
		}
		system.Root.Send(self, &created{group: g, err: err})
		if err != nil {
			time.AfterFunc(divideAgain, func() { n.tellReplicas(&dividing{}) })
		}
	})
}

// mayMake reports whether a child's replica may be made for the first time. One
// that was here, promised and is gone must not come back under its id.
func (a *replicasActor) mayMake(child *partition.Child, r partition.ReplicaID) bool {
	n, cat := a.node, a.catalog.Catalog()
	if !a.catalog.Synced() || n.foreign() || n.suspects.forgetful() || n.suspects.has(child.Group, r) || r <= a.had[child.Group] {
		return false
	}
	if _, ok := cat.Prepared(child.Group); ok {
		return true
	}
	g, ok := cat.Group(child.Group)
	if !ok {
		return false
	}
	m, member := g.Membership.Member(r)
	return g.Membership.Version == 1 && member && m.Node == n.ID()
}

// makeChild makes the replica of a child out of the parent's state. It blocks on
// the disk.
func (n *Node) makeChild(parent partition.GroupID, st *openState, base partition.Index, child *partition.Child, r partition.ReplicaID) error {
	ctx, cancel := context.WithTimeout(n.ctx, divideWait)
	defer cancel()
	rec, err := partition.FirstConfiguration(child.Group, base, child.Membership)
	if err != nil {
		return fmt.Errorf("make %s: %w", child.Group, err)
	}
	generation, err := n.engine.NextGeneration(child.Group, 0)
	if err != nil {
		return fmt.Errorf("make %s: %w", child.Group, err)
	}
	err = st.store.Divide(ctx, child.Group, generation, base, func(w partition.Writer) error {
		_, err := replica.AdoptChild(w, parent, child.Group)
		return err
	})
	if err != nil {
		return fmt.Errorf("make %s: %w", child.Group, err)
	}
	synced := make(chan error, 1)
	write := wal.Write{Group: child.Group, Replica: r, Install: &wal.Install{
		Base: rec.Position(), BaseSum: rec.Checksum(), Generation: generation, Configuration: rec,
	}}
	if err := n.log.Append(write, func(err error) { synced <- err }); err != nil {
		return errors.Join(fmt.Errorf("make %s: %w", child.Group, err), n.engine.Drop(child.Group, generation))
	}
	select {
	case err = <-synced:
	case <-n.ctx.Done():
		return partition.Errorf(partition.CodeClosed, "node %s is shutting down", n.ID())
	}
	if err != nil {
		return fmt.Errorf("make %s: %w", child.Group, err)
	}
	return nil
}

// wanted reports whether the catalog has a group, or expects it of a split.
func wanted(cat *control.Catalog, g partition.GroupID) bool {
	_, ok := cat.Group(g)
	if !ok {
		_, ok = cat.Prepared(g)
	}
	return ok
}

// preparedTable returns the table of a group that a split is about to make.
func preparedTable(cat *control.Catalog, g partition.GroupID) (*control.Table, bool) {
	t, ok := cat.Prepared(g)
	if !ok {
		return nil, false
	}
	return cat.TableOf(&control.Group{Table: t.Table})
}

// place tells a replica its table, if the catalog does not lead to it yet.
func (a *replicasActor) place(c *cell, cat *control.Catalog) {
	if c.table.Load() != nil {
		return
	}
	if t, ok := preparedTable(cat, c.group); ok {
		c.table.Store(t)
		a.node.system.Root.Send(c.pid, tableKnown{})
	}
}

// madeBy reports whether a child's replica that is here must stay although its group
// does not need it: the parent's replica here would make it again, having
// forgotten what it has promised. The parent's state on disk has to be past the
// split.
func (a *replicasActor) madeBy(c *cell) bool {
	x, ok := c.served()
	if !ok || x.Parent == 0 {
		return false
	}
	p := a.node.cells.get(x.Parent)
	if p == nil || p.broken.Load() != nil {
		return false
	}
	parent, ok := p.served()
	st := p.state.Load()
	if !ok || st == nil || parent.Version < x.Version {
		return true
	}
	if parent.Split != nil && parent.Split.Phase == partition.Activated && parent.Split.At == x.Base {
		return true
	}
	applied, err := st.store.Applied()
	if err == nil && st.store.Durable() >= applied {
		return false
	}
	a.node.background.Go(func() {
		if _, err := st.store.Flush(a.node.ctx); err == nil {
			a.node.tellReplicas(&retired{group: c.group, replica: c.self()})
		}
	})
	return true
}

// self is the replica's id, 0 if it does not run.
func (c *cell) self() partition.ReplicaID {
	if v := c.view.Load(); v != nil {
		return v.Self
	}
	return 0
}

// mayComeYet reports whether this node's replica of a group that a split has made,
// and that is not here, may still be made from the parent's.
func (n *Node) mayComeYet(g *control.Group, r partition.ReplicaID) bool {
	c := n.cells.get(g.Parent)
	if c == nil || c.broken.Load() != nil {
		return false
	}
	x := c.extent.Load()
	if x == nil || x.Version < g.RangeVersion {
		return true // it has not come to the split
	}
	if x.Split.Child(g.ID) == nil {
		return false
	}
	sum, ok := n.log.Summary(c.group)
	return ok && sum.Replica == r
}
