package copies

import (
	"slices"
	"time"
)

const (
	// GovernEvery is how long a window of a Governor is.
	GovernEvery = 200 * time.Millisecond

	leastRate = 1 << 20 // bytes per second, which disturb nobody
	moreRate  = 2 << 20 // what a quiet window adds
	lessRate  = 0.6     // what is left of it after a loud one
	// loud is by how much the p95 of a window may exceed the quiet one.
	loud = 1.15
	// fewSamples is how many a p95 takes, and manySamples how many of a window are
	// looked at.
	fewSamples  = 20
	manySamples = 1024
	// patientWindows bounds how long samples are collected until they are enough.
	patientWindows = 5
	// quietWindows is of how many quiet windows the median is taken.
	quietWindows = 31
)

// Governor decides how fast a node may copy, so that those who write beside it
// hardly notice (PLACEMENT.md 3.9): it compares the p95 of how long the node's log
// takes for a write with what that is when nothing is copied.
//
//	p95 above 1.15 x quiet -> rate x 0.6, at least 1 MiB/s
//	else                   -> rate + 2 MiB/s, at most Most
//	nobody writes          -> Most
//
// Windows at the least rate count as quiet, too. So the governor finds out while it
// copies if all has become slower for other reasons, and does not stay slow for
// ever. It is pure: the windows are the caller's.
type Governor struct {
	// Most is the rate that is never exceeded; 0 or less: no bound, and nothing to
	// decide.
	Most int64

	rate    int64           // as decided last; 0: not yet
	quiet   []time.Duration // p95 of the last quiet windows, in the order in which they came
	samples []time.Duration // that were too few yet
	windows int             // for which they were collected
	idle    bool            // nothing was copied in any of them
}

// Window takes how long writes to the log took since the last window, in any order,
// and whether anything was copied, and returns the rate from now on.
func (g *Governor) Window(samples []time.Duration, copying bool) int64 {
	if g.Most <= 0 {
		return g.Most
	}
	if g.rate == 0 {
		g.rate = g.Most
	}
	g.idle = !copying && (g.idle || g.windows == 0)
	g.samples = append(g.samples, samples[:min(len(samples), manySamples)]...)
	g.windows++
	switch {
	case len(g.samples) >= fewSamples:
		g.decide(p95(g.samples))
	case g.windows < patientWindows:
		return g.rate
	case len(g.samples) == 0:
		g.rate = g.Most
	}
	g.samples, g.windows = g.samples[:0], 0
	return g.rate
}

// decide goes by the p95 of a window.
func (g *Governor) decide(p time.Duration) {
	least := min(leastRate, g.Most)
	if g.idle || g.rate == least {
		if len(g.quiet) == quietWindows {
			g.quiet = slices.Delete(g.quiet, 0, 1)
		}
		g.quiet = append(g.quiet, p)
	}
	base := g.Quiet()
	switch {
	case base == 0: // it has never been quiet: find out what that is like
		g.rate = least
	case float64(p) > loud*float64(base) && !g.idle:
		g.rate = max(least, int64(float64(g.rate)*lessRate))
	default:
		g.rate = min(g.Most, g.rate+moreRate)
	}
}

// Quiet is the p95 of a usual quiet window, 0 if none was seen.
func (g *Governor) Quiet() time.Duration {
	if len(g.quiet) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(g.quiet))
	return s[len(s)/2]
}

// p95 sorts what it is given.
func p95(s []time.Duration) time.Duration {
	slices.Sort(s)
	return s[(len(s)*95+99)/100-1]
}
