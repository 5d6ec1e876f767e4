package control

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"pando.dev/pando/cluster/placement"
	"pando.dev/pando/partition"
)

// The rules of tasks. A split's truth is in its group's log, where it is activated
// or aborted, never both; here it only becomes known. So reports may come in any
// order, and the one that the catalog's ranges depend on comes in one command:
//
//	open --Activate(rv, children)--> open, activated --Report(done)--> done
//	  |                                (children in Lookup)
//	  +--Report(aborted)--> aborted    (the prepared children vanish)
//	                           |
//	                           +--Activate--> open, activated
//
// The last line is for a master that did not know that it had been deposed, and
// gave up what its successor had decided. Reports of older masters are refused where
// a newer one has reported; before that nobody here can know.
//
// A table's ranges never overlap and never leave a hole, whatever arrives when:
// an update of the group that has the range of after the split waits for the
// activation, and if the activation is lost with its group, the updates of all
// children stand for it.

// applySplit begins a split: the children get their ids, and the group is
// occupied until the task ends.
func (s *state) applySplit(b *splitBody) (*tableAnswer, *partition.Error) {
	digest := b.digest()
	if done, ok, err := s.finished(b.Token, digest); ok {
		return done, err
	}
	g, err := s.freeGroup(b.Group)
	if err != nil {
		return nil, err
	}
	if err := b.validate(g); err != nil {
		return nil, err
	}
	if err := s.roomForTasks(1, len(b.Keys)); err != nil {
		return nil, err
	}
	version := s.catalog.Version + 1
	t := b.task(g)
	t.ID, t.Changed = s.nextTask, version
	for i := range t.Children {
		t.Children[i].Group = s.nextGroup + partition.GroupID(i)
	}
	s.nextTask++
	s.nextGroup += partition.GroupID(len(t.Children))
	e := newEdit(s.catalog)
	e.putTask(t)
	s.catalog = e.apply(version)
	done := &tableAnswer{Table: uint64(t.ID), Version: version}
	s.finish(b.Token, digest, done)
	return done, nil
}

// freeGroup returns a group that has no open task.
func (s *state) freeGroup(id partition.GroupID) (*Group, *partition.Error) {
	g, ok := s.catalog.Group(id)
	if t, is := s.catalog.prepared[id]; !ok && is {
		return nil, &partition.Error{
			Code: partition.CodeNotFound, Why: fmt.Sprintf("%s is not there yet: task %s is to make it from %s", id, t.ID, t.Group),
			Next: fmt.Sprintf("wait for it: pando task wait %s", t.ID),
		}
	}
	if !ok {
		return nil, partition.Errorf(partition.CodeNotFound, "the catalog has no group %s", id)
	}
	if t, ok := s.catalog.busy[id]; ok {
		return nil, &partition.Error{
			Code: partition.CodeExists, Why: fmt.Sprintf("%s has a task already: %s, a %s (%s)", id, t.ID, t.Kind, t.progress()),
			Next: fmt.Sprintf("wait for it: pando task wait %s; or end it: pando task abort %s", t.ID, t.ID),
		}
	}
	return g, nil
}

// roomForTasks refuses more tasks and groups than there may be.
func (s *state) roomForTasks(tasks, groups int) *partition.Error {
	open, prepared := 0, len(s.catalog.prepared)
	for _, t := range s.catalog.tasks {
		if t.Open() {
			open++
		}
	}
	if open+tasks > MaxOpenTasks {
		return &partition.Error{
			Code: partition.CodeTooLarge, Why: fmt.Sprintf("%d tasks are open and %d would begin, limit %d", open, tasks, MaxOpenTasks),
			Next: "wait until some have ended: pando task ls",
		}
	}
	if all := len(s.catalog.groups) + prepared; all+groups > MaxGroups {
		return partition.Errorf(partition.CodeTooLarge, "%d groups and %d more, limit %d", all, groups, MaxGroups)
	}
	return nil
}

