package replica

import (
	"cmp"
	"slices"

	"pando.dev/pando/partition"
)

// log is what the machine knows of its own log: its bounds, which epoch each
// record has, the configurations in it, and the newest records themselves.
// Older records are only on the host's disk.
//
//	before | first ........ handed ........ last
//	                 | tail (in memory) ........|
//
// Invariants: tail ends at last and holds at least the records behind handed;
// runs cover first to last; configs are ascending and never empty.
type log struct {
	first, last partition.Index // last is first-1 if there are no records
	before      partition.Position
	lastSum     uint32 // checksum of the record at last

	runs    []EpochRun
	configs []ConfigurationAt

	tail         []partition.Record
	tailBytes    int
	limit        int // of tailBytes
	dropped      int // records in front of tail that its array still holds
	droppedBytes int

	// handed is the last record that the host was given to persist. snip tells
	// that the host's log must first lose what is behind snipAfter.
	handed    partition.Index
	snip      bool
	snipAfter partition.Index
}

func newLog(r Restored, limit int) *log {
	return &log{
		first: r.First, last: r.Last, before: r.BeforeFirst, lastSum: r.LastSum,
		runs: slices.Clone(r.Runs), configs: slices.Clone(r.Configurations),
		limit: limit, handed: r.Last,
	}
}

// end is the position of the last record.
func (l *log) end() partition.Position {
	e, _ := l.epochAt(l.last)
	return partition.Position{Epoch: e, Index: l.last}
}

// runOf returns the place in runs of the run that holds index i, which must be
// in first..last.
func (l *log) runOf(i partition.Index) int {
	n, found := slices.BinarySearchFunc(l.runs, i, func(r EpochRun, i partition.Index) int {
		return cmp.Compare(r.First, i)
	})
	if found {
		return n
	}
	return n - 1
}

// epochAt returns the epoch of the record at i, and whether it is known.
func (l *log) epochAt(i partition.Index) (partition.Epoch, bool) {
	switch {
	case i == l.before.Index:
		return l.before.Epoch, true
	case i < l.first || i > l.last:
		return 0, false
	}
	return l.runs[l.runOf(i)].Epoch, true
}

// has reports whether the log holds the record at this position.
func (l *log) has(p partition.Position) bool {
	e, ok := l.epochAt(p.Index)
	return ok && e == p.Epoch
}

// runStart returns the first index of the run that holds i.
func (l *log) runStart(i partition.Index) partition.Index {
	if i < l.first || i > l.last {
		return i
	}
	return l.runs[l.runOf(i)].First
}

// common returns the greatest index up to which a log that ends at the given
// position may equal this one, as far as epochs can tell.
func (l *log) common(end partition.Position) partition.Index {
	i := min(end.Index, l.last)
	for i >= l.first {
		e, _ := l.epochAt(i)
		if e <= end.Epoch {
			return i
		}
		i = l.runStart(i) - 1
	}
	return min(i, l.first-1)
}

// tailFirst is the index of the first record in memory; last+1 if there is none.
func (l *log) tailFirst() partition.Index {
	return l.last + 1 - partition.Index(len(l.tail))
}

// at returns the record at i, which must be in memory.
func (l *log) at(i partition.Index) partition.Record {
	return l.tail[i-l.tailFirst()]
}

// span returns the records from first to last, which must be in memory. The
// slice is never written again, so it may be handed out.
func (l *log) span(first, last partition.Index) []partition.Record {
	if first > last {
		return nil
	}
	lo, hi := first-l.tailFirst(), last-l.tailFirst()+1
	return l.tail[lo:hi:hi]
}

// sumAt returns the checksum of the record at i, and whether it is known.
func (l *log) sumAt(i partition.Index) (uint32, bool) {
	f := l.tailFirst()
	switch {
	case i == l.last:
		return l.lastSum, true
	case i >= f && i < l.last:
		return l.at(i).Checksum(), true
	case i+1 == f && len(l.tail) > 0:
		return l.tail[0].Prev(), true
	}
	return 0, false
}

// append adds a record behind the last one.
func (l *log) append(r partition.Record) {
	i, e := r.Index(), r.Epoch()
	if i != l.last+1 { // not assert, whose arguments cost two allocations
		broken("append of %s behind %d", r, l.last)
	}
	if len(l.runs) == 0 || l.runs[len(l.runs)-1].Epoch != e {
		assert(e >= l.end().Epoch, "append of %s behind %s", r, l.end())
		l.runs = append(l.runs, EpochRun{Epoch: e, First: i})
	}
	l.tail = append(l.tail, r)
	l.tailBytes += len(r)
	l.last, l.lastSum = i, r.Checksum()
}

