package placement

import (
	"fmt"
	"math"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"pando.dev/pando/partition"
)

// checkPlan returns what is wrong with a plan of a layout.
func checkPlan(l *Layout, cfg PlanConfig) error {
	before := l.Clone()
	p := MakePlan(l, cfg)
	if !reflect.DeepEqual(normal(before), normal(l)) {
		return fmt.Errorf("the layout is not as before")
	}
	if again := MakePlan(before, cfg); again.Text() != p.Text() {
		return fmt.Errorf("another plan of the same:\n%s\n%s", p.Text(), again.Text())
	}
	w, moved, seen := truthOf(l), int64(0), map[string]bool{}
	for i := range p.Operators {
		op := &p.Operators[i]
		if err := w.do(op, 0.85); err != nil {
			return fmt.Errorf("operator %d, %s: %w", i+1, op, err)
		}
		if op.Kind.copies() {
			moved += op.Bytes
		}
		if key := fmt.Sprint(op.Group, op.Replica, op.Kind); op.Kind.copies() && op.Kind != OpAdd && seen[key] {
			return fmt.Errorf("operator %d, %s: that replica moves twice", i+1, op)
		} else {
			seen[key] = true
		}
		if !before.Apply(op, 0) {
			return fmt.Errorf("operator %d, %s: cannot be applied", i+1, op)
		}
	}
	if moved != p.Bytes() {
		return fmt.Errorf("copies %d bytes and says %d", moved, p.Bytes())
	}
	got := newSearch(before, cfg.withDefaults()).balance()
	for d := range Dims {
		if math.Abs(got.Max[d]-p.After.Max[d]) > 1e-9 {
			return fmt.Errorf("%s: %.4f predicted, %.4f then", d, p.After.Max[d], got.Max[d])
		}
	}
	return checkDrained(before, p)
}

// normal brings nil and empty lists together, and forgets the list places of
// slots that are on no list.
func normal(l *Layout) *Layout {
	for s, n := range l.node {
		if n == none {
			l.at[s] = 0
		}
	}
	for i := range l.on {
		if len(l.on[i]) == 0 {
			l.on[i] = nil
		} else {
			l.on[i] = append([]uint32(nil), l.on[i]...)
		}
	}
	return l
}

// checkDrained finds replicas that were left on nodes that are to be empty,
// though the plan does not say why.
func checkDrained(after *Layout, p *Plan) error {
	for i := range after.nodes {
		n := &after.nodes[i]
		if !n.Leaving && !n.Lost || len(after.on[i]) == 0 {
			continue
		}
		said := 0
		for _, x := range p.Impossible {
			if x.Node == n.ID {
				said += x.Count
			}
		}
		busy := 0
		for _, s := range after.on[i] {
			if after.busy[after.of[s]] {
				busy++
			}
		}
		if len(after.on[i]) > said+busy {
			return fmt.Errorf("%s keeps %d replicas, %d of them explained", n.ID, len(after.on[i]), said+busy)
		}
	}
	return nil
}

// PG22 and the rules: whatever the layout, no prefix of a plan breaks a hard
// rule, new nodes only receive and leaving ones only give, what is predicted comes
// true, the layout is left as it was, and the same again gives the same.
func TestPlanProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := PlanConfig{}
		if rapid.IntRange(0, 4).Draw(t, "scatter") == 0 {
			cfg.Scatter = rapid.IntRange(2, 6).Draw(t, "width")
		}
		if err := checkPlan(drawLayout(t), cfg); err != nil {
			t.Fatal(err)
		}
	})
}

// Plan, do, plan again: it ends, and soon.
func TestPlanTerminates(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := drawLayout(t)
		for round := range 20 {
			p := MakePlan(l, PlanConfig{})
			if len(p.Operators) == 0 {
				return
			}
			if round == 19 {
				t.Fatalf("still moving after %d plans:\n%s", round, p.Text())
			}
			for i := range p.Operators {
				if !l.Apply(&p.Operators[i], 0) {
					t.Fatal("cannot be applied")
				}
			}
		}
	})
}

