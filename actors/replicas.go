package actors

import (
	"errors"
	"fmt"
	"math"
	"sync/atomic"

	"github.com/asynkron/protoactor-go/actor"

	"pando.dev/pando/actors/mailbox"
	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
	"pando.dev/pando/wal"
)

type (
	// catalogChanged tells that the catalog may have changed; what is to be done
	// follows from the catalog as it is then, not from the message. At most one
	// is on its way.
	catalogChanged struct{ pending *atomic.Bool }
	// created tells that a new replica's first record is on disk, or why not.
	created struct {
		group partition.GroupID
		err   error
	}
	// forgotten tells that the log has forgotten a dropped replica, or why not.
	forgotten struct {
		group      partition.GroupID
		replica    partition.ReplicaID
		generation uint32 // of its state
		err        error
	}
)

// leaving is a replica that is being dropped. The order matters: the actor first,
// so that nothing writes to the log behind the drop; the log next, so that a
// restart does not find a replica whose state is gone; the state last.
//
//	stop the actor -> drop from the log -> drop the state
type leaving struct {
	cell    *cell
	stopped bool
	logged  bool // the log was told
}

// catalogSource is where the catalog comes from.
type catalogSource interface {
	Catalog() *control.Catalog
	Synced() bool
}

// replicasActor supervises the replicas of the node. It makes those that the
// catalog places here, starts those that are in the log, and drops those whose
// table is gone.
type replicasActor struct {
	node     *Node
	catalog  catalogSource
	strategy *mailbox.Backoff
	self     *actor.PID
	creating map[partition.GroupID]bool
	leaving  map[partition.GroupID]*leaving
	bringing map[partition.GroupID]*bringing
	again    bool // it was restarted, so replicas have run before
	// had are the last replicas that this process has dropped: neither an old
	// catalog nor an old request makes one again under its id.
	had map[partition.GroupID]partition.ReplicaID
	// seeds are the states of children whose split is not decided, setbacks what
	// went wrong with children, and appointed are those that begin with a master,
	// with the number of their lock here, until they start.
	seeds     map[partition.GroupID]*seed
	setbacks  map[partition.GroupID]setback
	appointed map[partition.GroupID]uint64
}

func newReplicas(n *Node) *replicasActor {
	a := &replicasActor{node: n, catalog: n.control, had: make(map[partition.GroupID]partition.ReplicaID)}
	a.strategy = mailbox.NewBackoff(mailbox.BackoffConfig{
		Fatal:     hopeless,
		OnRestart: a.failed,
		OnGiveUp:  a.gaveUp,
	})
	return a
}

// hopeless reports whether a failure would only repeat itself.
func hopeless(reason any) bool {
	err, ok := reason.(error)
	return ok && (errors.Is(err, partition.ErrCorrupt) || errors.Is(err, partition.ErrNewerFormat) ||
		errors.Is(err, partition.ErrRefused) || errors.Is(err, wal.ErrPoisoned))
}

// Receive runs on the actor's own mailbox and never blocks.
func (a *replicasActor) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		a.self = ctx.Self()
		a.creating = make(map[partition.GroupID]bool)
		a.leaving = make(map[partition.GroupID]*leaving)
		a.bringing = make(map[partition.GroupID]*bringing)
		a.seeds = make(map[partition.GroupID]*seed)
		a.setbacks = make(map[partition.GroupID]setback)
		a.appointed = make(map[partition.GroupID]uint64)
		for g := range a.node.log.Groups() {
			a.start(ctx, g, false)
		}
		a.reconcile(ctx)
	case catalogChanged:
		m.pending.Store(false)
		a.reconcile(ctx)
	case *created:
		delete(a.creating, m.group)
		if m.err != nil {
			a.node.logger.Warn("replica not created", "group", m.group, "err", m.err)
			return
		}
		a.start(ctx, m.group, true)
		a.reconcile(ctx) // its table may be gone again
	case *forgotten:
		a.forgotten(m)
	case *hostRequest:
		m.done(a.bring(ctx, m.hosting))
	case *dividing:
		a.divide()
	case *divided:
		a.divided(ctx, m)
	case *copied:
		a.copied(ctx, m)
	case *brought:
		a.brought(ctx, m)
	case *retired:
		a.retired(ctx, m)
	case *actor.Terminated:
		a.terminated(m.Who)
	case *actor.Restarting:
		// Started makes everything anew from what is on disk.
		a.again = true
		for _, s := range a.seeds { // they remove themselves
			s.cancel()
		}
		a.node.cells.each(func(c *cell) {
			a.strategy.Forget(c.pid)
			a.node.cells.remove(c.group)
		})
	case *actor.Stopping:
		a.strategy.Close()
	}
}

