package sim

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"pando.dev/pando/partition"
)

// violates is a play that objects to some seeds.
func violates(seeds ...uint64) func(*Plan) *Result {
	return func(p *Plan) *Result {
		r := &Result{Simulated: time.Second, Events: p.Seed, Marks: Marks{"a": 1}, Counts: Counts{Acked: 2}}
		if slices.Contains(seeds, p.Seed) {
			r.Violation = &Violation{What: "test", Why: fmt.Sprint(p.Seed)}
		}
		return r
	}
}

// TestSwarmCountsInOrder: however many workers, the sums and what is reported are
// those of the seeds in order.
func TestSwarmCountsInOrder(t *testing.T) {
	t.Parallel()
	for _, workers := range []int{1, 2, 7} {
		s := Swarm{From: 10, Seeds: 50, Workers: workers, play: violates(31, 23, 58)}
		sum := s.Run(t.Context())
		if sum.Violations != 1 || sum.Seeds != 14 || sum.Failures[0].Plan.Seed != 23 || sum.Simulated != 14*time.Second || sum.Marks["a"] != 14 || sum.Counts.Acked != 28 {
			t.Errorf("%d workers: %d seeds, %d violations, %v, %v", workers, sum.Seeds, sum.Violations, sum.Simulated, sum.Marks)
		}
		s.KeepGoing, s.MaxFailures = true, 2
		sum = s.Run(t.Context())
		if sum.Violations != 3 || sum.Seeds != 50 || len(sum.Failures) != 2 || sum.Failures[1].Plan.Seed != 31 || sum.Stopped {
			t.Errorf("%d workers, going on: %d seeds, %d violations", workers, sum.Seeds, sum.Violations)
		}
	}
}

// TestSwarmEndsWithContext: without an end of its own a swarm runs until it is
// stopped, and says so.
func TestSwarmEndsWithContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	s := Swarm{Workers: 2, Every: time.Millisecond, play: violates(), Progress: func(sum *Summary) {
		if sum.Seeds > 3 {
			cancel()
		}
	}}
	if sum := s.Run(ctx); !sum.Stopped || sum.Seeds <= 3 {
		t.Errorf("stopped %t after %d seeds", sum.Stopped, sum.Seeds)
	}
}

// TestStoppedRun: a run that is stopped says so, whatever it is in the middle of,
// and counts for nothing; those that ended before it was do.
func TestStoppedRun(t *testing.T) {
	t.Parallel()
	stop := make(chan struct{})
	close(stop)
	p := Draw(1, Pick(1, DefaultShapes()))
	if r := PlayWith(p, Options{Stop: stop}); !r.Stopped || r.Violation != nil || r.Simulated > p.Knobs.Length {
		t.Errorf("stopped %t after %s of %s, %v", r.Stopped, r.Simulated, p.Knobs.Length, r.Violation)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s := Swarm{From: 1, Seeds: 3, Workers: 2, KeepGoing: true, play: func(p *Plan) *Result {
		if p.Seed > 1 {
			cancel()
			return violates(3)(p)
		}
		<-ctx.Done()
		return &Result{Stopped: true}
	}}
	if sum := s.Run(ctx); sum.Seeds == 0 || sum.Seeds > 2 || !sum.Stopped {
		t.Errorf("%d seeds count, stopped %t", sum.Seeds, sum.Stopped)
	}
}

func TestMissedGoals(t *testing.T) {
	t.Parallel()
	sum := &Summary{Seeds: 10, Marks: Marks{"a": 1}}
	got := sum.Missed([]Goal{{"a", 5}, {"b", 10}, {"c", 11}})
	if want := []Goal{{"b", 10}}; !reflect.DeepEqual(got, want) {
		t.Errorf("missed %v, want %v", got, want)
	}
}

// TestSenselessPlan: a plan that is not valid is not run.
func TestSenselessPlan(t *testing.T) {
	t.Parallel()
	p := &Plan{Knobs: Calm()}
	p.Knobs.Nodes = -1 // no such world
	if r := Play(p); r.Violation == nil || r.Violation.What != "plan" {
		t.Errorf("a world of -1 nodes runs: %v", r.Violation)
	}
}

// TestCountsAdd: no counter is forgotten in the sums.
func TestCountsAdd(t *testing.T) {
	t.Parallel()
	var one, sum Counts
	v := reflect.ValueOf(&one).Elem()
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.Uint64 {
			f.SetUint(1)
		} else {
			for j := range f.Len() {
				f.Index(j).SetUint(1)
			}
		}
	}
	sum.Add(&one)
	if sum != one {
		t.Errorf("the sum of one is %+v", sum)
	}
}

