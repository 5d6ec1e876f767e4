package sim

import (
	"fmt"
	"os"
	"testing"
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/sim/fault"
)

// rough is a plan with a bit of everything that a core must stand.
func rough(seed uint64) *Plan {
	p := &Plan{Seed: seed, Shape: "test", Knobs: Calm()}
	rnd := chances(mix(seed + 77))
	h := func(i uint64) uint64 { return rnd.of(onPlace, i) }
	k := &p.Knobs
	k.Nodes = 3 + pick(h(1), 3)
	k.Groups = 1 + pick(h(2), 3)
	k.Stream = h(3)%2 == 0
	k.Sessions = 0.5
	k.Drift, k.Offset = 0.005, time.Hour
	k.SyncMax, k.DelayMax = 5*time.Millisecond, 8*time.Millisecond
	k.Flush, k.ApplyMax = 0.1, partition.Time(h(6)%2)*3*time.Millisecond
	if h(4)%2 == 0 {
		k.Loss, k.Repeat, k.Replay = 0.05, 0.05, 0.02
	}
	if h(5)%2 == 0 {
		k.PointRate = 0.05
	}
	k.MaxAppendBytes = []int{1, 200, 1 << 20}[pick(h(7), 3)]
	k.TailBytes = []int{1, 300, 1 << 20}[pick(h(8), 3)]
	k.RealLog = h(9)%4 == 0
	at := partition.Time(0)
	for i := uint64(100); at < k.Length; i += 10 {
		at += between(h(i), 0, 800*time.Millisecond)
		c := fault.Class(1 + pick(h(i+1), int(fault.Classes)-1))
		f := Fault{At: at, For: between(h(i+2), 0, 900*time.Millisecond), Class: c, Node: fault.Target(pick(h(i+3), k.Nodes)), Other: fault.None, Arg: h(i+4) % 1000}
		if h(i+5)%2 == 0 {
			f.Other = fault.Target(pick(h(i+6), k.Nodes))
		}
		if h(i+7)%3 == 0 {
			f.Node = fault.Aim(fault.Role(1+pick(h(i+8), 7)), pick(h(i+9), k.Groups))
		}
		p.Faults = append(p.Faults, f)
	}
	return p
}

func TestRough(t *testing.T) {
	first, count := uint64(1), uint64(30)
	if s := os.Getenv("SIM_SEEDS"); s != "" {
		fmt.Sscan(s, &first, &count)
	}
	var total Counts
	marks := Marks{}
	start := time.Now()
	var sim partition.Time
	var events, steps uint64
	bad := 0
	for seed := first; seed < first+count; seed++ {
		p := rough(seed)
		if os.Getenv("SIM_SHAPES") != "" {
			all := DefaultShapes()
			p = Draw(seed, Pick(seed, all))
		}
		r := p.Run(Options{})
		if r.Violation != nil {
			bad++
			t.Errorf("seed %d (%s): %v", seed, p.Shape, r.Violation)
			if bad > 10 {
				break
			}
		}
		total.Add(&r.Counts)
		marks.Add(r.Marks)
		sim += r.Simulated
		events += r.Events
		steps += r.Steps
	}
	t.Logf("%v simulated in %v: %.0f x, %.2f M events/s, %d steps; %+v", sim, time.Since(start), sim.Seconds()/time.Since(start).Seconds(), float64(events)/time.Since(start).Seconds()/1e6, steps, total)
	t.Logf("%v", marks)
}

func TestOne(t *testing.T) {
	var seed uint64
	if fmt.Sscan(os.Getenv("SIM_SEED"), &seed); seed == 0 {
		t.Skip("SIM_SEED names a seed whose trace is printed")
	}
	p := rough(seed)
	if os.Getenv("SIM_SHAPES") != "" {
		p = Draw(seed, Pick(seed, DefaultShapes()))
	}
	r := p.Run(Options{Trace: os.Stdout})
	fmt.Println(r.Violation)
}

func TestCalm(t *testing.T) {
	p := &Plan{Seed: 1, Knobs: Calm()}
	r := p.Run(Options{})
	t.Logf("%+v %v", r.Counts, r.Violation)
	if r.Violation != nil || r.Counts.Acked < 100 {
		t.Fatal(r.Violation)
	}
}
