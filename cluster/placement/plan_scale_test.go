package placement

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"pando.dev/pando/partition"
)

// placed is where the replicas of each group are.
func placed(l *Layout) map[partition.GroupID][]partition.NodeID {
	out := map[partition.GroupID][]partition.NodeID{}
	for g := range l.Groups() {
		p := l.Group(g)
		for _, m := range p.Members {
			out[p.Group] = append(out[p.Group], m.Node)
		}
		slices.Sort(out[p.Group])
	}
	return out
}

// lost and gained are what two placements differ in, by node.
func differ(before, after map[partition.GroupID][]partition.NodeID) (lost, gained map[partition.NodeID]int) {
	lost, gained = map[partition.NodeID]int{}, map[partition.NodeID]int{}
	for g, was := range before {
		for _, n := range was {
			if !slices.Contains(after[g], n) {
				lost[n]++
			}
		}
		for _, n := range after[g] {
			if !slices.Contains(was, n) {
				gained[n]++
			}
		}
	}
	return lost, gained
}

// SCL-1: when a node is added, what moves goes onto it, and that is one part in n+1
// of all. SCL-2: when any node is removed, also one in the middle, exactly what it
// has moves. Between two nodes that stay nothing ever moves.
func TestScaleMovesNoMore(t *testing.T) {
	for _, rf := range []int{1, 3} {
		for n := 3; n <= 8; n++ {
			const groups = 400
			nodes := planNodes(n, 1)
			l := hashed(t, nodes, groups, rf, func(_ int, p *PlanGroup) { p.Bytes = 1 << 20 })
			calm := PlanConfig{Hot: []partition.NodeID{}} // as it was hashed: some have less than others
			before := placed(l)
			if err := l.AddNode(PlanNode{Node: Node{ID: "new", Zone: "z0"}, New: true}); err != nil {
				t.Fatal(err)
			}
			l.doAll(t, MakePlan(l, calm))
			lost, gained := differ(before, placed(l))
			part := float64(gained["new"]) / (groups * float64(rf))
			if len(gained) != 1 || math.Abs(part-1/float64(n+1)) > 0.03/float64(n+1) {
				t.Errorf("%d nodes and one more, %d replicas: %.3f of all moves, onto %v", n, rf, part, gained)
			}
			if lost["new"] > 0 {
				t.Errorf("the new node gives: %v", lost)
			}
			l.Node("new").New = false
			for i := range l.Nodes() {
				if rf > n {
					break
				}
				m := l.Clone()
				m.nodes[i].Leaving = true
				before, id := placed(m), m.nodes[i].ID
				had := len(m.on[i])
				m.doAll(t, MakePlan(m, calm))
				lost, gained := differ(before, placed(m))
				if len(lost) != 1 || lost[id] != had || gained[id] > 0 {
					t.Errorf("%d nodes of %d replicas without %s, which has %d: %v give, %v receive", n+1, rf, id, had, lost, gained)
				}
			}
		}
	}
}

// SCL-6: a second node comes while what the first one gets is under way. What has
// begun counts as done, the rest is planned anew, and it ends as it would if both had
// come at once: no node carries more or less, nothing moves twice, nothing moves
// later, and what was copied is the least possible.
func TestScaleWhileScaling(t *testing.T) {
	const groups, size = 300, 1 << 20
	for _, done := range []int{0, 1, 40, 90} {
		base := hashed(t, planNodes(4, 1), groups, 3, func(_ int, p *PlanGroup) { p.Bytes = size })
		base.doAll(t, MakePlan(base, PlanConfig{}))
		add := func(l *Layout, id partition.NodeID) {
			if err := l.AddNode(PlanNode{Node: Node{ID: id, Zone: "z0"}, New: true}); err != nil {
				t.Fatal(err)
			}
		}
		at := func(l *Layout, ops []Operator) (bytes int64) {
			for i := range ops {
				if !l.Apply(&ops[i], 0) {
					t.Fatalf("%s cannot be done", &ops[i])
				}
				if ops[i].Kind.copies() {
					bytes += ops[i].Bytes
				}
			}
			return bytes
		}
		l := base.Clone()
		before := placed(l)
		add(l, "new-1")
		first := MakePlan(l, PlanConfig{})
		copied := at(l, first.Operators[:done])
		var flying []Operator // one operator of a group at a time
		for _, op := range first.Operators[done:] {
			if len(flying) < 4 && !slices.ContainsFunc(flying, func(x Operator) bool { return x.Group == op.Group }) {
				flying = append(flying, op)
			}
		}
		add(l, "new-2")
		second := MakePlan(l, PlanConfig{InFlight: flying})
		for _, op := range second.Operators {
			if slices.ContainsFunc(flying, func(x Operator) bool { return x.Group == op.Group }) {
				t.Errorf("%d done: %s, and one of that group is under way", done, &op)
			}
		}
		copied += at(l, flying) + at(l, second.Operators)
		rest := MakePlan(l, PlanConfig{}) // of the groups that were under way
		copied += at(l, rest.Operators)
		l.Node("new-1").New, l.Node("new-2").New = false, false
		if later := MakePlan(l, PlanConfig{}); later.Bytes() > 0 {
			t.Errorf("%d done: later %s", done, later.Text())
		}
		both := base.Clone()
		add(both, "new-1")
		add(both, "new-2")
		at(both, MakePlan(both, PlanConfig{}).Operators)
		for i, n := range both.Nodes() {
			if have, want := len(l.on[i]), len(both.on[i]); have < want-2 || have > want+2 {
				t.Errorf("%d done: %s has %d replicas, %d if both come at once", done, n.ID, have, want)
			}
		}
		lost, gained := differ(before, placed(l))
		if moved := int64(gained["new-1"]+gained["new-2"]) * size; len(gained) != 2 || copied != moved || lost["new-1"]+lost["new-2"] > 0 {
			t.Errorf("%d done: %d bytes were copied, %d had to be: %v", done, copied, moved, fmt.Sprint(gained))
		}
	}
}
