package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"time"
)

// compareReplicas reads the whole table from each replica and wants the same
// from all. Only a master answers, and which node becomes master is the group's
// business, so nodes are killed until each was, or until the time for it is
// over. Nothing else writes meanwhile.
func (c *cluster) compareReplicas(ctx context.Context, s scanner) error {
	c.t.tell("comparing the replicas")
	digests := map[string]string{} // by node
	pairs := 0
	for began := time.Now(); ; {
		if err := c.awaitCaughtUp(ctx, tableName); err != nil {
			return err
		}
		n, _, err := c.master(ctx, tableName)
		if err != nil {
			return err
		}
		if digests[n.name] == "" {
			all, keys, err := s.scan(ctx, "")
			if err != nil {
				return fmt.Errorf("read the table from %s: %w", n.name, err)
			}
			digests[n.name], pairs = digest(all, keys), len(keys)
		}
		if len(digests) == len(c.nodes) || time.Since(began) > c.t.opts.compare {
			break
		}
		if err := c.makeWay(ctx, n, digests); err != nil {
			return err
		}
	}
	same := slices.Compact(slices.Sorted(maps.Values(digests)))
	c.t.row("replicas", "%d of %d read as master, %d pairs, %d different states", len(digests), len(c.nodes), pairs, len(same))
	if len(same) != 1 {
		c.t.violate("the replicas hold different states: %v", digests)
	}
	return nil
}

// makeWay kills the master, and now and then all nodes that have been read, and
// starts them again when another one has taken over, if one can.
func (c *cluster) makeWay(ctx context.Context, master *node, read map[string]string) error {
	all := c.t.rng.IntN(2) == 0
	var killed []*node
	for _, n := range c.nodes {
		if n == master || all && read[n.name] != "" {
			n.kill()
			killed = append(killed, n)
		}
	}
	if len(killed) == 1 {
		if _, _, err := c.master(ctx, tableName); err != nil {
			return err
		}
	}
	if err := c.start(killed...); err != nil {
		return err
	}
	return c.awaitReady(ctx, killed...)
}

func digest(pairs map[string]string, keys []string) string {
	h := sha256.New()
	for _, k := range keys {
		fmt.Fprintf(h, "%q %q\n", k, pairs[k])
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:8])
}
