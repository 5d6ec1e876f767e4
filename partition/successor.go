package partition

import "slices"

// Successor returns a deep copy with the next version, to be edited into the
// next configuration of the group.
func (m *Membership) Successor() *Membership {
	n := *m
	n.Version, n.Members = m.Version+1, slices.Clone(m.Members)
	return m.Follow(&n)
}

// Add gives a new member the next id, which it returns.
func (m *Membership) Add(x Member) ReplicaID {
	x.Replica = m.Next
	m.Members = append(m.Members, x)
	m.Next++
	return x.Replica
}

// Remove takes a member out, and reports whether there was one.
func (m *Membership) Remove(r ReplicaID) bool {
	for i := range m.Members {
		if m.Members[i].Replica == r {
			m.Members = slices.Delete(m.Members, i, i+1)
			return true
		}
	}
	return false
}

// At returns the member with the given id to be edited, or nil.
func (m *Membership) At(r ReplicaID) *Member {
	for i := range m.Members {
		if m.Members[i].Replica == r {
			return &m.Members[i]
		}
	}
	return nil
}

// CheckNext refuses a configuration that may not follow this one, whatever the
// members' state. What depends on that state is the master's to check.
func (m *Membership) CheckNext(next *Membership) error {
	if err := next.Validate(); err != nil {
		return err
	}
	switch {
	case next.Version != m.Version+1:
		e := Errorf(CodeRefused, "version %d does not follow version %d", next.Version, m.Version)
		e.Next = "the group has changed meanwhile; look at it again"
		return e
	case next.Alone != 0:
		return Errorf(CodeInvalid, "only the control group permits a configuration to take effect alone")
	case next.Next < m.Next:
		return Errorf(CodeInvalid, "the next replica id %d is below %d: ids are never used again", next.Next, m.Next)
	}
	for i := range next.Members {
		if err := m.checkMember(&next.Members[i]); err != nil {
			return err
		}
	}
	return nil
}

// checkMember refuses a member of the next configuration that does not follow
// from this one.
func (m *Membership) checkMember(x *Member) error {
	was, known := m.Member(x.Replica)
	switch {
	case known && x.Node != was.Node:
		return Errorf(CodeInvalid, "replica %d is on node %s and cannot be on %s: another copy is another replica", x.Replica, was.Node, x.Node)
	case known && x.Kind != was.Kind && !mayBecome(was.Kind, x.Kind):
		e := Errorf(CodeInvalid, "replica %d is %s and cannot become %s", x.Replica, was.Kind, x.Kind)
		e.Next = "remove it and add another"
		return e
	case !known && x.Replica < m.Next:
		return Errorf(CodeInvalid, "replica %d is gone, or never was: ids are never used again", x.Replica)
	case !known && x.Kind != Learner:
		return Errorf(CodeInvalid, "replica %d is new and has to begin as learner", x.Replica)
	}
	return nil
}

// mayBecome lists the steps between kinds. A copy that has its state is never
// told to throw it away, and who counts does not stop to count by its kind.
func mayBecome(from, to MemberKind) bool {
	return from == Learner || from == LogReplica && to == Full
}

// SameButMode reports whether next differs from m only in who is eligible.
func (m *Membership) SameButMode(next *Membership) bool {
	if m.Policy != next.Policy || m.Asked != next.Asked || m.Next != next.Next || next.Alone != 0 || len(m.Members) != len(next.Members) {
		return false
	}
	for i, x := range m.Members {
		y := next.Members[i]
		y.Eligible = x.Eligible
		if x != y {
			return false
		}
	}
	return true
}
