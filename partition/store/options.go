package store

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"pando.dev/pando/partition"
)

const (
	// memTableBytes is a ceiling on one store's memtable. The flush controller
	// flushes earlier; smaller ones flush at the wrong time and save nothing.
	memTableBytes = 8 << 20
	// openStoreBytes is the part of the cache's bound that an open store may
	// take for memtables beyond what it was given to write.
	openStoreBytes = 512 << 10
	// MaxKeyBytes bounds a key of the raw key space, a kind's prefix included.
	MaxKeyBytes = 4096
	// MaxApplyBytes bounds what one Apply may write.
	MaxApplyBytes = 64 << 20
)

// Options configures an Engine. Only Dir is required.
type Options struct {
	// Dir is the node's data directory: stores, and what waits for removal, are
	// in subdirectories. The caller has locked it.
	Dir string
	// FS is where Dir is (default: the disk).
	FS vfs.FS
	// MemoryBytes is what all stores together may hold applied but not flushed
	// (default 256 MiB). At 75 % the largest are flushed, at 100 % NeedsRoom
	// holds. More means fewer flushes and a longer replay after a crash: at
	// 300 MB/s about a second per 300 MB.
	MemoryBytes int64
	// CacheBytes is the block cache all stores share (default 64 MiB).
	CacheBytes int64
	// MaxOpen bounds the stores open at once (default 1,024). A closed one
	// costs nothing and takes about 2 ms to open.
	MaxOpen int
	// MaxFiles bounds the state files open at once (default 4,096, at most a
	// quarter of the process's limit on descriptors).
	MaxFiles int
	// Compactions bounds those running at once (default: half the CPUs).
	Compactions int
	// FlushAge is how long a store may stay unflushed (default 60 s). It bounds
	// how long a nearly idle replica holds up the log's truncation.
	FlushAge time.Duration
	// IdleAge is how long a flushed store stays open without use (default 5 min).
	IdleAge time.Duration
	// Logger takes what an operator would act on (default: nothing).
	Logger *slog.Logger
	// Fatal is told of an error after which the files cannot be trusted to
	// take another write: a failed sync, a failed MANIFEST. It must end the
	// process and not return; the replicas come back from their log. The
	// default logs and exits with status 1, which is also what happens if
	// Fatal does return.
	Fatal func(error)
	// Pace is asked before each MiB that is read to sum up a state file, and waits
	// until that may be read (default: does not wait). The first checkpoint of a
	// state after a start reads all of it.
	Pace func(ctx context.Context, bytes int) error
	// Durable is called when more of a store is known to be durable, and when a
	// store is opened, with the index through which it is: the log need not keep
	// what is below. Calls for one store are in order and never concurrent. They
	// come from the engine's goroutines or from within a call on the store, so
	// Durable must not block nor call back into the engine.
	Durable func(g partition.GroupID, generation uint32, i partition.Index)

	// memTable is memTableBytes; tests make it small to meet full memtables
	// and large batches often.
	memTable int64
	// backOff is how long a failing operation is held; tests that let thousands
	// fail make it short.
	backOff time.Duration
}

// storeRoom is how much one store may have applied and not yet flushed. A
// memtable holds at least half its size in batches, and Pebble blocks a commit
// at four memtables, the one being written included: so with at most one and a
// half applied it never does.
func (o *Options) storeRoom() int64 { return o.memTable / 2 * 3 }

func (o Options) withDefaults() Options {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	def(&o.MemoryBytes, 256<<20)
	def(&o.CacheBytes, 64<<20)
	def(&o.MaxOpen, 1024)
	def(&o.MaxFiles, 4096)
	if n := maxDescriptors() / 4; n > 0 {
		o.MaxFiles = min(o.MaxFiles, max(64, n))
	}
	def(&o.Compactions, max(1, runtime.NumCPU()/2))
	def(&o.FlushAge, time.Minute)
	def(&o.IdleAge, 5*time.Minute)
	def(&o.memTable, memTableBytes)
	def(&o.backOff, backOff)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Durable == nil {
		o.Durable = func(partition.GroupID, uint32, partition.Index) {}
	}
	if o.Pace == nil {
		o.Pace = func(ctx context.Context, _ int) error { return ctx.Err() }
	}
	told, log := o.Fatal, o.Logger
	o.Fatal = func(err error) {
		log.Error("state files failed, the process must end", "err", err)
		if told != nil {
			told(err)
		}
		os.Exit(1)
	}
	return o
}

// def sets an option that was left zero.
func def[T int | int64 | time.Duration](p *T, v T) {
	if *p <= 0 {
		*p = v
	}
}

func (o *Options) validate() error {
	if o.Dir == "" {
		return partition.Errorf(partition.CodeInvalid, "store options without a directory")
	}
	return nil
}

// pebbleOptions are those of one store. What is shared comes from the engine.
func (e *Engine) pebbleOptions(sp *space) *pebble.Options {
	o := &pebble.Options{
		FS:                          sp.fs,
		Cache:                       e.cache,
		FileCache:                   e.files,
		Logger:                      pebbleLog{e: e},
		EventListener:               sp.events(),
		DisableWAL:                  true,
		FormatMajorVersion:          formatVersion,
		MemTableSize:                uint64(e.o.memTable),
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       4,
		L0StopWritesThreshold:       1000, // never stall inside a commit
		LBaseMaxBytes:               64 << 20,
		FlushSplitBytes:             2 << 20,
		MaxManifestFileSize:         1 << 20,
		CompactionConcurrencyRange:  func() (int, int) { return 1, e.o.Compactions },
	}
	for i := range o.TargetFileSizes {
		o.TargetFileSizes[i] = 2 << 20 << i
	}
	o.Levels[0].FilterPolicy = bloom.FilterPolicy(10)
	o.Experimental.CompactionScheduler = sp.compactor
	// To cut a range out of a table Pebble reads what stays, and takes a read that
	// fails for the end of it: the rest of the table is lost without a word.
	o.Experimental.EnableDeleteOnlyCompactionExcises = func() bool { return false }
	o.Experimental.DisableIngestAsFlushable = func() bool { return true }
	return o
}

// pebbleLog passes on what ends the process and drops Pebble's chatter: what
// matters comes as an event.
type pebbleLog struct{ e *Engine }

func (pebbleLog) Infof(string, ...any) {}

func (l pebbleLog) Errorf(format string, args ...any) {
	l.e.o.Logger.Warn("pebble", "err", fmt.Sprintf(format, args...))
}

func (l pebbleLog) Fatalf(format string, args ...any) { l.e.fail(fmt.Errorf(format, args...)) }
