package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"pando.dev/pando/partition"
)

// dial opens one connection to a node and does the handshake, within ctx.
func (l *Links) dial(ctx context.Context, addr string, h hello) (net.Conn, welcome, error) {
	h.cluster, h.from, h.boot = l.c.Cluster, l.c.Node, l.c.Boot
	c, w, err := dialTo(ctx, addr, h, l.c.TLS, l.c.Silence)
	if err != nil {
		return nil, w, err
	}
	l.n.dialed.Add(1)
	return c, w, nil
}

func dialTo(ctx context.Context, addr string, h hello, secure TLS, timeout time.Duration) (net.Conn, welcome, error) {
	var w welcome
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, w, partition.Errorf(partition.CodeInvalid, "address %q: %v", addr, err)
	}
	if secure == nil && !loopback(host) {
		return nil, w, &partition.Error{Code: partition.CodeRefused, Why: "without certificates only loopback addresses are dialed, not " + addr,
			Next: "make certificates with `pando cert`"}
	}
	d := net.Dialer{Timeout: timeout}
	raw, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, w, fmt.Errorf("dial %s: %w", addr, err)
	}
	// A cancelled dial must not wait for a peer that says nothing.
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	c, w, err := introduce(ctx, raw, h, secure, timeout)
	if !stop() && err == nil {
		err = fmt.Errorf("dial %s: %w", addr, context.Cause(ctx))
	}
	if err != nil {
		raw.Close()
		return nil, w, err
	}
	return c, w, nil
}

// introduce secures a fresh connection and does the dialer's handshake.
func introduce(ctx context.Context, raw net.Conn, h hello, secure TLS, timeout time.Duration) (net.Conn, welcome, error) {
	tune(raw, timeout)
	c := raw
	if secure != nil {
		if err := raw.SetDeadline(time.Now().Add(timeout)); err != nil {
			return nil, welcome{}, fmt.Errorf("dial: %w", err)
		}
		t := tls.Client(raw, secure.Client(h.to))
		if err := t.HandshakeContext(ctx); err != nil {
			return nil, welcome{}, fmt.Errorf("secure the connection to %s: %w", raw.RemoteAddr(), err)
		}
		c = t
	}
	w, err := greet(c, h, timeout)
	return c, w, err
}

// ClientConfig says how a client connects.
type ClientConfig struct {
	Cluster string // required
	TLS     TLS    // nil: plaintext, to loopback only
	// Node is the node that must answer; empty: any.
	Node partition.NodeID
	// Timeout bounds connection and handshake (default 3 s).
	Timeout time.Duration
}

// DialClient opens a client connection to a node, as OnClient gets it there.
func DialClient(ctx context.Context, addr string, c ClientConfig) (net.Conn, error) {
	if c.Timeout <= 0 {
		c.Timeout = 3 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	conn, _, err := dialTo(ctx, addr, hello{class: classClient, cluster: c.Cluster, to: c.Node}, c.TLS, c.Timeout)
	return conn, err
}

// dialNode opens a connection of a class without a session to a node.
func (l *Links) dialNode(ctx context.Context, n partition.NodeID, cl class) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, l.c.Silence)
	defer cancel()
	ctx, stop := mergeDone(ctx, l.ctx)
	defer stop()
	addr, boot, ok := l.c.Resolve(n)
	if !ok {
		return nil, partition.Errorf(partition.CodeUnavailable, "the address of node %s is not known", n)
	}
	if k := (*l.peers.Load())[n]; k != nil {
		boot = max(boot, k.newest.Load())
	}
	h := hello{class: cl, to: n, toBoot: boot}
	c, _, err := l.dial(ctx, addr, h)
	var r *RefusedError
	if errors.As(err, &r) && r.Refusal == RefusedBoot && r.Node == n && r.Boot > boot {
		h.toBoot = r.Boot
		c, _, err = l.dial(ctx, addr, h)
	}
	if err != nil {
		l.n.dialFailed.Add(1)
		return nil, err
	}
	return c, nil
}

// mergeDone returns a context that also ends with other.
func mergeDone(ctx, other context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(other, cancel)
	return ctx, func() { stop(); cancel() }
}
