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
	cells  []sampledCell
	at     int
	listed partition.Time
	peers  map[partition.NodeID]*sampledPeer
}

// sampledCell is a replica as of its last turn.
type sampledCell struct {
	*cell
	commit partition.Index
	when   partition.Time
	rate   uint64 // records a second that were committed while it was master
}

// sampledPeer is a link as of the last round.
type sampledPeer struct {
	since time.Time
	up    bool
	downs uint64
}

func newSampler(n *Node) sampler {
	return sampler{node: n, peers: make(map[partition.NodeID]*sampledPeer)}
}

// sample measures what was since the last call.
func (s *sampler) sample(now partition.Time, late time.Duration, circle []partition.NodeID) detector.Sample {
	syncs := s.node.log.TakeSyncs()
	out := detector.Sample{Node: s.node.ID(), Boot: s.node.identity.Boot, Sync: max(syncs.P99, syncs.Running), Late: late}
	out.Peers = s.links(circle)
	out.Queue = s.look(now)
	for i := range s.cells {
		c := &s.cells[i]
		out.Load += c.rate
		if c.rate > out.Hot.Load {
			out.Hot = detector.GroupLoad{Group: c.group, Load: c.rate}
		}
	}
	return out
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
		fullest = max(fullest, s.visit(&s.cells[s.at], now))
	}
	return fullest
}

// visit looks at one replica.
func (s *sampler) visit(c *sampledCell, now partition.Time) (full int) {
	st, v := c.status.Load(), c.view.Load()
	if st != nil && st.Commit != c.commit {
		if c.rate = 0; v != nil && v.Serving && c.when != 0 && now > c.when {
			c.rate = uint64(float64(st.Commit-min(c.commit, st.Commit)) / (now - c.when).Seconds())
		}
		c.commit = st.Commit
	} else {
		c.rate = 0
	}
	c.when = now
	b := c.box.Stats()
	return max(1000*b.Items/s.node.cfg.QueueMessages, 1000*b.Bytes/maxQueueBytes)
}

// relist takes in replicas that have come, and lets go of those that went.
func (s *sampler) relist(now partition.Time) {
	s.listed = now
	known := make(map[*cell]sampledCell, len(s.cells))
	for _, c := range s.cells {
		known[c.cell] = c
	}
	s.cells = s.cells[:0]
	s.node.cells.each(func(c *cell) {
		x, ok := known[c]
		if !ok {
			x = sampledCell{cell: c}
		}
		s.cells = append(s.cells, x)
	})
	slices.SortFunc(s.cells, func(a, b sampledCell) int { return cmp.Compare(a.group, b.group) })
}

// rateOf is how many records a second a group committed lately while this node
// was its master.
func (s *sampler) rateOf(g partition.GroupID) uint64 {
	i, ok := slices.BinarySearchFunc(s.cells, g, func(c sampledCell, g partition.GroupID) int { return cmp.Compare(c.group, g) })
	if !ok {
		return 0
	}
	return s.cells[i].rate
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
