package placement

import (
	"cmp"
	"slices"

	"pando.dev/pando/partition"
)

// byKey is the ordering by the greatest part of all dimensions that count.
const byKey = Dims

// ranking is an order of the open nodes that is kept while they change.
type ranking struct {
	nodes []int32
	place []int32 // of each node
}

// search is the making of one plan.
type search struct {
	l   *Layout
	cfg PlanConfig

	mode       Mode
	steps      []step
	pretended  int // how many of the steps are not the plan's own
	moved      [Modes]int64
	least      [Modes]int64
	impossible []Impossible
	full       bool
	reasons    []string
	refreshed  int // steps there were at the last refresh

	open   []bool    // of each node: may receive
	share  []float64 // of each node: its part of the whole, in every dimension; 0: none
	active [Dims]bool
	inv    [][Dims]float64      // of each node: 1 over what it should carry; 0: does not count
	parts  [][byKey + 1]float64 // of each node: the part it has in each dimension, and the greatest of those that count
	orders [byKey + 1]ranking   // the open nodes by rising part
	zones  int                  // how many zones may receive or keep
	// mostInZone is, for each number of replicas, how many one zone has at most
	// where they are spread most evenly.
	mostInZone [partition.MaxMembers + 1]int
	pairs      []uint16 // with Scatter: how many groups two nodes share
	width      []int32  // with Scatter: with how many nodes each shares groups
	dice       uint64
}

// step is something done to the layout: a slot put elsewhere or a mastership
// handed over, with what it takes to undo it.
type step struct {
	kind   OperatorKind
	mode   Mode
	slot   uint32 // OpTransfer: the slot that gets the mastership
	why    int32
	from   int32 // node
	to     int32
	at     uint32              // place in from's list
	was    partition.ReplicaID // id of the replica that went
	master int8                // offset of the master before
}

func newSearch(l *Layout, cfg PlanConfig) *search {
	s := &search{l: l, cfg: cfg, dice: 0x9e3779b97f4a7c15}
	n := len(l.nodes)
	s.open, s.share, s.parts = make([]bool, n), make([]float64, n), make([][byKey + 1]float64, n)
	s.inv = make([][Dims]float64, n)
	var open []int32
	for i := range l.nodes {
		if s.open[i] = l.nodes[i].open(); s.open[i] {
			open = append(open, int32(i))
		}
		s.open[i] = s.open[i] || cfg.planted == giveToLeaving && l.nodes[i].Leaving
	}
	for k := range s.orders {
		s.orders[k] = ranking{nodes: slices.Clone(open), place: make([]int32, n)}
	}
	s.zones = s.keptZones()
	if cfg.Scatter > 0 {
		s.countPairs()
	}
	s.shares()
	s.refresh()
	return s
}

// keptZones counts the zones of the nodes that stay, and computes how evenly
// groups can be spread over them.
func (s *search) keptZones() int {
	size := make([]int, len(s.l.zones))
	count := 0
	for i := range s.l.nodes {
		n := &s.l.nodes[i]
		if z := s.l.zone[i]; !n.Leaving && !n.Lost {
			if size[z]++; size[z] == 1 {
				count++
			}
		}
	}
	for rf := range s.mostInZone {
		for most := 1; most <= rf; most++ {
			s.mostInZone[rf] = most
			room := 0
			for _, nodes := range size {
				room += min(nodes, most)
			}
			if room >= rf {
				break
			}
		}
	}
	return count
}

