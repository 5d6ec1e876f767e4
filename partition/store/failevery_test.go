package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"pando.dev/pando/partition"
)

// storyWait bounds one run of the story; it is there to be noticed, not met.
const storyWait = 20 * time.Second

// fault fails operations of a disk by their number.
type fault struct {
	err    error
	at     int64 // the first operation that fails, counted from 1; 0 is none
	sticky bool  // and all after it, until heal

	mu   sync.Mutex
	n    int64
	hits int64
	last string // what failed last
}

func (f *fault) String() string { return "fault" }

func (f *fault) MaybeError(op errorfs.Op) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n++
	if f.at == 0 || f.n < f.at || !f.sticky && f.n > f.at {
		return nil
	}
	f.hits++
	f.last = fmt.Sprintf("op %d on %s", op.Kind, op.Path)
	return f.err
}

func (f *fault) heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at = 0
}

// faultWorld is one run: an engine on a disk that fails, and what it claimed.
type faultWorld struct {
	mem   *vfs.MemFS
	f     *fault
	e     *Engine
	log   []record
	ended chan error // Fatal was told

	mu        sync.Mutex
	durable   map[partition.GroupID]partition.Index
	installed bool // Install returned without an error
	dropped   bool // and so did Drop
	clone     *vfs.MemFS
}

// note is Options.Durable.
func (w *faultWorld) note(g partition.GroupID, _ uint32, i partition.Index) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.durable[g] = max(w.durable[g], i)
}

// cut takes what a power cut would leave, once.
func (w *faultWorld) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.clone == nil {
		w.clone = w.mem.CrashClone(vfs.CrashCloneCfg{})
	}
}

func (w *faultWorld) fatal(err error) {
	w.cut()
	select {
	case w.ended <- err:
	default:
	}
	select {} // the process would be gone, and nothing of it runs on
}

func (w *faultWorld) engine() (*Engine, error) {
	return NewEngine(Options{
		FS: errorfs.Wrap(w.mem, w.f), Dir: "data", MaxOpen: 2, CacheBytes: 256 << 10, MemoryBytes: 256 << 10,
		memTable: 64 << 10, backOff: time.Millisecond, Durable: w.note, Fatal: w.fatal,
	})
}

// again tries something until it works or has failed three times: a fault that
// came once must not last.
func (w *faultWorld) again(do func() error) error {
	var err error
	for range 3 {
		if err = do(); err == nil {
			return nil
		}
	}
	return err
}

// story makes stores, writes, flushes, puts to sleep, wakes, copies, installs,
// reads and drops. It returns the first error that stayed. heal is when a disk
// that fails for long comes back.
func (w *faultWorld) story(ctx context.Context, heal func()) error {
	if err := w.again(func() (err error) { w.e, err = w.engine(); return err }); err != nil {
		heal()
		if w.e, err = w.engine(); err != nil {
			return fmt.Errorf("make the engine on a healed disk: %w", err)
		}
	}
	for i := range partition.Index(len(w.log)) {
		for g := partition.GroupID(1); g <= 2; g++ {
			if err := w.write(ctx, g, i, heal); err != nil {
				return fmt.Errorf("group %d, record %d: %w", g, i+1, err)
			}
		}
	}
	short, cancel := ctx, func() {}
	if w.f.sticky { // a flush waits as long as the disk is full
		short, cancel = context.WithTimeout(ctx, 60*time.Millisecond)
	}
	err := w.again(func() error { return w.copy(short) })
	cancel()
	if err != nil {
		heal()
		if err := w.again(func() error { return w.copy(ctx) }); err != nil {
			return fmt.Errorf("copy: %w", err)
		}
	}
	return w.end(ctx, heal)
}

