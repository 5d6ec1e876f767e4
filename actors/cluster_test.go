package actors

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"pando.dev/pando/partition"
)

// patience bounds every wait of these tests; only a broken cluster reaches it.
const patience = time.Minute

// testCluster is a cluster of real nodes in this process: real sockets on
// loopback, real files, everything but processes of their own.
type testCluster struct {
	tb    testing.TB
	cfgs  []Config
	nodes []*Node
}

func newCluster(tb testing.TB, size int) *testCluster {
	tb.Helper()
	return newClusterWith(tb, size, func(*Config) {})
}

// newClusterWith starts nodes whose configuration adjust has changed.
func newClusterWith(tb testing.TB, size int, adjust func(*Config)) *testCluster {
	tb.Helper()
	c := &testCluster{tb: tb}
	level := slog.LevelWarn
	if os.Getenv("PANDO_TEST_DEBUG") != "" {
		level = slog.LevelDebug
	}
	logger := slog.New(slog.NewTextHandler(tb.Output(), &slog.HandlerOptions{Level: level}))
	for i := range size {
		c.cfgs = append(c.cfgs, Config{
			Dir: tb.TempDir(), Cluster: "test", NodeID: partition.NodeID(fmt.Sprintf("n%d", i+1)),
			Zone: string(rune('a' + i)), Listen: "127.0.0.1:0", Gossip: "127.0.0.1:0", Expect: min(size, 3),
			WALSegmentBytes: 1 << 20, MemoryBytes: 16 << 20, CacheBytes: 16 << 20, Logger: logger,
		})
		adjust(&c.cfgs[i])
		c.nodes = append(c.nodes, nil)
	}
	for i := range size {
		c.start(i)
	}
	return c
}

// start starts node i, joining whoever runs.
func (c *testCluster) start(i int) *Node {
	c.tb.Helper()
	cfg := c.cfgs[i]
	for _, n := range c.nodes {
		if n != nil {
			cfg.Join = append(cfg.Join, n.GossipAddr())
		}
	}
	n, err := Start(c.tb.Context(), cfg)
	if err != nil {
		c.tb.Fatalf("start %s: %v", cfg.NodeID, err)
	}
	c.nodes[i] = n
	c.tb.Cleanup(func() { c.stop(i) })
	return n
}

func (c *testCluster) stop(i int) {
	n := c.nodes[i]
	if n == nil {
		return
	}
	c.nodes[i] = nil
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := n.Stop(ctx); err != nil {
		c.tb.Errorf("stop %s: %v", n.ID(), err)
	}
}

// contextWithin is for goroutines that may outlive the test's own context.
func contextWithin(tb testing.TB, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(tb.Context()), d)
}

// eventually waits until check returns nil.
func eventually(tb testing.TB, what string, check func() error) {
	tb.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-deadline.C:
			tb.Fatalf("%s: %v", what, err)
		case <-tick.C:
		}
	}
}

// table makes a table and waits until each of its partitions has a master.
func (c *testCluster) table(spec TableSpec) {
	c.tb.Helper()
	n := c.any()
	eventually(c.tb, "a control group", n.Ready)
	eventually(c.tb, "all nodes", func() error {
		alive := 0
		for _, m := range n.Members() {
			if m.Status == "alive" {
				alive++
			}
		}
		if alive < c.running() {
			return fmt.Errorf("%d of %d nodes are alive", alive, c.running())
		}
		return nil
	})
	if _, err := n.CreateTable(c.tb.Context(), spec); err != nil {
		c.tb.Fatalf("create table: %v", err)
	}
	eventually(c.tb, "all nodes to hear of the table", func() error {
		for _, x := range c.nodes {
			if x != nil && len(x.control.Catalog().Groups(spec.Name)) == 0 {
				return fmt.Errorf("%s has not", x.ID())
			}
		}
		return nil
	})
	eventually(c.tb, "a master for every partition", func() error {
		infos, err := n.Partitions(c.tb.Context(), spec.Name)
		if err != nil {
			return err
		}
		for _, p := range infos {
			if p.Master == "" {
				return fmt.Errorf("partition %s: %+v", p.Group, p.Replicas)
			}
		}
		return nil
	})
}

