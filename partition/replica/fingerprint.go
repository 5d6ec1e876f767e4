package replica

import (
	"encoding/binary"

	"pando.dev/pando/partition"
)

// AppendFingerprint appends an encoding of everything that the replica's future
// depends on besides its Config: two replicas of one Config and with the same
// fingerprint answer the same events in the same way. It is taken between two
// events, when the work of the last one is done.
//
// Times are encoded as what is left of them on the replica's own clock, so it does
// not matter when something has happened. What only a human reads, and what an
// attempt has left behind that is over, is not in it.
func (r *Replica) AppendFingerprint(b []byte) []byte {
	f := printer{b: b, now: r.now}
	f.flag(r.begun, r.restarted, r.masterDown, r.resigned)
	f.u(uint64(r.promised), uint64(r.synced), uint64(r.seen), uint64(r.leaseEpoch), uint64(r.released))
	f.s(string(r.promisedNode))
	f.t(r.leaseUntil, r.deadline, r.alarm)
	f.u(uint64(r.durable), uint64(r.commit), uint64(r.applied), uint64(r.asked), uint64(r.everywhere), uint64(r.settled))
	f.u(uint64(r.phase), uint64(r.master), r.permitSeq, uint64(len(r.sends)+len(r.locks)+len(r.replies)+len(r.out)-r.taken))
	f.log(r.log)
	f.u(uint64(len(r.active)))
	for _, m := range r.active {
		f.u(uint64(m.Version))
	}
	f.removal(&r.removal)
	if f.has(r.decree != nil) {
		f.u(r.decree.id)
		f.membership(r.decree.next)
		f.t(r.decree.until)
	}
	if f.has(r.appointed != nil) {
		f.u(r.appointed.Lock)
	}
	f.follow(&r.follow)
	f.attempt(&r.attempt, r.phase)
	f.mastery(&r.mastery)
	f.handOver(&r.hand)
	f.heir(&r.heir)
	f.ref(r.successor)
	f.u(uint64(len(r.writing)))
	for _, w := range r.writing {
		f.u(r.seq-w.seq, uint64(w.last), uint64(w.promise), uint64(w.commit)) // only the order of Seq matters
	}
	f.u(uint64(r.stored.promise), uint64(r.stored.commit))
	if f.has(r.view != nil) {
		f.view(r.view)
	}
	return f.b
}

// printer appends the parts of a fingerprint.
type printer struct {
	b   []byte
	now partition.Time
}

func (f *printer) u(values ...uint64) {
	for _, v := range values {
		f.b = binary.AppendUvarint(f.b, v)
	}
}

func (f *printer) s(v string) {
	f.u(uint64(len(v)))
	f.b = append(f.b, v...)
}

func (f *printer) flag(values ...bool) {
	for _, v := range values {
		f.has(v)
	}
}

// has appends a flag and returns it.
func (f *printer) has(v bool) bool {
	if v {
		f.b = append(f.b, 1)
	} else {
		f.b = append(f.b, 0)
	}
	return v
}

// t appends times on the replica's clock; 0 stands for none.
func (f *printer) t(times ...partition.Time) {
	for _, t := range times {
		if f.has(t != 0) {
			f.b = binary.AppendVarint(f.b, int64(t-f.now))
		}
	}
}

func (f *printer) ref(p peerRef) {
	f.u(uint64(p.id), p.boot)
	f.s(string(p.node))
}

func (f *printer) position(p partition.Position) { f.u(uint64(p.Epoch), uint64(p.Index)) }

func (f *printer) ids(ids []partition.ReplicaID) {
	f.u(uint64(len(ids)))
	for _, id := range ids {
		f.u(uint64(id))
	}
}

func (f *printer) numbers(n []uint64) {
	f.u(uint64(len(n)))
	f.u(n...)
}

func (f *printer) membership(m *partition.Membership) {
	if !f.has(m != nil) {
		return
	}
	b, err := m.AppendBinary(nil)
	assert(err == nil, "a configuration that cannot be encoded: %v", err)
	f.s(string(b))
}

func (f *printer) log(l *log) {
	f.u(uint64(l.first), uint64(l.last), uint64(l.lastSum), uint64(l.handed), uint64(l.snipAfter), uint64(l.limit))
	f.position(l.before)
	f.flag(l.snip)
	f.u(uint64(len(l.runs)))
	for _, x := range l.runs {
		f.u(uint64(x.Epoch), uint64(x.First))
	}
	f.u(uint64(len(l.configs)))
	for _, c := range l.configs {
		f.u(uint64(c.Index))
		f.membership(c.Membership)
	}
	f.u(uint64(len(l.tail)))
	for _, x := range l.tail {
		f.u(uint64(x.Checksum()))
	}
}

