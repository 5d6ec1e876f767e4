package actors

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"pando.dev/pando/actors/client"
	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
	"pando.dev/pando/split/load"
)

// readOften reads keys of a table, so many a second, until the context ends.
func readOften(ctx context.Context, tb testing.TB, n *Node, table string, perSecond int, key func(*rand.Rand) string) {
	const beat = 10 * time.Millisecond
	rng := rand.New(rand.NewPCG(1, 2))
	kv := n.Client().KV(table)
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for range perSecond * int(beat) / int(time.Second) {
			if _, err := kv.Get(ctx, []byte(key(rng))); err != nil && ctx.Err() == nil && !errors.Is(err, partition.ErrNotFound) {
				tb.Errorf("read of %s: %v", table, err)
				return
			}
		}
	}
}

func zipfKeys() func(*rand.Rand) string {
	z := rand.NewZipf(rand.New(rand.NewPCG(3, 4)), 1.2, 50, 999)
	return func(*rand.Rand) string { return fmt.Sprintf("k%03d", z.Uint64()) }
}

func oneHotKey(rng *rand.Rand) string {
	if rng.IntN(10) > 0 {
		return "hot"
	}
	return fmt.Sprintf("k%03d", rng.IntN(1000))
}

// What is asked of the two tables a second.
const askSkewed, askOne = 500, 100

