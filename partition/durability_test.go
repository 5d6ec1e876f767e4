package partition

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// shape is a configuration for the exhaustive check: members in random order,
// and what the predicate should say about each set of them, by definition.
type shape struct {
	m      *Membership
	counts []bool // member i counts at all
	full   []bool // member i counts and may be master
}

func (s *shape) n() int { return len(s.m.Members) }

// in returns the set of members that a mask names.
func in(mask int) func(ReplicaID) bool {
	return func(r ReplicaID) bool { return mask&(1<<(r-1)) != 0 }
}

// durable is the definition, written down once more and differently.
func (s *shape) durable(mask int) bool {
	have, all := 0, 0
	zones, missing := map[string]bool{}, false
	for i, x := range s.m.Members {
		if !s.counts[i] {
			continue
		}
		w := int(x.Weight)
		if w == 0 {
			w = 1
		}
		all += w
		if mask&(1<<i) != 0 {
			have += w
			zones[x.Zone] = true
		} else {
			missing = true
		}
	}
	switch s.m.Policy.Rule {
	case Majority:
		return have > all-have
	case Zones:
		return len(zones) >= int(s.m.Policy.Zones)
	}
	return all > 0 && !missing
}

// check compares one configuration and policy with the definition.
func (s *shape) check(t *testing.T, rng *rand.Rand) {
	n, m := s.n(), s.m
	size := 1 << n
	durable := make([]bool, size)
	for mask := range size {
		durable[mask] = m.Durable(in(mask))
		if durable[mask] != s.durable(mask) {
			t.Fatalf("%s: Durable(%b) is %v", s, mask, durable[mask])
		}
	}
	if durable[0] {
		t.Fatalf("%s: no members are durable", s)
	}
	var minimal, failover []int // sets without a smaller one
	valid := durable[size-1]
	for mask := range size {
		if m.CanFailover(in(mask)) == durable[(size-1)&^mask] {
			t.Fatalf("%s: CanFailover(%b) does not follow from Durable", s, mask)
		}
		least, leastFailover, hasFull := durable[mask], !durable[(size-1)&^mask], false
		for i := range n {
			if mask&(1<<i) == 0 {
				continue
			}
			less := mask &^ (1 << i)
			if durable[less] && !durable[mask] {
				t.Fatalf("%s: %b is durable and %b is not", s, less, mask)
			}
			least = least && !durable[less]
			leastFailover = leastFailover && durable[(size-1)&^less]
			hasFull = hasFull || s.full[i]
		}
		if least {
			minimal = append(minimal, mask)
		}
		if leastFailover {
			failover = append(failover, mask)
			valid = valid && hasFull
		}
	}
	for _, d := range minimal {
		for _, f := range failover {
			if d&f == 0 {
				t.Fatalf("%s: failover set %b misses durable set %b", s, f, d)
			}
		}
	}
	if got := m.Validate() == nil; got != valid {
		t.Fatalf("%s: Validate says %v, by its failover sets it is %v", s, got, valid)
	}
	s.checkLevel(t, rng, durable)
}

// checkLevel compares DurableLevel with the greatest level at which those that
// have reached it are durable.
func (s *shape) checkLevel(t *testing.T, rng *rand.Rand, durable []bool) {
	levels := make([]uint64, s.n())
	for i := range levels {
		levels[i] = uint64(rng.IntN(4))
	}
	var want uint64
	for l := uint64(1); l < 4; l++ {
		mask := 0
		for i, x := range levels {
			if x >= l {
				mask |= 1 << i
			}
		}
		if durable[mask] {
			want = l
		}
	}
	if got := s.m.DurableLevel(func(r ReplicaID) uint64 { return levels[r-1] }); got != want {
		t.Fatalf("%s: DurableLevel of %v is %d, not %d", s, levels, got, want)
	}
}

func (s *shape) String() string {
	out := s.m.Policy.String()
	for _, x := range s.m.Members {
		out += fmt.Sprintf(" %s:%s:%v*%d", x.Kind, x.Zone, x.Eligible, x.Weight)
	}
	return out
}

// zoneShape is what a zone has of eligible full and log replicas.
type zoneShape struct{ full, log int }

// eachZones yields the multisets of up to four zones with count members in all:
// names of zones do not matter, so the zones come in falling order.
func eachZones(count int, max zoneShape, zones []zoneShape, yield func([]zoneShape)) {
	if count == 0 {
		yield(zones)
		return
	}
	if len(zones) == 4 {
		return
	}
	for f := min(count, max.full); f >= 0; f-- {
		for l := count - f; l >= 0; l-- {
			z := zoneShape{f, l}
			if z == (zoneShape{}) || f == max.full && l > max.log {
				continue
			}
			eachZones(count-f-l, z, append(zones[:len(zones):len(zones)], z), yield)
		}
	}
}

