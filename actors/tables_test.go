package actors

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"pando.dev/pando/partition"
)

// gone waits until no node has anything of any table, in its log or its stores.
func (c *testCluster) gone() {
	c.tb.Helper()
	eventually(c.tb, "everything dropped", func() error {
		for i, n := range c.nodes {
			if left := groupsOf(n); len(left) > 0 {
				return fmt.Errorf("%s: the log has %v", n.ID(), left)
			}
			left, err := filepath.Glob(filepath.Join(c.cfgs[i].Dir, "stores", "*", "*"))
			if err != nil || len(left) > 0 {
				return errors.Join(err, fmt.Errorf("%s: stores %v", n.ID(), left))
			}
		}
		return nil
	})
}

// TestDropWhileCreated: tables are dropped while their replicas are being made,
// and made again under the same name. Nothing remains, and the last one serves.
func TestDropWhileCreated(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	c.table(TableSpec{Name: "t"})
	if err := c.any().DropTable(t.Context(), "t"); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		n := c.nodes[i%3]
		if _, err := n.CreateTable(t.Context(), TableSpec{Name: "t", SplitPoints: [][]byte{[]byte("m")}}); err != nil {
			t.Fatalf("create %d: %v", i, err)
		}
		if err := n.DropTable(t.Context(), "t"); err != nil {
			t.Fatalf("drop %d: %v", i, err)
		}
	}
	c.gone()
	c.table(TableSpec{Name: "t"})
	if err := put(t.Context(), c.any(), "k", "v"); err != nil {
		t.Error(err)
	}
	for _, n := range c.nodes {
		if r := n.counters.restarts.Load(); r != 0 {
			t.Errorf("%s: %d replicas failed", n.ID(), r)
		}
	}
}

// TestDropWhileDown: a table is dropped, and one of the same name made, while one
// of its nodes is down.
func TestDropWhileDown(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	c.table(TableSpec{Name: "t"})
	if err := put(t.Context(), c.any(), "k", "old"); err != nil {
		t.Fatal(err)
	}
	old := groupsOf(c.nodes[2])[0]
	c.stop(2)
	if err := c.any().DropTable(t.Context(), "t"); err != nil {
		t.Fatal(err)
	}
	ids := []partition.NodeID{"n1", "n2"}
	if _, err := c.any().CreateTable(t.Context(), TableSpec{Name: "t", Nodes: ids}); err != nil {
		t.Fatal(err)
	}
	c.start(2)
	eventually(t, "the old replica dropped", func() error {
		if left := groupsOf(c.nodes[2]); len(left) > 0 {
			return fmt.Errorf("log: %v (was %s)", left, old)
		}
		return nil
	})
	if got, err := get(t.Context(), c.nodes[2], "k"); err != nil || got != "" {
		t.Errorf("the new table has %q, %v", got, err)
	}
}

// TestTableIsRefused: what no table can be made from.
func TestTableIsRefused(t *testing.T) {
	t.Parallel()
	c := startSingle(t, single(t, t.TempDir()))
	c.table(TableSpec{Name: "t"})
	n := c.any()
	for _, spec := range []TableSpec{
		{Name: ""}, {Name: "u", Replicas: -1}, {Name: "u", Nodes: []partition.NodeID{n.ID(), n.ID()}},
		{Name: "u", SplitPoints: [][]byte{[]byte("b"), []byte("a")}}, {Name: "u", SplitPoints: [][]byte{nil}},
	} {
		if got, err := n.CreateTable(t.Context(), spec); err == nil {
			t.Errorf("%+v was made: %+v", spec, got)
		}
	}
}

// TestManyGroups: 200 groups on three nodes all get masters, are listed, and cost
// nothing while idle: no timer and no message, however many there are.
func TestManyGroups(t *testing.T) {
	c := newCluster(t, 3)
	var splits [][]byte
	for i := range 199 {
		splits = append(splits, fmt.Appendf(nil, "k%03d", i))
	}
	c.table(TableSpec{Name: "t", SplitPoints: splits})
	n := c.nodes[1]
	for i := range 199 {
		key := fmt.Sprintf("k%03d", i)
		if err := put(t.Context(), c.nodes[i%3], key, key); err != nil {
			t.Fatalf("put %s: %v", key, err)
		}
	}
	var st ClusterStatus
	eventually(t, "a healthy cluster", func() (err error) {
		if st, err = n.Status(t.Context()); err == nil && (st.CanLose != 1 || st.WithMaster != 200) {
			err = fmt.Errorf("%+v", st)
		}
		return err
	})
	infos, err := n.Partitions(t.Context(), "t")
	if err != nil || len(infos) != 200 {
		t.Fatalf("%d partitions, %v", len(infos), err)
	}
	for i, p := range infos {
		if p.Table != "t" || len(p.Replicas) != 3 || i > 0 && string(p.Lo) != string(infos[i-1].Hi) {
			t.Fatalf("partition %d: %+v", i, p)
		}
	}
	c.quiet()
}
