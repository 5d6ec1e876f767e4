package replica

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"pando.dev/pando/internal/planted"
	"pando.dev/pando/partition"
)

// profile is what a random schedule may contain. Everything it leaves open is
// drawn from the seed.
type profile struct {
	nodes      int // 0: drawn
	length     partition.Time
	membership bool
	badLock    bool
	reads      bool
	sessions   bool
	transfers  bool // planned hand-overs
	churn      bool // the operator is busy
	solo       bool // pairs that may go on alone
	forgets    bool // the lock knows no number but the one it is asked for
	appoints   bool // the group begins with a master
	// points says of what a node may do, how often (one in so many) a crash
	// follows that comes within 4 ms; nil: after everything, one in 12.
	points map[string]int
	faults uint // classes of faults; 0: drawn
	tweak  func(*knobs)
	mut    planted.Bug
	pick   func(n int) int // nil: from the seed
}

// schedule is one run of a world under faults.
type schedule struct {
	w       *world
	p       profile
	rng     *rand.Rand
	clients []*client
	nextOp  uint64
	quiet   bool // stabilizing: no more faults
	log     []string
}

func drawKnobs(rng *rand.Rand, p profile) knobs {
	between := func(lo, hi int) int { return lo + rng.IntN(hi-lo+1) }
	ms := func(lo, hi int) partition.Time {
		return partition.Time(between(lo*1000, hi*1000)) * time.Microsecond
	}
	one := func(share float64, v float64) float64 {
		if rng.Float64() < share {
			return v * rng.Float64()
		}
		return 0
	}
	k := knobs{
		netMin: ms(0, 1), netMax: ms(1, 20), diskMin: ms(0, 1), diskMax: ms(1, 15), applyMax: ms(0, 5),
		loss: one(0.5, 0.2), repeat: one(0.5, 0.3), stray: one(0.5, 0.1), drift: one(0.5, 0.02),
		flush: 0.3, badLock: p.badLock, hintMax: ms(1, 40), partialReads: rng.IntN(2) == 0, keepState: rng.IntN(2) == 0,
	}
	k.cfg.TailBytes = []int{1, 100, 1000, 1 << 20}[rng.IntN(4)]
	k.cfg.MaxAppendBytes = []int{1, 150, 1 << 20}[rng.IntN(3)]
	k.cfg.MaxInFlightBytes = []int{1, 400, 4 << 20}[rng.IntN(3)]
	if rng.IntN(2) == 0 {
		k.cfg.MaxPending = between(2, 20)
	}
	if rng.IntN(3) == 0 {
		k.cfg.DurabilityWait = 500 * time.Millisecond
	}
	return k
}

func newSchedule(seed uint64, p profile, out *strings.Builder) *schedule {
	rng := rand.New(rand.NewPCG(seed, 2))
	s := &schedule{p: p, rng: rng, w: newWorld(seed, drawKnobs(rng, p))}
	s.w.mut, s.w.out = p.mut, out
	if s.p.pick == nil {
		s.p.pick = rng.IntN
	}
	if s.p.faults == 0 {
		// A swarm: each class of faults is in half of the schedules.
		s.p.faults = uint(rng.IntN(allFaults + 1))
	}
	if p.tweak != nil {
		p.tweak(&s.w.knobs)
	}
	s.w.lock.forgets, s.w.appoints = p.forgets, p.appoints
	s.w.knobs.cfg.Solo, s.w.knobs.cfg.SoloAfter = p.solo, 300*time.Millisecond
	s.w.check.sessionLimit = 4
	s.w.point = s.atPoint
	n := p.nodes
	if n == 0 {
		n = []int{1, 2, 3, 3, 3, 3, 4, 5}[rng.IntN(8)]
	}
	s.w.start(s.drawGroup(n))
	if p.sessions {
		for range 3 {
			s.clients = append(s.clients, &client{s: s})
		}
	}
	return s
}

// drawGroup is a random valid configuration of n members.
func (s *schedule) drawGroup(n int) *partition.Membership {
	for {
		m := members(n)
		for i := range m.Members {
			x := &m.Members[i]
			x.Zone = string(rune('x' + s.rng.IntN(3)))
			if s.rng.IntN(8) == 0 {
				x.Kind = partition.LogReplica
			}
			if s.rng.IntN(6) == 0 {
				x.Weight = 2
			}
		}
		m.Policy = s.drawPolicy()
		if s.p.solo {
			m.Policy = partition.Policy{Rule: partition.AllInSync}
		}
		if m.Validate() == nil {
			return m
		}
	}
}

