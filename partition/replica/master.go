package replica

import (
	"slices"

	"pando.dev/pando/internal/planted"
	"pando.dev/pando/partition"
)

// mastery is what a master keeps. It begins with the first record of its epoch
// and ends with stepDown; nothing of it survives.
//
//	leveling ----------> recovering --------> serving
//	          committed              applied,
//	                                 old leases run out
type mastery struct {
	first     partition.Index // of the epoch's Noop
	leaseWait partition.Time  // no acknowledgement before this time
	leaveAt   partition.Time  // it is known to be no member any more: steps down then

	peers      []*peer // members of all active configurations, ordered by id
	handed     bool    // it was handed over by its predecessor
	newSupport bool    // a supporter was added since the last view

	proposed []Proposal // not yet in the log
	// configuring: a change of the group is among proposed.
	configuring bool
	solo        solo
	permit      uint64    // that is held, as far as known, whether or not a configuration rests on it
	knowing     int       // so many were named when a permit was last given back
	allKnow     bool      // and it was for good
	pending     []pending // in the log, not yet answered; ascending
	marks       []mark
	reads       reads
}

// pending is a proposal in the log that waits for its answer.
type pending struct {
	id    uint64
	index partition.Index
}

// mark says that the records up to last were appended at the latest at a time
// from at on, so that the age of an undecided record is known within a fraction
// of DurabilityWait.
type mark struct {
	last partition.Index
	at   partition.Time
}

// becomeMaster starts the epoch with its Noop. The supporters are a failover
// set in every configuration of this log, and none has a newer one.
func (r *Replica) becomeMaster() {
	r.phase, r.deadline, r.master, r.masterDown, r.why = leveling, 0, r.cfg.Self, false, ""
	m := &r.mastery
	*m = mastery{first: r.log.last + 1}
	for _, s := range r.attempt.supporters {
		m.leaseWait = max(m.leaseWait, s.leaseUntil)
	}
	if r.cfg.Planted.Has(planted.NoLeaseWait) {
		m.leaseWait = 0
	}
	r.refreshPeers()
	for _, s := range r.attempt.supporters {
		if p := r.peer(s.id); p != nil {
			p.supports, p.boot = true, s.boot
			p.next = r.log.common(s.end) + 1
			if r.cfg.Planted.Has(planted.CountGathered) {
				p.match = p.next - 1
			}
		}
	}
	r.attempt.supporters, r.successor = nil, peerRef{}
	if r.hand.step == gone {
		r.handed(r.cfg.Self)
	}
	r.inherit()
	m.permit = r.attempt.permit
	r.appendOwn([]Proposal{{Kind: partition.KindNoop}})
	r.proclaim()
	r.trace("leads")
	r.point(AtLead)
}

// encodeBytes bounds the buffer that records of one drain share, since the oldest
// of them keeps the whole buffer in memory.
const encodeBytes = 1 << 20

// appendOwn puts proposals into the log, encoded into as few buffers as it takes.
func (r *Replica) appendOwn(proposals []Proposal) {
	size := 0
	for i := range proposals {
		size += partition.RecordHeaderBytes + len(proposals[i].Payload)
	}
	var buf []byte
	l := r.log
	for i := range proposals {
		p := &proposals[i]
		need := partition.RecordHeaderBytes + len(p.Payload)
		if cap(buf)-len(buf) < need {
			buf = make([]byte, 0, max(need, min(size, encodeBytes)))
		}
		size -= need
		start := len(buf)
		buf = partition.AppendRecord(buf, partition.Header{
			Group: r.cfg.Group, Index: l.last + 1, Epoch: r.promised, Prev: l.lastSum, Kind: p.Kind,
		}, p.Payload)
		x := partition.Record(buf[start:len(buf):len(buf)])
		l.append(x)
		if p.Kind == partition.KindMember || p.Kind == partition.KindMode {
			m, err := configurationIn(x)
			assert(err == nil, "own configuration: %v", err)
			l.configs = append(l.configs, ConfigurationAt{Index: x.Index(), Membership: m})
			r.point(AtConfiguration)
			r.setActive()
		}
	}
	m := &r.mastery
	if n := len(m.marks); n > 0 && r.now-m.marks[n-1].at < r.cfg.DurabilityWait/16 {
		m.marks[n-1].last = l.last
	} else {
		m.marks = append(m.marks, mark{last: l.last, at: r.now})
	}
}

// onPropose queues proposals for the log or refuses them.
func (r *Replica) onPropose(proposals []Proposal) {
	m := &r.mastery
	for _, p := range proposals {
		switch {
		case r.phase < recovering && !r.keeps() && !(r.isMaster() && m.handed):
			r.refuse(p.ID, r.notMaster())
		case p.Kind != partition.KindCommand && p.Kind != partition.KindSession && !p.Kind.Structural():
			r.refuse(p.ID, partition.Errorf(partition.CodeInvalid, "a record of kind %s cannot be proposed", p.Kind))
		case len(p.Payload) > partition.MaxPayloadBytes:
			r.refuse(p.ID, partition.Errorf(partition.CodeTooLarge, "a command of %d bytes, limit %d", len(p.Payload), partition.MaxPayloadBytes))
		case len(m.pending)+len(m.proposed) >= r.cfg.MaxPending:
			r.refuse(p.ID, partition.Errorf(partition.CodeBusy, "%d commands wait for their commit", len(m.pending)+len(m.proposed)))
		case !r.isMaster():
			r.heir.proposed = append(r.heir.proposed, p)
		default:
			m.proposed = append(m.proposed, p)
		}
	}
}

