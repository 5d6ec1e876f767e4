package sim

import (
	"time"

	"pando.dev/pando/internal/planted"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
	"pando.dev/pando/split"
)

// What a master of one group of a merge asks of a replica of the other one.
const (
	mergeLooks   = iota + 1 // how the source is, of its serving master
	mergeSeals              // to seal it, and how it is
	mergeRows               // rows of the source, of any replica
	mergeOutcome            // what was decided, of any replica of the survivor
)

// mergeCall is a question on its way, or answered.
type mergeCall struct {
	h      *host
	what   int
	group  int // that is asked
	task   uint64
	intent partition.Index
	keys   partition.KeyRange
	from   []byte
	sealed bool
}

// mergeAnswer is the answer to one.
type mergeAnswer struct {
	call    *mergeCall
	refused bool
	source  split.Source
	outcome partition.Outcome
	page    partition.Absorb
	last    bool
}

// posts sends something to a place, which may be this one.
func (n *node) posts(to int, kind eventKind, x *event) {
	x.kind, x.from = kind, int16(n.who)
	if to != n.ord {
		n.w.net.carry(n, n.w.nodes[to].who, x, 0)
		return
	}
	x.node = int16(to)
	n.w.net.arrive(n.w.eng.now+between(n.w.rnd.of(onSplit, n.w.eng.seq, 9), 0, time.Millisecond), x)
}

// asks sends a question.
func (h *host) asks(c *mergeCall, to int) {
	c.h = h
	h.merging.asking = c
	if h.n.w.tracing() {
		h.n.w.tracef("%s asks g%d on %s: %d, from %x", h, c.group+1, h.n.w.nodes[to], c.what, c.from)
	}
	h.n.posts(to, evMergeCall, &event{group: int16(c.group), p: c})
	x := h.n.w.eng.after(mergeAsk, evMergeLate, h.n.ord)
	x.life, x.group, x.a, x.p = h.n.life, int16(h.gi), h.incarnation, c
}

// whom is the node to be asked about a group: mostly its master's, as far as can be
// known, and now and then, or anyhow, that of any member.
func (h *host) whom(gi int, any uint64) int {
	w := h.n.w
	c := w.rnd.of(onSplit, uint64(h.gi), uint64(h.n.ord), w.eng.seq, 7)
	if m := w.master(gi); m != nil && c%any != 0 {
		return m.n.ord
	}
	var at []int
	for _, x := range w.check.groups[gi].newest().Members {
		if who := w.owner[w.whoIs[x.Node]]; who >= 0 {
			at = append(at, who)
		}
	}
	if len(at) == 0 {
		return h.n.ord
	}
	return at[pick(c>>8, len(at))]
}

// askOther hears from the other group how things are there, and has it sealed.
func (h *host) askOther(seal bool) {
	m, x := &h.merging, h.extent()
	c := &mergeCall{what: mergeLooks}
	switch t := h.mergeTask(); {
	case x.Merge != nil:
		c.group, c.task, c.intent, c.keys = int(x.Merge.Other-1), x.Merge.Task, x.Merge.Intent, x.Merge.Range
	case t != nil:
		c.group, c.keys = t.source, t.keys[0]
	default:
		return
	}
	if x.IsSource() {
		c.what = mergeOutcome
		h.asks(c, h.whom(c.group, 2))
		return
	}
	if seal {
		if c.what = mergeSeals; m.sealing == 0 {
			m.sealing = h.n.local()
		}
	}
	m.source = nil // what is not known now is not known
	h.asks(c, h.whom(c.group, 8))
}

// askPage asks for the next rows: of this node's replica, then of the master's.
func (h *host) askPage() {
	m, x := &h.merging, h.extent().Merge
	p := m.pass
	t := h.mergeTask()
	switch {
	case x == nil || x.Phase != partition.Absorbing || t != nil && t.cancel != "" || p.sealed && h.n.local() >= m.sealing+2*time.Second:
		m.pass = nil
		h.later(0)
		return
	case p.last:
		m.pass, m.copy.Looked, m.copy.Sealed = nil, true, p.sealed
		h.later(0)
		return
	}
	to := h.n.ord
	if p.asked > 0 {
		to = h.whom(int(x.Other-1), 4)
	}
	p.ready = false
	p.asked++
	h.asks(&mergeCall{what: mergeRows, group: int(x.Other - 1), task: x.Task, intent: x.Intent, keys: x.Range, from: p.from, sealed: p.sealed}, to)
}

