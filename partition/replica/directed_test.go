package replica

import (
	"testing"
	"time"

	"pando.dev/pando/internal/planted"
	"pando.dev/pando/partition"
)

// Stories that a rule of the protocol is there for, each told twice: as it is, and
// without the rule. Random schedules come upon them too seldom.

// link cuts or heals both ways between two replicas.
func (w *world) link(a, b partition.ReplicaID, cut bool) {
	w.cut[[2]partition.ReplicaID{a, b}], w.cut[[2]partition.ReplicaID{b, a}] = cut, cut
	w.hints()
}

// until lets time pass until something is so; it gives up after ten seconds.
func (w *world) until(what string, so func() bool) {
	for range 10_000 {
		if so() {
			return
		}
		w.run(time.Millisecond)
	}
	w.check.violated("never: %s", what)
}

// changeInLeaseWait: replica 2 succeeds 1, of which a lease still runs; waiting for its
// end it gives the group to 4, which has granted nothing to anybody for long; and dies.
func changeInLeaseWait(mut planted.Bug) error {
	return violations(func() {
		w := newWorld(1, calm())
		w.mut = mut
		m := members(4)
		m.Members[3].Kind = partition.Learner
		w.start(m)
		w.run(time.Second)
		w.link(1, 4, true)
		w.run(400 * time.Millisecond)
		w.link(2, 4, true)
		w.run(330 * time.Millisecond) // heartbeats went out 5 ms ago
		w.lock.only = 2
		w.isolate(1, true)
		w.until("2 leads", func() bool { return w.node(2).rep.phase >= recovering })
		w.link(2, 4, false)
		w.run(2 * time.Millisecond)
		w.until("4 has caught up", func() bool { return w.node(2).rep.caughtUp(w.node(2).rep.peer(4)) })
		w.node(2).configure(false, func(m *partition.Membership) {
			m.Remove(1)
			m.Remove(3)
			m.At(4).Kind, m.At(4).Weight = partition.Full, 3
		})
		w.run(6 * time.Millisecond)
		w.node(2).crash()
		w.lock.only = 0
		for id := range uint64(300) {
			w.run(time.Millisecond)
			w.check.tryLeaseRead(w.node(1))
			if n := w.node(4); n.rep.phase == serving {
				w.check.write(n, &op{id: id + 1})
			}
		}
	})
}

// TestChangeInLeaseWait (LEA-2): a master that waits for the lease of its predecessor
// does not change the group, since the next one might come from members that have not
// granted it.
func TestChangeInLeaseWait(t *testing.T) { spoiledBy(t, changeInLeaseWait, planted.ConfigureInWait) }

// spoiledBy requires that a story ends well, and badly with a mistake.
func spoiledBy(t *testing.T, story func(planted.Bug) error, mut planted.Bug) {
	t.Helper()
	if err := story(0); err != nil {
		t.Errorf("as it is: %v", err)
	}
	if err := story(mut); err == nil {
		t.Error("the mistake is not caught")
	} else {
		t.Logf("caught by %v", err)
	}
}

// releaseUnserved: replica 2 succeeds 1, of which a lease still runs, and resigns while
// it waits for its end; then it leads once more, and says to 3 what was released.
func releaseUnserved(mut planted.Bug) error {
	return violations(func() {
		w := newWorld(1, calm())
		w.mut = mut
		w.start(members(3))
		w.run(time.Second + 5*time.Millisecond) // heartbeats went out 5 ms ago
		w.isolate(1, true)
		w.lock.only = 2
		w.until("2 leads", func() bool { return w.node(2).rep.phase >= recovering })
		w.node(2).take(Resign{})
		for id := range uint64(300) {
			w.run(time.Millisecond)
			w.check.tryLeaseRead(w.node(1))
			if n := w.node(2); n.rep.phase == serving {
				w.check.write(n, &op{id: id + 1})
			}
		}
	})
}

