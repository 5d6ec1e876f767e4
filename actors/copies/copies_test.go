package copies

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"pando.dev/pando/partition"
)

// The actor system's throttle of dead letters sleeps for a second and has no way
// to be stopped.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/asynkron/protoactor-go/actor.NewDeadLetter.NewThrottle.func4.1"))
}

// install puts a copy in place as the given generation and opens it.
func install(t testing.TB, n *node, p *Copy, generation uint32) ([32]byte, partition.Index) {
	t.Helper()
	g := p.Manifest.Group
	if err := n.engine.Install(p.Dir, g, generation); err != nil {
		t.Fatal(err)
	}
	return digest(t, n.store(t, g, generation))
}

// bubble runs f with a fake clock, so that no wait takes time.
func bubble(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, newWorld(t)) })
}

// staged lists what is in a node's stage.
func (n *node) staged(tb testing.TB) []string {
	tb.Helper()
	all, err := os.ReadDir(filepath.Join(n.dir, stageDir))
	if err != nil {
		tb.Fatal(err)
	}
	var names []string
	for _, e := range all {
		names = append(names, e.Name())
	}
	return names
}

// TestFetch: a copy has the source's state at the index it says, its files are
// those of the manifest, and neither side keeps anything (CAT-2).
func TestFetch(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.add("a", nil), w.add("b", nil)
		s := a.store(t, 7, 1)
		fill(t, s, 1, 2000, 1000)
		want, at := digest(t, s)
		p, err := w.fetch(b, Request{Group: 7, From: "a", MinIndex: 2000})
		if err != nil {
			t.Fatal(err)
		}
		base := baseAt(7, 2000)
		if p.Base != base.Position || p.BaseSum != base.Sum || !slices.Equal(p.Configuration, base.Configuration) {
			t.Errorf("the base is %+v %x", p.Base, p.BaseSum)
		}
		if n := p.Install(3); n.Base != p.Base || n.Generation != 3 || n.BaseSum != p.BaseSum || !slices.Equal(n.Configuration, p.Configuration) {
			t.Errorf("install %+v", n)
		}
		if got, i := install(t, b, p, 3); got != want || i != at || i != 2000 {
			t.Errorf("the copy is at %d (%x), the source at %d (%x)", i, got, at, want)
		}
		synctest.Wait()
		if st := a.copies.Status(); st.Checkpoints != 0 || st.Sent < 2000*1000/2 || len(st.Copies) != 0 {
			t.Errorf("source: %+v", st)
		}
		if st := b.copies.Status(); st.Fetched != 1 || st.Received != a.copies.Status().Sent || st.Damaged+st.Broken != 0 {
			t.Errorf("fetcher: %+v", st)
		}
		if names := append(a.staged(t), b.staged(t)...); len(names) > 0 {
			t.Errorf("left over: %v", names)
		}
	})
}

// TestFetchWhileWritesGoOn: the copy is the state as it was at its base, not a
// mixture, whatever is written while it is made and sent (PFC-1, CAT-6, S5).
func TestFetchWhileWritesGoOn(t *testing.T) {
	w := newWorld(t)
	a, b := w.add("a", nil), w.add("b", nil)
	s := a.store(t, 7, 1)
	twin := w.add("twin", nil).store(t, 7, 1) // the same records, one by one
	fill(t, s, 1, 1000, 2000)
	next := partition.Index(1001)
	var mu sync.Mutex
	w.cut = func(int) func([]byte) []byte {
		return func(p []byte) []byte { // a burst before everything that the source sends
			mu.Lock()
			defer mu.Unlock()
			fill(t, s, next, next+199, 500)
			next += 200
			return p
		}
	}
	p, err := w.fetch(b, Request{Group: 7, From: "a"})
	if err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if p.Base.Index < 1000 || p.Base.Index >= next || next < 1500 {
		t.Fatalf("base %d, source at %d", p.Base.Index, next-1)
	}
	fill(t, twin, 1, 1000, 2000)
	for from := partition.Index(1001); from <= p.Base.Index; from += 200 {
		fill(t, twin, from, from+199, 500)
	}
	want, at := digest(t, twin)
	if got, i := install(t, b, p, 1); got != want || i != at {
		t.Fatalf("the copy is at %d (%x), want %d (%x)", i, got, at, want)
	}
	// The log's tail brings it to the source's state.
	tail := b.stores[7]
	for from := p.Base.Index + 1; from < next; from += 200 {
		fill(t, tail, from, from+199, 500)
	}
	want, at = digest(t, s)
	if got, i := digest(t, tail); got != want || i != at {
		t.Fatalf("with the tail the copy is at %d (%x), want %d (%x)", i, got, at, want)
	}
}

