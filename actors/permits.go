package actors

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
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

// permitService takes permits back.
type permitService interface {
	Release(ctx context.Context, g partition.GroupID, from uint64) (control.Permit, error)
	Pass(ctx context.Context, g partition.GroupID, from uint64, able []partition.ReplicaID) (control.Permit, error)
}

// permitKey names a permit.
type permitKey struct {
	group  partition.GroupID
	number uint64
}

// returner gives permits back, each until the control group has answered.
// Whatever it says then, the number is not held any more, or passed to the
// members. A replica asks again and again, so that one goroutine does it for all
// of the node, and of a permit only the newest word is kept.
type returner struct {
	service permitService
	ctx     context.Context // ends when the node stops
	spawn   func(func())    // starts a goroutine that the node's end waits for
	logger  *slog.Logger

	mu      sync.Mutex
	pending map[permitKey]*replica.ReleasePermit
	running bool
}

func (r *returner) give(g partition.GroupID, w *replica.ReleasePermit) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pending == nil {
		r.pending = make(map[permitKey]*replica.ReleasePermit)
	}
	k := permitKey{g, w.Number}
	if old := r.pending[k]; old != nil && old.Version > w.Version {
		return
	}
	r.pending[k] = w
	if !r.running {
		r.running = true
		r.spawn(r.run)
	}
}

func (r *returner) run() {
	for {
		r.mu.Lock()
		todo := maps.Clone(r.pending)
		if len(todo) == 0 {
			r.running = false
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
		again := false
		for k, w := range todo { // in no order: each on its own
			again = !r.tell(k, w) || again
		}
		if !again {
			continue
		}
		select {
		case <-r.ctx.Done():
			return
		case <-time.After(releaseRetry):
		}
	}
}

// tell gives one permit back, and reports whether that was answered.
func (r *returner) tell(k permitKey, w *replica.ReleasePermit) bool {
	ctx, cancel := context.WithTimeout(r.ctx, permitWait)
	defer cancel()
	var err error
	if len(w.Able) > 0 {
		_, err = r.service.Pass(ctx, k.group, k.number, w.Able)
	} else {
		_, err = r.service.Release(ctx, k.group, k.number)
	}
	if err != nil && passes(err) {
		return false
	}
	r.logger.Info("permit to go on alone given back", "group", k.group, "number", k.number, "to", w.Able, "err", err)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pending[k] == w {
		delete(r.pending, k)
	}
	return true
}
