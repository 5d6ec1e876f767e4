package sim

import (
	"time"

	"pando.dev/pando/internal/planted"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
	"pando.dev/pando/split"
)

const (
	// mergeAsk bounds one question to the other group's nodes, mergeLook is the pause
	// between two, and wantedFor how long a source goes by what it was asked.
	mergeAsk  = 400 * time.Millisecond
	mergeLook = 20 * time.Millisecond
	wantedFor = time.Second
	// mergePage is about how many bytes of rows are taken in at once.
	mergePage = 4 << 10
	// unsealAfter is when a planted bug loses its patience.
	unsealAfter = 300 * time.Millisecond
)

// mergePoints are where a merge comes by, for faults.
var mergePoints = [...]string{"sim.merge-intent", "sim.merged", "sim.source-sealed", "sim.source-unsealed", "sim.source-gone", "sim.absorbed"}

// merging is what a serving master's host keeps of a merge that its group is the
// survivor or the source of.
type merging struct {
	since     partition.Time // when it began to serve
	held      bool
	heldSince partition.Time
	proposal  uint64 // the record under way
	proposed  partition.Kind
	telling   bool
	told      uint64 // the task whose activation the control group has taken
	notBefore partition.Time
	aborted   string
	task      uint64
	seen      partition.Time  // true time since which the extent's merge is known here
	intent    partition.Index // that the following are for
	copy      split.Copy
	source    *split.Source
	sealing   partition.Time
	decided   partition.Time
	outcome   partition.Outcome
	wanted    *partition.SourceSeal
	wantedAt  partition.Time
	asking    *mergeCall
	pass      *mergePass
	driving   bool
	again     partition.Time
	quiet     partition.Time // until then nobody is asked again
}

// mergePass is one pass over the source's rows.
type mergePass struct {
	from   []byte
	sealed bool
	ready  bool // the next page is to be asked for
	last   bool // there is none
	next   []byte
	asked  int // of this page
}

// mergeBegins is a mastership that begins to serve. One that finds its range sealed
// keeps what comes for it from the beginning.
func (h *host) mergeBegins() {
	h.merging = merging{since: h.n.local()}
	if m := h.extent().Merge; m != nil && m.Phase == partition.SourceSealed {
		h.merging.held, h.merging.heldSince = true, h.merging.since
	}
}

// mergePoint lets faults follow a record of a merge.
func (h *host) mergePoint(k partition.Kind) {
	i, ok := map[partition.Kind]int{
		partition.KindMergeIntent: 0, partition.KindMerging: 1, partition.KindSourceSeal: 2, partition.KindSourceUnseal: 3, partition.KindSourceGone: 4,
	}[k]
	if !ok {
		return
	}
	p := &h.n.w.points
	p.reached(h.n, p.merge+i)
	h.later(0)
}

// mergeTask is the open merge that the group is the survivor of, as far as this node
// knows.
func (h *host) mergeTask() *task {
	if h.n.view == nil {
		return nil
	}
	m := h.extent().Merge
	for i := range h.n.view.tasks {
		t := &h.n.view.tasks[i]
		switch {
		case t.group != h.gi || !t.merges:
		case m != nil && m.Phase == partition.Merged && m.Task == t.id && !t.activated:
			return t // somebody who was no master any more may have ended it
		case !t.ended:
			return t
		}
	}
	return nil
}

// wantsSeal is the seal that the source was asked for just now.
func (h *host) wantsSeal() *partition.SourceSeal {
	if m := &h.merging; m.wanted != nil && h.n.local() < m.wantedAt+wantedFor {
		return m.wanted
	}
	return nil
}

// merge does the next steps of a merge of which this replica is a master.
func (h *host) merge() {
	m := &h.merging
	if h.n.w.k.Merges == 0 || h.rep == nil || m.driving || h.turning || !h.serving || h.exec == nil || m.asking != nil || m.proposed != 0 {
		return
	}
	x := h.extent().Merge
	if x == nil && !m.held && m.wanted == nil && h.mergeTask() == nil || x != nil && x.Phase == partition.Absorbed && !m.held {
		return
	}
	m.driving = true
	defer func() { h.merging.driving = false }()
	if m.pass != nil {
		if m.pass.ready {
			h.askPage()
		}
		return
	}
	for range 4 {
		step, inc := split.NextMerge(h.mergeSituation()), h.incarnation
		if more := h.performMerge(&step); h.incarnation != inc || !more {
			return
		}
	}
}

