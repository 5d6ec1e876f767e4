package wal

import (
	"pando.dev/pando/partition"
)

// Local kinds: the log's own items. They never leave the node; each has a
// record's header and checksum.
const (
	// kindState sets a replica's hard state, and creates it if it is new.
	kindState = partition.KindLocal + iota
	// kindSnip removes the records from its index on; its epoch and first
	// payload bytes are epoch and checksum of the record before.
	kindSnip
	// kindInstall says that another state counts; unless it keeps the log so
	// far, that is void.
	kindInstall
	// kindDrop forgets a replica.
	kindDrop
	// kindQuarantine says that a replica has lost something.
	kindQuarantine
	// kindProgress carries commit and flushed indexes of many groups. Losing it
	// costs nothing.
	kindProgress
	// kindEcho names what earlier batches held, so that the loss of one can be
	// put down to the groups that were in it.
	kindEcho
	// kindRow is one replica in a segment's state table.
	kindRow
)

const (
	stateBytes    = 32
	installBytes  = 24
	damageBytes   = 16
	progressBytes = 28
	echoHeadBytes = 12
	echoBytes     = 20
	rowBytes      = 96
	itemHead      = partition.RecordHeaderBytes
)

// appendItem encodes an item whose index means nothing.
func appendItem(b []byte, g partition.GroupID, k partition.Kind, payload ...[]byte) []byte {
	return partition.AppendRecord(b, partition.Header{Group: g, Index: 1, Kind: k}, payload...)
}

func appendState(b []byte, g partition.GroupID, s HardState) []byte {
	var p [stateBytes]byte
	encodeState(p[:], s)
	return appendItem(b, g, kindState, p[:])
}

// encodeState writes replica u16, reserved u16, generation u32, promise u64,
// commit u64, flushed u64.
func encodeState(p []byte, s HardState) {
	le.PutUint16(p, uint16(s.Replica))
	le.PutUint32(p[4:], s.Generation)
	le.PutUint64(p[8:], uint64(s.Promise))
	le.PutUint64(p[16:], uint64(s.Commit))
	le.PutUint64(p[24:], uint64(s.Flushed))
}

func decodeState(p []byte) (s HardState, ok bool) {
	if len(p) < stateBytes {
		return s, false
	}
	return HardState{
		Replica: partition.ReplicaID(le.Uint16(p)), Generation: le.Uint32(p[4:]), Promise: partition.Epoch(le.Uint64(p[8:])),
		Commit: partition.Index(le.Uint64(p[16:])), Flushed: partition.Index(le.Uint64(p[24:])),
	}, true
}

func appendSnip(b []byte, g partition.GroupID, end partition.Position, sum uint32) []byte {
	h := partition.Header{Group: g, Index: end.Index + 1, Epoch: end.Epoch, Prev: sum, Kind: kindSnip}
	return partition.AppendRecord(b, h)
}

// installKeeps marks an install that keeps the log.
const installKeeps = 1

// appendInstall writes replica u16, flags u16, generation u32, index u64, epoch
// u64 and the record of the configuration.
func appendInstall(b []byte, g partition.GroupID, r partition.ReplicaID, n *Install, keep bool) []byte {
	var p [installBytes]byte
	le.PutUint16(p[:], uint16(r))
	if keep {
		le.PutUint16(p[2:], installKeeps)
	}
	le.PutUint32(p[4:], n.Generation)
	le.PutUint64(p[8:], uint64(n.Base.Index))
	le.PutUint64(p[16:], uint64(n.Base.Epoch))
	h := partition.Header{Group: g, Index: n.Base.Index + 1, Prev: n.BaseSum, Kind: kindInstall}
	return partition.AppendRecord(b, h, p[:], n.Configuration)
}

func decodeInstall(r partition.Record) (n Install, keep, ok bool) {
	p := r.Payload()
	if len(p) < installBytes {
		return n, false, false
	}
	keep = le.Uint16(p[2:])&installKeeps != 0
	n = Install{
		Base:    partition.Position{Epoch: partition.Epoch(le.Uint64(p[16:])), Index: partition.Index(le.Uint64(p[8:]))},
		BaseSum: r.Prev(), Generation: le.Uint32(p[4:]),
	}
	n.Configuration, ok = ownConfig(p[installBytes:], r.Group())
	return n, keep, ok && n.Configuration != nil && n.Base.Index <= maxIndex
}

// ownConfig copies the configuration record in b; nil if b is empty.
func ownConfig(b []byte, g partition.GroupID) (partition.Record, bool) {
	if len(b) == 0 {
		return nil, true
	}
	c, rest, err := partition.ParseRecord(b)
	if err != nil || len(rest) != 0 || c.Group() != g || !isConfig(c.Kind()) {
		return nil, false
	}
	return append(partition.Record(nil), c...), true
}

