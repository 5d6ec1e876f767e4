package sim

import (
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

// clientWait is how long a client waits for an answer before it asks again.
const clientWait = 1500 * time.Millisecond

// op is one operation of a client. It does not change; its tries do.
type op struct {
	command
	client  int
	group   int
	opens   bool // it opens a session
	quorum  bool // a read that asks the members
	session partition.SessionID
	seq     uint64
	called  partition.Time
	// floor is what was visible in the group when it first reached a replica: it
	// takes effect behind it.
	floor  partition.Index
	seated bool // floor is set
	done   bool
}

func (o *op) read() bool { return o.verb == verbGet }

// answer is what a client hears.
type answer struct {
	op    *op
	try   uint32
	code  partition.Code // 0: done
	index partition.Index
	res   replica.Result
}

// client does one operation after another.
type client struct {
	w        *world
	ord      int
	sessions []clientSession // by group
	inOrder  bool            // it writes in sessions
	count    uint64
	op       *op
	try      uint32
	tries    int // of op
}

type clientSession struct {
	id  partition.SessionID
	seq uint64
}

func (w *world) makeClients() {
	for i := range w.k.Clients {
		c := &client{w: w, ord: i, sessions: make([]clientSession, len(w.groups))}
		c.inOrder = share(w.rnd.two(onClient, uint64(i), 0), w.k.Sessions)
		w.clients = append(w.clients, c)
		c.think()
	}
}

// chance is the next decision of the client.
func (c *client) chance(about uint64) uint64 {
	return c.w.rnd.of(onOp, uint64(c.ord), c.count, about)
}

// think lets the next operation follow.
func (c *client) think() {
	c.op = nil
	if c.w.k.Ops <= 0 {
		return
	}
	every := partition.Time(float64(time.Second) * float64(c.w.k.Clients) / c.w.k.Ops)
	c.w.eng.after(between(c.chance(1), 0, 2*every), evClient, -1).from = int16(c.ord)
}

// next begins an operation, or tries the one under way again.
func (c *client) next() {
	if c.op != nil {
		c.send()
		return
	}
	w, k := c.w, c.w.k
	c.count++
	h := c.chance(2)
	o := &op{client: c.ord, group: pick(h, len(w.groups)), called: w.eng.now}
	o.id = uint64(c.ord+1)<<40 | c.count
	o.key, o.other = uint16(pick(h>>8, max(1, k.Keys))), uint16(pick(h>>20, max(1, k.Keys)))
	o.arg, o.old = c.chance(3), 0
	s := &c.sessions[o.group]
	switch v := c.chance(4); {
	case share(v, k.ReadShare):
		o.verb, o.quorum = verbGet, c.chance(5)%8 == 0
	case c.inOrder && s.id == (partition.SessionID{}):
		o.opens, o.verb = true, verbPut
	default:
		o.verb = []verb{verbPut, verbPut, verbAppend, verbAppend, verbTransfer, verbCas}[pick(v>>16, 6)]
		if o.verb == verbCas {
			o.old = w.check.valueOf(o.group, o.key, c.chance(6))
		}
		if c.inOrder {
			s.seq++
			o.session, o.seq = s.id, s.seq
		}
	}
	c.op, c.tries = o, 0
	c.send()
}

// send tries the operation at some node: mostly the master's.
func (c *client) send() {
	w, k := c.w, c.w.k
	c.try++
	c.tries++
	h := w.rnd.of(onClient, uint64(c.ord), c.count, uint64(c.try))
	n := w.nodes[pick(h>>16, len(w.nodes))]
	if m := w.master(c.op.group); m != nil && h%10 >= 3 {
		n = m.n
	}
	d := between(mix(h), k.DelayMin, k.DelayMax)
	x := w.eng.after(d, evRequest, n.ord)
	x.from, x.a, x.p = int16(c.ord), uint64(c.try), c.op
	if c.op.seq != 0 && !k.Stream && share(mix(h^1), k.Repeat) {
		x = w.eng.after(d+between(mix(h^2), 0, 2*time.Second), evRequest, n.ord)
		x.from, x.a, x.p = int16(c.ord), uint64(c.try), c.op
	}
	t := w.eng.after(clientWait, evClientTimeout, -1)
	t.from, t.a, t.b = int16(c.ord), uint64(c.try), c.count
}

// again tries the operation once more, a little later.
func (c *client) again() {
	c.try++ // what still comes for the last try is late
	d := between(c.w.rnd.of(onClient, uint64(c.ord), c.count, uint64(c.try), 1), time.Millisecond, 60*time.Millisecond)
	c.w.eng.after(d, evClient, -1).from = int16(c.ord)
}

func (c *client) timeout(try uint32, count uint64) {
	if c.op == nil || c.try != try || c.count != count {
		return
	}
	c.w.count.Unknown++
	c.unknown()
}

// unknown goes on after an operation whose outcome is not known: in a session, or
// if it changes nothing, by trying again.
func (c *client) unknown() {
	if c.op.read() || c.op.opens || c.op.seq != 0 {
		c.again()
		return
	}
	c.think()
}

// answered hears of the operation.
func (c *client) answered(a *answer) {
	if c.op != a.op || c.try != a.try {
		return
	}
	o := c.op
	switch {
	case a.code == 0 && o.opens:
		c.sessions[o.group] = clientSession{id: a.res.Session}
		c.think()
	case a.code == 0:
		o.done = true
		if a.res.Err != nil && a.res.Err.Code == partition.CodeSessionExpired {
			c.sessions[o.group] = clientSession{}
		}
		c.think()
	case a.code == partition.CodeUnknown:
		c.w.count.Unknown++
		c.unknown()
	case o.read() || o.opens || o.seq != 0:
		c.w.count.Refused++
		c.again()
	default: // it was not done, and is not tried again: it must never be done
		c.w.count.Refused++
		c.think()
	}
}

// answer sends an answer to the client that asked.
func (w *world) answer(o *op, try uint32, code partition.Code, index partition.Index, res *replica.Result) {
	if o.client < 0 {
		return
	}
	a := &answer{op: o, try: try, code: code, index: index}
	if res != nil {
		a.res = *res
	}
	d := between(w.rnd.of(onClient, uint64(o.client), uint64(try), w.eng.seq), w.k.DelayMin, w.k.DelayMax)
	x := w.eng.after(d, evReply, -1)
	x.from, x.a, x.p = int16(o.client), uint64(try), a
}
