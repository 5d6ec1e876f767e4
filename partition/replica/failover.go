package replica

import (
	"math"
	"slices"

	"pando.dev/pando/internal/planted"
	"pando.dev/pando/partition"
)

// attempt is one try to become master, from the first question to the failover
// set. It lives as long as the phases probing to fetching; tries outlives it.
//
//	peer -> probing -> waiting -> locking -> promising -> gathering <-> fetching -> leveling
//	 ^         |          |          |           |            |            |
//	 `---------+----------+----------+-----------+------------+------------'
//	  somebody reaches the master, a newer epoch, lock refused or lost, too few
//	  supporters in time, not an eligible full member of the winning log
type attempt struct {
	tries      int // since a master was last known; sets the back-off
	probed     []probed
	sponsor    peerRef               // whose log says that this replica may be master, when its own does not
	asked      []peerRef             // by Gather
	useless    []partition.ReplicaID // they support, and do not supply what they have
	until      partition.Time        // the end of gathering
	promisedAt partition.Time        // when the own promise was given to the disk
	diskTook   partition.Time        // until it was on it
	supporters []supporter
	source     peerRef // of the Fetch under way
	target     partition.Position
	fetched    partition.Index // the source's log is here up to this index
	lock       uint64          // number of the lock that is held, 0 if none; kept as master
	permit     uint64          // that the lock service says this replica holds
}

// supporter is a member that has promised the attempt's epoch.
type supporter struct {
	peerRef
	end        partition.Position
	commit     partition.Position
	leaseUntil partition.Time
	version    partition.MembershipVersion // proves nothing
}

// attemptTick is called when the deadline of a phase up to fetching has come.
func (r *Replica) attemptTick() {
	switch r.phase {
	case following:
		switch {
		case r.stopped():
			r.askRetire()
		case r.restless():
			r.startProbe()
		}
	case probing:
		r.judge()
	case waiting:
		r.acquire()
	case locking:
		r.abandon("the lock did not answer in time")
	case gathering:
		if r.now < r.attempt.until {
			r.askAgain()
			return
		}
		r.abandon("too few supporters: " + r.active.Missing(r.supports))
	case fetching:
		r.dropSource()
	}
}

// restless reports whether this replica should look for a master. Whoever knows
// one on a reachable node needs no alarm. A voter that may not be master looks
// too: its log may be the only one that says who may. So does everybody else: it
// may have been removed, and whom it asks tells it.
func (r *Replica) restless() bool {
	if r.removal.without != nil || r.heir.from.id != 0 {
		return false
	}
	return r.master == 0 || r.masterDown || !r.mayMaster(r.master)
}

// watch sets or clears the alarm of a peer.
func (r *Replica) watch() {
	if r.phase != following || !r.begun {
		return
	}
	if r.stopped() {
		if r.deadline == 0 && !r.removal.retired {
			r.deadline = r.now + r.retireWait()
		}
		return
	}
	if !r.restless() || r.attempt.tries > 0 && r.cfg.Planted.Has(planted.GiveUp) {
		r.deadline = 0
	} else if r.deadline == 0 {
		r.deadline = r.now + r.backoff()
		if !r.electable() {
			r.deadline += 2 * r.cfg.AnswerWait
		}
	}
}

// backoff is the wait before the next attempt: doubled per try, bounded, with
// jitter.
func (r *Replica) backoff() partition.Time {
	d := r.cfg.RetryMin << min(r.attempt.tries, 16)
	if d <= 0 || d > r.cfg.RetryMax {
		d = r.cfg.RetryMax
	}
	return r.jitter(d)
}

// patience is the wait for answers that need the disks of others: AnswerWait,
// doubled per try, and not less than twice what the own disk took, so that slow
// disks only delay a mastership. A master would wait no longer than DurabilityWait
// for the same disks.
func (r *Replica) patience() partition.Time {
	d := max(r.cfg.AnswerWait<<min(r.attempt.tries, 16), 2*r.attempt.diskTook)
	return min(d, max(r.cfg.DurabilityWait, r.cfg.AnswerWait))
}

// fetchWait is how long a supporter may take to supply the next records.
func (r *Replica) fetchWait() partition.Time {
	return min(r.patience(), max(r.cfg.RetryMax, r.cfg.AnswerWait))
}

// awaitSupport waits for supporters as long as patience allows. Who has not
// answered within AnswerWait is asked again: the question may be lost.
func (r *Replica) awaitSupport() {
	r.phase, r.attempt.until = gathering, r.now+r.patience()
	r.deadline = min(r.now+r.cfg.AnswerWait, r.attempt.until)
}

