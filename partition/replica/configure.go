package replica

import (
	"fmt"
	"slices"
	"strings"

	"pando.dev/pando/internal/planted"
	"pando.dev/pando/partition"
)

// A change of the group is one record. It takes effect when it is appended,
// jointly with the configuration before it until it is known to be committed, and
// only one may be under way:
//
//	Configure --- refused: busy, not caught up, too few answer
//	    |
//	 appended --- joint ---> committed ---> the last one alone
//	    |                       |
//	    |                       `-> a member that has left stops itself
//	    `-> the master steps down: unknown, the next one decides

// configurationUnderWay reports whether a change of the group is not known to be
// committed yet.
func (r *Replica) configurationUnderWay() bool {
	return r.mastery.configuring || r.log.newest().Index > r.commit
}

// onConfigure queues a change of the group or refuses it.
func (r *Replica) onConfigure(in Configure) {
	if in.Membership == nil {
		r.refuse(in.ID, partition.Errorf(partition.CodeInvalid, "a change of %s to nothing", r.cfg.Group))
		return
	}
	if err := r.checkConfigure(in); err != nil {
		r.point(AtConfigurationRefused)
		r.refuse(in.ID, err)
		return
	}
	r.pointChange(r.log.newest().Membership, in.Membership)
	payload, err := r.log.newest().Membership.Follow(in.Membership).AppendBinary(nil)
	assert(err == nil, "a valid configuration cannot be encoded: %v", err)
	kind := partition.KindMember
	if r.log.newest().Membership.SameButMode(in.Membership) {
		kind = partition.KindMode
	}
	r.mastery.proposed = append(r.mastery.proposed, Proposal{ID: in.ID, Kind: kind, Payload: payload})
	r.mastery.configuring = true
}

func (r *Replica) checkConfigure(in Configure) *partition.Error {
	now, m := r.log.newest().Membership, &r.mastery
	// What a predecessor has left uncommitted is decided by the first record of the
	// own epoch. Before that the group might change twice in one step. And until old
	// leases have run out only those who granted them know of them: the next master
	// must not come from members that do not.
	from := serving
	if r.cfg.Planted.Has(planted.ConfigureInWait) {
		from = recovering
	}
	switch {
	case r.phase < from && !(r.isMaster() && r.cfg.Planted.Has(planted.ConfigureEarly)):
		return r.notMaster()
	case r.configurationUnderWay() && !r.cfg.Planted.Has(planted.TwoInFlight):
		e := partition.Errorf(partition.CodeBusy, "the change of %s to version %d is not decided yet", r.cfg.Group, r.versionUnderWay())
		e.Next = "one change at a time: retry when it is"
		return e
	case r.draining():
		return partition.Errorf(partition.CodeBusy, "the mastership of %s is being handed over", r.cfg.Group)
	case len(m.pending)+len(m.proposed) >= r.cfg.MaxPending:
		return partition.Errorf(partition.CodeBusy, "%d commands wait for their commit", len(m.pending)+len(m.proposed))
	}
	if err := now.CheckNext(in.Membership); err != nil {
		return asError(err)
	}
	for i := range in.Membership.Members {
		x := &in.Membership.Members[i]
		was, _ := now.Member(x.Replica)
		if err := r.checkPromotion(was, *x); err != nil {
			return err
		}
	}
	if x, _ := in.Membership.Member(r.cfg.Self); x.Kind != partition.Full || !x.Eligible {
		if next := now.Follow(in.Membership); r.someMemberLeft(next) {
			e := partition.Errorf(partition.CodeRefused, "replica %d goes on alone, and nobody else may be master of %s, while of replicas %v members are left behind", r.cfg.Self, r.cfg.Group, next.LeftBehind)
			e.Next = "bring them back first; if one is gone for good: pando recover plan " + r.cfg.Group.String()
			return e
		}
	}
	if !in.Force && !in.Membership.Durable(r.answers) {
		e := partition.Errorf(partition.CodeRefused, "nothing could be committed by the members of %s that answer now; missing are %s", r.cfg.Group, r.silent(in.Membership))
		e.Next = "bring them back first, or force it"
		return e
	}
	return nil
}

