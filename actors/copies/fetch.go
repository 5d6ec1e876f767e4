package copies

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/store"
	"pando.dev/pando/wal"
)

const (
	// maxAnew bounds how often a fetch begins anew because the source's
	// checkpoint is gone, and maxDamaged how often one file may come damaged.
	maxAnew    = 8
	maxDamaged = 3
	// thanksWait bounds the wait for the source to hear that it is done.
	thanksWait = time.Second
)

// Request says which copy is wanted.
type Request struct {
	Group partition.GroupID
	From  partition.NodeID // the node that serves it
	// Else are other nodes that have the state. They are asked in turn when From
	// does not bring it; what one of them sends is a copy of its own, of which only
	// tables are not sent that came before.
	Else []partition.NodeID
	// Have, if set, is a directory with another state of the group on this node, of
	// which tables are taken that are the same. It may change or vanish meanwhile.
	Have string
	// MinIndex is the least index that the state must have: 0, or where the log
	// of the replica that gets it begins.
	MinIndex partition.Index
}

// Copy is a state that was received whole: every file has the length and the
// checksum of the manifest and is on disk.
type Copy struct {
	// Dir holds the files. It belongs to the caller, who moves it away or
	// discards it.
	Dir      string
	Manifest store.Manifest
	Base     partition.Position
	BaseSum  uint32
	// Configuration is the record of the configuration in force at Base.
	Configuration partition.Record

	c    *Copies
	name string
}

// Install is what the log must be told when the state has been put in place as
// the given generation.
func (p *Copy) Install(generation uint32) *wal.Install {
	return &wal.Install{Base: p.Base, BaseSum: p.BaseSum, Generation: generation, Configuration: p.Configuration}
}

// Discard removes the files, if they are still there.
func (p *Copy) Discard() error {
	if err := p.c.root.RemoveAll(p.name); err != nil {
		return fmt.Errorf("discard a copy of %s: %w", p.Manifest.Group, err)
	}
	return nil
}

// fetch is one copy that comes in.
type fetch struct {
	c    *Copies
	r    Request
	t    transfer
	from partition.NodeID
	name string // of its directory in the stage; empty: not made
	old  string // what an earlier fetch has left there, if anything

	offer    offer
	files    []inFile // as in the offer
	reserved int64    // of Copies.reserved
	anew     int
	got      int64 // bytes received, over all attempts
	unasked  int64 // of them since the free space was looked at
	current  openFile
}

// Fetch brings a copy of a group's state here from another node. A transfer that
// breaks is taken up where it broke, if the source still has the checkpoint;
// whatever is damaged is fetched again. Other sources are asked when one does not
// bring it. The fetch ends with ctx, or when no source brought anything in
// Config.Attempts attempts; the tables that came are kept for the next one.
//
// The errors that another try will not change are those of this node's disk
// (CodeNoSpace), of limits (CodeTooLarge), and what all sources refuse for good:
// CodeNotFound, CodeRefused, CodeCorrupt (its own state is damaged: ask another).
func (c *Copies) Fetch(ctx context.Context, r Request) (*Copy, error) {
	if r.Group == 0 || r.From == "" {
		return nil, partition.Errorf(partition.CodeInvalid, "a fetch needs a group and a node, not %s and %q", r.Group, r.From)
	}
	if err := c.begin(); err != nil {
		return nil, err
	}
	defer c.work.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	f := &fetch{c: c, r: r, from: r.From}
	f.t.Progress = Progress{Group: r.Group, Peer: r.From, Incoming: true, Since: time.Now(), Waits: c.in.why("incoming")}
	if err := c.enter(f); err != nil {
		return nil, err
	}
	defer c.exit(f)
	if err := c.in.take(ctx); err != nil {
		return nil, fmt.Errorf("fetch %s from %s: %w", r.Group, r.From, err)
	}
	defer c.in.done()
	c.wait(&f.t, "")
	defer c.track(&f.t)()
	f.old = c.claim(r.Group)
	p, err := f.run(ctx)
	if err != nil {
		if c.ctx.Err() != nil {
			err = partition.Errorf(partition.CodeClosed, "the node is shutting down")
		}
		return nil, fmt.Errorf("fetch %s from %s: %w", r.Group, f.from, err)
	}
	c.count.copies.Add(1)
	c.cfg.Logger.Info("copy received", "group", r.Group, "peer", f.from, "index", uint64(p.Base.Index),
		"bytes", f.t.total.Load(), "took", time.Since(f.t.Since))
	return p, nil
}

