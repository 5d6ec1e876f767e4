package client

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"pando.dev/pando/partition"
)

// Version is the protocol's version, carried in every frame. A side that gets a
// newer one answers CodeNewerFormat and closes the connection.
const Version = 1

// Limits of what one frame may carry.
const (
	// MaxKeyBytes bounds Request.Key.
	MaxKeyBytes = 8 << 10
	// MaxCommandBytes bounds Request.Body: with 64 bytes for its session it
	// must fit into one record.
	MaxCommandBytes = partition.MaxPayloadBytes - 64
	// MaxAnswerBytes bounds Response.Body.
	MaxAnswerBytes = 8 << 20
	// MaxReasonBytes bounds Response.Why and Response.Next each; longer texts
	// are cut.
	MaxReasonBytes = 1 << 10
)

// Op is what a request asks for.
type Op uint8

const (
	// OpPropose executes a command in the group's order.
	OpPropose Op = 1
	// OpRead answers a query from the group's state.
	OpRead Op = 2
	// OpOpenSession opens a session; the answer's Index is the session's.
	OpOpenSession Op = 3
	// OpRoutes asks for the routes if they are newer than RangeVersion; the
	// answer's Body holds them, or nothing if they are not.
	OpRoutes Op = 4
)

// String returns the name used in logs.
func (o Op) String() string {
	switch o {
	case OpPropose:
		return "propose"
	case OpRead:
		return "read"
	case OpOpenSession:
		return "open_session"
	case OpRoutes:
		return "routes"
	}
	return fmt.Sprintf("op(%d)", uint8(o))
}

// Level says how fresh a read must be.
type Level uint8

const (
	// Lease is linearizable: the master answers under its lease, or after one
	// round if the lease has lapsed. It is the default.
	Lease Level = 0
	// Quorum is linearizable without clocks; it costs one round between
	// replicas.
	Quorum Level = 1
	// Session is not older than what the caller has seen (see Seen and Token).
	// Any full replica answers, the master too; one that is behind is waited for.
	Session Level = 2
	// Stale is an earlier state, of any full replica, which says how old it is:
	// ReadOptions bounds that by an index and by an age.
	Stale Level = 3
)

// String returns the level as commands print and accept it.
func (l Level) String() string {
	switch l {
	case Lease:
		return "lease"
	case Quorum:
		return "quorum"
	case Session:
		return "session"
	case Stale:
		return "stale"
	}
	return fmt.Sprintf("level(%d)", uint8(l))
}

// ParseLevel reads a level as String prints it; "" is Lease.
func ParseLevel(s string) (Level, error) {
	for l := Lease; l <= Stale; l++ {
		if s == l.String() {
			return l, nil
		}
	}
	if s == "" {
		return Lease, nil
	}
	return 0, &partition.Error{
		Code: partition.CodeInvalid, Why: fmt.Sprintf("read level %.40q is unknown", s),
		Next: "use lease, quorum, session or stale",
	}
}

// Anywhere reports whether any full replica may answer, not the master alone.
func (l Level) Anywhere() bool { return l == Session || l == Stale }

// Request is one question of a client to a node.
type Request struct {
	ID    uint64 // the client's, unique on its connection; comes back in the answer
	Op    Op
	Level Level // of OpRead
	Group partition.GroupID
	// RangeVersion is the one that the client routed by; with OpRoutes, the
	// version of the routes that it has.
	RangeVersion partition.RangeVersion
	Session      partition.SessionID // of OpPropose
	Seq          uint64              // the command's number in its session, from 1
	// MinIndex is what the state must reflect at least, with Session and Stale.
	MinIndex partition.Index
	// MaxAge is how old the state may be, with Stale; 0: as old as it is.
	MaxAge time.Duration
	// TimeoutMS is for how long the client waits for this answer; 0: the server
	// decides. A request that has not been begun by then may be dropped.
	TimeoutMS uint32
	// Wide tells of a read that it may touch keys behind Key. Of a command the
	// partition kind can tell.
	Wide bool
	// Key must be in the group's range; empty with OpOpenSession and OpRoutes.
	Key []byte
	// Body is the command or the query, as the partition kind defines it.
	Body []byte
}