func (r *Replica) versionUnderWay() partition.MembershipVersion {
	v := r.log.newest().Membership.Version
	if r.mastery.configuring {
		v++
	}
	return v
}

// checkPromotion refuses to let a member count that would hold up the group, or
// to take one for full that has no state.
func (r *Replica) checkPromotion(was, x partition.Member) *partition.Error {
	if x.Replica == r.cfg.Self || r.cfg.Planted.Has(planted.PromoteUnready) {
		return nil
	}
	// A log replica that counts was not waited for when others let go of their logs.
	full := x.Kind == partition.Full && was.Kind != partition.Full && !r.cfg.Planted.Has(planted.FullUnready)
	if counts(x) && (full || !counts(was)) {
		if p := r.peer(x.Replica); p == nil || !r.caughtUp(p) {
			e := partition.Errorf(partition.CodeBusy, "replica %d on node %s has not caught up", x.Replica, x.Node)
			e.Next = "retry when it has"
			return e
		}
	}
	if x.Kind == partition.Full && was.Kind != partition.Full {
		if p := r.peer(x.Replica); p == nil || !p.state {
			e := partition.Errorf(partition.CodeBusy, "replica %d on node %s does not have the state of %s", x.Replica, x.Node, r.cfg.Group)
			e.Next = "retry when it has a copy"
			return e
		}
	}
	return nil
}

func counts(x partition.Member) bool { return x.Eligible && x.Kind != partition.Learner && x.Kind != 0 }

// caughtUp reports whether a peer may count from the next configuration on
// without holding up the group: its log agrees with this one, everything that is
// in this one is on the way to it, within the window, and it has what a log
// replica may let go of, by the word of this master or one before. It also has the
// newest configuration: were it left behind by one in force alone, it could else
// go by an older one when its return has freed the permit.
func (r *Replica) caughtUp(p *peer) bool {
	need := max(r.mastery.first, r.everywhere, r.log.newest().Index)
	if r.cfg.Planted.Has(planted.BackUnknowing) && slices.Contains(r.log.newest().Membership.LeftBehind, p.id) {
		return r.cfg.Neighbours.Reachable(p.node)
	}
	return p.sure && !p.down && p.next == r.log.last+1 && r.cfg.Neighbours.Reachable(p.node) && p.match >= need
}

// answers reports whether a member is there: it has promised this epoch and its
// node is reachable.
func (r *Replica) answers(id partition.ReplicaID) bool {
	if id == r.cfg.Self {
		return true
	}
	p := r.peer(id)
	return p != nil && p.supports && !p.down && r.cfg.Neighbours.Reachable(p.node)
}

// silent names the members that would count and do not answer.
func (r *Replica) silent(m *partition.Membership) string {
	var names []string
	for _, x := range m.Members {
		if counts(x) && !r.answers(x.Replica) {
			names = append(names, describeMember(x))
		}
	}
	return strings.Join(names, ", ")
}

func describeMember(x partition.Member) string {
	s := fmt.Sprintf("replica %d on node %s", x.Replica, x.Node)
	if x.Zone != "" {
		s += " in zone " + x.Zone
	}
	return s
}

// asError returns the typed error in err.
func asError(err error) *partition.Error {
	e, ok := err.(*partition.Error)
	assert(ok, "an error without a code: %v", err)
	return e
}

// learnEverywhere finds out, as master, up to where every eligible full voter has
// the log on disk. What a log replica was once told stays true: whoever counts
// later has caught up beyond it.
func (r *Replica) learnEverywhere() {
	all := r.commit
	for _, c := range r.log.configs { // from the newest that is committed on, in force or not
		for _, x := range c.Membership.Members {
			if x.Kind != partition.Full || !x.Eligible {
				continue
			}
			has := r.durable
			if x.Replica != r.cfg.Self {
				has = 0
				if p := r.peer(x.Replica); p != nil {
					has = p.match
				}
			}
			all = min(all, has)
		}
	}
	if r.cfg.Planted.Has(planted.EverywhereAny) {
		all = r.commit
	}
	r.everywhere = max(r.everywhere, all)
}
