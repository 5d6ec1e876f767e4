package replica

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pando.dev/pando/internal/planted"
	"pando.dev/pando/partition"
)

func pairOf(c *Config, r *Restored) {
	m := members(2)
	m.Policy = partition.Policy{Rule: partition.AllInSync}
	c.Solo = true
	*r = loneRestored(m)
}

// forsaken is a master of a pair whose other member is gone, and that has asked to
// go on alone.
func forsaken(t *testing.T, change ...func(*Config, *Restored)) (*lone, *Permit) {
	t.Helper()
	l := newLone(t, append([]func(*Config, *Restored){pairOf}, change...)...)
	l.now = time.Second
	l.ok(Tick{})
	l.from(2, &ProbeAnswer{End: partition.Position{Index: 1}})
	l.ok(Locked{Number: 3})
	l.synced()
	l.from(2, &GatherAnswer{Epoch: e31, End: partition.Position{Index: 1}})
	l.synced()
	l.down["n2"] = true
	l.ok(NodeDown{"n2"})
	l.tick(3 * time.Second)
	w := workOf[*Permit](l)
	if len(w) != 1 || w[0].Lock != 3 {
		t.Fatalf("asks %+v: %s", w, l.r.Status())
	}
	return l, w[0]
}

// CAT-4: a permit counts only for the question it answers, and for a number that
// was never used.
func TestPermitted(t *testing.T) {
	l, p := forsaken(t)
	l.ok(Permitted{Seq: p.Seq + 1, Number: 5})
	if w := workOf[*ReleasePermit](l); len(w) != 1 || w[0].Number != 5 || l.r.log.last != 2 {
		t.Errorf("another's permit: %+v", w)
	}
	l.ok(Permitted{Seq: p.Seq, Number: 6})
	l.synced()
	c := l.r.log.newest().Membership
	if c.Alone != 6 || c.At(2).Eligible || len(l.r.active) != 1 || l.r.commit != 3 || len(workOf[*ReleasePermit](l)) != 0 {
		t.Fatalf("alone: %+v, %s", c, l.r.Status())
	}
	l.ok(Permitted{Seq: p.Seq, Number: 6}) // told twice
	if len(workOf[*ReleasePermit](l)) != 0 {
		t.Error("it gives back what it rests on")
	}
	// Too late, after the mastership: given back.
	l, p = forsaken(t)
	l.from(2, &AppendAck{Epoch: e42})
	l.ok(Permitted{Seq: p.Seq, Number: 7})
	if w := workOf[*ReleasePermit](l); len(w) != 1 || w[0].Number != 7 || l.r.log.last != 2 {
		t.Errorf("after the mastership: %+v", w)
	}
	// The other one is back.
	l, p = forsaken(t)
	l.down["n2"] = false
	l.ok(NodeUp{"n2"})
	l.ok(Permitted{Seq: p.Seq, Number: 8})
	if w := workOf[*ReleasePermit](l); len(w) != 1 || w[0].Number != 8 || len(l.r.active[0].LeftBehind) != 0 {
		t.Errorf("not needed any more: %+v", w)
	}
}

// A permit that is not needed any more ends nothing of what another one before it
// has brought: a removed member that was left behind must not be master ever.
func TestPermitNotNeededAfterAnother(t *testing.T) {
	l, p := forsaken(t, func(_ *Config, r *Restored) {
		m := r.Configurations[0].Membership
		m.Next, m.Permit, m.LeftBehind = 4, 2, []partition.ReplicaID{3}
		*r = loneRestored(m)
	})
	l.down["n2"] = false
	l.ok(NodeUp{"n2"})
	workOf[*ReleasePermit](l)
	l.ok(Permitted{Seq: p.Seq, Number: 3})
	// Of the other one it is not known here that it has the configuration on disk.
	if w := workOf[*ReleasePermit](l); len(w) != 1 || w[0].Number != 3 || !slices.Equal(w[0].Able, []partition.ReplicaID{1}) {
		t.Errorf("it gives back %+v", w)
	}
}

// Nothing is committed by the word of a configuration that is not on disk.
func TestAloneOnDiskFirst(t *testing.T) {
	for _, mut := range []planted.Bug{0, planted.AloneUnsynced} {
		l, p := forsaken(t)
		l.r.cfg.Planted = planted.Of(mut)
		l.ok(Permitted{Seq: p.Seq, Number: 6})
		if l.r.durable != 2 || (l.r.commit == 0) != (mut == 0) {
			t.Errorf("mutant %q, before its disk has it: %s", mut, l.r.Status())
		}
		l.synced()
		if l.r.commit != 3 {
			t.Errorf("afterwards: %s", l.r.Status())
		}
	}
}

