package actors

import (
	"context"
	"fmt"
	"slices"

	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
)

// MoveRequest asks for a replica of a partition to go from one node to another.
type MoveRequest struct {
	Group partition.GroupID `json:"group"`
	From  partition.NodeID  `json:"from"`
	To    partition.NodeID  `json:"to"`
	// DryRun: only said is what would be done, or why not.
	DryRun bool   `json:"dry_run,omitempty"`
	Reason string `json:"reason,omitempty"`
	By     string `json:"by,omitempty"`
	// Token makes retries safe: the same request with the same token is one move.
	Token string `json:"token,omitempty"`
}

// Move begins to bring a replica from one node to another, as a plan of one step:
// it gets a copy there, and the old one goes when that has caught up, in one change.
// What cannot be, or would make the partition less safe, is refused at once.
func (n *Node) Move(ctx context.Context, r MoveRequest) (PlanInfo, error) {
	cat, err := n.catalog()
	if err != nil {
		return PlanInfo{}, err
	}
	g, ok := cat.Group(r.Group)
	if !ok {
		return PlanInfo{}, noSuchPartition(r.Group)
	}
	p := n.describe(ctx, cat, []*control.Group{g})[0]
	to := MemberInfo{}
	for _, m := range n.Members() {
		if m.Node == r.To {
			to = m
		}
	}
	_, leaving := cat.Leaving(r.To)
	if why := mayMove(&p, &r, to, leaving); why != "" {
		return PlanInfo{}, &partition.Error{Code: partition.CodeRefused, Why: why, Next: "see pando partition show " + r.Group.String() + " and pando node ls"}
	}
	why := "move: by an operator"
	if r.Reason != "" {
		why = "move: " + r.Reason
	}
	step := control.PlanStep{Kind: control.TaskMove, Group: r.Group, MembershipVersion: p.Version, From: r.From, To: r.To, Why: why}
	for _, x := range p.Replicas {
		step.Bytes = max(step.Bytes, uint64(max(x.Bytes, 0)))
	}
	info := PlanInfo{Task: TaskInfo{Kind: control.TaskPlan.String(), Bytes: step.Bytes, OfUnits: 1, Reason: why}}
	info.Steps = []TaskInfo{{Kind: step.Kind.String(), Group: r.Group, From: r.From, To: r.To, Bytes: step.Bytes, Reason: why}}
	if t, busy := cat.TaskOf(r.Group); busy && r.DryRun {
		return info, partition.Errorf(partition.CodeExists, "partition %s has a task already: %s, a %s", r.Group, t.ID, t.Kind)
	}
	if r.DryRun {
		return info, nil
	}
	return n.keepPlan(ctx, info, control.PlanSpec{Kind: control.TaskPlan, Steps: []control.PlanStep{step}, Reason: why, By: r.By, Token: r.Token})
}

// mayMove says why a replica cannot go to a node, or nothing.
func mayMove(p *PartitionInfo, r *MoveRequest, to MemberInfo, leaving bool) string {
	i := slices.IndexFunc(p.Replicas, func(x ReplicaInfo) bool { return x.Node == r.From })
	switch {
	case i < 0:
		return fmt.Sprintf("partition %s has no replica on node %q", r.Group, r.From)
	case p.Replicas[i].Kind != partition.Full.String():
		return fmt.Sprintf("the replica of %s on node %s is a %s: only full ones are moved", r.Group, r.From, kindText(p.Replicas[i].Kind))
	case slices.ContainsFunc(p.Replicas, func(x ReplicaInfo) bool { return x.Node == r.To }):
		return fmt.Sprintf("node %s has a replica of %s already", r.To, r.Group)
	case to.Node == "":
		return fmt.Sprintf("there is no node %q", r.To)
	case to.Status != "alive":
		return fmt.Sprintf("node %s is %s", r.To, to.Status)
	case to.Mode != "":
		return fmt.Sprintf("node %s is %s", r.To, to.Mode)
	case leaving:
		return fmt.Sprintf("node %s is decommissioned", r.To)
	case p.Master == "":
		return fmt.Sprintf("partition %s has no master that could do it", r.Group)
	}
	policy, err := partition.ParsePolicy(p.Policy)
	if err != nil || policy.Rule != partition.Zones {
		return ""
	}
	zones := []string{to.Zone}
	for _, x := range p.Replicas {
		if x.Node != r.From && x.Kind != partition.Learner.String() {
			zones = append(zones, x.Zone)
		}
	}
	slices.Sort(zones)
	if n := len(slices.Compact(zones)); n < int(policy.Zones) {
		return fmt.Sprintf("its replicas would lie in %d zones, %s wants %d", n, p.Policy, policy.Zones)
	}
	return ""
}

// bytesHere are the bytes of a copy that have come, and all of it, if a replica's
// node tells in what a move waits for.
func bytesHere(why string) (done, total uint64) {
	for at := range why {
		if _, err := fmt.Sscanf(why[at:], ": %d of %d bytes are here", &done, &total); err == nil {
			return done, total
		}
	}
	return 0, 0
}
