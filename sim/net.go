package sim

import (
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/lease"
	"pando.dev/pando/partition/replica"
)

// link is one direction between two places of the network.
type link struct {
	cuts  int // how many faults cut it
	sent  uint64
	conn  uint32 // number of the connection, in Stream mode
	last  partition.Time
	clogs int
	// Extra faults, the sum of those under way.
	loss, repeat, corrupt int // per mille
	delay, jitter         partition.Time
	drops                 uint32 // bits of the kinds of messages that are lost
	held                  []event
	old                   []event // a sample of what was sent long ago
}

const (
	keptOld  = 16
	oldEvery = 29 // one message in so many is kept to be replayed
)

// network carries messages between nodes. In Stream mode it is made of
// connections that keep the order and break; otherwise every message travels on
// its own.
type network struct {
	w     *world
	n     int
	links []link // from*n+to
}

func newNetwork(w *world, n int) *network {
	return &network{w: w, n: n, links: make([]link, n*n)}
}

func (t *network) link(from, to int) *link { return &t.links[from*t.n+to] }

// ok reports whether a and b reach each other both ways.
func (t *network) ok(a, b int) bool {
	return a == b || t.link(a, b).cuts == 0 && t.link(b, a).cuts == 0
}

// send sends a message to a replica on the node with this identity.
func (t *network) send(h *host, to partition.ReplicaID, id partition.NodeID, m replica.Message) {
	who, ok := t.w.whoIs[id]
	if !ok {
		return
	}
	t.w.count.Sent++
	x := event{
		kind: evMessage, from: int16(h.n.who), group: int16(h.gi),
		a: uint64(h.replica) | uint64(to)<<16, b: h.n.boot, p: m,
	}
	if t.w.tracing() {
		t.w.tracef("%s -> %d: %s", h, to, describe(m))
	}
	t.carry(h.n, who, &x, 1<<kindOf(m))
}

func (t *network) beat(n *node, who int, b *lease.Beat) {
	x := event{kind: evBeat, from: int16(n.who), a: b.Seq, b: b.Boot, c: b.PeerBoot, d: b.Acked}
	t.carry(n, who, &x, 1<<kindBeat)
}

func (t *network) answer(n *node, who int, a *lease.Answer) {
	x := event{kind: evAnswer, from: int16(n.who), a: a.Seq, b: a.Boot, c: a.HolderBoot, d: uint64(a.Lease), e: a.Revision}
	if len(a.Revoked) > 0 {
		c := *a
		x.p = &c
	}
	t.carry(n, who, &x, 1<<kindBeat)
}

// carry lets an event travel from a node to an identity.
func (t *network) carry(n *node, who int, x *event, kind uint32) {
	to := t.w.owner[who]
	if to < 0 || to == n.ord {
		return
	}
	w, k, l := t.w, t.w.k, t.link(n.ord, to)
	l.sent++
	pair := uint64(n.ord)<<32 | uint64(to)
	h := w.rnd.two(onDelay, pair, l.sent)
	x.node, x.conn = int16(to), l.conn
	// A cut connection loses nothing at once, but what it loses it loses at the end.
	if l.cuts > 0 || l.drops&kind != 0 || w.nodes[to].frozen && k.Stream {
		w.count.Lost++
		return
	}
	loss := k.Loss + float64(l.loss)/1000
	if loss > 0 && (!k.Stream || l.loss > 0) && share(mix(h^1), loss) || l.corrupt > 0 && share(mix(h^2), float64(l.corrupt)/1000) {
		if !k.Stream {
			w.count.Lost++
			return
		}
		x.conn = l.conn
		l.last = max(l.last, w.eng.now) + 40*time.Millisecond // it is sent again
	}
	d := between(h, k.DelayMin, k.DelayMax) + l.delay
	if l.jitter > 0 {
		d += between(mix(h^3), 0, l.jitter)
	}
	if k.TailShare > 0 && share(mix(h^4), k.TailShare) {
		d = between(mix(h^5), k.DelayMin, max(k.TailMax, k.DelayMin))
	}
	at := w.eng.now + d
	if k.Stream {
		at = max(at, l.last)
		l.last = at
	}
	if l.clogs > 0 {
		if len(l.held) < maxHeld {
			l.held = append(l.held, *x)
		}
		return
	}
	t.arrive(at, x)
	if l.sent%oldEvery == 0 {
		if len(l.old) < keptOld {
			l.old = append(l.old, *x)
		} else {
			l.old[pick(mix(h^6), keptOld)] = *x
		}
	}
	if !k.Stream {
		t.again(l, x, h, at)
	}
}

