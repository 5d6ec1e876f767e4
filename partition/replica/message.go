package replica

import (
	"time"

	"pando.dev/pando/partition"
)

// Message is what replicas of a group say to each other. The transport may
// lose, repeat, delay and reorder messages; each carries the epoch it was sent
// in, and a receiver that has promised a newer one refuses it.
type Message interface{ message() }

// Append carries records of the master's log, or none (a commit notice or a
// question for the log end). The records follow Prev without a gap.
type Append struct {
	Epoch   partition.Epoch
	Prev    partition.Position
	PrevSum uint32 // checksum of the record at Prev; 0: not known
	Commit  partition.Index
	// Everywhere: every eligible full voter has the log up to here on disk. A log
	// replica keeps what comes after it.
	Everywhere partition.Index
	Records    []partition.Record
	// Through is used between machine and host only: if it is above Prev.Index
	// and Records is empty, the host reads the records up to Through, or fewer
	// but at least one, from its log and puts them in, with Prev.Epoch and
	// PrevSum (the Prev of the first of them), before it sends, in at most
	// MaxAppendBytes. The machine no longer holds them in memory.
	Through partition.Index
}

// AppendAck answers Append.
type AppendAck struct {
	// Epoch is the sender's promise: the master's own epoch, or a newer one, by
	// which the append was refused.
	Epoch partition.Epoch
	// Match: every record up to it is the master's and on the sender's disk.
	Match partition.Index
	// Want, if not 0, asks for records from this index on: there is a gap, or
	// the log differs before it.
	Want partition.Index
	// Commit is what the sender knows to be committed, so that the master can
	// tell who still has to be told. A configuration counts in it only when the
	// sender has on disk that it is committed.
	Commit partition.Index
	// State: the sender keeps the group's state, so it could be a full member.
	State bool
}

// Gather asks a member to support an attempt to become master.
type Gather struct {
	Epoch partition.Epoch
	// Released: no lease counts any more in epochs up to this one, by the word of
	// its master, which has handed over. What the receiver has granted for these
	// it need not wait for.
	Released partition.Epoch
}

// GatherAnswer answers Gather. With Epoch equal to the attempt's the sender has
// promised it, on disk, and supports it; with a greater one it refuses.
type GatherAnswer struct {
	Epoch  partition.Epoch
	End    partition.Position // of the sender's log
	EndSum uint32
	// Commit is the last record that the sender knows to be committed.
	Commit partition.Position
	// LeaseRemaining is how long a read lease that the sender has granted to an
	// earlier master may still run.
	LeaseRemaining time.Duration
	// Membership is the version of the last configuration in the sender's log.
	Membership partition.MembershipVersion
}

// Fetch asks a supporter for its records behind After, or for all that it has if its
// log begins later; served only at exactly the promise Epoch.
type Fetch struct {
	Epoch partition.Epoch
	After partition.Index
}

// FetchAnswer answers Fetch; like Append, it may leave the records to the host.
type FetchAnswer struct {
	Epoch   partition.Epoch
	Prev    partition.Position
	PrevSum uint32
	Records []partition.Record
	Through partition.Index // as in Append
	End     partition.Position
	Commit  partition.Index
}

// Probe asks a member what it knows of the group's master, before anybody
// declares it gone.
type Probe struct {
	Epoch partition.Epoch // that the sender has promised
	// Elect: the sender knows of no master, may not be one itself, and its log,
	// which ends at End, names the receiver as one that may. So a change of the
	// group whose only master-to-be has not heard of it does not end the group.
	Elect bool
	End   partition.Position
}

// ProbeAnswer answers Probe.
type ProbeAnswer struct {
	Promised partition.Epoch
	// Reachable: the sender knows the master of the epoch Promised, and that
	// master's node answers heartbeats of the sender's node; or the sender is that
	// master itself.
	Reachable bool
	// Trying: the sender has the lock and is on its way to be master in the epoch
	// Promised.
	Trying bool
	// Master: the sender is master in the epoch Promised. Unasked and without it,
	// the replica that Promised names says that it has resigned.
	Master bool
	End    partition.Position
	// Commit is the last record that the sender knows to be committed.
	Commit partition.Position
	// Settled is the version of the newest configuration of which the sender has
	// on disk that it is committed.
	Settled partition.MembershipVersion
	// Without, if set, is a configuration that the sender knows to be committed
	// and in which the receiver is no member any more.
	Without *partition.Membership
}

// HandOver is what a master and its heir say to each other in a planned change of
// master; transfer.go shows the steps.
type HandOver struct {
	Epoch partition.Epoch // of the old master
	Step  HandStep
	// Number, with HandPrepare, is that of the old master's lock: it consents to
	// the heir's taking it.
	Number uint64
	// End, with HandGo, is where the old master's log ends. All of it is committed.
	End    partition.Position
	EndSum uint32
}

// HandStep is a step of a planned change of master.
type HandStep uint8

const (
	// HandPrepare asks the heir to get the lock.
	HandPrepare HandStep = iota + 1
	// HandReady says that the heir has it, HandRefuse that it will not.
	HandReady
	HandRefuse
	// HandCancel calls it off: the old master goes on.
	HandCancel
	// HandGo gives the mastership up: no lease of the epoch, nor of any before it,
	// counts any more.
	HandGo
)

// ReadCheck asks a member to confirm that it has promised nothing newer than
// Epoch since the check was sent.
type ReadCheck struct {
	Epoch partition.Epoch
	Seq   uint64
}

// ReadConfirm answers ReadCheck with the sender's promise. Waiting tells that
// the sender may not support a read yet.
type ReadConfirm struct {
	Epoch   partition.Epoch
	Seq     uint64
	Waiting bool
}

func (*Append) message()       {}
func (*AppendAck) message()    {}
func (*Gather) message()       {}
func (*GatherAnswer) message() {}
func (*Fetch) message()        {}
func (*FetchAnswer) message()  {}
func (*Probe) message()        {}
func (*ProbeAnswer) message()  {}
func (*HandOver) message()     {}
func (*ReadCheck) message()    {}
func (*ReadConfirm) message()  {}
