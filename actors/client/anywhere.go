package client

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"time"

	"pando.dev/pando/partition"
)

// site is a node with a partition's state, and how far away it is.
type site struct {
	member
	distance distance
}

// distance orders the sites of a partition for a read that any of them may
// answer.
type distance uint8

const (
	here     distance = iota // this process
	near                     // the client's zone
	far                      // another zone, or none is known
	restingD                 // in maintenance, wherever it is
)

// maxSites is how many sites of a partition are used: a round remembers them in
// one word.
const maxSites = maxMembers

// sitesOf lists the route's sites, nearest first.
func (c *Client) sitesOf(rt *route, r *routing) []site {
	sites := make([]site, 0, len(rt.Members)+len(rt.Resting))
	add := func(m member, d distance) {
		if c.local != nil && m.peer == peer(c.local) {
			d = min(d, here)
		}
		sites = append(sites, site{m, d})
	}
	for _, m := range rt.members {
		if c.cfg.Zone != "" && m.zone == c.cfg.Zone {
			add(m, near)
		} else {
			add(m, far)
		}
	}
	for _, id := range rt.Resting {
		if m := r.nodes[id]; m != nil {
			sites = append(sites, site{*m, restingD})
		}
	}
	slices.SortStableFunc(sites, func(a, b site) int { return cmp.Compare(a.distance, b.distance) })
	return sites[:min(len(sites), maxSites)]
}

// round is one look at all sites of a partition.
type round struct {
	of    *route
	asked uint64 // bit i: of.sites[i] was asked, or could not be
}

// use takes the options of a read, or refuses them and the call.
func (k *call) use(o ReadOptions) error {
	if err := o.Check(); err != nil {
		k.leave()
		return err
	}
	k.opts = o
	return nil
}

// anywhere reports whether any full replica may answer the call.
func (k *call) anywhere() bool { return k.req.Op == OpRead && k.req.Level.Anywhere() }

// choose returns the node to ask, nil if none can be reached now.
func (k *call) choose(rt *route, now time.Time) *member {
	if !k.anywhere() {
		return k.at.choose(k.routing, rt.members, now)
	}
	k.req.MinIndex = k.opts.least(rt.group.id)
	if k.round.of != rt {
		k.round = round{of: rt}
	}
	i := k.round.choose(k.asked, rt.group.presumed(), now)
	if i < 0 {
		return nil
	}
	k.round.asked |= 1 << i
	return &rt.sites[i].member
}

// masterAfter is how many sites are asked before the master is, which is never
// behind.
const masterAfter = 2

// choose returns the nearest site that was not asked in the round, any of those
// that are equally near, so that the load spreads; -1 if there is none.
func (r *round) choose(asked int, master partition.NodeID, now time.Time) int {
	best, equal := -1, 0
	for i := range r.of.sites {
		s := &r.of.sites[i]
		switch {
		case r.asked&(1<<i) != 0 || s.peer.down(now):
		case asked >= masterAfter && s.node == master:
			return i
		case best < 0: // they are in the order of their distance
			best, equal = i, 1
		case s.distance == r.of.sites[best].distance:
			if equal++; rand.IntN(equal) == 0 {
				best = i
			}
		}
	}
	return best
}

// judgeReplica decides what the error of one replica means for a read that any
// may answer: mostly that another is asked.
func (k *call) judgeReplica(e *partition.Error) {
	switch e.Code {
	case partition.CodeBehind:
		k.c.cfg.Stats.Behind.Add(1)
		k.at.hint("", e.Master)
		k.nextReplica()
	case partition.CodeNotMaster, partition.CodeNewerEpoch, partition.CodeUnavailable, partition.CodeClosed,
		partition.CodeBusy, partition.CodeTimeout, partition.CodeUnknown, partition.CodeNotFound:
		k.nextReplica()
	case partition.CodeWrongGroup:
		k.c.cfg.Stats.Redirects.Add(1)
		k.awaitRoutes()
	default:
		k.fail(e)
	}
}

// nextReplica asks the next site at once; after all, it backs off.
func (k *call) nextReplica() {
	rt := k.target()
	if rt == nil || rt == k.round.of && k.asked >= len(rt.sites) {
		k.endRound()
		return
	}
	k.advance()
}

// endRound begins another round after a pause. Now and then it wants new routes
// first, at once if the sites say that the partition is not there.
func (k *call) endRound() {
	k.round = round{}
	if partition.CodeOf(k.last) == partition.CodeNotFound || (k.tries+1)%refreshEvery == 0 {
		k.tries++
		k.awaitRoutes()
		return
	}
	k.pause(backoff(k.tries, searchMin, searchMax))
}
