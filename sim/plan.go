package sim

import (
	"cmp"
	"slices"

	"pando.dev/pando/internal/planted"
	"pando.dev/pando/partition"
	"pando.dev/pando/sim/fault"
)

// Plan is everything a run depends on.
type Plan struct {
	Seed  uint64
	Shape string // the family of plans that it was drawn from
	Knobs Knobs
	// Faults are in the order of At.
	Faults []Fault
	// Points are the faults that follow a point of the code. A drawn plan has
	// none: there Knobs.PointRate decides. A shrunk plan names them.
	Points []PointFault
	// Planted are the mistakes that the product makes in this run; none, unless
	// somebody asks whether they are found.
	Planted planted.Set
}

// Fault is one fault, and when it begins and how long it lasts.
type Fault struct {
	At, For partition.Time
	Class   fault.Class
	// Node is whom it befalls and Other the second node of a link. Both are
	// ordinals of nodes, from 0, or roles that are looked up at At.
	Node, Other fault.Target
	// Arg is what the class says that it is; see fault.Class.Arg.
	Arg uint64
}

// ID names the fault whatever its place in the plan, so that decisions about it
// do not change when others are taken out.
func (f *Fault) ID() uint64 {
	h := uint64(14695981039346656037)
	for _, x := range [...]uint64{uint64(f.At), uint64(f.For), uint64(f.Class), uint64(f.Node), uint64(f.Other), f.Arg} {
		h ^= x
		h *= 0x9e3779b97f4a7c15
		h ^= h >> 29
	}
	return h
}

// PointFault is a fault that follows when a node reaches a point of the code for
// the given time.
type PointFault struct {
	Point      string // such as "replica.promised"
	Node       int    // ordinal
	Occurrence uint64 // from 1, counted per point and node over the whole run
	Class      fault.Class
	// After is how long after the point it comes, For how long it lasts.
	After, For partition.Time
}

// Clone is a plan of its own.
func (p *Plan) Clone() *Plan {
	c := *p
	c.Faults, c.Points = slices.Clone(p.Faults), slices.Clone(p.Points)
	return &c
}

// sortFaults brings the faults into the order of a plan. Equal times keep theirs.
func (p *Plan) sortFaults() {
	slices.SortStableFunc(p.Faults, func(a, b Fault) int { return cmp.Compare(a.At, b.At) })
}
