package actors

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"pando.dev/pando/cluster/placement"
	"pando.dev/pando/partition"
)

const (
	// tendEvery is how often the tender looks at the other nodes. What it does for
	// a group does not depend on it, but for the times that Tend waits for.
	tendEvery = 250 * time.Millisecond
	// tendAgain is the pause before a group that is not whole is looked at again,
	// and tendSoon the one while a member of it is being brought up or catches up.
	tendAgain = time.Second
	tendSoon  = 50 * time.Millisecond
	// sweepEvery is how often every group that is mastered here is looked at,
	// though nobody has hinted at it.
	sweepEvery = time.Minute
	// hostAgain is the pause before a node is asked again to bring up a replica.
	hostAgain = 500 * time.Millisecond
	// stepWait bounds the wait for the outcome of a step: then it is unknown, and
	// what is so says what to do.
	stepWait = 30 * time.Second
	// backOffMin and backOffMax bound the pause after a step that failed.
	backOffMin = 100 * time.Millisecond
	backOffMax = 15 * time.Second
	// backOffPassing is backOffMax for what passes by itself.
	backOffPassing = time.Second
	// maxSteps bounds the steps under way on one node, over all its groups.
	maxSteps = 64
	// maxLooks bounds the groups of one turn, so that others get their turn too.
	maxLooks = 512
	// repairMin and repairMax bound the pause before a replica that was replaced
	// for damage is replaced again on the same node; doubled each time.
	repairMin    = time.Second
	repairMax    = 10 * time.Minute
	repairMemory = time.Hour
)

// tender brings the groups whose master is on this node to what they shall be.
// It is level-triggered: hints say only which groups to look at, and what is to
// be done follows from how things are. So hints may be lost, repeated and late,
// and everything it does may be done twice. A group that is as it shall be costs
// nothing until the next hint.
//
//	hint: a view, a node, a word, the catalog, a request
//	   |
//	 dirty groups -> placement.Tend -> one step -> its outcome -> dirty again
//	                        |
//	                        `-> nothing to do: looked at again when Tend says so
type tender struct {
	node *Node
	pid  atomic.Pointer[actor.PID]

	mu    sync.Mutex
	dirty map[partition.GroupID]bool
	woken bool // a wake-up is on its way
	why   map[partition.GroupID]placement.Step
}

func newTender(n *Node) *tender {
	return &tender{node: n, dirty: make(map[partition.GroupID]bool), why: make(map[partition.GroupID]placement.Step)}
}

// What the tender's actor takes.
type (
	tendWake struct{}
	tendTick struct{ pending *atomic.Bool }
	// stepDone is the outcome of a step.
	stepDone struct {
		number uint64
		group  partition.GroupID
		step   placement.Step
		err    error
	}
	// asked is a memberAsk with its answer.
	asked struct {
		from  partition.NodeID
		ask   memberAsk
		reply chan []memberAnswer // has room for one
	}
	// requested is an operator's request for one group.
	requested struct {
		group   partition.GroupID
		request placement.Request
		reply   chan requestAnswer // has room for one
	}
)

// mark has the tender look at a group. Any goroutine may call it, at any time.
func (t *tender) mark(g partition.GroupID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dirty[g] = true
	t.wake()
}

// wake is called with the lock held.
func (t *tender) wake() {
	if pid := t.pid.Load(); pid != nil && !t.woken {
		t.woken = true
		t.node.system.Root.Send(pid, tendWake{})
	}
}

// take returns some of the groups to be looked at.
func (t *tender) take() []partition.GroupID {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.woken = false
	var out []partition.GroupID
	for g := range t.dirty { // in no order: each on its own
		if len(out) == maxLooks {
			t.wake()
			break
		}
		delete(t.dirty, g)
		out = append(out, g)
	}
	return out
}

func (t *tender) tell(g partition.GroupID, s placement.Step, keep bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if keep {
		t.why[g] = s
	} else {
		delete(t.why, g)
	}
}

