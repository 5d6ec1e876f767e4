package wal

import (
	"encoding/binary"
	"hash/crc32"

	"pando.dev/pando/partition"
)

// Sizes and marks of the format. All integers are little-endian.
const (
	formatVersion = 1

	// pageBytes is the grid on which headers, batches, footers and trailers
	// start: no batch ever rewrites a sector that holds acknowledged data, and a
	// damaged batch can be skipped.
	pageBytes = 4096

	headerMagic  = 0x31_4c41_574f_444e_50 // "PNDOWAL1"
	batchMagic   = 0x4254_4e50            // "PNTB"
	trailerMagic = 0x5254_4e50            // "PNTR"

	headerBytes     = 144
	headerCopyAt    = 2048 // the second copy, in another sector
	batchHeadBytes  = 32
	trailerBytes    = 72
	sectionBytes    = 24
	entryBytes      = 28
	maxSegmentBytes = 1 << 30
	// maxIndex is far beyond any real one; more is damage.
	maxIndex = 1 << 62
)

// le is the byte order of everything on disk.
var le = binary.LittleEndian

// castagnoli is the polynomial of all checksums; read-only.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// align rounds n up to the grid.
func align(n int64) int64 { return (n + pageBytes - 1) &^ (pageBytes - 1) }

// header is the first page of a segment.
//
//	magic u64 | crc u32 | version u32 | segment u64 | incarnation u64 | secret u64 |
//	first batch u64 | segment bytes u64 | reserved [22] | node length u16 | node [64]
//
// It is stored twice. Magic, checksum and version keep their places in every
// version of the format, so that an older program can tell.
type header struct {
	segment     uint64
	incarnation uint64
	secret      uint64 // of the log, the same in all its segments
	first       uint64 // number of the segment's first batch, its state table
	size        int64
	node        partition.NodeID
}

// encode writes the header page.
func (h *header) encode() []byte {
	b := make([]byte, pageBytes)
	le.PutUint64(b, headerMagic)
	le.PutUint32(b[12:], formatVersion)
	le.PutUint64(b[16:], h.segment)
	le.PutUint64(b[24:], h.incarnation)
	le.PutUint64(b[32:], h.secret)
	le.PutUint64(b[40:], h.first)
	le.PutUint64(b[48:], uint64(h.size))
	le.PutUint16(b[78:], uint16(len(h.node)))
	copy(b[80:headerBytes], h.node)
	le.PutUint32(b[8:], partition.Checksum(b[12:headerBytes]))
	copy(b[headerCopyAt:], b[:headerBytes])
	return b
}

// decodeHeader reads a header page; damaged is set if one of its two copies is
// lost. The error is CodeCorrupt or CodeNewerFormat.
func decodeHeader(b []byte) (h header, damaged bool, err error) {
	if len(b) < pageBytes {
		return h, true, corrupt("segment header of %d bytes", len(b))
	}
	h, err = decodeHeaderCopy(b[:headerBytes])
	if err == nil || partition.CodeOf(err) == partition.CodeNewerFormat {
		_, second := decodeHeaderCopy(b[headerCopyAt : headerCopyAt+headerBytes])
		return h, second != nil, err
	}
	h, err = decodeHeaderCopy(b[headerCopyAt : headerCopyAt+headerBytes])
	return h, true, err
}

func decodeHeaderCopy(b []byte) (h header, err error) {
	if le.Uint64(b) != headerMagic || le.Uint32(b[8:]) != partition.Checksum(b[12:headerBytes]) {
		return h, corrupt("segment header fails its check")
	}
	if v := le.Uint32(b[12:]); v != formatVersion {
		return h, &partition.Error{
			Code: partition.CodeNewerFormat, Next: "start the version that wrote it, or a newer one",
			Why: partition.Errorf(0, "log format %d, this program knows %d", v, formatVersion).Why,
		}
	}
	n := int(le.Uint16(b[78:]))
	if n > partition.MaxNodeIDBytes {
		return h, corrupt("segment header names a node of %d bytes", n)
	}
	return header{
		segment: le.Uint64(b[16:]), incarnation: le.Uint64(b[24:]), secret: le.Uint64(b[32:]),
		first: le.Uint64(b[40:]), size: int64(le.Uint64(b[48:])), node: partition.NodeID(b[80 : 80+n]),
	}, nil
}

