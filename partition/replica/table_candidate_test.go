package replica

import (
	"strings"
	"testing"
	"time"

	"pando.dev/pando/partition"
)

// SMF-8: a lock that is refused, old, absurd, late or lost ends the attempt, and
// nothing was written.
func TestLockAnswers(t *testing.T) {
	l := newLone(t)
	l.ok(Locked{Number: 5})
	if w := workOf[*ReleaseLock](l); len(w) != 1 || w[0].Number != 5 {
		t.Error("a lock that nobody asked for is kept")
	}
	l.ok(LockRefused{}) // no matter
	l = candidate(t)
	l.ok(Locked{Number: 3})
	if len(workOf[*ReleaseLock](l)) != 0 {
		t.Error("a lock that is told twice is given back")
	}
	for _, in := range []Input{LockRefused{}, Locked{Number: 0}, Locked{Number: 1 << 50}} {
		l = locking3(t)
		l.ok(in)
		if l.r.phase != following || len(workOf[*Persist](l)) != 0 || l.r.promised != 0 {
			t.Errorf("after %+v: %s", in, l.r.Status())
		}
	}
	l = locking3(t)
	l.tick(2 * time.Second)
	if l.r.phase != following || !strings.Contains(l.r.Status().Why, "lock") {
		t.Errorf("a lock that never answers: %s", l.r.Status())
	}
	l = candidate(t)
	l.ok(LockRefused{})
	if l.r.phase != following || l.r.log.last != 1 {
		t.Errorf("a lost lock: %s", l.r.Status())
	}
	l = elected(t)
	l.ok(LockRefused{})
	if l.r.phase != serving {
		t.Errorf("a master does not need the lock: %s", l.r.Status())
	}
}

// SMF-7: that the node of the master is back does not say that the master is. Its
// replica may have come back broken, and then nobody else ever speaks of it.
func TestNodeBackWithoutMaster(t *testing.T) {
	l, _ := followed(t)
	l.down["n2"], l.down["n3"] = true, true
	l.ok(NodeDown{"n2"})
	l.tick(time.Second) // nobody to be asked
	l.down["n2"], l.down["n3"] = false, false
	l.ok(NodeUp{"n2"})
	l.ok(NodeUp{"n3"})
	for range 8 {
		l.tick(time.Second)
		if l.r.phase == probing {
			l.from(3, &ProbeAnswer{Promised: e22})
		}
	}
	if l.r.phase != locking {
		t.Errorf("the master says nothing: %s", l.r.Status())
	}
	// One that lives says so, and that is the end of it.
	l, _ = followed(t)
	l.down["n2"] = true
	l.ok(NodeDown{"n2"})
	l.tick(time.Second)
	l.down["n2"] = false
	l.ok(NodeUp{"n2"})
	l.from(2, &Append{Epoch: e22, Prev: partition.Position{Index: 1}})
	l.tick(time.Second)
	if l.r.phase != following || l.r.deadline != 0 {
		t.Errorf("the master speaks: %s", l.r.Status())
	}
}

// "Peers are asked before a master is declared gone": who answers what.
func TestProbing(t *testing.T) {
	for _, c := range []struct {
		name    string
		answers []*ProbeAnswer // of 2 and 3
		want    string         // role afterwards
	}{
		{"nobody reaches it", []*ProbeAnswer{{Promised: e22, End: partition.Position{Index: 1}}, {Promised: e22, End: partition.Position{Index: 1}}}, "locking"},
		{"another one reaches it", []*ProbeAnswer{nil, {Promised: e22, Reachable: true}}, "peer"},
		{"another one reaches an older one", []*ProbeAnswer{{Promised: e12, Reachable: true}, {Promised: e22}}, "locking"},
		{"it answers itself", []*ProbeAnswer{{Promised: e22, Reachable: true, Master: true}}, "peer"},
		{"it has stepped down", []*ProbeAnswer{{Promised: e22}, {Promised: e22, Reachable: true}}, "locking"},
		{"a newer one answers", []*ProbeAnswer{{Promised: e42, Reachable: true, Master: true}}, "peer"},
		{"somebody has a newer log", []*ProbeAnswer{{Promised: e22}, {Promised: e22, End: partition.Position{Epoch: e22, Index: 99}}}, "waiting"},
	} {
		l, _ := followed(t)
		l.down["n2"] = c.answers[0] == nil
		l.ok(NodeDown{"n2"})
		if l.r.phase != probing {
			t.Fatalf("%s: %s", c.name, l.r.Status())
		}
		for i, a := range c.answers {
			if a != nil {
				l.from(partition.ReplicaID(i+2), a)
				l.from(partition.ReplicaID(i+2), a) // twice is the same
			}
		}
		if l.r.phase == probing {
			l.tick(time.Second)
		}
		if got := l.r.Status().Role; got != c.want {
			t.Errorf("%s: %s, not %s", c.name, got, c.want)
		}
	}
	// Too few answer for any failover set: no lock is asked for.
	l, _ := followed(t)
	l.ok(NodeDown{"n2"})
	l.tick(time.Second)
	if l.r.phase != following || len(workOf[*AcquireLock](l)) != 0 || !strings.Contains(l.r.Status().Why, "too few") {
		t.Errorf("alone: %s", l.r.Status())
	}
	// Whoever waits for better ones goes in the end.
	l, _ = followed(t)
	l.ok(NodeDown{"n2"})
	l.from(3, &ProbeAnswer{Promised: e22, End: partition.Position{Epoch: e22, Index: 99}})
	l.tick(time.Second)
	a := workOf[*AcquireLock](l)
	if len(a) != 1 || a[0].Above != e22.Number() || len(a[0].Witnesses) != 2 || !a[0].Failover {
		t.Errorf("it asks for %+v", a)
	}
	// A hint about somebody else is no reason.
	l, _ = followed(t)
	l.ok(NodeDown{"n3"})
	l.ok(NodeUp{"n3"})
	if l.r.phase != following || l.r.deadline != 0 {
		t.Errorf("after a hint about a peer: %s", l.r.Status())
	}
	l.ok(NodeDown{"n2"})
	l.ok(NodeUp{"n2"})
	l.from(2, &ProbeAnswer{Promised: e22, Reachable: true, Master: true})
	if l.r.phase != following || l.r.deadline != 0 || len(l.sent()) != 0 {
		t.Errorf("after a false alarm: %s", l.r.Status())
	}
	// NOTE: a master that resigns is believed at once.
	l.from(2, &ProbeAnswer{Promised: e22})
	if l.r.master != 0 || l.r.deadline == 0 {
		t.Errorf("after a resignation: %s", l.r.Status())
	}
}

