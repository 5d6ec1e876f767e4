package actors

import (
	"context"
	"errors"
	"time"

	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

const (
	// permitWait bounds one attempt to get a permit to go on alone. The machine
	// asks again.
	permitWait = 2 * time.Second
	// releaseRetry is the pause before a permit is given back again.
	releaseRetry = time.Second
)

// permit asks the control group to let this master go on alone.
func (a *replicaActor) permit(w *replica.Permit) {
	n, done := a.node, a.complete
	r := control.PermitRequest{Group: a.cell.group, Replica: a.replica, Lock: w.Lock, Seq: w.Seq}
	if v := a.cell.view.Load(); v != nil {
		r.Next = v.Configurations.Last().Next
	}
	n.background.Go(func() {
		ctx, cancel := context.WithTimeout(n.ctx, permitWait)
		defer cancel()
		p, err := n.control.Permit(ctx, r)
		if err != nil {
			n.logger.Warn("not permitted to go on alone", "group", r.Group, "replica", r.Replica, "err", err)
			done(replica.PermitRefused{Seq: w.Seq, Why: asError(err).Why, Outdated: errors.Is(err, partition.ErrNewerEpoch)})(nil)
			return
		}
		n.logger.Warn("permitted to go on alone", "group", r.Group, "replica", r.Replica, "number", p.Number)
		done(replica.Permitted{Seq: w.Seq, Number: p.Number})(nil)
	})
}

// releasePermit gives a permit back, until the control group has answered.
// Whatever it says then, the number is not held any more.
func (n *Node) releasePermit(g partition.GroupID, number uint64) {
	n.background.Go(func() {
		for {
			ctx, cancel := context.WithTimeout(n.ctx, permitWait)
			_, err := n.control.Release(ctx, g, number)
			cancel()
			if err == nil || !passes(err) || n.ctx.Err() != nil {
				n.logger.Info("permit to go on alone given back", "group", g, "number", number, "err", err)
				return
			}
			select {
			case <-n.ctx.Done():
				return
			case <-time.After(releaseRetry):
			}
		}
	})
}
