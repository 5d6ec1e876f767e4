package replica

import (
	"testing"
	"time"

	"pando.dev/pando/partition"
)

// Behaviours of the systems that the protocol implements, each by its id. Most
// have a golden story, too; all hold in every step of the random schedules.

// steady is a group whose replica 1 is master.
func steady(t *testing.T, n int) *world {
	t.Helper()
	w := newWorld(1, calm())
	w.start(members(n))
	w.run(time.Second)
	if m := w.master(); m == nil || m.id != 1 {
		t.Fatal("1 is not master")
	}
	return w
}

// acked executes one write at the master and requires that it is acknowledged.
func acked(t *testing.T, w *world, id uint64) partition.Index {
	t.Helper()
	var at partition.Index
	m := w.master()
	if m == nil {
		t.Fatal("no master")
	}
	w.check.write(m, &op{id: id, done: func(r *Reply, _ Result) { at = r.Index }})
	w.run(50 * time.Millisecond)
	if at == 0 {
		t.Fatalf("write %d is not acknowledged", id)
	}
	return at
}

// holds requires that a node's state has executed an operation.
func (n *node) holds(id uint64) bool {
	_, ok := n.state.rows[string(append([]byte{spaceUser, 'o', 'p'}, byte(id), 0, 0, 0, 0, 0, 0, 0))]
	return ok
}

// SMF-1: the master is killed under load a hundred times; each time another
// serves within a second, and every acknowledged write is there.
func TestSMF1KilledMaster(t *testing.T) {
	w := steady(t, 3)
	var done []uint64
	for id := uint64(1); id <= 100; id++ {
		acked(t, w, id)
		done = append(done, id)
		m := w.master()
		w.check.write(m, &op{id: 1000 + id}) // under way when the master dies
		w.run(time.Duration(id%4) * time.Millisecond)
		m.crash()
		w.run(time.Second)
		if w.master() == nil || w.master() == m {
			t.Fatalf("kill %d: no other master", id)
		}
		m.boots()
		w.run(100 * time.Millisecond)
	}
	w.run(time.Second)
	for _, n := range w.nodes {
		for _, id := range done {
			if !n.holds(id & 0xff) {
				t.Fatalf("replica %d has lost write %d", n.id, id)
			}
		}
	}
}

// SMF-2: a master that was cut off acknowledges nothing once there is another,
// and is refused by those that have promised the newer epoch.
func TestSMF2OldMasterCutOff(t *testing.T) {
	w := steady(t, 3)
	old := w.node(1)
	w.isolate(1, true)
	w.run(time.Second)
	var got *partition.Error
	w.check.write(old, &op{id: 1, done: func(r *Reply, _ Result) { got = r.Err }})
	w.run(time.Second)
	if w.master() == old || got != nil {
		t.Fatalf("cut off, it answers %v", got)
	}
	// What it says is heard again, what the others say is not.
	w.isolate(1, false)
	w.cut[[2]partition.ReplicaID{2, 1}], w.cut[[2]partition.ReplicaID{3, 1}] = true, true
	w.run(5 * time.Second)
	if got == nil || got.Code != partition.CodeUnknown || old.rep.isMaster() {
		t.Errorf("it answers %v: %s", got, old.rep.Status())
	}
}

// SMF-3 and the second half of SMF-8 are TestSchedules/bad-lock and
// TestConvergence. Here the lock is held by two for good.
func TestSMF3LockHeldByTwo(t *testing.T) {
	w := steady(t, 5)
	w.lock.forgets = true
	for _, id := range []partition.ReplicaID{1, 2} {
		w.node(id).crash()
	}
	w.run(2 * time.Second)
	at := acked(t, w, 1)
	w.node(1).boots()
	w.node(2).boots()
	w.run(2 * time.Second)
	if acked(t, w, 2) <= at || w.check.elections < 2 {
		t.Error("no progress")
	}
}

