package actors

import (
	"context"
	"time"

	"pando.dev/pando/actors/client"
	"pando.dev/pando/partition"
)

// maxFetchedReads bounds the reads that a node has masters answer at once.
const maxFetchedReads = 1024

// A learner whose state is still on its way has the master answer the reads that
// any replica may answer (SYSTEMS.md S7: a new owner serves before the data has
// moved). As soon as it has a state it answers them itself, by the rules of all
// replicas: how new the answer must be is in the read. So the counter of fetched
// reads stands still when the copy is here.

// waitsForState reports whether this node is to have a replica of a group, and
// nothing of the state is here.
func (n *Node) waitsForState(c *cell, g partition.GroupID) bool {
	if c != nil && c.state.Load() != nil {
		return false
	}
	x, ok := n.control.Catalog().Group(g)
	if !ok {
		return false
	}
	m, here := x.Membership.OnNode(n.ID())
	return here && m.Kind == partition.Learner
}

// fetchRead has the group's master answer a read.
func (n *Node) fetchRead(req *client.Request, reply func(*client.Response)) {
	if n.fetching.Add(1) > maxFetchedReads {
		n.fetching.Add(-1)
		n.counters.busy.Add(1)
		reply(client.ErrorResponse(partition.Errorf(partition.CodeBusy, "%d reads wait for masters already", maxFetchedReads)))
		return
	}
	n.background.Go(func() {
		defer n.fetching.Add(-1)
		n.counters.readsFetched.Add(1)
		at := n.now()
		res, err := n.askRead(req)
		if err != nil {
			res = client.ErrorResponse(partition.Errorf(partition.CodeUnavailable, "the state of %s is on its way to node %s, and its master does not answer: %s", req.Group, n.ID(), asError(err).Why))
		} else if res.AgeKnown {
			res.Age += aged(n.now() - at)
		}
		res.ID = req.ID
		reply(res)
	})
}

func (n *Node) askRead(req *client.Request) (*client.Response, error) {
	x, ok := n.control.Catalog().Group(req.Group)
	if !ok || x.Master == "" || x.Master == n.ID() {
		return nil, partition.Errorf(partition.CodeUnavailable, "it is not known")
	}
	wait := serveWait
	if req.TimeoutMS > 0 {
		wait = min(wait, time.Duration(req.TimeoutMS)*time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(n.ctx, wait)
	defer cancel()
	b, err := n.call(ctx, x.Master, callRead, client.AppendRead(nil, req))
	if err != nil {
		return nil, err
	}
	return client.ParseAnswer(b)
}

// serveRead answers a read that another node has taken from a client. It hands it
// on to nobody.
func (n *Node) serveRead(ctx context.Context, body []byte) ([]byte, error) {
	req, err := client.ParseRead(body)
	if err != nil {
		return nil, err
	}
	if !req.Level.Anywhere() || n.waitsForState(n.cells.get(req.Group), req.Group) {
		return nil, partition.Errorf(partition.CodeUnavailable, "node %s does not answer this read", n.ID())
	}
	answer := make(chan []byte, 1)
	backend{n}.Read(req, func(r *client.Response) { answer <- client.AppendAnswer(nil, r) })
	select {
	case b := <-answer:
		return b, nil
	case <-ctx.Done():
		return nil, partition.Errorf(partition.CodeTimeout, "the read is not answered in time")
	}
}
