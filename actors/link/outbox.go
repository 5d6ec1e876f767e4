package link

import (
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"pando.dev/pando/partition"
)

const (
	// writeStep is how much is written under one deadline.
	writeStep = 256 << 10
	// keepBuffer is the largest buffer kept for the next batch.
	keepBuffer = 1 << 20
)

// outbox is the sending side of a connection: bounded, never blocking for its
// callers, and writing all that has queued up at once.
//
// Whoever finds the connection idle owns its write side for one attempt that
// does not block: a lone frame leaves on its sender's goroutine, without waking
// another. What the kernel does not take, and what others queue meanwhile, is
// the writer goroutine's. Over TLS every write may block, so there the writer
// does it all.
type outbox struct {
	conn    net.Conn
	raw     syscall.RawConn // nil: no attempts without blocking
	limit   int
	timeout time.Duration
	wake    chan struct{} // from the owner of writing to the writer
	done    chan struct{} // closed with the outbox

	mu      sync.Mutex
	queued  []byte // encoded frames that nobody has taken yet
	taken   []byte // what the owner of writing has still to write
	spare   []byte
	held    int  // bytes queued and taken
	writing bool // the write side has an owner
	closed  bool
	attempt attempt // used by the owner of writing
}

func newOutbox(c net.Conn, limit int, timeout time.Duration) *outbox {
	o := &outbox{conn: c, limit: limit, timeout: timeout, wake: make(chan struct{}, 1), done: make(chan struct{})}
	if t, ok := c.(*net.TCPConn); ok && canTry {
		if raw, err := t.SyscallConn(); err == nil {
			o.raw = raw
		}
	}
	o.attempt.do = o.attempt.try
	return o
}

// send queues a frame. It copies it and does not block. A frame is taken if the
// outbox is empty, whatever the limit.
func (o *outbox) send(f *Frame) error {
	n := f.bodyBytes()
	sum := f.bodySum()
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		return partition.Errorf(partition.CodeUnavailable, "the link is closed")
	}
	if o.held+n+HeaderBytes > o.limit && o.held > 0 {
		held := o.held
		o.mu.Unlock()
		return partition.Errorf(partition.CodeBusy, "%d bytes wait for the peer, limit %d", held, o.limit)
	}
	o.held += n + HeaderBytes
	o.queued = f.appendTo(o.queued, n, sum)
	if o.writing {
		o.mu.Unlock()
		return nil
	}
	o.writing = true
	o.take()
	o.mu.Unlock()
	o.flush()
	return nil
}

// take makes all that is queued the owner's. It is called with the lock.
func (o *outbox) take() {
	o.taken, o.queued, o.spare = o.queued, o.spare[:0], nil
}

// wrote is called by the owner when n bytes of taken are out. It reports whether
// the owner must go on; otherwise it is the owner no more.
func (o *outbox) wrote(n int) (more bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.held -= n
	if n < len(o.taken) {
		o.taken = o.taken[n:]
		return true
	}
	if cap(o.taken) <= keepBuffer {
		o.spare = o.taken[:0]
	}
	o.taken = nil
	if o.closed || len(o.queued) == 0 {
		o.writing = false
		return false
	}
	o.take()
	return true
}

// flush is the owner's one attempt; what is left goes to the writer.
func (o *outbox) flush() {
	if o.raw != nil {
		n, err := o.attempt.write(o.raw, o.taken)
		if err != nil {
			o.close()
		}
		if !o.wrote(n) {
			return
		}
	}
	select {
	case o.wake <- struct{}{}:
	case <-o.done:
	}
}

// run is the writer goroutine. It ends with the outbox.
func (o *outbox) run() error {
	for {
		select {
		case <-o.wake:
		case <-o.done:
			return nil
		}
		for more := true; more; {
			n, err := o.writeStep()
			if err != nil {
				o.close()
				return fmt.Errorf("write frames: %w", err)
			}
			more = o.wrote(n)
		}
	}
}

// writeStep writes some of what is taken, with a deadline: a peer that takes
// nothing for that long is gone.
func (o *outbox) writeStep() (int, error) {
	step := o.taken
	if len(step) > writeStep {
		step = step[:writeStep]
	}
	if err := o.conn.SetWriteDeadline(time.Now().Add(o.timeout)); err != nil {
		return 0, err
	}
	return o.conn.Write(step)
}

// close refuses what comes from now on and closes the connection.
func (o *outbox) close() {
	o.mu.Lock()
	if !o.closed {
		o.closed = true
		close(o.done)
	}
	o.mu.Unlock()
	o.conn.Close()
}

// bytes returns how much waits to be sent.
func (o *outbox) bytes() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.held
}

// attempt is one write that does not block. It is kept, with its method value,
// so that an attempt does not allocate.
type attempt struct {
	do  func(fd uintptr) bool
	b   []byte
	n   int
	err error
}

func (a *attempt) write(raw syscall.RawConn, b []byte) (int, error) {
	a.b, a.n, a.err = b, 0, nil
	err := raw.Write(a.do)
	a.b = nil
	if err == nil {
		err = a.err
	}
	return a.n, err
}

// try always returns true: it does not want to wait until the socket has room.
func (a *attempt) try(fd uintptr) bool {
	a.n, a.err = tryWrite(fd, a.b)
	return true
}
