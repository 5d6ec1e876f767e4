package store

import (
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"pando.dev/pando/partition"
)

// copyChunk is how much of a file is read at once to sum it up.
const copyChunk = 1 << 20

// Manifest describes the files of a checkpoint.
type Manifest struct {
	Group      partition.GroupID
	Generation uint32
	Index      partition.Index // applied index of the state in the files
	Files      []File          // by name
}

// File is one file of a checkpoint.
type File struct {
	Name   string
	Bytes  int64
	CRC32C uint32
}

// Checkpoint makes dir, which must not exist, a copy of the state as it is
// durable after a flush: hard links, so it takes milliseconds and no space
// until compactions replace the shared files. Apply goes on meanwhile. The
// manifest lists every file; only a checkpoint for which Checkpoint returned
// without an error may be trusted. On an error dir is removed.
//
// Summing up reads each file that has not been summed up before, as fast as
// Options.Pace lets it.
func (s *Store) Checkpoint(ctx context.Context, dir string) (Manifest, error) {
	db, err := s.use()
	if err != nil {
		return Manifest{}, err
	}
	defer s.sp.release()
	m, err := s.sp.checkpoint(ctx, db, dir)
	if err != nil {
		return Manifest{}, classify(fmt.Errorf("checkpoint of store %s: %w", s.sp.id, err))
	}
	return m, nil
}

func (sp *space) checkpoint(ctx context.Context, db *pebble.DB, dir string) (m Manifest, err error) {
	if err := sp.flush(ctx); err != nil {
		return m, err
	}
	if err := sp.ensureManifest(ctx, db); err != nil {
		return m, err
	}
	if err := sp.e.makeDir(sp.fs.PathDir(dir)); err != nil {
		return m, err
	}
	if _, err := sp.fs.Stat(dir); err == nil {
		return m, partition.Errorf(partition.CodeExists, "%s exists", dir)
	}
	defer func() {
		if err != nil {
			_ = sp.fs.RemoveAll(dir)
		}
	}()
	if err := db.Checkpoint(dir); err != nil {
		return m, err
	}
	// Pebble syncs the directory before its last markers are in it.
	if err := sp.e.syncDir(dir); err != nil {
		return m, err
	}
	m = Manifest{Group: sp.id.Group, Generation: sp.id.Generation}
	if m.Index, err = sp.e.indexOf(dir); err != nil {
		return m, err
	}
	m.Files, err = sp.sumUp(ctx, dir)
	return m, err
}

// ensureManifest makes a store that was opened and not changed since write its
// MANIFEST: Pebble begins one with the first change after Open, and until then
// its checkpoints have an empty one. Writing the applied index once more
// changes nothing.
func (sp *space) ensureManifest(ctx context.Context, db *pebble.DB) error {
	if sp.manifest.Load() {
		return nil
	}
	sp.applyMu.Lock()
	err := db.Set(appliedKey(), appliedValue(partition.Index(sp.applied.Load())), pebble.NoSync)
	sp.applyMu.Unlock()
	if err != nil {
		return err
	}
	for !sp.manifest.Load() {
		select {
		case <-sp.startFlush():
		case <-ctx.Done():
			return ctx.Err()
		case <-sp.e.quit:
			return errClosed
		}
	}
	return nil
}

// indexOf opens a checkpoint for reading, which also shows that it is whole,
// and returns the index that its state has.
func (e *Engine) indexOf(dir string) (partition.Index, error) {
	db, err := pebble.Open(dir, &pebble.Options{
		FS: e.newFS(func(error) {}), Cache: e.cache, FileCache: e.files, Logger: pebbleLog{e: e},
		FormatMajorVersion: formatVersion, ReadOnly: true, ErrorIfNotExists: true,
		EventListener: &pebble.EventListener{DataCorruption: func(pebble.DataCorruptionInfo) {}},
	})
	if err != nil {
		return 0, err
	}
	i, err := durableIndex(db)
	if cerr := db.Close(); err == nil {
		err = cerr
	}
	return i, err
}

// Verify opens a checkpoint, or a copy of one, without changing it, and returns
// the index that its state has. It reads little more than what says which files
// belong to it; whether those are whole is for their checksums to say.
func (e *Engine) Verify(dir string) (partition.Index, error) {
	if e.closing.Load() {
		return 0, errClosed
	}
	names, err := e.fs.List(dir)
	if err == nil {
		err = checkMarkers(names)
	}
	if err != nil {
		return 0, classify(fmt.Errorf("open the copy %s: %w", dir, err))
	}
	i, err := e.indexOf(dir)
	if err != nil {
		return 0, classify(fmt.Errorf("open the copy %s: %w", dir, err))
	}
	return i, nil
}

// sumUp lists the files of a checkpoint. Sums of table files are remembered.
func (sp *space) sumUp(ctx context.Context, dir string) ([]File, error) {
	names, err := sp.fs.List(dir)
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	sp.mu.Lock()
	known := sp.sums
	sp.mu.Unlock()
	sums := make(map[string]uint32)
	var files []File
	for _, n := range names {
		path := sp.fs.PathJoin(dir, n)
		info, err := sp.fs.Stat(path)
		if err != nil {
			return nil, err
		}
		sum, ok := known[n]
		if !ok {
			if sum, err = sp.fs.sum(ctx, path, sp.e.o.Pace); err != nil {
				return nil, err
			}
		}
		if strings.HasSuffix(n, ".sst") {
			sums[n] = sum
		}
		files = append(files, File{Name: n, Bytes: info.Size(), CRC32C: sum})
	}
	sp.mu.Lock()
	sp.sums = sums
	sp.mu.Unlock()
	return files, nil
}

// sum reads a file for its CRC32C, as fast as pace lets it.
func (fs *thinFS) sum(ctx context.Context, path string, pace func(context.Context, int) error) (uint32, error) {
	f, err := fs.Open(path)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	table := crc32.MakeTable(crc32.Castagnoli)
	buf := make([]byte, copyChunk)
	var sum uint32
	for {
		if err := pace(ctx, len(buf)); err != nil {
			return 0, err
		}
		n, err := f.Read(buf)
		sum = crc32.Update(sum, table, buf[:n])
		if err == io.EOF {
			return sum, nil
		}
		if err != nil {
			return 0, err
		}
	}
}

// Install makes dir, a checkpoint whose files the caller has checked against
// their manifest and synced, the store of a replica that has none in that
// generation. It renames dir. It is up to the log when the new generation
// counts.
func (e *Engine) Install(dir string, g partition.GroupID, generation uint32) error {
	id := ID{Group: g, Generation: generation}
	to := id.path(e)
	if _, err := e.fs.Stat(to); err == nil {
		return partition.Errorf(partition.CodeExists, "store %s exists", id)
	}
	if err := e.install(dir, to, g); err != nil {
		return classify(fmt.Errorf("install store %s: %w", id, err))
	}
	return nil
}

func (e *Engine) install(dir, to string, g partition.GroupID) error {
	names, err := e.fs.List(dir)
	if err != nil {
		return err
	}
	if err := checkMarkers(names); err != nil {
		return err
	}
	if err := e.writeIdentity(dir, g); err != nil {
		return err
	}
	parent := e.fs.PathDir(to)
	if err := e.makeDir(parent); err != nil {
		return err
	}
	if err := e.fs.Rename(dir, to); err != nil {
		return err
	}
	return e.syncDir(parent)
}
