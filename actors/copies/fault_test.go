package copies

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/store"
)

// badStream is one end of a transfer whose n-th read or write fails, and all after
// it.
type badStream struct {
	Stream
	mu  sync.Mutex
	at  int // from 1; 0: none
	ops int
}

func (s *badStream) next() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ops++; s.at > 0 && s.ops >= s.at {
		_ = s.Stream.Close() // as a connection that broke
		return syscall.ECONNRESET
	}
	return nil
}

func (s *badStream) Read(b []byte) (int, error) {
	if err := s.next(); err != nil {
		return 0, err
	}
	return s.Stream.Read(b)
}

func (s *badStream) Write(b []byte) (int, error) {
	if err := s.next(); err != nil {
		return 0, err
	}
	return s.Stream.Write(b)
}

// badHost makes checkpoints that are not what they should be.
type badHost struct {
	*node
	mu    sync.Mutex
	spoil func(dir string, m *store.Manifest) error
	base  func(*Base)
}

func (h *badHost) Checkpoint(ctx context.Context, g partition.GroupID, dir string) (store.Manifest, error) {
	m, err := h.node.Checkpoint(ctx, g, dir)
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil && h.spoil != nil {
		err = h.spoil(dir, &m)
	}
	return m, err
}

func (h *badHost) Describe(g partition.GroupID, i partition.Index) (Base, error) {
	b, err := h.node.Describe(g, i)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.base != nil {
		h.base(&b)
	}
	return b, err
}

// TestEachOperationOfATransfer: whichever read or write of either end fails, the copy
// ends with that or comes whole by another attempt; nobody keeps a turn, and the next
// copy is served.
func TestEachOperationOfATransfer(t *testing.T) {
	w := newWorld(t)
	a, b := w.add("a", nil), w.add("b", nil)
	s := a.store(t, 7, 1)
	fill(t, s, 1, 20, 500)
	var mine, theirs *badStream
	var side, at int
	b.copies.cfg.Attempts = 1
	b.copies.cfg.Open = func(context.Context, partition.NodeID) (Stream, error) {
		x, y := newPipe()
		mine, theirs = &badStream{Stream: x}, &badStream{Stream: y}
		[]*badStream{mine, theirs}[side].at = at
		go a.copies.Serve("b", theirs)
		return mine, nil
	}
	for side = range 2 {
		for at = 1; ; at++ {
			p, err := b.copies.Fetch(t.Context(), Request{Group: 7, From: "a"})
			if (p == nil) == (err == nil) {
				t.Fatalf("side %d, operation %d: %v, %v", side, at, p, err)
			}
			if p != nil {
				if err := p.Discard(); err != nil {
					t.Error(err)
				}
			}
			bad := []*badStream{mine, theirs}[side]
			bad.mu.Lock()
			ops := bad.ops
			bad.mu.Unlock()
			if ops < at || at > 60 {
				if err != nil || at < 6 {
					t.Errorf("side %d with all in order after %d operations: %v", side, at-1, err)
				}
				break
			}
			if left := b.staged(t); len(left) > 0 {
				t.Errorf("side %d, operation %d: %v is left in the stage", side, at, left)
			}
		}
	}
}

