package placement

import (
	"fmt"

	"pando.dev/pando/partition"
)

// The hard rules. No plan breaks one, whatever it would gain.

// refusal says which rule a step would break; 0: none.
type refusal uint8

const (
	allowed refusal = iota
	refusedNode
	refusedTwice
	refusedZones
	refusedDisk
	refusedScatter
	refusals
)

func (r refusal) String() string {
	return [...]string{
		"nothing", "the node may not receive", "a node has one replica of a group at most",
		"the group would be in too few zones", "the disk would be too full", "the node would share groups with too many others",
	}[r]
}

// movable reports whether the slot's replica may be moved in this plan.
func (s *search) movable(slot uint32) bool {
	flags := s.l.flags[slot]
	if s.cfg.planted == moveTwice {
		flags &^= slotMade
	}
	return flags == 0 && !s.l.busy[s.l.of[slot]]
}

// fits says whether the slot's replica may be on a node instead of where it
// is now, if it is anywhere.
func (s *search) fits(slot uint32, to int32) refusal {
	if !s.open[to] {
		return refusedNode
	}
	l := s.l
	g := l.of[slot]
	for o := l.first[g]; o < l.first[g+1]; o++ {
		if l.node[o] == to {
			return refusedTwice
		}
	}
	if !s.zonesFit(int(g), slot, to) && s.cfg.planted != forgetZones {
		return refusedZones
	}
	if c := l.nodes[to].Capacity[DimBytes]; c > 0 && s.cfg.planted != forgetDisk && float64(l.use[to][DimBytes]+l.bytes[g]) > s.cfg.DiskHigh*float64(c) {
		return refusedDisk
	}
	if s.cfg.Scatter > 0 && !s.scatterFits(g, slot, to) {
		return refusedScatter
	}
	return allowed
}

// zonesFit reports whether the group keeps its spread over zones: as many zones
// as are needed, and none with more than its share of the replicas, so that
// losing a zone costs as few as it can; or a spread no worse than it has.
func (s *search) zonesFit(g int, slot uint32, to int32) bool {
	l := s.l
	from := l.node[slot]
	if from != none && l.zone[from] == l.zone[to] && !l.nodes[from].Lost {
		return true
	}
	wanted := l.wanted(g)
	count, most := l.zoneCount(g, slot, to)
	if count >= min(wanted, s.zones) && most <= s.mostInZone[wanted] {
		return true
	}
	countNow, mostNow := l.zoneCount(g, none32, none)
	return (count >= min(wanted, s.zones) || count >= countNow) && (most <= s.mostInZone[wanted] || most <= mostNow)
}

// none32 stands for no slot.
const none32 = ^uint32(0)

// wanted is how many replicas the group shall have.
func (l *Layout) wanted(g int) int {
	n := 0
	for s := l.first[g]; s < l.first[g+1]; s++ {
		if l.flags[s]&slotLogOnly == 0 {
			n++
		}
	}
	return n
}

// zoneCount counts the zones that the group's full replicas are in, lost ones
// left out, if one slot were on another node, and the most in one zone.
func (l *Layout) zoneCount(g int, slot uint32, to int32) (count, most int) {
	var seen [partition.MaxMembers]int32
	var many [partition.MaxMembers]int
	for o := l.first[g]; o < l.first[g+1]; o++ {
		n := l.node[o]
		if o == slot {
			n = to
		}
		if n == none || l.flags[o]&slotLogOnly != 0 || l.nodes[n].Lost {
			continue
		}
		z := 0
		for z < count && seen[z] != l.zone[n] {
			z++
		}
		if z == count {
			seen[z] = l.zone[n]
			count++
		}
		many[z]++
		most = max(most, many[z])
	}
	return count, most
}

// leads says whether a slot may hold the mastership.
func (s *search) leads(slot uint32) bool {
	n := s.l.node[slot]
	return n != none && s.open[n] && s.l.flags[slot]&slotLogOnly == 0
}

// shares computes what part of the whole every open node should carry: by
// weight, but no zone more than it can have of one group's replicas, nor fewer
// than it must have, and no node more than one replica of each group.
func (s *search) shares() {
	l := s.l
	weight, low, high := make([]float64, len(l.zones)), make([]float64, len(l.zones)), make([]float64, len(l.zones))
	size := make([]int, len(l.zones))
	for i := range l.nodes {
		if l.nodes[i].open() {
			weight[l.zone[i]] += float64(max(1, l.nodes[i].Weight))
			size[l.zone[i]]++
		}
	}
	wanted, groups := 0.0, float64(len(l.id))
	for rf, n := range l.slotCounts {
		wanted += float64(n * rf)
		room := 0
		for _, nodes := range size {
			room += min(nodes, s.mostInZone[rf])
		}
		for z, nodes := range size {
			mine := min(nodes, s.mostInZone[rf])
			high[z] += float64(n * mine)
			low[z] += float64(n * min(mine, max(0, rf-(room-mine))))
		}
	}
	if wanted == 0 {
		wanted, groups = 1, 1
	}
	for z := range weight {
		low[z], high[z] = low[z]/wanted, high[z]/wanted
	}
	zoneShare := spread(weight, low, high, 1)
	for z := range zoneShare {
		s.shareInZone(int32(z), zoneShare[z], groups/wanted)
	}
}

