package split

import (
	"fmt"
	"time"

	"pando.dev/pando/partition"
)

// MergeTask is a merge that the control group has open for its survivor.
type MergeTask struct {
	ID uint64
	// Version is the survivor's range version that the merge was planned for.
	Version partition.RangeVersion
	// Source is the group that is absorbed, and Range what it serves.
	Source   partition.GroupID
	Range    partition.KeyRange
	Deadline partition.Time // as in Task
	Cancel   string
	// Activated: the catalog leads to the survivor for the source's keys.
	Activated bool
}

// Source is what the source's master has said of its group last.
type Source struct {
	// Extent is what the master, serving, has applied last.
	Extent partition.Extent
	// Top is the greatest index that its partition or its sessions have seen.
	Top partition.Index
	// Bytes are about what its keys take, and Busy says what else is being done to it.
	Bytes int64
	Busy  string
}

// Copy is how far this master has got with taking the source's rows in.
type Copy struct {
	// Looked: all rows were compared and what was not there is in the log and applied.
	Looked bool
	// Sealed: that was so of the rows as they are since the source was sealed for this
	// attempt, so they are the last.
	Sealed bool
	// Refused says why they cannot be taken in: they are too many.
	Refused string
}

// MergeSituation is everything that a step of a merge is decided from, in either of
// its groups. NextMerge changes nothing of it.
type MergeSituation struct {
	// As in Situation.
	Group      partition.GroupID
	Self       partition.ReplicaID
	Now        partition.Time
	Serving    bool
	Since      partition.Time
	Extent     partition.Extent
	Range      partition.KeyRange
	Version    partition.RangeVersion
	Membership *partition.Membership
	Pending    bool
	Busy       string
	Peers      []Peer
	Proposed   partition.Kind
	Telling    bool
	Gone, Told bool
	Aborted    string
	Held       bool
	HeldSince  partition.Time
	NotBefore  partition.Time
	// Failed is why the last step was not taken.
	Failed string

	// Of the survivor. Task is its open merge. Source is nil as long as the source's
	// master has not answered this one; Left: the catalog has no such group any more.
	// Sealing is when this master has asked for the seal, or seen it, first, and Decided
	// when it has seen the decision first; 0: not yet. Found: the merge was under way
	// when this mastership began, and no look has shown since that the source is not
	// sealed, so it may have been since before Since.
	Task    *MergeTask
	Source  *Source
	Left    bool
	Copy    Copy
	Sealing partition.Time
	Found   bool
	Decided partition.Time

	// Of the source. Wanted is the seal that the survivor's master has asked for just
	// now, nil without one. Outcome is what a replica of the survivor has applied about
	// the attempt that this group is sealed for.
	Wanted  *partition.SourceSeal
	Outcome partition.Outcome

	Limits MergeLimits
}

// MergeBytes is how much a source may have unless the limits say otherwise.
const MergeBytes = 64 << 20

// MergeLimits are the bounds of NextMerge. Zero fields have the defaults.
type MergeLimits struct {
	// Seal is how long a source may be sealed or about to be without a decision
	// (default 2 s): its keys are neither read nor written so long.
	Seal time.Duration
	// Hold is how long a source is held before it is sealed (default 200 ms).
	Hold time.Duration
	// Bytes is how much a source may have (default MergeBytes): all of it goes through
	// the survivor's log.
	Bytes int64
	// Learn is how long a source is waited for that has to learn of the decision
	// (default 1 min). One that is lost for good never does; nor does it matter, for
	// the survivor remembers and the catalog has no such group any more.
	Learn time.Duration
	// Orphan and Look are as in Limits.
	Orphan, Look time.Duration
}

func (l MergeLimits) withDefaults() MergeLimits {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&l.Seal, 2*time.Second)
	def(&l.Hold, 200*time.Millisecond)
	def(&l.Learn, time.Minute)
	def(&l.Orphan, time.Minute)
	def(&l.Look, 20*time.Millisecond)
	if l.Bytes <= 0 {
		l.Bytes = MergeBytes
	}
	return l
}

// SealEnd returns when a source that is sealed, may be or is about to be was so for long
// enough; false: it is not.
func (s *MergeSituation) SealEnd() (partition.Time, bool) {
	since, limit := s.Sealing, s.Limits.withDefaults().Seal
	if s.Found {
		since = s.Since
	}
	return since + limit, since != 0
}