// eachIdle yields how count members that do not count can be distributed over
// learners and the ineligible ones of each kind.
func eachIdle(count int, yield func([4]int)) {
	for a := range count + 1 {
		for b := range count - a + 1 {
			for c := range count - a - b + 1 {
				yield([4]int{a, b, c, count - a - b - c})
			}
		}
	}
}

// build makes the configuration, its members in random order.
func build(rng *rand.Rand, zones []zoneShape, idle [4]int) *shape {
	var ms []Member
	add := func(n int, k MemberKind, eligible bool, zone string) {
		for range n {
			ms = append(ms, Member{Kind: k, Eligible: eligible, Zone: zone})
		}
	}
	for i, z := range zones {
		zone := string(rune('a' + i))
		add(z.full, Full, true, zone)
		add(z.log, LogReplica, true, zone)
	}
	for i, x := range idle {
		// Somewhere: it must not matter where.
		zone := string(rune('a' + rng.IntN(4)))
		add(x, []MemberKind{Learner, Full, LogReplica, Learner}[i], i == 0, zone)
	}
	rng.Shuffle(len(ms), func(i, j int) { ms[i], ms[j] = ms[j], ms[i] })
	s := &shape{m: &Membership{Members: ms, Next: ReplicaID(len(ms) + 1)}}
	for i := range ms {
		x := &ms[i]
		x.Replica, x.Node = ReplicaID(i+1), NodeID(fmt.Sprintf("n%d", i))
		counts := x.Eligible && x.Kind != Learner
		s.counts = append(s.counts, counts)
		s.full = append(s.full, counts && x.Kind == Full)
	}
	return s
}

var allPolicies = []Policy{
	{Rule: Majority}, {Rule: Zones, Zones: 1}, {Rule: Zones, Zones: 2},
	{Rule: Zones, Zones: 3}, {Rule: Zones, Zones: 4}, {Rule: AllInSync},
}

// TestDurableExhaustive checks the predicate and its three uses for every
// configuration of up to seven members in up to four zones, with full and log
// replicas, learners and ineligible ones, under every policy.
func TestDurableExhaustive(t *testing.T) {
	most := 7
	if testing.Short() {
		most = 4
	}
	rng := rand.New(rand.NewPCG(1, 1))
	configurations := 0
	for n := 1; n <= most; n++ {
		for voters := range n + 1 {
			eachZones(voters, zoneShape{voters, voters}, nil, func(zones []zoneShape) {
				eachIdle(n-voters, func(idle [4]int) {
					s := build(rng, zones, idle)
					for _, p := range allPolicies {
						s.m.Policy = p
						s.check(t, rng)
						configurations++
					}
				})
			})
		}
	}
	t.Logf("%d configurations", configurations)
}

// TestDurableWeights does the same for all weights of up to five voters.
func TestDurableWeights(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	for n := 1; n <= 5; n++ {
		total := 1
		for range n {
			total *= 4
		}
		for code := range total {
			s := build(rng, []zoneShape{{full: n}}, [4]int{})
			s.m.Policy = Policy{Rule: Majority}
			for i, c := 0, code; i < n; i, c = i+1, c/4 {
				s.m.Members[i].Weight = uint8(c % 4)
			}
			s.check(t, rng)
		}
	}
}

// TestDurableOrder: the order of the members does not matter.
func TestDurableOrder(t *testing.T) {
	base := []Member{
		{Kind: Full, Eligible: true, Zone: "a"}, {Kind: Full, Eligible: true, Zone: "a"},
		{Kind: LogReplica, Eligible: true, Zone: "b"}, {Kind: Full, Zone: "c"},
	}
	rng := rand.New(rand.NewPCG(3, 3))
	for range 200 {
		perm := rng.Perm(len(base))
		mask := rng.IntN(1 << len(base))
		for _, p := range allPolicies {
			plain, mixed := &Membership{Policy: p}, &Membership{Policy: p}
			has := map[ReplicaID]bool{}
			for i := range base {
				x := base[i]
				x.Replica = ReplicaID(i + 1)
				has[x.Replica] = mask&(1<<i) != 0
				plain.Members = append(plain.Members, x)
			}
			for _, i := range perm {
				mixed.Members = append(mixed.Members, plain.Members[i])
			}
			in := func(r ReplicaID) bool { return has[r] }
			if plain.Durable(in) != mixed.Durable(in) || plain.CanFailover(in) != mixed.CanFailover(in) {
				t.Fatalf("%s: order %v of the members matters for %b", p, perm, mask)
			}
		}
	}
}

