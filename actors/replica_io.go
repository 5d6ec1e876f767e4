package actors

import (
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"pando.dev/pando/actors/client"
	"pando.dev/pando/actors/link"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
	"pando.dev/pando/wal"
)

const (
	// maxReadBack bounds what is read from the log at once, to be sent or applied.
	maxReadBack = 1 << 20
	// maxApplyBytes bounds the records of one write to the store, but for a
	// single one.
	maxApplyBytes = 1 << 20
	// retryAfter is the pause before a full log is tried again, reopenAfter that
	// before a store that could not be opened for a passing reason is.
	retryAfter  = 50 * time.Millisecond
	reopenAfter = time.Second
)

// maxWriteBytes bounds the records of one write to the log: any such write fits
// into a segment, of which other things take at most a quarter.
func (n *Node) maxWriteBytes() int { return int(min(n.cfg.WALSegmentBytes/2, 8<<20)) }

// maxCommandBytes bounds a command: its record must fit into one write.
func (n *Node) maxCommandBytes() int {
	return min(partition.MaxPayloadBytes, n.maxWriteBytes()-partition.RecordHeaderBytes) - envelopeBytes
}

// send encodes a message and hands it to the link. A full queue or a broken
// link loses it; the protocol sends again. The error is damage of the log.
func (a *replicaActor) send(w *replica.Send) error {
	if err := a.fill(w.Message); err != nil {
		return a.unread(w, err)
	}
	f := link.Frame{Group: a.cell.group, From: a.replica, To: w.To}
	link.EncodeReplica(&f, w.Message)
	a.node.counters.sent.Add(1)
	if err := a.node.links.Send(w.Node, f); err != nil {
		a.node.counters.sendRefused.Add(1)
	}
	return nil
}

// unread loses a message whose records cannot be read. If the log has let them
// go, or found them damaged that the state has already, it begins later now: the
// machine learns it, so that the peer counts as behind.
func (a *replicaActor) unread(w *replica.Send, err error) error {
	sum, ok := a.node.log.Summary(a.cell.group)
	if !ok || sum.Damage != nil {
		return err
	}
	a.node.logger.Debug("records to send are not in the log", "group", a.cell.group, "to", w.Node, "err", err)
	a.event(replica.Truncated{First: sum.First})
	return nil
}

// fill reads the records that the machine no longer holds in memory.
func (a *replicaActor) fill(m replica.Message) error {
	switch m := m.(type) {
	case *replica.Append:
		if len(m.Records) == 0 && m.Through > m.Prev.Index {
			return a.readBack(&m.Prev, &m.PrevSum, &m.Records, m.Through)
		}
	case *replica.FetchAnswer:
		if len(m.Records) == 0 && m.Through > m.Prev.Index {
			return a.readBack(&m.Prev, &m.PrevSum, &m.Records, m.Through)
		}
	}
	return nil
}

func (a *replicaActor) readBack(prev *partition.Position, sum *uint32, into *[]partition.Record, through partition.Index) error {
	if len(a.unwritten) > 0 {
		// One of them may be a snip: the log may still show another branch.
		return partition.Errorf(partition.CodeBusy, "the log has no room for what comes before")
	}
	recs, err := a.node.log.Read(a.cell.group, prev.Index+1, through, maxReadBack)
	if err != nil {
		return err
	}
	if len(recs) == 0 {
		return fmt.Errorf("record %d is gone", prev.Index+1)
	}
	*into, *sum = recs, recs[0].Prev()
	return nil
}

// hasRoom reports whether the log can take what a message brings. A full one gets
// no more commands and rows: the message is lost, and comes again. To take it would let
// everything behind it wait for space too, the promises among it, and so the
// election and the change of members that may be what frees the disk.
func (a *replicaActor) hasRoom(m replica.Message) bool {
	var brought []partition.Record
	switch m := m.(type) {
	case *replica.Append:
		brought = m.Records
	case *replica.FetchAnswer:
		brought = m.Records
	}
	if len(brought) == 0 || !a.node.log.NoSpace() {
		return true
	}
	bulky := func(r partition.Record) bool {
		return r.Kind() == partition.KindCommand || r.Kind() == partition.KindAbsorb
	}
	if !slices.ContainsFunc(brought, bulky) {
		return true
	}
	a.node.counters.noRoom.Add(1)
	return false
}

