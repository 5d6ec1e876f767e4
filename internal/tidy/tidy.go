package tidy

import (
	"cmp"
	"slices"
)

// Rule is one thing that is checked.
type Rule struct {
	Name string
	run  func(*Tree) []Finding
}

// Rules returns every rule.
func Rules() []Rule {
	return []Rule{
		{"layers", checkLayers},
		{"libraries", checkLibraries},
		{"purity", checkPurity},
		{"sizes", checkSizes},
		{"package comments", checkPackageComments},
		{"format", checkFormat},
		{"no package state", checkState},
		{"no init", checkInit},
		{"no functional options", checkOptions},
		{"no sleeps in tests", checkSleeps},
		{"notes", checkTodos},
		{"top level", checkEntries},
	}
}

// Check returns the violations of the rule, by file and line.
func (r Rule) Check(t *Tree) []Finding {
	found := r.run(t)
	slices.SortFunc(found, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Why, b.Why))
	})
	return slices.Compact(found)
}
