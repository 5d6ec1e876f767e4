package sim

import (
	"fmt"
	"math/rand/v2"

	"pando.dev/pando/internal/planted"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

// call is a request that waits for the machine's Reply.
type call struct {
	op  *op
	try uint32
	act *act // an operator's request; then op is nil
	// floor is what was visible when this try arrived.
	floor partition.Index
}

type waitingRead struct {
	index partition.Index
	call  call
}

// host is one replica in a process: the protocol machine, and what is done with
// its work, as the actor of a replica does it in production.
type host struct {
	n       *node
	g       *group
	gi      int
	replica partition.ReplicaID
	logOnly bool
	fresh   bool // it was made a moment ago, and never ran
	// appointed: it begins with the promise of the group's first master.
	appointed bool
	ran       bool // this process has run it
	broken    bool // it must stay silent
	gone      bool // it was deleted
	loading   bool
	made      bool // it was made for a new member, which is not durable yet

	incarnation uint64
	rep         *replica.Replica
	state       *state
	exec        *replica.Executor
	view        *replica.View
	events      []replica.Event
	spare       []replica.Event
	turning     bool
	nextCall    uint64
	calls       map[uint64]call
	results     map[uint64]replica.Result // by call
	reads       []waitingRead
	heldReads   []*reading
	resigned    *replica.View // under which an earlier incarnation was master when it failed
	applied     partition.Index
	alarm       uint64
	unwritten   []*replica.Persist
	part        walWrite // on its way to the log, which copies it
	retrying    bool
	wanted      partition.Index // what the log was told that peers want
	flushes     uint64
	applies     uint64
	serving     bool // for the checkers: what the last view said
	looked      partition.Index
	fenced      partition.Epoch // of the last record applied
	dividing    dividing
	merging     merging
}

// firstIncarnation is where the count of a replica's incarnations begins: what was
// asked for by an earlier replica of the group on the node must not reach this one.
func firstIncarnation(r partition.ReplicaID) uint64 { return uint64(r) << 32 }

// String names the replica.
func (h *host) String() string { return fmt.Sprintf("%s/%d on %s", h.g.id, h.replica, h.n) }

// event queues an input for the next turn.
func (h *host) event(in replica.Input) {
	h.events = append(h.events, replica.Event{Now: h.n.local(), Input: in})
}

// take gives the machine one input and does all the work.
func (h *host) take(in replica.Input) {
	if h.rep == nil {
		return
	}
	h.event(in)
	h.turn()
}

// turn empties the queue of events.
func (h *host) turn() {
	if h.turning || h.rep == nil {
		return
	}
	h.turning = true
	rep := h.rep
	for len(h.events) > 0 && h.rep == rep {
		batch := h.events
		h.events = h.spare[:0]
		for i := range batch {
			h.n.w.count.steps++
			h.n.w.goesOn()
			if err := rep.Step(batch[i]); err != nil {
				h.refused(&batch[i], err)
			}
		}
		clear(batch)
		h.spare = batch[:0]
		for x := range rep.Ready() {
			h.do(x)
			if h.rep != rep {
				break
			}
		}
	}
	h.turning = false
	if h.rep == rep && rep != nil {
		h.n.w.check.stepped(h)
	}
	if h.exec != nil && h.exec.Extent().Split != nil {
		h.drive()
	}
	if h.n.step > 0 {
		h.n.busyUntil = max(h.n.busyUntil, h.n.w.eng.now) + h.n.step
	}
}

// refused is told of an event that the machine ignored.
func (h *host) refused(e *replica.Event, err error) {
	h.n.w.count.refusedInputs++
	h.n.w.check.ignored(h, e.Input, err)
}

// do does one piece of work.
func (h *host) do(x replica.Work) {
	switch x := x.(type) {
	case *replica.Persist:
		h.persist(x)
	case *replica.Send:
		h.send(x)
	case *replica.Apply:
		h.apply(x)
	case *replica.Reply:
		h.reply(x)
	case *replica.Alarm:
		h.setAlarm(x.At)
	case *replica.AcquireLock:
		h.n.w.control.ask(h, x)
	case *replica.ReleaseLock:
		h.n.w.control.release(h, x.Number)
	case *replica.Permit:
		h.n.w.control.permit(h, x)
	case *replica.ReleasePermit:
		h.n.w.control.giveBack(h, x)
	case *replica.Publish:
		h.publish(x.View)
	case *replica.Retire:
		h.n.w.check.retired(h)
		h.retire()
	}
}

func (h *host) setAlarm(at partition.Time) {
	h.alarm++
	if at == 0 {
		return
	}
	x := h.n.w.eng.at(h.n.later(at), evAlarm, h.n.ord)
	x.life, x.group, x.a, x.b = h.n.life, int16(h.gi), h.incarnation, h.alarm
}

func (h *host) publish(v *replica.View) {
	h.serves(v.Serving)
	h.view, h.serving = v, v.Serving
	if w := h.n.w; w.tracing() {
		w.tracef("%s: master %d of epoch %s, serving %v", h, v.Master, v.Epoch, v.Serving)
	}
	h.n.w.check.published(h, v)
}

// neighbour is told that a node came, went, or was away for a moment.
func (h *host) neighbour(id partition.NodeID, up bool) {
	reachable := h.n.Reachable(id)
	if !up || !reachable {
		h.event(replica.NodeDown{Node: id})
	}
	if reachable {
		h.event(replica.NodeUp{Node: id})
	}
	h.turn()
}

// received takes a message from another replica, unless it does not come from the
// node that holds that one as far as the configuration is known here.
func (h *host) received(from partition.ReplicaID, node partition.NodeID, boot uint64, m replica.Message) {
	if h.rep == nil {
		return
	}
	if v := h.view; v != nil {
		if x, ok := v.Configurations.Member(from); ok && x.Node != node {
			return
		}
	}
	h.take(replica.Received{From: from, Node: node, Boot: boot, Message: m})
}

// written is told that a write is durable.
func (h *host) written(t token) {
	switch {
	case t.incarnation != h.incarnation:
	case t.seq == 0:
		if h.made = false; h.rep == nil {
			h.open()
		}
	default:
		h.event(replica.Persisted{Seq: t.seq})
	}
}

func (h *host) remember(c call) uint64 {
	h.nextCall++
	h.calls[h.nextCall] = c
	return h.nextCall
}

// loadAfter opens the replica in a while.
func (h *host) loadAfter(d partition.Time) {
	h.loading = true
	x := h.n.w.eng.after(d, evLoad, h.n.ord)
	x.life, x.group, x.a = h.n.life, int16(h.gi), h.incarnation
}

// load opens the replica. What an earlier incarnation in this process has written
// must be on the disk first: a machine takes for durable what it starts from.
func (h *host) load() {
	if h.rep != nil || h.gone || h.broken || h.made {
		return
	}
	if !h.fresh && !h.ran && !h.n.admitted() {
		return // asked again when there is a word, or in time
	}
	if h.ran {
		w := &walWrite{Group: h.g.id}
		if h.n.disk.append(h.n, w, false, token{host: h, incarnation: h.incarnation}) != nil {
			h.loadAfter(reopenAfter)
		}
		return
	}
	h.open()
}

// open makes the machine from what is on the disk.
func (h *host) open() {
	h.loading = false
	n, d := h.n, h.n.disk
	sum, ok := d.log.summary(h.g.id)
	if !ok {
		n.w.violate("host", "%s: the log has no such replica", h)
	}
	if sum.Damage != nil || n.silent(h.gi, sum.Replica) {
		h.breaks("damaged or suspect")
		return
	}
	h.replica, h.logOnly = sum.Replica, sum.Generation == 0
	applied := min(max(sum.Commit, sum.First-1), sum.Last)
	if s := d.staged[h.gi]; s != nil && s.generation == sum.Generation {
		d.states[h.gi], d.staged[h.gi] = s.state, nil
	}
	if !h.logOnly {
		h.state = d.states[h.gi]
		if h.state == nil || h.state.bad || h.state.applied > sum.Last || h.state.applied+1 < sum.First {
			if !d.harmed {
				n.w.violate("log", "%s: the log has %d to %d, which its state does not fit", h, sum.First, sum.Last)
			}
			h.breaks("its state does not fit its log")
			return
		}
		applied = h.state.applied
		exec, err := replica.NewExecutor(newRegisters(h.g.table), h.state)
		if err != nil {
			n.w.violate("host", "%s cannot read its state: %v", h, err)
		}
		exec.Plant(n.w.plan.Planted)
		exec.Observe(h.point)
		if n.w.k.SessionLimit > 0 {
			exec.LimitSessions(n.w.k.SessionLimit)
		}
		h.exec = exec
	}
	restored, err := restore(sum, applied)
	if err != nil {
		n.w.violate("host", "%s: %v", h, err)
	}
	restored.Restarted = !h.fresh && !n.w.plan.Planted.Has(planted.RestartUntold)
	if h.appointed && !restored.Restarted {
		restored.Appointed = &replica.Appointed{}
	}
	h.fresh, h.appointed = false, false
	rep, err := replica.New(h.config(), restored)
	if err != nil {
		n.w.violate("host", "%s cannot start: %v", h, err)
	}
	h.ran, h.rep, h.applied, h.looked, h.fenced = true, rep, applied, 0, 0
	h.calls, h.results = map[uint64]call{}, map[uint64]replica.Result{}
	if n.w.tracing() {
		n.w.tracef("%s opens: %s", h, rep.Status())
	}
	n.w.check.opened(h)
	h.event(replica.Tick{})
	h.turn()
}

func (h *host) config() replica.Config {
	k := h.n.w.k
	seed := h.n.w.rnd.of(onRand, uint64(h.gi), uint64(h.replica), uint64(h.n.life), h.incarnation)
	c := replica.Config{
		Group: h.g.id, Self: h.replica, Node: h.n.id, Neighbours: h.n, Rand: rand.New(rand.NewPCG(seed, 1)),
		LogOnly: h.logOnly, Solo: k.SoloAfter > 0, SoloAfter: k.SoloAfter,
		Lease: k.Lease, RetryMin: k.RetryMin, RetryMax: k.RetryMax, AnswerWait: k.AnswerWait, DurabilityWait: k.DurabilityWait,
		TailBytes: k.TailBytes, MaxAppendBytes: k.MaxAppendBytes, MaxInFlightBytes: k.MaxInFlightBytes, MaxPending: k.MaxPending,
	}
	if w := h.n.w; w.tracing() {
		c.Trace = func(e replica.TraceEvent) { w.tracef("%s %s, epoch %s", h, e.What, e.Epoch) }
	}
	c.Planted, c.Point = h.n.w.plan.Planted, h.point
	return c
}

// point is told where the machine, or the executor, comes by.
func (h *host) point(p replica.Point) {
	if p == replica.AtBehind {
		h.g.behind = true
	}
	h.n.w.points.reached(h.n, int(p))
}

// breaks lets the replica stay silent for good.
func (h *host) breaks(why string) {
	h.broken = true
	h.n.w.mark("sim.replica_silent")
	h.n.w.tracef("%s stays silent: %s", h, why)
}

// rebuild ends the incarnation, as after a panic of the machine, and begins the
// next one from what is durable.
func (h *host) rebuild(why string) {
	if h.rep == nil {
		return
	}
	h.n.w.tracef("%s is rebuilt: %s", h, why)
	h.n.w.mark("sim.rebuilt")
	v := h.view
	h.drop()
	if v != nil && v.Master == v.Self {
		h.resigned = v
		h.resign()
	}
	h.loadAfter(between(h.n.w.rnd.of(onRestart, uint64(h.gi), uint64(h.n.life), h.incarnation), 0, reopenAfter))
}

// resign tells the members that this replica is not their master any more: its node
// goes on answering, so they would not ask. It tells again whoever comes back while
// the replica does not run.
func (h *host) resign() {
	v := h.resigned
	if v == nil || h.rep != nil {
		return
	}
	told := map[partition.ReplicaID]bool{v.Self: true}
	for _, c := range v.Configurations {
		for _, m := range c.Members {
			if !told[m.Replica] {
				told[m.Replica] = true
				h.n.w.net.send(h, m.Replica, m.Node, &replica.ProbeAnswer{Promised: v.Epoch})
			}
		}
	}
}

// drop ends the incarnation: whoever waits gets no answer, or one that the
// outcome is unknown.
func (h *host) drop() {
	h.incarnation++
	h.alarm++
	h.rep, h.view, h.serving, h.exec, h.state = nil, nil, false, nil, nil
	h.events, h.unwritten, h.retrying, h.reads = h.events[:0], nil, false, nil
	h.calls, h.results, h.heldReads = nil, nil, nil
	h.wanted, h.dividing, h.merging = 0, dividing{}, merging{}
}

// retire deletes the replica for good. What it revoked stands.
func (h *host) retire() {
	n, d := h.n, h.n.disk
	if n.remakes(h) {
		h.dividing.leaves = true // its node would make it again, with its promises forgotten
		return
	}
	n.w.tracef("%s is deleted", h)
	for who := range n.w.ids {
		if who != n.who {
			n.table.Revoke(h.g.id, h.replica, ^partition.Epoch(0), n.w.ids[who])
		}
	}
	h.drop()
	h.gone = true
	d.forget(h.gi)
	n.hosts[h.gi] = nil
}
