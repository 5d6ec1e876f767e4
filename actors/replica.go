package actors

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"pando.dev/pando/actors/client"
	"pando.dev/pando/actors/mailbox"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

// What a replica's mailbox takes. All but the first three come from the node
// itself, in numbers that are bounded by what the replica has asked for.
type (
	// proposal is a client's command or a session to be opened.
	proposal struct {
		req   *client.Request
		reply func(*client.Response)
	}
	// indexedRead is a read that must ask the other members first.
	indexedRead struct {
		req   *client.Request
		reply func(*client.Response)
	}
	// received is a message from another replica.
	received struct {
		from partition.ReplicaID
		node partition.NodeID
		boot uint64 // incarnation of the node
		msg  replica.Message
	}
	// completion is an answer to work that the actor's incarnation asked for;
	// one for an earlier incarnation is dropped.
	completion struct {
		incarnation uint64
		input       replica.Input
		err         error
	}
	// retry says that what the log or the store had no room for is to be tried
	// again.
	retry struct {
		incarnation uint64
		log         bool // it is the one that stall asked for
	}
	// truncated says that the log may begin later than it did.
	truncated struct{}
	// neighbour says that a node became reachable or unreachable.
	neighbour struct {
		node partition.NodeID
		up   bool
	}
	// tableKnown says that the catalog has told the group's table.
	tableKnown struct{}
	// opened brings what was read from the disk.
	opened struct {
		incarnation uint64
		loaded      *loaded
		err         error
	}
)

// envelopeBytes is room enough for what AppendCommand puts before a command.
const envelopeBytes = 64

// call is a request that waits for the machine's Reply: a client's, or one to
// change the group, which has only done.
type call struct {
	req   *client.Request
	reply func(*client.Response)
	done  func(partition.Index, error)
}

// refuse answers the caller. A read has done nothing in any case.
func (c *call) refuse(why *partition.Error) {
	switch {
	case c.done != nil:
		c.done(0, why)
	case c.req.Op == client.OpRead && why.Code == partition.CodeUnknown:
		c.reply(client.ErrorResponse(partition.Errorf(partition.CodeUnavailable, "%s", why.Why)))
	default:
		c.reply(client.ErrorResponse(why))
	}
}

// replicaActor hosts the protocol machine of one replica: it turns what arrives
// in the mailbox into events and does the work that the machine asks for. After
// a panic the supervisor makes a new one, which starts from the log.
type replicaActor struct {
	node *Node
	cell *cell
	box  *mailbox.Box[any]

	incarnation uint64
	replica     partition.ReplicaID
	driver      driver[replica.Event, replica.Work]
	machine     *replica.Replica
	state       *openState
	loading     bool

	nextCall  uint64
	calls     map[uint64]call
	proposals []replica.Proposal // collected during a turn
	// results are those that await the machine's Reply, by its ID.
	results map[uint64]replica.Result
	// reads wait until the state has reached their index.
	reads   []waitingRead
	applied partition.Index
	views   []*viewAt // wanted of the state at later indexes
	// holding are the requests that wait for the outcome of a split, in order.
	holding      []holding
	holdingBytes int
	ticking      bool // a holdTick is on its way
	alarm        *time.Timer
	// unwritten waits until the log takes writes again, unapplied until the
	// store has room; both in order, and bounded by what the machine lets be
	// under way.
	unwritten []*replica.Persist
	unapplied []*replica.Apply
	retrying  bool            // a retry for unwritten is on its way
	wanted    partition.Index // what keepLog told the log last
	letGo     partition.Index // as above, of a replica without state
	toldOf    partition.Time  // when a refused message was logged last
}

type waitingRead struct {
	index partition.Index
	call  call
}

// Receive runs on the actor's own mailbox and never blocks. A panic on its way
// through answers everybody at once: the supervisor may let the new incarnation
// wait for seconds.
func (a *replicaActor) Receive(ctx actor.Context) {
	done := false
	defer func() {
		if !done {
			a.stop(partition.Errorf(partition.CodeUnknown, "the replica failed"))
		}
	}()
	a.receive(ctx)
	done = true
}

func (a *replicaActor) receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		a.start()
	case *actor.Restarting:
		a.stop(partition.Errorf(partition.CodeUnknown, "the replica was rebuilt from its log"))
	case *actor.Stopping:
		rest := a.box.Close()
		for _, item := range append(rest, a.box.Rest()...) {
			refuseItem(item, partition.Errorf(partition.CodeClosed, "the replica is stopping"))
		}
		a.stop(partition.Errorf(partition.CodeUnknown, "the replica stopped"))
	case *mailbox.Batch[any]:
		for _, item := range m.Items {
			a.take(item)
		}
		a.turn()
	case *actor.Stopped, *actor.Terminated:
	default:
		a.take(m)
		a.turn()
	}
}

