package actors

import (
	"strings"
	"testing"

	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

// shapeGroup is a group of the catalog whose first configuration is of n1, n2, n3
// in zones a, b, c.
func shapeGroup(t *testing.T, policy string) *control.Group {
	t.Helper()
	p, err := partition.ParsePolicy(policy)
	if err != nil {
		t.Fatal(err)
	}
	m := &partition.Membership{Version: 1, Policy: p, Next: 4}
	for i, n := range []partition.NodeID{"n1", "n2", "n3"} {
		m.Members = append(m.Members, partition.Member{
			Replica: partition.ReplicaID(i + 1), Node: n, Zone: string(rune('a' + i)), Kind: partition.Full, Eligible: true,
		})
	}
	return &control.Group{ID: 7, Membership: m}
}

func peers(g *control.Group, nodes ...partition.NodeID) map[reportKey]report {
	all := map[reportKey]report{}
	for _, n := range nodes {
		all[reportKey{g.ID, n}] = report{Group: g.ID, Role: "peer", Last: 9}
	}
	return all
}

func masters(r map[reportKey]report, g *control.Group, node partition.NodeID, number uint64, configs ...*partition.Membership) {
	r[reportKey{g.ID, node}] = report{
		Group: g.ID, Role: "master", Serving: true, Epoch: partition.NewEpoch(number, 1), Configs: encodeConfigurations(configs),
	}
}

// TestPartitionShape: what is shown is the configuration that the newest master
// has, with what is under way, and what can be lost counts every one in force.
func TestPartitionShape(t *testing.T) {
	g := shapeGroup(t, "majority")
	second := g.Membership.Successor()
	second.At(3).Eligible = false
	second.Add(partition.Member{Node: "n4", Zone: "c", Kind: partition.LogReplica, Eligible: true})
	third := second.Successor()
	third.Add(partition.Member{Node: "n5", Zone: "a", Kind: partition.Learner, Eligible: true})

	r := peers(g, "n1", "n2", "n3", "n4", "n5")
	masters(r, g, "n1", 9, third)
	masters(r, g, "n2", 5, g.Membership) // cut off, and does not know it
	var p PartitionInfo
	fillReplicas(&p, g, r, nil)
	if p.Version != 3 || p.InFlight || p.Master != "n1" || len(p.Replicas) != 5 {
		t.Fatalf("%+v", p)
	}
	kinds := ""
	for _, x := range p.Replicas {
		kinds += " " + x.Kind
		if !x.Eligible {
			kinds += "/out"
		}
	}
	if kinds != " full full full/out log learner" {
		t.Error(kinds)
	}
	// n3 counts for nothing, the log replica does: two of n1, n2, n4.
	if p.CanLose != 1 || !strings.Contains(p.Rule, "two of three voters") || !strings.Contains(p.Rule, "n4 keeps only the log") {
		t.Errorf("can lose %d: %s", p.CanLose, p.Rule)
	}
	delete(r, reportKey{g.ID, "n4"})
	fillReplicas(&p, g, r, map[partition.NodeID]bool{"n4": true})
	if p.CanLose != 0 {
		t.Errorf("without the log replica: can lose %d", p.CanLose)
	}

	// While the second is not committed the first counts as well: n1, n2 and n3
	// need two of them, whatever n4 does.
	var joint PartitionInfo
	r = peers(g, "n1", "n4")
	masters(r, g, "n1", 9, g.Membership, second)
	fillReplicas(&joint, g, r, map[partition.NodeID]bool{"n2": true, "n3": true})
	if !joint.InFlight || joint.Version != 2 || joint.CanLose != -1 || !strings.Contains(joint.Missing, "n2") {
		t.Errorf("a change under way: %+v", joint)
	}
}

// TestPartitionMissing: LOC-3, LOC-6: which zone is missing, also when no master
// is there to tell the configuration.
func TestPartitionMissing(t *testing.T) {
	g := shapeGroup(t, "zones:2")
	silent := map[partition.NodeID]bool{"n2": true, "n3": true}
	var p PartitionInfo
	fillReplicas(&p, g, peers(g, "n1"), silent)
	const want = "it cannot fail over or commit: missing are zone b (n2) and zone c (n3); one of them has to come back"
	if p.Missing != want || p.CanLose != -1 || p.Version != 1 {
		t.Errorf("%q, can lose %d", p.Missing, p.CanLose)
	}
	if got := limits(p); !strings.Contains(got, want) {
		t.Errorf("status says %q", got)
	}
	// A replica that looks for a master knows a newer configuration than the catalog.
	second := g.Membership.Successor()
	second.Remove(3)
	r := peers(g, "n1")
	r[reportKey{g.ID, "n1"}] = report{Group: g.ID, Role: "probing", Configs: encodeConfigurations(partition.Configurations{second})}
	var q PartitionInfo
	fillReplicas(&q, g, r, silent)
	if q.Version != 2 || len(q.Replicas) != 2 || !strings.HasPrefix(q.Missing, "it cannot commit: missing is zone b (n2)") {
		t.Errorf("%+v", q)
	}
	// And an older one than the catalog does not count.
	g.Membership = second.Successor()
	fillReplicas(&q, g, r, silent)
	if q.Version != 3 {
		t.Errorf("version %d is shown, the catalog has 3", q.Version)
	}
	// A removed replica does not count as there.
	gone := shapeGroup(t, "majority")
	r = peers(gone, "n1", "n2")
	masters(r, gone, "n1", 3, gone.Membership)
	x := r[reportKey{gone.ID, "n2"}]
	x.Removed = true
	r[reportKey{gone.ID, "n2"}] = x
	var s PartitionInfo
	fillReplicas(&s, gone, r, map[partition.NodeID]bool{"n3": true})
	if s.CanLose != -1 || s.Replicas[1].Role != "removed" {
		t.Errorf("%+v", s)
	}
}

// TestPartitionSolo: a pair of which one goes on alone says so until the other is
// back, and a replica that is gone for good is named and no more.
func TestPartitionSolo(t *testing.T) {
	g := shapeGroup(t, "all-in-sync")
	next := g.Membership.Successor()
	next.At(2).Eligible, next.At(3).Eligible = false, false
	alone := partition.Configurations{g.Membership}.GoAlone(next, 5)
	r := peers(g, "n1")
	masters(r, g, "n1", 9, alone)
	var p PartitionInfo
	fillReplicas(&p, g, r, nil)
	if p.Solo != "n1 goes on alone, in-sync number 5" || len(p.LeftBehind) != 2 || p.CanLose != 0 {
		t.Errorf("%+v", p)
	}
	later := alone.Successor()
	later.Remove(2)
	later.Remove(3)
	masters(r, g, "n1", 9, later)
	var q PartitionInfo
	fillReplicas(&q, g, r, nil)
	if q.Solo != "" || len(q.LeftBehind) != 2 {
		t.Errorf("%+v", q)
	}
}

// TestMayLead: beside a decree another survivor may be master only when it has on
// disk what its master knows to be committed.
func TestMayLead(t *testing.T) {
	g := shapeGroup(t, "majority")
	m := g.Membership.Successor()
	m.At(3).Kind = partition.LogReplica
	m.Add(partition.Member{Node: "n4", Kind: partition.Learner})
	st := &replica.Status{Commit: 10, Peers: []replica.PeerStatus{{Replica: 2, Match: 10}, {Replica: 3, Match: 12}, {Replica: 4, Match: 12}}}
	active := partition.Configurations{m}
	if able, left := mayLead(active, st, nil); len(able) != 1 || able[0] != 2 || left != 0 {
		t.Errorf("%v, %d left", able, left)
	}
	if able, left := mayLead(active, st, map[partition.ReplicaID]bool{2: true}); len(able) != 0 || left != 0 {
		t.Errorf("told already: %v, %d left", able, left)
	}
	st.Peers[0].Match = 9
	if able, left := mayLead(active, st, nil); len(able) != 0 || left != 1 {
		t.Errorf("behind: %v, %d left", able, left)
	}
	if able, left := mayLead(partition.Configurations{g.Membership, m}, st, nil); len(able) != 0 || left == 0 {
		t.Errorf("a change under way: %v, %d left", able, left)
	}
}

// TestUsualReplicas: how many replicas a table gets that names no number.
func TestUsualReplicas(t *testing.T) {
	for _, c := range []struct {
		policy             string
		named, nodes, want int
	}{
		{"majority", 0, 1, 1}, {"majority", 0, 2, 2}, {"majority", 0, 9, 3}, {"majority", 5, 9, 5},
		{"all-in-sync", 0, 9, 2}, {"all-in-sync", 0, 1, 1}, {"all-in-sync", 3, 9, 3},
		{"zones:2", 0, 9, 3}, {"zones:2", 0, 2, 2}, {"zones:5", 0, 9, 5}, {"zones:2", 0, 1, 2},
	} {
		p, err := partition.ParsePolicy(c.policy)
		if err != nil {
			t.Fatal(err)
		}
		if got := usualReplicas(p, c.named, c.nodes); got != c.want {
			t.Errorf("%s on %d of %d nodes: %d, want %d", c.policy, c.named, c.nodes, got, c.want)
		}
	}
}
