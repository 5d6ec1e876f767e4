package actors

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"pando.dev/pando/cluster"
	"pando.dev/pando/cluster/control"
	"pando.dev/pando/cluster/placement"
	"pando.dev/pando/partition"
)

const (
	// askAgain is the pause between two questions about what is not settled, and
	// settledAgain the one while everything is.
	askAgain     = 100 * time.Millisecond
	settledAgain = 5 * time.Second
	// askAtOnce bounds the nodes that are asked at the same time.
	askAtOnce = 8
	// maxWords bounds what is remembered of other nodes.
	maxWords = 4096
)

// memberAsk is what a node tells the masters of its groups: whether it is in
// service, of which groups its members do not agree with that, and which of its
// replicas can never take part again.
type memberAsk struct {
	Word   word                `json:"word"`
	Groups []partition.GroupID `json:"groups,omitempty"`
	Broken []brokenReplica     `json:"broken,omitempty"`
	// Only: nothing is to be done, only to be said whether it could be.
	Only bool `json:"only,omitempty"`
}

type brokenReplica struct {
	Group   partition.GroupID   `json:"g"`
	Replica partition.ReplicaID `json:"r"`
	Why     string              `json:"why"`
}

// memberAnswer is what a master says about one group.
type memberAnswer struct {
	Group   partition.GroupID `json:"g"`
	Agreed  bool              `json:"agreed,omitempty"`
	Working bool              `json:"working,omitempty"`
	Why     string            `json:"why,omitempty"`
}

// asker tells the masters of this node's groups what they are to do for its
// members, again and again until they agree: no single message matters, and a
// new master hears it like the old one did.
type asker struct {
	node *Node
	told map[partition.NodeID]uint64 // the word each node has heard; of run only
	hint chan struct{}               // has room for one: there is something to say

	mu      sync.Mutex
	seq     uint64 // of the word that the rest is about
	known   bool
	undone  []DrainLeft
	stuckAt partition.Time // since when nothing of undone is on its way; 0: something is
}

