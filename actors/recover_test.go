package actors

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
)

// rescueCase is a group and what is left of it. Members are "node:zone" or
// "node:zone:kind"; a node that answers says "index@epoch number/commit", "none",
// "opening" or "broken"; one that is not named does not answer.
type rescueCase struct {
	name    string
	policy  string
	members string
	says    map[string]string
	dead    string
	permit  control.Permit

	state, why, next, loss, node, becomes string
}

func (c *rescueCase) facts(t *testing.T) *groupFacts {
	t.Helper()
	policy, err := partition.ParsePolicy(c.policy)
	if err != nil {
		t.Fatal(err)
	}
	m := &partition.Membership{Version: 4, Policy: policy}
	for i, s := range strings.Fields(c.members) {
		parts := strings.Split(s+"::", ":")
		x := partition.Member{Replica: partition.ReplicaID(i + 1), Node: partition.NodeID(parts[0]), Zone: parts[1], Kind: partition.Full, Eligible: true}
		switch parts[2] {
		case "log":
			x.Kind = partition.LogReplica
		case "new":
			x.Kind = partition.Learner
		case "out":
			x.Eligible = false
		}
		m.Members = append(m.Members, x)
	}
	m.Next = partition.ReplicaID(len(m.Members) + 1)
	if err := m.Validate(); err != nil {
		t.Fatalf("%s: %v", c.name, err)
	}
	f := &groupFacts{
		group: &control.Group{ID: 17, Membership: m}, table: "t", permit: c.permit,
		surveys: map[partition.NodeID]*survey{}, answered: map[partition.NodeID]bool{},
	}
	for _, d := range strings.Fields(c.dead) {
		f.dead = append(f.dead, partition.NodeID(d))
	}
	for node, says := range c.says {
		id := partition.NodeID(node)
		f.answered[id] = true
		if says == "none" {
			continue
		}
		member, _ := m.OnNode(id)
		s := &survey{Group: 17, Replica: member.Replica, active: partition.Configurations{m}}
		switch says {
		case "opening":
			s.Opening = true
		case "broken":
			s.Broken = "rot in record 7"
		default:
			says, s.Serving = strings.CutSuffix(says, "!")
			parts := strings.FieldsFunc(says, func(r rune) bool { return r == '@' || r == '/' })
			n := make([]uint64, 3)
			for i := range n {
				if n[i], err = strconv.ParseUint(parts[i], 10, 64); err != nil {
					t.Fatal(err)
				}
			}
			s.Last = partition.Position{Index: partition.Index(n[0]), Epoch: partition.NewEpoch(n[1], 1)}
			s.Commit = partition.Index(n[2])
		}
		f.surveys[id] = s
	}
	return f
}

func rescueCases() []rescueCase {
	return slices.Concat(waitingCases(), lostCases(), oddCases(), soloCases())
}

// waitingCases are groups that need nobody's help, or may yet.
func waitingCases() []rescueCase {
	return []rescueCase{
		{
			name: "all there", policy: "majority", members: "n1:a n2:b n3:c", says: map[string]string{"n1": "9@1/9!", "n2": "9@1/9", "n3": "9@1/9"},
			state: RecoverServes, why: "it has a master, on n1, and who it needs",
		},
		{
			name: "a majority without a master yet", policy: "majority", members: "n1:a n2:b n3:c", says: map[string]string{"n1": "9@1/9", "n2": "9@1/9"},
			state: RecoverServes, why: "those that answer can elect a master and commit", next: "wait a moment",
		},
		{
			name: "two do not answer", policy: "majority", members: "n1:a n2:b n3:c", says: map[string]string{"n1": "9@1/9"},
			state: RecoverWaits, why: "it cannot fail over or commit: missing are zone b (n2) and zone c (n3); one of them has to come back",
			next: "start n2 and n3 again; if gone for good: pando recover plan g17 --dead n2,n3",
		},
		{
			name: "one of two is confirmed", policy: "majority", members: "n1:a n2:b n3:c", says: map[string]string{"n1": "9@1/9"}, dead: "n3",
			state: RecoverWaits, why: "missing are zone b (n2) and zone c (n3)", next: "start n2 again; if gone for good: pando recover plan g17 --dead n2,n3",
		},
		{
			name: "one is being opened", policy: "majority", members: "n1:a n2:b n3:c", says: map[string]string{"n1": "9@1/9", "n2": "opening", "n3": "none"},
			state: RecoverWaits, next: "start n2 again",
		},
	}
}

