package control

import (
	"context"
	"fmt"
	"math"
	"slices"

	"pando.dev/pando/partition"
)

// A group whose policy wants every member in sync cannot commit when one of
// them is gone. To go on alone it needs a permit, and here, unlike with locks,
// the control group's word is safety: two members that both went on alone would
// fork the group. So each group has an in-sync number, which moves by one, and
// at most one holder per number:
//
//	n, nobody or the same  --Permit(lock, seq)-->  n+1, held by the replica
//	n, held                --Release(n)-------->   n+1, nobody
//	n, anybody             --Decree(from n)---->   n+1, held by whom the operator chose
//	n, held                --Extend(n)--------->   n, with more who may be master
//	n, held                --Pass(n)----------->   n, with all members that are left
//
// No number is ever given out twice, not even to the same replica: a release of
// the one before, still on its way, must not end the next. A permit is for one
// mastership, named by its lock number, and refused when a newer lock was handed
// out; within the mastership requests are numbered. So each is granted at most
// once however often it is sent, and one that arrives late does nothing. While
// the number is held, the lock is refused to every replica that the holder has
// not named, because only those have what was committed alone; and those that
// joined the group later, which they did by a record behind it.

// maxAskPermits bounds the groups of one question for permits.
const maxAskPermits = 64

// MaxWhyBytes bounds the reason that an operator gives with a decree.
const MaxWhyBytes = 256

// permit is a group's in-sync number and who holds it. The zero value is what
// every group begins with.
type permit struct {
	number  uint64
	holder  partition.NodeID // empty: nobody holds it, all members are in sync
	replica partition.ReplicaID
	able    []partition.ReplicaID // ascending; shared, never changed
	// next is the first id of a replica that joined later; 0: not known, so only
	// the able ones count.
	next    partition.ReplicaID
	decreed bool // by an operator's word
	why     string
	// lock and seq are of the last request that was granted; they stay after the
	// release, so that a late one is known for what it is.
	lock, seq uint64
}

func (p *permit) held() bool { return p.holder != "" }

// of returns the number if it is held by the holder of a lock, else 0.
func (p permit) of(h LockHolder) uint64 {
	if p.held() && p.holder == h.Node && p.replica == h.Replica {
		return p.number
	}
	return 0
}

// item is the form that is sent and kept.
func (p *permit) item(g partition.GroupID) permitItem {
	return permitItem{
		Group: g, Number: p.number, Holder: p.holder, Replica: p.replica,
		Able: p.able, Next: p.next, Decreed: p.decreed, Why: p.why, Lock: p.lock, Seq: p.seq,
	}
}

// permitOf reads a permit from untrusted bytes.
func permitOf(i *permitItem) (permit, *partition.Error) {
	p := permit{number: i.Number, holder: i.Holder, replica: i.Replica, able: i.Able, next: i.Next, decreed: i.Decreed, why: i.Why, lock: i.Lock, seq: i.Seq}
	if i.Group == 0 || i.Number == 0 || len(i.Holder) > partition.MaxNodeIDBytes || len(i.Why) > MaxWhyBytes {
		return p, corrupt("the in-sync number of %s is 0, or a name or reason is too long", i.Group)
	}
	if p.held() != (i.Replica != 0) || p.held() != (len(i.Able) > 0) || p.held() && checkAble(i.Replica, i.Able) != nil {
		return p, corrupt("the holder of the in-sync number of %s makes no sense", i.Group)
	}
	return p, nil
}

// checkAble refuses a list of replicas that is not in order or has not the
// holder.
func checkAble(holder partition.ReplicaID, able []partition.ReplicaID) *partition.Error {
	if len(able) > partition.MaxMembers {
		return partition.Errorf(partition.CodeTooLarge, "%d replicas that may be master, limit %d", len(able), partition.MaxMembers)
	}
	for i, r := range able {
		if r == 0 || i > 0 && able[i-1] >= r {
			return partition.Errorf(partition.CodeInvalid, "the replicas that may be master, %v, are not in ascending order", able)
		}
	}
	if !slices.Contains(able, holder) {
		return partition.Errorf(partition.CodeInvalid, "replica %d, which is to hold the in-sync number, is not among those that may be master, %v", holder, able)
	}
	return nil
}