// askAgain repeats the question to whoever does not support this attempt yet.
func (r *Replica) askAgain() {
	r.deadline = min(r.now+r.cfg.AnswerWait, r.attempt.until)
	r.point(AtGatherAgain)
	for _, to := range r.attempt.asked {
		if !r.supports(to.id) && !slices.Contains(r.attempt.useless, to.id) {
			r.send(to, &Gather{Epoch: r.promised, Released: r.released})
		}
	}
}

// giveWay ends a mastership or an attempt in favour of somebody else.
func (r *Replica) giveWay(why string) {
	switch {
	case r.isMaster():
		r.stepDown(why, false)
	case r.phase != following:
		r.abandon(why)
	}
}

// abandon ends an attempt. Nothing of it remains but the promise, if it got so
// far.
func (r *Replica) abandon(why string) {
	r.phase, r.why = following, why
	r.dropHeir(0)
	r.releaseLock()
	r.attempt = attempt{tries: r.attempt.tries}
	r.deadline = r.now + r.backoff()
	if r.cfg.Planted.Has(planted.GiveUp) {
		r.deadline = 0
	}
	r.trace("abandoned")
	r.point(AtAbandoned)
}

func (r *Replica) releaseLock() {
	if r.attempt.lock != 0 {
		r.locks = append(r.locks, &ReleaseLock{Number: r.attempt.lock})
		r.attempt.lock = 0
	}
}

func (r *Replica) onNodeDown(n partition.NodeID) {
	if r.isMaster() {
		r.peersOn(n, false)
		r.heirDown(n)
		return
	}
	r.heirDown(n)
	if r.master == 0 && r.phase == following && r.promisedNode == n && r.electable() {
		// The candidate that was promised support is gone: nobody waits for it.
		r.deadline = min(r.deadline, r.now+r.jitter(r.cfg.RetryMin))
	}
	if r.master == 0 || r.nodeOf(r.master) != n {
		return
	}
	r.masterDown = true
	r.point(AtMasterDown)
	if r.phase == following && r.electable() {
		r.startProbe() // others are left to their alarm
	}
}

func (r *Replica) onNodeUp(n partition.NodeID) {
	if r.isMaster() {
		r.peersOn(n, true)
		return
	}
	if r.masterDown && r.nodeOf(r.master) == n {
		// Its replica may be gone though the node is back: it is to say so itself,
		// or else nobody might ever look for a master again.
		r.master, r.masterDown = 0, false
	}
	if r.stopped() && !r.removal.retired {
		r.removal.tries, r.deadline = 0, r.now+r.retireWait()
	}
	if r.phase == following && r.restless() {
		r.attempt.tries = 0
		if soon := r.now + r.jitter(r.cfg.RetryMin); r.deadline == 0 || soon < r.deadline {
			r.deadline = soon
		}
	}
}

func (r *Replica) canFailover(support func(partition.ReplicaID) bool) bool {
	if r.decree != nil {
		// What was committed may be with any of them.
		for _, x := range r.decree.next.Members {
			if counts(x) && !support(x.Replica) {
				return false
			}
		}
		return true
	}
	switch {
	case r.cfg.Planted.Has(planted.AlwaysFailover):
		return true
	case r.cfg.Planted.Has(planted.FailoverNotJoint):
		return r.active.Last().CanFailover(support)
	case r.cfg.Planted.Has(planted.ZoneByNode) && r.active.Last().Policy.Rule == partition.Zones:
		return zonesByNode(r.active.Last(), support)
	}
	return r.active.CanFailover(support)
}

// zonesByNode is a planted bug: it counts a zone of which one node supports.
func zonesByNode(m *partition.Membership, support func(partition.ReplicaID) bool) bool {
	var all, won []string
	for _, x := range m.Members {
		if counts(x) && !slices.Contains(all, x.Zone) {
			all = append(all, x.Zone)
		}
		if counts(x) && support(x.Replica) && !slices.Contains(won, x.Zone) {
			won = append(won, x.Zone)
		}
	}
	return len(won) > len(all)-int(m.Policy.Zones)
}

