package placement

import (
	"testing"

	"pando.dev/pando/partition"
)

// A new node takes replicas from those that have most replicas, not from one that
// has many masterships: six groups on three nodes, most of them mastered on one,
// give a fourth node four replicas, and that is all that is copied.
func TestFillTakesFromTheFullest(t *testing.T) {
	for masters := range 7 {
		nodes := []PlanNode{{Node: Node{ID: "a", Zone: "1"}}, {Node: Node{ID: "b", Zone: "2"}}, {Node: Node{ID: "c", Zone: "3"}}, {Node: Node{ID: "d", Zone: "4"}, New: true}}
		for i := range nodes {
			nodes[i].Weight = 1
		}
		l, err := NewLayout(nodes)
		if err != nil {
			t.Fatal(err)
		}
		for g := range 6 {
			x := PlanGroup{Group: partition.GroupID(g + 1), Range: 1, Membership: 1, Bytes: 1 << 20, Master: 3, Members: []PlanMember{{Replica: 1, Node: "a"}, {Replica: 2, Node: "b"}, {Replica: 3, Node: "c"}}}
			if g >= masters {
				x.Master = partition.ReplicaID(g%2 + 1)
			}
			if err := l.Add(x); err != nil {
				t.Fatal(err)
			}
		}
		copies := 0
		for _, o := range MakePlan(l, PlanConfig{}).Operators {
			if o.Kind.copies() {
				copies++
			}
		}
		if copies != 4 {
			t.Errorf("%d masterships on one node: %d copies", masters, copies)
		}
	}
}
