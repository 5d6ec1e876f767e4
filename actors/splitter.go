package actors

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"pando.dev/pando/cluster/control"
	"pando.dev/pando/cluster/placement"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
	"pando.dev/pando/split"
)

const (
	// splitStep bounds one step of a split, and splitBackOff is the pause after one
	// that failed, doubled up to splitBackOffMax.
	splitStep       = 5 * time.Second
	splitBackOff    = 50 * time.Millisecond
	splitBackOffMax = 2 * time.Second
	// splitLook is how often a split looks again though nobody has hinted.
	splitLook = 250 * time.Millisecond
	// madeLook is how often the members are asked what they have made, and seedsLook
	// how often what is ready to be; reportEvery is how often the control group is
	// told how far a split is.
	madeLook  = 50 * time.Millisecond
	seedsLook = 10 * time.Millisecond
	// seedPatience is how long a split waits for the last of the members that are up.
	seedPatience = 2 * time.Second
	reportEvery  = time.Second
	// lagRecord is for how many bytes a record counts that a member lacks.
	lagRecord = 256
)

// splitter drives the splits of the groups that this node is master of: one
// goroutine per group with one. It is level-triggered: hints only say that it is
// time to look, and what is to be done follows from how things are. It keeps
// nothing that a new master would need.
type splitter struct {
	node *Node

	mu      sync.Mutex
	running map[partition.GroupID]*splitting
}

// splitting is the split of one group under this node's mastership. All but hint
// and why belong to its goroutine.
type splitting struct {
	node *Node
	cell *cell
	hint chan struct{}

	mu  sync.Mutex
	why string // of the last step

	since     partition.Time // when it saw this node serve first
	epoch     partition.Epoch
	held      bool
	heldSince partition.Time
	notBefore partition.Time
	failures  int
	activated uint64 // task that the control group knows to be activated
	ended     uint64 // task that it knows to have ended
	aborted   string
	unseals   int
	heard     map[partition.ReplicaID]heardOf
	made      map[partition.ReplicaID][]partition.GroupID
	seeded    map[partition.ReplicaID][]partition.GroupID
	madeAt    partition.Time
	// intent is the split that seeded is about, and intendedAt when it was seen first.
	intent     partition.Index
	intendedAt partition.Time
	hostedAt   partition.Time
	told       string
	toldAt     partition.Time
	seq        uint64
}

// heardOf is when a member's log was seen to grow last.
type heardOf struct {
	match partition.Index
	at    partition.Time
}

// wake has the split look again. Any goroutine may call it.
func (s *splitting) wake() {
	select {
	case s.hint <- struct{}{}:
	default:
	}
}

// watch looks at all tasks whenever the catalog changes, until the node stops.
func (s *splitter) watch() {
	s.node.onChange(s.node.control.Changed, func() {
		for _, t := range s.node.control.Catalog().Tasks() {
			if t.Kind == control.TaskSplit && t.State == control.TaskOpen {
				s.mark(t.Group)
			}
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, r := range s.running { // each on its own
			r.wake()
		}
	})
}

// mark has the split of a group, if there is one to be driven here, look at it.
func (s *splitter) mark(g partition.GroupID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.running[g]; r != nil {
		r.wake()
		return
	}
	c := s.node.cells.get(g)
	if c == nil || !s.wants(c) || s.node.ctx.Err() != nil {
		return
	}
	r := &splitting{
		node: s.node, cell: c, hint: make(chan struct{}, 1), since: s.node.now(),
		heard: make(map[partition.ReplicaID]heardOf), made: make(map[partition.ReplicaID][]partition.GroupID),
		seeded: make(map[partition.ReplicaID][]partition.GroupID),
	}
	s.running[g] = r
	c.splitting.Store(r)
	s.node.background.Go(func() { s.run(r) })
}

// wants reports whether there is something to be driven here for a group.
func (s *splitter) wants(c *cell) bool {
	v := c.view.Load()
	if v == nil || !v.Serving {
		return false
	}
	if x, ok := c.served(); ok && x.Split != nil {
		return true
	}
	return s.occupies(c.group)
}

// openSplit is the split that the catalog has open for a group.
func openSplit(cat *control.Catalog, g partition.GroupID) (*control.Task, bool) {
	t, ok := cat.TaskOf(g)
	return t, ok && t.Kind == control.TaskSplit
}

// occupies reports whether a group's members are to stay as they are, but for what
// the split itself changes.
func (s *splitter) occupies(g partition.GroupID) bool {
	_, ok := openSplit(s.node.control.Catalog(), g)
	return ok
}

// hostLearners asks the nodes that are to hold a child for a replica of the parent,
// again and again until it is there.
func (r *splitting) hostLearners(s *split.Situation, st *replica.Status) {
	if s.Extent.Split != nil || s.Task == nil || s.Now < r.hostedAt+hostAgain {
		return
	}
	there := func(id partition.ReplicaID) bool {
		for _, p := range st.Peers {
			if p.Replica == id {
				return p.State && !p.Behind
			}
		}
		return false
	}
	for _, m := range s.Membership.Members {
		if m.Kind != partition.Learner || there(m.Replica) {
			continue
		}
		r.hostedAt = s.Now
		host := placement.Step{Kind: placement.Host, Node: m.Node, Replica: m.Replica, Source: r.node.ID()}
		g := s.Group
		r.node.background.Go(func() {
			if err := r.node.askToHost(g, host, 0); err != nil {
				r.node.logger.Debug("learner of a split is not there yet", "group", g, "node", host.Node, "err", err)
			}
			r.wake()
		})
	}
}

// end takes a split out, unless there is something to do again.
func (s *splitter) end(r *splitting) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.node.ctx.Err() == nil && s.wants(r.cell) && !r.over() {
		return false
	}
	r.cell.splitting.Store(nil)
	delete(s.running, r.cell.group)
	return true
}

