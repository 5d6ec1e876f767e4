package wal_test

import (
	"fmt"
	"sync"
	"testing"

	"pando.dev/pando/partition"
	"pando.dev/pando/wal"
)

// BenchmarkBlocking is the log under N writers that each wait for their record,
// on the disk that holds the system's temporary files.
func BenchmarkBlocking(b *testing.B) {
	for _, n := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprintf("writers=%d", n), func(b *testing.B) {
			l, _, err := wal.Open(wal.OS{}, b.TempDir(), wal.Options{Node: "n1"})
			if err != nil {
				b.Fatal(err)
			}
			b.ResetTimer()
			b.ReportAllocs()
			var wg sync.WaitGroup
			for i := range n {
				wg.Go(func() { block(b, l, partition.GroupID(i+1), b.N/n+1) })
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rec/s")
			if err := l.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// block writes n records of 128 B, one after the other.
func block(b *testing.B, l *wal.Log, g partition.GroupID, n int) {
	ch := make(chan error, 1)
	done := func(err error) { ch <- err }
	h := partition.Header{Group: g, Epoch: 1 << 16, Kind: partition.KindCommand}
	payload := make([]byte, 128)
	w := wal.Write{Group: g, Replica: 1, Promise: 1 << 16, Records: make([]partition.Record, 1)}
	var buf []byte
	for range n {
		h.Index++
		buf = partition.AppendRecord(buf[:0], h, payload)
		w.Records[0] = buf
		h.Prev = w.Records[0].Checksum()
		if err := l.Append(w, done); err != nil {
			b.Error(err)
			return
		}
		if err := <-ch; err != nil {
			b.Error(err)
			return
		}
		if h.Index%1024 == 0 {
			l.SetFlushed(g, h.Index, 0)
		}
	}
}

// BenchmarkPipelined is one replica per writer with 64 appends in flight.
func BenchmarkPipelined(b *testing.B) {
	for _, n := range []int{1, 16} {
		b.Run(fmt.Sprintf("writers=%d", n), func(b *testing.B) {
			l, _, err := wal.Open(wal.OS{}, b.TempDir(), wal.Options{Node: "n1"})
			if err != nil {
				b.Fatal(err)
			}
			b.ResetTimer()
			b.ReportAllocs()
			var wg sync.WaitGroup
			for i := range n {
				wg.Go(func() { pipeline(b, l, partition.GroupID(i+1), b.N/n+1) })
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rec/s")
			if err := l.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

func pipeline(b *testing.B, l *wal.Log, g partition.GroupID, n int) {
	tokens := make(chan struct{}, 64)
	done := func(err error) {
		if err != nil {
			b.Error(err)
		}
		<-tokens
	}
	h := partition.Header{Group: g, Epoch: 1 << 16, Kind: partition.KindCommand}
	payload := make([]byte, 128)
	w := wal.Write{Group: g, Replica: 1, Promise: 1 << 16, Records: make([]partition.Record, 1)}
	var buf []byte
	for range n {
		tokens <- struct{}{}
		h.Index++
		buf = partition.AppendRecord(buf[:0], h, payload)
		w.Records[0] = buf
		h.Prev = w.Records[0].Checksum()
		if err := l.Append(w, done); err != nil {
			b.Error(err)
			return
		}
		if h.Index%1024 == 0 {
			l.SetFlushed(g, h.Index, 0)
		}
	}
	for range cap(tokens) {
		tokens <- struct{}{}
	}
}
