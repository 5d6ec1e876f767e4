package control

import (
	"context"
	"crypto/rand"
	"fmt"
	"math"
	mrand "math/rand/v2"
	"slices"
	"time"

	"pando.dev/pando/cluster/placement"
	"pando.dev/pando/partition"
)

const (
	// askPauseMin and askPauseMax bound the pause between two attempts to find a
	// leader that answers.
	askPauseMin = 5 * time.Millisecond
	askPauseMax = 50 * time.Millisecond
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
		for _, p := range c.cfg.Peers() {
			nodes = append(nodes, placement.Node{ID: p.Node, Zone: p.Zone})
		}
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
		item, err := itemOf(&Group{
			ID: u.Group, Range: u.Range, RangeVersion: u.RangeVersion,
			Membership: u.Membership, Master: u.Master, Epoch: u.Epoch,
		})
		if err != nil {
			return err
		}
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
	return decode[T](want, a.Body)
}

// ask brings a request to the leader, wherever it is, and tries until ctx ends.
// Every request may be executed more than once: locks give a new number, changes
// carry a token, the rest is idempotent. Its errors are the leader's answer, or
// CodeUnavailable if nothing was done for want of a leader, or CodeUnknown if
// something may have been done.
func (c *Control) ask(ctx context.Context, k kind, body any) (*answerBody, error) {
	var unknown bool
	var last error
	pause, wait, turn := askPauseMin, c.cfg.CallTimeout, 0
	for {
		target := c.target(turn)
		if target == "" {
			last = partition.Errorf(partition.CodeUnavailable, "no seat of the control group is known")
		} else {
			a, again, err := c.attempt(ctx, target, wait, k, body)
			if err == nil {
				return a, nil
			}
			if !again {
				return nil, err
			}
			last = err
			code := partition.CodeOf(err)
			if code == partition.CodeUnknown {
				// Perhaps it is only slow: the next one gets more time, so that a
				// slow disk cannot keep every answer from arriving in time.
				unknown, wait = true, min(2*wait, maxServeTime)
			}
			if code == partition.CodeNotMaster && c.target(0) != target && turn == 0 {
				turn++ // the hint is new; follow it at once
				continue
			}
		}
		turn++
		if !c.pause(ctx, pause/2+time.Duration(mrand.Int64N(int64(pause)))) {
			return nil, c.gaveUp(unknown, last)
		}
		pause = min(2*pause, askPauseMax)
	}
}

// attempt asks one node once. Again tells that another attempt may help; the
// error is CodeUnknown if this one may have been executed.
func (c *Control) attempt(ctx context.Context, to partition.NodeID, wait time.Duration, k kind, body any) (a *answerBody, again bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	a, err = c.callOnce(ctx, to, k, body)
	if err != nil {
		c.forget(to)
		switch partition.CodeOf(err) {
		case partition.CodeUnavailable, partition.CodeBusy, partition.CodeClosed:
			return nil, true, err
		case partition.CodeInvalid, partition.CodeTooLarge, partition.CodeNewerFormat:
			return nil, false, err
		}
		return nil, true, partition.Errorf(partition.CodeUnknown, "asked %s: %v", to, err)
	}
	failed := fromItem(a.Error)
	switch partition.CodeOf(asNil(failed)) {
	case 0:
		c.note(to, a)
		return a, false, nil
	case partition.CodeNotMaster:
		c.follow(to, a.Leader)
		return nil, true, failed
	case partition.CodeUnavailable, partition.CodeBusy, partition.CodeClosed, partition.CodeUnknown, partition.CodeTimeout:
		return nil, true, failed
	}
	c.note(to, a)
	return nil, false, failed
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
	inner, err := encode(k, body)
	if err != nil {
		return nil, err
	}
	left := maxServeTime
	if end, ok := ctx.Deadline(); ok {
		left = max(time.Millisecond, time.Until(end))
	}
	r := &requestBody{Group: c.group(), TimeoutMs: uint32(min(left.Milliseconds(), math.MaxUint32)), Body: inner}
	b, err := encode(kindRequest, r)
	if err != nil {
		return nil, err
	}
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
		return nil, err
	}
	if r.Group != 0 && a.Group != 0 && r.Group != a.Group && a.Error == nil {
		return nil, partition.Errorf(partition.CodeRefused, "node %s belongs to another control group (%x)", to, a.Group)
	}
	return a, nil
}

func (c *Control) group() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seats.st.Phase == founded || c.seats.st.Phase == known {
		return c.seats.st.Proposal.ID
	}
	return 0
}

// target returns whom to ask: the leader if it is known, otherwise one seat
// after the other.
func (c *Control) target(turn int) partition.NodeID {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.leaderLocked(); l != "" && turn == 0 {
		return l
	}
	if c.leader.node != "" && turn <= 1 {
		return c.leader.node
	}
	if c.seats.st.Phase != founded && c.seats.st.Phase != known {
		return ""
	}
	all := c.seats.st.Proposal.Seats
	return all[turn%len(all)]
}

// note remembers a leader that has answered.
func (c *Control) note(leader partition.NodeID, a *answerBody) {
	c.mu.Lock()
	fresh := c.leader.node != leader
	c.leader = leaderHint{node: leader, at: c.cfg.Now()}
	hasSeat := c.seat != nil
	c.mu.Unlock()
	if fresh && !hasSeat {
		c.changed.Fire()
	}
	c.Hint(a.Catalog)
}

// follow takes a seat's word for who leads.
func (c *Control) follow(from, leader partition.NodeID) {
	defer c.changed.Fire()
	c.mu.Lock()
	defer c.mu.Unlock()
	if leader == "" || leader == from || !slices.Contains(c.seats.st.Proposal.Seats, leader) {
		if c.leader.node == from {
			c.leader = leaderHint{}
		}
		return
	}
	c.leader = leaderHint{node: leader, at: c.cfg.Now()}
}

// forget stops asking a leader that does not answer.
func (c *Control) forget(node partition.NodeID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leader.node == node {
		c.leader = leaderHint{}
	}
}

// gaveUp is the error after the last attempt.
func (c *Control) gaveUp(unknown bool, last error) error {
	switch {
	case unknown:
		return &partition.Error{
			Code: partition.CodeUnknown, Why: fmt.Sprintf("the control group may have done it or not: %v", last),
			Next: "look at the catalog, or repeat the request with the same token",
		}
	case c.isClosed():
		return partition.Errorf(partition.CodeClosed, "node %s is closing", c.cfg.Node)
	}
	return &partition.Error{
		Code: partition.CodeUnavailable, Why: fmt.Sprintf("the control group has no leader that answers: %v", last),
		Next: "start more than half of its nodes; groups that have a master go on meanwhile",
	}
}
