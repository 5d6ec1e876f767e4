package replica

import (
	"pando.dev/pando/internal/planted"
	"pando.dev/pando/partition"
)

// follow is what a peer keeps about the epoch it has promised. A new promise
// clears it.
type follow struct {
	master  peerRef         // who sent the last Append of the epoch
	matched partition.Index // the log up to here is that master's
	acked   partition.Index // the greatest Match it was told
	owed    bool            // an AppendAck is to be sent
	want    partition.Index // what it asks for, 0 if nothing
	// unsettled: the acknowledgement said less of the commit index than is known,
	// since that was not on disk.
	unsettled bool
	gather    peerRef // the candidate whose Gather is to be answered
}

// fit says how records of another log go onto this one.
type fit struct {
	want    partition.Index // not 0: they do not; ask for records from here on
	through partition.Index // the log equals the other one up to here afterwards
	skip    int             // so many of the records are here already
	cut     bool            // the log first loses what is behind after
	after   partition.Index
}

// fit compares the log with records that follow prev in another log. It refuses
// what contradicts a committed record or a checksum: one of the two logs is
// damaged then.
func (r *Replica) fit(prev partition.Position, sum uint32, records []partition.Record) (fit, error) {
	l := r.log
	f := fit{through: prev.Index + partition.Index(len(records))}
	if prev.Index < l.before.Index {
		// Everything before first is committed and applied here.
		if r.cfg.Planted.Has(planted.CompactedAgain) {
			return f, nil
		}
		n := int(min(l.before.Index-prev.Index, partition.Index(len(records))))
		if n == len(records) {
			f.skip = n
			return f, nil
		}
		f.skip, prev, sum = n, records[n-1].Position(), records[n-1].Checksum()
	}
	if prev.Index > l.last {
		return fit{want: l.last + 1}, nil
	}
	blind := r.cfg.Planted.Has(planted.AppendUnchecked)
	if !l.has(prev) && !blind {
		if prev.Index <= r.commit {
			return fit{}, forked(prev, r.commit)
		}
		return fit{want: max(r.commit+1, l.runStart(prev.Index))}, nil
	}
	if mine, ok := l.sumAt(prev.Index); ok && sum != 0 && mine != sum && !blind {
		return fit{}, damaged(prev, mine, sum)
	}
	for ; f.skip < len(records); f.skip++ {
		p := records[f.skip].Position()
		if p.Index > l.last {
			break
		}
		if l.has(p) || r.cfg.Planted.Has(planted.NoSnip) {
			if mine, ok := l.sumAt(p.Index); ok && mine != records[f.skip].Checksum() && l.has(p) {
				return fit{}, damaged(p, mine, records[f.skip].Checksum())
			}
			continue
		}
		if p.Index <= r.commit {
			return fit{}, forked(p, r.commit)
		}
		f.cut, f.after = true, p.Index-1
		break
	}
	if f.skip < len(records) {
		p := partition.Position{Index: records[f.skip].Index() - 1}
		p.Epoch, _ = l.epochAt(p.Index)
		if mine, ok := l.sumAt(p.Index); ok && mine != records[f.skip].Prev() && !blind {
			return fit{}, damaged(p, mine, records[f.skip].Prev())
		}
	} else if r.cfg.Planted.Has(planted.SnipOnStale) && f.through < l.last {
		f.cut, f.after = true, f.through
	}
	return f, nil
}

func forked(p partition.Position, commit partition.Index) error {
	return &partition.Error{
		Code: partition.CodeCorrupt,
		Why:  "a log with the record " + p.String() + " contradicts one that is committed here",
		Next: "one of the two replicas has lost synced data; nothing of the message was used",
	}
}

func damaged(p partition.Position, mine, other uint32) error {
	e := partition.Errorf(partition.CodeCorrupt, "record %s has checksum %08x here and %08x there", p, mine, other)
	e.Next = "one of the two replicas is damaged; nothing of the message was used"
	return e
}

// take brings the log in line with records of a newer or the same log. Nothing
// has changed if there is an error or something is wanted.
func (r *Replica) take(epoch partition.Epoch, prev partition.Position, sum uint32, records []partition.Record) (fit, error) {
	if err := checkRecords(r.cfg.Group, epoch, prev, sum, records); err != nil {
		return fit{}, err
	}
	f, err := r.fit(prev, sum, records)
	if err != nil || f.want != 0 {
		return f, err
	}
	fresh := records[f.skip:]
	var configs []ConfigurationAt
	for _, x := range fresh {
		m, err := configurationIn(x)
		if err != nil {
			return fit{}, err
		}
		if m != nil {
			configs = append(configs, ConfigurationAt{Index: x.Index(), Membership: m})
		}
	}
	if f.cut {
		var sum uint32
		if len(fresh) > 0 {
			sum = fresh[0].Prev()
		}
		r.snip(f.after, sum)
	}
	for _, x := range fresh {
		r.log.append(x)
	}
	r.log.configs = append(r.log.configs, configs...)
	if len(configs) > 0 {
		r.point(AtConfigurationTaken)
	}
	if f.cut || len(configs) > 0 {
		r.setActive()
	}
	return f, nil
}

