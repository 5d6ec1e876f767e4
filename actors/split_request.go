package actors

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"pando.dev/pando/cluster/control"
	"pando.dev/pando/cluster/placement"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

const (
	// splitTimeout is how long a split is tried that says nothing else: then it is
	// given up, and the partition is as it was.
	splitTimeout = 10 * time.Minute
	// splitPoll is the pause between two looks at a split that is waited for.
	splitPoll = 20 * time.Millisecond
	// splitUnheard is how long the node that is asked may not have heard of it.
	splitUnheard = 2 * time.Second
)

// SplitRequest asks for a partition to be divided while it serves. Either At or
// Into says where.
type SplitRequest struct {
	Group partition.GroupID `json:"group,omitempty"`
	// Table names the partition instead of Group: the one that has the first key of
	// At or, without one, the table's only partition.
	Table string `json:"table,omitempty"`
	// At are the keys that begin the new partitions, in order.
	At [][]byte `json:"at,omitempty"`
	// Into is the number of pieces, about equal by their bytes; 2 is the middle.
	Into int `json:"into,omitempty"`
	// ByLoad has the pieces of Into about equal by what is asked of them, instead of
	// by their bytes. The load is looked at for a moment if nobody has yet.
	ByLoad bool `json:"by_load,omitempty"`
	// NewNodes has the new partitions on nodes that do not hold this one: a copy
	// goes there first.
	NewNodes bool `json:"new_nodes,omitempty"`
	// Timeout is how long it is tried (default 10 min).
	Timeout time.Duration `json:"timeout_ns,omitempty"`
	Reason  string        `json:"reason,omitempty"`
	By      string        `json:"by,omitempty"`
	// Token makes retries safe: the same request with the same token is one split.
	Token string `json:"token,omitempty"`
}

// SplitPiece is a partition that a split makes.
type SplitPiece struct {
	Group partition.GroupID  `json:"group,omitempty"` // 0 in a plan
	Lo    []byte             `json:"lo"`
	Hi    []byte             `json:"hi"`
	Nodes []partition.NodeID `json:"nodes"`
}

// SplitInfo describes a split, planned or under way.
type SplitInfo struct {
	Task  uint64            `json:"task,omitempty"` // 0 in a plan
	Group partition.GroupID `json:"group"`
	Table string            `json:"table"`
	// Keep is what stays with the partition, Pieces what leaves it.
	Keep   SplitPiece   `json:"keep"`
	Pieces []SplitPiece `json:"pieces"`
	// State is planned, open, done, aborted or failed; Phase how far an open one is,
	// and Why what it waits for, or what became of it.
	State string `json:"state"`
	Phase string `json:"phase,omitempty"`
	Why   string `json:"why,omitempty"`
}

// PlanSplit says what Split would do, and does nothing.
func (n *Node) PlanSplit(ctx context.Context, r SplitRequest) (SplitInfo, error) {
	spec, g, err := n.planSplit(ctx, &r)
	if err != nil {
		return SplitInfo{}, err
	}
	cat := n.control.Catalog()
	info := SplitInfo{Group: g.ID, State: "planned"}
	if t, ok := cat.TableOf(g); ok {
		info.Table = t.Name
	}
	lo := g.Range.Lo
	for i := range len(spec.Keys) + 1 {
		p := SplitPiece{Lo: lo, Hi: g.Range.Hi, Nodes: fullNodes(g)}
		if i < len(spec.Keys) {
			p.Hi, lo = spec.Keys[i], spec.Keys[i]
		}
		if i == 0 {
			info.Keep = p
			continue
		}
		if i <= len(spec.Places) {
			p.Nodes = nil
			for _, x := range spec.Places[i-1].Nodes {
				p.Nodes = append(p.Nodes, x.ID)
			}
		}
		info.Pieces = append(info.Pieces, p)
	}
	return info, nil
}

