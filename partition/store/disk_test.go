package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pando.dev/pando/partition"
)

// fill applies n records and flushes.
func fill(tb testing.TB, s *Store, n partition.Index) {
	tb.Helper()
	for i := range n {
		set(tb, s, i+1, fmt.Sprintf("\x01key%06d", i), strings.Repeat(fmt.Sprint(i), 20))
	}
	if _, err := s.Flush(context.Background()); err != nil {
		tb.Fatal(err)
	}
}

// TestCorruption: a flipped bit in a table makes reads of it fail with a code
// that says so and Health name the file; other stores do not notice.
func TestCorruption(t *testing.T) {
	dir := t.TempDir()
	e := newTestEngine(t, Options{Dir: dir, FS: vfs.Default})
	s, other := openStore(t, e, 1), openStore(t, e, 2)
	fill(t, s, 1000)
	fill(t, other, 10)
	tables, err := filepath.Glob(filepath.Join(dir, "stores", "g1", "1", "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatal(tables, err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(tables[0])
	if err != nil {
		t.Fatal(err)
	}
	for i := len(b) / 3; i < len(b)/2; i += 512 {
		b[i] ^= 1
	}
	if err := os.WriteFile(tables[0], b, 0o644); err != nil {
		t.Fatal(err)
	}
	e = newTestEngine(t, Options{Dir: dir, FS: vfs.Default})
	s, other = openStore(t, e, 1), openStore(t, e, 2)
	v, err := s.View()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = v.Close() }()
	var failed error
	for _, err := range v.Scan(partition.KeyRange{}) {
		failed = err
	}
	if !errors.Is(failed, partition.ErrCorrupt) {
		t.Fatalf("scan over damage: %v", failed)
	}
	if err := s.Health(); !errors.Is(err, partition.ErrCorrupt) || !strings.Contains(err.Error(), filepath.Base(tables[0])) {
		t.Fatalf("health: %v", err)
	}
	if m, _ := state(t, other); len(m) != 10 || other.Health() != nil {
		t.Fatalf("the other store: %d keys, %v", len(m), other.Health())
	}
}

// TestBadTable (D12): a store with a file missing, empty, or cut short, does not
// open, and says why.
func TestBadTable(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, fs vfs.FS, table string){
		"missing": func(_ *testing.T, fs vfs.FS, table string) { _ = fs.Remove(table) },
		"empty":   func(t *testing.T, fs vfs.FS, table string) { writeFile(t, fs, table, nil) },
		"short":   func(t *testing.T, fs vfs.FS, table string) { writeFile(t, fs, table, []byte("short")) },
	} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewMem()
			e := newTestEngine(t, Options{FS: fs})
			fill(t, openStore(t, e, 1), 10)
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
			names, _ := fs.List("data/stores/g1/1")
			for _, n := range names {
				if strings.HasSuffix(n, ".sst") {
					spoil(t, fs, "data/stores/g1/1/"+n)
				}
			}
			e = newTestEngine(t, Options{FS: fs})
			if _, err := openStore(t, e, 1).View(); !errors.Is(err, partition.ErrCorrupt) {
				t.Fatalf("opened: %v", err)
			}
		})
	}
}

// TestIdentity: a directory of another group, a damaged or newer identity, and
// a newer file format are refused.
func TestIdentity(t *testing.T) {
	fs := vfs.NewMem()
	e := newTestEngine(t, Options{FS: fs})
	fill(t, openStore(t, e, 1), 10)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	damagedVersion := encodeIdentity(1)
	damagedVersion[9] ^= 1
	newer := encodeIdentity(1)[:20]
	newer[8]++
	newer = append(newer, "of a later time"...)
	newer = binary.LittleEndian.AppendUint32(newer, partition.Checksum(newer))
	damaged := encodeIdentity(1)
	damaged[14] ^= 1
	for name, c := range map[string]struct {
		identity []byte
		marker   string
		want     partition.Code
	}{
		"as it was":       {identity: encodeIdentity(1)},
		"other group":     {identity: encodeIdentity(2), want: partition.CodeCorrupt},
		"newer layout":    {identity: newer, want: partition.CodeNewerFormat},
		"damaged":         {identity: damaged, want: partition.CodeCorrupt},
		"damaged version": {identity: damagedVersion, want: partition.CodeCorrupt},
		"empty":           {identity: []byte{}, want: partition.CodeCorrupt},
		"missing":         {want: partition.CodeCorrupt},
		"newer files":     {identity: encodeIdentity(1), marker: "marker.format-version.000099.099", want: partition.CodeNewerFormat},
	} {
		t.Run(name, func(t *testing.T) {
			copied := vfs.NewMem()
			if ok, err := vfs.Clone(fs, copied, "data", "data"); !ok || err != nil {
				t.Fatal(ok, err)
			}
			writeFile(t, copied, "data/stores/g1/1/STORE", c.identity)
			if c.marker != "" {
				writeFile(t, copied, "data/stores/g1/1/"+c.marker, []byte{})
			}
			_, err := openStore(t, newTestEngine(t, Options{FS: copied}), 1).Applied()
			if partition.CodeOf(err) != c.want {
				t.Fatalf("got %v, want code %v", err, c.want)
			}
		})
	}
}

