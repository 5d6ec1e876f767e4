package control

import (
	"cmp"
	"slices"
	"time"

	"pando.dev/pando/partition"
)

// renewals is the leader's memory of when each session was renewed last, on its
// own monotonic clock. It is pure; its owner has the clock.
type renewals struct {
	last   map[partition.NodeID]renewal
	term   uint64 // in which this node leads; 0: it does not
	ticked partition.Time
}

// renewal is the last sign of life of a node's process.
type renewal struct {
	at   partition.Time
	boot uint64
}

func (r *renewals) renew(now partition.Time, node partition.NodeID, boot uint64) {
	r.last[node] = renewal{at: now, boot: boot}
}

// silent returns the sessions that have not been renewed for longer than ttl, if
// this node leads, in the given term. A new leader has heard nothing yet, so it
// gives every session its full time. It is called at most period apart; a longer
// pause means that this process stood still and could not hear, so the time of
// the pause does not count.
func (r *renewals) silent(now partition.Time, term uint64, sessions map[partition.NodeID]session, ttl, period time.Duration) []sessionItem {
	fresh, pause := term != r.term, now-r.ticked-2*period
	r.term, r.ticked = term, now
	if term == 0 {
		return nil
	}
	var all []sessionItem
	live := make(map[partition.NodeID]renewal, len(sessions))
	for node, x := range sessions {
		if x.expired {
			continue
		}
		at, ok := r.last[node]
		switch {
		case fresh || !ok || at.boot != x.boot:
			at = renewal{at: now, boot: x.boot}
		case pause > 0:
			at.at += pause
		}
		live[node] = at
		if now-at.at > ttl {
			all = append(all, sessionItem{Node: node, Boot: x.boot})
		}
	}
	r.last = live
	slices.SortFunc(all, func(a, b sessionItem) int { return cmp.Compare(a.Node, b.Node) })
	return all
}
