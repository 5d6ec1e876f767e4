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
	l.ok(Locked{Number: 3})
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
	// What the host has truncated is not asked of it any more.
	l.ok(Truncated{250})
	if s := l.r.Status(); len(s.Behind) != 0 {
		t.Errorf("behind: %v", s.Behind)
	}
	l.from(3, &AppendAck{Epoch: e31, Want: 249, Match: 2})
	if s := l.r.Status(); len(s.Behind) != 1 || len(l.sent()) != 0 {
		t.Errorf("behind: %v, sent %v", s.Behind, l.sent())
	}
	l.from(3, &AppendAck{Epoch: e31, Want: 250, Match: 249})
	if a := workOf[*Send](l)[0].Message.(*Append); a.Prev != (partition.Position{Epoch: e31, Index: 249}) || a.Through < 270 {
		t.Errorf("the host is to read %+v", a)
	}
	l.ok(Truncated{303})
	l.ok(Truncated{5}) // old news
	if l.r.log.first != 303 || len(l.r.log.runs) != 0 || l.r.log.end() != (partition.Position{Epoch: e31, Index: 302}) {
		t.Errorf("truncated: %+v", l.r.log)
	}
	l.ok(Propose{[]Proposal{command(1)}})
	if l.r.log.last != 303 || len(l.r.log.runs) != 1 {
		t.Errorf("afterwards: %s", l.r.Status())
	}
}

// While records are read from the log for a peer, an answer that comes twice, or that
// answers something of before, lets nothing be sent again: each of them would be
// answered, and two under way would stay two. Seed 345 of the simulator's late-answers.
func TestOldAnswerWhileReading(t *testing.T) {
	l := elected(t, func(c *Config, _ *Restored) { c.TailBytes, c.MaxAppendBytes = 1, 1 })
	for i := range 10 {
		l.ok(Propose{[]Proposal{command(uint64(i + 1))}})
		l.synced()
		l.from(2, &AppendAck{Epoch: e31, Match: l.r.log.last, Commit: l.r.commit})
		l.apply()
	}
	l.from(3, &AppendAck{Epoch: e31, Want: 3, Match: 2})
	l.sent()
	answer := &AppendAck{Epoch: e31, Match: 3}
	l.from(3, answer)
	if a := workOf[*Send](l)[0].Message.(*Append); a.Prev.Index != 3 || a.Through < 4 {
		t.Fatalf("the host is to read %+v", a)
	}
	for range 2 {
		if l.from(3, answer); len(l.sent()) != 0 {
			t.Error("the answer came again, and so do the records")
		}
	}
	l.from(3, &AppendAck{Epoch: e31, Match: 4})
	if a := workOf[*Send](l)[0].Message.(*Append); a.Prev.Index != 4 {
		t.Errorf("behind the answer the host is to read %+v", a)
	}
	if l.tick(2 * l.r.cfg.AnswerWait); len(workOf[*Send](l)) == 0 {
		t.Error("without an answer in time nothing is sent again")
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
	for _, x := range []Input{Tick{}, Received{}, Persisted{}, Applied{}, Truncated{}, Propose{}, ReadIndex{}, Locked{}, LockRefused{}, NodeDown{}, NodeUp{}} {
		x.input()
	}
	for _, x := range []Message{&Append{}, &AppendAck{}, &Gather{}, &GatherAnswer{}, &Fetch{}, &FetchAnswer{}, &Probe{}, &ProbeAnswer{}, &ReadCheck{}, &ReadConfirm{}} {
		x.message()
	}
	for _, x := range []Work{&Persist{}, &Send{}, &Apply{}, &Reply{}, &Alarm{}, &AcquireLock{}, &ReleaseLock{}, &Publish{}} {
		x.work()
	}
}
