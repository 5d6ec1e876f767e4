package wal

import (
	"iter"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"pando.dev/pando/internal/planted"
	"pando.dev/pando/partition"
)

// Log is the one log of a node. All methods may be called from any goroutine;
// the writes of one group come from one goroutine at a time.
type Log struct {
	fs     FS
	dir    string
	o      Options
	secret uint64 // in every header and trailer of this log
	seed   uint32 // of the batch checksums
	boot   uint64 // the incarnation in the headers that are written now

	// mu guards everything below, and all groups, segments and batches, except
	// for a closed batch that the committer writes. It is never held over I/O.
	// What every append changes stands first, so that few cache lines wander.
	mu      sync.Mutex
	asleep  bool        // the committer waits for a token
	low     bool        // too little of the disk is free for new work
	noSpace bool        // and for records that others have taken already
	stuck   bool        // there was no space for the next segment
	tight   atomic.Bool // noSpace or stuck; read without the lock
	closing bool
	closed  bool
	queued  int          // bytes in queue
	writes  atomic.Int64 // appends in queue; read without the lock
	open    *batch       // the last in queue, while it takes writes
	err     error        // the log is poisoned
	groups  map[partition.GroupID]*group
	// rowBytes bounds the size of a state table. It grows with what is added,
	// and is made exact by every new table.
	rowBytes int
	// segments are all of the log, oldest first; those behind active are
	// planned but have no file yet.
	segments []*segment
	active   uint64
	logBytes int64
	capBytes int64 // the soft cap, as far as the disk allows it
	// seq is the number of the next batch. queue holds the batches that are not
	// yet durable, oldest first; idle are buffers to be used again.
	seq   uint64
	queue []*batch
	idle  []*batch
	// echoes are those of the last closed batches of this segment, newest last.
	echoes []echo
	// dirty are the groups whose progress moved since it was last written.
	dirty []*group
	// voided is the number of the newest batch that makes records void; 0 if all
	// such are durable. Until then no segment goes: after a crash its records
	// might still count.
	voided uint64
	// unproven: no valid batch follows the last that held anything.
	unproven bool
	// released are segments to be renamed to spares; spares are the numbers of
	// the files that are ready.
	released []*segment
	spares   []uint64
	spareSeq uint64
	stats    Stats
	syncs    syncTimes

	// owed, ahead and replayed belong to planted bugs: a file whose sync was not
	// waited for, the batch that was written too early, and the segment whose
	// batches a start has taken for durable. Only the committer has them.
	owed     File
	ahead    uint64
	replayed *segment

	// filling is held while a spare is made.
	filling sync.Mutex

	// work and chores wake the committer and the housekeeper; each holds one
	// token.
	work, chores chan struct{}
	stop         chan struct{}  // closed when both are to end
	ended, kept  sync.WaitGroup // committer and housekeeper
}

// Append takes w into the log. It copies, and does not wait for the disk (a
// Snip may read one record). When it returns nil, Summary and Read show w, and
// done, unless nil, is called exactly once, from the committer goroutine: with
// nil when w and everything appended before it are durable, or with an error
// that wraps ErrPoisoned when that will never be known. The calls come in the
// order of the appends; done must not block, and may call Append.
//
// On an error nothing was taken and done is not called: ErrNoSpace, ErrBusy,
// ErrPoisoned, ErrClosed, CodeTooLarge, CodeInvalid (a gap, a promise that goes
// back, a snip of committed records) or CodeCorrupt (the group is quarantined).
func (l *Log) Append(w Write, done func(error)) error {
	var seen look
	var err error
	switch {
	case w.Snip:
		seen.cut, err = l.cutAt(w.Group, w.After)
	case w.Install != nil:
		seen.holds, err = l.holds(w.Group, w.Install)
		seen.holds = seen.holds || l.o.Planted.Has(planted.InstallKeepsAny)
	}
	if err != nil {
		return err
	}
	l.mu.Lock()
	wake, err := l.append(&w, seen, done)
	l.mu.Unlock()
	if wake {
		l.wake()
	}
	return err
}

