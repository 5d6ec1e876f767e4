package actors

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pando.dev/pando/cluster"
	"pando.dev/pando/cluster/control"
	"pando.dev/pando/cluster/detector"
	"pando.dev/pando/partition"
	"pando.dev/pando/wal"
)

// slowDisk is a disk whose syncs can be made slow, or made to hang.
type slowDisk struct {
	wal.FS
	delay atomic.Int64
	gate  sync.RWMutex // held for writing: syncs hang
	stop  <-chan struct{}
}

type slowFile struct {
	wal.File
	disk *slowDisk
}

func (d *slowDisk) Create(name string, size int64) (wal.File, error) {
	f, err := d.FS.Create(name, size)
	return &slowFile{f, d}, err
}

func (d *slowDisk) Open(name string) (wal.File, error) {
	f, err := d.FS.Open(name)
	return &slowFile{f, d}, err
}

func (f *slowFile) Sync() error {
	f.disk.gate.RLock()
	defer f.disk.gate.RUnlock()
	timer := time.NewTimer(time.Duration(f.disk.delay.Load()))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-f.disk.stop:
	}
	return f.File.Sync()
}

// newLimpingCluster starts three nodes with slow disks, whose detectors need a
// second or two and see nothing but disks: this machine is no quiet place.
func newLimpingCluster(t testing.TB) (*testCluster, []*slowDisk) {
	var disks []*slowDisk
	c := newClusterWith(t, 3, func(cfg *Config) {
		d := &slowDisk{FS: wal.OS{}, stop: t.Context().Done()}
		disks = append(disks, d)
		cfg.logFS = d
		cfg.detect = detector.Config{
			Every: 50 * time.Millisecond, Limit: 3, Quiet: 500 * time.Millisecond, SyncFloor: 50 * time.Millisecond,
			LateFloor: time.Hour, LinkFloor: time.Hour, QueueFloor: 1 << 20, LoadFloor: 1 << 40, Flaps: 1 << 20,
		}
	})
	return c, disks
}

// writing keeps all nodes' logs busy until the end of the test; every write has to
// be acknowledged.
func (c *testCluster) writing() {
	stop := make(chan struct{})
	var all sync.WaitGroup
	for w := range 6 {
		all.Go(func() {
			ctx, cancel := contextWithin(c.tb, patience)
			defer cancel()
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if err := put(ctx, c.nodes[w%3], string(rune('a'+w*4)), fmt.Sprint(i)); err != nil {
					c.tb.Errorf("put: %v", err)
					return
				}
			}
		})
	}
	c.tb.Cleanup(func() {
		close(stop)
		all.Wait()
	})
}

// mastersOn is how many groups the node is master of.
func mastersOn(n *Node) (masters int) {
	n.cells.each(func(c *cell) {
		if v := c.view.Load(); v != nil && v.Serving {
			masters++
		}
	})
	return masters
}

// A node whose disk limps hands its masterships over, one after the other, to
// nodes that are well; no write fails, the others know that it is sick, and when
// its disk is well again that is over.
func TestNodeWithSlowDiskHandsOver(t *testing.T) {
	t.Parallel()
	c, disks := newLimpingCluster(t)
	c.table(TableSpec{Name: "t"})
	if at := c.master("t"); at != 0 {
		c.handOver(c.any().control.Catalog().Groups("t")[0].ID, at, "n1")
	}
	c.writing()
	disks[0].delay.Store(int64(300 * time.Millisecond))
	eventually(t, "n1 hands over all it has", func() error {
		// While it is being handed over nobody serves.
		all := c.nodes[0].Anomalies()
		if mastersOn(c.nodes[1])+mastersOn(c.nodes[2]) == 0 || len(all) == 0 || len(all[0].Actions) == 0 {
			return fmt.Errorf("%d rounds, %d missed, %+v", c.nodes[0].anomalies.rounds.Load(), c.nodes[0].anomalies.missed.Load(), all)
		}
		return nil
	})
	eventually(t, "the others know", func() error {
		for _, n := range c.nodes {
			for _, m := range n.Members() {
				if (m.Node == "n1") != (m.Sick == "slow-disk") {
					return fmt.Errorf("node %s says of %s %q", n.ID(), m.Node, m.Sick)
				}
			}
		}
		return nil
	})
	x := c.nodes[0].Anomalies()[0]
	if x.Kind != "slow-disk" || x.Subject != "n1" || !x.Confirmed || len(x.By) < 2 || !strings.Contains(x.Evidence, "the syncs of its log took") {
		t.Errorf("%+v", x)
	}
	// A disk as slow as this one may keep the master from handing over in time: then
	// it resigns.
	last := x.Actions[len(x.Actions)-1]
	if last.Err != "" || last.To == "n1" || last.To == "" && len(x.Actions) < 2 || c.nodes[0].counters.relieved.Load() == 0 {
		t.Errorf("what was done: %+v", x.Actions)
	}
	if s, err := c.nodes[1].Status(t.Context()); err != nil || len(s.Anomalies) != 1 || !strings.HasPrefix(s.Anomalies[0], "slow-disk n1: ") {
		t.Errorf("status: %v, %v", s.Anomalies, err)
	}
	disks[0].delay.Store(0)
	eventually(t, "it is over", func() error {
		for _, n := range c.nodes {
			all := n.Anomalies()
			if len(all) == 0 || all[0].Until == nil || slices.ContainsFunc(n.Members(), func(m MemberInfo) bool { return m.Sick != "" }) {
				return fmt.Errorf("on %s: %+v", n.ID(), all)
			}
		}
		return nil
	})
}

