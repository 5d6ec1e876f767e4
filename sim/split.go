package sim

import (
	"fmt"
	"slices"
	"time"

	"pando.dev/pando/internal/planted"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
	"pando.dev/pando/split"
	"pando.dev/pando/wal"
)

const (
	// maxHeldOps bounds what a host keeps of leaving ranges.
	maxHeldOps = 64
	// decideAgain is the pause after a structural record that did not come through,
	// or a report.
	decideAgain = 30 * time.Millisecond
	// childAfter bounds how long after Activate a node makes its children.
	childAfter = 20 * time.Millisecond
)

// dividing is what a master's host keeps of a split; it ends with the incarnation.
type dividing struct {
	since     partition.Time // when it began to serve
	held      bool
	heldSince partition.Time
	ops       []heldOp
	proposed  partition.Kind
	telling   bool
	told      uint64 // the task whose activation the control group has taken
	notBefore partition.Time
	aborted   string
	seen      partition.Time // true time since which the extent's split is known here
	task      uint64         // that seen is of
	driving   bool
	again     partition.Time
	leaves    bool // it is to be deleted, when that is safe
}

// heldOp is an operation on a leaving range.
type heldOp struct {
	op  *op
	try uint32
}

// busy reports whether the structure of the group is being changed.
func (h *host) busy() bool { return h.exec != nil && h.exec.Extent().Split != nil }

// serves is told before the view says whether this replica serves. A master that
// begins with a sealed range keeps it from the beginning.
func (h *host) serves(serving bool) {
	d := &h.dividing
	switch {
	case serving && !h.serving:
		d.since = h.n.local()
		if x := h.extent(); x.Split != nil && x.Split.Phase == partition.Sealed {
			d.held, d.heldSince = true, d.since
		}
		h.mergeBegins()
	case !serving && h.serving:
		d.held, d.proposed = false, 0
		h.merging = merging{}
		h.refuseHeld()
	}
}

// extent is what the group serves as of the last record applied here.
func (h *host) extent() partition.Extent {
	if h.exec == nil {
		return partition.Extent{}
	}
	return h.exec.Extent()
}

func (h *host) refuseHeld() {
	ops := h.dividing.ops
	h.dividing.ops = nil
	for _, x := range ops {
		h.n.w.answer(x.op, x.try, answer{code: partition.CodeUnavailable, hint: -1})
	}
}

// hasMoved reports whether keys of the operation are not the group's any more.
func (h *host) hasMoved(o *op) bool {
	x := h.extent()
	return x.Version != 0 && !o.opens && (x.IsSource() || !o.span(o.table).Within(x.Range)) && !h.n.w.plan.Planted.Has(planted.UnmaskedHost)
}

// moved is the refusal of an operation, with where its keys have gone.
func (h *host) moved(code partition.Code) answer {
	a := answer{code: code, hint: -1}
	if m := h.extent().Merge; m != nil && m.Phase == partition.Absorbed {
		a.moved = append(a.moved, route{int(m.Other - 1), m.Range, h.extent().Version})
	}
	if s := h.extent().Split; s != nil && s.Phase == partition.Activated {
		for _, c := range s.Children {
			a.moved = append(a.moved, route{int(c.Group - 1), c.Range, h.extent().Version})
		}
	}
	return a
}

// diverts keeps or refuses what is not to be executed here now (SPL-5).
func (h *host) diverts(o *op, try uint32) bool {
	if o.opens || h.exec == nil {
		return false
	}
	if h.hasMoved(o) && !(h.merging.held && o.level < levelSession) {
		h.n.w.mark("sim.stale_route")
		h.n.w.answer(o, try, h.elsewhere())
		return true
	}
	if h.merging.held && o.level < levelSession {
		h.keeps(o, try)
		return true
	}
	if !h.dividing.held || h.n.w.plan.Planted.Has(planted.SealUnheld) || o.level >= levelSession || !leaves(h.extent(), o.span(o.table)) {
		return false
	}
	h.keeps(o, try)
	return true
}

// keeps keeps an operation until it is clear where its keys are.
func (h *host) keeps(o *op, try uint32) {
	if len(h.dividing.ops) >= maxHeldOps {
		h.n.w.answer(o, try, answer{code: partition.CodeBusy, hint: h.n.ord})
		return
	}
	h.n.w.mark("sim.split_kept_back")
	h.dividing.ops = append(h.dividing.ops, heldOp{o, try})
}

