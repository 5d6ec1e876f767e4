package actors

import (
	"context"
	"math"

	"pando.dev/pando/cluster/control"
	"pando.dev/pando/cluster/placement"
	"pando.dev/pando/partition"
	"pando.dev/pando/split/load"
)

const (
	// nodeLoads is how many times the load that a partition may carry is taken for
	// what a node can: a partition is to be a tenth of a node at most.
	nodeLoads = 10
	// nodeWritten is taken for what a node can write a second. Plans heed neither
	// before the busiest node is at a quarter of it, so that idle clusters are not
	// rearranged for the sake of a few requests.
	nodeWritten = 200 << 20
)

// capacityOf is what every node can carry, as the tables' policies have it.
func capacityOf(cat *control.Catalog) (u placement.Use) {
	least := uint64(math.MaxUint64)
	for _, t := range cat.Tables() {
		least = min(least, t.Splits.WithDefaults().Load)
	}
	if least == math.MaxUint64 {
		least = control.DefaultSplitLoad
	}
	u[placement.DimLoad] = int64(least) * nodeLoads
	u[placement.DimWritten] = nodeWritten
	return u
}

// work is what the groups have to do, for plans.
type work struct {
	known map[partition.GroupID]Rates
	rest  map[partition.NodeID]Rates // of each other group that a node is master of
}

// workOf asks the nodes. Of the groups beyond the hottest of a node each counts for
// as much as the others. What a node does not tell counts for nothing: it is not
// moved for its load.
func (n *Node) workOf(ctx context.Context, cat *control.Catalog) *work {
	w := &work{known: make(map[partition.GroupID]Rates), rest: make(map[partition.NodeID]Rates)}
	var ask []partition.NodeID
	for _, m := range n.Members() {
		if m.Status == "alive" {
			ask = append(ask, m.Node)
		}
	}
	masters := make(map[partition.NodeID]int)
	for _, g := range cat.AllGroups() {
		masters[g.Master]++
	}
	for _, x := range n.NodeLoads(ctx, ask) {
		rest := x.Rates
		for i := range x.Hottest {
			p := &x.Hottest[i]
			w.known[p.Group] = p.Rates
			rest.add(p.scale(-1))
		}
		if others := masters[x.Node] - len(x.Hottest); others > 0 {
			w.rest[x.Node] = rest.scale(1 / float64(others))
		}
	}
	return w
}

func (r Rates) scale(x float64) Rates {
	return Rates{Units: r.Units * x, Reads: r.Reads * x, Writes: r.Writes * x, ReadBytes: r.ReadBytes * x, WriteBytes: r.WriteBytes * x}
}

// add tells what a group has to do: every replica what is written, the master all
// that is asked for on top.
func (w *work) add(g *placement.PlanGroup, master partition.NodeID) {
	r, ok := w.known[g.Group]
	if !ok {
		r = w.rest[master]
	}
	whole := func(x float64) uint32 { return uint32(min(max(math.Round(x), 0), math.MaxInt32)) }
	g.Lead, g.Follow, g.Written = whole(r.Units), whole(r.Writes+r.WriteBytes/load.UnitBytes), whole(r.WriteBytes)
}
