package load

import (
	"bytes"
	"math/rand/v2"
	"slices"

	"pando.dev/pando/partition"
)

const (
	// Points is the most keys that a sample has. The share of a key is then right to
	// 1.6 % (one standard deviation, at a half) with half of them.
	Points = 2048
	// MaxKey is how much of a key a sample keeps: the keys of a split together have
	// to fit into 4 KiB.
	MaxKey = 256
	// block is how many records are compared with the bounds of those before them. A
	// crowd of writers that append swaps neighbours, so one record alone says little.
	block = 256
)

// Sampler is a weighted sample of the keys that are asked for: the load is cut into
// strata of equal weight, and of each the key at one random place is kept. When
// there are too many, one of each pair goes and the strata are twice as wide. So a
// sample is as old as its Sampler, and forgets nothing in between.
type Sampler struct {
	rng    *rand.Rand
	points [][]byte // one per stratum, in the order of time; each owns its bytes
	spare  [][]byte // buffers of points that went
	width  uint64   // weight of a stratum
	weight uint64   // seen so far
	next   uint64   // where the next point lies; in stratum len(points)
	count  uint64   // records seen

	// Bounds of the blocks before this one, and of all so far.
	before, all struct{ lo, hi []byte }
	bounded     bool   // there is a block before
	left        int    // records until the bounds before are those of all
	judged      uint64 // weight that was compared
	beyond      uint64 // of that, outside of the bounds before
}

// NewSampler returns an empty sample, which takes its chance from the seed.
func NewSampler(seed uint64) *Sampler {
	s := &Sampler{rng: rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15)), points: make([][]byte, 0, Points), width: 1, left: block}
	s.place()
	return s
}

// place puts the next point into the stratum after the last one.
func (s *Sampler) place() {
	s.next = uint64(len(s.points)) * s.width
	if s.width > 1 {
		s.next += s.rng.Uint64N(s.width)
	}
}

// Record counts a request for a key. The key is not kept.
func (s *Sampler) Record(key []byte, weight uint64) {
	key = key[:min(len(key), MaxKey)]
	s.count++
	s.weight += weight
	for s.next < s.weight {
		s.take(key)
	}
	s.order(key, weight)
}

// take keeps a key as the next point.
func (s *Sampler) take(key []byte) {
	if len(s.points) == Points {
		s.halve()
		s.place()
		return // it may lie in what is still to come
	}
	var b []byte
	if n := len(s.spare); n > 0 {
		b, s.spare = s.spare[n-1], s.spare[:n-1]
	}
	s.points = append(s.points, append(b[:0], key...))
	s.place()
}

// halve keeps one of each pair of points, each with the same chance.
func (s *Sampler) halve() {
	for i := range len(s.points) / 2 {
		keep := int(s.rng.Uint64() & 1)
		s.spare = append(s.spare, s.points[2*i+1-keep])
		s.points[i] = s.points[2*i+keep]
	}
	s.points = s.points[:len(s.points)/2]
	s.width *= 2
}

// order counts what lies outside of everything that was seen in earlier blocks:
// next to nothing of a load that comes back to its keys, all of one that appends.
func (s *Sampler) order(key []byte, weight uint64) {
	if !s.bounded {
		s.widen(key)
	} else {
		s.judged += weight
		if bytes.Compare(key, s.before.hi) > 0 || bytes.Compare(key, s.before.lo) < 0 {
			s.beyond += weight
			s.widen(key)
		}
	}
	if s.left--; s.left == 0 {
		s.left, s.bounded = block, true
		s.before.lo = append(s.before.lo[:0], s.all.lo...)
		s.before.hi = append(s.before.hi[:0], s.all.hi...)
	}
}

func (s *Sampler) widen(key []byte) {
	if s.all.hi == nil || bytes.Compare(key, s.all.hi) > 0 {
		s.all.hi = append(s.all.hi[:0], key...)
	}
	if s.all.lo == nil || bytes.Compare(key, s.all.lo) < 0 {
		s.all.lo = append(s.all.lo[:0], key...)
	}
}

// Count is the number of requests that were recorded.
func (s *Sampler) Count() uint64 { return s.count }

// Sequential is the share of the load that goes beyond all keys before it, such as
// that of a log that is appended to. No split helps there: the next load is behind
// every key there is.
func (s *Sampler) Sequential() float64 {
	if s.judged < block {
		return 0
	}
	return float64(s.beyond) / float64(s.judged)
}

// sorted are the points in the order of their keys.
func (s *Sampler) sorted() [][]byte {
	keys := slices.Clone(s.points)
	slices.SortFunc(keys, bytes.Compare)
	return keys
}

// within are the keys in a range; the slice is the same one.
func within(keys [][]byte, r partition.KeyRange) [][]byte {
	return slices.DeleteFunc(keys, func(k []byte) bool { return !r.Contains(k) })
}

// Hottest returns the key with the greatest share of the load, and its share. Of a
// key longer than MaxKey it is the beginning.
func (s *Sampler) Hottest() (key []byte, share float64) { return hottest(s.sorted()) }

func hottest(sorted [][]byte) (key []byte, share float64) {
	most := 0
	for i := 0; i < len(sorted); {
		end := runEnd(sorted, i)
		if end-i > most {
			key, most = sorted[i], end-i
		}
		i = end
	}
	if most == 0 {
		return nil, 0
	}
	return slices.Clone(key), float64(most) / float64(len(sorted))
}

// runEnd is behind the last point with the same key as point i.
func runEnd(sorted [][]byte, i int) int {
	end := i + 1
	for end < len(sorted) && bytes.Equal(sorted[end], sorted[i]) {
		end++
	}
	return end
}

// Part is the sample of the keys in a range: what a new partition knows of its load
// from the one it comes from.
func (s *Sampler) Part(r partition.KeyRange, seed uint64) *Sampler {
	p := NewSampler(seed)
	p.width = s.width
	for _, k := range s.points {
		if r.Contains(k) {
			p.points = append(p.points, slices.Clone(k))
		}
	}
	if len(p.points) > 0 {
		p.count = s.count * uint64(len(p.points)) / uint64(len(s.points))
	}
	p.weight = uint64(len(p.points)) * p.width
	p.place()
	return p
}

// cuts are keys that divide the load into n parts, about equal, and what share of it
// each part has. They are fewer if the load is that of few keys: one key is never
// divided.
func cuts(sorted [][]byte, n int) (keys [][]byte, shares []float64) {
	last := 0
	for i := 1; i < n; i++ {
		at := cutNear(sorted, i*len(sorted)/n)
		if at <= last || at >= len(sorted) {
			continue
		}
		keys = append(keys, slices.Clone(sorted[at]))
		shares = append(shares, float64(at-last)/float64(len(sorted)))
		last = at
	}
	return keys, append(shares, float64(len(sorted)-last)/max(1, float64(len(sorted))))
}

// cutNear is the beginning of a key's points that is nearest to the given place.
func cutNear(sorted [][]byte, at int) int {
	first, _ := slices.BinarySearchFunc(sorted, sorted[at], bytes.Compare)
	end := runEnd(sorted, at)
	if at-first <= end-at {
		return first
	}
	return end
}
