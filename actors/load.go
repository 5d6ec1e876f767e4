package actors

import (
	"cmp"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"pando.dev/pando/actors/client"
	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
	"pando.dev/pando/split/load"
)

const (
	// loadBytesBits is where the number of requests begins in a counter of cellLoad:
	// 16 M requests and 1 TiB may come in one window.
	loadBytesBits = 40
	// sizeLook is how often the size of a partition that is written to is looked at.
	sizeLook = 2 * time.Second
	// judgeAgain is the pause after a decision against a split, and splitAgain that
	// after one that was given up or could not begin.
	judgeAgain = 2 * time.Second
	splitAgain = 30 * time.Second
	// inheritFor is how long the load of a new partition is kept until it serves here.
	inheritFor = time.Minute
	// loadIdle is the load below which nothing is remembered any more.
	loadIdle = 0.01
)

// cellLoad counts what is asked of a replica that takes requests as master. It is
// written on every request, by any goroutine.
type cellLoad struct {
	reads, writes atomic.Uint64 // requests << loadBytesBits + bytes, since the last window
	sampling      atomic.Pointer[sampling]
}

// sampling is where the keys of requests go while they are looked at.
type sampling struct {
	mu sync.Mutex
	s  *load.Sampler // nil: nobody looks
}

// arrive counts a request and reports whether it is the first of the window.
func arrive(w *atomic.Uint64, bytes int) bool {
	return w.Add(1<<loadBytesBits|uint64(bytes))>>loadBytesBits == 1
}

// taken returns what was counted, and begins anew.
func taken(w *atomic.Uint64) (requests, bytes uint64) {
	x := w.Swap(0)
	return x >> loadBytesBits, x & (1<<loadBytesBits - 1)
}

// sample tells a key to the sample, if there is one. Who finds it busy goes on
// without: that is as good as chance, and nobody waits.
func (l *cellLoad) sample(key []byte, bytes int) {
	x := l.sampling.Load()
	if x == nil || !x.mu.TryLock() {
		return
	}
	if x.s != nil {
		x.s.Record(key, load.Weight(bytes))
	}
	x.mu.Unlock()
}

// loads follows what is asked of the partitions mastered here, and has those
// divided that their tables' policies want divided. A partition of which nothing is
// asked costs nothing: it is followed from the first request on, and forgotten when
// its load has been forgotten. All that is known is lost with the mastership.
type loads struct {
	node *Node

	wokenMu sync.Mutex
	woken   []*cell // asked of for the first time in this window

	mu        sync.Mutex
	groups    map[partition.GroupID]*groupLoad
	inherited map[partition.GroupID]inherited
	// since is from when on groups of elastic tables are known here.
	since   map[partition.GroupID]partition.Time
	merging atomic.Bool
}

// groupLoad is what is known of one partition; the mutex of loads guards it.
type groupLoad struct {
	cell    *cell
	tracker *load.Tracker
	keys    sampling
	r       partition.KeyRange
	bytes   int64
	sizedAt partition.Time

	hot       string        // why its limit is lower than its table's
	decision  load.Decision // the last that was one
	decided   time.Time
	notBefore partition.Time // when it is judged again
	beginning bool           // a split is being asked for
	failed    string         // why the last one could not begin
}

// inherited is what a partition that a split made has of its parent's load.
type inherited struct {
	tracker *load.Tracker
	at      partition.Time
}

func newLoads(n *Node) *loads {
	return &loads{node: n, groups: make(map[partition.GroupID]*groupLoad), inherited: make(map[partition.GroupID]inherited)}
}

// wrote counts a command that came for a replica, whatever becomes of it.
func (l *loads) wrote(c *cell, req *client.Request) {
	if req.Op == client.OpOpenSession {
		return
	}
	bytes := len(req.Key) + len(req.Body)
	if arrive(&c.load.writes, bytes) {
		l.wake(c)
	}
	c.load.sample(req.Key, bytes)
}

// read counts a query that came for a replica, with its answer if that is known.
func (l *loads) read(c *cell, req *client.Request, answer int) {
	bytes := len(req.Key) + len(req.Body) + answer
	if arrive(&c.load.reads, bytes) {
		l.wake(c)
	}
	c.load.sample(req.Key, bytes)
}

func (l *loads) wake(c *cell) {
	l.wokenMu.Lock()
	l.woken = append(l.woken, c)
	l.wokenMu.Unlock()
}

// run lets windows pass until the node stops.
func (l *loads) run() {
	tick, merge := time.NewTicker(load.Window), time.NewTicker(cmp.Or(l.node.cfg.coldLook, coldLook))
	defer tick.Stop()
	defer merge.Stop()
	for {
		select {
		case <-l.node.ctx.Done():
			return
		case <-tick.C:
			l.window()
		case <-merge.C:
			l.node.background.Go(l.mergeOnce)
		}
	}
}