// tending says what this node does for a group of which it holds the master, and
// why, or what keeps the group from being whole. Both are empty for one that is.
func (n *Node) tending(g partition.GroupID) (step, why string) {
	t := n.tender
	t.mu.Lock()
	defer t.mu.Unlock()
	s, ok := t.why[g]
	if !ok || s.Kind == placement.Nothing {
		return "", s.Why
	}
	return s.Kind.String(), s.Why
}

// unwhole is the number of groups mastered here that are not what they shall be.
func (t *tender) unwhole() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.why)
}

// ask brings a memberAsk to the actor.
func (t *tender) ask(ctx context.Context, from partition.NodeID, ask memberAsk) ([]memberAnswer, error) {
	m := &asked{from: from, ask: ask, reply: make(chan []memberAnswer, 1)}
	return sendAndWait(ctx, t, m, m.reply)
}

// sendAndWait sends a message to the actor and waits for its reply.
func sendAndWait[T any](ctx context.Context, t *tender, m any, reply chan T) (none T, err error) {
	pid := t.pid.Load()
	if pid == nil {
		return none, partition.Errorf(partition.CodeUnavailable, "node %s is starting", t.node.ID())
	}
	t.node.system.Root.Send(pid, m)
	select {
	case r := <-reply:
		return r, nil
	case <-ctx.Done():
		return none, partition.Errorf(partition.CodeTimeout, "the tender of node %s has not answered: %v", t.node.ID(), ctx.Err())
	case <-t.node.ctx.Done():
		return none, partition.Errorf(partition.CodeClosed, "node %s is shutting down", t.node.ID())
	}
}

// tick has the tender look at the nodes, now and then and when one of them
// became reachable or not, until the node stops.
func (t *tender) tick() {
	pending := new(atomic.Bool)
	tick := time.NewTicker(tendEvery)
	defer tick.Stop()
	for {
		select {
		case <-t.node.ctx.Done():
			return
		case <-tick.C:
		}
		if pid := t.pid.Load(); pid != nil && !pending.Swap(true) {
			t.node.system.Root.Send(pid, tendTick{pending})
		}
	}
}

// tended is what the tender remembers of a group that is not whole, or of which
// something was asked. All of it may be lost: it saves repetitions only.
type tended struct {
	busy     uint64         // number of the step that is under way; 0: none
	since    partition.Time // when it began
	again    partition.Time // when to look again; 0: at a hint
	notYet   partition.Time // no step before
	failures int
	lastErr  string
	hosts    map[partition.ReplicaID]*hostTry
	broken   map[partition.ReplicaID]string
	request  placement.Request
	until    partition.Time // when the request is forgotten
	step     placement.Step
}

// hostTry is what is known of asking a node to bring up a replica.
type hostTry struct {
	at       partition.Time
	under    uint64 // number of the call under way; 0: none
	logOnly  bool
	attempts int
	progress string
}

// repair counts how often a replica on a node was replaced for damage.
type repair struct {
	count int
	at    partition.Time
}

type repairKey struct {
	group partition.GroupID
	node  partition.NodeID
}

// tenderActor does the tending; see tender.
type tenderActor struct {
	node    *Node
	t       *tender
	nodes   nodeWatch
	groups  map[partition.GroupID]*tended
	repairs map[repairKey]repair
	steps   int    // under way
	number  uint64 // of the last step
	table   uint64
	swept   partition.Time
	timer   *time.Timer
	self    *actor.PID
}

func newTenderActor(n *Node) *tenderActor { return &tenderActor{node: n, t: n.tender} }

// Receive runs on the actor's own mailbox and never blocks.
func (a *tenderActor) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		a.self = ctx.Self()
		a.nodes.nodes = make(map[partition.NodeID]*watched)
		a.groups = make(map[partition.GroupID]*tended)
		a.repairs = make(map[repairKey]repair)
		a.steps, a.swept = 0, 0
		a.t.pid.Store(a.self)
		a.look()
	case tendWake:
		for _, g := range a.t.take() {
			a.tend(g)
		}
		a.setTimer()
	case tendTick:
		m.pending.Store(false)
		a.look()
		a.due()
	case *stepDone:
		a.done(m)
		a.setTimer()
	case *asked:
		m.reply <- a.asked(m)
		a.setTimer()
	case *requested:
		m.reply <- a.request(m)
		a.setTimer()
	case *actor.Stopping, *actor.Restarting:
		if a.timer != nil {
			a.timer.Stop()
		}
	}
}

