package sim

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"pando.dev/pando/partition"
)

// world is one run: everything there is, in one goroutine.
type world struct {
	plan *Plan
	k    *Knobs
	eng  engine
	rnd  chances

	nodes  []*node
	groups []*group
	ids    []partition.NodeID // by identity; the first are those of the nodes at the start
	owner  []int              // by identity: the place of the node that has it, -1: nobody
	whoIs  map[partition.NodeID]int

	net     *network
	control *control
	clients []*client
	check   *checker
	catalog *catalog
	live    *live // once the faults are over
	faults  faults
	points  points

	driftPPM int
	quiet    bool           // the faults are over
	decreed  partition.Time // until then a replica may attempt an operator's decree
	parts    uint64
	starts   uint64 // processes
	pokes    uint64 // operations of nobody
	hash     uint64
	pace     pace
	out      *bufio.Writer // of the trace; nil: none
	count    counts
	marks    map[string]uint64
	fired    []PointFault
	tokens   []token
	body     []byte // of the command on its way into a proposal

	// Of tests: heard is told what clients ask (without an answer) and are told;
	// overlook are checkers that object in vain, so many times.
	heard      func(*op, *answer)
	overlook   []string
	overlooked int
}

// counts are those of the result, and some of our own.
type counts struct {
	Counts
	steps, refusedInputs uint64
	reads                [4]uint64 // answered, by level
}

// broken is what stops a run at the first violation.
type broken struct{ v *Violation }

// violate stops the run. It does not return, but in tests that overlook this
// checker.
func (w *world) violate(what, format string, args ...any) {
	if slices.Contains(w.overlook, what) {
		w.overlooked++
		return
	}
	panic(broken{&Violation{What: what, Why: fmt.Sprintf(format, args...), At: w.eng.now}})
}

// mark counts that a rare state was reached.
func (w *world) mark(name string) { w.marks[name]++ }

func (w *world) tracing() bool { return w.out != nil }

// tracef writes a line of the trace. On a path that is often taken the caller asks
// tracing first, so that the arguments cost nothing.
func (w *world) tracef(format string, args ...any) {
	if w.out != nil {
		fmt.Fprintf(w.out, "%12.6f  ", w.eng.now.Seconds())
		fmt.Fprintf(w.out, format, args...)
		_ = w.out.WriteByte('\n')
	}
}

// Run runs the plan. It returns a violation, never panics, and takes the same
// steps each time.
func (p *Plan) Run(o Options) (r *Result) {
	w := newWorld(p, o.Trace)
	w.pace.stop = o.Stop
	r = &Result{}
	defer func() {
		switch x := recover().(type) {
		case nil:
		case stopped:
			r.Stopped = true
		case broken:
			r.Violation = x.v
		default:
			r.Violation = &Violation{What: "panic", Why: fmt.Sprintf("%v at %s", x, stackTop(string(debug.Stack()))), At: w.eng.now}
		}
		w.result(r)
	}()
	w.create()
	w.play(p.Knobs.Length)
	w.recover()
	return r
}

// stackTop are the first frames of a stack below the panic, without arguments.
func stackTop(stack string) string {
	lines := strings.Split(stack, "\n")
	i := 0
	for j, l := range lines {
		if strings.HasPrefix(l, "panic(") {
			i = j + 2
		}
	}
	var top []string
	for ; i < len(lines) && len(top) < 4; i++ {
		if l := lines[i]; !strings.HasPrefix(l, "\t") && strings.Contains(l, "(") {
			top = append(top, l[strings.LastIndex(l, "/")+1:strings.LastIndex(l, "(")])
		}
	}
	return strings.Join(top, " < ")
}

