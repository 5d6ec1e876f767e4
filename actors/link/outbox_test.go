package link

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"pando.dev/pando/partition"
)

// pipeEnd is a net.Conn of which tests use parts.
type pipeEnd struct{ net.Conn }

func (pipeEnd) SetReadDeadline(time.Time) error  { return nil }
func (pipeEnd) SetWriteDeadline(time.Time) error { return nil }
func (pipeEnd) Close() error                     { return nil }

// TestOutboxKeepsOrderUnderLoad: many senders, a reader that pauses, frames of
// all sizes: each sender's frames arrive in order, whole and once.
func TestOutboxKeepsOrderUnderLoad(t *testing.T) {
	const senders, each = 8, 2_000
	for name, wrap := range map[string]func(net.Conn) net.Conn{
		"plain":           func(c net.Conn) net.Conn { return c },
		"through a layer": func(c net.Conn) net.Conn { return struct{ net.Conn }{c} }, // as TLS: no gathered writes
	} {
		t.Run(name, func(t *testing.T) {
			client, server := pipe(t)
			o := newOutbox(wrap(client), 1<<20, wait)
			var wg sync.WaitGroup
			wg.Go(func() { _ = o.run() })
			for s := range senders {
				wg.Go(func() {
					for i := range each {
						b := binary.LittleEndian.AppendUint64(nil, uint64(i))
						f := Frame{Kind: KindAppend, From: partition.ReplicaID(s + 1), Body: append(b, make([]byte, i*37%20_000)...)}
						for o.send(&f) != nil {
							runtime.Gosched()
						}
					}
				})
			}
			r := frameReader{conn: server, class: classData}
			var next [senders]uint64
			for range senders * each {
				f, err := r.next()
				if err != nil {
					t.Fatal(err)
				}
				if i := binary.LittleEndian.Uint64(f.Body); i != next[f.From-1] || len(f.Body) != 8+int(i*37%20_000) {
					t.Fatalf("sender %d: frame %d of %d bytes, want %d", f.From, i, len(f.Body), next[f.From-1])
				}
				next[f.From-1]++
			}
			eventually(t, "nothing is held", func() bool { return o.bytes() == 0 })
			o.close()
			o.close()
			wg.Wait()
			if err := o.send(&Frame{Kind: kindPing}); !errors.Is(err, partition.ErrUnavailable) {
				t.Errorf("after close: %v", err)
			}
		})
	}
}

// TestOutboxGivesUpOnAStuckPeer: a peer that takes nothing for the timeout ends
// the connection, and senders are refused meanwhile, not held.
func TestOutboxGivesUpOnAStuckPeer(t *testing.T) {
	client, server := pipe(t)
	o := newOutbox(client, 8<<20, 50*time.Millisecond)
	ended := make(chan error, 1)
	go func() { ended <- o.run() }()
	var err error
	for range 1000 {
		if err = o.send(&Frame{Kind: KindAppend, Body: make([]byte, 1<<20)}); err != nil {
			break
		}
	}
	if !errors.Is(err, partition.ErrBusy) && !errors.Is(err, partition.ErrUnavailable) {
		t.Errorf("a full outbox: %v", err)
	}
	if err := receive(t, ended); !timedOut(err) {
		t.Errorf("ended with %v", err)
	}
	if _, err := io.Copy(io.Discard, server); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Logf("the peer sees %v", err)
	}
}

func TestSendDoesNotAllocate(t *testing.T) {
	client, server := pipe(t)
	o := newOutbox(client, 1<<20, wait)
	done := make(chan struct{})
	go func() { _ = o.run(); close(done) }()
	go func() { _, _ = io.Copy(io.Discard, server) }()
	f := Frame{Kind: KindAppend, Group: 1, Body: make([]byte, 40), Records: []partition.Record{record(1, 1, "x")}}
	send := func() {
		for o.send(&f) != nil {
			runtime.Gosched()
		}
	}
	for range 1000 {
		send()
	}
	if n := testing.AllocsPerRun(1000, send); n > 0.5 {
		t.Errorf("%v allocations per frame", n)
	}
	o.close()
	<-done
}
