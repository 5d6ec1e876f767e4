package copies

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/store"
)

// tables adds parts of about 150 KB to a store. Three of them end in two tables, one of
// two parts and one of one; four in one table, and a fifth in another one.
func tables(tb testing.TB, s *store.Store, from partition.Index, parts int) (last partition.Index) {
	tb.Helper()
	const each = 150
	for range parts {
		fillKeys(tb, s, from, from+each-1, 1000, func(_ *rand.Rand, i partition.Index) int { return int(i) })
		from += each
		if _, err := s.Flush(tb.Context()); err != nil {
			tb.Fatal(err)
		}
		synctest.Wait()
	}
	return from - 1
}

func total(m store.Manifest) (all, inTables int64) {
	for _, f := range m.Files {
		all += f.Bytes
		if strings.HasSuffix(f.Name, tableSuffix) {
			inTables += f.Bytes
		}
	}
	return all, inTables
}

// cutBehind spoils the first transfer behind so many tables, and lets then happen
// what is to happen.
func cutBehind(tables int, then func()) func(open int) func([]byte) []byte {
	var once sync.Once
	return func(open int) func([]byte) []byte {
		whole, last := -1, uint32(0)
		return func(p []byte) []byte {
			if open > 1 || kind(p[0]) != kindChunk {
				return p
			}
			if file := le.Uint32(p[frameHead:]); whole < 0 || file != last {
				if len(p) > 50_000 || whole >= 0 { // what is before is no table
					whole++
				}
				last = file
			}
			if whole < tables {
				return p
			}
			once.Do(then)
			return nil
		}
	}
}

// SCL-5, PFC-6: the source dies in the middle. The copy goes on from another replica
// and is that one's state at its index, never a mixture; what both have in common
// is not sent again. Without another replica, or if that is too far behind, there is
// no copy.
func TestSourceDies(t *testing.T) {
	for name, x := range map[string]struct {
		other  bool // there is another replica
		alike  bool // whose tables are the same: it is a copy itself
		behind bool
	}{
		"another, of its own": {other: true},
		"another, alike":      {other: true, alike: true},
		"one that is behind":  {other: true, behind: true},
		"nobody else":         {},
	} {
		bubble(t, func(t *testing.T, w *world) {
			a, b, c := w.add("a", nil), w.add("b", func(c *Config) { c.Attempts = 4 }), w.add("c", nil)
			s := a.store(t, 7, 1)
			last := tables(t, s, 1, 3)
			r := Request{Group: 7, From: "a", MinIndex: last}
			if x.other {
				r.Else = []partition.NodeID{"z", "c"} // z is away, too
			}
			switch {
			case x.alike:
				p, err := w.fetch(c, Request{Group: 7, From: "a"})
				if err != nil {
					t.Fatal(err)
				}
				install(t, c, p, 1)
				w.opens = 0
				fill(t, c.stores[7], last+1, last+10, 100) // it goes on
			case x.behind:
				tables(t, c.store(t, 7, 1), 1, 2)
			case x.other:
				tables(t, c.store(t, 7, 1), last+1, 3) // files of the same names, with other keys: a mixture would show
			}
			w.cut = cutBehind(1, func() { delete(w.nodes, "a") })
			p, err := w.fetch(b, r)
			if x.behind || !x.other {
				if !errors.Is(err, partition.ErrUnavailable) || len(b.staged(t)) > 0 {
					t.Fatalf("%s: %v, left over %v", name, err, b.staged(t))
				}
				return
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			want, at := digest(t, c.stores[7])
			if got, i := install(t, b, p, 1); got != want || i != at {
				t.Fatalf("%s: the copy is at %d (%x), the other source at %d (%x)", name, i, got, at, want)
			}
			sent, st := c.copies.Status().Sent, b.copies.Status()
			all, _ := total(p.Manifest)
			if x.alike && sent >= all*3/4 || !x.alike && sent != all {
				t.Errorf("%s: %d of %d bytes came from the other source: %+v", name, sent, all, st)
			}
		})
	}
}

// SCL-5: the fetcher dies in the middle. What had come whole is not sent again, unless
// it was spoiled meanwhile; what nobody asks for goes after a time.
func TestFetcherRestarts(t *testing.T) {
	for name, spoil := range map[string]bool{"as it was": false, "spoiled": true} {
		bubble(t, func(t *testing.T, w *world) {
			a := w.add("a", nil)
			b := w.add("b", func(c *Config) { c.Keep = time.Hour; c.Attempts = 1 })
			s := a.store(t, 7, 1)
			last := tables(t, s, 1, 3)
			want, _ := digest(t, s)
			w.cut = cutBehind(1, func() {})
			if _, err := w.fetch(b, Request{Group: 7, From: "a"}); err == nil {
				t.Fatal("it was cut off")
			}
			if left := b.staged(t); len(left) != 1 || left[0] != "kept-g7" {
				t.Fatalf("kept is %v", left)
			}
			// As a crash would leave it: nobody has put it aside.
			if err := os.Rename(filepath.Join(b.copies.stage, "kept-g7"), filepath.Join(b.copies.stage, "in-g7-3")); err != nil {
				t.Fatal(err)
			}
			if spoil {
				damage(t, b.largest(t))
			}
			if err := b.copies.Close(); err != nil {
				t.Fatal(err)
			}
			var err error
			if b.copies, err = New(b.copies.cfg); err != nil {
				t.Fatal(err)
			}
			p, err := w.fetch(b, Request{Group: 7, From: "a"})
			if err != nil {
				t.Fatal(err)
			}
			if got, i := install(t, b, p, 1); got != want || i != last {
				t.Fatalf("%s: the copy is at %d (%x), want %d (%x)", name, i, got, last, want)
			}
			st := b.copies.Status()
			all, inTables := total(p.Manifest)
			if st.Reused+st.Received != all || spoil != (st.Reused == 0) || st.Reused > inTables*3/4 {
				t.Errorf("%s: %d of %d bytes were taken again, %d came", name, st.Reused, all, st.Received)
			}
			if left := b.staged(t); len(left) > 0 {
				t.Errorf("%s: left over %v", name, left)
			}
		})
	}
	bubble(t, func(t *testing.T, w *world) {
		a := w.add("a", nil)
		b := w.add("b", func(c *Config) { c.Keep = time.Hour; c.Attempts = 1 })
		tables(t, a.store(t, 7, 1), 1, 3)
		w.cut = cutBehind(1, func() {})
		for range 2 { // the second one takes it, and leaves it again
			if _, err := w.fetch(b, Request{Group: 7, From: "a"}); err == nil {
				t.Fatal("it was cut off")
			}
			w.opens = 0
			time.Sleep(50 * time.Minute)
			if left := b.staged(t); len(left) != 1 {
				t.Fatalf("kept is %v", left)
			}
		}
		time.Sleep(11 * time.Minute)
		if synctest.Wait(); len(b.staged(t)) > 0 {
			t.Errorf("kept for ever: %v", b.staged(t))
		}
	})
}

// What a fetch has left makes room for another one.
func TestLeftoversMakeRoom(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.add("a", nil)
		var b *node
		b = w.add("b", func(c *Config) {
			c.Keep, c.Attempts = time.Hour, 1
			c.Free = func() (int64, int64, error) {
				if b != nil && len(b.staged(t)) > 1 { // what is left of another group, and the copy
					return 0, 1 << 30, nil
				}
				return 1 << 30, 1 << 30, nil
			}
		})
		tables(t, a.store(t, 7, 1), 1, 3)
		tables(t, a.store(t, 8, 1), 1, 1)
		w.cut = cutBehind(1, func() {})
		if _, err := w.fetch(b, Request{Group: 7, From: "a"}); err == nil {
			t.Fatal("it was cut off")
		}
		if _, err := w.fetch(b, Request{Group: 8, From: "a"}); err != nil {
			t.Error(err)
		}
		if left := b.staged(t); len(left) != 1 || !strings.HasPrefix(left[0], "in-g8") {
			t.Errorf("in the stage: %v", left)
		}
	})
}