// TestCutAtEachMessage breaks the first transfer before, in and behind each
// message of the source, and then each transfer after one more message: the
// copy is whole in the end, and what had come is not sent again.
func TestCutAtEachMessage(t *testing.T) {
	run := func(name string, keep func(open, message int, p []byte) []byte) (messages int) {
		t.Helper()
		bubble(t, func(t *testing.T, w *world) {
			a, b := w.add("a", nil), w.add("b", nil)
			s := a.store(t, 7, 1)
			fill(t, s, 1, 1500, 1000)
			want, _ := digest(t, s)
			w.cut = func(open int) func([]byte) []byte {
				n := 0
				return func(p []byte) []byte {
					n++
					if open == 1 {
						messages = n
					}
					return keep(open, n, p)
				}
			}
			p, err := w.fetch(b, Request{Group: 7, From: "a"})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if got, _ := install(t, b, p, 1); got != want {
				t.Fatalf("%s: the copy is another state", name)
			}
			synctest.Wait()
			total := int64(0)
			for _, f := range p.Manifest.Files {
				total += f.Bytes
			}
			if st := b.copies.Status(); st.Received != total || st.Damaged != 0 {
				t.Fatalf("%s: %d bytes received of %d: %+v", name, st.Received, total, st)
			}
			if a.made != 1 {
				t.Fatalf("%s: %d checkpoints were made", name, a.made)
			}
		})
		return messages
	}
	messages := run("whole", func(_, _ int, p []byte) []byte { return p })
	if messages < 8 {
		t.Fatalf("only %d messages", messages)
	}
	for n := 2; n <= messages; n++ { // before the offer there is nothing to go on with
		for _, part := range []int{0, 5, frameHead + 3} {
			run(fmt.Sprintf("message %d of %d, %d bytes of it", n, messages, part), func(open, message int, p []byte) []byte {
				switch {
				case open > 1 || message < n:
					return p
				case message == n:
					return p[:min(part, len(p))]
				}
				return nil
			})
		}
	}
	run("one message each", func(_, message int, p []byte) []byte {
		if message > 2 {
			return nil
		}
		return p
	})
}

// TestNewCheckpoint: when the source has given up its checkpoint the fetch goes
// on with a new one, and tables that are the same are not sent again.
func TestNewCheckpoint(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.add("a", nil), w.add("b", nil)
		s := a.store(t, 7, 1)
		ordered := func(_ *rand.Rand, i partition.Index) int { return int(i) } // so that compactions soon come to an end
		for i := range partition.Index(2) {
			fillKeys(t, s, i*595+1, i*595+595, 1000, ordered)
			if _, err := s.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		fillKeys(t, s, 1191, 1200, 1000, ordered)
		w.cut = func(open int) func([]byte) []byte {
			cut := false
			return func(p []byte) []byte { // behind two tables and the MANIFEST, which will be another
				if open > 1 || !cut && (kind(p[0]) != kindChunk || le.Uint32(p[frameHead:]) < 3) {
					return p
				}
				if !cut {
					cut = true
					time.AfterFunc(time.Millisecond, func() { fillKeys(t, s, 1201, 1210, 1000, ordered) })
				}
				return nil
			}
		}
		a.copies.cfg.Hold = time.Nanosecond
		p, err := w.fetch(b, Request{Group: 7, From: "a"})
		if err != nil {
			t.Fatal(err)
		}
		want, _ := digest(t, s)
		if got, i := install(t, b, p, 1); got != want || i != 1210 {
			t.Fatalf("the copy is at %d", i)
		}
		total := int64(0)
		for _, f := range p.Manifest.Files {
			total += f.Bytes
		}
		st := b.copies.Status()
		if a.made != 2 || st.Received >= total*3/2 || st.Broken != 1 {
			t.Fatalf("%d checkpoints, %d bytes of %d: %+v", a.made, st.Received, total, st)
		}
	})
}

