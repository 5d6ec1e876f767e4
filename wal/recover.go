package wal

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"pando.dev/pando/partition"
)

// recovery rebuilds the state of a Log from its files. It runs before the log
// is shared, so it needs no lock.
//
//	for each segment, oldest first:
//	  footer and next state table whole?  take the footer's index, then the table
//	  otherwise                           scan its batches, then the table, if whole
//	the last one: scan, cut the torn tail, write its bytes again and sync
type recovery struct {
	l      *Log
	report *Report
	found  []*found
	// next is the number of the batch that must come next.
	next uint64
	// lost are the batches known to be missing, with the items per group that
	// could be read of them; an echo or a state table settles who they were.
	lost map[uint64]map[partition.GroupID]uint32
	// hopeless: so many batches are lost that only a state table helps.
	hopeless bool
	// loss is what each group is known to have lost.
	loss map[partition.GroupID]*loss
	// gaps are the groups for which a footer left out records, until the state
	// table says whether they were voided.
	gaps map[partition.GroupID]partition.Index
	// blind: the oldest state table is damaged and none was read since.
	blind bool
}

// loss is what one group has lost.
type loss struct {
	from, to partition.Index
	// need: the log is whole behind this index, so a state that has everything
	// up to it has lost nothing, if settled.
	need partition.Index
	// settled: a later state table has told everything else of the group.
	settled bool
	why     string
}

// found is a segment on disk.
type found struct {
	seg      *segment
	header   header
	headed   bool // header is valid
	trailer  trailer
	sealed   bool // trailer is valid
	rows     []partition.Record
	tableSeq uint64
	tabled   bool  // rows are valid
	tableEnd int64 // offset behind the table
}

// run reads the segments with the given numbers.
func (r *recovery) run(numbers []uint64) error {
	for _, n := range numbers {
		f, err := r.open(n)
		if f != nil {
			r.found = append(r.found, f)
			r.l.segments = append(r.l.segments, f.seg)
			r.l.logBytes += f.seg.size
		}
		if err != nil {
			return fmt.Errorf("segment %d: %w", n, err)
		}
	}
	if err := r.identify(); err != nil {
		return err
	}
	for _, f := range r.found {
		if err := r.readTable(f); err != nil {
			return fmt.Errorf("segment %d: %w", f.seg.number, err)
		}
	}
	for i := range r.found {
		if err := r.segment(i); err != nil {
			return fmt.Errorf("segment %d: %w", r.found[i].seg.number, err)
		}
	}
	return r.finish()
}

// open opens a segment and reads its header and trailer.
func (r *recovery) open(n uint64) (*found, error) {
	file, err := r.l.fs.Open(segmentName(r.l.dir, n))
	if err != nil {
		return nil, err
	}
	f := &found{seg: &segment{number: n, file: file}}
	size, err := file.Size()
	if err != nil {
		return f, err
	}
	f.seg.size = size &^ (pageBytes - 1)
	if f.seg.size > maxSegmentBytes {
		return f, corrupt("a file of %d bytes, limit %d", size, maxSegmentBytes)
	}
	if f.seg.size < 2*pageBytes {
		r.note("segment %d has only %d bytes", n, size)
		return f, nil
	}
	b := make([]byte, pageBytes)
	if err := readFull(file, b, 0); err != nil {
		return f, err
	}
	h, damaged, err := decodeHeader(b)
	if partition.CodeOf(err) == partition.CodeNewerFormat {
		return f, err
	}
	f.header, f.headed = h, err == nil && h.segment == n
	if damaged || !f.headed {
		r.note("header of segment %d is damaged", n)
	}
	if err := readFull(file, b, f.seg.size-pageBytes); err != nil {
		return f, err
	}
	f.trailer, f.sealed = decodeTrailer(b, n, f.seg.size)
	return f, nil
}

func readFull(f File, b []byte, off int64) error {
	n, err := f.ReadAt(b, off)
	if n == len(b) || errors.Is(err, io.EOF) {
		clear(b[n:]) // what is not there is as good as damaged
		return nil
	}
	return err
}

func (r *recovery) note(format string, args ...any) {
	r.report.Notes = append(r.report.Notes, fmt.Sprintf(format, args...))
}

// identify checks whose log this is, and finds its secret.
func (r *recovery) identify() error {
	known := false
	for _, f := range r.found {
		if f.headed {
			if f.header.node != r.l.o.Node {
				return fmt.Errorf("%w: %w", ErrWrongNode, &partition.Error{
					Code: partition.CodeRefused,
					Why:  fmt.Sprintf("the log belongs to node %s, this is %s", f.header.node, r.l.o.Node),
					Next: "start the node with its own data directory",
				})
			}
			r.l.secret, known = f.header.secret, true
			r.report.LastIncarnation = max(r.report.LastIncarnation, f.header.incarnation)
		} else if f.sealed && !known {
			r.l.secret, known = f.trailer.secret, true
		}
	}
	if !known {
		return &partition.Error{
			Code: partition.CodeCorrupt, Why: "no segment has a header that can be read",
			Next: "take the node out and bring it back empty, under a new id",
		}
	}
	r.l.seed = seedOf(r.l.secret)
	return nil
}

