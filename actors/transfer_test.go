package actors

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"pando.dev/pando/partition"
)

// stream writes one key after another until it is stopped, and notes when each
// was acknowledged.
type stream struct {
	mu     sync.Mutex
	acked  []time.Time
	errs   []error
	writes int
}

func (s *stream) run(c *testCluster, writer int, stop <-chan struct{}) {
	ctx, cancel := contextWithin(c.tb, patience)
	defer cancel()
	n := c.nodes[writer%len(c.nodes)]
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		err := put(ctx, n, fmt.Sprintf("w%d", writer), fmt.Sprint(i))
		s.mu.Lock()
		s.writes++
		if err != nil {
			s.errs = append(s.errs, err)
		} else {
			s.acked = append(s.acked, time.Now())
		}
		s.mu.Unlock()
	}
}

// gap returns the longest time without an acknowledged write that touches the
// span.
func (s *stream) gap(from, to time.Time) (longest time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.SortFunc(s.acked, time.Time.Compare)
	for i := 1; i < len(s.acked); i++ {
		if s.acked[i].After(from) && s.acked[i-1].Before(to) {
			longest = max(longest, s.acked[i].Sub(s.acked[i-1]))
		}
	}
	return longest
}

// last returns when the last write was acknowledged.
func (s *stream) last() (at time.Time, count int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.acked); n > 0 {
		at = s.acked[n-1]
	}
	return at, len(s.acked)
}

// TestTransferUnderLoad (SMF-11, LEA-5): the mastership goes round among three
// nodes while clients write. No write fails, which includes those whose outcome
// would be unknown, and the log of the test says how long the longest gap was.
func TestTransferUnderLoad(t *testing.T) {
	const rounds, writers = 12, 8
	c := newCluster(t, 3)
	c.table(TableSpec{Name: "t"})
	group := c.any().control.Catalog().Groups("t")[0].ID
	var s stream
	var running sync.WaitGroup
	stop := make(chan struct{})
	for w := range writers {
		running.Go(func() { s.run(c, w, stop) })
	}
	var gaps []time.Duration
	for range rounds {
		at := c.master("t")
		to := c.nodes[(at+1)%3].ID()
		from := time.Now()
		done := c.handOver(group, at, to)
		if now := c.master("t"); c.nodes[now].ID() != to {
			t.Fatalf("handed to %s, master is %s", to, c.nodes[now].ID())
		}
		eventually(t, "a write after it", func() error {
			if at, _ := s.last(); !at.After(done) {
				return fmt.Errorf("none since %v", time.Since(done))
			}
			return nil
		})
		gaps = append(gaps, s.gap(from, done))
	}
	close(stop)
	running.Wait()
	_, acked := s.last()
	slices.Sort(gaps)
	t.Logf("%d writes; longest gap per hand-over: median %v, greatest %v", acked, gaps[len(gaps)/2].Round(time.Microsecond), gaps[len(gaps)-1].Round(time.Microsecond))
	if len(s.errs) > 0 || acked < rounds {
		t.Errorf("%d of %d writes failed: %v", len(s.errs), s.writes, s.errs[:min(3, len(s.errs))])
	}
}

// handOver hands the group over as an operator does, who may have to ask again
// when the heir is not ready, and returns when it was said to be done.
func (c *testCluster) handOver(g partition.GroupID, at int, to partition.NodeID) (done time.Time) {
	c.tb.Helper()
	eventually(c.tb, "the hand-over", func() error {
		_, err := c.nodes[at].Change(c.tb.Context(), PartitionChange{Kind: ChangeTransfer, Group: g, Node: to})
		done = time.Now()
		return err
	})
	return done
}

// TestIdleGroupRegainsItsLease (LEA-2): both other nodes restart, one after the
// other. Grants of their old incarnations count no more, so the master, which
// nobody writes to, asks them to confirm its epoch, and has its lease again.
func TestIdleGroupRegainsItsLease(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	c.table(TableSpec{Name: "t"})
	if err := put(t.Context(), c.any(), "k", "v"); err != nil {
		t.Fatalf("put: %v", err)
	}
	g, at := c.any().control.Catalog().Groups("t")[0], c.master("t")
	master := c.nodes[at]
	epoch := master.cells.get(g.ID).view.Load().Epoch
	for i := range c.nodes {
		if i == at {
			continue
		}
		c.stop(i)
		n := c.start(i)
		s := supporterOn(n, g)
		eventually(t, "the lease", func() error {
			v := master.cells.get(g.ID).view.Load()
			if !slices.Contains(v.Supporters, s) {
				return fmt.Errorf("supporters %v, without %v", v.Supporters, s)
			}
			if v.Epoch != epoch || master.now() >= v.LeaseEnd(master.leases) {
				return fmt.Errorf("no lease in epoch %s, %s before", v.Epoch, epoch)
			}
			return nil
		})
	}
}
