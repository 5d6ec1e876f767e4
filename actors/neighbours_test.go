package actors

import (
	"fmt"
	"testing"
	"time"

	"pando.dev/pando/actors/lease"
	"pando.dev/pando/cluster"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

// TestEveryChangeIsTold: what a replica sees of a node changes only with a hint,
// however short the node was overdue, and hints that overtook each other on their
// way end with what is so.
func TestEveryChangeIsTold(t *testing.T) {
	now := partition.Time(time.Hour)
	clock := func() partition.Time { return now }
	here := lease.New(lease.Config{Self: "n", Boot: 1, Now: clock})
	there := lease.New(lease.Config{Self: "o", Boot: 1, Now: clock})
	there.Open()
	n := newNeighbours("n", here)
	members := []cluster.Node{{ID: "n"}, {ID: "o"}}
	beat := func() {
		b, _ := here.Beat(now, "o")
		a, _ := there.OnBeat(now, "n", b)
		here.OnAnswer(now, "o", a)
	}
	want := func(members []cluster.Node, changed string, reachable bool) {
		t.Helper()
		before := n.Reachable("o")
		got := fmt.Sprint(n.look(members))
		if got != changed || n.Reachable("o") != reachable || (changed != "[]") != (before != reachable) {
			t.Errorf("changed %s, reachable %t, was %t; want %s, %t", got, n.Reachable("o"), before, changed, reachable)
		}
	}
	want(members, "[]", false)
	beat()
	if n.Reachable("o") {
		t.Error("reachable before anybody was told")
	}
	want(members, "[o]", true)
	now += 2 * lease.DefaultLease
	if !n.Reachable("o") {
		t.Error("overdue before anybody was told")
	}
	beat()
	want(members, "[]", true) // nobody ever knew
	now += 2 * lease.DefaultLease
	want(members[:1], "[o]", false) // it has left gossip, too
	beat()
	want(members, "[o]", true)

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
		if now += 2 * lease.DefaultLease; c.then {
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
