package actors

import (
	"context"
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
	control *control.Control
	ctx     context.Context // ends when the node stops

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
		go a.run()
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
			a.settle(batch)
			continue
		}
		select {
		case <-a.ctx.Done():
			return
		case <-time.After(announceRetry):
		}
	}
}

func (a *announcer) send(batch []control.GroupUpdate) bool {
	ctx, cancel := context.WithTimeout(a.ctx, announceWait)
	defer cancel()
	return a.control.UpdateGroups(ctx, batch) == nil
}

// settle forgets what was told, unless there is newer word.
func (a *announcer) settle(batch []control.GroupUpdate) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, u := range batch {
		if a.pending[u.Group].Epoch == u.Epoch {
			delete(a.pending, u.Group)
		}
	}
}
