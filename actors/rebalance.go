package actors

import (
	"context"
	"fmt"
	"time"

	"pando.dev/pando/cluster/control"
	"pando.dev/pando/cluster/placement"
	"pando.dev/pando/partition"
)

const (
	// emptyLook is how often the control group's leader looks at nodes that are
	// being emptied, and emptyWait bounds a look.
	emptyLook = 2 * time.Second
	emptyWait = 10 * time.Second
	// bytesGrain is what sizes of replicas are rounded up to in plans: what is
	// smaller is not worth a move.
	bytesGrain = 1 << 20
)

// BalanceOptions says what is to be planned.
type BalanceOptions struct {
	// Node is to be emptied; empty: the cluster is to be brought into balance.
	Node partition.NodeID `json:"node,omitempty"`
	// DryRun: nothing is kept, and nothing begins.
	DryRun bool   `json:"dry_run,omitempty"`
	By     string `json:"by,omitempty"`
}

// PlanInfo is a plan and what is to come of it.
type PlanInfo struct {
	// Task is the plan as a task, without id if nothing was kept.
	Task  TaskInfo   `json:"task"`
	Steps []TaskInfo `json:"steps"`
	// Before and After are, of each dimension, the greatest share of a node over
	// the mean.
	Before map[string]float64 `json:"before"`
	After  map[string]float64 `json:"after"`
	// Least is what has to be copied at least.
	Least uint64 `json:"least_bytes"`
	// Impossible is what the plan should do and cannot.
	Impossible []string `json:"impossible,omitempty"`
	// Left is how many further steps are to be planned when these are done.
	Left int `json:"left,omitempty"`
}

// Rebalance plans what brings the cluster into balance, from what the nodes tell
// of their replicas now. Unless it is a dry run the plan is kept; StartPlan has it
// carried out. Without steps nothing is to be done.
func (n *Node) Rebalance(ctx context.Context, o BalanceOptions) (PlanInfo, error) {
	if o.Node != "" {
		return PlanInfo{}, partition.Errorf(partition.CodeInvalid, "a plan to balance is for all nodes; pando node decommission empties %s", o.Node)
	}
	l, err := n.layout(ctx)
	if err != nil {
		return PlanInfo{}, err
	}
	info, steps := stepsToKeep(l, placement.PlanConfig{Skip: [placement.Modes]bool{placement.Emergency: true}})
	info.Task.Kind, info.Task.Reason = control.TaskPlan.String(), "rebalance"
	if o.DryRun || len(steps) == 0 {
		return info, nil
	}
	return n.keepPlan(ctx, info, control.PlanSpec{Kind: control.TaskPlan, Look: true, Steps: steps, Reason: "rebalance", By: o.By})
}

// StartPlan has a plan carried out.
func (n *Node) StartPlan(ctx context.Context, id control.TaskID) (TaskInfo, error) {
	if err := n.control.StartPlan(ctx, id); err != nil {
		return TaskInfo{}, err
	}
	return n.task(id)
}

// Decommission has a node emptied: its replicas and masterships go to the others,
// and nothing new comes. What the others cannot take is refused at once. It goes on
// by itself, whoever leads, and the node stays empty until Recommission.
func (n *Node) Decommission(ctx context.Context, o BalanceOptions) (PlanInfo, error) {
	if o.Node == "" || !n.knows(o.Node) {
		return PlanInfo{}, &partition.Error{Code: partition.CodeNotFound, Why: fmt.Sprintf("there is no node %q", o.Node), Next: "list them with: pando members"}
	}
	if t, ok := n.control.Catalog().Leaving(o.Node); ok && !o.DryRun {
		info, err := n.task(t.ID)
		return PlanInfo{Task: info}, err
	}
	l, err := n.layout(ctx)
	if err != nil {
		return PlanInfo{}, err
	}
	if err := placement.Preflight(l, []partition.NodeID{o.Node}, false, placement.PlanConfig{}); err != nil {
		return PlanInfo{}, err
	}
	l.Node(o.Node).Leaving = true
	info, steps := stepsToKeep(l, drainOnly())
	info.Task.Kind, info.Task.From = control.TaskDecommission.String(), o.Node
	if len(info.Impossible) > 0 {
		return info, &partition.Error{Code: partition.CodeRefused, Why: fmt.Sprintf("node %s cannot be emptied: %s", o.Node, info.Impossible[0]), Next: "add nodes, or wait until all are in service"}
	}
	if o.DryRun {
		return info, nil
	}
	return n.keepPlan(ctx, info, control.PlanSpec{Kind: control.TaskDecommission, Node: o.Node, Steps: steps, Reason: "decommission", By: o.By})
}

