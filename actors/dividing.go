package actors

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
	"pando.dev/pando/wal"
)

// The replicas of a split's children. A member of the parent makes those that it is
// to have:
//
//	while the split is only intended: a seed, see there
//	Activate is applied: the seed or hard links of the state, adopted -> first position in the log -> started
//
// Only what the log names counts, so a crash leaves nothing, and it is done again
// as long as the parent's extent says that it is to be done.

const (
	// divideWait bounds one attempt to make a child's replica, and divideAgain is
	// the pause before the next, doubled up to divideAgainMax.
	divideWait = time.Minute
	// seedTake bounds the wait for a seed that was close behind when the keys were
	// held; then the state is made of the parent's, which takes about as long.
	seedTake       = 2 * time.Second
	divideAgain    = 100 * time.Millisecond
	divideAgainMax = 10 * time.Second
	// flushChild is about how long after its beginning a child's state is flushed.
	flushChild = 200 * time.Millisecond
)

type (
	// dividing has the replicas actor look for children to be made.
	dividing struct{}
	// divided tells that a child's replica, or only its seed, was made or why not.
	divided struct {
		group partition.GroupID
		seed  *seed // that has failed; nil: it is about the replica
		lock  uint64
		err   error
	}
	// setback is that a child could not be made here.
	setback struct {
		times int
		until partition.Time // there is no further try before
	}
)

// divide makes what is missing here of the children of all splits.
func (a *replicasActor) divide() {
	a.weed()
	a.node.cells.each(func(c *cell) {
		x, ok := c.served()
		if !ok || x.Split == nil {
			return
		}
		for i := range x.Split.Children {
			child := &x.Split.Children[i]
			sum, here := a.node.log.Summary(c.group)
			if !here || !a.lacks(c, child, sum.Replica) {
				continue
			}
			if x.Split.Phase == partition.Activated {
				a.makeChild(c, x.Split.At, child, sum.Replica)
			} else if a.seeds[child.Group] == nil {
				a.sow(c, child, sum.Replica)
			}
		}
	})
}

// lacks reports whether the replica of a child is to be made here, is not coming
// and may be made now.
func (a *replicasActor) lacks(c *cell, child *partition.Child, r partition.ReplicaID) bool {
	n, g := a.node, child.Group
	if !child.MadeBy(r, n.ID()) || c.state.Load() == nil || n.cells.get(g) != nil || a.creating[g] || a.leaving[g] != nil || a.bringing[g] != nil {
		return false
	}
	_, here := n.log.Summary(g)
	// With a seed it was asked before, and what is decided goes on although the control
	// group is away (PG17).
	return !here && n.now() >= a.setbacks[g].until && (a.seeds[g] != nil || a.mayMake(child, r))
}

// makeChild begins to make the replica of a child.
func (a *replicasActor) makeChild(c *cell, base partition.Index, child *partition.Child, r partition.ReplicaID) {
	n, g, st, s := a.node, child.Group, c.state.Load(), a.seeds[child.Group]
	a.creating[g] = true
	if s != nil {
		delete(a.seeds, g)
		a.hintSeeds(c)
		s.wake()
	}
	began := n.now()
	n.background.Go(func() {
		m := &divided{group: g}
		m.err = n.makeChild(c.group, st, base, child, r, s)
		if s != nil {
			m.lock = s.lock.Load()
		}
		if m.err == nil {
			n.logger.Info("replica of a child made", "group", g, "parent", c.group, "seed", s != nil && s.err == nil, "took", n.now()-began)
		}
		if n.ctx.Err() == nil {
			n.tellReplicas(m)
		}
	})
}

