package split

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pando.dev/pando/partition"
)

const ms = time.Millisecond

func group(nodes ...string) *partition.Membership {
	m := &partition.Membership{Version: 3, Policy: partition.Policy{Rule: partition.Majority}, Next: 1}
	for _, n := range nodes {
		m.Add(partition.Member{Node: partition.NodeID(n), Zone: "z" + n, Kind: partition.Full, Eligible: true})
	}
	return m
}

func keys(lo, hi string) partition.KeyRange {
	r := partition.KeyRange{}
	if lo != "" {
		r.Lo = []byte(lo)
	}
	if hi != "" {
		r.Hi = []byte(hi)
	}
	return r
}

// desk is a group at the driver's desk: its situation, and the log that the steps
// go to. What a step asks for happens at once, unless the test says otherwise.
type desk struct {
	t    testing.TB
	s    Situation
	last partition.Index
	told []Report
}

func newDesk(t testing.TB) *desk {
	d := &desk{t: t, last: 100, s: Situation{
		Group: 3, Self: 1, Now: time.Hour, Serving: true, Since: time.Hour, Version: 5, Range: keys("b", "t"), Membership: group("n1", "n2", "n3"),
		Task: &Task{ID: 7, Version: 5, Deadline: time.Hour + time.Minute, Children: []Wanted{{Group: 18, Range: keys("m", "t")}}},
	}}
	for r := partition.ReplicaID(1); r <= 3; r++ {
		d.s.Peers = append(d.s.Peers, Peer{Replica: r, Up: true, State: true, Prepared: true, Match: 100, Heard: time.Hour})
	}
	return d
}

// append puts a record into the log, applies it, and brings it to the members.
func (d *desk) append(k partition.Kind, payload []byte, to ...partition.ReplicaID) {
	d.t.Helper()
	d.last++
	x, err := d.s.Extent.Next(k, payload, d.last)
	if err != nil {
		d.t.Fatalf("%s: %v", k, err)
	}
	d.s.Extent = x
	for i := range d.s.Peers {
		for _, r := range to {
			if d.s.Peers[i].Replica == r {
				d.s.Peers[i].Match = d.last
			}
		}
	}
}

// do takes one step and returns it.
func (d *desk) do() Step {
	d.t.Helper()
	step := Next(d.s)
	if (step.Why == "") != (step.Kind == Nothing) {
		d.t.Fatalf("%s with the reason %q", step.Kind, step.Why)
	}
	switch step.Kind {
	case Propose:
		d.append(step.Record, step.Payload, 1, 2, 3, 4, 5)
	case Hold:
		d.s.Held, d.s.HeldSince = true, d.s.Now
	case Release:
		d.s.Held = false
	case Prepare:
		for i := range d.s.Peers {
			d.s.Peers[i].Prepared = true
		}
	case Configure:
		if err := d.s.Membership.CheckNext(step.Membership); err != nil {
			d.t.Fatal(err)
		}
		d.s.Membership = step.Membership
	case Tell:
		d.told = append(d.told, step.Report)
		if step.Report.Phase == partition.Activated {
			t := *d.s.Task
			t.Activated = true
			d.s.Task = &t
		}
		if step.Report.Ended {
			d.s.Task = nil
		}
	}
	return step
}

// to takes steps until one is of this kind (and record), which it does not take.
func (d *desk) to(want string) {
	d.t.Helper()
	for range 30 {
		if name(Next(d.s)) == want {
			return
		}
		d.do()
	}
	d.t.Fatalf("never came to %s: %+v, %s", want, Next(d.s), d.s.Extent.Describe())
}

func name(s Step) string {
	if s.Kind == Propose {
		return s.Record.String()
	}
	return s.Kind.String()
}

// made says that every member has made its child.
func (d *desk) made() {
	for i := range d.s.Peers {
		d.s.Peers[i].Made = []partition.GroupID{18}
	}
}

// The way of a split of which nothing goes wrong.
func TestNextOnItsWay(t *testing.T) {
	d := newDesk(t)
	for i := range d.s.Peers {
		d.s.Peers[i].Prepared = false
	}
	var steps []string
	for range 30 {
		step := d.do()
		if steps = append(steps, name(step)); step.Kind == Wait {
			d.made()
		}
		if step.Kind == Nothing {
			break
		}
	}
	const want = "intent prepare hold seal activate release tell wait done tell nothing"
	if got := strings.Join(steps, " "); got != want {
		t.Errorf("steps\n%s, not\n%s", got, want)
	}
	if got := d.s.Extent.Describe(); got != `keys ["b","m"), range version 7` {
		t.Errorf("it leads to %s", got)
	}
	if len(d.told) != 2 || d.told[0].Version != 7 || d.told[0].Range.String() != `["b","m")` || d.told[0].Ended || !d.told[1].Done || d.told[1].Task != 7 {
		t.Errorf("the control group was told %+v", d.told)
	}
}

