package link

import (
	"encoding/binary"
	"hash/crc32"

	"pando.dev/pando/partition"
)

// Frame is one message between two replicas.
//
// As given to Send, its bytes are never changed again: small parts have been
// copied when Send returns, large ones are written from where they are. As given
// to OnFrame, Body is a slice of
// the chunk that it was read in: it is the receiver's for as long as it wants,
// never changes, and pins that chunk (4 to 256 KiB) in memory.
type Frame struct {
	Kind  Kind
	Flags uint8
	Group partition.GroupID
	From  partition.ReplicaID
	To    partition.ReplicaID
	// Boot is the incarnation of the node that a received frame came from.
	Boot uint64
	Body []byte
	// Records go behind Body on the wire. They are for sending only: a received
	// frame has everything in Body.
	Records []partition.Record
}

const (
	// HeaderBytes is the size of a frame without its body.
	HeaderBytes = 28
	frameMagic  = 0x46444e50 // "PNDF"
	// WireVersion is the version of handshake and frames.
	WireVersion = 1
)

// A frame is, in little-endian:
//
//	magic u32 | version u8 | kind u8 | flags u8 | 0 | length u32 | from u16 | to u16 | group u64 | crc32c u32 | body
//
// The checksum covers the body and then the header before it: in this order the
// large part is computed before the place in the queue is known.

// Bytes is the size of the frame on the wire.
func (f *Frame) Bytes() int { return HeaderBytes + f.bodyBytes() }

func (f *Frame) bodyBytes() int {
	n := len(f.Body)
	for _, r := range f.Records {
		n += len(r)
	}
	return n
}

// bodySum is the checksum of the frame's body.
func (f *Frame) bodySum() uint32 {
	sum := crc32.Update(0, castagnoli(), f.Body)
	for _, r := range f.Records {
		sum = crc32.Update(sum, castagnoli(), r)
	}
	return sum
}

// append encodes the frame behind dst.
func (f *Frame) append(dst []byte) []byte {
	dst = append(f.appendHeader(dst, f.bodyBytes(), f.bodySum()), f.Body...)
	for _, r := range f.Records {
		dst = append(dst, r...)
	}
	return dst
}

// appendHeader encodes the header for a body of n bytes with the given checksum.
func (f *Frame) appendHeader(dst []byte, n int, sum uint32) []byte {
	le := binary.LittleEndian
	start := len(dst)
	dst = le.AppendUint32(dst, frameMagic)
	dst = append(dst, WireVersion, byte(f.Kind), f.Flags, 0)
	dst = le.AppendUint32(dst, uint32(n))
	dst = le.AppendUint16(dst, uint16(f.From))
	dst = le.AppendUint16(dst, uint16(f.To))
	dst = le.AppendUint64(dst, uint64(f.Group))
	return le.AppendUint32(dst, crc32.Update(sum, castagnoli(), dst[start:]))
}

// castagnoli is the table of CRC32C; the library keeps it.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// parseHeader checks everything of a header that can be checked without the
// body, and returns the frame without it and the size of the body. b has at
// least HeaderBytes.
func parseHeader(b []byte, c class) (f Frame, body int, err error) {
	le := binary.LittleEndian
	if m := le.Uint32(b); m != frameMagic {
		return f, 0, frameError(badMagic, "frame begins with %08x", m)
	}
	if b[4] != WireVersion || b[7] != 0 {
		return f, 0, frameError(badVersion, "frame of wire version %d, this program knows %d", b[4], WireVersion)
	}
	f.Kind, f.Flags = Kind(b[5]), b[6]
	n := le.Uint32(b[8:])
	limit, known := c.bound(f.Kind)
	if !known {
		return f, 0, frameError(badKind, "%s frame on a %s connection", f.Kind, c)
	}
	if n > uint32(limit) {
		return f, 0, frameError(badLength, "%s frame of %d bytes, limit %d", f.Kind, n, limit)
	}
	f.From, f.To = partition.ReplicaID(le.Uint16(b[12:])), partition.ReplicaID(le.Uint16(b[14:]))
	f.Group = partition.GroupID(le.Uint64(b[16:]))
	return f, int(n), nil
}

// checkFrame compares the checksum of a whole frame.
func checkFrame(b []byte) error {
	if want, sum := binary.LittleEndian.Uint32(b[24:]), frameSum(b); sum != want {
		return frameError(badChecksum, "frame checksum %08x, computed %08x", want, sum)
	}
	return nil
}

func frameSum(b []byte) uint32 {
	return crc32.Update(crc32.Update(0, castagnoli(), b[HeaderBytes:]), castagnoli(), b[:24])
}