func (w *world) result(r *Result) {
	r.Simulated, r.Events, r.Steps = w.eng.now, w.eng.took, w.count.steps
	r.TraceHash, r.Marks, r.Fired = w.hash, w.marks, w.fired
	for l, n := range w.count.reads {
		if n > 0 {
			r.Marks["sim.read_"+level(l).String()] = n
		}
	}
	w.points.addTo(r.Marks)
	r.Counts = w.count.Counts
	if r.Violation != nil {
		w.tracef("VIOLATION %s: %s", r.Violation.What, r.Violation.Why)
	}
	if w.out != nil {
		_ = w.out.Flush()
	}
}

func newWorld(p *Plan, out io.Writer) *world {
	w := &world{
		plan: p, k: &p.Knobs, rnd: chances(mix(p.Seed)), marks: map[string]uint64{},
		whoIs: map[partition.NodeID]int{},
	}
	if out != nil {
		w.out = bufio.NewWriter(out)
	}
	// The clocks' difference in speed counts twice between two nodes, and once more
	// each between a grantor and the next master.
	w.driftPPM = max(1, int(math.Ceil(4.2*w.k.Drift*1e6)))
	w.eng.now = time.Second
	w.net = newNetwork(w, w.k.Nodes)
	w.check = newChecker(w)
	w.catalog = newCatalog(w.k.Groups)
	w.catalog.reserve(w.k.Splits)
	for i := range w.k.Nodes {
		n := &node{w: w, ord: i, zone: fmt.Sprintf("z%d", i%max(1, w.k.Zones))}
		n.clock.trueBase = w.eng.now
		n.clock.base = partition.Time(time.Second) + between(w.rnd.two(onClock, uint64(i), 1), 0, w.k.Offset)
		n.clock.ppm = w.drift(w.rnd.two(onClock, uint64(i), 2))
		w.nodes = append(w.nodes, n)
		n.takeIdentity(w.newIdentity(i, partition.NodeID(fmt.Sprintf("n%d", i+1))))
	}
	w.groups = w.drawGroups()
	for i, n := range w.nodes {
		n.disk = newDisk(w, i)
	}
	w.control = newControl(w)
	w.faults.w = w
	w.points = newPoints(w)
	return w
}

// drift is a rate within the bound of the plan, or at it.
func (w *world) drift(h uint64) int64 {
	most := int64(w.k.Drift * 1e6)
	switch mix(h) % 4 {
	case 0:
		return most
	case 1:
		return -most
	}
	return int64(h%uint64(2*most+1)) - most
}

// newIdentity is one that no node had before.
func (w *world) newIdentity(place int, id partition.NodeID) int {
	who := len(w.ids)
	w.ids, w.owner = append(w.ids, id), append(w.owner, place)
	w.whoIs[id] = who
	if w.control != nil {
		c := w.control
		c.boots, c.starts, c.expired = append(c.boots, 0), append(c.starts, 0), append(c.expired, false)
	}
	return who
}

// takeIdentity makes the node the one with this identity.
func (n *node) takeIdentity(who int) {
	n.who, n.id = who, n.w.ids[who]
	n.w.owner[who] = n.ord
}

// create writes every group's first record to its members' disks, and starts
// everything.
func (w *world) create() {
	if err := w.catalog.check(); err != nil {
		w.violate("ranges", "%v", err)
	}
	for _, n := range w.nodes {
		if err := n.disk.open(); err != nil {
			w.violate("log", "%s cannot make its log: %v", n, err)
		}
	}
	for _, g := range w.groups {
		if !g.born() {
			w.check.groups = append(w.check.groups, groupCheck{g: g})
			continue
		}
		for _, m := range g.genesis.Members {
			n := w.nodes[w.owner[w.whoIs[m.Node]]]
			if err := n.disk.create(g, m); err != nil {
				w.violate("log", "%s cannot create %s: %v", n, g.id, err)
			}
		}
		w.check.created(g)
	}
	for _, n := range w.nodes {
		n.disk.closeClean()
		n.start()
		for _, h := range n.hosts {
			if h != nil {
				h.fresh = true
			}
		}
	}
	w.makeClients()
	w.faults.schedule()
	w.planSplits()
	w.planMerges()
}