// why says what the split of a group does or waits for.
func (s *splitter) why(g partition.GroupID) string {
	s.mu.Lock()
	r := s.running[g]
	s.mu.Unlock()
	if r == nil {
		return ""
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.why
}

// run drives one split until there is nothing to do here.
func (s *splitter) run(r *splitting) {
	timer := time.NewTimer(splitLook)
	defer timer.Stop()
	for {
		sit := r.situation()
		step := split.Next(sit)
		r.note(&step)
		wait := time.Duration(0)
		switch step.Kind {
		case split.Nothing:
			if s.end(r) {
				return
			}
			wait = splitLook
		case split.Wait, split.Prepare:
			if wait = splitLook; step.Again != 0 {
				wait = max(time.Millisecond/2, min(wait, step.Again-s.node.now()))
			}
		default:
			r.take(&step)
		}
		if s.node.ctx.Err() != nil {
			s.end(r)
			return
		}
		if wait == 0 {
			continue
		}
		r.report(&step, &sit)
		timer.Reset(wait)
		select {
		case <-r.hint:
		case <-timer.C:
		case <-s.node.ctx.Done():
		}
	}
}

func (r *splitting) note(step *split.Step) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.why = step.Why
	if step.Kind != split.Wait && step.Kind != split.Nothing {
		r.why = step.Kind.String() + ": " + step.Why
	}
}

// over reports whether the group's open task was told to have ended.
func (r *splitting) over() bool {
	x, ok := r.cell.served()
	t, open := r.node.control.Catalog().TaskOf(r.cell.group)
	return (!ok || x.Split == nil) && (!open || uint64(t.ID) == r.ended)
}

// situation is how things are.
func (r *splitting) situation() split.Situation {
	n, c := r.node, r.cell
	s := split.Situation{Group: c.group, Now: n.now(), Held: r.held, HeldSince: r.heldSince, NotBefore: r.notBefore, Aborted: r.aborted}
	v, st := c.view.Load(), c.status.Load()
	if v == nil || st == nil || !v.Serving || v.Master != v.Self {
		r.held = false // the replica has let go of it
		s.Held = false
		return s
	}
	if v.Epoch != r.epoch {
		r.epoch, r.since, r.held, s.Held = v.Epoch, s.Now, false, false
	}
	s.Self, s.Serving, s.Since = v.Self, true, r.since
	if x := c.extent.Load(); x != nil {
		s.Extent = *x
	}
	if route := c.route.Load(); route != nil {
		s.Range, s.Version = route.Range, route.RangeVersion
	}
	s.Membership = v.Configurations.Last()
	s.Pending = len(v.Configurations) > 1 || st.InFlight || st.Version != s.Membership.Version
	r.addTask(&s)
	r.addPeers(&s, st)
	r.hostLearners(&s, st)
	return s
}

// addTask adds what the catalog says.
func (r *splitting) addTask(s *split.Situation) {
	cat := r.node.control.Catalog()
	if t, ok := openSplit(cat, s.Group); ok && uint64(t.ID) != r.ended {
		s.Task = r.taskOf(t, s.Now)
	}
	sp := s.Extent.Split
	if sp == nil {
		return
	}
	s.Told = sp.Task == r.activated
	if t, ok := cat.Task(control.TaskID(sp.Task)); ok {
		s.Gone, s.Told = !t.Open(), s.Told || t.Activated != 0
	} else if all := cat.Tasks(); len(all) > 0 && r.node.control.Synced() {
		s.Gone = uint64(all[len(all)-1].ID) > sp.Task // it ended long ago
	}
	for i := range sp.Children {
		if g, ok := cat.Group(sp.Children[i].Group); ok {
			s.Children = append(s.Children, split.Seen{Group: g.ID, Membership: g.Membership})
		}
	}
}

