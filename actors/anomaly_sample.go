package actors

import (
	"cmp"
	"slices"
	"time"

	"pando.dev/pando/actors/link"
	"pando.dev/pando/cluster/detector"
	"pando.dev/pando/partition"
)

const (
	// maxLooked bounds the replicas that are looked at in a round: of more, each
	// gets its turn.
	maxLooked = 4096
	// relistEvery is how often the list of replicas is made anew.
	relistEvery = 10 * time.Second
)

// sampler measures a node. It has one caller.
type sampler struct {
	node *Node
	busy uint64 // refusals up to the last round
	// cells are the replicas here, at is whose turn it is.
	cells  []*cell
	at     int
	listed partition.Time
	rates  map[partition.GroupID]float64 // units of load a second, of the groups mastered here
	peers  map[partition.NodeID]*sampledPeer
}

// sampledPeer is a link as of the last round.
type sampledPeer struct {
	since time.Time
	up    bool
	downs uint64
}

func newSampler(n *Node) sampler {
	return sampler{node: n, rates: make(map[partition.GroupID]float64), peers: make(map[partition.NodeID]*sampledPeer)}
}

// sample measures what was since the last call.
func (s *sampler) sample(now partition.Time, late time.Duration, circle []partition.NodeID) detector.Sample {
	syncs := s.node.log.TakeSyncs()
	out := detector.Sample{Node: s.node.ID(), Boot: s.node.identity.Boot, Sync: max(syncs.P99, syncs.Running), Late: late}
	out.Peers = s.links(circle)
	out.Queue = s.look(now)
	out.Load, out.Hot = s.load()
	return out
}

// load is what is asked of the groups mastered here, and the heaviest of them.
func (s *sampler) load() (total uint64, hot detector.GroupLoad) {
	clear(s.rates)
	l, sum := s.node.loads, 0.0
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, g := range l.groups { // in no order: a sum, and the greatest with the least id
		g.keys.mu.Lock() // requests record their keys in what the tracker reads
		x := g.tracker.Load()
		g.keys.mu.Unlock()
		sum += x
		s.rates[id] = x
		if y := uint64(x); y > hot.Load || y == hot.Load && y > 0 && id < hot.Group {
			hot = detector.GroupLoad{Group: id, Load: y}
		}
	}
	return uint64(sum), hot
}

// look visits replicas, and returns how full the fullest of their mailboxes is.
func (s *sampler) look(now partition.Time) (fullest int) {
	if busy := s.node.counters.busy.Load(); busy != s.busy {
		s.busy, fullest = busy, 1000
	}
	if s.listed == 0 || now-s.listed > relistEvery {
		s.relist(now)
	}
	for range min(len(s.cells), maxLooked) {
		s.at = (s.at + 1) % len(s.cells)
		b := s.cells[s.at].box.Stats()
		fullest = max(fullest, 1000*b.Items/s.node.cfg.QueueMessages, 1000*b.Bytes/maxQueueBytes)
	}
	return fullest
}

// relist takes in replicas that have come, and lets go of those that went.
func (s *sampler) relist(now partition.Time) {
	s.listed, s.cells = now, s.cells[:0]
	s.node.cells.each(func(c *cell) { s.cells = append(s.cells, c) })
	slices.SortFunc(s.cells, func(a, b *cell) int { return cmp.Compare(a.group, b.group) })
}

// links describes the links to the nodes of the circle.
func (s *sampler) links(circle []partition.NodeID) []detector.Peer {
	var out []detector.Peer
	for _, p := range s.node.links.Peers() {
		if !slices.Contains(circle, p.Node) || len(out) == detector.MaxPeers {
			delete(s.peers, p.Node)
			continue
		}
		out = append(out, s.peer(p))
	}
	return out
}

// peer counts how often the link was lost: it is another one, or there is none.
func (s *sampler) peer(p link.PeerStatus) detector.Peer {
	x := s.peers[p.Node]
	if x == nil {
		x = &sampledPeer{since: p.Since, up: p.Up}
		s.peers[p.Node] = x
	}
	if x.up && (!p.Up || !p.Since.Equal(x.since)) {
		x.downs++
	}
	x.since, x.up = p.Since, p.Up
	out := detector.Peer{Node: p.Node, Downs: x.downs}
	if p.Up {
		out.RTT = p.RTT
	}
	return out
}
