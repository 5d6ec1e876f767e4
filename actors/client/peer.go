package client

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"pando.dev/pando/partition"
)

// peer is the way to one node: a connection, or the backend of this process.
type peer interface {
	// send hands a request to the node. Afterwards exactly one of answered and
	// lost is called for the attempt, unless withdraw took it back, never before
	// send has returned. The request is not used any more when send returns. If
	// run is not nil the caller calls it with no lock held.
	send(a attempt, r *Request) (id uint64, run func(), err error)
	// withdraw forgets an attempt and reports whether it is sure that the node
	// will never see it.
	withdraw(id uint64) bool
	// down reports that the node could not be reached a moment ago.
	down(now time.Time) bool
	// sweep ends the attempts whose deadline has passed.
	sweep(now time.Time)
	// close ends every attempt, and all later ones, for the given reason.
	close(why *partition.Error)
}

var (
	_ peer = (*remotePeer)(nil)
	_ peer = (*localPeer)(nil)
)

// attempt is one request sent for somebody.
type attempt struct {
	to       answerer
	n        uint32 // given back with the answer
	deadline time.Time
	batch    uint64 // of the write that carries it
}

// answerer is told how an attempt ended, from any goroutine, with no lock held.
type answerer interface {
	// answered brings the answer, which is valid during the call only.
	answered(n uint32, r *Response)
	// lost says that no answer will come. Unless maybe is set the node has not
	// got the request.
	lost(n uint32, maybe bool, why error)
}

// pending are the attempts that wait for an answer. Its owner guards it.
type pending struct {
	last uint64 // id
	m    map[uint64]attempt
	// earliest is no later than any deadline in m.
	earliest time.Time
}

func (p *pending) add(a attempt) uint64 {
	if len(p.m) == 0 || a.deadline.Before(p.earliest) {
		p.earliest = a.deadline
	}
	p.last++
	p.m[p.last] = a
	return p.last
}

func (p *pending) take(id uint64) (attempt, bool) {
	a, ok := p.m[id]
	delete(p.m, id)
	return a, ok
}

// overdue takes out the attempts whose deadline has passed.
func (p *pending) overdue(now time.Time) (over []attempt) {
	if len(p.m) == 0 || now.Before(p.earliest) {
		return nil
	}
	first := true
	for id, a := range p.m { // in no order: each is told on its own
		if !a.deadline.After(now) {
			over = append(over, a)
			delete(p.m, id)
		} else if first || a.deadline.Before(p.earliest) {
			p.earliest, first = a.deadline, false
		}
	}
	return over
}

func (p *pending) drain() []attempt {
	all := make([]attempt, 0, len(p.m))
	for _, a := range p.m { // in no order, as above
		all = append(all, a)
	}
	clear(p.m)
	return all
}

var errAttemptTimeout = errors.New("no answer in time")

// remotePeer is a node behind a connection, which is opened when something is
// to be sent. While one exists two goroutines serve it: run writes, read reads.
type remotePeer struct {
	c         *Client
	addr      string
	downUntil atomic.Int64 // Unix nanoseconds
	dialSince atomic.Int64 // Unix nanoseconds, 0 while not dialing

	mu        sync.Mutex
	more      sync.Cond // out is not empty, or broken is set
	pending   pending
	out       []byte    // frames for the next write
	batch     uint64    // number of the next write
	running   bool      // run is
	connected bool      // out may be written
	answers   bool      // something came over this connection
	silent    time.Time // since when attempts ran out and nothing came, or zero
	fails     int       // connections in a row over which nothing came
	broken    error     // why this connection ends
	conn      net.Conn
	closed    *partition.Error // why nothing can be sent any more
}

func newRemotePeer(c *Client, addr string) *remotePeer {
	p := &remotePeer{c: c, addr: addr, pending: pending{m: map[uint64]attempt{}}}
	p.more.L = &p.mu
	return p
}

// down implements peer. A node that takes long to answer the dialing counts as
// down until it has.
func (p *remotePeer) down(now time.Time) bool {
	return now.UnixNano() < p.downUntil.Load() || p.dialsSlowly(now)
}

