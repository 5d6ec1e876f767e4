package link

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"pando.dev/pando/partition"
)

const (
	// bulkWindow is how many bytes may be on their way to a reader that has not
	// taken them.
	bulkWindow = 4 << 20
	// bulkChunk is how much one frame carries.
	bulkChunk = 256 << 10
)

// Bulk is one transfer between two nodes on a connection of its own, so that it
// delays neither heartbeats nor records. Either side may write; a writer waits
// until the reader at the other end has room. One goroutine may read and
// another write.
type Bulk struct {
	conn    net.Conn
	silence time.Duration
	release func()

	mu      sync.Mutex
	changed sync.Cond // anything below has changed
	credit  int       // bytes that we may still send
	in      [][]byte  // chunks not yet read; together at most bulkWindow
	inBytes int
	unpaid  int  // bytes read and not yet given back as credit
	ended   bool // the peer will send no more
	sealed  bool // we have said that we will send no more
	err     error
	alive   *time.Timer

	writing sync.Mutex // one frame at a time
	buf     []byte     // the frame being written
}

// OpenBulk opens a transfer to a node, which serves it with its OnBulk.
func (l *Links) OpenBulk(ctx context.Context, n partition.NodeID) (*Bulk, error) {
	c, err := l.dialNode(ctx, n, classBulk)
	if err != nil {
		return nil, fmt.Errorf("open a transfer to node %s: %w", n, err)
	}
	if !l.track(c) {
		return nil, partition.Errorf(partition.CodeClosed, "the links are closed")
	}
	return l.newBulk(c, func() { l.untrack(c) }), nil
}

// acceptBulk serves a transfer until its handler returns.
func (l *Links) acceptBulk(in *incoming) {
	k := l.linkTo(in.hello.from)
	switch {
	case l.c.OnBulk == nil:
		l.turnAway(in, RefusedClass, "this node takes no transfers")
		return
	case k == nil || k.bulk.Add(1) > int64(l.c.MaxBulk):
		if k != nil {
			k.bulk.Add(-1)
		}
		l.turnAway(in, RefusedBusy, "too many transfers")
		return
	}
	defer k.bulk.Add(-1)
	if err := l.answer(in, 0, ""); err != nil {
		in.Close()
		return
	}
	l.known(in)
	b := l.newBulk(in.Conn, func() {})
	defer b.Close()
	l.c.OnBulk(in.hello.from, b)
}

func (l *Links) newBulk(c net.Conn, release func()) *Bulk {
	b := &Bulk{conn: c, silence: l.c.Silence, release: release, credit: bulkWindow}
	b.changed.L = &b.mu
	b.alive = time.AfterFunc(b.silence/3, b.keepAlive)
	l.wg.Go(func() {
		err := b.receive()
		var bad *protocolError
		if errors.As(err, &bad) {
			l.n.bad[bad.reason].Add(1)
		}
		b.fail(err)
	})
	return b
}

// receive takes the peer's frames. It never waits for the reader: the credit
// that we gave is how much there can be.
func (b *Bulk) receive() error {
	frames := frameReader{conn: b.conn, class: classBulk, silence: b.silence}
	for {
		f, err := frames.next()
		if err != nil {
			return err
		}
		if err := b.take(f); err != nil {
			return err
		}
	}
}

func (b *Bulk) take(f Frame) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.changed.Broadcast()
	switch f.Kind {
	case kindChunk:
		b.inBytes += len(f.Body)
		if b.ended || b.inBytes+b.unpaid > bulkWindow {
			return frameError(badBody, "%d bytes of a transfer beyond the credit", b.inBytes+b.unpaid-bulkWindow)
		}
		b.in = append(b.in, f.Body)
	case kindCredit:
		if len(f.Body) != 4 {
			return frameError(badBody, "credit of %d bytes", len(f.Body))
		}
		n := int(binary.LittleEndian.Uint32(f.Body))
		if b.credit += n; n > bulkWindow || b.credit > bulkWindow {
			return frameError(badBody, "credit beyond the window")
		}
	case kindEnd:
		b.ended = true
	}
	return nil
}

