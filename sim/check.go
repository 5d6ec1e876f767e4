package sim

import (
	"bytes"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

// checker sees everything and stops the run at the first broken promise.
type checker struct {
	w      *world
	groups []groupCheck
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
	masters map[partition.Epoch]mastership
	newest  partition.Epoch // of the masters
	// visible is the index that every linearizable answer must show.
	visible partition.Index
	// executed tells of each operation at which record it was, and its result.
	executed map[uint64]execution
	// refused are operations that were said not to be executed.
	refused map[uint64]partition.Code
	// lost are the platters that were damaged, as they were before.
	lost   []image
	values []uint64 // that keys had lately, for conditional writes
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

type execution struct {
	at     partition.Index
	result []byte
}

func newChecker(w *world) *checker { return &checker{w: w} }

// created is told of a new group, with its first record on its members' disks.
func (c *checker) created(g *group) {
	c.groups = append(c.groups, groupCheck{
		g: g, masters: map[partition.Epoch]mastership{}, executed: map[uint64]execution{}, refused: map[uint64]partition.Code{},
		committed: []partition.Record{g.record}, configs: []configAt{{replica.ConfigurationAt{Index: 1, Membership: g.genesis}, g.record}},
		visible: 1, values: make([]uint64, max(1, c.w.k.Keys)),
	})
	c.groups[g.ord].made(g.record)
}

// floor is what every linearizable answer of the group must show from now on.
func (c *checker) floor(gi int) partition.Index { return c.groups[gi].visible }

// valueOf is a value that a key may have now.
func (c *checker) valueOf(gi int, key uint16, h uint64) uint64 {
	if h%3 == 0 {
		return h
	}
	return c.groups[gi].values[key]
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
		case p.replica == 0 || p.damage != nil || s.damage != nil:
		case s.replica != p.replica || s.promise < p.promise || s.last() < n.disk.sure[gi]:
			c.w.violate("log", "%s: the log of g%d comes back with promise %s to %d, on the disk was promise %s to %d", n, gi+1, s.promise, s.last(), p.promise, p.last())
		}
	}
}

// loses is told that a node may lose what it has of a group.
func (c *checker) loses(n *node, gi int) {
	if m := &n.disk.platter[gi]; m.replica != 0 && m.damage == nil {
		c.groups[gi].lost = append(c.groups[gi].lost, m.clone())
	}
}

// opened is told of a replica that runs now.
func (c *checker) opened(h *host) { h.looked = h.n.disk.seen[h.gi].first - 1 }

// crashed is told of a process that has ended.
func (c *checker) crashed(*node) {}