// readTable reads the state table of a segment.
func (r *recovery) readTable(f *found) error {
	if f.headed {
		f.tableSeq = f.header.first
	} else if f.sealed {
		f.tableSeq = f.trailer.first
	}
	if f.seg.size < 2*pageBytes {
		return nil
	}
	head := make([]byte, batchHeadBytes)
	if err := readFull(f.seg.file, head, pageBytes); err != nil {
		return err
	}
	n := int64(le.Uint32(head[8:])) + batchHeadBytes
	if n > f.seg.size-pageBytes {
		r.note("state table of segment %d is damaged", f.seg.number)
		return nil
	}
	b := make([]byte, n)
	if err := readFull(f.seg.file, b, pageBytes); err != nil {
		return err
	}
	h, items, ok := checkBatch(b, f.seg.number, r.l.seed)
	for ok && len(items) > 0 {
		var item partition.Record
		if item, items, ok = nextItem(items); ok {
			f.rows = append(f.rows, item)
		}
	}
	if !ok || f.headed && h.seq != f.header.first {
		f.rows = nil
		r.note("state table of segment %d is damaged", f.seg.number)
		return nil
	}
	f.tabled, f.tableSeq, f.tableEnd = true, h.seq, pageBytes+align(n)
	return nil
}

// segment takes over segment i and then the state table of the one behind it.
func (r *recovery) segment(i int) error {
	f := r.found[i]
	f.seg.first = f.tableSeq
	if i == 0 {
		if f.tabled {
			r.base(f)
		} else if r.next = max(f.tableSeq, 1); f.seg.number > 1 {
			r.blind = true // the first segment's table is empty
		}
	} else if r.found[i-1].seg.number+1 != f.seg.number {
		r.note("segments between %d and %d are missing", r.found[i-1].seg.number, f.seg.number)
		r.hopeless, r.report.Rot = true, true
	}
	var next *found
	if i+1 < len(r.found) && r.found[i+1].tabled {
		next = r.found[i+1]
	}
	indexed, err := r.takeFooter(f, next)
	if err != nil {
		return err
	}
	if !indexed {
		if i < len(r.found)-1 {
			r.l.o.point(AtFooterUnread)
		}
		if err := r.scanSegment(f, i == len(r.found)-1); err != nil {
			return err
		}
	}
	if next != nil {
		r.table(next, !indexed)
	}
	return nil
}

// takeFooter takes over the index of a sealed segment, if the next segment's
// table tells the rest.
func (r *recovery) takeFooter(f, next *found) (ok bool, err error) {
	t := f.trailer
	if !f.sealed || next == nil || next.seg.number != f.seg.number+1 || next.tableSeq != t.last+1 {
		return false, nil
	}
	b := make([]byte, t.footerSize)
	if err := readFull(f.seg.file, b, t.footerAt); err != nil {
		return false, err
	}
	if partition.Checksum(b) != t.footerCRC {
		r.note("footer of segment %d is damaged", f.seg.number)
		return false, nil
	}
	var all []section
	for len(b) > 0 {
		var s section
		if s, b, ok = decodeSection(b, uint32(f.seg.number), t.end); !ok {
			r.note("footer of segment %d cannot be read", f.seg.number)
			return false, nil
		}
		all = append(all, s)
	}
	for i := range all {
		r.takeSection(f.seg, &all[i])
	}
	f.seg.first, f.seg.last, f.seg.end = t.first, t.last, t.end
	r.next = t.last + 1
	return true, nil
}

// takeSection adds the entries that a footer has of one group.
func (r *recovery) takeSection(s *segment, sec *section) {
	if len(sec.entries) == 0 {
		return
	}
	first := sec.entries[0].first
	g := r.l.groups[sec.group]
	if g == nil {
		g = &group{id: sec.group, before: partition.Position{Epoch: sec.before, Index: first - 1}}
		r.l.groups[sec.group] = g
	} else if first > g.end.Index+1 {
		if r.gaps == nil {
			r.gaps = map[partition.GroupID]partition.Index{}
		}
		r.gaps[sec.group] = g.end.Index
	}
	g.cutAfter(first - 1)
	if len(g.entries) == 0 || first != g.entries[len(g.entries)-1].last()+1 {
		g.entries, g.before = nil, partition.Position{Epoch: sec.before, Index: first - 1}
	}
	g.entries = append(g.entries, sec.entries...)
	last := &g.entries[len(g.entries)-1]
	g.end = partition.Position{Epoch: last.epoch, Index: last.last()}
	s.groups = append(s.groups, sec.group)
}

