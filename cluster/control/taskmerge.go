package control

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"pando.dev/pando/partition"
)

// The rules of merges. Who decides is the survivor's log; here it becomes known, in
// one command: the survivor's range grows, and no key leads to the source any more.
// The source stays in the catalog until the task has ended, for it has to learn of
// the decision by a record of its own, with a master, a lock and all. Then it goes.
//
//	open --Activate(rv)--> open, activated --Report(done)--> done, the source is gone
//	  |                        ^
//	  +--Report(aborted)--> aborted, for what a master says that does not know that it
//	                                 was deposed
//
// An update of the survivor that has the source's range says as much as the
// activation: its master has applied the decision.

// MergeSpec is what a merge is begun from.
type MergeSpec struct {
	// Group survives, and Source, the group behind it, is absorbed.
	Group, Source partition.GroupID
	// RangeVersion is the survivor's as the caller saw it; 0: whatever it is now.
	RangeVersion partition.RangeVersion
	Timeout      time.Duration // how long it is tried; 0: for ever
	Reason       string
	By           string
	Token        string // as in TableSpec
}

// mergeBody is both the request and the command.
type mergeBody struct {
	Token         string
	Group, Source partition.GroupID
	RangeVersion  partition.RangeVersion
	TimeoutMs     uint32 // in a request
	DeadlineMs    int64  // in the command
	NowMs         int64
	Reason        string
	By            string
}

func (b *mergeBody) digest() uint32 {
	return partition.Checksum(fmt.Appendf(nil, "merge\x00%d %d %d", b.Group, b.Source, b.RangeVersion))
}

// BeginMerge asks that a group absorb the one behind it, as BeginSplit asks for a
// split.
func (c *Control) BeginMerge(ctx context.Context, spec MergeSpec) (*Task, error) {
	b := &mergeBody{
		Token: spec.Token, Group: spec.Group, Source: spec.Source, RangeVersion: spec.RangeVersion,
		TimeoutMs: uint32(min(max(spec.Timeout, 0), maxTaskTime).Milliseconds()), Reason: cut(spec.Reason), By: cut(spec.By),
	}
	if b.Token == "" {
		b.Token = rand.Text()
	}
	return c.beginTask(ctx, kindAskMerge, b, fmt.Sprintf("merge %s into %s", spec.Source, spec.Group))
}

// ActivateMerge makes it known that the survivor of a merge has the source's range,
// since its range version rv. Whoever knows that its Merging record is committed may
// ask for it, as often as they like.
func (c *Control) ActivateMerge(ctx context.Context, id TaskID, rv partition.RangeVersion) error {
	return c.tellTask(ctx, kindAskActivate, &activateBody{Task: id, RangeVersion: rv}, "activate "+id.String())
}

// Source returns the group that a merge absorbs, and what it had.
func (t *Task) Source() (partition.GroupID, partition.KeyRange) {
	if t.Kind != TaskMerge || len(t.Children) != 1 {
		return 0, partition.KeyRange{}
	}
	return t.Children[0].Group, t.Children[0].Range
}

// Absorbed returns the merge that has taken a group's keys, if it is open or ended
// not long ago.
func (c *Catalog) Absorbed(g partition.GroupID) (*Task, bool) {
	t, ok := c.absorbed[g]
	return t, ok
}

// Neighbour returns the group behind a group of the same table.
func (c *Catalog) Neighbour(g *Group) (*Group, bool) {
	t, ok := c.TableOf(g)
	if !ok || len(g.Range.Hi) == 0 {
		return nil, false
	}
	n, err := c.Lookup(t.Name, g.Range.Hi)
	return n, err == nil && bytes.Equal(n.Range.Lo, g.Range.Hi)
}

// applyMerge begins a merge: both groups are occupied until the task ends.
func (s *state) applyMerge(b *mergeBody) (*tableAnswer, *partition.Error) {
	digest := b.digest()
	if done, ok, err := s.finished(b.Token, digest); ok {
		return done, err
	}
	g, err := s.freeGroup(b.Group)
	if err != nil {
		return nil, err
	}
	source, err := s.freeGroup(b.Source)
	if err != nil {
		return nil, err
	}
	if err := b.validate(g, source); err != nil {
		return nil, err
	}
	if err := s.roomForTasks(1, 0); err != nil {
		return nil, err
	}
	version := s.catalog.Version + 1
	t := &Task{
		ID: s.nextTask, Kind: TaskMerge, State: TaskOpen, Token: b.Token, Table: g.Table, Group: g.ID,
		RangeVersion: g.RangeVersion, MembershipVersion: g.Membership.Version, Keep: g.Range,
		Children: []TaskChild{{Group: source.ID, Range: source.Range}}, Reason: b.Reason, By: b.By,
		Deadline: timeOf(b.DeadlineMs), Created: timeOf(b.NowMs), Touched: timeOf(b.NowMs), Changed: version,
	}
	s.nextTask++
	e := newEdit(s.catalog)
	e.putTask(t)
	s.catalog = e.apply(version)
	done := &tableAnswer{Table: uint64(t.ID), Version: version}
	s.finish(b.Token, digest, done)
	return done, nil
}

