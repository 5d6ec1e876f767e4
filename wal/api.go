package wal

import (
	"io"
	"log/slog"
	"time"

	"pando.dev/pando/internal/planted"
	"pando.dev/pando/partition"
)

// Options configure a Log. Only Node is required; the zero value of every other
// field works.
type Options struct {
	// Node is the identity of the node that owns the log; required. A log of
	// another node is refused with ErrWrongNode.
	Node partition.NodeID
	// Incarnation is the node's boot epoch, stored in every segment header. The
	// log uses the greater of this and one more than the newest on disk, so it
	// always grows; see Report.Incarnation.
	Incarnation uint64
	// SegmentBytes is the size of a segment (default 64 MiB, at least 64 KiB,
	// a multiple of 4 KiB). Larger ones mean fewer rotations and less state
	// table per record; smaller ones give space back earlier. One Write must
	// fit into a segment beside its state table.
	SegmentBytes int64
	// Spares is how many written, empty segments are kept ready (default 2).
	// At most Spares+2 are kept after recycling.
	Spares int
	// BatchBytes is the size at which a batch takes no further writes (default
	// 1 MiB). A larger Write gets a batch of its own.
	BatchBytes int
	// QueueBytes bounds the records that wait for the disk (default 64 MiB);
	// beyond it Append answers ErrBusy.
	QueueBytes int
	// Gather bounds the wait for writers to come back after a batch (default
	// 50 us; negative: never wait). It is not waited when idle.
	Gather time.Duration
	// Idle is how long after the last batch an empty one follows, which proves
	// the last one synced (default 50 ms).
	Idle time.Duration
	// SoftCapBytes is the size of the log above which records that only peers
	// still want (Retain) are given up (default 4 GiB). At half of it
	// Stats.Pinned asks for flushes. On a small or crowded disk the cap is lower:
	// half of what the log has and what is free. Otherwise a log that nobody asks
	// to let go of anything would fill the disk by itself, and never end.
	SoftCapBytes int64
	// DiskFree returns the free and total bytes of the log's disk. Default: the
	// FS if it can tell, otherwise space is taken to be unlimited.
	DiskFree func() (free, total int64, err error)
	// MinFreeBytes: below it the log is Full, and below half of it records are
	// refused with ErrNoSpace, but for those that may use the reserve
	// (Write.Reserve) (default 5 % of the disk).
	MinFreeBytes int64
	// SpacePoll is how often DiskFree is asked (default 1 s).
	SpacePoll time.Duration
	// Fatal is called once, from the committer goroutine, after a write or sync
	// failed and every waiting append was failed. It must end the process; the
	// log never writes again. Default: panic.
	Fatal func(error)
	// Logger gets the few events an operator acts on (default: none).
	Logger *slog.Logger
	// Rand is the source of the log's secret, with which batches are sealed so
	// that no client's payload passes for a batch (default crypto/rand).
	Rand io.Reader
	// Manual starts no goroutine: the owner calls Turn to write a batch and do
	// the housekeeping. For simulators, which own time and order.
	Manual bool
	// Planted are mistakes to make on purpose. Only tests and the simulator set
	// any, to see who notices; the type is internal to this module.
	Planted planted.Set
	// Point, if set, is told where the log comes by; see Point.
	Point func(Point)
}

// HardState is what must not be forgotten of a replica besides its records.
type HardState struct {
	Replica partition.ReplicaID
	Promise partition.Epoch
	// Commit: at least this is known to be committed. It lags behind what Write
	// said by up to Options.Idle after a crash.
	Commit partition.Index
	// Flushed: the replica's state has this on disk. The state itself is the
	// authority and may be ahead.
	Flushed partition.Index
	// Generation is the state directory that counts; 0: the replica keeps no
	// state, only the log.
	Generation uint32
}

// Write is everything that one replica asks to be made durable in one turn. It
// takes effect as a whole: after a crash all of it is there or nothing.
type Write struct {
	Group   partition.GroupID
	Replica partition.ReplicaID // for the first write of a replica; then 0 or the same
	Promise partition.Epoch     // 0: unchanged
	Commit  partition.Index     // 0: unchanged; stored along, causes no sync of its own
	// Generation is that of the empty state with which a log begins that begins
	// with its first record; only in the first write of a replica, and not
	// together with Install.
	Generation uint32
	// Install, if set, gives the replica another state, or another beginning of
	// its log.
	Install *Install
	// Snip removes the records behind After before Records are added.
	Snip  bool
	After partition.Index
	// Records follow the log's end without a gap. They are copied.
	Records []partition.Record
	// Reserve lets records and an Install have the last of the disk: what elects
	// a master and changes members is what frees a full disk in the end, and a
	// promise must not wait behind a record that waits for space.
	Reserve bool
}

