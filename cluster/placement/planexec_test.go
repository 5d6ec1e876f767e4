package placement

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"pando.dev/pando/partition"
)

// site executes what an Execution asks for, with failures, and checks the limits.
type site struct {
	t       *rapid.T
	e       *Execution
	l       *Layout
	r       *rand.Rand
	now     partition.Time
	running map[int]ExecWork
	started map[int]int
	failing partition.GroupID // never succeeds
	mute    partition.GroupID // never answers
}

// collect takes what is asked for, and returns what is wrong with it.
func (s *site) collect() error {
	for w := range s.e.Ready() {
		if w.Stop {
			if _, ok := s.running[w.Operator]; !ok {
				return fmt.Errorf("operator %d is to stop and does not run", w.Operator)
			}
			delete(s.running, w.Operator)
			continue
		}
		g, _ := s.l.Find(w.Op.Group)
		if p := s.l.Group(g); p.Range != w.Op.Range || p.Membership != w.Op.Membership {
			return fmt.Errorf("started %s, the group has versions %d and %d", w.Op, p.Range, p.Membership)
		}
		for _, o := range s.running {
			if o.Op.Group == w.Op.Group {
				return fmt.Errorf("%s and %s at a time", o.Op, w.Op)
			}
		}
		s.running[w.Operator] = w
		s.started[w.Operator]++
	}
	return s.limits()
}

func (s *site) limits() error {
	in, out, busy, copying := map[partition.NodeID]int{}, map[partition.NodeID]int{}, map[partition.NodeID]bool{}, 0
	for _, w := range s.running {
		if !w.Op.Kind.copies() {
			continue
		}
		copying++
		in[w.Op.To]++
		busy[w.Op.To] = true
		if from := s.l.Node(w.Op.From); from != nil && !from.Lost {
			out[w.Op.From]++
			busy[w.Op.From] = true
		}
	}
	for _, n := range s.l.Nodes() {
		if in[n.ID] > 2 || out[n.ID] > 2 {
			return fmt.Errorf("%s receives %d and sends %d", n.ID, in[n.ID], out[n.ID])
		}
	}
	if len(busy) > max(4, len(s.l.Nodes())/2) || copying > s.e.maxCopying {
		return fmt.Errorf("%d nodes copy %d replicas", len(busy), copying)
	}
	return nil
}

// advance lets time pass and some of what runs end.
func (s *site) advance() error {
	s.now += time.Second
	if err := s.e.Step(ExecEvent{Kind: ExecTick, Now: s.now}); err != nil {
		return err
	}
	if err := s.collect(); err != nil {
		return err
	}
	for i := range s.e.Operators() {
		w, ok := s.running[i]
		if !ok || w.Op.Group == s.mute || s.r.IntN(3) > 0 {
			continue
		}
		delete(s.running, i)
		ev := ExecEvent{Kind: ExecDone, Now: s.now, Operator: i, Range: w.Op.Range, Membership: w.Op.Membership}
		if w.Op.Kind.copies() {
			ev.Membership += partition.MembershipVersion(1 + s.r.IntN(3))
		}
		if w.Op.Group == s.failing || s.r.IntN(20) == 0 {
			ev.Kind, ev.Why = ExecFailed, "no luck"
		}
		if err := s.e.Step(ev); err != nil {
			return err
		}
	}
	return s.collect()
}

// run executes a plan to the end, and returns what is wrong.
func (s *site) run(p *Plan) error {
	for range 4000 {
		if s.e.Finished() {
			break
		}
		if err := s.advance(); err != nil {
			return err
		}
	}
	if !s.e.Finished() {
		return fmt.Errorf("not finished: %s", s.e.Status())
	}
	for i := range s.e.Operators() {
		if state, why := s.e.State(i); state == GivenUp && why == "" {
			return fmt.Errorf("%s given up without a reason", s.e.Operator(i))
		}
	}
	return nil
}

func newSite(t *rapid.T, l *Layout, p *Plan) *site {
	r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "luck"), 2))
	return &site{t: t, e: NewExecution(l, p, ExecutionConfig{}), l: l, r: r, running: map[int]ExecWork{}, started: map[int]int{}}
}

