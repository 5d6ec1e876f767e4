package replica

import (
	"pando.dev/pando/internal/planted"
	"pando.dev/pando/partition"
)

// A planned change of master. The old one stays master for as long as possible,
// and the new one waits for no lease:
//
//	 old master                                heir
//	     |-- prepare ------------------------->| asks for the lock, with consent
//	     |<------------------------- ready ----| has it
//	drains: keeps new requests, until all      | keeps requests that come
//	is committed, applied and on the heir's    |
//	disk; withdraws its view                   |
//	     |-- go ------------------------------>| promises its own epoch, gathers,
//	     |                                     | levels, serves
//	refuses what it kept, naming the heir      |
//
// Until go everything can be called off, and the old master serves as before.
// After it the old master never leads in its epoch again: what goes wrong then is
// a failover like any other.

// handStep is where a hand-over stands, as the old master sees it.
type handStep uint8

const (
	noHand    handStep = iota
	preparing          // the heir asks for the lock, and catches up
	draining           // nothing new is appended
	gone               // the mastership is given up
)

// handOver is a hand-over under way at its old master, and for a while after it.
type handOver struct {
	step  handStep
	id    uint64 // of the Transfer to be answered; 0: none
	to    peerRef
	until partition.Time // called off, or given up for lost, at this time
	again partition.Time // what was sent is sent again; 0: not any more
	tries int
	ready bool // the heir has the lock
	// anyway, if not empty, is why the mastership ends even if nobody takes it.
	anyway string
	goes   *HandOver // the message that ended it
}

// heir is the part of the replica that is to be the next master.
type heir struct {
	from   peerRef         // the old master; id 0: there is none
	epoch  partition.Epoch // of the old master
	number uint64          // of the lock that is held for it; 0: not yet
	taking bool            // go has come: the attempt is under way, and has the lock
	until  partition.Time  // without go by then it is off
	// What came meanwhile; together at most MaxPending.
	proposed []Proposal
	reads    []uint64
}

// prepareWait bounds the wait for the heir's lock, drainWait the time in which
// nothing new is taken, and heirWait how long an heir keeps the lock for a go.
func (r *Replica) prepareWait() partition.Time { return r.cfg.RetryMax + r.cfg.AnswerWait }
func (r *Replica) drainWait() partition.Time   { return r.cfg.AnswerWait }
func (r *Replica) heirWait() partition.Time    { return r.cfg.RetryMax + 3*r.cfg.AnswerWait }

// goTries is how often go is sent if the heir is not heard of.
const goTries = 3

// onTransfer starts a planned hand-over or says why not.
func (r *Replica) onTransfer(in Transfer) {
	switch {
	case !r.isMaster():
		r.refuse(in.ID, r.notMaster())
		return
	case in.To == r.cfg.Self:
		r.replies = append(r.replies, &Reply{ID: in.ID, Index: r.commit})
		return
	case r.phase != serving:
		r.refuse(in.ID, partition.Errorf(partition.CodeBusy, "the master of %s does not serve yet", r.cfg.Group))
		return
	case r.hand.step != noHand:
		r.refuse(in.ID, partition.Errorf(partition.CodeBusy, "%s is being handed to replica %d", r.cfg.Group, r.hand.to.id))
		return
	}
	p, err := r.chooseHeir(in.To)
	if err != nil {
		r.refuse(in.ID, err)
		return
	}
	r.beginHandOver(in.ID, p, "")
}

// onResign ends a mastership that shall not go on, by handing it over if that can
// be. From then on this replica lets every other candidate go first.
func (r *Replica) onResign(why string) {
	r.resigned = true
	if why == "" {
		why = "it resigned"
	}
	switch {
	case r.isMaster():
		r.leave(why)
	case r.phase != following:
		r.abandon(why)
	default:
		r.dropHeir(HandRefuse)
	}
}

// leave ends the mastership: by a hand-over if somebody can take it.
func (r *Replica) leave(why string) {
	if r.hand.step != noHand {
		r.hand.anyway = why
		return
	}
	p, err := r.chooseHeir(0)
	if err != nil || r.phase != serving {
		r.stepDown(why, true)
		return
	}
	r.beginHandOver(0, p, why)
}

