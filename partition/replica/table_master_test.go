package replica

import (
	"errors"
	"strings"
	"testing"
	"time"

	"pando.dev/pando/partition"
)

func command(id uint64) Proposal {
	return Proposal{ID: id, Kind: partition.KindCommand, Payload: AppendCommand(nil, partition.SessionID{}, 0, []byte("x"))}
}

// replies returns the answers of the last step, as "id:index" or "id:code".
func (l *lone) replies() string {
	var out []string
	for _, r := range workOf[*Reply](l) {
		s := partition.GroupID(r.ID).String()[1:] + ":"
		if r.Err != nil {
			s += r.Err.Code.String()
		} else {
			s += partition.GroupID(r.Index).String()[1:]
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

func (l *lone) wantReplies(want string) {
	l.t.Helper()
	if got := l.replies(); got != want {
		l.t.Errorf("replies %q, not %q", got, want)
	}
}

// tick lets the time of the alarm come.
func (l *lone) tick(d time.Duration) {
	l.t.Helper()
	l.now += d
	l.ok(Tick{})
}

func TestProposeRefuses(t *testing.T) {
	l, _ := followed(t)
	l.ok(Propose{[]Proposal{command(1)}})
	l.wantReplies("1:not_master")
	if r := workOf[*Reply](l)[0]; r.Err.Master != "n2" || !errors.Is(r.Err, partition.ErrNotMaster) {
		t.Errorf("refused with %+v", r.Err)
	}
	l.ok(ReadIndex{2})
	l.wantReplies("2:not_master")
	l.ok(NodeDown{"n2"})
	l.ok(Propose{[]Proposal{command(3)}})
	l.wantReplies("3:unavailable")

	l = candidate(t)
	l.from(2, &GatherAnswer{Epoch: e31, End: partition.Position{Index: 1}})
	l.ok(Propose{[]Proposal{command(4)}})
	l.wantReplies("4:unavailable")
	if got := l.r.Status(); got.Role != "leveling" || got.Why == "" {
		t.Errorf("status %s", got)
	}

	l = elected(t, func(c *Config, _ *Restored) { c.MaxPending = 2 })
	l.ok(Propose{[]Proposal{
		{ID: 1, Kind: partition.KindMember}, {ID: 2, Kind: partition.KindNoop}, {ID: 3, Kind: partition.KindLocal},
		{ID: 4, Kind: partition.KindCommand, Payload: make([]byte, partition.MaxPayloadBytes+1)},
		command(5), {ID: 6, Kind: partition.KindSession, Payload: AppendOpenSession(nil)}, command(7),
	}})
	l.wantReplies("1:invalid 2:invalid 3:invalid 4:too_large 7:busy")
	for range 2 {
		l.ok(ReadIndex{8})
	}
	l.ok(ReadIndex{9})
	l.wantReplies("9:busy")
	// SMF-2: a newer epoch anywhere ends the mastership; what is in the log is
	// undecided, and reads were not answered.
	l.ok(Propose{nil})
	l.from(3, &AppendAck{Epoch: e42})
	l.wantReplies("5:outcome_unknown 6:outcome_unknown 8:unavailable 8:unavailable")
	if len(workOf[*ReleaseLock](l)) != 1 || l.r.phase != following || workOf[*Publish](l)[0].View.Serving {
		t.Errorf("after a newer epoch: %s, work %v", l.r.Status(), l.work)
	}
}

// One drain makes one Persist, one message per peer and one buffer, however
// many commands there are, and nothing waits for the own disk. What the results
// are wanted for is said.
func TestOneDrain(t *testing.T) {
	l := elected(t)
	var ps []Proposal
	for id := range uint64(100) {
		ps = append(ps, command(id+1))
	}
	l.ok(Propose{ps})
	p, s := workOf[*Persist](l), workOf[*Send](l)
	if len(p) != 1 || len(p[0].Records) != 100 || len(s) != 1 {
		t.Fatalf("%d Persists, %d Sends", len(p), len(s))
	}
	l.synced()
	if len(workOf[*Reply](l)) != 0 {
		t.Error("acknowledged by one of three disks")
	}
	l.from(2, &AppendAck{Epoch: e31, Match: 102})
	a := workOf[*Apply](l)
	if len(a) != 1 || len(a[0].IDs) != 100 || a[0].IDs[0] != 1 || a[0].IDs[99] != 100 || a[0].First != 3 || a[0].Last != 102 {
		t.Fatalf("apply %+v", a)
	}
	if len(workOf[*Reply](l)) != 0 {
		t.Error("acknowledged before it is applied")
	}
	l.apply()
	if got := workOf[*Reply](l); len(got) != 100 || got[0].Index != 3 || got[99].ID != 100 {
		t.Errorf("%d replies", len(got))
	}
}

// The hot path of a master allocates per batch, not per record.
func TestHotPathAllocs(t *testing.T) {
	l := elected(t, func(c *Config, _ *Restored) { c.TailBytes = 1 << 16 })
	run := func(n int) float64 {
		ps := make([]Proposal, n)
		payload := make([]byte, 128)
		for i := range ps {
			ps[i] = Proposal{ID: uint64(i + 1), Kind: partition.KindCommand, Payload: payload}
		}
		drain := func(in Input) {
			l.now += time.Millisecond
			if err := l.r.Step(Event{l.now, in}); err != nil {
				t.Fatal(err)
			}
			for range l.r.Ready() {
			}
		}
		round := func() {
			drain(Propose{ps})
			drain(Persisted{l.r.seq})
			drain(Received{From: 2, Node: "n2", Message: &AppendAck{Epoch: e31, Match: l.r.log.last}})
			drain(Applied{l.r.asked})
			drain(Received{From: 2, Node: "n2", Message: &AppendAck{Epoch: e31, Match: l.r.log.last, Commit: l.r.commit}})
		}
		for range 50 {
			round()
		}
		return testing.AllocsPerRun(100, round)
	}
	one, many := run(1), run(1000)
	t.Logf("%.0f allocations for 1 record, %.0f for 1000", one, many)
	if many > one+40 {
		t.Errorf("%.0f allocations for 1 record, %.0f for 1000", one, many)
	}
}

func BenchmarkMaster(b *testing.B) {
	t := &testing.T{}
	l := elected(t)
	const batch = 256
	ps := make([]Proposal, batch)
	for i := range ps {
		ps[i] = Proposal{ID: uint64(i + 1), Kind: partition.KindCommand, Payload: make([]byte, 128)}
	}
	drain := func(in Input) {
		l.now += time.Millisecond
		if err := l.r.Step(Event{l.now, in}); err != nil {
			b.Fatal(err)
		}
		for range l.r.Ready() {
		}
	}
	b.ReportAllocs()
	for range b.N {
		drain(Propose{ps})
		drain(Persisted{l.r.seq})
		drain(Received{From: 2, Node: "n2", Message: &AppendAck{Epoch: e31, Match: l.r.log.last}})
		drain(Applied{l.r.asked})
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batch), "ns/record")
}

// SMF-8: a lock that is refused, old, absurd, late or lost ends the attempt, and
// nothing was written.
func TestLockAnswers(t *testing.T) {
	l := newLone(t)
	l.ok(Locked{5})
	if w := workOf[*ReleaseLock](l); len(w) != 1 || w[0].Number != 5 {
		t.Error("a lock that nobody asked for is kept")
	}
	l.ok(LockRefused{}) // no matter
	for _, in := range []Input{LockRefused{}, Locked{0}, Locked{1 << 50}} {
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
	if l.r.deadline != 0 {
		t.Error("a learner looks for a master")
	}
	l.from(2, &Probe{Epoch: e22, Elect: true, End: partition.Position{Epoch: e22, Index: 9}})
	if l.r.phase != probing {
		t.Fatalf("told so by a newer log: %s", l.r.Status())
	}
	l.from(2, &ProbeAnswer{Promised: e22, End: partition.Position{Epoch: e22, Index: 9}})
	l.from(3, &ProbeAnswer{})
	l.tick(time.Second) // 2 is better placed, as far as this one knows
	l.ok(Locked{3})
	l.synced()
	l.from(2, &GatherAnswer{Epoch: e31, End: partition.Position{Epoch: e22, Index: 2}, Commit: 2})
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
	l.from(2, &GatherAnswer{Epoch: e31, End: x.Position(), Commit: 2})
	l.from(2, &FetchAnswer{Epoch: e31, Prev: pos, PrevSum: sum, Records: []partition.Record{x}})
	if l.r.phase != following || l.r.electable() || l.r.deadline != 0 {
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
	l.ok(Locked{3})
	l.synced()
	l.from(3, &GatherAnswer{Epoch: e31, End: partition.Position{Epoch: e12, Index: 4}, Commit: 4})
	if l.r.commit != 2 || l.r.phase != leveling {
		t.Errorf("%s", l.r.Status())
	}
}

// A quorum read needs confirmations that were given after it came.
func TestReadRounds(t *testing.T) {
	l := elected(t)
	for _, id := range []partition.ReplicaID{2, 3} {
		l.from(id, &AppendAck{Epoch: e31, Match: 2, Commit: 2})
	}
	l.ok(ReadIndex{1})
	l.wantSent("read check epoch 3.1 round 1; read check epoch 3.1 round 1")
	l.ok(ReadIndex{2}) // too late for this round
	l.wantSent("")
	l.from(2, &ReadConfirm{Epoch: e31, Seq: 1, Waiting: true})
	l.wantReplies("")
	l.from(2, &ReadConfirm{Epoch: e22, Seq: 1})
	l.wantReplies("")
	l.tick(160 * time.Millisecond)
	l.wantSent("read check epoch 3.1 round 1; read check epoch 3.1 round 1")
	l.from(2, &ReadConfirm{Epoch: e31, Seq: 1})
	l.wantReplies("1:2")
	l.wantSent("read check epoch 3.1 round 2; read check epoch 3.1 round 2")
	l.from(3, &ReadConfirm{Epoch: e31, Seq: 1}) // of the round before
	l.wantReplies("")
	l.tick(6 * time.Second)
	l.wantReplies("2:unavailable")
	l.ok(ReadIndex{3})
	l.from(2, &ReadConfirm{Epoch: e42, Seq: 3})
	l.wantReplies("3:unavailable")
	if l.r.phase != following {
		t.Errorf("a newer epoch in a confirmation: %s", l.r.Status())
	}
	// One that is confirmed and waits for the state fails with the mastership.
	l = elected(t)
	l.ok(Propose{[]Proposal{command(1)}})
	l.synced()
	l.from(2, &AppendAck{Epoch: e31, Match: 3}) // committed, not applied
	l.ok(ReadIndex{2})
	l.from(2, &ReadConfirm{Epoch: e31, Seq: 1})
	l.ok(ReadIndex{4})
	l.ok(ReadIndex{5})
	l.from(2, &GatherAnswer{Epoch: e42})
	l.wantReplies("1:outcome_unknown 5:unavailable 4:unavailable 2:unavailable")
}

func TestMasterMessages(t *testing.T) {
	l := elected(t)
	if err := l.step(received(2, &AppendAck{Epoch: e31, Match: 99})); partition.CodeOf(err) != partition.CodeInvalid {
		t.Errorf("an acknowledgement of what there is not: %v", err)
	}
	l.from(9, &AppendAck{Epoch: e31, Match: 1}) // no member
	l.from(3, &AppendAck{Epoch: e12, Match: 2}) // of another epoch
	l.from(3, &GatherAnswer{Epoch: e31, End: partition.Position{Index: 1}})
	if v := workOf[*Publish](l); len(v) != 1 || len(v[0].View.Supporters) != 3 {
		t.Errorf("a late supporter: %v", v)
	}
	if l.r.peer(3).match != 0 || l.r.phase != serving {
		t.Errorf("%s", l.r.Status())
	}
	l.from(3, &Probe{})
	if got := l.sent(); len(got) != 2 || !strings.HasPrefix(got[0], "probe answer epoch 3.1 reachable true master true") || !strings.HasPrefix(got[1], "append epoch 3.1") {
		t.Errorf("a probe gives %v", got)
	}
	l.until = time.Hour
	if v := l.r.view; v.LeaseEnd(l) != time.Hour {
		t.Errorf("lease until %s", v.LeaseEnd(l))
	}
	// Sending again waits while the node is down, and starts when it is back.
	l.ok(NodeDown{"n3"})
	l.ok(Propose{[]Proposal{command(1)}})
	l.wantSent("append epoch 3.1 after 2@3.1 commit 2 [3@3.1 command]")
	l.ok(NodeUp{"n3"})
	l.wantSent("append epoch 3.1 after 3@3.1 commit 2")
	l.down["n2"] = true
	l.tick(time.Second)
	if !l.r.peer(2).down || l.r.peer(3).down {
		t.Error("a node that is not reachable is written to")
	}
	l.from(2, &Append{Epoch: e42, Prev: partition.Position{}, Records: nil})
	if l.r.phase != following || l.r.master != 2 {
		t.Errorf("a newer master: %s", l.r.Status())
	}
}

// The lease wait: a write that is committed and applied is not acknowledged
// before the greatest remaining grant of the supporters has run out.
func TestLeaseWait(t *testing.T) {
	l := candidate(t)
	l.from(2, &GatherAnswer{Epoch: e31, End: partition.Position{Index: 1}, LeaseRemaining: 200 * time.Millisecond})
	l.synced()
	l.from(2, &AppendAck{Epoch: e31, Match: 2})
	l.ok(Propose{[]Proposal{command(1)}})
	l.ok(ReadIndex{2})
	l.synced()
	l.from(2, &AppendAck{Epoch: e31, Match: 3})
	l.apply()
	l.wantReplies("")
	if s := l.r.Status(); s.Role != "recovering" || s.Applied != 3 || !strings.Contains(s.Why, "leases") || s.Serving {
		t.Errorf("%s", s)
	}
	if l.r.view.Serving || l.r.view.LeaseEnd(l) != 0 {
		t.Error("it may answer readers")
	}
	l.tick(100 * time.Millisecond)
	l.wantReplies("")
	l.tick(100 * time.Millisecond)
	l.wantReplies("1:3")
	if got := l.sent(); len(got) < 2 || got[0] != "read check epoch 3.1 round 1" {
		t.Errorf("sent %v", got)
	}
	if !l.r.view.Serving {
		t.Error("it may not answer readers")
	}
}

// A member that lost log which was truncated here needs a copy; the master says
// so and sends nothing in vain.
func TestBehind(t *testing.T) {
	l := newLone(t)
	m := members(3)
	res := Restored{
		Promised: e22, Commit: 9, Applied: 9, First: 9, Last: 9, BeforeFirst: partition.Position{Epoch: e22, Index: 8},
		Runs: []EpochRun{{e22, 9}}, Configurations: []ConfigurationAt{{1, m}},
	}
	r, err := New(loneConfig(l), res)
	if err != nil {
		t.Fatal(err)
	}
	l.r = r
	l.now += time.Second
	l.ok(Tick{})
	l.tick(time.Second)
	for _, id := range []partition.ReplicaID{2, 3} {
		l.from(id, &ProbeAnswer{End: partition.Position{Epoch: e22, Index: 9}})
	}
	l.ok(Locked{3})
	l.synced()
	l.from(2, &GatherAnswer{Epoch: e31, End: partition.Position{Epoch: e22, Index: 9}})
	l.from(3, &AppendAck{Epoch: e31, Want: 2})
	if s := l.r.Status(); len(s.Behind) != 1 || s.Behind[0] != 3 || len(l.sent()) != 0 {
		t.Errorf("%s behind %v, sent %v", s, s.Behind, l.sent())
	}
}

// Work that the host did not take is offered again.
func TestReadyAgain(t *testing.T) {
	l := elected(t)
	if err := l.r.Step(Event{l.now, Propose{[]Proposal{command(1)}}}); err != nil {
		t.Fatal(err)
	}
	for range l.r.Ready() {
		break
	}
	n := 0
	for range l.r.Ready() {
		n++
	}
	if n < 1 {
		t.Errorf("%d works are left", n)
	}
}

// Time that goes back is not followed.
func TestClock(t *testing.T) {
	l := elected(t)
	before := l.r.now
	if err := l.r.Step(Event{before - time.Second, Tick{}}); err != nil || l.r.now != before {
		t.Errorf("now %s after %s: %v", l.r.now, before, err)
	}
}

// The machine forgets old records beyond its limit, whatever their size.
func TestTailLimit(t *testing.T) {
	l := elected(t, func(c *Config, _ *Restored) { c.TailBytes = 1000 })
	for i := range 300 {
		l.ok(Propose{[]Proposal{command(uint64(i + 1))}})
		l.synced()
		l.from(2, &AppendAck{Epoch: e31, Match: l.r.log.last, Commit: l.r.commit})
		l.apply()
		if g := l.r.log; g.tailBytes > 1000 || g.droppedBytes > 2000 {
			t.Fatalf("%d bytes in memory, %d more held", g.tailBytes, g.droppedBytes)
		}
	}
	if l.r.log.last != 302 || len(l.r.log.runs) != 2 {
		t.Errorf("last %d, %d runs", l.r.log.last, len(l.r.log.runs))
	}
	l.from(3, &AppendAck{Epoch: e31, Want: 1})
	if a := workOf[*Send](l)[0].Message.(*Append); a.Through < 270 || a.Prev.Index != 0 || len(a.Records) != 0 {
		t.Errorf("the host is to read %+v", a)
	}
}

func TestAssert(t *testing.T) {
	defer func() {
		if s, ok := recover().(string); !ok || s != "replica: broken 1" {
			t.Errorf("panic %v", s)
		}
	}()
	assert(true, "whole")
	assert(false, "broken %d", 1)
}

// Only the named types are inputs, messages and work.
func TestClosedSets(*testing.T) {
	for _, x := range []Input{Tick{}, Received{}, Persisted{}, Applied{}, Propose{}, ReadIndex{}, Locked{}, LockRefused{}, NodeDown{}, NodeUp{}} {
		x.input()
	}
	for _, x := range []Message{&Append{}, &AppendAck{}, &Gather{}, &GatherAnswer{}, &Fetch{}, &FetchAnswer{}, &Probe{}, &ProbeAnswer{}, &ReadCheck{}, &ReadConfirm{}} {
		x.message()
	}
	for _, x := range []Work{&Persist{}, &Send{}, &Apply{}, &Reply{}, &Alarm{}, &AcquireLock{}, &ReleaseLock{}, &Publish{}} {
		x.work()
	}
}
