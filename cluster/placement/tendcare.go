package placement

import (
	"cmp"
	"slices"

	"pando.dev/pando/partition"
)

// coverAway makes a voter that is away ineligible, and begins to bring up a log
// replica in its place, if a node is left for one. It has to stop counting first:
// a log replica keeps what some eligible full voter may still need, and nobody
// knows how far one is that does not answer.
func (t *tending) coverAway() (Step, bool) {
	_, logs := t.roles()
	free := -t.absent()
	for _, x := range logs {
		free += btoi(t.answers(x))
	}
	for _, x := range t.staying() {
		n := t.node(x.Node)
		if !n.Up && !t.away(x) {
			t.miss("node %s does not answer", x.Node)
		}
		if !t.away(x) || !x.Eligible && free >= 0 {
			continue
		}
		next := t.next()
		next.At(x.Replica).Eligible = false
		why := "node " + string(x.Node) + " does not answer"
		if free < 0 {
			spare := t.pick(1, t.voterZones())
			if len(spare) == 0 {
				t.miss("%s, and no further node can hold a log replica", why)
				continue
			}
			next.Add(learnerOn(spare[0]))
			why += ", a log replica is to stand in"
		}
		if step, ok := t.configure(next, false, why); ok {
			return step, true
		}
	}
	return Step{}, false
}

// dropStale removes what helps nobody: log replicas and learners that are away
// themselves, or of which there are more than are needed.
func (t *tending) dropStale() (Step, bool) {
	full, logs := t.roles()
	drop := func(x *partition.Member, asked bool, why string) (Step, bool) {
		next := t.next()
		next.Remove(x.Replica)
		return t.configure(next, asked, why)
	}
	for _, x := range logs {
		why := ""
		switch {
		case t.away(x):
			why = "does not answer"
		case t.peer(x.Replica).Behind:
			why = "has lost the connection to the log"
		default:
			continue
		}
		if step, ok := drop(x, false, "the "+x.Kind.String()+" on node "+string(x.Node)+" "+why); ok {
			return step, true
		}
	}
	for _, x := range full {
		if t.gone(x) {
			if step, ok := drop(x, false, "the "+x.Kind.String()+" on node "+string(x.Node)+" does not answer"); ok {
				return step, true
			}
		}
	}
	// Then the table asks for no more.
	serving := t.count(func(x *partition.Member) bool { return x.Eligible && t.answers(x) })
	whole := serving >= t.target() && t.lacking() == 0
	for _, x := range t.surplus(logs) {
		if step, ok := drop(x, whole, "the "+x.Kind.String()+" on node "+string(x.Node)+" is not needed"); ok {
			return step, true
		}
	}
	return Step{}, false
}

// surplus are the stand-ins of which there are too many, those first without
// which most losses are still survived.
func (t *tending) surplus(logs []*partition.Member) []*partition.Member {
	extra := len(logs) - t.lacking()
	if extra <= 0 {
		return nil
	}
	left := make(map[partition.ReplicaID]int, len(logs))
	for _, x := range logs {
		without := t.next()
		without.Remove(x.Replica)
		left[x.Replica] = survives(without, t.up)
	}
	byUse := slices.Clone(logs)
	slices.SortStableFunc(byUse, func(a, b *partition.Member) int {
		return cmp.Or(
			cmp.Compare(left[b.Replica], left[a.Replica]),
			cmp.Compare(btoi(t.answers(a)), btoi(t.answers(b))),
			cmp.Compare(btoi(a.Kind == partition.LogReplica), btoi(b.Kind == partition.LogReplica)),
			cmp.Compare(b.Replica, a.Replica))
	})
	return byUse[:extra]
}

// withoutSurplus is next without the log replicas and learners that nobody needs
// once it is in force.
func (t *tending) withoutSurplus(next *partition.Membership) *partition.Membership {
	after := *t.s
	after.Membership = next
	u := newTending(&after)
	_, logs := u.roles()
	lean := *next
	lean.Members = slices.Clone(next.Members)
	for _, x := range u.surplus(logs) {
		lean.Remove(x.Replica)
	}
	return &lean
}

// tooMany removes full replicas beyond the target: those that leave and whose
// place is taken, then those that do least for the group. Never the master.
func (t *tending) tooMany() (Step, bool) {
	staying := t.staying()
	extra := len(staying) - t.target()
	if extra < 0 || extra == 0 && len(t.leaving) == 0 {
		return Step{}, false
	}
	next := t.next()
	for _, r := range t.leaving {
		if r == t.s.Self {
			return t.transfer("its place is taken by another replica")
		}
		next.Remove(r)
	}
	for range extra {
		next.Remove(t.worst(next))
	}
	next = t.withoutSurplus(next)
	if step, ok := t.configure(next, true, "there are more replicas than are asked for"); ok {
		return step, true
	}
	// Perhaps not all at once, or not the one that is missed least: the policy may
	// need it where it is recorded to be.
	rest := t.next()
	for _, r := range t.leaving {
		rest.Remove(r)
	}
	first := slices.Clone(t.leaving)
	for r := t.worst(rest); extra > 0 && r != 0; r = t.worst(rest) {
		first = append(first, r)
		rest.Remove(r)
	}
	for _, r := range first {
		one := t.next()
		one.Remove(r)
		if step, ok := t.configure(one, true, "there are more replicas than are asked for"); ok {
			return step, true
		}
	}
	return Step{}, false
}

