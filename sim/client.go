package sim

import (
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

const (
	// clientWait is how long a client waits for an answer before it asks again.
	clientWait = 1500 * time.Millisecond
	// maxTries is how often a client asks at most, if it may ask again at all. It
	// counts the pauses in between, too.
	maxTries = 60
	// maxUnderWay bounds the operations under way of a client that does not wait
	// for its answers, sessionAhead how far the numbers of a session may be apart.
	maxUnderWay  = 8
	sessionAhead = replica.SessionWindow - 4
)

// level is how new the answer to a read has to be.
type level uint8

const (
	levelLease   level = iota // everything before it, under the master's lease
	levelQuorum               // the same, asking the members
	levelSession              // everything that this client has seen
	levelStale                // anything that was once true
)

func (l level) String() string { return [...]string{"lease", "quorum", "session", "stale"}[l&3] }

// op is one operation of a client.
type op struct {
	command
	client  int // -1: nobody waits for the answer
	table   int
	group   int  // that is asked, as far as its client knows
	opens   bool // it opens a session
	opened  *clientSession
	level   level
	token   partition.Index // of a session read: the index of the group that it must show at least
	session partition.SessionID
	seq     uint64
	// floor is what was visible of its keys when it first reached a replica, as
	// partition.Extent.At has it: it takes effect behind it.
	floor  partition.Index
	seated bool // floor is set
	// The client's side: the try under way, and how it went.
	try   uint32
	maybe bool // a try has ended, or may go on, with an unknown outcome
	done  bool
}

func (o *op) read() bool { return o.verb >= verbGet }

// repeats reports whether asking again cannot do harm whatever became of the last
// try.
func (o *op) repeats() bool { return o.read() || o.opens || o.seq != 0 }

// answer is what a client hears.
type answer struct {
	op    *op
	try   uint32
	code  partition.Code // 0: done
	index partition.Index
	hint  int // node that may be master, -1: no idea
	res   replica.Result
	read  register
	moved []route // where keys are that the group which was asked has given away, as far as it tells
	lease bool    // it was answered under a lease
}

// client asks for one operation after another, or for more while some are under
// way.
type client struct {
	w        *world
	ord      int
	sessions []*clientSession  // by group; nil: that of the group it was split from
	tokens   []partition.Index // by group: the newest that it has seen
	hints    []int             // by group: node that it takes for the master's, -1: none
	inOrder  bool              // it writes in sessions
	open     bool              // it does not wait for its answers
	levels   bool              // it reads at all levels
	count    uint64
	under    []*op
	routes   [][]route // by table: which group has which keys, as far as it knows
}

type clientSession struct {
	id      partition.SessionID
	seq     uint64
	opening bool
}

func (w *world) makeClients() {
	for i := range w.k.Clients {
		c := &client{
			w: w, ord: i, sessions: make([]*clientSession, len(w.groups)), tokens: make([]partition.Index, len(w.groups)),
			hints: make([]int, len(w.groups)), routes: make([][]route, w.k.Groups),
		}
		for gi := range w.k.Groups {
			c.sessions[gi] = &clientSession{}
		}
		for gi := range c.hints {
			c.hints[gi] = -1
		}
		h := w.rnd.two(onClient, uint64(i), 0)
		c.inOrder = share(h, w.k.Sessions)
		c.open, c.levels = mix(h^1)%3 == 0, mix(h^2)%2 == 0
		w.clients = append(w.clients, c)
		c.think()
	}
}

// chance is the next decision of the client.
func (c *client) chance(about uint64) uint64 {
	return c.w.rnd.of(onOp, uint64(c.ord), c.count, about)
}

// happens lets an event of the clients happen.
func (c *client) happens(x *event) {
	o, _ := x.p.(*op)
	switch {
	case x.kind == evReply:
		c.answered(x.p.(*answer))
	case x.kind == evClientTimeout:
		if !o.done && o.try == uint32(x.a) {
			c.w.count.Unknown++
			c.unknown(o)
		}
	case o == nil:
		c.next()
	case !o.done:
		c.send(o)
	}
}

// think lets the next operation follow.
func (c *client) think() {
	if c.w.k.Ops <= 0 {
		return
	}
	every := partition.Time(float64(time.Second) * float64(c.w.k.Clients) / c.w.k.Ops)
	c.w.eng.after(between(c.chance(1), 0, 2*every), evClient, -1).from = int16(c.ord)
}

// next begins an operation.
func (c *client) next() {
	c.count++
	if c.w.k.Splits > 0 && c.chance(8)%64 == 0 {
		c.refresh()
	}
	if len(c.under) < maxUnderWay {
		o := c.draw()
		c.under = append(c.under, o)
		c.w.check.begin(o)
		if c.w.heard != nil {
			c.w.heard(o, nil)
		}
		c.send(o)
	}
	if c.open {
		c.think()
	}
}

// draw is the next operation.
func (c *client) draw() *op {
	w, k := c.w, c.w.k
	h, v := c.chance(2), c.chance(4)
	o := &op{client: c.ord, table: pick(h, w.k.Groups)}
	o.id = opID(c.ord, c.count)
	o.key = uint16(pick(h>>8, max(1, k.Keys)))
	o.arg = c.chance(3)
	o.group = c.route(o)
	s := c.session(o.group)
	if share(v, k.ReadShare) || c.inOrder && c.crowded(o.group) {
		return c.drawRead(o, c.chance(5))
	}
	if c.inOrder && s.id == (partition.SessionID{}) && !s.opening {
		o.opens, o.verb, s.opening, o.opened = true, verbPut, true, s
		return o
	}
	o.verb = []verb{verbPut, verbPut, verbAppend, verbAppend, verbTransfer, verbTransfer, verbCas, verbCas, verbDelete}[pick(v>>16, 9)]
	switch {
	case o.verb == verbTransfer:
		n := accounts(k)
		o.key = uint16(pick(h>>8, n))
		o.other = uint16((int(o.key) + 1 + pick(h>>24, n-1)) % n)
	case w.appends(o.key) != (o.verb == verbAppend):
		o.verb = verbPut
		if w.appends(o.key) {
			o.verb = verbAppend
		}
	case o.verb == verbCas:
		o.old = w.check.valueOf(o, c.chance(6))
	}
	if o.verb == verbTransfer {
		o.group = c.route(o)
		s = c.session(o.group)
	}
	if c.inOrder && s.id != (partition.SessionID{}) {
		s.seq++
		o.session, o.seq = s.id, s.seq
	}
	return o
}

// appends reports whether a register is one that only appends change: with two or
// more keys every second one is.
func (w *world) appends(key uint16) bool { return w.k.Keys > 1 && key%2 == 1 }

// accounts is the number of accounts of a group.
func accounts(k *Knobs) int { return max(2, min(k.Keys, 16)) }

// opID names an operation; the first client is 0, the world's own are of -1.
func opID(client int, count uint64) uint64 { return uint64(client+1)<<40 | count }

func (c *client) drawRead(o *op, h uint64) *op {
	o.verb = verbGet
	if h%24 == 0 {
		o.verb = verbSum
	}
	switch h = mix(h); {
	case h%8 == 0:
		o.level = levelQuorum
	case c.levels && h%8 < 3:
		o.group = c.route(o)
		o.level, o.token = levelSession, c.tokens[o.group]
	case c.levels && h%8 < 5:
		o.level = levelStale
	}
	return o
}

// crowded reports whether the oldest command under way of a session is so far
// behind that another one could push it out of the window.
func (c *client) crowded(gi int) bool {
	s := c.session(gi)
	for _, o := range c.under {
		if o.seq != 0 && o.session == s.id && s.seq >= o.seq+sessionAhead {
			return true
		}
	}
	return false
}

// send tries the operation at some node: mostly where the client takes the master
// to be, now and then anywhere.
func (c *client) send(o *op) {
	w, k := c.w, c.w.k
	c.follow(o)
	o.try++
	h := w.rnd.of(onClient, uint64(c.ord), o.id, uint64(o.try))
	n := pick(h>>16, len(w.nodes))
	if hint := c.hints[o.group]; hint >= 0 && h%16 != 0 && (o.level < levelSession || h%4 == 1) {
		n = hint
	}
	d := between(mix(h), k.DelayMin, k.DelayMax)
	c.post(o, n, d)
	if o.seq != 0 && !k.Stream && share(mix(h^1), k.Repeat) {
		c.post(o, n, d+between(mix(h^2), 0, 2*time.Second))
		o.maybe = true
	}
	t := w.eng.after(clientWait, evClientTimeout, -1)
	t.from, t.a, t.p = int16(c.ord), uint64(o.try), o
}

func (c *client) post(o *op, n int, d partition.Time) {
	x := c.w.eng.after(d, evRequest, n)
	x.from, x.group, x.a, x.p = int16(c.ord), int16(o.group), uint64(o.try), o
}

// again tries the operation once more, a little later.
func (c *client) again(o *op) {
	if o.try >= maxTries {
		c.ends(o)
		if !o.maybe && !o.read() {
			c.w.check.refused(o)
		}
		return
	}
	o.try++ // what still comes for the last try is late
	most := 4 * time.Millisecond << min(o.try/2, 7)
	d := between(c.w.rnd.of(onClient, uint64(c.ord), o.id, uint64(o.try), 1), time.Millisecond, most)
	x := c.w.eng.after(d, evClient, -1)
	x.from, x.p = int16(c.ord), o
}

// unknown goes on after a try whose outcome is not known: where that cannot do
// harm by trying again.
func (c *client) unknown(o *op) {
	o.maybe = true
	c.hints[o.group] = -1
	if o.repeats() {
		c.again(o)
		return
	}
	c.ends(o)
}

// ends is after the last try of an operation.
func (c *client) ends(o *op) {
	o.done = true
	for i, x := range c.under {
		if x == o {
			c.under = append(c.under[:i], c.under[i+1:]...)
			break
		}
	}
	if o.opens {
		o.opened.opening = false
	}
	if !c.open {
		c.think()
	}
}

// answered hears of a try.
func (c *client) answered(a *answer) {
	o := a.op
	if o.done || o.try != a.try {
		return
	}
	switch {
	case a.code == 0:
		c.succeeded(o, a)
		c.ends(o)
	case a.code == partition.CodeUnknown:
		c.w.count.Unknown++
		c.unknown(o)
	default: // it was not done, and may be asked for again, mostly elsewhere
		c.w.count.Refused++
		if a.code == partition.CodeWrongGroup {
			c.reroute(a)
		}
		c.hints[o.group] = a.hint
		c.again(o)
	}
}

func (c *client) succeeded(o *op, a *answer) {
	s := c.session(o.group)
	c.tokens[o.group] = max(c.tokens[o.group], a.index)
	if c.w.heard != nil {
		c.w.heard(o, a)
	}
	switch {
	case o.opens:
		c.sessions[o.group] = &clientSession{id: a.res.Session}
	case a.res.Err != nil:
		if s.id == o.session {
			c.sessions[o.group] = &clientSession{}
		}
		if !o.maybe {
			c.w.check.refused(o)
		}
	case o.seq != 0 && c.chanceOf(o)%8 == 0:
		// Something on the way has kept the request, and lets it go now.
		h := mix(c.chanceOf(o))
		d := partition.Time(10*time.Millisecond) << (h % 12)
		c.post(o, pick(h>>8, len(c.w.nodes)), between(mix(h), 0, d))
	}
}

func (c *client) chanceOf(o *op) uint64 { return c.w.rnd.of(onOp, o.id, 7) }

// answer sends an answer to the client that asked.
func (w *world) answer(o *op, try uint32, a answer) {
	if o.client < 0 {
		w.live.answered(o, &a)
		return
	}
	a.op, a.try = o, try
	d := between(w.rnd.of(onClient, uint64(o.client), uint64(try), w.eng.seq), w.k.DelayMin, w.k.DelayMax)
	x := w.eng.after(d, evReply, -1)
	x.from, x.a, x.p = int16(o.client), uint64(try), &a
}

// hint is the node that an error names, as far as there is one.
func (w *world) hint(id partition.NodeID) int {
	if who, ok := w.whoIs[id]; ok {
		return w.owner[who]
	}
	return -1
}
