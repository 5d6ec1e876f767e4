package wal

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

const noFollow = unix.O_NOFOLLOW

// reserve allocates the blocks of a new file in one piece, where the file
// system can. They still have to be written once: a first write to a reserved
// block changes metadata, which every later sync would wait for.
func reserve(f *os.File, size int64) error {
	err := interrupted(func() error { return unix.Fallocate(int(f.Fd()), 0, 0, size) })
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return f.Truncate(size)
	}
	return err
}

// dataSync is fdatasync.
func dataSync(f *os.File) error {
	return interrupted(func() error { return unix.Fdatasync(int(f.Fd())) })
}

// evict drops the file's clean pages from the cache.
func evict(f *os.File) error {
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

func freeSpace(dir string) (free, total int64, err error) {
	var s unix.Statfs_t
	err = interrupted(func() error { return unix.Statfs(dir, &s) })
	return int64(s.Bavail) * int64(s.Bsize), int64(s.Blocks) * int64(s.Bsize), err
}

// interrupted repeats a call that a signal has broken off before it did
// anything. That is no failure of the disk.
func interrupted(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
