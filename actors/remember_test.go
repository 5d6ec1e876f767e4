package actors

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"pando.dev/pando/partition"
)

// TestRestartWithoutControlGroup: a node that starts while the control group is
// down brings its replicas back into their groups.
func TestRestartWithoutControlGroup(t *testing.T) {
	t.Parallel()
	seats := 1 // the first node has the only seat, and no replica
	c := newClusterWith(t, 4, func(cfg *Config) { cfg.Expect, seats = seats, 0 })
	c.table(TableSpec{Name: "t", Nodes: []partition.NodeID{"n2", "n3", "n4"}})
	if err := put(t.Context(), c.nodes[1], "k", "v"); err != nil {
		t.Fatal(err)
	}
	m := c.master("t")
	peer := 1
	if m == peer {
		peer = 2
	}
	eventually(t, "the catalog written down", func() error {
		_, cat, err := readCatalog(filepath.Join(c.cfgs[peer].Dir, catalogFile))
		if err == nil && cat.Version < c.nodes[0].control.Catalog().Version {
			err = fmt.Errorf("version %d", cat.Version)
		}
		return err
	})
	c.nodes[0].control.Close()
	c.stop(peer)
	n := c.start(peer)
	if err := put(t.Context(), c.nodes[m], "k", "w"); err != nil {
		t.Fatalf("put: %v", err)
	}
	eventually(t, "the replica back in its group", func() error {
		r := n.reports(groupsOf(n))[0]
		if have := c.nodes[m].reports(groupsOf(c.nodes[m]))[0]; r.Role != "peer" || r.Applied < have.Commit {
			return fmt.Errorf("%+v, the master's: %+v", r, have)
		}
		return nil
	})
	if n.control.Synced() {
		t.Error("the control group was not down: the test shows nothing")
	}
}

// TestForeignControlGroup: a control group that was wiped and founded anew knows
// no table. A node drops nothing at its word.
func TestForeignControlGroup(t *testing.T) {
	t.Parallel()
	cfg := single(t, t.TempDir())
	c := startSingle(t, cfg)
	c.table(TableSpec{Name: "t"})
	eventually(t, "the catalog written down", func() error {
		_, cat, err := readCatalog(filepath.Join(cfg.Dir, catalogFile))
		if err == nil && len(cat.AllGroups()) == 0 {
			err = errors.New("no group yet")
		}
		return err
	})
	c.stop(0)
	if err := os.RemoveAll(filepath.Join(cfg.Dir, "control")); err != nil {
		t.Fatal(err)
	}
	n := c.start(0)
	eventually(t, "the new control group refused", func() error {
		if err := n.Ready(); !errors.Is(err, partition.ErrRefused) {
			return fmt.Errorf("ready: %v", err)
		}
		return nil
	})
	if len(groupsOf(n)) != 1 {
		t.Error("the replica was dropped")
	}
	for range n.log.Groups() {
		return
	}
	t.Error("the log has lost the replica")
}

// TestCatalogFile: what was written down comes back, and what is damaged does not.
func TestCatalogFile(t *testing.T) {
	t.Parallel()
	c := startSingle(t, single(t, t.TempDir()))
	c.table(TableSpec{Name: "t", SplitPoints: [][]byte{[]byte("m")}})
	cat := c.any().control.Catalog()
	path := filepath.Join(t.TempDir(), "file")
	if err := writeCatalog(path, 7, cat); err != nil {
		t.Fatal(err)
	}
	group, got, err := readCatalog(path)
	if err != nil || group != 7 || got.Version != cat.Version || len(got.Groups("t")) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(whole); i += 7 {
		b := append([]byte(nil), whole...)
		b[i] ^= 1
		for _, damaged := range [][]byte{b, whole[:i]} {
			if err := os.WriteFile(path, damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, _, err := readCatalog(path); !errors.Is(err, partition.ErrCorrupt) {
				t.Fatalf("damage at %d of %d bytes: %v", i, len(whole), err)
			}
		}
	}
}

// TestWipedNode: a node that lost its disk and comes back under the same id has
// forgotten what it promised. The others know a later boot of it, so its process
// ends; the next one has a session, makes no replica from a group's first record,
// and says which ones are lost, so that they can be replaced.
func TestWipedNode(t *testing.T) {
	t.Parallel()
	fatal := make(chan error, 1)
	c := newClusterWith(t, 3, func(cfg *Config) { cfg.untended, cfg.Fatal = true, func(err error) { fatal <- err } })
	c.table(TableSpec{Name: "t"})
	c.stop(2)
	if err := os.RemoveAll(c.cfgs[2].Dir); err != nil {
		t.Fatal(err)
	}
	c.start(2)
	select {
	case err := <-fatal:
		if !errors.Is(err, partition.ErrSessionExpired) {
			t.Fatal(err)
		}
	case <-t.Context().Done():
	}
	if err := put(t.Context(), c.nodes[0], "k", "v"); err != nil {
		t.Error(err)
	}
	c.stop(2)
	n := c.start(2)
	eventually(t, "it knows what it lost", func() error {
		if len(n.unusable()) != 1 || n.suspects.forgetful() {
			return fmt.Errorf("lost are %v", n.unusable())
		}
		return nil
	})
	for g := range n.log.Groups() {
		t.Errorf("it made a replica of %s anew", g)
	}
}
