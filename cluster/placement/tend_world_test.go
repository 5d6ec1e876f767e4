package placement

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"pando.dev/pando/partition"
)

// world is a group as a test sees it: what it is, and what Tend is told.
type world struct {
	t     tester
	rand  *rand.Rand
	s     Situation
	lossy bool // calls to bring up a replica get lost now and then
	log   []string
	steps int
}

// newWorld has a group of rf on the nodes that Place chooses.
func newWorld(t tester, nodes []Node, rf int, policy partition.Policy) *world {
	m := &partition.Membership{Version: 1, Policy: policy, Next: 1}
	w := &world{t: t, rand: rand.New(rand.NewPCG(1, 2))}
	for _, n := range nodes {
		w.s.Nodes = append(w.s.Nodes, NodeState{Node: n, Up: true})
	}
	for _, id := range place(t, 1, nodes, rf) {
		n := w.node(id)
		m.Add(partition.Member{Node: id, Zone: n.Zone, Kind: partition.Full, Eligible: true})
	}
	w.s.Group, w.s.Membership, w.s.Self = 1, m, 1
	w.s.Spec = Spec{Replicas: rf, Policy: policy}
	w.s.Now = time.Hour
	w.sync()
	for i := range w.s.Peers {
		w.s.Peers[i].Present, w.s.Peers[i].CaughtUp, w.s.Peers[i].State = true, true, true
	}
	return w
}

func (w *world) fatal(format string, args ...any) {
	w.t.Helper()
	for _, l := range w.log[max(0, len(w.log)-40):] {
		format += "\n  " + l
	}
	w.t.Fatal(fmt.Sprintf(format, args...) + "\n  now: " + w.describe())
}

func (w *world) note(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf("%v ", w.s.Now.Round(time.Second))+fmt.Sprintf(format, args...))
}

func (w *world) node(id partition.NodeID) *NodeState {
	i := slices.IndexFunc(w.s.Nodes, func(n NodeState) bool { return n.ID == id })
	return &w.s.Nodes[i]
}

func (w *world) peer(r partition.ReplicaID) *PeerState {
	i := slices.IndexFunc(w.s.Peers, func(p PeerState) bool { return p.Replica == r })
	if i < 0 {
		w.s.Peers = append(w.s.Peers, PeerState{Replica: r})
		i = len(w.s.Peers) - 1
	}
	return &w.s.Peers[i]
}

// sync gives every member a peer and forgets the others.
func (w *world) sync() {
	for _, x := range w.s.Membership.Members {
		w.peer(x.Replica)
	}
	w.s.Peers = slices.DeleteFunc(w.s.Peers, func(p PeerState) bool {
		_, ok := w.s.Membership.Member(p.Replica)
		return !ok
	})
}

func (w *world) up(r partition.ReplicaID) bool {
	x, ok := w.s.Membership.Member(r)
	return ok && w.node(x.Node).Up && w.peer(r).Broken == ""
}

func (w *world) describe() string {
	s := fmt.Sprintf("v%d %s master %d target %d:", w.s.Membership.Version, w.s.Membership.Policy, w.s.Self, wanted(w.s.Membership, w.s.Spec))
	for _, x := range w.s.Membership.Members {
		n, p := w.node(x.Node), w.peer(x.Replica)
		s += fmt.Sprintf(" %d(%s %s %s", x.Replica, x.Node, x.Zone, x.Kind)
		for _, f := range []struct {
			what string
			is   bool
		}{
			{"ineligible", !x.Eligible}, {"DOWN", !n.Up}, {"broken", p.Broken != ""}, {"drained", n.Drain != InService},
			{"late", !p.CaughtUp}, {"stateless", !p.State}, {"absent", !p.Present}, {"behind", p.Behind},
		} {
			if f.is {
				s += " " + f.what
			}
		}
		s += ")"
	}
	return s
}

// The events that a test makes.

func (w *world) kill(id partition.NodeID) {
	n := w.node(id)
	if !n.Up {
		return
	}
	w.note("%s dies", id)
	n.Up, n.Since = false, w.s.Now
	for _, x := range w.s.Membership.Members {
		if x.Node == id {
			w.peer(x.Replica).CaughtUp = false
		}
	}
	w.elect()
}