// A child's members are the parent's under the same ids, its first master is where
// the parent's is, or where it was asked for.
func TestNextIntent(t *testing.T) {
	d := newDesk(t)
	d.s.Self = 2
	d.s.Task.Children = []Wanted{
		{Group: 18, Range: keys("d", "m"), First: "n3"},
		{Group: 19, Range: keys("m", "t"), Nodes: []Place{{Node: "n3"}, {Node: "n2"}}},
	}
	d.do()
	c := d.s.Extent.Split.Children
	if c[0].First != 3 || len(c[0].Membership.Members) != 3 || c[1].First != 2 || len(c[1].Membership.Members) != 2 || !c[1].MadeBy(3, "n3") {
		t.Errorf("children %+v of %+v, %+v of %+v", c[0], c[0].Membership, c[1], c[1].Membership)
	}
	if m := c[0].Membership; m.Version != 1 || m.Next != 4 || m.Policy.Rule != partition.Majority {
		t.Errorf("the child begins with %+v", m)
	}
}

// A child on new nodes: learners come one by one, and go when it is over.
func TestNextNewNodes(t *testing.T) {
	for _, abort := range []bool{false, true} {
		d := newDesk(t)
		d.s.Task.Children[0].Nodes = []Place{{"n4", "z4"}, {"n5", "z5"}, {"n2", ""}}
		for r := partition.ReplicaID(4); r <= 5; r++ {
			if step := d.do(); step.Kind != Configure {
				t.Fatalf("%+v", step)
			}
			m, _ := d.s.Membership.Member(r)
			if m.Kind != partition.Learner || m.Zone != fmt.Sprintf("z%d", r) {
				t.Fatalf("the new member is %+v", m)
			}
			d.s.Peers = append(d.s.Peers, Peer{Replica: r, Up: true})
			if step := Next(d.s); step.Kind != Wait || !strings.Contains(step.Why, fmt.Sprintf("brought up on n%d", r)) {
				t.Fatalf("%+v", step)
			}
			d.s.Peers[r-1].State, d.s.Peers[r-1].Prepared = true, true
		}
		if d.to("hold"); len(d.s.Extent.Split.Children[0].Membership.Members) != 3 || d.s.Extent.Split.Children[0].First != 4 {
			t.Fatalf("the child is %+v", d.s.Extent.Split.Children[0].Membership)
		}
		if abort {
			d.s.Task.Cancel = "an operator asked"
		} else {
			d.made()
		}
		d.to("nothing")
		if len(d.s.Membership.Members) != 3 || d.s.Membership.Version != 6 || !d.told[len(d.told)-1].Ended || d.told[len(d.told)-1].Done == abort {
			t.Errorf("abort %v: members %+v, told %+v", abort, d.s.Membership, d.told)
		}
	}
}

