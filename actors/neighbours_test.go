package actors

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pando.dev/pando/cluster"
	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/lease"
	"pando.dev/pando/partition/replica"
)

// supporterOn is the group's replica on a node, supporting from the node's present
// incarnation.
func supporterOn(n *Node, g *control.Group) replica.Supporter {
	m, _ := g.Membership.OnNode(n.ID())
	return replica.Supporter{Replica: m.Replica, Boot: n.identity.Boot}
}

// two are a node n and its neighbour o.
type two struct {
	now   partition.Time
	n     *neighbours
	there *lease.Table
}

func newTwo() *two {
	w := &two{now: time.Hour}
	w.n = newNeighbours("n", lease.New(lease.Config{Self: "n", Boot: 1, Now: func() partition.Time { return w.now }}))
	w.restart(1)
	return w
}

// restart makes o another incarnation.
func (w *two) restart(boot uint64) {
	w.there = lease.New(lease.Config{Self: "o", Boot: boot, Now: func() partition.Time { return w.now }})
	w.there.Open()
}

func (w *two) beat() {
	b, _ := w.n.Beat(w.now, "o")
	a, _ := w.there.OnBeat(w.now, "n", b)
	w.n.OnAnswer(w.now, "o", a)
}

// TestEveryChangeIsTold: what a replica sees of a node changes only with a hint,
// however short the node was overdue, and hints that overtook each other on their
// way end with what is so.
func TestEveryChangeIsTold(t *testing.T) {
	w := newTwo()
	n, members, beat := w.n, []cluster.Node{{ID: "n"}, {ID: "o"}}, w.beat
	want := func(members []cluster.Node, changed string, reachable bool) {
		t.Helper()
		before := n.Reachable("o")
		got := fmt.Sprint(n.look(members))
		if got != changed || n.Reachable("o") != reachable || (changed != "[]" && !strings.Contains(changed, "true true")) != (before != reachable) {
			t.Errorf("changed %s, reachable %t, was %t; want %s, %t", got, n.Reachable("o"), before, changed, reachable)
		}
	}
	want(members, "[]", false)
	beat()
	if n.Reachable("o") {
		t.Error("reachable before anybody was told")
	}
	want(members, "[{o true false}]", true)
	w.now += 2 * lease.DefaultLease
	if !n.Reachable("o") {
		t.Error("overdue before anybody was told")
	}
	beat()
	want(members, "[]", true) // nobody ever knew
	w.now += 2 * lease.DefaultLease
	want(members[:1], "[{o false false}]", false) // it has left gossip, too
	beat()
	want(members, "[{o true false}]", true)

	w.restart(2)
	beat()
	want(members, "[{o true true}]", true) // back before anybody saw it go
	want(members, "[]", true)

	for _, c := range []struct {
		up   bool // what the hint says
		then bool // what is so when it is taken
		want string
	}{
		{true, true, "up"}, {false, false, "down"},
		{false, true, "down up"}, // it was away, or this one was overtaken
		{true, false, "down"},
	} {
		a := &replicaActor{node: &Node{neighbours: n}, machine: new(replica.Replica)}
		if w.now += 2 * lease.DefaultLease; c.then {
			beat()
		}
		n.look(members)
		a.take(&neighbour{node: "o", up: c.up})
		got := ""
		for _, e := range a.driver.events {
			switch e.Input.(type) {
			case replica.NodeUp:
				got += " up"
			case replica.NodeDown:
				got += " down"
			}
		}
		if got != " "+c.want {
			t.Errorf("up %t, by then %t: told%s, want %s", c.up, c.then, got, c.want)
		}
	}
}
