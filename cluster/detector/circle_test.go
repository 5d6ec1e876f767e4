package detector

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pando.dev/pando/partition"
)

// circle is a few nodes, each with a detector, that hear all of each other.
type circle struct {
	t     *testing.T
	now   partition.Time
	nodes map[partition.NodeID]*Detector
	// sample says what a node measures in second s.
	sample func(id partition.NodeID, s int) Sample
	deaf   map[partition.NodeID]bool // hears itself only
	silent map[partition.NodeID]bool
	told   map[partition.NodeID][]Verdict
	said   map[partition.NodeID][]Claim
	second int
}

func newCircle(t *testing.T, nodes int, c Config) *circle {
	x := &circle{
		t: t, nodes: map[partition.NodeID]*Detector{}, deaf: map[partition.NodeID]bool{}, silent: map[partition.NodeID]bool{},
		told: map[partition.NodeID][]Verdict{}, said: map[partition.NodeID][]Claim{},
	}
	for i := range nodes {
		c.Self = partition.NodeID(fmt.Sprintf("n%d", i+1))
		x.nodes[c.Self] = New(c)
	}
	return x
}

func (x *circle) ids() []partition.NodeID {
	var out []partition.NodeID
	for i := range len(x.nodes) {
		out = append(out, partition.NodeID(fmt.Sprintf("n%d", i+1)))
	}
	return out
}

// run lets seconds pass.
func (x *circle) run(seconds int) {
	for range seconds {
		x.second++
		x.now += time.Second
		var all []Sample
		for _, id := range x.ids() {
			s := x.sample(id, x.second)
			s.Node, s.Claims = id, x.said[id]
			if err := s.Check(); err != nil {
				x.t.Fatal(err)
			}
			if !x.silent[id] {
				all = append(all, s)
			}
		}
		for _, id := range x.ids() {
			heard := all
			if x.deaf[id] {
				heard = slices.DeleteFunc(slices.Clone(all), func(s Sample) bool { return s.Node != id })
			}
			d := x.nodes[id]
			x.told[id] = append(x.told[id], d.Observe(x.now, heard)...)
			x.said[id] = d.Claims()
		}
	}
}

// verdict returns the only verdict in force on a node.
func (x *circle) verdict(at partition.NodeID) Verdict {
	x.t.Helper()
	all := x.nodes[at].Verdicts()
	if len(all) != 1 {
		x.t.Fatalf("verdicts on %s: %+v", at, all)
	}
	return all[0]
}

// calm is a sample of a node that is well.
func (x *circle) calm(id partition.NodeID) Sample {
	s := Sample{Boot: 1, Sync: 3 * time.Millisecond, Late: 2 * time.Millisecond, Queue: 10, Load: 1000}
	for _, other := range x.ids() {
		if other != id {
			s.Peers = append(s.Peers, Peer{Node: other, RTT: 2 * time.Millisecond})
		}
	}
	return s
}

// slowed is calm with the round trips to one node, or of it to all, changed.
func (x *circle) slowed(id partition.NodeID, slow func(a, b partition.NodeID) bool) Sample {
	s := x.calm(id)
	for i := range s.Peers {
		if slow(id, s.Peers[i].Node) {
			s.Peers[i].RTT *= 20
		}
	}
	return s
}

func is(ids ...partition.NodeID) func(a, b partition.NodeID) bool {
	return func(a, b partition.NodeID) bool { return slices.Contains(ids, a) || slices.Contains(ids, b) }
}

// losing is calm with links that are lost every 20 s.
func (x *circle) losing(id partition.NodeID, s int, lost func(a, b partition.NodeID) bool) Sample {
	m := x.calm(id)
	for i := range m.Peers {
		if lost(id, m.Peers[i].Node) {
			m.Peers[i].Downs = uint64(s / 20)
		}
	}
	return m
}
