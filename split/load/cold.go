package load

import (
	"cmp"
	"time"

	"pando.dev/pando/partition"
)

const (
	// coldShare is what two neighbours may have carried together, as part of what one
	// may carry: a load that triples by the time of day still fits. coldSize is the
	// like of their sizes.
	coldShare = 0.25
	coldSize  = 0.5
	// coldFor is how long a master has to have seen the load, and how long the last
	// split has to be over: after a failover or while little is served, little load
	// says nothing.
	coldFor = 10 * time.Minute
)

// Side is what is known of a partition that may be merged with its neighbour.
type Side struct {
	Peak   float64 // Tracker.Peak
	Since  partition.Time
	Bytes  int64
	Rested time.Duration // as in Situation
}

// SideOf describes a partition.
func SideOf(t *Tracker, bytes int64, rested time.Duration) Side {
	return Side{Peak: t.Peak(), Since: t.Since(), Bytes: bytes, Rested: rested}
}

// MayMerge reports whether two neighbours are so cold and small that they may be
// merged without being divided again soon. It goes by the greatest load of the last
// ten minutes, never by the present one.
func MayMerge(now partition.Time, a, b Side, l Limits) bool {
	long := cmp.Or(l.Cold, coldFor)
	for _, x := range []Side{a, b} {
		if now-x.Since < long || x.Rested >= 0 && x.Rested < long {
			return false
		}
	}
	fits := l.Size <= 0 || float64(a.Bytes+b.Bytes) <= coldSize*float64(l.Target)
	return fits && (l.Load <= 0 || a.Peak+b.Peak <= coldShare*l.Load)
}
