package replica

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"pando.dev/pando/internal/planted"
	"pando.dev/pando/partition"
)

// node is a simulated host of one replica.
type node struct {
	w      *world
	id     partition.ReplicaID
	name   partition.NodeID
	up     bool
	paused bool
	boot   int
	offset partition.Time
	rate   float64

	disk disk
	rep  *Replica
	view *View

	state, flushed *mapState
	exec           *Executor
	results        map[uint64]Result // by proposal
	inbox          []Input           // while paused
	alarm          int
	stalled        bool // the disk does not answer
	crashing       bool
	control        partition.Time // when the last question to the control group arrives
	logOnly        bool           // it keeps no state
	gone           bool           // its replica was deleted

	unreachable map[partition.NodeID]bool
	met         map[partition.NodeID]int            // incarnations
	given       map[partition.NodeID]partition.Time // grants, on the own clock
	floor       partition.Epoch                     // grants count from this epoch on
	held        map[partition.NodeID][]heldGrant
}

// heldGrant is a grant of an incarnation of another node that counts in epochs
// from floor on.
type heldGrant struct {
	boot  int
	floor partition.Epoch
	until partition.Time
}

// local is the node's own clock.
func (n *node) local() partition.Time {
	return n.offset + partition.Time(float64(n.w.now)*n.rate)
}

// ahead converts a time on the node's clock to a true delay from now.
func (n *node) ahead(at partition.Time) partition.Time {
	return max(0, partition.Time(float64(at-n.local())/n.rate)+1)
}

// boots starts the replica from what is on disk.
func (n *node) boots() {
	if n.gone {
		// The node starts again without its replica, and knows nothing of it.
		n.boot++
		n.floor, n.given = 0, map[partition.NodeID]partition.Time{}
		n.w.printf("node of %d starts without it", n.id)
		n.w.hints()
		return
	}
	n.boot++
	n.up, n.paused, n.crashing, n.stalled = true, false, false, false
	n.inbox, n.view = nil, nil
	n.results = map[uint64]Result{}
	n.met = map[partition.NodeID]int{}
	n.unreachable, n.given, n.held = map[partition.NodeID]bool{}, map[partition.NodeID]partition.Time{}, map[partition.NodeID][]heldGrant{}
	n.disk.pending = nil
	n.disk.seen = n.disk.synced.clone()
	n.state = n.flushed.clone()
	if n.logOnly {
		n.state = newMapState()
		n.state.applied = n.disk.synced.first - 1
	}
	n.floor = n.disk.synced.promise
	exec, err := NewExecutor(&opPartition{n: n}, n.state)
	if err != nil {
		panic(err)
	}
	exec.sessions.limit = n.w.check.sessionLimit
	exec.last = n.state.applied
	exec.Plant(planted.Of(n.w.mut))
	n.exec = exec
	cfg := n.w.knobs.cfg
	cfg.Group, cfg.Self, cfg.Node, cfg.Neighbours = n.w.group, n.id, n.name, n
	cfg.LogOnly, cfg.Planted = n.logOnly, planted.Of(n.w.mut)
	cfg.Rand = rand.New(rand.NewPCG(n.w.rng.Uint64(), uint64(n.id)))
	boot := n.boot
	cfg.Trace = func(e TraceEvent) {
		if e.What != "knows master" || !n.w.quiet {
			n.w.printf("%d %s, epoch %s", n.id, e.What, e.Epoch)
		}
		if n.w.point != nil && n.boot == boot && n.up {
			n.w.point(n, e.What)
		}
	}
	rep, err := New(cfg, n.restored())
	if err != nil {
		panic(fmt.Sprintf("restart of %d: %v", n.id, err))
	}
	n.rep = rep
	n.w.printf("%d starts: %s, %s", n.id, rep.Status(), showConfigs(rep))
	n.heartbeats(boot)
	n.take(Tick{})
	n.w.hints()
}

// restored reads the disk as a host does.
func (n *node) restored() Restored {
	im := &n.disk.synced
	r := Restored{
		Promised: im.promise, Applied: n.state.applied, Commit: max(im.commit, n.state.applied),
		First: im.first, Last: im.last(), BeforeFirst: im.before, LastSum: im.beforeSum,
		Restarted: n.boot > 1,
	}
	if n.w.appoints && !r.Restarted && im.promise != 0 { // else it came later
		r.Appointed = &Appointed{}
	}
	if im.base != nil {
		r.Configurations = append(r.Configurations, *im.base)
	}
	for _, x := range im.recs {
		if len(r.Runs) == 0 || r.Runs[len(r.Runs)-1].Epoch != x.Epoch() {
			r.Runs = append(r.Runs, EpochRun{Epoch: x.Epoch(), First: x.Index()})
		}
		if m, err := configurationIn(x); err != nil {
			panic(err)
		} else if m != nil {
			r.Configurations = append(r.Configurations, ConfigurationAt{x.Index(), m})
		}
		r.LastSum = x.Checksum()
	}
	r.Commit = min(r.Commit, r.Last)
	return r
}

