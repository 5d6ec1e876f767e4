package balance

import (
	"fmt"
	"time"

	"pando.dev/pando/cluster/placement"
)

// Result is what a run came to.
type Result struct {
	// Samples are the windows in turn.
	Samples []Sample
	// Operators done, by kind and by mode.
	Kinds [placement.OpAdd + 1]int
	Modes [placement.Modes]int
	moves [placement.Modes]int // those that copy
	// Copied are the bytes sent, broken copies included; Planned those of all plans.
	Copied, Planned int64
	Plans           []Planned
	// Settled is when the last operator was done; 0: nothing was.
	Settled time.Duration
	// Variation is how much nodes' masters and replicas went to and fro: what rises
	// and falls again, twice the lesser of the two, over the mean of a node.
	Masters, Replicas float64
	// MostMoves is how often a group was moved when leveling, at most.
	MostMoves int
	// Violations are rules that were broken; there are none.
	Violations []string

	variation []swing // of each node
}

// Sample is the cluster in a window.
type Sample struct {
	At      time.Duration
	Balance placement.Balance
	Running int
	Done    int // operators, up to now
}

// Planned is a plan and what became of it.
type Planned struct {
	At, Took      time.Duration // Took: until it was executed; 0: it was not
	Operators     int
	Bytes, Copied int64 // planned, and sent for it
	Least         int64
	Worst, Became float64 // greatest imbalance predicted, and found then
	GivenUp       int
	Cut           bool // cancelled for something urgent
}

// swing is how far a node's counts went up and down.
type swing struct {
	last, up, down [2]int64
	seen           bool
}

func (r *Result) violate(format string, args ...any) {
	if len(r.Violations) < 10 {
		r.Violations = append(r.Violations, fmt.Sprintf(format, args...))
	}
}

// sample looks at the nodes once a window.
func (r *Result) sample(w *world) {
	s := Sample{At: w.now, Balance: w.layout.Balance(placement.PlanConfig{})}
	for _, n := range r.Kinds {
		s.Done += n
	}
	if w.control.exec != nil {
		_, s.Running, _, _ = w.control.exec.Counts()
	}
	r.Samples = append(r.Samples, s)
	for i := range w.layout.Nodes() {
		if i >= len(r.variation) {
			r.variation = append(r.variation, swing{})
		}
		use, x := w.layout.NodeUse(i), &r.variation[i]
		for k, v := range [2]int64{use[placement.DimMasters], use[placement.DimReplicas]} {
			if d := v - x.last[k]; x.seen && d > 0 {
				x.up[k] += d
			} else if x.seen {
				x.down[k] -= d
			}
			x.last[k] = v
		}
		x.seen = true
	}
}

func (r *Result) planned(w *world, p *placement.Plan) {
	x := Planned{At: w.now, Operators: len(p.Operators), Bytes: p.Bytes(), Copied: -r.Copied, Worst: p.After.Worst()}
	for m := range placement.Modes {
		x.Least += p.Least[m]
	}
	r.Planned += x.Bytes
	r.Plans = append(r.Plans, x)
}

// executed notes what became of the last plan.
func (r *Result) executed(w *world, c *control) {
	x := &r.Plans[len(r.Plans)-1]
	b := w.layout.Balance(placement.PlanConfig{Active: &c.plan.After.Active})
	x.Took, x.Became = w.now-x.At, b.Worst()
	x.Copied += r.Copied
	_, _, _, x.GivenUp = c.exec.Counts()
	x.Cut = c.cut
}

