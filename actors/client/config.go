package client

import (
	"context"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"pando.dev/pando/partition"
)

// Dialer opens a connection to a node's client address. The context bounds the
// attempt, not the connection.
type Dialer func(ctx context.Context, addr string) (net.Conn, error)

// Config is how a client is made. Dial and Addrs, or Local, are required; the
// zero value of every other field works.
type Config struct {
	// Addrs are nodes to ask for the routes at first, and again when no node
	// that the routes name answers. One that works is enough.
	Addrs []string
	Dial  Dialer
	// Local, if its Backend is set, is the node whose process the client is in.
	Local Local

	// Zone is where the client is: of several replicas that may answer a read, one
	// in this zone is asked first. A client inside a node asks its node first.
	Zone string

	// Logger gets lost connections and failed refreshes at debug level.
	Logger *slog.Logger

	// Stats, if set, is counted into.
	Stats *Stats

	// Timeout bounds an operation whose context has no deadline (default 10 s).
	Timeout time.Duration
	// AttemptTimeout is how long one node is waited for before the request is
	// sent again, to another member if there is one (default 1 s, doubled with
	// each expiry up to 4 times that). A dead process is noticed by its closed
	// connections, without any wait; this is for frozen ones. Shorter values
	// fail over faster and send more duplicates when the disks are slow.
	AttemptTimeout time.Duration
	// DialTimeout bounds one attempt to connect (default 2 s).
	DialTimeout time.Duration
	// WriteTimeout bounds one write to a connection (default 10 s).
	WriteTimeout time.Duration
	// RefreshInterval is the least time between two refreshes of the routes
	// (default 20 ms). However many calls need one, only one runs at a time.
	RefreshInterval time.Duration
	// MaxInFlight bounds the operations that have begun and not ended, and
	// MaxInFlightBytes their keys and bodies (defaults 4,096 and 64 MiB); more
	// are refused with CodeBusy.
	MaxInFlight, MaxInFlightBytes int
	// MaxSessions bounds the sessions with one group (default 16). Each takes
	// 64 commands at a time; more wait for their turn.
	MaxSessions int
}

// Stats counts what clients did.
type Stats struct {
	Attempts  atomic.Uint64 // requests sent, every retry included
	Redirects atomic.Uint64 // answers that named another master or group
	Lost      atomic.Uint64 // requests that got no answer
	BackOffs  atomic.Uint64 // waits before another attempt
	Refreshes atomic.Uint64 // questions for the routes
	Sessions  atomic.Uint64 // sessions opened
	Unknown   atomic.Uint64 // operations that ended with CodeUnknown
	Behind    atomic.Uint64 // answers of replicas that were too far behind for a read
}

// Local makes a client skip the socket for one node.
type Local struct {
	Node    partition.NodeID
	Backend Backend
}

func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Stats == nil {
		c.Stats = new(Stats)
	}
	c.Timeout = orDefault(c.Timeout, 10*time.Second)
	c.AttemptTimeout = orDefault(c.AttemptTimeout, time.Second)
	c.DialTimeout = orDefault(c.DialTimeout, 2*time.Second)
	c.WriteTimeout = orDefault(c.WriteTimeout, 10*time.Second)
	c.RefreshInterval = orDefault(c.RefreshInterval, 20*time.Millisecond)
	c.MaxInFlight = orDefault(c.MaxInFlight, 4096)
	c.MaxInFlightBytes = orDefault(c.MaxInFlightBytes, 64<<20)
	c.MaxSessions = orDefault(c.MaxSessions, 16)
	return c
}

func (c Config) validate() error {
	switch {
	case c.Local.Backend != nil && c.Local.Node == "":
		return partition.Errorf(partition.CodeInvalid, "local backend without a node id")
	case c.Local.Backend == nil && (c.Dial == nil || len(c.Addrs) == 0):
		return &partition.Error{
			Code: partition.CodeInvalid, Why: "no node to ask: neither addresses with a dialer nor a local node",
			Next: "set Addrs and Dial, or Local",
		}
	}
	return nil
}