// Recommission takes a node back that was emptied, or is being.
func (n *Node) Recommission(ctx context.Context, node partition.NodeID) (TaskInfo, error) {
	t, ok := n.control.Catalog().Leaving(node)
	if !ok {
		return TaskInfo{}, &partition.Error{Code: partition.CodeNotFound, Why: fmt.Sprintf("node %q is not decommissioned", node), Next: "see pando task ls"}
	}
	return n.AbortTask(ctx, t.ID, "the node is taken back")
}

func drainOnly() placement.PlanConfig {
	return placement.PlanConfig{Skip: [placement.Modes]bool{placement.Emergency: true, placement.Filling: true, placement.Leveling: true}}
}

// keepPlan keeps a plan in the control group.
func (n *Node) keepPlan(ctx context.Context, info PlanInfo, spec control.PlanSpec) (PlanInfo, error) {
	t, err := n.control.BeginPlan(ctx, spec)
	if err != nil {
		return info, err
	}
	cat := n.control.Catalog()
	info.Task, info.Steps = taskInfo(cat, t), nil
	for _, s := range cat.Steps(t.ID) {
		info.Steps = append(info.Steps, taskInfo(cat, s))
	}
	return info, nil
}

// stepsToKeep makes a plan, and the steps of it that are to be kept.
func stepsToKeep(l *placement.Layout, cfg placement.PlanConfig) (PlanInfo, []control.PlanStep) {
	p := placement.MakePlan(l, cfg)
	info := PlanInfo{Before: balanceOf(&p.Before), After: balanceOf(&p.After)}
	for _, b := range p.Least {
		info.Least += uint64(max(b, 0))
	}
	for _, x := range p.Impossible {
		info.Impossible = append(info.Impossible, fmt.Sprintf("%s (node %s, %d groups, such as %s)", x.Why, x.Node, x.Count, x.Group))
	}
	var steps []control.PlanStep
	later := make(map[partition.GroupID]bool)
	for i := range p.Operators {
		more := stepsOf(&p.Operators[i], later)
		if len(steps)+len(more) > control.MaxPlanSteps {
			info.Left = len(p.Operators) - i
			break
		}
		steps = append(steps, more...)
	}
	for _, s := range steps {
		info.Task.Bytes += s.Bytes
		info.Steps = append(info.Steps, TaskInfo{Kind: s.Kind.String(), Group: s.Group, From: s.From, To: s.To, Bytes: s.Bytes, Reason: s.Why})
	}
	info.Task.OfUnits = uint64(len(steps))
	return info, steps
}

// stepsOf are the steps of an operator. Only the first one of a group goes by the
// version that was seen.
func stepsOf(op *placement.Operator, later map[partition.GroupID]bool) []control.PlanStep {
	s := control.PlanStep{Kind: control.TaskMove, Group: op.Group, From: op.From, To: op.To, Bytes: uint64(max(op.Bytes, 0)), Why: fmt.Sprintf("%s: %s", op.Mode, op.Why)}
	if !later[op.Group] {
		s.MembershipVersion = op.Membership
	}
	later[op.Group] = true
	switch op.Kind {
	case placement.OpTransfer:
		s.Kind = control.TaskTransfer
	case placement.OpSwap:
		t := s
		t.Kind, t.Bytes, t.MembershipVersion = control.TaskTransfer, 0, 0
		return []control.PlanStep{s, t}
	case placement.OpAdd:
		return nil // the group's master does it by itself
	}
	return []control.PlanStep{s}
}

func balanceOf(b *placement.Balance) map[string]float64 {
	all := make(map[string]float64)
	for d := range placement.Dims {
		if b.Active[d] && b.Max[d] > 0 {
			all[d.String()] = b.Max[d]
		}
	}
	return all
}

