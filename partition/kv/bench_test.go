package kv

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/kv/mem"
	"pando.dev/pando/partition/store"
)

// BenchmarkExecute is a command from its bytes to the store's memtable, 16 in
// an apply, flushes included.
func BenchmarkExecute(b *testing.B) {
	for _, kind := range []string{"put", "compare_and_set"} {
		for _, size := range []int{128, 1024} {
			b.Run(fmt.Sprintf("%s/bytes=%d", kind, size), func(b *testing.B) { benchExecute(b, kind, size) })
		}
	}
}

func benchExecute(b *testing.B, kind string, size int) {
	const batch = 16
	e, err := store.NewEngine(store.Options{Dir: b.TempDir(), FS: vfs.Default})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = e.Close() }()
	s, err := e.Open(1, 1)
	if err != nil {
		b.Fatal(err)
	}
	commands := make([][]byte, 4096)
	for i := range commands {
		key := binary.BigEndian.AppendUint64(nil, uint64(i)*0x9e3779b97f4a7c15)
		if kind == "put" {
			commands[i], err = Put(key, make([]byte, size))
		} else {
			commands[i], err = CompareAndSet(IfVersion(key, 0), make([]byte, size))
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	p := &table{}
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; n += batch {
		for s.NeedsRoom() {
			room := make(chan struct{})
			s.AwaitRoom(func() { close(room) })
			<-room
		}
		err := s.Apply(partition.Index(n+batch), func(w partition.Writer) error {
			w = store.Under(1, w)
			for i := range batch {
				if _, err := p.Apply(w, partition.Command{Index: partition.Index(n + i + 1), Payload: commands[(n+i)%len(commands)]}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDecode is what a front door pays to look at a put.
func BenchmarkDecode(b *testing.B) {
	cmd, err := Put([]byte("a key of some length"), make([]byte, 128))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := Check(cmd); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkScan is a scan of a hundred pairs of 128 bytes, in memory.
func BenchmarkScan(b *testing.B) {
	var space mem.Space
	p := &table{}
	for i := range partition.Index(1000) {
		cmd, err := Put(fmt.Appendf(nil, "key%06d", i), make([]byte, 128))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := p.Apply(&space, partition.Command{Index: i + 1, Payload: cmd}); err != nil {
			b.Fatal(err)
		}
	}
	q, err := ScanQuery{Limit: 100}.Encode()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Read(&space, q); err != nil {
			b.Fatal(err)
		}
	}
}
