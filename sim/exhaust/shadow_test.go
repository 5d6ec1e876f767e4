package exhaust

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pando.dev/pando/internal/planted"
)

// TestMerging goes random ways twice: by the numbered states, where a node that looks
// the same as one before is taken for it, and with machines that go all the way by
// themselves. If a fingerprint lacked something that matters, the two would part.
func TestMerging(t *testing.T) {
	all := Config{
		Records: 3, Crashes: 2, Downs: 3, Alarms: 12, Losses: 3, Repeats: 3, Refusals: 1, OldLocks: 1, Reads: 2, Retries: 2,
		Transfers: 2, Resigns: 1, Changes: 2, SlowApply: true, Flush: true, OneRecord: true,
	}
	cold := all
	cold.Start, cold.Retries, cold.Alarms, cold.SlowApply = Cold, 0, 40, false
	parted := cold
	parted.Start, parted.Window = Parted, 3
	ways, length := 60, 150
	if testing.Short() {
		ways = 10
	}
	for name, c := range map[string]Config{"led": all, "cold": cold, "parted": parted} {
		t.Run(name, func(t *testing.T) {
			w, why, err := begin(c)
			if err != nil || why != "" {
				t.Fatal(err, why)
			}
			for seed := range uint64(ways) {
				w.shadow(t, rand.New(rand.NewPCG(seed, 1)), length)
			}
			t.Logf("%d states of nodes, %d steps for %d", len(w.nodes.list), w.nodes.steps, ways*length)
		})
	}
}

// shadow goes one random way.
func (w *walk) shadow(t *testing.T, rng *rand.Rand, length int) {
	var x world
	x.copyFrom(&w.first)
	var own [maxReplicas]*local // never numbered
	for n := range w.cfg.Replicas {
		own[n] = w.nodes.list[x.nodes[n]].fork()
	}
	var way []action
	for range length {
		todo := w.options(nil, &x)
		if len(todo) == 0 {
			return
		}
		a := todo[rng.IntN(len(todo))]
		if a.kind() == crash && rng.IntN(4) > 0 {
			continue
		}
		way = append(way, a)
		n, was := a.node(), x.nodes[a.node()]
		if why := w.advance(&x, a); why != "" {
			t.Fatal(w.violation(why, way, nil))
		}
		if a.kind() == drop {
			continue
		}
		l := own[n].fork()
		d := doing{k: w.nodes, l: l, e: new(effect)}
		d.happen(seen(a))
		if l.up {
			l.look()
			d.lead()
		}
		own[n] = l
		known := w.nodes.known[question{node: was, action: seen(a)}]
		if w.nodes.number(l) != x.nodes[n] || !slices.Equal(known.sends, d.e.sends) || !slices.Equal(known.replies, d.e.replies) {
			t.Fatalf("a machine on its own goes another way:\n%v", w.violation("merging: ", way, nil))
		}
	}
}

// TestReplay: the path of a violation leads there again.
func TestReplay(t *testing.T) {
	for _, b := range []planted.Bug{planted.AckUnsynced, planted.SnipOnStale} {
		c := Config{Downs: 2, Reads: 1, QuickHints: true, QuickLock: true, HealEvery: 10, MaxStates: 200_000, Planted: planted.Of(b)}
		r, err := Walk(t.Context(), c)
		if err != nil || r.Violation == nil {
			t.Fatal("not found: ", err)
		}
		got, err := Replay(c, r.Violation)
		if err != nil || got == nil || got.What != r.Violation.What || got.Why != r.Violation.Why {
			t.Errorf("found was\n%v, replayed %v\n%v", r.Violation, err, got)
		}
		c.Planted = planted.Set{}
		if got, err := Replay(c, r.Violation); got != nil {
			t.Errorf("without the bug: %v\n%v", err, got)
		}
		if s := r.Violation.GoTest("TestIt", c); !strings.Contains(s, "Downs: 2, Reads: 1") {
			t.Errorf("the source of the test is\n%s", s)
		}
	}
}