func (f *printer) removal(x *removal) {
	f.membership(x.without)
	f.ids(x.settled)
	f.u(uint64(x.tries))
	f.flag(x.retired)
}

func (f *printer) follow(w *follow) {
	f.ref(w.master)
	f.ref(w.gather)
	f.u(uint64(w.matched), uint64(w.acked), uint64(w.want))
	f.flag(w.owed, w.unsettled)
}

// attempt appends what an attempt leaves behind, and the rest while it lasts.
func (f *printer) attempt(a *attempt, p phase) {
	f.u(uint64(a.tries), a.lock, a.permit, uint64(a.diskTook))
	if p < probing || p > fetching {
		return
	}
	f.ref(a.sponsor)
	f.ref(a.source)
	f.position(a.target)
	f.u(uint64(a.fetched))
	f.t(a.until, a.promisedAt)
	f.u(uint64(len(a.probed)))
	for i := range a.probed {
		f.u(uint64(a.probed[i].id))
		f.probeAnswer(&a.probed[i].answer)
	}
	f.u(uint64(len(a.asked)))
	for _, x := range a.asked {
		f.ref(x)
	}
	f.ids(a.useless)
	f.u(uint64(len(a.supporters)))
	for _, s := range a.supporters {
		f.ref(s.peerRef)
		f.position(s.end)
		f.position(s.commit)
		f.t(s.leaseUntil)
		f.u(uint64(s.version))
	}
}

func (f *printer) probeAnswer(m *ProbeAnswer) {
	f.u(uint64(m.Promised), uint64(m.Settled))
	f.flag(m.Reachable, m.Trying, m.Master)
	f.position(m.End)
	f.position(m.Commit)
	f.membership(m.Without)
}

func (f *printer) mastery(m *mastery) {
	f.u(uint64(m.first), m.permit, uint64(m.knowing))
	f.t(m.leaseWait, m.leaveAt)
	f.flag(m.handed, m.newSupport, m.configuring, m.allKnow)
	f.u(uint64(len(m.peers)))
	for _, p := range m.peers {
		f.peer(p)
	}
	f.proposals(m.proposed)
	f.u(m.solo.asked, uint64(m.solo.tries))
	f.t(m.solo.since, m.solo.again)
	f.pending(m.pending)
	f.u(uint64(len(m.marks)))
	for _, x := range m.marks {
		f.u(uint64(x.last))
		f.t(x.at)
	}
	q := &m.reads
	f.numbers(q.waiting)
	f.numbers(q.round)
	f.t(q.since, q.started, q.deadline)
	f.u(q.seq, uint64(q.index))
	f.ids(q.confirmed)
	f.pending(q.done)
}

func (f *printer) peer(p *peer) {
	f.u(uint64(p.id), p.boot, uint64(p.match), uint64(p.next), uint64(p.inFlight), uint64(p.commitSent), uint64(p.commitKnown), uint64(p.tries), uint64(p.steps))
	f.s(string(p.node))
	f.flag(p.voter, p.leaving, p.told, p.supports, p.sure, p.waiting, p.reading, p.ask, p.down, p.state, p.behind)
	f.t(p.quiet, p.deadline)
	f.u(uint64(len(p.sent)))
	for _, x := range p.sent {
		f.u(uint64(x.last), uint64(x.bytes))
	}
}

func (f *printer) proposals(list []Proposal) {
	f.u(uint64(len(list)))
	for _, p := range list {
		f.u(p.ID, uint64(p.Kind))
		f.s(string(p.Payload))
	}
}

func (f *printer) pending(list []pending) {
	f.u(uint64(len(list)))
	for _, p := range list {
		f.u(p.id, uint64(p.index))
	}
}

func (f *printer) handOver(h *handOver) {
	f.u(uint64(h.step), h.id, uint64(h.tries))
	f.ref(h.to)
	f.t(h.until, h.again)
	f.flag(h.ready)
	f.s(h.anyway)
	if f.has(h.goes != nil) {
		f.u(uint64(h.goes.Epoch), uint64(h.goes.Step), h.goes.Number, uint64(h.goes.EndSum))
		f.position(h.goes.End)
	}
}

func (f *printer) heir(h *heir) {
	f.ref(h.from)
	f.u(uint64(h.epoch), h.number)
	f.flag(h.taking)
	f.t(h.until)
	f.proposals(h.proposed)
	f.numbers(h.reads)
}

func (f *printer) view(v *View) {
	f.u(uint64(v.Epoch), uint64(v.Master))
	f.flag(v.Serving)
	f.s(string(v.Next))
	f.u(uint64(len(v.Supporters)))
	for _, s := range v.Supporters {
		f.u(uint64(s.Replica), s.Boot)
	}
	f.u(uint64(len(v.Configurations)))
	for _, m := range v.Configurations {
		f.u(uint64(m.Version))
	}
}
