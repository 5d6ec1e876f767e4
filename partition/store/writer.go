package store

import (
	"errors"
	"hash/maphash"
	"io"
	"iter"

	"github.com/cockroachdb/pebble/v2"

	"pando.dev/pando/partition"
)

// filterBits is the size of a writer's filter: with the keys of a thousand
// records in it, one in 64 reads of other keys passes for one of them.
const filterBits = 1 << 16

// filter remembers which keys an Apply has written, in the manner of a Bloom
// filter with one hash: no bit says that the key was not written.
type filter struct {
	seed maphash.Seed
	bits [filterBits / 64]uint64
}

func newFilter() *filter { return &filter{seed: maphash.MakeSeed()} }

func (f *filter) add(key []byte) {
	h := maphash.Bytes(f.seed, key) % filterBits
	f.bits[h/64] |= 1 << (h % 64)
}

func (f *filter) has(key []byte) bool {
	h := maphash.Bytes(f.seed, key) % filterBits
	return f.bits[h/64]&(1<<(h%64)) != 0
}

func (f *filter) reset() { clear(f.bits[:]) }

// writer collects what one Apply writes, in a plain batch as long as nothing
// is read that may have been written before in the same Apply: reads of other
// keys go to the state before it. The first read that the filter does not rule
// out, and the first scan behind a write, move the batch into an indexed one,
// which everything goes to from then on. Reading through an indexed batch costs
// half as much again, and most commands that read touch keys of their own.
type writer struct {
	db      *pebble.DB
	batch   *pebble.Batch
	indexed bool
	ranged  bool // a range was deleted: the filter knows nothing of its keys
	written *filter
	before  pin       // the state before, if anything was read from it
	closer  io.Closer // of the last value read from an indexed batch
}

var _ partition.Writer = (*writer)(nil)

func newWriter(db *pebble.DB, f *filter) *writer {
	return &writer{db: db, batch: db.NewBatch(), written: f}
}

// close ends the writer, whatever its user still does with it.
func (w *writer) close() {
	w.done()
	_ = w.before.close()
	_ = w.batch.Close()
	w.batch = nil
	w.written.reset()
}

// done ends the validity of the last value read.
func (w *writer) done() {
	if w.closer != nil {
		_ = w.closer.Close()
		w.closer = nil
	}
}

// index makes the writes so far readable.
func (w *writer) index() {
	if w.indexed {
		return
	}
	b := w.db.NewIndexedBatchWithSize(max(2*w.batch.Len(), 4<<10))
	_ = b.Apply(w.batch, nil) // a batch in memory takes another
	_ = w.batch.Close()
	w.batch, w.indexed = b, true
}

// pinned makes the state before readable.
func (w *writer) pinned() {
	if w.before.it == nil {
		w.before = newPin(w.db)
	}
}

// Get implements partition.Reader.
func (w *writer) Get(key []byte) ([]byte, bool, error) {
	w.done()
	switch {
	case w.batch == nil:
		return nil, false, errClosed
	case own(key):
		return nil, false, nil
	case !w.indexed && !w.ranged && !w.written.has(key):
		w.pinned()
		return w.before.get(key)
	}
	w.index()
	v, closer, err := w.batch.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, classify(err)
	}
	w.closer = closer
	return v, true, nil
}

// Scan implements partition.Reader. What is written while it runs is not seen
// by it.
func (w *writer) Scan(k partition.KeyRange) iter.Seq2[partition.Pair, error] { return w.scan(k, false) }

// ScanBack implements partition.Reader.
func (w *writer) ScanBack(k partition.KeyRange) iter.Seq2[partition.Pair, error] {
	return w.scan(k, true)
}

func (w *writer) scan(k partition.KeyRange, back bool) iter.Seq2[partition.Pair, error] {
	return walk(k, back, func(o *pebble.IterOptions) (*pebble.Iterator, error) {
		w.done()
		if w.batch == nil {
			return nil, errClosed
		}
		if w.batch.Empty() {
			return w.db.NewIter(o)
		}
		w.index()
		return w.batch.NewIter(o)
	})
}

// check refuses a write that cannot be, and ends the validity of the last
// value read.
func (w *writer) check(key []byte, bytes int) error {
	w.done()
	switch {
	case w.batch == nil:
		return errClosed
	case own(key):
		return partition.Errorf(partition.CodeInvalid, "key %q is in the store's own space", key)
	case len(key) > MaxKeyBytes:
		return partition.Errorf(partition.CodeTooLarge, "key of %d bytes, limit %d", len(key), MaxKeyBytes)
	case w.batch.Len()+len(key)+bytes > MaxApplyBytes:
		return partition.Errorf(partition.CodeTooLarge, "one apply writes more than %d bytes", MaxApplyBytes)
	}
	return nil
}

// note remembers that a key is written.
func (w *writer) note(key []byte) {
	if !w.indexed {
		w.written.add(key)
	}
}

// Set implements partition.Writer.
func (w *writer) Set(key, value []byte) error {
	if err := w.check(key, len(value)); err != nil {
		return err
	}
	w.note(key)
	return w.batch.Set(key, value, nil)
}

// Delete implements partition.Writer.
func (w *writer) Delete(key []byte) error {
	if err := w.check(key, 0); err != nil {
		return err
	}
	w.note(key)
	return w.batch.Delete(key, nil)
}

// DeleteRange implements partition.Writer.
func (w *writer) DeleteRange(k partition.KeyRange) error {
	k = visible(k)
	if k.Empty() {
		w.done()
		return nil
	}
	if len(k.Hi) == 0 {
		k.Hi = pastAll()
	}
	if err := w.check(k.Lo, len(k.Hi)); err != nil {
		return err
	}
	w.ranged = true
	return w.batch.DeleteRange(k.Lo, k.Hi, nil)
}
