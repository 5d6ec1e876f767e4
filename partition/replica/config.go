package replica

import (
	"math/rand/v2"
	"time"

	"pando.dev/pando/partition"
)

// Config is what a replica is made with. The zero value of each optional field
// works.
type Config struct {
	Group partition.GroupID   // required
	Self  partition.ReplicaID // required
	Node  partition.NodeID    // required
	// Neighbours is required.
	Neighbours Neighbours
	// Rand is the only source of chance; required.
	Rand *rand.Rand

	// Lease is the length of a grant between two nodes (default 300 ms). A new
	// master waits for as long as an old one may still hold: longer leases
	// tolerate longer pauses, shorter ones shorten a failover.
	Lease time.Duration
	// RetryMin and RetryMax bound the wait between two attempts to become
	// master (defaults 20 ms and 1 s, doubled per attempt, with jitter).
	RetryMin, RetryMax time.Duration
	// AnswerWait bounds the wait for answers of one round (default 150 ms).
	AnswerWait time.Duration
	// DurabilityWait is how long a master waits for a record to become durable
	// before it declares itself failed (default 5 s).
	DurabilityWait time.Duration
	// TailBytes bounds the records kept in memory to be sent again; older ones
	// are read from the log (default 1 MiB).
	TailBytes int
	// MaxAppendBytes bounds the records of one message (default 1 MiB) and
	// MaxInFlightBytes those sent to one peer and not acknowledged (4 MiB).
	MaxAppendBytes, MaxInFlightBytes int
	// MaxPending bounds the proposals that wait for their commit (default
	// 16,384); more are refused with CodeBusy.
	MaxPending int

	// Trace, if set, is told of every change of role, in order.
	Trace func(TraceEvent)
}

// TraceEvent is a change that an operator or a test wants to see.
type TraceEvent struct {
	At    partition.Time
	Group partition.GroupID
	Self  partition.ReplicaID
	Epoch partition.Epoch
	What  string // a constant such as "became master"
}

// Restored is what a replica finds on its disk when it starts. For a new group
// it is the genesis record alone.
type Restored struct {
	Promised partition.Epoch
	Commit   partition.Index // at least this is committed
	Applied  partition.Index // the state reflects this; at most Commit
	// First and Last bound the records in the log; Last is First-1 if there are
	// none. BeforeFirst is the position of the record before First.
	First, Last partition.Index
	BeforeFirst partition.Position
	LastSum     uint32 // checksum of the record at Last
	// Runs are the epochs of the records First to Last.
	Runs []EpochRun
	// Configurations are the configuration in force before First, if the log
	// does not begin with the genesis record, and all that are in the log.
	Configurations []ConfigurationAt
	// Restarted: the replica was there before, so it may have granted leases
	// that it has forgotten.
	Restarted bool
}

// EpochRun says that the records from First on have Epoch, until the next run.
type EpochRun struct {
	Epoch partition.Epoch
	First partition.Index
}

// ConfigurationAt is a configuration and the index of its record.
type ConfigurationAt struct {
	Index      partition.Index
	Membership *partition.Membership
}