// look is what was read from the log before a write that depends on it.
type look struct {
	cut   *cut // with a snip that removes something
	holds bool // the log has the record at an install's base
}

// cut is the log's end after a snip.
type cut struct {
	end partition.Position
	sum uint32
}

// cutAt finds what the log's end will be when the records behind after are
// removed; nil if there are none. The checksum of the new last record is in the
// record behind it.
func (l *Log) cutAt(g partition.GroupID, after partition.Index) (*cut, error) {
	l.mu.Lock()
	x := l.groups[g]
	if x == nil || x.damage != nil || after >= x.end.Index || after < x.before.Index {
		l.mu.Unlock()
		return nil, nil // append says what is wrong, if anything is
	}
	epoch, _ := x.epochAt(after)
	l.mu.Unlock()
	next, err := l.Read(g, after+1, after+1, 1)
	if err != nil {
		return nil, err
	}
	return &cut{end: partition.Position{Epoch: epoch, Index: after}, sum: next[0].Prev()}, nil
}

// holds reports whether the log has the record at an install's base, or ends
// or begins with it.
func (l *Log) holds(g partition.GroupID, n *Install) (bool, error) {
	have, err := l.place(g, n.Base.Index)
	switch partition.CodeOf(err) {
	case 0:
		return have.Base == n.Base && have.BaseSum == n.BaseSum, nil
	case partition.CodeNotFound, partition.CodeCorrupt:
		return false, nil // of a damaged log append says so
	}
	return false, err
}

// BaseAt describes the place behind the record at index i as what another log
// can begin with: the record's epoch and checksum, and the configuration in
// force there. Generation is left to the caller. CodeNotFound if the log does
// not have the record, nor begins right behind it, or does not know any more
// which configuration was in force.
func (l *Log) BaseAt(g partition.GroupID, i partition.Index) (Install, error) {
	n, err := l.place(g, i)
	if err == nil && n.Configuration == nil {
		err = partition.Errorf(partition.CodeNotFound, "%s: the log has forgotten the configuration in force at %d", g, i)
	}
	if err != nil {
		return Install{}, err
	}
	return n, nil
}

// place is BaseAt, with or without a configuration.
func (l *Log) place(g partition.GroupID, i partition.Index) (Install, error) {
	l.mu.Lock()
	x := l.groups[g]
	if x == nil || x.damage != nil {
		l.mu.Unlock()
		_, _, err := l.entryOf(g, i)
		return Install{}, err
	}
	epoch, ok := x.epochAt(i)
	n := Install{Base: partition.Position{Epoch: epoch, Index: i}, BaseSum: x.endSum, Configuration: x.configAt(i)}
	last := i == x.end.Index
	l.mu.Unlock()
	if i == 0 || !ok {
		return Install{}, partition.Errorf(partition.CodeNotFound, "%s: record %d is not in the log", g, i)
	}
	if last {
		return n, nil
	}
	next, err := l.Read(g, i+1, i+1, 1)
	if err != nil {
		return Install{}, err
	}
	n.BaseSum = next[0].Prev()
	return n, nil
}

// append is Append under the lock; wake tells to wake the committer.
func (l *Log) append(w *Write, c look, done func(error)) (wake bool, err error) {
	if err := l.refuses(len(w.Records) > 0 || w.Install != nil, w.Reserve); err != nil {
		return false, err
	}
	g := l.groups[w.Group]
	n, err := check(g, w, c)
	if err != nil {
		return false, err
	}
	if g == nil {
		if err := l.admits(); err != nil {
			return false, err
		}
	}
	if n.bytes == 0 && done == nil {
		l.progress(g, w.Commit, 0)
		return false, nil
	}
	b, err := l.room(n)
	if err != nil {
		return false, err
	}
	if g == nil {
		g = &group{id: w.Group, hard: HardState{Generation: w.Generation}}
		l.groups[w.Group] = g
		l.rowBytes += g.rowBound()
	}
	l.apply(b, g, w, c.cut, n)
	if c.cut != nil || w.Install != nil {
		l.voided = b.seq
		l.segments[0].cleared = 0 // what was flushed need not be any more
	}
	return l.enqueue(b, done), nil
}

