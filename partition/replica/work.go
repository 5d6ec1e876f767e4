package replica

import (
	"pando.dev/pando/partition"
)

// Work is what a replica asks its host to do, one of the types below. The host
// does the work of one Ready in the order given, except that it need not wait
// for a Persist before it goes on: what depends on the disk is not asked for
// before the Persisted event.
type Work interface{ work() }

// Persist asks to make a change of the log durable: first the promise, then the
// snip, then the records. Everything persisted earlier is durable before it. A
// crash may leave the promise alone, or the promise and the snip, or these and
// the first of the records, but never a later part without the earlier ones.
type Persist struct {
	Seq     uint64
	Promise partition.Epoch // the promise from now on
	Commit  partition.Index // known to be committed; stored along, needs no sync of its own
	// Snip removes the records behind After before Records are added.
	Snip    bool
	After   partition.Index
	Records []partition.Record
	// Sync tells whether a Persisted event is waited for.
	Sync bool
}

// Send asks to send a message to another replica. It may be lost. Node is empty
// if the replica is in no active configuration and no message of it has told.
type Send struct {
	To      partition.ReplicaID
	Node    partition.NodeID
	Message Message
}

// Apply asks to apply the committed records First to Last, in order, and to
// answer with Applied. If Records is empty the host reads them from its log and
// may apply only the first part; the machine then asks again. A log replica's
// host has no state and answers at once.
type Apply struct {
	First, Last partition.Index
	Records     []partition.Record
	// IDs, if not nil, has for each record the ID of the proposal that waits
	// for its result, or 0: the host keeps that result until the Reply.
	IDs []uint64
}

// Reply answers the Proposal or ReadIndex with this ID. Without an error the
// record at Index was committed and applied here: its result is the caller's.
// An error of CodeUnknown means that the command may yet be executed; any other
// that it will not be.
type Reply struct {
	ID    uint64
	Index partition.Index
	Err   *partition.Error
}

// Alarm asks for a Tick at the given time. It replaces the alarm before. One that
// is no longer needed is not cancelled; it comes once and nothing follows.
type Alarm struct{ At partition.Time }

// AcquireLock asks for the group's lock with a number of at least Above+1,
// answered by Locked or LockRefused. LockRefused may also come later, to say that
// the lock is lost. Witnesses are the members, this one
// included, that cannot reach the holder; if they are a failover set the lock
// is granted anew at once.
type AcquireLock struct {
	Above     uint64
	Witnesses []partition.ReplicaID
	Failover  bool // the witnesses are a failover set
	// Holder, if not 0, consents: the lock is granted if that replica holds it
	// under the number Consent.
	Holder  partition.ReplicaID
	Consent uint64
}

// ReleaseLock gives the lock back.
type ReleaseLock struct{ Number uint64 }

// Permit asks the control group to let this master go on alone, since no other
// voter can be reached; Permitted or PermitRefused answers. The control group
// grants it only if no lock of a greater number than Lock was handed out for the
// group and nobody else holds a permit, under a number that it never gave out
// before, also to the replica that holds one already. While the permit is held it
// hands out the lock to this replica only.
type Permit struct {
	Seq  uint64
	Lock uint64 // number of the lock that the mastership rests on
}

// ReleasePermit gives a permit back if it is the one of this number, else nothing
// is done. The host repeats it until the control group has answered, and asks for
// no Permit meanwhile.
//
// If Able is not empty, somebody may lack what was committed without it: the permit
// stays held, and from now on these replicas may be given the lock and the next
// permit as well. Version is that of the configuration which says so: of two about
// the same permit the later one of the newer configuration counts.
type ReleasePermit struct {
	Number  uint64
	Able    []partition.ReplicaID // ascending
	Version partition.MembershipVersion
}

// Retire says that this removed replica is no longer needed by anybody: the host
// deletes it. It comes once.
type Retire struct{}

// Publish hands out a new read view. The host shares it with its readers.
type Publish struct{ View *View }