// Response answers the Request of the same ID.
type Response struct {
	ID uint64
	// Code is 0 for success; otherwise Why, Next and Master are those of
	// partition.Error.
	Code   partition.Code
	Index  partition.Index // of the command's record, or what the read reflects
	Body   []byte          // the result
	Why    string
	Next   string
	Master partition.NodeID
	// Age is, if AgeKnown, how long ago at most the state that the read reflects,
	// or the routes, was the newest: no write acknowledged before then is missing.
	Age      time.Duration
	AgeKnown bool
}

// Err returns the error that the response carries, or nil.
func (r *Response) Err() *partition.Error {
	if r.Code == 0 {
		return nil
	}
	return &partition.Error{Code: r.Code, Why: r.Why, Next: r.Next, Master: r.Master}
}

// ErrorResponse makes a response of an error; one that is not a
// *partition.Error becomes CodeInternal with its text.
func ErrorResponse(err error) *Response {
	e, ok := err.(*partition.Error)
	if !ok {
		e = asError(err)
	}
	return &Response{Code: e.Code, Why: e.Why, Next: e.Next, Master: e.Master}
}

// Frames, all integers little-endian. The checksum is CRC32C over everything
// after itself; length counts the bytes after the prefix.
//
//	prefix:   checksum u32 | length u32
//	request:  version u8 | type u8=1 | op u8 | level u8 | timeout_ms u32 | id u64 | group u64 | range version u64 |
//	          session group u64 | session index u64 | seq u64 | key length u32 | key | body
//	response: version u8 | type u8=2 | code u16 | why length u16 | next length u16 | id u64 | index u64 |
//	          master length u8 | flags u8 | reserved 2 | age_us u64 if flagAge | why | next | master | body
//
// A read has no session. In its place it carries min index u64 | max_age_us u64 |
// flags u64.
const (
	prefixBytes         = 8
	requestHeaderBytes  = 60
	responseHeaderBytes = 28

	typeRequest  = 1
	typeResponse = 2

	flagAge  = 1 << 0 // of a response
	flagWide = 1 << 0 // of a read
	ageBytes = 8

	maxRequestFrame  = requestHeaderBytes + MaxKeyBytes + MaxCommandBytes
	maxResponseFrame = responseHeaderBytes + ageBytes + 2*MaxReasonBytes + partition.MaxNodeIDBytes + MaxAnswerBytes
)

// appendRequest encodes a request, which must be within the limits (see
// Request.check), behind dst.
func appendRequest(dst []byte, r *Request) []byte {
	start := len(dst)
	var head [prefixBytes + requestHeaderBytes]byte
	h := head[prefixBytes:]
	le := binary.LittleEndian
	h[0], h[1], h[2], h[3] = Version, typeRequest, byte(r.Op), byte(r.Level)
	le.PutUint32(h[4:], r.TimeoutMS)
	le.PutUint64(h[8:], r.ID)
	le.PutUint64(h[16:], uint64(r.Group))
	le.PutUint64(h[24:], uint64(r.RangeVersion))
	if r.Op == OpRead {
		le.PutUint64(h[32:], uint64(r.MinIndex))
		le.PutUint64(h[40:], boundMicros(r.MaxAge))
		if r.Wide {
			le.PutUint64(h[48:], flagWide)
		}
	} else {
		le.PutUint64(h[32:], uint64(r.Session.Group))
		le.PutUint64(h[40:], uint64(r.Session.Index))
		le.PutUint64(h[48:], r.Seq)
	}
	le.PutUint32(h[56:], uint32(len(r.Key)))
	dst = append(dst, head[:]...)
	dst = append(dst, r.Key...)
	dst = append(dst, r.Body...)
	return seal(dst, start)
}

