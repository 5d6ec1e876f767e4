package sim

import (
	"slices"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

// permitReturned checks a permit that the control group is given back, or that passes
// to others. A configuration rests on it that takes effect alone. Those who have not
// got that one on the disk go by what was in force before: if one of them may have the
// lock now, and they suffice to make it master, there will be two.
func (c *checker) permitReturned(h *host, x *replica.ReleasePermit) {
	q := &c.groups[h.gi]
	i := slices.IndexFunc(q.configs, func(a configAt) bool { return a.Membership.Alone == x.Number })
	if i < 0 {
		return // it was not needed
	}
	alone := q.configs[i]
	lacks := func(r partition.ReplicaID) bool {
		return slices.ContainsFunc(c.w.nodes, func(n *node) bool {
			m := &n.disk.platter[h.gi]
			return m.replica == r && n.intact(h.gi, r) && !m.holds(alone.rec.Position())
		})
	}
	for _, n := range c.w.nodes {
		m := &n.disk.platter[h.gi]
		r := m.replica
		if r == 0 || !lacks(r) || r >= alone.Membership.Next || len(x.Able) > 0 && !slices.Contains(x.Able, r) {
			continue
		}
		before := m.active(m.commit)
		if y, _ := before.Member(r); y.Kind == partition.Full && y.Eligible && before.CanFailover(lacks) {
			c.w.violate("permit", "%s gives permit %d back, and %d on %s could be master by what was before configuration %d, which it lacks", h, x.Number, r, n, alone.Membership.Version)
		}
	}
}
