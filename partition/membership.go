package partition

import (
	"encoding/binary"
	"fmt"
)

// MaxMembers bounds a group's members of all kinds.
const MaxMembers = 16

// MaxZoneBytes bounds the name of a zone.
const MaxZoneBytes = 64

// MemberKind says what a member keeps and what it may become.
type MemberKind uint8

const (
	// Full keeps log and state, votes, and may be master.
	Full MemberKind = 1
	// LogReplica keeps only the log: it votes and supplies records, but is
	// never master and answers no reads.
	LogReplica MemberKind = 2
	// Learner is being brought up: it receives the log but does not count.
	Learner MemberKind = 3
)

// String returns the name used in stories, logs and commands.
func (k MemberKind) String() string {
	switch k {
	case Full:
		return "full"
	case LogReplica:
		return "log"
	case Learner:
		return "learner"
	}
	return fmt.Sprintf("member_kind(%d)", uint8(k))
}

// Member is one replica as the group's configuration names it.
type Member struct {
	Replica  ReplicaID
	Node     NodeID
	Zone     string
	Kind     MemberKind
	Eligible bool  // false in maintenance: it counts for nothing
	Weight   uint8 // share in a majority; 0 means 1
}

// counts reports whether the member counts in durable sets at all.
func (m *Member) counts() bool { return m.Eligible && (m.Kind == Full || m.Kind == LogReplica) }

func (m *Member) weight() int { return max(1, int(m.Weight)) }

// Membership is a group's configuration: its members, its durability policy
// and a version. It changes only by a record in the group's log, never in
// place: whoever holds a Membership may share it.
type Membership struct {
	Version MembershipVersion
	Policy  Policy
	Members []Member // ordered by Replica
	// Next is the ReplicaID that the next new member gets. It only grows, so
	// ids are never reused.
	Next ReplicaID
	// Alone, if not 0, is the number under which the control group permitted this
	// configuration to take effect alone, without the one before it: a member of a
	// pair goes on by itself, or an operator recovers a group. It is not joint, and
	// the control group's promise not to permit another one is what makes it safe.
	// A successor has 0 again.
	Alone uint64
	// Permit is the number of the last configuration that took effect alone, and
	// LeftBehind are the voters, ascending, that it was made without and that did
	// not count again since. They may lack what was committed without them, so the
	// permit is given back only after a configuration with none of them left is
	// committed. One that is removed meanwhile stays left behind for ever: it might
	// come back and not know. Then the permit is not given back, but passes to those
	// who are members. The number stays, so that every later master can do so.
	Permit     uint64
	LeftBehind []ReplicaID
	// Asked is what an operator asked for this one group; the zero value: nothing.
	Asked Asked
}

// Asked is how many full replicas an operator wants of one group: Replicas, as
// long as its table asks for Instead. Another number of the table ends it.
type Asked struct{ Replicas, Instead uint8 }

// Member returns the member with the given id.
func (m *Membership) Member(r ReplicaID) (Member, bool) {
	for i := range m.Members {
		if m.Members[i].Replica == r {
			return m.Members[i], true
		}
	}
	return Member{}, false
}

// OnNode returns the member that lives on the given node. A node holds at most
// one replica of a group.
func (m *Membership) OnNode(n NodeID) (Member, bool) {
	for i := range m.Members {
		if m.Members[i].Node == n {
			return m.Members[i], true
		}
	}
	return Member{}, false
}

// Validate refuses a configuration that could never commit, or in which a set
// of members that may fail over holds nobody who can be master.
func (m *Membership) Validate() error {
	if len(m.Members) == 0 || len(m.Members) > MaxMembers {
		return Errorf(CodeInvalid, "a group of %d members, allowed are 1 to %d", len(m.Members), MaxMembers)
	}
	var last ReplicaID
	nodes := make(map[NodeID]bool, len(m.Members))
	for _, x := range m.Members {
		switch {
		case x.Replica <= last || x.Replica >= m.Next:
			return Errorf(CodeInvalid, "replica %d is out of order or not below the next id %d", x.Replica, m.Next)
		case x.Node == "" || len(x.Node) > MaxNodeIDBytes || nodes[x.Node]:
			return Errorf(CodeInvalid, "replica %d: node %q is empty, too long or named twice", x.Replica, x.Node)
		case len(x.Zone) > MaxZoneBytes:
			return Errorf(CodeInvalid, "replica %d: a zone name of %d bytes, limit %d", x.Replica, len(x.Zone), MaxZoneBytes)
		case x.Kind < Full || x.Kind > Learner:
			return Errorf(CodeInvalid, "replica %d: unknown kind %d", x.Replica, x.Kind)
		}
		last, nodes[x.Node] = x.Replica, true
	}
	if err := m.Policy.validate(); err != nil {
		return err
	}
	if err := m.validateAlone(); err != nil {
		return err
	}
	all := func(ReplicaID) bool { return true }
	if !m.Durable(all) {
		return Errorf(CodeInvalid, "policy %s cannot be met by all eligible members together", m.Policy)
	}
	full := func(r ReplicaID) bool { x, _ := m.Member(r); return x.Kind == Full }
	// The largest set without an eligible full replica is everybody else, and a
	// smaller set fails over only if a larger one does.
	if !m.Durable(full) {
		return Errorf(CodeInvalid, "policy %s: some failover set would hold no eligible full replica", m.Policy)
	}
	return nil
}

