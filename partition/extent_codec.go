package partition

import (
	"bytes"
	"encoding/binary"
)

// Intent is the payload of a KindIntent record.
type Intent struct {
	Task uint64
	// Range and Version are what the group serves now, by which the record is
	// refused if that is no longer so. A group without an Extent gets them.
	Range    KeyRange
	Version  RangeVersion
	Children []Child
}

// Decision is the payload of the records that decide about a split under way; see
// Extent.Decision.
type Decision struct {
	Task    uint64
	Intent  Index // of the record that began the split
	Version RangeVersion
}

// Validate refuses what cannot be done to any group: children that overlap or
// leave not exactly one piece, groups named twice, configurations that are not the
// first of a group or have members that keep no state.
func (in *Intent) Validate() error {
	switch {
	case in.Task == 0 || in.Version == 0:
		return Errorf(CodeInvalid, "a split of task %d at range version %d", in.Task, in.Version)
	case len(in.Children) == 0 || len(in.Children) > MaxChildren:
		return Errorf(CodeInvalid, "a split into %d children, allowed are 1 to %d", len(in.Children), MaxChildren)
	case in.Range.Empty() || max(len(in.Range.Lo), len(in.Range.Hi)) > MaxBoundBytes:
		return Errorf(CodeInvalid, "a split of %.80s", in.Range)
	}
	seen := make(map[GroupID]bool, len(in.Children))
	for i := range in.Children {
		c := &in.Children[i]
		switch {
		case c.Group == 0 || seen[c.Group]:
			return Errorf(CodeInvalid, "child %s is nobody or named twice", c.Group)
		case c.Range.Empty() || !c.Range.Within(in.Range) || max(len(c.Range.Lo), len(c.Range.Hi)) > MaxBoundBytes:
			return Errorf(CodeInvalid, "child %s gets %.80s of %.80s", c.Group, c.Range, in.Range)
		case i > 0 && (len(in.Children[i-1].Range.Hi) == 0 || bytes.Compare(in.Children[i-1].Range.Hi, c.Range.Lo) > 0):
			return Errorf(CodeInvalid, "child %s gets %.80s, which is not behind that of %s", c.Group, c.Range, in.Children[i-1].Group)
		}
		seen[c.Group] = true
		if err := c.validateMembers(); err != nil {
			return err
		}
	}
	if retained(in.Range, in.Children).Empty() {
		return Errorf(CodeInvalid, "the group does not keep exactly one piece of %.80s", in.Range)
	}
	return nil
}

func (c *Child) validateMembers() error {
	m := c.Membership
	if m == nil {
		return Errorf(CodeInvalid, "child %s has no members", c.Group)
	}
	if err := m.Validate(); err != nil {
		return err
	}
	if m.Version != 1 || m.Permit != 0 {
		return Errorf(CodeInvalid, "child %s begins with configuration %d, permit %d", c.Group, m.Version, m.Permit)
	}
	for i := range m.Members {
		if m.Members[i].Kind != Full {
			return Errorf(CodeInvalid, "replica %d of child %s is a %s, which has no state to begin with", m.Members[i].Replica, c.Group, m.Members[i].Kind)
		}
	}
	if x, ok := m.Member(c.First); !ok || !x.Eligible {
		return Errorf(CodeInvalid, "replica %d of child %s shall be master first and cannot", c.First, c.Group)
	}
	return nil
}

// The first byte of each encoding.
const (
	intentFormat   = 1
	decisionFormat = 1
	extentFormat   = 2 // 1 if nothing was ever merged
)

// AppendBinary encodes the intent as the payload of a record. The encoding is
// canonical:
//
//	format u8 | task u64 | version u64 | range | count u8 | children
//	range: length u16 | lo | length u16 | hi
//	child: group u64 | first u16 | range | length u16 | membership
func (in *Intent) AppendBinary(b []byte) ([]byte, error) {
	if err := in.Validate(); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	b = append(b, intentFormat)
	b = le.AppendUint64(le.AppendUint64(b, in.Task), uint64(in.Version))
	return appendChildren(appendRange(b, in.Range), in.Children), nil
}

// UnmarshalBinary decodes and validates an intent from untrusted bytes.
func (in *Intent) UnmarshalBinary(b []byte) error {
	d := decoder{b: b, what: "intent"}
	d.format(intentFormat)
	x := Intent{Task: d.u64(), Version: RangeVersion(d.u64()), Range: d.keyRange()}
	x.Children = d.children()
	if err := d.end(); err != nil {
		return err
	}
	if err := x.Validate(); err != nil {
		return err
	}
	*in = x
	return nil
}

