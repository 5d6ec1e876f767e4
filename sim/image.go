package sim

import (
	"fmt"
	"slices"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
	"pando.dev/pando/wal"
)

// image is the log of one replica with its hard state: what a platter holds, or
// what a process sees.
type image struct {
	replica    partition.ReplicaID // 0: there is none
	generation uint32
	promise    partition.Epoch
	commit     partition.Index
	flushed    partition.Index
	first      partition.Index
	before     partition.Position
	beforeSum  uint32
	recs       []partition.Record
	// configs are the configuration in force before first, if the log does not
	// begin with the genesis record, and all that are in the log.
	configs []configAt
	damage  *wal.Damage
}

// configAt is a configuration and its record.
type configAt struct {
	replica.ConfigurationAt
	rec partition.Record
}

func (m *image) last() partition.Index { return m.first + partition.Index(len(m.recs)) - 1 }

// at returns a record that the image has.
func (m *image) at(i partition.Index) partition.Record { return m.recs[i-m.first] }

// holds reports whether the record is there, or was let go of after it was
// committed.
func (m *image) holds(p partition.Position) bool {
	return m.replica != 0 && m.damage == nil &&
		(p.Index < m.first || p.Index <= m.last() && m.at(p.Index).Epoch() == p.Epoch)
}

func (m *image) end() (p partition.Position, sum uint32) {
	if n := len(m.recs); n > 0 {
		return m.recs[n-1].Position(), m.recs[n-1].Checksum()
	}
	return m.before, m.beforeSum
}

// clone is an image of its own. It shares what does not change: records, and a list
// as far as it goes.
func (m *image) clone() image {
	c := *m
	c.recs, c.configs = slices.Clip(m.recs), slices.Clip(m.configs)
	return c
}

// check says why a log would refuse the write.
func (m *image) check(w *wal.Write) error {
	if m.replica == 0 {
		if w.Replica == 0 {
			return fmt.Errorf("the first write of %s names no replica", w.Group)
		}
		return nil
	}
	if m.damage != nil {
		return partition.Errorf(partition.CodeCorrupt, "%s is quarantined", w.Group)
	}
	if w.Replica != 0 && w.Replica != m.replica {
		return fmt.Errorf("a write of replica %d to the log of replica %d", w.Replica, m.replica)
	}
	if w.Promise != 0 && w.Promise < m.promise {
		return fmt.Errorf("promise %s after %s", w.Promise, m.promise)
	}
	end, sum := m.end()
	if w.Snip {
		if w.After < m.commit || w.After+1 < m.first || w.After > m.last() {
			return fmt.Errorf("a snip behind %d of a log from %d to %d, committed to %d", w.After, m.first, m.last(), m.commit)
		}
		if w.After >= m.first {
			end, sum = m.at(w.After).Position(), m.at(w.After).Checksum()
		} else {
			end, sum = m.before, m.beforeSum
		}
	}
	for _, r := range w.Records {
		if r.Index() != end.Index+1 || r.Epoch() < end.Epoch || sum != 0 && r.Prev() != sum {
			return fmt.Errorf("record %s behind %s", r.Position(), end)
		}
		end, sum = r.Position(), r.Checksum()
	}
	return nil
}

// apply makes a write that was checked.
func (m *image) apply(w *wal.Write) {
	if m.replica == 0 {
		m.replica, m.generation, m.first = w.Replica, w.Generation, 1
	}
	m.promise, m.commit = max(m.promise, w.Promise), max(m.commit, w.Commit)
	if n := w.Install; n != nil {
		m.install(n)
	}
	if w.Snip {
		m.snip(w.After)
	}
	m.recs = append(m.recs, w.Records...)
	for _, r := range w.Records {
		m.note(r)
	}
}

func (m *image) note(r partition.Record) {
	if k := r.Kind(); k == partition.KindMember || k == partition.KindMode {
		c := new(partition.Membership)
		if c.UnmarshalBinary(r.Payload()) == nil {
			m.configs = append(m.configs, configAt{replica.ConfigurationAt{Index: r.Index(), Membership: c}, r})
		}
	}
}

// snip removes the records behind after. Others may hold the list as it was, so what
// follows does not go where it was.
func (m *image) snip(after partition.Index) {
	m.recs = slices.Clip(m.recs[:after+1-m.first])
	for len(m.configs) > 0 && m.configs[len(m.configs)-1].Index > after {
		m.configs = slices.Clip(m.configs[:len(m.configs)-1])
	}
}

// install puts the log behind a copied state; see wal.Install.
func (m *image) install(n *wal.Install) {
	i := n.Base.Index
	keep := i == m.before.Index && m.before == n.Base && i > 0 ||
		i >= m.first && i <= m.last() && m.at(i).Position() == n.Base && m.at(i).Checksum() == n.BaseSum
	if !keep {
		m.first, m.before, m.beforeSum, m.recs, m.configs = i+1, n.Base, n.BaseSum, nil, nil
		m.note(n.Configuration)
	}
	m.promise, m.commit = max(m.promise, n.Base.Epoch), max(m.commit, i)
	m.flushed, m.generation = i, n.Generation
}

// cut lets go of the records before first.
func (m *image) cut(first partition.Index) {
	first = min(first, m.last()+1)
	if first <= m.first {
		return
	}
	r := m.at(first - 1)
	m.before, m.beforeSum = r.Position(), r.Checksum()
	m.recs = slices.Clone(m.recs[first-m.first:])
	m.first = first
	for len(m.configs) > 1 && m.configs[1].Index < first {
		m.configs = m.configs[1:]
	}
}

// active are the configurations in force when commit is known to be committed.
func (m *image) active(commit partition.Index) partition.Configurations {
	n := len(m.configs)
	if n == 0 {
		return nil
	}
	last := m.configs[n-1]
	if n > 1 && last.Index > commit && last.Membership.Alone == 0 {
		return partition.Configurations{m.configs[n-2].Membership, last.Membership}
	}
	return partition.Configurations{last.Membership}
}

// summary is what a log that holds the image says of it.
func (m *image) summary() wal.Summary {
	end, sum := m.end()
	s := wal.Summary{
		HardState: wal.HardState{Replica: m.replica, Promise: m.promise, Commit: m.commit, Flushed: m.flushed, Generation: m.generation},
		First:     m.first, Last: m.last(), Before: m.before, End: end, LastSum: sum, Damage: m.damage,
	}
	for _, r := range m.recs {
		if n := len(s.Runs); n == 0 || s.Runs[n-1].Epoch != r.Epoch() {
			s.Runs = append(s.Runs, wal.Run{Epoch: r.Epoch(), First: r.Index()})
		}
	}
	for i, c := range m.configs {
		if i+1 == len(m.configs) || m.configs[i+1].Index > m.commit {
			s.Configurations = append(s.Configurations, c.rec)
		}
	}
	return s
}