// crash stops the node. Of what was not synced a prefix survives, possibly with
// a torn last change; of the state only what was flushed.
func (n *node) crash() {
	n.crashKeeping(n.w.rng.IntN(len(n.disk.pending) + 1))
}

// crashKeeping is a crash that keep of the changes under way survive.
func (n *node) crashKeeping(keep int) {
	if !n.up {
		return
	}
	n.up = false
	n.boot++
	n.w.printf("%d crashes", n.id)
	d := &n.disk
	for _, p := range d.pending[:keep] {
		d.synced.apply(p)
	}
	if keep > 0 && keep < len(d.pending) {
		torn := *d.pending[keep]
		switch n.w.rng.IntN(4) {
		case 0:
			torn.Promise, torn.Snip, torn.Records = d.synced.promise, false, nil
		case 1:
			torn.Snip, torn.Records = false, nil
		case 2:
			torn.Records = nil
		case 3:
			torn.Records = torn.Records[:n.w.rng.IntN(len(torn.Records)+1)]
		}
		torn.Commit = min(torn.Commit, d.synced.commit)
		d.synced.apply(&torn)
	}
	d.pending = nil
	n.w.check.lostHost(n)
	n.w.hints()
}

// alive reports whether the node runs, be it without its replica.
func (n *node) alive() bool { return (n.up || n.gone) && !n.paused }

// retire deletes the replica for good. The node goes on, and so do its grants.
func (n *node) retire() {
	n.w.printf("%d is deleted", n.id)
	n.up, n.gone = false, true
	n.boot++
	n.disk = disk{}
	n.w.check.lostHost(n)
	n.w.hints()
}

// pause stops a node without its knowledge; resume lets it find everything that
// has come meanwhile.
func (n *node) pause() { n.paused = true; n.w.hints() }

func (n *node) resume() {
	if !n.up || !n.paused {
		return
	}
	n.paused = false
	in := n.inbox
	n.inbox = nil
	for _, x := range in {
		n.take(x)
	}
	n.w.hints()
}

// take gives the replica one input and does all its work.
func (n *node) take(in Input) {
	if !n.up {
		return
	}
	if n.paused {
		n.inbox = append(n.inbox, in)
		return
	}
	n.w.steps++
	if _, ok := in.(Tick); ok {
		n.w.ticks++
	}
	if err := n.rep.Step(Event{Now: n.local(), Input: in}); err != nil {
		n.w.check.failed(n, in, err)
	}
	n.work()
}

func (n *node) work() {
	for x := range n.rep.Ready() {
		switch x := x.(type) {
		case *Persist:
			n.persist(x)
		case *Send:
			n.sends(x)
		case *Apply:
			n.apply(x)
		case *Reply:
			n.w.check.replied(n, x, n.results[x.ID])
			delete(n.results, x.ID)
		case *Alarm:
			n.setAlarm(x.At)
		case *AcquireLock:
			if x.Holder == 0 {
				n.w.message("%d asks for a lock above %d, failover set: %v", n.id, x.Above, x.Failover)
			} else {
				n.w.message("%d asks for a lock above %d, %d consents", n.id, x.Above, x.Holder)
			}
			n.w.acquire(n, x)
		case *ReleaseLock:
			n.w.release(n, x.Number)
		case *Publish:
			n.view = x.View
		case *Permit:
			n.permit(x)
		case *ReleasePermit:
			n.releasePermit(x)
		case *Retire:
			n.w.check.retires(n)
			n.retire()
			return
		}
	}
	n.w.check.look(n)
}

func (n *node) setAlarm(at partition.Time) {
	n.alarm++
	if at == 0 {
		return
	}
	alarm, boot := n.alarm, n.boot
	n.w.after(n.ahead(at), func() {
		if n.boot == boot && n.alarm == alarm {
			n.take(Tick{})
		}
	})
}

