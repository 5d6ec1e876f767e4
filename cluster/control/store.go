package control

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"

	"pando.dev/pando/internal/mpcheck"
	"pando.dev/pando/partition"
)

// The one place outside the partition kinds that knows Pebble: the replicated
// log, the library's few stable values and the snapshots of one seat, all in
// one store, so that one write-ahead log orders them.
//
//	1 index u64                 log entry
//	2 name                      stable value
//	3 number u64                description of a finished snapshot
//	4 number u64, chunk u32     a piece of a snapshot
const (
	keyLog    = 1
	keyStable = 2
	keyMeta   = 3
	keyChunk  = 4

	chunkBytes      = 256 << 10
	keepSnapshots   = 2
	storeCacheBytes = 8 << 20
)

// store implements raft.LogStore, raft.StableStore and raft.SnapshotStore.
// What a method has stored when it returns is on disk.
type store struct {
	db *pebble.DB

	mu          sync.RWMutex
	first, last uint64 // of the log; 0, 0: empty
	nextSnap    uint64
}

var (
	_ raft.LogStore          = (*store)(nil)
	_ raft.MonotonicLogStore = (*store)(nil)
	_ raft.StableStore       = (*store)(nil)
	_ raft.SnapshotStore     = (*store)(nil)
)

// openStore opens or creates the store. A disk error that cannot be survived
// ends the process: what was promised may not be on disk.
func openStore(dir string, log *slog.Logger) (*store, error) {
	return openStoreOn(vfs.Default, dir, log, func() { os.Exit(1) })
}

// openStoreOn is openStore on a file system and with an end of the process,
// which must not return, of the caller's choice.
func openStoreOn(fs vfs.FS, dir string, log *slog.Logger, exit func()) (*store, error) {
	l := storeLog{log, exit}
	o := &pebble.Options{
		FS: syncedDirs{fs, l}, Logger: l, FormatMajorVersion: pebble.FormatValueSeparation,
		CacheSize: storeCacheBytes, MemTableSize: 4 << 20,
		// An Open that fails after it has read the log leaves the collector of
		// statistics behind, which then panics; a store of this size needs none.
		DisableTableStats: true,
		EventListener:     l.events(),
	}
	db, err := pebble.Open(dir, o)
	if err != nil {
		return nil, fmt.Errorf("open the control group's store %s: %w", dir, err)
	}
	s := &store{db: db}
	if err := s.recover(); err != nil {
		return nil, errors.Join(fmt.Errorf("read the control group's store %s: %w", dir, err), s.Close())
	}
	return s, nil
}

// recover finds the bounds of the log and removes what no finished snapshot
// owns.
func (s *store) recover() error {
	var newest uint64
	err := errors.Join(
		s.edge(keyLog, (*pebble.Iterator).First, &s.first),
		s.edge(keyLog, (*pebble.Iterator).Last, &s.last),
		s.edge(keyMeta, (*pebble.Iterator).Last, &newest),
	)
	if err != nil {
		return err
	}
	s.nextSnap = newest + 1
	return s.db.DeleteRange(numberKey(keyChunk, s.nextSnap), []byte{keyChunk + 1}, pebble.Sync)
}

// edge finds the number in the first or last key of a kind, or 0.
func (s *store) edge(kind byte, seek func(*pebble.Iterator) bool, n *uint64) error {
	return s.walk(kind, func(it *pebble.Iterator) error {
		if *n = 0; seek(it) && len(it.Key()) >= 9 {
			*n = binary.BigEndian.Uint64(it.Key()[1:])
		}
		return nil
	})
}

// walk has f look at the keys of a kind.
func (s *store) walk(kind byte, f func(*pebble.Iterator) error) error {
	it, _ := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{kind}, UpperBound: []byte{kind + 1}}) // what fails is its error
	return errors.Join(f(it), it.Error(), it.Close())
}

func (s *store) Close() error { return s.db.Close() }

// FirstIndex returns the index of the first entry of the log, 0 if it is empty.
func (s *store) FirstIndex() (uint64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.first, nil
}

// LastIndex returns the index of the last entry of the log, 0 if it is empty.
func (s *store) LastIndex() (uint64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.last, nil
}

// IsMonotonic says that the log has no gaps; the library then empties it before
// it goes on behind a snapshot.
func (s *store) IsMonotonic() bool { return true }

// GetLog reads one entry.
func (s *store) GetLog(index uint64, l *raft.Log) error {
	v, closer, err := s.db.Get(numberKey(keyLog, index))
	if errors.Is(err, pebble.ErrNotFound) {
		return raft.ErrLogNotFound
	}
	if err != nil {
		return fmt.Errorf("read control log entry %d: %w", index, err)
	}
	defer closer.Close()
	l.Index = index
	return decodeEntry(v, l)
}

