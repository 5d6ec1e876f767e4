package load

import (
	"math"
	"math/bits"
	"time"

	"pando.dev/pando/partition"
)

const (
	// Window is how often a Tracker is to be told what was asked for.
	Window = 500 * time.Millisecond
	// UnitBytes is for how many bytes a request counts once more.
	UnitBytes = 4 << 10
	// averaged is the time constant of the averages.
	averaged = 10 * time.Second
	// windows are looked at, and more than overWindows of them above the limit
	// engage: five seconds of which three.
	windows, overWindows = 10, 6
	// calm is the share of the limit below which a window is calm, and calmFor how
	// long all have to be until the partition is cold again.
	calm    = 0.8
	calmFor = 30 * time.Second
	// sampleFor is how long a sample is used before a new one is begun, which takes
	// over as soon as it is enough to decide by.
	sampleFor = 10 * time.Second
	// minutes is how far back the greatest load is remembered.
	minutes = 10
)

// Counts is what was asked for during some time.
type Counts struct {
	Reads, Writes, ReadBytes, WriteBytes uint64
}

// Units is the load of the counts.
func (c Counts) Units() float64 {
	return float64(c.Reads+c.Writes) + float64(c.ReadBytes+c.WriteBytes)/UnitBytes
}

// Weight is the units of one request, for Sampler.Record.
func Weight(bytes int) uint64 { return 1 + uint64(bytes)/UnitBytes }

// Rates are averages per second.
type Rates struct {
	Reads, Writes, ReadBytes, WriteBytes float64
}

// Units is the load in units per second.
func (r Rates) Units() float64 { return r.Reads + r.Writes + (r.ReadBytes+r.WriteBytes)/UnitBytes }

// Scale returns a share of the rates.
func (r Rates) Scale(x float64) Rates {
	return Rates{r.Reads * x, r.Writes * x, r.ReadBytes * x, r.WriteBytes * x}
}

// Heat says how closely a partition is watched.
type Heat uint8

// The states of a Tracker.
const (
	Cold Heat = iota
	Watched
	Engaged
)

// String returns the name used in reports.
func (h Heat) String() string { return [...]string{"cold", "watched", "engaged"}[h] }

// Tracker follows the load of one partition. The zero Tracker has seen nothing.
type Tracker struct {
	began  partition.Time // of what it knows
	last   partition.Time // end of the last window
	known  bool           // the averages are inherited
	rates  Rates
	lately [4]struct{ units, seconds float64 } // the last windows, the newest first
	// peaks are the greatest averages of minutes, by the minute's number modulo their
	// number.
	peaks  [minutes]float64
	minute int64

	heat   Heat
	over   uint16         // a bit for each of the last windows, the newest lowest
	warmAt partition.Time // end of the last window that was not calm
	now    *sample        // nil: cold
	old    *sample        // of before, while now is too short to decide by
	seed   uint64
}

// sample is a Sampler with what was asked for since it was begun.
type sample struct {
	*Sampler
	began partition.Time
	units float64
	end   partition.Time
}

// enough reports whether it can be decided by.
func (s *sample) enough() bool {
	return s != nil && s.end-s.began >= decideAfter && s.Count() >= decideRecords
}

// rate is the load that it has seen, in units per second.
func (s *sample) rate() float64 {
	if s.end <= s.began {
		return 0
	}
	return s.units / (s.end - s.began).Seconds()
}

// NewTracker returns a tracker that has seen nothing by now. The seed is for its
// samples.
func NewTracker(now partition.Time, seed uint64) *Tracker {
	return &Tracker{began: now, last: now, seed: seed}
}

// Tick takes what was asked for since the last one. The limit is in units per
// second; without one (0) the tracker stays cold, unless somebody has it watch.
func (t *Tracker) Tick(now partition.Time, c Counts, limit float64) {
	dt := (now - t.last).Seconds()
	if dt <= 0 {
		return
	}
	t.average(c, dt)
	copy(t.lately[1:], t.lately[:])
	t.lately[0].units, t.lately[0].seconds = c.Units(), dt
	t.remember(now)
	passed := max(1, int(math.Round(float64(now-t.last)/float64(Window))))
	t.last = now
	for _, s := range []*sample{t.now, t.old} {
		if s != nil {
			s.units, s.end = s.units+c.Units(), now
		}
	}
	t.engage(now, c.Units()/dt, passed, limit)
}

func (t *Tracker) average(c Counts, dt float64) {
	keep := math.Exp(-dt / averaged.Seconds())
	if age := (t.last - t.began).Seconds() + dt; !t.known && age > dt {
		keep = math.Min(keep, 1-dt/age) // of less than the time constant the plain mean
	} else if !t.known {
		keep = 0
	}
	mix := func(old float64, n uint64) float64 { return old*keep + (1-keep)*float64(n)/dt }
	t.rates = Rates{mix(t.rates.Reads, c.Reads), mix(t.rates.Writes, c.Writes), mix(t.rates.ReadBytes, c.ReadBytes), mix(t.rates.WriteBytes, c.WriteBytes)}
}

