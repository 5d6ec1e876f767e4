package sim

import (
	"errors"
	"fmt"
	"time"

	"pando.dev/pando/internal/planted"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
	"pando.dev/pando/wal"
)

type walWrite = wal.Write

const (
	// retryAfter is the pause before a full log is tried again, reopenAfter that
	// before a replica is opened again.
	retryAfter  = 50 * time.Millisecond
	reopenAfter = 100 * time.Millisecond
	// maxWriteBytes bounds the records of one write to the log.
	maxWriteBytes = 16 << 10
	// maxReadBytes bounds the records of one read from the log that are to be applied.
	maxReadBytes = 16 << 10
)

// persist hands a change to the log. While the log has no room the change waits,
// in order with all later ones.
func (h *host) persist(x *replica.Persist) {
	h.n.w.check.persists(h, x)
	if h.rep == nil {
		return
	}
	if len(h.unwritten) > 0 {
		h.unwritten = append(h.unwritten, x)
		return
	}
	h.writeOrStall(x)
}

func (h *host) writeOrStall(x *replica.Persist) {
	err := h.write(x)
	switch {
	case err == nil:
	case errors.Is(err, partition.ErrNoSpace) || errors.Is(err, partition.ErrBusy):
		h.unwritten = append(h.unwritten, x)
		h.n.w.mark("sim.log_full")
		if !h.retrying {
			h.retrying = true
			e := h.n.w.eng.after(retryAfter, evTryAgain, h.n.ord)
			e.life, e.group, e.a = h.n.life, int16(h.gi), h.incarnation
		}
	default:
		if !h.n.disk.hit { // for a snip the log reads a record, which may be damaged
			h.n.w.check.logRefused(h, err)
		}
		h.rebuild("the log refuses a write")
	}
}

// write hands x to the log, in parts if it is large. What was taken is removed
// from x.
func (h *host) write(x *replica.Persist) error {
	for {
		n, size := 0, 0
		for n < len(x.Records) && (n == 0 || size+len(x.Records[n]) <= maxWriteBytes) {
			size += len(x.Records[n])
			n++
		}
		h.part = wal.Write{
			Group: h.g.id, Replica: h.replica, Promise: x.Promise,
			Snip: x.Snip, After: x.After, Records: x.Records[:n:n],
		}
		var t token
		quiet := true
		if n == len(x.Records) {
			h.part.Commit = x.Commit
			if x.Sync {
				t, quiet = token{host: h, incarnation: h.incarnation, seq: x.Seq}, false
			}
		}
		if err := h.n.disk.append(h.n, &h.part, quiet, t); err != nil || n == len(x.Records) {
			return err
		}
		x.Snip, x.Records = false, x.Records[n:]
	}
}

// tryAgain writes what had to wait.
func (h *host) tryAgain() {
	h.retrying = false
	waiting := h.unwritten
	h.unwritten = nil
	for i, x := range waiting {
		h.writeOrStall(x)
		if h.rep == nil {
			return
		}
		if len(h.unwritten) > 0 {
			h.unwritten = append(h.unwritten, waiting[i+1:]...)
			return
		}
	}
}

// send fills in what the machine no longer holds, and sends.
func (h *host) send(x *replica.Send) {
	m := x.Message
	switch a := m.(type) {
	case *replica.Append:
		if len(a.Records) == 0 && a.Through > a.Prev.Index {
			c := *a
			if !h.readBack(&c.Prev, &c.PrevSum, &c.Records, c.Through) {
				return
			}
			c.Through, m = 0, &c
		}
	case *replica.FetchAnswer:
		if len(a.Records) == 0 && a.Through > a.Prev.Index {
			c := *a
			if !h.readBack(&c.Prev, &c.PrevSum, &c.Records, c.Through) {
				return
			}
			c.Through, m = 0, &c
		}
	}
	h.n.w.net.send(h, x.To, x.Node, m)
}

// readBack reads records to send from the log. If the log has let them go the
// machine learns it.
func (h *host) readBack(prev *partition.Position, sum *uint32, into *[]partition.Record, through partition.Index) bool {
	if len(h.unwritten) > 0 {
		return false // one of them may be a snip: the log may still show another branch
	}
	n := h.n
	recs, err := n.disk.read(h.g.id, prev.Index+1, through, n.w.k.MaxAppendBytes)
	if err == nil && len(recs) == 0 {
		err = errors.New("no record")
	}
	if err != nil {
		s, ok := n.disk.log.summary(h.g.id)
		if !ok || s.Damage != nil {
			h.rebuild("its log is damaged")
			return false
		}
		h.event(replica.Truncated{First: s.First})
		return false
	}
	n.w.mark("sim.read_back")
	// Any first part does, within MaxAppendBytes.
	most, size := 0, 0
	for most < len(recs) && (most == 0 || size+len(recs[most]) <= n.w.k.MaxAppendBytes) {
		size += len(recs[most])
		most++
	}
	n.w.parts++
	if c := n.w.rnd.two(onPartial, uint64(n.ord), n.w.parts); c%4 == 0 {
		most = 1 + pick(c>>8, most)
	}
	recs = recs[:most]
	*into, *sum = recs, recs[0].Prev()
	return true
}