// Install says that a copy of the group's state up to Base was put in place, or,
// with no generation, that a log without a state begins behind Base. The state
// counts, and the one before does not, from the moment at which the write is
// durable.
//
// If the log holds the record at Base, with the same epoch and checksum, it is
// kept: what is behind Base is the tail that the new state needs, and what is
// before goes when it is let go. Otherwise the log is void and begins behind
// Base, which must not be before anything that is known to be committed.
// Flushed becomes Base.Index, even if that is less than before. The promise
// becomes at least Base.Epoch, and never falls.
type Install struct {
	Base    partition.Position
	BaseSum uint32 // checksum of the record at Base
	// Generation is the state directory; 0: no state.
	Generation uint32
	// Configuration is the record of the configuration in force at Base.
	Configuration partition.Record
}

// Run says that the records from First on have Epoch, until the next run.
type Run struct {
	Epoch partition.Epoch
	First partition.Index
}

// Summary is what the log knows of one replica, without reading from disk.
type Summary struct {
	HardState
	// First and Last bound the records; Last is First-1 if there are none.
	First, Last partition.Index
	// Before is the position of the record before First; its zero value if First
	// is 1.
	Before partition.Position
	// End is the position of the record at Last, or Before.
	End partition.Position
	// LastSum is the checksum of the record at Last, 0 if there never was one.
	LastSum uint32
	// Runs are the epochs of the records First to Last, in order.
	Runs []Run
	// Configurations are the records (KindMember, KindMode) of the newest
	// configuration known to be committed, wherever the log begins, and of all
	// behind it: the active ones are among them.
	Configurations []partition.Record
	// Damage is set if the replica is quarantined: records or hard state that
	// were once reported durable are lost, so it must stay silent until it is
	// replaced under a new id (Drop, then a first Write).
	Damage *Damage
}

// Damage names what a quarantined replica has lost.
type Damage struct {
	// From and To bound the lost records; To is 0 if it is not known how far the
	// loss reaches, and both are 0 if records may not be concerned at all.
	From, To partition.Index
	// Why is for the operator.
	Why string
}

// Lost is one quarantined replica in a Report.
type Lost struct {
	Group   partition.GroupID
	Replica partition.ReplicaID // 0: not known
	Damage
}

// Report says what Open found.
type Report struct {
	// Fresh: there was no log. A node that has been here before has lost its
	// disk: its replicas must come back under new ids.
	Fresh bool
	// Incarnation is that of this opening; LastIncarnation the newest found.
	Incarnation, LastIncarnation uint64
	Segments                     int // found, spares not counted
	Batches, Records             int // read by scanning
	// TornBytes were cut off the end: written but never reported durable.
	TornBytes int64
	// Rot: batches that had been synced are damaged or missing; their numbers
	// are in LostBatches (at most 64 of them). Lost names each replica that lost
	// something, in the order of the groups; the others are whole.
	Rot         bool
	LostBatches []uint64
	Lost        []Lost
	// Nameless: replicas may be lost of which not even the name is known, because
	// the end of the log is missing; one that is made anew may have been there.
	Nameless bool
	// Notes are damages that cost nothing (a footer, a header copy).
	Notes []string
}

// Stats is a snapshot of the log's counters.
type Stats struct {
	Appends, Records, RecordBytes uint64 // made durable; bytes without padding
	Batches, BatchBytes, Syncs    uint64 // written; bytes with padding
	Segments, Spares              int
	LogBytes, CapBytes            int64 // size of all segments but the spares, and the soft cap in force
	QueuedBytes                   int   // waiting for the disk
	Rotations, Recycled           uint64
	NoSpace                       bool
	Poisoned                      bool
	Groups, Quarantined           int
	// SyncLast and SyncMax are the durations of one write and sync: the anomaly
	// signal of a slow disk.
	SyncLast, SyncMax time.Duration
	// Pinned is true when the log is over half its cap and could let go of
	// something: the host should flush the groups of Log.Pins.
	Pinned bool
}
