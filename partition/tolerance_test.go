package partition

import "testing"

func voters(policy Policy, zones ...string) *Membership {
	m := &Membership{Version: 1, Policy: policy, Next: ReplicaID(len(zones) + 1)}
	for i, z := range zones {
		m.Members = append(m.Members, Member{
			Replica: ReplicaID(i + 1), Node: NodeID(rune('a' + i)), Zone: z, Kind: Full, Eligible: true,
		})
	}
	return m
}

func TestCanLose(t *testing.T) {
	majority := Policy{Rule: Majority}
	for _, c := range []struct {
		name string
		m    *Membership
		down []ReplicaID
		want int
	}{
		{"one", voters(majority, "a"), nil, 0},
		{"two", voters(majority, "a", "b"), nil, 0},
		{"three", voters(majority, "a", "b", "c"), nil, 1},
		{"three, one down", voters(majority, "a", "b", "c"), []ReplicaID{2}, 0},
		{"three, two down", voters(majority, "a", "b", "c"), []ReplicaID{1, 2}, -1},
		{"five", voters(majority, "a", "b", "c", "d", "e"), nil, 2},
		{"pair in sync", voters(Policy{Rule: AllInSync}, "a", "b"), nil, 0},
		{"two of three zones", voters(Policy{Rule: Zones, Zones: 2}, "a", "b", "c"), nil, 1},
		{"two nodes a zone", voters(Policy{Rule: Zones, Zones: 2}, "a", "a", "b", "b"), nil, 1},
	} {
		down := func(r ReplicaID) bool {
			for _, d := range c.down {
				if d == r {
					return true
				}
			}
			return false
		}
		if got := c.m.CanLose(func(r ReplicaID) bool { return !down(r) }); got != c.want {
			t.Errorf("%s: CanLose = %d, want %d", c.name, got, c.want)
		}
	}
}