// TestDamageOnTheWay (S8): a byte that changes anywhere in what the source sends is
// found; the copy is whole, or there is none.
func TestDamageOnTheWay(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.add("a", nil)
		s := a.store(t, 7, 1)
		fill(t, s, 1, 600, 1000)
		want, _ := digest(t, s)
		b := w.add("b", nil)
		for i := range 40 {
			w.cut = func(open int) func([]byte) []byte {
				n := 0
				return func(p []byte) []byte {
					if n++; n == 1+i%7 {
						p = slices.Clone(p)
						p[(i*7919)%len(p)] ^= 1 << (i % 8)
					}
					w.mu.Lock()
					w.cut = nil // the next transfer is whole
					w.mu.Unlock()
					return p
				}
			}
			p, err := w.fetch(b, Request{Group: 7, From: "a"})
			if err != nil {
				t.Fatalf("%d: %v", i, err)
			}
			if got, _ := install(t, b, p, uint32(i+1)); got != want {
				t.Fatalf("%d: the copy is another state", i)
			}
		}
		if st := b.copies.Status(); st.Damaged < 20 {
			t.Errorf("%+v", st)
		}
	})
}

// largest returns the largest file of a checkpoint that is held.
func (n *node) largest(tb testing.TB) string {
	tb.Helper()
	best, size := "", int64(-1)
	err := filepath.WalkDir(filepath.Join(n.dir, stageDir), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		i, err := d.Info()
		if err == nil && i.Size() > size {
			best, size = path, i.Size()
		}
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return best
}

// damage flips a bit of a file, in a copy of its own if it is linked.
func damage(tb testing.TB, name string) {
	tb.Helper()
	b, err := os.ReadFile(name)
	if err == nil {
		b[len(b)/2] ^= 4
		if err = os.Remove(name); err == nil {
			err = os.WriteFile(name, b, 0o600)
		}
	}
	if err != nil {
		tb.Fatal(err)
	}
}

// TestDamagedSource (S8): a source finds that its own file is damaged, says so, and
// the fetch ends with it: another source must be asked.
func TestDamagedSource(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.add("a", nil), w.add("b", nil)
		s := a.store(t, 7, 1)
		fill(t, s, 1, 600, 1000)
		w.cut = func(int) func([]byte) []byte {
			n := 0
			return func(p []byte) []byte {
				if n++; n == 1 {
					damage(t, a.largest(t))
				}
				return p
			}
		}
		_, err := w.fetch(b, Request{Group: 7, From: "a"})
		if !errors.Is(err, partition.ErrCorrupt) || !strings.Contains(err.Error(), ".sst of the source's state is damaged") {
			t.Fatal(err)
		}
		if w.opens != 1 || len(b.staged(t)) > 0 {
			t.Errorf("%d transfers, left over %v", w.opens, b.staged(t))
		}
	})
}