// reconcile makes what runs here agree with the catalog.
func (a *replicasActor) reconcile(ctx actor.Context) {
	// Asked before the catalog is taken: an older one may lack what is here.
	whole := a.catalog.Synced() && !a.node.foreign()
	cat := a.catalog.Catalog()
	// Whatever says that it is whole: one that this node had gone beyond before
	// it was stopped is not.
	whole = whole && (a.node.recalled == nil || cat.Version >= a.node.recalled.Version)
	if whole && a.node.suspects.forgetful() {
		if err := a.node.remembered(cat); err != nil {
			a.node.logger.Error("lost replicas not written down", "err", err)
			whole = false
		}
	}
	for _, g := range cat.AllGroups() {
		c := a.node.cells.get(g.ID)
		if _, here := g.Membership.OnNode(a.node.ID()); !here {
			if c != nil {
				a.leftOut(c, g)
			}
			continue
		}
		if c != nil {
			a.adopt(c, cat, g)
			continue
		}
		if whole && !a.node.suspects.forgetful() { // and so the control group knows this incarnation of the node
			a.create(g)
		}
	}
	a.node.cells.each(func(c *cell) {
		if v := c.resigned.Load(); v != nil && c.view.Load() == nil {
			a.node.resign(v) // the first time may have got lost
		}
		a.place(c, cat)
		if whole && !wanted(cat, c.group) {
			a.drop(ctx, c)
		}
	})
	a.divide()
	for g, l := range a.leaving {
		a.forget(g, l) // what was refused is tried again
	}
	for g := range a.had { // as above
		if whole && !wanted(cat, g) {
			delete(a.had, g) // a group's id is never used again
		}
	}
	for g, b := range a.bringing { // in no order: each on its own
		if whole && !wanted(cat, g) {
			b.cancel()
			if b.err != nil {
				delete(a.bringing, g)
			}
		}
	}
}

// leftOut tells a replica that the catalog's configuration, which is a committed
// one, does not have it any more. All members that it knows may have left as well
// while it was away; then nobody else would tell.
func (a *replicasActor) leftOut(c *cell, g *control.Group) {
	st, v, m := c.status.Load(), c.view.Load(), g.Membership
	if st == nil || v == nil || st.Removed || len(m.Members) == 0 || v.Self >= m.Next || v.Configurations.Last().Version >= m.Version {
		return
	}
	from := m.Members[0]
	c.box.TryPost(&received{from: from.Replica, node: from.Node, msg: &replica.ProbeAnswer{Without: m}}, 0)
}

// adopt gives a running replica its place in the catalog.
func (a *replicasActor) adopt(c *cell, cat *control.Catalog, g *control.Group) {
	c.route.Store(g)
	if t, ok := cat.TableOf(g); ok && c.table.Load() == nil {
		c.table.Store(t)
		a.node.system.Root.Send(c.pid, tableKnown{})
	}
}

