package actors

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"net"
	"time"

	"pando.dev/pando/actors/client"
	"pando.dev/pando/actors/link"
	"pando.dev/pando/cluster"
	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

// The first byte of a call between nodes says what it asks for.
const (
	callControl = 1 // the control group
	callReports = 2 // reports on replicas
	callIndex   = 3 // the index that a master shows
	callHost    = 4 // to bring up a replica
	callMembers = 5 // what a node says of its members to their masters
	callDrain   = 6 // to leave service, or to come back
	callChange  = 7 // an operator's change of a partition
	callSurvey  = 8 // what is left of partitions that are to be recovered
	callDecree  = 9 // to go on with those that are left

	callSample    = 10 // what a node measures of itself
	callRead      = 12 // to answer a read that any replica may answer
	callSplitKeys = 20 // where a partition's data divides
	callLoads     = 30 // what is asked of the partitions of a node
	callMerge     = 25 // what the two groups of a merge ask of each other
	callVerify    = 21 // what a replica's state comes to at an index
	callHeld      = 22 // which replicas a node has
	callHistory   = 23 // what a replica's log tells of the past
)

// The first byte of the answer to a call.
const (
	answerOK    = 0
	answerError = 1
)

const (
	// leaveWait bounds the time in which the others hear that a node leaves.
	leaveWait = time.Second
	// leaveDelay is how long a node stays up after it said that it leaves.
	leaveDelay = 200 * time.Millisecond
	// serveWait bounds the work for one call from another node.
	serveWait = 2 * time.Second
)

// resolve says where a node's links are, as gossip tells.
func (n *Node) resolve(id partition.NodeID) (addr string, boot uint64, ok bool) {
	members := n.members.Load()
	if members == nil {
		return "", 0, false
	}
	for _, m := range *members {
		if m.ID == id && m.Status != cluster.Left && m.Link != "" {
			return m.Link, m.Boot, true
		}
	}
	return "", 0, false
}

// onFrame brings a replica's message into the mailbox of the replica it is for.
// It runs on the connection's reader; a full mailbox loses the message, which
// the protocol sends again.
func (n *Node) onFrame(from partition.NodeID, f link.Frame) {
	if !n.up.Load() {
		return
	}
	c := n.cells.get(f.Group)
	if c == nil && !n.early.expects(f.Group) {
		n.counters.strayFrames.Add(1)
		return
	}
	if c != nil {
		if v := c.view.Load(); v != nil && v.Self != f.To {
			n.counters.strayFrames.Add(1)
			return
		}
	}
	msg, err := link.DecodeReplica(f)
	if err != nil {
		n.counters.badFrames.Add(1)
		n.logger.Warn("message refused", "from", from, "group", f.Group, "err", err)
		return
	}
	m := &received{from: f.From, node: from, boot: f.Boot, msg: msg}
	if c == nil {
		n.early.keep(f.Group, m)
	} else if !c.box.TryPost(m, len(f.Body)) {
		n.counters.busy.Add(1)
	}
}

// onCall answers another node's call.
func (n *Node) onCall(ctx context.Context, from partition.NodeID, body []byte) []byte {
	ctx, cancel := context.WithTimeout(ctx, serveWait)
	defer cancel()
	if !n.up.Load() || len(body) == 0 {
		return answer(nil, partition.Errorf(partition.CodeUnavailable, "the node is starting"))
	}
	switch body[0] {
	case callControl:
		return answer(n.control.Serve(ctx, from, body[1:]), nil)
	case callReports:
		return answer(n.serveReports(body[1:]))
	case callIndex:
		return answer(n.serveIndex(ctx, body[1:]))
	case callHost:
		return answer(nil, n.serveHost(ctx, body[1:]))
	case callMembers:
		return answer(n.serveMembers(ctx, from, body[1:]))
	case callDrain:
		return answer(n.serveDrain(ctx, body[1:]))
	case callSurvey:
		return answer(n.serveSurvey(body[1:]))
	case callDecree:
		return answer(nil, n.serveDecree(ctx, body[1:]))
	case callSample:
		return answer(nil, n.anomalies.hear(from, body[1:]))
	case callRead:
		return answer(n.serveRead(ctx, body[1:]))
	case callSplitKeys:
		return answer(n.serveSplitKeys(ctx, body[1:]))
	case callLoads:
		return answer(n.serveLoads(body[1:]))
	case callChange:
		return answer(n.serveChange(ctx, body[1:]))
	case callHeld:
		return answer(n.serveHeld(body[1:]))
	case callHistory:
		return answer(n.serveHistory(ctx, body[1:]))
	case callMerge:
		return answer(n.serveMerge(ctx, body[1:]))
	case callVerify:
		return answer(n.serveVerify(body[1:]))
	}
	return answer(nil, partition.Errorf(partition.CodeInvalid, "unknown call %d", body[0]))
}

