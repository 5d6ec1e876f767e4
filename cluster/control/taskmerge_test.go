package control

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"pando.dev/pando/partition"
)

func mergeOf(g, source partition.GroupID) *mergeBody {
	return &mergeBody{Token: fmt.Sprintf("merge-%d-%d", g, source), Group: g, Source: source, NowMs: 1000, DeadlineMs: 1500, Reason: "they are small", By: "operator"}
}

// mergedUpdate is what the survivor's master tells when it has applied the decision.
func mergedUpdate(t failing, s *state, id TaskID, rv partition.RangeVersion) groupItem {
	t.Helper()
	x := taskNamed(t, s, id)
	_, r := x.Source()
	g, ok := s.catalog.Group(x.Group)
	if !ok {
		return groupItem{ID: x.Group}
	}
	return groupItem{ID: x.Group, Lo: x.Keep.Lo, Hi: r.Hi, RangeVersion: rv, Membership: coded(t)(g.Membership.AppendBinary(nil)), Master: "c", Epoch: 7}
}

// drawMerge makes a random command about merges, of which some make no sense.
func drawMerge(t *rapid.T, s *state, token string) (kind, any) {
	var merges []*Task
	for _, x := range s.catalog.tasks {
		if x.Kind == TaskMerge {
			merges = append(merges, x)
		}
	}
	if len(merges) == 0 || rapid.IntRange(0, 2).Draw(t, "begin") == 0 {
		b := mergeOf(partition.GroupID(rapid.Uint64Range(1, 14).Draw(t, "survivor")), partition.GroupID(rapid.Uint64Range(1, 14).Draw(t, "source")))
		if g, ok := s.catalog.Group(b.Group); ok {
			if n, ok := s.catalog.Neighbour(g); ok && rapid.IntRange(0, 4).Draw(t, "neighbours") > 0 {
				b.Source = n.ID
			}
		}
		b.Token = token
		return kindMerge, b
	}
	x := rapid.SampledFrom(merges).Draw(t, "merge")
	rv := x.RangeVersion + partition.RangeVersion(rapid.Uint64Range(0, 3).Draw(t, "later"))
	switch rapid.IntRange(0, 4).Draw(t, "what of it") {
	case 0:
		return kindActivate, &activateBody{Task: x.ID, RangeVersion: rv}
	case 1:
		return kindUpdate, &updateBody{Updates: []groupItem{mergedUpdate(t, s, x.ID, rv)}}
	case 2:
		return kindCancel, &cancelBody{Task: x.ID, Why: "enough", NowMs: 3000}
	}
	return kindReport, &reportBody{Task: x.ID, Epoch: partition.Epoch(rapid.Uint64Range(0, 2).Draw(t, "epoch")), State: TaskState(rapid.SampledFrom([]int{2, 2, 3}).Draw(t, "state")), NowMs: 2000}
}

// checkMerge: the source of a merge is there as long as it may have to learn of it,
// and no key leads to it once the survivor has its range.
func checkMerge(t *rapid.T, s *state, x *Task) {
	id, r := x.Source()
	g, is := s.catalog.Group(id)
	switch {
	case x.State == TaskOpen && !is, x.Activated != 0 && !x.Open() && is:
		t.Fatalf("task %s (%s, activated %d): its source %s is there: %t", x.ID, x.State, x.Activated, id, is)
	case x.Activated == 0 || !is:
		return
	}
	table, _ := s.catalog.TableOf(g)
	if to, err := s.catalog.Lookup(table.Name, r.Lo); err != nil || to.ID == id {
		t.Fatalf("task %s is activated, and %q leads to %v, %v", x.ID, r.Lo, to, err)
	}
	if to, err := s.catalog.Where(id, r.Lo); err != nil || to.ID == id {
		t.Fatalf("task %s is activated, and %q of %s went to %v, %v", x.ID, r.Lo, id, to, err)
	}
}

