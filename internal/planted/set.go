package planted

import (
	"fmt"
	"strings"
)

// String is the name of the bug.
func (b Bug) String() string {
	if b == 0 || b >= end {
		return fmt.Sprintf("bug-%d", uint8(b))
	}
	return known[b].name
}

// About says in half a sentence what goes wrong.
func (b Bug) About() string {
	if b == 0 || b >= end {
		return ""
	}
	return known[b].about
}

// Layer is the part of the product that makes the mistake: replica, executor,
// lease, wal or host.
func (b Bug) Layer() string {
	if b == 0 || b >= end {
		return ""
	}
	return known[b].layer
}

// Set is a set of bugs; its zero value is the product as it is. Sets are
// compared with ==.
type Set struct{ bits [2]uint64 }

// Of returns the set of these bugs; 0 is none.
func Of(bugs ...Bug) Set {
	var s Set
	for _, b := range bugs {
		if b != 0 {
			s.bits[b>>6&1] |= 1 << (b & 63)
		}
	}
	return s
}

// Has reports whether the bug is planted. It is cheap enough to be asked
// anywhere.
func (s Set) Has(b Bug) bool { return s.bits[b>>6&1]&(1<<(b&63)) != 0 }

// Empty reports whether nothing is planted.
func (s Set) Empty() bool { return s == Set{} }

// Bugs lists what is planted, in order.
func (s Set) Bugs() []Bug {
	var all []Bug
	for _, b := range All() {
		if s.Has(b) {
			all = append(all, b)
		}
	}
	return all
}

// String lists the names, separated by commas; Parse reads it.
func (s Set) String() string {
	var names []string
	for _, b := range s.Bugs() {
		names = append(names, b.String())
	}
	return strings.Join(names, ",")
}

// All lists every bug.
func All() []Bug {
	all := make([]Bug, 0, end-1)
	for b := Bug(1); b < end; b++ {
		all = append(all, b)
	}
	return all
}

// Parse reads names separated by commas or spaces; nothing is the empty set.
func Parse(names string) (Set, error) {
	var bugs []Bug
	for _, name := range strings.FieldsFunc(names, func(r rune) bool { return r == ',' || r == ' ' }) {
		b, ok := find(name)
		if !ok {
			return Set{}, fmt.Errorf("no planted bug is called %q", name)
		}
		bugs = append(bugs, b)
	}
	return Of(bugs...), nil
}

func find(name string) (Bug, bool) {
	for b := Bug(1); b < end; b++ {
		if known[b].name == name {
			return b, true
		}
	}
	return 0, false
}
