package replica

import (
	"iter"

	"pando.dev/pando/partition"
)

// The state's key space is divided by the first byte of a key.
const (
	spaceMeta     = 0x01 // the configuration last applied, and the extent
	spaceSessions = 0x02 // one row per session, and one per result
	spaceUser     = 0x03 // the partition's own keys
	spaceSplit    = 0x04 // rows of sessions as they were when a split was activated
	spaceMerge    = 0x05 // rows of sessions of the source of a merge
)

// noKeys is a range of no key.
func noKeys() partition.KeyRange { return partition.KeyRange{Lo: []byte{0}, Hi: []byte{0}} }

// Foreign returns the ranges of a state's rows, as its store has them, that hold
// keys which are not the group's: nobody sees them and they may go at any time, as
// soon as nothing is made from them any more. Digests of two states are compared
// without them.
func Foreign(x partition.Extent) []partition.KeyRange {
	var f []partition.KeyRange
	if m := x.Merge; m != nil && m.Phase == partition.Absorbing {
		x.Range.Hi = m.Range.Hi // nobody sees them, but they are to stay
	}
	own := userRange(x.Range)
	if len(x.Range.Lo) > 0 {
		f = append(f, partition.KeyRange{Lo: []byte{spaceUser}, Hi: own.Lo})
	}
	if len(x.Range.Hi) > 0 {
		f = append(f, partition.KeyRange{Lo: own.Hi, Hi: []byte{spaceUser + 1}})
	}
	return f
}

// Rows returns the range of a state's rows, as its store has them, that hold the
// keys of a range. A row's key is the key behind one byte.
func Rows(k partition.KeyRange) partition.KeyRange { return userRange(k) }

// userReader shows the partition its own keys of a Reader: those of mask. Its
// buffer makes it good for one goroutine at a time, as every Reader is.
type userReader struct {
	r    partition.Reader
	mask partition.KeyRange
	key  []byte
}

// at returns the key in the divided space. It is overwritten by the next call.
func (u *userReader) at(key []byte) []byte {
	u.key = append(append(u.key[:0], spaceUser), key...)
	return u.key
}

func (u *userReader) Get(key []byte) ([]byte, bool, error) {
	if !u.mask.Contains(key) {
		return nil, false, nil
	}
	return u.r.Get(u.at(key))
}

func (u *userReader) Scan(k partition.KeyRange) iter.Seq2[partition.Pair, error] {
	return stripped(u.r.Scan(u.within(k)))
}

func (u *userReader) ScanBack(k partition.KeyRange) iter.Seq2[partition.Pair, error] {
	return stripped(u.r.ScanBack(u.within(k)))
}

// within is the part of a range that is not masked, in the divided space.
func (u *userReader) within(k partition.KeyRange) partition.KeyRange {
	if k = k.Intersect(u.mask); k.Empty() {
		return noKeys()
	}
	return userRange(k)
}

// userWriter is userReader for a Writer. What it is not allowed to write it leaves
// as it is.
type userWriter struct {
	userReader
	w partition.Writer
}

func (u *userWriter) Set(key, value []byte) error {
	if !u.mask.Contains(key) {
		return nil
	}
	return u.w.Set(u.at(key), value)
}

func (u *userWriter) Delete(key []byte) error {
	if !u.mask.Contains(key) {
		return nil
	}
	return u.w.Delete(u.at(key))
}

func (u *userWriter) DeleteRange(k partition.KeyRange) error {
	if k = k.Intersect(u.mask); k.Empty() {
		return nil
	}
	return u.w.DeleteRange(userRange(k))
}

// userRange is the range in the divided space. Its keys are new, since a scan
// outlives other calls.
func userRange(k partition.KeyRange) partition.KeyRange {
	d := partition.KeyRange{Lo: append([]byte{spaceUser}, k.Lo...), Hi: []byte{spaceUser + 1}}
	if len(k.Hi) > 0 {
		d.Hi = append([]byte{spaceUser}, k.Hi...)
	}
	return d
}

func stripped(in iter.Seq2[partition.Pair, error]) iter.Seq2[partition.Pair, error] {
	return func(yield func(partition.Pair, error) bool) {
		for p, err := range in {
			if len(p.Key) > 0 {
				p.Key = p.Key[1:]
			}
			if !yield(p, err) {
				return
			}
		}
	}
}

var (
	_ partition.Reader = (*userReader)(nil)
	_ partition.Writer = (*userWriter)(nil)
)
