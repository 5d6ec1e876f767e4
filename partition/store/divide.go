package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"pando.dev/pando/partition"
)

// Divide makes the store of another replica on this node, of group g in the
// given generation, out of this one's present state: hard links, so it costs no
// space and reads no table. Then adopt turns the copy into what the other
// replica begins with, and the copy's applied index becomes base, which may be
// before this store's: what was applied behind it must not matter to the other
// one. Apply goes on meanwhile.
//
// When it returns without an error the new store is durable. It is up to the log
// when it counts: until then the next start removes it, as it removes what a
// crash has left in the middle of this.
func (s *Store) Divide(ctx context.Context, g partition.GroupID, generation uint32, base partition.Index, adopt func(w partition.Writer) error) error {
	db, err := s.use()
	if err != nil {
		return err
	}
	defer s.sp.release()
	id := ID{Group: g, Generation: generation}
	if err := s.sp.divide(ctx, db, id, base, adopt); err != nil {
		return classify(fmt.Errorf("make store %s out of %s: %w", id, s.sp.id, err))
	}
	return nil
}

// Seed makes the store of another replica on this node, of group g in the given
// generation, a copy of this one's present state, as Divide does, and leaves it
// open, to be brought further by Apply before it counts: so that little is left to
// do when it is to. Apply goes on here meanwhile.
//
// It is up to the log when the new store counts, and to the caller that it is
// durable by then; until then the next start removes it.
func (s *Store) Seed(ctx context.Context, g partition.GroupID, generation uint32) (*Store, error) {
	db, err := s.use()
	if err != nil {
		return nil, err
	}
	defer s.sp.release()
	id := ID{Group: g, Generation: generation}
	seed, err := s.sp.copyTo(ctx, db, id)
	if err == nil {
		if _, err = seed.Applied(); err != nil { // opened by that
			err = errors.Join(err, s.sp.e.Drop(g, generation))
		}
	}
	if err != nil {
		return nil, classify(fmt.Errorf("make store %s out of %s: %w", id, s.sp.id, err))
	}
	return seed, nil
}

func (sp *space) divide(ctx context.Context, db *pebble.DB, id ID, base partition.Index, adopt func(w partition.Writer) error) error {
	if at := partition.Index(sp.applied.Load()); at < base {
		return partition.Errorf(partition.CodeInvalid, "the state is at index %d, the other one begins at %d", at, base)
	}
	child, err := sp.copyTo(ctx, db, id)
	if err != nil {
		return err
	}
	defer child.Close()
	if err := child.rebase(ctx, base, adopt); err != nil {
		return errors.Join(err, sp.e.Drop(id.Group, id.Generation))
	}
	return nil
}

// copyTo makes another store of hard links to the state as it is, and returns a
// handle on it. After an error nothing of it is left.
func (sp *space) copyTo(ctx context.Context, db *pebble.DB, id ID) (child *Store, err error) {
	e, dir := sp.e, id.path(sp.e)
	if _, err := e.fs.Stat(dir); err == nil {
		return nil, partition.Errorf(partition.CodeExists, "store %s exists", id)
	}
	if err := sp.flush(ctx); err != nil {
		return nil, err
	}
	if err := sp.ensureManifest(ctx, db); err != nil {
		return nil, err
	}
	if err := e.makeDir(e.fs.PathDir(dir)); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.Drop(id.Group, id.Generation))
		}
	}()
	if err := db.Checkpoint(dir); err != nil {
		return nil, err
	}
	if err := e.writeIdentity(dir, id.Group); err != nil { // and syncs the directory
		return nil, err
	}
	return e.Open(id.Group, id.Generation)
}

