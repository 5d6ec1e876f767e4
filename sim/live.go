package sim

import (
	"fmt"
	"slices"
	"time"

	"pando.dev/pando/partition"
)

// patience is within how many failovers' time every group has to answer after the
// faults, and then as long again until its replicas are equal.
const patience = 10

// live is the second part of a run: the faults are over, and what is connected
// has to work.
type live struct {
	w    *world
	away []bool // by place: it never takes part again, in whichever way
	asks []ask  // by group
}

// ask is a write and a read that a group has to answer.
type ask struct {
	write, read *op
	wrote       bool
	leased      bool // the read was answered under a lease
}

// The ways in which a node is away for good.
const (
	awayDead     = iota // it does not come back
	awayIsolated        // it runs, and reaches nobody
	awayDeaf            // it hears nobody, and everybody hears it
	awayMute            // it hears everybody, and nobody hears it
	awayHalf            // it reaches some of the others
	awayStopped         // its process is stopped
	awayWays
)

var awayNames = [awayWays]string{"dead", "isolated", "deaf", "mute", "half", "stopped"}

// recover ends the faults and requires progress: every group whose members can do
// it answers a new write and a new read under a lease within a bound, and then all
// its replicas have the same state. In half of the runs some nodes stay away,
// dead or cut off or worse; the others are connected.
func (w *world) recover() {
	w.quiet = true
	w.faults.endAll()
	w.tracef("the faults end")
	c := w.control
	c.forgets, c.doubles, c.refuses, c.slow, c.down = 0, 0, 0, 0, 0
	w.k = calmed(w.k)
	l := &live{w: w, away: w.drawAway(), asks: make([]ask, len(w.groups))}
	w.live = l
	for i := range w.net.links {
		x := &w.net.links[i]
		x.cuts, x.loss, x.repeat, x.corrupt, x.delay, x.jitter, x.drops = 0, 0, 0, 0, 0, 0, 0
		if x.clogs > 0 {
			x.clogs = 1
			w.net.unclog(i/w.net.n, i%w.net.n)
		}
	}
	for i, n := range w.nodes {
		n.step, n.busyUntil, n.barred = 0, 0, false
		d := n.disk
		d.slow, d.stalled, d.full, d.failing, d.deaf = 0, 0, false, false, false
		n.resume()
		if l.away[i] {
			l.leave(n)
		} else if !n.up {
			n.start()
		}
	}
	l.progress()
	l.equality()
}

// calmed are the knobs without what goes wrong by itself.
func calmed(k *Knobs) *Knobs {
	c := *k
	c.Loss, c.Repeat, c.Replay, c.TailShare = 0, 0, 0, 0
	c.LockForgets, c.LockDoubles, c.LockRefuses, c.PointRate = 0, 0, 0, 0
	return &c
}

// leave lets a node be away from now on.
func (l *live) leave(n *node) {
	w := l.w
	h, how := w.rnd.two(onCore, 3, uint64(n.ord)), w.awayWay(n.ord)
	w.tracef("%s is away for good: %s", n, awayNames[how])
	w.mark("sim.away_" + awayNames[how])
	for _, o := range w.nodes {
		if o == n {
			continue
		}
		out := how == awayIsolated || how == awayMute || how == awayHalf && mix(h^uint64(o.ord))%2 == 0
		in := how == awayIsolated || how == awayDeaf || how == awayHalf && mix(h^uint64(o.ord))%2 == 0
		if out {
			w.net.cut(n.ord, o.ord)
		}
		if in {
			w.net.cut(o.ord, n.ord)
		}
	}
	switch {
	case how == awayDead:
		n.end(true, "it never comes back")
	case how == awayStopped:
		n.pause()
	case !n.up:
		n.start()
	}
}

// drawAway are nodes that are away for good, such that every group can do without
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
// that are left can elect a master and commit, whatever the log says. Only where
// it has not is it right that the group says nothing.
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
	full, permit := false, &w.control.groups[gi].permit
	for _, m := range newest {
		for _, x := range m.Members {
			full = full || x.Kind == partition.Full && x.Eligible && here(x.Replica) && (permit.mayLead(x.Replica) || away == nil)
		}
	}
	return full && newest.Durable(here) && newest.CanFailover(here) || w.couldAlone(gi, newest, away, here)
}

