package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"pando.dev/pando/actors"
	"pando.dev/pando/partition"
)

// handovers is what transfer measures.
type handovers struct {
	handed, killed  times // longest gap around each
	took            times // of the command
	refused         int   // hand-overs that had to be asked for again
	refusal         string
	masters         map[partition.NodeID]int
	ledger          *ledger
	changes, wanted int // of master, in the logs
}

// transfers hands the mastership over again and again under load, and kills the
// master some times for comparison.
func transfers(ctx context.Context, t *trial) error {
	c, l, err := t.loaded(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	if err := c.calm(ctx, l, min(t.opts.calm, 3*time.Second)); err != nil {
		return err
	}
	_, p, err := c.master(ctx, tableName)
	if err != nil {
		return err
	}
	h := &handovers{masters: map[partition.NodeID]int{}, ledger: newLedger(p.Group)}
	if err := c.look(ctx, tableName, h.ledger); err != nil {
		return err
	}
	usual := 100
	if t.opts.short {
		usual = 30
	}
	n := or(t.opts.transfers, usual)
	for i := range n {
		if err := c.handOver(ctx, l, h); err != nil {
			return fmt.Errorf("hand-over %d: %w", i+1, err)
		}
	}
	mark := h.ledger.changes(0)
	if err := c.look(ctx, tableName, h.ledger); err != nil {
		return err
	}
	h.changes, h.wanted = h.ledger.changes(mark), n
	t.noneFailed(l)
	for i := range max(3, n/10) {
		if err := c.killForGap(ctx, l, h); err != nil {
			return fmt.Errorf("kill %d: %w", i+1, err)
		}
	}
	t.reportHandovers(h)
	if err := t.judged(ctx, l); err != nil {
		return err
	}
	return c.compareHolders(ctx, tableName, l.stores[0])
}

// handOver hands the mastership to a drawn node, or to whoever is best.
func (c *cluster) handOver(ctx context.Context, l *load, h *handovers) error {
	if err := pause(ctx, time.Duration(100+c.t.rng.IntN(200))*time.Millisecond); err != nil {
		return err
	}
	n, p, err := c.master(ctx, tableName)
	if err != nil {
		return err
	}
	var to partition.NodeID
	if c.t.rng.IntN(3) > 0 {
		others := make([]actors.ReplicaInfo, 0, len(p.Replicas))
		for _, r := range p.Replicas {
			if r.Node != n.id {
				others = append(others, r)
			}
		}
		to = others[c.t.rng.IntN(len(others))].Node
	}
	began := l.acks.now()
	if err := c.askHandOver(ctx, p.Group, to, h); err != nil {
		return err
	}
	took := l.acks.now() - began
	if _, err := firstAck(ctx, l, l.acks.now()); err != nil {
		return err
	}
	now, after, err := c.master(ctx, tableName)
	if err != nil {
		return err
	}
	switch {
	case after.Master == p.Master:
		c.t.violate("%s is master of %s after it was handed to %q (epoch %s, then %s)", p.Master, p.Group, to, p.Epoch, after.Epoch)
	case to != "" && after.Master != to:
		c.t.violate("%s is master of %s after it was handed to %s", after.Master, p.Group, to)
	}
	gap := l.acks.longestGap(began, began+took)
	h.handed, h.took = append(h.handed, gap), append(h.took, took)
	h.masters[now.id]++
	c.t.tell("handed from %s to %s in %s, longest gap %s", n.name, now.name, took, gap)
	return nil
}

// askHandOver gives the command; it may be refused for a moment, such as while a
// replica is behind.
func (c *cluster) askHandOver(ctx context.Context, g partition.GroupID, to partition.NodeID, h *handovers) error {
	return await(ctx, masterWait, "a hand-over is taken on", func(ctx context.Context) error {
		err := c.transfer(ctx, g, to)
		if err != nil {
			h.refused++
			h.refusal = err.Error()
		}
		return err
	})
}

// killForGap kills the master for comparison.
func (c *cluster) killForGap(ctx context.Context, l *load, h *handovers) error {
	if err := pause(ctx, time.Duration(200+c.t.rng.IntN(300))*time.Millisecond); err != nil {
		return err
	}
	n, _, err := c.master(ctx, tableName)
	if err != nil {
		return err
	}
	killed := l.acks.now()
	n.kill()
	acked, err := firstAck(ctx, l, l.acks.now())
	if err != nil {
		return err
	}
	h.killed = append(h.killed, l.acks.longestGap(killed, acked))
	if err := errors.Join(n.start(), c.awaitReady(ctx, n)); err != nil {
		return err
	}
	return c.awaitWhole(ctx, tableName, small)
}

func (t *trial) reportHandovers(h *handovers) {
	t.row("hand-overs", "%d; the command took %s; %d asked for again, such as: %.200s", len(h.handed), h.took, h.refused, h.refusal)
	t.row("longest gap, handed over", "%s", h.handed)
	t.row("longest gap, kill -9", "%s", h.killed)
	t.row("masterships in the logs", "%d for %d hand-overs", h.changes, h.wanted)
	if h.changes > h.wanted {
		t.violate("the master changed %d times in %d hand-overs", h.changes, h.wanted)
	}
	if h.handed.percentile(50) >= h.killed.percentile(50) {
		t.violate("a hand-over costs %s without a write, a kill %s (medians)", h.handed.percentile(50), h.killed.percentile(50))
	}
}
