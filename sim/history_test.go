package sim

import (
	"context"
	"fmt"
	"testing"
	"time"

	"pando.dev/pando/internal/history"
	"pando.dev/pando/internal/planted"
	"pando.dev/pando/sim/fault"
)

// recorder records what clients ask and hear of the registers that are written as
// a whole, for a checker that knows nothing of logs.
type recorder struct {
	h     *history.History
	calls map[*op]*history.Call
	w     *world
}

func record(w *world) *recorder {
	r := &recorder{h: history.New(), calls: map[*op]*history.Call{}, w: w}
	w.heard = r.heard
	return r
}

// name is the value that an operation writes, as a string: values are unique.
func name(id uint64) string {
	if id == 0 {
		return ""
	}
	return fmt.Sprintf("%x", id)
}

func (r *recorder) heard(o *op, a *answer) {
	if o.opens || o.level >= levelSession || r.w.appends(o.key) {
		return
	}
	x := history.Op{Key: fmt.Sprintf("%d/%d", o.group, o.key), Value: name(o.id)}
	switch o.verb {
	case verbPut, verbDelete: // a deleted register shows by whom
		x.Kind = history.Write
	case verbCas:
		x.Kind, x.Old = history.CAS, name(o.old)
	case verbGet:
		x.Kind, x.Value = history.Read, ""
	default:
		return
	}
	if a == nil {
		r.calls[o] = r.h.Invoke(o.client, x)
		return
	}
	c := r.calls[o]
	switch is := parseRegister(a.res.Data); {
	case o.verb == verbGet:
		c.Return(history.Result{Got: name(a.read.by)})
	case a.res.Err != nil:
		c.Unknown()
	default:
		c.Return(history.Result{Swapped: o.verb == verbCas && is.by == o.id})
	}
}

// recorded runs a plan with the checkers of reads off, and says whether
// that one would have objected, and whether the search for an order does.
func recorded(t *testing.T, p *Plan) (overlooked int, err error) {
	t.Helper()
	w := newWorld(p, nil)
	w.overlook = []string{"linearizable", "lease", "serving"}
	r := record(w)
	what := objection(func() {
		w.create()
		w.play(p.Knobs.Length)
		w.recover()
	})
	if what != "" && p.Planted.Empty() {
		t.Fatalf("seed %d: %s", p.Seed, what)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	return w.overlooked, r.h.Check(ctx).Err()
}

// TestPorcupine: what clients hear in runs with faults has an order that explains
// it, found without looking at any log; and where a planted mistake makes the
// checker of linearizability object, there is none in some run.
func TestPorcupine(t *testing.T) {
	plan := func(seed uint64) *Plan {
		p := rough(seed)
		p.Knobs.Keys, p.Knobs.Length = 6, 10*time.Second
		return p
	}
	for seed := range uint64(5) {
		if n, err := recorded(t, plan(seed)); n != 0 || err != nil {
			t.Errorf("seed %d: %d objections; %v", seed, n, err)
		}
	}
	both, one := 0, 0
	for seed := uint64(0); seed < 20 && both < 2; seed++ {
		p := &Plan{Seed: seed, Knobs: Calm(), Planted: planted.Of(planted.NoLeaseWait)}
		p.Knobs.ReadShare, p.Knobs.Keys, p.Knobs.Ops, p.Knobs.Clients = 0.7, 4, 300, 12
		p.Knobs.Length, p.Knobs.Lease, p.Knobs.RetryMin = 6*time.Second, 600*time.Millisecond, 2*time.Millisecond
		for at := time.Second; at < p.Knobs.Length; at += time.Second {
			p.Faults = append(p.Faults,
				Fault{At: at, For: 600 * time.Millisecond, Class: fault.CutOneWay, Node: fault.Target(pick(mix(seed^uint64(at)), 3)), Other: fault.None},
				Fault{At: at, For: 500 * time.Millisecond, Class: fault.Reset, Node: fault.Aim(fault.Master, 0), Other: fault.None},
				Fault{At: at, For: 700 * time.Millisecond, Class: fault.Isolate, Node: fault.Aim(fault.Master, 0), Other: fault.None})
		}
		switch n, err := recorded(t, p); {
		case n == 0 && err != nil:
			t.Errorf("seed %d: nobody objects, and there is no order: %v", seed, err)
		case err != nil:
			both++
		case n > 0:
			one++
		}
	}
	t.Logf("%d runs in which both object, %d in which only the checker with the log does", both, one)
	if both == 0 {
		t.Error("no order was looked for in vain")
	}
}