// applyPermit moves a group's in-sync number, or says why not. The answer is the
// number as it is then.
func (s *state) applyPermit(b *permitBody) (*permitAnswer, *partition.Error) {
	if !s.catalog.known(b.Group) {
		return nil, partition.Errorf(partition.CodeNotFound, "the catalog has no group %s", b.Group)
	}
	was := s.permits[b.Group]
	next, err := s.moved(b, was)
	if err != nil {
		return nil, err
	}
	if next.number != 0 {
		s.permits[b.Group] = next
		s.freeLock(b.Group, next)
	}
	return s.permitAnswer([]partition.GroupID{b.Group}), nil
}

// moved is the permit after what is asked. A move that was made already, by the
// same request, is the same answer again.
func (s *state) moved(b *permitBody, was permit) (permit, *partition.Error) {
	if was.number >= MaxLockNumber-1 || b.From >= MaxLockNumber {
		return was, partition.Errorf(partition.CodeRefused, "the in-sync number of %s is %d, asked is from %d, limit %d", b.Group, was.number, b.From, uint64(MaxLockNumber))
	}
	switch b.Act {
	case actRelease:
		return was.released(b)
	case actExtend:
		return was.extended(b)
	case actPass:
		return was.passed(b)
	}
	if err := b.validate(); err != nil {
		return was, err
	}
	if b.Act == actDecree {
		return was.decree(b, s.locks[b.Group].last)
	}
	return s.permitted(b, was)
}

func (b *permitBody) validate() *partition.Error {
	switch {
	case b.Act != actPermit && b.Act != actDecree:
		return partition.Errorf(partition.CodeInvalid, "unknown act %d about the in-sync number of %s", b.Act, b.Group)
	case b.Holder == "" || len(b.Holder) > partition.MaxNodeIDBytes || b.Replica == 0:
		return partition.Errorf(partition.CodeInvalid, "replica %d on node %q wants the in-sync number of %s", b.Replica, b.Holder, b.Group)
	case b.Act == actPermit && b.Holder != b.Node:
		return partition.Errorf(partition.CodeUnauthorized, "node %s wants the in-sync number of %s for node %s", b.Node, b.Group, b.Holder)
	case b.Act == actPermit && (b.Lock == 0 || b.Seq == 0):
		return partition.Errorf(partition.CodeInvalid, "replica %d of %s wants to go on alone without naming its lock and request", b.Replica, b.Group)
	case len(b.Why) > MaxWhyBytes:
		return partition.Errorf(partition.CodeTooLarge, "a reason of %d bytes, limit %d", len(b.Why), MaxWhyBytes)
	}
	return checkAble(b.Replica, b.Able)
}

// permitted is the permit of a master that goes on alone. Beside a permit that is
// held, only who may be master then can get the next one: having the newest lock
// it leads by a configuration in which the holder no longer commits without it.
func (s *state) permitted(b *permitBody, was permit) (permit, *partition.Error) {
	l := s.locks[b.Group]
	mine := was.held() && was.holder == b.Holder && was.replica == b.Replica
	switch {
	case was.held() && !mine && !was.mayLead(b.Replica):
		return was, refusedPermit(b, &was)
	case mine && !was.decreed && was.lock == b.Lock && was.seq == b.Seq && slices.Equal(was.able, b.Able):
		return was, nil
	case l.last > b.Lock || was.lock > b.Lock || was.lock == b.Lock && was.seq >= b.Seq:
		return was, &partition.Error{
			Code: partition.CodeNewerEpoch,
			Why:  fmt.Sprintf("replica %d of %s wants to go on alone by lock number %d, request %d; the lock went on to number %d, and the last permit was for number %d, request %d", b.Replica, b.Group, b.Lock, b.Seq, l.last, was.lock, was.seq),
			Next: "only the newest master is permitted to, and each request once",
		}
	case l.last != b.Lock || l.holder.Number != 0 && (l.holder.Node != b.Holder || l.holder.Replica != b.Replica):
		return was, partition.Errorf(partition.CodeRefused, "replica %d of %s wants to go on alone by lock number %d, which it does not have: the last is %d, held by %s", b.Replica, b.Group, b.Lock, l.last, l.holder)
	}
	return permit{
		number: was.number + 1, holder: b.Holder, replica: b.Replica, able: b.Able, next: b.Next, lock: b.Lock, seq: b.Seq,
	}, nil
}

