package copies

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"sync/atomic"
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/store"
)

// maxRounds bounds how often one transfer may ask for parts.
const maxRounds = 64

// Serve answers one transfer that another node has opened. It returns when that
// is over.
func (c *Copies) Serve(from partition.NodeID, s Stream) {
	if err := c.begin(); err != nil {
		_ = s.Close()
		return
	}
	defer c.work.Done()
	ctx, cancel := context.WithCancel(c.ctx)
	v := &serving{c: c, s: s, ctx: ctx, cancel: cancel, w: wire{s: s, stall: c.cfg.Stall}, asks: make(chan ask)}
	v.t.Peer, v.t.Since = from, time.Now()
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	listening := make(chan struct{})
	go func() {
		defer close(listening)
		v.listen()
	}()
	err := v.run()
	if err != nil {
		v.refuse(err)
	}
	_ = s.CloseWrite()
	v.linger(err)
	stop()
	cancel()
	_ = s.Close()
	<-listening
	switch log := c.cfg.Logger.With("group", v.t.Group, "peer", from, "bytes", v.sent); {
	case err == nil:
		log.Info("copy sent", "took", time.Since(v.t.Since))
	default:
		log.Warn("copy not sent", "err", err)
	}
}

// ask is a message of the fetcher, or why there will be none.
type ask struct {
	kind kind
	body []byte
	err  error
}

// serving is one transfer that goes out.
type serving struct {
	c      *Copies
	s      Stream
	ctx    context.Context
	cancel context.CancelFunc
	w      wire
	asks   chan ask
	t      transfer
	sent   int64
	head   []byte
	data   []byte
}

// listen reads what the fetcher sends. When there is nothing more to come it
// ends the transfer, whatever that is waiting for.
func (v *serving) listen() {
	in := wire{s: v.s}
	kinds := []kind{kindHello}
	for {
		k, body, err := in.receive(kinds...)
		if err != nil {
			v.c.countFoul(err)
		}
		select {
		case v.asks <- ask{kind: k, body: append([]byte(nil), body...), err: err}:
		case <-v.ctx.Done():
			return
		}
		if err != nil {
			return
		}
		kinds = []kind{kindWant, kindDone}
	}
}

// next waits for the fetcher's next message.
func (v *serving) next() (ask, error) {
	limit := time.NewTimer(v.c.cfg.Stall)
	defer limit.Stop()
	select {
	case a := <-v.asks:
		return a, a.err
	case <-limit.C:
		return ask{}, partition.Errorf(partition.CodeTimeout, "the fetcher said nothing for %s", v.c.cfg.Stall)
	case <-v.ctx.Done():
		return ask{}, v.ctx.Err()
	}
}

func (v *serving) run() error {
	a, err := v.next()
	if err != nil {
		return err
	}
	h, err := decodeHello(a.body)
	if err != nil {
		return err
	}
	v.t.Group = h.group
	p, err := v.prepare(h)
	if err != nil {
		return err
	}
	done := false
	defer func() {
		v.c.unuse(p, done)
		v.c.out.done()
	}()
	v.t.total.Store(p.total)
	defer v.c.track(&v.t)()
	if err := v.w.send(kindOffer, p.offer.encode(), nil); err != nil {
		return err
	}
	for range maxRounds {
		a, err := v.next()
		if err != nil {
			return err
		}
		if a.kind == kindDone {
			done = true
			return nil
		}
		wants, err := decodeWants(a.body, p.offer.manifest.Files)
		if err != nil {
			return err
		}
		if err := v.give(p, wants); err != nil {
			return err
		}
	}
	return partition.Errorf(partition.CodeTooLarge, "asked for parts more than %d times", maxRounds)
}