// elsewhere is the refusal of an operation whose keys are not served here.
func (h *host) elsewhere() answer {
	if m := h.extent().Merge; m != nil && m.Phase == partition.SourceSealed {
		return answer{code: partition.CodeBusy, hint: h.n.ord}
	}
	return h.moved(partition.CodeWrongGroup)
}

// leaves reports whether a range touches a child of the split under way.
func leaves(x partition.Extent, keys partition.KeyRange) bool {
	return x.Split != nil && slices.ContainsFunc(x.Split.Children, func(c partition.Child) bool { return !c.Range.Intersect(keys).Empty() })
}

// release lets what was kept go its way.
func (h *host) release() {
	h.dividing.held = false
	ops := h.dividing.ops
	h.dividing.ops = nil
	inc := h.incarnation
	for _, x := range ops {
		if h.incarnation != inc {
			return
		}
		h.n.request(x.try, x.op, h.gi)
	}
}

// restructured is told of a record that the state reflects now.
func (h *host) restructured(rec partition.Record, res *replica.Result) {
	if !rec.Kind().Structural() || res.Err != nil {
		return
	}
	x := h.extent()
	if h.n.w.tracing() {
		h.n.w.tracef("%s applies %s: %s", h, rec, x.Describe())
	}
	h.mergePoint(rec.Kind())
	switch rec.Kind() {
	case partition.KindDone:
		for _, r := range replica.Foreign(x) {
			_ = h.state.DeleteRange(r) // it does not fail
		}
	case partition.KindUnseal:
		h.dividing.notBefore = h.n.local() + decideAgain
	case partition.KindActivate:
		after := between(h.n.w.rnd.of(onSplit, uint64(h.gi), uint64(h.n.ord), uint64(h.n.life)), 0, childAfter)
		h.later(after)
	}
}

// later looks at the split again in a while.
func (h *host) later(d partition.Time) {
	x := h.n.w.eng.after(d, evSplit, h.n.ord)
	x.life, x.group, x.a = h.n.life, int16(h.gi), h.incarnation
}

// tendSplits does from time to time what splits need on the node.
func (n *node) tendSplits() {
	if n.w.k.Splits == 0 {
		return
	}
	if n.ticks%16 == 1 {
		n.w.sendCatalog(n)
	}
	for _, h := range n.hosts {
		switch {
		case h == nil || h.rep == nil:
		case h.dividing.leaves && !n.remakes(h):
			h.dividing.leaves = false
			h.retire()
		default:
			if t := h.task(); t != nil && len(t.nodes) > 0 && h.serving {
				n.w.tend(h.gi, n.ticks) // learners are brought up
			}
			h.makeChildren()
			h.drive()
			h.merge()
		}
	}
}

// remakes reports whether the node would make the replica again from its parent's,
// since what is on the disk says that it has to be made.
func (n *node) remakes(h *host) bool {
	p := h.g.parent
	if p < 0 || n.disk.states[p] == nil || n.disk.platter[p].replica == 0 {
		return false
	}
	s := n.disk.states[p].flushedClone()
	x, err := replica.ExtentOf(s)
	return err != nil || n.hosts[p] != nil && n.hosts[p].busy() || x.Split != nil
}

// makeChildren makes the replicas of the children that this node lacks.
func (h *host) makeChildren() {
	s := h.extent().Split
	if s == nil || h.state == nil || s.Phase != partition.Activated {
		if !h.n.w.plan.Planted.Has(planted.ChildOnReceipt) || s == nil || h.state == nil || !h.activating(s) {
			return
		}
	}
	for i := range s.Children {
		c := &s.Children[i]
		gi := int(c.Group - 1)
		d := h.n.disk
		if !c.MadeBy(h.replica, h.n.id) || d.seen[gi].replica != 0 || h.n.hosts[gi] != nil || d.dropped[gi] != 0 {
			continue
		}
		h.makeChild(c, gi)
	}
}

