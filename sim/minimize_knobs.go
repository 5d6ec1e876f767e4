package sim

import (
	"reflect"
	"slices"
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/sim/fault"
)

// seedsPerStep is how many seeds a change is tried with that moves everything:
// with fewer nodes or operations the rest of the chances fall differently.
const seedsPerStep = 6

// simpler takes the world apart: fewer groups, nodes, clients, operations.
func (s *shrink) simpler() {
	for {
		k := &s.best.Knobs
		moved := false
		for _, change := range []func(*Plan){
			func(p *Plan) { p.shrinkGroups(1) },
			func(p *Plan) { p.shrinkGroups(k.Groups - 1) },
			func(p *Plan) { p.shrinkNodes(3) },
			func(p *Plan) { p.shrinkNodes(k.Nodes - 1) },
			func(p *Plan) { p.foldNodes(k.Nodes - 1) },
			func(p *Plan) { p.Knobs.Replicas-- },
			func(p *Plan) { p.Knobs.Zones = 1 },
			func(p *Plan) { p.Knobs.Clients = max(1, k.Clients/4) },
			func(p *Plan) { p.Knobs.Keys = 1 },
			func(p *Plan) { p.Knobs.Ops = min(k.Ops, max(1, round(k.Ops/8))) },
			func(p *Plan) { p.Knobs.Ops = min(k.Ops, max(1, round(k.Ops/2))) },
		} {
			moved = s.withSeeds(seedsPerStep, change) || moved
		}
		if !moved || s.over() {
			return
		}
	}
}

// withSeeds tries a change, with other seeds too.
func (s *shrink) withSeeds(seeds uint64, change func(*Plan)) bool {
	first := s.changed(change)
	if first.String() == s.best.String() || first.Validate() != nil {
		return false
	}
	plans := []*Plan{first}
	for i := range seeds - 1 {
		p := first.Clone()
		p.Seed = i + 1
		plans = append(plans, p)
	}
	return s.first(plans) >= 0
}

// shrinkGroups leaves so many groups, and the faults that aim at them.
func (p *Plan) shrinkGroups(n int) {
	if n < 1 || n >= p.Knobs.Groups {
		return
	}
	p.Knobs.Groups = n
	p.dropFaults(func(t fault.Target) bool { _, g, ok := t.Role(); return ok && g >= n })
}

// shrinkNodes leaves so many nodes, and the faults that befall them.
func (p *Plan) shrinkNodes(n int) {
	if n < 1 || n >= p.Knobs.Nodes {
		return
	}
	p.Knobs.Nodes = n
	p.Knobs.Replicas = min(p.Knobs.Replicas, n)
	p.Knobs.Zones = min(p.Knobs.Zones, n)
	p.dropFaults(func(t fault.Target) bool { x, ok := t.Node(); return ok && x >= n })
	p.Points = slices.DeleteFunc(p.Points, func(f PointFault) bool { return f.Node >= n })
}

// foldNodes leaves so many nodes; what befell the others befalls these.
func (p *Plan) foldNodes(n int) {
	if n < 1 || n >= p.Knobs.Nodes {
		return
	}
	for i := range p.Faults {
		for _, t := range []*fault.Target{&p.Faults[i].Node, &p.Faults[i].Other} {
			if x, ok := t.Node(); ok {
				*t = fault.Target(x % n)
			}
		}
	}
	for i := range p.Points {
		p.Points[i].Node %= n
	}
	p.shrinkNodes(n)
}

func (p *Plan) dropFaults(gone func(fault.Target) bool) {
	p.Faults = slices.DeleteFunc(p.Faults, func(f Fault) bool { return gone(f.Node) || gone(f.Other) })
}

// milder sets the knobs to what they calmly are, one after the other, all at
// once first; where that is too much, half of the way.
func (s *shrink) milder() {
	s.try(s.changed(func(p *Plan) {
		calm := Calm()
		calm.Nodes, calm.Zones, calm.Groups, calm.Replicas = p.Knobs.Nodes, p.Knobs.Zones, p.Knobs.Groups, p.Knobs.Replicas
		calm.Length, calm.Ops, calm.Clients, calm.Keys = p.Knobs.Length, p.Knobs.Ops, p.Knobs.Clients, p.Knobs.Keys
		p.Knobs = calm
	}))
	calm := Calm()
	v := reflect.ValueOf(&calm).Elem()
	for i := range v.NumField() {
		if s.over() {
			return
		}
		switch v.Type().Field(i).Name {
		case "Length", "Nodes", "Groups", "Ops", "Clients", "Keys", "Zones":
			continue // as few as may be, see simpler and shorten
		}
		s.towards(i, v.Field(i))
	}
}

// towards sets one knob to its calm value, or halfway there.
func (s *shrink) towards(field int, calm reflect.Value) {
	mine := reflect.ValueOf(&s.best.Knobs).Elem().Field(field)
	if mine.Equal(calm) {
		return
	}
	set := func(v reflect.Value) *Plan {
		return s.changed(func(p *Plan) { reflect.ValueOf(&p.Knobs).Elem().Field(field).Set(v) })
	}
	plans := []*Plan{set(calm)}
	switch x := mine.Interface().(type) {
	case float64:
		if x != 0 && x != 1 {
			// What happens sometimes may as well happen always, which is simpler.
			plans = append(plans, set(reflect.ValueOf(1.0)))
		}
	case partition.Time:
		if half := (x + calm.Interface().(partition.Time)) / 2; half > 0 {
			plans = append(plans, set(reflect.ValueOf(partition.Time(half).Round(time.Millisecond))))
		}
	}
	s.first(plans)
}