func (a *replicaActor) start() {
	a.begin()
	a.load()
}

// begin begins a new incarnation.
func (a *replicaActor) begin() {
	a.incarnation = a.node.incarnations.Add(1)
	a.calls = make(map[uint64]call)
	a.results = make(map[uint64]replica.Result)
	a.driver = driver[replica.Event, replica.Work]{do: a.do, refused: a.refused}
	a.proposals, a.unwritten, a.unapplied, a.retrying, a.ticking = nil, nil, nil, false, false
}

// load reads what the replica continues from, once its table is known.
func (a *replicaActor) load() {
	table := a.cell.table.Load()
	if table == nil || a.loading || a.machine != nil {
		return
	}
	a.loading = true
	inc, cell, box := a.incarnation, a.cell, a.box
	a.node.background.Go(func() {
		l, err := a.node.load(cell, table)
		box.PostUserMessage(&opened{incarnation: inc, loaded: l, err: err})
	})
}

// stop ends this incarnation: it tells the group if it was master, and answers
// everybody who waits. What was appended may yet be executed. A second call
// does nothing.
func (a *replicaActor) stop(why *partition.Error) {
	if a.alarm != nil {
		a.alarm.Stop()
	}
	if v := a.cell.view.Swap(nil); v != nil && v.Master == v.Self {
		a.cell.resigned.Store(v)
		a.node.resign(v)
	}
	a.cell.state.Store(nil)
	a.cell.stalled.Store(nil)
	a.dropHolding(partition.Errorf(partition.CodeUnavailable, "%s", why.Why))
	a.refuseViews(why)
	for id, c := range a.calls {
		c.refuse(why)
		delete(a.calls, id)
	}
	for _, r := range a.reads {
		r.call.refuse(why)
	}
	if a.state != nil {
		a.state.held.close(partition.Errorf(partition.CodeUnavailable, "%s", why.Why))
		a.state.store.Close()
	}
	a.reads, a.machine, a.state = nil, nil, nil
}

// refused is told of an event that the machine ignored. What another replica
// sent must not end this one; what the host itself got wrong does.
func (a *replicaActor) refused(e replica.Event, err error) error {
	m, ok := e.Input.(replica.Received)
	if !ok {
		return err
	}
	a.node.counters.badFrames.Add(1)
	if a.toldOf == 0 || e.Now-a.toldOf > time.Minute {
		a.toldOf = e.Now
		a.node.logger.Warn("message of another replica refused", "group", a.cell.group, "from", m.From, "node", m.Node, "err", err)
	}
	return nil
}

// refuseItem answers an item of a mailbox that will not be handled.
func refuseItem(item any, why *partition.Error) {
	switch m := item.(type) {
	case *proposal:
		m.reply(client.ErrorResponse(why))
	case *indexedRead:
		m.reply(client.ErrorResponse(why))
	default:
		refuseChange(item, why)
	}
}

// take turns one item of the mailbox into an event.
func (a *replicaActor) take(item any) {
	switch m := item.(type) {
	case *opened:
		a.open(m)
		return
	case tableKnown:
		a.load()
		return
	case *install:
		a.install(m)
		return
	case *silenced:
		panic(m.why)
	}
	if m, ok := item.(*received); ok && a.machine == nil && a.node.early.keep(a.cell.group, m) {
		return
	}
	if a.machine == nil {
		refuseItem(item, partition.Errorf(partition.CodeUnavailable, "group %s is being opened on this node", a.cell.group))
		return
	}
	switch m := item.(type) {
	case *proposal:
		a.propose(m)
		return
	case *indexedRead:
		if a.admit(m, m.req, m.reply) {
			a.event(replica.ReadIndex{ID: a.remember(call{req: m.req, reply: m.reply})})
		}
	case *structural, *beginHold, endHold, holdTick:
		a.splits(m)
	case *configure, *transferMaster, *resignMaster, *recoverGroup:
		a.change(m)
	case *viewAt:
		a.awaitView(m)
	case *received:
		if a.genuine(m) && a.hasRoom(m.msg) {
			a.event(replica.Received{From: m.from, Node: m.node, Boot: m.boot, Message: m.msg})
		}
	case *completion:
		if m.incarnation != a.incarnation {
			return
		}
		if m.err != nil {
			panic(fmt.Errorf("group %s: %w", a.cell.group, m.err))
		}
		a.event(m.input)
	case *retry:
		if m.incarnation == a.incarnation {
			a.retrying = a.retrying && !m.log
			a.tryAgain()
		}
	case truncated:
		if sum, ok := a.node.log.Summary(a.cell.group); ok {
			a.event(replica.Truncated{First: sum.First})
		}
	case *neighbour:
		// Hints may overtake each other on the way: the last one must agree with
		// what is so now.
		up := a.node.neighbours.Reachable(m.node)
		if !m.up || !up {
			a.event(replica.NodeDown{Node: m.node})
		}
		if up {
			a.event(replica.NodeUp{Node: m.node})
		}
	}
}