// persist hands a change of the log to the log. While the log has no room the
// change waits, in order with all later ones, and the replica takes no new
// commands; the machine goes on when the disk does.
func (a *replicaActor) persist(w *replica.Persist) error {
	if len(a.unwritten) > 0 {
		a.unwritten = append(a.unwritten, w)
		return nil
	}
	err := a.write(w)
	if errors.Is(err, partition.ErrNoSpace) || errors.Is(err, partition.ErrBusy) {
		a.unwritten = append(a.unwritten, w)
		a.stall(err)
		return nil
	}
	return err
}

// write hands w to the log, in several parts if it is too large for one: a part
// is no more than a shorter write that a crash may leave behind. What was taken
// is removed from w, so that the rest can be tried again.
func (a *replicaActor) write(w *replica.Persist) error {
	for {
		n, size := 0, 0
		for n < len(w.Records) && (n == 0 || size+len(w.Records[n]) <= a.node.maxWriteBytes()) {
			size += len(w.Records[n])
			n++
		}
		part := wal.Write{
			Group: a.cell.group, Replica: a.replica, Promise: w.Promise,
			Snip: w.Snip, After: w.After, Records: w.Records[:n],
			Reserve: true, // commands were refused before they came here
		}
		var done func(error)
		if n == len(w.Records) {
			part.Commit = w.Commit
			if w.Sync {
				done = a.node.timed(a.complete(replica.Persisted{Seq: w.Seq}))
			}
		}
		if err := a.node.log.Append(part, done); err != nil || n == len(w.Records) {
			return err
		}
		w.Snip, w.Records = false, w.Records[n:]
	}
}

// stall lets new commands be refused, with the reason, and tries again soon.
func (a *replicaActor) stall(why error) {
	a.cell.stalled.Store(asError(why))
	if a.retrying {
		return
	}
	a.retrying = true
	inc, box := a.incarnation, a.box
	time.AfterFunc(retryAfter, func() { box.PostUserMessage(&retry{incarnation: inc, log: true}) })
}

// asError returns the part of err that a caller gets to see.
func asError(err error) *partition.Error {
	var e *partition.Error
	if errors.As(err, &e) {
		return e
	}
	return partition.Errorf(partition.CodeInternal, "%v", err)
}

// tryAgain writes and applies what had to wait.
func (a *replicaActor) tryAgain() {
	waiting := a.unwritten
	a.unwritten = nil
	for i, w := range waiting {
		err := a.persist(w)
		if err != nil {
			panic(fmt.Errorf("group %s: %w", a.cell.group, err))
		}
		if len(a.unwritten) > 0 {
			a.unwritten = append(a.unwritten, waiting[i+1:]...)
			break
		}
	}
	later := a.unapplied
	a.unapplied = nil
	for _, w := range later {
		if err := a.apply(w); err != nil {
			panic(fmt.Errorf("group %s: %w", a.cell.group, err))
		}
	}
	if len(a.unwritten) == 0 && len(a.unapplied) == 0 {
		a.cell.stalled.Store(nil)
	}
}

