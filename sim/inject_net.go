package sim

import (
	"slices"
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/sim/fault"
)

// pair is one direction between two places.
type pair struct{ from, to int }

// network is faults of the network.
func (t *faults) network(n *node, f *Fault) bool {
	switch f.Class {
	case fault.Isolate, fault.IsolateIn, fault.IsolateOut, fault.Bridge, fault.Halves, fault.Ring:
		return t.cut(t.separated(n, f), f)
	case fault.CutOneWay:
		return t.cut(t.pairs(n, f, false), f)
	case fault.Cut:
		return t.cut(t.pairs(n, f, true), f)
	case fault.Flap:
		turn := max(partition.Time(f.Arg)*time.Millisecond, 5*time.Millisecond)
		for at := partition.Time(0); at < f.For && at < 100*turn; at += 2 * turn {
			t.later(at, Fault{Class: fault.Cut, At: f.At, For: turn, Node: fault.Target(n.ord), Other: f.Other})
		}
	case fault.Reset:
		for _, p := range t.pairs(n, f, false) {
			t.w.net.reset(p.from, p.to)
		}
	case fault.Replay:
		for _, p := range t.pairs(n, f, false) {
			t.w.net.replay(p.from, p.to, int(min(f.Arg, keptOld)))
		}
	default:
		return t.spoil(n, f)
	}
	return true
}

// spoil makes links bad in another way than cutting them.
func (t *faults) spoil(n *node, f *Fault) bool {
	pairs := t.pairs(n, f, true)
	if len(pairs) == 0 {
		return false
	}
	share := min(int(f.Arg), 1000)
	long := min(partition.Time(f.Arg)*time.Microsecond, 2*time.Second)
	t.each(pairs, f, func(l *link, sign int) {
		switch f.Class {
		case fault.Loss:
			l.loss += sign * share
		case fault.Duplicate:
			l.repeat += sign * share
		case fault.Corrupt:
			l.corrupt += sign * share
		case fault.Delay:
			l.delay += partition.Time(sign) * long
		case fault.Reorder:
			l.jitter += partition.Time(sign) * long
		case fault.KindDrop:
			if sign > 0 {
				l.drops |= 1 << (f.Arg % messageKinds)
			} else {
				l.drops = 0
			}
		}
	})
	if f.Class == fault.Clog {
		pairs = oneWay(n, pairs, f.Arg)
		for _, p := range pairs {
			t.w.net.link(p.from, p.to).clogs++
		}
		t.lasts(f, func() {
			for _, p := range pairs {
				t.w.net.unclog(p.from, p.to)
			}
		})
	}
	return true
}

// oneWay are the links that lead to a node, with 1, or away from it, with 2, and
// all of them otherwise.
func oneWay(n *node, of []pair, way uint64) []pair {
	return slices.DeleteFunc(of, func(p pair) bool {
		return way == 1 && p.to != n.ord || way == 2 && p.from != n.ord
	})
}

// each changes links now, and back at the end.
func (t *faults) each(pairs []pair, f *Fault, change func(l *link, sign int)) {
	for _, p := range pairs {
		change(t.w.net.link(p.from, p.to), 1)
	}
	t.lasts(f, func() {
		for _, p := range pairs {
			change(t.w.net.link(p.from, p.to), -1)
		}
	})
}

// cut cuts links now and heals them at the end. Connections do not outlive it. Some
// cuts are noticed at once, as when a cable is pulled; the others only by what does
// not come any more.
func (t *faults) cut(pairs []pair, f *Fault) bool {
	if len(pairs) == 0 {
		return false
	}
	noticed := share(t.w.rnd.two(onNotice, f.ID(), 0), t.w.k.Noticed)
	for _, p := range pairs {
		t.w.net.cut(p.from, p.to)
		if noticed {
			t.w.net.reset(p.from, p.to)
		}
	}
	t.lasts(f, func() {
		for _, p := range pairs {
			t.w.net.uncut(p.from, p.to)
			if t.w.k.Stream {
				t.w.net.reset(p.from, p.to)
			}
		}
	})
	return true
}

// pairs are the links that a fault names: between its two nodes, or all of one.
func (t *faults) pairs(n *node, f *Fault, both bool) (list []pair) {
	o := t.resolve(f.Other, f)
	for _, x := range t.w.nodes {
		if x == n || o != nil && o != n && x != o {
			continue
		}
		list = append(list, pair{n.ord, x.ord})
		if both {
			list = append(list, pair{x.ord, n.ord})
		}
	}
	return list
}

// separated are the links that a shape of partition cuts.
func (t *faults) separated(n *node, f *Fault) (list []pair) {
	count := len(t.w.nodes)
	half := []bool(nil)
	if f.Class == fault.Bridge || f.Class == fault.Halves {
		half = t.bits(f.Arg)
	}
	for a := range count {
		for b := range count {
			cut := false
			switch f.Class {
			case fault.Isolate:
				cut = a == n.ord || b == n.ord
			case fault.IsolateIn:
				cut = b == n.ord
			case fault.IsolateOut:
				cut = a == n.ord
			case fault.Bridge:
				cut = a != n.ord && b != n.ord && half[a] != half[b]
			case fault.Halves:
				cut = half[a] != half[b]
			case fault.Ring:
				d := (a - b + count) % count
				cut = d != 1 && d != count-1
			}
			if cut && a != b {
				list = append(list, pair{a, b})
			}
		}
	}
	return list
}
