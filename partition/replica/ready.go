package replica

import (
	"sort"

	"pando.dev/pando/internal/planted"
	"pando.dev/pando/partition"
)

// settle turns everything that has changed since the last time into work: one
// view, one Persist, one message stream per peer, one Apply. The order matters:
// a view that withdraws a lease comes before any message that relies on it, and
// the log's change before messages that the host may have to read from the log.
func (r *Replica) settle() {
	if !r.begun {
		return
	}
	if r.isMaster() {
		r.lead()
		r.drained()
	}
	r.watch()
	r.publish()
	r.persist()
	if r.isMaster() {
		r.mastery.reads.advance(r)
		r.feedAll()
	} else {
		r.answerOwed()
	}
	r.out = append(r.out, r.sends...)
	r.apply()
	if r.isMaster() {
		r.answerProposals()
		r.mastery.reads.answer(r)
	}
	r.out = append(r.out, r.replies...)
	r.out = append(r.out, r.locks...)
	clear(r.sends)
	clear(r.replies)
	clear(r.locks)
	r.sends, r.replies, r.locks = r.sends[:0], r.replies[:0], r.locks[:0]
	r.setAlarm()
	r.log.trim()
}

// persist hands out what is not on disk and not on the way there.
func (r *Replica) persist() {
	l := r.log
	c := r.committed().Index
	settles := c > 1 && c <= r.commit && r.stored.commit < c // the genesis needs no word
	sync := l.snip || l.handed < l.last || r.stored.promise != r.promised || settles
	if !sync && r.stored.commit == r.commit {
		return
	}
	if r.stored.promise != r.promised {
		r.point(AtPromise)
	}
	r.seq++
	p := &Persist{
		Seq: r.seq, Promise: r.promised, Commit: r.commit, Snip: l.snip, After: l.snipAfter,
		Records: l.span(l.handed+1, l.last), Sync: sync,
	}
	l.snip, l.snipAfter, l.handed = false, 0, l.last
	r.stored = stored{promise: r.promised, commit: r.commit}
	if sync {
		r.writing = append(r.writing, written{seq: r.seq, last: l.last, promise: r.promised, commit: r.commit})
	}
	r.out = append(r.out, p)
}

// apply hands out committed records, one range at a time. A record is not
// applied before it is on the own disk: the state must never be ahead of the
// log that rebuilds it.
func (r *Replica) apply() {
	last := min(r.commit, r.durable)
	if r.cfg.Planted.Has(planted.ApplyUnsynced) {
		last = r.commit
	}
	if r.asked != 0 || last <= r.applied {
		return
	}
	a := &Apply{First: r.applied + 1, Last: last}
	if f := r.log.tailFirst(); a.First < f {
		a.Last = min(last, f-1)
		r.point(AtApplyReadBack)
	} else {
		a.Records = r.log.span(a.First, a.Last)
	}
	a.IDs = r.waitingFor(a.First, a.Last)
	r.asked = a.Last
	r.out = append(r.out, a)
}

// waitingFor lists the proposals that wait for the results of the records first
// to last, or nil if none does.
func (r *Replica) waitingFor(first, last partition.Index) []uint64 {
	p := r.mastery.pending
	n := sort.Search(len(p), func(i int) bool { return p[i].index >= first })
	if n == len(p) || p[n].index > last {
		return nil
	}
	ids := make([]uint64, last-first+1)
	for ; n < len(p) && p[n].index <= last; n++ {
		ids[p[n].index-first] = p[n].id
	}
	return ids
}

// setAlarm asks for a Tick if one is needed earlier than the one that was asked
// for. One that is no longer needed just comes once.
func (r *Replica) setAlarm() {
	at := r.deadline
	earlier := func(t partition.Time) {
		if t != 0 && (at == 0 || t < at) {
			at = t
		}
	}
	earlier(r.hand.until)
	earlier(r.hand.again)
	if !r.heir.taking {
		earlier(r.heir.until)
	}
	if r.decree != nil {
		earlier(r.decree.until)
	}
	if r.isMaster() {
		m := &r.mastery
		if r.hand.step == noHand {
			earlier(m.leaveAt)
			earlier(r.soloDue())
		}
		earlier(m.reads.deadline)
		if r.phase == recovering && r.now < m.leaseWait {
			earlier(m.leaseWait)
		}
		if len(m.marks) > 0 {
			earlier(m.marks[0].at + r.cfg.DurabilityWait)
		}
		for _, p := range m.peers {
			earlier(p.deadline)
		}
	}
	if at == 0 || r.alarm != 0 && r.alarm <= at {
		return
	}
	r.alarm = at
	r.out = append(r.out, &Alarm{At: at})
}
