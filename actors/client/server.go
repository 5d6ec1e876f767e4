package client

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"pando.dev/pando/partition"
)

// ServerConfig is how Serve treats its connection. The zero value works.
type ServerConfig struct {
	// Logger gets one line for a connection that ends because of bad frames.
	Logger *slog.Logger
	// Stats, if set, is counted into; it may be shared by all connections.
	Stats *ServerStats
	// MaxInFlight bounds the requests of this connection that are not answered
	// (default 4,096). At the bound the server stops reading, which pushes back
	// through the transport.
	MaxInFlight int
	// MaxQueuedBytes bounds the answers that wait to be written (default 16
	// MiB). Above a quarter of it the server stops reading; above it, reads are
	// answered CodeBusy.
	MaxQueuedBytes int
	// IdleTimeout ends a connection on which nothing comes (default 10 min).
	IdleTimeout time.Duration
	// FrameTimeout bounds the wait for the rest of a frame, and WriteTimeout
	// one write (defaults 10 s).
	FrameTimeout, WriteTimeout time.Duration
}

func (c ServerConfig) withDefaults() ServerConfig {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Stats == nil {
		c.Stats = new(ServerStats)
	}
	c.MaxInFlight = orDefault(c.MaxInFlight, 4096)
	c.MaxQueuedBytes = orDefault(c.MaxQueuedBytes, 16<<20)
	c.IdleTimeout = orDefault(c.IdleTimeout, 10*time.Minute)
	c.FrameTimeout = orDefault(c.FrameTimeout, 10*time.Second)
	c.WriteTimeout = orDefault(c.WriteTimeout, 10*time.Second)
	return c
}

func orDefault[T int | time.Duration](v, d T) T {
	if v <= 0 {
		return d
	}
	return v
}

// ServerStats counts what servers did since the start.
type ServerStats struct {
	Connections  atomic.Int64  // open now
	Requests     atomic.Uint64 // handed to the backend
	Refused      atomic.Uint64 // answered without asking the backend
	BadFrames    atomic.Uint64 // connections ended by a frame that was none
	Throttled    atomic.Uint64 // how often reading stopped at a bound
	DoubleReply  atomic.Uint64 // answers given twice: a defect of the backend
	SlowReaders  atomic.Uint64 // reads refused because answers were not fetched
	BytesRead    atomic.Uint64
	BytesWritten atomic.Uint64
}

// Serve answers the requests that come over conn until it ends, then closes it
// and returns why: nil when the client closed it between two frames. It blocks;
// to end it, close conn. Answers given by the backend afterwards are dropped.
func Serve(conn net.Conn, b Backend, cfg ServerConfig) error {
	s := &server{conn: conn, backend: b, cfg: cfg.withDefaults()}
	s.more.L, s.room.L = &s.mu, &s.mu
	s.cfg.Stats.Connections.Add(1)
	defer s.cfg.Stats.Connections.Add(-1)

	written := make(chan struct{})
	go func() {
		defer close(written)
		s.write()
	}()
	err := s.read()
	if bad, ok := corrupt(err); ok {
		s.cfg.Stats.BadFrames.Add(1)
		s.cfg.Logger.Warn("client connection ended by a bad frame", "remote_addr", remote(conn), "err", bad)
		s.answer(0, ErrorResponse(bad))
	}
	s.close(false)
	<-written
	conn.Close()
	if err != nil {
		return fmt.Errorf("serve client %s: %w", remote(conn), err)
	}
	return nil
}

func remote(conn net.Conn) string {
	if a := conn.RemoteAddr(); a != nil {
		return a.String()
	}
	return "unknown"
}

// server is one connection. Its reader hands requests to the backend, its
// writer sends all answers that have come in one write.
type server struct {
	conn    net.Conn
	backend Backend
	cfg     ServerConfig

	mu       sync.Mutex
	more     sync.Cond // there are answers, or the end
	room     sync.Cond // a bound is no longer reached, or the end
	out      []byte    // encoded answers, not yet taken by the writer
	inFlight int       // requests handed out and not answered
	closing  bool      // no more answers are taken; the writer ends after out
	dead     bool      // the connection cannot be written
}

// exchange is one request at the backend.
type exchange struct {
	Request
	s        *server
	answered atomic.Bool
}

// exchangesPerSlab is how many exchanges are allocated at once.
const exchangesPerSlab = 16

