package store

import (
	"bytes"
	"errors"
	"io"
	"iter"

	"github.com/cockroachdb/pebble/v2"

	"pando.dev/pando/partition"
)

// reader reads one state. It is not for concurrent use.
type reader struct {
	src    pebble.Reader
	closer io.Closer // of the last value handed out
}

// done ends the validity of the last value.
func (r *reader) done() {
	if r.closer != nil {
		_ = r.closer.Close()
		r.closer = nil
	}
}

func (r *reader) get(key []byte) ([]byte, bool, error) {
	r.done()
	if r.src == nil {
		return nil, false, errClosed
	}
	if len(key) == 0 || key[0] == metaPrefix {
		return nil, false, nil
	}
	v, closer, err := r.src.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, classify(err)
	}
	r.closer = closer
	return v, true, nil
}

// visible cuts the store's own keys off a range.
func visible(k partition.KeyRange) partition.KeyRange {
	return k.Intersect(partition.KeyRange{Lo: []byte{metaPrefix + 1}})
}

// scan yields the pairs of the range in one direction.
func (r *reader) scan(k partition.KeyRange, back bool) iter.Seq2[partition.Pair, error] {
	return func(yield func(partition.Pair, error) bool) {
		r.done()
		if r.src == nil {
			yield(partition.Pair{}, errClosed)
			return
		}
		k := visible(k)
		if k.Empty() {
			return
		}
		o := pebble.IterOptions{LowerBound: k.Lo}
		if len(k.Hi) > 0 {
			o.UpperBound = k.Hi
		}
		it, err := r.src.NewIter(&o)
		if err != nil {
			yield(partition.Pair{}, classify(err))
			return
		}
		defer func() { _ = it.Close() }()
		first, next := it.First, it.Next
		if back {
			first, next = it.Last, it.Prev
		}
		for ok := first(); ok; ok = next() {
			v, err := it.ValueAndErr()
			if err != nil {
				yield(partition.Pair{}, classify(err))
				return
			}
			if !yield(partition.Pair{Key: it.Key(), Value: v}, nil) {
				return
			}
		}
		if err := it.Error(); err != nil {
			yield(partition.Pair{}, classify(err))
		}
	}
}

// View is one consistent state of a store. It is for one goroutine; any number
// of views may be open at once, beside Apply. Each keeps its Pebble store open
// and old versions of its keys on disk, so close it soon.
type View struct {
	reader
	sp   *space
	snap *pebble.Snapshot
}

var _ partition.Reader = (*View)(nil)

// Get implements partition.Reader.
func (v *View) Get(key []byte) ([]byte, bool, error) { return v.get(key) }

// Scan implements partition.Reader.
func (v *View) Scan(k partition.KeyRange) iter.Seq2[partition.Pair, error] { return v.scan(k, false) }

// ScanBack implements partition.Reader.
func (v *View) ScanBack(k partition.KeyRange) iter.Seq2[partition.Pair, error] {
	return v.scan(k, true)
}

// Applied is the index of the last record that the state contains.
func (v *View) Applied() (partition.Index, error) {
	v.done()
	if v.src == nil {
		return 0, errClosed
	}
	i, err := visibleIndex(v.snap)
	return i, classify(err)
}

// Close ends the view. Closing twice does nothing.
func (v *View) Close() error {
	if v.src == nil {
		return nil
	}
	v.done()
	v.src = nil
	err := v.snap.Close()
	v.sp.release()
	return err
}

// pastAll is above every key: longer than any and of the highest bytes.
func pastAll() []byte { return bytes.Repeat([]byte{0xff}, MaxKeyBytes+1) }
