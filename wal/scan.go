package wal

import (
	"fmt"

	"pando.dev/pando/internal/planted"
	"pando.dev/pando/partition"
)

// maxLost bounds how many lost batches are looked after one by one, and
// maxLostNamed how many the report names.
const (
	maxLost      = 1024
	maxLostNamed = 64
)

// scanSegment reads a segment batch by batch. Of the last one it cuts the torn
// tail, and makes what it found durable: a process that was killed leaves
// batches that were written but never synced, and look valid.
func (r *recovery) scanSegment(f *found, last bool) error {
	// A segment has all its bytes before it gets its name. One that is shorter was
	// cut by somebody, and what it held looks like a torn tail; who lost something
	// is told by the state table of the next, if there is one.
	if cut := f.headed && f.seg.size < f.header.size || f.seg.size < 2*pageBytes; cut && last {
		r.note("segment %d was cut short to %d bytes", f.seg.number, f.seg.size)
		r.hopeless, r.report.Rot = true, true
	}
	if f.seg.size < 2*pageBytes {
		f.seg.end = pageBytes
		return nil
	}
	// What the cache shows after a failed sync need not be on disk.
	if err := f.seg.file.Evict(); err != nil {
		r.note("segment %d: the cache cannot be dropped: %v", f.seg.number, err)
	}
	b := make([]byte, f.seg.size)
	if err := readFull(f.seg.file, b, 0); err != nil {
		return err
	}
	f.seg.end = r.scan(f, b)
	r.l.o.point(AtScanned)
	if f.sealed && f.trailer.last >= r.next {
		r.lose(r.next, f.trailer.last)
		f.seg.end = max(f.seg.end, f.trailer.end)
	}
	f.seg.last = r.next - 1
	if !last || f.sealed {
		return nil
	}
	if h, ok := peekBatch(b[min(f.seg.end, int64(len(b))):], f.seg.number); ok && h.seq == r.next {
		r.report.TornBytes = align(int64(h.payload) + batchHeadBytes)
		r.l.o.point(AtTornTail)
	}
	if r.l.o.Planted.Has(planted.ReplayUnsynced) {
		r.l.replayed = f.seg
		return nil
	}
	if err := writeSync(f.seg.file, b[:f.seg.end], 0); err != nil {
		return fmt.Errorf("make its batches durable: %w", err)
	}
	return nil
}

// scan applies the valid batches of the segment image b, and returns the offset
// behind the last.
func (r *recovery) scan(f *found, b []byte) (end int64) {
	off := int64(pageBytes)
	if f.tabled {
		off, r.next = f.tableEnd, f.tableSeq+1
	} else if f.tableSeq != 0 {
		r.next = f.tableSeq
	} else {
		f.tableSeq = r.next
	}
	limit := int64(len(b))
	for off < limit {
		h, items, ok := checkBatch(b[off:], f.seg.number, r.l.seed)
		if !ok && r.l.o.Planted.Has(planted.TornTaken) {
			h, items, ok = r.torn(f, b[off:])
		}
		if !ok || h.seq != r.next {
			if r.l.o.Planted.Has(planted.RotAsTorn) {
				break
			}
			next, seq := r.resync(f, b, off)
			if next == 0 {
				break
			}
			r.rot(f, b, off, next, seq)
			off = next
			continue
		}
		r.batch(f.seg, off, items)
		r.report.Batches++
		r.next++
		off += align(int64(batchHeadBytes + h.payload))
	}
	return off
}

// torn is a planted bug: it takes a batch without its checksum.
func (r *recovery) torn(f *found, b []byte) (h batchHead, items []byte, ok bool) {
	if h, ok = peekBatch(b, f.seg.number); !ok || h.seq != r.next {
		return h, nil, false
	}
	n := batchHeadBytes
	for range h.items {
		_, rest, ok := nextItem(b[n : batchHeadBytes+int(h.payload)])
		if !ok {
			break
		}
		n = batchHeadBytes + int(h.payload) - len(rest)
	}
	return h, b[batchHeadBytes:n], n > batchHeadBytes
}

