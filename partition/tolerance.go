package partition

import (
	"fmt"
	"math/bits"
)

// CanLose returns how many more of the members in up may fail at once, whichever
// they are, while the rest can still elect a master and commit: -1 if they
// cannot even now.
func (m *Membership) CanLose(up func(ReplicaID) bool) int {
	var mask uint32
	for i, x := range m.Members {
		if up(x.Replica) {
			mask |= 1 << i
		}
	}
	for f := range len(m.Members) + 1 {
		if !m.survives(mask, f) {
			return f - 1
		}
	}
	return len(m.Members)
}

// survives reports whether the members in mask serve after any f of them fail.
func (m *Membership) survives(mask uint32, f int) bool {
	if f > bits.OnesCount32(mask) {
		return false
	}
	if f == 0 {
		return m.serves(mask)
	}
	for i := range m.Members {
		if mask&(1<<i) != 0 && !m.survives(mask&^(1<<i), f-1) {
			return false
		}
	}
	return true
}

// serves reports whether the members in mask can elect a master and commit.
func (m *Membership) serves(mask uint32) bool {
	has := func(r ReplicaID) bool {
		for i := range m.Members {
			if m.Members[i].Replica == r {
				return mask&(1<<i) != 0
			}
		}
		return false
	}
	master := false
	for i, x := range m.Members {
		master = master || mask&(1<<i) != 0 && x.Eligible && x.Kind == Full
	}
	return master && m.Durable(has) && m.CanFailover(has)
}

// Describe says in words what the policy promises for these members.
func (m *Membership) Describe() string {
	all := func(ReplicaID) bool { return true }
	voters := 0
	for i := range m.Members {
		if m.Members[i].counts() {
			voters++
		}
	}
	lose := m.CanLose(all)
	tail := fmt.Sprintf("goes on after the loss of any %d of its nodes", lose)
	if lose == 0 {
		tail = "stops when any of its nodes is lost"
	}
	switch m.Policy.Rule {
	case Majority:
		return fmt.Sprintf("a write is on the disks of a majority of %d voters; %s", voters, tail)
	case Zones:
		zones := m.zonesHolding(all)
		return fmt.Sprintf("a write is on disks in %d of %d zones; a failover needs whoever is left outside fewer than %d zones; %s",
			m.Policy.Zones, zones, m.Policy.Zones, tail)
	case AllInSync:
		return fmt.Sprintf("a write is on the disks of all %d voters; %s", voters, tail)
	}
	return "unknown policy"
}
