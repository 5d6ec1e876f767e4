package split

import (
	"fmt"
	"strings"
	"time"

	"pando.dev/pando/partition"
)

func (e *mexplorer) situation(g partition.GroupID, x partition.Extent) MergeSituation {
	q := MergeSituation{Group: g, Self: 1, Now: time.Hour, Serving: true, Since: time.Hour, Extent: x, Membership: e.members}
	for _, m := range e.members.Members {
		q.Peers = append(q.Peers, Peer{Replica: m.Replica, Up: true})
	}
	return q
}

// hear tells the survivor's master how the source is.
func (e *mexplorer) hear(s *mstate, i uint8, add func(mstate)) {
	m := &s.m[i]
	if !m.serves && !e.anyMember {
		return
	}
	t := *s
	t.seen, t.seenAt = 0, 0
	if x := e.source(&m.log, m.commit).x; x.Merge != nil {
		t.seenAt = uint8(x.Merge.Intent - firstSurvivor)
		if t.seen = 1; x.Merge.Phase == partition.Absorbed {
			t.seen = 2
		}
	}
	add(t)
}

// take has the survivor take rows in from some member of the source.
func (e *mexplorer) take(s *mstate, i uint8, add func(mstate)) {
	v := e.survivor(&s.t, s.tn)
	step := NextMerge(e.survivorSituation(s, v, false))
	if step.Kind != TakeIn {
		return
	}
	m := &s.m[i]
	n := m.commit
	if e.receivedSeal {
		n = m.n
	}
	w := e.source(&m.log, n)
	if step.Sealed {
		o := w.x.Merge
		if o == nil || o.Phase != partition.SourceSealed || o.Intent != v.x.Merge.Intent && !e.anyAttempt {
			return
		}
	}
	t := *s
	t.looked, t.sealed = true, step.Sealed || e.unsealedCopy
	if e.unwrittenCopy {
		add(t)
	}
	if w.content != v.rows {
		e.pushSurvivor(&t, tAbsorb|w.content<<4, add)
		return
	}
	add(t)
}

func (e *mexplorer) pushSurvivor(t *mstate, r uint8, add func(mstate)) {
	if t.tn == mostSurvivor {
		return
	}
	t.t[t.tn] = r
	t.tn++
	add(*t)
}

func (e *mexplorer) survivorSituation(s *mstate, v *tview, expired bool) MergeSituation {
	q := e.situation(survivorGroup, v.x)
	q.Task = &MergeTask{ID: 9, Version: v.x.Version, Source: sourceGroup, Range: keys("m", "t"), Activated: s.told}
	q.Copy = Copy{Looked: s.looked, Sealed: s.sealed}
	if q.Sealing, q.Decided = q.Now, q.Now; expired {
		q.Sealing, q.Decided = q.Sealing-time.Minute, q.Decided-time.Minute
	}
	x := partition.Extent{Range: keys("m", "t"), Version: 7, Since: 7}
	if s.seen != 0 {
		at := s.seenAt
		if e.anyAttempt && v.x.Merge != nil {
			at = uint8(v.x.Merge.Intent - firstSurvivor)
		}
		x.Version, x.Merge = 8, &partition.Merge{
			Task: 9, Phase: partition.SourceSealed, Other: survivorGroup, Range: x.Range, Version: 7, Intent: firstSurvivor + partition.Index(at), At: firstSource,
		}
	}
	if s.seen == 2 {
		x.Merge.Phase = partition.Absorbed
	}
	q.Source = &Source{Extent: x, Top: 600}
	return q
}

// driveSurvivor asks NextMerge for the survivor's master.
func (e *mexplorer) driveSurvivor(s *mstate, expired bool, add func(mstate)) {
	v := e.survivor(&s.t, s.tn)
	if e.notExclusive && v.merged != 0 && v.x.Merge != nil {
		t := *s
		e.pushSurvivor(&t, tAbort, add)
	}
	if v.x.Merge == nil {
		begun := uint8(0)
		for _, r := range s.t[:s.tn] {
			if r == tIntent {
				begun++
			}
		}
		if v.x.Done || begun == e.tries {
			return
		}
	}
	q := e.survivorSituation(s, v, expired)
	if v.x.Merge == nil { // another task for the same
		q.Extent.Ended = 0
	}
	if e.forgetful && v.x.Merge != nil && v.x.Merge.Phase == partition.Merged && s.told {
		q.Left = true
	}
	t := *s
	switch step := NextMerge(q); step.Kind {
	case Seal:
		t.asked |= 1 << uint8(v.x.Merge.Intent-firstSurvivor)
		add(t)
	case Tell:
		t.told = t.told || step.Report.Phase == partition.Activated
		add(t)
	case Propose:
		if step.Record == partition.KindMergeIntent {
			t.looked, t.sealed = false, false
		}
		for k, kind := range survivorKinds {
			if kind == step.Record {
				e.pushSurvivor(&t, k, add)
			}
		}
	}
}

// trace is the way to a state.
func (e *mexplorer) trace(at int32) string {
	var lines []string
	for ; at >= 0; at = e.from[at] {
		s := &e.queue[at]
		line := fmt.Sprintf("acked %b seen %d asked %b looked %v sealed %v, survivor", s.acked, s.seen, s.asked, s.looked, s.sealed)
		for _, r := range s.t[:s.tn] {
			line += fmt.Sprintf(" %c%d", "?IRMXD"[r&7], r>>4)
		}
		for i := range s.m {
			m := &s.m[i]
			line += fmt.Sprintf(" | n%d e%d", i+1, m.promised)
			for _, r := range m.log[:m.n] {
				line += fmt.Sprintf(" %c%d", "n12SUG"[r&7], sepoch(r))
			}
			line += fmt.Sprintf(" c%d serves %v held %v", m.commit, m.serves, m.held)
		}
		lines = append([]string{line}, lines...)
	}
	return strings.Join(lines, "\n")
}

// check says what is wrong with a state, and counts how merges end.
func (e *mexplorer) check(s *mstate) string {
	t := e.survivor(&s.t, s.tn)
	merged, rows := t.merged != 0, t.merged&^(1<<7)
	if merged && s.acked&^rows != 0 {
		return "a write that was acknowledged is not in the survivor"
	}
	for i := range s.m {
		m := &s.m[i]
		v := e.source(&m.log, m.commit)
		switch {
		case merged && m.lease && !m.held && v.x.Serves(keys("n", "o")):
			return "the source answers for keys of the survivor"
		case v.x.Merge != nil && v.x.Merge.Phase == partition.Absorbed && !merged:
			return "the source has gone and nobody has its keys"
		case v.x.Merge != nil && v.x.Merge.Phase == partition.Absorbed:
			e.ends["gone"]++
		case v.changes > 1 && v.x.Merge == nil:
			e.ends["unsealed"]++
		}
		if v.refused != 0 {
			e.ends["refused"]++
		}
	}
	switch {
	case t.x.Done:
		e.ends["done"]++
	case t.x.Ended != 0:
		e.ends["aborted"]++
	}
	return ""
}
