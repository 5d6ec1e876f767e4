package store

import (
	"context"
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
	"pando.dev/pando/wal"
	"pando.dev/pando/wal/memfs"
)

// bothDisks is what was left of the stores and of the log when one of them was
// about to be changed, and what was known by then.
type bothDisks struct {
	at        string
	stores    vfs.FS
	log       *memfs.FS
	installed bool // the log has acknowledged the install
}

// orderCamera takes a crash clone of both before every change of either.
type orderCamera struct {
	stores *vfs.MemFS
	log    *memfs.FS
	r      *rand.Rand

	mu        sync.Mutex
	on        bool
	installed bool
	points    []bothDisks
}

func (c *orderCamera) String() string { return "camera" }

func (c *orderCamera) MaybeError(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
		c.take(fmt.Sprintf("before op %d on %s", op.Kind, op.Path))
	}
	return nil
}

func (c *orderCamera) take(at string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, percent := range []int{0, 50, 100} {
		if c.on {
			c.points = append(c.points, bothDisks{
				at: fmt.Sprintf("%d %s, %d %%", len(c.points), at, percent), installed: c.installed,
				stores: c.stores.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: c.r}),
				log:    c.log.Crash(c.r.Uint64(), float64(percent)/100),
			})
		}
	}
}

func openLog(t *testing.T, fs wal.FS) *wal.Log {
	t.Helper()
	l, rep, err := wal.Open(fs, "data/wal", wal.Options{Node: "n", SegmentBytes: 64 << 10, Spares: 1, Manual: true, Fatal: func(error) {}})
	if err != nil || len(rep.Lost) > 0 {
		t.Fatalf("%v %+v", err, rep)
	}
	return l
}

// orderWorld is a replica whose log and state are on disks that crash together.
type orderWorld struct {
	t    *testing.T
	log  *wal.Log
	e    *Engine
	s    *Store
	recs []record
	sum  uint32 // of the last record in the log
}

// write appends records to the log and applies them.
func (w *orderWorld) write(from, to partition.Index, first wal.Write) {
	w.t.Helper()
	x := first
	x.Group = 1
	for i := from; i <= to; i++ {
		kind := partition.KindCommand
		if i == 1 {
			kind = partition.KindMember
		}
		r := partition.NewRecord(partition.Header{Group: 1, Index: i, Epoch: 1 << 16, Prev: w.sum, Kind: kind}, []byte("x"))
		x.Records = append(x.Records, r)
		w.sum = r.Checksum()
	}
	x.Commit = to
	if err := w.log.Append(x, nil); err != nil {
		w.t.Fatal(err)
	}
	for w.log.Turn() {
	}
	if err := applyWhole(nil, w.s, w.recs, from-1, to); err != nil {
		w.t.Fatal(err)
	}
}

// TestInstallOrder replaces the state of a replica by a copy while the old one
// is open, in the order of STORAGE.md section 6, and loses the power before each
// change of either disk. The record in the log is the only commit point: before
// it the old state is there with all of the log, behind it the copy; whatever
// else is on disk is of a generation that the log does not name, and is dropped
// at the start as the node does it. The state is always some record of the log,
// never before where that begins.
func TestInstallOrder(t *testing.T) {
	for _, keeps := range []bool{true, false} { // the log has the copy's base, or ends before it
		t.Run(fmt.Sprint("keeps ", keeps), func(t *testing.T) { installOrder(t, keeps) })
	}
}

func installOrder(t *testing.T, keeps bool) {
	c := &orderCamera{stores: vfs.NewCrashableMem(), log: memfs.New(3), r: rand.New(rand.NewPCG(2, 2))}
	w := &orderWorld{t: t}
	r := rand.New(rand.NewPCG(7, 7))
	for i := range 40 {
		w.recs = append(w.recs, newRecord(r, i))
	}
	w.log = openLog(t, c.log)
	w.e = newTestEngine(t, Options{FS: errorfs.Wrap(c.stores, c), Durable: func(g partition.GroupID, gen uint32, i partition.Index) {
		if g == 1 {
			w.log.SetFlushed(g, i, gen)
		}
	}})
	w.s = openStore(t, w.e, 1)
	base, end := partition.Index(12), partition.Index(20)
	if !keeps {
		base, end = 16, 9
	}
	w.write(1, 5, wal.Write{Replica: 1, Generation: 1})
	if _, err := w.s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.write(6, end, wal.Write{})
	install := stageCopy(t, w, base)
	if keeps {
		n, err := w.log.BaseAt(1, base)
		if err != nil {
			t.Fatal(err)
		}
		install = n
	}
	c.log.OnOp(func(o memfs.Op) error {
		if o.Changes() {
			c.take(fmt.Sprint("before ", o.Kind, " of ", o.Name))
		}
		return nil
	})
	c.mu.Lock()
	c.on = true
	c.mu.Unlock()
	replaceState(t, w, c, install)
	from := max(base, end) + 1
	if !keeps {
		from, w.sum = base+1, install.BaseSum
	}
	w.write(from, from+4, wal.Write{})
	if _, err := w.s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	c.on = false
	points := c.points
	c.mu.Unlock()
	seen := map[string]int{}
	for _, p := range points {
		seen[checkOrder(t, w, p)]++
	}
	t.Logf("%d crashes: %v", len(points), seen)
	for _, what := range []string{"old", "old, copy in place", "new", "new, old in place"} {
		if seen[what] == 0 {
			t.Errorf("no crash left: %s", what)
		}
	}
}

