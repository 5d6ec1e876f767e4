package actors

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"pando.dev/pando/cluster/control"
	"pando.dev/pando/cluster/placement"
	"pando.dev/pando/partition"
)

const (
	// taskLook is how often the tasks of the groups mastered here are looked at.
	taskLook = 250 * time.Millisecond
	// maxTaskActs bounds the tasks for which something is done at a time on a node.
	maxTaskActs = 8
	// taskActWait bounds one request for a task.
	taskActWait = 5 * time.Second
	// taskWord is how often a move that runs is reported though nothing is new, so
	// that it keeps its place; taskNews the least time between two reports.
	taskWord = 20 * time.Second
	taskNews = time.Second
	// placeAgain is the pause before a move that found no place asks for one again.
	placeAgain = time.Second
	// taskRetry is the pause after a task failed, doubled with each further time up
	// to taskRetryMax; after maxTaskTries it is given up.
	taskRetry    = 5 * time.Second
	taskRetryMax = 5 * time.Minute
	maxTaskTries = 8
	// moveTime and moveRate are how long a move may run: so long, and twice the time
	// that its bytes take at that rate.
	moveTime = time.Minute
	moveRate = 8 << 20
	// awayTime is how long a move keeps its place while the node that receives is
	// away.
	awayTime = 10 * time.Second
)

// taskRunner carries out the moves and transfers of the groups whose master is on
// this node. It is level-triggered: the catalog says what is wanted, the group what
// is so, and a new master goes on by itself. What it remembers may be lost.
//
// A move is what the tender does at an operator's request to replace a replica:
// a learner, a copy, one joint step. The runner asks for a place for it, says how
// far it is, and gives the place back when nothing comes of it. Each task has its
// own pause, so a group that is stuck holds up no other.
type taskRunner struct {
	node *Node
	seq  atomic.Uint64 // of reports

	mu   sync.Mutex
	seen map[control.TaskID]*taskTry
	acts int
}

// taskTry is what is remembered of a task. Only one goroutine at a time has it.
type taskTry struct {
	acting    bool
	notBefore partition.Time
	tries     int
	since     partition.Time // when it began to run here
	there     partition.Time // when the node that receives was last in service
	told      partition.Time
	why       string
}

func newTaskRunner(n *Node) *taskRunner {
	return &taskRunner{node: n, seen: make(map[control.TaskID]*taskTry)}
}