// Split begins to divide a partition, and returns when that is written down: the
// partition's master does it, and a new one goes on with it. The partition keeps
// the first piece. AwaitSplit waits for the end.
func (n *Node) Split(ctx context.Context, r SplitRequest) (SplitInfo, error) {
	spec, _, err := n.planSplit(ctx, &r)
	if err != nil {
		return SplitInfo{}, err
	}
	t, err := n.control.BeginSplit(ctx, spec)
	if err != nil {
		return SplitInfo{}, err
	}
	n.logger.Info("a split begins", "group", t.Group, "task", t.ID, "pieces", len(t.Children)+1, "by", t.By)
	return n.splitInfo(t), nil
}

// SplitStatus says how far a split is, by its task.
func (n *Node) SplitStatus(id uint64) (SplitInfo, error) {
	cat, err := n.catalog()
	if err != nil {
		return SplitInfo{}, err
	}
	t, ok := cat.Task(control.TaskID(id))
	if !ok || t.Kind != control.TaskSplit {
		return SplitInfo{}, &partition.Error{Code: partition.CodeNotFound, Why: fmt.Sprintf("task %d is no split, or ended long ago", id), Next: "list them with: pando task ls"}
	}
	return n.splitInfo(t), nil
}

// AwaitSplit waits until a split has ended. If ctx ends first the split goes on,
// and the error is CodeUnknown and says what it waits for.
func (n *Node) AwaitSplit(ctx context.Context, id uint64) (SplitInfo, error) {
	return AwaitSplit(ctx, func(context.Context) (SplitInfo, error) { return n.SplitStatus(id) })
}

// AwaitSplit asks, by the given function, until a split has ended.
func AwaitSplit(ctx context.Context, ask func(context.Context) (SplitInfo, error)) (SplitInfo, error) {
	tick := time.NewTicker(splitPoll)
	defer tick.Stop()
	began := time.Now()
	var last SplitInfo
	var lastErr error
	for {
		info, err := ask(ctx)
		switch {
		case err == nil && info.State == control.TaskDone.String():
			return info, nil
		case err == nil && info.State != control.TaskOpen.String():
			return info, &partition.Error{
				Code: partition.CodeRefused, Why: fmt.Sprintf("the split of %s is %s: %s", info.Group, info.State, info.Why),
				Next: "the partition is as it was; see pando partition show " + info.Group.String(),
			}
		case err == nil:
			last = info
		case errors.Is(err, partition.ErrNotFound) && last.Task == 0 && time.Since(began) < splitUnheard:
		case ctx.Err() == nil && !passing(err):
			return last, err
		}
		lastErr = err
		select {
		case <-ctx.Done():
			why := last.Why
			if lastErr != nil && !errors.Is(lastErr, ctx.Err()) {
				why = lastErr.Error()
			}
			return last, &partition.Error{
				Code: partition.CodeUnknown, Why: fmt.Sprintf("the split of %s is not done: %s", last.Group, why),
				Next: fmt.Sprintf("it goes on by itself; wait with pando task wait t%d", last.Task),
			}
		case <-tick.C:
		}
	}
}

func (n *Node) splitInfo(t *control.Task) SplitInfo {
	cat := n.control.Catalog()
	info := SplitInfo{
		Task: uint64(t.ID), Group: t.Group, Keep: SplitPiece{Group: t.Group, Lo: t.Keep.Lo, Hi: t.Keep.Hi},
		State: t.State.String(), Phase: t.Phase, Why: t.Why,
	}
	var stays []partition.NodeID
	if g, ok := cat.Group(t.Group); ok {
		stays = fullNodes(g)
		if table, ok := cat.TableOf(g); ok {
			info.Table = table.Name
		}
	}
	info.Keep.Nodes = stays
	for i := range t.Children {
		c := &t.Children[i]
		p := SplitPiece{Group: c.Group, Lo: c.Range.Lo, Hi: c.Range.Hi}
		for _, x := range c.Nodes {
			p.Nodes = append(p.Nodes, x.ID)
		}
		if len(p.Nodes) == 0 {
			p.Nodes = stays
		}
		info.Pieces = append(info.Pieces, p)
	}
	return info
}