// The first byte of an encoded Membership: the format, and on top of it the bits
// of what this one has beyond the rest. So a program that does not know what it
// means that one takes effect alone refuses it.
const (
	membershipFormat = 1
	hasPermit        = 1 << 0
	hasAsked         = 1 << 1
	lastFormat       = membershipFormat + hasPermit + hasAsked
)

// MaxMembershipBytes bounds an encoded Membership.
const MaxMembershipBytes = 33 + 2*MaxLeftBehind + MaxMembers*(7+MaxNodeIDBytes+MaxZoneBytes)

// AppendBinary encodes the configuration as the payload of a KindMember or
// KindMode record. The encoding is canonical: equal configurations give equal
// bytes.
func (m *Membership) AppendBinary(b []byte) ([]byte, error) {
	le := binary.LittleEndian
	format := byte(membershipFormat)
	if m.Permit != 0 {
		format += hasPermit
	}
	if m.Asked != (Asked{}) {
		format += hasAsked
	}
	b = append(b, format, byte(m.Policy.Rule), m.Policy.Zones, byte(len(m.Members)))
	b = le.AppendUint64(b, uint64(m.Version))
	b = le.AppendUint16(b, uint16(m.Next))
	if m.Permit != 0 {
		b = m.appendPermit(b)
	}
	if m.Asked != (Asked{}) {
		b = append(b, m.Asked.Replicas, m.Asked.Instead)
	}
	for _, x := range m.Members {
		eligible := byte(0)
		if x.Eligible {
			eligible = 1
		}
		b = le.AppendUint16(b, uint16(x.Replica))
		b = append(b, byte(x.Kind), eligible, x.Weight, byte(len(x.Node)), byte(len(x.Zone)))
		b = append(append(b, x.Node...), x.Zone...)
	}
	return b, nil
}

// UnmarshalBinary decodes and validates a configuration from untrusted bytes.
func (m *Membership) UnmarshalBinary(b []byte) error {
	const head, member = 14, 7
	if len(b) > 0 && b[0] > lastFormat {
		return Errorf(CodeNewerFormat, "membership format %d, this program knows %d", b[0], lastFormat)
	}
	if len(b) < head || b[0] < membershipFormat || b[3] > MaxMembers {
		return Errorf(CodeCorrupt, "membership of %d bytes has no valid head", len(b))
	}
	le := binary.LittleEndian
	d := Membership{
		Policy:  Policy{Rule: Rule(b[1]), Zones: b[2]},
		Version: MembershipVersion(le.Uint64(b[4:])),
		Next:    ReplicaID(le.Uint16(b[12:])),
		Members: make([]Member, 0, b[3]),
	}
	count, has := int(b[3]), b[0]-membershipFormat
	b = b[head:]
	if has&hasPermit != 0 {
		var err error
		if b, err = d.parsePermit(b); err != nil {
			return err
		}
	}
	if has&hasAsked != 0 {
		if len(b) < 2 || b[0] == 0 && b[1] == 0 {
			return Errorf(CodeCorrupt, "membership that was asked for without a number")
		}
		d.Asked, b = Asked{Replicas: b[0], Instead: b[1]}, b[2:]
	}
	for range count {
		if len(b) < member || len(b) < member+int(b[5])+int(b[6]) || b[3] > 1 {
			return Errorf(CodeCorrupt, "membership is cut short or has an invalid member")
		}
		node, zone := int(b[5]), int(b[6])
		d.Members = append(d.Members, Member{
			Replica: ReplicaID(le.Uint16(b)), Kind: MemberKind(b[2]), Eligible: b[3] == 1, Weight: b[4],
			Node: NodeID(b[member : member+node]), Zone: string(b[member+node : member+node+zone]),
		})
		b = b[member+node+zone:]
	}
	if len(b) != 0 {
		return Errorf(CodeCorrupt, "membership has %d bytes too many", len(b))
	}
	if err := d.Validate(); err != nil {
		return err
	}
	*m = d
	return nil
}

// Genesis returns the first record of a group: index 1 of epoch 0, committed by
// definition, the same bytes on every member.
func Genesis(g GroupID, m *Membership) (Record, error) {
	return FirstConfiguration(g, 1, m)
}

// FirstConfiguration returns the record that a group's log begins with, or
// begins behind: its first configuration, of epoch 0, committed by definition, the
// same bytes on every member. A child of a split has it at the index of its
// parent's Activate record, where the state that it begins with ends; the first
// record in its log is the one behind.
func FirstConfiguration(g GroupID, at Index, m *Membership) (Record, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	payload, _ := m.AppendBinary(nil) // never fails
	return NewRecord(Header{Group: g, Index: at, Kind: KindMember}, payload), nil
}
