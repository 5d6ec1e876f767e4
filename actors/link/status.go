package link

import (
	"cmp"
	"slices"
	"time"

	"pando.dev/pando/partition"
)

// PeerStatus is the state of one link.
type PeerStatus struct {
	Node   partition.NodeID
	Boot   uint64 // of the working link
	Up     bool
	Since  time.Time // when the working link was made
	Dialed bool      // by this node
	Wanted bool
	// RTT is the smoothed time of a heartbeat on the control connection.
	RTT time.Duration
	// ControlQueue and DataQueue are the bytes that wait to be sent.
	ControlQueue, DataQueue int
	FramesIn, FramesOut     uint64
	Busy                    uint64 // frames refused because too much waited
}

// Peers describes all links, ordered by node.
func (l *Links) Peers() []PeerStatus {
	var out []PeerStatus
	for _, k := range *l.peers.Load() {
		p := PeerStatus{Node: k.node, Wanted: k.wanted.Load(), RTT: time.Duration(k.rtt.Load()),
			FramesIn: k.framesIn.Load(), FramesOut: k.framesOut.Load(), Busy: k.busy.Load()}
		if s := k.session.Load(); s != nil {
			p.Up, p.Boot, p.Since, p.Dialed = true, s.boot, s.born, s.dialed
			p.ControlQueue, p.DataQueue = s.control.out.bytes(), s.data.out.bytes()
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b PeerStatus) int { return cmp.Compare(a.Node, b.Node) })
	return out
}

// Stats are the counters of all links of a node since its start.
type Stats struct {
	Accepted, Dialed, DialFailed, Ups, Downs uint64
	// HandshakeFailed: connections that ended before they said who they are.
	// TLSFailed: among them, those that failed to secure the connection.
	HandshakeFailed, TLSFailed uint64
	// Refused and Declined are handshakes by reason: refused by this node, and
	// by others.
	Refused, Declined map[Refusal]uint64
	// Bad are connections that were ended because of what came over them.
	Bad FrameStats
	// Silent are connections that were ended because nothing came.
	Silent uint64
	// SendBusy and SendDown are frames, calls and actor messages that were not
	// taken: too much waits, or no link.
	SendBusy, SendDown uint64
	// CallsIn are calls that were executed, CallsRefused those that were too
	// many.
	CallsIn, CallsRefused uint64
	// UnknownType, BadMessage and Forbidden are messages to actors that were
	// dropped: of no registered type, not decodable, or not a peer's to send.
	// Undelivered went to nobody or into a full mailbox.
	UnknownType, BadMessage, Forbidden, Undelivered uint64
	// BadBeats are heartbeats and answers that the leases did not take.
	BadBeats uint64
	// Clients, Streams and Handshakes are connections open now.
	Clients, Streams, Handshakes int
}

// Stats returns the counters.
func (l *Links) Stats() Stats {
	n := &l.n
	s := Stats{
		Accepted: n.accepted.Load(), Dialed: n.dialed.Load(), DialFailed: n.dialFailed.Load(), Ups: n.ups.Load(), Downs: n.downs.Load(),
		HandshakeFailed: n.handshakeFailed.Load(), TLSFailed: n.tlsFailed.Load(), Silent: n.silent.Load(),
		Refused: make(map[Refusal]uint64), Declined: make(map[Refusal]uint64),
		SendBusy: n.sendBusy.Load(), SendDown: n.sendDown.Load(), CallsIn: n.callsIn.Load(), CallsRefused: n.callsRefused.Load(),
		UnknownType: n.unknownType.Load(), BadMessage: n.badMessage.Load(), Forbidden: n.forbidden.Load(), Undelivered: n.undelivered.Load(),
		BadBeats: n.badBeats.Load(), Clients: len(l.clients), Streams: len(l.raft), Handshakes: len(l.handshakes),
		Bad: FrameStats{
			Magic: n.bad[badMagic].Load(), Version: n.bad[badVersion].Load(), Kind: n.bad[badKind].Load(), Length: n.bad[badLength].Load(),
			Checksum: n.bad[badChecksum].Load(), Body: n.bad[badBody].Load(), Panic: n.bad[badPanic].Load(),
		},
	}
	for r := Refusal(1); r < refusals; r++ {
		if x := n.refused[r].Load(); x > 0 {
			s.Refused[r] = x
		}
		if x := n.declined[r].Load(); x > 0 {
			s.Declined[r] = x
		}
	}
	return s
}