// seedOf derives the start value of the batch checksums from the log's secret.
// A client that does not know it cannot put the image of a batch into a payload
// and have it believed after a torn write.
func seedOf(secret uint64) uint32 {
	return partition.Checksum(le.AppendUint64(nil, secret))
}

// A batch is what one sync makes durable:
//
//	magic u32 | crc u32 | payload u32 | items u32 | batch u64 | segment u64 | items...
//
// The checksum covers what follows it, to the end of the payload. Items are
// records, or records of local kinds (item.go), without gaps between them.
type batchHead struct {
	payload, items int
	seq, segment   uint64
}

// sealBatch fills in the head of the batch image b, whose first bytes are
// reserved for it.
func sealBatch(b []byte, items int, seq, segment uint64, seed uint32) {
	le.PutUint32(b, batchMagic)
	le.PutUint32(b[8:], uint32(len(b)-batchHeadBytes))
	le.PutUint32(b[12:], uint32(items))
	le.PutUint64(b[16:], seq)
	le.PutUint64(b[24:], segment)
	le.PutUint32(b[4:], crc32.Update(seed, castagnoli, b[8:]))
}

// peekBatch reads the head of a batch without checking the payload; ok if it is
// plausible: the right segment, and a payload that ends within b.
func peekBatch(b []byte, segment uint64) (h batchHead, ok bool) {
	if len(b) < batchHeadBytes || le.Uint32(b) != batchMagic || le.Uint64(b[24:]) != segment {
		return h, false
	}
	n := le.Uint32(b[8:])
	if uint64(n) > uint64(len(b)-batchHeadBytes) {
		return h, false
	}
	return batchHead{
		payload: int(n), items: int(le.Uint32(b[12:])), seq: le.Uint64(b[16:]), segment: segment,
	}, true
}

// checkBatch returns the head and the items of the valid batch at the start of
// b, or false.
func checkBatch(b []byte, segment uint64, seed uint32) (h batchHead, items []byte, ok bool) {
	h, ok = peekBatch(b, segment)
	if !ok {
		return h, nil, false
	}
	end := batchHeadBytes + h.payload
	if le.Uint32(b[4:]) != crc32.Update(seed, castagnoli, b[8:end]) {
		return h, nil, false
	}
	return h, b[batchHeadBytes:end:end], true
}

// nextItem cuts the first item off b by its length alone, without checking it.
func nextItem(b []byte) (item partition.Record, rest []byte, ok bool) {
	if len(b) < partition.RecordHeaderBytes {
		return nil, nil, false
	}
	n := le.Uint32(b[4:])
	if n > partition.MaxPayloadBytes || int(n) > len(b)-partition.RecordHeaderBytes {
		return nil, nil, false
	}
	size := partition.RecordHeaderBytes + int(n)
	return partition.Record(b[:size:size]), b[size:], true
}

// trailer is the last page of a sealed segment; it names the footer.
//
//	magic u32 | crc u32 | version u32 | footer crc u32 | segment u64 | secret u64 |
//	footer offset u64 | footer bytes u64 | first batch u64 | last batch u64 | end u64
type trailer struct {
	segment, secret uint64
	footerAt        int64
	footerSize      int64
	footerCRC       uint32
	first, last     uint64 // batches in the segment
	end             int64  // offset behind the last batch
}

