package store

import (
	"fmt"

	"pando.dev/pando/partition"
)

// Usage is what one store takes.
type Usage struct {
	Open           bool  // whether the Pebble store is open now
	DiskBytes      int64 // files, as of the last use
	UnflushedBytes int64 // applied and not durable
}

// Usage returns what the store takes. It opens nothing.
func (s *Store) Usage() Usage {
	sp := s.sp
	u := Usage{UnflushedBytes: sp.unflushed.Load()}
	if db, err := sp.acquireOpen(); db != nil && err == nil {
		u.Open, u.DiskBytes = true, int64(db.Metrics().DiskSpaceUsage())
		sp.release()
		return u
	}
	sp.mu.Lock()
	defer sp.mu.Unlock()
	u.DiskBytes = sp.diskBytes
	return u
}

// RangeBytes is about what the keys of a range take: of files that hold others too
// only their part, and all that is not flushed yet. A store that was just divided
// has the files of the whole, and only a part of their keys.
func (s *Store) RangeBytes(r partition.KeyRange) (int64, error) {
	db, err := s.use()
	if err != nil {
		return 0, err
	}
	defer s.sp.release()
	r = visible(r)
	if len(r.Hi) == 0 {
		r.Hi = pastAll()
	}
	if r.Empty() {
		return 0, nil
	}
	n, err := db.EstimateDiskUsage(r.Lo, r.Hi)
	if err != nil {
		return 0, classify(fmt.Errorf("measure a range of store %s: %w", s.sp.id, err))
	}
	return int64(n) + s.sp.unflushed.Load(), nil
}

// Stats are an engine's counters since it was made, and what it holds now.
type Stats struct {
	Open           int   // stores open now
	UnflushedBytes int64 // of all stores
	BlockBytes     int64 // in the block cache
	Flushes        int64
	Stalls         int64 // commits that Pebble blocked; should stay 0
	Syncs          int64
	WrittenBytes   int64
	Failures       int64 // of file operations
	BackOffs       int64 // failures that were held for want of space or by an I/O error
	Compacting     int   // compactions that run now
	Waiting        int   // stores that wait to compact
}

// Stats returns the engine's counters.
func (e *Engine) Stats() Stats {
	s := Stats{
		UnflushedBytes: e.unflushed.Load(), BlockBytes: e.cache.Size(),
		Flushes: e.flushes.Load(), Stalls: e.stalls.Load(),
		Syncs: e.count.syncs.Load(), WrittenBytes: e.count.written.Load(),
		Failures: e.count.failures.Load(), BackOffs: e.count.backOffs.Load(),
	}
	e.mu.Lock()
	s.Open = len(e.open)
	e.mu.Unlock()
	e.scheduler.mu.Lock()
	s.Compacting, s.Waiting = e.scheduler.running, len(e.scheduler.waiting)
	e.scheduler.mu.Unlock()
	return s
}