// TestSourceThatIsWrong: a checkpoint that is not what the log or its own manifest
// says is given to nobody, nothing of it stays, and a right one is.
func TestSourceThatIsWrong(t *testing.T) {
	w := newWorld(t)
	var h *badHost
	a := w.add("a", func(c *Config) {
		h = &badHost{node: c.Host.(*node)}
		c.Host = h
	})
	b := w.add("b", nil)
	fill(t, a.store(t, 7, 1), 1, 60, 2000)
	b.copies.cfg.Attempts = 1
	largest := func(m *store.Manifest) *store.File {
		x := slices.MaxFunc(m.Files, func(x, y store.File) int { return int(x.Bytes - y.Bytes) })
		return &m.Files[slices.Index(m.Files, x)]
	}
	for name, c := range map[string]struct {
		spoil func(dir string, m *store.Manifest) error
		base  func(*Base)
		want  []partition.Code
	}{
		"another group":       {spoil: func(_ string, m *store.Manifest) error { m.Group = 8; return nil }, want: []partition.Code{partition.CodeInternal}},
		"no index":            {spoil: func(_ string, m *store.Manifest) error { m.Index = 0; return nil }, want: []partition.Code{partition.CodeUnavailable}},
		"a name that is none": {spoil: func(_ string, m *store.Manifest) error { m.Files[0].Name = "../x"; return nil }, want: []partition.Code{partition.CodeCorrupt, partition.CodeInvalid}},
		"another index":       {base: func(b *Base) { b.Index++ }, want: []partition.Code{partition.CodeInternal}},
		"no configuration": {base: func(b *Base) {
			b.Configuration = partition.NewRecord(partition.Header{Group: 7, Index: 1, Kind: partition.KindMember}, []byte("x"))
		},
			want: []partition.Code{partition.CodeCorrupt, partition.CodeInvalid, partition.CodeNewerFormat}},
		"a file that is short": {spoil: func(dir string, m *store.Manifest) error {
			name := filepath.Join(dir, largest(m).Name) // a hard link: what it was a link to stays
			return errors.Join(os.Remove(name), os.WriteFile(name, make([]byte, 10), 0o600))
		}, want: []partition.Code{partition.CodeCorrupt}},
		"a file that is gone": {spoil: func(dir string, m *store.Manifest) error { return os.Remove(filepath.Join(dir, largest(m).Name)) }, want: []partition.Code{partition.CodeInternal}},
		"a file that is a directory": {spoil: func(dir string, m *store.Manifest) error {
			name := filepath.Join(dir, largest(m).Name)
			return errors.Join(os.Remove(name), os.Mkdir(name, 0o700))
		}, want: []partition.Code{partition.CodeInternal}},
		"an error": {spoil: func(string, *store.Manifest) error { return partition.Errorf(partition.CodeNoSpace, "test") }, want: []partition.Code{partition.CodeNoSpace, partition.CodeUnavailable}},
	} {
		h.mu.Lock()
		h.spoil, h.base = c.spoil, c.base
		h.mu.Unlock()
		p, err := b.copies.Fetch(t.Context(), Request{Group: 7, From: "a"})
		if p != nil || !slices.Contains(c.want, partition.CodeOf(err)) {
			t.Errorf("%s: %v, %v", name, p, err)
		}
		if left := b.staged(t); len(left) > 0 {
			t.Errorf("%s: %v is left where it was to come", name, left)
		}
	}
	h.mu.Lock()
	h.spoil, h.base = nil, nil
	h.mu.Unlock()
	p, err := b.copies.Fetch(t.Context(), Request{Group: 7, From: "a"})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Discard(); err != nil {
		t.Error(err)
	}
}

// TestStageThatIsGone: what wants to write to a stage that cannot be written to any
// more is told, with what it wanted, and that the disk is full if it is.
func TestStageThatIsGone(t *testing.T) {
	w := newWorld(t)
	a := w.add("a", nil)
	fill(t, a.store(t, 7, 1), 1, 10, 100)
	b := w.add("b", nil)
	p, err := b.copies.Fetch(t.Context(), Request{Group: 7, From: "a"})
	if err != nil {
		t.Fatal(err)
	}
	c := b.copies
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	closed, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	o := goodOffer()
	half := func() *fetch {
		f := &fetch{c: c, r: Request{Group: 7, From: "a"}, name: p.name, files: []inFile{{File: store.File{Name: "x", Bytes: 3}}}}
		f.current = openFile{file: closed}
		return f
	}
	for name, f := range map[string]func() error{
		"discard":   p.Discard,
		"tidy":      func() error { return c.tidy() },
		"begin":     func() error { return (&fetch{c: c, r: Request{Group: 7}}).begin(t.Context(), o, 1) },
		"go on":     func() error { f := half(); f.files[0].Name = "gone"; return f.begin(t.Context(), o, 1) },
		"sync":      func() error { return half().syncDirs() },
		"finish":    func() error { _, err := half().finish(); return err },
		"write":     func() error { return half().chunk(0, 0, []byte("ab")) },
		"complete":  func() error { f := half(); return f.complete(&f.files[0]) },
		"create":    func() error { f := half(); f.current = openFile{}; return f.chunk(0, 0, []byte("ab")) },
		"fetch":     func() error { _, err := c.Fetch(t.Context(), Request{Group: 7, From: "a"}); return err },
		"full":      func() error { return local("write", syscall.ENOSPC) },
		"no quota":  func() error { return local("write", syscall.EDQUOT) },
		"make full": func() error { f := half(); f.files[0].Bytes = 0; return f.makeEmpty() },
	} {
		err := f()
		if err == nil {
			t.Errorf("%s: it was done", name)
		}
		if full := name == "full" || name == "no quota"; full != (partition.CodeOf(err) == partition.CodeNoSpace) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c.remove(&checkpoint{name: "x"}) // is only logged
	x, y := newPipe()
	c.Serve("a", x)
	if _, err := y.Read(make([]byte, 1)); err == nil {
		t.Error("a node that is closed serves a copy")
	}
}
