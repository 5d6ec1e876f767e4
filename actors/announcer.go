package actors

import (
	"context"
	"errors"
	"sync"
	"time"

	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
)

const (
	// announceWait bounds one attempt to tell the catalog of new masters, and
	// announceRetry is the pause after one that failed.
	announceWait  = 2 * time.Second
	announceRetry = 500 * time.Millisecond
)

// announcer tells the catalog who is master of what. It is a hint for routing,
// so it may be late; the newest word on each group is kept until it was taken.
type announcer struct {
	catalog interface {
		UpdateGroups(context.Context, []control.GroupUpdate) error
	}
	ctx   context.Context // ends when the node stops
	spawn func(func())    // starts a goroutine that the node's end waits for

	mu      sync.Mutex
	pending map[partition.GroupID]control.GroupUpdate
	running bool
}

func (a *announcer) announce(u control.GroupUpdate) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.pending == nil {
		a.pending = make(map[partition.GroupID]control.GroupUpdate)
	}
	a.pending[u.Group] = u
	if !a.running {
		a.running = true
		a.spawn(a.run)
	}
}

func (a *announcer) run() {
	for {
		a.mu.Lock()
		batch := make([]control.GroupUpdate, 0, len(a.pending))
		for _, u := range a.pending {
			batch = append(batch, u)
		}
		if len(batch) == 0 {
			a.running = false
			a.mu.Unlock()
			return
		}
		a.mu.Unlock()
		if a.send(batch) {
			continue
		}
		select {
		case <-a.ctx.Done():
			return
		case <-time.After(announceRetry):
		}
	}
}

// send tells the batch and reports whether it came to an end. An update that is
// refused, such as that of a group whose table is gone, must not keep the others
// from being told: then each goes alone, and is done when it was answered.
func (a *announcer) send(batch []control.GroupUpdate) bool {
	ctx, cancel := context.WithTimeout(a.ctx, announceWait)
	defer cancel()
	err := a.catalog.UpdateGroups(ctx, batch)
	switch {
	case err == nil:
		a.settle(batch)
	case passes(err):
		return false
	case len(batch) == 1:
		a.settle(batch)
	default:
		for i := range batch {
			if !a.send(batch[i : i+1]) {
				return false
			}
		}
	}
	return true
}

// passes reports whether the same request may succeed later.
func passes(err error) bool {
	switch partition.CodeOf(err) {
	case partition.CodeUnavailable, partition.CodeUnknown, partition.CodeBusy, partition.CodeTimeout, partition.CodeClosed:
		return true
	}
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// settle forgets what was told, unless there is newer word.
func (a *announcer) settle(batch []control.GroupUpdate) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, u := range batch {
		if p := a.pending[u.Group]; p.Epoch == u.Epoch && p.Membership == u.Membership && p.RangeVersion == u.RangeVersion {
			delete(a.pending, u.Group)
		}
	}
}