// create writes the first record of a new replica. A group whose membership has
// changed since it was made is not begun again from its first record: its
// members bring a new replica up. One that was split from another is made from the
// other's state.
func (a *replicasActor) create(g *control.Group) {
	if g.Parent != 0 || a.creating[g.ID] || a.leaving[g.ID] != nil || a.bringing[g.ID] != nil || g.Membership.Version != 1 {
		return
	}
	if me, _ := g.Membership.OnNode(a.node.ID()); a.node.suspects.has(g.ID, me.Replica) || me.Replica <= a.had[g.ID] {
		return
	}
	a.creating[g.ID] = true
	system, self := a.node.system, a.self
	done := func(err error) { system.Root.Send(self, &created{group: g.ID, err: err}) }
	if err := a.node.create(g.ID, g.Membership, done); err != nil {
		done(err)
	}
}

// start spawns the actor of a replica that is in the log.
func (a *replicasActor) start(ctx actor.Context, g partition.GroupID, fresh bool) {
	if a.node.cells.get(g) != nil {
		return
	}
	box := mailbox.New[any](mailbox.Config{Items: a.node.cfg.QueueMessages, Bytes: maxQueueBytes})
	c := &cell{group: g, box: box}
	c.fresh.Store(fresh)
	if lock, ok := a.appointed[g]; ok {
		c.appointed = &replica.Appointed{Lock: lock}
		delete(a.appointed, g)
	}
	c.ran.Store(a.again)
	props := actor.PropsFromProducer(func() actor.Actor {
		return &replicaActor{node: a.node, cell: c, box: box}
	}, actor.WithMailbox(box.Producer()))
	pid, err := ctx.SpawnNamed(props, g.String())
	if err != nil {
		a.node.logger.Error("replica not started", "group", g, "err", err)
		return
	}
	c.pid = pid
	a.node.cells.put(c)
	for _, cat := range []*control.Catalog{a.catalog.Catalog(), a.node.recalled} {
		if route, ok := cat.Group(g); ok {
			a.adopt(c, cat, route)
			return
		}
		a.place(c, cat)
	}
}

// drop stops a replica that is not to be here any more. The rest follows when it
// has ended. A copy that is on its way for it comes to nothing.
func (a *replicasActor) drop(ctx actor.Context, c *cell) {
	if sum, ok := a.node.log.Summary(c.group); ok {
		a.had[c.group] = max(a.had[c.group], sum.Replica)
	}
	if b := a.bringing[c.group]; b != nil {
		b.cancel()
	}
	a.node.cells.remove(c.group)
	a.strategy.Forget(c.pid)
	c.dropped.Store(true)
	l := &leaving{cell: c, stopped: c.broken.Load() != nil}
	a.leaving[c.group] = l
	if !l.stopped {
		ctx.Stop(c.pid)
		return
	}
	a.forget(c.group, l)
}

// terminated notes that a replica's actor has ended.
func (a *replicasActor) terminated(who *actor.PID) {
	for g, l := range a.leaving {
		if l.cell.pid.Id == who.Id {
			l.stopped = true
			a.forget(g, l)
		}
	}
}

// forget lets the log forget a replica that has stopped, and into which no copy is
// being installed: that would bring it back.
func (a *replicasActor) forget(g partition.GroupID, l *leaving) {
	if b := a.bringing[g]; !l.stopped || l.logged || b != nil && b.installing {
		return
	}
	system, self := a.node.system, a.self
	sum, _ := a.node.log.Summary(g)
	err := a.node.log.Drop(g, func(err error) {
		system.Root.Send(self, &forgotten{group: g, replica: sum.Replica, generation: sum.Generation, err: err})
	})
	if err != nil {
		a.node.logger.Warn("replica not dropped", "group", g, "err", err)
		return
	}
	l.logged = true
}

