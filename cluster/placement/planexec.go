package placement

import (
	"fmt"
	"iter"
	"time"

	"pando.dev/pando/partition"
)

// ExecutionConfig are the limits of an Execution. Zero fields have the defaults.
type ExecutionConfig struct {
	// Out and In (defaults 2 and 2) are how many copies a node sends and receives at
	// a time: more is sooner done and slows the node's own work.
	Out, In int
	// Transfers (default 8) is how many masterships a node hands over or receives at
	// a time.
	Transfers int
	// Moving (default 0.05) is the greatest part of all replicas that is copied at
	// a time, at least one.
	Moving float64
	// Nodes (default 0.5) is the greatest part of the nodes that copy at a time, at
	// least four of them.
	Nodes float64
	// Deadline (default 60 s) is how long an operator may take, not counting what it
	// copies, and Rate (default 8 MiB/s) how fast it copies at least: twice as long
	// as that takes is allowed.
	Deadline time.Duration
	Rate     int64
	// Retry (default 5 s) is the pause after a failure, doubled with each further
	// one of the same operator up to RetryMax (default 5 min); after Attempts
	// (default 8) it is given up.
	Retry, RetryMax time.Duration
	Attempts        int
	// Plan is what the plan was made with: operators are judged by it again before
	// they start.
	Plan PlanConfig
}

func (c ExecutionConfig) withDefaults() ExecutionConfig {
	num := func(x *int, v int) {
		if *x <= 0 {
			*x = v
		}
	}
	num(&c.Out, 2)
	num(&c.In, 2)
	num(&c.Transfers, 8)
	num(&c.Attempts, 8)
	if c.Moving <= 0 {
		c.Moving = 0.05
	}
	if c.Nodes <= 0 {
		c.Nodes = 0.5
	}
	dur := func(x *time.Duration, v time.Duration) {
		if *x <= 0 {
			*x = v
		}
	}
	dur(&c.Deadline, time.Minute)
	dur(&c.Retry, 5*time.Second)
	dur(&c.RetryMax, 5*time.Minute)
	if c.Rate <= 0 {
		c.Rate = 8 << 20
	}
	return c
}

// OperatorState is how far an operator is.
type OperatorState uint8

// The states of an operator. Waiting and Running may still become another.
const (
	Waiting OperatorState = iota
	Running
	Done
	GivenUp
)

// String returns the name used in answers.
func (s OperatorState) String() string {
	return [...]string{"waiting", "running", "done", "given up"}[s]
}

// ExecKind says what an ExecEvent is.
type ExecKind uint8

// The events of an Execution.
const (
	// ExecTick: time has passed.
	ExecTick ExecKind = iota + 1
	// ExecDone: the operator was done; Range and Membership are the group's versions then.
	ExecDone
	// ExecFailed: the operator was not done, nothing of it remains; Why is known.
	// It is tried again after a pause.
	ExecFailed
	// ExecCancel: nothing more is started. What is running ends by itself.
	ExecCancel
)

// ExecEvent is something that an Execution has to know. Now never goes back.
type ExecEvent struct {
	Kind       ExecKind
	Now        partition.Time
	Operator   int
	Range      partition.RangeVersion
	Membership partition.MembershipVersion
	Why        string
}

// ExecWork is what an Execution asks for: to start an operator, with the
// versions it now goes by, or, with Stop, to end one that took too long.
type ExecWork struct {
	Operator int
	Op       Operator
	Stop     bool
	Deadline partition.Time
}

// Execution says which operators of a plan may start, given what is running: a
// machine that waits for nothing and owns no clock. The layout is the caller's; the
// execution records in it what was done, and the caller what else happens.
//
//	waiting -> running -> done
//	   ^          |
//	   '- failed -+-> given up (also from waiting: versions, rules, nothing to gain)
//
// Operators of one group run one after the other, in the plan's order; groups
// do not wait for each other, except for room on a node.
type Execution struct {
	cfg    ExecutionConfig
	l      *Layout
	judge  *Judge
	now    partition.Time
	ops    []Operator
	state  []OperatorState
	why    []string // of those that wait or were given up
	before []int32  // the operator of the same group before it, or none

	attempts  []uint8
	notBefore []partition.Time // waiting: not tried before; running: its deadline

	// Waiting operators stand in a queue of the node that receives, copies and
	// transfers apart: a list through next.
	next   []int32
	sender []int32    // of those that run: the node whose traffic they count in, or none
	queues [2][]queue // of each node

	nodes       []traffic // of each node
	copying     int       // copies running
	busyNodes   int       // nodes with a copy
	counts      [GivenUp + 1]int
	running     []int32
	out         []ExecWork
	cancelled   bool
	maxCopying  int
	maxBusy     int
	lookForward int
}

