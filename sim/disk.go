package sim

import (
	"errors"
	"math"
	"time"

	"pando.dev/pando/internal/planted"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
	"pando.dev/pando/wal"
)

// settleAfter is how long after its last batch a log writes an empty one.
const settleAfter = 50 * time.Millisecond

// token names who is told that a write is durable.
type token struct {
	host        *host // nil: nobody
	incarnation uint64
	seq         uint64 // of the Persist; 0: the host waits for its disk before it opens
}

// nodeLog is the log of a running node: the real one, or the model.
type nodeLog interface {
	// append takes a write. It shows at once and is durable after a turn.
	append(w *wal.Write, quiet bool) error
	// turn writes what waits, n writes at least, and returns how many are durable
	// now. An error ends the process.
	turn(n int) (durable int, err error)
	// settle follows when nothing came for a while.
	settle() error
	summary(g partition.GroupID) (wal.Summary, bool)
	// read reads records, at least one and perhaps not all, as many as have most bytes.
	read(g partition.GroupID, from, to partition.Index, most int) ([]partition.Record, error)
	// let says what the state has flushed and what peers want; it may let go of
	// what nobody needs, and returns where the log begins then.
	let(g partition.GroupID, flushed, retain partition.Index, generation uint32) partition.Index
}

// pendingWrite was given to the log and is not known to be durable.
type pendingWrite struct {
	w     wal.Write
	quiet bool
	t     token
}

// disk is what a node's process leaves behind when it ends, and what the checkers
// know of it.
type disk struct {
	w    *world
	id   int    // for chances: the disk's, wherever it is
	boot uint64 // the boot number on it
	log  nodeLog
	real *realDisk // nil: the model
	// platter is what is durable, per group; seen what the running process takes
	// for its log.
	platter, seen []image
	sure          []partition.Index // what must come back after a crash, per group
	pending       []pendingWrite
	inflight      int // of pending, in the batch under way
	syncing       bool
	syncs         uint64
	states        []*state
	staged        []*staged             // copies that count when the log says so
	dropped       []partition.ReplicaID // the last that was deleted, per group
	// suspects are the replicas that must stay silent, per group.
	suspects []partition.ReplicaID
	harmed   bool // it was ever damaged, wiped, swapped or put back: only then may a replica be lost
	hit      bool // files of its log were damaged, which not every group may have noticed
	rolled   bool // it is an old copy, and that is not known yet

	full    bool           // no space
	slow    partition.Time // every sync takes that much longer
	stalled partition.Time // no sync returns before
	failing bool           // the next sync fails
	truth   []image        // what is really durable, while syncs do nothing
	deaf    bool           // reads fail
	fatal   error          // the log has failed
}

func newDisk(w *world, id int) *disk {
	n := len(w.groups)
	d := &disk{w: w, id: id, platter: make([]image, n), seen: make([]image, n), states: make([]*state, n), staged: make([]*staged, n), dropped: make([]partition.ReplicaID, n), sure: make([]partition.Index, n), suspects: make([]partition.ReplicaID, n)}
	if w.k.RealLog {
		d.real = newRealDisk(d)
	}
	return d
}

var errNoSpace = partition.Errorf(partition.CodeNoSpace, "the disk is full")

// append gives a write to the log.
func (d *disk) append(n *node, w *wal.Write, quiet bool, t token) error {
	if d.full && (len(w.Records) > 0 || w.Snip) {
		return errNoSpace
	}
	if err := d.log.append(w, quiet); err != nil {
		return err
	}
	d.seen[w.Group-1].apply(w)
	d.checkInstall(w)
	if t.host != nil && t.seq != 0 && d.w.plan.Planted.Has(planted.PersistedWritten) {
		t.host.event(replica.Persisted{Seq: t.seq})
		t.host = nil
	}
	d.pending = append(d.pending, pendingWrite{w: *w, quiet: quiet, t: t})
	switch {
	case d.syncing:
	case quiet:
		if len(d.pending) == 1 {
			d.w.eng.after(settleAfter, evSettle, n.ord).life = n.life
		}
	default:
		d.startSync(n)
	}
	return nil
}

// checkInstall compares what the log ends with behind a copy with what it may: a tail
// of its own only if that continues the copy.
func (d *disk) checkInstall(w *wal.Write) {
	if w.Install == nil {
		return
	}
	must, _ := d.seen[w.Group-1].end()
	if sum, ok := d.log.summary(w.Group); !ok || sum.End != must {
		d.w.violate("log", "disk %d: with a copy of %s at %s the log ends at %s, not at %s", d.id, w.Group, w.Install.Base, sum.End, must)
	}
}

// startSync begins a batch with everything that waits.
func (d *disk) startSync(n *node) {
	d.syncing, d.inflight = true, len(d.pending)
	d.syncs++
	took := between(d.w.rnd.two(onSync, uint64(d.id), d.syncs), d.w.k.SyncMin, d.w.k.SyncMax) + d.slow
	at := max(d.w.eng.now+took, d.stalled)
	d.w.eng.at(at, evSynced, n.ord).life = n.life
}

