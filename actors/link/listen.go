package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"time"

	"pando.dev/pando/actors/cert"
	"pando.dev/pando/partition"
)

// acceptPause is how long accepting rests when the system refuses, as it does
// without free file descriptors.
const acceptPause = 50 * time.Millisecond

// accept takes connections until Close.
func (l *Links) accept() {
	for {
		c, err := l.listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			l.c.Logger.Warn("connection was not accepted", "err", err)
			select {
			case <-time.After(acceptPause):
			case <-l.ctx.Done():
				return
			}
			continue
		}
		if !l.handshakes.enter() {
			l.n.refused[RefusedBusy].Add(1)
			c.Close()
			continue
		}
		if !l.track(c) {
			l.handshakes.leave()
			return
		}
		l.wg.Go(func() { l.welcomeConn(c) })
	}
}

// incoming is a connection that has said who it is.
type incoming struct {
	net.Conn
	hello hello
	peer  Peer
	// left is set when the connection no longer counts as unknown.
	left bool
}

// welcomeConn does the handshake of one incoming connection and then what its
// class asks for. It runs on the connection's own goroutine.
func (l *Links) welcomeConn(raw net.Conn) {
	in := &incoming{Conn: raw}
	defer func() {
		if r := recover(); r != nil {
			l.n.bad[badPanic].Add(1)
			l.c.Logger.Error("serving a connection panicked", "addr", raw.RemoteAddr(), "err", r, "stack", string(debug.Stack()))
			raw.Close()
		}
		l.known(in)
		l.untrack(raw)
	}()
	if err := l.identify(in); err != nil {
		l.refuse(in, err)
		raw.Close()
		return
	}
	l.n.accepted.Add(1)
	switch in.hello.class {
	case classControl, classData:
		l.acceptLink(in)
	case classStream:
		l.acceptStream(in)
	case classClient:
		l.acceptClient(in)
	case classBulk:
		l.acceptBulk(in)
	}
}

// known ends the connection's time among the unknown ones.
func (l *Links) known(in *incoming) {
	if !in.left {
		in.left = true
		l.handshakes.leave()
	}
}

// identify reads who is there and refuses whom no connection is due.
func (l *Links) identify(in *incoming) error {
	raw := in.Conn
	tune(raw, l.c.Silence)
	if err := raw.SetDeadline(time.Now().Add(l.c.Silence)); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	in.peer = Peer{Role: cert.Local, Addr: raw.RemoteAddr().String()}
	if l.c.TLS != nil {
		t := tls.Server(raw, l.c.TLS.Server())
		ctx, cancel := context.WithTimeout(l.ctx, l.c.Silence)
		defer cancel()
		if err := t.HandshakeContext(ctx); err != nil {
			l.n.tlsFailed.Add(1)
			return fmt.Errorf("secure the connection: %w", err)
		}
		in.Conn = t
		name, role, err := l.c.TLS.Peer(t.ConnectionState())
		if err != nil {
			return &RefusedError{Refusal: RefusedIdentity, Why: err.Error()}
		}
		in.peer.Name, in.peer.Role = name, role
	}
	b, err := readSealed(in.Conn, helloMagic)
	if err != nil {
		return err
	}
	if err := in.hello.decode(b); err != nil {
		return &RefusedError{Refusal: RefusedMalformed, Why: err.Error()}
	}
	return l.judge(&in.hello, in.peer)
}

// judge checks a hello against this node and the certificate it came with.
func (l *Links) judge(h *hello, p Peer) error {
	no := func(r Refusal, format string, args ...any) error {
		return &RefusedError{Refusal: r, Node: l.c.Node, Boot: l.c.Boot, Why: fmt.Sprintf(format, args...)}
	}
	switch {
	case h.cluster != l.c.Cluster:
		return no(RefusedCluster, "this is a node of another cluster than %q", h.cluster)
	case h.to != "" && h.to != l.c.Node:
		return no(RefusedNode, "this is node %s, not %s", l.c.Node, h.to)
	case h.toBoot != 0 && h.toBoot != l.c.Boot:
		return no(RefusedBoot, "node %s is in boot %d, not %d", l.c.Node, l.c.Boot, h.toBoot)
	case h.class == classClient:
		return nil
	case h.class < classControl || h.class > classClient:
		return no(RefusedClass, "connections of %s are not known here", h.class)
	case h.from == "" || h.boot == 0 || h.to == "":
		return no(RefusedMalformed, "a node's connection names both nodes and its boot")
	case h.from == l.c.Node:
		return no(RefusedIdentity, "node %s is here already", h.from)
	case p.Role != cert.Local && p.Role != cert.Node:
		return no(RefusedRole, "a certificate of role %s is not a node's", p.Role)
	case p.Role == cert.Node && p.Name != string(h.from):
		return no(RefusedIdentity, "the certificate of %s does not speak for node %s", p.Name, h.from)
	}
	return nil
}

