package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"pando.dev/pando/actors"
)

const (
	// pairAway is how long one of the pair is away, pairHeld how long the
	// control group is as well, without which nobody may go on alone.
	pairAway  = 4 * time.Second
	pairHeld  = 4 * time.Second
	pairGrace = time.Second
)

// alone is what pairs measures.
type alone struct {
	granted, back times // until writes go on alone; until both are in sync again
	cut           times // longest gap when the two were cut from each other
}

// pairs has two replicas that must both have every write. Each is taken away, in
// two ways, while it is master and while it is not: writes stop until the control
// group has granted the other one to go on alone.
func pairs(ctx context.Context, t *trial) error {
	c, err := t.newCluster("n", 3, 3)
	if err != nil {
		return err
	}
	w, err := c.wire()
	if err != nil {
		return err
	}
	defer w.close()
	if err := c.up(ctx); err != nil {
		return err
	}
	if _, _, err := c.seats(ctx); err != nil {
		return err
	}
	if err := c.createTable(ctx, tableName, "--replicas", "2", "--policy", "all-in-sync", "--on", ids(c.nodes[:2])); err != nil {
		return err
	}
	l, err := c.startLoad(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	if err := c.awaitWhole(ctx, tableName, 2); err != nil {
		return err
	}
	var a alone
	for i := range t.rounds(1, 1) {
		for _, how := range []string{"killed", "stopped"} {
			for _, who := range []string{"peer", "master"} {
				if err := c.pairOnce(ctx, l, &a, who, how); err != nil {
					return fmt.Errorf("round %d, the %s %s: %w", i+1, who, how, err)
				}
			}
		}
		if err := c.pairCut(ctx, l, w, &a, i); err != nil {
			return fmt.Errorf("round %d, cut from each other: %w", i+1, err)
		}
		if err := c.noGrant(ctx, l); err != nil {
			return fmt.Errorf("round %d, without the control group: %w", i+1, err)
		}
	}
	t.row("alone", "%s (from the loss of one until the first acknowledgement of a write begun after it)", a.granted)
	t.row("cut from each other", "longest gap %s", a.cut)
	t.row("in sync again", "%s (from the restart or SIGCONT)", a.back)
	if err := t.judged(ctx, l); err != nil {
		return err
	}
	return c.compareHolders(ctx, tableName, l.stores[0])
}

// pair is the master's node and the other one.
func (c *cluster) pair(ctx context.Context) (master, peer *node, p actors.PartitionInfo, err error) {
	master, p, err = c.master(ctx, tableName)
	if err != nil {
		return nil, nil, p, err
	}
	for _, n := range c.nodes[:2] {
		if n != master {
			peer = n
		}
	}
	return master, peer, p, nil
}

// pairOnce takes one of the two away for a while, and brings it back.
func (c *cluster) pairOnce(ctx context.Context, l *load, a *alone, who, how string) error {
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	master, peer, before, err := c.pair(ctx)
	if err != nil {
		return err
	}
	victim, other := peer, master
	if who == "master" {
		victim, other = master, peer
	}
	from := l.acks.now()
	if err := take([]*node{victim}, how); err != nil {
		return err
	}
	at, err := firstAck(ctx, l, l.acks.now())
	if err != nil {
		return errors.Join(err, bring([]*node{victim}, how))
	}
	a.granted = append(a.granted, at-from)
	now, p, err := c.master(ctx, tableName)
	if err == nil && now != other {
		c.t.violate("%s was %s, and %s is master: %s", victim.name, how, now.name, sketch(p))
	}
	err = errors.Join(err, pause(ctx, pairAway))
	thawed := l.acks.now()
	if err := errors.Join(err, bring([]*node{victim}, how)); err != nil {
		return err
	}
	if err := c.awaitReady(ctx, victim); err != nil {
		return err
	}
	if err := c.awaitWhole(ctx, tableName, 2); err != nil {
		return err
	}
	a.back = append(a.back, l.acks.now()-thawed)
	c.t.tell("%s %s (%s): alone after %s, in sync again %s after its return; %s", who, victim.name, how, at-from, a.back[len(a.back)-1], sketch(before))
	return nil
}

// pairCut cuts the two from each other, while both reach the control group and
// the clients: at most one of them may go on. Clients that know one of the two
// alone must not read from the past.
func (c *cluster) pairCut(ctx context.Context, l *load, w *network, a *alone, round int) error {
	master, peer, _, err := c.pair(ctx)
	if err != nil {
		return err
	}
	s := &stops{quorum: true}
	for i, n := range []*node{master, peer} {
		release, err := c.pin(ctx, l, n, s, 2*round+i)
		if err != nil {
			return err
		}
		defer release()
	}
	from := l.acks.now()
	w.cut(master.name, peer.name)
	at, err := firstAck(ctx, l, from+pairGrace)
	if err != nil {
		return err
	}
	a.cut = append(a.cut, l.acks.longestGap(from, at))
	alone, p, err := c.master(ctx, tableName)
	if err := errors.Join(err, pause(ctx, pairAway)); err != nil {
		return err
	}
	mended := l.acks.now()
	w.mend(master.name, peer.name)
	if err := c.awaitWhole(ctx, tableName, 2); err != nil {
		return err
	}
	a.back = append(a.back, l.acks.now()-mended)
	c.t.tell("cut from each other: %s goes on after %s, in sync again %s after the mending; %s", alone.name, a.cut[len(a.cut)-1], a.back[len(a.back)-1], sketch(p))
	return nil
}

// noGrant takes the peer and the third node away: the control group has no
// majority, so nobody may grant anything, and the master must not go on alone.
// When the third node is back it may.
func (c *cluster) noGrant(ctx context.Context, l *load) error {
	master, peer, _, err := c.pair(ctx)
	if err != nil {
		return err
	}
	third := c.nodes[2]
	if err := take([]*node{third, peer}, "stopped"); err != nil {
		return err
	}
	from := l.acks.now()
	err = pause(ctx, pairHeld)
	to := l.acks.now()
	if err := errors.Join(err, third.thaw()); err != nil {
		return errors.Join(err, peer.thaw())
	}
	if n := l.acks.count(from+pairGrace, to); n > 0 {
		c.t.violate("%d writes were acknowledged by %s alone, without a grant", n, master.name)
	}
	at, err := firstAck(ctx, l, to)
	if err := errors.Join(err, peer.thaw()); err != nil {
		return err
	}
	c.t.row("no grant", "no write for %s without the control group, the next %s after its majority was back, with the peer still away",
		pairHeld-pairGrace, seconds(at-to))
	if err := c.awaitReady(ctx, third, peer); err != nil {
		return err
	}
	return c.awaitWhole(ctx, tableName, 2)
}
