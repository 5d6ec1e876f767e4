package actors

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
	"pando.dev/pando/split"
)

const (
	// wantedFor is how long a source's master goes by what the survivor's has asked.
	wantedFor = time.Second
	// mergeAsk bounds one question to the other group's nodes, and mergeWait how long
	// it is kept there for the answer that is hoped for. mergeShare bounds a question to
	// one of several nodes, any of which may know.
	mergeAsk   = time.Second
	mergeWait  = 300 * time.Millisecond
	mergeShare = 350 * time.Millisecond
	// mergePage is how many bytes of rows are brought into the log at once.
	mergePage = 256 << 10
	// maxMergeSessions bounds the rows of a source's sessions, which are united in one
	// write.
	maxMergeSessions = 8 << 20
	// mergePass bounds the time that one pass over a source's rows takes.
	mergePass = 5 * time.Minute
)

// merger drives the merges of the groups that this node is master of, as survivor or
// as source: one goroutine per group with one. Like splitter it keeps nothing that a
// new master would need.
type merger struct {
	node *Node

	mu      sync.Mutex
	running map[partition.GroupID]*merging
}

// merging is the part of one group in a merge under this node's mastership. All but
// hint, loose, and what mu guards belong to its goroutine.
type merging struct {
	node  *Node
	cell  *cell
	hint  chan struct{}
	loose atomic.Int32 // records on their way of which nobody waits for the outcome

	mu       sync.Mutex
	why      string
	wanted   *partition.SourceSeal
	wantedAt partition.Time

	epoch     partition.Epoch
	since     partition.Time
	held      bool
	heldSince partition.Time
	notBefore partition.Time
	failures  int
	failed    string          // why the last step was not taken
	intent    partition.Index // that copy, source and sealing are for
	copy      split.Copy
	source    *split.Source
	sealing   partition.Time
	found     bool
	decided   partition.Time
	outcome   partition.Outcome
	activated uint64 // task that the control group knows to be activated
	ended     uint64 // task that it knows to have ended
	aborted   string
	told      string
	toldAt    partition.Time
	seq       uint64
}

func (r *merging) wake() {
	select {
	case r.hint <- struct{}{}:
	default:
	}
}

// watch looks at all tasks whenever the catalog changes, until the node stops.
func (m *merger) watch() {
	m.node.onChange(m.node.control.Changed, func() {
		for _, t := range m.node.control.Catalog().Tasks() {
			if t.Kind == control.TaskMerge && t.State == control.TaskOpen {
				m.mark(t.Group)
			}
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, r := range m.running { // each on its own
			r.wake()
		}
	})
}

// openMerge is the merge that the catalog has open for its survivor.
func openMerge(cat *control.Catalog, g partition.GroupID) (*control.Task, bool) {
	t, ok := cat.TaskOf(g)
	return t, ok && t.Kind == control.TaskMerge && t.Group == g
}

// wants reports whether there is something to be driven here for a group.
func (m *merger) wants(c *cell) bool {
	v := c.view.Load()
	if v == nil || !v.Serving {
		return false
	}
	if x, ok := c.served(); ok && x.Merge != nil && x.Merge.Phase != partition.Absorbed {
		return true
	}
	_, ok := openMerge(m.node.control.Catalog(), c.group)
	return ok
}

// mark has the merge of a group, if there is one to be driven here, look at it.
func (m *merger) mark(g partition.GroupID) { m.want(g, nil) }

// want is mark, with the seal that the survivor asks for.
func (m *merger) want(g partition.GroupID, seal *partition.SourceSeal) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.running[g]
	if r == nil {
		c := m.node.cells.get(g)
		if c == nil || seal == nil && !m.wants(c) || m.node.ctx.Err() != nil {
			return
		}
		r = &merging{node: m.node, cell: c, hint: make(chan struct{}, 1), since: m.node.now()}
		m.running[g] = r
		defer m.node.background.Go(func() { m.run(r) })
	}
	if seal != nil {
		r.mu.Lock()
		r.wanted, r.wantedAt = seal, m.node.now()
		r.mu.Unlock()
	}
	r.wake()
}

// end takes a merge out, unless there is something to do again.
func (m *merger) end(r *merging) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.node.ctx.Err() == nil && (r.asked() != nil || m.wants(r.cell) && !r.over()) {
		return false
	}
	delete(m.running, r.cell.group)
	return true
}

// over reports whether the group's open task was told to have ended.
func (r *merging) over() bool {
	x, ok := r.cell.served()
	t, open := openMerge(r.node.control.Catalog(), r.cell.group)
	return (!ok || x.Merge == nil) && (!open || uint64(t.ID) == r.ended)
}

