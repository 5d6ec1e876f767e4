package sim

import (
	"fmt"
	"math"
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/lease"
	"pando.dev/pando/partition/replica"
)

const (
	// beatsPerLease is how often a node asks for a grant while one runs, and
	// looksPerBeat how often it looks who answers between two questions.
	beatsPerLease = 4
	looksPerBeat  = 3
	// maxHeld bounds what waits for a process that was stopped; the rest is lost.
	maxHeld = 4096
)

// node is a machine and the process on it. The disk, and with it the identity,
// may be another one after a restart.
type node struct {
	w    *world
	ord  int // its place in the network
	zone string
	disk *disk

	// Of the identity on the disk.
	who int // index in world.ids
	id  partition.NodeID

	up, paused bool
	life       uint32 // counts the processes here, and their ends
	boot       uint64 // boot number of the process
	started    uint64 // which of all processes it is
	clock      clock
	table      *lease.Table
	told       []uint64 // by identity: the boot in which it was told reachable; 0: not
	hosts      []*host  // by group; nil: no replica
	peers      []int    // identities of the nodes that hold replicas of the same groups
	ticks      uint64
	held       []event // while the process is stopped
	frozen     bool    // it is stopped for so long that its connections break
	step       partition.Time
	busyUntil  partition.Time
	down       partition.Time // when the process ended
	crashing   bool           // a fault at a point is on its way
	barred     bool           // it must not start again by itself
	asked      partition.Time // when its last question reaches the control group
	view       *catalogView   // what it has seen of the catalog; nil: nothing
}

var _ replica.Neighbours = (*node)(nil)

// local is the node's own clock.
func (n *node) local() partition.Time { return n.clock.at(n.w.eng.now) }

// later is the true time at which the node's clock shows t.
func (n *node) later(t partition.Time) partition.Time {
	now := n.w.eng.now
	return now + n.clock.until(now, t)
}

// start begins a process on what is on the disk.
func (n *node) start() {
	if n.up || n.barred {
		return
	}
	n.life++
	n.up, n.paused, n.frozen, n.crashing = true, false, false, false
	n.held, n.busyUntil, n.view = nil, 0, nil
	n.disk.boot++ // durable before anything else
	if n.disk.rolled {
		// An old copy that is started again and again before the control group hears
		// of it is not found out: docs/guarantees.md says so.
		n.disk.boot = min(n.disk.boot, n.w.control.boots[n.who])
	}
	n.boot = n.disk.boot
	n.w.starts++
	n.started = n.w.starts
	n.w.count.Restarts++
	n.w.tracef("%s starts, boot %d", n, n.boot)
	if err := n.disk.open(); err != nil {
		n.w.violate("log", "%s cannot open its log: %v", n, err)
	}
	n.told = make([]uint64, len(n.w.ids))
	n.table = lease.New(lease.Config{
		Self: n.id, Boot: n.boot, Now: n.local, Lease: n.w.k.Lease, DriftPPM: n.w.driftPPM,
		Planted: n.w.plan.Planted, Point: func(p lease.Point) { n.w.points.reached(n, n.w.points.lease+int(p)) },
	})
	n.hosts = make([]*host, len(n.w.groups))
	n.w.check.started(n)
	if n.disk.real != nil {
		n.disk.adopt()
	}
	n.openLeases()
	for gi := range n.w.groups {
		if sum, ok := n.disk.log.summary(n.w.groups[gi].id); ok {
			n.host(gi, sum.Replica, false)
		}
	}
	n.findPeers()
	n.enroll()
	tick := n.w.eng.after(between(n.w.rnd.two(onBoot, uint64(n.ord), uint64(n.life)), 0, n.tickEvery()), evTick, n.ord)
	tick.life = n.life
}

// openLeases makes the lease table as strict as it was before the restart.
func (n *node) openLeases() {
	for gi := range n.w.groups {
		g := n.w.groups[gi].id
		sum, ok := n.disk.log.summary(g)
		if !ok {
			continue
		}
		promise := sum.Promise
		if n.silent(gi, sum.Replica) || sum.Damage != nil {
			promise = math.MaxUint64
		}
		members := 0
		for _, rec := range sum.Configurations {
			m := new(partition.Membership)
			if m.UnmarshalBinary(rec.Payload()) != nil {
				continue
			}
			for _, x := range m.Members {
				members++
				n.table.Revoke(g, sum.Replica, promise, x.Node)
			}
		}
		if members == 0 {
			return // nothing is granted before the replica is replaced
		}
	}
	n.table.Open()
}

// silent reports whether the replica may have forgotten what it promised.
func (n *node) silent(gi int, r partition.ReplicaID) bool {
	return r != 0 && n.disk.suspects[gi] == r
}

// host makes the host of the replica that is on the disk.
func (n *node) host(gi int, r partition.ReplicaID, fresh bool) *host {
	g := n.w.groups[gi]
	h := &host{n: n, g: g, gi: gi, replica: r, fresh: fresh, incarnation: firstIncarnation(r)}
	n.hosts[gi] = h
	d := n.w.rnd.of(onBoot, uint64(n.ord), uint64(n.life), uint64(gi))
	h.loadAfter(between(d, 0, 3*time.Millisecond))
	return h
}

// findPeers lists the nodes to beat to: those that hold replicas of its groups.
func (n *node) findPeers() {
	n.peers = n.peers[:0]
	for who := range n.w.ids {
		if who == n.who {
			continue
		}
		for gi := range n.w.groups {
			if n.w.groups[gi].on(who) && n.w.groups[gi].on(n.who) {
				n.peers = append(n.peers, who)
				break
			}
		}
	}
	for len(n.told) < len(n.w.ids) {
		n.told = append(n.told, 0)
	}
}

