package actors

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
)

// ranges are groups from bounds such as "a-m"; nothing stands for no bound.
func ranges(bounds ...string) []*control.Group {
	var all []*control.Group
	for i, b := range bounds {
		lo, hi, _ := strings.Cut(b, "-")
		all = append(all, &control.Group{ID: partition.GroupID(i + 1), Range: partition.KeyRange{Lo: []byte(lo), Hi: []byte(hi)}})
	}
	return all
}

// TestCheckRanges: whatever is wrong with the ranges of a table is found, and
// nothing else.
func TestCheckRanges(t *testing.T) {
	for _, c := range []struct {
		groups []string
		want   string // kind and keys of each finding
	}{
		{[]string{"-"}, ""},
		{[]string{"-m", "m-"}, ""},
		{[]string{"-g", "g-m", "m-"}, ""},
		{nil, "hole "},
		{[]string{"-g", "h-"}, `hole ["g","h");`},
		{[]string{"a-m", "m-"}, `hole [,"a");`},
		{[]string{"-m", "m-x"}, `hole ["x",);`},
		{[]string{"-m", "g-"}, `overlap ["g","m");`},
		{[]string{"-", "g-"}, `overlap ["g",);`},
		{[]string{"-", "g-h"}, `overlap ["g","h");`},
		{[]string{"-m", "c-d", "m-"}, `overlap ["c","d");`},
		{[]string{"-m", "-m", "m-"}, `overlap [,"m");`},
		{[]string{"-c", "d-f", "e-g", "g-"}, `hole ["c","d");overlap ["e","f");`},
	} {
		got := ""
		for _, f := range checkRanges(checkTable{name: "t", groups: ranges(c.groups...)}) {
			keys, _, _ := strings.Cut(strings.TrimPrefix(f.Text, "keys "), " of table")
			if len(c.groups) == 0 {
				keys = ""
			} else {
				keys += ";"
			}
			got += f.Kind + " " + keys
		}
		if got != c.want {
			t.Errorf("%q: found %q, want %q", c.groups, got, c.want)
		}
	}
}

// wellFacts are those of a cluster in which nothing is wrong.
func wellFacts() *checkFacts {
	now := time.Unix(10_000, 0)
	p := PartitionInfo{Group: 1, Table: "t", Master: "n1", CanLose: 1}
	f := &checkFacts{
		tables: []checkTable{{name: "t", replicas: 3, groups: ranges("-")}}, known: map[partition.GroupID]bool{1: true, 2: true},
		held: map[partition.NodeID][]heldReplica{}, now: now,
	}
	for i := range 3 {
		node := partition.NodeID(fmt.Sprintf("n%d", i+1))
		role := "peer"
		if i == 0 {
			role = "master"
		}
		p.Replicas = append(p.Replicas, ReplicaInfo{Replica: partition.ReplicaID(i + 1), Node: node, Kind: "full", Eligible: true, Role: role})
		f.held[node] = []heldReplica{{Group: 1, Replica: partition.ReplicaID(i + 1)}}
	}
	f.held["n1"] = append(f.held["n1"], heldReplica{Group: 2, Replica: 1}) // that a split is to make
	f.parts = []PartitionInfo{p}
	f.tasks = []*control.Task{
		{ID: 1, Kind: control.TaskSplit, State: control.TaskOpen, Group: 1, Touched: now.Add(-time.Minute)},
		{ID: 2, Kind: control.TaskDecommission, State: control.TaskOpen, From: "n9", Phase: phaseEmpty},
		{ID: 3, Kind: control.TaskPlan, State: control.TaskOpen},
		{ID: 4, Kind: control.TaskMove, State: control.TaskOpen, Parent: 3, Group: 1},
		{ID: 5, Kind: control.TaskMove, State: control.TaskDone, Parent: 3, Ended: now.Add(-time.Minute)},
		{ID: 6, Kind: control.TaskPlan, State: control.TaskPlanned},
	}
	return f
}