// run asks until the node stops.
func (a *asker) run() {
	a.told = make(map[partition.NodeID]uint64)
	for {
		w, changed := a.node.service.get()
		pause := askAgain
		if a.round(w) {
			pause = settledAgain
		}
		timer := time.NewTimer(pause)
		select {
		case <-a.node.ctx.Done():
			timer.Stop()
			return
		case <-changed:
		case <-a.hint:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// soon has the asker look at once, as when a replica was given up.
func (a *asker) soon() {
	select {
	case a.hint <- struct{}{}:
	default:
	}
}

// round asks once and reports whether there is nothing more to say.
func (a *asker) round(w word) bool {
	ctx, cancel := context.WithTimeout(a.node.ctx, serveWait)
	defer cancel()
	all := a.tell(ctx, w)
	a.mu.Lock()
	settled := a.known && a.seq == w.Seq && len(a.undone) == 0
	a.mu.Unlock()
	if !settled || w.Drain != placement.InService {
		left := a.ask(ctx, a.disagreeing(w), w, false)
		a.note(w, left)
		settled = len(left) == 0
	}
	broken := a.reportBroken(ctx, w)
	return all && settled && !broken
}

func (a *asker) note(w word, left []DrainLeft) {
	a.mu.Lock()
	defer a.mu.Unlock()
	working := slices.ContainsFunc(left, func(l DrainLeft) bool { return l.Working })
	switch {
	case working || a.seq != w.Seq:
		a.stuckAt = 0
	case a.stuckAt == 0:
		a.stuckAt = a.node.now()
	}
	a.seq, a.known, a.undone = w.Seq, true, left
}

// left returns what does not agree with the word yet, and whether that is all
// that there will be.
func (a *asker) left(w word) (left []DrainLeft, done bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.known || a.seq != w.Seq {
		return nil, false
	}
	return slices.Clone(a.undone), len(a.undone) == 0 || w.Force && a.stuckFor(drainPatience)
}

// stuckFor reports whether nothing has been on its way for so long. mu is held.
func (a *asker) stuckFor(d time.Duration) bool {
	return a.stuckAt != 0 && a.node.now()-a.stuckAt >= d
}

// tell brings the word to every node that answers and has not heard it, so that
// a replica that becomes master in a moment knows. It reports whether all have.
func (a *asker) tell(ctx context.Context, w word) bool {
	if w.Seq == 0 {
		return true
	}
	var todo []partition.NodeID
	for _, m := range a.node.Members() {
		if m.Status == "alive" && a.told[m.Node] != w.Seq {
			todo = append(todo, m.Node)
		}
	}
	heard := make([]bool, len(todo))
	inParallel(len(todo), func(i int) {
		_, err := a.node.tellMaster(ctx, todo[i], memberAsk{Word: w})
		heard[i] = err == nil
	})
	for i, id := range todo {
		if heard[i] {
			a.told[id] = w.Seq
		}
	}
	return !slices.Contains(heard, false)
}

// disagreeing lists the groups whose configuration does not say of this node's
// member what its word says.
func (a *asker) disagreeing(w word) []partition.GroupID {
	var out []partition.GroupID
	a.node.cells.each(func(c *cell) {
		for _, m := range configurationsOf(c) {
			x, ok := m.OnNode(a.node.ID())
			if ok && x.Kind != partition.Learner && x.Eligible != (w.Drain == placement.InService) {
				out = append(out, c.group)
				return
			}
		}
	})
	slices.Sort(out)
	return out
}

// configurationsOf are the group's, as the replica here knows them, or as the
// catalog does while it is not open.
func configurationsOf(c *cell) partition.Configurations {
	if v := c.view.Load(); v != nil {
		return v.Configurations
	}
	if g := c.route.Load(); g != nil {
		return partition.Configurations{g.Membership}
	}
	return nil
}

// ask asks the masters of the groups, and returns what they cannot say yes to.
func (a *asker) ask(ctx context.Context, groups []partition.GroupID, w word, only bool) []DrainLeft {
	byMaster := make(map[partition.NodeID][]partition.GroupID)
	var left []DrainLeft
	for _, g := range groups {
		if m := a.node.masterOf(g); m != "" {
			byMaster[m] = append(byMaster[m], g)
		} else {
			left = append(left, DrainLeft{Group: g, Why: "it has no master now", Working: !only})
		}
	}
	type question struct {
		to  partition.NodeID
		ask memberAsk
	}
	var questions []question
	for to, gs := range byMaster { // in no order: each on its own
		for part := range slices.Chunk(gs, askGroups) {
			questions = append(questions, question{to, memberAsk{Word: w, Groups: part, Only: only}})
		}
	}
	lefts := make([][]DrainLeft, len(questions))
	inParallel(len(questions), func(i int) {
		q := questions[i]
		answers, err := a.node.tellMaster(ctx, q.to, q.ask)
		if err != nil {
			for _, g := range q.ask.Groups {
				lefts[i] = append(lefts[i], DrainLeft{Group: g, Why: fmt.Sprintf("its master on node %s does not answer: %v", q.to, err), Working: true})
			}
			return
		}
		for _, x := range answers {
			if !x.Agreed {
				lefts[i] = append(lefts[i], DrainLeft{Group: x.Group, Why: x.Why, Working: x.Working})
			}
		}
	})
	left = append(left, slices.Concat(lefts...)...)
	slices.SortFunc(left, func(x, y DrainLeft) int { return int(x.Group) - int(y.Group) })
	return left
}

// reportBroken asks the other members of groups whose replica here can never take
// part again to replace it: whoever of them is master does. It reports whether
// there are any.
func (a *asker) reportBroken(ctx context.Context, w word) bool {
	byNode := make(map[partition.NodeID][]brokenReplica)
	found := a.node.unusable()
	for _, u := range found {
		b := brokenReplica{Group: u.group, Replica: u.replica, Why: u.why[:min(len(u.why), maxWhyBytes)]}
		if g, ok := a.node.control.Catalog().Group(u.group); ok {
			for _, m := range g.Membership.Members {
				if m.Node != a.node.ID() {
					byNode[m.Node] = append(byNode[m.Node], b)
				}
			}
		}
	}
	var to []partition.NodeID
	for id := range byNode { // in no order: each on its own
		to = append(to, id)
	}
	inParallel(len(to), func(i int) {
		for part := range slices.Chunk(byNode[to[i]], askGroups/2) {
			if _, err := a.node.tellMaster(ctx, to[i], memberAsk{Word: w, Broken: part}); err != nil {
				a.node.logger.Debug("damaged replicas not reported", "to", to[i], "err", err)
			}
		}
	})
	return len(found) > 0
}

// inParallel calls fn for 0 to n-1, a bounded number at a time.
func inParallel(n int, fn func(i int)) {
	slots := make(chan struct{}, askAtOnce)
	var wg sync.WaitGroup
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			fn(i)
		})
	}
	wg.Wait()
}

// masterOf is the node of a group's master, as far as is known here.
func (n *Node) masterOf(g partition.GroupID) partition.NodeID {
	if c := n.cells.get(g); c != nil {
		if m := c.master(); m != "" {
			return m
		}
	}
	if x, ok := n.control.Catalog().Group(g); ok && (x.Master == n.ID() || n.leases.Reachable(x.Master)) {
		return x.Master
	}
	return ""
}

// knows reports whether a node is a member of the cluster.
func (n *Node) knows(id partition.NodeID) bool {
	members := n.members.Load()
	return members != nil && slices.ContainsFunc(*members, func(m cluster.Node) bool { return m.ID == id })
}

