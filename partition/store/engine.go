package store

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"pando.dev/pando/partition"
)

const (
	storesDir = "stores"
	trashDir  = "trash"
	// slotWait bounds how long opening a store waits for another to be closed.
	slotWait = 5 * time.Second
	// closeWait bounds how long Close flushes, and then waits for views.
	closeWait = 10 * time.Second
)

// ID names one copy of a replica's state on this node: its group, and a
// generation that goes up each time the state is replaced as a whole. The log
// says which generation counts.
type ID struct {
	Group      partition.GroupID
	Generation uint32
}

// String returns the store's directory below the stores, such as "g17/1".
func (id ID) String() string { return id.Group.String() + "/" + strconv.Itoa(int(id.Generation)) }

// Engine owns the state of all replicas of a node: one Pebble store each, and
// what they share. Its methods may be called from any goroutine.
type Engine struct {
	o         Options
	cache     *pebble.Cache
	files     *pebble.FileCache
	scheduler *scheduler
	fs        *thinFS // for the engine's own directories
	count     fsCounters
	start     time.Time
	quit      chan struct{} // closed when background work must end
	poke      chan struct{} // the flush controller has something to look at
	sweep     chan struct{} // the trash has something to remove
	tasks     sync.WaitGroup
	filters   sync.Pool // of *filter, all clear
	template  func() ([]templateFile, error)
	unsynced  sync.Map // directories whose names may not be durable

	unflushed atomic.Int64 // bytes applied and not durable, of all stores
	lookAt    atomic.Int64 // what unflushed must pass to make another flush due
	flights   atomic.Int32 // flushes under way that the engine started
	flushes   atomic.Int64
	stalls    atomic.Int64
	poisoned  atomic.Pointer[error] // why the process is ending
	closing   atomic.Bool
	waiters   atomic.Int32 // who waits on freed

	closeMu sync.Mutex
	closed  bool // Close has done all; under closeMu

	mu     sync.Mutex
	spaces map[ID]*space
	open   map[*space]struct{}
	slots  int           // open stores and those about to be
	freed  chan struct{} // closed and replaced when a slot or a use is given back
	spare  func()        // releases the cache share of stores that are not open
	buried int           // counts names in the trash

	dirtyMu sync.Mutex
	dirty   map[*space]struct{} // stores with unflushed bytes
	roomFor map[*Store]func()   // who waits for room
}

// NewEngine makes the engine of a node. It opens no store. Whatever an earlier
// run left in the trash is removed in the background.
func NewEngine(o Options) (*Engine, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	spare := int64(o.MaxOpen) * openStoreBytes
	e := &Engine{
		o:         o,
		cache:     pebble.NewCache(o.CacheBytes + o.MemoryBytes + spare),
		files:     pebble.NewFileCache(runtime.GOMAXPROCS(0), o.MaxFiles),
		scheduler: newScheduler(o.Compactions),
		start:     time.Now(),
		quit:      make(chan struct{}),
		poke:      make(chan struct{}, 1),
		sweep:     make(chan struct{}, 1),
		spaces:    make(map[ID]*space),
		open:      make(map[*space]struct{}),
		freed:     make(chan struct{}),
		dirty:     make(map[*space]struct{}),
		roomFor:   make(map[*Store]func()),
	}
	e.fs = e.newFS(func(error) {})
	e.template = sync.OnceValues(e.makeTemplate)
	e.lookAt.Store(e.high())
	e.filters.New = func() any { return newFilter() }
	e.spare = e.cache.Reserve(int(spare))
	if err := e.makeDirs(); err != nil {
		e.cache.Unref()
		e.files.Unref()
		return nil, classify(err)
	}
	e.removeEmpty()
	e.tasks.Add(2)
	go e.control()
	go e.removeTrash()
	e.sweep <- struct{}{}
	return e, nil
}

// newFS is the file system of one store, or of the engine itself.
func (e *Engine) newFS(report func(error)) *thinFS {
	return &thinFS{FS: e.o.FS, count: &e.count, quit: e.quit, fatal: e.fail, report: report, backOff: e.o.backOff}
}

// fail ends the process.
func (e *Engine) fail(err error) {
	e.poisoned.CompareAndSwap(nil, &err)
	e.o.Fatal(err)
}

// now is the engine's own clock, for ages only.
func (e *Engine) now() time.Duration { return time.Since(e.start) }

func (e *Engine) path(elem ...string) string {
	return e.o.FS.PathJoin(append([]string{e.o.Dir}, elem...)...)
}

// Dir is where the store of a group is in that generation, if there is one. What is
// in it may change at any time but for its tables, and those may vanish.
func (e *Engine) Dir(g partition.GroupID, generation uint32) string {
	return ID{Group: g, Generation: generation}.path(e)
}

func (id ID) path(e *Engine) string {
	return e.path(storesDir, id.Group.String(), strconv.Itoa(int(id.Generation)))
}

// makeDirs makes the engine's directories. It syncs them even if they are
// there: the process may have ended between making a directory in them and the
// sync, and whoever finds one there takes it for durable.
func (e *Engine) makeDirs() error {
	for _, d := range []string{storesDir, trashDir} {
		if err := e.makeDir(e.path(d)); err != nil {
			return fmt.Errorf("make %s: %w", e.path(d), err)
		}
	}
	for _, d := range []string{e.fs.PathDir(e.o.Dir), e.o.Dir, e.path(storesDir)} {
		if err := e.syncDir(d); err != nil && !errors.Is(err, os.ErrPermission) { // what is above may be another's
			return fmt.Errorf("sync %s: %w", d, err)
		}
	}
	return nil
}

