package actors

import (
	"context"
	"fmt"
	"time"

	"pando.dev/pando/cluster/placement"
	"pando.dev/pando/partition"
)

// PrepareStop takes the node out of service because it is about to stop: others
// become masters of what it is master of, without a pause, and go on without its
// replicas as long as it is away. It ends when that is done, when nothing comes
// of what is left, as on the last node of a cluster, or with ctx; the report says
// what is left then, and why. Stop follows. The next start takes the node back
// into service, but not if an operator had drained it before.
func (n *Node) PrepareStop(ctx context.Context) (DrainInfo, error) {
	began := time.Now()
	if n.service.now().Drain == placement.InService {
		if !n.sharesGroups() {
			return n.drainInfo(), nil // there is nobody to hand over to
		}
		if err := n.service.set(func(w *word) { *w = word{Seq: w.Seq, Drain: placement.Stopping, Reason: "it stops"} }); err != nil {
			return DrainInfo{}, err
		}
	}
	tick := time.NewTicker(drainLook)
	defer tick.Stop()
	for {
		info := n.drainInfo()
		if info.Done || n.asker.stuck(n.service.now()) {
			n.logger.Info("node is drained", "done", info.Done, "left", len(info.Left), "took", time.Since(began).Round(time.Millisecond))
			return info, nil
		}
		select {
		case <-ctx.Done():
			return info, DrainUnfinished(info, context.Cause(ctx))
		case <-n.ctx.Done():
			return info, partition.Errorf(partition.CodeClosed, "node %s is shutting down", n.ID())
		case <-tick.C:
		}
	}
}

// stuck reports whether nothing has been on its way for a while.
func (a *asker) stuck(w word) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.known && a.seq == w.Seq && a.stuckFor(drainPatience)
}

// sharesGroups reports whether any group here has a member elsewhere.
func (n *Node) sharesGroups() bool {
	shared := false
	n.cells.each(func(c *cell) {
		for _, m := range configurationsOf(c) {
			shared = shared || len(m.Members) > 1
		}
	})
	return shared
}

// Mode says whether the node is in service: "" if it is, "drained" or "stopping".
func (n *Node) Mode() string { return n.service.now().mode() }

// notInService is why a node that is otherwise well is not ready.
func (n *Node) notInService() error {
	w := n.service.now()
	if w.Drain == placement.InService {
		return nil
	}
	e := &partition.Error{Code: partition.CodeClosed, Why: fmt.Sprintf("node %s is %s", n.ID(), w.mode())}
	if w.Drain == placement.Maintenance {
		e.Next = "take it back into service with: pando node undrain " + string(n.ID())
		if w.Reason != "" {
			e.Why += ": " + w.Reason
		}
	}
	return e
}
