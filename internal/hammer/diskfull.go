package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"pando.dev/pando/actors/client"
	"pando.dev/pando/partition"
)

const (
	// smallBytes is what a node has that is to fill up, ballastBytes of it lie
	// on the disk until space is to come back. largeBytes is enough for
	// fillBytes, the most that is written to fill the rest.
	smallBytes   = 160 << 20
	ballastBytes = 48 << 20
	largeBytes   = 640 << 20
	fillBytes    = 128 << 20
	// fillValueBytes is the size of each value.
	fillValueBytes = 64 << 10
)

// diskFull fills the disk of all nodes, so that nobody can take a write; reads
// must go on, writes must be refused for what it is, and go on by themselves
// when there is space again. Then the same with the disk of the master's node only;
// there writes may go on.
func diskFull(ctx context.Context, t *trial) error {
	if os.Geteuid() != 0 || runtime.GOOS != "linux" {
		t.row("skipped", "mounting a small disk (tmpfs) wants root on Linux")
		return nil
	}
	for _, full := range []int{3, 1} {
		if err := t.diskFullOnce(ctx, full); err != nil {
			return fmt.Errorf("with the disks of %d nodes full: %w", full, err)
		}
	}
	return nil
}

// mountDisk mounts a disk of that size on a directory.
func mountDisk(ctx context.Context, dir string, size int) (unmount func() error, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if msg, err := exec.CommandContext(ctx, "mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%d", size), "tmpfs", dir).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("mount a disk: %w: %s", err, strings.TrimSpace(string(msg)))
	}
	return func() error {
		msg, err := exec.Command("umount", dir).CombinedOutput()
		if err != nil {
			return fmt.Errorf("unmount a disk: %w: %s", err, strings.TrimSpace(string(msg)))
		}
		return nil
	}, nil
}

func (t *trial) diskFullOnce(ctx context.Context, full int) (err error) {
	c, err := t.newCluster(fmt.Sprintf("f%d", full), 3, 3)
	if err != nil {
		return err
	}
	size := smallBytes
	if full < len(c.nodes) {
		size = largeBytes
	}
	for _, n := range c.nodes {
		n.flags = append(n.flags, "--wal-segment-bytes", fmt.Sprint(4<<20), "--memory-bytes", fmt.Sprint(8<<20))
		unmount, err := mountDisk(ctx, n.dir, size)
		if err != nil {
			return err
		}
		defer func() {
			if n.proc != nil {
				n.kill()
			}
			if e := unmount(); e != nil {
				t.violate("%v", e)
			}
		}()
	}
	if err := c.up(ctx); err != nil {
		return err
	}
	if err := c.createTable(ctx, tableName); err != nil {
		return err
	}
	victims := c.nodes
	if full < len(c.nodes) {
		n, _, err := c.master(ctx, tableName)
		if err != nil {
			return err
		}
		victims = []*node{n}
	}
	var ballasts []string
	for _, n := range victims {
		ballast := filepath.Join(n.dir, "ballast")
		if err := os.WriteFile(ballast, make([]byte, size-smallBytes+ballastBytes), 0o600); err != nil {
			return err
		}
		ballasts = append(ballasts, ballast)
	}
	s, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer s.close()
	return t.fillDisk(ctx, c, s, full, ballasts)
}

// fillDisk writes until it is refused, or to the end if most nodes have space.
func (t *trial) fillDisk(ctx context.Context, c *cluster, s *table, full int, ballasts []string) error {
	what := fmt.Sprintf("%d of 3 disks full", full)
	written, err := fillTable(ctx, s, fillBytes/fillValueBytes)
	t.row(what, "%d values of 64 KiB written, then: %v", len(written), err)
	if errors.Is(err, partition.ErrUnknown) {
		// It was on its way when the first disk was full. The next one is not.
		err = bounded(ctx, func(ctx context.Context) error { return s.put(ctx, "next", "must be refused") })
		t.row(what, "the next one: %v", err)
	}
	if !errors.Is(err, partition.ErrNoSpace) && (full == 3 || err != nil) {
		t.violate("%s: writes were not refused for lack of space but: %v", what, err)
	}
	if err := t.readWhileFull(ctx, s, written); err != nil {
		t.violate("%s: reads do not go on: %v", what, err)
	}
	t.tell("%s: freeing space", what)
	for _, b := range ballasts {
		if err := os.Remove(b); err != nil {
			return err
		}
	}
	freed := time.Now()
	err = await(ctx, 30*time.Second, "writes go on after space was freed", func(ctx context.Context) error {
		return bounded(ctx, func(ctx context.Context) error { return s.put(ctx, "after", "freed") })
	})
	if err != nil {
		t.violate("%s: %v", what, err)
	}
	t.row(what, "writes %s after space was freed, without a restart: %v", time.Since(freed).Round(time.Millisecond), err == nil)
	for _, n := range c.nodes {
		if n.proc.ended() {
			t.violate("%s: %s ended: %s", what, n.name, n.proc.printed())
		}
	}
	return readFilled(ctx, s, written)
}

// fillTable writes so many incompressible values, or until one is refused, and
// returns the seeds of those acknowledged.
func fillTable(ctx context.Context, s *table, n int) (written []int, err error) {
	for i := range n {
		if err := bounded(ctx, func(ctx context.Context) error { return s.put(ctx, fillKey(i), fillValue(i)) }); err != nil {
			return written, err
		}
		written = append(written, i)
	}
	return written, nil
}

// readWhileFull reads everything, and then one value after the other for as long
// as the disk shall stay full.
func (t *trial) readWhileFull(ctx context.Context, s *table, written []int) error {
	if err := readFilled(ctx, s, written); err != nil {
		return err
	}
	began := time.Now()
	for i := 0; time.Since(began) < t.opts.pause; i++ {
		if err := readFilled(ctx, s, written[i%len(written):][:1]); err != nil {
			return fmt.Errorf("after %s: %w", time.Since(began).Round(time.Millisecond), err)
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// bounded gives an operation a few seconds.
func bounded(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return do(ctx)
}

func fillKey(i int) string { return fmt.Sprintf("fill%06d", i) }

func fillValue(i int) string {
	rng := rand.NewChaCha8([32]byte{byte(i), byte(i >> 8)})
	b := make([]byte, fillValueBytes)
	_, _ = rng.Read(b) // it never fails
	return string(b)
}

func readFilled(ctx context.Context, s *table, written []int) error {
	for _, i := range written {
		var got string
		err := bounded(ctx, func(ctx context.Context) (err error) {
			got, err = s.get(ctx, fillKey(i), client.Lease)
			return err
		})
		if err != nil {
			return fmt.Errorf("read %s: %w", fillKey(i), err)
		}
		if got != fillValue(i) {
			return fmt.Errorf("%s holds %d other bytes than were written", fillKey(i), len(got))
		}
	}
	return nil
}
