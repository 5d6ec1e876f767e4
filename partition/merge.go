package partition

import (
	"bytes"
	"fmt"
	"slices"
)

// Merge is a merge under way, as the state of one of its two groups has it: the
// survivor, which keeps its id and gets the keys behind its own, or the source,
// which had them. It stays with the source for ever.
//
// The survivor's log is the only place of the decision: Merging or Abort, whichever
// is in it first. A source that is sealed waits for it, however long that takes.
type Merge struct {
	// Task is the id that the control group knows the merge by.
	Task  uint64
	Phase MergePhase
	// Other is the source of the survivor, and the survivor of the source.
	Other GroupID
	// Range are the source's keys.
	Range KeyRange
	// Version is the group's own range version when the merge began.
	Version RangeVersion
	// Intent is the index of the survivor's record that began the merge: with Task
	// it names the attempt in both groups. At is the index of the group's own record
	// that led to this phase.
	Intent, At Index
}

// MergePhase is how far a merge has got in one of its groups.
type MergePhase uint8

const (
	// Absorbing: the survivor takes the source's rows in, which nobody sees.
	Absorbing MergePhase = 1
	// Merged: the source's keys are the survivor's, for ever.
	Merged MergePhase = 2
	// SourceSealed: nothing of the source changes, and whose its keys will be is
	// open.
	SourceSealed MergePhase = 3
	// Absorbed: the source has no keys any more, for ever.
	Absorbed MergePhase = 4
)

// String returns the name used in stories, logs and commands.
func (p MergePhase) String() string {
	names := [...]string{Absorbing: "absorbing", Merged: "merged", SourceSealed: "source-sealed", Absorbed: "absorbed"}
	if int(p) < len(names) && p != 0 {
		return names[p]
	}
	return fmt.Sprintf("phase(%d)", uint8(p))
}

const (
	// MaxLineage bounds how many absorbed groups a group remembers.
	MaxLineage = 16
	// maxTop bounds indexes that come from another group, so that none overflows.
	maxTop = Index(1) << 62
)

// source reports whether the group is the source of a merge.
func (m *Merge) source() bool { return m != nil && m.Phase >= SourceSealed }

// IsSource reports whether the group is sealed for a merge, or was absorbed: then
// it serves nothing.
func (x *Extent) IsSource() bool { return x.Merge.source() }

// At is an index of the group's log as its partition and its sessions see it: above
// all that the groups which it has absorbed have ever used.
func (x *Extent) At(i Index) Index { return i + x.Lift }

// Descends reports whether the group has taken in all that another had.
func (x *Extent) Descends(g GroupID) bool { return slices.Contains(x.Lineage, g) }

// MergeDecision returns what decides about the merge under way, for the payload of a
// record.
func (x *Extent) MergeDecision() Decision {
	return Decision{Task: x.Merge.Task, Intent: x.Merge.Intent, Version: x.Version}
}

// Outcome is what a survivor has decided about an attempt to absorb a source.
type Outcome uint8

const (
	// Undecided: the decision is to come, or has not been seen here.
	Undecided Outcome = iota
	// Decided: the source's keys are the survivor's.
	Decided
	// GivenUp: they never will be, by this attempt.
	GivenUp
)

// String returns the name used in logs and answers.
func (o Outcome) String() string {
	return [...]string{"undecided", "merged", "given up"}[min(o, GivenUp)]
}

// Outcome says what became of the attempt to absorb source that the record at intent
// has begun in this group, for a task, as of a state that has applied the record at
// index applied. A state that has not seen the intent does not know.
func (x *Extent) Outcome(task uint64, intent Index, source GroupID, applied Index) Outcome {
	m := x.Merge
	switch {
	case x.Descends(source):
		return Decided // by whichever attempt: no group is absorbed twice
	case applied < intent, m != nil && m.Task == task && m.Intent == intent:
		return Undecided
	}
	return GivenUp
}

