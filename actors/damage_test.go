package actors

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"pando.dev/pando/partition"
)

// rot flips a bit in each place of the log in dir that holds the mark.
func rot(t *testing.T, dir, mark string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "wal", "*"))
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // a directory
		}
		for at := 0; ; at++ {
			i := bytes.Index(b[at:], []byte(mark))
			if i < 0 {
				break
			}
			at += i
			b[at] ^= 1
			found++
		}
		if err := os.WriteFile(f, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if found == 0 {
		t.Fatalf("%q is not in the log", mark)
	}
}

// TestQuarantine: a replica whose log lost synced records stays silent and is
// reported; its group and the node's other groups go on, and no lease relies on
// what it may have promised.
func TestQuarantine(t *testing.T) {
	t.Parallel()
	c := newClusterWith(t, 3, untended)
	c.table(TableSpec{Name: "t", SplitPoints: [][]byte{[]byte("m")}})
	const mark = "this value will rot"
	if err := put(t.Context(), c.any(), "a", mark); err != nil {
		t.Fatal(err)
	}
	for i := range 20 { // synced behind it, so it is no torn end
		if err := put(t.Context(), c.any(), fmt.Sprintf("z%d", i), "v"); err != nil {
			t.Fatal(err)
		}
	}
	c.stop(2)
	rot(t, c.cfgs[2].Dir, mark)
	n := c.start(2)
	eventually(t, "the report", func() error {
		infos, err := c.any().Partitions(t.Context(), "t")
		if err != nil {
			return err
		}
		for _, r := range infos[0].Replicas {
			if r.Node == n.ID() && r.Role != "broken" {
				return fmt.Errorf("%+v", r)
			}
		}
		for _, r := range infos[1].Replicas {
			if r.Node == n.ID() && r.Role != "peer" && r.Role != "master" {
				return fmt.Errorf("the other group: %+v", r)
			}
		}
		if infos[0].CanLose != 0 || infos[1].CanLose != 1 {
			return fmt.Errorf("can lose %d and %d", infos[0].CanLose, infos[1].CanLose)
		}
		return nil
	})
	if got, err := get(t.Context(), n, "a"); err != nil || got != mark {
		t.Errorf("get: %q, %v", got, err)
	}
	for _, key := range []string{"a", "z"} {
		if err := put(t.Context(), n, key, "new"); err != nil {
			t.Errorf("put %s: %v", key, err)
		}
	}
	groups := n.control.Catalog().Groups("t")
	eventually(t, "the revocation", func() error {
		if c.nodes[0].leases.Granted(groups[0].ID, math.MaxUint64-1, n.ID(), supporterOn(n, groups[0])) != 0 {
			return fmt.Errorf("a grant of the damaged replica counts")
		}
		return nil
	})
	eventually(t, "grants for the other group", func() error {
		if c.nodes[0].leases.Granted(groups[1].ID, math.MaxUint64, n.ID(), supporterOn(n, groups[1])) == 0 {
			return fmt.Errorf("none")
		}
		return nil
	})
}

// TestReports: of two replicas that serve the newer epoch counts, and a node that
// did not answer is told from one that has no replica.
func TestReports(t *testing.T) {
	t.Parallel()
	c := startSingle(t, single(t, t.TempDir()))
	c.table(TableSpec{Name: "t"})
	g := *c.any().control.Catalog().Groups("t")[0]
	member := g.Membership.Members[0]
	m := *g.Membership
	m.Members = nil
	for i := range 4 {
		x := member
		x.Replica, x.Node = partition.ReplicaID(i+1), partition.NodeID(fmt.Sprintf("n%d", i+1))
		m.Members = append(m.Members, x)
	}
	g.Membership = &m
	reports := map[reportKey]report{
		{g.ID, "n1"}: {Group: g.ID, Role: "master", Serving: true, Epoch: partition.NewEpoch(9, 1), Commit: 8, Behind: []partition.ReplicaID{2}},
		{g.ID, "n2"}: {Group: g.ID, Role: "master", Serving: true, Epoch: partition.NewEpoch(5, 2), Commit: 4},
	}
	var p PartitionInfo
	fillReplicas(&p, &g, reports, map[partition.NodeID]bool{"n3": true})
	if p.Master != "n1" || p.Commit != 8 {
		t.Errorf("master %s, commit %d; the newer epoch is that of n1", p.Master, p.Commit)
	}
	if a, b := p.Replicas[2].Role, p.Replicas[3].Role; a != "unreachable" || b != "missing" {
		t.Errorf("roles %s and %s, want unreachable and missing", a, b)
	}
	if b := p.Replicas[1]; b.Role != "behind" || b.Why == "" || p.CanLose != -1 {
		t.Errorf("a replica that needs a copy: %+v, can lose %d", b, p.CanLose)
	}
}
