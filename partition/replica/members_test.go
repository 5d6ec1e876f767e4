package replica

import (
	"slices"
	"testing"
	"time"

	"pando.dev/pando/partition"
)

// changed makes a change at the master and requires that it is in force.
func changed(t *testing.T, w *world, edit func(*partition.Membership)) {
	t.Helper()
	var got *Reply
	m := w.master()
	if m == nil {
		t.Fatal("no master")
	}
	next := m.rep.log.newest().Membership.Successor()
	edit(next)
	w.check.configure(m, next, false, func(r *Reply, _ Result) { got = r })
	w.run(50 * time.Millisecond)
	if got == nil || got.Err != nil {
		t.Fatalf("version %d: %+v", next.Version, got)
	}
}

// joins adds a member, brings its host up and lets it count.
func joins(t *testing.T, w *world) partition.ReplicaID {
	t.Helper()
	var id partition.ReplicaID
	changed(t, w, func(m *partition.Membership) {
		id = m.Add(partition.Member{Node: nodeName(m.Next), Zone: "w", Kind: partition.Learner, Eligible: true})
	})
	w.addNode(id, image{first: 1, recs: w.check.committed[:1:1]}).boots()
	w.run(500 * time.Millisecond)
	changed(t, w, func(m *partition.Membership) { m.At(id).Kind = partition.Full })
	return id
}

// MEM-1: members are added, replaced and removed under load; no write fails, and
// versions rise by one (which the checker sees).
func TestMEM1UnderLoad(t *testing.T) {
	w := steady(t, 3)
	next, failed, done := uint64(0), 0, 0
	var load func()
	load = func() {
		if m := w.master(); m != nil {
			next++
			w.check.write(m, &op{id: next, done: func(r *Reply, _ Result) {
				if r.Err != nil && r.Err.Code != partition.CodeNotMaster {
					failed++
				}
				done++
			}})
		}
		w.after(3*time.Millisecond, load)
	}
	load()
	for range 5 {
		joins(t, w)
		changed(t, w, func(m *partition.Membership) { m.Remove(m.Members[0].Replica) }) // the master, sooner or later
		w.run(time.Second)
	}
	if failed > 0 || done < 1000 {
		t.Errorf("%d writes failed of %d", failed, done)
	}
	m := w.master()
	if m.rep.active[0].Version != 16 || w.check.retired != 5 {
		t.Errorf("version %d, %d retired", m.rep.active[0].Version, w.check.retired)
	}
	for _, x := range m.rep.active[0].Members {
		if v := w.node(x.Replica).rep.active; len(v) != 1 || v[0].Version != 16 {
			t.Errorf("replica %d has %v", x.Replica, v)
		}
	}
}

// MEM-2: the master dies at any moment between append and commit. Afterwards all
// members have the change or none.
func TestMEM2KilledBetween(t *testing.T) {
	with, without := 0, 0
	for step := range 16 {
		w := steady(t, 4)
		if step%3 == 0 {
			w.isolate(1, true)
		}
		w.node(1).configure(true, func(m *partition.Membership) { m.Remove(4) })
		w.run(time.Duration(step) * time.Millisecond / 4)
		w.node(1).crashKeeping(step % 2 * len(w.node(1).disk.pending))
		w.isolate(1, false)
		w.run(2 * time.Second)
		w.node(1).boots()
		acked(t, w, 1)
		w.run(2 * time.Second)
		now := w.master().rep.active
		for _, x := range now[0].Members {
			if c := w.node(x.Replica).rep.active; len(c) != 1 || c[0].Version != now[0].Version {
				t.Errorf("step %d: replica %d has version %d, the master %d", step, x.Replica, c.Last().Version, now[0].Version)
			}
		}
		if now[0].Version == 2 {
			with++
		} else {
			without++
		}
	}
	if with == 0 || without == 0 {
		t.Errorf("%d with the change, %d without: both should happen", with, without)
	}
}

// MEM-5: a member whose node never comes costs nothing: the others may fail as
// before.
func TestMEM5DeadNode(t *testing.T) {
	w := steady(t, 3)
	changed(t, w, func(m *partition.Membership) {
		m.Add(partition.Member{Node: "n4", Kind: partition.Learner, Eligible: true})
	})
	w.node(1).crash()
	w.run(2 * time.Second)
	acked(t, w, 1)
}

