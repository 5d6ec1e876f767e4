package replica

import (
	"slices"

	"pando.dev/pando/partition"
)

// configure asks a node to change the group as edit says.
func (n *node) configure(force bool, edit func(*partition.Membership)) *op {
	next := n.rep.log.newest().Membership.Successor()
	edit(next)
	return n.w.check.configure(n, next, force, nil)
}

// configure starts a change of the group at a node.
func (c *checker) configure(n *node, next *partition.Membership, force bool, done func(*Reply, Result)) *op {
	c.nextID++
	o := &op{opens: true, config: next, node: n, floor: c.floor, done: done}
	c.ops[c.nextID] = o
	n.take(Configure{ID: c.nextID, Membership: next, Force: force})
	return o
}

// configured checks the answer to a change: what is refused was not appended.
func (c *checker) configured(n *node, o *op, r *Reply) {
	if r.Err == nil {
		c.changes++
		return
	}
	if r.Err.Code == partition.CodeUnknown {
		return
	}
	for _, x := range n.disk.seen.recs {
		if m, _ := configurationIn(x); m != nil && x.Epoch() == n.rep.promised && m.Version == o.config.Version && slices.Equal(m.Members, o.config.Members) && m.Policy == o.config.Policy {
			c.violated("a change was refused (%v) and is in the log of %d", r.Err, n.id)
		}
	}
}

// committedAt returns the committed configuration in force at an index, and its
// place.
func (c *checker) committedAt(i partition.Index) ConfigurationAt {
	for ; i > 0; i-- {
		if m, _ := configurationIn(c.committed[i-1]); m != nil {
			return ConfigurationAt{Index: i, Membership: m}
		}
	}
	panic("no configuration")
}

// configurations returns all committed configurations, newest first.
func (c *checker) configurations() (out []ConfigurationAt) {
	for i := partition.Index(len(c.committed)); i > 0; i-- {
		at := c.committedAt(i)
		out = append(out, at)
		i = at.Index
	}
	return out
}

// commitsConfiguration checks that versions are consecutive and ids never used
// again.
func (c *checker) commitsConfiguration(n *node, rec partition.Record) {
	m, _ := configurationIn(rec)
	if m == nil {
		return
	}
	was := c.committedAt(rec.Index() - 1).Membership
	if m.Alone == 0 {
		if err := was.CheckNext(m); err != nil {
			c.violated("replica %d commits a configuration: %v", n.id, err)
		}
	} else if m.Version != was.Version+1 || m.Next < was.Next {
		c.violated("replica %d commits version %d alone after %d", n.id, m.Version, was.Version)
	}
}

// appendsConfiguration checks what a master does when it changes the group: a
// record of its own epoch is committed, and whoever counts from now on has what
// that takes.
func (c *checker) appendsConfiguration(n *node, rec partition.Record) {
	next, _ := configurationIn(rec)
	if next == nil || next.Alone != 0 {
		return
	}
	first := n.rep.mastery.first
	if int(first) > len(c.committed) {
		c.violated("replica %d appends %s before a record of its epoch is committed", n.id, rec)
	}
	was := n.disk.seen.configurationBefore(rec.Index())
	for _, x := range next.Members {
		y, _ := was.Member(x.Replica)
		if o := c.w.node(x.Replica); counts(x) && x.Kind == partition.Full && !(counts(y) && y.Kind == x.Kind) && o != nil {
			c.continues(o)
		}
		if !counts(x) || counts(y) {
			continue
		}
		o := c.w.node(x.Replica)
		if o == nil || o.gone || o.disk.synced.last() < first || x.Kind == partition.Full && o.logOnly {
			c.violated("replica %d lets %d count by %s, which is not ready", n.id, x.Replica, rec)
		}
	}
}

