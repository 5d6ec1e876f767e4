package control

import (
	"cmp"
	"fmt"
	"slices"

	"pando.dev/pando/partition"
)

// state is what the control group agrees on. It changes only by commands of the
// replicated log, one at a time, and the same commands give the same state on
// every seat: no clock, no chance, no map order. It is pure; the fsm around it
// owns it.
type state struct {
	catalog *Catalog
	// nextGroup and nextTable only grow, so ids are never reused.
	nextGroup partition.GroupID
	nextTable uint64
	nextTask  TaskID
	// locks has an entry for each group of the catalog that was ever locked.
	locks    map[partition.GroupID]lock
	sessions map[partition.NodeID]session
	// permits has an entry for each group of the catalog in which a replica ever
	// went on alone.
	permits map[partition.GroupID]permit
	// tokens are the last finished catalog changes, the oldest first.
	tokens []tokenItem
}

// lock is the lock of one group.
type lock struct {
	// last is the greatest number ever handed out for the group. It never
	// shrinks as long as the group exists, and group ids are never reused.
	last   uint64
	holder LockHolder // zero: nobody
	boot   uint64     // of the holder's session
}

// session is a node's claim that its process lives. Locks of a session that
// expired, or of an earlier boot, are free for others; but nobody takes them
// from a node that comes back in time.
type session struct {
	boot    uint64
	start   uint64 // of the process; 0: not known
	expired bool
}

func newState() *state {
	return &state{
		catalog: &Catalog{}, nextGroup: 1, nextTable: 1, nextTask: 1,
		locks: map[partition.GroupID]lock{}, sessions: map[partition.NodeID]session{},
		permits: map[partition.GroupID]permit{},
	}
}

// openSession notes that the node's process with this boot number and start
// lives. It refuses a stale process of the node, and more nodes than
// MaxSessions.
func (s *state) openSession(node partition.NodeID, boot, start uint64) *partition.Error {
	old, ok := s.sessions[node]
	if node == "" || len(node) > partition.MaxNodeIDBytes || boot == 0 {
		return partition.Errorf(partition.CodeInvalid, "a session of node %q with boot %d", node, boot)
	}
	if err := old.stale(node, boot, start); err != nil {
		return err
	}
	if !ok && len(s.sessions) >= MaxSessions && !s.evictSession() {
		return partition.Errorf(partition.CodeTooLarge, "%d nodes have sessions, limit %d", len(s.sessions), MaxSessions)
	}
	if boot == old.boot && start == 0 {
		start = old.start
	}
	s.sessions[node] = session{boot: boot, start: start}
	return nil
}

// stale refuses a process that was not started after the one of the session, on
// the same disk. A start counts the boot on the disk before anything else, so a
// lower boot, or the same boot by another start, means that the disk is an older
// copy of what it was: put back, or copied for a second node.
func (x *session) stale(node partition.NodeID, boot, start uint64) *partition.Error {
	same := boot == x.boot && (x.start == 0 || start == x.start || start == 0)
	if boot > x.boot || same {
		return nil
	}
	e := partition.Errorf(partition.CodeSessionExpired, "another process of node %s has run in boot %d, this one is in boot %d: it runs on an older copy of the node's data directory, or was replaced by one that was started later", node, x.boot, boot)
	e.Next = "if the disk was lost or put back from a copy, start the node in an empty directory under another id; if the directory was copied, stop all but one"
	return e
}

// expireSession records the leader's judgement that the node has been silent
// for too long.
func (s *state) expireSession(node partition.NodeID, boot uint64) {
	if x, ok := s.sessions[node]; ok && x.boot == boot {
		x.expired = true
		s.sessions[node] = x
	}
}

// evictSession forgets the expired session of the least node id, whose locks
// become free for good.
func (s *state) evictSession() bool {
	var victim partition.NodeID
	for node, x := range s.sessions {
		if x.expired && (victim == "" || node < victim) {
			victim = node
		}
	}
	delete(s.sessions, victim)
	return victim != ""
}

// held reports whether a live session holds the lock.
func (s *state) held(l lock) bool {
	x, ok := s.sessions[l.holder.Node]
	return l.holder.Number != 0 && ok && !x.expired && x.boot == l.boot
}

// applyLocks releases and then acquires. Being asked by a node is a sign of its
// life, so its session is opened on the way.
func (s *state) applyLocks(b *locksBody) (*lockAnswer, *partition.Error) {
	if len(b.Acquire) > MaxLockBatch || len(b.Release) > MaxLockBatch {
		return nil, partition.Errorf(partition.CodeTooLarge, "%d locks and %d releases in one request, limit %d", len(b.Acquire), len(b.Release), MaxLockBatch)
	}
	if err := s.openSession(b.Node, b.Boot, b.Start); err != nil {
		return nil, err
	}
	for _, r := range b.Release {
		s.release(b.Node, r)
	}
	a := &lockAnswer{Grants: make([]grantItem, len(b.Acquire))}
	for i, r := range b.Acquire {
		a.Grants[i] = s.acquire(b.Node, b.Boot, r)
	}
	return a, nil
}

