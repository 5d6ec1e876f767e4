package actors

import (
	"fmt"
	"testing"
	"time"

	"pando.dev/pando/actors/client"
	"pando.dev/pando/partition"
)

// cost is what a cluster's nodes have sent each other for reads.
type cost struct{ messages, questions uint64 }

func (c *testCluster) cost() (sum cost) {
	for _, n := range c.nodes {
		sum.messages += n.counters.sent.Load()
		sum.questions += n.counters.indexAsked.Load()
	}
	return sum
}

// TestReadCosts covers LEA-1 and LEA-6: it counts what each level costs between
// the nodes. A quorum read of three members is one round: two messages and as
// many answers. A question to the master is one call and its answer.
func TestReadCosts(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	c.table(TableSpec{Name: "t"})
	m := c.master("t")
	master, slave := c.nodes[m], c.nodes[(m+1)%3]
	seen := new(client.Seen)
	if _, err := master.Client().KV("t").With(client.ReadOptions{Seen: seen}).Put(t.Context(), []byte("k"), []byte("v")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the others caught up", func() error {
		for _, n := range c.nodes {
			if got, want := n.applied("t"), master.applied("t"); got != want {
				return fmt.Errorf("%s has applied %d of %d", n.ID(), got, want)
			}
		}
		return nil
	})
	c.quiet()
	long := time.Hour // an age that what was learned once stays within
	for _, x := range []struct {
		name  string
		at    *Node
		o     client.ReadOptions
		first cost // of the first read
		next  cost // of each further one
	}{
		{"lease at the master", master, client.ReadOptions{}, cost{}, cost{}},
		{"quorum at the master", master, client.ReadOptions{Level: client.Quorum}, cost{4, 0}, cost{4, 0}},
		{"session at the master", master, client.ReadOptions{Level: client.Session, Seen: seen}, cost{}, cost{}},
		{"session at a caught-up replica", slave, client.ReadOptions{Level: client.Session, Seen: seen}, cost{}, cost{}},
		{"stale at the master", master, client.ReadOptions{Level: client.Stale}, cost{}, cost{}},
		{"stale at a replica", slave, client.ReadOptions{Level: client.Stale}, cost{}, cost{}},
		{"stale by index at a replica", slave, client.ReadOptions{Level: client.Stale, MinIndex: partition.Index(slave.applied("t"))}, cost{}, cost{}},
		{"stale by age at the master", master, client.ReadOptions{Level: client.Stale, MaxAge: time.Second}, cost{}, cost{}},
		{"stale by age at a replica", slave, client.ReadOptions{Level: client.Stale, MaxAge: long}, cost{0, 1}, cost{}},
	} {
		const further = 20
		lapsed := master.counters.quorumReads.Load()
		before := c.cost()
		res := readOnce(t, x.at, x.o)
		first := c.cost()
		for range further {
			res = readOnce(t, x.at, x.o)
		}
		if x.next.messages > 0 {
			c.quiet() // the slower member answers after the read is over
		}
		after := c.cost()
		if x.o.Level != client.Quorum && master.counters.quorumReads.Load() != lapsed {
			t.Logf("%-31s the lease lapsed meanwhile, nothing is counted", x.name)
			continue
		}
		got1 := cost{first.messages - before.messages, first.questions - before.questions}
		got := cost{after.messages - first.messages, after.questions - first.questions}
		t.Logf("%-31s first read %d messages %d questions, %d more %d and %d; shows record %d, age %v (known %v)",
			x.name, got1.messages, got1.questions, further, got.messages, got.questions, res.Index, res.Age, res.AgeKnown)
		want := cost{further * x.next.messages, further * x.next.questions}
		if all := got1.messages + got.messages; x.next.messages > 0 && all >= x.first.messages+want.messages {
			continue // a machine that is busy may have asked the members twice
		}
		if got1 != x.first || got != want {
			t.Errorf("%s: first %+v, then %+v for %d; want %+v and %+v each", x.name, got1, got, further, x.first, x.next)
		}
	}
}

// readOnce reads key k through a node's client, which asks the node's own replica
// first, and the master at the levels that want it.
func readOnce(t *testing.T, n *Node, o client.ReadOptions) (res client.Result) {
	t.Helper()
	o.Answered = func(r client.Result) { res = r }
	a, err := n.Client().KV("t").With(o).Get(t.Context(), []byte("k"))
	if err != nil || string(a.Value) != "v" {
		t.Fatalf("%s with %+v: %q, %v", n.ID(), o, a.Value, err)
	}
	return res
}

// applied is the record that the node's replica of a table's only partition
// reflects.
func (n *Node) applied(table string) uint64 {
	for _, g := range n.control.Catalog().Groups(table) {
		if c := n.cells.get(g.ID); c != nil {
			if st := c.state.Load(); st != nil {
				return uint64(st.held.index())
			}
		}
	}
	return 0
}
