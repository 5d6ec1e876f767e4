package store

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"pando.dev/pando/partition"
)

// space is one store: its directory, and the Pebble store in it while that is
// open.
//
//	closed --acquire--> open, uses > 0 <--acquire/release--> open, idle
//	   ^                                                        |
//	   +-------- flushed, and idle for long or evicted ---------+
//
// It outlives its handles: closing a handle leaves the Pebble store to the
// rules above.
type space struct {
	e   *Engine
	id  ID
	dir string
	fs  *thinFS

	owner   atomic.Pointer[Store] // the only handle whose calls are served
	lastUse atomic.Int64          // engine time
	urgent  atomic.Bool           // someone waits for a flush
	flying  atomic.Bool           // flight is not nil
	ended   atomic.Bool           // a flush ended that nobody has looked at

	applied atomic.Uint64 // last index applied; known once the store was open
	durable atomic.Uint64 // what a crash leaves; never above applied
	known   atomic.Bool   // applied and durable were read from disk

	manifest atomic.Bool // Pebble has begun a MANIFEST since the store was opened

	unflushed atomic.Int64 // = ledger's rest
	fault     atomic.Pointer[error]
	damage    atomic.Pointer[partition.Error]

	applyMu   sync.Mutex // one Apply at a time
	durableMu sync.Mutex // one announcement of durable at a time
	ledger    ledger

	uses atomic.Int32 // calls, views and flushes that need db; changed under mu

	mu        sync.Mutex
	db        *pebble.DB // nil while closed
	compactor *compactor
	flight    chan struct{} // closed when the flush under way ends; nil if none
	dropped   bool          // no further use; buried when the last one ends
	buried    bool
	diskBytes int64             // when it was last closed
	sums      map[string]uint32 // CRC32C of table files, which never change
}

func newSpace(e *Engine, id ID) *space {
	sp := &space{e: e, id: id, dir: id.path(e)}
	sp.fs = e.newFS(sp.setFault)
	sp.touch()
	return sp
}

func (sp *space) touch() { sp.lastUse.Store(int64(sp.e.now())) }

// hand makes s the owner. It reports false if the store is being removed.
func (sp *space) hand(s *Store) bool {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if sp.dropped {
		return false
	}
	sp.owner.Store(s)
	return true
}

// acquire returns the open Pebble store and keeps it open until release.
func (sp *space) acquire() (*pebble.DB, error) {
	sp.touch()
	if db, err := sp.acquireOpen(); db != nil || err != nil {
		return db, err
	}
	if err := sp.e.takeSlot(); err != nil {
		return nil, err
	}
	db, err := sp.openAndUse()
	if err == nil {
		sp.announce()
	}
	return db, err
}

// openAndUse uses up a slot that was taken, or gives it back.
func (sp *space) openAndUse() (*pebble.DB, error) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if sp.db != nil || sp.dropped {
		sp.e.giveSlot(nil)
		return sp.useLocked()
	}
	if err := sp.openLocked(); err != nil {
		sp.e.giveSlot(nil)
		return nil, fmt.Errorf("open store %s: %w", sp.id, classify(err))
	}
	return sp.useLocked()
}

// acquireOpen is acquire for a store that is open, otherwise it returns nil; and
// it does not keep an idle store from being closed.
func (sp *space) acquireOpen() (*pebble.DB, error) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	return sp.useLocked()
}

func (sp *space) useLocked() (*pebble.DB, error) {
	if sp.dropped || sp.e.closing.Load() || sp.e.poisoned.Load() != nil {
		return nil, errClosed
	}
	if sp.db != nil {
		sp.uses.Add(1)
	}
	return sp.db, nil
}

// release ends a use.
func (sp *space) release() {
	sp.mu.Lock()
	idle := sp.uses.Add(-1) == 0
	bury := idle && sp.dropped
	sp.mu.Unlock()
	if bury {
		sp.bury()
	}
	if idle {
		sp.e.unused()
	}
}

