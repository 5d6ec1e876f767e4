package lease

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"pando.dev/pando/partition"
)

// beatWindow is how many beats may be unanswered: an answer to an older one is
// worth nothing any more.
const beatWindow = 16

// peer is one neighbour, in both roles.
type peer struct {
	mu      sync.Mutex
	boot    uint64 // the newest incarnation known; 0: none
	refused uint64

	// As a grantor to us. The atomics are written under mu and read without.
	held     atomic.Pointer[held] // nil: none
	answered atomic.Int64         // when its last answer came in; 0: unreachable
	distrust atomic.Bool          // it revoked more groups than we keep: nothing of it counts
	floors   floors               // per group the epoch below which its grant counts for nothing
	applied  uint64               // its revision that we have acted on
	seq      uint64
	sent     [beatWindow]sentBeat
	late     []Revocation // a planted bug keeps them here

	// As a holder of our grant.
	granted  partition.Time // until when it may count on it
	withheld bool           // more revocations than we keep: no grant for ever
	revision uint64         // counts the revocations
	// sentRevision is the newest that an answer has carried.
	sentRevision uint64
	// revoked are those that it has not acknowledged; order lists them by
	// revision, with leftovers whose revision is no longer that of the group.
	revoked map[partition.GroupID]revoked
	order   []revision
}

// held is a grant to us and the incarnation that gave it. It does not change.
type held struct {
	boot  uint64
	until partition.Time
}

type sentBeat struct {
	seq uint64
	at  partition.Time
}

type revoked struct {
	floor    floor
	revision uint64
}

// floor is where the grants for a group begin to count: for this replica of the
// grantor's in this epoch. Replica ids are never reused and a node holds one
// replica of a group at a time, so a newer one means that the older are gone, and
// with them everything that was granted in their name.
type floor struct {
	replica partition.ReplicaID
	epoch   partition.Epoch
}

// below reports whether what f stands for begins before o.
func (f floor) below(o floor) bool {
	return f.replica < o.replica || f.replica == o.replica && f.epoch < o.epoch
}

type revision struct {
	number uint64
	group  partition.GroupID
}

func newPeer() *peer { return &peer{revoked: make(map[partition.GroupID]revoked)} }

// learn notes the peer's incarnation. A dead one holds no grant, and does not
// keep those it gave. What was revoked here stands; what it has revoked goes with
// it, since the next one revokes anew what its disk says, and what that does not
// say was never promised. The grants go first: see Granted.
func (p *peer) learn(boot uint64) {
	if boot <= p.boot {
		return
	}
	p.boot = boot
	p.held.Store(nil)
	p.answered.Store(0)
	p.floors.clear()
	p.applied = 0
	p.granted = 0
}

// hold takes a grant of the present incarnation. mu is held.
func (p *peer) hold(until partition.Time) {
	if h := p.held.Load(); h == nil || h.until < until {
		p.held.Store(&held{boot: p.boot, until: until})
	}
}

// revoke adds a revocation and returns the end of what is granted.
func (p *peer) revoke(g partition.GroupID, f floor, limit int) partition.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	old, known := p.revoked[g]
	switch {
	case known && !old.floor.below(f):
	case !known && len(p.revoked) >= limit:
		p.withheld = true
	default:
		p.revision++
		p.revoked[g] = revoked{floor: f, revision: p.revision}
		p.order = append(p.order, revision{p.revision, g})
		p.compact()
	}
	return p.granted
}

// compact drops the leftovers of order when they are more than half of it.
func (p *peer) compact() {
	if len(p.order) < 64 || len(p.order) < 2*len(p.revoked) {
		return
	}
	kept := p.order[:0]
	for _, r := range p.order {
		if p.revoked[r.group].revision == r.number {
			kept = append(kept, r)
		}
	}
	p.order = kept
}

// acknowledge drops the revocations up to a revision.
func (p *peer) acknowledge(upTo uint64) {
	n := 0
	for n < len(p.order) && p.order[n].number <= upTo {
		r := p.order[n]
		if p.revoked[r.group].revision == r.number {
			delete(p.revoked, r.group)
		}
		n++
	}
	if p.order = p.order[n:]; len(p.order) == 0 {
		p.order = nil
	}
}

// unacknowledged lists the oldest revocations, the revision they go up to, and
// whether there are more.
func (p *peer) unacknowledged() (list []Revocation, upTo uint64, more bool) {
	for _, r := range p.order {
		x := p.revoked[r.group]
		if x.revision != r.number {
			continue
		}
		if len(list) == MaxRevokedPerAnswer {
			return list, upTo, true
		}
		list = append(list, Revocation{Group: r.group, Replica: x.floor.replica, Epoch: x.floor.epoch})
		upTo = r.number
	}
	return list, p.revision, false
}

// floorShards divides the floors, so that a change copies only a part.
const floorShards = 64

// floors are, per group, the newest that a peer has revoked up to. Reading
// takes no lock; a change copies the part it is in and is made under peer.mu.
type floors struct {
	count  atomic.Int64
	shards [floorShards]atomic.Pointer[map[partition.GroupID]floor]
}

func (f *floors) get(g partition.GroupID) floor {
	if f.count.Load() == 0 {
		return floor{}
	}
	if m := f.shards[g%floorShards].Load(); m != nil {
		return (*m)[g]
	}
	return floor{}
}

func (f *floors) len() int { return int(f.count.Load()) }

// raise takes the revocations in; false if that would be more than limit. Nearly
// every answer has none, or only some that were sent before.
func (f *floors) raise(list []Revocation, limit int) bool {
	if !slices.ContainsFunc(list, f.isNew) {
		return true
	}
	var fresh [floorShards]map[partition.GroupID]floor
	n := f.count.Load()
	for _, r := range list {
		s := r.Group % floorShards
		if fresh[s] == nil {
			fresh[s] = make(map[partition.GroupID]floor)
			if old := f.shards[s].Load(); old != nil {
				maps.Copy(fresh[s], *old)
			}
		}
		old, known := fresh[s][r.Group]
		if !known {
			n++
		}
		if f := (floor{r.Replica, r.Epoch}); old.below(f) {
			fresh[s][r.Group] = f
		} else {
			fresh[s][r.Group] = old
		}
	}
	if n > int64(limit) {
		return false
	}
	f.count.Store(n)
	for s := range fresh {
		if fresh[s] != nil {
			f.shards[s].Store(&fresh[s])
		}
	}
	return true
}

// isNew reports whether the revocation goes beyond what is kept.
func (f *floors) isNew(r Revocation) bool {
	return f.get(r.Group).below(floor{r.Replica, r.Epoch})
}

func (f *floors) clear() {
	if f.count.Load() == 0 {
		return
	}
	for s := range f.shards {
		f.shards[s].Store(nil)
	}
	f.count.Store(0)
}

func (f *floors) remove(g partition.GroupID) {
	old := f.shards[g%floorShards].Load()
	if old == nil {
		return
	}
	if _, known := (*old)[g]; !known {
		return
	}
	fresh := maps.Clone(*old)
	delete(fresh, g)
	f.shards[g%floorShards].Store(&fresh)
	f.count.Add(-1)
}
