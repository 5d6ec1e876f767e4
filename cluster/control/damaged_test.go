package control

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/hashicorp/raft"

	"pando.dev/pando/partition"
)

// partsOf are the bodies of a snapshot's parts.
func partsOf(t testing.TB, b []byte) (all [][]byte) {
	r := bytes.NewReader(b)
	for r.Len() > 0 {
		p, err := readPart(r)
		mustDo(t, err)
		all = append(all, p)
	}
	return all
}

// snapshotOf puts parts together, each with the checksum that it should have.
func snapshotOf(parts [][]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(p)))
		b = append(binary.LittleEndian.AppendUint32(b, partition.Checksum(p)), p...)
	}
	return b
}

// TestDamagedParts: a snapshot of which any part is missing, there twice, cut, of
// another version or kind, or says what cannot be, is refused as a whole even if its
// checksums are right, and the state stays what it was.
func TestDamagedParts(t *testing.T) {
	good := partsOf(t, bytesOf(t, seeded(t)))
	f := newFSM(func() {}, func(error) {})
	mustDo(t, f.Restore(io.NopCloser(bytes.NewReader(snapshotOf(good)))))
	refused := func(what string, parts [][]byte) {
		t.Helper()
		before := f.state
		err := f.Restore(io.NopCloser(bytes.NewReader(snapshotOf(parts))))
		if partition.CodeOf(err) == 0 || partition.CodeOf(err) == partition.CodeInternal || f.state != before {
			t.Errorf("%s: %v", what, err)
		}
	}
	for i, p := range good {
		with := func(b []byte) [][]byte {
			x := slices.Clone(good)
			x[i] = b
			return x
		}
		name := fmt.Sprintf("part %d of kind %d ", i, p[1])
		for n := range p {
			refused(fmt.Sprintf("%scut to %d bytes", name, n), with(p[:n]))
		}
		refused(name+"of a newer version", with(append([]byte{codecVersion + 1}, p[1:]...)))
		refused(name+"of version 0", with(append([]byte{0}, p[1:]...)))
		refused(name+"of another kind", with(append([]byte{codecVersion, 99}, p[2:]...)))
		refused(name+"with other fields", with([]byte{codecVersion, p[1], 0x91, 0xa1, 'x'}))
		if k := kind(p[1]); k != kindStartPage && k != kindPermitPage { // programs before there were any wrote none
			refused(name+"left out", slices.Delete(slices.Clone(good), i, i+1))
		}
		refused(name+"there twice", slices.Insert(slices.Clone(good), i, p))
	}
	for name, x := range map[string]struct {
		kind kind
		body any
	}{
		"a session of nobody":               {kindHead, &headBody{Sessions: []heldSession{{Boot: 1}}}},
		"more drops than are remembered":    {kindHead, &headBody{Drops: make([]dropItem, maxDrops+1)}},
		"a start of no session":             {kindStartPage, &startPage{Of: 1, Starts: []startItem{{Node: "x", Start: 1}}}},
		"a holder that is no replica":       {kindPermitPage, &permitPage{Of: 1, Permits: []permitItem{{Group: 2, Number: 1, Holder: "a"}}}},
		"a holder that may not be master":   {kindPermitPage, &permitPage{Of: 1, Permits: []permitItem{{Group: 2, Number: 1, Holder: "a", Replica: 1, Able: ids(2)}}}},
		"replicas out of order":             {kindPermitPage, &permitPage{Of: 1, Permits: []permitItem{{Group: 2, Number: 1, Holder: "a", Replica: 1, Able: ids(2, 1)}}}},
		"more starts than there are":        {kindStartPage, &startPage{Of: 7}},
		"a lock of no valid number":         {kindLockPage, &lockPage{Locks: []lockItem{{Group: 1, Last: MaxLockNumber + 1}}}},
		"a group without members":           {kindPage, &pageBody{Version: 3, Whole: true, Groups: []groupItem{{ID: 1, Table: 1}}}},
		"a table without a name":            {kindPage, &pageBody{Version: 3, Whole: true, Tables: []tableItem{{ID: 1}}}},
		"a catalog that forgot its future":  {kindPage, &pageBody{Version: 3, Whole: true, Floor: 9}},
		"a catalog whose page is the first": {kindPage, &pageBody{Version: 3}},
		"a task of no kind":                 {kindPage, &taskPage{Page: pageBody{Version: 3, Whole: true}, Tasks: []taskItem{{ID: 1}}}},
		"a group that comes from itself":    {kindPage, &taskPage{Page: pageBody{Version: 3, Whole: true}, Origins: []originItem{{Group: 1, Parent: 1}}}},
		"more tasks than there are":         {kindTaskHead, &taskHead{Next: 9, Tasks: 7}},
		"no next task":                      {kindTaskHead, &taskHead{}},
		"a tail of another":                 {kindTail, &tailBody{Locks: 99}},
	} {
		parts := slices.Clone(good)
		i := slices.IndexFunc(parts, func(p []byte) bool {
			return kind(p[1]) == x.kind || x.kind == kindPage && (kind(p[1]) == kindTaskPage || kind(p[1]) == kindSplitsPage)
		})
		if _, ok := x.body.(*taskPage); ok {
			x.kind = kindTaskPage
		}
		parts[i] = command(t, x.kind, x.body)
		refused(name, parts)
	}
}

