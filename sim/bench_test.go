package sim

import (
	"runtime/debug"
	"syscall"
	"testing"
	"time"

	"pando.dev/pando/partition"
)

// spent is the processor time of this process so far: other things may run on the
// machine, and the wall clock says nothing about us then.
func spent() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// bench is what pando sim would need for these plans.
func bench(b *testing.B, plan func(seed uint64) *Plan) {
	defer debug.SetGCPercent(debug.SetGCPercent(GCPercent))
	var sim partition.Time
	var events, steps uint64
	start := spent()
	for i := range b.N {
		r := plan(uint64(i)).Run(Options{})
		if r.Violation != nil {
			b.Fatalf("seed %d: %v", i, r.Violation)
		}
		sim += r.Simulated
		events += r.Events
		steps += r.Steps
	}
	cpu := (spent() - start).Seconds()
	b.ReportMetric(sim.Seconds()/cpu, "sim-s/cpu-s")
	b.ReportMetric(float64(events)/cpu/1e6, "Mevents/cpu-s")
	b.ReportMetric(float64(steps)/cpu/1e6, "Msteps/cpu-s")
	b.ReportMetric(float64(events)/sim.Seconds(), "events/sim-s")
}

// BenchmarkCalm is a cluster with nothing wrong in it.
func BenchmarkCalm(b *testing.B) {
	bench(b, func(seed uint64) *Plan { return &Plan{Seed: seed, Knobs: Calm()} })
}

// BenchmarkSwarm is what G1 and G3 ask for: three replicas on three to five nodes,
// 50 operations a second of which 40 % are reads, and all faults.
func BenchmarkSwarm(b *testing.B) {
	bench(b, func(seed uint64) *Plan {
		p := Draw(seed, Shape{Name: "general", tune: func(d *drawer) {
			d.k.Nodes, d.k.Replicas, d.k.Groups = 3+int(seed%3), 3, 1
			d.k.Ops, d.k.ReadShare, d.k.Clients = 50, 0.4, 8
			d.k.RealLog, d.k.Length = false, 60*time.Second
		}})
		return p
	})
}

// BenchmarkMix is what pando sim runs (G4): the shapes by their weights.
func BenchmarkMix(b *testing.B) {
	shapes := DefaultShapes()
	bench(b, func(seed uint64) *Plan { return Draw(seed, Pick(seed, shapes)) })
}

// BenchmarkSplits is what G2 asks for: 64 groups on five nodes in the end, half of
// which were split from others, and all faults.
func BenchmarkSplits(b *testing.B) {
	shape, _ := ShapeNamed("splits")
	bench(b, func(seed uint64) *Plan {
		p := Draw(seed, shape)
		k := &p.Knobs
		k.Nodes, k.Replicas, k.Groups, k.Splits, k.Ops = 5, 3, 32, 32, 200
		return p
	})
}
