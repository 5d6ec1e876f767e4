package store

import (
	"errors"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// backOff is how long the file system holds the caller of an operation that
// failed for want of space or by an I/O error. Pebble retries a failed flush
// at once, which without a pause is tens of thousands of tries per second.
const backOff = 100 * time.Millisecond

// fsCounters are shared by the file systems of all stores of an engine.
type fsCounters struct {
	syncs    atomic.Int64
	written  atomic.Int64
	failures atomic.Int64
	backOffs atomic.Int64
}

// thinFS is what one store sees of the disk. It differs from the disk in what
// a thousand open stores need and in how faults show:
//
//   - a directory handle holds no descriptor, and Lock does nothing, because
//     the node's data directory is locked once;
//   - names ending in .log go nowhere and read as empty, because the node's
//     log is the log and Pebble's own is off;
//   - an operation that fails for want of space or descriptors or with EIO returns
//     only after backOff;
//   - a failed sync ends the process: after it the kernel may have dropped the
//     pages, so a later sync that succeeds proves nothing;
//   - the marker that names the current MANIFEST is created only when the
//     MANIFEST's directory entry is on disk, and removed only when its successor
//     is: Pebble leaves both to one sync at the end, and a crash before it may
//     keep any part;
//   - once the store is open, running out of space while the MANIFEST is
//     written waits for space, because Pebble would end the process.
type thinFS struct {
	vfs.FS
	count  *fsCounters
	quit   <-chan struct{} // ends every back-off; closed by Engine.Close
	fatal  func(error)     // never returns
	report func(error)     // tells the store's health; may be called under Pebble's mutex
	// backOff is Options.backOff.
	backOff time.Duration
	// patient is set once the store is open: from then on nobody waits for a
	// MANIFEST write but Pebble's own background work.
	patient atomic.Bool
	// quiet is set while a new store is made: nothing is synced, because all of
	// it is at the end.
	quiet atomic.Bool
}

var _ vfs.FS = (*thinFS)(nil)

func isLog(name string) bool { return strings.HasSuffix(name, ".log") }
func isNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
func isIOFault(err error) bool {
	return isNoSpace(err) || errors.Is(err, syscall.EIO) || errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}
func isNotExist(err error) bool   { return errors.Is(err, os.ErrNotExist) }
func (fs *thinFS) Unwrap() vfs.FS { return fs.FS }

// hold counts a failure and, if it is one that is bound to repeat, reports it
// and waits. It returns err.
func (fs *thinFS) hold(err error) error {
	if err == nil || err == io.EOF || isNotExist(err) {
		return err
	}
	fs.count.failures.Add(1)
	if !isIOFault(err) {
		return err
	}
	fs.report(err)
	fs.count.backOffs.Add(1)
	t := time.NewTimer(fs.backOff)
	defer t.Stop()
	select {
	case <-t.C:
	case <-fs.quit:
	}
	return err
}

// closing reports whether the engine is closing, so that no wait outlives it.
func (fs *thinFS) closing() bool {
	select {
	case <-fs.quit:
		return true
	default:
		return false
	}
}

// waits reports whether an operation on name that failed with err is to be
// tried again instead of failing.
func (fs *thinFS) waits(name string, err error) bool {
	if !isNoSpace(err) || !fs.patient.Load() || fs.closing() {
		return false
	}
	base := fs.PathBase(name)
	return strings.HasPrefix(base, "MANIFEST") || fs.isMarker(name)
}

// isMarker reports whether name marks the current MANIFEST.
func (fs *thinFS) isMarker(name string) bool {
	return strings.HasPrefix(fs.PathBase(name), "marker.manifest.")
}

// settleMarkers makes durable what the directory of a marker holds, before the
// marker changes.
func (fs *thinFS) settleMarkers(name string) error {
	if !fs.isMarker(name) {
		return nil
	}
	return (&dirFile{fs: fs, name: fs.PathDir(name)}).Sync()
}

// create runs one of the operations that make a file.
func (fs *thinFS) create(name string, open func() (vfs.File, error)) (vfs.File, error) {
	if isLog(name) {
		return nullFile{name: fs.PathBase(name)}, nil
	}
	if err := fs.settleMarkers(name); err != nil {
		return nil, err
	}
	for {
		f, err := open()
		if err == nil {
			return &thinFile{File: f, fs: fs, name: name}, nil
		}
		if fs.hold(err); !fs.waits(name, err) {
			return nil, err
		}
	}
}

func (fs *thinFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return fs.create(name, func() (vfs.File, error) { return fs.FS.Create(name, c) })
}

func (fs *thinFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	return fs.create(name, func() (vfs.File, error) { return fs.FS.OpenReadWrite(name, c, o...) })
}

func (fs *thinFS) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return fs.create(name, func() (vfs.File, error) { return fs.FS.ReuseForWrite(old, name, c) })
}

// Open of a log answers with an empty file instead of "not there": a
// checkpoint copies the current log.
func (fs *thinFS) Open(name string, o ...vfs.OpenOption) (vfs.File, error) {
	if isLog(name) {
		return nullFile{name: fs.PathBase(name)}, nil
	}
	f, err := fs.FS.Open(name, o...)
	if err != nil {
		return nil, fs.hold(err)
	}
	return &thinFile{File: f, fs: fs, name: name}, nil
}

func (fs *thinFS) OpenDir(name string) (vfs.File, error) {
	if _, err := fs.FS.Stat(name); err != nil {
		return nil, err
	}
	return &dirFile{fs: fs, name: name}, nil
}

func (fs *thinFS) Link(old, name string) error { return fs.hold(fs.FS.Link(old, name)) }

func (fs *thinFS) Remove(name string) error {
	if isLog(name) {
		return nil
	}
	if err := fs.settleMarkers(name); err != nil {
		return err
	}
	return fs.hold(fs.FS.Remove(name))
}

func (fs *thinFS) Rename(old, name string) error { return fs.hold(fs.FS.Rename(old, name)) }

func (fs *thinFS) MkdirAll(dir string, perm os.FileMode) error {
	return fs.hold(fs.FS.MkdirAll(dir, perm))
}

func (fs *thinFS) Lock(string) (io.Closer, error) { return nopCloser{}, nil }

func (fs *thinFS) Stat(name string) (vfs.FileInfo, error) {
	if isLog(name) {
		return nullInfo{name: fs.PathBase(name)}, nil
	}
	return fs.FS.Stat(name)
}

// syncFailed ends the process unless the file system said that there is no
// space, which leaves nothing behind that could be taken for durable: the
// caller throws the file away.
func (fs *thinFS) syncFailed(name string, err error) error {
	if !isNoSpace(err) && !fs.closing() {
		fs.count.failures.Add(1)
		fs.fatal(&syncError{name: name, err: err})
	}
	return fs.hold(err)
}

// syncError says which sync failed.
type syncError struct {
	name string
	err  error
}

func (e *syncError) Error() string { return "sync " + e.name + ": " + e.err.Error() }
func (e *syncError) Unwrap() error { return e.err }
