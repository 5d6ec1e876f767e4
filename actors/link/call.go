package link

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"pando.dev/pando/partition"
)

const (
	// MaxCallBytes bounds the request and the answer of a Call. Both travel in
	// parts, so that a heartbeat never waits for more than one of them.
	MaxCallBytes = 4 << 20
	// defaultCallTimeout bounds a Call whose context has no deadline.
	defaultCallTimeout = 5 * time.Second
	maxCallTimeout     = time.Minute
	partBytes          = 32 << 10
	// maxPartialBytes bounds the calls of a peer that have come in in part.
	maxPartialBytes = 2 * MaxCallBytes
	// maxServingBytes bounds the requests of all peers that are being executed.
	maxServingBytes = 64 << 20
	callHead        = 8
	flagLast        = 1 << 0
)

// Results of a call, as they cross the wire.
const (
	callOK      = 0
	callBusy    = 1
	callNobody  = 2 // no handler
	callFailed  = 3 // the handler panicked
	callTooLong = 4 // the answer is over the limit
)

// Call sends a request to a node and waits for its answer. CodeUnavailable and
// CodeBusy mean that the request was not sent; CodeUnknown that it may have been
// executed: the link broke or the deadline passed before an answer came. Without
// a deadline in ctx, it is 5 s.
func (l *Links) Call(ctx context.Context, to partition.NodeID, body []byte) ([]byte, error) {
	if len(body) > MaxCallBytes {
		return nil, partition.Errorf(partition.CodeTooLarge, "call of %d bytes, limit %d", len(body), MaxCallBytes)
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, defaultCallTimeout)
		defer cancel()
	}
	if to == l.c.Node {
		return l.callSelf(ctx, body)
	}
	s := l.session(to)
	if s == nil {
		l.n.sendDown.Add(1)
		return nil, partition.Errorf(partition.CodeUnavailable, "no link to node %s", to)
	}
	id, answer, err := s.link.calls.begin(s)
	if err != nil {
		l.n.sendBusy.Add(1)
		return nil, err
	}
	defer s.link.calls.forget(id)
	if sent, err := s.sendParts(kindCall, id, uint32(min(maxCallTimeout, time.Until(deadline(ctx))).Milliseconds()), body); err != nil {
		if sent > 0 {
			return nil, partition.Errorf(partition.CodeUnknown, "the call to node %s was sent in part: %v", to, err)
		}
		return nil, err
	}
	select {
	case a := <-answer:
		return a.body, a.err
	case <-ctx.Done():
		return nil, partition.Errorf(partition.CodeUnknown, "no answer from node %s: %v", to, ctx.Err())
	}
}

func deadline(ctx context.Context) time.Time {
	d, _ := ctx.Deadline()
	return d
}

func (l *Links) callSelf(ctx context.Context, body []byte) ([]byte, error) {
	answer := make(chan called, 1)
	go func() { // ends with ctx, as every handler does
		b, status := l.serveCall(ctx, l.c.Node, body)
		answer <- called{b, callError(status, l.c.Node)}
	}()
	select {
	case a := <-answer:
		return a.body, a.err
	case <-ctx.Done():
		return nil, partition.Errorf(partition.CodeUnknown, "no answer from the own node: %v", ctx.Err())
	}
}

// sendParts sends a body in frames: the first begins with a number and the size.
// It returns how many were sent.
func (s *session) sendParts(k Kind, id uint64, number uint32, body []byte) (int, error) {
	for sent := 0; ; sent++ {
		n := min(len(body), partBytes)
		e := encoder{b: make([]byte, 0, callHead+n)} // sent as it is, so not used again
		if sent == 0 {
			e.u32(number).u32(uint32(len(body)))
		}
		f := Frame{Kind: k, Group: partition.GroupID(id), Body: append(e.b, body[:n]...)}
		if body = body[n:]; len(body) == 0 {
			f.Flags = flagLast
		}
		if err := s.send(s.control, &f); err != nil || len(body) == 0 {
			return sent + int(bit(err == nil, 1)), err
		}
	}
}

// called is how a call ended.
type called struct {
	body []byte
	err  error
}

// calls are those that wait for an answer of one peer.
type calls struct {
	mu      sync.Mutex
	limit   int
	last    uint64
	waiting map[uint64]*waiting
	serving atomic.Int64 // the peer's, being executed here
}

type waiting struct {
	s      *session
	answer chan called // room for one
	part   part
}

func (c *calls) begin(s *session) (uint64, <-chan called, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.waiting) >= c.limit {
		return 0, nil, partition.Errorf(partition.CodeBusy, "%d calls wait for node %s, limit %d", len(c.waiting), s.link.node, c.limit)
	}
	if c.waiting == nil {
		c.waiting = make(map[uint64]*waiting)
	}
	c.last++
	w := &waiting{s: s, answer: make(chan called, 1)}
	c.waiting[c.last] = w
	return c.last, w.answer, nil
}

func (c *calls) forget(id uint64) {
	c.mu.Lock()
	delete(c.waiting, id)
	c.mu.Unlock()
}

