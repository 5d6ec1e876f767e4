package copies

import (
	"context"
	"flag"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"pando.dev/pando/actors/link"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/lease"
	"pando.dev/pando/wal"
)

// benchMB is the size of the copies of the benchmarks.
var benchMB = flag.Int("copy-mb", 32, "size of the copies that the benchmarks make, in MB")

// linkedWorld is a world whose transfers go over links on the loopback.
type linkedWorld struct {
	*world
	mu    sync.Mutex
	addrs map[partition.NodeID]string
	links map[partition.NodeID]*link.Links
	up    chan partition.NodeID
	// served are the transfers that came in.
	served []*link.Bulk
}

// start starts the links of a node that add has made; change may adapt them.
func (w *linkedWorld) start(id partition.NodeID, edit func(*Config)) *node {
	w.tb.Helper()
	n := w.add(id, func(c *Config) {
		c.Open = func(ctx context.Context, to partition.NodeID) (Stream, error) {
			b, err := w.links[id].OpenBulk(ctx, to)
			if err != nil {
				return nil, err
			}
			return b, nil
		}
		if edit != nil {
			edit(c)
		}
	})
	system := actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return slog.New(slog.DiscardHandler) }))
	began := time.Now()
	now := func() partition.Time { return time.Since(began) + time.Hour }
	leases := lease.New(lease.Config{Self: id, Boot: 1, Now: now})
	leases.Open()
	l, err := link.Start(link.Config{
		System: system, Node: id, Boot: 1, Cluster: "c", Leases: leases, Now: now,
		Resolve: func(to partition.NodeID) (string, uint64, bool) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.addrs[to], 1, w.addrs[to] != ""
		},
		OnUp: func(to partition.NodeID, _ uint64) { w.up <- to },
		OnBulk: func(from partition.NodeID, b *link.Bulk) {
			w.mu.Lock()
			w.served = append(w.served, b)
			w.mu.Unlock()
			n.copies.Serve(from, b)
		},
	})
	if err != nil {
		w.tb.Fatal(err)
	}
	w.mu.Lock()
	w.addrs[id], w.links[id] = l.Addr(), l
	w.mu.Unlock()
	w.tb.Cleanup(func() {
		l.Close()
		system.Shutdown()
	})
	return n
}

// link waits until the nodes a and b are linked.
func (w *linkedWorld) link() {
	w.tb.Helper()
	for _, l := range w.links {
		l.SetPeers([]partition.NodeID{"a", "b"})
	}
	for range 2 {
		select {
		case <-w.up:
		case <-time.After(20 * time.Second):
			w.tb.Fatal("no link")
		}
	}
}

func newLinkedWorld(tb testing.TB) *linkedWorld {
	return &linkedWorld{
		world: newWorld(tb), addrs: map[partition.NodeID]string{}, links: map[partition.NodeID]*link.Links{},
		up: make(chan partition.NodeID, 10),
	}
}

// TestFetchOverLinks copies a state over real connections; a first transfer is
// closed by the source in the middle.
func TestFetchOverLinks(t *testing.T) {
	w := newLinkedWorld(t)
	a, b := w.start("a", func(c *Config) { c.BytesPerSecond = 32 << 20 }), w.start("b", nil)
	w.link()
	s := a.store(t, 7, 1)
	fill(t, s, 1, 6000, 2000) // beyond the window of a transfer
	want, at := digest(t, s)
	broke := make(chan bool, 1)
	go func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for range 20_000 {
			<-tick.C
			if p, ok := b.copies.Fetching(7); ok && p.Done > 1<<20 {
				w.mu.Lock()
				_ = w.served[0].Close()
				w.mu.Unlock()
				broke <- true
				return
			}
		}
		broke <- false
	}()
	p, err := w.fetch(b, Request{Group: 7, From: "a", MinIndex: 6000})
	if err != nil {
		t.Fatal(err)
	}
	if !<-broke {
		t.Fatal("nothing was ever on its way")
	}
	if got, i := install(t, b, p, 1); got != want || i != at {
		t.Fatalf("the copy is at %d (%x), the source at %d (%x)", i, got, at, want)
	}
	if st := b.copies.Status(); st.Broken != 1 || st.Received < 10<<20 || a.made != 1 {
		t.Errorf("%+v", st)
	}
}