// asked is the seal that was asked for just now.
func (r *merging) asked() *partition.SourceSeal {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.wanted == nil || r.node.now() >= r.wantedAt+wantedFor {
		return nil
	}
	return r.wanted
}

// why says what the merge of a group does or waits for.
func (m *merger) why(g partition.GroupID) string {
	m.mu.Lock()
	r := m.running[g]
	m.mu.Unlock()
	if r == nil {
		return ""
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.why
}

// run drives one merge until there is nothing to do here.
func (m *merger) run(r *merging) {
	timer := time.NewTimer(splitLook)
	defer timer.Stop()
	for {
		s := r.situation()
		step := split.NextMerge(s)
		r.note(&step)
		wait := time.Duration(0)
		switch step.Kind {
		case split.Nothing:
			if m.end(r) {
				return
			}
			wait = splitLook
		case split.Wait:
			if wait = splitLook; step.Again != 0 {
				wait = max(time.Millisecond/2, min(wait, step.Again-m.node.now()))
			}
		default:
			if r.take(&step, &s); step.Again != 0 {
				wait = max(0, step.Again-m.node.now())
			}
		}
		if m.node.ctx.Err() != nil {
			m.end(r)
			return
		}
		if wait == 0 {
			continue
		}
		r.report(&step, &s)
		timer.Reset(wait)
		select {
		case <-r.hint:
		case <-timer.C:
		case <-m.node.ctx.Done():
		}
	}
}

func (r *merging) note(step *split.Step) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.why = step.Why
	if step.Kind != split.Wait && step.Kind != split.Nothing {
		r.why = step.Kind.String() + ": " + step.Why
	}
}

// situation is how things are.
func (r *merging) situation() split.MergeSituation {
	n, c := r.node, r.cell
	s := split.MergeSituation{Group: c.group, Now: n.now(), Held: r.held, HeldSince: r.heldSince, NotBefore: r.notBefore, Failed: r.failed, Aborted: r.aborted}
	v, st := c.view.Load(), c.status.Load()
	if v == nil || st == nil || !v.Serving || v.Master != v.Self {
		r.held, s.Held = false, false // the replica has let go of it
		return s
	}
	if x := c.extent.Load(); x != nil {
		s.Extent = *x
	}
	r.see(v.Epoch, s.Extent.Merge, s.Now)
	s.Self, s.Serving, s.Since, s.Held = v.Self, true, r.since, r.held
	if route := c.route.Load(); route != nil {
		s.Range, s.Version = route.Range, route.RangeVersion
	}
	if r.loose.Load() > 0 {
		s.Proposed = partition.KindAbsorb
	}
	s.Membership = v.Configurations.Last()
	s.Pending = len(v.Configurations) > 1 || st.InFlight || st.Version != s.Membership.Version
	s.Peers = append(s.Peers, split.Peer{Replica: s.Self, Up: true})
	for _, p := range st.Peers {
		s.Peers = append(s.Peers, split.Peer{Replica: p.Replica, Up: !p.Down})
	}
	r.addTask(&s)
	if m := s.Extent.Merge; m != nil && m.Phase == partition.Merged && r.decided == 0 {
		r.decided = s.Now
	}
	s.Source, s.Copy, s.Sealing, s.Found, s.Decided = r.source, r.copy, r.sealing, r.found, r.decided
	s.Wanted, s.Outcome = r.asked(), r.outcome
	s.Limits.Bytes = n.cfg.MergeBytes
	return s
}

// see begins anew if this is another mastership or another attempt than before. A merge
// that is there when a mastership begins is one of before.
func (r *merging) see(epoch partition.Epoch, m *partition.Merge, now partition.Time) {
	fresh := epoch != r.epoch
	if fresh {
		r.begin(epoch, 0)
		r.since, r.held = now, false
	}
	if m != nil && m.Intent != r.intent {
		r.begin(epoch, m.Intent)
		r.found = fresh && m.Phase == partition.Absorbing
	}
}

// begin forgets what is of another mastership or another attempt.
func (r *merging) begin(epoch partition.Epoch, intent partition.Index) {
	r.epoch, r.intent = epoch, intent
	r.copy, r.source, r.sealing, r.found, r.decided, r.outcome = split.Copy{}, nil, 0, false, 0, partition.Undecided
}

