package actors

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"pando.dev/pando/cluster"
	"pando.dev/pando/cluster/detector"
	"pando.dev/pando/partition"
)

const (
	// anomalyEvery is how often a node measures itself.
	anomalyEvery = time.Second
	// circleReach is how many nodes before and behind it, in the order of their
	// ids, a node compares itself with: all of a small cluster, and of a large one
	// no more than what costs nothing.
	circleReach = 8
	// maxActions bounds what is remembered as done about one anomaly.
	maxActions = 32
)

// anomalies finds out which nodes around this one limp, this one among them, and
// what is to be done about it; the judging is detector's. One goroutine runs it.
type anomalies struct {
	node           *Node
	mode           detector.Mode
	every          time.Duration
	rounds, missed atomic.Uint64 // seconds looked at, and those of them that came too late to count
	late           atomic.Int64  // how late a timer of this node was at most since the last sample

	// Only run has these.
	judge   *detector.Detector
	sampler sampler
	relief  relief
	sending map[partition.NodeID]*atomic.Bool // a sample is on its way

	tag     chan struct{} // has room for one: the tag is to be looked at
	sick    atomic.Pointer[string]
	current atomic.Pointer[[]detector.Verdict]
	ended   atomic.Pointer[[]detector.Verdict]

	mu    sync.Mutex
	heard map[partition.NodeID]detector.Sample // since the last round
	did   map[string][]AnomalyAction           // by the verdict's id
}

func newAnomalies(n *Node) *anomalies {
	mode, _ := detector.ParseMode(n.cfg.Anomalies) // the configuration was validated
	c := n.cfg.detect
	c.Self = n.ID()
	a := &anomalies{
		node: n, mode: mode, every: max(c.Every, 0), judge: detector.New(c), sampler: newSampler(n),
		sending: make(map[partition.NodeID]*atomic.Bool), tag: make(chan struct{}, 1),
		heard: make(map[partition.NodeID]detector.Sample), did: make(map[string][]AnomalyAction),
	}
	if a.every == 0 {
		a.every = anomalyEvery
	}
	a.relief = relief{a: a, tried: make(map[partition.GroupID]partition.Time)}
	a.sick.Store(new(string))
	return a
}

// run measures and judges until the node stops.
func (a *anomalies) run() {
	if a.mode == detector.Off {
		return
	}
	tick := time.NewTicker(a.every)
	defer tick.Stop()
	for {
		select {
		case <-a.node.ctx.Done():
			return
		case <-tick.C:
		}
		if members := a.node.members.Load(); members != nil && a.node.up.Load() {
			a.round(*members)
		}
	}
}

// round is one second.
func (a *anomalies) round(members []cluster.Node) {
	now := a.node.now()
	circle := circleOf(a.node.ID(), members)
	s := a.sampler.sample(now, time.Duration(a.late.Swap(0)), circle)
	changed := a.judge.Observe(now, append(a.take(), s))
	a.rounds.Store(a.rounds.Load() + 1)
	a.missed.Store(a.judge.Missed())
	s.Claims = a.judge.Claims()
	a.send(s, circle)
	verdicts := a.judge.Verdicts()
	if len(changed) > 0 {
		ended := a.judge.History()
		a.ended.Store(&ended)
		a.tell(changed)
		a.forget(verdicts, ended)
	}
	a.current.Store(&verdicts)
	a.setSick(verdicts)
	a.relief.look(now, verdicts, members)
}

// wasLate notes how late a timer of this node came.
func (a *anomalies) wasLate(by time.Duration) {
	if int64(by) > a.late.Load() {
		a.late.Store(int64(by)) // at worst the sampler has just looked: then it counts in the next second
	}
}

// circleOf are the nodes that a node compares itself with.
func circleOf(self partition.NodeID, members []cluster.Node) []partition.NodeID {
	var ids []partition.NodeID
	for _, m := range members {
		if m.Status == cluster.Alive && m.ID != self {
			ids = append(ids, m.ID)
		}
	}
	slices.Sort(ids)
	if len(ids) <= 2*circleReach {
		return ids
	}
	at, _ := slices.BinarySearch(ids, self)
	circle := make([]partition.NodeID, 0, 2*circleReach)
	for i := range 2 * circleReach {
		circle = append(circle, ids[(at+len(ids)-circleReach+i)%len(ids)])
	}
	return circle
}