// StoreLog appends one entry.
func (s *store) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs appends entries, all or none of them.
func (s *store) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.db.NewBatch()
	defer b.Close()
	last := s.last
	for _, l := range logs {
		if last != 0 && l.Index != last+1 {
			return partition.Errorf(partition.CodeInternal, "control log: entry %d behind entry %d", l.Index, last)
		}
		last = l.Index
		_ = b.Set(numberKey(keyLog, l.Index), encodeEntry(l), nil) // a batch in memory takes everything
	}
	if err := b.Commit(pebble.Sync); err != nil {
		return fmt.Errorf("append to the control log: %w", err)
	}
	if s.first == 0 {
		s.first = logs[0].Index
	}
	s.last = last
	return nil
}

// DeleteRange removes the entries lo to hi: a beginning that a snapshot covers,
// an end that another leader overwrites, or everything.
func (s *store) DeleteRange(lo, hi uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == 0 || lo > hi || hi < s.first || lo > s.last {
		return nil
	}
	if lo > s.first && hi < s.last {
		return partition.Errorf(partition.CodeInternal, "control log: removing %d to %d would leave a gap in %d to %d", lo, hi, s.first, s.last)
	}
	end := []byte{keyLog + 1}
	if hi < 1<<64-1 {
		end = numberKey(keyLog, hi+1)
	}
	if err := s.db.DeleteRange(numberKey(keyLog, lo), end, pebble.Sync); err != nil {
		return fmt.Errorf("remove control log entries %d to %d: %w", lo, hi, err)
	}
	switch {
	case lo <= s.first && hi >= s.last:
		s.first, s.last = 0, 0
	case lo <= s.first:
		s.first = hi + 1
	default:
		s.last = lo - 1
	}
	return nil
}

// Set stores a stable value.
func (s *store) Set(key, val []byte) error {
	if err := s.db.Set(append([]byte{keyStable}, key...), val, pebble.Sync); err != nil {
		return fmt.Errorf("store %s of the control log: %w", key, err)
	}
	return nil
}

// Get reads a stable value; it is empty if there is none.
func (s *store) Get(key []byte) ([]byte, error) {
	v, closer, err := s.db.Get(append([]byte{keyStable}, key...))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s of the control log: %w", key, err)
	}
	defer closer.Close()
	return append([]byte(nil), v...), nil
}

// SetUint64 stores a stable number.
func (s *store) SetUint64(key []byte, val uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, val))
}

// GetUint64 reads a stable number, 0 if there is none.
func (s *store) GetUint64(key []byte) (uint64, error) {
	v, err := s.Get(key)
	if err != nil || len(v) == 0 {
		return 0, err
	}
	if len(v) != 8 {
		return 0, partition.Errorf(partition.CodeCorrupt, "control log: %s has %d bytes", key, len(v))
	}
	return binary.BigEndian.Uint64(v), nil
}

func numberKey(kind byte, n uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{kind}, n)
}

func chunkKey(snap uint64, chunk uint32) []byte {
	return binary.BigEndian.AppendUint32(numberKey(keyChunk, snap), chunk)
}

// entryHeadBytes: term u64, appended at (unix ns) i64, type u8, extensions u32.
const entryHeadBytes = 21

func encodeEntry(l *raft.Log) []byte {
	be := binary.BigEndian
	b := make([]byte, 0, entryHeadBytes+len(l.Extensions)+len(l.Data))
	b = be.AppendUint64(b, l.Term)
	at := int64(0)
	if !l.AppendedAt.IsZero() {
		at = l.AppendedAt.UnixNano()
	}
	b = be.AppendUint64(b, uint64(at))
	b = append(b, byte(l.Type))
	b = be.AppendUint32(b, uint32(len(l.Extensions)))
	return append(append(b, l.Extensions...), l.Data...)
}

// decodeEntry fills in all but the index. The entry owns its bytes.
func decodeEntry(b []byte, l *raft.Log) error {
	be := binary.BigEndian
	if len(b) < entryHeadBytes || uint64(be.Uint32(b[17:])) > uint64(len(b)-entryHeadBytes) {
		return partition.Errorf(partition.CodeCorrupt, "control log entry %d of %d bytes", l.Index, len(b))
	}
	l.Term, l.Type = be.Uint64(b), raft.LogType(b[16])
	l.AppendedAt = time.Time{}
	if at := int64(be.Uint64(b[8:])); at != 0 {
		l.AppendedAt = time.Unix(0, at)
	}
	own := append([]byte(nil), b[entryHeadBytes:]...)
	n := be.Uint32(b[17:])
	l.Extensions, l.Data = nil, own[n:]
	if n > 0 {
		l.Extensions = own[:n:n]
	}
	return nil
}

