package control

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"pando.dev/pando/partition"
)

func coded(t failing) func([]byte, error) []byte {
	return func(b []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
}

func splitOf(g partition.GroupID, keys ...string) *splitBody {
	b := &splitBody{Token: fmt.Sprintf("split-%d-%q", g, keys), Group: g, NowMs: 1000, TimeoutMs: 500, DeadlineMs: 1500, Reason: "it is large", By: "operator"}
	for _, k := range keys {
		b.Keys = append(b.Keys, []byte(k))
	}
	return b
}

func taskNamed(t failing, s *state, id TaskID) *Task {
	t.Helper()
	x, ok := s.catalog.Task(id)
	if !ok {
		t.Fatal("no task", id)
	}
	return x
}

// childMembers is the configuration that a group's log gives its children.
func childMembers(t failing, s *state, x *Task) []byte {
	t.Helper()
	g, ok := s.catalog.Group(x.Group)
	if !ok {
		t.Fatal("no group", x.Group)
	}
	m := *g.Membership
	m.Version = 1
	return coded(t)(m.AppendBinary(nil))
}

func activationOf(t failing, s *state, id TaskID, rv partition.RangeVersion) *activateBody {
	t.Helper()
	x := taskNamed(t, s, id)
	b := &activateBody{Task: id, RangeVersion: rv}
	for _, c := range x.Children {
		b.Children = append(b.Children, childBody{Group: c.Group, Membership: childMembers(t, s, x), First: 1})
	}
	return b
}

// childUpdate is what the master of the i-th child tells.
func childUpdate(t failing, s *state, id TaskID, i int, rv partition.RangeVersion) groupItem {
	t.Helper()
	x := taskNamed(t, s, id)
	c := x.Children[i]
	return groupItem{ID: c.Group, Lo: c.Range.Lo, Hi: c.Range.Hi, RangeVersion: rv, Membership: childMembers(t, s, x), Master: "b", Epoch: 9}
}

// parentUpdate is what the master of a divided group tells.
func parentUpdate(t failing, s *state, id TaskID, rv partition.RangeVersion, epoch partition.Epoch) groupItem {
	t.Helper()
	x := taskNamed(t, s, id)
	g, _ := s.catalog.Group(x.Group)
	return groupItem{ID: x.Group, Lo: x.Keep.Lo, Hi: x.Keep.Hi, RangeVersion: rv, Membership: coded(t)(g.Membership.AppendBinary(nil)), Master: "c", Epoch: epoch}
}

// drawTask makes a random command about tasks. Nothing keeps it from saying of a
// split both that it was activated and that it was aborted.
func drawTask(t *rapid.T, s *state, token string) (kind, any) {
	if rapid.IntRange(0, 3).Draw(t, "of a merge") == 0 {
		return drawMerge(t, s, token)
	}
	var splits []*Task
	for _, x := range s.catalog.tasks {
		if _, ok := s.catalog.Group(x.Group); ok && x.Kind == TaskSplit {
			splits = append(splits, x)
		}
	}
	what := rapid.IntRange(0, 9).Draw(t, "about tasks")
	if len(splits) == 0 || what < 3 {
		b := splitOf(partition.GroupID(rapid.Uint64Range(1, 14).Draw(t, "divided")))
		b.Token = token
		for _, k := range "cgkmptx" {
			if rapid.IntRange(0, 3).Draw(t, "at") == 0 {
				b.Keys = append(b.Keys, []byte(string(k)))
			}
		}
		b.Keep = rapid.IntRange(0, len(b.Keys)).Draw(t, "keep")
		b.RangeVersion = partition.RangeVersion(rapid.Uint64Range(0, 3).Draw(t, "rv"))
		if rapid.Bool().Draw(t, "placed") {
			for range b.Keys {
				b.Places = append(b.Places, splitPlace{Nodes: []placeItem{{Node: "c", Zone: "z"}, {Node: "d"}}, First: "d"})
			}
		}
		return kindSplit, b
	}
	x := rapid.SampledFrom(splits).Draw(t, "task")
	g, _ := s.catalog.Group(x.Group)
	rv := g.RangeVersion + partition.RangeVersion(rapid.Uint64Range(0, 3).Draw(t, "later"))
	switch what {
	case 3, 4:
		return kindActivate, activationOf(t, s, x.ID, rv)
	case 5:
		return kindUpdate, &updateBody{Updates: []groupItem{childUpdate(t, s, x.ID, rapid.IntRange(0, len(x.Children)-1).Draw(t, "child"), rv)}}
	case 6:
		b := &updateBody{Updates: []groupItem{parentUpdate(t, s, x.ID, rv, partition.Epoch(rapid.Uint64Range(0, 5).Draw(t, "epoch")))}}
		for i := range x.Children {
			b.Updates = append(b.Updates, childUpdate(t, s, x.ID, i, rv))
		}
		return kindUpdate, b
	case 7:
		return kindCancel, &cancelBody{Task: x.ID, Why: "enough", NowMs: 3000}
	}
	return kindReport, &reportBody{
		Task: x.ID, Epoch: partition.Epoch(rapid.Uint64Range(0, 2).Draw(t, "epoch")), Seq: rapid.Uint64Range(0, 3).Draw(t, "seq"),
		Phase: "intended", State: TaskState(rapid.SampledFrom([]int{0, 0, 2, 3, 4}).Draw(t, "state")), NowMs: 2000,
	}
}

// checkCover: the ranges of a table's groups never overlap and leave no hole; a
// group that was split says where a key went; and what is prepared is in no table.
func checkCover(t *rapid.T, before *Catalog, s *state) {
	c := s.catalog
	for _, tab := range c.Tables() {
		var at []byte
		groups := c.Groups(tab.Name)
		for i, g := range groups {
			if !bytes.Equal(g.Range.Lo, at) || g.Range.Empty() || (len(g.Range.Hi) == 0) != (i == len(groups)-1) {
				t.Fatalf("table %s: group %s has %s, the one before it ends at %q", tab.Name, g.ID, g.Range, at)
			}
			at = g.Range.Hi
			if old, ok := before.Group(g.ID); ok {
				where, err := c.Where(g.ID, old.Range.Lo)
				if err != nil || !where.Range.Contains(old.Range.Lo) || where.Table != g.Table {
					t.Fatalf("where %q of %s went: %v, %v", old.Range.Lo, g.ID, where, err)
				}
			}
		}
	}
	for _, x := range c.tasks {
		if _, there := before.Task(x.ID); !there && x.State == TaskOpen && x.Kind == TaskSplit && x.ID < s.nextTask-1 {
			t.Fatalf("task %s came back", x.ID)
		}
		if x.Kind == TaskMerge {
			checkMerge(t, s, x)
			continue
		}
		for _, child := range x.Children {
			_, is := c.Group(child.Group)
			_, prepared := c.Prepared(child.Group)
			if prepared != (x.State == TaskOpen && x.Activated == 0) || is && x.Activated == 0 || child.Group >= s.nextGroup {
				t.Fatalf("task %s (%s, activated %d): %s is there %t, prepared %t", x.ID, x.State, x.Activated, child.Group, is, prepared)
			}
		}
	}
	checkKnown(t, s)
}

// checkKnown: locks and permits are only of groups that there are or are to be.
func checkKnown(t *rapid.T, s *state) {
	for g := range s.locks {
		if !s.catalog.kept(g) {
			t.Fatalf("the lock of %s remains", g)
		}
	}
	for g := range s.permits {
		if !s.catalog.kept(g) {
			t.Fatalf("the in-sync number of %s remains", g)
		}
	}
}

// taskStep is one command of a story and what is to come of it.
type taskStep struct {
	what string
	k    kind
	body func(s *state) any
	code partition.Code
	see  func(s *state) error
}

func (x *taskStep) run(t *testing.T, s *state) {
	t.Helper()
	r := applied(t, s, x.k, x.body(s))
	if code := partition.CodeOf(asNil(r.err)); code != x.code {
		t.Fatalf("%s: %v, want code %d", x.what, r.err, x.code)
	}
	if r.err != nil && r.err.Why == "" {
		t.Fatalf("%s: no reason", x.what)
	}
	if x.see == nil {
		return
	}
	if err := x.see(s); err != nil {
		t.Fatalf("%s: %v", x.what, err)
	}
}

func same(body any) func(*state) any { return func(*state) any { return body } }

// leads checks which group a key of table t leads to.
func leads(key string, want partition.GroupID) func(s *state) error {
	return func(s *state) error {
		g, err := s.catalog.Lookup("t", []byte(key))
		if err != nil || g.ID != want {
			return fmt.Errorf("%q leads to %v (%w), want %s", key, g, err, want)
		}
		return nil
	}
}

// TestSplitTask is the way of a split through the catalog: prepared, refused what
// would disturb it, activated in one command whatever came before, done.
func TestSplitTask(t *testing.T) {
	s := newState()
	create(t, s, "t", 3, [][]byte{[]byte("m")}, "a", "b", "c")
	lock := locksOf("b", 1, acquireItem{Group: 3, Replica: 2})
	for _, x := range []taskStep{
		{what: "a key outside", k: kindSplit, body: same(splitOf(1, "z")), code: partition.CodeInvalid},
		{what: "the first key", k: kindSplit, body: same(splitOf(2, "m")), code: partition.CodeInvalid},
		{what: "no key", k: kindSplit, body: same(splitOf(1)), code: partition.CodeInvalid},
		{what: "keys in disorder", k: kindSplit, body: same(splitOf(1, "k", "c")), code: partition.CodeInvalid},
		{what: "an unknown group", k: kindSplit, body: same(splitOf(9, "k")), code: partition.CodeNotFound},
		{what: "a split", k: kindSplit, body: same(splitOf(1, "d", "g")), see: leads("h", 1)},
		{what: "the same again", k: kindSplit, body: same(splitOf(1, "d", "g"))},
		{what: "another of the group", k: kindSplit, body: same(splitOf(1, "e")), code: partition.CodeExists},
		{what: "one of a child", k: kindSplit, body: same(splitOf(3, "e")), code: partition.CodeNotFound},
		{what: "a lock for a child", k: kindLocks, body: same(lock), see: func(s *state) error {
			if s.locks[3].holder.Node != "b" {
				return fmt.Errorf("lock %+v", s.locks[3])
			}
			return nil
		}},
		{what: "a word of its master", k: kindReport, body: same(&reportBody{Task: 1, Epoch: 5, Seq: 1, Phase: "sealed", Why: "it waits", NowMs: 1100}), see: func(s *state) error {
			if x, ok := s.catalog.TaskOf(1); !ok || x.Phase != "sealed" || x.Why != "it waits" {
				return fmt.Errorf("%+v", x)
			}
			return nil
		}},
		{what: "an older word", k: kindReport, body: same(&reportBody{Task: 1, Epoch: 4, Seq: 7, Phase: "intended"}), see: func(s *state) error {
			if x, _ := s.catalog.TaskOf(1); x.Phase != "sealed" {
				return errors.New(x.Phase)
			}
			return nil
		}},
		{what: "given up by an older master", k: kindReport, body: same(&reportBody{Task: 1, Epoch: 4, State: TaskAborted}), code: partition.CodeNewerEpoch},
		{what: "done too early", k: kindReport, body: same(&reportBody{Task: 1, Epoch: 5, Seq: 2, State: TaskDone}), code: partition.CodeRefused},
		{what: "the group's update before", k: kindUpdate, body: func(s *state) any {
			return &updateBody{Updates: []groupItem{parentUpdate(t, s, 1, 3, 8)}}
		}, see: leads("h", 1)},
		{what: "a child's update before", k: kindUpdate, body: func(s *state) any {
			return &updateBody{Updates: []groupItem{childUpdate(t, s, 1, 0, 3)}}
		}, see: leads("d", 1)},
		{what: "activated at the range version of before", k: kindActivate, body: func(s *state) any { return activationOf(t, s, 1, 1) }, code: partition.CodeInvalid},
		{what: "activated", k: kindActivate, body: func(s *state) any { return activationOf(t, s, 1, 3) }, see: func(s *state) error {
			a, _ := s.catalog.Group(1)
			b, _ := s.catalog.Group(3)
			c, _ := s.catalog.Group(4)
			if a.Epoch != 8 || a.Master != "c" || b.Master != "b" || b.Epoch != 9 || c.Master == "" || b.Parent != 1 || c.Parent != 1 {
				return fmt.Errorf("%+v, %+v, %+v", a, b, c)
			}
			return errors.Join(leads("c", 1)(s), leads("d", 3)(s), leads("h", 4)(s), leads("m", 2)(s))
		}},
		{what: "activated again", k: kindActivate, body: func(s *state) any { return activationOf(t, s, 1, 3) }},
		{what: "activated otherwise", k: kindActivate, body: func(s *state) any { return activationOf(t, s, 1, 5) }, code: partition.CodeRefused},
		{what: "cancelled too late", k: kindCancel, body: same(&cancelBody{Task: 1, Why: "enough"}), code: partition.CodeRefused},
		{what: "aborted too late", k: kindReport, body: same(&reportBody{Task: 1, Epoch: 5, State: TaskAborted}), code: partition.CodeRefused},
		{what: "done", k: kindReport, body: same(&reportBody{Task: 1, Epoch: 5, State: TaskDone, NowMs: 1200}), see: func(s *state) error {
			if _, ok := s.catalog.TaskOf(1); ok {
				return errors.New("it is open")
			}
			return nil
		}},
		{what: "done again", k: kindReport, body: same(&reportBody{Task: 1, State: TaskDone, NowMs: 1300})},
		{what: "failed after that", k: kindReport, body: same(&reportBody{Task: 1, State: TaskFailed}), code: partition.CodeRefused},
		{what: "a split of a child", k: kindSplit, body: same(splitOf(4, "j"))},
	} {
		x.run(t, s)
	}
}

// TestSplitTaskAborted: the children vanish, and their ids and lock numbers never
// come back; but an activation takes the end back.
func TestSplitTaskAborted(t *testing.T) {
	s := newState()
	create(t, s, "t", 3, nil, "a", "b", "c")
	for _, x := range []taskStep{
		{what: "a split", k: kindSplit, body: same(splitOf(1, "g"))},
		{what: "a lock for the child", k: kindLocks, body: same(locksOf("b", 1, acquireItem{Group: 2, Replica: 2}))},
		{what: "cancelled", k: kindCancel, body: same(&cancelBody{Task: 1, Why: "enough"}), see: func(s *state) error {
			if x, ok := s.catalog.TaskOf(1); !ok || x.Cancel != "enough" {
				return fmt.Errorf("%+v", x)
			}
			return nil
		}},
		{what: "aborted", k: kindReport, body: same(&reportBody{Task: 1, State: TaskAborted, Why: "enough", NowMs: 5}), see: func(s *state) error {
			if _, ok := s.catalog.Prepared(2); ok {
				return errors.New("the child remains")
			}
			return nil
		}},
		{what: "a lock for the child after that", k: kindLocks, body: same(locksOf("b", 1, acquireItem{Group: 2, Replica: 2})), see: func(s *state) error {
			if s.locks[2].last != 1 {
				return fmt.Errorf("%+v", s.locks[2])
			}
			return nil
		}},
		{what: "an update of the child", k: kindUpdate, body: func(s *state) any {
			return &updateBody{Updates: []groupItem{childUpdate(t, s, 1, 0, 3)}}
		}, code: partition.CodeNotFound},
		{what: "another", k: kindSplit, body: same(splitOf(1, "h")), see: func(s *state) error {
			if x, _ := s.catalog.TaskOf(1); x.Children[0].Group != 3 {
				return fmt.Errorf("child %s", x.Children[0].Group)
			}
			return nil
		}},
		{what: "activated after all", k: kindActivate, body: func(s *state) any { return activationOf(t, s, 1, 3) }, see: func(s *state) error {
			x, y := taskNamed(t, s, 1), taskNamed(t, s, 2)
			if x.State != TaskOpen || x.Activated != 3 || y.State != TaskFailed {
				return fmt.Errorf("%s, %s", x.progress(), y.progress())
			}
			return errors.Join(leads("a", 1)(s), leads("g", 2)(s))
		}},
		{what: "the overtaken one, activated", k: kindActivate, body: func(s *state) any { return activationOf(t, s, 2, 5) }, code: partition.CodeInvalid},
		{what: "done", k: kindReport, body: same(&reportBody{Task: 1, State: TaskDone})},
	} {
		x.run(t, s)
	}
}

// TestSplitKnownByItsChildren: when the activation never arrives, because most of
// the group is lost, what all children tell stands for it.
func TestSplitKnownByItsChildren(t *testing.T) {
	s := newState()
	create(t, s, "t", 3, nil, "a", "b", "c")
	applied(t, s, kindSplit, splitOf(1, "g", "p"))
	for i, want := range []partition.GroupID{1, 3} {
		applied(t, s, kindUpdate, &updateBody{Updates: []groupItem{childUpdate(t, s, 1, i, 3)}})
		if err := leads("z", want)(s); err != nil {
			t.Fatal(err)
		}
	}
	if x := taskNamed(t, s, 1); x.Activated != 3 {
		t.Fatalf("%+v", x)
	}
}

// TestEndedTasksAreForgotten: only the last ones are remembered, and a copy of
// before that gets the whole catalog.
func TestEndedTasksAreForgotten(t *testing.T) {
	s := newState()
	create(t, s, "t", 1, nil, "a")
	applied(t, s, kindSplit, splitOf(1, "g"))
	old := s.catalog
	for i := range MaxEndedTasks + 2 {
		applied(t, s, kindReport, &reportBody{Task: TaskID(i + 1), State: TaskAborted})
		b := splitOf(1, "g")
		b.Token = fmt.Sprint("again", i)
		applied(t, s, kindSplit, b)
	}
	if n := len(s.catalog.Tasks()); n != MaxEndedTasks+1 {
		t.Fatalf("%d tasks", n)
	}
	if p := s.catalog.page(since(old.Version), false, pageBytes); !p.Whole {
		t.Fatalf("a page of %+v", p)
	}
	if r := applied(t, s, kindReport, &reportBody{Task: 1, State: TaskAborted}); !errors.Is(r.err, partition.ErrNotFound) || r.err.Next == "" {
		t.Fatal(r.err)
	}
}
