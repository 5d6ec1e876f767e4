package replica

import (
	"cmp"
	"slices"

	"pando.dev/pando/internal/planted"
	"pando.dev/pando/partition"
)

// A lease is a grant between two nodes, kept by the host (Neighbours). The
// machine only says in which epoch it counts for this group:
//
//	grantor   promise(newer epoch): Revoke; what was granted before runs until
//	          leaseUntil, accumulated over all earlier promises
//	candidate adds up the LeaseRemaining of its failover set, its own included
//	master    acknowledges no write and answers no linearizable read before
//	          that time; then its view says Serving
//	holder    View.LeaseEnd: while the members whose grants run are Durable
//
// A master that hands over gives its lease up first. From then on no lease counts
// in its epoch or before: its own is gone, and the earlier ones had run out when
// it began to serve. Whoever hears of that (released) forgets what it has granted
// for these epochs, if it has granted nothing for a later one.

// promise binds this replica to a newer epoch. Whoever answers because of it
// waits until it is on disk.
func (r *Replica) promise(e partition.Epoch, node partition.NodeID) {
	assert(e > r.promised || r.cfg.Planted.Has(planted.SharedPromise), "promise of %s after %s", e, r.promised)
	holder := r.promised.Replica()
	if holder != 0 && holder != r.cfg.Self && !r.cfg.Planted.Has(planted.GrantOutlives) {
		until := r.cfg.Neighbours.Revoke(r.cfg.Group, r.cfg.Self, e, r.promisedNode)
		if r.promisedNode == "" {
			until = r.now + r.cfg.Lease // who holds it is not known: assume the worst
		}
		r.leaseUntil, r.leaseEpoch = max(r.leaseUntil, until), max(r.leaseEpoch, r.promised)
		r.learnReleased(0)
	}
	if r.successor.id != e.Replica() {
		r.successor = peerRef{}
	}
	if r.hand.step == gone {
		r.hand.again = 0 // whoever is to know, knows
	}
	if !r.heir.taking || e.Replica() != r.cfg.Self {
		r.dropHeir(0)
	}
	r.promised, r.promisedNode, r.seen = e, node, max(r.seen, e)
	r.master, r.masterDown, r.follow = 0, false, follow{}
	r.trace("promised")
}

// publish hands out a new view if what it shows has changed.
func (r *Replica) publish() {
	master := r.master
	if r.isMaster() {
		master = r.cfg.Self
	}
	v, next, active := r.view, r.next(), r.active
	if r.cfg.Planted.Has(planted.LeaseNotJoint) {
		active = active[len(active)-1:]
	}
	if r.cfg.Planted.Has(planted.KeepView) && v != nil && v.Serving && r.hand.step == gone && v.Epoch == r.promised {
		return
	}
	if v != nil && v.Epoch == r.promised && v.Master == master && v.Serving == (r.phase == serving) &&
		slices.Equal(v.Configurations, active) && v.Next == next && !r.mastery.newSupport {
		return
	}
	r.mastery.newSupport = false
	r.view = &View{
		Group: r.cfg.Group, Self: r.cfg.Self, Epoch: r.promised, Master: master,
		Serving: r.phase == serving, Next: next, Supporters: r.supporting(), Configurations: active,
	}
	r.out = append(r.out, &Publish{View: r.view})
}

// supporting lists the members that have promised the epoch of this master.
func (r *Replica) supporting() []Supporter {
	if !r.isMaster() {
		return nil
	}
	list := []Supporter{{Replica: r.cfg.Self}}
	for _, p := range r.mastery.peers {
		if p.supports {
			list = append(list, Supporter{Replica: p.id, Boot: p.boot})
		}
	}
	slices.SortFunc(list, func(a, b Supporter) int { return cmp.Compare(a.Replica, b.Replica) })
	return list
}