// refuse counts, and tells the other side why if it has come that far.
func (l *Links) refuse(in *incoming, err error) {
	var r *RefusedError
	if !errors.As(err, &r) || int(r.Refusal) >= len(l.n.refused) {
		l.n.handshakeFailed.Add(1)
		l.c.Logger.Debug("connection ended in its handshake", "addr", in.RemoteAddr(), "err", err)
		return
	}
	l.n.refused[r.Refusal].Add(1)
	l.c.Logger.Warn("connection refused", "addr", in.RemoteAddr(), "from", in.hello.from, "reason", r.Refusal.String(), "err", err)
	_ = l.answer(in, r.Refusal, r.Why)
}

// answer sends the welcome or the refusal.
func (l *Links) answer(in *incoming, r Refusal, why string) error {
	w := welcome{refusal: r, boot: l.c.Boot, node: l.c.Node, why: why}
	if err := writeWithin(in, l.c.Silence, w.encode()); err != nil {
		return fmt.Errorf("answer a handshake: %w", err)
	}
	return in.SetDeadline(time.Time{})
}

// turnAway refuses a connection that has said who it is.
func (l *Links) turnAway(in *incoming, r Refusal, why string) {
	l.refuse(in, &RefusedError{Refusal: r, Why: why})
	in.Close()
}

// acceptLink asks the link's actor, tells the peer, and hands the connection
// over.
func (l *Links) acceptLink(in *incoming) {
	k := l.linkTo(in.hello.from)
	if k == nil {
		l.turnAway(in, RefusedBusy, "too many links")
		return
	}
	answer := make(chan verdict, 1)
	v := verdict{refusal: RefusedBusy, why: "the link does not answer"}
	if k.post(evAccepted{in.hello, answer}) {
		select {
		case v = <-answer:
		case <-time.After(l.c.Silence):
		case <-l.ctx.Done():
		}
	}
	if v.refusal != 0 {
		l.turnAway(in, v.refusal, v.why)
		return
	}
	if err := l.answer(in, 0, ""); err != nil {
		in.Close()
		return
	}
	c := l.newConn(in.Conn, in.hello.class)
	if !k.post(evAttached{v.s, c}) {
		c.close()
	}
}

// acceptClient serves a client until its handler returns.
func (l *Links) acceptClient(in *incoming) {
	switch {
	case l.c.OnClient == nil:
		l.turnAway(in, RefusedClass, "this node takes no clients")
		return
	case !l.clients.enter():
		l.turnAway(in, RefusedBusy, "too many clients")
		return
	}
	defer l.clients.leave()
	defer in.Close()
	if err := l.answer(in, 0, ""); err != nil {
		return
	}
	l.known(in)
	l.c.OnClient(in.Conn, in.peer)
}

// acceptStream hands a raft connection to AcceptStream.
func (l *Links) acceptStream(in *incoming) {
	if !l.raft.enter() {
		l.turnAway(in, RefusedBusy, "too many streams")
		return
	}
	if err := l.answer(in, 0, ""); err != nil {
		l.raft.leave()
		in.Close()
		return
	}
	s := &stream{Conn: in.Conn, from: in.hello.from, release: l.raft.leave}
	select {
	case l.streams <- s:
	default:
		s.Close()
	}
}

// PeerOf returns the node at the other end of a connection from AcceptStream;
// empty for others.
func PeerOf(c net.Conn) partition.NodeID {
	if s, ok := c.(*stream); ok {
		return s.from
	}
	return ""
}