func (r *splitting) taskOf(t *control.Task, now partition.Time) *split.Task {
	out := &split.Task{ID: uint64(t.ID), Version: t.RangeVersion, Cancel: t.Cancel, Activated: t.Activated != 0 || uint64(t.ID) == r.activated}
	if !t.Deadline.IsZero() {
		out.Deadline = max(1, now+time.Until(t.Deadline))
	}
	for i := range t.Children {
		w := split.Wanted{Group: t.Children[i].Group, Range: t.Children[i].Range, First: t.Children[i].First}
		for _, p := range t.Children[i].Nodes {
			w.Nodes = append(w.Nodes, split.Place{Node: p.ID, Zone: p.Zone})
		}
		out.Children = append(out.Children, w)
	}
	return out
}

// addPeers adds what is known of the members.
func (r *splitting) addPeers(s *split.Situation, st *replica.Status) {
	if sp := s.Extent.Split; sp == nil || sp.Intent != r.intent {
		r.intendedAt, r.intent = s.Now, 0
		clear(r.seeded)
		if sp != nil {
			r.intent = sp.Intent
		}
	}
	if sp := s.Extent.Split; sp != nil && (sp.Phase == partition.Activated && s.Now >= r.madeAt+madeLook ||
		sp.Phase == partition.Intended && !s.Held && s.Now >= r.madeAt+seedsLook) {
		r.askMade(s)
	}
	// What is committed counts as on this disk: that it may be elsewhere first does
	// no harm, for a split waits here for the sake of speed.
	s.Peers = append(s.Peers, split.Peer{Replica: s.Self, Up: true, State: true, Prepared: r.prepared(s, st, s.Self), Match: st.Commit, Heard: s.Now, Made: r.made[s.Self]})
	for _, p := range st.Peers {
		h := r.heard[p.Replica]
		if p.Match != h.match || h.at == 0 {
			h = heardOf{match: p.Match, at: s.Now}
			r.heard[p.Replica] = h
		}
		s.Peers = append(s.Peers, split.Peer{
			Replica: p.Replica, Up: !p.Down, State: p.State, Prepared: r.prepared(s, st, p.Replica), Match: p.Match, Heard: h.at,
			Lag: lagRecord * int64(max(st.Last.Index, p.Match)-p.Match), Made: r.made[p.Replica],
		})
	}
}

// askMade asks the members which children they have made.
func (r *splitting) askMade(s *split.Situation) {
	r.madeAt = s.Now
	byNode := make(map[partition.NodeID][]partition.GroupID)
	for _, m := range s.Membership.Members {
		byNode[m.Node] = []partition.GroupID{s.Group}
	}
	all := make(map[reportKey]report)
	r.node.askAll(r.node.ctx, byNode, all, make(map[partition.NodeID]bool))
	for _, m := range s.Membership.Members {
		if rep, ok := all[reportKey{s.Group, m.Node}]; ok {
			r.made[m.Replica], r.seeded[m.Replica] = rep.Made, rep.Seeded
		}
	}
}

// prepared reports whether a member has the seeds of all children that it is to
// make, as far as it was heard of. For a while no member counts before all have them
// that are up, the first masters among them.
func (r *splitting) prepared(s *split.Situation, st *replica.Status, id partition.ReplicaID) bool {
	if s.Extent.Split == nil || !r.hasSeeds(s, id) {
		return false
	}
	if s.Now >= r.intendedAt+seedPatience {
		return true
	}
	return r.hasSeeds(s, s.Self) && !slices.ContainsFunc(st.Peers, func(p replica.PeerStatus) bool { return !p.Down && !r.hasSeeds(s, p.Replica) })
}

func (r *splitting) hasSeeds(s *split.Situation, id partition.ReplicaID) bool {
	for i := range s.Extent.Split.Children {
		c := &s.Extent.Split.Children[i]
		if _, member := c.Membership.Member(id); member && !slices.Contains(r.seeded[id], c.Group) {
			return false
		}
	}
	return true
}

// madeHere are the children of a group's split whose replicas are here, and on disk:
// they do not need the parent's any more.
func (n *Node) madeHere(c *cell) (made []partition.GroupID) {
	x, ok := c.served()
	if !ok || x.Split == nil || x.Split.Phase != partition.Activated {
		return nil
	}
	for i := range x.Split.Children {
		if c := n.cells.get(x.Split.Children[i].Group); c != nil && c.durable(x.Split.At) {
			made = append(made, c.group)
		}
	}
	return made
}

