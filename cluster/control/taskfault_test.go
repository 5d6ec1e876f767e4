package control

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pando.dev/pando/partition"
)

// splitWith is a split of group 2 that was changed.
func splitWith(change func(*splitBody)) *splitBody {
	b := splitOf(2, "q")
	change(b)
	return b
}

// placesOf are places for one piece.
func placesOf(first partition.NodeID, nodes ...partition.NodeID) func(*splitBody) {
	return func(b *splitBody) {
		p := splitPlace{First: first}
		for _, n := range nodes {
			p.Nodes = append(p.Nodes, placeItem{Node: n})
		}
		b.Places = []splitPlace{p}
	}
}

// manyNodes are nodes of distinct names.
func manyNodes(n int) (all []partition.NodeID) {
	for i := range n {
		all = append(all, partition.NodeID(fmt.Sprintf("m%d", i)))
	}
	return all
}

// senselessTasks are commands that no honest leader proposes: task 1 is a split of
// group 1 at "d" and "g", task 2 a plan and task 3 its step, a move of group 3.
func senselessTasks(t *testing.T) []taskStep {
	const invalid, large = partition.CodeInvalid, partition.CodeTooLarge
	long := strings.Repeat("x", MaxTaskText+1)
	keys := func(b *splitBody) {
		b.Keys = nil
		for c := range byte(5) {
			b.Keys = append(b.Keys, bytes.Repeat([]byte{'o' + c}, MaxKeyBytes))
		}
	}
	activated := func(change func(*activateBody)) func(*state) any {
		return func(s *state) any {
			b := activationOf(t, s, 1, 3)
			change(b)
			return b
		}
	}
	updated := func(change func(*groupItem)) func(*state) any {
		return func(s *state) any {
			u := parentUpdate(t, s, 1, 3, 8)
			change(&u)
			return &updateBody{Updates: []groupItem{u}}
		}
	}
	plan := func(change func(*planBody)) func(*state) any {
		b := planOf("other", false)
		change(b)
		return same(b)
	}
	return []taskStep{
		{what: "no piece remains", k: kindSplit, body: same(splitWith(func(b *splitBody) { b.Keep = 2 })), code: invalid},
		{what: "a long reason", k: kindSplit, body: same(splitWith(func(b *splitBody) { b.Reason = long })), code: invalid},
		{what: "a long key", k: kindSplit, body: same(splitOf(2, "q"+strings.Repeat("x", MaxKeyBytes))), code: invalid},
		{what: "long keys together", k: kindSplit, body: same(splitWith(keys)), code: large},
		{what: "two places for one piece", k: kindSplit, body: same(splitWith(func(b *splitBody) { b.Places = make([]splitPlace, 2) })), code: invalid},
		{what: "a node named twice", k: kindSplit, body: same(splitWith(placesOf("", "d", "d"))), code: invalid},
		{what: "a master elsewhere", k: kindSplit, body: same(splitWith(placesOf("e", "d"))), code: invalid},
		{what: "more nodes than members", k: kindSplit, body: same(splitWith(placesOf("", manyNodes(partition.MaxMembers+1)...))), code: large},
		{what: "planned for another range", k: kindSplit, body: same(splitWith(func(b *splitBody) { b.RangeVersion = 9 })), code: partition.CodeRefused},
		{what: "a plan that is a split", k: kindPlan, body: plan(func(b *planBody) { b.Kind = TaskSplit }), code: invalid},
		{what: "a plan with a long reason", k: kindPlan, body: plan(func(b *planBody) { b.Reason = long }), code: invalid},
		{what: "a look at a decommission", k: kindPlan, body: plan(func(b *planBody) { b.Kind, b.Node, b.Look = TaskDecommission, "a", true }), code: invalid},
		{what: "a plan of too many steps", k: kindPlan, body: plan(func(b *planBody) { b.Steps = slices.Repeat([]planStep{moveOf(2, "a", "d")}, MaxPlanSteps+1) }), code: large},
		{what: "steps for no plan", k: kindPlan, body: plan(func(b *planBody) { b.Parent = 99 }), code: partition.CodeRefused},
		{what: "a start of nothing", k: kindStart, body: same(&startBody{Plan: 99}), code: partition.CodeNotFound},
		{what: "a report of nothing", k: kindReport, body: same(&reportBody{Task: 99}), code: partition.CodeNotFound},
		{what: "a long report", k: kindReport, body: same(&reportBody{Task: 1, Epoch: 9, Seq: 9, Why: long}), code: large},
		{what: "a report of a state that is no end", k: kindReport, body: same(&reportBody{Task: 1, Epoch: 9, State: TaskPlanned}), code: invalid},
		{what: "a cancel without a reason", k: kindCancel, body: same(&cancelBody{Task: 1}), code: invalid},
		{what: "a cancel of nothing", k: kindCancel, body: same(&cancelBody{Task: 99, Why: "enough"}), code: partition.CodeNotFound},
		{what: "an activation of nothing", k: kindActivate, body: same(&activateBody{Task: 99, RangeVersion: 3}), code: partition.CodeNotFound},
		{what: "an activation of a plan", k: kindActivate, body: same(&activateBody{Task: 2, RangeVersion: 3}), code: invalid},
		{what: "a child too few", k: kindActivate, body: activated(func(b *activateBody) { b.Children = b.Children[:1] }), code: invalid},
		{what: "another child", k: kindActivate, body: activated(func(b *activateBody) { b.Children[1].Group = 2 }), code: invalid},
		{what: "a child of nonsense", k: kindActivate, body: activated(func(b *activateBody) { b.Children[1].Membership = []byte{0xff} }), code: partition.CodeNewerFormat},
		{what: "a group of nonsense", k: kindUpdate, body: updated(func(u *groupItem) { u.Membership = []byte{0xff} }), code: partition.CodeNewerFormat},
		{what: "a group with long bounds", k: kindUpdate, body: updated(func(u *groupItem) { u.Hi = make([]byte, MaxKeyBytes+1) }), code: large},
		{what: "a group without keys", k: kindUpdate, body: updated(func(u *groupItem) { u.Lo, u.Hi = []byte("k"), []byte("c") }), code: invalid},
		{what: "a group that keeps too much", k: kindUpdate, body: updated(func(u *groupItem) { u.Hi = []byte("f") }), code: invalid},
		{what: "a child with other keys", k: kindUpdate, body: func(s *state) any {
			u := childUpdate(t, s, 1, 0, 3)
			u.Hi = []byte("f")
			return &updateBody{Updates: []groupItem{u}}
		}, code: invalid},
	}
}

