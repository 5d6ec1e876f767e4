package replica

// A group that was divided off from another begins with its first master. Every
// member begins with the same log, all of it committed, and with the same promise:
// that of the first epoch, which belongs to the replica that was chosen when the
// group was made. So that one has the support of all members, without asking for it,
// of those that have not promised anybody else more since. It leads at once, and the
// others ask it for its log.
//
// What makes this safe is what makes a gather safe. A candidate of a later epoch
// needs a failover set that has promised it; every durable set has a member of that
// set, which refuses the first epoch from then on. And the first epoch is used once:
// by the replica that has just been made, never by one that was there before.

// beginAppointed is a replica's first event in such a group.
func (r *Replica) beginAppointed() {
	lock := r.appointed.Lock
	r.appointed = nil
	if first := r.promised.Replica(); first == r.cfg.Self {
		if r.electable() {
			r.attempt.lock = lock
			r.becomeMaster()
		}
		return
	} else if m, ok := r.active.Member(first); ok && r.cfg.Neighbours.Reachable(m.Node) {
		// It may have sent its log before this replica was there.
		r.deadline = r.now + 2*r.cfg.AnswerWait + r.jitter(r.cfg.AnswerWait)
		r.send(peerRef{id: first, node: m.Node}, &Probe{Epoch: r.promised, End: r.log.end()})
	}
}

// Appointed says that a replica is one of a group that begins with its master.
type Appointed struct {
	// Lock is the number of the group's lock that the master's host holds already,
	// 0 if it does not. It matters for handing the mastership on.
	Lock uint64
}
