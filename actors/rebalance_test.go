package actors

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
)

// addNode starts one more node.
func (c *testCluster) addNode() *Node {
	c.tb.Helper()
	cfg := c.cfgs[0]
	i := len(c.nodes)
	cfg.Dir, cfg.NodeID, cfg.Zone = c.tb.TempDir(), partition.NodeID(fmt.Sprintf("n%d", i+1)), string(rune('a'+i))
	c.cfgs, c.nodes = append(c.cfgs, cfg), append(c.nodes, nil)
	return c.start(i)
}

// spread is how many replicas, and masterships, each node has.
func (c *testCluster) spread() (replicas, masters map[partition.NodeID]int, err error) {
	parts, err := c.any().Partitions(c.tb.Context(), "t")
	if err != nil {
		return nil, nil, err
	}
	replicas, masters = map[partition.NodeID]int{}, map[partition.NodeID]int{}
	for _, p := range parts {
		masters[p.Master]++
		if len(p.Replicas) != 3 || p.InFlight {
			return nil, nil, fmt.Errorf("partition %s has %+v", p.Group, p.Replicas)
		}
		for _, r := range p.Replicas {
			if r.Kind != partition.Full.String() || !r.Eligible {
				return nil, nil, fmt.Errorf("partition %s: replica %+v", p.Group, r)
			}
			replicas[r.Node]++
		}
	}
	return replicas, masters, nil
}

// writers write to all partitions until they are stopped.
type writers struct {
	stop  func()
	mu    sync.Mutex
	acked map[string]string
	err   error
	worst time.Duration
}

func (c *testCluster) writeAll(through *Node, n int) *writers {
	ctx, cancel := context.WithCancel(c.tb.Context())
	w := &writers{acked: map[string]string{}}
	var wg sync.WaitGroup
	w.stop = func() { cancel(); wg.Wait() }
	c.tb.Cleanup(w.stop)
	kv := through.Client().KV("t")
	for k := range n {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				key, value := fmt.Sprintf("%c%d", 'a'+(i+k*7)%20, i), fmt.Sprint(k, i)
				limited, cancel := context.WithTimeout(ctx, patience)
				began := time.Now()
				_, err := kv.Put(limited, []byte(key+fmt.Sprint("-", k)), []byte(value))
				took := time.Since(began)
				cancel()
				w.mu.Lock()
				if err == nil {
					w.acked[key+fmt.Sprint("-", k)] = value
					w.worst = max(w.worst, took)
				} else if ctx.Err() == nil {
					w.err = errors.Join(w.err, fmt.Errorf("put %s: %w", key, err))
				}
				w.mu.Unlock()
			}
		})
	}
	return w
}

// check stops them; every write was acknowledged and is there.
func (w *writers) check(c *testCluster) {
	c.tb.Helper()
	w.stop()
	if w.err != nil {
		c.tb.Fatal(w.err)
	}
	for key, value := range w.acked {
		if got, err := get(c.tb.Context(), c.any(), key); err != nil || got != value {
			c.tb.Fatalf("%s is %q, %v; acknowledged was %q", key, got, err, value)
		}
	}
}

// balanced carries out plans until there is nothing left to do, and returns all
// steps that were done.
func (c *testCluster) balanced(n *Node) (done []TaskInfo) {
	c.tb.Helper()
	for range 6 {
		var p PlanInfo
		eventually(c.tb, "a plan", func() (err error) { p, err = n.Rebalance(c.tb.Context(), BalanceOptions{By: "test"}); return err })
		if len(p.Steps) == 0 {
			return done
		}
		if t, err := n.StartPlan(c.tb.Context(), p.Task.ID); err != nil || t.State != "open" {
			c.tb.Fatalf("start: %+v, %v", t, err)
		}
		done = append(done, c.settled(n, p.Task.ID)...)
	}
	c.tb.Fatal("plans do not come to an end")
	return nil
}

// settled waits until a task is settled and returns its steps, all done.
func (c *testCluster) settled(n *Node, id control.TaskID) []TaskInfo {
	c.tb.Helper()
	var steps []TaskInfo
	eventually(c.tb, "the end of "+id.String(), func() error {
		all, err := n.Tasks(c.tb.Context())
		if err != nil {
			return err
		}
		steps = StepsOf(all, id)
		for _, t := range all {
			if t.ID == id && t.Settled() {
				return nil
			}
		}
		for _, s := range steps {
			if s.Open() {
				return fmt.Errorf("%d steps, one is %+v", len(steps), s)
			}
		}
		return errors.New("it goes on")
	})
	for _, s := range steps {
		if s.State != "done" {
			c.tb.Fatalf("step %+v", s)
		}
	}
	return steps
}

