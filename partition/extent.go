package partition

import (
	"bytes"
	"fmt"
)

// Extent is what a group serves. It is part of the replicated state and changes
// only when a record of the group's own log is applied, so every replica has the
// same one at the same index. The zero Extent is that of a group that was never
// split and is not a child: what it serves, only the catalog says.
//
// An Extent is never changed in place; whoever holds one may share it.
type Extent struct {
	// Range are the keys that are the group's. Those of a split under way are in
	// it until the split is activated; see Serves.
	Range KeyRange
	// Version counts changes: +1 for each seal, unseal and activate. It is 0 in the
	// zero Extent only. Since is the version since which Range is what it is: a
	// request that was routed by any version from Since on was meant for Range.
	Version, Since RangeVersion
	// Parent is the group that this one was split from, 0 for none, and Base the
	// index of the parent's Activate record. The group's log begins behind it.
	Parent GroupID
	Base   Index
	// Split is the split under way, or nil.
	Split *Split
	// Ended is the task of the last split or merge, as survivor, that has ended, 0
	// for none, and Done that it was activated, or merged, and not aborted: so a later
	// master can say what became of it.
	Ended uint64
	Done  bool
	// Lift is what is added to an index for the partition and the sessions; see At.
	Lift Index
	// Lineage are the groups that were absorbed last, the newest behind the others.
	Lineage []GroupID
	// Merge is the merge under way, or the one that has ended the group; or nil.
	Merge *Merge
}

// Split is a split under way, as the group's own state has it.
type Split struct {
	// Task is the id that the control group knows the split by.
	Task  uint64
	Phase Phase
	// Version is the group's range version when the split began.
	Version RangeVersion
	// Intent is the index of the record that began the split, and At that of the
	// one that led to this phase: once activated, every child's Base.
	Intent, At Index
	// Children are in the order of their ranges.
	Children []Child
}

// Phase is how far a split has got.
type Phase uint8

const (
	// Intended: the group's structure is occupied; nothing else has changed.
	Intended Phase = 1
	// Sealed: nothing in the children's ranges changes, and whose they will be is
	// open.
	Sealed Phase = 2
	// Activated: the ranges are the children's, for ever.
	Activated Phase = 3
)

// String returns the name used in stories, logs and commands.
func (p Phase) String() string {
	switch p {
	case Intended:
		return "intended"
	case Sealed:
		return "sealed"
	case Activated:
		return "activated"
	}
	return fmt.Sprintf("phase(%d)", uint8(p))
}

// Unseals is how often the split was sealed and unsealed again.
func (x *Extent) Unseals() int {
	steps := uint64(x.Version - x.Split.Version)
	if x.Split.Phase == Activated {
		steps--
	}
	return int(steps / 2)
}

// Child is a group that a split makes.
//
// Every member of it is a full replica, which is made from a replica of the
// parent on the same node under the same ReplicaID, and from no other. So a node
// that has lost its disk and holds the parent again, under a new id, does not make
// the child a second time, having forgotten what the first one has promised.
type Child struct {
	Group      GroupID
	Range      KeyRange
	Membership *Membership // of version 1
	// First is the member that tries to be master first.
	First ReplicaID
}

// MadeBy reports whether the child's replica on a node is made from the parent's
// replica r there.
func (c *Child) MadeBy(r ReplicaID, node NodeID) bool {
	m, ok := c.Membership.Member(r)
	return ok && m.Node == node
}

const (
	// MaxChildren bounds the children of one split. With what the group keeps
	// that is 16 pieces.
	MaxChildren = 15
	// MaxBoundBytes bounds the bounds of a range that is divided.
	MaxBoundBytes = 4 << 10
)

// Serves reports whether the group may read and write all keys of the range: they
// are its own, and none is sealed.
func (x *Extent) Serves(r KeyRange) bool {
	if !r.Within(x.Range) || x.IsSource() {
		return false
	}
	for i := range x.sealed() {
		if !r.Intersect(x.Split.Children[i].Range).Empty() {
			return false
		}
	}
	return true
}

// sealed are the children whose ranges are sealed.
func (x *Extent) sealed() []Child {
	if x.Split == nil || x.Split.Phase != Sealed {
		return nil
	}
	return x.Split.Children
}

// Leaves returns the child of the split under way, in whatever phase, whose range
// holds the key.
func (x *Extent) Leaves(key []byte) (Child, bool) {
	if x.Split != nil {
		for _, c := range x.Split.Children {
			if c.Range.Contains(key) {
				return c, true
			}
		}
	}
	return Child{}, false
}