// take returns what was heard since the last round. A sample counts once: a node
// that says nothing more is not what it was.
func (a *anomalies) take() []detector.Sample {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := slices.Collect(maps.Values(a.heard))
	clear(a.heard)
	return out
}

// hear takes another node's sample.
func (a *anomalies) hear(from partition.NodeID, body []byte) error {
	var s detector.Sample
	if err := json.Unmarshal(body, &s); err != nil {
		return partition.Errorf(partition.CodeInvalid, "a sample that cannot be read")
	}
	if err := s.Check(); err != nil {
		return err
	}
	if s.Node != from {
		return partition.Errorf(partition.CodeInvalid, "a sample of node %s from node %s", s.Node, from)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.heard) < detector.MaxNodes || a.heard[from].Node != "" {
		a.heard[from] = s
	}
	return nil
}

// send brings the sample to the nodes around. One that has not taken the last one
// yet gets none.
func (a *anomalies) send(s detector.Sample, to []partition.NodeID) {
	for _, id := range to {
		busy := a.sending[id]
		if busy == nil {
			busy = new(atomic.Bool)
			a.sending[id] = busy
		}
		if busy.Swap(true) {
			continue
		}
		a.node.background.Go(func() {
			defer busy.Store(false)
			ctx, cancel := context.WithTimeout(a.node.ctx, a.every)
			defer cancel()
			_, _ = a.node.tell(ctx, id, callSample, s) // the next one says as much
		})
	}
	maps.DeleteFunc(a.sending, func(id partition.NodeID, busy *atomic.Bool) bool { return !busy.Load() && !slices.Contains(to, id) })
}

// tell logs what has become of verdicts that are confirmed.
func (a *anomalies) tell(changed []detector.Verdict) {
	for _, v := range changed {
		level := a.node.logger.Info
		if v.Node == a.node.ID() {
			level = a.node.logger.Warn
		}
		switch {
		case v.Until != 0 && v.Confirmed:
			level("an anomaly is over", "kind", v.Kind.String(), "subject", v.Subject, "id", v.ID, "lasted", (v.Until - v.Since).Round(time.Second))
		case v.Confirmed:
			level("an anomaly", "kind", v.Kind.String(), "subject", v.Subject, "id", v.ID, "evidence", v.Evidence, "next", v.Advice())
		}
	}
}

// forget drops what was done about verdicts that nobody is shown any more.
func (a *anomalies) forget(all ...[]detector.Verdict) {
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.DeleteFunc(a.did, func(id string, _ []AnomalyAction) bool {
		return !slices.ContainsFunc(slices.Concat(all...), func(v detector.Verdict) bool { return v.ID == id })
	})
}

// setSick has the others told when this node becomes sick, or well again: they
// make nobody master on it meanwhile.
func (a *anomalies) setSick(verdicts []detector.Verdict) {
	kind := ""
	if v := detector.Sick(a.node.ID(), verdicts); v != nil && a.mode == detector.Act {
		kind = v.Kind.String()
	}
	if *a.sick.Swap(&kind) != kind {
		select {
		case a.tag <- struct{}{}:
		default:
		}
	}
}

// tellSick keeps the gossip tag in agreement with whether the node is sick.
func (a *anomalies) tellSick() {
	told := ""
	tick := time.NewTicker(reconcileEvery) // for one that could not be set
	defer tick.Stop()
	for {
		select {
		case <-a.node.ctx.Done():
			return
		case <-a.tag:
		case <-tick.C:
		}
		kind := *a.sick.Load()
		if kind == told {
			continue
		}
		if err := a.node.gossip.SetTag(cluster.TagSick, kind); err != nil {
			a.node.logger.Debug("gossip tag not set", "tag", cluster.TagSick, "err", err)
			continue
		}
		told = kind
	}
}

// note keeps what was done about a verdict.
func (a *anomalies) note(id string, x AnomalyAction) {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := append(a.did[id], x)
	a.did[id] = all[max(0, len(all)-maxActions):]
}

// hasFailed reports whether the last hand-over of a group was in vain.
func (a *anomalies) hasFailed(id string, g partition.GroupID) (failed bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, x := range a.did[id] {
		if x.Group == g {
			failed = x.Err != ""
		}
	}
	return failed
}