func (*Persist) work()       {}
func (*Send) work()          {}
func (*Apply) work()         {}
func (*Reply) work()         {}
func (*Alarm) work()         {}
func (*AcquireLock) work()   {}
func (*ReleaseLock) work()   {}
func (*Permit) work()        {}
func (*ReleasePermit) work() {}
func (*Retire) work()        {}
func (*Publish) work()       {}

// View is what a replica shows to readers that do not go through its events.
// It is immutable; a newer one replaces it. Its applied index is not in it: a
// reader takes the state first and checks the lease afterwards, with the newest
// view of the same epoch.
type View struct {
	Group  partition.GroupID
	Self   partition.ReplicaID
	Epoch  partition.Epoch     // the promise
	Master partition.ReplicaID // who is master in Epoch, as far as known; 0: nobody
	// Serving: this replica is master, has committed and applied a record of
	// its own epoch, and has waited out the leases of its predecessors.
	Serving bool
	// Next is where requests go while no master serves because of a hand-over: to
	// the heir, which keeps them until it serves, or refuses them if it does not
	// come to it. It may be the own node. Empty: nowhere.
	Next partition.NodeID
	// Supporters are the members that have promised Epoch, ordered by id.
	Supporters     []Supporter
	Configurations partition.Configurations
}

// Supporter is a member that has promised a master's epoch, and the incarnation
// of its node that has last confirmed it. A later incarnation may hold no such
// replica any more and know nothing of what was promised since, so its grants do
// not count before the replica has confirmed the epoch anew.
type Supporter struct {
	Replica partition.ReplicaID
	Boot    uint64
}

// Neighbours is what the replica's node knows of the nodes around it. Liveness
// and leases are kept per pair of nodes, never per group; a replica asks here
// instead of keeping timers. Calls do not block.
//
// A grant of node B to node A lasts for Config.Lease from when B receives A's
// heartbeat, and A counts it from before it sent that heartbeat, less a margin.
// The clocks' difference in speed enters twice, between A and B and between B and
// the next master, so the margin is at least twice the greatest relative drift.
// For a group B's grants count only in the epoch that B's replica has promised,
// and only those of the incarnation of B that the promise was last heard from:
// what B knows of promises is lost in a restart. Before its first grant after one
// B reads the promises of its replicas again, and A drops nothing: grants made
// before the restart run out by themselves.
type Neighbours interface {
	// Reachable reports whether the node has answered heartbeats lately. Every
	// change is followed by a NodeUp or NodeDown event, and so is a new
	// incarnation: NodeDown and NodeUp, however short it was away. A master then
	// asks its replica to confirm the epoch, without which its grants count no more.
	Reachable(partition.NodeID) bool
	// Revoke tells that this node's replica of the group is about to promise
	// epoch: from now on no grant to holder is extended for the group in an
	// older epoch, nor for an earlier replica of the group on this node. It
	// returns until when the grants made so far run, on the clock of the events;
	// 0 if there are none. An empty holder means that the replica does not know
	// where the master of the older epoch lives: then no grant to any node is
	// extended.
	Revoke(g partition.GroupID, replica partition.ReplicaID, epoch partition.Epoch, holder partition.NodeID) partition.Time
	// Granted returns until when, on the clock of the events and with the drift
	// margin taken off, the grant of node by counts for this node as master of
	// the group in epoch, if what supports it there is s; 0 if it does not. No
	// grant of the incarnation 0 counts.
	Granted(g partition.GroupID, epoch partition.Epoch, by partition.NodeID, s Supporter) partition.Time
}

// LeaseEnd returns until when the view's replica may answer linearizable reads
// without asking anybody; 0 if it may not. A reader takes the state first and
// then checks that the time is still before LeaseEnd, with the view that is the
// newest then.
func (v *View) LeaseEnd(n Neighbours) partition.Time {
	if !v.Serving {
		return 0
	}
	return partition.Time(v.Configurations.DurableLevel(func(r partition.ReplicaID) uint64 {
		if r == v.Self {
			return 1<<63 - 1
		}
		for _, s := range v.Supporters {
			if s.Replica == r {
				m, _ := v.Configurations.Member(r)
				return uint64(max(0, n.Granted(v.Group, v.Epoch, m.Node, s)))
			}
		}
		return 0
	}))
}
