package actors

import (
	"pando.dev/pando/actors/client"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
	"time"
)

// backend answers clients for the replicas of this node. It is called on the
// connections' own goroutines and never blocks: commands go to the replica's
// mailbox, reads under a lease are answered on the spot.
type backend struct{ node *Node }

var _ client.Backend = backend{}

// find returns the replica that a request is for.
func (b backend) find(req *client.Request) (*cell, *partition.Error) {
	if b.node.closing.Load() {
		return nil, partition.Errorf(partition.CodeClosed, "node %s is shutting down", b.node.ID())
	}
	c := b.node.cells.get(req.Group)
	if c == nil && b.node.coming(req.Group) {
		return nil, partition.Errorf(partition.CodeUnavailable, "group %s is being made on node %s", req.Group, b.node.ID())
	}
	if c == nil {
		return nil, partition.Errorf(partition.CodeNotFound, "node %s has no replica of group %s", b.node.ID(), req.Group)
	}
	return c, c.check(req)
}

// takes reports whether a replica takes commands and linearizable reads: as the
// serving master, or as the one that is about to be, which keeps them until then.
func (b backend) takes(v *replica.View) bool {
	return v != nil && (v.Serving || v.Next == b.node.ID())
}

// Propose hands a command to its replica's mailbox, or refuses it.
func (b backend) Propose(req *client.Request, reply func(*client.Response)) {
	c, err := b.find(req)
	if err != nil {
		reply(b.node.refuse(c, req, err))
		return
	}
	if v := c.view.Load(); !b.takes(v) {
		reply(client.ErrorResponse(c.notMaster()))
		return
	}
	if limit := b.node.maxCommandBytes(); len(req.Body) > limit {
		reply(client.ErrorResponse(partition.Errorf(partition.CodeTooLarge, "a command of %d bytes, limit %d", len(req.Body), limit)))
		return
	}
	if err := c.stalled.Load(); err != nil {
		reply(client.ErrorResponse(err))
		return
	}
	b.node.loads.wrote(c, req)
	if !c.box.TryPost(&proposal{req: req, reply: reply}, len(req.Body)+len(req.Key)) {
		b.node.counters.busy.Add(1)
		reply(client.ErrorResponse(partition.Errorf(partition.CodeBusy, "the queue of group %s is full", c.group)))
	}
}

// Read answers a query. A read that any replica may answer is handed to the master
// by one whose state is still on its way.
//
// The state is taken first and the lease checked after,
// so that no pause in between can make the answer stale. The view is looked at
// on both sides of it: only if one mastership spans all of it does the lease
// speak for that state.
func (b backend) Read(req *client.Request, reply func(*client.Response)) {
	if req.Level.Anywhere() && !b.node.closing.Load() && b.node.waitsForState(b.node.cells.get(req.Group), req.Group) {
		b.node.fetchRead(req, reply)
		return
	}
	c, err := b.find(req)
	if err != nil {
		reply(b.node.refuse(c, req, err))
		return
	}
	if req.Level.Anywhere() {
		b.readAnywhere(c, req, reply)
		return
	}
	v, st := c.view.Load(), c.state.Load()
	if st == nil || !b.takes(v) {
		reply(client.ErrorResponse(c.notMaster()))
		return
	}
	switch req.Level {
	case client.Lease:
		if !v.Serving || c.holds(req) {
			break // it is kept until the replica serves, or the keys are here or gone
		}
		res := b.node.read(c, st, req)
		if after := c.view.Load(); !c.holds(req) && after != nil && after.Epoch == v.Epoch && b.node.now() < after.LeaseEnd(b.node.leases) {
			b.node.counters.leaseReads.Add(1)
			b.node.loads.read(c, req, len(res.Body))
			reply(res)
			return
		}
	case client.Quorum:
	default:
		reply(client.ErrorResponse(partition.Errorf(partition.CodeInvalid, "read level %s is not served", req.Level)))
		return
	}
	b.node.counters.quorumReads.Add(1)
	b.node.loads.read(c, req, 0)
	if !c.box.TryPost(&indexedRead{req: req, reply: reply}, len(req.Body)+len(req.Key)) {
		b.node.counters.busy.Add(1)
		reply(client.ErrorResponse(partition.Errorf(partition.CodeBusy, "the queue of group %s is full", c.group)))
	}
}

// Route returns the catalog as clients need it.
func (b backend) Route(haveVersion uint64) (r *client.Routes, age time.Duration, err error) {
	age, ok := b.node.control.Age() // before the catalog is read
	if !ok {
		age = -1
	}
	r = b.node.routes()
	if r == nil {
		return nil, age, partition.Errorf(partition.CodeUnavailable, "node %s has no catalog yet", b.node.ID())
	}
	if r.Version <= haveVersion {
		return nil, age, nil
	}
	return r, age, nil
}
