package wal

import (
	"fmt"
	"io"

	"pando.dev/pando/internal/planted"
	"pando.dev/pando/partition"
)

const (
	// readBytes and readMinBytes bound one read from a segment.
	readBytes    = 256 << 10
	readMinBytes = 16 << 10
)

// reader collects the records of one Read. What it hands out shares the windows
// it read, or the buffers of batches that are not yet durable.
type reader struct {
	l    *Log
	g    partition.GroupID
	from partition.Index
	to   partition.Index
	left int // bytes that may still be added
	out  []partition.Record
	want partition.Index // the next record in the walk
	// window is a part of the file of segment seg, from offset at on.
	seg    uint64
	at     int64
	window []byte
}

// Read returns the records of g from from to to, both included, but not more
// than maxBytes, though at least one. It shows records that are not yet
// durable, too. The records may be kept; they share memory with each other.
//
// Before First and behind Last the answer is CodeNotFound. A damaged record
// gives CodeCorrupt and quarantines the group, unless its state has the record:
// then the log just begins behind it from now on.
func (l *Log) Read(g partition.GroupID, from, to partition.Index, maxBytes int) ([]partition.Record, error) {
	r := &reader{l: l, g: g, from: from, to: to, left: maxBytes}
	for r.from <= r.to {
		e, last, err := l.entryOf(g, r.from)
		if err != nil {
			if len(r.out) > 0 && partition.CodeOf(err) == partition.CodeNotFound {
				return r.out, nil
			}
			return nil, err
		}
		r.to = min(r.to, last)
		full, err := r.walk(e)
		if err != nil {
			return nil, l.unreadable(r, e, err)
		}
		if full {
			break
		}
	}
	return r.out, nil
}

// entryOf returns the entry that holds i, and the group's last index.
func (l *Log) entryOf(g partition.GroupID, i partition.Index) (e entry, last partition.Index, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch x := l.groups[g]; {
	case l.err != nil:
		return e, 0, refusedPoisoned(l.err)
	case l.closed:
		return e, 0, &partition.Error{Code: partition.CodeClosed, Why: "the log is closed"}
	case x == nil:
		return e, 0, partition.Errorf(partition.CodeNotFound, "the log holds nothing of %s", g)
	case x.damage != nil:
		return e, 0, corrupt("the log lost records of %s: %s", g, x.damage.Why)
	default:
		n, ok := x.find(i)
		if !ok {
			return e, 0, partition.Errorf(partition.CodeNotFound, "%s: record %d is not in the log, which has %d to %d",
				g, i, x.first(), x.end.Index)
		}
		return x.entries[n], x.end.Index, nil
	}
}

// walk reads an entry's records from r.from on; full if no more is wanted.
func (r *reader) walk(e entry) (full bool, err error) {
	r.want = e.first
	batch, off := int64(e.batch), int64(e.off)
	for r.want <= e.last() {
		items, next, err := r.items(e.seg, batch, off)
		if err != nil {
			return false, err
		}
		for len(items) > 0 && r.want <= e.last() {
			item, rest, ok := nextItem(items)
			if !ok {
				return false, corrupt("segment %d: an item in the batch at %d has no valid length", e.seg, batch)
			}
			if items = rest; item.Group() != r.g || item.Kind() >= partition.KindLocal {
				continue
			}
			if full, err = r.take(item, e); full || err != nil {
				return full, err
			}
		}
		batch, off = next, next+batchHeadBytes
	}
	return false, nil
}

// take adds the record at r.want, if it is wanted.
func (r *reader) take(item partition.Record, e entry) (full bool, err error) {
	if item.Index() != r.want || item.Epoch() != e.epoch {
		return false, corrupt("segment %d: found record %s instead of %d", e.seg, item.Position(), r.want)
	}
	if r.want >= r.from {
		if r.want > r.to || len(r.out) > 0 && len(item) > r.left {
			return true, nil
		}
		if _, _, err := partition.ParseRecord(item); err != nil && !r.l.o.Planted.Has(planted.ReadUnchecked) {
			return false, corrupt("segment %d: record %d: %v", e.seg, r.want, err)
		}
		r.out = append(r.out, item)
		r.left -= len(item)
		r.from++
	}
	r.want++
	return false, nil
}