// slowDial is how long calls wait for a connection to be made before they try
// another node; the dialing goes on meanwhile.
const slowDial = 250 * time.Millisecond

func (p *remotePeer) dialsSlowly(now time.Time) bool {
	since := p.dialSince.Load()
	return since != 0 && now.UnixNano()-since >= int64(slowDial)
}

func (p *remotePeer) send(a attempt, r *Request) (uint64, func(), error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed != nil:
		return 0, nil, p.closed
	case len(p.out) > p.c.cfg.MaxInFlightBytes:
		return 0, nil, partition.Errorf(partition.CodeBusy, "%d bytes wait to be written to %s", len(p.out), p.addr)
	}
	if !p.running {
		p.running = true
		p.dialSince.Store(time.Now().UnixNano())
		p.c.running.Add(1)
		go p.run()
	}
	a.batch = p.batch
	id := p.pending.add(a)
	r.ID = id
	p.out = appendRequest(p.out, r)
	p.more.Signal()
	return id, nil, nil
}

func (p *remotePeer) withdraw(id uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.pending.take(id)
	return ok && !p.connected // dropWithdrawn takes the frame out
}

func (p *remotePeer) sweep(now time.Time) {
	p.mu.Lock()
	over := p.pending.overdue(now)
	sure := !p.connected
	switch {
	case sure && p.dialsSlowly(now):
		over = append(over, p.pending.drain()...)
	case !sure && len(over) > 0:
		p.silence(now)
	}
	p.mu.Unlock()
	for _, a := range over {
		a.to.lost(a.n, !sure, fmt.Errorf("ask %s: %w", p.addr, errAttemptTimeout))
	}
}

// silence notes that attempts ran out. A connection on which nothing comes for
// long after that is given up: it may be dead without this side knowing, and a
// new one would work.
func (p *remotePeer) silence(now time.Time) {
	if p.silent.IsZero() {
		p.silent = now
	} else if now.Sub(p.silent) >= p.c.cfg.AttemptTimeout {
		p.breakLocked(errAttemptTimeout)
	}
}

func (p *remotePeer) close(why *partition.Error) {
	p.mu.Lock()
	p.closed = why
	p.mu.Unlock()
	p.breakOff(why)
}

// breakOff ends the connection, if there is one, for the given reason.
func (p *remotePeer) breakOff(why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.breakLocked(why)
}

func (p *remotePeer) breakLocked(why error) {
	if p.broken == nil {
		p.broken = why
	}
	if p.conn != nil {
		p.conn.Close()
	}
	p.more.Signal()
}

// run is one connection from dialing to its end.
func (p *remotePeer) run() {
	defer p.c.running.Done()
	ctx, cancel := context.WithTimeout(p.c.life, p.c.cfg.DialTimeout)
	conn, err := p.c.cfg.Dial(ctx, p.addr)
	cancel()
	p.dialSince.Store(0)
	if err != nil {
		p.ended(fmt.Errorf("dial %s: %w", p.addr, err))
		return
	}
	p.mu.Lock()
	p.conn, p.connected, p.answers, p.silent = conn, true, false, time.Time{}
	p.out = p.dropWithdrawn()
	p.mu.Unlock()
	read := make(chan struct{})
	go func() {
		defer close(read)
		p.breakOff(p.read(conn))
	}()
	p.write(conn)
	conn.Close()
	<-read
	p.mu.Lock()
	why := p.broken
	p.mu.Unlock()
	p.ended(fmt.Errorf("connection to %s: %w", p.addr, why))
}

// dropWithdrawn returns the queued frames of attempts that are still wanted.
func (p *remotePeer) dropWithdrawn() []byte {
	kept := p.out[:0]
	for rest := p.out; len(rest) > 0; {
		n := prefixBytes + int(binary.LittleEndian.Uint32(rest[4:]))
		if _, ok := p.pending.m[binary.LittleEndian.Uint64(rest[prefixBytes+8:])]; ok {
			kept = append(kept, rest[:n]...)
		}
		rest = rest[n:]
	}
	return kept
}