// decree is the permit by an operator's word. The last mastership, by the number that
// the lock has come to, and every one before get no further permit: a request of the
// holder that is still on its way would take this one's place, and, being given back
// unused, leave the decree without any.
func (p *permit) decree(b *permitBody, last uint64) (permit, *partition.Error) {
	next := permit{
		number: b.From + 1, holder: b.Holder, replica: b.Replica, able: b.Able, next: b.Next, decreed: true, why: b.Why,
		lock: max(p.lock, last), seq: math.MaxUint64,
	}
	same := p.number == next.number && p.holder == next.holder && p.replica == next.replica && p.decreed && slices.Equal(p.able, next.able)
	switch {
	case same:
		return *p, nil
	case p.number != b.From:
		return *p, refusedPermit(b, p)
	}
	return next, nil
}

func (p *permit) released(b *permitBody) (permit, *partition.Error) {
	switch {
	case !p.held() && p.number == b.From+1 && b.From > 0:
		return *p, nil
	case !p.held() || p.number != b.From:
		return *p, refusedPermit(b, p)
	}
	return permit{number: p.number + 1, lock: p.lock, seq: p.seq}, nil
}

// extended is the permit beside which more replicas may be master.
func (p *permit) extended(b *permitBody) (permit, *partition.Error) {
	switch {
	case !p.held() || p.number != b.From:
		return *p, refusedPermit(b, p)
	case b.Holder != b.Node || !p.mayLead(b.Replica):
		return *p, partition.Errorf(partition.CodeUnauthorized, "replica %d on %s, by the word of %s, lets others be master of %s, and may not be itself", b.Replica, b.Holder, b.Node, b.Group)
	}
	return p.with(b.Able)
}

// passed is the permit when those who were left behind were removed: it ends
// never, since they may come back and know nothing of it, and all who are members
// now may be master. Who joined later may be anyway.
func (p *permit) passed(b *permitBody) (permit, *partition.Error) {
	if !p.held() || p.number != b.From {
		return *p, refusedPermit(b, p)
	}
	return p.with(slices.DeleteFunc(slices.Clone(b.Able), func(r partition.ReplicaID) bool { return p.next != 0 && r >= p.next }))
}

// with is the permit beside which further replicas may be master.
func (p *permit) with(more []partition.ReplicaID) (permit, *partition.Error) {
	next := *p
	next.able = append(slices.Clone(p.able), more...)
	slices.Sort(next.able)
	next.able = slices.Compact(next.able)
	if err := checkAble(p.replica, next.able); err != nil {
		return *p, err
	}
	return next, nil
}

// mayLead reports whether the replica has everything that was committed alone.
func (p *permit) mayLead(r partition.ReplicaID) bool {
	return !p.held() || slices.Contains(p.able, r) || p.next != 0 && r >= p.next
}

// freeLock takes the lock from a holder that may not be master any more.
func (s *state) freeLock(g partition.GroupID, p permit) {
	l, ok := s.locks[g]
	if ok && !p.mayLead(l.holder.Replica) {
		s.locks[g] = lock{last: l.last}
	}
}

// mayLock refuses the lock to a replica that may lack what another committed
// alone.
func (s *state) mayLock(g partition.GroupID, r partition.ReplicaID) *partition.Error {
	p := s.permits[g]
	if p.mayLead(r) {
		return nil
	}
	by := "went on alone"
	if p.decreed {
		by = "was made to go on alone by an operator"
	}
	return &partition.Error{
		Code: partition.CodeRefused,
		Why: fmt.Sprintf("replica %d may not be master of %s: replica %d on %s %s (in-sync number %d), and only replicas %v have all that it committed",
			r, g, p.replica, p.holder, by, p.number, p.able),
		Next: fmt.Sprintf("bring node %s back; if it is gone for good: pando recover plan %s", p.holder, g),
	}
}