// mergeLate gives up a question that was not answered in time.
func (h *host) mergeLate(c *mergeCall) {
	if h.merging.asking == c {
		h.merging.asking = nil
		h.mergeFails()
	}
}

// mergeAsked answers a question.
func (n *node) mergeAsked(c *mergeCall) {
	a := &mergeAnswer{call: c}
	h := n.hosts[c.group]
	a.refused = h == nil || h.rep == nil || h.state == nil || h.exec == nil || !h.answers(c, a)
	n.posts(c.h.n.ord, evMergeAnswer, &event{group: int16(c.h.gi), p: a})
}

// answers fills in the answer, if this replica has one.
func (h *host) answers(c *mergeCall, a *mergeAnswer) bool {
	x := h.extent()
	switch c.what {
	case mergeRows:
		m := x.Merge
		if c.sealed && (m == nil || m.Phase != partition.SourceSealed || m.Task != c.task || m.Intent != c.intent || m.Other != c.h.g.id) ||
			x.Version != 0 && !x.Range.Equal(c.keys) {
			return false
		}
		page, last, err := replica.SourceRows(h.state, c.keys, c.from, mergePage)
		a.page, a.last = page, last
		return err == nil
	case mergeOutcome:
		applied := h.applied
		if h.n.w.plan.Planted.Has(planted.UnseenOutcome) {
			applied = max(applied, c.intent)
		}
		a.outcome = x.Outcome(c.task, c.intent, c.h.g.id, applied)
		return true
	}
	if !h.serving {
		return false
	}
	a.source.Extent = x
	if x.Merge != nil {
		a.source.Top = x.At(x.Merge.At)
	}
	if x.Split != nil {
		a.source.Busy = "a split is under way"
	}
	if c.what == mergeSeals && x.Merge == nil {
		keys, version := x.Range, x.Version
		if version == 0 {
			keys, version = h.n.w.catalog.ranges[h.gi], h.n.w.catalog.versions[h.gi]
		}
		if !keys.Equal(c.keys) {
			return false
		}
		h.merging.wanted = &partition.SourceSeal{Task: c.task, Range: keys, Version: version, Survivor: c.h.g.id, Intent: c.intent}
		h.merging.wantedAt = h.n.local()
		h.merge()
	}
	return true
}

// mergeAnswered hears an answer.
func (n *node) mergeAnswered(a *mergeAnswer) {
	c := a.call
	h := c.h
	m := &h.merging
	if h.n != n || m.asking != c || h.rep == nil {
		return
	}
	m.asking = nil
	switch {
	case a.refused && c.what == mergeRows && m.pass != nil && m.pass.asked < 3:
		m.pass.ready = true
	case a.refused:
		h.mergeFails()
		return
	case c.what == mergeRows:
		h.page(a)
	case c.what == mergeOutcome:
		m.outcome, m.quiet = a.outcome, n.local()+mergeLook
		if a.outcome == partition.Undecided {
			h.later(mergeLook)
			return
		}
	default:
		o := a.source
		m.source, m.quiet = &o, n.local()+mergeLook
		if x, own := o.Extent.Merge, h.extent().Merge; m.sealing == 0 && x != nil && own != nil && x.Intent == own.Intent {
			m.sealing = n.local() // by a master of before
		}
		h.later(mergeLook)
	}
	h.later(0)
}

// page takes rows in, unless they are there.
func (h *host) page(a *mergeAnswer) {
	m, x := &h.merging, h.extent()
	p := m.pass
	if p == nil || x.Merge == nil || x.Merge.Phase != partition.Absorbing || h.state == nil {
		m.pass = nil
		return
	}
	p.last, p.next = a.last, replica.SourceNext(&a.page, x.Merge.Range)
	has, err := replica.HasAbsorbed(h.state, &a.page)
	if err != nil {
		h.n.w.violate("host", "%s cannot read its rows: %v", h, err)
	}
	if has || h.n.w.plan.Planted.Has(planted.SourceSessions) && replica.IsSessions(&a.page) {
		h.pageDone()
		return
	}
	page := a.page
	page.Decision = x.MergeDecision()
	b, err := page.AppendBinary(nil)
	if err != nil {
		h.n.w.violate("host", "%s: %v", h, err)
	}
	h.proposeMerge(partition.KindAbsorb, b)
}

// pageDone goes on to the next page.
func (h *host) pageDone() {
	p := h.merging.pass
	p.from, p.asked, p.ready = p.next, 0, true
}
