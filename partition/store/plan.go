package store

import "time"

// dirtyStore is a store with something to flush, as the controller sees it.
type dirtyStore struct {
	ref      int
	bytes    int64
	since    time.Duration // engine time of the first unflushed apply
	flushing bool
	urgent   bool // the log asked for it, or flushing failed
}

// plan decides which stores to flush now. It is a function of its fields.
type plan struct {
	stores []dirtyStore
	full   int64         // bytes that fill a memtable
	high   int64         // where flushing for memory starts
	total  int64         // bytes unflushed, of all stores
	age    time.Duration // how long a store may stay dirty
	now    time.Duration
}

// choose returns the stores to flush, at most as many as keep flushWidth
// flushes under way. The rules, first one first:
//
//  1. those that the log asked for, and those too old: the oldest first;
//  2. those that fill a memtable: the largest first;
//  3. while what remains in memory when the flushes under way are done is over
//     high: the largest first.
func (p *plan) choose() []int {
	slots := flushWidth
	rest := p.total
	for i := range p.stores {
		if p.stores[i].flushing {
			slots--
			rest -= p.stores[i].bytes
		}
	}
	var out []int
	for ; slots > 0; slots-- {
		i := p.best(rest > p.high)
		if i < 0 {
			break
		}
		p.stores[i].flushing = true
		rest -= p.stores[i].bytes
		out = append(out, p.stores[i].ref)
	}
	return out
}

// best is the store to flush next, or -1.
func (p *plan) best(crowded bool) int {
	oldest, largest := -1, -1
	for i := range p.stores {
		s := &p.stores[i]
		if s.flushing {
			continue
		}
		if (s.urgent || p.now-s.since >= p.age) && (oldest < 0 || s.since < p.stores[oldest].since) {
			oldest = i
		}
		if (crowded || s.bytes >= p.full) && (largest < 0 || s.bytes > p.stores[largest].bytes) {
			largest = i
		}
	}
	if oldest >= 0 {
		return oldest
	}
	return largest
}

// flushing is the bytes of the stores that are being flushed, once choose has
// chosen.
func (p *plan) flushing() (n int64) {
	for i := range p.stores {
		if p.stores[i].flushing {
			n += p.stores[i].bytes
		}
	}
	return n
}
