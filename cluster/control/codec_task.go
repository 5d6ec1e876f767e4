package control

import (
	"fmt"

	"pando.dev/pando/cluster/placement"
	"pando.dev/pando/partition"
)

// The bodies of tasks; codec.go has the rules. Of a request and its command the
// leader adds the time.

type splitBody struct {
	Token             string
	Group             partition.GroupID
	RangeVersion      partition.RangeVersion
	MembershipVersion partition.MembershipVersion
	Keys              [][]byte
	Keep              int
	Places            []splitPlace
	TimeoutMs         uint32 // in a request
	DeadlineMs        int64  // in the command
	NowMs             int64
	Reason            string
	By                string
}

type splitPlace struct {
	Nodes []placeItem
	First partition.NodeID
}

// digest tells whether two requests with the same token are the same one.
func (b *splitBody) digest() uint32 {
	return partition.Checksum(fmt.Appendf(nil, "split\x00%d %d %d %q %d %+v", b.Group, b.RangeVersion, b.MembershipVersion, b.Keys, b.Keep, b.Places))
}

type activateBody struct {
	Task         TaskID
	RangeVersion partition.RangeVersion
	Children     []childBody
}

type childBody struct {
	Group      partition.GroupID
	Membership []byte
	First      partition.ReplicaID
}

type reportBody struct {
	Task           TaskID
	Epoch          partition.Epoch
	Seq            uint64
	Phase          string
	Why            string
	Units, OfUnits uint64
	State          TaskState
	Run, Stop      bool
	NowMs          int64
}

// planBody is both the request and the command.
type planBody struct {
	Token  string
	Kind   TaskKind
	Node   partition.NodeID
	Parent TaskID
	Look   bool
	Steps  []planStep
	Reason string
	By     string
	NowMs  int64
}

type planStep struct {
	Kind              TaskKind
	Group             partition.GroupID
	MembershipVersion partition.MembershipVersion
	From, To          partition.NodeID
	Bytes             uint64
	Why               string
}

func (b *planBody) digest() uint32 {
	return partition.Checksum(fmt.Appendf(nil, "plan\x00%d %q %d %t %+v", b.Kind, b.Node, b.Parent, b.Look, b.Steps))
}

type startBody struct {
	Plan  TaskID
	NowMs int64
}

type cancelBody struct {
	Task  TaskID
	Why   string
	NowMs int64
}

// taskPage is a page with tasks, or with groups that come from others.
type taskPage struct {
	Page    pageBody
	Origins []originItem
	Tasks   []taskItem
}

type originItem struct{ Group, Parent partition.GroupID }

// taskHead is a part of the snapshots of states that ever had a task.
type taskHead struct {
	Next  TaskID
	Tasks int
}

type taskItem struct {
	ID                TaskID
	Kind              TaskKind
	State             TaskState
	Parent            TaskID
	Token             string
	Table             uint64
	Group             partition.GroupID
	RangeVersion      partition.RangeVersion
	MembershipVersion partition.MembershipVersion
	KeepLo, KeepHi    []byte
	Children          []taskChildItem
	Activated         partition.RangeVersion
	From, To          partition.NodeID
	Bytes             uint64
	Phase, Why        string
	Epoch             partition.Epoch
	Seq               uint64
	Units, OfUnits    uint64
	Running           bool
	Tries             int
	Cancel            string
	Reason, By        string
	DeadlineMs        int64
	CreatedMs         int64
	TouchedMs         int64
	EndedMs           int64
	Changed           uint64
	Early             *groupItem
}

type taskChildItem struct {
	Group  partition.GroupID
	Lo, Hi []byte
	Place  splitPlace
	Told   *groupItem
}

// encode puts a page into the form that the oldest program that can show all of
// it reads.
func (p *pageBody) encode() []byte { return encode(p.part()) }

// decodePage reads a page of any form.
func decodePage(b []byte) (*pageBody, error) {
	switch k, err := kindOf(b); {
	case err == nil && k == kindTaskPage:
		t, err := decode[taskPage](kindTaskPage, b)
		if err != nil {
			return nil, err
		}
		return t.whole(nil), nil
	case err == nil && k == kindSplitsPage:
		s, err := decode[splitsPage](kindSplitsPage, b)
		if err != nil {
			return nil, err
		}
		return s.Tasks.whole(s.Splits), nil
	}
	return decode[pageBody](kindPage, b)
}

func (t *taskPage) whole(splits []splitsItem) *pageBody {
	t.Page.Origins, t.Page.Tasks, t.Page.Splits = t.Origins, t.Tasks, splits
	return &t.Page
}

// part is the page in the form that carries what is on it.
func (p *pageBody) part() (kind, any) {
	t := &taskPage{Page: *p, Origins: p.Origins, Tasks: p.Tasks}
	switch {
	case len(p.Splits) > 0:
		return kindSplitsPage, &splitsPage{Tasks: *t, Splits: p.Splits}
	case len(p.Origins) == 0 && len(p.Tasks) == 0:
		return kindPage, p
	}
	return kindTaskPage, t
}

