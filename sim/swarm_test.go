package sim

import (
	"flag"
	"reflect"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	"pando.dev/pando/internal/planted"
)

// How much of the swarm the tests run. For a long hunt use pando sim, or
// go test -run TestSwarm ./sim -sim.seeds=100000
var (
	simSeeds = flag.Uint64("sim.seeds", 400, "seeds of the swarm that the tests run")
	simFrom  = flag.Uint64("sim.from", 1, "the first of them")
)

// TestSwarm runs a share of the seeds of pando sim. A seed that fails is run
// again with pando sim --seed.
func TestSwarm(t *testing.T) {
	if testing.Short() {
		t.Skip("the swarm is for the long mode")
	}
	defer debug.SetGCPercent(debug.SetGCPercent(GCPercent))
	s := Swarm{From: *simFrom, Seeds: *simSeeds, KeepGoing: true, MaxFailures: 5}
	sum := s.Run(t.Context())
	for _, f := range sum.Failures {
		t.Errorf("pando sim --seed %d (%s): %s", f.Plan.Seed, f.Plan.Shape, f.Result.Violation)
	}
	if sum.Violations > 5 {
		t.Errorf("%d violations in all", sum.Violations)
	}
	for _, g := range sum.Missed(Goals()) {
		t.Errorf("%d seeds never reached %s", sum.Seeds, g.Mark)
	}
	if sum.Counts.Acked < 100*sum.Seeds || sum.Counts.Elections < sum.Seeds || sum.Counts.Injected() < 10*sum.Seeds {
		t.Errorf("little happens: %+v", sum.Counts)
	}
	t.Logf("%d seeds, %v simulated, %v CPU, %d events, %d faults, %d acknowledged", sum.Seeds, sum.Simulated, sum.CPU, sum.Events, sum.Counts.Injected(), sum.Counts.Acked)
}

// TestDeterminism (G9): one seed in a hundred gives the same run whatever the
// number of processors and however often memory is collected.
func TestDeterminism(t *testing.T) {
	if testing.Short() {
		t.Skip("the swarm is for the long mode")
	}
	shapes := DefaultShapes()
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	n := max(uint64(len(shapes)), *simSeeds/100)
	for i := range n {
		seed := *simFrom + i*100
		shape := shapes[int(i)%len(shapes)] // each at least once
		var first *Result
		for _, c := range []struct{ procs, gc int }{{2, 400}, {1, 10}} {
			runtime.GOMAXPROCS(c.procs)
			debug.SetGCPercent(c.gc)
			r := Play(Draw(seed, shape))
			switch {
			case first == nil:
				first = r
			case r.TraceHash != first.TraceHash || !reflect.DeepEqual(r, first):
				t.Errorf("seed %d of shape %s with %d processors and GOGC %d: hash %016x after %d events, before %016x after %d", seed, shape.Name, c.procs, c.gc, r.TraceHash, r.Events, first.TraceHash, first.Events)
			}
		}
		if first.TraceHash == 0 || first.Events == 0 {
			t.Errorf("seed %d: the hash covers nothing", seed)
		}
	}
}

// TestTraceChangesNothing: a run that is watched is the same run.
func TestTraceChangesNothing(t *testing.T) {
	t.Parallel()
	p := Draw(5, DefaultShapes()[1])
	p.Knobs.Length = min(p.Knobs.Length, 5*time.Second)
	var lines counter
	a, b := Play(p), PlayWith(p, Options{Trace: &lines})
	if !reflect.DeepEqual(a, b) || lines < 1000 {
		t.Errorf("hash %016x and, with a trace of %d bytes, %016x", a.TraceHash, lines, b.TraceHash)
	}
}

// counter counts bytes.
type counter int

func (c *counter) Write(b []byte) (int, error) { *c += counter(len(b)); return len(b), nil }

// TestExplicitPoints: the faults that followed points by chance, as a list, give
// the same faults again.
func TestExplicitPoints(t *testing.T) {
	t.Parallel()
	shape, _ := ShapeNamed("crashes")
	for seed := range uint64(5) {
		p := Draw(seed, shape)
		p.Knobs.Length = min(p.Knobs.Length, 10*time.Second)
		a := Play(p)
		if len(a.Fired) == 0 {
			continue
		}
		p.Points, p.Knobs.PointRate = a.Fired, 0
		b := Play(p)
		if a.TraceHash != b.TraceHash || !slices.Equal(a.Fired, b.Fired) {
			t.Errorf("seed %d: hash %016x with %d faults at points, %016x with %d when they are listed", seed, a.TraceHash, len(a.Fired), b.TraceHash, len(b.Fired))
		}
		return
	}
	t.Error("no fault followed a point")
}

// minimizeRuns is how many plans TestMinimizePlanted may try.
const minimizeRuns = 3000

// TestMinimizePlanted (G10): a planted bug is found, and shrunk to at most ten faults
// within so many runs as 30 s of one processor suffice for, however busy the machine
// is now.
func TestMinimizePlanted(t *testing.T) {
	if testing.Short() {
		t.Skip("the swarm is for the long mode")
	}
	s := Swarm{From: 1, Seeds: 2000, Planted: planted.Of(planted.NoLeaseWait)}
	sum := s.Run(t.Context())
	if sum.Violations == 0 {
		t.Fatalf("not found in %d seeds", sum.Seeds)
	}
	p := sum.Failures[0].Plan
	m, err := Minimizer{Limit: 10 * time.Minute, Most: minimizeRuns, Workers: 2}.Minimize(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	n := len(m.Plan.Faults) + len(m.Plan.Points)
	ops := m.Result.Counts.Acked + m.Result.Counts.Unknown + m.Result.Counts.Refused
	t.Logf("seed %d: %d faults; after %d runs and %v %d faults and %d operations:\n%s%s", p.Seed, len(p.Faults)+len(sum.Failures[0].Result.Fired), m.Runs, m.Took, n, ops, m.Plan, m.Result.Violation)
	if n > 10 {
		t.Errorf("%d faults are left", n)
	}
}