// enqueue counts one write into b.
func (l *Log) enqueue(b *batch, done func(error)) (wake bool) {
	if done != nil {
		b.done = append(b.done, done)
	}
	b.writes++
	l.writes.Add(1)
	wake, l.asleep = l.asleep, false
	return wake
}

// took counts bytes put into b.
func (l *Log) took(b *batch, bytes int) {
	b.bytes += bytes
	l.queued += bytes
}

// refuses returns why the log takes nothing now, or nil. Records are refused
// when the disk is nearly full, unless they may use the reserve; a promise is not,
// since its blocks exist.
func (l *Log) refuses(records, reserve bool) error {
	switch {
	case l.err != nil:
		return refusedPoisoned(l.err)
	case l.closing:
		return &partition.Error{Code: partition.CodeClosed, Why: "the log is closed"}
	case (l.noSpace && !reserve || l.stuck) && records:
		l.o.point(AtNoSpace)
		return &partition.Error{
			Code: partition.CodeNoSpace, Why: "the log's disk is nearly full",
			Next: "free space; the node goes on by itself",
		}
	}
	return nil
}

// admits refuses a further replica when the state tables would take more than a
// quarter of each segment.
func (l *Log) admits() error {
	if int64(l.rowBytes+itemHead+rowBytes) > l.o.SegmentBytes/4 {
		return partition.Errorf(partition.CodeTooLarge, "%d replicas are too many for segments of %d bytes",
			len(l.groups), l.o.SegmentBytes)
	}
	return nil
}

// apply encodes w into b, which has room, and takes it into the group.
func (l *Log) apply(b *batch, g *group, w *Write, c *cut, n amount) {
	start := b.items
	if w.Commit > g.hard.Commit {
		g.hard.Commit = w.Commit
		l.soil(g)
	}
	if n.state {
		g.hard.Replica = max(g.hard.Replica, w.Replica)
		g.hard.Promise = max(g.hard.Promise, w.promise())
		b.buf = appendState(b.buf, g.id, g.hard)
		b.items++
	}
	bound := 0
	if n.config {
		bound = g.rowBound()
	}
	if w.Install != nil {
		b.buf = appendInstall(b.buf, g.id, g.hard.Replica, w.Install, n.keep)
		b.items++
		g.install(w.Install, n.keep)
		if l.o.Planted.Has(planted.InstallForgetsPromise) {
			g.hard.Promise = w.Install.Base.Epoch
		}
		if n.keep {
			l.o.point(AtInstallKept)
		} else {
			l.o.point(AtInstallVoided)
		}
	}
	if c != nil {
		if !l.o.Planted.Has(planted.SnipLost) {
			b.buf = appendSnip(b.buf, g.id, c.end, c.sum)
			b.items++
		}
		g.snip(c.end, c.sum)
		l.o.point(AtSnipped)
	}
	at := place{seg: b.seg, batch: uint32(b.off)}
	for _, r := range w.Records {
		at.off = uint32(b.off) + uint32(len(b.buf))
		b.buf = append(b.buf, r...)
		g.add(r, at)
	}
	b.items += uint32(len(w.Records))
	if n.config {
		l.rowBytes += max(0, g.rowBound()-bound)
	}
	b.records += len(w.Records)
	b.recordBytes += n.records
	l.took(b, n.bytes)
	b.touch(g, b.items-start)
}

// progress takes over a commit or flushed index, to be written some time.
func (l *Log) progress(g *group, commit, flushed partition.Index) {
	if g == nil || commit <= g.hard.Commit && flushed <= g.hard.Flushed {
		return
	}
	g.hard.Flushed = max(g.hard.Flushed, flushed)
	g.hard.Commit = max(g.hard.Commit, commit, flushed)
	l.soil(g)
}