// A voter that may not be master, but has the newest log, tells one that may.
func TestElect(t *testing.T) {
	later := func(c *Config, r *Restored) {
		m := members(3)
		m.Members[0].Kind = partition.Learner // this one, as far as it knows
		*r = loneRestored(m)
	}
	l := newLone(t, later)
	l.tick(time.Second)
	l.tick(time.Second)
	if len(workOf[*AcquireLock](l)) != 0 || l.r.phase != following {
		t.Error("a learner wants to be master")
	}
	l.from(2, &Probe{Epoch: e22, Elect: true, End: partition.Position{Epoch: e22, Index: 9}})
	if l.r.phase != probing {
		t.Fatalf("told so by a newer log: %s", l.r.Status())
	}
	l.from(2, &ProbeAnswer{Promised: e22, End: partition.Position{Epoch: e22, Index: 9}})
	l.from(3, &ProbeAnswer{})
	l.tick(time.Second) // 2 is better placed, as far as this one knows
	l.ok(Locked{Number: 3})
	l.synced()
	l.from(2, &GatherAnswer{Epoch: e31, End: partition.Position{Epoch: e22, Index: 2}, Commit: partition.Position{Epoch: e22, Index: 2}})
	if got := l.sent(); len(got) != 1 || got[0] != "fetch epoch 3.1 after 0" {
		t.Fatalf("sent %v: %s", got, l.r.Status())
	}
	g, _ := partition.Genesis(7, l.r.log.configs[0].Membership)
	payload, _ := members(3).AppendBinary(nil)
	x := partition.NewRecord(partition.Header{Group: 7, Index: 2, Epoch: e22, Prev: g.Checksum(), Kind: partition.KindMember}, payload)
	l.from(2, &FetchAnswer{Epoch: e31, Prev: g.Position(), PrevSum: g.Checksum(), Records: []partition.Record{x}})
	if l.r.phase != leveling {
		t.Errorf("with the newest log it may be master: %s", l.r.Status())
	}
}

