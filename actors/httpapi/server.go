package httpapi

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"pando.dev/pando/partition"
)

// ServerConfig says where a Server listens. Addr is required.
type ServerConfig struct {
	Addr string // host:port; port 0 takes a free one
	// TLS, if set, must ask for client certificates without requiring them:
	// health is for everyone. Without TLS only loopback is listened on.
	TLS *tls.Config
	// MaxConns bounds open connections (default 1,024); further ones wait in
	// the kernel's queue.
	MaxConns int
	Logger   *slog.Logger // default: discard
}

// Server is a node's HTTP listener. It listens before the node has started, so
// that a taken port is known first and /livez answers meanwhile.
type Server struct {
	http     *http.Server
	listener net.Listener
	handler  atomic.Pointer[http.Handler]
	done     chan struct{} // closed when Serve's goroutine has ended
	err      error         // of Serve; valid after done
}

// Listen opens the address and serves: until SetHandler everything but /livez
// is answered unavailable.
func Listen(cfg ServerConfig) (*Server, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxConns <= 0 {
		cfg.MaxConns = 1024
	}
	if cfg.TLS == nil {
		if err := loopbackOnly(cfg.Addr); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return nil, &partition.Error{
			Code: partition.CodeRefused, Why: fmt.Sprintf("cannot listen for HTTP: %v", err),
			Next: "give another address with --http, or end the process that holds this one",
		}
	}
	s := &Server{listener: newLimitListener(l, cfg.MaxConns), done: make(chan struct{})}
	if cfg.TLS != nil {
		s.listener = tls.NewListener(s.listener, cfg.TLS)
	}
	s.SetHandler(starting())
	s.http = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			(*s.handler.Load()).ServeHTTP(w, r)
		}),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: time.Minute,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
	}
	go s.serve()
	return s, nil
}

func (s *Server) serve() {
	defer close(s.done)
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		s.err = err
	}
}

// Addr is where the server listens.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// SetHandler replaces the handler for requests that come from now on.
func (s *Server) SetHandler(h http.Handler) { s.handler.Store(&h) }

// Done is closed when the server has ended, by Shutdown or by a fault.
func (s *Server) Done() <-chan struct{} { return s.done }

// Shutdown stops listening, lets requests under way finish until ctx ends, and
// then cuts them.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		_ = s.http.Close() // the reason is in err
	}
	<-s.done
	return errors.Join(err, s.err)
}

// starting answers for a node that is not there yet.
func starting() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/livez" {
			answer(w, http.StatusOK, Health{"alive"})
			return
		}
		fail(w, &partition.Error{
			Code: partition.CodeUnavailable, Why: "the node is starting",
			Next: "wait until /readyz answers 200",
		})
	})
}

// loopbackOnly refuses an address that others could reach.
func loopbackOnly(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return invalid("give it as host:port", "HTTP address %q: %v", addr, err)
	}
	if host == "localhost" {
		return nil
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() {
		return nil
	}
	return &partition.Error{
		Code: partition.CodeRefused, Why: fmt.Sprintf("HTTP on %s would be open to others, and there are no certificates", addr),
		Next: "make certificates with pando cert and give --tls-dir, or listen on 127.0.0.1",
	}
}

// limitListener accepts only while fewer than its limit are open.
type limitListener struct {
	net.Listener
	slots  chan struct{}
	closed chan struct{}
	once   sync.Once
}

func newLimitListener(l net.Listener, limit int) *limitListener {
	return &limitListener{Listener: l, slots: make(chan struct{}, limit), closed: make(chan struct{})}
}

// Accept waits for a free slot and then for a connection.
func (l *limitListener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &limitConn{Conn: c, release: func() { <-l.slots }}, nil
}

// Close also wakes an Accept that waits for a slot.
func (l *limitListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type limitConn struct {
	net.Conn
	once    sync.Once
	release func()
}

// Close gives the slot back, once.
func (c *limitConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.release)
	return err
}
