package store

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"pando.dev/pando/partition"
)

// crashPoint is what was left of the disk when something was about to be
// written, and what had been claimed by then.
type crashPoint struct {
	op      string
	fs      vfs.FS
	durable [4]partition.Index // by group
}

// camera takes a crash clone before every operation that changes the disk.
type camera struct {
	mem *vfs.MemFS
	r   *rand.Rand

	mu      sync.Mutex
	durable [4]partition.Index
	points  []crashPoint
}

func (c *camera) String() string { return "camera" }

func (c *camera) MaybeError(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() == errorfs.OpIsRead {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, percent := range []int{0, 50} {
		c.points = append(c.points, crashPoint{
			op: fmt.Sprintf("%d before op %d on %s, %d %%", len(c.points), op.Kind, op.Path, percent), durable: c.durable,
			fs: c.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: c.r}),
		})
	}
	return nil
}

func (c *camera) note(g partition.GroupID, _ uint32, i partition.Index) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.durable[g] = i
}

// TestCrashAtEveryOperation makes stores, writes, flushes, puts to sleep,
// wakes, copies, installs and drops, and looks at what a crash at each single
// step leaves: every store opens, and is at some record not before what was
// reported durable; one that was installed is whole or not there.
func TestCrashAtEveryOperation(t *testing.T) {
	mem := vfs.NewCrashableMem()
	c := &camera{mem: mem, r: rand.New(rand.NewPCG(1, 1))}
	log := everyOpStory(t, errorfs.Wrap(mem, c), c)
	t.Logf("%d crashes", len(c.points))
	for _, p := range c.points {
		e := newTestEngine(t, Options{FS: p.fs, MaxOpen: 4})
		for g := partition.GroupID(1); g <= 3; g++ {
			if g == 3 && !exists(t, e, g) {
				continue // not installed, or dropped
			}
			v, err := openStore(t, e, g).View()
			if err != nil {
				t.Fatalf("%s: %v", p.op, err)
			}
			at, err := v.Applied()
			if err != nil {
				t.Fatal(err)
			}
			if want := model(log, at); at < p.durable[g] || !maps.Equal(dump(t, v), want) {
				t.Fatalf("%s: group %d is at %d (durable %d) with %d keys, want %d", p.op, g, at, p.durable[g], len(dump(t, v)), len(want))
			}
			_ = v.Close()
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func exists(tb testing.TB, e *Engine, g partition.GroupID) bool {
	tb.Helper()
	ids, err := e.Generations()
	if err != nil {
		tb.Fatal(err)
	}
	for _, id := range ids {
		if id.Group == g {
			return true
		}
	}
	return false
}

// everyOpStory applies the same log to groups 1 and 2 and installs a copy as 3.
func everyOpStory(t *testing.T, fs vfs.FS, c *camera) []record {
	r := rand.New(rand.NewPCG(7, 7))
	var log []record
	for i := range 12 {
		log = append(log, newRecord(r, i))
	}
	e := newTestEngine(t, Options{FS: fs, Durable: c.note, MaxOpen: 4})
	one, two := openStore(t, e, 1), openStore(t, e, 2)
	for i := range partition.Index(12) {
		for _, s := range []*Store{one, two} {
			if err := applyWhole(nil, s, log, i, i+1); err != nil {
				t.Fatal(err)
			}
		}
		if i%3 == 2 {
			if _, err := one.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			one.sp.hibernate()
		}
	}
	if _, err := one.Checkpoint(t.Context(), "data/stage/copy"); err != nil {
		t.Fatal(err)
	}
	if err := e.Install("data/stage/copy", 3, 1); err != nil {
		t.Fatal(err)
	}
	c.note(3, 1, 12)
	if m, at := state(t, openStore(t, e, 3)); at != 12 || !maps.Equal(m, model(log, 12)) {
		t.Fatalf("installed at %d", at)
	}
	c.note(3, 1, 0)
	if err := e.Drop(3, 1); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	return log
}

// TestUnfinishedStore: a directory in which a store was being made when the
// process ended is made anew, unless it has tables, which nobody would expect.
func TestUnfinishedStore(t *testing.T) {
	fs := vfs.NewMem()
	if err := fs.MkdirAll("data/stores/g1/1", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"MANIFEST-000001", "marker.manifest.000001.MANIFEST-000001", "OPTIONS-000003", "STORE.tmp"} {
		writeFile(t, fs, "data/stores/g1/1/"+n, []byte("half a fi"))
	}
	e := newTestEngine(t, Options{FS: fs})
	set(t, openStore(t, e, 1), 1, "\x01a", "1")
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if names, _ := fs.List("data/stores/g1/1"); !strings.Contains(fmt.Sprint(names), ".sst") {
		t.Fatalf("no tables in %q", names)
	}
	writeFile(t, fs, "data/stores/g1/1/STORE", nil)
	if _, err := openStore(t, newTestEngine(t, Options{FS: fs}), 1).Applied(); !errors.Is(err, partition.ErrCorrupt) {
		t.Fatalf("state without an identity: %v", err)
	}
}
