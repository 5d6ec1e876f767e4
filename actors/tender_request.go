package actors

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"pando.dev/pando/cluster/control"
	"pando.dev/pando/cluster/placement"
	"pando.dev/pando/partition"
)

const (
	// requestLasts is how long an operator's request is pursued.
	requestLasts = time.Hour
	// changePoll is the pause between two looks at a change that is waited for.
	changePoll = 100 * time.Millisecond
	// refusedLasts is how long a change must have been refused before that is the
	// answer: what is in the way may pass.
	refusedLasts = 2 * time.Second
)

// ChangeKind is what an operator wants of one partition.
type ChangeKind string

// What an operator may want of one partition.
const (
	ChangeAdd      ChangeKind = "add-replica"
	ChangeRemove   ChangeKind = "remove-replica"
	ChangeReplace  ChangeKind = "replace-replica"
	ChangeTransfer ChangeKind = "transfer-master"
)

// PartitionChange is an operator's wish for one partition. The same one may be
// asked for again and again: it is done once.
//
//	add-replica      one more, on Node
//	remove-replica   one fewer, without Replica, or without the one on Node
//	replace-replica  Replica goes when one on Node, or where it fits best, has caught up
//	transfer-master  the master hands over to the replica on Node, or to the best
type PartitionChange struct {
	Kind    ChangeKind          `json:"kind"`
	Group   partition.GroupID   `json:"group"`
	Node    partition.NodeID    `json:"node,omitempty"`
	Replica partition.ReplicaID `json:"replica,omitempty"`
	// Cancel ends the pursuit of the wish.
	Cancel bool `json:"cancel,omitempty"`
}

// ChangeInfo says how far a PartitionChange is.
type ChangeInfo struct {
	PartitionChange
	Done bool `json:"done"`
	// Refused is why it cannot be done as things are; it is pursued all the same.
	Refused string `json:"refused,omitempty"`
	// Why is what is being done, or waited for.
	Why     string                      `json:"why,omitempty"`
	Version partition.MembershipVersion `json:"membership_version"`
	Master  partition.NodeID            `json:"master"` // who answered
}

// requestAnswer is what the tender says to a request.
type requestAnswer struct {
	info ChangeInfo
	err  error
}

// BeginChange asks the partition's master for a change and returns how far it
// is. To ask again is to look again.
func (n *Node) BeginChange(ctx context.Context, c PartitionChange) (ChangeInfo, error) {
	master, err := n.findMaster(ctx, c.Group)
	if err != nil {
		return ChangeInfo{PartitionChange: c}, err
	}
	if master == n.ID() {
		return n.changeHere(ctx, c)
	}
	return callFor[ChangeInfo](ctx, n, master, callChange, c)
}

// Change asks for a change of a partition and waits until it is done. What is
// refused for good is CodeRefused; if ctx ends first it goes on, and the error
// is CodeUnknown and says what it waits for.
func (n *Node) Change(ctx context.Context, c PartitionChange) (ChangeInfo, error) {
	return AwaitChange(ctx, c, n.BeginChange)
}

// AwaitChange asks, by the given function, until a change is done. A replica that
// was named by its node keeps the id that it had at first.
func AwaitChange(ctx context.Context, c PartitionChange, ask func(context.Context, PartitionChange) (ChangeInfo, error)) (ChangeInfo, error) {
	var last ChangeInfo
	var lastErr error
	var refused time.Time
	tick := time.NewTicker(changePoll)
	defer tick.Stop()
	for {
		info, err := ask(ctx, c)
		switch {
		case err == nil && info.Done:
			return info, nil
		case err == nil:
			last, lastErr, c.Replica = info, nil, info.Replica
		case ctx.Err() != nil:
		case !passing(err):
			return info, err
		default:
			lastErr = err
		}
		switch {
		case last.Refused == "" || lastErr != nil:
			refused = time.Time{}
		case refused.IsZero():
			refused = time.Now()
		case time.Since(refused) > refusedLasts:
			c.Cancel = true
			_, err := ask(ctx, c) // or it is forgotten after a while
			return last, errors.Join(&partition.Error{
				Code: partition.CodeRefused, Why: fmt.Sprintf("%s of %s: %s", c.Kind, c.Group, last.Refused),
				Next: "see pando partition show " + c.Group.String(),
			}, err)
		}
		select {
		case <-ctx.Done():
			return last, unfinished(c, last, lastErr)
		case <-tick.C:
		}
	}
}

