package replica

import (
	"strings"
	"testing"
	"time"

	"pando.dev/pando/internal/planted"
	"pando.dev/pando/partition"
)

// memberRecord continues a chain with a configuration.
func memberRecord(prev partition.Position, sum uint32, epoch partition.Epoch, m *partition.Membership) partition.Record {
	payload, err := m.AppendBinary(nil)
	if err != nil {
		panic(err)
	}
	return partition.NewRecord(partition.Header{Group: 7, Index: prev.Index + 1, Epoch: epoch, Prev: sum, Kind: partition.KindMember}, payload)
}

func next(l *lone, edit func(*partition.Membership)) *partition.Membership {
	m := l.r.log.newest().Membership.Successor()
	edit(m)
	return m
}

// ready is a master of which 2 and 3 have everything.
func readyMaster(t *testing.T, change ...func(*Config, *Restored)) *lone {
	l := elected(t, change...)
	for _, id := range []partition.ReplicaID{2, 3} {
		l.from(id, &AppendAck{Epoch: e31, Match: 2, Commit: 2, State: true})
	}
	return l
}

// MEM-4, MEM-5, INE-6: what a master refuses, why, and what the caller can do.
func TestConfigureRefuses(t *testing.T) {
	same := func(*partition.Membership) {}
	learn := func(m *partition.Membership) {
		m.Add(partition.Member{Node: "n4", Zone: "z", Kind: partition.Learner, Eligible: true})
	}
	l, _ := followed(t)
	l.ok(Configure{ID: 1, Membership: next(l, same)})
	l.wantReplies("1:not_master")
	l = candidate(t)
	l.from(2, &GatherAnswer{Epoch: e31, End: partition.Position{Index: 1}})
	l.ok(Configure{ID: 2, Membership: next(l, same)}) // no record of its epoch is committed
	l.wantReplies("2:unavailable")

	l = readyMaster(t)
	for _, c := range []struct {
		name string
		m    *partition.Membership
		code string
		why  string
	}{
		{"nothing", nil, "invalid", "to nothing"},
		{"the same version", next(l, func(m *partition.Membership) { m.Version-- }), "refused", "does not follow"},
		{"a new voter at once", next(l, func(m *partition.Membership) {
			m.Add(partition.Member{Node: "n4", Kind: partition.Full})
		}), "invalid", "begin as learner"},
		{"alone", next(l, func(m *partition.Membership) { m.Alone, m.Permit = 1, 1 }), "invalid", "permits"},
	} {
		l.ok(Configure{ID: 3, Membership: c.m})
		r := workOf[*Reply](l)
		if len(r) != 1 || r[0].Err == nil || r[0].Err.Code.String() != c.code || !strings.Contains(r[0].Err.Error(), c.why) {
			t.Errorf("%s: %+v", c.name, r)
		}
	}
	// Two members are silent: alone nothing could be committed.
	l.down["n2"], l.down["n3"] = true, true
	l.ok(Configure{ID: 4, Membership: next(l, learn)})
	if r := workOf[*Reply](l); len(r) != 1 || r[0].Err.Code != partition.CodeRefused || !strings.Contains(r[0].Err.Why, "n2 in zone z2, replica 3") {
		t.Errorf("too few answer: %+v", r)
	}
	l.ok(Configure{ID: 5, Membership: next(l, learn), Force: true})
	l.wantReplies("")
	l.ok(Configure{ID: 6, Membership: next(l, same)})
	if r := workOf[*Reply](l); len(r) != 1 || r[0].Err.Code != partition.CodeBusy || !strings.Contains(r[0].Err.Why, "version 2 is not decided") {
		t.Errorf("a second one: %+v", r)
	}
	l.down = map[partition.NodeID]bool{}
	l.synced()
	l.from(2, &AppendAck{Epoch: e31, Match: 3, State: true})
	l.apply()
	l.wantReplies("5:3")
	testPromotion(t, l)

	l = readyMaster(t, func(c *Config, _ *Restored) { c.MaxPending = 1 })
	l.ok(Propose{[]Proposal{command(1)}})
	l.ok(Configure{ID: 2, Membership: next(l, learn)})
	l.wantReplies("2:busy")
}

