package store

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pando.dev/pando/partition"
)

// waitRoom waits as an actor would that has nothing else to do.
func waitRoom(s *Store) {
	for s.NeedsRoom() {
		room := make(chan struct{})
		s.AwaitRoom(func() { close(room) })
		<-room
	}
}

// benchKey spreads keys as a hash would.
func benchKey(b []byte, i uint64) []byte {
	return binary.BigEndian.AppendUint64(append(b[:0], 1), i*0x9e3779b97f4a7c15)
}

func diskEngine(b *testing.B, o Options) *Engine {
	o.Dir, o.FS = b.TempDir(), vfs.Default
	def(&o.MemoryBytes, 256<<20)
	return newTestEngine(b, o)
}

// BenchmarkApply is one hot replica on the disk, per record, flushes included:
// puts only, reads of keys of their own before each put, and reads of a key
// that the same batch wrote.
func BenchmarkApply(b *testing.B) {
	for _, size := range []int{128, 1024} {
		for _, batch := range []int{1, 16, 64} {
			for _, mode := range []string{"put", "read_put", "counter"} {
				b.Run(fmt.Sprintf("bytes=%d/batch=%d/%s", size, batch, mode), func(b *testing.B) {
					benchApply(b, size, batch, mode)
				})
			}
		}
	}
}

func benchApply(b *testing.B, size, batch int, mode string) {
	e := diskEngine(b, Options{MemoryBytes: 256 << 20, CacheBytes: 64 << 20})
	s := openStore(b, e, 1)
	value, key := make([]byte, size), make([]byte, 0, 16)
	b.ReportAllocs()
	b.SetBytes(int64(size))
	b.ResetTimer()
	began := cpuTime()
	for n := 0; n < b.N; n += batch {
		waitRoom(s)
		err := s.Apply(partition.Index(n+batch), func(w partition.Writer) error {
			for i := range batch {
				key = benchKey(key, uint64(n+i))
				if mode == "counter" {
					key = benchKey(key, uint64(n))
				}
				if mode != "put" {
					if _, _, err := w.Get(key); err != nil {
						return err
					}
				}
				if err := w.Set(key, value); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	reportCPU(b, began, b.N)
	if n := e.Stats().Stalls; n > 0 {
		b.Errorf("%d stalls", n)
	}
}

// BenchmarkHotStores is a thousand replicas that are written alike, by two
// writers in batches of 16.
func BenchmarkHotStores(b *testing.B) {
	for _, size := range []int{128, 1024} {
		b.Run(fmt.Sprintf("bytes=%d", size), func(b *testing.B) { benchHot(b, 1000, size) })
	}
}

func benchHot(b *testing.B, stores, size int) {
	const batch = 16
	e := diskEngine(b, Options{CacheBytes: 64 << 20})
	all := make([]*Store, stores)
	next := make([]partition.Index, stores)
	for g := range all {
		all[g] = openStore(b, e, partition.GroupID(g+1))
		if _, err := all[g].Applied(); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(int64(size))
	b.ResetTimer()
	began := cpuTime()
	var done sync.WaitGroup
	for half := range 2 {
		done.Go(func() {
			value, key := make([]byte, size), make([]byte, 0, 16)
			for n := 0; n < b.N/2; n += batch {
				g := 2*((n/batch*7919)%(stores/2)) + half
				waitRoom(all[g])
				next[g]++
				if err := all[g].Apply(next[g], func(w partition.Writer) error {
					for i := range batch {
						key = benchKey(key, uint64(n+i))
						if err := w.Set(key, value); err != nil {
							return err
						}
					}
					return nil
				}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	done.Wait()
	b.StopTimer()
	reportCPU(b, began, b.N)
	b.ReportMetric(float64(e.Stats().Flushes), "flushes")
	b.ReportMetric(float64(e.Stats().WrittenBytes)/float64(b.N*size), "w-amp")
}

// BenchmarkView is a view opened, read once and closed.
func BenchmarkView(b *testing.B) {
	const keys = 200_000
	e := diskEngine(b, Options{MemoryBytes: 64 << 20, CacheBytes: 64 << 20})
	s := openStore(b, e, 1)
	value, key := make([]byte, 128), make([]byte, 0, 16)
	for n := 0; n < keys; n += 100 {
		waitRoom(s)
		err := s.Apply(partition.Index(n+1), func(w partition.Writer) error {
			for i := range 100 {
				key = benchKey(key, uint64(n+i))
				if err := w.Set(key, value); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	began := cpuTime()
	for n := 0; b.Loop(); n++ {
		v, err := s.View()
		if err != nil {
			b.Fatal(err)
		}
		key = benchKey(key, uint64(n*31%keys))
		if _, ok, err := v.Get(key); !ok || err != nil {
			b.Fatal(ok, err)
		}
		if err := v.Close(); err != nil {
			b.Fatal(err)
		}
	}
	reportCPU(b, began, b.N)
}

// BenchmarkIdleStores opens 1,000 stores with a little in each, flushed, and
// reports what they cost while they do nothing. Run it with -benchtime 1x.
func BenchmarkIdleStores(b *testing.B) {
	const stores = 1000
	for range b.N {
		e := diskEngine(b, Options{CacheBytes: 64 << 20})
		fds, goroutines, rss := descriptors(), runtime.NumGoroutine(), resident()
		began := e.now()
		for g := range partition.GroupID(stores) {
			s := openStore(b, e, g+1)
			set(b, s, 1, "\x01a", "1")
		}
		opened, syncs := e.now(), e.Stats().Syncs
		for g := range partition.GroupID(stores) {
			if _, err := openStore(b, e, g+1).Flush(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		flushed := e.now()
		b.ReportMetric(float64(syncs)/stores, "syncs/create")
		b.ReportMetric(float64(e.Stats().Syncs-syncs)/stores, "syncs/flush")
		debug.FreeOSMemory()
		b.ReportMetric(float64(descriptors()-fds)/stores, "fds/store")
		b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/stores, "goroutines/store")
		b.ReportMetric(float64(resident()-rss)/stores/1024, "KiB/store")
		b.ReportMetric((opened-began).Seconds()*1000/stores, "ms/create")
		b.ReportMetric((flushed-opened).Seconds()*1000/stores, "ms/flush")
		for g := range partition.GroupID(stores) {
			openStore(b, e, g+1).sp.hibernate()
		}
		b.ReportMetric(float64(e.Stats().Open), "open_after")
		woke := e.now()
		for g := range partition.GroupID(stores) {
			v, err := openStore(b, e, g+1).View()
			if err != nil {
				b.Fatal(err)
			}
			_ = v.Close()
		}
		b.ReportMetric((e.now()-woke).Seconds()*1000/stores, "ms/wake")
	}
}

// cpuTime is what the process has used of the processors, which says more than
// the clock on a machine that others use too.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// reportCPU adds the processor time per operation since began.
func reportCPU(b *testing.B, began time.Duration, n int) {
	b.ReportMetric(float64((cpuTime()-began).Nanoseconds())/float64(n), "cpu-ns/op")
}

func descriptors() int {
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(names)
}

// resident is the process's memory in bytes, as far as the system says.
func resident() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	var total, pages int64
	if _, err := fmt.Sscan(string(b), &total, &pages); err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
