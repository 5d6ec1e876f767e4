package control

import (
	"context"
	"slices"
	"testing"
	"time"

	"pando.dev/pando/cluster/placement"
	"pando.dev/pando/partition"
)

func nodesOf(ids ...partition.NodeID) []placement.Node {
	var all []placement.Node
	for _, id := range ids {
		all = append(all, placement.Node{ID: id, Zone: "z-" + string(id)})
	}
	return all
}

func deadline(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// One node that expects one seat is ready at once, serves the whole API, and
// has everything after a restart.
func TestSingleSeat(t *testing.T) {
	n := newTestNet(t)
	a := n.start("a", 1)
	table, err := a.CreateTable(deadline(t, 10*time.Second), TableSpec{
		Name: "t", Kind: "kv", Replicas: 1, SplitPoints: [][]byte{[]byte("m")},
	})
	if err != nil {
		t.Fatal(err)
	}
	if table.Name != "t" || len(a.Catalog().Groups("t")) != 2 {
		t.Fatalf("table %+v, groups %d", table, len(a.Catalog().Groups("t")))
	}
	g, err := a.Catalog().Lookup("t", []byte("z"))
	if err != nil || g.ID != 2 || g.Membership.Members[0].Node != "a" {
		t.Fatalf("lookup: %+v, %v", g, err)
	}
	grants, err := a.AcquireLocks(deadline(t, 5*time.Second), []LockRequest{{Group: 1, Replica: 1}, {Group: 2, Replica: 1, Above: 9}, {Group: 7, Replica: 1}})
	if err != nil || grants[0].Number != 1 || grants[1].Number != 10 || grants[2].Err == nil {
		t.Fatalf("grants %+v, %v", grants, err)
	}
	n.stop("a")
	a = n.start("a", 1)
	a.wait(t, "catalog after restart", func() bool { return a.Catalog().Version == 1 })
	grants, err = a.AcquireLocks(deadline(t, 5*time.Second), []LockRequest{{Group: 2, Replica: 1}})
	if err != nil || grants[0].Number != 11 {
		t.Fatalf("a number was used again: %+v, %v", grants, err)
	}
	st := a.Status()
	if !st.HasSeat || st.Leader != "a" || st.State != Ready || !slices.Equal(st.Seats, []partition.NodeID{"a"}) {
		t.Fatalf("status %+v", st)
	}
}

// Three seats over loopback TCP: catalog and locks from every node, and the next
// grant soon after the leader has died.
func TestThreeSeats(t *testing.T) {
	n := newTestNet(t)
	ids := []partition.NodeID{"a", "b", "c"}
	for _, id := range ids {
		n.start(id, 3)
	}
	n.leader()
	ctx := deadline(t, 20*time.Second)
	if _, err := n.nodes["b"].CreateTable(ctx, TableSpec{Name: "t", Kind: "kv", Replicas: 3}); err != nil {
		t.Fatal(err)
	}
	number := uint64(0)
	for _, id := range ids {
		x := n.nodes[id]
		x.wait(t, "table", func() bool { _, ok := x.Catalog().Table("t"); return ok })
		grants, err := x.AcquireLocks(ctx, []LockRequest{{Group: 1, Replica: 1, Failover: id != "a"}})
		if err != nil {
			t.Fatal(err)
		}
		if number == 0 {
			number = grants[0].Number
		}
	}
	old := n.leader()
	n.stop(old.id)
	x := n.running()[0]
	start := time.Now()
	grants, err := x.AcquireLocks(ctx, []LockRequest{{Group: 1, Replica: 2, Failover: true}})
	if err != nil || grants[0].Number <= number {
		t.Fatalf("after the leader died: %+v, %v", grants, err)
	}
	t.Logf("next grant %v after the control leader died", time.Since(start).Round(time.Millisecond))
}
