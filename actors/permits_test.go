package actors

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

// fakePermits notes what is given back; while away is set it does not answer.
type fakePermits struct {
	mu       sync.Mutex
	away     bool
	asked    int
	released []uint64
	passed   map[uint64][]partition.ReplicaID
}

func (f *fakePermits) answer(do func()) (control.Permit, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	if f.away {
		return control.Permit{}, partition.Errorf(partition.CodeUnavailable, "no leader")
	}
	do()
	return control.Permit{}, nil
}

func (f *fakePermits) Release(_ context.Context, _ partition.GroupID, from uint64) (control.Permit, error) {
	return f.answer(func() { f.released = append(f.released, from) })
}

func (f *fakePermits) Pass(_ context.Context, _ partition.GroupID, from uint64, able []partition.ReplicaID) (control.Permit, error) {
	return f.answer(func() { f.passed[from] = able })
}

// CAT-4: a permit passes to the members while removed ones were left behind, and
// is released only otherwise. While the control group is away, what is said again
// and again costs one goroutine, and the newest word stands.
func TestPermitsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakePermits{away: true, passed: map[uint64][]partition.ReplicaID{}}
		started := 0
		r := &returner{service: f, ctx: t.Context(), logger: slog.New(slog.DiscardHandler), spawn: func(do func()) {
			started++
			go do()
		}}
		for i := range 100 {
			r.give(7, &replica.ReleasePermit{Number: 3, Able: []partition.ReplicaID{1, 4}, Version: partition.MembershipVersion(i)})
			synctest.Wait()
		}
		r.give(7, &replica.ReleasePermit{Number: 3, Able: []partition.ReplicaID{1}, Version: 5}) // an older one
		r.give(7, &replica.ReleasePermit{Number: 5})
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if started != 1 || f.asked > 30 {
			t.Errorf("%d goroutines, asked %d times", started, f.asked)
		}
		f.mu.Lock()
		f.away = false
		f.mu.Unlock()
		time.Sleep(2 * releaseRetry)
		synctest.Wait()
		if !slices.Equal(f.released, []uint64{5}) || !slices.Equal(f.passed[3], []partition.ReplicaID{1, 4}) || len(r.pending) != 0 {
			t.Errorf("released %v, passed %v, pending %v", f.released, f.passed, r.pending)
		}
	})
}

// CAT-4, MEM-1: one of a pair that went on alone replaces the other one for good.
// Should that come back and reach nobody but the control group, it would still
// count by the last configuration that it knows; it gets no lock.
func TestLeftBehindNeverLeads(t *testing.T) {
	t.Parallel()
	c := newClusterWith(t, 3, func(c *Config) { c.LogAfter, c.ReplaceAfter = 100*time.Millisecond, time.Second })
	g := c.group(TableSpec{Name: "t", Replicas: 2, Policy: "all-in-sync"})
	lost := g.peers()[0]
	_, mc := g.master()
	old, _ := mc.view.Load().Configurations.Last().OnNode(lost)
	c.stop(g.at(lost))
	g.become("another pair", func(m *partition.Membership) bool {
		_, still := m.OnNode(lost)
		return fullOn(2)(m) && !still
	})
	n, mc := g.master()
	eventually(t, "the permit is the members'", func() error {
		p, err := n.control.Permits(t.Context(), []partition.GroupID{g.id})
		if err != nil {
			return err
		}
		for _, m := range mc.view.Load().Configurations.Last().Members {
			if !slices.Contains(p[0].Able, m.Replica) && m.Replica < p[0].Next {
				return fmt.Errorf("%s, without replica %d", p[0].String(), m.Replica)
			}
		}
		return nil
	})
	grants, err := n.control.AcquireLocks(t.Context(), []control.LockRequest{{Group: g.id, Replica: old.Replica, Failover: true}})
	if err != nil || len(grants) != 1 || grants[0].Number != 0 {
		t.Errorf("the removed replica %d gets the lock: %+v, %v", old.Replica, grants, err)
	}
}
