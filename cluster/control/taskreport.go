package control

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"pando.dev/pando/partition"
)

const (
	// MaxCopiesPerNode bounds the moves that run from a node, and to it.
	MaxCopiesPerNode = 2
	// placeTimeout is how long a move keeps its place among those that run without
	// a word of its master, so that a group without one holds up nobody.
	placeTimeout = time.Minute
)

// applyReport takes over what a group's master tells of its task.
func (s *state) applyReport(b *reportBody) *partition.Error {
	t, ok := s.catalog.Task(b.Task)
	if !ok {
		return noTask(b.Task)
	}
	if max(len(b.Phase), len(b.Why)) > MaxTaskText || b.NowMs < 0 {
		return partition.Errorf(partition.CodeTooLarge, "a phase of %d bytes, a reason of %d, limit %d", len(b.Phase), len(b.Why), MaxTaskText)
	}
	if t.State != TaskOpen {
		if b.State == t.State || b.State == 0 {
			return nil
		}
		return t.closed("is told to be " + b.State.String())
	}
	if b.State != 0 && b.Epoch < t.Epoch {
		return partition.Errorf(partition.CodeNewerEpoch, "task %s is told to be %s by the master of %s, that of %s has reported", t.ID, b.State, b.Epoch, t.Epoch)
	}
	if err := t.mayEnd(b.State); err != nil {
		return err
	}
	next := *t
	if b.State == 0 {
		if cmp.Or(cmp.Compare(b.Epoch, t.Epoch), cmp.Compare(b.Seq, t.Seq)) <= 0 {
			return nil
		}
		if b.Run {
			if err := s.mayRun(t, b.NowMs); err != nil {
				return err
			}
		}
		next.Epoch, next.Seq = b.Epoch, b.Seq
	}
	next.take(b)
	s.putTasks(&next)
	if id, _ := next.Source(); next.State == TaskDone && id != 0 { // it is not in the catalog any more
		delete(s.locks, id)
		delete(s.permits, id)
	}
	return nil
}

// mayEnd refuses an end that the catalog says is not one.
func (t *Task) mayEnd(end TaskState) *partition.Error {
	switch {
	case end != 0 && end != TaskDone && end != TaskAborted && end != TaskFailed:
		return partition.Errorf(partition.CodeInvalid, "task %s is told to be in %s", t.ID, end)
	case t.Kind != TaskSplit && t.Kind != TaskMerge || end == 0:
		return nil
	case end == TaskDone && t.Activated == 0:
		return &partition.Error{
			Code: partition.CodeRefused, Why: fmt.Sprintf("task %s is told to be done, but the catalog does not show it", t.ID),
			Next: "activate it before",
		}
	case end != TaskDone && t.Activated != 0:
		return partition.Errorf(partition.CodeRefused, "task %s is told to be %s, but what it was for is so since range version %d", t.ID, end, t.Activated)
	}
	return nil
}

// take puts a report into the caller's own copy of the task.
func (t *Task) take(b *reportBody) {
	t.Phase, t.Why, t.Touched = b.Phase, b.Why, timeOf(b.NowMs)
	t.Units, t.OfUnits = b.Units, b.OfUnits
	if b.Run {
		t.Running = true
	}
	if b.Stop && t.Running {
		t.Running = false
		t.Tries++
	}
	if b.State != 0 {
		t.end(b.State, b.Why, b.NowMs)
	}
}

// end closes the caller's own copy of the task.
func (t *Task) end(state TaskState, why string, ms int64) {
	t.State, t.Why, t.Running, t.Ended = state, why, false, timeOf(ms)
	t.early, t.Children = nil, slices.Clone(t.Children)
	for i := range t.Children {
		t.Children[i].told = nil
	}
}

// mayRun refuses a move more than its nodes can bear.
func (s *state) mayRun(t *Task, ms int64) *partition.Error {
	if t.Running || t.Kind != TaskMove {
		return nil
	}
	from, to := 0, 0
	for _, o := range s.catalog.tasks {
		if !o.Running || o.State != TaskOpen || ms-msOf(o.Touched) > placeTimeout.Milliseconds() {
			continue
		}
		if o.From == t.From {
			from++
		}
		if o.To == t.To {
			to++
		}
	}
	if from < MaxCopiesPerNode && to < MaxCopiesPerNode {
		return nil
	}
	return &partition.Error{
		Code: partition.CodeExists, Why: fmt.Sprintf("%d moves from %s and %d to %s are running, limit %d", from, t.From, to, t.To, MaxCopiesPerNode),
		Next: "it is tried again",
	}
}

