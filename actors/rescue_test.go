package actors

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pando.dev/pando/partition"
)

// lost makes a table on n3, n4 and n5, writes to it, and stops n4 and n5; the
// control group is on n1, n2 and n3.
func lost(t *testing.T, policy string) (*testCluster, partition.GroupID) {
	t.Helper()
	c := newClusterWith(t, 5, func(cfg *Config) { cfg.LogAfter, cfg.ReplaceAfter = time.Hour, time.Hour })
	c.table(TableSpec{Name: "t", Policy: policy, Nodes: []partition.NodeID{"n3", "n4", "n5"}})
	for i := range 20 {
		if err := put(t.Context(), c.any(), fmt.Sprintf("k%d", i), "v"); err != nil {
			t.Fatal(err)
		}
	}
	g := c.any().control.Catalog().Groups("t")[0].ID
	c.stop(3)
	c.stop(4)
	return c, g
}

// planned asks for a plan until the group is in the wanted state.
func planned(t *testing.T, n *Node, ask RecoverAsk, state string) (plan RecoverPlan) {
	t.Helper()
	eventually(t, "a plan that says "+state, func() error {
		var err error
		if plan, err = n.RecoverPlan(t.Context(), ask); err != nil {
			return err
		}
		if plan.Control != "" || len(plan.Groups) != 1 || plan.Groups[0].State != state {
			return fmt.Errorf("%+v", plan)
		}
		return nil
	})
	return plan
}

// TestRecover: a group that lost two of three members for good goes on with the
// third by an operator's plan, gets its replicas back by itself, and is not
// disturbed by a lost member that comes back.
func TestRecover(t *testing.T) {
	t.Parallel()
	c, g := lost(t, "")
	n := c.any()
	waits := planned(t, n, RecoverAsk{}, RecoverWaits)
	if p := waits.Groups[0]; waits.Plan != "" || !strings.Contains(p.Why, "n4") || !strings.Contains(p.Next, "--dead n4,n5") {
		t.Fatalf("unconfirmed: %+v", waits)
	}
	if _, err := n.RecoverPlan(t.Context(), RecoverAsk{Dead: []partition.NodeID{"n3"}}); !errors.Is(err, partition.ErrRefused) {
		t.Fatalf("n3 answers and was taken for dead: %v", err)
	}
	plan := planned(t, n, RecoverAsk{Groups: []partition.GroupID{g}, Dead: []partition.NodeID{"n4", "n5"}}, RecoverLost)
	if p := plan.Groups[0]; p.Node != "n3" || !strings.Contains(p.Loss, "only on n4 and n5 may be lost") || plan.Plan == "" {
		t.Fatalf("%+v", plan)
	}
	// Another state, another plan: one that names a state that never was is refused.
	forged := plan.Plan[:len(plan.Plan)-1] + "x"
	if _, err := n.RecoverApply(t.Context(), forged, ""); !errors.Is(err, partition.ErrRefused) {
		t.Fatalf("a plan for another state: %v", err)
	}
	out, err := n.RecoverApply(t.Context(), plan.Plan, "n4 and n5 burnt")
	if err != nil || len(out.Groups) != 1 || !out.Groups[0].Done || out.Groups[0].Number == 0 {
		t.Fatalf("apply: %+v, %v", out, err)
	}
	for i := range 20 {
		if v, err := get(t.Context(), n, fmt.Sprintf("k%d", i)); err != nil || v != "v" {
			t.Fatalf("k%d after the recovery: %q, %v", i, v, err)
		}
	}
	if err := put(t.Context(), n, "after", "v"); err != nil {
		t.Fatal(err)
	}
	if _, err := n.RecoverApply(t.Context(), plan.Plan, ""); !errors.Is(err, partition.ErrRefused) || !strings.Contains(err.Error(), "not lost any more") {
		t.Fatalf("the same plan again: %v", err)
	}
	eventually(t, "three replicas again", func() error {
		p, err := n.Partition(t.Context(), g)
		full := 0
		for _, r := range p.Replicas {
			if r.Kind == "full" && r.Eligible {
				full++
			}
		}
		if err != nil || full != 3 || p.CanLose != 1 || p.InFlight {
			return fmt.Errorf("%+v, %v", p, err)
		}
		return nil
	})
	c.checkReturned(g)
}

