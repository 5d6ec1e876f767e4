package wal

import (
	"iter"

	"pando.dev/pando/partition"
)

// Log is the one log of a node. All methods may be called from any goroutine;
// the writes of one group come from one goroutine at a time.
type Log struct{}

// Open reads the log in dir, repairs its end and makes it ready for appending.
// It creates the log if dir holds none. The caller holds the node's lock on the
// directory.
//
// It fails if the log belongs to another node (ErrWrongNode), was written by a
// newer version (CodeNewerFormat), cannot be read, or is damaged so that not
// even the names of its replicas are known (CodeCorrupt). Any other damage is
// in the Report, and concerns only the replicas that it names.
func Open(fs FS, dir string, o Options) (*Log, *Report, error) { panic("in work") }

// Append takes w into the log. It copies, and does not wait for the disk (a
// Snip may read one record). When it returns nil, Summary and Read show w, and
// done, unless nil, is called exactly once, from the committer goroutine: with
// nil when w and everything appended before it are durable, or with an error
// that wraps ErrPoisoned or ErrClosed when that will never be known. The calls
// come in the order of the appends; done must not block, and may call Append.
//
// On an error nothing was taken and done is not called: ErrNoSpace, ErrBusy,
// ErrPoisoned, ErrClosed, CodeTooLarge, CodeInvalid (a gap, a promise that goes
// back, a snip of committed records) or CodeCorrupt (the group is quarantined).
func (l *Log) Append(w Write, done func(error)) error { panic("in work") }

// Read returns the records of g from from to to, both included, but not more
// than maxBytes, though at least one. It shows records that are not yet
// durable, too. The records may be kept; they share one block of memory.
//
// Before First and behind Last the answer is CodeNotFound; a damaged record
// gives CodeCorrupt, and quarantines the group unless its state has the record.
func (l *Log) Read(g partition.GroupID, from, to partition.Index, maxBytes int) ([]partition.Record, error) {
	panic("in work")
}

// Summary returns what the log holds of g, and false if it holds nothing.
func (l *Log) Summary(g partition.GroupID) (Summary, bool) { panic("in work") }

// SetFlushed says that g's state has every record up to index on disk, in the
// given generation. It causes no sync of its own and lets segments go.
func (l *Log) SetFlushed(g partition.GroupID, index partition.Index, generation uint32) {
	panic("in work")
}

// Retain says that peers still want g's records from from on. It keeps them as
// long as the log is under its soft cap. Zero: nobody wants any.
func (l *Log) Retain(g partition.GroupID, from partition.Index) { panic("in work") }

// Drop forgets a replica. done is as in Append.
func (l *Log) Drop(g partition.GroupID, done func(error)) error { panic("in work") }

// Groups yields every replica in the log, in the order of the groups, as they
// were at the start of the iteration.
func (l *Log) Groups() iter.Seq2[partition.GroupID, HardState] { panic("in work") }

// Pins returns up to n groups that keep the oldest segment from being recycled
// because their state is not flushed. The host flushes them when Stats.Pinned.
func (l *Log) Pins(n int) []partition.GroupID { panic("in work") }

// Stats returns the log's counters.
func (l *Log) Stats() Stats { panic("in work") }

// Turn writes one batch, if anything waits, and does the housekeeping that is
// due; it reports whether more is waiting. Only with Options.Manual.
func (l *Log) Turn() (more bool) { panic("in work") }

// Settle ends a time of idleness: an empty batch follows the last one. Only
// with Options.Manual, where it stands for Options.Idle running out.
func (l *Log) Settle() { panic("in work") }

// Close makes everything appended durable and closes the files. Appends from
// then on are refused with ErrClosed.
func (l *Log) Close() error { panic("in work") }
