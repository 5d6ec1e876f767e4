package control

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pando.dev/pando/partition"
)

// testNet is a cluster on loopback TCP: it knows where each node is and which
// nodes can reach each other.
type testNet struct {
	t  testing.TB
	mu sync.Mutex
	// at is where each node that runs listens.
	at    map[partition.NodeID]string
	peers map[partition.NodeID]PeerInfo // as gossip would show them
	nodes map[partition.NodeID]*testNode
	boots map[partition.NodeID]uint64
	dir   string
	cuts  map[[2]partition.NodeID]bool // who does not reach whom
}

// sever lets two nodes reach each other no more.
func (n *testNet) sever(a, b partition.NodeID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cuts == nil {
		n.cuts = map[[2]partition.NodeID]bool{}
	}
	n.cuts[[2]partition.NodeID{a, b}], n.cuts[[2]partition.NodeID{b, a}] = true, true
}

func (n *testNet) severed(a, b partition.NodeID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cuts[[2]partition.NodeID{a, b}]
}

func newTestNet(t testing.TB) *testNet {
	n := &testNet{
		t: t, at: map[partition.NodeID]string{}, peers: map[partition.NodeID]PeerInfo{},
		nodes: map[partition.NodeID]*testNode{}, boots: map[partition.NodeID]uint64{}, dir: t.TempDir(),
	}
	t.Cleanup(func() {
		for _, x := range n.running() {
			n.stop(x.id)
		}
	})
	return n
}

// testNode is a node of a testNet: its control group and its link.
type testNode struct {
	*Control
	id   partition.NodeID
	link *testLink
}

// start runs a node; its directory stays between starts.
func (n *testNet) start(id partition.NodeID, expect int, change ...func(*Config)) *testNode {
	n.t.Helper()
	l := &testLink{net: n, self: id, streams: make(chan net.Conn, 16), done: make(chan struct{}), idle: map[partition.NodeID][]net.Conn{}}
	var err error
	if l.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		n.t.Fatal(err)
	}
	n.mu.Lock()
	n.boots[id]++
	boot := n.boots[id]
	n.peers[id] = PeerInfo{Node: id, Boot: boot, Expect: expect, Zone: "z-" + string(id)}
	n.mu.Unlock()
	cfg := Config{
		Node: id, Boot: boot, Dir: filepath.Join(n.dir, string(id)), Expect: expect, Transport: l,
		Peers: func() []PeerInfo { return n.visible(id) },
	}
	for _, f := range change {
		f(&cfg)
	}
	c, err := Start(cfg)
	if err != nil {
		n.t.Fatalf("start %s: %v", id, err)
	}
	x := &testNode{Control: c, id: id, link: l}
	l.control = c
	go l.listen()
	n.mu.Lock()
	n.at[id], n.nodes[id] = l.listener.Addr().String(), x
	n.mu.Unlock()
	return x
}

// stop ends a node as a crash would look to the others: connections close, and
// it is gone from the list of peers.
func (n *testNet) stop(id partition.NodeID) {
	n.t.Helper()
	n.mu.Lock()
	x := n.nodes[id]
	delete(n.at, id)
	delete(n.nodes, id)
	delete(n.peers, id)
	n.mu.Unlock()
	if x == nil {
		return
	}
	x.link.cut()
	if err := x.Close(); err != nil {
		n.t.Errorf("close %s: %v", id, err)
	}
}

func (n *testNet) running() []*testNode {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []*testNode
	for _, x := range n.nodes {
		all = append(all, x)
	}
	return all
}

// visible is what gossip shows, with the seat tag from each node's status.
func (n *testNet) visible(partition.NodeID) []PeerInfo {
	n.mu.Lock()
	var all []PeerInfo
	var nodes []*testNode
	for id, p := range n.peers {
		all = append(all, p)
		nodes = append(nodes, n.nodes[id])
	}
	n.mu.Unlock()
	for i, x := range nodes {
		all[i].Seat = x != nil && x.Control.usableSeat() != nil
	}
	return all
}

func (n *testNet) address(id partition.NodeID) (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if a, ok := n.at[id]; ok {
		return a, nil
	}
	return "", partition.Errorf(partition.CodeUnavailable, "node %s is not here", id)
}

// leader waits for a node that leads and returns it.
func (n *testNet) leader() *testNode {
	n.t.Helper()
	var found *testNode
	n.until("a leader", func() bool {
		for _, x := range n.running() {
			if s := x.usableSeat(); s != nil && s.leads() {
				found = x
				return true
			}
		}
		return false
	})
	return found
}

// until polls a condition that no channel tells of, with a deadline.
func (n *testNet) until(what string, ok func() bool) {
	n.t.Helper()
	deadline := time.After(15 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			n.mu.Lock()
			defer n.mu.Unlock()
			for id, x := range n.nodes {
				n.t.Logf("%s: %+v, catalog %d", id, x.Status(), x.Catalog().Version)
			}
			n.t.Fatalf("no %s in time", what)
		}
	}
}