func (t *trailer) encode() []byte {
	b := make([]byte, pageBytes)
	le.PutUint32(b, trailerMagic)
	le.PutUint32(b[8:], formatVersion)
	le.PutUint32(b[12:], t.footerCRC)
	le.PutUint64(b[16:], t.segment)
	le.PutUint64(b[24:], t.secret)
	le.PutUint64(b[32:], uint64(t.footerAt))
	le.PutUint64(b[40:], uint64(t.footerSize))
	le.PutUint64(b[48:], t.first)
	le.PutUint64(b[56:], t.last)
	le.PutUint64(b[64:], uint64(t.end))
	le.PutUint32(b[4:], partition.Checksum(b[8:trailerBytes]))
	return b
}

// decodeTrailer reads the last page of a segment of the given size; false if
// the segment was not sealed, or by an earlier use of the file, or is damaged.
func decodeTrailer(b []byte, segment uint64, size int64) (t trailer, ok bool) {
	if len(b) < trailerBytes || le.Uint32(b) != trailerMagic || le.Uint32(b[8:]) != formatVersion ||
		le.Uint32(b[4:]) != partition.Checksum(b[8:trailerBytes]) {
		return t, false
	}
	t = trailer{
		footerCRC: le.Uint32(b[12:]), segment: le.Uint64(b[16:]), secret: le.Uint64(b[24:]),
		footerAt: int64(le.Uint64(b[32:])), footerSize: int64(le.Uint64(b[40:])),
		first: le.Uint64(b[48:]), last: le.Uint64(b[56:]), end: int64(le.Uint64(b[64:])),
	}
	limit := size - pageBytes
	ok = t.segment == segment && t.end >= pageBytes && t.end <= limit &&
		t.footerAt >= t.end && t.footerAt <= limit && t.footerSize >= 0 && t.footerSize <= limit-t.footerAt
	return t, ok
}

// section is what a footer tells of one group: where its records are in the
// segment.
//
//	group u64 | epoch before the first u64 | entries u32 | reserved u32 |
//	entries: first u64, epoch u64, batch u32, offset u32, count u32
type section struct {
	group   partition.GroupID
	before  partition.Epoch
	entries []entry
}

func (s *section) append(b []byte) []byte {
	b = le.AppendUint64(b, uint64(s.group))
	b = le.AppendUint64(b, uint64(s.before))
	b = le.AppendUint32(b, uint32(len(s.entries)))
	b = le.AppendUint32(b, 0)
	for _, e := range s.entries {
		b = le.AppendUint64(b, uint64(e.first))
		b = le.AppendUint64(b, uint64(e.epoch))
		b = le.AppendUint32(b, e.batch)
		b = le.AppendUint32(b, e.off)
		b = le.AppendUint32(b, e.count)
	}
	return b
}

// decodeSection cuts the first section off a footer. Entries must be in order,
// without gaps, and point into the segment.
func decodeSection(b []byte, segment uint32, end int64) (s section, rest []byte, ok bool) {
	if len(b) < sectionBytes {
		return s, nil, false
	}
	s.group, s.before = partition.GroupID(le.Uint64(b)), partition.Epoch(le.Uint64(b[8:]))
	entries := int64(le.Uint32(b[16:]))
	b = b[sectionBytes:]
	if entries*entryBytes > int64(len(b)) {
		return s, nil, false
	}
	s.entries = make([]entry, 0, entries)
	var next partition.Index
	for range entries {
		e := entry{
			first: partition.Index(le.Uint64(b)), epoch: partition.Epoch(le.Uint64(b[8:])), seg: segment,
			batch: le.Uint32(b[16:]), off: le.Uint32(b[20:]), count: le.Uint32(b[24:]),
		}
		if e.first == 0 || e.first > maxIndex || e.count == 0 || next != 0 && e.first != next || e.batch < pageBytes || e.off <= e.batch || int64(e.off) >= end {
			return s, nil, false
		}
		next = e.first + partition.Index(e.count)
		s.entries, b = append(s.entries, e), b[entryBytes:]
	}
	return s, b, true
}
