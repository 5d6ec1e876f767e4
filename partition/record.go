package partition

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// Kind says what a record is. Kinds are append-only: a number, once used, keeps
// its meaning in every log and on every wire.
type Kind uint8

const (
	// KindNoop is the first record of a master's epoch.
	KindNoop Kind = 1
	// KindCommand carries a command for the partition.
	KindCommand Kind = 2
	// KindMember carries a Membership; it takes effect on append.
	KindMember Kind = 3
	// KindMode carries a Membership that differs from the one before only in
	// who is eligible.
	KindMode Kind = 4
	// KindSession opens or expires client sessions.
	KindSession Kind = 5

	// Kinds from 16 on change what a group serves; see Extent.

	// KindIntent carries an Intent: a split begins, and the group does nothing
	// else to its structure until it is done or aborted.
	KindIntent Kind = 16
	// KindSeal, KindUnseal, KindActivate, KindDone and KindAbort carry a Decision
	// about the split under way. Seal: nothing in the leaving ranges changes any
	// more. Unseal: it does again. Activate: the ranges belong to the children, for
	// ever. Done: the children need nothing of the group any more. Abort: the split
	// is given up before any range was sealed, or after it was unsealed.
	KindSeal     Kind = 17
	KindUnseal   Kind = 18
	KindActivate Kind = 19
	KindDone     Kind = 20
	KindAbort    Kind = 21

	// Of a merge, see Merge. In the survivor's log: KindMergeIntent carries a
	// MergeIntent and begins it; KindAbsorb carries rows of the source, as Absorb;
	// KindMerging carries Merging and is the decision. KindAbort gives it up instead,
	// and KindDone says that the source has learned of the decision.
	KindMergeIntent Kind = 22
	KindAbsorb      Kind = 23
	KindMerging     Kind = 24
	// In the source's log: KindSourceSeal carries a SourceSeal, after which nothing of
	// the group changes; KindSourceUnseal and KindSourceGone carry a Decision, as the
	// survivor has decided.
	KindSourceSeal   Kind = 25
	KindSourceUnseal Kind = 26
	KindSourceGone   Kind = 27

	// KindLocal is the first of the kinds that never leave their node: the log
	// uses them for its own book-keeping and no peer ever accepts one.
	KindLocal Kind = 128
)

