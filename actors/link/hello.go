package link

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"

	"pando.dev/pando/partition"
)

// Handshake. The dialer sends a hello, the other side a welcome or a refusal
// that says why; then the connection belongs to its class.
//
//	hello:   magic u32 | version u16 | length u16 | class u8 | session u64 | from boot u64 | to boot u64 |
//	         cluster, from, to: u8 length and bytes each | crc32c u32
//	welcome: magic u32 | version u16 | length u16 | refusal u8 | boot u64 | node, reason: u8 length and bytes each | crc32c u32
//
// Little-endian; length counts what follows it, checksum included; the checksum
// covers all before it. A version that is newer than the reader's may go on
// differently, so the reader refuses it without looking further.

const (
	helloMagic   = 0x48444e50 // "PNDH"
	welcomeMagic = 0x57444e50 // "PNDW"
	helloHead    = 8
	maxHello     = 512
	// MaxClusterBytes bounds the name of a cluster.
	MaxClusterBytes = 64
	maxReason       = 255
)

// Refusal says why a handshake was refused. Refusals are append-only: they
// cross the wire.
type Refusal uint8

const (
	// RefusedCluster: the other side belongs to another cluster.
	RefusedCluster Refusal = 1
	// RefusedNode: another node was meant.
	RefusedNode Refusal = 2
	// RefusedBoot: another incarnation of the node was meant.
	RefusedBoot Refusal = 3
	// RefusedVersion: the wire version is newer, or too old.
	RefusedVersion Refusal = 4
	// RefusedIdentity: the certificate names another node.
	RefusedIdentity Refusal = 5
	// RefusedRole: the certificate's role does not allow this connection.
	RefusedRole Refusal = 6
	// RefusedClass: no such connections are taken here.
	RefusedClass Refusal = 7
	// RefusedBusy: too many connections.
	RefusedBusy Refusal = 8
	// RefusedDuplicate: there is a link already, or the other side's is kept.
	RefusedDuplicate Refusal = 9
	// RefusedStale: the dialer is an incarnation that a newer one has replaced,
	// or the session is over.
	RefusedStale Refusal = 10
	// RefusedMalformed: the bytes are no handshake.
	RefusedMalformed Refusal = 11

	refusals = 12
)

// String returns the refusal as a metric label.
func (r Refusal) String() string {
	names := [...]string{"ok", "cluster", "node", "boot", "version", "identity", "role", "class", "busy", "duplicate", "stale", "malformed"}
	if int(r) < len(names) {
		return names[r]
	}
	return fmt.Sprintf("refusal(%d)", uint8(r))
}

// RefusedError is a handshake that a peer refused, or that we refused to go on
// with.
type RefusedError struct {
	Refusal Refusal
	Node    partition.NodeID // that refused
	Boot    uint64           // its incarnation
	Why     string
}

// Error says who refused and why.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("connection refused (%s): %s", e.Refusal, e.Why)
}

// Unwrap gives the error a code that others know.
func (e *RefusedError) Unwrap() error {
	switch e.Refusal {
	case RefusedVersion:
		return partition.ErrNewerFormat
	case RefusedIdentity, RefusedRole:
		return partition.ErrUnauthorized
	case RefusedBusy:
		return partition.ErrBusy
	case RefusedMalformed:
		return partition.ErrCorrupt
	}
	return partition.ErrRefused
}

// hello is what a dialer says first.
type hello struct {
	class   class
	session uint64           // joins the control and data connections of a link
	cluster string           // must be the receiver's
	from    partition.NodeID // empty for clients
	boot    uint64
	to      partition.NodeID // empty: any
	toBoot  uint64           // 0: any
}

func (h *hello) encode() []byte {
	e := encoder{b: make([]byte, helloHead, 256)}
	e.b = append(e.b, byte(h.class))
	e.u64(h.session).u64(h.boot).u64(h.toBoot)
	e.text(h.cluster).text(string(h.from)).text(string(h.to))
	return seal(e.b, helloMagic)
}

func (h *hello) decode(b []byte) error {
	d := decoder{b: b}
	h.class = class(d.u8())
	h.session, h.boot, h.toBoot = d.u64(), d.u64(), d.u64()
	h.cluster, h.from, h.to = d.text(MaxClusterBytes), partition.NodeID(d.text(partition.MaxNodeIDBytes)), partition.NodeID(d.text(partition.MaxNodeIDBytes))
	return d.end()
}

// welcome is the answer. Refusal 0 means welcome.
type welcome struct {
	refusal Refusal
	boot    uint64
	node    partition.NodeID
	why     string
}

func (w *welcome) encode() []byte {
	e := encoder{b: make([]byte, helloHead, 256)}
	e.b = append(e.b, byte(w.refusal))
	e.u64(w.boot)
	e.text(string(w.node)).text(w.why[:min(len(w.why), maxReason)])
	return seal(e.b, welcomeMagic)
}