// testPromotion lets the learner 4 count: when it is not there, far behind, without
// a state, away, and at last ready.
func testPromotion(t *testing.T, l *lone) {
	full := func(m *partition.Membership) { m.At(4).Kind = partition.Full }
	refused := func(id uint64, why string) {
		t.Helper()
		l.ok(Configure{ID: id, Membership: next(l, full)})
		if r := workOf[*Reply](l); len(r) != 1 || r[0].Err == nil || r[0].Err.Code != partition.CodeBusy || !strings.Contains(r[0].Err.Why, why) {
			t.Errorf("%d: %+v", id, r)
		}
	}
	refused(7, "not caught up")
	l.from(4, &AppendAck{Epoch: e31, Match: 1, Want: 2})
	refused(8, "not caught up")
	l.from(4, &AppendAck{Epoch: e31, Match: 3})
	refused(9, "does not have the state")
	l.down["n4"] = true
	refused(10, "not caught up")
	l.down["n4"] = false
	l.from(4, &AppendAck{Epoch: e31, Match: 3, State: true})
	l.ok(Propose{[]Proposal{command(11)}})
	l.ok(Configure{ID: 12, Membership: next(l, full)})
	l.wantReplies("")
	if len(l.r.active) != 2 {
		t.Error("it is not joint")
	}
	// What is in the log when the mastership ends is not known to be refused.
	l.from(2, &AppendAck{Epoch: e42})
	l.wantReplies("11:outcome_unknown 12:outcome_unknown")
}

// A change that only says who is eligible is a Mode record.
func TestModeRecord(t *testing.T) {
	for kind, edit := range map[partition.Kind]func(*partition.Membership){
		partition.KindMode:   func(m *partition.Membership) { m.At(3).Eligible = false },
		partition.KindMember: func(m *partition.Membership) { m.At(3).Eligible, m.At(2).Zone = false, "other" }, // LOC-8
	} {
		l := readyMaster(t)
		l.ok(Configure{ID: 1, Membership: next(l, edit)})
		if p := workOf[*Persist](l); len(p) != 1 || p[0].Records[0].Kind() != kind {
			t.Errorf("%s: %+v", kind, p)
		}
	}
}

// SMF-9, MEM-3: that a configuration is committed is acknowledged when it is on
// disk, so that what it makes superfluous may be deleted.
func TestCommittedOnDisk(t *testing.T) {
	l, recs := followed(t)
	end := recs[2]
	m := members(3)
	m.Version = 2
	x := memberRecord(end.Position(), end.Checksum(), e22, m)
	l.from(2, &Append{Epoch: e22, Prev: end.Position(), PrevSum: end.Checksum(), Records: []partition.Record{x}, Commit: 4})
	l.synced()
	l.wantSent("ack epoch 2.2 match 5 commit 4")
	l.from(2, &Append{Epoch: e22, Prev: x.Position(), PrevSum: x.Checksum(), Commit: 5})
	l.wantSent("")
	if p := workOf[*Persist](l); len(p) != 1 || !p[0].Sync || p[0].Commit != 5 {
		t.Errorf("persist %+v", p)
	}
	l.from(3, &Probe{})
	if a := workOf[*Send](l)[0].Message.(*ProbeAnswer); a.Settled != 0 || a.Commit.Index != 5 {
		t.Errorf("before the disk: %+v", a)
	}
	l.synced()
	l.wantSent("ack epoch 2.2 match 5 commit 5")
	l.from(3, &Probe{})
	if a := workOf[*Send](l)[0].Message.(*ProbeAnswer); a.Settled != 2 || a.Without != nil {
		t.Errorf("after the disk: %+v", a)
	}
}

// MEM-3: members promise nothing to a replica that a committed configuration has
// removed, and tell it so; one that is not yet a member is not told.
func TestGatherOfRemoved(t *testing.T) {
	for _, mut := range []planted.Bug{0, planted.PromiseRemoved} {
		l, recs := followed(t)
		l.r.cfg.Planted = planted.Of(mut)
		m := members(3)
		m.Version, m.Next = 2, 9
		x := memberRecord(recs[2].Position(), recs[2].Checksum(), e22, m)
		l.from(2, &Append{Epoch: e22, Prev: recs[2].Position(), PrevSum: recs[2].Checksum(), Records: []partition.Record{x}, Commit: 5})
		l.synced()
		l.ok(received(8, &Gather{Epoch: partition.NewEpoch(5, 8)}))
		sent := workOf[*Send](l)
		told := len(sent) == 1
		if told {
			a, ok := sent[0].Message.(*ProbeAnswer)
			told = ok && a.Without != nil && a.Without.Version == 2
		}
		if told != (mut == 0) || (l.r.promised == e22) != (mut == 0) {
			t.Errorf("mutant %q: told %v, promised %s", mut, told, l.r.promised)
		}
		l.from(9, &Probe{})
		if a := workOf[*Send](l)[0].Message.(*ProbeAnswer); a.Without != nil {
			t.Errorf("who may come yet is told %+v", a)
		}
	}
}

