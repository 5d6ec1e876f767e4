package control

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"pando.dev/pando/partition"
)

// BeginSplit asks that a group be divided, and returns the task as soon as this
// node's catalog has it. The group's master does it. The children have their ids
// then. It is tried until ctx ends, as CreateTable is; CodeExists: the group has
// an open task, and CodeRefused: it is no longer what the caller saw.
func (c *Control) BeginSplit(ctx context.Context, spec SplitSpec) (*Task, error) {
	b := &splitBody{
		Token: spec.Token, Group: spec.Group, RangeVersion: spec.RangeVersion, MembershipVersion: spec.MembershipVersion,
		Keys: spec.Keys, Keep: spec.Keep, TimeoutMs: uint32(min(max(spec.Timeout, 0), maxTaskTime).Milliseconds()), Reason: spec.Reason, By: spec.By,
	}
	if b.Token == "" {
		b.Token = rand.Text()
	}
	for _, p := range spec.Places {
		x := splitPlace{First: p.First}
		for _, n := range p.Nodes {
			x.Nodes = append(x.Nodes, placeItem{Node: n.ID, Zone: n.Zone, Weight: n.Weight})
		}
		b.Places = append(b.Places, x)
	}
	return c.beginTask(ctx, kindAskSplit, b, fmt.Sprintf("split %s", spec.Group))
}

// BeginPlan makes a task with moves and transfers below it, which the masters of
// the groups carry out, or only keeps it to be looked at. CodeExists: another plan
// is being carried out, or a group has an open task.
func (c *Control) BeginPlan(ctx context.Context, spec PlanSpec) (*Task, error) {
	b := &planBody{Token: spec.Token, Kind: spec.Kind, Node: spec.Node, Parent: spec.Parent, Look: spec.Look, Reason: cut(spec.Reason), By: cut(spec.By)}
	if b.Token == "" {
		b.Token = rand.Text()
	}
	for _, x := range spec.Steps {
		x.Why = cut(x.Why)
		b.Steps = append(b.Steps, planStep(x))
	}
	return c.beginTask(ctx, kindAskPlan, b, "begin a plan")
}

// StartPlan has a plan carried out that was kept to be looked at. Steps whose
// groups have changed meanwhile fail, the others are done. It may be repeated.
func (c *Control) StartPlan(ctx context.Context, id TaskID) error {
	return c.tellTask(ctx, kindAskStart, &startBody{Plan: id}, "start "+id.String())
}

// maxTaskTime bounds the deadline of a task.
const maxTaskTime = 14 * 24 * time.Hour

// beginTask asks for a task and waits until the catalog shows it.
func (c *Control) beginTask(ctx context.Context, k kind, body any, what string) (*Task, error) {
	done, err := askFor[tableAnswer](ctx, c, k, body, kindTableAnswer)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	c.await(ctx, done.Version)
	if t, ok := c.Catalog().Task(TaskID(done.Table)); ok {
		return t, nil
	}
	return nil, partition.Errorf(partition.CodeUnknown, "%s: it is task %s (catalog version %d), which is not in the catalog of this node", what, TaskID(done.Table), done.Version)
}

// ActivateSplit makes a split's children known to all and takes their ranges from
// the group, in one step. Whoever knows that the group's Activate record is
// committed may ask for it, as often as they like. CodeNotFound and CodeRefused:
// the task ended otherwise.
func (c *Control) ActivateSplit(ctx context.Context, a SplitActivation) error {
	b := &activateBody{Task: a.Task, RangeVersion: a.RangeVersion}
	for i := range a.Children {
		m, _ := a.Children[i].Membership.AppendBinary(nil) // never fails
		b.Children = append(b.Children, childBody{Group: a.Children[i].Group, Membership: m, First: a.Children[i].First})
	}
	return c.tellTask(ctx, kindAskActivate, b, "activate "+a.Task.String())
}

