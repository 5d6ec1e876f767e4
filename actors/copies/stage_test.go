package copies

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/store"
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

// TestLeftoversInTheWay: tables of an earlier run that cannot be put aside are given
// up, and said; the next start has a stage.
func TestLeftoversInTheWay(t *testing.T) {
	for name, prepare := range map[string]func(stage string) (left string, err error){
		"a file where they are kept": func(stage string) (string, error) {
			return incoming + "-g1-1", os.WriteFile(filepath.Join(stage, kept+"-g1"), nil, 0o600)
		},
		"a name that is too long": func(string) (string, error) {
			return incoming + "-" + strings.Repeat("x", 252), nil
		},
	} {
		dir := t.TempDir()
		stage := filepath.Join(dir, stageDir)
		err := os.MkdirAll(stage, 0o700)
		left, err2 := prepare(stage)
		err = errors.Join(err, err2, os.Mkdir(filepath.Join(stage, left), 0o700), os.WriteFile(filepath.Join(stage, left, "1.sst"), []byte("x"), 0o600))
		if err != nil {
			t.Fatal(err)
		}
		cfg := Config{Dir: dir, Host: &node{}, Open: func(context.Context, partition.NodeID) (Stream, error) { return nil, errors.New("nobody") }}
		if c, err := New(cfg); err == nil {
			_ = c.Close()
			t.Errorf("%s: nothing is said", name)
		}
		c, err := New(cfg)
		if err != nil {
			t.Fatalf("%s: once more: %v", name, err)
		}
		if err := c.leave(filepath.Join("..", left), "g1"); err == nil {
			t.Errorf("%s: left from outside of the stage", name)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestTableThatIsNotTheOne: what was found here is used only if it has been read as
// what was promised.
func TestTableThatIsNotTheOne(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), Host: &node{}, Open: func(context.Context, partition.NodeID) (Stream, error) { return nil, errors.New("nobody") }}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := os.WriteFile(filepath.Join(c.stage, "1.sst"), []byte("table"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := &fetch{c: c}
	x := &inFile{File: store.File{Name: "1.sst", Bytes: 5}}
	x.CRC32C = update(0, []byte("table"))
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if same, err := f.same(over, "1.sst", x); same || !errors.Is(err, context.Canceled) {
		t.Errorf("without time: %t, %v", same, err)
	}
	if same, err := f.same(t.Context(), "2.sst", x); same || err != nil {
		t.Errorf("one that is not there: %t, %v", same, err)
	}
	if same, err := f.same(t.Context(), "1.sst", x); !same || err != nil {
		t.Errorf("the one: %t, %v", same, err)
	}
	x.CRC32C++
	if same, err := f.same(t.Context(), "1.sst", x); same || err != nil {
		t.Errorf("another: %t, %v", same, err)
	}
}