// lostCases are groups of which enough members are lost.
func lostCases() []rescueCase {
	return []rescueCase{
		{
			name: "two are dead", policy: "majority", members: "n1:a n2:b n3:c", says: map[string]string{"n1": "812@7/790"}, dead: "n2 n3",
			state: RecoverLost, node: "n1", why: "it cannot fail over or commit",
			loss:    "acknowledged writes after record 812 that were only on n2 and n3 may be lost; all through record 790 are kept for certain, and records 791 to 812 as they are on n1, unless a later master put others in their place",
			becomes: "a write is on disk at the only voter; stops when its only node is lost",
		},
		{
			name: "all of it is known to be committed", policy: "majority", members: "n1:a n2:b n3:c", says: map[string]string{"n1": "812@7/812"}, dead: "n2 n3",
			state: RecoverLost, node: "n1",
			loss: "acknowledged writes after record 812 that were only on n2 and n3 may be lost; all through record 812 are kept for certain",
		},
		{
			name: "two of five are left", policy: "majority", members: "n1:a n2:b n3:c n4:a n5:b", says: map[string]string{"n1": "800@7/790", "n2": "799@8/795"}, dead: "n3 n4 n5",
			state: RecoverLost, node: "n2", // the newer epoch, though the shorter log
			loss:    "acknowledged writes after record 799 that were only on n3, n4 and n5 may be lost; all through record 795 are kept for certain, and records 796 to 799 as they are on n2, unless",
			becomes: "a write is on disk at two of two voters",
		},
		{
			name: "one is damaged, one lost its disk", policy: "majority", members: "n1:a n2:b n3:c", says: map[string]string{"n1": "9@1/9", "n2": "broken", "n3": "none"},
			state: RecoverLost, node: "n1", loss: "only on n2 and n3 may be lost",
		},
		{
			name: "every zone is needed to commit", policy: "zones:3", members: "n1:a n2:b n3:c", says: map[string]string{"n1": "9@1/9", "n2": "9@1/8"}, dead: "n3",
			state: RecoverLost, node: "n1", why: "it cannot commit: missing is zone c (n3)", loss: "nothing that was acknowledged; those that are left have all of it",
			becomes: "a write is on disk in two of two zones",
		},
		{
			name: "one zone of three is left", policy: "zones:2", members: "n1:a n2:a n3:b n4:b n5:c n6:c", says: map[string]string{"n5": "9@1/9", "n6": "8@1/8"}, dead: "n1 n2 n3 n4",
			state: RecoverLost, node: "n5", loss: "only on n1, n2, n3 and n4 may be lost", becomes: "a write is on disk in one of one zone",
		},
	}
}

// oddCases are groups with members of other kinds, or nobody to go on.
func oddCases() []rescueCase {
	return []rescueCase{
		{
			name: "a log replica is newer", policy: "majority", members: "n1:a n2:b n3:c n4:d:log n5:e", says: map[string]string{"n1": "800@7/790", "n4": "820@7/790"}, dead: "n2 n3 n5",
			state: RecoverLost, node: "n1",
			loss:    "acknowledged writes after record 820 that were only on n2, n3 and n5 may be lost; all through record 790 are kept for certain, and records 791 to 820 as they are on n4",
			becomes: "needs two zones to fail over",
		},
		{
			name: "only a log replica is left", policy: "majority", members: "n1:a n2:b n3:c:log", says: map[string]string{"n3": "820@7/790"}, dead: "n1 n2",
			state: RecoverNobody, why: "no member that is left keeps the partition's state", next: "bring one of the lost nodes back",
		},
		{
			name: "nobody is left", policy: "majority", members: "n1:a n2:b n3:c", dead: "n1 n2 n3",
			state: RecoverNobody, why: "no member that is left",
		},
		{
			name: "only a drained one is left", policy: "majority", members: "n1:a n2:b n3:c n4:d:out", says: map[string]string{"n4": "700@7/690"}, dead: "n1 n2 n3",
			state: RecoverLost, node: "n4", loss: "acknowledged writes after record 700 that were only on n1, n2 and n3 may be lost", becomes: "a write is on disk at the only voter",
		},
		{
			name: "a learner is not asked for", policy: "majority", members: "n1:a n2:b n3:c n4:d:new", says: map[string]string{"n1": "9@1/9"}, dead: "n2 n3",
			state: RecoverLost, node: "n1", loss: "only on n2 and n3 may be lost",
		},
	}
}