// play lets d go by.
func (w *world) play(d partition.Time) {
	until := w.eng.now + d
	var x event
	for w.eng.next(until, &x) {
		w.goesOn()
		w.dispatch(&x)
	}
	w.eng.now = max(w.eng.now, until)
}

// dispatch lets an event happen, or keeps it while its process is stopped.
func (w *world) dispatch(x *event) {
	h := w.hash ^ uint64(w.eng.now)
	h = (h ^ uint64(x.kind)<<48 ^ uint64(uint16(x.node))<<32 ^ uint64(uint16(x.from))<<16 ^ uint64(uint16(x.group))) * 0x9e3779b97f4a7c15
	h = (h ^ h>>29 ^ x.a ^ x.b<<17 ^ x.c<<31) * 0xbf58476d1ce4e5b9
	w.hash = h ^ h>>32
	if x.node < 0 {
		w.happens(x)
		return
	}
	n := w.nodes[x.node]
	switch {
	case x.life != 0 && x.life != n.life:
		return
	case x.kind == evBoot || x.kind == evResume || x.kind == evPoint:
	case n.paused:
		if len(n.held) < maxHeld && !(n.frozen && x.life == 0) {
			n.held = append(n.held, *x)
		}
		return
	case n.busyUntil > w.eng.now:
		e := w.eng.at(n.busyUntil, x.kind, int(x.node))
		*e = *x
		return
	}
	w.befalls(n, x)
}

// befalls lets an event happen to a node.
func (w *world) befalls(n *node, x *event) {
	switch x.kind {
	case evMessage, evBeat, evAnswer, evMergeCall, evMergeAnswer:
		w.net.deliver(n, x)
	case evTick:
		n.tick()
	case evSynced:
		n.disk.synced(n)
	case evSettle:
		n.disk.idle(n)
	case evBoot:
		if x.a == uint64(n.life) {
			n.start()
		}
	case evResume:
		if x.a == uint64(n.life) {
			n.resume()
		}
	case evLinkDown:
		w.net.linkDown(n, int(x.a), x.b)
	case evControlAnswer:
		if l, ok := x.p.(*late); ok {
			w.control.answered(l.q, l.in)
		} else {
			q := x.p.(*question)
			w.control.answered(q, q.answer)
		}
	case evAdmission:
		n.admission(x.a)
	case evRequest:
		n.request(uint32(x.a), x.p.(*op), int(x.group))
	case evReadBack:
		n.readLease(int(x.group), x.p.(*reading))
	case evPoint:
		w.faults.pointFault(n, x)
	case evHint:
		n.lie(int(x.a), x.b)
	case evWatch:
		n.endStarve()
	case evCatalog:
		n.learns(x.p.(*catalogView))
	default:
		if h := n.hosts[x.group]; h != nil && h.incarnation == x.a {
			h.happens(x)
		}
	}
}

// happens lets an event happen to a replica.
func (h *host) happens(x *event) {
	switch x.kind {
	case evAlarm:
		if x.b == h.alarm {
			h.take(tick)
		}
	case evLoad:
		h.load()
	case evApply:
		if h.rep != nil {
			h.execute(x.p.(*replicaApply))
			h.turn()
		}
	case evTryAgain:
		if h.rep != nil {
			h.tryAgain()
			h.turn()
		}
	case evSplit:
		h.makeChildren()
		h.drive()
		h.merge()
	case evMergeLate:
		h.mergeLate(x.p.(*mergeCall))
	}
}

// happens lets an event happen to the world.
func (w *world) happens(x *event) {
	switch x.kind {
	case evClient, evReply, evClientTimeout:
		w.clients[x.from].happens(x)
	case evFault:
		w.faults.begin(int(x.a))
	case evFaultEnd:
		w.faults.end(int(x.a), x.b)
	case evControl:
		w.control.arrives(x.a, x.p.(*question))
	case evExpire:
		w.control.expire(int(x.a), x.b)
	case evAskSplit:
		w.asksOf(x)
	}
}
