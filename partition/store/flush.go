package store

import (
	"context"
	"fmt"
	"time"

	"pando.dev/pando/partition"
)

// flushWidth is how many flushes the controller has under way at once.
const flushWidth = 4

// controlEvery is how often the flush controller looks at ages. Everything
// else wakes it.
const controlEvery = time.Second

// startFlush begins a flush of everything applied so far and returns a channel
// that is closed when it has ended, or at once if nothing is open. At most one
// runs per store: each starts a new memtable, and Pebble blocks whoever would
// start one too many.
func (sp *space) startFlush() <-chan struct{} {
	sp.mu.Lock()
	if sp.flight != nil {
		defer sp.mu.Unlock()
		return sp.flight
	}
	flight := make(chan struct{})
	db := sp.db
	if db == nil || sp.dropped {
		sp.mu.Unlock()
		close(flight)
		return flight
	}
	sp.flight = flight
	sp.flying.Store(true)
	sp.e.flights.Add(1)
	sp.uses.Add(1)
	sp.mu.Unlock()
	sp.urgent.Store(false)
	flushed, err := db.AsyncFlush()
	if err != nil {
		sp.setFault(err)
		sp.landed(flight)
		return flight
	}
	go func() {
		select {
		case <-flushed:
		case <-sp.e.quit:
		}
		sp.refresh()
		sp.landed(flight)
	}()
	return flight
}

// landed ends the flush under way.
func (sp *space) landed(flight chan struct{}) {
	sp.mu.Lock()
	sp.flight = nil
	sp.flying.Store(false)
	sp.e.flights.Add(-1)
	sp.mu.Unlock()
	close(flight)
	sp.release()
	sp.e.wakeControl()
}

// flush waits until what is applied now is durable. The caller has a use.
func (sp *space) flush(ctx context.Context) error {
	target := sp.applied.Load()
	for sp.durable.Load() < target {
		select {
		case <-sp.startFlush():
		case <-ctx.Done():
			return partition.Errorf(partition.CodeTimeout, "flush of store %s: %v", sp.id, ctx.Err())
		case <-sp.e.quit:
			return errClosed
		}
		if err := sp.e.poisoned.Load(); err != nil {
			return errClosed
		}
	}
	return nil
}

// refresh learns from the files what is durable and announces it.
func (sp *space) refresh() {
	sp.ended.Store(false)
	db, err := sp.acquireOpen()
	if err != nil || db == nil {
		return
	}
	defer sp.release()
	sp.durableMu.Lock()
	defer sp.durableMu.Unlock()
	index, err := durableIndex(db)
	if err != nil {
		sp.setFault(fmt.Errorf("store %s: %w", sp.id, err))
		return
	}
	if uint64(index) <= sp.durable.Load() {
		return
	}
	sp.durable.Store(uint64(index))
	sp.settle()
	sp.e.o.Durable(sp.id.Group, sp.id.Generation, index)
}

// announce says again what is durable: the log may not know what an earlier
// run made so.
func (sp *space) announce() {
	sp.durableMu.Lock()
	defer sp.durableMu.Unlock()
	if i := sp.durable.Load(); i > 0 {
		sp.e.o.Durable(sp.id.Group, sp.id.Generation, partition.Index(i))
	}
}

// needsRoom is NeedsRoom.
func (sp *space) needsRoom() bool {
	own := sp.unflushed.Load()
	return sp.e.unflushed.Load() >= sp.e.o.MemoryBytes || own >= sp.e.o.storeRoom() || own > 0 && sp.fault.Load() != nil
}

// applied wakes the controller if the apply made something due that it could
// start: it is called half a million times a second.
func (e *Engine) applied(sp *space) {
	if e.flights.Load() >= flushWidth {
		return // it looks again when one of them ends
	}
	if e.unflushed.Load() > e.lookAt.Load() || sp.unflushed.Load() >= e.o.memTable && !sp.flying.Load() {
		e.wakeControl()
	}
}

// high is where flushing starts.
func (e *Engine) high() int64 { return e.o.MemoryBytes / 4 * 3 }

// wakeControl never blocks; it may be called with any mutex held.
func (e *Engine) wakeControl() {
	select {
	case e.poke <- struct{}{}:
	default:
	}
}

// control is the flush controller. It ends when quit is closed.
func (e *Engine) control() {
	defer e.tasks.Done()
	tick := time.NewTicker(controlEvery)
	defer tick.Stop()
	for {
		select {
		case <-e.quit:
			return
		case <-e.poke:
		case <-tick.C:
			e.closeIdle()
		}
		e.controlOnce()
	}
}

// controlOnce looks at what is dirty, starts the flushes that are due and
// tells those who wait for room.
func (e *Engine) controlOnce() {
	dirty := e.dirtySpaces()
	p := plan{full: e.o.memTable, high: e.high(), total: e.unflushed.Load(), age: e.o.FlushAge, now: e.now()}
	for i, sp := range dirty {
		if sp.ended.Load() {
			sp.refresh()
		}
		if since, ok := sp.dirtySince(); ok {
			p.stores = append(p.stores, dirtyStore{
				ref: i, bytes: sp.unflushed.Load(), since: since, flushing: sp.flying.Load(),
				urgent: sp.urgent.Load() || sp.fault.Load() != nil,
			})
		}
	}
	chosen := p.choose()
	e.lookAt.Store(p.high + p.flushing())
	for _, ref := range chosen {
		dirty[ref].startFlush()
	}
	for _, fn := range e.haveRoom() {
		fn()
	}
}

// dirtySpaces is a copy, so that no store's mutex is taken under dirtyMu.
func (e *Engine) dirtySpaces() []*space {
	e.dirtyMu.Lock()
	defer e.dirtyMu.Unlock()
	all := make([]*space, 0, len(e.dirty))
	for sp := range e.dirty {
		all = append(all, sp)
	}
	return all
}

// haveRoom takes out those who waited for room and have it now.
func (e *Engine) haveRoom() []func() {
	e.dirtyMu.Lock()
	defer e.dirtyMu.Unlock()
	var fns []func()
	for s, fn := range e.roomFor {
		if !s.sp.needsRoom() {
			fns = append(fns, fn)
			delete(e.roomFor, s)
		}
	}
	return fns
}

// closeIdle hibernates stores that nobody used for long.
func (e *Engine) closeIdle() {
	e.mu.Lock()
	var idle []*space
	for sp := range e.open {
		if sp.uses.Load() == 0 && e.now()-time.Duration(sp.lastUse.Load()) >= e.o.IdleAge {
			idle = append(idle, sp)
		}
	}
	e.mu.Unlock()
	for _, sp := range idle {
		sp.hibernate()
	}
}

// flushAll flushes everything, flushWidth at a time, until done or stop.
func (e *Engine) flushAll(stop <-chan time.Time) {
	dirty := e.dirtySpaces()
	for len(dirty) > 0 {
		n := min(flushWidth, len(dirty))
		for _, sp := range dirty[:n] {
			sp.startFlush()
		}
		for _, sp := range dirty[:n] {
			select {
			case <-sp.startFlush():
			case <-stop:
				return
			}
		}
		dirty = dirty[n:]
	}
}
