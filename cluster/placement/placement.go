package placement

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"pando.dev/pando/partition"
)

// Node is a place for replicas.
type Node struct {
	ID   partition.NodeID
	Zone string
	// Weight is the node's share: one of weight 2 receives twice as many groups
	// as one of weight 1. Zero means 1; a node that shall receive nothing is
	// left out.
	Weight uint32
}

// Place chooses rf nodes for a group, the best first: distinct zones as long as
// there are any, then zones evenly, within a zone by score. It refuses with
// CodeInvalid what makes no sense and with CodeRefused what cannot be met.
func Place(group partition.GroupID, nodes []Node, rf int) ([]partition.NodeID, error) {
	if err := check(nodes, rf); err != nil {
		return nil, err
	}
	chosen := make([]partition.NodeID, 0, rf)
	for _, x := range rank(group, nodes)[:rf] {
		chosen = append(chosen, x.id)
	}
	return chosen, nil
}

// Score is a node's score for a group; the node with the greatest is the first
// choice. Scores of one group may be compared, others not.
func Score(group partition.GroupID, n Node) float64 {
	h := mix(hashID(n.ID) ^ mix(uint64(group)+golden))
	// u is in (0,1): 53 bits, never 0 and never 1, so the logarithm is finite
	// and negative.
	u := (float64(h>>11) + 0.5) / (1 << 53)
	return -float64(max(1, n.Weight)) / math.Log(u)
}

// Zones returns the number of different zones of the nodes.
func Zones(nodes []Node) int {
	names := make([]string, 0, len(nodes))
	for _, n := range nodes {
		names = append(names, n.Zone)
	}
	slices.Sort(names)
	return len(slices.Compact(names))
}

type candidate struct {
	id    partition.NodeID
	zone  string
	score float64
	round int // how many nodes of the same zone have a better score
}

// rank orders the nodes as they are chosen: the best of each zone first, then
// the second of each zone, and so on, within a round by falling score, and by
// id where scores are equal.
func rank(group partition.GroupID, nodes []Node) []candidate {
	ranked := make([]candidate, len(nodes))
	for i, n := range nodes {
		ranked[i] = candidate{id: n.ID, zone: n.Zone, score: Score(group, n)}
	}
	byScore := func(a, b candidate) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.id, b.id))
	}
	slices.SortFunc(ranked, byScore)
	seen := make(map[string]int, len(nodes))
	for i := range ranked {
		ranked[i].round = seen[ranked[i].zone]
		seen[ranked[i].zone]++
	}
	slices.SortFunc(ranked, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.round, b.round), byScore(a, b))
	})
	return ranked
}

func check(nodes []Node, rf int) error {
	if rf < 1 || rf > partition.MaxMembers {
		return partition.Errorf(partition.CodeInvalid, "replication factor %d, allowed are 1 to %d", rf, partition.MaxMembers)
	}
	ids := make([]partition.NodeID, len(nodes))
	for i, n := range nodes {
		ids[i] = n.ID
	}
	slices.Sort(ids)
	if len(ids) > 0 && ids[0] == "" {
		return partition.Errorf(partition.CodeInvalid, "a node without an id")
	}
	for i := 1; i < len(ids); i++ {
		if ids[i] == ids[i-1] {
			return partition.Errorf(partition.CodeInvalid, "node %s is named twice", ids[i])
		}
	}
	if rf > len(nodes) {
		return &partition.Error{
			Code: partition.CodeRefused,
			Why:  fmt.Sprintf("%d replicas on %d nodes", rf, len(nodes)),
			Next: "add nodes or ask for fewer replicas",
		}
	}
	return nil
}

const golden = 0x9e3779b97f4a7c15

// mix is a bijection of 64-bit words in which every input bit flips every
// output bit with a probability near one half (the finalizer of splitmix64).
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// hashID spreads an id over 64 bits: FNV-1a alone leaves the high bits of
// similar ids too alike, hence the final mix.
func hashID(id partition.NodeID) uint64 {
	h := uint64(0xcbf29ce484222325)
	for i := range len(id) {
		h = (h ^ uint64(id[i])) * 0x100000001b3
	}
	return mix(h + golden)
}