// soloCases are groups of which somebody goes on alone.
func soloCases() []rescueCase {
	held := control.Permit{Group: 17, Number: 3, Node: "n1", Replica: 1, Able: []partition.ReplicaID{1}}
	return []rescueCase{
		{
			name: "a pair that goes alone by itself", policy: "all-in-sync", members: "n1:a n2:b", says: map[string]string{"n1": "9@1/9"}, dead: "n2",
			state: RecoverServes, why: "one that is left may go on alone, and does so by itself", next: "wait a moment",
		},
		{
			name: "two of three in sync are left, and neither goes on alone", policy: "all-in-sync", members: "n1:a n2:b n3:c",
			says:  map[string]string{"n1": "9@1/9", "n2": "10@1/9"},
			state: RecoverWaits, next: "start n3 again; if gone for good: pando recover plan g17 --dead n3",
		},
		{
			name: "two of three in sync are left for good", policy: "all-in-sync", members: "n1:a n2:b n3:c",
			says: map[string]string{"n1": "9@1/9", "n2": "10@1/9"}, dead: "n3",
			state: RecoverLost, node: "n2", loss: "nothing that was acknowledged; those that are left have all of it",
		},
		{
			name: "a master among equals goes on", policy: "majority", members: "n1:a n2:b n3:c n4:d n5:e",
			says: map[string]string{"n1": "9@1/9", "n2": "9@1/9!"}, dead: "n3 n4 n5",
			state: RecoverLost, node: "n2", loss: "may be lost",
		},
		{
			name: "the last of three in sync", policy: "all-in-sync", members: "n1:a n2:b n3:c", says: map[string]string{"n1": "9@1/9"}, dead: "n2 n3",
			state: RecoverServes, why: "does so by itself",
		},
		{
			name: "the holder of a permit is left", policy: "all-in-sync", members: "n1:a n2:b", says: map[string]string{"n1": "9@1/9"}, dead: "n2", permit: held,
			state: RecoverServes, why: "does so by itself",
		},
		{
			name: "the one that went on alone is lost", policy: "all-in-sync", members: "n1:a n2:b", says: map[string]string{"n2": "9@1/9"}, dead: "n1", permit: held,
			state: RecoverLost, node: "n2",
			loss: "acknowledged writes after record 9 that were only on n1, which went on alone, may be lost; all through record 9 are kept for certain",
		},
		{
			name: "the one that went on alone may come back", policy: "all-in-sync", members: "n1:a n2:b", says: map[string]string{"n2": "9@1/9"}, permit: held,
			state: RecoverWaits, next: "start n1 again; if gone for good: pando recover plan g17 --dead n1",
		},
		{
			name: "decreed and not done", policy: "majority", members: "n1:a n2:b n3:c", says: map[string]string{"n1": "9@1/9"}, dead: "n2 n3",
			permit: control.Permit{Group: 17, Number: 1, Node: "n1", Replica: 1, Able: []partition.ReplicaID{1}, Decreed: true},
			state:  RecoverLost, node: "n1", loss: "only on n2 and n3 may be lost",
		},
	}
}

// TestPlanGroup: what a plan says, and to whom it gives a group.
func TestPlanGroup(t *testing.T) {
	for _, c := range rescueCases() {
		p := planGroup(c.facts(t))
		for _, x := range []struct{ what, got, want string }{
			{"why", p.Why, c.why}, {"next", p.Next, c.next}, {"loss", p.Loss, c.loss}, {"becomes", p.Becomes, c.becomes},
		} {
			if !strings.Contains(x.got, x.want) {
				t.Errorf("%s: %s is %q, want %q", c.name, x.what, x.got, x.want)
			}
		}
		if p.State != c.state || string(p.Node) != c.node {
			t.Errorf("%s: %s by %q, want %s by %q (%s)", c.name, p.State, p.Node, c.state, c.node, p.Why)
		}
		if (p.State == RecoverLost) != (p.next != nil) {
			t.Errorf("%s: %s with %+v", c.name, p.State, p.next)
		}
		if p.next != nil {
			checkRescue(t, c.name, &p)
		}
	}
}