func isConfig(k partition.Kind) bool { return k == partition.KindMember || k == partition.KindMode }

func appendQuarantine(b []byte, g partition.GroupID, d *Damage) []byte {
	var p [damageBytes]byte
	le.PutUint64(p[:], uint64(d.From))
	le.PutUint64(p[8:], uint64(d.To))
	return appendItem(b, g, kindQuarantine, p[:])
}

// touch says what one batch holds of one group.
type touch struct {
	group partition.GroupID
	last  partition.Index // the group's last index at the end of the batch
	items uint32
}

// echo says what a batch held.
type echo struct {
	seq     uint64
	touched []touch
}

// bytes is the size of the echo within its item.
func (e *echo) bytes() int { return echoHeadBytes + echoBytes*len(e.touched) }

func (e *echo) append(b []byte) []byte {
	b = le.AppendUint64(b, e.seq)
	b = le.AppendUint32(b, uint32(len(e.touched)))
	for _, t := range e.touched {
		b = le.AppendUint64(b, uint64(t.group))
		b = le.AppendUint64(b, uint64(t.last))
		b = le.AppendUint32(b, t.items)
	}
	return b
}

// decodeEchoes reads the payload of a kindEcho item.
func decodeEchoes(p []byte) (all []echo, ok bool) {
	for len(p) > 0 {
		if len(p) < echoHeadBytes {
			return nil, false
		}
		e := echo{seq: le.Uint64(p)}
		n := int64(le.Uint32(p[8:]))
		p = p[echoHeadBytes:]
		if n*echoBytes > int64(len(p)) {
			return nil, false
		}
		e.touched = make([]touch, 0, n)
		for range n {
			e.touched = append(e.touched, touch{
				group: partition.GroupID(le.Uint64(p)), last: partition.Index(le.Uint64(p[8:])), items: le.Uint32(p[16:]),
			})
			p = p[echoBytes:]
		}
		all = append(all, e)
	}
	return all, true
}

// row is a replica in a state table: all of its state at the start of the
// segment.
//
//	state [32] | first u64 | epoch before u64 | last u64 | last epoch u64 | last sum u32 |
//	flags u32 | lost from u64 | lost to u64 | reserved [8] | configuration records...
//
// The configurations are the newest that can no longer be snipped, and those
// behind it.
type row struct {
	hard    HardState
	before  partition.Position // of the record before the first
	end     partition.Position
	endSum  uint32
	damage  *Damage
	configs []partition.Record
}

const rowQuarantined = 1

func (r *row) append(b []byte, g partition.GroupID) []byte {
	var p [rowBytes]byte
	encodeState(p[:], r.hard)
	le.PutUint64(p[32:], uint64(r.before.Index+1))
	le.PutUint64(p[40:], uint64(r.before.Epoch))
	le.PutUint64(p[48:], uint64(r.end.Index))
	le.PutUint64(p[56:], uint64(r.end.Epoch))
	le.PutUint32(p[64:], r.endSum)
	if r.damage != nil {
		le.PutUint32(p[68:], rowQuarantined)
		le.PutUint64(p[72:], uint64(r.damage.From))
		le.PutUint64(p[80:], uint64(r.damage.To))
	}
	parts := make([][]byte, 1, 1+len(r.configs))
	parts[0] = p[:]
	for _, c := range r.configs {
		parts = append(parts, c)
	}
	return appendItem(b, g, kindRow, parts...)
}

func decodeRow(r partition.Record) (w row, ok bool) {
	p := r.Payload()
	if len(p) < rowBytes || r.Kind() != kindRow {
		return w, false
	}
	w.hard, _ = decodeState(p)
	first := partition.Index(le.Uint64(p[32:]))
	w.end = partition.Position{Index: partition.Index(le.Uint64(p[48:])), Epoch: partition.Epoch(le.Uint64(p[56:]))}
	if first == 0 || w.end.Index > maxIndex || first > w.end.Index+1 {
		return w, false
	}
	w.before = partition.Position{Index: first - 1, Epoch: partition.Epoch(le.Uint64(p[40:]))}
	w.endSum = le.Uint32(p[64:])
	if le.Uint32(p[68:])&rowQuarantined != 0 {
		w.damage = &Damage{
			From: partition.Index(le.Uint64(p[72:])), To: partition.Index(le.Uint64(p[80:])),
			Why: "found damaged at an earlier start",
		}
	}
	for b := p[rowBytes:]; len(b) > 0; {
		c, rest, err := partition.ParseRecord(b)
		if err != nil || c.Group() != r.Group() || !isConfig(c.Kind()) {
			return w, false
		}
		w.configs, b = append(w.configs, append(partition.Record(nil), c...)), rest
	}
	return w, true
}