func TestPermitRefused(t *testing.T) {
	l, p := forsaken(t)
	l.ok(PermitRefused{Seq: p.Seq + 9, Outdated: true})
	if !l.r.isMaster() {
		t.Error("by another's refusal")
	}
	l.ok(PermitRefused{Seq: p.Seq, Why: "held by another"})
	l.tick(time.Millisecond)
	if len(workOf[*Permit](l)) != 0 {
		t.Error("it asks again at once")
	}
	l.tick(4 * time.Second)
	w := workOf[*Permit](l)
	if l.r.isMaster() && (len(w) != 1 || w[0].Seq == p.Seq) {
		t.Errorf("asks %+v", w)
	}
	l, p = forsaken(t)
	l.ok(PermitRefused{Seq: p.Seq, Why: "a newer lock", Outdated: true})
	if l.r.isMaster() || !strings.Contains(l.r.why, "a newer lock") {
		t.Errorf("outdated: %s", l.r.Status())
	}
}

// Who does not ask: without the lock service's offer, by the operator's setting,
// with another policy, or while the other one is there.
func TestSoloNotAsked(t *testing.T) {
	for name, f := range map[string]func(*Config, *Restored){
		"no offer":  func(c *Config, _ *Restored) { c.Solo = false },
		"never":     func(c *Config, _ *Restored) { c.SoloAfter = -1 },
		"majority":  func(c *Config, r *Restored) { *r = loneRestored(members(2)) },
		"reachable": func(*Config, *Restored) {},
	} {
		l := newLone(t, pairOf, f)
		l.now = time.Second
		l.ok(Tick{})
		l.from(2, &ProbeAnswer{End: partition.Position{Index: 1}})
		l.ok(Locked{Number: 3})
		l.synced()
		l.from(2, &GatherAnswer{Epoch: e31, End: partition.Position{Index: 1}})
		l.synced()
		l.from(2, &AppendAck{Epoch: e31, Match: 2, Commit: 2})
		if name != "reachable" {
			l.down["n2"] = true
			l.ok(NodeDown{"n2"})
		}
		for range 9 {
			if l.tick(time.Second); len(workOf[*Permit](l)) != 0 {
				t.Errorf("%s: it asks", name)
			}
		}
	}
}

// A member whose node is there but which answers nothing is gone as well.
func TestSilentMember(t *testing.T) {
	l := newLone(t, pairOf)
	l.now = time.Second
	l.ok(Tick{})
	l.from(2, &ProbeAnswer{End: partition.Position{Index: 1}})
	l.ok(Locked{Number: 3})
	l.synced()
	l.from(2, &GatherAnswer{Epoch: e31, End: partition.Position{Index: 1}})
	l.synced()
	asked := 0
	for range 45 {
		l.tick(100 * time.Millisecond)
		asked += len(workOf[*Permit](l))
	}
	if asked == 0 {
		t.Errorf("it waits for ever: %s", l.r.Status())
	}
}

// The lock service knows of a permit that the log knows nothing of: it was granted
// just before a crash, and is given back when the group is whole.
func TestPermitOfBefore(t *testing.T) {
	l := newLone(t, pairOf)
	l.now = time.Second
	l.ok(Tick{})
	l.from(2, &ProbeAnswer{End: partition.Position{Index: 1}})
	l.ok(Locked{Number: 3, Permit: 4})
	l.synced()
	l.from(2, &GatherAnswer{Epoch: e31, End: partition.Position{Index: 1}})
	l.synced()
	if len(workOf[*ReleasePermit](l)) != 0 {
		t.Error("given back before the group is known to be whole")
	}
	l.from(2, &AppendAck{Epoch: e31, Match: 2, Commit: 2})
	if w := workOf[*ReleasePermit](l); len(w) != 1 || w[0].Number != 4 {
		t.Errorf("gives back %+v", w)
	}
}

// While a member is left behind the one that goes on alone stays master.
func TestHolderStays(t *testing.T) {
	l, p := forsaken(t)
	l.ok(Permitted{Seq: p.Seq, Number: 6})
	l.synced()
	l.apply()
	three := next(l, func(m *partition.Membership) {
		m.Policy = partition.Policy{Rule: partition.Majority}
		m.At(1).Eligible, m.At(2).Eligible = false, true
	})
	l.ok(Configure{ID: 1, Membership: three, Force: true})
	if r := workOf[*Reply](l); len(r) != 1 || r[0].Err == nil {
		t.Errorf("%+v", r)
	}
	// Nor by a third that has everything.
	l.ok(Configure{ID: 2, Membership: next(l, func(m *partition.Membership) {
		m.Add(partition.Member{Node: "n3", Kind: partition.Learner, Eligible: true})
	})})
	l.synced()
	l.apply()
	l.from(3, &AppendAck{Epoch: e31, Match: l.r.log.last, State: true})
	l.ok(Configure{ID: 3, Membership: next(l, func(m *partition.Membership) {
		m.At(1).Eligible, m.At(3).Kind = false, partition.Full
	}), Force: true})
	if r := workOf[*Reply](l); len(r) != 1 || r[0].Err == nil || !strings.Contains(r[0].Err.Why, "left behind") {
		t.Errorf("%+v", r)
	}
}