// look finds out what has changed around the groups, and marks those concerned.
func (a *tenderActor) look() {
	n, now := a.node, a.node.now()
	members := n.members.Load()
	if members == nil {
		return
	}
	all := a.nodes.look(*members, n.neighbours.Reachable, now) || a.swept == 0 || now-a.swept > sweepEvery
	cat := n.control.Catalog()
	var altered uint64
	for _, t := range cat.Tables() {
		altered = max(altered, t.Changed)
	}
	all = all || altered != a.table
	a.table = altered
	if !all {
		return
	}
	a.swept = now
	n.cells.each(func(c *cell) {
		if v := c.view.Load(); v != nil && v.Serving {
			a.t.mark(c.group)
		}
	})
	for k, r := range a.repairs {
		if now-r.at > repairMemory {
			delete(a.repairs, k)
		}
	}
}

// due marks the groups whose time has come.
func (a *tenderActor) due() {
	now := a.node.now()
	for g, x := range a.groups { // in no order: each on its own
		if x.again != 0 && x.again <= now {
			a.t.mark(g)
		}
	}
	a.setTimer()
}

// setTimer has due called when the next group's time comes.
func (a *tenderActor) setTimer() {
	if a.timer != nil {
		a.timer.Stop()
		a.timer = nil
	}
	var next partition.Time
	now := a.node.now()
	for _, x := range a.groups { // a minimum
		if x.again > now && (next == 0 || x.again < next) {
			next = x.again
		}
	}
	if next == 0 || next-now >= tendEvery {
		return // the next tick is early enough
	}
	system, self, pending := a.node.system, a.self, new(atomic.Bool)
	a.timer = time.AfterFunc(next-now, func() { system.Root.Send(self, tendTick{pending}) })
}

// of returns what is remembered of a group, and begins to remember.
func (a *tenderActor) of(g partition.GroupID) *tended {
	x := a.groups[g]
	if x == nil {
		x = &tended{hosts: make(map[partition.ReplicaID]*hostTry), broken: make(map[partition.ReplicaID]string)}
		a.groups[g] = x
	}
	return x
}

// tend looks at one group and takes the next step for it, if there is one and
// none is under way.
func (a *tenderActor) tend(g partition.GroupID) {
	s, c, ok := a.situation(g)
	if !ok {
		a.forget(g)
		return
	}
	x, now := a.of(g), a.node.now()
	step := placement.Tend(&s)
	if a.node.splitter.occupies(g) && step.Kind != placement.Nothing && step.Kind != placement.Host {
		step = placement.Step{Why: "the group is being split: " + step.Why, Again: now + tendAgain}
	}
	if x.busy != 0 && now < x.since+stepWait {
		x.again = x.since + stepWait // by then its outcome has come
		return
	}
	if x.busy != 0 {
		a.node.logger.Warn("nothing was heard of a step", "group", g, "step", x.step.Kind.String(), "why", x.step.Why)
		x.busy = 0
		a.steps--
	}
	x.step = step
	x.again = step.Again
	a.settleRequest(x, s.Membership, now)
	switch {
	case step.Kind == placement.Nothing:
		a.idle(g, x, &s)
		return
	case x.notYet > now:
		x.again = x.notYet
	case a.steps >= maxSteps:
		x.again = now + tendSoon
	default:
		a.begin(c, x, &s)
	}
	if x.lastErr != "" {
		step.Why += "; last time: " + x.lastErr
	}
	a.t.tell(g, step, true)
}