// addTask adds what the catalog says.
func (r *merging) addTask(s *split.MergeSituation) {
	cat := r.node.control.Catalog()
	switch t, open := cat.TaskOf(s.Group); {
	case open && t.Kind != control.TaskMerge:
		s.Busy = fmt.Sprintf("task %s, a %s, is open", t.ID, t.Kind)
	case open && t.Group == s.Group && uint64(t.ID) != r.ended:
		s.Task = r.taskOf(t, s.Now)
	}
	m := s.Extent.Merge
	switch {
	case m != nil && !s.Extent.IsSource():
		s.Told = m.Task == r.activated
		if t, ok := cat.Task(control.TaskID(m.Task)); ok {
			s.Gone, s.Told = !t.Open(), s.Told || t.Activated != 0
		} else if all := cat.Tasks(); len(all) > 0 && r.node.control.Synced() {
			s.Gone = uint64(all[len(all)-1].ID) > m.Task // it ended long ago
		}
		_, there := cat.Group(m.Other)
		s.Left = !there && r.node.control.Synced()
	case m == nil && s.Task != nil:
		_, there := cat.Group(s.Task.Source)
		s.Left = !there
	}
}

func (r *merging) taskOf(t *control.Task, now partition.Time) *split.MergeTask {
	out := &split.MergeTask{ID: uint64(t.ID), Version: t.RangeVersion, Cancel: t.Cancel, Activated: t.Activated != 0 || uint64(t.ID) == r.activated}
	out.Source, out.Range = t.Source()
	if !t.Deadline.IsZero() {
		out.Deadline = max(1, now+time.Until(t.Deadline))
	}
	return out
}

// take does one step and waits for its end, for a bounded time.
func (r *merging) take(step *split.Step, s *split.MergeSituation) {
	r.node.logger.Debug("merge", "group", r.cell.group, "step", step.Kind.String(), "record", step.Record, "why", step.Why)
	if hook := r.node.cfg.onMerge; hook != nil {
		hook(r.node, r.cell.group, step)
	}
	var err error
	switch step.Kind {
	case split.Hold:
		err = r.hold(s)
	case split.Release:
		r.cell.box.PostUserMessage(endHold{})
		r.held = false
	case split.Propose:
		err = r.decide(step)
	case split.Ask, split.Seal:
		err = r.ask(s, step.Kind == split.Seal)
	case split.TakeIn:
		err = r.takeIn(s, step.Sealed)
	case split.Tell:
		err = r.tell(s, &step.Report)
	}
	switch {
	case err == nil:
		r.failures, r.failed = 0, ""
	case r.node.ctx.Err() == nil:
		r.failures++
		r.failed = err.Error()
		r.notBefore = r.node.now() + min(splitBackOff<<min(r.failures-1, 8), splitBackOffMax)
		r.node.logger.Info("step of a merge not taken", "group", r.cell.group, "step", step.Kind.String(), "record", step.Record, "why", step.Why, "err", err)
	}
}

func (r *merging) hold(s *split.MergeSituation) error {
	keys := s.Extent.Range
	if s.Extent.Version == 0 {
		keys = s.Range
	}
	err := r.await(func(done func(error)) { r.cell.ask(&beginHold{ranges: []partition.KeyRange{keys}, done: done}) })
	if err == nil {
		r.held, r.heldSince = true, r.node.now()
	}
	return err
}

