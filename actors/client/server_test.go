package client

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pando.dev/pando/partition"
)

// echo is a backend that answers with the command, when it is let to.
type echo struct {
	mu    sync.Mutex
	held  []func()
	hold  bool
	twice bool
	size  int // of a read's answer
}

func (e *echo) Propose(r *Request, reply func(*Response)) { e.answer(&Response{Body: r.Body}, reply) }

func (e *echo) Read(_ *Request, reply func(*Response)) {
	e.answer(&Response{Body: make([]byte, e.size)}, reply)
}

func (e *echo) answer(r *Response, reply func(*Response)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.hold {
		e.held = append(e.held, func() { reply(r) })
		return
	}
	reply(r)
	if e.twice {
		reply(&Response{})
	}
}

func (e *echo) release() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := len(e.held)
	for _, f := range e.held {
		f()
	}
	e.held = nil
	return n
}

func (e *echo) Route(uint64) (*Routes, time.Duration, error) {
	return nil, -1, errors.New("no catalog")
}

// served is a server on one end of a pipe.
type served struct {
	net.Conn
	stats  *ServerStats
	frames frameReader
	ended  chan error
}

func serve(b Backend, cfg ServerConfig) *served {
	near, far := net.Pipe()
	s := &served{Conn: near, stats: &ServerStats{}, frames: frameReader{src: near, limit: maxResponseFrame}, ended: make(chan error, 1)}
	cfg.Stats = s.stats
	go func() { s.ended <- Serve(far, b, cfg) }()
	return s
}

// send writes without waiting for the server to read.
func (s *served) send(b []byte) {
	go func() { _, _ = s.Write(b) }() // it fails when the server hangs up, as it shall
}

func (s *served) next(t *testing.T) Response {
	t.Helper()
	f, err := s.frames.next()
	if err != nil {
		t.Fatal(err)
	}
	var r Response
	if err := parseResponse(f, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func (s *served) stop(t *testing.T) {
	t.Helper()
	s.Close()
	if err := <-s.ended; err != nil {
		t.Error(err)
	}
	if n := s.stats.Connections.Load(); n != 0 {
		t.Errorf("%d connections", n)
	}
}

// Frames that are none end the connection with a reason and a count; the
// process lives, and no backend sees anything.
func TestHostileFrames(t *testing.T) {
	req, resp := sampleRequest(), sampleResponse()
	good := appendRequest(nil, &req)
	length := func(n uint32) []byte {
		b := bytes.Clone(good)
		binary.LittleEndian.PutUint32(b[4:], n)
		return b
	}
	hostile := map[string][]byte{
		"length 0": length(0), "length 1": length(1), "length too large": length(maxRequestFrame + 1),
		"length all ones": length(1<<32 - 1), "length one short": length(uint32(len(good) - prefixBytes - 1)),
		"a response": appendResponse(nil, &resp),
		"http":       []byte("GET /api/v1/status HTTP/1.1\r\nHost: x\r\n\r\n"),
		"zeros":      make([]byte, 200), "ones": bytes.Repeat([]byte{255}, 200),
		"newer version":  resealed(good, func(b []byte) { b[0] = Version + 1 }),
		"version 0":      resealed(good, func(b []byte) { b[0] = 0 }),
		"type 9":         resealed(good, func(b []byte) { b[1] = 9 }),
		"key too long":   resealed(good, func(b []byte) { binary.LittleEndian.PutUint32(b[56:], MaxKeyBytes+1) }),
		"key past end":   resealed(good, func(b []byte) { binary.LittleEndian.PutUint32(b[56:], uint32(len(b))) }),
		"key all ones":   resealed(good, func(b []byte) { binary.LittleEndian.PutUint32(b[56:], 1<<32-1) }),
		"header cut":     seal(bytes.Clone(good[:prefixBytes+requestHeaderBytes-1]), 0),
		"two bytes":      seal(append(make([]byte, prefixBytes), Version, typeRequest), 0),
		"good, then bad": append(bytes.Clone(good), length(1)...),
	}
	for bit := 0; bit < len(good)*8; bit += 7 {
		if bit/8 >= 4 && bit/8 < 8 {
			continue // lengths are above
		}
		b := bytes.Clone(good)
		b[bit/8] ^= 1 << (bit % 8)
		hostile[fmt.Sprintf("bit %d", bit)] = b
	}
	if len(hostile) < 60 {
		t.Fatalf("only %d frames", len(hostile))
	}
	for name, frame := range hostile {
		s := serve(&echo{}, ServerConfig{})
		s.send(frame)
		last := Response{}
		for {
			f, err := s.frames.next()
			if err != nil {
				break
			}
			if err := parseResponse(f, &last); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		want := partition.CodeCorrupt
		if name == "newer version" {
			want = partition.CodeNewerFormat
		}
		if last.ID != 0 || last.Code != want || last.Why == "" {
			t.Errorf("%s: last answer %+v", name, last)
		}
		if err := <-s.ended; partition.CodeOf(err) != want {
			t.Errorf("%s: served until %v", name, err)
		}
		if n := s.stats.BadFrames.Load(); n != 1 {
			t.Errorf("%s: counted %d times", name, n)
		}
		s.Close()
	}
}

// Requests that are well formed and make no sense are refused one by one, and
// the connection goes on.
func TestSenselessRequests(t *testing.T) {
	s := serve(&echo{}, ServerConfig{})
	defer s.stop(t)
	for name, spoil := range map[string]func(r *Request){
		"no group":        func(r *Request) { r.Group = 0 },
		"operation":       func(r *Request) { r.Op = 99 },
		"no operation":    func(r *Request) { r.Op = 0 },
		"index by lease":  func(r *Request) { r.Op, r.Level, r.MinIndex = OpRead, Lease, 1 },
		"age in session":  func(r *Request) { r.Op, r.Level, r.MaxAge = OpRead, Session, time.Second },
		"unknown level":   func(r *Request) { r.Op, r.Level = OpRead, 77 },
		"number only":     func(r *Request) { r.Session = partition.SessionID{} },
		"session only":    func(r *Request) { r.Seq = 0 },
		"unknown catalog": func(r *Request) { r.Op = OpRoutes },
	} {
		r := sampleRequest()
		spoil(&r)
		s.send(appendRequest(nil, &r))
		got := s.next(t)
		want := partition.CodeInvalid
		if name == "unknown catalog" {
			want = partition.CodeInternal
		}
		if got.ID != r.ID || got.Code != want {
			t.Errorf("%s: %+v", name, got)
		}
	}
	r := sampleRequest()
	s.send(appendRequest(nil, &r))
	if got := s.next(t); got.Code != 0 || string(got.Body) != "command" {
		t.Errorf("%+v", got)
	}
	if n := s.stats.Refused.Load(); n != 8 {
		t.Errorf("%d refused", n)
	}
}

func requests(n int, op Op) []byte {
	var b []byte
	for i := range n {
		r := sampleRequest()
		r.ID, r.Op = uint64(i+1), op
		b = appendRequest(b, &r)
	}
	return b
}

// At its bound of requests in flight the server stops reading, and goes on when
// answers came.
func TestServerThrottles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &echo{hold: true}
		s := serve(e, ServerConfig{MaxInFlight: 10})
		s.send(requests(25, OpPropose))
		for _, want := range []int{10, 10, 5} {
			synctest.Wait()
			if n := e.release(); n != want {
				t.Fatalf("%d requests at the backend, want %d", n, want)
			}
			for range want {
				s.next(t)
			}
		}
		if n := s.stats.Throttled.Load(); n != 2 {
			t.Errorf("throttled %d times", n)
		}
		s.stop(t)
	})
}

