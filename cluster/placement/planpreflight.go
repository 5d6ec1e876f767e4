package placement

import (
	"fmt"
	"slices"
	"strings"

	"pando.dev/pando/partition"
)

// Preflight says at once whether nodes can leave: nil, or an error with
// CodeRefused and the reason. It looks at sums only, so it may let pass what a
// plan then finds impossible for single groups (Plan.Impossible); what it refuses
// no plan could do. Groups in fewer zones than before are refused too, unless
// fewerZones says that they are wanted.
func Preflight(l *Layout, leaving []partition.NodeID, fewerZones bool, cfg PlanConfig) error {
	cfg = cfg.withDefaults()
	gone := make([]bool, len(l.nodes))
	for _, id := range leaving {
		i, ok := l.ordinal[id]
		if !ok {
			return partition.Errorf(partition.CodeNotFound, "no node %s", id)
		}
		gone[i] = true
	}
	for i := range l.nodes {
		gone[i] = gone[i] || l.nodes[i].Leaving || l.nodes[i].Lost
	}
	if err := preflightNodes(l, gone); err != nil {
		return err
	}
	if err := preflightZones(l, gone, fewerZones); err != nil {
		return err
	}
	return preflightDisk(l, gone, cfg.DiskHigh)
}

func refuse(next, format string, args ...any) error {
	return &partition.Error{Code: partition.CodeRefused, Why: fmt.Sprintf(format, args...), Next: next}
}

// widest is the group that wants the most replicas.
func (l *Layout) widest() (int, int) {
	most, at := 0, 0
	for g := range l.id {
		if n := int(l.first[g+1] - l.first[g]); n > most { // log replicas need nodes as well
			most, at = n, g
		}
	}
	return at, most
}

func preflightNodes(l *Layout, gone []bool) error {
	stay := 0
	for i := range l.nodes {
		if !gone[i] {
			stay++
		}
	}
	if g, most := l.widest(); most > stay {
		return refuse("add nodes first, or ask the table for fewer replicas",
			"%d nodes would be left, and %s has %d replicas, each on a node of its own", stay, l.id[g], most)
	}
	return nil
}

func preflightZones(l *Layout, gone []bool, fewer bool) error {
	_, most := l.widest()
	var before, after []string
	for i := range l.nodes {
		if !l.nodes[i].Lost {
			before = append(before, l.nodes[i].Zone)
		}
		if !gone[i] {
			after = append(after, l.nodes[i].Zone)
		}
	}
	distinct := func(z []string) []string { slices.Sort(z); return slices.Compact(z) }
	before, after = distinct(before), distinct(after)
	if fewer || min(most, len(after)) >= min(most, len(before)) {
		return nil
	}
	lacking := slices.DeleteFunc(before, func(z string) bool { return slices.Contains(after, z) })
	return refuse("add a node in another zone first, or say that fewer zones will do",
		"groups of %d replicas would be in %d zones instead of %d: nothing would be left in %s",
		most, len(after), min(most, len(after)+len(lacking)), strings.Join(lacking, ", "))
}

// preflightDisk adds up what the leaving nodes have and what the others may
// still take.
func preflightDisk(l *Layout, gone []bool, high float64) error {
	need, room := int64(0), int64(0)
	for i := range l.nodes {
		n, used := &l.nodes[i], l.use[i][DimBytes]
		switch {
		case gone[i]:
			need += used
		case !n.open():
		case n.Capacity[DimBytes] <= 0:
			return nil // nobody knows how large its disk is
		default:
			room += max(0, int64(high*float64(n.Capacity[DimBytes]))-used)
		}
	}
	if need > room {
		return refuse("add nodes or larger disks first",
			"%s would have to move, and the other disks may take %s until they are %.0f %% full", bytesText(need), bytesText(room), 100*high)
	}
	return nil
}
