package replica

import (
	"fmt"
	"testing"
	"time"

	"pando.dev/pando/partition"
)

var e33, e43 = partition.NewEpoch(3, 3), partition.NewEpoch(4, 3)

// A supporter reports what it has granted for an epoch after the released one,
// and forgets what it has granted up to it: for good, since that stays true.
func TestReleasedLeases(t *testing.T) {
	for _, c := range []struct {
		name     string
		between  bool // it has promised an epoch between the released one and the heir's
		released partition.Epoch
		want     string
	}{
		{"nothing released", false, 0, "298ms"},
		{"an older epoch released", false, e12, "298ms"},
		{"the holder's released", false, e22, "0s"},
		{"a newer one was promised in between", true, e22, "296ms"},
		{"that one was released, too", true, e33, "0s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, _ := followed(t)
			l.until = l.now + 300*time.Millisecond
			if c.between {
				l.from(3, &Gather{Epoch: e33})
				l.synced()
			}
			l.from(2, &Gather{Epoch: e42, Released: c.released})
			l.synced()
			want := fmt.Sprintf("gather answer epoch 4.2 end 4@2.2 commit 2 lease %s", c.want)
			l.wantSent(want)
			l.from(3, &ReadCheck{Epoch: e42, Seq: 1}) // its own grants hold up a read or not
		})
	}
	// After a restart what was granted belongs to no later epoch than the promise.
	l := newLone(t, func(_ *Config, r *Restored) { r.Restarted, r.Promised = true, e22 })
	l.from(2, &Gather{Epoch: e42, Released: e22})
	l.synced()
	l.wantSent("gather answer epoch 4.2 end 1@0.0 commit 0 lease 0s")
	l = newLone(t, func(_ *Config, r *Restored) { r.Restarted, r.Promised = true, e33 })
	l.from(2, &Gather{Epoch: e42, Released: e22})
	l.synced()
	l.wantSent("gather answer epoch 4.2 end 1@0.0 commit 0 lease 298ms")
	// It may be its own, of an attempt: it has granted something before that.
	l = newLone(t, func(_ *Config, r *Restored) { r.Restarted, r.Promised = true, e31 })
	l.from(2, &Gather{Epoch: e42, Released: e22})
	l.synced()
	l.wantSent("gather answer epoch 4.2 end 1@0.0 commit 0 lease 298ms")
}

func (l *lone) wantHand(to partition.ReplicaID, step HandStep) {
	l.t.Helper()
	for _, w := range workOf[*Send](l) {
		if m, ok := w.Message.(*HandOver); ok && w.To == to && m.Step == step {
			return
		}
	}
	l.t.Errorf("no hand-over step %d to %d in %v", step, to, l.sent())
}

// heir3 is the peer followed, with all its records committed, as an heir that has
// the lock 4.
func heir3(t *testing.T) (*lone, []partition.Record) {
	l, recs := followed(t)
	l.from(2, &Append{Epoch: e22, Prev: recs[2].Position(), PrevSum: recs[2].Checksum(), Commit: 4})
	l.from(2, &HandOver{Epoch: e22, Step: HandPrepare, Number: 2})
	if a := workOf[*AcquireLock](l); len(a) != 1 || a[0].Holder != 2 || a[0].Consent != 2 || a[0].Above != 2 {
		t.Fatalf("asks for %+v", a)
	}
	l.ok(Locked{Number: 4})
	l.wantHand(2, HandReady)
	return l, recs
}

func goAfter(r partition.Record) *HandOver {
	return &HandOver{Epoch: e22, Step: HandGo, End: r.Position(), EndSum: r.Checksum()}
}

// What an heir keeps it answers as master, and its Gather tells what is released.
func TestHeirTakesOver(t *testing.T) {
	l, recs := heir3(t)
	if v := l.r.view; v.Next != "n1" || v.Serving {
		t.Errorf("view %+v", v)
	}
	l.from(2, &HandOver{Epoch: e22, Step: HandPrepare, Number: 2}) // ready was lost
	l.wantHand(2, HandReady)
	l.ok(Locked{Number: 4}) // told twice
	if len(workOf[*ReleaseLock](l)) != 0 {
		t.Error("the lock was given back")
	}
	l.ok(Propose{[]Proposal{command(7)}})
	l.ok(ReadIndex{8})
	l.wantReplies("")
	l.from(2, goAfter(recs[2]))
	if l.r.promised != partition.NewEpoch(4, 1) || l.r.phase != promising {
		t.Fatalf("after go: %s", l.r.Status())
	}
	l.from(2, goAfter(recs[2])) // once more
	l.synced()
	l.wantSent("gather epoch 4.1, leases to 2.2 are over; gather epoch 4.1, leases to 2.2 are over")
	l.until = l.now + time.Second // what the node has granted does not matter
	l.from(2, &GatherAnswer{Epoch: l.r.promised, End: recs[2].Position(), Commit: recs[2].Position()})
	if w := workOf[*Persist](l); len(w) != 1 || len(w[0].Records) != 2 {
		t.Fatalf("writes %+v, not its first record and the kept command", w)
	}
	l.synced()
	l.from(2, &AppendAck{Epoch: l.r.promised, Match: 6})
	l.apply()
	l.wantReplies("7:6")
	l.from(2, &ReadConfirm{Epoch: l.r.promised, Seq: 1})
	l.wantReplies("8:6")
	if v := l.r.view; v.Next != "" || !v.Serving {
		t.Errorf("view %+v", v)
	}
}