// resync finds the next valid batch with a number that is still to come, at off
// or behind it; 0 if there is none. A batch is written only after the sync of
// the one before, so what it skips was synced, and is lost; if there is none,
// what is at off was never acknowledged.
func (r *recovery) resync(f *found, b []byte, off int64) (at int64, seq uint64) {
	for ; off < int64(len(b)); off += pageBytes {
		if h, _, ok := checkBatch(b[off:], f.seg.number, r.l.seed); ok && h.seq >= r.next {
			return off, h.seq
		}
	}
	return 0, 0
}

// rot takes what it can from the damaged batch at off, before the valid batch
// seq at next.
func (r *recovery) rot(f *found, b []byte, off, next int64, seq uint64) {
	first := r.next
	if !f.tabled && first == f.tableSeq {
		first++ // that is the state table, which is read in no other way
	}
	r.splitAll()
	defer r.splitAll()
	if first < seq {
		r.lose(first, seq-1)
		if h, ok := peekBatch(b[off:next], f.seg.number); ok && h.seq == first {
			r.salvage(f.seg, off, b[off+batchHeadBytes:off+batchHeadBytes+int64(h.payload)], h)
		}
	}
	r.next = seq
}

// splitAll lets the next record of every group start a new entry: a read cannot
// walk over a damaged batch.
func (r *recovery) splitAll() {
	for _, g := range r.l.groups {
		g.split = true
	}
}

// salvage applies the items of a damaged batch whose own checksums hold. It
// believes the lengths only if they lead exactly to the end, so that no payload
// is ever taken for an item.
func (r *recovery) salvage(s *segment, off int64, items []byte, h batchHead) {
	n := 0
	for b := items; len(b) > 0; n++ {
		var ok bool
		if _, b, ok = nextItem(b); !ok {
			return
		}
	}
	if n != h.items {
		return
	}
	good := r.lost[h.seq]
	at := place{seg: s, batch: uint32(off)}
	for b := items; len(b) > 0; {
		at.off = uint32(off) + batchHeadBytes + uint32(len(items)-len(b))
		var item partition.Record
		item, b, _ = nextItem(b)
		if _, _, err := partition.ParseRecord(item); err != nil {
			continue
		}
		r.item(item, at)
		if good != nil && item.Kind() != kindEcho && item.Kind() != kindProgress {
			good[item.Group()]++
		}
	}
}

// batch applies the items of a valid batch.
func (r *recovery) batch(s *segment, off int64, items []byte) {
	at := place{seg: s, batch: uint32(off)}
	for b := items; len(b) > 0; {
		at.off = uint32(off) + batchHeadBytes + uint32(len(items)-len(b))
		item, rest, ok := nextItem(b)
		if !ok || item.Index() == 0 || item.Index() > maxIndex {
			r.note("segment %d: the batch at %d holds what is no item", s.number, off)
			r.hopeless, r.report.Rot = true, true
			return
		}
		b = rest
		r.item(item, at)
	}
}

// item applies one item.
func (r *recovery) item(item partition.Record, at place) {
	id := item.Group()
	g := r.l.groups[id]
	if k := item.Kind(); k < partition.KindLocal {
		r.report.Records++
		r.record(g, item, at)
		return
	} else if k == kindEcho || k == kindProgress || k == kindRow {
		r.nodeItem(item)
		return
	}
	if item.Kind() == kindDrop {
		delete(r.l.groups, id)
		delete(r.loss, id)
		return
	}
	if g == nil {
		g = &group{id: id}
		r.l.groups[id] = g
		if item.Kind() != kindState {
			r.lostRecords(id, 1, 0, "its first write is lost")
		}
	}
	r.groupItem(g, item)
}

// nodeItem applies an item that concerns many groups.
func (r *recovery) nodeItem(item partition.Record) {
	switch item.Kind() {
	case kindEcho:
		r.echoes(item.Payload())
	case kindProgress:
		for p := item.Payload(); len(p) >= progressBytes; p = p[progressBytes:] {
			g := r.l.groups[partition.GroupID(le.Uint64(p))]
			if g == nil {
				continue
			}
			g.hard.Commit = max(g.hard.Commit, min(partition.Index(le.Uint64(p[8:])), g.end.Index))
			if f := min(partition.Index(le.Uint64(p[16:])), g.end.Index); f >= g.hard.Flushed {
				g.hard.Flushed, g.hard.Generation = f, max(g.hard.Generation, le.Uint32(p[24:]))
			}
		}
	}
}

