package actors

import (
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/asynkron/protoactor-go/actor"

	"pando.dev/pando/actors/mailbox"
	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
	"pando.dev/pando/partition/store"
)

// cell is one replica of this node as the rest of the node sees it. It stays
// while the actor inside it fails and is rebuilt from the log. All of it may be
// used from any goroutine.
type cell struct {
	group partition.GroupID
	box   *mailbox.Box[any]
	pid   *actor.PID

	// route is what the catalog says of the group: requests are checked against
	// it before they enter the mailbox.
	route atomic.Pointer[control.Group]
	// table is the group's, nil until the catalog has told: before, its partition
	// kind is not known and nothing can be applied.
	table atomic.Pointer[control.Table]
	// view is what the machine published last; nil until it runs.
	view atomic.Pointer[replica.View]
	// state is what reads need; nil while the replica is not open.
	state atomic.Pointer[openState]
	// status is the machine's, as of the end of the last turn.
	status atomic.Pointer[replica.Status]
	// fresh: the replica was made by this process, so it can have forgotten
	// neither a promise nor a lease. Cleared when it was opened once.
	fresh atomic.Bool
	// appointed: this process has made the replica, of a group that begins with its
	// master; nil otherwise. Immutable.
	appointed *replica.Appointed
	// ran: an actor of this process has written to the log for the replica, and
	// what it wrote last may not be on disk yet.
	ran atomic.Bool
	// extent is what the group serves as of the last record applied here; nil
	// before the state was open.
	extent atomic.Pointer[partition.Extent]
	// hold is what a master keeps out of the log; nil: nothing.
	hold atomic.Pointer[hold]
	// splitting is the split of the group that this node's master drives; nil: none.
	splitting atomic.Pointer[splitting]
	// load is what is asked of the replica while it takes requests as master.
	load cellLoad
	// seeds are those of its children that are being made here.
	seeds atomic.Pointer[[]*seed]
	// stalled is why no commands are taken now although the replica serves.
	stalled atomic.Pointer[partition.Error]
	// broken is why the replica was given up, if it was.
	broken atomic.Pointer[partition.Error]
	// hopeless: it was given up because it has lost what was synced, so it can
	// never take part again; see unusable.
	hopeless atomic.Bool
	// resigned is the view under which the replica was master when it failed.
	resigned atomic.Pointer[replica.View]
	// dropped: the replica is being removed, so what opens its store must put it
	// away again.
	dropped atomic.Bool
}

// openState is a replica's state while its actor runs.
type openState struct {
	store  *store.Store
	exec   *replica.Executor
	logger *slog.Logger
	// damaged fails the actor's incarnation with an error, from any goroutine.
	damaged func(error)
	// held are the reads that wait for the state to reflect more.
	held heldReads
	// reclaims are the removals of keys of others.
	reclaims reclaims
}

// master returns the node that the replica takes for the group's master.
func (c *cell) master() partition.NodeID {
	v := c.view.Load()
	if v == nil || v.Master == 0 {
		return ""
	}
	m, _ := v.Configurations.Member(v.Master)
	return m.Node
}

// notMaster is the answer of a replica that does not serve.
func (c *cell) notMaster() *partition.Error {
	if b := c.broken.Load(); b != nil {
		return b
	}
	v := c.view.Load()
	if v != nil && v.Next != "" {
		return &partition.Error{Code: partition.CodeNotMaster, Why: "the mastership is handed over", Master: v.Next}
	}
	if v != nil && v.Master != 0 && v.Master != v.Self {
		return &partition.Error{Code: partition.CodeNotMaster, Why: "another replica is master", Master: c.master()}
	}
	return partition.Errorf(partition.CodeUnavailable, "group %s has no serving master now", c.group)
}

// cells are the replicas of a node by group.
type cells struct{ m sync.Map }

func (s *cells) get(g partition.GroupID) *cell {
	if c, ok := s.m.Load(g); ok {
		return c.(*cell)
	}
	return nil
}

func (s *cells) put(c *cell)                { s.m.Store(c.group, c) }
func (s *cells) remove(g partition.GroupID) { s.m.Delete(g) }

// each calls fn for every replica, in no order.
func (s *cells) each(fn func(*cell)) {
	s.m.Range(func(_, v any) bool {
		fn(v.(*cell))
		return true
	})
}