// TestReleaseUnserved (LEA-2): only a master that has served says that no lease counts
// up to its epoch.
func TestReleaseUnserved(t *testing.T) { spoiledBy(t, releaseUnserved, planted.ReleaseWaiting) }

// forkedDecree: an operator recovers a group of seven with three of them. One of these
// promises and does not get the record; the group changes once more; then that one meets
// those that were given up for lost.
func forkedDecree(mut planted.Bug) error {
	return violations(func() {
		w := newWorld(1, calm())
		w.mut = mut
		w.start(members(7))
		w.run(time.Second)
		for _, id := range []partition.ReplicaID{2, 5, 6, 7} {
			w.node(id).crash()
		}
		w.run(6 * time.Second)
		n := w.node(1)
		w.decree(n, func(m *partition.Membership) {
			for _, id := range []partition.ReplicaID{2, 5, 6, 7} {
				m.Remove(id)
			}
		})
		for range 1000 {
			if w.run(time.Millisecond); n.rep.phase >= leveling {
				break
			}
		}
		w.isolate(4, true)
		w.run(100 * time.Millisecond)
		w.check.write(n, &op{id: 1})
		n.configure(false, func(m *partition.Membership) { m.At(3).Weight = 2 })
		w.run(time.Second)
		if len(w.check.configurations()) != 3 || n.rep.phase != serving {
			w.check.violated("the group is not recovered: %s", n.rep.Status())
		}
		n.crash()
		w.node(3).crash()
		clear(w.cut)
		for _, id := range []partition.ReplicaID{2, 5, 6, 7} {
			w.node(id).boots()
		}
		w.run(5 * time.Second)
		if m := w.master(); m != nil {
			w.check.write(m, &op{id: 2})
		}
		w.run(time.Second)
	})
}

// decree gives a replica an operator's decree, with a permit of the control group.
func (w *world) decree(n *node, edit func(*partition.Membership)) {
	p := &w.lock.permit
	next := n.rep.log.newest().Membership.Successor()
	p.number, p.holder, p.able, p.next = p.number+1, n, nil, next.Next
	edit(next)
	next.Alone, next.Permit = p.number, p.number
	w.check.nextID++
	w.check.ops[w.check.nextID] = &op{opens: true, node: n, floor: w.check.floor}
	n.take(Recover{ID: w.check.nextID, Membership: next})
}

// TestForkedDecree: a permit passes to those only that have the record it rests on. The
// others would lead by the configuration before it.
func TestForkedDecree(t *testing.T) { spoiledBy(t, forkedDecree, planted.PassUnknowing) }

// TestLogReplicaSupplies (CAT-3): a full voter comes back and does not know that the
// end of its log was committed; the log replica has let go of just that, and has what
// was committed since. The voter must be able to continue with it.
func TestLogReplicaSupplies(t *testing.T) {
	w := newWorld(1, calm())
	m := members(3)
	m.Members[2].Kind = partition.LogReplica
	w.start(m)
	w.run(time.Second)
	acked(t, w, 1)
	acked(t, w, 2)
	w.run(200 * time.Millisecond)
	w.node(2).crashKeeping(0)
	log := w.node(3)
	first := log.rep.everywhere + 1
	w.check.truncated = true
	log.disk.synced.truncate(first)
	log.disk.seen.truncate(first)
	log.take(Truncated{First: first})
	w.node(1).crash()
	w.node(1).boots()
	w.run(time.Second)
	acked(t, w, 3)
	if d := w.node(2).disk.synced; first != 5 || d.last() != 4 || d.commit >= 4 {
		t.Fatalf("the log of 3 begins at %d, that of 2 ends at %d, committed is %d", first, d.last(), d.commit)
	}
	w.node(1).crash()
	w.node(2).boots()
	w.run(5 * time.Second)
	if w.master() == nil {
		t.Fatalf("no master: %s", w.node(2).rep.Status())
	}
	acked(t, w, 4)
}
