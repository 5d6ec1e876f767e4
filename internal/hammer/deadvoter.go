package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"pando.dev/pando/actors"
	"pando.dev/pando/partition"
)

// The nodes of dead-voter act sooner than usual, to keep the trial short.
const (
	logAfter     = 3 * time.Second
	replaceAfter = 15 * time.Second
)

// deadVoter kills a voter for good, waits until the group has helped itself, and
// kills another one to prove it: once when it is whole, and once while there is
// only a log replica to help: CAT-3.
func deadVoter(ctx context.Context, t *trial) error {
	for i := range t.rounds(1, 1) {
		for _, who := range []string{"peer", "master"} {
			if t.opts.short && who == "master" {
				continue
			}
			if err := t.deadVoterOnce(ctx, fmt.Sprintf("%s%d", who[:1], i+1), who); err != nil {
				return fmt.Errorf("a dead %s: %w", who, err)
			}
		}
	}
	return nil
}

// deadOnce is one trial of it.
type deadOnce struct {
	c     *cluster
	l     *load
	who   string
	gone  *node
	since time.Duration // when it was killed
}

func (t *trial) deadVoterOnce(ctx context.Context, name, who string) error {
	c, err := t.newCluster(name, 5, 3)
	if err != nil {
		return err
	}
	for i, n := range c.nodes {
		if i >= 3 {
			n.expect = 0 // the seats are on the first three, as victim believes
		}
		n.flags = append(n.flags, "--log-after", logAfter.String(), "--replace-after", replaceAfter.String())
	}
	defer c.stopAll()
	if err := c.up(ctx); err != nil {
		return err
	}
	if err := c.createTable(ctx, tableName, "--replicas", "3"); err != nil {
		return err
	}
	l, err := c.startLoad(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	written, err := fillTable(ctx, l.stores[0], t.opts.fill)
	if err != nil {
		return err
	}
	d := &deadOnce{c: c, l: l, who: who}
	if err := d.kill(ctx); err != nil {
		return err
	}
	if err := d.awaitCover(ctx); err != nil {
		return err
	}
	if who == "peer" { // otherwise the log replica has to do
		if err := d.awaitWhole(ctx); err != nil {
			return err
		}
	}
	if err := d.prove(ctx); err != nil {
		return err
	}
	if err := readFilled(ctx, l.stores[0], written); err != nil {
		t.violate("after the repair: %v", err)
	}
	return t.judged(ctx, l)
}

// stopAll ends the processes of a cluster that is not needed any more.
func (c *cluster) stopAll() {
	for _, n := range c.nodes {
		if n.proc != nil {
			n.kill()
		}
	}
}

// victim picks a replica's node, one without a seat of the control group if there
// is one, so that two seats are always left.
func (c *cluster) victim(p actors.PartitionInfo, is func(actors.ReplicaInfo) bool) (*node, error) {
	var found *node
	for _, r := range p.Replicas {
		n, err := c.byID(r.Node)
		if err != nil {
			return nil, err
		}
		if is(r) && n.running() && (found == nil || slices.Index(c.nodes, n) >= 3) {
			found = n
		}
	}
	if found == nil {
		return nil, fmt.Errorf("no replica to kill: %s", sketch(p))
	}
	return found, nil
}

// kill kills the voter.
func (d *deadOnce) kill(ctx context.Context) (err error) {
	if err := d.c.awaitWhole(ctx, tableName, small); err != nil {
		return err
	}
	_, p, err := d.c.master(ctx, tableName)
	if err != nil {
		return err
	}
	if d.gone, err = d.c.victim(p, func(r actors.ReplicaInfo) bool { return (r.Node == p.Master) == (d.who == "master") }); err != nil {
		return err
	}
	d.since = d.l.acks.now()
	d.gone.kill()
	at, err := firstAck(ctx, d.l, d.l.acks.now())
	if err != nil {
		return err
	}
	d.c.t.row("dead "+d.who, "%s, killed for good with %d MiB in the table; the next write after %s", d.gone.name,
		d.c.t.opts.fill*fillValueBytes>>20, seconds(at-d.since))
	return nil
}

// awaitCover waits until the group survives another loss, by a log replica.
func (d *deadOnce) awaitCover(ctx context.Context) error {
	p, err := d.c.awaitPartition(ctx, tableName, "the group survives another loss", func(p actors.PartitionInfo) bool {
		return p.CanLose >= 1
	})
	if err != nil {
		return err
	}
	took := d.l.acks.now() - d.since
	d.c.t.row("dead "+d.who, "survives another loss after %s (a voter counts as gone after %s): %s", seconds(took), logAfter, sketch(p))
	if !slices.ContainsFunc(p.Replicas, func(r actors.ReplicaInfo) bool { return r.Kind == partition.LogReplica.String() }) {
		d.c.t.violate("it does so without a log replica: %s", sketch(p))
	}
	if took > replaceAfter {
		d.c.t.violate("it took longer than %s, after which a copy replaces the dead one anyhow", replaceAfter)
	}
	return nil
}

// awaitWhole waits until three full replicas are there, none of them on the dead
// node.
func (d *deadOnce) awaitWhole(ctx context.Context) error {
	p, err := d.c.awaitPartition(ctx, tableName, "the group is whole without the dead node", func(p actors.PartitionInfo) bool {
		return whole(p, small, 0) == nil && !slices.ContainsFunc(p.Replicas, func(r actors.ReplicaInfo) bool { return r.Node == d.gone.id })
	})
	if err != nil {
		return err
	}
	d.c.t.row("dead "+d.who, "whole after %s (replaced after %s): %s", seconds(d.l.acks.now()-d.since), replaceAfter, sketch(p))
	return d.c.awaitWhole(ctx, tableName, small)
}

// prove kills another full replica, the master if two seats of the control group
// are left then, and writes must go on.
func (d *deadOnce) prove(ctx context.Context) error {
	_, p, err := d.c.master(ctx, tableName)
	if err != nil {
		return err
	}
	seats := 0
	for _, n := range d.c.nodes[:3] {
		if n.running() {
			seats++
		}
	}
	may := func(r actors.ReplicaInfo) bool {
		n, err := d.c.byID(r.Node)
		return err == nil && r.Kind == partition.Full.String() && (seats == 3 || slices.Index(d.c.nodes, n) >= 3)
	}
	n, err := d.c.victim(p, func(r actors.ReplicaInfo) bool { return may(r) && r.Node == p.Master })
	if err != nil {
		n, err = d.c.victim(p, may)
	}
	if err != nil {
		return err
	}
	killed := d.l.acks.now()
	n.kill()
	at, err := firstAck(ctx, d.l, d.l.acks.now())
	if err != nil {
		return fmt.Errorf("another voter, %s, was killed: %w", n.name, err)
	}
	d.c.t.row("dead "+d.who, "another voter (master: %v) killed: the next write after %s", n.id == p.Master, seconds(at-killed))
	return nil
}