// Read returns what has come in; io.EOF after the peer's CloseWrite.
func (b *Bulk) Read(p []byte) (int, error) {
	b.mu.Lock()
	for len(b.in) == 0 && !b.ended && b.err == nil && len(p) > 0 {
		b.changed.Wait()
	}
	if len(b.in) == 0 {
		err := b.err
		if b.ended {
			err = io.EOF
		}
		b.mu.Unlock()
		return 0, err
	}
	n := copy(p, b.in[0])
	if b.in[0] = b.in[0][n:]; len(b.in[0]) == 0 {
		b.in[0] = nil
		b.in = b.in[1:]
	}
	b.inBytes -= n
	b.unpaid += n
	pay := 0
	if b.unpaid >= bulkWindow/4 {
		pay, b.unpaid = b.unpaid, 0
	}
	b.mu.Unlock()
	if pay > 0 {
		_ = b.frame(Frame{Kind: kindCredit, Body: binary.LittleEndian.AppendUint32(nil, uint32(pay))}) // fail tells the next Read
	}
	return n, nil
}

// Write sends p, waiting for room at the reader. It returns early if the
// transfer breaks or is closed.
func (b *Bulk) Write(p []byte) (written int, err error) {
	for len(p) > 0 {
		n, err := b.reserve(min(len(p), bulkChunk))
		if err != nil {
			return written, err
		}
		if err := b.frame(Frame{Kind: kindChunk, Body: p[:n]}); err != nil {
			return written, err
		}
		written += n
		p = p[n:]
	}
	return written, nil
}

// reserve waits for credit and takes up to n bytes of it.
func (b *Bulk) reserve(n int) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.credit == 0 && b.err == nil && !b.sealed {
		b.changed.Wait()
	}
	switch {
	case b.sealed:
		return 0, partition.Errorf(partition.CodeClosed, "write after the end of a transfer")
	case b.err != nil:
		return 0, b.err
	}
	n = min(n, b.credit)
	b.credit -= n
	return n, nil
}

// CloseWrite tells the peer that nothing more comes.
func (b *Bulk) CloseWrite() error {
	b.mu.Lock()
	done := b.sealed
	b.sealed = true
	b.changed.Broadcast()
	b.mu.Unlock()
	if done {
		return nil
	}
	return b.frame(Frame{Kind: kindEnd})
}

// Close ends the transfer. What was written may not have been read; only the
// peer's own answer tells.
func (b *Bulk) Close() error {
	b.fail(partition.Errorf(partition.CodeClosed, "the transfer is closed"))
	return nil
}

// frame writes one frame. A peer that takes nothing for long is gone.
func (b *Bulk) frame(f Frame) error {
	b.writing.Lock()
	defer b.writing.Unlock()
	b.buf = f.append(b.buf[:0])
	err := b.conn.SetWriteDeadline(time.Now().Add(b.silence))
	if err == nil {
		_, err = b.conn.Write(b.buf)
	}
	if err != nil {
		err = fmt.Errorf("write to a transfer: %w", err)
		b.fail(err)
	}
	return err
}

// keepAlive sends an empty credit, so that a pause of reader or writer is not
// taken for the end of the node.
func (b *Bulk) keepAlive() {
	if err := b.frame(Frame{Kind: kindCredit, Body: make([]byte, 4)}); err != nil {
		return
	}
	b.mu.Lock()
	if b.err == nil {
		b.alive.Reset(b.silence / 3)
	}
	b.mu.Unlock()
}

// fail ends the transfer with the first error.
func (b *Bulk) fail(err error) {
	b.mu.Lock()
	first := b.err == nil
	if first {
		b.err = err
		b.alive.Stop()
	}
	b.changed.Broadcast()
	b.mu.Unlock()
	if first {
		b.conn.Close()
		b.release()
	}
}
