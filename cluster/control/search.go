package control

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"pando.dev/pando/partition"
)

const (
	// askPauseMin and askPauseMax bound the pause between two attempts to find a
	// leader that answers.
	askPauseMin = 5 * time.Millisecond
	askPauseMax = 50 * time.Millisecond
	// silentTurns is how seldom a seat is asked that has not answered: the others
	// may take it for the leader for a while yet.
	silentTurns = 4
)

// search is the way of one request to the leader.
type search struct {
	turn    int                // attempts so far
	at      partition.NodeID   // whom to ask next, if somebody was named
	last    partition.NodeID   // whom was asked last
	silent  partition.NodeID   // who did not answer when asked last
	mute    []partition.NodeID // seats that did not answer when asked last
	via     partition.NodeID   // a seat that is to bring the request to a leader that is mute here
	relay   bool               // last was asked for that
	named   partition.NodeID   // the last leader that was followed without a pause
	wait    time.Duration      // for the next answer
	pause   time.Duration      // before the next attempt
	unknown bool               // some attempt may have been executed
	err     error              // of the last attempt
}

// attempt is what came of asking one node.
type attempt struct {
	answer *answerBody
	err    error
	final  bool             // to ask again would not help
	silent bool             // there was no answer
	leader partition.NodeID // whom the node takes for the leader
}

// ask brings a request to the leader, wherever it is, and tries until ctx ends.
// Every request may be executed more than once: locks give a new number, changes
// carry a token, the rest is idempotent. Its errors are the leader's answer, or
// CodeUnavailable if nothing was done for want of a leader, or CodeUnknown if
// something may have been done.
func (c *Control) ask(ctx context.Context, k kind, body any) (*answerBody, error) {
	s := &search{wait: c.cfg.CallTimeout, pause: askPauseMin, at: c.knownLeader()}
	for {
		hot := false
		if target := s.next(c.knownSeats()); target == "" {
			s.err = partition.Errorf(partition.CodeUnavailable, "no seat of the control group is known")
		} else {
			a := c.attempt(ctx, s, target, k, body)
			if a.err == nil || a.final {
				return a.answer, a.err
			}
			hot = s.learn(a)
		}
		if !hot && !c.pause(ctx, s.backOff()) {
			return nil, c.gaveUp(s.unknown, s.err)
		}
	}
}

// next returns whom to ask: who follows a leader that does not answer here, who was
// named as the leader, otherwise one seat after the other.
func (s *search) next(seats []partition.NodeID) partition.NodeID {
	s.turn++
	if s.relay = s.via != ""; s.relay {
		s.last, s.at, s.via = s.via, "", ""
		return s.last
	}
	s.last, s.at = s.at, ""
	if s.last != "" || len(seats) == 0 {
		return s.last
	}
	s.last = seats[s.turn%len(seats)]
	if s.last == s.silent && s.turn%silentTurns != 0 {
		s.last = seats[(s.turn+1)%len(seats)]
	}
	return s.last
}

// learn takes what came of the last attempt, and reports whether the next one
// may follow at once.
func (s *search) learn(a attempt) (hot bool) {
	s.err = a.err
	s.mute = slices.DeleteFunc(s.mute, func(n partition.NodeID) bool { return n == s.last })
	if a.silent {
		s.silent, s.mute = s.last, append(s.mute, s.last)
	}
	if partition.CodeOf(a.err) == partition.CodeUnknown {
		// Perhaps it is only slow: the next one gets more time, so that a slow
		// disk cannot keep every answer from arriving in time.
		s.unknown, s.wait = true, min(2*s.wait, maxServeTime)
	}
	if !s.relay && slices.Contains(s.mute, a.leader) {
		s.via = s.last
		return true
	}
	if a.leader == "" || a.leader == s.last || a.leader == s.silent {
		return false
	}
	s.at = a.leader
	hot = s.named != a.leader
	s.named = a.leader
	return hot
}

func (s *search) backOff() time.Duration {
	d := s.pause/2 + rand.N(s.pause)
	s.pause = min(2*s.pause, askPauseMax)
	return d
}

// attempt asks one node once.
func (c *Control) attempt(ctx context.Context, s *search, to partition.NodeID, k kind, body any) attempt {
	ctx, cancel := context.WithTimeout(ctx, s.wait)
	defer cancel()
	if s.relay {
		k, body = kindAskRelay, &relayBody{Body: encode(k, body)}
	}
	a, err := c.callOnce(ctx, to, k, body)
	if err != nil {
		c.forget(to)
		switch partition.CodeOf(err) {
		case partition.CodeUnavailable, partition.CodeBusy, partition.CodeClosed:
			return attempt{err: err, silent: true}
		case partition.CodeInvalid, partition.CodeTooLarge, partition.CodeNewerFormat, partition.CodeRefused:
			return attempt{err: err, final: true}
		}
		return attempt{err: partition.Errorf(partition.CodeUnknown, "asked %s: %v", to, err), silent: true}
	}
	failed := fromItem(a.Error)
	switch partition.CodeOf(asNil(failed)) {
	case 0:
		c.note(cmp.Or(a.Leader, to), a)
		return attempt{answer: a}
	case partition.CodeNotMaster:
		c.follow(to, a.Leader)
		return attempt{err: failed, leader: a.Leader}
	case partition.CodeUnavailable, partition.CodeBusy, partition.CodeClosed, partition.CodeUnknown, partition.CodeTimeout:
		return attempt{err: failed, leader: a.Leader}
	}
	c.note(cmp.Or(a.Leader, to), a)
	return attempt{err: failed, final: true}
}

// knownLeader is who leads as far as this node can tell without asking.
func (c *Control) knownLeader() partition.NodeID {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.leaderLocked(); l != "" {
		return l
	}
	return c.leader.node
}

// knownSeats are the seats of the control group, if there is one.
func (c *Control) knownSeats() []partition.NodeID {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.seats.exists() {
		return nil
	}
	return c.seats.st.Proposal.Seats
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
	c.mu.Lock()
	was := c.leader.node
	switch {
	case leader != "" && leader != from && slices.Contains(c.seats.st.Proposal.Seats, leader):
		c.leader = leaderHint{node: leader, at: c.cfg.Now()}
	case was == from:
		c.leader = leaderHint{}
	}
	fresh := c.leader.node != was
	c.mu.Unlock()
	if fresh {
		c.changed.Fire()
	}
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
