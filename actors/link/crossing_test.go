package link

import (
	"errors"
	"net"
	"testing"
	"time"

	"pando.dev/pando/partition"
)

// fake is a peer that a test plays by hand.
type fake struct {
	t    *testing.T
	id   partition.NodeID
	node *node
	ln   net.Listener
}

// newFake starts a node m that wants a link to the fake peer.
func newFake(t *testing.T, id partition.NodeID) *fake {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	book := newBook()
	book.set(id, ln.Addr().String(), 5)
	f := &fake{t: t, id: id, node: startNode(t, book, "m", 1, nil), ln: ln}
	f.node.SetPeers([]partition.NodeID{id})
	return f
}

// accept takes the node's next connection as far as its hello.
func (f *fake) accept(want class) (net.Conn, hello) {
	f.t.Helper()
	c, err := f.ln.Accept()
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(wait)); err != nil {
		f.t.Fatal(err)
	}
	b, err := readSealed(c, helloMagic)
	if err != nil {
		f.t.Fatal(err)
	}
	var h hello
	if err := h.decode(b); err != nil || h.class != want || h.to != f.id || h.toBoot != 5 || h.from != "m" || h.boot != 1 {
		f.t.Fatalf("%+v, %v", h, err)
	}
	return c, h
}

func (f *fake) welcome(c net.Conn) {
	f.t.Helper()
	if _, err := c.Write((&welcome{node: f.id, boot: 5}).encode()); err != nil {
		f.t.Fatal(err)
	}
}

// takeDial lets the node's dial succeed and returns its session.
func (f *fake) takeDial() uint64 {
	f.t.Helper()
	c, h := f.accept(classControl)
	f.welcome(c)
	d, h2 := f.accept(classData)
	if h2.session != h.session {
		f.t.Errorf("session %d and %d", h.session, h2.session)
	}
	f.welcome(d)
	return h.session
}

// dial opens a connection to the node.
func (f *fake) dial(cl class, session uint64) error {
	f.t.Helper()
	c, _, err := dialTo(f.t.Context(), f.node.Addr(), hello{class: cl, session: session, cluster: "c", from: f.id, boot: 5, to: "m"}, nil, wait)
	if err == nil {
		f.t.Cleanup(func() { c.Close() })
	}
	return err
}

func (f *fake) sessionIs(id uint64) {
	f.t.Helper()
	eventually(f.t, "the right session", func() bool { s := f.node.session(f.id); return s != nil && s.id == id })
}

func refusedAs(t *testing.T, err error, want Refusal) {
	t.Helper()
	var r *RefusedError
	if !errors.As(err, &r) || r.Refusal != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// TestSmallerIDKeepsItsDial: m has dialed z; z's dial that crosses is refused.
func TestSmallerIDKeepsItsDial(t *testing.T) {
	f := newFake(t, "z")
	id := f.takeDial()
	f.node.upWith("z")
	refusedAs(t, f.dial(classControl, 77), RefusedDuplicate)
	f.sessionIs(id)
	if len(f.node.downs) != 0 {
		t.Error("the link was disturbed")
	}
}

// TestGreaterIDGivesWay: m has dialed a; a's dial that crosses replaces it.
func TestGreaterIDGivesWay(t *testing.T) {
	f := newFake(t, "a")
	f.takeDial()
	f.node.upWith("a")
	if err := errors.Join(f.dial(classControl, 77), f.dial(classData, 77)); err != nil {
		t.Fatal(err)
	}
	f.node.downWith("a")
	f.node.upWith("a")
	f.sessionIs(77)
}

// TestLateDialGivesWay: a's dial is accepted while m's own is under way; when
// that ends, m drops it, because a keeps its own.
func TestLateDialGivesWay(t *testing.T) {
	f := newFake(t, "a")
	control, _ := f.accept(classControl)
	if err := errors.Join(f.dial(classControl, 77), f.dial(classData, 77)); err != nil {
		t.Fatal(err)
	}
	f.node.upWith("a")
	f.welcome(control)
	data, _ := f.accept(classData)
	f.welcome(data)
	eventually(t, "m drops its own", func() bool { _, err := data.Read(make([]byte, 1)); return err != nil && !timedOut(err) })
	f.sessionIs(77)
	if len(f.node.downs) != 0 {
		t.Error("the link was disturbed")
	}
}

// TestLateDialWins: the same with a greater id: m's dial replaces z's.
func TestLateDialWins(t *testing.T) {
	f := newFake(t, "z")
	control, h := f.accept(classControl)
	if err := errors.Join(f.dial(classControl, 77), f.dial(classData, 77)); err != nil {
		t.Fatal(err)
	}
	f.node.upWith("z")
	f.welcome(control)
	data, _ := f.accept(classData)
	f.welcome(data)
	f.node.downWith("z")
	f.node.upWith("z")
	f.sessionIs(h.session)
}

// TestSameSideReplaces: a second dial of the same peer means that it has lost
// the first.
func TestSameSideReplaces(t *testing.T) {
	f := newFake(t, "z")
	c, _ := f.accept(classControl)
	c.Close()
	f.node.SetPeers(nil)
	if err := errors.Join(f.dial(classControl, 77), f.dial(classData, 77)); err != nil {
		t.Fatal(err)
	}
	f.sessionIs(77)
	if err := errors.Join(f.dial(classControl, 78), f.dial(classData, 78)); err != nil {
		t.Fatal(err)
	}
	f.sessionIs(78)
}

// TestDataJoinsItsSession: a data connection belongs to the control connection
// of its session, once.
func TestDataJoinsItsSession(t *testing.T) {
	f := newFake(t, "z")
	c, _ := f.accept(classControl)
	c.Close()
	f.node.SetPeers(nil)
	if err := f.dial(classControl, 77); err != nil {
		t.Fatal(err)
	}
	refusedAs(t, f.dial(classData, 78), RefusedStale)
	if err := f.dial(classData, 77); err != nil {
		t.Fatal(err)
	}
	f.sessionIs(77)
	refusedAs(t, f.dial(classData, 77), RefusedStale)
}