// storeLog passes Pebble's messages on, and ends the process.
type storeLog struct {
	log  *slog.Logger
	exit func() // never returns
}

// Infof logs for debugging: what Pebble tells is of no use to an operator.
func (l storeLog) Infof(format string, args ...any) {
	l.log.Debug("control store", "message", fmt.Sprintf(format, args...))
}

// Errorf logs an error that Pebble goes on from.
func (l storeLog) Errorf(format string, args ...any) {
	l.log.Error("control store", "err", fmt.Sprintf(format, args...))
}

// Fatalf ends the process: a failed sync is never retried, because the kernel
// may have dropped what it could not write.
func (l storeLog) Fatalf(format string, args ...any) {
	l.log.Error("control store failed, the process ends", "err", fmt.Sprintf(format, args...))
	l.exit()
}

// events ends the process when tables cannot be written but for want of space:
// Pebble would try again for ever, and once its memory is full a leader would
// hang in the middle of an append and still be taken for one.
func (l storeLog) events() *pebble.EventListener {
	return &pebble.EventListener{
		BackgroundError: func(err error) { l.Errorf("background: %v", err) },
		FlushEnd: func(i pebble.FlushInfo) {
			var errno syscall.Errno
			if errors.As(i.Err, &errno) && errno != syscall.ENOSPC && errno != syscall.EDQUOT {
				l.Fatalf("write a table: %v", i.Err)
			}
		},
	}
}

// syncedDirs ends the process when a directory cannot be synced. Pebble panics
// then, in a goroutine of its own, which says less.
type syncedDirs struct {
	vfs.FS
	log storeLog
}

// OpenDir implements vfs.FS.
func (d syncedDirs) OpenDir(name string) (vfs.File, error) {
	f, err := d.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return syncedDir{f, d.log, name}, nil
}

// Unwrap implements vfs.FS.
func (d syncedDirs) Unwrap() vfs.FS { return d.FS }

// syncedDir is one directory.
type syncedDir struct {
	vfs.File
	log  storeLog
	name string
}

// Sync implements vfs.File.
func (d syncedDir) Sync() error {
	err := d.File.Sync()
	if err != nil {
		d.log.Fatalf("sync directory %s: %v", d.name, err)
	}
	return err
}

// sinkWriter cuts what is written into chunks.
type sinkWriter struct {
	s      *store
	meta   raft.SnapshotMeta
	number uint64
	chunk  uint32
	buffer []byte
	done   bool
}

var _ raft.SnapshotSink = (*sinkWriter)(nil)

// Create begins a snapshot. It counts when its sink is closed.
func (s *store) Create(version raft.SnapshotVersion, index, term uint64, c raft.Configuration, ci uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	if version != 1 {
		return nil, partition.Errorf(partition.CodeNewerFormat, "control snapshot of version %d, known is 1", version)
	}
	s.mu.Lock()
	number := s.nextSnap
	s.nextSnap++
	s.mu.Unlock()
	return &sinkWriter{s: s, number: number, meta: raft.SnapshotMeta{
		Version: version, ID: fmt.Sprintf("%016x", number), Index: index, Term: term,
		Configuration: c, ConfigurationIndex: ci,
	}}, nil
}

// ID names the snapshot.
func (w *sinkWriter) ID() string { return w.meta.ID }

// Write adds to the snapshot.
func (w *sinkWriter) Write(p []byte) (int, error) {
	w.buffer = append(w.buffer, p...)
	for len(w.buffer) >= chunkBytes {
		if err := w.flush(chunkBytes); err != nil {
			return 0, err
		}
	}
	w.meta.Size += int64(len(p))
	return len(p), nil
}

// flush stores the first n bytes of the buffer. They need no sync of their own:
// the description that makes them count is synced behind them.
func (w *sinkWriter) flush(n int) error {
	if err := w.s.db.Set(chunkKey(w.number, w.chunk), w.buffer[:n], pebble.NoSync); err != nil {
		return fmt.Errorf("write control snapshot: %w", err)
	}
	w.chunk++
	w.buffer = append(w.buffer[:0], w.buffer[n:]...)
	return nil
}

// Close makes the snapshot count, and removes those before the last ones.
func (w *sinkWriter) Close() error {
	if w.done {
		return nil
	}
	w.done = true
	if len(w.buffer) > 0 {
		if err := w.flush(len(w.buffer)); err != nil {
			return err
		}
	}
	if err := w.s.db.Set(numberKey(keyMeta, w.number), encodeMeta(&w.meta, w.chunk), pebble.Sync); err != nil {
		return fmt.Errorf("finish control snapshot: %w", err)
	}
	return w.s.reap()
}

