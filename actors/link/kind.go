package link

import (
	"fmt"

	"pando.dev/pando/partition"
)

// Kind says what a frame carries. Kinds are append-only: a number, once used,
// keeps its meaning on the wire.
type Kind uint8

// Kinds of the control connection.
const (
	kindBeat       Kind = 1 // lease.Beat
	kindBeatAnswer Kind = 2 // lease.Answer
	kindCall       Kind = 3 // a part of a Call's request; Group is its number
	kindReply      Kind = 4 // a part of its answer
	kindMessage    Kind = 5 // a message to an actor
	kindWatch      Kind = 6 // watch, unwatch or terminated
)

// Kinds of the data connection: one per replica.Message.
const (
	KindAppend       Kind = 16
	KindAppendAck    Kind = 17
	KindGather       Kind = 18
	KindGatherAnswer Kind = 19
	KindFetch        Kind = 20
	KindFetchAnswer  Kind = 21
	KindProbe        Kind = 22
	KindProbeAnswer  Kind = 23
	KindReadCheck    Kind = 24
	KindReadConfirm  Kind = 25
	KindHandOver     Kind = 26
	// kindPing keeps an idle data connection from looking dead.
	kindPing Kind = 31
)

// Kinds of bulk connections.
const (
	kindChunk  Kind = 48 // bytes of a transfer
	kindCredit Kind = 49 // room for so many more bytes
	kindEnd    Kind = 50 // the sender is done
)

const (
	// MaxControlBytes bounds the body of a control frame, MaxAppendBytes that of
	// a frame with records, MaxChunkBytes a bulk chunk.
	MaxControlBytes = 64 << 10
	MaxAppendBytes  = 4 << 20
	MaxChunkBytes   = 1 << 20
	// maxSmallBytes bounds the data kinds without records.
	maxSmallBytes = 256
)

// class is what a connection is for. It is part of the handshake.
type class uint8

const (
	classControl class = 1
	classData    class = 2
	classBulk    class = 3
	classStream  class = 4 // raft: bytes without frames
	classClient  class = 5 // bytes without frames
)

// String returns the class as a metric label.
func (c class) String() string {
	switch c {
	case classControl:
		return "control"
	case classData:
		return "data"
	case classBulk:
		return "bulk"
	case classStream:
		return "stream"
	case classClient:
		return "client"
	}
	return fmt.Sprintf("class(%d)", uint8(c))
}

// bound returns how large a body of kind k may be on a connection of class c;
// ok is false if the kind is unknown there.
func (c class) bound(k Kind) (limit int, ok bool) {
	switch c {
	case classControl:
		switch k {
		case kindBeat:
			return beatBytes, true
		case kindBeatAnswer, kindCall, kindReply, kindMessage, kindWatch:
			return MaxControlBytes, true
		}
	case classData:
		switch {
		case k == KindAppend || k == KindFetchAnswer:
			return MaxAppendBytes, true
		case k > KindAppend && k <= KindHandOver:
			return maxSmallBytes, true
		case k == kindPing:
			return 0, true
		}
	case classBulk:
		switch k {
		case kindChunk:
			return MaxChunkBytes, true
		case kindCredit:
			return 4, true
		case kindEnd:
			return 0, true
		}
	}
	return 0, false
}

// String returns the name used in logs.
func (k Kind) String() string {
	names := [...]string{
		kindBeat: "beat", kindBeatAnswer: "beat_answer", kindCall: "call", kindReply: "reply",
		kindMessage: "message", kindWatch: "watch",
		KindAppend: "append", KindAppendAck: "append_ack", KindGather: "gather", KindGatherAnswer: "gather_answer",
		KindFetch: "fetch", KindFetchAnswer: "fetch_answer", KindProbe: "probe", KindProbeAnswer: "probe_answer",
		KindReadCheck: "read_check", KindReadConfirm: "read_confirm", KindHandOver: "hand_over", kindPing: "ping",
		kindChunk: "chunk", kindCredit: "credit", kindEnd: "end",
	}
	if int(k) < len(names) && names[k] != "" {
		return names[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

func corrupt(format string, args ...any) error {
	return partition.Errorf(partition.CodeCorrupt, format, args...)
}
