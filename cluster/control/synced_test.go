package control

import (
	"fmt"
	"testing"
	"time"

	"pando.dev/pando/partition"
)

// A node that has started again does not take its catalog for whole before it
// has everything that was there before: with it a replica that the catalog lacks
// may be deleted. Seats begin with an empty catalog, and so do the others.
func TestSyncedOnlyWithAWholeCatalog(t *testing.T) {
	n := newTestNet(t)
	ids := []partition.NodeID{"a", "b", "c", "d"}
	for _, id := range ids {
		n.start(id, 3)
	}
	ctx := deadline(t, 25*time.Second)
	for i := range 20 {
		if _, err := n.nodes["d"].CreateTable(ctx, TableSpec{Name: fmt.Sprintf("t%d", i), Kind: "kv", Replicas: 1}); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		for _, id := range ids {
			n.stop(id)
		}
		a, d := n.start("a", 3), n.start("d", 3)
		// One seat of three: nobody can know whether anything is missing.
		d.wait(t, "control group", func() bool { return d.Status().Group != 0 })
		if a.Synced() || d.Synced() {
			t.Fatal("a catalog is taken for whole without a leader")
		}
		n.start("b", 3)
		n.start("c", 3)
		for _, id := range ids {
			x := n.nodes[id]
			x.wait(t, "whole catalog", func() bool {
				whole := x.Synced()
				if tables := len(x.Catalog().Tables()); whole && tables != 20 {
					t.Fatalf("%s takes a catalog of %d tables for whole", id, tables)
				}
				return whole
			})
		}
	}
}

// To have reached the leader is not enough: a node whose session is open, but
// which has not got the catalog yet, does not take an empty one for whole.
func TestNotSyncedBeforeTheCatalogCame(t *testing.T) {
	n := newTestNet(t)
	a := n.start("a", 1)
	ctx := deadline(t, 25*time.Second)
	if _, err := a.CreateTable(ctx, TableSpec{Name: "t", Kind: "kv", Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	b := n.start("b", 0, func(c *Config) { c.Transport.(*testLink).deaf.Store(true) })
	n.until("renewed session", func() bool { return b.syncTo.Load() != 0 })
	if b.Synced() {
		t.Fatalf("a catalog of version %d is taken for whole, the leader has %d", b.Catalog().Version, a.Catalog().Version)
	}
	b.link.deaf.Store(false)
	b.wait(t, "whole catalog", b.Synced)
	if len(b.Catalog().Tables()) != 1 {
		t.Fatal("a whole catalog without the table")
	}
}
