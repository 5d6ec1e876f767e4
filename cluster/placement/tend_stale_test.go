package placement

import (
	"testing"
	"time"

	"pando.dev/pando/partition"
)

// stale are two members of five that were away for so long that they do not count any
// more, and are back: the first with less to get than the second.
func stale(t *testing.T, less, more PeerState) (w *world, cheap, dear partition.Member) {
	t.Helper()
	w = newWorld(t, cluster(7, 7), 5, majority())
	for _, x := range w.s.Membership.Members {
		switch {
		case x.Replica == w.s.Self:
		case cheap.Node == "":
			cheap = x
		default:
			dear = x
		}
	}
	w.kill(cheap.Node)
	w.kill(dear.Node)
	w.s.Now += 20 * time.Second
	for w.step() {
	}
	if w.on(cheap.Node).Eligible || w.on(dear.Node).Eligible {
		t.Fatalf("they count still: %s", w.describe())
	}
	w.revive(cheap.Node)
	w.revive(dear.Node)
	less.Replica, more.Replica = cheap.Replica, dear.Replica
	less.Present, less.State, more.Present, more.State = true, true, true, true
	*w.peer(cheap.Replica), *w.peer(dear.Replica) = less, more
	return w, cheap, dear
}

// CAT-7: of two stale replicas of which one is needed the one stays that takes less to
// bring up to date: its log's tail rather than a copy, and the shorter tail.
func TestTendKeepsTheLessStale(t *testing.T) {
	for name, x := range map[string]struct{ less, more PeerState }{
		"a tail, and a copy":     {PeerState{Lacks: 1 << 40}, PeerState{Behind: true, Lacks: 10}},
		"two tails":              {PeerState{Lacks: 10}, PeerState{Lacks: 1000}},
		"caught up, and a tail":  {PeerState{CaughtUp: true}, PeerState{Lacks: 1}},
		"a state, and only some": {PeerState{Lacks: 10}, PeerState{Lacks: 11}},
	} {
		for swapped := range 2 { // whatever else tells them apart: zone, score, id
			w, cheap, dear := stale(t, x.less, x.more)
			if swapped == 1 {
				cheap, dear = dear, cheap
				a, b := *w.peer(cheap.Replica), *w.peer(dear.Replica)
				a.Replica, b.Replica = b.Replica, a.Replica
				*w.peer(b.Replica), *w.peer(a.Replica) = b, a
			}
			w.s.Spec.Replicas = 4
			for range 10 { // neither has got any further yet
				step := Tend(&w.s)
				if step.Kind != Configure {
					break
				}
				w.configure(step)
			}
			_, keeps := w.s.Membership.Member(cheap.Replica)
			_, still := w.s.Membership.Member(dear.Replica)
			if !keeps || still {
				t.Errorf("%s, %d: kept %v, the other one is still there: %v: %s", name, swapped, keeps, still, w.describe())
			}
		}
	}
}

// CAT-7: one that does not come back in time is not needed any more: another takes its
// place, and it is no member when it comes. (What it has is deleted then: see
// TestReplicaIsBroughtUpByCopy of actors.)
func TestTendForgetsTheStale(t *testing.T) {
	w := newWorld(t, cluster(4, 4), 3, majority())
	lost := w.other()
	id := w.on(lost).Replica
	w.kill(lost)
	w.s.Now += 5*time.Minute - time.Second
	for w.step() {
	}
	if _, member := w.s.Membership.Member(id); !member {
		t.Fatalf("before its time: %s", w.describe())
	}
	w.s.Now += time.Second
	w.settled()
	w.revive(lost)
	w.settled()
	if _, member := w.s.Membership.Member(id); member || len(w.s.Membership.Members) != 3 {
		t.Fatalf("%s", w.describe())
	}
}

// PFC-7: a learner is made a full member only when it has a state and follows the log;
// with only one of them it is not, however long that takes.
func TestTendWaitsForBaseAndTail(t *testing.T) {
	for name, x := range map[string]struct {
		p    PeerState
		full bool
	}{
		"nothing":       {PeerState{}, false},
		"only the log":  {PeerState{Present: true, CaughtUp: true}, false},
		"only the base": {PeerState{Present: true, State: true, Lacks: 10}, false},
		"behind":        {PeerState{Present: true, State: true, Behind: true}, false},
		"both":          {PeerState{Present: true, State: true, CaughtUp: true}, true},
	} {
		w := newWorld(t, cluster(4, 4), 3, majority())
		next := w.s.Membership.Successor()
		n := w.node(w.free()[0])
		id := next.Add(partition.Member{Node: n.ID, Zone: n.Zone, Kind: partition.Learner, Eligible: true})
		w.s.Membership = next
		w.s.Spec.Replicas = 4
		w.sync()
		x.p.Replica, x.p.Asked = id, w.s.Now
		*w.peer(id) = x.p
		w.s.Now += time.Second
		step := Tend(&w.s)
		y := partition.Member{}
		if step.Kind == Configure {
			y, _ = step.Next.Member(id)
		}
		if got := y.Kind == partition.Full; got != x.full {
			t.Errorf("%s: %+v", name, step)
		}
	}
}
