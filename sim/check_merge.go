package sim

import (
	"pando.dev/pando/partition"
)

// merges is told of a record of a merge when the first replica applies it: the source
// has been sealed for this attempt when its keys become the survivor's, whose state has
// all of them then, and it learns of that decision and of no other one.
func (c *checker) merges(q *groupCheck, h *host, rec partition.Record) {
	x, d := h.extent(), &q.divided
	switch rec.Kind() {
	case partition.KindSourceSeal:
		d.sealed, d.sealedAt, d.attempt = []partition.KeyRange{x.Range}, rec.Index(), *x.Merge
	case partition.KindSourceUnseal:
		if d.gone {
			c.w.violate("ranges", "%s unseals at %s, its keys are %s's", h, rec, d.attempt.Other)
		}
		d.sealed, d.sealedAt = nil, 0
	case partition.KindSourceGone:
		if !d.gone {
			c.w.violate("ranges", "%s gives its keys away at %s, %s has not got them", h, rec, d.attempt.Other)
		}
		d.gets(noKeys(), rec.Index())
		d.wentAt = rec.Index()
	case partition.KindMerging:
		c.absorbs(q, h, rec)
	}
}

// absorbs is told of the decision that a source's keys are the survivor's.
func (c *checker) absorbs(q *groupCheck, h *host, rec partition.Record) {
	x, i := h.extent(), rec.Index()
	source := int(x.Merge.Other - 1)
	s := &c.groups[source]
	if s.divided.gone || s.divided.sealedAt == 0 || s.divided.attempt.Task != x.Merge.Task || s.divided.attempt.Intent != x.Merge.Intent {
		c.w.violate("ranges", "%s takes the keys of %s at %s, which is not sealed for it", h, x.Merge.Other, rec)
	}
	was := max(q.lifted(i), s.lifted(s.divided.sealedAt))
	q.lifts = append(q.lifts, liftAt{i, x.Lift})
	if is := q.lifted(i); is < was {
		c.w.violate("ranges", "%s goes on at %d after %s, versions of %d were there", h, is, rec, was)
	}
	q.divided.gets(x.Range, i)
	q.divided.merged = append(q.divided.merged, absorbed{source, x.Merge.Range})
	s.divided.gone, s.divided.now = true, noKeys()
	c.w.mark("sim.source_absorbed")
	if class, key, is, must := q.model.lacks(h.state, q, i); class != 0 {
		c.w.violate("durable", "%s takes the keys of %s with %v in %c%d, the committed commands lead to %v", h, x.Merge.Other, is, class, key, must)
	}
}
