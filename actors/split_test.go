package actors

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pando.dev/pando/actors/client"
	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/kv"
	"pando.dev/pando/split"
)

// TestSplit covers SPL-1 without load: the keys are there exactly once afterwards,
// on every node, both halves take writes, and both groups say what they serve.
func TestSplit(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	c.table(TableSpec{Name: "t"})
	for i := range 100 {
		if err := put(t.Context(), c.nodes[i%3], fmt.Sprintf("k%03d", i), fmt.Sprintf("v%d", i)); err != nil {
			t.Fatalf("put %d: %v", i, err)
		}
	}
	stale := c.client(t)
	if _, err := stale.KV("t").Get(t.Context(), []byte("k099")); err != nil {
		t.Fatal(err)
	}
	c.split(SplitRequest{Table: "t", Into: 2, By: "test"})
	for i := range 100 {
		got, err := get(t.Context(), c.nodes[i%3], fmt.Sprintf("k%03d", i))
		if err != nil || got != fmt.Sprintf("v%d", i) {
			t.Fatalf("get %d: %q, %v", i, got, err)
		}
		if err := put(t.Context(), c.nodes[i%3], fmt.Sprintf("k%03d", i), "again"); err != nil {
			t.Fatalf("put %d: %v", i, err)
		}
	}
	infos, err := c.nodes[2].Partitions(t.Context(), "t")
	if err != nil || len(infos) != 2 {
		t.Fatalf("%+v, %v", infos, err)
	}
	if m := string(infos[1].Lo); m < "k040" || m > "k060" {
		t.Errorf("the middle is %q", m)
	}
	for _, p := range infos {
		if p.Extent == "" || p.Master == "" || p.CanLose != 1 {
			t.Errorf("%+v", p)
		}
	}
	pairs := 0
	for _, err := range c.nodes[0].Client().KV("t").Scan(t.Context(), partition.KeyRange{}, 0) {
		if err != nil {
			t.Fatal(err)
		}
		pairs++
	}
	if pairs != 100 {
		t.Errorf("%d pairs in the table", pairs)
	}
	// SPL-5: a client with routes of before the split gets on with what replicas tell.
	stats := stale.stats
	before := stats.Refreshes.Load()
	for _, key := range []string{"k099", "k000"} {
		if a, err := stale.KV("t").Get(t.Context(), []byte(key)); err != nil || string(a.Value) != "again" {
			t.Errorf("%s with old routes: %q, %v", key, a.Value, err)
		}
	}
	if n := stats.Refreshes.Load() - before; n != 0 || stats.Redirects.Load() == 0 {
		t.Errorf("%d questions for routes, %d redirects", n, stats.Redirects.Load())
	}
}

// outerClient is a client that asks over the network.
type outerClient struct {
	*client.Client
	stats *client.Stats
}

func (c *testCluster) client(tb testing.TB) outerClient {
	tb.Helper()
	out := outerClient{stats: &client.Stats{}}
	n := c.any()
	var err error
	out.Client, err = client.Open(tb.Context(), client.Config{Addrs: []string{n.LinkAddr()}, Dial: n.dialNode, Stats: out.stats})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(out.Close)
	return out
}

// split divides a partition and waits for the end.
func (c *testCluster) split(r SplitRequest) SplitInfo {
	c.tb.Helper()
	ctx, cancel := contextWithin(c.tb, patience)
	defer cancel()
	info, err := c.any().Split(ctx, r)
	if err == nil {
		info, err = c.any().AwaitSplit(ctx, info.Task)
	}
	if err != nil {
		c.tb.Fatalf("split: %+v, %v", info, err)
	}
	return info
}

// chain is a key of which each write depends on the one before: a write that is
// lost, or executed twice, breaks it.
type chain struct {
	key     string
	version kv.Version
	n       int
	gap     time.Duration
	last    time.Time
}

// chains write keys side by side until the context ends.
type chains struct {
	tb   testing.TB
	all  []*chain
	done sync.WaitGroup
	acks atomic.Int64
}