// tellMaster brings a memberAsk to the tender of a node.
func (n *Node) tellMaster(ctx context.Context, to partition.NodeID, ask memberAsk) ([]memberAnswer, error) {
	if to == n.ID() {
		return n.tender.ask(ctx, n.ID(), ask)
	}
	return askNode[[]memberAnswer](ctx, n, to, callMembers, ask)
}

// serveMembers answers another node's memberAsk.
func (n *Node) serveMembers(ctx context.Context, from partition.NodeID, body []byte) ([]byte, error) {
	var ask memberAsk
	if err := json.Unmarshal(body, &ask); err != nil || len(ask.Groups) > askGroups || len(ask.Broken) > askGroups {
		return nil, partition.Errorf(partition.CodeInvalid, "a request of a member that cannot be read, or about over %d groups", askGroups)
	}
	answers, err := n.tender.ask(ctx, from, ask)
	if err != nil {
		return nil, err
	}
	return json.Marshal(answers)
}

// nodeWatch is what this node has seen of the others over time: since when each
// answers or not, how often one came back that had gone without a word, and its
// word. It belongs to the tender.
type nodeWatch struct {
	nodes map[partition.NodeID]*watched
}

type watched struct {
	boot  uint64 // its incarnation, as gossip says
	zone  string
	up    bool
	alive bool // gossip hears it too
	left  bool // it is away and said so before, or is drained
	since partition.Time
	sick  bool             // nobody should be master there now
	flaps []partition.Time // when it came back without having said goodbye
	word  word
}

// flapMemory is how long a return without goodbye is held against a node, and
// maxFlaps how many are remembered.
const (
	flapMemory = 10 * time.Minute
	maxFlaps   = 16
)

// of returns what is known of a node, which is nothing at first.
func (s *nodeWatch) of(id partition.NodeID, now partition.Time) *watched {
	x := s.nodes[id]
	if x == nil {
		x = &watched{since: now}
		s.nodes[id] = x
	}
	return x
}

// heard takes a node's word unless a newer one is known. A gossip tag does not say
// all: the same word by a call counts more.
func (s *nodeWatch) heard(id partition.NodeID, w word, now partition.Time) (news bool) {
	if len(s.nodes) >= maxWords && s.nodes[id] == nil {
		return false
	}
	x := s.of(id, now)
	if w.Seq < x.word.Seq || w.Seq == x.word.Seq && (x.word.Force || !w.Force) {
		return false
	}
	news = w.Drain != x.word.Drain || w.Force != x.word.Force
	x.word = w
	return news
}

// look compares with what was, and reports whether anything has changed that a
// group may have to do with.
func (s *nodeWatch) look(members []cluster.Node, reachable func(partition.NodeID) bool, now partition.Time) (changed bool) {
	for _, m := range members {
		_, known := s.nodes[m.ID]
		x := s.of(m.ID, now)
		goodbye := m.Status == cluster.Left || x.word.Drain != placement.InService
		if m.Boot > x.boot {
			// It begins with the word that it has, which may be none: its disk may not
			// be the one that it had.
			x.boot = m.Boot
			if w := wordOf(m.Mode); w.Seq < x.word.Seq {
				x.word, changed = w, true
			}
		}
		x.sick = m.Sick != ""
		news := s.heard(m.ID, wordOf(m.Mode), now)
		up, alive := reachable(m.ID) && m.Status != cluster.Left, m.Status == cluster.Alive
		changed = changed || !known || news || up != x.up || alive != x.alive || up && m.Zone != x.zone
		if up || x.zone == "" {
			x.zone = m.Zone
		}
		switch {
		case up == x.up:
		case up:
			if known && !x.left {
				x.flaps = append(x.flaps[max(0, len(x.flaps)-maxFlaps+1):], now)
			}
			x.since = now
		default:
			x.since = now
		}
		x.up, x.alive = up, alive
		x.left = !up && (x.left || goodbye)
		for len(x.flaps) > 0 && now-x.flaps[0] > flapMemory {
			x.flaps = x.flaps[1:]
		}
	}
	return changed
}

// state is a node as a step is decided from it.
func (s *nodeWatch) state(id partition.NodeID, now partition.Time) placement.NodeState {
	x := s.of(id, now)
	return placement.NodeState{
		Node: placement.Node{ID: id, Zone: x.zone, Weight: 1}, Up: x.up, Since: x.since, Flaps: len(x.flaps),
		Drain: x.word.Drain, Force: x.word.Force, Sick: x.sick,
	}
}

// specOf is what the catalog asks of a group; false if it does not know it.
func specOf(cat *control.Catalog, g partition.GroupID) (placement.Spec, bool) {
	x, ok := cat.Group(g)
	if !ok {
		return placement.Spec{}, false
	}
	t, ok := cat.TableOf(x)
	if !ok {
		return placement.Spec{}, false
	}
	return placement.Spec{Replicas: t.Replicas, Policy: t.Policy}, true
}