// items returns the items of the batch at offset batch of a segment, from
// offset off on, and the offset of the next batch.
func (r *reader) items(seg uint32, batch, off int64) (items []byte, next int64, err error) {
	r.l.mu.Lock()
	for _, b := range r.l.queue {
		if b.seg.number == uint64(seg) && b.off == batch {
			b.leased = true
			n := int64(len(b.buf))
			items, next = b.buf[off-batch:n:n], batch+align(n)
			r.l.mu.Unlock()
			return items, next, nil
		}
	}
	r.l.mu.Unlock()
	head, err := r.bytes(seg, batch, batchHeadBytes)
	if err != nil {
		return nil, 0, err
	}
	n := int64(le.Uint32(head[8:]))
	if le.Uint32(head) != batchMagic || le.Uint64(head[24:]) != uint64(seg) || n > maxSegmentBytes || off-batch > batchHeadBytes+n {
		return nil, 0, corrupt("segment %d: no batch at %d", seg, batch)
	}
	end := batch + batchHeadBytes + n
	items, err = r.bytes(seg, off, end-off)
	return items, align(end), err
}

// bytes returns n bytes of a segment's file from off on, reading ahead.
func (r *reader) bytes(seg uint32, off, n int64) ([]byte, error) {
	if r.seg != uint64(seg) || off < r.at || off+n > r.at+int64(len(r.window)) {
		if err := r.fetch(uint64(seg), off, n); err != nil {
			return nil, err
		}
	}
	from := off - r.at
	return r.window[from : from+n : from+n], nil
}

// fetch reads a new window.
func (r *reader) fetch(seg uint64, off, n int64) error {
	l := r.l
	l.mu.Lock()
	var s *segment
	for _, x := range l.segments {
		if x.number == seg && x.file != nil {
			s = x
		}
	}
	if s == nil || l.closed {
		l.mu.Unlock()
		return partition.Errorf(partition.CodeNotFound, "segment %d is gone", seg)
	}
	s.readers++
	limit := s.end // what is behind it is not written yet, but may be, soon
	for _, b := range l.queue {
		if b.seg == s {
			limit = b.off
			break
		}
	}
	l.mu.Unlock()
	defer l.readDone(s)
	ahead := min(max(int64(r.left)+pageBytes, readMinBytes), readBytes)
	size := min(max(n, ahead), limit-off)
	if size < n {
		return corrupt("segment %d: %d bytes at %d are not within %d", seg, n, off, limit)
	}
	b := make([]byte, size)
	if _, err := s.file.ReadAt(b, off); err != nil && err != io.EOF {
		return fmt.Errorf("read segment %d at %d: %w", seg, off, err)
	}
	r.seg, r.at, r.window = seg, off, b
	return nil
}

// readDone lets the segment go again.
func (l *Log) readDone(s *segment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.readers--; s.readers == 0 && s == l.segments[0] {
		l.release()
	}
}

// unreadable handles a walk through an entry that failed at the record r.want. Rot
// is kept apart from an I/O error and from a segment that was recycled meanwhile.
func (l *Log) unreadable(r *reader, e entry, err error) error {
	if partition.CodeOf(err) != partition.CodeCorrupt {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	g := r.g
	x := l.groups[g]
	if x == nil || l.err != nil {
		return err
	}
	i, last := r.want, r.want
	if i < x.first() && r.from >= x.first() {
		// The damage was met before, and the log began behind it; but nothing that
		// comes after it in the entry can be found.
		i, last = r.from, e.last()
	}
	epoch, ok := x.epochAt(i)
	if !ok || i < x.first() {
		return partition.Errorf(partition.CodeNotFound, "%s: record %d is no longer in the log", g, i)
	}
	l.o.point(AtDamagedRead)
	l.o.Logger.Error("damaged record in the log", "group", g, "index", uint64(i), "flushed", uint64(x.hard.Flushed), "err", err)
	if last <= x.hard.Flushed {
		x.forget(partition.Position{Epoch: epoch, Index: last})
		return err
	}
	if x.damage == nil {
		x.damage = &Damage{From: i, To: last, Why: err.Error()}
		l.writeQuarantine(x)
	}
	return err
}

// writeQuarantine stores that x is quarantined. If there is no room for it now,
// the next state table has it.
func (l *Log) writeQuarantine(x *group) {
	n := amount{bytes: itemHead + damageBytes}
	b, err := l.room(n)
	if x.unsaved = err != nil; x.unsaved {
		return
	}
	l.voided = b.seq
	b.buf = appendQuarantine(b.buf, x.id, x.damage)
	b.items++
	l.took(b, n.bytes)
	b.touch(x, 1)
	if l.enqueue(b, nil) {
		l.wake()
	}
}
