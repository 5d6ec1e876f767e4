package wal

import (
	"errors"
	"os"
	"path/filepath"
)

// OS is the FS of the operating system. Directories are made for the owner
// alone (0700), and so are files (0600); a symbolic link in place of a file is
// refused. The zero value is ready.
type OS struct{}

var (
	_ FS         = OS{}
	_ FreeSpacer = OS{}
)

// Create implements FS.
func (OS) Create(name string, size int64) (File, error) {
	err := os.MkdirAll(filepath.Dir(name), 0o700)
	var f *os.File
	if err == nil {
		f, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL|noFollow, 0o600)
	}
	if err != nil {
		return nil, err
	}
	if err := reserve(f, size); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return osFile{f}, nil
}

// Open implements FS.
func (OS) Open(name string) (File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|noFollow, 0)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

// Rename implements FS.
func (OS) Rename(from, to string) error { return os.Rename(from, to) }

// Remove implements FS.
func (OS) Remove(name string) error { return os.Remove(name) }

// List implements FS.
func (OS) List(dir string) ([]string, error) {
	all, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	names := make([]string, 0, len(all))
	for _, e := range all {
		names = append(names, e.Name())
	}
	return names, err
}

// SyncDir implements FS.
func (OS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err == nil {
		err = errors.Join(d.Sync(), d.Close())
	}
	return err
}

// FreeSpace implements FreeSpacer.
func (OS) FreeSpace(dir string) (free, total int64, err error) { return freeSpace(dir) }

// osFile is a File of the operating system.
type osFile struct{ *os.File }

// Sync implements File. The size of a segment never changes, so its data is all
// there is to sync.
func (f osFile) Sync() error { return dataSync(f.File) }

// Size implements File.
func (f osFile) Size() (int64, error) {
	size := int64(0)
	s, err := f.Stat()
	if err == nil {
		size = s.Size()
	}
	return size, err
}

// Evict implements File.
func (f osFile) Evict() error { return evict(f.File) }