// A client that does not fetch its answers is refused further reads, and let go
// after the write timeout; nothing grows without bound.
func TestServerSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &echo{hold: true, size: 1000}
		s := serve(e, ServerConfig{MaxQueuedBytes: 4000, WriteTimeout: time.Second})
		s.send(requests(50, OpRead))
		synctest.Wait()
		e.release()
		synctest.Wait()
		if n := s.stats.SlowReaders.Load(); n == 0 {
			t.Error("no read was refused")
		}
		if err := <-s.ended; err == nil {
			t.Error("the write timeout is no reason")
		}
		s.Close()
	})
}

// A second answer is counted and dropped.
func TestDoubleReply(t *testing.T) {
	s := serve(&echo{twice: true}, ServerConfig{})
	s.send(requests(3, OpPropose))
	for i := range 3 {
		if r := s.next(t); r.ID != uint64(i+1) || string(r.Body) != "command" {
			t.Errorf("%+v", r)
		}
	}
	s.stop(t)
	if n := s.stats.DoubleReply.Load(); n != 3 {
		t.Errorf("%d double replies", n)
	}
}

// Silence ends a connection: soon within a frame, late between two.
func TestServerDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, x := range []struct {
			sent []byte
			want time.Duration
		}{{nil, time.Minute}, {requests(1, OpPropose)[:20], time.Second}} {
			s := serve(&echo{}, ServerConfig{IdleTimeout: time.Minute, FrameTimeout: time.Second})
			began := time.Now()
			if x.sent != nil {
				s.send(x.sent)
			}
			if err := <-s.ended; err == nil || time.Since(began) != x.want {
				t.Errorf("%d bytes: ended after %s: %v", len(x.sent), time.Since(began), err)
			}
			s.Close()
		}
	})
}

// A connection that ends within a frame is not a clean end.
func TestServerCutOff(t *testing.T) {
	s := serve(&echo{}, ServerConfig{})
	if _, err := s.Write(requests(1, OpPropose)[:20]); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if err := <-s.ended; !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
}

// A server that answers nonsense loses the connection, and the client the
// attempt, nothing else.
func TestHostileServer(t *testing.T) {
	resp := sampleResponse()
	good := appendResponse(nil, &resp)
	for name, frame := range map[string][]byte{
		"zeros":      make([]byte, 64),
		"no request": appendResponse(nil, &Response{ID: 99}),
		"id 0":       appendResponse(nil, &Response{}),
		"refused":    appendResponse(nil, &Response{Code: partition.CodeBusy, Why: "too many connections"}),
		"why":        resealed(good, func(b []byte) { binary.LittleEndian.PutUint16(b[4:], 65535) }),
		"next":       resealed(good, func(b []byte) { binary.LittleEndian.PutUint16(b[6:], MaxReasonBytes+1) }),
		"master":     resealed(good, func(b []byte) { b[24] = 255 }),
		"newer":      resealed(good, func(b []byte) { b[0] = Version + 1 }),
		"routes":     appendResponse(nil, &Response{ID: 1, Body: []byte("these are no routes")}),
	} {
		t.Log(name)
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(t, 1)
			bad := true
			dial := c.dial
			cfg := c.config()
			cfg.Addrs = cfg.Addrs[:1]
			var mu sync.Mutex
			cfg.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
				mu.Lock()
				defer mu.Unlock()
				if !bad {
					return dial(ctx, addr)
				}
				bad = false
				near, far := net.Pipe()
				go func() {
					_, _ = far.Write(frame) // the client may hang up before
					_, _ = io.Copy(io.Discard, far)
				}()
				return near, nil
			}
			cl := c.open(cfg)
			mustPropose(t, cl, "a", "x")
			cl.Close()
		})
	}
}
