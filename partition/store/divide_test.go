package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"pando.dev/pando/partition"
)

// become marks the copy as another one's.
func become(w partition.Writer) error {
	if err := w.Delete([]byte("k0000")); err != nil {
		return err
	}
	return w.Set([]byte("whose"), []byte("child"))
}

// grow applies n keys from index 1 on.
func grow(tb testing.TB, s *Store, n int) {
	tb.Helper()
	for i := range n {
		set(tb, s, partition.Index(i+1), fmt.Sprintf("k%04d", i), strings.Repeat("v", 100))
	}
}

// growLarge applies n keys of 4 KiB that do not compress.
func growLarge(tb testing.TB, s *Store, n int) {
	tb.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	value := make([]byte, 4<<10)
	for i := range n {
		for j := range value {
			value[j] = byte(r.Uint32())
		}
		set(tb, s, partition.Index(i+1), fmt.Sprintf("k%04d", i), string(value))
		if i%700 == 699 {
			if _, err := s.Flush(tb.Context()); err != nil {
				tb.Fatal(err)
			}
		}
	}
}

func has(tb testing.TB, s *Store, key string) bool {
	tb.Helper()
	v, err := s.View()
	if err != nil {
		tb.Fatal(err)
	}
	defer v.Close()
	_, ok, err := v.Get([]byte(key))
	if err != nil {
		tb.Fatal(err)
	}
	return ok
}

// TestDivide: the other store begins at its own index with the same keys and what
// adopting has changed, is durable, goes on by itself, and its making sums up no
// table.
func TestDivide(t *testing.T) {
	mem := vfs.NewCrashableMem()
	e := newTestEngine(t, Options{FS: mem})
	s := openStore(t, e, 1)
	growLarge(t, s, 2000)
	if _, err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Divide(t.Context(), 2, 1, 1500, become); err != nil {
		t.Fatal(err)
	}
	if len(s.sp.sums) > 0 {
		t.Errorf("%d tables were read as a whole to make hard links of them", len(s.sp.sums))
	}
	after := newTestEngine(t, Options{FS: mem.CrashClone(vfs.CrashCloneCfg{})})
	for what, e := range map[string]*Engine{"at once": e, "after a crash": after} {
		child := openStore(t, e, 2)
		at, err := child.Applied()
		if err != nil || at != 1500 || child.Durable() != 1500 {
			t.Errorf("%s: the child is at %d, durable %d, %v, want 1500", what, at, child.Durable(), err)
		}
		if !has(t, child, "whose") || has(t, child, "k0000") || !has(t, child, "k1999") {
			t.Errorf("%s: the child does not have what it was given", what)
		}
		set(t, child, 1501, "new", "v")
		if i, err := child.Flush(t.Context()); err != nil || i != 1501 {
			t.Errorf("%s: the child flushes to %d, %v", what, i, err)
		}
		parent := openStore(t, e, 1)
		if has(t, parent, "whose") || has(t, parent, "new") || !has(t, parent, "k0000") {
			t.Errorf("%s: the parent has what is the child's", what)
		}
	}
	if err := s.Divide(t.Context(), 2, 1, 1500, become); partition.CodeOf(err) != partition.CodeClosed && partition.CodeOf(err) != partition.CodeExists {
		t.Errorf("made twice: %v", err)
	}
}

// TestDivideFails: when adopting is refused nothing is left, and the generation may
// be used again.
func TestDivideFails(t *testing.T) {
	e := newTestEngine(t, Options{})
	s := openStore(t, e, 1)
	grow(t, s, 10)
	no := partition.Errorf(partition.CodeRefused, "no")
	if err := s.Divide(t.Context(), 2, 1, 5, func(partition.Writer) error { return no }); partition.CodeOf(err) != partition.CodeRefused {
		t.Errorf("%v", err)
	}
	if err := s.Divide(t.Context(), 2, 1, 11, become); partition.CodeOf(err) != partition.CodeInvalid {
		t.Errorf("from an index that the state has not reached: %v", err)
	}
	if ids, err := e.Generations(); err != nil || len(ids) != 1 {
		t.Errorf("left: %v, %v", ids, err)
	}
	if err := s.Divide(t.Context(), 2, 1, 5, become); err != nil {
		t.Errorf("again: %v", err)
	}
}

// divideCamera takes a crash clone before every change of the disk.
type divideCamera struct {
	mem *vfs.MemFS
	r   *rand.Rand

	mu     sync.Mutex
	on     bool
	clones []*vfs.MemFS
	at     []string
}

func (c *divideCamera) String() string { return "camera" }

func (c *divideCamera) MaybeError(op errorfs.Op) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.on && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
		c.clones = append(c.clones, c.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: c.r}))
		c.at = append(c.at, fmt.Sprintf("op %d on %s", op.Kind, op.Path))
	}
	return nil
}