// stageCopy puts a copy of the state at base where a fetch would.
func stageCopy(t *testing.T, w *orderWorld, base partition.Index) wal.Install {
	t.Helper()
	src := openStore(t, w.e, 2)
	if err := applyWhole(nil, src, w.recs, 0, base); err != nil {
		t.Fatal(err)
	}
	if _, err := src.Checkpoint(t.Context(), "data/stage/in"); err != nil {
		t.Fatal(err)
	}
	if at, err := w.e.Verify("data/stage/in"); at != base || err != nil {
		t.Fatalf("the copy is at %d: %v", at, err)
	}
	return wal.Install{
		Base: partition.Position{Epoch: 1 << 16, Index: base}, BaseSum: 4711,
		Configuration: partition.NewRecord(partition.Header{Group: 1, Index: 1, Kind: partition.KindMember}, []byte("x")),
	}
}

// replaceState does what the host of a replica does with a copy.
func replaceState(t *testing.T, w *orderWorld, c *orderCamera, n wal.Install) {
	t.Helper()
	sum, _ := w.log.Summary(1)
	gen, err := w.e.NextGeneration(1, sum.Generation)
	if err != nil || gen != 2 {
		t.Fatalf("next generation %d: %v", gen, err)
	}
	if err := w.e.Install("data/stage/in", 1, gen); err != nil {
		t.Fatal(err)
	}
	if next, err := w.e.NextGeneration(1, sum.Generation); next != 3 || err != nil {
		t.Fatalf("the generation behind: %d, %v", next, err)
	}
	n.Generation = gen
	err = w.log.Append(wal.Write{Group: 1, Install: &n}, func(err error) {
		c.mu.Lock()
		c.installed = err == nil
		c.mu.Unlock()
	})
	if err != nil {
		t.Fatal(err)
	}
	for w.log.Turn() {
	}
	old := w.s
	if w.s, err = w.e.Open(1, gen); err != nil {
		t.Fatal(err)
	}
	if at, err := w.s.Applied(); at != n.Base.Index || err != nil {
		t.Fatalf("the new state is at %d: %v", at, err)
	}
	v, err := old.View() // a reader of the old state may still be there
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.e.Drop(1, 1), v.Close(), old.Close()); err != nil {
		t.Fatal(err)
	}
	if sum, _ := w.log.Summary(1); sum.Last > n.Base.Index { // the log's tail brings it up
		if err := applyWhole(nil, w.s, w.recs, n.Base.Index, sum.Last); err != nil {
			t.Fatal(err)
		}
	}
}

// checkOrder starts from what a crash left, as a node does, and says what that
// was.
func checkOrder(t *testing.T, w *orderWorld, p bothDisks) string {
	t.Helper()
	l := openLog(t, p.log)
	sum, ok := l.Summary(1)
	if !ok || sum.Damage != nil {
		t.Fatalf("%s: %+v", p.at, sum)
	}
	e := newTestEngine(t, Options{FS: p.stores})
	defer e.Close()
	on, err := e.Generations()
	if err != nil {
		t.Fatal(err)
	}
	what, there, others := "old", false, false
	if sum.Generation == 2 {
		what = "new"
	}
	for _, id := range on {
		switch {
		case id.Group != 1:
		case id.Generation == sum.Generation:
			there = true
		default:
			others = true
			if err := e.Drop(id.Group, id.Generation); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !there || p.installed && what == "old" {
		t.Fatalf("%s: stores %v, installed %v, log %+v", p.at, on, p.installed, sum)
	}
	s, err := e.Open(1, sum.Generation)
	if err != nil {
		t.Fatal(err)
	}
	m, at := state(t, s)
	if at+1 < sum.First || at > sum.Last || !maps.Equal(m, model(w.recs, at)) {
		t.Fatalf("%s: generation %d is at %d with %d keys, log %+v", p.at, sum.Generation, at, len(m), sum)
	}
	if what == "new" && at < sum.Flushed {
		t.Fatalf("%s: the copy is at %d, flushed %d", p.at, at, sum.Flushed)
	}
	if others {
		what += map[string]string{"old": ", copy in place", "new": ", old in place"}[what]
	}
	return what
}

// TestDigest: it is that of the pairs and the index, whatever files they are in.
func TestDigest(t *testing.T) {
	e := newTestEngine(t, Options{})
	a, b := openStore(t, e, 1), openStore(t, e, 2)
	digest := func(s *Store) [32]byte {
		t.Helper()
		v, err := s.View()
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		d, err := v.Digest(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	fill(t, a, 3000)
	for i := range partition.Index(3000) {
		set(t, b, i+1, fmt.Sprintf("\x01key%06d", i), strings.Repeat(fmt.Sprint(i), 20))
		if i%700 == 0 {
			if _, err := b.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if digest(a) != digest(b) {
		t.Error("the same state has two digests")
	}
	seen := map[[32]byte]string{digest(a): "before"}
	for i, kv := range [][2]string{{"\x01x", "yz"}, {"\x01xy", "z"}, {"\x01x", "yz"}} {
		set(t, a, partition.Index(3001+i), kv[0], kv[1])
		d := digest(a)
		if was, ok := seen[d]; ok {
			t.Errorf("%q has the digest of %s", kv, was)
		}
		seen[d] = fmt.Sprint(kv)
	}
	v, err := a.View()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := v.Digest(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
