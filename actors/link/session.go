package link

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime/debug"
	"sync/atomic"
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/lease"
)

// conn is one framed connection.
type conn struct {
	net    net.Conn
	class  class
	out    *outbox
	frames frameReader
}

func (l *Links) newConn(c net.Conn, cl class) *conn {
	return &conn{
		net: c, class: cl,
		out:    newOutbox(c, l.c.QueueBytes, l.c.Silence),
		frames: frameReader{conn: c, class: cl, silence: l.c.Silence},
	}
}

func (c *conn) close() { c.out.close() }

// session is one life of a link: two connections between the same two
// incarnations. Control and data never wait for each other.
type session struct {
	link   *link
	id     uint64
	boot   uint64 // of the peer
	dialed bool   // by us
	born   time.Time

	// Owned by the actor until the session is up, unchanged afterwards.
	control, data *conn
	up            bool

	answered atomic.Int64 // when the last beat was answered, since born
	partial  parts        // calls that come in, owned by the control reader
}

// dialSession opens both connections.
func (k *link) dialSession(ctx context.Context, addr string, boot uint64) (*session, error) {
	s := &session{link: k, id: rand.Uint64(), dialed: true, born: time.Now()}
	h := hello{class: classControl, session: s.id, to: k.node, toBoot: boot}
	c, w, err := k.l.dial(ctx, addr, h)
	if err != nil {
		return nil, fmt.Errorf("control connection: %w", err)
	}
	s.boot = w.boot
	s.control = k.l.newConn(c, classControl)
	h.class, h.toBoot = classData, w.boot
	c, _, err = k.l.dial(ctx, addr, h)
	if err != nil {
		s.close()
		return nil, fmt.Errorf("data connection: %w", err)
	}
	s.data = k.l.newConn(c, classData)
	s.born = time.Now()
	return s, nil
}

// close ends the connections; their readers report it.
func (s *session) close() {
	if s.control != nil {
		s.control.close()
	}
	if s.data != nil {
		s.data.close()
	}
}

// wentDown tells everybody that a session which was up is over.
func (s *session) wentDown() {
	k, l := s.link, s.link.l
	l.c.Leases.Down(k.node, s.boot)
	l.n.downs.Add(1)
	k.calls.fail(s)
	l.unwatch(s)
	if l.c.OnDown != nil {
		l.c.OnDown(k.node, s.boot)
	}
}

// send queues a frame and counts.
func (s *session) send(c *conn, f *Frame) error {
	err := c.out.send(f)
	switch {
	case err == nil:
		s.link.framesOut.Add(1)
	case errors.Is(err, partition.ErrBusy):
		s.link.busy.Add(1)
		s.link.l.n.sendBusy.Add(1)
	default:
		s.link.l.n.sendDown.Add(1)
	}
	return err
}

// read handles the frames of one connection until it ends.
func (s *session) read(c *conn) (err error) {
	l := s.link.l
	defer func() {
		if r := recover(); r != nil {
			err = frameError(badPanic, "handling a frame panicked: %v", r)
			l.c.Logger.Error("handling a frame panicked", "node", s.link.node, "err", r, "stack", string(debug.Stack()))
		}
		l.countEnd(s.link.node, c, err)
	}()
	for {
		f, err := c.frames.next()
		if err != nil {
			return err
		}
		s.link.framesIn.Add(1)
		if c.class == classData {
			if f.Kind != kindPing && l.c.OnFrame != nil {
				f.Boot = s.boot
				l.c.OnFrame(s.link.node, f)
			}
			continue
		}
		if err := s.onControl(f); err != nil {
			return err
		}
	}
}

// countEnd counts and logs why a connection ended, if the peer broke the rules.
func (l *Links) countEnd(n partition.NodeID, c *conn, err error) {
	var bad *protocolError
	switch {
	case errors.As(err, &bad):
		l.n.bad[bad.reason].Add(1)
		l.c.Logger.Warn("connection ended by a bad frame", "node", n, "class", c.class, "err", err)
	case timedOut(err):
		l.n.silent.Add(1)
	}
}