// genuine reports whether the message comes from the node that holds the
// replica it names, as far as the configuration is known here.
func (a *replicaActor) genuine(m *received) bool {
	v := a.cell.view.Load()
	if v == nil {
		return true
	}
	x, ok := v.Configurations.Member(m.from)
	return !ok || x.Node == m.node
}

func (a *replicaActor) event(in replica.Input) {
	a.flushProposals()
	a.driver.post(replica.Event{Now: a.node.now(), Input: in})
}

func (a *replicaActor) remember(c call) uint64 {
	a.nextCall++
	a.calls[a.nextCall] = c
	return a.nextCall
}

// propose collects a command; those that arrive in a row are one event.
func (a *replicaActor) propose(m *proposal) {
	if !a.admit(m, m.req, m.reply) {
		return
	}
	p := replica.Proposal{Kind: partition.KindCommand}
	if m.req.Op == client.OpOpenSession {
		p.Kind = partition.KindSession
		p.Payload = replica.AppendOpenSession(nil)
	} else {
		p.Payload = replica.AppendCommand(make([]byte, 0, len(m.req.Body)+envelopeBytes), m.req.Session, m.req.Seq, m.req.Body)
	}
	p.ID = a.remember(call{req: m.req, reply: m.reply})
	a.proposals = append(a.proposals, p)
}

// flushProposals gives the collected commands to the machine, unless the log is
// full: a master that took them would wait for their durability, fail, and take
// the reads along. What ends a hold is small and goes on: without it the keys that
// a split or a merge has sealed could not even be read until there is space.
func (a *replicaActor) flushProposals() {
	if len(a.proposals) == 0 {
		return
	}
	if a.node.log.Full() && !endsHold(a.proposals) {
		full := &partition.Error{
			Code: partition.CodeNoSpace, Why: fmt.Sprintf("the disk of node %s is nearly full", a.node.ID()),
			Next: "free space; the node goes on by itself",
		}
		for _, p := range a.proposals {
			c := a.calls[p.ID]
			c.refuse(full)
			delete(a.calls, p.ID)
		}
		a.proposals = nil
		return
	}
	a.driver.post(replica.Event{Now: a.node.now(), Input: replica.Propose{Proposals: a.proposals}})
	a.proposals = nil
}

// endsHold reports whether what is proposed is a record that ends what another one
// has begun.
func endsHold(ps []replica.Proposal) bool {
	return !slices.ContainsFunc(ps, func(p replica.Proposal) bool {
		switch p.Kind {
		case partition.KindUnseal, partition.KindActivate, partition.KindDone, partition.KindAbort,
			partition.KindMerging, partition.KindSourceUnseal, partition.KindSourceGone:
			return false
		}
		return true
	})
}

func (a *replicaActor) turn() {
	if a.machine == nil {
		return
	}
	a.flushProposals()
	if err := a.driver.turn(); err != nil {
		panic(fmt.Errorf("group %s: %w", a.cell.group, err))
	}
	st := a.machine.Status()
	a.cell.status.Store(&st)
	a.keepLog(&st)
	if s := a.cell.splitting.Load(); s != nil {
		s.wake()
	}
}

// open builds the machine from what was read, or fails the actor. What passes by
// itself, such as a full disk, is waited for.
func (a *replicaActor) open(m *opened) {
	if m.incarnation != a.incarnation {
		return
	}
	a.loading = false
	switch partition.CodeOf(m.err) {
	case partition.CodeClosed:
		return // the node is stopping
	case partition.CodeNoSpace, partition.CodeBusy:
		a.cell.stalled.Store(asError(m.err))
		box := a.box
		time.AfterFunc(reopenAfter, func() { box.PostUserMessage(tableKnown{}) })
		return
	}
	if m.err != nil {
		panic(m.err)
	}
	l := m.loaded
	if l.restored.Restarted = !a.cell.fresh.Swap(false); !l.restored.Restarted {
		l.restored.Appointed = a.cell.appointed
	}
	machine, err := replica.New(replica.Config{
		Group: a.cell.group, Self: l.self, Node: a.node.ID(), Neighbours: a.node.neighbours,
		Rand:  rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())),
		Lease: a.node.cfg.Lease, Trace: a.node.trace, LogOnly: l.state == nil, Solo: true,
	}, l.restored)
	if err != nil {
		panic(fmt.Errorf("start replica of %s: %w", a.cell.group, err))
	}
	a.cell.ran.Store(true)
	a.machine, a.driver.machine = machine, machine
	a.replica, a.applied = l.self, l.restored.Applied
	if a.state = l.state; a.state != nil {
		a.state.damaged = a.complete(replica.Tick{})
	}
	a.cell.stalled.Store(nil)
	if a.state != nil {
		a.noteExtent()
	}
	a.cell.state.Store(l.state)
	if a.state != nil {
		a.node.keepChild(a.cell)
	}
	a.event(replica.Tick{})
	for _, m := range a.node.early.take(a.cell.group) {
		a.take(m)
	}
}

