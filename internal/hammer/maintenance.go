package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"pando.dev/pando/actors"
	"pando.dev/pando/partition"
)

// maintenance takes one of three nodes out of service by the operator's word,
// under load. It must stay so through kills of itself and of the master, and a
// second node must be refused: INE-4, INE-5, INE-6.
func maintenance(ctx context.Context, t *trial) error {
	c, err := t.newCluster("n", 3, 3)
	if err != nil {
		return err
	}
	if err := c.up(ctx); err != nil {
		return err
	}
	if err := c.createTable(ctx, tableName, "--policy", "zones:2"); err != nil {
		return err
	}
	l, err := c.startLoad(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	var d drained
	for i := range t.rounds(3, 1) {
		n := c.nodes[i%len(c.nodes)]
		if err := c.maintain(ctx, l, n, &d); err != nil {
			return fmt.Errorf("round %d, %s: %w", i+1, n.name, err)
		}
	}
	t.row("drain", "%s; longest gap %s", d.drain, d.gaps)
	t.row("killed meanwhile", "the node itself and the master, longest gap %s", d.kills)
	t.row("undrain", "%s", d.undrain)
	if err := t.judged(ctx, l); err != nil {
		return err
	}
	return c.compareHolders(ctx, tableName, l.stores[0])
}

// drained is what maintenance measures.
type drained struct{ drain, undrain, gaps, kills times }

// maintain takes one node out of service and back.
func (c *cluster) maintain(ctx context.Context, l *load, n *node, d *drained) error {
	if err := c.awaitWhole(ctx, tableName, small); err != nil {
		return err
	}
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	began := l.acks.now()
	if _, err := c.operate(ctx, "node", "drain", string(n.id)); err != nil {
		return err
	}
	d.drain = append(d.drain, l.acks.now()-began)
	if err := c.isDrained(ctx, n); err != nil {
		return err
	}
	d.gaps = append(d.gaps, l.acks.longestGap(began, l.acks.now()))
	if err := c.secondDrain(ctx, n); err != nil {
		return err
	}
	killed := l.acks.now()
	n.kill() // it is not ready before it is taken back into service
	if err := n.start(); err != nil {
		return err
	}
	if err := c.isDrained(ctx, n); err != nil {
		return err
	}
	master, p, err := c.master(ctx, tableName)
	if err != nil {
		return err
	}
	if master == n {
		c.t.violate("%s is drained and master: %s", n.name, sketch(p))
	}
	if err := c.restart(ctx, master); err != nil {
		return err
	}
	d.kills = append(d.kills, l.acks.longestGap(killed, l.acks.now()))
	if err := c.isDrained(ctx, n); err != nil {
		return err
	}
	began = l.acks.now()
	if _, err := c.operate(ctx, "node", "undrain", string(n.id)); err != nil {
		return err
	}
	err = c.awaitWhole(ctx, tableName, small)
	d.undrain = append(d.undrain, l.acks.now()-began)
	return err
}

// isDrained wants the node's replica to be ineligible, and to follow all the same.
func (c *cluster) isDrained(ctx context.Context, n *node) error {
	_, err := c.awaitPartition(ctx, tableName, n.name+" is drained and follows", func(p actors.PartitionInfo) bool {
		i := slices.IndexFunc(p.Replicas, func(r actors.ReplicaInfo) bool { return r.Node == n.id })
		return i >= 0 && p.Master != "" && p.Master != n.id && !p.Replicas[i].Eligible && behind(p, 0) == nil
	})
	return err
}

// secondDrain wants a further drain to be refused: nothing could commit any more.
func (c *cluster) secondDrain(ctx context.Context, first *node) error {
	for _, n := range c.nodes {
		if n == first {
			continue
		}
		o, err := c.t.command(ctx, "node", "drain", string(n.id), "--addr", c.https(), "--timeout", "5s")
		if err != nil {
			return err
		}
		if o.code == 0 || !strings.Contains(o.err, partition.CodeRefused.String()) {
			c.t.violate("%s is drained, and the drain of %s ended with %d: %s%s", first.name, n.name, o.code, o.out, o.err)
		}
		c.t.row("a second drain", "exit code %d: %.160s", o.code, strings.ReplaceAll(o.err, "\n", " "))
		return nil
	}
	return nil
}
