package actors

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"pando.dev/pando/actors/client"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/kv"
)

// proxies stand between the nodes' links: what one node dials is the proxy of the
// other. A node can be cut off from all others and joined again.
type proxies struct {
	mu    sync.Mutex
	cut   partition.NodeID
	conns map[net.Conn]func(partition.NodeID) bool // whether it is one of the node
	wg    sync.WaitGroup
}

// before makes a proxy and returns its address; to tells later where the node of
// this id listens.
func (p *proxies) before(tb testing.TB, id partition.NodeID, to func() string) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { ln.Close() })
	p.wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.serve(conn, id, to()) })
		}
	})
	return ln.Addr().String()
}

// serve forwards a connection to the node with the given id. The handshake, which
// comes first, names who has dialed.
func (p *proxies) serve(conn net.Conn, id partition.NodeID, to string) {
	defer conn.Close()
	hello := make([]byte, 512)
	n, err := conn.Read(hello)
	if err != nil {
		return
	}
	hello = hello[:n]
	of := func(x partition.NodeID) bool { return x == id || bytes.Contains(hello, []byte(x)) }
	p.mu.Lock()
	if p.cut != "" && of(p.cut) {
		p.mu.Unlock()
		return
	}
	p.conns[conn] = of
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.conns, conn)
		p.mu.Unlock()
	}()
	out, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer out.Close()
	p.wg.Go(func() {
		io.Copy(conn, out)
		conn.Close()
	})
	if _, err := out.Write(hello); err == nil {
		io.Copy(out, conn)
	}
}

// cutOff breaks the links of a node and keeps them broken; "" lets all be made
// again.
func (p *proxies) cutOff(id partition.NodeID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = id
	for c, of := range p.conns {
		if id == "" || of(id) {
			c.Close()
		}
	}
}

// newCutCluster starts three nodes with proxies between them.
func newCutCluster(t *testing.T, with ...func(*Config)) (*testCluster, *proxies) {
	p := &proxies{conns: map[net.Conn]func(partition.NodeID) bool{}}
	t.Cleanup(func() { // last of all: nodes and listeners are closed then
		p.cutOff("")
		p.wg.Wait()
	})
	ids := []partition.NodeID{"alpha", "bravo", "carol"}
	at := map[partition.NodeID]*atomic.Value{}
	c := newClusterWith(t, 3, func(cfg *Config) {
		for _, f := range with {
			f(cfg)
		}
		cfg.NodeID = ids[len(at)]
		addr := new(atomic.Value)
		at[cfg.NodeID] = addr
		cfg.Advertise = p.before(t, cfg.NodeID, func() string {
			s, _ := addr.Load().(string)
			return s
		})
	})
	for _, n := range c.nodes {
		at[n.ID()].Store(n.LinkAddr())
	}
	return c, p
}

// ask reads a key at the replica of this node, whatever it is.
func ask(n *Node, g partition.GroupID, key string, level client.Level) *client.Response {
	route, _ := n.control.Catalog().Group(g)
	query, _ := kv.Get([]byte(key))
	answer := make(chan *client.Response, 1)
	backend{n}.Read(&client.Request{
		Op: client.OpRead, Level: level, Group: g, RangeVersion: route.RangeVersion, Key: []byte(key), Body: query,
	}, func(r *client.Response) { c := *r; answer <- &c })
	return <-answer
}

// valueOf returns the value in the answer of kind kv to a get.
func valueOf(body []byte) string {
	a, err := kv.ParseGet(body)
	if err != nil {
		return err.Error()
	}
	return string(a.Value)
}

