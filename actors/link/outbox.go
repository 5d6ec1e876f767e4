package link

import (
	"fmt"
	"net"
	"sync"
	"time"

	"pando.dev/pando/partition"
)

const (
	// sendChunk is the unit of memory for encoded frames; keepChunks of them stay
	// for the next batch.
	sendChunk  = 64 << 10
	keepChunks = 16
	// largePart is from how many bytes on a body or record is not copied.
	largePart = 8 << 10
)

// outbox is the sending side of a connection: bounded, never blocking for its
// callers, and writing all that has queued up at once.
//
// The writer is a goroutine of its own. Senders that write themselves while the
// connection is quiet were tried and taken out again: DESIGN.md has the numbers.
type outbox struct {
	conn    net.Conn
	limit   int
	timeout time.Duration
	wake    chan struct{} // from who found the writer idle
	done    chan struct{} // closed with the outbox

	mu     sync.Mutex
	queued batch
	held   int  // bytes queued and being written
	busy   bool // the writer has something to write
	closed bool

	// The writer's while busy.
	taken    batch
	gathered net.Buffers // of taken; kept so that writing does not allocate
}

func newOutbox(c net.Conn, limit int, timeout time.Duration) *outbox {
	o := &outbox{conn: c, limit: limit, timeout: timeout, wake: make(chan struct{}, 1), done: make(chan struct{})}
	// Only a socket writes many parts at once; TLS would make a record of each.
	_, o.queued.gather = c.(*net.TCPConn)
	o.taken.gather = o.queued.gather
	return o
}

// send queues a frame and does not block. A frame is taken if the outbox is
// empty, whatever the limit.
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
	o.queued.add(f, n, sum)
	if o.busy {
		o.mu.Unlock()
		return nil
	}
	o.busy = true
	o.take()
	o.mu.Unlock()
	o.wake <- struct{}{} // has room: the writer took the last one before it fell idle
	return nil
}

// take makes all that is queued the writer's. It is called with the lock.
func (o *outbox) take() { o.queued, o.taken = o.taken, o.queued }

// wrote is called when all that the writer took is out, and reports whether
// there is more.
func (o *outbox) wrote() (more bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.held -= o.taken.bytes
	o.taken.reset()
	if o.queued.bytes == 0 {
		o.busy = false
		return false
	}
	o.take()
	return true
}

// run is the writer goroutine. It ends with the outbox.
func (o *outbox) run() error {
	for {
		select {
		case <-o.wake:
		case <-o.done:
			return nil
		}
		for more := true; more; more = o.wrote() {
			if err := o.write(); err != nil {
				o.close()
				return fmt.Errorf("write frames: %w", err)
			}
		}
	}
}

// write writes what is taken, with a deadline: a peer that takes nothing for
// long is gone.
func (o *outbox) write() error {
	d := o.timeout + time.Duration(o.taken.bytes/slowest)*time.Second
	if err := o.conn.SetWriteDeadline(time.Now().Add(d)); err != nil {
		return err
	}
	o.taken.cut()
	if o.taken.gather && len(o.taken.parts) > 1 {
		o.gathered = o.taken.parts
		_, err := o.gathered.WriteTo(o.conn)
		return err
	}
	for _, p := range o.taken.parts {
		if _, err := o.conn.Write(p); err != nil {
			return err
		}
	}
	return nil
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

// batch is encoded frames: small parts are copied into chunks, large ones are
// referred to.
type batch struct {
	gather bool     // refer to large parts
	parts  [][]byte // in order, before tail
	tail   []byte   // what has been copied since the last part
	bytes  int
	used   [][]byte // the chunks in parts and tail
	free   [][]byte // chunks for reuse
}

func (b *batch) add(f *Frame, n int, sum uint32) {
	b.bytes += n + HeaderBytes
	if cap(b.tail)-len(b.tail) < HeaderBytes {
		b.grow()
	}
	b.tail = f.appendHeader(b.tail, n, sum)
	b.put(f.Body)
	for _, r := range f.Records {
		b.put(r)
	}
}

func (b *batch) put(x []byte) {
	if b.gather && len(x) >= largePart {
		b.cut()
		b.parts = append(b.parts, x)
		return
	}
	for len(x) > 0 {
		if len(b.tail) == cap(b.tail) {
			b.grow()
		}
		n := min(len(x), cap(b.tail)-len(b.tail))
		b.tail = append(b.tail, x[:n]...)
		x = x[n:]
	}
}

// cut makes a part of the tail; what comes goes on behind it in the same chunk.
func (b *batch) cut() {
	if n := len(b.tail); n > 0 {
		b.parts = append(b.parts, b.tail)
		b.tail = b.tail[n:]
	}
}

// grow begins a new chunk.
func (b *batch) grow() {
	b.cut()
	if n := len(b.free); n > 0 {
		b.tail, b.free = b.free[n-1], b.free[:n-1]
	} else {
		b.tail = make([]byte, 0, sendChunk)
	}
	b.used = append(b.used, b.tail)
}

// reset empties the batch and keeps some of its memory.
func (b *batch) reset() {
	room := max(0, keepChunks-len(b.free))
	b.free = append(b.free, b.used[:min(room, len(b.used))]...)
	clear(b.used)
	clear(b.parts)
	b.parts, b.used, b.tail, b.bytes = b.parts[:0], b.used[:0], nil, 0
}