func (c *testCluster) load(ctx context.Context, workers int, table client.KV) *chains {
	x := &chains{tb: c.tb}
	for i := range workers {
		k := &chain{key: fmt.Sprintf("%c/%03d", "az"[i%2], i), last: time.Now()}
		x.all = append(x.all, k)
		x.done.Go(func() {
			for ctx.Err() == nil {
				if err := k.step(ctx, table); err != nil {
					c.tb.Errorf("%s: %v", k.key, err)
					return
				}
				x.acks.Add(1)
			}
		})
	}
	return x
}

func (k *chain) value(n int) []byte { return fmt.Appendf(nil, "%s=%d", k.key, n) }

// step writes the next value.
func (k *chain) step(ctx context.Context, table client.KV) error {
	cond := kv.IfVersion([]byte(k.key), k.version)
	if k.n == 0 {
		cond = kv.IfAbsent([]byte(k.key))
	}
	// The context of the load must not cut off a write: its outcome would be unknown.
	call, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	res, err := table.CompareAndSet(call, cond, k.value(k.n+1))
	if errors.Is(err, partition.ErrUnknown) {
		a, err := table.Get(call, []byte(k.key))
		if err != nil {
			return err
		}
		if string(a.Value) == string(k.value(k.n+1)) {
			k.n++
			k.version = a.Version
		}
		return nil
	}
	if err != nil {
		return err
	}
	if !res.Applied {
		return fmt.Errorf("write %d of a chain does not follow the one before: it was lost or executed twice; now %+v", k.n+1, res)
	}
	k.n, k.version = k.n+1, res.Version
	k.gap = max(k.gap, time.Since(k.last))
	k.last = time.Now()
	return nil
}

// check waits for the writers and reads everything again.
func (x *chains) check(table client.KV) {
	x.tb.Helper()
	x.done.Wait()
	ctx, cancel := contextWithin(x.tb, patience)
	defer cancel()
	left, stays := time.Duration(0), time.Duration(0)
	for _, k := range x.all {
		a, err := table.Get(ctx, []byte(k.key))
		if err != nil || string(a.Value) != string(k.value(k.n)) || a.Version != k.version {
			x.tb.Errorf("%s has %q of version %d, %v; acknowledged was %q of version %d", k.key, a.Value, a.Version, err, k.value(k.n), k.version)
		}
		if k.key[0] == 'z' {
			left = max(left, k.gap)
		} else {
			stays = max(stays, k.gap)
		}
	}
	x.tb.Logf("%d writes; longest gap: leaving range %s, retained range %s", x.acks.Load(), left, stays)
}

// settles until this many writes more were acknowledged.
func (x *chains) more(n int64) {
	x.tb.Helper()
	from := x.acks.Load()
	eventually(x.tb, "writes go on", func() error {
		if x.acks.Load() < from+n {
			return fmt.Errorf("%d writes", x.acks.Load()-from)
		}
		return nil
	})
}

// TestSplitUnderLoad covers SPL-1 and SPL-4: no acknowledged write is lost or
// doubled while a group is split, and then split again.
func TestSplitUnderLoad(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	c.table(TableSpec{Name: "t"})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	table := c.nodes[1].Client().KV("t")
	x := c.load(ctx, 16, table)
	x.more(200)
	c.split(SplitRequest{Table: "t", At: [][]byte{[]byte("m")}})
	x.more(200)
	c.split(SplitRequest{Table: "t", At: [][]byte{[]byte("z/005"), []byte("z/011")}})
	c.split(SplitRequest{Table: "t", At: [][]byte{[]byte("a/006")}})
	x.more(200)
	stop()
	x.check(table)
	if infos, err := c.nodes[0].Partitions(t.Context(), "t"); err != nil || len(infos) != 5 {
		t.Errorf("%d partitions, %v", len(infos), err)
	}
}