func (r *Replica) refuse(id uint64, err *partition.Error) {
	r.replies = append(r.replies, &Reply{ID: id, Err: err})
}

// notMaster is the refusal of a replica that cannot take the request now.
func (r *Replica) notMaster() *partition.Error {
	if n := r.successor.node; n != "" {
		e := partition.Errorf(partition.CodeNotMaster, "%s is handed to replica %d", r.cfg.Group, r.successor.id)
		e.Master = n
		return e
	}
	if r.master != 0 && r.master != r.cfg.Self && !r.masterDown {
		e := partition.Errorf(partition.CodeNotMaster, "replica %d is master", r.master)
		e.Master = r.follow.master.node
		return e
	}
	return partition.Errorf(partition.CodeUnavailable, "%s has no master that serves", r.cfg.Group)
}

// onAppendAck learns what a peer has on disk.
func (r *Replica) onAppendAck(from peerRef, m *AppendAck) error {
	r.seen = max(r.seen, m.Epoch)
	if !r.isMaster() || m.Epoch < r.promised {
		return nil
	}
	if m.Epoch > r.promised {
		r.stepDown("a member has promised a newer epoch", true)
		return nil
	}
	p := r.peer(from.id)
	if p == nil || p.leaving {
		return nil
	}
	if m.Match > r.log.last {
		return partition.Errorf(partition.CodeInvalid, "replica %d acknowledges %d, the log ends at %d", from.id, m.Match, r.log.last)
	}
	r.noteSupport(p, from.boot)
	p.acknowledge(r, m)
	return nil
}

// noteSupport notes that a peer has confirmed this epoch, and from which
// incarnation of its node. A late message of an older one changes nothing.
func (r *Replica) noteSupport(p *peer, boot uint64) {
	if !p.supports || boot > p.boot {
		p.supports, p.boot, r.mastery.newSupport = true, boot, true
	}
}

// advanceCommit commits what a durable set of members has on disk. Only a
// record of the own epoch is committed by counting, older ones along with it.
func (r *Replica) advanceCommit() {
	for {
		c := partition.Index(r.active.DurableLevel(func(id partition.ReplicaID) uint64 {
			if id == r.cfg.Self {
				return uint64(r.durable)
			}
			p := r.peer(id)
			switch {
			case p == nil:
				return 0
			case p.down && r.cfg.Planted.Has(planted.NoticeCounts), r.returns(id) && r.cfg.Planted.Has(planted.BackUnknowing):
				return uint64(r.durable)
			}
			return uint64(p.match)
		}))
		if c <= r.commit || c < r.mastery.first && !r.cfg.Planted.Has(planted.AnyEpochCommit) {
			return
		}
		// By the word of a configuration that takes effect alone nothing is committed
		// before that is: a crash might lose it, and the others would not know.
		if x := r.log.newest(); x.Membership.Alone != 0 && r.commit < x.Index && c < x.Index && !r.cfg.Planted.Has(planted.AloneUnsynced) {
			return
		}
		r.point(AtCommit)
		if r.commit+1 < r.mastery.first {
			r.point(AtCommitOlder)
		}
		if len(r.active) > 1 {
			r.point(AtCommitJoint)
		}
		r.learnCommit(c) // may end a joint configuration
	}
}

// returns reports whether the change under way lets a member count again that was
// left behind.
func (r *Replica) returns(id partition.ReplicaID) bool {
	return len(r.active) > 1 && slices.Contains(r.active[0].LeftBehind, id)
}

// appendProposed puts what was proposed into the log.
func (r *Replica) appendProposed() {
	m := &r.mastery
	if len(m.proposed) == 0 {
		return
	}
	for i, p := range m.proposed {
		m.pending = append(m.pending, pending{id: p.ID, index: r.log.last + 1 + partition.Index(i)})
	}
	r.appendOwn(m.proposed)
	clear(m.proposed)
	m.proposed, m.configuring = m.proposed[:0], false
}

// lead does the master's part of settle.
func (r *Replica) lead() {
	m := &r.mastery
	if !r.draining() {
		r.appendProposed()
	}
	r.watchVoters()
	r.advanceCommit()
	r.learnEverywhere()
	n := 0
	for n < len(m.marks) && m.marks[n].last <= r.commit {
		n++
	}
	m.marks = append(m.marks[:0], m.marks[n:]...)
	if r.phase == leveling && r.commit >= m.first {
		r.phase, r.attempt.tries = recovering, 0
		r.trace("became master")
		r.point(AtMaster)
		if r.now < m.leaseWait {
			r.point(AtLeaseWait)
		}
	}
	r.watchPermit()
	applied := r.applied >= m.first || r.cfg.Planted.Has(planted.ServeUnapplied)
	if r.phase == recovering && applied && r.now >= m.leaseWait {
		r.phase = serving
		r.trace("serves")
		r.point(AtServe)
	}
	if m.leaveAt == 0 && r.commit >= m.first && !r.electable() {
		m.leaveAt = r.now + r.cfg.RetryMin // the members hear of the change first
		if p, err := r.chooseHeir(0); err == nil && r.phase == serving && r.hand.step == noHand {
			r.beginHandOver(0, p, notMember)
		}
	}
}

