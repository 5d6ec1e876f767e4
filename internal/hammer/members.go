package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"pando.dev/pando/actors"
	"pando.dev/pando/partition"
)

const (
	// small and large are the replicas of the table, by turns.
	small, large = 3, 5
	// judgeRounds is how many rounds one history covers: it is judged before it
	// grows too large.
	judgeRounds = 5
	// growChanges and shrinkChanges are about how many configurations a step takes.
	growChanges, shrinkChanges = 4, 1
)

// steps is what members measures.
type steps struct {
	back, gaps   times          // after the kills
	took         map[int]times  // until the table had so many replicas, the kill included
	struck       map[string]int // what the group was at when its master was killed
	written      []int          // that was there before
	ledger       *ledger
	roundsJudged int
}

// members takes the table from three replicas to five and back, again and again
// under load, and kills the master at some moment of each step.
func members(ctx context.Context, t *trial) error {
	c, err := t.newCluster("n", large, 3)
	if err != nil {
		return err
	}
	c.smallDisks() // the log must not have everything, so that copies are needed
	if err := c.up(ctx); err != nil {
		return err
	}
	if err := c.createTable(ctx, tableName, "--replicas", fmt.Sprint(small)); err != nil {
		return err
	}
	_, p, err := c.master(ctx, tableName)
	if err != nil {
		return err
	}
	filler, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer filler.close()
	written, err := fillTable(ctx, filler, t.opts.fill)
	if err != nil {
		return err
	}
	s := &steps{
		written: written,
		took:    map[int]times{}, struck: map[string]int{}, ledger: newLedger(p.Group),
	}
	rounds := t.rounds(50, 3)
	for from := 0; from < rounds; from += judgeRounds {
		if err := c.memberRounds(ctx, s, from, min(from+judgeRounds, rounds)); err != nil {
			return errors.Join(err, c.reportSteps(s))
		}
	}
	return c.reportSteps(s)
}

// memberRounds makes some rounds under one load, and judges them.
func (c *cluster) memberRounds(ctx context.Context, s *steps, from, to int) error {
	l, err := c.startLoadOn(ctx, target{prefixes: []string{fmt.Sprintf("r%d/", from)}})
	if err != nil {
		return err
	}
	defer l.close()
	for i := from; i < to; i++ {
		for _, replicas := range []int{large, small} {
			if err := c.memberStep(ctx, l, s, replicas); err != nil {
				return fmt.Errorf("round %d, to %d replicas: %w", i+1, replicas, err)
			}
		}
	}
	if err := c.t.judged(ctx, l); err != nil {
		return err
	}
	s.roundsJudged = to
	if err := readFilled(ctx, l.stores[0], s.written); err != nil {
		c.t.violate("after round %d: %v", to, err)
	}
	if err := c.leftOvers(ctx, tableName, s.ledger.group); err != nil {
		return err
	}
	return c.compareHolders(ctx, tableName, l.stores[0])
}

// memberStep changes the number of replicas and kills the master meanwhile: after
// a drawn number of configurations, and a drawn moment more.
func (c *cluster) memberStep(ctx context.Context, l *load, s *steps, replicas int) error {
	_, p, err := c.master(ctx, tableName)
	if err != nil {
		return err
	}
	changes := growChanges
	if replicas == small {
		changes = shrinkChanges
	}
	began, version := l.acks.now(), p.Version+partition.MembershipVersion(c.t.rng.IntN(changes+1))
	if err := c.alter(ctx, tableName, replicas); err != nil {
		return err
	}
	if err := c.awaitVersion(ctx, version, replicas); err != nil {
		return err
	}
	if err := pause(ctx, time.Duration(c.t.rng.IntN(20))*time.Millisecond); err != nil {
		return err
	}
	n, p, err := c.master(ctx, tableName)
	if err != nil {
		return err
	}
	s.struck[fmt.Sprintf("to %d: %s", replicas, phase(p, replicas))]++
	killed := l.acks.now()
	n.kill()
	acked, err := firstAck(ctx, l, l.acks.now())
	if err != nil {
		return fmt.Errorf("after the kill of %s (%s): %w", n.name, sketch(p), err)
	}
	s.back = append(s.back, acked-killed)
	s.gaps = append(s.gaps, l.acks.longestGap(killed, acked))
	if err := n.start(); err != nil {
		return err
	}
	if err := c.awaitReady(ctx, n); err != nil {
		return err
	}
	if err := c.awaitWhole(ctx, tableName, replicas); err != nil {
		return err
	}
	took := l.acks.now() - began
	s.took[replicas] = append(s.took[replicas], took)
	c.t.tell("%d replicas after %s; %s killed after %s (%s), next write after %s", replicas, took, n.name, killed-began, phase(p, replicas), acked-killed)
	if err := c.look(ctx, tableName, s.ledger); err != nil {
		return err
	}
	return c.sameVersion(ctx, s.ledger)
}