// name is a step as these tests name it.
func stepName(s *split.Step) string {
	if s.Kind == split.Propose {
		return s.Record.String()
	}
	return s.Kind.String()
}

// TestSplitMasterStops covers SPL-2 and S4: the master's node goes before each step, and
// the split ends one way or the other, with everything that was acknowledged.
func TestSplitMasterStops(t *testing.T) {
	for _, at := range []string{"intent", "hold", "seal", "activate", "release", "tell", "done"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			reached := make(chan *Node, 1)
			var once atomic.Bool
			c := newClusterWith(t, 3, func(cfg *Config) {
				cfg.onSplit = func(n *Node, s *split.Step) {
					if stepName(s) == at && !once.Swap(true) {
						reached <- n
						<-n.ctx.Done()
					}
				}
			})
			c.table(TableSpec{Name: "t"})
			m := c.master("t")
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			table := c.client(t).KV("t")
			x := c.load(ctx, 8, table)
			x.more(50)
			other := c.nodes[(m+1)%3]
			info, err := other.Split(t.Context(), SplitRequest{Table: "t", At: [][]byte{[]byte("m")}})
			if err != nil {
				t.Fatal(err)
			}
			select {
			case n := <-reached:
				m = slices.Index(c.nodes, n)
			case <-time.After(patience):
				t.Fatalf("never came to %s", at)
			}
			c.stop(m)
			other = c.any()
			x.more(50)
			c.start(m)
			wait, cancel := contextWithin(t, patience)
			defer cancel()
			if info, err = other.AwaitSplit(wait, info.Task); err != nil {
				t.Fatalf("%+v, %v", info, err)
			}
			x.more(50)
			stop()
			x.check(table)
		})
	}
}

// TestSplitAllRestart: all nodes stop right behind Activate, before any child was
// told of, and come back with both halves.
func TestSplitAllRestart(t *testing.T) {
	t.Parallel()
	reached := make(chan struct{}, 3)
	var go_ atomic.Bool
	c := newClusterWith(t, 3, func(cfg *Config) {
		cfg.onSplit = func(n *Node, s *split.Step) {
			if s.Kind == split.Tell && !go_.Load() {
				reached <- struct{}{}
				<-n.ctx.Done()
			}
		}
	})
	c.table(TableSpec{Name: "t"})
	for i := range 40 {
		if err := put(t.Context(), c.nodes[i%3], fmt.Sprintf("k%03d", i), "v"); err != nil {
			t.Fatal(err)
		}
	}
	info, err := c.nodes[0].Split(t.Context(), SplitRequest{Table: "t", At: [][]byte{[]byte("k020")}})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-reached:
	case <-time.After(patience):
		t.Fatal("never activated")
	}
	go_.Store(true)
	for i := range c.nodes {
		c.stop(i)
	}
	for i := range c.nodes {
		c.start(i)
	}
	ctx, cancel := contextWithin(t, patience)
	defer cancel()
	eventually(t, "a control group", c.nodes[0].Ready)
	if info, err = c.nodes[0].AwaitSplit(ctx, info.Task); err != nil {
		t.Fatalf("%+v, %v", info, err)
	}
	for i := range 40 {
		if got, err := get(ctx, c.nodes[i%3], fmt.Sprintf("k%03d", i)); err != nil || got != "v" {
			t.Errorf("get %d: %q, %v", i, got, err)
		}
	}
}

