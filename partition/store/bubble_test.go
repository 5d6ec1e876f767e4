package store

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"pando.dev/pando/partition"
)

// TestAges: a store is flushed when it has been dirty for FlushAge, closed
// when it has been idle for IdleAge, and opens by itself on the next use.
func TestAges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told atomic.Uint64
		e := newTestEngine(t, Options{Durable: func(_ partition.GroupID, _ uint32, i partition.Index) { told.Store(uint64(i)) }})
		s := openStore(t, e, 1)
		set(t, s, 1, "\x01a", "1")
		time.Sleep(59 * time.Second)
		synctest.Wait()
		if s.Durable() != 0 {
			t.Fatal("flushed too early")
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if s.Durable() != 1 || told.Load() != 1 || s.Usage().UnflushedBytes != 0 {
			t.Fatalf("after a minute: durable %d, told %d, usage %+v", s.Durable(), told.Load(), s.Usage())
		}
		time.Sleep(3 * time.Minute)
		if synctest.Wait(); !s.Usage().Open {
			t.Fatal("closed too early")
		}
		time.Sleep(2 * time.Minute)
		if synctest.Wait(); s.Usage().Open || e.Stats().Open != 0 {
			t.Fatal("an idle store is open")
		}
		if m, i := state(t, s); i != 1 || m["\x01a"] != "1" {
			t.Fatalf("after waking: %v at %d", m, i)
		}
		if !s.Usage().Open {
			t.Fatal("not open after use")
		}
	})
}

// TestFewOpen: many stores with few open at once keep their state, whichever
// are closed in between, and the limit holds.
func TestFewOpen(t *testing.T) {
	const stores, limit = 30, 4
	e := newTestEngine(t, Options{MaxOpen: limit})
	var all []*Store
	for g := range partition.GroupID(stores) {
		all = append(all, openStore(t, e, g+1))
	}
	for i := range partition.Index(5) {
		for g, s := range all {
			set(t, s, i+1, fmt.Sprintf("\x01%d", i), fmt.Sprintf("%d of %d", i, g))
			if n := e.Stats().Open; n > limit {
				t.Fatalf("%d stores are open", n)
			}
		}
	}
	for g, s := range all {
		m, i := state(t, s)
		if len(m) != 5 || i != 5 || m["\x014"] != fmt.Sprintf("4 of %d", g) {
			t.Fatalf("store %s: %v at %d", s.ID(), m, i)
		}
	}
	if n := e.Stats().BackOffs; n != 0 {
		t.Fatalf("%d back-offs", n)
	}
}

// TestAllInUse: with every open store held by a view, one more is refused
// after a bounded wait.
func TestAllInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newTestEngine(t, Options{MaxOpen: 1})
		a, b := openStore(t, e, 1), openStore(t, e, 2)
		v, err := a.View()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.View(); partition.CodeOf(err) != partition.CodeBusy {
			t.Fatalf("a store over the limit: %v", err)
		}
		go func() {
			time.Sleep(time.Second)
			_ = v.Close()
		}()
		w, err := b.View()
		if err != nil {
			t.Fatal(err)
		}
		_ = w.Close()
	})
}

// TestRoom: at the budget a store has no room; it is told when it has.
func TestRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newTestEngine(t, Options{MemoryBytes: 1 << 20})
		s := openStore(t, e, 1)
		value := strings.Repeat("x", 100<<10)
		i := partition.Index(0)
		for ; i < 200; i++ {
			for s.NeedsRoom() {
				room := make(chan struct{})
				s.AwaitRoom(func() { close(room) })
				<-room
			}
			set(t, s, i+1, "\x01a", value)
			if n := e.Stats().UnflushedBytes; n > 1<<20+200<<10 {
				t.Fatalf("%d bytes are unflushed", n)
			}
		}
		if e.Stats().Flushes < 10 || e.Stats().Stalls > 0 {
			t.Fatalf("%+v", e.Stats())
		}
		err := s.Apply(i+1, func(w partition.Writer) error { return w.Set([]byte("\x01b"), []byte(strings.Repeat("x", 1<<20))) })
		if err != nil || !s.NeedsRoom() {
			t.Fatalf("over the budget there is room, %v", err)
		}
	})
}

// faultFS injects an error into what matches.
type faultFS struct {
	on    atomic.Bool
	match func(errorfs.Op) bool
	err   error
	hits  atomic.Int64
}

