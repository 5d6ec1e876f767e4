package wal

import "io"

// FS is the log's port to a file system. Names are paths as the log was given
// them ("dir/name"). It is used by several goroutines at once.
type FS interface {
	// Create makes a new file of the given size that only this process may
	// read, and its directory if that is missing. It fails if the name exists.
	// The file's name is not durable before SyncDir.
	Create(name string, size int64) (File, error)
	// Open opens an existing file for reading and writing.
	Open(name string) (File, error)
	// Rename replaces to, if it exists. Not durable before SyncDir.
	Rename(from, to string) error
	// Remove deletes a file. Not durable before SyncDir.
	Remove(name string) error
	// List returns the names in a directory, in order, without the directory;
	// nothing if the directory does not exist.
	List(dir string) ([]string, error)
	// SyncDir makes the creations, renames and removals in dir durable.
	SyncDir(dir string) error
}

// File is an open file. ReadAt may run beside WriteAt and Sync.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Sync makes all completed writes durable. After an error nothing is known
	// of what the disk holds, and a second call proves nothing.
	Sync() error
	Size() (int64, error)
	// Evict drops cached contents, so that the next read shows what the disk
	// holds. It is a hint.
	Evict() error
}

// FreeSpacer is the optional power of an FS to tell the space of the disk that
// holds dir.
type FreeSpacer interface {
	FreeSpace(dir string) (free, total int64, err error)
}
