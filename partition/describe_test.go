package partition

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// as parses "a b/log c/out d/new": a zone per member, with what is special.
func as(policy, members string) *Membership {
	p, err := ParsePolicy(policy)
	if err != nil {
		panic(err)
	}
	m := &Membership{Version: 1, Policy: p}
	for i, f := range strings.Fields(members) {
		zone, what, _ := strings.Cut(f, "/")
		x := Member{Replica: ReplicaID(i + 1), Node: NodeID(fmt.Sprintf("n%d", i+1)), Zone: strings.Trim(zone, "-"), Kind: Full, Eligible: true}
		switch what {
		case "log":
			x.Kind = LogReplica
		case "out":
			x.Eligible = false
		case "new":
			x.Kind = Learner
		case "heavy":
			x.Weight = 3
		}
		m.Members = append(m.Members, x)
		m.Next = x.Replica + 1
	}
	return m
}

// A policy that this program does not know promises nothing.
func TestDescribeUnknownPolicy(t *testing.T) {
	m := as("majority", "a b c")
	if m.Policy.Rule = 99; m.Describe() != "unknown policy" {
		t.Errorf("%q", m.Describe())
	}
}

// LOC-6: the effective rule in words, of the real members.
func TestDescribe(t *testing.T) {
	for _, c := range []struct{ policy, members, want string }{
		{"majority", "a", "a write is on disk at the only voter; stops when its only node is lost"},
		{"majority", "a b", "a write is on disk at two of two voters; takes no more writes when any node is lost; keeps every acknowledged write through the loss of any one node; needs one node to fail over"},
		{"majority", "a b c", "a write is on disk at two of three voters; survives the loss of any one zone; needs two nodes to fail over"},
		{"majority", "- - -", "a write is on disk at two of three voters; survives the loss of any one node; needs two nodes to fail over"},
		{"majority", "a a b", "a write is on disk at two of three voters; survives the loss of any one node, but not of zone a; needs two nodes to fail over"},
		{"majority", "a a b b", "a write is on disk at three of four voters; survives the loss of any one node, but not of zone a or b; keeps every acknowledged write through the loss of any two nodes; needs two nodes to fail over"},
		{"majority", "a a b b c", "a write is on disk at three of five voters; survives the loss of any two nodes or any one zone; needs three nodes to fail over"},
		{"majority", "a b c d e f g", "a write is on disk at four of seven voters; survives the loss of any three zones; needs four nodes to fail over"},
		{"majority", "a b c/heavy", "a write is on disk at voters with more than half of the weight 5; takes no more writes when n3 is lost; needs three nodes to fail over"},
		{"majority", "a b c/log", "a write is on disk at two of three voters; survives the loss of any one zone; needs two nodes to fail over; n3 keeps only the log and is never master"},
		{"majority", "a b c/out", "a write is on disk at two of two voters; takes no more writes when any node is lost; keeps every acknowledged write through the loss of any one node; needs one node to fail over; n3 is ineligible and counts for nothing"},
		{"majority", "a b c d/new e/new", "a write is on disk at two of three voters; survives the loss of any one zone; needs two nodes to fail over; n4 and n5 are being brought up and do not count yet"},
		{"majority", "a b/out c/log d", "a write is on disk at two of three voters; survives the loss of any one zone; needs two nodes to fail over; n3 keeps only the log and is never master; n2 is ineligible and counts for nothing"},
		{"zones:2", "a b c", "a write is on disk in two of three zones; survives the loss of any one zone; needs two zones to fail over"},
		{"zones:2", "a a b b c c", "a write is on disk in two of three zones; survives the loss of any one zone; needs every node of two zones to fail over"},
		{"zones:2", "a a b", "a write is on disk in two of two zones; takes no more writes when n3 is lost; keeps every acknowledged write through the loss of any one zone; needs every node of one zone to fail over"},
		{"zones:2", "a a b b", "a write is on disk in two of two zones; survives the loss of any one node, but not of zone a or b; keeps every acknowledged write through the loss of any one zone; needs every node of one zone to fail over"},
		{"zones:3", "a b c", "a write is on disk in three of three zones; takes no more writes when any node is lost; keeps every acknowledged write through the loss of any two zones; needs one zone to fail over"},
		{"zones:1", "a b c", "a write is on disk in one of three zones; takes no more writes when any node is lost; needs three zones to fail over"},
		{"zones:3", "a b c d e", "a write is on disk in three of five zones; survives the loss of any two zones; needs three zones to fail over"},
		{"zones:2", "a b c d", "a write is on disk in two of four zones; survives the loss of any one zone; needs three zones to fail over"},
		{"all-in-sync", "a b", "a write is on disk at both voters; takes no more writes when any node is lost; keeps every acknowledged write through the loss of any one node; needs one node to fail over; one that is left goes on alone when the control group permits it"},
		{"all-in-sync", "a b c", "a write is on disk at all three voters; takes no more writes when any node is lost; keeps every acknowledged write through the loss of any two nodes; needs one node to fail over; one that is left goes on alone when the control group permits it"},
		{"all-in-sync", "a", "a write is on disk at the only voter; stops when its only node is lost"},
	} {
		m := as(c.policy, c.members)
		if err := m.Validate(); err != nil {
			t.Errorf("%s of %s: %v", c.policy, c.members, err)
		}
		if got := m.Describe(); got != c.want {
			t.Errorf("%s of %s:\n got %s\nwant %s", c.policy, c.members, got, c.want)
		}
	}
	m := as("all-in-sync", "a")
	m.Alone = 3
	if got := m.Describe(); !strings.HasSuffix(got, "; goes on alone, without those who are not named here, by permit 3 of the control group") {
		t.Error(got)
	}
}