func (s *search) shareInZone(z int32, total, most float64) {
	var nodes []int
	var weight, low, high []float64
	for i := range s.l.nodes {
		if s.l.zone[i] == z && s.l.nodes[i].open() {
			nodes = append(nodes, i)
			weight = append(weight, float64(max(1, s.l.nodes[i].Weight)))
			low, high = append(low, 0), append(high, most)
		}
	}
	for j, x := range spread(weight, low, high, total) {
		s.share[nodes[j]] = x
	}
}

// spread divides a total by weight, each part within its bounds. If the bounds
// leave no way, by weight alone.
func spread(weight, low, high []float64, total float64) []float64 {
	part := make([]float64, len(weight))
	fixed := make([]bool, len(weight))
	for range weight {
		left, sum := total, 0.0
		for i, w := range weight {
			if fixed[i] {
				left -= part[i]
			} else {
				sum += w
			}
		}
		if sum == 0 {
			break
		}
		excess := 0.0 // of the parts that are out of bounds: the side that weighs more is fixed
		for i, w := range weight {
			if !fixed[i] {
				part[i] = left * w / sum
				excess += max(0, part[i]-high[i]) - max(0, low[i]-part[i])
			}
		}
		any := false
		for i := range weight {
			if fixed[i] {
				continue
			}
			if part[i] > high[i]+1e-12 && excess >= 0 {
				part[i], fixed[i], any = high[i], true, true
			} else if part[i] < low[i]-1e-12 && excess < 0 {
				part[i], fixed[i], any = low[i], true, true
			}
		}
		if !any {
			break
		}
	}
	return part
}

// The scatter rule.

func (s *search) countPairs() {
	n := len(s.l.nodes)
	s.pairs, s.width = make([]uint16, n*n), make([]int32, n)
	for g := range s.l.id {
		for a := s.l.first[g]; a < s.l.first[g+1]; a++ {
			for b := s.l.first[g]; b < a; b++ {
				s.pair(s.l.node[a], s.l.node[b], 1)
			}
		}
	}
}

func (s *search) pair(a, b int32, by int) {
	if a == none || b == none {
		return
	}
	n := int32(len(s.l.nodes))
	x, y := &s.pairs[a*n+b], &s.pairs[b*n+a]
	if *x == 0 || by < 0 && *x == 1 {
		s.width[a] += int32(by)
		s.width[b] += int32(by)
	}
	*x = uint16(int(*x) + by)
	*y = *x
}

// repair counts the pairs of a slot's node with the group's others, by 1 or -1.
func (s *search) repair(g int, slot uint32, by int) {
	if s.cfg.Scatter == 0 {
		return
	}
	for o := s.l.first[g]; o < s.l.first[g+1]; o++ {
		if o != slot {
			s.pair(s.l.node[slot], s.l.node[o], by)
		}
	}
}

// scatterFits reports whether no node comes to share groups with more others
// than allowed.
func (s *search) scatterFits(g, slot uint32, to int32) bool {
	l := s.l
	n := int32(len(l.nodes))
	fresh := int32(0)
	for o := l.first[g]; o < l.first[g+1]; o++ {
		other := l.node[o]
		if o == slot || other == none || s.pairs[to*n+other] > 0 {
			continue
		}
		freed := int32(0) // the pair that ends with the move makes room
		if from := l.node[slot]; from != none && s.pairs[from*n+other] == 1 {
			freed = 1
		}
		if s.width[other]+1-freed > int32(s.cfg.Scatter) {
			return false
		}
		fresh++
	}
	return fresh == 0 || s.width[to]+fresh <= int32(s.cfg.Scatter)
}

// give up on something, once for each node and reason.
func (s *search) giveUp(n int32, slot uint32, why string) {
	id := partition.NodeID("")
	if n != none {
		id = s.l.nodes[n].ID
	}
	for i := range s.impossible {
		if x := &s.impossible[i]; x.Node == id && x.Why == why {
			x.Count++
			return
		}
	}
	x := Impossible{Node: id, Why: why, Count: 1}
	if slot != none32 {
		x.Group = s.l.id[s.l.of[slot]]
	}
	s.impossible = append(s.impossible, x)
}

// whyNowhere says why no node can take a slot's replica: the rules, by how many
// of the open nodes each rules out.
func (s *search) whyNowhere(slot uint32) string {
	var count [refusals]int
	for _, n := range s.orders[byKey].nodes {
		count[s.fits(slot, n)]++
	}
	if len(s.orders[byKey].nodes) == 0 {
		return "no node may receive"
	}
	text := fmt.Sprintf("none of %d nodes can take it", len(s.orders[byKey].nodes))
	for r := refusedTwice; r < refusals; r++ {
		if count[r] > 0 {
			text += fmt.Sprintf("; %d: %s", count[r], r)
		}
	}
	return text
}