// again lets a message come twice, or one of long ago come again.
func (t *network) again(l *link, x *event, h uint64, at partition.Time) {
	k := t.w.k
	if p := k.Repeat + float64(l.repeat)/1000; p > 0 && share(mix(h^7), p) {
		t.arrive(at+between(mix(h^8), 0, k.DelayMax), x)
	}
	if k.Replay > 0 && share(mix(h^9), k.Replay) {
		t.arrive(at+between(mix(h^10), 0, 5*time.Second), x)
	}
}

func (t *network) arrive(at partition.Time, x *event) {
	e := t.w.eng.at(at, x.kind, int(x.node))
	*e = *x
}

// deliver hands what has arrived to the process.
func (t *network) deliver(n *node, x *event) {
	w := t.w
	from := w.owner[x.from]
	if !n.up {
		w.count.Lost++
		return
	}
	if from >= 0 {
		l := t.link(from, n.ord)
		if l.cuts > 0 || w.k.Stream && x.conn != l.conn {
			w.count.Lost++
			return
		}
	}
	id := w.ids[x.from]
	switch x.kind {
	case evMessage:
		h := n.hosts[x.group]
		if h == nil || h.replica != partition.ReplicaID(x.a>>16) {
			return
		}
		h.received(partition.ReplicaID(x.a), id, x.b, x.p.(replica.Message))
	case evMergeCall:
		n.mergeAsked(x.p.(*mergeCall))
	case evMergeAnswer:
		n.mergeAnswered(x.p.(*mergeAnswer))
	case evBeat:
		b := lease.Beat{Seq: x.a, Boot: x.b, PeerBoot: x.c, Acked: x.d}
		if a, ok := n.table.OnBeat(n.local(), id, b); ok {
			t.answer(n, int(x.from), &a)
		}
	case evAnswer:
		a := lease.Answer{Seq: x.a, Boot: x.b, HolderBoot: x.c, Lease: time.Duration(x.d), Revision: x.e}
		if x.p != nil {
			a = *x.p.(*lease.Answer)
		}
		r := n.table.OnAnswer(n.local(), id, a)
		w.check.leased(n)
		if r.Again {
			n.beat(int(x.from))
		}
	}
}

// cut cuts one direction, and uncut takes the cut back.
func (t *network) cut(from, to int) {
	if from == to {
		return
	}
	l := t.link(from, to)
	if l.cuts++; l.cuts == 1 {
		t.w.tracef("cut %d -> %d", from, to)
	}
}

func (t *network) uncut(from, to int) {
	l := t.link(from, to)
	if from != to && l.cuts > 0 {
		if l.cuts--; l.cuts == 0 {
			t.w.tracef("heal %d -> %d", from, to)
		}
	}
}

// reset breaks the connections between two places: what is under way is lost, and
// both sides know it soon.
func (t *network) reset(a, b int) {
	if a == b {
		return
	}
	t.link(a, b).conn++
	t.link(b, a).conn++
	t.w.tracef("connection %d - %d breaks", a, b)
	t.notice(a, b)
	t.notice(b, a)
}

// notice lets a node see soon that its connection to another place has broken.
func (t *network) notice(at, other int) {
	n, o := t.w.nodes[at], t.w.nodes[other]
	if !n.up {
		return
	}
	d := between(t.w.rnd.of(onHint, uint64(at), uint64(other), t.w.eng.seq), 0, 2*time.Millisecond)
	x := t.w.eng.after(d, evLinkDown, at)
	x.life, x.a, x.b = n.life, uint64(o.who), o.boot
}

// linkDown is told to a node whose connection has broken.
func (t *network) linkDown(n *node, who int, boot uint64) {
	n.table.Down(t.w.ids[who], boot)
	n.look()
}

// processEnded breaks the connections of a process. If the power went nobody
// hears of it.
func (t *network) processEnded(n *node, power bool) {
	for o := range t.w.nodes {
		if o == n.ord {
			continue
		}
		t.link(n.ord, o).conn++
		t.link(o, n.ord).conn++
		if t.w.k.Stream && !power && t.ok(n.ord, o) {
			t.notice(o, n.ord)
		}
	}
}

// unclog lets a link deliver what it has held back.
func (t *network) unclog(from, to int) {
	l := t.link(from, to)
	if l.clogs--; l.clogs > 0 {
		return
	}
	l.clogs = 0
	held := l.held
	l.held = nil
	for i := range held {
		t.arrive(t.w.eng.now, &held[i])
	}
}

// replay lets messages of long ago come again.
func (t *network) replay(from, to, count int) {
	l := t.link(from, to)
	for i := range min(count, len(l.old)) {
		x := l.old[(i*7)%len(l.old)]
		x.conn = l.conn
		t.arrive(t.w.eng.now+partition.Time(i)*time.Millisecond, &x)
	}
}