// AppendBinary encodes the decision as the payload of a record:
//
//	format u8 | task u64 | intent u64 | version u64
func (x Decision) AppendBinary(b []byte) ([]byte, error) {
	le := binary.LittleEndian
	b = le.AppendUint64(append(b, decisionFormat), x.Task)
	return le.AppendUint64(le.AppendUint64(b, uint64(x.Intent)), uint64(x.Version)), nil
}

// UnmarshalBinary decodes a decision from untrusted bytes.
func (x *Decision) UnmarshalBinary(b []byte) error {
	d := decoder{b: b, what: "decision"}
	d.format(decisionFormat)
	y := Decision{Task: d.u64(), Intent: Index(d.u64()), Version: RangeVersion(d.u64())}
	if err := d.end(); err != nil {
		return err
	}
	*x = y
	return nil
}

// AppendBinary encodes the extent as it stands in the state. The encoding is
// canonical:
//
//	format u8 | version u64 | since u64 | parent u64 | base u64 | ended u64 | done u8 | range | phase u8
//	and if the phase is not 0: task u64 | version u64 | intent u64 | at u64 | count u8 | children
//	and behind that in format 2: see appendMerged
func (x *Extent) AppendBinary(b []byte) ([]byte, error) {
	if x.plain() {
		return x.appendPlain(append(b, 1)), nil
	}
	return x.appendMerged(x.appendPlain(append(b, extentFormat))), nil
}

func (x *Extent) appendPlain(b []byte) []byte {
	le := binary.LittleEndian
	for _, n := range []uint64{uint64(x.Version), uint64(x.Since), uint64(x.Parent), uint64(x.Base), x.Ended} {
		b = le.AppendUint64(b, n)
	}
	done := byte(0)
	if x.Done {
		done = 1
	}
	b = appendRange(append(b, done), x.Range)
	if x.Split == nil {
		return append(b, 0)
	}
	b = append(b, byte(x.Split.Phase))
	for _, n := range []uint64{x.Split.Task, uint64(x.Split.Version), uint64(x.Split.Intent), uint64(x.Split.At)} {
		b = le.AppendUint64(b, n)
	}
	return appendChildren(b, x.Split.Children)
}

// UnmarshalBinary decodes and validates an extent from untrusted bytes.
func (x *Extent) UnmarshalBinary(b []byte) error {
	d := decoder{b: b, what: "extent"}
	d.format(extentFormat)
	merged := len(b) > 0 && b[0] > 1
	y := Extent{Version: RangeVersion(d.u64()), Since: RangeVersion(d.u64()), Parent: GroupID(d.u64()), Base: Index(d.u64()), Ended: d.u64()}
	done := d.u8()
	y.Done, y.Range = done == 1, d.keyRange()
	if phase := Phase(d.u8()); phase != 0 {
		y.Split = &Split{Phase: phase, Task: d.u64(), Version: RangeVersion(d.u64()), Intent: Index(d.u64()), At: Index(d.u64()), Children: d.children()}
	}
	if merged {
		d.merged(&y)
	}
	if err := d.end(); err != nil {
		return err
	}
	if done > 1 {
		return Errorf(CodeCorrupt, "an extent whose last split ended in way %d", done)
	}
	if err := y.validate(); err != nil {
		return err
	}
	*x = y
	return nil
}

// validate refuses what no record has led to.
func (x *Extent) validate() error {
	if x.Since == 0 || x.Since > x.Version || (x.Parent == 0) != (x.Base == 0) || x.Range.Empty() || x.Done && x.Ended == 0 {
		return Errorf(CodeCorrupt, "an extent of %.80s, versions %d to %d, split from %s at %d", x.Range, x.Since, x.Version, x.Parent, x.Base)
	}
	s := x.Split
	switch {
	case x.Lift > maxTop || x.Merge != nil && s != nil:
		return Errorf(CodeCorrupt, "an extent that is lifted by %d, or splits and merges", x.Lift)
	case x.Merge != nil:
		return x.Merge.validate(x)
	case s == nil:
		return nil
	}
	if s.Phase > Activated || s.Intent == 0 || s.At < s.Intent || s.At <= x.Base {
		return Errorf(CodeCorrupt, "a split that is %s at %d, begun at %d, of a group from %d on", s.Phase, s.At, s.Intent, x.Base)
	}
	// Sealed and activated are each one change behind the one before.
	if s.Version == 0 || s.Version > x.Version || (x.Version-s.Version)%2 != RangeVersion(s.Phase-1)%2 || s.Phase == Activated && x.Version < s.Version+2 {
		return Errorf(CodeCorrupt, "a split that is %s at version %d, begun at %d", s.Phase, x.Version, s.Version)
	}
	whole := Intent{Task: s.Task, Version: x.Version, Range: x.Range, Children: s.Children}
	if s.Phase == Activated {
		whole.Range = x.whole()
	}
	if err := whole.Validate(); err != nil {
		return err
	}
	if s.Phase == Activated && !retained(whole.Range, s.Children).Equal(x.Range) {
		return Errorf(CodeCorrupt, "an extent of %.80s beside what has left it", x.Range)
	}
	return nil
}

