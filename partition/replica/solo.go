package replica

import (
	"pando.dev/pando/internal/planted"
	"pando.dev/pando/partition"
)

// A group whose policy wants every member in sync, most often a pair, stops when
// one is gone. Then its master may go on alone, but only by a permit: this one
// change is not committed jointly, so that the control group hands out one permit
// at a time is all that keeps two masters from both going on alone.
//
//	all in sync --- nobody else is reachable ---> Permit ---> Permitted
//	     ^                                                       |
//	     | ReleasePermit, when a record by which                  v
//	     | no member is left behind is            one record, in force alone: the others
//	     `-- committed -------------------------- are ineligible and left behind
//
// Why it is safe. A permit is granted only to the mastership with the newest lock,
// and while it is held nobody else gets the lock, so no newer mastership can begin
// elsewhere; an older one cannot commit, since this replica has promised more. All
// that was ever committed is in this replica's log, since it counts in every active
// configuration. It is given back only when all who were left behind count again by
// a committed record, which they have on disk then; it passes to the members when
// those who were left behind are members no more. A permit that comes too late for
// the mastership that asked is given back unused.
type solo struct {
	since partition.Time // no other voter answers since then; 0: some do
	asked uint64         // Seq of the Permit under way, 0 if there is none
	again partition.Time // not to be asked before
	tries int
}

// maySolo reports whether this master could go on alone: it counts, fully, and
// every active configuration wants all members in sync.
func (r *Replica) maySolo() bool {
	if !r.cfg.Solo || r.cfg.SoloAfter < 0 || r.draining() {
		return false
	}
	others := false
	for _, m := range r.active {
		x, ok := m.Member(r.cfg.Self)
		if !ok || x.Kind != partition.Full || !x.Eligible || m.Policy.Rule != partition.AllInSync ||
			len(m.LeftBehind)+2*partition.MaxMembers > partition.MaxLeftBehind {
			return false
		}
		for _, y := range m.Members {
			others = others || counts(y) && y.Replica != r.cfg.Self
		}
	}
	return others
}

// forsaken reports whether no other voter answers.
func (r *Replica) forsaken() bool {
	for _, m := range r.active {
		for _, x := range m.Members {
			if !counts(x) || x.Replica == r.cfg.Self || !r.cfg.Neighbours.Reachable(x.Node) {
				continue
			}
			if p := r.peer(x.Replica); p == nil || p.quiet == 0 || r.now < p.quiet+r.cfg.SoloAfter {
				return false
			}
		}
	}
	return true
}

// watchVoters notes, as master, since when no other voter answers, and asks for a
// permit when that is long enough.
func (r *Replica) watchVoters() {
	s := &r.mastery.solo
	switch {
	case !r.maySolo() || !r.forsaken():
		*s = solo{}
		return
	case s.since == 0:
		s.since = r.now
	}
	if r.now < r.soloDue() {
		return
	}
	if r.permitSeq == 0 {
		// An answer that was meant for the replica before a restart names another.
		r.permitSeq = r.cfg.Rand.Uint64() >> 1
	}
	r.givePermitBack()
	r.permitSeq++
	if r.cfg.Planted.Has(planted.SoloUnpermitted) {
		s.asked = r.permitSeq
		r.onPermitted(Permitted{Seq: s.asked, Number: r.log.newest().Membership.Permit + 1})
		return
	}
	s.asked, s.again = r.permitSeq, r.now+2*r.cfg.RetryMax<<min(s.tries, 4)
	s.tries++
	r.locks = append(r.locks, &Permit{Seq: s.asked, Lock: r.promised.Number()})
	r.trace("asks to go on alone")
	r.point(AtPermitAsked)
}

// soloDue is when a permit is to be asked for; 0: not at all.
func (r *Replica) soloDue() partition.Time {
	s := &r.mastery.solo
	if s.since == 0 {
		return 0
	}
	return max(s.since+r.cfg.SoloAfter, s.again)
}

// onPermitted goes on alone, or gives a permit back that is not needed any more.
func (r *Replica) onPermitted(in Permitted) {
	s := &r.mastery.solo
	last := r.log.newest().Membership
	if in.Number <= last.Permit {
		return // told twice; or the number is not a new one, and proves nothing
	}
	if !r.isMaster() || in.Seq != s.asked || s.asked == 0 || !r.maySolo() || !r.forsaken() {
		r.point(AtPermitUnused)
		r.returnPermit(in.Number)
		return
	}
	r.appendProposed()
	next := r.log.newest().Membership.Successor()
	for i := range next.Members {
		x := &next.Members[i]
		x.Eligible = x.Replica == r.cfg.Self
	}
	*s = solo{}
	r.mastery.permit = in.Number
	r.goAlone(0, next, in.Number)
	r.trace("goes on alone")
	r.point(AtAlone)
}

