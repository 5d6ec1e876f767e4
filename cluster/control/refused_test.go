package control

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pando.dev/pando/partition"
)

// TestTasksThatRememberOthers: what a task remembers of a group is of that group.
func TestTasksThatRememberOthers(t *testing.T) {
	s := seeded(t)
	for what, spoil := range map[string]func(*taskItem){
		"of the group itself": func(i *taskItem) { i.Early = &groupItem{ID: 99, Table: i.Table} },
		"of a child":          func(i *taskItem) { i.Children[0].Told = &groupItem{ID: 99, Table: i.Table} },
	} {
		i, _ := itemOfTask(taskNamed(t, s, 1))
		if _, err := taskOf(&i); err != nil {
			t.Fatal(err)
		}
		spoil(&i)
		if x, err := taskOf(&i); partition.CodeOf(asNil(err)) != partition.CodeCorrupt || x != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestIDsThatWereNeverGiven: a state in which anything has an id that is still to be
// given out is none.
func TestIDsThatWereNeverGiven(t *testing.T) {
	for what, spoil := range map[string]func(*state){
		"a task":  func(s *state) { s.nextTask = 1 },
		"a group": func(s *state) { s.nextGroup = 1 },
		"a child": func(s *state) { s.nextGroup = taskNamed(t, s, 1).Children[1].Group },
		"a table": func(s *state) { s.nextTable = 1 },
	} {
		s := seeded(t)
		tail := &tailBody{Locks: len(s.locks), Tables: len(s.catalog.tables), Groups: len(s.catalog.groups)}
		mustDo(t, s.validate(tail))
		spoil(s)
		if err := s.validate(tail); partition.CodeOf(err) != partition.CodeCorrupt || !strings.Contains(err.Error(), "next") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestRefusedAsAWhole: a command that would make what cannot be changes nothing.
func TestRefusedAsAWhole(t *testing.T) {
	p := permit{replica: 1}
	for r := range partition.ReplicaID(partition.MaxMembers) {
		p.able = append(p.able, r+1)
	}
	if next, err := p.with(ids(partition.MaxMembers + 1)); partition.CodeOf(asNil(err)) != partition.CodeTooLarge || len(next.able) != len(p.able) {
		t.Errorf("one more than there can be members: %v", err)
	}
	ask := &askCreate{
		Table: tableBody{Token: "t", Name: "t", Kind: "kv", Replicas: 1, Rule: partition.Majority},
		Nodes: []placeItem{{Node: "a", Zone: strings.Repeat("z", partition.MaxZoneBytes+1)}},
	}
	if b, err := prepareCreate(ask, 1); partition.CodeOf(err) != partition.CodeInvalid || b != nil {
		t.Errorf("a zone that no configuration can name: %v", err)
	}
}

// TestSeatThatDoesNotStart: a seat that the library refuses leaves its store closed,
// and starts when what was wrong is put right.
func TestSeatThatDoesNotStart(t *testing.T) {
	n := newTestNet(t)
	link := n.start("a", 3).link // of a node that has no seat of its own yet
	c := Config{Node: "a", Boot: 1, Dir: t.TempDir(), Transport: link}.withDefaults()
	good := c.RaftTimeout
	c.RaftTimeout = time.Nanosecond
	none := func(error) {}
	if _, err := openSeat(&c, []partition.NodeID{"a"}, func() {}, none); err == nil || !strings.Contains(err.Error(), "seat") {
		t.Fatalf("a timeout of a nanosecond: %v", err)
	}
	c.RaftTimeout = good
	s, err := openSeat(&c, []partition.NodeID{"a"}, func() {}, none)
	mustDo(t, err)
	mustDo(t, s.close())
	c.Dir = filepath.Join(c.Dir, "file")
	mustDo(t, os.WriteFile(c.Dir, nil, 0o600))
	if _, err := openSeat(&c, []partition.NodeID{"a"}, func() {}, none); err == nil {
		t.Error("a file for a directory")
	}
}

// TestSeatThatDoesNotLead: whoever asks a seat that does not lead, or has none that
// does, is told so, and nothing was done.
func TestSeatThatDoesNotLead(t *testing.T) {
	n := newTestNet(t)
	alone := n.start("x", 3)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := alone.AwaitCurrent(ctx); partition.CodeOf(err) != partition.CodeUnavailable && partition.CodeOf(err) != partition.CodeTimeout {
		t.Errorf("without a leader: %v", err)
	}
	n = newTestNet(t)
	for _, id := range []partition.NodeID{"a", "b", "c"} {
		n.start(id, 3)
	}
	n.until("a follower to be asked", func() bool {
		leader := n.leader()
		if leader == nil || slices.ContainsFunc(n.running(), func(x *testNode) bool { return x.usableSeat() == nil }) {
			return false
		}
		led := n.running()[0]
		if led == leader {
			led = n.running()[1]
		}
		s, before := led.usableSeat(), led.Catalog().Version
		if s.leads() {
			return false
		}
		s.ripe.Store(0)
		_, renewal := led.serveRenew(t.Context(), s, "x", encode(kindAskRenew, &askRenew{Boot: 1}))
		_, command := s.propose(t.Context(), kindDrop, &dropBody{Token: "d", Name: "t"})
		if s.leads() || n.leader() != leader {
			return false // on a slow machine it changes, and there may be two for a moment
		}
		if partition.CodeOf(asNil(renewal)) != partition.CodeNotMaster {
			t.Errorf("a renewal: %v", renewal)
		}
		if partition.CodeOf(asNil(command)) != partition.CodeNotMaster || led.Catalog().Version != before {
			t.Errorf("a command: %v", command)
		}
		return true
	})
}
