package control

import (
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"pando.dev/pando/partition"
)

func planOf(token string, look bool, steps ...planStep) *planBody {
	return &planBody{Token: token, Kind: TaskPlan, Look: look, Steps: steps, Reason: "rebalance", By: "operator", NowMs: 1000}
}

func moveOf(g partition.GroupID, from, to partition.NodeID) planStep {
	return planStep{Kind: TaskMove, Group: g, MembershipVersion: 1, From: from, To: to, Bytes: 5, Why: "it is new"}
}

func decommissionOf(token string, node partition.NodeID, parent TaskID, steps ...planStep) *planBody {
	return &planBody{Token: token, Kind: TaskDecommission, Node: node, Parent: parent, Steps: steps, NowMs: 1000}
}

// inState checks the states of tasks.
func inState(want map[TaskID]TaskState) func(*state) error {
	return func(s *state) error {
		for id := TaskID(1); id < s.nextTask; id++ {
			if x, ok := s.catalog.Task(id); ok && want[id] != 0 && x.State != want[id] {
				return fmt.Errorf("task %s is %s, want %s", id, x.progress(), want[id])
			}
		}
		return nil
	}
}

func runs(id TaskID, seq uint64, ms int64) *reportBody {
	return &reportBody{Task: id, Epoch: 1, Seq: seq, Run: true, Phase: "copying", NowMs: ms}
}

// TestPlanTask is the way of a plan: looked at, begun, done step by step, with
// what is refused beside it.
func TestPlanTask(t *testing.T) {
	s := newState()
	create(t, s, "t", 3, [][]byte{[]byte("m")}, "a", "b", "c")
	for _, x := range []taskStep{
		{what: "a step that is none", k: kindPlan, body: same(planOf("p0", true, moveOf(1, "a", "a"))), code: partition.CodeInvalid},
		{what: "an unknown group", k: kindPlan, body: same(planOf("p0", true, moveOf(9, "a", "d"))), code: partition.CodeNotFound},
		{what: "a plan", k: kindPlan, body: same(planOf("p1", true, moveOf(1, "a", "d"))), see: inState(map[TaskID]TaskState{1: TaskPlanned, 2: TaskPlanned})},
		{what: "the same again", k: kindPlan, body: same(planOf("p1", true, moveOf(1, "a", "d")))},
		{what: "another takes its place", k: kindPlan, body: same(planOf("p2", true, moveOf(1, "a", "d"), planStep{Kind: TaskTransfer, Group: 1, From: "b", To: "d"}, moveOf(2, "b", "d"))),
			see: inState(map[TaskID]TaskState{1: TaskAborted, 2: TaskAborted, 3: TaskPlanned, 4: TaskPlanned})},
		{what: "the old one begins", k: kindStart, body: same(&startBody{Plan: 1}), code: partition.CodeRefused},
		{what: "a split meanwhile", k: kindSplit, body: same(splitOf(2, "q"))},
		{what: "it begins", k: kindStart, body: same(&startBody{Plan: 3, NowMs: 2000}), see: inState(map[TaskID]TaskState{3: TaskOpen, 4: TaskOpen, 5: TaskOpen, 6: TaskFailed, 7: TaskOpen})},
		{what: "it begins again", k: kindStart, body: same(&startBody{Plan: 3, NowMs: 2000})},
		{what: "a step of it", k: kindStart, body: same(&startBody{Plan: 4}), code: partition.CodeInvalid},
		{what: "a second plan", k: kindPlan, body: same(planOf("p3", false, moveOf(1, "a", "e"))), code: partition.CodeExists},
		{what: "a split of a group that moves", k: kindSplit, body: same(splitOf(1, "g")), code: partition.CodeExists},
		{what: "the move has a place", k: kindReport, body: same(runs(4, 1, 3000)), see: func(s *state) error {
			if x, ok := s.catalog.TaskOf(1); !ok || x.ID != 4 || !x.Running {
				return fmt.Errorf("%+v", x)
			}
			return nil
		}},
		{what: "the move is done", k: kindReport, body: same(&reportBody{Task: 4, Epoch: 1, State: TaskDone, NowMs: 4000}), see: func(s *state) error {
			if x, ok := s.catalog.TaskOf(1); !ok || x.ID != 5 {
				return fmt.Errorf("%+v", x)
			}
			return nil
		}},
		{what: "the last step", k: kindReport, body: same(&reportBody{Task: 5, Epoch: 1, State: TaskDone, NowMs: 5000}), see: func(s *state) error {
			if x := taskNamed(t, s, 3); x.State != TaskFailed || x.Why != "2 of 3 steps are done" || x.Ended.IsZero() {
				return fmt.Errorf("%+v", x)
			}
			return nil
		}},
	} {
		x.run(t, s)
	}
}

