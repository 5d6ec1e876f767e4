package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pando.dev/pando/partition"
)

// TestScrub: one flipped byte, wherever in a table file, is found by reading
// the files, also while the caches still answer every read as if nothing were
// wrong.
func TestScrub(t *testing.T) {
	dir := t.TempDir()
	e := newTestEngine(t, Options{Dir: dir, FS: vfs.Default, CacheBytes: 8 << 20})
	s := openStore(t, e, 1)
	fill(t, s, 2000)
	before, at := state(t, s) // everything is in the cache now
	all, err := s.Scrub(t.Context())
	if err != nil || all.Files == 0 || all.Bytes == 0 {
		t.Fatalf("a whole state: %+v, %v", all, err)
	}
	tables, err := filepath.Glob(filepath.Join(dir, "stores", "g1", "1", "*.sst"))
	if err != nil || len(tables) != all.Files {
		t.Fatalf("%d files were read of %v, %v", all.Files, tables, err)
	}
	whole, err := os.ReadFile(tables[0])
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(whole); i += max(1, len(whole)/97) {
		flip(t, tables[0], int64(i))
		if _, err := s.Scrub(t.Context()); !errors.Is(err, partition.ErrCorrupt) {
			t.Errorf("byte %d of %d is flipped: %v", i, len(whole), err)
		}
		flip(t, tables[0], int64(i))
	}
	if again, index := state(t, s); len(again) != len(before) || index != at {
		t.Errorf("the state has changed")
	}
	if err := os.Remove(tables[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Scrub(t.Context()); !errors.Is(err, partition.ErrCorrupt) {
		t.Errorf("a missing file: %v", err)
	}
	if err := os.WriteFile(tables[0], whole, 0o600); err != nil {
		t.Fatal(err)
	}
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Scrub(stopped); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Scrub(t.Context()); !errors.Is(err, partition.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// flip flips one bit of a file, in place.
func flip(t *testing.T, name string, at int64) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}
