package replica

import (
	"slices"
	"time"

	"pando.dev/pando/partition"
)

// decree is an operator's word that this replica shall lead the members named,
// though the configurations of the group cannot be met any more. It stands in for
// them until this replica is master and has appended it as a configuration that
// takes effect alone.
//
// What may be lost: every record that was committed, and acknowledged, by members
// that the decree leaves out, and that none of its members has. What is never
// lost silently: all voters of the decree have to promise, not only some, the newest
// of their logs is copied, and the control group's permit keeps those left out from
// being master afterwards. A read lease of a master that is left out and still runs
// somewhere is not waited for.
type decree struct {
	id    uint64 // of the Recover to be answered
	next  *partition.Membership
	until partition.Time
}

// recoverWait bounds the attempts that a decree allows.
const recoverWait = 30 * time.Second

// onRecover begins an attempt under an operator's decree, or says why not.
func (r *Replica) onRecover(in Recover) {
	if err := r.checkRecover(in.Membership); err != nil {
		r.refuse(in.ID, err)
		return
	}
	// What was begun by the configurations of the log is not continued by others. And a
	// master that cannot commit serves nobody, which it does not find out by itself
	// when nothing is asked of it.
	const why = "an operator recovers the group"
	switch {
	case r.isMaster():
		r.stepDown(why, false)
	case r.phase != following:
		r.abandon(why)
	}
	r.dropHeir(HandRefuse)
	r.decree = &decree{id: in.ID, next: in.Membership, until: r.now + recoverWait}
	r.trace("is to recover the group")
	r.point(AtRecover)
	r.setActive()
	r.startProbe()
}

func (r *Replica) checkRecover(next *partition.Membership) *partition.Error {
	if next == nil || next.Alone == 0 {
		return partition.Errorf(partition.CodeInvalid, "a recovery of %s needs its members and the number of a permit", r.cfg.Group)
	}
	if err := next.Validate(); err != nil {
		return asError(err)
	}
	last := r.log.newest().Membership
	x, _ := next.Member(r.cfg.Self)
	switch {
	case x.Kind != partition.Full || !x.Eligible || r.cfg.LogOnly:
		return partition.Errorf(partition.CodeInvalid, "replica %d cannot be master by this recovery", r.cfg.Self)
	case next.Alone <= last.Permit:
		return partition.Errorf(partition.CodeRefused, "permit %d of %s is not newer than %d", next.Alone, r.cfg.Group, last.Permit)
	case r.decree != nil:
		return partition.Errorf(partition.CodeBusy, "a recovery of %s is under way", r.cfg.Group)
	case r.stopped():
		return partition.Errorf(partition.CodeRefused, "replica %d was removed from %s", r.cfg.Self, r.cfg.Group)
	case r.phase >= recovering && r.active.Durable(r.answers):
		return partition.Errorf(partition.CodeRefused, "%s has a master: this replica", r.cfg.Group)
	case !r.isMaster() && r.master != 0 && !r.masterDown:
		return partition.Errorf(partition.CodeRefused, "%s has a master: replica %d on node %s", r.cfg.Group, r.master, r.nodeOf(r.master))
	}
	for _, x := range next.Members {
		if y, ok := last.Member(x.Replica); !ok || y.Node != x.Node {
			return partition.Errorf(partition.CodeInvalid, "replica %d on node %s is not a member of %s as replica %d knows it", x.Replica, x.Node, r.cfg.Group, r.cfg.Self)
		}
	}
	return nil
}

// proclaim appends the decree at the beginning of the mastership that it has led
// to.
func (r *Replica) proclaim() {
	d := r.decree
	if d == nil {
		return
	}
	r.decree = nil
	next := *d.next
	next.Members = slices.Clone(next.Members)
	r.mastery.permit = next.Alone
	r.goAlone(d.id, &next, next.Alone)
	r.trace("recovers the group")
	r.point(AtRecovered)
}

// dropDecree ends a recovery that has come to nothing.
func (r *Replica) dropDecree(why string) {
	d := r.decree
	if d == nil {
		return
	}
	r.decree = nil
	r.setActive()
	e := partition.Errorf(partition.CodeUnavailable, "%s was not recovered: %s", r.cfg.Group, why)
	r.refuse(d.id, e)
}
