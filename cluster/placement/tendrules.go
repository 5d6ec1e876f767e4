package placement

import (
	"cmp"
	"slices"

	"pando.dev/pando/partition"
)

// handOver moves the mastership away from a node that is drained, and from a
// member that does not count any more.
func (t *tending) handOver() (Step, bool) {
	self, ok := t.m.Member(t.s.Self)
	if !ok {
		return Step{}, false // the master hands over by itself
	}
	switch {
	case t.node(self.Node).Drain != InService:
		return t.transfer("its node is drained")
	case !self.Eligible || self.Kind != partition.Full:
		return t.transfer("it is not an eligible full member")
	}
	return Step{}, false
}

// transfer is the step that makes the best other member master.
func (t *tending) transfer(why string) (Step, bool) {
	var best *partition.Member
	for i := range t.m.Members {
		x := &t.m.Members[i]
		if x.Replica == t.s.Self || x.Kind != partition.Full || !x.Eligible || !t.answers(x) ||
			!t.peer(x.Replica).CaughtUp || t.node(x.Node).Drain != InService {
			continue
		}
		sick := best != nil && t.node(x.Node).Sick != t.node(best.Node).Sick
		if best == nil || sick && t.node(best.Node).Sick || !sick && t.better(x, best) {
			best = x
		}
	}
	if best == nil {
		t.miss("the mastership has to go elsewhere, for %s, but no other eligible full replica is there and caught up", why)
		return Step{}, false
	}
	return Step{Kind: Transfer, Replica: best.Replica, Node: best.Node, Why: "the master hands over: " + why}, true
}

// better orders members of which one is to stay, or to be master.
func (t *tending) better(x, y *partition.Member) bool {
	if a, b := t.isLeaving(x.Replica), t.isLeaving(y.Replica); a != b {
		return b
	}
	return t.score(x) > t.score(y)
}

func (t *tending) score(x *partition.Member) float64 {
	return Score(t.s.Group, t.node(x.Node).Node)
}

// adoptPolicy changes the group's policy to the table's.
func (t *tending) adoptPolicy() (Step, bool) {
	p := t.s.Spec.Policy
	if p.Rule == 0 || p == t.m.Policy {
		return Step{}, false
	}
	next := t.next()
	next.Policy = p
	return t.configure(next, true, "the table's policy is "+p.String())
}

// adoptZones records that nodes are in other zones than the configuration says:
// a zone counts only as recorded.
func (t *tending) adoptZones() (Step, bool) {
	all := t.withZones(t.next())
	var changed []int
	for i := range all.Members {
		if all.Members[i].Zone != t.m.Members[i].Zone {
			changed = append(changed, i)
		}
	}
	why := func(i int) string {
		return "node " + string(all.Members[i].Node) + " is in zone " + all.Members[i].Zone + " now"
	}
	switch len(changed) {
	case 0:
		return Step{}, false
	case 1:
		return t.configure(all, true, why(changed[0]))
	}
	if step, ok := t.configure(all, true, why(changed[0])+", and others moved too"); ok {
		return step, ok
	}
	for _, i := range changed {
		one := t.next()
		one.Members[i].Zone = all.Members[i].Zone
		if step, ok := t.configure(one, true, why(i)); ok {
			return step, true
		}
	}
	return Step{}, false
}

// withZones is next with the zones that the nodes are in now.
func (t *tending) withZones(next *partition.Membership) *partition.Membership {
	n := *next
	n.Members = slices.Clone(next.Members)
	for i := range n.Members {
		n.Members[i].Zone = t.zone(&n.Members[i])
	}
	return &n
}

// enterDrain makes the voters on drained nodes ineligible.
func (t *tending) enterDrain() (Step, bool) {
	for i := range t.m.Members {
		x := &t.m.Members[i]
		n := t.node(x.Node)
		if !x.Eligible || x.Kind == partition.Learner || n.Drain == InService {
			continue
		}
		next := t.next()
		if x.Kind == partition.LogReplica {
			next.Remove(x.Replica) // it is there to count
		} else {
			next.Members[i].Eligible = false
		}
		why := "node " + string(x.Node) + " is drained"
		if !n.Force && !t.serviceWithout(x) {
			t.miss("%s, but no other full replica that counts is in service", why)
			continue
		}
		if n.Force && t.allowed(next, true, false) != "" && t.allowed(next, true, true) == "" {
			return Step{Kind: Configure, Next: next, Force: true, Why: why + ", and an operator insists"}, true
		}
		if step, ok := t.configure(next, true, why); ok {
			return step, true
		}
	}
	return Step{}, false
}

// serviceWithout reports whether another full replica that counts and answers is
// on a node that stays in service: of nodes that are all stopped at once the last
// ones stay eligible, so that not a single one has all the say afterwards.
func (t *tending) serviceWithout(x *partition.Member) bool {
	return slices.ContainsFunc(t.ofKind(partition.Full), func(y *partition.Member) bool {
		return y.Replica != x.Replica && y.Eligible && t.answers(y) && t.node(y.Node).Drain == InService
	})
}