func (c *testCluster) any() *Node {
	for _, n := range c.nodes {
		if n != nil {
			return n
		}
	}
	c.tb.Fatal("no node runs")
	return nil
}

func (c *testCluster) running() int {
	r := 0
	for _, n := range c.nodes {
		if n != nil {
			r++
		}
	}
	return r
}

// master returns which node is master of the table's only partition.
func (c *testCluster) master(table string) int {
	c.tb.Helper()
	at := -1
	eventually(c.tb, "a master", func() error {
		infos, err := c.any().Partitions(c.tb.Context(), table)
		if err != nil {
			return err
		}
		for i, n := range c.nodes {
			if n != nil && n.ID() == infos[0].Master {
				at = i
				return nil
			}
		}
		return fmt.Errorf("master is %q", infos[0].Master)
	})
	return at
}

func put(ctx context.Context, n *Node, key, value string) error {
	_, err := n.Client().KV("t").Put(ctx, []byte(key), []byte(value))
	return err
}

func get(ctx context.Context, n *Node, key string) (string, error) {
	a, err := n.Client().KV("t").Get(ctx, []byte(key))
	return string(a.Value), err
}

// TestClusterServes is the first five minutes: three nodes find each other, a
// table takes data, and every node answers for it.
func TestClusterServes(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	c.table(TableSpec{Name: "t"})
	for i := range 100 {
		if err := put(t.Context(), c.nodes[i%3], fmt.Sprintf("k%03d", i), fmt.Sprintf("v%d", i)); err != nil {
			t.Fatalf("put %d: %v", i, err)
		}
	}
	for i := range 100 {
		got, err := get(t.Context(), c.nodes[(i+1)%3], fmt.Sprintf("k%03d", i))
		if err != nil || got != fmt.Sprintf("v%d", i) {
			t.Fatalf("get %d: %q, %v", i, got, err)
		}
	}
	st, err := c.nodes[0].Status(t.Context())
	if err != nil || st.CanLose != 1 {
		t.Errorf("status: %+v, %v; want to be able to lose one node", st, err)
	}
}

// TestMasterStops covers SMF-1 in one process: the node of the master goes, and
// everything acknowledged is still there.
func TestMasterStops(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	c.table(TableSpec{Name: "t"})
	for round := range 3 {
		key := fmt.Sprintf("round%d", round)
		if err := put(t.Context(), c.any(), key, key); err != nil {
			t.Fatalf("put in round %d: %v", round, err)
		}
		m := c.master("t")
		c.stop(m)
		for r := range round + 1 {
			k := fmt.Sprintf("round%d", r)
			if got, err := get(t.Context(), c.any(), k); err != nil || got != k {
				t.Fatalf("after stop %d: get %s: %q, %v", round, k, got, err)
			}
		}
		c.start(m)
		eventually(t, "the node back", c.nodes[m].Ready)
	}
}

// TestAllStop covers SMF-12: after all nodes stopped, everything acknowledged is
// there and no epoch is used again.
func TestAllStop(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	c.table(TableSpec{Name: "t", SplitPoints: [][]byte{[]byte("m")}})
	for _, k := range []string{"a", "z"} {
		if err := put(t.Context(), c.any(), k, k); err != nil {
			t.Fatalf("put: %v", err)
		}
	}
	for i := range c.nodes {
		c.stop(i)
	}
	for i := range c.nodes {
		c.start(i)
	}
	for _, k := range []string{"a", "z"} {
		if got, err := get(t.Context(), c.any(), k); err != nil || got != k {
			t.Fatalf("get %s: %q, %v", k, got, err)
		}
	}
}
