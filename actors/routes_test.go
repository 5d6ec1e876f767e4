package actors

import (
	"testing"

	"pando.dev/pando/cluster"
	"pando.dev/pando/cluster/control"
)

// TestRoutesVersion: the version grows with every change and only then, and is
// the same on nodes that know the same.
func TestRoutesVersion(t *testing.T) {
	var a, b routeCache
	one := []cluster.Node{{ID: "n1", Link: "x:1", Boot: 1}, {ID: "n2", Link: "x:2", Boot: 4}}
	two := []cluster.Node{one[0], {ID: "n2", Link: "x:3", Boot: 5}}
	c := &control.Catalog{Version: 7}
	a.update(one)
	first := a.get(c)
	for range 1 << 17 {
		a.update(one) // the same again, as every few seconds
	}
	if again := a.get(c); again != first {
		t.Error("routes were made anew although nothing changed")
	}
	a.update(two)
	moved := a.get(c)
	if moved.Version <= first.Version || moved.Nodes[1].Addr != "x:3" {
		t.Errorf("a node moved: version %d after %d, %v", moved.Version, first.Version, moved.Nodes)
	}
	b.update(two)
	if other := b.get(c); other.Version != moved.Version {
		t.Errorf("two nodes that know the same say %d and %d", moved.Version, other.Version)
	}
	if newer := b.get(&control.Catalog{Version: 8}); newer.Version <= moved.Version {
		t.Errorf("a newer catalog has version %d after %d", newer.Version, moved.Version)
	}
	a.update(one[:1]) // n2 has been forgotten
	if fewer := a.get(c); fewer.Version <= moved.Version {
		t.Errorf("fewer nodes: version %d after %d", fewer.Version, moved.Version)
	}
}
