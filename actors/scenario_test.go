package actors

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/split"
)

// S1: a member is down while its group is divided. When it comes back it hears of the
// new group, whose master it gets messages from, before it has applied the split. It
// makes its part of the new group from its own state and no copy, and comes to the
// state of the others; meanwhile nobody is told anything that is not so.
func TestMemberMissesASplit(t *testing.T) {
	t.Parallel()
	reached, goOn := make(chan *Node, 1), make(chan struct{})
	var once atomic.Bool
	c := newClusterWith(t, 3, func(cfg *Config) {
		cfg.onSplit = func(n *Node, s *split.Step) {
			if stepName(s) == "seal" && !once.Swap(true) {
				reached <- n
				select {
				case <-goOn:
				case <-n.ctx.Done():
				}
			}
		}
	})
	c.table(TableSpec{Name: "t"})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	table := c.client(t).KV("t")
	x := c.load(ctx, 8, table)
	x.more(50)
	m := c.master("t")
	info, err := c.nodes[m].Split(t.Context(), SplitRequest{Table: "t", At: [][]byte{[]byte("m")}})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case n := <-reached:
		m = slices.Index(c.nodes, n)
	case <-time.After(patience):
		t.Fatal("never came to the seal")
	}
	away := (m + 1) % 3
	c.stop(away)
	close(goOn)
	eventually(t, "both groups serve", func() error {
		parts, err := c.nodes[m].Partitions(t.Context(), "t")
		if err != nil || len(parts) != 2 || parts[0].Master == "" || parts[1].Master == "" {
			return fmt.Errorf("%+v, %v", parts, err)
		}
		return nil
	})
	x.more(50)
	back := c.start(away)
	wait, cancel := contextWithin(t, patience)
	defer cancel()
	if info, err = c.nodes[m].AwaitSplit(wait, info.Task); err != nil {
		t.Fatalf("%+v, %v", info, err)
	}
	x.more(50)
	stop()
	x.check(table)
	for _, p := range verified(t, back, "t").Partitions { // of their own keys: some still have those of the other
		if p.Verdict != VerdictSame || len(p.Replicas) != 3 {
			t.Errorf("%+v", p)
		}
	}
	if st := back.copies.Status(); st.Received > 0 {
		t.Errorf("it was sent %d bytes of a copy", st.Received)
	}
}

// S2: a member left the group and was added again before the group is divided, under
// another id. The new group has it under that id, and what was dropped is made again
// by nobody, whichever group it is asked for.
func TestSplitBesideADroppedReplica(t *testing.T) {
	t.Parallel()
	c := newClusterWith(t, 4, untended)
	g := c.group(TableSpec{Name: "t", Replicas: 3, Nodes: []partition.NodeID{"n1", "n2", "n3"}})
	table := c.any().Client().KV("t")
	for i := range 50 {
		if err := set(t, table, i); err != nil {
			t.Fatal(err)
		}
	}
	_, n := c.onNode(g.peers()[0])
	before := n.cells.get(g.id).view.Load().Self
	g.remove(n)
	id := g.learner(n)
	if id == before {
		t.Fatalf("the id %d is given again", id)
	}
	g.bring(n, hosting{Replica: id, Source: g.masterNode(), MinIndex: 1})
	g.change("a voter", func(m *partition.Membership) { m.At(id).Kind = partition.Full })
	info := c.split(SplitRequest{Table: "t", At: [][]byte{key(25)}})
	for _, x := range n.control.Catalog().AllGroups() {
		y, ok := x.Membership.OnNode(n.ID())
		if !ok || y.Replica != id {
			t.Errorf("%s: %+v has %+v on the node, it was %d there before", x.ID, x.Membership, y, before)
		}
		if err := n.hostReplica(t.Context(), hosting{Group: x.ID, Replica: before, Source: g.masterNode(), MinIndex: 1}); !errors.Is(err, partition.ErrRefused) {
			t.Errorf("%s: the dropped replica is made again: %v", x.ID, err)
		}
	}
	for i := range 50 {
		if v, err := table.Get(t.Context(), key(i)); err != nil || string(v.Value) != string(key(i)) {
			t.Fatalf("%+v: key %d: %+v %v", info, i, v, err)
		}
	}
}

// S6: while a group is being split its members stay what they are, its mastership is
// not handed over and it begins no second split: one change of its structure at a
// time, refused with what is going on. Afterwards it goes.
func TestMembersWhileSplitting(t *testing.T) {
	t.Parallel()
	reached, goOn := make(chan *Node, 1), make(chan struct{})
	var once atomic.Bool
	c := newClusterWith(t, 3, func(cfg *Config) {
		cfg.untended = true
		cfg.onSplit = func(n *Node, s *split.Step) {
			if stepName(s) == "seal" && !once.Swap(true) {
				reached <- n
				select {
				case <-goOn:
				case <-n.ctx.Done():
				}
			}
		}
	})
	g := c.group(TableSpec{Name: "t", Replicas: 3})
	info, err := c.any().Split(t.Context(), SplitRequest{Group: g.id, At: [][]byte{[]byte("m")}})
	if err != nil {
		t.Fatal(err)
	}
	var n *Node
	select {
	case n = <-reached:
	case <-time.After(patience):
		t.Fatal("never came to the seal")
	}
	mc := n.cells.get(g.id)
	last := mc.view.Load().Configurations.Last()
	next := last.Successor()
	next.At(next.Members[0].Replica).Weight = 2
	tries := map[string]func(done func(error)) any{
		"configure": func(done func(error)) any {
			return &configure{membership: next, done: func(_ partition.Index, err error) { done(err) }}
		},
		"hand over": func(done func(error)) any {
			return &transferMaster{to: last.Members[1].Replica, done: done}
		},
	}
	for name, item := range tries {
		answer := make(chan error, 1)
		mc.box.PostUserMessage(item(func(err error) { answer <- err }))
		if err := <-answer; !errors.Is(err, partition.ErrBusy) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := n.Split(t.Context(), SplitRequest{Group: g.id, At: [][]byte{[]byte("f")}}); err == nil {
		t.Error("a second split begins")
	}
	close(goOn)
	wait, cancel := contextWithin(t, patience)
	defer cancel()
	if info, err = n.AwaitSplit(wait, info.Task); err != nil {
		t.Fatalf("%+v, %v", info, err)
	}
	g.change("what was refused", func(m *partition.Membership) { m.At(next.Members[0].Replica).Weight = 2 })
	c.split(SplitRequest{Group: g.id, At: [][]byte{[]byte("f")}})
}