func (s *state) readTaskHead(b []byte) (int, error) {
	h, err := decode[taskHead](kindTaskHead, b)
	if err != nil {
		return 0, err
	}
	if s.nextTask != 1 || h.Next < 2 {
		return 0, corrupt("the number of the next task is %d, or there twice", h.Next)
	}
	s.nextTask = h.Next
	return h.Tasks, nil
}

// itemOfTask is the form of a task that is sent and kept, and its size, roughly.
func itemOfTask(t *Task) (taskItem, int) {
	i := taskItem{
		ID: t.ID, Kind: t.Kind, State: t.State, Parent: t.Parent, Token: t.Token, Table: t.Table, Group: t.Group,
		RangeVersion: t.RangeVersion, MembershipVersion: t.MembershipVersion, KeepLo: t.Keep.Lo, KeepHi: t.Keep.Hi,
		Activated: t.Activated, From: t.From, To: t.To, Bytes: t.Bytes, Phase: t.Phase, Why: t.Why, Epoch: t.Epoch, Seq: t.Seq,
		Units: t.Units, OfUnits: t.OfUnits, Running: t.Running, Tries: t.Tries, Cancel: t.Cancel, Reason: t.Reason, By: t.By,
		DeadlineMs: msOf(t.Deadline), CreatedMs: msOf(t.Created), TouchedMs: msOf(t.Touched), EndedMs: msOf(t.Ended), Changed: t.Changed,
	}
	size := 200 + len(t.Token) + len(t.Keep.Lo) + len(t.Keep.Hi) + len(t.From) + len(t.To) + len(t.Phase) + len(t.Why) + len(t.Cancel) + len(t.Reason) + len(t.By)
	i.Early = toldItem(t.early, &size)
	for _, c := range t.Children {
		x := taskChildItem{Group: c.Group, Lo: c.Range.Lo, Hi: c.Range.Hi, Place: splitPlace{First: c.First}}
		for _, n := range c.Nodes {
			x.Place.Nodes = append(x.Place.Nodes, placeItem{Node: n.ID, Zone: n.Zone, Weight: n.Weight})
			size += 16 + len(n.ID) + len(n.Zone)
		}
		size += 32 + len(x.Lo) + len(x.Hi) + len(c.First)
		x.Told = toldItem(c.told, &size)
		i.Children = append(i.Children, x)
	}
	return i, size
}

func toldItem(g *Group, size *int) *groupItem {
	if g == nil {
		return nil
	}
	i := itemOf(g)
	*size += 64 + len(i.Lo) + len(i.Hi) + len(i.Membership) + len(i.Master)
	return &i
}

// taskOf reads a task from untrusted bytes.
func taskOf(i *taskItem) (*Task, *partition.Error) {
	t := &Task{
		ID: i.ID, Kind: i.Kind, State: i.State, Parent: i.Parent, Token: i.Token, Table: i.Table, Group: i.Group,
		RangeVersion: i.RangeVersion, MembershipVersion: i.MembershipVersion, Keep: rangeOf(i.KeepLo, i.KeepHi),
		Activated: i.Activated, From: i.From, To: i.To, Bytes: i.Bytes, Phase: i.Phase, Why: i.Why, Epoch: i.Epoch, Seq: i.Seq,
		Units: i.Units, OfUnits: i.OfUnits, Running: i.Running, Tries: i.Tries, Cancel: i.Cancel, Reason: i.Reason, By: i.By,
		Deadline: timeOf(i.DeadlineMs), Created: timeOf(i.CreatedMs), Touched: timeOf(i.TouchedMs), Ended: timeOf(i.EndedMs), Changed: i.Changed,
	}
	if err := t.validateItem(i); err != nil {
		return nil, err
	}
	var err *partition.Error
	if t.early, err = toldOf(i.Early, t, t.Group); err != nil {
		return nil, err
	}
	for k := range i.Children {
		x := &i.Children[k]
		c := TaskChild{Group: x.Group, Range: rangeOf(x.Lo, x.Hi), First: x.Place.First}
		for _, n := range x.Place.Nodes {
			if len(n.Node) > partition.MaxNodeIDBytes || len(n.Zone) > partition.MaxZoneBytes {
				return nil, corrupt("task %s: a node or zone with too long a name", t.ID)
			}
			c.Nodes = append(c.Nodes, placement.Node{ID: n.Node, Zone: n.Zone, Weight: n.Weight})
		}
		if c.told, err = toldOf(x.Told, t, c.Group); err != nil {
			return nil, err
		}
		if c.Group == 0 || c.Range.Empty() || max(len(x.Lo), len(x.Hi)) > MaxKeyBytes || len(c.First) > partition.MaxNodeIDBytes || len(c.Nodes) > partition.MaxMembers {
			return nil, corrupt("task %s: child %s with range %.80s", t.ID, c.Group, c.Range)
		}
		if c.told != nil {
			c.told.Parent = t.Group
		}
		t.Children = append(t.Children, c)
	}
	return t, nil
}

