package control

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/hashicorp/raft"

	"pando.dev/pando/partition"
)

// diskFault fails operations of a disk by their number.
type diskFault struct {
	err    error
	at     int  // the first that fails, counted from 1; 0 is none
	sticky bool // and all after it
	mu     sync.Mutex
	n      int
	last   string
}

func (f *diskFault) String() string { return "fault" }

func (f *diskFault) MaybeError(op errorfs.Op) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if strings.HasSuffix(op.Path, ".log") && op.Kind != errorfs.OpFileRead && op.Kind != errorfs.OpFileReadAt {
		return nil // when its own log fails Pebble ends the process, by a panic that no test survives
	}
	f.n++
	if f.at == 0 || f.n < f.at || !f.sticky && f.n > f.at {
		return nil
	}
	f.last = fmt.Sprintf("op %d on %s", op.Kind, op.Path)
	return f.err
}

func (f *diskFault) heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at = 0
}

// seatRun is the life of one seat's store on a disk that fails.
type seatRun struct {
	fs    *vfs.MemFS
	f     *diskFault
	ended chan struct{} // the process is gone
	clone *vfs.MemFS

	mu       sync.Mutex
	last     uint64 // entry that was acknowledged
	stable   uint64
	snapshot uint64 // index of the newest snapshot that was closed
	began    uint64 // and of the newest that was begun
}

func (r *seatRun) exit() {
	r.clone = r.fs.CrashClone(vfs.CrashCloneCfg{})
	close(r.ended)
	select {} // nothing of the process runs on
}

func (r *seatRun) open() (*store, error) {
	return openStoreOn(errorfs.Wrap(r.fs, r.f), "store", slog.New(slog.DiscardHandler), r.exit)
}

// live opens the store, appends, votes, takes snapshots, cuts the log, reads and
// closes, twice; it ends with the first error.
func (r *seatRun) live() error {
	for round := range uint64(2) {
		s, err := r.open()
		if err != nil {
			return fmt.Errorf("open: %w", err)
		}
		if err := r.use(s, round); err != nil {
			return errors.Join(err, s.Close())
		}
		if err := s.Close(); err != nil {
			return fmt.Errorf("close: %w", err)
		}
	}
	return nil
}

func (r *seatRun) use(s *store, round uint64) error {
	for i := range uint64(6) {
		at := round*6 + i + 1
		if err := s.StoreLogs([]*raft.Log{entry(at, 1, fmt.Sprint(at))}); err != nil {
			return err
		}
		r.mu.Lock()
		r.last = at
		r.mu.Unlock()
		if err := s.SetUint64([]byte("n"), at); err != nil {
			return err
		}
		r.mu.Lock()
		r.stable = at
		r.mu.Unlock()
		if i%3 == 2 {
			if err := r.snapshot1(s, at); err != nil {
				return err
			}
		}
	}
	var l raft.Log
	if err := s.GetLog(r.last, &l); err != nil {
		return err
	}
	if n, err := s.GetUint64([]byte("n")); err != nil || n != r.last {
		return fmt.Errorf("stable %d: %w", n, err)
	}
	all, err := s.List()
	if err != nil {
		return err
	}
	_, b, err := readAt(s, all[0].ID)
	if err == nil && !bytes.Equal(b, content(r.snapshot)) {
		err = fmt.Errorf("snapshot of %d bytes differs", len(b))
	}
	return err
}

func content(index uint64) []byte {
	return bytes.Repeat([]byte{byte(index)}, chunkBytes+int(index))
}

func (r *seatRun) snapshot1(s *store, at uint64) error {
	sink, err := s.Create(1, at, 1, configuration([]partition.NodeID{"a"}), 1, nil)
	if err != nil {
		return err
	}
	r.began = at
	if _, err := sink.Write(content(at)); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	if err := sink.Close(); err != nil {
		return err
	}
	r.mu.Lock()
	r.snapshot = at
	r.mu.Unlock()
	return nil
}

func readAt(s *store, id string) (*raft.SnapshotMeta, []byte, error) {
	meta, rc, err := s.Open(id)
	if err != nil {
		return nil, nil, err
	}
	b, err := io.ReadAll(rc)
	return meta, b, errors.Join(err, rc.Close())
}

