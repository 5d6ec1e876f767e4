package actors

import (
	"cmp"
	"context"
	"slices"
	"time"

	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
)

// TaskID identifies a task.
type TaskID = control.TaskID

// ParseTaskID reads a task's id, such as t7.
func ParseTaskID(s string) (TaskID, error) { return control.ParseTaskID(s) }

// TaskInfo is one structural change, as the catalog has it.
type TaskInfo struct {
	ID     TaskID            `json:"id"`
	Kind   string            `json:"kind"`  // split, move, transfer, plan, decommission
	State  string            `json:"state"` // planned, open, done, aborted, failed
	Parent TaskID            `json:"parent,omitempty"`
	Group  partition.GroupID `json:"group,omitempty"`
	From   partition.NodeID  `json:"from,omitempty"`
	To     partition.NodeID  `json:"to,omitempty"`
	Bytes  uint64            `json:"bytes,omitempty"` // to be copied, as far as known
	// Phase is how far it is, and Why what it waits for or what became of it.
	Phase string `json:"phase,omitempty"`
	Why   string `json:"why,omitempty"`
	// Units done of all, of whatever it counts; of a plan its steps.
	Units   uint64 `json:"units,omitempty"`
	OfUnits uint64 `json:"of_units,omitempty"`
	Tries   int    `json:"tries,omitempty"`   // how often it was given back
	Running bool   `json:"running,omitempty"` // a move that has a place among those that run
	// Cancel is why somebody wants it to be given up.
	Cancel string `json:"cancel,omitempty"`
	// Children are the partitions that a split makes, and Activated that they serve.
	Children  []partition.GroupID `json:"children,omitempty"`
	Activated bool                `json:"activated,omitempty"`
	Reason    string              `json:"reason,omitempty"`
	By        string              `json:"by,omitempty"`
	Created   time.Time           `json:"created"`
	Touched   time.Time           `json:"touched,omitzero"` // of its master's last word
	Ended     time.Time           `json:"ended,omitzero"`
}

// Open reports whether the task is still to be done, or looked at.
func (t *TaskInfo) Open() bool {
	return t.State == control.TaskOpen.String() || t.State == control.TaskPlanned.String()
}

// Succeeded reports whether what was asked for is so.
func (t *TaskInfo) Succeeded() bool { return t.State == control.TaskDone.String() }

// Settled reports whether nothing more is to be waited for. A decommission
// stays open for as long as its node is to stay empty.
func (t *TaskInfo) Settled() bool { return !t.Open() || t.Phase == phaseEmpty }

// phaseEmpty is the phase of a decommission whose node holds nothing.
const phaseEmpty = "empty"

// Tasks returns all tasks by id, also those that ended not long ago.
func (n *Node) Tasks(context.Context) ([]TaskInfo, error) {
	cat, err := n.catalog()
	if err != nil {
		return nil, err
	}
	all := make([]TaskInfo, 0, len(cat.Tasks()))
	for _, t := range cat.Tasks() {
		all = append(all, taskInfo(cat, t))
	}
	return all, nil
}

// AbortTask asks for a task to be given up, with its steps if it is a plan, and
// returns it as it is then: what was begun is undone step by step.
func (n *Node) AbortTask(ctx context.Context, id TaskID, why string) (TaskInfo, error) {
	if err := n.control.CancelTask(ctx, id, why); err != nil {
		return TaskInfo{}, err
	}
	return n.task(id)
}

func (n *Node) task(id TaskID) (TaskInfo, error) {
	cat, err := n.catalog()
	if err != nil {
		return TaskInfo{}, err
	}
	t, ok := cat.Task(id)
	if !ok {
		return TaskInfo{}, &partition.Error{Code: partition.CodeNotFound, Why: "no task " + id.String() + " is known", Next: "list them with: pando task ls"}
	}
	return taskInfo(cat, t), nil
}

func taskInfo(cat *control.Catalog, t *control.Task) TaskInfo {
	i := TaskInfo{
		ID: t.ID, Kind: t.Kind.String(), State: t.State.String(), Parent: t.Parent, Group: t.Group, From: t.From, To: t.To, Bytes: t.Bytes,
		Phase: t.Phase, Why: t.Why, Units: t.Units, OfUnits: t.OfUnits, Tries: t.Tries, Running: t.Running, Cancel: t.Cancel, Activated: t.Activated != 0,
		Reason: t.Reason, By: t.By, Created: t.Created, Touched: t.Touched, Ended: t.Ended,
	}
	for _, c := range t.Children {
		i.Children = append(i.Children, c.Group)
	}
	if t.Kind == control.TaskPlan || t.Kind == control.TaskDecommission {
		steps := cat.Steps(t.ID)
		i.Units, i.OfUnits, i.Bytes = 0, uint64(len(steps)), 0
		for _, s := range steps {
			i.Bytes += s.Bytes
			if s.State == control.TaskDone {
				i.Units++
			}
		}
	}
	return i
}

// StepsOf returns the tasks below a task, in their order.
func StepsOf(all []TaskInfo, id TaskID) []TaskInfo {
	var steps []TaskInfo
	for _, t := range all {
		if t.Parent == id {
			steps = append(steps, t)
		}
	}
	slices.SortFunc(steps, func(a, b TaskInfo) int { return cmp.Compare(a.ID, b.ID) })
	return steps
}
