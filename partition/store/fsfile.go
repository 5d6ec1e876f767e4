package store

import (
	"io"
	"os"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// openTries is how often a directory is opened before its sync is given up,
// with backOff between the tries.
const openTries = 50

// thinFile counts, backs off and turns a failed sync into the end.
type thinFile struct {
	vfs.File
	fs   *thinFS
	name string
}

func (f *thinFile) Write(p []byte) (int, error) {
	done := 0
	for {
		n, err := f.File.Write(p[done:])
		done += n
		f.fs.count.written.Add(int64(n))
		if err == nil {
			return done, nil
		}
		if f.fs.hold(err); !f.fs.waits(f.name, err) {
			return done, err
		}
	}
}

func (f *thinFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(p, off)
	f.fs.count.written.Add(int64(n))
	return n, f.fs.hold(err)
}

func (f *thinFile) Read(p []byte) (int, error) {
	n, err := f.File.Read(p)
	return n, f.fs.hold(err)
}

func (f *thinFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	return n, f.fs.hold(err)
}

func (f *thinFile) Sync() error {
	if f.fs.quiet.Load() {
		return nil
	}
	f.fs.count.syncs.Add(1)
	if err := f.File.Sync(); err != nil {
		return f.fs.syncFailed(f.name, err)
	}
	return nil
}

func (f *thinFile) SyncData() error {
	if f.fs.quiet.Load() {
		return nil
	}
	f.fs.count.syncs.Add(1)
	if err := f.File.SyncData(); err != nil {
		return f.fs.syncFailed(f.name, err)
	}
	return nil
}

func (f *thinFile) SyncTo(length int64) (bool, error) {
	full, err := f.File.SyncTo(length)
	if err != nil {
		return full, f.fs.syncFailed(f.name, err)
	}
	return full, nil
}

// dirFile is a directory handle that opens the directory only while it syncs.
type dirFile struct {
	nullFile
	fs   *thinFS
	name string
}

// Sync makes the directory's names durable. Pebble panics when it fails while a
// store is open, in a goroutine of its own, so then it does not fail: a
// directory that cannot be opened is tried again for a while, and what remains
// ends the process in order.
func (d *dirFile) Sync() error {
	if d.fs.quiet.Load() {
		return nil
	}
	d.fs.count.syncs.Add(1)
	f, err := d.open()
	if err == nil {
		err = f.Sync()
		_ = f.Close() // after the sync it says nothing
	} else if !d.fs.patient.Load() {
		return err
	}
	switch {
	case err == nil:
		return nil
	case d.fs.patient.Load():
		d.fs.count.failures.Add(1)
		d.fs.fatal(&syncError{name: d.name, err: err})
		return err
	}
	return d.fs.syncFailed(d.name, err)
}

// open opens the directory; descriptors or space may be missing for a moment.
func (d *dirFile) open() (vfs.File, error) {
	for n := 1; ; n++ {
		f, err := d.fs.FS.OpenDir(d.name)
		if err == nil {
			return f, nil
		}
		if d.fs.hold(err); !d.fs.patient.Load() || d.fs.closing() || n == openTries {
			return nil, err
		}
	}
}

func (d *dirFile) SyncData() error             { return d.Sync() }
func (d *dirFile) Stat() (vfs.FileInfo, error) { return d.fs.FS.Stat(d.name) }

// nullFile takes everything that is written and is empty.
type nullFile struct{ name string }

var _ vfs.File = nullFile{}

func (nullFile) Close() error                           { return nil }
func (nullFile) Read([]byte) (int, error)               { return 0, io.EOF }
func (nullFile) ReadAt([]byte, int64) (int, error)      { return 0, io.EOF }
func (nullFile) Write(p []byte) (int, error)            { return len(p), nil }
func (nullFile) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (nullFile) Preallocate(_, _ int64) error           { return nil }
func (n nullFile) Stat() (vfs.FileInfo, error)          { return nullInfo(n), nil }
func (nullFile) Sync() error                            { return nil }
func (nullFile) SyncTo(int64) (bool, error)             { return false, nil }
func (nullFile) SyncData() error                        { return nil }
func (nullFile) Prefetch(_, _ int64) error              { return nil }
func (nullFile) Fd() uintptr                            { return vfs.InvalidFd }

// nullInfo describes an empty file.
type nullInfo struct{ name string }

func (n nullInfo) Name() string         { return n.name }
func (nullInfo) Size() int64            { return 0 }
func (nullInfo) Mode() os.FileMode      { return 0o644 }
func (nullInfo) ModTime() time.Time     { return time.Time{} }
func (nullInfo) IsDir() bool            { return false }
func (nullInfo) Sys() any               { return nil }
func (nullInfo) DeviceID() vfs.DeviceID { return vfs.DeviceID{} }

type nopCloser struct{}

func (nopCloser) Close() error { return nil }