// MEM-6: at each size exactly those sets of members serve that the rule says.
func TestMEM6EverySet(t *testing.T) {
	for _, sizes := range [][]int{{3}, {3, 4}, {3, 4, 5}, {3, 4, 5, 4}, {3, 4, 5, 4, 3}} {
		n := sizes[len(sizes)-1]
		for up := 1; up < 1<<n; up++ {
			w := steady(t, 3)
			for i := 1; i < len(sizes); i++ {
				if sizes[i] > sizes[i-1] {
					joins(t, w)
				} else {
					changed(t, w, func(m *partition.Membership) { m.Remove(m.Members[len(m.Members)-1].Replica) })
					w.run(time.Second)
				}
			}
			members := w.master().rep.active[0].Members
			alive := 0
			for i, x := range members {
				if up&(1<<i) == 0 {
					w.node(x.Replica).crash()
				} else {
					alive++
				}
			}
			w.run(7 * time.Second) // longer than a master waits for its records
			var ok bool
			if m := w.master(); m != nil {
				w.check.write(m, &op{id: 1, done: func(r *Reply, _ Result) { ok = r.Err == nil }})
				w.run(100 * time.Millisecond)
			}
			if ok != (2*alive > n) {
				t.Errorf("sizes %v, up %b: serves %v", sizes, up, ok)
			}
		}
	}
}

// MEM-8: after all nodes have lost their power the members are those of log and
// state, also where the log has let go of the record.
func TestMEM8FullRestart(t *testing.T) {
	w := steady(t, 3)
	joins(t, w)
	changed(t, w, func(m *partition.Membership) { m.Remove(2) })
	w.run(time.Second)
	acked(t, w, 1)
	w.run(100 * time.Millisecond)
	for _, id := range []partition.ReplicaID{1, 3, 4} {
		n := w.node(id)
		n.flushed = n.state.clone()
		w.check.truncated = true
		n.disk.synced.truncate(n.state.applied + 1)
		n.crash()
	}
	for _, id := range []partition.ReplicaID{1, 3, 4} {
		w.node(id).boots()
	}
	w.run(2 * time.Second)
	acked(t, w, 2)
	c := w.master().rep.active[0]
	var ids []partition.ReplicaID
	for _, x := range c.Members {
		if x.Kind == partition.Full && x.Eligible {
			ids = append(ids, x.Replica)
		}
	}
	if c.Version != 4 || !slices.Equal(ids, []partition.ReplicaID{1, 3, 4}) {
		t.Errorf("version %d of %v", c.Version, ids)
	}
}

// INE-3, INE-8: whoever returns from maintenance counts from the committed record
// on, and before that is no candidate.
func TestINE3Return(t *testing.T) {
	w := steady(t, 3)
	changed(t, w, func(m *partition.Membership) { m.At(3).Eligible = false })
	w.run(100 * time.Millisecond)
	if w.node(3).rep.electable() {
		t.Error("an ineligible member wants to be master")
	}
	// The record of its return reaches only itself: nothing is committed by it.
	w.cut[[2]partition.ReplicaID{1, 2}], w.cut[[2]partition.ReplicaID{2, 1}] = true, true
	var got *Reply
	next := w.node(1).rep.log.newest().Membership.Successor()
	next.At(3).Eligible = true
	w.check.configure(w.node(1), next, false, func(r *Reply, _ Result) { got = r })
	w.run(500 * time.Millisecond)
	if got != nil || w.node(3).rep.commit >= w.node(1).rep.log.newest().Index {
		t.Errorf("its own acknowledgement has let it count: %+v", got)
	}
	clear(w.cut)
	w.hints()
	w.run(2 * time.Second)
	if got == nil || got.Err != nil {
		t.Errorf("answered with %+v", got)
	}
}

// CAT-2: the log was truncated meanwhile, so a copy of the state is needed; with it
// the member is equal to the others.
func TestCAT2CopyWhereTheLogIsGone(t *testing.T) {
	w := steady(t, 3)
	w.node(3).crash()
	for id := uint64(1); id <= 5; id++ {
		acked(t, w, id)
	}
	w.run(100 * time.Millisecond)
	for _, id := range []partition.ReplicaID{1, 2} {
		n := w.node(id)
		w.check.truncated = true
		n.flushed = n.state.clone()
		n.disk.synced.truncate(n.state.applied + 1)
		n.disk.seen.truncate(n.state.applied + 1)
		n.take(Truncated{n.state.applied + 1})
	}
	w.node(3).boots()
	w.run(2 * time.Second)
	if b := w.node(1).rep.Status().Behind; !slices.Equal(b, []partition.ReplicaID{3}) {
		t.Fatalf("behind are %v", b)
	}
	w.node(3).install(w.check.copyOf(w.node(2).state.applied), w.node(2).state.clone())
	w.run(2 * time.Second)
	acked(t, w, 6)
	w.run(time.Second)
	if !w.node(3).state.equal(w.node(1).state) || len(w.node(1).rep.Status().Behind) != 0 {
		t.Errorf("afterwards: %s", w.node(3).rep.Status())
	}
}
