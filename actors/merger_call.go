package actors

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
	"pando.dev/pando/split"
)

// What the masters of the two groups of a merge ask of the other group's replicas.
const (
	mergeLook    = "look"    // of the source's master: how is it
	mergeSeal    = "seal"    // of the source's master: seal it, and how is it then
	mergeRows    = "rows"    // of a replica of the source: rows
	mergeOutcome = "outcome" // of a replica of the survivor: what was decided
)

type mergeCall struct {
	What  string            `json:"what"`
	Group partition.GroupID `json:"group"` // that is asked
	Other partition.GroupID `json:"other"` // that asks
	// The attempt.
	Task   uint64          `json:"task"`
	Intent partition.Index `json:"intent"`
	// Of rows: the source's range, where to go on, and that only rows of a state that
	// is sealed for the attempt will do.
	Lo     []byte `json:"lo,omitempty"`
	Hi     []byte `json:"hi,omitempty"`
	From   []byte `json:"from,omitempty"`
	Sealed bool   `json:"sealed,omitempty"`
}

type mergeAnswer struct {
	Extent  []byte            `json:"extent,omitempty"` // none: the group never had one
	Top     partition.Index   `json:"top,omitempty"`
	Busy    string            `json:"busy,omitempty"`
	Outcome partition.Outcome `json:"outcome,omitempty"`
	Sure    bool              `json:"sure,omitempty"` // of Outcome; see split.Heard
	Rows    []byte            `json:"rows,omitempty"` // an Absorb without its decision
	Done    bool              `json:"done,omitempty"`
}

func (c *mergeCall) keys() partition.KeyRange {
	var r partition.KeyRange
	if len(c.Lo) > 0 {
		r.Lo = c.Lo
	}
	if len(c.Hi) > 0 {
		r.Hi = c.Hi
	}
	return r
}

// ask hears from the other group how things are there, and has it sealed.
func (r *merging) ask(s *split.MergeSituation, seal bool) error {
	n, m := r.node, s.Extent.Merge
	if s.Extent.IsSource() {
		return r.askOutcome(n.ctx, m)
	}
	ctx, cancel := context.WithTimeout(n.ctx, mergeAsk)
	defer cancel()
	c := mergeCall{What: mergeLook, Other: s.Group}
	if m != nil {
		c.Group, c.Task, c.Intent = m.Other, m.Task, m.Intent
		c.Lo, c.Hi = m.Range.Lo, m.Range.Hi
	} else {
		c.Group, c.Lo, c.Hi = s.Task.Source, s.Task.Range.Lo, s.Task.Range.Hi
	}
	if seal {
		if c.What = mergeSeal; r.sealing == 0 {
			r.sealing = s.Now
		}
	}
	r.source = nil // what is not known now is not known
	to, err := n.findMaster(ctx, c.Group)
	if err != nil {
		return err
	}
	a, err := n.askMerge(ctx, to, &c)
	if err != nil {
		return err
	}
	o := &split.Source{Top: a.Top, Busy: a.Busy}
	if len(a.Extent) > 0 {
		if err := o.Extent.UnmarshalBinary(a.Extent); err != nil {
			return fmt.Errorf("what node %s says of %s: %w", to, c.Group, err)
		}
	}
	r.heard(o, m, s.Now)
	return nil
}

// heard notes what the source's master says, which may have been sealed by a master of
// before.
func (r *merging) heard(o *split.Source, m *partition.Merge, now partition.Time) {
	r.source = o
	x := o.Extent.Merge
	sealed := x != nil && m != nil && x.Intent == m.Intent
	if r.found = r.found && sealed; sealed && r.sealing == 0 {
		r.sealing = now
	}
}

// askOutcome asks the survivor's replicas, one after the other, for its decision, and
// the catalog if they cannot know it.
func (r *merging) askOutcome(ctx context.Context, m *partition.Merge) error {
	n := r.node
	g, ok := n.control.Catalog().Group(m.Other)
	h, err := split.Heard{}, error(nil)
	if ok {
		c := mergeCall{What: mergeOutcome, Group: m.Other, Other: r.cell.group, Task: m.Task, Intent: m.Intent}
		h, err = hearOutcome(ctx, deciders(g), func(ctx context.Context, id partition.NodeID) (mergeAnswer, error) { return n.askMerge(ctx, id, &c) })
	}
	if err != nil || ok && !h.Asks() {
		r.outcome = h.Outcome
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, mergeAsk)
	defer cancel()
	cat, err := n.mergeCatalog(ctx, m.Other, r.cell.group)
	if err != nil {
		return err
	}
	r.outcome = h.With(&cat)
	switch {
	case r.outcome != partition.Undecided:
	case !cat.Survivor:
		return partition.Errorf(partition.CodeUnavailable, "%s, which decides, is in no catalog", m.Other)
	case h.Asks():
		return partition.Errorf(partition.CodeUnavailable, "%s has forgotten, and by the catalog it has the keys", m.Other)
	}
	return nil
}

