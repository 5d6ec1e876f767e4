package sim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"pando.dev/pando/partition"
	"pando.dev/pando/sim/fault"
	"pando.dev/pando/wal"
	"pando.dev/pando/wal/memfs"
)

const (
	logDir = "wal"
	// segmentBytes is small, so that a run sees many rotations.
	segmentBytes  = 64 << 10
	segmentSuffix = ".wal"
	newSuffix     = ".new" // of a spare that is being made
)

// realDisk has the real log on a file system in memory.
type realDisk struct {
	d    *disk
	fs   *memfs.FS
	log  *wal.Log
	done int   // writes reported durable since the last look
	err  error // that the log has failed with
	note func(error)
	lose bool // the power goes in the next sync
	fail bool // the next sync fails

	again int // damaged records met since it was opened
	// newest is the name under which the last file of the log was opened, and tail
	// where the last two batches in it begin, the newer one first; 0: nowhere.
	newest string
	tail   [2]int64
}

var _ nodeLog = (*realDisk)(nil)

// errSync is what a disk says whose sync failed: of what it was for some may be on
// it, and the next one says nothing of that.
var errSync = errors.New("the sync failed")

func newRealDisk(d *disk) *realDisk {
	r := &realDisk{d: d, fs: memfs.New(d.w.rnd.two(onDamage, uint64(d.id), 0))}
	r.note = func(err error) {
		if err != nil {
			r.err = err
			return
		}
		r.done++
	}
	return r
}

// secret is where the log draws its secret from.
type secret uint64

func (s *secret) Read(b []byte) (int, error) {
	for i := 0; i < len(b); i += 8 {
		*s = secret(mix(uint64(*s)))
		var x [8]byte
		binary.LittleEndian.PutUint64(x[:], uint64(*s))
		copy(b[i:], x[:])
	}
	return len(b), nil
}

var _ io.Reader = (*secret)(nil)

// open opens the log, and takes from it what a process sees.
func (r *realDisk) open() error {
	d := r.d
	r.done, r.err, r.lose, r.fail, r.again = 0, nil, false, false, 0
	r.fs.OnOp(r.hook)
	seed := secret(d.w.rnd.two(onDamage, uint64(d.id), 1))
	size := int64(d.w.k.SegmentBytes)
	if size == 0 {
		size = segmentBytes
	}
	who := partition.NodeID(fmt.Sprintf("disk%d", d.id))
	log, report, err := wal.Open(r.fs, logDir, wal.Options{
		Node: who, Incarnation: d.boot, SegmentBytes: size, Manual: true, Rand: &seed, Fatal: func(err error) { r.err = err },
		BatchBytes: []int{0, 512, 1}[d.w.rnd.two(onDamage, uint64(d.id), 2)%3],
		Planted:    d.w.plan.Planted, Point: func(p wal.Point) { r.point(p) },
	})
	if err != nil {
		return err
	}
	r.log, d.log = log, r
	for gi := range d.seen { // as long as nothing is copied; see world.least
		log.Retain(partition.GroupID(gi+1), d.w.least(gi)+1)
	}
	if report.Rot {
		d.w.mark("sim.rot_found")
	}
	for gi := range d.seen {
		if err := r.look(gi); err != nil {
			return err
		}
	}
	return nil
}

// look reads what the log has of a group, which is on the platter too by now.
func (r *realDisk) look(gi int) error {
	d := r.d
	d.seen[gi] = image{}
	sum, ok := r.log.Summary(partition.GroupID(gi + 1))
	if !ok {
		if d.platter[gi].replica != 0 && d.platter[gi].damage == nil {
			return fmt.Errorf("the replica of g%d is gone", gi+1)
		}
		return nil
	}
	m := image{
		replica: sum.Replica, generation: sum.Generation, promise: sum.Promise, commit: sum.Commit, flushed: sum.Flushed,
		first: sum.First, before: sum.Before, damage: sum.Damage,
	}
	if sum.Damage == nil {
		for i := sum.First; i <= sum.Last; {
			recs, err := r.log.Read(partition.GroupID(gi+1), i, sum.Last, 1<<20)
			if err != nil {
				return r.damaged(gi, sum.First, err)
			}
			m.recs = append(m.recs, recs...)
			i += partition.Index(len(recs))
		}
		if len(m.recs) > 0 {
			m.beforeSum = m.recs[0].Prev()
		} else {
			m.beforeSum = sum.LastSum
		}
		for _, rec := range sum.Configurations {
			m.note(rec)
		}
	}
	d.seen[gi] = m
	return nil
}

// point is told where the log of whatever node has the disk comes by.
func (r *realDisk) point(p wal.Point) {
	for _, n := range r.d.w.nodes {
		if n.disk == r.d {
			r.d.w.points.reached(n, r.d.w.points.wal+int(p))
		}
	}
}

// damaged looks again after a record was found damaged: by now the log has drawn
// its conclusions, that it begins later or that the replica is quarantined.
func (r *realDisk) damaged(gi int, first partition.Index, err error) error {
	sum, ok := r.log.Summary(partition.GroupID(gi + 1))
	if r.again++; ok && r.again < 1000 && (sum.Damage != nil || sum.First > first) {
		return r.look(gi)
	}
	if !r.d.hit {
		return err
	}
	// The log says that it has the record and does not read it. Nothing tells the
	// host, so here the replica is taken out.
	r.d.w.mark("sim.damage_unnoticed")
	r.d.suspects[gi] = sum.Replica
	r.d.seen[gi] = r.d.platter[gi].clone()
	return nil
}

