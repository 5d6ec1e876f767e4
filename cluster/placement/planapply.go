package placement

import (
	"slices"

	"pando.dev/pando/partition"
)

// target finds what an operator does to the layout: the slot, and the node it
// goes to. False if it cannot be done any more.
func (l *Layout) target(op *Operator) (uint32, int32, bool) {
	g, ok := l.Find(op.Group)
	to, known := l.ordinal[op.To]
	if !ok || !known {
		return 0, 0, false
	}
	there := l.slotOn(g, to)
	switch op.Kind {
	case OpTransfer:
		return uint32(max(0, there)), to, there != none
	case OpAdd:
		free := l.slotOn(g, none)
		return uint32(max(0, free)), to, free != none && there == none
	case OpMove, OpSwap:
		from, known := l.ordinal[op.From]
		if !known || there != none {
			return 0, 0, false
		}
		s := l.slotOn(g, from)
		return uint32(max(0, s)), to, s != none && (op.Replica == 0 || l.replica[s] == op.Replica)
	}
	return 0, 0, false
}

// Apply records that an operator was done, at a time. It reports whether the
// layout was as the operator presumes; if not it is unchanged. With Leveling the
// group then rests (PlanConfig.Cooldown). The new replica has the next id; if the
// group gave it another one, the caller adds the group anew or lives with the hint.
func (l *Layout) Apply(op *Operator, now partition.Time) bool {
	slot, to, ok := l.target(op)
	if !ok {
		return false
	}
	g := int(l.of[slot])
	if op.Mode == Leveling {
		l.changed[g] = uint32(max(1, now/1e9))
	}
	if op.Kind == OpTransfer {
		l.setMaster(g, int8(slot-l.first[g]))
		return true
	}
	if m := l.masterSlot(g); op.Kind == OpMove && m == int(slot) {
		// A plain move leaves the mastership with another member.
		for o := l.first[g]; o < l.first[g+1]; o++ {
			if o != slot && l.node[o] != none && l.nodes[l.node[o]].open() && l.flags[o]&slotLogOnly == 0 {
				l.setMaster(g, int8(o-l.first[g]))
				break
			}
		}
	}
	if l.node[slot] != none {
		l.take(slot)
	}
	l.topReplica[g]++
	l.replica[slot] = l.topReplica[g]
	l.put(slot, to)
	return true
}

// Judge says why an operator must not be done any more, or "": another version
// than it was planned for, a rule it would break now, or nothing left to gain.
func (l *Layout) Judge(op *Operator, cfg PlanConfig) string {
	g, ok := l.Find(op.Group)
	if !ok {
		return "the group is gone"
	}
	if l.rv[g] != op.Range || l.mv[g] != op.Membership {
		return "the group has changed since it was planned"
	}
	return NewJudge(l, cfg).Judge(op)
}

// Judge says of many operators in turn whether they are still good. What changes
// in the layout meanwhile it knows after Refresh.
type Judge struct {
	s     *search
	cfg   PlanConfig
	nodes []PlanNode // as they were
}

// NewJudge returns a judge over a layout.
func NewJudge(l *Layout, cfg PlanConfig) *Judge {
	cfg.InFlight = nil
	cfg = cfg.withDefaults()
	return &Judge{s: newSearch(l, cfg), cfg: cfg, nodes: slices.Clone(l.nodes)}
}

// Refresh brings the judge up to date. It costs a walk over the nodes, and one over
// the groups if a node has come or was marked otherwise.
func (j *Judge) Refresh() {
	if slices.Equal(j.nodes, j.s.l.nodes) {
		j.s.refresh()
	} else {
		j.s, j.nodes = newSearch(j.s.l, j.cfg), slices.Clone(j.s.l.nodes)
	}
}

// Judge says why an operator must not be done any more, apart from its versions,
// or "".
func (j *Judge) Judge(op *Operator) string {
	s, l := j.s, j.s.l
	slot, to, ok := l.target(op)
	if !ok {
		return "the group is not where it was"
	}
	if op.Kind == OpTransfer {
		if !s.leads(slot) {
			return "the receiver may not be master"
		}
		g := int(l.of[slot])
		if m := l.masterSlot(g); op.From != "" && (m == none || l.nodes[l.node[m]].ID != op.From) {
			return "somebody else is master now"
		}
		v := l.led(g)
		return j.gain(op, &v, to)
	}
	if why := s.fits(slot, to); why != allowed {
		return why.String()
	}
	v := l.carried(slot)
	return j.gain(op, &v, to)
}

// gain says whether what the operator was planned for is still so.
func (j *Judge) gain(op *Operator, v *Use, to int32) string {
	s := j.s
	from, ok := s.l.ordinal[op.From]
	switch {
	case !ok:
	case op.Mode == Draining && !s.l.nodes[from].Leaving && !s.l.nodes[from].Closed:
		return "the node no longer leaves"
	case op.Mode == Filling && !s.lacks(to, DimBytes, DimLoad, DimWritten, DimMasters, DimReplicas):
		return "the new node has its share"
	case op.Mode == Leveling && s.change(to, v, 1)+s.change(from, v, -1) >= 0 && (s.key(from) <= 1 || s.overHigh(to, v)):
		// Others of the plan may be done before it that were planned after it: a small
		// loss for the moment does not count yet.
		return "there is nothing left to gain"
	}
	return ""
}

// Balance says how even the nodes are now.
func (l *Layout) Balance(cfg PlanConfig) Balance {
	return newSearch(l, cfg.withDefaults()).balance()
}

// overHigh reports whether v would bring a node above High.
func (s *search) overHigh(n int32, v *Use) bool {
	for d := range Dims {
		if s.active[d] && v[d] > 0 && (float64(s.l.use[n][d])+float64(v[d]))*s.inv[n][d] > s.cfg.High {
			return true
		}
	}
	return false
}

// Request is what the tender of the operator's group is asked for, with Tend. A
// transfer is none of Tend's requests: the group's master is told directly, and
// for OpSwap a second time, towards To, when the replacement is done.
func (o *Operator) Request() Request {
	switch o.Kind {
	case OpMove, OpSwap:
		return Request{Kind: ReplaceReplica, Node: o.To, Replica: o.Replica}
	case OpAdd:
		return Request{Kind: AddReplica, Node: o.To}
	}
	return Request{}
}

// SetMembers says which members a group has now and who is master (0: nobody),
// after a change that no operator made or under ids that the group chose. It
// reports whether the layout had room: if not nothing is changed, and the layout
// has to be built anew.
func (l *Layout) SetMembers(g int, members []PlanMember, master partition.ReplicaID) bool {
	first := l.first[g]
	if len(members) == 0 || len(members) > int(l.first[g+1]-first) {
		return false
	}
	for i, m := range members {
		if _, ok := l.ordinal[m.Node]; !ok || slices.ContainsFunc(members[:i], func(o PlanMember) bool { return o.Node == m.Node || o.Replica == m.Replica }) {
			return false
		}
	}
	l.setMaster(g, none)
	for s := first; s < l.first[g+1]; s++ {
		if l.node[s] != none {
			l.take(s)
		}
		l.replica[s], l.flags[s] = 0, 0
	}
	for o, m := range members {
		s := first + uint32(o)
		if l.replica[s] = m.Replica; m.LogOnly {
			l.flags[s] = slotLogOnly
		}
		l.topReplica[g] = max(l.topReplica[g], m.Replica)
		l.put(s, l.ordinal[m.Node])
		if master != 0 && m.Replica == master {
			l.setMaster(g, int8(o))
		}
	}
	return true
}