// SMF-4, SMF-5: a candidate copies from the supporter with the newest log, and
// goes on without one that does not supply it.
func TestFetching(t *testing.T) {
	newer := partition.Position{Epoch: e22, Index: 3}
	l := candidate(t)
	l.from(2, &GatherAnswer{Epoch: e31, End: newer})
	l.wantSent("fetch epoch 3.1 after 0")
	l.from(3, &FetchAnswer{Epoch: e31}) // not asked
	l.from(2, &GatherAnswer{Epoch: e31, End: newer})
	if l.r.phase != fetching {
		t.Fatal(l.r.Status())
	}
	pos, sum := l.genesis()
	recs := chain(pos, sum, e22, 2)
	l.from(2, &FetchAnswer{Epoch: e31, Prev: pos, PrevSum: sum, Records: recs[:1]})
	l.wantSent("fetch epoch 3.1 after 2")
	l.from(2, &FetchAnswer{Epoch: e31, Prev: pos, PrevSum: sum, Records: recs[:1]}) // again
	l.wantSent("")
	l.from(2, &FetchAnswer{Epoch: e31, Prev: recs[0].Position(), PrevSum: recs[0].Checksum(), Records: recs[1:]})
	if l.r.phase != leveling || l.r.log.last != 4 || l.r.commit != 0 {
		t.Errorf("after the copy: %s", l.r.Status())
	}

	for name, in := range map[string]Input{
		"nothing":            received(2, &FetchAnswer{Epoch: e31}),
		"what does not fit":  received(2, &FetchAnswer{Epoch: e31, Prev: partition.Position{Epoch: e22, Index: 2}, Records: recs[1:]}),
		"a newer promise":    received(2, &GatherAnswer{Epoch: e42}),
		"no answer, for now": Tick{},
	} {
		l := candidate(t)
		l.from(2, &GatherAnswer{Epoch: e31, End: newer})
		l.now += 2 * time.Second
		if err := l.step(in); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if l.r.phase == fetching || l.r.phase >= leveling {
			t.Errorf("%s: %s", name, l.r.Status())
		}
	}
	// Damage is told, and the supporter is not used.
	l = candidate(t)
	l.from(2, &GatherAnswer{Epoch: e31, End: newer})
	bad := chain(pos, sum^1, e22, 2)
	if err := l.step(received(2, &FetchAnswer{Epoch: e31, Prev: pos, PrevSum: sum, Records: bad})); partition.CodeOf(err) != partition.CodeCorrupt {
		t.Errorf("a broken chain: %v", err)
	}
	if l.r.phase != gathering {
		t.Errorf("after a broken chain: %s", l.r.Status())
	}
	l.tick(5 * time.Second)
	if l.r.phase != following || !strings.Contains(l.r.Status().Why, "too few") {
		t.Errorf("with nobody else: %s", l.r.Status())
	}
	// Not a member of the winning log: abandoned (SMF-9).
	l = candidate(t)
	m := members(4)
	m.Members = m.Members[1:]
	m.Version = 2
	payload, _ := m.AppendBinary(nil)
	x := partition.NewRecord(partition.Header{Group: 7, Index: 2, Epoch: e22, Prev: sum, Kind: partition.KindMember}, payload)
	l.from(2, &GatherAnswer{Epoch: e31, End: x.Position(), Commit: x.Position()})
	l.from(2, &FetchAnswer{Epoch: e31, Prev: pos, PrevSum: sum, Records: []partition.Record{x}})
	if l.r.phase != following || l.r.electable() || !l.r.Status().Removed {
		t.Errorf("removed by the winning log: %s", l.r.Status())
	}
}

// A supporter's commit index counts only if its log is a prefix of this one: a
// record of an old epoch may be committed there, and be missing here though this
// log is newer.
func TestForeignCommit(t *testing.T) {
	l, recs := followed(t) // ends at 4@2.2, commit 2
	_ = recs
	l.ok(NodeDown{"n2"})
	l.from(3, &ProbeAnswer{})
	l.ok(Locked{Number: 3})
	l.synced()
	l.from(3, &GatherAnswer{Epoch: e31, End: partition.Position{Epoch: e12, Index: 4}, Commit: partition.Position{Epoch: e12, Index: 4}})
	if l.r.commit != 2 || l.r.phase != leveling {
		t.Errorf("%s", l.r.Status())
	}
}

// A member that counts by the last configuration is asked, though it was a learner by
// the one before, which is in force as well: it may be the one that is needed.
func TestGatherFromPromoted(t *testing.T) {
	l := newLone(t, func(_ *Config, r *Restored) {
		m := members(3)
		m.Members[2].Kind = partition.Learner
		*r = loneRestored(m)
		full := m.Successor()
		full.At(3).Kind = partition.Full
		r.Last, r.Runs, r.Promised = 2, append(r.Runs, EpochRun{e12, 2}), e12
		r.Configurations = append(r.Configurations, ConfigurationAt{2, full})
	})
	l.tick(time.Second)
	for _, id := range []partition.ReplicaID{2, 3} {
		l.from(id, &ProbeAnswer{End: partition.Position{Index: 1}})
	}
	l.ok(Locked{Number: 3})
	l.synced()
	l.wantSent("gather epoch 3.1; gather epoch 3.1")
}

// A replica that asks for a master is none itself, whatever a late append of it has
// said: it is not answered that its own node is the master's, which would keep it
// from the lock for ever.
func TestProbeOfOldMaster(t *testing.T) {
	for _, at := range []partition.Epoch{e22, e31} {
		l, _ := followed(t)
		l.from(2, &Probe{Epoch: at})
		if a := workOf[*Send](l)[0].Message.(*ProbeAnswer); a.Reachable || l.r.deadline == 0 {
			t.Errorf("asked in epoch %s: %+v, next look at %s", at, a, l.r.deadline)
		}
	}
	l, _ := followed(t)
	l.from(2, &Probe{Epoch: 1}) // on its way since before it led
	if a := workOf[*Send](l)[0].Message.(*ProbeAnswer); !a.Reachable {
		t.Errorf("an old question: %+v", a)
	}
}