// layout is where everything is now, as the nodes tell. Groups that are being
// changed, or whose master nobody knows, are left alone by plans.
func (n *Node) layout(ctx context.Context) (*placement.Layout, error) {
	cat, err := n.catalog()
	if err != nil {
		return nil, err
	}
	parts, err := n.Partitions(ctx, "")
	if err != nil {
		return nil, err
	}
	l, err := placement.NewLayout(n.balanceNodes(cat, parts))
	if err != nil {
		return nil, err
	}
	work := n.workOf(ctx, cat)
	byID := make(map[partition.GroupID]*PartitionInfo, len(parts))
	for i := range parts {
		byID[parts[i].Group] = &parts[i]
	}
	for _, g := range cat.AllGroups() {
		p, ok := byID[g.ID]
		if !ok {
			continue
		}
		g := balanceGroup(cat, p)
		work.add(&g, p.Master)
		if err := l.Add(g); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// balanceNodes are the nodes as plans see them.
func (n *Node) balanceNodes(cat *control.Catalog, parts []PartitionInfo) []placement.PlanNode {
	used := make(map[partition.NodeID]string) // zones by node
	for i := range parts {
		for _, r := range parts[i].Replicas {
			used[r.Node] = r.Zone
		}
	}
	var nodes []placement.PlanNode
	for _, m := range n.Members() {
		_, holds := used[m.Node]
		delete(used, m.Node)
		_, leaving := cat.Leaving(m.Node)
		x := placement.PlanNode{
			Node: placement.Node{ID: m.Node, Zone: m.Zone, Weight: 1}, New: !holds, Leaving: leaving,
			Closed: m.Status != "alive" || m.Mode != "" || m.Sick != "", Capacity: capacityOf(cat),
		}
		if !x.Closed || holds {
			x.New = x.New && !x.Closed && !leaving
			nodes = append(nodes, x)
		}
	}
	for _, g := range cat.AllGroups() { // in order, so that equal clusters give equal plans
		for _, m := range g.Membership.Members {
			if zone, ok := used[m.Node]; ok {
				delete(used, m.Node)
				nodes = append(nodes, placement.PlanNode{Node: placement.Node{ID: m.Node, Zone: zone, Weight: 1}, Closed: true, Capacity: capacityOf(cat)})
			}
		}
	}
	return nodes
}

// balanceGroup is a group as plans see it.
func balanceGroup(cat *control.Catalog, p *PartitionInfo) placement.PlanGroup {
	g := placement.PlanGroup{Group: p.Group, Range: p.RangeVersion, Membership: p.Version, Bytes: bytesGrain}
	_, occupied := cat.TaskOf(p.Group)
	g.Busy = occupied || p.InFlight || p.Master == "" || p.Tending != ""
	for _, r := range p.Replicas {
		switch r.Kind {
		case partition.Full.String():
			g.Members = append(g.Members, placement.PlanMember{Replica: r.Replica, Node: r.Node})
			if r.Node == p.Master {
				g.Master = r.Replica
			}
		case partition.LogReplica.String():
			g.Members = append(g.Members, placement.PlanMember{Replica: r.Replica, Node: r.Node, LogOnly: true})
		default:
			g.Busy = true
		}
		g.Bytes = max(g.Bytes, (r.Bytes+bytesGrain-1)/bytesGrain*bytesGrain)
	}
	return g
}

// emptyNodes goes on with nodes that are being emptied, on the node that leads
// the control group, until this node stops.
func (n *Node) emptyNodes() {
	tick := time.NewTicker(emptyLook)
	defer tick.Stop()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-tick.C:
		}
		if n.control.Status().Leader != n.ID() {
			continue
		}
		cat := n.control.Catalog()
		for _, t := range cat.Tasks() {
			if t.Kind != control.TaskDecommission || t.State != control.TaskOpen || stepsOpen(cat, t.ID) {
				continue
			}
			if err := n.emptyMore(t); err != nil {
				n.logger.Info("node not emptied", "node", t.From, "task", t.ID, "err", err)
			}
		}
	}
}

func stepsOpen(cat *control.Catalog, id control.TaskID) bool {
	for _, s := range cat.Steps(id) {
		if s.Open() {
			return true
		}
	}
	return false
}

// emptyMore plans what a node still has, or says that it has nothing.
func (n *Node) emptyMore(t *control.Task) error {
	ctx, cancel := context.WithTimeout(n.ctx, emptyWait)
	defer cancel()
	l, err := n.layout(ctx)
	if err != nil {
		return err
	}
	holds := int64(0)
	for i, x := range l.Nodes() {
		if x.ID == t.From {
			holds = l.NodeUse(i)[placement.DimReplicas]
		}
	}
	report := control.TaskReport{Task: t.ID, Epoch: t.Epoch, Seq: t.Seq + 1, Phase: phaseEmpty, Why: "the node holds nothing"}
	if holds > 0 {
		info, steps := stepsToKeep(l, drainOnly())
		if len(steps) > 0 {
			_, err := n.control.BeginPlan(ctx, control.PlanSpec{Kind: control.TaskDecommission, Node: t.From, Parent: t.ID, Steps: steps, By: string(n.ID())})
			return err
		}
		report.Phase, report.Why = "moving", fmt.Sprintf("it still holds %d replicas, of groups that are being changed", holds)
		if len(info.Impossible) > 0 {
			report.Why = info.Impossible[0]
		}
	}
	if t.Phase == report.Phase && t.Why == report.Why {
		return nil
	}
	return n.control.ReportTask(ctx, report)
}