// hotLimit is what a partition is to carry: what its table says, or, while it is
// found to carry more than a usual node, half of that, or as much as a usual node.
// A table whose load divides nothing stays as it is, and so does a partition below
// half of its table's limit: the pieces would be merged again. Why says that it is
// so.
func (a *anomalies) hotLimit(g partition.GroupID, limit float64) (least float64, why string) {
	all := a.current.Load()
	if limit <= 0 || a.mode != detector.Act || all == nil {
		return limit, ""
	}
	for i := range *all {
		v := &(*all)[i]
		half := max(v.Usual, v.Own/2)
		if v.Kind == detector.HotGroup && v.Group == g && v.Confirmed && v.Own > limit/2 && half < limit {
			return half, v.ID + ": " + v.Evidence
		}
	}
	return limit, ""
}

// AnomalyInfo is something that limps, or did.
type AnomalyInfo struct {
	ID string `json:"id"`
	// Kind is slow-disk, slow-link, overloaded, flapping or hot-group.
	Kind string `json:"kind"`
	// Subject is the node, the two nodes of a link, or the group.
	Subject string            `json:"subject"`
	Node    partition.NodeID  `json:"node,omitempty"`
	Peer    partition.NodeID  `json:"peer,omitempty"`
	Group   partition.GroupID `json:"group,omitempty"`
	// Score is the sum of what speaks for it; Limit is where a claim begins.
	Score float64 `json:"score"`
	Limit float64 `json:"limit"`
	// Evidence is what was measured, and with what it was compared.
	Evidence string `json:"evidence"`
	// Confirmed: at least two nodes, those in By, say so. Nothing is done before.
	Confirmed bool               `json:"confirmed"`
	By        []partition.NodeID `json:"by"`
	Since     time.Time          `json:"since"`
	Until     *time.Time         `json:"until,omitempty"` // nil: it is in force
	Advice    string             `json:"advice,omitempty"`
	// Actions is what the answering node did about it, the oldest first.
	Actions []AnomalyAction `json:"actions,omitempty"`
}

// AnomalyAction is a mastership that was handed over because of an anomaly.
type AnomalyAction struct {
	At    time.Time         `json:"at"`
	Group partition.GroupID `json:"group"`
	To    partition.NodeID  `json:"to,omitempty"`  // empty: the master resigned, for whoever is elected
	Err   string            `json:"err,omitempty"` // why it came to nothing
}

// Anomalies lists what limps among this node and those around it: all others in a
// cluster of up to 17 nodes, the 16 nearest by id in a larger one. What is in
// force comes first, then what is over, the newest first.
func (n *Node) Anomalies() []AnomalyInfo {
	a := n.anomalies
	var out []AnomalyInfo
	if all := a.current.Load(); all != nil {
		for i := range *all {
			out = append(out, a.info(&(*all)[i]))
		}
	}
	if all := a.ended.Load(); all != nil {
		for i := range *all {
			out = append(out, a.info(&(*all)[len(*all)-1-i]))
		}
	}
	return out
}

func (a *anomalies) info(v *detector.Verdict) AnomalyInfo {
	a.mu.Lock()
	defer a.mu.Unlock()
	x := AnomalyInfo{
		ID: v.ID, Kind: v.Kind.String(), Subject: v.Subject, Node: v.Node, Peer: v.Peer, Group: v.Group, Score: v.Score, Limit: v.Limit,
		Evidence: v.Evidence, Confirmed: v.Confirmed, By: v.By, Since: a.node.start.Add(v.Since), Actions: slices.Clone(a.did[v.ID]),
	}
	if v.Until != 0 {
		at := a.node.start.Add(v.Until)
		x.Until = &at
		return x
	}
	x.Advice = v.Advice()
	return x
}

// limping are the confirmed anomalies of nodes and links in force, in a line each.
// A hot group is somebody's success.
func (n *Node) limping() (out []string) {
	for _, x := range n.Anomalies() {
		if x.Confirmed && x.Until == nil && x.Group == 0 {
			out = append(out, x.Kind+" "+x.Subject+": "+x.Evidence)
		}
	}
	return out
}

// limpState says how sure it is.
func limpState(x AnomalyInfo) string {
	if x.Confirmed {
		return "confirmed"
	}
	return "suspected"
}
