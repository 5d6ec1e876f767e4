package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"pando.dev/pando/partition"
)

// Serve answers a request that Transport.Call brought from another node. It
// takes as long as the request needs, at most until ctx ends, and for a node
// that waits for news of the catalog a second: the caller runs it on a goroutine
// of its own. From is the node that the link has identified.
func (c *Control) Serve(ctx context.Context, from partition.NodeID, request []byte) []byte {
	a := c.serve(ctx, from, request)
	b := encode(kindAnswer, a)
	if len(b) > MaxCallBytes {
		err := partition.Errorf(partition.CodeTooLarge, "an answer of %d bytes, limit %d", len(b), MaxCallBytes)
		c.cfg.Logger.Error("control answer not sent", "err", err)
		b = encode(kindAnswer, &answerBody{Error: toItem(err)})
	}
	return b
}

func (c *Control) serve(ctx context.Context, from partition.NodeID, request []byte) *answerBody {
	a := c.envelope()
	if c.isClosed() {
		a.Error = toItem(partition.Errorf(partition.CodeClosed, "node %s is closing", c.cfg.Node))
		return a
	}
	if len(request) > MaxCallBytes {
		a.Error = toItem(partition.Errorf(partition.CodeTooLarge, "a control request of %d bytes, limit %d", len(request), MaxCallBytes))
		return a
	}
	r, err := decode[requestBody](kindRequest, request)
	if err != nil {
		a.Error = toItem(asError(err))
		return a
	}
	if r.Group != 0 && a.Group != 0 && r.Group != a.Group {
		a.Error = toItem(&partition.Error{
			Code: partition.CodeRefused,
			Why:  fmt.Sprintf("node %s belongs to another control group (%x) than this one (%x)", from, r.Group, a.Group),
			Next: "two clusters were founded apart and have met; start one of them with another cluster name",
		})
		return a
	}
	ctx, cancel := context.WithTimeout(ctx, min(time.Duration(r.TimeoutMs)*time.Millisecond, maxServeTime))
	defer cancel()
	body, failed := c.dispatch(ctx, from, r.Body, a)
	// The version is of now, or of the leader that was asked for it, which may be
	// far ahead of this seat: what the request has done is in it.
	a.Body, a.Error, a.Catalog = body, toItem(failed), max(a.Catalog, c.Catalog().Version)
	return a
}

// envelope is an answer with all but the answer.
func (c *Control) envelope() *answerBody {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := &answerBody{Leader: c.leaderLocked()}
	if c.seats.exists() {
		a.Group = c.seats.st.Proposal.ID
	}
	return a
}

// dispatch answers the body of a request. What another seat said of the catalog it
// puts into a.
func (c *Control) dispatch(ctx context.Context, from partition.NodeID, b []byte, a *answerBody) ([]byte, *partition.Error) {
	k, err := kindOf(b)
	if err != nil {
		return nil, asError(err)
	}
	slots := c.serving
	if k == kindAskCatalog {
		slots = c.waiting
	}
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
	default:
		return nil, partition.Errorf(partition.CodeBusy, "node %s serves %d control requests, its limit", c.cfg.Node, cap(slots))
	}
	if k == kindAskSeat {
		return c.serveSeat(b)
	}
	s := c.usableSeat()
	if s == nil {
		return nil, partition.Errorf(partition.CodeNotMaster, "node %s has no seat in the control group", c.cfg.Node)
	}
	if k == kindAskCatalog {
		return c.serveCatalog(ctx, s, b)
	}
	if k == kindAskRelay {
		return c.serveRelay(ctx, s, from, b, a)
	}
	if k == kindAskRenew && !s.leads() {
		// The seats are for a node that has just met this one.
		out, failed := c.seatList()
		if failed == nil {
			failed = partition.Errorf(partition.CodeNotMaster, "node %s does not lead the control group", c.cfg.Node)
		}
		return out, failed
	}
	if !s.leads() {
		return nil, partition.Errorf(partition.CodeNotMaster, "node %s does not lead the control group", c.cfg.Node)
	}
	return c.serveLeader(ctx, s, from, k, b)
}

// serveLeader answers what only the leader can.
func (c *Control) serveLeader(ctx context.Context, s *seat, from partition.NodeID, k kind, b []byte) ([]byte, *partition.Error) {
	switch k {
	case kindAskRenew:
		return c.serveRenew(ctx, s, from, b)
	case kindAskLocks:
		return s.serveLocks(ctx, from, b)
	case kindAskCreate:
		return s.serveCreate(ctx, b)
	case kindAskDrop:
		ask, err := decode[dropBody](kindAskDrop, b)
		if err != nil {
			return nil, asError(err)
		}
		r, failed := s.propose(ctx, kindDrop, ask)
		return reply(kindTableAnswer, r.table, failed)
	case kindAskAlter:
		ask, err := decode[alterBody](kindAskAlter, b)
		if err != nil {
			return nil, asError(err)
		}
		done, failed := s.serveAlter(ctx, ask)
		return reply(kindTableAnswer, done, failed)
	case kindAskSplits:
		ask, err := decode[splitsBody](kindAskSplits, b)
		if err != nil {
			return nil, asError(err)
		}
		r, failed := s.propose(ctx, kindSplits, ask)
		return reply(kindTableAnswer, r.table, failed)
	case kindAskPermit:
		ask, err := decode[permitBody](kindAskPermit, b)
		if err != nil {
			return nil, asError(err)
		}
		ask.Node = from
		r, failed := s.propose(ctx, kindPermit, ask)
		return reply(kindPermitAnswer, r.permits, failed)
	case kindAskPermits:
		ask, err := decode[askPermits](kindAskPermits, b)
		if err != nil {
			return nil, asError(err)
		}
		a, failed := s.servePermits(ask)
		return reply(kindPermitAnswer, a, failed)
	case kindAskUpdate:
		ask, err := decode[updateBody](kindAskUpdate, b)
		if err != nil {
			return nil, asError(err)
		}
		for i := range ask.Updates {
			if ask.Updates[i].Master != from {
				return nil, partition.Errorf(partition.CodeUnauthorized, "node %s reports a group whose master is %s", from, ask.Updates[i].Master)
			}
		}
		_, failed := s.propose(ctx, kindUpdate, ask)
		return reply(kindEmptyAnswer, &emptyAnswer{Version: s.fsm.catalog.Load().Version}, failed)
	}
	return s.serveTask(ctx, k, b)
}