func (w *welcome) decode(b []byte) error {
	d := decoder{b: b}
	w.refusal = Refusal(d.u8())
	w.boot = d.u64()
	w.node, w.why = partition.NodeID(d.text(partition.MaxNodeIDBytes)), d.text(maxReason)
	return d.end()
}

// seal fills in the head and appends the checksum.
func seal(b []byte, magic uint32) []byte {
	le := binary.LittleEndian
	le.PutUint32(b, magic)
	le.PutUint16(b[4:], WireVersion)
	le.PutUint16(b[6:], uint16(len(b)-helloHead+4))
	return le.AppendUint32(b, partition.Checksum(b))
}

// readSealed reads what seal made and returns what lies between head and
// checksum. It never reads a byte too many: frames follow.
func readSealed(r io.Reader, magic uint32) ([]byte, error) {
	le := binary.LittleEndian
	head := make([]byte, helloHead, maxHello)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, fmt.Errorf("read handshake: %w", err)
	}
	if m := le.Uint32(head); m != magic {
		return nil, &RefusedError{Refusal: RefusedMalformed, Why: fmt.Sprintf("handshake begins with %08x", m)}
	}
	if v := le.Uint16(head[4:]); v != WireVersion {
		return nil, &RefusedError{Refusal: RefusedVersion, Why: fmt.Sprintf("wire version %d, this program knows %d", v, WireVersion)}
	}
	n := int(le.Uint16(head[6:]))
	if n < 4 || n > maxHello-helloHead {
		return nil, &RefusedError{Refusal: RefusedMalformed, Why: fmt.Sprintf("handshake of %d bytes, limit %d", n, maxHello-helloHead)}
	}
	b := head[:helloHead+n]
	if _, err := io.ReadFull(r, b[helloHead:]); err != nil {
		return nil, fmt.Errorf("read handshake: %w", err)
	}
	body := b[:len(b)-4]
	if sum := le.Uint32(b[len(body):]); sum != partition.Checksum(body) {
		return nil, &RefusedError{Refusal: RefusedMalformed, Why: "handshake with a wrong checksum"}
	}
	return body[helloHead:], nil
}

// writeWithin writes b, and bounds that and what is read next.
func writeWithin(c net.Conn, d time.Duration, b []byte) error {
	err := c.SetDeadline(time.Now().Add(d))
	if err == nil {
		_, err = c.Write(b)
	}
	return err
}

// greet is the dialer's side: it sends the hello and waits for the welcome. The
// other side's identity is checked against whom the hello is for.
func greet(c net.Conn, h hello, timeout time.Duration) (welcome, error) {
	var w welcome
	if err := writeWithin(c, timeout, h.encode()); err != nil {
		return w, fmt.Errorf("send handshake: %w", err)
	}
	b, err := readSealed(c, welcomeMagic)
	if err != nil {
		return w, err
	}
	if err := w.decode(b); err != nil {
		return w, &RefusedError{Refusal: RefusedMalformed, Why: err.Error()}
	}
	if w.refusal != 0 {
		return w, &RefusedError{Refusal: w.refusal, Node: w.node, Boot: w.boot, Why: w.why}
	}
	if h.to != "" && w.node != h.to {
		return w, &RefusedError{Refusal: RefusedNode, Node: w.node, Boot: w.boot, Why: fmt.Sprintf("node %s answered for %s", w.node, h.to)}
	}
	if h.toBoot != 0 && w.boot != h.toBoot {
		return w, &RefusedError{Refusal: RefusedBoot, Node: w.node, Boot: w.boot, Why: fmt.Sprintf("boot %d answered for %d", w.boot, h.toBoot)}
	}
	return w, c.SetDeadline(time.Time{})
}

func (e *encoder) text(s string) *encoder {
	e.b = append(append(e.b, byte(len(s))), s...)
	return e
}

func (d *decoder) u8() uint8 {
	if d.err != nil || len(d.b) < 1 {
		d.short()
		return 0
	}
	x := d.b[0]
	d.b = d.b[1:]
	return x
}

func (d *decoder) u16() uint16 {
	if d.err != nil || len(d.b) < 2 {
		d.short()
		return 0
	}
	x := binary.LittleEndian.Uint16(d.b)
	d.b = d.b[2:]
	return x
}

// text reads a string of at most limit bytes.
func (d *decoder) text(limit int) string {
	n := int(d.u8())
	if d.err != nil || len(d.b) < n {
		d.short()
		return ""
	}
	if n > limit {
		d.err = corrupt("a name of %d bytes, limit %d", n, limit)
		return ""
	}
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}

// end returns the first error, or one if bytes are left.
func (d *decoder) end() error {
	if d.err == nil && len(d.b) != 0 {
		d.err = corrupt("%d bytes too many", len(d.b))
	}
	return d.err
}
