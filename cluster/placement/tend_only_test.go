package placement

import (
	"testing"

	"pando.dev/pando/partition"
)

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