// continues checks that the logs of log replicas continue what a new full voter has.
func (c *checker) continues(n *node) {
	for _, o := range c.w.nodes {
		if o.logOnly && !o.gone && n.disk.synced.last()+1 < o.disk.synced.first {
			c.violated("%d is to be full with %d records, log replica %d has let go of what comes before %d", n.id, n.disk.synced.last(), o.id, o.disk.synced.first)
		}
	}
}

// configurationBefore is the one in force before the record at i.
func (im *image) configurationBefore(i partition.Index) *partition.Membership {
	for j := min(i-1, im.last()); j >= im.first; j-- {
		if m, _ := configurationIn(im.recs[j-im.first]); m != nil {
			return m
		}
	}
	return im.base.Membership
}

// retires checks that nobody needs the replica any more: a durable set of a
// configuration without it has on disk that this one is committed.
func (c *checker) retires(n *node) {
	c.retired++
	for _, x := range c.configurations() {
		if excludes(x.Membership, n.id) && x.Membership.Durable(func(id partition.ReplicaID) bool {
			o := c.w.node(id)
			return o != nil && !o.gone && max(o.disk.synced.commit, o.flushed.applied) >= x.Index
		}) {
			return
		}
	}
	c.violated("replica %d retires before a durable set knows for good that it is removed", n.id)
}

// truncates checks that a log replica keeps what a full voter may have to copy
// from it.
func (c *checker) truncates(n *node, first partition.Index) partition.Index {
	if !n.logOnly {
		return first
	}
	for _, x := range c.configurations()[0].Membership.Members {
		if o := c.w.node(x.Replica); x.Kind == partition.Full && x.Eligible && o.disk.synced.last()+1 < first {
			c.violated("log replica %d lets go of what comes before %d, and %d ends at %d", n.id, first, o.id, o.disk.synced.last())
		}
	}
	return first
}

// copyOf is what a copy of the state at index i begins with.
func (c *checker) copyOf(i partition.Index) image {
	rec := c.committed[i-1]
	base := c.committedAt(i)
	return image{
		promise: rec.Epoch(), commit: i, first: i + 1,
		before: rec.Position(), beforeSum: rec.Checksum(), base: &base,
	}
}

// operate lets the simulated operator do one thing: change the group, bring up
// the hosts of new members, or copy what can only be copied.
func (s *schedule) operate() {
	m := s.w.master()
	if leading := s.leading(leveling); len(leading) > 0 && s.p.pick(4) == 0 {
		m = leading[s.p.pick(len(leading))]
	}
	if m == nil {
		return
	}
	if s.p.solo && s.p.pick(3) > 0 {
		s.reunite(m)
		return
	}
	switch s.p.pick(6) {
	case 0:
		s.bringUp(m)
	case 1:
		s.copyAgain(m)
	case 2:
		s.complete(m)
	default:
		next := m.rep.log.newest().Membership.Successor()
		if s.edit(m, next) {
			s.w.check.configure(m, next, s.p.pick(4) == 0, nil)
		}
	}
}

// edit makes a random change, perhaps one that will be refused.
func (s *schedule) edit(m *node, next *partition.Membership) bool {
	x := &next.Members[s.p.pick(len(next.Members))]
	switch s.p.pick(10) {
	case 0, 1:
		x.Eligible = !x.Eligible
	case 2:
		if len(next.Members) < 3 && s.p.pick(3) > 0 {
			return false
		}
		next.Remove(x.Replica)
	case 3:
		x.Weight = uint8(1 + s.p.pick(3))
	case 4:
		if s.p.solo && s.p.pick(4) > 0 {
			return false
		}
		next.Policy = s.drawPolicy()
	case 5, 6, 7: // promote
		for i := range next.Members {
			x := &next.Members[i]
			n := s.w.node(x.Replica)
			switch {
			case x.Kind == partition.Full || n == nil:
				continue
			case n.logOnly:
				x.Kind = partition.LogReplica
			default:
				x.Kind = partition.Full
			}
			if x.Eligible = true; s.p.pick(2) == 0 {
				break
			}
		}
	case 8: // replace
		if len(s.w.nodes) >= maxNodes {
			return false
		}
		next.Remove(x.Replica)
		s.addLearner(next)
	case 9:
		if len(s.w.nodes) >= maxNodes {
			return false
		}
		s.addLearner(next)
	}
	return true
}

