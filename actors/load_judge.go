package actors

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
	"pando.dev/pando/split/load"
)

const (
	// maxOwnSplits bounds the splits of the whole cluster that nobody asked for and
	// that are under way.
	maxOwnSplits = 8
	// splitBy is the author of splits that a table's policy wants.
	splitBy = "split policy"
	// beginWait bounds the way to the beginning of a split.
	beginWait = 10 * time.Second
	// handOverWait is how long the pieces of a split are handed to the nodes that
	// were chosen for them.
	handOverWait = 30 * time.Second
)

// judge decides whether a partition is to be divided, and begins that.
func (l *loads) judge(cat *control.Catalog, g *groupLoad, group *control.Group, table *control.Table, limits load.Limits, now partition.Time) {
	tooLarge := limits.Size > 0 && g.bytes > limits.Size
	if now < g.notBefore || g.beginning || g.tracker.Heat() != load.Engaged && !tooLarge {
		return
	}
	if t, ok := openSplit(cat, group.ID); ok && t.By == splitBy {
		return // what was decided is being done
	}
	rested, failed := pastSplits(cat, group.ID)
	s := load.Situation{
		Now: now, Range: g.r, Bytes: g.bytes, Rested: rested, Partitions: len(cat.Groups(table.Name)), Nodes: l.inService(),
		Busy: cmp.Or(failed, busyWith(cat, group.ID)),
	}
	d := load.Decide(g.tracker, limits, s)
	if d.Verdict == load.Nothing {
		return
	}
	if g.hot != "" {
		d.Reason += "; " + g.hot
	}
	if d.Verdict != g.decision.Verdict {
		l.node.logger.Info("decided on a split", "group", group.ID, "table", table.Name, "verdict", d.Verdict.String(), "why", d.Reason)
	}
	g.decision, g.decided = d, time.Now()
	if !d.Split() {
		g.notBefore = now + judgeAgain
		return
	}
	g.beginning = true
	here := g.tracker.Load()
	l.node.background.Go(func() { l.begin(g, group, here, d) })
}

// inService counts the nodes that can serve.
func (l *loads) inService() (n int) {
	for _, m := range l.node.Members() {
		if m.Status == "alive" && m.Mode == "" {
			n++
		}
	}
	return n
}

// pastSplits is how long ago the keys of a group were divided last (negative: never),
// and why the last attempt came to nothing, if that was just now. Ended tasks tell,
// so a new master knows.
func pastSplits(cat *control.Catalog, id partition.GroupID) (rested time.Duration, failed string) {
	rested = -1
	made := func(c control.TaskChild) bool { return c.Group == id }
	for _, t := range cat.Tasks() {
		changed := t.Kind == control.TaskSplit || t.Kind == control.TaskMerge && t.State == control.TaskDone
		if !changed || t.Group != id && !slices.ContainsFunc(t.Children, made) {
			continue
		}
		at := t.Ended
		if at.IsZero() {
			at = t.Touched
		}
		age := max(0, time.Since(at)) // by the clock of another node: it only delays
		switch {
		case t.Activated != 0 || t.Kind == control.TaskMerge:
			rested = age
			failed = ""
		case !t.Open() && t.By == splitBy && age < splitAgain:
			failed = "its last split was given up: " + t.Why
		}
	}
	return rested, failed
}

// busyWith says what comes before a split of a group.
func busyWith(cat *control.Catalog, id partition.GroupID) string {
	if t, ok := cat.TaskOf(id); ok {
		return fmt.Sprintf("task %s, a %s, comes first", t.ID, t.Kind)
	}
	own := 0
	for _, t := range cat.Tasks() {
		if t.Kind == control.TaskSplit && t.Open() && t.By == splitBy {
			own++
		}
	}
	if own >= maxOwnSplits {
		return fmt.Sprintf("%d splits of others are under way, limit %d", own, maxOwnSplits)
	}
	return ""
}