// checkReturned: a member that was left out comes back, finds itself removed, and
// gets no lock, while the group goes on.
func (c *testCluster) checkReturned(g partition.GroupID) {
	c.tb.Helper()
	back := c.start(3)
	eventually(c.tb, "the lost member removed", func() error {
		if err := back.Ready(); err != nil {
			return err
		}
		if cell := back.cells.get(g); cell != nil {
			st := cell.status.Load()
			if st == nil || st.Serving || !st.Removed {
				return fmt.Errorf("%+v", st)
			}
		}
		return nil
	})
	if err := put(c.tb.Context(), back, "later", "v"); err != nil {
		c.tb.Fatal(err)
	}
	if v, err := get(c.tb.Context(), back, "after"); err != nil || v != "v" {
		c.tb.Fatalf("%q, %v", v, err)
	}
}

// TestRecoverAfterSolo: CAT-4: one of a pair goes on alone and is lost; the other,
// which was left behind, is never master by itself, and takes over by an operator's
// word, which says what is lost by that.
func TestRecoverAfterSolo(t *testing.T) {
	t.Parallel()
	c := newClusterWith(t, 5, func(cfg *Config) { cfg.LogAfter, cfg.ReplaceAfter = time.Hour, time.Hour })
	c.table(TableSpec{Name: "t", Policy: "all-in-sync", Nodes: []partition.NodeID{"n4", "n5"}})
	n := c.any()
	if err := put(t.Context(), n, "both", "v"); err != nil {
		t.Fatal(err)
	}
	g := n.control.Catalog().Groups("t")[0].ID
	c.stop(4)
	if err := put(t.Context(), n, "alone", "v"); err != nil {
		t.Fatalf("n4 does not go on alone: %v", err)
	}
	p, err := n.Partition(t.Context(), g)
	if err != nil || !strings.Contains(p.Solo, "on n4") || len(p.LeftBehind) != 1 {
		t.Fatalf("%+v, %v", p, err)
	}
	c.stop(3)
	c.start(4)
	eventually(t, "n4 waited for", func() error {
		plan, err := n.RecoverPlan(t.Context(), RecoverAsk{Groups: []partition.GroupID{g}})
		if err == nil && (plan.Groups[0].State != RecoverWaits || !strings.Contains(plan.Groups[0].Next, "start n4 again")) {
			err = fmt.Errorf("%+v", plan)
		}
		return err
	})
	plan := planned(t, n, RecoverAsk{Groups: []partition.GroupID{g}, Dead: []partition.NodeID{"n4"}}, RecoverLost)
	if x := plan.Groups[0]; x.Node != "n5" || !strings.Contains(x.Loss, "only on n4, which went on alone, may be lost") {
		t.Fatalf("%+v", plan)
	}
	out, err := n.RecoverApply(t.Context(), plan.Plan, "")
	if err != nil || !out.Groups[0].Done {
		t.Fatalf("%+v, %v", out, err)
	}
	if v, err := get(t.Context(), n, "both"); err != nil || v != "v" {
		t.Fatalf("what both had: %q, %v", v, err)
	}
	if v, err := get(t.Context(), n, "alone"); err != nil || v != "" {
		t.Fatalf("what only n4 had: %q, %v", v, err)
	}
	if err := put(t.Context(), n, "after", "v"); err != nil {
		t.Fatal(err)
	}
}

// TestAlterPolicy: a partition gets another policy by a record, which is then what
// it goes by.
func TestAlterPolicy(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	c.table(TableSpec{Name: "t"})
	n := c.any()
	for _, policy := range []string{"zones:2", "all-in-sync", "zones:3", "majority"} {
		if _, err := n.AlterTable(t.Context(), "t", TableChange{Policy: policy}); err != nil {
			t.Fatalf("%s: %v", policy, err)
		}
		eventually(t, "the policy "+policy, func() error {
			ps, err := n.Partitions(t.Context(), "t")
			if err != nil || len(ps) != 1 || ps[0].Policy != policy || ps[0].InFlight || ps[0].Master == "" {
				return fmt.Errorf("%+v, %v", ps, err)
			}
			return nil
		})
		if err := put(t.Context(), n, policy, "v"); err != nil {
			t.Fatalf("by %s: %v", policy, err)
		}
	}
	if _, err := n.AlterTable(t.Context(), "t", TableChange{}); !errors.Is(err, partition.ErrInvalid) {
		t.Errorf("nothing to alter: %v", err)
	}
	if _, err := n.AlterTable(t.Context(), "t", TableChange{Policy: "zones:4"}); !errors.Is(err, partition.ErrRefused) {
		t.Errorf("4 zones of 3: %v", err)
	}
}
