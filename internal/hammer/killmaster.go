package main

import (
	"context"
	"fmt"
	"time"
)

// kills is what kill-master measures.
type kills struct {
	bare, leader times // to the next acknowledged write; leader: the control leader died too
	gaps         times // longest time without any acknowledgement around each kill
	catchUp      times // from the restart until every replica had everything
}

// killMaster kills the master's process again and again under load.
func killMaster(ctx context.Context, t *trial) error {
	c, l, err := t.loaded(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	if err := c.calm(ctx, l, t.opts.calm); err != nil {
		return err
	}
	var k kills
	unasked := 0 // changes of master that no kill explains
	for i := range t.opts.kills {
		if err := c.killOnce(ctx, l, &k, &unasked); err != nil {
			return fmt.Errorf("kill %d: %w", i+1, err)
		}
	}
	l.stop()
	t.reportKills(l, k, unasked)
	if err := t.judge(ctx, l, l.stores[0]); err != nil {
		return err
	}
	return c.compareReplicas(ctx, l.stores[0])
}

// loaded starts three nodes with a table and a load.
func (t *trial) loaded(ctx context.Context) (*cluster, *load, error) {
	c, err := t.newCluster("n", 3, 3)
	if err != nil {
		return nil, nil, err
	}
	if err := c.up(ctx); err != nil {
		return nil, nil, err
	}
	if err := c.createTable(ctx, tableName); err != nil {
		return nil, nil, err
	}
	l, err := c.startLoad(ctx)
	return c, l, err
}

// calm lets the load run undisturbed, in which no mastership may change.
func (c *cluster) calm(ctx context.Context, l *load, d time.Duration) error {
	_, before, err := c.master(ctx, tableName)
	if err != nil {
		return err
	}
	from, changes := l.acks.now(), 0
	for l.acks.now() < from+d {
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
		_, now, err := c.master(ctx, tableName)
		if err != nil {
			return err
		}
		if now.Epoch != before.Epoch {
			changes++
			before = now
		}
	}
	c.t.row("calm", "%d failovers, %.0f acknowledged writes/s, longest gap %s in %s", changes,
		float64(l.acks.count(from, from+d))/d.Seconds(), l.acks.longestGap(from, from+d).Round(time.Millisecond), d)
	if changes > c.t.opts.failovers {
		c.t.violate("the master changed %d times within %s though nothing was killed", changes, d)
	}
	return nil
}

// pause waits while the load runs.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// ackWait bounds the wait for a write after a fault.
const ackWait = 30 * time.Second

// killOnce kills the master, measures, starts it again and waits until every
// replica has caught up. Then and before, the load runs for a drawn time.
func (c *cluster) killOnce(ctx context.Context, l *load, k *kills, unasked *int) error {
	_, before, err := c.master(ctx, tableName)
	if err != nil {
		return err
	}
	if err := pause(ctx, time.Duration(200+c.t.rng.IntN(600))*time.Millisecond); err != nil {
		return err
	}
	n, p, err := c.master(ctx, tableName)
	if err != nil {
		return err
	}
	if p.Epoch != before.Epoch {
		*unasked++
		c.t.tell("the mastership moved from epoch %s to %s without a kill", before.Epoch, p.Epoch)
	}
	s, err := c.status(ctx)
	if err != nil {
		return err
	}
	killed := l.acks.now()
	n.kill()
	gone := l.acks.now()
	acked, err := firstAck(ctx, l, gone)
	if err != nil {
		return fmt.Errorf("after the kill of %s: %w", n.name, err)
	}
	if s.Control.Leader == n.id {
		k.leader = append(k.leader, acked-killed)
	} else {
		k.bare = append(k.bare, acked-killed)
	}
	restarted := l.acks.now()
	if err := n.start(); err != nil {
		return err
	}
	if err := c.awaitReady(ctx, n); err != nil {
		return err
	}
	if err := c.awaitCaughtUp(ctx, tableName); err != nil {
		return err
	}
	k.catchUp = append(k.catchUp, l.acks.now()-restarted)
	gap := l.acks.longestGap(killed, acked)
	k.gaps = append(k.gaps, gap)
	c.t.tell("killed %s (leader %v, gone after %s): next write after %s, gap %s, caught up after %s", n.name, s.Control.Leader == n.id,
		gone-killed, acked-killed, gap, k.catchUp[len(k.catchUp)-1])
	return nil
}

// firstAck waits for the acknowledgement of a write that was begun at the given
// time or later.
func firstAck(ctx context.Context, l *load, begun time.Duration) (time.Duration, error) {
	timer := time.NewTimer(ackWait)
	defer timer.Stop()
	select {
	case at := <-l.acks.next(begun):
		return at, nil
	case <-timer.C:
		return 0, fmt.Errorf("no write was acknowledged within %s", ackWait)
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// reportKills prints the numbers and compares them with what is wanted.
func (t *trial) reportKills(l *load, k kills, unasked int) {
	all := append(append(times{}, k.bare...), k.leader...)
	t.row("load", "%d clients, %d acknowledged writes", t.opts.clients, l.acks.count(0, l.acks.now()))
	t.row("time to write", "from kill -9 until the first acknowledgement of a write begun after the process was gone (one is begun every %s)", probeEvery)
	t.row("  all", "%s", all)
	t.row("  control leader lived", "%s", k.bare)
	t.row("  control leader died", "%s", k.leader)
	t.row("longest gap", "%s (between any two acknowledgements around the kill)", k.gaps)
	t.row("caught up", "%s (from the restart)", k.catchUp)
	t.row("failovers without a kill", "%d", unasked)
	if m := all.percentile(50); m > t.opts.median {
		t.violate("the median time from a kill to the next acknowledged write is %s, at most %s is wanted", m, t.opts.median)
	}
	if p := all.percentile(99); p > t.opts.p99 {
		t.violate("the 99th percentile of the time from a kill to the next acknowledged write is %s, at most %s is wanted", p, t.opts.p99)
	}
	if unasked > t.opts.failovers {
		t.violate("the master changed %d times between kills", unasked)
	}
}
