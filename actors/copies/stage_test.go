package copies

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"pando.dev/pando/partition"
)

// TestStageFails: whenever the stage goes wrong under a copy, at its begin, with
// each file or at the end, the copy ends with an error or is whole, and the next
// one on a good stage works.
func TestStageFails(t *testing.T) {
	w := newWorld(t)
	a := w.add("a", nil)
	fill(t, a.store(t, 7, 1), 1, 60, 2000)
	for name, harm := range map[string]func(stage string) error{
		"its directory is gone": func(stage string) error { return each(stage, os.RemoveAll) },
		"its directory is a file": func(stage string) error {
			return each(stage, func(p string) error {
				if err := os.RemoveAll(p); err != nil {
					return err
				}
				return os.WriteFile(p, nil, 0o600)
			})
		},
		"directories stand in the way of its files": func(stage string) error {
			return each(stage, func(dir string) error {
				for _, f := range []string{"MANIFEST-000001", "marker.manifest.000001.MANIFEST-000001", "000004.sst", "000005.sst", "000006.sst", "000007.sst"} {
					_ = os.RemoveAll(filepath.Join(dir, f))
					if err := os.MkdirAll(filepath.Join(dir, f, "x"), 0o700); err != nil {
						return err
					}
				}
				return nil
			})
		},
	} {
		for at := range 4 {
			b := w.add(partition.NodeID("b"), nil)
			free, calls := b.copies.cfg.Free, 0
			var once sync.Mutex
			b.copies.cfg.Free = func() (int64, int64, error) {
				once.Lock()
				defer once.Unlock()
				if calls == at {
					if err := harm(b.copies.stage); err != nil {
						t.Error(err)
					}
				}
				calls++
				return free()
			}
			b.copies.cfg.Attempts = 1
			p, err := b.copies.Fetch(t.Context(), Request{Group: 7, From: "a"})
			if (p == nil) == (err == nil) {
				t.Fatalf("%s at %d: %v, %v", name, at, p, err)
			}
			if p != nil {
				if err := p.Discard(); err != nil {
					t.Logf("%s at %d: discard: %v", name, at, err)
				}
			}
			b.copies.cfg.Free = free
			if p, err = b.copies.Fetch(t.Context(), Request{Group: 7, From: "a"}); err != nil {
				t.Fatalf("%s at %d: and then again: %v", name, at, err)
			}
			if err := p.Discard(); err != nil {
				t.Error(err)
			}
		}
	}
}

// each does something to every directory in the stage.
func each(stage string, do func(string) error) error {
	all, err := filepath.Glob(filepath.Join(stage, "*"))
	for _, p := range all {
		if err == nil {
			err = do(p)
		}
	}
	return err
}

// TestNoStage: copies that have no place for their stage are not made.
func TestNoStage(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, stageDir), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"", file, dir} {
		if c, err := New(Config{Dir: d, Host: &node{}, Open: nil}); err == nil {
			_ = c.Close()
			t.Errorf("made in %q", d)
		}
	}
}