// String returns the name used in stories, logs and commands.
func (k Kind) String() string {
	names := map[Kind]string{
		KindNoop: "noop", KindCommand: "command", KindMember: "member",
		KindMode: "mode", KindSession: "session", KindIntent: "intent", KindSeal: "seal",
		KindUnseal: "unseal", KindActivate: "activate", KindDone: "done", KindAbort: "abort",
		KindMergeIntent: "merge-intent", KindAbsorb: "absorb", KindMerging: "merging",
		KindSourceSeal: "source-seal", KindSourceUnseal: "source-unseal", KindSourceGone: "source-gone",
	}
	if s, ok := names[k]; ok {
		return s
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Structural reports whether records of this kind belong to a change of the group's
// Extent.
func (k Kind) Structural() bool { return k >= KindIntent && k <= KindSourceGone }

const (
	// RecordHeaderBytes is the size of a record without its payload.
	RecordHeaderBytes = 40
	// MaxPayloadBytes bounds a record's payload. A batch of client commands
	// must fit, and so must one record into one frame of a link.
	MaxPayloadBytes = 2 << 20
)

// Record is one entry of a group's log, in the one encoding that it keeps
// everywhere: the master encodes it once, and the same bytes go to its log, to
// every peer and into their logs. A Record is never changed after it was made;
// whoever holds one may share it.
//
//	crc32c u32 | length u32 | group u64 | index u64 | epoch u64 | prev u32 | kind u8 | flags u8 | reserved u16 | payload
//
// All integers are little-endian. The checksum covers everything after itself;
// prev is the checksum of the record before, which chains the log.
type Record []byte

// Header is a record's fixed part, as NewRecord takes it.
type Header struct {
	Group GroupID
	Index Index
	Epoch Epoch
	Prev  uint32 // checksum of the record before, 0 for the first
	Kind  Kind
	Flags uint8
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Checksum is the CRC32C that records, batches and files use.
func Checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// AppendRecord encodes a record behind dst and returns the extended slice. The
// payload may be given in several parts.
func AppendRecord(dst []byte, h Header, payload ...[]byte) []byte {
	start := len(dst)
	dst = append(dst, make([]byte, RecordHeaderBytes)...)
	for _, p := range payload {
		dst = append(dst, p...)
	}
	b := dst[start:]
	le := binary.LittleEndian
	le.PutUint32(b[4:], uint32(len(b)-RecordHeaderBytes))
	le.PutUint64(b[8:], uint64(h.Group))
	le.PutUint64(b[16:], uint64(h.Index))
	le.PutUint64(b[24:], uint64(h.Epoch))
	le.PutUint32(b[32:], h.Prev)
	b[36] = byte(h.Kind)
	b[37] = h.Flags
	le.PutUint32(b, Checksum(b[4:]))
	return dst
}

// NewRecord encodes one record into memory of its own.
func NewRecord(h Header, payload ...[]byte) Record {
	n := RecordHeaderBytes
	for _, p := range payload {
		n += len(p)
	}
	return Record(AppendRecord(make([]byte, 0, n), h, payload...))
}

// ParseRecord cuts the first record off b and checks it. The record aliases b.
// What comes from a disk or a peer is untrusted: any error means that none of b
// may be used. A short b gives ErrShortRecord, damage ErrCorruptRecord.
func ParseRecord(b []byte) (r Record, rest []byte, err error) {
	if len(b) < RecordHeaderBytes {
		return nil, nil, fmt.Errorf("%w: %d bytes", ErrShortRecord, len(b))
	}
	n := binary.LittleEndian.Uint32(b[4:])
	if n > MaxPayloadBytes {
		return nil, nil, fmt.Errorf("%w: payload of %d bytes, limit %d", ErrCorruptRecord, n, MaxPayloadBytes)
	}
	size := RecordHeaderBytes + int(n)
	if len(b) < size {
		return nil, nil, fmt.Errorf("%w: %d of %d bytes", ErrShortRecord, len(b), size)
	}
	r = Record(b[:size:size])
	if got := Checksum(r[4:]); got != r.Checksum() {
		return nil, nil, fmt.Errorf("%w: checksum %08x, stored %08x", ErrCorruptRecord, got, r.Checksum())
	}
	if r[38] != 0 || r[39] != 0 || r.Index() == 0 {
		return nil, nil, fmt.Errorf("%w: index %d, reserved %x", ErrCorruptRecord, r.Index(), r[38:40])
	}
	return r, b[size:], nil
}

// Checksum is the record's own CRC32C.
func (r Record) Checksum() uint32 { return binary.LittleEndian.Uint32(r) }

// Group is the group whose log the record belongs to.
func (r Record) Group() GroupID { return GroupID(binary.LittleEndian.Uint64(r[8:])) }

// Index is the record's place in the log.
func (r Record) Index() Index { return Index(binary.LittleEndian.Uint64(r[16:])) }

// Epoch is the epoch of the master that made the record.
func (r Record) Epoch() Epoch { return Epoch(binary.LittleEndian.Uint64(r[24:])) }

// Prev is the checksum of the record before.
func (r Record) Prev() uint32 { return binary.LittleEndian.Uint32(r[32:]) }

// Kind says how to read the payload.
func (r Record) Kind() Kind { return Kind(r[36]) }

// Flags are bits that each Kind defines for itself.
func (r Record) Flags() uint8 { return r[37] }

// Payload is the record's content. It aliases the record.
func (r Record) Payload() []byte { return r[RecordHeaderBytes:] }

// Position identifies the record in its group.
func (r Record) Position() Position { return Position{Epoch: r.Epoch(), Index: r.Index()} }

// String describes the record for stories and logs.
func (r Record) String() string {
	return fmt.Sprintf("%s %s %dB", r.Position(), r.Kind(), len(r.Payload()))
}