// started checks the rules once more, from the group itself.
func (r *Result) started(w *world, op *placement.Operator) {
	g, _ := w.layout.Find(op.Group)
	p := w.layout.Group(g)
	to := w.layout.Node(op.To)
	if to.Leaving || to.Closed || to.Lost {
		r.violate("%v %s: the receiver is marked", w.now, op)
	}
	if from := w.layout.Node(op.From); from != nil && from.New && !from.Leaving && !from.Lost && op.Mode != placement.Emergency {
		r.violate("%v %s: a new node gives", w.now, op)
	}
	if op.Mode == placement.Filling && !to.New {
		r.violate("%v %s: an old node is filled", w.now, op)
	}
	if op.Kind == placement.OpTransfer {
		return
	}
	before, after := map[string]bool{}, map[string]bool{to.Zone: true}
	for _, m := range p.Members {
		n := w.layout.Node(m.Node)
		if m.Node == op.To {
			r.violate("%v %s: a second replica on a node", w.now, op)
		}
		if n.Lost {
			continue
		}
		before[n.Zone] = true
		if m.Node != op.From {
			after[n.Zone] = true
		}
	}
	if len(after) < min(len(before), w.cfg.Replicas, w.cfg.Zones) {
		r.violate("%v %s: %d zones instead of %d", w.now, op, len(after), len(before))
	}
}

func (r *Result) done(w *world, op *placement.Operator) {
	r.Kinds[op.Kind]++
	r.Modes[op.Mode]++
	if op.Kind != placement.OpTransfer {
		r.moves[op.Mode]++
	}
	r.Settled = w.now
	if g, _ := w.layout.Find(op.Group); op.Mode == placement.Leveling && op.Kind != placement.OpTransfer && w.moves[g] < 255 {
		w.moves[g]++
		r.MostMoves = max(r.MostMoves, int(w.moves[g]))
	}
}

func (r *Result) finish(w *world) {
	var back, all [2]int64
	for i := range r.variation {
		x := &r.variation[i]
		for k := range back {
			back[k] += 2 * min(x.up[k], x.down[k])
			all[k] += x.last[k]
		}
	}
	r.Masters = float64(back[0]) / float64(max(1, all[0]))
	r.Replicas = float64(back[1]) / float64(max(1, all[1]))
	for g := range w.layout.Groups() {
		p := w.layout.Group(g)
		if len(p.Members) < p.Replicas {
			r.violate("%s has %d replicas of %d in the end", p.Group, len(p.Members), p.Replicas)
		}
	}
}

// moved is how many replicas were copied in a mode.
func (r *Result) moved(m placement.Mode) int { return r.moves[m] }

// Last is the sample at the end.
func (r *Result) Last() Sample { return r.Samples[len(r.Samples)-1] }

// Reached is when every window from then on was at most so uneven, in the
// dimensions that count; false: never.
func (r *Result) Reached(worst float64) (time.Duration, bool) {
	at, ok := time.Duration(0), false
	for _, s := range r.Samples {
		if s.Balance.Worst() > worst {
			ok = false
		} else if !ok {
			at, ok = s.At, true
		}
	}
	return at, ok
}

// String writes what a reader wants to know first.
func (r *Result) String() string {
	last := r.Last()
	s := fmt.Sprintf("%d moves, %d swaps, %d adds, %d transfers in %d plans; %d MiB sent, %d MiB planned; last at %v\n",
		r.Kinds[placement.OpMove], r.Kinds[placement.OpSwap], r.Kinds[placement.OpAdd], r.Kinds[placement.OpTransfer], len(r.Plans), r.Copied>>20, r.Planned>>20, r.Settled)
	s += fmt.Sprintf("to and fro: masters %.1f %%, replicas %.1f %%; most moves of a group %d\n", 100*r.Masters, 100*r.Replicas, r.MostMoves)
	s += fmt.Sprintf("in the end: %s\n", last.Balance)
	for _, p := range r.Plans {
		if p.Operators > 0 {
			s += fmt.Sprintf("  at %v for %v: %d operators (%d given up), %d MiB planned, %d least, %d sent, %.3f predicted, %.3f then\n",
				p.At, p.Took, p.Operators, p.GivenUp, p.Bytes>>20, p.Least>>20, p.Copied>>20, p.Worst, p.Became)
		}
	}
	return s
}
