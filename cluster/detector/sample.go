package detector

import (
	"fmt"
	"time"

	"pando.dev/pando/partition"
)

// What a sample may carry, and how many nodes are listened to.
const (
	MaxPeers  = 64
	MaxClaims = 32
	MaxNodes  = 1024
)

// Sample is what a node says of one second of its life.
type Sample struct {
	Node partition.NodeID `json:"node"`
	// Boot is the node's incarnation; another one is a restart.
	Boot uint64 `json:"boot"`
	// Sync is the 99th percentile of the durations of the syncs of the node's log,
	// or how long the one that is under way has taken, if that is longer; 0 if
	// nothing was synced.
	Sync time.Duration `json:"sync,omitempty"`
	// Late is how late the node's own timers were at most: what it waits for its
	// processors.
	Late time.Duration `json:"late,omitempty"`
	// Queue is how full the fullest mailbox is in thousandths; 1,000 also if
	// something was refused because one was full.
	Queue int `json:"queue,omitempty"`
	// Load is the units of load a second of all groups mastered here, Hot the
	// heaviest of them.
	Load uint64    `json:"load,omitempty"`
	Hot  GroupLoad `json:"hot,omitzero"`
	// Peers are the nodes that this one has links to.
	Peers []Peer `json:"peers,omitempty"`
	// Claims are what this node finds wrong; see Detector.Claims.
	Claims []Claim `json:"claims,omitempty"`
}

// GroupLoad is a group and its units of load in a second.
type GroupLoad struct {
	Group partition.GroupID `json:"group"`
	Load  uint64            `json:"load"`
}

// Peer is another node as the one that measures sees it.
type Peer struct {
	Node partition.NodeID `json:"node"`
	// RTT is a heartbeat's time there and back; 0 if there was none.
	RTT time.Duration `json:"rtt,omitempty"`
	// Downs is how often the link was lost since the measuring node's start.
	Downs uint64 `json:"downs,omitempty"`
}

// Check refuses a sample that no node sends.
func (s *Sample) Check() error {
	switch {
	case s.Node == "" || len(s.Node) > partition.MaxNodeIDBytes:
		return partition.Errorf(partition.CodeInvalid, "a sample of a node with a name of %d bytes, allowed are 1 to %d", len(s.Node), partition.MaxNodeIDBytes)
	case len(s.Peers) > MaxPeers:
		return partition.Errorf(partition.CodeTooLarge, "a sample with %d peers, limit %d", len(s.Peers), MaxPeers)
	case len(s.Claims) > MaxClaims:
		return partition.Errorf(partition.CodeTooLarge, "a sample with %d claims, limit %d", len(s.Claims), MaxClaims)
	case s.Sync < 0 || s.Late < 0 || s.Queue < 0:
		return partition.Errorf(partition.CodeInvalid, "a sample of node %s with a negative figure", s.Node)
	}
	for _, p := range s.Peers {
		if len(p.Node) > partition.MaxNodeIDBytes {
			return partition.Errorf(partition.CodeInvalid, "a sample of node %s with a peer whose name is too long", s.Node)
		}
	}
	for _, c := range s.Claims {
		if len(c.Node) > partition.MaxNodeIDBytes || len(c.Peer) > partition.MaxNodeIDBytes {
			return partition.Errorf(partition.CodeInvalid, "a sample of node %s with a claim about a name that is too long", s.Node)
		}
	}
	return nil
}

// Kind is what may be wrong.
type Kind uint8

// The kinds. Their numbers cross the wire: new ones go to the end.
const (
	SlowDisk   Kind = iota + 1 // the syncs of a node's log
	SlowLink                   // between two nodes, and not the fault of one
	Overloaded                 // a node's processors or queues
	Flapping                   // a node that comes and goes
	HotGroup                   // one group that carries more than a usual node
	kinds
)

// String returns the name that commands and logs use.
func (k Kind) String() string {
	switch k {
	case SlowDisk:
		return "slow-disk"
	case SlowLink:
		return "slow-link"
	case Overloaded:
		return "overloaded"
	case Flapping:
		return "flapping"
	case HotGroup:
		return "hot-group"
	}
	return fmt.Sprintf("kind-%d", uint8(k))
}

// MarshalText implements encoding.TextMarshaler.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. A name that is not known,
// of a newer version, becomes a kind of which nothing follows.
func (k *Kind) UnmarshalText(b []byte) error {
	*k = kinds
	for x := SlowDisk; x < kinds; x++ {
		if x.String() == string(b) {
			*k = x
		}
	}
	return nil
}

// Claim is what is wrong with whom.
type Claim struct {
	Kind Kind `json:"kind"`
	// Node is the node, one end of the link, or empty for a group: its master may
	// move.
	Node partition.NodeID `json:"node,omitempty"`
	// Peer is the other end of a link, the greater one.
	Peer  partition.NodeID  `json:"peer,omitempty"`
	Group partition.GroupID `json:"group,omitempty"`
}

// Subject names who it is.
func (c Claim) Subject() string {
	switch c.Kind {
	case SlowLink:
		return fmt.Sprintf("%s-%s", c.Node, c.Peer)
	case HotGroup:
		return c.Group.String()
	}
	return string(c.Node)
}

// Verdict is a claim with its reasons.
type Verdict struct {
	// ID names this occurrence on the node whose detector it is.
	ID string `json:"id"`
	Claim
	Subject string `json:"subject"`
	// Score is the sum; the claim was made at Limit.
	Score float64 `json:"score"`
	Limit float64 `json:"limit"`
	// Evidence is what was measured and with what it was compared; Own and Usual are
	// the numbers in it: nanoseconds, thousandths of a queue, or units of load a
	// second; 0 if this node's figures do not show it.
	Evidence string  `json:"evidence"`
	Own      float64 `json:"own,omitempty"`
	Usual    float64 `json:"usual,omitempty"`
	// Confirmed: at least two nodes say so. Nothing is done about others.
	Confirmed bool               `json:"confirmed"`
	By        []partition.NodeID `json:"by"`
	// Since is when it began, Until when it ended (0: it has not), on the clock of
	// the node whose detector it is.
	Since partition.Time `json:"since"`
	Until partition.Time `json:"until,omitempty"`
}

// SickNode is the node that the verdict is about, if its masterships are better
// elsewhere.
func (v *Verdict) SickNode() (partition.NodeID, bool) {
	return v.Node, v.Confirmed && v.Until == 0 && (v.Kind == SlowDisk || v.Kind == Overloaded)
}