// TestStateThatStopped: behind a command that this program does not know nothing is
// applied, answered or kept.
func TestStateThatStopped(t *testing.T) {
	var fatal error
	f := newFSM(func() {}, func(err error) { fatal = err })
	mustDo(t, f.Restore(io.NopCloser(bytes.NewReader(bytesOf(t, seeded(t))))))
	version := f.catalog.Load().Version
	drop := command(t, kindDrop, &dropBody{Token: "x", Name: "t"})
	newer := append([]byte{codecVersion + 1}, drop[1:]...)
	for i, b := range [][]byte{newer, drop} {
		if r := f.Apply(&raft.Log{Index: uint64(i + 1), Data: b}).(result); r.err == nil || r.err.Code != partition.CodeNewerFormat || fatal == nil {
			t.Errorf("command %d: %+v, fatal %v", i, r, fatal)
		}
	}
	if f.catalog.Load().Version != version {
		t.Error("a command behind an unknown one was applied")
	}
	if _, err := f.Snapshot(); partition.CodeOf(err) != partition.CodeNewerFormat {
		t.Errorf("a snapshot of it: %v", err)
	}
}

// sink is a snapshot's sink with room for so many bytes.
type sink struct {
	failingWriter
	closed, cancelled bool
}

func (s *sink) ID() string    { return "x" }
func (s *sink) Close() error  { s.closed = true; return nil }
func (s *sink) Cancel() error { s.cancelled = true; return nil }

// TestSnapshotThatIsNotWritten: a snapshot is closed when it is whole, and cancelled
// wherever its writing fails; also behind the buffer's size.
func TestSnapshotThatIsNotWritten(t *testing.T) {
	s := seeded(t)
	for i := range 1000 {
		s.tokens = append(s.tokens, tokenItem{Token: fmt.Sprintf("%0100d", i)})
	}
	whole := len(bytesOf(t, s))
	for n := 0; n <= whole; n += whole / 50 {
		x := &sink{failingWriter: failingWriter{n}}
		err := persist{s.snapshot()}.Persist(x)
		if n < whole && (!errors.Is(err, syscall.ENOSPC) || !x.cancelled || x.closed) {
			t.Errorf("room for %d of %d bytes: %v, %+v", n, whole, err, x)
		}
	}
	x := &sink{failingWriter: failingWriter{whole}}
	if err := (persist{s.snapshot()}).Persist(x); err != nil || !x.closed || x.cancelled {
		t.Errorf("%v, %+v", err, x)
	}
	s.tokens = append(s.tokens, tokenItem{Token: strings.Repeat("x", maxPartBytes)})
	if err := s.snapshot().write(io.Discard); partition.CodeOf(err) != partition.CodeTooLarge {
		t.Errorf("a part that nobody would read: %v", err)
	}
}

