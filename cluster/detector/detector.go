package detector

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"

	"pando.dev/pando/partition"
)

// maxHistory bounds the verdicts that are kept after their end.
const maxHistory = 64

// The figures of a node that are compared with the others'.
const (
	figSync = iota
	figLate
	figQueue
	figures
)

// Detector judges what one node hears. It has one caller at a time.
type Detector struct {
	c      Config
	last   partition.Time // of the round before; 0: there was none
	missed uint64
	number uint64 // of the last verdict

	nodes  []*node // ordered by id
	by     map[partition.NodeID]*node
	links  map[Claim]*link
	groups map[partition.GroupID]*group

	current []*Verdict // ordered by claim
	history []Verdict  // the oldest first
}

// node is what is remembered of a node.
type node struct {
	id     partition.NodeID
	heard  partition.Time
	boot   uint64
	fig    [figures]series
	boots  []partition.Time                      // the last restarts, at most Flaps
	lost   map[partition.NodeID][]partition.Time // by whom it was lost, and when
	downs  map[partition.NodeID]uint64           // the peers' counters at this node's last word
	claims []Claim
	sync   float64 // what its syncs took when it last had any, at syncAt
	syncAt partition.Time
	// blamed: most of its links are slow; of is how many of how many.
	blamed bool
	of     [2]int
	began  partition.Time
}

// group is what is remembered of a group that is its node's heaviest.
type group struct {
	series
	on   partition.NodeID
	seen partition.Time
}

// New returns a detector that has heard nothing.
func New(c Config) *Detector {
	return &Detector{
		c: c.withDefaults(), by: make(map[partition.NodeID]*node), links: make(map[Claim]*link), groups: make(map[partition.GroupID]*group),
	}
}

// Observe is told what was heard in the second before now: at most one sample of
// each node, this one's among them. It returns the verdicts that began, were
// confirmed or ended. Samples that Check refuses are not to be given.
func (d *Detector) Observe(now partition.Time, heard []Sample) []Verdict {
	late := d.last != 0 && now-d.last > 2*d.c.Every
	d.last = now
	if late {
		d.missed++ // what came meanwhile is no second's worth: it would look like everybody's fault
		return nil
	}
	heard = slices.Clone(heard[:min(len(heard), MaxNodes)])
	slices.SortFunc(heard, func(a, b Sample) int { return cmp.Compare(a.Node, b.Node) })
	heard = slices.CompactFunc(heard, func(a, b Sample) bool { return a.Node == b.Node })
	d.meet(now, heard)
	d.compareNodes(now, heard)
	d.compareLinks(now, heard)
	d.compareGroups(now, heard)
	return d.judge(now)
}

// meet notes who is there, restarts and losses, and forgets who is gone.
func (d *Detector) meet(now partition.Time, heard []Sample) {
	for _, s := range heard {
		n := d.by[s.Node]
		if n == nil {
			n = &node{id: s.Node, boot: s.Boot, lost: make(map[partition.NodeID][]partition.Time), downs: make(map[partition.NodeID]uint64)}
			d.by[s.Node] = n
			at, _ := slices.BinarySearchFunc(d.nodes, s.Node, func(n *node, id partition.NodeID) int { return cmp.Compare(n.id, id) })
			d.nodes = slices.Insert(d.nodes, at, n)
		}
		if s.Boot != n.boot {
			n.boot, n.boots = s.Boot, d.note(n.boots, now, 1)
			clear(n.downs) // its counters begin again
		}
		n.heard, n.claims = now, s.Claims
	}
	for i := range heard {
		d.noteLosses(now, &heard[i])
	}
	for _, n := range d.nodes {
		if now-n.heard > 3*d.c.Every {
			n.claims = nil // nobody who is silent says anything
		}
	}
	d.nodes = slices.DeleteFunc(d.nodes, func(n *node) bool {
		gone := now-n.heard > d.c.Window
		if gone {
			delete(d.by, n.id)
			for _, other := range d.nodes {
				if other != nil {
					delete(other.lost, n.id)
				}
			}
		}
		return gone
	})
}

