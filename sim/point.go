package sim

import (
	"slices"
	"strings"
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
	"pando.dev/pando/sim/fault"
)

// points are the moments of the code at which a fault is interesting: how often
// each node came by, and what follows.
type points struct {
	w       *world
	index   map[string]int
	names   []string
	seen    [][]uint64 // by point and node
	wanted  []bool     // by point: PointNames asks for it
	classes []fault.Class
	listed  map[string][]PointFault
}

func newPoints(w *world) points {
	p := points{w: w, index: map[string]int{}, listed: map[string][]PointFault{}}
	for _, name := range strings.Split(w.k.PointClasses, ",") {
		if c, err := fault.Parse(strings.TrimSpace(name)); err == nil {
			p.classes = append(p.classes, c)
		}
	}
	if len(p.classes) == 0 {
		p.classes = []fault.Class{fault.Kill, fault.Kill, fault.PowerCut, fault.PowerCut, fault.Pause, fault.Isolate}
	}
	for _, f := range w.plan.Points {
		p.listed[f.Point] = append(p.listed[f.Point], f)
	}
	return p
}

func (p *points) find(name string) int {
	i, ok := p.index[name]
	if !ok {
		i = len(p.names)
		p.index[name] = i
		p.names = append(p.names, name)
		p.seen = append(p.seen, make([]uint64, len(p.w.nodes)))
		wanted := p.w.k.PointNames == ""
		for _, x := range strings.Split(p.w.k.PointNames, ",") {
			x = strings.TrimSpace(x)
			wanted = wanted || x == name || strings.HasSuffix(x, ".") && strings.HasPrefix(name, x)
		}
		p.wanted = append(p.wanted, wanted)
	}
	return i
}

func (p *points) addTo(m Marks) {
	for i, name := range p.names {
		for _, n := range p.seen[i] {
			m[name] += n
		}
	}
}

// point is told of what the machine calls a change of role.
func (h *host) point(e replica.TraceEvent) {
	if h.n.w.tracing() {
		h.n.w.tracef("%s %s, epoch %s", h, e.What, e.Epoch)
	}
	h.n.w.points.reached(h.n, pointName(e.What))
}

func pointName(what string) string {
	switch what {
	case "promised":
		return "replica.promised"
	case "leads":
		return "replica.leads"
	case "became master":
		return "replica.became_master"
	case "serves":
		return "replica.serves"
	case "snipped":
		return "replica.snipped"
	case "knows master":
		return "replica.knows_master"
	case "gathers":
		return "replica.gathers"
	case "probes":
		return "replica.probes"
	case "stepped down":
		return "replica.stepped_down"
	}
	return "replica." + strings.ReplaceAll(what, " ", "_")
}

// reached is told that a node came by a point. A fault may follow.
func (p *points) reached(n *node, name string) {
	i := p.find(name)
	p.seen[i][n.ord]++
	w, nth := p.w, p.seen[i][n.ord]
	if w.quiet || n.crashing || !n.up {
		return
	}
	if list := p.listed[name]; len(list) > 0 {
		at := slices.IndexFunc(list, func(f PointFault) bool { return f.Node == n.ord && f.Occurrence == nth })
		if at >= 0 {
			p.follow(n, list[at])
		}
	}
	if w.k.PointRate <= 0 || !p.wanted[i] {
		return
	}
	h := w.rnd.two(onPoint, nameHash(name)^uint64(n.ord), nth)
	if !share(h, w.k.PointRate) {
		return
	}
	h = mix(h ^ 1)
	f := PointFault{
		Point: name, Node: n.ord, Occurrence: nth, Class: p.classes[pick(h, len(p.classes))],
		After: between(mix(h^2), 0, 4*time.Millisecond), For: between(mix(h^3), 5*time.Millisecond, 800*time.Millisecond),
	}
	if share(mix(h^4), w.k.FastRestart) {
		f.For = between(mix(h^5), 0, 20*time.Millisecond)
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