// rebase makes what fn writes, and index as the applied index whatever it was,
// durable. Nobody else has a handle on the store, and no index of it was
// announced that the log takes for its replica's.
func (s *Store) rebase(ctx context.Context, index partition.Index, fn func(w partition.Writer) error) error {
	sp := s.sp
	db, err := s.use()
	if err != nil {
		return err
	}
	defer sp.release()
	sp.applyMu.Lock()
	defer sp.applyMu.Unlock()
	f := sp.e.filters.Get().(*filter)
	defer sp.e.filters.Put(f)
	w := newWriter(db, f)
	defer w.close()
	if err := fn(w); err != nil {
		return err
	}
	w.done()
	if err := w.batch.Set(appliedKey(), appliedValue(index), nil); err != nil {
		return err
	}
	if err := db.Apply(w.batch, pebble.NoSync); err != nil {
		return err
	}
	// Not by the store's own flush: that goes by indexes, and this one has gone back.
	flushed, err := db.AsyncFlush()
	if err != nil {
		return err
	}
	select {
	case <-flushed:
	case <-ctx.Done():
		return partition.Errorf(partition.CodeTimeout, "flush of store %s: %v", sp.id, ctx.Err())
	case <-sp.e.quit:
		return errClosed
	}
	sp.durableMu.Lock()
	defer sp.durableMu.Unlock()
	at, err := durableIndex(db)
	if err != nil {
		return err
	}
	if at != index {
		return partition.Errorf(partition.CodeInternal, "store %s is at %d and was to begin at %d", sp.id, at, index)
	}
	sp.applied.Store(uint64(index))
	sp.durable.Store(uint64(index))
	return nil
}

// Reclaim removes the keys of ranges that are not the replica's, in the store's
// own order of keys. They must be hidden from whoever reads the state: this is no
// record's doing, so each replica does it in its own time, and a crash may take it
// back. It reports whether there was anything to remove.
//
// It writes a tombstone, has it flushed, and compacts what it covers, as one of
// the node's compactions. If it ends before, ordinary compactions do the rest.
func (s *Store) Reclaim(ctx context.Context, ranges ...partition.KeyRange) (bool, error) {
	sp := s.sp
	db, err := s.use()
	if err != nil {
		return false, err
	}
	defer sp.release()
	any, err := s.reclaim(ctx, db, ranges)
	if err != nil {
		return any, inTime(fmt.Errorf("remove foreign keys from store %s: %w", sp.id, err))
	}
	return any, nil
}

func (s *Store) reclaim(ctx context.Context, db *pebble.DB, ranges []partition.KeyRange) (bool, error) {
	sp := s.sp
	var foreign []partition.KeyRange // in which there is something
	for _, r := range ranges {
		if r = visible(r); len(r.Hi) == 0 {
			r.Hi = pastAll()
		}
		if r.Empty() {
			continue
		}
		found, err := holdsAny(db, r)
		if err != nil {
			return false, err
		}
		if found {
			foreign = append(foreign, r)
		}
	}
	for _, r := range foreign {
		if err := s.removeRange(ctx, db, r); err != nil {
			return true, err
		}
	}
	for range min(2, 2*len(foreign)) { // one that is under way may have begun before
		select {
		case <-sp.startFlush():
		case <-ctx.Done():
			return true, ctx.Err()
		case <-sp.e.quit:
			return true, errClosed
		}
	}
	for _, r := range foreign {
		if err := sp.compact(ctx, r); err != nil {
			return true, err
		}
	}
	return len(foreign) > 0, nil
}

// removeRange writes a tombstone, unless the removal has ended or the handle was
// given up meanwhile: what was foreign for it may be filled by what the next one applies.
func (s *Store) removeRange(ctx context.Context, db *pebble.DB, r partition.KeyRange) error {
	s.sp.applyMu.Lock()
	defer s.sp.applyMu.Unlock()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case s.sp.owner.Load() != s:
		return errClosed
	}
	return db.DeleteRange(r.Lo, r.Hi, pebble.NoSync)
}

// compact rewrites a range. If ctx ends before, that goes on, and keeps the store
// open meanwhile: Pebble must not be told to forget a compaction that it has picked
// already and that waits for its turn, for it panics when the turn comes.
func (sp *space) compact(ctx context.Context, r partition.KeyRange) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	db, err := sp.acquire()
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		defer sp.release()
		done <- db.Compact(context.Background(), r.Lo, r.Hi, false)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-sp.e.quit:
		return errClosed
	}
}

// holdsAny reports whether there is a key in a range.
func holdsAny(db *pebble.DB, r partition.KeyRange) (bool, error) {
	it := newIter(db, &pebble.IterOptions{LowerBound: r.Lo, UpperBound: r.Hi})
	found := it.First()
	err := it.Error()
	if cerr := it.Close(); err == nil {
		err = cerr
	}
	return found, err
}