// TestDivideCrash: whatever a crash in the middle leaves, the parent is what it
// was, the unfinished store is found and removed, and it can be made anew (SPL-2,
// SPL-12).
func TestDivideCrash(t *testing.T) {
	mem := vfs.NewCrashableMem()
	cam := &divideCamera{mem: mem, r: rand.New(rand.NewPCG(1, 2))}
	e := newTestEngine(t, Options{FS: errorfs.Wrap(mem, cam)})
	s := openStore(t, e, 1)
	grow(t, s, 100)
	if _, err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	cam.mu.Lock()
	cam.on = true
	cam.mu.Unlock()
	if err := s.Divide(t.Context(), 2, 1, 90, become); err != nil {
		t.Fatal(err)
	}
	cam.mu.Lock()
	cam.on = false
	cam.mu.Unlock()
	if len(cam.clones) < 10 {
		t.Fatalf("only %d changes of the disk were seen", len(cam.clones))
	}
	for i, fs := range cam.clones {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			e := newTestEngine(t, Options{FS: fs})
			ids, err := e.Generations()
			if err != nil {
				t.Fatalf("%s: %v", cam.at[i], err)
			}
			for _, id := range ids {
				if id.Group == 2 {
					if err := e.Drop(id.Group, id.Generation); err != nil {
						t.Fatalf("%s: %v", cam.at[i], err)
					}
				}
			}
			parent := openStore(t, e, 1)
			if at, err := parent.Applied(); err != nil || at != 100 || !has(t, parent, "k0099") {
				t.Fatalf("%s: the parent is at %d, %v", cam.at[i], at, err)
			}
			if err := parent.Divide(t.Context(), 2, 1, 90, become); err != nil {
				t.Fatalf("%s: again: %v", cam.at[i], err)
			}
			if child := openStore(t, e, 2); !has(t, child, "whose") || has(t, child, "k0000") {
				t.Errorf("%s: the child made again is wrong", cam.at[i])
			}
		})
	}
}

// A removal that goes on when its handle was given up, or that was told to end,
// removes nothing any more: what was foreign may belong to what is applied next.
func TestReclaimThatIsLate(t *testing.T) {
	e := newTestEngine(t, Options{})
	s := openStore(t, e, 1)
	grow(t, s, 100)
	all := partition.KeyRange{Lo: []byte("k"), Hi: []byte("l")}
	db, err := s.use()
	if err != nil {
		t.Fatal(err)
	}
	defer s.sp.release()
	ended, end := context.WithCancel(t.Context())
	end()
	if err := s.removeRange(ended, db, all); !errors.Is(err, context.Canceled) {
		t.Errorf("ended: %v", err)
	}
	s.Close()
	next := openStore(t, e, 1)
	if err := s.removeRange(t.Context(), db, all); !errors.Is(err, errClosed) {
		t.Errorf("given up: %v", err)
	}
	if !has(t, next, "k0099") {
		t.Error("a key is gone")
	}
}

// TestReclaim covers SPL-9: foreign keys go from both, their space comes back, and
// what is left is whole.
func TestReclaim(t *testing.T) {
	e := newTestEngine(t, Options{})
	s := openStore(t, e, 1)
	growLarge(t, s, 2000)
	if err := s.Divide(t.Context(), 2, 1, 2000, become); err != nil {
		t.Fatal(err)
	}
	child := openStore(t, e, 2)
	lo, hi := partition.KeyRange{Lo: []byte("k"), Hi: []byte("k1000")}, partition.KeyRange{Lo: []byte("k1000"), Hi: []byte("l")}
	for _, x := range []struct {
		s    *Store
		away partition.KeyRange
		kept string
		gone string
	}{{s, hi, "k0999", "k1000"}, {child, lo, "k1000", "k0999"}} {
		if any, err := x.s.Reclaim(t.Context(), x.away); !any || err != nil {
			t.Fatalf("%v, %v", any, err)
		}
		if any, err := x.s.Reclaim(t.Context(), x.away); any || err != nil {
			t.Errorf("there is something left to remove: %v, %v", any, err)
		}
		if !has(t, x.s, x.kept) || has(t, x.s, x.gone) {
			t.Errorf("%s kept: %v; %s gone: %v", x.kept, has(t, x.s, x.kept), x.gone, !has(t, x.s, x.gone))
		}
	}
	if !has(t, child, "whose") {
		t.Error("what is in no range is gone")
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(20 * time.Second)
	for s.Usage().DiskBytes > 5<<20 || child.Usage().DiskBytes > 5<<20 {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("of 8 MiB the parent still takes %d bytes, the child %d", s.Usage().DiskBytes, child.Usage().DiskBytes)
		}
	}
}

