package store

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"pando.dev/pando/partition"
)

// crashes is how many crashes TestCrash goes through: PANDO_CRASHES, or a
// share that fits the default run.
func crashes(tb testing.TB) int {
	if v := os.Getenv("PANDO_CRASHES"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil {
			tb.Fatal(err)
		}
		return n
	}
	return 300
}

// firstSeed is where TestCrash begins: PANDO_SEED, or 1.
func firstSeed(tb testing.TB) uint64 {
	v := os.Getenv("PANDO_SEED")
	if v == "" {
		return 1
	}
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

// op is one write of a record.
type op struct {
	kind       byte // 's'et, 'd'elete, 'r'ange
	key, value string
}

// record is the writes of one log record.
type record []op

func (r record) apply(w partition.Writer) error {
	for _, o := range r {
		var err error
		switch o.kind {
		case 's':
			err = w.Set([]byte(o.key), []byte(o.value))
		case 'd':
			err = w.Delete([]byte(o.key))
		case 'r':
			err = w.DeleteRange(partition.KeyRange{Lo: []byte(o.key), Hi: []byte(o.value)})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// model is the state after the first n records of a log.
func model(log []record, n partition.Index) map[string]string {
	m := make(map[string]string)
	for _, r := range log[:n] {
		for _, o := range r {
			switch o.kind {
			case 's':
				m[o.key] = o.value
			case 'd':
				delete(m, o.key)
			case 'r':
				maps.DeleteFunc(m, func(k, _ string) bool { return k >= o.key && (o.value == "" || k < o.value) })
			}
		}
	}
	return m
}

func crashKey(r *rand.Rand) string { return fmt.Sprintf("\x01%02d", r.IntN(60)) }

// newRecord draws a record: mostly small, sometimes one that is larger than a
// memtable takes.
func newRecord(r *rand.Rand, i int) record {
	var rec record
	n := 1 + r.IntN(4)
	size := r.IntN(200)
	if r.IntN(12) == 0 {
		n, size = 8, 6<<10
	}
	for j := range n {
		switch k := r.IntN(10); {
		case k < 7:
			v := fmt.Sprintf("%d.%d.", i, j)
			rec = append(rec, op{'s', crashKey(r), v + string(make([]byte, size))})
		case k < 9:
			rec = append(rec, op{'d', crashKey(r), ""})
		default:
			a, b := crashKey(r), crashKey(r)
			if r.IntN(5) == 0 {
				b = ""
			}
			rec = append(rec, op{'r', a, b})
		}
	}
	return rec
}

// applyFunc applies records to a store; log[:from] is there already.
type applyFunc func(r *rand.Rand, s *Store, log []record, from, to partition.Index) error

// applyWhole is the real thing.
func applyWhole(_ *rand.Rand, s *Store, log []record, from, to partition.Index) error {
	return s.Apply(to, func(w partition.Writer) error {
		for _, rec := range log[from:to] {
			if err := rec.apply(w); err != nil {
				return err
			}
		}
		return nil
	})
}

// applyApart is a planted bug: the applied index is in a batch of its own.
func applyApart(r *rand.Rand, s *Store, log []record, from, to partition.Index) error {
	db, err := s.use()
	if err != nil {
		return err
	}
	defer s.sp.release()
	w := newWriter(db, newFilter())
	defer w.close()
	for _, rec := range log[from:to] {
		if err := rec.apply(w); err != nil {
			return err
		}
	}
	if err := db.Apply(w.batch, pebble.NoSync); err != nil {
		return err
	}
	if r.IntN(4) == 0 {
		s.FlushSoon()
		runtime.Gosched()
	}
	if err := db.Set(appliedKey(), appliedValue(to), pebble.NoSync); err != nil {
		return err
	}
	s.sp.applied.Store(uint64(to))
	s.sp.account(to, int64(w.batch.Len()))
	return nil
}

// world is one history: a log that is never lost, and a store that crashes.
type world struct {
	tb    testing.TB
	r     *rand.Rand
	apply applyFunc
	fs    *vfs.MemFS
	e     *Engine
	s     *Store
	log   []record
	seen  crashStats
}

// crashStats shows that the crashes were worth something.
type crashStats struct {
	crashes int
	lost    int // records were lost
	kept    int // some state came back
	ahead   int // more came back than had been reported durable
}

func (c *crashStats) add(o crashStats) {
	c.crashes += o.crashes
	c.lost += o.lost
	c.kept += o.kept
	c.ahead += o.ahead
}

func (c *crashStats) note(at, durable, applied partition.Index) {
	c.crashes++
	if at < applied {
		c.lost++
	}
	if at > 0 {
		c.kept++
	}
	if at > durable {
		c.ahead++
	}
}

func (w *world) open() {
	w.e = newCrashEngine(w.tb, w.fs)
	s, err := w.e.Open(3, 1)
	if err != nil {
		w.tb.Fatal(err)
	}
	w.s = s
}

func newCrashEngine(tb testing.TB, fs vfs.FS) *Engine {
	e, err := NewEngine(Options{
		FS: fs, Dir: "data", MaxOpen: 2, CacheBytes: 256 << 10, MemoryBytes: 96 << 10, memTable: 64 << 10,
		Fatal: func(err error) {
			tb.Errorf("fatal: %v", err)
			runtime.Goexit()
		},
	})
	if err != nil {
		tb.Fatal(err)
	}
	return e
}

// step does one random thing.
func (w *world) step() {
	switch k := w.r.IntN(20); {
	case k == 0:
		if _, err := w.s.Flush(context.Background()); err != nil {
			w.tb.Fatal(err)
		}
	case k <= 2:
		w.s.FlushSoon()
	case k == 3:
		w.s.sp.hibernate()
	default:
		from := partition.Index(w.s.sp.applied.Load())
		if _, err := w.s.Applied(); err != nil {
			w.tb.Fatal(err)
		}
		to := min(from+1+partition.Index(w.r.IntN(3)), partition.Index(len(w.log))+1)
		for partition.Index(len(w.log)) < to {
			w.log = append(w.log, newRecord(w.r, len(w.log)))
		}
		w.waitRoom()
		if err := w.apply(w.r, w.s, w.log, from, to); err != nil {
			w.tb.Fatal(err)
		}
	}
}

func (w *world) waitRoom() {
	for w.s.NeedsRoom() {
		room := make(chan struct{})
		w.s.AwaitRoom(func() { close(room) })
		<-room
	}
}

// crash loses the process and part of what was not synced, and reports how
// what came back differs from a prefix of the log that holds all that was
// reported durable. The history goes on from there.
func (w *world) crash() (violation string) {
	durable, applied := w.s.Durable(), partition.Index(w.s.sp.applied.Load())
	after := w.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: w.r.IntN(101), RNG: w.r})
	lost := fmt.Errorf("crashed")
	w.e.poisoned.Store(&lost) // no flush: the process is gone
	if err := w.e.Close(); err != nil {
		w.tb.Fatal(err)
	}
	w.fs = after
	w.open()
	have, at := state(w.tb, w.s)
	w.seen.note(at, durable, applied)
	switch {
	case at < durable || at > applied:
		return fmt.Sprintf("came back at %d, durable %d, applied %d", at, durable, applied)
	case !maps.Equal(have, model(w.log, at)):
		return fmt.Sprintf("state at %d is not that of the log (durable %d, applied %d)", at, durable, applied)
	}
	return ""
}

// runHistory is one history with the given number of crashes; it stops at the
// first violation.
func runHistory(tb testing.TB, seed uint64, n int, apply applyFunc) (seen crashStats, violation string) {
	r := rand.New(rand.NewPCG(seed, 1))
	w := &world{tb: tb, r: r, apply: apply, fs: vfs.NewCrashableMem()}
	w.open()
	for range n {
		if _, err := w.s.Applied(); err != nil {
			tb.Fatal(err)
		}
		for range 5 + r.IntN(40) {
			w.step()
		}
		if violation = w.crash(); violation != "" {
			break
		}
	}
	if err := w.e.Close(); err != nil {
		tb.Fatal(err)
	}
	return w.seen, violation
}

// TestCrash holds the store to the prefix rule: what survives a crash is the
// state after some record of the log, which the applied index names, and not
// before what was reported durable. PANDO_CRASHES=10000 runs it in
// full, PANDO_SEED chooses other histories.
func TestCrash(t *testing.T) {
	const perHistory = 10
	began := time.Now()
	var seen crashStats
	for seed := firstSeed(t); seen.crashes < crashes(t); seed++ {
		s, v := runHistory(t, seed, perHistory, applyWhole)
		if v != "" {
			t.Fatalf("seed %d: %s", seed, v)
		}
		seen.add(s)
	}
	t.Logf("%+v in %v, no violation", seen, time.Since(began).Round(time.Millisecond))
	if seen.lost < seen.crashes/4 || seen.kept < seen.crashes/4 || seen.ahead == 0 {
		t.Errorf("the crashes hardly test anything: %+v", seen)
	}
}

// TestCrashSeesPlantedBug keeps TestCrash honest: with the applied index in
// another batch than the state it must find a violation.
func TestCrashSeesPlantedBug(t *testing.T) {
	for seed := uint64(1); seed <= 200; seed++ {
		if _, v := runHistory(t, seed, 10, applyApart); v != "" {
			t.Logf("seed %d: %s", seed, v)
			return
		}
	}
	t.Fatal("the planted bug was not found")
}
