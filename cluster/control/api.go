package control

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"time"

	"pando.dev/pando/cluster/placement"
	"pando.dev/pando/partition"
)

// Limits. What exceeds one gets a typed error that names it.
const (
	// MaxSeats bounds the seats of the control group: 1, 3 or 5 are sensible.
	MaxSeats = 7
	// MaxCallBytes bounds a request and an answer of Transport.Call. Everything
	// larger is divided before it is sent.
	MaxCallBytes = 64 << 10
	// MaxTables and MaxGroups bound the catalog.
	MaxTables = 1024
	MaxGroups = 1 << 17
	// MaxNameBytes bounds a table's name and a partition kind's.
	MaxNameBytes = 64
	// MaxKeyBytes bounds a split point.
	MaxKeyBytes = 1024
	// MaxSplitPoints and MaxSplitBytes bound the split points a table is
	// created with.
	MaxSplitPoints = 1023
	MaxSplitBytes  = 32 << 10
	// MaxSessions bounds the nodes with a session.
	MaxSessions = 4096
	// MaxPlacementNodes bounds the nodes that one table may be placed on.
	MaxPlacementNodes = 512
	// MaxLockBatch bounds the locks asked for in one request; AcquireLocks
	// divides more.
	MaxLockBatch = 256
	// MaxLockNumber is the greatest number a lock can hand out: it must fit the
	// upper 48 bits of an epoch.
	MaxLockNumber = 1<<48 - 1
	// maxTokens is how many finished catalog changes are remembered, so that a
	// retry of one of them gets the first answer.
	maxTokens = 1024
)

// Transport is what the control group needs of the links between nodes. Nodes
// are named by their id; where they are is the links' business.
type Transport interface {
	// Dial opens a stream to the control group's listener on a node.
	Dial(node partition.NodeID, timeout time.Duration) (net.Conn, error)
	// Accept returns the next stream that another node opened. It fails after
	// Close, and only then for good.
	Accept() (net.Conn, error)
	// Close ends Accept. Streams that are open stay open.
	Close() error
	// Call carries one request to Control.Serve on a node and brings its answer
	// back, both at most MaxCallBytes. An error of code unavailable, busy or
	// closed says that the request was not delivered; after any other it may
	// have been.
	Call(ctx context.Context, node partition.NodeID, request []byte) ([]byte, error)
}

// PeerInfo is a node that seems alive, as gossip tells.
type PeerInfo struct {
	Node   partition.NodeID
	Boot   uint64
	Zone   string
	Expect int  // the number of seats that it was started with
	Seat   bool // it holds a seat
}

// Config is what a node's part of the control group is made with. The zero
// value of each optional field works.
type Config struct {
	Node partition.NodeID // required
	Boot uint64           // required; counts the starts of the node
	// Start tells this process from every other one that claims the same boot
	// (default: random). It is in memory only.
	Start uint64
	Zone  string // of the node; tables are placed by it
	Dir   string // required; the control group's own directory
	// Expect is the number of seats of a cluster that is to be founded. With 0
	// this node never takes one. Once the control group exists it means
	// nothing.
	Expect    int
	Transport Transport // required; Close closes it
	// Peers returns the nodes that seem alive, this one included or not.
	// Required; it must not block.
	Peers func() []PeerInfo
	// Joined, if set, must be true before this node founds anything: a node that
	// was told of others has met one of them.
	Joined func() bool

	// SessionTTL is how long a node may be silent before its locks are free for
	// others (default 2 s). Every node renews four times in that time.
	SessionTTL time.Duration
	// RaftTimeout is how long a seat waits for its leader, and a candidate for
	// votes (default 150 ms; the library adds up to as much again at random).
	// Shorter ones find a dead leader sooner and suspect a slow one more often.
	RaftTimeout time.Duration
	// CallTimeout bounds the first attempt to reach the leader (default 200 ms).
	// Attempts are repeated until the caller's context ends, each one after an
	// unknown outcome with twice the time.
	CallTimeout time.Duration
	// SnapshotThreshold is the number of log entries between two snapshots
	// (default 8192), and so the bound of the log.
	SnapshotThreshold uint64

	// OnStale, if set, is called once if this process turns out to run on an old
	// copy of the node's disk; see Control.Stale. It must not block.
	OnStale func(error)

	// Now is the node's monotonic clock (default: since Start).
	Now    func() partition.Time
	Logger *slog.Logger // default: discard
}

