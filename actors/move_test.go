package actors

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"pando.dev/pando/partition"
)

// TestMayMove: what cannot be moved is refused with the reason, before anything is
// done.
func TestMayMove(t *testing.T) {
	well := func() (PartitionInfo, MoveRequest, MemberInfo) {
		p := PartitionInfo{Group: 1, Master: "n1", Policy: "zones:2"}
		for i, zone := range []string{"a", "b", "b"} {
			p.Replicas = append(p.Replicas, ReplicaInfo{Replica: partition.ReplicaID(i + 1), Node: partition.NodeID(fmt.Sprintf("n%d", i+1)), Zone: zone, Kind: "full"})
		}
		return p, MoveRequest{Group: 1, From: "n1", To: "n4"}, MemberInfo{Node: "n4", Zone: "c", Status: "alive"}
	}
	for want, change := range map[string]func(*PartitionInfo, *MoveRequest, *MemberInfo){
		"":                        func(*PartitionInfo, *MoveRequest, *MemberInfo) {},
		`no replica on node "n9"`: func(_ *PartitionInfo, r *MoveRequest, _ *MemberInfo) { r.From = "n9" },
		"only full ones": func(p *PartitionInfo, _ *MoveRequest, _ *MemberInfo) {
			p.Replicas[0].Kind = partition.LogReplica.String()
		},
		"node n2 has a replica":     func(_ *PartitionInfo, r *MoveRequest, _ *MemberInfo) { r.To = "n2" },
		`no node "n4"`:              func(_ *PartitionInfo, _ *MoveRequest, m *MemberInfo) { *m = MemberInfo{} },
		"node n4 is failed":         func(_ *PartitionInfo, _ *MoveRequest, m *MemberInfo) { m.Status = "failed" },
		"node n4 is drained":        func(_ *PartitionInfo, _ *MoveRequest, m *MemberInfo) { m.Mode = "drained" },
		"no master that could":      func(p *PartitionInfo, _ *MoveRequest, _ *MemberInfo) { p.Master = "" },
		"lie in 1 zones, zones:2 w": func(_ *PartitionInfo, _ *MoveRequest, m *MemberInfo) { m.Zone = "b" },
	} {
		p, r, to := well()
		change(&p, &r, &to)
		if got := mayMove(&p, &r, to, false); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%q: %q", want, got)
		}
	}
	p, r, to := well()
	if got := mayMove(&p, &r, to, true); !strings.Contains(got, "decommissioned") {
		t.Errorf("a node that is being emptied: %q", got)
	}
}

// TestMove: a replica goes where an operator wants it, and the rest stays where it
// is. What has a task already is refused.
func TestMove(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 4)
	c.table(TableSpec{Name: "t", Replicas: 3, Nodes: []partition.NodeID{"n1", "n2", "n3"}})
	if err := put(t.Context(), c.any(), "a", "b"); err != nil {
		t.Fatal(err)
	}
	n := c.nodes[3]
	r := MoveRequest{Group: 1, From: "n2", To: "n4", Reason: "try", By: "test", Token: "one"}
	dry := r
	dry.DryRun = true
	for range 2 { // nothing is done by it
		p, err := n.Move(t.Context(), dry)
		if err != nil || p.Task.ID != 0 || len(p.Steps) != 1 || !strings.Contains(p.Steps[0].Reason, "try") {
			t.Fatalf("dry run: %+v, %v", p, err)
		}
	}
	if _, err := n.Move(t.Context(), MoveRequest{Group: 1, From: "n2", To: "n3"}); !errors.Is(err, partition.ErrRefused) {
		t.Errorf("to a node that has one: %v", err)
	}
	if _, err := n.Move(t.Context(), MoveRequest{Group: 9}); !errors.Is(err, partition.ErrNotFound) {
		t.Errorf("no such partition: %v", err)
	}
	p, err := n.Move(t.Context(), r)
	if err != nil || p.Task.ID == 0 {
		t.Fatalf("%+v, %v", p, err)
	}
	if again, err := n.Move(t.Context(), r); err == nil && again.Task.ID != p.Task.ID {
		t.Errorf("the same token has begun %s and %s", p.Task.ID, again.Task.ID)
	}
	eventually(t, "the move", func() error {
		task, err := n.task(p.Task.ID)
		if err != nil || !task.Succeeded() {
			return fmt.Errorf("%+v, %v", task, err)
		}
		return nil
	})
	var where []partition.NodeID
	info, err := n.Partition(t.Context(), 1)
	for _, x := range info.Replicas {
		where = append(where, x.Node)
	}
	if err != nil || fmt.Sprint(where) != "[n1 n3 n4]" {
		t.Errorf("it is on %v, %v", where, err)
	}
	if v := verified(t, n, "t"); !v.Well() {
		t.Errorf("after the move: %+v", v)
	}
}
