package replica

import (
	"iter"

	"pando.dev/pando/partition"
)

// The state's key space is divided by the first byte of a key.
const (
	spaceMeta     = 0x01 // the configuration last applied
	spaceSessions = 0x02 // one row per session, and one per result
	spaceUser     = 0x03 // the partition's own keys
)

// userReader shows the partition its own keys of a Reader. Its buffer makes it
// good for one goroutine at a time, as every Reader is.
type userReader struct {
	r   partition.Reader
	key []byte
}

// at returns the key in the divided space. It is overwritten by the next call.
func (u *userReader) at(key []byte) []byte {
	u.key = append(append(u.key[:0], spaceUser), key...)
	return u.key
}

func (u *userReader) Get(key []byte) ([]byte, bool, error) { return u.r.Get(u.at(key)) }

func (u *userReader) Scan(k partition.KeyRange) iter.Seq2[partition.Pair, error] {
	return stripped(u.r.Scan(userRange(k)))
}

func (u *userReader) ScanBack(k partition.KeyRange) iter.Seq2[partition.Pair, error] {
	return stripped(u.r.ScanBack(userRange(k)))
}

// userWriter is userReader for a Writer.
type userWriter struct {
	userReader
	w partition.Writer
}

func (u *userWriter) Set(key, value []byte) error { return u.w.Set(u.at(key), value) }

func (u *userWriter) Delete(key []byte) error { return u.w.Delete(u.at(key)) }

func (u *userWriter) DeleteRange(k partition.KeyRange) error {
	if k.Empty() {
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