func (s *state) acquire(node partition.NodeID, boot uint64, r acquireItem) grantItem {
	if !s.catalog.known(r.Group) {
		return grantItem{Error: toItem(partition.Errorf(partition.CodeNotFound, "the catalog has no group %s", r.Group))}
	}
	if r.Replica == 0 {
		return grantItem{Error: toItem(partition.Errorf(partition.CodeInvalid, "replica 0 asks for the lock of %s", r.Group))}
	}
	if err := s.mayLock(r.Group, r.Replica); err != nil {
		return grantItem{Holder: holderItem(s.locks[r.Group].holder), Error: toItem(err)}
	}
	l := s.locks[r.Group]
	number := max(l.last, r.Above) + 1
	if r.Above >= MaxLockNumber || number > MaxLockNumber {
		return grantItem{Error: toItem(partition.Errorf(partition.CodeRefused, "the lock of %s has no numbers left above %d", r.Group, max(l.last, r.Above)))}
	}
	same := l.holder.Node == node && l.holder.Replica == r.Replica
	taken := r.Failover && l.holder.Replica != r.Replica
	consents := r.Holder != 0 && l.holder.Replica == r.Holder && l.holder.Number == r.Consent
	if s.held(l) && !same && !taken && !consents {
		return grantItem{Holder: holderItem(l.holder)}
	}
	holder := LockHolder{Node: node, Replica: r.Replica, Number: number}
	s.locks[r.Group] = lock{last: number, holder: holder, boot: boot}
	return grantItem{Number: number, Holder: holderItem(holder), Permit: s.permits[r.Group].of(holder)}
}

func (s *state) release(node partition.NodeID, r releaseItem) {
	l := s.locks[r.Group]
	if r.Number != 0 && l.holder == (LockHolder{Node: node, Replica: r.Replica, Number: r.Number}) {
		s.locks[r.Group] = lock{last: l.last}
	}
}

