package placement

import (
	"cmp"
	"math"
	"slices"

	"pando.dev/pando/partition"
)

// wanted is how many full replicas a group shall have: what an operator asked for
// this one group, as long as the table's number is still what it was then, or the
// table's number.
func wanted(m *partition.Membership, s Spec) int {
	if a := m.Asked; a.Replicas > 0 && int(a.Instead) == s.Replicas {
		return int(a.Replicas)
	}
	return min(max(s.Replicas, 1), partition.MaxMembers)
}

// ask writes an operator's number of replicas into the configuration.
func ask(next *partition.Membership, s Spec, replicas int) {
	next.Asked = partition.Asked{}
	if replicas != s.Replicas {
		next.Asked = partition.Asked{Replicas: uint8(min(max(replicas, 1), partition.MaxMembers)), Instead: uint8(min(s.Replicas, math.MaxUint8))}
	}
}

// learnerOn is a new member on the node.
func learnerOn(n NodeState) partition.Member {
	return partition.Member{Node: n.ID, Zone: n.Zone, Kind: partition.Learner, Eligible: true}
}

// candidates are the nodes that may take a replica.
func (t *tending) candidates() []NodeState {
	var out []NodeState
	for _, n := range t.s.Nodes {
		if _, there := t.m.OnNode(n.ID); !there && n.Drain == InService && t.steady(n) {
			out = append(out, n)
		}
	}
	return out
}

// pick chooses up to k nodes: each from a zone that has fewest of those given and
// chosen so far, and there the one with the best score.
func (t *tending) pick(k int, zones []string) []NodeState {
	left := t.candidates()
	zones = slices.Clone(zones)
	inZone := func(zone string) (n int) {
		for _, z := range zones {
			n += btoi(z == zone)
		}
		return n
	}
	var out []NodeState
	for len(out) < k && len(left) > 0 {
		best := slices.MinFunc(left, func(a, b NodeState) int {
			return cmp.Or(
				cmp.Compare(inZone(a.Zone), inZone(b.Zone)),
				cmp.Compare(Score(t.s.Group, b.Node), Score(t.s.Group, a.Node)),
				cmp.Compare(a.ID, b.ID))
		})
		out = append(out, best)
		zones = append(zones, best.Zone)
		left = slices.DeleteFunc(left, func(n NodeState) bool { return n.ID == best.ID })
	}
	return out
}

// voterZones are the zones of the voters that count and answer.
func (t *tending) voterZones() []string {
	var out []string
	for i := range t.m.Members {
		if x := &t.m.Members[i]; x.Kind != partition.Learner && x.Eligible && t.answers(x) {
			out = append(out, t.zone(x))
		}
	}
	return out
}

// misplaced is a full replica that shares its zone with another while a zone that
// could hold it has none. Only a policy that counts zones moves replicas for that:
// elsewhere whoever made the table may have chosen the nodes.
func (t *tending) misplaced() (partition.ReplicaID, bool) {
	if t.s.Spec.Policy.Rule != partition.Zones || len(t.leaving) > 0 {
		return 0, false
	}
	fulls := t.ofKind(partition.Full)
	// First things first: who is away, and the stand-ins.
	if len(fulls) != t.target() || len(t.ofKind(partition.LogReplica)) > 0 ||
		slices.ContainsFunc(fulls, func(x *partition.Member) bool { return !x.Eligible || !t.answers(x) }) {
		return 0, false
	}
	var held, open []string
	for _, x := range fulls {
		held = append(held, t.zone(x))
	}
	for _, x := range t.ofKind(partition.Learner) {
		if !t.isGuest(x) {
			open = append(open, t.zone(x))
		}
	}
	for _, n := range t.candidates() {
		open = append(open, n.Zone)
	}
	if !slices.ContainsFunc(open, func(z string) bool { return !slices.Contains(held, z) }) {
		return 0, false
	}
	worst := t.worst(t.m)
	x, ok := t.m.Member(worst)
	shared := 0
	for _, z := range held {
		shared += btoi(z == t.zone(&x))
	}
	return worst, ok && shared > 1
}
