package actors

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"pando.dev/pando/partition"
)

// A node whose disk was put back from a copy may have forgotten what it promised
// since. Its process ends when the control group says so; the next one keeps the
// replicas silent until they are replaced.
func TestDiskPutBackFromACopy(t *testing.T) {
	fatal := make(chan error, 8)
	c := newClusterWith(t, 4, func(cfg *Config) {
		cfg.untended = true
		if cfg.NodeID == "n4" {
			cfg.Expect = 0 // no seat: only replicas
			cfg.Fatal = func(err error) { fatal <- err }
		}
	})
	g := c.group(TableSpec{Name: "t", Replicas: 3, Nodes: []partition.NodeID{"n2", "n3", "n4"}})
	write := func(from int) {
		t.Helper()
		table := c.any().Client().KV("t")
		for i := range 20 {
			if err := set(t, table, from+i); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(0)
	c.stop(3)
	saved := t.TempDir()
	if err := os.CopyFS(saved, os.DirFS(c.cfgs[3].Dir)); err != nil {
		t.Fatal(err)
	}
	for from := 20; from <= 40; from += 20 {
		n := c.start(3)
		write(from)
		g.level(n)
		c.stop(3)
	}
	c.cfgs[3].Dir = saved
	c.start(3)
	select {
	case err := <-fatal:
		if !errors.Is(err, partition.ErrSessionExpired) {
			t.Fatalf("it ended with %v", err)
		}
	case <-t.Context().Done():
	}
	c.stop(3)
	n := c.start(3)
	eventually(t, "its replicas are silent", func() error {
		u := n.unusable()
		if len(u) != 1 || u[0].group != g.id {
			return errors.New("it trusts its disk")
		}
		return nil
	})
	eventually(t, "it has a session again", func() error {
		if !n.control.Admitted() {
			return errors.New("not admitted")
		}
		return nil
	})
	select {
	case err := <-fatal:
		t.Fatalf("it ended again: %v", err)
	default:
	}
}

// The list decides who must stay silent, so a damaged one is never taken for
// another list: the node does not start.
func TestSuspectListDamaged(t *testing.T) {
	dir := t.TempDir()
	s, err := openSuspects(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.add(map[partition.GroupID]partition.ReplicaID{7: 3, 12: 1}, true); err != nil {
		t.Fatal(err)
	}
	if s, err = openSuspects(dir); err != nil || !s.has(7, 3) || !s.has(12, 1) || s.has(7, 1) || !s.forgetful() {
		t.Fatalf("%+v, %v", s, err)
	}
	path := filepath.Join(dir, suspectFile)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range whole {
		flipped := bytes.Clone(whole)
		flipped[i] ^= 1
		for _, damaged := range [][]byte{flipped, whole[:i]} {
			if err := os.WriteFile(path, damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := openSuspects(dir); !errors.Is(err, partition.ErrCorrupt) {
				t.Fatalf("damage at %d of %d bytes: %v", i, len(whole), err)
			}
		}
	}
}

// TestLogCutShort: with the end of the log gone nobody knows which replicas were
// on the node, so none is made again from its group's first record, under an id
// that has promised and acknowledged; each is replaced.
func TestLogCutShort(t *testing.T) {
	c := newCluster(t, 3)
	g := c.group(TableSpec{Name: "t", Replicas: 3})
	if err := put(t.Context(), c.any(), "a", "v"); err != nil {
		t.Fatal(err)
	}
	c.stop(2)
	segments, err := filepath.Glob(filepath.Join(c.cfgs[2].Dir, "wal", "*.wal"))
	if err != nil || len(segments) == 0 {
		t.Fatal(segments, err)
	}
	if err := os.Truncate(segments[len(segments)-1], 8192); err != nil {
		t.Fatal(err)
	}
	n := c.start(2)
	eventually(t, "a new replica", func() error {
		infos, err := c.any().Partitions(t.Context(), "t")
		if err != nil {
			return err
		}
		for _, r := range infos[0].Replicas {
			if r.Node == n.ID() && r.Replica <= 3 {
				return fmt.Errorf("replica %d is %s", r.Replica, r.Role)
			}
		}
		if infos[0].CanLose != 1 {
			return fmt.Errorf("can lose %d", infos[0].CanLose)
		}
		return nil
	})
	g.level(n)
}
