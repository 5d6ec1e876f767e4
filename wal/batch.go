package wal

import (
	"pando.dev/pando/partition"
)

const (
	// keptBatches and keptBytes bound the buffers that are kept for reuse.
	keptBatches = 4
	keptBytes   = 8 << 20
	// maxEchoes is how many earlier batches one batch speaks of, if its padding
	// has room; always of the one before.
	maxEchoes = 8
	// maxProgress bounds the groups in one progress item.
	maxProgress = 4096
)

// batch is what one sync makes durable. It takes writes while it is open; then
// only the committer touches it, and readers the bytes of its items.
type batch struct {
	seq   uint64
	seg   *segment
	off   int64  // where it goes
	buf   []byte // the head, still blank, and the items
	items uint32
	// writes are the appends in it, bytes what they count in Log.queued, and
	// done what they want called.
	writes int
	bytes  int
	done   []func(error)
	// records and their bytes are for Stats.
	records, recordBytes int
	// touched are the groups in it.
	touched []touch
	// reserve is the room that the echo of the batch before takes at the end.
	reserve int
	// leased: a reader shares buf, so it cannot be used again.
	leased bool
}

// touch counts n items of g in the batch.
func (b *batch) touch(g *group, n uint32) {
	if g.batch != b.seq {
		g.batch, g.slot = b.seq, len(b.touched)
		b.touched = append(b.touched, touch{group: g.id})
	}
	t := &b.touched[g.slot]
	t.items += n
	t.last = g.end.Index
}

// amount is the room that a write takes.
type amount struct {
	bytes   int   // in the batch
	records int   // of it: records
	extra   int64 // bound of what the segment's footer grows by
	state   bool  // with a state item
	keep    bool  // its install keeps the log
	config  bool  // with a configuration
}

// tail is the end of a group's log as a write changes it.
type tail struct {
	hard   *HardState
	before partition.Index
	end    partition.Position
	sum    uint32
}

// check refuses a write that does not fit to the group, which may be nil, and
// says what room it takes.
func check(g *group, w *Write, c look) (n amount, err error) {
	var have tail
	if g != nil {
		if g.damage != nil {
			return n, &partition.Error{
				Code: partition.CodeCorrupt, Why: "the log lost records of " + g.id.String() + ": " + g.damage.Why,
				Next: "replace this replica by a new one",
			}
		}
		have = tail{hard: &g.hard, before: g.before.Index, end: g.end, sum: g.endSum}
	} else if w.Replica == 0 {
		return n, invalid("the first write of %s names no replica", w.Group)
	} else {
		have.hard = &HardState{}
	}
	if err := checkHard(have.hard, w); err != nil {
		return n, err
	}
	if w.Generation != 0 && (g != nil || w.Install != nil) {
		return n, invalid("%s: a generation that is neither installed nor that of a new log", w.Group)
	}
	if n.state = g == nil || w.promise() > have.hard.Promise || have.hard.Replica == 0; n.state {
		n.bytes += itemHead + stateBytes
	}
	if w.Install != nil {
		base := w.Install.Base
		n.keep = c.holds && have.before <= base.Index && base.Index <= have.end.Index
		if err := checkInstall(&have, w, n.keep); err != nil {
			return n, err
		}
		n.bytes += itemHead + installBytes + len(w.Install.Configuration)
		n.config = true
		if !n.keep {
			have.end, have.sum = base, w.Install.BaseSum
		}
	}
	if w.Snip {
		if err := checkSnip(&have, w); err != nil {
			return n, err
		}
		if c.cut == nil && w.After < have.end.Index {
			return n, invalid("%s: the log changed during a snip", w.Group)
		}
		if c.cut != nil {
			n.bytes += itemHead
			have.end, have.sum = c.cut.end, c.cut.sum
		}
	}
	if err := checkRecords(&have, w, &n); err != nil {
		return n, err
	}
	if w.Commit > have.end.Index {
		return n, invalid("%s: commit %d is behind the log's end %d", w.Group, w.Commit, have.end.Index)
	}
	return n, nil
}

func checkHard(have *HardState, w *Write) error {
	switch {
	case w.Replica != 0 && have.Replica != 0 && w.Replica != have.Replica:
		return invalid("%s: a write of replica %d, the log holds replica %d", w.Group, w.Replica, have.Replica)
	case w.Promise != 0 && w.Promise < have.Promise:
		return invalid("%s: promise %s is older than %s", w.Group, w.Promise, have.Promise)
	}
	return nil
}

