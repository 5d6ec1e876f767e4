package wal

import (
	"slices"

	"pando.dev/pando/partition"
)

// spanBytes bounds how far behind its entry's start a record may lie: what a
// read of one record has to walk over at most, beyond one batch.
const spanBytes = 256 << 10

// entry says where count records from first on are: the first at off, in the
// batch at the offset batch, the others behind it in the same segment, in order
// and with no other record of the group between them.
type entry struct {
	first      partition.Index
	epoch      partition.Epoch // of all of them
	seg        uint32
	batch, off uint32
	count      uint32
}

func (e *entry) last() partition.Index { return e.first + partition.Index(e.count) - 1 }

// place is where a record goes.
type place struct {
	seg        *segment
	batch, off uint32
}

// group is what the log knows of one replica. It is guarded by Log.mu.
type group struct {
	id   partition.GroupID
	hard HardState
	// before is the position of the record before the first; zero if that is 1.
	before partition.Position
	// end is the position of the last record, or before; endSum its checksum.
	end    partition.Position
	endSum uint32
	// entries cover before.Index+1 to end.Index without a gap.
	entries []entry
	// configs are the newest configuration that can no longer be snipped, and
	// those behind it, of which there may be older ones still.
	configs []partition.Record
	// retain: peers want the records from here on; 0: none.
	retain partition.Index
	damage *Damage
	// unsaved: there was no room yet to write that it is damaged.
	unsaved bool
	// split: the next record starts a new entry, because records that were
	// removed lie between it and the last.
	split bool
	dirty bool // commit or flushed moved since they were last written
	// batch and slot are where the current batch counts this group's items.
	batch uint64
	slot  int
}

func (g *group) first() partition.Index { return g.before.Index + 1 }

// add puts a record, whose index is end+1, behind the last.
func (g *group) add(r partition.Record, p place) {
	g.end, g.endSum = r.Position(), r.Checksum()
	if n := len(g.entries); n > 0 && !g.split {
		e := &g.entries[n-1]
		if e.epoch == g.end.Epoch && e.seg == uint32(p.seg.number) && p.off-e.off < spanBytes {
			e.count++
			g.addConfig(r)
			return
		}
	}
	if n := len(g.entries); n == 0 || g.entries[n-1].seg != uint32(p.seg.number) {
		p.seg.groups = append(p.seg.groups, g.id)
		p.seg.footerBytes += sectionBytes
	}
	p.seg.footerBytes += entryBytes
	g.entries = append(g.entries, entry{
		first: g.end.Index, epoch: g.end.Epoch, seg: uint32(p.seg.number), batch: p.batch, off: p.off, count: 1,
	})
	g.split = false
	g.addConfig(r)
}

func (g *group) addConfig(r partition.Record) {
	if isConfig(r.Kind()) {
		g.configs = append(slices.Clone(g.activeConfigs()), append(partition.Record(nil), r...))
	}
}

// snip removes the records behind end.
func (g *group) snip(end partition.Position, sum uint32) {
	if end.Index < g.before.Index {
		g.before = end
	}
	g.cutAfter(end.Index)
	g.end, g.endSum, g.split = end, sum, true
}

// cutAfter removes the entries of the records behind i, and their
// configurations.
func (g *group) cutAfter(i partition.Index) {
	n := len(g.entries)
	for n > 0 && g.entries[n-1].first > i {
		n--
	}
	g.entries = g.entries[:n]
	if n > 0 && g.entries[n-1].last() > i {
		g.entries[n-1].count = uint32(i - g.entries[n-1].first + 1)
		g.split = true
	}
	for n := len(g.configs); n > 0 && g.configs[n-1].Index() > i; n-- {
		g.configs = g.configs[:n-1]
	}
}

// forget removes the entries of all records up to p, which becomes before.
// Whoever calls it knows that the state has them.
func (g *group) forget(p partition.Position) {
	n := 0
	for n < len(g.entries) && g.entries[n].last() <= p.Index {
		n++
	}
	g.entries = slices.Delete(g.entries, 0, n)
	g.before = p
}