// applyCancel notes that somebody wants a task to end. Who works on it ends it;
// what nobody works on yet ends at once.
func (s *state) applyCancel(b *cancelBody) *partition.Error {
	t, ok := s.catalog.Task(b.Task)
	if !ok {
		return noTask(b.Task)
	}
	if b.Why == "" || len(b.Why) > MaxTaskText || b.NowMs < 0 {
		return partition.Errorf(partition.CodeInvalid, "a reason of %d bytes, allowed are 1 to %d", len(b.Why), MaxTaskText)
	}
	if !t.Open() || t.Cancel != "" {
		return nil
	}
	if t.Activated != 0 {
		return &partition.Error{
			Code: partition.CodeRefused, Why: fmt.Sprintf("task %s cannot be undone: what it was for is so since range version %d", t.ID, t.Activated),
			Next: fmt.Sprintf("wait for its end: pando task wait %s", t.ID),
		}
	}
	var changed []*Task
	for _, o := range s.catalog.tasks {
		if o.ID != t.ID && o.Parent != t.ID || !o.Open() || o.Cancel != "" {
			continue
		}
		next := *o
		next.Cancel = b.Why
		if !o.begun() {
			next.end(TaskAborted, b.Why, b.NowMs)
		}
		changed = append(changed, &next)
	}
	s.putTasks(changed...)
	return nil
}

// begun reports whether somebody may have something of the task to undo: a split
// may be in its group's log, a move that runs may have a learner.
func (t *Task) begun() bool {
	return t.State == TaskOpen && (t.Kind == TaskSplit || t.Kind == TaskMerge || t.Kind == TaskMove && t.Running)
}

// putTasks makes the catalog with other tasks, the caller's own copies. A plan of
// which every step has ended ends with the last.
func (s *state) putTasks(tasks ...*Task) {
	version := s.catalog.Version + 1
	e := newEdit(s.catalog)
	for _, t := range tasks {
		t.Changed = version
		e.putTask(t)
	}
	for _, t := range tasks {
		if t.Parent != 0 && !t.Open() {
			e.endPlan(t.Parent, t.Ended, version)
		}
	}
	s.swap(e, version)
}

// swap makes the catalog with changes of tasks, and forgets with those that are
// forgotten what was granted for their children.
func (s *state) swap(e *edit, version uint64) {
	before := s.catalog
	s.catalog = e.apply(version)
	for _, t := range before.tasks {
		if _, ok := s.catalog.Task(t.ID); !ok {
			s.forgetUnmade(t)
		}
	}
}

// endPlan ends a plan all of whose steps have ended.
func (e *edit) endPlan(id TaskID, at time.Time, version uint64) {
	plan, ok := e.task(id)
	if !ok || plan.State != TaskOpen || plan.Kind != TaskPlan {
		return
	}
	done, all := 0, 0
	for _, t := range e.base.tasks {
		if t.Parent != id {
			continue
		}
		t, _ = e.task(t.ID)
		if t.Open() {
			return
		}
		all++
		if t.State == TaskDone {
			done++
		}
	}
	next := *plan
	state, why := TaskDone, fmt.Sprintf("%d of %d steps are done", done, all)
	if done < all {
		state = TaskFailed
	}
	next.end(state, why, msOf(at))
	next.Changed = version
	e.putTask(&next)
}

// endTasksOf ends the tasks of a table that goes.
func (s *state) endTasksOf(e *edit, table uint64, why string, version uint64) {
	var ended []*Task
	for _, t := range s.catalog.tasks {
		if t.Table != table {
			continue
		}
		s.forgetUnmade(t) // its end can no longer be taken back
		if !t.Open() {
			continue
		}
		next := *t
		next.end(TaskAborted, why, msOf(t.Touched))
		next.Changed = version
		e.putTask(&next)
		ended = append(ended, &next)
	}
	for _, t := range ended {
		if t.Parent != 0 {
			e.endPlan(t.Parent, t.Ended, version)
		}
	}
}

// forgetUnmade takes back what was granted for the children of a split that it has
// not made and never will.
func (s *state) forgetUnmade(t *Task) {
	if t.Activated != 0 || t.Kind != TaskSplit {
		return
	}
	for i := range t.Children {
		delete(s.locks, t.Children[i].Group)
		delete(s.permits, t.Children[i].Group)
	}
}