// passing reports whether an error comes from a mastership on its way.
func passing(err error) bool {
	return errors.Is(err, partition.ErrNotMaster) || passes(err)
}

func unfinished(c PartitionChange, last ChangeInfo, err error) error {
	why := last.Why
	switch {
	case err != nil:
		why = err.Error()
	case why == "":
		why = "it was not looked at yet"
	}
	return &partition.Error{
		Code: partition.CodeUnknown, Why: fmt.Sprintf("%s of %s is not done: %s", c.Kind, c.Group, why),
		Next: "it goes on by itself as long as the master stays; look with pando partition show " + c.Group.String() + ", or give the command again",
	}
}

// findMaster returns the node of a group's master, and asks the members if this
// node does not know it.
func (n *Node) findMaster(ctx context.Context, g partition.GroupID) (partition.NodeID, error) {
	if c := n.cells.get(g); c != nil {
		if v := c.view.Load(); v != nil && v.Serving {
			return n.ID(), nil
		}
	}
	cat, err := n.catalog()
	if err != nil {
		return "", err
	}
	x, ok := cat.Group(g)
	if !ok {
		return "", &partition.Error{Code: partition.CodeNotFound, Why: fmt.Sprintf("there is no partition %s", g), Next: "list them with: pando partition ls"}
	}
	p := n.describe(ctx, cat, []*control.Group{x})[0]
	if p.Master == "" {
		return "", partition.Errorf(partition.CodeUnavailable, "partition %s has no master now", g)
	}
	return p.Master, nil
}

// serveChange answers another node's request for a change.
func (n *Node) serveChange(ctx context.Context, body []byte) ([]byte, error) {
	var c PartitionChange
	if err := json.Unmarshal(body, &c); err != nil {
		return nil, partition.Errorf(partition.CodeInvalid, "a request to change a partition that cannot be read")
	}
	return answerFor(n.changeHere(ctx, c))
}

// changeHere does it on the master's node.
func (n *Node) changeHere(ctx context.Context, c PartitionChange) (ChangeInfo, error) {
	cell := n.cells.get(c.Group)
	if cell == nil {
		return ChangeInfo{}, partition.Errorf(partition.CodeNotMaster, "node %s has no replica of %s", n.ID(), c.Group)
	}
	v := cell.view.Load()
	if v == nil || !v.Serving {
		return ChangeInfo{}, cell.notMaster()
	}
	m := v.Configurations.Last()
	info := ChangeInfo{PartitionChange: c, Version: m.Version, Master: n.ID()}
	if c.Kind == ChangeTransfer {
		return info, n.transferHere(ctx, cell, m, c, &info)
	}
	r, err := n.requestOf(m, &info.PartitionChange)
	if err != nil {
		return info, err
	}
	if c.Cancel {
		r.Kind = placement.NoRequest
	}
	q := &requested{group: c.Group, request: r, reply: make(chan requestAnswer, 1)}
	a, err := sendAndWait(ctx, n.tender, q, q.reply)
	if err != nil {
		return info, err
	}
	a.info.PartitionChange, a.info.Master = info.PartitionChange, n.ID()
	return a.info, a.err
}

