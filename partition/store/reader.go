package store

import (
	"bytes"
	"iter"

	"github.com/cockroachdb/pebble/v2"

	"pando.dev/pando/partition"
)

// pin is one state of a store: an iterator that sees it, and of which each
// scan is a clone. Unlike a Pebble snapshot it takes no mutex of the store and
// never waits for a write of the MANIFEST, and a get costs no more than one
// without it. It keeps memtables and files from being freed, so it must be
// short. It is not for concurrent use.
type pin struct {
	it *pebble.Iterator // nil once closed
}

// newPin pins what is visible now.
func newPin(db *pebble.DB) pin {
	return pin{it: newIter(db, &pebble.IterOptions{UseL6Filters: true})}
}

func (p *pin) close() error {
	it := p.it
	p.it = nil
	if it == nil {
		return nil
	}
	return classify(it.Close())
}

// get reads any key, the store's own included.
func (p *pin) get(key []byte) ([]byte, bool, error) {
	if p.it == nil {
		return nil, false, errClosed
	}
	if !p.it.SeekPrefixGE(key) || !bytes.Equal(p.it.Key(), key) {
		return nil, false, classify(p.it.Error())
	}
	v, err := p.it.ValueAndErr()
	if err != nil {
		return nil, false, classify(err)
	}
	return v, true, nil
}

// scan yields the pairs of a range.
func (p *pin) scan(k partition.KeyRange, back bool) iter.Seq2[partition.Pair, error] {
	return walk(k, back, func(o *pebble.IterOptions) (*pebble.Iterator, error) {
		if p.it == nil {
			return nil, errClosed
		}
		return p.it.Clone(pebble.CloneOptions{IterOptions: o})
	})
}

// walk yields the pairs of a range from the iterator that open makes.
func walk(k partition.KeyRange, back bool, open func(*pebble.IterOptions) (*pebble.Iterator, error)) iter.Seq2[partition.Pair, error] {
	return func(yield func(partition.Pair, error) bool) {
		k := visible(k)
		if k.Empty() {
			return
		}
		o := pebble.IterOptions{LowerBound: k.Lo}
		if len(k.Hi) > 0 {
			o.UpperBound = k.Hi
		}
		it, err := open(&o)
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

// visible cuts the store's own keys off a range.
func visible(k partition.KeyRange) partition.KeyRange {
	return k.Intersect(partition.KeyRange{Lo: []byte{metaPrefix + 1}})
}

// own reports whether a key is in the store's own space.
func own(key []byte) bool { return len(key) == 0 || key[0] == metaPrefix }

// View is one consistent state of a store. It is for one goroutine; any number
// of views may be open at once, beside Apply. Each keeps its Pebble store open
// and memory and files of its state from being freed, so close it soon.
type View struct {
	pin pin
	sp  *space
}

var _ partition.Reader = (*View)(nil)

// Get implements partition.Reader.
func (v *View) Get(key []byte) ([]byte, bool, error) {
	if own(key) {
		return nil, false, nil
	}
	return v.pin.get(key)
}

// Scan implements partition.Reader.
func (v *View) Scan(k partition.KeyRange) iter.Seq2[partition.Pair, error] {
	return v.pin.scan(k, false)
}

// ScanBack implements partition.Reader.
func (v *View) ScanBack(k partition.KeyRange) iter.Seq2[partition.Pair, error] {
	return v.pin.scan(k, true)
}

// Applied is the index of the last record that the state contains.
func (v *View) Applied() (partition.Index, error) {
	b, ok, err := v.pin.get(appliedKey())
	if err != nil || !ok {
		return 0, err
	}
	return parseApplied(b)
}

// Close ends the view. Closing twice does nothing.
func (v *View) Close() error {
	if v.pin.it == nil {
		return nil
	}
	err := v.pin.close()
	v.sp.release()
	return err
}

// pastAll is above every key: longer than any and of the highest bytes.
func pastAll() []byte { return bytes.Repeat([]byte{0xff}, MaxKeyBytes+1) }
