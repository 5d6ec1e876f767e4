package sim

import (
	"fmt"
	"slices"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
	"pando.dev/pando/wal"
)

type replicaApply = replica.Apply

// tick is the one input that needs no memory of its own.
var tick replica.Input = replica.Tick{}

// group is a group of replicas.
type group struct {
	ord     int
	id      partition.GroupID
	genesis *partition.Membership
	record  partition.Record
	nodes   []bool // by identity: may hold a replica
	behind  bool   // somebody lacks what only a copy brings back
	// table is the ordinal of the group that had all of its keys at the start,
	// parent the group that it was split from, -1 for none. One that is not born yet
	// has no genesis.
	table, parent int
}

// born reports whether there is such a group.
func (g *group) born() bool { return g.genesis != nil }

// on reports whether the node with this identity may hold a replica of the group.
func (g *group) on(who int) bool { return who < len(g.nodes) && g.nodes[who] }

// place notes that a node holds a replica of the group.
func (g *group) place(who int) {
	for len(g.nodes) <= who {
		g.nodes = append(g.nodes, false)
	}
	g.nodes[who] = true
}

// drawGroups are the groups of the plan, each a valid configuration.
func (w *world) drawGroups() (groups []*group) {
	for i := range w.k.Groups {
		g := &group{ord: i, id: partition.GroupID(i + 1), table: i, parent: -1}
		for try := uint64(0); ; try++ {
			if g.genesis = w.drawMembers(g, try); g.genesis.Validate() == nil {
				break
			}
		}
		rec, err := partition.Genesis(g.id, g.genesis)
		if err != nil {
			w.violate("group", "%s cannot be made: %v", g.id, err)
		}
		g.record = rec
		for _, m := range g.genesis.Members {
			g.place(w.whoIs[m.Node])
		}
		groups = append(groups, g)
	}
	for i := w.k.Groups; i < w.k.Groups+w.k.Splits; i++ {
		groups = append(groups, &group{ord: i, id: partition.GroupID(i + 1), parent: -1})
	}
	return groups
}

func (w *world) drawMembers(g *group, try uint64) *partition.Membership {
	h := func(about ...uint64) uint64 {
		return w.rnd.of(onPlace, append([]uint64{uint64(g.ord), try}, about...)...)
	}
	plain := try > 20
	m := &partition.Membership{Version: 1, Policy: w.drawPolicy(g.ord, try)}
	order := make([]int, len(w.nodes))
	for i := range order {
		j := pick(h(1, uint64(i)), i+1)
		order[i], order[j] = order[j], i
	}
	order = order[:min(max(1, w.k.Replicas), len(order))]
	slices.Sort(order)
	for i, place := range order {
		n := w.nodes[place]
		x := partition.Member{Replica: partition.ReplicaID(i + 1), Node: n.id, Zone: n.zone, Kind: partition.Full, Eligible: true}
		if share(h(2, uint64(i)), w.k.LogShare) && !plain {
			x.Kind = partition.LogReplica
		}
		if share(h(3, uint64(i)), w.k.WeightShare) && !plain {
			x.Weight = 2
		}
		m.Members = append(m.Members, x)
	}
	m.Next = partition.ReplicaID(len(m.Members) + 1)
	return m
}

func (w *world) drawPolicy(g int, try uint64) partition.Policy {
	h := w.rnd.of(onPolicy, uint64(g), try)
	zones := partition.Policy{Rule: partition.Zones, Zones: uint8(1 + pick(h>>8, min(2, max(1, w.k.Zones))))}
	switch {
	case try > 20 && w.k.PolicyMix != AllInSyncOnly:
	case w.k.PolicyMix == ZonesOnly, w.k.PolicyMix == MixedPolicies && h%6 == 1:
		return zones
	case w.k.PolicyMix == AllInSyncOnly, w.k.PolicyMix == MixedPolicies && h%6 == 0:
		return partition.Policy{Rule: partition.AllInSync}
	}
	return partition.Policy{Rule: partition.Majority}
}

// create writes the first record of a new group's replica.
func (d *disk) create(g *group, m partition.Member) error {
	x := wal.Write{Group: g.id, Replica: m.Replica, Commit: 1, Records: []partition.Record{g.record}}
	if m.Kind != partition.LogReplica {
		x.Generation = 1
		d.states[g.ord] = newState()
	}
	if err := d.log.append(&x, false); err != nil {
		return err
	}
	d.seen[g.ord].apply(&x)
	d.pending = append(d.pending, pendingWrite{w: x})
	return nil
}

// closeClean ends a log in order: everything in it is durable.
func (d *disk) closeClean() {
	for len(d.pending) > 0 {
		n, err := d.log.turn(len(d.pending))
		if err != nil {
			d.w.violate("log", "disk %d: %v", d.id, err)
		}
		d.settled(n)
	}
	if err := d.log.settle(); err != nil {
		d.w.violate("log", "disk %d: %v", d.id, err)
	}
	d.crash(false)
}

// master is the replica that serves in the newest epoch, or nil.
func (w *world) master(gi int) (best *host) {
	for _, n := range w.nodes {
		if !n.alive() {
			continue
		}
		if h := n.hosts[gi]; h != nil && h.serving && (best == nil || h.view.Epoch > best.view.Epoch) {
			best = h
		}
	}
	return best
}

// String is the group's id with its members.
func (g *group) String() string { return fmt.Sprintf("%s %s", g.id, showMembers(g.genesis)) }

func showMembers(m *partition.Membership) string {
	s := fmt.Sprintf("v%d %s", m.Version, m.Policy)
	for _, x := range m.Members {
		s += fmt.Sprintf(" %d:%s", x.Replica, x.Node)
		if x.Kind != partition.Full {
			s += "/" + x.Kind.String()
		}
		if !x.Eligible {
			s += "-"
		}
		if x.Weight > 1 {
			s += fmt.Sprintf("*%d", x.Weight)
		}
	}
	return s
}