// deciders are the nodes with a replica of the survivor that has its state, the master
// first.
func deciders(g *control.Group) []partition.NodeID {
	var nodes []partition.NodeID
	if g.Master != "" {
		nodes = append(nodes, g.Master)
	}
	for _, x := range g.Membership.Members {
		if x.Kind != partition.LogReplica && x.Node != g.Master {
			nodes = append(nodes, x.Node)
		}
	}
	return nodes
}

// hearOutcome asks nodes for the outcome until one knows it, each for a share of the
// time: neither one that does not answer nor one that is behind keeps the others from it.
func hearOutcome(ctx context.Context, nodes []partition.NodeID, ask func(context.Context, partition.NodeID) (mergeAnswer, error)) (split.Heard, error) {
	err := error(partition.Errorf(partition.CodeUnavailable, "nobody can be asked"))
	heard := false
	for _, id := range nodes {
		one, cancel := context.WithTimeout(ctx, mergeShare)
		a, failed := ask(one, id)
		cancel()
		switch {
		case failed != nil:
			err = failed
		case a.Outcome != partition.Undecided:
			return split.Heard{Outcome: a.Outcome, Sure: a.Sure}, nil
		default:
			heard = true
		}
	}
	if heard {
		err = nil
	}
	return split.Heard{}, err
}

// mergeCatalog is what the control group says of the groups of a merge now.
func (n *Node) mergeCatalog(ctx context.Context, survivor, source partition.GroupID) (c split.MergeCatalog, err error) {
	if err := n.control.AwaitCurrent(ctx); err != nil {
		return c, err
	}
	cat := n.control.Catalog()
	if g, ok := cat.Group(survivor); ok {
		c.Survivor, c.Range = true, g.Range
	}
	_, c.Source = cat.Group(source)
	_, c.Absorbed = cat.Absorbed(source)
	return c, nil
}

// askMerge asks a node, which may be this one.
func (n *Node) askMerge(ctx context.Context, to partition.NodeID, c *mergeCall) (mergeAnswer, error) {
	if to == n.ID() {
		return n.mergeHere(ctx, c)
	}
	return callFor[mergeAnswer](ctx, n, to, callMerge, c)
}

// serveMerge answers another node's mergeCall.
func (n *Node) serveMerge(ctx context.Context, body []byte) ([]byte, error) {
	var c mergeCall
	if err := json.Unmarshal(body, &c); err != nil {
		return nil, partition.Errorf(partition.CodeInvalid, "a question about a merge that cannot be read")
	}
	return answerFor(n.mergeHere(ctx, &c))
}

func (n *Node) mergeHere(ctx context.Context, c *mergeCall) (mergeAnswer, error) {
	cell := n.cells.get(c.Group)
	if cell == nil {
		return mergeAnswer{}, partition.Errorf(partition.CodeNotFound, "node %s has no replica of %s", n.ID(), c.Group)
	}
	st := cell.state.Load()
	if st == nil {
		return mergeAnswer{}, partition.Errorf(partition.CodeUnavailable, "the replica of %s on node %s has no state open", c.Group, n.ID())
	}
	switch c.What {
	case mergeLook:
		return n.lookAtSource(cell)
	case mergeSeal:
		return n.sealHere(ctx, cell, c)
	case mergeRows:
		return n.rowsHere(st, c)
	case mergeOutcome:
		return n.outcomeHere(ctx, st, c)
	}
	return mergeAnswer{}, partition.Errorf(partition.CodeInvalid, "a question about a merge of an unknown sort %.20q", c.What)
}

