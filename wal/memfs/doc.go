// Package memfs is a file system in memory that loses power on command.
//
// It implements the ports of package wal ([wal.FS], [wal.File],
// [wal.FreeSpacer]) for tests and the simulator. It keeps apart what programs
// see (the cache) and what is on disk: a write reaches the disk with a Sync of
// the file, a name with a SyncDir of its directory. [FS.Crash] returns the file
// system as it is after a loss of power, in which each 512-byte sector that was
// not synced is there or not, by a seed, and of the changes of names that were
// not synced some first ones.
//
// Every operation first asks the hook given by [FS.OnOp], which may let it
// fail: a full disk, a broken one, or the loss of power itself. After a failed
// Sync the cache shows data that will never reach the disk, as on Linux.
//
// With the same seed and the same calls everything happens the same way again.
package memfs
