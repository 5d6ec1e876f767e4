package actors

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"pando.dev/pando/actors/copies"
	"pando.dev/pando/partition"
	"pando.dev/pando/wal"
)

const (
	// noState is the generation of a replica that keeps only the log.
	noState = math.MaxUint32
	// maxBringing bounds the replicas that are being brought up at once.
	maxBringing = 64
	// bringWait bounds one attempt to copy a state here. The next one goes on
	// where this one has stopped.
	bringWait = 10 * time.Minute
)

// hosting asks a node to hold a replica: a new one, or one whose next record no
// log has any more. It comes from the node of the group's master, which says it
// again until the replica follows. So it may be lost, repeated and old.
//
//	nothing here, or no state, or behind MinIndex -> copy the state, install, start
//	log only, nothing here                        -> begin the log at Base, start
//	an older replica of the group that is broken  -> drop it first
//	it is here                                    -> nothing
type hosting struct {
	Group   partition.GroupID   `json:"group"`
	Replica partition.ReplicaID `json:"replica"`
	LogOnly bool                `json:"log_only,omitempty"`
	// Voter: the member counts already. If nothing of it is left here it has
	// forgotten what it promised, and is not made again under its id.
	Voter  bool             `json:"voter,omitempty"`
	Source partition.NodeID `json:"source,omitempty"` // where the state is copied from
	// MinIndex is where the master's log begins: a replica whose log ends before
	// needs a copy.
	MinIndex partition.Index `json:"min_index,omitempty"`
	// Base is where the log of a replica without state begins: every full voter
	// has the records up to it. Configuration is the record of the configuration
	// in force there.
	Base          partition.Position `json:"base"`
	BaseSum       uint32             `json:"base_sum,omitempty"`
	Configuration []byte             `json:"configuration,omitempty"`
}

// bringing is a replica that is on its way here.
type bringing struct {
	hosting
	cell       *cell // of the replica that gets another state; nil: it is not here
	cancel     context.CancelFunc
	installing bool  // its state has come and may be in the log at any time
	err        error // why the last attempt failed; then nothing is under way
}

type (
	// hostRequest brings a hosting to the replicas actor; done is called once.
	hostRequest struct {
		hosting
		done func(error)
	}
	// copied tells that a state was copied here, or why not.
	copied struct {
		*bringing
		state *copies.Copy
		err   error
	}
	// brought tells that a replica is installed, or why not.
	brought struct {
		*bringing
		fresh bool // it has no actor yet
		err   error
	}
	// retired says that nobody needs a removed replica any more.
	retired struct {
		group   partition.GroupID
		replica partition.ReplicaID
	}
)

// hostReplica brings a replica up on this node, or says how far that is: nil when
// it is here, CodeBusy while it is on its way.
func (n *Node) hostReplica(ctx context.Context, h hosting) error {
	answer := make(chan error, 1)
	if !n.tellReplicas(&hostRequest{hosting: h, done: func(err error) { answer <- err }}) {
		return partition.Errorf(partition.CodeUnavailable, "node %s is starting", n.ID())
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return fmt.Errorf("host a replica of %s: %w", h.Group, ctx.Err())
	}
}

// tellReplicas sends a message to the actor that owns the replicas.
func (n *Node) tellReplicas(m any) bool {
	pid := n.replicas.Load()
	if pid != nil {
		n.system.Root.Send(pid, m)
	}
	return pid != nil
}

// serveHost answers another node's hosting.
func (n *Node) serveHost(ctx context.Context, body []byte) error {
	var h hosting
	if err := json.Unmarshal(body, &h); err != nil || h.Group == 0 || h.Replica == 0 {
		return partition.Errorf(partition.CodeInvalid, "a request to host a replica that cannot be read")
	}
	return n.hostReplica(ctx, h)
}

// bring takes the next step towards a hosted replica.
func (a *replicasActor) bring(ctx actor.Context, h hosting) error {
	g := h.Group
	b := a.bringing[g]
	switch {
	case a.creating[g] || a.leaving[g] != nil:
		return partition.Errorf(partition.CodeBusy, "a replica of %s is coming or going on node %s", g, a.node.ID())
	case b != nil && b.err == nil && b.Replica == h.Replica:
		return partition.Errorf(partition.CodeBusy, "the replica of %s is being brought up on node %s%s", g, a.node.ID(), a.node.copyProgress(g))
	case b != nil && b.err == nil && b.Replica > h.Replica:
		return partition.Errorf(partition.CodeRefused, "a newer replica of %s is being brought up on node %s", g, a.node.ID())
	case b != nil && b.err == nil:
		b.cancel() // copied will tell when it has ended
		return partition.Errorf(partition.CodeBusy, "an older replica of %s is being brought up on node %s", g, a.node.ID())
	}
	c := a.node.cells.get(g)
	sum, here := a.node.log.Summary(g)
	switch {
	case !here && c == nil:
		if err := a.mayBegin(h); err != nil {
			return err
		}
		return a.begin(h, nil)
	case sum.Replica > h.Replica:
		return partition.Errorf(partition.CodeRefused, "node %s has a newer replica of %s", a.node.ID(), g)
	case sum.Replica < h.Replica:
		if c == nil || c.broken.Load() == nil {
			return partition.Errorf(partition.CodeBusy, "node %s still has an older replica of %s, which its group may need", a.node.ID(), g)
		}
		a.had[g] = max(a.had[g], h.Replica-1) // the log may have lost its id
		a.drop(ctx, c)                        // it is silent for good, and the group goes on without it
		return partition.Errorf(partition.CodeBusy, "the older replica of %s is being removed from node %s", g, a.node.ID())
	case c == nil || c.broken.Load() != nil:
		return partition.Errorf(partition.CodeUnavailable, "the replica of %s on node %s was given up", g, a.node.ID())
	case h.LogOnly || sum.Generation != noState && sum.Last+1 >= h.MinIndex:
		return nil
	}
	return a.begin(h, c)
}