// whole is what the range was before the split was activated.
func (x *Extent) whole() KeyRange {
	r, children := x.Range, x.Split.Children
	if len(children) == 0 {
		return r
	}
	if lo := children[0].Range.Lo; bytes.Compare(lo, r.Lo) < 0 {
		r.Lo = lo
	}
	if hi := children[len(children)-1].Range.Hi; len(hi) == 0 || len(r.Hi) != 0 && bytes.Compare(hi, r.Hi) > 0 {
		r.Hi = hi
	}
	return r
}

func appendRange(b []byte, r KeyRange) []byte {
	for _, k := range [][]byte{r.Lo, r.Hi} {
		b = append(binary.LittleEndian.AppendUint16(b, uint16(len(k))), k...)
	}
	return b
}

func appendChildren(b []byte, children []Child) []byte {
	le := binary.LittleEndian
	b = append(b, byte(len(children)))
	for i := range children {
		c := &children[i]
		b = le.AppendUint16(le.AppendUint64(b, uint64(c.Group)), uint16(c.First))
		b = appendRange(b, c.Range)
		m, _ := c.Membership.AppendBinary(nil) // never fails
		b = append(le.AppendUint16(b, uint16(len(m))), m...)
	}
	return b
}

// decoder reads a payload front to back; the first thing that is wrong stays.
type decoder struct {
	b    []byte
	what string
	err  error
}

// next cuts off n bytes, which are zeros when something is wrong.
func (d *decoder) next(n int) []byte {
	if d.err == nil && len(d.b) < n {
		d.err = Errorf(CodeCorrupt, "%s is cut short", d.what)
	}
	if d.err != nil {
		return make([]byte, n)
	}
	b := d.b[:n:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) format(known byte) {
	if f := d.u8(); d.err == nil && f > known {
		d.err = Errorf(CodeNewerFormat, "%s of format %d, this program knows %d", d.what, f, known)
	} else if d.err == nil && f == 0 {
		d.err = Errorf(CodeCorrupt, "%s has no format", d.what)
	}
}

func (d *decoder) u8() byte    { return d.next(1)[0] }
func (d *decoder) u16() uint16 { return binary.LittleEndian.Uint16(d.next(2)) }
func (d *decoder) u64() uint64 { return binary.LittleEndian.Uint64(d.next(8)) }

// keyRange reads a range into memory of its own.
func (d *decoder) keyRange() KeyRange {
	return KeyRange{Lo: d.bound(), Hi: d.bound()}
}

func (d *decoder) bound() []byte {
	n := int(d.u16())
	if n > MaxBoundBytes && d.err == nil {
		d.err = Errorf(CodeCorrupt, "%s with a bound of %d bytes, limit %d", d.what, n, MaxBoundBytes)
	}
	if d.err != nil || n == 0 {
		return nil
	}
	return bytes.Clone(d.next(n))
}

func (d *decoder) children() (all []Child) {
	n := int(d.u8())
	if n > MaxChildren && d.err == nil {
		d.err = Errorf(CodeCorrupt, "%s with %d children, limit %d", d.what, n, MaxChildren)
	}
	for range n {
		if d.err != nil {
			return nil
		}
		c := Child{Group: GroupID(d.u64()), First: ReplicaID(d.u16()), Range: d.keyRange(), Membership: new(Membership)}
		b := d.next(int(d.u16()))
		if d.err == nil {
			d.err = c.Membership.UnmarshalBinary(b)
		}
		all = append(all, c)
	}
	return all
}

// end returns what was wrong, or that something is left.
func (d *decoder) end() error {
	if d.err == nil && len(d.b) != 0 {
		return Errorf(CodeCorrupt, "%s has %d bytes too many", d.what, len(d.b))
	}
	return d.err
}
