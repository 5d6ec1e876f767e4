package sim

import (
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

// divided is what the checker knows of a group's keys, worked out from the
// structural records that were applied.
type divided struct {
	keys partition.KeyRange // at its birth
	// owned are its keys from some record on, now those by what was applied anywhere.
	owned  []ownedFrom
	now    partition.KeyRange
	cuts   []cutAt
	merged []absorbed
	// Of the source of a merge: sealedAt is its seal's index, attempt the merge that it
	// is for, and gone that the survivor has its keys.
	sealedAt partition.Index
	attempt  partition.Merge
	wentAt   partition.Index // it knows that
	gone     bool
	sealed   []partition.KeyRange // in which nothing is executed
	// from is where the parent's log says that a child is, and seal where what it
	// begins with ends: with all up to there its members make it, as soon as they hear
	// of from, which the parent does not forget. sealing is the seal of the split under
	// way.
	from, seal, sealing partition.Position
}

// makes reports whether the node has on disk what it makes its replica of a child of,
// but for the decision, which the parent has.
func (n *node) makes(q *groupCheck, r partition.ReplicaID) bool {
	m, s := &n.disk.platter[q.g.parent], n.disk.states[q.g.parent]
	if m.replica != r || !m.holds(q.divided.seal) || s == nil {
		return false
	}
	x, err := replica.ExtentOf(s)
	return err == nil && (s.applied < q.divided.from.Index || x.Split != nil && x.Split.At == q.divided.from.Index)
}

// cutAt is a range that is another group's from a record on.
type cutAt struct {
	at    partition.Index
	keys  partition.KeyRange
	child int
}

// ownedFrom are a group's keys from a record on.
type ownedFrom struct {
	at   partition.Index
	keys partition.KeyRange
}

// absorbed is a group that was the source of a merge, with the keys that it had.
type absorbed struct {
	source int
	keys   partition.KeyRange
}

// liftAt is what is added to indexes from a record on.
type liftAt struct{ from, lift partition.Index }

// newDivided is a group that begins with keys at a record.
func newDivided(keys partition.KeyRange, at partition.Index) divided {
	return divided{keys: keys, now: keys, owned: []ownedFrom{{at, keys}}}
}

// gets notes that a group's keys are others from a record on.
func (d *divided) gets(keys partition.KeyRange, at partition.Index) {
	d.now, d.owned = keys, append(d.owned, ownedFrom{at, keys})
}

// noKeys is a range without any.
func noKeys() partition.KeyRange { return partition.KeyRange{Lo: []byte{0}, Hi: []byte{0}} }

// lifted is an index of the group's log as its keys and sessions see it.
func (q *groupCheck) lifted(i partition.Index) partition.Index {
	for n := len(q.lifts) - 1; n >= 0; n-- {
		if x := &q.lifts[n]; x.from <= i {
			return i + x.lift
		}
	}
	return i
}

// reflects is the newest version that a state at i may show: nothing changes behind a
// source's seal, and indexes there may be those of the survivor's records.
func (q *groupCheck) reflects(i partition.Index) partition.Index {
	if s := q.divided.sealedAt; s != 0 {
		i = min(i, s)
	}
	return q.lifted(i)
}

// owner is the group that has a range of a table, by what was applied anywhere.
func (c *checker) owner(table int, keys partition.KeyRange) int {
	for gi := range c.groups {
		if q := &c.groups[gi]; q.g.born() && q.g.table == table && !q.divided.now.Intersect(keys).Empty() {
			return gi
		}
	}
	return table
}

// shownOf is what was shown of keys, by a group and by those that it has absorbed.
func (c *checker) shownOf(gi int, keys partition.KeyRange) partition.Index {
	q := &c.groups[gi]
	v := q.lifted(q.visible)
	for _, x := range q.divided.merged {
		if !x.keys.Intersect(keys).Empty() {
			v = max(v, c.shownOf(x.source, keys))
		}
	}
	return v
}

// anyKey is a register of the group.
func (c *checker) anyKey(gi int) uint16 {
	table := c.groups[gi].g.table
	for k := range c.w.k.Keys {
		if x := (command{verb: verbGet, key: uint16(k)}); c.owner(table, x.span(table)) == gi {
			return uint16(k)
		}
	}
	return 0
}

// owns reports whether a range is the group's in the state that reflects i.
func (q *groupCheck) owns(keys partition.KeyRange, i partition.Index) bool {
	for n := len(q.divided.owned) - 1; n >= 0; n-- {
		if x := &q.divided.owned[n]; x.at <= i {
			return keys.Within(x.keys)
		}
	}
	return false
}

// executable reports whether a command on the range may be executed at i, which is
// the newest record that anybody has applied.
func (q *groupCheck) executable(keys partition.KeyRange, i partition.Index) bool {
	for _, r := range q.divided.sealed {
		if !r.Intersect(keys).Empty() {
			return false
		}
	}
	return q.owns(keys, i)
}

// divides is told of a structural record when the first replica applies it.
func (c *checker) divides(q *groupCheck, h *host, rec partition.Record) {
	x := h.extent()
	switch rec.Kind() {
	case partition.KindSeal:
		q.divided.sealing = rec.Position()
		for _, k := range x.Split.Children {
			q.divided.sealed = append(q.divided.sealed, k.Range)
		}
	case partition.KindUnseal:
		if len(q.divided.sealed) == 0 {
			c.w.violate("ranges", "%s unseals at %s what is not sealed", h, rec)
		}
		q.divided.sealed = nil
	case partition.KindActivate:
		if len(q.divided.sealed) == 0 {
			c.w.violate("ranges", "%s gives away at %s what was not sealed", h, rec)
		}
		q.divided.sealed = nil
		q.divided.gets(x.Range, rec.Index())
		for i := range x.Split.Children {
			c.birth(q, &x.Split.Children[i], rec.Index())
		}
	default:
		c.merges(q, h, rec)
	}
}

// birth is told of a child: everything that was shown of its keys it has to show.
func (c *checker) birth(parent *groupCheck, k *partition.Child, base partition.Index) {
	w, gi := c.w, int(k.Group-1)
	g := w.groups[gi]
	if g.born() {
		w.violate("ranges", "%s is made a second time, from %s at %d", g.id, parent.g.id, base)
	}
	rec, err := partition.FirstConfiguration(k.Group, base, k.Membership)
	if err != nil {
		w.violate("ranges", "%s: %v", k.Group, err)
	}
	g.genesis, g.record, g.table, g.parent = k.Membership, rec, parent.g.table, parent.g.ord
	q := &c.groups[gi]
	*q = groupCheck{
		g: g, masters: map[partition.Epoch]*masterOf{}, model: parent.model, visible: base, divided: newDivided(k.Range, base), lifts: []liftAt{{0, parent.lifted(base) - base}},
		committed: make([]partition.Record, base), configs: []configAt{{replica.ConfigurationAt{Index: base, Membership: k.Membership}, rec}},
	}
	q.divided.from, q.divided.seal = parent.committed[base-1].Position(), parent.divided.sealing
	q.committed[base-1] = rec
	parent.divided.cuts = append(parent.divided.cuts, cutAt{at: base, keys: k.Range, child: gi})
	for _, m := range k.Membership.Members {
		g.place(w.whoIs[m.Node])
	}
	for _, n := range w.nodes {
		if n.up {
			n.findPeers()
		}
	}
	w.mark("sim.child_born")
}

// decided reports whether the parent has the decision on disk that a child is, but
// for one node.
func (c *checker) decided(q *groupCheck, but *node) bool {
	p := &c.groups[q.g.parent]
	return p.newest().Durable(c.on(p, q.divided.from, but))
}

// adopts is told of a child's replica that is made: the decision is final, and the
// state is that of every other one.
func (c *checker) adopts(h *host, gi int, base partition.Index, s *state) {
	q := &c.groups[gi]
	parent := &c.groups[h.gi]
	if !q.g.born() || q.g.parent != h.gi || int(base) > len(parent.committed) || parent.committed[base-1].Kind() != partition.KindActivate {
		c.w.violate("ranges", "%s makes g%d at %d, where no activation is committed", h, gi+1, base)
	}
	for len(q.hashes) <= int(base) {
		q.hashes = append(q.hashes, 0)
	}
	if was := q.hashes[base]; was != 0 && was != s.hash|1 {
		c.w.violate("state", "%s makes another %s at %d than somebody before", h, q.g.id, base)
	}
	q.hashes[base] = s.hash | 1
	if class, key, is, must := q.model.lacks(s, q, base); class != 0 {
		c.w.violate("durable", "%s makes %s at %d with %v in %c%d, the committed commands lead to %v", h, q.g.id, base, is, class, key, must)
	}
}

// alone checks, when a group answers for a key, that no other group of the table would
// answer for it now.
func (c *checker) alone(h *host, o *op) {
	if c.w.k.Splits == 0 || o.opens {
		return
	}
	keys := o.span(h.g.table)
	for _, n := range c.w.nodes {
		if !n.alive() {
			continue
		}
		for _, x := range n.hosts {
			if x == nil || x == h || x.gi == h.gi || x.g.table != h.g.table || !x.serving || x.exec == nil || n.local() >= x.view.LeaseEnd(n) {
				continue
			}
			e := x.extent()
			if e.Version == 0 && keys.Within(c.groups[x.gi].divided.keys) || e.Version != 0 && e.Serves(keys) && !(x.dividing.held && leaves(e, keys)) && !x.merging.held {
				c.w.violate("ranges", "%s answers for a key that %s would answer for, too", h, x)
			}
		}
	}
}