// awaitVersion waits until the table has a version, or is as it shall be.
func (c *cluster) awaitVersion(ctx context.Context, v partition.MembershipVersion, replicas int) error {
	_, err := c.awaitPartition(ctx, tableName, fmt.Sprintf("version %d", v), func(p actors.PartitionInfo) bool {
		return p.Version >= v || whole(p, replicas, 0) == nil
	})
	return err
}

// phase says how far a change of the members is.
func phase(p actors.PartitionInfo, replicas int) string {
	learners, ineligible := 0, 0
	for _, r := range p.Replicas {
		switch {
		case r.Kind == "learner":
			learners++
		case !r.Eligible:
			ineligible++
		}
	}
	switch {
	case whole(p, replicas, 0) == nil:
		return "done"
	case learners > 0:
		return fmt.Sprintf("%d members, %d of them learners", len(p.Replicas), learners)
	case ineligible > 0:
		return fmt.Sprintf("%d members, %d of them ineligible", len(p.Replicas), ineligible)
	}
	return fmt.Sprintf("%d members", len(p.Replicas))
}

// sameVersion wants every node to tell the configuration that the logs end with.
// They may tell of one before it is known to be committed.
func (c *cluster) sameVersion(ctx context.Context, l *ledger) error {
	err := await(ctx, caughtUpWait, "every node tells the same configuration", func(ctx context.Context) error {
		for _, n := range c.nodes {
			p, err := n.api().Partition(ctx, l.group)
			if err != nil {
				return err
			}
			if len(l.configs) == 0 || p.Version > l.configs[len(l.configs)-1].Version {
				if err := c.look(ctx, tableName, l); err != nil {
					return err
				}
			}
			if err := l.agrees(p); err != nil {
				return fmt.Errorf("%s: %w", n.name, err)
			}
		}
		return nil
	})
	if err != nil {
		c.t.violate("%v", err)
	}
	return ctx.Err()
}

// agrees wants a partition to be told as the newest configuration in the logs has it.
func (l *ledger) agrees(p actors.PartitionInfo) error {
	if len(l.configs) == 0 {
		return errors.New("no log has a configuration")
	}
	want := l.configs[len(l.configs)-1]
	same := p.Version == want.Version && len(want.Members) == len(p.Replicas)
	for _, r := range p.Replicas {
		m, ok := want.Member(r.Replica)
		same = same && ok && m.Node == r.Node && m.Kind.String() == r.Kind && m.Eligible == r.Eligible
	}
	if !same {
		return fmt.Errorf("what is told is not version %d at %s of the logs, %v: %s", want.Version, want.at, want.Members, sketch(p))
	}
	return nil
}

func (c *cluster) reportSteps(s *steps) error {
	c.t.row("rounds", "%d judged, each to %d replicas and back to %d, with the master killed in both steps", s.roundsJudged, large, small)
	for _, n := range []int{large, small} {
		c.t.row(fmt.Sprintf("to %d replicas", n), "%s", s.took[n])
	}
	c.t.row("time to write", "%s (from kill -9 until the first acknowledgement of a write begun after it)", s.back)
	c.t.row("longest gap", "%s", s.gaps)
	c.t.rowCounts("struck while", s.struck)
	c.t.row("configurations", "%s", s.ledger)
	if len(s.ledger.configs) < 2 {
		c.t.violate("the logs tell of no change of the members")
	}
	return nil
}