// validateItem checks what taskOf does not on the way.
func (t *Task) validateItem(i *taskItem) *partition.Error {
	for _, s := range []string{t.Phase, t.Why, t.Cancel, t.Reason, t.By, t.Token} {
		if len(s) > MaxTaskText {
			return corrupt("task %s: a text of %d bytes, limit %d", t.ID, len(s), MaxTaskText)
		}
	}
	switch {
	case t.ID == 0 || t.Parent >= t.ID || t.Kind < TaskSplit || t.Kind > TaskMerge || t.State < TaskOpen || t.State > TaskPlanned:
		return corrupt("task %d of kind %d in state %d", t.ID, t.Kind, t.State)
	case max(len(t.From), len(t.To)) > partition.MaxNodeIDBytes || len(i.Children) > partition.MaxChildren || t.Tries < 0:
		return corrupt("task %s: too long a name, or %d children", t.ID, len(i.Children))
	case min(i.DeadlineMs, i.CreatedMs, i.TouchedMs, i.EndedMs) < 0:
		return corrupt("task %s: a time before 1970", t.ID)
	case t.Kind == TaskMerge && (len(i.Children) != 1 || t.Keep.Empty()):
		return corrupt("task %s: a merge with %d sources, into %.80s", t.ID, len(i.Children), t.Keep)
	case t.Kind != TaskMerge && (t.Kind == TaskSplit) != (len(i.Children) > 0) || t.below() != (t.Group == 0):
		return corrupt("task %s: a %s of %s with %d children", t.ID, t.Kind, t.Group, len(i.Children))
	case t.Kind == TaskSplit && (t.Keep.Empty() || max(len(i.KeepLo), len(i.KeepHi)) > MaxKeyBytes):
		return corrupt("task %s: the group keeps %.80s", t.ID, t.Keep)
	}
	return nil
}

// toldOf reads what a task remembers of a group.
func toldOf(i *groupItem, t *Task, id partition.GroupID) (*Group, *partition.Error) {
	if i == nil {
		return nil, nil
	}
	if i.ID != id || i.Table != t.Table || t.Activated != 0 || t.State != TaskOpen {
		return nil, corrupt("task %s remembers %s for %s", t.ID, i.ID, id)
	}
	return groupOf(i)
}

// rangeOf reads a range: an open bound is always nil.
func rangeOf(lo, hi []byte) (r partition.KeyRange) {
	if len(lo) > 0 {
		r.Lo = lo
	}
	if len(hi) > 0 {
		r.Hi = hi
	}
	return r
}

// validateTasks checks what tasks say of each other and of groups; tables are
// those that there are.
func (c *Catalog) validateTasks(tables map[uint64]bool) error {
	open, ended := 0, 0
	busy, made := map[partition.GroupID]*Task{}, map[partition.GroupID]bool{}
	for _, t := range c.tasks {
		if t.Changed > c.Version {
			return corrupt("task %s is too new", t.ID)
		}
		if !t.Open() {
			ended++
			continue
		}
		if open++; t.below() || t.State == TaskPlanned {
			continue
		}
		g, ok := c.Group(t.Group)
		other := busy[t.Group]
		if !ok || other != nil && other.Activated == 0 && t.Activated == 0 && (t.Parent == 0 || other.Parent != t.Parent) || g.Table != t.Table || !tables[t.Table] {
			return corrupt("task %s is of %s, which is not there or has another task", t.ID, t.Group)
		}
		busy[t.Group] = t
		if id, _ := t.Source(); id != 0 {
			if _, ok := c.Group(id); !ok {
				return corrupt("task %s absorbs %s, which is not there", t.ID, id)
			}
			continue
		}
		for i := range t.Children {
			id := t.Children[i].Group
			if _, ok := c.Group(id); t.Activated == 0 && (ok || made[id]) {
				return corrupt("task %s is to make %s, which is there", t.ID, id)
			}
			made[id] = true
		}
	}
	if open > MaxOpenTasks || ended > MaxEndedTasks {
		return corrupt("%d open tasks, limit %d; %d that ended, limit %d", open, MaxOpenTasks, ended, MaxEndedTasks)
	}
	return nil
}

// validateIDs refuses a task with ids that were never given out.
func (t *Task) validateIDs(s *state) error {
	if t.ID >= s.nextTask {
		return corrupt("task %s is there, the next is %s", t.ID, s.nextTask)
	}
	for i := range t.Children {
		if id := t.Children[i].Group; id >= s.nextGroup {
			return corrupt("task %s has %s, the next is %s", t.ID, id, s.nextGroup)
		}
	}
	return nil
}