// appendResponse encodes a response behind dst. Texts over their limit are cut;
// a body over its limit becomes CodeTooLarge.
func appendResponse(dst []byte, r *Response) []byte {
	if len(r.Body) > MaxAnswerBytes {
		e := partition.Errorf(partition.CodeTooLarge, "answer of %d bytes, limit %d", len(r.Body), MaxAnswerBytes)
		e.Next = "ask for fewer or smaller items"
		return appendResponse(dst, &Response{ID: r.ID, Code: e.Code, Why: e.Why, Next: e.Next})
	}
	why, next, master := cut(r.Why, MaxReasonBytes), cut(r.Next, MaxReasonBytes), cut(string(r.Master), partition.MaxNodeIDBytes)
	start := len(dst)
	var head [prefixBytes + responseHeaderBytes]byte
	h := head[prefixBytes:]
	le := binary.LittleEndian
	h[0], h[1] = Version, typeResponse
	le.PutUint16(h[2:], uint16(r.Code))
	le.PutUint16(h[4:], uint16(len(why)))
	le.PutUint16(h[6:], uint16(len(next)))
	le.PutUint64(h[8:], r.ID)
	le.PutUint64(h[16:], uint64(r.Index))
	h[24] = byte(len(master))
	if r.AgeKnown {
		h[25] = flagAge
	}
	dst = append(dst, head[:]...)
	if r.AgeKnown {
		dst = le.AppendUint64(dst, uint64((r.Age+time.Microsecond-1)/time.Microsecond)) // never younger
	}
	dst = append(dst, why...)
	dst = append(dst, next...)
	dst = append(dst, master...)
	dst = append(dst, r.Body...)
	return seal(dst, start)
}

// seal fills in the prefix of the frame that begins at start.
func seal(dst []byte, start int) []byte {
	f := dst[start:]
	binary.LittleEndian.PutUint32(f[4:], uint32(len(f)-prefixBytes))
	binary.LittleEndian.PutUint32(f, partition.Checksum(f[4:]))
	return dst
}

func cut(s string, limit int) string {
	if len(s) > limit {
		return s[:limit]
	}
	return s
}

// frameLength reads a prefix: how many bytes follow it. The limit is checked
// here, before anybody makes room.
func frameLength(prefix []byte, limit int) (int, *partition.Error) {
	n := binary.LittleEndian.Uint32(prefix[4:])
	if n > uint32(limit) || n < 2 {
		return 0, partition.Errorf(partition.CodeCorrupt, "frame of %d bytes, limit %d", n, limit)
	}
	return int(n), nil
}

// openFrame checks a whole frame, prefix included, and returns what follows the
// prefix.
func openFrame(f []byte, typ byte, header int) ([]byte, *partition.Error) {
	want := binary.LittleEndian.Uint32(f)
	if got := partition.Checksum(f[4:]); got != want {
		return nil, partition.Errorf(partition.CodeCorrupt, "frame with checksum %08x, expected %08x", got, want)
	}
	b := f[prefixBytes:]
	if b[0] > Version {
		return nil, &partition.Error{
			Code: partition.CodeNewerFormat,
			Why:  fmt.Sprintf("protocol version %d, newest known %d", b[0], Version),
			Next: "upgrade the older side",
		}
	}
	if b[0] == 0 || b[1] != typ || len(b) < header {
		return nil, partition.Errorf(partition.CodeCorrupt, "frame of version %d, type %d, %d bytes", b[0], b[1], len(b))
	}
	return b, nil
}

// parseRequest decodes a whole frame into r, whose Key and Body then alias it.
func parseRequest(f []byte, r *Request) *partition.Error {
	b, err := openFrame(f, typeRequest, requestHeaderBytes)
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	keyBytes := le.Uint32(b[56:])
	rest := b[requestHeaderBytes:]
	if keyBytes > MaxKeyBytes || int(keyBytes) > len(rest) {
		return partition.Errorf(partition.CodeCorrupt, "key of %d bytes in a frame of %d", keyBytes, len(b))
	}
	*r = Request{
		Op: Op(b[2]), Level: Level(b[3]), TimeoutMS: le.Uint32(b[4:]), ID: le.Uint64(b[8:]),
		Group: partition.GroupID(le.Uint64(b[16:])), RangeVersion: partition.RangeVersion(le.Uint64(b[24:])),
		Key: rest[:keyBytes:keyBytes], Body: rest[keyBytes:len(rest):len(rest)],
	}
	if r.Op == OpRead {
		r.MinIndex = partition.Index(le.Uint64(b[32:]))
		r.MaxAge = microseconds(le.Uint64(b[40:]))
		r.Wide = le.Uint64(b[48:])&flagWide != 0
		return nil
	}
	r.Session = partition.SessionID{Group: partition.GroupID(le.Uint64(b[32:])), Index: partition.Index(le.Uint64(b[40:]))}
	r.Seq = le.Uint64(b[48:])
	return nil
}