// enter makes f the one fetch of its group.
func (c *Copies) enter(f *fetch) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fetching[f.r.Group] != nil {
		return partition.Errorf(partition.CodeBusy, "a copy of %s is being fetched already", f.r.Group)
	}
	c.fetching[f.r.Group] = f
	return nil
}

func (c *Copies) exit(f *fetch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.fetching, f.r.Group)
	c.reserved -= f.reserved
}

// run tries until everything is here, one source after the other.
func (f *fetch) run(ctx context.Context) (p *Copy, err error) {
	defer func() {
		f.current.close()
		if err != nil {
			err = errors.Join(err, f.giveUp(err))
		}
	}()
	sources := append([]partition.NodeID{f.r.From}, f.r.Else...)
	bound := f.c.cfg.Attempts * len(sources)
	idle, here := 0, 0 // attempts in a row that brought nothing, and those of them at this source
	for {
		before := f.got
		err := f.attempt(ctx)
		if err == nil {
			return f.finish()
		}
		f.current.close()
		f.c.countFoul(err)
		f.c.count.broken.Add(1)
		if idle, here = idle+1, here+1; f.got > before {
			idle, here = 1, 1
		}
		no := refuses(err)
		switch at := slices.Index(sources, f.from); {
		case ctx.Err() != nil:
			return nil, errors.Join(ctx.Err(), err)
		case lasting(err) && (!no || len(sources) == 1), idle >= bound:
			return nil, err
		case no:
			sources = slices.Delete(sources, at, at+1)
			f.turnTo(sources[at%len(sources)])
			here = 0
		case here >= f.patience() && len(sources) > 1:
			f.turnTo(sources[(at+1)%len(sources)])
			here = 0
		}
		f.c.cfg.Logger.Info("copy interrupted", "group", f.r.Group, "peer", f.from, "done", f.t.done.Load(), "err", err)
		if err := sleep(ctx, backoff(max(1, (idle+len(sources)-1)/len(sources)))); err != nil {
			return nil, err
		}
	}
}

// patience is how many attempts in a row may bring nothing before another source is
// asked. One that has sent something is waited for for longer: from another all but
// the same tables come anew.
func (f *fetch) patience() int {
	if f.got == 0 {
		return 1
	}
	return max(1, f.c.cfg.Attempts/2)
}

// turnTo goes on with another source. What came is compared with what it offers.
func (f *fetch) turnTo(n partition.NodeID) {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	f.from, f.t.Peer = n, n
}

// giveUp leaves what has come to the next fetch, unless that is what there was no
// space for.
func (f *fetch) giveUp(why error) error {
	var errs []error
	for _, name := range []string{f.old, f.name} {
		switch {
		case name == "":
		case partition.CodeOf(why) == partition.CodeNoSpace:
			errs = append(errs, f.c.root.RemoveAll(name))
		default:
			errs = append(errs, f.c.leave(name, f.r.Group.String()))
		}
	}
	return errors.Join(errs...)
}

// backoff is the wait after the nth attempt in a row that brought nothing.
func backoff(n int) time.Duration {
	d := min(firstWait<<(min(n, 10)-1), lastWait)
	return d/2 + rand.N(d/2+1)
}

// attempt opens a transfer and gets as far as that goes; nil: everything is
// here.
func (f *fetch) attempt(ctx context.Context) error {
	s, err := f.c.cfg.Open(ctx, f.from)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	defer context.AfterFunc(ctx, func() { _ = s.Close() })()
	w := &wire{s: s, stall: f.c.cfg.Stall}
	h := hello{group: f.r.Group, min: f.r.MinIndex, checkpoint: f.offer.checkpoint}
	if err := w.send(kindHello, h.encode(), nil); err != nil {
		return err
	}
	if err := f.await(ctx, w); err != nil {
		return err
	}
	for round := 0; ; round++ {
		wants := f.wants()
		if len(wants) == 0 {
			break
		}
		if round == maxRounds {
			return foul("no whole copy in %d rounds", maxRounds)
		}
		if err := w.send(kindWant, encodeWants(wants), nil); err != nil {
			return err
		}
		if err := f.receive(ctx, w); err != nil {
			return err
		}
	}
	f.thank(w)
	return nil
}

