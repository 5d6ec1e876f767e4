package sim

import (
	"slices"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
	"pando.dev/pando/sim/fault"
)

// act is a request of an operator that waits for its answer.
type act struct {
	transfer bool
	to       partition.ReplicaID
	epoch    partition.Epoch // of the mastership that is handed over
	splits   partition.Kind  // a structural record, proposed by the driver of splits
	merges   bool            // by that of merges
}

// operate does what an operator does to the members of a group. It reports false
// for what cannot be done as things are. Whoever runs the groups brings up what
// was decided before.
func (w *world) operate(n *node, f *Fault) bool {
	if f.Class == fault.Drain {
		return w.drain(n, f)
	}
	gi := int(f.Arg % uint64(len(w.groups)))
	if f.Class == fault.Recover {
		return w.recovers(gi, f.ID())
	}
	w.tend(gi, f.ID())
	m := w.leader(gi, n, w.rnd.two(onOperator, f.ID(), 1))
	if m == nil {
		return false
	}
	next := m.newest().Successor()
	if !w.edit(m, n, next, f) {
		return false
	}
	m.configure(next, w.rnd.two(onOperator, f.ID(), 2)%4 == 0)
	return true
}

// leader is the replica that is asked: the one on the node that the operator has to
// do with, if it leads; else the master, or perhaps one that leads and does not serve
// yet, or that does not know that it is none any more.
func (w *world) leader(gi int, at *node, h uint64) *host {
	var leading []*host
	for _, n := range w.nodes {
		if !n.alive() {
			continue
		}
		if o := n.hosts[gi]; o != nil && o.rep != nil && o.view != nil && o.view.Master == o.replica {
			if n == at {
				return o
			}
			leading = append(leading, o)
		}
	}
	if len(leading) > 0 && h%4 == 0 {
		return leading[pick(h>>8, len(leading))]
	}
	return w.master(gi)
}

// newest is the configuration that takes effect last in the replica's log.
func (h *host) newest() *partition.Membership {
	c := h.n.disk.seen[h.gi].configs
	return c[len(c)-1].Membership
}

// configure asks the machine to change its group.
func (h *host) configure(next *partition.Membership, force bool) {
	if h.busy() {
		return // one change of the structure at a time
	}
	if h.n.w.tracing() {
		h.n.w.tracef("%s is asked for %s", h, showMembers(next))
	}
	h.take(replica.Configure{ID: h.remember(call{act: &act{}}), Membership: next, Force: force})
}

// edit makes a change, perhaps one that will be refused.
func (w *world) edit(m *host, n *node, next *partition.Membership, f *Fault) bool {
	h := w.rnd.two(onOperator, f.ID(), 3)
	x := &next.Members[pick(h>>8, len(next.Members))]
	if n != nil {
		if y, ok := next.OnNode(n.id); ok && h%2 == 0 {
			x = next.At(y.Replica)
		}
	}
	if h>>44%2 == 0 { // mostly it is about somebody who does not answer
		for i := range next.Members {
			if y := &next.Members[i]; y.Node != m.n.id && !m.n.Reachable(y.Node) {
				x = y
			}
		}
	}
	pair := w.k.SoloAfter > 0
	switch f.Class {
	case fault.AddMember:
		return w.addLearner(m.g, next, n, h)
	case fault.RemoveMember:
		return (len(next.Members) > 2 || h>>20%3 == 0) && next.Remove(x.Replica)
	case fault.ReplaceMember:
		id := x.Replica
		return w.addLearner(m.g, next, n, h) && next.Remove(id)
	case fault.SetPolicy:
		if pair && h>>24%4 > 0 {
			return w.reunite(m, next)
		}
		if next.Policy = w.drawPolicy(m.gi, 1000+f.ID()%64); pair && h>>26%2 == 0 {
			next.Policy = partition.Policy{Rule: partition.Majority} // it is to be a pair no more
		}
	case fault.ChangeMember:
		switch {
		case pair && h>>24%4 > 0:
			return w.reunite(m, next)
		case h>>28%4 < 2:
			return w.promote(m, next, h)
		case h>>28%4 == 2:
			x.Weight = uint8(1 + pick(h>>32, 3))
		default:
			x.Eligible = !x.Eligible
		}
	}
	return true
}

// promote lets learners and members out of order count, and log replicas that have
// a state be full.
func (w *world) promote(m *host, next *partition.Membership, h uint64) (did bool) {
	for i := range next.Members {
		x := &next.Members[i]
		o := w.hostOf(m.gi, x)
		if o == nil || x.Kind == partition.Full && x.Eligible {
			continue
		}
		kind := partition.Full
		if o.logOnly {
			kind = partition.LogReplica
		}
		if x.Kind == kind && x.Eligible {
			continue
		}
		x.Kind, x.Eligible, did = kind, true, true
		if mix(h^uint64(i))%2 == 0 {
			break
		}
	}
	return did
}