// NextMerge returns the one next step of a merge that a group is the survivor or the
// source of. It is level-triggered, as Next is.
func NextMerge(s MergeSituation) Step {
	s.Limits = s.Limits.withDefaults()
	d := merging{s: &s}
	switch m := s.Extent.Merge; {
	case !s.Serving:
		return d.idle("this replica is not the master")
	case s.Proposed != 0:
		return d.wait("the %s record is on its way through the log", s.Proposed)
	case m == nil && s.Wanted != nil:
		return d.seal()
	case m == nil:
		return d.begin()
	case m.Phase == partition.Absorbing:
		return d.absorbing()
	case m.Phase == partition.Merged:
		return d.merged()
	case m.Phase == partition.SourceSealed:
		return d.sealed()
	}
	return d.idle("the keys are the survivor's")
}

// merging is one call of NextMerge.
type merging struct{ s *MergeSituation }

func (d *merging) wait(format string, args ...any) Step {
	return Step{Kind: Wait, Why: fmt.Sprintf(format, args...)}
}

// ask has the other group's master asked, once per look.
func (d *merging) ask(format string, args ...any) Step {
	return Step{Kind: Ask, Why: fmt.Sprintf(format, args...), Again: d.s.Now + d.s.Limits.Look}
}

func (d *merging) idle(why string) Step {
	if d.s.Held {
		return Step{Kind: Release, Why: why}
	}
	return Step{Kind: Nothing}
}

func (d *merging) paused() (Step, bool) {
	if d.s.Now >= d.s.NotBefore {
		return Step{}, false
	}
	why := "a pause before the next try"
	if d.s.Failed != "" {
		why += ": " + d.s.Failed
	}
	return Step{Kind: Wait, Why: why, Again: d.s.NotBefore}, true
}

// propose puts a record into the log, but not again at once one that was refused.
func (d *merging) propose(k partition.Kind, x interface {
	AppendBinary(b []byte) ([]byte, error)
}, why string) Step {
	if w, ok := d.paused(); ok {
		return w
	}
	b, err := x.AppendBinary(nil)
	if err != nil {
		return d.wait("%v", err)
	}
	return Step{Kind: Propose, Record: k, Payload: b, Why: why}
}

func (d *merging) decide(k partition.Kind, why string) Step {
	return d.propose(k, d.s.Extent.MergeDecision(), why)
}

// known: the task of the extent's merge is known here.
func (d *merging) known() bool {
	m := d.s.Extent.Merge
	return d.s.Task != nil && (m == nil || d.s.Task.ID == m.Task)
}

// givenUp says why the merge is to be given up, or nothing.
func (d *merging) givenUp() string {
	s := d.s
	switch {
	case d.known() && s.Task.Cancel != "":
		return s.Task.Cancel
	case d.known() && s.Task.Deadline != 0 && s.Now >= s.Task.Deadline:
		return "its deadline has passed"
	case s.Gone:
		return "the control group has no such task open"
	case s.Extent.Merge != nil && !d.known() && s.Now >= s.Since+s.Limits.Orphan:
		return fmt.Sprintf("nobody has told anything of task %d for %s", s.Extent.Merge.Task, s.Limits.Orphan)
	case s.Left:
		return "there is no such partition any more"
	}
	return ""
}

// begin is a group without a merge under way.
func (d *merging) begin() Step {
	s := d.s
	if s.Held || s.Task == nil {
		return d.idle("no merge is under way")
	}
	t, x := s.Task, &s.Extent
	version, keys := x.Version, x.Range
	if version == 0 {
		version, keys = s.Version, s.Range
	}
	switch why := d.givenUp(); {
	case x.Ended == t.ID && x.Done:
		return d.end(true, "the partition serves what was absorbed")
	case x.Ended == t.ID && s.Aborted != "":
		return d.end(false, s.Aborted)
	case x.Ended == t.ID && why == "":
		return d.end(false, "it was given up before it was decided")
	case why != "":
		return d.end(false, why)
	case t.Version != version:
		return d.end(false, fmt.Sprintf("it was planned for range version %d, now it is %d", t.Version, version))
	}
	if w, ok := d.occupied(); ok {
		return w
	}
	if s.Source == nil {
		return d.ask("the master of %s has not answered yet", t.Source)
	}
	if why := d.unfit(); why != "" {
		return d.end(false, why)
	}
	if why := d.missing(); why != "" {
		return Step{Kind: Wait, Why: why, Again: s.Now + s.Limits.Look}
	}
	in := &partition.MergeIntent{Task: t.ID, Range: keys, Version: version, Source: t.Source, SourceRange: t.Range}
	if err := in.Validate(); err != nil {
		return d.end(false, err.Error())
	}
	return d.propose(partition.KindMergeIntent, in, "the merge begins")
}

