package store

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"pando.dev/pando/partition"
)

// TestRangeBytes: of a store's files only the part of a range counts, and of a closed
// one nothing is said.
func TestRangeBytes(t *testing.T) {
	e := newTestEngine(t, Options{})
	s := openStore(t, e, 1)
	value := make([]byte, 10_000)
	rng := rand.NewChaCha8([32]byte{}) // what does not compress
	for i := range 100 {
		_, _ = rng.Read(value) // never fails
		set(t, s, partition.Index(i+1), fmt.Sprintf("k%03d", i), string(value))
	}
	of := func(lo, hi string) int64 {
		t.Helper()
		n, err := s.RangeBytes(partition.KeyRange{Lo: []byte(lo), Hi: []byte(hi)})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := of("k", "l"); n < 1_000_000 {
		t.Errorf("what is not flushed counts for %d bytes of 1,000,000", n)
	}
	if _, err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	all, tenth, open := of("k", "l"), of("k050", "k060"), of("k050", "")
	if all < 1_000_000 || tenth < all/20 || tenth > all/5 || open < all*4/10 || open > all*6/10 {
		t.Errorf("all has %d bytes, a tenth %d, the upper half %d", all, tenth, open)
	}
	if n := of("x", "y"); n > all/100 {
		t.Errorf("where nothing is there are %d bytes", n)
	}
	if n := of("y", "x"); n != 0 {
		t.Errorf("an empty range has %d bytes", n)
	}
	s.Close()
	if n, err := s.RangeBytes(partition.KeyRange{}); err == nil {
		t.Errorf("a closed store has %d bytes", n)
	}
}
