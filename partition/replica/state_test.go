package replica

import (
	"bytes"
	"cmp"
	"iter"
	"slices"
	"sort"

	"pando.dev/pando/partition"
)

// mapState is a state in memory.
type mapState struct {
	rows    map[string][]byte
	applied partition.Index
	reject  error // of the next Set
}

func newMapState() *mapState { return &mapState{rows: map[string][]byte{}} }

func (s *mapState) clone() *mapState {
	c := &mapState{rows: make(map[string][]byte, len(s.rows)), applied: s.applied}
	for k, v := range s.rows {
		c.rows[k] = v
	}
	return c
}

func (s *mapState) equal(o *mapState) bool {
	if s.applied != o.applied || len(s.rows) != len(o.rows) {
		return false
	}
	for k, v := range s.rows {
		if x, ok := o.rows[k]; !ok || !bytes.Equal(v, x) {
			return false
		}
	}
	return true
}

func (s *mapState) Get(key []byte) ([]byte, bool, error) {
	v, ok := s.rows[string(key)]
	return v, ok, nil
}

func (s *mapState) Set(key, value []byte) error {
	if err := s.reject; err != nil {
		s.reject = nil
		return err
	}
	s.rows[string(key)] = bytes.Clone(value)
	return nil
}

func (s *mapState) Delete(key []byte) error {
	delete(s.rows, string(key))
	return nil
}

func (s *mapState) keys(k partition.KeyRange) []string {
	var keys []string
	for x := range s.rows {
		if k.Contains([]byte(x)) {
			keys = append(keys, x)
		}
	}
	sort.Strings(keys)
	return keys
}

func (s *mapState) DeleteRange(k partition.KeyRange) error {
	for _, x := range s.keys(k) {
		delete(s.rows, x)
	}
	return nil
}

func (s *mapState) Scan(k partition.KeyRange) iter.Seq2[partition.Pair, error] {
	return s.pairs(s.keys(k))
}

func (s *mapState) ScanBack(k partition.KeyRange) iter.Seq2[partition.Pair, error] {
	keys := s.keys(k)
	slices.SortFunc(keys, func(a, b string) int { return cmp.Compare(b, a) })
	return s.pairs(keys)
}

func (s *mapState) pairs(keys []string) iter.Seq2[partition.Pair, error] {
	return func(yield func(partition.Pair, error) bool) {
		for _, x := range keys {
			if !yield(partition.Pair{Key: []byte(x), Value: s.rows[x]}, nil) {
				return
			}
		}
	}
}