// TestTasksThatMakeNoSense: each is refused with its reason and leaves the catalog
// as it was; what makes sense is done after all of them.
func TestTasksThatMakeNoSense(t *testing.T) {
	s := newState()
	create(t, s, "t", 3, [][]byte{[]byte("m"), []byte("w")}, "a", "b", "c")
	for _, x := range []taskStep{
		{what: "a split", k: kindSplit, body: same(splitOf(1, "d", "g"))},
		{what: "a plan", k: kindPlan, body: same(planOf("p", false, moveOf(3, "a", "d")))},
	} {
		x.run(t, s)
	}
	before := s.catalog
	for _, x := range senselessTasks(t) {
		x.run(t, s)
		if s.catalog != before {
			t.Fatalf("%s: the catalog has changed, to version %d", x.what, s.catalog.Version)
		}
	}
	for _, x := range []taskStep{
		{what: "the split", k: kindActivate, body: func(s *state) any { return activationOf(t, s, 1, 3) }, see: leads("d", 4)},
		{what: "its end", k: kindReport, body: same(&reportBody{Task: 1, Epoch: 9, State: TaskDone}), see: inState(map[TaskID]TaskState{1: TaskDone})},
		{what: "another one", k: kindSplit, body: same(splitOf(2, "q"))},
	} {
		x.run(t, s)
	}
}

// TestTooManyTasks: more tasks than there may be are refused, and taken when others
// have ended.
func TestTooManyTasks(t *testing.T) {
	s := newState()
	var keys [][]byte
	for i := range MaxSplitPoints {
		keys = append(keys, fmt.Appendf(nil, "%04d", i+1))
	}
	create(t, s, "t", 1, keys, "a")
	next := partition.GroupID(1)
	fill := func(node partition.NodeID, steps int) *planBody {
		b := decommissionOf("token-"+string(node), node, 0)
		for range steps {
			b.Steps = append(b.Steps, moveOf(next, "a", "d"))
			next++
		}
		return b
	}
	open := 0
	for _, node := range manyNodes(5) {
		(&taskStep{what: "a plan", k: kindPlan, body: same(fill(node, MaxPlanSteps))}).run(t, s)
		open += MaxPlanSteps + 1
	}
	over := fill("z", MaxOpenTasks-open)
	split := splitOf(1024, "9")
	for _, x := range []taskStep{
		{what: "a plan too many", k: kindPlan, body: same(over), code: partition.CodeTooLarge},
		{what: "one that fits", k: kindPlan, body: same(decommissionOf("fits", "y", 0, over.Steps[:MaxOpenTasks-open-1]...))},
		{what: "a split too many", k: kindSplit, body: same(split), code: partition.CodeTooLarge},
		{what: "an end", k: kindCancel, body: same(&cancelBody{Task: 1, Why: "enough"}), see: inState(map[TaskID]TaskState{1: TaskAborted})},
		{what: "the split", k: kindSplit, body: same(split)},
	} {
		x.run(t, s)
	}
}