// mergeSituation is all that the next step is decided from.
func (h *host) mergeSituation() split.MergeSituation {
	w, m, st := h.n.w, &h.merging, h.rep.Status()
	x := h.exec.Extent()
	if x.Merge != nil && x.Merge.Intent != m.intent {
		m.intent, m.copy, m.source, m.sealing, m.decided, m.outcome = x.Merge.Intent, split.Copy{}, nil, 0, 0, partition.Undecided
	}
	s := split.MergeSituation{
		Group: h.g.id, Self: h.replica, Now: h.n.local(), Serving: h.serving && st.Serving, Since: m.since, Extent: x,
		Range: w.catalog.ranges[h.gi], Version: w.catalog.versions[h.gi], Membership: h.newest(), Pending: st.InFlight,
		Proposed: m.proposed, Telling: m.telling, Aborted: m.aborted, Held: m.held, HeldSince: m.heldSince, NotBefore: m.notBefore,
		Wanted: h.wantsSeal(), Limits: split.MergeLimits{Orphan: 5 * time.Second, Learn: 5 * time.Second},
	}
	if h.task() != nil {
		s.Busy = "it is to be split"
	}
	source := -1
	if t := h.mergeTask(); t != nil {
		source = t.source
		s.Task = &split.MergeTask{
			ID: t.id, Version: t.version, Source: w.groups[t.source].id, Range: t.keys[0], Cancel: t.cancel, Activated: t.activated,
			Deadline: max(1, h.n.local()+t.deadline-w.eng.now),
		}
	}
	v := h.n.view
	if x.Merge != nil && !x.IsSource() {
		if m.task != x.Merge.Task {
			m.task, m.seen = x.Merge.Task, w.eng.now
		}
		source = int(x.Merge.Other - 1)
		s.Gone = v != nil && v.at > m.seen && v.closed(m.task) && s.Task == nil
		s.Told = m.told == m.task || v != nil && v.activated(m.task)
		if x.Merge.Phase == partition.Merged && m.decided == 0 {
			m.decided = s.Now
		}
	}
	s.Left = source >= 0 && v != nil && v.left(source)
	s.Peers = append(s.Peers, split.Peer{Replica: h.replica, Up: true})
	for _, p := range st.Peers {
		s.Peers = append(s.Peers, split.Peer{Replica: p.Replica, Up: h.n.Reachable(p.Node)})
	}
	s.Source, s.Copy, s.Sealing, s.Decided, s.Outcome = m.source, m.copy, m.sealing, m.decided, m.outcome
	h.mistake(&s)
	return s
}

// mistake makes the planted mistakes of what a merge is decided from.
func (h *host) mistake(s *split.MergeSituation) {
	p, m := &h.n.w.plan.Planted, s.Extent.Merge
	switch {
	case p.Has(planted.UnsealByClock) && m != nil && m.Phase == partition.SourceSealed && s.Outcome == partition.Undecided && s.Now >= s.HeldSince+unsealAfter:
		s.Outcome = partition.GivenUp
	case p.Has(planted.RowsUnsealed):
		s.Copy.Sealed = s.Copy.Looked
	case p.Has(planted.NoLift) && s.Source != nil:
		o := *s.Source
		o.Top, s.Source = 1, &o
	}
}

// performMerge does a step; more says that another one may follow at once.
func (h *host) performMerge(s *split.Step) (more bool) {
	w, m := h.n.w, &h.merging
	if w.tracing() && s.Kind != split.Nothing && s.Kind != split.Wait {
		w.tracef("%s: merge %s %s: %s", h, s.Kind, s.Record, s.Why)
	}
	switch s.Kind {
	case split.Wait:
		if s.Again > h.n.local() && s.Again != m.again && s.Again-h.n.local() < time.Second {
			m.again = s.Again
			h.later(h.n.later(s.Again) - w.eng.now)
		}
	case split.Hold:
		m.held, m.heldSince = true, h.n.local()
		return true
	case split.Release:
		m.held, m.wanted = false, nil
		h.release()
		return true
	case split.Propose:
		if s.Record == partition.KindAbort {
			m.aborted = s.Why
		}
		h.proposeMerge(s.Record, s.Payload)
	case split.Ask, split.Seal:
		if h.n.local() >= m.quiet {
			h.askOther(s.Kind == split.Seal)
		}
	case split.TakeIn:
		m.pass = &mergePass{sealed: s.Sealed, ready: true}
		h.askPage()
	case split.Tell:
		m.telling = true
		w.control.tell(h, &report{Report: s.Report, merges: true})
	}
	return false
}

func (h *host) proposeMerge(k partition.Kind, payload []byte) {
	m := &h.merging
	m.proposed = k
	m.proposal = h.remember(call{act: &act{splits: k, merges: true}})
	h.take(replica.Propose{Proposals: []replica.Proposal{{ID: m.proposal, Kind: k, Payload: payload}}})
}

// mergeDecided hears of a record that this host has proposed.
func (h *host) mergeDecided(k partition.Kind, x *replica.Reply) {
	m := &h.merging
	res, ok := h.results[x.ID]
	delete(h.results, x.ID)
	if x.ID != m.proposal {
		return // of another mastership
	}
	m.proposed, m.proposal = 0, 0
	bad := x.Err != nil || !ok || res.Err != nil
	switch {
	case bad:
		h.mergeFails()
	case k == partition.KindAbsorb && m.pass != nil:
		h.n.w.mark("sim.rows_absorbed")
		h.n.w.points.reached(h.n, h.n.w.points.merge+5)
		h.pageDone()
	case k == partition.KindSourceSeal:
		m.wanted = nil
	}
	h.later(0)
}

// mergeFails lets a step be tried again a little later.
func (h *host) mergeFails() {
	m := &h.merging
	m.pass, m.notBefore = nil, h.n.local()+decideAgain
	h.n.w.mark("sim.merge_step_failed")
	h.later(decideAgain)
}

// mergeTold hears whether the control group took a report.
func (h *host) mergeTold(r *report, took bool) {
	m := &h.merging
	if took && r.Phase == partition.Activated && !r.Ended {
		m.told = r.Task
	}
	m.telling, m.notBefore = false, h.n.local()+decideAgain
	h.later(decideAgain)
}
