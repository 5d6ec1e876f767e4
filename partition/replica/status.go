package replica

import (
	"fmt"

	"pando.dev/pando/partition"
)

// Status is what a replica tells operators about itself.
type Status struct {
	Role    string          // peer, a phase of an attempt, leveling, recovering, master
	Epoch   partition.Epoch // the promise
	Master  partition.ReplicaID
	Last    partition.Position
	Commit  partition.Index
	Applied partition.Index
	Serving bool
	// Behind are the members whose next record is no longer in this master's
	// log: only a copy of the state brings them back.
	Behind []partition.ReplicaID
	// Peers is what a master knows of the other members.
	Peers []PeerStatus
	// Version is that of the newest configuration in the log; InFlight tells that
	// it is not known to be committed.
	Version  partition.MembershipVersion
	InFlight bool
	// Everywhere: every eligible full voter has the log up to here on disk.
	Everywhere partition.Index
	// Removed: the group has gone on without this replica, which has stopped.
	Removed bool
	Why     string // why it does not serve, if it does not
}

// PeerStatus is what a master knows of another member.
type PeerStatus struct {
	Replica partition.ReplicaID
	Node    partition.NodeID
	Match   partition.Index // it has the log up to here on disk
	// CaughtUp: it could count from the next configuration on.
	CaughtUp bool
	State    bool // it keeps the group's state
	Behind   bool // what it needs next is no longer in this log: only a copy helps
	Down     bool // it does not answer
}

// String returns the status in one line.
func (s Status) String() string {
	t := fmt.Sprintf("%s epoch %s master %d last %s commit %d applied %d", s.Role, s.Epoch, s.Master, s.Last, s.Commit, s.Applied)
	if s.Why != "" {
		t += " (" + s.Why + ")"
	}
	return t
}

// Status describes the replica as it is now.
func (r *Replica) Status() Status {
	s := Status{
		Role: r.phase.String(), Epoch: r.promised, Master: r.master, Last: r.log.end(),
		Commit: r.commit, Applied: r.applied, Serving: r.phase == serving,
		Version: r.log.newest().Membership.Version, InFlight: r.log.newest().Index > r.commit,
		Everywhere: r.everywhere, Removed: r.stopped(),
	}
	for _, p := range r.mastery.peers {
		if p.leaving {
			continue
		}
		x := PeerStatus{
			Replica: p.id, Node: p.node, Match: p.match, CaughtUp: r.caughtUp(p), State: p.state,
			Behind: p.next < r.log.first, Down: p.down,
		}
		s.Peers = append(s.Peers, x)
		if x.Behind {
			s.Behind = append(s.Behind, p.id)
		}
	}
	switch {
	case s.Serving:
	case s.Removed:
		s.Why = "it was removed from the group"
	case r.phase == leveling:
		s.Why = "its first record is not committed yet"
	case r.phase == recovering && r.applied < r.mastery.first:
		s.Why = "it applies what its predecessors committed"
	case r.phase == recovering:
		s.Why = "leases of its predecessors still run"
	case r.master != 0 && !r.masterDown:
		s.Why = fmt.Sprintf("replica %d is master", r.master)
	case r.why != "":
		s.Why = r.why
	default:
		s.Why = "no master is known"
	}
	return s
}
