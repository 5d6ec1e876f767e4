package sim

import (
	"fmt"
	"slices"
	"time"

	"pando.dev/pando/partition"
)

// recover ends the faults and requires progress: every group whose members can do
// it commits a new write within ten failovers' time, and then all its replicas have
// the same state. In half of the runs some nodes never come back.
func (w *world) recover() {
	w.quiet = true
	w.faults.endAll()
	w.tracef("the faults end")
	c := w.control
	c.forgets, c.doubles, c.refuses, c.slow, c.down = 0, 0, 0, 0, 0
	w.k = calmed(w.k)
	away := w.drawAway()
	for i := range w.net.links {
		l := &w.net.links[i]
		l.cuts, l.loss, l.repeat, l.corrupt, l.delay, l.jitter, l.drops = 0, 0, 0, 0, 0, 0, 0
		if l.clogs > 0 {
			l.clogs = 1
			w.net.unclog(i/w.net.n, i%w.net.n)
		}
	}
	for i, n := range w.nodes {
		n.step, n.busyUntil, n.barred = 0, 0, false
		d := n.disk
		d.slow, d.stalled, d.full, d.failing, d.deaf = 0, 0, false, false, false
		n.resume()
		switch {
		case away[i]:
			n.end(true, "it never comes back")
		case !n.up:
			n.start()
		}
	}
	w.settle()
}

// calmed are the knobs without what goes wrong by itself.
func calmed(k *Knobs) *Knobs {
	c := *k
	c.Loss, c.Repeat, c.Replay, c.TailShare = 0, 0, 0, 0
	c.LockForgets, c.LockDoubles, c.LockRefuses, c.PointRate = 0, 0, 0, 0
	return &c
}

// drawAway are nodes that never come back, such that every group can do without
// them.
func (w *world) drawAway() []bool {
	away := make([]bool, len(w.nodes))
	if h := w.rnd.two(onCore, 1, 0); h%2 == 0 {
		return away
	}
	for i := range uint64(len(w.nodes)) {
		ord := pick(w.rnd.two(onCore, 2, i), len(w.nodes))
		was := away[ord]
		away[ord] = true
		for gi := range w.groups {
			if w.could(gi, nil) && !w.could(gi, away) {
				away[ord] = was
				break
			}
		}
	}
	return away
}

// could reports whether the group has what it takes without some nodes: those
// that are left can elect a master and commit, whatever the log says.
func (w *world) could(gi int, away []bool) bool {
	newest := w.newestConfigs(gi)
	here := func(r partition.ReplicaID) bool {
		m, _ := newest.Member(r)
		who, ok := w.whoIs[m.Node]
		if !ok || w.owner[who] < 0 || away != nil && away[w.owner[who]] {
			return false
		}
		return w.nodes[w.owner[who]].intact(gi, r)
	}
	full := false
	for _, m := range newest {
		for _, x := range m.Members {
			full = full || x.Kind == partition.Full && x.Eligible && here(x.Replica)
		}
	}
	return full && newest.Durable(here) && newest.CanFailover(here)
}

// failover is how long a failover takes at most when all goes well.
func (w *world) failover() partition.Time {
	k := w.k
	return 2*k.Lease + 3*k.RetryMax + 4*k.AnswerWait + 10*(k.DelayMax+k.SyncMax) + lockWait
}

// settle waits for progress and then for equality.
func (w *world) settle() {
	limit := w.k.Settle
	if limit == 0 {
		limit = 10 * w.failover()
	}
	end := w.eng.now + limit
	start := make([]partition.Index, len(w.groups))
	for gi := range w.groups {
		start[gi] = partition.Index(len(w.check.groups[gi].committed))
	}
	var why string
	for w.eng.now < end {
		w.play(200 * time.Millisecond)
		if why = w.stuck(start); why == "" {
			break
		}
		w.poke(start)
	}
	if why != "" {
		w.violate("liveness", "no progress within %s after the faults: %s", limit, why)
	}
	w.k.Ops = 0 // no new operations; those under way end
	for end = w.eng.now + limit; w.eng.now < end; {
		w.play(200 * time.Millisecond)
		if why = w.differs(); why == "" {
			return
		}
	}
	w.violate("liveness", "the replicas are not equal within %s after the last operation: %s", limit, why)
}

// poke writes to the groups that have not committed anything yet: there may be
// no client left that would.
func (w *world) poke(start []partition.Index) {
	for gi := range w.groups {
		m := w.master(gi)
		if m == nil || len(w.check.groups[gi].committed) > int(start[gi]) {
			continue
		}
		w.pokes++
		o := &op{group: gi, client: -1, command: command{verb: verbPut, id: opID(-1, w.pokes)}}
		w.check.begin(o)
		m.n.request(0, o)
	}
}

// stuck names a group that could commit and has not.
func (w *world) stuck(start []partition.Index) string {
	for gi, g := range w.groups {
		if w.able(gi) && len(w.check.groups[gi].committed) <= int(start[gi]) {
			return fmt.Sprintf("%s has committed nothing: %s", g.id, w.show(gi))
		}
	}
	return ""
}

// able reports whether the group has to make progress: it has what it takes, and
// nobody needs a copy.
func (w *world) able(gi int) bool {
	if w.groups[gi].behind {
		w.mark("sim.copy_needed")
		return false
	}
	return w.could(gi, w.downNow())
}

func (w *world) downNow() []bool {
	down := make([]bool, len(w.nodes))
	for i, n := range w.nodes {
		down[i] = !n.up
	}
	return down
}

// differs names replicas that are not equal.
func (w *world) differs() string {
	for gi, g := range w.groups {
		m := w.master(gi)
		if m == nil {
			if w.able(gi) {
				return fmt.Sprintf("%s has no master: %s", g.id, w.show(gi))
			}
			continue
		}
		st := m.rep.Status()
		for _, n := range w.nodes {
			h := (*host)(nil)
			if n.up {
				h = n.hosts[gi]
			}
			if h == nil || h.rep == nil || h == m {
				continue
			}
			if _, ok := m.view.Configurations.Member(h.replica); !ok || slices.Contains(st.Behind, h.replica) {
				continue
			}
			if s := h.rep.Status(); s.Applied != st.Applied || s.Commit != st.Commit || s.Last != st.Last {
				return fmt.Sprintf("%s: %s; the master %s", h, s, st)
			}
			if !h.logOnly && !m.logOnly && h.state.hash != m.state.hash {
				w.violate("state", "%s and %s differ in %q at %d", h, m, h.state.differs(m.state), h.applied)
			}
		}
	}
	return ""
}

// show describes a group's replicas.
func (w *world) show(gi int) (s string) {
	for _, n := range w.nodes {
		s += fmt.Sprintf("; %s up %v", n, n.up)
		if n.up && n.hosts[gi] != nil {
			if h := n.hosts[gi]; h.rep != nil {
				s += fmt.Sprintf(" %d %s", h.replica, h.rep.Status())
			} else {
				s += fmt.Sprintf(" %d not open, broken %v", h.replica, h.broken)
			}
		}
	}
	return s
}