// unfit says why the source cannot be absorbed.
func (d *merging) unfit() string {
	t, x := d.s.Task, d.s.Source
	switch {
	case x.Extent.Version != 0 && !x.Extent.Range.Equal(t.Range):
		return fmt.Sprintf("%s had %.80s when it was planned, now it has %.80s", t.Source, t.Range, x.Extent.Range)
	case x.Busy != "":
		return fmt.Sprintf("%s: %s", t.Source, x.Busy)
	case x.Bytes > d.s.Limits.Bytes:
		return fmt.Sprintf("%s has %d bytes, which all go through the log; the limit is %d", t.Source, x.Bytes, d.s.Limits.Bytes)
	}
	return ""
}

// missing names the members that are not there: while the source is sealed nobody
// else can decide.
func (d *merging) missing() string {
	for _, m := range d.s.Membership.Members {
		up := false
		for _, p := range d.s.Peers {
			up = up || p.Replica == m.Replica && p.Up
		}
		if !up {
			return fmt.Sprintf("the replica on %s does not answer, and none is to be missing when a merge begins", m.Node)
		}
	}
	return ""
}

// occupied waits until the group's structure may be changed.
func (d *merging) occupied() (Step, bool) {
	switch s := d.s; {
	case s.Extent.Split != nil:
		return d.wait("the split of task %d is under way", s.Extent.Split.Task), true
	case s.Pending:
		return d.wait("a change of the members is not committed yet"), true
	case s.Busy != "":
		return d.wait("%s", s.Busy), true
	}
	return d.paused()
}

// absorbing takes the source's rows in, has it sealed, takes in what has changed
// since, and decides.
func (d *merging) absorbing() Step {
	s := d.s
	m, why := s.Extent.Merge, d.givenUp()
	if why == "" {
		why = s.Copy.Refused
	}
	if end, ok := s.SealEnd(); why == "" && ok && s.Now >= end {
		why = fmt.Sprintf("%s was held for %s", m.Other, s.Limits.Seal)
	}
	if why != "" {
		return d.decide(partition.KindAbort, why)
	}
	if !d.known() {
		w := d.wait("the control group has not said anything of task %d yet", m.Task)
		w.Again = s.Since + s.Limits.Orphan
		return w
	}
	if w, ok := d.paused(); ok {
		return d.inTime(w)
	}
	sealed := d.sourceSealed()
	switch {
	case s.Source == nil:
		return d.inTime(d.ask("the master of %s has not answered yet", m.Other))
	case !sealed && !s.Copy.Looked:
		return Step{Kind: TakeIn, Why: fmt.Sprintf("what %s has is taken in while it serves", m.Other)}
	case !sealed:
		return d.inTime(Step{Kind: Seal, Why: fmt.Sprintf("%s has been taken in; nothing of it is to change any more", m.Other), Again: s.Now + s.Limits.Look})
	case !s.Copy.Sealed:
		return Step{Kind: TakeIn, Why: fmt.Sprintf("what has changed in %s until it was sealed is taken in", m.Other), Sealed: true}
	}
	x := &s.Source.Extent
	return d.propose(partition.KindMerging, &partition.Merging{
		Decision: s.Extent.MergeDecision(), SourceVersion: x.Version, Top: s.Source.Top, Lineage: x.Lineage,
	}, fmt.Sprintf("all of %s has been taken in", m.Other))
}