// after opens what a power cut left: every claim holds.
func (r *seatRun) after() error {
	if r.clone == nil {
		r.clone = r.fs.CrashClone(vfs.CrashCloneCfg{})
	}
	s, err := openStoreOn(r.clone, "store", slog.New(slog.DiscardHandler), func() { panic("the process ends") })
	if err != nil {
		return err
	}
	defer s.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	var l raft.Log
	for i := uint64(1); i <= r.last; i++ {
		if err := s.GetLog(i, &l); err != nil || string(l.Data) != fmt.Sprint(i) {
			return fmt.Errorf("entry %d of %d: %q, %w", i, r.last, l.Data, err)
		}
	}
	if n, err := s.GetUint64([]byte("n")); err != nil || n < r.stable || n > r.last {
		return fmt.Errorf("stable value %d, it was %d: %w", n, r.stable, err)
	}
	all, err := s.List()
	if err != nil || r.snapshot > 0 && (len(all) == 0 || all[0].Index < r.snapshot) {
		return fmt.Errorf("%d snapshots, there was one at %d: %w", len(all), r.snapshot, err)
	}
	for _, m := range all {
		if _, b, err := readAt(s, m.ID); err != nil || !bytes.Equal(b, content(m.Index)) {
			return fmt.Errorf("snapshot at %d has %d bytes: %w", m.Index, len(b), err)
		}
	}
	return nil
}

func runSeat(f *diskFault) (ops int, err error) {
	r := &seatRun{fs: vfs.NewCrashableMem(), f: f, ended: make(chan struct{})}
	done := make(chan error, 1)
	if f.sticky && errors.Is(f.err, syscall.ENOSPC) {
		// Tables wait for space, and with them an append when the memory is full.
		defer time.AfterFunc(300*time.Millisecond, f.heal).Stop()
	}
	go func() { done <- r.live() }()
	limit := time.NewTimer(20 * time.Second)
	defer limit.Stop()
	select {
	case err = <-done:
	case <-r.ended:
	case <-limit.C:
		return f.n, errors.New("it hangs")
	}
	f.mu.Lock()
	ops = f.n
	met := f.last != ""
	f.mu.Unlock()
	if !met && err != nil {
		return ops, err
	}
	return ops, r.after()
}

// TestEveryOperationFails lets each operation on the disk of a seat's store
// fail, once or from then on. Whatever fails: no call hangs, and every entry,
// vote and snapshot that was acknowledged is there after the power is cut. It
// runs in a process of its own, because what is left of a process that ended
// stays in memory here.
func TestEveryOperationFails(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFaultsChild$", "-test.v", "-test.timeout=10m")
	cmd.Env = append(os.Environ(), childEnv+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestFaultsChild")) {
		t.Fatalf("%v\n%s", err, out)
	}
}

// childEnv marks the process of TestFaultsChild, and one that measures what the
// tests cover.
const childEnv = "PANDO_CONTROL_FAULTS"

// TestFaultsChild is the child's part of TestEveryOperationFails.
func TestFaultsChild(t *testing.T) {
	if os.Getenv(childEnv) == "" {
		t.Skip("runs as a child of TestEveryOperationFails")
	}
	stride := 23
	if v := os.Getenv("PANDO_FAULTS"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 {
			t.Fatalf("PANDO_FAULTS=%q: lets one operation in so many fail", v)
		}
		stride = n
	}
	ops, err := runSeat(&diskFault{})
	if err != nil {
		t.Fatal(err)
	}
	runs := 0
	for i, f := range []struct {
		err    error
		sticky bool
	}{{syscall.EIO, false}, {syscall.EIO, true}, {syscall.ENOSPC, false}, {syscall.ENOSPC, true}} {
		for at := 1 + i; at <= ops; at += stride {
			x := &diskFault{err: f.err, sticky: f.sticky, at: at}
			if _, err := runSeat(x); err != nil {
				t.Errorf("%v, for long %v, operation %d (%s): %v", f.err, f.sticky, at, x.last, err)
			}
			runs++
		}
	}
	t.Logf("%d operations, %d runs", ops, runs)
}

// failingWriter fails after n bytes.
type failingWriter struct{ n int }

func (w *failingWriter) Write(p []byte) (int, error) {
	if w.n -= len(p); w.n < 0 {
		return 0, syscall.ENOSPC
	}
	return len(p), nil
}

// failingReader fails after n bytes.
type failingReader struct {
	b []byte
	n int
}

func (r *failingReader) Read(p []byte) (int, error) {
	if r.n == 0 {
		return 0, syscall.EIO
	}
	n := copy(p, r.b[:min(len(r.b), r.n)])
	r.b, r.n = r.b[n:], r.n-n
	return n, nil
}

// TestSnapshotOnABadDisk: a snapshot whose writing or reading fails anywhere is
// not taken for a whole one.
func TestSnapshotOnABadDisk(t *testing.T) {
	s := seeded(t)
	whole := bytesOf(t, s)
	for n := range len(whole) {
		if err := s.snapshot().write(&failingWriter{n}); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("writing fails after %d bytes: %v", n, err)
		}
		if _, err := readState(&failingReader{whole, n}); err == nil {
			t.Fatalf("reading fails after %d bytes, and it was taken", n)
		}
	}
}
