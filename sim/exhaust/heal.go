package exhaust

import (
	"fmt"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

// maxHealing bounds the actions of a way to agreement.
const maxHealing = 3000

// toldHealing bounds how much of such a way a violation tells.
const toldHealing = 30

// due reports whether the state of this number is one to be healed.
func (w *walk) due(n uint32) bool {
	return w.cfg.HealEvery > 0 && n%uint32(w.cfg.HealEvery) == 0
}

// heals lets a world go on without faults and notes a violation.
func (w *walk) heals(x *world, from uint32) bool {
	var y world
	y.copyFrom(x)
	way, why := w.calm(&y)
	if why == "" {
		why = w.agree(&y)
	}
	w.report.Healed++
	w.report.HealSteps = max(w.report.HealSteps, len(way))
	if why == "" {
		return false
	}
	w.report.Violation = w.violation(why, w.path(from), way)
	return true
}

// calm lets a world go on without faults, in the order in which things are quick,
// until nothing is under way: nodes start, disks write, what was asked for is
// answered, everybody learns whom it reaches, messages arrive, and at last the
// alarm that is due first goes off. It returns the actions.
func (w *walk) calm(x *world) (way []action, why string) {
	w.healing = true
	defer func() { w.healing = false }()
	var todo []action
	for len(way) < maxHealing {
		todo = w.quiet(todo[:0], x)
		if len(todo) == 0 {
			return way, ""
		}
		best := todo[0]
		for _, a := range todo[1:] {
			if w.sooner(x, a, best) {
				best = a
			}
		}
		way = append(way, best)
		if why := w.advance(x, best); why != "" {
			return way, why
		}
	}
	return way, fmt.Sprintf("rest: the group does not come to rest within %d actions without faults", maxHealing)
}

// sooner reports whether, without faults, a happens before b. It does not depend on how
// things are numbered.
func (w *walk) sooner(x *world, a, b action) bool {
	p, q := order(a.kind()), order(b.kind())
	due := func(a action) partition.Time {
		l := w.nodes.list[x.nodes[a.node()]]
		return l.alarm - l.now - x.lag[a.node()]
	}
	switch {
	case p != q:
		return p < q
	case a.kind() == alarm:
		return due(a) < due(b)
	case a.kind() == deliver && !w.ordered:
		return w.letters.keys[a.arg()] < w.letters.keys[b.arg()]
	}
	return false
}

// order ranks what happens without faults, 99 what does not.
func order(k kind) int {
	switch k {
	case start:
		return 0
	case sync:
		return 1
	case applied:
		return 2
	case locked:
		return 3
	case up, anew:
		return 4
	case deliver:
		return 5
	case alarm:
		return 6
	}
	return 99
}

// quiet appends what may happen without faults.
func (w *walk) quiet(list []action, x *world) []action {
	left := x.left
	x.left = [budgets]uint8{alarms: 1}
	all := w.options(list, x)
	x.left = left
	kept := all[:0]
	for _, a := range all {
		if order(a.kind()) < 99 {
			kept = append(kept, a)
		}
	}
	return kept
}

// agree checks a world at rest: one master serves, everybody else has the same log,
// knows all of it to be committed and has applied it.
func (w *walk) agree(x *world) string {
	h := w.histories.list[x.history]
	m := h.configuration()
	var master *local
	for n := range w.cfg.Replicas {
		if l := w.nodes.list[x.nodes[n]]; l.status.serving {
			if master != nil {
				return fmt.Sprintf("agreement: replicas %d and %d both serve at rest", master.self+1, n+1)
			}
			master = l
		}
	}
	if master == nil {
		return "agreement: nobody serves at rest"
	}
	for n := range w.cfg.Replicas {
		l := w.nodes.list[x.nodes[n]]
		if _, ok := m.Member(partition.ReplicaID(n + 1)); !ok {
			continue
		}
		last := h.last()
		if l.seen.last() != last.Index() || l.seen.recs[last.Index()-1].Checksum() != last.Checksum() || !l.synced.has(last.Position()) {
			return fmt.Sprintf("agreement: replica %d ends at %s at rest, committed is %s", n+1, l.seen.recs[l.seen.last()-1], last)
		}
		if l.status.commit != last.Index() || l.applied != last.Index() {
			return fmt.Sprintf("agreement: replica %d has committed %d and applied %d at rest, of %d", n+1, l.status.commit, l.applied, last.Index())
		}
	}
	for i := range h.ops {
		if o := &h.ops[i]; o.state == open {
			return fmt.Sprintf("agreement: command %d is not answered at rest", i+1)
		}
	}
	for i := range h.reads {
		if o := &h.reads[i]; o.state == open {
			return fmt.Sprintf("agreement: read %d is not answered at rest", i+1)
		}
	}
	return ""
}

// set makes the first world. What it returns is a violation on the way there.
func (w *walk) set() string {
	m := &partition.Membership{Version: 1, Policy: partition.Policy{Rule: partition.Majority}, Next: partition.ReplicaID(w.cfg.Replicas + 1)}
	for n := range w.cfg.Replicas {
		m.Members = append(m.Members, partition.Member{
			Replica: partition.ReplicaID(n + 1), Node: nodeName(n), Kind: partition.Full, Eligible: true,
		})
	}
	genesis, err := partition.Genesis(group, m)
	if err != nil {
		panic(err)
	}
	x := &w.first
	committed := []partition.Record{genesis}
	if w.cfg.Start == Overtaken {
		committed = overtaken(1, genesis).recs
	}
	x.history = w.histories.number(&history{committed: committed})
	for n := range w.cfg.Replicas {
		l := &local{self: n, synced: image{commit: 1, recs: []partition.Record{genesis}}}
		if w.cfg.Start == Parted {
			l.boot, l.synced = 1, parted(n, genesis)
		} else if w.cfg.Start == Overtaken {
			l.boot, l.synced = 1, overtaken(n, genesis)
		}
		l.seen = l.synced
		x.nodes[n] = w.nodes.number(l)
	}
	why := w.begins(x)
	for i, n := range w.cfg.budget() {
		x.left[i] = uint8(n)
	}
	x.lag = [maxReplicas]partition.Time{}
	return why
}

// begins brings the nodes to where the walk starts.
func (w *walk) begins(x *world) (why string) {
	all := func(a func(n int) action) {
		for n := range w.cfg.Replicas {
			if x := a(n); x != 0 && why == "" {
				why = w.happen(&w.first, x)
			}
		}
	}
	if w.cfg.Start != Led && w.cfg.Start != Deserted {
		all(func(n int) action { return start.of(n, 0) })
		return why
	}
	if why = w.warm(x); why != "" {
		return why
	}
	x.lag = [maxReplicas]partition.Time{}
	others := func(k kind) func(n int) action {
		return func(n int) action {
			if n == 0 {
				return 0
			}
			return k.of(n, 0)
		}
	}
	if w.cfg.Leases {
		all(others(grant))
	}
	if w.cfg.Start == Deserted {
		all(others(down))
	}
	return why
}

// warm lets replica 1 become master and open a session for the client, if that is to
// have one.
func (w *walk) warm(x *world) string {
	_, why := w.calm(x)
	if why != "" || w.cfg.Retries == 0 {
		return why
	}
	// The session's record is the next one.
	last := w.histories.list[x.history].last().Index()
	w.session = partition.SessionID{Group: group, Index: last + 1}
	l := w.nodes.list[x.nodes[0]].fork()
	d := doing{k: w.nodes, l: l, e: new(effect)}
	d.step(replica.Propose{Proposals: []replica.Proposal{{
		ID: otherID, Kind: partition.KindSession, Payload: replica.AppendOpenSession(nil),
	}}})
	l.look()
	x.nodes[0] = w.nodes.number(l)
	for _, m := range d.e.sends {
		w.put(x, m)
	}
	if _, why = w.calm(x); why == "" {
		why = w.agree(x)
	}
	return why
}

// parted is a disk after two masterships that got nowhere. Replica 1 was elected by
// itself and 2 in epoch 1.1, and only it has the first record of that; replica 2 by
// itself and 3 in 2.2, and only it has that one's.
func parted(n int, genesis partition.Record) image {
	one, two := partition.NewEpoch(1, 1), partition.NewEpoch(2, 2)
	switch n {
	case 0:
		return image{promise: one, commit: 1, recs: noops(genesis, one, 1)}
	case 1:
		return image{promise: two, commit: 1, recs: noops(genesis, two, 1)}
	}
	return image{promise: two, commit: 1, recs: noops(genesis, two, 0)}
}

// overtaken is a disk after one that got nowhere, though it wrote more, and one that
// has committed.
func overtaken(n int, genesis partition.Record) image {
	one, two := partition.NewEpoch(1, 1), partition.NewEpoch(2, 2)
	if n == 0 {
		return image{promise: one, commit: 1, recs: noops(genesis, one, 3)}
	}
	return image{promise: two, commit: 1, recs: noops(genesis, two, 1)}
}

// noops is a log with n records of an epoch behind the first. What kind they are makes
// no difference here.
func noops(genesis partition.Record, e partition.Epoch, n int) []partition.Record {
	recs := []partition.Record{genesis}
	for range n {
		last := recs[len(recs)-1]
		recs = append(recs, partition.NewRecord(partition.Header{
			Group: group, Index: last.Index() + 1, Epoch: e, Prev: last.Checksum(), Kind: partition.KindNoop,
		}))
	}
	return recs
}
