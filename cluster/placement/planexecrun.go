package placement

import (
	"fmt"
	"slices"

	"pando.dev/pando/partition"
)

func (e *Execution) start(i int32, op *Operator) {
	e.set(i, Running, "")
	allowed := e.cfg.Deadline
	if op.Kind.copies() {
		allowed += partition.Time(2 * float64(op.Bytes) / float64(e.cfg.Rate) * 1e9)
	}
	e.notBefore[i] = e.now + allowed
	e.running = append(e.running, i)
	e.count(i, 1)
	e.out = append(e.out, ExecWork{Operator: int(i), Op: *op, Deadline: e.notBefore[i]})
}

func (e *Execution) stopRunning(i int32) {
	k := slices.Index(e.running, i)
	e.running = slices.Delete(e.running, k, k+1)
	e.count(i, -1)
	e.notBefore[i] = 0
}

// count adds a running operator to its nodes' traffic, or takes it away. The
// sender is remembered, because another may be master by then.
func (e *Execution) count(i int32, by int) {
	op := &e.ops[i]
	to := e.l.ordinal[op.To]
	from := int32(none)
	if by > 0 {
		if n, ok := e.source(op); ok {
			from = n
		}
		e.sender[i] = from
	} else {
		from = e.sender[i]
	}
	if op.Kind == OpTransfer {
		e.nodes[to].receiving += by
		if from != none {
			e.nodes[from].handing += by
		}
		return
	}
	e.copying += by
	e.traffic(to, by, 0)
	if from != none {
		e.traffic(from, 0, by)
	}
}

func (e *Execution) traffic(n int32, in, out int) {
	t := &e.nodes[n]
	was := t.in+t.out > 0
	t.in, t.out = t.in+in, t.out+out
	if is := t.in+t.out > 0; is && !was {
		e.busyNodes++
	} else if was && !is {
		e.busyNodes--
	}
}

// Operators returns how many operators there are.
func (e *Execution) Operators() int { return len(e.ops) }

// Operator returns an operator, with the versions it goes or went by.
func (e *Execution) Operator(i int) Operator { return e.ops[i] }

// State returns how far an operator is, and what it waits for or why it was
// given up.
func (e *Execution) State(i int) (OperatorState, string) { return e.state[i], e.why[i] }

// InFlight returns the running operators, for PlanConfig.InFlight.
func (e *Execution) InFlight() []Operator {
	var ops []Operator
	for _, i := range e.running {
		ops = append(ops, e.ops[i])
	}
	return ops
}

// Finished reports whether every operator is done or given up.
func (e *Execution) Finished() bool { return e.counts[Waiting]+e.counts[Running] == 0 }

// Counts returns how many operators are in each state.
func (e *Execution) Counts() (waiting, running, done, givenUp int) {
	return e.counts[Waiting], e.counts[Running], e.counts[Done], e.counts[GivenUp]
}

// Next is the earliest deadline or end of a pause, for a timer; 0: none.
func (e *Execution) Next() partition.Time {
	at := partition.Time(0)
	for i := range e.ops {
		if t := e.notBefore[i]; t > e.now && e.state[i] < Done && (at == 0 || t < at) {
			at = t
		}
	}
	return at
}

// Status says in a line how far the plan is.
func (e *Execution) Status() string {
	s := fmt.Sprintf("%d of %d done, %d running, %d waiting", e.counts[Done], len(e.ops), e.counts[Running], e.counts[Waiting])
	if n := e.counts[GivenUp]; n > 0 {
		s += fmt.Sprintf(", %d given up", n)
	}
	if e.cancelled {
		s += ", cancelled"
	}
	return s
}
