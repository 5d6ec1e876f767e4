package store

import (
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// offerWidth is how many waiting stores one grant compares.
const offerWidth = 16

// scheduler shares one limit on running compactions among all open stores.
//
//	store asks (TrySchedule) --room--> runs --Done--> grant loop offers the slot on
//	           |                                            ^
//	           no room: waiting -----------------------------
//
// A store that was refused never asks again while Pebble believes it to be
// waiting, so it stays in the queue until it says itself that it has nothing
// to do. Forgetting one stops its compactions for good, silently.
type scheduler struct {
	limit int

	mu       sync.Mutex
	running  int
	granting bool      // a grant loop runs; at most one
	again    bool      // something changed while it ran: it must look once more
	idle     sync.Cond // on mu: a call into a store returned
	waiting  []*compactor
}

func newScheduler(limit int) *scheduler {
	s := &scheduler{limit: max(1, limit)}
	s.idle.L = &s.mu
	return s
}

// compactor is one store's end of the scheduler. Pebble calls it with the
// store's mutexes held, so nothing here calls back into a store except the
// grant loop, which runs on a goroutine of its own and without mu.
type compactor struct {
	s  *scheduler
	db pebble.DBForCompaction

	// All under s.mu.
	running  int
	queued   bool   // in s.waiting
	refusals uint64 // counts TrySchedule refusals: see settle
	calls    int    // calls into db that the grant loop is making
	gone     bool
}

var (
	_ pebble.CompactionScheduler   = (*compactor)(nil)
	_ pebble.CompactionGrantHandle = (*compactor)(nil)
)

func (s *scheduler) newCompactor() *compactor { return &compactor{s: s} }

// Register implements pebble.CompactionScheduler.
func (c *compactor) Register(_ int, db pebble.DBForCompaction) { c.db = db }

// Unregister waits for the grant loop to be done with the store.
func (c *compactor) Unregister() {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.gone = true
	for c.calls > 0 {
		c.s.idle.Wait()
	}
}

// TrySchedule grants a compaction if the node and the store both allow one.
func (c *compactor) TrySchedule() (bool, pebble.CompactionGrantHandle) {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.gone {
		return false, nil
	}
	if s.running < s.limit && c.running < c.db.GetAllowedWithoutPermission() {
		s.running++
		c.running++
		return true, c
	}
	c.refusals++
	c.enqueue()
	return false, nil
}

// UpdateGetAllowedWithoutPermission is called after each flush: the store may
// be allowed more than when it was refused.
func (c *compactor) UpdateGetAllowedWithoutPermission() {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.s.startGranting()
}

// Started implements pebble.CompactionGrantHandle.
func (c *compactor) Started() {}

// MeasureCPU implements pebble.CompactionGrantHandle.
func (c *compactor) MeasureCPU(pebble.CompactionGoroutineKind) {}

// CumulativeStats implements pebble.CompactionGrantHandle.
func (c *compactor) CumulativeStats(pebble.CompactionGrantHandleStats) {}

// Done gives the slot back.
func (c *compactor) Done() {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.running--
	c.s.running--
	c.s.startGranting()
}

// busy reports whether a compaction of the store runs.
func (c *compactor) busy() bool {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	return c.running > 0
}

// enqueue needs s.mu.
func (c *compactor) enqueue() {
	if !c.queued {
		c.queued = true
		c.s.waiting = append(c.s.waiting, c)
	}
}

// startGranting needs mu.
func (s *scheduler) startGranting() {
	if s.granting {
		s.again = true
		return
	}
	if s.running < s.limit && len(s.waiting) > 0 {
		s.granting = true
		go s.grant()
	}
}

// grant offers free slots to waiting stores until there are no slots or no
// takers. Only one grant loop runs at a time.
func (s *scheduler) grant() {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() { s.granting = false }()
	for s.running < s.limit {
		s.again = false
		c, refusals := s.best()
		switch {
		case c == nil && s.again, c != nil && (c.gone || s.running >= s.limit):
			continue // something changed while the stores were asked
		case c == nil:
			return
		}
		s.running++
		c.running++
		c.calls++
		s.mu.Unlock()
		accepted := c.db.Schedule(c)
		s.mu.Lock()
		s.returned(c)
		if !accepted {
			s.running--
			c.running--
			s.settle(c, refusals)
		}
	}
}

// best asks up to offerWidth waiting stores and returns the one whose
// compaction matters most, and its count of refusals before it was asked.
// Those asked move to the end of the queue, so that everyone's turn comes. It
// needs mu and releases it while it asks.
func (s *scheduler) best() (best *compactor, refusals uint64) {
	var bestWait pebble.WaitingCompaction
	for asked, left := 0, len(s.waiting); left > 0 && asked < offerWidth; left-- {
		if len(s.waiting) == 0 {
			break
		}
		c := s.waiting[0]
		s.waiting = append(s.waiting[:0], s.waiting[1:]...)
		if c.gone {
			c.queued = false
			continue
		}
		s.waiting = append(s.waiting, c)
		if c.running >= c.db.GetAllowedWithoutPermission() {
			continue // asked again when one of its own is done or a flush ends
		}
		asked++
		before := c.refusals
		c.calls++
		s.mu.Unlock()
		waits, w := c.db.GetWaitingCompaction()
		s.mu.Lock()
		s.returned(c)
		if !waits {
			s.settle(c, before)
			continue
		}
		if best == nil || moreUrgent(w, bestWait) {
			best, bestWait, refusals = c, w, before
		}
	}
	return best, refusals
}

// returned ends a call into c's store. It needs mu.
func (s *scheduler) returned(c *compactor) {
	c.calls--
	s.idle.Broadcast()
}

// settle takes a store that has nothing to compact off the queue, unless it
// was refused again after it had said so. It needs mu.
func (s *scheduler) settle(c *compactor, refusals uint64) {
	if c.refusals != refusals || !c.queued {
		return
	}
	for i, w := range s.waiting {
		if w == c {
			s.waiting = append(s.waiting[:i], s.waiting[i+1:]...)
			break
		}
	}
	c.queued = false
}

// moreUrgent orders compactions as Pebble defines it.
func moreUrgent(a, b pebble.WaitingCompaction) bool {
	if a.Optional != b.Optional {
		return b.Optional
	}
	if a.Priority != b.Priority {
		return a.Priority > b.Priority
	}
	return a.Score > b.Score
}