// LOC-3: who is missing, and who has to come back.
func TestMissing(t *testing.T) {
	for _, c := range []struct {
		policy, members string
		up              []ReplicaID
		want            string
	}{
		{"majority", "a b c", []ReplicaID{1, 2}, ""},
		{"majority", "a b c", []ReplicaID{1}, "it cannot fail over or commit: missing are zone b (n2) and zone c (n3); one of them has to come back"},
		{"majority", "- - -", []ReplicaID{2}, "it cannot fail over or commit: missing are n1 and n3; one of them has to come back"},
		{"majority", "- - - - -", []ReplicaID{2}, "it cannot fail over or commit: missing are n1, n3, n4 and n5; two of them have to come back"},
		{"majority", "a b", []ReplicaID{1}, "it cannot commit: missing is zone b (n2); it has to come back"},
		{"zones:2", "a b c", []ReplicaID{1}, "it cannot fail over or commit: missing are zone b (n2) and zone c (n3); one of them has to come back"},
		{"zones:2", "a a b b c c", []ReplicaID{1, 2, 3, 5}, "it cannot fail over: missing are n4 of zone b and n6 of zone c; one of them has to come back"},
		{"zones:2", "a a b b c c", []ReplicaID{1, 3, 5}, "it cannot fail over: missing are n2 of zone a, n4 of zone b and n6 of zone c; two of them have to come back"},
		{"zones:2", "a a b b c c", []ReplicaID{1, 3}, "it cannot fail over: missing are n2 of zone a, n4 of zone b and zone c (n5 and n6); n2 and n4 have to come back"},
		{"zones:2", "a a b b", []ReplicaID{1, 2}, "it cannot commit: missing is zone b (n3 and n4); one of them has to come back"},
		{"zones:3", "a b c", []ReplicaID{1, 2}, "it cannot commit: missing is zone c (n3); it has to come back"},
		{"majority", "a b c/log", []ReplicaID{3}, "it cannot fail over or commit: missing are zone a (n1) and zone b (n2); one of them has to come back"},
		{"majority", "a b c/log d/log e", []ReplicaID{3, 4}, "it cannot fail over or commit: missing are zone a (n1), zone b (n2) and zone e (n5); one of them has to come back"},
		{"all-in-sync", "a b", []ReplicaID{2}, "it cannot commit: missing is zone a (n1); it has to come back"},
		{"all-in-sync", "a b", nil, "it cannot fail over or commit: missing are zone a (n1) and zone b (n2); all of them have to come back"},
		{"majority", "a b c/out", []ReplicaID{1, 3}, "it cannot commit: missing is zone b (n2); it has to come back"},
		{"majority", "a b c d/new", []ReplicaID{1, 4}, "it cannot fail over or commit: missing are zone b (n2) and zone c (n3); one of them has to come back"},
	} {
		m := as(c.policy, c.members)
		up := func(r ReplicaID) bool { return slices.Contains(c.up, r) }
		if got := m.Missing(up); got != c.want {
			t.Errorf("%s of %s, up %v:\n got %s\nwant %s", c.policy, c.members, c.up, got, c.want)
		}
		if got := (Configurations{m, as("majority", "a b c")}).Missing(func(ReplicaID) bool { return true }); got != "" {
			t.Errorf("everybody is there: %s", got)
		}
	}
}