// reply encodes the answer to a request that did not fail.
func reply[T any](k kind, body *T, failed *partition.Error) ([]byte, *partition.Error) {
	if failed != nil {
		return nil, failed
	}
	return encode(k, body), nil
}

func (c *Control) serveSeat(b []byte) ([]byte, *partition.Error) {
	ask, err := decode[askSeat](kindAskSeat, b)
	if err != nil {
		return nil, asError(err)
	}
	v := viewOf(c.cfg.Node, c.cfg.Expect, c.cfg.Peers())
	c.mu.Lock()
	a, err := c.seats.answer(ask, v)
	c.mu.Unlock()
	return reply(kindSeatAnswer, a, asError(err))
}

func (c *Control) seatList() ([]byte, *partition.Error) {
	c.mu.Lock()
	r := renewAnswer{Seats: c.seats.st.Proposal.Seats}
	c.mu.Unlock()
	return reply(kindRenewAnswer, &r, nil)
}

func (c *Control) serveRenew(ctx context.Context, s *seat, from partition.NodeID, b []byte) ([]byte, *partition.Error) {
	ask, err := decode[askRenew](kindAskRenew, b)
	if err != nil {
		return nil, asError(err)
	}
	failed := s.ripen(ctx)
	if failed != nil {
		return nil, failed
	}
	open, failed := s.renew(from, ask.Boot, ask.Start)
	if failed != nil {
		return nil, failed
	}
	if open {
		if _, failed := s.propose(ctx, kindSessions, &sessionsBody{Open: []sessionItem{{Node: from, Boot: ask.Boot, Start: ask.Start}}}); failed != nil {
			return nil, failed
		}
	}
	return c.seatList()
}

func (s *seat) serveLocks(ctx context.Context, from partition.NodeID, b []byte) ([]byte, *partition.Error) {
	ask, err := decode[locksBody](kindAskLocks, b)
	if err != nil {
		return nil, asError(err)
	}
	ask.Node = from
	if _, failed := s.renew(from, ask.Boot, ask.Start); failed != nil {
		return nil, failed
	}
	r, failed := s.propose(ctx, kindLocks, ask)
	return reply(kindLockAnswer, r.locks, failed)
}

// serveCreate prepares a table and proposes it, again if the ids it was
// prepared for were taken meanwhile by a command of an earlier leader.
func (s *seat) serveCreate(ctx context.Context, b []byte) ([]byte, *partition.Error) {
	ask, err := decode[askCreate](kindAskCreate, b)
	if err != nil {
		return nil, asError(err)
	}
	s.creating.Lock()
	defer s.creating.Unlock()
	for ctx.Err() == nil {
		var first partition.GroupID
		s.fsm.look(func(st *state) { first = st.nextGroup })
		command, err := prepareCreate(ask, first)
		if err != nil {
			return nil, asError(err)
		}
		r, failed := s.propose(ctx, kindCreate, command)
		if failed != nil || !r.stale {
			return reply(kindTableAnswer, r.table, failed)
		}
	}
	return nil, partition.Errorf(partition.CodeTimeout, "no time left to create table %q", ask.Table.Name)
}

// serveCatalog answers with the next page of the catalog, as soon as there is
// something new.
func (c *Control) serveCatalog(ctx context.Context, s *seat, b []byte) ([]byte, *partition.Error) {
	ask, err := decode[askCatalog](kindAskCatalog, b)
	if err != nil {
		return nil, asError(err)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(ask.WaitMs)*time.Millisecond)
	defer cancel()
	for {
		changed := c.changed.Next()
		now := s.fsm.catalog.Load()
		if ask.WaitMs == 0 || now.Version > ask.After.Version || ask.Whole {
			return now.page(ask.After, ask.Whole, pageBytes).encode(), nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			ask.WaitMs = 0
		case <-c.done:
			return nil, partition.Errorf(partition.CodeClosed, "node %s is closing", c.cfg.Node)
		}
	}
}

// propose brings a command into the log and waits until it was applied. Of its
// errors, NotMaster and Busy say that nothing was done, Unknown that it may yet
// be; all others are the command's own answer.
func (s *seat) propose(ctx context.Context, k kind, body any) (result, *partition.Error) {
	b := encode(k, body)
	wait := maxServeTime
	if end, ok := ctx.Deadline(); ok {
		wait = max(time.Millisecond, time.Until(end))
	}
	future := s.raft.Apply(b, wait)
	done := make(chan error, 1)
	// The library answers when it knows, at the latest when the seat has lost
	// its leadership for want of answers from the others.
	go func() { done <- future.Error() }()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		return result{}, partition.Errorf(partition.CodeUnknown, "the control group took too long to answer")
	}
	switch {
	case err == nil:
		r, _ := future.Response().(result)
		return r, r.err
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return result{}, partition.Errorf(partition.CodeNotMaster, "this seat does not lead the control group")
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return result{}, partition.Errorf(partition.CodeBusy, "the control group's queue is full")
	}
	return result{}, partition.Errorf(partition.CodeUnknown, "control group: %v", err)
}
