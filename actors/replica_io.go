package actors

import (
	"errors"
	"fmt"
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
	// retryAfter is the pause before a full log is tried again.
	retryAfter = 50 * time.Millisecond
)

// send encodes a message and hands it to the link. A full queue or a broken
// link loses it; the protocol sends again.
func (a *replicaActor) send(w *replica.Send) {
	if err := a.fill(w.Message); err != nil {
		a.node.logger.Debug("records to send are not in the log", "group", a.cell.group, "to", w.Node, "err", err)
		return
	}
	f := link.Frame{Group: a.cell.group, From: a.replica, To: w.To}
	link.EncodeReplica(&f, w.Message)
	if err := a.node.links.Send(w.Node, f); err != nil {
		a.node.counters.sendRefused.Add(1)
	}
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

func (a *replicaActor) write(w *replica.Persist) error {
	var done func(error)
	if w.Sync {
		done = a.complete(replica.Persisted{Seq: w.Seq})
	}
	err := a.node.log.Append(wal.Write{
		Group: a.cell.group, Replica: a.replica, Promise: w.Promise, Commit: w.Commit,
		Snip: w.Snip, After: w.After, Records: w.Records,
	}, done)
	if errors.Is(err, wal.ErrClosed) || errors.Is(err, wal.ErrPoisoned) {
		return nil // the node is ending; nothing more is acknowledged
	}
	return err
}

// stall lets new commands be refused, with the reason, and tries again soon.
func (a *replicaActor) stall(why error) {
	e, ok := why.(*partition.Error)
	if !ok {
		e = partition.Errorf(partition.CodeOf(why), "%v", why)
	}
	a.cell.stalled.Store(e)
	inc, box := a.incarnation, a.box
	time.AfterFunc(retryAfter, func() { box.PostUserMessage(&retry{incarnation: inc}) })
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
	if len(a.unwritten) == 0 {
		a.cell.stalled.Store(nil)
	}
	later := a.unapplied
	a.unapplied = nil
	for _, w := range later {
		if err := a.apply(w); err != nil {
			panic(fmt.Errorf("group %s: %w", a.cell.group, err))
		}
	}
}

// apply executes committed records and keeps the results that callers here may
// wait for.
func (a *replicaActor) apply(w *replica.Apply) error {
	if len(a.unapplied) > 0 {
		a.unapplied = append(a.unapplied, w)
		return nil
	}
	if a.state.store.NeedsRoom() {
		a.unapplied = append(a.unapplied, w)
		inc, box := a.incarnation, a.box
		a.state.store.AwaitRoom(func() { box.PostUserMessage(&retry{incarnation: inc}) })
		return nil
	}
	recs := w.Records
	if len(recs) == 0 {
		var err error
		if recs, err = a.node.log.Read(a.cell.group, w.First, w.Last, maxReadBack); err != nil {
			return fmt.Errorf("read committed records %d to %d: %w", w.First, w.Last, err)
		}
		if len(recs) == 0 {
			return fmt.Errorf("committed record %d is not in the log", w.First)
		}
	}
	last := recs[len(recs)-1].Index()
	err := a.state.store.Apply(last, func(tx partition.Writer) error {
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
	a.event(replica.Applied{Index: last})
	a.serveReads()
	return nil
}

// read answers a query from the state as it is now.
func (s *openState) read(req *client.Request) *client.Response {
	v, err := s.store.View()
	if err != nil {
		return client.ErrorResponse(fmt.Errorf("open a view: %w", err))
	}
	defer v.Close()
	body, err := s.exec.Read(v, req.Body)
	if err != nil {
		return client.ErrorResponse(err)
	}
	index, err := v.Applied()
	if err != nil {
		return client.ErrorResponse(fmt.Errorf("read the applied index: %w", err))
	}
	return &client.Response{Body: body, Index: index}
}
