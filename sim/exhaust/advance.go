package exhaust

import (
	"slices"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

// advance makes x the world after an action, and returns what of the properties
// does not hold then, or nothing.
func (w *walk) advance(x *world, a action) string {
	n, arg := a.node(), a.arg()
	switch a.kind() {
	case deliver:
		x.take(uint32(arg))
	case drop:
		x.take(uint32(arg))
		x.left[losses]--
		return ""
	}
	if b, ok := costs(a.kind()); ok && !w.healing && !w.free(x, a) {
		x.left[b]--
	}
	why := w.happen(x, a)
	switch a.kind() {
	case crash, start:
		if w.cfg.InOrder && a.kind() == crash {
			x.mail = slices.DeleteFunc(x.mail, func(m uint32) bool { return w.letters.list[m].to == n })
		}
		if w.cfg.QuickHints && why == "" {
			why = w.hint(x, n)
		}
	}
	return why
}

// happen lets an action happen to its node.
func (w *walk) happen(x *world, a action) string {
	n := a.node()
	var moved partition.Time
	was := w.nodes.list[x.nodes[n]]
	if a.kind() == alarm && (w.cfg.Leases || w.healing) {
		moved = max(0, was.alarm-was.now-x.lag[n])
	}
	e := w.nodes.after(question{node: x.nodes[n], action: seen(a), lag: x.lag[n]})
	if e.broken != "" {
		return e.broken
	}
	x.nodes[n], x.lag[n] = e.next, 0
	for i := range w.cfg.Replicas {
		if moved > 0 && i != n {
			x.lag[i] += moved
		}
	}
	for _, m := range e.sends {
		w.put(x, m)
	}
	if e.grant != nil {
		w.holds(x, n, a.arg(), e.grant)
	}
	return w.judge(x, a, was, e)
}

// hint lets everybody know at once that a node has stopped or started, and that node
// who is there.
func (w *walk) hint(x *world, n int) string {
	for o := range w.cfg.Replicas {
		for _, pair := range [2][2]int{{n, o}, {o, n}} {
			l, other := w.nodes.list[x.nodes[pair[0]]], w.nodes.list[x.nodes[pair[1]]]
			if o == n || !l.up {
				continue
			}
			h := action(0)
			switch away := l.unreachable&(1<<pair[1]) != 0; {
			case away && other.up:
				h = up.of(pair[0], pair[1])
			case !away && !other.up:
				h = down.of(pair[0], pair[1])
			case other.up && max(l.met[pair[1]], 1) != other.boot:
				h = anew.of(pair[0], pair[1]+maxReplicas*int(other.boot))
			default:
				continue
			}
			if why := w.happen(x, h); why != "" {
				return why
			}
		}
	}
	return ""
}

// seen is an action as the node sees it: a message that stays under way arrives
// like any other.
func seen(a action) action {
	if a.kind() == repeat {
		return deliver.of(a.node(), a.arg())
	}
	return a
}

// costs is the budget that an action is taken from.
func costs(k kind) (budget, bool) {
	switch k {
	case repeat:
		return repeats, true
	case alarm:
		return alarms, true
	case refused:
		return refusals, true
	case outdated:
		return oldLocks, true
	case down:
		return downs, true
	case crash:
		return crashes, true
	case transfer:
		return transfers, true
	case resign:
		return resigns, true
	case configure:
		return configures, true
	case grant:
		return grants, true
	case propose:
		return retries, true
	}
	return 0, false
}

// free reports whether this time nothing is taken from the budget.
func (w *walk) free(x *world, a action) bool {
	switch a.kind() {
	case down:
		return !w.nodes.list[x.nodes[a.arg()]].up
	case propose:
		return a.arg()>>4 == 0
	}
	return false
}

// holds gives a node the grant of another. It counts from when it was made.
func (w *walk) holds(x *world, by, to int, g *held) {
	l := w.nodes.list[x.nodes[to]].fork()
	l.held[by] = *g
	l.held[by].until = l.now + x.lag[to] + w.nodes.cfg.Lease
	if l.up {
		l.look()
	}
	x.nodes[to] = w.nodes.number(l)
}

// changed is the next configuration that an operator may ask a master for, or nil
// if the change makes none.
func (w *walk) changed(l *local, how int) *partition.Membership {
	m := active(l.seen.recs, partition.Index(len(l.seen.recs))).Last()
	next := m.Successor()
	x := next.At(partition.ReplicaID(how%maxReplicas + 1))
	if x == nil {
		return nil
	}
	switch changes[how/maxReplicas] {
	case "remove":
		next.Remove(x.Replica)
	case "ineligible":
		if !x.Eligible {
			return nil
		}
		x.Eligible = false
	case "eligible":
		if x.Eligible {
			return nil
		}
		x.Eligible = true
	}
	if m.CheckNext(next) != nil {
		return nil
	}
	return next
}

// command is a client's command: which, and which try of it.
func (w *walk) command(op, try int) replica.Proposal {
	return replica.Proposal{
		ID: uint64(op|try<<4) + 1, Kind: partition.KindCommand,
		Payload: replica.AppendCommand(nil, w.session, uint64(op)+1, []byte{byte(op)}),
	}
}
