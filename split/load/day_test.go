package load

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pando.dev/pando/partition"
)

// world is a table over virtual time: partitions are divided and merged as decided.
type world struct {
	t      *testing.T
	rng    *rand.Rand
	limits Limits
	now    time.Duration
	key    workload
	parts  []*part
	splits int
	merges int
}

type part struct {
	r       partition.KeyRange
	tracker *Tracker
	counts  Counts
	divided time.Duration // negative: never
}

func newWorld(t *testing.T, seed uint64, l Limits, w workload) *world {
	x := &world{t: t, rng: rand.New(rand.NewPCG(seed, 9)), limits: l, key: w}
	x.parts = []*part{{tracker: NewTracker(0, seed), divided: -1}}
	return x
}

// window lets one window pass at the given load per second.
func (w *world) window(load float64) {
	mean := load * Window.Seconds()
	for range int(math.Round(max(0, mean+math.Sqrt(mean)*w.rng.NormFloat64()))) {
		k, weight := w.key(w.rng)
		p := w.parts[w.find(k)]
		p.counts.Writes++
		if s := p.tracker.Sampler(); s != nil {
			s.Record(k, weight)
		}
	}
	w.now += Window
	for _, p := range slices.Clone(w.parts) {
		p.tracker.Tick(w.now, p.counts, w.limits.Load)
		p.counts = Counts{}
		s := Situation{Now: w.now, Range: p.r, Nodes: 3, Partitions: len(w.parts), Rested: w.rested(p)}
		if d := Decide(p.tracker, w.limits, s); d.Split() {
			w.divide(p, d.Keys)
		}
	}
}

func (w *world) rested(p *part) time.Duration {
	if p.divided < 0 {
		return -1
	}
	return w.now - p.divided
}

func (w *world) find(k []byte) int {
	i, found := slices.BinarySearchFunc(w.parts, k, func(p *part, k []byte) int { return bytes.Compare(p.r.Lo, k) })
	if !found {
		i--
	}
	return i
}

func (w *world) divide(p *part, keys [][]byte) {
	i := w.find(p.r.Lo)
	var made []*part
	for j := range len(keys) + 1 {
		r := p.r
		if j > 0 {
			r.Lo = keys[j-1]
		}
		if j < len(keys) {
			r.Hi = keys[j]
		}
		made = append(made, &part{r: r, tracker: p.tracker.Inherit(w.now, r, w.rng.Uint64()), divided: w.now})
	}
	w.parts = slices.Replace(w.parts, i, i+1, made...)
	w.splits++
}

// mergeCold merges neighbours that may be, one pair at a time.
func (w *world) mergeCold() {
	for i := range len(w.parts) - 1 {
		a, b := w.parts[i], w.parts[i+1]
		if MayMerge(w.now, SideOf(a.tracker, 0, w.rested(a)), SideOf(b.tracker, 0, w.rested(b)), w.limits) {
			m := &part{r: partition.KeyRange{Lo: a.r.Lo, Hi: b.r.Hi}, tracker: NewTracker(w.now, w.rng.Uint64()), divided: -1}
			w.parts = slices.Replace(w.parts, i, i+2, m)
			w.merges++
			return
		}
	}
}

// TestFourTimesTheLimit is PG9: one split, into no more pieces than the limit asks
// for, and nothing more after it, though the load goes on.
func TestFourTimesTheLimit(t *testing.T) {
	z := rand.NewZipf(rand.New(rand.NewPCG(1, 1)), 1.2, 1000, keySpace-1)
	for name, key := range map[string]workload{
		"uniform": uniform,
		"zipf":    func(*rand.Rand) ([]byte, uint64) { return numbered(z.Uint64()), 1 },
	} {
		w := newWorld(t, 1, Limits{Load: 2500, CoolDown: 10 * time.Second}, key)
		for w.now < 90*time.Second {
			w.window(10_000)
		}
		if w.splits != 1 || len(w.parts) > 7 {
			t.Errorf("%s: %d splits, %d partitions, expected 1 and at most 7", name, w.splits, len(w.parts))
		}
		for _, p := range w.parts {
			if p.tracker.Load() > 2500 {
				t.Errorf("%s: %s carries %.0f", name, p.r, p.tracker.Load())
			}
		}
	}
}