// validate refuses what cannot be done to the group.
func (b *splitBody) validate(g *Group) *partition.Error {
	if b.RangeVersion != 0 && b.RangeVersion != g.RangeVersion || b.MembershipVersion != 0 && b.MembershipVersion != g.Membership.Version {
		return &partition.Error{
			Code: partition.CodeRefused,
			Why: fmt.Sprintf("%s changed meanwhile: planned for range version %d and membership version %d, it has %d and %d",
				g.ID, b.RangeVersion, b.MembershipVersion, g.RangeVersion, g.Membership.Version),
			Next: "plan it again",
		}
	}
	if len(b.Keys) == 0 || len(b.Keys) > partition.MaxChildren {
		return partition.Errorf(partition.CodeInvalid, "a split at %d keys, allowed are 1 to %d", len(b.Keys), partition.MaxChildren)
	}
	if b.Keep < 0 || b.Keep > len(b.Keys) {
		return partition.Errorf(partition.CodeInvalid, "piece %d is to remain with the group, there are 0 to %d", b.Keep, len(b.Keys))
	}
	if b.NowMs < 0 || b.DeadlineMs < 0 || max(len(b.Reason), len(b.By)) > MaxTaskText {
		return partition.Errorf(partition.CodeInvalid, "a reason of %d bytes and an author of %d, limit %d, or a negative time", len(b.Reason), len(b.By), MaxTaskText)
	}
	if err := b.validateKeys(g.Range); err != nil {
		return err
	}
	return b.validatePlaces()
}

func (b *splitBody) validateKeys(r partition.KeyRange) *partition.Error {
	total := 0
	for i, k := range b.Keys {
		total += len(k)
		switch {
		case len(k) == 0 || len(k) > MaxKeyBytes:
			return partition.Errorf(partition.CodeInvalid, "key %d has %d bytes, allowed are 1 to %d", i+1, len(k), MaxKeyBytes)
		case i > 0 && bytes.Compare(b.Keys[i-1], k) >= 0:
			return partition.Errorf(partition.CodeInvalid, "the keys must be in strictly ascending order: %.64q is not behind %.64q", k, b.Keys[i-1])
		case !r.Contains(k) || bytes.Equal(k, r.Lo):
			return &partition.Error{
				Code: partition.CodeInvalid, Why: fmt.Sprintf("%.64q does not divide %s", k, r),
				Next: "name a key inside the range, which is not its first",
			}
		}
	}
	if total > MaxSplitKeyBytes {
		return partition.Errorf(partition.CodeTooLarge, "keys of %d bytes together, limit %d", total, MaxSplitKeyBytes)
	}
	return nil
}

func (b *splitBody) validatePlaces() *partition.Error {
	if n := len(b.Places); n != 0 && n != len(b.Keys) {
		return partition.Errorf(partition.CodeInvalid, "%d places for %d pieces that leave", n, len(b.Keys))
	}
	total := 0
	for i, p := range b.Places {
		var names []partition.NodeID
		for _, n := range p.Nodes {
			if n.Node == "" || len(n.Node) > partition.MaxNodeIDBytes || len(n.Zone) > MaxNameBytes || slices.Contains(names, n.Node) {
				return partition.Errorf(partition.CodeInvalid, "piece %d is to go to node %.64q, which is named twice or has too long a name or zone", i+1, n.Node)
			}
			names = append(names, n.Node)
		}
		total += len(names)
		if len(p.First) > partition.MaxNodeIDBytes || p.First != "" && len(names) > 0 && !slices.Contains(names, p.First) {
			return partition.Errorf(partition.CodeInvalid, "node %.64q is to be the first master of piece %d, which does not go there", p.First, i+1)
		}
		if len(names) > partition.MaxMembers || total > MaxTaskNodes {
			return partition.Errorf(partition.CodeTooLarge, "%d nodes for piece %d, limit %d; %d for all, limit %d", len(names), i+1, partition.MaxMembers, total, MaxTaskNodes)
		}
	}
	return nil
}

// task is the split as a task without ids.
func (b *splitBody) task(g *Group) *Task {
	t := &Task{
		Kind: TaskSplit, State: TaskOpen, Token: b.Token, Table: g.Table, Group: g.ID,
		RangeVersion: g.RangeVersion, MembershipVersion: g.Membership.Version,
		Reason: b.Reason, By: b.By, Deadline: timeOf(b.DeadlineMs), Created: timeOf(b.NowMs), Touched: timeOf(b.NowMs),
	}
	t.Keep = piece(g.Range, b.Keys, b.Keep)
	for i := range len(b.Keys) + 1 {
		if i == b.Keep {
			continue
		}
		c := TaskChild{Range: piece(g.Range, b.Keys, i)}
		if n := len(t.Children); n < len(b.Places) {
			c.First = b.Places[n].First
			for _, p := range b.Places[n].Nodes {
				c.Nodes = append(c.Nodes, placement.Node{ID: p.Node, Zone: p.Zone, Weight: p.Weight})
			}
		}
		t.Children = append(t.Children, c)
	}
	return t
}

