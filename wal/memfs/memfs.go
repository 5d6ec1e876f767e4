package memfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"

	"pando.dev/pando/wal"
)

// ErrPowerLoss is for hooks that simulate it.
var ErrPowerLoss = errors.New("power loss")

// Kind is a kind of operation.
type Kind uint8

// The operations that a hook is asked about.
const (
	Create Kind = iota + 1
	Open
	Rename
	Remove
	List
	SyncDir
	Read
	Write
	Sync
)

// String returns the operation's name.
func (k Kind) String() string {
	names := [...]string{"", "create", "open", "rename", "remove", "list", "syncdir", "read", "write", "sync"}
	return names[k]
}

// Op is one operation about to happen.
type Op struct {
	Kind  Kind
	Name  string
	Off   int64 // Read, Write
	Bytes int64 // Create, Read, Write
}

// Changes reports whether the operation can change what is on disk.
func (o Op) Changes() bool {
	return o.Kind != Open && o.Kind != List && o.Kind != Read
}

// FS is a file system in memory. Its methods may be called from any goroutine.
type FS struct {
	mu   sync.Mutex
	rand *rand.Rand
	hook func(Op) error
	// names are the directory entries that programs see, disk those that are
	// durable; moves are what happened to names since, in order.
	names, disk map[string]*file
	moves       []move
	// capacity is the size of the disk, 0: unlimited; used is taken by others.
	capacity, used int64
}

// move is a change of names: a creation, if from is empty, or a removal, if to
// is.
type move struct {
	from, to string
	file     *file
}

var (
	_ wal.FS         = (*FS)(nil)
	_ wal.FreeSpacer = (*FS)(nil)
)

// New returns an empty file system.
func New(seed uint64) *FS {
	return &FS{rand: rand.New(rand.NewPCG(seed, 0)), names: map[string]*file{}, disk: map[string]*file{}}
}

// OnOp sets the hook that is asked before every operation; an error lets it
// fail with nothing done (a Sync: with some of the sectors on disk, and none to
// be synced again). It must not call the FS.
func (m *FS) OnOp(hook func(Op) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hook = hook
}

// SetSpace sets the size of the disk (0: unlimited) and what others use of it.
func (m *FS) SetSpace(capacity, used int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.capacity, m.used = capacity, used
}

// Crash returns the file system after a loss of power. The old one goes on
// unchanged. With keep 0 nothing unsynced survives, with 1 everything, between
// them each sector with that probability.
func (m *FS) Crash(seed uint64, keep float64) *FS {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := New(seed)
	n.capacity, n.used = m.capacity, m.used
	survives := func() bool { return keep >= 1 || keep > 0 && n.rand.Float64() < keep }
	names := make(map[string]*file, len(m.disk))
	for name, f := range m.disk {
		names[name] = f
	}
	for _, v := range m.moves {
		if !survives() {
			break
		}
		v.apply(names)
	}
	for _, name := range sorted(names) {
		f := names[name]
		c := f.clone(f.disk)
		f.everyDirty(func(i, s int) bool {
			if survives() {
				copySector(c.disk, f.cache, i, s)
				copySector(c.cache, f.cache, i, s)
			}
			return false
		})
		n.names[name], n.disk[name] = c, c
	}
	return n
}

// CrashHere is Crash without a copy: the file system itself becomes what it is after
// a loss of power. Nobody may use what was open before.
func (m *FS) CrashHere(seed uint64, keep float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rand = rand.New(rand.NewPCG(seed, 0))
	survives := func() bool { return keep >= 1 || keep > 0 && m.rand.Float64() < keep }
	for _, v := range m.moves {
		if !survives() {
			break
		}
		v.apply(m.disk)
	}
	m.moves = nil
	m.names = maps.Clone(m.disk)
	for _, name := range sorted(m.names) {
		f := m.names[name]
		f.everyDirty(func(i, s int) bool {
			if survives() {
				copySector(f.disk, f.cache, i, s)
			} else {
				copySector(f.cache, f.disk, i, s)
			}
			return true
		})
	}
}

// Fork returns a copy as it is, with what is unsynced still unsynced: what a
// process that was killed leaves to the next one.
func (m *FS) Fork() *FS {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := New(0)
	n.capacity, n.used = m.capacity, m.used
	copies := map[*file]*file{}
	fork := func(f *file) *file {
		if f != nil && copies[f] == nil {
			c := f.clone(f.cache)
			copy(c.dirty, f.dirty)
			copies[f] = c
		}
		return copies[f]
	}
	for name, f := range m.names {
		n.names[name] = fork(f)
	}
	for name, f := range m.disk {
		n.disk[name] = fork(f)
	}
	for _, v := range m.moves {
		n.moves = append(n.moves, move{from: v.from, to: v.to, file: fork(v.file)})
	}
	return n
}

// Flip changes bits of a byte, in the cache and on disk.
func (m *FS) Flip(name string, off int64, bits byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.names[name]
	if f == nil || off < 0 || off >= f.size {
		return fmt.Errorf("flip %s at %d: %w", name, off, fs.ErrNotExist)
	}
	f.flip(off, bits)
	return nil
}

// ReadFile returns what programs see of a file.
func (m *FS) ReadFile(name string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.names[name]
	if f == nil {
		return nil, &fs.PathError{Op: "read", Path: name, Err: fs.ErrNotExist}
	}
	b := make([]byte, f.size)
	f.read(b, 0)
	return b, nil
}