// A master whose disk hangs acknowledges nothing, and misses no heartbeat. It is
// found by the sync that does not end, and another one takes over: no write fails.
func TestMasterWhoseDiskHangsIsReplaced(t *testing.T) {
	t.Parallel()
	c, disks := newLimpingCluster(t)
	c.table(TableSpec{Name: "t"})
	at := c.master("t")
	c.writing()
	disks[at].gate.Lock()
	eventually(t, "another master", func() error {
		for i, n := range c.nodes {
			if i != at && mastersOn(n) > 0 {
				return nil
			}
		}
		return fmt.Errorf("%+v", c.nodes[at].Anomalies())
	})
	for i := range 20 {
		if err := put(t.Context(), c.nodes[(at+1)%3], "z", fmt.Sprint(i)); err != nil {
			t.Errorf("put %d: %v", i, err)
		}
	}
	disks[at].gate.Unlock()
}

// If all disks are slow alike, nobody is sick and nothing moves.
func TestSlowClusterMovesNothing(t *testing.T) {
	t.Parallel()
	c, disks := newLimpingCluster(t)
	c.table(TableSpec{Name: "t"})
	for _, d := range disks {
		d.delay.Store(int64(150 * time.Millisecond))
	}
	c.writing()
	at := c.master("t")
	var from [3]uint64
	counted := func(n *Node) uint64 { return n.anomalies.rounds.Load() - n.anomalies.missed.Load() }
	for i, n := range c.nodes {
		from[i] = counted(n)
	}
	// Three times what a slow disk is found in.
	eventually(t, "30 rounds", func() error {
		for i, n := range c.nodes {
			if k := counted(n) - from[i]; k < 30 {
				return fmt.Errorf("%d on %s", k, n.ID())
			}
		}
		return nil
	})
	for _, n := range c.nodes {
		if all := n.Anomalies(); slices.ContainsFunc(all, func(x AnomalyInfo) bool { return x.Confirmed }) || n.counters.relieved.Load() > 0 {
			t.Errorf("on %s: %+v", n.ID(), all)
		}
	}
	if now := c.master("t"); now != at {
		t.Errorf("the master went from n%d to n%d", at+1, now+1)
	}
}