// touchy is a play that objects when all of some faults are there, the world is
// large enough, and it lasts long enough.
func touchy(need func(*Plan) bool, at partition.Time) func(*Plan) *Result {
	return func(p *Plan) *Result {
		if !need(p) || p.Knobs.Length < at {
			return &Result{}
		}
		r := &Result{Violation: &Violation{What: "test", At: at}}
		if p.Knobs.PointRate > 0 {
			for i := range uint64(30) {
				r.Fired = append(r.Fired, PointFault{Point: "replica.promised", Node: int(i % 3), Occurrence: i + 1, Class: 1})
			}
		}
		return r
	}
}

// TestMinimize: of a plan with many faults only those remain that matter, and the
// knobs become calm.
func TestMinimize(t *testing.T) {
	t.Parallel()
	p := Draw(3, DefaultShapes()[0])
	p.Knobs.Nodes, p.Knobs.Replicas, p.Knobs.Groups, p.Knobs.PointRate = 5, 3, 3, 0.1
	k := len(p.Faults)
	if k < 40 {
		t.Fatalf("%d faults are too few", k)
	}
	a, b := p.Faults[k/10], p.Faults[k/5]
	need := func(p *Plan) bool {
		point := p.Knobs.PointRate > 0 || slices.ContainsFunc(p.Points, func(f PointFault) bool { return f.Occurrence == 17 })
		return slices.Contains(p.Faults, a) && slices.Contains(p.Faults, b) && point && p.Knobs.Nodes >= 3 && p.Knobs.MaxAppendBytes <= 150
	}
	p.Knobs.MaxAppendBytes = 150
	at := b.At + 5*time.Millisecond
	p.Knobs.Length = at + 30*time.Second
	var first *Minimized
	for _, workers := range []int{1, 3} {
		m, err := Minimizer{Workers: workers, play: touchy(need, at)}.Minimize(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		n := m.Plan
		if len(n.Faults) != 2 || len(n.Points) != 1 || n.Knobs.Groups != 1 && aims(n) || n.Knobs.Nodes > 3+highest(n) || n.Knobs.MaxAppendBytes != 150 || n.Knobs.Length > at+10*time.Millisecond || !m.Complete {
			t.Errorf("%d workers: after %d runs\n%s", workers, m.Runs, n)
		}
		if first == nil {
			first = m
		} else if first.Plan.String() != n.String() {
			t.Errorf("another plan with %d workers:\n%s\n%s", workers, first.Plan, n)
		}
	}
	if _, err := (Minimizer{play: violates()}).Minimize(t.Context(), p); err == nil {
		t.Error("a plan that passes is shrunk")
	}
}

// TestMinimizeKeepsChecker: what another checker objects to is no smaller plan.
func TestMinimizeKeepsChecker(t *testing.T) {
	t.Parallel()
	p := Draw(3, DefaultShapes()[0])
	p.Faults = p.Faults[:30]
	n := len(p.Faults)
	m, err := Minimizer{play: func(p *Plan) *Result {
		if len(p.Faults) < n {
			return &Result{Violation: &Violation{What: "another"}}
		}
		return &Result{Violation: &Violation{What: "first", At: p.Knobs.Length}}
	}}.Minimize(t.Context(), p)
	if err != nil || len(m.Plan.Faults) != n || m.Result.Violation.What != "first" {
		t.Errorf("%v: %d of %d faults are left", err, len(m.Plan.Faults), n)
	}
}

// aims reports whether a fault of the plan aims at another group than the first.
func aims(p *Plan) bool {
	return slices.ContainsFunc(p.Faults, func(f Fault) bool {
		_, g, ok := f.Node.Role()
		_, h, also := f.Other.Role()
		return ok && g > 0 || also && h > 0
	})
}

// highest is the highest ordinal that a fault of the plan names.
func highest(p *Plan) int {
	n := 0
	for _, f := range p.Faults {
		n = max(n, int(f.Node), int(f.Other))
	}
	return n
}
