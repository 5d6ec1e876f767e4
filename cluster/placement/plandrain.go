package placement

import (
	"cmp"
	"fmt"
	"slices"
)

// looks is how many fitting receivers are weighed for one replica.
const looks = 12

// emergency restores what keeps groups safe: replicas that are lost or were never
// made, groups with the fewest left first; zones; disks that run full.
func (s *search) emergency() {
	s.restore()
	s.restoreZones()
	s.relieveDisks()
}

// restore makes lost replicas and missing ones again.
func (s *search) restore() {
	var slots []uint32
	for i := range s.l.nodes {
		if s.l.nodes[i].Lost {
			slots = append(slots, s.l.on[i]...)
		}
	}
	for slot, n := range s.l.node {
		if n == none {
			slots = append(slots, uint32(slot))
		}
	}
	if len(slots) == 0 {
		return
	}
	slots = slices.DeleteFunc(slots, func(x uint32) bool { return !s.movable(x) })
	slices.SortFunc(slots, func(a, b uint32) int {
		return cmp.Or(cmp.Compare(s.left(a), s.left(b)), s.l.bySize(a, b))
	})
	why := s.reason("the group has too few replicas")
	for _, slot := range slots {
		if !s.room() {
			return
		}
		s.least[Emergency] += s.l.bytes[s.l.of[slot]]
		if s.left(slot) == 0 {
			s.giveUp(s.l.node[slot], slot, "no replica is left to copy from")
			continue
		}
		s.rehome(slot, why, true)
	}
}

// left is how many full replicas the slot's group has that are not lost.
func (s *search) left(slot uint32) int {
	g, n := s.l.of[slot], 0
	for o := s.l.first[g]; o < s.l.first[g+1]; o++ {
		if x := s.l.node[o]; x != none && !s.l.nodes[x].Lost && s.l.flags[o]&slotLogOnly == 0 {
			n++
		}
	}
	return n
}

// rehome puts a slot's replica onto the receiver that suits best; it reports
// whether there was one. A lost replica holds no mastership any more: if it seems
// to, somebody else gets it first, as with any that is moved.
func (s *search) rehome(slot uint32, why int32, zones bool) bool {
	to := s.bestReceiver(slot, zones)
	if to == none {
		s.giveUp(s.l.node[slot], slot, s.whyNowhere(slot))
		return false
	}
	s.shift(slot, to, why)
	return true
}

// bestReceiver finds the node that may take the slot's replica and whose
// penalty grows least, among the emptiest that fit; with zones those that bring
// the group a zone it lacks come first.
func (s *search) bestReceiver(slot uint32, zones bool) int32 {
	v := s.l.carried(slot)
	best, bestCost, found, bestZones := int32(none), 0.0, 0, 0
	g := int(s.l.of[slot])
	need := min(s.l.wanted(g), s.zones)
	for _, n := range s.orders[byKey].nodes {
		if s.fits(slot, n) != allowed {
			continue
		}
		have := 0
		if zones {
			count, _ := s.l.zoneCount(g, slot, n)
			have = min(need, count)
		}
		if cost := s.change(n, &v, 1); best == none || have > bestZones || have == bestZones && cost < bestCost {
			best, bestCost, bestZones = n, cost, have
		}
		if found++; found >= looks && bestZones == need || !zones && found >= looks {
			break
		}
	}
	return best
}

// restoreZones moves a replica of each group that is in fewer zones than it
// could be.
func (s *search) restoreZones() {
	why := s.reason("the group is in too few zones")
	for g := range s.l.id {
		need := min(s.l.wanted(g), s.zones)
		have, _ := s.l.zoneCount(g, none32, none)
		for have < need && !s.l.busy[g] && s.room() {
			slot, to := s.zoneStep(g, have)
			if to == none {
				s.giveUp(none, s.l.first[g], fmt.Sprintf("the group stays in %d zones of %d", have, need))
				break
			}
			s.least[Emergency] += s.l.bytes[g]
			s.shift(slot, to, why)
			have++
		}
	}
}