type queue struct{ head, tail int32 }

// traffic is what a node has running.
type traffic struct{ in, out, handing, receiving int }

// NewExecution returns the execution of a plan that is made for the layout.
func NewExecution(l *Layout, p *Plan, cfg ExecutionConfig) *Execution {
	n := len(p.Operators)
	e := &Execution{
		cfg: cfg.withDefaults(), l: l, ops: make([]Operator, n), state: make([]OperatorState, n), why: make([]string, n),
		before: make([]int32, n), attempts: make([]uint8, n), notBefore: make([]partition.Time, n), next: make([]int32, n), sender: make([]int32, n),
		nodes: make([]traffic, len(l.nodes)), lookForward: 64,
	}
	copy(e.ops, p.Operators)
	e.cfg.Plan.InFlight = nil
	e.judge = NewJudge(l, e.cfg.Plan)
	replicas := int64(0)
	for i := range l.use {
		replicas += l.use[i][DimReplicas]
	}
	e.maxCopying = max(1, int(e.cfg.Moving*float64(replicas)))
	e.maxBusy = max(4, int(e.cfg.Nodes*float64(len(l.nodes))))
	for k := range e.queues {
		e.queues[k] = make([]queue, len(l.nodes))
		for i := range e.queues[k] {
			e.queues[k][i] = queue{none, none}
		}
	}
	last := make(map[partition.GroupID]int32, n)
	e.counts[Waiting] = n
	for i := range e.ops {
		before, ok := last[e.ops[i].Group]
		if !ok {
			before = none
		}
		e.before[i], last[e.ops[i].Group] = before, int32(i)
		if _, known := l.ordinal[e.ops[i].To]; known {
			e.push(int32(i))
		} else {
			e.giveUp(int32(i), "the node is gone")
		}
	}
	return e
}

func (e *Execution) queueOf(i int32) *queue {
	k := 0
	if e.ops[i].Kind == OpTransfer {
		k = 1
	}
	return &e.queues[k][e.l.ordinal[e.ops[i].To]]
}

func (e *Execution) push(i int32) {
	q := e.queueOf(i)
	e.next[i] = none
	if q.head == none {
		q.head = i
	} else {
		e.next[q.tail] = i
	}
	q.tail = i
}

func (e *Execution) set(i int32, s OperatorState, why string) {
	e.counts[e.state[i]]--
	e.counts[s]++
	e.state[i], e.why[i] = s, why
}

func (e *Execution) giveUp(i int32, why string) { e.set(i, GivenUp, why) }

// Step takes an event in. It refuses one that makes no sense.
func (e *Execution) Step(ev ExecEvent) error {
	e.now = max(e.now, ev.Now)
	switch ev.Kind {
	case ExecTick:
		e.judge.Refresh()
		e.nodes = append(e.nodes, make([]traffic, len(e.l.nodes)-len(e.nodes))...)
		e.expire()
		return nil
	case ExecCancel:
		e.cancel()
		return nil
	case ExecDone, ExecFailed:
		if ev.Operator < 0 || ev.Operator >= len(e.ops) || e.state[ev.Operator] != Running {
			return partition.Errorf(partition.CodeInvalid, "operator %d is not running", ev.Operator)
		}
		i := int32(ev.Operator)
		e.stopRunning(i)
		if ev.Kind == ExecDone {
			e.done(i, &ev)
		} else {
			e.failed(i, ev.Why)
		}
		return nil
	}
	return partition.Errorf(partition.CodeInvalid, "event %d", ev.Kind)
}

func (e *Execution) done(i int32, ev *ExecEvent) {
	op := &e.ops[i]
	e.set(i, Done, "")
	e.l.Apply(op, e.now)
	if g, ok := e.l.Find(op.Group); ok {
		e.l.SetVersions(g, ev.Range, ev.Membership)
	}
	op.Range, op.Membership = ev.Range, ev.Membership
	for _, id := range []partition.NodeID{op.From, op.To} {
		if n, ok := e.l.ordinal[id]; ok && int(n) < len(e.judge.nodes) {
			e.judge.s.rekey(n)
		}
	}
}

func (e *Execution) failed(i int32, why string) {
	if e.attempts[i]++; int(e.attempts[i]) >= e.cfg.Attempts {
		e.giveUp(i, fmt.Sprintf("failed %d times, at last: %s", e.attempts[i], why))
		return
	}
	pause := min(e.cfg.Retry<<(min(e.attempts[i], 30)-1), e.cfg.RetryMax)
	e.set(i, Waiting, fmt.Sprintf("failed %d times, at last: %s", e.attempts[i], why))
	e.notBefore[i] = e.now + pause
	e.push(i)
}