// write applies a record and sometimes flushes or puts to sleep. While the disk
// fails both may fail; on a healed one both must work.
func (w *faultWorld) write(ctx context.Context, g partition.GroupID, i partition.Index, heal func()) error {
	s, err := w.e.Open(g, 1)
	if err != nil {
		return err
	}
	do := func() error {
		switch at, err := s.Applied(); {
		case err != nil || at > i: // > i: what was applied before something else failed
			return err
		case at < i:
			return fmt.Errorf("%w: the store is at %d, it was at %d", errWrong, at, i)
		}
		return applyWhole(nil, s, w.log, i, i+1)
	}
	if err := w.again(do); err != nil {
		if !w.f.sticky {
			return err // what came once lasts
		}
		heal()
		if err := w.again(do); err != nil {
			return err
		}
	}
	if i%4 != 3 {
		return nil
	}
	flush := func() error {
		short, cancel := context.WithTimeout(ctx, 30*time.Millisecond)
		defer cancel()
		_, err := s.Flush(short)
		return err
	}
	if err := flush(); err != nil {
		if w.f.sticky {
			heal() // what failed for long is over
		}
		if _, err := s.Flush(ctx); err != nil {
			return fmt.Errorf("flush: %w", err)
		}
	}
	s.sp.hibernate()
	return nil
}

// copy makes group 3 out of group 1.
func (w *faultWorld) copy(ctx context.Context) error {
	if w.installed {
		return nil
	}
	s, err := w.e.Open(1, 1)
	if err != nil {
		return err
	}
	stage := w.e.path("stage", "copy")
	if err := w.e.o.FS.RemoveAll(stage); err != nil {
		return err
	}
	if _, err := s.Checkpoint(ctx, stage); err != nil {
		return err
	}
	if _, err := w.e.Verify(stage); err != nil {
		return err
	}
	if _, err := w.e.NextGeneration(3, 0); err != nil {
		return err
	}
	err = w.e.Install(stage, 3, 1)
	if err != nil && exists3(w.e) {
		// It is not known whether it is there for good: the next start decides.
		w.installed = true
		return nil
	}
	w.installed = err == nil
	if err == nil {
		w.note(3, 1, partition.Index(len(w.log)))
	}
	return err
}

// durable3 is what was claimed of the copy; 0 if Install returned an error.
func (w *faultWorld) durable3() partition.Index {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.durable[3]
}

func exists3(e *Engine) bool {
	_, err := e.o.FS.Stat(ID{Group: 3, Generation: 1}.path(e))
	return err == nil
}

// end reads all, drops group 3 and closes.
func (w *faultWorld) end(ctx context.Context, heal func()) error {
	for g := partition.GroupID(1); g <= 3; g++ {
		if g == 3 && w.durable3() == 0 {
			continue // Install failed: nobody opens what may be there
		}
		s, err := w.e.Open(g, 1)
		if err != nil {
			return err
		}
		if err := w.again(func() error { return w.read(ctx, s) }); err != nil {
			heal()
			if err := w.again(func() error { return w.read(ctx, s) }); err != nil {
				return fmt.Errorf("read group %d: %w", g, err)
			}
		}
	}
	if err := w.again(func() error { _, err := w.e.Generations(); return err }); err != nil && !w.f.sticky {
		return fmt.Errorf("list: %w", err)
	}
	w.cut()
	err := w.e.Drop(3, 1)
	w.mu.Lock()
	w.dropped = err == nil
	w.mu.Unlock()
	return w.e.Close()
}

// read compares a store with the log.
func (w *faultWorld) read(ctx context.Context, s *Store) error {
	v, err := s.View()
	if err != nil {
		return err
	}
	defer func() { _ = v.Close() }()
	at, err := v.Applied()
	if err != nil {
		return err
	}
	if _, err := v.Digest(ctx); err != nil {
		return err
	}
	have := map[string]string{}
	for p, err := range v.Scan(partition.KeyRange{}) {
		if err != nil {
			return err
		}
		have[string(p.Key)] = string(p.Value)
	}
	if at != partition.Index(len(w.log)) || !maps.Equal(have, model(w.log, at)) {
		return fmt.Errorf("%w: at %d of %d with the keys %q, want %q", errWrong, at, len(w.log), slices.Sorted(maps.Keys(have)), slices.Sorted(maps.Keys(model(w.log, at))))
	}
	return nil
}

var errWrong = errors.New("the state is not that of the log")