// checkRescue: what a group becomes has only survivors, all that can count, can
// be met by them, and is one that everybody left out cannot meet.
func checkRescue(t *testing.T, name string, p *PartitionRescue) {
	t.Helper()
	if err := p.next.Validate(); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	left := func(r partition.ReplicaID) bool {
		return slices.ContainsFunc(p.Survivors, func(s Survivor) bool { return s.Replica == r })
	}
	for _, m := range p.next.Members {
		if !left(m.Replica) {
			t.Errorf("%s: replica %d is lost and in %+v", name, m.Replica, p.next)
		}
	}
	if !p.next.Serves(left) || p.next.Version != p.last.Version+1 || p.next.Next != p.last.Next+recoverGap {
		t.Errorf("%s: becomes %+v", name, p.next)
	}
	x, _ := p.next.Member(p.Replica)
	if x.Node != p.Node || x.Kind != partition.Full || !x.Eligible {
		t.Errorf("%s: goes on with %+v", name, x)
	}
	// Who leads has, or needs, the newest log that is left.
	if newest := p.Survivors[0]; newest.Replica != p.Replica {
		without := func(r partition.ReplicaID) bool { return left(r) && r != newest.Replica }
		var chosen Survivor
		for _, s := range p.Survivors {
			if s.Replica == p.Replica {
				chosen = s
			}
		}
		if chosen.end.Compare(newest.end) < 0 && p.next.CanFailover(without) {
			t.Errorf("%s: replica %d leads without the newest log, of replica %d", name, p.Replica, newest.Replica)
		}
	}
}

// TestPlanID: the id names what is lost, who is dead and exactly this state; it
// is read back, and every difference makes another one.
func TestPlanID(t *testing.T) {
	base := rescueCase{policy: "majority", members: "n1:a n2:b n3:c", says: map[string]string{"n1": "9@1/9"}, dead: "n3 n2"}
	id := func(c rescueCase) string {
		f := c.facts(t)
		return planID([]PartitionRescue{planGroup(f)}, f.dead)
	}
	first := id(base)
	ask, err := parsePlan(first)
	if err != nil || !slices.Equal(ask.Groups, []partition.GroupID{17}) || !slices.Equal(ask.Dead, []partition.NodeID{"n2", "n3"}) {
		t.Fatalf("%s reads as %+v, %v", first, ask, err)
	}
	seen := map[string]string{first: "the plan"}
	for what, change := range map[string]func(c *rescueCase){
		"the same again": func(*rescueCase) {},
		"a longer log":   func(c *rescueCase) { c.says = map[string]string{"n1": "10@1/9"} },
		"another epoch":  func(c *rescueCase) { c.says = map[string]string{"n1": "9@2/9"} },
		"more committed": func(c *rescueCase) { c.says = map[string]string{"n1": "9@1/8"} },
		"another number": func(c *rescueCase) { c.permit.Number = 2 },
		"other members":  func(c *rescueCase) { c.members = "n1:a n2:b n3:d" },
		"no survivor":    func(c *rescueCase) { c.says = nil; c.dead = "n1 n2 n3" },
		"not lost":       func(c *rescueCase) { c.dead = "" },
	} {
		c := base
		change(&c)
		got := id(c)
		if what == "the same again" != (got == first) {
			t.Errorf("%s: %s, first %s", what, got, first)
		}
		if old, ok := seen[got]; ok && got != "" && got != first {
			t.Errorf("%s has the plan of %s", what, old)
		}
		seen[got] = what
	}
	for _, bad := range []string{"", "g17", "g17/n2", "g17/n2/xyz", "17/n2/0123456789abcdef", "/n2/0123456789abcdef", "g17,/n2/0123456789abcdef",
		"g17/n2/0123456789abcdef/", strings.Repeat("g1,", MaxRecover) + "g1/n2/0123456789abcdef"} {
		if _, err := parsePlan(bad); partition.CodeOf(err) != partition.CodeInvalid {
			t.Errorf("%.60q: %v", bad, err)
		}
	}
	if _, err := parsePlan(fmt.Sprintf("g1//%s", strings.Repeat("0", 16))); err != nil {
		t.Errorf("a plan without dead nodes: %v", err)
	}
}