// piece is the i-th of the pieces that keys divide a range into.
func piece(r partition.KeyRange, keys [][]byte, i int) partition.KeyRange {
	p := splitRange(keys, i)
	if i == 0 {
		p.Lo = r.Lo
	}
	if i == len(keys) {
		p.Hi = r.Hi
	}
	return p
}

// applyActivation makes a split's children known, and takes their ranges from the
// group, at once.
func (s *state) applyActivation(b *activateBody) *partition.Error {
	t, ok := s.catalog.Task(b.Task)
	switch {
	case !ok:
		return noTask(b.Task)
	case t.Kind == TaskMerge:
		e := newEdit(s.catalog)
		if err := s.activateMerge(e, t, b.RangeVersion, nil); err != nil || len(e.tasks) == 0 {
			return err
		}
		s.swap(e, s.catalog.Version+1)
		return nil
	case t.Kind != TaskSplit:
		return partition.Errorf(partition.CodeInvalid, "task %s is a %s", t.ID, t.Kind)
	case t.Activated == b.RangeVersion && b.RangeVersion != 0:
		return nil
	case t.Activated != 0:
		return t.closed(fmt.Sprintf("is to be activated at range version %d", b.RangeVersion))
	}
	next := *t
	next.reopen()
	next.Children = slices.Clone(t.Children)
	if len(b.Children) != len(next.Children) {
		return partition.Errorf(partition.CodeInvalid, "task %s is activated with %d children, it has %d", t.ID, len(b.Children), len(next.Children))
	}
	for i := range next.Children {
		g, err := next.Children[i].group(t, &b.Children[i], b.RangeVersion)
		if err != nil {
			return err
		}
		if told := next.Children[i].told; told == nil || compareGroups(told, g) < 0 {
			next.Children[i].told = g
		}
	}
	e := newEdit(s.catalog)
	if err := s.activate(e, &next, b.RangeVersion); err != nil {
		return err
	}
	s.endOvertaken(e, &next)
	s.swap(e, s.catalog.Version+1)
	return nil
}

// reopen takes back the end of the caller's own copy of the task: an activation is
// a fact of the group's log, whatever somebody has told who was no longer master.
func (t *Task) reopen() {
	if t.State != TaskOpen {
		t.State, t.Ended, t.Why = TaskOpen, time.Time{}, "it was told to be "+t.State.String()+", and was activated all the same"
	}
}

// endOvertaken ends the split that was begun after the task had been taken for
// ended: it was made for a range that is no more, so no master can begin it.
func (s *state) endOvertaken(e *edit, t *Task) {
	o, ok := s.catalog.busy[t.Group]
	if !ok || o.ID == t.ID || o.Kind != TaskSplit {
		return
	}
	next := *o
	next.end(TaskFailed, fmt.Sprintf("the group was divided by task %s meanwhile", t.ID), msOf(o.Touched))
	next.Changed = s.catalog.Version + 1
	e.putTask(&next)
}

// divides reports whether what the task makes of a range is all of it, and nothing
// twice.
func (t *Task) divides(r partition.KeyRange) bool {
	pieces := []partition.KeyRange{t.Keep}
	for i := range t.Children {
		pieces = append(pieces, t.Children[i].Range)
	}
	slices.SortFunc(pieces, func(a, b partition.KeyRange) int { return bytes.Compare(a.Lo, b.Lo) })
	at := r.Lo
	for i, p := range pieces {
		if !bytes.Equal(p.Lo, at) || p.Empty() || len(p.Hi) == 0 && i < len(pieces)-1 {
			return false
		}
		at = p.Hi
	}
	return bytes.Equal(at, r.Hi)
}

// group is the child as the activation tells it.
func (c *TaskChild) group(t *Task, b *childBody, rv partition.RangeVersion) (*Group, *partition.Error) {
	if b.Group != c.Group {
		return nil, partition.Errorf(partition.CodeInvalid, "task %s is activated with %s, where it has %s", t.ID, b.Group, c.Group)
	}
	g := &Group{ID: c.Group, Table: t.Table, Parent: t.Group, Range: c.Range, RangeVersion: rv, Membership: &partition.Membership{}}
	if err := g.Membership.UnmarshalBinary(b.Membership); err != nil {
		return nil, asError(err)
	}
	if m, ok := g.Membership.Member(b.First); ok {
		g.Master = m.Node
	}
	return g, nil
}

