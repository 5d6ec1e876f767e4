package store

import (
	"context"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
)

// Scrubbed is what Scrub has read.
type Scrubbed struct {
	Files int
	Bytes int64
}

// Scrub reads every table file of the state from the disk, past all caches, and
// checks the checksum of each of its blocks: what no read has come by for long is
// looked at as well. A damaged file is CodeCorrupt and named. It reads as fast as
// Options.Pace lets it; Apply goes on meanwhile, and a file that a compaction
// replaces before its turn is not read.
func (s *Store) Scrub(ctx context.Context) (Scrubbed, error) {
	var done Scrubbed
	db, err := s.use()
	if err != nil {
		return done, err
	}
	defer s.sp.release()
	for _, name := range tableFiles(db) {
		n, err := s.sp.scrubTable(ctx, name)
		switch {
		case err != nil && isNotExist(err):
			if !slices.Contains(tableFiles(db), name) {
				continue
			}
			fallthrough
		case err != nil:
			return done, classify(fmt.Errorf("check %s of store %s: %w", name, s.sp.id, err))
		}
		done.Files++
		done.Bytes += n
	}
	return done, nil
}

// tableFiles are the names of the table files that the state is in now.
func tableFiles(db *pebble.DB) []string {
	levels, _ := db.SSTables() // fails only for options that make no sense
	var names []string
	seen := make(map[string]bool)
	for _, level := range levels {
		for i := range level {
			name := level[i].BackingSSTNum.String() + ".sst"
			if !seen[name] {
				seen[name] = true
				names = append(names, name)
			}
		}
	}
	return names
}

// scrubTable checks one file. It opens the file by itself, so that neither the
// block cache nor a reader that is open already answers for the disk.
func (sp *space) scrubTable(ctx context.Context, name string) (int64, error) {
	f, err := sp.fs.Open(sp.fs.PathJoin(sp.dir, name))
	if err != nil {
		return 0, err
	}
	info, err := f.Stat()
	if err == nil {
		err = sp.e.o.Pace(ctx, int(info.Size()))
	}
	if err != nil {
		_ = f.Close()
		return 0, err
	}
	readable, err := sstable.NewSimpleReadable(f)
	if err != nil {
		_ = f.Close()
		return 0, err
	}
	r, err := sstable.NewReader(ctx, readable, sstable.ReaderOptions{})
	if err != nil {
		_ = readable.Close()
		return 0, err
	}
	err = r.ValidateBlockChecksums()
	if cerr := r.Close(); err == nil {
		err = cerr
	}
	return info.Size(), err
}
