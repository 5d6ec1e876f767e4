package split

import (
	"os"
	"slices"
	"strings"
	"testing"

	"pando.dev/pando/partition"
)

// check says what is wrong with a state, if anything is.
func (e *explorer) check(s *state) string {
	opened, content := false, uint8(0)
	for i := range e.members {
		m := &s.m[i]
		if m.made == 0 {
			continue
		}
		if opened && content != m.made>>1 {
			return "two replicas of the child begin with different states"
		}
		opened, content = true, m.made>>1
	}
	if opened && s.acked&^content != 0 {
		return "a write that was acknowledged is not in the child"
	}
	for i := range e.members {
		m := &s.m[i]
		v := e.view(&m.log, m.commit)
		switch {
		case opened && m.lease && !m.held && v.x.Serves(keys("n", "o")):
			return "the parent answers for keys of a child that is open"
		case v.x.Done && v.phase() == 0 && !e.allMade(s):
			return "the split is done, and a member can make its child no more"
		case v.x.Done && v.phase() == 0 && !s.told:
			return "the split is done, and no catalog leads to the children"
		case v.phase() == partition.Activated && !e.confirmed(s, v):
			return "a child is activated without a quorum that has its state"
		}
	}
	return ""
}

func (e *explorer) allMade(s *state) bool {
	for i := range e.members {
		if s.m[i].made == 0 && e.makes(i) {
			return false
		}
	}
	return true
}

// confirmed reports whether a durable set of every child's members has the log
// through the seal before the record that has activated the split.
func (e *explorer) confirmed(s *state, v *view) bool {
	for i := range e.members {
		m := &s.m[i]
		n := uint8(v.x.Split.At - firstIndex)
		if n >= m.n || kindOf(m.log[n]) != activate {
			continue
		}
		for kindOf(m.log[n]) != seal {
			n--
		}
		for c := range e.children {
			has := func(r partition.ReplicaID) bool { return common(m, &s.m[r-1]) > n }
			if !e.begun.Split.Children[c].Membership.Durable(has) {
				return false
			}
		}
		return true
	}
	return true
}

func inPlace() bounds {
	return bounds{members: 3, epochs: 2, writes: 1, tries: 1, cancel: true, children: [][]partition.ReplicaID{{1, 2, 3}}}
}

// onLearner is a child in place, and one with a member of the parent and one that
// came for it.
func onLearner() bounds {
	return bounds{members: 4, epochs: 2, tries: 1, children: [][]partition.ReplicaID{{1, 2, 3}, {3, 4}}}
}

// SPL-2, SPL-3: no state that can be reached within the bounds has a write that was
// acknowledged and is not in an open child, two beginnings of a child, or a parent
// that serves what a child serves; and every end is reached.
func TestModel(t *testing.T) {
	all := map[string]bounds{}
	b := inPlace()
	b.crashes = 1
	all["in place, a crash"] = b
	b = inPlace()
	b.epochs, b.cancel, b.writes = 3, false, 0
	all["in place, two failovers"] = b
	b = inPlace()
	b.cancel, b.stale = false, true
	all["in place, the word of a master of before"] = b
	all["on a learner"] = onLearner()
	if os.Getenv("PANDO_MODEL") != "" { // a minute
		b = inPlace()
		b.writes, b.tries, b.crashes = 2, 2, 1
		all["in place, two writes, two tries"] = b
		b = inPlace()
		b.epochs, b.cancel = 3, false
		all["in place, two failovers, a write"] = b
		b = onLearner()
		b.writes = 1
		all["on a learner, a write"] = b
		b = onLearner()
		b.tries = 2
		all["on a learner, two tries"] = b
	}
	states := 0
	for name, b := range all {
		e := newExplorer(b)
		if wrong := e.run(4_000_000); wrong != "" {
			t.Errorf("%s: %s", name, wrong)
		}
		for _, end := range []string{"done", "aborted", "late"} {
			if e.ends[end] == 0 {
				t.Errorf("%s: no split was ever %s", name, end)
			}
		}
		states += len(e.queue)
		t.Logf("%s: %d states, %v", name, len(e.queue), e.ends)
	}
	t.Logf("%d states", states)
}

// Each of these mistakes is seen. The first four are those of the protocol's own
// analysis. R4: "leases run" is a slow master that answers under its lease while the
// others have activated the split.
func TestModelCatches(t *testing.T) {
	const (
		lost   = "acknowledged is not in the child"
		two    = "begin with different states"
		both   = "the parent answers"
		untold = "no catalog leads"
		never  = "can make its child no more"
		quorum = "without a quorum"
	)
	for name, c := range map[string]struct {
		b     bounds
		plant func(b *bounds)
		want  []string
	}{
		"open on receipt":     {inPlace(), func(b *bounds) { b.openOnReceipt = true }, []string{both, lost, two}},
		"single record":       {inPlace(), func(b *bounds) { b.singleRecord, b.openOnReceipt = true, true }, []string{both, lost, two}},
		"unseal of activated": {inPlace(), func(b *bounds) { b.unsealActivated = true }, []string{both, lost, two}},
		"no confirmation":     {onLearner(), func(b *bounds) { b.unconfirmed = true }, []string{quorum}},
		"leases run":          {inPlace(), func(b *bounds) { b.leasesRun = true }, []string{both}},
		"done early":          {inPlace(), func(b *bounds) { b.doneEarly = true }, []string{never}},
		"a closed task":       {inPlace(), func(b *bounds) { b.stale, b.untold = true, true }, []string{untold}},
		"serves unapplied":    {inPlace(), func(b *bounds) { b.serveUnapplied = true }, []string{both, lost, two}},
	} {
		c.plant(&c.b)
		e := newExplorer(c.b)
		wrong := e.run(2_000_000)
		what, _, _ := strings.Cut(wrong, ":")
		if !slices.ContainsFunc(c.want, func(w string) bool { return strings.Contains(what, w) }) {
			t.Errorf("%s: %q after %d states", name, what, len(e.queue))
		}
		t.Logf("%s: %s, after %d states", name, what, len(e.queue))
	}
}
