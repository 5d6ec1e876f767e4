package control

import (
	"errors"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"pando.dev/pando/partition"
)

// maxStreams bounds the library's streams on one seat. Each other seat opens a
// few.
const maxStreams = 64

// streams gives the library its streams over the links. Seats are named by node
// id, so a node that moves to another address stays the seat it is.
type streams struct {
	t    Transport
	self nodeAddr

	mu     sync.Mutex
	open   map[*trackedConn]struct{}
	closed bool
}

var _ raft.StreamLayer = (*streams)(nil)

// nodeAddr is a node id where a network address is wanted.
type nodeAddr partition.NodeID

// Network implements net.Addr.
func (nodeAddr) Network() string { return "node" }

// String implements net.Addr.
func (a nodeAddr) String() string { return string(a) }

// Dial opens a stream to another seat.
func (s *streams) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	c, err := s.t.Dial(partition.NodeID(to), timeout)
	if err != nil {
		return nil, err
	}
	return s.track(c)
}

// Accept returns the next stream of another seat.
func (s *streams) Accept() (net.Conn, error) {
	c, err := s.t.Accept()
	if err != nil {
		return nil, err
	}
	return s.track(c)
}

// Addr is this node's id.
func (s *streams) Addr() net.Addr { return s.self }

// Close ends Accept and closes every stream: the library leaves those open that
// others opened.
func (s *streams) Close() error {
	err := s.t.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for c := range s.open {
		err = errors.Join(err, c.Conn.Close())
	}
	clear(s.open)
	return err
}

func (s *streams) track(c net.Conn) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.open) >= maxStreams {
		c.Close()
		return nil, partition.Errorf(partition.CodeBusy, "control group: no more than %d streams", maxStreams)
	}
	t := &trackedConn{Conn: c, owner: s}
	s.open[t] = struct{}{}
	return t, nil
}

type trackedConn struct {
	net.Conn
	owner *streams
}

// Close closes the stream; closing it again does nothing.
func (c *trackedConn) Close() error {
	c.owner.mu.Lock()
	delete(c.owner.open, c)
	c.owner.mu.Unlock()
	return c.Conn.Close()
}
