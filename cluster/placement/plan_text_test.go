package placement

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pando.dev/pando/partition"
)

// What cannot be is refused at once, with the reason and what would help.
func TestPreflight(t *testing.T) {
	fresh := func(nodes, zones int, disk int64) *Layout {
		ns := planNodes(nodes, zones)
		for i := range ns {
			ns[i].Capacity[DimBytes] = disk
		}
		l, _ := NewLayout(ns)
		for g := range 12 {
			if err := l.Add(group(g+1, 100, 1, 1, 1, g%nodes, (g+1)%nodes, (g+2)%nodes)); err != nil {
				t.Fatal(err)
			}
		}
		return l
	}
	for name, x := range map[string]struct {
		l       *Layout
		leaving []partition.NodeID
		fewer   bool
		want    string // of the refusal; empty: it can be
	}{
		"possible":         {fresh(4, 4, 0), []partition.NodeID{"n-1"}, false, ""},
		"too few nodes":    {fresh(3, 3, 0), []partition.NodeID{"n-1"}, false, "2 nodes would be left, and g1 has 3 replicas"},
		"too few zones":    {fresh(5, 3, 0), []partition.NodeID{"n-2"}, false, "in 2 zones instead of 3: nothing would be left in z2"},
		"zones not wanted": {fresh(5, 3, 0), []partition.NodeID{"n-2"}, true, ""},
		"disk":             {fresh(4, 4, 1100), []partition.NodeID{"n-1"}, false, "would have to move, and the other disks may take"},
		"disk suffices":    {fresh(4, 4, 1600), []partition.NodeID{"n-1"}, false, ""},
		"unknown":          {fresh(4, 4, 0), []partition.NodeID{"n-9"}, false, "no node n-9"},
		"two of five":      {fresh(5, 5, 0), []partition.NodeID{"n-0", "n-1"}, false, ""},
		"three of five":    {fresh(5, 5, 0), []partition.NodeID{"n-0", "n-1", "n-2"}, false, "2 nodes would be left"},
	} {
		err := Preflight(x.l, x.leaving, x.fewer, PlanConfig{})
		switch {
		case x.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case x.want != "" && (err == nil || !strings.Contains(err.Error(), x.want)):
			t.Errorf("%s: %v", name, err)
		case x.want != "" && name != "unknown" && partition.CodeOf(err) != partition.CodeRefused:
			t.Errorf("%s: code %v", name, partition.CodeOf(err))
		}
		if err != nil || name == "unknown" {
			continue
		}
		for _, id := range x.leaving { // what is let through can be done
			x.l.Node(id).Leaving = true
		}
		if p := MakePlan(x.l, PlanConfig{}); len(p.Impossible) > 0 {
			t.Errorf("%s: let through, but\n%s", name, p.Text())
		}
	}
}

// A plan as an operator reads it, before anything is done: the moves and their bytes
// (SCL-7).
func TestPlanText(t *testing.T) {
	nodes := planNodes(4, 2)
	nodes[0].Leaving = true
	l, _ := NewLayout(nodes)
	addAll(t, l, []PlanGroup{group(1, 3<<20, 10, 1, 1, 0, 1), group(2, 5<<20, 10, 1, 1, 1, 0), group(3, 1<<20, 10, 1, 1, 2, 3, 0, 1)})
	const want = `5 operators: 3 moves, 0 of them with the mastership, 0 added replicas, 2 transfers
drain     copies 8.0 MiB, the least possible is 9.0 MiB
level     copies 3.0 MiB, the least possible is 5.1 MiB
fullest node over its share, now: bytes 1.800, load 1.368, written 1.500, (masters 1.333), (replicas 1.500)
fullest node over its share, after: bytes 1.200, load 1.614, written 1.000, (masters 1.778), (replicas 1.000)
impossible: n-0: g3: none of 3 nodes can take it; 3: a node has one replica of a group at most
   1 drain     transfer g1 replica 2 n-0 -> n-1  (range 1, membership 1)  n-0 is leaving
   2 drain     move     g2 replica 2 n-0 -> n-2  5.0 MiB  (range 1, membership 1)  n-0 is leaving
   3 drain     move     g1 replica 1 n-0 -> n-2  3.0 MiB  (range 1, membership 1)  n-0 is leaving
   4 level     transfer g1 n-1 -> n-2  (range 1, membership 1)  n-1 has 2.42 times its share of load
   5 level     move     g1 replica 2 n-1 -> n-3  3.0 MiB  (range 1, membership 1)  n-1 has 2.42 times its share of load
`
	if text := MakePlan(l, PlanConfig{}).Text(); text != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
	if p := MakePlan(hashed(t, planNodes(3, 3), 9, 3, nil), PlanConfig{Hot: []partition.NodeID{}}); !strings.HasPrefix(p.Text(), "nothing to do\nfullest node") {
		t.Error(p.Text())
	}
}