// TestDay is PG10 and SPL-6: over a day, in which the load rises and falls by half
// and with noise on top, no partition is divided and merged more than twice.
func TestDay(t *testing.T) {
	const limit = 50.0
	for seed, x := range []struct {
		base, swing    float64 // of the limit; of the base
		splits, merges bool
	}{{0.3, 0.5, false, false}, {0.7, 0.5, true, false}, {1, 0.5, true, false}, {4, 0.5, true, false}, {1, 0.9, true, true}} {
		w := newWorld(t, uint64(seed), Limits{Load: limit, CoolDown: 10 * time.Second}, uniform)
		noise, most := 1.0, 0
		for w.now < 24*time.Hour {
			if w.now%(10*time.Second) == 0 {
				noise = math.Exp(0.2 * w.rng.NormFloat64())
				w.mergeCold()
			}
			w.window(x.base * limit * noise * (1 + x.swing*math.Sin(2*math.Pi*w.now.Hours()/24)))
			most = max(most, len(w.parts))
		}
		told := fmt.Sprintf("load %.1f of the limit +-%.0f%%: %d splits, %d merges, %d partitions at most", x.base, 100*x.swing, w.splits, w.merges, most)
		t.Log(told)
		if float64(w.splits+w.merges)/float64(most) > 2 || x.splits != (w.splits > 0) || x.merges != (w.merges > 0) {
			t.Error(told)
		}
	}
}

// TestMayMerge: neighbours are merged by the greatest load of ten minutes, and only
// if somebody has looked for so long.
func TestMayMerge(t *testing.T) {
	l := Limits{Load: 100, Size: 1 << 30, Target: 512 << 20}
	now := time.Hour
	cold := Side{Peak: 10, Bytes: 100 << 20, Rested: -1}
	for _, x := range []struct {
		name   string
		change func(*Side)
		want   bool
	}{
		{"cold", func(*Side) {}, true},
		{"loaded", func(s *Side) { s.Peak = 16 }, false},
		{"large", func(s *Side) { s.Bytes = 200 << 20 }, false},
		{"new master", func(s *Side) { s.Since = now - 9*time.Minute }, false},
		{"divided lately", func(s *Side) { s.Rested = 9 * time.Minute }, false},
		{"divided long ago", func(s *Side) { s.Rested = 11 * time.Minute }, true},
	} {
		b := cold
		x.change(&b)
		if got := MayMerge(now, cold, b, l); got != x.want || MayMerge(now, b, cold, l) != got {
			t.Errorf("%s: %v", x.name, got)
		}
	}
	tr := NewTracker(0, 1)
	tr.Tick(time.Second, Counts{Reads: 1000}, 0)
	peak := tr.Peak()
	for tr.last < 8*time.Minute {
		tr.Tick(tr.last+Window, Counts{}, 0)
	}
	if got := tr.Peak(); got != peak || peak < 400 {
		t.Errorf("after 8 minutes the peak is %.0f, was %.0f", got, peak)
	}
	for tr.last < 11*time.Minute {
		tr.Tick(tr.last+Window, Counts{}, 0)
	}
	if got := tr.Peak(); got > 1 {
		t.Errorf("after 11 minutes the peak is %.0f", got)
	}
}

// TestInherit is R7 of PLACEMENT.md: pieces know their load before they have served.
func TestInherit(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	tr := NewTracker(0, 1)
	run(uniform, rng, tr, 1000, 60, windowOps)
	r := partition.KeyRange{Lo: binary.BigEndian.AppendUint64(nil, keySpace*3/4)}
	c := tr.Inherit(tr.last, r, 2)
	if got := c.Load() / tr.Load(); math.Abs(got-0.25) > 0.05 {
		t.Errorf("a quarter of the keys inherits %.2f of the load", got)
	}
	for _, k := range c.Sampler().points {
		if !r.Contains(k) {
			t.Fatalf("it inherits key %x", k)
		}
	}
	// What it inherits goes on as if it had been its own.
	run(func(rng *rand.Rand) ([]byte, uint64) { return numbered(keySpace*3/4 + rng.Uint64N(keySpace/4)), 1 }, rng, c, 500, 10, windowOps/4)
	d := Decide(c, Limits{Load: 500}, Situation{Range: r, Nodes: 3, Rested: -1})
	if d.Verdict != ByLoad || len(d.Keys) == 0 {
		t.Fatalf("%s: %s", d.Verdict, d.Reason)
	}
	if at := float64(binary.BigEndian.Uint64(d.Keys[0])) / keySpace; d.Into == 2 && math.Abs(at-0.875) > 0.02 {
		t.Errorf("it divides at %.3f of the keys", at)
	}
	if n := NewTracker(0, 1).Inherit(0, r, 1); n.Load() != 0 || n.Sampler() != nil {
		t.Error("of a cold partition nothing is inherited")
	}
}