// TestHeirLetsGo: whatever goes wrong, the heir gives the lock back, refuses what
// it has kept, and follows or looks for a master.
func TestHeirLetsGo(t *testing.T) {
	for name, do := range map[string]func(*lone, []partition.Record){
		"called off":      func(l *lone, _ []partition.Record) { l.from(2, &HandOver{Epoch: e22, Step: HandCancel}) },
		"no go in time":   func(l *lone, _ []partition.Record) { l.tick(2 * time.Second) },
		"a newer attempt": func(l *lone, _ []partition.Record) { l.from(3, &Gather{Epoch: e43}) },
		"the master's node is down": func(l *lone, _ []partition.Record) {
			l.down["n2"] = true
			l.ok(NodeDown{"n2"})
		},
		"it resigns": func(l *lone, _ []partition.Record) { l.ok(Resign{}) },
		"a go behind its own end": func(l *lone, recs []partition.Record) {
			l.from(2, goAfter(chain(recs[2].Position(), recs[2].Checksum(), e22, 1)[0]))
		},
	} {
		t.Run(name, func(t *testing.T) {
			l, recs := heir3(t)
			l.ok(Propose{[]Proposal{command(7)}})
			do(l, recs)
			if x := workOf[*ReleaseLock](l); len(x) != 1 || x[0].Number != 4 {
				t.Errorf("gives back %+v", x)
			}
			if r := workOf[*Reply](l); len(r) != 1 || r[0].Err == nil || r[0].Err.Code == partition.CodeUnknown {
				t.Errorf("replies %q", l.replies())
			}
			if l.r.isMaster() || l.r.view.Next != "" {
				t.Errorf("%s, next %q", l.r.Status(), l.r.view.Next)
			}
		})
	}
	l, _ := heir3(t)
	l.ok(LockRefused{}) // the lock is lost
	l.wantHand(2, HandRefuse)
	if len(workOf[*ReleaseLock](l)) != 0 {
		t.Error("gives back a lock that is lost")
	}
}

// TestHeirRefuses: who cannot be master now says so at once.
func TestHeirRefuses(t *testing.T) {
	l, _ := followed(t)
	l.from(2, &HandOver{Epoch: e22, Step: HandPrepare, Number: 2})
	l.ok(Locked{Number: 2}) // no greater than the promise's
	l.wantHand(2, HandRefuse)
	if x := workOf[*ReleaseLock](l); len(x) != 1 {
		t.Error("keeps the lock")
	}
	l.from(2, &HandOver{Epoch: e22, Step: HandPrepare, Number: 2})
	l.ok(LockRefused{})
	l.wantHand(2, HandRefuse)
	l.from(3, &Gather{Epoch: e33})
	l.from(2, &HandOver{Epoch: e22, Step: HandPrepare, Number: 2}) // not its master any more
	l.wantHand(2, HandRefuse)
	l.from(3, &HandOver{Epoch: e33, Step: HandPrepare, Number: 3}) // the promise is not on disk
	l.wantHand(3, HandRefuse)

	m := members(3)
	m.Members[0].Eligible = false
	l = newLone(t, func(_ *Config, r *Restored) { *r = loneRestored(m) })
	l.from(2, &Gather{Epoch: e22})
	l.synced()
	l.from(2, &HandOver{Epoch: e22, Step: HandPrepare, Number: 2})
	l.wantHand(2, HandRefuse)

	for _, bad := range []*HandOver{
		{Epoch: e33, Step: HandPrepare}, {Epoch: e33, Step: HandGo}, {Epoch: e33, Step: HandCancel}, {Epoch: e22, Step: HandReady}, {Epoch: e22}, {Epoch: e22, Step: 9},
	} {
		if err := l.step(received(2, bad)); partition.CodeOf(err) != partition.CodeInvalid {
			t.Errorf("step %d of epoch %s from 2: %v", bad.Step, bad.Epoch, err)
		}
	}
}

