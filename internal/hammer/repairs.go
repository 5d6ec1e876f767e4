package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"pando.dev/pando/actors"
	"pando.dev/pando/partition"
)

const (
	// rotBehind is how many keys behind the damaged one, at most, the log still
	// holds: so few that the state has not outlived them.
	rotBehind = 400
	// runOn is how long a node runs on after its disk was copied.
	runOn = 3 * time.Second
)

// repair is one kind of damage: what is done to a stopped node's disk.
type repair struct {
	name  string
	words []string // of which the node says one when it finds the damage
	do    func(ctx context.Context, c *cluster, n *node, l *load) (where string, err error)
}

func repairKinds() []repair {
	return []repair{
		{"log", []string{"records lost on disk", "corrupt"}, rotLog},
		{"state", []string{"corrupt", "damage"}, rotState},
		{"rolled back", []string{"old copy of the node's disk", "older copy"}, rollBack},
	}
}

// repaired is what the repairs measure.
type repaired struct {
	took   map[string]times // until the table was whole, by kind
	writes *load
}

// repairs damages a stopped node's disk, in several ways, under load. The node
// must start, say what it found, never answer wrongly, and get a new replica from
// its peers by itself.
func repairs(ctx context.Context, t *trial) error {
	c, err := t.newCluster("n", 4, 3)
	if err != nil {
		return err
	}
	c.smallDisks()
	c.nodes[3].expect = 0 // its disk is rolled back, which a seat must not be
	if err := c.up(ctx); err != nil {
		return err
	}
	if err := c.createTable(ctx, tableName, "--replicas", "3", "--on", ids(c.nodes[1:])); err != nil {
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
	v, err := c.verify(ctx, l.stores[0], written)
	if err != nil {
		return err
	}
	defer v.stop()
	r := &repaired{took: map[string]times{}, writes: l}
	kinds := repairKinds()
	err = c.repairRounds(ctx, r, kinds)
	v.stop()
	v.report()
	if err != nil {
		return err
	}
	for _, k := range kinds {
		t.row(k.name, "whole again %s (from the start of the damaged node)", r.took[k.name])
	}
	if err := t.judged(ctx, l); err != nil {
		return err
	}
	return c.compareHolders(ctx, tableName, l.stores[0])
}

func (c *cluster) repairRounds(ctx context.Context, r *repaired, kinds []repair) error {
	for i := range c.t.rounds(6, 3) {
		k := kinds[i%len(kinds)]
		if err := c.repairOnce(ctx, r, k, i/len(kinds)%2 == 1); err != nil {
			return fmt.Errorf("round %d, %s: %w", i+1, k.name, err)
		}
	}
	return nil
}

// repairOnce damages one node's disk while it is down.
func (c *cluster) repairOnce(ctx context.Context, r *repaired, k repair, asMaster bool) error {
	if err := c.awaitWhole(ctx, tableName, small); err != nil {
		return err
	}
	_, p, err := c.master(ctx, tableName)
	if err != nil {
		return err
	}
	n := c.nodes[3]
	if asMaster {
		if err := c.awaitMaster(ctx, tableName, p.Group, n.id); err != nil {
			return err
		}
	}
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	old, ok := replicaOn(p, n.id)
	if !ok {
		return fmt.Errorf("%s holds no replica: %s", n.name, sketch(p))
	}
	n.kill()
	where, err := k.do(ctx, c, n, r.writes)
	if err != nil {
		return err
	}
	began := r.writes.acks.now()
	printed, err := c.startDamaged(ctx, n)
	if err != nil {
		return err
	}
	shown, err := c.awaitReplaced(ctx, n, old)
	if err != nil {
		return fmt.Errorf("%s: %w; it printed: %s", where, err, n.proc.printed())
	}
	took := r.writes.acks.now() - began
	r.took[k.name] = append(r.took[k.name], took)
	c.t.tell("%s at %s: whole after %s", k.name, where, took)
	c.says(n, k, where, printed, shown)
	return nil
}

// startDamaged starts a node whose disk is not what it was, and returns what the
// processes print that it takes: one that learns that its disk is old ends, and
// whoever looks after it starts it again.
func (c *cluster) startDamaged(ctx context.Context, n *node) (logs []string, err error) {
	var ended *endedError
	for range 2 {
		if err := n.start(); err != nil {
			return nil, err
		}
		logs = append(logs, n.proc.log)
		if err = c.awaitReady(ctx, n); !errors.As(err, &ended) {
			return logs, err
		}
		c.t.tell("%s ended, and is started again", n.name)
	}
	return logs, err
}

func replicaOn(p actors.PartitionInfo, id partition.NodeID) (partition.ReplicaID, bool) {
	i := slices.IndexFunc(p.Replicas, func(r actors.ReplicaInfo) bool { return r.Node == id })
	if i < 0 {
		return 0, false
	}
	return p.Replicas[i].Replica, true
}

// awaitReplaced waits until the table is whole with another replica on the node,
// and returns what was shown of the old one meanwhile.
func (c *cluster) awaitReplaced(ctx context.Context, n *node, old partition.ReplicaID) (shown string, err error) {
	_, err = c.awaitPartition(ctx, tableName, fmt.Sprintf("replica %d on %s is replaced", old, n.name), func(p actors.PartitionInfo) bool {
		for _, r := range p.Replicas {
			if r.Replica == old && r.Why != "" {
				shown = r.Role + ": " + r.Why
			}
		}
		now, ok := replicaOn(p, n.id)
		return ok && now > old && whole(p, small, 0) == nil
	})
	if err != nil {
		return shown, err
	}
	return shown, c.awaitWhole(ctx, tableName, small)
}

// says wants the node to have printed what it found. What the partition showed
// meanwhile is told, too; a repair may be over before anybody looks.
func (c *cluster) says(n *node, k repair, where string, logs []string, shown string) {
	var b []byte
	for _, path := range logs {
		one, err := os.ReadFile(path)
		if err != nil {
			c.t.violate("read what %s printed: %v", n.name, err)
		}
		b = append(b, one...)
	}
	line := ""
	for _, word := range k.words {
		if line == "" {
			line = lineWith(string(b), word)
		}
	}
	c.t.row(k.name, "%s; it printed: %.200s", where, line)
	if shown == "" {
		shown = "nothing, the replica was replaced before anybody looked"
	}
	c.t.row(k.name, "shown meanwhile: %.200s", shown)
	if line == "" {
		c.t.violate("%s: %s did not print what it found (any of %q)", where, n.name, k.words)
	}
}

// rotLog changes a byte of a record near the end of the log, but with enough
// behind it that it cannot be a torn write. The record is found by the key of a
// probe: a segment may hold older ones behind its end.
func rotLog(_ context.Context, c *cluster, n *node, l *load) (string, error) {
	segments, err := filepath.Glob(filepath.Join(n.dir, "wal", "*.wal"))
	if err != nil {
		return "", err
	}
	slices.Sort(segments)
	latest := int(l.probed.Load()) - rotBehind/4 - c.t.rng.IntN(rotBehind/4)
	for _, path := range slices.Backward(segments) {
		b, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		for probe := latest; probe > latest-rotBehind; probe-- {
			if at := bytes.Index(b, fmt.Appendf(nil, "%s%08d", probeList, probe)); at >= 0 {
				return flipAt(path, int64(at))
			}
		}
	}
	return "", fmt.Errorf("no log segment of %s holds the probes from before %d", n.name, latest)
}

// rotState changes a byte of a value in the largest file of the state.
func rotState(_ context.Context, c *cluster, n *node, _ *load) (string, error) {
	files, err := filepath.Glob(filepath.Join(n.dir, "stores", "*", "*", "*.sst"))
	if err != nil {
		return "", err
	}
	var largest string
	size := int64(0)
	for _, path := range files {
		info, err := os.Stat(path)
		if err != nil {
			return "", err
		}
		if info.Size() > size {
			largest, size = path, info.Size()
		}
	}
	if size < fillValueBytes {
		return "", fmt.Errorf("%s has no state on disk to damage: %d files, the largest of %d bytes", n.name, len(files), size)
	}
	return flipAt(largest, size/10+c.t.rng.Int64N(size*6/10))
}

// flipAt changes the byte at an offset.
func flipAt(path string, at int64) (string, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	b := make([]byte, 1)
	_, err = f.ReadAt(b, at)
	if err == nil {
		b[0] ^= 0xff
		_, err = f.WriteAt(b, at)
	}
	return fmt.Sprintf("byte %d of %s", at, filepath.Base(path)), errors.Join(err, f.Sync(), f.Close())
}

// rollBack copies the node's disk, lets the node run on, and puts the copy back.
func rollBack(ctx context.Context, c *cluster, n *node, _ *load) (string, error) {
	copied := filepath.Join(c.t.dir, fmt.Sprintf("%s.copy%d", n.name, n.starts))
	if err := os.CopyFS(copied, os.DirFS(n.dir)); err != nil {
		return "", fmt.Errorf("copy a data directory: %w", err)
	}
	if err := n.start(); err != nil {
		return "", err
	}
	if err := c.awaitReady(ctx, n); err != nil {
		return "", err
	}
	if err := c.awaitCaughtUp(ctx, tableName); err != nil {
		return "", err
	}
	if err := pause(ctx, runOn); err != nil {
		return "", err
	}
	n.kill()
	if err := os.RemoveAll(n.dir); err != nil {
		return "", err
	}
	return fmt.Sprintf("the disk of over %s before", runOn), os.Rename(copied, n.dir)
}