// TestJoint: with two active configurations each use must hold in both, and a
// failover set of both meets every durable set of either.
func TestJoint(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	all := jointShapes()
	for i := range all {
		for j := range all {
			if !testing.Short() || rng.IntN(20) == 0 {
				checkJoint(t, rng, all[i], all[j])
			}
		}
	}
	var none Configurations
	yes := func(ReplicaID) bool { return true }
	if none.Durable(yes) || none.CanFailover(yes) || none.DurableLevel(func(ReplicaID) uint64 { return 1 }) != 0 || none.Last() != nil {
		t.Error("no configuration allows something")
	}
}

// jointShapes are configurations over the members 1 to 4.
func jointShapes() []*Membership {
	var all []*Membership
	for mask := 1; mask < 16; mask++ {
		for _, p := range []Policy{{Rule: Majority}, {Rule: Zones, Zones: 2}, {Rule: AllInSync}} {
			m := &Membership{Policy: p, Next: 5}
			for i := range 4 {
				if mask&(1<<i) != 0 {
					m.Members = append(m.Members, Member{
						Replica: ReplicaID(i + 1), Node: NodeID(rune('a' + i)), Zone: string(rune('x' + i%3)),
						Kind: Full, Eligible: true,
					})
				}
			}
			all = append(all, m)
		}
	}
	return all
}

func checkJoint(t *testing.T, rng *rand.Rand, a, b *Membership) {
	c := Configurations{a, b}
	if c.Last() != b {
		t.Fatal("Last is not the last")
	}
	for s := range 16 {
		set := in(s)
		if c.Durable(set) != (a.Durable(set) && b.Durable(set)) {
			t.Fatalf("Durable(%b) of two configurations", s)
		}
		if c.CanFailover(set) != (a.CanFailover(set) && b.CanFailover(set)) {
			t.Fatalf("CanFailover(%b) of two configurations", s)
		}
		if !c.CanFailover(set) {
			continue
		}
		for d := range 16 {
			if (a.Durable(in(d)) || b.Durable(in(d))) && s&d == 0 {
				t.Fatalf("failover set %b misses %b, durable in one of two configurations", s, d)
			}
		}
	}
	levels := []uint64{0, uint64(rng.IntN(3)), uint64(rng.IntN(3)), uint64(rng.IntN(3)), uint64(rng.IntN(3))}
	level := func(r ReplicaID) uint64 { return levels[r] }
	if got, want := c.DurableLevel(level), min(a.DurableLevel(level), b.DurableLevel(level)); got != want {
		t.Fatalf("DurableLevel of two configurations is %d, not %d", got, want)
	}
}

// TestConfigurationsMember: the newest description counts.
func TestConfigurationsMember(t *testing.T) {
	a := &Membership{Members: []Member{{Replica: 1, Node: "a"}, {Replica: 2, Node: "b"}}}
	b := &Membership{Members: []Member{{Replica: 1, Node: "a", Zone: "new"}}}
	c := Configurations{a, b}
	if x, ok := c.Member(1); !ok || x.Zone != "new" {
		t.Errorf("Member(1) = %v, %v", x, ok)
	}
	if x, ok := c.Member(2); !ok || x.Node != "b" {
		t.Errorf("Member(2) = %v, %v", x, ok)
	}
	if _, ok := c.Member(3); ok {
		t.Error("Member(3) is there")
	}
}

// TestZonesBySingleNodes is LOC-4: with K of N zones durable it is wrong that
// any one node in each of N-K+1 zones may take over.
func TestZonesBySingleNodes(t *testing.T) {
	m := &Membership{Policy: Policy{Rule: Zones, Zones: 2}}
	for i, zone := range []string{"x", "x", "y", "z"} {
		m.Members = append(m.Members, Member{Replica: ReplicaID(i + 1), Zone: zone, Kind: Full, Eligible: true})
	}
	s, confirmed := in(0b0101), in(0b1010) // 1 and 3; 2 and 4
	zones := map[string]bool{}
	for _, x := range m.Members {
		if s(x.Replica) {
			zones[x.Zone] = true
		}
	}
	if len(zones) != 3-2+1 {
		t.Fatal("the wrong rule would not allow this set")
	}
	if !m.Durable(confirmed) {
		t.Fatal("the others could not have confirmed anything")
	}
	if m.CanFailover(s) {
		t.Error("members 1 and 3 may take over, without anybody who has what 2 and 4 confirmed")
	}
	if !m.CanFailover(in(0b0111)) || !m.CanFailover(in(0b1100)) {
		t.Error("all nodes of two zones may not take over")
	}
}