// handing is a master whose peer 2 has all and has been asked.
func handing(t *testing.T) *lone {
	l := elected(t)
	l.from(2, &AppendAck{Epoch: e31, Match: 2, Commit: 2})
	l.ok(Transfer{ID: 50, To: 2})
	l.wantHand(2, HandPrepare)
	return l
}

// TestMasterLetsGo: the view goes before the go, what was kept is refused with the
// heir's node, and go is repeated a few times, then the old master looks itself.
func TestMasterLetsGo(t *testing.T) {
	l := handing(t)
	l.ok(Propose{[]Proposal{command(1)}})
	l.synced()
	l.from(2, &HandOver{Epoch: e31, Step: HandReady})
	l.ok(Propose{[]Proposal{command(2)}})
	l.ok(ReadIndex{3})
	if len(workOf[*Persist](l)) != 0 || l.replies() != "" {
		t.Fatal("something new is appended or answered")
	}
	l.from(2, &AppendAck{Epoch: e31, Match: 3})
	l.ok(Applied{3})
	l.wantReplies("1:3 2:not_master 3:not_master")
	if r := workOf[*Reply](l)[1]; r.Err.Master != "n2" {
		t.Errorf("the hint is %q", r.Err.Master)
	}
	withdrawn := false
	for _, w := range l.work {
		switch w := w.(type) {
		case *Publish:
			withdrawn = !w.View.Serving && w.View.Next == "n2" && len(w.View.Supporters) == 0
		case *Send:
			if m, ok := w.Message.(*HandOver); ok && (m.Step != HandGo || !withdrawn || m.End.Index != 3) {
				t.Errorf("%s, view withdrawn: %t", describe(m), withdrawn)
			}
		}
	}
	for range goTries - 1 {
		l.tick(60 * time.Millisecond)
		l.wantHand(2, HandGo)
	}
	l.tick(time.Second)
	if l.r.phase != probing {
		t.Errorf("does not look for a master: %s", l.r.Status())
	}
	l.tick(2 * time.Second)
	l.wantReplies("50:unavailable")
}

// TestMasterIsAnswered: the operator hears who leads.
func TestMasterIsAnswered(t *testing.T) {
	gone := func() *lone {
		l := handing(t)
		l.from(2, &HandOver{Epoch: e31, Step: HandReady})
		l.wantHand(2, HandGo)
		return l
	}
	pos := partition.Position{Epoch: e31, Index: 2}
	l := gone()
	l.from(2, &Append{Epoch: e42, Prev: pos, Commit: 2})
	l.wantReplies("50:2")
	l = gone()
	l.from(3, &Append{Epoch: e43, Prev: pos, Commit: 2})
	l.wantReplies("50:unavailable")
	l = gone()
	l.from(2, &ProbeAnswer{Promised: e42, Master: true}) // it is no member any more
	l.wantReplies("50:2")
	l = gone()
	l.down["n2"] = true
	l.ok(NodeDown{"n2"})
	l.tick(20 * time.Millisecond)
	if l.r.phase != probing {
		t.Errorf("waits for an heir whose node is down: %s", l.r.Status())
	}
}

// TestTransferRefused: clearly, and with nothing begun.
func TestTransferRefused(t *testing.T) {
	l := elected(t)
	l.ok(Transfer{ID: 1, To: 1}) // it is
	l.wantReplies("1:2")
	l.ok(Transfer{ID: 2, To: 3}) // it has not answered
	l.wantReplies("2:unavailable")
	l.ok(Transfer{ID: 3, To: 9})
	l.wantReplies("3:refused")
	l.from(2, &AppendAck{Epoch: e31, Match: 2, Commit: 2})
	l.ok(Transfer{ID: 4})
	l.wantHand(2, HandPrepare)
	l.ok(Transfer{ID: 5})
	l.wantReplies("5:busy")
	l.from(3, &HandOver{Epoch: e31, Step: HandReady}) // nobody asked it
	if l.r.draining() {
		t.Error("another one's word was taken")
	}
	l.from(2, &HandOver{Epoch: e31, Step: HandRefuse})
	l.wantReplies("4:unavailable")
	l.wantHand(2, HandCancel)
	if l.r.phase != serving {
		t.Errorf("after it: %s", l.r.Status())
	}
	l.ok(Transfer{ID: 6})
	l.tick(3 * time.Second) // no answer at all
	l.wantReplies("6:unavailable")
	l.ok(Transfer{ID: 7})
	l.from(2, &AppendAck{Epoch: e42}) // it steps down for another reason
	l.wantReplies("7:unavailable")
}