// refusedPermit says how the number is instead.
func refusedPermit(b *permitBody, is *permit) *partition.Error {
	e := &partition.Error{Code: partition.CodeRefused, Why: fmt.Sprintf("the in-sync number of %s is %d", b.Group, is.number)}
	if is.held() {
		e.Why += fmt.Sprintf(", held by replica %d on %s", is.replica, is.holder)
		e.Next = fmt.Sprintf("only that replica goes on alone; bring node %s back, or if it is gone for good: pando recover plan %s", is.holder, b.Group)
	} else {
		e.Why += ", held by nobody"
		e.Next = "the group has gone on meanwhile; look at it again"
	}
	if b.Act != actPermit {
		e.Why += fmt.Sprintf("; asked was for the step from %d", b.From)
	}
	return e
}

// permitAnswer describes the in-sync numbers of groups, and their locks.
func (s *state) permitAnswer(groups []partition.GroupID) *permitAnswer {
	a := &permitAnswer{}
	for _, g := range groups {
		p := s.permits[g]
		a.Permits = append(a.Permits, p.item(g))
		a.Locks = append(a.Locks, holderItem(s.locks[g].holder))
	}
	return a
}

// Permit is a group's in-sync number and who holds it.
type Permit struct {
	Group  partition.GroupID
	Number uint64
	// Node and Replica hold the number; empty and 0: nobody does, and all
	// members are in sync.
	Node    partition.NodeID
	Replica partition.ReplicaID
	// Able are the replicas that may be master while the number is held, beside
	// those from Next on, which joined the group later; with Next 0 there are none.
	Able []partition.ReplicaID
	Next partition.ReplicaID
	// Decreed: an operator's word gave it, for the reason Why.
	Decreed bool
	Why     string
	// Lock is who holds the group's lock.
	Lock LockHolder
}

// Held reports whether somebody holds the number.
func (p *Permit) Held() bool { return p.Node != "" }

// String describes the permit for messages.
func (p *Permit) String() string {
	switch {
	case !p.Held():
		return fmt.Sprintf("in-sync number %d, held by nobody", p.Number)
	case p.Decreed:
		return fmt.Sprintf("in-sync number %d, held by replica %d on %s by an operator's decree", p.Number, p.Replica, p.Node)
	}
	return fmt.Sprintf("in-sync number %d, held by replica %d on %s", p.Number, p.Replica, p.Node)
}

// PermitRequest asks that a replica of this node, which is master, may go on
// alone.
type PermitRequest struct {
	Group   partition.GroupID
	Replica partition.ReplicaID
	// Lock is the number by which the replica is master. Seq numbers the requests
	// of that mastership, from 1; the same request again has the same Seq.
	Lock, Seq uint64
	// Able are the replicas that may be master while the number is held, the
	// replica among them, at most partition.MaxMembers; empty means itself only.
	Able []partition.ReplicaID
	// Next is Membership.Next of the newest configuration in the replica's log:
	// replicas from this id on join by a record behind the one that takes effect
	// alone, so they may be master as well. 0: none may.
	Next partition.ReplicaID
}

// DecreeRequest is an operator's word that a replica goes on without the others.
type DecreeRequest struct {
	Group partition.GroupID
	// From is the group's in-sync number as the operator's plan saw it.
	From    uint64
	Replica partition.ReplicaID
	Node    partition.NodeID // where the replica lives
	Able    []partition.ReplicaID
	Next    partition.ReplicaID // as in PermitRequest
	Why     string              // at most MaxWhyBytes
}

// Permit asks that a replica of this node may go on alone. With a nil error it
// may, under the number of the answer, and nobody ever had or has that number
// but for this request, of which a repetition gets the same answer.
// CodeNewerEpoch: a newer lock was handed out, or the request is an old one, so
// it will never be granted. CodeRefused: another replica holds the number.
func (c *Control) Permit(ctx context.Context, r PermitRequest) (Permit, error) {
	return c.askPermit(ctx, &permitBody{
		Act: actPermit, Group: r.Group, Holder: c.cfg.Node, Replica: r.Replica, Able: r.Able, Next: r.Next, Lock: r.Lock, Seq: r.Seq,
	})
}

// Decree gives a group's next in-sync number to a replica by an operator's
// word, whoever holds the present one: that one is taken to be gone for good. It
// is safe only if that is true. The same decree again gets the same answer;
// CodeRefused: From is not the number any more.
func (c *Control) Decree(ctx context.Context, r DecreeRequest) (Permit, error) {
	return c.askPermit(ctx, &permitBody{
		Act: actDecree, Group: r.Group, From: r.From, Holder: r.Node, Replica: r.Replica, Able: r.Able, Next: r.Next, Why: r.Why,
	})
}