// Every wait has its reason, and an end where one is due.
func TestNextWaits(t *testing.T) {
	for name, c := range map[string]struct {
		at   string // how far the split has got
		edit func(s *Situation)
		want string
		in   time.Duration // asked again
	}{
		"a record under way":      {"hold", func(s *Situation) { s.Proposed = partition.KindSeal }, "the seal record is on its way", 0},
		"a change of members":     {"intent", func(s *Situation) { s.Pending = true }, "change of the members is not committed", time.Minute},
		"something else":          {"intent", func(s *Situation) { s.Busy = "the mastership is handed over" }, "handed over", time.Minute},
		"a pause":                 {"hold", func(s *Situation) { s.NotBefore = s.Now + 200*ms }, "pause", 200 * ms},
		"a pause to begin":        {"intent", func(s *Situation) { s.NotBefore = s.Now + 200*ms }, "pause", 200 * ms},
		"a pause over the end":    {"hold", func(s *Situation) { s.NotBefore = s.Now + time.Hour }, "pause", time.Minute},
		"a refused abort":         {"hold", func(s *Situation) { s.Task.Cancel, s.NotBefore = "asked", s.Now+30*ms }, "pause", 30 * ms},
		"a refused activation":    {"activate", func(s *Situation) { s.NotBefore = s.Now + 30*ms }, "pause", 30 * ms},
		"a child's members":       {"hold", func(s *Situation) { s.Peers[1].Up, s.Peers[2].Up = false, false }, "too few members of g18 are up, prepared and close behind: not n2, n3", 20 * ms},
		"members that lag":        {"hold", func(s *Situation) { s.Peers[1].Lag, s.Peers[2].Lag = 1<<20, 1<<18 }, "not n2, n3", 20 * ms},
		"members without a word":  {"hold", func(s *Situation) { lag(s, 9, 100*ms) }, "not n2, n3", 20 * ms},
		"members without state":   {"hold", func(s *Situation) { s.Peers[0].State, s.Peers[2].State = false, false }, "not n1, n3", 20 * ms},
		"the seal on a quorum":    {"activate", func(s *Situation) { unmatch(s, 2, 3) }, "hold the log through record 102: not n2, n3", 50 * ms},
		"the control group":       {"hold", func(s *Situation) { s.Task = nil }, "has not said anything of task 7", time.Minute},
		"the catalog":             {"tell", func(s *Situation) { s.Telling = true }, "catalog has to lead", 0},
		"the catalog, a pause":    {"tell", func(s *Situation) { s.NotBefore = s.Now + 30*ms }, "pause", 30 * ms},
		"the control group, late": {"tell", func(s *Situation) { s.Task = nil }, "has not said anything", 0},
		"children to be made":     {"wait", func(s *Situation) { s.Peers[0].Made = []partition.GroupID{18} }, "g18 is not made yet on n2, n3", 0},
		"one child of two":        {"wait", func(s *Situation) { made(s, 18, 1, 2); made(s, 19, 3) }, "g18 is not made yet on n3", 0},
	} {
		d := newDesk(t)
		d.to(c.at)
		c.edit(&d.s)
		step := Next(d.s)
		if step.Kind != Wait || !strings.Contains(step.Why, c.want) || c.in == 0 && step.Again != 0 || c.in != 0 && step.Again != d.s.Now+c.in {
			t.Errorf("%s: %s %q again in %s", name, step.Kind, step.Why, step.Again-d.s.Now)
		}
	}
}

func lag(s *Situation, bytes int64, silent time.Duration) {
	for i := 1; i < 3; i++ {
		s.Peers[i].Lag, s.Peers[i].Heard = bytes, s.Now-silent
	}
}

// unmatch takes the last record from members.
func unmatch(s *Situation, from ...partition.ReplicaID) {
	for i := range s.Peers {
		for _, r := range from {
			if s.Peers[i].Replica == r {
				s.Peers[i].Match--
			}
		}
	}
}

func made(s *Situation, g partition.GroupID, by ...partition.ReplicaID) {
	for _, r := range by {
		s.Peers[r-1].Made = append(s.Peers[r-1].Made, g)
	}
}

// A majority that is ready is enough, and so is one that has made its preparations.
func TestNextNeedsNoMoreThanAQuorum(t *testing.T) {
	d := newDesk(t)
	d.s.Peers[2] = Peer{Replica: 3}
	d.to("hold")
	lag(&d.s, 9, 99*ms)
	d.to("seal")
	d.s.Peers[2].Match = 0
	d.to("activate")
	d.s.Peers[2].Match = 0
	if got := name(Next(d.s)); got != "activate" {
		t.Errorf("with the seal on two of three: %s", got)
	}
}

// What ends a split before it is activated, at every step (SPL-12): what is held is
// released, what is sealed is unsealed, and the group serves all of its range.
func TestNextAborts(t *testing.T) {
	reasons := map[string]func(d *desk){
		"cancel":   func(d *desk) { d.s.Task.Cancel = "an operator asked" },
		"deadline": func(d *desk) { d.s.Now = d.s.Task.Deadline },
		"gone":     func(d *desk) { d.s.Task, d.s.Gone = nil, true },
		"orphan":   func(d *desk) { d.s.Task, d.s.Now = nil, d.s.Since+time.Minute },
		"other":    func(d *desk) { d.s.Task.ID, d.s.Now = 8, d.s.Since+time.Minute },
	}
	steps := map[string]string{"intent": "tell", "prepare": "abort", "hold": "abort", "seal": "release abort", "activate": "unseal release abort"}
	for reason, f := range reasons {
		for at, want := range steps {
			d := newDesk(t)
			for i := range d.s.Peers {
				d.s.Peers[i].Prepared = false
			}
			if at == "intent" && reason != "cancel" && reason != "deadline" {
				continue
			}
			if d.to(at); at == "activate" && (reason == "orphan" || reason == "other") {
				want = "activate release" // a sealed split goes on without the control group
			}
			f(d)
			var got []string
			for range 5 {
				if k := Next(d.s).Kind; k == Nothing || k == Wait || strings.Join(got, " ") == want {
					break
				}
				got = append(got, name(d.do()))
			}
			if s := strings.Join(got, " "); s != want && s != want+" tell" {
				t.Errorf("%s at %s: %s, not %s", reason, at, s, want)
			}
			if strings.HasPrefix(want, "activate") {
				continue
			}
			if x := d.s.Extent; d.s.Held || x.Split != nil || x.Version != 0 && !x.Serves(keys("b", "t")) {
				t.Errorf("%s at %s: held %v, %s", reason, at, d.s.Held, x.Describe())
			}
		}
	}
}

