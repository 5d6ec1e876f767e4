package actors

import (
	"context"
	"sync"
	"time"

	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

// lockWait bounds one attempt to get locks. The replica tries again after a
// back-off of its own.
const lockWait = time.Second

// lockRequest is a replica's wish for its group's lock.
type lockRequest struct {
	group   partition.GroupID
	replica partition.ReplicaID
	work    *replica.AcquireLock
	done    func(replica.Input) // called once, from any goroutine
}

// lockService hands out the locks of the groups.
type lockService interface {
	AcquireLocks(context.Context, []control.LockRequest) ([]control.LockGrant, error)
	ReleaseLocks(context.Context, []control.LockRelease) error
}

// locker collects what the node's replicas ask of the lock service, so that a
// thousand groups that lost one master ask for their locks together. At most
// one request is under way; what comes in meanwhile is the next batch. The
// queue is bounded by the replicas, each of which waits for its answer.
type locker struct {
	service lockService
	ctx     context.Context // ends when the node stops
	spawn   func(func())    // starts a goroutine that the node's end waits for

	mu       sync.Mutex
	wanted   []lockRequest
	released []control.LockRelease
	running  bool
}

func (l *locker) acquire(r lockRequest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wanted = append(l.wanted, r)
	l.start()
}

func (l *locker) release(g partition.GroupID, r partition.ReplicaID, number uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.released = append(l.released, control.LockRelease{Group: g, Replica: r, Number: number})
	l.start()
}

// start is called with the lock held.
func (l *locker) start() {
	if !l.running {
		l.running = true
		l.spawn(l.run)
	}
}

func (l *locker) run() {
	for {
		l.mu.Lock()
		wanted, released := l.wanted, l.released
		l.wanted, l.released = nil, nil
		if len(wanted) == 0 && len(released) == 0 {
			l.running = false
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		// Who waits goes first. A release that gets lost costs little: the lock is
		// granted anew to whoever shows that the members do not know its holder.
		if len(wanted) > 0 {
			l.ask(wanted)
		}
		if len(released) > 0 {
			ctx, cancel := context.WithTimeout(l.ctx, lockWait)
			_ = l.service.ReleaseLocks(ctx, released)
			cancel()
		}
	}
}

func (l *locker) ask(wanted []lockRequest) {
	ctx, cancel := context.WithTimeout(l.ctx, lockWait)
	defer cancel()
	batch := make([]control.LockRequest, len(wanted))
	for i, w := range wanted {
		batch[i] = control.LockRequest{
			Group: w.group, Replica: w.replica, Above: w.work.Above, Failover: w.work.Failover,
			Holder: w.work.Holder, Consent: w.work.Consent,
		}
	}
	grants, err := l.service.AcquireLocks(ctx, batch)
	for i, w := range wanted {
		if err == nil && i < len(grants) && grants[i].Number != 0 {
			w.done(replica.Locked{Number: grants[i].Number, Permit: grants[i].Permit})
		} else {
			w.done(replica.LockRefused{})
		}
	}
}