func fullNodes(g *control.Group) (nodes []partition.NodeID) {
	for _, m := range g.Membership.Members {
		if m.Kind == partition.Full {
			nodes = append(nodes, m.Node)
		}
	}
	return nodes
}

// planSplit turns a request into what the control group is asked for.
func (n *Node) planSplit(ctx context.Context, r *SplitRequest) (control.SplitSpec, *control.Group, error) {
	var spec control.SplitSpec
	g, err := n.splitGroup(r)
	if err != nil {
		return spec, nil, err
	}
	spec = control.SplitSpec{
		Group: g.ID, RangeVersion: g.RangeVersion, Keys: r.At, Timeout: r.Timeout, Reason: r.Reason, By: r.By, Token: r.Token,
	}
	if spec.Timeout <= 0 {
		spec.Timeout = splitTimeout
	}
	if err := n.splittable(g); err != nil {
		return spec, nil, err
	}
	switch {
	case len(r.At) > 0 && r.Into != 0 || len(r.At) == 0 && r.Into == 0:
		return spec, nil, partition.Errorf(partition.CodeInvalid, "say where to split, or into how many pieces, and not both")
	case r.Into != 0:
		if spec.Keys, err = n.splitKeys(ctx, splitKeysAsk{Group: g.ID, Into: r.Into, Load: r.ByLoad}); err != nil {
			return spec, nil, err
		}
	}
	for _, k := range spec.Keys {
		if !g.Range.Contains(k) || bytes.Equal(k, g.Range.Lo) {
			return spec, nil, &partition.Error{
				Code: partition.CodeInvalid, Why: fmt.Sprintf("%.64q does not divide %s of %s", k, g.Range, g.ID), Next: "name a key inside the range that is not its first",
			}
		}
	}
	if r.NewNodes {
		spec.Places, err = n.splitPlaces(g, len(spec.Keys))
	}
	return spec, g, err
}

// splitGroup finds the partition that is meant.
func (n *Node) splitGroup(r *SplitRequest) (*control.Group, error) {
	cat, err := n.catalog()
	if err != nil {
		return nil, err
	}
	if r.Group != 0 {
		g, ok := cat.Group(r.Group)
		if !ok {
			return nil, &partition.Error{Code: partition.CodeNotFound, Why: fmt.Sprintf("there is no partition %s", r.Group), Next: "list them with: pando partition ls"}
		}
		return g, nil
	}
	if _, ok := cat.Table(r.Table); !ok {
		return nil, noSuchTable(r.Table)
	}
	if len(r.At) > 0 {
		return cat.Lookup(r.Table, r.At[0])
	}
	all := cat.Groups(r.Table)
	if len(all) != 1 {
		return nil, &partition.Error{
			Code: partition.CodeInvalid, Why: fmt.Sprintf("table %q has %d partitions", r.Table, len(all)), Next: "name one of them: pando partition ls --table " + r.Table,
		}
	}
	return all[0], nil
}

// splittable refuses a partition of a kind that does not tell which keys its
// commands touch.
func (n *Node) splittable(g *control.Group) error {
	t, ok := n.control.Catalog().TableOf(g)
	if !ok {
		return partition.Errorf(partition.CodeNotFound, "partition %s has no table", g.ID)
	}
	factory, ok := n.cfg.Kinds[t.Kind]
	if !ok {
		return nil // another node knows it
	}
	p, err := factory(partition.Spec{Table: t.Name, Group: g.ID})
	if err != nil {
		return fmt.Errorf("make a partition of kind %q: %w", t.Kind, err)
	}
	if _, ok := p.(partition.Splitter); !ok {
		return &partition.Error{
			Code: partition.CodeRefused, Why: fmt.Sprintf("partitions of kind %q cannot be split: the kind does not tell which keys a command touches", t.Kind),
			Next: "implement partition.Splitter",
		}
	}
	return nil
}