// leaveDrain makes members that are back, and have caught up, eligible again; the
// log replicas that stood in for them go with the same change.
func (t *tending) leaveDrain() (Step, bool) {
	for i := range t.m.Members {
		x := &t.m.Members[i]
		n := t.node(x.Node)
		if x.Eligible || x.Kind == partition.Learner || n.Drain != InService || t.damaged(x) {
			continue
		}
		// Without it the group survives less, so it does not wait for long.
		if !t.steady(n) {
			if n.Up {
				t.miss("node %s has come and gone before: it has to stay a while", x.Node)
			}
			continue
		}
		why := "node " + string(x.Node) + " is in service"
		if p := t.peer(x.Replica); !p.CaughtUp || x.Kind == partition.Full && !p.State {
			t.miss("%s, but replica %d has not caught up", why, x.Replica)
			continue
		}
		next := t.next()
		next.Members[i].Eligible = true
		if step, ok := t.configure(t.best(next), false, why); ok {
			return step, true
		}
	}
	return Step{}, false
}

// requested does what an operator asks for this one group.
func (t *tending) requested() (Step, bool) {
	switch r := t.s.Request; r.Kind {
	case AddReplica:
		n := t.node(r.Node)
		if _, there := t.m.OnNode(r.Node); there {
			return Step{}, false
		}
		if !n.Up || n.Drain != InService {
			t.refuse("node %s is not in service, it cannot take a replica", r.Node)
			return Step{}, false
		}
		next := t.next()
		next.Add(learnerOn(n))
		ask(next, t.s.Spec, t.target()+1)
		return t.orRefuse(next, "an operator adds a replica on node "+string(r.Node))
	case RemoveReplica:
		x, ok := t.m.Member(r.Replica)
		if !ok {
			return Step{}, false
		}
		if x.Replica == t.s.Self {
			step, ok := t.transfer("an operator removes it")
			if !ok {
				t.refuse("replica %d is the only one that can be master", x.Replica)
			}
			return step, ok
		}
		next := t.next()
		next.Remove(x.Replica)
		if x.Kind == partition.Full {
			ask(next, t.s.Spec, t.target()-1)
			next = t.withoutSurplus(next)
		}
		return t.orRefuse(next, "an operator removes the replica on node "+string(x.Node))
	}
	return Step{}, false
}

// orRefuse is the step to what an operator asks for, if it is allowed.
func (t *tending) orRefuse(next *partition.Membership, why string) (Step, bool) {
	if no := t.allowed(next, true, false); no != "" {
		t.refuse("%s: %s", why, no)
		return Step{}, false
	}
	return Step{Kind: Configure, Next: next, Why: why}, true
}

// replaceDamaged gives a member that fell silent a successor on the same node: it
// never counts again under its old id.
func (t *tending) replaceDamaged() (Step, bool) {
	for i := range t.m.Members {
		x := &t.m.Members[i]
		n := t.node(x.Node)
		if !t.damaged(x) {
			continue
		}
		next := t.next()
		next.Remove(x.Replica)
		replaced := t.s.Request.Kind == ReplaceReplica && t.s.Request.Replica == x.Replica
		if x.Kind == partition.Full && !replaced && n.Drain == InService && len(t.staying()) < t.target() {
			next.Add(learnerOn(n))
		}
		if step, ok := t.configure(next, false, "the replica on node "+string(x.Node)+" is damaged and is replaced"); ok {
			return step, true
		}
	}
	return Step{}, false
}

// promoteFull makes a member full that has the state and has caught up. Whoever
// it is to take the place of goes in the same change.
func (t *tending) promoteFull() (Step, bool) {
	full, _ := t.roles()
	for _, x := range full {
		n, p := t.node(x.Node), t.peer(x.Replica)
		switch {
		case !t.answers(x):
			t.miss("node %s does not answer, its replica %d cannot be brought up", x.Node, x.Replica)
			continue
		case !p.CaughtUp || !p.State:
			t.miss("replica %d on node %s is being brought up", x.Replica, x.Node)
			continue
		case n.Drain != InService:
			t.miss("node %s is drained, its replica %d stays a %s", x.Node, x.Replica, x.Kind)
			continue
		}
		next := t.next()
		y := next.At(x.Replica)
		y.Kind, y.Eligible = partition.Full, true
		out := t.outgoing(len(t.ofKind(partition.Full)) + 1 - t.target())
		for _, r := range out {
			if r != t.s.Self {
				next.Remove(r)
			} else if step, ok := t.transfer("its place is taken by another replica"); ok {
				return step, true
			} // else it goes when the new one can be master
		}
		if step, ok := t.configure(t.best(next), false, "the replica on node "+string(x.Node)+" has caught up"); ok {
			return step, true
		}
	}
	return Step{}, false
}

// outgoing are up to n of those that leave, the master last.
func (t *tending) outgoing(n int) []partition.ReplicaID {
	out := slices.Clone(t.leaving)
	slices.SortStableFunc(out, func(a, b partition.ReplicaID) int {
		return cmp.Compare(btoi(a == t.s.Self), btoi(b == t.s.Self))
	})
	return out[:min(max(n, 0), len(out))]
}

// promoteLog makes a learner that keeps the log a voter, in the place of members
// that are away.
func (t *tending) promoteLog() (Step, bool) {
	_, logs := t.roles()
	voters, absent := 0, t.absent()
	for _, x := range logs {
		voters += btoi(x.Kind == partition.LogReplica)
	}
	for _, x := range logs {
		if x.Kind != partition.Learner || voters >= absent || !t.answers(x) {
			continue
		}
		if !t.peer(x.Replica).CaughtUp {
			t.miss("a log replica on node %s is being brought up", x.Node)
			continue
		}
		next := t.next()
		y := next.At(x.Replica)
		y.Kind, y.Eligible = partition.LogReplica, true
		if step, ok := t.configure(next, false, "a log replica on node "+string(x.Node)+" stands in for who is away"); ok {
			return step, true
		}
	}
	return Step{}, false
}