// answer encodes the answer to a call: an error travels with its code.
func answer(body []byte, err error) []byte {
	if err == nil {
		return append([]byte{answerOK}, body...)
	}
	e := asError(err)
	b := binary.LittleEndian.AppendUint16([]byte{answerError}, uint16(e.Code))
	return append(b, e.Why...)
}

// call asks another node.
func (n *Node) call(ctx context.Context, to partition.NodeID, kind byte, body []byte) ([]byte, error) {
	b, err := n.links.Call(ctx, to, append([]byte{kind}, body...))
	switch {
	case err != nil:
		return nil, err
	case len(b) > 0 && b[0] == answerOK:
		return b[1:], nil
	case len(b) < 3:
		return nil, partition.Errorf(partition.CodeUnavailable, "node %s gave an empty answer", to)
	}
	return nil, partition.Errorf(partition.Code(binary.LittleEndian.Uint16(b[1:])), "node %s: %s", to, b[3:])
}

// tell brings something to another node, in JSON.
func (n *Node) tell(ctx context.Context, to partition.NodeID, kind byte, what any) ([]byte, error) {
	body, _ := json.Marshal(what) // a fixed struct of this package always encodes
	return n.call(ctx, to, kind, body)
}

// askNode is tell with an answer. What the other node has done when its answer
// cannot be read is not known.
func askNode[T any](ctx context.Context, n *Node, to partition.NodeID, kind byte, question any) (T, error) {
	var answer T
	b, err := n.tell(ctx, to, kind, question)
	if err != nil {
		return answer, err
	}
	if err := json.Unmarshal(b, &answer); err != nil {
		return answer, partition.Errorf(partition.CodeUnknown, "the answer of node %s cannot be read: %v", to, err)
	}
	return answer, nil
}

// controlTransport carries the control group over the links.
type controlTransport struct{ n *Node }

var _ control.Transport = controlTransport{}

func (t controlTransport) Dial(to partition.NodeID, timeout time.Duration) (net.Conn, error) {
	return t.n.links.DialStream(to, timeout)
}
func (t controlTransport) Accept() (net.Conn, error) { return t.n.links.AcceptStream() }
func (t controlTransport) Close() error              { return nil } // the links end Accept when they close

func (t controlTransport) Call(ctx context.Context, to partition.NodeID, request []byte) ([]byte, error) {
	return t.n.call(ctx, to, callControl, request)
}

// resign tells the members of a group that the replica of v is not its master
// any more. They would not ask by themselves: its node goes on answering. A
// rebuilt replica never resumes a mastership, so this stays true.
func (n *Node) resign(v *replica.View) {
	told := map[partition.ReplicaID]bool{v.Self: true}
	for _, c := range v.Configurations {
		for _, m := range c.Members {
			if told[m.Replica] {
				continue
			}
			told[m.Replica] = true
			f := link.Frame{Group: v.Group, From: v.Self, To: m.Replica}
			link.EncodeReplica(&f, &replica.ProbeAnswer{Promised: v.Epoch})
			if err := n.links.Send(m.Node, f); err != nil {
				n.counters.sendRefused.Add(1)
			}
		}
	}
}

// announce tells the catalog of a new master.
func (n *Node) announce(c *cell, v *replica.View) {
	keys, version, ok := c.rangeOf()
	if !ok {
		return
	}
	n.announcer.announce(control.GroupUpdate{
		Group: c.group, Range: keys, RangeVersion: version, Membership: v.Configurations[0],
		Epoch: v.Epoch, Master: n.ID(),
	})
}

// serveClient answers one client until it goes.
func (n *Node) serveClient(conn net.Conn, p link.Peer) {
	if !n.up.Load() {
		return
	}
	if err := client.Serve(conn, backend{n}, client.ServerConfig{}); err != nil {
		n.logger.Debug("client connection ended", "client", p.Addr, "err", err)
	}
}

// dialNode opens a client connection to another node.
func (n *Node) dialNode(ctx context.Context, addr string) (net.Conn, error) {
	return link.DialClient(ctx, addr, link.ClientConfig{Cluster: n.cfg.Cluster, TLS: n.secure})
}

// routes is the catalog as clients need it; nil before there is one that can be
// trusted to name every table.
func (n *Node) routes() *client.Routes {
	if !n.control.Synced() {
		return nil
	}
	return n.routing.get(n.control.Catalog())
}
