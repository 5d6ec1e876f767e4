package placement

import (
	"testing"

	"pando.dev/pando/partition"
)

// TestLayoutThatMakesNoSense: nodes and groups that cannot be are refused with a
// reason, and the layout goes on without them.
func TestLayoutThatMakesNoSense(t *testing.T) {
	for what, nodes := range map[string][]PlanNode{
		"a node without an id": {{Node: Node{Weight: 1}}},
		"a node named twice":   {{Node: Node{ID: "a", Weight: 1}}, {Node: Node{ID: "a", Weight: 1}}},
	} {
		if l, err := NewLayout(nodes); partition.CodeOf(err) != partition.CodeInvalid || l != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	l, err := NewLayout(planNodes(3, 3))
	if err != nil {
		t.Fatal(err)
	}
	known := l.Nodes()[0]
	members := []PlanMember{{Replica: 1, Node: known.ID}}
	if err := l.Add(PlanGroup{Group: 2, Members: members, Master: 1, Bytes: 1}); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"a group twice":                l.Add(PlanGroup{Group: 2, Members: members}),
		"a group out of order":         l.Add(PlanGroup{Group: 1, Members: members}),
		"a replica on an unknown node": l.Add(PlanGroup{Group: 3, Members: []PlanMember{{Replica: 1, Node: "x"}}}),
		"a node that is there":         l.AddNode(known),
	} {
		if partition.CodeOf(err) != partition.CodeInvalid {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := l.Add(PlanGroup{Group: 3, Members: members, Master: 1, Bytes: 1}); err != nil {
		t.Errorf("a group that makes sense: %v", err)
	}
	if used := l.NodeUse(0)[DimReplicas]; used != 2 {
		t.Errorf("%d replicas, want 2", used)
	}
}