// wait waits with Changed until a node shows what is wanted.
func (x *testNode) wait(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(15 * time.Second)
	for {
		changed := x.Changed()
		if ok() {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("node %s: no %s in time: %+v", x.id, what, x.Status())
		}
	}
}

// testLink is a node's Transport: one listener, whose connections say with
// their first byte whether they are a stream or carry calls.
type testLink struct {
	net      *testNet
	self     partition.NodeID
	listener net.Listener
	control  *Control
	streams  chan net.Conn
	done     chan struct{}
	once     sync.Once

	frozen sync.RWMutex // locked as long as the process stands still
	// deaf: questions for the catalog get no answer.
	deaf atomic.Bool

	mu    sync.Mutex
	conns []net.Conn
	idle  map[partition.NodeID][]net.Conn
	dead  bool
}

func (l *testLink) listen() {
	for {
		c, err := l.listener.Accept()
		if err != nil {
			return
		}
		go l.serve(l.keep(c))
	}
}

func (l *testLink) keep(c net.Conn) net.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead {
		c.Close()
	}
	l.conns = append(l.conns, c)
	return &testConn{Conn: c, l: l}
}

// testConn is a connection of a process that may stand still: it stays open, but
// nothing is read and nothing written.
type testConn struct {
	net.Conn
	l *testLink
}

func (c *testConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.l.frozen.RLock()
	defer c.l.frozen.RUnlock()
	return n, err
}

func (c *testConn) Write(b []byte) (int, error) {
	c.l.frozen.RLock()
	defer c.l.frozen.RUnlock()
	return c.Conn.Write(b)
}

func (l *testLink) serve(c net.Conn) {
	var first [1]byte
	if _, err := io.ReadFull(c, first[:]); err != nil {
		c.Close()
		return
	}
	if first[0] == 's' {
		select {
		case l.streams <- c:
		case <-l.done:
			c.Close()
		}
		return
	}
	defer c.Close()
	from, err := readBlock(c)
	for err == nil {
		var request []byte
		if request, err = readBlock(c); err == nil {
			err = writeBlock(c, l.control.Serve(context.Background(), partition.NodeID(from), request))
		}
	}
}

// cut closes everything, as the end of the process would.
func (l *testLink) cut() {
	l.once.Do(func() { close(l.done) })
	l.listener.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = true
	for _, c := range l.conns {
		c.Close()
	}
}

func (l *testLink) dial(to partition.NodeID, timeout time.Duration, first byte) (net.Conn, error) {
	if l.net.severed(l.self, to) {
		return nil, partition.Errorf(partition.CodeUnavailable, "%s does not reach %s", l.self, to)
	}
	addr, err := l.net.address(to)
	if err != nil {
		return nil, err
	}
	c, err := net.DialTimeout("tcp", addr, timeout)
	if err != nil {
		return nil, partition.Errorf(partition.CodeUnavailable, "dial %s: %v", to, err)
	}
	c = l.keep(c)
	if _, err := c.Write([]byte{first}); err != nil {
		return nil, err
	}
	return c, nil
}

func (l *testLink) Dial(to partition.NodeID, timeout time.Duration) (net.Conn, error) {
	return l.dial(to, timeout, 's')
}

func (l *testLink) Accept() (net.Conn, error) {
	select {
	case c := <-l.streams:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *testLink) Close() error {
	l.cut()
	return nil
}

func (l *testLink) Call(ctx context.Context, to partition.NodeID, request []byte) ([]byte, error) {
	if r, err := decode[requestBody](kindRequest, request); err == nil && l.deaf.Load() {
		if k, err := kindOf(r.Body); err == nil && k == kindAskCatalog {
			return nil, partition.Errorf(partition.CodeUnavailable, "deaf")
		}
	}
	if l.net.severed(l.self, to) {
		return nil, partition.Errorf(partition.CodeUnavailable, "%s does not reach %s", l.self, to)
	}
	l.mu.Lock()
	var c net.Conn
	if idle := l.idle[to]; len(idle) > 0 {
		c, l.idle[to] = idle[len(idle)-1], idle[:len(idle)-1]
	}
	l.mu.Unlock()
	if c == nil {
		var err error
		if c, err = l.dial(to, time.Second, 'c'); err != nil {
			return nil, err
		}
		if err := writeBlock(c, []byte(l.self)); err != nil {
			return nil, err
		}
	}
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	err := writeBlock(c, request)
	var answer []byte
	if err == nil {
		answer, err = readBlock(c)
	}
	if !stop() || err != nil {
		c.Close()
		return nil, errors.Join(err, ctx.Err())
	}
	l.mu.Lock()
	l.idle[to] = append(l.idle[to], c)
	l.mu.Unlock()
	return answer, nil
}

func writeBlock(c net.Conn, b []byte) error {
	_, err := c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))
	return err
}

func readBlock(c net.Conn) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > MaxCallBytes {
		return nil, errors.New("block too large")
	}
	b := make([]byte, n)
	_, err := io.ReadFull(c, b)
	return b, err
}
