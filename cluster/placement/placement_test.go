package placement

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"pando.dev/pando/partition"
)

// cluster returns n nodes spread evenly over zones.
func cluster(n, zones int) []Node {
	all := make([]Node, n)
	for i := range all {
		all[i] = Node{ID: partition.NodeID(fmt.Sprintf("n-%d", i)), Zone: fmt.Sprintf("z%d", i%zones)}
	}
	return all
}

// tester is a test or a property.
type tester interface {
	Helper()
	Fatal(...any)
}

func place(t tester, g partition.GroupID, nodes []Node, rf int) []partition.NodeID {
	t.Helper()
	ids, err := Place(g, nodes, rf)
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

func TestRefusals(t *testing.T) {
	for what, x := range map[string]struct {
		nodes []Node
		rf    int
		code  partition.Code
	}{
		"no replicas":   {cluster(3, 3), 0, partition.CodeInvalid},
		"too many":      {cluster(20, 3), partition.MaxMembers + 1, partition.CodeInvalid},
		"too few nodes": {cluster(2, 2), 3, partition.CodeRefused},
		"no nodes":      {nil, 1, partition.CodeRefused},
		"twice":         {append(cluster(2, 2), Node{ID: "n-1"}), 1, partition.CodeInvalid},
		"no id":         {[]Node{{Zone: "z"}}, 1, partition.CodeInvalid},
	} {
		ids, err := Place(1, x.nodes, x.rf)
		if partition.CodeOf(err) != x.code || ids != nil {
			t.Errorf("%s: %v, %v, want %v", what, ids, err, x.code)
		}
	}
	if err := func() error { _, err := Place(1, cluster(2, 2), 3); return err }(); !errors.Is(err, partition.ErrRefused) {
		t.Error(err)
	}
}

// The result is part of what a cluster agrees on between versions: it must not
// change by accident.
func TestGolden(t *testing.T) {
	nodes := cluster(6, 3)
	nodes[4].Weight = 3
	got := ""
	for g := range partition.GroupID(6) {
		got += fmt.Sprintln(g+1, place(t, g+1, nodes, 3))
	}
	const want = `g1 [n-2 n-4 n-3]
g2 [n-4 n-2 n-0]
g3 [n-0 n-5 n-1]
g4 [n-5 n-1 n-3]
g5 [n-4 n-3 n-5]
g6 [n-2 n-4 n-3]
`
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func zoneOf(nodes []Node, id partition.NodeID) string {
	return nodes[slices.IndexFunc(nodes, func(n Node) bool { return n.ID == id })].Zone
}

func drawNodes(t *rapid.T) []Node {
	nodes := make([]Node, rapid.IntRange(1, 12).Draw(t, "nodes"))
	for i := range nodes {
		nodes[i] = Node{
			ID: partition.NodeID(fmt.Sprintf("n-%d", i)), Zone: fmt.Sprintf("z%d", rapid.IntRange(0, 4).Draw(t, "zone")),
			Weight: rapid.Uint32Range(0, 4).Draw(t, "weight"),
		}
	}
	return nodes
}

// Whatever the nodes: distinct nodes, zones as even as they can be, the same
// for any order of the input; a node that is added only receives, and one that
// is removed only gives.
func TestPlaceProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := drawNodes(t)
		rf := rapid.IntRange(1, min(len(nodes), partition.MaxMembers)).Draw(t, "rf")
		g := partition.GroupID(rapid.Uint64().Draw(t, "group"))
		ids := place(t, g, nodes, rf)
		checkSpread(t, nodes, ids)
		if again := place(t, g, rapid.Permutation(nodes).Draw(t, "order"), rf); !slices.Equal(ids, again) {
			t.Fatalf("another order gives %v instead of %v", again, ids)
		}
		if len(nodes) == rf {
			return
		}
		gone := rapid.IntRange(0, len(nodes)-1).Draw(t, "gone")
		without := place(t, g, slices.Delete(slices.Clone(nodes), gone, gone+1), rf)
		// To add the node to without is the same step the other way.
		for _, id := range ids {
			if id != nodes[gone].ID && !slices.Contains(without, id) {
				t.Fatalf("added %s, but %s received: %v became %v", nodes[gone].ID, id, without, ids)
			}
		}
	})
}

