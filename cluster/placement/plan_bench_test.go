package placement

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"syscall"
	"testing"

	"pando.dev/pando/partition"
)

// Large layouts are for benchmarks: 1,000 nodes in 10 zones, 1,000,000 groups of
// three replicas, sizes evenly from 16 to 64 MiB, loads by Zipf's law.
//
//	go test -run '^$' -bench Plan -benchtime 3x ./cluster/placement

func zipf(rank int) uint32 { return uint32(1 + 200_000/math.Pow(float64(rank+100), 0.7)) }

func large(t testing.TB, nodes, groups int, choice int) *Layout {
	t.Helper()
	ns := planNodes(nodes, 10)
	l, err := NewLayout(ns)
	if err != nil {
		t.Fatal(err)
	}
	l.Reserve(groups, 3*groups)
	r := rand.New(rand.NewPCG(1, 2))
	rank := r.Perm(groups)
	count := make([]int32, nodes)
	pick := func(not []int) int {
		best := -1
		for tries := 0; tries < choice; {
			n, ok := r.IntN(nodes), true
			for _, o := range not {
				ok = ok && n%10 != o%10
			}
			if !ok {
				continue
			}
			if tries++; best < 0 || count[n] < count[best] {
				best = n
			}
		}
		count[best]++
		return best
	}
	p := PlanGroup{Range: 1, Membership: 1, Members: make([]PlanMember, 3)}
	for g := range groups {
		p.Group, p.Bytes = partition.GroupID(g+1), int64(16+r.IntN(48))<<20
		work := zipf(rank[g])
		p.Lead, p.Follow, p.Written, p.Master = work, work/8, work/2, partition.ReplicaID(1+r.IntN(3))
		var used []int
		for o := range 3 {
			n := pick(used)
			used = append(used, n)
			p.Members[o] = PlanMember{Replica: partition.ReplicaID(o + 1), Node: ns[n].ID}
		}
		if err := l.Add(p); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func grow(t testing.TB, l *Layout, n int) {
	t.Helper()
	for range n {
		i := len(l.nodes)
		err := l.AddNode(PlanNode{Node: Node{ID: partition.NodeID(fmt.Sprintf("n-%d", i)), Zone: fmt.Sprintf("z%d", i%10)}, New: true})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// cpu is the processor time of this process in ms: what others do on the machine
// is not in it.
func cpu() float64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e6
}

func heap() float64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / (1 << 20)
}

func (l *Layout) doAll(t testing.TB, p *Plan) {
	t.Helper()
	for i := range p.Operators {
		if !l.Apply(&p.Operators[i], 0) {
			t.Fatalf("cannot apply %s", p.Operators[i])
		}
	}
}

func BenchmarkPlanLarge(b *testing.B) {
	before := heap()
	l := large(b, 1000, 1_000_000, 2)
	run := func(name string, l *Layout, cfg PlanConfig) (p *Plan) {
		b.Run(name, func(b *testing.B) {
			start := cpu()
			for b.Loop() {
				p = MakePlan(l, cfg)
			}
			b.ReportMetric((cpu()-start)/float64(b.N), "cpu-ms/op")
			b.ReportMetric(float64(len(p.Operators)), "operators")
			b.ReportMetric(heap()-before, "heap-MB")
			b.Logf("%s%s", p.Summary(), "")
		})
		return p
	}
	p := run("level", l, PlanConfig{})
	if p == nil {
		return
	}
	l.doAll(b, p)
	l.nodes[17].Leaving = true
	run("drain", l, PlanConfig{Skip: [Modes]bool{Emergency: true, Filling: true, Leveling: true}})
	l.nodes[17].Leaving = false
	grow(b, l, 1)
	run("add1", l, PlanConfig{})
	grow(b, l, 9)
	run("add10", l, PlanConfig{})
	grow(b, l, 90)
	run("add100", l, PlanConfig{})
}