// nextMerge is Next for the records of a merge.
//
//	survivor         MergeIntent             Merging           Done
//	           (none) ---------> Absorbing ---------> Merged --------> (none)
//	              ^     Abort        |
//	              +------------------+
//	source           SourceSeal                 SourceGone
//	           (none) ---------> SourceSealed ---------> Absorbed
//	              ^   SourceUnseal    |
//	              +-------------------+
func (x Extent) nextMerge(kind Kind, payload []byte, index Index) (Extent, *Error) {
	switch kind {
	case KindMergeIntent:
		return x.intendMerge(payload, index)
	case KindSourceSeal:
		return x.sealSource(payload, index)
	case KindMerging:
		return x.merge(payload, index)
	}
	var d Decision
	if err := d.UnmarshalBinary(payload); err != nil {
		return x, asError(err)
	}
	if err := x.fits(kind, &d); err != nil {
		return x, err
	}
	m := *x.Merge
	switch {
	case kind == KindAbort && m.Phase == Absorbing, kind == KindDone && m.Phase == Merged:
		x.Merge, x.Ended, x.Done = nil, d.Task, m.Phase == Merged
	case kind == KindSourceUnseal && m.Phase == SourceSealed:
		x.Merge, x.Version = nil, x.Version+1
	case kind == KindSourceGone && m.Phase == SourceSealed:
		m.Phase, m.At = Absorbed, index
		x.Merge, x.Version, x.Since = &m, x.Version+1, x.Version+1
	default:
		return x, Errorf(CodeRefused, "%s of task %d, which is %s", kind, d.Task, m.Phase)
	}
	return x, nil
}

// fits refuses a decision that is not about the merge under way.
func (x *Extent) fits(kind Kind, d *Decision) *Error {
	if m := x.Merge; m == nil || m.Task != d.Task || m.Intent != d.Intent {
		return Errorf(CodeRefused, "%s of task %d, begun at %d, which is not under way", kind, d.Task, d.Intent)
	}
	if x.Version != d.Version {
		return Errorf(CodeRefused, "%s of task %d at range version %d, now it is %d", kind, d.Task, d.Version, x.Version)
	}
	return nil
}

// begins refuses what does not begin at what the group serves now, and gives a
// group without an extent what it serves.
func (x *Extent) begins(task uint64, r KeyRange, v RangeVersion) *Error {
	switch {
	case x.Split != nil:
		return Errorf(CodeBusy, "the split of task %d is under way, %s", x.Split.Task, x.Split.Phase)
	case x.Merge != nil:
		return Errorf(CodeBusy, "the merge of task %d is under way, %s", x.Merge.Task, x.Merge.Phase)
	case x.Version != 0 && (v != x.Version || !r.Equal(x.Range)):
		return Errorf(CodeRefused, "task %d is for %s of version %d, the range is %s of version %d", task, r, v, x.Range, x.Version)
	}
	if x.Version == 0 {
		x.Range, x.Version, x.Since = r, v, v
	}
	return nil
}

func (x Extent) intendMerge(payload []byte, index Index) (Extent, *Error) {
	var in MergeIntent
	if err := in.UnmarshalBinary(payload); err != nil {
		return x, asError(err)
	}
	y := x
	if err := y.begins(in.Task, in.Range, in.Version); err != nil {
		return x, err
	}
	y.Merge = &Merge{Task: in.Task, Phase: Absorbing, Other: in.Source, Range: in.SourceRange, Version: y.Version, Intent: index, At: index}
	return y, nil
}

func (x Extent) sealSource(payload []byte, index Index) (Extent, *Error) {
	var s SourceSeal
	if err := s.UnmarshalBinary(payload); err != nil {
		return x, asError(err)
	}
	y := x
	if err := y.begins(s.Task, s.Range, s.Version); err != nil {
		return x, err
	}
	y.Merge = &Merge{Task: s.Task, Phase: SourceSealed, Other: s.Survivor, Range: s.Range, Version: y.Version, Intent: s.Intent, At: index}
	y.Version++
	return y, nil
}