// cut removes the records behind after. The sum of the record at after may then
// be unknown; sum tells it.
func (l *log) cut(after partition.Index, sum uint32) {
	assert(after >= l.first-1 && after < l.last, "snip behind %d of %d..%d", after, l.first, l.last)
	keep := 0
	if after >= l.tailFirst() {
		keep = int(after - l.tailFirst() + 1)
	}
	// A fresh array: what was handed out must not be overwritten.
	l.tail = slices.Clone(l.tail[:keep])
	l.dropped, l.droppedBytes, l.tailBytes = 0, 0, 0
	for _, r := range l.tail {
		l.tailBytes += len(r)
	}
	l.last, l.lastSum = after, sum
	for len(l.runs) > 0 && l.runs[len(l.runs)-1].First > after {
		l.runs = l.runs[:len(l.runs)-1]
	}
	for len(l.configs) > 0 && l.configs[len(l.configs)-1].Index > after {
		l.configs = l.configs[:len(l.configs)-1]
	}
	assert(len(l.configs) > 0, "snip behind %d removes every configuration", after)
	if after < l.handed {
		if !l.snip || after < l.snipAfter {
			l.snipAfter = after
		}
		l.snip, l.handed = true, after
	}
}

// truncate notes that the host has dropped the records before first.
func (l *log) truncate(first partition.Index) {
	if first <= l.first {
		return
	}
	e, _ := l.epochAt(first - 1)
	l.before = partition.Position{Epoch: e, Index: first - 1}
	n := len(l.runs)
	if first <= l.last {
		n = l.runOf(first)
	}
	l.runs = slices.Clone(l.runs[n:])
	if len(l.runs) > 0 {
		l.runs[0].First = max(l.runs[0].First, first)
	}
	l.first = first
}

// trim lets go of the oldest records in memory while they exceed the limit. What
// the host was not yet given stays.
func (l *log) trim() {
	n := 0
	for n < len(l.tail) && l.tailBytes > l.limit && l.tail[n].Index() <= l.handed {
		l.tailBytes -= len(l.tail[n])
		l.droppedBytes += len(l.tail[n])
		n++
	}
	l.tail = l.tail[n:]
	l.dropped += n
	// The array keeps what was dropped alive; a fresh one bounds that to about
	// as much again as the limit.
	if l.dropped > 0 && (l.droppedBytes > l.limit || l.dropped > len(l.tail)+64) {
		l.tail = slices.Clone(l.tail)
		l.dropped, l.droppedBytes = 0, 0
	}
}

// active returns the configurations in force when commit is known to be
// committed: the last, and the one before unless the last is committed or takes
// effect alone.
func (l *log) active(commit partition.Index) partition.Configurations {
	n := len(l.configs)
	if n > 1 && l.configs[n-1].Index > commit && l.configs[n-1].Membership.Alone == 0 {
		return partition.Configurations{l.configs[n-2].Membership, l.configs[n-1].Membership}
	}
	return partition.Configurations{l.configs[n-1].Membership}
}

// newest is the configuration that takes effect last.
func (l *log) newest() ConfigurationAt { return l.configs[len(l.configs)-1] }

// forget drops the configurations that no snip can bring back.
func (l *log) forget(commit partition.Index) {
	n := 0
	for n+1 < len(l.configs) && l.configs[n+1].Index <= commit {
		n++
	}
	l.configs = l.configs[n:]
}

// checkRecords verifies that the records form a chain behind prev that a master
// of the given epoch may have sent. A sum of 0 means that it is not known.
func checkRecords(g partition.GroupID, epoch partition.Epoch, prev partition.Position, sum uint32, records []partition.Record) error {
	known := sum != 0 || prev.Index == 0
	for _, r := range records {
		if len(r) < partition.RecordHeaderBytes {
			return partition.Errorf(partition.CodeCorrupt, "a record of %d bytes", len(r))
		}
		switch {
		case r.Group() != g || r.Kind() >= partition.KindLocal:
			return partition.Errorf(partition.CodeInvalid, "record %s of %s does not belong to %s", r, r.Group(), g)
		case r.Index() != prev.Index+1 || r.Epoch() < prev.Epoch || r.Epoch() > epoch:
			return partition.Errorf(partition.CodeInvalid, "record %s follows %s in a message of epoch %s", r, prev, epoch)
		case known && r.Prev() != sum:
			return partition.Errorf(partition.CodeCorrupt, "record %s names %08x as the checksum before it, which is %08x", r, r.Prev(), sum)
		}
		prev, sum, known = r.Position(), r.Checksum(), true
	}
	return nil
}

// configurationIn returns the configuration that a record carries, or nil.
func configurationIn(r partition.Record) (*partition.Membership, error) {
	if r.Kind() != partition.KindMember && r.Kind() != partition.KindMode {
		return nil, nil
	}
	m := new(partition.Membership)
	if err := m.UnmarshalBinary(r.Payload()); err != nil {
		return nil, err
	}
	return m, nil
}
