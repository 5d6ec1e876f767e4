package sim

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"pando.dev/pando/internal/planted"
	"pando.dev/pando/sim/fault"
)

// TestPlanRoundTrip: what is drawn is valid, and its text gives it back.
func TestPlanRoundTrip(t *testing.T) {
	t.Parallel()
	for _, s := range DefaultShapes() {
		for seed := range uint64(100) {
			p := Draw(seed, s)
			p.Points = append(p.Points, PointFault{Point: "replica.promised", Node: 0, Occurrence: seed + 1, Class: fault.PowerCut, After: time.Millisecond})
			p.Planted = planted.Of(planted.NoSnip, planted.Bug(seed%30))
			text, err := p.MarshalText()
			if err != nil {
				t.Fatalf("%s %d: %v", s.Name, seed, err)
			}
			back, err := ParsePlan(text)
			if err != nil {
				t.Fatalf("%s %d: %v\n%s", s.Name, seed, err, text)
			}
			if !reflect.DeepEqual(p, back) {
				t.Fatalf("%s %d comes back as another plan:\n%s\n%s", s.Name, seed, text, back)
			}
		}
	}
}

// TestDrawIsStable: a seed gives the same plan each time, and another than its
// neighbour.
func TestDrawIsStable(t *testing.T) {
	t.Parallel()
	for _, s := range DefaultShapes() {
		a, b, c := Draw(7, s), Draw(7, s), Draw(8, s)
		if a.String() != b.String() || a.String() == c.String() {
			t.Errorf("%s: seeds do not name plans", s.Name)
		}
	}
}

// TestSwarmDrawsEverything: every class that the simulator knows is drawn by some
// shape, and none by nearly all plans of all shapes. Every shape with a weight gets
// seeds.
func TestSwarmDrawsEverything(t *testing.T) {
	t.Parallel()
	const seeds = 100
	var plans [fault.Classes]int
	shapes := map[string]int{}
	for seed := range uint64(10 * seeds) {
		shapes[Pick(seed, DefaultShapes()).Name]++
	}
	for _, s := range DefaultShapes() {
		if (shapes[s.Name] > 0) != (s.Weight > 0) {
			t.Errorf("%d of %d seeds are of shape %s", shapes[s.Name], 10*seeds, s.Name)
		}
		for seed := range uint64(seeds) {
			p := Draw(seed, s)
			var has [fault.Classes]bool
			for i := range p.Faults {
				has[p.Faults[i].Class] = true
			}
			for c, ok := range has {
				if ok {
					plans[c]++
				}
			}
		}
	}
	for c := range fault.All() {
		if drawn := plans[c] > 0; drawn != (c.Levels()&fault.Simulator != 0) || plans[c] > seeds*len(DefaultShapes())*8/10 {
			t.Errorf("%s is in %d plans of %d", c, plans[c], seeds*len(DefaultShapes()))
		}
	}
}

func TestParsePlanRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, why string }{
		{"", "no seed"},
		{"seed x", "line 1"},
		{"seed 1\nseed 2", `line 2: "seed" is there twice`},
		{"seed 1\nnodes", `line 2: "nodes" wants one value`},
		{"seed 1\nnodes 3 4", `line 2: "nodes" wants one value`},
		{"seed 1\nnodez 3", `line 2: there is no knob "nodez"`},
		{"seed 1\nnodes 16", "nodes 16 is not from 1 to 15"},
		{"seed 1\nnodes 2", "replicas 3 are more than nodes 2"},
		{"seed 1\nloss 1.5", "loss 1.5 is not from 0 to 1"},
		{"seed 1\nloss NaN", "line 2"},
		{"seed 1\ndelay-min -1s", "delay-min"},
		{"seed 1\ndelay-min 3s", "delay-min 3s is above delay-max"},
		{"seed 1\nlease soon", "line 2: lease"},
		{"seed 1\npolicy-mix some", `no mix of policies is called "some"`},
		{"seed 1\npoint-classes kill,boom", `no class of faults is called "boom"`},
		{"seed 1\nplanted nosuch", `line 2: no planted bug is called "nosuch"`},
		{"seed 1\nat 1s", "line 2: a fault has a time and a class"},
		{"seed 1\nat x kill 0", "line 2"},
		{"seed 1\nat 1s boom 0", `line 2: no class of faults is called "boom"`},
		{"seed 1\nat 1s kill", "line 2: kill befalls 1 nodes"},
		{"seed 1\nat 1s kill 3", "there is no node 3 of 3"},
		{"seed 1\nat 1s kill 03", "line 2: target"},
		{"seed 1\nat 1s kill master@1", "there is no group 1 of 1"},
		{"seed 1\nat 1s kill king@0", "no known role"},
		{"seed 1\nat 1s kill 0 for", `line 2: "for" wants a value`},
		{"seed 1\nat 1s kill 0 for 1s for 2s", `line 2: "for" is not understood`},
		{"seed 1\nat 1s kill 0 with 1s", `line 2: "with" is not understood`},
		{"seed 1\nat 1s kill 0 arg 1", "kill takes no argument"},
		{"seed 1\nat 25h kill 0", "a time is not from 0"},
		{"seed 1\npoint a 0 #1", "line 2: a fault at a point has"},
		{"seed 1\npoint a 0 1 kill", "does not begin with #"},
		{"seed 1\npoint a 0 #0 kill", "occurrences count from 1"},
		{"seed 1\npoint a 9 #1 kill", "there is no node 9"},
		{"seed 1\npoint a 0 #1 halves", "not of a class that befalls a node"},
		{"seed 1\nexpect pass", "belongs to a story"},
		{"seed 1\nshape " + strings.Repeat("x", 5000), "line 2"},
	} {
		if _, err := ParsePlan([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%.60q: %v, want %q", c.text, err, c.why)
		}
	}
}

// TestFaultID: what is decided about a fault hangs on nothing but the fault.
func TestFaultID(t *testing.T) {
	t.Parallel()
	seen := map[uint64]string{}
	for seed := range uint64(20) {
		p := Draw(seed, DefaultShapes()[0])
		for i := range p.Faults {
			f := &p.Faults[i]
			if other, ok := seen[f.ID()]; ok && other != f.String() {
				t.Fatalf("%q and %q have one id", other, f)
			}
			seen[f.ID()] = f.String()
		}
	}
}

// FuzzParsePlan: whatever is read prints, and is read again as the same.
func FuzzParsePlan(f *testing.F) {
	for i, s := range DefaultShapes() {
		p := Draw(uint64(i), s)
		p.Faults = p.Faults[:min(len(p.Faults), 5)]
		f.Add([]byte(p.String()))
	}
	f.Add([]byte("seed 1\nexpect pass\npoint wal.torn 0 #1 kill after 1ms for 2ms\nat 1s cut master@0 - for 1s"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := ParseStory(text)
		if err != nil {
			return
		}
		again, err := s.MarshalText()
		if err != nil {
			t.Fatalf("what was read does not print: %v", err)
		}
		back, err := ParsePlan(again)
		if err != nil {
			t.Fatalf("what was printed is not read: %v\n%s", err, again)
		}
		if !reflect.DeepEqual(&s.Plan, back) {
			t.Fatalf("another plan:\n%s\n%s", again, back)
		}
	})
}
