package control

import (
	"fmt"

	"pando.dev/pando/partition"
)

// below reports whether the task has others below it, and none of a group itself.
func (t *Task) below() bool { return t.Kind == TaskPlan || t.Kind == TaskDecommission }

// applyPlan makes a plan with its steps, or adds steps to one. At most one plan is
// carried out, and at most one is there to be looked at.
func (s *state) applyPlan(b *planBody) (*tableAnswer, *partition.Error) {
	digest := b.digest()
	if done, ok, err := s.finished(b.Token, digest); ok {
		return done, err
	}
	if err := b.validate(); err != nil {
		return nil, err
	}
	if err := s.mayPlan(b); err != nil {
		return nil, err
	}
	if err := s.roomForTasks(len(b.Steps)+1, 0); err != nil {
		return nil, err
	}
	version := s.catalog.Version + 1
	e := newEdit(s.catalog)
	if b.Parent == 0 {
		s.endLooked(e, b.NowMs, version)
	}
	id, state := b.Parent, TaskOpen
	if b.Look {
		state = TaskPlanned
	}
	now := timeOf(b.NowMs)
	if id == 0 {
		id = s.nextTask
		s.nextTask++
		e.putTask(&Task{
			ID: id, Kind: b.Kind, State: state, Token: b.Token, From: b.Node, Reason: b.Reason, By: b.By,
			Created: now, Touched: now, OfUnits: uint64(len(b.Steps)), Changed: version,
		})
	}
	for _, x := range b.Steps {
		g, ok := s.catalog.Group(x.Group)
		if !ok {
			return nil, partition.Errorf(partition.CodeInternal, "%s is gone", x.Group) // mayPlan has looked
		}
		e.putTask(&Task{
			ID: s.nextTask, Kind: x.Kind, State: state, Parent: id, Table: g.Table, Group: x.Group, MembershipVersion: x.MembershipVersion,
			From: x.From, To: x.To, Bytes: x.Bytes, Reason: x.Why, By: b.By, Created: now, Touched: now, Changed: version,
		})
		s.nextTask++
	}
	s.swap(e, version)
	done := &tableAnswer{Table: uint64(id), Version: version}
	s.finish(b.Token, digest, done)
	return done, nil
}

// validate refuses what is no plan.
func (b *planBody) validate() *partition.Error {
	switch {
	case b.Kind != TaskPlan && b.Kind != TaskDecommission || (b.Kind == TaskDecommission) != (b.Node != ""):
		return partition.Errorf(partition.CodeInvalid, "a plan of kind %s for node %q", b.Kind, b.Node)
	case len(b.Node) > partition.MaxNodeIDBytes || max(len(b.Reason), len(b.By)) > MaxTaskText || b.NowMs < 0:
		return partition.Errorf(partition.CodeInvalid, "a plan with a text of more than %d bytes, a node's name of more than %d, or a negative time", MaxTaskText, partition.MaxNodeIDBytes)
	case b.Look && b.Kind != TaskPlan || b.Look && b.Parent != 0:
		return partition.Errorf(partition.CodeInvalid, "only a new plan can be looked at before it begins")
	case len(b.Steps) > MaxPlanSteps:
		return partition.Errorf(partition.CodeTooLarge, "a plan of %d steps, limit %d", len(b.Steps), MaxPlanSteps)
	}
	for i, x := range b.Steps {
		if x.Kind != TaskMove && x.Kind != TaskTransfer || x.From == "" || x.To == "" || x.From == x.To ||
			max(len(x.From), len(x.To)) > partition.MaxNodeIDBytes || len(x.Why) > MaxTaskText {
			return partition.Errorf(partition.CodeInvalid, "step %d, a %s of %s from %.64q to %.64q, is none", i+1, x.Kind, x.Group, x.From, x.To)
		}
	}
	return nil
}

// mayPlan refuses a plan beside another, and steps of groups that are not there or
// occupied.
func (s *state) mayPlan(b *planBody) *partition.Error {
	if p, ok := s.catalog.Task(b.Parent); b.Parent != 0 && (!ok || p.State != TaskOpen || p.Kind != b.Kind || p.From != b.Node) {
		return partition.Errorf(partition.CodeRefused, "%s is no open %s that could get further steps", b.Parent, b.Kind)
	}
	for _, t := range s.catalog.tasks {
		if b.Parent == 0 && t.State == TaskOpen && t.Kind == b.Kind && t.From == b.Node {
			return &partition.Error{
				Code: partition.CodeExists, Why: fmt.Sprintf("%s %s is being carried out already", t.Kind, t.ID),
				Next: fmt.Sprintf("wait for it: pando task wait %s; or end it: pando plan cancel %s", t.ID, t.ID),
			}
		}
	}
	for _, x := range b.Steps {
		if _, err := s.freeGroup(x.Group); err != nil && (!b.Look || err.Code != partition.CodeExists) {
			return err
		}
	}
	return nil
}

// endLooked ends the plan that was there to be looked at.
func (s *state) endLooked(e *edit, ms int64, version uint64) {
	for _, t := range s.catalog.tasks {
		if t.State == TaskPlanned {
			next := *t
			next.end(TaskAborted, "a later plan has taken its place", ms)
			next.Changed = version
			e.putTask(&next)
		}
	}
}

// applyStart begins a plan that was looked at. What does not fit any more fails.
func (s *state) applyStart(b *startBody) *partition.Error {
	p, ok := s.catalog.Task(b.Plan)
	switch {
	case !ok:
		return noTask(b.Plan)
	case b.NowMs < 0 || p.Kind != TaskPlan:
		return partition.Errorf(partition.CodeInvalid, "task %s is a %s", p.ID, p.Kind)
	case p.State == TaskOpen:
		return nil
	case p.State != TaskPlanned:
		return p.closed("is to begin")
	}
	next := *p // no other is open: that would have ended this one
	next.State, next.Touched = TaskOpen, timeOf(b.NowMs)
	changed := []*Task{&next}
	for _, t := range s.catalog.Steps(p.ID) {
		step := *t
		step.State, step.Touched = TaskOpen, next.Touched
		g, ok := s.catalog.Group(t.Group)
		other, occupied := s.catalog.busy[t.Group]
		switch {
		case !ok:
			step.end(TaskFailed, "the group is gone", b.NowMs)
		case occupied:
			step.end(TaskFailed, fmt.Sprintf("the group has a task already: %s, a %s", other.ID, other.Kind), b.NowMs)
		case t.MembershipVersion != 0 && t.MembershipVersion != g.Membership.Version:
			step.end(TaskFailed, fmt.Sprintf("the group has changed since it was planned: membership version %d, now %d", t.MembershipVersion, g.Membership.Version), b.NowMs)
		}
		changed = append(changed, &step)
	}
	s.putTasks(changed...)
	return nil
}
