package actors

import (
	"context"
	"errors"
	"fmt"
	"time"

	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
)

// mergeTimeout is how long a merge is tried that says nothing else: then it is given
// up, and both partitions are as they were.
const mergeTimeout = 10 * time.Minute

// MergeRequest asks that a partition absorb the one behind it while both serve.
type MergeRequest struct {
	// Group survives. Source is the one that is absorbed; 0: whoever is behind it.
	Group  partition.GroupID `json:"group"`
	Source partition.GroupID `json:"source,omitempty"`
	// Timeout is how long it is tried (default 10 min).
	Timeout time.Duration `json:"timeout_ns,omitempty"`
	Reason  string        `json:"reason,omitempty"`
	By      string        `json:"by,omitempty"`
	// Token makes retries safe: the same request with the same token is one merge.
	Token string `json:"token,omitempty"`
}

// MergeInfo describes a merge, planned or under way.
type MergeInfo struct {
	Task  uint64            `json:"task,omitempty"` // 0 in a plan
	Group partition.GroupID `json:"group"`
	Table string            `json:"table"`
	// Keep is what the survivor has had, Source what it absorbs.
	Keep   SplitPiece `json:"keep"`
	Source SplitPiece `json:"source"`
	// State is planned, open, done, aborted or failed, and Why what it waits for, or
	// what became of it.
	State string `json:"state"`
	Why   string `json:"why,omitempty"`
}

// PlanMerge says what Merge would do, and does nothing.
func (n *Node) PlanMerge(r MergeRequest) (MergeInfo, error) {
	g, source, err := n.mergePair(&r)
	if err != nil {
		return MergeInfo{}, err
	}
	info := MergeInfo{
		Group: g.ID, State: "planned",
		Keep:   SplitPiece{Group: g.ID, Lo: g.Range.Lo, Hi: g.Range.Hi, Nodes: fullNodes(g)},
		Source: SplitPiece{Group: source.ID, Lo: source.Range.Lo, Hi: source.Range.Hi, Nodes: fullNodes(source)},
	}
	if t, ok := n.control.Catalog().TableOf(g); ok {
		info.Table = t.Name
	}
	return info, nil
}

// Merge has a partition absorb the one behind it, and returns when that is written
// down: the partition's master does it, and a new one goes on with it. The rows of the
// one that is absorbed are brought into the survivor's log while both serve; then that
// one takes no requests for a moment. They need not be on the same nodes. AwaitMerge
// waits for the end.
func (n *Node) Merge(ctx context.Context, r MergeRequest) (MergeInfo, error) {
	g, source, err := n.mergePair(&r)
	if err != nil {
		return MergeInfo{}, err
	}
	spec := control.MergeSpec{
		Group: g.ID, Source: source.ID, RangeVersion: g.RangeVersion, Timeout: r.Timeout, Reason: r.Reason, By: r.By, Token: r.Token,
	}
	if spec.Timeout <= 0 {
		spec.Timeout = mergeTimeout
	}
	t, err := n.control.BeginMerge(ctx, spec)
	if err != nil {
		return MergeInfo{}, err
	}
	n.logger.Info("a merge begins", "group", g.ID, "source", source.ID, "task", t.ID, "by", t.By)
	return n.mergeInfo(t), nil
}

// mergePair finds the two partitions that are meant.
func (n *Node) mergePair(r *MergeRequest) (g, source *control.Group, err error) {
	cat, err := n.catalog()
	if err != nil {
		return nil, nil, err
	}
	g, ok := cat.Group(r.Group)
	if !ok {
		return nil, nil, &partition.Error{Code: partition.CodeNotFound, Why: fmt.Sprintf("there is no partition %s", r.Group), Next: "list them with: pando partition ls"}
	}
	source, ok = cat.Neighbour(g)
	switch {
	case !ok:
		return nil, nil, &partition.Error{
			Code: partition.CodeInvalid, Why: fmt.Sprintf("%s is the last partition of its table: it has %s", g.ID, g.Range), Next: "name the left one of two neighbours",
		}
	case r.Source != 0 && r.Source != source.ID:
		return nil, nil, &partition.Error{
			Code: partition.CodeInvalid, Why: fmt.Sprintf("behind %s is %s, and not %s", g.ID, source.ID, r.Source), Next: "name the left one of two neighbours first",
		}
	}
	return g, source, nil
}

// MergeStatus says how far a merge is, by its task.
func (n *Node) MergeStatus(id uint64) (MergeInfo, error) {
	cat, err := n.catalog()
	if err != nil {
		return MergeInfo{}, err
	}
	t, ok := cat.Task(control.TaskID(id))
	if !ok || t.Kind != control.TaskMerge {
		return MergeInfo{}, &partition.Error{Code: partition.CodeNotFound, Why: fmt.Sprintf("task %d is no merge, or ended long ago", id), Next: "list them with: pando task ls"}
	}
	return n.mergeInfo(t), nil
}

func (n *Node) mergeInfo(t *control.Task) MergeInfo {
	cat := n.control.Catalog()
	id, r := t.Source()
	info := MergeInfo{
		Task: uint64(t.ID), Group: t.Group, State: t.State.String(), Why: t.Why,
		Keep: SplitPiece{Group: t.Group, Lo: t.Keep.Lo, Hi: t.Keep.Hi}, Source: SplitPiece{Group: id, Lo: r.Lo, Hi: r.Hi},
	}
	if t.Cancel != "" && t.Open() {
		info.Why = "it is to be given up: " + t.Cancel
	}
	if why := n.merger.why(t.Group); why != "" && t.Open() {
		info.Why = why
	}
	if g, ok := cat.Group(t.Group); ok {
		info.Keep.Nodes = fullNodes(g)
		if table, ok := cat.TableOf(g); ok {
			info.Table = table.Name
		}
	}
	if g, ok := cat.Group(id); ok {
		info.Source.Nodes = fullNodes(g)
	}
	return info
}

// AwaitMerge waits until a merge has ended. If ctx ends first the merge goes on, and
// the error is CodeUnknown and says what it waits for.
func (n *Node) AwaitMerge(ctx context.Context, id uint64) (MergeInfo, error) {
	return AwaitMerge(ctx, func(context.Context) (MergeInfo, error) { return n.MergeStatus(id) })
}

// AwaitMerge asks, by the given function, until a merge has ended.
func AwaitMerge(ctx context.Context, ask func(context.Context) (MergeInfo, error)) (MergeInfo, error) {
	tick := time.NewTicker(splitPoll)
	defer tick.Stop()
	began := time.Now()
	var last MergeInfo
	for {
		info, err := ask(ctx)
		switch {
		case err == nil && info.State == control.TaskDone.String():
			return info, nil
		case err == nil && info.State != control.TaskOpen.String():
			return info, &partition.Error{
				Code: partition.CodeRefused, Why: fmt.Sprintf("the merge of %s into %s is %s: %s", info.Source.Group, info.Group, info.State, info.Why),
				Next: "the partitions are as they were; see pando partition show " + info.Group.String(),
			}
		case err == nil:
			last = info
		case errors.Is(err, partition.ErrNotFound) && last.Task == 0 && time.Since(began) < splitUnheard:
		case ctx.Err() == nil && !passing(err):
			return last, err
		}
		select {
		case <-ctx.Done():
			return last, &partition.Error{
				Code: partition.CodeUnknown, Why: fmt.Sprintf("the merge of %s into %s is not done: %s", last.Source.Group, last.Group, last.Why),
				Next: fmt.Sprintf("it goes on by itself; wait with pando task wait t%d", last.Task),
			}
		case <-tick.C:
		}
	}
}