// makeChild makes one of them, from a copy of the state as it is now.
func (h *host) makeChild(c *partition.Child, gi int) {
	w, d := h.n.w, h.n.disk
	st := h.state.clone()
	x, err := h.adopt(st, c)
	if err != nil {
		w.violate("host", "%s cannot make %s: %v", h, c.Group, err)
	}
	for _, r := range replica.Foreign(x) {
		_ = st.DeleteRange(r) // it does not fail
	}
	st.applied = x.Base
	st.flush()
	rec, err := partition.FirstConfiguration(c.Group, x.Base, c.Membership)
	if err != nil {
		w.violate("host", "%s: %v", h, err)
	}
	w.check.adopts(h, gi, x.Base, st)
	b := &wal.Install{Base: rec.Position(), BaseSum: rec.Checksum(), Configuration: rec, Generation: 1}
	o := &host{n: h.n, g: w.groups[gi], gi: gi, replica: h.replica, fresh: true, appointed: true, loading: true, made: true, incarnation: firstIncarnation(h.replica)}
	d.staged[gi] = &staged{generation: 1, state: st}
	if d.append(h.n, &wal.Write{Group: c.Group, Replica: h.replica, Promise: partition.NewEpoch(1, c.First), Install: b}, false, token{host: o, incarnation: o.incarnation}) != nil {
		d.staged[gi] = nil
		return
	}
	h.n.hosts[gi] = o
	w.mark("sim.child_made")
	w.tracef("%s makes %s at %d", h, o, x.Base)
	h.point(replica.AtAdopted)
}

// adopt turns a copy of the state into a child's.
func (h *host) adopt(st *state, c *partition.Child) (partition.Extent, error) {
	p := &h.n.w.plan.Planted
	if p.Has(planted.SessionsNow) {
		// The sessions are taken as they are now, not as they were.
		_ = st.DeleteRange(partition.KeyRange{Lo: []byte{4}, Hi: []byte{5}})
	}
	if p.Has(planted.ChildOnReceipt) && h.extent().Split.Phase != partition.Activated {
		x := h.extent()
		b, err := x.Decision().AppendBinary(nil)
		if err != nil {
			return x, err
		}
		next, refused := x.Next(partition.KindActivate, b, h.n.disk.seen[h.gi].last())
		if refused != nil {
			return x, refused
		}
		row, err := next.AppendBinary(nil)
		if err != nil {
			return x, err
		}
		if err := st.Set([]byte{1, 'e'}, row); err != nil {
			return x, err
		}
	}
	return replica.AdoptChild(st, h.g.id, c.Group)
}

// activating is a planted bug: the Activate counts that is in the log and not known
// to be committed.
func (h *host) activating(s *partition.Split) bool {
	m := &h.n.disk.seen[h.gi]
	return s.Phase == partition.Sealed && len(m.recs) > 0 && m.at(m.last()).Kind() == partition.KindActivate
}

// drive does the next steps of a split of which this replica is the master.
func (h *host) drive() {
	d := &h.dividing
	if h.rep == nil || d.driving || h.turning || !h.serving || h.exec == nil || h.n.w.k.Splits == 0 {
		return
	}
	if h.exec.Extent().Split == nil && !d.held && h.task() == nil {
		return
	}
	d.driving = true
	for range 4 {
		s, inc := split.Next(h.situation()), h.incarnation
		more := h.perform(&s)
		if h.incarnation != inc {
			return
		}
		if !more {
			break
		}
	}
	d.driving = false
}

// task is the group's open task, as far as this node knows.
func (h *host) task() *task {
	if h.n.view == nil {
		return nil
	}
	s := h.extent().Split
	for i := range h.n.view.tasks {
		t := &h.n.view.tasks[i]
		switch {
		case t.group != h.gi || t.merges:
		case s != nil && s.Phase == partition.Activated && s.Task == t.id && !t.activated:
			return t // somebody who was no master any more may have ended it
		case !t.ended:
			return t
		}
	}
	return nil
}

