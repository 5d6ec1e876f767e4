package placement

import (
	"time"

	"pando.dev/pando/partition"
)

// Spec is what a table asks of each of its groups.
type Spec struct {
	Replicas int
	Policy   partition.Policy
}

// Drain says whether a node is being taken out of service.
type Drain uint8

const (
	// InService: nobody asked for a drain.
	InService Drain = iota
	// Stopping: the node was told to stop and is expected back.
	Stopping
	// Maintenance: an operator took it out of service and will end that: it is
	// not replaced, however long it takes.
	Maintenance
)

// NodeState is what a group's master knows of a node.
type NodeState struct {
	Node
	Up    bool           // it answers
	Since partition.Time // since when Up is what it is
	// Flaps is how often it came back lately after it had gone without a word.
	Flaps int
	Drain Drain
	// Force: the drain is to go on even if nothing can be committed then.
	Force bool
	// Sick: it limps, so of several members that may be master it is the last.
	Sick bool
}

// PeerState is what a group's master knows of one of its members.
type PeerState struct {
	Replica  partition.ReplicaID
	Present  bool // its node has the replica: it answers for it
	CaughtUp bool // it follows closely: a change that makes it count is taken
	State    bool // it has the state, so it can be a full replica
	Behind   bool // its next record is no longer in the master's log
	// Lacks is how many records it has to get, if not CaughtUp.
	Lacks  uint64
	Broken string // why it fell silent, if it did
	// Asked is when its node was last asked to bring it up, with AskedLogOnly
	// saying as what, and Attempts how often in vain; 0: never.
	Asked        partition.Time
	AskedLogOnly bool
	Attempts     int
}

// RequestKind says what an operator asks for.
type RequestKind uint8

// What an operator asks for.
const (
	NoRequest RequestKind = iota
	// AddReplica: one replica more, on Request.Node.
	AddReplica
	// RemoveReplica: one replica fewer, without Request.Replica.
	RemoveReplica
	// ReplaceReplica: as many as before, without Request.Replica, and with one on
	// Request.Node, or where it fits best.
	ReplaceReplica
)

// Request is an operator's wish for one group. It is kept until it is done or
// cannot be done.
type Request struct {
	Kind    RequestKind
	Node    partition.NodeID
	Replica partition.ReplicaID
}

// Limits are the times of Tend. Zero fields have the defaults.
type Limits struct {
	// LogAfter is how long a voter may be away before a log replica stands in for
	// it (default 10 s): shorter restores safety sooner, longer spares the group
	// two changes for a node that only restarts.
	LogAfter time.Duration
	// ReplaceAfter is how long before it is replaced for good (default 5 min):
	// shorter makes the group whole sooner, longer spares a copy of everything.
	ReplaceAfter time.Duration
	// Settle is how long a node that went without a word must be back before it
	// counts again (default 1 s); doubled each time it happens again, up to
	// LogAfter, so that a node that flaps does not keep its groups changing.
	Settle time.Duration
	// HostAgain is the pause before a node is asked again to bring up a replica
	// that has not shown up (default 5 s).
	HostAgain time.Duration
}

func (l Limits) withDefaults() Limits {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&l.LogAfter, 10*time.Second)
	def(&l.ReplaceAfter, 5*time.Minute)
	def(&l.Settle, time.Second)
	def(&l.HostAgain, 5*time.Second)
	return l
}

// Situation is everything that a step is decided from. Tend changes nothing of
// it.
type Situation struct {
	Group      partition.GroupID
	Now        partition.Time
	Self       partition.ReplicaID // the master, which serves
	Membership *partition.Membership
	// Pending: Membership is not known to be committed yet.
	Pending bool
	Spec    Spec
	Nodes   []NodeState // those that are known, the members' too
	Peers   []PeerState
	Request Request
	// Guests are nodes where a learner is wanted for something else, such as a
	// split that makes a group there. It is brought up with the state, and neither
	// made to count nor removed.
	Guests []partition.NodeID
	Limits Limits
}

// StepKind says what a Step does.
type StepKind uint8

const (
	// Nothing is to be done now; Why says what is missing, if anything is.
	Nothing StepKind = iota
	// Configure: the group's next configuration is Next.
	Configure
	// Host: ask Node to bring up Replica.
	Host
	// Transfer: hand the mastership to Replica.
	Transfer
)

// String returns the name used in logs and answers.
func (k StepKind) String() string {
	switch k {
	case Configure:
		return "configure"
	case Host:
		return "host"
	case Transfer:
		return "transfer"
	}
	return "nothing"
}

// Step is what to do for a group next.
type Step struct {
	Kind StepKind
	// Why is the reason of the step. With Nothing it is what keeps the group from
	// being as it shall be, and empty if nothing does.
	Why string

	Next  *partition.Membership // Configure
	Force bool                  // Configure: an operator insists

	Replica partition.ReplicaID // Host, Transfer
	Node    partition.NodeID    // Host, Transfer: where Replica is
	Source  partition.NodeID    // Host: who has the state
	// Voter: the member counts already, so only what its node has of it is brought
	// forward. A voter of which nothing is left has forgotten what it promised, and
	// is never made again under its id.
	Voter   bool // Host
	LogOnly bool // Host: without state

	// Refused is why the request cannot be met as things are; empty if it is met,
	// or on the way.
	Refused string
	// Again is when to look again though nothing has changed; 0: never.
	Again partition.Time
}

// Tend returns the one next step that brings a group closer to what it shall be:
// the table's number of replicas, spread over the zones, under the table's
// policy, without members that are gone or damaged, and with the nodes that are
// in service eligible.
//
// It is level-triggered: it remembers nothing, and every step follows from the
// situation alone, so any number of masters may call it one after another, and a
// step that got lost is taken again. Each step is one that the group's rules
// allow; no step leaves the group unable to commit among the members that answer
// now; and none but those that an operator asked for lets it survive fewer losses
// than before. In a situation that no longer changes, repeated application ends.
//
//	voter away       -> ineligible, and a learner on a spare node
//	learner is there -> log replica: another loss is survived again
//	away for long    -> the log replica gets the state, is full, the lost one goes
//	back before      -> catches up, is eligible, the log replica goes
//	damaged          -> removed, a new id on the same node is brought up
//	too few          -> learners, each full once it has caught up
//	too many         -> the worst placed go, never the master
//	node drained     -> mastership goes elsewhere, then the member is ineligible
func Tend(s *Situation) Step {
	t := newTending(s)
	if s.Pending {
		return t.wait("the last change is not committed yet")
	}
	for _, rule := range []func() (Step, bool){
		t.handOver, t.adoptPolicy, t.adoptZones, t.enterDrain, t.leaveDrain, t.requested,
		t.replaceDamaged, t.promoteFull, t.promoteLog, t.coverAway, t.dropStale, t.tooMany, t.tooFew, t.host,
	} {
		if step, ok := rule(); ok {
			step.Again, step.Refused = 0, t.refused
			return step
		}
	}
	if len(t.missing) > 0 {
		return t.wait(t.missing[0])
	}
	return t.wait("")
}
