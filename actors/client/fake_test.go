package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/kv"
	"pando.dev/pando/partition/kv/mem"
)

// cluster is a whole cluster in memory: nodes that run the real server over
// pipes, and groups whose log and state are one slice and one map.
type cluster struct {
	t testing.TB

	mu       sync.Mutex
	nodes    map[partition.NodeID]*fakeNode
	groups   map[partition.GroupID]*fakeGroup
	routes   *Routes
	age      time.Duration     // of the routes; negative: nobody vouches for them
	asked    int               // calls of Route
	executed map[string]int    // commands, by body
	order    []string          // bodies in the order of execution
	seen     map[string][]sent // what each command came with
	stats    ServerStats
	// fault, if set, decides what happens to a request at a node. It is called
	// with mu held.
	fault func(n *fakeNode, r *Request) fault
	// tells, if set, is what replicas say of keys that they do not serve.
	tells func(r *Request) ([]Node, []Partition)
}

type sent struct {
	session partition.SessionID
	seq     uint64
}

// fault is something that goes wrong with one request.
type fault struct {
	before  partition.Code   // answered without executing
	master  partition.NodeID // with before
	after   partition.Code   // answered after executing
	kill    bool             // close all connections of the node, after executing
	late    time.Duration    // the answer comes that much later
	held    time.Duration    // the request itself comes that much later
	expire  bool             // all sessions of the group are forgotten first
	twice   bool             // the answer is given twice
	dropped bool             // with kill: not executed
}

type fakeNode struct {
	c     *cluster
	id    partition.NodeID
	addr  string
	conns map[net.Conn]bool
	// refuse: connections are refused. frozen: they are accepted, and nothing
	// more happens. black: dialing hangs.
	refuse, frozen, black bool
	slow                  time.Duration // dialing takes that long
	dials                 int
	zone                  string
	lag                   partition.Index // its states are that many records behind
	reads                 int             // of session and stale reads, answered or not
}

type fakeGroup struct {
	id           partition.GroupID
	rng          partition.KeyRange
	rangeVersion partition.RangeVersion
	members      []partition.NodeID
	resting      []partition.NodeID
	master       partition.NodeID
	index        partition.Index
	sessions     map[partition.SessionID]*fakeSession
	opens        int
	space        *mem.Space // of the kv kind, if set
}

type fakeSession struct {
	highest uint64
	results map[uint64][]byte
}

// newCluster makes nodes n1 to n<nodes> and a table "t" whose partitions begin
// at the empty key and at each split point, each on every node with n1 master.
func newCluster(t testing.TB, nodes int, splits ...string) *cluster {
	c := &cluster{
		t: t, nodes: map[partition.NodeID]*fakeNode{}, groups: map[partition.GroupID]*fakeGroup{},
		executed: map[string]int{}, seen: map[string][]sent{},
	}
	var ids []partition.NodeID
	for i := range nodes {
		id := partition.NodeID(fmt.Sprintf("n%d", i+1))
		c.nodes[id] = &fakeNode{c: c, id: id, addr: string(id) + ":1", conns: map[net.Conn]bool{}}
		ids = append(ids, id)
	}
	lo := ""
	for i, hi := range append(splits, "") {
		g := &fakeGroup{
			id: partition.GroupID(i + 1), rng: partition.KeyRange{Lo: []byte(lo), Hi: []byte(hi)}, rangeVersion: 1,
			members: ids, master: ids[0], sessions: map[partition.SessionID]*fakeSession{},
		}
		c.groups[g.id] = g
		lo = hi
	}
	c.publish()
	return c
}

// publish makes the routes agree with the groups.
func (c *cluster) publish() {
	r := &Routes{Version: 1}
	if c.routes != nil {
		r.Version = c.routes.Version + 1
	}
	for _, id := range slices.Sorted(maps.Keys(c.nodes)) {
		r.Nodes = append(r.Nodes, Node{ID: id, Addr: c.nodes[id].addr, Zone: c.nodes[id].zone})
	}
	t := Table{Name: "t", Kind: "kv"}
	for _, g := range c.groups {
		t.Partitions = append(t.Partitions, Partition{
			Group: g.id, Lo: g.rng.Lo, Hi: g.rng.Hi, RangeVersion: g.rangeVersion, Members: g.members, Resting: g.resting, Master: g.master,
		})
	}
	slices.SortFunc(t.Partitions, func(a, b Partition) int { return slices.Compare(a.Lo, b.Lo) })
	r.Tables = []Table{t}
	c.routes = r
}

