package actors

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/split/load"
)

// maxHottest bounds the partitions that a node tells of.
const maxHottest = 64

// Rates are averages of the last seconds, per second.
type Rates struct {
	// Units is the load: a request, and each 4 KiB that it brings or takes, are one.
	Units      float64 `json:"units"`
	Reads      float64 `json:"reads"`
	Writes     float64 `json:"writes"`
	ReadBytes  float64 `json:"read_bytes"`
	WriteBytes float64 `json:"write_bytes"`
}

// PartitionLoad is what is asked of a partition, as its master's node tells.
type PartitionLoad struct {
	Group partition.GroupID `json:"group"`
	Table string            `json:"table"`
	Node  partition.NodeID  `json:"node"` // of the master
	Rates
	// Share is the part of the load of all nodes that answered.
	Share float64 `json:"share,omitempty"`
	// Peak is the greatest load of the last ten minutes, and Limit what the policy
	// of the table lets it have; 0: load divides nothing.
	Peak  float64 `json:"peak"`
	Limit float64 `json:"limit,omitempty"`
	Bytes int64   `json:"bytes,omitempty"` // of its state on disk
	// Heat is cold, watched or engaged: how closely its keys are looked at.
	Heat string `json:"heat"`
	// HotKey is the key that is asked for most, with its share of the partition's
	// load, if the keys are looked at and one stands out.
	HotKey      []byte  `json:"hot_key,omitempty"`
	HotKeyShare float64 `json:"hot_key_share,omitempty"`
	// Decision is what was decided last about dividing it, by-size, by-load,
	// isolate, hot-key, sequential, no-gain, too-few, cool-down, table-full or busy,
	// with the reason and the time; empty: nothing was in question.
	Decision string    `json:"decision,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	Decided  time.Time `json:"decided,omitzero"`
}

// NodeLoad is what is asked of the partitions mastered on a node.
type NodeLoad struct {
	Node      partition.NodeID `json:"node"`
	InService bool             `json:"in_service"` // and not sick: masters may come
	Rates
	// Lately is the load of the last two seconds: the averages follow a change later.
	Lately  float64 `json:"lately"`
	Masters int     `json:"masters"` // with some load
	// Hottest are the partitions with the greatest load, that first, at most 64.
	Hottest []PartitionLoad `json:"hottest"`
	// Cold answers a node that asks whether a partition may be merged.
	Cold *coldSide `json:"cold,omitempty"`
}

// HotInfo is what is asked of the cluster.
type HotInfo struct {
	Rates
	Nodes []NodeLoad `json:"nodes"` // without their partitions
	// Silent are the nodes that did not tell.
	Silent     []partition.NodeID `json:"silent,omitempty"`
	Partitions []PartitionLoad    `json:"partitions"` // the hottest first
}

// HotOptions says what of the hottest partitions is wanted.
type HotOptions struct {
	Table string            // empty: all
	Group partition.GroupID // 0: all
	Limit int               // 0: 20
}

// keyStandsOut is the share of a partition's load from which on a key is named.
const keyStandsOut = 0.1

// Hot tells which partitions are asked for most, and what was decided about
// dividing them.
func (n *Node) Hot(ctx context.Context, o HotOptions) (HotInfo, error) {
	if _, err := n.catalog(); err != nil {
		return HotInfo{}, err
	}
	var info HotInfo
	var ask []partition.NodeID
	for _, m := range n.Members() {
		if m.Status != "left" {
			ask = append(ask, m.Node)
		}
	}
	info.Nodes = n.nodeLoads(ctx, ask, o.Group)
	for _, id := range ask {
		if !slices.ContainsFunc(info.Nodes, func(x NodeLoad) bool { return x.Node == id }) {
			info.Silent = append(info.Silent, id)
		}
	}
	for i := range info.Nodes {
		x := &info.Nodes[i]
		info.add(x.Rates)
		for _, p := range x.Hottest {
			if (o.Table == "" || p.Table == o.Table) && (o.Group == 0 || p.Group == o.Group) {
				info.Partitions = append(info.Partitions, p)
			}
		}
		x.Hottest = nil
	}
	for i := range info.Partitions {
		info.Partitions[i].Share = info.Partitions[i].Units / max(info.Units, 1e-9)
	}
	sortHottest(info.Partitions)
	info.Partitions = info.Partitions[:min(len(info.Partitions), cmp.Or(o.Limit, 20))]
	return info, nil
}

func sortHottest(all []PartitionLoad) {
	slices.SortFunc(all, func(a, b PartitionLoad) int {
		return cmp.Or(cmp.Compare(b.Units, a.Units), cmp.Compare(a.Group, b.Group))
	})
}

func (r *Rates) add(x Rates) {
	r.Units, r.Reads, r.Writes = r.Units+x.Units, r.Reads+x.Reads, r.Writes+x.Writes
	r.ReadBytes, r.WriteBytes = r.ReadBytes+x.ReadBytes, r.WriteBytes+x.WriteBytes
}

func ratesOf(r load.Rates) Rates {
	return Rates{Units: r.Units(), Reads: r.Reads, Writes: r.Writes, ReadBytes: r.ReadBytes, WriteBytes: r.WriteBytes}
}

// NodeLoads asks nodes what is asked of them, all at once, and returns the answers
// that came in time, by node.
func (n *Node) NodeLoads(ctx context.Context, nodes []partition.NodeID) []NodeLoad {
	return n.nodeLoads(ctx, nodes, 0)
}

// loadsAsk asks a node what is asked of its partitions.
type loadsAsk struct {
	Group partition.GroupID `json:"group,omitempty"` // this one only; 0: the hottest
	Cold  bool              `json:"cold,omitempty"`  // whether that may be merged
}

func (n *Node) nodeLoads(ctx context.Context, nodes []partition.NodeID, only partition.GroupID) []NodeLoad {
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	var mu sync.Mutex
	var all []NodeLoad
	var wg sync.WaitGroup
	for _, id := range nodes {
		wg.Go(func() {
			x, err := n.loadOf(ctx, id, loadsAsk{Group: only})
			if err != nil {
				n.logger.Debug("no word of its load", "from", id, "err", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, x)
		})
	}
	wg.Wait()
	slices.SortFunc(all, func(a, b NodeLoad) int { return cmp.Compare(a.Node, b.Node) })
	return all
}

func (n *Node) loadOf(ctx context.Context, id partition.NodeID, ask loadsAsk) (NodeLoad, error) {
	if id == n.ID() {
		return n.loads.answer(ask), nil
	}
	x, err := askNode[NodeLoad](ctx, n, id, callLoads, ask)
	if err == nil && (x.Node != id || len(x.Hottest) > maxHottest) {
		err = partition.Errorf(partition.CodeCorrupt, "node %s tells of %d partitions on node %.64s", id, len(x.Hottest), x.Node)
	}
	return x, err
}

// serveLoads answers another node's loadOf.
func (n *Node) serveLoads(body []byte) ([]byte, error) {
	var ask loadsAsk
	if err := json.Unmarshal(body, &ask); err != nil {
		return nil, partition.Errorf(partition.CodeInvalid, "a question for loads that cannot be read")
	}
	return json.Marshal(n.loads.answer(ask))
}

func (l *loads) answer(ask loadsAsk) NodeLoad {
	x := l.report(ask.Group)
	if !ask.Cold {
		return x
	}
	cat := l.node.control.Catalog()
	if g, ok := cat.Group(ask.Group); ok {
		if s, ok := l.cold(cat, g, l.node.now()); ok {
			x.Cold = &s
		}
	}
	return x
}

// report is what this node tells of the partitions mastered here, or of one.
func (l *loads) report(only partition.GroupID) NodeLoad {
	x := NodeLoad{Node: l.node.ID(), InService: l.node.service.now().tag() == "" && *l.node.anomalies.sick.Load() == ""}
	cat := l.node.control.Catalog()
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, g := range l.groups { // sorted below
		p := PartitionLoad{
			Group: id, Node: x.Node, Rates: ratesOf(g.tracker.Rates()), Peak: g.tracker.Peak(), Bytes: g.bytes, Heat: g.tracker.Heat().String(),
		}
		if group, ok := cat.Group(id); ok {
			if t, ok := cat.TableOf(group); ok {
				p.Table, p.Limit = t.Name, limitsOf(t).Load
			}
		}
		if d := &g.decision; d.Verdict != load.Nothing {
			p.Decision, p.Reason, p.Decided = d.Verdict.String(), d.Reason[:min(len(d.Reason), maxWhyBytes)], g.decided
		}
		x.add(p.Rates)
		x.Lately += g.tracker.Lately()
		if p.Units > loadIdle {
			x.Masters++
		}
		if only == 0 || only == id {
			x.Hottest = append(x.Hottest, p)
		}
	}
	sortHottest(x.Hottest)
	x.Hottest = x.Hottest[:min(len(x.Hottest), maxHottest)]
	for i := range x.Hottest {
		l.nameKey(&x.Hottest[i])
	}
	return x
}

// nameKey adds the key that is asked for most.
func (l *loads) nameKey(p *PartitionLoad) {
	g := l.groups[p.Group]
	g.keys.mu.Lock()
	defer g.keys.mu.Unlock()
	if key, share := g.tracker.Hottest(); share >= keyStandsOut {
		p.HotKey, p.HotKeyShare = key, share
	}
}
