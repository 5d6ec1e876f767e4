package partition

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// GroupID names a group of replicas. It is never reused.
type GroupID uint64

// String returns the form that commands and logs use, such as "g17".
func (g GroupID) String() string { return "g" + strconv.FormatUint(uint64(g), 10) }

// ParseGroupID reads what String returns; the "g" may be left out.
func ParseGroupID(s string) (GroupID, error) {
	n, err := strconv.ParseUint(strings.TrimPrefix(s, "g"), 10, 64)
	if err != nil || n == 0 {
		return 0, &Error{Code: CodeInvalid, Why: fmt.Sprintf("%.40q does not name a partition", s), Next: "ids look like g17; list them with: pando partition ls"}
	}
	return GroupID(n), nil
}

// MarshalJSON makes JSON show the same name as commands and logs.
func (g GroupID) MarshalJSON() ([]byte, error) { return []byte(`"` + g.String() + `"`), nil }

// UnmarshalJSON is the inverse of MarshalJSON.
func (g *GroupID) UnmarshalJSON(b []byte) (err error) {
	*g, err = ParseGroupID(strings.Trim(string(b), `"`))
	return err
}

// NodeID names a node for ever. It is minted on the first start, kept in the
// data directory, and independent of the node's address.
type NodeID string

// MaxNodeIDBytes bounds a NodeID, so that it fits gossip tags and frames.
const MaxNodeIDBytes = 64

// ReplicaID is a member's ordinal in its group. It is never reused, not even
// for the same node: a replica that lost its disk comes back under a new one.
// Zero names no replica.
type ReplicaID uint16

// Epoch orders masterships of a group. The number that the lock handed out is
// in the upper 48 bits and the candidate's ReplicaID in the lower 16, so two
// candidates never share an epoch, whatever the lock does. Zero is the epoch of
// the record that created the group.
type Epoch uint64

// NewEpoch returns the epoch of candidate r with the lock number n.
func NewEpoch(n uint64, r ReplicaID) Epoch { return Epoch(n<<16 | uint64(r)) }

// Number is the lock's part of the epoch.
func (e Epoch) Number() uint64 { return uint64(e) >> 16 }

// Replica is the only replica that may be master in this epoch.
func (e Epoch) Replica() ReplicaID { return ReplicaID(e) }

// String returns "number.replica", such as "7.2".
func (e Epoch) String() string { return fmt.Sprintf("%d.%d", e.Number(), e.Replica()) }

// Index is a record's place in its group's log. The first record has index 1;
// indexes have no gaps and are never reused for another committed record.
type Index uint64

// MembershipVersion counts a group's configurations, by exactly one per change.
type MembershipVersion uint64

// RangeVersion counts a group's key ranges: +1 for each seal, unseal, activate
// and merge. A request carries the one it was routed by.
type RangeVersion uint64

// Position identifies a record: no two records of a group share one. Positions
// order logs: of two logs the one whose last record has the greater position is
// the newer.
type Position struct {
	Epoch Epoch
	Index Index
}

// Compare orders positions by epoch first and by index second.
func (p Position) Compare(q Position) int {
	return cmp.Or(cmp.Compare(p.Epoch, q.Epoch), cmp.Compare(p.Index, q.Index))
}

// String returns "index@epoch", such as "12@7.2".
func (p Position) String() string { return fmt.Sprintf("%d@%s", p.Index, p.Epoch) }

// Time is a monotonic logical time of one node. Only differences mean anything,
// and only on the node that took it.
type Time = time.Duration

// SessionID names a client's session with a group: the group that opened it and
// the index of the record that did, so no allocator is needed and a split can
// carry it along. The zero value means no session: the command is executed as
// often as it is committed.
type SessionID struct {
	Group GroupID
	Index Index
}
