package detector

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pando.dev/pando/partition"
)

// nodeDays is for how long TestFalseAlarms looks.
var nodeDays = flag.Int("node-days", 25, "how many days of a node TestFalseAlarms lives through")

// model is a cluster as disks are: each figure scatters (lognormal, 0.35), each
// node has bursts of 5 to 20 s at five times the usual every ten minutes, and
// every 20 minutes all of them are twice as slow for five.
type model struct {
	rng   *rand.Rand
	ids   []partition.NodeID
	burst []int // until which second
	limp  map[int]float64
	d     *Detector
	now   partition.Time
}

func newModel(seed uint64, nodes int, c Config) *model {
	m := &model{rng: rand.New(rand.NewPCG(seed, 18)), burst: make([]int, nodes), limp: map[int]float64{}}
	for i := range nodes {
		m.ids = append(m.ids, partition.NodeID(fmt.Sprintf("n%03d", i)))
	}
	c.Self = m.ids[nodes-1]
	m.d = New(c)
	return m
}

// second lets a second pass and returns what the detector said.
func (m *model) second() []Verdict {
	m.now += time.Second
	t := int(m.now / time.Second)
	wave := 1.0
	if t%1200 >= 900 {
		wave = 2
	}
	heard := make([]Sample, len(m.ids))
	for i, id := range m.ids {
		if t > m.burst[i] && m.rng.IntN(600) == 0 {
			m.burst[i] = t + 5 + m.rng.IntN(16)
		}
		x := 3e6 * wave * math.Exp(0.35*m.rng.NormFloat64())
		if t <= m.burst[i] {
			x *= 5
		}
		if f := m.limp[i]; f != 0 {
			x *= f
		}
		heard[i] = Sample{Node: id, Boot: 1, Sync: time.Duration(x)}
	}
	return m.d.Observe(m.now, heard)
}

// found returns after how many seconds a node that limps is found, 0: not within
// ten minutes.
func (m *model) found(factor float64) int {
	for range 1 + m.rng.IntN(1200) {
		m.second()
	}
	i := m.rng.IntN(len(m.ids))
	m.limp[i] = factor
	for s := 1; s <= 600; s++ {
		for _, v := range m.second() {
			if v.Node == m.ids[i] && v.Kind == SlowDisk && v.Until == 0 {
				return s
			}
		}
	}
	return 0
}

// falseAlarms counts verdicts on nodes that do not limp.
func (m *model) falseAlarms(seconds int) (n int) {
	for range seconds {
		for _, v := range m.second() {
			if v.Until == 0 {
				n++
			}
		}
	}
	return n
}

func delays(factor float64, trials int, c Config) []int {
	var all []int
	for seed := range uint64(trials) {
		all = append(all, newModel(seed, 20, c).found(factor))
	}
	slices.Sort(all)
	return all
}

// A node that limps is found in time (PG18).
func TestLimpingNodeIsFound(t *testing.T) {
	for _, x := range []struct {
		factor       float64
		median, most int
	}{{3, 60, 70}, {10, 45, 45}} {
		all := delays(x.factor, 30, Config{})
		t.Logf("%v times slower: found after %d s (median), %d s at most", x.factor, all[len(all)/2], all[len(all)-1])
		if all[0] == 0 || all[len(all)/2] > x.median || all[len(all)-1] > x.most {
			t.Errorf("%v times slower: found after %v s, want %d", x.factor, all, x.median)
		}
	}
	if all := delays(1.5, 10, Config{}); all[len(all)-1] != 0 {
		t.Errorf("1.5 times slower was found after %v s: that is what hardware may differ", all)
	}
}

// At most 10 false alarms in 1,000 days of a node (PG18). Run it with
// -node-days 1000 after every change of the defaults.
func TestFalseAlarms(t *testing.T) {
	const nodes = 100
	seconds := *nodeDays * 86400 / nodes
	n := newModel(1, nodes, Config{}).falseAlarms(seconds)
	t.Logf("%d false alarms in %d node-days", n, *nodeDays)
	if n > max(1, *nodeDays/100) {
		t.Errorf("%d false alarms in %d node-days", n, *nodeDays)
	}
}

// Each of these mistakes has to be seen by the model: else it proves nothing.
func TestModelSeesMistakes(t *testing.T) {
	for name, c := range map[string]Config{
		"no comparison with others": {plant: noComparison},
		"one second counts fully":   {plant: noClip},
		"a limit too low":           {Limit: 5},
		"no drift":                  {Drift: 1e-9},
	} {
		if n := newModel(1, 50, c).falseAlarms(7200); n < 3 {
			t.Errorf("%s: %d false alarms in 4 node-days", name, n)
		}
	}
	if all := delays(3, 10, Config{Drift: 0.75}); all[0] != 0 && all[5] <= 60 {
		t.Errorf("too much drift, and a node three times slower was found after %v s", all)
	}
	if all := delays(10, 10, Config{Limit: 20}); all[0] != 0 && all[5] <= 45 {
		t.Errorf("a limit too high, and a node ten times slower was found after %v s", all)
	}
}
