package control

import (
	"context"
	"time"

	"pando.dev/pando/partition"
)

// Age returns how long ago at most this node's catalog was as new as the control
// group's: what was in the catalog before then is not missing here. False: this
// process cannot tell. It is renewed with the node's session, and grows while no
// leader can be reached.
func (c *Control) Age() (time.Duration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settleLocked()
	return time.Since(c.current), !c.current.IsZero()
}

// noteAge notes which version the leader had at a moment after asked.
func (c *Control) noteAge(asked time.Time, version uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settleLocked()
	c.asked, c.asks = asked, version
	c.settleLocked()
}

// settleLocked sees whether the catalog has what the leader had.
func (c *Control) settleLocked() {
	if !c.asked.IsZero() && c.Catalog().Version >= c.asks {
		c.current, c.asked = c.asked, time.Time{}
	}
}

// AwaitCurrent waits until the catalog is as new as the leader's is now. The error
// is CodeUnavailable if that is not to be had in time.
func (c *Control) AwaitCurrent(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.CallTimeout)
	defer cancel()
	a, err := c.ask(ctx, kindAskRenew, &askRenew{Boot: c.cfg.Boot, Start: c.cfg.Start})
	if err != nil {
		return err
	}
	c.Hint(a.Catalog)
	for {
		changed := c.changed.Next()
		if c.Catalog().Version >= a.Catalog {
			return nil
		}
		if !waitFor(ctx, changed) {
			return partition.Errorf(partition.CodeUnavailable, "node %s has version %d of the catalog, the control group %d", c.cfg.Node, c.Catalog().Version, a.Catalog)
		}
	}
}

// ripen brings a seat that leads to what was committed before it led, once in
// each of its terms: until then its catalog may lack what a leader before it has
// told of. That a leader was replaced it learns within its raft lease.
func (s *seat) ripen(ctx context.Context) *partition.Error {
	term := s.raft.CurrentTerm()
	if s.ripe.Load() == term {
		return nil
	}
	wait := maxServeTime
	if end, ok := ctx.Deadline(); ok {
		wait = max(time.Millisecond, time.Until(end))
	}
	future := s.raft.Barrier(wait)
	done := make(chan error, 1)
	go func() { done <- future.Error() }() // see propose
	select {
	case err := <-done:
		if err != nil {
			return partition.Errorf(partition.CodeNotMaster, "this seat does not lead the control group: %v", err)
		}
	case <-ctx.Done():
		return partition.Errorf(partition.CodeUnavailable, "the control group took too long to answer")
	}
	s.ripe.Store(term)
	return nil
}
