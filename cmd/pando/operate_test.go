package main

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"pando.dev/pando/actors"
	"pando.dev/pando/partition"
)

// checkOperate: what an operator does to nodes and partitions, by the command
// line: drain and undrain through another node, changes of one partition, and
// what is refused. Four nodes run.
func (p *processes) checkOperate(t *testing.T) {
	p.pando("table", "create", "ops", "--replicas", "3", "--on", "n1,n2,n3")
	g := p.partitionOf(t, "ops").Group.String()
	master := p.partitionOf(t, "ops").Master

	out := p.pando("node", "drain", string(master), "--reason", "new disk")
	if !strings.Contains(out, fmt.Sprintf("node %s is drained (new disk)", master)) {
		t.Errorf("drain: %s", out)
	}
	now := p.partitionOf(t, "ops")
	if now.Master == master {
		t.Errorf("%s is drained, and master still", master)
	}
	for _, r := range now.Replicas {
		if r.Eligible == (r.Node == master) {
			t.Errorf("%s is drained: %+v", master, r)
		}
	}
	if out := p.pando("members"); !strings.Contains(out, "drained") {
		t.Errorf("members: %s", out)
	}
	if out := p.pando("status"); !strings.Contains(out, "out of service: "+string(master)) {
		t.Errorf("status: %s", out)
	}
	if out := p.pando("node", "undrain", string(master)); !strings.Contains(out, "in service") {
		t.Errorf("undrain: %s", out)
	}

	if out := p.pando("partition", "add-replica", g, "--node", "n4"); !strings.Contains(out, "add-replica, node n4: done") {
		t.Errorf("add: %s", out)
	}
	if out := p.pando("partition", "show", g); !strings.Contains(out, "4 replicas, until the table's number is altered") {
		t.Errorf("show: %s", out)
	}
	p.pando("partition", "remove-replica", g, "--node", "n1")
	p.pando("partition", "replace-replica", g, "--from", "n4", "--node", "n1")
	p.pando("partition", "transfer-master", g, "--to", "n1")
	now = p.partitionOf(t, "ops")
	if now.Master != "n1" || len(now.Replicas) != 3 || replicaOn(now, "n4") {
		t.Errorf("after the changes: %+v", now)
	}
	for want, args := range map[string]string{
		"not_found": "partition add-replica " + g + " --node n9",
		"refused":   "node drain n1 --wait 5s",
		"usage":     "partition remove-replica " + g,
	} {
		if want == "refused" { // a table on one node only
			p.pando("table", "create", "single", "--replicas", "1", "--on", "n1")
		}
		_, err := p.try(strings.Fields(args)...)
		if err == nil || !strings.Contains(err.Error(), "error: "+want) || !strings.Contains(err.Error(), "next: ") {
			t.Errorf("%s: %v", args, err)
		}
	}
	if out := p.pando("node", "drain", "n1", "--force"); !strings.Contains(out, "is drained") || !strings.Contains(out, "no other") {
		t.Errorf("forced: %s", out)
	}
	p.pando("node", "undrain", "n1")
	if out := p.pando("status", "--wait", "30s", "--can-lose", "0"); strings.HasPrefix(out, "NOT") {
		t.Errorf("status: %s", out)
	}
	if _, err := p.try("status", "--can-lose", "2"); err == nil || !strings.Contains(err.Error(), "exit status 10") {
		t.Errorf("more than a table on one node can lose: %v", err)
	}
	p.checkSplit(t)
	p.checkMerge(t)
	p.checkInspect(t)
	p.pando("table", "drop", "single", "--confirm", "single")
	p.pando("table", "drop", "ops", "--confirm", "ops")
}

func replicaOn(p actors.PartitionInfo, node partition.NodeID) bool {
	for _, r := range p.Replicas {
		if r.Node == node {
			return true
		}
	}
	return false
}

// partitionOf waits until a table's only partition has a master, and returns it.
func (p *processes) partitionOf(t *testing.T, table string) (info actors.PartitionInfo) {
	t.Helper()
	eventually(t, "a master of "+table, func(ctx context.Context) error {
		ps, err := p.api(0).Partitions(ctx, table)
		if err != nil {
			return err
		}
		if info = ps[0]; info.Master == "" || info.InFlight {
			return fmt.Errorf("%+v", info)
		}
		return nil
	})
	return info
}

// checkInspect: what looks at the cluster and changes nothing, and a move that is
// waited for.
func (p *processes) checkInspect(t *testing.T) {
	if out := p.pando("partition", "verify", "--all"); !strings.Contains(out, "same") || strings.Contains(out, "differs") {
		t.Errorf("verify: %s", out)
	}
	if out := p.pando("check", "--digests"); !strings.Contains(out, "everything is as it should be") || !strings.Contains(out, "rows") {
		t.Errorf("check: %s", out)
	}
	if out := p.pando("node", "ls"); strings.Count(out, "alive") != 4 {
		t.Errorf("node ls: %s", out)
	}
	info := p.partitionOf(t, "single")
	g, to := info.Group.String(), "n2"
	if out := p.pando("partition", "move", g, "--from", "n1", "--to", to, "--wait", "1m"); !strings.Contains(out, "done") {
		t.Errorf("move: %s", out)
	}
	eventually(t, "its new master", func(context.Context) error {
		if now := p.partitionOf(t, "single"); now.Master != partition.NodeID(to) || replicaOn(now, "n1") {
			return fmt.Errorf("%+v", now)
		}
		return nil
	})
	for args, has := range map[string]string{
		"partition history " + g: "replica 1 on n1 goes", "explain partition " + g: "moved it there from n1", "explain node n1": "It is alive", "explain task t1": "task t1",
	} {
		if out := p.pando(strings.Fields(args)...); !strings.Contains(out, has) {
			t.Errorf("%s: no %q in\n%s", args, has, out)
		}
	}
	if _, err := p.try("partition", "move", g, "--from", to, "--to", "n9"); err == nil || !strings.Contains(err.Error(), "exit status 11") {
		t.Errorf("move to nobody: %v", err)
	}
}
