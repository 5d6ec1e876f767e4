package sim

import (
	"encoding/binary"
	"slices"
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

const (
	// maxHeldReads bounds the session reads that wait at a replica, holdRead how
	// long each does.
	maxHeldReads = 64
	holdRead     = time.Second
	// maxCommandHead is what the executor's encoding adds to a command.
	maxCommandHead = 32
)

// reading is a read on its way through a replica.
type reading struct {
	op          *op
	try         uint32
	incarnation uint64
	epoch       partition.Epoch
	until       partition.Time  // true time
	floor       partition.Index // what was visible when it came
	index       partition.Index // of the state that it shows
	value       register
	leased      bool
}

// request takes an operation of a client.
func (n *node) request(try uint32, o *op, gi int) {
	var h *host
	if n.up {
		h = n.hosts[gi]
	}
	if h == nil || h.rep == nil {
		n.w.answer(o, try, answer{code: partition.CodeUnavailable, hint: -1}) // no connection, or no replica
		return
	}
	if !o.seated {
		o.seated, o.floor = true, n.w.check.floor(o)
	}
	if h.diverts(o, try) {
		return
	}
	switch {
	case o.level >= levelSession:
		h.readAnywhere(o, try)
	case o.read():
		h.query(o, try)
	case h.n.disk.full:
		h.n.w.answer(o, try, answer{code: partition.CodeNoSpace, hint: -1})
	default:
		h.propose(o, try)
	}
}

func (h *host) propose(o *op, try uint32) {
	p := replica.Proposal{ID: h.remember(call{op: o, try: try}), Kind: partition.KindCommand}
	if o.opens {
		p.Kind, p.Payload = partition.KindSession, replica.AppendOpenSession(nil)
	} else {
		w := h.n.w
		w.body = w.padded(o, o.append(w.body[:0]))
		p.Payload = replica.AppendCommand(make([]byte, 0, len(w.body)+maxCommandHead), o.session, o.seq, w.body)
	}
	h.take(replica.Propose{Proposals: []replica.Proposal{p}})
}

// padded is the command of an operation with what it carries besides, which is the
// same each time it is tried.
func (w *world) padded(o *op, command []byte) []byte {
	if w.k.Pad == 0 {
		return command
	}
	h := w.rnd.of(onOp, uint64(o.client), o.id, 0)
	n := pick(h, w.k.Pad+1)
	command = slices.Grow(command, n+8)
	end := len(command) + n
	for len(command) < end {
		h = mix(h)
		command = binary.LittleEndian.AppendUint64(command, h)
	}
	return command[:end]
}

// query reads under the lease, or asks the members. The state is taken first and
// the lease checked afterwards, perhaps a good while later.
func (h *host) query(o *op, try uint32) {
	v := h.view
	if v == nil || v.Master != v.Self {
		id := partition.NodeID("")
		if v != nil {
			if m, ok := v.Configurations.Member(v.Master); ok {
				id = m.Node
			}
		}
		h.n.w.answer(o, try, answer{code: partition.CodeNotMaster, hint: h.n.w.hint(id)})
		return
	}
	if !v.Serving || o.level == levelQuorum || h.state == nil {
		h.readIndex(o, try)
		return
	}
	r := &reading{op: o, try: try, incarnation: h.incarnation, epoch: v.Epoch, floor: h.n.w.check.floor(o)}
	h.show(r)
	if c := h.n.w.rnd.of(onApply, uint64(o.client), o.id, uint64(try)); c%8 == 0 {
		e := h.n.w.eng.after(between(c>>8, 0, 10*time.Millisecond), evReadBack, h.n.ord)
		e.life, e.group, e.p = h.n.life, int16(h.gi), r
		return
	}
	h.n.readLease(h.gi, r)
}

// show reads the state as it is now.
func (h *host) show(r *reading) {
	var body [commandBytes]byte
	b, err := h.exec.Read(h.state, r.op.append(body[:0]))
	if err != nil {
		h.n.w.violate("read", "%s cannot read: %v", h, err)
	}
	r.index, r.value = h.state.applied, parseRegister(b)
}

// readLease checks the lease after the state was read.
func (n *node) readLease(gi int, r *reading) {
	h := n.hosts[gi]
	if h == nil || h.incarnation != r.incarnation || h.rep == nil {
		return
	}
	if x := h.extent(); x.IsSource() {
		n.w.answer(r.op, r.try, h.elsewhere())
		return
	}
	if v := h.view; v != nil && v.Epoch == r.epoch && n.local() < v.LeaseEnd(n) {
		n.w.count.LeaseReads++
		r.leased = true
		n.w.check.leased(n)
		h.shown(r)
		return
	}
	h.readIndex(r.op, r.try)
}

// shown answers a read.
func (h *host) shown(r *reading) {
	h.n.w.check.shown(h, r)
	h.n.w.answer(r.op, r.try, answer{index: r.index, read: r.value, hint: -1, lease: r.leased})
}

// readAnywhere answers a session or stale read from the own state, once that is
// new enough.
func (h *host) readAnywhere(o *op, try uint32) {
	refuse := partition.CodeUnavailable
	if v := h.view; v != nil && h.state != nil {
		if m, ok := v.Configurations.Member(h.replica); ok && m.Kind == partition.Full {
			refuse = 0
		}
	}
	r := &reading{op: o, try: try, incarnation: h.incarnation, until: h.n.w.eng.now + holdRead}
	switch {
	case refuse != 0:
	case h.state.applied >= o.token:
		h.show(r)
		h.shown(r)
		return
	case len(h.heldReads) >= maxHeldReads || h.view.Master == 0:
		refuse = partition.CodeBehind
	default:
		h.heldReads = append(h.heldReads, r)
		return
	}
	h.n.w.answer(o, try, answer{code: refuse, hint: -1})
}

func (h *host) readIndex(o *op, try uint32) {
	c := call{op: o, try: try, floor: h.n.w.check.floor(o)}
	h.take(replica.ReadIndex{ID: h.remember(c)})
}

// reply answers the call that the machine answers.
func (h *host) reply(x *replica.Reply) {
	w := h.n.w
	c, ok := h.calls[x.ID]
	if !ok {
		w.violate("reply", "%s answers %d, which nobody asked, or which was answered", h, x.ID)
	}
	delete(h.calls, x.ID)
	if c.act != nil && c.act.merges {
		h.mergeDecided(c.act.splits, x)
		return
	}
	if c.act != nil && c.act.splits != 0 {
		h.decided(c.act.splits, x)
		return
	}
	if c.act != nil {
		w.check.acted(h, c.act, x)
		return
	}
	if x.Err != nil {
		code := x.Err.Code
		if c.op.read() && code == partition.CodeUnknown {
			code = partition.CodeUnavailable
		}
		delete(h.results, x.ID)
		w.answer(c.op, c.try, answer{code: code, hint: w.hint(x.Err.Master)})
		return
	}
	if c.op.read() {
		if x.Index > h.applied {
			h.n.w.violate("reply", "%s answers a read at %d, its state is at %d", h, x.Index, h.applied)
		}
		h.reads = append(h.reads, waitingRead{index: x.Index, call: c})
		h.serveReads()
		return
	}
	res, ok := h.results[x.ID]
	if !ok {
		w.violate("reply", "%s acknowledges %d at %d without a result", h, x.ID, x.Index)
	}
	delete(h.results, x.ID)
	if res.Err != nil && (res.Err.Code == partition.CodeWrongGroup || res.Err.Code == partition.CodeBusy) {
		w.mark("sim.command_outside")
		w.answer(c.op, c.try, h.moved(res.Err.Code))
		return
	}
	w.check.acked(h, c.op, x.Index, &res)
	w.answer(c.op, c.try, answer{index: x.Index, res: res, hint: h.n.ord})
}

// serveReads answers the reads whose index the state has reached.
func (h *host) serveReads() {
	rest := h.reads[:0]
	for _, r := range h.reads {
		if r.index > h.applied || h.state == nil {
			rest = append(rest, r)
			continue
		}
		if h.hasMoved(r.call.op) {
			h.n.w.answer(r.call.op, r.call.try, h.elsewhere())
			continue
		}
		h.n.w.count.QuorumReads++
		x := &reading{op: r.call.op, try: r.call.try, floor: r.call.floor}
		h.show(x)
		h.shown(x)
	}
	h.reads = rest
	if len(h.heldReads) == 0 {
		return
	}
	held := h.heldReads[:0]
	for _, r := range h.heldReads {
		switch {
		case h.hasMoved(r.op):
			h.n.w.answer(r.op, r.try, h.elsewhere())
		case r.op.token <= h.applied:
			h.show(r)
			h.shown(r)
		case h.n.w.eng.now < r.until:
			held = append(held, r)
		default:
			h.n.w.answer(r.op, r.try, answer{code: partition.CodeBehind, hint: -1})
		}
	}
	clear(h.heldReads[len(held):])
	h.heldReads = held
}