// complete returns the function that brings an answer back into the mailbox. It
// may be called on any goroutine.
func (a *replicaActor) complete(in replica.Input) func(error) {
	inc, box := a.incarnation, a.box
	return func(err error) {
		box.PostUserMessage(&completion{incarnation: inc, input: in, err: err})
	}
}

// do does one piece of work for the machine.
func (a *replicaActor) do(w replica.Work) error {
	switch w := w.(type) {
	case *replica.Persist:
		return a.persist(w)
	case *replica.Send:
		return a.send(w)
	case *replica.Apply:
		return a.apply(w)
	case *replica.Reply:
		a.reply(w)
	case *replica.Alarm:
		a.setAlarm(w.At)
	case *replica.AcquireLock:
		a.node.locker.acquire(lockRequest{
			group: a.cell.group, work: w, replica: a.replica,
			done: func(in replica.Input) { a.complete(in)(nil) },
		})
	case *replica.ReleaseLock:
		a.node.locker.release(a.cell.group, a.replica, w.Number)
	case *replica.Permit:
		a.permit(w)
	case *replica.ReleasePermit:
		a.node.returner.give(a.cell.group, w)
	case *replica.Publish:
		a.publish(w.View)
	case *replica.Retire:
		a.node.tellReplicas(&retired{group: a.cell.group, replica: a.replica})
	default:
		return fmt.Errorf("unknown work %T", w)
	}
	return nil
}

func (a *replicaActor) setAlarm(at partition.Time) {
	if a.alarm != nil {
		a.alarm.Stop()
		a.alarm = nil
	}
	if at == 0 {
		return
	}
	a.node.counters.alarms.Add(1)
	fire := a.complete(replica.Tick{})
	a.alarm = time.AfterFunc(max(0, at-a.node.now()), func() { fire(nil) })
}

// publish hands out the view, and tells the catalog of a new master or a new
// membership. One that is not yet known to be committed may still vanish, and
// the catalog would never take an older version again.
func (a *replicaActor) publish(v *replica.View) {
	before := a.cell.view.Swap(v)
	if v.Serving && (before == nil || !before.Serving || before.Epoch != v.Epoch || before.Configurations[0] != v.Configurations[0]) {
		a.node.announce(a.cell, v)
	}
	if serves := before != nil && before.Serving; serves != v.Serving {
		a.node.splitter.mark(a.cell.group)
		a.node.merger.mark(a.cell.group)
		if !v.Serving {
			a.release() // each is told who is master now
		} else {
			a.node.arrived(a.cell)
		}
	}
	if v.Serving && (before == nil || !before.Serving || before.Epoch != v.Epoch || len(before.Configurations) != len(v.Configurations) ||
		before.Configurations.Last() != v.Configurations.Last()) {
		a.node.tender.mark(a.cell.group)
	}
}

func (a *replicaActor) reply(w *replica.Reply) {
	c, ok := a.calls[w.ID]
	if !ok {
		return
	}
	delete(a.calls, w.ID)
	defer delete(a.results, w.ID)
	switch {
	case w.Err != nil:
		c.refuse(w.Err)
	case c.done != nil && a.results[w.ID].Err != nil:
		c.done(0, a.results[w.ID].Err)
	case c.done != nil:
		c.done(w.Index, nil)
	case c.req.Op == client.OpRead:
		a.reads = append(a.reads, waitingRead{index: w.Index, call: c})
		a.serveReads()
	default:
		res := a.results[w.ID]
		if res.Err != nil {
			c.reply(a.node.refuse(a.cell, c.req, res.Err))
			return
		}
		index := w.Index
		if c.req.Op == client.OpOpenSession {
			index = res.Session.Index
		}
		c.reply(&client.Response{Index: index, Body: res.Data})
	}
}

// serveReads answers the reads whose index the state has reached.
func (a *replicaActor) serveReads() {
	rest := a.reads[:0]
	for _, r := range a.reads {
		if r.index > a.applied {
			rest = append(rest, r)
			continue
		}
		r.call.reply(a.node.read(a.cell, a.state, r.call.req))
	}
	a.reads = rest
}
