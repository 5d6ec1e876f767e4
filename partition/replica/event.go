package replica

import "pando.dev/pando/partition"

// Event is everything that can happen to a replica: an input, and the node's
// monotonic time at which it happened.
type Event struct {
	Now   partition.Time
	Input Input
}

// Input is one of the types below.
type Input interface{ input() }

// Tick says that the time of the last Alarm has come.
type Tick struct{}

// Received is a message from another replica of the group. The host has checked
// that it was sent to this replica by the node that holds From.
type Received struct {
	From partition.ReplicaID
	// Node is where From lives and answers go. Empty: where the active
	// configurations say.
	Node partition.NodeID
	// Boot is the incarnation of the sender's node, as the link proved it. With 0
	// the message says nothing of grants: see Neighbours.Granted.
	Boot    uint64
	Message Message
}

// Persisted says that the Persist with this Seq, and every earlier one, is on
// disk.
type Persisted struct{ Seq uint64 }

// Applied says that the state reflects every record up to Index.
type Applied struct{ Index partition.Index }

// Truncated says that the host's log begins at First now: what was before it is
// committed, applied, and safe in the state.
type Truncated struct{ First partition.Index }

// Propose asks the master to append commands. Each is answered by one Reply.
type Propose struct{ Proposals []Proposal }

// Proposal is one command on its way into the log. ID is the host's and comes
// back in the Reply; Payload is the record's payload (see AppendCommand) and
// must not be changed afterwards.
type Proposal struct {
	ID      uint64
	Kind    partition.Kind
	Payload []byte
}

// ReadIndex asks for a linearizable read without clocks; it is answered by a
// Reply whose Index the state must have reached before it is read.
type ReadIndex struct{ ID uint64 }

// Transfer asks the master to hand its mastership to another member, and is
// answered by one Reply: without an error when the other one leads, else with
// why not. To 0 stands for whoever is best: caught up, and then the least id.
type Transfer struct {
	ID uint64
	To partition.ReplicaID
}

// Resign tells a master that it shall not go on: its node stops, or has no disk
// any more. It hands over if somebody can take it and else just steps down. To
// any other replica it says nothing.
type Resign struct{ Why string }

// Locked answers AcquireLock: the lock is held and its number is Number. Permit
// is the number of the permit to go on alone that this replica holds, if the
// lock service knows of one.
type Locked struct {
	Number uint64
	Permit uint64
}

// LockRefused answers AcquireLock: somebody else holds the lock, or nobody could
// be asked. To a candidate that was given the lock it says that the lock is lost;
// a master does not care.
type LockRefused struct{}

// Configure asks the master to change the group: Membership follows the newest
// configuration in its log, whose version it raises by one. It is answered by
// one Reply when it is committed and applied; with CodeBusy, and nothing done,
// while another change is under way or a member that is to count has not caught
// up; with CodeRefused if too few of the members that would count then answer
// now, which Force overrides.
type Configure struct {
	ID         uint64
	Membership *partition.Membership
	Force      bool
}

// Permitted answers the Permit with the same Seq: the control group lets this
// replica go on alone under Number, and nobody else until that is released.
type Permitted struct{ Seq, Number uint64 }

// PermitRefused answers the Permit with the same Seq. Outdated tells that a
// newer lock was handed out, so that a mastership of this epoch never gets one.
type PermitRefused struct {
	Seq      uint64
	Why      string
	Outdated bool
}

// Recover is an operator's decree: this replica shall become master of the
// members named, whatever the configurations in its log ask for. Records that
// only the other members have are lost. Membership.Alone is the number of the
// control group's permit. It is answered by one Reply, when the configuration is
// committed and applied or when nothing came of it.
type Recover struct {
	ID         uint64
	Membership *partition.Membership
}

// NodeDown is a hint that a node cannot be reached. It starts questions, never
// decides them.
type NodeDown struct{ Node partition.NodeID }

// NodeUp is a hint that a node can be reached again.
type NodeUp struct{ Node partition.NodeID }

func (Tick) input()          {}
func (Received) input()      {}
func (Persisted) input()     {}
func (Applied) input()       {}
func (Truncated) input()     {}
func (Propose) input()       {}
func (ReadIndex) input()     {}
func (Transfer) input()      {}
func (Resign) input()        {}
func (Locked) input()        {}
func (LockRefused) input()   {}
func (Configure) input()     {}
func (Permitted) input()     {}
func (PermitRefused) input() {}
func (Recover) input()       {}
func (NodeDown) input()      {}
func (NodeUp) input()        {}