// refresh computes anew what follows from the sums: which dimensions count, what
// every node should carry, and the order of the receivers.
func (s *search) refresh() {
	s.refreshed = len(s.steps)
	var total, peak Use
	capped, uncapped := [Dims]float64{}, [Dims]bool{}
	for i := range s.l.nodes {
		n, u := &s.l.nodes[i], &s.l.use[i]
		if n.Closed && !n.Leaving {
			total[DimMasters] += u[DimMasters] // only this is going to leave it
		} else {
			total.add(u)
		}
		for d := range u {
			peak[d] = max(peak[d], u[d])
			if n.Capacity[d] <= 0 {
				uncapped[d] = true
			} else if !n.Lost {
				capped[d] = max(capped[d], float64(u[d])/float64(n.Capacity[d]))
			}
		}
	}
	for d := range s.active {
		s.active[d] = peak[d] > 0 && (uncapped[d] || capped[d] > s.cfg.ActiveAbove)
	}
	// A count stands in for what is not measured or does not matter yet.
	s.active[DimReplicas] = s.active[DimReplicas] && !s.active[DimBytes]
	s.active[DimMasters] = s.active[DimMasters] && !s.active[DimLoad]
	if s.cfg.Active != nil {
		s.active = *s.cfg.Active
	}
	for i := range s.inv {
		for d := range s.inv[i] {
			s.inv[i][d] = 0
			if goal := float64(total[d]) * s.share[i]; goal > 0 {
				s.inv[i][d] = 1 / goal
			}
		}
		s.rekey(int32(i))
	}
	for k := range s.orders {
		o := &s.orders[k]
		if k != int(byKey) && !s.active[k] {
			continue // nobody looks at it
		}
		slices.SortFunc(o.nodes, func(a, b int32) int { return cmp.Or(cmp.Compare(s.parts[a][k], s.parts[b][k]), cmp.Compare(a, b)) })
		for r, n := range o.nodes {
			o.place[n] = int32(r)
		}
	}
}

// part is what a node carries of what it should.
func (s *search) part(n int32, d Dim) float64 { return s.parts[n][d] }

// key is the greatest part of a node in a dimension that counts.
func (s *search) key(n int32) float64 { return s.parts[n][byKey] }

func (s *search) rekey(n int32) {
	p, k := &s.parts[n], 0.0
	for d := range Dims {
		p[d] = float64(s.l.use[n][d]) * s.inv[n][d]
		if s.active[d] {
			k = max(k, p[d])
		}
	}
	p[byKey] = k
}

// reorder puts a node back into its places in the orders after its sums changed.
func (s *search) reorder(n int32) {
	s.rekey(n)
	if !s.l.nodes[n].open() {
		return
	}
	for k := range s.orders {
		if k == int(byKey) || s.active[k] {
			s.orders[k].move(n, s.parts, k)
		}
	}
}

// move puts a node into its place among the others, which are in order.
func (o *ranking) move(n int32, parts [][byKey + 1]float64, k int) {
	r, part := o.place[n], parts[n][k]
	for ; r+1 < int32(len(o.nodes)) && parts[o.nodes[r+1]][k] < part; r++ {
		o.nodes[r] = o.nodes[r+1]
		o.place[o.nodes[r]] = r
	}
	for ; r > 0 && parts[o.nodes[r-1]][k] > part; r-- {
		o.nodes[r] = o.nodes[r-1]
		o.place[o.nodes[r]] = r
	}
	o.nodes[r], o.place[n] = n, r
}

func (s *search) balance() Balance {
	b := Balance{Active: s.active}
	for i := range s.l.nodes {
		for d := range Dims {
			b.Max[d] = max(b.Max[d], s.part(int32(i), d))
		}
	}
	return b
}

// penalty is what a node's part of its share costs: much above one, a little
// below, where it only means that others have more.
func penalty(part float64) float64 {
	over, d := max(0, part-1), part-1
	return over*over + 0.02*d*d
}

// change is how much the sum of penalties grows if a node gets v; sign -1: if
// it loses v.
func (s *search) change(n int32, v *Use, sign float64) float64 {
	sum := 0.0
	inv, parts := &s.inv[n], &s.parts[n]
	for d := range Dims {
		if s.active[d] && v[d] != 0 {
			part := parts[d]
			sum += penalty(part+sign*float64(v[d])*inv[d]) - penalty(part)
		}
	}
	return sum
}