// await waits for the end of a step, for a bounded time. What ends later is loose
// until then.
func (r *merging) await(begin func(done func(error))) error {
	ended := make(chan error, 1)
	r.loose.Add(1)
	begin(func(err error) {
		r.loose.Add(-1)
		ended <- err
		r.wake()
	})
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

// propose puts a record into the log, under the mastership that it was decided in.
func (r *merging) propose(kind partition.Kind, payload []byte) error {
	return r.await(func(done func(error)) {
		r.cell.ask(&structural{kind: kind, payload: payload, epoch: r.epoch, done: func(_ partition.Index, err error) { done(err) }})
	})
}

func (r *merging) decide(step *split.Step) error {
	if step.Record == partition.KindAbort {
		r.aborted = step.Why
	}
	err := r.propose(step.Record, step.Payload)
	if err == nil {
		r.node.logger.Info("merge goes on", "group", r.cell.group, "record", step.Record, "why", step.Why)
	}
	if err == nil && step.Record == partition.KindSourceSeal {
		r.mu.Lock()
		r.wanted = nil
		r.mu.Unlock()
	}
	return err
}

// tell reports to the control group.
func (r *merging) tell(s *split.MergeSituation, rep *split.Report) error {
	ctx, cancel := context.WithTimeout(r.node.ctx, splitStep)
	defer cancel()
	id := control.TaskID(rep.Task)
	if !rep.Ended {
		err := r.node.control.ActivateMerge(ctx, id, rep.Version)
		if errors.Is(err, partition.ErrNotFound) { // forgotten, which does not say that it was activated
			var cat split.MergeCatalog
			if cat, err = r.node.mergeCatalog(ctx, s.Group, s.Extent.Merge.Other); err == nil && !cat.Activated(rep.Range) {
				err = partition.Errorf(partition.CodeUnavailable, "the control group has no task %s any more and does not lead here for the keys of %s", id, s.Extent.Merge.Other)
			}
		}
		if err == nil {
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
		r.node.logger.Info("merge is over", "group", r.cell.group, "task", id, "done", rep.Done, "why", rep.Why)
		return nil
	}
	return err
}

// report tells the control group now and then what the merge waits for.
func (r *merging) report(step *split.Step, s *split.MergeSituation) {
	if s.Task == nil || step.Why == r.told || s.Now < r.toldAt+reportEvery {
		return
	}
	r.told, r.toldAt = step.Why, s.Now
	r.seq = nextSeq(r.seq, s.Now)
	rep := control.TaskReport{Task: control.TaskID(s.Task.ID), Epoch: r.epoch, Seq: r.seq, Phase: "begin", Why: step.Why}
	if m := s.Extent.Merge; m != nil {
		rep.Phase = m.Phase.String()
	}
	r.node.background.Go(func() {
		ctx, cancel := context.WithTimeout(r.node.ctx, splitStep)
		defer cancel()
		if err := r.node.control.ReportTask(ctx, rep); err != nil {
			r.node.logger.Debug("progress of a merge not told", "group", s.Group, "err", err)
		}
	})
}

// nextSeq numbers the reports of one mastership, also behind those of another merging
// that it has had before.
func nextSeq(last uint64, now partition.Time) uint64 { return max(last+1, uint64(max(0, now))) }

// takeIn brings the source's rows into the log where they differ from what is there.
func (r *merging) takeIn(s *split.MergeSituation, sealed bool) error {
	limit := mergePass
	if sealed {
		end, _ := s.SealEnd()
		limit = max(time.Millisecond, end-s.Now)
	}
	ctx, cancel := context.WithTimeout(r.node.ctx, limit)
	defer cancel()
	m := s.Extent.Merge
	ask := mergeCall{What: mergeRows, Group: m.Other, Other: s.Group, Task: m.Task, Intent: m.Intent, Lo: m.Range.Lo, Hi: m.Range.Hi, Sealed: sealed}
	total, sessions := 0, 0
	for done := false; !done; {
		a, err := r.node.sourceRows(ctx, &ask)
		if err != nil {
			return err
		}
		var page partition.Absorb
		if err := page.UnmarshalBinary(a.Rows); err != nil {
			return err
		}
		done, ask.From = a.Done, replica.SourceNext(&page, m.Range)
		total += len(a.Rows)
		if replica.IsSessions(&page) {
			sessions += len(a.Rows)
		}
		if r.tooMuch(s, total, sessions) {
			return nil
		}
		if err := r.absorb(s, &page); err != nil {
			return err
		}
		if t, ok := openMerge(r.node.control.Catalog(), s.Group); ok && t.Cancel != "" {
			return nil // the next step gives it up
		}
	}
	r.copy.Looked, r.copy.Sealed = true, sealed
	return nil
}

// tooMuch notes that the source has more than is taken in.
func (r *merging) tooMuch(s *split.MergeSituation, total, sessions int) bool {
	limit := s.Limits.Bytes
	switch {
	case int64(total) > limit:
		r.copy.Refused = partition.Errorf(partition.CodeTooLarge, "the rows of %s take over %d bytes", s.Extent.Merge.Other, limit).Why
	case sessions > maxMergeSessions:
		r.copy.Refused = partition.Errorf(partition.CodeTooLarge, "the results that %s keeps for its sessions take over %d bytes", s.Extent.Merge.Other, maxMergeSessions).Why
	}
	return r.copy.Refused != ""
}

// absorb puts a page into the log, unless its rows are there.
func (r *merging) absorb(s *split.MergeSituation, page *partition.Absorb) error {
	st := r.cell.state.Load()
	if st == nil {
		return r.cell.notMaster()
	}
	v, err := st.store.View()
	if err != nil {
		return err
	}
	has, err := replica.HasAbsorbed(v, page)
	v.Close()
	if err != nil || has {
		return err
	}
	page.Decision = s.Extent.MergeDecision()
	b, err := page.AppendBinary(nil)
	if err != nil {
		return err
	}
	return r.propose(partition.KindAbsorb, b)
}