// activeConfigs returns the newest configuration that is known to be committed,
// and those behind it.
func (g *group) activeConfigs() []partition.Record {
	settled := max(g.hard.Commit, g.hard.Flushed, g.before.Index)
	keep := 0
	for i, c := range g.configs {
		if c.Index() <= settled {
			keep = i
		}
	}
	return g.configs[keep:]
}

// configAt returns the configuration in force at i; nil if that is not known.
func (g *group) configAt(i partition.Index) partition.Record {
	for _, c := range slices.Backward(g.configs) {
		if c.Index() <= i {
			return c
		}
	}
	return nil
}

// install takes over a state at the base. Unless the log has the record there,
// and is kept, it starts anew behind it.
func (g *group) install(n *Install, keep bool) {
	g.hard.Generation = n.Generation
	g.hard.Flushed = n.Base.Index
	g.hard.Commit = max(g.hard.Commit, n.Base.Index)
	if keep {
		return
	}
	g.entries, g.configs, g.split = nil, []partition.Record{n.Configuration}, true
	g.before, g.end, g.endSum = n.Base, n.Base, n.BaseSum
}

// find returns the place of the entry that holds i.
func (g *group) find(i partition.Index) (int, bool) {
	if i < g.first() || i > g.end.Index {
		return 0, false
	}
	n, found := slices.BinarySearchFunc(g.entries, i, func(e entry, i partition.Index) int {
		switch {
		case e.last() < i:
			return -1
		case e.first > i:
			return 1
		}
		return 0
	})
	return n, found
}

// epochAt returns the epoch of the record at i, which is in the log or just
// before it.
func (g *group) epochAt(i partition.Index) (partition.Epoch, bool) {
	if i == g.before.Index {
		return g.before.Epoch, true
	}
	n, ok := g.find(i)
	if !ok {
		return 0, false
	}
	return g.entries[n].epoch, true
}

// lastIn returns the position of the group's last record in the oldest segment.
func (g *group) lastIn(seg uint32) (p partition.Position, ok bool) {
	n, _ := slices.BinarySearchFunc(g.entries, seg, func(e entry, seg uint32) int {
		if e.seg <= seg {
			return -1
		}
		return 1
	})
	if n == 0 || g.entries[n-1].seg != seg {
		return p, false
	}
	return partition.Position{Epoch: g.entries[n-1].epoch, Index: g.entries[n-1].last()}, true
}

// row returns the group's line of a state table.
func (g *group) row() row {
	return row{
		hard: g.hard, before: g.before, end: g.end, endSum: g.endSum, damage: g.damage,
		configs: g.activeConfigs(),
	}
}

// rowBound is at least the size of the group's line in a state table.
func (g *group) rowBound() int {
	n := itemHead + rowBytes
	for _, c := range g.configs {
		n += len(c)
	}
	return n
}

// section returns what the footer of the newest segment says of the group;
// false if it has no records there.
func (g *group) section(seg uint32) (s section, ok bool) {
	s.group, s.before = g.id, g.before.Epoch
	n := len(g.entries)
	for n > 0 && g.entries[n-1].seg == seg {
		n--
	}
	if s.entries = g.entries[n:]; n > 0 {
		s.before = g.entries[n-1].epoch
	}
	if len(s.entries) == 0 {
		return s, false
	}
	return s, true
}

// runs returns the epochs of the records in the log. Behind a damaged record it
// begins in the middle of an entry.
func (g *group) runs() []Run {
	var all []Run
	for _, e := range g.entries {
		if n := len(all); n == 0 || all[n-1].Epoch != e.epoch {
			all = append(all, Run{Epoch: e.epoch, First: max(e.first, g.first())})
		}
	}
	return all
}

func (g *group) summary() Summary {
	s := Summary{
		HardState: g.hard, First: g.first(), Last: g.end.Index, Before: g.before, End: g.end, LastSum: g.endSum,
		Runs: g.runs(), Configurations: slices.Clone(g.activeConfigs()),
	}
	if g.damage != nil {
		d := *g.damage
		s.Damage = &d
	}
	return s
}
