package store

import (
	"sync"
	"time"

	"pando.dev/pando/partition"
)

// markBytes is how finely a ledger remembers what was applied.
const markBytes = 64 << 10

// ledger remembers how many bytes each index brought, so that when a flush
// turns out to have made an index durable, what is still in memory is known.
// Pebble flushes on its own account too, so the index is all there is to go by.
type ledger struct {
	mu    sync.Mutex
	marks []mark // by index, not yet durable
	cum   int64  // bytes ever applied
	freed int64  // bytes known to be durable
}

// mark covers the applies since the mark before it.
type mark struct {
	index partition.Index // of the last of them
	cum   int64           // bytes applied through index
	since time.Duration   // engine time of the first of them
}

// add notes an apply of n bytes at index i and returns the bytes in memory.
func (l *ledger) add(i partition.Index, n int64, now time.Duration) int64 {
	l.cum += n
	if last := len(l.marks) - 1; last >= 0 {
		before := l.freed
		if last > 0 {
			before = l.marks[last-1].cum
		}
		if l.cum-before <= markBytes {
			l.marks[last].index, l.marks[last].cum = i, l.cum
			return l.cum - l.freed
		}
	}
	l.marks = append(l.marks, mark{index: i, cum: l.cum, since: now})
	return l.cum - l.freed
}

// settle notes that everything through index i is durable and returns the
// bytes that are still in memory.
func (l *ledger) settle(i partition.Index) int64 {
	n := 0
	for n < len(l.marks) && l.marks[n].index <= i {
		l.freed = l.marks[n].cum
		n++
	}
	l.marks = append(l.marks[:0], l.marks[n:]...)
	return l.cum - l.freed
}

// since is the engine time of the first apply that is not known to be durable.
func (l *ledger) since() (time.Duration, bool) {
	if len(l.marks) == 0 {
		return 0, false
	}
	return l.marks[0].since, true
}

// account notes an apply.
func (sp *space) account(i partition.Index, n int64) {
	sp.ledger.mu.Lock()
	defer sp.ledger.mu.Unlock()
	first := len(sp.ledger.marks) == 0
	sp.publish(sp.ledger.add(i, n, sp.e.now()))
	if first {
		sp.e.setDirty(sp, true)
	}
}

// settle takes what is durable off the ledger.
func (sp *space) settle() {
	sp.ledger.mu.Lock()
	defer sp.ledger.mu.Unlock()
	sp.publish(sp.ledger.settle(partition.Index(sp.durable.Load())))
	if len(sp.ledger.marks) == 0 {
		sp.e.setDirty(sp, false)
	}
}

// lose notes that nothing of the store is in memory any more, durable or not.
func (sp *space) lose() {
	sp.ledger.mu.Lock()
	defer sp.ledger.mu.Unlock()
	sp.ledger.marks, sp.ledger.freed = nil, sp.ledger.cum
	sp.publish(0)
	sp.e.setDirty(sp, false)
}

// publish needs the ledger's mutex.
func (sp *space) publish(unflushed int64) {
	old := sp.unflushed.Swap(unflushed)
	sp.e.unflushed.Add(unflushed - old)
}

// dirtySince is since, for the flush controller.
func (sp *space) dirtySince() (time.Duration, bool) {
	sp.ledger.mu.Lock()
	defer sp.ledger.mu.Unlock()
	return sp.ledger.since()
}

func (e *Engine) setDirty(sp *space, dirty bool) {
	e.dirtyMu.Lock()
	defer e.dirtyMu.Unlock()
	if dirty {
		e.dirty[sp] = struct{}{}
	} else {
		delete(e.dirty, sp)
	}
}
