package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"pando.dev/pando/actors"
	"pando.dev/pando/partition"
)

// compareHolders reads the whole table from each of its replicas, as master, and
// wants the same from all. The mastership is handed from one to the other. The
// load has been stopped.
func (c *cluster) compareHolders(ctx context.Context, table string, s scanner) error {
	c.t.tell("comparing the replicas of %s", table)
	_, p, err := c.master(ctx, table)
	if err != nil {
		return err
	}
	digests := map[partition.NodeID]string{}
	pairs := 0
	for _, r := range p.Replicas {
		if err := c.awaitMaster(ctx, table, p.Group, r.Node); err != nil {
			return err
		}
		all, keys, err := s.scan(ctx, "")
		if err != nil {
			return fmt.Errorf("read the table from %s: %w", r.Node, err)
		}
		n, _, err := c.master(ctx, table)
		if err != nil {
			return err
		}
		digests[n.id], pairs = digest(all, keys), len(keys)
	}
	same := slices.Compact(slices.Sorted(maps.Values(digests)))
	c.t.row("replicas", "%d of %d read as master, %d pairs, %d different states", len(digests), len(p.Replicas), pairs, len(same))
	if len(same) != 1 || len(digests) != len(p.Replicas) {
		c.t.violate("the replicas of %s hold different states, or not all were read: %v", table, digests)
	}
	return nil
}

// awaitMaster hands the mastership to a node. A hand-over may be refused for a
// moment, so it is asked for again.
func (c *cluster) awaitMaster(ctx context.Context, table string, g partition.GroupID, to partition.NodeID) error {
	return await(ctx, masterWait, fmt.Sprintf("%s is master of %s", to, g), func(ctx context.Context) error {
		ps, err := c.partitions(ctx, table)
		if err != nil {
			return err
		}
		for _, p := range ps {
			switch {
			case p.Group != g:
			case p.Master == to:
				return nil
			case p.Master == "":
				return errors.New("nobody is master")
			default:
				if err := c.transfer(ctx, g, to); err != nil {
					return err
				}
				return errors.New("it was handed over, and nobody says so yet")
			}
		}
		return fmt.Errorf("the table has no partition %s", g)
	})
}

// leftOvers wants no state of a group on the nodes that do not hold it any more.
func (c *cluster) leftOvers(ctx context.Context, table string, g partition.GroupID) error {
	err := await(ctx, wholeWait, "no replica is left over", func(ctx context.Context) error {
		_, p, err := c.master(ctx, table)
		if err != nil {
			return err
		}
		for _, n := range c.nodes {
			held := slices.ContainsFunc(p.Replicas, func(r actors.ReplicaInfo) bool { return r.Node == n.id })
			stores, err := os.ReadDir(filepath.Join(n.dir, "stores", g.String()))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			if held != (len(stores) == 1) {
				return fmt.Errorf("%s (a member: %v) has %d stores of %s", n.name, held, len(stores), g)
			}
		}
		return nil
	})
	if err != nil {
		c.t.violate("%v", err)
	}
	c.t.row("left over", "a store on each member and on no other node: %v", err == nil)
	return ctx.Err()
}
