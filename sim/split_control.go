package sim

import (
	"time"

	"pando.dev/pando/internal/planted"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
	"pando.dev/pando/split"
)

// reportWait bounds one report of a master to the control group.
const reportWait = time.Second

// report is what a master tells the control group of a task.
type report struct {
	split.Report
	merges bool
}

// planSplits lets an operator ask for splits all along.
func (w *world) planSplits() {
	for i := range uint64(w.k.Splits) {
		at := between(w.rnd.two(onSplit, i, 1), 0, w.k.Length)
		w.eng.after(at, evAskSplit, -1).a = i
	}
}

// askSplit asks for a split of some group, or for its end.
func (w *world) askSplit(i, cancels uint64) {
	c := w.catalog
	if cancels != 0 {
		if t := c.task(cancels); t != nil && !t.ended && !t.activated {
			t.cancel = "the operator has changed their mind"
			w.publishCatalog()
		}
		return
	}
	if w.quiet || w.control.down > 0 {
		return
	}
	h := w.rnd.two(onSplit, i, 2)
	w.repeatDecision(mix(h ^ 6))
	var able []int
	for gi := range c.ranges {
		if c.live[gi] && c.openOf(gi) == nil {
			able = append(able, gi)
		}
	}
	if len(able) == 0 {
		return
	}
	t := task{id: uint64(len(c.tasks) + 1), group: able[pick(h, len(able))]}
	t.version = c.versions[t.group]
	if !w.divide(&t, mix(h)) {
		return
	}
	t.deadline = w.eng.now + between(mix(h^2), time.Second, 20*time.Second)
	if share(mix(h^5), w.k.NewNodes) {
		w.mark("sim.split_to_new_nodes")
		first := pick(h>>16, len(w.nodes))
		for i := range min(w.k.Replicas, len(w.nodes)) {
			t.nodes = append(t.nodes, (first+i)%len(w.nodes))
		}
	}
	c.tasks = append(c.tasks, t)
	w.tracef("task %d: %s of %s into %v", t.id, w.groups[t.group].id, c.ranges[t.group], t.keys)
	w.mark("sim.split_asked")
	often, soon := uint64(6), partition.Time(time.Second)
	if w.k.CatalogLag > 0 { // before everybody knows of the task
		often, soon = 2, w.k.CatalogLag
	}
	if mix(h^3)%often == 0 {
		w.eng.after(between(mix(h^4), 0, soon), evAskSplit, -1).b = t.id
	}
	w.publishCatalog()
}

// repeatDecision lets some master have a decision in its log that does not fit, as if
// it came from a driver that has slept: of a version of before, or of a split that is
// over. It is refused where it is applied, alike on every member.
func (w *world) repeatDecision(h uint64) {
	m := w.master(pick(h>>8, w.catalog.next))
	if h%4 != 0 || m == nil || m.exec == nil {
		return
	}
	x := m.extent()
	d := partition.Decision{Task: uint64(1 + pick(h>>24, len(w.catalog.tasks)+1)), Version: x.Version}
	if x.Split != nil {
		d = x.Decision()
		d.Version--
	}
	b, err := d.AppendBinary(nil)
	if err != nil {
		w.violate("host", "%s: %v", m, err)
	}
	kinds := []partition.Kind{partition.KindSeal, partition.KindUnseal, partition.KindActivate, partition.KindDone, partition.KindAbort}
	w.mark("sim.split_decision_repeated")
	m.take(replica.Propose{Proposals: []replica.Proposal{{ID: m.remember(call{act: &act{}}), Kind: kinds[pick(h>>40, len(kinds))], Payload: b}}})
}