// snip removes the records behind after. What is on the way to the disk counts
// only up to there from now on.
func (r *Replica) snip(after partition.Index, sum uint32) {
	assert(after >= r.commit, "snip behind %d of records committed up to %d", after, r.commit)
	configs := len(r.log.configs)
	r.log.cut(after, sum)
	if len(r.log.configs) < configs {
		r.point(AtConfigurationSnipped)
	}
	r.durable = min(r.durable, after)
	for i := range r.writing {
		if r.writing[i].last > after {
			r.point(AtSnipUnsynced)
		}
		r.writing[i].last = min(r.writing[i].last, after)
	}
	r.trace("snipped")
	r.point(AtSnip)
}

func (r *Replica) onAppend(from peerRef, m *Append) error {
	if m.Epoch < r.promised && !r.cfg.Planted.Has(planted.StaleAppend) {
		if r.refuses(from) {
			r.point(AtStaleAppend)
			r.send(from, &AppendAck{Epoch: r.promised, Commit: r.commitOnDisk(), State: !r.cfg.LogOnly})
		}
		return nil
	}
	if !r.names(m.Epoch, from.id) {
		return partition.Errorf(partition.CodeInvalid, "an append of epoch %s from replica %d", m.Epoch, from.id)
	}
	f, err := r.take(m.Epoch, m.Prev, m.PrevSum, m.Records)
	if err != nil {
		return err
	}
	if m.Epoch > r.promised {
		r.giveWay("a newer master")
		r.promise(m.Epoch, from.node)
	}
	r.knowMaster(from)
	w := &r.follow
	if f.want != 0 {
		w.want, w.owed = f.want, true
		r.point(AtGap)
		return nil
	}
	w.matched = max(w.matched, f.through)
	if w.matched >= w.want {
		w.want = 0
	}
	if r.cfg.Planted.Has(planted.CommitUnmatched) {
		r.learnCommit(m.Commit)
	}
	r.learnCommit(min(m.Commit, w.matched))
	r.everywhere = max(r.everywhere, min(m.Everywhere, r.commit))
	// If records are on the way to the disk, their Persisted pays the answer.
	w.owed = w.owed || w.matched <= r.durable || r.cfg.Planted.Has(planted.AckUnsynced)
	return nil
}

// refuses reports whether an old message is to be answered with the promise. To
// the replica that the promise names it would look like support, which it is
// only once it is on disk: its old messages get no answer.
func (r *Replica) refuses(from peerRef) bool { return !r.names(r.promised, from.id) }

// names reports whether the epoch belongs to this replica alone.
func (r *Replica) names(e partition.Epoch, id partition.ReplicaID) bool {
	return e.Replica() == id || r.cfg.Planted.Has(planted.SharedPromise)
}

// knowMaster notes who is master of the promised epoch.
func (r *Replica) knowMaster(from peerRef) {
	r.giveWay("another master")
	if r.master != from.id {
		r.trace("knows master")
		r.resigned = false
	}
	r.dropDecree("a master is there")
	r.master, r.deadline, r.why = from.id, 0, ""
	r.successor = peerRef{}
	if r.hand.step == gone && r.promised > r.hand.goes.Epoch {
		r.handed(from.id)
	}
	r.follow.master, r.attempt.tries = from, 0
	if from.node != "" {
		r.promisedNode = from.node
	}
	// A message of a master that has died since may still come in: what it says
	// of its life is no more than the hints say.
	r.masterDown = !r.cfg.Neighbours.Reachable(from.node)
}

func (r *Replica) onGather(from peerRef, m *Gather) error {
	switch {
	case !r.names(m.Epoch, from.id):
		return partition.Errorf(partition.CodeInvalid, "a gather of epoch %s from replica %d", m.Epoch, from.id)
	case m.Epoch < r.promised:
		if r.refuses(from) {
			r.point(AtGatherRefused)
			r.send(from, &GatherAnswer{Epoch: r.promised})
		}
		return nil
	case m.Epoch > r.promised && r.without(from.id) != nil && !r.cfg.Planted.Has(planted.PromiseRemoved):
		// Who was removed shall not disturb: it is told, and nothing is promised.
		r.send(from, r.probeAnswer(from.id))
		return nil
	case m.Epoch > r.promised:
		r.giveWay("a newer attempt")
		r.promise(m.Epoch, from.node)
		// It has to wait for disks, perhaps as slow as those that kept others from it.
		r.deadline = r.now + r.cfg.AnswerWait + r.patience() + r.jitter(r.cfg.AnswerWait)
	}
	r.learnReleased(m.Released)
	r.follow.gather = from
	return nil
}

