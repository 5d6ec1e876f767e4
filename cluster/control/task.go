package control

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"pando.dev/pando/cluster/placement"
	"pando.dev/pando/partition"
)

// Limits of tasks.
const (
	// MaxOpenTasks bounds the tasks that have not ended.
	MaxOpenTasks = 1024
	// MaxEndedTasks is how many tasks are remembered after their end.
	MaxEndedTasks = 256
	// MaxSplitKeyBytes bounds the keys of one split together.
	MaxSplitKeyBytes = 4 << 10
	// MaxTaskNodes bounds the nodes that one split names for its children.
	MaxTaskNodes = 64
	// MaxTaskText bounds each text of a task: reason, author, phase, why.
	MaxTaskText = 256
	// MaxPlanSteps bounds the moves and transfers that are planned at once. What is
	// left is planned when they are done.
	MaxPlanSteps = 200
)

// TaskID identifies a task. It is never reused.
type TaskID uint64

// String returns the form used in messages and commands.
func (id TaskID) String() string { return fmt.Sprintf("t%d", uint64(id)) }

// ParseTaskID reads what String wrote; the letter may be left out.
func ParseTaskID(s string) (TaskID, error) {
	n, err := strconv.ParseUint(strings.TrimPrefix(s, "t"), 10, 64)
	if err != nil || n == 0 {
		return 0, partition.Errorf(partition.CodeInvalid, "%.40q is no task, such as t7", s)
	}
	return TaskID(n), nil
}

// MarshalText implements encoding.TextMarshaler.
func (id TaskID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *TaskID) UnmarshalText(b []byte) (err error) {
	if string(b) == TaskID(0).String() {
		*id = 0
		return nil
	}
	*id, err = ParseTaskID(string(b))
	return err
}

// TaskKind says what a task does. Values are append-only.
type TaskKind uint8

const (
	// TaskSplit divides a group.
	TaskSplit TaskKind = 1
	// TaskMove brings a replica of a group from one node to another.
	TaskMove TaskKind = 2
	// TaskTransfer hands the mastership of a group to the replica on a node.
	TaskTransfer TaskKind = 3
	// TaskPlan has moves and transfers below it: the cluster is brought into
	// balance, or a node is emptied.
	TaskPlan TaskKind = 4
	// TaskDecommission has moves and transfers below it, too: a node is emptied, and
	// nothing new goes there. It stays open until somebody takes it back.
	TaskDecommission TaskKind = 5
	// TaskMerge has a group absorb the one behind it.
	TaskMerge TaskKind = 6
)

