package replica

import (
	"slices"
	"time"

	"pando.dev/pando/partition"
)

// simPermit is the control group's compare-and-set: at most one holder at a time,
// and a number that moves with every change of it.
type simPermit struct {
	number uint64
	holder *node
	// Beside the holder these may have the lock and the next permit, and who has
	// joined later: ids from next on.
	able    []partition.ReplicaID
	next    partition.ReplicaID
	granted int
	asked   int // questions on their way
	passed  int
}

// bars reports whether a node may have neither lock nor permit.
func (p *simPermit) bars(n *node) bool {
	return p.holder != nil && p.holder != n && !slices.Contains(p.able, n.id) && (p.next == 0 || n.id < p.next)
}

// inOrder does what a node asks of the control group after what it has asked
// before. What was asked before a crash still arrives.
func (n *node) inOrder(do func()) {
	w := n.w
	at := max(w.now+w.between(w.knobs.netMin, 2*w.knobs.netMax), n.control)
	n.control = at
	w.after(at-w.now, do)
}

func (n *node) permit(x *Permit) {
	boot, w, next := n.boot, n.w, n.rep.log.newest().Membership.Next
	w.lock.permit.asked++
	n.inOrder(func() {
		l := &w.lock
		l.permit.asked--
		if l.down {
			return
		}
		var in Input
		switch {
		case l.permit.bars(n):
			in = PermitRefused{Seq: x.Seq, Why: "another one holds it"}
		case l.number != x.Lock:
			in = PermitRefused{Seq: x.Seq, Why: "a newer lock was handed out", Outdated: true}
		default:
			l.permit.number++
			l.permit.holder, l.permit.able, l.permit.next = n, nil, next
			l.permit.granted++
			in = Permitted{Seq: x.Seq, Number: l.permit.number}
		}
		w.printf("control: %d asks to go on alone: %s", n.id, describePermit(in))
		w.after(w.between(w.knobs.netMin, 2*w.knobs.netMax), func() {
			if n.up && n.boot == boot {
				n.take(in)
			}
		})
	})
}

func describePermit(in Input) string {
	if x, ok := in.(PermitRefused); ok {
		return "refused, " + x.Why
	}
	return "granted, number " + partition.GroupID(in.(Permitted).Number).String()[1:]
}

func (n *node) releasePermit(x *ReleasePermit) {
	boot := n.boot
	n.inOrder(func() {
		p := &n.w.lock.permit
		if n.w.lock.down {
			if n.up && n.boot == boot { // until it is answered
				n.w.after(20*time.Millisecond, func() { n.releasePermit(x) })
			}
			return
		}
		if p.number != x.Number || p.holder == nil {
			return
		}
		if len(x.Able) == 0 {
			p.holder, p.able, p.number = nil, nil, p.number+1
			n.w.printf("control: permit %d is given back by %d", x.Number, n.id)
			return
		}
		was := len(p.able)
		p.able = append(slices.Clone(p.able), x.Able...)
		slices.Sort(p.able)
		if p.able = slices.Compact(p.able); len(p.able) > was {
			p.passed++
			n.w.printf("control: permit %d passes to %v by the word of %d", x.Number, x.Able, n.id)
		}
	})
}

// solos checks that at most one replica can commit by itself what others, that
// counted before, do not have.
func (c *checker) solos(n *node) {
	if !n.solo() {
		return
	}
	for _, o := range c.w.nodes {
		if o != n && o.up && o.solo() {
			c.violated("replicas %d and %d both go on alone: %s and %s", n.id, o.id, showConfigs(n.rep), showConfigs(o.rep))
		}
	}
}

func (n *node) solo() bool {
	return n.rep.isMaster() && len(n.rep.log.newest().Membership.LeftBehind) > 0 &&
		n.rep.active.Durable(func(id partition.ReplicaID) bool { return id == n.id })
}

// reunite lets everybody who has caught up count again.
func (s *schedule) reunite(m *node) {
	last := m.rep.log.newest().Membership
	next := last.Successor()
	for i := range next.Members {
		x := &next.Members[i]
		if p := m.rep.peer(x.Replica); p != nil && m.rep.caughtUp(p) && p.state {
			x.Kind, x.Eligible = partition.Full, true
		}
	}
	if !slices.Equal(last.Members, next.Members) {
		s.w.check.configure(m, next, false, nil)
	}
}

// drawForsaken is perhaps all nodes but one, of which the last must go on alone.
func (s *schedule) drawForsaken() int {
	p := s.w.lock.permit
	if p.asked > 0 || slices.ContainsFunc(s.w.nodes, func(n *node) bool { return n.paused }) {
		return 0 // whoever asks may be the one that holds it in a moment
	}
	for i, n := range s.w.nodes {
		if n.gone || !n.up || n.logOnly || s.rng.IntN(3) > 0 {
			continue
		}
		c := n.rep.committed().Membership
		if slices.ContainsFunc(s.w.nodes, func(o *node) bool {
			return o.rep.log.newest().Membership.Version > n.rep.log.newest().Membership.Version
		}) {
			continue // a change may be on its way to it that does not let it
		}
		free := !p.bars(n) || c.Permit == p.number && len(c.LeftBehind) == 0 && c.Alone == 0
		self := func(id partition.ReplicaID) bool { return id == n.id }
		if !free || !n.rep.electable() || !n.rep.active.CanFailover(self) || n.rep.log.newest().Membership.Policy.Rule != partition.AllInSync || len(n.rep.active) > 1 {
			continue
		}
		return (1<<len(s.w.nodes) - 1) &^ (1 << i)
	}
	return 0
}