// One member whose disk hangs, or is slow, does not hold up the others (G1, G4,
// G19 of the gray scenarios): a write needs two of three disks.
func TestSlowFollowerHoldsUpNobody(t *testing.T) {
	t.Parallel()
	c, disks := newLimpingCluster(t)
	c.table(TableSpec{Name: "t"})
	at := c.master("t")
	writes := func() time.Duration {
		var all []time.Duration
		for i := range 60 {
			began := time.Now()
			if err := put(t.Context(), c.nodes[at], "k", fmt.Sprint(i)); err != nil {
				t.Fatalf("put: %v", err)
			}
			all = append(all, time.Since(began))
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	well := writes()
	slow := disks[(at+1)%3]
	slow.delay.Store(int64(10 * max(well, 3*time.Millisecond)))
	limping := writes()
	slow.gate.Lock() // from here on a write that waited for it would never end
	hanging := writes()
	slow.gate.Unlock()
	t.Logf("a write took %v (median), with a slow follower %v, with one that hangs %v", well, limping, hanging)
}

// A partition that carries more than a usual node is divided though it is below
// its table's limit (SPL-6, on an anomaly), and the split says why. Without
// splits for load it is only shown.
func TestHotGroupIsDivided(t *testing.T) {
	t.Parallel()
	c := newClusterWith(t, 3, func(cfg *Config) {
		cfg.detect = detector.Config{
			Every: 50 * time.Millisecond, Limit: 3, LoadFloor: 50, SyncFloor: time.Hour, LateFloor: time.Hour, LinkFloor: time.Hour,
			QueueFloor: 1 << 20, Flaps: 1 << 20,
		}
	})
	c.table(TableSpec{Name: "t", Splits: SplitPolicy{Mode: "auto", Load: 600}})
	c.table(TableSpec{Name: "whole"}) // by size only
	at := c.master("t")
	whole := c.any().control.Catalog().Groups("whole")[0].ID
	if from := c.master("whole"); from == at {
		c.handOver(whole, from, c.nodes[(at+1)%3].ID())
	}
	ctx, cancel := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	asking.Go(func() { readOften(ctx, t, c.nodes[0], "t", 500, zipfKeys()) })
	asking.Go(func() { readOften(ctx, t, c.nodes[1], "whole", 300, zipfKeys()) })
	defer asking.Wait()
	defer cancel()
	eventually(t, "a split", func() error {
		for _, x := range c.nodes[2].control.Catalog().Tasks() {
			if x.Kind == control.TaskSplit && x.State == control.TaskDone && x.By == splitBy && strings.Contains(x.Reason, "hot-group:g") {
				return nil
			}
		}
		return fmt.Errorf("none for it: %+v", c.nodes[at].Anomalies())
	})
	if k := len(c.nodes[2].control.Catalog().Groups("whole")); k != 1 {
		t.Errorf("a table without splits for load has %d partitions", k)
	}
}

func TestHotLimit(t *testing.T) {
	hot := func(kind detector.Kind, g partition.GroupID, own, usual float64, confirmed bool) detector.Verdict {
		return detector.Verdict{ID: "v", Claim: detector.Claim{Kind: kind, Group: g}, Own: own, Usual: usual, Confirmed: confirmed, Evidence: "e"}
	}
	for name, x := range map[string]struct {
		mode  detector.Mode
		v     detector.Verdict
		limit float64
		want  float64
	}{
		"half of what it carries":      {detector.Act, hot(detector.HotGroup, 7, 8000, 1000, true), 10000, 4000},
		"as much as a usual node":      {detector.Act, hot(detector.HotGroup, 7, 8000, 5000, true), 10000, 5000},
		"the table's is lower":         {detector.Act, hot(detector.HotGroup, 7, 8000, 1000, true), 3000, 3000},
		"the pieces would be merged":   {detector.Act, hot(detector.HotGroup, 7, 8000, 1000, true), 20000, 20000},
		"no splits for load":           {detector.Act, hot(detector.HotGroup, 7, 8000, 1000, true), 0, 0},
		"another group":                {detector.Act, hot(detector.HotGroup, 8, 8000, 1000, true), 10000, 10000},
		"another kind":                 {detector.Act, hot(detector.SlowDisk, 7, 8000, 1000, true), 10000, 10000},
		"one node says so":             {detector.Act, hot(detector.HotGroup, 7, 8000, 1000, false), 10000, 10000},
		"the figures here do not show": {detector.Act, hot(detector.HotGroup, 7, 0, 0, true), 10000, 10000},
		"it is only to be observed":    {detector.Observe, hot(detector.HotGroup, 7, 8000, 1000, true), 10000, 10000},
	} {
		a := &anomalies{mode: x.mode}
		if got, why := a.hotLimit(7, x.limit); got != x.limit || why != "" {
			t.Errorf("%s: before anything was found %v, %q", name, got, why)
		}
		a.current.Store(&[]detector.Verdict{x.v})
		if got, why := a.hotLimit(7, x.limit); got != x.want || (why == "v: e") != (x.want != x.limit) {
			t.Errorf("%s: %v, %q; want %v", name, got, why, x.want)
		}
	}
}

func TestCircleOf(t *testing.T) {
	var members []cluster.Node
	for i := range 40 {
		members = append(members, cluster.Node{ID: partition.NodeID(fmt.Sprintf("n%02d", i)), Status: cluster.Alive})
	}
	members[5].Status = cluster.Failed
	if got := circleOf("n03", members[:8]); fmt.Sprint(got) != "[n00 n01 n02 n04 n06 n07]" {
		t.Errorf("of few: %v", got)
	}
	if got := circleOf("n03", members); fmt.Sprint(got) != "[n35 n36 n37 n38 n39 n00 n01 n02 n04 n06 n07 n08 n09 n10 n11 n12]" {
		t.Errorf("of many: %v", got)
	}
	for _, m := range members {
		for _, other := range circleOf(m.ID, members) {
			if m.Status == cluster.Alive && !slices.Contains(circleOf(other, members), m.ID) {
				t.Errorf("%s has %s around it, and not the other way", m.ID, other)
			}
		}
	}
}

// BenchmarkWriteBesideSlowFollower is G19: what a member whose disk is ten times
// slower, or hangs, costs the writes of its group. Compare the p99 of one run.
func BenchmarkWriteBesideSlowFollower(b *testing.B) {
	c, disks := newLimpingCluster(b)
	c.table(TableSpec{Name: "t"})
	at := c.master("t")
	slow := disks[(at+1)%3]
	for _, d := range disks {
		d.delay.Store(int64(3 * time.Millisecond))
	}
	write := func(b *testing.B) {
		var all []time.Duration
		for i := 0; b.Loop(); i++ {
			began := time.Now()
			if err := put(b.Context(), c.nodes[at], "k", fmt.Sprint(i)); err != nil {
				b.Fatal(err)
			}
			all = append(all, time.Since(began))
		}
		slices.Sort(all)
		b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-us")
	}
	b.Run("well", write)
	slow.delay.Store(int64(30 * time.Millisecond))
	b.Run("slow", write)
	slow.delay.Store(int64(3 * time.Millisecond))
	slow.gate.Lock()
	b.Run("hangs", write)
	slow.gate.Unlock()
}
