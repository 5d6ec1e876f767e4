package split

import (
	"time"

	"pando.dev/pando/partition"
)

// Task is a split that the control group has open for a group.
type Task struct {
	ID uint64
	// Version is the range version that the split was planned for.
	Version partition.RangeVersion
	// Children are in the order of their ranges.
	Children []Wanted
	// Deadline is when the split is given up if it is not activated, on this node's
	// clock; 0: never.
	Deadline partition.Time
	// Cancel is why somebody wants it to be given up; empty: nobody does.
	Cancel string
	// Activated: the control group knows that the ranges are the children's, so the
	// catalog leads to them.
	Activated bool
}

// Wanted is a child that a task asks for.
type Wanted struct {
	Group partition.GroupID
	Range partition.KeyRange
	// Nodes are where its replicas shall be; none: where the parent's full replicas
	// are.
	Nodes []Place
	// First is the node whose replica tries to be master first; empty: the one on
	// the parent's master's node, or the first.
	First partition.NodeID
}

// Place is a node and the zone that it is in.
type Place struct {
	Node partition.NodeID
	Zone string
}

// Situation is everything that a step is decided from. Next changes nothing of it.
type Situation struct {
	Group partition.GroupID
	Self  partition.ReplicaID
	Now   partition.Time
	// Serving: this replica is master and has applied its own first record, so
	// Extent shows every split in its log. Since is when it began to serve.
	Serving bool
	Since   partition.Time
	// Extent is the newest that was applied here.
	Extent partition.Extent
	// Range and Version are the catalog's, for a group without an extent.
	Range   partition.KeyRange
	Version partition.RangeVersion
	// Task is the group's open task, nil if none is known. Gone: the control group
	// has said, since this master has seen the extent's split, that it is no open
	// task.
	Task *Task
	Gone bool
	// Membership is the group's newest configuration; Pending: it is not known to
	// be committed. Busy says what else is being done to the group's structure.
	Membership *partition.Membership
	Pending    bool
	Busy       string
	// Peers are the members as the master knows them, itself among them.
	Peers []Peer
	// Children are the newest configurations of the extent's children, as far as the
	// catalog has any.
	Children []Seen
	// Proposed is the kind of the structural record that this master has proposed
	// and knows no outcome of, 0 if there is none. Telling: a report to the control
	// group has no answer yet.
	Proposed partition.Kind
	Telling  bool
	// Told: the control group has confirmed to this master that the ranges of the
	// extent's split are the children's, or has never heard of its task. Needed for a
	// task that is not open any more: one that a master of before has ended, not
	// knowing that it is activated.
	Told bool
	// Aborted is why this master has proposed to abort the split that ended last;
	// empty if another did.
	Aborted string
	// Held: the leaving ranges are held, since HeldSince: what comes for them is
	// kept and not put into the log. A master that begins to serve with a sealed
	// extent holds from the beginning.
	Held      bool
	HeldSince partition.Time
	// NotBefore is when something that failed may be tried again. The host sets it
	// when a proposal or a report was refused, and when an Unseal was applied.
	NotBefore partition.Time
	Limits    Limits
}

// Peer is what a group's master knows of one member.
type Peer struct {
	Replica partition.ReplicaID
	// Up: its node answers. State: it has the group's state.
	Up, State bool
	// Match is the last index that it is known to have on disk. Lag is how many
	// bytes of the log it has not acknowledged, and Heard when it last acknowledged
	// any.
	Match partition.Index
	Lag   int64
	Heard partition.Time
	// Prepared: it has made ready what it can make ready of its children. A split
	// waits for those that a child needs to go on, not for every member.
	Prepared bool
	// Made are the children of the extent's split whose replicas it has on disk.
	Made []partition.GroupID
}

// Seen is a child as the catalog has it.
type Seen struct {
	Group      partition.GroupID
	Membership *partition.Membership
}

// Limits are the bounds of Next. Zero fields have the defaults.
type Limits struct {
	// Hold is how long a leaving range may be held before the seal is undone, beside
	// the commits themselves (default 50 ms): longer tolerates slower members,
	// shorter spares the clients.
	Hold time.Duration
	// Tries is how often a split is sealed before it is given up (default 3).
	Tries int
	// Lag is how many bytes a member that a child needs may be behind when the
	// ranges are held (default 256 KiB), and Silence how long one that is behind may
	// have said nothing (default 100 ms).
	Lag     int64
	Silence time.Duration
	// Orphan is how long a split is kept whose task nobody tells anything of
	// (default 1 min), counted from the beginning of the mastership. Then it is given
	// up, unless it is sealed and can be activated.
	Orphan time.Duration
	// Look is how long Next is satisfied without being asked again while it waits
	// for members (default 20 ms).
	Look time.Duration
}

func (l Limits) withDefaults() Limits {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&l.Hold, 50*time.Millisecond)
	def(&l.Silence, 100*time.Millisecond)
	def(&l.Orphan, time.Minute)
	def(&l.Look, 20*time.Millisecond)
	if l.Tries <= 0 {
		l.Tries = 3
	}
	if l.Lag <= 0 {
		l.Lag = 256 << 10
	}
	return l
}