// lookAtSource says how a group is of which this node has the serving master: by its
// state, as applied here, so that older leases have run out.
func (n *Node) lookAtSource(c *cell) (mergeAnswer, error) {
	v := c.view.Load()
	if v == nil || !v.Serving {
		return mergeAnswer{}, c.notMaster()
	}
	x := c.extent.Load() // stored behind the write, and looked at by reads before they answer
	if after := c.view.Load(); x == nil || after == nil || after.Epoch != v.Epoch || !after.Serving {
		return mergeAnswer{}, c.notMaster()
	}
	var a mergeAnswer
	if x.Merge != nil {
		a.Top = x.At(x.Merge.At)
	}
	if x.Split != nil {
		a.Busy = fmt.Sprintf("the split of task %d is under way", x.Split.Task)
	}
	if x.Version != 0 {
		b, err := x.AppendBinary(nil)
		if err != nil {
			return a, err
		}
		a.Extent = b
	}
	return a, nil
}

// sealHere has the source sealed, and waits a little for it.
func (n *Node) sealHere(ctx context.Context, c *cell, ask *mergeCall) (mergeAnswer, error) {
	keys, version := ask.keys(), partition.RangeVersion(0)
	if x, ok := c.served(); ok {
		keys, version = x.Range, x.Version
	} else if route := c.route.Load(); route != nil {
		keys, version = route.Range, route.RangeVersion
	}
	if !keys.Equal(ask.keys()) {
		return mergeAnswer{}, partition.Errorf(partition.CodeRefused, "%s serves %.80s, to be merged is %.80s", ask.Group, keys, ask.keys())
	}
	for end := n.now() + mergeWait; ; {
		a, err := n.lookAtSource(c)
		x := c.extent.Load()
		if err != nil || x != nil && x.Merge != nil || n.now() >= end {
			return a, err
		}
		n.merger.want(ask.Group, &partition.SourceSeal{Task: ask.Task, Range: keys, Version: version, Survivor: ask.Other, Intent: ask.Intent})
		if err := pauseFor(ctx, 5*time.Millisecond); err != nil {
			return a, err
		}
	}
}

// outcomeHere says what this replica of the survivor has applied, and waits a little
// for a decision.
func (n *Node) outcomeHere(ctx context.Context, st *openState, c *mergeCall) (mergeAnswer, error) {
	for end := n.now() + mergeWait; ; {
		a, err := outcomeOf(st, c)
		if err != nil || a.Outcome != partition.Undecided || n.now() >= end {
			return a, err
		}
		if err := pauseFor(ctx, 2*time.Millisecond); err != nil {
			return mergeAnswer{}, err
		}
	}
}

func outcomeOf(st *openState, c *mergeCall) (a mergeAnswer, err error) {
	v, err := st.store.View()
	if err != nil {
		return a, err
	}
	defer v.Close()
	x, err := replica.ExtentOf(v)
	if err != nil {
		return a, err
	}
	applied, err := v.Applied()
	return mergeAnswer{Outcome: x.Outcome(c.Task, c.Intent, c.Other, applied), Sure: len(x.Lineage) < partition.MaxLineage}, err
}

func pauseFor(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return partition.Errorf(partition.CodeTimeout, "it did not come in time")
	}
}

// sourceRows reads a page of the source's rows, from this node's replica of it if that
// will do, or from its master's.
func (n *Node) sourceRows(ctx context.Context, c *mergeCall) (mergeAnswer, error) {
	if a, err := n.mergeHere(ctx, c); err == nil {
		return a, nil
	}
	to, err := n.findMaster(ctx, c.Group)
	if err != nil {
		return mergeAnswer{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, mergeAsk)
	defer cancel()
	return n.askMerge(ctx, to, c)
}

// rowsHere reads a page of rows of this node's replica of the source.
func (n *Node) rowsHere(st *openState, c *mergeCall) (mergeAnswer, error) {
	v, err := st.store.View()
	if err != nil {
		return mergeAnswer{}, err
	}
	defer v.Close()
	x, err := replica.ExtentOf(v)
	if err != nil {
		return mergeAnswer{}, err
	}
	m := x.Merge
	if c.Sealed && (m == nil || m.Phase != partition.SourceSealed || m.Task != c.Task || m.Intent != c.Intent || m.Other != c.Other) ||
		x.Version != 0 && !x.Range.Equal(c.keys()) {
		return mergeAnswer{}, partition.Errorf(partition.CodeBehind, "the replica of %s on node %s: %s", c.Group, n.ID(), x.Describe())
	}
	page, done, err := replica.SourceRows(v, c.keys(), c.From, min(mergePage, n.maxCommandBytes()/2))
	if err != nil {
		return mergeAnswer{}, err
	}
	b, err := page.AppendBinary(nil)
	return mergeAnswer{Rows: b, Done: done}, err
}