// forgotten removes the state of a replica that the log does not know any more.
// Should the node end before, the next start removes it.
func (a *replicasActor) forgotten(m *forgotten) {
	delete(a.leaving, m.group)
	if m.err != nil {
		a.node.logger.Warn("replica not dropped", "group", m.group, "err", m.err)
		return
	}
	a.node.leases.Forget(m.group)
	if err := a.node.suspects.strike(m.group, m.replica+1); err != nil {
		a.node.logger.Warn("dropped replica not struck off the list of suspects", "group", m.group, "err", err)
	}
	a.node.logger.Info("replica dropped", "group", m.group)
	a.node.background.Go(func() {
		if err := a.node.engine.Drop(m.group, m.generation); err != nil {
			a.node.logger.Warn("state not removed", "group", m.group, "err", err)
		}
	})
}

func (a *replicasActor) failed(f mailbox.Failure) {
	a.node.counters.restarts.Add(1)
	stack, err := reasonOf(f.Reason)
	a.node.logger.Error("replica failed", "actor", f.Child.Id, "err", err, "stack", stack, "count", f.Count, "delay", f.Delay)
	refuseBatch(f)
}

// reasonOf tells why an actor failed, and where. What has a code, such as damage
// of the log, is an error of the world and not of the program: it is told
// without the place.
func reasonOf(reason any) (stack string, why error) {
	why, ok := reason.(error)
	if !ok {
		return "", fmt.Errorf("%v", reason)
	}
	p, ok := reason.(*mailbox.Panic)
	switch {
	case !ok:
		return "", why
	case p.Unwrap() != nil && partition.CodeOf(p) != partition.CodeInternal:
		return "", p.Unwrap()
	}
	return string(p.Stack), why
}

// gaveUp keeps the reason for whoever asks for the replica.
func (a *replicasActor) gaveUp(f mailbox.Failure) {
	stack, err := reasonOf(f.Reason)
	a.node.logger.Error("replica given up", "actor", f.Child.Id, "err", err, "stack", stack, "count", f.Count)
	refuseBatch(f)
	a.node.cells.each(func(c *cell) {
		if c.pid == nil || c.pid.Id != f.Child.Id {
			return
		}
		if errors.Is(err, partition.ErrCorrupt) {
			a.node.distrust(c.group)
			c.hopeless.Store(true)
		}
		c.broken.Store(&partition.Error{
			Code: partition.CodeUnavailable,
			Why:  fmt.Sprintf("the replica of %s on node %s was given up: %v", c.group, a.node.ID(), err),
			Next: "the group goes on with its other members; see the node's log",
		})
		a.node.asker.soon()
	})
}

// refuseBatch answers the requests that were in the batch at which a replica
// failed. Some may be in the log already, so their outcome is unknown.
func refuseBatch(f mailbox.Failure) {
	if b, ok := f.Message.(*mailbox.Batch[any]); ok {
		for _, item := range b.Items {
			refuseItem(item, partition.Errorf(partition.CodeUnknown, "the replica failed while it handled the request"))
		}
	}
}

// distrust keeps this node's grants from counting for a group whose replica may
// have forgotten what it promised: a holder of an older lease must not rely on
// them. It reports false if it does not know who may hold one.
func (n *Node) distrust(g partition.GroupID) bool {
	sum, _ := n.log.Summary(g)
	nodes, err := membersOf(sum)
	for _, node := range nodes {
		n.leases.Revoke(g, sum.Replica, math.MaxUint64, node)
	}
	return err == nil && len(nodes) > 0
}

// membersOf returns the nodes of all members that the log names.
func membersOf(sum wal.Summary) ([]partition.NodeID, error) {
	var nodes []partition.NodeID
	for _, rec := range sum.Configurations {
		m := new(partition.Membership)
		if err := m.UnmarshalBinary(rec.Payload()); err != nil {
			return nodes, fmt.Errorf("configuration of %s at %s: %w", rec.Group(), rec.Position(), err)
		}
		for _, x := range m.Members {
			nodes = append(nodes, x.Node)
		}
	}
	return nodes, nil
}