// CAT-2: a replica that is behind gets the tables that it does not have, and no more;
// its own state is read but not changed. A table of its own that is damaged is sent.
// CAT-8: so an incremental copy holds what was changed in (previous, now].
func TestOnlyWhatChanged(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.add("a", nil), w.add("b", nil)
		s := a.store(t, 7, 1)
		last := tables(t, s, 1, 4)
		p, err := w.fetch(b, Request{Group: 7, From: "a"})
		if err != nil {
			t.Fatal(err)
		}
		was, _ := install(t, b, p, 1)
		before, full := p.Manifest, b.copies.Status().Received
		had := map[store.File]bool{}
		for _, f := range before.Files {
			had[f] = true
		}
		for round, spoil := range []bool{false, true} {
			have := b.engine.Dir(7, 1)
			if spoil {
				damage(t, filepath.Join(have, largestOf(before)))
			} else {
				last = tables(t, s, last+1, 1)
			}
			want, _ := digest(t, s)
			received := b.copies.Status().Received
			p, err := w.fetch(b, Request{Group: 7, From: "a", MinIndex: last, Have: have})
			if err != nil {
				t.Fatal(err)
			}
			changed := int64(0)
			for _, f := range p.Manifest.Files {
				if !had[f] || !strings.HasSuffix(f.Name, tableSuffix) || spoil && f.Name == largestOf(before) {
					changed += f.Bytes
				}
			}
			if came := b.copies.Status().Received - received; came != changed || !spoil && came > full/2 {
				t.Errorf("round %d: %d bytes came, %d are of what changed, all were %d", round, came, changed, full)
			}
			if !spoil {
				if now, _ := digest(t, b.stores[7]); now != was {
					t.Error("the state that was here is another now")
				}
			}
			if got, i := install(t, b, p, uint32(2+round)); got != want || i != last {
				t.Fatalf("round %d: the copy is at %d (%x), want %d (%x)", round, i, got, last, want)
			}
		}
	})
}

