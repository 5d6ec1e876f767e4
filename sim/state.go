package sim

import (
	"bytes"
	"iter"
	"slices"

	"pando.dev/pando/partition"
)

// state is the key space of one replica: what was flushed, with everything since
// on top of it and a journal of how to go back. So a flush costs nothing, and a
// crash what was written since.
type state struct {
	rows    map[string][]byte
	journal []undo
	// applied is the last record that the rows reflect, flushed the one that they
	// reflect after a crash.
	applied, flushed partition.Index
	// hash is one of all rows, whatever their order; flushedHash that of the rows
	// after a crash.
	hash, flushedHash uint64
	// bad: rows were damaged on the disk, which whoever reads them notices.
	bad bool
}

type undo struct {
	key string
	was []byte // nil: there was none
}

var _ partition.Writer = (*state)(nil)

func newState() *state { return &state{rows: map[string][]byte{}} }

func rowHash[K string | []byte](key K, value []byte) uint64 {
	h := uint64(len(key))<<32 | uint64(len(value))
	for i := 0; i < len(key); i++ {
		h = (h ^ uint64(key[i])) * 0x100000001b3
	}
	for len(value) >= 8 {
		h = (h ^ (uint64(value[0]) | uint64(value[1])<<8 | uint64(value[2])<<16 | uint64(value[3])<<24 |
			uint64(value[4])<<32 | uint64(value[5])<<40 | uint64(value[6])<<48 | uint64(value[7])<<56)) * 0x9e3779b97f4a7c15
		h ^= h >> 29
		value = value[8:]
	}
	for _, b := range value {
		h = (h ^ uint64(b)) * 0x100000001b3
	}
	return mix(h)
}

// Get implements partition.Reader.
func (s *state) Get(key []byte) ([]byte, bool, error) {
	v, ok := s.rows[string(key)]
	return v, ok, nil
}

// Set implements partition.Writer. A row's value is never changed in place.
func (s *state) Set(key, value []byte) error {
	was, ok := s.rows[string(key)]
	if ok {
		s.hash ^= rowHash(key, was)
	}
	s.hash ^= rowHash(key, value)
	k := string(key)
	v := append(make([]byte, 0, len(value)), value...)
	s.rows[k] = v
	s.journal = append(s.journal, undo{k, was})
	return nil
}

// Delete implements partition.Writer.
func (s *state) Delete(key []byte) error {
	was, ok := s.rows[string(key)]
	if !ok {
		return nil
	}
	s.hash ^= rowHash(key, was)
	delete(s.rows, string(key))
	s.journal = append(s.journal, undo{string(key), was})
	return nil
}

// DeleteRange implements partition.Writer.
func (s *state) DeleteRange(k partition.KeyRange) error {
	for _, key := range s.keys(k) {
		if err := s.Delete([]byte(key)); err != nil {
			return err
		}
	}
	return nil
}

func (s *state) keys(k partition.KeyRange) []string {
	var keys []string
	for key := range s.rows { // sorted below
		if key >= string(k.Lo) && (len(k.Hi) == 0 || key < string(k.Hi)) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// Scan implements partition.Reader.
func (s *state) Scan(k partition.KeyRange) iter.Seq2[partition.Pair, error] {
	return s.scan(s.keys(k))
}

// ScanBack implements partition.Reader.
func (s *state) ScanBack(k partition.KeyRange) iter.Seq2[partition.Pair, error] {
	keys := s.keys(k)
	slices.Reverse(keys)
	return s.scan(keys)
}

func (s *state) scan(keys []string) iter.Seq2[partition.Pair, error] {
	return func(yield func(partition.Pair, error) bool) {
		for _, key := range keys {
			if !yield(partition.Pair{Key: []byte(key), Value: s.rows[key]}, nil) {
				return
			}
		}
	}
}

// flush makes everything applied survive a crash.
func (s *state) flush() {
	clear(s.journal)
	s.journal = s.journal[:0]
	s.flushed, s.flushedHash = s.applied, s.hash
}

// crash takes back what was not flushed.
func (s *state) crash() {
	for i := len(s.journal) - 1; i >= 0; i-- {
		if u := s.journal[i]; u.was == nil {
			delete(s.rows, u.key)
		} else {
			s.rows[u.key] = u.was
		}
	}
	s.applied, s.hash = s.flushed, s.flushedHash
	clear(s.journal)
	s.journal = s.journal[:0]
}

// flushedClone is a state of its own with the rows as a crash would leave them.
func (s *state) flushedClone() *state {
	c := s.clone()
	for i := len(s.journal) - 1; i >= 0; i-- {
		if u := s.journal[i]; u.was == nil {
			delete(c.rows, u.key)
		} else {
			c.rows[u.key] = u.was
		}
	}
	c.applied, c.hash = s.flushed, s.flushedHash
	c.flush()
	return c
}

// clone is a state of its own with the same rows, all of them flushed.
func (s *state) clone() *state {
	c := &state{rows: make(map[string][]byte, len(s.rows)), applied: s.applied, hash: s.hash, bad: s.bad}
	for k, v := range s.rows { // into a map
		c.rows[k] = v
	}
	c.flush()
	return c
}

// differs names the first key whose value is another one in o.
func (s *state) differs(o *state) string {
	all := partition.KeyRange{}
	for _, key := range s.keys(all) {
		if v, ok := o.rows[key]; !ok || !bytes.Equal(v, s.rows[key]) {
			return key
		}
	}
	for _, key := range o.keys(all) {
		if _, ok := s.rows[key]; !ok {
			return key
		}
	}
	return ""
}
