package store

import (
	"iter"

	"pando.dev/pando/partition"
)

// Under returns the part of a key space whose keys begin with prefix, as a key
// space of its own that does not show the prefix. So the raw space of a
// replica is divided among those who keep something in it, and a partition kind may
// use any key. The prefix must not be 0.
func Under(prefix byte, w partition.Writer) partition.Writer {
	return &underWriter{underReader{prefix: prefix, r: w}, w}
}

// ReadUnder is Under for reading.
func ReadUnder(prefix byte, r partition.Reader) partition.Reader {
	return &underReader{prefix: prefix, r: r}
}

type underReader struct {
	prefix byte
	r      partition.Reader
	buf    []byte // the key of the call under way
}

type underWriter struct {
	underReader
	w partition.Writer
}

var (
	_ partition.Reader = (*underReader)(nil)
	_ partition.Writer = (*underWriter)(nil)
)

// key puts the prefix before a key. It is valid until the next call.
func (u *underReader) key(k []byte) []byte {
	u.buf = append(append(u.buf[:0], u.prefix), k...)
	return u.buf
}

// span puts the prefix before a range. It has memory of its own, because a
// scan outlives other calls.
func (u *underReader) span(k partition.KeyRange) partition.KeyRange {
	out := partition.KeyRange{Lo: append([]byte{u.prefix}, k.Lo...)}
	switch {
	case len(k.Hi) > 0:
		out.Hi = append([]byte{u.prefix}, k.Hi...)
	case u.prefix < 0xff:
		out.Hi = []byte{u.prefix + 1}
	}
	return out
}

// Get implements partition.Reader.
func (u *underReader) Get(key []byte) ([]byte, bool, error) { return u.r.Get(u.key(key)) }

// Scan implements partition.Reader.
func (u *underReader) Scan(k partition.KeyRange) iter.Seq2[partition.Pair, error] {
	return strip(u.r.Scan(u.span(k)))
}

// ScanBack implements partition.Reader.
func (u *underReader) ScanBack(k partition.KeyRange) iter.Seq2[partition.Pair, error] {
	return strip(u.r.ScanBack(u.span(k)))
}

// strip takes the prefix off what a scan yields.
func strip(pairs iter.Seq2[partition.Pair, error]) iter.Seq2[partition.Pair, error] {
	return func(yield func(partition.Pair, error) bool) {
		for p, err := range pairs {
			if err == nil {
				p.Key = p.Key[1:]
			}
			if !yield(p, err) {
				return
			}
		}
	}
}

// Set implements partition.Writer.
func (u *underWriter) Set(key, value []byte) error { return u.w.Set(u.key(key), value) }

// Delete implements partition.Writer.
func (u *underWriter) Delete(key []byte) error { return u.w.Delete(u.key(key)) }

// DeleteRange implements partition.Writer.
func (u *underWriter) DeleteRange(k partition.KeyRange) error {
	if k.Empty() {
		return nil
	}
	return u.w.DeleteRange(u.span(k))
}