// noteLosses notes which peers the node has lost since its last word.
func (d *Detector) noteLosses(now partition.Time, s *Sample) {
	me := d.by[s.Node]
	for _, p := range s.Peers {
		was, known := me.downs[p.Node]
		me.downs[p.Node] = p.Downs
		if other := d.by[p.Node]; other != nil && known && p.Downs > was {
			other.lost[s.Node] = d.note(other.lost[s.Node], now, p.Downs-was)
		}
	}
	if len(me.downs) > 2*MaxPeers {
		clear(me.downs) // names that no longer come; what is lost is a second's news
	}
}

// note adds k events and keeps as many as matter.
func (d *Detector) note(times []partition.Time, now partition.Time, k uint64) []partition.Time {
	for range min(k, uint64(d.c.Flaps)) {
		times = append(times, now)
	}
	return times[max(0, len(times)-d.c.Flaps):]
}

// recent is how many of the events lie within the window.
func (d *Detector) recent(times []partition.Time, now partition.Time) (n int) {
	for _, t := range times {
		if now-t <= d.c.Window {
			n++
		}
	}
	return n
}

// figure is one figure of a sample, and below what it does not matter.
func (d *Detector) figure(s *Sample, which int) (own, floor float64) {
	switch which {
	case figSync:
		return float64(s.Sync), float64(d.c.SyncFloor)
	case figLate:
		return float64(s.Late), float64(d.c.LateFloor)
	}
	return float64(s.Queue), float64(d.c.QueueFloor)
}

// compareNodes compares each node with the median of the others. Two others at
// least: of two nodes nobody can say which is the odd one.
func (d *Detector) compareNodes(now partition.Time, heard []Sample) {
	for which := range figures {
		var all []float64
		for i := range heard {
			own, _ := d.figure(&heard[i], which)
			if which == figSync {
				own = d.by[heard[i].Node].lastSync(&d.c, now, own)
			}
			if own > 0 || which != figSync {
				all = append(all, own)
			}
		}
		slices.Sort(all)
		for i := range heard {
			f := &d.by[heard[i].Node].fig[which]
			own, floor := d.figure(&heard[i], which)
			switch {
			case len(all) < 3 || own == 0 && which == figSync:
				f.rest(&d.c, now)
			case own <= floor && f.idle(): // the usual case, without a logarithm
			default:
				f.feed(&d.c, now, own, medianOf(all, own), floor, len(all)-1)
			}
		}
	}
}

// lastSync is what a node's syncs took when it last had any: if all wait for the
// one whose disk hangs, they have none, and had some before. A log that was idle
// for a minute says nothing any more; a queue that is empty does.
func (n *node) lastSync(c *Config, now partition.Time, own float64) float64 {
	switch {
	case own > 0:
		n.sync, n.syncAt = own, now
	case now-n.syncAt > 60*c.Every:
		return 0
	}
	return n.sync
}

// compareGroups compares the heaviest group of each node with what a whole node
// carries: no hand-over can even that out.
func (d *Detector) compareGroups(now partition.Time, heard []Sample) {
	var all []float64
	for i := range heard {
		all = append(all, float64(heard[i].Load))
	}
	slices.Sort(all)
	for i := range heard {
		h := heard[i].Hot
		if h.Group == 0 || len(all) < 3 {
			continue
		}
		g := d.groups[h.Group]
		if g == nil {
			g = &group{}
			d.groups[h.Group] = g
		}
		if g.seen == now {
			continue // of two that say they are its master, one is enough
		}
		g.seen, g.on = now, heard[i].Node
		g.feed(&d.c, now, float64(h.Load), medianOf(all, float64(heard[i].Load)), float64(d.c.LoadFloor), len(all)-1)
	}
	for _, id := range slices.Sorted(maps.Keys(d.groups)) {
		g := d.groups[id]
		if g.seen != now {
			g.add(&d.c, now, 0) // another is heavier now
		}
		if g.idle() {
			delete(d.groups, id)
		}
	}
}