func moves(steps []TaskInfo) (n int) {
	for _, s := range steps {
		if s.Kind == "move" {
			n++
		}
	}
	return n
}

// TestRebalance covers SCL-1 to SCL-3, and SCL-7 as far as a plan comes first: a fourth node comes and gets its share and nothing else moves; it
// is emptied again and gives exactly what it has. Every write meanwhile is
// acknowledged, and found afterwards.
func TestRebalance(t *testing.T) {
	c := newCluster(t, 3)
	var splits [][]byte
	for k := 'b'; k < 'b'+19; k++ {
		splits = append(splits, []byte(string(k)))
	}
	c.table(TableSpec{Name: "t", SplitPoints: splits})
	n4 := c.addNode()
	n := c.nodes[0]
	eventually(t, "the new node", func() error {
		if !n.knows("n4") || n4.Ready() != nil {
			return errors.New("n4 is not ready")
		}
		return nil
	})
	w := c.writeAll(n, 4)
	began := time.Now()
	steps := c.balanced(n)
	for _, s := range steps {
		if s.Kind == "move" && s.To != "n4" {
			t.Errorf("%s moves from %s to %s", s.Group, s.From, s.To)
		}
	}
	replicas, masters, err := c.spread()
	if err != nil || moves(steps) != 15 || replicas["n4"] != 15 || masters["n4"] < 4 {
		t.Fatalf("%d moves, replicas %v, masters %v, %v", moves(steps), replicas, masters, err)
	}
	t.Logf("3 -> 4 in %v: %d moves, %d steps, replicas %v, masters %v", time.Since(began), moves(steps), len(steps), replicas, masters)

	began = time.Now()
	p, err := n.Decommission(t.Context(), BalanceOptions{Node: "n4"})
	if err != nil || p.Task.OfUnits == 0 {
		t.Fatalf("%+v, %v", p, err)
	}
	if _, err := n.Decommission(t.Context(), BalanceOptions{Node: "n3"}); !errors.Is(err, partition.ErrRefused) {
		t.Fatalf("two nodes would be left for three replicas: %v", err)
	}
	steps = c.settled(n, p.Task.ID)
	left, masters, err := c.spread()
	if err != nil || moves(steps) != 15 || left["n4"] != 0 || masters["n4"] != 0 {
		t.Fatalf("%d moves, replicas %v, masters %v, %v", moves(steps), left, masters, err)
	}
	t.Logf("4 -> 3 in %v: %d moves, %d steps, replicas %v, masters %v", time.Since(began), moves(steps), len(steps), left, masters)
	if q, err := n.Rebalance(t.Context(), BalanceOptions{DryRun: true}); err != nil || moves(q.Steps) != 0 {
		t.Fatalf("an empty node that leaves is to get %+v, %v", q.Steps, err)
	}
	if again, err := n.Recommission(t.Context(), "n4"); err != nil || again.State != "aborted" {
		t.Fatalf("%+v, %v", again, err)
	}
	w.check(c)
	t.Logf("%d writes, the slowest took %v", len(w.acked), w.worst)
	if maps.Equal(left, replicas) {
		t.Fatal("nothing moved")
	}
}

// stepsIn counts a plan's steps in a state.
func (c *testCluster) stepsIn(n *Node, plan control.TaskID, state string) (count int) {
	c.tb.Helper()
	all, err := n.Tasks(c.tb.Context())
	if err != nil {
		c.tb.Fatal(err)
	}
	for _, s := range StepsOf(all, plan) {
		if s.State == state {
			count++
		}
	}
	return count
}

// openSteps are the open steps of a plan that do not wait for a node: neither they
// nor another one of their group, which goes first, have to do with it.
func (c *testCluster) openSteps(n *Node, plan TaskID, but partition.NodeID) (rest []TaskInfo, err error) {
	all, err := n.Tasks(c.tb.Context())
	waits := make(map[partition.GroupID]bool)
	for _, s := range StepsOf(all, plan) {
		waits[s.Group] = waits[s.Group] || s.Open() && (s.To == but || s.From == but)
	}
	for _, s := range StepsOf(all, plan) {
		if s.Open() && !waits[s.Group] {
			rest = append(rest, s)
		}
	}
	return rest, err
}

