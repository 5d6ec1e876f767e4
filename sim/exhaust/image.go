package exhaust

import (
	"slices"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

// image is what a disk holds of a replica: the promise, the commit index that is
// stored along, and the log from the genesis record on. It is never written in
// place.
type image struct {
	promise partition.Epoch
	commit  partition.Index
	recs    []partition.Record
}

func (im *image) last() partition.Index { return partition.Index(len(im.recs)) }

// has reports whether the log holds the record at this position.
func (im *image) has(p partition.Position) bool {
	return p.Index <= im.last() && im.recs[p.Index-1].Epoch() == p.Epoch
}

// with returns the image after a change.
func (im image) with(p *replica.Persist) image {
	im.promise, im.commit = p.Promise, max(im.commit, p.Commit)
	if p.Snip {
		im.recs = im.recs[:p.After]
	}
	if len(p.Records) == 0 {
		return im
	}
	recs := slices.Clip(im.recs)
	for _, r := range p.Records {
		at := len(recs)
		if int(r.Index()) != at+1 {
			panic("persist of " + r.String() + " does not continue the log")
		}
		if at > 0 && recs[at-1].Checksum() != r.Prev() {
			panic("persist of " + r.String() + " does not continue the chain")
		}
		recs = append(recs, r)
	}
	im.recs = recs
	return im
}

// torn lists what a crash may leave of one change: nothing, the promise alone, the
// promise and the snip, these and some of the records. The first is nothing, and
// all of it is not among them.
func (im image) torn(p *replica.Persist) []image {
	list := []image{im}
	part := replica.Persist{Promise: p.Promise, Commit: im.commit}
	if p.Promise != im.promise {
		list = append(list, im.with(&part))
	}
	if p.Snip {
		part.Snip, part.After = true, p.After
		list = append(list, im.with(&part))
	}
	for n := 1; n < len(p.Records); n++ {
		part.Records = p.Records[:n]
		list = append(list, im.with(&part))
	}
	if len(p.Records) == 0 && (p.Snip || p.Promise != im.promise) {
		list = list[:len(list)-1] // that was all of it
	}
	return list
}

// survivors lists what a crash may leave when the changes pending are on the way to
// a disk that holds im: a prefix of them, of which the last one may be torn.
func (im image) survivors(pending []*replica.Persist) []image {
	var list []image
	for _, p := range pending {
		list = append(list, im.torn(p)...)
		im = im.with(p)
	}
	return append(list, im)
}

// configuration returns the configuration that a record carries, or nil.
func configuration(r partition.Record) *partition.Membership {
	if r.Kind() != partition.KindMember && r.Kind() != partition.KindMode {
		return nil
	}
	m := new(partition.Membership)
	if err := m.UnmarshalBinary(r.Payload()); err != nil {
		panic(err)
	}
	return m
}

// active returns the configurations of a log that count when the records up to
// commit are known to be committed.
func active(recs []partition.Record, commit partition.Index) partition.Configurations {
	var list partition.Configurations
	for _, r := range recs {
		m := configuration(r)
		if m == nil {
			continue
		}
		if r.Index() <= commit || m.Alone != 0 {
			list = list[:0]
		}
		list = append(list, m)
	}
	return list
}

// restored reads an image as a host does at a start. The state reflects applied.
func (im *image) restored(applied partition.Index, restarted bool) replica.Restored {
	r := replica.Restored{
		Promised: im.promise, Applied: applied, Commit: min(max(im.commit, applied), im.last()),
		First: 1, Last: im.last(), Restarted: restarted,
	}
	for _, x := range im.recs {
		if n := len(r.Runs); n == 0 || r.Runs[n-1].Epoch != x.Epoch() {
			r.Runs = append(r.Runs, replica.EpochRun{Epoch: x.Epoch(), First: x.Index()})
		}
		if m := configuration(x); m != nil {
			r.Configurations = append(r.Configurations, replica.ConfigurationAt{Index: x.Index(), Membership: m})
		}
		r.LastSum = x.Checksum()
	}
	return r
}