// What is activated is never taken back, whatever anybody asks for.
func TestNextActivatedIsFinal(t *testing.T) {
	d := newDesk(t)
	d.to("release")
	d.s.Task.Cancel, d.s.Now = "an operator asked", d.s.Task.Deadline+time.Hour
	d.made()
	d.to("nothing")
	if last := d.told[len(d.told)-1]; !last.Done || d.s.Extent.Range.String() != `["b","m")` {
		t.Errorf("told %+v, %s", last, d.s.Extent.Describe())
	}
}

// A hold ends after its time, the split is tried again after a pause, and given up
// after three tries.
func TestNextTries(t *testing.T) {
	d := newDesk(t)
	var got []string
	for range 100 {
		step := Next(d.s)
		if name(step) == "activate" { // nobody but the master has the seal
			unmatch(&d.s, 2, 3)
			d.s.Now += 49 * ms
			if w := Next(d.s); w.Kind != Wait || w.Again != d.s.HeldSince+50*ms {
				t.Fatalf("%+v", w)
			}
			d.s.Now += ms
			step = Next(d.s)
		}
		got = append(got, name(step))
		if d.do(); name(step) == "unseal" {
			d.s.NotBefore = d.s.Now + 100*ms
		}
		if step.Kind == Wait {
			d.s.Now = step.Again
		}
		if step.Kind == Nothing {
			break
		}
	}
	const try = "hold seal unseal release wait "
	if want := "intent " + try + try + try + "abort tell nothing"; strings.Join(got, " ") != want {
		t.Errorf("steps\n%s, not\n%s", strings.Join(got, " "), want)
	}
	if d.s.Extent.Version != 11 || !d.s.Extent.Accepts(5) {
		t.Errorf("it leads to %s", d.s.Extent.Describe())
	}
}

// A task that cannot be done is given back with the reason.
func TestNextRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(s *Situation)
		want string
	}{
		"another version": {func(s *Situation) { s.Version = 6 }, "planned for range version 5, now it is 6"},
		"of the extent":   {func(s *Situation) { s.Extent = partition.Extent{Version: 8, Since: 8, Range: keys("b", "t")} }, "now it is 8"},
		"outside":         {func(s *Situation) { s.Range = keys("b", "s") }, "g18 gets"},
		"everything":      {func(s *Situation) { s.Task.Children[0].Range = keys("b", "t") }, "exactly one piece"},
		"onto a log": {func(s *Situation) {
			s.Membership.At(3).Kind, s.Task.Children[0].Nodes = partition.LogReplica, []Place{{"n3", ""}}
		}, "n3 keeps only the log"},
		"first of nowhere": {func(s *Situation) { s.Task.Children[0].First = "n9" }, "shall be master first"},
		"no quorum": {func(s *Situation) {
			s.Membership.Policy = partition.Policy{Rule: partition.Zones, Zones: 2}
			s.Task.Children[0].Nodes = []Place{{"n1", ""}}
		}, "policy zones:2"},
		"cancelled":     {func(s *Situation) { s.Task.Cancel = "an operator asked" }, "an operator asked"},
		"given up":      {func(s *Situation) { s.Extent = partition.Extent{Version: 5, Since: 5, Range: keys("b", "t"), Ended: 7} }, "given up before"},
		"given up here": {func(s *Situation) { s.Extent.Ended, s.Aborted = 7, "sealed 3 times" }, "sealed 3 times"},
	} {
		d := newDesk(t)
		c.edit(&d.s)
		step := Next(d.s)
		if step.Kind != Tell || !step.Report.Ended || step.Report.Done || step.Report.Task != 7 || !strings.Contains(step.Report.Why, c.want) {
			t.Errorf("%s: %+v", name, step)
		}
	}
}

// Who is not master does nothing and holds nothing; a group without a task neither.
func TestNextNothing(t *testing.T) {
	for name, edit := range map[string]func(s *Situation){
		"not serving": func(s *Situation) { s.Serving = false },
		"no task":     func(s *Situation) { s.Task = nil },
	} {
		d := newDesk(t)
		edit(&d.s)
		if step := Next(d.s); step.Kind != Nothing {
			t.Errorf("%s: %+v", name, step)
		}
		d.s.Held = true
		if step := Next(d.s); step.Kind != Release || step.Why == "" {
			t.Errorf("%s, held: %+v", name, step)
		}
	}
}

