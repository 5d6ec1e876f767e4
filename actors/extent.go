package actors

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"pando.dev/pando/actors/client"
	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

// noteExtent hands out what the group serves as of the last record applied, if
// that has changed. What was held for keys that have gone is answered at once.
func (a *replicaActor) noteExtent() {
	x, old := a.state.exec.Extent(), a.cell.extent.Load()
	if old != nil && old.Version == x.Version && old.Split == x.Split && old.Merge == x.Merge && old.Ended == x.Ended {
		return
	}
	a.cell.extent.Store(&x)
	if old != nil && old.Version == x.Version && x.Version == 0 {
		return // it never had one
	}
	if x.Split == nil || x.Split.Phase != partition.Sealed {
		a.again()
	}
	if x.Split != nil || old != nil && old.Split != nil {
		a.node.tellReplicas(&dividing{})
	}
	if v := a.cell.view.Load(); v != nil && v.Serving {
		a.node.announce(a.cell, v)
	}
	a.node.splitter.mark(a.cell.group)
	a.node.merger.mark(a.cell.group)
	a.reclaim(&x)
}

const (
	// reclaimAfter is about how long after a split its members wait before they
	// remove what is not theirs any more: it is hidden, and their disks have had
	// enough to do. reclaimWait bounds one removal; what it leaves goes with the
	// next, or with ordinary compactions.
	reclaimAfter = 500 * time.Millisecond
	reclaimWait  = 10 * time.Minute
)

// reclaim removes keys of others in the background, once nothing is made from them
// any more.
func (a *replicaActor) reclaim(x *partition.Extent) {
	if x.Version == 0 || x.Split != nil || x.Merge != nil {
		return
	}
	ctx := a.state.reclaims.begin(a.node.ctx)
	n, st, g, foreign := a.node, a.state, a.cell.group, replica.Foreign(*x)
	wait := time.After(reclaimAfter + rand.N(2*reclaimAfter)) // the members not all at once
	n.background.Go(func() {
		select {
		case <-wait:
		case <-ctx.Done():
			return
		}
		select {
		case n.reclaiming <- struct{}{}:
			defer func() { <-n.reclaiming }()
		case <-ctx.Done():
			return
		}
		limited, cancel := context.WithTimeout(ctx, reclaimWait)
		defer cancel()
		any, err := st.reclaims.run(limited, func() (bool, error) { return st.store.Reclaim(limited, foreign...) })
		switch {
		case ctx.Err() != nil || errors.Is(err, partition.ErrClosed): // whoever opens the state next goes on, or the end of the merge
		case err != nil:
			n.logger.Info("keys of others not removed", "group", g, "err", err)
		case any:
			n.logger.Info("keys of others removed", "group", g)
		}
	})
}

// served is what the replica's group serves; ok is false if only the catalog says.
func (c *cell) served() (x *partition.Extent, ok bool) {
	x = c.extent.Load()
	return x, x != nil && x.Version != 0
}

// rangeOf is what the group serves and since which version, for the catalog. While
// a split is sealed that is what it served before.
func (c *cell) rangeOf() (partition.KeyRange, partition.RangeVersion, bool) {
	x, ok := c.served()
	if !ok {
		route := c.route.Load()
		if route == nil {
			return partition.KeyRange{}, 0, false
		}
		return route.Range, route.RangeVersion, true
	}
	if x.Split != nil && x.Split.Phase == partition.Sealed || x.Merge != nil && x.Merge.Phase == partition.SourceSealed {
		return x.Range, x.Version - 1, true
	}
	return x.Range, x.Version, true
}

// check refuses a request that is not for this group, by what the group itself
// serves, or by the catalog if it was never split.
func (c *cell) check(req *client.Request) *partition.Error {
	if x, ok := c.served(); ok {
		err := checkExtent(x, req)
		moved := x.Split != nil && x.Split.Phase == partition.Activated
		if h := c.hold.Load(); err != nil && moved && h != nil && !(req.Op == client.OpRead && req.Level.Anywhere()) && touches(req, h.ranges) {
			return nil // it is held until its keys are served elsewhere
		}
		return err
	}
	g := c.route.Load()
	switch {
	case g == nil:
		return partition.Errorf(partition.CodeUnavailable, "group %s is being opened on this node", c.group)
	case req.RangeVersion != g.RangeVersion || req.Op != client.OpOpenSession && !g.Range.Contains(req.Key):
		return partition.Errorf(partition.CodeWrongGroup, "group %s does not serve this key at range version %d", req.Group, req.RangeVersion)
	}
	return nil
}