// TestAssignmentsThatMakeNoSense: a table is not made of nodes that are none, and
// its ids are left for the next.
func TestAssignmentsThatMakeNoSense(t *testing.T) {
	s := newState()
	for what, change := range map[string]func(*createBody){
		"too short":         func(b *createBody) { b.Assign = b.Assign[1:] },
		"a node of none":    func(b *createBody) { b.Assign[1] = 7 },
		"a node named late": func(b *createBody) { b.Nodes = b.Nodes[:1] },
		"a node twice":      func(b *createBody) { copy(b.Assign[2:], b.Assign[:2]) },
	} {
		ask := &askCreate{Table: tableBody{Token: "token", Name: "t", Kind: "kv", Replicas: 3, Rule: partition.Majority}}
		for _, n := range []partition.NodeID{"a", "b", "c"} {
			ask.Nodes = append(ask.Nodes, placeItem{Node: n})
		}
		b, err := prepareCreate(ask, s.nextGroup)
		if err != nil {
			t.Fatal(err)
		}
		change(b)
		if r := applied(t, s, kindCreate, b); partition.CodeOf(asNil(r.err)) != partition.CodeInvalid || s.catalog.Version != 0 || s.nextGroup != 1 {
			t.Errorf("%s: %v, catalog version %d, next group %s", what, r.err, s.catalog.Version, s.nextGroup)
		}
	}
	create(t, s, "t", 3, nil, "a", "b", "c")
	if _, ok := s.catalog.Group(1); !ok {
		t.Error("no group")
	}
}

// TestTasksRefusedByTheLeader: what the control group refuses comes back to who
// asked, typed and with what was asked for.
func TestTasksRefusedByTheLeader(t *testing.T) {
	c := newTestNet(t).start("a", 1)
	ctx := deadline(t, 60*time.Second)
	if _, err := c.CreateTable(ctx, TableSpec{Name: "t", Kind: "kv", Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	for what, x := range map[string]struct {
		ask  func() error
		want partition.Code
	}{
		"split g9": {func() error {
			_, err := c.BeginSplit(ctx, SplitSpec{Group: 9, Keys: [][]byte{[]byte("k")}})
			return err
		}, partition.CodeNotFound},
		"begin a plan": {func() error { _, err := c.BeginPlan(ctx, PlanSpec{Kind: TaskSplit}); return err }, partition.CodeInvalid},
		"start t9":     {func() error { return c.StartPlan(ctx, 9) }, partition.CodeNotFound},
		"cancel t9":    {func() error { return c.CancelTask(ctx, 9, "") }, partition.CodeNotFound},
		"report t9":    {func() error { return c.ReportTask(ctx, TaskReport{Task: 9}) }, partition.CodeNotFound},
		"activate t9": {func() error {
			m := c.Catalog().Groups("t")[0].Membership
			return c.ActivateSplit(ctx, SplitActivation{Task: 9, RangeVersion: 2, Children: []partition.Child{{Group: 7, Membership: m, First: 1}}})
		}, partition.CodeNotFound},
	} {
		err := x.ask()
		if partition.CodeOf(err) != x.want || !strings.Contains(fmt.Sprint(err), what) {
			t.Errorf("%s: %v, want code %v", what, err, x.want)
		}
	}
	if _, err := c.CreateTable(ctx, TableSpec{Name: "", Kind: "kv", Replicas: 1}); partition.CodeOf(err) != partition.CodeInvalid {
		t.Errorf("a table without a name: %v", err)
	}
	if len(c.Catalog().Tasks()) > 0 {
		t.Errorf("tasks %+v", c.Catalog().Tasks())
	}
	if x, err := c.BeginSplit(ctx, SplitSpec{Group: 1, Keys: [][]byte{[]byte("k")}}); err != nil || x.Group != 1 {
		t.Errorf("a split that makes sense: %+v, %v", x, err)
	}
}
