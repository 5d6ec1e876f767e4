package exhaust

import (
	"encoding/binary"
	"slices"

	"pando.dev/pando/partition"
)

// budget is one of the numbers of a Config that bound a path.
type budget uint8

const (
	crashes budget = iota
	downs
	alarms
	losses
	repeats
	refusals
	oldLocks
	retries
	transfers
	resigns
	configures
	grants
	budgets
)

// world is one state of a configuration: three nodes or so, by the numbers of their
// states, what is on its way between them, and what is left of the budgets.
type world struct {
	nodes   [maxReplicas]uint32
	lag     [maxReplicas]partition.Time // of each node's newest event behind the time; 0 without Leases
	history uint32
	left    [budgets]uint8
	// mail is what is under way, ascending; a message that is under way twice is there
	// twice. If the order of sending matters, it is ascending by link and in that order
	// on each link.
	mail []uint32
}

// appendTo encodes a world in as few bytes as it takes.
func (x *world) appendTo(b []byte, n int, lags bool) []byte {
	le := binary.LittleEndian
	for i := range n {
		b = le.AppendUint32(b, x.nodes[i])
		if lags {
			b = le.AppendUint64(b, uint64(x.lag[i]))
		}
	}
	b = le.AppendUint32(b, x.history)
	b = append(b, x.left[:]...)
	for _, m := range x.mail {
		b = le.AppendUint32(b, m)
	}
	return b
}

func (x *world) parse(b []byte, n int, lags bool) {
	le := binary.LittleEndian
	for i := range n {
		x.nodes[i], b = le.Uint32(b), b[4:]
		if lags {
			x.lag[i], b = partition.Time(le.Uint64(b)), b[8:]
		}
	}
	x.history, b = le.Uint32(b), b[4:]
	b = b[copy(x.left[:], b):]
	x.mail = x.mail[:0]
	for ; len(b) > 0; b = b[4:] {
		x.mail = append(x.mail, le.Uint32(b))
	}
}

// put adds a message to what is on its way.
func (w *walk) put(x *world, m uint32) {
	if !w.ordered {
		i, _ := slices.BinarySearch(x.mail, m)
		x.mail = slices.Insert(x.mail, i, m)
		return
	}
	link, first := w.link(m), 0
	for first < len(x.mail) && w.link(x.mail[first]) < link {
		first++
	}
	end := first
	for end < len(x.mail) && w.link(x.mail[end]) == link {
		end++
	}
	x.mail = slices.Insert(x.mail, end, m)
	if w.cfg.Window > 0 && end-first >= w.cfg.Window && !w.healing {
		x.mail = slices.Delete(x.mail, first, first+1)
	}
}

// take removes a message from what is on its way.
func (x *world) take(m uint32) {
	if i := slices.Index(x.mail, m); i >= 0 {
		x.mail = slices.Delete(x.mail, i, i+1)
	}
}

// link orders the links between two nodes.
func (w *walk) link(m uint32) int {
	l := &w.letters.list[m]
	return l.from*maxReplicas + l.to
}

// copyFrom makes x equal to y and keeps x's memory.
func (x *world) copyFrom(y *world) {
	mail := append(x.mail[:0], y.mail...)
	*x = *y
	x.mail = mail
}

// options appends everything that may happen next.
func (w *walk) options(list []action, x *world) []action {
	for i, m := range x.mail {
		if i > 0 && (x.mail[i-1] == m || w.cfg.InOrder && w.link(x.mail[i-1]) == w.link(m)) {
			continue // the same again, or it is not its turn
		}
		to := w.letters.list[m].to
		if w.nodes.list[x.nodes[to]].up {
			list = append(list, deliver.of(to, int(m)))
			if x.left[repeats] > 0 {
				list = append(list, repeat.of(to, int(m)))
			}
		}
		if x.left[losses] > 0 {
			list = append(list, drop.of(to, int(m)))
		}
	}
	for n := range w.cfg.Replicas {
		l := w.nodes.list[x.nodes[n]]
		if !l.up {
			list = append(list, start.of(n, 0))
			continue
		}
		list = w.ownOptions(list, x, n, l)
		list = w.hintOptions(list, x, n, l)
		list = w.askOptions(list, x, n, l)
		if x.left[crashes] > 0 && among(w.cfg.CrashOf, n) {
			for i := range l.synced.survivors(l.pending) {
				list = append(list, crash.of(n, i))
				if w.cfg.Flush && l.applied > l.flushed {
					list = append(list, crash.of(n, i|flushes))
				}
			}
		}
	}
	return list
}