// write sends whatever is queued, all at once, until the connection ends.
func (p *remotePeer) write(conn net.Conn) {
	var spare []byte
	for {
		p.mu.Lock()
		for len(p.out) == 0 && p.broken == nil {
			p.more.Wait()
		}
		if p.broken != nil {
			p.mu.Unlock()
			return
		}
		b := p.out
		p.out = spare[:0]
		p.batch++
		p.mu.Unlock()
		if err := writeAll(conn, b, p.c.cfg.WriteTimeout); err != nil {
			p.breakOff(err)
			return
		}
		spare = recycle(b)
	}
}

// read hands out answers until the connection ends.
func (p *remotePeer) read(conn net.Conn) error {
	frames := frameReader{src: conn, limit: maxResponseFrame}
	for {
		f, err := frames.next()
		if err != nil {
			return err
		}
		var r Response
		if bad := parseResponse(f, &r); bad != nil {
			return bad
		}
		if r.ID == 0 {
			if err := r.Err(); err != nil {
				return err
			}
			return partition.Errorf(partition.CodeCorrupt, "answer without a request")
		}
		p.mu.Lock()
		a, ok := p.pending.take(r.ID)
		p.silent = time.Time{}
		if !p.answers {
			p.answers, p.fails = true, 0
			p.downUntil.Store(0)
		}
		p.mu.Unlock()
		if ok { // otherwise it was given up
			a.to.answered(a.n, &r)
		}
	}
}

// Wait after a connection over which nothing came.
const (
	redialMin = 10 * time.Millisecond
	redialMax = 200 * time.Millisecond
)

// ended tells everybody who waits for an answer that none will come.
func (p *remotePeer) ended(why error) {
	p.c.cfg.Logger.Debug("lost connection", "addr", p.addr, "err", why)
	p.mu.Lock()
	all, batch := p.pending.drain(), p.batch
	if !p.answers || !p.connected {
		p.downUntil.Store(time.Now().Add(backoff(p.fails, redialMin, redialMax)).UnixNano())
		p.fails++
	}
	p.out, p.broken, p.conn, p.running, p.connected = nil, nil, nil, false, false
	p.mu.Unlock()
	for _, a := range all {
		a.to.lost(a.n, a.batch < batch, why)
	}
}

// localPeer is the backend of this process.
type localPeer struct {
	backend Backend

	mu      sync.Mutex
	pending pending
	closed  *partition.Error
}

func newLocalPeer(b Backend) *localPeer {
	return &localPeer{backend: b, pending: pending{m: map[uint64]attempt{}}}
}

func (p *localPeer) down(time.Time) bool { return false }

func (p *localPeer) send(a attempt, r *Request) (uint64, func(), error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed != nil {
		return 0, nil, p.closed
	}
	id := p.pending.add(a)
	q := *r
	q.ID = id
	b := append(append(make([]byte, 0, len(r.Key)+len(r.Body)), r.Key...), r.Body...)
	q.Key, q.Body = b[:len(r.Key):len(r.Key)], b[len(r.Key):]
	return id, func() { p.ask(&q) }, nil
}

func (p *localPeer) ask(q *Request) {
	id := q.ID
	reply := func(r *Response) {
		p.mu.Lock()
		a, ok := p.pending.take(id)
		p.mu.Unlock()
		if ok {
			a.to.answered(a.n, r)
		}
	}
	switch q.Op {
	case OpRoutes:
		reply(routesResponse(p.backend, uint64(q.RangeVersion)))
	case OpRead:
		p.backend.Read(q, reply)
	default:
		p.backend.Propose(q, reply)
	}
}

func (p *localPeer) withdraw(id uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pending.take(id)
	return false
}

func (p *localPeer) sweep(now time.Time) {
	p.mu.Lock()
	over := p.pending.overdue(now)
	p.mu.Unlock()
	for _, a := range over {
		a.to.lost(a.n, true, errAttemptTimeout)
	}
}

func (p *localPeer) close(why *partition.Error) {
	p.mu.Lock()
	p.closed = why
	all := p.pending.drain()
	p.mu.Unlock()
	for _, a := range all {
		a.to.lost(a.n, true, why)
	}
}