// base takes over the state table of the oldest segment: what was before it is
// gone, and no longer needed.
func (r *recovery) base(f *found) {
	for _, item := range f.rows {
		if w, ok := decodeRow(item); ok {
			g := &group{id: item.Group(), hard: w.hard, before: w.end, end: w.end, endSum: w.endSum, configs: w.configs, damage: w.damage}
			r.l.groups[g.id] = g
		}
	}
	r.next = f.tableSeq + 1
}

// table compares what was found so far with a state table, which is the truth
// for everything before it. scanned: the segment before was read batch by
// batch, otherwise only its index.
func (r *recovery) table(f *found, scanned bool) {
	if f.tableSeq > r.next {
		r.lose(r.next, f.tableSeq-1)
	}
	seen := make(map[partition.GroupID]bool, len(f.rows))
	for _, item := range f.rows {
		w, ok := decodeRow(item)
		if !ok {
			continue // cannot be, under the batch's checksum
		}
		id := item.Group()
		seen[id] = true
		g := r.l.groups[id]
		if g == nil {
			g = &group{id: id, before: w.end}
			if w.end.Index > w.before.Index && (!r.blind || w.hard.Flushed < w.end.Index) {
				r.lostRecords(id, w.before.Index+1, w.end.Index, "a segment is damaged")
			}
			r.l.groups[id] = g
		}
		r.row(g, &w, scanned)
	}
	for id := range r.l.groups {
		if !seen[id] {
			delete(r.l.groups, id)
			delete(r.loss, id)
		}
	}
	r.lost, r.hopeless, r.blind, r.gaps = nil, false, false, nil
	r.next = f.tableSeq + 1
}

// row makes one group agree with its row.
func (r *recovery) row(g *group, w *row, scanned bool) {
	if g.hard.Replica != w.hard.Replica {
		delete(r.loss, g.id) // what a replica lost that was dropped since
	}
	if scanned && (g.end != w.end || g.endSum != w.endSum) {
		if !r.blind || len(g.entries) > 0 || w.hard.Flushed < w.end.Index {
			r.lostRecords(g.id, min(g.end.Index, w.end.Index)+1, w.end.Index, "the log differs from its state table")
		}
		g.entries = nil
	}
	if from, ok := r.gaps[g.id]; ok && g.before.Index > w.before.Index {
		r.lostRecords(g.id, from+1, g.before.Index, "a segment is damaged")
	}
	g.cutAfter(w.end.Index)
	if g.before.Index < w.before.Index {
		g.forget(w.before)
	}
	switch n := len(g.entries); {
	case n == 0:
		g.before = w.end
	case g.entries[n-1].last() != w.end.Index || g.entries[n-1].epoch != w.end.Epoch:
		r.lostRecords(g.id, g.entries[n-1].last()+1, w.end.Index, "the log differs from its state table")
		g.entries, g.before = nil, w.end
	}
	g.hard, g.damage, g.end, g.endSum = w.hard, w.damage, w.end, w.endSum
	g.configs = w.configs
	if x := r.loss[g.id]; x != nil {
		x.settled = true
		x.need = max(x.need, g.before.Index)
	}
}

// lostRecords notes that a group lost records, or, with to 0, something.
func (r *recovery) lostRecords(g partition.GroupID, from, to partition.Index, why string) *loss {
	x := r.loss[g]
	if x == nil {
		x = &loss{from: from, why: why}
		r.loss[g] = x
	}
	x.from, x.to, x.settled = min(x.from, from), max(x.to, to), false
	return x
}

// finish judges the losses and begins where the log ends.
func (r *recovery) finish() error {
	if r.blind {
		return &partition.Error{
			Code: partition.CodeCorrupt, Why: "the only state table is damaged, so the log's replicas are not known",
			Next: "take the node out and bring it back empty, under a new id",
		}
	}
	r.report.Nameless = r.hopeless
	if r.hopeless || len(r.lost) > 0 {
		for id, g := range r.l.groups {
			r.lostRecords(id, g.end.Index+1, 0, "a batch is lost that may have held records of it")
		}
	}
	for id, x := range r.loss {
		g := r.l.groups[id]
		if g == nil {
			g = &group{id: id}
			r.l.groups[id] = g
		}
		if x.settled && g.hard.Flushed >= x.need || g.damage != nil {
			continue
		}
		g.damage = &Damage{From: x.from, To: x.to, Why: x.why}
		r.l.o.point(AtQuarantined)
	}
	for id, g := range r.l.groups {
		if g.damage != nil {
			r.report.Lost = append(r.report.Lost, Lost{Group: id, Replica: g.hard.Replica, Damage: *g.damage})
			continue
		}
		// Records were only let go after the state had them.
		g.hard.Flushed = max(g.hard.Flushed, g.before.Index)
		g.hard.Commit = max(g.hard.Commit, g.hard.Flushed)
	}
	slices.SortFunc(r.report.Lost, byGroup)
	r.l.seq = r.next
	last := r.found[len(r.found)-1].seg
	last.last, r.l.active = r.next-1, last.number
	return nil
}