// onControl handles one control frame; an error ends the connection.
func (s *session) onControl(f Frame) error {
	switch f.Kind {
	case kindBeat:
		return s.onBeat(f)
	case kindBeatAnswer:
		return s.onBeatAnswer(f)
	case kindCall:
		return s.onCall(f)
	case kindReply:
		return s.onReply(f)
	case kindMessage:
		return s.onMessage(f)
	case kindWatch:
		return s.onWatch(f)
	}
	return nil
}

// beat asks the peer for the next lease.
func (s *session) beat() {
	l := s.link.l
	b, ok := l.c.Leases.Beat(l.c.Now(), s.link.node)
	if !ok {
		return
	}
	f := Frame{Kind: kindBeat, Body: encodeBeat(b)}
	_ = s.send(s.control, &f) // a lost beat is no more than that
}

func (s *session) onBeat(f Frame) error {
	b, err := decodeBeat(f.Body)
	if err != nil || b.Boot != s.boot {
		return frameError(badBody, "beat of boot %d from boot %d: %v", b.Boot, s.boot, err)
	}
	l := s.link.l
	a, ok := l.c.Leases.OnBeat(l.c.Now(), s.link.node, b)
	if !ok {
		l.n.badBeats.Add(1)
		return nil
	}
	answer := Frame{Kind: kindBeatAnswer}
	answer.Body, answer.Flags = encodeAnswer(a)
	_ = s.send(s.control, &answer)
	return nil
}

func (s *session) onBeatAnswer(f Frame) error {
	a, err := decodeAnswer(f)
	if err != nil || a.Boot != s.boot {
		return frameError(badBody, "answer of boot %d from boot %d: %v", a.Boot, s.boot, err)
	}
	l := s.link.l
	r := l.c.Leases.OnAnswer(l.c.Now(), s.link.node, a)
	if !r.OK {
		l.n.badBeats.Add(1)
		return nil
	}
	s.answered.Store(int64(time.Since(s.born)))
	s.link.smooth(r.RTT)
	if r.Again {
		s.beat()
	}
	return nil
}

// smooth takes one round trip into the average.
func (k *link) smooth(rtt time.Duration) {
	if old := k.rtt.Load(); old != 0 {
		rtt = time.Duration(old) + (rtt-time.Duration(old))/8
	}
	k.rtt.Store(max(1, int64(rtt)))
}

const (
	beatBytes  = 32
	answerHead = 44
	// revocationBytes is the size of one revocation behind it.
	revocationBytes = 20
	flagMore        = 1 << 0
)

func encodeBeat(b lease.Beat) []byte {
	e := encoder{b: make([]byte, 0, beatBytes)}
	return e.u64(b.Seq).u64(b.Boot).u64(b.PeerBoot).u64(b.Acked).b
}

func decodeBeat(body []byte) (lease.Beat, error) {
	d := decoder{b: body}
	b := lease.Beat{Seq: d.u64(), Boot: d.u64(), PeerBoot: d.u64(), Acked: d.u64()}
	return b, d.end()
}

func encodeAnswer(a lease.Answer) (body []byte, flags uint8) {
	e := encoder{b: make([]byte, 0, answerHead+revocationBytes*len(a.Revoked))}
	e.u64(a.Seq).u64(a.Boot).u64(a.HolderBoot).u64(uint64(a.Lease)).u64(a.Revision).u32(uint32(len(a.Revoked)))
	for _, r := range a.Revoked {
		e.u64(uint64(r.Group)).u64(uint64(r.Epoch)).u32(uint32(r.Replica))
	}
	return e.b, bit(a.More, flagMore)
}

func decodeAnswer(f Frame) (lease.Answer, error) {
	d := decoder{b: f.Body}
	a := lease.Answer{Seq: d.u64(), Boot: d.u64(), HolderBoot: d.u64(), Lease: time.Duration(d.u64()), Revision: d.u64(), More: f.Flags&flagMore != 0}
	n := d.u32()
	if d.err == nil && (n > lease.MaxRevokedPerAnswer || int(n)*revocationBytes != len(d.b)) {
		return a, corrupt("%d revocations in %d bytes", n, len(d.b))
	}
	if n > 0 && d.err == nil {
		a.Revoked = make([]lease.Revocation, 0, n)
		for range n {
			a.Revoked = append(a.Revoked, lease.Revocation{Group: partition.GroupID(d.u64()), Epoch: d.epoch(), Replica: d.replica()})
		}
	}
	return a, d.end()
}
