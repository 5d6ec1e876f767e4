//go:build linux

package main

import (
	"context"
	"slices"
	"time"

	"pando.dev/pando/actors"
	"pando.dev/pando/internal/chaos"
	"pando.dev/pando/partition"
	"pando.dev/pando/sim/fault"
)

// networkInjuries are what befalls the ways between the namespaces.
func networkInjuries() []injury {
	ms := time.Millisecond
	short, long := [2]time.Duration{200 * ms, 2 * time.Second}, [2]time.Duration{300 * ms, 6 * time.Second}
	list := []injury{
		{class: fault.CutOneWay, weight: 5, live: true, hold: long, do: cutOneWay},
		{class: fault.Cut, weight: 4, live: true, hold: long, do: cutTwo},
		{class: fault.Isolate, weight: 8, takes: 1, live: true, hold: short, do: isolate(true, true)},
		{class: fault.IsolateIn, weight: 3, takes: 1, live: true, hold: long, do: isolate(true, false)},
		{class: fault.IsolateOut, weight: 3, takes: 1, live: true, hold: long, do: isolate(false, true)},
		{class: fault.Bridge, weight: 5, live: true, hold: long, do: bridge},
		{class: fault.Halves, weight: 4, takes: 2, hold: long, do: halves},
		{class: fault.Ring, weight: 4, live: true, hold: long, do: ring},
		{class: fault.Flap, weight: 4, hold: long, do: onLinks(func(n *nemesis) chaos.Way { return chaos.Way{Flap: n.between(30*ms, 700*ms)} })},
		{class: fault.Clog, weight: 4, takes: 1, hold: short, do: onLinks(func(*nemesis) chaos.Way { return chaos.Way{Hold: true} })},
		{class: fault.Loss, weight: 3, hold: short, do: onAll(func(n *nemesis) chaos.Way { return chaos.Way{Loss: 0.01 + 0.2*n.rng.Float64()} })},
		{class: fault.Delay, weight: 3, hold: short, do: onAll(func(n *nemesis) chaos.Way {
			return chaos.Way{Delay: n.between(ms, 80*ms), Jitter: n.between(0, 30*ms)}
		})},
		{class: fault.Duplicate, weight: 2, hold: short, do: onAll(func(n *nemesis) chaos.Way { return chaos.Way{Repeat: 0.3} })},
		{class: fault.Reorder, weight: 3, hold: short, do: onAll(func(n *nemesis) chaos.Way {
			return chaos.Way{Late: 0.2, LateBy: n.between(ms, 50*ms)}
		})},
		{class: fault.Replay, weight: 2, hold: short, do: onAll(func(*nemesis) chaos.Way { return chaos.Way{Replay: 0.2} })},
		{class: fault.Corrupt, weight: 2, hold: short, do: onLinks(func(n *nemesis) chaos.Way { return chaos.Way{Corrupt: 0.001 + 0.02*n.rng.Float64()} })},
		{class: fault.Reset, weight: 5, do: resetLinks},
		{class: fault.Blink, weight: 4, takes: labNodes, hold: short, do: blink},
	}
	for i := range list {
		list[i].group, list[i].network = "network", true
	}
	return list
}

// ways are directions between ports that something is done to.
type ways [][2]int

// both adds a pair in both directions.
func (w *ways) both(a, b int) { *w = append(*w, [2]int{a, b}, [2]int{b, a}) }

// set does the same to all, and returns what undoes it.
func (n *nemesis) set(w ways, way chaos.Way) func(context.Context) error {
	for _, at := range w {
		n.l.hub.Set(at[0], at[1], way)
	}
	return func(context.Context) error {
		for _, at := range w {
			n.l.hub.Set(at[0], at[1], chaos.Way{})
		}
		return nil
	}
}

func cutOneWay(_ context.Context, n *nemesis, p *patient) (func(context.Context) error, error) {
	w := ways{{p.port(), n.others(p)[0].port()}}
	if n.one(2) {
		w = ways{{w[0][1], w[0][0]}}
	}
	n.note("cut from port %d to %d", w[0][0], w[0][1])
	return n.set(w, chaos.Way{Cut: true}), nil
}

func cutTwo(_ context.Context, n *nemesis, p *patient) (func(context.Context) error, error) {
	var w ways
	w.both(p.port(), n.others(p)[0].port())
	n.note("cut between ports %d and %d", w[0][0], w[0][1])
	return n.set(w, chaos.Way{Cut: true}), nil
}

// isolate cuts a node off from the others. Both sets of clients reach it still,
// or one, or none: an old master answers wrongly when some ask it while others are
// served by the new one. By turns what is sent is lost, or refused, as if the
// process were dead; then others take over within milliseconds.
func isolate(in, out bool) deed {
	return func(_ context.Context, n *nemesis, p *patient) (func(context.Context) error, error) {
		ports := [][]int{nil, {clientsAt}, {othersAt}, {clientsAt, othersAt}}[n.rng.IntN(4)]
		for _, q := range n.others(p) {
			ports = append(ports, q.port())
		}
		way := chaos.Way{Cut: true}
		if n.one(2) {
			way = chaos.Way{Refuse: true}
		}
		n.note("%s cut off from ports %v, refused: %v", p.name, ports, way.Refuse)
		var w ways
		for _, port := range ports {
			if in {
				w = append(w, [2]int{port, p.port()})
			}
			if out {
				w = append(w, [2]int{p.port(), port})
			}
		}
		return n.set(w, way), nil
	}
}