// answerOwed sends the answers that waited for the promise or the log to be on
// disk.
func (r *Replica) answerOwed() {
	if r.synced != r.promised && !r.cfg.Planted.Has(planted.NoPromiseSync) {
		return
	}
	w := &r.follow
	if w.gather.id != 0 {
		r.send(w.gather, &GatherAnswer{
			Epoch: r.promised, End: r.log.end(), EndSum: r.log.lastSum, Commit: r.commitPosition(),
			LeaseRemaining: max(0, r.leaseUntil-r.now),
			Membership:     r.log.configs[len(r.log.configs)-1].Membership.Version,
		})
		w.gather = peerRef{}
		r.point(AtGatherAnswered)
		if r.now < r.leaseUntil {
			r.point(AtLeaseReported)
		}
	}
	if w.owed && w.master.id != 0 {
		match := min(w.matched, r.durable)
		if r.cfg.Planted.Has(planted.AckUnsynced) {
			match = w.matched
		}
		if w.unsettled = r.commitOnDisk() < r.commit; w.unsettled {
			r.point(AtAckUnsettled)
		}
		if !w.unsettled || match > w.acked || w.want != 0 { // else its Persisted pays the answer
			r.send(w.master, &AppendAck{Epoch: r.promised, Match: match, Want: w.want, Commit: r.commitOnDisk(), State: !r.cfg.LogOnly})
		}
		w.acked, w.owed, w.want = max(w.acked, match), false, 0
	}
}

// commitOnDisk is the commit index as it is acknowledged: that a configuration is
// committed is told when it is on disk, so that what it has made superfluous may
// be deleted.
func (r *Replica) commitOnDisk() partition.Index {
	if c := r.committed().Index; c > r.settled && c <= r.commit && !r.cfg.Planted.Has(planted.SettledUnsynced) {
		return c - 1
	}
	return r.commit
}

// onPersisted learns what is on disk now.
func (r *Replica) onPersisted(seq uint64) error {
	if seq > r.seq {
		return partition.Errorf(partition.CodeInvalid, "persisted %d, asked for %d", seq, r.seq)
	}
	n, synced, durable := 0, r.synced, r.durable
	for n < len(r.writing) && r.writing[n].seq <= seq {
		r.durable = max(r.durable, r.writing[n].last)
		r.synced = max(r.synced, r.writing[n].promise)
		r.settled = max(r.settled, r.writing[n].commit)
		n++
	}
	r.writing = append(r.writing[:0], r.writing[n:]...)
	if synced < r.synced {
		r.point(AtPromiseDurable)
	}
	if r.phase == leveling && durable < r.mastery.first && r.durable >= r.mastery.first {
		r.point(AtNoopDurable)
	}
	if r.follow.unsettled && r.committed().Index <= r.settled {
		r.follow.unsettled, r.follow.owed = false, true
	}
	if min(r.follow.matched, r.durable) > r.follow.acked {
		r.follow.owed = true
	}
	if r.phase == promising && r.synced == r.promised {
		r.startGather()
	}
	return nil
}

// onApplied learns what the state reflects now.
func (r *Replica) onApplied(i partition.Index) error {
	if i <= r.applied || i > r.asked {
		return partition.Errorf(partition.CodeInvalid, "applied %d; the state reflects %d, asked for was %d", i, r.applied, r.asked)
	}
	r.applied, r.asked = i, 0
	return nil
}

// onTruncated notes where the host's log begins now.
func (r *Replica) onTruncated(first partition.Index) error {
	if r.cfg.LogOnly && first > r.everywhere+1 {
		return partition.Errorf(partition.CodeInvalid, "the log is truncated below %d, a full member may have only %d", first, r.everywhere)
	}
	if first > r.applied+1 {
		return partition.Errorf(partition.CodeInvalid, "the log is truncated below %d, the state reflects only %d", first, r.applied)
	}
	r.log.truncate(first)
	r.point(AtTruncated)
	for _, p := range r.mastery.peers {
		if p.next < r.log.first {
			p.again(r) // it may have more than is known here
		}
	}
	return nil
}

// onFetch supplies records to the candidate that holds this replica's promise,
// and to nobody else.
func (r *Replica) onFetch(from peerRef, m *Fetch) {
	if m.Epoch != r.promised || !r.names(m.Epoch, from.id) || r.synced != r.promised {
		if m.Epoch < r.promised && r.refuses(from) {
			r.send(from, &GatherAnswer{Epoch: r.promised})
		}
		return
	}
	l := r.log
	a := &FetchAnswer{Epoch: m.Epoch, End: l.end(), Commit: r.commit}
	// The candidate may not know how much of its own log is committed. What was let go
	// of here it has, or it needs a copy.
	after := max(m.After, l.before.Index)
	if e, ok := l.epochAt(after); ok {
		a.Prev = partition.Position{Epoch: e, Index: after}
		a.PrevSum, _ = l.sumAt(after)
		a.Records, a.Through = r.supply(after)
	}
	r.point(AtFetchServed)
	r.send(from, a)
}

// supply returns the records behind after, as many as one message carries, or
// tells the host up to where to read them.
func (r *Replica) supply(after partition.Index) (records []partition.Record, through partition.Index) {
	l := r.log
	if after >= l.last {
		return nil, 0
	}
	if after+1 < l.tailFirst() {
		r.point(AtReadBack)
		return nil, l.tailFirst() - 1
	}
	last, size := after+1, len(l.at(after+1))
	for last < l.last && size+len(l.at(last+1)) <= r.cfg.MaxAppendBytes {
		last++
		size += len(l.at(last))
	}
	return l.span(after+1, last), 0
}
