package control

import "pando.dev/pando/partition"

// Forms that this program no longer writes and still finds in logs.

// locksNoStart is what locksBody was before processes had a start.
type locksNoStart struct {
	Node    partition.NodeID
	Boot    uint64
	Acquire []acquireNoStart
	Release []releaseItem
}

type acquireNoStart struct {
	Group    partition.GroupID
	Replica  partition.ReplicaID
	Above    uint64
	Failover bool
}

// sessionsNoStart is what sessionsBody was before processes had a start.
type sessionsNoStart struct {
	Open   []heldSession
	Expire []heldSession
}

func (b *locksNoStart) now() *locksBody {
	n := &locksBody{Node: b.Node, Boot: b.Boot, Release: b.Release}
	for _, x := range b.Acquire {
		n.Acquire = append(n.Acquire, acquireItem{Group: x.Group, Replica: x.Replica, Above: x.Above, Failover: x.Failover})
	}
	return n
}

func (b *sessionsNoStart) now() *sessionsBody {
	n := &sessionsBody{}
	for _, x := range b.Open {
		n.Open = append(n.Open, sessionItem{Node: x.Node, Boot: x.Boot})
	}
	for _, x := range b.Expire {
		n.Expire = append(n.Expire, sessionItem{Node: x.Node, Boot: x.Boot})
	}
	return n
}