// idle is for a group for which nothing is to be done now.
func (a *tenderActor) idle(g partition.GroupID, x *tended, s *placement.Situation) {
	now, step := a.node.now(), x.step
	if step.Why == "" && step.Again == 0 && x.request.Kind == placement.NoRequest {
		a.forget(g)
		return
	}
	pause := tendAgain
	for _, m := range s.Membership.Members {
		if n := a.nodes.of(m.Node, now); n.up && n.word.Drain == placement.InService && (m.Kind == partition.Learner || !m.Eligible) {
			pause = tendSoon // what it waits for comes without a hint
		}
	}
	if s.Pending {
		pause = tendSoon
	}
	if x.again == 0 || x.again > now+pause {
		x.again = now + pause
	}
	for _, h := range x.hosts { // whichever: one reason is enough
		if h.progress != "" && step.Why != "" { // nothing missing: what was in the way is over
			step.Why += "; " + h.progress
			break
		}
	}
	a.t.tell(g, step, true)
}

func (a *tenderActor) forget(g partition.GroupID) {
	if x := a.groups[g]; x != nil && x.busy != 0 {
		x.again = x.since + stepWait
		if a.node.now() < x.again {
			return // its outcome comes
		}
		a.steps--
	}
	delete(a.groups, g)
	a.t.tell(g, placement.Step{}, false)
}

// situation is everything that the next step for a group is decided from; false
// if this node does not hold its serving master, or knows nothing of its table.
func (a *tenderActor) situation(g partition.GroupID) (s placement.Situation, c *cell, ok bool) {
	n, now := a.node, a.node.now()
	c = n.cells.get(g)
	if c == nil || n.cfg.untended {
		return s, nil, false
	}
	v, st := c.view.Load(), c.status.Load()
	if v == nil || st == nil || !v.Serving || v.Master != v.Self {
		return s, nil, false
	}
	m := v.Configurations.Last()
	spec, known := specOf(n.control.Catalog(), g)
	if !known {
		return s, nil, false
	}
	s = placement.Situation{
		Group: g, Now: now, Self: v.Self, Membership: m, Spec: spec,
		Pending: len(v.Configurations) > 1 || st.InFlight || st.Version != m.Version,
		Limits:  placement.Limits{LogAfter: n.cfg.LogAfter, ReplaceAfter: n.cfg.ReplaceAfter, HostAgain: hostAgain},
	}
	s.Guests = guestsOf(n.control.Catalog(), g)
	// Its own word a master knows at once: of nodes that are stopped together the
	// last one could be left to decide alone otherwise.
	a.nodes.heard(n.ID(), n.service.now(), now)
	a.addNodes(&s)
	x := a.groups[g]
	if x != nil {
		s.Request = x.request
	}
	if s.Request.Kind == placement.NoRequest {
		s.Request = wantedByTask(n.control.Catalog(), g, m)
	}
	for _, p := range st.Peers {
		y := placement.PeerState{Replica: p.Replica, Present: p.Match > 0 || p.CaughtUp, CaughtUp: p.CaughtUp && !p.Down, State: p.State, Behind: p.Behind}
		if !y.CaughtUp && st.Last.Index > p.Match {
			y.Lacks = uint64(st.Last.Index - p.Match)
		}
		if x != nil {
			if h := x.hosts[p.Replica]; h != nil {
				y.Asked, y.AskedLogOnly, y.Attempts = h.at, h.logOnly, h.attempts
				if h.under != 0 {
					y.Asked = now
				}
			}
			if why := x.broken[p.Replica]; why != "" && a.mayReplace(g, p.Node) {
				y.Broken = why
			}
		}
		s.Peers = append(s.Peers, y)
	}
	return s, c, true
}

// addNodes adds what is known of the members' nodes and of those that may become
// some: nodes that gossip hears and that answer.
func (a *tenderActor) addNodes(s *placement.Situation) {
	for _, x := range s.Membership.Members {
		s.Nodes = append(s.Nodes, a.nodes.state(x.Node, s.Now))
	}
	members := a.node.members.Load()
	if members == nil {
		return
	}
	cat := a.node.control.Catalog()
	for _, y := range *members {
		_, leaving := cat.Leaving(y.ID)
		if _, is := s.Membership.OnNode(y.ID); is || leaving {
			continue
		}
		if x := a.nodes.of(y.ID, s.Now); x.up && x.alive {
			s.Nodes = append(s.Nodes, a.nodes.state(y.ID, s.Now))
		}
	}
}
