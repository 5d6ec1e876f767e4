package actors

import (
	"context"
	"errors"
	"fmt"

	"pando.dev/pando/cluster/placement"
	"pando.dev/pando/partition"
)

// begin takes the step.
func (a *tenderActor) begin(c *cell, x *tended, s *placement.Situation) {
	step, g := x.step, c.group
	a.number++
	a.steps++
	number, now := a.number, a.node.now()
	if step.Kind == placement.Host {
		a.beginHost(c, x, number)
		return
	}
	x.busy, x.since = number, now
	x.again = now + stepWait
	system, self := a.node.system, a.self
	done := func(err error) { system.Root.Send(self, &stepDone{number: number, group: g, step: step, err: err}) }
	a.node.logger.Debug("tending", "group", g, "step", step.Kind.String(), "why", step.Why)
	switch step.Kind {
	case placement.Configure:
		if step.Force {
			a.node.logger.Warn("a check is overridden", "group", g, "why", step.Why)
		}
		c.ask(&configure{membership: step.Next, force: step.Force, done: func(_ partition.Index, err error) { done(err) }})
	case placement.Transfer:
		c.ask(&transferMaster{to: step.Replica, done: done})
	}
}

// beginHost asks a node to bring up a replica. The group's other steps do not
// wait for the answer, which a node that hangs keeps back for a while.
func (a *tenderActor) beginHost(c *cell, x *tended, number uint64) {
	step, g := x.step, c.group
	h := x.hosts[step.Replica]
	if h == nil {
		h = &hostTry{}
		x.hosts[step.Replica] = h
	}
	h.at, h.logOnly, h.under = a.node.now(), step.LogOnly, number
	everywhere := c.status.Load().Everywhere
	system, self := a.node.system, a.self
	a.node.background.Go(func() {
		err := a.node.askToHost(g, step, everywhere)
		system.Root.Send(self, &stepDone{number: number, group: g, step: step, err: err})
	})
	a.t.mark(g) // there may be more to do
}

// done takes in the outcome of a step.
func (a *tenderActor) done(m *stepDone) {
	x := a.groups[m.group]
	if m.step.Kind == placement.Host {
		a.steps--
		if x != nil && x.hosts[m.step.Replica] != nil && x.hosts[m.step.Replica].under == m.number {
			a.hosted(x.hosts[m.step.Replica], m.err)
			a.t.mark(m.group)
		}
		return
	}
	if x == nil || x.busy != m.number {
		return // it was given up, or begun before a restart of this actor
	}
	a.steps--
	x.busy = 0
	if m.err != nil {
		a.failed(x, m)
	} else {
		x.failures, x.lastErr, x.notYet = 0, "", 0
		a.node.counters.tended.Add(1)
		a.node.logger.Info("group tended", "group", m.group, "step", m.step.Kind.String(), "why", m.step.Why)
		a.repaired(m)
	}
	a.t.mark(m.group)
}

// failed has the group wait before the next step.
func (a *tenderActor) failed(x *tended, m *stepDone) {
	level, most := a.node.logger.Info, backOffMax
	if errors.Is(m.err, partition.ErrBusy) || errors.Is(m.err, partition.ErrNotMaster) || errors.Is(m.err, partition.ErrUnavailable) {
		level, most = a.node.logger.Debug, backOffPassing // it passes
	}
	x.failures++
	x.lastErr = m.err.Error()
	x.notYet = a.node.now() + min(backOffMin<<min(x.failures-1, 16), most)
	level("step not taken", "group", m.group, "step", m.step.Kind.String(), "why", m.step.Why, "err", m.err)
}

// hosted notes what a node said that was asked to bring up a replica.
func (a *tenderActor) hosted(h *hostTry, err error) {
	h.under = 0
	switch {
	case err == nil:
		h.attempts, h.progress = 0, ""
	case errors.Is(err, partition.ErrBusy):
		h.progress = asError(err).Why
	default:
		h.attempts++
		h.progress = asError(err).Why
	}
}

// repaired remembers that a damaged replica was replaced, so that a disk that
// goes on spoiling what it holds does not keep its groups changing.
func (a *tenderActor) repaired(m *stepDone) {
	if m.step.Kind != placement.Configure {
		return
	}
	x := a.groups[m.group]
	for r := range x.broken { // in no order: each on its own
		if _, still := m.step.Next.Member(r); still {
			continue
		}
		delete(x.broken, r)
		for _, y := range m.step.Next.Members {
			if y.Kind == partition.Learner {
				k := repairKey{m.group, y.Node}
				a.repairs[k] = repair{count: a.repairs[k].count + 1, at: a.node.now()}
			}
		}
	}
}

// maySucceed reports whether a damaged replica may be replaced now.
func (a *tenderActor) mayReplace(g partition.GroupID, node partition.NodeID) bool {
	r, ok := a.repairs[repairKey{g, node}]
	return !ok || a.node.now() >= r.at+min(repairMin<<min(r.count-1, 16), repairMax)
}

// askToHost asks a node to bring up a replica, with what it needs for that.
func (n *Node) askToHost(g partition.GroupID, step placement.Step, everywhere partition.Index) error {
	sum, ok := n.log.Summary(g)
	if !ok {
		return partition.Errorf(partition.CodeUnavailable, "the log of node %s has no replica of %s", n.ID(), g)
	}
	h := hosting{Group: g, Replica: step.Replica, LogOnly: step.LogOnly, Source: step.Source, MinIndex: sum.First, Voter: step.Voter}
	if step.LogOnly {
		base, err := n.log.BaseAt(g, everywhere)
		if err != nil {
			return fmt.Errorf("find where a log replica of %s can begin: %w", g, err)
		}
		h.Base, h.BaseSum, h.Configuration = base.Base, base.BaseSum, base.Configuration
	}
	ctx, cancel := context.WithTimeout(n.ctx, serveWait)
	defer cancel()
	if step.Node == n.ID() {
		return n.hostReplica(ctx, h)
	}
	_, err := n.tell(ctx, step.Node, callHost, h)
	return err
}