func largestOf(m store.Manifest) string {
	best := m.Files[0]
	for _, f := range m.Files {
		if strings.HasSuffix(f.Name, tableSuffix) && f.Bytes > best.Bytes {
			best = f
		}
	}
	return best.Name
}

// PFC-4: with one log per group the counts are indexes: no copy begins before the
// source has applied what the new replica's log does not have. It is waited for; if
// it does not come there is no copy, and nothing of it stays.
func TestSourceHasToBeFarEnough(t *testing.T) {
	for name, comes := range map[string]bool{"it comes": true, "it does not": false} {
		bubble(t, func(t *testing.T, w *world) {
			a, b := w.add("a", nil), w.add("b", nil)
			s := a.store(t, 7, 1)
			fill(t, s, 1, 100, 1000)
			if comes {
				time.AfterFunc(3*time.Second, func() { fill(t, s, 101, 120, 1000) })
			}
			p, err := w.fetch(b, Request{Group: 7, From: "a", MinIndex: 120})
			if !comes {
				if !errors.Is(err, partition.ErrUnavailable) {
					t.Error(err)
				}
				if time.Sleep(3 * time.Minute); len(a.staged(t)) > 0 || len(b.staged(t)) > 0 {
					t.Errorf("%s: left over %v and %v", name, a.staged(t), b.staged(t))
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want, _ := digest(t, s)
			if got, i := install(t, b, p, 1); got != want || i != 120 {
				t.Errorf("%s: the copy is at %d", name, i)
			}
		})
	}
}

// PFC-8: two copies at once from one source while it is written to: each is the state
// at an index of its own.
func TestTwoCopiesAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.add("a", func(c *Config) { c.BytesPerSecond = 512 << 10 })
		s := a.store(t, 7, 1)
		twin := w.add("twin", nil).store(t, 7, 1)
		fill(t, s, 1, 1000, 1000)
		fill(t, twin, 1, 1000, 1000)
		digests := map[partition.Index][32]byte{}
		digests[1000], _ = digest(t, twin)
		done := make(chan struct{})
		go func() { // the source goes on, in steps that are known
			defer close(done)
			for i := partition.Index(1001); i <= 1040; i++ {
				fill(t, s, i, i, 1000)
				fill(t, twin, i, i, 1000)
				digests[i], _ = digest(t, twin)
				time.Sleep(100 * time.Millisecond)
			}
		}()
		copied := map[partition.NodeID]*Copy{}
		var mu sync.Mutex
		var both sync.WaitGroup
		for i, id := range []partition.NodeID{"b", "c"} {
			n := w.add(id, nil)
			both.Go(func() {
				time.Sleep(time.Duration(i) * 950 * time.Millisecond)
				p, err := w.fetch(n, Request{Group: 7, From: "a"})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				copied[id] = p
				mu.Unlock()
			})
		}
		time.Sleep(1500 * time.Millisecond)
		if st := a.copies.Status(); len(st.Copies) != 2 {
			t.Errorf("under way: %+v", st)
		}
		both.Wait()
		<-done
		seen := map[partition.Index]bool{}
		for id, p := range copied {
			got, i := install(t, w.nodes[id], p, 1)
			if want, ok := digests[i]; !ok || got != want || seen[i] {
				t.Errorf("%s has a state at %d that the source never had, or the other has it", id, i)
			}
			seen[i] = true
		}
		if len(seen) != 2 {
			t.Errorf("states at %v", seen)
		}
	})
}

// PLACEMENT 3.8: a copy that waits says for what: a turn here, a turn there, or a
// checkpoint.
func TestWaitsAreNamed(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.add("a", func(c *Config) { c.BytesPerSecond = 32 << 10; c.Concurrent = 1 })
		for g := range partition.GroupID(3) {
			fill(t, a.store(t, g+1, 1), 1, 600, 1000)
		}
		b := w.add("b", nil)
		var all sync.WaitGroup
		for g := range partition.GroupID(3) {
			all.Go(func() {
				if _, err := w.fetch(b, Request{Group: g + 1, From: "a"}); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		time.Sleep(3 * time.Second)
		for g, want := range []string{"", "waits for one of 1 outgoing copies of node a", "waits for one of 2 incoming copies"} {
			if p, ok := b.copies.Fetching(partition.GroupID(g + 1)); !ok || p.Waits != want {
				t.Errorf("group %d: %+v, want %q", g+1, p, want)
			}
		}
		all.Wait()
	})
	if s := decodeWait(encodeWait(waitsState, 2), "a"); s != "waits for a checkpoint on node a" {
		t.Error(s)
	}
	if s := decodeWait(nil, "a") + decodeWait([]byte{9, 9}, "a"); s != "" {
		t.Error(s)
	}
}
