package wal

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Syncs says how long the disk took since the last TakeSyncs.
type Syncs struct {
	Count int // batches written and synced
	// P99 is exceeded by one write and sync in a hundred, to within a quarter;
	// of fewer than a hundred it is the longest.
	P99 time.Duration
	// Running is for how long the one under way has been, of a disk that hangs.
	Running time.Duration
}

// TakeSyncs returns the durations since the last call and begins anew. It has one
// caller.
func (l *Log) TakeSyncs() Syncs {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.syncs.take()
}

// syncTimes counts durations by their highest three bits.
type syncTimes struct {
	born  time.Time
	began atomic.Int64 // when the one under way began, in ns after born; 0: none is

	// Guarded by the log's lock.
	counts [4 * 64]uint32
	count  int
	most   time.Duration
}

// begin marks that a batch is on its way to the disk.
func (s *syncTimes) begin() { s.began.Store(max(1, int64(time.Since(s.born)))) }

// end takes the duration of the batch; the caller holds the log's lock.
func (s *syncTimes) end(took time.Duration) {
	s.began.Store(0)
	s.counts[syncBucket(took)]++
	s.count++
	s.most = max(s.most, took)
}

func (s *syncTimes) take() Syncs {
	out := Syncs{Count: s.count}
	if began := s.began.Load(); began != 0 {
		out.Running = max(0, time.Since(s.born)-time.Duration(began))
	}
	if s.count == 0 {
		return out
	}
	above := s.count / 100
	for i := len(s.counts) - 1; i >= 0; i-- {
		if above -= int(s.counts[i]); above < 0 {
			out.P99 = min(s.most, syncBound(i))
			break
		}
	}
	clear(s.counts[:])
	s.count, s.most = 0, 0
	return out
}

// syncBucket is the place of a duration: its length in bits, and the two bits
// behind the first.
func syncBucket(d time.Duration) int {
	x := uint64(max(d, 4))
	n := bits.Len64(x)
	return 4*n + int(x>>(n-3)&3)
}

// syncBound is the least duration above those of a place.
func syncBound(i int) time.Duration {
	return time.Duration(uint64(4+i%4+1) << max(0, i/4-3))
}