// acquire asks for the lock.
func (r *Replica) acquire() {
	cannot := func(id partition.ReplicaID) bool {
		a, ok := r.answerOf(id)
		return id == r.cfg.Self || ok && !a.Reachable
	}
	witnesses := []partition.ReplicaID{r.cfg.Self}
	for m := range r.members() {
		if cannot(m.Replica) {
			witnesses = append(witnesses, m.Replica)
		}
	}
	r.phase, r.deadline = locking, r.now+max(r.cfg.RetryMax, r.patience())
	r.givePermitBack()
	r.locks = append(r.locks, &AcquireLock{
		Above:     max(r.promised, r.seen).Number(),
		Witnesses: witnesses,
		Failover:  r.active.CanFailover(cannot),
	})
	r.trace("asks for the lock")
	r.point(AtLockAsked)
}

func (r *Replica) onLocked(number, permit uint64) {
	if r.heirLocked(number) {
		return
	}
	e := partition.NewEpoch(number, r.cfg.Self)
	if r.cfg.Planted.Has(planted.SharedPromise) {
		e = partition.NewEpoch(number, 0)
	}
	if r.phase != locking {
		if number != r.attempt.lock && number != r.heir.number { // not the one that is held, told twice
			r.locks = append(r.locks, &ReleaseLock{Number: number})
		}
		return
	}
	r.attempt.lock, r.attempt.permit = number, permit
	if e == r.promised && r.synced == e && r.cfg.Planted.Has(planted.EpochAgain) {
		r.startGather()
		return
	}
	if e <= r.promised || !validEpoch(number, 0) {
		r.point(AtLockOld)
		r.abandon("the lock handed out an old number")
		return
	}
	r.point(AtLockHeld)
	r.promise(e, r.cfg.Node)
	r.phase, r.deadline, r.attempt.promisedAt = promising, 0, r.now
}

// validEpoch reports whether a lock's number makes an epoch above e.
func validEpoch(number uint64, e partition.Epoch) bool {
	return number != 0 && number <= math.MaxUint64>>16 && number > e.Number()
}

// onLockRefused also tells a candidate that the lock it was given is lost.
func (r *Replica) onLockRefused() {
	if r.phase >= locking && r.phase <= fetching {
		r.point(AtLockRefused)
	}
	switch r.phase {
	case locking:
		r.abandon("the lock is held by another")
	case promising, gathering, fetching:
		r.attempt.lock = 0
		r.abandon("the lock was lost")
	case following:
		r.heir.number = 0 // there is nothing to give back
		r.dropHeir(HandRefuse)
	}
}

// startGather asks for support once the candidate's own promise is on disk:
// before that a restart could try the same epoch again.
func (r *Replica) startGather() {
	r.attempt.diskTook = r.now - r.attempt.promisedAt
	r.awaitSupport()
	r.trace("gathers")
	r.point(AtGather)
	r.support(supporter{peerRef: peerRef{id: r.cfg.Self, node: r.cfg.Node}, end: r.log.end(), commit: r.commitPosition(), leaseUntil: r.leaseUntil})
}

func (r *Replica) onGatherAnswer(from peerRef, m *GatherAnswer) {
	r.seen = max(r.seen, m.Epoch)
	if m.Epoch > r.promised {
		switch {
		case r.isMaster():
			r.stepDown("a member has promised a newer epoch", true)
		case r.phase >= promising:
			r.abandon("a member has promised a newer epoch")
		}
		return
	}
	old := m.Epoch.Replica() == r.cfg.Self && r.cfg.Planted.Has(planted.StaleSupport)
	if m.Epoch != r.promised && !old {
		return
	}
	if p := r.peer(from.id); p != nil {
		r.noteSupport(p, from.boot)
		return
	}
	if r.phase != gathering && r.phase != fetching {
		return
	}
	r.support(supporter{peerRef: from, end: m.End, commit: m.Commit, leaseUntil: r.now + m.LeaseRemaining, version: m.Membership})
}

func (r *Replica) support(s supporter) {
	for _, x := range r.attempt.supporters {
		if x.id == s.id {
			return
		}
	}
	if slices.Contains(r.attempt.useless, s.id) {
		return
	}
	r.attempt.supporters = append(r.attempt.supporters, s)
	if s.id != r.cfg.Self {
		r.point(AtSupported)
	}
	if r.phase == gathering {
		r.weigh()
	}
}