// window ends one window of all partitions.
func (l *loads) window() {
	l.wokenMu.Lock()
	woken := l.woken
	l.woken = nil
	l.wokenMu.Unlock()
	cat, now := l.node.control.Catalog(), l.node.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range woken {
		if l.groups[c.group] == nil || l.groups[c.group].cell != c {
			l.groups[c.group] = l.follow(c, now)
		}
	}
	for id, g := range l.groups {
		if !l.pass(cat, g, now) {
			g.cell.load.sampling.Store(nil)
			delete(l.groups, id)
		}
	}
	for id, x := range l.inherited {
		if now-x.at > inheritFor {
			delete(l.inherited, id)
		}
	}
}

// follow begins to follow a partition.
func (l *loads) follow(c *cell, now partition.Time) *groupLoad {
	g := &groupLoad{cell: c, sizedAt: -sizeLook}
	g.r, _, _ = c.rangeOf()
	if x, ok := l.inherited[c.group]; ok {
		delete(l.inherited, c.group)
		g.tracker = x.tracker
		return g
	}
	g.tracker = load.NewTracker(now-load.Window, rand.Uint64())
	return g
}

// pass ends a window of one partition; false: it is not to be followed any more.
func (l *loads) pass(cat *control.Catalog, g *groupLoad, now partition.Time) bool {
	c := g.cell
	reads, readBytes := taken(&c.load.reads)
	writes, writeBytes := taken(&c.load.writes)
	v, group, table := c.view.Load(), (*control.Group)(nil), (*control.Table)(nil)
	if x, ok := cat.Group(c.group); ok {
		group = x
		table, _ = cat.TableOf(x)
	}
	if v == nil || !v.Serving || table == nil || l.node.cells.get(c.group) != c {
		return false
	}
	limits := limitsOf(table)
	limits.Load, g.hot = l.node.anomalies.hotLimit(c.group, limits.Load)
	if st := c.state.Load(); st != nil && writes > 0 && now-g.sizedAt >= sizeLook {
		g.bytes, g.sizedAt = l.sizeOf(st, g.r, limits.Size), now
	}
	g.keys.mu.Lock()
	defer g.keys.mu.Unlock()
	g.tracker.Tick(now, load.Counts{Reads: reads, Writes: writes, ReadBytes: readBytes, WriteBytes: writeBytes}, limits.Load)
	l.divided(cat, g, now)
	l.judge(cat, g, group, table, limits, now)
	g.keys.s = g.tracker.Sampler()
	if g.keys.s == nil {
		c.load.sampling.Store(nil)
	} else {
		c.load.sampling.Store(&g.keys)
	}
	return g.beginning || g.tracker.Heat() != load.Cold || g.tracker.Peak() > loadIdle || g.tracker.Rates().Units() > loadIdle
}

// sizeOf is what a partition has on disk. What it has of keys that are others' is
// left out where that decides: it goes by itself.
func (l *loads) sizeOf(st *openState, r partition.KeyRange, limit int64) int64 {
	u := st.store.Usage()
	all := u.DiskBytes + u.UnflushedBytes
	if limit <= 0 || all <= limit {
		return all
	}
	own, err := st.store.RangeBytes(replica.Rows(r))
	if err != nil {
		l.node.logger.Debug("size of a partition not known", "err", err)
		return 0
	}
	return min(own, all)
}

// divided notices that the partition has lost keys: it has the part of its load
// that remains, and those that came from it have theirs.
func (l *loads) divided(cat *control.Catalog, g *groupLoad, now partition.Time) {
	r, _, ok := g.cell.rangeOf()
	if !ok || r.Equal(g.r) {
		return
	}
	if t, open := openSplit(cat, g.cell.group); open && t.Activated == 0 {
		return // the catalog does not know yet
	}
	if t := lastSplit(cat, g.cell.group); t != nil && r.Within(g.r) {
		for i := range t.Children {
			c := &t.Children[i]
			l.inherited[c.Group] = inherited{g.tracker.Inherit(now, c.Range, rand.Uint64()), now}
		}
		l.node.background.Go(func() { l.handOver(t) })
	}
	g.tracker, g.r, g.sizedAt, g.bytes = g.tracker.Inherit(now, r, rand.Uint64()), r, now, 0
}

// lastSplit is the newest split that has divided a group, or made it; nil: none that
// is remembered.
func lastSplit(cat *control.Catalog, id partition.GroupID) (last *control.Task) {
	for _, t := range cat.Tasks() {
		if t.Kind == control.TaskSplit && t.Activated != 0 && t.Group == id {
			last = t
		}
	}
	return last
}

// limitsOf is the policy of a table.
func limitsOf(t *control.Table) load.Limits {
	p := t.Splits.WithDefaults()
	l := load.Limits{CoolDown: p.Rest, Partitions: p.Partitions}
	switch p.Mode {
	case control.SplitsAuto, control.SplitsElastic:
		l.Load = float64(p.Load)
		fallthrough
	case control.SplitsBySize:
		l.Size, l.Target = p.Size, p.Size/2
	}
	return l
}