// checkExtent refuses what was routed to keys that are another group's. A command
// that was routed by an older version is executed if its keys are still here, and
// the executor looks at all of them; a read is refused, for it may show less than
// who asks believes.
func checkExtent(x *partition.Extent, req *client.Request) *partition.Error {
	switch {
	case x.Merge != nil && x.Merge.Phase == partition.Absorbed:
		return partition.Errorf(partition.CodeWrongGroup, "%s has the keys of %s now", x.Merge.Other, req.Group)
	case req.Op == client.OpOpenSession:
		return nil
	case !x.Range.Contains(req.Key):
		return partition.Errorf(partition.CodeWrongGroup, "the key is not in %.80s of group %s", x.Range, req.Group)
	case req.RangeVersion > x.Version:
		return partition.Errorf(partition.CodeUnavailable, "this replica of %s has not seen range version %d yet, it is at %d", req.Group, req.RangeVersion, x.Version)
	case req.Op == client.OpRead && req.RangeVersion < x.Since:
		return partition.Errorf(partition.CodeWrongGroup, "group %s serves something else since range version %d", req.Group, x.Since)
	}
	return nil
}

// refuse answers a request that is not served here. If its keys are another
// group's, the answer says whose.
func (n *Node) refuse(c *cell, req *client.Request, why *partition.Error) *client.Response {
	if why.Code != partition.CodeWrongGroup {
		return client.ErrorResponse(why)
	}
	known := n.routing.known()
	return client.Moved(why, known.list, n.whereabouts(c, req, known))
}

// whereabouts lists the partitions that are in the place of the one that a request
// was routed to, as far as this node knows.
func (n *Node) whereabouts(c *cell, req *client.Request, known knownNodes) (parts []client.Partition) {
	cat := n.control.Catalog()
	if x, ok := c.served(); ok && x.Merge != nil && x.Merge.Phase == partition.Absorbed {
		if g := survivorOf(cat, x); g != nil {
			parts = append(parts, makePartition(g, known.is))
		}
		return parts
	}
	if x, ok := c.served(); ok {
		if v := c.view.Load(); v != nil {
			parts = append(parts, makePartition(&control.Group{
				ID: c.group, Range: x.Range, RangeVersion: x.Version, Membership: v.Configurations.Last(), Master: c.master(),
			}, known.is))
		}
		if s := x.Split; s != nil && s.Phase == partition.Activated {
			for i := range s.Children {
				parts = append(parts, makePartition(n.childNow(cat, x, &s.Children[i]), known.is))
			}
			return parts
		}
	}
	if g, err := cat.Where(c.group, req.Key); err == nil && g.ID != c.group {
		parts = append(parts, makePartition(g, known.is))
	}
	return parts
}

// survivorOf is the group that has absorbed this one, as far as the catalog knows, or
// as it is at least; nil if it knows nothing of it.
func survivorOf(cat *control.Catalog, x *partition.Extent) *control.Group {
	g, ok := cat.Group(x.Merge.Other)
	if !ok {
		g, _ = cat.Where(x.Merge.Other, x.Range.Lo)
	}
	if g == nil || g.Range.Contains(x.Range.Lo) {
		return g
	}
	grown := *g
	grown.Range.Hi, grown.RangeVersion = x.Range.Hi, max(g.RangeVersion+1, x.Version)
	return &grown
}

// childNow is what is known of a child: by its own replica here, by the catalog, or
// as it began.
func (n *Node) childNow(cat *control.Catalog, x *partition.Extent, child *partition.Child) *control.Group {
	if g, ok := cat.Group(child.Group); ok {
		return g
	}
	g := &control.Group{ID: child.Group, Range: child.Range, RangeVersion: x.Version, Membership: child.Membership}
	if m, ok := child.Membership.Member(child.First); ok {
		g.Master = m.Node
	}
	if c := n.cells.get(child.Group); c != nil {
		if v := c.view.Load(); v != nil && v.Master != 0 {
			g.Membership, g.Master = v.Configurations.Last(), c.master()
		}
	}
	return g
}

// coming reports whether a group that is not here is about to be made here.
func (n *Node) coming(g partition.GroupID) bool {
	parent := n.parentOf(g)
	c := n.cells.get(parent)
	if parent == 0 || c == nil {
		return false
	}
	x, ok := c.served()
	if !ok {
		return false
	}
	child := x.Split.Child(g)
	if child == nil {
		return false
	}
	_, here := child.Membership.OnNode(n.ID())
	return here
}