// TestSplitAborted covers SPL-12: a split that is called off before it is sealed
// leaves the group as it was and no file of a child, and another one may follow.
func TestSplitAborted(t *testing.T) {
	t.Parallel()
	reached, goOn := make(chan struct{}, 1), make(chan struct{})
	var once atomic.Bool
	c := newClusterWith(t, 3, func(cfg *Config) {
		cfg.onSplit = func(n *Node, s *split.Step) {
			if s.Kind == split.Hold && !once.Swap(true) {
				reached <- struct{}{}
				<-goOn
			}
		}
	})
	c.table(TableSpec{Name: "t"})
	if err := put(t.Context(), c.nodes[0], "z", "v"); err != nil {
		t.Fatal(err)
	}
	info, err := c.nodes[0].Split(t.Context(), SplitRequest{Table: "t", At: [][]byte{[]byte("m")}})
	if err != nil {
		t.Fatal(err)
	}
	<-reached
	if _, err := c.nodes[0].Split(t.Context(), SplitRequest{Table: "t", At: [][]byte{[]byte("p")}}); !errors.Is(err, partition.ErrExists) {
		t.Errorf("two splits at once: %v", err)
	}
	if err := c.nodes[0].control.CancelTask(t.Context(), control.TaskID(info.Task), "a test wants it"); err != nil {
		t.Fatal(err)
	}
	for _, n := range c.nodes { // whichever is the master has heard of it
		eventually(t, "the word to give up", func() error {
			if task, ok := n.control.Catalog().Task(control.TaskID(info.Task)); !ok || task.Cancel == "" {
				return fmt.Errorf("%s has not heard it", n.ID())
			}
			return nil
		})
	}
	close(goOn)
	ctx, cancel := contextWithin(t, patience)
	defer cancel()
	if _, err := c.nodes[0].AwaitSplit(ctx, info.Task); !errors.Is(err, partition.ErrRefused) {
		t.Errorf("the aborted split: %v", err)
	}
	if got, err := get(ctx, c.nodes[1], "z"); err != nil || got != "v" {
		t.Errorf("%q, %v", got, err)
	}
	child := info.Pieces[0].Group
	for i := range c.nodes {
		eventually(t, "nothing is left of the child", func() error {
			found, err := filepath.Glob(filepath.Join(c.cfgs[i].Dir, "stores", child.String(), "*"))
			if err == nil && len(found) > 0 {
				err = fmt.Errorf("left on node %d: %v", i, found)
			}
			return err
		})
		if _, err := os.Stat(filepath.Join(c.cfgs[i].Dir, "stores")); err != nil {
			t.Error(err)
		}
	}
	again := c.split(SplitRequest{Table: "t", At: [][]byte{[]byte("m")}})
	if again.Pieces[0].Group == child {
		t.Errorf("group id %s was used again", child)
	}
	if got, err := get(ctx, c.nodes[1], "z"); err != nil || got != "v" {
		t.Errorf("after the second: %q, %v", got, err)
	}
}

// TestSplitOnNewNodes covers SPL-10: the pieces go to nodes that had no replica, by
// a copy of the parent, which keeps none there; and what cannot be placed is refused.
func TestSplitOnNewNodes(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	c.table(TableSpec{Name: "t", Replicas: 1, Nodes: []partition.NodeID{"n1"}})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	table := c.nodes[1].Client().KV("t")
	x := c.load(ctx, 8, table)
	x.more(100)
	info := c.split(SplitRequest{Table: "t", At: [][]byte{[]byte("m")}, NewNodes: true})
	x.more(100)
	stop()
	x.check(table)
	if len(info.Pieces[0].Nodes) != 1 || info.Pieces[0].Nodes[0] == "n1" {
		t.Errorf("%+v", info)
	}
	eventually(t, "each half on one node", func() error {
		infos, err := c.nodes[0].Partitions(t.Context(), "t")
		if err != nil {
			return err
		}
		for i, p := range infos {
			if len(p.Replicas) != 1 || p.Master == "" || (p.Replicas[0].Node == "n1") != (i == 0) {
				return fmt.Errorf("%+v", p)
			}
		}
		return nil
	})
	c.table(TableSpec{Name: "u", Replicas: 2})
	if _, err := c.nodes[0].PlanSplit(t.Context(), SplitRequest{Table: "u", At: [][]byte{[]byte("m")}, NewNodes: true}); !errors.Is(err, partition.ErrRefused) {
		t.Errorf("on nodes that are not there: %v", err)
	}
}