const maxNodes = 9

func (s *schedule) addLearner(next *partition.Membership) {
	next.Add(partition.Member{
		Node: nodeName(next.Next), Zone: string(rune('x' + s.p.pick(3))), Kind: partition.Learner, Eligible: s.p.pick(4) > 0,
	})
}

// bringUp makes the hosts of members that are known to be committed: with the
// genesis record, with a copy of another's state, or with the log only.
func (s *schedule) bringUp(m *node) {
	for _, x := range m.rep.committed().Membership.Members {
		if s.w.node(x.Replica) != nil || m.rep.committed().Index > m.rep.commit {
			continue
		}
		var n *node
		switch s.p.pick(3) {
		case 0:
			if s.w.check.truncated {
				continue
			}
			n = s.w.addNode(x.Replica, image{first: 1, recs: []partition.Record{s.w.check.committed[0]}})
			n.logOnly = s.p.pick(3) == 0
		case 1:
			base := min(m.rep.everywhere, m.rep.applied)
			if base+1 < m.disk.synced.first || base == 0 {
				continue
			}
			n = s.w.addNode(x.Replica, s.w.check.copyOf(base))
			n.logOnly = true
		case 2:
			from := s.copySource(m)
			if from == nil {
				continue
			}
			n = s.w.addNode(x.Replica, s.w.check.copyOf(from.state.applied))
			n.flushed = from.state.clone()
		}
		s.w.printf("%d is made", n.id)
		n.boots()
	}
}

// copySource is a node with a state that the master's log continues.
func (s *schedule) copySource(m *node) *node {
	n := s.any()
	if !n.up || n.logOnly || n.state.applied+1 < m.disk.synced.first || n.state.applied == 0 {
		return nil
	}
	return n
}

// copyAgain gives a new copy to members whose next record is gone.
func (s *schedule) copyAgain(m *node) {
	for _, id := range m.rep.Status().Behind {
		n := s.w.node(id)
		if n == nil || n.gone || n.paused {
			continue
		}
		if n.logOnly {
			base := min(m.rep.everywhere, m.rep.applied)
			if base+1 >= m.disk.synced.first && base > 0 {
				n.install(s.w.check.copyOf(base), nil)
			}
		} else if from := s.copySource(m); from != nil && from != n {
			n.install(s.w.check.copyOf(from.state.applied), from.state.clone())
		}
	}
}

// complete gives a log replica the state, so that it may become full.
func (s *schedule) complete(m *node) {
	for _, x := range m.rep.active.Last().Members {
		n, from := s.w.node(x.Replica), s.copySource(m)
		if n == nil || n.gone || n.paused || !n.logOnly || from == nil || from == n {
			continue
		}
		if im := s.w.check.copyOf(from.state.applied); n.disk.synced.holds(im.before) {
			n.logOnly = false
			n.install(im, from.state.clone())
			return
		}
	}
}

func (im *image) holds(p partition.Position) bool {
	return p.Index == im.before.Index && p == im.before ||
		p.Index >= im.first && p.Index <= im.last() && im.recs[p.Index-im.first].Position() == p
}

// install puts a copy in place of what a node has. Its promise stays; its log does
// where the copy continues in it. State nil: it keeps the log only.
func (n *node) install(im image, state *mapState) {
	n.crash()
	old := &n.disk.synced
	if old.holds(im.before) {
		old.commit = max(old.commit, im.commit)
	} else {
		im.promise = max(im.promise, old.promise)
		n.disk.synced = im
	}
	if state != nil && state.applied > n.flushed.applied {
		n.flushed = state
	}
	n.w.printf("%d has a copy at %s", n.id, im.before)
	n.w.check.copies++
	n.boots()
}