func (w *world) revive(id partition.NodeID) {
	n := w.node(id)
	if n.Up {
		return
	}
	w.note("%s is back", id)
	n.Up, n.Since = true, w.s.Now
	if n.Drain == InService {
		n.Flaps++
	}
	w.elect()
}

func (w *world) damage(r partition.ReplicaID) {
	if r != w.s.Self && w.up(r) {
		w.note("replica %d is damaged", r)
		w.peer(r).Broken = "rot"
	}
}

// elect gives the group a master if it has none that can serve. Self is 0 while
// there is none.
func (w *world) elect() {
	m := w.s.Membership
	if x, ok := m.Member(w.s.Self); ok && w.up(w.s.Self) && x.Kind == partition.Full && m.Durable(w.up) {
		return
	}
	w.s.Self = 0
	if !m.CanFailover(w.up) || !m.Durable(w.up) {
		return
	}
	for _, i := range w.rand.Perm(len(m.Members)) {
		if x := m.Members[i]; x.Kind == partition.Full && x.Eligible && w.up(x.Replica) {
			w.s.Self = x.Replica
			w.note("replica %d becomes master", x.Replica)
			// What the old master remembered is gone.
			for j := range w.s.Peers {
				p := &w.s.Peers[j]
				p.Asked, p.AskedLogOnly, p.Attempts = 0, false, 0
			}
			*w.peer(x.Replica) = PeerState{Replica: x.Replica, Present: true, CaughtUp: true, State: true}
			return
		}
	}
}

// progress lets replicas that are there catch up.
func (w *world) progress() {
	for _, x := range w.s.Membership.Members {
		p := w.peer(x.Replica)
		if x.Kind != partition.Learner && w.up(x.Replica) {
			p.Present = true // it speaks up by itself
		}
		if w.up(x.Replica) && p.Present && !p.Behind && (!w.lossy || w.rand.IntN(3) > 0) {
			p.CaughtUp = true
		}
	}
}

// step takes one step of Tend and checks that it may be taken. It reports false
// if there is nothing to do now.
func (w *world) step() bool {
	w.progress()
	if w.s.Self == 0 {
		return false
	}
	before := w.describe()
	step := Tend(&w.s)
	if again := Tend(&w.s); again.Kind != step.Kind || again.Why != step.Why {
		w.fatal("asked twice: %v, then %v", step, again)
	}
	if step.Kind == Nothing {
		if w.describe() != before {
			w.fatal("doing nothing changed something")
		}
		return false
	}
	w.steps++
	w.note("%s: %s", step.Kind, step.Why)
	if step.Why == "" {
		w.fatal("a step without a reason")
	}
	switch step.Kind {
	case Configure:
		w.configure(step)
	case Transfer:
		x, ok := w.s.Membership.Member(step.Replica)
		if !ok || x.Kind != partition.Full || !x.Eligible || !w.up(x.Replica) || x.Node != step.Node || w.node(x.Node).Drain != InService {
			w.fatal("transfer to replica %d", step.Replica)
		}
		w.s.Self = step.Replica
		*w.peer(x.Replica) = PeerState{Replica: x.Replica, Present: true, CaughtUp: true, State: true}
	case Host:
		w.host(step)
	}
	return true
}

func (w *world) configure(step Step) {
	m, next := w.s.Membership, step.Next
	if err := m.CheckNext(next); err != nil {
		w.fatal("not a legal change: %v", err)
	}
	self, ok := next.Member(w.s.Self)
	if !ok || self.Kind != partition.Full {
		w.fatal("the master is no full member any more")
	}
	for _, x := range next.Members {
		was, known := m.Member(x.Replica)
		if known && was.Kind == x.Kind && was.Eligible == x.Eligible || !x.Eligible || x.Kind == partition.Learner {
			continue
		}
		if p := w.peer(x.Replica); !p.CaughtUp || !w.up(x.Replica) || x.Kind == partition.Full && !p.State {
			w.fatal("replica %d is to count, but it has not caught up: %+v", x.Replica, p)
		}
	}
	if !step.Force && (!m.Durable(w.up) || !next.Durable(w.up)) {
		w.fatal("nothing can be committed on the way to %+v", next.Members)
	}
	w.s.Membership = next
	w.sync()
	w.note("  %s", w.describe())
	w.elect()
}