// apply executes committed records and keeps the results that callers here may
// wait for. While the store has no room the records wait, and the replica takes
// no new commands.
func (a *replicaActor) apply(w *replica.Apply) error {
	if a.state == nil { // it keeps only the log
		a.applied = w.Last
		a.event(replica.Applied{Index: w.Last})
		return nil
	}
	if len(a.unapplied) > 0 {
		a.unapplied = append(a.unapplied, w)
		return nil
	}
	if a.state.store.NeedsRoom() {
		return a.awaitRoom(w)
	}
	recs, err := a.toApply(w)
	if err != nil {
		return err
	}
	recs = a.untilView(recs)
	if slices.ContainsFunc(recs, func(r partition.Record) bool { return r.Kind() == partition.KindMergeIntent }) {
		a.state.reclaims.stop() // what comes there now is to stay
	}
	last := recs[len(recs)-1].Index()
	err = a.state.store.Apply(last, func(tx partition.Writer) error {
		for i, rec := range recs {
			res, err := a.state.exec.Apply(tx, rec)
			if err != nil {
				return err
			}
			if i < len(w.IDs) && w.IDs[i] != 0 {
				a.results[w.IDs[i]] = res
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("apply records %d to %d: %w", w.First, last, err)
	}
	a.applied = last
	a.noteExtent()
	a.state.held.reached(last)
	a.giveViews()
	a.cell.wakeSeeds()
	a.event(replica.Applied{Index: last})
	a.serveReads()
	return nil
}

// toApply returns the first records of w, as many as one write takes.
func (a *replicaActor) toApply(w *replica.Apply) ([]partition.Record, error) {
	recs := w.Records
	if len(recs) == 0 {
		var err error
		if recs, err = a.node.log.Read(a.cell.group, w.First, w.Last, maxReadBack); err != nil {
			return nil, fmt.Errorf("read committed records %d to %d: %w", w.First, w.Last, err)
		}
		if len(recs) == 0 {
			return nil, fmt.Errorf("committed record %d is not in the log", w.First)
		}
	}
	n, size := 0, 0
	for n < len(recs) && (n == 0 || size+len(recs[n]) <= maxApplyBytes) {
		size += len(recs[n])
		n++
	}
	return recs[:n], nil
}

// awaitRoom keeps w until the store has room; a damaged one never will.
func (a *replicaActor) awaitRoom(w *replica.Apply) error {
	why := a.state.store.Health()
	if errors.Is(why, partition.ErrCorrupt) {
		return why
	}
	if why == nil {
		why = partition.Errorf(partition.CodeBusy, "the state of %s has no room before more of it is on disk", a.cell.group)
	}
	a.node.counters.roomWaits.Add(1)
	a.unapplied = append(a.unapplied, w)
	a.cell.stalled.Store(asError(why))
	inc, box := a.incarnation, a.box
	a.state.store.AwaitRoom(func() { box.PostUserMessage(&retry{incarnation: inc}) })
	return nil
}

// read answers a query from the state as it is now, or says where its keys are.
func (n *Node) read(c *cell, st *openState, req *client.Request) *client.Response {
	res := st.read(req)
	if res.Code == partition.CodeWrongGroup {
		return n.refuse(c, req, res.Err())
	}
	return res
}

// read answers a query from the state as it is now. It runs on whatever goroutine
// asks, so a kind that panics must not take that along.
func (s *openState) read(req *client.Request) (res *client.Response) {
	defer func() {
		if r := recover(); r != nil {
			s.logger.Error("partition kind panicked in Read", "group", req.Group, "err", fmt.Sprint(r), "stack", string(debug.Stack()))
			res = client.ErrorResponse(partition.Errorf(partition.CodeInternal, "the partition kind failed in Read: %v", r))
		}
	}()
	if req.Level == levelIndex {
		return &client.Response{Index: s.held.index()}
	}
	body, index, err := s.query(req)
	if err == nil {
		return &client.Response{Body: body, Index: index}
	}
	if health := s.store.Health(); errors.Is(health, partition.ErrCorrupt) {
		s.damaged(health)
		return client.ErrorResponse(partition.Errorf(partition.CodeUnavailable, "the state of %s is damaged", req.Group))
	}
	return client.ErrorResponse(err)
}

func (s *openState) query(req *client.Request) ([]byte, partition.Index, error) {
	v, err := s.store.View()
	if err != nil {
		return nil, 0, fmt.Errorf("open a view: %w", err)
	}
	defer v.Close()
	var index partition.Index
	body, err := s.exec.ReadRouted(v, req.RangeVersion, req.Body)
	if err == nil {
		index, err = v.Applied()
	}
	return body, index, err
}
