package control

import (
	"testing"
	"time"

	"pando.dev/pando/partition"
)

// TestLeaderOutOfReach: a node that does not reach the leader, which the other
// seats go on to follow, has its requests brought there by one of them, and keeps
// its session (N7: a bridge).
func TestLeaderOutOfReach(t *testing.T) {
	t.Run("one way", func(t *testing.T) { leaderOutOfReach(t, 1) })
	t.Run("another seat, too", func(t *testing.T) { leaderOutOfReach(t, 2) })
}

func leaderOutOfReach(t *testing.T, seats int) {
	n := newTestNet(t)
	for _, id := range []partition.NodeID{"a", "b", "c", "d"} {
		n.start(id, 3)
	}
	leader := n.leader()
	ctx := deadline(t, 20*time.Second)
	if _, err := leader.CreateTable(ctx, TableSpec{Name: "t", Kind: "kv", Replicas: 3}); err != nil {
		t.Fatal(err)
	}
	var d *testNode // has no seat
	for _, x := range n.running() {
		if !x.Status().HasSeat {
			d = x
		}
	}
	d.wait(t, "table", func() bool { _, ok := d.Catalog().Table("t"); return ok })
	n.sever(d.id, leader.id)
	for _, x := range n.running() {
		if x != d && x.id != leader.id && seats > 1 {
			n.sever(d.id, x.id)
			break
		}
	}
	number := uint64(0)
	for range 5 {
		grants, err := d.AcquireLocks(ctx, []LockRequest{{Group: 1, Replica: 1}})
		if err != nil || grants[0].Number <= number || grants[0].Holder.Node != d.id {
			t.Fatalf("the leader %s is out of reach: %+v, %v", leader.id, grants, err)
		}
		number = grants[0].Number
	}
	if now := n.leader(); now.id != leader.id {
		t.Errorf("%s leads instead of %s", now.id, leader.id)
	}
	if _, err := d.CreateTable(ctx, TableSpec{Name: "u", Kind: "kv", Replicas: 3}); err != nil {
		t.Error(err)
	}
}

// TestRelayTellsTheLeadersCatalog: who reaches the leader through a seat learns how
// far the leader's catalog is, not the seat's, which may have started this moment.
// Otherwise a node would take a catalog without its tables for whole, tell clients
// that there are no such tables, and delete its replicas.
func TestRelayTellsTheLeadersCatalog(t *testing.T) {
	n := newTestNet(t)
	for _, id := range []partition.NodeID{"a", "b", "c"} {
		n.start(id, 3)
	}
	leader := n.leader()
	ctx := deadline(t, 20*time.Second)
	if _, err := leader.CreateTable(ctx, TableSpec{Name: "t", Kind: "kv", Replicas: 3}); err != nil {
		t.Fatal(err)
	}
	for _, x := range n.running() {
		if x.id != leader.id {
			x.wait(t, "the table", func() bool { return x.Status().Leader == leader.id && len(x.Catalog().Tables()) == 1 })
			x.catalog.Store(&Catalog{}) // as of a seat that has not read its log yet
		}
	}
	n.sever("d", leader.id)
	d := n.start("d", 0, func(c *Config) { c.Transport.(*testLink).deaf.Store(true) })
	d.wait(t, "session", d.Admitted)
	if d.Synced() || len(d.Catalog().Tables()) != 0 {
		t.Fatalf("a catalog of version %d is taken for whole, the leader has %d", d.Catalog().Version, leader.Catalog().Version)
	}
	if age, ok := d.Age(); ok {
		t.Errorf("an empty catalog is %s old", age)
	}
	if err := d.AwaitCurrent(ctx); partition.CodeOf(err) != partition.CodeUnavailable {
		t.Errorf("the catalog is current: %v", err)
	}
	if age, ok := leader.Age(); !ok || age > time.Minute {
		t.Errorf("the leader's catalog is %s old, known %v", age, ok)
	}
}

// TestRelayRefused: nobody but a seat speaks for another node, and a request goes
// over one seat only.
func TestRelayRefused(t *testing.T) {
	n := newTestNet(t)
	for _, id := range []partition.NodeID{"a", "b", "c", "d"} {
		n.start(id, 3)
	}
	leader := n.leader()
	var seat, none *testNode
	for _, x := range n.running() {
		switch {
		case !x.Status().HasSeat:
			none = x
		case x.id != leader.id:
			seat = x
		}
	}
	seat.wait(t, "leader", func() bool { return seat.Status().Leader == leader.id })
	ctx := deadline(t, 20*time.Second)
	ask := encode(kindAskPermits, &askPermits{})
	for name, c := range map[string]struct {
		from, to *testNode
		body     any
		want     partition.Code
	}{
		"by who has no seat":   {none, leader, &relayBody{From: "x", Body: ask}, partition.CodeUnauthorized},
		"over two seats":       {seat, seat, &relayBody{From: "x", Body: ask}, partition.CodeNotMaster},
		"nothing to relay":     {none, leader, &relayBody{}, partition.CodeCorrupt},
		"a relay of a relay":   {none, leader, &relayBody{Body: encode(kindAskRelay, &relayBody{Body: ask})}, partition.CodeInvalid},
		"by a seat":            {seat, leader, &relayBody{From: "x", Body: ask}, 0},
		"over a seat":          {none, seat, &relayBody{Body: ask}, 0},
		"to the leader itself": {none, leader, &relayBody{Body: ask}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := c.from.callOnce(ctx, c.to.id, kindAskRelay, c.body)
			if err != nil {
				t.Fatal(err)
			}
			if got := partition.CodeOf(asNil(fromItem(a.Error))); got != c.want {
				t.Errorf("answered %v, want code %v", fromItem(a.Error), c.want)
			}
		})
	}
}