// Child returns the child of the given id, or nil. It works on a nil Split.
func (s *Split) Child(g GroupID) *Child {
	if s != nil {
		for i := range s.Children {
			if s.Children[i].Group == g {
				return &s.Children[i]
			}
		}
	}
	return nil
}

// Accepts reports whether a request that was routed by range version v was meant
// for what the group's range is now.
func (x *Extent) Accepts(v RangeVersion) bool { return v >= x.Since && v <= x.Version }

// OfChild returns the Extent that a child of the activated split begins with;
// group is the parent's id.
func (x *Extent) OfChild(group GroupID, c *Child) Extent {
	return Extent{
		Range: c.Range, Version: x.Version, Since: x.Version, Parent: group, Base: x.Split.At, Lift: x.Lift, Lineage: x.Lineage,
	}
}

// Next returns the extent after a record of the given kind and payload at the
// given index. It is a function of its arguments only, so every replica comes to
// the same answer. A record that does not fit the extent as it is now (another
// split, another phase, another version) is refused and changes nothing.
//
//	        Intent           Seal            Activate             Done
//	(none) --------> Intended ----> Sealed ----------> Activated ------> (none)
//	   ^    Abort       |   ^         |
//	   +----------------+   +---------+
//	                          Unseal
func (x Extent) Next(kind Kind, payload []byte, index Index) (Extent, *Error) {
	switch {
	case kind == KindIntent:
		return x.intend(payload, index)
	case kind >= KindMergeIntent || x.Merge != nil:
		return x.nextMerge(kind, payload, index)
	}
	var d Decision
	if err := d.UnmarshalBinary(payload); err != nil {
		return x, asError(err)
	}
	if x.Split == nil || x.Split.Task != d.Task || x.Split.Intent != d.Intent {
		return x, Errorf(CodeRefused, "%s of task %d, begun at %d, which is not under way", kind, d.Task, d.Intent)
	}
	if x.Version != d.Version {
		return x, Errorf(CodeRefused, "%s of task %d at range version %d, now it is %d", kind, d.Task, d.Version, x.Version)
	}
	from, to := x.Split.Phase, Phase(0)
	switch {
	case kind == KindSeal && from == Intended:
		to = Sealed
	case kind == KindUnseal && from == Sealed:
		to = Intended
	case kind == KindActivate && from == Sealed:
		to = Activated
	case kind == KindAbort && from == Intended, kind == KindDone && from == Activated:
		x.Split, x.Ended, x.Done = nil, d.Task, from == Activated
		return x, nil
	default:
		return x, Errorf(CodeRefused, "%s of task %d, which is %s", kind, d.Task, from)
	}
	s := *x.Split
	s.Phase, s.At = to, index
	x.Split, x.Version = &s, x.Version+1
	if to == Activated {
		x.Range, x.Since = retained(x.Range, s.Children), x.Version
	}
	return x, nil
}

// intend begins a split.
func (x Extent) intend(payload []byte, index Index) (Extent, *Error) {
	var in Intent
	if err := in.UnmarshalBinary(payload); err != nil {
		return x, asError(err)
	}
	y := x
	if err := y.begins(in.Task, in.Range, in.Version); err != nil {
		return x, err
	}
	x = y
	x.Split = &Split{Task: in.Task, Phase: Intended, Version: x.Version, Intent: index, At: index, Children: in.Children}
	return x, nil
}

// Decision returns what decides about the split under way, for the payload of a
// record: compare-and-set on all that it depends on.
func (x *Extent) Decision() Decision {
	return Decision{Task: x.Split.Task, Intent: x.Split.Intent, Version: x.Version}
}

// retained returns the one piece of the range that is left without the children,
// which are in order. It is empty if there is none or more than one.
func retained(r KeyRange, children []Child) KeyRange {
	none := KeyRange{Hi: []byte{0}, Lo: []byte{0}}
	piece, found := none, false
	lo := r.Lo
	for _, c := range children {
		if !bytes.Equal(lo, c.Range.Lo) {
			if found {
				return none
			}
			piece, found = KeyRange{Lo: lo, Hi: c.Range.Lo}, true
		}
		if lo = c.Range.Hi; len(lo) == 0 {
			return piece
		}
	}
	if bytes.Equal(lo, r.Hi) {
		return piece
	}
	if found {
		return none
	}
	return KeyRange{Lo: lo, Hi: r.Hi}
}

// asError is the Error that a decoder has returned.
func asError(err error) *Error {
	if e, ok := err.(*Error); ok {
		return e
	}
	return Errorf(CodeInternal, "%v", err)
}
