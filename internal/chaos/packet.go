package chaos

import (
	"encoding/binary"
	"net/netip"
)

// The parts of IPv4 and TCP that the hub knows.
const (
	ipHeader  = 20
	protoTCP  = 6
	protoUDP  = 17
	tcpHeader = 20
	udpHeader = 8
	tcpSYN    = 1 << 1
	tcpRST    = 1 << 2
	tcpACK    = 1 << 4
)

// destination is where an IPv4 packet goes; ok is false for anything else.
func destination(p []byte) (addr netip.Addr, ok bool) {
	if len(p) < ipHeader || p[0]>>4 != 4 {
		return addr, false
	}
	return netip.AddrFrom4([4]byte(p[16:20])), true
}

// transport returns the part of a packet behind the IP header, if it is whole and
// not a fragment, and which protocol it is of.
func transport(p []byte) (seg []byte, proto byte) {
	header := int(p[0]&15) * 4
	total := int(binary.BigEndian.Uint16(p[2:]))
	fragment := binary.BigEndian.Uint16(p[6:]) & 0x3fff
	if header < ipHeader || total > len(p) || header > total || fragment != 0 {
		return nil, 0
	}
	return p[header:total], p[9]
}

// spoil changes a byte of the payload and makes the checksum right again, so that
// only what is above TCP and UDP can find it. It reports whether there was any.
func spoil(p []byte, draw uint64) bool {
	seg, proto := transport(p)
	header := 0
	switch {
	case proto == protoTCP && len(seg) >= tcpHeader:
		header = int(seg[12]>>4) * 4
	case proto == protoUDP && len(seg) >= udpHeader:
		header = udpHeader
	}
	if header == 0 || header >= len(seg) {
		return false
	}
	at := header + int(draw>>8%uint64(len(seg)-header))
	seg[at] ^= byte(1 << (draw % 8))
	seal(p, seg, proto)
	return true
}

// reset makes a segment the end of its connection. It reports whether it could.
func reset(p []byte) ([]byte, bool) {
	seg, proto := transport(p)
	if proto != protoTCP || len(seg) < tcpHeader || seg[13]&tcpACK == 0 {
		return p, false
	}
	p = p[:len(p)-len(seg)+tcpHeader]
	seg = seg[:tcpHeader]
	seg[12] = tcpHeader / 4 << 4
	seg[13] = tcpRST | tcpACK
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	header := int(p[0]&15) * 4
	p[10], p[11] = 0, 0
	binary.BigEndian.PutUint16(p[10:], ^sum(0, p[:header]))
	seal(p, seg, proto)
	return p, true
}

// refusal is the segment that answers p where nobody listens; ok is false if p
// is to be answered by none.
func refusal(p []byte) (answer []byte, ok bool) {
	seg, proto := transport(p)
	if proto != protoTCP || len(seg) < tcpHeader || seg[13]&tcpRST != 0 {
		return nil, false
	}
	b := make([]byte, ipHeader+tcpHeader)
	b[0], b[8], b[9] = 0x45, 64, protoTCP
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	copy(b[12:16], p[16:20])
	copy(b[16:20], p[12:16])
	binary.BigEndian.PutUint16(b[10:], ^sum(0, b[:ipHeader]))
	t := b[ipHeader:]
	copy(t[0:2], seg[2:4])
	copy(t[2:4], seg[0:2])
	t[12] = tcpHeader / 4 << 4
	if seg[13]&tcpACK != 0 {
		copy(t[4:8], seg[8:12])
		t[13] = tcpRST
	} else {
		n := uint32(len(seg) - int(seg[12]>>4)*4)
		if seg[13]&tcpSYN != 0 {
			n++
		}
		binary.BigEndian.PutUint32(t[8:], binary.BigEndian.Uint32(seg[4:])+n)
		t[13] = tcpRST | tcpACK
	}
	seal(b, t, protoTCP)
	return b, true
}

// seal writes the checksum of a segment.
func seal(p, seg []byte, proto byte) {
	at := 16
	if proto == protoUDP {
		at = 6
	}
	seg[at], seg[at+1] = 0, 0
	pseudo := sum(uint32(proto)+uint32(len(seg)), p[12:20])
	c := ^sum(uint32(pseudo), seg)
	if c == 0 && proto == protoUDP {
		c = 0xffff // 0 means that there is none
	}
	binary.BigEndian.PutUint16(seg[at:], c)
}

// sum is the Internet checksum, not yet complemented.
func sum(start uint32, b []byte) uint16 {
	s := start
	for ; len(b) > 1; b = b[2:] {
		s += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}
