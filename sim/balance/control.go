package balance

import (
	"container/heap"
	"slices"
	"time"

	"pando.dev/pando/cluster/placement"
)

// control is what decides when to plan, as the control group's leader does: one
// plan at a time. A plan is not clung to: when something happens, or when leveling
// is due and the present plan is a while old, it is cancelled, what is running
// ends, and the next plan is made of what is then. What it had not begun cost
// nothing.
type control struct {
	watch  *placement.Watch
	plan   *placement.Plan
	exec   *placement.Execution
	urgent bool // something has happened since the plan was made
	cut    bool // the present plan was cancelled
	since  time.Duration
}

// replanAfter is how old a plan must be for leveling to end it.
const replanAfter = 2 * time.Minute

// window is a look at the cluster once a window.
func (w *world) window() {
	c := &w.control
	hot, active := c.watch.Window(w.layout)
	if c.exec != nil {
		if c.urgent || len(hot) > 0 && w.now-c.since >= replanAfter {
			w.step(placement.ExecEvent{Kind: placement.ExecCancel, Now: w.now})
			c.urgent, c.cut = false, true
		}
		return
	}
	if len(hot) == 0 && !w.owed() {
		c.urgent = false
		return
	}
	c.urgent = false
	cfg := w.cfg.Plan
	cfg.Hot, cfg.Active, cfg.Now = hot, active, w.now
	p := placement.MakePlan(w.layout, cfg)
	w.res.planned(w, p)
	w.settleNew(p)
	if len(p.Operators) > 0 {
		e := w.cfg.Exec
		e.Plan = cfg
		c.since = w.now
		c.plan, c.exec, c.cut = p, placement.NewExecution(w.layout, p, e), false
	}
}

// owed reports whether something is to be done that is not leveling.
func (w *world) owed() bool {
	for i, n := range w.layout.Nodes() {
		use := w.layout.NodeUse(i)
		if n.New || (n.Leaving || n.Lost) && use[placement.DimReplicas] > 0 {
			return true
		}
	}
	return false
}

// settleNew ends the newness of nodes for which a plan has nothing left to do.
func (w *world) settleNew(p *placement.Plan) {
	for _, n := range w.layout.Nodes() {
		fills := func(o placement.Operator) bool { return o.To == n.ID && o.Mode == placement.Filling }
		if n.New && !slices.ContainsFunc(p.Operators, fills) {
			w.layout.Node(n.ID).New = false
		}
	}
}

// execute goes on with the plan for a second, in steps of a quantum in which
// something ends.
func (w *world) execute() {
	c := &w.control
	if c.exec == nil {
		return
	}
	second := w.now
	w.step(placement.ExecEvent{Kind: placement.ExecTick, Now: w.now})
	w.start()
	for len(w.ends) > 0 && w.ends[0].at < second+time.Second {
		w.now = w.ends[0].at
		for len(w.ends) > 0 && w.ends[0].at == w.now {
			w.end(heap.Pop(&w.ends).(end))
		}
		w.start()
	}
	w.now = second
	if c.exec.Finished() && len(w.ends) == 0 {
		w.res.executed(w, c)
		c.plan, c.exec = nil, nil
	}
}

// start begins what may begin.
func (w *world) start() {
	for work := range w.control.exec.Ready() {
		if work.Stop {
			w.ends = slices.DeleteFunc(w.ends, func(x end) bool { return x.operator == work.Operator })
			heap.Init(&w.ends)
			continue
		}
		w.res.started(w, &work.Op)
		w.begins(&work)
	}
}

// end brings the outcome of an operator to the execution.
func (w *world) end(x end) {
	op := w.control.exec.Operator(x.operator)
	ev := placement.ExecEvent{Kind: placement.ExecDone, Now: w.now, Operator: x.operator, Range: op.Range, Membership: op.Membership}
	to, from := w.layout.Node(op.To), w.layout.Node(op.From)
	switch {
	case x.fails:
		ev.Kind, ev.Why = placement.ExecFailed, "the copy broke off"
	case to.Closed || from != nil && from.Closed && op.Kind == placement.OpTransfer:
		ev.Kind, ev.Why = placement.ExecFailed, "the node is gone"
	case op.Kind != placement.OpTransfer:
		ev.Membership += 2 // in as a learner, then the joint step
	}
	w.step(ev)
	if ev.Kind == placement.ExecDone {
		w.res.done(w, &op)
	}
}

func (w *world) step(ev placement.ExecEvent) {
	if err := w.control.exec.Step(ev); err != nil {
		w.res.violate("%v", err)
	}
}
