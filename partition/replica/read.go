package replica

import (
	"pando.dev/pando/internal/planted"
	"pando.dev/pando/partition"
)

// reads are the quorum reads of a master: each is answered with the commit
// index once a durable set of members has confirmed, after the read came, that
// it has promised nothing newer. One round is under way at a time; what comes
// meanwhile shares the next.
type reads struct {
	waiting []uint64 // for the next round
	since   partition.Time

	seq       uint64 // of the round
	round     []uint64
	started   partition.Time
	deadline  partition.Time // to ask again
	index     partition.Index
	confirmed []partition.ReplicaID

	done []pending // confirmed, the state has still to reach index
}

func (r *Replica) onReadIndex(id uint64) {
	q := &r.mastery.reads
	switch {
	case r.keeps():
		r.heir.reads = append(r.heir.reads, id)
	case r.phase < recovering && !(r.isMaster() && r.mastery.handed):
		r.refuse(id, r.notMaster())
	case len(q.waiting)+len(q.round)+len(q.done) >= r.cfg.MaxPending:
		r.refuse(id, partition.Errorf(partition.CodeBusy, "%d reads wait", r.cfg.MaxPending))
	case len(q.round) > 0 && r.cfg.Planted.Has(planted.ReadJoins):
		q.round = append(q.round, id)
	default:
		if r.phase != serving {
			r.point(AtReadQueued)
		}
		if len(q.waiting) == 0 {
			q.since = r.now
		}
		q.waiting = append(q.waiting, id)
	}
}

// advance starts the next round when there is none, and ends one that is
// confirmed.
func (q *reads) advance(r *Replica) {
	if r.phase != serving && !(r.cfg.Planted.Has(planted.ReadInWait) && r.phase == recovering) {
		return
	}
	if len(q.round) == 0 && len(q.waiting) > 0 && !r.draining() {
		q.round, q.waiting = append(q.round, q.waiting...), q.waiting[:0]
		q.seq++
		q.index, q.started, q.confirmed = r.commit, q.since, append(q.confirmed[:0], r.cfg.Self)
		r.point(AtReadRound)
		q.check(r)
	}
	if len(q.round) > 0 && (r.active.Durable(q.has) || r.cfg.Planted.Has(planted.ReadUnconfirmed)) {
		r.point(AtReadConfirmed)
		for _, id := range q.round {
			q.done = append(q.done, pending{id: id, index: q.index})
		}
		q.round, q.deadline = q.round[:0], 0
		q.advance(r)
	}
}

// check asks the voters that have not confirmed this round.
func (q *reads) check(r *Replica) {
	q.deadline = r.now + r.cfg.AnswerWait
	for _, p := range r.mastery.peers {
		if p.voter && !q.has(p.id) {
			r.send(p.ref(), &ReadCheck{Epoch: r.promised, Seq: q.seq})
		}
	}
}

func (q *reads) has(id partition.ReplicaID) bool {
	for _, c := range q.confirmed {
		if c == id {
			return true
		}
	}
	return false
}

// tick asks again, or gives up on a round that nobody confirms.
func (q *reads) tick(r *Replica) {
	if len(q.round) == 0 || r.now < q.deadline {
		return
	}
	if r.now-q.started < r.cfg.DurabilityWait {
		q.check(r)
		return
	}
	for _, id := range q.round {
		r.refuse(id, partition.Errorf(partition.CodeUnavailable, "too few members of %s confirm the read", r.cfg.Group))
	}
	q.round, q.deadline = q.round[:0], 0
}

// fail ends all reads of a master that steps down. Nothing was done.
func (q *reads) fail(r *Replica) {
	lost := func(id uint64) { r.refuse(id, r.lost()) }
	for _, id := range q.waiting {
		lost(id)
	}
	for _, id := range q.round {
		lost(id)
	}
	for _, p := range q.done {
		lost(p.id)
	}
}

// answer replies to confirmed reads whose index the state has reached.
func (q *reads) answer(r *Replica) {
	n := 0
	for n < len(q.done) && (q.done[n].index <= r.applied || r.cfg.Planted.Has(planted.ReadUnapplied)) {
		r.replies = append(r.replies, &Reply{ID: q.done[n].id, Index: q.done[n].index})
		n++
	}
	q.done = append(q.done[:0], q.done[n:]...)
}

// onReadCheck confirms that nothing newer was promised. A member whose grants to
// earlier masters still run does not support a read yet.
func (r *Replica) onReadCheck(from peerRef, m *ReadCheck) {
	if m.Epoch != r.promised && (m.Epoch > r.promised || !r.refuses(from)) {
		return
	}
	waiting := r.now < r.leaseUntil && !r.cfg.Planted.Has(planted.ReadInWait) && !r.cfg.Planted.Has(planted.NoLeaseWait)
	if waiting {
		r.point(AtReadUnsupported)
	}
	r.send(from, &ReadConfirm{Epoch: r.promised, Seq: m.Seq, Waiting: waiting})
}

func (r *Replica) onReadConfirm(from peerRef, m *ReadConfirm) {
	r.seen = max(r.seen, m.Epoch)
	if !r.isMaster() || m.Epoch < r.promised {
		return
	}
	if m.Epoch > r.promised {
		r.stepDown("a member has promised a newer epoch", true)
		return
	}
	q := &r.mastery.reads
	if (m.Seq == q.seq || r.cfg.Planted.Has(planted.ReadOldConfirm)) && len(q.round) > 0 && !m.Waiting && !q.has(from.id) {
		q.confirmed = append(q.confirmed, from.id)
	}
}
