package placement

import (
	"fmt"
	"slices"

	"pando.dev/pando/partition"
)

const (
	levelSlots   = 24    // replicas weighed for one step of leveling
	levelTargets = 6     // receivers weighed for each
	levelLooks   = 64    // receivers looked at for each
	levelThings  = 20000 // replicas times receivers weighed before a node is given up
	transferCost = 0.05  // of what moving a mean replica costs
	leastGain    = 1e-9  // less is noise of the arithmetic
)

// action is a step of leveling that is being weighed.
type action struct {
	slot  uint32
	to    int32
	lead  bool // a transfer
	value float64
}

// level brings nodes that carry more than High down to Low: always the fullest
// first, always the step that brings the sum of penalties down most for its
// cost. It ends, because the sum falls with every step and no replica moves twice.
func (s *search) level() {
	hot := s.givers()
	meanBytes := s.meanBytes()
	why := map[int32]int32{}
	for i := range hot {
		if d := s.worstDim(int32(i)); hot[i] {
			text := fmt.Sprintf("%s has %.2f times its share of %s", s.l.nodes[i].ID, s.part(int32(i), d), d)
			why[int32(i)] = s.reason(text)
		}
		if inv := s.inv[i][DimBytes]; hot[i] && s.active[DimBytes] && inv > 0 {
			s.least[Leveling] += int64(max(0, float64(s.l.use[i][DimBytes])-s.cfg.Low/inv))
		}
	}
	stuck := make([]bool, len(hot))
	for s.room() {
		from := s.hottest(hot)
		if from == none {
			return
		}
		a := s.bestAction(from, meanBytes, levelSlots)
		if a.slot == none32 {
			a = s.bestAction(from, meanBytes, len(s.l.on[from]))
		}
		switch {
		case a.slot == none32:
			hot[from], stuck[from] = false, true
			continue
		case a.lead:
			a.to = s.l.node[a.slot]
			s.transfer(a.slot, why[from])
		default:
			s.shift(a.slot, a.to, why[from])
		}
		if n := a.to; s.key(n) > s.cfg.High && !hot[n] && !stuck[n] && !s.l.nodes[n].New {
			// A large piece helped one and was much for the other: it passes small ones on.
			hot[n], why[n] = true, s.reason(fmt.Sprintf("%s makes room for what came from %s", s.l.nodes[n].ID, s.l.nodes[from].ID))
		}
	}
}

// givers marks the nodes that may give.
func (s *search) givers() []bool {
	hot := make([]bool, len(s.l.nodes))
	for i := range hot {
		if !s.l.nodes[i].open() || s.l.nodes[i].New {
			continue
		}
		if s.cfg.Hot != nil {
			hot[i] = slices.Contains(s.cfg.Hot, s.l.nodes[i].ID)
		} else {
			hot[i] = s.key(int32(i)) > s.cfg.High
		}
	}
	return hot
}

// worstDim is the dimension that counts in which a node has most.
func (s *search) worstDim(n int32) Dim {
	worst, dim := -1.0, DimBytes
	for d := range Dims {
		if x := s.part(n, d); s.active[d] && x > worst {
			dim, worst = d, x
		}
	}
	return dim
}

func (s *search) meanBytes() float64 {
	sum, n := int64(0), int64(0)
	for i := range s.l.use {
		sum, n = sum+s.l.use[i][DimBytes], n+s.l.use[i][DimReplicas]
	}
	return max(1, float64(sum)/float64(max(1, n)))
}

// hottest finds the fullest giver that is still above Low.
func (s *search) hottest(hot []bool) int32 {
	for r := len(s.orders[byKey].nodes) - 1; r >= 0; r-- {
		n := s.orders[byKey].nodes[r]
		if s.key(n) <= s.cfg.Low {
			return none
		}
		if hot[n] {
			return n
		}
	}
	return none
}

// bestAction weighs transfers and moves of some replicas of a node.
func (s *search) bestAction(from int32, meanBytes float64, most int) action {
	best := action{slot: none32}
	list := s.l.on[from]
	n := len(list)
	if n == 0 {
		return best
	}
	at := s.next(n)
	left := levelThings
	for range min(n, most) {
		slot := list[at]
		if at++; at >= n {
			at = 0
		}
		g := int(s.l.of[slot])
		if s.l.busy[g] || s.resting(g) {
			continue
		}
		s.weighTransfers(g, slot, from, &best)
		if s.movable(slot) {
			left -= s.weighMoves(slot, from, meanBytes, &best)
		}
		if left <= 0 {
			break
		}
	}
	return best
}

// resting reports whether the group was changed for balance not long ago.
func (s *search) resting(g int) bool {
	c := partition.Time(s.l.changed[g]) * 1e9
	return c > 0 && s.cfg.Now < c+s.cfg.Cooldown
}

// weighTransfers weighs handing the mastership of a replica on the giver to each
// of the others.
func (s *search) weighTransfers(g int, slot uint32, from int32, best *action) {
	if s.l.masterSlot(g) != int(slot) || !s.active[DimLoad] && !s.active[DimMasters] {
		return
	}
	v := s.l.led(g)
	gain := s.change(from, &v, -1)
	for o := s.l.first[g]; o < s.l.first[g+1]; o++ {
		if o == slot || !s.leads(o) || s.tooMuch(from, s.l.node[o], &v) {
			continue
		}
		change := gain + s.change(s.l.node[o], &v, 1)
		if value := -change / transferCost; change < -leastGain && value > best.value {
			*best = action{slot: o, lead: true, value: value}
		}
	}
}

// weighMoves weighs moving a replica to the emptiest nodes that may have it, and
// returns how many it looked at.
func (s *search) weighMoves(slot uint32, from int32, meanBytes float64, best *action) int {
	v := s.l.carried(slot)
	gain := s.change(from, &v, -1)
	if gain >= 0 {
		return 1
	}
	cost := max(0.1, float64(v[DimBytes])/meanBytes)
	if v[DimMasters] > 0 {
		cost += transferCost
	}
	if -gain/cost <= best.value {
		return 1 // the receiver cannot make it better
	}
	found, looked, d := 0, 0, s.worstDim(from)
	for _, n := range s.orders[d].nodes {
		if looked++; looked > levelLooks || s.part(n, d) >= s.part(from, d) {
			break
		}
		if s.fits(slot, n) != allowed || s.tooMuch(from, n, &v) {
			continue
		}
		change := gain + s.change(n, &v, 1)
		if value := -change / cost; change < -leastGain && value > best.value {
			*best = action{slot: slot, to: n, value: value}
		}
		if found++; found >= levelTargets {
			break
		}
	}
	return looked
}

// tooMuch reports whether v is more than half of what the giver has more than
// the receiver in the dimension in which it has most: the load would only change
// places.
func (s *search) tooMuch(from, to int32, v *Use) bool {
	d := s.worstDim(from)
	return float64(v[d])*s.inv[to][d] > 0.5*(s.part(from, d)-s.part(to, d))+1e-9
}
