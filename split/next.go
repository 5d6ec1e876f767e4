package split

import (
	"fmt"
	"slices"
	"strings"

	"pando.dev/pando/partition"
)

// Next returns the one next step of a group's split. It is level-triggered: it
// goes by what is, not by what has happened, so it can be asked at any time and as
// often as one likes.
func Next(s Situation) Step {
	s.Limits = s.Limits.withDefaults()
	d := decision{s: &s}
	switch {
	case !s.Serving:
		return d.idle("this replica is not the master")
	case s.Proposed != 0:
		return d.wait("the %s record is on its way through the log", s.Proposed)
	case s.Extent.Split == nil:
		return d.begin()
	}
	switch s.Extent.Split.Phase {
	case partition.Intended:
		return d.intended()
	case partition.Sealed:
		return d.sealed()
	}
	return d.activated()
}

// decision is one call of Next.
type decision struct{ s *Situation }

func (d *decision) wait(format string, args ...any) Step {
	return Step{Kind: Wait, Why: fmt.Sprintf(format, args...)}
}

// waitFor waits for members, and asks again soon.
func (d *decision) waitFor(why string) Step {
	return Step{Kind: Wait, Why: why, Again: d.s.Now + d.s.Limits.Look}
}

// idle does nothing, and holds nothing.
func (d *decision) idle(why string) Step {
	if d.s.Held {
		return Step{Kind: Release, Why: why}
	}
	return Step{Kind: Nothing}
}

// decide proposes a decision about the split under way, but not again at once one
// that was refused.
func (d *decision) decide(k partition.Kind, why string) Step {
	if w, ok := d.paused(); ok {
		return w
	}
	b, _ := d.s.Extent.Decision().AppendBinary(nil) // never fails
	return Step{Kind: Propose, Record: k, Payload: b, Why: why}
}

// paused waits until what failed may be tried again.
func (d *decision) paused() (Step, bool) {
	if d.s.Now >= d.s.NotBefore {
		return Step{}, false
	}
	return Step{Kind: Wait, Why: "a pause before the next try", Again: d.s.NotBefore}, true
}

// givenUp says why the split is to be given up, or nothing.
func (d *decision) givenUp() string {
	s := d.s
	t := s.Task
	if s.Extent.Split != nil && d.foreign() {
		t = nil
	}
	switch {
	case t != nil && t.Cancel != "":
		return t.Cancel
	case t != nil && t.Deadline != 0 && s.Now >= t.Deadline:
		return "its deadline has passed"
	case s.Gone:
		return "the control group has no such task open"
	}
	return ""
}

// intended is a split of which nothing is sealed.
func (d *decision) intended() Step {
	s := d.s
	split := s.Extent.Split
	why := d.givenUp()
	if n := s.Extent.Unseals(); why == "" && n >= s.Limits.Tries {
		why = fmt.Sprintf("it was sealed %d times and its members were never ready in time", n)
	}
	if why == "" && d.foreign() && s.Now >= s.Since+s.Limits.Orphan {
		why = fmt.Sprintf("nobody has told anything of task %d for %s", split.Task, s.Limits.Orphan)
	}
	if why != "" {
		return d.freely(func() Step { return d.decide(partition.KindAbort, why) })
	}
	if d.foreign() {
		return d.freely(func() Step {
			w := d.wait("the control group has not said anything of task %d yet", split.Task)
			w.Again = s.Since + s.Limits.Orphan
			return w
		})
	}
	if w, ok := d.paused(); ok {
		return d.freely(func() Step { return d.until(w) })
	}
	if why := d.lacking("have made ready what they can", func(p Peer) bool { return p.Prepared }); why != "" {
		return d.freely(func() Step { return d.until(Step{Kind: Prepare, Why: why, Again: s.Now + s.Limits.Look}) })
	}
	if why := d.unready(); why != "" {
		return d.freely(func() Step { return d.until(d.waitFor(why)) })
	}
	if !s.Held {
		return Step{Kind: Hold, Why: "every child's members are ready"}
	}
	if s.Now >= s.HeldSince+s.Limits.Hold { // an unsealed split, or a seal that was not taken
		return Step{Kind: Release, Why: fmt.Sprintf("the leaving ranges were held for %s", s.Limits.Hold)}
	}
	return d.decide(partition.KindSeal, "the leaving ranges are held")
}

// freely does something while nothing is held: what was held is released first.
func (d *decision) freely(next func() Step) Step {
	step := next()
	if d.s.Held {
		return Step{Kind: Release, Why: "nothing is sealed: " + step.Why}
	}
	return step
}

// until asks again at the task's deadline at the latest.
func (d *decision) until(w Step) Step {
	if t := d.s.Task; t != nil && t.Deadline != 0 && (w.Again == 0 || w.Again > t.Deadline) {
		w.Again = t.Deadline
	}
	return w
}