func decreed(l *lone, number uint64, keep ...partition.ReplicaID) *partition.Membership {
	return next(l, func(m *partition.Membership) {
		m.Alone, m.Permit = number, number
		for i := len(m.Members) - 1; i >= 0; i-- {
			if kept := false; !kept {
				for _, k := range keep {
					kept = kept || m.Members[i].Replica == k
				}
				if !kept {
					m.Remove(m.Members[i].Replica)
				}
			}
		}
	})
}

func TestRecoverRefuses(t *testing.T) {
	l, _ := followed(t)
	l.ok(Recover{ID: 1, Membership: decreed(l, 5, 1)})
	l.wantReplies("1:refused") // it has a master
	l = elected(t)
	l.ok(Recover{ID: 2, Membership: decreed(l, 5, 1)})
	l.wantReplies("2:refused") // it is master
	l = newLone(t)
	for id, m := range []*partition.Membership{
		nil, members(3), decreed(l, 5, 2), decreed(l, 5),
		func() *partition.Membership { m := decreed(l, 5, 1); m.Members[0].Node = "n9"; return m }(),
	} {
		l.ok(Recover{ID: uint64(id), Membership: m})
		if r := workOf[*Reply](l); len(r) != 1 || r[0].Err == nil || r[0].Err.Code != partition.CodeInvalid {
			t.Errorf("%d: %+v", id, r)
		}
	}
	l.ok(Recover{ID: 7, Membership: decreed(l, 5, 1)})
	l.wantReplies("")
	l.ok(Recover{ID: 8, Membership: decreed(l, 6, 1)})
	l.wantReplies("8:busy")
	// A master speaks after all.
	l.from(2, &Append{Epoch: e22, Prev: partition.Position{Index: 1}})
	l.wantReplies("7:unavailable")
	if len(l.r.active) != 1 || l.r.active[0].Version != 1 {
		t.Error("the decree is still in force")
	}
	// Its number is not a new one.
	l = newLone(t, func(_ *Config, r *Restored) { r.Configurations[0].Membership.Permit = 5 })
	l.ok(Recover{ID: 1, Membership: decreed(l, 5, 1)})
	l.wantReplies("1:refused")
	// Nobody hands out the lock.
	l = newLone(t)
	l.ok(Recover{ID: 9, Membership: decreed(l, 5, 1)})
	l.ok(LockRefused{})
	l.now += time.Minute
	l.ok(Tick{})
	l.wantReplies("9:unavailable")
	if r := workOf[*Reply](l)[0]; !strings.Contains(r.Err.Why, "lock") {
		t.Errorf("why: %v", r.Err)
	}
}

// A mastership or an attempt that the log's configurations have led to is not
// continued under a decree.
func TestRecoverEndsWhatWas(t *testing.T) {
	l := candidate(t)
	l.from(2, &GatherAnswer{Epoch: e31, End: partition.Position{Index: 1}})
	if l.r.phase != leveling {
		t.Fatal(l.r.Status())
	}
	last := l.r.log.last
	l.ok(Recover{ID: 1, Membership: decreed(l, 5, 1)})
	l.synced()
	if l.r.isMaster() || l.r.commit != 0 || l.r.log.last != last {
		t.Errorf("a master that levels: %s", l.r.Status())
	}
	l = candidate(t)
	l.ok(Recover{ID: 1, Membership: decreed(l, 5, 1)})
	if l.r.phase > locking || l.r.isMaster() {
		t.Errorf("a candidate: %s", l.r.Status())
	}
}

// A decree gathers from its members, copies the newest of their logs, and becomes a
// record with the version after the newest that was found.
func TestRecover(t *testing.T) {
	l := newLone(t)
	l.down["n2"] = true
	l.ok(Recover{ID: 1, Membership: decreed(l, 5, 1, 3)})
	l.from(3, &ProbeAnswer{End: partition.Position{Epoch: e22, Index: 2}})
	l.tick(time.Second)
	l.ok(Locked{Number: 3})
	l.synced()
	l.wantSent("gather epoch 3.1")
	g, _ := partition.Genesis(7, members(3))
	m := members(3)
	m.Version, m.Next = 2, 7
	x := memberRecord(g.Position(), g.Checksum(), e22, m)
	l.from(3, &GatherAnswer{Epoch: e31, End: x.Position()})
	l.from(3, &FetchAnswer{Epoch: e31, Prev: g.Position(), PrevSum: g.Checksum(), Records: []partition.Record{x}})
	l.synced()
	c := l.r.log.newest()
	if c.Index != 4 || c.Membership.Version != 3 || c.Membership.Next != 7 || c.Membership.Alone != 5 || l.r.commit != 0 {
		t.Fatalf("%+v at %d, %s", c.Membership, c.Index, l.r.Status())
	}
	l.from(3, &AppendAck{Epoch: e31, Match: 4})
	l.apply()
	l.wantReplies("1:4")
	if len(l.r.active) != 1 || len(c.Membership.LeftBehind) != 1 || c.Membership.LeftBehind[0] != 2 {
		t.Errorf("%+v", l.r.active.Last())
	}
}