// TestResign: with an heir it hands over; without, it tells everybody; and it is
// the last to try again until somebody leads.
func TestResign(t *testing.T) {
	l := elected(t)
	l.from(2, &AppendAck{Epoch: e31, Match: 2, Commit: 2})
	l.ok(Resign{Why: "its node stops"})
	l.wantHand(2, HandPrepare)
	l.from(2, &HandOver{Epoch: e31, Step: HandRefuse})
	if l.r.isMaster() || l.r.why != "its node stops" {
		t.Errorf("after the refusal: %s", l.r.Status())
	}
	l = elected(t)
	l.down["n2"], l.down["n3"] = true, true
	l.ok(Resign{})
	if l.r.isMaster() || len(l.sent()) != 2 {
		t.Errorf("%s, sent %v", l.r.Status(), l.sent())
	}
	l.down = map[partition.NodeID]bool{}
	l.tick(time.Second)
	for _, id := range []partition.ReplicaID{2, 3} {
		l.from(id, &ProbeAnswer{End: partition.Position{Index: 1}})
	}
	if l.r.phase != waiting {
		t.Errorf("does not let the others go first: %s", l.r.Status())
	}
	l = locking3(t)
	l.ok(Resign{})
	if l.r.phase != following {
		t.Errorf("goes on with its attempt: %s", l.r.Status())
	}
}

// TestHandOverGap (SMF-11, LEA-5): in virtual time, with disks of 2 ms and a
// network of half of one, a planned hand-over under load refuses nothing but by a
// redirect, leaves no outcome unknown, and is over within 20 ms.
func TestHandOverGap(t *testing.T) {
	var longest partition.Time
	for seed := range uint64(8) {
		k := calm()
		k.netMin, k.netMax = 200*time.Microsecond, 500*time.Microsecond
		k.diskMin, k.diskMax, k.applyMax = time.Millisecond, 2*time.Millisecond, 200*time.Microsecond
		w := newWorld(seed, k)
		w.start(members(3))
		w.run(time.Second)
		g := &gapClient{w: w, at: w.master()}
		for range 8 {
			g.next()
		}
		for range 5 {
			m := w.master()
			w.run(20 * time.Millisecond)
			w.check.transfer(m, 0, func(r *Reply) {
				if r.Err != nil {
					t.Errorf("seed %d: %v", seed, r.Err)
				}
			})
			w.run(80 * time.Millisecond)
			if w.master() == m {
				t.Errorf("seed %d: %d is still master", seed, m.id)
			}
		}
		longest = max(longest, g.longest)
		if w.check.unknown > 0 || g.lost > 0 || w.check.elections != 6 {
			t.Errorf("seed %d: %d unknown, %d refused without a redirect, %d elections", seed, w.check.unknown, g.lost, w.check.elections)
		}
	}
	t.Logf("longest time without an acknowledged write: %v", longest)
	if longest > 20*time.Millisecond {
		t.Errorf("%v without an acknowledged write", longest)
	}
}

// gapClient keeps eight writes under way and follows redirects at once.
type gapClient struct {
	w       *world
	at      *node
	ids     uint64
	last    partition.Time
	longest partition.Time
	lost    int
}

func (g *gapClient) next() {
	g.ids++
	g.try(g.ids)
}

func (g *gapClient) try(id uint64) {
	w := g.w
	w.check.write(g.at, &op{id: id, done: func(r *Reply, _ Result) {
		switch {
		case r.Err == nil:
			if g.last != 0 {
				g.longest = max(g.longest, w.now-g.last)
			}
			g.last = w.now
			w.after(0, g.next)
		case r.Err.Code == partition.CodeNotMaster && r.Err.Master != "":
			delete(w.check.refused, id) // this time it may be executed
			g.at = w.named(r.Err.Master)
			w.after(w.between(w.knobs.netMin, w.knobs.netMax), func() { g.try(id) })
		default:
			g.lost++
		}
	}})
}

// SMF-11: nothing is handed over by a master that has still to wait for leases: its
// word would end them.
func TestNoTransferInLeaseWait(t *testing.T) {
	l := candidate(t)
	l.from(2, &GatherAnswer{Epoch: e31, End: partition.Position{Index: 1}, LeaseRemaining: 300 * time.Millisecond})
	l.synced()
	l.from(2, &AppendAck{Epoch: e31, Match: 2})
	l.apply()
	l.ok(Transfer{ID: 1, To: 2})
	l.wantReplies("1:busy")
	if l.r.phase != recovering {
		t.Error(l.r.Status())
	}
}
