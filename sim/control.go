package sim

import (
	"slices"
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

const (
	// lockWait and permitWait bound one question to the control group, as the
	// hosts do it in production. releaseRetry is the pause before a permit is given
	// back again.
	lockWait     = time.Second
	permitWait   = 2 * time.Second
	releaseRetry = time.Second
	// sessionExpires is how long after its end a node's session holds its locks.
	sessionExpires = 1500 * time.Millisecond
	// admissionWait is how long after its start a node waits for the control
	// group's word before its replicas take part without it.
	admissionWait = 2 * time.Second
)

// control is the control group as the replicas see it: one lock and one permit
// per group, and a session per node. Its machine has its own tests; here it is
// what may go wrong with it that counts.
type control struct {
	w       *world
	groups  []grouplock
	boots   []uint64 // by identity: of the session
	starts  []uint64 // by identity: which of all processes it is of
	expired []bool
	told    []bool // by place: the control group has admitted its process
	down    int    // faults that keep it from answering
	// Faults under way: it forgets, doubles, refuses, or is slow.
	forgets, doubles, refuses int
	slow                      partition.Time
	asked                     uint64
}

// grouplock is what the control group keeps of a group.
type grouplock struct {
	last   uint64 // the newest number given
	holder partition.ReplicaID
	node   int // identity of the holder's node
	boot   uint64
	number uint64
	permit permit
}

// permit is the number under which one replica may go on alone.
type permit struct {
	number    uint64
	holder    partition.ReplicaID // 0: nobody
	able      []partition.ReplicaID
	next      partition.ReplicaID
	lock, seq uint64
	granted   int
}

func newControl(w *world) *control {
	return &control{w: w, groups: make([]grouplock, len(w.groups)), boots: make([]uint64, len(w.ids)), starts: make([]uint64, len(w.ids)), expired: make([]bool, len(w.ids)), told: make([]bool, len(w.nodes))}
}

// Kinds of questions.
const (
	askLock = iota + 1
	askRelease
	askPermit
	askGiveBack
	askEnroll
	askReport
)

// question is on its way to the control group.
type question struct {
	h           *host
	n           *node
	incarnation uint64
	life        uint32
	who         int
	boot, start uint64
	replica     partition.ReplicaID
	lock        *replica.AcquireLock
	permit      *replica.Permit
	next        partition.ReplicaID
	back        *replica.ReleasePermit
	report      *report
	number      uint64
	answered    bool
	answer      replica.Input
}

// post sends a question. What a node asks arrives in order, also what it asked
// before a crash.
func (c *control) post(n *node, kind uint64, q *question) {
	c.asked++
	q.n, q.life, q.who, q.boot, q.start = n, n.life, n.who, n.boot, n.started
	k := c.w.k
	d := between(c.w.rnd.two(onControl, uint64(n.ord), c.asked), k.DelayMin, 2*k.DelayMax) + c.slow
	n.asked = max(n.asked, c.w.eng.now+d)
	x := c.w.eng.at(n.asked, evControl, -1)
	x.a, x.p = kind, q
}

func (c *control) ask(h *host, x *replica.AcquireLock) {
	q := &question{h: h, incarnation: h.incarnation, replica: h.replica, lock: x}
	c.post(h.n, askLock, q)
	c.giveUp(q, replica.LockRefused{}, lockWait)
}

// giveUp answers a question that the control group does not answer in time.
func (c *control) giveUp(q *question, in replica.Input, after partition.Time) {
	x := c.w.eng.after(after, evControlAnswer, q.n.ord)
	x.life = q.n.life
	x.a, x.p = 1, &late{q: q, in: in}
}

// late is an answer in place of one that did not come.
type late struct {
	q  *question
	in replica.Input
}

func (c *control) release(h *host, number uint64) {
	c.post(h.n, askRelease, &question{h: h, replica: h.replica, number: number})
}

func (c *control) permit(h *host, x *replica.Permit) {
	q := &question{h: h, incarnation: h.incarnation, replica: h.replica, permit: x}
	if v := h.view; v != nil {
		q.next = v.Configurations.Last().Next
	}
	c.post(h.n, askPermit, q)
	c.giveUp(q, replica.PermitRefused{Seq: x.Seq, Why: "no answer"}, permitWait)
}

func (c *control) giveBack(h *host, x *replica.ReleasePermit) {
	c.post(h.n, askGiveBack, &question{h: h, incarnation: h.incarnation, replica: h.replica, back: x})
}

// arrives handles a question.
func (c *control) arrives(kind uint64, q *question) {
	if c.down > 0 || c.cutOff(q.n) {
		if (kind == askGiveBack || kind == askEnroll || kind == askRelease) && q.n.up && q.n.life == q.life {
			x := c.w.eng.after(releaseRetry, evControl, -1)
			x.a, x.p = kind, q
		}
		return
	}
	if !c.enrolled(q) && kind != askEnroll {
		return
	}
	switch kind {
	case askLock:
		c.acquire(q)
	case askRelease:
		if l := &c.groups[q.h.gi]; l.holder == q.replica && l.number == q.number {
			l.holder, l.number = 0, 0
		}
	case askPermit:
		c.permitted(q)
	case askGiveBack:
		c.givenBack(q)
	case askReport:
		c.reported(q)
	case askEnroll:
		x := c.w.eng.after(c.w.k.DelayMin, evAdmission, q.n.ord)
		x.life = q.life
		if q.n.disk.rolled || q.boot != c.boots[q.who] || q.start != c.starts[q.who] {
			x.a = 1 // it runs on an old copy of its disk
		}
	}
}

// cutOff reports whether a node reaches too few others to reach the control group,
// whose seats are on the first nodes of those that are not away for good.
func (c *control) cutOff(n *node) bool {
	seats, reached := 0, 0
	for i := 0; i < len(c.w.nodes) && seats < 3; i++ {
		if l := c.w.live; l != nil && l.away[i] {
			continue
		}
		seats++
		if c.w.net.ok(n.ord, i) {
			reached++
		}
	}
	return 2*reached <= seats
}

// enrolled notes that a process lives. It refuses one that was not started after the
// newest on the same disk: a start counts the boot before anything else, so a lower
// boot, or the same one by another start, means an older copy of the disk.
func (c *control) enrolled(q *question) bool {
	if boot := c.boots[q.who]; q.boot < boot || q.boot == boot && q.start != c.starts[q.who] {
		return false
	}
	if q.n.disk.rolled {
		// It has started so often since that its number is new again: in the product
		// this passes.
		c.w.mark("sim.rolled_back_number_caught_up")
		return false
	}
	c.boots[q.who], c.starts[q.who], c.expired[q.who] = q.boot, q.start, false
	return true
}

// held reports whether a live session holds the lock.
func (c *control) held(l *grouplock) bool {
	return l.holder != 0 && !c.expired[l.node] && c.boots[l.node] == l.boot
}

func (c *control) acquire(q *question) {
	w, l, x := c.w, &c.groups[q.h.gi], q.lock
	h := w.rnd.two(onLock, uint64(q.h.gi), c.asked)
	k := w.k
	switch {
	case !l.permit.mayLead(q.replica):
		c.reply(q, replica.LockRefused{})
		return
	case c.refuses > 0 || share(h, k.LockRefuses):
		c.reply(q, replica.LockRefused{})
		return
	case c.forgets > 0 || share(mix(h^1), k.LockForgets):
		// It has forgotten everything, and gives the number after the one it is told.
		w.mark("sim.lock_forgot")
		l.last, l.holder = x.Above+1, 0
		if mix(h^3)%4 == 0 && x.Above > 0 {
			// Nor does it listen: it gives the number again that was the last.
			w.mark("sim.lock_repeated")
			c.reply(q, replica.Locked{Number: x.Above, Permit: l.permit.of(q.replica)})
			return
		}
		c.reply(q, replica.Locked{Number: x.Above + 1, Permit: l.permit.of(q.replica)})
		return
	case c.doubles > 0 || share(mix(h^2), k.LockDoubles):
		w.mark("sim.lock_doubled")
		l.last = max(l.last, x.Above+1)
		c.reply(q, replica.Locked{Number: l.last, Permit: l.permit.of(q.replica)})
		return
	}
	same := l.holder == q.replica && l.node == q.who
	taken := x.Failover && l.holder != q.replica
	consents := x.Holder != 0 && l.holder == x.Holder && l.number == x.Consent
	if c.held(l) && !same && !taken && !consents {
		c.reply(q, replica.LockRefused{})
		return
	}
	l.last = max(l.last, x.Above) + 1
	l.holder, l.node, l.boot, l.number = q.replica, q.who, q.boot, l.last
	c.reply(q, replica.Locked{Number: l.last, Permit: l.permit.of(q.replica)})
}

// reply brings an answer back.
func (c *control) reply(q *question, in replica.Input) {
	c.asked++
	k := c.w.k
	d := between(c.w.rnd.two(onControl, uint64(q.n.ord), c.asked), k.DelayMin, 2*k.DelayMax) + c.slow
	if c.w.tracing() {
		c.w.tracef("control: %s is answered %T %+v", q.h, in, in)
	}
	q.answer = in
	x := c.w.eng.after(d, evControlAnswer, q.n.ord)
	x.life, x.p = q.life, q
}

// answered hands an answer to the host that asked, once.
func (c *control) answered(q *question, in replica.Input) {
	if q.answered || q.h.incarnation != q.incarnation {
		return
	}
	q.answered = true
	if q.report != nil {
		q.h.told(q.report, in != nil)
		return
	}
	q.h.take(in)
}

func (p *permit) of(r partition.ReplicaID) uint64 {
	if p.holder == r {
		return p.number
	}
	return 0
}

func (p *permit) mayLead(r partition.ReplicaID) bool {
	return p.holder == 0 || p.holder == r || slices.Contains(p.able, r) || p.next != 0 && r >= p.next
}

func (c *control) permitted(q *question) {
	l, x := &c.groups[q.h.gi], q.permit
	p := &l.permit
	refuse := func(why string, outdated bool) {
		c.reply(q, replica.PermitRefused{Seq: x.Seq, Why: why, Outdated: outdated})
	}
	switch {
	case p.holder != 0 && !p.mayLead(q.replica):
		refuse("another one holds it", false)
	case l.last > x.Lock || p.lock > x.Lock || p.lock == x.Lock && p.seq >= x.Seq:
		refuse("a newer lock was handed out", true)
	case l.last != x.Lock || l.holder != 0 && l.holder != q.replica:
		refuse("it does not have that lock", false)
	default:
		*p = permit{number: p.number + 1, holder: q.replica, next: q.next, lock: x.Lock, seq: x.Seq, granted: p.granted + 1}
		if l.holder != 0 && !p.mayLead(l.holder) {
			l.holder, l.number = 0, 0
		}
		c.w.mark("sim.permit_granted")
		c.reply(q, replica.Permitted{Seq: x.Seq, Number: p.number})
	}
}

func (c *control) givenBack(q *question) {
	p, x := &c.groups[q.h.gi].permit, q.back
	if p.number != x.Number || p.holder == 0 {
		return
	}
	c.w.check.permitReturned(q.h, x)
	if len(x.Able) == 0 {
		*p = permit{number: p.number + 1, lock: p.lock, seq: p.seq, granted: p.granted}
		return
	}
	p.able = append(slices.Clone(p.able), x.Able...)
	slices.Sort(p.able)
	p.able = slices.Compact(p.able)
}

// enroll asks for the word that the process runs on the newest disk of its node.
func (n *node) enroll() {
	n.w.control.told[n.ord] = false
	n.askAdmission()
	x := n.w.eng.after(admissionWait, evAdmission, n.ord)
	x.life, x.a = n.life, 2
}

// askAdmission asks for the word until it comes.
func (n *node) askAdmission() {
	n.w.control.post(n, askEnroll, &question{})
}

// admitted reports whether replicas that were found on the disk may take part.
func (n *node) admitted() bool { return n.w.control.told[n.ord] }

// admission is the control group's word, or that it did not come in time.
func (n *node) admission(verdict uint64) {
	if verdict == 1 {
		n.stale()
		return
	}
	if n.admitted() || verdict == 2 && n.disk.rolled {
		return // that nobody answers in time must not meet an old copy: README.md
	}
	n.w.control.told[n.ord] = true
	for _, h := range n.hosts {
		if h != nil && h.rep == nil {
			h.load()
		}
	}
}

// stale ends a process that turns out to run on an old copy of the node's disk.
// By the next one every replica on it is known to be suspect.
func (n *node) stale() {
	n.w.mark("sim.rolled_back_noticed")
	for gi := range n.w.groups {
		if sum, ok := n.disk.log.summary(n.w.groups[gi].id); ok {
			n.disk.suspects[gi] = sum.Replica
		}
	}
	n.disk.rolled = false
	n.disk.boot = max(n.disk.boot, n.w.control.boots[n.who]) // the identity skips what it may have been
	n.processEnds("its disk is an old copy")
}

// expireLater ends the session of a node that has ended, unless it is back by
// then.
func (w *world) expireLater(n *node) {
	x := w.eng.after(sessionExpires, evExpire, -1)
	x.a, x.b = uint64(n.who), n.boot
}

func (c *control) expire(who int, boot uint64) {
	if c.boots[who] == boot {
		c.expired[who] = true
	}
}