// requestOf checks what was asked for against the configuration. A replica that
// was named by its node is named by its id from then on.
func (n *Node) requestOf(m *partition.Membership, c *PartitionChange) (placement.Request, error) {
	r := placement.Request{Node: c.Node, Replica: c.Replica}
	switch c.Kind {
	case ChangeAdd:
		r.Kind = placement.AddReplica
		if _, there := m.OnNode(c.Node); !there && !n.knows(c.Node) {
			return r, &partition.Error{Code: partition.CodeNotFound, Why: fmt.Sprintf("there is no node %q", c.Node), Next: "list them with: pando members"}
		}
		return r, nil
	case ChangeRemove:
		r.Kind = placement.RemoveReplica
		if c.Replica == 0 {
			x, ok := m.OnNode(c.Node)
			if !ok {
				return r, partition.Errorf(partition.CodeNotFound, "partition %s has no replica on node %q", c.Group, c.Node)
			}
			r.Replica = x.Replica
			c.Replica = x.Replica
		}
	case ChangeReplace:
		r.Kind = placement.ReplaceReplica
		if c.Node != "" && !n.knows(c.Node) {
			return r, &partition.Error{Code: partition.CodeNotFound, Why: fmt.Sprintf("there is no node %q", c.Node), Next: "list them with: pando members"}
		}
	default:
		return r, partition.Errorf(partition.CodeInvalid, "%.40q is no change of a partition", c.Kind)
	}
	if r.Replica == 0 || r.Replica >= m.Next {
		return r, partition.Errorf(partition.CodeNotFound, "partition %s has no replica %d", c.Group, r.Replica)
	}
	if x, ok := m.Member(r.Replica); ok && len(m.Members) == 1 && c.Kind == ChangeRemove {
		return r, &partition.Error{
			Code: partition.CodeRefused, Why: fmt.Sprintf("replica %d on node %s is the only one of %s", x.Replica, x.Node, c.Group),
			Next: "replace it with pando partition replace-replica, or drop the table",
		}
	}
	return r, nil
}

// transferHere hands the mastership over.
func (n *Node) transferHere(ctx context.Context, c *cell, m *partition.Membership, ask PartitionChange, info *ChangeInfo) error {
	var to partition.ReplicaID
	if ask.Node != "" {
		x, ok := m.OnNode(ask.Node)
		if !ok {
			return partition.Errorf(partition.CodeNotFound, "partition %s has no replica on node %q", ask.Group, ask.Node)
		}
		to = x.Replica
		if v := c.view.Load(); v != nil && v.Self == to {
			info.Done = true
			return nil
		}
	}
	done := make(chan error, 1)
	c.ask(&transferMaster{to: to, done: func(err error) { done <- err }})
	select {
	case err := <-done:
		info.Done, info.Replica = err == nil, to
		n.logger.Info("an operator had the master hand over", "group", ask.Group, "to", ask.Node, "err", err)
		return err
	case <-ctx.Done():
		return partition.Errorf(partition.CodeUnknown, "the master of %s has not handed over yet", ask.Group)
	}
}

// request takes in an operator's request, or answers how far it is.
func (a *tenderActor) request(m *requested) requestAnswer {
	s, _, ok := a.situation(m.group)
	if !ok {
		return requestAnswer{err: partition.Errorf(partition.CodeNotMaster, "node %s is not master of %s", a.node.ID(), m.group)}
	}
	info := ChangeInfo{Version: s.Membership.Version}
	x := a.of(m.group)
	if m.request.Kind == placement.NoRequest {
		x.request = placement.Request{}
		a.tend(m.group)
		return requestAnswer{info: info}
	}
	if met(m.request, s.Membership) {
		info.Done = !s.Pending
		info.Why = "the last change is not committed yet"
		if info.Done {
			info.Why = ""
		}
		a.t.mark(m.group)
		return requestAnswer{info: info}
	}
	switch x.request {
	case m.request:
	case placement.Request{}:
		a.node.logger.Info("an operator asks for a change", "group", m.group, "request", describe(m.request))
	default:
		return requestAnswer{info: info, err: &partition.Error{
			Code: partition.CodeBusy, Why: fmt.Sprintf("another change of %s is asked for already: %s", m.group, describe(x.request)),
			Next: "wait until it is done",
		}}
	}
	x.request, x.until = m.request, a.node.now()+requestLasts
	a.tend(m.group)
	if x = a.groups[m.group]; x != nil {
		info.Why, info.Refused = x.step.Why, x.step.Refused
	}
	return requestAnswer{info: info}
}

