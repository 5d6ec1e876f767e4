package wal

import (
	"cmp"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"pando.dev/pando/internal/planted"
	"pando.dev/pando/partition"
)

// segment is one file of the log. Its place in the log is planned by Append,
// under Log.mu; the committer makes the file later.
//
//	planned --(spare written, renamed)--> active --(footer)--> sealed --(nobody needs it)--> spare
type segment struct {
	number uint64
	size   int64
	file   File // nil while only planned
	// table is the state table, the segment's first batch, sealed and padded;
	// nil once written.
	table []byte
	// footer and seal are the footer and the trailer page, once the plan has
	// moved on to the next segment; nil again once written.
	footer []byte
	seal   trailer
	// first and last are the numbers of its batches, as far as planned.
	first, last uint64
	// end is the offset behind its last planned batch.
	end int64
	// footerBytes bounds the size of its footer.
	footerBytes int64
	// groups are those that have had records here; some may be gone, or named
	// twice.
	groups []partition.GroupID
	// cleared are the groups, counted from the front, that no longer need it.
	cleared int
	// readers use the file without holding the lock.
	readers int
	// nameless: it no longer has the name of a segment, though perhaps not yet
	// durably; spare is the number that it has instead, 0 for none.
	nameless bool
	spare    uint64
}

func segmentName(dir string, n uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%016d.wal", n))
}

func spareName(dir string, n uint64) string {
	return filepath.Join(dir, fmt.Sprintf("spare-%d", n))
}

// parseName tells segments ("0000000000000007.wal") from spares ("spare-7").
func parseName(name string) (n uint64, spare, ok bool) {
	if s, found := strings.CutSuffix(name, ".wal"); found && len(s) == 16 {
		n, err := strconv.ParseUint(s, 10, 64)
		return n, false, err == nil && n > 0 && n < 1<<32
	}
	if s, found := strings.CutPrefix(name, "spare-"); found {
		n, err := strconv.ParseUint(s, 10, 64)
		return n, true, err == nil && n > 0
	}
	return 0, false, false
}

// fits reports whether a batch of n bytes at offset off leaves room for a
// footer that grows by extra.
func (s *segment) fits(off int64, n int, extra int64) bool {
	return off+align(int64(n))+align(s.footerBytes+extra)+pageBytes <= s.size
}

// last returns the segment that is planned into.
func (l *Log) lastSegment() *segment { return l.segments[len(l.segments)-1] }

// planSegment ends the plan of the last segment, if there is one, and starts
// the next with a table of the state at this point. The caller holds l.mu and
// has closed the open batch.
func (l *Log) planSegment() *segment {
	next := uint64(1)
	if len(l.segments) > 0 {
		s := l.lastSegment()
		l.planFooter(s)
		next = s.number + 1
	}
	s := &segment{number: next, size: l.o.SegmentBytes, first: l.seq, last: l.seq}
	s.table = l.encodeTable(s)
	s.end = pageBytes + int64(len(s.table))
	l.seq++
	l.echoes = l.echoes[:0] // the table says all that echoes could
	l.segments = append(l.segments, s)
	l.logBytes += s.size
	l.stats.Rotations++
	return s
}

// planFooter encodes the footer of s, of whose batches all are planned.
func (l *Log) planFooter(s *segment) {
	ids := slices.Clone(s.groups)
	slices.Sort(ids)
	var b []byte
	for _, id := range slices.Compact(ids) {
		if g := l.groups[id]; g != nil {
			if sec, ok := g.section(uint32(s.number)); ok {
				b = sec.append(b)
			}
		}
	}
	if align(s.end)+int64(len(b))+pageBytes > s.size {
		return // only after damage; without a footer the segment is scanned
	}
	s.last = l.seq - 1
	s.footer = b
	s.seal = trailer{
		segment: s.number, secret: l.secret, footerAt: align(s.end), footerSize: int64(len(b)),
		footerCRC: partition.Checksum(b), first: s.first, last: s.last, end: s.end,
	}
	if s.footer == nil {
		s.footer = []byte{}
	}
}