// The checks above find what they are for.
func TestPlanMistakesAreFound(t *testing.T) {
	for _, x := range []struct {
		mistake
		name string
	}{
		{fillBetweenOld, "a fill between old nodes"}, {forgetZones, "zones broken on the way"}, {forgetDisk, "disks too full"},
		{giveToLeaving, "a leaving node receives"}, {forgetUndo, "the layout is left changed"}, {moveTwice, "a replica moves twice"},
	} {
		found := 0
		gen := rapid.Custom(func(t *rapid.T) *Layout { return drawLayout(t) })
		for seed := range 150 {
			if checkPlan(gen.Example(seed), PlanConfig{planted: x.mistake}) != nil {
				found++
			}
		}
		t.Logf("%s: found in %d of 150 layouts", x.name, found)
		if found == 0 {
			t.Errorf("%s: not found", x.name)
		}
	}
}

// hashed returns groups placed by rendezvous hashing.
func hashed(t testing.TB, nodes []PlanNode, groups, rf int, each func(g int, p *PlanGroup)) *Layout {
	t.Helper()
	l, err := NewLayout(nodes)
	if err != nil {
		t.Fatal(err)
	}
	plain := make([]Node, 0, len(nodes))
	for _, n := range nodes {
		if !n.New {
			plain = append(plain, n.Node)
		}
	}
	for g := range groups {
		p := PlanGroup{Group: partition.GroupID(g + 1), Range: 1, Membership: 1, Master: 1, Bytes: 64 << 20, Lead: 20, Follow: 10, Written: 100}
		ids, err := Place(p.Group, plain, rf)
		if err != nil {
			t.Fatal(err)
		}
		for o, id := range ids {
			p.Members = append(p.Members, PlanMember{Replica: partition.ReplicaID(o + 1), Node: id})
		}
		if each != nil {
			each(g, &p)
		}
		if err := l.Add(p); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func planNodes(n, zones int) []PlanNode {
	nodes := make([]PlanNode, n)
	for i := range nodes {
		nodes[i].ID, nodes[i].Zone = partition.NodeID(fmt.Sprintf("n-%d", i)), fmt.Sprintf("z%d", i%zones)
	}
	return nodes
}

// A layout that is told of a change is the same as one built after it.
func TestLayoutSetMembers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := drawLayout(t)
		if l.Groups() == 0 {
			return
		}
		g := rapid.IntRange(0, l.Groups()-1).Draw(t, "group")
		p := l.Group(g)
		free := []partition.NodeID{}
		for _, n := range l.Nodes() {
			free = append(free, n.ID)
		}
		nodes := rapid.Permutation(free).Draw(t, "nodes")[:rapid.IntRange(1, len(p.Members)).Draw(t, "members")]
		p.Members = nil
		for o, n := range nodes {
			p.Members = append(p.Members, PlanMember{Replica: partition.ReplicaID(o + 7), Node: n})
		}
		p.Master = 7
		if !l.SetMembers(g, p.Members, p.Master) {
			t.Fatal("no room")
		}
		fresh, _ := NewLayout(l.Nodes())
		for i := range l.Groups() {
			if err := fresh.Add(l.Group(i)); err != nil {
				t.Fatal(err)
			}
		}
		if !reflect.DeepEqual(l.use, fresh.use) || !reflect.DeepEqual(l.Group(g), p) {
			t.Fatalf("%v\n%v\n%v\n%v", l.use, fresh.use, l.Group(g), p)
		}
		too := append(p.Members, make([]PlanMember, partition.MaxMembers)...)
		if l.SetMembers(g, too, 0) || l.SetMembers(g, []PlanMember{{Replica: 1, Node: "nobody"}}, 0) {
			t.Fatal("accepted")
		}
	})
}
