package main

import (
	"context"
	"fmt"
	"time"
)

// killAll kills every process at once under load, and starts them again.
func killAll(ctx context.Context, t *trial) error {
	c, l, err := t.loaded(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	var back times
	for i := range or(t.opts.rounds, 20) {
		if err := pause(ctx, time.Duration(500+t.rng.IntN(2000))*time.Millisecond); err != nil {
			return err
		}
		took, err := c.killAllOnce(ctx, l)
		if err != nil {
			return fmt.Errorf("round %d: %w", i+1, err)
		}
		back = append(back, took)
		t.tell("round %d: writes again %s after the restart", i+1, took)
	}
	l.stop()
	t.row("load", "%d clients, %d acknowledged writes", t.opts.clients, l.acks.count(0, l.acks.now()))
	t.row("back", "%s (from the restart of all to the next acknowledged write)", back)
	if err := t.judge(ctx, l, l.stores[0]); err != nil {
		return err
	}
	return c.compareReplicas(ctx, l.stores[0])
}

func (c *cluster) killAllOnce(ctx context.Context, l *load) (time.Duration, error) {
	for _, n := range c.nodes {
		if err := n.proc.signal(9); err != nil {
			return 0, err
		}
	}
	for _, n := range c.nodes {
		n.kill() // waits for the end
	}
	restarted := l.acks.now()
	if err := c.up(ctx); err != nil {
		return 0, err
	}
	acked, err := firstAck(ctx, l, restarted)
	if err != nil {
		return 0, fmt.Errorf("after the restart: %w", err)
	}
	return acked - restarted, c.awaitCaughtUp(ctx, tableName)
}