// chooseHeir returns the peer that is to be master next: the one that is asked
// for, or the one with the most of the log, if in doubt with the least id.
func (r *Replica) chooseHeir(to partition.ReplicaID) (*peer, *partition.Error) {
	if !r.active.CanFailover(r.answers) {
		return nil, partition.Errorf(partition.CodeUnavailable, "too few members of %s answer to make another one master", r.cfg.Group)
	}
	if to != 0 {
		p := r.peer(to)
		if err := r.cannotInherit(to, p); err != nil {
			return nil, err
		}
		return p, nil
	}
	var best *peer
	var why *partition.Error
	for _, p := range r.mastery.peers { // ordered by id
		if err := r.cannotInherit(p.id, p); err != nil {
			why = err
		} else if best == nil || p.match > best.match {
			best = p
		}
	}
	switch {
	case best != nil:
		return best, nil
	case why == nil:
		why = partition.Errorf(partition.CodeRefused, "%s has no other member", r.cfg.Group)
	}
	return nil, why
}

// cannotInherit says why a member cannot be made master now, or nil.
func (r *Replica) cannotInherit(id partition.ReplicaID, p *peer) *partition.Error {
	x, ok := r.log.newest().Membership.Member(id)
	switch {
	case !ok || p == nil:
		return partition.Errorf(partition.CodeRefused, "replica %d is no member of %s", id, r.cfg.Group)
	case x.Kind != partition.Full:
		return partition.Errorf(partition.CodeRefused, "replica %d of %s is a %s, which cannot be master", id, r.cfg.Group, x.Kind)
	case !x.Eligible:
		return partition.Errorf(partition.CodeRefused, "replica %d of %s is ineligible", id, r.cfg.Group)
	case !r.answers(id):
		return partition.Errorf(partition.CodeUnavailable, "replica %d on node %s does not answer", id, x.Node)
	case p.match < r.mastery.first || p.next < r.log.first:
		e := partition.Errorf(partition.CodeBusy, "replica %d on node %s has not caught up", id, x.Node)
		e.Next = "retry when it has"
		return e
	}
	return nil
}

// draining reports whether nothing new is to be appended, since the mastership is
// about to end.
func (r *Replica) draining() bool { return r.hand.step == draining }

func (r *Replica) beginHandOver(id uint64, to *peer, anyway string) {
	r.hand = handOver{step: preparing, id: id, to: to.ref(), until: r.now + r.prepareWait(), anyway: anyway}
	r.trace("hands over")
	r.point(AtHandOver)
	r.askHeir()
}

func (r *Replica) askHeir() {
	r.hand.again = r.now + r.cfg.AnswerWait
	r.send(r.hand.to, &HandOver{Epoch: r.promised, Step: HandPrepare, Number: r.attempt.lock})
}

// onHandOver takes what the old master and its heir say to each other.
func (r *Replica) onHandOver(from peerRef, m *HandOver) error {
	r.seen = max(r.seen, m.Epoch)
	own := m.Epoch.Replica() == r.cfg.Self
	switch m.Step {
	case HandReady, HandRefuse:
		if !own {
			return partition.Errorf(partition.CodeInvalid, "hand-over step %d of epoch %s from replica %d", m.Step, m.Epoch, from.id)
		}
		r.heirAnswers(from, m)
		return nil
	case HandPrepare, HandCancel, HandGo:
		if !r.names(m.Epoch, from.id) {
			return partition.Errorf(partition.CodeInvalid, "hand-over step %d of epoch %s from replica %d", m.Step, m.Epoch, from.id)
		}
	default:
		return partition.Errorf(partition.CodeInvalid, "hand-over step %d", m.Step)
	}
	switch m.Step {
	case HandPrepare:
		r.onPrepare(from, m)
	case HandCancel:
		if r.heir.from.id == from.id && r.heir.epoch == m.Epoch && !r.heir.taking {
			r.dropHeir(0)
		}
	case HandGo:
		r.onGo(from, m)
	}
	return nil
}

// heirAnswers takes what the heir says to the old master.
func (r *Replica) heirAnswers(from peerRef, m *HandOver) {
	h := &r.hand
	if !r.isMaster() || m.Epoch != r.promised || h.step == noHand || h.step == gone || h.to.id != from.id {
		return
	}
	switch {
	case m.Step == HandRefuse:
		r.callOff(partition.Errorf(partition.CodeUnavailable, "replica %d cannot take %s over now", from.id, r.cfg.Group))
	default:
		h.ready = true
	}
}