// splitPlaces chooses nodes that do not hold the partition for each piece that
// leaves it, and refuses if there are too few.
func (n *Node) splitPlaces(g *control.Group, pieces int) ([]control.SplitPlace, error) {
	var free, well []placement.Node
	for _, m := range n.Members() {
		if _, holds := g.Membership.OnNode(m.Node); !holds && m.Status == "alive" && m.Mode == "" {
			free = append(free, placement.Node{ID: m.Node, Zone: m.Zone, Weight: 1})
			if m.Sick == "" {
				well = append(well, free[len(free)-1])
			}
		}
	}
	replicas := len(fullNodes(g))
	if len(well) >= replicas {
		free = well
	}
	if len(free) < replicas {
		return nil, &partition.Error{
			Code: partition.CodeRefused, Why: fmt.Sprintf("%d nodes are in service and do not hold %s, its pieces need %d each", len(free), g.ID, replicas),
			Next: "add nodes, or split without --new-nodes",
		}
	}
	var places []control.SplitPlace
	for i := range pieces {
		chosen, err := placement.Place(g.ID+partition.GroupID(i)<<32, free, replicas)
		if err != nil {
			return nil, err
		}
		p := control.SplitPlace{First: chosen[0]}
		for _, x := range free {
			if slices.Contains(chosen, x.ID) {
				p.Nodes = append(p.Nodes, x)
			}
		}
		places = append(places, p)
	}
	return places, nil
}

// splitKeysAsk asks a partition's master where its data divides.
type splitKeysAsk struct {
	Group partition.GroupID `json:"group"`
	Into  int               `json:"into"`
	Load  bool              `json:"load,omitempty"` // where its load divides
}

// splitKeys finds the keys that divide a partition's data into pieces.
func (n *Node) splitKeys(ctx context.Context, ask splitKeysAsk) ([][]byte, error) {
	g, into := ask.Group, ask.Into
	if into < 2 || into > partition.MaxChildren+1 {
		return nil, partition.Errorf(partition.CodeInvalid, "a split into %d pieces, allowed are 2 to %d", into, partition.MaxChildren+1)
	}
	master, err := n.findMaster(ctx, g)
	if err != nil {
		return nil, err
	}
	var keys [][]byte
	if master == n.ID() {
		keys, err = n.splitKeysHere(ctx, ask)
	} else {
		keys, err = callFor[[][]byte](ctx, n, master, callSplitKeys, ask)
	}
	if err != nil {
		return nil, err
	}
	if len(keys) != into-1 {
		return nil, &partition.Error{
			Code: partition.CodeRefused, Why: fmt.Sprintf("the data of %s does not divide into %d pieces: it has too few keys", g, into),
			Next: "name the keys: pando partition split --at",
		}
	}
	return keys, nil
}

// splitKeysHere does it on a node with a replica.
func (n *Node) splitKeysHere(ctx context.Context, ask splitKeysAsk) ([][]byte, error) {
	c := n.cells.get(ask.Group)
	if c == nil {
		return nil, partition.Errorf(partition.CodeNotMaster, "node %s has no replica of %s", n.ID(), ask.Group)
	}
	if ask.Load {
		return n.loads.cuts(ctx, c, ask.Into)
	}
	st := c.state.Load()
	keys, _, ok := c.rangeOf()
	if st == nil || !ok {
		return nil, partition.Errorf(partition.CodeUnavailable, "the replica of %s on node %s has no state open", ask.Group, n.ID())
	}
	rows, err := st.store.Quantiles(ctx, replica.Rows(keys), ask.Into)
	if err != nil {
		return nil, err
	}
	out := make([][]byte, 0, len(rows))
	for _, k := range rows {
		out = append(out, k[1:])
	}
	return out, nil
}

// serveSplitKeys answers another node's splitKeysAsk.
func (n *Node) serveSplitKeys(ctx context.Context, body []byte) ([]byte, error) {
	var ask splitKeysAsk
	if err := json.Unmarshal(body, &ask); err != nil || ask.Into < 2 || ask.Into > partition.MaxChildren+1 {
		return nil, partition.Errorf(partition.CodeInvalid, "a question for keys to split at that cannot be read")
	}
	return answerFor(n.splitKeysHere(ctx, ask))
}
