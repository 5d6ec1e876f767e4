package store

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
