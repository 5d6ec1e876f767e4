package copies

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pando.dev/pando/partition"
)

// TestRate (SCL-7): what is sent stays within the rate over any time, a pause saves up
// no more than the burst, all copies together share it, and it can be changed on
// the way.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bucket{}
		b.set(1 << 20)
		take := func(n int) time.Duration {
			start := time.Now()
			if err := b.take(t.Context(), n); err != nil {
				t.Fatal(err)
			}
			return time.Since(start)
		}
		time.Sleep(time.Hour)
		start, done := time.Now(), make(chan int)
		for range 4 {
			go func() {
				for range 64 {
					take(64 << 10)
				}
				done <- 1
			}()
		}
		for range 4 {
			<-done
		}
		if d := time.Since(start); d < 15900*time.Millisecond || d > 16*time.Second {
			t.Errorf("16 MiB at 1 MiB/s took %v", d)
		}
		b.set(4 << 20)
		if d := take(4 << 20); d < 900*time.Millisecond || d > time.Second {
			t.Errorf("4 MiB at 4 MiB/s took %v", d)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.take(ctx, 100<<20); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		b.set(-1)
		if d := take(1 << 40); d != 0 {
			t.Errorf("without a bound: %v", d)
		}
	})
}

// TestCopyAtRate: a whole copy takes as long as the rate says.
func TestCopyAtRate(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.add("a", func(c *Config) { c.BytesPerSecond = 256 << 10 })
		b := w.add("b", nil)
		s := a.store(t, 7, 1)
		fill(t, s, 1, 1500, 1000)
		start := time.Now()
		if _, err := w.fetch(b, Request{Group: 7, From: "a"}); err != nil {
			t.Fatal(err)
		}
		took, want := time.Since(start), time.Duration(float64(b.copies.Status().Received)/(256<<10)*float64(time.Second))
		if took < want-100*time.Millisecond || took > want+100*time.Millisecond {
			t.Errorf("took %v, at the rate it takes %v", took, want)
		}
	})
}

// TestTurns: two copies at once each way, some wait, more are refused; of one
// group there is one.
func TestTurns(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.add("a", func(c *Config) { c.BytesPerSecond = 1 << 20 })
		b := w.add("b", func(c *Config) { c.Waiting = 3 })
		for g := range partition.GroupID(6) {
			fill(t, a.store(t, g+1, 1), 1, 400, 1000)
		}
		results := make(chan error, 6)
		for g := range partition.GroupID(5) {
			go func() {
				_, err := w.fetch(b, Request{Group: g + 1, From: "a"})
				results <- err
			}()
		}
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		st := b.copies.Status()
		if len(st.Copies) != 2 || st.WaitingIn != 3 || len(a.copies.Status().Copies) != 2 {
			t.Errorf("%+v and %+v", st, a.copies.Status())
		}
		for _, p := range st.Copies {
			if !p.Incoming || p.Peer != "a" || p.Done > p.Total || p.Total < 300_000 {
				t.Errorf("%+v", p)
			}
			if f, ok := b.copies.Fetching(p.Group); !ok || f != p {
				t.Errorf("%+v and %+v", f, p)
			}
		}
		if _, err := w.fetch(b, Request{Group: 6, From: "a"}); !errors.Is(err, partition.ErrBusy) {
			t.Errorf("one too many: %v", err)
		}
		if _, err := w.fetch(b, Request{Group: st.Copies[0].Group, From: "a"}); !errors.Is(err, partition.ErrBusy) {
			t.Errorf("the same group: %v", err)
		}
		for range 5 {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		if _, ok := b.copies.Fetching(1); ok {
			t.Error("still fetching")
		}
	})
}

// TestSourceTurns: a source lets fetchers of other nodes wait, tells them so
// for longer than a silence is borne, and refuses beyond.
func TestSourceTurns(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.add("a", func(c *Config) { c.BytesPerSecond = 8 << 10; c.Concurrent = 1; c.Waiting = 1 })
		fill(t, a.store(t, 7, 1), 1, 400, 1000) // 50 s
		results := make(chan error, 3)
		for _, id := range []partition.NodeID{"b", "c", "d"} {
			n := w.add(id, func(c *Config) { c.Attempts = 1 })
			go func() {
				_, err := w.fetch(n, Request{Group: 7, From: "a"})
				results <- err
			}()
			synctest.Wait()
		}
		if err := <-results; !errors.Is(err, partition.ErrBusy) {
			t.Errorf("beyond the queue: %v", err)
		}
		for range 2 {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
	})
}