// Claims is what this node finds by itself, for its next sample. A node that is
// late itself finds everybody late, so it keeps silent about others.
func (d *Detector) Claims() []Claim {
	found := d.opinions(d.last)
	var out []Claim
	for _, f := range found[:min(len(found), MaxClaims)] {
		out = append(out, f.Claim)
	}
	return out
}

// opinions is what is raised, without what a sick node finds wrong with others.
func (d *Detector) opinions(now partition.Time) []finding {
	found := d.find(now)
	me := d.by[d.c.Self]
	if me == nil || me.fig[figLate].score <= d.c.Limit/2 && !me.blamed || d.c.plant == ownFaultIgnored {
		return found
	}
	return slices.DeleteFunc(found, func(f finding) bool { return f.Node != d.c.Self || f.Kind == SlowLink })
}

// Verdicts are those in force, confirmed and not, ordered by kind and subject.
func (d *Detector) Verdicts() []Verdict {
	out := make([]Verdict, 0, len(d.current))
	for _, v := range d.current {
		out = append(out, *v)
	}
	return out
}

// History is the last verdicts that have ended, the oldest first.
func (d *Detector) History() []Verdict { return slices.Clone(d.history) }

// Heard is how many nodes spoke in the last rounds, and Missed how many rounds
// this node missed itself.
func (d *Detector) Heard() (n int) {
	for _, x := range d.nodes {
		if d.last-x.heard <= 3*d.c.Every {
			n++
		}
	}
	return n
}

// Missed is how many rounds came so late that they were not counted.
func (d *Detector) Missed() uint64 { return d.missed }

// finding is what this node's own figures say.
type finding struct {
	Claim
	score    float64
	since    partition.Time
	evidence func() string
	own, ref float64
}

// of is what a series says.
func (s *series) of(c Claim, evidence func() string) finding {
	return finding{Claim: c, score: s.score, since: s.since, own: s.own, ref: s.ref, evidence: evidence}
}

// find lists what is raised, ordered by kind and subject.
func (d *Detector) find(now partition.Time) []finding {
	var out []finding
	for _, n := range d.nodes {
		out = append(out, d.findNode(n, now)...)
	}
	for _, key := range d.slowLinks() {
		l := d.links[key]
		out = append(out, finding{Claim: key, score: l.least(), since: l.since(), evidence: func() string { return l.evidence(d, now) }})
	}
	out = append(out, d.lostLinks(now)...)
	for _, id := range slices.Sorted(maps.Keys(d.groups)) {
		if g := d.groups[id]; g.raised {
			out = append(out, g.of(Claim{Kind: HotGroup, Group: id}, func() string { return g.evidence(now) }))
		}
	}
	slices.SortStableFunc(out, func(a, b finding) int { return compareClaims(a.Claim, b.Claim) })
	return slices.CompactFunc(out, func(a, b finding) bool { return a.Claim == b.Claim })
}

func compareClaims(a, b Claim) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Peer, b.Peer), cmp.Compare(a.Group, b.Group))
}

// findNode lists what is wrong with a node: of two signs of overload, the
// stronger one.
func (d *Detector) findNode(n *node, now partition.Time) []finding {
	var out []finding
	if f := &n.fig[figSync]; f.raised {
		out = append(out, f.of(Claim{Kind: SlowDisk, Node: n.id}, func() string { return f.syncEvidence(now) }))
	}
	over := Claim{Kind: Overloaded, Node: n.id}
	late, queue := &n.fig[figLate], &n.fig[figQueue]
	switch {
	case late.raised && (late.score >= queue.score || !queue.raised):
		out = append(out, late.of(over, func() string { return late.lateEvidence(now) }))
	case queue.raised:
		out = append(out, queue.of(over, func() string { return queue.queueEvidence(now) }))
	case n.blamed:
		out = append(out, finding{Claim: over, score: d.c.Limit, since: n.began, evidence: func() string { return n.linkEvidence(now) }})
	}
	if score, why := d.flaps(n, now); why != "" {
		out = append(out, finding{Claim: Claim{Kind: Flapping, Node: n.id}, score: score, since: n.firstFlap(), evidence: func() string { return why }})
	}
	return out
}