// A merge from its beginning to its end, with what comes too early, too late and
// from nowhere.
func TestMergeTask(t *testing.T) {
	s := newState()
	create(t, s, "t", 3, [][]byte{[]byte("g"), []byte("p")}, "a", "b", "c")
	create(t, s, "u", 3, nil, "a", "b", "c")
	for _, x := range []taskStep{
		{what: "the left one", k: kindMerge, body: same(mergeOf(2, 1)), code: partition.CodeInvalid},
		{what: "the next but one", k: kindMerge, body: same(mergeOf(1, 3)), code: partition.CodeInvalid},
		{what: "itself", k: kindMerge, body: same(mergeOf(1, 1)), code: partition.CodeInvalid},
		{what: "another table's", k: kindMerge, body: same(mergeOf(3, 4)), code: partition.CodeInvalid},
		{what: "nobody", k: kindMerge, body: same(mergeOf(1, 9)), code: partition.CodeNotFound},
		{what: "of another version", k: kindMerge, body: same(&mergeBody{Token: "x", Group: 1, Source: 2, RangeVersion: 7}), code: partition.CodeRefused},
		{what: "a merge", k: kindMerge, body: same(mergeOf(1, 2)), see: leads("h", 2)},
		{what: "the same again", k: kindMerge, body: same(mergeOf(1, 2))},
		{what: "a split of the source", k: kindSplit, body: same(splitOf(2, "k")), code: partition.CodeExists},
		{what: "a split of the survivor", k: kindSplit, body: same(splitOf(1, "c")), code: partition.CodeExists},
		{what: "a lock for the source", k: kindLocks, body: same(locksOf("b", 1, acquireItem{Group: 2, Replica: 2}))},
		{what: "done too early", k: kindReport, body: same(&reportBody{Task: 1, State: TaskDone}), code: partition.CodeRefused},
		{what: "activated at the range version of before", k: kindActivate, body: same(&activateBody{Task: 1, RangeVersion: 1}), code: partition.CodeInvalid},
		{what: "an update that nothing explains", k: kindUpdate, body: func(s *state) any {
			u := mergedUpdate(t, s, 1, 3)
			u.Hi = nil
			return &updateBody{Updates: []groupItem{u}}
		}, code: partition.CodeInvalid},
		{what: "activated", k: kindActivate, body: same(&activateBody{Task: 1, RangeVersion: 3}), see: func(s *state) error {
			if _, ok := s.catalog.Group(2); !ok || s.locks[2].last == 0 {
				return errors.New("the source cannot learn of it")
			}
			return errors.Join(leads("a", 1)(s), leads("h", 1)(s), leads("q", 3)(s))
		}},
		{what: "activated again", k: kindActivate, body: same(&activateBody{Task: 1, RangeVersion: 3})},
		{what: "activated otherwise", k: kindActivate, body: same(&activateBody{Task: 1, RangeVersion: 5}), code: partition.CodeRefused},
		{what: "cancelled too late", k: kindCancel, body: same(&cancelBody{Task: 1, Why: "enough"}), code: partition.CodeRefused},
		{what: "aborted too late", k: kindReport, body: same(&reportBody{Task: 1, State: TaskAborted}), code: partition.CodeRefused},
		{what: "done", k: kindReport, body: same(&reportBody{Task: 1, State: TaskDone, NowMs: 1200}), see: func(s *state) error {
			if _, ok := s.catalog.Group(2); ok || len(s.locks) != 0 {
				return errors.New("the source remains")
			}
			if g, err := s.catalog.Where(2, []byte("h")); err != nil || g.ID != 1 {
				return fmt.Errorf("it went to %v, %v", g, err)
			}
			return nil
		}},
		{what: "the next merge", k: kindMerge, body: same(mergeOf(1, 3))},
		{what: "known by an update", k: kindUpdate, body: func(s *state) any { return &updateBody{Updates: []groupItem{mergedUpdate(t, s, 2, 5)}} }, see: func(s *state) error {
			if g, _ := s.catalog.Group(1); g.Master != "c" || g.RangeVersion != 5 {
				return fmt.Errorf("%+v", g)
			}
			return leads("q", 1)(s)
		}},
		{what: "the table is dropped", k: kindDrop, body: same(&dropBody{Token: "drop", Name: "t"})},
	} {
		x.run(t, s)
		restored(t, s)
	}
}

// restored: a snapshot of the state can be read.
func restored(t *testing.T, s *state) {
	t.Helper()
	if _, err := readState(bytes.NewReader(bytesOf(t, s))); err != nil {
		t.Fatal(err)
	}
}

// What a master has told that does not know that it was deposed is taken back, with
// what was begun since.
func TestMergeTaskActivatedAfterAll(t *testing.T) {
	s := newState()
	create(t, s, "t", 3, [][]byte{[]byte("g")}, "a", "b", "c")
	for _, x := range []taskStep{
		{what: "a merge", k: kindMerge, body: same(mergeOf(1, 2))},
		{what: "given up", k: kindReport, body: same(&reportBody{Task: 1, State: TaskAborted})},
		{what: "a split of the source", k: kindSplit, body: same(splitOf(2, "k"))},
		{what: "a split of the survivor", k: kindSplit, body: same(splitOf(1, "c"))},
		{what: "activated after all", k: kindActivate, body: same(&activateBody{Task: 1, RangeVersion: 3}), see: func(s *state) error {
			if x := taskNamed(t, s, 1); x.State != TaskOpen || taskNamed(t, s, 2).State != TaskFailed || taskNamed(t, s, 3).State != TaskFailed {
				return fmt.Errorf("%s", x.progress())
			}
			return leads("z", 1)(s)
		}},
		{what: "done", k: kindReport, body: same(&reportBody{Task: 1, State: TaskDone})},
	} {
		x.run(t, s)
		restored(t, s)
	}
}
