package actors

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"pando.dev/pando/partition"
)

// quick has members replaced soon.
func quick(c *Config) { c.LogAfter, c.ReplaceAfter = 300*time.Millisecond, 3*time.Second }

// never has nobody replaced within a test.
func never(c *Config) { c.LogAfter, c.ReplaceAfter = time.Hour, time.Hour }

// membership is the group's configuration as its master has it, committed.
func (g *groupOf) membership() (*partition.Membership, error) {
	for _, n := range g.nodes {
		if n == nil {
			continue
		}
		if c := n.cells.get(g.id); c != nil {
			if v := c.view.Load(); v != nil && v.Serving && v.Master == v.Self {
				if len(v.Configurations) > 1 {
					return nil, errors.New("a change is under way")
				}
				return v.Configurations[0], nil
			}
		}
	}
	return nil, errors.New("nobody serves")
}

// why says what the group's master does for it.
func (g *groupOf) why() string {
	for _, n := range g.nodes {
		if n == nil {
			continue
		}
		if step, why := n.tending(g.id); step+why != "" {
			return fmt.Sprintf("%s: %s (%s)", n.ID(), why, step)
		}
	}
	return "nothing is to be done"
}

// become waits until the group's configuration fits.
func (g *groupOf) become(what string, fits func(*partition.Membership) bool) *partition.Membership {
	g.tb.Helper()
	var m *partition.Membership
	eventually(g.tb, what, func() (err error) {
		if m, err = g.membership(); err != nil {
			return fmt.Errorf("%w; %s", err, g.why())
		}
		if !fits(m) {
			return fmt.Errorf("it is %+v; %s", m.Members, g.why())
		}
		return nil
	})
	return m
}

// fullOn fits a configuration of full eligible members on so many nodes.
func fullOn(n int) func(*partition.Membership) bool {
	return func(m *partition.Membership) bool {
		for _, x := range m.Members {
			if x.Kind != partition.Full || !x.Eligible {
				return false
			}
		}
		return len(m.Members) == n
	}
}

// at returns the index of a node.
func (c *testCluster) at(id partition.NodeID) int {
	return slices.IndexFunc(c.cfgs, func(cfg Config) bool { return cfg.NodeID == id })
}

// writer writes one key after another until it is stopped, and remembers what was
// acknowledged.
type writer struct {
	stop  context.CancelFunc
	wg    sync.WaitGroup
	mu    sync.Mutex
	acked int
	err   error
}

func (g *groupOf) write(n *Node) *writer {
	ctx, cancel := context.WithCancel(g.tb.Context())
	w := &writer{stop: cancel}
	kv := n.Client().KV("t")
	w.wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			limited, cancel := context.WithTimeout(ctx, patience)
			_, err := kv.Put(limited, fmt.Appendf(nil, "w%06d", i), fmt.Appendf(nil, "%d", i))
			cancel()
			w.mu.Lock()
			if err != nil && ctx.Err() == nil {
				w.err = fmt.Errorf("write %d: %w", i, err)
				w.mu.Unlock()
				return
			}
			if err == nil {
				w.acked = i + 1
			}
			w.mu.Unlock()
		}
	})
	g.tb.Cleanup(func() { cancel(); w.wg.Wait() })
	return w
}

// check stops the writer and reads everything back.
func (w *writer) check(tb testing.TB, n *Node) {
	tb.Helper()
	w.stop()
	w.wg.Wait()
	if w.err != nil {
		tb.Errorf("a write failed: %v", w.err)
	}
	for i := range w.acked {
		got, err := n.Client().KV("t").Get(tb.Context(), fmt.Appendf(nil, "w%06d", i))
		if err != nil || string(got.Value) != fmt.Sprint(i) {
			tb.Fatalf("write %d was acknowledged and is lost: %q, %v", i, got.Value, err)
		}
	}
	if w.acked == 0 {
		tb.Error("nothing was written")
	}
	tb.Logf("%d writes", w.acked)
}

// MEM-1, MEM-5: three replicas, five, three, under load; every version is one
// more than the last, and all members agree.
func TestTenderAltersReplicas(t *testing.T) {
	t.Parallel()
	c := newClusterWith(t, 5, never)
	g := c.group(TableSpec{Name: "t", Replicas: 3})
	w := g.write(c.nodes[0])
	for _, n := range []int{5, 3, 4, 3} {
		if _, err := c.nodes[1].AlterTable(t.Context(), "t", TableChange{Replicas: n}); err != nil {
			t.Fatal(err)
		}
		m := g.become(fmt.Sprintf("%d replicas", n), fullOn(n))
		eventually(t, "every member knows", func() error {
			for _, x := range m.Members {
				c := c.nodes[g.at(x.Node)].cells.get(g.id)
				if c == nil || c.view.Load() == nil || c.view.Load().Configurations.Last().Version != m.Version {
					return fmt.Errorf("not %s", x.Node)
				}
			}
			return nil
		})
	}
	w.check(t, c.nodes[2])
}