// TestCheckObjects: a cluster that is well is left alone, and each inconsistency
// that is planted into it is found, by its name.
func TestCheckObjects(t *testing.T) {
	if r := wellFacts().report(7); len(r.Findings) > 0 || r.Tables != 1 || r.Replicas != 3 || r.Tasks != 4 {
		t.Fatalf("nothing is wrong: %+v", r)
	}
	for name, c := range map[string]struct {
		plant func(f *checkFacts)
		kind  string
		has   string
	}{
		"a hole":           {func(f *checkFacts) { f.tables[0].groups = ranges("-m", "n-") }, FindHole, `["m","n")`},
		"an overlap":       {func(f *checkFacts) { f.tables[0].groups = ranges("-m", "l-") }, FindOverlap, `["l","m")`},
		"no master":        {func(f *checkFacts) { f.parts[0].Master, f.parts[0].Missing = "", "n2 has to come back" }, FindNoMaster, "n2 has to come back"},
		"no writes":        {func(f *checkFacts) { f.parts[0].CanLose = -1 }, FindNoWrites, "g1"},
		"missing replica":  {func(f *checkFacts) { f.parts[0].Replicas[1].Role = "missing" }, FindReplica, "n2"},
		"broken replica":   {func(f *checkFacts) { f.parts[0].Replicas[2].Role = "broken" }, FindReplica, "n3"},
		"too few replicas": {func(f *checkFacts) { f.parts[0].Replicas[2].Kind = partition.LogReplica.String() }, FindTooFew, "2 full replicas"},
		"an unknown group": {func(f *checkFacts) { f.held["n2"] = append(f.held["n2"], heldReplica{Group: 9, Replica: 1}) }, FindStray, "g9"},
		"an old replica":   {func(f *checkFacts) { f.held["n4"] = []heldReplica{{Group: 1, Replica: 4}} }, FindStray, "replica 4 of g1"},
		"a twin":           {func(f *checkFacts) { f.held["n4"] = []heldReplica{{Group: 1, Replica: 1}} }, FindStray, "node n4"},
		"a stalled split": {func(f *checkFacts) {
			f.tasks[0].Touched, f.tasks[0].Why = f.now.Add(-time.Hour), "n2 does not answer"
		}, FindTask, "1h0m0s: n2 does not answer"},
		"a silent node": {func(f *checkFacts) { f.silent = append(f.silent, "n3") }, FindNode, "n3"},
	} {
		f := wellFacts()
		c.plant(f)
		got := f.report(7).Findings
		if len(got) != 1 || got[0].Kind != c.kind || !strings.Contains(got[0].Text, c.has) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	f := wellFacts()
	f.tasks[4].Ended = f.now.Add(-time.Hour)
	if got := f.report(7).Findings; len(got) != 2 || got[0].Task != 3 || got[1].Task != 4 {
		t.Errorf("a plan of which nothing has ended for an hour: %+v", got)
	}
}

// TestCheckLooksTwice: what is gone at the second look was on its way, and a text
// that has changed is the same finding.
func TestCheckLooksTwice(t *testing.T) {
	first := []Finding{{Kind: FindReplica, Group: 1, Node: "n1", Text: "is opening"}, {Kind: FindStray, Group: 2, Node: "n2"}}
	second := []Finding{{Kind: FindReplica, Group: 1, Node: "n1", Text: "is broken"}, {Kind: FindStray, Group: 3, Node: "n2"}}
	if got := bothTimes(first, second); len(got) != 1 || got[0].Text != "is broken" {
		t.Errorf("%+v", got)
	}
}

// TestCheckCluster: real nodes are found to be well, also what each holds, and a
// node that is away is missed, with its replicas.
func TestCheckCluster(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	c.table(TableSpec{Name: "t", SplitPoints: [][]byte{[]byte("m")}})
	n := c.nodes[0]
	r, err := n.Check(t.Context())
	if err != nil || len(r.Findings) != 0 || r.Partitions != 2 || r.Replicas != 6 {
		t.Fatalf("%+v, %v", r, err)
	}
	held, silent := n.everyReplica(t.Context())
	if len(silent) != 0 || len(held) != 3 || len(held["n2"]) != 2 {
		t.Errorf("held %v, silent %v", held, silent)
	}
	if _, err := n.serveHeld([]byte("{")); !errors.Is(err, partition.ErrInvalid) {
		t.Errorf("a question that cannot be read: %v", err)
	}
	gone := c.nodes[2].ID()
	c.stop(2)
	eventually(t, "the node is missed", func() error {
		r, err := n.Check(t.Context())
		kinds := map[string]int{}
		for _, f := range r.Findings {
			kinds[f.Kind]++
			if f.Node != "" && f.Node != gone {
				t.Errorf("%+v", f)
			}
		}
		if err != nil || kinds[FindReplica] != 2 {
			return fmt.Errorf("%+v, %v", r, err)
		}
		return nil
	})
	late, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := n.Check(late); err == nil {
		t.Error("a check without time for a second look says that all is well")
	}
}
