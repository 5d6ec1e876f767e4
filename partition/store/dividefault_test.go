package store

import (
	"context"
	"maps"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"pando.dev/pando/partition"
)

// divisions are the calls by which a state is divided.
func divisions(s *Store) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"divide":    func(ctx context.Context) error { return s.Divide(ctx, 2, 1, 90, become) },
		"quantiles": func(ctx context.Context) error { _, err := s.Quantiles(ctx, partition.KeyRange{}, 3); return err },
		"reclaim": func(ctx context.Context) error {
			_, err := s.Reclaim(ctx, partition.KeyRange{Lo: []byte("k0050"), Hi: []byte("k0060")})
			return err
		},
	}
}

// TestDivisionWithoutTime: who has no time left is told, the state is what it was,
// and with time it is done.
func TestDivisionWithoutTime(t *testing.T) {
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for name := range divisions(nil) {
		e := newTestEngine(t, Options{})
		s := openStore(t, e, 1)
		grow(t, s, 100)
		whole, _ := state(t, s)
		err := divisions(s)[name](over)
		if partition.CodeOf(err) != partition.CodeTimeout {
			t.Errorf("%s without time: %v", name, err)
		}
		if ids, err := e.Generations(); err != nil || len(ids) != 1 {
			t.Errorf("%s leaves %v, %v", name, ids, err)
		}
		if now, at := state(t, s); at != 100 || name != "reclaim" && !maps.Equal(now, whole) {
			t.Errorf("%s: at %d with %d pairs", name, at, len(now))
		}
		if err := divisions(s)[name](t.Context()); err != nil {
			t.Errorf("%s with time: %v", name, err)
		}
		if name == "reclaim" && (has(t, s, "k0050") || !has(t, s, "k0049") || !has(t, s, "k0060")) {
			t.Error("reclaim removes something else")
		}
		if child, err := e.Open(2, 1); name == "divide" && (err != nil || !has(t, child, "whose")) {
			t.Errorf("the child: %v", err)
		}
	}
}

// TestDivisionThatIsCut: a copy that is cut off while it becomes another one's
// leaves nothing, or is whole.
func TestDivisionThatIsCut(t *testing.T) {
	mem := vfs.NewMem()
	e := newTestEngine(t, Options{FS: mem})
	s := openStore(t, e, 1)
	grow(t, s, 100)
	cuts := 0
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		err := s.Divide(ctx, 2, 1, 90, func(w partition.Writer) error { cancel(); return become(w) })
		cancel()
		ids, lerr := e.Generations()
		switch {
		case err == nil && len(ids) == 2:
			if err := e.Drop(2, 1); err != nil {
				t.Fatal(err)
			}
		case err != nil && partition.CodeOf(err) == partition.CodeTimeout && len(ids) == 1:
			cuts++
		default:
			t.Fatalf("%v, and there are %v, %v", err, ids, lerr)
		}
	}
	if cuts == 0 {
		t.Error("none was cut off")
	}
	if err := s.Divide(t.Context(), 2, 1, 90, become); err != nil {
		t.Fatal(err)
	}
	if err := s.Divide(t.Context(), 2, 1, 90, become); partition.CodeOf(err) != partition.CodeExists {
		t.Errorf("in the place of another: %v", err)
	}
	child := openStore(t, e, 2)
	if at, err := child.Applied(); err != nil || at != 90 || !has(t, child, "whose") {
		t.Errorf("the child is at %d, %v", at, err)
	}
}

// TestDivisionOfAClosedStore: nothing is made of a store that is closed.
func TestDivisionOfAClosedStore(t *testing.T) {
	e := newTestEngine(t, Options{})
	s := openStore(t, e, 1)
	grow(t, s, 100)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	for name, f := range divisions(s) {
		if err := f(t.Context()); partition.CodeOf(err) != partition.CodeClosed {
			t.Errorf("%s: %v", name, err)
		}
	}
	if seed, err := s.Seed(t.Context(), 2, 1); partition.CodeOf(err) != partition.CodeClosed || seed != nil {
		t.Errorf("a seed: %v", err)
	}
	if err := e.Drop(1, 1); partition.CodeOf(err) != partition.CodeClosed {
		t.Errorf("drop: %v", err)
	}
}

// TestQuantilesGivesUp: a search of many keys ends when nobody waits for it.
func TestQuantilesGivesUp(t *testing.T) {
	e := newTestEngine(t, Options{})
	s := openStore(t, e, 1)
	grow(t, s, scanLook+10)
	if _, err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if keys, err := s.Quantiles(over, partition.KeyRange{}, 3); partition.CodeOf(err) != partition.CodeTimeout || keys != nil {
		t.Errorf("%q, %v", keys, err)
	}
	if err := twoKeys(s.Quantiles(t.Context(), partition.KeyRange{}, 3)); err != nil {
		t.Error(err)
	}
}

// TestReclaimOnABadDisk: whichever read fails while foreign keys are removed, no key
// of the store's own is lost, and the foreign ones go when the disk reads again.
func TestReclaimOnABadDisk(t *testing.T) {
	fs := vfs.NewMem()
	whole := grown(t, fs)
	foreign := partition.KeyRange{Lo: []byte("k10"), Hi: []byte("k20")}
	maps.DeleteFunc(whole, func(k, _ string) bool { return foreign.Contains([]byte(k)) })
	failed := 0
	for pass := 0; pass < 40; pass++ {
		mem := vfs.NewMem()
		if _, err := vfs.Clone(fs, mem, "data", "data"); err != nil {
			t.Fatal(err)
		}
		f := &narrow{kinds: []errorfs.OpKind{errorfs.OpFileRead, errorfs.OpFileReadAt, errorfs.OpOpen}, in: ".sst", pass: -1, once: true}
		e, err := narrowEngine(t, mem, f)
		if err != nil {
			t.Fatal(err)
		}
		s := openStore(t, e, 1)
		if _, err := s.Applied(); err != nil {
			t.Fatal(err)
		}
		f.arm(pass)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		_, err = s.Reclaim(ctx, foreign)
		cancel()
		met := f.hits() > 0
		f.arm(-1)
		if err != nil {
			failed++
		}
		for again := 0; err != nil && again < 5; again++ { // a table that did not open is remembered for a moment
			_, err = s.Reclaim(t.Context(), foreign)
		}
		now, at := state(t, s)
		if err != nil || at != 40 || !maps.Equal(now, whole) {
			t.Errorf("read %d: %v; at %d with %d pairs, want %d", pass+1, err, at, len(now), len(whole))
		}
		if err := e.Close(); err != nil {
			t.Errorf("read %d: close: %v", pass+1, err)
		}
		if !met {
			break
		}
	}
	if failed == 0 {
		t.Errorf("only %d reads failed it", failed)
	}
}
