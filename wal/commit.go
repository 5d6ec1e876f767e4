package wal

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"pando.dev/pando/internal/planted"
	"pando.dev/pando/partition"
)

// spaceRetry is the wait between two attempts to make a segment on a full disk.
const spaceRetry = 100 * time.Millisecond

// lockTries bounds the tries of lockSoon, of a few ns each.
const lockTries = 1000

// gatherYields bounds how often gather gives way.
const gatherYields = 4096

// run is the committer goroutine. It writes one batch at a time, and the next
// only after the sync of the one before has returned: recovery relies on that
// to tell a torn tail from rot.
func (l *Log) run() {
	defer l.ended.Done()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var progress time.Time // when the moved indexes are due to be written
	for {
		now := time.Now()
		l.lockSoon()
		if len(l.dirty) == 0 || progress.IsZero() {
			progress = now.Add(l.o.Idle)
		} else if now.After(progress) {
			l.addProgress()
			progress = time.Time{}
		}
		b := l.take()
		if b == nil && l.closing {
			l.settle()
			b = l.take()
		}
		if b == nil && (l.closing || l.err != nil) {
			l.mu.Unlock()
			return
		}
		idle := b == nil && (l.unproven || len(l.dirty) > 0)
		l.asleep = b == nil
		l.mu.Unlock()
		switch {
		case b != nil:
			if n, waiting, ok := l.commit(b); ok {
				l.gather(n, waiting)
			}
		case idle:
			timer.Reset(l.o.Idle)
			select {
			case <-l.work:
			case <-timer.C:
				l.mu.Lock()
				l.settle()
				l.mu.Unlock()
			}
		default:
			<-l.work
		}
	}
}

// lockSoon takes l.mu for the committer. It is held for some 100 ns at a time,
// but with hundreds of runnable writers a sync.Mutex parks at once, and it would
// be long before the committer ran again.
func (l *Log) lockSoon() {
	for range lockTries {
		if l.mu.TryLock() {
			return
		}
	}
	l.mu.Lock()
}

// wake gives the committer its token.
func (l *Log) wake() {
	select {
	case l.work <- struct{}{}:
	default:
	}
}

// gather waits for the writers of the last batch to come back, so that they do
// not fall apart into two cohorts that each wait for the other's sync. It waits
// for as many appends as the last batch had plus what was waiting then, and
// never longer than Options.Gather. A single writer is not waited for.
func (l *Log) gather(last, waiting int) {
	want := int64(last + waiting)
	if want < 2 || l.o.Gather <= 0 || l.writes.Load() >= want {
		return
	}
	end := time.Now().Add(l.o.Gather)
	for range gatherYields { // under a fake clock no time passes here
		if l.writes.Load() >= want || time.Now().After(end) {
			return
		}
		runtime.Gosched()
	}
}

// take returns the oldest batch that is not durable, closed. It stays in the
// queue, for readers. The caller holds l.mu.
func (l *Log) take() *batch {
	if len(l.queue) == 0 {
		return nil
	}
	b := l.queue[0]
	if b == l.open {
		l.closeOpen()
	}
	return b
}

// settle starts an empty batch with what progress there is. It proves that the
// batch before was synced. The caller holds l.mu.
func (l *Log) settle() {
	l.asleep = false
	if len(l.queue) > 0 || !l.unproven && len(l.dirty) == 0 || l.err != nil {
		return
	}
	l.addProgress()
	if len(l.queue) == 0 {
		_, _ = l.room(amount{}) // fails only if an append would fail as well
	}
}

// commit makes the batch durable and calls what waits for it. It returns how
// many appends were in it and how many wait; ok is false if the log failed or
// there is no space for a new segment.
func (l *Log) commit(b *batch) (writes, waiting int, ok bool) {
	if b.seg.file == nil {
		if err := l.rotate(b.seg); err != nil {
			l.rotateFailed(err)
			return 0, 0, false
		}
	}
	n := len(b.buf)
	image := pad(b.buf)
	sealBatch(image[:n], int(b.items), b.seq, b.seg.number, l.seed)
	l.o.point(AtBatchSealed)
	start := time.Now()
	l.syncs.begin()
	err := l.writeBatch(b, image)
	if err != nil {
		l.o.point(AtPoisoned)
		l.poison(fmt.Errorf("write batch %d of segment %d: %w", b.seq, b.seg.number, err))
		return 0, 0, false
	}
	l.o.point(AtBatchSynced)
	if b.writes == 0 {
		l.o.point(AtProof)
	}
	done := l.durable(b, image, time.Since(start))
	for i, f := range done {
		f(nil)
		done[i] = nil
	}
	writes, waiting = b.writes, int(l.writes.Load())
	l.lockSoon()
	l.recycle(b)
	l.mu.Unlock()
	return writes, max(0, waiting), true
}