func (n *node) sends(x *Send) {
	m := x.Message
	switch a := m.(type) {
	case *Append:
		if a.Through > a.Prev.Index && len(a.Records) == 0 {
			c := *a
			c.Records, c.PrevSum = n.read(a.Prev.Index, a.Through)
			c.Through = 0
			m = &c
		}
	case *FetchAnswer:
		if a.Through > a.Prev.Index && len(a.Records) == 0 {
			c := *a
			c.Records, c.PrevSum = n.read(a.Prev.Index, a.Through)
			c.Through = 0
			m = &c
		}
	}
	to := n.w.named(x.Node)
	if to == nil || to.id != x.To {
		return // the address of a node that is not there
	}
	n.w.deliver(n, to, m)
}

// read gives records behind after from the host's log, perhaps not all.
func (n *node) read(after, through partition.Index) ([]partition.Record, uint32) {
	im := &n.disk.seen
	recs := im.recs[after+1-im.first : through-im.first+1]
	if n.w.knobs.partialReads {
		recs = recs[:1+n.w.rng.IntN(len(recs))]
	}
	return slices.Clone(recs), recs[0].Prev()
}

// disk is what a host keeps: what is safe, what is on the way, and what its
// reads see.
type disk struct {
	synced  image
	pending []*Persist
	seen    image
}

// image is a log with its promise and commit index.
type image struct {
	promise   partition.Epoch
	commit    partition.Index
	first     partition.Index
	before    partition.Position
	beforeSum uint32
	base      *ConfigurationAt // in force before first
	recs      []partition.Record
}

func (im *image) last() partition.Index { return im.first + partition.Index(len(im.recs)) - 1 }

func (im *image) clone() image {
	c := *im
	c.recs = slices.Clone(im.recs)
	return c
}

func (im *image) has(p partition.Position) bool {
	return p.Index < im.first || p.Index <= im.last() && im.recs[p.Index-im.first].Epoch() == p.Epoch
}

func (im *image) apply(p *Persist) {
	im.promise, im.commit = p.Promise, max(im.commit, p.Commit)
	if p.Snip {
		im.recs = slices.Clone(im.recs[:p.After-im.first+1])
	}
	for _, r := range p.Records {
		if r.Index() != im.last()+1 {
			panic(fmt.Sprintf("persist of %s behind %d", r, im.last()))
		}
		if len(im.recs) > 0 && im.recs[len(im.recs)-1].Checksum() != r.Prev() {
			panic(fmt.Sprintf("persist of %s does not continue the chain", r))
		}
		im.recs = append(im.recs, r)
	}
}

// truncate drops the records below first from the image.
func (im *image) truncate(first partition.Index) {
	for im.first < first {
		r := im.recs[0]
		if m, _ := configurationIn(r); m != nil {
			im.base = &ConfigurationAt{r.Index(), m}
		}
		im.before, im.beforeSum = r.Position(), r.Checksum()
		im.recs, im.first = im.recs[1:], im.first+1
	}
}

func (n *node) persist(p *Persist) {
	n.w.check.persists(n, p)
	was := n.disk.seen.promise
	n.disk.seen.apply(p)
	n.disk.pending = append(n.disk.pending, p)
	if !p.Sync {
		return
	}
	n.w.message("%d writes%s", n.id, describePersist(p, was))
	boot := n.boot
	n.w.after(n.w.between(n.w.knobs.diskMin, n.w.knobs.diskMax), func() { n.synced(boot, p.Seq) })
}

func (n *node) synced(boot int, seq uint64) {
	if n.boot != boot {
		return
	}
	if n.stalled {
		n.w.after(10*time.Millisecond, func() { n.synced(boot, seq) })
		return
	}
	d := &n.disk
	for len(d.pending) > 0 && d.pending[0].Seq <= seq {
		d.synced.apply(d.pending[0])
		d.pending = d.pending[1:]
	}
	n.take(Persisted{Seq: seq})
}

func (n *node) apply(a *Apply) {
	recs := a.Records
	if len(recs) == 0 && !n.logOnly {
		recs, _ = n.read(a.First-1, a.Last)
	}
	boot := n.boot
	n.w.after(n.w.between(0, n.w.knobs.applyMax), func() {
		if n.boot != boot {
			return
		}
		if n.logOnly {
			n.state.applied = a.Last
			n.take(Applied{Index: a.Last})
			return
		}
		for i, rec := range recs {
			res, err := n.exec.Apply(n.state, rec)
			if err != nil {
				panic(err)
			}
			n.state.applied = rec.Index()
			if i < len(a.IDs) && a.IDs[i] != 0 {
				n.results[a.IDs[i]] = res
			}
			n.w.check.applied(n, rec, res)
		}
		if n.w.chance(n.w.knobs.flush) {
			n.flushed = n.state.clone()
		}
		n.take(Applied{Index: n.state.applied})
	})
}

