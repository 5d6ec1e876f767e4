package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"pando.dev/pando/actors"
	"pando.dev/pando/partition"
)

const (
	// wholeWait bounds the wait for a table to have the replicas it should have,
	// copies included.
	wholeWait = 90 * time.Second
	// operatorWait bounds one command of the operator.
	operatorWait = 20 * time.Second
)

// smallDisks gives the nodes small log segments and little memory, so that state is
// flushed and the log given up after a few MiB.
func (c *cluster) smallDisks() {
	for _, n := range c.nodes {
		n.flags = append(n.flags, "--wal-segment-bytes", strconv.Itoa(4<<20), "--memory-bytes", strconv.Itoa(8<<20))
	}
}

// operate runs a command of the operator against all nodes that can be asked, and
// wants exit code 0.
func (c *cluster) operate(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*operatorWait)
	defer cancel()
	return c.t.must(ctx, append(args, "--addr", c.https(), "--timeout", operatorWait.String())...)
}

// alter tells a table to have that many replicas.
func (c *cluster) alter(ctx context.Context, table string, replicas int) error {
	_, err := c.operate(ctx, "table", "alter", table, "--replicas", strconv.Itoa(replicas))
	return err
}

// transfer hands a partition's mastership to a node, or to whoever is best for "".
func (c *cluster) transfer(ctx context.Context, g partition.GroupID, to partition.NodeID) error {
	args := []string{"partition", "transfer-master", g.String()}
	if to != "" {
		args = append(args, "--to", string(to))
	}
	_, err := c.operate(ctx, args...)
	return err
}

// show is what partition show prints, for people and for programs, as one node
// tells it.
func (c *cluster) show(ctx context.Context, n *node, g partition.GroupID) (text string, p actors.PartitionInfo, err error) {
	args := []string{"partition", "show", g.String(), "--addr", n.http, "--timeout", "5s"}
	if text, err = c.t.must(ctx, args...); err != nil {
		return "", p, err
	}
	out, err := c.t.must(ctx, append(args, "-o", "json")...)
	if err == nil {
		err = json.Unmarshal([]byte(out), &p)
	}
	return text, p, err
}

// sketch is a partition in one line, for messages about what was waited for in
// vain.
func sketch(p actors.PartitionInfo) string {
	s := fmt.Sprintf("%s version %d, can lose %d:", p.Group, p.Version, p.CanLose)
	for _, r := range p.Replicas {
		s += fmt.Sprintf(" [%d on %s %s %s", r.Replica, r.Node, r.Kind, r.Role)
		if !r.Eligible {
			s += " ineligible"
		}
		if r.Why != "" {
			s += ": " + r.Why
		}
		s += "]"
	}
	return s
}

// whole returns nil if the partition has exactly that many replicas, all full,
// eligible, following and having the target, and otherwise what is missing.
func whole(p actors.PartitionInfo, replicas int, target partition.Index) error {
	ok := p.Master != "" && len(p.Replicas) == replicas && behind(p, target) == nil
	for _, r := range p.Replicas {
		ok = ok && r.Eligible && r.Kind == partition.Full.String()
	}
	if !ok {
		return fmt.Errorf("not %d full eligible voters with %d records: %s", replicas, target, sketch(p))
	}
	return nil
}

// awaitWhole waits until every partition of a table is whole, with what was
// committed when the wait began.
func (c *cluster) awaitWhole(ctx context.Context, table string, replicas int) error {
	targets := map[partition.GroupID]partition.Index{}
	return await(ctx, wholeWait, fmt.Sprintf("table %s has %d replicas", table, replicas), func(ctx context.Context) error {
		ps, err := c.partitions(ctx, table)
		if err != nil {
			return err
		}
		for _, p := range ps {
			if p.Master != "" && targets[p.Group] == 0 {
				targets[p.Group] = p.Commit
			}
			if err := whole(p, replicas, targets[p.Group]); err != nil {
				return err
			}
		}
		return nil
	})
}

// awaitPartition waits until a table's first partition is as it should be, and
// returns it.
func (c *cluster) awaitPartition(ctx context.Context, table, what string, is func(actors.PartitionInfo) bool) (p actors.PartitionInfo, err error) {
	err = await(ctx, wholeWait, what, func(ctx context.Context) error {
		ps, err := c.partitions(ctx, table)
		if err != nil {
			return err
		}
		p = ps[0]
		if !is(p) {
			return fmt.Errorf("not yet: %s", sketch(p))
		}
		return nil
	})
	return p, err
}

// dirs lists the data directories of all nodes that were started.
func (c *cluster) dirs() []string {
	var dirs []string
	for _, n := range c.nodes {
		if n.starts > 0 {
			dirs = append(dirs, n.dir)
		}
	}
	return dirs
}

// look brings the ledgers of some of a table's groups up to date with what their
// masters say is committed.
func (c *cluster) look(ctx context.Context, table string, ledgers ...*ledger) error {
	commits := map[*ledger]partition.Index{}
	err := await(ctx, masterWait, "the groups of "+table+" have masters", func(ctx context.Context) error {
		ps, err := c.partitions(ctx, table)
		if err != nil {
			return err
		}
		for _, l := range ledgers {
			i := slices.IndexFunc(ps, func(p actors.PartitionInfo) bool { return p.Group == l.group && p.Master != "" })
			if i < 0 {
				return fmt.Errorf("%s has none: %v", l.group, sketches(ps))
			}
			commits[l] = ps[i].Commit
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := lookAt(c.dirs(), commits); err != nil {
		c.t.violate("%v", err)
	}
	return nil
}

func sketches(ps []actors.PartitionInfo) string {
	all := make([]string, len(ps))
	for i, p := range ps {
		all[i] = sketch(p)
	}
	return strings.Join(all, "; ")
}

// judged stops a load, reports and judges it.
func (t *trial) judged(ctx context.Context, l *load) error {
	l.stop()
	t.row("load", "%d clients, %d acknowledged writes", len(l.stores)-1, l.acks.count(0, l.acks.now()))
	return t.judge(ctx, l, l.stores[0])
}

// seconds prints a time for people.
func seconds(d time.Duration) string { return d.Round(10 * time.Millisecond).String() }