func writeSync(f File, b []byte, off int64) error {
	if _, err := f.WriteAt(b, off); err != nil {
		return err
	}
	return f.Sync()
}

// writeBatch makes a batch durable: written, then synced.
func (l *Log) writeBatch(b *batch, image []byte) error {
	f := b.seg.file
	switch {
	case l.o.Planted.Has(planted.DoneUnsynced):
		if l.owed != nil {
			_ = l.owed.Sync() // what was reported long ago
		}
		l.owed = f
		_, err := f.WriteAt(image, b.off)
		return err
	case l.o.Planted.Has(planted.SyncSwallowed):
		err := writeSync(f, image, b.off)
		if err != nil {
			err = f.Sync()
		}
		return err
	case l.o.Planted.Has(planted.WriteAhead):
		return l.writeAhead(b, image)
	}
	return writeSync(f, image, b.off)
}

// writeAhead is a planted bug: the next batch, if one waits, is on its way before
// this one is synced.
func (l *Log) writeAhead(b *batch, image []byte) error {
	f := b.seg.file
	if b.seq != l.ahead {
		if _, err := f.WriteAt(image, b.off); err != nil {
			return err
		}
	}
	l.mu.Lock()
	var next *batch
	if len(l.queue) > 1 && l.queue[1].seg == b.seg {
		if next = l.queue[1]; next == l.open {
			l.closeOpen()
		}
	}
	l.mu.Unlock()
	if next != nil {
		n := len(next.buf)
		bytes := pad(append([]byte(nil), next.buf...))
		sealBatch(bytes[:n], int(next.items), next.seq, next.seg.number, l.seed)
		if _, err := f.WriteAt(bytes, next.off); err != nil {
			return err
		}
		l.ahead = next.seq
	}
	return f.Sync()
}

// durable takes the batch off the queue; from now on it is read from its file.
func (l *Log) durable(b *batch, image []byte, took time.Duration) []func(error) {
	l.lockSoon()
	defer l.mu.Unlock()
	b.buf = image
	l.queue = slices.Delete(l.queue, 0, 1)
	l.queued -= b.bytes
	l.writes.Add(-int64(b.writes))
	l.unproven = len(b.touched) > 0
	l.settled(b.seq)
	l.stats.Appends += uint64(b.writes)
	l.stats.Records += uint64(b.records)
	l.stats.RecordBytes += uint64(b.recordBytes)
	l.stats.Batches++
	l.stats.BatchBytes += uint64(len(image))
	l.stats.Syncs++
	l.stats.SyncLast = took
	l.stats.SyncMax = max(l.stats.SyncMax, took)
	l.syncs.end(took)
	return b.done
}

// settled lets segments go that waited for the batch seq to be durable.
func (l *Log) settled(seq uint64) {
	if l.voided != 0 && l.voided <= seq {
		l.voided = 0
		l.release()
	}
}

// rotate seals the active segment and makes the file of the next one, s, out of
// a spare. The new segment's name is durable before any batch goes there.
func (l *Log) rotate(s *segment) error {
	l.mu.Lock()
	var old *segment
	for _, o := range l.segments {
		if o.number+1 == s.number {
			old = o
		}
	}
	l.mu.Unlock()
	l.o.point(AtRotate)
	if old != nil && old.footer != nil {
		if err := l.writeFooter(old); err != nil {
			return fmt.Errorf("seal segment %d: %w", old.number, err)
		}
		l.o.point(AtSealed)
	}
	spare, err := l.takeSpare()
	if err != nil {
		return err
	}
	f, err := l.startSegment(spare, s)
	if err != nil {
		return fmt.Errorf("start segment %d: %w", s.number, err)
	}
	l.o.point(AtRotated)
	l.mu.Lock()
	defer l.mu.Unlock()
	if old != nil {
		old.footer = nil
	}
	s.file, s.table = f, nil
	l.setStuck(false)
	l.active = s.number
	l.unproven = false
	l.settled(s.first)
	l.release()
	l.wakeChores()
	return nil
}

