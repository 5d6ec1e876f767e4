package store

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pando.dev/pando/partition"
)

const (
	// identityFile says whose state a directory holds.
	identityFile = "STORE"
	// layoutVersion counts what the key space and the directory look like.
	layoutVersion = 1
	// markerPrefix begins the name by which Pebble marks its format version.
	markerPrefix = "marker.format-version."
)

// encodeIdentity lays out as
//
//	"PANDOSTO" | layout u32 | group u64 | crc32c u32 of all before
//
// In every layout the checksum of all before ends the file, so that damage is
// told apart from what a newer program has written.
func encodeIdentity(g partition.GroupID) []byte {
	b := []byte("PANDOSTO")
	b = binary.LittleEndian.AppendUint32(b, layoutVersion)
	b = binary.LittleEndian.AppendUint64(b, uint64(g))
	return binary.LittleEndian.AppendUint32(b, partition.Checksum(b))
}

// parseIdentity checks what encodeIdentity made.
func parseIdentity(b []byte, g partition.GroupID) error {
	le := binary.LittleEndian
	if len(b) < 12 || string(b[:8]) != "PANDOSTO" {
		return partition.Errorf(partition.CodeCorrupt, "identity file of %d bytes is none of ours", len(b))
	}
	end := len(b) - 4
	if end < 12 || le.Uint32(b[end:]) != partition.Checksum(b[:end]) {
		return partition.Errorf(partition.CodeCorrupt, "identity file failed its checksum")
	}
	if v := le.Uint32(b[8:]); v > layoutVersion {
		return &partition.Error{Code: partition.CodeNewerFormat, Next: "start a newer program",
			Why: fmt.Sprintf("state in layout version %d, this program knows %d", v, layoutVersion)}
	}
	if len(b) != 24 {
		return partition.Errorf(partition.CodeCorrupt, "identity file of %d bytes", len(b))
	}
	if have := partition.GroupID(le.Uint64(b[12:])); have != g {
		return partition.Errorf(partition.CodeCorrupt, "the directory of %s holds the state of %s", g, have)
	}
	return nil
}

// prepare refuses a directory that is not this group's or newer than the
// program. It reports whether there is no store yet; then the directory is
// there and empty. The identity is the last thing that the making of a store
// writes, so a directory without it is one that was never finished, and holds
// nothing, unless it has tables.
func (e *Engine) prepare(dir string, g partition.GroupID) (fresh bool, err error) {
	names, err := e.fs.List(dir)
	if isNotExist(err) {
		return true, e.makeDir(dir)
	}
	if err != nil {
		return false, fmt.Errorf("list %s: %w", dir, err)
	}
	if slices.Contains(names, identityFile) {
		b, err := e.readSmall(e.fs.PathJoin(dir, identityFile))
		if err != nil {
			return false, err
		}
		if err := parseIdentity(b, g); err != nil {
			return false, err
		}
		return false, checkMarkers(names)
	}
	for _, n := range names {
		if strings.HasSuffix(n, ".sst") {
			return false, partition.Errorf(partition.CodeCorrupt, "%s has state but no %s file", dir, identityFile)
		}
	}
	for _, n := range names {
		if err := e.fs.RemoveAll(e.fs.PathJoin(dir, n)); err != nil {
			return false, fmt.Errorf("clear an unfinished store: %w", err)
		}
	}
	// Whoever began it may have ended before its name was durable.
	if err := e.syncDir(e.fs.PathDir(dir)); err != nil {
		return false, fmt.Errorf("sync the directory of %s: %w", g, err)
	}
	return true, nil
}

// finish makes a new store durable and says so by its identity. Pebble takes
// some sixteen syncs to make a store, each for itself; here none of them is
// done until all files are written, and then each once.
func (e *Engine) finish(dir string, g partition.GroupID) error {
	names, err := e.fs.List(dir)
	if err != nil {
		return fmt.Errorf("list %s: %w", dir, err)
	}
	for _, n := range names {
		if strings.HasPrefix(n, "marker.") {
			continue // empty: its name is all there is
		}
		if err := e.syncFile(e.fs.PathJoin(dir, n)); err != nil {
			return err
		}
	}
	if err := e.syncDir(dir); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return e.writeIdentity(dir, g)
}

func (e *Engine) syncFile(name string) error {
	f, err := e.fs.Open(name)
	if err != nil {
		return fmt.Errorf("sync %s: %w", name, err)
	}
	err = f.Sync()
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("sync %s: %w", name, err)
	}
	return nil
}

// checkMarkers refuses a Pebble format that this program does not know.
func checkMarkers(names []string) error {
	for _, n := range names {
		rest, ok := strings.CutPrefix(n, markerPrefix)
		if !ok {
			continue
		}
		_, version, _ := strings.Cut(rest, ".")
		v, err := strconv.ParseUint(version, 10, 64)
		if err != nil {
			return partition.Errorf(partition.CodeCorrupt, "format marker %q", n)
		}
		if v > uint64(formatVersion) {
			return &partition.Error{Code: partition.CodeNewerFormat, Next: "start a newer program",
				Why: fmt.Sprintf("state files in format %d, this program knows %d", v, formatVersion)}
		}
	}
	return nil
}

func (e *Engine) readSmall(name string) ([]byte, error) {
	f, err := e.fs.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return b, nil
}

// writeIdentity puts the file in place whole or not at all.
func (e *Engine) writeIdentity(dir string, g partition.GroupID) error {
	name := e.fs.PathJoin(dir, identityFile)
	temp := name + ".tmp"
	f, err := e.fs.Create(temp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("create %s: %w", temp, err)
	}
	_, err = f.Write(encodeIdentity(g))
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = e.fs.Rename(temp, name)
	}
	if err == nil {
		err = e.syncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
