package replica

import (
	"slices"
	"time"

	"pando.dev/pando/internal/planted"
	"pando.dev/pando/partition"
)

// removal is what a replica knows of its own removal. Only a configuration that
// is known to be committed removes, in which an id below Next is missing: with
// another one it is not a member yet.
//
//	member --> knows it, from its log or from a member's answer --> stopped
//	stopped --> a durable set of that configuration, or a later one, says to have
//	            on disk that it is committed --> Retire, once
//
// A stopped replica makes no attempts. It goes on answering: as long as somebody
// may not know that the change is committed, it may be needed to find that out.
type removal struct {
	without *partition.Membership // nil: not removed
	settled []partition.ReplicaID // members that have on disk that it is committed
	tries   int                   // questions since it was noticed
	retired bool
}

// excludes reports whether a committed configuration is one that this id has been
// removed from.
func excludes(m *partition.Membership, id partition.ReplicaID) bool {
	_, member := m.Member(id)
	return !member && id < m.Next
}

// without returns the committed configuration that another replica has been
// removed from, or nil.
func (r *Replica) without(id partition.ReplicaID) *partition.Membership {
	c := r.committed()
	if c.Index > r.commit || !excludes(c.Membership, id) {
		return nil
	}
	return c.Membership
}

// settledVersion is the version of the newest configuration that this replica
// knows from its own disk to be committed; 0 if there is none that it can name.
func (r *Replica) settledVersion() partition.MembershipVersion {
	if c := r.committed(); c.Index <= r.settled || c.Index <= r.commit && r.cfg.Planted.Has(planted.SettledUnsynced) {
		return c.Membership.Version
	}
	return 0
}

// noticeRemoval looks whether the own log says that this replica was removed.
func (r *Replica) noticeRemoval() {
	if m := r.without(r.cfg.Self); m != nil {
		r.learnRemoval(m)
	}
}

// learnRemoval stops this replica: m is committed and it is no member. A master
// that learns so from its own log hands over first; one that is told by others
// was deposed.
func (r *Replica) learnRemoval(m *partition.Membership) {
	x := &r.removal
	if x.without != nil && x.without.Version >= m.Version {
		return
	}
	if x.without == nil {
		r.trace("is removed")
		r.point(AtRemoved)
	}
	x.without, x.settled, x.tries = m, nil, 0
	if !r.isMaster() {
		r.stop()
	}
}

// stop ends what a removed replica was about, and lets it ask whether it is still
// needed.
func (r *Replica) stop() {
	if r.phase != following {
		r.abandon("it was removed from the group")
	}
	r.dropHeir(HandRefuse)
	r.why = "it was removed from the group"
	r.deadline = r.now + r.retireWait()
}

// stopped reports whether this replica makes no more attempts.
func (r *Replica) stopped() bool { return r.removal.without != nil && !r.isMaster() }

// maxRetireWait bounds the pause between two questions of a stopped replica.
const maxRetireWait = 30 * time.Second

// askRetire asks the members whether they can do without this replica. The pause
// between two questions doubles: they may be away for long.
func (r *Replica) askRetire() {
	x := &r.removal
	if x.retired {
		return
	}
	for _, m := range x.without.Members { // the settled ones, too: they may know of a later one
		r.send(peerRef{id: m.Replica, node: m.Node}, &Probe{Epoch: r.promised, End: r.log.end()})
	}
	x.tries++
	r.deadline = r.now + r.retireWait()
}

// retireWait is the pause before the next question.
func (r *Replica) retireWait() partition.Time {
	return r.jitter(min(r.cfg.AnswerWait<<min(r.removal.tries, 16), maxRetireWait))
}

// onSettled notes what an answer says about the removal of this replica.
func (r *Replica) onSettled(from peerRef, m *ProbeAnswer) {
	x := &r.removal
	if m.Without != nil && excludes(m.Without, r.cfg.Self) {
		if r.isMaster() && (x.without == nil || x.without.Version < m.Without.Version) {
			r.stepDown("it was removed from the group", true)
		}
		r.learnRemoval(m.Without)
	}
	if x.without == nil || x.retired || m.Settled < x.without.Version && !r.cfg.Planted.Has(planted.RetireEarly) {
		return
	}
	if !slices.Contains(x.settled, from.id) {
		x.settled = append(x.settled, from.id)
	}
	if r.stopped() && x.without.Durable(func(id partition.ReplicaID) bool {
		return slices.Contains(x.settled, id) || r.cfg.Planted.Has(planted.RetireEarly)
	}) {
		x.retired, r.deadline = true, 0
		r.locks = append(r.locks, &Retire{})
		r.trace("is not needed any more")
		r.point(AtRetired)
	}
}
