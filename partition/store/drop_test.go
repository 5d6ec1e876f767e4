package store

import (
	"testing"

	"pando.dev/pando/partition"
)

// What a dropped store had in memory is given up with it. Counted on, it would
// take the turns at flushing of those that live, and the room, until nobody may
// apply any more.
func TestDropGivesUpMemory(t *testing.T) {
	e := newTestEngine(t, Options{})
	for round := range uint32(3 * flushWidth) {
		s, err := e.Open(1, round+1)
		if err != nil {
			t.Fatal(err)
		}
		value := make([]byte, 64<<10)
		err = s.Apply(1, func(w partition.Writer) error {
			for i := range byte(16) {
				if err := w.Set([]byte{1, i}, value); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if e.Stats().UnflushedBytes < 1<<20 {
			t.Fatalf("%d bytes unflushed before the drop", e.Stats().UnflushedBytes)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := e.Drop(1, round+1); err != nil {
			t.Fatal(err)
		}
		if left := e.Stats().UnflushedBytes; left != 0 || len(e.dirtySpaces()) != 0 {
			t.Fatalf("round %d: %d bytes of %d stores unflushed after the drop", round, left, len(e.dirtySpaces()))
		}
	}
}
