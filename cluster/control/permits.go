package control

import (
	"context"
	"fmt"
	"slices"

	"pando.dev/pando/partition"
)

// A group whose policy wants every member in sync cannot commit when one of
// them is gone. To go on alone it needs a permit, and here, unlike with locks,
// the control group's word is safety: two members that both went on alone would
// fork the group. So each group has an in-sync number, which moves by one, and
// at most one holder per number:
//
//	n, nobody    --Permit(from n) by a member-->   n+1, held by that member
//	n+1, held    --Release(from n+1)---------->    n+2, nobody
//	n, any       --Decree(from n)------------->    n+1, held by whom the operator chose
//
// Every move names the number it starts from, so each is made at most once
// however often it is asked for, and one that arrives late does nothing. While
// the number is held, the lock is refused to every replica that the holder has
// not named, because only those have what was committed alone.

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
	decreed bool                  // by an operator's word
	why     string
}

func (p *permit) held() bool { return p.holder != "" }

// item is the form that is sent and kept.
func (p *permit) item(g partition.GroupID) permitItem {
	return permitItem{
		Group: g, Number: p.number, Holder: p.holder, Replica: p.replica,
		Able: p.able, Decreed: p.decreed, Why: p.why,
	}
}

// permitOf reads a permit from untrusted bytes.
func permitOf(i *permitItem) (permit, *partition.Error) {
	p := permit{number: i.Number, holder: i.Holder, replica: i.Replica, able: i.Able, decreed: i.Decreed, why: i.Why}
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
	if _, ok := s.catalog.Group(b.Group); !ok {
		return nil, partition.Errorf(partition.CodeNotFound, "the catalog has no group %s", b.Group)
	}
	was := s.permits[b.Group]
	next, err := s.moved(b, was)
	if err != nil {
		return nil, err
	}
	if next.number != was.number {
		s.permits[b.Group] = next
		s.freeLock(b.Group, next)
	}
	return s.permitAnswer([]partition.GroupID{b.Group}), nil
}

// moved is the permit after what is asked. A move that was made already, by the
// same request, is the same answer again.
func (s *state) moved(b *permitBody, was permit) (permit, *partition.Error) {
	if b.From >= MaxLockNumber {
		return was, partition.Errorf(partition.CodeInvalid, "in-sync number %d of %s, limit %d", b.From, b.Group, uint64(MaxLockNumber))
	}
	if b.Act == actRelease {
		return was.released(b)
	}
	if b.Act != actPermit && b.Act != actDecree {
		return was, partition.Errorf(partition.CodeInvalid, "unknown act %d about the in-sync number of %s", b.Act, b.Group)
	}
	if err := b.validate(); err != nil {
		return was, err
	}
	next := permit{
		number: b.From + 1, holder: b.Holder, replica: b.Replica, able: b.Able,
		decreed: b.Act == actDecree, why: b.Why,
	}
	if was.same(&next) {
		return was, nil
	}
	if was.number != b.From || was.held() && b.Act != actDecree {
		return was, refusedPermit(b.Group, b.From, &was)
	}
	if l := s.locks[b.Group].holder; b.Act == actPermit && b.Lock != 0 && l != (LockHolder{Node: b.Holder, Replica: b.Replica, Number: b.Lock}) {
		return was, &partition.Error{
			Code: partition.CodeRefused,
			Why:  fmt.Sprintf("replica %d of %s wants to go on alone by lock number %d, but the lock is held by %s", b.Replica, b.Group, b.Lock, l),
			Next: "it has to become master anew first",
		}
	}
	return next, nil
}

func (b *permitBody) validate() *partition.Error {
	switch {
	case b.Holder == "" || len(b.Holder) > partition.MaxNodeIDBytes || b.Replica == 0:
		return partition.Errorf(partition.CodeInvalid, "replica %d on node %q wants the in-sync number of %s", b.Replica, b.Holder, b.Group)
	case b.Act == actPermit && b.Holder != b.Node:
		return partition.Errorf(partition.CodeUnauthorized, "node %s wants the in-sync number of %s for node %s", b.Node, b.Group, b.Holder)
	case len(b.Why) > MaxWhyBytes:
		return partition.Errorf(partition.CodeTooLarge, "a reason of %d bytes, limit %d", len(b.Why), MaxWhyBytes)
	}
	return checkAble(b.Replica, b.Able)
}

// same reports whether the move to next has been made: by the same holder, with
// the same others, in the same way.
func (p *permit) same(next *permit) bool {
	return p.number == next.number && p.holder == next.holder && p.replica == next.replica &&
		p.decreed == next.decreed && slices.Equal(p.able, next.able)
}

