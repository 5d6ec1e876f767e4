package main

import (
	"context"
	"fmt"
	"time"

	"pando.dev/pando/actors"
	"pando.dev/pando/partition"
)

// tableName is the table that scenarios work on.
const tableName = "hammer"

const (
	// masterWait bounds the wait for a master, caughtUpWait that for replicas to
	// have everything.
	masterWait   = 30 * time.Second
	caughtUpWait = 60 * time.Second
)

// createTable makes a table with the command line and waits for its masters.
func (c *cluster) createTable(ctx context.Context, name string, flags ...string) error {
	args := append([]string{"table", "create", name, "--addr", c.https(), "--timeout", "20s", "--wait", "30s"}, flags...)
	_, err := c.t.must(ctx, args...)
	return err
}

// master finds the node that is master of the table's first partition.
func (c *cluster) master(ctx context.Context, table string) (n *node, p actors.PartitionInfo, err error) {
	err = await(ctx, masterWait, "table "+table+" has a master", func(ctx context.Context) error {
		ps, err := c.partitions(ctx, table)
		if err != nil {
			return err
		}
		p = ps[0]
		n, err = c.byID(p.Master)
		if err == nil && !n.running() {
			err = fmt.Errorf("%s, which does not run, is still called the master", n.name)
		}
		return err
	})
	return n, p, err
}

// awaitCaughtUp waits until every replica of the table follows its master and
// has applied all that was committed when the wait began.
func (c *cluster) awaitCaughtUp(ctx context.Context, table string) error {
	target := map[partition.GroupID]partition.Index{}
	return await(ctx, caughtUpWait, "every replica has caught up", func(ctx context.Context) error {
		ps, err := c.partitions(ctx, table)
		if err != nil {
			return err
		}
		for _, p := range ps {
			if p.Master == "" {
				return fmt.Errorf("%s has no master", p.Group)
			}
			if target[p.Group] == 0 {
				target[p.Group] = p.Commit
			}
			if err := behind(p, target[p.Group]); err != nil {
				return err
			}
		}
		return nil
	})
}

// behind says which replica does not follow or lacks records up to the target.
func behind(p actors.PartitionInfo, target partition.Index) error {
	for _, r := range p.Replicas {
		if r.Role != "master" && r.Role != "peer" {
			return fmt.Errorf("the replica of %s on %s is %s: %s", p.Group, r.Node, r.Role, r.Why)
		}
		if r.Applied < target {
			return fmt.Errorf("the replica of %s on %s has applied %d of %d", p.Group, r.Node, r.Applied, target)
		}
	}
	return nil
}
