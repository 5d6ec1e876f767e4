package sim

import (
	"slices"
	"testing"
	"time"

	"pando.dev/pando/partition"
)

// TestEngineWheel: events happen by time, and those of one moment in the order in
// which they were asked for, whether they are near or many turns of the wheel away.
func TestEngineWheel(t *testing.T) {
	t.Parallel()
	type asked struct {
		at partition.Time
		n  uint64
	}
	for seed := range uint64(50) {
		e := engine{now: time.Second}
		rnd, n := chances(mix(seed)), uint64(0)
		var want, got []asked
		ask := func() {
			n++
			h := rnd.two(onClock, n, 1)
			most := []time.Duration{0, time.Microsecond, 3 * time.Millisecond, time.Second, 20 * time.Second}[pick(h>>40, 5)]
			at := e.now + between(h, 0, most)
			e.at(at, evClient, 3).a = n
			want = append(want, asked{at, n})
		}
		for range 20 {
			ask()
		}
		var x event
		for until := e.now; until < 40*time.Second; until += between(rnd.two(onClock, n, 2), 0, 2*time.Second) {
			for e.next(until, &x) {
				if got = append(got, asked{e.now, x.a}); x.kind != evClient || x.node != 3 {
					t.Fatalf("seed %d: event %+v", seed, x)
				}
				if e.now > until {
					t.Fatalf("seed %d: an event of %s, asked for those until %s", seed, e.now, until)
				}
				for range 2 {
					if n < 2000 {
						ask()
					}
				}
			}
			e.now = max(e.now, until)
		}
		slices.SortStableFunc(want, func(a, b asked) int { return int(a.at - b.at) })
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d: %d events of %d, or in another order", seed, len(got), len(want))
		}
	}
}
