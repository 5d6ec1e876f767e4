package exhaust

import (
	"time"

	"pando.dev/pando/internal/planted"
)

// Start is where a walk begins.
type Start uint8

const (
	// Led: replica 1 is master and serves, everybody has its first record, nothing
	// is under way.
	Led Start = iota
	// Cold: every replica has the genesis record only and looks for a master.
	Cold
	// Parted is a moment that takes many steps to reach: replicas 1 and 2 were
	// masters one after the other, each has a record that nobody else has, and all
	// nodes have just started.
	Parted
	// Deserted is Led, and replicas 2 and on have just been told, wrongly, that replica 1
	// is down.
	Deserted
	// Overtaken is a moment like Parted: replica 2 was master and has committed its
	// record with 3, replica 1 has more records, of an older epoch, that nobody else has.
	Overtaken
)

// Config bounds a walk. The budgets say how often something may happen on any path;
// 0 is never.
type Config struct {
	Replicas int   // 2 to 5, default 3
	Records  int   // commands of clients, default 2, at most 8; below 0: none
	Start    Start // default Led

	Crashes   int // of any node; starting again is free
	Downs     int // hints that a node is down which is not
	Alarms    int // that a replica has asked for
	Losses    int // of messages; one that is never delivered costs nothing
	Repeats   int // messages that arrive and stay on their way
	Refusals  int // of the lock
	OldLocks  int // grants under a number that the candidate already knew
	Reads     int // quorum reads, at most 4
	Retries   int // of commands whose outcome is unknown; gives the client a session
	Transfers int // of the mastership, by an operator
	Resigns   int
	Changes   int // of the group
	Grants    int // renewals of leases; needs Leases

	// CrashOf and AlarmOf, if not 0, are the only nodes that may crash and whose alarms
	// may go off, as bits, replica 1's the lowest. So a walk gets deeper in one place.
	CrashOf, AlarmOf uint8

	// Leases: nodes share one clock, which alarms move, and grants run out on it. At
	// the start everybody has just granted replica 1 one, if it leads.
	// Else every node has a clock of its own, and nobody grants anything.
	Leases bool
	// Window bounds what is under way from one node to another: when more is sent, the
	// oldest message is lost. 0: any number, in which case most states differ only in
	// messages that are too old to matter.
	Window int
	// InOrder: what one node sends another arrives in that order, or not at all. Else
	// it arrives in any order.
	InOrder bool
	// QuickDisk, QuickLock and QuickHints: a write is on the disk, a lock is granted, a
	// node is known to have stopped or started, before anything else happens, and there
	// are no hints else but Downs. Each makes fewer states, so that a walk gets deeper.
	QuickDisk, QuickLock, QuickHints bool
	// SlowApply: applying is under way for a while. Else it is done at once.
	SlowApply bool
	// Flush: a crash may come just after the state was flushed. Else it never is.
	Flush bool
	// OneRecord: a message carries one record at most.
	OneRecord bool

	// HealEvery lets one of so many states go on without faults until nothing is
	// under way any more, and requires agreement then; 0: none.
	HealEvery int

	// Planted are mistakes to make on purpose: a walk should find them.
	Planted planted.Set

	// MaxStates and MaxTime end a walk early; 0: not. Only MaxTime looks at the
	// clock: a walk that it does not end is the same each time.
	MaxStates int
	MaxTime   time.Duration
}

func (c *Config) setDefaults() {
	if c.Replicas == 0 {
		c.Replicas = 3
	}
	if c.Records == 0 {
		c.Records = 2
	}
	c.Records = max(c.Records, 0)
}

// Report is what a walk has seen.
type Report struct {
	States      uint64 // distinct ones, the first included
	Transitions uint64 // from one state to another or the same
	Depth       int    // actions on the longest path
	Complete    bool   // every state within the budgets was seen
	Elapsed     time.Duration
	Nodes       int    // distinct states of single nodes
	Messages    int    // distinct messages
	Steps       uint64 // that machines took; what they do is remembered
	Healed      uint64 // states that were let go on without faults
	HealSteps   int    // of the longest way to agreement
	Marks       []Mark
	Violation   *Violation // nil: none was found
}

// Mark counts how many different steps of a single node came by a point of the machine.
type Mark struct {
	Name  string
	Count uint64
}

// Violation is a property that does not hold at the end of a path.
type Violation struct {
	What string // the property
	Why  string
	// Path is the actions that lead there from the start, in words; Replay takes
	// them. The last Healing of them are those of a way without faults.
	Path    []string
	Healing int
}