// TestDamagedFile: a file whose bytes are not what the manifest says, while each
// message is whole, is fetched again, a few times, and never handed over.
func TestDamagedFile(t *testing.T) {
	for _, often := range []int{1, 2, 3} {
		bubble(t, func(t *testing.T, w *world) {
			a, b := w.add("a", nil), w.add("b", nil)
			s := a.store(t, 7, 1)
			fill(t, s, 1, 600, 1000)
			want, _ := digest(t, s)
			bad := 0
			w.cut = func(int) func([]byte) []byte {
				return func(p []byte) []byte {
					if kind(p[0]) == kindChunk && le.Uint32(p[4:]) > 100_000 && le.Uint64(p[frameHead+4:]) == 0 && bad < often {
						bad++
						p = slices.Clone(p)
						p[frameHead+chunkHead+77] ^= 1
						le.PutUint32(p[8:], sumFrame(p, p[frameHead:]))
					}
					return p
				}
			}
			p, err := w.fetch(b, Request{Group: 7, From: "a"})
			if often >= maxDamaged {
				if !errors.Is(err, partition.ErrCorrupt) || len(b.staged(t)) > 0 {
					t.Fatalf("%v, left over %v", err, b.staged(t))
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got, _ := install(t, b, p, 1); got != want || int(b.copies.Status().Damaged) != often {
				t.Fatalf("the copy is another state, or %+v", b.copies.Status())
			}
		})
	}
}

// TestRefusals: what a source does not have, and what a fetcher may not take.
func TestRefusals(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.add("a", nil)
		s := a.store(t, 7, 1)
		fill(t, s, 1, 300, 1000)
		free := int64(10 << 30)
		b := w.add("b", func(c *Config) {
			c.Free = func() (int64, int64, error) { return free, 100 << 30, nil }
			c.Attempts = 2
		})
		check := func(name string, r Request, want error) {
			t.Helper()
			if p, err := w.fetch(b, r); !errors.Is(err, want) {
				t.Errorf("%s: %v, %v", name, p, err)
			}
			if left := b.staged(t); len(left) > 0 {
				t.Errorf("%s: left over %v", name, left)
			}
		}
		check("no such group", Request{Group: 8, From: "a"}, partition.ErrNotFound)
		check("a later state", Request{Group: 7, From: "a", MinIndex: 301}, partition.ErrUnavailable)
		check("a node that is away", Request{Group: 7, From: "z"}, partition.ErrUnavailable)
		check("no node", Request{Group: 7}, partition.ErrInvalid)
		free = 5 << 30 // of 100 GiB, 5 % must stay
		check("a full disk", Request{Group: 7, From: "a"}, partition.ErrNoSpace)
		free = 50 << 30
		b.copies.cfg.MaxBytes = 1000
		check("a large copy", Request{Group: 7, From: "a"}, partition.ErrTooLarge)
		a.behind = remakes
		check("a log that moves on", Request{Group: 7, From: "a"}, partition.ErrTooLarge) // the second attempt is described
		b.copies.cfg.MaxBytes = 1 << 30
		a.behind = 100
		check("a log that always moves on", Request{Group: 7, From: "a"}, partition.ErrUnavailable)
		a.behind = 0
		if held := len(a.staged(t)); held == 0 || held > a.copies.cfg.Checkpoints {
			t.Errorf("the source's stage: %v", a.staged(t))
		}
		time.Sleep(a.copies.cfg.Hold + time.Second)
		if synctest.Wait(); len(a.staged(t)) > 0 || a.copies.Status().Checkpoints > 0 {
			t.Errorf("held for too long: %v", a.staged(t))
		}
		if b.copies.reserved != 0 {
			t.Errorf("%d bytes stay reserved", b.copies.reserved)
		}
		if err := errors.Join(b.copies.Close(), b.copies.Close()); err != nil {
			t.Error(err)
		}
		check("a closed node", Request{Group: 7, From: "a"}, partition.ErrClosed)
	})
}

// TestVerify: the host may open the copy; what it finds must be what was said.
func TestVerify(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.add("a", nil)
		s := a.store(t, 7, 1)
		fill(t, s, 1, 300, 100)
		found, bad := partition.Index(300), error(nil)
		b := w.add("b", func(c *Config) {
			c.Verify = func(dir string) (partition.Index, error) {
				if _, err := os.Stat(filepath.Join(dir, "marker.format-version.000001.024")); err != nil {
					t.Error(err)
				}
				return found, bad
			}
		})
		p, err := w.fetch(b, Request{Group: 7, From: "a"})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Discard(); err != nil || len(b.staged(t)) > 0 {
			t.Error(err, b.staged(t))
		}
		found = 299
		if _, err := w.fetch(b, Request{Group: 7, From: "a"}); !errors.Is(err, partition.ErrCorrupt) {
			t.Error(err)
		}
		bad = partition.ErrCorrupt
		if _, err := w.fetch(b, Request{Group: 7, From: "a"}); !errors.Is(err, partition.ErrCorrupt) || len(b.staged(t)) > 0 {
			t.Error(err)
		}
	})
}

// TestStageIsEmptied: what a crash left is removed at the start.
func TestStageIsEmptied(t *testing.T) {
	dir := t.TempDir()
	old := filepath.Join(dir, stageDir, "in-g7-1", "deep")
	if err := os.MkdirAll(old, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(old, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	n := &node{dir: dir}
	c, err := New(Config{Dir: dir, Host: n, Open: func(context.Context, partition.NodeID) (Stream, error) { return nil, nil }})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if left := n.staged(t); len(left) > 0 {
		t.Error(left)
	}
	if _, err := New(Config{Dir: dir}); !errors.Is(err, partition.ErrInvalid) {
		t.Error(err)
	}
}

var _ Host = (*node)(nil)