// encodeTable returns the state table of s as a padded batch.
func (l *Log) encodeTable(s *segment) []byte {
	b := make([]byte, batchHeadBytes, align(int64(batchHeadBytes+l.rowBytes)))
	ids := slices.Sorted(maps.Keys(l.groups))
	for _, id := range ids {
		g := l.groups[id]
		r := g.row()
		if l.o.Planted.Has(planted.TablePromiseLost) {
			r.hard.Promise = g.end.Epoch
		}
		b = r.append(b, id)
		g.dirty = false
		if g.unsaved {
			g.unsaved, l.voided = false, s.first
		}
	}
	l.dirty = l.dirty[:0]
	l.rowBytes = len(b) - batchHeadBytes
	sealBatch(b, len(ids), s.first, s.number, l.seed)
	return pad(b)
}

// pad extends b with zeros to the grid.
func pad(b []byte) []byte {
	n := len(b)
	b = slices.Grow(b, int(align(int64(n)))-n)[:align(int64(n))]
	clear(b[n:])
	return b
}

// release lets the oldest segments go that nobody needs. The caller holds l.mu.
//
// The newest sealed segment always stays, so that a state table that is damaged
// can be made anew by reading the segment before it.
func (l *Log) release() {
	for l.voided == 0 {
		s := l.segments[0]
		if s.number+1 >= l.active || s.readers > 0 || l.pinned(s) {
			return
		}
		for _, id := range s.groups {
			if g := l.groups[id]; g != nil {
				if p, ok := g.lastIn(uint32(s.number)); ok {
					g.forget(p)
				}
			}
		}
		l.segments = slices.Delete(l.segments, 0, 1)
		l.logBytes -= s.size
		l.released = append(l.released, s)
		l.wakeChores()
	}
}

// pinned reports whether some group needs the oldest segment, and remembers how
// far it has looked.
func (l *Log) pinned(s *segment) bool {
	for ; s.cleared < len(s.groups); s.cleared++ {
		if l.needs(s.groups[s.cleared], s) != needNothing {
			return true
		}
	}
	return false
}

// need says why a group needs a segment.
type need int

const (
	needNothing need = iota
	needFlush        // its state does not have the records yet
	needRetain       // peers want them
)

// needs applies the truncation rule to one group and the oldest segment.
func (l *Log) needs(id partition.GroupID, s *segment) need {
	g := l.groups[id]
	if g == nil || g.damage != nil && !g.unsaved {
		return needNothing
	}
	p, ok := g.lastIn(uint32(s.number))
	switch {
	case !ok:
		return needNothing
	case p.Index > g.hard.Flushed && !l.o.Planted.Has(planted.ReuseNeeded):
		return needFlush
	case g.retain != 0 && p.Index >= g.retain && l.logBytes <= l.capBytes:
		return needRetain
	}
	return needNothing
}

// isPin reports whether g is the group at which the search for a reason to keep
// the oldest segment stopped.
func (l *Log) isPin(g partition.GroupID) bool {
	s := l.segments[0]
	return s.cleared >= len(s.groups) || s.groups[s.cleared] == g
}

// Pins returns up to n groups that keep the oldest segment from being recycled
// because their state is not flushed. The host flushes them when Stats.Pinned.
func (l *Log) Pins(n int) []partition.GroupID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pins(n)
}

func (l *Log) pins(n int) []partition.GroupID {
	var all []partition.GroupID
	s := l.segments[0]
	for _, id := range s.groups[s.cleared:] {
		if len(all) >= n {
			break
		}
		if l.needs(id, s) == needFlush && !slices.Contains(all, id) {
			all = append(all, id)
		}
	}
	return all
}

// byGroup orders by group.
func byGroup(a, b Lost) int { return cmp.Compare(a.Group, b.Group) }
