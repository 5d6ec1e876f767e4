package link

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/lease"
)

// badConn is a connection whose n-th operation and all after it fail.
type badConn struct {
	net.Conn
	mu  sync.Mutex
	at  int // from 1; 0: none
	ops int
}

// next counts an operation, and fails it if it is its turn.
func (c *badConn) next() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ops++; c.at > 0 && c.ops >= c.at {
		_ = c.Conn.Close() // as a connection that broke
		return syscall.ECONNRESET
	}
	return nil
}

func (c *badConn) met() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at > 0 && c.ops >= c.at
}

func (c *badConn) Read(b []byte) (int, error) {
	if err := c.next(); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}

func (c *badConn) Write(b []byte) (int, error) {
	if err := c.next(); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

func (c *badConn) SetDeadline(t time.Time) error {
	if err := c.next(); err != nil {
		return err
	}
	return c.Conn.SetDeadline(t)
}

func (c *badConn) SetWriteDeadline(t time.Time) error {
	if err := c.next(); err != nil {
		return err
	}
	return c.Conn.SetWriteDeadline(t)
}

// loopbackPair is a connection over real sockets, with buffers of its own.
func loopbackPair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// TestEachStepOfAHandshake: whichever operation of a connection fails while it is
// taken in, nothing of it stays: no place in a gate, no open connection, and the
// next one is served.
func TestEachStepOfAHandshake(t *testing.T) {
	n := startNode(t, newBook(), "a", 1, func(c *Config) {
		c.OnClient = func(conn net.Conn, _ Peer) { _, _ = io.Copy(conn, conn) }
		c.OnBulk = func(_ partition.NodeID, b *Bulk) { _, _ = io.Copy(io.Discard, b) }
	})
	for _, class := range []class{classClient, classStream, classBulk, classControl} {
		for at := 1; ; at++ {
			ours, theirs := loopbackPair(t)
			c := &badConn{Conn: ours, at: at}
			if !n.handshakes.enter() || !n.track(c) {
				t.Fatal("no place for a handshake")
			}
			go func() {
				_, err := greet(theirs, hello{class: class, cluster: "c", from: "b", boot: uint64(at), session: uint64(at), to: "a"}, time.Second)
				if err == nil && class == classStream {
					if s, err := n.AcceptStream(); err == nil {
						s.Close()
					}
				}
				theirs.Close()
			}()
			served := make(chan struct{})
			go func() {
				defer close(served)
				n.welcomeConn(c)
			}()
			select {
			case <-served:
			case <-time.After(wait):
				t.Fatalf("%v, operation %d: it is served for ever", class, at)
			}
			n.mu.Lock()
			stays := n.open[c]
			n.mu.Unlock()
			if len(n.handshakes) != 0 || len(n.clients) != 0 || stays {
				t.Errorf("%v, operation %d: %d handshakes, %d clients, open %v", class, at, len(n.handshakes), len(n.clients), stays)
			}
			if !c.met() || at > 12 { // a connection that was handed over fails on its own
				break
			}
		}
	}
	conn, err := DialClient(t.Context(), n.Addr(), ClientConfig{Cluster: "c", Node: "a"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		t.Error(err)
	}
	conn.Close()
}

// TestEachStepOfADial: whichever operation fails while a connection is made, who
// dials is told, and no answer that is cut or changed is taken.
func TestEachStepOfADial(t *testing.T) {
	n := startNode(t, newBook(), "a", 1, func(c *Config) {
		c.OnClient = func(conn net.Conn, _ Peer) { _, _ = io.Copy(conn, conn) }
	})
	h := hello{class: classClient, cluster: "c", to: "a"}
	for at := 1; ; at++ {
		raw, err := net.Dial("tcp", n.Addr())
		if err != nil {
			t.Fatal(err)
		}
		c := &badConn{Conn: raw, at: at}
		_, _, err = introduce(t.Context(), c, h, nil, time.Second)
		raw.Close()
		if !c.met() {
			if err != nil || at < 4 {
				t.Errorf("with all in order after %d operations: %v", at-1, err)
			}
			break
		}
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("operation %d: %v", at, err)
		}
	}
	good := (&welcome{boot: 1, node: "a"}).encode()
	for i := range good {
		for what, b := range map[string][]byte{"cut": good[:i], "changed": append(append(append([]byte(nil), good[:i]...), good[i]^0x55), good[i+1:]...)} {
			ours, theirs := net.Pipe()
			go func() {
				_, _ = theirs.Read(make([]byte, 1024))
				_, _ = theirs.Write(b) // it may be gone
				theirs.Close()
			}()
			if _, err := greet(ours, h, time.Second); err == nil {
				t.Errorf("a welcome %s at byte %d was taken", what, i)
			}
			ours.Close()
		}
	}
	malformed := seal(append(make([]byte, helloHead, 64), 0), welcomeMagic)
	ours, theirs := net.Pipe()
	go func() {
		_, _ = theirs.Read(make([]byte, 1024))
		_, _ = theirs.Write(malformed)
		theirs.Close()
	}()
	var r *RefusedError
	if _, err := greet(ours, h, time.Second); !errors.As(err, &r) || r.Refusal != RefusedMalformed {
		t.Errorf("a welcome that says nothing: %v", err)
	}
	ours.Close()
	for addr, want := range map[string]partition.Code{"nowhere": partition.CodeInvalid, "192.0.2.1:1": partition.CodeRefused} {
		if _, err := DialClient(t.Context(), addr, ClientConfig{Cluster: "c"}); partition.CodeOf(err) != want {
			t.Errorf("%s: %v", addr, err)
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := DialClient(gone, n.Addr(), ClientConfig{Cluster: "c"}); !errors.Is(err, context.Canceled) {
		t.Errorf("without time: %v", err)
	}
}

// TestTransferThatBreaks: a write that fails ends the transfer, for the writer, the
// reader and whoever writes after it.
func TestTransferThatBreaks(t *testing.T) {
	n := startNode(t, newBook(), "a", 1, nil)
	for at := 1; at <= 4; at++ {
		ours, theirs := loopbackPair(t)
		c := &badConn{Conn: ours, at: 0}
		b := n.newBulk(c, func() {})
		other := n.newBulk(theirs, func() {})
		go func() { _, _ = io.Copy(io.Discard, other) }()
		if _, err := b.Write([]byte("begin")); err != nil {
			t.Fatal(err)
		}
		c.mu.Lock()
		c.ops, c.at = 0, at
		c.mu.Unlock()
		var err error
		for i := 0; err == nil && i < 100; i++ {
			_, err = b.Write(make([]byte, 1000))
		}
		if err == nil {
			t.Errorf("operation %d: everything was written", at)
		}
		if _, again := b.Write([]byte("x")); again == nil {
			t.Errorf("operation %d: written behind the end", at)
		}
		if _, read := b.Read(make([]byte, 1)); read == nil {
			t.Errorf("operation %d: read behind the end", at)
		}
		b.keepAlive() // of a transfer that is over it says nothing
		b.Close()
		other.Close()
	}
}

// stubborn is a listener that fails before it accepts, as a system without free
// descriptors does.
type stubborn struct {
	net.Listener
	mu    sync.Mutex
	fails int
}

func (s *stubborn) Accept() (net.Conn, error) {
	s.mu.Lock()
	s.fails--
	left := s.fails
	s.mu.Unlock()
	if left >= 0 {
		return nil, syscall.EMFILE
	}
	return s.Listener.Accept()
}

// TestListensOn: a listener that fails for a while, a handler that panics and a
// configuration that cannot work end no node, and no node is begun with the last.
func TestListensOn(t *testing.T) {
	n := startNode(t, newBook(), "a", 1, func(c *Config) {
		c.OnClient = func(net.Conn, Peer) { panic("the handler is broken") }
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	x := &Links{c: n.c, listener: &stubborn{Listener: l, fails: 2}, handshakes: newGate(1), clients: newGate(1), open: map[net.Conn]bool{}}
	x.ctx, x.cancel = context.WithCancel(t.Context())
	x.peers.Store(&map[partition.NodeID]*link{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		x.accept()
	}()
	conn, err := DialClient(t.Context(), l.Addr().String(), ClientConfig{Cluster: "c"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("a handler that panicked said something")
	}
	conn.Close()
	l.Close()
	<-done
	x.wg.Wait()
	if bad := x.n.bad[badPanic].Load(); bad != 1 || len(x.open) != 0 || len(x.handshakes) != 0 || len(x.clients) != 0 {
		t.Errorf("%d panics, %d open, %d handshakes, %d clients", bad, len(x.open), len(x.handshakes), len(x.clients))
	}
	x.listener = &stubborn{Listener: l, fails: 1}
	x.cancel()
	x.accept() // it rests no longer than the node lives
	for name, spoil := range map[string]func(*Config){
		"no node": func(c *Config) { c.Node = "" }, "a taken address": func(c *Config) { c.Listen, c.System = n.Addr(), newSystem() },
		"another system's address": func(c *Config) { c.Node = "b" },
	} {
		c := n.c
		spoil(&c)
		if links, err := Start(c); err == nil {
			links.Close()
			t.Errorf("%s: it was started", name)
		} else if partition.CodeOf(err) == 0 {
			t.Errorf("%s: %v", name, err)
		}
		if c.System != n.c.System {
			c.System.Shutdown()
		}
	}
}

// noTLS secures nothing: nobody comes that far.
type noTLS struct{ TLS }

// TestConnectionThatIsGone: what is begun on a connection that broke before ends at
// once and says why, and what is cut in a frame is told from an end between frames.
func TestConnectionThatIsGone(t *testing.T) {
	gone, other := net.Pipe()
	_, _ = gone.Close(), other.Close()
	tune(&net.TCPConn{}, time.Second) // must not panic
	if _, _, err := introduce(t.Context(), gone, hello{}, noTLS{}, time.Second); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("introduced: %v", err)
	}
	frame := (&Frame{Kind: KindAppend, Group: 1}).appendHeader(nil, 2*maxChunk, 0)
	for name, x := range map[string]struct {
		bytes int
		want  error
	}{"between frames": {0, io.EOF}, "in a frame": {HeaderBytes - 1, io.ErrUnexpectedEOF}} {
		ours, theirs := loopbackPair(t)
		if _, err := theirs.Write(frame[:x.bytes]); err != nil {
			t.Fatal(err)
		}
		theirs.Close()
		f := frameReader{conn: ours, class: classData}
		if _, err := f.next(); !errors.Is(err, x.want) {
			t.Errorf("an end %s: %v", name, err)
		}
	}
	f := frameReader{conn: gone, class: classData, silence: time.Second, chunk: frame[:HeaderBytes:HeaderBytes], w: HeaderBytes}
	if _, err := f.next(); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a large frame: %v", err)
	}
}

// TestTypesThatAreNone: nobody listens for messages that could not be read.
func TestTypesThatAreNone(t *testing.T) {
	c := Config{System: newSystem(), Node: "a", Boot: 1, Cluster: "c", Types: []Type{{ID: 1}}}
	c.Resolve = newBook().resolve
	c.Now = func() partition.Time { return 0 }
	c.Leases = lease.New(lease.Config{Self: "a", Boot: 1, Now: c.Now})
	if l, err := Start(c); partition.CodeOf(err) != partition.CodeInvalid || l != nil {
		t.Errorf("%v", err)
	}
}
