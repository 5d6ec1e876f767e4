package link

import (
	"context"
	"net"
	"sync"
	"time"

	"pando.dev/pando/partition"
)

// stream is a raft connection that came in.
type stream struct {
	net.Conn
	from    partition.NodeID
	once    sync.Once
	release func()
}

// Close closes the connection and makes room for another.
func (s *stream) Close() error {
	s.once.Do(s.release)
	return s.Conn.Close()
}

// DialStream opens a raft connection to a node. The timeout covers the
// handshake, too.
func (l *Links) DialStream(n partition.NodeID, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(l.ctx, timeout)
	defer cancel()
	return l.dialNode(ctx, n, classStream)
}

// AcceptStream waits for the next raft connection. After Close it returns
// net.ErrClosed.
func (l *Links) AcceptStream() (net.Conn, error) {
	select {
	case c := <-l.streams:
		return c, nil
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	}
}
