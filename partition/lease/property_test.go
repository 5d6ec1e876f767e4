package lease

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
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
	// replicas is the one of each group on the grantor's disk; 0: it was dropped.
	// ids are the greatest there were.
	replicas, ids map[partition.GroupID]partition.ReplicaID
	masters       map[partition.GroupID][]support
	ends          []ending
	// reported is until when, on its clock, the grantor's replicas report leases
	// of their former incarnation.
	reported   partition.Time
	everCounts int
}

// support: since its start, h has heard from this replica of g that it supports
// h in the epoch.
type support struct {
	epoch partition.Epoch
	by    replica.Supporter
}

// ending: from the true time at on, no grant may count for the group below the
// floor.
type ending struct {
	group partition.GroupID
	floor floor
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
	w.masters = map[partition.GroupID][]support{}
}

// startGrantor starts it anew from its disk; it reports one full lease as
// remaining, as its replicas would.
func (w *world) startGrantor(rt *rapid.T) {
	w.gb++
	w.gc = drawClock(rt)
	gc := w.gc
	w.g = New(Config{Self: "g", Boot: w.gb, Now: func() partition.Time { return gc.at(w.real) }})
	for g := range partition.GroupID(3) {
		if e := w.promised[g]; e > 0 && w.replicas[g] != 0 {
			w.g.Revoke(g, w.replicas[g], e, "h")
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

// promise makes the grantor's replica of a group promise the next epoch, with the
// holder's node or another as its master. A group without one gets one first, which
// begins with no promise.
func (w *world) promise(g partition.GroupID, toHolder bool) {
	if w.replicas[g] == 0 {
		w.ids[g]++
		w.replicas[g], w.promised[g] = w.ids[g], 0
	}
	e := w.promised[g] + 1
	w.end(g, floor{w.replicas[g], e})
	w.promised[g] = e
	if toHolder {
		w.confirm(g)
	}
}

// confirm lets the holder hear, again, that it is supported.
func (w *world) confirm(g partition.GroupID) {
	w.masters[g] = append(w.masters[g], support{w.promised[g], replica.Supporter{Replica: w.replicas[g], Boot: w.gb}})
}

// end revokes what is below the floor.
func (w *world) end(g partition.GroupID, f floor) {
	end := max(w.g.Revoke(g, f.replica, f.epoch, "h"), w.reported)
	w.ends = append(w.ends, ending{g, f, max(w.real, w.gc.when(end))})
}

// drop deletes the grantor's replica of a group.
func (w *world) drop(g partition.GroupID) {
	if w.replicas[g] != 0 {
		w.end(g, floor{w.replicas[g], math.MaxUint64})
		w.replicas[g] = 0
	}
}

// check holds the safety: when the grantor believes that its grants have run
// out, none counts at the holder, by the holder's clock.
func (w *world) check(rt *rapid.T) {
	for g, supports := range w.masters {
		for _, s := range supports {
			until := w.h.Granted(g, s.epoch, "g", s.by)
			if until > w.hc.at(w.real) {
				w.everCounts++
			}
			for _, end := range w.ends {
				if end.group == g && (floor{s.by.Replica, s.epoch}).below(end.floor) && w.real >= end.at && until > w.hc.at(w.real) {
					rt.Fatalf("at %v the grant for group %d in epoch %d by %+v counts for another %v; %+v was promised and all grants ended at %v",
						w.real, g, s.epoch, s.by, until-w.hc.at(w.real), end.floor, end.at)
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
		"promise h": func(rt *rapid.T) { w.promise(partition.GroupID(group.Draw(rt, "group")), true) },
		"confirm": func(rt *rapid.T) {
			g := partition.GroupID(group.Draw(rt, "group"))
			if n := len(w.masters[g]); n > 0 && w.masters[g][n-1].epoch == w.promised[g] && w.masters[g][n-1].by.Replica == w.replicas[g] {
				w.confirm(g)
			}
		},
		"drop":        func(rt *rapid.T) { w.drop(partition.GroupID(group.Draw(rt, "group"))) },
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
		w := &world{
			real: time.Second, promised: map[partition.GroupID]partition.Epoch{},
			replicas: map[partition.GroupID]partition.ReplicaID{}, ids: map[partition.GroupID]partition.ReplicaID{},
		}
		w.startHolder(rt)
		w.startGrantor(rt)
		rt.Repeat(w.actions())
		counted += w.everCounts
	})
	if counted == 0 {
		t.Error("no grant ever counted: the test shows nothing")
	}
}