// activate puts into the edit what a split's activation changes; all of its
// children have been told of. The task is the caller's own copy.
func (s *state) activate(e *edit, t *Task, rv partition.RangeVersion) *partition.Error {
	old, ok := e.group(t.Group)
	if !ok {
		return partition.Errorf(partition.CodeNotFound, "the catalog has no group %s", t.Group)
	}
	if rv <= old.RangeVersion {
		return partition.Errorf(partition.CodeInvalid, "task %s is activated at range version %d, %s is at %d", t.ID, rv, old.ID, old.RangeVersion)
	}
	if !t.divides(old.Range) {
		return partition.Errorf(partition.CodeInvalid, "task %s does not divide %s, the range of %s", t.ID, old.Range, old.ID)
	}
	version := s.catalog.Version + 1
	g := *old
	g.Range, g.RangeVersion, g.Changed = t.Keep, rv, version
	if t.early != nil && compareGroups(t.early, &g) > 0 {
		early := *t.early
		early.Table, early.Parent, early.Changed = g.Table, g.Parent, version
		g = early
	}
	e.putGroup(&g)
	for i := range t.Children {
		c := *t.Children[i].told
		c.Changed = version
		e.putGroup(&c)
		t.Children[i].told = nil
	}
	t.Activated, t.early, t.Changed = rv, nil, version
	e.putTask(t)
	return nil
}

// updatedInSplit takes an update that a split under way explains: of a child that
// is being made, or of the group as it is after the split.
func (s *state) updatedInSplit(e *edit, id TaskID, u *Group) *partition.Error {
	t, _ := e.task(id)
	if t.Kind == TaskMerge {
		return s.updatedInMerge(e, id, u)
	}
	if t.Kind != TaskSplit || t.Activated != 0 {
		return partition.Errorf(partition.CodeInvalid, "%s: range %s at range version %d, which task %s, a %s, does not explain", u.ID, u.Range, u.RangeVersion, t.ID, t.Kind)
	}
	next := *t
	u.Table = t.Table
	if u.ID == t.Group {
		if !sameRange(u.Range, t.Keep) {
			return partition.Errorf(partition.CodeInvalid, "%s: range %s at range version %d, after task %s it keeps %s", u.ID, u.Range, u.RangeVersion, t.ID, t.Keep)
		}
		if t.early != nil && compareGroups(u, t.early) <= 0 {
			return nil
		}
		next.early = u
		e.putTask(&next)
		return nil
	}
	next.Children = slices.Clone(t.Children)
	at := slices.IndexFunc(next.Children, func(c TaskChild) bool { return c.Group == u.ID })
	c := &next.Children[at]
	if !sameRange(u.Range, c.Range) {
		return partition.Errorf(partition.CodeInvalid, "%s: range %s, task %s gives it %s", u.ID, u.Range, t.ID, c.Range)
	}
	if c.told != nil && compareGroups(u, c.told) <= 0 {
		return nil
	}
	u.Parent, c.told = t.Group, u
	for _, c := range next.Children {
		if c.told == nil {
			e.putTask(&next)
			return nil
		}
	}
	// A child's log begins behind the activation, so it has taken place.
	rv := next.Children[0].told.RangeVersion
	for _, c := range next.Children {
		rv = min(rv, c.told.RangeVersion)
	}
	return s.activate(e, &next, rv)
}

// timeOf is a time of a command.
func timeOf(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

func msOf(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func noTask(id TaskID) *partition.Error {
	return &partition.Error{
		Code: partition.CodeNotFound, Why: fmt.Sprintf("no task %s is known: it never was, or it ended long ago", id), Next: "list what there is: pando task ls",
	}
}

// progress says in words how far a task is.
func (t *Task) progress() string {
	s := t.State.String()
	if t.Phase != "" && t.State == TaskOpen {
		s += ", " + t.Phase
	}
	if t.Why != "" {
		s += ": " + t.Why
	}
	return s
}

// closed refuses what comes too late.
func (t *Task) closed(what string) *partition.Error {
	return &partition.Error{
		Code: partition.CodeRefused, Why: fmt.Sprintf("task %s %s, but it is %s", t.ID, what, t.progress()), Next: fmt.Sprintf("look at it: pando task ls %s", t.ID),
	}
}