// remember notes the average among the greatest of the minutes.
func (t *Tracker) remember(now partition.Time) {
	m := int64(now / time.Minute)
	for t.minute = max(t.minute, m-minutes); t.minute < m; {
		t.minute++
		t.peaks[t.minute%minutes] = 0
	}
	p := &t.peaks[m%minutes]
	*p = max(*p, t.rates.Units())
}

// engage moves between the states.
func (t *Tracker) engage(now partition.Time, units float64, passed int, limit float64) {
	t.over = t.over << min(passed, windows) & (1<<windows - 1)
	if limit <= 0 {
		limit = math.Inf(1)
	}
	if units > calm*limit {
		t.warmAt = now
	}
	if units > limit {
		t.over |= 1
		if t.now == nil {
			t.heat, t.now = Watched, t.sample(now)
		}
	}
	switch {
	case bits.OnesCount16(t.over) >= overWindows:
		t.heat = Engaged
	case now-t.warmAt >= calmFor:
		t.cool()
	}
	t.renew(now)
}

// renew begins a new sample when this one is old, and forgets the old one when the
// new one is enough.
func (t *Tracker) renew(now partition.Time) {
	if t.now.enough() {
		t.old = nil
	}
	if t.now != nil && t.old == nil && now-t.now.began >= sampleFor {
		t.old, t.now = t.now, t.sample(now)
	}
}

// Watch has the keys looked at, whatever the load, for half a minute.
func (t *Tracker) Watch() {
	t.warmAt = t.last
	if t.now == nil {
		t.heat, t.now = Watched, t.sample(t.last)
	}
}

// Cuts are keys in the range that divide the load into n parts, about equal; nil if
// too little was seen of it, and fewer if the load is that of few keys.
func (t *Tracker) Cuts(n int, r partition.KeyRange) [][]byte {
	s := t.best()
	if s == nil || s.Count() < nameRecords {
		return nil
	}
	keys, _ := cuts(within(s.sorted(), r), n)
	return keys
}

func (t *Tracker) cool() { t.heat, t.now, t.old = Cold, nil, nil }

func (t *Tracker) sample(now partition.Time) *sample {
	t.seed++
	return &sample{Sampler: NewSampler(t.seed), began: now, end: now}
}

// Sampler is what the keys that are asked for are to be told to; nil while the
// partition is cold. It changes with Tick and Inherit only.
func (t *Tracker) Sampler() *Sampler {
	if t.now == nil {
		return nil
	}
	return t.now.Sampler
}

// best is the sample to look at.
func (t *Tracker) best() *sample {
	if t.old != nil && !t.now.enough() {
		return t.old
	}
	return t.now
}

// Heat is the state.
func (t *Tracker) Heat() Heat { return t.heat }

// Rates are the averages, raised to Load if that is more.
func (t *Tracker) Rates() Rates {
	if u := t.rates.Units(); u > 0 {
		return t.rates.Scale(t.Load() / u)
	}
	return t.rates
}

// Load is the load in units per second: the average, or what the sample saw if that
// is more, for the average follows a sudden load late.
func (t *Tracker) Load() float64 {
	load := t.rates.Units()
	if s := t.best(); s != nil {
		load = max(load, s.rate())
	}
	return load
}

// Lately is the load of the last two seconds: it jumps about, and follows a change at
// once. Of what is inherited it is the average.
func (t *Tracker) Lately() float64 {
	units, seconds := 0.0, 0.0
	for _, w := range t.lately {
		units, seconds = units+w.units, seconds+w.seconds
	}
	if seconds == 0 {
		return t.Load()
	}
	return units / seconds
}

// Peak is the greatest average of the last ten minutes.
func (t *Tracker) Peak() float64 {
	most := 0.0
	for _, p := range t.peaks {
		most = max(most, p)
	}
	return most
}

// Since is from when on it knows.
func (t *Tracker) Since() partition.Time { return t.began }

// Hottest returns the key with the greatest share of the load and that share, if
// the keys are looked at.
func (t *Tracker) Hottest() (key []byte, share float64) {
	if s := t.best(); s != nil && s.Count() >= nameRecords {
		return s.Hottest()
	}
	return nil, 0
}

// Inherit returns the tracker of a partition that has a part of the keys of this
// one: the part of its sample, and of its load in proportion. What it will have is
// known before it has served once, so nobody splits or fills it for want of news.
func (t *Tracker) Inherit(now partition.Time, r partition.KeyRange, seed uint64) *Tracker {
	c := NewTracker(now, seed)
	s := t.best()
	if s == nil || len(s.points) == 0 {
		return c
	}
	part := s.Part(r, seed)
	share := float64(len(part.points)) / float64(len(s.points))
	c.known, c.rates = true, t.Rates().Scale(share)
	c.heat, c.warmAt = Watched, now
	c.now = &sample{Sampler: part, began: s.began, end: s.end, units: s.units * share}
	c.minute = int64(now / time.Minute)
	c.peaks[c.minute%minutes] = t.Load() * share
	return c
}
