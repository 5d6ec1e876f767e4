package lease

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"pando.dev/pando/partition"
)

// world is a holder and a grantor with clocks of their own, a network that
// loses, repeats and reorders, and the promises that the grantor's disk keeps.
type world struct {
	real     time.Duration // true time
	h, g     *Table
	hc, gc   clock
	hb, gb   uint64
	beats    []Beat
	answers  []Answer
	promised map[partition.GroupID]partition.Epoch
	masters  map[partition.GroupID][]partition.Epoch // epochs in which h, since its start, has been supported by g
	ends     []ending
	// reported is until when, on its clock, the grantor's replicas report leases
	// of their former incarnation.
	reported   partition.Time
	everCounts int
}

// ending: from the true time at on, no grant may count for the group below the
// epoch.
type ending struct {
	group partition.GroupID
	epoch partition.Epoch
	at    time.Duration
}

// clock runs at rate/1e6 of true time, from an offset.
type clock struct {
	offset time.Duration
	rate   int64
}

func (c clock) at(real time.Duration) partition.Time {
	return c.offset + real + time.Duration(int64(real)/1_000_000*(c.rate-1_000_000))
}

// when is the first true time, to the nanosecond above, at which the clock
// shows at least t.
func (c clock) when(t partition.Time) time.Duration {
	lo, hi := time.Duration(0), 2*t+time.Hour
	for lo < hi {
		mid := lo + (hi-lo)/2
		if c.at(mid) >= t {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo
}

func (w *world) startHolder(rt *rapid.T) {
	w.hb++
	w.hc = drawClock(rt)
	hc := w.hc
	w.h = New(Config{Self: "h", Boot: w.hb, Now: func() partition.Time { return hc.at(w.real) }})
	w.masters = map[partition.GroupID][]partition.Epoch{}
}

// startGrantor starts it anew from its disk; it reports one full lease as
// remaining, as its replicas would.
func (w *world) startGrantor(rt *rapid.T) {
	w.gb++
	w.gc = drawClock(rt)
	gc := w.gc
	w.g = New(Config{Self: "g", Boot: w.gb, Now: func() partition.Time { return gc.at(w.real) }})
	for g := range partition.GroupID(3) {
		if e := w.promised[g]; e > 0 {
			w.g.Revoke(g, 1, e, "h")
		}
	}
	w.g.Open()
	if w.gb > 1 {
		w.reported = gc.at(w.real) + w.g.Lease()
	}
}

// drawClock draws a clock within half the drift margin of true time, so two
// of them differ by at most the margin.
func drawClock(rt *rapid.T) clock {
	return clock{
		offset: time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(rt, "offset")),
		rate:   rapid.SampledFrom([]int64{999_501, 1_000_000, 1_000_499}).Draw(rt, "rate"),
	}
}

// promise makes the grantor promise the next epoch of a group, with the holder's
// node or another as its master.
func (w *world) promise(g partition.GroupID, toHolder bool) {
	e := w.promised[g] + 1
	end := max(w.g.Revoke(g, 1, e, "h"), w.reported)
	w.ends = append(w.ends, ending{g, e, max(w.real, w.gc.when(end))})
	w.promised[g] = e
	if toHolder {
		w.masters[g] = append(w.masters[g], e)
	}
}

// check holds the safety: when the grantor believes that its grants have run
// out, none counts at the holder, by the holder's clock.
func (w *world) check(rt *rapid.T) {
	for g, epochs := range w.masters {
		for _, e := range epochs {
			until := w.h.Granted(g, e, "g", by(w.gb))
			if until > w.hc.at(w.real) {
				w.everCounts++
			}
			for _, end := range w.ends {
				if end.group == g && e < end.epoch && w.real >= end.at && until > w.hc.at(w.real) {
					rt.Fatalf("at %v the grant for group %d in epoch %d counts for another %v; epoch %d was promised and all grants ended at %v",
						w.real, g, e, until-w.hc.at(w.real), end.epoch, end.at)
				}
			}
		}
	}
}

func (w *world) actions() map[string]func(*rapid.T) {
	group := rapid.Uint64Range(0, 2)
	return map[string]func(*rapid.T){
		"pass": func(rt *rapid.T) {
			w.real += time.Duration(rapid.Int64Range(1, int64(120*ms)).Draw(rt, "by"))
		},
		"to an end": func(rt *rapid.T) { // exactly to where a grant must have ended
			for _, e := range w.ends {
				if e.at > w.real {
					w.real = e.at
					return
				}
			}
		},
		"beat": func(*rapid.T) {
			b, _ := w.h.Beat(w.hc.at(w.real), "g")
			w.beats = append(w.beats, b)
		},
		"round": func(*rapid.T) {
			b, _ := w.h.Beat(w.hc.at(w.real), "g")
			if a, ok := w.g.OnBeat(w.gc.at(w.real), "h", b); ok {
				w.h.OnAnswer(w.hc.at(w.real), "g", a)
			}
		},
		"deliver beat": func(rt *rapid.T) {
			if b, ok := take(rt, &w.beats); ok {
				if a, ok := w.g.OnBeat(w.gc.at(w.real), "h", b); ok {
					w.answers = append(w.answers, a)
				}
			}
		},
		"deliver answer": func(rt *rapid.T) {
			if a, ok := take(rt, &w.answers); ok {
				w.h.OnAnswer(w.hc.at(w.real), "g", a)
			}
		},
		"promise h":   func(rt *rapid.T) { w.promise(partition.GroupID(group.Draw(rt, "group")), true) },
		"promise x":   func(rt *rapid.T) { w.promise(partition.GroupID(group.Draw(rt, "group")), false) },
		"restart h":   func(rt *rapid.T) { w.startHolder(rt) },
		"restart g":   func(rt *rapid.T) { w.startGrantor(rt) },
		"disconnect":  func(*rapid.T) { w.h.Down("g", w.gb) },
		"handshake h": func(*rapid.T) { w.h.Up("g", w.gb); w.g.Up("h", w.hb) },
		"":            func(rt *rapid.T) { w.check(rt) },
	}
}

// take draws a message and leaves it there one time in four: a repetition.
func take[T any](rt *rapid.T, from *[]T) (x T, ok bool) {
	if len(*from) == 0 {
		return x, false
	}
	i := rapid.IntRange(0, len(*from)-1).Draw(rt, "which")
	x = (*from)[i]
	if rapid.IntRange(0, 3).Draw(rt, "repeat") > 0 {
		*from = append((*from)[:i:i], (*from)[i+1:]...)
	}
	return x, true
}

// TestHolderNeverOutlivesGrantor (LEA-1 to LEA-4) is the safety of leases under
// delay, loss, repetition, reordering, drifting clocks and restarts: once the
// time that Revoke returned has come on the grantor's clock, no grant counts for
// the older epochs at the holder.
func TestHolderNeverOutlivesGrantor(t *testing.T) {
	counted := 0
	rapid.Check(t, func(rt *rapid.T) {
		w := &world{real: time.Second, promised: map[partition.GroupID]partition.Epoch{}}
		w.startHolder(rt)
		w.startGrantor(rt)
		rt.Repeat(w.actions())
		counted += w.everCounts
	})
	if counted == 0 {
		t.Error("no grant ever counted: the test shows nothing")
	}
}