// merge gives the survivor the source's keys.
func (x Extent) merge(payload []byte, index Index) (Extent, *Error) {
	var d Merging
	if err := d.UnmarshalBinary(payload); err != nil {
		return x, asError(err)
	}
	if err := x.fits(KindMerging, &d.Decision); err != nil {
		return x, err
	}
	if x.Merge.Phase != Absorbing {
		return x, Errorf(CodeRefused, "%s of task %d, which is %s", KindMerging, d.Task, x.Merge.Phase)
	}
	m := *x.Merge
	m.Phase, m.At = Merged, index
	x.Lineage = lineage(x.Lineage, d.Lineage, m.Other)
	x.Merge, x.Range = &m, KeyRange{Lo: x.Range.Lo, Hi: m.Range.Hi}
	x.Version = max(x.Version, d.SourceVersion) + 1
	x.Since = x.Version
	if d.Top > x.At(index) {
		x.Lift = d.Top - index
	}
	return x, nil
}

// lineage is what a survivor remembers: the groups that it has absorbed, those that
// the source had, and the source, the newest ones last.
func lineage(own, sources []GroupID, source GroupID) []GroupID {
	all := append(slices.Clone(own), sources...)
	all = append(all, source)
	return all[max(0, len(all)-MaxLineage):]
}

// validate refuses what no record has led to.
func (m *Merge) validate(x *Extent) error {
	bad := func(why string) error {
		return Errorf(CodeCorrupt, "a merge that is %s at %d, begun at %d: %s", m.Phase, m.At, m.Intent, why)
	}
	changes := map[MergePhase]RangeVersion{SourceSealed: 1, Absorbed: 2}[m.Phase]
	switch {
	case m.Phase == 0 || m.Phase > Absorbed:
		return bad("no such phase")
	case m.Task == 0 || m.Other == 0 || m.Intent == 0 || m.Version == 0 || m.At <= x.Base || m.Range.Empty():
		return bad("something is missing")
	case max(len(m.Range.Lo), len(m.Range.Hi)) > MaxBoundBytes:
		return bad("too long a bound")
	case m.Phase != Merged && x.Version != m.Version+changes:
		return bad("another number of changes")
	case m.source() && !m.Range.Equal(x.Range):
		return bad("other keys than the group's")
	case m.Phase == Absorbing && (m.At != m.Intent || !adjacent(x.Range, m.Range)):
		return bad("the keys are not next to the group's")
	case m.Phase == Merged && (m.At <= m.Intent || x.Version <= m.Version || x.Since != x.Version || !x.Descends(m.Other) ||
		!bytes.Equal(x.Range.Hi, m.Range.Hi) || bytes.Compare(x.Range.Lo, m.Range.Lo) >= 0):
		return bad("the keys are not the group's last")
	case m.Phase == Absorbed && x.Since != x.Version:
		return bad("it still takes requests")
	}
	return nil
}

// adjacent reports whether right begins where left ends.
func adjacent(left, right KeyRange) bool {
	return len(left.Hi) > 0 && bytes.Equal(left.Hi, right.Lo)
}

// Describe says in words what a merge under way means for the keys.
func (m *Merge) Describe() string {
	switch m.Phase {
	case Absorbing:
		return fmt.Sprintf("task %d takes %s of %s in; until that is decided %s serves them", m.Task, m.Range, m.Other, m.Other)
	case Merged:
		return fmt.Sprintf("task %d has taken %s of %s in; %s has to learn of it yet", m.Task, m.Range, m.Other, m.Other)
	case SourceSealed:
		return fmt.Sprintf("task %d holds them until %s has decided whether it takes them", m.Task, m.Other)
	}
	return fmt.Sprintf("they are %s's since task %d", m.Other, m.Task)
}
