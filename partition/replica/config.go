package replica

import (
	"math/rand/v2"
	"time"

	"pando.dev/pando/internal/planted"
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

	// LogOnly: this replica keeps no state. It is a log replica, or a learner that
	// will be one.
	LogOnly bool
	// Solo: the lock service offers permits to go on alone. SoloAfter is how long
	// the other voters of a group with policy all-in-sync must have been
	// unreachable before the master asks for one (default 2 s, negative: never). It
	// does so only if that comes well before DurabilityWait ends its mastership.
	Solo      bool
	SoloAfter time.Duration

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

	// Planted are mistakes to make on purpose. Only tests and the simulator set
	// any, to see who notices; the type is internal to this module.
	Planted planted.Set
	// Point, if set, is told where the replica comes by; see Point.
	Point func(Point)

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
	// Commit is known to be committed, so is Applied. A Commit behind Last counts
	// as Last: the commit index is stored without a sync of its own.
	Commit  partition.Index
	Applied partition.Index // the state reflects this; at most Last
	// Spared matters for a log replica: an earlier incarnation was told that every
	// full voter has the records up to here, so the log may be let go of up to there.
	Spared partition.Index
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
	// Appointed, if set: the replica was just made, all of its log is committed, and
	// all members begin with this log and this promise. Whom the promise names leads
	// at once.
	Appointed *Appointed
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

func (c *Config) validate() error {
	switch {
	case c.Group == 0 || c.Self == 0 || c.Node == "":
		return partition.Errorf(partition.CodeInvalid, "replica config needs Group, Self and Node; they are %s, %d and %q", c.Group, c.Self, c.Node)
	case c.Neighbours == nil || c.Rand == nil:
		return partition.Errorf(partition.CodeInvalid, "replica config needs Neighbours and Rand")
	}
	return nil
}

func (c *Config) setDefaults() {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&c.Lease, 300*time.Millisecond)
	def(&c.RetryMin, 20*time.Millisecond)
	def(&c.RetryMax, time.Second)
	def(&c.AnswerWait, 150*time.Millisecond)
	def(&c.DurabilityWait, 5*time.Second)
	if c.SoloAfter == 0 {
		c.SoloAfter = 2 * time.Second
	}
	num := func(n *int, v int) {
		if *n <= 0 {
			*n = v
		}
	}
	num(&c.TailBytes, 1<<20)
	num(&c.MaxAppendBytes, 1<<20)
	num(&c.MaxInFlightBytes, 4<<20)
	num(&c.MaxPending, 16<<10)
}

func (r *Restored) validate() error {
	bad := func(format string, args ...any) error {
		return partition.Errorf(partition.CodeCorrupt, "restored state: "+format, args...)
	}
	if r.First == 0 || r.Last+1 < r.First || r.BeforeFirst.Index != r.First-1 {
		return bad("records %d to %d behind %s", r.First, r.Last, r.BeforeFirst)
	}
	if r.Appointed != nil && (r.Restarted || r.Promised == 0 || max(r.Commit, r.BeforeFirst.Index) < r.Last) {
		return bad("a first master is appointed by %s to a log that ends at %d, committed to %d", r.Promised, r.Last, r.Commit)
	}
	if r.Applied > r.Last {
		return bad("the state reflects %d, the log ends at %d: it has lost what was synced", r.Applied, r.Last)
	}
	if (len(r.Runs) == 0) != (r.Last < r.First) {
		return bad("%d runs for records %d to %d", len(r.Runs), r.First, r.Last)
	}
	at := EpochRun{Epoch: r.BeforeFirst.Epoch, First: r.First}
	for i, x := range r.Runs {
		if x.First > r.Last || x.Epoch < at.Epoch || (i == 0) != (x.First == r.First) || i > 0 && (x.First <= at.First || x.Epoch == at.Epoch) {
			return bad("run %d has epoch %s from %d", i, x.Epoch, x.First)
		}
		at = x
	}
	if len(r.Configurations) == 0 {
		return bad("no configuration")
	}
	for i, c := range r.Configurations {
		if c.Membership == nil || c.Index > r.Last || i > 0 && c.Index <= r.Configurations[i-1].Index {
			return bad("configuration %d at %d", i, c.Index)
		}
	}
	if at.Epoch > r.Promised {
		return bad("a record of epoch %s above the promise %s", at.Epoch, r.Promised)
	}
	return nil
}