// shift puts a slot onto a node: a move, with the mastership if it is the
// master's; or an added replica if it was free.
func (s *search) shift(slot uint32, to int32, why int32) {
	l := s.l
	g := int(l.of[slot])
	x := step{kind: OpMove, mode: s.mode, slot: slot, why: why, from: l.node[slot], to: to, at: l.at[slot], was: l.replica[slot], master: l.master[g]}
	switch {
	case x.from == none:
		x.kind = OpAdd
	case l.masterSlot(g) == int(slot):
		x.kind = OpSwap
	}
	s.repair(g, slot, -1)
	if x.from != none {
		l.take(slot)
	}
	l.topReplica[g]++
	l.replica[slot] = l.topReplica[g]
	l.flags[slot] |= slotMade
	l.put(slot, to)
	s.repair(g, slot, 1)
	s.steps = append(s.steps, x)
	if x.from != none {
		s.reorder(x.from)
	}
	s.reorder(to)
	s.moved[s.mode] += l.bytes[g]
}

// transfer hands a group's mastership to a slot.
func (s *search) transfer(slot uint32, why int32) {
	l := s.l
	g := int(l.of[slot])
	x := step{kind: OpTransfer, mode: s.mode, slot: slot, why: why, from: none, to: l.node[slot], master: l.master[g]}
	if m := l.masterSlot(g); m != none {
		x.from = l.node[m]
	}
	if l.flags[slot]&slotMade == 0 {
		x.was = l.replica[slot]
	}
	l.setMaster(g, int8(slot-l.first[g]))
	s.steps = append(s.steps, x)
	if x.from != none {
		s.reorder(x.from)
	}
	s.reorder(x.to)
}

// room reports whether the plan may grow.
func (s *search) room() bool {
	s.full = s.full || len(s.steps)-s.pretended >= s.cfg.MaxOperators
	return !s.full
}

// pretend counts what is being executed as done.
func (s *search) pretend() {
	for i := range s.cfg.InFlight {
		if slot, to, ok := s.l.target(&s.cfg.InFlight[i]); ok {
			if s.cfg.InFlight[i].Kind == OpTransfer {
				s.transfer(slot, 0)
			} else {
				s.shift(slot, to, 0)
			}
		}
	}
	s.pretended, s.moved = len(s.steps), [Modes]int64{}
	for i := range s.cfg.InFlight {
		if g, ok := s.l.Find(s.cfg.InFlight[i].Group); ok && !s.l.busy[g] {
			s.l.busy[g] = true
			s.steps = append(s.steps, step{slot: s.l.first[g]})
			s.pretended++
		}
	}
}

// takeBack undoes every step, the last first.
func (s *search) takeBack() {
	l := s.l
	for i := len(s.steps) - 1; i >= 0 && s.cfg.planted != forgetUndo; i-- {
		x := &s.steps[i]
		g := int(l.of[x.slot])
		switch x.kind {
		case 0:
			l.busy[g] = false
		case OpTransfer:
			l.setMaster(g, x.master)
		default:
			l.take(x.slot)
			l.topReplica[g]--
			l.replica[x.slot] = x.was
			l.flags[x.slot] &^= slotMade
			if x.from != none {
				l.untake(x.slot, x.from, x.at)
			}
		}
	}
}

// operators writes the steps down.
func (s *search) operators() []Operator {
	l := s.l
	ops := make([]Operator, 0, len(s.steps)-s.pretended)
	id := func(n int32) partition.NodeID {
		if n == none {
			return ""
		}
		return l.nodes[n].ID
	}
	for _, x := range s.steps[s.pretended:] {
		g := l.of[x.slot]
		op := Operator{
			Kind: x.kind, Mode: x.mode, Group: l.id[g], From: id(x.from), To: id(x.to), Replica: x.was,
			Range: l.rv[g], Membership: l.mv[g], Why: s.reasons[x.why],
		}
		if x.kind.copies() {
			op.Bytes = l.bytes[g]
		}
		ops = append(ops, op)
	}
	return ops
}

// reason keeps a text once and returns its number.
func (s *search) reason(text string) int32 {
	s.reasons = append(s.reasons, text)
	return int32(len(s.reasons) - 1)
}

// next returns a number below n, from a sequence that is the same in every plan.
func (s *search) next(n int) int {
	s.dice += golden
	return int(mix(s.dice) % uint64(n))
}