// divide draws what leaves the group of a task: its upper keys, its lower ones, or
// two ranges of which one is in the middle.
func (w *world) divide(t *task, h uint64) bool {
	c, table := w.catalog, w.groups[t.group].table
	r := c.ranges[t.group]
	var at [][]byte // where it may be cut
	for k := range w.k.Keys {
		if key := keyOf(table, uint16(k)); r.Contains(key) {
			at = append(at, key)
		}
	}
	if len(at) < 2 {
		return false
	}
	at = at[1:] // a group keeps a key at each end
	p := pick(h>>8, len(at))
	switch {
	case h%3 == 0:
		t.keys = []partition.KeyRange{{Lo: r.Lo, Hi: at[p]}}
	case h%3 == 1 && p+1 < len(at):
		q := p + 1 + pick(h>>24, len(at)-p-1)
		t.keys = []partition.KeyRange{{Lo: at[p], Hi: at[q]}, {Lo: at[q], Hi: r.Hi}}
	default:
		t.keys = []partition.KeyRange{{Lo: at[p], Hi: r.Hi}}
	}
	if c.next+len(t.keys) > len(w.groups) {
		return false
	}
	for range t.keys {
		t.children = append(t.children, c.next)
		c.next++
	}
	return true
}

// publishCatalog sends the catalog to the nodes that the control group reaches.
func (w *world) publishCatalog() {
	w.catalog.version++
	if err := w.catalog.check(); err != nil {
		w.violate("ranges", "%v", err)
	}
	for _, n := range w.nodes {
		w.sendCatalog(n)
	}
}

func (w *world) sendCatalog(n *node) {
	if w.control.down > 0 || !n.up || w.control.cutOff(n) || w.lags(n) {
		return
	}
	d := between(w.rnd.of(onSplit, w.catalog.version, uint64(n.ord), w.eng.seq), w.k.DelayMin, 2*w.k.DelayMax) + w.control.slow
	x := w.eng.after(d, evCatalog, n.ord)
	x.life, x.p = n.life, w.catalog.view(w.eng.now)
}

// lags reports whether a node hears no news of splits now. A master that knows of a
// task's end and one that does not may so follow each other, in either order.
func (w *world) lags(n *node) bool {
	lag := w.k.CatalogLag
	return lag > 0 && !w.quiet && share(w.rnd.of(onSplit, uint64(n.ord), uint64(w.eng.now/lag), 3), 0.5)
}

// learns takes a copy of the catalog.
func (n *node) learns(v *catalogView) {
	if n.view == nil || v.version >= n.view.version {
		n.view = v
	}
	for _, h := range n.hosts {
		if h != nil {
			h.drive()
			h.merge()
		}
	}
}

// tell reports to the control group, and hears of it, or not.
func (c *control) tell(h *host, r *report) {
	q := &question{h: h, incarnation: h.incarnation, replica: h.replica, report: r}
	c.post(h.n, askReport, q)
	c.giveUp(q, nil, reportWait)
}

// reported takes a report. The same one may come again.
func (c *control) reported(q *question) {
	w, r := c.w, q.report
	t := w.catalog.task(r.Task)
	switch {
	case t == nil:
	case r.Phase == partition.Activated && !r.Ended:
		// Also of a task that was given up meanwhile, by who was no master any more: it is
		// a fact of the group's log.
		if !t.activated {
			if t.ended {
				w.mark("sim.split_ended_too_soon")
			}
			t.ended = false
			w.tracef("control: task %d is activated", t.id)
			w.mark("sim." + t.what() + "_activated")
			w.catalog.activate(t, r.Version, r.Range)
		}
	case r.Ended && !t.ended && r.Done == t.activated: // else it comes from a master of before
		t.ended, t.done = true, r.Done
		w.tracef("control: task %d ends, done %v: %s", t.id, t.done, r.Why)
		if t.done {
			w.mark("sim." + t.what() + "_done")
		} else {
			w.mark("sim." + t.what() + "_aborted")
			c.reuse(t)
		}
	}
	w.publishCatalog()
	c.reply(q, tick)
}

// reuse is a planted bug: the ids of children that were not made are given again.
func (c *control) reuse(t *task) {
	if cat := c.w.catalog; !t.merges && c.w.plan.Planted.Has(planted.ChildIDAgain) && t.children[len(t.children)-1] == cat.next-1 {
		cat.next -= len(t.children)
	}
}