// ReportTask tells how far a task of a group is, of which this node has the
// master. Too long texts are cut.
func (c *Control) ReportTask(ctx context.Context, r TaskReport) error {
	return c.tellTask(ctx, kindAskReport, &reportBody{
		Task: r.Task, Epoch: r.Epoch, Seq: r.Seq, Phase: cut(r.Phase), Why: cut(r.Why), Units: r.Units, OfUnits: r.OfUnits,
		State: r.State, Run: r.Run, Stop: r.Stop,
	}, "report "+r.Task.String())
}

// CancelTask asks for a task to be given up, with all steps if it is a plan. It
// returns when that is noted; the group's master undoes what was begun, and the
// task is then aborted. A task that has ended stays as it is. CodeRefused: it can
// no longer be undone.
func (c *Control) CancelTask(ctx context.Context, id TaskID, why string) error {
	if why == "" {
		why = "it was cancelled"
	}
	return c.tellTask(ctx, kindAskCancel, &cancelBody{Task: id, Why: cut(why)}, "cancel "+id.String())
}

func (c *Control) tellTask(ctx context.Context, k kind, body any, what string) error {
	a, err := askFor[emptyAnswer](ctx, c, k, body, kindEmptyAnswer)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	c.await(ctx, a.Version)
	return nil
}

// cut shortens a text to what a task keeps.
func cut(s string) string { return s[:min(len(s), MaxTaskText)] }

// serveTask answers the leader's part of what is asked about tasks.
func (s *seat) serveTask(ctx context.Context, k kind, b []byte) ([]byte, *partition.Error) {
	now := time.Now().UnixMilli()
	switch k {
	case kindAskSplit:
		return s.proposeTask(ctx, kindSplit, func() (any, error) {
			ask, err := decode[splitBody](k, b)
			if err == nil {
				ask.NowMs, ask.DeadlineMs = now, deadlineMs(now, ask.TimeoutMs)
			}
			return ask, err
		})
	case kindAskMerge:
		return s.proposeTask(ctx, kindMerge, func() (any, error) {
			ask, err := decode[mergeBody](k, b)
			if err == nil {
				ask.NowMs, ask.DeadlineMs = now, deadlineMs(now, ask.TimeoutMs)
			}
			return ask, err
		})
	case kindAskPlan:
		return s.proposeTask(ctx, kindPlan, func() (any, error) {
			ask, err := decode[planBody](k, b)
			if err == nil {
				ask.NowMs = now
			}
			return ask, err
		})
	case kindAskStart:
		return s.proposeTask(ctx, kindStart, func() (any, error) {
			ask, err := decode[startBody](k, b)
			if err == nil {
				ask.NowMs = now
			}
			return ask, err
		})
	case kindAskActivate:
		return s.proposeTask(ctx, kindActivate, func() (any, error) { return decode[activateBody](k, b) })
	case kindAskReport:
		return s.proposeTask(ctx, kindReport, func() (any, error) {
			ask, err := decode[reportBody](k, b)
			if err == nil {
				ask.NowMs = now
			}
			return ask, err
		})
	case kindAskCancel:
		return s.proposeTask(ctx, kindCancel, func() (any, error) {
			ask, err := decode[cancelBody](k, b)
			if err == nil {
				ask.NowMs = now
			}
			return ask, err
		})
	}
	return nil, partition.Errorf(partition.CodeInvalid, "a control request of kind %d", k)
}

func deadlineMs(now int64, timeout uint32) int64 {
	if timeout == 0 {
		return 0
	}
	return now + int64(timeout)
}

// proposeTask makes a request a command, and answers what came of it.
func (s *seat) proposeTask(ctx context.Context, k kind, ask func() (any, error)) ([]byte, *partition.Error) {
	body, err := ask()
	if err != nil {
		return nil, asError(err)
	}
	r, failed := s.propose(ctx, k, body)
	if r.table != nil {
		return reply(kindTableAnswer, r.table, failed)
	}
	return reply(kindEmptyAnswer, &emptyAnswer{Version: s.fsm.catalog.Load().Version}, failed)
}
