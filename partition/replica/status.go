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
	Why    string // why it does not serve, if it does not
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
	}
	for _, p := range r.mastery.peers {
		if p.next < r.log.first {
			s.Behind = append(s.Behind, p.id)
		}
	}
	switch {
	case s.Serving:
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
