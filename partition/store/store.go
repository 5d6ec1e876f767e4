package store

import (
	"context"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"pando.dev/pando/partition"
)

// entryBytes is what an entry costs in memory beyond its bytes in a batch.
const entryBytes = 48

// Store is a handle on the state of one replica. The Pebble store behind it
// opens on first use, may be closed while it is idle, and opens again; no call
// shows which. Apply is for the replica's actor alone; everything else may be
// called from any goroutine.
type Store struct {
	sp *space
}

// ID says whose state it is.
func (s *Store) ID() ID { return s.sp.id }

// use is acquire for a handle that may have lost its right.
func (s *Store) use() (*pebble.DB, error) {
	if s.sp.owner.Load() != s {
		return nil, errClosed
	}
	return s.sp.acquire()
}

// Apply runs fn and makes everything that it wrote, and index as the applied
// index, visible at once; after a crash all of it is there or none. fn may
// apply any number of records, of which index is the last; its reads see all
// earlier applies and its own writes. If fn returns an error nothing is
// written and the error is returned as it is.
//
// Nothing is durable when Apply returns: the log is. An index that was applied
// before is refused, so a replay starts behind Applied.
func (s *Store) Apply(index partition.Index, fn func(w partition.Writer) error) error {
	sp := s.sp
	sp.applyMu.Lock()
	defer sp.applyMu.Unlock()
	db, err := s.use()
	if err != nil {
		return err
	}
	defer sp.release()
	if at := partition.Index(sp.applied.Load()); index <= at {
		return partition.Errorf(partition.CodeInvalid, "store %s: apply of index %d, which is not after %d", sp.id, index, at)
	}
	f := sp.e.filters.Get().(*filter)
	defer sp.e.filters.Put(f)
	w := newWriter(db, f)
	defer w.close()
	if err := fn(w); err != nil {
		return err
	}
	w.done()
	if err := w.batch.Set(appliedKey(), appliedValue(index), nil); err != nil {
		return fmt.Errorf("apply to store %s: %w", sp.id, err)
	}
	n := int64(w.batch.Len()) + entryBytes*int64(w.batch.Count())
	if err := db.Apply(w.batch, pebble.NoSync); err != nil {
		return fmt.Errorf("apply to store %s: %w", sp.id, classify(err))
	}
	sp.applied.Store(uint64(index))
	sp.account(index, n)
	sp.e.applied(sp)
	return nil
}

// Applied is the index of the last apply, 0 for a new store. Right after the
// first use it is what survived the last run, and Durable is the same; the log
// may have been told less. It must not have been told more: a store that is
// behind what was reported as durable has lost files, and its replica must be
// replaced.
func (s *Store) Applied() (partition.Index, error) {
	if !s.sp.known.Load() || s.sp.owner.Load() != s {
		if _, err := s.use(); err != nil {
			return 0, err
		}
		s.sp.release()
	}
	return partition.Index(s.sp.applied.Load()), nil
}

// Durable is the index through which the state survives a crash, as far as is
// known; 0 before the first use.
func (s *Store) Durable() partition.Index { return partition.Index(s.sp.durable.Load()) }

// View returns the present state. Close it.
func (s *Store) View() (*View, error) {
	db, err := s.use()
	if err != nil {
		return nil, err
	}
	return &View{pin: newPin(db), sp: s.sp}, nil
}

// Flush makes durable what was applied before the call and returns the index
// through which the state now is. If ctx ends first the flush goes on.
func (s *Store) Flush(ctx context.Context) (partition.Index, error) {
	if _, err := s.use(); err != nil {
		return 0, err
	}
	defer s.sp.release()
	if err := s.sp.flush(ctx); err != nil {
		return s.Durable(), err
	}
	return s.Durable(), nil
}

// FlushSoon asks for a flush without waiting for it: the caller's log wants to
// let go of the records that the store has not made durable. If there is
// nothing to flush, Options.Durable is told again how far the store is.
func (s *Store) FlushSoon() {
	if s.sp.unflushed.Load() == 0 {
		s.sp.announce()
		return
	}
	s.sp.urgent.Store(true)
	s.sp.e.wakeControl()
}

// NeedsRoom reports that there is too much in memory, of this store or of all,
// or that flushing fails: the caller then defers applying, because an Apply
// now could block, and tries again after AwaitRoom's call.
func (s *Store) NeedsRoom() bool { return s.sp.needsRoom() }

// AwaitRoom has fn called once, on a goroutine of the engine, when NeedsRoom
// has become false. One call per handle is remembered, the last. fn must not
// block or call back into the engine.
func (s *Store) AwaitRoom(fn func()) {
	s.sp.e.dirtyMu.Lock()
	s.sp.e.roomFor[s] = fn
	s.sp.e.dirtyMu.Unlock()
	s.sp.e.wakeControl()
}

// Health is nil, or what is wrong: CodeCorrupt when a file is damaged (the
// error names it; the replica must be rebuilt), CodeNoSpace while the disk is
// full (it passes by itself), or another error of the disk.
func (s *Store) Health() error { return s.sp.health() }

// Close gives the handle up. The store stays as it is; what is not durable
// remains in memory and is flushed in its turn.
func (s *Store) Close() error {
	s.sp.e.dirtyMu.Lock()
	delete(s.sp.e.roomFor, s)
	s.sp.e.dirtyMu.Unlock()
	s.sp.owner.CompareAndSwap(s, nil)
	return nil
}
