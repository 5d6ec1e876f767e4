package sim

import (
	"fmt"
	"time"

	"pando.dev/pando/partition"
)

// Knobs are the sizes, rates and policies of a run. The struct is flat: each
// field prints as one line, and only if it differs from Calm. Shares are from 0
// to 1.
type Knobs struct {
	Nodes    int `limits:"1..15"` // 1 to 15
	Zones    int `limits:"1..15"` // nodes are dealt to zones in turn
	Groups   int `limits:"1..64"` // 1 to 64
	Replicas int `limits:"1..15"` // per group, at most Nodes
	// LogShare is the share of replicas that keep a log only, WeightShare that of
	// voters with more than one vote.
	LogShare, WeightShare float64
	// PolicyMix says what durability policies the groups have.
	PolicyMix PolicyMix
	// Length is when the faults end and the world is required to recover.
	Length partition.Time
	// Settle bounds the recovery; 0: derived from the other times.
	Settle partition.Time

	Ops       float64 `limits:"0..100000"` // operations per second, all clients and groups together
	ReadShare float64
	Clients   int `limits:"0..1000"`
	Keys      int `limits:"1..100000"` // per group
	// Pad is how many bytes a write carries besides, at most.
	Pad int `limits:"0..65536"`
	// Sessions is the share of clients that write exactly once, in a session;
	// SessionLimit how many sessions a group keeps (0: the executor's default).
	Sessions     float64
	SessionLimit int

	DelayMin, DelayMax partition.Time // one way
	// TailShare of the messages take up to TailMax instead.
	TailShare float64
	TailMax   partition.Time
	// Loss, Repeat and Replay are the shares of messages that are lost, come
	// twice, and come again much later.
	Loss, Repeat, Replay float64
	// Stream: links are connections that keep the order and break, as TCP does.
	// Without it every message travels alone.
	Stream bool
	// Noticed is the share of cuts that both sides notice at once.
	Noticed float64

	SyncMin, SyncMax partition.Time
	ApplyMax         partition.Time // how long an apply takes at most
	// RealLog: the nodes have the real log on a simulated file system; otherwise
	// a model that is weaker than it.
	RealLog      bool
	SegmentBytes int // of the real log; 0: its default for simulations
	// Flush is the share of applies after which the state is flushed, Truncate
	// the share of flushes after which the log is cut behind it.
	Flush, Truncate float64

	// Drift is by how much, at most, the rate of a clock differs from 1, and
	// Offset by how much the clocks differ at the start.
	Drift  float64
	Offset partition.Time

	Lease                                       partition.Time
	RetryMin, RetryMax                          partition.Time
	AnswerWait, DurabilityWait                  partition.Time
	SoloAfter                                   partition.Time // 0: pairs never go on alone
	TailBytes, MaxAppendBytes, MaxInFlightBytes int
	MaxPending                                  int

	// The lock service forgets all numbers, gives a number twice, or refuses, at
	// these shares of requests.
	LockForgets, LockDoubles, LockRefuses float64

	// PointRate is the share of the points reached at which a fault follows.
	PointRate float64
	// PointNames are the points that this goes for, with commas between; empty:
	// all. A name that ends in a dot means all that begin so.
	PointNames string
	// PointClasses are the faults that follow, with commas between; empty: kills,
	// power cuts, pauses and cut links.
	PointClasses string
	// OverBudget: disks are wiped and damaged without regard to what a group can
	// stand. Then it may fall silent, but never give a wrong answer.
	OverBudget bool
	// FastRestart is the share of crashed nodes that are back within 20 ms.
	FastRestart float64

	// Churn is how many acts of an operator happen per minute; Tender says that
	// the tender repairs groups. LogAfter and ReplaceAfter are its times.
	Churn  float64 `limits:"0..10000"`
	Tender bool
	// Splits is how many groups may be made by splitting others.
	Splits                 int `limits:"0..64"`
	LogAfter, ReplaceAfter partition.Time
	// Merges is how often an operator asks for neighbours to be merged.
	Merges int `limits:"0..64"`
	// NewNodes is the share of splits whose children shall be on other nodes.
	NewNodes float64
	// CatalogLag is for how long at a time a node hears no news of splits, which is so
	// half of the time; 0: never.
	CatalogLag partition.Time
}

// PolicyMix says what durability policies the groups have.
type PolicyMix int

// The mixes of policies.
const (
	MajorityOnly  PolicyMix = iota // every group: more than half
	MixedPolicies                  // each group its own
	ZonesOnly                      // as many zones as may be
	AllInSyncOnly                  // everybody
	policyMixes
)

// String is the name of the mix.
func (m PolicyMix) String() string {
	switch m {
	case MajorityOnly:
		return "majority"
	case MixedPolicies:
		return "mixed"
	case ZonesOnly:
		return "zones"
	case AllInSyncOnly:
		return "all-in-sync"
	}
	return fmt.Sprintf("mix-%d", int(m))
}

// UnmarshalText reads the name of a mix.
func (m *PolicyMix) UnmarshalText(text []byte) error {
	for x := range policyMixes {
		if x.String() == string(text) {
			*m = x
			return nil
		}
	}
	return fmt.Errorf("no mix of policies is called %q", text)
}

// Calm are the knobs of an ordinary cluster with nothing wrong in it. A plan
// prints what differs from it, and shrinking goes towards it.
func Calm() Knobs {
	return Knobs{
		Nodes: 3, Zones: 3, Groups: 1, Replicas: 3,
		Length: 20 * time.Second,
		Ops:    50, ReadShare: 0.4, Clients: 4, Keys: 8,
		DelayMin: 200 * time.Microsecond, DelayMax: time.Millisecond,
		Stream:  true,
		SyncMin: 200 * time.Microsecond, SyncMax: time.Millisecond,
		Flush: 0.01, Truncate: 0.5,
		Lease: 300 * time.Millisecond, RetryMin: 20 * time.Millisecond, RetryMax: time.Second,
		AnswerWait: 150 * time.Millisecond, DurabilityWait: 5 * time.Second,
		TailBytes: 1 << 20, MaxAppendBytes: 1 << 20, MaxInFlightBytes: 4 << 20, MaxPending: 16 << 10,
		FastRestart: 0.5,
		LogAfter:    10 * time.Second, ReplaceAfter: 30 * time.Second,
	}
}