// fail answers all calls of a session that is over.
func (c *calls) fail(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, w := range c.waiting {
		if w.s == s {
			delete(c.waiting, id)
			w.answer <- called{nil, partition.Errorf(partition.CodeUnknown, "the link to node %s broke before the answer", s.link.node)}
		}
	}
}

// part is a body that comes in parts.
type part struct {
	begun  bool
	number uint32
	size   int
	body   []byte
}

// add takes a frame in; done tells that the body is whole.
func (p *part) add(f Frame) (done bool, err error) {
	b := f.Body
	if !p.begun {
		d := decoder{b: b}
		p.number, p.size, p.begun = d.u32(), int(d.u32()), true
		if d.err != nil || p.size > MaxCallBytes {
			return false, frameError(badBody, "%s that announces %d bytes, limit %d", f.Kind, p.size, MaxCallBytes)
		}
		b = d.b
	}
	p.body = append(p.body, b...)
	last := f.Flags&flagLast != 0
	if len(p.body) > p.size || last != (len(p.body) == p.size) || len(b) == 0 && !last {
		return false, frameError(badBody, "%s with %d of %d bytes, last %v", f.Kind, len(p.body), p.size, last)
	}
	return last, nil
}

// parts are the calls of a peer that have come in in part.
type parts struct {
	by    map[uint64]*part
	bytes int
}

func (s *session) onReply(f Frame) error {
	c := &s.link.calls
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.waiting[uint64(f.Group)]
	if w == nil || w.s != s {
		return nil // given up meanwhile
	}
	done, err := w.part.add(f)
	if err != nil || !done {
		return err
	}
	delete(c.waiting, uint64(f.Group))
	w.answer <- called{w.part.body, callError(w.part.number, s.link.node)}
	return nil
}

func callError(status uint32, n partition.NodeID) error {
	switch status {
	case callOK:
		return nil
	case callBusy:
		return partition.Errorf(partition.CodeBusy, "node %s executes too many calls", n)
	case callNobody:
		return partition.Errorf(partition.CodeUnavailable, "node %s takes no calls", n)
	case callTooLong:
		return partition.Errorf(partition.CodeTooLarge, "the answer of node %s is over %d bytes", n, MaxCallBytes)
	}
	return partition.Errorf(partition.CodeUnknown, "node %s failed while it executed the call", n)
}

func (s *session) onCall(f Frame) error {
	id := uint64(f.Group)
	p := s.partial.by[id]
	if p == nil {
		if len(s.partial.by) >= s.link.l.c.MaxCalls {
			return frameError(badBody, "%d calls have come in in part", len(s.partial.by))
		}
		if s.partial.by == nil {
			s.partial.by = make(map[uint64]*part)
		}
		p = &part{}
		s.partial.by[id] = p
	}
	if s.partial.bytes += len(f.Body); s.partial.bytes > maxPartialBytes {
		return frameError(badBody, "%d bytes of calls have come in in part, limit %d", s.partial.bytes, maxPartialBytes)
	}
	done, err := p.add(f)
	if err != nil || !done {
		return err
	}
	delete(s.partial.by, id)
	s.partial.bytes -= len(p.body) + callHead
	s.serve(id, p)
	return nil
}

// serve executes a whole call on a goroutine of its own, if there are not too
// many.
func (s *session) serve(id uint64, p *part) {
	k, l := s.link, s.link.l
	size := int64(len(p.body))
	tooMany := k.calls.serving.Add(1) > int64(l.c.MaxCalls)
	tooLarge := l.n.serving.Add(size) > maxServingBytes
	if tooMany || tooLarge {
		k.calls.serving.Add(-1)
		l.n.serving.Add(-size)
		l.n.callsRefused.Add(1)
		_, _ = s.sendParts(kindReply, id, callBusy, nil)
		return
	}
	l.n.callsIn.Add(1)
	l.wg.Go(func() {
		defer k.calls.serving.Add(-1)
		defer l.n.serving.Add(-size)
		ctx, cancel := context.WithTimeout(l.ctx, min(maxCallTimeout, time.Duration(p.number)*time.Millisecond))
		defer cancel()
		body, status := l.serveCall(ctx, k.node, p.body)
		_, _ = s.sendParts(kindReply, id, status, body) // if it fails, the caller learns from the link
	})
}

// serveCall runs the handler.
func (l *Links) serveCall(ctx context.Context, from partition.NodeID, body []byte) (answer []byte, status uint32) {
	defer func() {
		if r := recover(); r != nil {
			l.n.bad[badPanic].Add(1)
			l.c.Logger.Error("a call's handler panicked", "from", from, "err", fmt.Sprint(r), "stack", string(debug.Stack()))
			answer, status = nil, callFailed
		}
	}()
	if l.c.OnCall == nil {
		return nil, callNobody
	}
	answer = l.c.OnCall(ctx, from, body)
	switch {
	case ctx.Err() != nil: // it may have given up half-way: that is no answer
		return nil, callFailed
	case len(answer) > MaxCallBytes:
		return nil, callTooLong
	}
	return answer, callOK
}
