package partition

import (
	"math/bits"
	"slices"
)

// What a configuration stands is found by trying every set of its voters: there
// are at most MaxMembers of them, and the predicate decides, so the answer is
// true for every policy and layout of zones.

// sets are the voters of a configuration as bit masks: bit i is Members[i].
type sets struct {
	m     *Membership
	votes uint32 // who counts
	full  uint32 // who counts and may be master
	zones []zoneSet
}

// zoneSet is a zone with a voter.
type zoneSet struct {
	name  string
	votes uint32
}

func newSets(m *Membership) *sets {
	s := &sets{m: m}
	for i := range m.Members {
		x := &m.Members[i]
		if !x.counts() {
			continue
		}
		s.votes |= 1 << i
		if x.Kind == Full {
			s.full |= 1 << i
		}
		at := slices.IndexFunc(s.zones, func(z zoneSet) bool { return z.name == x.Zone })
		if at < 0 {
			at = len(s.zones)
			s.zones = append(s.zones, zoneSet{name: x.Zone})
		}
		s.zones[at].votes |= 1 << i
	}
	return s
}

// durable is Membership.Durable of a set.
func (s *sets) durable(set uint32) bool {
	set &= s.votes
	switch s.m.Policy.Rule {
	case Majority:
		return 2*s.weight(set) > s.weight(s.votes)
	case Zones:
		n := 0
		for _, z := range s.zones {
			if z.votes&set != 0 {
				n++
			}
		}
		return n >= int(s.m.Policy.Zones)
	case AllInSync:
		return set != 0 && set == s.votes
	}
	return false
}

func (s *sets) weight(set uint32) (sum int) {
	for ; set != 0; set &= set - 1 {
		sum += s.m.Members[bits.TrailingZeros32(set)].weight()
	}
	return sum
}

// failover reports whether the set suffices to fail over: whoever is not in it
// cannot have committed without it.
func (s *sets) failover(set uint32) bool { return !s.durable(s.votes &^ set) }

// serves reports whether the set can elect a master and commit.
func (s *sets) serves(set uint32) bool {
	return set&s.full != 0 && s.durable(set) && s.failover(set)
}

// loses returns how many of the given sets, whichever, can be taken out of up
// while ok holds for the rest; -1 if it does not hold even for up.
func loses(up uint32, parts []uint32, ok func(uint32) bool) int {
	if !ok(up) {
		return -1
	}
	least := len(parts)
	for pick := range uint32(1) << len(parts) {
		n := bits.OnesCount32(pick)
		if n > least {
			continue
		}
		if !ok(up &^ union(parts, pick)) {
			least = n - 1
		}
	}
	return least
}

func union(parts []uint32, pick uint32) (all uint32) {
	for ; pick != 0; pick &= pick - 1 {
		all |= parts[bits.TrailingZeros32(pick)]
	}
	return all
}

// each divides a set into its members.
func each(set uint32) []uint32 {
	var parts []uint32
	for ; set != 0; set &= set - 1 {
		parts = append(parts, set&-set)
	}
	return parts
}

// eachZone divides a set by zones.
func (s *sets) eachZone(set uint32) []uint32 {
	var parts []uint32
	for _, z := range s.zones {
		if z.votes&set != 0 {
			parts = append(parts, z.votes&set)
		}
	}
	return parts
}

func (s *sets) mask(up func(ReplicaID) bool) (set uint32) {
	for i := range s.m.Members {
		if up(s.m.Members[i].Replica) {
			set |= 1 << i
		}
	}
	return set & s.votes
}

// CanLose returns how many more of the voters in up may fail at once, whichever
// they are, while the rest can still elect a master and commit: -1 if they
// cannot even now.
func (m *Membership) CanLose(up func(ReplicaID) bool) int {
	s := newSets(m)
	set := s.mask(up)
	return loses(set, each(set), s.serves)
}

// CanLoseZones is CanLose for whole zones.
func (m *Membership) CanLoseZones(up func(ReplicaID) bool) int {
	s := newSets(m)
	set := s.mask(up)
	return loses(set, s.eachZone(set), s.serves)
}

// Serves reports whether the members in up can elect a master and commit.
func (m *Membership) Serves(up func(ReplicaID) bool) bool {
	s := newSets(m)
	return s.serves(s.mask(up))
}

// CanLose is the least of every active configuration: each must hold.
func (c Configurations) CanLose(up func(ReplicaID) bool) int {
	least := -1
	for i, m := range c {
		if n := m.CanLose(up); i == 0 || n < least {
			least = n
		}
	}
	return least
}

// Missing says in words who is missing, if the members in up cannot serve, and
// nothing if they can.
func (c Configurations) Missing(up func(ReplicaID) bool) string {
	for i := len(c) - 1; i >= 0; i-- {
		if why := c[i].Missing(up); why != "" {
			return why
		}
	}
	return ""
}
