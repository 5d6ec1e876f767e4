package actors

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

// fakeCatalog takes updates of the groups it knows, and refuses a request that
// names another one. While away is set it does not answer.
type fakeCatalog struct {
	mu    sync.Mutex
	known map[partition.GroupID]bool
	took  map[partition.GroupID]partition.Epoch
	away  int
	asked int
	told  chan struct{} // gets one token per answered request
}

func (f *fakeCatalog) UpdateGroups(_ context.Context, us []control.GroupUpdate) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.asked++; f.asked <= f.away {
		return partition.Errorf(partition.CodeUnavailable, "no leader")
	}
	defer func() { f.told <- struct{}{} }()
	for _, u := range us {
		if !f.known[u.Group] {
			return partition.Errorf(partition.CodeNotFound, "no %s", u.Group)
		}
	}
	for _, u := range us {
		f.took[u.Group] = u.Epoch
	}
	return nil
}

// TestAnnouncerGivesUpDropped: a group that the catalog does not have any more
// must neither be told for ever nor keep others from being told.
func TestAnnouncerGivesUpDropped(t *testing.T) {
	f := &fakeCatalog{
		known: map[partition.GroupID]bool{1: true, 3: true}, took: map[partition.GroupID]partition.Epoch{},
		away: 1, told: make(chan struct{}, 100),
	}
	var wg sync.WaitGroup
	a := &announcer{catalog: f, ctx: t.Context(), spawn: wg.Go}
	a.pending = map[partition.GroupID]control.GroupUpdate{}
	for g := range partition.GroupID(3) {
		a.pending[g+1] = control.GroupUpdate{Group: g + 1, Epoch: 5}
	}
	a.announce(control.GroupUpdate{Group: 3, Epoch: 6})
	wg.Wait() // it ends when nothing is pending
	if len(a.pending) != 0 || f.took[1] != 5 || f.took[3] != 6 {
		t.Errorf("pending %v, told %v", a.pending, f.took)
	}
}

// fakeLocks grants every lock but those of odd groups.
type fakeLocks struct {
	mu       sync.Mutex
	batches  []int
	released []control.LockRelease
	away     int // so many releases fail
	entered  chan struct{}
	gate     chan struct{}
}

func (f *fakeLocks) AcquireLocks(_ context.Context, rs []control.LockRequest) ([]control.LockGrant, error) {
	f.entered <- struct{}{}
	<-f.gate
	f.mu.Lock()
	defer f.mu.Unlock()
	f.batches = append(f.batches, len(rs))
	var out []control.LockGrant
	for _, r := range rs {
		g := control.LockGrant{Group: r.Group}
		if r.Group%2 == 0 {
			g.Number = r.Above + 1
		}
		out = append(out, g)
	}
	return out, nil
}

func (f *fakeLocks) ReleaseLocks(_ context.Context, rs []control.LockRelease) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.away > 0 {
		f.away--
		return partition.ErrUnavailable
	}
	f.released = append(f.released, rs...)
	return nil
}

// TestLockGivenBackAgain: a lock whose release failed is not held for ever.
func TestLockGivenBackAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeLocks{away: 2}
		var wg sync.WaitGroup
		ctx, stop := context.WithCancel(t.Context())
		l := &locker{service: f, ctx: ctx, spawn: wg.Go}
		l.release(7, 1, 3)
		l.release(8, 1, 4)
		time.Sleep(5 * releaseAgain)
		if !slices.Equal(f.released, []control.LockRelease{{Group: 7, Replica: 1, Number: 3}, {Group: 8, Replica: 1, Number: 4}}) {
			t.Errorf("released %v", f.released)
		}
		f.away = 1 << 30
		for number := range uint64(maxReleases + 1) {
			l.released = append(l.released, control.LockRelease{Group: 9, Replica: 1, Number: number})
		}
		l.release(9, 1, maxReleases+1)
		time.Sleep(releaseAgain / 2)
		if n := len(l.failed); n != maxReleases || l.failed[n-1].Number != maxReleases+1 {
			t.Errorf("%d releases are kept, limit %d; the last is %v", n, maxReleases, l.failed[n-1])
		}
		stop()
		time.Sleep(5 * releaseAgain)
		if left := 1<<30 - f.away; left != 1 {
			t.Errorf("tried %d times, also after the node's end", left)
		}
		wg.Wait()
	})
}

// TestLocker: everybody gets exactly one answer, and who asks while a request is
// under way shares the next.
func TestLocker(t *testing.T) {
	f := &fakeLocks{gate: make(chan struct{}, 2), entered: make(chan struct{}, 2)}
	var wg sync.WaitGroup
	l := &locker{service: f, ctx: t.Context(), spawn: wg.Go}
	var mu sync.Mutex
	answers := map[partition.GroupID][]bool{}
	ask := func(g partition.GroupID) {
		l.acquire(lockRequest{group: g, replica: 1, work: &replica.AcquireLock{Above: 10}, done: func(in replica.Input) {
			mu.Lock()
			defer mu.Unlock()
			answers[g] = append(answers[g], in == replica.Input(replica.Locked{Number: 11}))
		}})
	}
	ask(1)
	<-f.entered // the first request is under way
	for g := partition.GroupID(2); g <= 50; g++ {
		ask(g)
	}
	l.release(7, 1, 3)
	f.gate <- struct{}{}
	f.gate <- struct{}{}
	wg.Wait()
	for g := partition.GroupID(1); g <= 50; g++ {
		if !slices.Equal(answers[g], []bool{g%2 == 0}) {
			t.Errorf("group %d was answered %v", g, answers[g])
		}
	}
	if !slices.Equal(f.batches, []int{1, 49}) || len(f.released) != 1 {
		t.Errorf("requests of %v locks, released %v", f.batches, f.released)
	}
}
