package sim

import (
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

// checker sees everything and stops the run at the first broken promise.
type checker struct {
	w      *world
	groups []groupCheck
	fates  [][]fate // of operations, by client and number
	// left are the writes that were under way when the last process on a disk with
	// the real log ended.
	left map[*disk][]pendingWrite
}

// groupCheck is what the checker knows of a group.
type groupCheck struct {
	g *group
	// records are all that were ever made, by index.
	records [][]madeRecord
	// committed[i] has index i+1; configs are the configurations among them.
	committed []partition.Record
	configs   []configAt
	// hashes[i] is the hash of the state that reflects i, as the first replica that
	// got there had it; 0: none.
	hashes  []uint64
	masters map[partition.Epoch]*masterOf
	served  partition.Epoch // the newest that has begun to serve
	// visible is the index that every linearizable answer must show.
	visible partition.Index
	// lifts are what is added to indexes from some on, so that versions of keys go on
	// along merges; none: nothing.
	lifts   []liftAt
	model   *model // of the table
	divided divided
	// lost are the platters that were damaged, as they were before.
	lost []image
}

type madeRecord struct {
	epoch partition.Epoch
	sum   uint32
}

type mastership struct {
	node        int
	life        uint32
	incarnation uint64
}

// masterOf is a mastership, and whether it has served.
type masterOf struct {
	mastership
	served bool
}

func newChecker(w *world) *checker { return &checker{w: w, left: map[*disk][]pendingWrite{}} }

// created is told of a new group, with its first record on its members' disks.
func (c *checker) created(g *group) {
	c.groups = append(c.groups, groupCheck{
		g: g, masters: map[partition.Epoch]*masterOf{}, model: newModel(c.w.k), divided: newDivided(c.w.catalog.ranges[g.ord], 0),
		committed: []partition.Record{g.record}, configs: []configAt{{replica.ConfigurationAt{Index: 1, Membership: g.genesis}, g.record}},
		visible: 1,
	})
	c.groups[g.ord].made(g.record)
}

// floor is what every linearizable answer to an operation must show from now on.
func (c *checker) floor(o *op) partition.Index {
	keys := o.span(o.table)
	return c.shownOf(c.owner(o.table, keys), keys)
}

// made notes a record; it reports false if another one has its position.
func (q *groupCheck) made(r partition.Record) bool {
	i := int(r.Index())
	for len(q.records) <= i {
		q.records = append(q.records, nil)
	}
	e, sum := r.Epoch(), r.Checksum()
	for _, m := range q.records[i] {
		if m.epoch == e {
			return m.sum == sum
		}
	}
	q.records[i] = append(q.records[i], madeRecord{e, sum})
	return true
}

// started is told of a new process: what was durable must be in its log.
func (c *checker) started(n *node) {
	for gi := range n.disk.platter {
		p, s := &n.disk.platter[gi], &n.disk.seen[gi]
		switch {
		case p.replica == 0 && s.replica != 0 && n.disk.dropped[gi] == s.replica:
			c.w.violate("log", "%s: replica %d of g%d is back, it was deleted", n, s.replica, gi+1)
		case s.damage != nil && !n.disk.harmed:
			c.w.violate("log", "%s: g%d has lost records, and nothing was damaged: %s", n, gi+1, s.damage.Why)
		case p.replica == 0 || p.damage != nil || s.damage != nil:
		case s.replica != p.replica || s.promise < p.promise || s.last() < n.disk.sure[gi]:
			c.w.violate("log", "%s: the log of g%d comes back as replica %d with promise %s to %d, on the disk was %d with promise %s to %d", n, gi+1, s.replica, s.promise, s.last(), p.replica, p.promise, p.last())
		}
		if p.replica != 0 && p.damage == nil && s.damage == nil {
			c.returned(n, gi)
		}
	}
}

// loses is told that a node may lose what it has of a group.
func (c *checker) loses(n *node, gi int) {
	if m := &n.disk.platter[gi]; m.replica != 0 && m.damage == nil {
		c.groups[gi].lost = append(c.groups[gi].lost, m.clone())
	}
}

// opened is told of a replica that runs now: what it had applied, it has.
func (c *checker) opened(h *host) {
	h.looked = h.n.disk.seen[h.gi].first - 1
	if h.state != nil {
		c.holds(h, h.state)
	}
}

// ignored is told of an input that a machine ignored.
func (c *checker) ignored(h *host, in replica.Input, err error) {
	if x, ok := in.(replica.Received); ok {
		c.w.violate("input", "%s refuses %s of %d: %v", h, describe(x.Message), x.From, err)
	}
	c.w.violate("input", "%s refuses %T: %v", h, in, err)
}

// logRefused is told of a write that the log did not take, though it has room.
func (c *checker) logRefused(h *host, err error) {
	c.w.violate("log", "%s: the log refuses a write: %v", h, err)
}

// persists is told of a change before it is made: one position names one record,
// and nothing that is committed is removed.
func (c *checker) persists(h *host, p *replica.Persist) {
	q := &c.groups[h.gi]
	if c.w.tracing() {
		c.w.tracef("%s %s", h, describePersist(p))
	}
	for _, r := range p.Records {
		if !q.made(r) {
			c.w.violate("log matching", "%s has another record %s than somebody before", h, r)
		}
	}
	c.promises(h, q, p.Promise)
	if p.Snip {
		c.snips(h, q, p)
	}
	if p.Commit > h.looked {
		c.commits(h, q, p)
	}
}

// snips checks that no committed record is removed, unless a durable set has it
// without this replica, which did not know of the commit.
func (c *checker) snips(h *host, q *groupCheck, p *replica.Persist) {
	c.w.count.Snips++
	m := &h.n.disk.seen[h.gi]
	for i := max(p.After+1, m.first); i <= m.last() && int(i) <= len(q.committed); i++ {
		if was := m.at(i); was.Checksum() == q.committed[i-1].Checksum() {
			last := q.newest()
			if i <= m.commit || !last.Durable(c.on(q, was.Position(), h.n)) {
				c.w.violate("snip", "%s removes %s, which is committed", h, was)
			}
		}
	}
}

// on returns who has a record on the platter, but for one node, or had it when its
// disk was damaged, which happens only where the group can stand it.
func (c *checker) on(q *groupCheck, p partition.Position, but *node) func(partition.ReplicaID) bool {
	return func(r partition.ReplicaID) bool {
		for _, n := range c.w.nodes {
			if m := &n.disk.platter[q.g.ord]; m.replica == r && n != but && m.holds(p) {
				return true
			}
			if p.Index <= q.divided.from.Index && n != but && n.makes(q, r) && c.decided(q, but) {
				return true
			}
		}
		for i := range q.lost {
			if q.lost[i].replica == r && q.lost[i].holds(p) {
				return true
			}
		}
		return false
	}
}

// commits checks what a replica takes for committed, now that p is to be written.
func (c *checker) commits(h *host, q *groupCheck, p *replica.Persist) {
	m := &h.n.disk.seen[h.gi]
	for i := h.looked + 1; i <= p.Commit; i++ {
		var rec partition.Record
		switch k := len(p.Records); {
		case k > 0 && i >= p.Records[0].Index() && i <= p.Records[k-1].Index():
			rec = p.Records[i-p.Records[0].Index()]
		case i < m.first:
			continue
		default:
			if rec = h.waiting(i); rec == nil && i <= m.last() {
				rec = m.at(i)
			}
			if rec == nil {
				c.w.violate("commit", "%s takes %d for committed, its log ends at %d", h, i, m.last())
			}
		}
		h.looked = i
		if int(i) > len(q.committed) {
			c.first(h, q, rec, m)
		} else if was := q.committed[i-1]; was.Checksum() != rec.Checksum() {
			c.w.violate("commit", "%s takes %s for committed at %d, where %s is", h, rec, i, was)
		}
	}
}

// waiting is the record at i among those for which the log has no room yet.
func (h *host) waiting(i partition.Index) (rec partition.Record) {
	for _, p := range h.unwritten {
		if p.Snip && p.After < i {
			rec = nil
		}
		if k := len(p.Records); k > 0 && i >= p.Records[0].Index() && i <= p.Records[k-1].Index() {
			rec = p.Records[i-p.Records[0].Index()]
		}
	}
	return rec
}

// first is told of the first replica that takes a record for committed: a master,
// and the record is on the platters of a durable set in every active configuration.
func (c *checker) first(h *host, q *groupCheck, rec partition.Record, m *image) {
	if h.view == nil || h.view.Master != h.replica {
		c.w.violate("commit", "%s, no master, is the first to take %s for committed", h, rec)
	}
	c.quorum(h, q, rec, m)
	i := rec.Index()
	for _, x := range m.active(i - 1) {
		if x.Version <= q.newest().Version+1 && !x.Durable(c.on(q, rec.Position(), nil)) {
			c.w.violate("durable", "%s commits %s, which no durable set of configuration %d has on disk", h, rec, x.Version)
		}
	}
	q.committed = append(q.committed, rec)
	if k := rec.Kind(); k == partition.KindMember || k == partition.KindMode {
		c.configures(h, q, rec)
	}
	c.excludes(h, q, "commits")
}

// configures checks a committed configuration.
func (c *checker) configures(h *host, q *groupCheck, rec partition.Record) {
	var m image
	if m.note(rec); len(m.configs) == 0 {
		c.w.violate("configuration", "%s commits %s, which cannot be read", h, rec)
	}
	was, is := q.newest(), m.configs[0].Membership
	if is.Version != was.Version+1 || is.Next < was.Next {
		c.w.violate("configuration", "%s commits version %d after %d", h, is.Version, was.Version)
	}
	c.fills(h, q, was, is)
	c.succeeds(h, q, is)
	q.configs = append(q.configs, m.configs[0])
	c.w.count.Changes++
}

// published is told of a new view: an epoch has one master.
func (c *checker) published(h *host, v *replica.View) {
	if v.Master != v.Self || v.Epoch == 0 {
		return
	}
	q := &c.groups[h.gi]
	me := mastership{h.n.ord, h.n.life, h.incarnation}
	if v.Epoch.Replica() != v.Self {
		c.w.violate("epoch", "%s is master of epoch %s", h, v.Epoch)
	}
	was := q.masters[v.Epoch]
	if was == nil {
		was = &masterOf{mastership: me}
		q.masters[v.Epoch] = was
		c.w.count.Elections++
	}
	if was.mastership != me {
		c.w.violate("epoch", "%s is master of epoch %s, and so was the process %v", h, v.Epoch, was.mastership)
	}
	if v.Serving && !was.served {
		was.served, q.served = true, max(q.served, v.Epoch)
		c.serves(h, v)
	}
}

// applied is told of a record that the state reflects now.
func (c *checker) applied(h *host, rec partition.Record, res *replica.Result) {
	q := &c.groups[h.gi]
	i := rec.Index()
	if int(i) > len(q.committed) || q.committed[i-1].Checksum() != rec.Checksum() {
		c.w.violate("apply", "%s applies %s, which is not committed", h, rec)
	}
	if rec.Epoch() < h.fenced {
		c.w.violate("apply", "%s applies %s after a record of epoch %s", h, rec, h.fenced)
	}
	h.fenced = rec.Epoch()
	for len(q.hashes) <= int(i) {
		q.hashes = append(q.hashes, 0)
	}
	if was := q.hashes[i]; was == 0 {
		q.hashes[i] = h.state.hash | 1
		switch {
		case res.Err != nil:
		case rec.Kind() == partition.KindCommand:
			c.executes(q, h, rec, res)
		case rec.Kind().Structural():
			c.divides(q, h, rec)
		}
	} else if was != h.state.hash|1 {
		c.w.violate("state", "%s has another state at %s than somebody before", h, rec)
	}
}

// acted is told of the answer to an operator.
func (c *checker) acted(h *host, a *act, x *replica.Reply) {
	if !a.transfer || x.Err != nil || a.to == h.replica {
		return
	}
	q := &c.groups[h.gi]
	c.w.count.Transfers++
	for e := range q.masters { // in no order: any will do
		if e > a.epoch && (a.to == 0 || e.Replica() == a.to) {
			return
		}
	}
	c.w.violate("transfer", "%s says that %d follows epoch %s, and nobody leads", h, a.to, a.epoch)
}

// retired is told of a removed replica that is to be deleted: a durable set of a
// configuration without it has on disk that this one is committed.
func (c *checker) retired(h *host) {
	q := &c.groups[h.gi]
	c.w.count.Retired++
	for _, x := range q.configs {
		if _, in := x.Membership.Member(h.replica); in {
			continue
		}
		if x.Membership.Durable(func(r partition.ReplicaID) bool {
			for _, n := range c.w.nodes {
				m, s := &n.disk.platter[h.gi], n.disk.states[h.gi]
				if m.replica == r && (m.commit >= x.Index || s != nil && s.flushed >= x.Index) {
					return true
				}
			}
			return false
		}) {
			return
		}
	}
	c.w.violate("retire", "%s is deleted before a durable set knows for good that it is removed", h)
}