// promise is what the write promises: a log that begins behind a record has
// promised its epoch.
func (w *Write) promise() partition.Epoch {
	if w.Install != nil {
		return max(w.Promise, w.Install.Base.Epoch)
	}
	return w.Promise
}

// checkInstall refuses a base that would leave a gap before the log, or take
// back what is committed: what is before the log's beginning is only in the
// state that it had.
func checkInstall(have *tail, w *Write, keep bool) error {
	n := w.Install
	if w.Snip {
		return invalid("%s: a snip together with an install", w.Group)
	}
	if known := max(have.hard.Flushed, have.hard.Commit, have.before); !keep && n.Base.Index < known {
		return invalid("%s: a copy at %s is older than the log, committed to %d", w.Group, n.Base, known)
	}
	if n.Base.Index == 0 || n.Base.Index > maxIndex {
		return invalid("%s: an install at %s", w.Group, n.Base)
	}
	c, ok := ownConfig(n.Configuration, w.Group)
	if !ok || c == nil || c.Index() > n.Base.Index {
		return invalid("%s: an install at %s without its configuration", w.Group, n.Base)
	}
	return nil
}

func checkSnip(have *tail, w *Write) error {
	switch {
	case w.After > have.end.Index:
		return invalid("%s: snip behind %d, the log ends at %d", w.Group, w.After, have.end.Index)
	case w.After < have.hard.Commit || w.After < have.hard.Flushed || w.After < have.before:
		return invalid("%s: snip behind %d would remove committed records, known to %d", w.Group, w.After,
			max(have.hard.Commit, have.hard.Flushed, have.before))
	}
	return nil
}

// checkRecords keeps the log gap-free, its epochs from going back, and its
// chain of checksums whole. It does not compute the records' own checksums:
// they were checked where they came from, and will be where they are read.
func checkRecords(have *tail, w *Write, n *amount) error {
	end, sum := have.end, have.sum
	for i, r := range w.Records {
		if len(r) < itemHead || len(r) > itemHead+partition.MaxPayloadBytes || int(le.Uint32(r[4:])) != len(r)-itemHead {
			return invalid("%s: a record of %d bytes has a wrong length", w.Group, len(r))
		}
		p := r.Position()
		switch {
		case r.Group() != w.Group:
			return invalid("%s: a record of %s", w.Group, r.Group())
		case r.Kind() >= partition.KindLocal || r.Kind() == 0:
			return invalid("%s: a record of kind %d", w.Group, r.Kind())
		case p.Index != end.Index+1:
			return invalid("%s: record %d does not follow %d", w.Group, p.Index, end.Index)
		case p.Epoch < end.Epoch:
			return invalid("%s: record %s follows one of a newer epoch, %s", w.Group, p, end)
		case r.Prev() != sum:
			return invalid("%s: record %s does not chain to the one before: %08x, want %08x", w.Group, p, r.Prev(), sum)
		}
		if p.Epoch != end.Epoch || i == 0 {
			n.extra += entryBytes
		}
		if isConfig(r.Kind()) {
			n.config = true
		}
		end, sum = p, r.Checksum()
		n.records += len(r)
	}
	n.bytes += n.records
	n.extra += sectionBytes + entryBytes*int64(n.records/spanBytes)
	have.end, have.sum = end, sum
	return nil
}

// room returns an open batch with room for n, planning a new one and a new
// segment as needed. The caller holds l.mu.
func (l *Log) room(n amount) (*batch, error) {
	if l.queued > 0 && l.queued+n.bytes > l.o.QueueBytes {
		return nil, partition.Errorf(partition.CodeBusy, "%d bytes wait for the log's disk already", l.queued)
	}
	if b := l.open; b != nil {
		size := len(b.buf) + b.reserve + n.bytes
		if (b.items == 0 || size <= l.o.BatchBytes) && b.seg.fits(b.off, size, n.extra) {
			return b, nil
		}
	}
	empty := align(int64(batchHeadBytes+l.rowBytes)) + align(int64(batchHeadBytes+n.bytes)) + align(n.extra)
	if 2*pageBytes+empty > l.o.SegmentBytes {
		return nil, partition.Errorf(partition.CodeTooLarge, "a write of %d bytes in segments of %d", n.bytes, l.o.SegmentBytes)
	}
	l.closeOpen()
	seg, reserve := l.lastSegment(), l.reserve()
	if !seg.fits(seg.end, batchHeadBytes+reserve+n.bytes, n.extra) {
		seg, reserve = l.planSegment(), 0
	}
	return l.openBatch(seg, reserve), nil
}

