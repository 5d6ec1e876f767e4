package split

import "pando.dev/pando/partition"

// MergeCatalog is what a catalog that is as new as the control group's says of the two
// groups of a merge that one of them has under way.
type MergeCatalog struct {
	// Survivor, Source: it is there. Range is the survivor's.
	Survivor, Source bool
	Range            partition.KeyRange
	// Absorbed: no key leads to the source any more.
	Absorbed bool
}

// unmerged: the survivor has never taken the source's keys and then forgotten it. It
// forgets with Done, which is behind the activation, which is in the catalog.
func (c *MergeCatalog) unmerged() bool { return c.Source && !c.Absorbed }

// Activated reports whether the survivor's keys, with the source's, lead to it.
func (c *MergeCatalog) Activated(keys partition.KeyRange) bool {
	return !c.Source || c.Survivor && c.Range.Equal(keys)
}

// Heard is what a source has heard of the attempt that it is sealed for.
type Heard struct {
	Outcome partition.Outcome
	// Sure: a survivor that says so has forgotten none of those that it has absorbed.
	Sure bool
}

// Asks reports whether the catalog has to say whether the attempt was given up.
func (h Heard) Asks() bool { return h.Outcome == partition.GivenUp && !h.Sure }

// With is the outcome by the catalog also, which the source has got after it has heard
// the rest. A survivor that is gone has decided nothing, for it was free when it was
// absorbed itself.
func (h Heard) With(c *MergeCatalog) partition.Outcome {
	switch {
	case h.Outcome == partition.Decided, h.Outcome == partition.GivenUp && h.Sure:
		return h.Outcome
	case c.unmerged() && (h.Outcome == partition.GivenUp || !c.Survivor):
		return partition.GivenUp
	}
	return partition.Undecided
}