// runFault runs the story once and looks at what it leaves.
func runFault(tb testing.TB, log []record, f *fault) (ops, hits int64, violation string) {
	w := &faultWorld{mem: vfs.NewCrashableMem(), f: f, log: log, ended: make(chan error, 1), durable: map[partition.GroupID]partition.Index{}}
	ctx, cancel := context.WithTimeout(context.Background(), storyWait)
	defer cancel()
	done := make(chan error, 1)
	if f.sticky { // a checkpoint waits for space, whatever its context says
		defer time.AfterFunc(500*time.Millisecond, f.heal).Stop()
	}
	go func() {
		done <- w.story(ctx, f.heal)
	}()
	var fatal error
	select {
	case err := <-done:
		if err != nil && w.e != nil && w.e.poisoned.Load() != nil {
			fatal = <-w.ended // it is about to be told
		} else if err != nil {
			return f.n, f.hits, err.Error()
		}
	case fatal = <-w.ended:
	case <-ctx.Done():
		return f.n, f.hits, "it hangs"
	}
	if fatal != nil && w.e != nil && !w.e.closing.Swap(true) {
		close(w.e.quit) // what is left of the process ends
	}
	f.mu.Lock()
	ops, hits = f.n, f.hits
	f.mu.Unlock()
	if fatal != nil && hits == 0 {
		return ops, hits, fmt.Sprintf("the process ended without a fault: %v", fatal)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return ops, hits, w.after(tb)
}

// after opens what a power cut left, on a disk that works: every claim holds.
func (w *faultWorld) after(tb testing.TB) string {
	e := newCrashEngine(tb, w.clone)
	defer func() {
		if err := e.Close(); err != nil {
			tb.Error(err)
		}
	}()
	for g := partition.GroupID(1); g <= 3; g++ {
		if g == 3 && !exists(tb, e, g) {
			if w.durable[3] > 0 {
				return "an installed copy is gone"
			}
			continue
		}
		v, err := openStore(tb, e, g).View()
		if err != nil {
			return fmt.Sprintf("group %d does not open: %v", g, err)
		}
		at, err := v.Applied()
		if err != nil {
			return err.Error()
		}
		have := dump(tb, v)
		_ = v.Close()
		if at < w.durable[g] || at > partition.Index(len(w.log)) || !maps.Equal(have, model(w.log, at)) {
			return fmt.Sprintf("group %d is at %d, durable was %d; %d keys, want %d", g, at, w.durable[g], len(have), len(model(w.log, at)))
		}
	}
	return ""
}

// faultStride is which share of the operations TestEveryOperationFails lets
// fail: one in PANDO_FAULTS, or in few.
func faultStride(tb testing.TB, few int64) int64 {
	v := os.Getenv("PANDO_FAULTS")
	if v == "" {
		return few
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < 1 {
		tb.Fatalf("PANDO_FAULTS=%q: lets one operation in so many fail", v)
	}
	return n
}

// TestEveryOperationFails lets each operation on the disk fail, once or from
// then on until the disk heals, by an input/output error, for want of space and
// by something unknown. Whatever fails: no call hangs, a fault that came once
// does not last, a sync that failed ends the process, and what was claimed
// durable or installed is there after the power is cut.
func TestEveryOperationFails(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	var log []record
	for i := range 12 {
		log = append(log, newRecord(r, i))
	}
	ops := int64(1 << 62)
	for range 5 { // how many there are depends on the background: a slow machine has more
		n, _, v := runFault(t, log, &fault{})
		if v != "" {
			t.Fatal(v)
		}
		ops = min(ops, n)
	}
	runs, met, first := 0, 0, int64(0)
	for name, c := range map[string]struct {
		err    error
		sticky bool
	}{
		"EIO once": {syscall.EIO, false}, "no space once": {syscall.ENOSPC, false}, "unknown once": {errors.New("unknown"), false},
		"no space for long": {syscall.ENOSPC, true}, "EIO for long": {syscall.EIO, true},
	} {
		first++
		for at := first; at <= ops; at += faultStride(t, 31) {
			f := &fault{err: c.err, at: at, sticky: c.sticky}
			_, n, v := runFault(t, log, f)
			if v != "" {
				t.Errorf("%s, operation %d (%s): %s", name, at, f.last, v)
			}
			if runs++; n > 0 {
				met++
			}
		}
	}
	t.Logf("%d operations, %d runs, %d met their fault", ops, runs, met)
	if met < runs*8/10 { // how many operations there are depends on the background
		t.Errorf("only %d of %d runs met their fault", met, runs)
	}
}
