package control

import (
	"context"
	"slices"
	"time"

	"pando.dev/pando/partition"
)

// maxLockQueue bounds the requests that wait on this node to be sent.
const maxLockQueue = 4096

// lockQueue gathers what many replicas ask for at the same time, when a node has
// died for instance, into few requests. Control.mu guards it.
type lockQueue struct {
	waiting []*lockCall
	ready   chan struct{} // holds a token if somebody waits
}

// lockCall is what one caller asked for; at most MaxLockBatch of each.
type lockCall struct {
	until   time.Time
	acquire []acquireItem
	release []releaseItem

	sent   bool
	done   chan struct{} // closed when grants or err is set
	grants []grantItem
	err    error
}

// AcquireLocks asks for locks and returns one grant per request, in order. It is
// tried until ctx ends; a grant that got lost on the way is void, because the
// next one has a greater number. The error is CodeUnavailable, or CodeUnknown if
// a lock may have been granted.
func (c *Control) AcquireLocks(ctx context.Context, requests []LockRequest) ([]LockGrant, error) {
	grants := make([]LockGrant, 0, len(requests))
	for len(requests) > 0 {
		n := min(len(requests), MaxLockBatch)
		some, err := c.acquireSome(ctx, requests[:n])
		if err != nil {
			return nil, err
		}
		grants, requests = append(grants, some...), requests[n:]
	}
	return grants, nil
}

func (c *Control) acquireSome(ctx context.Context, requests []LockRequest) ([]LockGrant, error) {
	call := &lockCall{done: make(chan struct{})}
	for _, r := range requests {
		if r.Node != "" && r.Node != c.cfg.Node {
			return nil, partition.Errorf(partition.CodeInvalid, "node %s asks for a lock for node %s", c.cfg.Node, r.Node)
		}
		call.acquire = append(call.acquire, acquireItem{Group: r.Group, Replica: r.Replica, Above: r.Above, Failover: r.Failover, Holder: r.Holder, Consent: r.Consent})
	}
	if err := c.submit(ctx, call); err != nil {
		return nil, err
	}
	grants := make([]LockGrant, len(requests))
	for i, g := range call.grants {
		grants[i] = LockGrant{
			Group: requests[i].Group, Replica: requests[i].Replica, Number: g.Number,
			Holder: LockHolder(g.Holder), Permit: g.Permit, Err: fromItem(g.Error),
		}
	}
	return grants, nil
}

// ReleaseLocks gives locks back. Errors are as with AcquireLocks; a lock that
// was not given back is free when the session ends.
func (c *Control) ReleaseLocks(ctx context.Context, releases []LockRelease) error {
	for len(releases) > 0 {
		n := min(len(releases), MaxLockBatch)
		call := &lockCall{done: make(chan struct{})}
		for _, r := range releases[:n] {
			call.release = append(call.release, releaseItem(r))
		}
		if err := c.submit(ctx, call); err != nil {
			return err
		}
		releases = releases[n:]
	}
	return nil
}

// submit queues the call and waits for its end.
func (c *Control) submit(ctx context.Context, call *lockCall) error {
	var ok bool
	if call.until, ok = ctx.Deadline(); !ok {
		call.until = time.Now().Add(maxServeTime)
	}
	c.mu.Lock()
	if len(c.lockQ.waiting) >= maxLockQueue {
		c.mu.Unlock()
		return partition.Errorf(partition.CodeBusy, "%d lock requests wait on node %s, its limit", maxLockQueue, c.cfg.Node)
	}
	c.lockQ.waiting = append(c.lockQ.waiting, call)
	c.mu.Unlock()
	c.wakeLocks()
	select {
	case <-call.done:
	case <-ctx.Done():
		c.abandon(call)
	case <-c.done:
		return partition.Errorf(partition.CodeClosed, "node %s is closing", c.cfg.Node)
	}
	return call.err
}

func (c *Control) wakeLocks() {
	select {
	case c.lockQ.ready <- struct{}{}:
	default:
	}
}

// lockLoop sends what waits, one request at a time: what arrives meanwhile goes
// together into the next one.
func (c *Control) lockLoop(ctx context.Context) {
	for {
		select {
		case <-c.lockQ.ready:
		case <-ctx.Done():
			return
		}
		for batch := c.takeLocks(); len(batch) > 0; batch = c.takeLocks() {
			c.sendLocks(ctx, batch)
		}
	}
}

// takeLocks takes the calls that fit into one request.
func (c *Control) takeLocks() []*lockCall {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lockQ.waiting = slices.DeleteFunc(c.lockQ.waiting, (*lockCall).ended)
	acquires, releases, n := 0, 0, 0
	for _, call := range c.lockQ.waiting {
		acquires += len(call.acquire)
		releases += len(call.release)
		if acquires > MaxLockBatch || releases > MaxLockBatch {
			break
		}
		call.sent = true
		n++
	}
	batch := slices.Clone(c.lockQ.waiting[:n])
	c.lockQ.waiting = slices.Delete(c.lockQ.waiting, 0, n)
	return batch
}

// sendLocks asks for a batch until it is answered or every caller has gone.
func (c *Control) sendLocks(ctx context.Context, batch []*lockCall) {
	body := locksBody{Boot: c.cfg.Boot, Start: c.cfg.Start}
	for _, call := range batch {
		body.Acquire = append(body.Acquire, call.acquire...)
		body.Release = append(body.Release, call.release...)
	}
	until := batch[0].until
	for _, call := range batch {
		if call.until.After(until) {
			until = call.until
		}
	}
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	a, err := askFor[lockAnswer](ctx, c, kindAskLocks, &body, kindLockAnswer)
	if err == nil && len(a.Grants) != len(body.Acquire) {
		err = partition.Errorf(partition.CodeUnknown, "%d grants for %d locks", len(a.Grants), len(body.Acquire))
	}
	c.noteStale(err)
	c.mu.Lock()
	defer c.mu.Unlock()
	at := 0
	for _, call := range batch {
		n := len(call.acquire)
		if err == nil && !call.ended() {
			call.grants = a.Grants[at : at+n]
		}
		call.end(err)
		at += n
	}
}

// abandon lets a caller go that waits no longer.
func (c *Control) abandon(call *lockCall) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if call.sent {
		call.end(partition.Errorf(partition.CodeUnknown, "the control group has not answered in time; a lock may have been granted"))
	} else {
		call.end(partition.Errorf(partition.CodeUnavailable, "the control group has not answered in time; the request was not sent"))
	}
}

// ended reports whether the caller has its answer. Control.mu is held.
func (l *lockCall) ended() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// end answers the caller, unless it was answered before. Control.mu is held.
func (l *lockCall) end(err error) {
	if !l.ended() {
		l.err = err
		close(l.done)
	}
}
