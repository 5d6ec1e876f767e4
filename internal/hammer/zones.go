package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"pando.dev/pando/actors/client"
	"pando.dev/pando/partition"
)

const (
	// zonedTable has its three replicas in three zones; the usual table has two
	// in each.
	zonedTable = "zoned"
	// zoneHold is how long a zone is away.
	zoneHold = 4 * time.Second
	// zoneGrace is what the group is given to notice that zones are away, for what
	// had been sent before, and for the end of a write: the durability time-out
	// and the client's deadline.
	zoneGrace = 500 * time.Millisecond
	zoneDue   = 3 * time.Second
)

// zoned is what zones measures.
type zoned struct {
	loads map[string]*load // by table
	gaps  map[string]times // by what was done
	back  times            // after two zones were away
}

// zones takes every zone away in turn, in two ways, and then every two of the
// three at once.
func zones(ctx context.Context, t *trial) error {
	c, err := t.newCluster("n", 6, 3)
	if err != nil {
		return err
	}
	for _, n := range c.nodes[3:] {
		n.expect = 0 // one seat of the control group in each zone
	}
	if err := c.up(ctx); err != nil {
		return err
	}
	z := &zoned{loads: map[string]*load{}, gaps: map[string]times{}}
	for table, replicas := range map[string]string{tableName: "6", zonedTable: "3"} {
		if err := c.createTable(ctx, table, "--replicas", replicas, "--policy", "zones:2"); err != nil {
			return err
		}
		l, err := c.startLoadOn(ctx, target{table: table, clients: max(1, t.opts.clients/2)})
		if err != nil {
			return err
		}
		defer l.close()
		z.loads[table] = l
	}
	if err := c.oneZoneEach(ctx); err != nil {
		return err
	}
	for range t.rounds(1, 1) {
		if err := c.takeZones(ctx, z); err != nil {
			return err
		}
	}
	for what, gaps := range z.gaps {
		t.row(what, "longest time without an acknowledgement, both tables: %s", gaps)
	}
	t.row("back", "%s (from SIGCONT of two zones to the next acknowledged write)", z.back)
	for _, table := range []string{tableName, zonedTable} {
		if err := t.judged(ctx, z.loads[table]); err != nil {
			return err
		}
		if err := c.compareHolders(ctx, table, z.loads[table].stores[0]); err != nil {
			return err
		}
	}
	return nil
}

// takeZones makes one round.
func (c *cluster) takeZones(ctx context.Context, z *zoned) error {
	for _, how := range []string{"stopped", "killed"} {
		for _, zone := range []string{"a", "b", "c"} {
			if err := c.zoneAway(ctx, z, zone, how); err != nil {
				return fmt.Errorf("with zone %s %s: %w", zone, how, err)
			}
		}
	}
	for _, left := range []string{"a", "b", "c"} {
		if err := c.zoneAlone(ctx, z, left); err != nil {
			return fmt.Errorf("with zone %s alone: %w", left, err)
		}
	}
	return nil
}

// oneZoneEach wants the small table's replicas in different zones.
func (c *cluster) oneZoneEach(ctx context.Context) error {
	_, p, err := c.master(ctx, zonedTable)
	if err != nil {
		return err
	}
	zones := map[string]bool{}
	for _, r := range p.Replicas {
		zones[r.Zone] = true
	}
	if len(zones) != 3 {
		c.t.violate("three replicas lie in %d of three zones: %s", len(zones), sketch(p))
	}
	c.t.row("rule", "%s: %s", p.Policy, p.Rule)
	return nil
}

// inZone tells the nodes of a zone from the others.
func (c *cluster) inZone(zone string) (in, out []*node) {
	for _, n := range c.nodes {
		if n.zone == zone {
			in = append(in, n)
		} else {
			out = append(out, n)
		}
	}
	return in, out
}

// zoneAway takes one zone away for a while; writes must go on.
func (c *cluster) zoneAway(ctx context.Context, z *zoned, zone, how string) error {
	in, _ := c.inZone(zone)
	began := map[string]time.Duration{}
	for table, l := range z.loads {
		began[table] = l.acks.now()
	}
	if err := take(in, how); err != nil {
		return err
	}
	for table, l := range z.loads {
		if _, err := firstAck(ctx, l, began[table]+zoneGrace); err != nil {
			return errors.Join(fmt.Errorf("table %s: %w", table, err), bring(in, how))
		}
	}
	err := pause(ctx, zoneHold)
	worst := time.Duration(0)
	for table, l := range z.loads {
		worst = max(worst, l.acks.longestGap(began[table], l.acks.now()))
	}
	if err := errors.Join(err, bring(in, how)); err != nil {
		return err
	}
	z.gaps["one zone "+how] = append(z.gaps["one zone "+how], worst)
	c.t.tell("zone %s %s: longest gap %s", zone, how, worst)
	return c.settled(ctx, in, z)
}