// thank tells the source that everything is here, and waits until it has heard
// it: closing at once could drop what is on its way. If it does get lost the
// source only keeps its checkpoint a little longer.
func (f *fetch) thank(w *wire) {
	if w.send(kindDone, nil, nil) == nil && w.s.CloseWrite() == nil {
		w.stall = min(w.stall, thanksWait)
		_, _, _ = w.receive()
	}
}

// await waits for the source's offer.
func (f *fetch) await(ctx context.Context, w *wire) error {
	defer f.c.wait(&f.t, "")
	for {
		k, body, err := w.receive(kindWait, kindOffer, kindRefuse)
		switch {
		case err != nil:
			return err
		case k == kindRefuse:
			return decodeRefusal(body)
		case k == kindWait:
			f.c.wait(&f.t, decodeWait(body, f.from))
		case k == kindOffer:
			f.c.wait(&f.t, "")
			o, err := decodeOffer(body)
			if err != nil {
				return err
			}
			return f.adopt(ctx, o)
		}
	}
}

// adopt begins with an offer, or goes on with it.
func (f *fetch) adopt(ctx context.Context, o offer) error {
	switch {
	case o.manifest.Group != f.r.Group:
		return foul("an offer of %s, wanted is %s", o.manifest.Group, f.r.Group)
	case o.base.Index < f.r.MinIndex:
		return foul("an offer at %d, wanted is %d", o.base.Index, f.r.MinIndex)
	case o.checkpoint == f.offer.checkpoint:
		return nil
	}
	total, err := checkFiles(o.manifest.Files)
	if err != nil {
		return err
	}
	if total > f.c.cfg.MaxBytes {
		return &localError{partition.Errorf(partition.CodeTooLarge, "a copy of %d bytes, limit %d", total, f.c.cfg.MaxBytes)}
	}
	if f.anew++; f.anew > maxAnew {
		return &localError{partition.Errorf(partition.CodeUnavailable, "the source gave up its checkpoint %d times", maxAnew)}
	}
	return f.begin(ctx, o, total)
}

// receive takes the parts that were asked for.
func (f *fetch) receive(ctx context.Context, w *wire) error {
	for {
		k, body, err := w.receive(kindChunk, kindEnd, kindRefuse)
		switch {
		case err != nil:
			return err
		case k == kindRefuse:
			return decodeRefusal(body)
		case k == kindEnd:
			for i := range f.files {
				if x := &f.files[i]; x.have < x.Bytes && x.damaged == 0 {
					return foul("the end before file %s was whole", x.Name)
				}
			}
			return nil
		}
		file, off, data, err := decodeChunk(body)
		if err != nil {
			return err
		}
		if err := f.chunk(file, off, data); err != nil {
			return err
		}
		if err := f.c.gets.take(ctx, len(data)); err != nil { // the source waits, as it has no more credit
			return err
		}
	}
}

// finish makes the directory durable and hands it over.
func (f *fetch) finish() (*Copy, error) {
	if err := f.syncDirs(); err != nil {
		return nil, err
	}
	dir := filepath.Join(f.c.stage, f.name)
	if verify := f.c.cfg.Verify; verify != nil {
		index, err := verify(dir)
		if err != nil {
			return nil, fmt.Errorf("open the copy: %w", err)
		}
		if index != f.offer.base.Index {
			return nil, partition.Errorf(partition.CodeCorrupt, "the copy is at %d and was announced at %d", index, f.offer.base.Index)
		}
	}
	return &Copy{
		Dir: dir, Manifest: f.offer.manifest, Base: f.offer.base.Position, BaseSum: f.offer.base.Sum,
		Configuration: f.offer.base.Configuration, c: f.c, name: f.name,
	}, nil
}