// Done waits for those members only that their child goes on with.
func TestNextDone(t *testing.T) {
	d := newDesk(t)
	d.to("wait")
	made(&d.s, 18, 1, 2)
	if step := Next(d.s); step.Kind != Wait || step.Why != "g18 is not made yet on n3" {
		t.Fatalf("%+v", step)
	}
	seen := group("n1", "n2", "n3")
	d.s.Children = []Seen{{Group: 18}, {Group: 18, Membership: seen}}
	if step := Next(d.s); step.Kind != Wait {
		t.Fatalf("while the child counts on it: %+v", step)
	}
	seen.Remove(3)
	d.s.Children = d.s.Children[1:]
	if step := Next(d.s); name(step) != "done" {
		t.Fatalf("%+v", step)
	}
}

// What the tables above leave out.
func TestNextDetails(t *testing.T) {
	for what, c := range map[string]struct {
		at   string
		edit func(d *desk)
		want string
	}{
		"a known task is no orphan":        {"hold", func(d *desk) { d.s.Task.Deadline = 0; d.s.Now += time.Hour }, "hold"},
		"sealed and not held":              {"activate", func(d *desk) { d.s.Held = false }, "hold"},
		"held for nothing":                 {"intent", func(d *desk) { d.s.Held = true }, "release"},
		"a pause before done":              {"wait", func(d *desk) { d.made(); d.s.NotBefore = d.s.Now + 1 }, "wait"},
		"a closed task":                    {"tell", func(d *desk) { d.s.Task, d.s.Gone = nil, true }, "tell"},
		"a closed task, told":              {"wait", func(d *desk) { d.made(); d.s.Task, d.s.Gone, d.s.Told = nil, true, true }, "done"},
		"no pause before done":             {"wait", func(d *desk) { d.made() }, "done"},
		"one that was idle from the start": {"wait", func(d *desk) { d.idle(3, false) }, "done"},
		"one that is idle and there":       {"wait", func(d *desk) { d.idle(3, true) }, "wait"},
		"another child goes on without it": {"wait", func(d *desk) {
			made(&d.s, 18, 1, 2)
			d.s.Children = []Seen{{Group: 19, Membership: group("n1", "n2")}}
		}, "wait"},
		"prepared here, up there": {"hold", func(d *desk) { d.s.Peers[0].Up, d.s.Peers[2].Prepared = false, false }, "wait"},
	} {
		d := newDesk(t)
		d.to(c.at)
		c.edit(d)
		if got := name(Next(d.s)); got != c.want {
			t.Errorf("%s: %s, not %s", what, got, c.want)
		}
	}
}

// idle has a member of the child in no duty, which has not made it.
func (d *desk) idle(r partition.ReplicaID, up bool) {
	made(&d.s, 18, 1, 2)
	d.s.Extent.Split.Children[0].Membership.At(r).Eligible = false
	for i := range d.s.Peers {
		if d.s.Peers[i].Replica == r {
			d.s.Peers[i].Up = up
		}
	}
}

// Learners that came for others stay, and are no part of a child.
func TestNextOtherLearners(t *testing.T) {
	d := newDesk(t)
	d.s.Membership.Add(partition.Member{Node: "n8", Kind: partition.Learner, Eligible: true})
	d.s.Peers = append(d.s.Peers, Peer{Replica: 4, Up: true, State: true})
	d.to("hold")
	if c := d.s.Extent.Split.Children[0]; len(c.Membership.Members) != 3 {
		t.Errorf("the child is %+v", c.Membership)
	}
	d.s.Task.Cancel = "an operator asked"
	if d.to("nothing"); d.s.Membership.Version != 3 {
		t.Errorf("the members are %+v", d.s.Membership)
	}
	d = newDesk(t)
	d.s.Task.Children[0].Nodes = []Place{{"n4", ""}}
	d.do()
	d.s.Task.Cancel = "an operator asked"
	for what, edit := range map[string]func(s *Situation){
		"not committed": func(s *Situation) { s.Pending = true },
		"handed over":   func(s *Situation) { s.Busy = "it is handed over" },
		"a pause":       func(s *Situation) { s.NotBefore = s.Now + 1 },
	} {
		s := d.s
		edit(&s)
		if step := Next(s); step.Kind != Wait || !strings.Contains(step.Why, what) {
			t.Errorf("%s: %+v", what, step)
		}
	}
}
