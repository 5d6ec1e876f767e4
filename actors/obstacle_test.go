package actors

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pando.dev/pando/partition"
)

// obstruct puts something of another kind where a file or directory was, and
// returns what undoes it. The process may be root's, so permissions prove nothing.
func obstruct(t *testing.T, path string) (undo func()) {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	away := path + ".away"
	there := err == nil
	if there {
		err = os.Rename(path, away)
	} else {
		err = nil
	}
	if err == nil && there && info.IsDir() {
		err = os.WriteFile(path, []byte("in the way"), 0o600)
	} else if err == nil {
		err = os.MkdirAll(filepath.Join(path, "in", "the way"), 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		if there {
			if err := os.Rename(away, path); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestObstaclesAtStart: whatever stands where a node keeps its files, the node
// does not start on it, or goes on without what it can do without; it says what
// is wrong, leaves nothing running, and starts when the way is free (CORDS:
// errors of the file system at every file, D9).
func TestObstaclesAtStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := single(t, dir)
	c := startSingle(t, cfg)
	eventually(t, "ready", c.nodes[0].Ready)
	c.table(TableSpec{Name: "t", Kind: "kv", Replicas: 1})
	ctx, cancel := contextWithin(t, patience)
	defer cancel()
	if err := put(ctx, c.nodes[0], "k", "v"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the catalog is written down", func() error { _, err := os.Stat(filepath.Join(dir, catalogFile)); return err })
	c.stop(0)
	var names []string
	for _, pattern := range []string{"*", "*/*"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, found...)
	}
	names = append(names, filepath.Join(dir, suspectFile), filepath.Join(dir, drainFile))
	slices.Sort(names)
	refused := 0
	for _, path := range names {
		rel, _ := filepath.Rel(dir, path)
		if rel == "LOCK" || strings.HasSuffix(rel, ".log") && !strings.HasPrefix(rel, "wal") {
			continue
		}
		undo := obstruct(t, path)
		n, err := Start(t.Context(), cfg)
		if err == nil {
			_ = n.Stop(ctx)
		} else {
			refused++
			var typed *partition.Error
			if !errors.As(err, &typed) && !strings.Contains(err.Error(), filepath.Base(rel)) {
				t.Errorf("%s: an error that does not say where: %v", rel, err)
			}
		}
		t.Logf("%s: %v", rel, err)
		undo()
	}
	t.Logf("%d obstacles, %d starts refused", len(names), refused)
	c.start(0)
	eventually(t, "the pair", func() error {
		v, err := get(ctx, c.nodes[0], "k")
		if err == nil && v != "v" {
			return errors.New(v)
		}
		return err
	})
}
