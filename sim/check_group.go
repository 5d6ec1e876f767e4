package sim

import (
	"slices"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

// Limits of what a replica may have waiting for it, beside what its own limits
// allow. They are far above what runs come to; what has no limit gets there.
const (
	maxUnwritten = 4096
	maxCalls     = 256
)

// serves is told that a mastership begins to serve. Whoever could have elected
// somebody else has promised not to, on disk. And if it has a lease already, what was
// ever shown is in the state, or the first read under that would miss it. (Who was
// stopped for long may find that it serves, long after it was replaced.)
func (c *checker) serves(h *host, v *replica.View) {
	q := &c.groups[h.gi]
	if h.applied < q.visible && h.n.local() < v.LeaseEnd(h.n) {
		c.w.violate("serving", "%s serves in epoch %s with a state at %d, %d was visible", h, v.Epoch, h.applied, q.visible)
	}
	promised := func(r partition.ReplicaID) bool {
		for _, n := range c.w.nodes {
			if m := &n.disk.platter[h.gi]; m.replica == r && m.promise >= v.Epoch {
				return true
			}
		}
		for i := range q.lost {
			if q.lost[i].replica == r && q.lost[i].promise >= v.Epoch {
				return true
			}
		}
		return false
	}
	if m := q.newest(); !m.CanFailover(promised) {
		c.w.violate("promise", "%s serves in epoch %s, which too few members of configuration %d have promised on disk", h, v.Epoch, m.Version)
	}
	c.excludes(h, q, "begins to serve")
}

// newest is the last committed configuration.
func (q *groupCheck) newest() *partition.Membership {
	return q.configs[len(q.configs)-1].Membership
}

// quorum checks the first commit of a record against the last configuration that
// was committed before it, whatever the master takes to be in force: otherwise two
// masters could each have a majority of their own. A configuration that takes
// effect alone is what the control group's permit is for.
func (c *checker) quorum(h *host, q *groupCheck, rec partition.Record, m *image) {
	if n := len(m.configs); n > 0 && m.configs[n-1].Membership.Alone != 0 {
		return
	}
	if was := q.newest(); !was.Durable(c.on(q, rec.Position(), nil)) {
		c.w.violate("quorum", "%s commits %s, which no durable set of the committed configuration %d has on disk", h, rec, was.Version)
	}
	if k := len(q.committed); k > 0 && q.committed[k-1].Epoch() > rec.Epoch() {
		c.w.violate("epoch", "%s commits %s after %s", h, rec, q.committed[k-1])
	}
}

// excludes checks that nobody of an older epoch can still answer under a lease when
// a newer master begins to serve, commits, or says so. It goes by the lease tables as they are, and
// by each node's own clock at this moment of true time.
func (c *checker) excludes(h *host, q *groupCheck, does string) {
	for _, n := range c.w.nodes {
		if !n.alive() {
			continue
		}
		o := n.hosts[q.g.ord]
		if o == nil || o == h || !o.serving || !h.serving || o.view.Epoch >= h.view.Epoch {
			continue
		}
		if end := o.view.LeaseEnd(n); n.local() < end {
			c.w.violate("lease", "%s %s in epoch %s while %s has a lease in %s for another %s", h, does, h.view.Epoch, o, o.view.Epoch, end-n.local())
		}
	}
}

// leased checks, when a node was granted a lease and when it has answered under one,
// that it counts in no epoch before one that has begun to serve.
func (c *checker) leased(n *node) {
	for gi, h := range n.hosts {
		if h == nil || !h.serving || h.view.Epoch >= c.groups[gi].served {
			continue
		}
		if end := h.view.LeaseEnd(n); n.local() < end {
			c.w.violate("lease", "%s has a lease in epoch %s for another %s, and epoch %s serves", h, h.view.Epoch, end-n.local(), c.groups[gi].served)
		}
	}
}

// succeeds checks a configuration when it is committed: as long as somebody of an
// older epoch has a lease, whoever can be master next by this configuration has to
// ask somebody who has granted that. A master that waits for old leases to end, and
// changes the group meanwhile, gives it to members that know nothing of them.
func (c *checker) succeeds(h *host, q *groupCheck, is *partition.Membership) {
	for _, n := range c.w.nodes {
		if !n.alive() {
			continue
		}
		o := n.hosts[q.g.ord]
		if o == nil || o == h || !o.serving || h.view == nil || o.view.Epoch >= h.view.Epoch || n.local() >= o.view.LeaseEnd(n) {
			continue
		}
		granted := func(r partition.ReplicaID) bool {
			i := slices.IndexFunc(o.view.Supporters, func(s replica.Supporter) bool { return s.Replica == r })
			if i < 0 || r == o.replica {
				return r == o.replica
			}
			x, _ := o.view.Configurations.Member(r)
			return n.local() < n.Granted(q.g.id, o.view.Epoch, x.Node, o.view.Supporters[i])
		}
		if !is.Durable(granted) {
			c.w.violate("succession", "%s commits configuration %d, by which one may be master that knows nothing of the lease that %s has in %s", h, is.Version, o, o.view.Epoch)
		}
	}
}

// ends is told of a process about to end: what its log had under way may or may
// not be in the log of the next.
func (c *checker) ends(n *node) {
	if n.disk.real != nil {
		c.left[n.disk] = n.disk.pending
	}
	if n.disk.hit { // damage that nobody has come upon may take what it has by now
		for gi := range c.groups {
			c.loses(n, gi)
		}
	}
}

// crashed is told of a process that has ended: what clients have seen is still on
// the disks of a durable set.
func (c *checker) crashed(n *node) {
	for gi := range c.groups {
		q := &c.groups[gi]
		if n.disk.platter[gi].replica == 0 {
			continue
		}
		if m := q.newest(); !m.Durable(c.on(q, q.committed[q.visible-1].Position(), nil)) {
			c.w.violate("durable", "with %s down, no durable set of configuration %d has record %d of %s on disk, which was visible", n, m.Version, q.visible, q.g.id)
		}
	}
}

// returned checks the records of a log that a new process has opened: each was on
// the disk, or on its way there. What was removed does not come back.
func (c *checker) returned(n *node, gi int) {
	p, s := &n.disk.platter[gi], &n.disk.seen[gi]
	left, real := c.left[n.disk]
	if !real {
		return
	}
	for i := max(p.first, s.first); i <= s.last(); i++ {
		rec := s.at(i)
		if i <= p.last() && p.at(i).Checksum() == rec.Checksum() {
			continue
		}
		if !underWay(left, gi, rec) {
			c.w.violate("resurrection", "%s: %s is in the log of g%d again; it was removed, or never written", n, rec, gi+1)
		}
	}
}

func underWay(left []pendingWrite, gi int, rec partition.Record) bool {
	for i := range left {
		if int(left[i].w.Group-1) != gi {
			continue
		}
		for _, r := range left[i].w.Records {
			if r.Index() == rec.Index() && r.Checksum() == rec.Checksum() {
				return true
			}
		}
	}
	return false
}

// stepped is told that a replica has done all its work: what waits is bounded.
func (c *checker) stepped(h *host) {
	if most := 3*h.n.w.k.MaxPending + maxCalls; len(h.calls) > most || len(h.unwritten) > most+maxUnwritten {
		c.w.violate("bounds", "%d requests and %d writes wait at %s", len(h.calls), len(h.unwritten), h)
	}
}

// resting checks how much is said while nothing happens: some heartbeats apart,
// only those talk who look for a master, and each once in a while.
func (c *checker) resting(sent uint64, d partition.Time) {
	k := c.w.k
	members := 0
	for gi := range c.groups {
		if !c.groups[gi].g.born() {
			continue
		}
		n := len(c.groups[gi].newest().Members)
		members += n * n
	}
	if most := uint64(members) * (64 + 8*uint64(d/max(k.RetryMax/2, k.AnswerWait/2, 1))); sent > most {
		c.w.violate("bounds", "%d messages within %s, though nothing happens; %d would be many", sent, d, most)
	}
}

// letsGo is told that a replica's log begins at first now. If it keeps the log only,
// every full voter has what comes before on its disk: it may be the last one, and
// nobody else could bring it that.
func (c *checker) letsGo(h *host, first partition.Index) {
	q := &c.groups[h.gi]
	newest := q.newest()
	if x, _ := newest.Member(h.replica); !h.logOnly && x.Kind != partition.LogReplica {
		return
	}
	for _, x := range newest.Members {
		if x.Kind == partition.Full && x.Eligible && !c.reaches(q, x.Replica, first-1) {
			c.w.violate("everywhere", "%s lets go of what comes before %d, and full voter %d has not got that far", h, first, x.Replica)
		}
	}
}

// fills checks, when a configuration is committed, that the logs of those who keep
// the log only continue what a new full voter has.
func (c *checker) fills(h *host, q *groupCheck, was, is *partition.Membership) {
	for _, x := range is.Members {
		if y, _ := was.Member(x.Replica); is.Alone != 0 || x.Kind != partition.Full || !x.Eligible || y.Kind == x.Kind && y.Eligible {
			continue
		}
		for _, y := range is.Members {
			if m := c.platter(q, y.Replica); y.Kind == partition.LogReplica && m != nil && !c.reaches(q, x.Replica, m.first-1) {
				c.w.violate("everywhere", "%s commits configuration %d, by which %d is full, and log replica %d has let go of what it lacks before %d", h, is.Version, x.Replica, y.Replica, m.first)
			}
		}
	}
}

// platter is what the disk of a replica holds, or nil.
func (c *checker) platter(q *groupCheck, r partition.ReplicaID) *image {
	for _, n := range c.w.nodes {
		if m := &n.disk.platter[q.g.ord]; m.replica == r {
			return m
		}
	}
	return nil
}

// reaches reports whether a replica's log has got up to i on the disk, or had
// before its disk was damaged.
func (c *checker) reaches(q *groupCheck, r partition.ReplicaID, i partition.Index) bool {
	if m := c.platter(q, r); m != nil && (m.damage != nil || m.last() >= i) {
		return true
	}
	for k := range q.lost {
		if q.lost[k].replica == r && q.lost[k].last() >= i {
			return true
		}
	}
	return false
}

// promises is told of a promise before it is written. Nobody deposes a master for a
// candidate that it knows to be removed. (Who leads all the same is followed.)
func (c *checker) promises(h *host, q *groupCheck, e partition.Epoch) {
	m := &h.n.disk.seen[h.gi]
	to := e.Replica()
	if e <= m.promise || to == h.replica || to == 0 || q.masters[e] != nil {
		return
	}
	for i := len(m.configs) - 1; i >= 0; i-- {
		if x := m.configs[i]; x.Index <= m.commit {
			if _, in := x.Membership.Member(to); !in && to < x.Membership.Next {
				c.w.violate("removed", "%s promises epoch %s, and knows that configuration %d has removed replica %d", h, e, x.Membership.Version, to)
			}
			return
		}
	}
}