// synced ends the batch under way.
func (d *disk) synced(n *node) {
	if d.stalled > d.w.eng.now {
		d.w.eng.at(d.stalled, evSynced, n.ord).life = n.life
		return
	}
	if len(d.pending) == 0 {
		d.syncing = false // it was written meanwhile
		return
	}
	if d.failing && d.real != nil {
		d.failing, d.real.fail = false, true // the log has to notice
	}
	if d.failing {
		d.failing = false
		d.fatal = errors.New("a sync failed")
		n.processEnds("a sync failed")
		return
	}
	durable, err := d.log.turn(d.inflight)
	if err == nil && durable == 0 {
		d.stalled = d.w.eng.now + retryAfter // no room for a new segment
		d.w.eng.at(d.stalled, evSynced, n.ord).life = n.life
		return
	}
	if err != nil {
		d.fatal = err
		n.processEnds("the log failed")
		return
	}
	d.syncing = false
	done := d.settled(durable)
	if len(d.pending) > 0 && d.awaited() {
		d.startSync(n)
	} else {
		d.w.eng.after(settleAfter, evSettle, n.ord).life = n.life
	}
	n.written(done)
}

// awaited reports whether anybody waits for what is pending.
func (d *disk) awaited() bool {
	for i := range d.pending {
		if !d.pending[i].quiet {
			return true
		}
	}
	return false
}

// settled moves what is durable to the platters and returns whom to tell. It is
// valid until the next call.
func (d *disk) settled(durable int) []token {
	d.w.tokens = d.w.tokens[:0]
	i := 0
	for ; i < durable; i++ {
		p := &d.pending[i]
		d.platter[p.w.Group-1].apply(&p.w)
		if p.t.host != nil {
			d.w.tokens = append(d.w.tokens, p.t)
		}
	}
	rest := copy(d.pending, d.pending[i:])
	clear(d.pending[rest:])
	d.pending = d.pending[:rest]
	d.inflight = 0
	return d.w.tokens
}

// idle lets the log settle, unless it has work.
func (d *disk) idle(n *node) {
	if d.syncing {
		return
	}
	if len(d.pending) > 0 {
		d.startSync(n)
		return
	}
	if err := d.log.settle(); err != nil {
		d.fatal = err
		n.processEnds("the log failed")
	}
}

// let tells the log what it may let go of.
func (d *disk) let(g partition.GroupID, flushed, retain partition.Index, generation uint32, cut bool) (first partition.Index) {
	p, s := &d.platter[g-1], &d.seen[g-1]
	p.flushed, s.flushed = max(p.flushed, flushed), max(s.flushed, flushed)
	if !cut {
		retain = 1
	}
	if retain == 0 {
		retain = math.MaxUint64
	}
	if generation > 0 { // who keeps the log only goes by what the master says that all have
		retain = min(retain, d.w.least(int(g-1))+1)
	}
	first = d.log.let(g, flushed, retain, generation)
	p.cut(min(first, p.commit+1))
	if d.truth != nil {
		d.truth[g-1].cut(first)
	}
	s.cut(first)
	return first
}

// open starts the log of a new process on what the last one left.
func (d *disk) open() error {
	d.pending, d.inflight, d.syncing, d.fatal = nil, 0, false, nil
	if d.real != nil {
		return d.real.open()
	}
	for i := range d.platter {
		d.seen[i] = d.platter[i].clone()
	}
	d.log = (*modelLog)(d)
	return nil
}

// adopt notes that what a new process found is durable: the log sees to that before
// it shows anything.
func (d *disk) adopt() {
	for gi := range d.platter {
		d.platter[gi] = d.seen[gi].clone()
	}
}

// crash ends the process that had the log. Of what was not synced a random first
// part survives, the last of it perhaps in parts. Power says that the power went,
// and not only the process.
func (d *disk) crash(power bool) {
	for _, s := range d.states {
		if s != nil {
			s.crash()
		}
	}
	for gi := range d.platter {
		d.sure[gi] = 0
		if d.platter[gi].replica != 0 {
			d.sure[gi] = d.platter[gi].last()
		}
	}
	for i := range d.pending {
		if w := &d.pending[i].w; w.Snip {
			d.sure[w.Group-1] = min(d.sure[w.Group-1], w.After)
		}
	}
	switch {
	case d.log == nil:
		return
	case d.real != nil:
		d.real.crash(power)
	default:
		(*modelLog)(d).crash()
	}
	d.truth = nil
	d.log, d.pending, d.syncing, d.inflight = nil, nil, false, 0
}

// least is the end of the shortest log of a group: as long as nothing is copied,
// nobody may let go of what another one lacks.
func (w *world) least(gi int) partition.Index {
	least := partition.Index(math.MaxUint64 - 1)
	for _, n := range w.nodes {
		if m := &n.disk.platter[gi]; m.replica != 0 && n.intact(gi, m.replica) {
			least = min(least, m.last())
		}
	}
	return least
}

// read reads records from the log.
func (d *disk) read(g partition.GroupID, from, to partition.Index, most int) ([]partition.Record, error) {
	if d.deaf {
		return nil, errors.New("the disk does not read")
	}
	return d.log.read(g, from, to, most)
}

// forget deletes what there is of a replica.
func (d *disk) forget(gi int) {
	if d.real != nil && d.log != nil {
		d.real.drop(partition.GroupID(gi + 1))
	}
	d.dropped[gi], d.sure[gi] = d.platter[gi].replica, 0
	d.platter[gi], d.seen[gi], d.states[gi], d.staged[gi] = image{}, image{}, nil, nil
	rest := d.pending[:0]
	for i := range d.pending {
		if p := &d.pending[i]; int(p.w.Group-1) == gi {
			p.w, p.t.host = wal.Write{Group: p.w.Group}, nil
		}
		rest = append(rest, d.pending[i])
	}
	d.pending = rest
}