// SMF-9, MEM-3: a replica stops by the word of a member that knows it to be
// removed, and retires when a durable set says so from its disks.
func TestRemovedByWord(t *testing.T) {
	without := members(3)
	without.Version, without.Members, without.Next = 5, without.Members[1:], 5
	word := &ProbeAnswer{Promised: e22, Settled: 5, Without: without}
	started := map[string]func(t *testing.T) *lone{
		"a peer":      func(t *testing.T) *lone { l, _ := followed(t); return l },
		"a candidate": func(t *testing.T) *lone { return candidate(t) },
		"a master":    func(t *testing.T) *lone { return elected(t) },
	}
	for name, start := range started {
		l := start(t)
		l.from(2, word)
		if !l.r.Status().Removed || l.r.phase != following || len(workOf[*Retire](l)) != 0 {
			t.Errorf("%s: %s", name, l.r.Status())
		}
		l.from(3, &ProbeAnswer{Promised: e22, Settled: 4}) // it knows of an earlier one only
		l.from(2, word)                                    // twice is once
		if len(workOf[*Retire](l)) != 0 {
			t.Errorf("%s retires by one of two", name)
		}
		l.tick(time.Minute)
		if got := strings.Join(l.sent(), "; "); !strings.Contains(got, "probe epoch") || len(workOf[*AcquireLock](l)) != 0 {
			t.Errorf("%s asks %q", name, got)
		}
		l.ok(NodeUp{"n3"})
		l.from(3, &ProbeAnswer{Promised: e22, Settled: 6})
		if len(workOf[*Retire](l)) != 1 {
			t.Errorf("%s does not retire", name)
		}
		l.from(3, &ProbeAnswer{Promised: e22, Settled: 6})
		l.tick(time.Minute)
		if len(workOf[*Retire](l)) != 0 || len(l.sent()) != 0 {
			t.Errorf("%s goes on: %v", name, l.sent())
		}
	}
	// A configuration that it was never part of says nothing; one after counts anew.
	l, _ := followed(t)
	early := *without
	early.Members, early.Next = nil, 1
	l.from(2, &ProbeAnswer{Promised: e22, Settled: 5, Without: &early})
	if l.r.Status().Removed {
		t.Error("removed by one in which it is not a member yet")
	}
	l.from(2, word)
	later := *without
	later.Version = 7
	l.from(3, &ProbeAnswer{Promised: e22, Settled: 7, Without: &later})
	if len(workOf[*Retire](l)) != 0 || l.r.removal.without.Version != 7 {
		t.Error("what was said of an older configuration counts for a later one")
	}
}

// A log replica, or a learner that will be one: what it says, and what it never
// does (CAT-3).
func TestLogOnly(t *testing.T) {
	l, _ := followed(t, func(c *Config, _ *Restored) { c.LogOnly = true })
	l.ok(NodeDown{"n2"})
	l.tick(time.Second)
	for range 5 {
		l.from(3, &ProbeAnswer{})
		l.tick(time.Second)
	}
	if len(workOf[*AcquireLock](l)) != 0 || l.r.phase >= locking {
		t.Errorf("it wants to be master: %s", l.r.Status())
	}
	if s := l.r.Status(); s.Everywhere != 0 {
		t.Errorf("status %+v", s)
	}
	l.apply()
	if err := l.step(Truncated{First: 2}); partition.CodeOf(err) != partition.CodeInvalid {
		t.Errorf("it lets go of what others may lack: %v", err)
	}
	e := l.r.log.end()
	l.from(2, &Append{Epoch: e22, Prev: e, Commit: 4, Everywhere: 3})
	l.apply()
	l.ok(Truncated{First: 4})
	if err := l.step(Truncated{First: 5}); partition.CodeOf(err) != partition.CodeInvalid {
		t.Errorf("and more: %v", err)
	}
}

// After a restart its log may still be let go of as far as it was told before.
func TestLogOnlyRestarts(t *testing.T) {
	l := newLone(t, func(c *Config, r *Restored) {
		c.LogOnly = true
		r.Restarted, r.Commit, r.Spared = true, r.Last, r.Last
	})
	l.apply()
	l.ok(Truncated{First: l.r.log.last + 1})
	if l.r.log.first != l.r.log.last+1 {
		t.Errorf("the log begins at %d", l.r.log.first)
	}
}

