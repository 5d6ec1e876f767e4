package wal

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"pando.dev/pando/partition"
)

// defaults fills in what is zero.
func (o *Options) defaults(fs FS, dir string) error {
	if o.Node == "" || len(o.Node) > partition.MaxNodeIDBytes {
		return invalid("the log needs a node id of at most %d bytes, not %q", partition.MaxNodeIDBytes, o.Node)
	}
	o.SegmentBytes = or(o.SegmentBytes, 64<<20)
	if o.SegmentBytes < 64<<10 || o.SegmentBytes > maxSegmentBytes || o.SegmentBytes%pageBytes != 0 {
		return invalid("segments of %d bytes: allowed are multiples of 4 KiB from 64 KiB to 1 GiB", o.SegmentBytes)
	}
	o.Spares = or(o.Spares, 2)
	o.BatchBytes = or(o.BatchBytes, 1<<20)
	o.QueueBytes = or(o.QueueBytes, 64<<20)
	o.Gather = or(o.Gather, 50*time.Microsecond)
	o.Idle = or(o.Idle, 50*time.Millisecond)
	o.SoftCapBytes = or(o.SoftCapBytes, 4<<30)
	o.SpacePoll = or(o.SpacePoll, time.Second)
	if o.DiskFree == nil {
		o.DiskFree = func() (int64, int64, error) { return 1, 0, nil }
		if s, ok := fs.(FreeSpacer); ok {
			o.DiskFree = func() (int64, int64, error) { return s.FreeSpace(dir) }
		}
	}
	if o.Fatal == nil {
		o.Fatal = func(err error) { panic(err) }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	return nil
}

func or[T int | int64 | time.Duration](v, d T) T {
	if v == 0 {
		return d
	}
	return v
}

// Open reads the log in dir, repairs its end and makes it ready for appending.
// It creates the log if dir holds none. The caller holds the node's lock on the
// directory.
//
// It fails if the log belongs to another node (ErrWrongNode), was written by a
// newer version (CodeNewerFormat), cannot be read, or is damaged so that not
// even the names of its replicas are known (CodeCorrupt). Any other damage is
// in the Report, and concerns only the replicas that it names.
func Open(fs FS, dir string, o Options) (*Log, *Report, error) {
	if err := o.defaults(fs, dir); err != nil {
		return nil, nil, fmt.Errorf("open log %s: %w", dir, err)
	}
	l := &Log{
		fs: fs, dir: dir, o: o, groups: map[partition.GroupID]*group{}, seq: 1, capBytes: o.SoftCapBytes, syncs: syncTimes{born: time.Now()},
		work: make(chan struct{}, 1), chores: make(chan struct{}, 1), stop: make(chan struct{}),
	}
	r := &recovery{l: l, report: &Report{}, loss: map[partition.GroupID]*loss{}}
	if err := l.start(r); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open log %s: %w", dir, err), l.closeFiles())
	}
	if !o.Manual {
		l.ended.Add(1)
		l.kept.Add(1)
		go l.run()
		go l.keep()
	}
	return l, r.report, nil
}

// start reads what is there and begins a new segment.
func (l *Log) start(r *recovery) error {
	numbers, err := l.listFiles()
	if err != nil {
		return err
	}
	r.report.Fresh, r.report.Segments = len(numbers) == 0, len(numbers)
	if r.report.Fresh {
		var b [8]byte
		if _, err := io.ReadFull(l.o.Rand, b[:]); err != nil {
			return fmt.Errorf("draw a secret: %w", err)
		}
		l.secret = le.Uint64(b[:])
		l.seed = seedOf(l.secret)
	} else if err := r.run(numbers); err != nil {
		return err
	}
	l.boot = max(l.o.Incarnation, r.report.LastIncarnation+1)
	r.report.Incarnation = l.boot
	next := l.planSegment()
	if next.end > l.o.SegmentBytes/2 {
		return invalid("segments of %d bytes are too small for a state table of %d replicas", l.o.SegmentBytes, len(l.groups))
	}
	if err := l.rotate(next); err != nil {
		return err
	}
	l.pollSpace()
	return nil
}

// listFiles returns the numbers of the segments in order, takes over the spares
// that fit, and removes what a crash has left half made.
func (l *Log) listFiles() (segments []uint64, err error) {
	names, err := l.fs.List(l.dir)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		path := filepath.Join(l.dir, name)
		if filepath.Ext(name) == ".new" {
			if err := l.fs.Remove(path); err != nil {
				return nil, err
			}
			continue
		}
		n, spare, ok := parseName(name)
		switch {
		case ok && spare:
			if err := l.adoptSpare(path, n); err != nil {
				return nil, err
			}
		case ok:
			segments = append(segments, n)
		}
	}
	slices.Sort(segments)
	return segments, nil
}

// adoptSpare keeps a spare of the right size and removes any other.
func (l *Log) adoptSpare(path string, n uint64) error {
	l.spareSeq = max(l.spareSeq, n)
	f, err := l.fs.Open(path)
	if err != nil {
		return err
	}
	size, err := f.Size()
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if size != l.o.SegmentBytes {
		return l.fs.Remove(path)
	}
	l.spares = append(l.spares, n)
	return nil
}