func (s *schedule) drawPolicy() partition.Policy {
	switch s.rng.IntN(6) {
	case 0:
		return partition.Policy{Rule: partition.AllInSync}
	case 1:
		return partition.Policy{Rule: partition.Zones, Zones: uint8(1 + s.rng.IntN(2))}
	}
	return partition.Policy{Rule: partition.Majority}
}

// atPoint crashes a node right after it did something that it must not forget:
// uniform faults are blind to bugs that need that.
func (s *schedule) atPoint(n *node, what string) {
	oneIn := 12
	if s.p.points != nil {
		oneIn = s.p.points[what]
	}
	if s.quiet || n.crashing || oneIn == 0 || s.p.faults&faultCrash == 0 || s.rng.IntN(oneIn) != 0 {
		return
	}
	n.crashing = true
	boot := n.boot
	s.w.after(s.w.between(0, 4*time.Millisecond), func() {
		if n.boot != boot || !n.up || s.quiet {
			return
		}
		n.crash()
		if s.rng.IntN(2) == 0 {
			boot := n.boot
			s.w.after(s.w.between(0, 20*time.Millisecond), func() {
				if n.boot == boot && !n.up {
					n.boots()
				}
			})
		}
	})
}

func (s *schedule) any() *node { return s.w.nodes[s.p.pick(len(s.w.nodes))] }

// target is where a client sends: mostly the master.
func (s *schedule) target() *node {
	switch s.p.pick(4) {
	case 0:
		return s.any()
	case 1:
		// Somebody who thinks that it is master, though perhaps not any more and
		// perhaps not yet ready.
		if leading := s.leading(recovering); len(leading) > 0 {
			return leading[s.p.pick(len(leading))]
		}
	}
	if m := s.w.master(); m != nil {
		return m
	}
	return s.any()
}

// leading are those who think that they are master, from a phase on.
func (s *schedule) leading(from phase) (out []*node) {
	for _, n := range s.w.nodes {
		if n.up && !n.paused && n.rep.phase >= from {
			out = append(out, n)
		}
	}
	return out
}

// The classes of faults.
const (
	faultCrash = 1 << iota
	faultCut
	faultIsolate
	faultPause
	faultStall
	faultLie
	faultLock
	faultBlink
	allFaults = 1<<iota - 1
)

// step does one random thing.
func (s *schedule) step() {
	w, n := s.w, s.any()
	if s.p.transfers && s.p.pick(10) == 0 {
		s.handOver()
		return
	}
	if s.p.churn && s.p.pick(3) == 0 {
		s.operate()
		return
	}
	switch c := s.p.pick(40); {
	case c < 8:
		if s.p.faults&(1<<c) != 0 {
			s.fault(1 << c)
		}
	case c < 12:
		if !n.up {
			n.boots()
		}
	case c < 15:
		clear(w.cut)
		w.hints()
	case c < 17:
		if s.p.membership {
			s.operate()
		}
	case c == 17:
		s.truncate()
	case c < 23:
		if n := s.target(); s.p.reads && n.up && !n.paused {
			w.check.read(n, &op{})
		}
	default:
		s.write()
	}
}

// fault does something evil.
func (s *schedule) fault(class uint) {
	w, n := s.w, s.any()
	switch class {
	case faultCrash:
		if s.p.pick(2) == 0 {
			n.crash()
			return
		}
		s.blink(n)
	case faultCut:
		o := s.any()
		w.cut[[2]partition.ReplicaID{n.id, o.id}] = true
		if s.p.pick(2) == 0 {
			w.cut[[2]partition.ReplicaID{o.id, n.id}] = true
		}
		w.hints()
	case faultIsolate:
		if m := w.master(); m != nil && s.p.pick(2) == 0 {
			n = m
		}
		w.isolate(n.id, true)
	case faultPause:
		if n.up {
			n.pause()
			w.after(w.between(0, 600*time.Millisecond), n.resume)
		}
	case faultStall:
		n.stalled = true
		w.after(w.between(0, 300*time.Millisecond), func() { n.stalled = false })
	case faultLie:
		if o := s.any(); o != n && n.up && !n.paused {
			n.unreachable[o.name] = !n.unreachable[o.name]
			if n.unreachable[o.name] {
				n.take(NodeDown{o.name})
			} else {
				n.take(NodeUp{o.name})
			}
			w.after(w.between(0, 200*time.Millisecond), func() { n.hint(o) })
		}
	case faultLock:
		w.lock.down = !w.lock.down && s.p.pick(3) == 0
	case faultBlink:
		// The master is cut off, and all who have granted it a lease restart.
		if m := w.master(); m != nil {
			w.isolate(m.id, true)
			for _, n := range w.nodes {
				if n != m {
					s.blink(n)
				}
			}
		}
	}
}

