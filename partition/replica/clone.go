package replica

import (
	"math/rand/v2"
	"slices"
)

// Clone returns a replica that stands where r stands: from equal events on both
// do the same work, and neither sees what the other does. So a search can try
// every event that may come next. The clone gets Neighbours and a source of
// chance of its own, since both may change with what is asked of them; the rest
// of the Config, its hooks included, is shared.
//
// What is never written again after it was made is shared too: records, messages,
// views, configurations and work.
func (r *Replica) Clone(n Neighbours, chance *rand.Rand) *Replica {
	c := *r
	c.cfg.Neighbours, c.cfg.Rand = n, chance
	c.log = r.log.clone()
	c.active = slices.Clone(r.active)
	c.removal.settled = slices.Clone(r.removal.settled)
	if r.decree != nil {
		d := *r.decree
		c.decree = &d
	}
	if r.appointed != nil {
		a := *r.appointed
		c.appointed = &a
	}
	c.attempt = r.attempt.clone()
	c.mastery = r.mastery.clone()
	c.heir.proposed = slices.Clone(r.heir.proposed)
	c.heir.reads = slices.Clone(r.heir.reads)
	c.writing = slices.Clone(r.writing)
	c.sends = slices.Clone(r.sends)
	c.locks = slices.Clone(r.locks)
	c.replies = slices.Clone(r.replies)
	c.out = slices.Clone(r.out)
	return &c
}

// clone copies the slices, since append may write behind their end.
func (l *log) clone() *log {
	c := *l
	c.runs = slices.Clone(l.runs)
	c.configs = slices.Clone(l.configs)
	c.tail = slices.Clone(l.tail)
	return &c
}

func (a *attempt) clone() attempt {
	c := *a
	c.probed = slices.Clone(a.probed)
	c.asked = slices.Clone(a.asked)
	c.useless = slices.Clone(a.useless)
	c.supporters = slices.Clone(a.supporters)
	return c
}

func (m *mastery) clone() mastery {
	c := *m
	c.peers = slices.Clone(m.peers)
	for i, p := range m.peers {
		q := *p
		q.sent = slices.Clone(p.sent)
		c.peers[i] = &q
	}
	c.proposed = slices.Clone(m.proposed)
	c.pending = slices.Clone(m.pending)
	c.marks = slices.Clone(m.marks)
	c.reads.waiting = slices.Clone(m.reads.waiting)
	c.reads.round = slices.Clone(m.reads.round)
	c.reads.confirmed = slices.Clone(m.reads.confirmed)
	c.reads.done = slices.Clone(m.reads.done)
	return c
}