func (p *permit) released(b *permitBody) (permit, *partition.Error) {
	switch {
	case !p.held() && p.number == b.From+1 && b.From > 0:
		return *p, nil
	case !p.held() || p.number != b.From:
		return *p, refusedPermit(b.Group, b.From, p)
	}
	return permit{number: p.number + 1}, nil
}

// freeLock takes the lock from a holder that may not be master any more.
func (s *state) freeLock(g partition.GroupID, p permit) {
	l, ok := s.locks[g]
	if ok && p.held() && !slices.Contains(p.able, l.holder.Replica) {
		s.locks[g] = lock{last: l.last}
	}
}

// mayLock refuses the lock to a replica that may lack what another committed
// alone.
func (s *state) mayLock(g partition.GroupID, r partition.ReplicaID) *partition.Error {
	p := s.permits[g]
	if !p.held() || slices.Contains(p.able, r) {
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

func refusedPermit(g partition.GroupID, from uint64, is *permit) *partition.Error {
	e := &partition.Error{Code: partition.CodeRefused}
	switch {
	case is.held():
		e.Why = fmt.Sprintf("the in-sync number of %s is %d and held by replica %d on %s; asked was for the step from %d", g, is.number, is.replica, is.holder, from)
		e.Next = fmt.Sprintf("only that replica goes on alone; bring node %s back, or if it is gone for good: pando recover plan %s", is.holder, g)
	default:
		e.Why = fmt.Sprintf("the in-sync number of %s is %d and nobody holds it; asked was for the step from %d", g, is.number, from)
		e.Next = "whoever asks has not heard of the last step; it has to catch up first"
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
	// Able are the replicas that may be master while the number is held.
	Able []partition.ReplicaID
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

// PermitRequest asks for a group's next in-sync number.
type PermitRequest struct {
	Group partition.GroupID
	// From is the number that the replica knows to be the last: 0 in a group in
	// which nobody ever went on alone. It must come from the group's log; one
	// that was asked for would make an old master as good as the present one.
	From    uint64
	Replica partition.ReplicaID // that is to hold the next one
	Node    partition.NodeID    // where it lives; with Permit empty or this node
	// Lock, if not 0, is the number by which the replica is master: the request
	// is refused if it does not hold the lock by this number any more.
	Lock uint64
	// Able are the replicas that may be master while the number is held, the
	// holder among them, at most partition.MaxMembers.
	Able []partition.ReplicaID
	// Why is the operator's reason, at most MaxWhyBytes; with Decree only.
	Why string
}

// Permit asks that a replica of this node may go on alone. With a nil error the
// replica holds number From+1, and nobody else ever holds that number. The same
// request again gets the same answer. CodeRefused: another holds it, or From is
// not the last number; the error says which.
func (c *Control) Permit(ctx context.Context, r PermitRequest) (Permit, error) {
	if r.Node == "" {
		r.Node = c.cfg.Node
	}
	r.Why = ""
	return c.askPermit(ctx, actPermit, r)
}

// Decree gives a group's next in-sync number to a replica by an operator's
// word, whoever holds the present one: that one is taken to be gone for good. It
// is safe only if that is true. The same decree again gets the same answer.
func (c *Control) Decree(ctx context.Context, r PermitRequest) (Permit, error) {
	r.Lock = 0
	return c.askPermit(ctx, actDecree, r)
}

// Release ends the holding of number from: the next one is held by nobody, and
// every replica may be master again. Only who knows that a configuration with
// all members is committed, on the disks of all of them, may ask for it. The
// same request again gets the same answer.
func (c *Control) Release(ctx context.Context, g partition.GroupID, from uint64) (Permit, error) {
	return c.askPermit(ctx, actRelease, PermitRequest{Group: g, From: from})
}

func (c *Control) askPermit(ctx context.Context, act uint8, r PermitRequest) (Permit, error) {
	able := slices.Clone(r.Able)
	slices.Sort(able)
	a, err := askFor[permitAnswer](ctx, c, kindAskPermit, &permitBody{
		Act: act, Group: r.Group, From: r.From, Holder: r.Node, Replica: r.Replica, Lock: r.Lock,
		Able: slices.Compact(able), Why: r.Why,
	}, kindPermitAnswer)
	if err != nil {
		return Permit{}, err
	}
	all, err := a.permits([]partition.GroupID{r.Group})
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
			Group: p.Group, Number: p.Number, Node: p.Holder, Replica: p.Replica, Able: p.Able,
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