// silent is a stream on which nothing ever comes, and that takes everything.
type silent struct{ closed chan struct{} }

func (s *silent) Read([]byte) (int, error) {
	<-s.closed
	return 0, errors.New("closed")
}

func (s *silent) Write(p []byte) (int, error) { return len(p), nil }
func (s *silent) CloseWrite() error           { return nil }

func (s *silent) Close() error {
	select {
	case <-s.closed:
	default:
		close(s.closed)
	}
	return nil
}

// TestSilence: neither side waits for ever for one that says nothing, nor keeps
// a turn for it.
func TestSilence(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.add("a", nil)
		fill(t, a.store(t, 7, 1), 1, 100, 1000)
		opened := 0
		b := w.add("b", func(c *Config) {
			c.Attempts = 3
			c.Open = func(context.Context, partition.NodeID) (Stream, error) {
				opened++
				return &silent{closed: make(chan struct{})}, nil
			}
		})
		start := time.Now()
		if _, err := w.fetch(b, Request{Group: 7, From: "a"}); err == nil || opened != 3 {
			t.Errorf("%v after %d attempts", err, opened)
		}
		if d := time.Since(start); d < 90*time.Second || d > 95*time.Second {
			t.Errorf("gave up after %v", d)
		}
		x, y := newPipe()
		start = time.Now()
		served := make(chan struct{})
		go func() {
			a.copies.Serve("b", y)
			close(served)
		}()
		v := wire{s: x}
		h := hello{group: 7}
		if err := v.send(kindHello, h.encode(), nil); err != nil {
			t.Fatal(err)
		}
		<-served
		if d := time.Since(start); d < 30*time.Second || d > 32*time.Second {
			t.Errorf("served for %v", d)
		}
		if len(a.copies.out.slots) != 0 {
			t.Error("the turn was not given back")
		}
		time.Sleep(3 * time.Minute)
		if left := a.staged(t); len(left) > 0 {
			t.Errorf("left over: %v", left)
		}
	})
}

// TestSlowReader: one that takes nothing loses its transfer, and the source its
// goroutines, turn and checkpoint.
func TestSlowReader(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.add("a", nil)
		fill(t, a.store(t, 7, 1), 1, 4000, 1000)
		x, y := newPipe()
		go a.copies.Serve("b", y)
		v := wire{s: x}
		h := hello{group: 7}
		if err := v.send(kindHello, h.encode(), nil); err != nil {
			t.Fatal(err)
		}
		_, body, err := v.receive(kindOffer)
		if err != nil {
			t.Fatal(err)
		}
		o, err := decodeOffer(body)
		if err != nil {
			t.Fatal(err)
		}
		var all []want
		for i, f := range o.manifest.Files {
			if f.Bytes > 0 {
				all = append(all, want{file: uint32(i)})
			}
		}
		if err := v.send(kindWant, encodeWants(all), nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if _, err := x.Write([]byte{1}); err == nil || len(a.copies.out.slots) != 0 {
			t.Errorf("%v, %d turns taken", err, len(a.copies.out.slots))
		}
		time.Sleep(2 * time.Minute)
		if synctest.Wait(); len(a.staged(t)) > 0 {
			t.Errorf("left over: %v", a.staged(t))
		}
	})
}