// mayBegin says why a replica that is not here is not made, or nil. Who asks may
// have been replaced as master long ago, and take for new what was here since,
// promised and acknowledged, and is lost, or was removed and dropped. So the node
// has to know that its disk is not an old one, and what the catalog says.
func (a *replicasActor) mayBegin(h hosting) error {
	n, g := a.node, h.Group
	cat := a.catalog.Catalog()
	x, known := cat.Group(g)
	if !a.catalog.Synced() || n.foreign() || n.suspects.forgetful() || !known {
		return partition.Errorf(partition.CodeBusy, "node %s has not learned from the control group yet what it holds of %s", n.ID(), g)
	}
	m, member := x.Membership.Member(h.Replica)
	switch {
	case h.Voter || member && m.Kind != partition.Learner || n.suspects.has(g, h.Replica):
		return partition.Errorf(partition.CodeRefused, "node %s has lost its replica of %s, which has to be replaced", n.ID(), g)
	case !member && h.Replica < x.Membership.Next || h.Replica <= a.had[g]:
		return partition.Errorf(partition.CodeRefused, "replica %d of %s was removed, and is not made again", h.Replica, g)
	}
	return nil
}

// begin starts to bring up a replica; c is its cell if it is behind, or has no
// state and shall have one.
func (a *replicasActor) begin(h hosting, c *cell) error {
	n := a.node
	under := 0
	for _, b := range a.bringing { // counted only
		if b.err == nil {
			under++
		}
	}
	if under >= maxBringing {
		return partition.Errorf(partition.CodeBusy, "node %s brings up %d replicas already", n.ID(), under)
	}
	var failed error
	if b := a.bringing[h.Group]; b != nil {
		failed = b.err
	}
	wait, cancel := context.WithTimeout(n.ctx, bringWait)
	b := &bringing{hosting: h, cell: c, cancel: cancel}
	a.bringing[h.Group] = b
	system, self := n.system, a.self
	r := copies.Request{Group: h.Group, From: h.Source, Else: a.otherSources(h), MinIndex: n.copyFrom(h), Have: n.stateDir(h.Group)}
	if h.LogOnly {
		done := func(err error) { system.Root.Send(self, &brought{bringing: b, fresh: true, err: err}) }
		if err := n.beginLog(h, done); err != nil {
			done(err)
		}
	} else {
		n.background.Go(func() {
			state, err := n.copies.Fetch(wait, r)
			system.Root.Send(self, &copied{bringing: b, state: state, err: err})
		})
	}
	n.logger.Info("replica is brought up", "group", h.Group, "replica", h.Replica, "log_only", h.LogOnly, "from", h.Source, "again", c != nil)
	if failed != nil {
		return partition.Errorf(partition.CodeBusy, "tried again: %v", failed)
	}
	return partition.Errorf(partition.CodeBusy, "the replica of %s is being brought up on node %s", h.Group, n.ID())
}

// copyFrom is the least index that a copied state must have: the record behind it
// is the master's first, and the log here, if there is one, does not begin later.
func (n *Node) copyFrom(h hosting) partition.Index {
	sum, _ := n.log.Summary(h.Group)
	return max(sum.Before.Index, max(h.MinIndex, 1)-1)
}

// otherSources are the nodes that may have the state if the one that was named does
// not bring it, as the catalog knows. Any of them will do: what a replica has applied
// is committed, and how far it must be is in the request.
func (a *replicasActor) otherSources(h hosting) (out []partition.NodeID) {
	x, ok := a.catalog.Catalog().Group(h.Group)
	if !ok {
		return nil
	}
	for _, m := range x.Membership.Members {
		if m.Kind == partition.Full && m.Node != h.Source && m.Node != a.node.ID() {
			out = append(out, m.Node)
		}
	}
	return out
}

// stateDir is where the state of a group is here, empty if there is none.
func (n *Node) stateDir(g partition.GroupID) string {
	sum, ok := n.log.Summary(g)
	if !ok || sum.Generation == noState {
		return ""
	}
	return n.engine.Dir(g, sum.Generation)
}

// copyProgress says how much of a copy is here, or what it waits for.
func (n *Node) copyProgress(g partition.GroupID) string {
	p, ok := n.copies.Fetching(g)
	switch {
	case ok && p.Waits != "":
		return ": it " + p.Waits
	case !ok || p.Total == 0:
		return ""
	}
	return fmt.Sprintf(": %d of %d bytes are here", p.Done, p.Total)
}