// parseResponse decodes a whole frame into r, whose Body then aliases it.
func parseResponse(f []byte, r *Response) *partition.Error {
	b, err := openFrame(f, typeResponse, responseHeaderBytes)
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	why, next, master := int(le.Uint16(b[4:])), int(le.Uint16(b[6:])), int(b[24])
	rest := b[responseHeaderBytes:]
	*r = Response{ID: le.Uint64(b[8:]), Code: partition.Code(le.Uint16(b[2:])), Index: partition.Index(le.Uint64(b[16:]))}
	if b[25]&flagAge != 0 {
		if len(rest) < ageBytes {
			return partition.Errorf(partition.CodeCorrupt, "no age in a frame of %d bytes", len(b))
		}
		r.Age, r.AgeKnown = microseconds(le.Uint64(rest)), true
		rest = rest[ageBytes:]
	}
	texts := why + next + master
	if why > MaxReasonBytes || next > MaxReasonBytes || master > partition.MaxNodeIDBytes || texts > len(rest) {
		return partition.Errorf(partition.CodeCorrupt, "texts of %d, %d and %d bytes in a frame of %d", why, next, master, len(b))
	}
	r.Body = rest[texts:len(rest):len(rest)]
	if texts > 0 {
		s := string(rest[:texts])
		r.Why, r.Next, r.Master = s[:why], s[why:why+next], partition.NodeID(s[why+next:])
	}
	return nil
}

// check refuses a request that makes no sense, whoever sends it: the client
// calls it before it sends, the server on what it received.
func (r *Request) check() *partition.Error {
	switch {
	case len(r.Key) > MaxKeyBytes:
		return partition.Errorf(partition.CodeTooLarge, "key of %d bytes, limit %d", len(r.Key), MaxKeyBytes)
	case len(r.Body) > MaxCommandBytes:
		return partition.Errorf(partition.CodeTooLarge, "command of %d bytes, limit %d", len(r.Body), MaxCommandBytes)
	}
	switch r.Op {
	case OpRoutes:
		return nil
	case OpOpenSession, OpRead, OpPropose:
	default:
		return partition.Errorf(partition.CodeInvalid, "unknown operation %d", r.Op)
	}
	switch {
	case r.Group == 0:
		return partition.Errorf(partition.CodeInvalid, "%s without a group", r.Op)
	case r.Op == OpRead:
		return r.checkLevel()
	case r.Op == OpPropose && (r.Session == partition.SessionID{}) != (r.Seq == 0):
		return partition.Errorf(partition.CodeInvalid, "number %d in session %v", r.Seq, r.Session)
	}
	return nil
}

// checkLevel refuses a read whose bounds its level does not know: it would
// promise what nobody keeps.
func (r *Request) checkLevel() *partition.Error {
	switch {
	case r.Level > Stale:
		return &partition.Error{
			Code: partition.CodeInvalid, Why: fmt.Sprintf("read level %s is not supported", r.Level),
			Next: "use lease, quorum, session or stale",
		}
	case r.MinIndex != 0 && !r.Level.Anywhere():
		return partition.Errorf(partition.CodeInvalid, "a least index with level %s, which is never older", r.Level)
	case r.MaxAge != 0 && r.Level != Stale:
		return partition.Errorf(partition.CodeInvalid, "a greatest age with level %s, it goes with stale", r.Level)
	case r.MaxAge < 0:
		return partition.Errorf(partition.CodeInvalid, "a greatest age of %s", r.MaxAge)
	}
	return nil
}

// boundMicros is a greatest age in the wire's unit, which is never more, and 0
// only if there is none.
func boundMicros(d time.Duration) uint64 {
	if d <= 0 {
		return 0
	}
	return uint64(max(1, d/time.Microsecond))
}

// microseconds reads a length of time; one that is too long for a Duration is
// the longest.
func microseconds(n uint64) time.Duration {
	return time.Duration(min(n, uint64(math.MaxInt64/time.Microsecond))) * time.Microsecond
}

// timeoutMS turns what is left of a wait into the wire's unit, rounding up, so
// that a wait that is not over is not 0.
func timeoutMS(left float64) uint32 {
	return uint32(min(max(math.Ceil(left), 1), math.MaxUint32))
}