// TestCompactionGivenUp: somebody gives up a compaction that was picked and waits for
// its turn, as a reclaim does when its node stops. It is told at once, and the turn,
// when it comes, harms nobody: the compaction is made all the same, and the store is
// in use until then.
func TestCompactionGivenUp(t *testing.T) {
	e := newTestEngine(t, Options{Compactions: 1})
	s := openStore(t, e, 1)
	growLarge(t, s, 200)
	if _, err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	turn := func(by int) (waiting int) {
		e.scheduler.mu.Lock()
		defer e.scheduler.mu.Unlock()
		if e.scheduler.running += by; by < 0 {
			e.scheduler.startGranting()
		}
		return len(e.scheduler.waiting)
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	limit := time.After(20 * time.Second)
	await := func(what string, is func() bool) {
		t.Helper()
		for !is() {
			select {
			case <-tick.C:
			case <-limit:
				t.Fatal(what)
			}
		}
	}
	turn(1) // of a store that takes long
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.sp.compact(ctx, partition.KeyRange{Lo: []byte("k"), Hi: []byte("l")}) }()
	await("no compaction waits", func() bool { return turn(0) > 0 })
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	turn(-1)
	await("the store is in use for ever", func() bool { return s.sp.uses.Load() == 0 && turn(0) == 0 })
	if !has(t, s, "k0050") {
		t.Error("something was removed")
	}
}

// TestQuantiles: the keys that are found divide the bytes, not the keys.
func TestQuantiles(t *testing.T) {
	e := newTestEngine(t, Options{})
	s := openStore(t, e, 1)
	for i := range 1000 {
		size := 10
		if i >= 900 {
			size = 1000 // a tenth of the keys has nine tenths of the bytes
		}
		set(t, s, partition.Index(i+1), fmt.Sprintf("k%04d", i), strings.Repeat("v", size))
	}
	all := partition.KeyRange{Lo: []byte("k"), Hi: []byte("l")}
	keys, err := s.Quantiles(t.Context(), all, 2)
	if err != nil || len(keys) != 1 || string(keys[0]) < "k0935" || string(keys[0]) > "k0955" {
		t.Errorf("the middle: %q, %v", keys, err)
	}
	keys, err = s.Quantiles(t.Context(), all, 4)
	if err != nil || len(keys) != 3 || string(keys[0]) < "k0900" || string(keys[2]) < "k0960" {
		t.Errorf("quarters: %q, %v", keys, err)
	}
	db, err := s.use()
	if err != nil {
		t.Fatal(err)
	}
	keys, err = quantiles(t.Context(), db, all, 2, 1) // by the sizes of tables first
	s.sp.release()
	if err != nil || len(keys) != 1 || string(keys[0]) < "k0900" || string(keys[0]) > "k0980" {
		t.Errorf("the middle by tables: %q, %v", keys, err)
	}
	if keys, err := s.Quantiles(t.Context(), partition.KeyRange{Lo: []byte("x")}, 2); err != nil || len(keys) != 0 {
		t.Errorf("the middle of nothing: %q, %v", keys, err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	set(t, s, 2000, "z", "z")
	if _, err := s.Quantiles(gone, all, 2); err == nil {
		t.Error("a canceled search has found something")
	}
}

// TestSeed: the other store begins where this one is, goes on by itself from there,
// and a crash leaves of it what it began with or what was flushed since.
func TestSeed(t *testing.T) {
	mem := vfs.NewCrashableMem()
	e := newTestEngine(t, Options{FS: mem})
	s := openStore(t, e, 1)
	grow(t, s, 10)
	seed, err := s.Seed(t.Context(), 2, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := seed.Apply(11, become); err != nil {
		t.Fatal(err)
	}
	set(t, s, 11, "parent", "v")
	early := newTestEngine(t, Options{FS: mem.CrashClone(vfs.CrashCloneCfg{})})
	if i, err := seed.Flush(t.Context()); err != nil || i != 11 {
		t.Errorf("flushed to %d, %v", i, err)
	}
	late := newTestEngine(t, Options{FS: mem.CrashClone(vfs.CrashCloneCfg{})})
	for _, c := range []struct {
		what   string
		s      *Store
		at     partition.Index
		became bool
	}{
		{"now", seed, 11, true},
		{"after a crash at once", openStore(t, early, 2), 10, false},
		{"after a crash later", openStore(t, late, 2), 11, true},
	} {
		if at, err := c.s.Applied(); err != nil || at != c.at {
			t.Errorf("%s it is at %d, %v, want %d", c.what, at, err, c.at)
		}
		if has(t, c.s, "whose") != c.became || has(t, c.s, "k0000") == c.became || has(t, c.s, "parent") || !has(t, c.s, "k0009") {
			t.Errorf("%s it does not have what it was given", c.what)
		}
	}
	if has(t, s, "whose") || !has(t, s, "k0000") {
		t.Error("the parent has what is the other's")
	}
	if _, err := s.Seed(t.Context(), 2, 1); partition.CodeOf(err) != partition.CodeExists {
		t.Errorf("made twice: %v", err)
	}
}