// take does one step and waits for its end, for a bounded time.
func (r *splitting) take(step *split.Step) {
	r.node.logger.Debug("split", "group", r.cell.group, "step", step.Kind.String(), "record", step.Record, "why", step.Why)
	if hook := r.node.cfg.onSplit; hook != nil {
		hook(r.node, step)
	}
	var err error
	switch step.Kind {
	case split.Hold:
		err = r.hold()
	case split.Release:
		r.cell.box.PostUserMessage(endHold{})
		r.held = false
	case split.Propose:
		err = r.propose(step)
	case split.Configure:
		err = r.await(func(done func(error)) {
			r.cell.ask(&configure{membership: step.Membership, done: func(_ partition.Index, err error) { done(err) }})
		})
	case split.Tell:
		err = r.tell(&step.Report)
	}
	switch {
	case err != nil && r.node.ctx.Err() == nil:
		r.failures++
		r.notBefore = r.node.now() + min(splitBackOff<<min(r.failures-1, 8), splitBackOffMax)
		r.node.logger.Info("step of a split not taken", "group", r.cell.group, "step", step.Kind.String(), "record", step.Record, "why", step.Why, "err", err)
	case step.Kind == split.Propose && step.Record == partition.KindUnseal:
		r.unseals++
		r.notBefore = r.node.now() + splitBackOff<<min(r.unseals, 6)
	case err == nil && step.Kind != split.Hold:
		r.failures = 0
	}
}

// await waits for the end of a step, for a bounded time.
func (r *splitting) await(begin func(done func(error))) error {
	ended := make(chan error, 1)
	begin(func(err error) { ended <- err })
	limit := time.NewTimer(splitStep)
	defer limit.Stop()
	select {
	case err := <-ended:
		return err
	case <-limit.C:
		return partition.Errorf(partition.CodeUnknown, "nothing was heard of it for %s", splitStep)
	case <-r.node.ctx.Done():
		return partition.Errorf(partition.CodeClosed, "node %s is shutting down", r.node.ID())
	}
}

func (r *splitting) hold() error {
	x, ok := r.cell.served()
	if !ok || x.Split == nil {
		return nil
	}
	err := r.await(func(done func(error)) {
		r.cell.ask(&beginHold{ranges: rangesOf(x.Split.Children), done: done})
	})
	if err == nil {
		r.held, r.heldSince = true, r.node.now()
	}
	return err
}

func (r *splitting) propose(step *split.Step) error {
	if step.Record == partition.KindAbort {
		r.aborted = step.Why
	}
	err := r.await(func(done func(error)) {
		r.cell.ask(&structural{kind: step.Record, payload: step.Payload, done: func(_ partition.Index, err error) { done(err) }})
	})
	if err == nil {
		r.node.logger.Info("split goes on", "group", r.cell.group, "record", step.Record, "why", step.Why)
	}
	return err
}

// tell reports to the control group.
func (r *splitting) tell(rep *split.Report) error {
	ctx, cancel := context.WithTimeout(r.node.ctx, splitStep)
	defer cancel()
	id := control.TaskID(rep.Task)
	if !rep.Ended {
		x, ok := r.cell.served()
		if !ok || x.Split == nil {
			return nil
		}
		err := r.node.control.ActivateSplit(ctx, control.SplitActivation{Task: id, RangeVersion: rep.Version, Children: x.Split.Children})
		if err == nil || errors.Is(err, partition.ErrNotFound) {
			r.activated = rep.Task
		}
		return err
	}
	state := control.TaskAborted
	if rep.Done {
		state = control.TaskDone
	}
	err := r.node.control.ReportTask(ctx, control.TaskReport{Task: id, Epoch: r.epoch, State: state, Why: rep.Why})
	if err == nil || errors.Is(err, partition.ErrNotFound) {
		r.ended = rep.Task
		r.node.logger.Info("split is over", "group", r.cell.group, "task", id, "done", rep.Done, "why", rep.Why)
		return nil
	}
	return err
}

// report tells the control group now and then what the split waits for.
func (r *splitting) report(step *split.Step, s *split.Situation) {
	if s.Task == nil || step.Kind != split.Wait && step.Kind != split.Prepare || step.Why == r.told || s.Now < r.toldAt+reportEvery {
		return
	}
	r.told, r.toldAt = step.Why, s.Now
	r.seq++
	rep := control.TaskReport{Task: control.TaskID(s.Task.ID), Epoch: r.epoch, Seq: r.seq, Phase: "begin", Why: step.Why}
	if s.Extent.Split != nil {
		rep.Phase = s.Extent.Split.Phase.String()
	}
	r.node.background.Go(func() {
		ctx, cancel := context.WithTimeout(r.node.ctx, splitStep)
		defer cancel()
		if err := r.node.control.ReportTask(ctx, rep); err != nil {
			r.node.logger.Debug("progress of a split not told", "group", s.Group, "err", err)
		}
	})
}