// writeFile replaces a file, or removes it if b is nil.
func writeFile(tb testing.TB, fs vfs.FS, name string, b []byte) {
	tb.Helper()
	if b == nil {
		if err := fs.Remove(name); err != nil {
			tb.Fatal(err)
		}
		return
	}
	f := create(tb, fs, name)
	if _, err := f.Write(b); err != nil {
		tb.Fatal(err)
	}
	_ = f.Close()
}

// TestCheckpoint: a checkpoint taken while writes go on equals the source at
// the index that its manifest says, the manifest describes its files, and it
// can be installed as another replica's store.
func TestCheckpoint(t *testing.T) {
	fs := vfs.NewMem()
	e := newTestEngine(t, Options{FS: fs})
	s := openStore(t, e, 1)
	fill(t, s, 500)
	set(t, s, 501, "\x01last", "1")
	stop, stopped := make(chan struct{}), make(chan partition.Index)
	go func() {
		i := partition.Index(501)
		for {
			select {
			case <-stop:
				stopped <- i
				return
			default:
				i++
				set(t, s, i, fmt.Sprintf("\x01late%06d", i), "x")
			}
		}
	}()
	m, err := s.Checkpoint(t.Context(), "data/stage/copy")
	close(stop)
	last := <-stopped
	if err != nil {
		t.Fatal(err)
	}
	if m.Group != 1 || m.Generation != 1 || m.Index < 501 || m.Index > last {
		t.Fatalf("manifest of %d.%d at %d, applied %d", m.Group, m.Generation, m.Index, last)
	}
	for _, f := range m.Files {
		r, err := fs.Open("data/stage/copy/" + f.Name)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(r)
		if _ = r.Close(); int64(len(b)) != f.Bytes || partition.Checksum(b) != f.CRC32C {
			t.Fatalf("%+v is not what is on disk", f)
		}
	}
	if _, err := s.Checkpoint(t.Context(), "data/stage/copy"); partition.CodeOf(err) != partition.CodeExists {
		t.Fatalf("checkpoint over another: %v", err)
	}
	if err := e.Install("data/stage/copy", 2, 5); err != nil {
		t.Fatal(err)
	}
	child, err := e.Open(2, 5)
	if err != nil {
		t.Fatal(err)
	}
	have, at := state(t, child)
	want, _ := state(t, s)
	maps.DeleteFunc(want, func(k, _ string) bool { return k > fmt.Sprintf("\x01late%06d", m.Index) && k < "\x01latf" })
	if at != m.Index || !maps.Equal(have, want) {
		t.Fatalf("the copy has %d keys at %d, want %d at %d", len(have), at, len(want), m.Index)
	}
	set(t, child, at+1, "\x01own", "1")
	if m, _ := state(t, s); m["\x01own"] != "" {
		t.Fatal("a write to the copy shows in the source")
	}
}

// TestCheckpointAfterWaking: a store that was opened and not written since has
// a checkpoint like any other.
func TestCheckpointAfterWaking(t *testing.T) {
	e := newTestEngine(t, Options{})
	s := openStore(t, e, 1)
	fill(t, s, 3)
	for !s.sp.hibernate() { // the flush that Flush waited for is about to land
		if t.Context().Err() != nil {
			t.Fatal("still open")
		}
	}
	m, err := s.Checkpoint(t.Context(), "data/stage/copy")
	if err != nil || m.Index != 3 {
		t.Fatalf("checkpoint at %d: %v", m.Index, err)
	}
	if err := e.Install("data/stage/copy", 2, 1); err != nil {
		t.Fatal(err)
	}
	if m, i := state(t, openStore(t, e, 2)); len(m) != 3 || i != 3 {
		t.Fatalf("the copy has %d keys at %d", len(m), i)
	}
}

// TestCheckpointGivenUp: a context that ends leaves nothing behind.
func TestCheckpointGivenUp(t *testing.T) {
	fs := vfs.NewMem()
	e := newTestEngine(t, Options{FS: fs})
	s := openStore(t, e, 1)
	fill(t, s, 10)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Checkpoint(ctx, "data/stage/copy"); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if names, _ := fs.List("data/stage"); len(names) != 0 {
		t.Fatalf("left behind: %q", names)
	}
}

