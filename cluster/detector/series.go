package detector

import (
	"cmp"
	"math"
	"slices"
	"time"

	"pando.dev/pando/partition"
)

// Config is how sensitive a detector is. The zero value works.
//
// With the defaults, figures whose logarithms scatter by 0.35 and bursts of 5 to
// 20 s at five times the usual, one in ten minutes per node: a node ten times
// slower than the others is found after 44 s, one three times slower after 52 s,
// twice after 132 s; one up to 1.6 times as slow is taken for a difference of
// hardware or load.
type Config struct {
	// Self is the node that the detector runs on.
	Self partition.NodeID
	// Every is the time between two rounds (default 1 s). A detector that misses
	// rounds does not count them.
	Every partition.Time
	// Clip bounds what one second counts for, as a natural logarithm (default 0.8:
	// 2.2 times). Drift is what is subtracted each second (default 0.5: 1.6 times
	// as slow is usual). Limit is the sum that makes a claim (default 13.2). What
	// is very slow is found after Limit / (Clip - Drift) = 44 s, which has to be
	// more than twice what a burst of compactions lasts. The nearer Drift is to
	// Clip, the sooner a burst is forgotten, and the later is found what is little
	// above it.
	Clip, Drift, Limit float64
	// Quiet is how long a sum has to stay below half of Limit before the claim
	// ends (default 5 min).
	Quiet partition.Time
	// SyncFloor (default 500 us), LateFloor (default 20 ms), QueueFloor (default
	// 100 thousandths), LinkFloor (default 1 ms) and LoadFloor (default 500 units
	// of load a second) are below what differences are nobody's trouble: smaller
	// figures are taken for these.
	SyncFloor, LateFloor, LinkFloor time.Duration
	QueueFloor, LoadFloor           int
	// Window (default 10 min) is the time in which Flaps (default 4) restarts or
	// losses of a link are too many; a node that is silent for longer is forgotten.
	Window partition.Time
	Flaps  int

	plant mistake // for tests of the tests
}

// mistake is an error of this package that a test plants.
type mistake uint8

const (
	noMistake mistake = iota
	noComparison
	noClip
	noHysteresis
	noConfirmation
	noBlame
	ownFaultIgnored
)

func (c Config) withDefaults() Config {
	c.Every = cmp.Or(c.Every, time.Second)
	c.Clip, c.Drift, c.Limit = cmp.Or(c.Clip, 0.8), cmp.Or(c.Drift, 0.5), cmp.Or(c.Limit, 13.2)
	c.Quiet, c.Window, c.Flaps = cmp.Or(c.Quiet, 5*time.Minute), cmp.Or(c.Window, 10*time.Minute), cmp.Or(c.Flaps, 4)
	c.SyncFloor, c.LateFloor, c.LinkFloor = cmp.Or(c.SyncFloor, 500*time.Microsecond), cmp.Or(c.LateFloor, 20*time.Millisecond), cmp.Or(c.LinkFloor, time.Millisecond)
	c.QueueFloor, c.LoadFloor = cmp.Or(c.QueueFloor, 100), cmp.Or(c.LoadFloor, 500)
	return c
}

// series is the sum of one figure of one node, link or group.
type series struct {
	score float64
	since partition.Time // when the sum left zero
	// raised: the sum reached the limit, and has not been quiet since. calm is
	// since when it is below half of the limit; 0: it is not.
	raised bool
	calm   partition.Time
	// own and ref are what was compared last while the sum grew, peers with how
	// many.
	own, ref float64
	peers    int
}

// feed adds a second in which own was measured while others had ref.
func (s *series) feed(c *Config, now partition.Time, own, ref, floor float64, peers int) {
	d := math.Log(max(own, floor) / max(ref, floor))
	if c.plant == noComparison {
		d = math.Log(max(own, floor) / (4 * floor))
	}
	if d > c.Drift {
		s.own, s.ref, s.peers = own, ref, peers
	}
	s.add(c, now, d)
}

// rest adds a second in which there was nothing to compare: it proves nothing, so
// a node that seldom writes is found as well, but what was is forgotten in time.
func (s *series) rest(c *Config, now partition.Time) {
	if !s.idle() {
		s.add(c, now, c.Drift*0.9)
	}
}

func (s *series) add(c *Config, now partition.Time, d float64) {
	if c.plant != noClip {
		d = max(-c.Clip, min(d, c.Clip))
	}
	if s.score == 0 && !s.raised {
		s.since = now
	}
	// Bounded above as well: what was bad for long is forgotten as fast as what
	// was bad for a minute.
	s.score = max(0, min(s.score+d-c.Drift, 1.5*c.Limit))
	switch {
	case s.score >= c.Limit:
		s.raised, s.calm = true, 0
	case !s.raised:
	case s.score >= c.Limit/2:
		s.calm = 0
	case s.calm == 0:
		s.calm = now
	case now-s.calm >= c.Quiet || c.plant == noHysteresis:
		s.raised, s.calm, s.since = false, 0, now
	}
}

// idle reports whether nothing is remembered that matters.
func (s *series) idle() bool { return s.score == 0 && !s.raised }

// medianOf returns the middle of the sorted figures without one of them; of two in
// the middle, the geometric mean: if one of two others has a burst, it hides less
// than the arithmetic one.
func medianOf(sorted []float64, without float64) float64 {
	n := len(sorted) - 1
	skip, _ := slices.BinarySearch(sorted, without)
	at := func(i int) float64 {
		if i >= skip {
			i++
		}
		return sorted[i]
	}
	return math.Sqrt(at((n-1)/2) * at(n/2))
}

// middle is the median of sorted logarithms.
func middle(sorted []float64) float64 {
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}
