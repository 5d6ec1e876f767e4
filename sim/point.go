package sim

import (
	"strings"
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/lease"
	"pando.dev/pando/partition/replica"
	"pando.dev/pando/sim/fault"
	"pando.dev/pando/wal"
)

// points are the moments of the code at which a fault is interesting: how often
// each node came by, and what follows.
type points struct {
	w       *world
	names   []string
	hashes  []uint64
	seen    []uint64 // by point and node
	wanted  []bool   // by point: PointNames asks for it
	listed  [][]PointFault
	classes []fault.Class
	lease   int // where the points of this part begin
	wal     int
	merge   int
}

// oftenAfter is how often a node has to come by a point until faults there become
// rarer: what is rare deserves more of them.
const oftenAfter = 32

// pointNames are the points of the code: of a replica, of its node's leases, and of
// its log, each in their own order.
func pointNames() (names []string) {
	for _, x := range replica.Points() {
		names = append(names, "replica."+x.String())
	}
	for _, x := range lease.Points() {
		names = append(names, "lease."+x.String())
	}
	for _, x := range wal.Points() {
		names = append(names, "wal."+x.String())
	}
	return names
}

func newPoints(w *world) points {
	p := points{w: w, names: append(pointNames(), mergePoints[:]...), lease: len(replica.Points())}
	p.wal = p.lease + len(lease.Points())
	p.merge = p.wal + len(wal.Points())
	n := len(p.names)
	p.seen, p.wanted, p.hashes, p.listed = make([]uint64, n*len(w.nodes)), make([]bool, n), make([]uint64, n), make([][]PointFault, n)
	for i, name := range p.names {
		p.wanted[i], p.hashes[i] = w.k.PointNames == "", nameHash(name)
		for _, x := range strings.Split(w.k.PointNames, ",") {
			x = strings.TrimSpace(x)
			p.wanted[i] = p.wanted[i] || x == name || strings.HasSuffix(x, ".") && strings.HasPrefix(name, x)
		}
		for _, f := range w.plan.Points {
			if f.Point == name {
				p.listed[i] = append(p.listed[i], f)
			}
		}
	}
	for _, name := range strings.Split(w.k.PointClasses, ",") {
		if c, err := fault.Parse(strings.TrimSpace(name)); err == nil {
			p.classes = append(p.classes, c)
		}
	}
	if len(p.classes) == 0 {
		p.classes = []fault.Class{fault.Kill, fault.Kill, fault.PowerCut, fault.PowerCut, fault.Pause, fault.Isolate}
	}
	return p
}

func (p *points) addTo(m Marks) {
	for i, n := range p.seen {
		if n > 0 {
			m[p.names[i/len(p.w.nodes)]] += n
		}
	}
}

// reached is told that a node came by a point. A fault may follow.
func (p *points) reached(n *node, i int) {
	at := &p.seen[i*len(p.w.nodes)+n.ord]
	*at++
	nth := *at
	if p.w.tracing() {
		p.w.tracef("%s comes by %s", n, p.names[i])
	}
	if p.w.quiet || n.crashing || !n.up {
		return
	}
	for _, f := range p.listed[i] {
		if f.Node == n.ord && f.Occurrence == nth {
			p.follow(n, f)
			return
		}
	}
	rate := p.w.k.PointRate
	if rate <= 0 || !p.wanted[i] {
		return
	}
	h := p.w.rnd.two(onPoint, p.hashes[i]^uint64(n.ord), nth)
	if p.w.k.PointNames == "" { // nobody has said which are worth it
		rate /= float64(1 + nth/oftenAfter)
	}
	if !share(h, rate) {
		return
	}
	h = mix(h ^ 1)
	f := PointFault{
		Point: p.names[i], Node: n.ord, Occurrence: nth, Class: p.classes[pick(h, len(p.classes))],
		After: between(mix(h^2), 0, 4*time.Millisecond), For: between(mix(h^3), 5*time.Millisecond, 800*time.Millisecond),
	}
	if share(mix(h^4), p.w.k.FastRestart) {
		f.For = between(mix(h^5), 0, 20*time.Millisecond)
	}
	if f.Class == fault.FlipLog {
		f.For = 0 // under the process that came by
	}
	p.follow(n, f)
}

func nameHash(name string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * 0x100000001b3
	}
	return h
}

// follow lets the fault come.
func (p *points) follow(n *node, f PointFault) {
	n.crashing = true
	p.w.fired = append(p.w.fired, f)
	x := p.w.eng.after(f.After, evPoint, n.ord)
	x.a, x.b, x.c = uint64(f.Class), uint64(f.For), uint64(n.life)
}

// pointFault lets a fault at a point happen.
func (t *faults) pointFault(n *node, x *event) {
	if t.w.quiet || !n.up || uint64(n.life) != x.c {
		return
	}
	n.crashing = false
	t.inject(&Fault{At: t.w.eng.now, For: partition.Time(x.b), Class: fault.Class(x.a), Node: fault.Target(n.ord), Other: fault.None})
}
