package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// controlDown takes the control group's majority away from a table that lies on
// other nodes: first by stopping the processes, then by killing them.
func controlDown(ctx context.Context, t *trial) error {
	c, err := t.newCluster("n", 6, 3)
	if err != nil {
		return err
	}
	if err := c.up(ctx); err != nil {
		return err
	}
	seats, others, err := c.seats(ctx)
	if err != nil {
		return err
	}
	if err := c.createTable(ctx, tableName, "--on", ids(others)); err != nil {
		return err
	}
	l, err := c.startLoad(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	if err := pause(ctx, 3*time.Second); err != nil {
		return err
	}
	for _, how := range []string{"stopped", "killed"} {
		if err := c.controlDownOnce(ctx, l, how, seats[:2], others); err != nil {
			return fmt.Errorf("with the control group %s: %w", how, err)
		}
	}
	l.stop()
	t.row("load", "%d clients, %d acknowledged writes", t.opts.clients, l.acks.count(0, l.acks.now()))
	return t.judge(ctx, l, l.stores[0])
}

func ids(nodes []*node) string {
	var s []string
	for _, n := range nodes {
		s = append(s, string(n.id))
	}
	return strings.Join(s, ",")
}

// seats tells the nodes with a seat of the control group, its leader first, from
// those without.
func (c *cluster) seats(ctx context.Context) (seats, others []*node, err error) {
	err = await(ctx, readyWait, "the control group has three seats and a leader", func(ctx context.Context) error {
		s, err := c.status(ctx)
		if err != nil {
			return err
		}
		seats, others = nil, nil
		for _, n := range c.nodes {
			switch {
			case n.id == s.Control.Leader:
				seats = slices.Insert(seats, 0, n)
			case slices.Contains(s.Control.Seats, n.id):
				seats = append(seats, n)
			default:
				others = append(others, n)
			}
		}
		if len(seats) != 3 || seats[0].id != s.Control.Leader {
			return fmt.Errorf("seats %v, leader %q: %s", s.Control.Seats, s.Control.Leader, s.Control.State)
		}
		return nil
	})
	return seats, others, err
}

// controlDownOnce takes the nodes away for a while. Meanwhile the table must be
// written and read as before, by the same master.
func (c *cluster) controlDownOnce(ctx context.Context, l *load, how string, victims, others []*node) error {
	_, before, err := c.master(ctx, tableName)
	if err != nil {
		return err
	}
	calmFrom := l.acks.now()
	if err := pause(ctx, 3*time.Second); err != nil {
		return err
	}
	from := l.acks.now()
	c.t.row(how, "before: %.0f acknowledged writes/s", float64(l.acks.count(calmFrom, from))/(from-calmFrom).Seconds())
	if err := take(victims, how); err != nil {
		return err
	}
	err = pause(ctx, c.t.opts.down)
	to := l.acks.now()
	asked := (&cluster{t: c.t, nodes: others}).control(ctx)
	if err = errors.Join(err, bring(victims, how)); err != nil {
		return err
	}
	gap := l.acks.longestGap(from, to)
	c.t.row(how, "%d of 3 seats for %s: %.0f acknowledged writes/s, longest gap %s; the control group was %q", len(victims),
		(to - from).Round(time.Second), float64(l.acks.count(from, to))/(to-from).Seconds(), gap.Round(time.Millisecond), asked)
	if asked == "ready" {
		c.t.violate("without its majority the control group is called ready")
	}
	if gap > 2*time.Second {
		c.t.violate("no write was acknowledged for %s while the control group was %s", gap, how)
	}
	if err := c.awaitReady(ctx, victims...); err != nil {
		return err
	}
	if _, _, err := c.seats(ctx); err != nil {
		return err
	}
	c.t.row(how, "the control group was back %s after its nodes", (l.acks.now() - to).Round(time.Millisecond))
	_, after, err := c.master(ctx, tableName)
	if err == nil && (after.Master != before.Master || after.Epoch != before.Epoch) {
		c.t.violate("the master changed from %s (epoch %s) to %s (epoch %s) while the control group was %s", before.Master, before.Epoch, after.Master, after.Epoch, how)
	}
	return err
}

// control is the state of the control group as the nodes see it.
func (c *cluster) control(ctx context.Context) string {
	s, err := c.status(ctx)
	if err != nil {
		return err.Error()
	}
	return s.Control.State
}

func take(nodes []*node, how string) error {
	for _, n := range nodes {
		if how == "killed" {
			n.kill()
		} else if err := n.freeze(); err != nil {
			return err
		}
	}
	return nil
}

func bring(nodes []*node, how string) error {
	var errs []error
	for _, n := range nodes {
		if how == "killed" {
			errs = append(errs, n.start())
		} else {
			errs = append(errs, n.thaw())
		}
	}
	return errors.Join(errs...)
}
