package wal

import (
	"errors"
	"fmt"
	"syscall"
	"time"
)

// fillBytes is how much of a spare is written at once.
const fillBytes = 64 << 10

// keep is the housekeeper goroutine: it makes spares, turns segments that
// nobody needs into spares, and watches the space on the disk.
func (l *Log) keep() {
	defer l.kept.Done()
	t := time.NewTicker(l.o.SpacePoll)
	defer t.Stop()
	for {
		l.doChores()
		select {
		case <-l.stop:
			l.filling.Lock()
			defer l.filling.Unlock()
			if err := l.recycleSegments(); err != nil {
				l.o.Logger.Error("recycle a log segment", "err", err)
			}
			return
		case <-l.chores:
		case <-t.C:
			l.pollSpace()
		}
	}
}

// wakeChores gives the housekeeper its token.
func (l *Log) wakeChores() {
	select {
	case l.chores <- struct{}{}:
	default:
	}
}

// doChores recycles and fills up the spares. Its failures cost nothing but a
// note: the committer makes its own spare if there is none.
func (l *Log) doChores() {
	l.filling.Lock()
	defer l.filling.Unlock()
	if err := l.recycleSegments(); err != nil {
		l.o.Logger.Error("recycle a log segment", "err", err)
		return
	}
	for l.wantsSpare() {
		if err := l.makeSpare(); err != nil {
			l.o.Logger.Error("prepare a log segment", "err", err)
			return
		}
	}
}

// recycleSegments renames released segments to spares, oldest first, each
// durably before the next, so that neither a crash nor a failure leaves a gap
// between segments: one that cannot be recycled now is the first again next
// time. The caller holds l.filling.
func (l *Log) recycleSegments() error {
	for {
		l.mu.Lock()
		if len(l.released) == 0 || l.err != nil {
			l.mu.Unlock()
			return nil
		}
		s := l.released[0]
		keep := len(l.spares) < l.o.Spares+2 && s.size == l.o.SegmentBytes
		l.mu.Unlock()
		if err := l.retire(s, keep); err != nil {
			return err
		}
		l.o.point(AtRecycled)
		l.mu.Lock()
		l.released = append(l.released[:0], l.released[1:]...)
		if s.spare != 0 {
			l.spares = append(l.spares, s.spare)
		}
		l.stats.Recycled++
		l.mu.Unlock()
	}
}

// retire takes a segment's name away durably, or gives it the name of a spare.
// What failed may be tried again.
func (l *Log) retire(s *segment, keep bool) error {
	if s.file != nil {
		_ = s.file.Close() // everything in it was synced, or nobody needs it
		l.mu.Lock()
		s.file = nil
		l.mu.Unlock()
	}
	if !s.nameless {
		old, err := segmentName(l.dir, s.number), error(nil)
		if keep {
			l.mu.Lock()
			l.spareSeq++
			n := l.spareSeq
			l.mu.Unlock()
			if err = l.fs.Rename(old, spareName(l.dir, n)); err == nil {
				s.spare = n
			}
		} else {
			err = l.fs.Remove(old)
		}
		if err != nil {
			return err
		}
		s.nameless = true
	}
	return l.fs.SyncDir(l.dir)
}

func (l *Log) wantsSpare() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.spares) < l.o.Spares && !l.noSpace && !l.closing && l.err == nil
}

// makeSpare writes a whole segment of zeros, so that a later batch changes no
// metadata of the file: that is what makes its sync cheap. The caller holds
// l.filling.
func (l *Log) makeSpare() error {
	l.mu.Lock()
	l.spareSeq++
	n := l.spareSeq
	l.mu.Unlock()
	name := spareName(l.dir, n) + ".new"
	f, err := l.fs.Create(name, l.o.SegmentBytes)
	if err != nil {
		_ = l.fs.Remove(name) // may not exist
		return fmt.Errorf("create %s: %w", name, err)
	}
	err = errors.Join(l.fill(f), f.Close())
	if err == nil {
		err = l.fs.Rename(name, spareName(l.dir, n))
	}
	if err == nil {
		err = l.fs.SyncDir(l.dir)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("fill %s: %w", name, err), l.fs.Remove(name))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spares = append(l.spares, n)
	return nil
}

func (l *Log) fill(f File) error {
	zeros := make([]byte, min(fillBytes, l.o.SegmentBytes))
	for off := int64(0); off < l.o.SegmentBytes; off += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), l.o.SegmentBytes-off)], off); err != nil {
			return err
		}
	}
	return f.Sync()
}

// takeSpare returns a spare, making one if there is none.
func (l *Log) takeSpare() (uint64, error) {
	if n, ok := l.popSpare(); ok {
		l.o.point(AtSpareUsed)
		return n, nil
	}
	l.o.point(AtSpareMissing)
	l.filling.Lock()
	defer l.filling.Unlock()
	if n, ok := l.popSpare(); ok { // the housekeeper was at it
		return n, nil
	}
	if err := l.makeSpare(); err != nil {
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			return 0, waitSpace(err)
		}
		return 0, err
	}
	n, _ := l.popSpare()
	return n, nil
}

func (l *Log) popSpare() (uint64, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.spares) == 0 {
		return 0, false
	}
	n := l.spares[0]
	l.spares = append(l.spares[:0], l.spares[1:]...)
	return n, true
}

// setStuck notes whether there was no space for the next segment. The caller
// holds l.mu.
func (l *Log) setStuck(stuck bool) {
	l.stuck = stuck
	l.tight.Store(l.noSpace || stuck)
}

// pollSpace looks whether the disk has room for records, and how much of it the
// log may take for the sake of others.
func (l *Log) pollSpace() {
	free, total, err := l.o.DiskFree()
	if err != nil {
		l.o.Logger.Error("ask for free disk space", "err", err)
		return
	}
	limit := l.o.MinFreeBytes
	if limit == 0 {
		limit = total / 20
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	low, full := free < limit, free < limit/2
	if low != l.low || full != l.noSpace {
		l.low, l.noSpace = low, full
		l.setStuck(l.stuck)
		l.o.Logger.Warn("disk space of the log", "low", low, "no_space", full, "free_bytes", free, "limit_bytes", limit)
	}
	if l.capBytes = l.o.SoftCapBytes; total > 0 {
		l.capBytes = min(l.capBytes, (l.logBytes+max(free, 0))/2)
	}
	l.release() // what only peers want may be too much now
}