// begin asks the control group for a split that was decided.
func (l *loads) begin(g *groupLoad, group *control.Group, here float64, d load.Decision) {
	ctx, cancel := context.WithTimeout(l.node.ctx, beginWait)
	defer cancel()
	task, err := l.ask(ctx, group, here, &d)
	l.mu.Lock()
	defer l.mu.Unlock()
	g.beginning, g.notBefore = false, l.node.now()+judgeAgain
	if err == nil {
		g.decision.Reason, g.failed = g.decision.Reason+fmt.Sprintf("; task %s", task), ""
		return
	}
	why := asError(err).Why
	g.decision.Reason += "; it could not begin: " + why
	if !errors.Is(err, partition.ErrUnavailable) {
		g.notBefore = l.node.now() + splitAgain
	}
	if why != g.failed {
		l.node.logger.Info("split not begun", "group", group.ID, "err", err)
	}
	g.failed = why
}

func (l *loads) ask(ctx context.Context, group *control.Group, here float64, d *load.Decision) (control.TaskID, error) {
	r := SplitRequest{Group: group.ID, At: d.Keys, Reason: d.Reason, By: splitBy}
	if len(d.Keys) == 0 {
		r.Into = d.Into
	}
	r.Reason = r.Reason[:min(len(r.Reason), control.MaxTaskText)]
	spec, now, err := l.node.planSplit(ctx, &r)
	if err != nil {
		return 0, err
	}
	pieces := d.Loads
	for len(pieces) < len(spec.Keys)+1 { // by size: nobody knows which keys are asked for
		pieces = append(pieces, here/float64(len(spec.Keys)+1))
	}
	if here > 1 {
		spec.Places = l.places(ctx, now, here, pieces)
	}
	t, err := l.node.control.BeginSplit(ctx, spec)
	if err != nil {
		return 0, err
	}
	l.node.logger.Info("a split begins", "group", group.ID, "task", t.ID, "pieces", len(t.Children)+1, "why", d.Reason)
	return t.ID, nil
}

// places says who is to be the first master of each piece: the pieces stay on the
// members' nodes, and the load is spread over those at once, the greatest piece to
// the node with the least to do. Nothing is copied.
func (l *loads) places(ctx context.Context, group *control.Group, here float64, pieces []float64) []control.SplitPlace {
	load := make(map[partition.NodeID]float64)
	for _, x := range l.node.NodeLoads(ctx, fullNodes(group)) {
		if m, ok := group.Membership.OnNode(x.Node); ok && m.Eligible && x.InService {
			load[x.Node] = x.Lately
		}
	}
	self := l.node.ID()
	load[self] = max(0, load[self]-here) + pieces[0]
	places := make([]control.SplitPlace, len(pieces)-1)
	order := make([]int, len(places))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(pieces[b+1], pieces[a+1]) })
	for _, i := range order {
		first := self
		for _, n := range fullNodes(group) {
			if at, ok := load[n]; ok && at < load[first] {
				first = n
			}
		}
		load[first] += pieces[i+1]
		places[i].First = first
	}
	return places
}

// handOver brings the masters of what a split for load has made to the nodes that
// were chosen for them, once: whoever wants another one later has its way.
func (l *loads) handOver(t *control.Task) {
	ctx, cancel := context.WithTimeout(l.node.ctx, handOverWait)
	defer cancel()
	for i := range t.Children {
		c := &t.Children[i]
		if t.By != splitBy || c.First == "" {
			continue
		}
		change := PartitionChange{Kind: ChangeTransfer, Group: c.Group, Node: c.First}
		if _, err := l.node.Change(ctx, change); err != nil && l.node.ctx.Err() == nil {
			l.node.logger.Info("a piece is not served where it was to be", "group", c.Group, "to", c.First, "err", err)
			change.Cancel = true
			if _, err := l.node.BeginChange(l.node.ctx, change); err != nil {
				l.node.logger.Debug("hand-over not taken back", "group", c.Group, "err", err)
			}
		}
	}
}
