package sim

import (
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

// request takes an operation of a client.
func (n *node) request(_ int, try uint32, o *op) {
	var h *host
	if n.up {
		h = n.hosts[o.group]
	}
	if h == nil || h.rep == nil {
		n.w.answer(o, try, partition.CodeUnavailable, 0, nil) // no connection, or no replica
		return
	}
	if !o.seated {
		o.seated, o.floor = true, n.w.check.floor(o.group)
	}
	switch {
	case o.read():
		h.query(o, try)
	case h.n.disk.full:
		h.n.w.answer(o, try, partition.CodeNoSpace, 0, nil)
	default:
		h.propose(o, try)
	}
}

func (h *host) propose(o *op, try uint32) {
	p := replica.Proposal{ID: h.remember(call{op: o, try: try}), Kind: partition.KindCommand}
	if o.opens {
		p.Kind, p.Payload = partition.KindSession, replica.AppendOpenSession(nil)
	} else {
		var body [commandBytes]byte
		p.Payload = replica.AppendCommand(make([]byte, 0, commandBytes+32), o.session, o.seq, o.append(body[:0]))
	}
	h.take(replica.Propose{Proposals: []replica.Proposal{p}})
}

// query reads under the lease, or asks the members. The state is taken first and
// the lease checked afterwards, perhaps a good while later.
func (h *host) query(o *op, try uint32) {
	v := h.view
	if v == nil || v.Master != v.Self {
		h.n.w.answer(o, try, partition.CodeNotMaster, 0, nil)
		return
	}
	if !v.Serving || o.quorum || h.state == nil {
		h.readIndex(o, try)
		return
	}
	x := event{from: int16(o.client), group: int16(h.gi), life: h.n.life, a: uint64(try), b: uint64(h.state.applied), c: uint64(v.Epoch), d: uint64(h.n.w.check.floor(o.group)), e: h.incarnation, p: o}
	if c := h.n.w.rnd.of(onApply, uint64(o.client), uint64(try)); c%8 == 0 {
		e := h.n.w.eng.after(between(c>>8, 0, 10*time.Millisecond), evReadBack, h.n.ord)
		x.kind, x.node = evReadBack, int16(h.n.ord)
		*e = x
		return
	}
	h.n.readLease(&x)
}

// readLease checks the lease after the state was read.
func (n *node) readLease(x *event) {
	h, o := n.hosts[x.group], x.p.(*op)
	if h == nil || h.incarnation != x.e || h.rep == nil {
		return
	}
	if v := h.view; v != nil && v.Epoch == partition.Epoch(x.c) && n.local() < v.LeaseEnd(n) {
		n.w.count.LeaseReads++
		n.w.check.shown(h, o, partition.Index(x.d), partition.Index(x.b), "lease")
		h.n.w.answer(o, uint32(x.a), 0, partition.Index(x.b), nil)
		return
	}
	h.readIndex(o, uint32(x.a))
}

func (h *host) readIndex(o *op, try uint32) {
	c := call{op: o, try: try, floor: h.n.w.check.floor(o.group)}
	h.take(replica.ReadIndex{ID: h.remember(c)})
}

// reply answers the call that the machine answers.
func (h *host) reply(x *replica.Reply) {
	c, ok := h.calls[x.ID]
	if !ok {
		h.n.w.violate("reply", "%s answers %d, which nobody asked, or which was answered", h, x.ID)
	}
	delete(h.calls, x.ID)
	if c.act != nil {
		h.n.w.check.acted(h, c.act, x)
		return
	}
	if x.Err != nil {
		code := x.Err.Code
		if c.op.read() && code == partition.CodeUnknown {
			code = partition.CodeUnavailable
		}
		h.n.w.check.refusedOp(h, c.op, code)
		delete(h.results, x.ID)
		h.n.w.answer(c.op, c.try, code, 0, nil)
		return
	}
	if c.op.read() {
		h.reads = append(h.reads, waitingRead{index: x.Index, call: c})
		h.serveReads()
		return
	}
	res, ok := h.results[x.ID]
	if !ok {
		h.n.w.violate("reply", "%s acknowledges %d at %d without a result", h, x.ID, x.Index)
	}
	delete(h.results, x.ID)
	h.n.w.check.acked(h, c.op, x.Index, &res)
	h.n.w.answer(c.op, c.try, 0, x.Index, &res)
}

// serveReads answers the reads whose index the state has reached.
func (h *host) serveReads() {
	rest := h.reads[:0]
	for _, r := range h.reads {
		if r.index > h.applied {
			rest = append(rest, r)
			continue
		}
		h.n.w.count.QuorumReads++
		h.n.w.check.shown(h, r.call.op, r.call.floor, h.applied, "quorum")
		h.n.w.answer(r.call.op, r.call.try, 0, h.applied, nil)
	}
	h.reads = rest
}