// TestPlanCancelled: what has not begun ends at once, what runs is ended by who
// runs it.
func TestPlanCancelled(t *testing.T) {
	s := newState()
	create(t, s, "t", 3, [][]byte{[]byte("m")}, "a", "b", "c")
	applied(t, s, kindPlan, planOf("p", false, moveOf(1, "a", "d"), moveOf(2, "b", "d")))
	applied(t, s, kindReport, runs(2, 1, 1500))
	(&taskStep{what: "cancelled", k: kindCancel, body: same(&cancelBody{Task: 1, Why: "enough"}), see: inState(map[TaskID]TaskState{1: TaskAborted, 2: TaskOpen, 3: TaskAborted})}).run(t, s)
	if x := taskNamed(t, s, 2); x.Cancel != "enough" {
		t.Fatalf("%+v", x)
	}
	(&taskStep{what: "and undone", k: kindReport, body: same(&reportBody{Task: 2, Epoch: 1, State: TaskAborted}), see: inState(map[TaskID]TaskState{2: TaskAborted})}).run(t, s)
}

// TestPlaces: two moves from a node and two to it; a place of which nothing is
// heard for a minute counts no longer, so a group without a master holds up nobody.
func TestPlaces(t *testing.T) {
	s := newState()
	create(t, s, "t", 1, [][]byte{[]byte("c"), []byte("f"), []byte("m")}, "a")
	applied(t, s, kindPlan, planOf("p", false, moveOf(1, "a", "d"), moveOf(2, "b", "d"), moveOf(3, "c", "d"), moveOf(4, "c", "e")))
	for _, x := range []taskStep{
		{what: "first", k: kindReport, body: same(runs(2, 1, 1000))},
		{what: "second", k: kindReport, body: same(runs(3, 1, 1000))},
		{what: "third to d", k: kindReport, body: same(runs(4, 1, 1000)), code: partition.CodeExists},
		{what: "one to e", k: kindReport, body: same(runs(5, 1, 1000))},
		{what: "the second goes on", k: kindReport, body: same(runs(3, 2, 50_000))},
		{what: "third, a minute after the first was heard", k: kindReport, body: same(runs(4, 2, 62_000))},
		{what: "the first again, which kept its place", k: kindReport, body: same(runs(2, 2, 62_000))},
		{what: "it gives it back", k: kindReport, body: same(&reportBody{Task: 2, Epoch: 1, Seq: 3, Stop: true, Phase: "waiting", NowMs: 63_000}), see: func(s *state) error {
			if x, _ := s.catalog.Task(2); x.Running || x.Tries != 1 {
				return fmt.Errorf("%+v", x)
			}
			return nil
		}},
		{what: "and finds none", k: kindReport, body: same(runs(2, 4, 63_000)), code: partition.CodeExists},
	} {
		x.run(t, s)
	}
}

// TestDecommission: a node leaves as long as the task is open, and gets further
// steps when the first ones have ended.
func TestDecommission(t *testing.T) {
	s := newState()
	create(t, s, "t", 3, nil, "a", "b", "c")
	leaves := func(want bool) func(*state) error {
		return func(s *state) error {
			if _, is := s.catalog.Leaving("a"); is != want {
				return fmt.Errorf("it leaves: %t", is)
			}
			return nil
		}
	}
	for _, x := range []taskStep{
		{what: "without a node", k: kindPlan, body: same(decommissionOf("d0", "", 0)), code: partition.CodeInvalid},
		{what: "a leaves", k: kindPlan, body: same(decommissionOf("d1", "a", 0, moveOf(1, "a", "d"))), see: leaves(true)},
		{what: "a leaves again", k: kindPlan, body: same(decommissionOf("d2", "a", 0)), code: partition.CodeExists},
		{what: "more, for a group that moves", k: kindPlan, body: same(decommissionOf("d3", "a", 1, moveOf(1, "a", "e"))), code: partition.CodeExists},
		{what: "more, for another node", k: kindPlan, body: same(decommissionOf("d4", "b", 1)), code: partition.CodeRefused},
		{what: "the step fails", k: kindReport, body: same(&reportBody{Task: 2, Epoch: 1, State: TaskFailed, Why: "no space"}), see: inState(map[TaskID]TaskState{1: TaskOpen, 2: TaskFailed})},
		{what: "more", k: kindPlan, body: same(decommissionOf("d5", "a", 1, moveOf(1, "a", "e"))), see: inState(map[TaskID]TaskState{1: TaskOpen, 3: TaskOpen})},
		{what: "taken back", k: kindCancel, body: same(&cancelBody{Task: 1, Why: "it stays"}), see: leaves(false)},
		{what: "with its steps", k: kindReport, body: same(&reportBody{Task: 3, Epoch: 1, State: TaskAborted})},
		{what: "more, after that", k: kindPlan, body: same(decommissionOf("d6", "a", 1)), code: partition.CodeRefused},
	} {
		x.run(t, s)
	}
}