// TestHeldCheckpoints: the one that was idle for longest makes room for another,
// and one in use never.
func TestHeldCheckpoints(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.add("a", func(c *Config) { c.Checkpoints = 2 })
		fill(t, a.store(t, 7, 1), 1, 50, 100)
		c := a.copies
		use := func() *checkpoint {
			t.Helper()
			p, err := c.use(t.Context(), hello{group: 7})
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		p, q := use(), use()
		if _, err := c.use(t.Context(), hello{group: 7}); !errors.Is(err, partition.ErrBusy) {
			t.Errorf("a third: %v", err)
		}
		c.unuse(q, false)
		time.Sleep(time.Second)
		c.unuse(p, false)
		time.Sleep(c.cfg.Hold - 2*time.Second)
		again, err := c.use(t.Context(), hello{group: 7, checkpoint: q.offer.checkpoint})
		if err != nil || again != q {
			t.Fatalf("%p, want %p: %v", again, q, err)
		}
		r := use() // p goes for it
		if c.held(hello{group: 7, checkpoint: p.offer.checkpoint}) != nil || len(a.staged(t)) != 2 {
			t.Errorf("the idle one is still there: %v", a.staged(t))
		}
		for name, h := range map[string]hello{
			"of another group": {group: 8, checkpoint: q.offer.checkpoint},
			"at a later index": {group: 7, checkpoint: q.offer.checkpoint, min: 51},
		} {
			if c.held(h) != nil {
				t.Errorf("%s: found", name)
			}
		}
		if c.expire(q); len(a.staged(t)) != 2 {
			t.Errorf("one in use expired: %v", a.staged(t))
		}
		c.unuse(q, true)
		if len(a.staged(t)) != 1 {
			t.Errorf("what was taken whole is still there: %v", a.staged(t))
		}
		c.unuse(r, false)
		time.Sleep(c.cfg.Hold + time.Second)
		if synctest.Wait(); len(a.staged(t)) > 0 || len(c.checkpoints) > 0 {
			t.Errorf("held for ever: %v", a.staged(t))
		}
	})
}

// TestCloseInTheMiddle: closing either side ends a copy at once, with nothing
// left over but what the next start removes.
func TestCloseInTheMiddle(t *testing.T) {
	for _, who := range []string{"source", "fetcher", "caller"} {
		bubble(t, func(t *testing.T, w *world) {
			a := w.add("a", func(c *Config) { c.BytesPerSecond = 64 << 10 })
			b := w.add("b", func(c *Config) { c.Attempts = 1 })
			fill(t, a.store(t, 7, 1), 1, 1000, 1000)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			result := make(chan error, 1)
			go func() {
				_, err := b.copies.Fetch(ctx, Request{Group: 7, From: "a"})
				result <- err
			}()
			time.Sleep(5 * time.Second)
			var want []error
			switch who {
			case "source":
				if err := a.copies.Close(); err != nil {
					t.Error(err)
				}
			case "fetcher":
				if err := b.copies.Close(); err != nil {
					t.Error(err)
				}
				want = []error{partition.ErrClosed}
			case "caller":
				cancel()
				want = []error{context.Canceled}
			}
			err := <-result
			if err == nil || len(want) > 0 && !slices.ContainsFunc(want, func(e error) bool { return errors.Is(err, e) }) {
				t.Errorf("%s: %v", who, err)
			}
			if left := b.staged(t); len(left) > 0 {
				t.Errorf("%s: left over %v", who, left)
			}
			time.Sleep(3 * time.Minute)
			synctest.Wait()
			if left := a.staged(t); len(left) > 0 {
				t.Errorf("%s: the source keeps %v", who, left)
			}
		})
	}
}

// TestSpaceRunsOut: free space is looked at on the way, too, and other copies'
// needs count.
func TestSpaceRunsOut(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.add("a", nil), w.add("b", nil)
		fill(t, a.store(t, 7, 1), 1, 50, 100)
		free := int64(1000)
		b.copies.cfg.Free = func() (int64, int64, error) { return free, 1 << 30, nil }
		b.copies.cfg.MinFreeBytes = 100
		f, g := &fetch{c: b.copies}, &fetch{c: b.copies}
		if err := errors.Join(f.reserve(600), g.reserve(300)); err != nil {
			t.Fatal(err)
		}
		if err := g.reserve(301); !errors.Is(err, partition.ErrNoSpace) || !lasting(err) {
			t.Error(err)
		}
		f.wrote(500)
		free = 500
		if err := errors.Join(f.reserve(100), g.reserve(300)); err != nil {
			t.Error(err)
		}
		free = 499
		if err := f.reserve(100); !errors.Is(err, partition.ErrNoSpace) {
			t.Error(err)
		}
		b.copies.cfg.Free = func() (int64, int64, error) { return 0, 0, errors.New("no such disk") }
		if err := f.reserve(1); err == nil {
			t.Error("a disk that cannot be asked has space")
		}
	})
}
