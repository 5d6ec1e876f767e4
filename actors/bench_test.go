package actors

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
)

// BenchmarkPut is the cost of one write to a table of one partition on three
// nodes in one process, at a number of blocking clients.
func BenchmarkPut(b *testing.B) {
	c := newCluster(b, 3)
	c.table(TableSpec{Name: "t"})
	n := c.nodes[c.master("t")]
	for _, clients := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			var next atomic.Int64
			var wg sync.WaitGroup
			value := make([]byte, 128)
			b.ReportAllocs()
			for range clients {
				wg.Go(func() {
					for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
						if _, err := n.Client().KV("t").Put(b.Context(), fmt.Appendf(nil, "k%07d", i%100000), value); err != nil {
							b.Errorf("put: %v", err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "op/s")
		})
	}
}
