package placement

import (
	"testing"

	"pando.dev/pando/partition"
)

// A learner that a split has asked for is brought up with the state, stays as what
// it is, and goes when nobody asks for it any more.
func TestTendGuests(t *testing.T) {
	w := newWorld(t, cluster(6, 3), 3, majority())
	w.settled()
	var guest partition.NodeID
	for _, n := range w.s.Nodes {
		if _, member := w.s.Membership.OnNode(n.ID); !member {
			guest = n.ID
		}
	}
	next := w.s.Membership.Successor()
	r := next.Add(partition.Member{Node: guest, Zone: w.node(guest).Zone, Kind: partition.Learner, Eligible: true})
	w.s.Membership, w.s.Guests = next, []partition.NodeID{guest}
	w.sync()
	if step := Tend(&w.s); step.Kind != Host || step.Node != guest || step.LogOnly {
		t.Fatalf("%+v", step)
	}
	*w.peer(r) = PeerState{Replica: r, Present: true, CaughtUp: true}
	if step := Tend(&w.s); step.Kind != Host || step.Node != guest {
		t.Fatalf("it has the log and no state: %+v", step)
	}
	w.settle()
	if x, ok := w.s.Membership.Member(r); !ok || x.Kind != partition.Learner || !w.peer(r).State {
		t.Fatalf("the guest is %+v, known as %+v", x, w.peer(r))
	}
	// One of the others is away for good: somebody else takes its place.
	w.kill(w.s.Membership.Members[1].Node)
	w.settle()
	if x, _ := w.s.Membership.Member(r); x.Kind != partition.Learner {
		t.Fatalf("the guest is made %+v", x)
	}
	// A log replica on such a node is none of them.
	w.s.Guests = nil
	for i := range w.s.Membership.Members {
		if x := w.s.Membership.Members[i]; x.Replica == r {
			next := w.s.Membership.Successor()
			next.At(r).Kind = partition.LogReplica
			s := w.s
			s.Membership, s.Guests = next, []partition.NodeID{guest}
			if step := Tend(&s); step.Kind != Configure {
				t.Fatalf("a log replica that nobody needs: %+v", step)
			}
		}
	}
	w.settled()
	if _, ok := w.s.Membership.Member(r); ok {
		t.Fatal("the guest stays for ever")
	}
}

// The zone of a guest is none that a replica could move to: the guest never
// becomes a member that counts.
func TestTendGuestOpensNoZone(t *testing.T) {
	w := newWorld(t, []Node{{ID: "a", Zone: "z0"}, {ID: "b", Zone: "z0"}, {ID: "c", Zone: "z0"}}, 2, zones(1))
	w.s.Nodes = append(w.s.Nodes, NodeState{Node: Node{ID: "d", Zone: "z1"}, Up: true})
	next := w.s.Membership.Successor()
	r := next.Add(partition.Member{Node: "d", Zone: "z1", Kind: partition.Learner, Eligible: true})
	w.s.Membership, w.s.Guests = next, []partition.NodeID{"d"}
	w.sync()
	*w.peer(r) = PeerState{Replica: r, Present: true, CaughtUp: true, State: true}
	if why := w.settle(); why != "" || w.s.Membership.Version != next.Version {
		t.Errorf("%q: %s", why, w.describe())
	}
}
