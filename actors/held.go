package actors

import (
	"math"
	"sync"
	"time"

	"pando.dev/pando/partition"
)

// evidence is the master's word, if known is set: no write beyond index was
// acknowledged before at, on this node's clock. It stays true for ever.
type evidence struct {
	index partition.Index
	at    partition.Time
	known bool
}

// wordOfMaster is what a read waits for that has no evidence, in place of an
// index.
const wordOfMaster partition.Index = math.MaxUint64

// heldReads are the reads that wait for one open state, and what is known of
// how new that is. Any goroutine may use it.
type heldReads struct {
	now   func() partition.Time
	spawn func(func()) // runs what must not keep the replica's actor

	mu      sync.Mutex
	closed  *partition.Error // why nothing can wait any more
	applied partition.Index  // that the state reflects
	waiting map[*heldRead]bool
	lowest  partition.Index // no higher than what anybody in waiting needs
	bytes   int             // of the requests in waiting
	asking  bool            // the master's word is on its way
	// latest is the newest evidence, proven the newest that the state is known to
	// reflect, and pending the oldest behind it that is not: if only the latest were
	// kept, none might ever be reached.
	latest, pending, proven evidence
}

// wait lets the read wait until the state reflects need, unless it does.
func (r *heldReads) wait(h *heldRead, need partition.Index, until partition.Time) (bool, *partition.Error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if need <= r.applied {
		return false, nil
	}
	return true, r.enter(h, need, until)
}

// waitForWord lets the read wait for the master's word; fly tells that the
// caller is to ask for it.
func (r *heldReads) waitForWord(h *heldRead) (fly bool, err *partition.Error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.enter(h, wordOfMaster, h.until); err != nil {
		return false, err
	}
	fly = !r.asking
	r.asking = true
	return fly, nil
}

// enter takes a read in, or says why not. The lock is held.
func (r *heldReads) enter(h *heldRead, need partition.Index, until partition.Time) *partition.Error {
	size := len(h.req.Key) + len(h.req.Body)
	switch {
	case r.closed != nil:
		return r.closed
	case len(r.waiting) >= maxHeld || r.bytes+size > maxHeldBytes && r.bytes > 0:
		h.node.counters.busy.Add(1)
		return partition.Errorf(partition.CodeBusy, "%d reads of group %s wait for its state here, limit %d", len(r.waiting), h.cell.group, maxHeld)
	}
	if len(r.waiting) == 0 {
		r.waiting, r.lowest = map[*heldRead]bool{}, need
	}
	r.waiting[h] = true
	r.bytes += size
	r.lowest = min(r.lowest, need)
	h.need = need
	h.node.counters.readsHeld.Add(1)
	h.timer = time.AfterFunc(max(0, until-r.now()), func() {
		if need, ok := r.take(h); ok {
			h.expired(need)
		}
	})
	return nil
}

// take takes a read out that still waits, and returns for what.
func (r *heldReads) take(h *heldRead) (partition.Index, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.waiting[h] {
		return 0, false
	}
	r.remove(h)
	return h.need, true
}

func (r *heldReads) remove(h *heldRead) {
	delete(r.waiting, h)
	r.bytes -= len(h.req.Key) + len(h.req.Body)
	h.timer.Stop()
}

// takeIf takes out the reads for which it holds, in no order: each goes on by
// itself. The lock is held.
func (r *heldReads) takeIf(holds func(need partition.Index) bool) (out []*heldRead) {
	r.lowest = wordOfMaster
	for h := range r.waiting {
		if holds(h.need) {
			r.remove(h)
			out = append(out, h)
		} else {
			r.lowest = min(r.lowest, h.need)
		}
	}
	return out
}

// reached says that the state reflects the index now. The replica's actor calls
// it after every change of the state; it does not block.
func (r *heldReads) reached(i partition.Index) {
	r.mu.Lock()
	r.applied = i
	r.prove()
	var ready []*heldRead
	if len(r.waiting) > 0 && r.lowest <= i {
		ready = r.takeIf(func(need partition.Index) bool { return need <= i })
	}
	r.mu.Unlock()
	if len(ready) > 0 {
		r.spawn(func() {
			for _, h := range ready {
				h.step()
			}
		})
	}
}

// landed takes the master's word, or that there is none, and returns the reads
// that waited for it.
func (r *heldReads) landed(ev evidence) []*heldRead {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asking = false
	if ev.known {
		r.noteLocked(ev)
	}
	return r.takeIf(func(need partition.Index) bool { return need == wordOfMaster })
}

// note takes in evidence that nobody waits for.
func (r *heldReads) note(ev evidence) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.noteLocked(ev)
}

func (r *heldReads) noteLocked(ev evidence) {
	if r.latest.known && ev.at < r.latest.at {
		return // reads are answered side by side
	}
	r.latest = ev
	if !r.pending.known {
		r.pending = ev
	}
	r.prove()
}

// prove finds what evidence the state has come to reflect. The lock is held.
func (r *heldReads) prove() {
	switch {
	case !r.pending.known || r.pending.index > r.applied:
	case r.latest.index <= r.applied:
		r.proven, r.pending = r.latest, evidence{}
	default:
		r.proven, r.pending = r.pending, r.latest
	}
}

// evidence returns the latest, or the latest that the state reflects.
func (r *heldReads) evidence(proven bool) evidence {
	r.mu.Lock()
	defer r.mu.Unlock()
	if proven {
		return r.proven
	}
	return r.latest
}

func (r *heldReads) index() partition.Index {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.applied
}

// close refuses all that wait, and all that come later.
func (r *heldReads) close(why *partition.Error) {
	r.mu.Lock()
	r.closed = why
	all := r.takeIf(func(partition.Index) bool { return true })
	r.mu.Unlock()
	for _, h := range all {
		h.refuse(why)
	}
}
