package link

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"pando.dev/pando/actors/cert"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/lease"
)

// Config is what links are made with. The zero value of each optional field
// works.
type Config struct {
	// System is the node's actor system; required. Start makes "<node>#<boot>"
	// its address, so it must come before the first spawn.
	System *actor.ActorSystem
	// Node and Boot are this node's identity and incarnation, Cluster the name
	// that both sides of every connection must share; required.
	Node    partition.NodeID
	Boot    uint64
	Cluster string
	// Listen is the address for links, raft streams and clients (default
	// 127.0.0.1:0). Beyond loopback it needs TLS.
	Listen string
	// TLS secures every connection; nil means plaintext, on loopback only.
	TLS TLS
	// Resolve tells where a node listens and in which incarnation (0: unknown);
	// required. It is called from any goroutine and must not block.
	Resolve func(partition.NodeID) (addr string, boot uint64, ok bool)
	// Leases carries heartbeats and leases; required.
	Leases *lease.Table
	// Now is the node's clock, that of Leases; required.
	Now func() partition.Time

	// OnFrame takes the frames of a peer's replicas, in order per peer, on the
	// goroutine that read them: it must not block.
	OnFrame func(from partition.NodeID, f Frame)
	// OnCall answers a Call; it runs on a goroutine of its own and may block
	// until ctx ends. The answer is at most MaxCallBytes.
	OnCall func(ctx context.Context, from partition.NodeID, body []byte) []byte
	// OnUp and OnDown are told when a link to an incarnation of a node works and
	// when it broke, in order per node; they must not block.
	OnUp, OnDown func(n partition.NodeID, boot uint64)
	// OnClient serves a client's connection until it returns; the connection is
	// closed then. It runs on a goroutine of its own.
	OnClient func(conn net.Conn, p Peer)
	// OnBulk serves an incoming bulk transfer, as OnClient does a client.
	OnBulk func(from partition.NodeID, b *Bulk)
	// Types are the messages that actors of different nodes may exchange.
	Types []Type
	// Spawn starts the supervisor of the links (default: a child of the root).
	Spawn func(*actor.Props, string) (*actor.PID, error)
	// Logger is optional.
	Logger *slog.Logger

	// QueueBytes bounds what waits to be sent over one connection (default 16
	// MiB); Send refuses beyond.
	QueueBytes int
	// MaxPeers bounds the links (default 256), MaxClients the client
	// connections (4,096), MaxStreams the raft streams (256), MaxBulk the bulk
	// connections of each peer (16), MaxHandshakes the connections that have
	// not said who they are (256).
	MaxPeers, MaxClients, MaxStreams, MaxBulk, MaxHandshakes int
	// MaxCalls bounds the unanswered Calls to a peer, and separately those from
	// it (default 256).
	MaxCalls int
	// Heartbeat is the time between two beats (default 75 ms). Silence is how
	// long a connection may bring nothing before it is dropped (default 3 s);
	// it also bounds writes and handshakes.
	Heartbeat, Silence time.Duration
}

// TLS makes the TLS configurations of a node. Both are asked for anew for each
// connection, so certificates may change.
type TLS interface {
	// Server is for connections that come in: it demands and verifies a client
	// certificate of the cluster.
	Server() *tls.Config
	// Client is for connections to a node: it verifies that the certificate is
	// the cluster's, of role node, and names this node if n is not empty.
	Client(n partition.NodeID) *tls.Config
	// Peer tells who is at the other end of a verified connection.
	Peer(tls.ConnectionState) (name string, r cert.Role, err error)
}

// Peer is who opened a client connection.
type Peer struct {
	Name string // of the certificate; empty without one
	Role cert.Role
	Addr string
}

const (
	defaultQueueBytes = 16 << 20
	minQueueBytes     = MaxAppendBytes + HeaderBytes
)

func (c *Config) validate() error {
	missing := func(what string) error {
		return partition.Errorf(partition.CodeInvalid, "link config needs %s", what)
	}
	switch {
	case c.System == nil:
		return missing("System")
	case c.Node == "" || len(c.Node) > partition.MaxNodeIDBytes:
		return missing("Node of 1 to 64 bytes")
	case c.Boot == 0:
		return missing("Boot")
	case c.Cluster == "" || len(c.Cluster) > MaxClusterBytes:
		return missing("Cluster of 1 to 64 bytes")
	case c.Resolve == nil || c.Leases == nil || c.Now == nil:
		return missing("Resolve, Leases and Now")
	}
	return checkListen(c.Listen, c.TLS != nil)
}

func (c *Config) setDefaults() {
	num := func(n *int, v int) {
		if *n <= 0 {
			*n = v
		}
	}
	num(&c.QueueBytes, defaultQueueBytes)
	c.QueueBytes = max(c.QueueBytes, minQueueBytes)
	num(&c.MaxPeers, 256)
	num(&c.MaxClients, 4_096)
	num(&c.MaxStreams, 256)
	num(&c.MaxBulk, 16)
	num(&c.MaxHandshakes, 256)
	num(&c.MaxCalls, 256)
	if c.Heartbeat <= 0 {
		c.Heartbeat = lease.DefaultInterval
	}
	if c.Silence <= 0 {
		c.Silence = 3 * time.Second
	}
	if c.Listen == "" {
		c.Listen = "127.0.0.1:0"
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if c.Spawn == nil {
		c.Spawn = c.System.Root.SpawnNamed
	}
}

// checkListen refuses an address that others can reach, unless connections are
// secured.
func checkListen(addr string, secured bool) error {
	if addr == "" {
		return nil
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return &partition.Error{Code: partition.CodeInvalid, Why: "listen address " + addr + ": " + err.Error(), Next: "give host:port"}
	}
	if secured || loopback(host) {
		return nil
	}
	return &partition.Error{
		Code: partition.CodeRefused,
		Why:  "listening on " + addr + " would let anybody on the network in: it is not a loopback address and there are no certificates",
		Next: "make certificates with `pando cert` and start the node with them, or listen on 127.0.0.1",
	}
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