// TestRebalanceOutlivesItsLeader: a plan begins, the node that leads the control
// group stops, and with it masters in the middle of moves; then a node that is to
// receive is gone for good. What can be done is done by whoever is master then,
// nobody waits for what cannot, and that can be given up.
func TestRebalanceOutlivesItsLeader(t *testing.T) {
	c := newClusterWith(t, 5, func(cfg *Config) { never(cfg); cfg.Zone = "z" })
	var splits [][]byte
	for _, k := range "bcdefgh" {
		splits = append(splits, []byte(string(k)))
	}
	c.table(TableSpec{Name: "t", SplitPoints: splits, Nodes: []partition.NodeID{"n1", "n2", "n3"}})
	var leader int
	eventually(t, "a leader", func() error {
		leader = c.at(c.nodes[0].control.Status().Leader)
		if leader < 0 {
			return errors.New("nobody leads")
		}
		return nil
	})
	n := c.nodes[3] // stays
	w := c.writeAll(n, 2)
	var p PlanInfo
	eventually(t, "a plan", func() (err error) { // a machine that stalls has no leader for a moment
		p, err = n.Rebalance(t.Context(), BalanceOptions{})
		return err
	})
	if moves(p.Steps) == 0 {
		t.Fatalf("%+v", p)
	}
	if _, err := n.StartPlan(t.Context(), p.Task.ID); err != nil {
		t.Fatal(err)
	}
	ended := func(state string) int { return c.stepsIn(n, p.Task.ID, state) }
	eventually(t, "a first step", func() error {
		if ended("done") == 0 {
			return errors.New("none is done")
		}
		return nil
	})
	gone := c.nodes[leader].ID()
	c.stop(leader)
	before := ended("done")
	rest, err := c.openSteps(n, p.Task.ID, gone)
	if err != nil {
		t.Fatal(err)
	}
	// What is for the node that is gone waits, and the rest goes on.
	eventually(t, "the steps of those but "+string(gone), func() error {
		if left, err := c.openSteps(n, p.Task.ID, gone); err != nil || len(left) > 0 {
			return fmt.Errorf("%+v, %v", left, err)
		}
		return nil
	})
	if _, err := n.AbortTask(t.Context(), p.Task.ID, "it is gone"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of what waits", func() error {
		if k := ended("open"); k > 0 {
			return fmt.Errorf("%d are open", k)
		}
		return nil
	})
	if done, failed := ended("done"), ended("failed"); done < before+len(rest) || failed > 0 {
		t.Errorf("%d steps are done, %d were when it stopped, and %d could go on; %d failed", done, before, len(rest), failed)
	}
	t.Logf("of %d steps %d were done when the leader stopped, %d in the end, %d aborted, %d failed", len(p.Steps), before, ended("done"), ended("aborted"), ended("failed"))
	w.check(c)
}

// TestStuckMoves: more moves from a node than may run at a time cannot be done.
// They wait without a place, each with its reason, and hold up nobody; and what is
// given up is as it was.
func TestStuckMoves(t *testing.T) {
	c := newClusterWith(t, 4, func(cfg *Config) { never(cfg); cfg.Zone = "z" })
	c.table(TableSpec{Name: "t", SplitPoints: [][]byte{[]byte("d"), []byte("h"), []byte("p")}, Nodes: []partition.NodeID{"n1", "n2", "n3"}})
	n := c.nodes[0]
	spec := control.PlanSpec{Kind: control.TaskPlan, By: "test"}
	for _, g := range n.control.Catalog().AllGroups() {
		spec.Steps = append(spec.Steps, control.PlanStep{Kind: control.TaskMove, Group: g.ID, From: "n1", To: "n9"})
	}
	last := len(spec.Steps) - 1
	spec.Steps[last].To = "n4"
	plan, err := n.control.BeginPlan(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	var steps []TaskInfo
	look := func() error {
		all, err := n.Tasks(t.Context())
		steps = StepsOf(all, plan.ID)
		return err
	}
	eventually(t, "the move that can be done, and reasons for the others", func() error {
		if err := look(); err != nil {
			return err
		}
		for i, s := range steps {
			if (i == last) != (s.State == "done") || i < last && s.Why != "there is no node n9" {
				return fmt.Errorf("%+v", s)
			}
		}
		return nil
	})
	if _, err := n.AbortTask(t.Context(), plan.ID, "enough"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end", func() error {
		if err := look(); err != nil {
			return err
		}
		for i, s := range steps {
			if i < last && s.State != "aborted" {
				return fmt.Errorf("%+v", s)
			}
		}
		return nil
	})
	if replicas, _, err := c.spread(); err != nil || replicas["n1"] != 3 || replicas["n4"] != 1 {
		t.Fatalf("%v, %v", replicas, err)
	}
}