// SCL-8: a node is leveled when it was too full three times in a row, not before, and
// not again when it was less full in between.
func TestWatch(t *testing.T) {
	l, _ := NewLayout(planNodes(3, 3))
	for g := range 30 {
		if err := l.Add(group(g+1, 1<<20, 100, 0, 1, g%3, (g+1)%3, (g+2)%3)); err != nil {
			t.Fatal(err)
		}
	}
	w := NewWatch(WatchConfig{})
	heat := func(lead uint32) {
		for g := 0; g < 30; g += 3 {
			l.SetLoad(g, lead, 0, 1)
		}
	}
	for i, x := range []struct {
		lead uint32
		hot  bool
	}{{130, false}, {130, false}, {100, false}, {130, false}, {130, false}, {130, true}, {130, true}, {100, false}, {130, false}} {
		heat(x.lead)
		hot, active := w.Window(l)
		if (len(hot) == 1 && hot[0] == "n-0") != x.hot || hot == nil || !active[DimLoad] {
			t.Errorf("window %d: %v, %v", i, hot, active)
		}
	}
}

// What nobody suffers from is not moved: disks that are nearly empty do not count,
// and do not begin to count and cease again with every change.
func TestWatchActive(t *testing.T) {
	nodes := planNodes(2, 1)
	for i := range nodes {
		nodes[i].Capacity[DimBytes] = 1000
	}
	l, _ := NewLayout(nodes)
	addAll(t, l, []PlanGroup{group(1, 100, 1, 1, 1, 0), group(2, 100, 1, 1, 1, 1)})
	w := NewWatch(WatchConfig{OffWindows: 3})
	for i, x := range []struct {
		bytes  int64
		active bool
	}{{200, false}, {260, true}, {200, true}, {140, true}, {140, true}, {160, true}, {140, true}, {140, true}, {140, false}, {200, false}} {
		l.SetBytes(0, x.bytes)
		_, active := w.Window(l)
		if active[DimBytes] != x.active || active[DimReplicas] == x.active {
			t.Errorf("window %d: %v", i, active)
		}
	}
}

// A group that was just changed for balance rests.
func TestPlanCooldown(t *testing.T) {
	l, _ := NewLayout(planNodes(3, 3))
	for g := range 30 {
		if err := l.Add(group(g+1, 1<<20, 100, 0, 1, 0, 1, 2)); err != nil {
			t.Fatal(err)
		}
	}
	p := MakePlan(l, PlanConfig{})
	if len(p.Operators) == 0 {
		t.Fatal("nothing to do")
	}
	for i := range p.Operators {
		back := p.Operators[i]
		l.Apply(&back, time.Hour)
		g, _ := l.Find(back.Group)
		l.SetMaster(g, 1)
	}
	moved := func(p *Plan) int {
		n := 0
		for i := range p.Operators {
			if g, _ := l.Find(p.Operators[i].Group); l.changed[g] > 0 {
				n++
			}
		}
		return n
	}
	if n := moved(MakePlan(l, PlanConfig{Now: time.Hour + time.Minute})); n > 0 {
		t.Errorf("%d groups moved again after a minute", n)
	}
	if n := moved(MakePlan(l, PlanConfig{Now: time.Hour + 11*time.Minute})); n == 0 {
		t.Error("none moved again after the pause")
	}
}

// With Scatter no plan makes a node share groups with more others than allowed,
// and the others are what it was for: see TestPlanProperties for the rest.
func TestPlanScatter(t *testing.T) {
	// Two islands of four nodes: every node shares groups with three others.
	l, _ := NewLayout(planNodes(8, 1))
	for g := range 64 {
		base := g % 2 * 4
		if err := l.Add(group(g+1, 1<<20, 1, 1, 1, base+g/2%4, base+(g/2+1)%4, base+(g/2+2)%4)); err != nil {
			t.Fatal(err)
		}
	}
	l.nodes[0].Leaving = true
	for _, width := range []int{0, 3} {
		after := l.Clone()
		after.doAll(t, MakePlan(after, PlanConfig{Scatter: width}))
		left := false
		for g := range after.Groups() {
			for _, m := range after.Group(g).Members {
				left = left || (m.Node < "n-4") == (g%2 == 1)
			}
		}
		if left == (width > 0) {
			t.Errorf("width %d: groups left their island: %v", width, left)
		}
	}
}

func ExampleMakePlan() {
	l, err := NewLayout([]PlanNode{
		{Node: Node{ID: "n-1", Zone: "east"}}, {Node: Node{ID: "n-2", Zone: "west"}, Leaving: true}, {Node: Node{ID: "n-3", Zone: "west"}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	err = l.Add(PlanGroup{
		Group: 17, Range: 1, Membership: 4, Master: 2, Bytes: 3 << 20, Lead: 10, Follow: 1,
		Members: []PlanMember{{Replica: 1, Node: "n-1"}, {Replica: 2, Node: "n-2"}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, op := range MakePlan(l, PlanConfig{}).Operators {
		fmt.Println(op)
	}
	// Output:
	// drain     transfer g17 replica 1 n-2 -> n-1  (range 1, membership 4)  n-2 is leaving
	// drain     move     g17 replica 2 n-2 -> n-3  3.0 MiB  (range 1, membership 4)  n-2 is leaving
}
