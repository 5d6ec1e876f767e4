package store

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pando.dev/pando/partition"
)

// CAT-8: a checkpoint freezes nothing, however much there is: its tables are links to
// the store's and no bytes, writes go on while its files are summed up, which is all
// that depends on their size, and files that an earlier one had are not even read.
func TestCheckpointFreezesNothing(t *testing.T) {
	dir := t.TempDir()
	var s *Store
	next, wrote, read := partition.Index(1), 0, 0
	write := func(tb testing.TB, n int) {
		for range n {
			set(tb, s, next, fmt.Sprintf("\x01%06d", next), fmt.Sprint(next, strings.Repeat("x", 500)))
			next++
		}
	}
	summing := false
	e := newTestEngine(t, Options{Dir: dir, FS: vfs.Default, Pace: func(ctx context.Context, n int) error {
		if summing { // the checkpoint waits here: with a lock on writes this would be its end
			write(t, 10)
			wrote += 10
		}
		read += n
		return ctx.Err()
	}})
	s = openStore(t, e, 7)
	var last Manifest
	linked, known := 0, 0
	for round := range 6 {
		write(t, 1000)
		at, before := next-1, wrote
		summing = true
		stage := filepath.Join(dir, "stage", fmt.Sprint(round))
		m, err := s.Checkpoint(t.Context(), stage)
		summing = false
		if err != nil {
			t.Fatal(err)
		}
		if m.Index != at || wrote == before || next-1 != at+partition.Index(wrote-before) {
			t.Fatalf("round %d: the checkpoint is at %d, it was asked for at %d and %d were written meanwhile", round, m.Index, at, wrote-before)
		}
		had := map[File]bool{}
		for _, f := range last.Files {
			had[f] = true
		}
		anew := 0
		for _, f := range m.Files {
			if !strings.HasSuffix(f.Name, ".sst") {
				anew++
				continue
			}
			if had[f] {
				known++
			} else {
				anew++
			}
			mine, err := os.Stat(filepath.Join(e.Dir(7, 1), f.Name))
			if err != nil {
				continue // a compaction has replaced it since
			}
			copied, err := os.Stat(filepath.Join(stage, f.Name))
			if err != nil || !os.SameFile(mine, copied) {
				t.Errorf("round %d: %s was copied: %v", round, f.Name, err)
			}
			linked++
		}
		if read > anew*2*copyChunk {
			t.Errorf("round %d: %d bytes were asked for to sum up %d new files", round, read, anew)
		}
		last, read = m, 0
	}
	if linked == 0 || known == 0 {
		t.Errorf("%d tables are linked, %d were there before: compactions have to leave some", linked, known)
	}
}
