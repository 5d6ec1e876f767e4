package actors

import (
	"slices"
	"sync"

	"pando.dev/pando/actors/client"
	"pando.dev/pando/cluster"
	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
)

// routeCache makes the routes that clients ask for from the catalog and the
// known addresses, once per change of either.
//
// The version that clients see is the catalog's, and in its low bits how often
// the known nodes were started: an address only changes with a start. So two
// nodes that know the same give the same version. It never falls here.
type routeCache struct {
	mu      sync.Mutex
	catalog *control.Catalog
	nodes   []cluster.Node
	routes  *client.Routes // nil: to be made anew
	version uint64         // of the routes made last
}

// bootBits is the room for the nodes' starts in a version.
const bootBits = 24

// update is called by the membership actor with who is there.
func (r *routeCache) update(nodes []cluster.Node) {
	r.mu.Lock()
	defer r.mu.Unlock()
	same := func(a, b cluster.Node) bool {
		return a.ID == b.ID && a.Link == b.Link && a.Boot == b.Boot && a.Zone == b.Zone
	}
	if !slices.EqualFunc(r.nodes, nodes, same) {
		r.nodes, r.routes = nodes, nil
	}
}

// get returns the routes of the catalog.
func (r *routeCache) get(c *control.Catalog) *client.Routes {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.routes == nil || r.catalog != c {
		r.catalog = c
		r.routes = makeRoutes(c, r.nodes)
		var boots uint64
		for _, n := range r.nodes {
			boots += n.Boot
		}
		r.version = max(r.version+1, c.Version<<bootBits+boots&(1<<bootBits-1))
		r.routes.Version = r.version
	}
	return r.routes
}

func makeRoutes(c *control.Catalog, nodes []cluster.Node) *client.Routes {
	known := addressed(nodes)
	out := &client.Routes{Nodes: known.list}
	for _, t := range c.Tables() {
		table := client.Table{Name: t.Name, Kind: t.Kind}
		for _, g := range c.Groups(t.Name) {
			table.Partitions = append(table.Partitions, makePartition(g, known.is))
		}
		if len(table.Partitions) > 0 {
			out.Tables = append(out.Tables, table)
		}
	}
	return out
}

// knownNodes are the nodes that clients can reach.
type knownNodes struct {
	list []client.Node
	is   map[partition.NodeID]bool
}

func addressed(nodes []cluster.Node) knownNodes {
	out := knownNodes{is: make(map[partition.NodeID]bool, len(nodes))}
	for _, n := range nodes {
		if n.Link != "" && !out.is[n.ID] {
			out.is[n.ID] = true
			out.list = append(out.list, client.Node{ID: n.ID, Addr: n.Link, Zone: n.Zone})
		}
	}
	return out
}

// known returns the nodes that clients can reach.
func (r *routeCache) known() knownNodes {
	r.mu.Lock()
	defer r.mu.Unlock()
	return addressed(r.nodes)
}

func makePartition(g *control.Group, known map[partition.NodeID]bool) client.Partition {
	p := client.Partition{Group: g.ID, Lo: g.Range.Lo, Hi: g.Range.Hi, RangeVersion: g.RangeVersion}
	for _, m := range g.Membership.Members {
		switch {
		case m.Kind != partition.Full || !known[m.Node]:
		case m.Eligible:
			p.Members = append(p.Members, m.Node)
		default:
			p.Resting = append(p.Resting, m.Node)
		}
	}
	if known[g.Master] {
		p.Master = g.Master
	}
	return p
}
