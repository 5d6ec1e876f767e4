package partition

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestSuccessorEdits(t *testing.T) {
	m := group3()
	n := m.Successor()
	if n.Version != 5 || n.Add(Member{Node: "n9", Kind: Learner}) != 9 || n.Next != 10 || !n.Remove(3) || n.Remove(3) || n.At(3) != nil {
		t.Errorf("edited into %+v", n)
	}
	n.At(1).Weight = 7
	if !reflect.DeepEqual(m, group3()) {
		t.Errorf("the one before became %+v", m)
	}
	if err := m.CheckNext(n); err != nil {
		t.Error(err)
	}
}

// MEM-1 (versions by one), MEM-5 (learners first), LOC-8 (zones and policies are
// changed by a record), SMF-9 (ids are never used again).
func TestCheckNext(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(n *Membership)
		want string
		code error
	}{
		{"nothing", func(n *Membership) {}, "", nil},
		{"the same version", func(n *Membership) { n.Version = 4 }, "does not follow", ErrRefused},
		{"a version left out", func(n *Membership) { n.Version = 6 }, "does not follow", ErrRefused},
		{"invalid", func(n *Membership) { n.Policy.Zones = 9 }, "cannot be met", ErrInvalid},
		{"alone", func(n *Membership) { n.Alone, n.Permit = 3, 3 }, "permits", ErrInvalid},
		{"ids given back", func(n *Membership) { n.Remove(8); n.Next, n.Policy.Zones = 4, 1 }, "never used again", ErrInvalid},
		{"another node", func(n *Membership) { n.At(1).Node = "n7" }, "another copy is another replica", ErrInvalid},
		{"another zone", func(n *Membership) { n.At(1).Zone = "w" }, "", nil},
		{"another policy", func(n *Membership) { n.Policy = Policy{Rule: Majority} }, "", nil},
		{"another weight", func(n *Membership) { n.At(8).Weight = 3 }, "", nil},
		{"log to full", func(n *Membership) { n.At(3).Kind = Full }, "", nil},
		{"full to log", func(n *Membership) { n.At(8).Kind, n.Policy.Zones = LogReplica, 1 }, "cannot become", ErrInvalid},
		{"full to learner", func(n *Membership) { n.At(8).Kind, n.Policy.Zones = Learner, 1 }, "cannot become", ErrInvalid},
		{"a new learner", func(n *Membership) { n.Add(Member{Node: "n4", Kind: Learner, Eligible: true}) }, "", nil},
		{"a new full member", func(n *Membership) { n.Add(Member{Node: "n4", Kind: Full}) }, "begin as learner", ErrInvalid},
		{"an old id", func(n *Membership) {
			n.Members = slices.Insert(n.Members, 1, Member{Replica: 2, Node: "n4", Kind: Learner})
		}, "is gone", ErrInvalid},
		{"in place of another, on its node", func(n *Membership) {
			n.Remove(8)
			n.Policy = Policy{Rule: Majority}
			n.At(3).Kind = Full
			n.Add(Member{Node: "n3", Kind: Learner, Eligible: true})
		}, "", nil},
	} {
		n := group3().Successor()
		c.do(n)
		err := group3().CheckNext(n)
		if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, c.code) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	m := group3()
	m.Members[0].Kind = Learner
	m.Policy.Zones = 1
	for _, k := range []MemberKind{Full, LogReplica} {
		n := m.Successor()
		n.At(1).Kind = k
		if err := m.CheckNext(n); err != nil {
			t.Errorf("learner to %s: %v", k, err)
		}
	}
}

func TestSameButMode(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(n *Membership)
		want bool
	}{
		{"ineligible", func(n *Membership) { n.At(8).Eligible = false }, true},
		{"and another zone", func(n *Membership) { n.At(8).Eligible, n.At(1).Zone = false, "w" }, false},
		{"a member less", func(n *Membership) { n.Remove(8) }, false},
		{"another policy", func(n *Membership) { n.Policy.Zones = 1 }, false},
		{"alone", func(n *Membership) { n.At(8).Eligible, n.Alone = false, 3 }, false},
	} {
		n := group3().Successor()
		c.do(n)
		if got := group3().SameButMode(n); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// CAT-4: who was left behind is known from the configuration alone, until it
// counts again.
func TestGoAlone(t *testing.T) {
	pair := &Membership{Version: 1, Policy: Policy{Rule: AllInSync}, Next: 1}
	for _, n := range []NodeID{"n1", "n2"} {
		pair.Add(Member{Node: n, Kind: Full, Eligible: true})
	}
	next := pair.Successor()
	next.At(2).Eligible = false
	solo := Configurations{pair}.GoAlone(next, 7)
	if solo.Version != 2 || solo.Alone != 7 || solo.Permit != 7 || !slices.Equal(solo.LeftBehind, []ReplicaID{2}) || solo.Validate() != nil {
		t.Fatalf("%+v", solo)
	}
	more := solo.Successor()
	more.Add(Member{Node: "n3", Kind: Learner, Eligible: true})
	if more.Alone != 0 || more.Permit != 7 || !slices.Equal(more.LeftBehind, []ReplicaID{2}) {
		t.Errorf("with a learner: %+v", more)
	}
	gone := more.Successor()
	gone.Remove(2)
	if gone = more.Follow(gone); !slices.Equal(gone.LeftBehind, []ReplicaID{2}) {
		t.Errorf("removed, and forgotten: %+v", gone)
	}
	back := solo.Successor()
	back.At(2).Eligible = true
	if back = solo.Follow(back); back.Permit != 7 || len(back.LeftBehind) != 0 {
		t.Errorf("back: %+v", back)
	}
	if after := back.Successor(); after.Permit != 7 {
		t.Errorf("after that: %+v", after)
	}
	// Alone again, before the other one is back: nobody is forgotten.
	again := Configurations{more}.GoAlone(more.Successor(), 9)
	if again.Permit != 9 || !slices.Equal(again.LeftBehind, []ReplicaID{2}) || again.Version != 4 {
		t.Errorf("again: %+v", again)
	}
}
