package main

import (
	"context"
	"fmt"
	"time"
)

// joinWanted is the most that a new node may take to show up everywhere.
const joinWanted = 2 * time.Second

// lateJoin starts three nodes in several orders, with nothing but one gossip
// address each, and lets a fourth one join each of these clusters.
func lateJoin(ctx context.Context, t *trial) error {
	orders := []struct {
		name  string
		order []int
		apart time.Duration
	}{
		{"all at once", []int{0, 1, 2}, 0},
		{"in order", []int{0, 1, 2}, 700 * time.Millisecond},
		{"reverse", []int{2, 1, 0}, 700 * time.Millisecond},
		{"middle last", []int{2, 0, 1}, 700 * time.Millisecond},
	}
	var joined times
	for i, o := range orders {
		took, err := t.joinOnce(ctx, fmt.Sprintf("o%d", i+1), o.name, o.order, o.apart)
		if err != nil {
			return fmt.Errorf("start %s: %w", o.name, err)
		}
		joined = append(joined, took...)
	}
	t.row("fourth node", "%s (from the start of its process until every node lists all as alive)", joined)
	if slow := joined.percentile(100); slow > joinWanted {
		t.violate("a fourth node showed up everywhere after %s, at most %s is wanted", slow, joinWanted)
	}
	return nil
}

func (t *trial) joinOnce(ctx context.Context, name, about string, order []int, apart time.Duration) (times, error) {
	c, err := t.newCluster(name, 3, 3)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	for i, at := range order {
		if i > 0 {
			if err := pause(ctx, apart); err != nil {
				return nil, err
			}
		}
		if err := c.start(c.nodes[at]); err != nil {
			return nil, err
		}
	}
	last := time.Now()
	if err := c.awaitReady(ctx, c.nodes...); err != nil {
		return nil, err
	}
	t.row(about, "all three ready %s after the first start, %s after the last", time.Since(began).Round(time.Millisecond), time.Since(last).Round(time.Millisecond))
	if err := c.createTable(ctx, tableName); err != nil {
		return nil, err
	}
	var joined times
	for _, expect := range []int{0, 3} { // with and without a wish for a seat
		took, err := c.joinLater(ctx, expect)
		if err != nil {
			return nil, err
		}
		joined = append(joined, took)
		t.tell("%s: a further node (expect %d) is listed everywhere after %s", about, expect, took)
	}
	for _, n := range c.nodes {
		n.kill()
	}
	return joined, nil
}

// joinLater adds a node and measures when every node lists every node as alive.
func (c *cluster) joinLater(ctx context.Context, expect int) (time.Duration, error) {
	n, err := c.add(expect)
	if err != nil {
		return 0, err
	}
	n.join = []string{c.nodes[c.t.rng.IntN(len(c.nodes)-1)].gossip}
	began := time.Now()
	if err := c.start(n); err != nil {
		return 0, err
	}
	err = await(ctx, readyWait, "every node lists every node", func(ctx context.Context) error {
		for _, x := range c.nodes {
			if err := x.lists(ctx, len(c.nodes)); err != nil {
				return err
			}
		}
		return nil
	})
	took := time.Since(began)
	if err != nil {
		return 0, err
	}
	return took, c.awaitReady(ctx, n)
}

// lists wants the node to list that many nodes, all alive.
func (n *node) lists(ctx context.Context, want int) error {
	if n.proc.ended() {
		return &endedError{fmt.Errorf("%s ended: %s", n.name, n.proc.printed())}
	}
	ms, err := n.api().Members(ctx)
	if err != nil {
		return err
	}
	alive := 0
	for _, m := range ms {
		if m.Status == "alive" {
			alive++
		}
	}
	if alive != want || len(ms) != want {
		return fmt.Errorf("%s lists %d nodes, %d alive, of %d", n.name, len(ms), alive, want)
	}
	return nil
}
