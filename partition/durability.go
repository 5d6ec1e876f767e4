package partition

import (
	"fmt"
	"strconv"
	"strings"
)

// Rule is how a Policy counts.
type Rule uint8

const (
	// Majority: more than half of the weight of the eligible voters.
	Majority Rule = 1
	// Zones: eligible voters in at least Policy.Zones different zones.
	Zones Rule = 2
	// AllInSync: every eligible voter; what a pair needs to go solo.
	AllInSync Rule = 3
)

// Policy is a group's durability policy: which sets of members make a record
// durable.
type Policy struct {
	Rule  Rule
	Zones uint8 // with Rule Zones: how many zones must hold a record
}

// String returns the policy as commands print and accept it.
func (p Policy) String() string {
	switch p.Rule {
	case Majority:
		return "majority"
	case Zones:
		return fmt.Sprintf("zones:%d", p.Zones)
	case AllInSync:
		return "all-in-sync"
	}
	return fmt.Sprintf("rule(%d)", uint8(p.Rule))
}

// ParsePolicy reads what String returns. The number of zones must be one that
// some group can have; whether a table's groups can is checked against them.
func ParsePolicy(s string) (Policy, error) {
	switch s {
	case "majority":
		return Policy{Rule: Majority}, nil
	case "all-in-sync":
		return Policy{Rule: AllInSync}, nil
	}
	bad := func(format string, args ...any) (Policy, error) {
		e := Errorf(CodeInvalid, format, args...)
		e.Next = "policies are majority, zones:K and all-in-sync"
		return Policy{}, e
	}
	count, ok := strings.CutPrefix(s, "zones:")
	if !ok {
		return bad("%.40q is not a durability policy", s)
	}
	k, err := strconv.Atoi(count)
	if err != nil || strconv.Itoa(k) != count {
		return bad("%.40q: %.20q is not a number of zones", s, count)
	}
	if k < 1 || k > MaxMembers {
		return bad("%s: a write must be in 1 to %d zones", s, MaxMembers)
	}
	return Policy{Rule: Zones, Zones: uint8(k)}, nil
}

func (p Policy) validate() error {
	if p.Rule < Majority || p.Rule > AllInSync || (p.Rule == Zones) != (p.Zones > 0) {
		return Errorf(CodeInvalid, "policy with rule %d and %d zones", p.Rule, p.Zones)
	}
	return nil
}

// Durable is the one predicate that everything about quorums follows from: do
// the members for which has is true, taken together, make a record durable?
// Only eligible voters count, the answer is monotone in the set, and no members
// are never durable.
//
//	commit:      a record is committed when the members that have it on disk are Durable
//	failover:    a candidate with supporters S may be master when the members
//	             outside S are not Durable: nobody there can have committed without S
//	read lease:  a lease is valid while the members whose grant has not run out are Durable
func (m *Membership) Durable(has func(ReplicaID) bool) bool {
	switch m.Policy.Rule {
	case Majority:
		have, all := 0, 0
		for i := range m.Members {
			x := &m.Members[i]
			if !x.counts() {
				continue
			}
			all += x.weight()
			if has(x.Replica) {
				have += x.weight()
			}
		}
		return 2*have > all
	case Zones:
		return m.zonesHolding(has) >= int(m.Policy.Zones)
	case AllInSync:
		any := false
		for i := range m.Members {
			x := &m.Members[i]
			if !x.counts() {
				continue
			}
			if !has(x.Replica) {
				return false
			}
			any = true
		}
		return any
	}
	return false
}

// zonesHolding counts the zones with an eligible voter for which has is true.
func (m *Membership) zonesHolding(has func(ReplicaID) bool) int {
	n := 0
	for i := range m.Members {
		x := &m.Members[i]
		if !x.counts() || !has(x.Replica) {
			continue
		}
		first := true
		for j := range m.Members[:i] {
			y := &m.Members[j]
			if y.Zone == x.Zone && y.counts() && has(y.Replica) {
				first = false
				break
			}
		}
		if first {
			n++
		}
	}
	return n
}

// CanFailover reports whether the given supporters suffice to become master.
func (m *Membership) CanFailover(support func(ReplicaID) bool) bool {
	return !m.Durable(func(r ReplicaID) bool { return !support(r) })
}

// DurableLevel returns the highest level that a durable set of members has
// reached, or 0: with the index that each has on disk it is the commit index,
// with the time at which each one's grant runs out it is the end of the lease.
func (m *Membership) DurableLevel(level func(ReplicaID) uint64) uint64 {
	var best uint64
	for i := range m.Members {
		if !m.Members[i].counts() {
			continue
		}
		l := level(m.Members[i].Replica)
		if l > best && m.Durable(func(r ReplicaID) bool { return level(r) >= l }) {
			best = l
		}
	}
	return best
}

// Configurations are a group's active ones: the last in its log, and the one
// before as long as the last is not known to be committed. Each of the three
// uses of Durable must hold in every one of them.
type Configurations []*Membership

// Durable reports whether the set is durable in every active configuration.
func (c Configurations) Durable(has func(ReplicaID) bool) bool {
	for _, m := range c {
		if !m.Durable(has) {
			return false
		}
	}
	return len(c) > 0
}

// CanFailover reports whether the supporters suffice in every active
// configuration.
func (c Configurations) CanFailover(support func(ReplicaID) bool) bool {
	for _, m := range c {
		if !m.CanFailover(support) {
			return false
		}
	}
	return len(c) > 0
}

// DurableLevel is the level reached in every active configuration.
func (c Configurations) DurableLevel(level func(ReplicaID) uint64) uint64 {
	if len(c) == 0 {
		return 0
	}
	lowest := c[0].DurableLevel(level)
	for _, m := range c[1:] {
		lowest = min(lowest, m.DurableLevel(level))
	}
	return lowest
}

// Member returns the newest description of a member of any active
// configuration.
func (c Configurations) Member(r ReplicaID) (Member, bool) {
	for i := len(c) - 1; i >= 0; i-- {
		if x, ok := c[i].Member(r); ok {
			return x, true
		}
	}
	return Member{}, false
}

// Last returns the configuration that takes effect last, or nil.
func (c Configurations) Last() *Membership {
	if len(c) == 0 {
		return nil
	}
	return c[len(c)-1]
}
