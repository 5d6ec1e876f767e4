package split

import (
	"fmt"
	"slices"

	"pando.dev/pando/partition"
)

// begin is a group without a split under way.
func (d *decision) begin() Step {
	s := d.s
	if s.Held || s.Task == nil {
		return d.idle("no split is under way")
	}
	t, x := s.Task, &s.Extent
	version, keys := x.Version, x.Range
	if version == 0 {
		version, keys = s.Version, s.Range
	}
	switch why := d.givenUp(); {
	case x.Ended == t.ID && x.Done:
		return d.end(true, "the children serve what they were given")
	case x.Ended == t.ID && s.Aborted != "":
		return d.end(false, s.Aborted)
	case x.Ended == t.ID && why == "":
		return d.end(false, "it was given up before it was activated")
	case why != "":
		return d.end(false, why)
	case t.Version != version:
		return d.end(false, fmt.Sprintf("it was planned for range version %d, now it is %d", t.Version, version))
	}
	if w, ok := d.occupied(); ok {
		return d.until(w)
	}
	in := partition.Intent{Task: t.ID, Range: keys, Version: version}
	for i := range t.Children {
		c, step := d.child(&t.Children[i])
		if step.Kind != Nothing {
			return d.until(step)
		}
		in.Children = append(in.Children, c)
	}
	return d.intend(&in)
}

// occupied waits until the group's structure may be changed.
func (d *decision) occupied() (Step, bool) {
	switch s := d.s; {
	case s.Extent.Merge != nil:
		return d.wait("the merge of task %d is under way, %s", s.Extent.Merge.Task, s.Extent.Merge.Phase), true
	case s.Pending:
		return d.wait("a change of the members is not committed yet"), true
	case s.Busy != "":
		return d.wait("%s", s.Busy), true
	}
	return d.paused()
}

// intend proposes the intent, if it makes sense.
func (d *decision) intend(in *partition.Intent) Step {
	b, err := in.AppendBinary(nil)
	if err != nil {
		return d.end(false, err.Error())
	}
	return Step{Kind: Propose, Record: partition.KindIntent, Payload: b, Why: "the split begins"}
}

// end closes the task, after the learners that came for it have gone. Those of a
// split that is done go, too: the children have replicas of their own by then.
func (d *decision) end(done bool, why string) Step {
	s := d.s
	own := func(m partition.Member) bool { return m.Kind == partition.Learner && d.wants(m.Node) }
	if slices.ContainsFunc(s.Membership.Members, own) {
		if w, ok := d.occupied(); ok {
			return w
		}
		next := s.Membership.Successor()
		next.Members = slices.DeleteFunc(next.Members, own)
		return Step{Kind: Configure, Membership: next, Why: "the learners that came for the split go: " + why}
	}
	return d.tell(Report{Ended: true, Done: done, Version: s.Extent.Version, Range: s.Extent.Range, Why: why}, why)
}

// wants reports whether a child shall have a replica on the node.
func (d *decision) wants(n partition.NodeID) bool {
	is := func(p Place) bool { return p.Node == n }
	return slices.ContainsFunc(d.s.Task.Children, func(w Wanted) bool { return slices.ContainsFunc(w.Nodes, is) })
}

// child returns the child that is wanted, from the parent's replicas on its nodes,
// or the step that brings a replica there.
func (d *decision) child(w *Wanted) (partition.Child, Step) {
	s := d.s
	m := &partition.Membership{Version: 1, Policy: s.Membership.Policy, Next: s.Membership.Next}
	places := w.Nodes
	if len(places) == 0 {
		for _, x := range s.Membership.Members {
			if x.Kind == partition.Full {
				places = append(places, Place{Node: x.Node})
			}
		}
	}
	c := partition.Child{Group: w.Group, Range: w.Range, Membership: m}
	for _, at := range places {
		n := at.Node
		x, ok := s.Membership.OnNode(n)
		switch p, _ := d.peer(x.Replica); {
		case !ok:
			return c, d.learner(at)
		case x.Kind == partition.LogReplica:
			return c, d.end(false, fmt.Sprintf("%s keeps only the log, so %s cannot be made there", n, w.Group))
		case x.Kind == partition.Learner && !p.State:
			return c, d.waitFor(fmt.Sprintf("%s is being brought up on %s for %s", d.s.Group, n, w.Group))
		}
		if x.Kind == partition.Learner {
			x.Kind, x.Eligible = partition.Full, true
		}
		m.Members = append(m.Members, x)
		if n == w.First || w.First == "" && (c.First == 0 || x.Replica == s.Self) {
			c.First = x.Replica
		}
	}
	slices.SortFunc(m.Members, func(a, b partition.Member) int { return int(a.Replica) - int(b.Replica) })
	return c, Step{}
}

// learner brings a replica to a node where a child shall be.
func (d *decision) learner(at Place) Step {
	next := d.s.Membership.Successor()
	next.Add(partition.Member{Node: at.Node, Zone: at.Zone, Kind: partition.Learner, Eligible: true})
	return Step{Kind: Configure, Membership: next, Why: fmt.Sprintf("%s is to hold a part of %s", at.Node, d.s.Group)}
}
