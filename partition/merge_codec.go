package partition

import (
	"bytes"
	"encoding/binary"
)

// MergeIntent is the payload of a KindMergeIntent record of the survivor.
type MergeIntent struct {
	Task uint64
	// Range and Version are what the survivor serves now; see Intent.
	Range   KeyRange
	Version RangeVersion
	// Source is the group that is absorbed, and SourceRange what it serves: the keys
	// behind Range.
	Source      GroupID
	SourceRange KeyRange
}

// SourceSeal is the payload of a KindSourceSeal record of the source.
type SourceSeal struct {
	Task uint64
	// Range and Version are what the source serves now; see Intent.
	Range   KeyRange
	Version RangeVersion
	// Survivor is the group that decides, and Intent the index of its MergeIntent.
	Survivor GroupID
	Intent   Index
}

// Absorb is the payload of a KindAbsorb record of the survivor: the rows that the
// source's state has from Lo on, before Hi, are these. The bounds and the keys are
// of the state's divided space.
type Absorb struct {
	Decision
	Rows KeyRange
	// Pairs are in the order of their keys.
	Pairs []Pair
}

// Merging is the payload of a KindMerging record of the survivor.
type Merging struct {
	Decision
	// SourceVersion is the source's range version since it was sealed, and Top the
	// greatest index that its partition or its sessions have seen.
	SourceVersion RangeVersion
	Top           Index
	// Lineage are the groups that the source has absorbed.
	Lineage []GroupID
}

const (
	mergeIntentFormat = 1
	sourceSealFormat  = 1
	absorbFormat      = 1
	mergingFormat     = 1
)

// Validate refuses what cannot be done to any group.
func (in *MergeIntent) Validate() error {
	switch {
	case in.Task == 0 || in.Version == 0 || in.Source == 0:
		return Errorf(CodeInvalid, "a merge of task %d at range version %d with %s", in.Task, in.Version, in.Source)
	case in.Range.Empty() || in.SourceRange.Empty() || !adjacent(in.Range, in.SourceRange):
		return Errorf(CodeInvalid, "a merge of %.80s and %.80s, which are no neighbours", in.Range, in.SourceRange)
	case max(len(in.Range.Lo), len(in.Range.Hi), len(in.SourceRange.Hi)) > MaxBoundBytes:
		return Errorf(CodeInvalid, "a merge with a bound over the limit of %d bytes", MaxBoundBytes)
	}
	return nil
}

// AppendBinary encodes the intent as the payload of a record. The encoding is
// canonical:
//
//	format u8 | task u64 | version u64 | source u64 | range | source's range
func (in *MergeIntent) AppendBinary(b []byte) ([]byte, error) {
	if err := in.Validate(); err != nil {
		return nil, err
	}
	b = appendU64s(append(b, mergeIntentFormat), in.Task, uint64(in.Version), uint64(in.Source))
	return appendRange(appendRange(b, in.Range), in.SourceRange), nil
}

// UnmarshalBinary decodes and validates an intent from untrusted bytes.
func (in *MergeIntent) UnmarshalBinary(b []byte) error {
	d := decoder{b: b, what: "merge intent"}
	d.format(mergeIntentFormat)
	x := MergeIntent{Task: d.u64(), Version: RangeVersion(d.u64()), Source: GroupID(d.u64()), Range: d.keyRange(), SourceRange: d.keyRange()}
	if err := d.end(); err != nil {
		return err
	}
	if err := x.Validate(); err != nil {
		return err
	}
	*in = x
	return nil
}

// Validate refuses what cannot be done to any group.
func (s *SourceSeal) Validate() error {
	switch {
	case s.Task == 0 || s.Version == 0 || s.Survivor == 0 || s.Intent == 0:
		return Errorf(CodeInvalid, "a seal of task %d at range version %d for %s, begun at %d", s.Task, s.Version, s.Survivor, s.Intent)
	case s.Range.Empty() || max(len(s.Range.Lo), len(s.Range.Hi)) > MaxBoundBytes:
		return Errorf(CodeInvalid, "a seal of %.80s", s.Range)
	}
	return nil
}

// AppendBinary encodes the seal as the payload of a record. The encoding is
// canonical:
//
//	format u8 | task u64 | version u64 | survivor u64 | intent u64 | range
func (s *SourceSeal) AppendBinary(b []byte) ([]byte, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	b = appendU64s(append(b, sourceSealFormat), s.Task, uint64(s.Version), uint64(s.Survivor), uint64(s.Intent))
	return appendRange(b, s.Range), nil
}

// UnmarshalBinary decodes and validates a seal from untrusted bytes.
func (s *SourceSeal) UnmarshalBinary(b []byte) error {
	d := decoder{b: b, what: "source seal"}
	d.format(sourceSealFormat)
	x := SourceSeal{Task: d.u64(), Version: RangeVersion(d.u64()), Survivor: GroupID(d.u64()), Intent: Index(d.u64()), Range: d.keyRange()}
	if err := d.end(); err != nil {
		return err
	}
	if err := x.Validate(); err != nil {
		return err
	}
	*s = x
	return nil
}

// AppendBinary encodes rows as the payload of a record. The encoding is canonical:
//
//	format u8 | decision | rows | pairs to the end
//	rows: length u32 | lo | length u32 | hi
//	pair: length u32 | key | length u32 | value
func (a *Absorb) AppendBinary(b []byte) ([]byte, error) {
	if err := a.validate(); err != nil {
		return nil, err
	}
	b = a.Decision.append(append(b, absorbFormat))
	b = appendBlob(appendBlob(b, a.Rows.Lo), a.Rows.Hi)
	for _, p := range a.Pairs {
		b = appendBlob(appendBlob(b, p.Key), p.Value)
	}
	return b, nil
}

