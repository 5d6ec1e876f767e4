package sim

import (
	"math/bits"

	"pando.dev/pando/partition"
)

// eventKind says what happens.
type eventKind uint8

const (
	evNone eventKind = iota
	evMessage
	evBeat
	evAnswer
	evAlarm
	evSynced
	evSettle
	evApply
	evTick
	evBoot
	evLoad
	evResume
	evLinkDown
	evTryAgain
	evControl
	evControlAnswer
	evAdmission
	evClient
	evRequest
	evReadBack
	evReply
	evClientTimeout
	evFault
	evFaultEnd
	evPoint
	evHint
	evExpire
	evWatch
	evSplit
	evCatalog
	evAskSplit
	evMergeCall
	evMergeAnswer
	evMergeLate
	eventKinds
)

// event is one thing that happens at a moment. Which of the fields mean what is
// up to the kind; they are numbers and one pointer, so that an event costs no
// memory of its own.
type event struct {
	kind eventKind
	// node is the ordinal of the node that it happens to, -1 the world. The event
	// is void if the node's process is not the one of life, unless life is 0.
	node int16
	from int16 // identity of the sender, or ordinal of a client
	// group is the ordinal of a group.
	group         int16
	life          uint32
	conn          uint32 // number of the connection that carries a message
	a, b, c, d, e uint64
	p             any // a pointer, never a value that would have to be copied
}

// place is when an event of the slab happens.
type place struct {
	at  partition.Time
	seq uint64
	idx int32 // in the slab
	// behind is the next event of the same slot of the wheel, -1: none.
	behind int32
}

func (x *place) before(y *place) bool {
	return x.at < y.at || x.at == y.at && x.seq < y.seq
}

const (
	// A slot of the wheel stands for 2^slotBits ns, about a millisecond, in which
	// little happens; the wheel turns once in two seconds, by which time most of
	// what was asked for has happened.
	slotBits = 20
	slots    = 2048
)

// engine is virtual time: events in a slab, and where they are. What is equally
// late happens in the order in which it was asked for.
//
//	soon: a heap of four branches  |  wheel: a list per slot, in no order
//	up to the slot of turn         |  later
//
// Most events wait in the wheel, where they cost nothing, and the heap stays small.
type engine struct {
	now   partition.Time // true time
	seq   uint64
	soon  []place
	slab  []event
	when  []place // of the events in the slab that are in the wheel
	free  []int32
	wheel [slots]int32       // the first of each slot, plus one; 0: none
	some  [slots / 64]uint64 // a bit per slot: it is not empty
	turn  int64              // the slot that is in the heap, counted from the beginning of time
	later int                // how many are in the wheel
	took  uint64             // events taken
}

// at returns the event that will happen at t, to be filled in by the caller
// before anything else is scheduled.
func (e *engine) at(t partition.Time, kind eventKind, node int) *event {
	var idx int32
	if n := len(e.free); n > 0 {
		idx = e.free[n-1]
		e.free = e.free[:n-1]
	} else {
		idx = int32(len(e.slab))
		e.slab, e.when = append(e.slab, event{}), append(e.when, place{})
	}
	e.seq++
	e.put(place{at: max(t, e.now), seq: e.seq, idx: idx})
	x := &e.slab[idx]
	x.kind, x.node = kind, int16(node)
	return x
}

// after is at, in d from now.
func (e *engine) after(d partition.Time, kind eventKind, node int) *event {
	return e.at(e.now+d, kind, node)
}

// put puts an event where it belongs.
func (e *engine) put(p place) {
	slot := int64(p.at) >> slotBits
	if slot <= e.turn {
		e.push(p)
		return
	}
	i := slot % slots
	p.behind = e.wheel[i] - 1
	e.when[p.idx] = p
	e.wheel[i] = p.idx + 1
	e.some[i/64] |= 1 << (i % 64)
	e.later++
}

// next takes the next event, if it happens by the given time.
func (e *engine) next(until partition.Time, x *event) bool {
	for len(e.soon) == 0 && e.later > 0 && e.turn < int64(until)>>slotBits {
		e.advance(int64(until) >> slotBits)
	}
	if len(e.soon) == 0 || e.soon[0].at > until {
		return false
	}
	top := e.soon[0]
	e.now = top.at
	e.took++
	slot := &e.slab[top.idx]
	*x = *slot
	*slot = event{}
	e.free = append(e.free, top.idx)
	last := len(e.soon) - 1
	p := e.soon[last]
	e.soon = e.soon[:last]
	if last > 0 {
		e.sink(p)
	}
	return true
}

// advance turns the wheel to the next slot that is not empty, at most to the given
// one, and moves to the heap what happens in it. What is there for a later turn stays.
func (e *engine) advance(most int64) {
	e.turn++
	for e.turn < most {
		i := e.turn % slots
		if word := e.some[i/64] >> (i % 64); word != 0 {
			e.turn = min(e.turn+int64(bits.TrailingZeros64(word)), most)
			break
		}
		e.turn = min(e.turn+64-i%64, most)
	}
	i := e.turn % slots
	at := e.wheel[i] - 1
	e.wheel[i], e.some[i/64] = 0, e.some[i/64]&^(1<<(i%64))
	for at >= 0 {
		p := e.when[at]
		at = p.behind
		e.later--
		e.put(p)
	}
}

func (e *engine) push(p place) {
	h := append(e.soon, p)
	i := len(h) - 1
	for i > 0 {
		up := (i - 1) / 4
		if !p.before(&h[up]) {
			break
		}
		h[i] = h[up]
		i = up
	}
	h[i] = p
	e.soon = h
}

// sink puts p where it belongs, from the top down.
func (e *engine) sink(p place) {
	h, i := e.soon, 0
	for {
		child := 4*i + 1
		if child >= len(h) {
			break
		}
		best := child
		for c := child + 1; c < min(child+4, len(h)); c++ {
			if h[c].before(&h[best]) {
				best = c
			}
		}
		if !h[best].before(&p) {
			break
		}
		h[i] = h[best]
		i = best
	}
	h[i] = p
}