// hint brings a node's view of another up to date.
func (n *node) hint(o *node) {
	if !n.up || n.paused {
		return
	}
	down := !n.w.linked(n, o)
	if was := n.met[o.name]; !down && was != o.boot {
		n.met[o.name] = o.boot
		if was != 0 && !n.unreachable[o.name] {
			n.unreachable[o.name] = true
			n.take(NodeDown{o.name}) // it was away for a moment
		}
	}
	if n.unreachable[o.name] == down {
		return
	}
	n.unreachable[o.name] = down
	if down {
		n.take(NodeDown{o.name})
	} else {
		n.take(NodeUp{o.name})
	}
}

// Reachable implements Neighbours.
func (n *node) Reachable(o partition.NodeID) bool {
	return o == n.name || !n.unreachable[o] && n.w.named(o) != nil
}

// Revoke implements Neighbours.
func (n *node) Revoke(_ partition.GroupID, _ partition.ReplicaID, e partition.Epoch, holder partition.NodeID) partition.Time {
	n.floor = e
	return n.given[holder]
}

// Granted implements Neighbours.
func (n *node) Granted(_ partition.GroupID, e partition.Epoch, by partition.NodeID, s Supporter) partition.Time {
	var until partition.Time
	for _, g := range n.held[by] {
		if g.floor <= e && (uint64(g.boot) == s.Boot || n.w.mut == planted.GrantOfAnotherBoot) {
			until = max(until, g.until)
		}
	}
	return until
}

const heartbeatEvery = 75 * time.Millisecond

// heartbeats asks the other nodes for grants as long as the node is up.
func (n *node) heartbeats(boot int) {
	if n.boot != boot {
		return
	}
	if !n.paused {
		for _, o := range n.w.nodes {
			if o != n {
				n.heartbeat(boot, o)
			}
		}
	}
	n.w.after(heartbeatEvery, func() { n.heartbeats(boot) })
}

func (n *node) heartbeat(boot int, o *node) {
	w := n.w
	link := func(a, b *node, do func()) {
		w.after(w.between(w.knobs.netMin, w.knobs.netMax), func() {
			if !w.cut[[2]partition.ReplicaID{a.id, b.id}] && b.alive() && !w.chance(w.knobs.loss) {
				do()
			}
		})
	}
	sent := n.local()
	lease := n.rep.cfg.Lease
	// The clocks' difference in speed counts twice: between holder and grantor,
	// and between grantor and the next master.
	margin := partition.Time(float64(lease) * 4.2 * w.knobs.drift)
	link(n, o, func() {
		o.given[n.name] = max(o.given[n.name], o.local()+lease)
		floor, from := o.floor, o.boot
		link(o, n, func() {
			if n.boot == boot && o.boot == from {
				h := n.held[o.name]
				if len(h) == 0 || h[len(h)-1].floor != floor || h[len(h)-1].boot != from {
					h = append(h, heldGrant{boot: from, floor: floor})
				}
				h[len(h)-1].until = max(h[len(h)-1].until, sent+lease-margin)
				n.held[o.name] = h
			}
		})
	})
}

// leaseRead tries to read without asking anybody, and returns the index that
// the answer reflects.
func (n *node) leaseRead() (partition.Index, bool) {
	if !n.up || n.paused || n.view == nil {
		return 0, false
	}
	at := n.state.applied
	return at, n.local() < n.view.LeaseEnd(n)
}

func showConfigs(r *Replica) string {
	s := ""
	for _, c := range r.log.configs {
		s += fmt.Sprintf(" @%d:%s", c.Index, showConfig(c.Membership))
	}
	return s
}

func showConfig(m *partition.Membership) string {
	s := fmt.Sprintf("v%d %s", m.Version, m.Policy)
	for _, x := range m.Members {
		s += fmt.Sprintf(" %d", x.Replica)
		if x.Kind != partition.Full {
			s += x.Kind.String()
		}
		if !x.Eligible {
			s += "-"
		}
		if x.Weight > 1 {
			s += fmt.Sprintf("*%d", x.Weight)
		}
		if m.Policy.Rule == partition.Zones {
			s += x.Zone
		}
	}
	return s
}