// benchSource makes a state of benchMB at a, whose checksums are known, and b.
func benchSource(b *testing.B, rate int64) (w *linkedWorld, dst *node) {
	w = newLinkedWorld(b)
	src := w.start("a", func(c *Config) { c.BytesPerSecond = rate })
	dst = w.start("b", func(c *Config) { c.BytesPerSecond = -1 }) // the source bounds it
	w.link()
	s := src.store(b, 7, 1)
	ordered := func(_ *rand.Rand, i partition.Index) int { return int(i) }
	for i := range partition.Index(*benchMB) {
		fillKeys(b, s, i*250+1, i*250+250, 4000, ordered)
		for s.NeedsRoom() {
			if _, err := s.Flush(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	}
	if _, err := s.Checkpoint(b.Context(), src.dir+"/stage/first"); err != nil {
		b.Fatal(err)
	}
	return w, dst
}

// copyOnce fetches the state and throws it away.
func copyOnce(b *testing.B, w *linkedWorld, dst *node) (total int64) {
	p, err := w.fetch(dst, Request{Group: 7, From: "a"})
	if err != nil {
		b.Error(err)
		return 0
	}
	for _, f := range p.Manifest.Files {
		total += f.Bytes
	}
	if err := p.Discard(); err != nil {
		b.Error(err)
	}
	return total
}

// BenchmarkCopy is the rate of a whole copy over links on the loopback, from one
// store to another on the same disk, fsync included.
func BenchmarkCopy(b *testing.B) {
	for name, rate := range map[string]int64{"no-limit": -1, "64MiBps": 64 << 20} {
		b.Run(name, func(b *testing.B) {
			w, dst := benchSource(b, rate)
			total := int64(0)
			for b.Loop() {
				total = copyOnce(b, w, dst)
			}
			b.SetBytes(total)
		})
	}
}

// copyOnAndOn makes one copy after the other until it is stopped, or none.
func copyOnAndOn(b *testing.B, w *linkedWorld, dst *node, any bool, stop, ended chan struct{}) {
	defer close(ended)
	for any {
		select {
		case <-stop:
			return
		default:
			copyOnce(b, w, dst)
		}
	}
}

// BenchmarkBesideCopy is what a commit to the log costs, 400 a second of 1 KiB,
// while a copy is written to the same disk; in turns, so that what else the
// machine does hits all alike. In the last turn a Governor sets the rate, which has
// seen the turns without a copy (PG3: 1.2 times their p99, PG4: at least 16 MB/s).
func BenchmarkBesideCopy(b *testing.B) {
	w, dst := benchSource(b, -1)
	log, _, err := wal.Open(wal.OS{}, filepath.Join(b.TempDir(), "wal"), wal.Options{Node: "n"})
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()
	h := partition.Header{Group: 1, Epoch: 1 << 16, Kind: partition.KindCommand}
	payload, synced := make([]byte, 1024), make(chan error, 1)
	governor, rates := &Governor{Most: 64 << 20}, []int64(nil)
	window := func(took []time.Duration, govern bool) {
		rate := governor.Window(slices.Clone(took), govern)
		if govern {
			w.nodes["a"].copies.SetRate(rate)
			rates = append(rates, rate)
		}
	}
	commits := func(d time.Duration, name string) (took []time.Duration) {
		judged, next := 0, time.Now().Add(GovernEvery)
		tick := time.NewTicker(2500 * time.Microsecond)
		defer tick.Stop()
		for end := time.Now().Add(d); time.Now().Before(end); <-tick.C {
			h.Index++
			r := partition.NewRecord(h, payload)
			h.Prev = r.Checksum()
			start := time.Now()
			if err := log.Append(wal.Write{Group: 1, Replica: 1, Records: []partition.Record{r}}, func(err error) { synced <- err }); err != nil {
				b.Fatal(err)
			}
			if err := <-synced; err != nil {
				b.Fatal(err)
			}
			took = append(took, time.Since(start))
			log.SetFlushed(1, h.Index, 0)
			if now := time.Now(); now.After(next) && (name == "none" || name == "governed") {
				window(took[judged:], name == "governed")
				judged, next = len(took), now.Add(GovernEvery)
			}
		}
		return took
	}
	modes := []struct {
		name string
		rate int64
	}{{"none", 0}, {"64MiBps", 64 << 20}, {"16MiBps", 16 << 20}, {"no-limit", -1}, {"governed", 16 << 20}}
	all := make([][]time.Duration, len(modes))
	for b.Loop() {
		for i, m := range modes {
			stop, ended := make(chan struct{}), make(chan struct{})
			w.nodes["a"].copies.SetRate(m.rate)
			go copyOnAndOn(b, w, dst, m.rate != 0, stop, ended)
			all[i] = append(all[i], commits(2*time.Second, m.name)...)
			w.nodes["a"].copies.SetRate(-1) // the last one comes to its end
			close(stop)
			<-ended
		}
	}
	slices.Sort(rates)
	b.ReportMetric(float64(rates[len(rates)/2])/1e6, "governed-MB/s")
	for i, m := range modes {
		report(b, m.name, all[i])
	}
}

func report(b *testing.B, name string, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), name+"-p50-us")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), name+"-p99-us")
}
