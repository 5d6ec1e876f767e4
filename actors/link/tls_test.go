package link

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"pando.dev/pando/actors/cert"
	"pando.dev/pando/partition"
)

func authority(t testing.TB) *cert.Authority {
	t.Helper()
	a, err := cert.NewAuthority("c", 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func files(t testing.TB, a *cert.Authority, name string, r cert.Role, extra ...*cert.Authority) *cert.Files {
	t.Helper()
	dir := t.TempDir()
	id, err := a.Issue(name, r, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := id.Write(dir); err != nil {
		t.Fatal(err)
	}
	for _, x := range extra {
		if err := cert.Trust(dir, x.Root()); err != nil {
			t.Fatal(err)
		}
	}
	f, err := cert.Open(dir, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// securedNode starts a node with a certificate of its own.
func securedNode(t testing.TB, a *cert.Authority, b *book, id partition.NodeID, boot uint64, change func(*Config)) *node {
	return startNode(t, b, id, boot, func(c *Config) {
		c.TLS = files(t, a, string(id), cert.Node)
		c.Listen = "0.0.0.0:0" // allowed: it is secured
		if change != nil {
			change(c)
		}
	})
}

// TestSecuredLink does everything once under mutual TLS.
func TestSecuredLink(t *testing.T) {
	ca, b := authority(t), newBook()
	peers := make(chan Peer, 1)
	x, y := securedNode(t, ca, b, "x", 1, nil), securedNode(t, ca, b, "y", 2, func(c *Config) {
		c.OnClient = func(conn net.Conn, p Peer) { peers <- p; _, _ = io.Copy(conn, conn) }
	})
	x.SetPeers([]partition.NodeID{"y"})
	x.upWith("y")
	y.upWith("x")
	if err := x.Send("y", Frame{Kind: KindAppend, Group: 1, From: 1, To: 2, Body: make([]byte, 1<<20)}); err != nil {
		t.Fatal(err)
	}
	if f := receive(t, y.frames); len(f.Body) != 1<<20 {
		t.Errorf("%d bytes", len(f.Body))
	}
	if got, err := y.Call(t.Context(), "x", []byte("hi")); err != nil || string(got) != "y:hi" {
		t.Errorf("%q, %v", got, err)
	}
	out, err := x.DialStream("y", wait)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	in, err := y.AcceptStream()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	eventually(t, "leases", func() bool { return x.granted(1, 1, y) > 0 && y.granted(1, 1, x) > 0 })
	c, err := DialClient(t.Context(), y.Addr(), ClientConfig{Cluster: "c", TLS: files(t, ca, "app", cert.Client)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if p := receive(t, peers); p.Name != "app" || p.Role != cert.Client {
		t.Errorf("%+v", p)
	}
}

// TestSecuredRefusals: who has the wrong certificate, none, or speaks no TLS at
// all gets an error and a counter, and no link.
func TestSecuredRefusals(t *testing.T) {
	ca, other, b := authority(t), authority(t), newBook()
	n := securedNode(t, ca, b, "n", 1, func(c *Config) {
		c.Silence = time.Second / 2 // a plaintext hello is shorter than what TLS waits for
		c.OnClient = func(conn net.Conn, _ Peer) { _, _ = io.Copy(io.Discard, conn) }
	})
	hi := func(from partition.NodeID, cl class) hello {
		return hello{class: cl, cluster: "c", from: from, boot: 5, to: "n"}
	}
	_, port, _ := net.SplitHostPort(n.Addr())
	local := net.JoinHostPort("127.0.0.1", port)
	var tlsFailed uint64
	for name, c := range map[string]struct {
		secure TLS
		h      hello
		refuse Refusal // 0: TLS itself fails
	}{
		"another node's id":          {files(t, ca, "m", cert.Node), hi("evil", classControl), RefusedIdentity},
		"another node's stream":      {files(t, ca, "m", cert.Node), hi("evil", classStream), RefusedIdentity},
		"a client as a node":         {files(t, ca, "m", cert.Client), hi("m", classControl), RefusedRole},
		"an admin as a node":         {files(t, ca, "m", cert.Admin), hi("m", classBulk), RefusedRole},
		"our own id":                 {files(t, ca, "n", cert.Node), hi("n", classControl), RefusedIdentity},
		"another cluster":            {files(t, ca, "m", cert.Node), hello{class: classControl, cluster: "d", from: "m", boot: 5, to: "n"}, RefusedCluster},
		"another authority's client": {files(t, other, "m", cert.Node, ca), hi("m", classControl), 0},
		"plaintext":                  {nil, hi("m", classControl), 0},
	} {
		t.Run(name, func(t *testing.T) {
			before := n.Stats()
			_, _, err := dialTo(t.Context(), local, c.h, c.secure, wait)
			if err == nil {
				t.Fatal("let in")
			}
			var r *RefusedError
			if c.refuse != 0 && (!errors.As(err, &r) || r.Refusal != c.refuse) {
				t.Errorf("%v, want %s", err, c.refuse)
			}
			eventually(t, "it is counted", func() bool {
				s := n.Stats()
				if c.refuse == 0 {
					return s.TLSFailed == before.TLSFailed+1
				}
				return s.Refused[c.refuse] == before.Refused[c.refuse]+1
			})
			if c.refuse == 0 {
				tlsFailed++
			}
		})
	}
	if s := n.Stats(); s.TLSFailed != tlsFailed || s.HandshakeFailed < tlsFailed || s.Ups != 0 || len(n.Peers()) != 0 {
		t.Errorf("%+v", s)
	}
	if _, err := DialClient(t.Context(), n.Addr(), ClientConfig{Cluster: "c", TLS: files(t, ca, "app", cert.Client), Node: "m"}); !errors.Is(err, partition.ErrUnauthorized) {
		t.Errorf("a client that wanted another node: %v", err)
	}
}

// TestImpostorIsNotLinked: who answers at a node's address with another
// certificate is refused by the dialer.
func TestImpostorIsNotLinked(t *testing.T) {
	ca, b := authority(t), newBook()
	x := securedNode(t, ca, b, "x", 1, nil)
	impostor := securedNode(t, ca, newBook(), "z", 9, nil)
	b.set("y", impostor.Addr(), 2)
	x.SetPeers([]partition.NodeID{"y"})
	secure := x.c.TLS.(*cert.Files)
	eventually(t, "the impostor is refused", func() bool { return secure.Stats().WrongName > 1 && x.Stats().DialFailed > 1 })
	if x.session("y") != nil {
		t.Error("linked to an impostor")
	}
}

// TestPlainNodeRefusesTLS: the other mistake, a secured client at a node without
// certificates.
func TestPlainNodeRefusesTLS(t *testing.T) {
	n := startNode(t, newBook(), "n", 1, nil)
	_, err := DialClient(t.Context(), n.Addr(), ClientConfig{Cluster: "c", TLS: files(t, authority(t), "app", cert.Client)})
	var record tls.RecordHeaderError
	if !errors.As(err, &record) && !errors.Is(err, io.EOF) {
		t.Logf("the client says: %v", err)
	}
	if err == nil {
		t.Error("let in")
	}
	eventually(t, "it is counted", func() bool { return n.Stats().Refused[RefusedMalformed] == 1 })
}
