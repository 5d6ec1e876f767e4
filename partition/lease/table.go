package lease

import (
	"sync"
	"sync/atomic"
	"time"

	"pando.dev/pando/internal/planted"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

const (
	// DefaultLease and DefaultInterval are the length of a grant and the time
	// between two beats.
	DefaultLease    = 300 * time.Millisecond
	DefaultInterval = 75 * time.Millisecond
	// DefaultDriftPPM is how much faster than the holder's the grantor's clock
	// may run, in parts per million.
	DefaultDriftPPM = 1_000
	// maxLease bounds Config.Lease; more would make every failover wait for it.
	maxLease = time.Minute
	// DefaultMaxPeers bounds the nodes a table keeps.
	DefaultMaxPeers = 1_024
	// DefaultMaxRevoked bounds the groups per peer, in each direction.
	DefaultMaxRevoked = 1 << 20
	// MaxRevokedPerAnswer bounds the revocations of one answer; one that cannot
	// name them all renews nothing.
	MaxRevokedPerAnswer = 2_048
)

// Config is what a table is made with. The zero value of each optional field
// means its default.
type Config struct {
	Self partition.NodeID // required
	Boot uint64           // required: the node's incarnation, greater than every earlier one
	// Now is the clock of the node's events; required, must not go backwards.
	Now func() partition.Time

	Lease      time.Duration // length of a grant; the same on all nodes is best
	DriftPPM   int           // margin between the clocks of two nodes
	MaxPeers   int           // at the limit, further nodes get no grants
	MaxRevoked int           // at the limit, the peer's grants stop to count

	// Planted are mistakes to make on purpose. Only tests and the simulator set
	// any, to see who notices; the type is internal to this module.
	Planted planted.Set
	// Point, if set, is told where the table comes by; see Point.
	Point func(Point)
}

// Table is one node's leases and neighbours. Its methods may be called from any
// goroutine and do not block; Granted and Reachable take no lock.
type Table struct {
	c    Config
	open atomic.Bool

	mu    sync.Mutex // guards changes of the map, see peer, and what follows
	peers atomic.Pointer[map[partition.NodeID]*peer]
	// everybody are the groups revoked for all nodes, also for those that are met
	// later; with tooMany, which MaxRevoked sets, those get no grants at all.
	everybody map[partition.GroupID]floor
	tooMany   bool
}

// New makes a table. It grants nothing before Open.
func New(c Config) *Table {
	if c.Lease <= 0 {
		c.Lease = DefaultLease
	}
	c.Lease = min(c.Lease, maxLease)
	if c.DriftPPM <= 0 {
		c.DriftPPM = DefaultDriftPPM
	}
	if c.MaxPeers <= 0 {
		c.MaxPeers = DefaultMaxPeers
	}
	if c.MaxRevoked <= 0 {
		c.MaxRevoked = DefaultMaxRevoked
	}
	t := &Table{c: c, everybody: make(map[partition.GroupID]floor)}
	t.peers.Store(&map[partition.NodeID]*peer{})
	return t
}

// Open lets the table grant. Before it the node must have called Revoke, for
// every replica that its disk holds, with the stored promise and each other
// member's node: a former incarnation may have promised that epoch and died
// before the holder of an older one was told. A node with an empty disk opens
// at once.
func (t *Table) Open() { t.open.Store(true) }

// Lease is the length of a grant.
func (t *Table) Lease() time.Duration { return t.c.Lease }

// peer returns the entry of a node, or nil if the table is full.
func (t *Table) peer(n partition.NodeID) *peer {
	if p := (*t.peers.Load())[n]; p != nil {
		return p
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	old := *t.peers.Load()
	if p := old[n]; p != nil {
		return p
	}
	if len(old) >= t.c.MaxPeers {
		return nil
	}
	grown := make(map[partition.NodeID]*peer, len(old)+1)
	for k, v := range old {
		grown[k] = v
	}
	p := newPeer()
	p.withheld = t.tooMany
	for g, f := range t.everybody {
		p.revoke(g, f, t.c.MaxRevoked)
	}
	grown[n] = p
	t.peers.Store(&grown)
	return p
}

// Reachable reports whether the node has answered a beat within one lease, and
// its links were not reported down since. The own node is reachable.
func (t *Table) Reachable(n partition.NodeID) bool {
	if n == t.c.Self {
		return true
	}
	p := (*t.peers.Load())[n]
	return p != nil && t.answers(p)
}

// answers is Reachable for another node.
func (t *Table) answers(p *peer) bool {
	at := p.answered.Load()
	return at != 0 && t.c.Now() <= partition.Time(at)+t.c.Lease
}

// Alive returns the incarnation in which the node is Reachable.
func (t *Table) Alive(n partition.NodeID) (boot uint64, ok bool) {
	p := (*t.peers.Load())[n]
	if p == nil || !t.answers(p) {
		return 0, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	// Another incarnation may have become known since: it has not answered yet.
	return p.boot, p.answered.Load() != 0
}

// Granted returns until when the grant of node by counts for this node as
// master of the group in epoch; see replica.Neighbours. It does not check that
// s has promised the epoch: the read view names only members that have.
func (t *Table) Granted(g partition.GroupID, epoch partition.Epoch, by partition.NodeID, s replica.Supporter) partition.Time {
	p := (*t.peers.Load())[by]
	if p == nil {
		return 0
	}
	// The end first and the floor second: OnAnswer stores them the other way
	// round, so an end that came with a revocation is never seen without it. The
	// floors go with their incarnation, after its grant.
	h := p.held.Load()
	if h == nil || s.Boot == 0 || h.boot != s.Boot && !t.c.Planted.Has(planted.GrantOfAnotherBoot) || p.distrust.Load() || (floor{s.Replica, epoch}).below(p.floors.get(g)) {
		return 0
	}
	if now := p.held.Load(); now == nil || now.boot != h.boot {
		return 0
	}
	return h.until
}

// Revoke excludes the group from every further grant to holder in an epoch
// older than the given one, or in the name of a replica that this node held
// before, and returns until when the grants made so far run; see
// replica.Neighbours. An empty holder stands for every node. What is revoked
// stands, whatever becomes of the replica, until the holder has acknowledged it:
// the last word about a replica that is dropped or damaged is the greatest epoch.
// A replica that takes its place on this node has a greater id and grants anew.
func (t *Table) Revoke(g partition.GroupID, r partition.ReplicaID, epoch partition.Epoch, holder partition.NodeID) partition.Time {
	switch holder {
	case t.c.Self:
		return 0
	case "":
		return t.revokeAll(g, floor{r, epoch})
	}
	p := t.peer(holder)
	if p == nil {
		return 0 // a node without an entry never gets a grant
	}
	return t.revoke(p, g, floor{r, epoch})
}

// revoke is Revoke for one node.
func (t *Table) revoke(p *peer, g partition.GroupID, f floor) partition.Time {
	until := p.revoke(g, f, t.c.MaxRevoked)
	if t.c.Point != nil && until > t.c.Now() {
		t.c.point(AtRevoked)
	}
	if t.c.Planted.Has(planted.GrantsUntold) {
		return 0
	}
	return until
}

// revokeAll is Revoke for every node.
func (t *Table) revokeAll(g partition.GroupID, f floor) (until partition.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch old, known := t.everybody[g]; {
	case !known && len(t.everybody) >= t.c.MaxRevoked:
		t.tooMany = true
	case old.below(f):
		t.everybody[g] = f
	}
	for _, p := range *t.peers.Load() {
		until = max(until, t.revoke(p, g, f))
	}
	return until
}

// Up notes a peer's incarnation, as a link's handshake has proved it. A newer
// one than known voids what was granted in both directions.
func (t *Table) Up(n partition.NodeID, boot uint64) {
	if p := t.peer(n); p != nil {
		p.mu.Lock()
		t.learn(p, boot)
		p.mu.Unlock()
	}
}

// Down says that the links to this incarnation of a node broke: it counts as
// unreachable until it answers again. Grants run on.
func (t *Table) Down(n partition.NodeID, boot uint64) {
	if p := (*t.peers.Load())[n]; p != nil {
		p.mu.Lock()
		if p.boot == boot {
			p.answered.Store(0)
		}
		p.mu.Unlock()
	}
}

// Forget drops what the table remembers of revocations by others for a group of
// which this node holds no replica any more.
func (t *Table) Forget(g partition.GroupID) {
	for _, p := range *t.peers.Load() {
		p.mu.Lock()
		p.floors.remove(g)
		p.mu.Unlock()
	}
}

// PeerStats describes one peer's leases.
type PeerStats struct {
	Boot      uint64
	Held      partition.Time // until when its grant counts here
	Granted   partition.Time // until when it may count on ours
	Revoked   int            // groups it has not yet acknowledged
	Floors    int            // groups it has revoked here
	Refused   uint64         // beats and answers that were not taken
	Distrust  bool           // it revoked more groups than the limit
	Withheld  bool           // we revoked more than the limit: no grants
	Reachable bool
}

// Stats describes a peer; ok is false if the table does not know it.
func (t *Table) Stats(n partition.NodeID) (s PeerStats, ok bool) {
	p := (*t.peers.Load())[n]
	if p == nil {
		return s, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var until partition.Time
	if h := p.held.Load(); h != nil {
		until = h.until
	}
	return PeerStats{
		Boot: p.boot, Held: until, Granted: p.granted, Revoked: len(p.revoked),
		Floors: p.floors.len(), Refused: p.refused, Distrust: p.distrust.Load(), Withheld: p.withheld,
		Reachable: t.answers(p),
	}, true
}

var _ replica.Neighbours = (*Table)(nil)