// openLocked opens the Pebble store and reads how far it is. It needs mu.
func (sp *space) openLocked() error {
	fresh, err := sp.e.prepare(sp.dir, sp.id.Group)
	if err != nil {
		return err
	}
	sp.fs.patient.Store(false)
	sp.fs.quiet.Store(fresh)
	sp.manifest.Store(false)
	sp.compactor = sp.e.scheduler.newCompactor()
	defer sp.fs.quiet.Store(false)
	if fresh {
		if err := sp.fromTemplate(); err != nil {
			return err
		}
	}
	db, err := pebble.Open(sp.dir, sp.e.pebbleOptions(sp))
	sp.fs.quiet.Store(false)
	if err != nil {
		return err
	}
	if fresh {
		err = sp.e.finish(sp.dir, sp.id.Group)
	}
	if err == nil {
		err = sp.learn(db)
	}
	if err != nil {
		_ = db.Close()
		return err
	}
	sp.fs.patient.Store(true)
	sp.db = db
	sp.e.opened(sp)
	return nil
}

// learn reads how far a store is that was just opened.
func (sp *space) learn(db *pebble.DB) error {
	index, err := durableIndex(db)
	if err != nil {
		return err
	}
	if was := partition.Index(sp.durable.Load()); sp.known.Load() && index < was {
		return partition.Errorf(partition.CodeCorrupt, "store %s is at index %d, it was durable at %d", sp.id, index, was)
	}
	sp.applied.Store(uint64(index))
	sp.durable.Store(uint64(index))
	sp.known.Store(true)
	return nil
}

// hibernate closes the store if it is idle and flushed.
func (sp *space) hibernate() bool {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if sp.db == nil || sp.uses.Load() > 0 || sp.applied.Load() != sp.durable.Load() || sp.compactor.busy() {
		return false
	}
	if err := sp.closeLocked(); err != nil {
		sp.e.o.Logger.Warn("closing an idle store", "group", uint64(sp.id.Group), "generation", sp.id.Generation, "err", err)
	}
	return true
}

// closeLocked closes the Pebble store. What is not flushed is lost to it, and
// comes back from the log. It needs mu and no uses.
func (sp *space) closeLocked() error {
	sp.diskBytes = int64(sp.db.Metrics().DiskSpaceUsage())
	err := sp.db.Close()
	sp.db = nil
	sp.applied.Store(sp.durable.Load())
	sp.lose()
	sp.e.giveSlot(sp)
	return err
}

// shut ends all use of the store: no call is served from now on, and after
// at most wait for those under way the Pebble store is closed.
func (sp *space) shut(wait time.Duration) error {
	deadline := time.NewTimer(wait)
	defer deadline.Stop()
	sp.e.waiters.Add(1)
	defer sp.e.waiters.Add(-1)
	for {
		sp.e.mu.Lock()
		freed := sp.e.freed
		sp.e.mu.Unlock()
		sp.mu.Lock()
		uses := sp.uses.Load()
		if uses == 0 {
			defer sp.mu.Unlock()
			if sp.db == nil {
				return nil
			}
			return sp.closeLocked()
		}
		sp.mu.Unlock()
		select {
		case <-freed:
		case <-deadline.C:
			return partition.Errorf(partition.CodeBusy, "%d uses have not ended, a view that was not closed?", uses)
		}
	}
}

// health is the first thing wrong with the store.
func (sp *space) health() error {
	if d := sp.damage.Load(); d != nil {
		return d
	}
	if f := sp.fault.Load(); f != nil {
		return classify(*f)
	}
	return nil
}

// setFault may be called with Pebble's mutex held.
func (sp *space) setFault(err error) { sp.fault.Store(&err) }

// events are called with Pebble's mutex held: they only leave notes.
func (sp *space) events() *pebble.EventListener {
	return &pebble.EventListener{
		FlushEnd: func(i pebble.FlushInfo) {
			if i.Err == nil {
				sp.fault.Store(nil)
				sp.e.flushes.Add(1)
			}
			sp.ended.Store(true)
			sp.e.wakeControl()
		},
		CompactionEnd: func(i pebble.CompactionInfo) {
			if i.Err == nil {
				sp.fault.Store(nil)
			}
		},
		ManifestCreated: func(i pebble.ManifestCreateInfo) { sp.manifest.Store(i.Err == nil) },
		BackgroundError: sp.setFault,
		DataCorruption: func(i pebble.DataCorruptionInfo) {
			sp.damage.CompareAndSwap(nil, &partition.Error{
				Code: partition.CodeCorrupt,
				Why:  fmt.Sprintf("file %s: %v", i.Path, i.Details),
				Next: "rebuild this replica from a peer",
			})
		},
		WriteStallBegin: func(pebble.WriteStallBeginInfo) { sp.e.stalls.Add(1) },
	}
}
