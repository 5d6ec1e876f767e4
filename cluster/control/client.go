package control

import (
	"context"
	"crypto/rand"
	"fmt"
	"math"
	"slices"
	"time"

	"pando.dev/pando/cluster/placement"
	"pando.dev/pando/partition"
)

const (
	// updateBytes bounds the updates of one request.
	updateBytes = 32 << 10
)

// CreateTable makes a table and returns it as soon as this node's catalog has
// it. It is tried until ctx ends; if it is then not known whether it was made,
// the error is CodeUnknown, and the same request with the same Token finds out.
func (c *Control) CreateTable(ctx context.Context, spec TableSpec) (*Table, error) {
	if spec.Policy == (partition.Policy{}) {
		spec.Policy.Rule = partition.Majority
	}
	if spec.Token == "" {
		spec.Token = rand.Text()
	}
	nodes := spec.Nodes
	if len(nodes) == 0 {
		nodes = c.aliveNodes()
	}
	ask := &askCreate{Table: tableBody{
		Token: spec.Token, Name: spec.Name, Kind: spec.Kind, Replicas: spec.Replicas,
		Rule: spec.Policy.Rule, Zones: spec.Policy.Zones, Splits: spec.SplitPoints,
	}}
	for _, n := range nodes {
		ask.Nodes = append(ask.Nodes, placeItem{Node: n.ID, Zone: n.Zone, Weight: n.Weight})
	}
	// What can be refused here needs no leader.
	if _, err := prepareCreate(ask, 1); err != nil {
		return nil, err
	}
	done, err := askFor[tableAnswer](ctx, c, kindAskCreate, ask, kindTableAnswer)
	if err != nil {
		return nil, fmt.Errorf("create table %q: %w", spec.Name, err)
	}
	c.await(ctx, done.Version)
	if t, ok := c.Catalog().Table(spec.Name); ok && t.ID == done.Table {
		return t, nil
	}
	return &Table{ID: done.Table, Name: spec.Name, Kind: spec.Kind, Replicas: spec.Replicas, Policy: spec.Policy, Changed: done.Version}, nil
}

// aliveNodes are the nodes on which a table can be placed now.
func (c *Control) aliveNodes() []placement.Node {
	nodes := []placement.Node{{ID: c.cfg.Node, Zone: c.cfg.Zone}}
	for _, p := range c.cfg.Peers() {
		if p.Node != c.cfg.Node {
			nodes = append(nodes, placement.Node{ID: p.Node, Zone: p.Zone})
		}
	}
	cat := c.Catalog()
	stay := slices.DeleteFunc(nodes, func(n placement.Node) bool { _, leaving := cat.Leaving(n.ID); return leaving })
	return stay
}

// DropTable removes a table with all its groups. Token is as in TableSpec.
func (c *Control) DropTable(ctx context.Context, name, token string) error {
	if token == "" {
		token = rand.Text()
	}
	done, err := askFor[tableAnswer](ctx, c, kindAskDrop, &dropBody{Token: token, Name: name}, kindTableAnswer)
	if err != nil {
		return fmt.Errorf("drop table %.64q: %w", name, err)
	}
	c.await(ctx, done.Version)
	return nil
}

// UpdateGroups tells what this node, as their master, knows of groups. It may be
// repeated and reordered at will. The error is the first one; what it does not
// concern was taken over, unless it is one of the control group being away.
func (c *Control) UpdateGroups(ctx context.Context, updates []GroupUpdate) error {
	var body updateBody
	var first error
	size := 0
	flush := func() {
		if len(body.Updates) == 0 {
			return
		}
		_, err := askFor[emptyAnswer](ctx, c, kindAskUpdate, &body, kindEmptyAnswer)
		if err != nil && first == nil {
			first = fmt.Errorf("update groups in the catalog: %w", err)
		}
		body, size = updateBody{}, 0
	}
	for _, u := range updates {
		if u.Membership == nil {
			return partition.Errorf(partition.CodeInvalid, "%s: an update without a membership", u.Group)
		}
		item := itemOf(&Group{
			ID: u.Group, Range: u.Range, RangeVersion: u.RangeVersion,
			Membership: u.Membership, Master: u.Master, Epoch: u.Epoch,
		})
		body.Updates = append(body.Updates, item)
		if size += 64 + len(item.Membership) + len(item.Lo) + len(item.Hi); size >= updateBytes {
			flush()
		}
	}
	flush()
	return first
}

// await waits until this node's catalog has reached a version, or ctx ends.
func (c *Control) await(ctx context.Context, version uint64) {
	for {
		changed := c.Changed()
		if c.Catalog().Version >= version {
			return
		}
		c.Hint(version)
		select {
		case <-changed:
		case <-ctx.Done():
			return
		case <-c.done:
			return
		}
	}
}

// askFor asks the leader and decodes its answer.
func askFor[T any](ctx context.Context, c *Control, k kind, body any, want kind) (*T, error) {
	a, err := c.ask(ctx, k, body)
	if err != nil {
		return nil, err
	}
	v, err := decode[T](want, a.Body)
	if err != nil { // it was carried out, or not
		return nil, partition.Errorf(partition.CodeUnknown, "the control group's answer cannot be read: %v", err)
	}
	return v, nil
}

// asNil keeps a nil *Error from becoming an error that is not nil.
func asNil(e *partition.Error) error {
	if e == nil {
		return nil
	}
	return e
}

// callOnce carries one request to one node, or to this one, and decodes the
// outer form of the answer.
func (c *Control) callOnce(ctx context.Context, to partition.NodeID, k kind, body any) (*answerBody, error) {
	inner := encode(k, body)
	left := maxServeTime
	if end, ok := ctx.Deadline(); ok {
		left = max(time.Millisecond, time.Until(end))
	}
	r := &requestBody{Group: c.group(), TimeoutMs: uint32(min(left.Milliseconds(), math.MaxUint32)), Body: inner}
	b := encode(kindRequest, r)
	if len(b) > MaxCallBytes {
		return nil, partition.Errorf(partition.CodeTooLarge, "a control request of %d bytes, limit %d", len(b), MaxCallBytes)
	}
	if to == c.cfg.Node {
		return c.serve(ctx, to, b), nil
	}
	answer, err := c.cfg.Transport.Call(ctx, to, b)
	if err != nil {
		return nil, err
	}
	if len(answer) > MaxCallBytes {
		return nil, partition.Errorf(partition.CodeUnknown, "an answer of %d bytes, limit %d", len(answer), MaxCallBytes)
	}
	a, err := decode[answerBody](kindAnswer, answer)
	if err != nil {
		return nil, partition.Errorf(partition.CodeUnknown, "the answer of node %s cannot be read: %v", to, err)
	}
	if r.Group != 0 && a.Group != 0 && r.Group != a.Group && a.Error == nil {
		return nil, partition.Errorf(partition.CodeRefused, "node %s belongs to another control group (%x)", to, a.Group)
	}
	return a, nil
}

func (c *Control) group() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seats.exists() {
		return c.seats.st.Proposal.ID
	}
	return 0
}