// SMF-4: the candidate has missed what a supporter has, and the first read after
// the failover shows it.
func TestSMF4CandidateCatchesUp(t *testing.T) {
	w := steady(t, 3)
	w.isolate(3, true)
	at := acked(t, w, 1)
	w.lock.only = 3
	w.node(1).crash()
	w.isolate(3, false)
	w.run(time.Second)
	m := w.master()
	if m == nil || m.id != 3 {
		t.Fatal("3 is not master")
	}
	if shows, ok := m.leaseRead(); !ok || shows < at || !m.holds(1) {
		t.Errorf("the first read shows %d, not %d", shows, at)
	}
}

// SMF-5: of two logs the one of the later epoch wins, however short.
func TestSMF5NewerNotLonger(t *testing.T) {
	w := steady(t, 3)
	w.isolate(1, true)
	for id := range uint64(9) {
		w.check.write(w.node(1), &op{id: id + 1})
	}
	w.run(time.Second)
	acked(t, w, 20)
	long, short := w.node(1).rep.log.last, w.node(3).rep.log.last
	if long <= short {
		t.Fatalf("logs of %d and %d records", long, short)
	}
	w.node(2).crash()
	w.isolate(1, false)
	w.run(2 * time.Second)
	acked(t, w, 21)
	if w.node(1).holds(1) || !w.node(1).holds(20) {
		t.Error("the longer log has won")
	}
}

// SMF-6: before a new master acknowledges anything, a record of its own epoch is
// committed; the unacknowledged tail of the old one is then everywhere or
// nowhere.
func TestSMF6OwnRecordFirst(t *testing.T) {
	for after := range 4 {
		w := steady(t, 3)
		w.check.write(w.node(1), &op{id: 1})
		w.run(time.Duration(after) * time.Millisecond / 2)
		w.node(1).crash()
		w.run(time.Second)
		acked(t, w, 2)
		w.node(1).boots()
		w.run(time.Second)
		first := w.master().rep.mastery.first
		if r := w.check.committed[first-1]; r.Kind() != partition.KindNoop || r.Epoch() != w.master().rep.promised {
			t.Errorf("its first record is %s", r)
		}
		for _, n := range w.nodes {
			if n.holds(1) != w.node(1).holds(1) || !n.holds(2) {
				t.Errorf("crash after %d: the states differ", after)
			}
		}
	}
}

// SMF-7: without a failover set there is no mastership and a retryable refusal;
// with one node back there is one again, without an operator.
func TestSMF7TwoOfThreeDown(t *testing.T) {
	w := steady(t, 3)
	w.node(1).crash()
	w.node(2).crash()
	w.run(10 * time.Second)
	var got *partition.Error
	w.check.write(w.node(3), &op{id: 1, done: func(r *Reply, _ Result) { got = r.Err }})
	if w.master() != nil || got == nil || got.Code != partition.CodeUnavailable {
		t.Fatalf("refused with %v", got)
	}
	if w.check.elections != 1 {
		t.Errorf("%d elections", w.check.elections)
	}
	w.node(1).boots()
	w.run(time.Second)
	acked(t, w, 2)
}

// SMF-8: without the lock nothing is written, and the tries thin out.
func TestSMF8LockDenied(t *testing.T) {
	w := steady(t, 3)
	w.lock.deny = 1 << 30
	w.node(1).crash()
	w.run(20 * time.Second)
	if last := w.node(2).disk.seen; last.promise.Number() != 1 || last.last() != 2 {
		t.Errorf("promise %s, last %d", last.promise, last.last())
	}
	if tries := 1<<30 - w.lock.deny; tries < 10 || tries > 80 {
		t.Errorf("%d tries in 20 s", tries)
	}
	w.lock.deny = 0
	w.run(3 * time.Second)
	acked(t, w, 1)
}

