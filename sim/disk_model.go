package sim

import (
	"slices"

	"pando.dev/pando/partition"
	"pando.dev/pando/wal"
)

// modelLog is the model of a node's log. It promises less than the real one: in a
// crash any first part of what was not synced survives, and of the write after it
// perhaps the promise alone, or that and the snip, or these and some of the
// records.
type modelLog disk

func (l *modelLog) append(w *wal.Write, _ bool) error { return l.seen[w.Group-1].check(w) }

func (l *modelLog) turn(n int) (durable int, err error) { return n, nil }

func (l *modelLog) settle() error { return nil }

func (l *modelLog) summary(g partition.GroupID) (wal.Summary, bool) {
	m := &l.seen[g-1]
	if m.replica == 0 {
		return wal.Summary{}, false
	}
	return m.summary(), true
}

func (l *modelLog) read(g partition.GroupID, from, to partition.Index, _ int) ([]partition.Record, error) {
	m := &l.seen[g-1]
	if from < m.first || from > m.last() {
		return nil, partition.Errorf(partition.CodeNotFound, "record %d is not in the log, which has %d to %d", from, m.first, m.last())
	}
	return slices.Clip(m.recs[from-m.first : min(to, m.last())+1-m.first]), nil
}

func (l *modelLog) let(g partition.GroupID, flushed, retain partition.Index, _ uint32) partition.Index {
	m := &l.seen[g-1]
	p := &l.platter[g-1]
	return max(m.first, min(flushed, p.commit, p.last(), retain-1)+1)
}

// crash keeps a random first part of what was under way.
func (l *modelLog) crash() {
	h := l.w.rnd.two(onCrash, uint64(l.id), l.syncs)
	n := len(l.pending)
	keep := pick(h, n+1)
	for i := range l.pending[:keep] {
		p := &l.pending[i]
		l.platter[p.w.Group-1].apply(&p.w)
	}
	if keep == n || keep == 0 {
		return
	}
	torn, h := l.pending[keep].w, mix(h)
	m := &l.platter[torn.Group-1]
	torn.Commit = min(torn.Commit, m.commit)
	if m.replica == 0 || torn.Install != nil {
		return // it is there as a whole or not at all
	}
	switch h % 4 {
	case 0:
		return
	case 1:
		torn.Snip, torn.Records = false, nil
	case 2:
		torn.Records = nil
	case 3:
		torn.Records = torn.Records[:pick(mix(h), len(torn.Records)+1)]
	}
	m.apply(&torn)
}