// TestSplitsByLoad covers SPL-6 and SPL-7: a hot range under a skewed load divides
// itself until no node carries more than 1.25 times the mean, and a key that is the
// load by itself is named and not divided.
func TestSplitsByLoad(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	c.table(TableSpec{Name: "t", Splits: SplitPolicy{Mode: "auto", Load: 100}})
	c.table(TableSpec{Name: "one", Splits: SplitPolicy{Mode: "auto", Load: 50}})
	ctx, cancel := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	asking.Go(func() { readOften(ctx, t, c.nodes[0], "t", askSkewed, zipfKeys()) })
	asking.Go(func() { readOften(ctx, t, c.nodes[1], "one", askOne, oneHotKey) })
	defer asking.Wait()
	defer cancel()

	var task *control.Task
	eventually(t, "a split for load", func() error {
		for _, x := range c.nodes[2].control.Catalog().Tasks() {
			if x.Kind == control.TaskSplit && x.State == control.TaskDone {
				task = x
				return nil
			}
		}
		return errors.New("none is done")
	})
	if task.By != splitBy || task.Reason == "" || len(task.Children) < 2 { // fewer the busier the machine is
		t.Errorf("%d children, by %q, for %q", len(task.Children), task.By, task.Reason)
	}
	eventually(t, "the load to be spread", func() error { return spread(c.nodes[2].control.Catalog()) })

	eventually(t, "the hot key to be named", func() error {
		info, err := c.nodes[2].Hot(t.Context(), HotOptions{Table: "one"})
		if err != nil || len(info.Partitions) != 1 {
			return fmt.Errorf("%+v, %v", info, err)
		}
		if p := info.Partitions[0]; p.Decision != load.HotKey.String() || string(p.HotKey) != "hot" || p.HotKeyShare < 0.8 || p.Reason == "" {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
	if infos, err := c.nodes[2].Partitions(t.Context(), "one"); err != nil || len(infos) != 1 {
		t.Errorf("%d partitions of a table with one hot key, %v", len(infos), err)
	}
}

// spread returns an error unless each of three nodes has its share of the load.
func spread(cat *control.Catalog) error {
	const draws = 20_000
	byNode := make(map[partition.NodeID]int)
	key := zipfKeys()
	for range draws {
		g, err := cat.Lookup("t", []byte(key(nil)))
		if err != nil {
			return err
		}
		byNode[g.Master]++
	}
	byNode[cat.Groups("one")[0].Master] += draws * askOne / askSkewed
	for n, x := range byNode {
		if over := float64(x) * 3 / (draws + draws*askOne/askSkewed); over > 1.25 {
			return fmt.Errorf("node %s has %.2f times the mean", n, over)
		}
	}
	return nil
}

// TestSplitsBySize covers SPL-6: a table that says nothing of splits divides what
// has grown too large, and one that forbids it does not.
func TestSplitsBySize(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1)
	const limit = 1 << 20
	c.table(TableSpec{Name: "t", Splits: SplitPolicy{Size: limit}})
	n := c.nodes[0]
	value := make([]byte, 16<<10)
	rng := rand.NewChaCha8([32]byte{})
	i := 0
	eventually(t, "a split for size", func() error {
		for range 3 {
			if len(n.control.Catalog().Tasks()) > 0 {
				break // what is written now would make the pieces too large
			}
			rng.Read(value)
			if err := put(t.Context(), n, fmt.Sprintf("k%05d", i*7919%10000), string(value)); err != nil {
				return err
			}
			i++
		}
		if done(n) != 1 {
			return fmt.Errorf("after %d values: %+v", i, n.loads.report(0))
		}
		return nil
	})
	// The pieces have the files of the whole for a while, and are not divided for that.
	eventually(t, "all pieces to be measured", func() error {
		report := n.loads.report(0)
		for range 10 {
			if err := put(t.Context(), n, fmt.Sprintf("k%05d", rand.IntN(10000)), "v"); err != nil {
				return err
			}
		}
		for _, p := range report.Hottest {
			if p.Bytes == 0 {
				return fmt.Errorf("%s is not", p.Group)
			}
		}
		if len(report.Hottest) < 3 {
			return fmt.Errorf("%d partitions", len(report.Hottest))
		}
		return nil
	})
	report := n.loads.report(0)
	for _, p := range report.Hottest {
		if p.Bytes > limit {
			t.Errorf("a piece has %d bytes, limit %d: %+v", p.Bytes, limit, p)
		}
	}
}

// done counts the splits that a policy wanted and that are done.
func done(n *Node) (splits int) {
	for _, x := range n.control.Catalog().Tasks() {
		if x.Kind == control.TaskSplit && x.State == control.TaskDone && x.By == splitBy {
			splits++
		}
	}
	return splits
}

// TestSplitPolicyOfTable: the policy is set with the table or later, and shown.
func TestSplitPolicyOfTable(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1)
	c.table(TableSpec{Name: "t", Splits: SplitPolicy{Mode: "off", Load: 7}})
	n := c.nodes[0]
	show := func() SplitPolicy { return n.Tables()[0].Splits }
	if p := show(); p.Mode != "off" || p.Load != 7 || p.Size != control.DefaultSplitSize {
		t.Errorf("%+v", p)
	}
	if _, err := n.AlterTable(t.Context(), "t", TableChange{Splits: SplitPolicy{Mode: "auto"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.AlterTable(t.Context(), "t", TableChange{Replicas: 1, Splits: SplitPolicy{Rest: time.Minute}}); err != nil {
		t.Fatal(err)
	}
	if p := show(); p.Mode != "auto" || p.Load != 7 || p.Rest != time.Minute {
		t.Errorf("%+v", p)
	}
	for _, bad := range []SplitPolicy{{Mode: "some"}, {Size: 1}} {
		if _, err := n.AlterTable(t.Context(), "t", TableChange{Splits: bad}); !errors.Is(err, partition.ErrInvalid) {
			t.Errorf("%+v: %v", bad, err)
		}
		if _, err := n.CreateTable(t.Context(), TableSpec{Name: "u", Splits: bad}); !errors.Is(err, partition.ErrInvalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// TestLoadCounts is PG7 on the way of every request: nothing is allocated, and what
// is counted is what came.
func TestLoadCounts(t *testing.T) {
	l, c := &loads{}, &cell{}
	write := &client.Request{Op: client.OpPropose, Key: []byte("key"), Body: make([]byte, 97)}
	read := &client.Request{Op: client.OpRead, Key: []byte("key")}
	l.wrote(c, write)
	if n := testing.AllocsPerRun(100, func() { l.wrote(c, write); l.read(c, read, 7) }); n != 0 {
		t.Errorf("a cold partition's request allocates %.0f times", n)
	}
	if len(l.woken) != 2 {
		t.Errorf("woken %d times", len(l.woken))
	}
	if n, b := taken(&c.load.writes); n != 102 || b != 102*100 {
		t.Errorf("%d writes, %d bytes", n, b)
	}
	if n, b := taken(&c.load.reads); n != 101 || b != 101*10 {
		t.Errorf("%d reads, %d bytes", n, b)
	}
	l.wrote(c, &client.Request{Op: client.OpOpenSession})
	if n, _ := taken(&c.load.writes); n != 0 || len(l.woken) != 2 {
		t.Error("a session counts as a write")
	}
	keys := &sampling{s: load.NewSampler(1)}
	c.load.sampling.Store(keys)
	l.read(c, read, 0)
	if keys.s.Count() != 1 || len(l.woken) != 3 {
		t.Errorf("%d keys in the sample, woken %d times", keys.s.Count(), len(l.woken))
	}
	keys.mu.Lock()
	l.read(c, read, 0) // does not wait
	keys.mu.Unlock()
}

// BenchmarkLoadCounts is PG7: what counting adds to a request.
func BenchmarkLoadCounts(b *testing.B) {
	for name, s := range map[string]*load.Sampler{"cold": nil, "sampled": load.NewSampler(1)} {
		b.Run(name, func(b *testing.B) {
			l, c := &loads{}, &cell{}
			if s != nil {
				c.load.sampling.Store(&sampling{s: s})
			}
			var keys [1 << 10]client.Request
			for i := range keys {
				keys[i] = client.Request{Op: client.OpRead, Key: fmt.Appendf(nil, "%032d", i*7919%len(keys))}
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				l.read(c, &keys[i&(len(keys)-1)], 100)
			}
		})
	}
}

// TestSplitWhereTheLoadIs covers SPL-6 and SPL-7: a split at the middle of the load
// of a partition that nobody has looked at before, and one for an anomaly, which
// heeds the policy.
func TestSplitWhereTheLoadIs(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	c.table(TableSpec{Name: "t", Splits: SplitPolicy{Rest: time.Hour}})
	c.table(TableSpec{Name: "off", Splits: SplitPolicy{Mode: "off"}})
	n := c.nodes[0]
	if err := put(t.Context(), n, "a", "v"); err != nil { // what is stored says another middle
		t.Fatal(err)
	}
	of := func(table string, i int) *control.Group { return n.control.Catalog().Groups(table)[i] }
	if _, err := n.PlanSplit(t.Context(), SplitRequest{Table: "t", Into: 2, ByLoad: true}); !errors.Is(err, partition.ErrUnavailable) {
		t.Errorf("without load: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	asking.Go(func() {
		readOften(ctx, t, n, "t", 500, func(rng *rand.Rand) string { return fmt.Sprintf("x%03d", rng.IntN(1000)) })
	})
	defer asking.Wait()
	defer cancel()
	eventually(t, "a split for an anomaly", func() error {
		info, err := n.SplitForAnomaly(t.Context(), of("t", 0).ID, []partition.NodeID{"n2"}, "its disk is slow")
		if err != nil {
			return err
		}
		if lo := string(info.Pieces[0].Lo); lo < "x300" || lo > "x700" {
			t.Errorf("it divides at %s", lo)
		}
		return nil
	})
	eventually(t, "its end", func() error {
		for _, x := range n.control.Catalog().Tasks() {
			if x.Reason == "its disk is slow" && x.State == control.TaskDone {
				return nil
			}
		}
		return errors.New("it is not done")
	})
	eventually(t, "the hand-over of the half", func() error {
		if g := of("t", 1); g.Master == of("t", 0).Master || g.Master == "n2" {
			return fmt.Errorf("its master is on %s", g.Master)
		}
		return nil
	})
	for table, want := range map[string]partition.Code{"t": partition.CodeBusy, "off": partition.CodeRefused} {
		if _, err := n.SplitForAnomaly(t.Context(), of(table, 0).ID, nil, "again"); partition.CodeOf(err) != want {
			t.Errorf("of table %s: %v", table, err)
		}
	}
}

// TestPlanHeedsLoad: a node whose partitions are asked for most is relieved by a plan
// to balance, by hand-overs alone.
func TestPlanHeedsLoad(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	c.table(TableSpec{Name: "t", SplitPoints: [][]byte{[]byte("b"), []byte("c"), []byte("d"), []byte("e"), []byte("f")}, Splits: SplitPolicy{Load: 20}})
	n := c.nodes[0]
	c.balanced(n)
	parts, err := n.Partitions(t.Context(), "t")
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, p := range parts {
		if p.Master == parts[0].Master {
			keys = append(keys, cmp.Or(string(p.Lo), "a"))
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	asking.Go(func() {
		readOften(ctx, t, n, "t", 400, func(rng *rand.Rand) string { return keys[rng.IntN(len(keys))] })
	})
	defer asking.Wait()
	defer cancel()
	eventually(t, "a plan that relieves the node", func() error {
		p, err := n.Rebalance(t.Context(), BalanceOptions{DryRun: true})
		if err != nil {
			return err
		}
		if len(p.Steps) == 0 || p.Before["load"] < 2 || p.After["load"] > 1.6 || p.Task.Bytes != 0 {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
}

// TestAutoRebalance covers SCL-8: a node that comes is given its share without a
// command, and then everything stays where it is.
func TestAutoRebalance(t *testing.T) {
	t.Parallel()
	c := newClusterWith(t, 2, func(cfg *Config) { cfg.AutoRebalance, cfg.autoLook, cfg.Expect = true, 200*time.Millisecond, 1 })
	c.stop(1)
	eventually(t, "the second node to be away", func() error {
		for _, m := range c.nodes[0].Members() {
			if m.Node == "n2" && m.Status == "alive" {
				return errors.New("it is there")
			}
		}
		return nil
	})
	c.table(TableSpec{Name: "t", Replicas: 1, SplitPoints: [][]byte{[]byte("b"), []byte("c"), []byte("d")}})
	c.start(1)
	n := c.nodes[0]
	eventually(t, "the new node's share", func() error {
		on := make(map[partition.NodeID]int)
		cat := n.control.Catalog()
		for _, g := range cat.Groups("t") {
			on[g.Master]++
		}
		for _, x := range cat.Tasks() {
			if x.Open() {
				return fmt.Errorf("task %s is open", x.ID)
			}
		}
		if on["n1"] != 2 || on["n2"] != 2 {
			return fmt.Errorf("%v", on)
		}
		return nil
	})
	plans := 0
	for _, x := range n.control.Catalog().Tasks() {
		if x.Kind == control.TaskPlan {
			plans++
			if x.By != balanceBy {
				t.Errorf("a plan by %q", x.By)
			}
		}
	}
	if plans != 1 {
		t.Errorf("%d plans", plans)
	}
}

// TestMergesTheCold: of an elastic table neighbours that nobody asks for become one
// partition, one that is asked for stays, and a table that does not want it is left
// alone.
func TestMergesTheCold(t *testing.T) {
	t.Parallel()
	c := newClusterWith(t, 3, func(cfg *Config) { cfg.coldLook, cfg.coldFor = 100*time.Millisecond, 2*time.Second })
	points := [][]byte{[]byte("b"), []byte("c"), []byte("d")}
	c.table(TableSpec{Name: "t", SplitPoints: points, Splits: SplitPolicy{Mode: "elastic", Load: 100}})
	c.table(TableSpec{Name: "auto", SplitPoints: points, Splits: SplitPolicy{Mode: "auto"}})
	n := c.nodes[0]
	ctx, cancel := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	asking.Go(func() { readOften(ctx, t, n, "t", 100, func(*rand.Rand) string { return "x" }) })
	defer asking.Wait()
	defer cancel()
	merges := func() (all int) {
		for _, x := range n.control.Catalog().Tasks() {
			if x.Kind == control.TaskMerge && x.By == splitBy {
				all++
			}
		}
		return all
	}
	eventually(t, "the cold ones to be one", func() error {
		if g := n.control.Catalog().Groups("t"); len(g) != 2 || string(g[1].Range.Lo) != "d" {
			return fmt.Errorf("%d partitions, %d merges", len(g), merges())
		}
		return nil
	})
	for range 3 {
		for _, x := range c.nodes {
			x.loads.mergeOnce()
		}
	}
	if g := n.control.Catalog().Groups("auto"); merges() != 2 || len(g) != 4 {
		t.Errorf("%d merges; of a table that does not want it %d of 4 partitions", merges(), len(g))
	}
}
