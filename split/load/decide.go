package load

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"time"

	"pando.dev/pando/partition"
)

const (
	// MaxPieces is the most pieces of one split.
	MaxPieces = 16
	// decideAfter and decideRecords are what a sample needs to be decided by,
	// nameRecords what it needs to name a key.
	decideAfter   = 2 * time.Second
	decideRecords = 1000
	nameRecords   = 200
	// fill is what part of the limit a piece is to carry, so that it may grow.
	fill = 0.6
	// most is the share of the load beyond which one key, or an ascending order of
	// keys, is the load; gain is what a piece may keep of the load at most.
	most, gain = 0.5, 0.75
	// besides is the load, as part of the limit, that has to lie beside a hot key for
	// the key to be given a partition of its own.
	besides = 0.8
)

// Limits are the policy of a table.
type Limits struct {
	// Load is what a partition is to carry, in units per second; 0: load divides
	// nothing.
	Load float64
	// Size is what a partition is to have on disk at most, and Target what the pieces
	// are to have; Size 0: size divides nothing.
	Size, Target int64
	// CoolDown is the least time between a split and one for load of what it made.
	CoolDown time.Duration
	// Cold is how long neighbours have to have been cold to be merged (default 10
	// minutes).
	Cold time.Duration
	// Partitions is the most that the table is divided into.
	Partitions int
}

// Situation is what is known beside the load.
type Situation struct {
	Now   partition.Time
	Range partition.KeyRange
	Bytes int64 // on disk
	// Rested is since when the partition, or the one that it came from, was last
	// divided; negative: it never was.
	Rested time.Duration
	// Partitions is how many the table has, Nodes how many are in service.
	Partitions, Nodes int
	// Busy says why nothing may begin now, such as other splits; empty: it may.
	Busy string
}

// Verdict says what was decided. Values are append-only.
type Verdict uint8

// The verdicts.
const (
	Nothing     Verdict = iota // neither size nor load is over its limit
	BySize                     // divide, where the data divides
	ByLoad                     // divide, at Keys
	Isolate                    // divide, so that the hot key has a partition of its own
	HotKey                     // not: one key is the load
	Sequential                 // not: the load is behind every key there is
	NoGain                     // not: nobody would have less to do
	TooFew                     // not yet: too little was seen
	CoolingDown                // not yet: it was divided just now
	TableFull                  // not: the table has as many partitions as it may have
	Busy                       // not yet: something else comes first
)

// String returns the name used in reports.
func (v Verdict) String() string {
	names := [...]string{"nothing", "by-size", "by-load", "isolate", "hot-key", "sequential", "no-gain", "too-few", "cool-down", "table-full", "busy"}
	if int(v) < len(names) {
		return names[v]
	}
	return fmt.Sprintf("verdict(%d)", uint8(v))
}

// Decision is what was decided, and why.
type Decision struct {
	Verdict Verdict
	Reason  string
	// Into is the number of pieces, and Keys where they begin but for the first; of
	// BySize there are none: the data says.
	Into int
	Keys [][]byte
	// Loads are what the pieces are expected to carry, in units per second.
	Loads []float64
	// Hot is a key with more than half of the load.
	Hot []byte
}

// Split reports whether the partition is to be divided.
func (d *Decision) Split() bool {
	return d.Verdict == BySize || d.Verdict == ByLoad || d.Verdict == Isolate
}

// Decide says whether a partition is to be divided now.
func Decide(t *Tracker, l Limits, s Situation) Decision {
	j := judge{t: t, l: l, s: s}
	byLoad, bySize := j.load(), j.size()
	switch {
	case byLoad.Split(), bySize.Verdict == Nothing:
		return j.permitted(byLoad)
	default:
		return j.permitted(bySize)
	}
}

// judge is one Decide.
type judge struct {
	t *Tracker
	l Limits
	s Situation
}

// pieces is into how many parts the partition is to be divided.
func (j *judge) pieces(load float64) int {
	n := 2
	if j.l.Load > 0 {
		n = max(n, int(math.Ceil(load/j.l.Load/fill-1e-9)))
	}
	if j.l.Size > 0 && j.l.Target > 0 && j.s.Bytes > j.l.Size {
		n = max(n, int((j.s.Bytes+j.l.Target-1)/j.l.Target))
	}
	return min(n, MaxPieces)
}

// size judges by what is on disk.
func (j *judge) size() Decision {
	if j.l.Size <= 0 || j.s.Bytes <= j.l.Size {
		return Decision{}
	}
	return Decision{
		Verdict: BySize, Into: j.room(j.pieces(0)),
		Reason: fmt.Sprintf("it has %s, limit %s", sizeText(j.s.Bytes), sizeText(j.l.Size)),
	}
}