// Extend lets further replicas be master while number from is held: those that
// have the configuration in force alone on their disks by the word of the
// master, which is the given replica of this node. It may be repeated.
func (c *Control) Extend(ctx context.Context, g partition.GroupID, from uint64, master partition.ReplicaID, able []partition.ReplicaID) (Permit, error) {
	return c.askPermit(ctx, &permitBody{
		Act: actExtend, Group: g, From: from, Holder: c.cfg.Node, Replica: master, Able: able,
	})
}

// Pass lets the given replicas be master while number from is held, as members
// of a committed configuration in which nobody who was left behind is one any
// more. The number stays held: a removed replica that comes back knows nothing of
// its removal, and would go on with others like it. It may be repeated, and an old
// one takes nothing back.
func (c *Control) Pass(ctx context.Context, g partition.GroupID, from uint64, able []partition.ReplicaID) (Permit, error) {
	return c.askPermit(ctx, &permitBody{Act: actPass, Group: g, From: from, Able: able})
}

// Release ends the holding of number from: the next one is held by nobody, and
// every replica may be master again. Only who knows that all who were left behind
// count again by a committed configuration may ask for it, or that the one alone
// was never written. The same request again gets the same answer; CodeRefused: the number
// is another one, so there is nothing to release.
func (c *Control) Release(ctx context.Context, g partition.GroupID, from uint64) (Permit, error) {
	return c.askPermit(ctx, &permitBody{Act: actRelease, Group: g, From: from})
}

func (c *Control) askPermit(ctx context.Context, b *permitBody) (Permit, error) {
	b.Able = slices.Clone(b.Able)
	if len(b.Able) == 0 && b.Act != actRelease && b.Act != actPass {
		b.Able = []partition.ReplicaID{b.Replica}
	}
	slices.Sort(b.Able)
	b.Able = slices.Compact(b.Able)
	a, err := askFor[permitAnswer](ctx, c, kindAskPermit, b, kindPermitAnswer)
	if err != nil {
		return Permit{}, err
	}
	all, err := a.permits([]partition.GroupID{b.Group})
	if err != nil {
		return Permit{}, err
	}
	return all[0], nil
}

// Permits returns the in-sync numbers of groups as the leader has them, in
// order.
func (c *Control) Permits(ctx context.Context, groups []partition.GroupID) ([]Permit, error) {
	all := make([]Permit, 0, len(groups))
	for some := range slices.Chunk(groups, maxAskPermits) {
		a, err := askFor[permitAnswer](ctx, c, kindAskPermits, &askPermits{Groups: some}, kindPermitAnswer)
		if err != nil {
			return nil, err
		}
		part, err := a.permits(some)
		if err != nil {
			return nil, err
		}
		all = append(all, part...)
	}
	return all, nil
}

// permits is the answer for readers.
func (a *permitAnswer) permits(groups []partition.GroupID) ([]Permit, error) {
	if len(a.Permits) != len(groups) || len(a.Locks) != len(groups) {
		return nil, partition.Errorf(partition.CodeUnknown, "%d in-sync numbers and %d locks for %d groups", len(a.Permits), len(a.Locks), len(groups))
	}
	all := make([]Permit, len(groups))
	for i, p := range a.Permits {
		all[i] = Permit{
			Group: p.Group, Number: p.Number, Node: p.Holder, Replica: p.Replica, Able: p.Able, Next: p.Next,
			Decreed: p.Decreed, Why: p.Why, Lock: LockHolder(a.Locks[i]),
		}
	}
	return all, nil
}

// servePermits answers the leader's part of Permits. What it says was true at
// some moment while the question was under way, or before a newer leader was.
func (s *seat) servePermits(ask *askPermits) (*permitAnswer, *partition.Error) {
	if len(ask.Groups) > maxAskPermits {
		return nil, partition.Errorf(partition.CodeTooLarge, "a question for %d in-sync numbers, limit %d", len(ask.Groups), maxAskPermits)
	}
	var a *permitAnswer
	s.fsm.look(func(st *state) { a = st.permitAnswer(ask.Groups) })
	return a, nil
}
