package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"pando.dev/pando/actors"
	"pando.dev/pando/partition"
)

const (
	// splitWait bounds one split, a kill of the master in the middle included.
	splitWait = 60 * time.Second
	// splitAfter is how long behind a split gaps are counted to it.
	splitAfter = 500 * time.Millisecond
)

// splits is what split measures.
type splits struct {
	calmStay, calmLeave times // longest gaps without a split, in windows as long as a split's
	stay, leave         times // around a split
	killStay, killLeave times // around one with a kill
	took                times
	killed              map[string]int
	aborted             int
}

// splitUnderLoad splits a partition again and again under load, with a kill of the
// master in every step.
func splitUnderLoad(ctx context.Context, t *trial) error {
	c, err := t.newCluster("n", 3, 3)
	if err != nil {
		return err
	}
	if err := c.up(ctx); err != nil {
		return err
	}
	if err := c.createTable(ctx, tableName); err != nil {
		return err
	}
	// When each round is to die: while the split was only asked for, is intended,
	// sealed, activated. An empty one lives.
	rounds := []string{"", "begins", "will move", "is about to move", "has moved", "", "is about to move", "has moved"}
	rounds = rounds[:min(len(rounds), t.rounds(len(rounds), 5))]
	var prefixes []string
	for i := range len(rounds) + 1 {
		prefixes = append(prefixes, fmt.Sprintf("p%d/", i))
	}
	l, err := c.startLoadOn(ctx, target{prefixes: prefixes})
	if err != nil {
		return err
	}
	defer l.close()
	s := splits{killed: map[string]int{}}
	if err := c.calm(ctx, l, min(t.opts.calm, 5*time.Second)); err != nil {
		return err
	}
	for at := l.acks.now() - 3*time.Second; at < l.acks.now()-time.Second; at += time.Second {
		s.calmStay = append(s.calmStay, l.parts[0].longestGap(at, at+time.Second))
		s.calmLeave = append(s.calmLeave, l.parts[len(rounds)].longestGap(at, at+time.Second))
	}
	for i, at := range rounds {
		if err := c.splitOnce(ctx, l, &s, len(rounds)-i, at); err != nil {
			return fmt.Errorf("split %d: %w", i+1, err)
		}
	}
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	t.row("longest gap", "same load without a split: retained range %s, leaving range %s", s.calmStay, s.calmLeave)
	t.row("  with a split", "retained range %s, leaving range %s", s.stay, s.leave)
	t.row("  and a kill -9", "retained range %s, leaving range %s", s.killStay, s.killLeave)
	t.row("split", "%s; %d given up and done again", s.took, s.aborted)
	t.rowCounts("killed", s.killed)
	if err := t.judged(ctx, l); err != nil {
		return err
	}
	ps, err := c.partitions(ctx, tableName)
	if err != nil {
		return err
	}
	if len(ps) != len(rounds)+1 {
		t.violate("%d partitions after %d splits", len(ps), len(rounds))
	}
	return c.compareReplicas(ctx, l.stores[0])
}

// splitOnce splits the first partition before the given part of the load, and kills
// its master when the split says the given words.
func (c *cluster) splitOnce(ctx context.Context, l *load, s *splits, part int, dies string) error {
	n, p, err := c.master(ctx, tableName)
	if err != nil {
		return err
	}
	began := l.acks.now()
	key := l.prefixes[part]
	task, err := c.beginSplit(ctx, p.Group, key)
	if err != nil {
		return err
	}
	if dies != "" {
		when := "later"
		if c.splitSays(ctx, p.Group, dies) {
			when = dies
		}
		n.kill()
		s.killed[fmt.Sprintf("%q", when)]++
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
		if err := c.back(ctx, n); err != nil {
			return err
		}
	}
	info, err := c.awaitSplit(ctx, task)
	if err != nil {
		return err
	}
	took := l.acks.now() - began
	if err := pause(ctx, splitAfter); err != nil {
		return err
	}
	if info.State != "done" { // with a reason, and nothing has changed
		c.t.tell("split at %s: %s: %s", key, info.State, info.Why)
		s.aborted++
		return c.splitOnce(ctx, l, s, part, "")
	}
	stay, leave := l.parts[0].longestGap(began, began+took+splitAfter), l.parts[part].longestGap(began, began+took+splitAfter)
	if dies == "" {
		s.stay, s.leave, s.took = append(s.stay, stay), append(s.leave, leave), append(s.took, took)
	} else {
		s.killStay, s.killLeave = append(s.killStay, stay), append(s.killLeave, leave)
	}
	c.t.tell("split at %s, %q: %s, gaps: retained %s, leaving %s", key, dies, took, stay, leave)
	return nil
}

// back starts a node that was killed, if it does not run, and waits for it.
func (c *cluster) back(ctx context.Context, n *node) error {
	if n.running() {
		return nil
	}
	if err := n.start(); err != nil {
		return err
	}
	return c.awaitReady(ctx, n)
}

// beginSplit asks for a split, by whichever node answers, once.
func (c *cluster) beginSplit(ctx context.Context, g partition.GroupID, key string) (task uint64, err error) {
	r := actors.SplitRequest{Group: g, At: [][]byte{[]byte(key)}, By: "hammer", Token: key + fmt.Sprint(c.t.rng.Uint64())}
	err = await(ctx, masterWait, "a split is begun", func(ctx context.Context) error {
		var failed error
		for _, n := range c.nodes {
			if !n.running() {
				continue
			}
			info, err := n.api().Split(ctx, r)
			if err == nil {
				task = info.Task
				return nil
			}
			failed = err
		}
		return failed
	})
	return task, err
}

// splitSays waits until the partition tells these words of its split, or that it is
// over, which is false.
func (c *cluster) splitSays(ctx context.Context, g partition.GroupID, words string) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	began := false
	for ctx.Err() == nil {
		for _, n := range c.nodes {
			p, err := n.api().Partition(ctx, g)
			if err != nil {
				continue
			}
			if words == "begins" || strings.Contains(p.Extent, words) || words == "is about to move" && strings.Contains(p.Splitting, "seal") {
				return true
			}
			if strings.Contains(p.Extent, "task") {
				began = true
			} else if began {
				return false
			}
		}
	}
	return false
}

// awaitSplit waits for the end of a split, by whichever node answers.
func (c *cluster) awaitSplit(ctx context.Context, task uint64) (info actors.SplitInfo, err error) {
	err = await(ctx, splitWait, "the split ends", func(ctx context.Context) error {
		var failed error
		for _, n := range c.nodes {
			if !n.running() {
				continue
			}
			x, err := n.api().SplitStatus(ctx, task)
			switch {
			case err != nil:
				failed = err
			case x.State == "open":
				failed = fmt.Errorf("%s: %s", x.Phase, x.Why)
			default:
				info = x
				return nil
			}
		}
		return failed
	})
	return info, err
}