func (w *world) host(step Step) {
	if !w.node(step.Node).Up {
		w.fatal("node %s is asked and is not up", step.Node)
	}
	p := w.peer(step.Replica)
	if x, _ := w.s.Membership.Member(step.Replica); step.Voter != (x.Kind != partition.Learner) || step.Voter && !p.Present {
		w.fatal("%s %d is to be brought up as a voter: %v", x.Kind, x.Replica, step.Voter)
	}
	if p.Asked == w.s.Now && p.AskedLogOnly == step.LogOnly {
		w.fatal("node %s is asked again at once", step.Node)
	}
	p.Asked, p.AskedLogOnly = w.s.Now, step.LogOnly
	p.Attempts++
	if w.lossy && w.rand.IntN(3) == 0 {
		w.note("  the call gets lost")
		return
	}
	if !w.node(step.Source).Up {
		w.fatal("the source %s is not up", step.Source)
	}
	p.Present, p.Behind, p.State = true, false, p.State || !step.LogOnly
	p.Attempts = 0
}

// settle takes steps, and lets time pass where Tend waits for it, until nothing
// is left to do. It returns what is missing then.
func (w *world) settle() string {
	w.t.Helper()
	for range 400 {
		if w.step() {
			continue
		}
		if w.s.Self == 0 {
			return "no master"
		}
		end := Tend(&w.s)
		if end.Again == 0 {
			late := slices.ContainsFunc(w.s.Membership.Members, func(x partition.Member) bool {
				return w.up(x.Replica) && w.peer(x.Replica).Present && !w.peer(x.Replica).CaughtUp
			})
			if late {
				continue
			}
			return end.Why
		}
		if end.Again <= w.s.Now {
			w.fatal("to look again at %v, which is past", end.Again)
		}
		w.s.Now = end.Again
	}
	w.fatal("no end")
	return ""
}

// settled fails unless the group is whole.
func (w *world) settled() {
	w.t.Helper()
	if why := w.settle(); why != "" {
		w.fatal("it is not whole: %s", why)
	}
	w.whole()
}

// whole checks the group against what was asked for, on its own.
func (w *world) whole() {
	m := w.s.Membership
	want := wanted(m, w.s.Spec)
	if len(m.Members) != want || m.Policy != w.s.Spec.Policy {
		w.fatal("%d members under %s, want %d under %s", len(m.Members), m.Policy, want, w.s.Spec.Policy)
	}
	for _, x := range m.Members {
		n := w.node(x.Node)
		if x.Kind != partition.Full || x.Eligible != (n.Drain == InService) || !n.Up || x.Zone != n.Zone || w.peer(x.Replica).Broken != "" {
			w.fatal("replica %d is not as it should be", x.Replica)
		}
	}
}

// complete reports whether all full replicas are there that the table asks for:
// what stands in besides may go, even where it let the group lose one more.
func (w *world) complete() bool {
	n := 0
	for _, x := range w.s.Membership.Members {
		if x.Kind == partition.Full && x.Eligible && w.up(x.Replica) {
			n++
		}
	}
	return n >= wanted(w.s.Membership, w.s.Spec)
}

func (w *world) brokenLeft() bool {
	return slices.ContainsFunc(w.s.Peers, func(p PeerState) bool { return p.Broken != "" })
}

func (w *world) canLose() int {
	return w.s.Membership.CanLose(func(r partition.ReplicaID) bool { return w.up(r) && !w.peer(r).Behind })
}

// member returns the member on a node.
func (w *world) on(id partition.NodeID) partition.Member {
	x, _ := w.s.Membership.OnNode(id)
	return x
}

// free returns the nodes that hold no member.
func (w *world) free() []partition.NodeID {
	var out []partition.NodeID
	for _, n := range w.s.Nodes {
		if _, ok := w.s.Membership.OnNode(n.ID); !ok {
			out = append(out, n.ID)
		}
	}
	return out
}

// other returns the node of a full member that is not the master.
func (w *world) other() partition.NodeID {
	for _, x := range w.s.Membership.Members {
		if x.Replica != w.s.Self && x.Kind == partition.Full {
			return x.Node
		}
	}
	w.fatal("no other member")
	return ""
}

func (w *world) kinds() string {
	c := map[partition.MemberKind]int{}
	off := 0
	for _, x := range w.s.Membership.Members {
		c[x.Kind]++
		if !x.Eligible {
			off++
		}
	}
	return fmt.Sprintf("%d full, %d log, %d learners, %d ineligible", c[partition.Full], c[partition.LogReplica], c[partition.Learner], off)
}