// blink restarts a node quickly.
func (s *schedule) blink(n *node) {
	if !n.up {
		return
	}
	n.crash()
	s.w.after(s.w.between(0, 20*time.Millisecond), func() {
		if !n.up {
			n.boots()
		}
	})
}

// handOver lets a replica, mostly the master, hand over, or resign. Sometimes one
// of the links that matter breaks within the next milliseconds.
func (s *schedule) handOver() {
	w, n := s.w, s.target()
	if !n.up || n.paused {
		return
	}
	to := partition.ReplicaID(0)
	if s.p.pick(2) == 0 {
		to = s.any().id
	}
	if s.p.faults&(faultCut|faultIsolate) != 0 && s.p.pick(4) == 0 {
		o := s.any()
		w.after(w.between(0, 30*time.Millisecond), func() {
			if !s.quiet && o != n {
				w.cut[[2]partition.ReplicaID{o.id, n.id}] = true
				w.hints()
			}
		})
	}
	if s.p.pick(8) == 0 {
		n.take(Resign{Why: "resigns"})
		return
	}
	w.check.transfer(n, to, nil)
}

func (s *schedule) write() {
	n := s.target()
	if !n.up || n.paused {
		return
	}
	for range 1 + s.p.pick(3) {
		s.nextOp++
		s.w.check.write(n, &op{id: s.nextOp})
	}
}

// truncate drops log that every node has in its flushed state; or, where an
// operator copies what is missing, what one node does not need itself.
func (s *schedule) truncate() {
	if s.p.membership {
		s.truncateOne(s.any())
		return
	}
	lowest := partition.Index(1 << 62)
	n := s.any()
	if n.logOnly {
		s.truncateOne(n)
		return
	}
	for _, n := range s.w.nodes {
		if n.up {
			n.flushed = n.state.clone()
		}
		if lowest = min(lowest, n.disk.synced.commit); !n.logOnly {
			lowest = min(lowest, n.flushed.applied)
		}
	}
	if n.paused || lowest <= n.disk.synced.first || len(s.w.nodes) > 4 {
		return
	}
	s.w.check.truncated = true
	n.disk.synced.truncate(lowest)
	if n.up {
		n.disk.seen.truncate(lowest)
		n.take(Truncated{lowest})
	}
}

func (s *schedule) truncateOne(n *node) {
	first := n.disk.synced.first
	lowest := min(n.flushed.applied, n.disk.synced.commit)
	if n.logOnly && n.up {
		lowest = min(n.rep.everywhere, n.state.applied, n.disk.synced.commit)
	}
	if n.gone || n.paused || lowest <= first || n.logOnly && !n.up || s.p.pick(3) > 0 {
		return
	}
	s.w.check.truncated = true
	to := s.w.check.truncates(n, first+1+partition.Index(s.p.pick(int(lowest-first))))
	n.disk.synced.truncate(to)
	if n.up {
		n.disk.seen.truncate(to)
		n.take(Truncated{to})
	}
}

// play runs the schedule's random part.
func (s *schedule) play() {
	until := s.w.now + s.p.length
	for s.w.now < until {
		s.w.run(s.w.between(0, 40*time.Millisecond))
		s.step()
		s.runClients()
		for _, n := range s.w.nodes {
			s.w.check.tryLeaseRead(n)
		}
	}
}

// play runs one schedule and returns the violation, if there is one.
func play(seed uint64, p profile) (c *checker, bad error) {
	return playInto(nil, seed, p)
}

// playInto also writes the story down.
func playInto(out *strings.Builder, seed uint64, p profile) (c *checker, bad error) {
	bad = violations(func() {
		s := newSchedule(seed, p, out)
		c = s.w.check
		s.play()
		s.stabilize()
	})
	if bad != nil {
		bad = fmt.Errorf("seed %d: %w", seed, bad)
	}
	return c, bad
}

// violations runs do and returns the violation or broken invariant that stopped
// it, if one did.
func violations(do func()) (bad error) {
	defer func() {
		switch x := recover().(type) {
		case nil:
		case violation:
			bad = errors.New(string(x))
		case string:
			bad = errors.New("panic: " + x)
		default:
			panic(x)
		}
	}()
	do()
	return nil
}
