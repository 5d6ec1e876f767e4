package actors

import (
	"errors"
	"iter"
	"slices"
	"testing"
)

var errBad = errors.New("bad event")

// echo is a machine that asks for one work per event, but refuses negative ones.
type echo struct {
	ready []int
	turns [][]int // the work of each Ready
}

func (m *echo) Step(e int) error {
	if e < 0 {
		return errBad
	}
	m.ready = append(m.ready, e)
	return nil
}

func (m *echo) Ready() iter.Seq[int] {
	w := m.ready
	m.ready = nil
	m.turns = append(m.turns, w)
	return slices.Values(w)
}

func TestDriver(t *testing.T) {
	var m echo
	var done, refused []int
	d := driver[int, int]{machine: &m}
	d.do = func(w int) error {
		done = append(done, w)
		if w == 3 {
			d.post(7) // work may bring further events
		}
		return nil
	}
	d.refused = func(e int, _ error) error {
		refused = append(refused, e)
		return nil
	}
	for _, e := range []int{1, -2, 3} {
		d.post(e)
	}
	if err := d.turn(); err != nil {
		t.Fatalf("turn: %v", err)
	}
	if !slices.Equal(done, []int{1, 3, 7}) || !slices.Equal(refused, []int{-2}) {
		t.Errorf("did %v and refused %v, want [1 3 7] and [-2]", done, refused)
	}
	if len(m.turns) != 2 || len(m.turns[0]) != 2 {
		t.Errorf("turns %v: what was queued together was not one batch", m.turns)
	}

	d.refused = func(_ int, err error) error { return err }
	d.post(-1)
	if err := d.turn(); !errors.Is(err, errBad) {
		t.Errorf("a refused event that must not be: %v", err)
	}
	d.do = func(int) error { return errBad }
	d.post(1)
	if err := d.turn(); !errors.Is(err, errBad) {
		t.Errorf("work that fails: %v", err)
	}
}