// SMF-9: who is removed by a committed record stops for good; an uncommitted one
// stops nobody.
func TestSMF9Removed(t *testing.T) {
	w := steady(t, 4)
	w.node(1).configure(false, func(m *partition.Membership) { m.Remove(4) })
	w.run(100 * time.Millisecond)
	w.node(1).crash()
	w.run(5 * time.Second)
	if r := w.node(4).rep; r.electable() || r.deadline != 0 || r.phase != following {
		t.Errorf("the removed one: %s", r.Status())
	}
	w = steady(t, 3)
	w.isolate(1, true)
	w.node(1).configure(true, func(m *partition.Membership) { m.Remove(3) })
	w.run(time.Second)
	w.node(1).crash()
	w.isolate(1, false)
	w.node(1).boots() // with the record, not committed
	w.run(time.Second)
	if r := w.node(3).rep; !r.electable() || len(w.node(1).rep.active) != 1 {
		t.Errorf("the one that was not: %s", r.Status())
	}
}

// SMF-10, MEM-7: the branch of an old master is snipped with the configuration
// in it, and its state becomes equal to the others' byte by byte.
func TestSMF10Rejoin(t *testing.T) {
	w := steady(t, 3)
	w.isolate(1, true)
	w.check.write(w.node(1), &op{id: 1})
	w.node(1).configure(true, func(m *partition.Membership) { m.Remove(3) })
	if len(w.node(1).rep.active) != 2 {
		t.Fatal("a configuration counts from when it is appended")
	}
	w.run(time.Second)
	acked(t, w, 2)
	w.isolate(1, false)
	w.run(time.Second)
	old, m := w.node(1), w.master()
	if m == old || !old.state.equal(m.state) || old.holds(1) || len(old.rep.active) != 1 || old.rep.active[0].Version != 1 {
		t.Errorf("afterwards: %s", old.rep.Status())
	}
	if !equalRecords(old.disk.synced.recs, m.disk.synced.recs) {
		t.Error("the logs differ")
	}
}

func equalRecords(a, b []partition.Record) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if string(a[i]) != string(b[i]) {
			return false
		}
	}
	return true
}

// SMF-12: all nodes lose their power at once, again and again, and the lock
// forgets everything; no epoch is used twice (which the checker sees).
func TestSMF12AllCrash(t *testing.T) {
	w := steady(t, 3)
	w.lock.forgets = true
	for id := uint64(1); id <= 30; id++ {
		at := acked(t, w, id)
		for _, n := range w.nodes {
			n.crash()
		}
		for _, n := range w.nodes {
			n.boots()
		}
		w.run(time.Second)
		if m := w.master(); m == nil || m.rep.commit <= at || !m.holds(id) {
			t.Fatalf("power cut %d: write at %d is lost", id, at)
		}
	}
}

// LEA-1, LEA-3: under the lease a read costs no message, and the lock service is
// not needed.
func TestLEA1NoRoundTrip(t *testing.T) {
	w := steady(t, 3)
	w.lock.down = true
	w.run(10 * time.Second)
	steps := w.steps
	for range 100 {
		w.run(30 * time.Millisecond)
		if _, ok := w.node(1).leaseRead(); !ok {
			t.Fatal("the lease has run out")
		}
	}
	if w.steps != steps {
		t.Errorf("100 reads cost %d steps", w.steps-steps)
	}
}

// LEA-2: while the old master may still answer, the new one acknowledges nothing.
// The clocks run at different speeds. (And in TestSchedules, at any time.)
func TestLEA2NoStaleRead(t *testing.T) {
	for seed := range uint64(20) {
		k := calm()
		k.drift = 0.02
		w := newWorld(seed, k)
		w.start(members(3))
		w.run(time.Second)
		old := w.master()
		w.isolate(old.id, true)
		var answered, both bool
		for ms := range 600 {
			w.run(time.Millisecond)
			w.check.tryLeaseRead(old)
			for _, n := range w.nodes {
				if n != old && n.rep.phase >= recovering && ms%10 == 0 {
					w.check.write(n, &op{id: uint64(1000*ms) + uint64(n.id), done: func(r *Reply, _ Result) {
						_, ok := old.leaseRead()
						answered, both = answered || r.Err == nil, both || ok && r.Err == nil
					}})
				}
			}
		}
		if !answered || both {
			t.Fatalf("seed %d: answered %v, both %v", seed, answered, both)
		}
	}
}