// validate refuses what cannot be merged.
func (b *mergeBody) validate(g, source *Group) *partition.Error {
	switch {
	case b.RangeVersion != 0 && b.RangeVersion != g.RangeVersion:
		return &partition.Error{
			Code: partition.CodeRefused, Why: fmt.Sprintf("%s changed meanwhile: planned for range version %d, it has %d", g.ID, b.RangeVersion, g.RangeVersion),
			Next: "plan it again",
		}
	case g.Table != source.Table || len(g.Range.Hi) == 0 || !bytes.Equal(g.Range.Hi, source.Range.Lo):
		return &partition.Error{
			Code: partition.CodeInvalid, Why: fmt.Sprintf("%s has %s and %s has %s: they are no neighbours", g.ID, g.Range, source.ID, source.Range),
			Next: "name the left one of two neighbours; see pando partition ls",
		}
	case b.NowMs < 0 || b.DeadlineMs < 0 || max(len(b.Reason), len(b.By)) > MaxTaskText:
		return partition.Errorf(partition.CodeInvalid, "a reason of %d bytes and an author of %d, limit %d, or a negative time", len(b.Reason), len(b.By), MaxTaskText)
	}
	return nil
}

// activateMerge gives the survivor the source's range, at once. u is the survivor as
// its master tells it, or nil.
func (s *state) activateMerge(e *edit, t *Task, rv partition.RangeVersion, u *Group) *partition.Error {
	id, r := t.Source()
	old, ok := e.group(t.Group)
	source, there := e.group(id)
	switch {
	case t.Activated == rv && rv != 0:
		return nil
	case t.Activated != 0:
		return t.closed(fmt.Sprintf("is to be activated at range version %d", rv))
	case !ok || !there || !sameRange(old.Range, t.Keep) || !sameRange(source.Range, r):
		return partition.Errorf(partition.CodeInvalid, "task %s merges %s and %s, which are not both there any more", t.ID, t.Group, id)
	case rv <= old.RangeVersion:
		return partition.Errorf(partition.CodeInvalid, "task %s is activated at range version %d, %s is at %d", t.ID, rv, old.ID, old.RangeVersion)
	}
	version := s.catalog.Version + 1
	g := *old
	if u != nil {
		g = *u
		g.Table, g.Parent = old.Table, old.Parent
	}
	g.Range, g.RangeVersion, g.Changed = partition.KeyRange{Lo: t.Keep.Lo, Hi: r.Hi}, rv, version
	e.putGroup(&g)
	next := *t
	next.reopen()
	next.Activated, next.Changed = rv, version
	e.putTask(&next)
	s.endOthers(e, &next, id)
	return nil
}

// endOthers ends what was begun with the groups of a merge after it had been taken
// for ended: of the source, everything, of the survivor, what changes its range.
func (s *state) endOthers(e *edit, t *Task, source partition.GroupID) {
	for _, o := range s.catalog.tasks {
		of := o.Group == source || o.Group == t.Group && (o.Kind == TaskSplit || o.Kind == TaskMerge)
		if x, _ := o.Source(); o.ID == t.ID || !o.Open() || !of && x != t.Group && x != source {
			continue
		}
		next := *o
		next.end(TaskFailed, fmt.Sprintf("%s was absorbed by %s, by task %s, meanwhile", source, t.Group, t.ID), msOf(o.Touched))
		next.Changed = s.catalog.Version + 1
		e.putTask(&next)
		if o.Parent != 0 {
			e.endPlan(o.Parent, next.Ended, next.Changed)
		}
	}
}

// updatedInMerge takes an update of the survivor that has another range than the
// catalog: it has absorbed the source.
func (s *state) updatedInMerge(e *edit, id TaskID, u *Group) *partition.Error {
	t, _ := e.task(id)
	_, r := t.Source()
	if u.ID != t.Group || !sameRange(u.Range, partition.KeyRange{Lo: t.Keep.Lo, Hi: r.Hi}) {
		return partition.Errorf(partition.CodeInvalid, "%s: range %s at range version %d, which task %s does not explain", u.ID, u.Range, u.RangeVersion, t.ID)
	}
	return s.activateMerge(e, t, u.RangeVersion, u)
}

// indexMerge notes what a merge occupies, and what it has absorbed.
func (c *Catalog) indexMerge(t *Task) {
	id, _ := t.Source()
	if id != 0 && t.Activated != 0 {
		c.absorbed[id] = t
	}
	if id != 0 && t.State == TaskOpen {
		if _, ok := c.busy[id]; !ok {
			c.busy[id] = t
		}
	}
}

// dropAbsorbed takes the groups out that were absorbed by tasks that have ended.
func (c *Catalog) dropAbsorbed() {
	gone := func(g *Group) bool {
		t, ok := c.absorbed[g.ID]
		return ok && !t.Open()
	}
	if slices.ContainsFunc(c.groups, gone) {
		c.groups = slices.DeleteFunc(slices.Clone(c.groups), gone)
	}
}
