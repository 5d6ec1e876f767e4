package replica

import (
	"fmt"
	"time"

	"pando.dev/pando/partition"
)

// stabilize ends all faults and requires progress: a master, a committed write,
// equal states everywhere, and then no tick at all.
func (s *schedule) stabilize() {
	w := s.w
	s.quiet = true
	w.knobs.badLock, w.knobs.loss, w.knobs.repeat, w.knobs.stray = false, 0, 0, 0
	w.lock = simLock{number: w.lock.number, permit: w.lock.permit} // sane again
	clear(w.cut)
	away := s.drawAway()
	for i, n := range w.nodes {
		n.stalled = false
		n.resume()
		switch {
		case away&(1<<i) != 0:
			n.crash()
		case !n.up:
			n.boots()
		}
	}
	w.hints()
	var at partition.Index
	write := func() {
		if m := w.master(); m != nil {
			s.nextOp++
			w.check.write(m, &op{id: s.nextOp, done: func(r *Reply, _ Result) { at = max(at, r.Index) }})
		}
	}
	for range 300 {
		w.run(200 * time.Millisecond)
		for _, n := range w.nodes {
			w.check.tryLeaseRead(n)
		}
		if at == 0 {
			write()
		}
		if s.p.membership {
			s.tend()
		}
		if at != 0 && len(s.busy()) == 0 && s.converged(at) == "" {
			s.idle()
			return
		}
	}
	for _, n := range w.nodes {
		s.log = append(s.log, fmt.Sprintf("%d %s", n.id, n.rep.Status()))
	}
	w.check.violated("no progress after the faults: write at %d, %s; clients %v\n%s", at, s.converged(at), s.busy(), s.log)
}

// drawAway is a random set of nodes that never come back, such that the others
// suffice. Whoever is there must not depend on those who are not.
func (s *schedule) drawAway() int {
	if s.p.solo {
		return s.drawForsaken()
	}
	if s.p.membership {
		return 0
	}
	m := s.w.nodes[0].rep.active.Last()
	for range 20 {
		away := s.rng.IntN(1 << len(s.w.nodes))
		here := func(id partition.ReplicaID) bool { return away&(1<<(id-1)) == 0 }
		full := func(id partition.ReplicaID) bool { x, _ := m.Member(id); return here(id) && x.Kind == partition.Full }
		able := false
		for _, x := range m.Members {
			able = able || full(x.Replica)
		}
		if able && m.Durable(here) && m.CanFailover(here) {
			return away
		}
	}
	return 0
}

func (s *schedule) busy() (busy []int) {
	for i, c := range s.clients {
		if c.busy {
			busy = append(busy, i)
		}
	}
	return busy
}

// converged says what differs among the members of the last configuration.
func (s *schedule) converged(at partition.Index) string {
	m := s.w.master()
	if m == nil {
		return "no master"
	}
	for _, x := range m.rep.active.Last().Members {
		n := s.w.node(x.Replica)
		if n == nil || !n.up { // never made, or away
			continue
		}
		if n.rep.applied < at || n.rep.applied != m.rep.applied || n.rep.commit != m.rep.commit || n.rep.log.last != m.rep.log.last {
			return fmt.Sprintf("%d is behind: %s", n.id, n.rep.Status())
		}
		if !n.logOnly && !n.state.equal(m.state) {
			s.w.check.violated("states of %d and %d differ at %d", n.id, m.id, at)
		}
	}
	return s.lingering(m)
}

// lingering names a replica that was removed and is still there, though it knows
// a member that could tell it.
func (s *schedule) lingering(m *node) string {
	now := m.rep.active.Last()
	for _, n := range s.w.nodes {
		if n.gone || !n.up || !excludes(now, n.id) || n.rep.master != 0 && n.rep.promised < m.rep.promised {
			// One whose old master's node lives believes in it: its host finds out.
			continue
		}
		for _, c := range n.rep.active {
			for _, x := range c.Members {
				if _, ok := now.Member(x.Replica); ok {
					return fmt.Sprintf("%d lingers: %s", n.id, n.rep.Status())
				}
			}
		}
	}
	return ""
}

// tend lets the operator do what makes the group whole, but no more changes.
func (s *schedule) tend() {
	for _, m := range s.w.nodes {
		if m.up && m.rep.phase >= leveling {
			s.bringUp(m)
			s.copyAgain(m)
			if s.p.solo {
				s.reunite(m)
			}
		}
	}
}

// idle requires that a group without work costs no ticks and no messages.
func (s *schedule) idle() {
	w := s.w
	w.run(6 * time.Second)
	for _, n := range w.nodes {
		if n.gone {
			w.run(80 * time.Second) // until nobody says farewell to it any more
			break
		}
	}
	m := w.master()
	ticks, steps := w.ticks, w.steps
	w.run(3 * time.Second)
	if m == nil || m != w.master() {
		w.check.violated("the master changed without a fault")
	}
	if _, ok := m.leaseRead(); !ok {
		w.check.violated("an idle group has no lease: supporters %v", m.view.Supporters)
	}
	for _, n := range w.nodes {
		if _, ok := m.rep.active.Member(n.id); !ok && !n.gone {
			return // a replica that does not know of its removal goes on asking
		}
	}
	if w.ticks != ticks || w.steps != steps {
		w.check.violated("an idle group costs %d steps, %d of them ticks", w.steps-steps, w.ticks-ticks)
	}
}