// situation is all that the next step is decided from.
func (h *host) situation() split.Situation {
	w, d, st := h.n.w, &h.dividing, h.rep.Status()
	s := split.Situation{
		Group: h.g.id, Self: h.replica, Now: h.n.local(), Serving: h.serving && st.Serving, Since: d.since, Extent: h.exec.Extent(),
		Range: w.catalog.ranges[h.gi], Version: w.catalog.versions[h.gi], Membership: h.newest(), Pending: st.InFlight,
		Proposed: d.proposed, Telling: d.telling, Aborted: d.aborted, Held: d.held, HeldSince: d.heldSince, NotBefore: d.notBefore,
		Limits: split.Limits{Orphan: 5 * time.Second},
	}
	if t := h.task(); t != nil {
		s.Task = &split.Task{ID: t.id, Version: t.version, Cancel: t.cancel, Activated: t.activated, Deadline: max(1, h.n.local()+t.deadline-w.eng.now)}
		for i, c := range t.children {
			s.Task.Children = append(s.Task.Children, split.Wanted{Group: w.groups[c].id, Range: t.keys[i], Nodes: w.places(t.nodes)})
		}
	}
	if x := s.Extent.Split; x != nil {
		if d.task != x.Task {
			d.task, d.seen = x.Task, w.eng.now
		}
		s.Told = d.told == x.Task
		v := h.n.view
		s.Gone = v != nil && v.at > d.seen && v.closed(x.Task) && s.Task == nil
		s.Told = v != nil && slices.ContainsFunc(v.tasks, func(t task) bool { return t.id == x.Task && t.activated })
		for i := range x.Children {
			if q := &w.check.groups[x.Children[i].Group-1]; len(q.configs) > 0 {
				s.Children = append(s.Children, split.Seen{Group: x.Children[i].Group, Membership: q.newest()})
			}
		}
	}
	self := split.Peer{Replica: h.replica, Up: true, State: true, Prepared: true, Match: h.n.disk.platter[h.gi].last(), Made: h.n.has(s.Extent.Split, h.replica)}
	s.Peers = append(s.Peers, self)
	for _, p := range st.Peers {
		x := split.Peer{Replica: p.Replica, Up: h.n.Reachable(p.Node), State: p.State, Match: p.Match, Prepared: true, Lag: 64 * int64(st.Last.Index-min(p.Match, st.Last.Index)), Heard: s.Now}
		if who, ok := w.whoIs[p.Node]; ok && w.owner[who] >= 0 && x.Up {
			x.Made = w.nodes[w.owner[who]].has(s.Extent.Split, p.Replica)
		}
		s.Peers = append(s.Peers, x)
	}
	if w.plan.Planted.Has(planted.DoneEarly) {
		for i := range s.Peers {
			s.Peers[i].Made = s.Peers[0].Made
		}
	}
	return s
}

// places are the nodes at these places, as a task names them.
func (w *world) places(at []int) (p []split.Place) {
	for _, i := range at {
		p = append(p, split.Place{Node: w.nodes[i].id, Zone: w.nodes[i].zone})
	}
	return p
}

// has lists the children of a split whose replica is on the node's disk.
func (n *node) has(s *partition.Split, r partition.ReplicaID) (made []partition.GroupID) {
	if s == nil {
		return nil
	}
	for i := range s.Children {
		g := s.Children[i].Group
		if n.disk.platter[g-1].replica == r {
			made = append(made, g)
		}
	}
	return made
}

// perform does a step; more says that another one may follow at once.
func (h *host) perform(s *split.Step) (more bool) {
	w, d := h.n.w, &h.dividing
	if w.tracing() && s.Kind != split.Nothing && s.Kind != split.Wait {
		w.tracef("%s: split %s %s: %s", h, s.Kind, s.Record, s.Why)
	}
	switch s.Kind {
	case split.Wait, split.Prepare:
		if s.Again > h.n.local() && s.Again != d.again && s.Again-h.n.local() < time.Second {
			d.again = s.Again
			h.later(h.n.later(s.Again) - w.eng.now)
		}
	case split.Hold:
		d.held, d.heldSince = true, h.n.local()
		return true
	case split.Release:
		h.release()
		return true
	case split.Propose:
		if s.Record == partition.KindAbort {
			d.aborted = s.Why
		}
		d.proposed = s.Record
		h.take(replica.Propose{Proposals: []replica.Proposal{{ID: h.remember(call{act: &act{splits: s.Record}}), Kind: s.Record, Payload: s.Payload}}})
	case split.Configure:
		d.notBefore = h.n.local() + decideAgain
		for _, m := range s.Membership.Members {
			w.settle(h.g, w.whoIs[m.Node])
		}
		h.take(replica.Configure{ID: h.remember(call{act: &act{}}), Membership: s.Membership})
	case split.Tell:
		d.telling = true
		w.control.tell(h, &report{Report: s.Report})
	}
	return false
}