// foreign: the task of the extent's split is not known here.
func (d *decision) foreign() bool {
	return d.s.Task == nil || d.s.Task.ID != d.s.Extent.Split.Task
}

// sealed is a split that waits for its decision.
func (d *decision) sealed() Step {
	s := d.s
	if !s.Held {
		return Step{Kind: Hold, Why: "the leaving ranges are sealed"}
	}
	if why := d.givenUp(); why != "" {
		return d.decide(partition.KindUnseal, why)
	}
	missing := d.unconfirmed()
	if missing == "" {
		return d.decide(partition.KindActivate, "every child's members hold the log through the seal")
	}
	if end := s.HeldSince + s.Limits.Hold; s.Now < end {
		return Step{Kind: Wait, Why: missing, Again: end}
	}
	return d.decide(partition.KindUnseal, fmt.Sprintf("after %s %s", s.Limits.Hold, missing))
}

// unconfirmed says which child lacks members that have the seal on disk.
func (d *decision) unconfirmed() string {
	seal := d.s.Extent.Split.At
	return d.lacking(fmt.Sprintf("hold the log through record %d", seal), func(p Peer) bool { return p.Match >= seal })
}

// unready says which child lacks members that would hold a seal within the time
// that a range may be held.
func (d *decision) unready() string {
	l, now := d.s.Limits, d.s.Now
	return d.lacking("are up, prepared and close behind", func(p Peer) bool {
		return p.Up && p.State && p.Prepared && (p.Lag == 0 || p.Lag < l.Lag && now-p.Heard < l.Silence)
	})
}

// lacking names the children without a durable set of members of which ok holds.
func (d *decision) lacking(what string, ok func(Peer) bool) string {
	var parts []string
	for i := range d.s.Extent.Split.Children {
		c := &d.s.Extent.Split.Children[i]
		var missing []string
		is := func(r partition.ReplicaID) bool { p, found := d.peer(r); return found && ok(p) }
		if c.Membership.Durable(is) {
			continue
		}
		for _, m := range c.Membership.Members {
			if !is(m.Replica) {
				missing = append(missing, string(m.Node))
			}
		}
		parts = append(parts, fmt.Sprintf("too few members of %s %s: not %s", c.Group, what, strings.Join(missing, ", ")))
	}
	return strings.Join(parts, "; ")
}

func (d *decision) peer(r partition.ReplicaID) (Peer, bool) {
	for _, p := range d.s.Peers {
		if p.Replica == r {
			return p, true
		}
	}
	return Peer{}, false
}

// activated is a split that is decided: the children are made, the catalog is
// told, and the group forgets.
func (d *decision) activated() Step {
	s := d.s
	if s.Held {
		return Step{Kind: Release, Why: "the leaving ranges are the children's"}
	}
	switch {
	case s.Told || !d.foreign() && s.Task.Activated:
	case d.foreign() && !s.Gone:
		return d.wait("the control group has not said anything of task %d yet", s.Extent.Split.Task)
	default: // also if the task is closed: who closed it did not know
		return d.tell(Report{Phase: partition.Activated, Version: s.Extent.Version, Range: s.Extent.Range}, "the catalog has to lead to the children")
	}
	if w, ok := d.paused(); ok {
		return w
	}
	if why := d.unmade(); why != "" {
		return d.wait("%s", why)
	}
	return d.decide(partition.KindDone, "every member of every child has it on disk, or was replaced")
}

// unmade names the members that have to make their child yet.
func (d *decision) unmade() string {
	var parts []string
	for i := range d.s.Extent.Split.Children {
		c := &d.s.Extent.Split.Children[i]
		var missing []string
		for _, m := range c.Membership.Members {
			p, _ := d.peer(m.Replica)
			if (m.Eligible || p.Up) && !slices.Contains(p.Made, c.Group) && !d.replaced(c.Group, m.Replica) {
				missing = append(missing, string(m.Node))
			}
		}
		if len(missing) > 0 {
			parts = append(parts, fmt.Sprintf("%s is not made yet on %s", c.Group, strings.Join(missing, ", ")))
		}
	}
	return strings.Join(parts, "; ")
}

// replaced reports whether a child goes on without one of its first members.
func (d *decision) replaced(g partition.GroupID, r partition.ReplicaID) bool {
	for _, c := range d.s.Children {
		if c.Group == g && c.Membership != nil {
			_, still := c.Membership.Member(r)
			return !still
		}
	}
	return false
}

// tell reports to the control group, once at a time.
func (d *decision) tell(r Report, why string) Step {
	if d.s.Telling {
		return d.wait("the control group has not answered yet: %s", why)
	}
	if w, ok := d.paused(); ok {
		return w
	}
	if r.Task = d.s.Extent.Ended; d.s.Extent.Split != nil {
		r.Task = d.s.Extent.Split.Task
	} else if d.s.Task != nil {
		r.Task = d.s.Task.ID
	}
	return Step{Kind: Tell, Report: r, Why: why}
}
