package replica

import (
	"pando.dev/pando/partition"
)

// probed is a member's answer to Probe.
type probed struct {
	id     partition.ReplicaID
	answer ProbeAnswer
}

// startProbe asks every member what it knows of the master.
func (r *Replica) startProbe() {
	r.dropHeir(0)
	r.successor = peerRef{}
	r.phase, r.deadline = probing, r.now+r.cfg.AnswerWait
	r.attempt = attempt{tries: r.attempt.tries + 1}
	for m := range r.members() {
		r.send(peerRef{id: m.Replica, node: m.Node}, &Probe{
			Epoch: r.promised, End: r.log.end(), Elect: !r.electable() && r.mayMaster(m.Replica),
		})
	}
	// A master that has left the group can still say that it is none any more.
	if m := r.follow.master; m.id != 0 {
		if _, ok := r.active.Member(m.id); !ok {
			r.send(m, &Probe{Epoch: r.promised, End: r.log.end()})
		}
	}
	r.trace("probes")
	r.point(AtProbe)
	r.judgeIfAll()
}

func (r *Replica) onProbe(from peerRef, m *Probe) {
	r.seen = max(r.seen, m.Epoch)
	if r.master == from.id && m.Epoch >= r.promised {
		// Who asks for a master in its own epoch, or has promised a newer one, is none
		// any more. An append of before may have come late and said that it is: were it
		// told that its own node is the master's, nobody would ever look for one.
		r.master = 0
	}
	r.send(from, r.probeAnswer(from.id))
	if p := r.peer(from.id); p != nil {
		p.told = p.leaving // it has its answer, and asks until it has one
		p.down = false     // it does not know this master: what was sent is lost
		p.again(r)
	}
	alone := r.master == 0 || r.masterDown
	if m.Elect && alone && !r.stopped() && r.phase == following && !r.electable() && m.End.Compare(r.log.end()) > 0 {
		r.startProbe()
		r.attempt.sponsor = from
	}
}

func (r *Replica) probeAnswer(to partition.ReplicaID) *ProbeAnswer {
	master := r.isMaster()
	reachable := master || r.mayMaster(r.master) && !r.masterDown && r.cfg.Neighbours.Reachable(r.nodeOf(r.master))
	return &ProbeAnswer{
		Promised: r.promised, Reachable: reachable, Master: master, End: r.log.end(),
		Trying: r.phase >= promising && !master && r.attempt.lock != 0,
		Commit: r.commitPosition(), Settled: r.settledVersion(), Without: r.without(to),
	}
}

func (r *Replica) onProbeAnswer(from peerRef, m *ProbeAnswer) {
	r.seen = max(r.seen, m.Promised)
	r.learnCommitted(m.Commit)
	r.onSettled(from, m)
	named := m.Promised.Replica() == from.id
	if h := &r.hand; m.Master && named && h.step == gone && h.to.id == from.id && m.Promised > h.goes.Epoch {
		r.handed(from.id)
	}
	switch {
	case m.Master && named && m.Promised >= r.promised && !r.isMaster():
		// It will send its log. Should it not, the deadline asks again.
		if m.Promised == r.promised {
			r.knowMaster(from)
			return
		}
		if r.phase == probing || r.phase == waiting {
			r.abandon("a newer master answered")
		}
		return
	case !m.Master && named && m.Promised == r.promised && r.master == from.id:
		// The master has resigned.
		r.master = 0
		r.deadline = r.now + r.jitter(r.cfg.RetryMin)
	}
	if r.phase != probing {
		return
	}
	for _, p := range r.attempt.probed {
		if p.id == from.id {
			return
		}
	}
	r.attempt.probed = append(r.attempt.probed, probed{from.id, *m})
	r.judgeIfAll()
}

// judgeIfAll judges before the deadline if nobody is left who could answer.
func (r *Replica) judgeIfAll() {
	for m := range r.members() {
		if m.Replica == r.master && r.masterDown || !r.cfg.Neighbours.Reachable(m.Node) {
			continue
		}
		if _, ok := r.answerOf(m.Replica); !ok {
			return
		}
	}
	r.judge()
}

func (r *Replica) answerOf(id partition.ReplicaID) (ProbeAnswer, bool) {
	for _, p := range r.attempt.probed {
		if p.id == id {
			return p.answer, true
		}
	}
	return ProbeAnswer{}, false
}

// judge decides whether the answers allow an attempt, and when.
func (r *Replica) judge() {
	end, rank, newer := r.log.end(), 0, r.attempt.sponsor.id != 0
	if !r.electable() && !newer {
		r.abandon("it may not be master")
		return
	}
	for _, p := range r.attempt.probed {
		if r.holdsBack(p.answer) {
			r.point(AtHeldBack)
			r.abandon("another member reaches the master, or is about to be it")
			return
		}
		c := p.answer.End.Compare(end)
		newer = newer || c > 0
		if r.mayMaster(p.id) && (c > 0 || c == 0 && p.id < r.cfg.Self) {
			rank++
		}
	}
	// A newer log may hold a configuration in which fewer members suffice.
	answers := func(id partition.ReplicaID) bool {
		_, ok := r.answerOf(id)
		return ok || id == r.cfg.Self
	}
	if !newer && !r.canFailover(answers) {
		r.abandon("too few members answer: " + r.active.Missing(answers))
		return
	}
	if r.resigned && r.attempt.tries <= resignedTries {
		rank += len(r.active.Last().Members)
	}
	if rank == 0 {
		r.acquire()
		return
	}
	step := r.cfg.AnswerWait / 3
	r.phase, r.deadline = waiting, r.now+partition.Time(rank)*step+r.jitter(step)
	r.point(AtWait)
}

// resignedTries is how many tries in a row a replica that has resigned lets others
// go first. After that it may be the only one that can lead at all.
const resignedTries = 3

// heldBack is how many tries in a row the word of others holds back. After that
// the lock decides: it is not granted while its holder's node lives.
const heldBack = 8

// holdsBack reports whether an answer says that the master may be alive. What
// others say of an epoch that names this replica proves nothing: it knows that
// it is not master, and a restarted one never resumes. Nor does what they say of
// a replica that may not be master any more, unless they know more of the log.
func (r *Replica) holdsBack(a ProbeAnswer) bool {
	named := a.Promised.Replica()
	if a.Trying && a.Promised >= r.promised && named != r.cfg.Self && r.attempt.tries <= heldBack {
		return true // its disks, or those of its supporters, may just be slow
	}
	if !a.Reachable || a.Promised < r.promised || named == r.cfg.Self || r.attempt.tries > heldBack {
		return false
	}
	if !r.mayMaster(named) && a.End.Compare(r.log.end()) <= 0 {
		return false
	}
	own, ok := r.answerOf(named)
	return !ok || own.Promised < a.Promised || own.Master
}