// settleRequest forgets a request that is met, or that was pursued for too long.
func (a *tenderActor) settleRequest(x *tended, m *partition.Membership, now partition.Time) {
	if x.request.Kind != placement.NoRequest && (met(x.request, m) || now > x.until) {
		x.request = placement.Request{}
	}
}

// met reports whether the configuration is what a request asks for.
func met(r placement.Request, m *partition.Membership) bool {
	switch r.Kind {
	case placement.AddReplica:
		x, ok := m.OnNode(r.Node)
		return ok && x.Kind == partition.Full
	case placement.RemoveReplica:
		_, ok := m.Member(r.Replica)
		return !ok
	case placement.ReplaceReplica:
		_, ok := m.Member(r.Replica)
		if r.Node == "" {
			return !ok
		}
		x, there := m.OnNode(r.Node)
		return !ok && there && x.Kind == partition.Full
	}
	return true
}

func describe(r placement.Request) string {
	switch r.Kind {
	case placement.AddReplica:
		return fmt.Sprintf("one more replica, on node %s", r.Node)
	case placement.RemoveReplica:
		return fmt.Sprintf("replica %d goes", r.Replica)
	case placement.ReplaceReplica:
		if r.Node != "" {
			return fmt.Sprintf("replica %d is replaced by one on node %s", r.Replica, r.Node)
		}
		return fmt.Sprintf("replica %d is replaced", r.Replica)
	}
	return "nothing"
}

// asked takes in what another node says of its members, and answers for those
// groups that are mastered here.
func (a *tenderActor) asked(m *asked) []memberAnswer {
	now := a.node.now()
	if !m.ask.Only && a.nodes.heard(m.from, m.ask.Word, now) {
		a.swept = 0
		a.look()
	}
	for _, b := range m.ask.Broken {
		s, _, ok := a.situation(b.Group)
		if !ok {
			continue
		}
		if x, is := s.Membership.Member(b.Replica); is && x.Node == m.from {
			a.of(b.Group).broken[b.Replica] = b.Why
			a.t.mark(b.Group)
		}
	}
	answers := make([]memberAnswer, 0, len(m.ask.Groups))
	for _, g := range m.ask.Groups {
		if m.ask.Only {
			answers = append(answers, a.couldDrain(g, m.from))
		} else {
			answers = append(answers, a.agreed(g, m))
		}
	}
	return answers
}

// couldDrain says whether the member on a node could be drained.
func (a *tenderActor) couldDrain(g partition.GroupID, node partition.NodeID) memberAnswer {
	s, _, ok := a.situation(g)
	if !ok {
		return memberAnswer{Group: g, Working: true, Why: "its master is moving"}
	}
	why := placement.CanDrain(&s, node)
	return memberAnswer{Group: g, Agreed: why == "", Why: why}
}

// agreed says whether the configuration of a group agrees with a node's word, and
// takes the next step if not.
func (a *tenderActor) agreed(g partition.GroupID, m *asked) memberAnswer {
	s, _, ok := a.situation(g)
	if !ok {
		return memberAnswer{Group: g, Working: true, Why: "its master is moving"}
	}
	if x, is := s.Membership.OnNode(m.from); !is || x.Eligible == (m.ask.Word.Drain == placement.InService) {
		return memberAnswer{Group: g, Agreed: !s.Pending, Working: true, Why: "the last change is not committed yet"}
	}
	a.tend(g)
	x := a.groups[g]
	if x == nil {
		return memberAnswer{Group: g, Working: true}
	}
	return memberAnswer{Group: g, Working: x.busy != 0 || x.step.Kind != placement.Nothing || s.Pending, Why: x.step.Why}
}