// What begins with a copy has no records at first; a state that ends before the
// log begins is damage, but not for a replica that keeps none.
func TestBeginsAtBase(t *testing.T) {
	base := partition.Position{Epoch: e12, Index: 40}
	begin := func(logOnly bool, applied partition.Index) (*Replica, error) {
		l := &lone{t: t, down: map[partition.NodeID]bool{}}
		cfg := loneConfig(l)
		cfg.LogOnly = logOnly
		return New(cfg, Restored{
			Promised: base.Epoch, Commit: 40, Applied: applied, First: 41, Last: 40, BeforeFirst: base, LastSum: 7,
			Configurations: []ConfigurationAt{{30, members(3)}},
		})
	}
	for _, c := range []struct {
		logOnly bool
		applied partition.Index
		ok      bool
	}{{false, 40, true}, {false, 39, false}, {true, 0, true}} {
		r, err := begin(c.logOnly, c.applied)
		if (err == nil) != c.ok {
			t.Errorf("%+v: %v", c, err)
		}
		if err == nil && (r.Status().Last != base || r.Status().Commit != 40 || r.Status().Applied != 40) {
			t.Errorf("%+v: %s", c, r.Status())
		}
	}
}

// Status of a master names what it knows of every member.
func TestStatusOfPeers(t *testing.T) {
	l := readyMaster(t)
	l.down["n3"] = true
	l.ok(NodeDown{"n3"})
	s := l.r.Status()
	want := []PeerStatus{
		{Replica: 2, Node: "n2", Match: 2, CaughtUp: true, State: true},
		{Replica: 3, Node: "n3", Match: 2, State: true, Down: true},
	}
	if len(s.Peers) != 2 || s.Peers[0] != want[0] || s.Peers[1] != want[1] || s.Version != 1 || s.InFlight || s.Everywhere != 2 {
		t.Errorf("%+v", s)
	}
}

// CAT-9, CAT-3: a log replica counts, but is not waited for before others let go of
// the log. So it must have caught up before it is full.
func TestLogReplicaBehindIsNotFull(t *testing.T) {
	for _, mut := range []planted.Bug{0, planted.FullUnready} {
		l := newLone(t, func(_ *Config, r *Restored) {
			m := members(5)
			m.Members[3].Kind, m.Members[4].Kind = partition.LogReplica, partition.LogReplica
			*r = loneRestored(m)
		})
		l.leads(2, 3)
		for _, id := range []partition.ReplicaID{2, 3} {
			l.from(id, &AppendAck{Epoch: e31, Match: 2, Commit: 2, State: true})
		}
		l.apply()
		l.r.cfg.Planted = planted.Of(mut)
		l.from(4, &AppendAck{Epoch: e31, Match: 1, State: true})
		full := next(l, func(m *partition.Membership) { m.At(4).Kind = partition.Full })
		l.ok(Configure{ID: 1, Membership: full})
		if refused := len(workOf[*Reply](l)) == 1; refused != (mut == 0) {
			t.Errorf("mutant %q: refused %v, everywhere is %d", mut, refused, l.r.everywhere)
		}
		l.from(4, &AppendAck{Epoch: e31, Match: 2, State: true})
		if mut == 0 {
			l.ok(Configure{ID: 2, Membership: full})
			l.wantReplies("")
		}
	}
}

// leads makes a lone replica master of epoch 3.1 by the support of others, its first
// records on disk.
func (l *lone) leads(by ...partition.ReplicaID) {
	l.t.Helper()
	if l.r.phase == following {
		l.tick(time.Second)
	}
	for _, id := range by {
		l.from(id, &ProbeAnswer{End: partition.Position{Index: 1}})
	}
	if l.r.phase == probing {
		l.tick(l.r.cfg.AnswerWait)
	}
	l.ok(Locked{Number: 3})
	l.synced()
	for _, id := range by {
		l.from(id, &GatherAnswer{Epoch: e31, End: partition.Position{Index: 1}})
	}
	l.synced()
	if l.r.phase != leveling {
		l.t.Fatalf("it does not lead: %s", l.r.Status())
	}
}

// decreedOf is a master by a decree that keeps 2 as a member that was left behind. Of
// its voters 1, 3 and 4 the first two have its record, so that this is committed.
func decreedOf(t *testing.T) *lone {
	l := newLone(t, func(_ *Config, r *Restored) { *r = loneRestored(members(4)) })
	l.down["n2"] = true
	l.ok(Recover{ID: 1, Membership: next(l, func(m *partition.Membership) {
		m.Alone, m.Permit = 5, 5
		m.At(2).Eligible = false
	})})
	l.leads(3, 4)
	l.from(3, &AppendAck{Epoch: e31, Match: 3, Commit: 2, State: true})
	l.from(3, &AppendAck{Epoch: e31, Match: 3, Commit: 3, State: true})
	l.apply()
	if l.r.phase != serving || l.r.commit != 3 {
		t.Fatal(l.r.Status())
	}
	return l
}