// soil marks the group's progress to be written.
func (l *Log) soil(g *group) {
	if !g.dirty {
		g.dirty = true
		l.dirty = append(l.dirty, g)
		if l.asleep && len(l.dirty) == 1 {
			l.asleep = false
			l.wake() // to start the idle timer
		}
	}
}

// SetFlushed says that g's state has every record up to index on disk, in the
// given generation. It causes no sync of its own and lets segments go. Of a
// generation that does not count, because it does not yet or no longer, nothing
// is taken. Generation 0 is for a replica without a state: nobody needs its
// records up to index, which are known to be committed.
func (l *Log) SetFlushed(g partition.GroupID, index partition.Index, generation uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	x := l.groups[g]
	if x == nil || index > x.end.Index || generation != x.hard.Generation {
		return
	}
	l.progress(x, 0, index)
	if l.isPin(g) {
		l.release()
	}
}

// Retain says that peers still want g's records from from on. It keeps them as
// long as the log is under its soft cap. Zero: nobody wants any.
func (l *Log) Retain(g partition.GroupID, from partition.Index) {
	l.mu.Lock()
	defer l.mu.Unlock()
	x := l.groups[g]
	if x == nil {
		return
	}
	x.retain = from
	if l.isPin(g) {
		l.release()
	}
}

// Drop forgets a replica. done is as in Append.
func (l *Log) Drop(g partition.GroupID, done func(error)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.refuses(false, false); err != nil {
		return err
	}
	x := l.groups[g]
	if x == nil {
		return partition.Errorf(partition.CodeNotFound, "the log holds nothing of %s", g)
	}
	b, err := l.room(amount{bytes: itemHead})
	if err != nil {
		return err
	}
	l.o.point(AtDropped)
	if !l.o.Planted.Has(planted.DropLost) {
		b.buf = appendItem(b.buf, g, kindDrop)
		b.items++
	}
	l.took(b, itemHead)
	x.end = partition.Position{}
	b.touch(x, 1)
	delete(l.groups, g)
	l.voided = b.seq
	l.dirty = slices.DeleteFunc(l.dirty, func(d *group) bool { return d == x })
	if l.enqueue(b, done) {
		l.wake()
	}
	return nil
}

// Summary returns what the log holds of g, and false if it holds nothing.
func (l *Log) Summary(g partition.GroupID) (Summary, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	x := l.groups[g]
	if x == nil {
		return Summary{}, false
	}
	return x.summary(), true
}

// Groups yields every replica in the log, in the order of the groups, as they
// were at the start of the iteration.
func (l *Log) Groups() iter.Seq2[partition.GroupID, HardState] {
	return func(yield func(partition.GroupID, HardState) bool) {
		l.mu.Lock()
		ids := slices.Sorted(maps.Keys(l.groups))
		states := make([]HardState, len(ids))
		for i, id := range ids {
			states[i] = l.groups[id].hard
		}
		l.mu.Unlock()
		for i, id := range ids {
			if !yield(id, states[i]) {
				return
			}
		}
	}
}

// Full reports whether the disk is too full for new work. A host asks before it
// takes on what it could only wait for. Records are refused with ErrNoSpace only
// when half of Options.MinFreeBytes is left: what a master has taken before it
// heard of its full disk must still find room on the disks of its peers.
func (l *Log) Full() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.low || l.noSpace || l.stuck
}

// NoSpace reports whether records without Write.Reserve are refused. It is cheap:
// a host asks before each message that would bring records.
func (l *Log) NoSpace() bool { return l.tight.Load() }

// Stats returns the log's counters.
func (l *Log) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.stats
	s.Segments, s.Spares, s.LogBytes, s.CapBytes = len(l.segments), len(l.spares), l.logBytes, l.capBytes
	s.QueuedBytes, s.NoSpace, s.Poisoned = l.queued, l.noSpace || l.stuck, l.err != nil
	s.Groups = len(l.groups)
	for _, g := range l.groups {
		if g.damage != nil {
			s.Quarantined++
		}
	}
	s.Pinned = l.logBytes > l.capBytes/2 && l.segments[0].number+1 < l.active && len(l.pins(1)) > 0
	return s
}