// apply executes committed records, after a while.
func (h *host) apply(x *replica.Apply) {
	if h.logOnly {
		h.applied = x.Last
		h.event(replica.Applied{Index: x.Last})
		h.n.w.check.appliedLog(h, x.Last)
		h.keepLog()
		return
	}
	if most := h.n.w.k.ApplyMax; most > 0 {
		h.applies++
		d := between(h.n.w.rnd.of(onApply, uint64(h.n.ord), uint64(h.gi), h.applies), 0, most)
		e := h.n.w.eng.after(d, evApply, h.n.ord)
		e.life, e.group, e.a, e.p = h.n.life, int16(h.gi), h.incarnation, x
		return
	}
	h.execute(x)
}

func (h *host) execute(x *replica.Apply) {
	recs := x.Records
	if len(recs) == 0 {
		var err error
		if recs, err = h.n.disk.read(h.g.id, x.First, x.Last, maxReadBytes); err != nil || len(recs) == 0 {
			h.rebuild(fmt.Sprintf("committed records %d to %d cannot be read: %v", x.First, x.Last, err))
			return
		}
	}
	for i, rec := range recs {
		res, err := h.exec.Apply(h.state, rec)
		if err != nil {
			h.n.w.violate("apply", "%s: %v", h, err)
		}
		h.restructured(rec, &res)
		h.state.applied = rec.Index()
		if i < len(x.IDs) && x.IDs[i] != 0 {
			h.results[x.IDs[i]] = res
		}
		h.n.w.check.applied(h, rec, &res)
	}
	h.applied = h.state.applied
	h.event(replica.Applied{Index: h.applied})
	h.serveReads()
	h.flushMaybe()
}

// flushMaybe flushes the state from time to time, and lets the log go then.
func (h *host) flushMaybe() {
	h.flushes++
	if !share(h.n.w.rnd.of(onFlush, uint64(h.n.ord), uint64(h.gi), uint64(h.n.life), h.flushes), h.n.w.k.Flush) {
		if h.n.w.plan.Planted.Has(planted.TruncateUnflushed) {
			h.keepLog()
		}
		return
	}
	h.flush()
}

func (h *host) flush() {
	flushed := h.state.flushed
	h.state.flush()
	if h.n.w.plan.Planted.Has(planted.StateUnindexed) {
		h.state.flushed = flushed // the rows are on the disk, their index is not
	}
	h.keepLog()
}

// keepLog tells the log what the state has and what peers want, and cuts it from
// time to time.
func (h *host) keepLog() {
	st := h.rep.Status()
	wanted := st.Everywhere + 1
	for _, p := range st.Peers {
		wanted = min(wanted, p.Match+1)
	}
	if wanted > st.Last.Index {
		wanted = 0
	}
	h.wanted = wanted
	flushed := min(st.Everywhere, st.Applied)
	generation := uint32(0)
	if !h.logOnly {
		flushed, generation = h.state.flushed, h.n.disk.seen[h.gi].generation
		if h.n.w.plan.Planted.Has(planted.TruncateUnflushed) {
			flushed = h.state.applied
		}
		if v := h.view; v != nil {
			if x, _ := v.Configurations.Member(h.replica); x.Kind == partition.LogReplica {
				flushed = min(flushed, max(st.Everywhere, h.n.disk.seen[h.gi].before.Index)) // it counts as one until it is full
			}
		}
	}
	h.flushes++
	cut := share(h.n.w.rnd.of(onTruncate, uint64(h.n.ord), uint64(h.gi), uint64(h.n.life), h.flushes), h.n.w.k.Truncate)
	d := h.n.disk
	was := d.seen[h.gi].first
	if first := d.let(h.g.id, flushed, wanted, generation, cut); first > was {
		h.n.w.mark("sim.log_truncated")
		h.n.w.check.letsGo(h, first)
		h.event(replica.Truncated{First: first})
	}
}

// restore puts together what the protocol continues from.
func restore(sum wal.Summary, applied partition.Index) (replica.Restored, error) {
	r := replica.Restored{
		Promised: sum.Promise, Commit: max(sum.Commit, applied), Applied: applied,
		First: sum.First, Last: sum.Last, BeforeFirst: sum.Before, LastSum: sum.LastSum,
	}
	if sum.Generation == 0 {
		r.Spared = sum.Flushed
	}
	for _, run := range sum.Runs {
		r.Runs = append(r.Runs, replica.EpochRun(run))
	}
	for _, rec := range sum.Configurations {
		m := new(partition.Membership)
		if err := m.UnmarshalBinary(rec.Payload()); err != nil {
			return r, fmt.Errorf("configuration at %s: %w", rec.Position(), err)
		}
		r.Configurations = append(r.Configurations, replica.ConfigurationAt{Index: rec.Index(), Membership: m})
	}
	return r, nil
}