// cutApart cuts two sets of nodes from each other.
func (n *nemesis) cutApart(a, b []*patient) func(context.Context) error {
	var w ways
	for _, p := range a {
		for _, q := range b {
			w.both(p.port(), q.port())
		}
	}
	return n.set(w, chaos.Way{Cut: true})
}

// bridge leaves one node that reaches two halves, which do not reach each other.
// By turns the halves are those that most groups can not be served in without the
// leader of the control group on the other side.
//
// Requests to the control group go over the node in the middle only if it has a
// seat: nobody else speaks for others. Over another node no mastership passes to
// the half that does not reach most seats, until the bridge ends.
func bridge(ctx context.Context, n *nemesis, p *patient) (func(context.Context) error, error) {
	sides := n.others(p)
	if n.one(2) {
		if worst := n.worstSides(ctx); worst != nil {
			p, sides = worst[0], worst[1:]
		}
	}
	n.beyond = p.ordinal >= labSeats
	n.note("only %s reaches both %s, %s and %s, %s", p.name, sides[0].name, sides[1].name, sides[2].name, sides[3].name)
	return n.cutApart(sides[:2], sides[2:]), nil
}

// worstSides tries every bridge: first the node, then one half, then the other.
// It counts the groups whose master is in the leader's half and most of whose
// members are in the other one.
func (n *nemesis) worstSides(ctx context.Context) (worst []*patient) {
	ctx, cancel := context.WithTimeout(ctx, lookWait)
	defer cancel()
	s, err := n.c.status(ctx)
	if err != nil {
		return nil
	}
	ps, err := n.c.partitions(ctx, "")
	if err != nil {
		return nil
	}
	most := 0
	for _, middle := range n.l.nodes {
		for _, a := range n.l.nodes {
			for _, b := range n.l.nodes {
				if a == middle || b == middle || a == b || a.id != s.Control.Leader {
					continue
				}
				here, there := n.sides(middle, a, b)
				count := 0
				for _, p := range ps {
					if among(here, p.Master) && 2*membersAmong(there, p) > len(p.Replicas) {
						count++
					}
				}
				if count > most {
					most, worst = count, slices.Concat([]*patient{middle}, here, there)
				}
			}
		}
	}
	return worst
}

// sides are the two nodes, and the two others.
func (n *nemesis) sides(middle, a, b *patient) (here, there []*patient) {
	for _, q := range n.l.nodes {
		if q != middle && q != a && q != b {
			there = append(there, q)
		}
	}
	return []*patient{a, b}, there
}

func among(nodes []*patient, id partition.NodeID) bool {
	return slices.ContainsFunc(nodes, func(p *patient) bool { return p.id == id })
}

func membersAmong(nodes []*patient, p actors.PartitionInfo) (count int) {
	for _, r := range p.Replicas {
		if among(nodes, r.Node) {
			count++
		}
	}
	return count
}

func halves(_ context.Context, n *nemesis, p *patient) (func(context.Context) error, error) {
	others := n.others(p)
	n.note("%s, %s cut from the others", p.name, others[0].name)
	return n.cutApart([]*patient{p, others[0]}, others[1:]), nil
}

// ring leaves each node two neighbours.
func ring(_ context.Context, n *nemesis, p *patient) (func(context.Context) error, error) {
	around := append(n.others(p), p)
	var w ways
	for i := range around {
		w.both(around[i].port(), around[(i+2)%len(around)].port())
	}
	return n.set(w, chaos.Way{Cut: true}), nil
}

// onLinks does something to one to four links of a node, in both directions.
func onLinks(way func(*nemesis) chaos.Way) deed {
	return func(_ context.Context, n *nemesis, p *patient) (func(context.Context) error, error) {
		var w ways
		for _, q := range n.others(p)[:1+n.rng.IntN(labNodes-1)] {
			w.both(p.port(), q.port())
		}
		return n.set(w, way(n)), nil
	}
}

// onAll does something to every link, those of the clients too.
func onAll(way func(*nemesis) chaos.Way) deed {
	return func(_ context.Context, n *nemesis, _ *patient) (func(context.Context) error, error) {
		var w ways
		for a := range othersAt + 1 {
			for b := range a {
				w.both(a, b)
			}
		}
		return n.set(w, way(n)), nil
	}
}

// resetLinks breaks the connections of a node, clients' too.
func resetLinks(_ context.Context, n *nemesis, p *patient) (func(context.Context) error, error) {
	const within = 100 * time.Millisecond
	for port := range othersAt + 1 {
		if port != p.port() && !n.one(3) {
			n.l.hub.Reset(p.port(), port, within)
		}
	}
	return func(context.Context) error { return nil }, nil
}

// blink cuts a node off from all others, clients apart, and restarts all who may
// have granted it a lease.
func blink(ctx context.Context, n *nemesis, p *patient) (func(context.Context) error, error) {
	var w ways
	var others []*patient
	for _, q := range n.others(p) {
		w.both(p.port(), q.port())
		if !q.busy {
			q.busy = true
			others = append(others, q)
		}
	}
	mend := n.set(w, chaos.Way{Cut: true})
	for _, q := range others {
		n.end(q)
	}
	for _, q := range others {
		if err := q.start(); err != nil {
			return nil, err
		}
	}
	return mend, nil
}
