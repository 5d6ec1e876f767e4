package store

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"pando.dev/pando/partition"
)

// fakeDB asks for compactions as Pebble does: after it was refused it does not
// ask again until it has said that it has nothing to do.
type fakeDB struct {
	c       *compactor
	allowed atomic.Int32
	score   float64
	onAsked func() // called when it is asked, before the answer is given back

	mu      sync.Mutex
	work    int // compactions to run
	waiting bool
	running []pebble.CompactionGrantHandle
}

func (d *fakeDB) GetAllowedWithoutPermission() int { return int(d.allowed.Load()) }

func (d *fakeDB) GetWaitingCompaction() (bool, pebble.WaitingCompaction) {
	waits := d.waits()
	d.onAsked()
	return waits, pebble.WaitingCompaction{Priority: 80, Score: d.score}
}

func (d *fakeDB) waits() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.waiting && d.work == 0 {
		d.waiting = false
	}
	return d.waiting
}

func (d *fakeDB) Schedule(h pebble.CompactionGrantHandle) bool {
	if !d.waits() {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.work--
	d.running = append(d.running, h)
	return true
}

// add is more work turning up, as after a flush, or less if n is negative.
func (d *fakeDB) add(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.work = max(0, d.work+n)
	for d.work > 0 && !d.waiting {
		ok, h := d.c.TrySchedule()
		if !ok {
			d.waiting = true
			return
		}
		d.work--
		d.running = append(d.running, h)
	}
}

// finish ends one compaction, if one runs.
func (d *fakeDB) finish() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := len(d.running); n > 0 {
		h := d.running[n-1]
		d.running = d.running[:n-1]
		h.Done()
	}
}

func (d *fakeDB) counts() (work, running int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.work, len(d.running)
}

// move is one thing that happens to one store.
type move struct {
	store, what, n int
	during         bool // while the scheduler next asks some store
}

// schedulerWorld is a scheduler with stores.
type schedulerWorld struct {
	s       *scheduler
	dbs     []*fakeDB
	mu      sync.Mutex
	pending []move // to happen during the next questions
}

func newSchedulerWorld(limit, stores int) *schedulerWorld {
	w := &schedulerWorld{s: newScheduler(limit)}
	for i := range stores {
		d := &fakeDB{c: w.s.newCompactor(), score: float64(i), onAsked: w.asked}
		d.allowed.Store(1)
		d.c.Register(2, d)
		w.dbs = append(w.dbs, d)
	}
	return w
}

func (w *schedulerWorld) asked() {
	w.mu.Lock()
	pending := w.pending
	w.pending = nil
	w.mu.Unlock()
	for _, m := range pending {
		w.make(m)
	}
}

func (w *schedulerWorld) make(m move) {
	d := w.dbs[m.store%len(w.dbs)]
	switch m.what {
	case 0:
		d.add(m.n)
	case 1:
		d.add(-m.n)
	case 2:
		d.allowed.Store(int32(m.n%3 + 1))
		d.c.UpdateGetAllowedWithoutPermission()
	default:
		d.finish()
	}
}

// run makes the moves and returns what went wrong.
func (w *schedulerWorld) run(moves []move) string {
	for i, m := range moves {
		if m.during {
			w.mu.Lock()
			w.pending = append(w.pending, m)
			w.mu.Unlock()
			continue
		}
		w.make(m)
		synctest.Wait()
		if v := w.check(); v != "" {
			return fmt.Sprintf("move %d: %s", i, v)
		}
	}
	return ""
}

// check needs everything to be at rest.
func (w *schedulerWorld) check() string {
	total, waits := 0, -1
	for i, d := range w.dbs {
		work, running := d.counts()
		total += running
		if work > 0 && running < int(d.allowed.Load()) {
			waits = i
		}
	}
	switch {
	case total > w.s.limit:
		return fmt.Sprintf("%d compactions run, limit %d", total, w.s.limit)
	case waits >= 0 && total < w.s.limit:
		return fmt.Sprintf("store %d waits while %d slots are free", waits, w.s.limit-total)
	}
	return ""
}

// TestSchedulerForgetsNobody: whatever happens in whatever order, also while
// the scheduler asks around, the limit holds, and no store waits beside a free
// slot.
func TestSchedulerForgetsNobody(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		limit := rapid.IntRange(1, 3).Draw(rt, "limit")
		stores := rapid.IntRange(1, 40).Draw(rt, "stores")
		moves := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) move {
			return move{
				store: rapid.IntRange(0, stores-1).Draw(t, "store"), what: rapid.IntRange(0, 6).Draw(t, "what"),
				n: rapid.IntRange(1, 3).Draw(t, "n"), during: rapid.IntRange(0, 3).Draw(t, "during") == 0,
			}
		}), 200, 300).Draw(rt, "moves")
		var wrong string
		synctest.Test(t, func(*testing.T) { wrong = newSchedulerWorld(limit, stores).run(moves) })
		if wrong != "" {
			rt.Fatal(wrong)
		}
	})
}

// TestSchedulerRefusedWhileAsked: a store that is refused again between its
// answer "nothing to do" and the scheduler's taking note stays in the queue.
func TestSchedulerRefusedWhileAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newSchedulerWorld(1, 2)
		wrong := w.run([]move{
			{store: 0, what: 0, n: 1},               // runs
			{store: 1, what: 0, n: 1},               // waits
			{store: 1, what: 1, n: 1},               // has nothing to do after all, and has not said so
			{store: 1, what: 0, n: 1, during: true}, // refused, as store 2 was quicker
			{store: 0, what: 3},
		})
		if wrong != "" {
			t.Fatal(wrong)
		}
	})
}

// TestCompactionsOfManyStores: real stores with more to compact than may run
// at once all get to a healthy shape.
func TestCompactionsOfManyStores(t *testing.T) {
	const stores, flushes = 12, 9
	e := newTestEngine(t, Options{FS: vfs.NewMem(), Compactions: 1, MaxOpen: stores})
	var all []*Store
	for g := range partition.GroupID(stores) {
		all = append(all, openStore(t, e, g+1))
	}
	for i := range partition.Index(flushes) {
		for _, s := range all {
			for k := range partition.Index(3) {
				set(t, s, 3*i+k+1, fmt.Sprintf("\x01%d", k), fmt.Sprint(i))
			}
			if _, err := s.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, s := range all {
		for l0Files(t, s) >= 4 || e.Stats().Waiting > 0 {
			if t.Context().Err() != nil {
				t.Fatalf("store %s has %d files in L0, %d stores wait", s.ID(), l0Files(t, s), e.Stats().Waiting)
			}
		}
	}
}

func l0Files(tb testing.TB, s *Store) int64 {
	db, err := s.use()
	if err != nil {
		tb.Fatal(err)
	}
	defer s.sp.release()
	return db.Metrics().Levels[0].TablesCount
}
