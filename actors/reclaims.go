package actors

import (
	"context"
	"sync"
)

// reclaims are the removals of keys of others from one replica's state. They go on in
// the background, by what was foreign when they began; a merge brings keys there, so
// it ends them before.
type reclaims struct {
	mu     sync.Mutex // held while one removes
	cancel context.CancelFunc
	guard  sync.Mutex // guards cancel
}

// begin returns the context of the removal that is about to begin, and ends that of
// the one before.
func (r *reclaims) begin(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	r.guard.Lock()
	defer r.guard.Unlock()
	if r.cancel != nil {
		r.cancel()
	}
	r.cancel = cancel
	return ctx
}

// run removes, unless it was stopped.
func (r *reclaims) run(ctx context.Context, remove func() (bool, error)) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	return remove()
}

// stop ends the removal that is under way, and waits for that: what removes looks at
// its context between ranges and while it waits for the disk.
func (r *reclaims) stop() {
	r.guard.Lock()
	cancel := r.cancel
	r.guard.Unlock()
	if cancel == nil {
		return
	}
	cancel()
	r.mu.Lock()
	defer r.mu.Unlock()
}