// reunite lets everybody count again who has caught up, after one went on alone.
func (w *world) reunite(m *host, next *partition.Membership) (did bool) {
	behind := m.rep.Status().Behind
	for i := range next.Members {
		x := &next.Members[i]
		o := w.hostOf(m.gi, x)
		if o == nil || o.logOnly || slices.Contains(behind, x.Replica) || x.Kind == partition.Full && x.Eligible {
			continue
		}
		x.Kind, x.Eligible, did = partition.Full, true, true
	}
	return did
}

// hostOf is the running replica of a member, or nil.
func (w *world) hostOf(gi int, x *partition.Member) *host {
	who, ok := w.whoIs[x.Node]
	if !ok || w.owner[who] < 0 {
		return nil
	}
	n := w.nodes[w.owner[who]]
	if !n.up || n.hosts[gi] == nil || n.hosts[gi].replica != x.Replica {
		return nil
	}
	return n.hosts[gi]
}

// addLearner adds a member on a node that has none of the group: the given one, if
// that is so.
func (w *world) addLearner(g *group, next *partition.Membership, n *node, h uint64) bool {
	free := func(n *node) bool {
		_, in := next.OnNode(n.id)
		return !in && n.disk.platter[g.ord].replica == 0 && (n.hosts == nil || n.hosts[g.ord] == nil)
	}
	if n == nil || !free(n) {
		n = nil
		for i := range w.nodes {
			if o := w.nodes[(i+pick(h>>36, len(w.nodes)))%len(w.nodes)]; free(o) {
				n = o
				break
			}
		}
	}
	if n == nil || len(next.Members) >= partition.MaxMembers {
		return false
	}
	next.Add(partition.Member{Node: n.id, Zone: n.zone, Kind: partition.Learner, Eligible: h>>40%4 > 0})
	w.settle(g, n.who)
	return true
}

// settle notes that a node may come to hold a replica of the group.
func (w *world) settle(g *group, who int) {
	if g.on(who) {
		return
	}
	g.place(who)
	for _, o := range w.nodes {
		if o.up {
			o.findPeers()
		}
	}
}

// drain takes everything on a node out of service, and back when the time is over.
func (w *world) drain(n *node, f *Fault) (did bool) {
	set := func(eligible bool) {
		for gi := range w.groups {
			m := w.master(gi)
			if m == nil {
				continue
			}
			next := m.newest().Successor()
			if x, ok := next.OnNode(n.id); ok && x.Eligible != eligible {
				next.At(x.Replica).Eligible = eligible
				m.configure(next, false)
				did = true
			}
		}
	}
	set(false)
	if did {
		w.faults.lasts(f, func() { set(true) })
	}
	return did
}

// tend does for a group what the hosts of a cluster do by themselves: it makes the
// replicas of new members, copies to those that can only be helped so, and gives
// log replicas a state.
func (w *world) tend(gi int, salt uint64) {
	h := w.rnd.of(onOperator, uint64(gi), salt, uint64(w.eng.now))
	if !w.groups[gi].born() {
		return
	}
	configs := w.check.groups[gi].configs
	m := w.master(gi)
	if m == nil {
		return
	}
	newest := configs[len(configs)-1].Membership
	for i := range newest.Members {
		x := &newest.Members[i]
		who, ok := w.whoIs[x.Node]
		if !ok || w.owner[who] < 0 {
			continue
		}
		n := w.nodes[w.owner[who]]
		c := mix(h ^ uint64(i))
		switch {
		case !n.alive():
		case n.hosts[gi] == nil && n.disk.platter[gi].replica == 0:
			w.bringUp(m, n, x.Replica, c)
		case n.hosts[gi] == nil || n.hosts[gi].replica != x.Replica || n.hosts[gi].rep == nil:
		case slices.Contains(m.rep.Status().Behind, x.Replica):
			n.hosts[gi].copyAgain(m, w.copySource(m, n, c))
		case n.hosts[gi].strays(m) && c>>12%2 == 0:
			w.mark("sim.copied_over_stray")
			n.hosts[gi].copyAgain(m, w.copySource(m, n, c))
		case n.hosts[gi].logOnly && c>>8%4 == 0:
			n.hosts[gi].complete(w.copySource(m, n, c))
		}
	}
}

// tendAll is tend for every group.
func (w *world) tendAll() {
	for gi := range w.groups {
		w.tend(gi, 0)
	}
}