// prepare waits for a turn and a checkpoint, and tells the fetcher meanwhile
// that it is not forgotten. With a nil error the caller has a turn and a use.
func (v *serving) prepare(h hello) (*checkpoint, error) {
	type outcome struct {
		p   *checkpoint
		err error
	}
	ctx, cancel := context.WithCancel(v.ctx)
	defer cancel()
	ready := make(chan outcome, 1)
	var turn atomic.Bool // it has a turn, and waits for a checkpoint
	go func() {
		if err := v.c.out.take(ctx); err != nil {
			ready <- outcome{err: err}
			return
		}
		turn.Store(true)
		p, err := v.c.use(ctx, h)
		if err != nil {
			v.c.out.done()
		}
		ready <- outcome{p, err}
	}()
	beats := time.NewTicker(beat)
	defer beats.Stop()
	var broken error
	for {
		select {
		case o := <-ready:
			if broken != nil && o.err == nil {
				v.c.unuse(o.p, false)
				v.c.out.done()
			}
			return o.p, errors.Join(broken, o.err)
		case a := <-v.asks:
			if broken = a.err; broken == nil {
				broken = foul("a message of kind %d before there was an offer", a.kind)
			}
			cancel()
		case <-beats.C:
			if broken != nil {
				continue
			}
			what := byte(waitsTurn)
			if turn.Load() {
				what = waitsState
			}
			if broken = v.w.send(kindWait, encodeWait(what, v.c.cfg.Concurrent), nil); broken != nil {
				cancel()
			}
		}
	}
}

// give sends the parts that are wanted.
func (v *serving) give(p *checkpoint, wants []want) error {
	left := int64(0)
	for _, w := range wants {
		left += p.offer.manifest.Files[w.file].Bytes - w.from
	}
	v.t.done.Store(p.total - left)
	for _, w := range wants {
		if err := v.file(p, w); err != nil {
			return err
		}
	}
	return v.w.send(kindEnd, nil, nil)
}

// file sends a part of one file. A file that is read from its beginning is
// checked on the way: damage on this disk is told as what it is.
func (v *serving) file(p *checkpoint, w want) error {
	file := p.offer.manifest.Files[w.file]
	f, err := v.c.root.Open(path.Join(p.name, file.Name))
	if err != nil {
		return fmt.Errorf("read a checkpoint: %w", err)
	}
	defer func() { _ = f.Close() }()
	sum := uint32(0)
	for off := w.from; off < file.Bytes; {
		n := int(min(int64(v.c.bucket.portion(chunkBytes)), file.Bytes-off))
		data, err := v.chunk(f, file, off, n)
		if err != nil {
			return err
		}
		sum = update(sum, data)
		if err := v.c.bucket.take(v.ctx, n); err != nil {
			return err
		}
		v.head = encodeChunk(v.head, w.file, off)
		if err := v.w.send(kindChunk, v.head, data); err != nil {
			return err
		}
		off += int64(n)
		v.sent += int64(n)
		v.t.done.Add(int64(n))
		v.c.count.sent.Add(int64(n))
	}
	if w.from == 0 && sum != file.CRC32C {
		v.c.count.damaged.Add(1)
		v.c.cfg.Logger.Error("damaged state file", "group", v.t.Group, "file", file.Name)
		return partition.Errorf(partition.CodeCorrupt, "file %s of the source's state is damaged", file.Name)
	}
	return nil
}

// chunk reads n bytes at off.
func (v *serving) chunk(f *os.File, file store.File, off int64, n int) ([]byte, error) {
	if cap(v.data) < n {
		v.data = make([]byte, chunkBytes)
	}
	data := v.data[:n]
	if got, err := f.ReadAt(data, off); got < n {
		if errors.Is(err, io.EOF) {
			return nil, partition.Errorf(partition.CodeCorrupt, "file %s of the source's state ends at %d, not at %d", file.Name, off+int64(got), file.Bytes)
		}
		return nil, fmt.Errorf("read %s: %w", file.Name, err)
	}
	return data, nil
}

// refuse tells the fetcher why there is no copy, if it still listens.
func (v *serving) refuse(err error) {
	if v.ctx.Err() != nil {
		err = partition.Errorf(partition.CodeClosed, "the source is shutting down")
	}
	v.c.count.refused.Add(1)
	_ = v.w.send(kindRefuse, encodeRefusal(err), nil)
}

// linger gives the fetcher time to read what was sent last: closing a transfer
// drops what is still on its way.
func (v *serving) linger(err error) {
	if err == nil {
		return // it said that it has everything
	}
	limit := time.NewTimer(min(v.c.cfg.Stall, time.Second))
	defer limit.Stop()
	for {
		select {
		case a := <-v.asks:
			if a.err != nil {
				return
			}
		case <-limit.C:
			return
		case <-v.ctx.Done():
			return
		}
	}
}

// countFoul counts what should not have been sent.
func (c *Copies) countFoul(err error) {
	var f *foulError
	if errors.As(err, &f) {
		c.count.damaged.Add(1)
	}
}