// load judges by what is asked for.
func (j *judge) load() Decision {
	load := j.t.Load()
	if j.l.Load <= 0 || j.t.Heat() != Engaged || load <= j.l.Load {
		return Decision{}
	}
	much := fmt.Sprintf("it is asked for %s a second, limit %s", count(load), count(j.l.Load))
	x := j.t.best()
	switch {
	case !x.enough():
		d := Decision{Verdict: TooFew, Reason: fmt.Sprintf("%s; too little was seen of its keys yet", much)}
		if key, share := j.t.Hottest(); share > most {
			d.Verdict, d.Hot, d.Reason = HotKey, key, one(much, key, share)
		}
		return d
	case j.s.Nodes < 2:
		return Decision{Verdict: NoGain, Reason: much + "; there is one node only, which would serve the pieces as well"}
	case x.Sequential() > most:
		return Decision{Verdict: Sequential, Reason: fmt.Sprintf("%s; %.0f%% of it is for keys beyond all before them, so the next load would be for one piece again", much, 100*x.Sequential())}
	}
	sorted := within(x.sorted(), j.s.Range)
	key, share := hottest(sorted)
	if share > most {
		return j.hot(much, key, share, load)
	}
	n := j.room(j.pieces(load))
	if n < 2 {
		return Decision{Verdict: ByLoad, Reason: much} // see permitted
	}
	return j.cut(much, sorted, n, load)
}

// cut divides the load into n pieces.
func (j *judge) cut(much string, sorted [][]byte, n int, load float64) Decision {
	keys, shares := cuts(sorted, n)
	d := Decision{Verdict: ByLoad, Reason: much, Into: len(keys) + 1, Keys: keys}
	top := 0.0
	for _, x := range shares {
		d.Loads = append(d.Loads, x*load)
		top = max(top, x)
	}
	if len(keys) == 0 || top > gain {
		return Decision{Verdict: NoGain, Reason: fmt.Sprintf("%s; one piece would keep %.0f%% of it, for the load is that of few keys", much, 100*top)}
	}
	return d
}

// hot judges a partition of which one key is the load: the key cannot be divided,
// but what lies beside it can be taken away, if that is much.
func (j *judge) hot(much string, key []byte, share, load float64) Decision {
	d := Decision{Verdict: HotKey, Hot: key, Reason: one(much, key, share)}
	rest := load * (1 - share)
	if rest <= besides*j.l.Load || len(key) >= MaxKey {
		return d
	}
	for _, k := range [][]byte{key, append(bytes.Clone(key), 0)} {
		if j.s.Range.Contains(k) && !bytes.Equal(k, j.s.Range.Lo) {
			d.Keys = append(d.Keys, k)
		}
	}
	if len(d.Keys) == 0 {
		return d
	}
	d.Verdict, d.Into = Isolate, len(d.Keys)+1
	d.Reason = fmt.Sprintf("%s; it gets a partition of its own, for the rest is %s", d.Reason, count(rest))
	return d
}

// permitted is the decision, unless something is against it now.
func (j *judge) permitted(d Decision) Decision {
	wait := func(v Verdict, why string) Decision {
		return Decision{Verdict: v, Reason: d.Reason + "; " + why, Hot: d.Hot}
	}
	forLoad := d.Verdict == ByLoad || d.Verdict == Isolate
	switch {
	case !d.Split():
		return d
	case d.Into < 2 || d.Into > j.room(d.Into):
		return wait(TableFull, fmt.Sprintf("its table has %d partitions, limit %d", j.s.Partitions, j.l.Partitions))
	case forLoad && j.s.Rested >= 0 && j.s.Rested < j.l.CoolDown:
		return wait(CoolingDown, fmt.Sprintf("it was divided %s ago, at least %s lie between", j.s.Rested.Round(time.Second), j.l.CoolDown))
	case j.s.Busy != "":
		return wait(Busy, j.s.Busy)
	}
	return d
}

// room is how many pieces the table has room for, of n.
func (j *judge) room(n int) int {
	if j.l.Partitions <= 0 {
		return n
	}
	return min(n, max(0, j.l.Partitions-j.s.Partitions)+1)
}

func one(much string, key []byte, share float64) string {
	return fmt.Sprintf("%s; one key is the load: %.0f%% is for %s", much, 100*share, KeyText(key))
}

// KeyText is a key in messages: quoted, and short.
func KeyText(key []byte) string {
	const most = 64
	if len(key) > most {
		return strconv.Quote(string(key[:most])) + "..."
	}
	return strconv.Quote(string(key))
}

func count(units float64) string { return strconv.FormatFloat(math.Round(units), 'f', 0, 64) }

func sizeText(b int64) string { return fmt.Sprintf("%.1f MiB", float64(b)/(1<<20)) }