// with runs f with the cluster's lock held.
func (c *cluster) with(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// dial is the client's Dialer.
func (c *cluster) dial(ctx context.Context, addr string) (net.Conn, error) {
	c.mu.Lock()
	var n *fakeNode
	for _, x := range c.nodes {
		if x.addr == addr {
			n = x
		}
	}
	if n == nil || n.refuse {
		c.mu.Unlock()
		return nil, errors.New("connection refused")
	}
	n.dials++
	if n.black {
		c.mu.Unlock()
		<-ctx.Done()
		return nil, ctx.Err()
	}
	near, far := net.Pipe()
	n.conns[far] = true
	frozen, slow := n.frozen, n.slow
	c.mu.Unlock()
	select {
	case <-ctx.Done():
	case <-time.After(slow):
	}
	if !frozen {
		go func() {
			_ = Serve(far, n, ServerConfig{Stats: &c.stats}) // why it ends is the test's doing
			c.with(func() { delete(n.conns, far) })
		}()
	}
	return near, nil
}

// kill closes the node's connections.
func (n *fakeNode) kill() {
	for conn := range n.conns {
		conn.Close()
		delete(n.conns, conn)
	}
}

// crash kills the node and moves its masterships to another, or to nobody.
func (c *cluster) crash(id, heir partition.NodeID) {
	c.with(func() {
		c.nodes[id].refuse = true
		c.nodes[id].kill()
		for _, g := range c.groups {
			if g.master == id {
				g.master = heir
			}
		}
	})
}

func (c *cluster) config() Config {
	return Config{Addrs: []string{"n1:1", "n2:1", "n3:1"}, Dial: c.dial}
}

func (c *cluster) open(cfg Config) *Client {
	c.t.Helper()
	cl, err := Open(context.Background(), cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	return cl
}

func (n *fakeNode) Route(have uint64) (*Routes, time.Duration, error) {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	n.c.asked++
	if n.c.routes.Version <= have {
		return nil, n.c.age, nil
	}
	return n.c.routes, n.c.age, nil
}

func (n *fakeNode) Propose(r *Request, reply func(*Response)) { n.handle(r, reply) }

func (n *fakeNode) Read(r *Request, reply func(*Response)) { n.handle(r, reply) }

func (n *fakeNode) handle(r *Request, reply func(*Response)) {
	c := n.c
	c.mu.Lock()
	var f fault
	if c.fault != nil {
		f = c.fault(n, r)
	}
	if f.held > 0 {
		c.mu.Unlock()
		time.AfterFunc(f.held, func() {
			c.mu.Lock()
			resp := c.execute(n, r, f)
			c.mu.Unlock()
			reply(resp)
		})
		return
	}
	resp := c.execute(n, r, f)
	if f.kill {
		n.kill()
	}
	c.mu.Unlock()
	answer := func() {
		reply(resp)
		if f.twice {
			reply(&Response{Body: []byte("the wrong one")})
		}
	}
	if f.late > 0 {
		time.AfterFunc(f.late, answer)
		return
	}
	answer()
}

// execute is the group: its checks, its sessions, its state.
func (c *cluster) execute(n *fakeNode, r *Request, f fault) *Response {
	if f.before != 0 {
		return &Response{Code: f.before, Why: "injected", Master: f.master}
	}
	if f.dropped {
		return &Response{Code: partition.CodeUnknown, Why: "injected"}
	}
	g := c.groups[r.Group]
	switch {
	case g == nil || !slices.Contains(g.members, n.id) && !slices.Contains(g.resting, n.id):
		return &Response{Code: partition.CodeNotFound, Why: "no such group"}
	case r.Op == OpRead && r.Level.Anywhere() && r.RangeVersion == g.rangeVersion:
		return n.show(g, r)
	case g.master == "":
		return &Response{Code: partition.CodeUnavailable, Why: "no master"}
	case g.master != n.id:
		return &Response{Code: partition.CodeNotMaster, Master: g.master}
	case r.RangeVersion != g.rangeVersion || r.Op != OpOpenSession && !g.rng.Contains(r.Key):
		if c.tells != nil {
			nodes, parts := c.tells(r)
			return Moved(partition.ErrWrongGroup, nodes, parts)
		}
		return &Response{Code: partition.CodeWrongGroup, Why: "range version"}
	}
	if f.expire {
		clear(g.sessions)
	}
	resp := c.answer(g, r, f.held > 0)
	if f.after != 0 {
		return &Response{Code: f.after, Why: "injected after execution"}
	}
	return resp
}

// show answers a session or stale read from the node's own, older state. It gives
// the index as the body, and as many milliseconds as it is behind as its age.
func (n *fakeNode) show(g *fakeGroup, r *Request) *Response {
	n.reads++
	index := g.index - min(n.lag, g.index)
	age := time.Duration(g.index-index) * time.Millisecond
	if index < r.MinIndex || r.MaxAge > 0 && age > r.MaxAge {
		return &Response{Code: partition.CodeBehind, Why: fmt.Sprintf("%s is at record %d", n.id, index), Master: g.master}
	}
	if g.space != nil { // the kv kind has no older state here
		return n.c.answer(g, r, false)
	}
	return &Response{Index: index, Body: fmt.Append(nil, index), Age: age, AgeKnown: true}
}

// answer serves a request. A held one may come behind the window: the client
// has long done without it.
func (c *cluster) answer(g *fakeGroup, r *Request, held bool) *Response {
	switch r.Op {
	case OpRead:
		if g.space != nil {
			b, err := c.kv().Read(g.space, r.Body)
			if err != nil {
				return ErrorResponse(err)
			}
			return &Response{Index: g.index, Body: b}
		}
		return &Response{Index: g.index, Body: append([]byte("read:"), r.Body...)}
	case OpOpenSession:
		g.index++
		g.opens++
		g.sessions[partition.SessionID{Group: g.id, Index: g.index}] = &fakeSession{results: map[uint64][]byte{}}
		return &Response{Index: g.index}
	}
	c.seen[string(r.Body)] = append(c.seen[string(r.Body)], sent{r.Session, r.Seq})
	s := g.sessions[r.Session]
	if s == nil {
		return &Response{Code: partition.CodeSessionExpired, Why: "unknown session"}
	}
	if first, ok := s.results[r.Seq]; ok {
		return &Response{Index: g.index, Body: first}
	}
	if r.Seq+windowSize <= s.highest {
		if !held {
			c.t.Errorf("number %d came when %d was there", r.Seq, s.highest)
		}
		return &Response{Code: partition.CodeInvalid, Why: "number behind the window"}
	}
	g.index++
	c.executed[string(r.Body)]++
	c.order = append(c.order, string(r.Body))
	result := fmt.Appendf(nil, "%s#%d", r.Body, c.executed[string(r.Body)])
	if g.space != nil {
		var err error
		if result, err = c.kv().Apply(g.space, partition.Command{Index: g.index, Payload: r.Body}); err != nil {
			c.t.Error(err)
		}
	}
	s.results[r.Seq] = result
	s.highest = max(s.highest, r.Seq)
	maps.DeleteFunc(s.results, func(seq uint64, _ []byte) bool { return seq+windowSize <= s.highest })
	return &Response{Index: g.index, Body: result}
}

func (c *cluster) kv() partition.Partition {
	p, err := kv.New(partition.Spec{})
	if err != nil {
		c.t.Error(err)
	}
	return p
}

// split gives the keys from at on to a new group, which gets the sessions along.
func (c *cluster) split(parent partition.GroupID, at string, members []partition.NodeID, master partition.NodeID) *fakeGroup {
	p := c.groups[parent]
	child := &fakeGroup{
		id: partition.GroupID(len(c.groups) + 1), rng: partition.KeyRange{Lo: []byte(at), Hi: p.rng.Hi},
		rangeVersion: p.rangeVersion + 1, members: members, master: master, index: p.index,
		sessions: map[partition.SessionID]*fakeSession{},
	}
	if p.space != nil {
		child.space = p.space.Clone()
	}
	for id, s := range p.sessions {
		child.sessions[id] = &fakeSession{highest: s.highest, results: maps.Clone(s.results)}
	}
	p.rng.Hi = []byte(at)
	p.rangeVersion++
	c.groups[child.id] = child
	return child
}
