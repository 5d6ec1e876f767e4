package link

import (
	"fmt"
	"sync/atomic"

	"pando.dev/pando/partition"
)

// badFrame says why a connection was ended by what came over it.
type badFrame int

const (
	badMagic badFrame = iota
	badVersion
	badKind
	badLength
	badChecksum
	badBody  // the body of a control frame makes no sense
	badPanic // handling it panicked
	badFrames
)

// FrameStats counts connections that were ended by a frame, by reason.
type FrameStats struct {
	Magic, Version, Kind, Length, Checksum, Body, Panic uint64
}

// protocolError is an error of the peer: it ends the connection.
type protocolError struct {
	reason badFrame
	err    *partition.Error
}

func (e *protocolError) Error() string { return e.err.Error() }
func (e *protocolError) Unwrap() error { return e.err }

func frameError(r badFrame, format string, args ...any) error {
	c := partition.CodeCorrupt
	if r == badVersion {
		c = partition.CodeNewerFormat
	}
	return &protocolError{r, &partition.Error{Code: c, Why: fmt.Sprintf(format, args...)}}
}

// counters are one node's, for all its links.
type counters struct {
	bad      [badFrames]atomic.Uint64
	refused  [refusals]atomic.Uint64 // handshakes that we refused, by reason
	declined [refusals]atomic.Uint64 // handshakes in which a peer refused us

	handshakeFailed atomic.Uint64 // ended before a hello: time-out, closed
	tlsFailed       atomic.Uint64
	accepted        atomic.Uint64
	dialed          atomic.Uint64
	dialFailed      atomic.Uint64
	ups, downs      atomic.Uint64
	silent          atomic.Uint64 // connections ended because nothing came

	sendBusy     atomic.Uint64 // Send and Call refused, queue full
	sendDown     atomic.Uint64 // refused, no link
	callsIn      atomic.Uint64
	callsRefused atomic.Uint64
	serving      atomic.Int64  // bytes of the requests being executed
	unknownType  atomic.Uint64 // actor messages of a type not in the registry
	badMessage   atomic.Uint64 // actor messages whose body did not decode
	forbidden    atomic.Uint64 // actor messages that a peer may not send
	undelivered  atomic.Uint64 // actor messages refused by a full mailbox or to nobody
	badBeats     atomic.Uint64
	links        atomic.Uint64 // made so far; numbers them
}