// UnmarshalBinary decodes and validates rows from untrusted bytes, which they alias.
func (a *Absorb) UnmarshalBinary(b []byte) error {
	d := decoder{b: b, what: "absorbed rows"}
	d.format(absorbFormat)
	x := Absorb{Decision: d.decision(), Rows: KeyRange{Lo: d.blob(), Hi: d.blob()}}
	for d.err == nil && len(d.b) > 0 {
		x.Pairs = append(x.Pairs, Pair{Key: d.blob(), Value: d.blob()})
	}
	if err := d.end(); err != nil {
		return err
	}
	if err := x.validate(); err != nil {
		return err
	}
	*a = x
	return nil
}

func (a *Absorb) validate() error {
	if a.Rows.Empty() || len(a.Rows.Lo) == 0 || len(a.Rows.Hi) == 0 {
		return Errorf(CodeInvalid, "rows of %.80s", a.Rows)
	}
	for i, p := range a.Pairs {
		if !a.Rows.Contains(p.Key) || i > 0 && bytes.Compare(a.Pairs[i-1].Key, p.Key) >= 0 {
			return Errorf(CodeInvalid, "row %.80x of %.80s is not in its place", p.Key, a.Rows)
		}
	}
	return nil
}

// AppendBinary encodes the decision as the payload of a record. The encoding is
// canonical:
//
//	format u8 | decision | source version u64 | top u64 | count u8 | groups u64
func (d *Merging) AppendBinary(b []byte) ([]byte, error) {
	if err := d.validate(); err != nil {
		return nil, err
	}
	b = d.Decision.append(append(b, mergingFormat))
	b = appendU64s(b, uint64(d.SourceVersion), uint64(d.Top))
	return appendGroups(b, d.Lineage), nil
}

// UnmarshalBinary decodes and validates a decision from untrusted bytes.
func (d *Merging) UnmarshalBinary(b []byte) error {
	in := decoder{b: b, what: "merging"}
	in.format(mergingFormat)
	x := Merging{Decision: in.decision(), SourceVersion: RangeVersion(in.u64()), Top: Index(in.u64()), Lineage: in.groups()}
	if err := in.end(); err != nil {
		return err
	}
	if err := x.validate(); err != nil {
		return err
	}
	*d = x
	return nil
}

func (d *Merging) validate() error {
	if d.SourceVersion == 0 || d.Top == 0 || d.Top > maxTop || len(d.Lineage) > MaxLineage {
		return Errorf(CodeInvalid, "a merge with a source at range version %d, index %d, of %d groups", d.SourceVersion, d.Top, len(d.Lineage))
	}
	return nil
}

// append encodes the decision within another payload.
func (x *Decision) append(b []byte) []byte {
	return appendU64s(b, x.Task, uint64(x.Intent), uint64(x.Version))
}

func (d *decoder) decision() Decision {
	return Decision{Task: d.u64(), Intent: Index(d.u64()), Version: RangeVersion(d.u64())}
}

// appendMerged encodes what an extent of format 2 has behind that of format 1:
//
//	lift u64 | count u8 | groups u64 | phase u8
//	and if the phase is not 0: task u64 | version u64 | intent u64 | at u64 | other u64 | range
func (x *Extent) appendMerged(b []byte) []byte {
	b = appendGroups(appendU64s(b, uint64(x.Lift)), x.Lineage)
	m := x.Merge
	if m == nil {
		return append(b, 0)
	}
	b = appendU64s(append(b, byte(m.Phase)), m.Task, uint64(m.Version), uint64(m.Intent), uint64(m.At), uint64(m.Other))
	return appendRange(b, m.Range)
}

// merged decodes it.
func (d *decoder) merged(x *Extent) {
	x.Lift, x.Lineage = Index(d.u64()), d.groups()
	if phase := MergePhase(d.u8()); phase != 0 {
		x.Merge = &Merge{
			Phase: phase, Task: d.u64(), Version: RangeVersion(d.u64()), Intent: Index(d.u64()), At: Index(d.u64()), Other: GroupID(d.u64()), Range: d.keyRange(),
		}
	}
	if d.err == nil && !x.plain() {
		return
	}
	if d.err == nil {
		d.err = Errorf(CodeCorrupt, "an extent of format 2 of which nothing was merged")
	}
}

// plain reports whether format 1 says all of the extent.
func (x *Extent) plain() bool { return x.Lift == 0 && len(x.Lineage) == 0 && x.Merge == nil }

func appendU64s(b []byte, all ...uint64) []byte {
	for _, n := range all {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	return b
}

func appendGroups(b []byte, all []GroupID) []byte {
	b = append(b, byte(len(all)))
	for _, g := range all {
		b = binary.LittleEndian.AppendUint64(b, uint64(g))
	}
	return b
}

func (d *decoder) groups() (all []GroupID) {
	n := int(d.u8())
	if n > MaxLineage && d.err == nil {
		d.err = Errorf(CodeCorrupt, "%s with %d absorbed groups, limit %d", d.what, n, MaxLineage)
	}
	for range n {
		g := GroupID(d.u64())
		if d.err == nil && g == 0 {
			d.err = Errorf(CodeCorrupt, "%s with no group", d.what)
		}
		if d.err != nil {
			return nil
		}
		all = append(all, g)
	}
	return all
}

func appendBlob(b, x []byte) []byte {
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(x))), x...)
}

// blob is a part of the payload itself.
func (d *decoder) blob() []byte {
	n := int(binary.LittleEndian.Uint32(d.next(4)))
	if d.err == nil && n > len(d.b) {
		d.err = Errorf(CodeCorrupt, "%s is cut short", d.what)
	}
	if d.err != nil {
		return nil
	}
	return d.next(n)
}