// sourceSealed reports whether the source's master has said that it is sealed for
// this attempt, and for what is to be taken in.
func (d *merging) sourceSealed() bool {
	m, x := d.s.Extent.Merge, d.s.Source
	if x == nil || x.Extent.Merge == nil {
		return false
	}
	o := x.Extent.Merge
	return o.Phase == partition.SourceSealed && o.Task == m.Task && o.Intent == m.Intent && o.Other == d.s.Group && o.Range.Equal(m.Range)
}

// inTime asks again when the merge is given up, at the latest. Its task is known.
func (d *merging) inTime(w Step) Step {
	if end, ok := d.s.SealEnd(); ok && (w.Again == 0 || w.Again > end) {
		w.Again = end
	}
	if t := d.s.Task; t.Deadline != 0 && (w.Again == 0 || w.Again > t.Deadline) {
		w.Again = t.Deadline
	}
	return w
}

// merged is a merge that is decided: the source learns of it, then the catalog, then
// the survivor forgets.
func (d *merging) merged() Step {
	s := d.s
	m := s.Extent.Merge
	switch {
	case s.Told || d.known() && s.Task.Activated:
	case !d.known() && !s.Gone:
		return d.wait("the control group has not said anything of task %d yet", m.Task)
	default: // also if the task is closed: who closed it did not know
		return d.tell(Report{Phase: partition.Activated, Version: s.Extent.Version, Range: s.Extent.Range}, fmt.Sprintf("the catalog has to lead here for the keys of %s", m.Other))
	}
	if w, ok := d.paused(); ok {
		return w
	}
	if s.Decided != 0 && s.Now >= s.Decided+s.Limits.Learn {
		return d.decide(partition.KindDone, fmt.Sprintf("%s has not learned for %s that its keys are here", m.Other, s.Limits.Learn))
	}
	if o := s.Source; !s.Left && (o == nil || o.Extent.Merge == nil || o.Extent.Merge.Phase != partition.Absorbed) {
		return d.ask("%s has not learned yet that its keys are here", m.Other)
	}
	return d.decide(partition.KindDone, fmt.Sprintf("%s knows that its keys are here", m.Other))
}

// end closes the task.
func (d *merging) end(done bool, why string) Step {
	return d.tell(Report{Ended: true, Done: done, Version: d.s.Extent.Version, Range: d.s.Extent.Range, Why: why}, why)
}

func (d *merging) tell(r Report, why string) Step {
	if d.s.Telling {
		return d.wait("the control group has not answered yet: %s", why)
	}
	if w, ok := d.paused(); ok {
		return w
	}
	if r.Task = d.s.Extent.Ended; d.s.Extent.Merge != nil {
		r.Task = d.s.Extent.Merge.Task
	} else if d.s.Task != nil {
		r.Task = d.s.Task.ID
	}
	return Step{Kind: Tell, Report: r, Why: why}
}

// seal is a source whose survivor wants it sealed. It is held first, so that nobody
// is refused who could wait.
func (d *merging) seal() Step {
	s := d.s
	if w, ok := d.occupied(); ok {
		if s.Held {
			return Step{Kind: Release, Why: w.Why}
		}
		return w
	}
	if !s.Held {
		return Step{Kind: Hold, Why: fmt.Sprintf("%s is about to take the keys", s.Wanted.Survivor)}
	}
	if s.Now >= s.HeldSince+s.Limits.Hold {
		return Step{Kind: Release, Why: fmt.Sprintf("the keys were held for %s", s.Limits.Hold)}
	}
	return d.propose(partition.KindSourceSeal, s.Wanted, "the survivor has asked for it")
}

// sealed is a source that waits for its survivor's decision, however long that takes:
// whether the keys are its own still, only the survivor's log says.
func (d *merging) sealed() Step {
	s := d.s
	if !s.Held {
		return Step{Kind: Hold, Why: "the keys are sealed"}
	}
	switch m := s.Extent.Merge; s.Outcome {
	case partition.Decided:
		return d.decide(partition.KindSourceGone, fmt.Sprintf("%s has the keys", m.Other))
	case partition.GivenUp:
		return d.decide(partition.KindSourceUnseal, fmt.Sprintf("%s has given the merge up", m.Other))
	default:
		if w, ok := d.paused(); ok {
			return w
		}
		return d.ask("%s has not decided yet, as far as is known", m.Other)
	}
}