// WriteFile makes a durable file with the given contents, or replaces one.
func (m *FS) WriteFile(name string, b []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := newFile(int64(len(b)))
	f.write(b, 0)
	clear(f.dirty)
	copyPages(f.disk, f.cache)
	m.names[name], m.disk[name] = f, f
}

func sorted(names map[string]*file) []string {
	all := make([]string, 0, len(names))
	for name := range names {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

func (v move) apply(names map[string]*file) {
	if v.from != "" {
		delete(names, v.from)
	}
	if v.to != "" {
		names[v.to] = v.file
	}
}

// ask asks the hook, without the lock, so that the hook may look at the FS.
func (m *FS) ask(o Op) error {
	m.mu.Lock()
	hook := m.hook
	m.mu.Unlock()
	if hook == nil {
		return nil
	}
	if err := hook(o); err != nil {
		return &fs.PathError{Op: o.Kind.String(), Path: o.Name, Err: err}
	}
	return nil
}

func (m *FS) do(v move) {
	v.apply(m.names)
	m.moves = append(m.moves, v)
}

// Create implements wal.FS.
func (m *FS) Create(name string, size int64) (wal.File, error) {
	if err := m.ask(Op{Kind: Create, Name: name, Bytes: size}); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.names[name] != nil {
		return nil, &fs.PathError{Op: "create", Path: name, Err: fs.ErrExist}
	}
	if m.capacity > 0 && m.taken()+size > m.capacity {
		return nil, &fs.PathError{Op: "create", Path: name, Err: syscall.ENOSPC}
	}
	f := newFile(size)
	m.do(move{to: name, file: f})
	return &handle{m: m, f: f, name: name}, nil
}

func (m *FS) taken() int64 {
	n := m.used
	for _, f := range m.names {
		n += f.size
	}
	return n
}

// FreeSpace implements wal.FreeSpacer.
func (m *FS) FreeSpace(string) (free, total int64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.capacity == 0 {
		return 1 << 50, 1 << 50, nil
	}
	return m.capacity - m.taken(), m.capacity, nil
}

// Open implements wal.FS.
func (m *FS) Open(name string) (wal.File, error) {
	if err := m.ask(Op{Kind: Open, Name: name}); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.names[name]
	if f == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &handle{m: m, f: f, name: name}, nil
}

// Rename implements wal.FS.
func (m *FS) Rename(from, to string) error {
	if err := m.ask(Op{Kind: Rename, Name: from}); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.names[from]
	if f == nil {
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	}
	m.do(move{from: from, to: to, file: f})
	return nil
}

// Remove implements wal.FS.
func (m *FS) Remove(name string) error {
	if err := m.ask(Op{Kind: Remove, Name: name}); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.names[name] == nil {
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
	}
	m.do(move{from: name})
	return nil
}

// List implements wal.FS.
func (m *FS) List(dir string) ([]string, error) {
	if err := m.ask(Op{Kind: List, Name: dir}); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []string
	for _, name := range sorted(m.names) {
		if rest, ok := strings.CutPrefix(name, path.Clean(dir)+"/"); ok && !strings.Contains(rest, "/") {
			all = append(all, rest)
		}
	}
	return all, nil
}

// SyncDir implements wal.FS. It makes the names of all directories durable.
func (m *FS) SyncDir(dir string) error {
	if err := m.ask(Op{Kind: SyncDir, Name: dir}); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, v := range m.moves {
		v.apply(m.disk)
	}
	m.moves = nil
	return nil
}

// handle is an open file.
type handle struct {
	m    *FS
	f    *file
	name string
}

// ReadAt implements wal.File.
func (h *handle) ReadAt(b []byte, off int64) (int, error) {
	if err := h.m.ask(Op{Kind: Read, Name: h.name, Off: off, Bytes: int64(len(b))}); err != nil {
		return 0, err
	}
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if off >= h.f.size {
		return 0, io.EOF
	}
	n := h.f.read(b, off)
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt implements wal.File. The file does not grow.
func (h *handle) WriteAt(b []byte, off int64) (int, error) {
	if err := h.m.ask(Op{Kind: Write, Name: h.name, Off: off, Bytes: int64(len(b))}); err != nil {
		return 0, err
	}
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if off < 0 || off+int64(len(b)) > h.f.size {
		return 0, &fs.PathError{Op: "write", Path: h.name, Err: syscall.EFBIG}
	}
	h.f.write(b, off)
	return len(b), nil
}

// Sync implements wal.File.
func (h *handle) Sync() error {
	err := h.m.ask(Op{Kind: Sync, Name: h.name})
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if errors.Is(err, ErrPowerLoss) {
		return err // Crash decides
	}
	h.f.everyDirty(func(i, s int) bool {
		if err == nil || h.m.rand.IntN(2) == 0 {
			copySector(h.f.disk, h.f.cache, i, s)
		}
		return true
	})
	return err
}

// Size implements wal.File.
func (h *handle) Size() (int64, error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	return h.f.size, nil
}

// Evict implements wal.File.
func (h *handle) Evict() error {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	for i, dirty := range h.f.dirty {
		for s := range pageSectors {
			if dirty&(1<<s) == 0 {
				copySector(h.f.cache, h.f.disk, i, s)
			}
		}
	}
	return nil
}

// Close implements wal.File.
func (h *handle) Close() error { return nil }
