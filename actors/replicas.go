package actors

import (
	"errors"
	"fmt"

	"github.com/asynkron/protoactor-go/actor"

	"pando.dev/pando/actors/mailbox"
	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
)

type (
	// catalogChanged tells that the catalog may have changed; what is to be done
	// follows from the catalog as it is then, not from the message.
	catalogChanged struct{}
	// created tells that a new replica's first record is on disk, or why not.
	created struct {
		group partition.GroupID
		err   error
	}
)

// replicasActor supervises the replicas of the node. It makes those that the
// catalog places here, starts those that are in the log, and drops those whose
// table is gone.
type replicasActor struct {
	node     *Node
	strategy *mailbox.Backoff
	self     *actor.PID
	creating map[partition.GroupID]bool
}

func newReplicas(n *Node) *replicasActor {
	a := &replicasActor{node: n, creating: make(map[partition.GroupID]bool)}
	a.strategy = mailbox.NewBackoff(mailbox.BackoffConfig{
		Fatal: func(reason any) bool {
			err, ok := reason.(error)
			return ok && errors.Is(err, partition.ErrCorrupt)
		},
		OnRestart: func(f mailbox.Failure) { a.failed(f, "replica_restarts") },
		OnGiveUp:  a.gaveUp,
	})
	return a
}

// Receive runs on the actor's own mailbox and never blocks.
func (a *replicasActor) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		a.self = ctx.Self()
		for g := range a.node.log.Groups() {
			a.start(ctx, g, false)
		}
		a.reconcile(ctx)
	case catalogChanged:
		a.reconcile(ctx)
	case *created:
		delete(a.creating, m.group)
		if m.err != nil {
			a.node.logger.Warn("replica not created", "group", m.group, "err", m.err)
			return
		}
		a.start(ctx, m.group, true)
	case *actor.Stopping:
		a.strategy.Close()
	}
}

// reconcile makes what runs here agree with the catalog.
func (a *replicasActor) reconcile(ctx actor.Context) {
	cat := a.node.control.Catalog()
	for _, g := range cat.AllGroups() {
		if _, here := g.Membership.OnNode(a.node.ID()); !here {
			continue
		}
		if c := a.node.cells.get(g.ID); c != nil {
			a.adopt(c, cat, g)
			continue
		}
		a.create(g)
	}
	if !a.node.control.Synced() {
		return // what is missing here may only not have arrived yet
	}
	a.node.cells.each(func(c *cell) {
		if _, ok := cat.Group(c.group); !ok {
			a.drop(ctx, c)
		}
	})
}

// adopt gives a running replica its place in the catalog.
func (a *replicasActor) adopt(c *cell, cat *control.Catalog, g *control.Group) {
	c.route.Store(g)
	if t, ok := cat.TableOf(g); ok && c.kind.Load() == nil {
		c.kind.Store(&t.Kind)
		a.node.system.Root.Send(c.pid, kindKnown{})
	}
}

// create writes the first record of a new replica. A group whose membership has
// changed since it was made is not begun again from its first record: its
// members bring a new replica up.
func (a *replicasActor) create(g *control.Group) {
	if a.creating[g.ID] || g.Membership.Version != 1 {
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
	cat := a.node.control.Catalog()
	if route, ok := cat.Group(g); ok {
		a.adopt(c, cat, route)
	}
}

// drop stops a replica whose table is gone, and forgets it on disk.
func (a *replicasActor) drop(ctx actor.Context, c *cell) {
	a.node.cells.remove(c.group)
	a.strategy.Forget(c.pid)
	ctx.Stop(c.pid)
	sum, _ := a.node.log.Summary(c.group)
	logger, engine, group := a.node.logger, a.node.engine, c.group
	err := a.node.log.Drop(group, func(err error) {
		if err != nil {
			return
		}
		if err := engine.Drop(group, sum.Generation); err != nil {
			logger.Warn("state not removed", "group", group, "err", err)
		}
	})
	if err != nil {
		logger.Warn("replica not dropped", "group", group, "err", err)
		return
	}
	a.node.leases.Forget(group)
	logger.Info("replica dropped", "group", group)
}

func (a *replicasActor) failed(f mailbox.Failure, counter string) {
	a.node.counters.restarts.Add(1)
	a.node.logger.Error("replica failed", "actor", f.Child.Id, "err", f.Reason, "count", f.Count, "delay", f.Delay, "counter", counter)
	a.refuse(f)
}

// gaveUp keeps the reason for whoever asks for the replica.
func (a *replicasActor) gaveUp(f mailbox.Failure) {
	a.node.logger.Error("replica given up", "actor", f.Child.Id, "err", f.Reason, "count", f.Count)
	a.refuse(f)
	a.node.cells.each(func(c *cell) {
		if c.pid == nil || c.pid.Id != f.Child.Id {
			return
		}
		err, ok := f.Reason.(error)
		if !ok {
			err = fmt.Errorf("%v", f.Reason)
		}
		c.broken.Store(&partition.Error{
			Code: partition.CodeUnavailable,
			Why:  fmt.Sprintf("the replica of %s on node %s was given up: %v", c.group, a.node.ID(), err),
			Next: "the group goes on with its other members; see the node's log",
		})
	})
}

// refuse answers the requests that were in the batch at which a replica failed.
// Some may be in the log already, so their outcome is unknown.
func (a *replicasActor) refuse(f mailbox.Failure) {
	if b, ok := f.Message.(*mailbox.Batch[any]); ok {
		for _, item := range b.Items {
			refuseItem(item, partition.Errorf(partition.CodeUnknown, "the replica failed while it handled the request"))
		}
	}
}