// TestCutOffMaster covers LEA-4 and NOT-1: a master whose links are cut stops to
// answer reads before another acknowledges a write, and a note that it could not
// commit is never seen.
func TestCutOffMaster(t *testing.T) {
	t.Parallel()
	c, p := newCutCluster(t)
	c.table(TableSpec{Name: "t"})
	if err := put(t.Context(), c.any(), "k", "old"); err != nil {
		t.Fatal(err)
	}
	m := c.master("t")
	old, other := c.nodes[m], c.nodes[(m+1)%3]
	group := groupsOf(old)[0]
	if r := ask(old, group, "k", client.Lease); r.Code != 0 {
		t.Fatalf("read at the master: %+v", r)
	}
	p.cutOff(old.ID())
	note := make(chan *client.Response, 1)
	go func() { note <- propose(old, putRequest(old, group, "k", "note")) }() // into the master's log, and no further
	if err := put(t.Context(), other, "k", "new"); err != nil {
		t.Fatalf("put at the others: %v", err)
	}
	if v := old.cells.get(group).view.Load(); !v.Serving {
		t.Log("the old master knows already: the reads below show little")
	}
	for range 100 {
		if r := ask(old, group, "k", client.Lease); r.Code != partition.CodeUnavailable && r.Code != partition.CodeNotMaster {
			t.Fatalf("the cut-off master answers %q, %+v", valueOf(r.Body), r)
		}
	}
	p.cutOff("")
	if r := <-note; r.Code != partition.CodeUnknown && r.Code != partition.CodeUnavailable && r.Code != partition.CodeNotMaster {
		t.Errorf("the note: %+v", r)
	}
	eventually(t, "the old master back", func() error {
		got, err := get(t.Context(), old, "k")
		if err == nil && got != "new" {
			t.Fatalf("get: %q", got)
		}
		return err
	})
}

// putRequest is the command that writes a key, without a session.
func putRequest(n *Node, g partition.GroupID, key, value string) *client.Request {
	route, _ := n.control.Catalog().Group(g)
	command, _ := kv.Put([]byte(key), []byte(value))
	return &client.Request{Op: client.OpPropose, Group: g, RangeVersion: route.RangeVersion, Key: []byte(key), Body: command}
}

// TestLeaseReadsNeedNobody covers LEA-1 and LEA-3: under a lease a read sends no
// message, and leases are renewed and writes go on without the control group.
func TestLeaseReadsNeedNobody(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	c.table(TableSpec{Name: "t"})
	if err := put(t.Context(), c.any(), "k", "v"); err != nil {
		t.Fatal(err)
	}
	m := c.master("t")
	n := c.nodes[m]
	for i, x := range c.nodes {
		if i != m {
			x.control.Close() // two of three seats: nothing can be decided
		}
	}
	eventually(t, "the control group down", func() error {
		if st := n.control.Status(); st.State == "ready" {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	c.quiet()
	frames := func() (sent uint64) {
		for _, x := range c.nodes {
			sent += x.counters.sent.Load()
		}
		return sent
	}
	before, reads := frames(), n.counters.leaseReads.Load()
	group := groupsOf(n)[0]
	const asked = 1000
	for range asked {
		if r := ask(n, group, "k", client.Lease); r.Code != 0 || valueOf(r.Body) != "v" {
			t.Fatalf("read: %+v", r)
		}
	}
	quorum := n.counters.quorumReads.Load()
	if got := n.counters.leaseReads.Load() - reads; got+quorum < asked || got < asked/2 {
		t.Errorf("%d of %d reads under the lease", got, asked)
	}
	if sent := frames() - before; quorum == 0 && sent != 0 {
		t.Errorf("%d messages for %d reads", sent, asked)
	}
	// Renewals go on: well after a lease's length there is still one.
	until := n.now() + 4*n.cfg.Lease
	eventually(t, "four leases later", func() error {
		if n.now() < until {
			return fmt.Errorf("not yet")
		}
		if r := ask(n, group, "k", client.Lease); r.Code != 0 {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
	if err := put(t.Context(), n, "k", "w"); err != nil {
		t.Errorf("a write without the control group: %v", err)
	}
}

// quiet waits until the nodes have set no timer and sent no message for a second.
func (c *testCluster) quiet() {
	var last uint64
	same := 0
	eventually(c.tb, "quiet nodes", func() error {
		var now uint64
		for _, n := range c.nodes {
			if n != nil {
				now += n.counters.sent.Load() + n.counters.alarms.Load()
			}
		}
		if same++; now != last {
			last, same = now, 0
		}
		if same < 50 {
			return fmt.Errorf("%d timers and messages so far", now)
		}
		return nil
	})
}