// answerProposals replies to what is committed, applied and allowed.
func (r *Replica) answerProposals() {
	m := &r.mastery
	upTo := r.applied
	if r.cfg.Planted.Has(planted.ReplyUnapplied) {
		upTo = r.commit
	} else if r.phase != serving {
		return
	}
	n := 0
	for n < len(m.pending) && m.pending[n].index <= upTo {
		n++
	}
	if n == 0 {
		return
	}
	replies := make([]Reply, n)
	for i, p := range m.pending[:n] {
		replies[i] = Reply{ID: p.id, Index: p.index}
		r.replies = append(r.replies, &replies[i])
	}
	m.pending = m.pending[n:]
}

// notMember is why a master ends that has left the configuration.
const notMember = "it is no eligible full member any more"

// masterTick looks at a master's deadlines.
func (r *Replica) masterTick() {
	m := &r.mastery
	if m.leaveAt != 0 && r.now >= m.leaveAt && r.hand.step == noHand {
		r.leave(notMember)
		return
	}
	if len(m.marks) > 0 && r.now >= m.marks[0].at+r.cfg.DurabilityWait {
		r.point(AtNotDurable)
		r.stepDown("its records do not become durable in time: "+r.active.Missing(r.holds(m.marks[0].last)), true)
		return
	}
	for _, p := range m.peers {
		p.tick(r)
	}
	m.reads.tick(r)
}

// lost is the refusal of a master that steps down, of what it has not begun.
func (r *Replica) lost() *partition.Error {
	if r.successor.id != 0 {
		return r.notMaster()
	}
	return partition.Errorf(partition.CodeUnavailable, "%s has lost its master", r.cfg.Group)
}

// holds tells who has the log up to i on disk.
func (r *Replica) holds(i partition.Index) func(partition.ReplicaID) bool {
	return func(id partition.ReplicaID) bool {
		if id == r.cfg.Self {
			return r.durable >= i
		}
		p := r.peer(id)
		return p != nil && p.match >= i
	}
}

// stepDown ends the mastership. The fate of what is in the log and not answered
// is unknown to it: another master may commit it.
func (r *Replica) stepDown(why string, tell bool) {
	m, unknown := &r.mastery, partition.CodeUnknown
	if r.cfg.Planted.Has(planted.FailUnknown) {
		unknown = partition.CodeUnavailable
	}
	for _, p := range m.pending {
		r.refuse(p.id, partition.Errorf(unknown, "%s lost its master before the command was decided", r.cfg.Group))
	}
	for _, p := range m.proposed {
		r.refuse(p.ID, r.lost())
	}
	m.reads.fail(r)
	if h := r.hand; h.step == preparing || h.step == draining {
		r.hand = handOver{}
		r.send(h.to, &HandOver{Epoch: r.promised, Step: HandCancel})
		if h.id != 0 {
			r.refuse(h.id, r.lost())
		}
	}
	if tell {
		// No master of this epoch is left: the peers need not wait for a hint.
		for _, p := range m.peers {
			r.send(p.ref(), &ProbeAnswer{Promised: r.promised, End: r.log.end()})
		}
	}
	if r.phase == serving || r.cfg.Planted.Has(planted.ReleaseWaiting) {
		r.learnReleased(r.promised) // its view goes, and it never leads in this epoch again
	}
	r.phase, r.master, r.why = following, 0, why
	r.releaseLock()
	r.mastery, r.follow = mastery{}, follow{}
	r.deadline = r.now + r.backoff()
	r.trace("stepped down")
	r.point(AtSteppedDown)
}

// refreshPeers brings the peers in line with the active configurations. A member
// that has left is told the commit that removed it before it is forgotten.
func (r *Replica) refreshPeers() {
	m := &r.mastery
	for _, p := range m.peers {
		if !p.leaving {
			p.leaving, p.deadline, p.tries = true, 0, 0
		}
	}
	for x := range r.members() {
		p := r.peer(x.Replica)
		if p == nil {
			p = &peer{id: x.Replica, next: r.log.last + 1, ask: true}
			m.peers = append(m.peers, p)
		}
		p.node, p.voter, p.leaving = x.Node, x.Kind != partition.Learner, false
	}
	slices.SortFunc(m.peers, func(a, b *peer) int { return int(a.id) - int(b.id) })
}

// peer returns the peer with the given id if this replica is master and has it.
func (r *Replica) peer(id partition.ReplicaID) *peer {
	for _, p := range r.mastery.peers {
		if p.id == id {
			return p
		}
	}
	return nil
}
