package replica

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"pando.dev/pando/internal/planted"
	"pando.dev/pando/partition"
)

// A world is one group on simulated hosts: virtual time, a network that may
// lose, repeat, delay and reorder, disks that lose what was not synced, clocks
// that run at different speeds, a lock that may misbehave, and an omniscient
// checker that looks at everything after every step. One goroutine, one seed.
type world struct {
	rng   *rand.Rand
	now   partition.Time // true time
	items itemHeap
	seq   uint64
	group partition.GroupID
	nodes []*node // one per replica, in the order of their coming
	knobs knobs
	cut   map[[2]partition.ReplicaID]bool // one way
	lock  simLock
	check *checker
	mut   planted.Bug
	out   *strings.Builder // of goldens; nil otherwise
	quiet bool             // goldens: do not print messages
	point func(n *node, what string)
	// appoints: the group begins with a master.
	appoints bool
	steps    int
	ticks    int
}

// knobs are everything about a world that a schedule may choose.
type knobs struct {
	cfg                 Config
	netMin, netMax      partition.Time
	diskMin, diskMax    partition.Time
	applyMax            partition.Time
	loss, repeat, stray float64 // share of messages lost, sent twice, very late
	drift               float64 // clocks run at 1±drift
	flush               float64 // share of applies after which the state is flushed
	badLock             bool
	hintMax             partition.Time
	partialReads        bool
	keepState           bool // log replicas keep a state nevertheless
}

func calm() knobs {
	return knobs{
		netMin: time.Millisecond, netMax: time.Millisecond, diskMin: time.Millisecond, diskMax: time.Millisecond,
		hintMax: 2 * time.Millisecond,
	}
}

type item struct {
	at  partition.Time
	seq uint64
	do  func()
}

type itemHeap []item

func (h itemHeap) Len() int { return len(h) }
func (h itemHeap) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].seq < h[j].seq
}
func (h itemHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *itemHeap) Push(x any)   { *h = append(*h, x.(item)) }
func (h *itemHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}

func newWorld(seed uint64, k knobs) *world {
	w := &world{
		rng: rand.New(rand.NewPCG(seed, 1)), group: 7, knobs: k, now: time.Second,
		cut: map[[2]partition.ReplicaID]bool{},
	}
	w.check = newChecker(w)
	return w
}

// after runs do in d from now.
func (w *world) after(d partition.Time, do func()) {
	w.seq++
	heap.Push(&w.items, item{at: w.now + d, seq: w.seq, do: do})
}

// run lets d pass.
func (w *world) run(d partition.Time) {
	until := w.now + d
	for len(w.items) > 0 && w.items[0].at <= until {
		x := heap.Pop(&w.items).(item)
		w.now = max(w.now, x.at)
		x.do()
	}
	w.now = until
}

func (w *world) between(lo, hi partition.Time) partition.Time {
	if hi <= lo {
		return lo
	}
	return lo + partition.Time(w.rng.Int64N(int64(hi-lo)+1))
}

func (w *world) chance(p float64) bool { return p > 0 && w.rng.Float64() < p }

// node is the host of a replica, nil if there is none yet.
func (w *world) node(id partition.ReplicaID) *node {
	for _, n := range w.nodes {
		if n.id == id {
			return n
		}
	}
	return nil
}

func (w *world) named(name partition.NodeID) *node {
	for _, n := range w.nodes {
		if n.name == name {
			return n
		}
	}
	return nil
}

func (w *world) printf(format string, args ...any) {
	if w.out != nil {
		fmt.Fprintf(w.out, "%5s  ", (w.now - time.Second).Round(time.Millisecond).String())
		fmt.Fprintf(w.out, format+"\n", args...)
	}
}

// start makes the group: every member with the genesis record on its disk.
func (w *world) start(m *partition.Membership) {
	rec, err := partition.Genesis(w.group, m)
	if err != nil {
		panic(err)
	}
	w.check.genesis(rec, m)
	for _, x := range m.Members {
		n := w.addNode(x.Replica, image{first: 1, recs: []partition.Record{rec}})
		n.logOnly = x.Kind == partition.LogReplica && !w.knobs.keepState
	}
	if w.appoints {
		w.appoint(m)
		return
	}
	for _, n := range w.nodes {
		n.boots()
	}
}

// appoint begins the group with a master that all its members have promised, as a
// group that was divided off. They come one after the other, and late.
func (w *world) appoint(m *partition.Membership) {
	first := w.nodes[w.rng.IntN(len(w.nodes))]
	for !electableIn(m, first.id) {
		first = w.nodes[w.rng.IntN(len(w.nodes))]
	}
	for _, n := range w.nodes {
		n.disk.synced.promise, n.disk.synced.commit = partition.NewEpoch(1, first.id), 1
		n.disk.seen = n.disk.synced.clone()
		w.after(w.between(0, 20*time.Millisecond)<<w.rng.IntN(7), func() {
			if n.boot == 0 {
				n.boots()
			}
		})
	}
}

func electableIn(m *partition.Membership, id partition.ReplicaID) bool {
	x, _ := m.Member(id)
	return x.Kind == partition.Full && x.Eligible
}

