package main

import (
	"context"
	"fmt"
	"time"
)

// cutFor is how long a node is cut off from the others.
const cutFor = 4 * time.Second

// cutOff cuts the network between nodes under load: the master from both peers,
// with clients that still reach it and ask it alone, and a peer from the master
// only. What was read at the levels lease and quorum must be linearizable: LEA-2,
// SMF-2, SMF-10.
func cutOff(ctx context.Context, t *trial) error {
	c, err := t.newCluster("n", 3, 3)
	if err != nil {
		return err
	}
	w, err := c.wire()
	if err != nil {
		return err
	}
	defer w.close()
	if err := c.up(ctx); err != nil {
		return err
	}
	if err := c.createTable(ctx, tableName); err != nil {
		return err
	}
	l, err := c.startLoad(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	s := &stops{quorum: true}
	var half times
	for i := range t.rounds(5, 2) {
		if err := c.cutMaster(ctx, l, w, s, i); err != nil {
			return fmt.Errorf("round %d, the master cut off: %w", i+1, err)
		}
		gap, err := c.cutPair(ctx, l, w)
		if err != nil {
			return fmt.Errorf("round %d, a peer cut from the master: %w", i+1, err)
		}
		half = append(half, gap)
	}
	t.row("longest gap", "%s (around the cut)", s.back)
	t.row("asked the node cut off", "%d reads answered, %d not; after the mending %d begun and %d answered", s.answered.Load(), s.failed.Load(), s.asked.Load(), s.after.Load())
	t.row("caught up", "%s (from the mending)", s.catchUp)
	t.row("a peer cut from the master", "longest gap %s", half)
	if err := t.judged(ctx, l); err != nil {
		return err
	}
	return c.compareReplicas(ctx, l.stores[0])
}

// cutMaster cuts the master off for a while, with clients that ask it alone.
func (c *cluster) cutMaster(ctx context.Context, l *load, w *network, s *stops, round int) error {
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	n, before, err := c.master(ctx, tableName)
	if err != nil {
		return err
	}
	s.thawed.Store(false)
	release, err := c.pin(ctx, l, n, s, round)
	if err != nil {
		return err
	}
	defer release()
	if err := pause(ctx, 500*time.Millisecond); err != nil {
		return err
	}
	from := l.acks.now()
	c.isolate(w, n, true)
	acked, err := firstAck(ctx, l, from+time.Second) // what the master still takes is soon over
	if err != nil {
		return err
	}
	s.back = append(s.back, l.acks.longestGap(from, acked))
	if err := pause(ctx, cutFor); err != nil {
		return err
	}
	mended := l.acks.now()
	s.thawed.Store(true)
	c.isolate(w, n, false)
	if err := pause(ctx, time.Second); err != nil { // of reads at the old master
		return err
	}
	if err := c.awaitCaughtUp(ctx, tableName); err != nil {
		return err
	}
	s.catchUp = append(s.catchUp, l.acks.now()-mended)
	_, after, err := c.master(ctx, tableName)
	if err != nil {
		return err
	}
	if after.Epoch == before.Epoch {
		c.t.violate("%s was cut off for %s and is master as before, in epoch %s", n.name, cutFor, after.Epoch)
	}
	c.t.tell("cut %s off: longest gap %s, epoch %s to %s", n.name, s.back[len(s.back)-1], before.Epoch, after.Epoch)
	return nil
}

// cutPair cuts one peer from the master; both reach the third node.
func (c *cluster) cutPair(ctx context.Context, l *load, w *network) (gap time.Duration, err error) {
	n, _, err := c.master(ctx, tableName)
	if err != nil {
		return 0, err
	}
	var peer *node
	for _, x := range c.nodes {
		if x != n {
			peer = x
		}
	}
	from := l.acks.now()
	w.cut(n.name, peer.name)
	err = pause(ctx, cutFor)
	gap = l.acks.longestGap(from, l.acks.now())
	w.mend(n.name, peer.name)
	if err != nil {
		return 0, err
	}
	c.t.tell("cut %s from the master %s: longest gap %s", peer.name, n.name, gap)
	return gap, c.awaitCaughtUp(ctx, tableName)
}
