package copies

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/store"
)

// half is one direction of a pipe between two nodes: a writer waits while a
// window is full, as over a link.
type half struct {
	mu     sync.Mutex
	moved  sync.Cond
	buf    bytes.Buffer
	window int
	ended  bool
	broken bool
}

func newHalf() *half {
	h := &half{window: 1 << 20}
	h.moved.L = &h.mu
	return h
}

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer h.moved.Broadcast()
	for h.buf.Len() == 0 && !h.ended && !h.broken {
		h.moved.Wait()
	}
	switch {
	case h.broken:
		return 0, io.ErrClosedPipe
	case h.buf.Len() == 0:
		return 0, io.EOF
	}
	return h.buf.Read(p)
}

func (h *half) write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer h.moved.Broadcast()
	for h.buf.Len() >= h.window && !h.ended && !h.broken {
		h.moved.Wait()
	}
	if h.ended || h.broken {
		return 0, io.ErrClosedPipe
	}
	return h.buf.Write(p)
}

func (h *half) end(broken bool) {
	h.mu.Lock()
	h.ended = true
	h.broken = h.broken || broken
	h.moved.Broadcast()
	h.mu.Unlock()
}

// pipe is one end of a transfer.
type pipe struct {
	in, out *half
	spoil   func(p []byte) []byte // of what is written, if set; nil cuts it off
	cut     bool
}

func newPipe() (a, b *pipe) {
	x, y := newHalf(), newHalf()
	return &pipe{in: x, out: y}, &pipe{in: y, out: x}
}

func (p *pipe) Read(b []byte) (int, error) { return p.in.read(b) }

func (p *pipe) Write(b []byte) (int, error) {
	if p.spoil != nil {
		if b = p.spoil(b); b == nil { // what was written before still arrives
			p.cut = true
			p.Close()
			return 0, io.ErrClosedPipe
		}
	}
	return p.out.write(b)
}

func (p *pipe) CloseWrite() error { p.out.end(false); return nil }

func (p *pipe) Close() error {
	p.in.end(true)
	p.out.end(!p.cut)
	return nil
}

// node is one node with stores and copies.
type node struct {
	id     partition.NodeID
	dir    string
	engine *store.Engine
	copies *Copies
	mu     sync.Mutex
	stores map[partition.GroupID]*store.Store
	made   int // checkpoints
	// behind makes Describe fail that often.
	behind int
}

// Checkpoint implements Host.
func (n *node) Checkpoint(ctx context.Context, g partition.GroupID, dir string) (store.Manifest, error) {
	n.mu.Lock()
	s := n.stores[g]
	n.made++
	n.mu.Unlock()
	if s == nil {
		return store.Manifest{}, partition.Errorf(partition.CodeNotFound, "%s is not here", g)
	}
	return s.Checkpoint(ctx, dir)
}

// Describe implements Host.
func (n *node) Describe(g partition.GroupID, i partition.Index) (Base, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.behind > 0 {
		n.behind--
		return Base{}, partition.Errorf(partition.CodeNotFound, "%s begins behind %d", g, i)
	}
	return baseAt(g, i), nil
}

// baseAt makes up what a log says of an index.
func baseAt(g partition.GroupID, i partition.Index) Base {
	m := &partition.Membership{Version: 1, Next: 2, Policy: partition.Policy{Rule: partition.Majority}, Members: []partition.Member{
		{Replica: 1, Node: "a", Zone: "z", Kind: partition.Full, Eligible: true},
	}}
	rec, err := partition.Genesis(g, m)
	if err != nil {
		panic(err)
	}
	return Base{Position: partition.Position{Epoch: 7, Index: i}, Sum: uint32(i) * 3, Configuration: rec}
}

// world is some nodes whose transfers go through pipes.
type world struct {
	tb    testing.TB
	nodes map[partition.NodeID]*node
	mu    sync.Mutex
	opens int
	// cut, if set, is asked for each transfer how to spoil what its source sends.
	cut func(open int) func(p []byte) []byte
}

func newWorld(tb testing.TB) *world {
	return &world{tb: tb, nodes: map[partition.NodeID]*node{}}
}

func (w *world) add(id partition.NodeID, edit func(*Config)) *node {
	w.tb.Helper()
	n := &node{id: id, dir: w.tb.TempDir(), stores: map[partition.GroupID]*store.Store{}}
	e, err := store.NewEngine(store.Options{Dir: n.dir, CacheBytes: 4 << 20, MemoryBytes: 64 << 20})
	if err != nil {
		w.tb.Fatal(err)
	}
	n.engine = e
	cfg := Config{Dir: n.dir, Host: n, Keep: -1, Open: func(_ context.Context, to partition.NodeID) (Stream, error) { return w.open(id, to) }}
	if edit != nil {
		edit(&cfg)
	}
	if n.copies, err = New(cfg); err != nil {
		w.tb.Fatal(err)
	}
	w.nodes[id] = n
	w.tb.Cleanup(func() {
		if err := n.copies.Close(); err != nil {
			w.tb.Errorf("close the copies: %v", err)
		}
		if err := e.Close(); err != nil {
			w.tb.Errorf("close the engine: %v", err)
		}
	})
	return n
}

// open connects two nodes; the second serves.
func (w *world) open(from, to partition.NodeID) (Stream, error) {
	w.mu.Lock()
	w.opens++
	number, cut := w.opens, w.cut
	w.mu.Unlock()
	n := w.nodes[to]
	if n == nil {
		return nil, partition.Errorf(partition.CodeUnavailable, "node %s is away", to)
	}
	a, b := newPipe()
	if cut != nil {
		b.spoil = cut(number)
	}
	go n.copies.Serve(from, b)
	return a, nil
}

func (n *node) store(tb testing.TB, g partition.GroupID, generation uint32) *store.Store {
	tb.Helper()
	s, err := n.engine.Open(g, generation)
	if err != nil {
		tb.Fatal(err)
	}
	n.mu.Lock()
	n.stores[g] = s
	n.mu.Unlock()
	return s
}

// fill applies records from index from to to, of about size bytes each, to keys
// that come again.
func fill(tb testing.TB, s *store.Store, from, to partition.Index, size int) {
	tb.Helper()
	fillKeys(tb, s, from, to, size, func(r *rand.Rand, _ partition.Index) int { return r.IntN(int(to) * 2) })
}

func fillKeys(tb testing.TB, s *store.Store, from, to partition.Index, size int, key func(*rand.Rand, partition.Index) int) {
	tb.Helper()
	r := rand.New(rand.NewPCG(uint64(from), 5))
	for i := from; i <= to; i++ {
		value := make([]byte, size)
		for j := range value {
			value[j] = byte(r.Uint32())
		}
		err := s.Apply(i, func(w partition.Writer) error {
			return w.Set(fmt.Appendf(nil, "\x01%06d", key(r, i)), value)
		})
		if err != nil {
			tb.Fatal(err)
		}
	}
}

// digest sums up a state, whatever files it is in.
func digest(tb testing.TB, s *store.Store) ([32]byte, partition.Index) {
	tb.Helper()
	v, err := s.View()
	if err != nil {
		tb.Fatal(err)
	}
	defer v.Close()
	i, err := v.Applied()
	if err != nil {
		tb.Fatal(err)
	}
	sum, err := v.Digest(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	return sum, i
}

func (w *world) fetch(n *node, r Request) (*Copy, error) {
	ctx, cancel := context.WithTimeout(w.tb.Context(), 5*time.Minute)
	defer cancel()
	return n.copies.Fetch(ctx, r)
}