// judge compares what is found and claimed with the verdicts in force.
func (d *Detector) judge(now partition.Time) []Verdict {
	found := d.opinions(now)
	said := make(map[Claim][]partition.NodeID)
	for _, f := range found {
		said[f.Claim] = append(said[f.Claim], d.c.Self)
	}
	for _, n := range d.nodes {
		for _, c := range n.claims {
			if c.Kind != 0 && c.Kind < kinds && n.id != d.c.Self && !slices.Contains(said[c], n.id) {
				said[c] = append(said[c], n.id)
			}
		}
	}
	var changed []Verdict
	d.current = slices.DeleteFunc(d.current, func(v *Verdict) bool {
		if d.holds(v.Claim, said) {
			return false
		}
		v.Until = now
		changed = append(changed, *v)
		d.history = append(d.history, *v)
		d.history = d.history[max(0, len(d.history)-maxHistory):]
		return true
	})
	for _, c := range slices.SortedFunc(maps.Keys(said), compareClaims) {
		if d.holds(c, said) {
			changed = append(changed, d.update(now, c, said[c], found)...)
		}
	}
	slices.SortFunc(d.current, func(a, b *Verdict) int { return compareClaims(a.Claim, b.Claim) })
	return changed
}

// holds reports whether a claim is a verdict: this node's own, or one that two
// others agree on.
func (d *Detector) holds(c Claim, said map[Claim][]partition.NodeID) bool {
	by := said[c]
	return len(by) >= 2 || len(by) == 1 && by[0] == d.c.Self
}

// own is what this node's figures say of a claim: what it found, or, of one that
// others made first, how far it is.
func (d *Detector) own(now partition.Time, c Claim, found []finding) (finding, bool) {
	if i := slices.IndexFunc(found, func(f finding) bool { return f.Claim == c }); i >= 0 {
		return found[i], true
	}
	n, g := d.by[c.Node], d.groups[c.Group]
	switch {
	case c.Kind == SlowDisk && n != nil && n.fig[figSync].score > 0:
		f := &n.fig[figSync]
		return f.of(c, func() string { return f.syncEvidence(now) }), true
	case c.Kind == HotGroup && g != nil && g.score > 0:
		return g.of(c, func() string { return g.evidence(now) }), true
	}
	return finding{}, false
}

// update brings a verdict up to date, and returns it if it is new or newly
// confirmed.
func (d *Detector) update(now partition.Time, c Claim, by []partition.NodeID, found []finding) []Verdict {
	i, ok := slices.BinarySearchFunc(d.current, c, func(v *Verdict, c Claim) int { return compareClaims(v.Claim, c) })
	if !ok {
		d.number++
		v := &Verdict{ID: fmt.Sprintf("%s:%s:%d", c.Kind, c.Subject(), d.number), Claim: c, Subject: c.Subject(), Since: now, Limit: d.c.Limit}
		d.current = slices.Insert(d.current, i, v)
	}
	v := d.current[i]
	slices.Sort(by)
	confirmed := len(by) >= 2 || d.c.plant == noConfirmation
	changed := !ok || confirmed != v.Confirmed
	v.By, v.Confirmed = by, confirmed
	if f, ok := d.own(now, c, found); ok {
		v.Score, v.Since = math.Round(f.score*10)/10, f.since
		v.Evidence, v.Own, v.Usual = f.evidence(), f.own, f.ref
	} else {
		v.Score, v.Own, v.Usual, v.Evidence = 0, 0, 0, "the figures here do not show it"
	}
	v.Evidence += "; said by " + names(by)
	if !changed {
		return nil
	}
	return []Verdict{*v}
}
