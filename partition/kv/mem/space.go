package mem

import (
	"bytes"
	"iter"
	"slices"

	"pando.dev/pando/partition"
)

// Space is a key space. The zero value is empty and ready. It is not for
// concurrent use.
type Space struct {
	pairs []partition.Pair // sorted by key; keys and values are never changed
	lent  []byte           // what Get returned last, to be spoiled at the next call
}

var _ partition.Writer = (*Space)(nil)

// Clone returns a copy that goes its own way.
func (s *Space) Clone() *Space { return &Space{pairs: slices.Clone(s.pairs)} }

// Len is the number of keys.
func (s *Space) Len() int { return len(s.pairs) }

func (s *Space) find(key []byte) (int, bool) {
	return slices.BinarySearchFunc(s.pairs, key, func(p partition.Pair, k []byte) int { return bytes.Compare(p.Key, k) })
}

// spoil ends the validity of what was handed out.
func spoil(b []byte) {
	for i := range b {
		b[i] ^= 0xff
	}
}

// called ends the validity of what Get returned before. A call does it last:
// its arguments may be what is spoiled.
func (s *Space) called() {
	spoil(s.lent)
	s.lent = nil
}

// Get implements partition.Reader.
func (s *Space) Get(key []byte) ([]byte, bool, error) {
	i, ok := s.find(key)
	s.called()
	if !ok {
		return nil, false, nil
	}
	s.lent = bytes.Clone(s.pairs[i].Value)
	return s.lent, true, nil
}

// span is the pairs of a range, as they are now.
func (s *Space) span(r partition.KeyRange) (lo, hi int) {
	if r.Empty() {
		return 0, 0
	}
	lo, _ = s.find(r.Lo)
	hi = len(s.pairs)
	if len(r.Hi) > 0 {
		hi, _ = s.find(r.Hi)
	}
	return lo, hi
}

// Scan implements partition.Reader. It yields what was there when it began.
func (s *Space) Scan(r partition.KeyRange) iter.Seq2[partition.Pair, error] { return s.walk(r, false) }

// ScanBack implements partition.Reader.
func (s *Space) ScanBack(r partition.KeyRange) iter.Seq2[partition.Pair, error] {
	return s.walk(r, true)
}

func (s *Space) walk(r partition.KeyRange, back bool) iter.Seq2[partition.Pair, error] {
	return func(yield func(partition.Pair, error) bool) {
		lo, hi := s.span(r)
		s.called()
		pairs := slices.Clone(s.pairs[lo:hi])
		if back {
			slices.Reverse(pairs)
		}
		for _, p := range pairs {
			p = partition.Pair{Key: bytes.Clone(p.Key), Value: bytes.Clone(p.Value)}
			more := yield(p, nil)
			spoil(p.Key)
			spoil(p.Value)
			if !more {
				return
			}
		}
	}
}

// Set implements partition.Writer.
func (s *Space) Set(key, value []byte) error {
	p := partition.Pair{Key: bytes.Clone(key), Value: bytes.Clone(value)}
	s.called()
	if i, ok := s.find(p.Key); ok {
		s.pairs[i] = p
	} else {
		s.pairs = slices.Insert(s.pairs, i, p)
	}
	return nil
}

// Delete implements partition.Writer.
func (s *Space) Delete(key []byte) error {
	if i, ok := s.find(key); ok {
		s.pairs = slices.Delete(s.pairs, i, i+1)
	}
	s.called()
	return nil
}

// DeleteRange implements partition.Writer.
func (s *Space) DeleteRange(r partition.KeyRange) error {
	lo, hi := s.span(r)
	s.pairs = slices.Delete(s.pairs, lo, hi)
	s.called()
	return nil
}
