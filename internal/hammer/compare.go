package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
)

// compareReplicas reads the whole table from each replica and wants the same
// from all. Only a master answers, so those that have been read are killed until
// each was master. Nothing else writes meanwhile.
func (c *cluster) compareReplicas(ctx context.Context, s scanner) error {
	c.t.tell("comparing the replicas")
	digests := map[string]string{} // by node
	pairs := 0
	for range 4 * len(c.nodes) {
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
		if len(digests) == len(c.nodes) {
			break
		}
		if err := c.makeWay(ctx, digests); err != nil {
			return err
		}
	}
	same := slices.Compact(slices.Sorted(maps.Values(digests)))
	c.t.row("replicas", "%d of %d read as master, %d pairs, %d different states", len(digests), len(c.nodes), pairs, len(same))
	if len(same) != 1 {
		c.t.violate("the replicas hold different states: %v", digests)
	}
	if len(digests) < len(c.nodes) {
		c.t.violate("only %d of %d nodes became master and could be read", len(digests), len(c.nodes))
	}
	return nil
}

// makeWay kills the nodes that have been read and starts them again, so that
// another one is the first to be able to become master.
func (c *cluster) makeWay(ctx context.Context, read map[string]string) error {
	var killed []*node
	for _, n := range c.nodes {
		if read[n.name] != "" {
			n.kill()
			killed = append(killed, n)
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
