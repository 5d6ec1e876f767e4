package actors

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
	"pando.dev/pando/split/load"
)

const (
	// coldLook is how often neighbours are looked for that may be merged.
	coldLook = 10 * time.Second
	// mergeAgain is the pause after a merge that came to nothing.
	mergeAgain = 10 * time.Minute
)

// coldSide is what a node tells of a partition that may be merged: times as ages,
// for clocks differ.
type coldSide struct {
	Peak   float64       `json:"peak"`
	Known  time.Duration `json:"known_ns"`
	Bytes  int64         `json:"bytes"`
	Rested time.Duration `json:"rested_ns"` // negative: it was never divided
}

func (s *coldSide) side(now partition.Time) load.Side {
	return load.Side{Peak: s.Peak, Since: now - s.Known, Bytes: s.Bytes, Rested: s.Rested}
}

// mergeOnce is mergeCold, unless one is under way.
func (l *loads) mergeOnce() {
	if l.merging.CompareAndSwap(false, true) {
		defer l.merging.Store(false)
		l.mergeCold()
	}
}

// mergeCold merges two cold neighbours of a table whose policy wants that, if there
// are any and nobody else merges. The master of the left one begins it.
func (l *loads) mergeCold() {
	n := l.node
	cat, now := n.control.Catalog(), n.now()
	served := l.elastic(cat, now)
	for _, t := range cat.Tasks() {
		if t.Kind == control.TaskMerge && t.Open() && t.By == splitBy {
			return
		}
	}
	for _, g := range served {
		next, ok := cat.Neighbour(g)
		if !ok || !free(cat, g.ID) || !free(cat, next.ID) {
			continue
		}
		table, _ := cat.TableOf(g)
		limits := n.coldLimits(table)
		a, ok := l.cold(cat, g, now)
		if !ok || !load.MayMerge(now, a.side(now), load.Side{Rested: -1, Since: now - a.Known}, limits) {
			continue
		}
		if l.mergeWith(next, a, limits, g.ID) {
			return
		}
	}
}

// mergeWith asks what the neighbour is asked for, and begins the merge if both may
// be.
func (l *loads) mergeWith(next *control.Group, a coldSide, limits load.Limits, id partition.GroupID) bool {
	n := l.node
	ctx, cancel := context.WithTimeout(n.ctx, beginWait)
	defer cancel()
	x, err := n.loadOf(ctx, next.Master, loadsAsk{Group: next.ID, Cold: true})
	if err != nil || x.Cold == nil {
		return false
	}
	now, b := n.now(), *x.Cold
	if b.Bytes > n.cfg.MergeBytes || !load.MayMerge(now, a.side(now), b.side(now), limits) {
		return false
	}
	why := fmt.Sprintf("%s and %s were asked for %.1f units a second at most, and have %d bytes together", id, next.ID, a.Peak+b.Peak, a.Bytes+b.Bytes)
	info, err := n.Merge(ctx, MergeRequest{Group: id, Source: next.ID, Reason: why, By: splitBy})
	if err != nil {
		n.logger.Info("merge not begun", "group", id, "source", next.ID, "err", err)
		return false
	}
	n.logger.Info("cold neighbours are merged", "group", id, "source", next.ID, "task", info.Task, "why", why)
	return true
}

// free reports whether a group has no task, and no merge of it failed lately.
func free(cat *control.Catalog, id partition.GroupID) bool {
	if _, busy := cat.TaskOf(id); busy {
		return false
	}
	return !slices.ContainsFunc(cat.Tasks(), func(t *control.Task) bool {
		return t.Kind == control.TaskMerge && t.Group == id && !t.Open() && t.State != control.TaskDone && time.Since(t.Ended) < mergeAgain
	})
}

// elastic are the groups mastered here whose tables want cold ones merged, by id. It
// notes since when each is known here: before that nobody knows what was asked.
func (l *loads) elastic(cat *control.Catalog, now partition.Time) []*control.Group {
	var all []*control.Group
	since := make(map[partition.GroupID]partition.Time)
	l.node.cells.each(func(c *cell) {
		v := c.view.Load()
		g, ok := cat.Group(c.group)
		if v == nil || !v.Serving || !ok {
			return
		}
		if t, ok := cat.TableOf(g); !ok || t.Splits.Mode != control.SplitsElastic {
			return
		}
		since[g.ID] = now
		all = append(all, g)
	})
	l.mu.Lock()
	for id := range since { // each on its own
		if at, ok := l.since[id]; ok {
			since[id] = at
		}
	}
	l.since = since
	l.mu.Unlock()
	slices.SortFunc(all, func(a, b *control.Group) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// cold is what is known here of a group that may be merged.
func (l *loads) cold(cat *control.Catalog, group *control.Group, now partition.Time) (coldSide, bool) {
	c := l.node.cells.get(group.ID)
	if c == nil {
		return coldSide{}, false
	}
	r, _, ok := c.rangeOf()
	st := c.state.Load()
	if !ok || st == nil {
		return coldSide{}, false
	}
	bytes := l.sizeOf(st, r, 1)
	rested, _ := pastSplits(cat, group.ID)
	l.mu.Lock()
	defer l.mu.Unlock()
	since, ok := l.since[group.ID]
	s := coldSide{Bytes: bytes, Rested: rested, Known: now - since}
	if g := l.groups[group.ID]; g != nil {
		s.Peak = g.tracker.Peak()
	}
	return s, ok
}

// coldLimits is the policy of a table, with how long neighbours have to be cold.
func (n *Node) coldLimits(t *control.Table) load.Limits {
	l := limitsOf(t)
	l.Cold = n.cfg.coldFor
	return l
}