func (f *faultFS) String() string { return "fault" }

func (f *faultFS) MaybeError(op errorfs.Op) error {
	if f.on.Load() && f.match(op) {
		f.hits.Add(1)
		return f.err
	}
	return nil
}

func writes(suffix string) func(errorfs.Op) bool {
	return func(op errorfs.Op) bool {
		return (op.Kind == errorfs.OpCreate || op.Kind == errorfs.OpFileWrite) && strings.Contains(op.Path, suffix)
	}
}

// TestNoSpace: while the disk is full the store says so, reads go on, nobody
// blocks and nobody spins; when there is space again it recovers by itself.
func TestNoSpace(t *testing.T) {
	for _, where := range []string{".sst", "MANIFEST"} {
		t.Run(where, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { noSpaceStory(t, where) })
		})
	}
}

func noSpaceStory(t *testing.T, where string) {
	fault := &faultFS{match: writes(where), err: syscall.ENOSPC}
	e := newTestEngine(t, Options{FS: errorfs.Wrap(vfs.NewMem(), fault)})
	s := openStore(t, e, 1)
	set(t, s, 1, "\x01a", "1")
	fault.on.Store(true)
	began := time.Now()
	s.FlushSoon()
	time.Sleep(10 * time.Second)
	synctest.Wait()
	if n, most := fault.hits.Load(), int64(time.Since(began)/backOff)+2; n < 50 || n > most {
		t.Fatalf("%d tries in %v, want at most %d", n, time.Since(began), most)
	}
	if err := s.Health(); !errors.Is(err, partition.ErrNoSpace) {
		t.Fatalf("health: %v", err)
	}
	if !s.NeedsRoom() {
		t.Fatal("a store that cannot flush has room")
	}
	if m, i := state(t, s); i != 1 || len(m) != 1 {
		t.Fatalf("reading while the disk is full: %v at %d", m, i)
	}
	room := make(chan struct{})
	s.AwaitRoom(func() { close(room) })
	fault.on.Store(false)
	<-room
	if _, err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Health(); err != nil || s.Durable() != 1 {
		t.Fatalf("after recovery: %v, durable %d", err, s.Durable())
	}
	if n := e.Stats().Stalls; n > 0 {
		t.Fatalf("%d commits stalled", n)
	}
}

// TestNoSpaceAtOpen: a store that cannot be made for want of space is refused
// with that code, and is made once there is space.
func TestNoSpaceAtOpen(t *testing.T) {
	fault := &faultFS{match: writes("stores"), err: syscall.ENOSPC}
	e := newTestEngine(t, Options{FS: errorfs.Wrap(vfs.NewMem(), fault)})
	fault.on.Store(true)
	s := openStore(t, e, 1)
	if _, err := s.Applied(); !errors.Is(err, partition.ErrNoSpace) {
		t.Fatalf("opening on a full disk: %v", err)
	}
	fault.on.Store(false)
	set(t, s, 1, "\x01a", "1")
}

// TestSyncFailureIsFatal: after a failed sync of a table or a MANIFEST the
// process ends and no call claims anything any more.
func TestSyncFailureIsFatal(t *testing.T) {
	for _, where := range []string{".sst", "MANIFEST"} {
		t.Run(where, func(t *testing.T) {
			fault := &faultFS{err: syscall.EIO, match: func(op errorfs.Op) bool {
				sync := op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData
				return sync && strings.Contains(op.Path, where)
			}}
			ended := make(chan error, 8)
			e, err := NewEngine(Options{FS: errorfs.Wrap(vfs.NewMem(), fault), Dir: "data", CacheBytes: 1 << 20, Fatal: func(err error) {
				ended <- err
				runtime.Goexit() // the process would be gone
			}})
			if err != nil {
				t.Fatal(err)
			}
			s := openStore(t, e, 1)
			set(t, s, 1, "\x01a", "1")
			fault.on.Store(true)
			s.FlushSoon()
			if err := <-ended; !errors.Is(err, syscall.EIO) && !strings.Contains(err.Error(), "input/output") {
				t.Fatalf("fatal: %v", err)
			}
			if s.Durable() != 0 {
				t.Fatal("claims to be durable")
			}
			err = s.Apply(2, func(partition.Writer) error { return nil })
			if partition.CodeOf(err) != partition.CodeClosed {
				t.Fatalf("apply after the end: %v", err)
			}
		})
	}
}
