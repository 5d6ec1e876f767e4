package balance

import (
	"math"
	"runtime"
	"syscall"
	"testing"
	"time"

	"pando.dev/pando/cluster/placement"
)

func run(t testing.TB, c Config) *Result {
	t.Helper()
	r, err := Run(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range r.Violations {
		t.Error(v)
	}
	t.Logf("%s", r)
	return r
}

// predictions checks that what plans said came true (PG22): bytes within 2 % of
// what they said and the greatest imbalance within 0.03, while loads go on
// changing. Plans that were cut short by something urgent are left out.
func predictions(t *testing.T, r *Result) {
	t.Helper()
	planned, sent := int64(0), int64(0)
	for _, p := range r.Plans {
		if p.Cut || p.Took == 0 {
			continue
		}
		planned, sent = planned+p.Bytes, sent+p.Copied
		if d := math.Abs(p.Became - p.Worst); d > 0.03 {
			t.Errorf("the plan at %v said %.3f and it became %.3f", p.At, p.Worst, p.Became)
		}
	}
	if d := math.Abs(float64(sent - planned)); d > 0.02*float64(planned) {
		t.Errorf("plans said %d bytes, %d were sent", planned, sent)
	}
}

// even checks that the cluster ends, and stays for a while, as even as it should
// be (PG12).
func even(t *testing.T, r *Result, c Config) {
	t.Helper()
	if at, ok := r.Reached(1.06); !ok || at > c.withDefaults().Length-5*time.Minute {
		t.Errorf("at most 1.06 from %v on, %v", at, ok)
	}
	if last := r.Last().Balance; last.Worst() > 1.05 {
		t.Errorf("in the end %s", last)
	}
}

// PG14: all masters of 200 groups on one of three nodes.
func TestSkewedMasters(t *testing.T) {
	r := run(t, Config{Nodes: 3, Zones: 3, Groups: 200, OneMaster: true, Load: Load{Noise: 0.05}})
	at, ok := r.Reached(1.15)
	t.Logf("at most 1.15 from %v on (goal 60 s)", at)
	if !ok || at > 60*time.Second {
		t.Errorf("at most 1.15 from %v on, %v", at, ok)
	}
}

// PG11: 3 nodes, 4, 3 again with 200 groups under load. Every byte goes where it must,
// and there is nothing more to do afterwards.
func TestJoinAndLeave(t *testing.T) {
	c := Config{Nodes: 3, Zones: 1, Groups: 200, Load: Load{Noise: 0.2}, Events: []Event{
		{At: time.Minute, Kind: Join, Count: 1}, {At: 15 * time.Minute, Kind: Leave, Node: 3},
	}}
	r := run(t, c)
	even(t, r, c)
	predictions(t, r)
	if r.Modes[placement.Emergency] > 0 || r.Kinds[placement.OpMove]+r.Kinds[placement.OpSwap] != r.moved(placement.Filling)+r.moved(placement.Draining) {
		t.Errorf("moves beyond filling and draining: %v", r.Modes)
	}
	for _, p := range r.Plans {
		if p.Least > 0 && p.Copied > p.Least+48<<20 { // no more than a replica over
			t.Errorf("at %v: %d bytes, the least possible is %d", p.At, p.Copied, p.Least)
		}
	}
}

// PG10 and PG12, as far as rebalancing goes: stationary noise of 0.8 of each group's
// work moves next to nothing. A cluster that follows the noise, without smoothing
// and at once, shows.
func TestNoiseIsNotFollowed(t *testing.T) {
	c := Config{Load: Load{Noise: 0.8}}
	r := run(t, c)
	even(t, r, c)
	if r.Masters > 0.1 || r.Replicas > 0.1 || r.MostMoves > 2 {
		t.Errorf("masters %.3f, replicas %.3f, %d moves of a group", r.Masters, r.Replicas, r.MostMoves)
	}
	c.Keep, c.Watch.Windows, c.Plan.Cooldown = 1, 1, time.Second
	if f := run(t, c); f.Masters < 0.5 || f.Replicas < 0.1 {
		t.Errorf("following the noise is not seen: masters %.3f, replicas %.3f", f.Masters, f.Replicas)
	}
}

// PG10: a day in which every group's work swings by a half, in eight phases or all
// at once.
func TestSineOfADay(t *testing.T) {
	for _, phases := range []int{1, 8} {
		c := Config{Length: 24 * time.Hour, Window: 30 * time.Second, Load: Load{Noise: 0.2, Sine: 0.5, Phases: phases}}
		r := run(t, c)
		if r.Masters > 0.1 || r.Replicas > 0.1 || r.MostMoves > 2 {
			t.Errorf("%d phases: masters %.3f, replicas %.3f, %d moves of a group", phases, r.Masters, r.Replicas, r.MostMoves)
		}
	}
}

// Nodes fail, for a while and for good, others join, copies break off: every group has
// all its replicas in the end, in its zones, and the cluster is even.
func TestFailures(t *testing.T) {
	c := Config{Nodes: 12, Zones: 4, Groups: 600, Length: 45 * time.Minute, Load: Load{Noise: 0.2}, Failing: 20, Events: []Event{
		{At: time.Minute, Kind: Fail, Node: 3}, {At: 3 * time.Minute, Kind: Fail, Node: 4}, {At: 5 * time.Minute, Kind: Return, Node: 4},
		{At: 6*time.Minute + 20*time.Second, Kind: Fail, Node: 5}, {At: 14 * time.Minute, Kind: Join, Count: 2}, {At: 15 * time.Minute, Kind: Leave, Node: 7},
	}}
	r := run(t, c)
	even(t, r, c)
	predictions(t, r)
}

// PG12: ten groups of a node become three times as busy.
func TestHeat(t *testing.T) {
	c := Config{Load: Load{Noise: 0.2}, Events: []Event{{At: time.Minute, Kind: Heat, Node: 3, Count: 10, Factor: 3}}}
	r := run(t, c)
	even(t, r, c)
	predictions(t, r)
	if r.MostMoves > 2 {
		t.Errorf("%d moves of a group", r.MostMoves)
	}
}

func TestSameSeedSameRun(t *testing.T) {
	c := Config{Seed: 5, Groups: 300, Load: Load{Noise: 0.5}, Failing: 50, Events: []Event{{At: time.Minute, Kind: Join, Count: 1}}}
	if a, b := run(t, c), run(t, c); a.String() != b.String() {
		t.Errorf("%s\n%s", a, b)
	}
}

// BenchmarkLarge is the cluster of PG13 over an hour, the latter half without
// events: 1,000 nodes, 1,000,000
// groups; ten nodes join, one leaves, one fails, a node gets hot, sine and noise
// all the time.
//
//	go test -run '^$' -bench Large -benchtime 1x ./sim/balance
func BenchmarkLarge(b *testing.B) {
	for b.Loop() {
		start := cpu()
		r := run(b, Config{
			Nodes: 1000, Zones: 10, Groups: 1_000_000, Length: time.Hour,
			Load: Load{Noise: 0.5, Sine: 0.5}, Failing: 5,
			Events: []Event{
				{At: time.Minute, Kind: Heat, Node: 17, Count: 300, Factor: 3},
				{At: 2 * time.Minute, Kind: Join, Count: 10},
				{At: 20 * time.Minute, Kind: Leave, Node: 40},
				{At: 22 * time.Minute, Kind: Fail, Node: 60},
			},
		})
		at, _ := r.Reached(1.05)
		b.Logf("at most 1.05 from %v on", at)
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		b.ReportMetric(float64(m.HeapSys)/(1<<20), "heap-MB")
		b.ReportMetric((cpu()-start)/1000, "cpu-s")
	}
}

// cpu is the processor time of this process in ms.
func cpu() float64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e6
}