// decided hears of a structural record that this host has proposed.
func (h *host) decided(k partition.Kind, x *replica.Reply) {
	d := &h.dividing
	d.proposed = 0
	res, ok := h.results[x.ID]
	delete(h.results, x.ID)
	if x.Err != nil || !ok || res.Err != nil {
		d.notBefore = h.n.local() + decideAgain
		h.n.w.mark("sim.split_record_refused")
	}
	h.later(0)
}

// told hears whether the control group took a report.
func (h *host) told(r *report, took bool) {
	if r.merges {
		h.mergeTold(r, took)
		return
	}
	if took && r.Phase == partition.Activated {
		h.dividing.told = r.Task
	}
	h.dividing.telling = false
	h.dividing.notBefore = h.n.local() + decideAgain
	h.later(decideAgain)
}

// undecided names a split that has to be over by now: it is open though everybody is
// there who has to take part. A master on half a node, which leads and will never
// reach the control group, has done its part when the parent leads to the children.
func (l *live) undecided() string {
	w := l.w
	for gi, q := range w.check.groups {
		for _, x := range q.divided.cuts {
			if !w.catalog.known(x.child) && l.able(gi) && !l.leadsTo(gi, x.child) {
				return fmt.Sprintf("the catalog does not lead to %s", w.groups[x.child].id)
			}
		}
		if why := l.sealedStill(gi); why != "" {
			return why
		}
	}
	for i := range w.catalog.tasks {
		if t := &w.catalog.tasks[i]; !t.ended && l.able(t.group) {
			if why := l.open(t); why != "" {
				return why
			}
		}
	}
	return ""
}

// unmakable reports whether a member of a child has lost what it would make its
// replica of.
func (w *world) unmakable(s *partition.Split) bool {
	if s == nil {
		return false
	}
	for i := range s.Children {
		gi := int(s.Children[i].Group - 1)
		parent := w.groups[gi].parent
		for _, m := range s.Children[i].Membership.Members {
			who := w.owner[w.whoIs[m.Node]]
			if who < 0 || w.nodes[who].disk.platter[gi].replica == 0 && !w.nodes[who].intact(parent, m.Replica) {
				w.mark("sim.split_maker_lost")
				return true
			}
		}
	}
	return false
}

// leadsTo reports whether clients that follow the group come to its child, since the
// newest master says so and cannot tell the control group.
func (l *live) leadsTo(gi, child int) bool {
	m := l.w.master(gi)
	if m == nil || !l.w.control.cutOff(m.n) {
		return false
	}
	l.w.mark("sim.split_untold")
	s := m.extent().Split
	id := l.w.groups[child].id
	return s != nil && s.Phase == partition.Activated && slices.ContainsFunc(s.Children, func(c partition.Child) bool { return c.Group == id })
}

// open says why a task is open that has to be over.
func (l *live) open(t *task) string {
	w := l.w
	m := l.master(t.group)
	if m == nil {
		return fmt.Sprintf("task %d: %s has no master", t.id, w.groups[t.group].id)
	}
	x := m.extent()
	// The task may wait for the makers of the split before it, which the control group
	// took to be over.
	made := t.activated || x.Split != nil && x.Split.Phase == partition.Activated
	if t.merges {
		return l.openMerge(t, m)
	}
	switch {
	case w.control.cutOff(m.n) && (m.n.view == nil || m.n.view.closed(t.id)):
		return "" // its master has not heard of it, and will not
	case w.control.cutOff(m.n) && (x.Split == nil || x.Split.Phase == partition.Activated):
		return "" // it cannot say how it ended
	case made && slices.Contains(l.away, true):
		return "" // who is away has not made its child
	case made && w.unmakable(x.Split):
		return "" // nobody replaces members here
	}
	return fmt.Sprintf("task %d is open: %s, %s; %s", t.id, m, x.Describe(), split.Next(m.situation()).Why)
}