// callOff ends a hand-over that has not given anything up yet: the master goes on,
// unless it shall not.
func (r *Replica) callOff(why *partition.Error) {
	h := r.hand
	r.hand = handOver{}
	r.send(h.to, &HandOver{Epoch: r.promised, Step: HandCancel})
	if h.id != 0 {
		r.refuse(h.id, why)
	}
	r.trace("hand-over called off")
	r.point(AtHandCalledOff)
	if h.anyway != "" {
		r.stepDown(h.anyway, true)
	}
}

// handTick looks at the deadlines of a hand-over.
func (r *Replica) handTick() {
	h := &r.hand
	switch {
	case h.step == noHand:
	case r.now >= h.until && h.step != gone:
		r.callOff(partition.Errorf(partition.CodeUnavailable, "replica %d was not ready to take %s over in time", h.to.id, r.cfg.Group))
	case r.now >= h.until:
		r.handed(0)
	case h.again == 0 || r.now < h.again:
	case h.step == preparing:
		r.askHeir()
	default:
		r.sendGo()
	}
}

// heirDown ends the wait for an heir whose node was reported down.
func (r *Replica) heirDown(n partition.NodeID) {
	h := &r.hand
	switch {
	case h.step == noHand || h.to.node != n:
	case h.step != gone:
		r.callOff(partition.Errorf(partition.CodeUnavailable, "replica %d on node %s does not answer any more", h.to.id, n))
	case r.phase == following && r.master == 0:
		r.deadline = r.now + r.jitter(r.cfg.RetryMin)
	}
}

// drained gives the mastership up as soon as nothing is left to do.
func (r *Replica) drained() {
	h, q := &r.hand, &r.mastery.reads
	p := r.peer(h.to.id)
	if h.step == preparing && h.ready && p != nil && r.caughtUp(p) {
		h.step, h.until, h.again = draining, r.now+r.drainWait(), 0
		r.trace("drains")
		r.point(AtDraining)
	}
	if h.step != draining {
		return
	}
	busy := r.commit < r.log.last || p != nil && p.match < r.log.last || r.applied < r.log.last || len(q.round) > 0
	switch {
	case p == nil:
		r.callOff(partition.Errorf(partition.CodeRefused, "replica %d is no member of %s any more", h.to.id, r.cfg.Group))
		return
	case busy && !r.cfg.Planted.Has(planted.GoUndrained):
		return
	}
	if err := r.cannotInherit(h.to.id, p); err != nil {
		r.callOff(err)
		return
	}
	r.answerProposals()
	q.answer(r)
	h.goes = &HandOver{Epoch: r.promised, Step: HandGo, End: r.log.end(), EndSum: r.log.lastSum}
	h.step, h.until, h.tries = gone, r.now+r.heirWait(), 0
	r.successor = h.to
	why := h.anyway
	if why == "" {
		why = "it handed over"
	}
	r.attempt.lock = 0 // the heir has it
	r.stepDown(why, false)
	r.point(AtGone)
	// The heir is heard of within milliseconds. If not, this one looks for a master.
	r.deadline = r.now + 2*r.cfg.AnswerWait + r.jitter(r.cfg.AnswerWait)
	r.sendGo()
}

// sendGo tells the heir to go on, a few times if it is not heard of.
func (r *Replica) sendGo() {
	h := &r.hand
	r.send(h.to, h.goes)
	h.tries++
	h.again = 0
	if h.tries < goTries {
		h.again = r.now + r.cfg.AnswerWait/3
	}
}

// handed ends a hand-over after the mastership was given up: master leads now, or
// nobody is known to.
func (r *Replica) handed(master partition.ReplicaID) {
	h := r.hand
	r.hand = handOver{}
	switch {
	case h.id == 0:
	case master == h.to.id:
		r.replies = append(r.replies, &Reply{ID: h.id, Index: r.commit})
	case master != 0:
		r.refuse(h.id, partition.Errorf(partition.CodeUnavailable, "%s was handed to replica %d, but replica %d leads", r.cfg.Group, h.to.id, master))
	default:
		r.refuse(h.id, partition.Errorf(partition.CodeUnavailable, "%s was handed to replica %d, which has not been heard of as its master", r.cfg.Group, h.to.id))
	}
}

