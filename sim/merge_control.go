package sim

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/split"
)

// what names a task for the marks.
func (t *task) what() string {
	if t.merges {
		return "merge"
	}
	return "split"
}

// activated reports whether a task was, as far as was seen.
func (v *catalogView) activated(id uint64) bool {
	return slices.ContainsFunc(v.tasks, func(t task) bool { return t.id == id && t.activated })
}

// left reports whether a group has left the catalog, being absorbed.
func (v *catalogView) left(gi int) bool {
	return slices.ContainsFunc(v.tasks, func(t task) bool { return t.merges && t.source == gi && t.ended && t.done })
}

// planMerges lets an operator ask for merges all along.
func (w *world) planMerges() {
	for i := range uint64(w.k.Merges) {
		at := between(w.rnd.two(onSplit, i, 21), 0, w.k.Length)
		x := w.eng.after(at, evAskSplit, -1)
		x.a, x.c = i, 1
	}
}

// asksOf lets an operator ask for a split or for a merge.
func (w *world) asksOf(x *event) {
	if x.c == 0 {
		w.askSplit(x.a, x.b)
		return
	}
	w.askMerge(x.a)
}

// askMerge asks for some neighbours to be merged.
func (w *world) askMerge(i uint64) {
	c := w.catalog
	if w.quiet || w.control.down > 0 {
		return
	}
	h := w.rnd.two(onSplit, i, 22)
	var able [][2]int
	for t := range c.ranges {
		for s := range c.ranges {
			if c.live[t] && c.live[s] && w.groups[t].table == w.groups[s].table && len(c.ranges[t].Hi) > 0 && bytes.Equal(c.ranges[t].Hi, c.ranges[s].Lo) &&
				c.openOf(t) == nil && c.openOf(s) == nil {
				able = append(able, [2]int{t, s})
			}
		}
	}
	if len(able) == 0 {
		return
	}
	p := able[pick(h, len(able))]
	t := task{
		id: uint64(len(c.tasks) + 1), group: p[0], merges: true, source: p[1], keys: []partition.KeyRange{c.ranges[p[1]]},
		version: c.versions[p[0]], deadline: w.eng.now + between(mix(h^2), time.Second, 20*time.Second),
	}
	c.tasks = append(c.tasks, t)
	w.tracef("task %d: %s is to absorb %s", t.id, w.groups[t.group].id, w.groups[t.source].id)
	w.mark("sim.merge_asked")
	if mix(h^3)%6 == 0 {
		w.eng.after(between(mix(h^4), 0, time.Second), evAskSplit, -1).b = t.id
	}
	w.publishCatalog()
}

// gone reports whether a group need not answer: another one has its keys, or has to
// decide whether it has and cannot.
func (l *live) gone(gi int) bool {
	d := &l.w.check.groups[gi].divided
	return d.gone || d.sealedAt != 0 && !l.able(int(d.attempt.Other-1))
}

// sealedStill names a source that has to know by now what its survivor has decided.
func (l *live) sealedStill(gi int) string {
	d := &l.w.check.groups[gi].divided
	if d.sealedAt == 0 || d.wentAt != 0 || !l.able(gi) || !l.able(int(d.attempt.Other-1)) {
		return ""
	}
	m := l.master(gi)
	if m == nil || m.n == nil {
		return fmt.Sprintf("%s is sealed and has no master", l.w.groups[gi].id)
	}
	return fmt.Sprintf("%s is sealed: %s; %s", l.w.groups[gi].id, m.extent().Merge.Describe(), split.NextMerge(m.mergeSituation()).Why)
}

// openMerge says why a merge is open that has to be over.
func (l *live) openMerge(t *task, m *host) string {
	w, x := l.w, m.extent()
	switch {
	case w.control.cutOff(m.n) && (m.n.view == nil || m.n.view.closed(t.id)):
		return "" // its master has not heard of it, and will not
	case w.control.cutOff(m.n) && (x.Merge == nil || x.Merge.Phase == partition.Merged):
		return "" // it cannot say how it ended
	case x.Split != nil && x.Split.Phase == partition.Activated && (slices.Contains(l.away, true) || w.unmakable(x.Split)):
		return "" // it waits for the makers of the split before it
	}
	return fmt.Sprintf("task %d is open: %s, %s; %s", t.id, m, x.Describe(), split.NextMerge(m.mergeSituation()).Why)
}