// onPermitRefused waits before it asks again. A mastership that is outdated never
// gets a permit; a new one may.
func (r *Replica) onPermitRefused(in PermitRefused) {
	s := &r.mastery.solo
	if !r.isMaster() || in.Seq != s.asked || s.asked == 0 {
		return
	}
	s.asked, s.again = 0, r.now+r.cfg.RetryMax<<min(s.tries, 3)
	r.trace("may not go on alone")
	if in.Outdated {
		r.stepDown("it may not go on alone: "+in.Why, true)
	}
}

// goAlone appends the configuration that takes effect alone. id, if not 0, waits
// for it.
func (r *Replica) goAlone(id uint64, next *partition.Membership, number uint64) {
	var before partition.Configurations
	for _, c := range r.log.configs {
		before = append(before, c.Membership)
	}
	m := before.GoAlone(next, number)
	payload, err := m.AppendBinary(nil)
	assert(err == nil && m.Validate() == nil, "configuration alone under %d: %v, %v", number, err, m.Validate())
	if id != 0 {
		r.mastery.pending = append(r.mastery.pending, pending{id: id, index: r.log.last + 1})
	}
	r.appendOwn([]Proposal{{ID: id, Kind: partition.KindMember, Payload: payload}})
}

// givePermitBack gives a permit back that nobody needs any more: the last
// configuration that is known to be committed is not one in force alone, and no
// member is left behind. If removed ones are, the permit passes to the members. A
// replica that wants to be master passes it to itself, since the holder may be gone.
// A new master gives back, too, what the lock service says it holds: that was
// granted just before a crash.
func (r *Replica) givePermitBack() {
	c := r.committed()
	m := c.Membership
	if (c.Index > r.commit || m.Alone != 0 || r.someMemberLeft(m)) && !r.cfg.Planted.Has(planted.ReleaseEarly) {
		return
	}
	if m.Permit != 0 {
		r.returnPermit(m.Permit)
	}
	if n := r.mastery.permit; n != 0 && n != m.Permit && r.log.newest().Index <= r.commit {
		r.returnPermit(n)
	}
}

// watchPermit gives the permit back, as master, as members come to have what makes
// it needless.
func (r *Replica) watchPermit() {
	m, c := &r.mastery, r.committed()
	if m.allKnow || r.phase < recovering || c.Index > r.commit || m.permit == 0 && c.Membership.Permit == 0 {
		return
	}
	if knows, all := r.knowing(); len(knows) != m.knowing || all {
		m.knowing, m.allKnow = len(knows), all
		r.givePermitBack()
	}
}

// returnPermit gives the permit of this number back, or, as long as somebody may
// lack the configuration in force alone, lets those that have it be master. Whoever
// lacks it would lead by the one before: those who were left behind and then
// removed, and a voter of a recovery that has promised and heard no more.
func (r *Replica) returnPermit(n uint64) {
	m := r.committed().Membership
	w := &ReleasePermit{Number: n, Version: m.Version}
	knows, all := r.knowing()
	if m.Permit != 0 && (len(m.LeftBehind) > 0 || !all) && !r.cfg.Planted.Has(planted.ReleaseEarly) {
		if len(knows) == 0 {
			return
		}
		w.Able = knows
		r.point(AtPermitPassed)
	} else {
		r.point(AtPermitReleased)
	}
	r.locks = append(r.locks, w)
}

// knowing lists those who may be master by the newest configuration that is known to
// be committed and have it on disk, as far as this replica can tell. all: so have all
// who count in it.
func (r *Replica) knowing() (ids []partition.ReplicaID, all bool) {
	c := r.committed()
	// By this policy it would not be committed else.
	sure := c.Membership.Policy.Rule == partition.AllInSync && c.Index <= r.commit
	all, has := true, r.holds(c.Index)
	for _, x := range c.Membership.Members {
		switch {
		case !counts(x):
		case !sure && !has(x.Replica) && !r.cfg.Planted.Has(planted.PassUnknowing):
			all = false
		case x.Kind == partition.Full:
			ids = append(ids, x.Replica)
		}
	}
	return ids, all
}

// someMemberLeft reports whether a member of the configuration is left behind.
func (r *Replica) someMemberLeft(m *partition.Membership) bool {
	for _, id := range m.LeftBehind {
		if _, ok := m.Member(id); ok {
			return true
		}
	}
	return false
}
