package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"pando.dev/pando/actors"
	"pando.dev/pando/partition"
)

// disturbFor is how long a lost node that is back is watched.
const disturbFor = 5 * time.Second

// recovery loses two of a group's three members for good, has the operator bring
// the group back from the one that is left, and lets a lost one return.
func recovery(ctx context.Context, t *trial) error {
	c, err := t.newCluster("n", 5, 3)
	if err != nil {
		return err
	}
	for _, n := range c.nodes[3:] {
		n.expect = 0 // the seats are on the first three, which survive
	}
	if err := c.up(ctx); err != nil {
		return err
	}
	if err := c.createTable(ctx, tableName, "--replicas", "3", "--on", ids(c.nodes[2:])); err != nil {
		return err
	}
	earlier, err := c.startLoadOn(ctx, target{prefixes: []string{"before/"}})
	if err != nil {
		return err
	}
	defer earlier.close()
	if err := pause(ctx, 3*time.Second); err != nil {
		return err
	}
	earlier.stop()
	_, before, err := c.master(ctx, tableName)
	if err != nil {
		return err
	}
	if err := c.awaitCaughtUp(ctx, tableName); err != nil { // so that the one left has everything
		return err
	}
	lost := c.nodes[3:]
	for _, n := range lost {
		n.kill()
	}
	s := earlier.stores[0]
	err = bounded(ctx, func(ctx context.Context) error { return s.put(ctx, "in-vain", "x") })
	if err == nil {
		t.violate("a write was acknowledged by one of three members")
	}
	t.row("two of three gone", "a write ends with: %.200v", err)
	if err := c.recover(ctx, before, s, lost); err != nil {
		return err
	}
	if err := t.judged(ctx, earlier); err != nil {
		return err
	}
	return c.lostReturns(ctx, before, lost)
}

// recover gives the operator's two commands and wants writes to go on. A plan that
// does not name the dead, or that nobody made, must not be carried out.
func (c *cluster) recover(ctx context.Context, before actors.PartitionInfo, s *table, lost []*node) error {
	g := before.Group.String()
	if _, err := c.operate(ctx, "recover", "apply", g+"/"+ids(lost)+"/0000000000000000"); err == nil {
		c.t.violate("recover apply carried out a plan that was never made")
	}
	if out, err := c.operate(ctx, "recover", "plan", g); err == nil && strings.Contains(out, "recover apply") {
		c.t.violate("a plan was made though nobody said that the nodes are dead: %s", out)
	}
	text, err := c.operate(ctx, "recover", "plan", g, "--dead", ids(lost))
	if err != nil {
		return err
	}
	for i, line := range strings.Split(strings.TrimSpace(text), "\n") {
		if i < 12 {
			c.t.row("plan", "%.220s", line)
		}
	}
	out, err := c.operate(ctx, "recover", "plan", g, "--dead", ids(lost), "-o", "json")
	if err != nil {
		return err
	}
	var plan actors.RecoverPlan
	if err := json.Unmarshal([]byte(out), &plan); err != nil {
		return fmt.Errorf("read the plan: %w", err)
	}
	if len(plan.Groups) != 1 || plan.Groups[0].Loss == "" {
		c.t.violate("the plan does not say what may be lost: %s", out)
	}
	began := time.Now()
	if _, err := c.operate(ctx, "recover", "apply", plan.Plan, "--reason", "two nodes burnt"); err != nil {
		return err
	}
	err = await(ctx, ackWait, "writes go on after the recovery", func(ctx context.Context) error {
		return bounded(ctx, func(ctx context.Context) error { return s.put(ctx, "after", "recovered") })
	})
	if err != nil {
		return err
	}
	c.t.row("recovered", "writes go on %s after apply", seconds(time.Since(began)))
	return nil
}

// lostReturns starts the lost nodes again, one after the other, under load: what
// they hold must count for nothing, and they may only come back as new replicas.
func (c *cluster) lostReturns(ctx context.Context, before actors.PartitionInfo, lost []*node) error {
	l, err := c.startLoadOn(ctx, target{prefixes: []string{"after/"}})
	if err != nil {
		return err
	}
	defer l.close()
	_, recovered, err := c.master(ctx, tableName)
	if err != nil {
		return err
	}
	for i, n := range lost {
		from := l.acks.now()
		if err := n.start(); err != nil {
			return err
		}
		if err := c.awaitReady(ctx, n); err != nil {
			return err
		}
		if err := pause(ctx, disturbFor); err != nil {
			return err
		}
		gap := l.acks.longestGap(from, l.acks.now())
		_, p, err := c.master(ctx, tableName)
		if err != nil {
			return err
		}
		c.t.row("a lost node returns", "longest gap %s; %s", gap.Round(time.Millisecond), sketch(p))
		if i == 0 && p.Epoch != recovered.Epoch {
			c.t.violate("the master changed from epoch %s to %s when a lost node returned", recovered.Epoch, p.Epoch)
		}
	}
	if err := c.awaitWhole(ctx, tableName, small); err != nil {
		c.t.violate("the table does not get its replicas back: %v", err)
	}
	_, p, err := c.master(ctx, tableName)
	if err != nil {
		return err
	}
	c.oldReplicas(before, recovered, p)
	if err := c.t.judged(ctx, l); err != nil {
		return err
	}
	return c.compareHolders(ctx, tableName, l.stores[0])
}

// oldReplicas wants no replica that was given up to be a member again.
func (c *cluster) oldReplicas(before, recovered, now actors.PartitionInfo) {
	has := func(p actors.PartitionInfo, id partition.ReplicaID) bool {
		return slices.ContainsFunc(p.Replicas, func(r actors.ReplicaInfo) bool { return r.Replica == id })
	}
	for _, r := range before.Replicas {
		if !has(recovered, r.Replica) && has(now, r.Replica) {
			c.t.violate("replica %d, which the recovery had given up, is a member again: %s", r.Replica, sketch(now))
		}
	}
}