// worst is the full member of m that is missed least: one that does not answer,
// does not count, is the furthest behind, shares its zone with most others, or has
// the lowest score.
func (t *tending) worst(m *partition.Membership) partition.ReplicaID {
	inZone := func(zone string) (n int) {
		for i := range m.Members {
			n += btoi(m.Members[i].Kind == partition.Full && t.zone(&m.Members[i]) == zone)
		}
		return n
	}
	var least *partition.Member
	for i := range m.Members {
		x := &m.Members[i]
		if x.Kind != partition.Full || x.Replica == t.s.Self {
			continue
		}
		if least == nil || cmp.Or(
			cmp.Compare(btoi(t.answers(x)), btoi(t.answers(least))),
			cmp.Compare(btoi(x.Eligible), btoi(least.Eligible)),
			cmp.Compare(t.cost(least), t.cost(x)),
			cmp.Compare(inZone(t.zone(least)), inZone(t.zone(x))),
			cmp.Compare(t.score(x), t.score(least))) < 0 {
			least = x
		}
	}
	if least == nil {
		return 0
	}
	return least.Replica
}

// tooFew adds learners for the full replicas that are missing.
func (t *tending) tooFew() (Step, bool) {
	full, _ := t.roles()
	need := t.target() - len(t.staying()) - len(full)
	if need <= 0 {
		return Step{}, false
	}
	var zones []string
	for _, x := range append(t.staying(), full...) {
		zones = append(zones, t.zone(x))
	}
	why := "there are fewer replicas than are asked for"
	if r := t.s.Request; r.Kind == ReplaceReplica && r.Node != "" && t.isLeaving(r.Replica) {
		if _, there := t.m.OnNode(r.Node); !there {
			n := t.node(r.Node)
			if !n.Up || n.Drain != InService {
				t.refuse("node %s is not in service, it cannot take a replica", r.Node)
				return Step{}, false
			}
			next := t.next()
			next.Add(learnerOn(n))
			return t.orRefuse(next, "an operator has a replica replaced by one on node "+string(r.Node))
		}
	}
	picked := t.pick(min(need, partition.MaxMembers-len(t.m.Members)), zones)
	if len(picked) < need {
		t.miss("%s: %d of %d, and no further node can take one", why, t.target()-need+len(picked), t.target())
	}
	if len(picked) == 0 {
		if t.s.Request.Kind == ReplaceReplica && t.refused == "" {
			t.refused = "no further node can take a replica"
		}
		return Step{}, false
	}
	next := t.next()
	for _, n := range picked {
		next.Add(learnerOn(n))
	}
	return t.configure(next, false, why)
}

// host has replicas brought up that are not there yet, or that only a copy brings
// back.
func (t *tending) host() (Step, bool) {
	full, logs := t.roles()
	for i := range t.m.Members {
		x := &t.m.Members[i]
		p := t.peer(x.Replica)
		if x.Replica == t.s.Self || !t.answers(x) {
			continue
		}
		logOnly := slices.ContainsFunc(logs, func(y *partition.Member) bool { return y.Replica == x.Replica })
		toBeFull := x.Kind == partition.Full || t.isGuest(x) || slices.ContainsFunc(full, func(y *partition.Member) bool { return y.Replica == x.Replica })
		switch {
		case p.Present && !p.Behind && (logOnly || !toBeFull || p.State):
			continue
		case !p.Present && x.Kind != partition.Learner:
			continue // its node knows whether it opens it, or has lost it
		}
		if p.Asked != 0 && p.AskedLogOnly == logOnly && !t.reached(p.Asked+t.limits.HostAgain) {
			continue
		}
		why := "it is new"
		switch {
		case p.Behind:
			why = "its next record is not in the log any more"
		case p.Present:
			why = "it is to have the state"
		}
		return Step{
			Kind: Host, Replica: x.Replica, Node: x.Node, LogOnly: logOnly, Source: t.source(x), Voter: x.Kind != partition.Learner,
			Why: "node " + string(x.Node) + " is to bring up its replica: " + why,
		}, true
	}
	return Step{}, false
}

// source is where the state is copied from: a peer in the same zone that has
// caught up, or the master.
func (t *tending) source(to *partition.Member) partition.NodeID {
	self, _ := t.m.Member(t.s.Self)
	if t.peer(to.Replica).Attempts > 1 || t.zone(&self) == t.zone(to) {
		return self.Node
	}
	for i := range t.m.Members {
		x := &t.m.Members[i]
		if p := t.peer(x.Replica); x.Replica != to.Replica && x.Kind == partition.Full && x.Eligible && t.zone(x) == t.zone(to) &&
			t.answers(x) && p.CaughtUp && p.State && !p.Behind {
			return x.Node
		}
	}
	return self.Node
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
