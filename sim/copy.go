package sim

import (
	"pando.dev/pando/partition"
	"pando.dev/pando/wal"
)

// staged is a copied state that is in place and counts as soon as the log says so.
type staged struct {
	generation uint32
	state      *state
}

// baseAt is where a log would begin that continues this one behind index i; false
// if it does not have that place.
func (m *image) baseAt(i partition.Index) (b wal.Install, ok bool) {
	switch {
	case i == 0 || i+1 < m.first || i > m.last():
		return b, false
	case i+1 == m.first:
		b.Base, b.BaseSum = m.before, m.beforeSum
	default:
		b.Base, b.BaseSum = m.at(i).Position(), m.at(i).Checksum()
	}
	for _, c := range m.configs {
		if c.Index <= i {
			b.Configuration = c.rec
		}
	}
	return b, b.Configuration != nil
}

// copySource is a replica with a state that the master's log continues.
func (w *world) copySource(m *host, but *node, h uint64) *host {
	for i := range w.nodes {
		n := w.nodes[(i+pick(h>>16, len(w.nodes)))%len(w.nodes)]
		if n == but || !n.alive() {
			continue
		}
		o := n.hosts[m.gi]
		if o != nil && o.rep != nil && !o.logOnly && o.state.applied > 0 && o.state.applied+1 >= m.n.disk.seen[m.gi].first {
			return o
		}
	}
	return nil
}

// bringUp makes the replica of a new member: with the first record, with a copy of
// another's state, or with the log only.
func (w *world) bringUp(m *host, n *node, id partition.ReplicaID, c uint64) {
	gi, d := m.gi, n.disk
	x := wal.Write{Group: m.g.id, Replica: id}
	st := m.rep.Status()
	seen := &m.n.disk.seen[gi]
	var state *state
	switch c % 3 {
	case 0:
		if seen.first > 1 {
			return
		}
		x.Commit, x.Records = 1, []partition.Record{m.g.record}
		if c>>8%3 > 0 {
			x.Generation, state = 1, newState()
		}
	case 1:
		b, ok := seen.baseAt(min(st.Everywhere, st.Applied))
		if !ok {
			return
		}
		x.Install = &b
	case 2:
		from := w.copySource(m, n, c)
		if from == nil {
			return
		}
		b, ok := from.n.disk.seen[gi].baseAt(from.state.applied)
		if !ok {
			return
		}
		b.Generation, state = 1, from.state.clone()
		x.Install = &b
	}
	h := &host{n: n, g: m.g, gi: gi, replica: id, fresh: true, loading: true, made: true, incarnation: firstIncarnation(id)}
	d.staged[gi] = &staged{generation: 1, state: state}
	if d.append(n, &x, false, token{host: h, incarnation: h.incarnation}) != nil {
		d.staged[gi] = nil
		return
	}
	n.hosts[gi] = h
	w.mark("sim.replica_made")
	w.tracef("%s is made", h)
}

// copyAgain gives the replica a new copy, since its next record is gone.
func (h *host) copyAgain(m, from *host) {
	if h.logOnly {
		st := m.rep.Status()
		if b, ok := m.n.disk.seen[h.gi].baseAt(min(st.Everywhere, st.Applied)); ok {
			h.install(&b, nil)
		}
		return
	}
	if from != nil && from.state.applied > h.state.applied {
		if b, ok := from.n.disk.seen[h.gi].baseAt(from.state.applied); ok {
			h.install(&b, from.state.clone())
		}
	}
}

// strays reports whether the log ends with records that the master's has not got, so
// that a copy may come to lie below its end.
func (h *host) strays(m *host) bool {
	mine, _ := h.n.disk.seen[h.gi].end()
	return h != m && mine.Index > 0 && !m.n.disk.seen[h.gi].holds(mine)
}

// complete gives a log replica the state, so that it may become full.
func (h *host) complete(from *host) {
	if from == nil {
		return
	}
	seen := &h.n.disk.seen[h.gi]
	b, ok := from.n.disk.seen[h.gi].baseAt(from.state.applied)
	if mine, has := seen.baseAt(from.state.applied); ok && has && mine.Base == b.Base {
		h.install(&b, from.state.clone())
	}
}

// install ends the incarnation and puts a copy in place of what the replica has.
// Its promise stays; its log does where it continues the copy.
func (h *host) install(b *wal.Install, s *state) {
	d := h.n.disk
	seen := &d.seen[h.gi]
	mine, has := seen.baseAt(b.Base.Index)
	keeps := has && mine.Base == b.Base
	if !keeps && b.Base.Index < max(seen.commit, seen.flushed, seen.before.Index) || len(h.unwritten) > 0 {
		return
	}
	if s != nil {
		b.Generation = max(1, seen.generation+1)
		d.staged[h.gi] = &staged{generation: b.Generation, state: s}
	}
	h.drop()
	h.loading = true
	x := wal.Write{Group: h.g.id, Install: b}
	if err := d.append(h.n, &x, false, token{host: h, incarnation: h.incarnation}); err != nil {
		d.staged[h.gi] = nil
		h.loadAfter(reopenAfter)
		return
	}
	h.n.w.count.Installs++
	h.n.w.mark("sim.copied")
	h.n.w.tracef("%s gets a copy at %s", h, b.Base)
}