// onPrepare gets ready to be the next master.
func (r *Replica) onPrepare(from peerRef, m *HandOver) {
	h := &r.heir
	x, _ := r.log.newest().Membership.Member(r.cfg.Self)
	if m.Epoch != r.promised || r.synced != r.promised || r.phase != following || r.resigned ||
		x.Kind != partition.Full || !x.Eligible {
		r.send(from, &HandOver{Epoch: m.Epoch, Step: HandRefuse})
		return
	}
	r.knowMaster(from) // nobody else hands over in its epoch
	if h.from.id != 0 {
		h.until = r.now + r.heirWait()
		if h.number != 0 {
			r.send(from, &HandOver{Epoch: m.Epoch, Step: HandReady})
		}
		return
	}
	*h = heir{from: from, epoch: m.Epoch, until: r.now + r.heirWait()}
	r.locks = append(r.locks, &AcquireLock{
		Above: max(r.promised, r.seen).Number(), Holder: from.id, Consent: m.Number,
	})
	r.trace("is to be master")
	r.point(AtHeir)
}

// heirLocked takes the lock that an heir has asked for; false if it has not.
func (r *Replica) heirLocked(number uint64) bool {
	h := &r.heir
	if h.from.id == 0 || h.number != 0 || r.phase != following {
		return false
	}
	h.number = number
	if !validEpoch(number, r.promised) {
		r.dropHeir(HandRefuse)
		return true
	}
	h.until = r.now + r.heirWait()
	r.send(h.from, &HandOver{Epoch: h.epoch, Step: HandReady})
	r.point(AtHeirReady)
	return true
}

// onGo makes the heir master, or, if it is not ready, begins a failover.
func (r *Replica) onGo(from peerRef, m *HandOver) {
	r.learnReleased(m.Epoch)
	if m.Epoch != r.promised || r.phase != following {
		return
	}
	h := &r.heir
	r.master = 0 // it is none any more
	if h.number == 0 || h.epoch != m.Epoch || r.resigned || r.log.end() != m.End || r.log.lastSum != m.EndSum || r.durable < m.End.Index {
		r.point(AtGoLost)
		r.dropHeir(0)
		r.deadline = r.now + r.jitter(r.cfg.RetryMin)
		return
	}
	r.point(AtGoTaken)
	r.learnCommit(m.End.Index)
	r.attempt = attempt{tries: r.attempt.tries, lock: h.number, promisedAt: r.now}
	h.taking = true
	r.promise(partition.NewEpoch(h.number, r.cfg.Self), r.cfg.Node)
	r.phase, r.deadline = promising, 0
}

// dropHeir ends the wait for a go. What was kept is refused; step, if not 0, is
// what the old master is told.
func (r *Replica) dropHeir(step HandStep) {
	h := r.heir
	if h.from.id == 0 {
		return
	}
	r.heir = heir{}
	if h.number != 0 && !h.taking {
		r.locks = append(r.locks, &ReleaseLock{Number: h.number})
	}
	if step != 0 {
		r.send(h.from, &HandOver{Epoch: h.epoch, Step: step})
	}
	for _, p := range h.proposed {
		r.refuse(p.ID, r.notMaster())
	}
	for _, id := range h.reads {
		r.refuse(id, r.notMaster())
	}
}

// inherit makes the requests that the heir has kept those of its mastership.
func (r *Replica) inherit() {
	h := r.heir
	r.heir = heir{}
	if !h.taking {
		return
	}
	m := &r.mastery
	m.handed = true
	m.proposed = append(m.proposed, h.proposed...)
	m.reads.waiting, m.reads.since = append(m.reads.waiting, h.reads...), r.now
	if _, ok := r.active.Member(h.from.id); !ok {
		r.send(h.from, r.probeAnswer(h.from.id)) // no append will tell it
	}
}

// keeps reports whether an heir takes a request, to answer it as master or to
// refuse it later.
func (r *Replica) keeps() bool {
	h := &r.heir
	return h.number != 0 && len(h.proposed)+len(h.reads) < r.cfg.MaxPending
}

// next is the node that takes requests while no master serves, as far as a
// hand-over tells: the heir's.
func (r *Replica) next() partition.NodeID {
	switch {
	case r.heir.number != 0 || r.isMaster() && r.mastery.handed && r.phase != serving:
		return r.cfg.Node
	case !r.isMaster():
		return r.successor.node
	}
	return ""
}

// learnReleased learns that no lease counts any more in epochs up to e: its master
// served, so those of its predecessors had run out, and it has given up its own.
func (r *Replica) learnReleased(e partition.Epoch) {
	r.released = max(r.released, e)
	if r.released != 0 && (r.leaseEpoch <= r.released || r.cfg.Planted.Has(planted.SkipNewerLease)) {
		if r.now < r.leaseUntil {
			r.point(AtLeaseReleased)
		}
		r.leaseUntil = 0
	}
}