// Cancel removes what was written.
func (w *sinkWriter) Cancel() error {
	if w.done {
		return nil
	}
	w.done = true
	return w.s.db.DeleteRange(numberKey(keyChunk, w.number), numberKey(keyChunk, w.number+1), pebble.NoSync)
}

// reap removes all but the newest snapshots.
func (s *store) reap() error {
	all, err := s.metas()
	if err != nil || len(all) <= keepSnapshots {
		return err
	}
	keep := all[keepSnapshots-1].number
	b := s.db.NewBatch()
	defer b.Close()
	_ = b.DeleteRange([]byte{keyMeta}, numberKey(keyMeta, keep), nil) // a batch in memory takes everything
	_ = b.DeleteRange([]byte{keyChunk}, numberKey(keyChunk, keep), nil)
	return b.Commit(pebble.Sync)
}

// described is a finished snapshot.
type described struct {
	number uint64
	chunks uint32
	meta   *raft.SnapshotMeta
}

// metas returns the finished snapshots, the newest first.
func (s *store) metas() (all []described, err error) {
	err = s.walk(keyMeta, func(it *pebble.Iterator) error {
		for ok := it.Last(); ok; ok = it.Prev() {
			v, err := it.ValueAndErr()
			var d described
			if err == nil {
				d, err = decodeMeta(it.Key(), v)
			}
			if err != nil {
				return err
			}
			all = append(all, d)
		}
		return nil
	})
	return all, err
}

// List returns the finished snapshots, the newest first.
func (s *store) List() ([]*raft.SnapshotMeta, error) {
	all, err := s.metas()
	metas := make([]*raft.SnapshotMeta, len(all))
	for i := range all {
		metas[i] = all[i].meta
	}
	return metas, err
}

// Open returns a reader of a finished snapshot.
func (s *store) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	all, err := s.metas()
	if err != nil {
		return nil, nil, err
	}
	for _, d := range all {
		if d.meta.ID == id {
			return d.meta, &chunkReader{s: s, d: d}, nil
		}
	}
	return nil, nil, partition.Errorf(partition.CodeNotFound, "control snapshot %s", id)
}

// chunkReader reads a snapshot chunk by chunk.
type chunkReader struct {
	s    *store
	d    described
	next uint32
	rest []byte
}

// Read implements io.Reader.
func (r *chunkReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.next == r.d.chunks {
			return 0, io.EOF
		}
		v, closer, err := r.s.db.Get(chunkKey(r.d.number, r.next))
		if err == nil {
			r.rest = append(r.rest[:0], v...)
			r.next++
			err = closer.Close()
		}
		if err != nil {
			return 0, fmt.Errorf("read control snapshot %s: %w", r.d.meta.ID, err)
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// Close implements io.Closer.
func (r *chunkReader) Close() error { return nil }

// encodeMeta: checksum u32 | index, term, configuration index, size u64 |
// chunks u32 | configuration.
func encodeMeta(m *raft.SnapshotMeta, chunks uint32) []byte {
	be := binary.BigEndian
	b := make([]byte, 4, 128)
	for _, n := range []uint64{m.Index, m.Term, m.ConfigurationIndex, uint64(m.Size)} {
		b = be.AppendUint64(b, n)
	}
	b = be.AppendUint32(b, chunks)
	b = append(b, raft.EncodeConfiguration(m.Configuration)...)
	be.PutUint32(b, partition.Checksum(b[4:]))
	return b
}

func decodeMeta(key, b []byte) (described, error) {
	be := binary.BigEndian
	if len(key) != 9 || len(b) < 40 || partition.Checksum(b[4:]) != be.Uint32(b) {
		return described{}, partition.Errorf(partition.CodeCorrupt, "the description of a control snapshot is damaged")
	}
	number := be.Uint64(key[1:])
	c, err := decodeConfiguration(b[40:])
	return described{number: number, chunks: be.Uint32(b[36:]), meta: &raft.SnapshotMeta{
		Version: 1, ID: fmt.Sprintf("%016x", number), Index: be.Uint64(b[4:]), Term: be.Uint64(b[12:]),
		ConfigurationIndex: be.Uint64(b[20:]), Size: int64(be.Uint64(b[28:])), Configuration: c,
	}}, err
}

// decodeConfiguration reads the library's own form, for which the library would
// panic if it were damaged.
func decodeConfiguration(b []byte) (c raft.Configuration, err error) {
	if err := mpcheck.Check(b); err != nil {
		return c, fmt.Errorf("configuration of a control snapshot: %w", err)
	}
	defer func() {
		if p := recover(); p != nil {
			err = partition.Errorf(partition.CodeCorrupt, "configuration of a control snapshot: %v", p)
		}
	}()
	return raft.DecodeConfiguration(b), nil
}
