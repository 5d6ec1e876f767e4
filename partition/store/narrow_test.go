package store

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"pando.dev/pando/partition"
)

// narrow fails some kinds of operations on some paths: those behind the first
// pass ones, all or one.
type narrow struct {
	kinds []errorfs.OpKind
	in    string // part of the path

	mu     sync.Mutex
	pass   int // below 0: none fails
	once   bool
	n, hit int
}

func (f *narrow) String() string { return "narrow fault" }

func (f *narrow) MaybeError(op errorfs.Op) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pass < 0 || !slices.Contains(f.kinds, op.Kind) || !strings.Contains(op.Path, f.in) {
		return nil
	}
	if f.n++; f.n <= f.pass || f.once && f.n > f.pass+1 {
		return nil
	}
	f.hit++
	return syscall.EIO
}

// arm lets operations fail from now on, or none for a pass below 0.
func (f *narrow) arm(pass int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pass, f.n, f.hit = pass, 0, 0
}

func (f *narrow) hits() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hit
}

func narrowEngine(t *testing.T, fs vfs.FS, f *narrow) (*Engine, error) {
	return NewEngine(Options{
		FS: errorfs.Wrap(fs, f), Dir: "data", MaxOpen: 4, CacheBytes: 64 << 10, MemoryBytes: 1 << 20, backOff: time.Millisecond,
		Fatal: func(err error) { t.Logf("the process ends: %v", err) },
	})
}

// grown makes a store with state in tables, and returns what is in it.
func grown(t *testing.T, fs vfs.FS) map[string]string {
	t.Helper()
	e, err := narrowEngine(t, fs, &narrow{pass: -1})
	if err != nil {
		t.Fatal(err)
	}
	s := openStore(t, e, 1)
	for i := range partition.Index(40) {
		set(t, s, i+1, fmt.Sprintf("k%02d", i), strings.Repeat(fmt.Sprint(i), 2000))
	}
	if _, err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	whole, _ := state(t, s)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	return whole
}

// errUndone ends an apply that is only there to read.
var errUndone = errors.New("not to be kept")

// appliedOnly is what f gives in an apply that is not kept.
func appliedOnly(s *Store, f func(partition.Writer) error) error {
	err := s.Apply(41, func(w partition.Writer) error { return errors.Join(f(w), errUndone) })
	if errors.Is(err, errUndone) && !errors.Is(err, syscall.EIO) && partition.CodeOf(err) == partition.CodeInternal {
		return nil
	}
	return err
}

// allOf reads all pairs, of which there are so many at least.
func allOf(r partition.Reader, back bool, least int) error {
	seq := r.Scan
	if back {
		seq = r.ScanBack
	}
	n := 0
	for _, err := range seq(partition.KeyRange{}) {
		if err != nil {
			return err
		}
		n++
	}
	if n < least {
		return fmt.Errorf("%w: %d of %d pairs", errWrong, n, least)
	}
	return nil
}

// viewed is what f gives for a view of the store.
func viewed(s *Store, f func(*View) error) error {
	v, err := s.View()
	if err != nil {
		return err
	}
	return errors.Join(f(v), v.Close())
}

// twoKeys checks that two keys were found, in order.
func twoKeys(keys [][]byte, err error) error {
	if err == nil && (len(keys) != 2 || bytes.Compare(keys[0], keys[1]) >= 0) {
		err = fmt.Errorf("%w: the keys are %q", errWrong, keys)
	}
	return err
}