func (c *Config) validate() error {
	switch {
	case c.Node == "" || len(c.Node) > partition.MaxNodeIDBytes:
		return partition.Errorf(partition.CodeInvalid, "control: node id %q", c.Node)
	case c.Boot == 0 || c.Dir == "" || c.Transport == nil || c.Peers == nil:
		return partition.Errorf(partition.CodeInvalid, "control: boot, directory, transport and peers are required")
	case c.Expect < 0 || c.Expect > MaxSeats:
		return partition.Errorf(partition.CodeInvalid, "%d seats expected, allowed are 0 to %d", c.Expect, MaxSeats)
	}
	return nil
}

func (c Config) withDefaults() Config {
	set := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	set(&c.SessionTTL, 2*time.Second)
	set(&c.RaftTimeout, 150*time.Millisecond)
	set(&c.CallTimeout, 200*time.Millisecond)
	if c.SnapshotThreshold == 0 {
		c.SnapshotThreshold = 8192
	}
	for c.Start == 0 {
		c.Start = rand.Uint64()
	}
	if c.Joined == nil {
		c.Joined = func() bool { return true }
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		start := time.Now()
		c.Now = func() partition.Time { return time.Since(start) }
	}
	return c
}

// State says whether the control group can decide things, as far as this node
// knows.
type State string

const (
	// Ready: there is a leader.
	Ready State = "ready"
	// NoLeader: the seats are known, but none of them leads.
	NoLeader State = "no leader"
	// WaitingForSeats: the control group does not exist yet, or no seat of it
	// has been met.
	WaitingForSeats State = "waiting for seats"
	// Stopped: this node's seat stopped itself; Status.Why says why.
	Stopped State = "stopped"
)

// Status describes the control group as this node sees it.
type Status struct {
	Group   uint64 // identifies the control group; 0: not known
	Leader  partition.NodeID
	Seats   []partition.NodeID
	State   State
	HasSeat bool
	Why     string // what State waits for or suffers from; empty with Ready
	// Stale is why this process may not act for its node, if it may not; see
	// Control.Stale.
	Stale *partition.Error
}

// LockRequest asks for the lock of one group.
type LockRequest struct {
	Group   partition.GroupID
	Replica partition.ReplicaID
	// Node is the requester; empty means this node. Nobody asks for another.
	Node partition.NodeID
	// Above is a number that the new one must exceed, whatever was handed out.
	Above uint64
	// Failover: a failover quorum says that the holder is unreachable, so the
	// lock is taken from another replica at once.
	Failover bool
	// Holder, if not 0, hands the lock over: it is taken from that replica if it
	// holds it by the number Consent.
	Holder  partition.ReplicaID
	Consent uint64
}

// LockHolder is who holds a lock, and by which number. The zero value: nobody.
type LockHolder struct {
	Node    partition.NodeID
	Replica partition.ReplicaID
	Number  uint64
}

// LockGrant answers a LockRequest. With Number not 0 the lock is held by that
// number, greater than all that were ever handed out for the group. Otherwise
// it was refused: Holder has it, or Err says what is wrong with the request.
type LockGrant struct {
	Group   partition.GroupID
	Replica partition.ReplicaID
	Number  uint64
	Holder  LockHolder
	// Permit is the in-sync number that the replica holds, if it does.
	Permit uint64
	Err    *partition.Error
}

// LockRelease gives a lock back. It does nothing if the number is no longer the
// one that holds it.
type LockRelease struct {
	Group   partition.GroupID
	Replica partition.ReplicaID
	Number  uint64
}

// TableSpec is what a table is created from.
type TableSpec struct {
	Name     string
	Kind     string // partition kind
	Replicas int
	// Policy is the durability policy of its groups; the zero value means
	// majority.
	Policy partition.Policy
	// SplitPoints divide the table from the start: n points, n+1 groups. They
	// must be in strictly ascending order and not empty.
	SplitPoints [][]byte
	// Nodes are where the groups may be placed; empty means all that seem
	// alive. With as many as Replicas every group goes to all of them.
	Nodes []placement.Node
	// Token makes retries of one request safe: a second request with the same
	// token gets the answer of the first. Empty means that one is made.
	Token string
}

// GroupUpdate is what a master knows of its group. The control group keeps the
// update with the highest (RangeVersion, Membership.Version, Epoch).
type GroupUpdate struct {
	Group        partition.GroupID
	Range        partition.KeyRange
	RangeVersion partition.RangeVersion
	Membership   *partition.Membership
	Epoch        partition.Epoch
	Master       partition.NodeID
}

// String describes the holder for messages.
func (h LockHolder) String() string {
	if h.Number == 0 {
		return "nobody"
	}
	return fmt.Sprintf("replica %d on %s with number %d", h.Replica, h.Node, h.Number)
}