// run looks at the tasks until the node stops.
func (r *taskRunner) run() {
	tick := time.NewTicker(taskLook)
	defer tick.Stop()
	for {
		r.look()
		select {
		case <-r.node.ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// look begins what can be done for each task.
func (r *taskRunner) look() {
	cat := r.node.control.Catalog()
	now := r.node.now()
	var open map[control.TaskID]bool // nil most of the time
	for _, t := range cat.Tasks() {
		if t.State != control.TaskOpen || t.Kind != control.TaskMove && t.Kind != control.TaskTransfer {
			continue
		}
		if open == nil {
			open = make(map[control.TaskID]bool)
		}
		open[t.ID] = true
		first, _ := cat.TaskOf(t.Group)
		c := r.node.cells.get(t.Group)
		if first != t || c == nil {
			continue
		}
		v := c.view.Load()
		if v == nil || !v.Serving || v.Master != v.Self {
			continue
		}
		if x := r.take(t.ID, now); x != nil {
			r.node.background.Go(func() { r.give(x, func() { r.act(t, c, x) }) })
		}
	}
	r.forget(open)
}

// take returns what is remembered of a task if it is its turn.
func (r *taskRunner) take(id control.TaskID, now partition.Time) *taskTry {
	r.mu.Lock()
	defer r.mu.Unlock()
	x := r.seen[id]
	if x == nil {
		x = &taskTry{}
		r.seen[id] = x
	}
	if x.acting || now < x.notBefore || r.acts >= maxTaskActs {
		return nil
	}
	x.acting = true
	r.acts++
	return x
}

func (r *taskRunner) give(x *taskTry, act func()) {
	act()
	r.mu.Lock()
	defer r.mu.Unlock()
	x.acting = false
	r.acts--
}

func (r *taskRunner) forget(open map[control.TaskID]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, x := range r.seen { // in no order: each on its own
		if !open[id] && !x.acting {
			delete(r.seen, id)
		}
	}
}

// act does the next thing for a task of a group that is mastered here.
func (r *taskRunner) act(t *control.Task, c *cell, x *taskTry) {
	v := c.view.Load()
	if v == nil || !v.Serving {
		return
	}
	ctx, cancel := context.WithTimeout(r.node.ctx, taskActWait)
	defer cancel()
	m := v.Configurations.Last()
	report := control.TaskReport{Task: t.ID, Epoch: v.Epoch, Seq: r.seq.Add(1)}
	var send bool
	if t.Kind == control.TaskTransfer {
		send = r.transfer(ctx, t, c, m, v.Self, x, &report)
	} else {
		send = r.move(t, m, len(v.Configurations) > 1, x, &report)
	}
	if !send {
		return
	}
	now := r.node.now()
	x.told, x.why = now, report.Why
	err := r.node.control.ReportTask(ctx, report)
	switch {
	case err == nil && report.Run && !t.Running:
		x.since = now
		r.node.tender.mark(t.Group)
	case err == nil && report.Stop:
		r.pause(x, t.Tries+1)
	case errors.Is(err, partition.ErrExists):
		x.notBefore = now + placeAgain // others have the places
	case err != nil:
		r.node.logger.Debug("task not reported", "task", t.ID, "err", err)
		x.notBefore = now + taskNews
	}
	if err == nil && report.State != 0 {
		r.node.tender.mark(t.Group) // a learner that nobody waits for any more goes
		r.node.logger.Info("task ended", "task", t.ID, "kind", t.Kind.String(), "group", t.Group, "state", report.State.String(), "why", report.Why)
	}
}

func (r *taskRunner) pause(x *taskTry, tries int) {
	x.since = 0
	x.notBefore = r.node.now() + min(taskRetry<<min(max(tries-1, 0), 16), taskRetryMax)
}

// end has the task ended.
func end(report *control.TaskReport, state control.TaskState, why string) bool {
	report.State, report.Why = state, why
	return true
}

// transfer hands the mastership over. It reports whether there is something to
// tell.
func (r *taskRunner) transfer(ctx context.Context, t *control.Task, c *cell, m *partition.Membership, self partition.ReplicaID, x *taskTry, report *control.TaskReport) bool {
	to, ok := m.OnNode(t.To)
	switch {
	case ok && to.Replica == self:
		return end(report, control.TaskDone, fmt.Sprintf("node %s is master", t.To))
	case t.Cancel != "":
		return end(report, control.TaskAborted, t.Cancel)
	case !ok || to.Kind != partition.Full || !to.Eligible:
		return end(report, control.TaskFailed, fmt.Sprintf("node %s has no full replica that counts", t.To))
	}
	done := make(chan error, 1)
	c.ask(&transferMaster{to: to.Replica, done: func(err error) { done <- err }})
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		err = partition.Errorf(partition.CodeUnknown, "the master has not handed over yet")
	}
	if err == nil {
		return end(report, control.TaskDone, fmt.Sprintf("node %s is master", t.To))
	}
	if x.tries++; x.tries >= maxTaskTries {
		return end(report, control.TaskFailed, fmt.Sprintf("tried %d times: %v", x.tries, err))
	}
	r.pause(x, x.tries)
	report.Phase, report.Why = "waiting", err.Error()
	return true
}

// move brings a replica from one node to another. It reports whether there is
// something to tell.
func (r *taskRunner) move(t *control.Task, m *partition.Membership, pending bool, x *taskTry, report *control.TaskReport) bool {
	now := r.node.now()
	from, there := m.OnNode(t.From)
	to, arrived := m.OnNode(t.To)
	switch {
	case !there && arrived && to.Kind == partition.Full:
		return !pending && end(report, control.TaskDone, fmt.Sprintf("node %s has it, membership version %d", t.To, m.Version))
	case t.Cancel != "":
		return end(report, control.TaskAborted, t.Cancel)
	case !there || from.Kind != partition.Full || arrived && to.Kind != partition.Learner && !t.Running:
		return end(report, control.TaskFailed, fmt.Sprintf("the group has changed since it was planned, to membership version %d", m.Version))
	}
	away := r.away(t.To)
	if !t.Running {
		if t.Tries == 0 && t.MembershipVersion != 0 && t.MembershipVersion != m.Version {
			return end(report, control.TaskFailed, fmt.Sprintf("the group has changed since it was planned: membership version %d, now %d", t.MembershipVersion, m.Version))
		}
		if away != "" {
			x.notBefore = now + placeAgain
			report.Phase, report.Why = "waiting", away
			return x.why != away
		}
		report.Run, report.Phase, report.Why = true, "copying", fmt.Sprintf("a replica comes to node %s", t.To)
		return true
	}
	if x.since == 0 {
		x.since = now // another master began it
	}
	if away == "" {
		x.there = now
	}
	_, why := r.node.tending(t.Group)
	report.Run, report.Phase, report.Why = true, "copying", why
	if report.Units, report.OfUnits = bytesHere(why); report.OfUnits == 0 {
		report.Units, report.OfUnits = t.Units, t.OfUnits // as it was told last
	}
	r.node.tender.mark(t.Group)
	if allowed := moveTime + time.Duration(2*float64(t.Bytes)/moveRate*float64(time.Second)); now > x.since+allowed || now > max(x.there, x.since)+awayTime {
		switch {
		case away != "":
			why = away
		case why == "":
			why = "nothing came of it"
		}
		if t.Tries+1 >= maxTaskTries {
			return end(report, control.TaskFailed, fmt.Sprintf("tried %d times: %s", t.Tries+1, why))
		}
		report.Run, report.Stop, report.Phase = false, true, "waiting"
		report.Why = fmt.Sprintf("not done after %s, it is tried again: %s", (now - x.since).Round(time.Second), why)
		return true
	}
	return now > x.told+taskWord || why != x.why && now > x.told+taskNews
}

// guestsOf are the nodes where an open split of the group makes others of it: a
// learner stays there until the split has ended.
func guestsOf(cat *control.Catalog, g partition.GroupID) (nodes []partition.NodeID) {
	t, ok := openSplit(cat, g)
	if !ok {
		return nil
	}
	for i := range t.Children {
		for _, p := range t.Children[i].Nodes {
			nodes = append(nodes, p.ID)
		}
	}
	return nodes
}

// away says why a node cannot receive a replica now, or "".
func (r *taskRunner) away(id partition.NodeID) string {
	for _, m := range r.node.Members() {
		switch {
		case m.Node != id:
		case m.Status != "alive":
			return fmt.Sprintf("node %s is %s", id, m.Status)
		case m.Mode != "":
			return fmt.Sprintf("node %s is %s", id, m.Mode)
		default:
			return ""
		}
	}
	return fmt.Sprintf("there is no node %s", id)
}

// wantedByTask is what the group's open move asks the tender for.
func wantedByTask(cat *control.Catalog, g partition.GroupID, m *partition.Membership) placement.Request {
	t, ok := cat.TaskOf(g)
	if !ok || t.Kind != control.TaskMove || !t.Running || t.Cancel != "" {
		return placement.Request{}
	}
	x, ok := m.OnNode(t.From)
	if !ok || x.Kind != partition.Full {
		return placement.Request{}
	}
	return placement.Request{Kind: placement.ReplaceReplica, Node: t.To, Replica: x.Replica}
}