// zoneStep finds a replica whose move brings the group one zone more, rather
// not the master's.
func (s *search) zoneStep(g, have int) (uint32, int32) {
	for _, master := range []bool{false, true} {
		for slot := s.l.first[g]; slot < s.l.first[g+1]; slot++ {
			if s.l.node[slot] == none || !s.movable(slot) || (s.l.masterSlot(g) == int(slot)) != master {
				continue
			}
			for _, n := range s.orders[byKey].nodes {
				if count, _ := s.l.zoneCount(g, slot, n); count > have && s.fits(slot, n) == allowed {
					return slot, n
				}
			}
		}
	}
	return none32, none
}

// relieveDisks moves the largest replicas off disks that are about to be full,
// until they are no fuller than a receiver may be.
func (s *search) relieveDisks() {
	for i := range s.l.nodes {
		c := float64(s.l.nodes[i].Capacity[DimBytes])
		if s.l.nodes[i].Lost || c <= 0 || float64(s.l.use[i][DimBytes]) <= s.cfg.DiskFull*c {
			continue
		}
		s.least[Emergency] += int64(float64(s.l.use[i][DimBytes]) - s.cfg.DiskHigh*c)
		why := s.reason(fmt.Sprintf("the disk of %s is %.0f %% full", s.l.nodes[i].ID, 100*float64(s.l.use[i][DimBytes])/c))
		slots := slices.Clone(s.l.on[i])
		slices.SortFunc(slots, s.l.bySize)
		for _, slot := range slots {
			if float64(s.l.use[i][DimBytes]) <= s.cfg.DiskHigh*c || !s.room() {
				break
			}
			if s.movable(slot) {
				s.rehome(slot, why, false)
			}
		}
	}
}

// drain takes leaving nodes out: first every mastership, which costs nothing and
// makes the rest unnoticeable, then every replica, the largest first.
func (s *search) drain() {
	for i := range s.l.nodes {
		if n := &s.l.nodes[i]; n.Leaving && !n.Lost {
			s.passMasters(int32(i), s.reason(fmt.Sprintf("%s is leaving", n.ID)))
		} else if n.Closed && !n.Lost {
			s.passMasters(int32(i), s.reason(fmt.Sprintf("%s is to be nobody's master", n.ID)))
		}
	}
	for i := range s.l.nodes {
		if n := &s.l.nodes[i]; !n.Leaving || n.Lost {
			continue
		}
		why := s.reason(fmt.Sprintf("%s is leaving", s.l.nodes[i].ID))
		s.least[Draining] += s.l.use[i][DimBytes]
		slots := slices.Clone(s.l.on[i])
		slices.SortFunc(slots, s.l.bySize)
		for _, slot := range slots {
			if !s.room() {
				return
			}
			switch {
			case s.l.flags[slot]&slotLogOnly != 0: // goes when the one it stands in for is back
			case s.l.busy[s.l.of[slot]]:
				s.giveUp(int32(i), slot, "something structural is under way; it follows when that is done")
			default:
				s.rehome(slot, why, false)
			}
		}
	}
}

// passMasters hands every mastership on a node to the member whose node it
// burdens least. Where there is none, the mastership goes with the replica.
func (s *search) passMasters(n int32, why int32) {
	slots := slices.Clone(s.l.on[n])
	slices.SortFunc(slots, s.l.bySize)
	for _, slot := range slots {
		g := int(s.l.of[slot])
		if s.l.masterSlot(g) != int(slot) || s.l.busy[g] || !s.room() {
			continue
		}
		v := s.l.led(g)
		best, bestCost := uint32(none32), 0.0
		for o := s.l.first[g]; o < s.l.first[g+1]; o++ {
			if o == slot || !s.leads(o) {
				continue
			}
			if cost := s.change(s.l.node[o], &v, 1); best == none32 || cost < bestCost {
				best, bestCost = o, cost
			}
		}
		if best != none32 {
			s.transfer(best, why)
		}
	}
}
