package store

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pando.dev/pando/partition"
)

// newTestEngine is an engine on a small memory budget. A fatal error fails the
// test and ends the goroutine that met it.
func newTestEngine(tb testing.TB, o Options) *Engine {
	tb.Helper()
	if o.FS == nil {
		o.FS = vfs.NewMem()
	}
	if o.Dir == "" {
		o.Dir = "data"
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = 1 << 20
	}
	if o.MemoryBytes == 0 {
		o.MemoryBytes = 4 << 20
	}
	if o.Fatal == nil {
		o.Fatal = func(err error) {
			tb.Errorf("fatal: %v", err)
			runtime.Goexit()
		}
	}
	e, err := NewEngine(o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := e.Close(); err != nil {
			tb.Errorf("close the engine: %v", err)
		}
	})
	return e
}

func openStore(tb testing.TB, e *Engine, g partition.GroupID) *Store {
	tb.Helper()
	s, err := e.Open(g, 1)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// set applies one key at an index.
func set(tb testing.TB, s *Store, i partition.Index, key, value string) {
	tb.Helper()
	err := s.Apply(i, func(w partition.Writer) error { return w.Set([]byte(key), []byte(value)) })
	if err != nil {
		tb.Fatalf("apply %d: %v", i, err)
	}
}

// dump is the whole visible state.
func dump(tb testing.TB, r partition.Reader) map[string]string {
	tb.Helper()
	m := make(map[string]string)
	for p, err := range r.Scan(partition.KeyRange{}) {
		if err != nil {
			tb.Fatal(err)
		}
		m[string(p.Key)] = string(p.Value)
	}
	return m
}

// state is dump of a store's present state, with the index it claims.
func state(tb testing.TB, s *Store) (map[string]string, partition.Index) {
	tb.Helper()
	v, err := s.View()
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = v.Close() }()
	i, err := v.Applied()
	if err != nil {
		tb.Fatal(err)
	}
	return dump(tb, v), i
}

func TestApplyFlushReopen(t *testing.T) {
	fs := vfs.NewMem()
	var durable partition.Index
	e := newTestEngine(t, Options{FS: fs, Durable: func(_ partition.GroupID, _ uint32, i partition.Index) { durable = i }})
	s := openStore(t, e, 7)
	if i, err := s.Applied(); i != 0 || err != nil {
		t.Fatalf("new store: applied %d, %v", i, err)
	}
	for i := range partition.Index(10) {
		set(t, s, i+1, fmt.Sprintf("\x01key%d", i), "v")
	}
	if err := s.Apply(10, func(partition.Writer) error { return nil }); partition.CodeOf(err) != partition.CodeInvalid {
		t.Fatalf("second apply of an index: %v", err)
	}
	refused := errors.New("refused")
	err := s.Apply(11, func(w partition.Writer) error {
		_ = w.Set([]byte("\x01lost"), nil)
		return refused
	})
	if err != refused {
		t.Fatal(err)
	}
	i, err := s.Flush(context.Background())
	if i != 10 || err != nil || s.Durable() != 10 || durable != 10 {
		t.Fatalf("flushed %d, durable %d, told %d: %v", i, s.Durable(), durable, err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	durable = 0
	e = newTestEngine(t, Options{FS: fs, Durable: func(_ partition.GroupID, _ uint32, i partition.Index) { durable = i }})
	s = openStore(t, e, 7)
	m, i := state(t, s)
	if len(m) != 10 || i != 10 {
		t.Fatalf("after reopening: %d keys at %d", len(m), i)
	}
	if durable != 10 || s.Durable() != 10 {
		t.Fatalf("after reopening: durable %d, told %d", s.Durable(), durable)
	}
	durable = 0
	if s.FlushSoon(); durable != 10 {
		t.Fatalf("nothing to flush: told %d", durable)
	}
}