// TestDrop: a dropped store is gone from the disk, also when a view was open,
// which keeps its state until it is closed; the trash of an earlier run is
// removed at the start.
func TestDrop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewMem()
		if err := fs.MkdirAll("data/trash/g9.1.1/x", 0o755); err != nil {
			t.Fatal(err)
		}
		e := newTestEngine(t, Options{FS: fs})
		for g := range partition.GroupID(3) {
			fill(t, openStore(t, e, g+1), 10)
		}
		ids, err := e.Generations()
		if err != nil || fmt.Sprint(ids) != "[g1/1 g2/1 g3/1]" {
			t.Fatal(ids, err)
		}
		s := openStore(t, e, 2)
		v, err := s.View()
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range []partition.GroupID{1, 2, 77} {
			if err := e.Drop(g, 1); err != nil {
				t.Fatal(err)
			}
		}
		if len(dump(t, v)) != 10 {
			t.Fatal("the view lost its state")
		}
		if _, err := e.Open(2, 1); partition.CodeOf(err) != partition.CodeBusy {
			t.Fatalf("opened while it is being removed: %v", err)
		}
		if _, err := s.View(); !errors.Is(err, partition.ErrClosed) {
			t.Fatalf("a view of a dropped store: %v", err)
		}
		_ = v.Close()
		synctest.Wait()
		if ids, _ := e.Generations(); fmt.Sprint(ids) != "[g3/1]" {
			t.Fatal(ids)
		}
		if names, _ := fs.List("data/trash"); len(names) != 0 {
			t.Fatalf("in the trash: %q", names)
		}
		if m, i := state(t, openStore(t, e, 2)); len(m) != 0 || i != 0 {
			t.Fatalf("a new store after a drop has %v at %d", m, i)
		}
	})
}

// TestTakeOver: opening a store again takes it from the handle before.
func TestTakeOver(t *testing.T) {
	e := newTestEngine(t, Options{})
	old := openStore(t, e, 1)
	set(t, old, 1, "\x01a", "1")
	now := openStore(t, e, 1)
	if err := old.Apply(2, func(partition.Writer) error { return nil }); !errors.Is(err, partition.ErrClosed) {
		t.Fatalf("the old handle applies: %v", err)
	}
	if i, err := now.Applied(); i != 1 || err != nil {
		t.Fatalf("the new handle is at %d: %v", i, err)
	}
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	set(t, now, 2, "\x01a", "2")
}

// TestCloseWithView: an engine does not pull the files from under a view for
// ever, nor does it crash: it says that it is still open.
func TestCloseWithView(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewMem()
		e, err := NewEngine(Options{FS: fs, Dir: "data", CacheBytes: 1 << 20, MaxOpen: 2})
		if err != nil {
			t.Fatal(err)
		}
		s := openStore(t, e, 1)
		set(t, s, 1, "\x01a", "1")
		v, err := s.View()
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Close(); !errors.Is(err, partition.ErrBusy) {
			t.Fatalf("closed under a view: %v", err)
		}
		if len(dump(t, v)) != 1 {
			t.Fatal("the view lost its state")
		}
		_ = v.Close()
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestAppliedVersion: an applied index written by a newer program is refused.
func TestAppliedVersion(t *testing.T) {
	for _, c := range []struct {
		value []byte
		want  partition.Code
	}{
		{appliedValue(7), 0},
		{append([]byte{metaVersion + 1}, make([]byte, 20)...), partition.CodeNewerFormat},
		{[]byte{metaVersion, 1}, partition.CodeCorrupt},
		{nil, partition.CodeCorrupt},
		{bytes.Repeat([]byte{0}, 9), partition.CodeCorrupt},
	} {
		if _, err := parseApplied(c.value); partition.CodeOf(err) != c.want {
			t.Errorf("%x: %v", c.value, err)
		}
	}
}

// TestTablesAreNotCutUp: Pebble's way to cut a deleted range out of a table
// takes a failed read for the end of the table and loses the rest of it, as
// TestEveryOperationFails showed (disk errors "for long", in one run of a
// hundred: keys that were durable were gone). It must stay off.
func TestTablesAreNotCutUp(t *testing.T) {
	e := newTestEngine(t, Options{})
	s := openStore(t, e, 1)
	if o := e.pebbleOptions(s.sp); o.Experimental.EnableDeleteOnlyCompactionExcises == nil || o.Experimental.EnableDeleteOnlyCompactionExcises() {
		t.Fatal("tables are cut up")
	}
}
