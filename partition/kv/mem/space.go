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
	lent  [][]byte         // handed out and to be spoiled at the next call
}

var _ partition.Writer = (*Space)(nil)

// Clone returns a copy that goes its own way.
func (s *Space) Clone() *Space { return &Space{pairs: slices.Clone(s.pairs)} }

// Len is the number of keys.
func (s *Space) Len() int { return len(s.pairs) }

func (s *Space) find(key []byte) (int, bool) {
	return slices.BinarySearchFunc(s.pairs, key, func(p partition.Pair, k []byte) int { return bytes.Compare(p.Key, k) })
}

// lend copies b for the caller and spoils what was lent before.
func (s *Space) lend(b []byte) []byte {
	c := bytes.Clone(b)
	s.lent = append(s.lent, c)
	return c
}

// spoil ends the validity of everything that was lent.
func (s *Space) spoil() {
	for _, b := range s.lent {
		for i := range b {
			b[i] ^= 0xff
		}
	}
	s.lent = s.lent[:0]
}

// Get implements partition.Reader.
func (s *Space) Get(key []byte) ([]byte, bool, error) {
	defer s.spoilBut(len(s.lent))
	i, ok := s.find(key)
	if !ok {
		return nil, false, nil
	}
	return s.lend(s.pairs[i].Value), true, nil
}

// spoilBut spoils the first n of what was lent. It runs after the arguments of
// a call were read: they may be what is spoiled.
func (s *Space) spoilBut(n int) {
	later := slices.Clone(s.lent[n:])
	s.lent = s.lent[:n]
	s.spoil()
	s.lent = append(s.lent, later...)
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
		s.spoil()
		lo, hi := s.span(r)
		pairs := slices.Clone(s.pairs[lo:hi])
		if back {
			slices.Reverse(pairs)
		}
		for _, p := range pairs {
			if !yield(partition.Pair{Key: s.lend(p.Key), Value: s.lend(p.Value)}, nil) {
				break
			}
			s.spoil()
		}
		s.spoil()
	}
}

// Set implements partition.Writer.
func (s *Space) Set(key, value []byte) error {
	p := partition.Pair{Key: bytes.Clone(key), Value: bytes.Clone(value)}
	s.spoil()
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
	s.spoil()
	return nil
}

// DeleteRange implements partition.Writer.
func (s *Space) DeleteRange(r partition.KeyRange) error {
	lo, hi := s.span(r)
	s.pairs = slices.Delete(s.pairs, lo, hi)
	s.spoil()
	return nil
}