// Whatever fails: limits hold at every moment (SCL-7: two copies into a node and two out of
// one at most), one operator of a group at a time and
// at its versions, and it ends with a reason for all that was given up.
func TestExecutionProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := drawLayout(t)
		p := MakePlan(l, PlanConfig{})
		s := newSite(t, l, p)
		if len(p.Operators) > 1 {
			s.failing, s.mute = p.Operators[0].Group, p.Operators[len(p.Operators)-1].Group
		}
		if err := s.run(p); err != nil {
			t.Fatal(err)
		}
	})
}

// A group that never succeeds and one that never answers hold nobody up: all
// others are done in the time it takes without them, and no rule is broken when it
// ends.
func TestExecutionStuckGroup(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l, _ := NewLayout(planNodes(4, 1))
		for g := range 60 {
			if err := l.Add(group(g+1, 1<<20, 1, 1, 1, g%3, (g+1)%3, (g+2)%3)); err != nil {
				t.Fatal(err)
			}
		}
		l.nodes[3].New = true
		p := MakePlan(l, PlanConfig{})
		s := newSite(t, l, p)
		s.failing, s.mute = p.Operators[0].Group, p.Operators[1].Group
		for range 300 {
			if err := s.advance(); err != nil {
				t.Fatal(err)
			}
		}
		for i := range p.Operators {
			state, why := s.e.State(i)
			if g := p.Operators[i].Group; g != s.failing && g != s.mute && state != Done && !strings.Contains(why, "failed") && why != "the new node has its share" {
				t.Fatalf("%s: %s, %s", p.Operators[i], state, why)
			}
		}
		if state, _ := s.e.State(0); state == Done {
			t.Fatal("it cannot be done")
		}
	})
}

// draining is a plan that empties one node of five.
func draining(t *testing.T) (*Layout, *Plan) {
	l, _ := NewLayout(planNodes(5, 5))
	for g := range 20 {
		if err := l.Add(group(g+1, 1<<20, 1, 1, 1, g%4, (g+1)%4, (g+2)%4)); err != nil {
			t.Fatal(err)
		}
	}
	l.nodes[0].Leaving = true
	return l, MakePlan(l, PlanConfig{Skip: [Modes]bool{Leveling: true}})
}

// An operator dies of another version, of a rule, of a deadline, of the loss of
// its purpose, and of a word.
func TestExecutionGivesUp(t *testing.T) {
	for name, x := range map[string]struct {
		change func(*Layout, *Execution)
		want   string
	}{
		"versions": {func(l *Layout, _ *Execution) {
			for g := range l.Groups() {
				l.SetVersions(g, 1, 7)
			}
		}, "changed since"},
		"rule": {func(l *Layout, _ *Execution) {
			for i := range l.nodes {
				l.nodes[i].Closed = i > 0
				l.nodes[i].Leaving = false
			}
		}, "receive"},
		"purpose":   {func(l *Layout, _ *Execution) { l.nodes[0].Leaving = false }, "no longer leaves"},
		"cancelled": {func(_ *Layout, e *Execution) { _ = e.Step(ExecEvent{Kind: ExecCancel}) }, "cancelled"},
	} {
		l, p := draining(t)
		e := NewExecution(l, p, ExecutionConfig{})
		x.change(l, e)
		if err := e.Step(ExecEvent{Kind: ExecTick, Now: time.Second}); err != nil {
			t.Fatal(err)
		}
		for w := range e.Ready() {
			if w.Op.Kind != OpTransfer {
				t.Errorf("%s: started %s", name, w.Op)
			}
		}
		found := false
		for i := range p.Operators {
			state, why := e.State(i)
			found = found || state == GivenUp && strings.Contains(why, x.want)
		}
		if !found {
			_, why := e.State(len(p.Operators) - 1)
			t.Errorf("%s: %s, %s", name, e.Status(), why)
		}
	}
}

// An operator that takes too long is stopped, and its room is free again.
func TestExecutionDeadline(t *testing.T) {
	l, p := draining(t)
	e := NewExecution(l, p, ExecutionConfig{})
	n := 0
	for range e.Ready() {
		n++
	}
	if n == 0 {
		t.Fatal("nothing started")
	}
	_ = e.Step(ExecEvent{Kind: ExecTick, Now: 2 * time.Minute})
	stopped := 0
	for w := range e.Ready() {
		if w.Stop {
			stopped++
		}
	}
	if stopped != n {
		t.Errorf("%d of %d stopped at their deadline", stopped, n)
	}
	if err := e.Step(ExecEvent{Kind: ExecDone, Operator: 0}); err == nil {
		t.Error("an operator that does not run cannot be done")
	}
}