// end ends the process. With power everything that was not synced may be lost;
// without, what was written to the system stays.
func (n *node) end(power bool, why string) {
	if !n.up {
		return
	}
	n.up, n.paused = false, false
	n.life++
	n.down = n.w.eng.now
	n.w.count.Crashes++
	n.w.tracef("%s ends: %s", n, why)
	for _, h := range n.hosts {
		if h != nil {
			h.drop()
		}
	}
	n.w.check.ends(n)
	n.disk.crash(power)
	n.held = nil
	n.w.check.crashed(n)
	n.w.net.processEnded(n, power)
	n.w.expireLater(n)
}

// processEnds ends a process that cannot go on, and starts another.
func (n *node) processEnds(why string) {
	n.end(false, why)
	n.startAfter(partition.Time(time.Millisecond) + between(n.w.rnd.two(onRestart, uint64(n.ord), uint64(n.life)), 0, 200*time.Millisecond))
}

// startAfter starts a process in d, if there is none by then.
func (n *node) startAfter(d partition.Time) {
	n.w.eng.after(d, evBoot, n.ord).a = uint64(n.life)
}

// pause stops the process without its knowledge.
func (n *node) pause() {
	if n.up {
		n.paused = true
		n.w.tracef("%s is stopped", n)
	}
}

// resume lets it go on: it finds everything that came meanwhile at once.
func (n *node) resume() {
	if !n.up || !n.paused {
		return
	}
	n.paused, n.frozen = false, false
	n.w.tracef("%s goes on", n)
	held := n.held
	n.held = nil
	life := n.life
	for i := range held {
		if n.life != life {
			return
		}
		if n.paused {
			n.held = append(n.held, held[i:]...)
			return
		}
		n.w.dispatch(&held[i])
	}
}

// alive reports whether the process runs.
func (n *node) alive() bool { return n.up && !n.paused }

func (n *node) tickEvery() partition.Time { return n.w.k.Lease / (beatsPerLease * looksPerBeat) }

// tick looks who answers, and from time to time asks for grants.
func (n *node) tick() {
	n.ticks++
	at := n.w.eng.at(n.later(n.local()+n.tickEvery()), evTick, n.ord)
	at.life = n.life
	if n.ticks%looksPerBeat == 0 {
		for _, who := range n.peers {
			n.beat(who)
		}
	}
	n.look()
	if n.ticks%64 == 0 {
		for _, h := range n.hosts {
			if h != nil {
				h.resign() // it may have got lost
			}
		}
	}
	n.tendSplits()
	if n.disk.real != nil && n.ticks%8 == 0 {
		n.truncated()
	}
}

func (n *node) beat(who int) {
	if n.w.owner[who] < 0 {
		return
	}
	if b, ok := n.table.Beat(n.local(), n.w.ids[who]); ok {
		n.w.net.beat(n, who, &b)
	}
}

// look compares who is reachable with who was, and tells the replicas.
func (n *node) look() {
	for _, who := range n.peers {
		boot, ok := n.table.Alive(n.w.ids[who])
		if !ok {
			boot = 0
		}
		was := n.told[who]
		if was == boot {
			continue
		}
		n.told[who] = boot
		n.tell(who, boot != 0 && was == 0)
	}
}

// tell tells the replicas that share a group with a node that it came or went; up
// is false if it was away only for a moment.
func (n *node) tell(who int, up bool) {
	id := n.w.ids[who]
	n.w.tracef("%s: %s is reachable: %v", n, id, n.told[who] != 0)
	for _, h := range n.hosts {
		if h != nil && h.rep == nil && n.told[who] != 0 {
			h.resign()
		}
		if h == nil || h.rep == nil || h.view == nil {
			continue
		}
		for _, m := range h.view.Configurations {
			if _, ok := m.OnNode(id); ok {
				h.neighbour(id, up)
				break
			}
		}
	}
}

// Reachable implements replica.Neighbours: what was told, not what would be now.
func (n *node) Reachable(id partition.NodeID) bool {
	who, ok := n.w.whoIs[id]
	return ok && (who == n.who || who < len(n.told) && n.told[who] != 0)
}

// Revoke implements replica.Neighbours.
func (n *node) Revoke(g partition.GroupID, r partition.ReplicaID, e partition.Epoch, holder partition.NodeID) partition.Time {
	return n.table.Revoke(g, r, e, holder)
}

// Granted implements replica.Neighbours.
func (n *node) Granted(g partition.GroupID, e partition.Epoch, by partition.NodeID, s replica.Supporter) partition.Time {
	return n.table.Granted(g, e, by, s)
}

// written tells the hosts what is durable. Each takes all of it at once.
func (n *node) written(done []token) {
	life := n.life
	for i := 0; i < len(done); i++ {
		t := done[i]
		t.host.written(t)
		if i+1 < len(done) && done[i+1].host == t.host {
			continue
		}
		t.host.turn()
		if n.life != life {
			return
		}
	}
}

// truncated tells the hosts that the log may begin later.
func (n *node) truncated() {
	for gi, h := range n.hosts {
		if h == nil || h.rep == nil {
			continue
		}
		if sum, ok := n.disk.log.summary(n.w.groups[gi].id); ok && sum.First > n.disk.seen[gi].first {
			n.disk.seen[gi].cut(sum.First)
			n.disk.platter[gi].cut(sum.First)
			h.event(replica.Truncated{First: sum.First})
			h.turn()
		}
	}
}

// String is the node's id.
func (n *node) String() string { return fmt.Sprintf("%s(%d)", n.id, n.ord) }
