package actors

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pando.dev/pando/actors/link"
	"pando.dev/pando/cluster"
	"pando.dev/pando/cluster/detector"
	"pando.dev/pando/partition"
)

// What a sick node does about its masterships, step by step: who gets them, how
// many at once, and when none go.
func TestReliefOfSickNode(t *testing.T) {
	t.Parallel()
	c := newClusterWith(t, 3, func(cfg *Config) { cfg.Anomalies = "off" }) // the test decides when to look
	c.table(TableSpec{Name: "t", SplitPoints: [][]byte{[]byte("m")}})
	n := c.nodes[0]
	for _, g := range n.control.Catalog().Groups("t") {
		eventually(t, "n1 is master", func() error {
			_, err := n.Change(t.Context(), PartitionChange{Kind: ChangeTransfer, Group: g.ID, Node: "n1"})
			return err
		})
	}
	a := newAnomalies(n)
	a.mode = detector.Act
	sick := detector.Verdict{ID: "v", Claim: detector.Claim{Kind: detector.SlowDisk, Node: "n1"}, Confirmed: true, Evidence: "31ms"}
	look := func(at time.Duration, change func([]cluster.Node)) {
		members := slices.Clone(*n.members.Load())
		memberOf(members, "n1").Sick = "slow-disk"
		change(members)
		a.relief.look(at, []detector.Verdict{sick}, members)
	}
	tried := func(want int, when string) {
		t.Helper()
		if got := len(a.relief.tried); got != want || n.counters.relieved.Load() != uint64(want) {
			t.Fatalf("%s: %d hand-overs in a minute, %d in all, want %d", when, got, n.counters.relieved.Load(), want)
		}
	}
	begin := n.now()
	look(begin, func(all []cluster.Node) { memberOf(all, "n2").Sick = "overloaded" })
	tried(0, "two of three are sick")
	a.mode = detector.Observe
	look(begin, func([]cluster.Node) {})
	tried(0, "observe")
	a.mode = detector.Act
	look(begin, func(all []cluster.Node) { memberOf(all, "n2").Mode = "1m" }) // drained
	tried(1, "one at once")
	look(begin+time.Second, func([]cluster.Node) {})
	tried(1, "one a minute")
	eventually(t, "one is handed over, and not to the drained one", func() error {
		a.mu.Lock()
		defer a.mu.Unlock()
		if all := a.did["v"]; len(all) != 1 || all[0].To != "n3" || all[0].Err != "" || mastersOn(n) != 1 {
			return fmt.Errorf("done: %+v", all)
		}
		return nil
	})
	// A minute later the other one. It fails once: then the master resigns.
	left := a.relief.heirs(begin+2*time.Minute, heldBy(n), nil, *n.members.Load())
	if len(left) != 1 {
		t.Fatalf("%+v", left)
	}
	a.note("v", AnomalyAction{Group: left[0].cell.group, Err: "not in time"})
	look(begin+2*time.Minute, func([]cluster.Node) {})
	eventually(t, "the others have all", func() error {
		if k := mastersOn(c.nodes[1]) + mastersOn(c.nodes[2]); k != 2 {
			return fmt.Errorf("%d", k)
		}
		return nil
	})
	if all := a.did["v"]; len(all) != 3 || all[2].To != "" || all[2].Err != "" {
		t.Errorf("%+v", all)
	}
	a.relief.look(begin, nil, *n.members.Load())
	if a.relief.verdict != "" {
		t.Error("it is over, and goes on")
	}
}

// A node that is sick says so when it is asked for its load: no piece of a split
// gets its first master there.
func TestSickNodeGetsNoPieces(t *testing.T) {
	t.Parallel()
	cfg := single(t, t.TempDir())
	cfg.Anomalies = "off"
	n := startSingle(t, cfg).nodes[0]
	if !n.loads.report(0).InService {
		t.Error("it is well")
	}
	kind := "slow-disk"
	n.anomalies.sick.Store(&kind)
	if n.loads.report(0).InService {
		t.Error("the first master of a piece may be on a sick node")
	}
}

func memberOf(all []cluster.Node, id partition.NodeID) *cluster.Node {
	return &all[slices.IndexFunc(all, func(m cluster.Node) bool { return m.ID == id })]
}

func heldBy(n *Node) (held []*cell) {
	n.cells.each(func(c *cell) {
		if v := c.view.Load(); v != nil && v.Serving {
			held = append(held, c)
		}
	})
	return held
}

// What a node measures of itself: its syncs, its load, its links.
func TestSamplerMeasures(t *testing.T) {
	t.Parallel()
	c := newClusterWith(t, 3, func(cfg *Config) { cfg.Anomalies = "off" })
	c.table(TableSpec{Name: "t"})
	n := c.nodes[c.master("t")]
	g := n.control.Catalog().Groups("t")[0].ID
	s, circle := newSampler(n), circleOf(n.ID(), *n.members.Load())
	at := time.Second
	s.sample(at, 0, circle)
	for i := range 50 {
		if err := put(t.Context(), n, "k", fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	var got detector.Sample
	eventually(t, "they are seen", func() error {
		at += time.Second
		got = s.sample(at, 7*time.Millisecond, circle)
		if got.Hot.Load == 0 {
			return fmt.Errorf("%+v", got)
		}
		return nil
	})
	if got.Node != n.ID() || got.Boot != n.identity.Boot || got.Late != 7*time.Millisecond || got.Hot.Group != g || got.Load != got.Hot.Load || got.Load > 1000 || len(got.Peers) != 2 {
		t.Errorf("%+v", got)
	}
	for _, p := range got.Peers {
		if p.RTT <= 0 || p.Downs != 0 {
			t.Errorf("%+v", p)
		}
	}
	if uint64(s.rates[g]) != got.Load {
		t.Errorf("the rates are %v", s.rates)
	}
	n.counters.busy.Add(1)
	if got = s.sample(at+time.Second, 0, circle); got.Queue != 1000 {
		t.Errorf("with a refusal: %+v", got)
	}
}

// A link counts as lost when it is down, and when it is another one than before.
func TestSamplerCountsLostLinks(t *testing.T) {
	s, born := newSampler(nil), time.Unix(1, 0)
	for i, x := range []struct {
		up    bool
		since time.Time
		downs uint64
		rtt   time.Duration
	}{
		{false, time.Time{}, 0, 0}, {true, born, 0, 3}, {true, born, 0, 3}, {false, time.Time{}, 1, 0}, {false, time.Time{}, 1, 0},
		{true, born.Add(1), 1, 3}, {true, born.Add(2), 2, 3}, {false, time.Time{}, 3, 0},
	} {
		got := s.peer(link.PeerStatus{Node: "n2", Up: x.up, Since: x.since, RTT: 3})
		if got.Downs != x.downs || got.RTT != x.rtt {
			t.Errorf("step %d: %+v, want %+v", i, got, x)
		}
	}
}