// tableReads are calls that read tables, of a store with so many pairs.
func tableReads(t *testing.T, pairs int) map[string]func(*Engine, *Store) error {
	return map[string]func(*Engine, *Store) error{
		"apply after get": func(_ *Engine, s *Store) error {
			return appliedOnly(s, func(w partition.Writer) error { _, _, err := w.Get([]byte("k07")); return err })
		},
		"apply after scan": func(_ *Engine, s *Store) error {
			return appliedOnly(s, func(w partition.Writer) error { return allOf(w, false, pairs) })
		},
		"get what is written": func(_ *Engine, s *Store) error {
			return appliedOnly(s, func(w partition.Writer) error {
				if err := w.DeleteRange(partition.KeyRange{Lo: []byte("k00"), Hi: []byte("k01")}); err != nil {
					return err
				}
				_, _, err := w.Get([]byte("k07"))
				return err
			})
		},
		"scan what is written": func(_ *Engine, s *Store) error {
			return appliedOnly(s, func(w partition.Writer) error { return errors.Join(w.Set([]byte("new"), nil), allOf(w, true, pairs)) })
		},
		"get": func(_ *Engine, s *Store) error {
			return viewed(s, func(v *View) error { _, _, err := v.Get([]byte("k21")); return err })
		},
		"scan": func(_ *Engine, s *Store) error {
			return viewed(s, func(v *View) error { return allOf(v, false, pairs) })
		},
		"digest": func(_ *Engine, s *Store) error {
			return viewed(s, func(v *View) error { _, err := v.Digest(t.Context()); return err })
		},
		"checkpoint": func(e *Engine, s *Store) error { _, err := s.Checkpoint(t.Context(), e.path("stage", "x")); return err },
		"quantiles": func(_ *Engine, s *Store) error {
			keys, err := s.Quantiles(t.Context(), partition.KeyRange{Lo: []byte("k")}, 3)
			return twoKeys(keys, err)
		},
		"quantiles by the sizes of tables": func(_ *Engine, s *Store) error {
			db, err := s.use()
			if err != nil {
				return err
			}
			defer s.sp.release()
			return twoKeys(quantiles(t.Context(), db, partition.KeyRange{Lo: []byte("k"), Hi: []byte("l")}, 3, 1))
		},
		"reclaim": func(_ *Engine, s *Store) error { // what nobody has, so that it may be done again
			any, err := s.Reclaim(t.Context(), partition.KeyRange{Lo: []byte("k07a"), Hi: []byte("k07b")}, partition.KeyRange{Lo: []byte("k31a"), Hi: []byte("k31b")})
			if err == nil && any {
				err = fmt.Errorf("%w: there was something to remove", errWrong)
			}
			return err
		},
	}
}