// reserve is the room that the echo of the last batch takes in the next.
func (l *Log) reserve() int {
	if n := len(l.echoes); n > 0 {
		return itemHead + l.echoes[n-1].bytes()
	}
	return 0
}

func (l *Log) openBatch(seg *segment, reserve int) *batch {
	var b *batch
	if n := len(l.idle); n > 0 {
		b, l.idle = l.idle[n-1], l.idle[:n-1]
	} else {
		b = &batch{buf: make([]byte, batchHeadBytes, 64<<10)}
	}
	b.seq, b.seg, b.off, b.reserve = l.seq, seg, seg.end, reserve
	l.seq++
	l.queue = append(l.queue, b)
	l.open = b
	return b
}

// closeOpen ends the open batch: it adds the echoes, and from then on the place
// of the next batch is known.
func (l *Log) closeOpen() {
	b := l.open
	if b == nil {
		return
	}
	l.open = nil
	if len(l.echoes) > 0 {
		l.appendEchoes(b)
	}
	l.keepEcho(b)
	b.seg.last = b.seq
	b.seg.end = b.off + align(int64(len(b.buf)))
}

// appendEchoes adds the echo of the batch before, and of earlier ones as far as
// they fit into what would be padding.
func (l *Log) appendEchoes(b *batch) {
	n := len(l.echoes) - 1
	size := itemHead + l.echoes[n].bytes()
	for room := int(align(int64(len(b.buf)+size))) - len(b.buf); n > 0; n-- {
		if more := l.echoes[n-1].bytes(); size+more <= room {
			size += more
		} else {
			break
		}
	}
	at := len(b.buf)
	b.buf = partition.AppendRecord(b.buf, partition.Header{Index: 1, Kind: kindEcho})
	for i := len(l.echoes) - 1; i >= n; i-- {
		b.buf = l.echoes[i].append(b.buf)
	}
	sealItem(b.buf[at:])
	b.items++
}

// sealItem sets length and checksum of the item whose header b starts with.
func sealItem(b []byte) {
	le.PutUint32(b[4:], uint32(len(b)-itemHead))
	le.PutUint32(b, partition.Checksum(b[4:]))
}

// keepEcho remembers what b holds, for the batches that follow.
func (l *Log) keepEcho(b *batch) {
	var e echo
	if len(l.echoes) == maxEchoes {
		e = l.echoes[0]
		copy(l.echoes, l.echoes[1:])
		l.echoes = l.echoes[:maxEchoes-1]
	}
	e.seq, e.touched = b.seq, append(e.touched[:0], b.touched...)
	l.echoes = append(l.echoes, e)
}

// recycle makes the buffer of a durable batch available again.
func (l *Log) recycle(b *batch) {
	if b.leased {
		return
	}
	if len(l.idle) >= keptBatches || cap(b.buf) > keptBytes {
		return
	}
	clear(b.done)
	*b = batch{buf: b.buf[:batchHeadBytes], done: b.done[:0], touched: b.touched[:0]}
	l.idle = append(l.idle, b)
}

// addProgress writes the progress of the groups where it moved. The caller
// holds l.mu. What does not fit waits.
func (l *Log) addProgress() {
	for len(l.dirty) > 0 {
		some := l.dirty[:min(len(l.dirty), maxProgress)]
		size := itemHead + progressBytes*len(some)
		b, err := l.room(amount{bytes: size})
		if err != nil {
			return
		}
		if len(l.dirty) == 0 {
			return // a new segment was started, whose table has it all
		}
		at := len(b.buf)
		b.buf = partition.AppendRecord(b.buf, partition.Header{Index: 1, Kind: kindProgress})
		for _, g := range some {
			b.buf = le.AppendUint64(b.buf, uint64(g.id))
			b.buf = le.AppendUint64(b.buf, uint64(g.hard.Commit))
			b.buf = le.AppendUint64(b.buf, uint64(g.hard.Flushed))
			b.buf = le.AppendUint32(b.buf, g.hard.Generation)
			g.dirty = false
		}
		sealItem(b.buf[at:])
		b.items++
		l.took(b, size)
		l.dirty = append(l.dirty[:0], l.dirty[len(some):]...)
	}
}