// divided goes on with a child that was made, or tries again later what has failed.
func (a *replicasActor) divided(ctx actor.Context, m *divided) {
	n, g := a.node, m.group
	if m.seed != nil && a.seeds[g] != m.seed {
		return // nobody waits for it any more
	}
	if m.seed != nil {
		delete(a.seeds, g)
		a.hintSeeds(m.seed.parent)
	} else {
		delete(a.creating, g)
	}
	if m.err == nil {
		delete(a.setbacks, g)
		a.appointed[g] = m.lock
		a.start(ctx, g, true)
		a.reconcile(ctx) // its table may be gone again
		return
	}
	n.early.take(g)
	b := a.setbacks[g]
	pause := min(divideAgain<<min(b.times, 10), divideAgainMax)
	a.setbacks[g] = setback{times: b.times + 1, until: n.now() + pause}
	time.AfterFunc(pause, func() {
		if n.ctx.Err() == nil {
			n.tellReplicas(&dividing{})
		}
	})
	level := slog.LevelDebug // once is enough: it is tried until it works, or the split is given up
	if b.times == 0 {
		level = slog.LevelWarn
	}
	n.logger.Log(n.ctx, level, "replica of a child not made", "group", g, "again", pause, "err", m.err)
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

// makeChild makes the replica of a child of its seed or, without one, out of the
// parent's state. It blocks on the disk.
func (n *Node) makeChild(parent partition.GroupID, st *openState, base partition.Index, child *partition.Child, r partition.ReplicaID, s *seed) error {
	ctx, cancel := context.WithTimeout(n.ctx, divideWait)
	defer cancel()
	rec, err := partition.FirstConfiguration(child.Group, base, child.Membership)
	if err != nil {
		return fmt.Errorf("make %s: %w", child.Group, err)
	}
	generation, err := n.stateOfChild(ctx, parent, st, base, child, s)
	if err != nil {
		return fmt.Errorf("make %s: %w", child.Group, err)
	}
	synced := make(chan error, 1)
	write := wal.Write{Reserve: true, Group: child.Group, Replica: r, Promise: partition.NewEpoch(1, child.First), Install: &wal.Install{
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

// stateOfChild returns the generation of the state that a child begins with here.
func (n *Node) stateOfChild(ctx context.Context, parent partition.GroupID, st *openState, base partition.Index, child *partition.Child, s *seed) (uint32, error) {
	if s != nil {
		within, cancel := context.WithTimeout(ctx, seedTake)
		generation, err := s.take(within)
		cancel()
		if err == nil {
			return generation, nil
		}
		n.logger.Debug("a child is made without its seed", "group", child.Group, "err", err)
	}
	generation, err := n.engine.NextGeneration(child.Group, 0)
	if err != nil {
		return 0, err
	}
	return generation, st.store.Divide(ctx, child.Group, generation, base, func(w partition.Writer) error {
		_, err := replica.AdoptChild(w, parent, child.Group)
		return err
	})
}

// durable reports whether the replica's state is on disk through an index.
func (c *cell) durable(i partition.Index) bool {
	st := c.state.Load()
	return st != nil && st.store.Durable() >= i
}

// keepChild has the state of a replica that a split has made here come on disk
// soon; not at once, since the children of all members begin at the same time.
func (n *Node) keepChild(c *cell) {
	x, ok := c.served()
	if !ok || x.Parent == 0 || c.durable(x.Base) {
		return
	}
	time.AfterFunc(flushChild/2+rand.N(flushChild), func() {
		if st := c.state.Load(); st != nil && n.ctx.Err() == nil {
			st.store.FlushSoon()
		}
	})
}

// unmade reports whether a replica's state is not the one that its log begins with,
// but what its parent's was when the node ended before it was on disk.
func unmade(g partition.GroupID, sum wal.Summary, st *openState) bool {
	applied, err := st.store.Applied()
	return err == nil && applied < sum.Before.Index || st.exec.Extent().Split.Child(g) != nil
}

// remake makes the state of a child's replica of the parent's once more. Its log has
// everything that came after.
func (n *Node) remake(g partition.GroupID, sum wal.Summary) error {
	base := sum.Before.Index
	lost := partition.Errorf(partition.CodeCorrupt, "the state of %s is not the one at record %d, with which its log begins", g, base)
	parent := n.parentOf(g)
	if parent == 0 {
		if !n.control.Synced() {
			return partition.Errorf(partition.CodeBusy, "%s: the catalog may say of which group", lost.Why)
		}
		return lost
	}
	later := partition.Errorf(partition.CodeBusy, "%s: the replica of %s here has not come so far yet", lost.Why, parent)
	c := n.cells.get(parent)
	if _, here := n.log.Summary(parent); c == nil && here {
		return later // it is about to start
	} else if c == nil || c.broken.Load() != nil {
		return lost
	}
	x, st := c.extent.Load(), c.state.Load()
	if st == nil || x == nil || st.held.index() < base {
		return later
	}
	child := x.Split.Child(g)
	if child == nil || x.Split.At != base {
		return lost
	}
	ctx, cancel := context.WithTimeout(n.ctx, divideWait)
	defer cancel()
	if err := n.engine.Drop(g, sum.Generation); err != nil {
		return err
	}
	n.logger.Info("state of a child made once more", "group", g, "parent", parent)
	return st.store.Divide(ctx, g, sum.Generation, base, func(w partition.Writer) error {
		_, err := replica.AdoptChild(w, parent, g)
		return err
	})
}

// parentOf returns the group that one was split from, as far as the catalog knows.
func (n *Node) parentOf(g partition.GroupID) partition.GroupID {
	for _, cat := range []*control.Catalog{n.control.Catalog(), n.recalled} {
		if t, ok := cat.Prepared(g); ok {
			return t.Group
		} else if x, ok := cat.Group(g); ok {
			return x.Parent
		}
	}
	return 0
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