// LEA-4: a master that hears nothing at all stops answering by its own clock.
func TestLEA4IsolatedMaster(t *testing.T) {
	w := steady(t, 3)
	w.isolate(1, true)
	w.run(200 * time.Millisecond)
	if _, ok := w.node(1).leaseRead(); !ok {
		t.Error("it stops too early")
	}
	steps := w.node(1).rep.now
	w.run(150 * time.Millisecond)
	if _, ok := w.node(1).leaseRead(); ok {
		t.Error("it goes on answering")
	}
	if w.node(1).rep.now != steps && w.node(1).rep.phase != serving {
		t.Error("something told it")
	}
}

// NOT-1: what is in the log and not committed is in no state, on the master or a
// peer, before and after a crash.
func TestNOT1InvisibleBeforeCommit(t *testing.T) {
	w := steady(t, 3)
	w.isolate(1, true)
	w.check.write(w.node(1), &op{id: 1})
	w.run(10 * time.Millisecond)
	if w.node(1).rep.log.last != 3 || w.node(1).holds(1) {
		t.Fatal("it is visible before its commit")
	}
	w.node(1).crash()
	w.isolate(1, false)
	w.isolate(1, true)
	w.node(1).boots()
	w.run(time.Second)
	if w.node(1).holds(1) {
		t.Error("replay shows what was not committed")
	}
}

// NOT-2: records behind a hole wait; nothing is applied out of order.
func TestNOT2Hole(t *testing.T) {
	w := steady(t, 3)
	w.cut[[2]partition.ReplicaID{1, 3}] = true
	acked(t, w, 1)
	w.cut[[2]partition.ReplicaID{1, 3}] = false
	w.check.write(w.node(1), &op{id: 2})
	w.run(time.Millisecond)
	if w.node(3).holds(2) || w.node(3).rep.log.last != 2 {
		t.Error("it takes what is behind the hole")
	}
	w.run(time.Second)
	if !w.node(3).holds(1) || !w.node(3).holds(2) {
		t.Error("the hole is not filled")
	}
}

// NOT-3: a record whose commit nobody has heard of is dropped or completed, the
// same everywhere, and its place is used again.
func TestNOT3CrashBeforeCommit(t *testing.T) {
	dropped, completed := 0, 0
	for after := range 6 {
		w := steady(t, 3)
		w.check.write(w.node(1), &op{id: 1})
		w.run(time.Duration(after) * time.Millisecond / 2)
		for _, n := range w.nodes {
			n.crashKeeping(after % 2 * len(n.disk.pending))
		}
		w.run(5 * time.Millisecond) // what was on the way is lost
		for _, n := range w.nodes {
			n.boots()
		}
		w.run(time.Second)
		acked(t, w, 2)
		w.run(time.Second)
		if w.node(1).holds(1) {
			completed++
		} else {
			dropped++
		}
		for _, n := range w.nodes {
			if !n.state.equal(w.node(1).state) {
				t.Errorf("crash after %d: the states differ", after)
			}
		}
	}
	if dropped == 0 || completed == 0 {
		t.Errorf("%d dropped, %d completed: both should happen", dropped, completed)
	}
}

// NOT-4: over many failovers the numbers of committed records have no gap, and
// none is used twice (which the checker sees).
func TestNOT4NoGap(t *testing.T) {
	w := steady(t, 3)
	for id := uint64(1); id <= 20; id++ {
		acked(t, w, id)
		m := w.master()
		w.check.write(m, &op{id: 100 + id})
		m.crash()
		w.run(time.Second)
		m.boots()
	}
	w.run(time.Second)
	for i, r := range w.check.committed {
		if r.Index() != partition.Index(i+1) {
			t.Fatalf("record %d has index %d", i+1, r.Index())
		}
	}
	if len(w.check.committed) < 40 {
		t.Errorf("only %d records", len(w.check.committed))
	}
}