// TestTasksOfDroppedTable end with it.
func TestTasksOfDroppedTable(t *testing.T) {
	s := newState()
	create(t, s, "t", 3, nil, "a", "b", "c")
	create(t, s, "u", 3, nil, "a", "b", "c")
	applied(t, s, kindSplit, splitOf(1, "g"))
	applied(t, s, kindPlan, planOf("p", false, moveOf(2, "a", "d")))
	applied(t, s, kindDrop, &dropBody{Token: "d", Name: "t"})
	if err := inState(map[TaskID]TaskState{1: TaskAborted, 2: TaskOpen, 3: TaskOpen})(s); err != nil {
		t.Fatal(err)
	}
	applied(t, s, kindDrop, &dropBody{Token: "e", Name: "u"})
	if err := inState(map[TaskID]TaskState{2: TaskFailed, 3: TaskAborted})(s); err != nil {
		t.Fatal(errors.Join(err, errors.New("a plan whose last step went with its table goes on")))
	}
}

// drawPlan makes a random command about plans.
func drawPlan(t *rapid.T, s *state, token string) (kind, any) {
	node := func() partition.NodeID {
		return partition.NodeID(rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "node"))
	}
	task := func() TaskID { return TaskID(rapid.Uint64Range(1, uint64(s.nextTask)).Draw(t, "task")) }
	switch rapid.IntRange(0, 4).Draw(t, "about plans") {
	case 0:
		return kindStart, &startBody{Plan: task(), NowMs: 2000}
	case 1:
		return kindCancel, &cancelBody{Task: task(), Why: "enough", NowMs: 2500}
	case 2:
		return kindReport, &reportBody{
			Task: task(), Epoch: 1, Seq: rapid.Uint64Range(0, 9).Draw(t, "seq"), Run: rapid.Bool().Draw(t, "run"), Stop: rapid.Bool().Draw(t, "stop"),
			State: TaskState(rapid.SampledFrom([]int{0, 0, 0, 2, 3, 4}).Draw(t, "state")), NowMs: 3000,
		}
	}
	b := planOf(token, rapid.Bool().Draw(t, "look"))
	if rapid.IntRange(0, 3).Draw(t, "kind") == 0 {
		b.Kind, b.Node, b.Look = TaskDecommission, node(), false
		if rapid.Bool().Draw(t, "more") {
			b.Parent = task()
		}
	}
	for range rapid.IntRange(0, 3).Draw(t, "steps") {
		b.Steps = append(b.Steps, planStep{
			Kind: TaskKind(rapid.SampledFrom([]int{2, 2, 3}).Draw(t, "step")), Group: partition.GroupID(rapid.Uint64Range(1, 14).Draw(t, "group")),
			MembershipVersion: partition.MembershipVersion(rapid.Uint64Range(0, 2).Draw(t, "mv")), From: node(), To: node(),
		})
	}
	return kindPlan, b
}

// checkPlaces: no more moves run than their nodes can bear, and steps of a group
// checkPlaces: no more moves run than their nodes can bear, and steps of a group that
// are open together are of one plan.
func checkPlaces(t *rapid.T, s *state) {
	from, to := map[partition.NodeID]int{}, map[partition.NodeID]int{}
	of := map[partition.GroupID]*Task{}
	plans := 0
	for _, x := range s.catalog.tasks {
		if x.State != TaskOpen {
			continue
		}
		if x.Kind == TaskPlan {
			plans++
		}
		if x.Kind == TaskMove && x.Running {
			from[x.From]++
			to[x.To]++
			if from[x.From] > MaxCopiesPerNode || to[x.To] > MaxCopiesPerNode {
				t.Fatalf("%d moves from %s, %d to %s", from[x.From], x.From, to[x.To], x.To)
			}
		}
		if o := of[x.Group]; x.Group != 0 && o != nil && o.Parent != x.Parent && o.Activated+x.Activated == 0 {
			t.Fatalf("%s has tasks %s and %s", x.Group, o.ID, x.ID)
		}
		of[x.Group] = x
	}
	if plans > 1 {
		t.Fatalf("%d plans are carried out", plans)
	}
}
