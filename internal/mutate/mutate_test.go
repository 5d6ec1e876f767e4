package mutate

import (
	"bytes"
	"testing"
)

// TestMutatorIsRepeatable: equal seeds, equal inputs, and most of them differ
// from their seed.
func TestMutatorIsRepeatable(t *testing.T) {
	seeds := [][]byte{{}, []byte("a frame of some length"), bytes.Repeat([]byte{1, 2, 3}, 100)}
	a, b := New(7, seeds), New(7, seeds)
	same := 0
	for range 10_000 {
		x, y := a.Next(nil), b.Next([]byte("kept"))
		if !bytes.Equal(x, y[4:]) || string(y[:4]) != "kept" {
			t.Fatalf("%x and %x", x, y)
		}
		for _, s := range seeds {
			if bytes.Equal(x, s) {
				same++
			}
		}
	}
	if same > 1500 {
		t.Errorf("%d of 10000 inputs are seeds", same)
	}
}

// greedy is a decoder that believes a length.
func greedy(b []byte) []byte {
	if len(b) < 4 || b[0] != 'x' || b[3] < 0x80 {
		return nil
	}
	return make([]byte, MostBytes+1)
}

// TestRunFindsGreed: a decoder that allocates by a length it was told is found.
func TestRunFindsGreed(t *testing.T) {
	var kept []byte
	r := &recorder{TB: t}
	func() {
		defer func() { _ = recover() }()
		Run(r, [][]byte{[]byte("xyz\x00 and more")}, func(b []byte) { kept = greedy(b) })
	}()
	_ = kept
	if !r.failed {
		t.Error("it was not found")
	}
}

// recorder is a TB whose failure is an expected one.
type recorder struct {
	testing.TB
	failed bool
}

func (r *recorder) Fatalf(string, ...any) {
	r.failed = true
	panic("ends the run")
}
