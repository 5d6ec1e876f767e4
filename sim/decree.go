package sim

import (
	"math"
	"slices"
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

// recoverWait is for how long at most a replica attempts what it was told, and nothing
// else.
const recoverWait = 30 * time.Second

// recovers lets an operator give up the members of a group that are down, and lead
// on with those that are left. The operator is a careful one, since more than a
// wrong decree is no business of the product: nobody leads, who is given up does not
// run, and what was ever committed is on the disk of somebody who is not.
func (w *world) recovers(gi int, id uint64) bool {
	h := w.rnd.two(onOperator, id, 4)
	for i := range w.nodes {
		n := w.nodes[(i+pick(h>>8, len(w.nodes)))%len(w.nodes)]
		if o := n.hosts[gi]; n.alive() && o != nil && o.rep != nil && !o.logOnly {
			if next := w.decree(o, h); next != nil {
				w.permitDecree(o, next)
				return true
			}
		}
	}
	return false
}

// decree is a configuration of those members that a replica reaches, or nil.
func (w *world) decree(o *host, h uint64) *partition.Membership {
	q := &w.check.groups[o.gi]
	last := o.newest()
	if x, _ := last.Member(o.replica); x.Kind != partition.Full || !x.Eligible || !o.n.disk.seen[o.gi].holds(q.configs[len(q.configs)-1].rec.Position()) {
		return nil
	}
	if p := &w.control.groups[o.gi].permit; p.holder != 0 && p.holder != o.replica && w.runs(o.gi, p.holder) {
		return nil // somebody is about to lead on
	}
	next, end, whole := last.Successor(), q.committed[len(q.committed)-1].Position(), false
	for _, m := range []*partition.Membership{q.newest(), last} {
		for _, x := range m.Members {
			at := w.placeOf(x.Node)
			if at == nil || !at.up {
				if y := next.At(x.Replica); y != nil && h>>16%2 == 0 {
					y.Eligible = false
				} else {
					next.Remove(x.Replica)
				}
				continue
			}
			p := &at.disk.platter[o.gi]
			if next.At(x.Replica) == nil || !at.alive() || !w.net.ok(o.n.ord, at.ord) || p.replica != x.Replica || !at.intact(o.gi, x.Replica) || at.hosts[o.gi] == nil || at.hosts[o.gi].rep == nil {
				return nil
			}
			whole = whole || x.Eligible && x.Kind != partition.Learner && p.holds(end)
		}
	}
	if !whole || slices.EqualFunc(next.Members, last.Members, func(a, b partition.Member) bool { return a == b }) || next.Validate() != nil {
		return nil
	}
	return next
}

// runs reports whether a replica's node is up.
func (w *world) runs(gi int, r partition.ReplicaID) bool {
	return slices.ContainsFunc(w.nodes, func(n *node) bool { return n.up && n.disk.platter[gi].replica == r })
}

// placeOf is the node that has an identity now, or nil.
func (w *world) placeOf(id partition.NodeID) *node {
	who, ok := w.whoIs[id]
	if !ok || w.owner[who] < 0 {
		return nil
	}
	return w.nodes[w.owner[who]]
}

// permitDecree lets the control group permit a decree, and gives it to the replica.
func (w *world) permitDecree(o *host, next *partition.Membership) {
	l := &w.control.groups[o.gi]
	if w.control.down > 0 || w.control.cutOff(o.n) {
		return
	}
	p := &l.permit
	*p = permit{number: p.number + 1, holder: o.replica, next: next.Next, lock: max(p.lock, l.last), seq: math.MaxUint64, granted: p.granted + 1}
	if l.holder != 0 && !p.mayLead(l.holder) {
		l.holder, l.number = 0, 0
	}
	next.Alone, next.Permit = p.number, p.number
	w.decreed = w.eng.now + recoverWait
	w.mark("sim.decreed")
	w.tracef("%s is to recover the group: %s", o, showMembers(next))
	o.take(replica.Recover{ID: o.remember(call{act: &act{}}), Membership: next})
}
