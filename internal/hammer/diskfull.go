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
	// diskBytes is the size of the small disk, ballastBytes what lies on it
	// until space is to come back, and fillBytes the most that is written to
	// fill the rest.
	diskBytes    = 160 << 20
	ballastBytes = 48 << 20
	fillBytes    = 256 << 20
	// fillValueBytes is the size of each value.
	fillValueBytes = 64 << 10
)

// diskFull fills the disk of all nodes, so that nobody can take a write; reads
// must go on, writes must be refused for what it is, and go on by themselves
// when there is space again. Then the same with one of three nodes, which the
// others must not notice.
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

// mountSmall mounts a small disk on a directory.
func mountSmall(ctx context.Context, dir string) (unmount func() error, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if msg, err := exec.CommandContext(ctx, "mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%d", diskBytes), "tmpfs", dir).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("mount a small disk: %w: %s", err, strings.TrimSpace(string(msg)))
	}
	return func() error {
		msg, err := exec.Command("umount", dir).CombinedOutput()
		if err != nil {
			return fmt.Errorf("unmount the small disk: %w: %s", err, strings.TrimSpace(string(msg)))
		}
		return nil
	}, nil
}

func (t *trial) diskFullOnce(ctx context.Context, full int) (err error) {
	c, err := t.newCluster(fmt.Sprintf("f%d", full), 3, 3)
	if err != nil {
		return err
	}
	var ballasts []string
	for _, n := range c.nodes[:full] {
		unmount, err := mountSmall(ctx, n.dir)
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
		ballast := filepath.Join(n.dir, "ballast")
		if err := os.WriteFile(ballast, make([]byte, ballastBytes), 0o600); err != nil {
			return err
		}
		ballasts = append(ballasts, ballast)
	}
	for _, n := range c.nodes {
		n.flags = append(n.flags, "--wal-segment-bytes", fmt.Sprint(4<<20), "--memory-bytes", fmt.Sprint(8<<20))
	}
	if err := c.up(ctx); err != nil {
		return err
	}
	if err := c.createTable(ctx, tableName); err != nil {
		return err
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
	written, err := fillTable(ctx, s)
	t.row(what, "%d values of 64 KiB written, then: %v", len(written), err)
	switch {
	case full == 3 && !errors.Is(err, partition.ErrNoSpace):
		t.violate("%s: writes were not refused for lack of space but: %v", what, err)
	case full == 1 && err != nil:
		t.violate("%s: the two others did not go on taking writes: %v", what, err)
	}
	if err := readFilled(ctx, s, written); err != nil {
		t.violate("%s: reads do not go on: %v", what, err)
	}
	for _, b := range ballasts {
		if err := os.Remove(b); err != nil {
			return err
		}
	}
	freed := time.Now()
	err = await(ctx, 30*time.Second, "writes go on after space was freed", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		return s.put(ctx, "after", "freed")
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

// fillTable writes incompressible values until one is refused, at most
// fillBytes, and returns the seeds of those acknowledged.
func fillTable(ctx context.Context, s *table) (written []int, err error) {
	for i := range fillBytes / fillValueBytes {
		put, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := s.put(put, fillKey(i), fillValue(i))
		cancel()
		if err != nil {
			return written, err
		}
		written = append(written, i)
	}
	return written, nil
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
		got, err := s.get(ctx, fillKey(i), client.Lease)
		if err != nil {
			return fmt.Errorf("read %s: %w", fillKey(i), err)
		}
		if got != fillValue(i) {
			return fmt.Errorf("%s holds %d other bytes than were written", fillKey(i), len(got))
		}
	}
	return nil
}