// expire ends what took too long.
func (e *Execution) expire() {
	for k := len(e.running) - 1; k >= 0; k-- {
		if i := e.running[k]; e.notBefore[i] <= e.now {
			e.stopRunning(i)
			e.giveUp(i, "it took too long")
			e.out = append(e.out, ExecWork{Operator: int(i), Op: e.ops[i], Stop: true})
		}
	}
}

func (e *Execution) cancel() {
	e.cancelled = true
	for i := range e.ops {
		if e.state[i] == Waiting {
			e.giveUp(int32(i), "the plan was cancelled")
		}
	}
}

// Ready yields what is to be done now; each is yielded once. It looks at a bounded number of operators of each node.
func (e *Execution) Ready() iter.Seq[ExecWork] {
	return func(yield func(ExecWork) bool) {
		for k := 0; k < len(e.queues) && !e.cancelled; k++ {
			for n := range e.queues[k] {
				if e.queues[k][n].head != none && e.takes(k, n) {
					e.startInto(k, n)
				}
			}
		}
		for len(e.out) > 0 {
			w := e.out[0]
			if e.out = e.out[1:]; !yield(w) {
				return
			}
		}
	}
}

// takes reports whether a node may receive one more.
func (e *Execution) takes(k, n int) bool {
	if k == 1 {
		return e.nodes[n].receiving < e.cfg.Transfers
	}
	return e.nodes[n].in < e.cfg.In && e.copying < e.maxCopying
}

// startInto starts what can be started of a node's queue.
func (e *Execution) startInto(k, n int) {
	q := &e.queues[k][n]
	prev := int32(none)
	looks := e.lookForward
	for i := q.head; i != none && looks > 0 && e.takes(k, n); looks-- {
		next := e.next[i]
		if e.state[i] == Waiting && !e.tryStart(i) {
			prev = i // it stays in the queue
		} else {
			e.unlink(q, prev, i)
		}
		i = next
	}
}

func (e *Execution) unlink(q *queue, prev, i int32) {
	if prev == none {
		q.head = e.next[i]
	} else {
		e.next[prev] = e.next[i]
	}
	if q.tail == i {
		q.tail = prev
	}
}

// tryStart starts an operator or gives it up; false: it waits.
func (e *Execution) tryStart(i int32) bool {
	op := &e.ops[i]
	if why := e.blocked(i, op); why != "" {
		if e.attempts[i] == 0 {
			e.why[i] = why
		}
		return false
	}
	if b := e.before[i]; b != none {
		op.Range, op.Membership = e.ops[b].Range, e.ops[b].Membership
	}
	if why := e.unfit(op); why != "" {
		e.giveUp(i, why)
		return true
	}
	e.start(i, op)
	return true
}

// blocked says what an operator waits for, or "".
func (e *Execution) blocked(i int32, op *Operator) string {
	if b := e.before[i]; b != none && e.state[b] < Done {
		return "an earlier step of its group is not done"
	}
	if e.notBefore[i] > e.now {
		return "it has failed and pauses"
	}
	from, ok := e.source(op)
	if op.Kind == OpTransfer {
		if ok && e.nodes[from].handing >= e.cfg.Transfers {
			return "the node hands over enough masterships"
		}
		return ""
	}
	if ok && e.nodes[from].out >= e.cfg.Out {
		return "the sender has enough copies to send"
	}
	fresh := 0
	if ok && e.nodes[from].in+e.nodes[from].out == 0 {
		fresh++
	}
	if t := e.nodes[e.l.ordinal[op.To]]; t.in+t.out == 0 {
		fresh++
	}
	if e.busyNodes+fresh > e.maxBusy {
		return "enough nodes are copying"
	}
	return ""
}

// source is the node that sends: the one that gives, or the master's if that
// one is lost or nobody gives.
func (e *Execution) source(op *Operator) (int32, bool) {
	if n, ok := e.l.ordinal[op.From]; ok && !e.l.nodes[n].Lost {
		return n, true
	}
	if g, ok := e.l.Find(op.Group); ok {
		if m := e.l.masterSlot(g); m != none && e.l.node[m] != none && int(e.l.node[m]) < len(e.nodes) {
			return e.l.node[m], true
		}
	}
	return none, false
}

func (e *Execution) unfit(op *Operator) string {
	g, ok := e.l.Find(op.Group)
	if !ok {
		return "the group is gone"
	}
	if e.l.rv[g] != op.Range || e.l.mv[g] != op.Membership {
		return "the group has changed since it was planned"
	}
	return e.judge.Judge(op)
}
