package store

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"pando.dev/pando/partition"
)

const (
	// countBytes is what the tables of a state may take that is counted key by key;
	// a larger one is narrowed down by the sizes of its tables first.
	countBytes = 32 << 20
	// walkBytes bounds the keys and values that are read in one go. What lies behind
	// that counts for nothing.
	walkBytes = 128 << 20
	// scanLook is how many keys are read between two looks at the context.
	scanLook = 4096
)

// Quantiles returns n-1 keys, in the store's own order, that divide the bytes in a
// range into n parts about equal. They may be fewer if there are not enough keys.
// Large states are judged by the sizes of their tables and only a part of them is
// read; small ones are counted key by key.
func (s *Store) Quantiles(ctx context.Context, r partition.KeyRange, n int) ([][]byte, error) {
	db, err := s.use()
	if err != nil {
		return nil, err
	}
	defer s.sp.release()
	r = visible(r)
	if len(r.Hi) == 0 {
		r.Hi = pastAll()
	}
	if r.Empty() || n < 2 {
		return nil, nil
	}
	// What is in memory has no table yet.
	if err := s.sp.flush(ctx); err != nil {
		return nil, err
	}
	keys, err := quantiles(ctx, db, r, n, countBytes)
	if err != nil {
		return nil, inTime(fmt.Errorf("find the middle of store %s: %w", s.sp.id, err))
	}
	return keys, nil
}

func quantiles(ctx context.Context, db *pebble.DB, r partition.KeyRange, n int, small uint64) ([][]byte, error) {
	steps, err := stepsOf(db, r)
	if err != nil {
		return nil, err
	}
	total := steps[len(steps)-1].below
	if total <= small {
		return countAll(ctx, db, r, n)
	}
	var out [][]byte
	for i := 1; i < n; i++ {
		want := total / uint64(n) * uint64(i)
		at, _ := slices.BinarySearchFunc(steps, want, func(s step, w uint64) int {
			if s.below < w {
				return -1
			}
			return 1
		})
		at = min(max(at, 1), len(steps)-1)
		lo, hi := steps[at-1], steps[at]
		key, err := keyAt(ctx, db, partition.KeyRange{Lo: lo.key, Hi: hi.key}, want-lo.below, hi.below-lo.below)
		if err != nil {
			return nil, err
		}
		out = append(out, key)
	}
	return distinct(out, r), nil
}

// step is a key and how many bytes of tables lie below it.
type step struct {
	key   []byte
	below uint64
}

// stepsOf are the bounds of a range and of the tables in it, in order.
func stepsOf(db *pebble.DB, r partition.KeyRange) ([]step, error) {
	levels, _ := db.SSTables() // fails only for options that make no sense
	keys := [][]byte{r.Lo, r.Hi}
	for _, tables := range levels {
		for _, t := range tables {
			for _, k := range [][]byte{t.Smallest.UserKey, t.Largest.UserKey} {
				if r.Contains(k) {
					keys = append(keys, k)
				}
			}
		}
	}
	slices.SortFunc(keys, bytes.Compare)
	keys = slices.CompactFunc(keys, bytes.Equal)
	steps := make([]step, 0, len(keys))
	below := uint64(0)
	for i, k := range keys {
		if i > 0 {
			size, err := db.EstimateDiskUsage(keys[i-1], k)
			if err != nil {
				return nil, err
			}
			below += size
		}
		steps = append(steps, step{key: k, below: below})
	}
	return steps, nil
}

// keyAt returns the key of a range below which about want of its bytes lie, size
// being what its tables take.
func keyAt(ctx context.Context, db *pebble.DB, r partition.KeyRange, want, size uint64) ([]byte, error) {
	var last []byte
	// Tables are compressed, keys and values are not: so it goes by shares, of what
	// is read.
	total, err := count(ctx, db, r, func([]byte, uint64) bool { return true })
	if err != nil {
		return nil, err
	}
	goal := uint64(float64(total) * float64(want) / float64(max(size, 1)))
	_, err = count(ctx, db, r, func(k []byte, before uint64) bool {
		last = append(last[:0], k...)
		return before < goal
	})
	if last == nil {
		return r.Hi, err
	}
	return last, err
}

// count visits the keys of a range with the bytes before each, until fn has enough
// or walkBytes are read, and returns the bytes that it has come by.
func count(ctx context.Context, db *pebble.DB, r partition.KeyRange, fn func(key []byte, before uint64) bool) (uint64, error) {
	it := newIter(db, &pebble.IterOptions{LowerBound: r.Lo, UpperBound: r.Hi})
	sum, n := uint64(0), 0
	for ok := it.First(); ok && sum < walkBytes; ok = it.Next() {
		if n++; n%scanLook == 0 && ctx.Err() != nil {
			break
		}
		if !fn(it.Key(), sum) {
			break
		}
		v := it.LazyValue()
		sum += uint64(len(it.Key()) + v.Len())
	}
	err := it.Error()
	if cerr := it.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = ctx.Err()
	}
	return sum, err
}

// countAll divides a small state exactly.
func countAll(ctx context.Context, db *pebble.DB, r partition.KeyRange, n int) ([][]byte, error) {
	total, err := count(ctx, db, r, func([]byte, uint64) bool { return true })
	if err != nil {
		return nil, err
	}
	var out [][]byte
	_, err = count(ctx, db, r, func(k []byte, before uint64) bool {
		if before >= max(1, total*uint64(len(out)+1)/uint64(n)) {
			out = append(out, bytes.Clone(k))
		}
		return len(out) < n-1
	})
	return distinct(out, r), err
}

// distinct drops keys that divide nothing.
func distinct(keys [][]byte, r partition.KeyRange) [][]byte {
	slices.SortFunc(keys, bytes.Compare)
	keys = slices.CompactFunc(keys, bytes.Equal)
	return slices.DeleteFunc(keys, func(k []byte) bool { return bytes.Compare(k, r.Lo) <= 0 || !r.Contains(k) })
}