// String returns the name used in commands and answers.
func (k TaskKind) String() string {
	switch k {
	case TaskSplit:
		return "split"
	case TaskMove:
		return "move"
	case TaskTransfer:
		return "transfer"
	case TaskPlan:
		return "plan"
	case TaskDecommission:
		return "decommission"
	case TaskMerge:
		return "merge"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// TaskState says whether a task goes on. Values are append-only.
type TaskState uint8

const (
	// TaskOpen: to be done.
	TaskOpen TaskState = 1
	// TaskDone: what was asked for is so.
	TaskDone TaskState = 2
	// TaskAborted: given up, and nothing of it is left.
	TaskAborted TaskState = 3
	// TaskFailed: it could not be done; Why says why.
	TaskFailed TaskState = 4
	// TaskPlanned: somebody wants to look at it before it is done. Nobody works on
	// it.
	TaskPlanned TaskState = 5
)

// String returns the name used in commands and answers.
func (s TaskState) String() string {
	switch s {
	case TaskOpen:
		return "open"
	case TaskDone:
		return "done"
	case TaskAborted:
		return "aborted"
	case TaskFailed:
		return "failed"
	case TaskPlanned:
		return "planned"
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// Task is the wish for one structural change, for as long as it takes and a
// while after it has ended. It travels to every node with the catalog, so the
// group's master sees it, whoever that is, and a new master goes on where the old
// one was. The control group does nothing about it but refuse what cannot be.
// Whoever holds a Task shares it.
type Task struct {
	ID     TaskID
	Kind   TaskKind
	State  TaskState
	Parent TaskID // the plan that it is a step of; 0: none
	Token  string // of the request that began it
	Table  uint64
	Group  partition.GroupID // 0 for a plan

	// RangeVersion and MembershipVersion are what the task was begun for: the
	// group's in the catalog at that time.
	RangeVersion      partition.RangeVersion
	MembershipVersion partition.MembershipVersion

	// Of a split: Keep is what remains with the group, Children are in the order
	// of their ranges. Activated is the range version at which the catalog began to
	// lead to them, 0 before that. Of a merge: Keep is what the survivor had, the one
	// child is the source, see Source, and Activated the range version since which the
	// survivor has its range.
	Keep      partition.KeyRange
	Children  []TaskChild
	Activated partition.RangeVersion

	// Of a move, a transfer, or a plan that empties a node.
	From, To partition.NodeID
	Bytes    uint64 // that are to be copied, as far as known

	// What the group's master told last, by the epoch and number of its report.
	Phase string
	Why   string
	Epoch partition.Epoch
	Seq   uint64
	// Units done of all, of whatever the phase counts.
	Units, OfUnits uint64
	Running        bool // a move that has a place among those that may run
	Tries          int  // how often it was given back

	// Cancel is why somebody wants it to be given up; empty: nobody does.
	Cancel string

	Reason string // why it was begun
	By     string // who began it

	// Times by the clock of the control group's leader.
	Deadline time.Time // when it is given up if it has not got far; zero: never
	Created  time.Time
	Touched  time.Time // of the last report
	Ended    time.Time
	Changed  uint64 // the catalog version that changed it last

	// early is the newest update of the group that has the range of after the
	// split, come before the activation.
	early *Group
}

// TaskChild is a group that a split makes. Locks and permits for it are granted
// as long as the task is open, but no key leads to it before it is activated.
type TaskChild struct {
	Group partition.GroupID
	Range partition.KeyRange
	// Nodes are where its replicas shall be; empty: where the parent's full
	// replicas are. First is the node whose replica tries to be master first;
	// empty: the parent's master's.
	Nodes []placement.Node
	First partition.NodeID

	// told is what its master has told before it was activated, or nil.
	told *Group
}

// Open reports whether the task is still to be done, or looked at.
func (t *Task) Open() bool { return t.State == TaskOpen || t.State == TaskPlanned }

// SplitSpec is what a split is begun from.
type SplitSpec struct {
	Group partition.GroupID
	// RangeVersion and MembershipVersion are the group's as the caller saw them; 0:
	// whatever they are now.
	RangeVersion      partition.RangeVersion
	MembershipVersion partition.MembershipVersion
	// Keys divide the group's range: n keys, n+1 pieces, in strictly ascending
	// order and inside the range, at most partition.MaxChildren.
	Keys [][]byte
	// Keep is the piece that the group keeps, from 0.
	Keep int
	// Places says where the pieces go, without the one that the group keeps and in
	// their order. Empty: where the group's full replicas are.
	Places []SplitPlace
	// Timeout is how long the split is tried; 0: for ever.
	Timeout time.Duration
	Reason  string
	By      string
	Token   string // as in TableSpec
}

// SplitPlace is where a piece goes.
type SplitPlace struct {
	Nodes []placement.Node
	First partition.NodeID
}

// TaskReport is what a group's master tells of its task. A report counts if
// (Epoch, Seq) is greater than of all before it, so it may be repeated and come
// late.
type TaskReport struct {
	Task  TaskID
	Epoch partition.Epoch
	Seq   uint64
	Phase string
	Why   string // what it waits for, or what became of it
	// Units done of all, for progress.
	Units, OfUnits uint64
	// State ends the task with TaskDone, TaskAborted or TaskFailed. It is the end,
	// whatever is reported later; the same end again is no error.
	State TaskState
	// Run asks for a place among the moves that may run, and keeps it; Stop gives
	// it back, and the task is tried again later.
	Run, Stop bool
}

// PlanSpec is what a plan is made from.
type PlanSpec struct {
	// Kind is TaskPlan or TaskDecommission, and Node whom the latter empties.
	Kind TaskKind
	Node partition.NodeID
	// Parent adds the steps to an open task instead of making a new one.
	Parent TaskID
	// Look: nothing is done before StartPlan. With the next plan it is over.
	Look   bool
	Steps  []PlanStep // at most MaxPlanSteps; those of one group in their order
	Reason string
	By     string
	Token  string // as in TableSpec
}

// PlanStep is one move or transfer.
type PlanStep struct {
	Kind  TaskKind
	Group partition.GroupID
	// MembershipVersion is the group's as the plan saw it; 0: whatever the step
	// before it has left.
	MembershipVersion partition.MembershipVersion
	From, To          partition.NodeID
	Bytes             uint64
	Why               string
}

// SplitActivation is what makes a split's children known to all.
type SplitActivation struct {
	Task TaskID
	// RangeVersion is the group's since its Activate record.
	RangeVersion partition.RangeVersion
	// Children are all that the task has, with the configurations that the group's
	// log gives them.
	Children []partition.Child
}

// Tasks returns all tasks by id, those that have ended among them. The slice is
// shared and must not be changed.
func (c *Catalog) Tasks() []*Task { return c.tasks }

// Task returns the task with the given id, if it is open or ended not long ago.
func (c *Catalog) Task(id TaskID) (*Task, bool) {
	i, ok := slices.BinarySearchFunc(c.tasks, id, func(t *Task, id TaskID) int {
		switch {
		case t.ID < id:
			return -1
		case t.ID > id:
			return 1
		}
		return 0
	})
	if !ok {
		return nil, false
	}
	return c.tasks[i], true
}

// Leaving reports whether a node is being emptied, or is to stay empty.
func (c *Catalog) Leaving(n partition.NodeID) (*Task, bool) {
	for _, t := range c.tasks {
		if t.Kind == TaskDecommission && t.State == TaskOpen && t.From == n {
			return t, true
		}
	}
	return nil, false
}

// Steps returns the tasks below a task, by id.
func (c *Catalog) Steps(id TaskID) []*Task {
	var all []*Task
	for _, t := range c.tasks {
		if t.Parent == id {
			all = append(all, t)
		}
	}
	return all
}

// TaskOf returns the open task of a group. Only steps of one plan may be several;
// then it is the first of them, and the others wait for it.
func (c *Catalog) TaskOf(g partition.GroupID) (*Task, bool) {
	t, ok := c.busy[g]
	return t, ok
}

// Prepared returns the task that is to make a group. From its activation on the
// group is in the catalog and no longer prepared.
func (c *Catalog) Prepared(g partition.GroupID) (*Task, bool) {
	t, ok := c.prepared[g]
	return t, ok
}

// Where returns the group that has a key now that the given group had, or that
// the group is to get: a group that was split answers where the key went.
func (c *Catalog) Where(id partition.GroupID, key []byte) (*Group, error) {
	if t, ok := c.prepared[id]; ok {
		id = t.Group
	}
	for t, ok := c.absorbed[id]; ok; t, ok = c.absorbed[id] {
		id = t.Group
	}
	g, ok := c.Group(id)
	if !ok {
		return nil, partition.Errorf(partition.CodeNotFound, "the catalog (version %d) has no group %s", c.Version, id)
	}
	if g.Range.Contains(key) {
		return g, nil
	}
	t, ok := c.TableOf(g)
	if !ok {
		return nil, partition.Errorf(partition.CodeNoSuchTable, "the catalog (version %d) has no table of %s", c.Version, id)
	}
	return c.Lookup(t.Name, key)
}

// indexTasks makes what is looked up of the tasks.
func (c *Catalog) indexTasks() {
	c.absorbed = map[partition.GroupID]*Task{}
	c.busy, c.prepared, c.unmade = map[partition.GroupID]*Task{}, map[partition.GroupID]*Task{}, map[partition.GroupID]*Task{}
	for _, t := range c.tasks {
		c.indexMerge(t)
		if !t.Open() && t.Activated == 0 && t.Kind == TaskSplit {
			for i := range t.Children {
				c.unmade[t.Children[i].Group] = t
			}
		}
		if t.State != TaskOpen || t.Group == 0 {
			continue
		}
		if _, ok := c.busy[t.Group]; !ok {
			c.busy[t.Group] = t
		}
		if t.Activated != 0 || t.Kind != TaskSplit {
			continue
		}
		for i := range t.Children {
			c.prepared[t.Children[i].Group] = t
		}
	}
}

// kept reports whether what was granted for a group is kept. That of a split's
// children is as long as its end may be taken back: no number is given out twice.
func (c *Catalog) kept(g partition.GroupID) bool {
	_, ok := c.unmade[g]
	return ok || c.known(g)
}

// known reports whether there is such a group, or is to be one.
func (c *Catalog) known(g partition.GroupID) bool {
	_, ok := c.Group(g)
	if !ok {
		_, ok = c.prepared[g]
	}
	return ok
}