// among reports whether a node is one of these, of which none stands for all.
func among(nodes uint8, n int) bool { return nodes == 0 || nodes&(1<<n) != 0 }

// ownOptions appends what a node waits for.
func (w *walk) ownOptions(list []action, x *world, n int, l *local) []action {
	for _, p := range l.pending {
		if p.Sync {
			list = append(list, sync.of(n, 0))
			break
		}
	}
	if l.applying != nil {
		list = append(list, applied.of(n, 0))
	}
	for i := range l.asks {
		list = append(list, locked.of(n, i))
		if x.left[refusals] > 0 {
			list = append(list, refused.of(n, i))
		}
		if x.left[oldLocks] > 0 {
			list = append(list, outdated.of(n, i))
		}
	}
	if l.alarm != 0 && x.left[alarms] > 0 && (w.healing || among(w.cfg.AlarmOf, n)) {
		list = append(list, alarm.of(n, 0))
	}
	return list
}

// hintOptions appends the hints that a node may be given of others. True ones are
// free.
func (w *walk) hintOptions(list []action, x *world, n int, l *local) []action {
	for o := range w.cfg.Replicas {
		if o == n || w.cfg.QuickHints && w.cfg.Downs == 0 && !w.healing {
			continue
		}
		other := w.nodes.list[x.nodes[o]]
		switch {
		case l.unreachable&(1<<o) != 0:
			if other.up {
				list = append(list, up.of(n, o))
			}
			continue
		case !other.up || x.left[downs] > 0:
			list = append(list, down.of(n, o))
		}
		if other.up && max(l.met[o], 1) != other.boot {
			list = append(list, anew.of(n, o+maxReplicas*int(other.boot)))
		}
	}
	return list
}

// askOptions appends what clients and operators may ask of a node. They ask nobody
// who would refuse at once, which changes nothing.
func (w *walk) askOptions(list []action, x *world, n int, l *local) []action {
	if w.cfg.Leases && x.left[grants] > 0 {
		for o := range w.cfg.Replicas {
			if o != n && w.nodes.list[x.nodes[o]].up {
				list = append(list, grant.of(n, o))
			}
		}
	}
	h := w.histories.list[x.history]
	if l.status.takes {
		list = w.clientOptions(list, x, n, h)
	}
	if l.status.master && x.left[resigns] > 0 {
		list = append(list, resign.of(n, 0))
	}
	if !l.status.serving {
		return list
	}
	for o := range w.cfg.Replicas {
		if x.left[transfers] > 0 && o != n {
			list = append(list, transfer.of(n, o))
		}
		for c := range changes {
			if x.left[configures] > 0 && w.changed(l, c*maxReplicas+o) != nil {
				list = append(list, configure.of(n, c*maxReplicas+o))
			}
		}
	}
	return list
}

// clientOptions appends the calls of clients. Commands that were never asked are
// all alike, so the first of them stands for the others; and reads.
func (w *walk) clientOptions(list []action, x *world, n int, h *history) []action {
	fresh := true
	for i := range w.cfg.Records {
		switch o := &h.ops[i]; o.state {
		case idle:
			if fresh {
				list = append(list, propose.of(n, i))
			}
			fresh = false
		case unknown, denied:
			if x.left[retries] > 0 {
				list = append(list, propose.of(n, i|int(o.tries)<<4))
			}
		}
	}
	for i := range w.cfg.Reads {
		if h.reads[i].state == idle {
			return append(list, read.of(n, i))
		}
	}
	return list
}