// startSegment turns a spare into segment s.
func (l *Log) startSegment(spare uint64, s *segment) (File, error) {
	f, err := l.fs.Open(spareName(l.dir, spare))
	if err != nil {
		return nil, err
	}
	h := header{
		segment: s.number, incarnation: l.boot, secret: l.secret, first: s.first, size: s.size, node: l.o.Node,
	}
	err = writeSync(f, append(h.encode(), s.table...), 0)
	if err == nil {
		err = l.fs.Rename(spareName(l.dir, spare), segmentName(l.dir, s.number))
	}
	if err == nil && !l.o.Planted.Has(planted.NameUnsynced) {
		err = l.fs.SyncDir(l.dir)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// writeFooter makes the footer and the trailer of a segment durable.
func (l *Log) writeFooter(s *segment) error {
	if len(s.footer) > 0 {
		if _, err := s.file.WriteAt(s.footer, s.seal.footerAt); err != nil {
			return err
		}
	}
	if s == l.replayed {
		_, err := s.file.WriteAt(s.seal.encode(), s.size-pageBytes)
		return err
	}
	return writeSync(s.file, s.seal.encode(), s.size-pageBytes)
}

// rotateFailed tells a full disk, where nothing was written and the batches can
// wait, from everything else.
func (l *Log) rotateFailed(err error) {
	if !errors.Is(err, ErrNoSpace) {
		l.o.point(AtPoisoned)
		l.poison(err)
		return
	}
	l.mu.Lock()
	if !l.stuck {
		l.setStuck(true)
		l.o.point(AtStuck)
		l.o.Logger.Error("no space for a segment; appends wait", "err", err)
	}
	closing := l.closing
	l.mu.Unlock()
	if closing {
		l.giveUp(err, err)
		return
	}
	if !l.o.Manual {
		l.doChores() // may recycle
		t := time.NewTimer(spaceRetry)
		defer t.Stop()
		select {
		case <-t.C:
		case <-l.work: // an append, or Close
		}
	}
}

// poison ends the log: everything that waits fails, in order, and the owner is
// told to end the process. Nothing is written or synced again.
func (l *Log) poison(err error) {
	l.o.Logger.Error("log failed; the process must end", "err", err)
	l.giveUp(err, poisoned(err))
	l.o.Fatal(err)
}

// giveUp ends the log for a cause, and answers everything that waits.
func (l *Log) giveUp(cause, answer error) {
	l.mu.Lock()
	all := l.queue
	l.queue, l.open, l.queued, l.err = nil, nil, 0, cause
	l.mu.Unlock()
	for _, b := range all {
		for _, f := range b.done {
			f(answer)
		}
	}
}

// Turn writes one batch, if anything waits, and does the housekeeping that is
// due; it reports whether another can be written. Only with Options.Manual.
func (l *Log) Turn() (more bool) {
	l.mu.Lock()
	b := l.take()
	l.mu.Unlock()
	if b != nil {
		l.commit(b)
	}
	l.pollSpace()
	l.doChores()
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.queue) > 0 && !l.stuck
}

// Settle ends a time of idleness: an empty batch follows the last one. Only
// with Options.Manual, where it stands for Options.Idle running out.
func (l *Log) Settle() {
	l.mu.Lock()
	l.settle()
	l.mu.Unlock()
	l.Turn()
}

// Close makes everything appended durable and closes the files. Appends from
// then on are refused with ErrClosed.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closing {
		l.mu.Unlock()
		return nil
	}
	l.closing = true
	l.mu.Unlock()
	if l.o.Manual {
		for l.Turn() {
		}
		l.Settle()
	} else {
		l.wake()
		l.ended.Wait()
		close(l.stop)
		l.kept.Wait()
	}
	return l.closeFiles()
}

func (l *Log) closeFiles() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	err := l.err
	for _, s := range append(l.released, l.segments...) {
		if s.file != nil {
			err = errors.Join(err, s.file.Close())
		}
	}
	return err
}

// waitSpace is what takeSpare answers when the disk is full.
func waitSpace(err error) error {
	return fmt.Errorf("%w: %w", &partition.Error{Code: partition.CodeNoSpace, Why: "no space for a segment"}, err)
}
