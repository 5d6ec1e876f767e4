package partition

import (
	"fmt"
	"strings"
)

// Describe says in words what the group serves and what becomes of it.
func (x *Extent) Describe() string {
	if x.Version == 0 {
		return "never split; the catalog says which keys it has"
	}
	parts := []string{fmt.Sprintf("keys %s, range version %d", x.Range, x.Version)}
	if x.Parent != 0 {
		parts = append(parts, fmt.Sprintf("split from %s at record %d", x.Parent, x.Base))
	}
	if x.Split != nil {
		parts = append(parts, x.Split.Describe())
	}
	if len(x.Lineage) > 0 {
		parts = append(parts, fmt.Sprintf("it has absorbed %s", listed(groupNames(x.Lineage), "and")))
	}
	if x.Merge != nil {
		parts = append(parts, x.Merge.Describe())
	}
	return strings.Join(parts, "; ")
}

// Describe says in words what a split under way means for the keys of its
// children.
func (s *Split) Describe() string {
	var to []string
	for i := range s.Children {
		to = append(to, fmt.Sprintf("%s to %s", s.Children[i].Range, s.Children[i].Group))
	}
	moves := listed(to, "and")
	switch s.Phase {
	case Intended:
		return fmt.Sprintf("task %d will move %s; until then everything is served here", s.Task, moves)
	case Sealed:
		return fmt.Sprintf("task %d holds what it is about to move, %s: nothing of it is read or written for a moment", s.Task, moves)
	}
	return fmt.Sprintf("task %d has moved %s; they are still being made on some nodes, or nobody has said that they are not", s.Task, moves)
}

func groupNames(all []GroupID) (names []string) {
	for _, g := range all {
		names = append(names, g.String())
	}
	return names
}