// Who was left behind counts again only with the record that left it behind on its
// disk. If it were lost there, it could lead by the configuration before, with others
// like it, as soon as its return has freed the permit.
func TestBackWithoutTheDecree(t *testing.T) {
	for _, mut := range []planted.Bug{0, planted.BackUnknowing} {
		l := decreedOf(t)
		l.r.cfg.Planted = planted.Of(mut)
		l.down = map[partition.NodeID]bool{}
		l.ok(NodeUp{"n2"})
		l.from(2, &AppendAck{Epoch: e31, Match: 2, State: true})
		back := next(l, func(m *partition.Membership) { m.At(2).Eligible = true })
		l.ok(Configure{ID: 7, Membership: back})
		if refused := len(workOf[*Reply](l)) == 1; refused != (mut == 0) {
			t.Errorf("mutant %q: refused %v, %s", mut, refused, l.r.Status())
		}
	}
}

// CAT-3: a full voter that is about to be removed holds log replicas up until that is
// committed; before, it may come to nothing.
func TestEverywhereOfWhoLeaves(t *testing.T) {
	l := readyMaster(t)
	l.ok(Propose{[]Proposal{command(1)}})
	l.synced()
	l.from(2, &AppendAck{Epoch: e31, Match: 3, Commit: 3, State: true})
	l.ok(Configure{ID: 2, Membership: next(l, func(m *partition.Membership) { m.Remove(3) })})
	l.synced()
	if l.r.commit != 3 || l.r.log.last != 4 || l.r.everywhere != 2 {
		t.Errorf("everywhere is %d: %s", l.r.everywhere, l.r.Status())
	}
	l.from(2, &AppendAck{Epoch: e31, Match: 4, Commit: 3, State: true})
	if l.r.commit != 4 || l.r.everywhere != 4 {
		t.Errorf("afterwards %d: %s", l.r.everywhere, l.r.Status())
	}
}

// What a member must have to count again: the first record of the mastership, and what
// log replicas may have let go of, on its disk and not only on the way.
func TestCaughtUp(t *testing.T) {
	back := func(l *lone, match partition.Index) bool {
		l.from(3, &AppendAck{Epoch: e31, Match: match, State: true})
		l.ok(Configure{ID: uint64(10 + match), Membership: next(l, func(m *partition.Membership) { m.At(3).Eligible = true })})
		return len(workOf[*Reply](l)) == 0
	}
	begin := func(n int) *lone {
		l := newLone(t, func(_ *Config, r *Restored) {
			m := members(n)
			m.Members[2].Eligible = false
			*r = loneRestored(m)
		})
		l.leads(2, 3)
		l.from(2, &AppendAck{Epoch: e31, Match: 2, State: true})
		l.apply()
		return l
	}
	if l := begin(4); l.r.everywhere != 0 || back(l, 1) || !back(l, 2) { // 4 has said nothing
		t.Errorf("first is %d, everywhere %d", l.r.mastery.first, l.r.everywhere)
	}
	l := begin(3)
	l.ok(Propose{[]Proposal{command(1), command(2)}})
	l.synced()
	l.from(2, &AppendAck{Epoch: e31, Match: 4, State: true})
	if l.r.everywhere != 4 || back(l, 2) || back(l, 3) || !back(l, 4) {
		t.Errorf("everywhere is %d", l.r.everywhere)
	}
}

// A late message of an earlier incarnation does not take the newer one's grants.
func TestLateBoot(t *testing.T) {
	l := elected(t)
	for _, boot := range []uint64{5, 4, 0} {
		l.ok(Received{From: 2, Boot: boot, Message: &AppendAck{Epoch: e31, Match: 2, Commit: 2}})
		if s := l.r.view.Supporters; len(s) != 2 || s[1].Boot != 5 {
			t.Errorf("supporters %+v after boot %d", s, boot)
		}
	}
}

// A replica without a state is no candidate, whatever the configuration says of it.
func TestLogOnlyIsNoCandidate(t *testing.T) {
	l := newLone(t, func(c *Config, _ *Restored) { c.LogOnly = true })
	if l.r.electable() {
		t.Error("it may be master")
	}
}
