//go:build !linux

package wal

import "os"

const noFollow = 0

// reserve sets the size of a new file; its blocks come with the zeros that are
// written next.
func reserve(f *os.File, size int64) error { return f.Truncate(size) }

// dataSync has no cheaper form than a full sync here.
func dataSync(f *os.File) error { return f.Sync() }

// evict is not possible here.
func evict(*os.File) error { return nil }

// freeSpace is not known here: there always seems to be some.
func freeSpace(string) (free, total int64, err error) { return 1, 0, nil }
