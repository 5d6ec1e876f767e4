package actors

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"pando.dev/pando/cluster/control"
	"pando.dev/pando/cluster/placement"
	"pando.dev/pando/partition"
)

const (
	// autoLook is how often AutoRebalance looks: one window of placement.Watch.
	autoLook = 10 * time.Second
	// balanceBy is the author of its plans.
	balanceBy = "auto rebalance"
)

// autoBalance brings the cluster into balance without being asked (SCL-8), while
// this node leads the control group. A node has to carry too much in several windows
// in a row before anything moves, and what is done is looked at only when it has ended.
func (n *Node) autoBalance() {
	tick := time.NewTicker(cmp.Or(n.cfg.autoLook, autoLook))
	defer tick.Stop()
	watch := placement.NewWatch(placement.WatchConfig{})
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-tick.C:
		}
		if n.control.Status().Leader != n.ID() {
			watch = placement.NewWatch(placement.WatchConfig{})
			continue
		}
		if err := n.balanceAgain(watch); err != nil {
			n.logger.Info("not brought into balance", "err", err)
		}
	}
}

// balanceAgain looks once. An operator's plan comes first, also one that is only to
// be looked at.
func (n *Node) balanceAgain(watch *placement.Watch) error {
	cat, err := n.catalog()
	if err != nil {
		return err
	}
	for _, t := range cat.Tasks() {
		if t.Open() && (t.Kind == control.TaskPlan || t.Kind == control.TaskSplit) {
			return nil
		}
	}
	ctx, cancel := context.WithTimeout(n.ctx, emptyWait)
	defer cancel()
	l, err := n.layout(ctx)
	if err != nil {
		return err
	}
	hot, active := watch.Window(l)
	cfg := placement.PlanConfig{Hot: hot, Active: active}
	cfg.Skip[placement.Emergency], cfg.Skip[placement.Draining], cfg.Skip[placement.Leveling] = true, true, len(hot) == 0
	info, steps := stepsToKeep(l, cfg)
	if len(steps) == 0 {
		return nil
	}
	t, err := n.control.BeginPlan(ctx, control.PlanSpec{Kind: control.TaskPlan, Steps: steps, Reason: autoReason(hot), By: balanceBy})
	if err != nil {
		return err
	}
	n.logger.Info("the cluster is brought into balance", "task", t.ID, "steps", len(steps), "bytes", info.Task.Bytes, "why", t.Reason)
	return nil
}

func autoReason(hot []partition.NodeID) string {
	if len(hot) == 0 {
		return "rebalance: a node has come"
	}
	return fmt.Sprintf("rebalance: %s", join(hot, "and")+" carried too much for three windows")
}