func (s *server) read() error {
	frames := frameReader{src: s.conn, limit: maxRequestFrame, keep: true, before: s.beforeRead}
	var slab []exchange
	for {
		f, err := frames.next()
		if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		s.cfg.Stats.BytesRead.Add(uint64(len(f)))
		if len(slab) == 0 {
			slab = make([]exchange, exchangesPerSlab)
		}
		x := &slab[0]
		slab = slab[1:]
		x.s = s
		if bad := parseRequest(f, &x.Request); bad != nil {
			return bad
		}
		if !s.begin() {
			return nil
		}
		s.dispatch(x)
	}
}

// beforeRead sets the deadline of one read. If it cannot be set the connection
// has ended, which the read will say.
func (s *server) beforeRead(within bool) {
	wait := s.cfg.IdleTimeout
	if within {
		wait = s.cfg.FrameTimeout
	}
	_ = s.conn.SetReadDeadline(time.Now().Add(wait))
}

// begin waits until the next request is within the bounds; false means that the
// connection ends. The wait is bounded by the write timeout (answers that are
// not fetched) and by the backend's promise to answer.
func (s *server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	full := func() bool { return s.inFlight >= s.cfg.MaxInFlight || len(s.out) > s.cfg.MaxQueuedBytes/4 }
	if full() && !s.dead {
		s.cfg.Stats.Throttled.Add(1)
		for full() && !s.dead {
			s.room.Wait()
		}
	}
	s.inFlight++
	return !s.dead
}

func (s *server) dispatch(x *exchange) {
	if err := x.check(); err != nil {
		s.cfg.Stats.Refused.Add(1)
		x.reply(ErrorResponse(err))
		return
	}
	s.cfg.Stats.Requests.Add(1)
	switch x.Op {
	case OpRoutes:
		x.reply(routesResponse(s.backend, uint64(x.RangeVersion)))
	case OpRead:
		s.backend.Read(&x.Request, x.reply)
	default:
		s.backend.Propose(&x.Request, x.reply)
	}
}

// routesResponse answers OpRoutes.
func routesResponse(b Backend, have uint64) *Response {
	routes, age, err := b.Route(have)
	if err != nil {
		return ErrorResponse(err)
	}
	out := &Response{Age: max(age, 0), AgeKnown: age >= 0}
	if routes == nil || routes.Version <= have {
		return out
	}
	body, err := AppendRoutes(nil, routes)
	if err != nil {
		return ErrorResponse(err)
	}
	out.Body = body
	return out
}

// reply is called by the backend, from any goroutine.
func (x *exchange) reply(r *Response) {
	if x.answered.Swap(true) {
		x.s.cfg.Stats.DoubleReply.Add(1)
		return
	}
	if x.Op == OpRead && len(r.Body) > 0 && x.s.overfull() {
		x.s.cfg.Stats.SlowReaders.Add(1)
		r = ErrorResponse(partition.Errorf(partition.CodeBusy, "more than %d bytes of answers wait to be fetched", x.s.cfg.MaxQueuedBytes))
	}
	x.s.answer(1, &Response{ID: x.ID, Code: r.Code, Index: r.Index, Body: r.Body, Why: r.Why, Next: r.Next, Master: r.Master, Age: r.Age, AgeKnown: r.AgeKnown})
}

func (s *server) overfull() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.out) > s.cfg.MaxQueuedBytes
}

// answer queues a response that ends n requests.
func (s *server) answer(n int, r *Response) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inFlight -= n
	s.room.Signal()
	if s.closing || s.dead {
		return
	}
	s.out = appendResponse(s.out, r)
	s.more.Signal()
}

// close tells the writer to end: after what is queued, or, if dead, at once.
func (s *server) close(dead bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
	s.dead = s.dead || dead
	s.more.Broadcast()
	s.room.Broadcast()
}

// write is the writer: it takes everything that is queued and writes it at
// once. It owns the buffer that it writes; answers go into the other one.
func (s *server) write() {
	var spare []byte
	for {
		s.mu.Lock()
		for len(s.out) == 0 && !s.closing {
			s.more.Wait()
		}
		b := s.out
		s.out = spare[:0]
		s.room.Signal()
		s.mu.Unlock()
		if len(b) == 0 {
			return
		}
		if err := writeAll(s.conn, b, s.cfg.WriteTimeout); err != nil {
			s.close(true)
			s.conn.Close() // ends the reader
			return
		}
		s.cfg.Stats.BytesWritten.Add(uint64(len(b)))
		spare = recycle(b)
	}
}

// maxRecycledBytes is the largest write buffer that is kept for the next write.
const maxRecycledBytes = 1 << 20

func recycle(b []byte) []byte {
	if cap(b) > maxRecycledBytes {
		return nil
	}
	return b
}

func writeAll(conn net.Conn, b []byte, timeout time.Duration) error {
	if err := conn.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	_, err := conn.Write(b)
	return err
}
