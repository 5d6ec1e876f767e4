package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"time"

	"pando.dev/pando/actors"
	"pando.dev/pando/partition"
)

const (
	// rollingParts is how many partitions the table has, and so the keys' first
	// letters.
	rollingParts = 6
	// drainWait bounds the orderly end of a node.
	drainWait = 30 * time.Second
	// gapWanted is the most that a planned hand-over may cost a group.
	gapWanted = 20 * time.Millisecond
)

// rolled is what rolling measures.
type rolled struct {
	gaps    times // longest gap of each group that was handed over, around it
	others  times // of the groups that were not
	returns times // of all groups, when the node came back
	exit    times // from SIGTERM to the end of the process
	node    times // until it is back and eligible
	moved   int   // hand-overs
	ledgers map[partition.GroupID]*ledger
}

// rolling restarts one node after the other, in order, under load.
func rolling(ctx context.Context, t *trial) error {
	c, err := t.newCluster("n", 3, 3)
	if err != nil {
		return err
	}
	if err := c.up(ctx); err != nil {
		return err
	}
	var splits, prefixes []string
	for i := range rollingParts {
		prefixes = append(prefixes, string(rune('a'+i)))
	}
	splits = prefixes[1:]
	if err := c.createTable(ctx, tableName, "--split", strings.Join(splits, ",")); err != nil {
		return err
	}
	l, err := c.startLoadOn(ctx, target{prefixes: prefixes})
	if err != nil {
		return err
	}
	defer l.close()
	r := &rolled{ledgers: map[partition.GroupID]*ledger{}}
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	for round := range t.rounds(3, 1) {
		for _, n := range c.nodes {
			if err := c.rollOnce(ctx, l, n, r); err != nil {
				return fmt.Errorf("round %d, %s: %w", round+1, n.name, err)
			}
		}
	}
	return t.reportRolled(ctx, l, r)
}

// rollOnce drains and restarts one node.
func (c *cluster) rollOnce(ctx context.Context, l *load, n *node, r *rolled) error {
	if err := c.awaitWhole(ctx, tableName, small); err != nil {
		return err
	}
	before, err := c.partitions(ctx, tableName)
	if err != nil {
		return err
	}
	for _, p := range before {
		if r.ledgers[p.Group] == nil {
			r.ledgers[p.Group] = newLedger(p.Group)
		}
	}
	ledgers := slices.Collect(maps.Values(r.ledgers))
	if err := c.look(ctx, tableName, ledgers...); err != nil {
		return err
	}
	marks := map[partition.GroupID]int{}
	for g, led := range r.ledgers {
		marks[g] = led.changes(0)
	}
	if err := pause(ctx, 500*time.Millisecond); err != nil {
		return err
	}
	began := l.acks.now()
	if err := c.drain(ctx, l, n, r); err != nil {
		return err
	}
	if err := pause(ctx, 300*time.Millisecond); err != nil { // so that its return is told from its end
		return err
	}
	down := l.acks.now()
	if err := errors.Join(n.start(), c.awaitReady(ctx, n), c.awaitWhole(ctx, tableName, small)); err != nil {
		return err
	}
	r.node = append(r.node, l.acks.now()-began)
	if err := pause(ctx, 500*time.Millisecond); err != nil { // for what a late change of master would be
		return err
	}
	for i, p := range before {
		r.gap(l.parts[i], p.Master == n.id, began, down)
	}
	if err := c.look(ctx, tableName, ledgers...); err != nil {
		return err
	}
	for _, p := range before {
		c.countMasters(n, r, p, r.ledgers[p.Group].changes(marks[p.Group]))
	}
	return nil
}

// gap notes the longest gaps of one group while a node ended, and while it came
// back.
func (r *rolled) gap(acks *ackLog, handed bool, began, down time.Duration) {
	gap := acks.longestGap(began, down)
	if handed {
		r.gaps = append(r.gaps, gap)
	} else {
		r.others = append(r.others, gap)
	}
	r.returns = append(r.returns, acks.longestGap(down, acks.now()))
}

// drain tells the node to end, and waits for that.
func (c *cluster) drain(ctx context.Context, l *load, n *node, r *rolled) error {
	began := l.acks.now()
	if err := n.proc.signal(syscall.SIGTERM); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, drainWait)
	defer cancel()
	code, err := n.proc.wait(limited)
	if err != nil {
		return fmt.Errorf("%s does not end after SIGTERM: %w: %s", n.name, err, n.proc.printed())
	}
	if code != 0 {
		c.t.violate("%s ended with exit code %d after SIGTERM: %s", n.name, code, n.proc.printed())
	}
	r.exit = append(r.exit, l.acks.now()-began)
	c.t.tell("%s ended after %s", n.name, r.exit[len(r.exit)-1])
	return nil
}

// countMasters judges how often one drain and return made a group change its
// master.
func (c *cluster) countMasters(n *node, r *rolled, was actors.PartitionInfo, changes int) {
	allowed := 0
	if was.Master == n.id {
		allowed = 1
		r.moved += changes
	}
	c.t.tell("%s, mastered by the drained node: %v, %d changes of master", was.Group, was.Master == n.id, changes)
	if changes > allowed {
		c.t.violate("%s changed its master %d times while %s (its master: %v) was drained and came back", was.Group, changes, n.name, was.Master == n.id)
	}
}

// reportRolled prints the numbers and judges the clients' history.
func (t *trial) reportRolled(ctx context.Context, l *load, r *rolled) error {
	l.stop()
	t.row("groups", "%d, on three nodes", len(r.ledgers))
	t.row("hand-overs", "%d, in %d drains by SIGTERM", r.moved, len(r.exit))
	t.row("longest gap", "of groups handed over, from SIGTERM until the process was gone, %s; at most %s is the goal", r.gaps, gapWanted)
	t.row("  of the other groups", "%s (in the same time)", r.others)
	t.row("  when the node returned", "%s (all groups)", r.returns)
	t.row("SIGTERM to exit", "%s", r.exit)
	t.row("SIGTERM to whole again", "%s", r.node)
	broken := 0
	for _, led := range r.ledgers {
		broken += led.broken
	}
	t.row("looks at the logs", "%d of them without a way back to the one before", broken)
	if r.moved == 0 {
		t.violate("no mastership was handed over")
	}
	t.noneFailed(l)
	return t.judged(ctx, l)
}

// noneFailed wants no operation to have failed beyond the client's retries.
func (t *trial) noneFailed(l *load) {
	l.mu.Lock()
	defer l.mu.Unlock()
	failed := 0
	for _, n := range l.errs {
		failed += n
	}
	t.row("failed requests", "%d beyond the client's retries", failed)
	if failed > 0 {
		t.violate("%d requests failed beyond the client's retries", failed)
	}
}
