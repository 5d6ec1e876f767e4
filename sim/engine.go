package sim

import "pando.dev/pando/partition"

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

// place is an event's place in the heap.
type place struct {
	at  partition.Time
	seq uint64
	idx int32
}

func (x *place) before(y *place) bool {
	return x.at < y.at || x.at == y.at && x.seq < y.seq
}

// engine is virtual time: events in a slab, and a heap of four branches over
// their places. What is equally late happens in the order in which it was asked
// for.
type engine struct {
	now  partition.Time // true time
	seq  uint64
	heap []place
	slab []event
	free []int32
	took uint64 // events taken
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
		e.slab = append(e.slab, event{})
	}
	e.seq++
	e.push(place{at: max(t, e.now), seq: e.seq, idx: idx})
	x := &e.slab[idx]
	x.kind, x.node = kind, int16(node)
	return x
}

// after is at, in d from now.
func (e *engine) after(d partition.Time, kind eventKind, node int) *event {
	return e.at(e.now+d, kind, node)
}

func (e *engine) push(p place) {
	h := append(e.heap, p)
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
	e.heap = h
}

// next takes the next event, if it happens by the given time.
func (e *engine) next(until partition.Time, x *event) bool {
	if len(e.heap) == 0 || e.heap[0].at > until {
		return false
	}
	top := e.heap[0]
	e.now = top.at
	e.took++
	slot := &e.slab[top.idx]
	*x = *slot
	*slot = event{}
	e.free = append(e.free, top.idx)
	last := len(e.heap) - 1
	p := e.heap[last]
	e.heap = e.heap[:last]
	if last > 0 {
		e.sink(p)
	}
	return true
}

// sink puts p where it belongs, from the top down.
func (e *engine) sink(p place) {
	h, i := e.heap, 0
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