// refused is told of an input that a machine ignored.
func (c *checker) refused(h *host, in replica.Input, err error) {
	if x, ok := in.(replica.Received); ok {
		c.w.violate("refused", "%s refuses %s of %d: %v", h, describe(x.Message), x.From, err)
	}
	c.w.violate("refused", "%s refuses %T: %v", h, in, err)
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
	for i := p.After + 1; i <= m.last() && int(i) <= len(q.committed); i++ {
		if was := m.at(i); was.Checksum() == q.committed[i-1].Checksum() {
			last := q.configs[len(q.configs)-1].Membership
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
	i := rec.Index()
	for _, x := range m.active(i - 1) {
		if x.Version <= q.configs[len(q.configs)-1].Membership.Version+1 && !x.Durable(c.on(q, rec.Position(), nil)) {
			c.w.violate("durable", "%s commits %s, which no durable set of configuration %d has on disk", h, rec, x.Version)
		}
	}
	q.committed = append(q.committed, rec)
	if k := rec.Kind(); k == partition.KindMember || k == partition.KindMode {
		c.configures(h, q, rec)
	}
	c.excludes(h, q)
}

// configures checks a committed configuration.
func (c *checker) configures(h *host, q *groupCheck, rec partition.Record) {
	var m image
	if m.note(rec); len(m.configs) == 0 {
		c.w.violate("configuration", "%s commits %s, which cannot be read", h, rec)
	}
	was, is := q.configs[len(q.configs)-1].Membership, m.configs[0].Membership
	if is.Version != was.Version+1 || is.Next < was.Next {
		c.w.violate("configuration", "%s commits version %d after %d", h, is.Version, was.Version)
	}
	q.configs = append(q.configs, m.configs[0])
	c.w.count.Changes++
}

// excludes checks that nobody of an older epoch can still answer under a lease when
// a newer master commits.
func (c *checker) excludes(h *host, q *groupCheck) {
	for _, n := range c.w.nodes {
		if !n.alive() {
			continue
		}
		o := n.hosts[q.g.ord]
		if o == nil || o == h || !o.serving || o.view.Epoch >= h.view.Epoch || !h.serving {
			continue
		}
		if end := o.view.LeaseEnd(n); n.local() < end {
			c.w.violate("lease", "%s commits in epoch %s while %s has a lease in %s for another %s", h, h.view.Epoch, o, o.view.Epoch, end-n.local())
		}
	}
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
	if was, ok := q.masters[v.Epoch]; !ok {
		q.masters[v.Epoch] = me
		q.newest = max(q.newest, v.Epoch)
		c.w.count.Elections++
	} else if was != me {
		c.w.violate("epoch", "%s is master of epoch %s, and so was the process %v", h, v.Epoch, was)
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
		if rec.Kind() == partition.KindCommand && res.Err == nil {
			c.executes(q, h, rec, res)
		}
	} else if was != h.state.hash|1 {
		c.w.violate("state", "%s has another state at %s than somebody before", h, rec)
	}
}

// appliedLog is told of a replica without a state that has got so far.
func (c *checker) appliedLog(*host, partition.Index) {}

// executes is told of a command when the first replica applies it: each is
// executed once, and none that was refused.
func (c *checker) executes(q *groupCheck, h *host, rec partition.Record, res *replica.Result) {
	_, _, body, err := replica.ParseCommand(rec.Payload())
	cmd, ok := parseCommand(body)
	if err != nil || !ok {
		c.w.violate("command", "%s applies %s, which is no command: %v", h, rec, err)
	}
	was, before := q.executed[cmd.id]
	switch {
	case res.Repeated:
		if !before || !bytes.Equal(was.result, res.Data) {
			c.w.violate("exactly once", "operation %x at %d gives the result %x; at %d it gave %x", cmd.id, rec.Index(), res.Data, was.at, was.result)
		}
		return
	case before:
		c.w.violate("exactly once", "operation %x is executed at %d and was at %d", cmd.id, rec.Index(), was.at)
	}
	if code, ok := q.refused[cmd.id]; ok {
		c.w.violate("refused", "operation %x is executed at %d, it was refused with %s", cmd.id, rec.Index(), code)
	}
	q.executed[cmd.id] = execution{rec.Index(), res.Data}
	if int(cmd.key) < len(q.values) {
		q.values[cmd.key] = parseRegister(res.Data).value
	}
}

// acked is told of a write that is acknowledged at a record.
func (c *checker) acked(h *host, o *op, i partition.Index, res *replica.Result) {
	q := &c.groups[h.gi]
	c.w.count.Acked++
	switch {
	case int(i) > len(q.committed):
		c.w.violate("ack", "%s acknowledges operation %x at %d, which is not committed", h, o.id, i)
	case h.applied < i:
		c.w.violate("ack", "%s acknowledges operation %x at %d, its state is at %d", h, o.id, i, h.applied)
	}
	if o.opens || res.Err != nil {
		q.visible = max(q.visible, i)
		c.durable(h, q, i)
		return
	}
	was, ok := q.executed[o.id]
	switch {
	case !ok:
		c.w.violate("ack", "%s acknowledges operation %x at %d, which was not executed", h, o.id, i)
	case !bytes.Equal(was.result, res.Data) || !res.Repeated && was.at != i:
		c.w.violate("ack", "operation %x is answered at %d with %x; executed at %d it gave %x", o.id, i, res.Data, was.at, was.result)
	case was.at <= o.floor:
		c.w.violate("linearizable", "operation %x takes effect at %d, when it was called %d was visible", o.id, was.at, o.floor)
	}
	q.visible = max(q.visible, was.at)
	c.durable(h, q, i)
}

// durable checks that what is acknowledged is on the platters of a durable set of
// the configuration that was in force, or of the one that is.
func (c *checker) durable(h *host, q *groupCheck, i partition.Index) {
	at := len(q.configs) - 1
	on := c.on(q, q.committed[i-1].Position(), nil)
	if q.configs[at].Membership.Durable(on) {
		return
	}
	for at > 0 && q.configs[at].Index > i {
		at--
	}
	if !q.configs[at].Membership.Durable(on) {
		c.w.violate("durable", "%s acknowledges %d, which no durable set of configuration %d has on disk", h, i, q.configs[at].Membership.Version)
	}
}

// refusedOp is told of an operation that is answered with an error. Any but
// CodeUnknown says that it will never be executed, by this try.
func (c *checker) refusedOp(h *host, o *op, code partition.Code) {
	if code == partition.CodeUnknown || o.read() || o.opens || o.seq != 0 {
		return
	}
	q := &c.groups[h.gi]
	if was, ok := q.executed[o.id]; ok {
		c.w.violate("refused", "%s refuses operation %x with %s, it was executed at %d", h, o.id, code, was.at)
	}
	q.refused[o.id] = code
}

// shown is told of a read that is answered.
func (c *checker) shown(h *host, o *op, floor, index partition.Index, level string) {
	q := &c.groups[h.gi]
	if index < floor {
		c.w.violate("linearizable", "a %s read at %s shows %d, when it came %d was visible", level, h, index, floor)
	}
	q.visible = max(q.visible, index)
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

// stepped is told that a replica has done all its work.
func (c *checker) stepped(*host) {}

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
