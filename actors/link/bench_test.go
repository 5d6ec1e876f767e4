package link

import (
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"pando.dev/pando/partition"
)

// benchPair links two nodes; each hands the frames that come in to its function.
func benchPair(b *testing.B, way string, onA, onB func(*node, Frame)) (x, y *node) {
	b.Helper()
	book := newBook()
	start := func(id partition.NodeID, boot uint64, on func(*node, Frame)) *node {
		var self atomic.Pointer[node]
		change := func(c *Config) {
			c.OnFrame = func(_ partition.NodeID, f Frame) {
				if n := self.Load(); n != nil {
					on(n, f)
				}
			}
		}
		n := startNode(b, book, id, boot, change)
		self.Store(n)
		return n
	}
	if way == "tls" {
		ca := authority(b)
		start = func(id partition.NodeID, boot uint64, on func(*node, Frame)) *node {
			var self atomic.Pointer[node]
			n := securedNode(b, ca, book, id, boot, func(c *Config) {
				c.OnFrame = func(_ partition.NodeID, f Frame) {
					if n := self.Load(); n != nil {
						on(n, f)
					}
				}
			})
			self.Store(n)
			return n
		}
	}
	x, y = start("a", 1, onA), start("b", 2, onB)
	x.SetPeers([]partition.NodeID{"b"})
	x.upWith("b")
	y.upWith("a")
	return x, y
}

func ack(n *node, to partition.NodeID) {
	_ = n.Send(to, Frame{Kind: KindAppendAck, Group: 1, From: 2, To: 1, Body: make([]byte, 32)})
}

// BenchmarkQuietPing is BenchmarkPing with pauses, as a single client makes them
// that waits for disks, too.
func BenchmarkQuietPing(b *testing.B) { pingPong(b, 300*time.Microsecond) }

// BenchmarkPing is one frame of 128 B there and an acknowledgement back, one at a
// time: the latency of a link.
func BenchmarkPing(b *testing.B) { pingPong(b, 0) }

func pingPong(b *testing.B, pause time.Duration) {
	for _, way := range []string{"plain", "tls"} {
		b.Run(way, func(b *testing.B) {
			back := make(chan struct{}, 1)
			x, _ := benchPair(b, way, func(*node, Frame) { back <- struct{}{} }, func(n *node, _ Frame) { ack(n, "a") })
			f := Frame{Kind: KindAppend, Group: 1, From: 1, To: 2, Body: make([]byte, appendHead), Records: []partition.Record{record(1, 1, string(make([]byte, 88)))}}
			var took []time.Duration
			b.ReportAllocs()
			for b.Loop() {
				at := time.Now()
				if err := x.Send("b", f); err != nil {
					b.Fatal(err)
				}
				<-back
				took = append(took, time.Since(at))
				for at := time.Now(); time.Since(at) < pause; {
					runtime.Gosched()
				}
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1e3, "p50-us")
			b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds())/1e3, "p99-us")
		})
	}
}

// BenchmarkFrames sends as fast as the other side acknowledges, from senders that
// each have one frame under way (as groups do), or in one stream.
func BenchmarkFrames(b *testing.B) {
	for _, way := range []string{"plain", "tls"} {
		for _, c := range []struct{ window, bytes int }{{64, 128}, {4096, 128}, {64, 16 << 10}, {16, 1 << 20}} {
			b.Run(fmt.Sprintf("%s/window-%d/%dB", way, c.window, c.bytes), func(b *testing.B) {
				room := make(chan struct{}, c.window)
				x, _ := benchPair(b, way, func(*node, Frame) { <-room }, func(n *node, _ Frame) { ack(n, "a") })
				f := Frame{Kind: KindAppend, Group: 1, From: 1, To: 2, Body: make([]byte, appendHead), Records: []partition.Record{record(1, 1, string(make([]byte, c.bytes-40)))}}
				b.SetBytes(int64(c.bytes))
				b.ReportAllocs()
				for b.Loop() {
					room <- struct{}{}
					for x.Send("b", f) != nil {
						runtime.Gosched()
					}
				}
				for range c.window {
					room <- struct{}{}
				}
			})
		}
	}
}