// couldAlone reports whether the one voter that is left of those that are all in
// sync can go on alone: the others are gone, and the control group would permit it.
func (w *world) couldAlone(gi int, newest partition.Configurations, away []bool, here func(partition.ReplicaID) bool) bool {
	if w.k.SoloAfter == 0 || 2*w.k.SoloAfter > w.k.DurabilityWait || away == nil || len(newest) == 0 {
		return false
	}
	left := partition.ReplicaID(0)
	for _, m := range newest {
		if m.Policy.Rule != partition.AllInSync || len(m.LeftBehind) > partition.MaxLeftBehind/2 {
			return false
		}
		for _, x := range m.Members {
			switch counts := x.Eligible && x.Kind != partition.Learner; {
			case here(x.Replica) && left == 0:
				left = x.Replica
			case here(x.Replica) && left != x.Replica || counts && !here(x.Replica) && !w.gone(x.Node, away):
				return false
			}
		}
		if x, _ := m.Member(left); x.Kind != partition.Full || !x.Eligible {
			return false
		}
	}
	return w.control.groups[gi].permit.mayLead(left)
}

// gone reports whether a node is away such that the others know it: it says nothing.
func (w *world) gone(id partition.NodeID, away []bool) bool {
	who, ok := w.whoIs[id]
	if !ok || w.owner[who] < 0 || !away[w.owner[who]] {
		return false
	}
	how := w.awayWay(w.owner[who])
	return how == awayDead || how == awayIsolated || how == awayStopped
}

// awayWay is how a node is away for good, if it is.
func (w *world) awayWay(ord int) int { return pick(w.rnd.two(onCore, 3, uint64(ord)), awayWays) }

// able reports whether the group has to answer: it has what it takes, and nobody
// needs a copy.
func (l *live) able(gi int) bool {
	if l.w.groups[gi].behind {
		l.w.mark("sim.copy_needed")
		return false
	}
	return l.w.could(gi, l.away)
}

// failover is how long a failover takes at most when all goes well.
func (w *world) failover() partition.Time {
	k := w.k
	return 2*k.Lease + 3*k.RetryMax + 4*k.AnswerWait + 10*(k.DelayMax+k.SyncMax) + lockWait
}

func (l *live) limit() partition.Time {
	if s := l.w.k.Settle; s != 0 {
		return s
	}
	return patience * l.w.failover()
}

// progress waits until every group has answered.
func (l *live) progress() {
	w := l.w
	end := max(w.eng.now, w.decreed) + l.limit()
	var why string
	for w.eng.now < end {
		for gi := range w.groups {
			l.ask(gi)
		}
		w.tendAll()
		w.play(200 * time.Millisecond)
		if why = l.silent(); why == "" {
			why = l.undecided()
		}
		if why == "" {
			return
		}
	}
	w.violate("liveness", "no answer within %s after the faults: %s", l.limit(), why)
}

// ask asks every replica of the group that says it is master, as a client does
// that knows nothing.
func (l *live) ask(gi int) {
	a := &l.asks[gi]
	for _, n := range l.w.nodes {
		h := (*host)(nil)
		if n.alive() {
			h = n.hosts[gi]
		}
		if h == nil || !h.serving {
			continue
		}
		if !a.wrote {
			a.write = l.w.poke(gi, verbPut)
			n.request(0, a.write, gi)
		}
		if !a.leased {
			a.read = l.w.poke(gi, verbGet)
			n.request(0, a.read, gi)
		}
	}
}

// poke is an operation of the world itself.
func (w *world) poke(gi int, v verb) *op {
	w.pokes++
	o := &op{table: w.groups[gi].table, group: gi, client: -1, command: command{verb: v, id: opID(-1, w.pokes)}}
	o.key = w.check.anyKey(gi)
	w.check.begin(o)
	if w.heard != nil {
		w.heard(o, nil)
	}
	return o
}

// answered is told of every answer to the world's own operations.
func (l *live) answered(o *op, a *answer) {
	x := &l.asks[o.group]
	x.wrote = x.wrote || a.code == 0 && !o.read()
	x.leased = x.leased || a.lease
}

// silent names a group that could answer and has not.
func (l *live) silent() string {
	for gi, g := range l.w.groups {
		if l.gone(gi) {
			continue
		}
		if a := &l.asks[gi]; (!a.wrote || !a.leased) && l.able(gi) {
			return fmt.Sprintf("%s, a write %v, a read under a lease %v: %s", g.id, a.wrote, a.leased, l.w.show(gi))
		}
	}
	return ""
}

