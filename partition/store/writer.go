package store

import (
	"fmt"
	"iter"

	"github.com/cockroachdb/pebble/v2"

	"pando.dev/pando/partition"
)

// writer collects what one Apply writes. As long as nothing is read after it
// was written, the batch is a plain one, and reads go to the store; the first
// read behind a write moves it into an indexed batch, which both reads and
// writes go to from then on.
type writer struct {
	reader
	db      *pebble.DB
	batch   *pebble.Batch
	indexed bool
}

var _ partition.Writer = (*writer)(nil)

// newWriter starts with an indexed batch if the store's last Apply ended with
// one: a partition that reads what it writes does so again.
func newWriter(db *pebble.DB, indexed bool) *writer {
	w := &writer{reader: reader{src: db}, db: db, indexed: indexed}
	if indexed {
		w.batch = db.NewIndexedBatch()
		w.src = w.batch
	} else {
		w.batch = db.NewBatch()
	}
	return w
}

// close ends the writer, whatever its user still does with it.
func (w *writer) close() {
	w.done()
	_ = w.batch.Close()
	w.batch, w.src = nil, nil
}

// index makes the writes so far readable.
func (w *writer) index() error {
	if w.indexed || w.batch == nil || w.batch.Empty() {
		return nil
	}
	b := w.db.NewIndexedBatchWithSize(max(2*w.batch.Len(), 4<<10))
	if err := b.Apply(w.batch, nil); err != nil {
		_ = b.Close()
		return fmt.Errorf("index a batch: %w", err)
	}
	_ = w.batch.Close()
	w.batch, w.src, w.indexed = b, b, true
	return nil
}

// Get implements partition.Reader.
func (w *writer) Get(key []byte) ([]byte, bool, error) {
	if err := w.index(); err != nil {
		return nil, false, err
	}
	return w.get(key)
}

// Scan implements partition.Reader. What is written while it runs is not seen
// by it.
func (w *writer) Scan(k partition.KeyRange) iter.Seq2[partition.Pair, error] { return w.walk(k, false) }

// ScanBack implements partition.Reader.
func (w *writer) ScanBack(k partition.KeyRange) iter.Seq2[partition.Pair, error] {
	return w.walk(k, true)
}

func (w *writer) walk(k partition.KeyRange, back bool) iter.Seq2[partition.Pair, error] {
	return func(yield func(partition.Pair, error) bool) {
		if err := w.index(); err != nil {
			yield(partition.Pair{}, err)
			return
		}
		w.scan(k, back)(yield)
	}
}

// check refuses a write that cannot be, and ends the validity of the last
// value read.
func (w *writer) check(key []byte, bytes int) error {
	w.done()
	switch {
	case w.batch == nil:
		return errClosed
	case len(key) == 0 || key[0] == metaPrefix:
		return partition.Errorf(partition.CodeInvalid, "key %q is in the store's own space", key)
	case len(key) > MaxKeyBytes:
		return partition.Errorf(partition.CodeTooLarge, "key of %d bytes, limit %d", len(key), MaxKeyBytes)
	case w.batch.Len()+len(key)+bytes > MaxApplyBytes:
		return partition.Errorf(partition.CodeTooLarge, "one apply writes more than %d bytes", MaxApplyBytes)
	}
	return nil
}

// Set implements partition.Writer.
func (w *writer) Set(key, value []byte) error {
	if err := w.check(key, len(value)); err != nil {
		return err
	}
	return w.batch.Set(key, value, nil)
}

// Delete implements partition.Writer.
func (w *writer) Delete(key []byte) error {
	if err := w.check(key, 0); err != nil {
		return err
	}
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
	return w.batch.DeleteRange(k.Lo, k.Hi, nil)
}
