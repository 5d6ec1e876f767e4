package placement

import (
	"strings"
	"testing"

	"pando.dev/pando/partition"
)

// A learner in a zone that is held already takes no place that another zone needs
// for the policy to be met: it goes, and one from there comes. While nobody could
// come from there it stays, and the reason is said.
func TestTendLearnerInHeldZone(t *testing.T) {
	w := newWorld(t, cluster(4, 2), 2, zones(2)) // n-0 and n-2 in z0, n-1 and n-3 in z1
	old, self := w.on("n-2"), w.on("n-3")
	if old.Replica == 0 || self.Replica == 0 {
		t.Fatalf("placed elsewhere: %s", w.describe())
	}
	w.s.Self = self.Replica
	w.kill("n-0")
	w.node("n-2").Zone = "z1"
	w.s.Request = Request{Kind: ReplaceReplica, Replica: old.Replica}
	if why := w.settle(); !strings.Contains(why, "zones:2") || w.on("n-1").Kind != partition.Learner {
		t.Fatalf("nobody is left in z0: %q, %s", why, w.describe())
	}
	w.revive("n-0")
	w.settled()
	if w.on("n-0").Kind != partition.Full || w.on("n-1").Replica != 0 {
		t.Errorf("nobody is in z0: %s", w.describe())
	}
}

// One of those that share a zone moves to one that holds none, whoever is there
// in a zone that is held.
func TestTendLearnerInCrowdedZone(t *testing.T) {
	w := newWorld(t, cluster(4, 2), 4, zones(2))
	w.s.Nodes = append(w.s.Nodes, NodeState{Node: Node{ID: "e", Zone: "z0"}, Up: true}, NodeState{Node: Node{ID: "f", Zone: "z2"}, Up: true})
	next := w.s.Membership.Successor()
	r := next.Add(learnerOn(*w.node("e")))
	w.s.Membership, w.s.Self = next, w.on("n-0").Replica
	w.sync()
	*w.peer(r) = PeerState{Replica: r, Present: true, CaughtUp: true, State: true}
	w.settled()
	if w.on("f").Kind != partition.Full {
		t.Errorf("nobody is in z2: %s", w.describe())
	}
}

// Of replicas that are too many another one goes than the one that is missed
// least, if the policy counts that in a zone which its node has left.
func TestTendTooManyInOneZone(t *testing.T) {
	for g := range 10 { // in some of them it is the one that is missed least
		w := newWorld(t, cluster(4, 3), 4, zones(3)) // n-0 and n-3 in z0
		moved := w.on("n-1")
		w.s.Group, w.s.Self = partition.GroupID(g), w.on("n-2").Replica
		w.node("n-1").Zone = "z0"
		w.s.Nodes = append(w.s.Nodes, NodeState{Node: Node{ID: "x", Zone: "z1"}, Up: true})
		w.s.Spec.Replicas = 3
		w.settled()
		if x := w.on("x"); x.Kind != partition.Full || moved.Zone != "z1" {
			t.Errorf("nobody is in z1: %s", w.describe())
		}
	}
}

// A stand-in that nobody needs stays while one of those that are to stay does not
// answer: without it fewer losses would be survived.
func TestTendKeepsStandIn(t *testing.T) {
	w := newWorld(t, cluster(4, 4), 4, majority())
	w.s.Nodes = append(w.s.Nodes, NodeState{Node: Node{ID: "n-4", Zone: "z4"}, Up: true})
	next := w.s.Membership.Successor()
	r := next.Add(partition.Member{Node: "n-4", Zone: "z4", Kind: partition.LogReplica, Eligible: true})
	w.s.Membership = next
	w.sync()
	*w.peer(r) = PeerState{Replica: r, Present: true, CaughtUp: true}
	lost := w.other()
	w.kill(lost)
	for w.step() {
	}
	if _, ok := w.s.Membership.Member(r); !ok || w.canLose() != 1 {
		t.Errorf("it can lose %d: %s", w.canLose(), w.describe())
	}
	w.revive(lost)
	w.settled()
}

// A node is not drained if the policy could not be met by those that would be left.
func TestCanDrainLastOfZone(t *testing.T) {
	w := newWorld(t, cluster(3, 3), 3, zones(3))
	node := w.other()
	if why := CanDrain(&w.s, node); !strings.Contains(why, "zones:3") {
		t.Errorf("one of three zones of which all are needed: %q", why)
	}
	w = newWorld(t, cluster(3, 3), 3, zones(2))
	if why := CanDrain(&w.s, w.other()); why != "" {
		t.Errorf("one of three zones of which two are needed: %q", why)
	}
}

// The only replica of a group is replaced by a second one, which takes the
// mastership over, and goes.
func TestTendReplacesOnlyReplica(t *testing.T) {
	w := newWorld(t, cluster(3, 3), 1, majority())
	old, to := w.s.Membership.Members[0], w.free()[0]
	w.s.Request = Request{Kind: ReplaceReplica, Replica: old.Replica, Node: to}
	w.settled()
	w.s.Request = Request{}
	w.settled()
	if len(w.s.Membership.Members) != 1 || w.on(to).Kind != partition.Full {
		t.Fatalf("replaced: %s", w.describe())
	}
}
