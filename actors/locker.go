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

const (
	// releaseAgain is the pause before locks that could not be given back are given
	// back again. Until then others get them only by showing that the holder's node
	// is gone, which it is not.
	releaseAgain = time.Second
	// maxReleases bounds what waits for that; the oldest go first.
	maxReleases = 4096
)

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
	failed   []control.LockRelease // to be given back again
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
		// Who waits goes first.
		if len(wanted) > 0 {
			l.ask(wanted)
		}
		if len(released) > 0 {
			l.giveBack(released)
		}
	}
}

// giveBack returns locks. What fails is tried again later, for as long as the node
// lives: a candidate that cannot show a failover set, because the members that it
// knows have left, is refused a lock that somebody holds. A lock is named by its
// number, so one that was granted again meanwhile is not touched.
func (l *locker) giveBack(released []control.LockRelease) {
	ctx, cancel := context.WithTimeout(l.ctx, lockWait)
	defer cancel()
	if l.service.ReleaseLocks(ctx, released) == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.failed) == 0 {
		time.AfterFunc(releaseAgain, l.again)
	}
	l.failed = append(l.failed, released...)
	l.failed = l.failed[max(0, len(l.failed)-maxReleases):]
}

func (l *locker) again() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.released, l.failed = append(l.released, l.failed...), nil
	if l.ctx.Err() == nil {
		l.start()
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