// copied installs a state that has come, unless what it was for has gone
// meanwhile. A replica that runs does so itself, for nobody else may write to its
// part of the log.
func (a *replicasActor) copied(ctx actor.Context, m *copied) {
	n, system, self, c := a.node, a.node.system, a.self, a.node.cells.get(m.Group)
	_, here := n.log.Summary(m.Group)
	switch {
	case m.err != nil:
		a.brought(ctx, &brought{bringing: m.bringing, err: m.err})
		return
	case a.bringing[m.Group] != m.bringing || a.leaving[m.Group] != nil || c != m.cell || here != (c != nil) || c != nil && c.broken.Load() != nil:
		n.background.Go(func() { n.discard(m.state) })
		a.brought(ctx, &brought{bringing: m.bringing, err: partition.Errorf(partition.CodeUnavailable, "the replica of %s has gone while a state was copied for it", m.Group)})
		return
	}
	m.installing = true
	done := func(err error) { system.Root.Send(self, &brought{bringing: m.bringing, fresh: c == nil, err: err}) }
	if c != nil {
		c.ask(&install{hosting: m.hosting, state: m.state, done: done})
		return
	}
	n.background.Go(func() { done(n.install(m.hosting, m.state)) })
}

// brought starts a replica that was installed.
func (a *replicasActor) brought(ctx actor.Context, m *brought) {
	g := m.Group
	m.cancel()
	m.installing = false
	if m.err != nil {
		if !errors.Is(m.err, context.Canceled) {
			a.node.logger.Warn("replica not brought up", "group", g, "replica", m.Replica, "err", m.err)
		}
		m.bringing.err = m.err
	} else {
		if a.bringing[g] == m.bringing {
			delete(a.bringing, g)
		}
		if err := a.node.suspects.strike(g, m.Replica); err != nil {
			a.node.logger.Warn("replaced replica not struck off the list of suspects", "group", g, "err", err)
		}
		a.node.logger.Info("replica brought up", "group", g, "replica", m.Replica)
		if m.fresh {
			a.start(ctx, g, true)
		}
	}
	if l := a.leaving[g]; l != nil {
		a.forget(g, l) // it had to wait for this
	}
}

// retired drops a replica that its group does not need any more.
func (a *replicasActor) retired(ctx actor.Context, m *retired) {
	c := a.node.cells.get(m.group)
	if sum, ok := a.node.log.Summary(m.group); c == nil || !ok || sum.Replica != m.replica {
		return
	}
	if a.madeBy(c) {
		return // it asks again
	}
	a.node.logger.Info("replica has left its group", "group", m.group, "replica", m.replica)
	a.drop(ctx, c)
}

// beginLog begins the log of a replica that keeps no state.
func (n *Node) beginLog(h hosting, done func(error)) error {
	return n.log.Append(wal.Write{
		Group: h.Group, Replica: h.Replica, Promise: h.Base.Epoch, Reserve: true,
		Install: &wal.Install{Base: h.Base, BaseSum: h.BaseSum, Generation: noState, Configuration: h.Configuration},
	}, done)
}

// install puts a copied state in the place of a replica's: the files first, then
// the record in the log that makes them count. It blocks on the disk. What a
// crash in between leaves is removed at the next start, and so is what remains
// when it is not known whether the record was written.
func (n *Node) install(h hosting, s *copies.Copy) error {
	defer n.discard(s)
	sum, here := n.log.Summary(h.Group)
	after := sum.Generation
	if sum.Generation == noState {
		after = 0
	}
	generation, err := n.engine.NextGeneration(h.Group, after)
	if err == nil {
		err = n.engine.Install(s.Dir, h.Group, generation)
	}
	if err != nil {
		return fmt.Errorf("install the state of %s: %w", h.Group, err)
	}
	synced := make(chan error, 1)
	write := wal.Write{Group: h.Group, Replica: h.Replica, Promise: max(s.Base.Epoch, sum.Promise), Install: s.Install(generation), Reserve: true}
	if err := n.log.Append(write, func(err error) { synced <- err }); err != nil {
		return errors.Join(fmt.Errorf("install the state of %s: %w", h.Group, err), n.engine.Drop(h.Group, generation))
	}
	select {
	case err = <-synced:
	case <-n.ctx.Done():
		return partition.Errorf(partition.CodeClosed, "node %s is shutting down", n.ID())
	}
	if err != nil {
		return fmt.Errorf("install the state of %s: %w", h.Group, err)
	}
	if here && sum.Generation != noState {
		if err := n.engine.Drop(h.Group, sum.Generation); err != nil {
			n.logger.Warn("replaced state not removed", "group", h.Group, "err", err)
		}
	}
	return nil
}

// discard removes what is left of a copy; nothing, if it was installed.
func (n *Node) discard(s *copies.Copy) {
	if err := s.Discard(); err != nil {
		n.logger.Warn("copy not removed", "dir", s.Dir, "err", err)
	}
}
