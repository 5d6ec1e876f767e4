package exhaust

import (
	"fmt"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

// judge looks at what one action has changed: at a node, which was so before, by
// what it has done. It raises the history, and returns what does not hold.
func (w *walk) judge(x *world, a action, was *local, e *effect) string {
	n := a.node()
	now := w.nodes.list[e.next]
	h := w.histories.list[x.history]
	if x.nodes[n] == e.next && now == was && len(e.replies) == 0 && a.kind() != propose && a.kind() != read && !w.cfg.Leases {
		return ""
	}
	j := verdict{w: w, x: x, n: n, was: was, now: now, h: h}
	switch a.kind() {
	case propose:
		j.change().ops[a.arg()&15].asked(n, h.floor)
	case read:
		j.change().reads[a.arg()].asked(n, h.floor)
	case crash:
		j.change().lost(n)
	}
	if j.now.up && j.now.applied > j.now.synced.last() {
		j.fail("the log leads: replica %d has applied %d, its disk has %d", n+1, j.now.applied, j.now.synced.last())
	}
	j.masters()
	j.matching()
	j.snips(e.lost)
	j.commits()
	j.durable()
	for _, r := range e.replies {
		j.replied(r)
	}
	if w.cfg.Leases {
		j.leases()
	}
	if j.why != "" {
		return j.why
	}
	if j.own {
		x.history = w.histories.number(j.h)
	}
	return ""
}

// verdict is one look at one node.
type verdict struct {
	w        *walk
	x        *world
	n        int
	was, now *local
	h        *history
	own      bool // h may be written
	why      string
}

func (j *verdict) change() *history {
	if !j.own {
		j.h, j.own = j.h.fork(), true
	}
	return j.h
}

func (j *verdict) fail(format string, args ...any) {
	if j.why == "" {
		j.why = fmt.Sprintf(format, args...)
	}
}

// node is the state of a node in the world that is looked at.
func (j *verdict) node(n int) *local { return j.w.nodes.list[j.x.nodes[n]] }

// masters checks that no epoch has two.
func (j *verdict) masters() {
	if !j.now.status.master || j.was.status.master && j.was.status.epoch == j.now.status.epoch {
		return
	}
	for o := range j.w.cfg.Replicas {
		if o != j.n && j.node(o).led == j.now.status.epoch {
			j.fail("one master per epoch: replicas %d and %d are both masters in epoch %s", o+1, j.n+1, j.now.status.epoch)
		}
	}
}

// matching checks that one position names one record, and so one log before it.
func (j *verdict) matching() {
	mine := j.now.seen.recs
	if len(mine) == len(j.was.seen.recs) && mine[len(mine)-1].Checksum() == j.was.seen.recs[len(mine)-1].Checksum() {
		return
	}
	for o := range j.w.cfg.Replicas {
		for i, r := range j.node(o).seen.recs {
			if i < len(mine) && r.Epoch() == mine[i].Epoch() && r.Checksum() != mine[i].Checksum() {
				j.fail("log matching: replicas %d and %d have different records %s", j.n+1, o+1, r.Position())
			}
		}
	}
}

// holding tells whose disk has the log up to a record.
func (j *verdict) holding(r partition.Record) func(partition.ReplicaID) bool {
	return func(id partition.ReplicaID) bool {
		return int(id) <= j.w.cfg.Replicas && j.node(int(id)-1).synced.has(r.Position())
	}
}

// snips checks that no committed record is let go of. A master of an older epoch
// may take one from a member that did not count when it was committed, and does not
// know.
func (j *verdict) snips(lost []partition.Record) {
	for _, r := range lost {
		if int(r.Index()) > len(j.h.committed) || j.h.committed[r.Index()-1].Checksum() != r.Checksum() {
			continue
		}
		if r.Index() <= j.was.status.commit || !j.h.configuration().Durable(j.holding(j.h.last())) {
			j.fail("committed records stay: replica %d snips %s, which is committed", j.n+1, r)
		}
	}
}

// commits checks what a node takes for committed, and notes what is new.
func (j *verdict) commits() {
	from := j.was.status.commit
	if j.was.boot != j.now.boot {
		from = 0
	}
	for i := from + 1; i <= j.now.status.commit; i++ {
		if i > j.now.seen.last() {
			j.fail("commit: replica %d commits %d, its log ends at %d", j.n+1, i, j.now.seen.last())
			return
		}
		r := j.now.seen.recs[i-1]
		if int(i) <= len(j.h.committed) {
			if c := j.h.committed[i-1]; c.Checksum() != r.Checksum() {
				j.fail("one history: replica %d commits %s, where %s is committed", j.n+1, r, c)
			}
			continue
		}
		if !j.now.status.master && !j.was.status.master { // it may end with what it commits
			j.fail("commit: replica %d, no master, is the first to commit %s", j.n+1, r)
		}
		for _, m := range active(j.now.seen.recs, i-1) {
			if !m.Durable(j.holding(r)) {
				j.fail("durability: replica %d commits %s, which no durable set of configuration %d has on disk", j.n+1, r, m.Version)
			}
		}
		h := j.change()
		h.committed = append(h.committed, r)
		j.executes()
	}
}

// executes checks what the committed records do to a state.
func (j *verdict) executes() {
	if j.why != "" {
		return
	}
	l := j.w.ledger(j.h.committed)
	if l.bad != "" {
		j.fail("%s", l.bad)
	}
	for i := range j.h.ops {
		o := &j.h.ops[i]
		if l.runs[i] > 1 {
			j.fail("executed once: command %d is executed %d times", i+1, l.runs[i])
		}
		if o.state == denied && o.tries == 1 && l.runs[i] > 0 {
			j.fail("refused is refused: command %d is committed after it was refused", i+1)
		}
	}
}

// durable checks, whenever a disk may have lost something, that what is committed
// is on the disks of a durable set.
func (j *verdict) durable() {
	if j.now.synced.last() >= j.was.synced.last() && j.now.boot == j.was.boot && j.now.up == j.was.up && !j.own {
		return
	}
	if m := j.h.configuration(); !m.Durable(j.holding(j.h.last())) {
		j.fail("durability: no durable set of configuration %d has %s on disk any more, which is committed", m.Version, j.h.last())
	}
}

// replied checks an answer to a client.
func (j *verdict) replied(r reply) {
	switch {
	case r.id >= otherID:
		return
	case r.id >= readID:
		j.answered(r)
		return
	}
	i := int(r.id-1) & 15
	h := j.change()
	o := &h.ops[i]
	switch {
	case o.state != open:
		j.fail("answers: command %d is answered twice", i+1)
	case r.code == partition.CodeUnknown:
		o.state = unknown
	case r.code != 0:
		o.state = denied
		j.executes()
	case int(r.index) > len(h.committed):
		j.fail("acknowledged is committed: command %d is acknowledged at %d, which is not committed", i+1, r.index)
	default:
		o.state, o.answered = done, r.index
		c := h.committed[r.index-1]
		if _, _, body, err := replica.ParseCommand(c.Payload()); c.Kind() != partition.KindCommand || err != nil || len(body) != 1 || int(body[0]) != i {
			j.fail("acknowledged is committed: command %d is acknowledged at %d, where %s is", i+1, r.index, c)
		}
		if r.index <= o.floor {
			j.fail("real time: command %d is acknowledged at %d, when it was called %d was visible", i+1, r.index, o.floor)
		}
		h.floor = max(h.floor, r.index)
	}
}

// answered checks an answer to a quorum read: it shows what was known when it was
// asked for.
func (j *verdict) answered(r reply) {
	i := int(r.id - readID)
	h := j.change()
	o := &h.reads[i]
	if r.code != 0 {
		o.state = denied
		return
	}
	o.state, o.answered = done, j.now.applied
	if j.now.applied < o.floor {
		j.fail("fresh reads: read %d at replica %d shows %d, when it was asked for %d was visible", i+1, j.n+1, j.now.applied, o.floor)
	}
	h.floor = max(h.floor, j.now.applied)
}

// leases checks that one replica at most may answer reads without asking, and that
// it has all that anybody knows of. It is taken to do so all the time.
func (j *verdict) leases() {
	holder := -1
	for n := range j.w.cfg.Replicas {
		l := j.node(n)
		if !l.up || l.status.leaseEnd <= l.now+j.x.lag[n] {
			continue
		}
		if holder >= 0 {
			j.fail("one lease: replicas %d and %d both may answer reads", holder+1, n+1)
		}
		holder = n
		if l.applied < j.h.floor {
			j.fail("fresh reads: replica %d, which holds a lease, shows %d, %d was visible before", n+1, l.applied, j.h.floor)
		}
		if l.applied > j.h.floor {
			j.change().floor = l.applied
		}
	}
}