// What is computed by sets is what the predicate says, for configurations of all
// kinds: who serves, how many nodes and zones can be lost, and, in the words of
// Describe, that no better one does.
func TestToleranceIsTrue(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 11))
	policies := []string{"majority", "zones:1", "zones:2", "zones:3", "all-in-sync"}
	kinds := []string{"", "", "", "/log", "/out", "/new", "/heavy"}
	valid := 0
	for range 3000 {
		var members []string
		for range 1 + rng.IntN(6) {
			members = append(members, string(rune('a'+rng.IntN(3)))+kinds[rng.IntN(len(kinds))])
		}
		m := as(policies[rng.IntN(len(policies))], strings.Join(members, " "))
		if m.Validate() != nil {
			continue
		}
		valid++
		checkTolerance(t, m)
	}
	if valid < 500 {
		t.Fatalf("only %d configurations were valid", valid)
	}
}

func checkTolerance(t *testing.T, m *Membership) {
	t.Helper()
	n := len(m.Members)
	serves := make([]bool, 1<<n)
	for set := range serves {
		master := false
		for i := range m.Members {
			master = master || set&(1<<i) != 0 && m.Members[i].counts() && m.Members[i].Kind == Full
		}
		serves[set] = master && m.Durable(in(set)) && m.CanFailover(in(set))
		if m.Serves(in(set)) != serves[set] {
			t.Fatalf("%+v: serves with %b: %t", m, set, !serves[set])
		}
		if (m.Missing(in(set)) == "") != serves[set] {
			t.Fatalf("%+v with %b: %q", m, set, m.Missing(in(set)))
		}
	}
	counting := 0
	zones := map[string]int{}
	for i := range m.Members {
		if m.Members[i].counts() {
			counting |= 1 << i
			zones[m.Members[i].Zone] |= 1 << i
		}
	}
	up := rand.IntN(1 << n)
	for _, set := range []int{1<<n - 1, up} {
		// The least loss that stops it, by brute force over what can be lost.
		nodes, whole := bits.OnesCount(uint(set&counting))+1, len(zones)+1
		for lost := set & counting; ; lost = (lost - 1) & set & counting {
			if !serves[set&^lost] {
				nodes = min(nodes, bits.OnesCount(uint(lost)))
				touched := 0
				rest := lost
				for _, z := range zones {
					if rest&z != 0 {
						touched++
					}
				}
				exact := true
				for _, z := range zones {
					exact = exact && (lost&z == 0 || lost&z == z&set)
				}
				if exact {
					whole = min(whole, touched)
				}
			}
			if lost == 0 {
				break
			}
		}
		if got := m.CanLose(in(set)); got != nodes-1 {
			t.Fatalf("%+v with %b: can lose %d nodes, want %d", m, set, got, nodes-1)
		}
		if got := m.CanLoseZones(in(set)); got != whole-1 {
			t.Fatalf("%+v with %b: can lose %d zones, want %d", m, set, got, whole-1)
		}
	}
}
