package actors

import (
	"testing"

	"pando.dev/pando/actors/mailbox"
	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

// TestResignsAgain: a master's replica that failed and cannot be opened again yet,
// for want of space for one, says again and again that it is none any more: the
// first word may be lost, and the heartbeats of its node go on. Once it runs it
// speaks for itself.
func TestResignsAgain(t *testing.T) {
	c := startSingle(t, single(t, t.TempDir()))
	n := &Node{identity: c.any().identity, links: c.any().links}
	m := &partition.Membership{Members: []partition.Member{{Replica: 1, Node: n.ID()}, {Replica: 2, Node: "o"}, {Replica: 3, Node: "p"}}}
	v := &replica.View{Group: 7, Self: 1, Master: 1, Configurations: partition.Configurations{m}}
	x := &cell{group: 7, box: mailbox.New[any](mailbox.Config{})}
	n.cells.put(x)
	tries := func() uint64 {
		a := &replicasActor{node: n, catalog: &flip{cat: &control.Catalog{}}}
		a.reconcile(nil)
		return n.counters.sendRefused.Swap(0) // nobody is there
	}
	if got := tries(); got != 0 {
		t.Errorf("%d messages of one that was never master", got)
	}
	x.resigned.Store(v)
	for range 2 {
		if got := tries(); got != 2 {
			t.Errorf("%d messages while it is being opened, want 2", got)
		}
	}
	x.view.Store(v)
	if got := tries(); got != 0 {
		t.Errorf("%d messages while it runs", got)
	}
}
