package control

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"

	"pando.dev/pando/partition"
)

func testStore(t testing.TB, fs vfs.FS) *store {
	t.Helper()
	s, err := openStoreOn(fs, "store", slog.New(slog.DiscardHandler), func() { panic("the process ends") })
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func entry(index, term uint64, data string) *raft.Log {
	return &raft.Log{Index: index, Term: term, Type: raft.LogCommand, Data: []byte(data)}
}

func bounds(t testing.TB, s *store) (uint64, uint64) {
	t.Helper()
	first, err := s.FirstIndex()
	if err != nil {
		t.Fatal(err)
	}
	last, err := s.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	return first, last
}

func mustDo(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What the library expects of its log store, also after it was opened again.
func TestLogStore(t *testing.T) {
	fs := vfs.NewMem()
	s := testStore(t, fs)
	check := func(what string, first, last uint64) {
		t.Helper()
		for _, again := range []bool{false, true} {
			if again {
				mustDo(t, s.Close())
				s = testStore(t, fs)
			}
			if a, b := bounds(t, s); a != first || b != last {
				t.Fatalf("%s, opened again %t: %d to %d, want %d to %d", what, again, a, b, first, last)
			}
			var l raft.Log
			for i := first; i <= last && i > 0; i++ {
				mustDo(t, s.GetLog(i, &l))
				if l.Index != i {
					t.Fatalf("entry %d says %d", i, l.Index)
				}
			}
			for _, i := range []uint64{first - 1, last + 1} {
				if err := s.GetLog(i, &l); !errors.Is(err, raft.ErrLogNotFound) {
					t.Fatalf("%s: entry %d beyond the ends: %v", what, i, err)
				}
			}
		}
	}
	check("empty", 0, 0)
	mustDo(t, s.StoreLogs(nil))
	mustDo(t, s.StoreLogs([]*raft.Log{entry(1, 1, "a"), entry(2, 1, "b"), entry(3, 1, "c")}))
	mustDo(t, s.StoreLog(entry(4, 1, "d")))
	check("four", 1, 4)
	if err := s.StoreLog(entry(6, 1, "gap")); err == nil {
		t.Fatal("a gap was accepted")
	}
	if err := s.DeleteRange(2, 3); err == nil {
		t.Fatal("a gap was made")
	}
	mustDo(t, s.DeleteRange(4, 9))
	check("without the end", 1, 3)
	mustDo(t, s.StoreLog(entry(4, 2, "e")))
	var l raft.Log
	mustDo(t, s.GetLog(4, &l))
	if l.Term != 2 || string(l.Data) != "e" {
		t.Fatalf("overwritten entry: %+v", l)
	}
	mustDo(t, s.DeleteRange(0, 2))
	check("without the beginning", 3, 4)
	mustDo(t, s.DeleteRange(9, 12))
	mustDo(t, s.DeleteRange(5, 4))
	check("nothing removed", 3, 4)
	mustDo(t, s.DeleteRange(1, 1<<64-1))
	check("emptied", 0, 0)
	mustDo(t, s.StoreLog(entry(100, 3, "behind a snapshot")))
	check("later", 100, 100)
	mustDo(t, s.Close())
}

func TestLogEntryKeepsEverything(t *testing.T) {
	s := testStore(t, vfs.NewMem())
	defer s.Close()
	at := time.Unix(1_700_000_000, 123456789)
	for i, l := range []*raft.Log{
		{Index: 1, Term: 7, Type: raft.LogConfiguration, Data: []byte("data"), Extensions: []byte("ext"), AppendedAt: at},
		{Index: 2, Term: 1 << 60, Type: raft.LogNoop},
		{Index: 3, Term: 1, Type: raft.LogBarrier, Data: bytes.Repeat([]byte("x"), 1<<20)},
	} {
		mustDo(t, s.StoreLog(l))
		var got raft.Log
		mustDo(t, s.GetLog(uint64(i+1), &got))
		if got.Term != l.Term || got.Type != l.Type || !bytes.Equal(got.Data, l.Data) || !bytes.Equal(got.Extensions, l.Extensions) || !got.AppendedAt.Equal(l.AppendedAt) {
			t.Errorf("stored %+v, read %+v", l, got)
		}
	}
	var l raft.Log
	for _, b := range [][]byte{nil, make([]byte, entryHeadBytes-1), append(make([]byte, 17), 0xff, 0xff, 0xff, 0xff)} {
		if err := decodeEntry(b, &l); !errors.Is(err, partition.ErrCorrupt) {
			t.Errorf("entry of %d bytes: %v", len(b), err)
		}
	}
}

func TestStableStore(t *testing.T) {
	fs := vfs.NewMem()
	s := testStore(t, fs)
	if v, err := s.Get([]byte("k")); err != nil || len(v) != 0 {
		t.Fatal(v, err)
	}
	if n, err := s.GetUint64([]byte("n")); err != nil || n != 0 {
		t.Fatal(n, err)
	}
	mustDo(t, s.Set([]byte("k"), []byte("value")))
	mustDo(t, s.SetUint64([]byte("n"), 42))
	mustDo(t, s.Close())
	s = testStore(t, fs)
	defer s.Close()
	if v, err := s.Get([]byte("k")); err != nil || string(v) != "value" {
		t.Fatal(v, err)
	}
	if n, err := s.GetUint64([]byte("n")); err != nil || n != 42 {
		t.Fatal(n, err)
	}
	if _, err := s.GetUint64([]byte("k")); !errors.Is(err, partition.ErrCorrupt) {
		t.Fatal(err)
	}
}

func takeSnapshot(t testing.TB, s *store, index uint64, content []byte) string {
	t.Helper()
	sink, err := s.Create(1, index, 2, configuration([]partition.NodeID{"a", "b"}), 1, nil)
	mustDo(t, err)
	for len(content) > 0 {
		n := min(len(content), 100_000)
		_, err := sink.Write(content[:n])
		mustDo(t, err)
		content = content[n:]
	}
	mustDo(t, sink.Close())
	return sink.ID()
}

func readSnapshot(t testing.TB, s *store, id string) []byte {
	t.Helper()
	meta, r, err := s.Open(id)
	mustDo(t, err)
	b, err := io.ReadAll(r)
	mustDo(t, err)
	mustDo(t, r.Close())
	if int64(len(b)) != meta.Size {
		t.Fatalf("snapshot %s has %d bytes, says %d", id, len(b), meta.Size)
	}
	return b
}

// Snapshots count when they are closed; the last two are kept.
func TestSnapshotStore(t *testing.T) {
	fs := vfs.NewMem()
	s := testStore(t, fs)
	content := make([]byte, 3*chunkBytes+17)
	for i := range content {
		content[i] = byte(i * 7)
	}
	for i := range uint64(4) {
		takeSnapshot(t, s, i+1, content[i:])
	}
	canceled, err := s.Create(1, 9, 2, raft.Configuration{}, 1, nil)
	mustDo(t, err)
	_, err = canceled.Write(content)
	mustDo(t, err)
	mustDo(t, canceled.Cancel())
	open, err := s.Create(1, 10, 2, raft.Configuration{}, 1, nil)
	mustDo(t, err)
	_, err = open.Write(content)
	mustDo(t, err)
	mustDo(t, s.Close())
	s = testStore(t, fs)
	defer s.Close()
	list, err := s.List()
	mustDo(t, err)
	if len(list) != keepSnapshots || list[0].Index != 4 || list[1].Index != 3 || len(list[0].Configuration.Servers) != 2 {
		t.Fatalf("snapshots %+v", list)
	}
	for i, m := range list {
		if !bytes.Equal(readSnapshot(t, s, m.ID), content[3-i:]) {
			t.Fatalf("snapshot %d differs", m.Index)
		}
	}
	if _, _, err := s.Open("nowhere"); !errors.Is(err, partition.ErrNotFound) {
		t.Fatal(err)
	}
	if id := takeSnapshot(t, s, 11, nil); len(readSnapshot(t, s, id)) != 0 {
		t.Fatal("an empty snapshot has content")
	}
	keys := 0
	it, err := s.db.NewIter(nil)
	mustDo(t, err)
	for ok := it.First(); ok; ok = it.Next() {
		if it.Key()[0] == keyChunk {
			keys++
		}
	}
	mustDo(t, it.Close())
	if keys != 4 {
		t.Fatalf("%d chunks, the kept snapshots have 4", keys)
	}
}

// Whatever the disk forgets in a crash: what a method had stored when it
// returned is there, the log has no gap, and a snapshot is whole or not there.
func TestStoreSurvivesCrashes(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	fs := vfs.NewCrashableMem()
	s := testStore(t, fs)
	first, last, stable, snap := uint64(0), uint64(0), uint64(0), uint64(0)
	for step := range 400 {
		switch rng.IntN(8) {
		case 0:
			stable++
			mustDo(t, s.SetUint64([]byte("n"), stable))
		case 1:
			if snap++; rng.IntN(2) == 0 {
				takeSnapshot(t, s, snap, bytes.Repeat([]byte{byte(snap)}, chunkBytes+int(snap)))
			} else {
				snap--
				sink, err := s.Create(1, 1<<40, 1, raft.Configuration{}, 1, nil)
				mustDo(t, err)
				_, err = sink.Write(make([]byte, chunkBytes+1))
				mustDo(t, err)
			}
		case 2:
			if last > first {
				cut := first + rng.Uint64N(last-first) + 1
				mustDo(t, s.DeleteRange(cut, last))
				last = cut - 1
			}
		case 3:
			if last > first+10 {
				mustDo(t, s.DeleteRange(first, first+4))
				first += 5
			}
		default:
			var logs []*raft.Log
			for range rng.IntN(5) + 1 {
				last++
				logs = append(logs, entry(last, uint64(step), fmt.Sprint(last)))
			}
			first = max(first, 1)
			mustDo(t, s.StoreLogs(logs))
		}
		if rng.IntN(3) > 0 {
			continue
		}
		crashed := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
		mustDo(t, s.Close())
		fs = crashed
		s = testStore(t, fs)
		checkStore(t, s, step, first, last, stable, snap)
	}
	mustDo(t, s.Close())
}

func checkStore(t *testing.T, s *store, step int, first, last, stable, snap uint64) {
	t.Helper()
	if a, b := bounds(t, s); a != first || b != last {
		t.Fatalf("step %d: log %d to %d, want %d to %d", step, a, b, first, last)
	}
	var l raft.Log
	for i := max(first, 1); i <= last; i++ {
		if err := s.GetLog(i, &l); err != nil || string(l.Data) != fmt.Sprint(i) {
			t.Fatalf("step %d: entry %d: %q, %v", step, i, l.Data, err)
		}
	}
	if n, err := s.GetUint64([]byte("n")); err != nil || n != stable {
		t.Fatalf("step %d: stable value %d, want %d, %v", step, n, stable, err)
	}
	list, err := s.List()
	if err != nil || len(list) != int(min(snap, keepSnapshots)) {
		t.Fatalf("step %d: %d snapshots of %d, %v", step, len(list), snap, err)
	}
	for i, m := range list {
		want := snap - uint64(i)
		b := readSnapshot(t, s, m.ID)
		if m.Index != want || len(b) != chunkBytes+int(want) || b[0] != byte(want) || b[len(b)-1] != byte(want) {
			t.Fatalf("step %d: snapshot %d, want %d, %d bytes", step, m.Index, want, len(b))
		}
	}
}