// addNode makes the host of a replica with this log on its disk.
func (w *world) addNode(id partition.ReplicaID, log image) *node {
	n := &node{w: w, id: id, name: nodeName(id), rate: 1, unreachable: map[partition.NodeID]bool{}}
	if w.knobs.drift > 0 {
		n.rate = 1 + w.knobs.drift*(2*w.rng.Float64()-1)
		n.offset = w.between(0, time.Hour)
	}
	n.disk.synced = log
	n.disk.seen = n.disk.synced.clone()
	n.flushed = newMapState()
	for _, o := range w.nodes {
		o.unreachable[n.name] = true // until they hear otherwise
	}
	w.nodes = append(w.nodes, n)
	return n
}

func nodeName(id partition.ReplicaID) partition.NodeID {
	return partition.NodeID(fmt.Sprintf("n%d", id))
}

// deliver sends a message over the network.
func (w *world) deliver(from, to *node, m Message) {
	if w.chance(w.knobs.loss) {
		return
	}
	copies := 1
	if w.chance(w.knobs.repeat) {
		copies = 2
	}
	for range copies {
		d := w.between(w.knobs.netMin, w.knobs.netMax)
		if w.chance(w.knobs.stray) {
			d += w.between(0, time.Second)
		}
		boot := from.boot
		w.after(d, func() {
			if w.cut[[2]partition.ReplicaID{from.id, to.id}] || !to.up {
				w.message("%d -> %d: lost: %s", from.id, to.id, describe(m))
				return
			}
			w.message("%d -> %d: %s", from.id, to.id, describe(m))
			to.take(Received{From: from.id, Node: from.name, Boot: uint64(boot), Message: m})
		})
	}
}

func (w *world) message(format string, args ...any) {
	if !w.quiet {
		w.printf(format, args...)
	}
}

// linked reports whether a and b reach each other both ways.
func (w *world) linked(a, b *node) bool {
	return a.alive() && b.alive() &&
		!w.cut[[2]partition.ReplicaID{a.id, b.id}] && !w.cut[[2]partition.ReplicaID{b.id, a.id}]
}

// hints tells every node, a little later, whom it reaches now.
func (w *world) hints() {
	for _, a := range w.nodes {
		for _, b := range w.nodes {
			if a == b {
				continue
			}
			w.after(w.between(0, w.knobs.hintMax), func() { a.hint(b) })
		}
	}
}

// isolate cuts or heals all links of a node.
func (w *world) isolate(id partition.ReplicaID, cut bool) {
	for _, n := range w.nodes {
		if n.id != id {
			w.cut[[2]partition.ReplicaID{id, n.id}] = cut
			w.cut[[2]partition.ReplicaID{n.id, id}] = cut
		}
	}
	w.hints()
}

// master returns the node that serves in the newest epoch, or nil.
func (w *world) master() *node {
	var best *node
	for _, n := range w.nodes {
		if n.up && !n.paused && n.rep.phase == serving && (best == nil || n.rep.promised > best.rep.promised) {
			best = n
		}
	}
	return best
}

// simLock is the external lock. Sane, it grants a free lock, one whose holder
// is gone, and one that a failover set asks for. Bad, it does what it likes.
type simLock struct {
	holder *node
	number uint64
	down   bool
	deny   int // so many requests are refused next
	// forgets: it grants everything, with the number after the one that the
	// candidate names.
	forgets bool
	only    partition.ReplicaID // if not 0: the others are refused
	permit  simPermit
}

func (w *world) acquire(n *node, a *AcquireLock) {
	boot := n.boot
	w.after(w.between(w.knobs.netMin, 2*w.knobs.netMax), func() {
		l := &w.lock
		answer := func(in Input) {
			if n.up && n.boot == boot {
				n.take(in)
			}
		}
		switch {
		case l.down:
			return
		case l.permit.bars(n):
			w.printf("lock: refused to %d, since others go on without it", n.id)
			answer(LockRefused{})
			return
		case l.deny > 0 || l.only != 0 && l.only != n.id:
			l.deny = max(0, l.deny-1)
			w.printf("lock: refused to %d", n.id)
			answer(LockRefused{})
			return
		case l.forgets:
			answer(Locked{Number: a.Above + 1})
			return
		case w.knobs.badLock && w.chance(0.1):
			answer(LockRefused{})
			return
		case w.knobs.badLock && w.chance(0.3):
			l.number = 0 // it has forgotten everything
		case w.knobs.badLock && w.chance(0.5):
			// The same number to whoever asks.
			number := max(l.number, a.Above+1)
			l.number = number
			answer(Locked{Number: number})
			return
		case a.Holder != 0 && l.holder != nil && l.holder.id == a.Holder && l.number == a.Consent:
			w.printf("lock: %d consents", a.Holder)
		case !w.knobs.badLock && l.holder != nil && l.holder != n && l.holder.up && !a.Failover:
			w.printf("lock: refused to %d", n.id)
			answer(LockRefused{})
			return
		}
		l.holder, l.number = n, max(l.number, a.Above)+1
		w.printf("lock: number %d to %d", l.number, n.id)
		locked := Locked{Number: l.number}
		if l.permit.holder == n {
			locked.Permit = l.permit.number
		}
		if w.knobs.cfg.Solo {
			w.after(w.between(0, w.knobs.netMax), func() { answer(locked) })
			return
		}
		answer(locked)
		if w.knobs.badLock && w.chance(0.05) {
			w.after(w.between(0, 20*time.Millisecond), func() { answer(LockRefused{}) })
		}
	})
}

func (w *world) release(n *node, number uint64) {
	if w.lock.holder == n && w.lock.number == number {
		w.lock.holder = nil
		w.printf("lock: given back by %d", n.id)
	}
}
