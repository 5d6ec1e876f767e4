package store

import (
	"time"
)

// takeSlot reserves the right to have one more store open. At the limit the
// store that was used least recently is closed, after a flush if it must be.
func (e *Engine) takeSlot() error {
	deadline := time.NewTimer(slotWait)
	defer deadline.Stop()
	e.waiters.Add(1)
	defer e.waiters.Add(-1)
	for {
		e.mu.Lock()
		if e.slots < e.o.MaxOpen {
			e.slots++
			e.mu.Unlock()
			return nil
		}
		victim, freed := e.victimLocked(), e.freed
		e.mu.Unlock()
		var flushed <-chan struct{}
		if victim != nil {
			if victim.hibernate() {
				continue
			}
			flushed = victim.startFlush()
		}
		select {
		case <-flushed:
		case <-freed:
		case <-deadline.C:
			return errBusy
		}
	}
}

// victimLocked picks the idle store to close: the longest unused of those that
// are flushed, or else of the others. It needs mu.
func (e *Engine) victimLocked() *space {
	var best *space
	better := func(a, b *space) bool {
		if ca, cb := a.unflushed.Load() == 0, b.unflushed.Load() == 0; ca != cb {
			return ca
		}
		return a.lastUse.Load() < b.lastUse.Load()
	}
	for sp := range e.open {
		if sp.uses.Load() == 0 && (best == nil || better(sp, best)) {
			best = sp
		}
	}
	return best
}

// opened notes that a store for which a slot was taken is open.
func (e *Engine) opened(sp *space) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.open[sp] = struct{}{}
	e.shareCacheLocked()
}

// giveSlot returns a slot, of a store that was closed or did not open.
func (e *Engine) giveSlot(sp *space) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.slots--
	delete(e.open, sp)
	e.shareCacheLocked()
	e.wakeLocked()
}

// unused wakes who waits for a store to become idle. A waiter counts itself
// before it looks at the uses of a store, and the last user leaves before it
// looks for waiters, so no one is left waiting.
func (e *Engine) unused() {
	if e.waiters.Load() == 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.wakeLocked()
}

func (e *Engine) wakeLocked() {
	close(e.freed)
	e.freed = make(chan struct{})
}

// shareCacheLocked takes out of the block cache what is set aside for stores
// that are not open: memtables count against the cache's bound, and without
// this blocks would fill what memtables do not use. It needs mu.
func (e *Engine) shareCacheLocked() {
	e.spare()
	e.spare = e.cache.Reserve(max(0, e.o.MaxOpen-len(e.open)) * openStoreBytes)
}
