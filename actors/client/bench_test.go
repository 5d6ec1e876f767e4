package client

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"pando.dev/pando/partition"
)

// instant is a backend that executes nothing and answers at once: what remains
// is the cost of client, protocol and server.
type instant struct {
	index  atomic.Uint64
	routes *Routes
	result []byte
}

func newInstant(addr string) *instant {
	return &instant{
		result: []byte("a result"),
		routes: &Routes{
			Version: 1, Nodes: []Node{{ID: "n1", Addr: addr}},
			Tables: []Table{{Name: "t", Kind: "kv", Partitions: []Partition{{Group: 1, RangeVersion: 1, Members: []partition.NodeID{"n1"}, Master: "n1"}}}},
		},
	}
}

func (b *instant) Propose(_ *Request, reply func(*Response)) {
	reply(&Response{Index: partition.Index(b.index.Add(1)), Body: b.result})
}

func (b *instant) Read(_ *Request, reply func(*Response)) { reply(&Response{Index: 1, Body: b.result}) }

func (b *instant) Route(have uint64) (*Routes, time.Duration, error) {
	if have == 1 {
		return nil, 0, nil
	}
	return b.routes, 0, nil
}

// loopback is a client of an instant node over a TCP connection.
func loopback(b *testing.B) *Client {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	backend := newInstant(l.Addr().String())
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _ = Serve(conn, backend, ServerConfig{}) }() // ends with the benchmark
		}
	}()
	c, err := Open(context.Background(), Config{
		Addrs: []string{l.Addr().String()},
		Dial: func(ctx context.Context, addr string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close(); l.Close() })
	return c
}

// pipelined keeps 256 operations outstanding.
func pipelined(b *testing.B, op func(done func(Result, error))) {
	const outstanding = 256
	b.ReportAllocs()
	slots := make(chan struct{}, outstanding)
	done := func(_ Result, err error) {
		if err != nil {
			b.Error(err)
		}
		<-slots
	}
	b.ResetTimer()
	for range b.N {
		slots <- struct{}{}
		op(done)
	}
	for range outstanding {
		slots <- struct{}{}
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
}

var benchCommand = make([]byte, 128)

func BenchmarkPropose256(b *testing.B) {
	c, key := loopback(b), []byte("key")
	pipelined(b, func(done func(Result, error)) { c.Go(context.Background(), "t", key, benchCommand, done) })
}

func BenchmarkRead256(b *testing.B) {
	c, key := loopback(b), []byte("key")
	pipelined(b, func(done func(Result, error)) {
		c.GoRead(context.Background(), "t", key, benchCommand, ReadOptions{}, done)
	})
}

// BenchmarkClients256 has 256 goroutines that wait for each answer.
func BenchmarkClients256(b *testing.B) {
	c, key := loopback(b), []byte("key")
	b.ReportAllocs()
	b.SetParallelism(128) // times GOMAXPROCS, which is 2 here
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := c.Propose(context.Background(), "t", key, benchCommand); err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
}

func BenchmarkPropose1(b *testing.B) {
	c, key := loopback(b), []byte("key")
	b.ReportAllocs()
	for range b.N {
		if _, err := c.Propose(context.Background(), "t", key, benchCommand); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLocal256(b *testing.B) {
	backend := newInstant("")
	c, err := Open(context.Background(), Config{Local: Local{Node: "n1", Backend: backend}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.Close)
	key := []byte("key")
	pipelined(b, func(done func(Result, error)) { c.Go(context.Background(), "t", key, benchCommand, done) })
}