// settled waits until all is as before.
func (c *cluster) settled(ctx context.Context, nodes []*node, z *zoned) error {
	if err := c.awaitReady(ctx, nodes...); err != nil {
		return err
	}
	for table := range z.loads {
		if err := c.awaitCaughtUp(ctx, table); err != nil {
			return err
		}
	}
	return nil
}

// zoneAlone stops the other two zones: no write may be acknowledged, each must
// end in time, and what is asked must name the zones that are missing.
func (c *cluster) zoneAlone(ctx context.Context, z *zoned, left string) error {
	in, out := c.inZone(left)
	l := z.loads[tableName]
	s, err := openTable(ctx, c.name, tableName, []string{in[0].reached(), in[1].reached()})
	if err != nil {
		return err
	}
	defer s.close()
	if err := take(out, "stopped"); err != nil {
		return err
	}
	from := l.acks.now()
	told, err := c.writeInVain(ctx, s, left)
	if err == nil {
		err = c.namesMissing(ctx, in, out, told)
	}
	to := l.acks.now()
	acked := l.acks.count(from+zoneGrace, to)
	if err := errors.Join(err, bring(out, "stopped")); err != nil {
		return err
	}
	if acked > 0 {
		c.t.violate("%d writes were acknowledged while zone %s was alone, of which two are needed", acked, left)
	}
	at, err := firstAck(ctx, l, to)
	if err != nil {
		return err
	}
	z.back = append(z.back, at-to)
	return c.settled(ctx, out, z)
}

// writeInVain writes with a deadline, which must end the write with an error that
// does not say more than is known, and returns what it said.
func (c *cluster) writeInVain(ctx context.Context, s *table, left string) (told string, err error) {
	if err := pause(ctx, zoneGrace); err != nil {
		return "", err
	}
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, zoneDue)
	defer cancel()
	err = s.put(limited, "in-vain", "zone "+left)
	took := time.Since(began)
	switch partition.CodeOf(err) {
	case partition.CodeUnknown, partition.CodeUnavailable, partition.CodeTimeout:
	case 0:
		c.t.violate("a write to zone %s alone was acknowledged", left)
		return "", nil
	default:
		c.t.violate("a write to zone %s alone ended with: %v", left, err)
	}
	if took > zoneDue+time.Second {
		c.t.violate("a write to zone %s alone ended after %s, its deadline was %s", left, took, zoneDue)
	}
	c.t.row("alone in "+left, "a write ended after %s: %.200v", took.Round(time.Millisecond), err)
	got, err := bounded1(ctx, func(ctx context.Context) (string, error) { return s.get(ctx, "in-vain", client.Lease) })
	if err == nil {
		c.t.violate("a linearizable read of zone %s alone was answered: %q", left, got)
	}
	return fmt.Sprint(err), nil
}

// bounded1 is bounded for what returns something.
func bounded1(ctx context.Context, do func(context.Context) (string, error)) (got string, err error) {
	err = bounded(ctx, func(ctx context.Context) (err error) {
		got, err = do(ctx)
		return err
	})
	return got, err
}

// namesMissing wants the nodes that are left to say, when a partition is shown or a
// write fails, which zones they miss.
func (c *cluster) namesMissing(ctx context.Context, in, out []*node, told string) error {
	zones := []string{out[0].zone, out[1].zone}
	slices.Sort(zones)
	zones = slices.Compact(zones)
	var text string
	err := await(ctx, 10*time.Second, "partition show names the zones that are missing", func(ctx context.Context) error {
		ps, err := (&cluster{t: c.t, nodes: in}).partitions(ctx, tableName)
		if err != nil {
			return err
		}
		var p = ps[0]
		if text, p, err = c.show(ctx, in[0], p.Group); err != nil {
			return err
		}
		for _, z := range zones {
			if !namesZone(text, z) && !namesZone(told, z) {
				return fmt.Errorf("zone %s is not named as missing: %s\n%s", z, text, told)
			}
		}
		return nil
	})
	if err != nil {
		c.t.violate("%v", err)
	}
	line := text
	for _, one := range strings.Split(text, "\n") {
		if namesZone(one, zones[0]) {
			line = one
			break
		}
	}
	c.t.row("says", "%.200s", line)
	return ctx.Err()
}

// namesZone reports whether a line of the text says that this zone is missing.
func namesZone(text, zone string) bool {
	named := regexp.MustCompile(`\bzone ` + regexp.QuoteMeta(zone) + `\b`)
	for _, line := range strings.Split(text, "\n") {
		_, after, ok := strings.Cut(line, "missing")
		if ok && named.MatchString(after) {
			return true
		}
	}
	return false
}