// TestDamagedCatalog: of a catalog's pages every one counts, whole and in order.
func TestDamagedCatalog(t *testing.T) {
	s := seeded(t)
	pages := EncodeCatalog(s.catalog)
	if c, err := DecodeCatalog(pages); err != nil || len(c.groups) != len(s.catalog.groups) {
		t.Fatal(c, err)
	}
	bad := map[string][][]byte{"none": nil, "one twice": {pages[0], pages[0]}, "an end that is none": {command(t, kindPage, &pageBody{Version: 1, Whole: true, More: true, Next: cursor{Version: 1}})}}
	for n := range pages[0] {
		bad[fmt.Sprintf("cut to %d bytes", n)] = [][]byte{pages[0][:n]}
	}
	bad["a group of no table"] = [][]byte{command(t, kindPage, &pageBody{Version: 1, Whole: true, Groups: []groupItem{updateOf(t, *s.catalog.groups[0])}})}
	for name, p := range bad {
		if c, err := DecodeCatalog(p); partition.CodeOf(err) == 0 || c != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// badReads fails the n-th read of tables, and all behind it.
type badReads struct {
	mu   sync.Mutex
	n    int
	left int // reads that succeed; below 0: all
}

func (b *badReads) String() string { return "reads fail" }

func (b *badReads) MaybeError(op errorfs.Op) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if op.Kind != errorfs.OpFileRead && op.Kind != errorfs.OpFileReadAt {
		return nil
	}
	b.n++
	if b.left < 0 || b.n <= b.left {
		return nil
	}
	return syscall.EIO
}

// TestEveryReadFails: whichever read of a seat's store fails, who asked is told and
// gets nothing instead of what is there; and what is there is still there after it.
func TestEveryReadFails(t *testing.T) {
	fs := vfs.NewMem()
	s := testStore(t, fs)
	for i := range uint64(20) {
		mustDo(t, s.StoreLog(entry(i+1, 1, strings.Repeat("x", 4000))))
	}
	mustDo(t, s.SetUint64([]byte("n"), 20))
	id := takeSnapshot(t, s, 20, content(20))
	mustDo(t, s.db.Flush())
	mustDo(t, s.Close())
	f := &badReads{left: -1}
	open := func() (*store, error) {
		return openStoreOn(errorfs.Wrap(fs, f), "store", slog.New(slog.DiscardHandler), func() { panic("the process ends") })
	}
	all := func(s *store) error {
		var l raft.Log
		if err := s.GetLog(7, &l); err != nil || len(l.Data) != 4000 {
			return fmt.Errorf("an entry of %d bytes: %w", len(l.Data), err)
		}
		if n, err := s.GetUint64([]byte("n")); err != nil || n != 20 {
			return fmt.Errorf("%d is stable: %w", n, err)
		}
		if list, err := s.List(); err != nil || len(list) != 1 {
			return fmt.Errorf("%d snapshots: %w", len(list), err)
		}
		if _, b, err := readAt(s, id); err != nil || !bytes.Equal(b, content(20)) {
			return fmt.Errorf("a snapshot of %d bytes: %w", len(b), err)
		}
		return nil
	}
	steps := []func(*store) error{all,
		func(s *store) error { _, err := s.GetUint64([]byte("n")); return err },
		func(s *store) error { _, err := s.List(); return err },
		func(s *store) error { return s.reap() },
		func(s *store) error { _, _, err := s.Open(id); return err },
		func(s *store) error { _, _, err := readAt(s, id); return err },
	}
	for i, step := range steps {
		failed := 0
		for left := 0; ; left++ {
			f.n, f.left = 0, left
			s, err := open()
			if err == nil {
				err = step(s)
				f.mu.Lock()
				f.left = -1
				f.mu.Unlock()
				mustDo(t, errors.Join(all(s), s.Close()))
			}
			if err == nil {
				break
			}
			if failed++; !errors.Is(err, syscall.EIO) {
				t.Fatalf("step %d, read %d: %v", i, left+1, err)
			}
		}
		if failed == 0 {
			t.Errorf("step %d reads nothing", i)
		}
	}
}

// TestStoreThatTakesNothing: a write that the store refuses is an error of what was
// to be written, and nothing is shown of it.
func TestStoreThatTakesNothing(t *testing.T) {
	fs := vfs.NewMem()
	s := testStore(t, fs)
	mustDo(t, s.StoreLogs([]*raft.Log{entry(1, 1, "a"), entry(2, 1, "b")}))
	for i := range uint64(3) {
		takeSnapshot(t, s, i+1, content(i+1))
	}
	mustDo(t, s.Close())
	db, err := pebble.Open("store", &pebble.Options{FS: fs, ReadOnly: true, Logger: storeLog{log: slog.New(slog.DiscardHandler)}, FormatMajorVersion: pebble.FormatValueSeparation})
	mustDo(t, err)
	defer db.Close()
	r := &store{db: db, first: 1, last: 2, nextSnap: 9}
	begun := func(n int) *sinkWriter {
		x, err := r.Create(1, 1, 1, raft.Configuration{}, 1, nil)
		mustDo(t, err)
		w := x.(*sinkWriter)
		w.buffer = make([]byte, n)
		return w
	}
	for name, f := range map[string]func() error{
		"append":        func() error { return r.StoreLog(entry(3, 1, "c")) },
		"remove":        func() error { return r.DeleteRange(1, 1) },
		"set":           func() error { return r.SetUint64([]byte("n"), 1) },
		"write":         func() error { _, err := begun(0).Write(make([]byte, chunkBytes)); return err },
		"close":         func() error { return begun(1).Close() },
		"close nothing": func() error { return begun(0).Close() },
		"cancel":        func() error { return begun(1).Cancel() },
	} {
		if err := f(); !errors.Is(err, pebble.ErrReadOnly) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if a, b := bounds(t, r); a != 1 || b != 2 {
		t.Errorf("the log goes from %d to %d", a, b)
	}
	if list, err := r.List(); err != nil || len(list) != keepSnapshots {
		t.Errorf("%d snapshots, %v", len(list), err)
	}
}

// TestDamagedDescription: whatever is wrong with the description of a snapshot, it is
// an error and no panic.
func TestDamagedDescription(t *testing.T) {
	m := &raft.SnapshotMeta{Index: 1, Term: 1, Configuration: configuration([]partition.NodeID{"a", "b"}), ConfigurationIndex: 1}
	good := encodeMeta(m, 1)
	key := numberKey(keyMeta, 1)
	if d, err := decodeMeta(key, good); err != nil || len(d.meta.Configuration.Servers) != 2 {
		t.Fatal(d, err)
	}
	signed := func(b []byte) []byte {
		b = slices.Clone(b)
		if len(b) >= 4 {
			binary.BigEndian.PutUint32(b, partition.Checksum(b[4:]))
		}
		return b
	}
	for n := range good {
		if _, err := decodeMeta(key, signed(good[:n])); !errors.Is(err, partition.ErrCorrupt) && !strings.Contains(fmt.Sprint(err), "configuration") {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	for _, b := range []string{"\xc0", "\x01", "\x81\xa7Servers\x01", "\x81\xa7Servers\x91\xa1x"} {
		if _, err := decodeMeta(key, signed(append(slices.Clone(good[:40]), b...))); err == nil && b != "\xc0" {
			t.Errorf("the configuration %q was taken", b)
		}
	}
	s := testStore(t, vfs.NewMem())
	defer s.Close()
	takeSnapshot(t, s, 1, content(1))
	mustDo(t, s.db.Set(numberKey(keyMeta, 7), []byte("nonsense"), pebble.Sync))
	if _, err := s.List(); !errors.Is(err, partition.ErrCorrupt) {
		t.Errorf("a list with a damaged one: %v", err)
	}
	w, err := s.Create(1, 9, 1, m.Configuration, 1, nil)
	mustDo(t, err)
	if err := w.Close(); !errors.Is(err, partition.ErrCorrupt) {
		t.Errorf("closing another one beside it: %v", err)
	}
}
