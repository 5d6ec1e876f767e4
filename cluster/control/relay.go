package control

import (
	"cmp"
	"context"
	"slices"

	"pando.dev/pando/partition"
)

// Two nodes may not reach each other while a third reaches both. If one of them
// leads the control group, its seats still elect nobody else, and the other would
// get no lock for as long as that lasts. So a node to which the leader does not
// answer asks another seat to bring the request there: one hop, from a seat, which
// vouches for who asks. All requests may be executed twice, so nothing new can
// happen on the way.

// serveRelay brings a request to the leader, or answers it if this node leads.
func (c *Control) serveRelay(ctx context.Context, s *seat, from partition.NodeID, b []byte, out *answerBody) ([]byte, *partition.Error) {
	ask, err := decode[relayBody](kindAskRelay, b)
	if err != nil {
		return nil, asError(err)
	}
	k, err := kindOf(ask.Body)
	if err != nil {
		return nil, asError(err)
	}
	if ask.From != "" && !slices.Contains(c.knownSeats(), from) {
		return nil, partition.Errorf(partition.CodeUnauthorized, "node %s, which has no seat, asks in the name of node %s", from, ask.From)
	}
	switch leader := c.knownLeader(); {
	case s.leads():
		return c.serveLeader(ctx, s, cmp.Or(ask.From, from), k, ask.Body)
	case ask.From != "" || leader == "" || leader == from || leader == c.cfg.Node:
		return nil, partition.Errorf(partition.CodeNotMaster, "node %s does not lead the control group", c.cfg.Node)
	default:
		return c.relay(ctx, leader, &relayBody{From: from, Body: ask.Body}, out)
	}
}

func (c *Control) relay(ctx context.Context, leader partition.NodeID, ask *relayBody, out *answerBody) ([]byte, *partition.Error) {
	a, err := c.callOnce(ctx, leader, kindAskRelay, ask)
	if err != nil {
		switch partition.CodeOf(err) {
		case partition.CodeUnavailable, partition.CodeBusy, partition.CodeClosed:
			return nil, partition.Errorf(partition.CodeUnavailable, "the leader %s does not answer node %s either", leader, c.cfg.Node)
		}
		return nil, partition.Errorf(partition.CodeUnknown, "asked %s for %s: %v", leader, ask.From, err)
	}
	out.Catalog = a.Catalog // who asks must not take this seat's for it
	return a.Body, fromItem(a.Error)
}