// TestEachReadOfATable: whichever read of a table fails, the call that needed it
// fails, nothing of an apply that failed is there, and on a disk that reads again so
// does the store.
func TestEachReadOfATable(t *testing.T) {
	fs := vfs.NewMem()
	whole := grown(t, fs)
	for name, step := range tableReads(t, len(whole)) {
		failEachRead(t, fs, name, step)
	}
	e, err := narrowEngine(t, fs, &narrow{pass: -1})
	if err != nil {
		t.Fatal(err)
	}
	if now, at := state(t, openStore(t, e, 1)); at != 40 || !maps.Equal(now, whole) {
		t.Errorf("it is at %d with %d pairs", at, len(now))
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

// failEachRead lets each read of a table fail that the step makes.
func failEachRead(t *testing.T, fs vfs.FS, name string, step func(*Engine, *Store) error) {
	failed, beside := 0, 0
	for pass := 0; pass < 60; pass++ {
		f := &narrow{kinds: []errorfs.OpKind{errorfs.OpFileRead, errorfs.OpFileReadAt}, in: ".sst", pass: pass}
		e, err := narrowEngine(t, fs, f)
		if err != nil {
			t.Fatal(err)
		}
		s, err := e.Open(1, 1)
		if err == nil {
			err = step(e, s)
		}
		met := f.hits() > 0
		f.arm(-1)
		_ = e.o.FS.RemoveAll(e.path("stage"))
		if met && err == nil { // read by a compaction, or for a checkpoint beside it
			beside++
		}
		if errors.Is(err, errWrong) || beside > 2 && name != "checkpoint" {
			t.Errorf("%s, read %d, %d of them beside it: %v", name, pass+1, beside, err)
		}
		if err := e.Close(); err != nil {
			t.Errorf("%s, read %d: close: %v", name, pass+1, err)
		}
		if !met || name == "checkpoint" && pass > 12 {
			break
		}
		failed++
	}
	if failed == 0 {
		t.Errorf("%s reads nothing", name)
	}
}

// directoryStep is a call that changes or lists directories.
type directoryStep struct {
	kinds       []errorfs.OpKind // nil: all
	prepare, do func(*Engine) error
	check       func(*Engine) error
}

// directoryOps are the operations of which one fails.
func directoryOps() []errorfs.OpKind {
	return []errorfs.OpKind{
		errorfs.OpStat, errorfs.OpList, errorfs.OpRename, errorfs.OpRemoveAll, errorfs.OpRemove, errorfs.OpMkdirAll, errorfs.OpCreate,
		errorfs.OpOpen, errorfs.OpOpenDir, errorfs.OpLink, errorfs.OpReuseForWrite, errorfs.OpFileClose, errorfs.OpFileStat, errorfs.OpFileRead,
	}
}

// opens makes a store, or opens the one that is there.
func opens(g partition.GroupID) func(*Engine) error {
	return func(e *Engine) error {
		s, err := e.Open(g, 1)
		if err == nil {
			_, err = s.Applied()
		}
		return err
	}
}

func directorySteps(t *testing.T) map[string]directoryStep {
	return map[string]directoryStep{
		"drop": {
			do:    func(e *Engine) error { return e.Drop(1, 1) },
			check: func(e *Engine) error { return listed(e, 0) },
		},
		"drop what is open": {
			prepare: opens(1),
			do:      func(e *Engine) error { return e.Drop(1, 1) },
			check:   func(e *Engine) error { return listed(e, 0) },
		},
		"make": {
			do:    opens(2),
			check: func(e *Engine) error { return listed(e, 2) },
		},
		"go on with what was begun": {
			prepare: func(e *Engine) error {
				dir := ID{Group: 2, Generation: 1}.path(e)
				err := e.o.FS.MkdirAll(dir, 0o700)
				f, err2 := e.o.FS.Create(e.o.FS.PathJoin(dir, "OPTIONS-000001"), vfs.WriteCategoryUnspecified)
				if err = errors.Join(err, err2); err == nil {
					err = f.Close()
				}
				return err
			},
			do:    opens(2),
			check: func(e *Engine) error { return listed(e, 2) },
		},
		"install": {
			prepare: func(e *Engine) error {
				s, err := e.Open(1, 1)
				if err == nil {
					_, err = s.Checkpoint(t.Context(), e.path("stage", "x"))
				}
				return err
			},
			do: func(e *Engine) error {
				if _, err := e.fs.Stat(e.path("stage", "x")); isNotExist(err) {
					return nil // only the sync behind it failed
				}
				if _, err := e.Verify(e.path("stage", "x")); err != nil {
					return err
				}
				return e.Install(e.path("stage", "x"), 3, 1)
			},
			check: func(e *Engine) error { return listed(e, 2) },
		},
		"divide": { // what fails while the child's first flush makes a manifest ends the process
			kinds: []errorfs.OpKind{errorfs.OpStat, errorfs.OpList, errorfs.OpMkdirAll, errorfs.OpLink, errorfs.OpOpen, errorfs.OpRemoveAll},
			do: func(e *Engine) error {
				s, err := e.Open(1, 1)
				if err == nil {
					err = s.Divide(t.Context(), 2, 1, 30, become)
				}
				return err
			},
			check: func(e *Engine) error { return listed(e, 2) },
		},
		"next generation": {
			do:    func(e *Engine) error { _, err := e.NextGeneration(1, 0); return err },
			check: func(e *Engine) error { return listed(e, 1) },
		},
		"list": {
			do:    func(e *Engine) error { _, err := e.Generations(); return err },
			check: func(e *Engine) error { return listed(e, 1) },
		},
	}
}

// TestEachStepOfADirectory: stores are made, copied, installed, listed and dropped
// while any one operation on a directory fails: who asked is told, nothing is half
// there afterwards, and the same call works on a disk that does.
func TestEachStepOfADirectory(t *testing.T) {
	for name, step := range directorySteps(t) {
		fs := vfs.NewMem()
		grown(t, fs)
		for pass := 0; pass < 200 && step.fails(t, fs, name, pass); pass++ {
		}
	}
}

// fails lets the operation of this number fail, and reports whether there was one.
func (c *directoryStep) fails(t *testing.T, fs *vfs.MemFS, name string, pass int) (met bool) {
	mem := vfs.NewMem()
	if _, err := vfs.Clone(fs, mem, "data", "data"); err != nil {
		t.Fatal(err)
	}
	f := &narrow{kinds: directoryOps(), pass: -1, once: true}
	if c.kinds != nil {
		f.kinds = c.kinds
	}
	e, err := narrowEngine(t, mem, f)
	if err == nil && c.prepare != nil {
		err = c.prepare(e)
	}
	if err != nil {
		t.Fatal(err)
	}
	f.arm(pass)
	err = c.do(e)
	met = f.hits() > 0
	f.arm(-1)
	if err != nil && !errors.Is(err, syscall.EIO) && partition.CodeOf(err) == 0 {
		t.Errorf("%s, operation %d: %v", name, pass+1, err)
	}
	first := err
	if err != nil {
		err = c.do(e)
	}
	if err != nil && partition.CodeOf(err) != partition.CodeExists { // it was installed but for a sync
		t.Errorf("%s, operation %d: %v, and once more: %v", name, pass+1, first, err)
	}
	_ = e.Close()
	if e, err = narrowEngine(t, mem, &narrow{pass: -1}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.check(e), e.Close()); err != nil {
		t.Errorf("%s, operation %d: %v, and then %v", name, pass+1, first, err)
	}
	return met
}

// listed checks how many stores there are.
func listed(e *Engine, want int) error {
	all, err := e.Generations()
	if err == nil && len(all) != want {
		err = fmt.Errorf("%w: there are %v, want %d", errWrong, all, want)
	}
	return err
}

// TestWhatAStoreRefuses: writes outside of an apply, in the store's own space or too
// long are refused, and so is a copy of a newer format.
func TestWhatAStoreRefuses(t *testing.T) {
	e := newTestEngine(t, Options{})
	s := openStore(t, e, 1)
	long := bytes.Repeat([]byte("k"), MaxKeyBytes+1)
	var late partition.Writer
	err := s.Apply(1, func(w partition.Writer) error {
		late = w
		for _, f := range []func() error{
			func() error { return w.Set(long, nil) }, func() error { return w.Delete(long) },
			func() error { return w.DeleteRange(partition.KeyRange{Lo: long, Hi: append(long, 'z')}) },
			func() error { return w.Set(appliedKey(), nil) },
		} {
			if code := partition.CodeOf(f()); code != partition.CodeTooLarge && code != partition.CodeInvalid {
				return fmt.Errorf("it was taken: %v", code)
			}
		}
		return w.Set([]byte("k"), []byte("v"))
	})
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = late.Get([]byte("k"))
	for _, err := range []error{err, late.Set([]byte("k"), nil), late.DeleteRange(partition.KeyRange{})} {
		if partition.CodeOf(err) != partition.CodeClosed {
			t.Errorf("behind the apply: %v", err)
		}
	}
	for _, err := range late.Scan(partition.KeyRange{}) {
		if partition.CodeOf(err) != partition.CodeClosed {
			t.Errorf("behind the apply: %v", err)
		}
	}
	dir := e.path("stage", "x")
	if _, err := s.Checkpoint(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	for marker, want := range map[string]partition.Code{"999999.999": partition.CodeNewerFormat, "000009.x": partition.CodeCorrupt} {
		name := e.fs.PathJoin(dir, markerPrefix+marker)
		writeFile(t, e.o.FS, name, []byte{})
		_, err := e.Verify(dir)
		for _, err := range []error{err, e.Install(dir, 9, 1)} {
			if partition.CodeOf(err) != want {
				t.Errorf("marker %s: %v", marker, err)
			}
		}
		if err := e.o.FS.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Install(dir, 9, 1); err != nil {
		t.Error(err)
	}
	if _, err := NewEngine(Options{Dir: ""}); err == nil {
		t.Error("an engine without a directory")
	}
}