// equality waits until the connected replicas of each group are equal, and then
// looks, in some runs, that no mastership changes any more.
func (l *live) equality() {
	w := l.w
	w.k.Ops = 0 // no new operations; those under way end
	end, last := w.eng.now+l.limit(), w.eng.now+20*l.limit()
	applied := w.allApplied()
	for why := "?"; why != ""; {
		// Whoever has much to catch up with, one record at a time, gets the time.
		if n := w.allApplied(); n > applied {
			applied, end = n, min(w.eng.now+l.limit(), last)
		}
		if w.eng.now >= end {
			w.violate("liveness", "the replicas are not equal within %s after the last operation: %s", l.limit(), why)
		}
		w.tendAll()
		w.play(200 * time.Millisecond)
		why = l.differs()
	}
	for _, n := range w.nodes {
		for _, h := range n.hosts {
			if n.up && h != nil && h.rep != nil && h.state != nil {
				w.check.holds(h, h.state)
			}
		}
	}
	if w.rnd.two(onCore, 4, 0)%4 != 0 {
		return
	}
	for gi := range w.groups {
		if w.groups[gi].born() && !l.able(gi) {
			return // it tries again for ever
		}
	}
	w.play(2 * w.failover())
	was, sent := w.count.Elections, w.count.Sent
	w.play(3 * w.failover())
	w.check.resting(w.count.Sent-sent, 3*w.failover())
	if w.count.Elections != was {
		w.violate("liveness", "%d masterships begin though nothing happens any more: %s", w.count.Elections-was, w.showAll())
	}
}

// allApplied grows as long as any replica gets on.
func (w *world) allApplied() (n partition.Index) {
	for _, x := range w.nodes {
		for _, h := range x.hosts {
			if h != nil {
				n += h.applied
			}
		}
	}
	return n
}

// differs names replicas that are not equal.
func (l *live) differs() string {
	w := l.w
	for gi, g := range w.groups {
		m := l.master(gi)
		if m == nil {
			if l.able(gi) {
				return fmt.Sprintf("%s has no master: %s", g.id, w.show(gi))
			}
			continue
		}
		st := m.rep.Status()
		for i, n := range w.nodes {
			h := (*host)(nil)
			if n.up && !l.away[i] {
				h = n.hosts[gi]
			}
			if h == nil || h.rep == nil || h == m || !w.net.ok(m.n.ord, i) {
				continue // half a node may be master, with those that it reaches
			}
			if _, ok := m.view.Configurations.Member(h.replica); !ok || slices.Contains(st.Behind, h.replica) {
				continue
			}
			s := h.rep.Status()
			if s.Epoch > st.Epoch && l.leadsAway(gi, s.Master) {
				continue // a master of before hears of it when somebody asks it for something
			}
			if s.Applied != st.Applied || s.Commit != st.Commit || s.Last != st.Last {
				return fmt.Sprintf("%s: %s; the master %s", h, s, st)
			}
			if !h.logOnly && !m.logOnly && h.state.hash != m.state.hash {
				w.violate("state", "%s and %s differ in %q at %d", h, m, h.state.differs(m.state), h.applied)
			}
		}
	}
	return ""
}

// leadsAway reports whether a replica is master on half a node.
func (l *live) leadsAway(gi int, id partition.ReplicaID) bool {
	for i, n := range l.w.nodes {
		if h := n.hosts[gi]; l.away[i] && n.alive() && h != nil && h.replica == id && h.serving {
			return true
		}
	}
	return false
}

// master is the one that serves in the newest epoch, preferably a connected one.
func (l *live) master(gi int) *host {
	var best *host
	for i, n := range l.w.nodes {
		if h := (*host)(nil); !l.away[i] && n.alive() {
			if h = n.hosts[gi]; h != nil && h.serving && (best == nil || h.view.Epoch > best.view.Epoch) {
				best = h
			}
		}
	}
	if best == nil {
		return l.w.master(gi)
	}
	return best
}

func (w *world) showAll() (s string) {
	for gi := range w.groups {
		s += w.groups[gi].id.String() + w.show(gi) + "\n"
	}
	return s
}

// show describes a group's replicas.
func (w *world) show(gi int) (s string) {
	for _, n := range w.nodes {
		s += fmt.Sprintf("; %s up %v", n, n.up)
		if w.live != nil && w.live.away[n.ord] {
			s += " away"
		}
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
