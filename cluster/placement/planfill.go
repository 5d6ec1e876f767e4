package placement

import (
	"fmt"
	"math"
)

const (
	samples = 8   // replicas weighed for one step of a fill
	scans   = 256 // replicas looked at before a giver is left alone
)

// fill gives new nodes their share, one after the other, always from the node that has
// most. Nothing else moves, so what moves is what the new nodes lack. Of a
// few replicas it takes the one that brings what the receiver lacks most in
// the proportion in which the giver has too much.
func (s *search) fill() {
	for i := range s.l.nodes {
		n := &s.l.nodes[i]
		if !n.open() || s.inv[i][DimBytes]+s.inv[i][DimReplicas] == 0 {
			continue
		}
		if n.New || s.cfg.planted == fillBetweenOld {
			s.fillNode(int32(i), s.reason(fmt.Sprintf("%s is new", n.ID)))
		}
	}
}

func (s *search) fillNode(to int32, why int32) {
	if inv := s.inv[to][DimBytes]; inv > 0 {
		s.least[Filling] += int64(max(0, s.cfg.FillTo/inv-float64(s.l.use[to][DimBytes])))
	}
	s.pull(to, why, DimBytes, DimWritten, DimReplicas)
	s.leadMore(to, why)
	if !s.active[DimBytes] && !s.active[DimWritten] && !s.active[DimReplicas] {
		s.pull(to, why, DimLoad, DimMasters) // only work counts, so copies are made for it
	}
}

// pull moves replicas onto a node until it lacks nothing in some dimensions.
func (s *search) pull(to int32, why int32, dims ...Dim) {
	barred := make([]bool, len(s.l.nodes))
	for s.lacks(to, dims...) && s.room() {
		from := s.fullest(to, barred, dims)
		if from == none {
			return
		}
		if slot := s.pick(from, to); slot != none32 {
			s.shift(slot, to, why)
		} else {
			barred[from] = true
		}
	}
}

// lacks reports whether the node has less than FillTo in one of the dimensions,
// if it counts.
func (s *search) lacks(n int32, dims ...Dim) bool {
	for _, d := range dims {
		if s.active[d] && s.inv[n][d] > 0 && s.part(n, d) < s.cfg.FillTo {
			return true
		}
	}
	return false
}

// fullest finds the node that gives next: of those that are not new the one
// that has most of what it should have in the dimensions that are filled. What it
// has too much of otherwise, such as masterships, other steps bring down: taking
// its replicas for that would only have others come back.
func (s *search) fullest(to int32, barred []bool, dims []Dim) int32 {
	best, most := int32(none), 0.0
	for _, d := range dims {
		most = max(most, s.part(to, d))
	}
	for _, d := range dims {
		if !s.active[d] {
			continue
		}
		for r := len(s.orders[d].nodes) - 1; r >= 0; r-- {
			n := s.orders[d].nodes[r]
			if barred[n] || s.l.nodes[n].New && s.cfg.planted != fillBetweenOld || n == to {
				continue
			}
			if s.part(n, d) > most {
				best, most = n, s.part(n, d)
			}
			break
		}
	}
	return best
}

// pick chooses one of the giver's replicas for the receiver, or none32.
func (s *search) pick(from, to int32) uint32 {
	list := s.l.on[from]
	n := len(list)
	if n == 0 {
		return none32
	}
	best, bestScore, found := none32, math.Inf(-1), 0
	at := s.next(n)
	stride := 1
	if n > scans { // far apart, so that what is on the list side by side does not matter
		stride = 1 + s.next(n/scans)
	}
	for range min(n, scans) {
		slot := list[at]
		if at += stride; at >= n {
			at -= n
		}
		if !s.movable(slot) || s.fits(slot, to) != allowed {
			continue
		}
		v := s.l.carried(slot)
		if s.overfills(to, from, &v) {
			continue
		}
		if score := s.alignment(from, to, &v); score > bestScore {
			best, bestScore = slot, score
		}
		if found++; found >= samples {
			break
		}
	}
	return best
}

// overfills reports whether v would give the receiver more than its share; where
// single replicas are a large part of it, whether it would not even help.
func (s *search) overfills(to, from int32, v *Use) bool {
	over := false
	for d := range Dims {
		over = over || s.active[d] && v[d] > 0 && (float64(s.l.use[to][d])+float64(v[d]))*s.inv[to][d] > 1
	}
	if !over {
		return false
	}
	for d := range Dims {
		if s.active[d] && (float64(s.l.use[to][d])+float64(v[d]))*s.inv[to][d] > s.cfg.Low {
			return true
		}
	}
	return s.change(to, v, 1)+s.change(from, v, -1) >= 0
}

// alignment says how well v fits what one node has more of than another,
// whatever its size. What does not count now counts a little: it may some day.
func (s *search) alignment(from, to int32, v *Use) float64 {
	dot, size := 0.0, 0.0
	for d := range Dims {
		weight := 1.0
		if !s.active[d] {
			weight = 0.25
		}
		x := float64(v[d]) * s.inv[to][d]
		dot += weight * (s.part(from, d) - s.part(to, d)) * x
		size += weight * x * x
	}
	if size == 0 {
		return 0
	}
	return dot / math.Sqrt(size)
}

// leadMore hands masterships to a new node for replicas it has, as long as it
// lacks work or masterships.
func (s *search) leadMore(to int32, why int32) {
	for _, slot := range s.l.on[to] {
		g := int(s.l.of[slot])
		m := s.l.masterSlot(g)
		if !s.lacks(to, DimLoad, DimMasters) || !s.room() {
			return
		}
		if m == none || m == int(slot) || s.l.busy[g] || !s.leads(slot) || !s.leads(uint32(m)) || s.l.nodes[s.l.node[m]].New {
			continue
		}
		v := s.l.led(g)
		if from := s.l.node[m]; !s.overfills(to, from, &v) && s.change(to, &v, 1)+s.change(from, &v, -1) < 0 {
			s.transfer(slot, why)
		}
	}
}