// weigh looks at the supporters: is there a newer log to copy, and if not, do
// they suffice in every configuration of this, the winning, log?
func (r *Replica) weigh() {
	end := r.log.end()
	best := supporter{end: end}
	for _, s := range r.attempt.supporters {
		if s.id != r.cfg.Self && r.newer(s.end, best.end) {
			best = s
		}
		if r.cfg.Planted.Has(planted.LosingMembership) && s.version > r.active.Last().Version {
			best = s
			break
		}
	}
	if best.id != 0 {
		r.phase, r.deadline = fetching, r.now+r.fetchWait()
		r.attempt.source, r.attempt.target = best.peerRef, best.end
		r.point(AtNewerLog)
		r.fetch()
		return
	}
	for _, s := range r.attempt.supporters {
		r.learnCommitted(s.commit)
	}
	if s := r.attempt.sponsor.id; !r.electable() && (s == 0 || r.supports(s)) {
		r.abandon("not an eligible full member of the newest log")
		return
	}
	if r.electable() && r.canFailover(r.supports) {
		r.becomeMaster()
		return
	}
	r.gatherMore()
}

// learnCommitted learns that the record at this position, and all before it, is
// committed, if this log has it: a supporter may know that of a record of an old
// epoch, and its log may still be older than this one, which lacks that record.
func (r *Replica) learnCommitted(p partition.Position) {
	if r.log.has(p) {
		r.learnCommit(p.Index)
	}
}

// newer reports whether a log that ends at a is newer than one that ends at b.
func (r *Replica) newer(a, b partition.Position) bool {
	if r.cfg.Planted.Has(planted.NewerByIndex) {
		return a.Index > b.Index
	}
	return a.Compare(b) > 0
}

func (r *Replica) supports(id partition.ReplicaID) bool {
	for _, s := range r.attempt.supporters {
		if s.id == id {
			return true
		}
	}
	return false
}

// gatherMore asks the members that were not asked yet; a copied log may have
// named new ones. Learners do not count and are not asked.
func (r *Replica) gatherMore() {
	r.phase = gathering
	ask := func(to peerRef) {
		for _, x := range r.attempt.asked {
			if x.id == to.id {
				return
			}
		}
		r.attempt.asked = append(r.attempt.asked, to)
		r.send(to, &Gather{Epoch: r.promised, Released: r.released})
	}
	for m := range r.members() {
		if m.Kind != partition.Learner {
			ask(peerRef{id: m.Replica, node: m.Node})
		}
	}
	if s := r.attempt.sponsor; s.id != 0 {
		ask(s)
	}
	if len(r.attempt.useless) > 0 && !slices.ContainsFunc(r.attempt.asked, func(to peerRef) bool {
		return !r.supports(to.id) && !slices.Contains(r.attempt.useless, to.id)
	}) {
		r.abandon("who has the newest log does not supply it") // nobody else is to come
		// Its log may begin behind this one's end: then only it can be master, and it
		// needs more time than a member that has promised waits for a candidate, which
		// may have been as patient in vain.
		r.deadline = r.now + 4*max(r.cfg.RetryMax, r.cfg.AnswerWait) + 2*r.patience()
	}
}

// fetch asks the source for records behind those that it shares with this log
// for certain: all of it if both end in the same epoch, else the committed ones.
func (r *Replica) fetch() {
	after := r.commit
	if end := r.log.end(); end.Epoch == r.attempt.target.Epoch && end.Index <= r.attempt.target.Index {
		after = end.Index
	}
	r.attempt.fetched = after
	r.send(r.attempt.source, &Fetch{Epoch: r.promised, After: after})
}

func (r *Replica) onFetchAnswer(from peerRef, m *FetchAnswer) error {
	if r.phase != fetching || m.Epoch != r.promised || from.id != r.attempt.source.id {
		return nil
	}
	if len(m.Records) == 0 {
		r.dropSource()
		return nil
	}
	f, err := r.take(r.promised, m.Prev, m.PrevSum, m.Records)
	if err != nil || f.want != 0 {
		r.dropSource()
		return err
	}
	r.point(AtFetched)
	switch {
	case r.log.has(r.attempt.target):
		r.awaitSupport()
		r.weigh()
	case f.through > r.attempt.fetched:
		r.attempt.fetched, r.deadline = f.through, r.now+r.fetchWait()
		r.send(r.attempt.source, &Fetch{Epoch: r.promised, After: f.through})
	}
	return nil
}

// dropSource goes on without a supporter that does not supply its log.
func (r *Replica) dropSource() {
	r.point(AtSourceLost)
	a := &r.attempt
	kept := a.supporters[:0]
	for _, s := range a.supporters {
		if s.id != a.source.id {
			kept = append(kept, s)
		}
	}
	a.supporters, a.useless = kept, append(a.useless, a.source.id)
	r.awaitSupport()
	r.weigh()
}