// makeDir makes a directory that survives a crash. One that is there is taken
// to do so already, unless the sync of its name failed in this run; what an
// earlier run left is synced at the start.
func (e *Engine) makeDir(dir string) error {
	parent := e.fs.PathDir(dir)
	if _, err := e.fs.Stat(dir); err == nil {
		if _, owed := e.unsynced.Load(dir); !owed {
			return nil
		}
		return e.syncName(dir, parent)
	} else if !isNotExist(err) {
		return err
	}
	if parent != dir {
		if err := e.makeDir(parent); err != nil {
			return err
		}
	}
	if err := e.fs.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return e.syncName(dir, parent)
}

// syncName makes the name of a directory durable, or remembers that it is not.
func (e *Engine) syncName(dir, parent string) error {
	e.unsynced.Store(dir, true)
	if err := e.syncDir(parent); err != nil {
		return err
	}
	e.unsynced.Delete(dir)
	return nil
}

func (e *Engine) syncDir(dir string) error {
	f, err := e.fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return f.Sync()
}

// Open returns a handle on the store of a replica. Nothing is read or made
// until the first use. A handle opened before for the same store loses its
// right to it: its calls return an error from then on, so a replica that was
// rebuilt never shares its state with what is left of its former self.
func (e *Engine) Open(g partition.GroupID, generation uint32) (*Store, error) {
	id := ID{Group: g, Generation: generation}
	sp, err := e.space(id)
	if err != nil {
		return nil, err
	}
	s := &Store{sp: sp}
	if !sp.hand(s) {
		return nil, partition.Errorf(partition.CodeBusy, "store %s is being removed", id)
	}
	return s, nil
}

// space finds or makes the entry of a store.
func (e *Engine) space(id ID) (*space, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closing.Load() {
		return nil, errClosed
	}
	sp, ok := e.spaces[id]
	if !ok {
		sp = newSpace(e, id)
		e.spaces[id] = sp
	}
	return sp, nil
}

// Generations lists the stores on disk, so that the node can drop those that
// no log record names.
func (e *Engine) Generations() ([]ID, error) {
	root := e.path(storesDir)
	groups, err := e.fs.List(root)
	if err != nil {
		return nil, classify(fmt.Errorf("list %s: %w", root, err))
	}
	var ids []ID
	for _, g := range groups {
		group, err := strconv.ParseUint(strings.TrimPrefix(g, "g"), 10, 64)
		if err != nil || partition.GroupID(group).String() != g {
			continue
		}
		some, err := e.generationsOf(partition.GroupID(group))
		if err != nil {
			return nil, err
		}
		ids = append(ids, some...)
	}
	slices.SortFunc(ids, func(a, b ID) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Generation, b.Generation))
	})
	return ids, nil
}

func (e *Engine) generationsOf(g partition.GroupID) (ids []ID, err error) {
	names, err := e.fs.List(e.path(storesDir, g.String()))
	if err != nil {
		return nil, classify(fmt.Errorf("list generations of %s: %w", g, err))
	}
	for _, n := range names {
		if gen, err := strconv.ParseUint(n, 10, 32); err == nil && strconv.FormatUint(gen, 10) == n {
			ids = append(ids, ID{Group: g, Generation: uint32(gen)})
		}
	}
	return ids, nil
}

// NextGeneration returns a generation of a group that is greater than after,
// which the log names, and than all that are on disk or in use: what was dropped
// may still be there.
func (e *Engine) NextGeneration(g partition.GroupID, after uint32) (uint32, error) {
	var ids []ID
	if _, err := e.fs.Stat(e.path(storesDir, g.String())); err == nil {
		if ids, err = e.generationsOf(g); err != nil {
			return 0, err
		}
	} else if !isNotExist(err) {
		return 0, classify(fmt.Errorf("list generations of %s: %w", g, err))
	}
	for _, sp := range e.known() {
		ids = append(ids, sp.id)
	}
	for _, id := range ids {
		if id.Group == g {
			after = max(after, id.Generation)
		}
	}
	if after == math.MaxUint32 {
		return 0, partition.Errorf(partition.CodeTooLarge, "%s has no generations left", g)
	}
	return after + 1, nil
}

// Close flushes what is dirty, so that the next start replays little, and
// closes every store. It waits a bounded time for the flushes and for views
// that are still open; what was not flushed is replayed from the log. If a view
// remains open it returns an error, and may be called again.
func (e *Engine) Close() error {
	e.closeMu.Lock()
	defer e.closeMu.Unlock()
	if e.closed {
		return nil
	}
	if !e.closing.Swap(true) {
		deadline := time.NewTimer(closeWait)
		defer deadline.Stop()
		if e.poisoned.Load() == nil {
			e.flushAll(deadline.C)
		}
		close(e.quit)
		e.tasks.Wait()
	}
	for _, sp := range e.known() {
		if err := sp.shut(closeWait); err != nil {
			return fmt.Errorf("close store %s: %w", sp.id, err)
		}
	}
	e.spare()
	e.files.Unref()
	e.cache.Unref()
	e.closed = true
	return nil
}

// known lists the stores that were ever opened.
func (e *Engine) known() []*space {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := make([]*space, 0, len(e.spaces))
	for _, sp := range e.spaces {
		all = append(all, sp)
	}
	return all
}
