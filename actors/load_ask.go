package actors

import (
	"context"
	"fmt"
	"slices"
	"time"

	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
)

const (
	// lookWait bounds how long the keys of a partition are looked at before it is said
	// where its load divides, and lookPoll is the pause in between.
	lookWait = 2500 * time.Millisecond
	lookPoll = 100 * time.Millisecond
)

// cuts are keys that divide the load of a partition mastered here. If nobody has
// looked at its keys so far they are looked at for a moment.
func (l *loads) cuts(ctx context.Context, c *cell, into int) ([][]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, lookWait)
	defer cancel()
	tick := time.NewTicker(lookPoll)
	defer tick.Stop()
	for {
		if keys := l.cutsNow(c, into); keys != nil {
			return keys, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, &partition.Error{
				Code: partition.CodeUnavailable, Why: fmt.Sprintf("too little is asked of %s to say where its load divides", c.group),
				Next: "split it by its size, or again under load",
			}
		}
	}
}

func (l *loads) cutsNow(c *cell, into int) [][]byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.groups[c.group]
	if g == nil || g.cell != c {
		return nil
	}
	g.keys.mu.Lock()
	defer g.keys.mu.Unlock()
	g.tracker.Watch() // its Sampler is told of keys from the next window on
	return g.tracker.Cuts(into, g.r)
}

// SplitForAnomaly divides a partition in two because somebody noticed that it
// suffers, such as from a slow node (SPL-6): where its load divides, or its data
// if nothing is known of that. The half that leaves gets its master on the node of a
// member with the least to do, not one to avoid; nothing is copied. It obeys the
// table's policy: CodeRefused if that forbids splits, CodeBusy if something else
// comes first.
func (n *Node) SplitForAnomaly(ctx context.Context, id partition.GroupID, avoid []partition.NodeID, why string) (SplitInfo, error) {
	cat, err := n.catalog()
	if err != nil {
		return SplitInfo{}, err
	}
	if err := maySplit(cat, id); err != nil {
		return SplitInfo{}, err
	}
	r := SplitRequest{Group: id, Into: 2, ByLoad: true, Reason: why[:min(len(why), control.MaxTaskText)], By: splitBy}
	spec, g, err := n.planSplit(ctx, &r)
	if partition.CodeOf(err) == partition.CodeUnavailable || partition.CodeOf(err) == partition.CodeRefused {
		r.ByLoad = false
		spec, g, err = n.planSplit(ctx, &r)
	}
	if err != nil {
		return SplitInfo{}, err
	}
	first, least := partition.NodeID(""), 0.0
	for _, x := range n.NodeLoads(ctx, fullNodes(g)) {
		m, ok := g.Membership.OnNode(x.Node)
		if !ok || !m.Eligible || !x.InService || x.Node == g.Master || slices.Contains(avoid, x.Node) {
			continue
		}
		if first == "" || x.Units < least {
			first, least = x.Node, x.Units
		}
	}
	spec.Places = make([]control.SplitPlace, len(spec.Keys))
	for i := range spec.Places {
		spec.Places[i].First = first
	}
	t, err := n.control.BeginSplit(ctx, spec)
	if err != nil {
		return SplitInfo{}, err
	}
	n.logger.Info("a split begins", "group", id, "task", t.ID, "why", why)
	return n.splitInfo(t), nil
}

// maySplit refuses what the policy of the group's table does not want now.
func maySplit(cat *control.Catalog, id partition.GroupID) error {
	g, ok := cat.Group(id)
	if !ok {
		return partition.Errorf(partition.CodeNotFound, "the catalog has no group %s", id)
	}
	t, ok := cat.TableOf(g)
	if !ok {
		return partition.Errorf(partition.CodeNotFound, "group %s has no table", id)
	}
	p := t.Splits.WithDefaults()
	rested, failed := pastSplits(cat, id)
	switch busy := busyWith(cat, id); {
	case p.Mode == control.SplitsOff:
		return &partition.Error{
			Code: partition.CodeRefused, Why: fmt.Sprintf("the partitions of table %s are not to be divided", t.Name),
			Next: fmt.Sprintf("pando table alter %s --auto-split size", t.Name),
		}
	case len(cat.Groups(t.Name)) >= p.Partitions:
		return partition.Errorf(partition.CodeRefused, "table %s has %d partitions, limit %d", t.Name, len(cat.Groups(t.Name)), p.Partitions)
	case rested >= 0 && rested < p.Rest:
		return partition.Errorf(partition.CodeBusy, "%s was divided %s ago, at least %s lie between", id, rested.Round(time.Second), p.Rest)
	case failed != "":
		return partition.Errorf(partition.CodeBusy, "%s: %s", id, failed)
	case busy != "":
		return partition.Errorf(partition.CodeBusy, "%s: %s", id, busy)
	}
	return nil
}