func (r *realDisk) hook(o memfs.Op) error {
	switch { // a spare gets a name of the log's, then batches follow in it
	case o.Kind == memfs.Rename && !strings.HasSuffix(o.Name, segmentSuffix) && !strings.HasSuffix(o.Name, newSuffix):
		r.newest, r.tail = o.Name, [2]int64{}
	case o.Kind == memfs.Write && o.Name == r.newest:
		r.tail = [2]int64{o.Off, r.tail[0]}
	}
	switch {
	case o.Kind != memfs.Sync:
	case r.lose:
		return memfs.ErrPowerLoss
	case r.fail:
		r.fail = false
		return errSync
	}
	return nil
}

func (r *realDisk) append(w *wal.Write, quiet bool) error {
	if quiet {
		return r.log.Append(*w, nil)
	}
	return r.log.Append(*w, r.note)
}

func (r *realDisk) turn(int) (durable int, err error) {
	for r.log.Turn() && r.err == nil {
	}
	n := len(r.d.pending)
	if r.err == nil && r.log.Stats().QueuedBytes > 0 {
		// There was no room for all of it. What nobody waits for counts when the next
		// thing does.
		n = 0
		for i := range r.d.pending {
			if r.done > 0 && !r.d.pending[i].quiet {
				r.done--
				n = i + 1
			}
		}
	}
	r.done = 0
	return n, r.err
}

// drop forgets a replica for good, at once.
func (r *realDisk) drop(g partition.GroupID) {
	if err := r.log.Drop(g, nil); err != nil {
		r.d.w.violate("log", "disk %d does not drop %s: %v", r.d.id, g, err)
	}
	for r.log.Turn() && r.err == nil {
	}
}

func (r *realDisk) settle() error {
	r.log.Settle()
	return r.err
}

func (r *realDisk) summary(g partition.GroupID) (wal.Summary, bool) { return r.log.Summary(g) }

func (r *realDisk) read(g partition.GroupID, from, to partition.Index, most int) ([]partition.Record, error) {
	return r.log.Read(g, from, to, most)
}

func (r *realDisk) let(g partition.GroupID, flushed, retain partition.Index, generation uint32) partition.Index {
	if retain == ^partition.Index(0) {
		retain = 0
	}
	r.log.Retain(g, retain)
	r.log.SetFlushed(g, flushed, generation)
	if sum, ok := r.log.Summary(g); ok {
		return sum.First
	}
	return 1
}

// crash leaves what a process leaves that was killed, or, with power, what is on
// the platters, perhaps in the middle of a write.
func (r *realDisk) crash(power bool) {
	d := r.d
	h := d.w.rnd.two(onCrash, uint64(d.id), d.syncs)
	if h%2 == 0 && len(d.pending) > 0 && r.err == nil {
		r.lose = true // what waits was written, and the sync did not return
		r.log.Turn()
	}
	if power {
		keep := []float64{0, 1, 0.5, 0.9}[pick(h>>8, 4)]
		r.fs.CrashHere(mix(h), keep)
	}
	r.log = nil // what it had open it does not use again
	for gi := range d.seen {
		d.seen[gi] = image{}
	}
}

// damage changes the files of a log that nobody has open.
func (r *realDisk) damage(f *Fault) {
	names, err := r.fs.List(logDir)
	if err != nil {
		return
	}
	var logs []string
	for _, name := range names {
		if strings.HasSuffix(name, segmentSuffix) {
			logs = append(logs, logDir+"/"+name)
		}
	}
	if len(logs) == 0 {
		return
	}
	const page = 4096
	h := mix(f.Arg)
	name := logs[len(logs)-1-pick(h, min(2, len(logs)))]
	b, err := r.fs.ReadFile(name)
	if err != nil {
		return
	}
	pages := len(b) / page
	p := pick(h>>8, pages)
	switch f.Class {
	case fault.FlipLog:
		if f.For == 0 {
			end := len(b) - page
			if name == logs[len(logs)-1] {
				end = r.proven(end)
			}
			r.rot(name, b[:end], 2*page, h) // behind the header and the state table
			return
		}
		if err := r.fs.Flip(name, int64(h>>16)%int64(len(b)), 1<<(h>>60&7)); err != nil {
			r.d.w.violate("log", "%v", errors.Join(err))
		}
		return
	case fault.Misdirect:
		copy(b[pick(h>>24, pages)*page:][:page], b[p*page:][:page])
	case fault.LostWrite:
		clear(b[p*page:][:page])
	case fault.CutFile:
		b = b[:len(b)-pick(h>>24, len(b))]
	}
	r.fs.WriteFile(name, b)
}

// proven is up to where the last file of the log holds what later writes prove, at
// most end. The last batch and the empty one behind it, which proves that it was
// synced, are not: what is damaged in both cannot be told from a torn write, and the
// guarantees say so.
func (r *realDisk) proven(end int) int {
	for _, off := range r.tail {
		if off > 0 {
			end = min(end, int(off))
		}
	}
	return end
}

// rot flips bits here and there in what a file of the log holds, more in what was
// written last. No start comes to read all of it and find them, so it takes several
// until one is in a record that somebody wants. A log all of whose state tables are
// damaged does not open at all, which is right, and shows nothing: they are spared.
func (r *realDisk) rot(name string, b []byte, from int, h uint64) {
	var held []int
	for i := from; i < len(b); i++ {
		if b[i] != 0 {
			held = append(held, i)
		}
	}
	if h>>8%2 == 0 {
		held = held[len(held)/2:]
	}
	if len(held) == 0 {
		return
	}
	for range 1 << (h >> 16 % 6) {
		h = mix(h)
		if err := r.fs.Flip(name, int64(held[pick(h, len(held))]), 1<<(h>>60&7)); err != nil {
			r.d.w.violate("log", "%v", err)
		}
	}
}