func checkSpread(t *rapid.T, nodes []Node, ids []partition.NodeID) {
	size, used := map[string]int{}, map[string]int{}
	for _, n := range nodes {
		size[n.Zone]++
	}
	for i, id := range ids {
		if slices.Contains(ids[:i], id) {
			t.Fatalf("%s twice: %v", id, ids)
		}
		used[zoneOf(nodes, id)]++
	}
	for a, n := range used {
		for b, room := range size {
			if used[b] < room && used[b] < n-1 {
				t.Fatalf("zone %s has %d, zone %s %d of %d: %v", a, n, b, used[b], room, ids)
			}
		}
	}
	if len(used) != min(len(ids), Zones(nodes)) {
		t.Fatalf("%d zones of %d used for %d replicas", len(used), Zones(nodes), len(ids))
	}
}

// imbalance is the greatest load of a node over the mean, per unit of weight.
func imbalance(t tester, nodes []Node, groups, rf int) float64 {
	load := map[partition.NodeID]float64{}
	weight := 0.0
	for g := range groups {
		for _, id := range place(t, partition.GroupID(g+1), nodes, rf) {
			load[id]++
		}
	}
	for _, n := range nodes {
		weight += float64(max(1, n.Weight))
	}
	worst := 0.0
	for _, n := range nodes {
		worst = max(worst, load[n.ID]/float64(max(1, n.Weight))/(float64(groups*rf)/weight))
	}
	return worst
}

// The balance that hashing gives, against what chance gives: a bad hash shows
// as an imbalance far beyond.
func TestBalance(t *testing.T) {
	for _, x := range []struct{ nodes, zones, groups, rf int }{{10, 1, 20_000, 1}, {9, 3, 10_000, 3}, {30, 3, 10_000, 3}, {100, 5, 10_000, 3}} {
		got := imbalance(t, cluster(x.nodes, x.zones), x.groups, x.rf)
		mean := float64(x.groups*x.rf) / float64(x.nodes)
		// Five standard deviations of a binomial count.
		limit := 1 + 5/math.Sqrt(mean)
		t.Logf("%d nodes in %d zones, %d groups of %d: greatest/mean %.3f (limit %.3f)", x.nodes, x.zones, x.groups, x.rf, got, limit)
		if got > limit {
			t.Errorf("%d nodes: greatest/mean %.3f, limit %.3f", x.nodes, got, limit)
		}
	}
	nodes := cluster(10, 1)
	for i := range nodes {
		nodes[i].Weight = uint32(1 + i%3)
	}
	if got := imbalance(t, nodes, 20_000, 1); got > 1.15 {
		t.Errorf("with weights 1, 2 and 3: greatest/mean %.3f per weight", got)
	}
}

// Group ids come one after the other, and node ids differ in one digit: neither
// may show in the choice.
func TestNeighboursAreIndependent(t *testing.T) {
	nodes := cluster(4, 1)
	same := 0
	const groups = 20_000
	for g := range groups {
		a := place(t, partition.GroupID(g), nodes, 1)[0]
		b := place(t, partition.GroupID(g+1), nodes, 1)[0]
		if a == b {
			same++
		}
	}
	if f := float64(same) / groups; math.Abs(f-0.25) > 0.02 {
		t.Errorf("consecutive groups share a node in %.3f of the cases, chance gives 0.25", f)
	}
}

func BenchmarkPlace(b *testing.B) {
	nodes := cluster(100, 5)
	for i := range b.N {
		place(b, partition.GroupID(i), nodes, 3)
	}
}
