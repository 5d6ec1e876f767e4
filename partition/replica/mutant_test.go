package replica

import (
	"testing"
	"time"

	"pando.dev/pando/internal/planted"
	"pando.dev/pando/partition"
)

// TestMutants plants each known mistake and requires that the properties notice
// it: a property counts only after it was seen to fail. first is near a seed
// that shows the mistake; when the code changes, the search goes on from there.
func TestMutants(t *testing.T) {
	if testing.Short() {
		t.Skip("properties are for the long mode")
	}
	const limit = 4000
	for _, m := range []struct {
		name    string
		mut     planted.Bug
		profile string
		first   uint64
	}{
		{"promise not bound to one candidate", planted.SharedPromise, "bad-lock", 1},
		{"newer by index only", planted.NewerByIndex, "plain", 1},
		{"no snip", planted.NoSnip, "plain", 1},
		{"truncation on a stale append", planted.SnipOnStale, "plain", 1},
		{"no own-epoch rule", planted.AnyEpochCommit, "figure-8", 130},
		{"configuration not joint", planted.NotJoint, "membership", 1},
		{"changed before an own record is committed", planted.ConfigureEarly, "membership", 1},
		{"two changes in flight", planted.TwoInFlight, "membership", 660},
		{"solo without a permit", planted.SoloUnpermitted, "solo", 1},
		{"permit given back early", planted.ReleaseEarly, "solo", 1},
		{"alone before that is on disk", planted.AloneUnsynced, "solo", 1440},
		{"alone by the joint rule", planted.JointAlone, "solo", 1},
		{"log replica lets go of what a full voter lacks", planted.EverywhereAny, "membership", 2420},
		{"deleted at commit", planted.RetireEarly, "membership", 1},
		{"learner promoted without catching up", planted.PromoteUnready, "membership", 770},
		{"membership adopted from a losing log", planted.LosingMembership, "membership", 1430},
		{"no lease wait", planted.NoLeaseWait, "plain", 1},
		{"quorum read during the wait", planted.ReadInWait, "plain", 185},
		{"grant that outlives a newer promise", planted.GrantOutlives, "plain", 1},
		{"restart that forgets its grants", planted.ForgetGrants, "plain", 1},
		{"lease released, view kept", planted.KeepView, "transfers", 1},
		{"no wait for a newer epoch than the released", planted.SkipNewerLease, "transfers", 1},
		{"learner counted", planted.LearnerCounts, "membership", 1},
		{"acknowledged before the disk", planted.AckUnsynced, "plain", 1},
		{"mastership resumed after a restart", planted.ResumeMastership, "plain", 1},
		{"an appointed mastership resumed after a restart", planted.ResumeMastership, "appointed", 1},
		{"quorum read that asks nobody", planted.ReadUnconfirmed, "plain", 1},
		{"a retry executed again", planted.ExecuteTwice, "sessions", 1},
		{"answered before applied and allowed", planted.ReplyUnapplied, "plain", 1},
		{"any supporters suffice", planted.AlwaysFailover, "bad-lock", 1},
	} {
		t.Run(m.name, func(t *testing.T) {
			p := profiles()[m.profile]
			p.mut = m.mut
			for seed := m.first; seed < m.first+limit; seed++ {
				if _, err := play(seed, p); err != nil {
					t.Logf("caught by %v", err)
					return
				}
			}
			t.Errorf("not caught in %d schedules", limit)
		})
	}
}

// forgottenPromise is the story that a missing fsync of the promise spoils; the
// random schedules of "amnesia" come upon it only once in some hundred. Replica 2
// promises epoch 2.3, answers, loses its power with the promise, comes back, and
// helps the old master to commit. Then the new master's append reaches it.
func forgottenPromise(mut planted.Bug) error {
	return violations(func() {
		k := calm()
		k.diskMin, k.diskMax = 5*time.Millisecond, 5*time.Millisecond
		w := newWorld(1, k)
		w.mut = mut
		w.start(members(3))
		w.run(time.Second)
		w.cut[[2]partition.ReplicaID{1, 3}], w.cut[[2]partition.ReplicaID{3, 1}] = true, true
		w.lock.forgets = true
		w.point = func(n *node, what string) {
			if n.id != 2 || what != "promised" {
				return
			}
			w.point = nil
			w.after(1500*time.Microsecond, func() {
				n.crashKeeping(0)
				w.cut[[2]partition.ReplicaID{3, 2}] = true
				n.boots()
			})
			w.after(30*time.Millisecond, func() { w.check.write(w.node(1), &op{id: 1}) })
		}
		w.node(2).take(NodeDown{"n1"})
		w.node(3).take(NodeDown{"n1"})
		w.run(150 * time.Millisecond)
		delete(w.cut, [2]partition.ReplicaID{3, 2})
		w.run(300 * time.Millisecond)
		clear(w.cut)
		w.hints()
		w.run(5 * time.Second)
		w.check.write(w.master(), &op{id: 2})
		w.run(time.Second)
		for _, n := range w.nodes {
			if !n.holds(2) || n.rep.commit != w.node(1).rep.commit {
				w.check.violated("replica %d: %s", n.id, n.rep.Status())
			}
		}
	})
}

func TestForgottenPromise(t *testing.T) {
	if err := forgottenPromise(0); err != nil {
		t.Errorf("as it is: %v", err)
	}
	if err := forgottenPromise(planted.NoPromiseSync); err == nil {
		t.Error("no fsync of the promise is not caught")
	} else {
		t.Logf("no fsync of the promise is caught by %v", err)
	}
}

// forgottenSupport is the story of golden 39 up to where it matters: replica 3,
// whose promise to replica 2 its node has forgotten with it, seems to support the
// old master again.
func forgottenSupport(mut planted.Bug) error {
	return violations(func() {
		w := newWorld(1, calm())
		w.mut = mut
		w.start(members(3))
		w.run(time.Second)
		w.isolate(1, true)
		w.run(time.Second)
		for _, gone := range []partition.ReplicaID{1, 3} {
			w.node(2).configure(false, func(m *partition.Membership) { m.Remove(gone) })
			w.run(2 * time.Second)
		}
		if w.check.retired == 0 {
			w.check.violated("replica 3 was not deleted: %s", w.node(3).rep.Status())
		}
		w.check.write(w.node(2), &op{id: 1})
		w.run(time.Second)
		w.node(3).boots()
		clear(w.cut)
		w.isolate(1, true)
		delete(w.cut, [2]partition.ReplicaID{1, 3})
		delete(w.cut, [2]partition.ReplicaID{3, 1})
		for range 20 {
			w.run(50 * time.Millisecond)
			w.check.tryLeaseRead(w.node(1))
		}
	})
}

// TestForgottenSupport (LEA-2): a grant counts only from the incarnation in which
// the replica has confirmed the epoch.
func TestForgottenSupport(t *testing.T) {
	if err := forgottenSupport(0); err != nil {
		t.Errorf("as it is: %v", err)
	}
	if err := forgottenSupport(planted.GrantOfAnotherBoot); err == nil {
		t.Error("a grant of another incarnation is not caught")
	} else {
		t.Logf("a grant of another incarnation is caught by %v", err)
	}
}
