package detector

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"

	"pando.dev/pando/partition"
)

// What a link is usually like is the mean over about usualRounds rounds, and is
// not known before learnRounds.
const (
	usualRounds = 1800
	learnRounds = 30
)

// link is what both ends say of the time to the other.
type link struct {
	way [2]way // from the lesser node, from the greater
}

// way is one end's view.
type way struct {
	series
	usual  float64 // logarithm of the time it usually takes
	rounds int
	heard  partition.Time
	now    float64 // logarithm of the last figure over the usual one
}

// linkOf names the link between two nodes.
func linkOf(a, b partition.NodeID) Claim {
	return Claim{Kind: SlowLink, Node: min(a, b), Peer: max(a, b)}
}

// least is the sum that both ends agree on, since when they do.
func (l *link) least() float64 { return min(l.way[0].score, l.way[1].score) }

func (l *link) since() partition.Time { return max(l.way[0].since, l.way[1].since) }

// raised reports whether both ends complain.
func (l *link) raised() bool { return l.way[0].raised && l.way[1].raised }

// compareLinks compares each way with what it usually is, less what all ways are
// at the moment, and blames the nodes that most slow links have in common.
func (d *Detector) compareLinks(now partition.Time, heard []Sample) {
	var fresh []*way
	var all []float64
	for i := range heard {
		for _, p := range heard[i].Peers {
			if w := d.way(heard[i].Node, p); w != nil && w.heard != now {
				w.heard = now
				w.now = math.Log(max(float64(p.RTT), float64(d.c.LinkFloor))) - w.usual
				if w.own = float64(p.RTT); w.learn() {
					fresh, all = append(fresh, w), append(all, w.now)
				}
			}
		}
	}
	if len(all) > 0 {
		slices.Sort(all)
	}
	for _, w := range fresh {
		wave := middle(all)
		if d.c.plant == noComparison {
			wave = 0
		}
		w.peers = len(all)
		w.ref = math.Exp(w.usual)
		if w.add(&d.c, now, w.now-max(wave, 0)); w.idle() {
			w.usual += w.now / usualRounds
		}
	}
	d.forgetLinks(now)
	d.blame(now)
}

// way finds, or begins, what a node says of its link to another that is heard as
// well.
func (d *Detector) way(from partition.NodeID, p Peer) *way {
	if p.RTT <= 0 || p.Node == from || d.by[p.Node] == nil {
		return nil
	}
	key := linkOf(from, p.Node)
	l := d.links[key]
	if l == nil {
		l = &link{}
		d.links[key] = l
	}
	if from == key.Node {
		return &l.way[0]
	}
	return &l.way[1]
}

// learn takes the first figures for the usual ones; true once that is over.
func (w *way) learn() bool {
	if w.rounds < learnRounds {
		w.rounds++
		w.usual += w.now / float64(w.rounds)
		return false
	}
	return true
}

func (d *Detector) forgetLinks(now partition.Time) {
	maps.DeleteFunc(d.links, func(key Claim, l *link) bool {
		return d.by[key.Node] == nil || d.by[key.Peer] == nil || now-max(l.way[0].heard, l.way[1].heard) > d.c.Window
	})
}

// blame finds the nodes most of whose links are slow: two at least.
func (d *Detector) blame(now partition.Time) {
	counts := make(map[partition.NodeID][2]int)
	any := false
	for key, l := range d.links { // order: sums
		any = any || l.raised()
		for _, id := range []partition.NodeID{key.Node, key.Peer} {
			x := counts[id]
			if l.raised() {
				x[0]++
			}
			x[1]++
			counts[id] = x
		}
	}
	for _, n := range d.nodes {
		x := counts[n.id]
		was := n.blamed
		n.blamed = any && x[0] >= 2 && 2*x[0] > x[1] && d.c.plant != noBlame
		if n.of = x; n.blamed && !was {
			n.began = now
		}
	}
}

// slowLinks lists the links of which both ends complain and neither is to blame.
func (d *Detector) slowLinks() []Claim {
	var out []Claim
	for key, l := range d.links { // order: sorted below
		if l.raised() && !d.by[key.Node].blamed && !d.by[key.Peer].blamed {
			out = append(out, key)
		}
	}
	slices.SortFunc(out, compareClaims)
	return out
}

// flapScore makes the number of events comparable with the sums.
func (d *Detector) flapScore(events int) float64 {
	return d.c.Limit * float64(events) / float64(d.c.Flaps)
}

// flaps says why a node is one that comes and goes: it restarted too often, or two
// others lost it too often.
func (d *Detector) flaps(n *node, now partition.Time) (score float64, why string) {
	if boots := d.recent(n.boots, now); boots >= d.c.Flaps {
		return d.flapScore(boots), bootEvidence(n, boots, d.c.Window)
	}
	if by := d.losers(n, now); len(by) >= 2 {
		return d.flapScore(d.c.Flaps), lossEvidence(n, by, d.c)
	}
	return 0, ""
}

// losers are those who lost the node too often.
func (d *Detector) losers(n *node, now partition.Time) (by []partition.NodeID) {
	for _, id := range slices.Sorted(maps.Keys(n.lost)) {
		if d.recent(n.lost[id], now) >= d.c.Flaps {
			by = append(by, id)
		}
	}
	return by
}

func (n *node) firstFlap() (first partition.Time) {
	all := slices.Clone(n.boots)
	for _, id := range slices.Sorted(maps.Keys(n.lost)) {
		all = append(all, n.lost[id]...)
	}
	if len(all) > 0 {
		first = slices.Min(all)
	}
	return first
}

// lostLinks are those that only two nodes lose again and again.
func (d *Detector) lostLinks(now partition.Time) []finding {
	var out []finding
	for _, n := range d.nodes {
		for _, id := range d.losers(n, now) {
			other := d.by[id]
			if other == nil || d.comesAndGoes(n, now) || d.comesAndGoes(other, now) {
				continue
			}
			out = append(out, finding{
				Claim: linkOf(n.id, id), score: d.flapScore(d.c.Flaps), since: slices.Min(n.lost[id]),
				evidence: func() string { return lossEvidence(n, []partition.NodeID{id}, d.c) + ", no others" },
			})
		}
	}
	slices.SortFunc(out, func(a, b finding) int { return cmp.Or(compareClaims(a.Claim, b.Claim), cmp.Compare(a.since, b.since)) })
	return out
}

func (d *Detector) comesAndGoes(n *node, now partition.Time) bool {
	_, why := d.flaps(n, now)
	return why != ""
}

// round3 keeps three digits of a duration.
func round3(x time.Duration) time.Duration {
	unit := time.Duration(1)
	for x/unit >= 1000 {
		unit *= 10
	}
	return x.Round(unit)
}