// groupItem applies a local item of one group.
func (r *recovery) groupItem(g *group, item partition.Record) {
	switch item.Kind() {
	case kindState:
		s, ok := decodeState(item.Payload())
		if !ok {
			return
		}
		g.hard.Replica, g.hard.Promise = s.Replica, max(g.hard.Promise, s.Promise)
		g.hard.Generation = max(g.hard.Generation, s.Generation)
		g.hard.Commit, g.hard.Flushed = max(g.hard.Commit, s.Commit), max(g.hard.Flushed, s.Flushed)
	case kindSnip:
		end := partition.Position{Epoch: item.Epoch(), Index: item.Index() - 1}
		if end.Index > g.end.Index {
			r.lostRecords(g.id, g.end.Index+1, end.Index, "records are missing before a snip")
		}
		g.snip(end, item.Prev())
	case kindInstall:
		n, keep, ok := decodeInstall(item)
		if !ok {
			return
		}
		if keep && n.Base.Index > g.end.Index {
			r.lostRecords(g.id, g.end.Index+1, n.Base.Index, "records are missing before an install")
		}
		g.install(&n, keep)
		if r.l.o.Planted.Has(planted.InstallForgetsPromise) {
			g.hard.Promise = n.Base.Epoch
		}
	case kindQuarantine:
		if p := item.Payload(); len(p) >= damageBytes {
			g.damage = &Damage{
				From: partition.Index(le.Uint64(p)), To: partition.Index(le.Uint64(p[8:])), Why: "found damaged at an earlier start",
			}
		}
	}
}

// record applies a record. One that does not follow the group's last shows that
// something between them is lost; the log then goes on behind it.
func (r *recovery) record(g *group, rec partition.Record, at place) {
	id, p := rec.Group(), rec.Position()
	if g == nil {
		g = &group{id: id}
		r.l.groups[id] = g
		r.lostRecords(id, 1, p.Index-1, "its first write is lost")
	} else if p.Index == g.end.Index+1 && rec.Prev() == g.endSum && p.Epoch >= g.end.Epoch {
		g.add(rec, at)
		return
	} else {
		r.lostRecords(id, min(g.end.Index+1, p.Index), max(p.Index-1, g.end.Index), "records are missing in the log")
	}
	g.entries, g.before, g.end, g.endSum = nil, p, p, rec.Checksum()
	r.loss[id].need = p.Index
}

// echoes settles which groups lost something in batches that are lost.
func (r *recovery) echoes(p []byte) {
	all, ok := decodeEchoes(p)
	if !ok {
		return
	}
	for _, e := range all {
		good, lost := r.lost[e.seq]
		if !lost {
			continue
		}
		delete(r.lost, e.seq)
		for _, t := range e.touched {
			n := min(t.items, good[t.group])
			good[t.group] -= n
			if n == t.items {
				continue
			}
			from, to := partition.Index(1), t.last
			if g := r.l.groups[t.group]; g != nil {
				from = g.end.Index + 1
			}
			if x := r.loss[t.group]; x != nil {
				from = x.from
			}
			if to < from {
				to = 0 // no record, or one that came back
			}
			r.lostRecords(t.group, from, to, fmt.Sprintf("batch %d is damaged", e.seq))
		}
	}
}

// lose notes that the batches from first to last are lost.
func (r *recovery) lose(first, last uint64) {
	r.report.Rot = true
	r.l.o.point(AtRotFound)
	for seq := first; seq <= last && len(r.report.LostBatches) < maxLostNamed; seq++ {
		r.report.LostBatches = append(r.report.LostBatches, seq)
	}
	if last-first >= maxLost || len(r.lost) >= maxLost {
		r.hopeless = true
		return
	}
	if r.lost == nil {
		r.lost = map[uint64]map[partition.GroupID]uint32{}
	}
	for seq := first; seq <= last; seq++ {
		r.lost[seq] = map[partition.GroupID]uint32{}
	}
}