// applySessions records which sessions ended and which began. The error is of
// the first that could not begin; the others do.
func (s *state) applySessions(b *sessionsBody) (first *partition.Error) {
	for _, x := range b.Expire {
		s.expireSession(x.Node, x.Boot)
	}
	for _, x := range b.Open {
		if err := s.openSession(x.Node, x.Boot, x.Start); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// applyCreate makes a table and its groups. A second return of true means that
// the leader prepared the command for other group ids and must prepare it again.
func (s *state) applyCreate(b *createBody) (*tableAnswer, bool, *partition.Error) {
	digest := digestOf(&b.Table)
	if done, ok, err := s.finished(b.Table.Token, digest); ok {
		return done, false, err
	}
	if err := validateTable(&b.Table); err != nil {
		return nil, false, err
	}
	if _, ok := s.catalog.Table(b.Table.Name); ok {
		return nil, false, partition.Errorf(partition.CodeExists, "there is a table %q already", b.Table.Name)
	}
	count := len(b.Table.Splits) + 1
	if len(s.catalog.tables) >= MaxTables {
		return nil, false, partition.Errorf(partition.CodeTooLarge, "the catalog has %d tables, limit %d", len(s.catalog.tables), MaxTables)
	}
	if len(s.catalog.groups)+len(s.catalog.prepared)+count > MaxGroups {
		return nil, false, partition.Errorf(partition.CodeTooLarge, "%d groups and %d more, limit %d", len(s.catalog.groups), count, MaxGroups)
	}
	if b.First != s.nextGroup {
		return nil, true, nil
	}
	version := s.catalog.Version + 1
	e := newEdit(s.catalog)
	policy := partition.Policy{Rule: b.Table.Rule, Zones: b.Table.Zones}
	e.putTable(&Table{
		ID: s.nextTable, Name: b.Table.Name, Kind: b.Table.Kind,
		Replicas: b.Table.Replicas, Policy: policy, Changed: version,
	})
	for i := range count {
		m, err := memberships(b, policy, i)
		if err != nil {
			return nil, false, err
		}
		e.putGroup(&Group{
			ID: s.nextGroup + partition.GroupID(i), Table: s.nextTable, Range: splitRange(b.Table.Splits, i),
			RangeVersion: 1, Membership: m, Changed: version,
		})
	}
	done := &tableAnswer{Table: s.nextTable, Version: version}
	s.catalog = e.apply(version)
	s.nextGroup += partition.GroupID(count)
	s.nextTable++
	s.finish(b.Table.Token, digest, done)
	return done, false, nil
}

// applyAlter changes what a table shall be. Who serves its groups brings them
// there; nothing else changes here.
func (s *state) applyAlter(b *alterBody) (*tableAnswer, *partition.Error) {
	digest := digestOfAlter(b)
	if done, ok, err := s.finished(b.Token, digest); ok {
		return done, err
	}
	t, ok := s.catalog.Table(b.Name)
	if !ok {
		return nil, partition.Errorf(partition.CodeNoSuchTable, "there is no table %.64q", b.Name)
	}
	next := b.altered(t)
	if err := checkSpec(next.Replicas, next.Policy); err != nil {
		return nil, err
	}
	done := &tableAnswer{Table: t.ID, Version: t.Changed}
	if next.Replicas != t.Replicas || next.Policy != t.Policy {
		done.Version = s.catalog.Version + 1
		next.Changed = done.Version
		e := newEdit(s.catalog)
		e.putTable(next)
		s.catalog = e.apply(done.Version)
	}
	s.finish(b.Token, digest, done)
	return done, nil
}

// applyDrop removes a table with its groups and their locks.
func (s *state) applyDrop(b *dropBody) (*tableAnswer, *partition.Error) {
	digest := partition.Checksum([]byte("drop\x00" + b.Name))
	if done, ok, err := s.finished(b.Token, digest); ok {
		return done, err
	}
	t, ok := s.catalog.Table(b.Name)
	if !ok {
		return nil, partition.Errorf(partition.CodeNoSuchTable, "there is no table %.64q", b.Name)
	}
	for _, g := range s.catalog.groups { // also one that is absorbed by another
		if g.Table != t.ID {
			continue
		}
		delete(s.locks, g.ID)
		delete(s.permits, g.ID)
	}
	version := s.catalog.Version + 1
	e := newEdit(s.catalog)
	e.dropTable(t.ID)
	s.endTasksOf(e, t.ID, fmt.Sprintf("table %s was dropped", b.Name), version)
	s.swap(e, version)
	done := &tableAnswer{Table: t.ID, Version: version}
	s.finish(b.Token, digest, done)
	return done, nil
}

// applyUpdate takes over what masters tell of their groups, where it is newer.
// The error is of the first update that made no sense; the others count.
func (s *state) applyUpdate(b *updateBody) *partition.Error {
	var first *partition.Error
	e, version := newEdit(s.catalog), s.catalog.Version+1
	for i := range b.Updates {
		g, err := s.updated(e, &b.Updates[i])
		if err != nil && first == nil {
			first = err
		}
		if g != nil {
			g.Changed = version
			e.putGroup(g)
		}
	}
	for _, t := range e.tasks {
		t.Changed = version
	}
	if len(e.groups) > 0 || len(e.tasks) > 0 {
		s.swap(e, version)
	}
	return first
}

// updated returns the group as the update tells it, or nil if that is not newer
// than what the catalog, or an earlier update of the same command, has.
func (s *state) updated(e *edit, u *groupItem) (*Group, *partition.Error) {
	old, ok := e.group(u.ID)
	t, prepared := s.catalog.prepared[u.ID]
	if !ok && !prepared {
		return nil, partition.Errorf(partition.CodeNotFound, "the catalog has no group %s", u.ID)
	}
	g, err := groupOf(u)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, s.updatedInSplit(e, t.ID, g)
	}
	if compareGroups(g, old) <= 0 {
		return nil, nil
	}
	if t, ok := s.catalog.busy[u.ID]; ok && !sameRange(g.Range, old.Range) {
		return nil, s.updatedInSplit(e, t.ID, g)
	}
	if !sameRange(g.Range, old.Range) {
		return nil, partition.Errorf(partition.CodeInvalid, "%s: range %s at range version %d, where it is %s at %d and no task changes it", u.ID, g.Range, g.RangeVersion, old.Range, old.RangeVersion)
	}
	g.Table, g.Parent = old.Table, old.Parent
	return g, nil
}

// compareGroups orders what masters tell of one group by how new it is.
func compareGroups(a, b *Group) int {
	return cmp.Or(
		cmp.Compare(a.RangeVersion, b.RangeVersion),
		cmp.Compare(a.Membership.Version, b.Membership.Version),
		cmp.Compare(a.Epoch, b.Epoch),
	)
}

// finished looks for the answer to an earlier request with the same token.
func (s *state) finished(token string, digest uint32) (*tableAnswer, bool, *partition.Error) {
	if token == "" || len(token) > MaxNameBytes {
		return nil, true, partition.Errorf(partition.CodeInvalid, "a token of %d bytes, allowed are 1 to %d", len(token), MaxNameBytes)
	}
	i := slices.IndexFunc(s.tokens, func(t tokenItem) bool { return t.Token == token })
	if i < 0 {
		return nil, false, nil
	}
	if s.tokens[i].Digest != digest {
		return nil, true, partition.Errorf(partition.CodeInvalid, "token %q was used for another request", token)
	}
	done := s.tokens[i].Result
	return &done, true, nil
}

func (s *state) finish(token string, digest uint32, done *tableAnswer) {
	if len(s.tokens) >= maxTokens {
		s.tokens = slices.Delete(s.tokens, 0, len(s.tokens)-maxTokens+1)
	}
	s.tokens = append(s.tokens, tokenItem{Token: token, Digest: digest, Result: *done})
}
