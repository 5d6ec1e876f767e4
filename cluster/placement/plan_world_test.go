package placement

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"pgregory.net/rapid"

	"pando.dev/pando/partition"
)

// A layout as tests draw it, and the hard rules written once more, the plain way.

func drawLayout(t *rapid.T) *Layout {
	zones := rapid.IntRange(1, 4).Draw(t, "zones")
	nodes := make([]PlanNode, rapid.IntRange(1, 10).Draw(t, "nodes"))
	disks := rapid.Bool().Draw(t, "disks")
	for i := range nodes {
		nodes[i].ID = partition.NodeID(fmt.Sprintf("n-%d", i))
		nodes[i].Zone = fmt.Sprintf("z%d", rapid.IntRange(0, zones-1).Draw(t, "zone"))
		nodes[i].Weight = rapid.Uint32Range(0, 3).Draw(t, "weight")
		if disks {
			nodes[i].Capacity[DimBytes] = rapid.Int64Range(500, 5000).Draw(t, "disk")
		}
		switch rapid.IntRange(0, 11).Draw(t, "mark") {
		case 0:
			nodes[i].New = true
		case 1:
			nodes[i].Leaving = true
		case 2:
			nodes[i].Closed = true
		case 3:
			nodes[i].Lost = true
		}
	}
	l, err := NewLayout(nodes)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
	even := rapid.Bool().Draw(t, "equal groups")
	for g := range rapid.IntRange(0, 80).Draw(t, "groups") {
		rf := 1 + r.IntN(min(4, len(nodes)))
		p := PlanGroup{Group: partition.GroupID(g + 1), Range: 1, Membership: 1, Bytes: 10, Lead: 10, Follow: 5, Written: 3, Master: 1}
		if !even {
			p.Bytes, p.Lead, p.Follow, p.Written = int64(1+r.IntN(100)), uint32(1000/(1+g)), uint32(r.IntN(20)), uint32(r.IntN(9))
		}
		for o, n := range r.Perm(len(nodes))[:rf] {
			p.Members = append(p.Members, PlanMember{Replica: partition.ReplicaID(o + 1), Node: nodes[n].ID})
		}
		if r.IntN(20) == 0 {
			p.Replicas = min(len(nodes), rf+1)
		}
		p.Busy = r.IntN(20) == 0
		if err := l.Add(p); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// truth is an assignment kept in maps, to check plans against.
type truth struct {
	nodes  map[partition.NodeID]PlanNode
	groups map[partition.GroupID]*PlanGroup
	disk   map[partition.NodeID]int64
	zones  map[string]int // nodes that stay
}

func truthOf(l *Layout) *truth {
	w := &truth{nodes: map[partition.NodeID]PlanNode{}, groups: map[partition.GroupID]*PlanGroup{}, disk: map[partition.NodeID]int64{}}
	w.zones = map[string]int{}
	for _, n := range l.Nodes() {
		w.nodes[n.ID] = n
		if !n.Leaving && !n.Lost {
			w.zones[n.Zone]++
		}
	}
	for g := range l.Groups() {
		p := l.Group(g)
		w.groups[p.Group] = &p
		for _, m := range p.Members {
			w.disk[m.Node] += p.Bytes
		}
	}
	return w
}

// spread is in how many zones a group is, and how many of it are in one at most.
func (w *truth) spread(g *PlanGroup) (count, most int) {
	zones := map[string]int{}
	for _, m := range g.Members {
		if n := w.nodes[m.Node]; !n.Lost {
			zones[n.Zone]++
			most = max(most, zones[n.Zone])
		}
	}
	return len(zones), most
}

// evenly is how many of so many replicas one zone has at most, if they are dealt
// out to the zones in turn as long as they have nodes.
func (w *truth) evenly(replicas int) int {
	for most := 1; ; most++ {
		room := 0
		for _, nodes := range w.zones {
			room += min(nodes, most)
		}
		if room >= replicas || most >= replicas {
			return most
		}
	}
}

// do executes an operator and returns what is wrong with it.
func (w *truth) do(op *Operator, diskHigh float64) error {
	g, to, from := w.groups[op.Group], w.nodes[op.To], w.nodes[op.From]
	if g == nil || op.Group != g.Group {
		return fmt.Errorf("no such group")
	}
	if g.Busy {
		return fmt.Errorf("the group is busy")
	}
	if !to.open() {
		return fmt.Errorf("%s may not receive", op.To)
	}
	if from.New && from.open() && op.Mode != Emergency {
		return fmt.Errorf("%s is new and gives", op.From)
	}
	if op.Mode == Filling && !to.New {
		return fmt.Errorf("%s is not new and is filled", op.To)
	}
	if op.Range != 1 || op.Membership != 1 || op.Why == "" {
		return fmt.Errorf("versions or reason missing")
	}
	at := func(n partition.NodeID) int {
		return slices.IndexFunc(g.Members, func(m PlanMember) bool { return m.Node == n })
	}
	if op.Kind == OpTransfer {
		if at(op.To) == none || op.Replica != 0 && g.Members[at(op.To)].Replica != op.Replica {
			return fmt.Errorf("%s has no such replica", op.To)
		}
		g.Master = g.Members[at(op.To)].Replica
		return nil
	}
	if op.Bytes != g.Bytes {
		return fmt.Errorf("%d bytes, the group has %d", op.Bytes, g.Bytes)
	}
	if at(op.To) != none {
		return fmt.Errorf("%s has a replica already", op.To)
	}
	wanted := max(g.Replicas, len(g.Members))
	before, mostBefore := w.spread(g)
	fresh := PlanMember{Node: op.To, Replica: 100 + partition.ReplicaID(len(g.Members))}
	for _, m := range g.Members {
		fresh.Replica = max(fresh.Replica, m.Replica+1)
	}
	if op.Kind == OpAdd {
		g.Members = append(g.Members, fresh)
	} else {
		i := at(op.From)
		if i == none || g.Members[i].Replica != op.Replica {
			return fmt.Errorf("%s has no replica %d", op.From, op.Replica)
		}
		if (op.Kind == OpSwap) != (g.Members[i].Replica == g.Master) {
			return fmt.Errorf("a %s, and replica %d is master", op.Kind, g.Master)
		}
		if op.Kind == OpSwap {
			g.Master = fresh.Replica
		}
		g.Members[i] = fresh
		w.disk[op.From] -= g.Bytes
	}
	w.disk[op.To] += g.Bytes
	if after, most := w.spread(g); after < min(before, wanted, len(w.zones)) || most > max(mostBefore, w.evenly(wanted)) {
		return fmt.Errorf("%d zones instead of %d, %d in one instead of %d", after, before, most, mostBefore)
	}
	if c := to.Capacity[DimBytes]; c > 0 && float64(w.disk[op.To]) > diskHigh*float64(c) {
		return fmt.Errorf("%d bytes of %d on %s", w.disk[op.To], c, op.To)
	}
	return nil
}
