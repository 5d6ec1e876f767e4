package actors

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"pando.dev/pando/actors/mailbox"
	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
	"pando.dev/pando/partition/store"
)

const (
	// seedLook is how often a seed looks at its parent though nobody has hinted.
	seedLook = 100 * time.Millisecond
	// maxSowing bounds how many seeds of a node are made at a time: each is a flush
	// and a checkpoint, and a split may have many pieces.
	maxSowing = 2
	// maxSeedLag is how many records a seed may be behind its parent for keys to be
	// held: they are applied while clients wait.
	maxSeedLag = 256
	// seedStagger is the time between the beginnings of two members' seeds: what one
	// disk is busy with, the others acknowledge writes meanwhile.
	seedStagger = 40 * time.Millisecond
)

// seed is the state of a child's replica before there is a child. It is made while
// nothing is held yet, and follows the parent record by record, in a store of its
// own:
//
//	hard links of the parent's state -> as new as the parent -> Activate applied, adopted
//
// So when the split is decided, little is left to do. Nothing names it until the
// log does: after a crash the next start removes it, and whoever stops it does. From
// then on it may be less on disk than the log says, for it is not waited for: then
// the child's state is made of the parent's once more, see remake. Until it is on
// disk the parent's split is not done, so that can be.
type seed struct {
	node    *Node
	parent  *cell
	child   *partition.Child // immutable
	replica partition.ReplicaID
	began   partition.Time
	hint    chan struct{}
	ctx     context.Context
	cancel  context.CancelFunc // nothing is to come of it

	ready atomic.Bool   // it is close behind the parent, as of its last look
	lock  atomic.Uint64 // number of the child's lock, if its first master is to be here

	ended chan struct{} // closed when it is what the child begins with, or has failed
	// Set before ended is closed.
	generation uint32
	store      *store.Store
	exec       *replica.Executor
	err        error
}

// sow begins a seed of a child that is to be here.
func (a *replicasActor) sow(c *cell, child *partition.Child, r partition.ReplicaID) {
	n := a.node
	s := &seed{node: n, parent: c, child: child, replica: r, began: n.now(), hint: make(chan struct{}, 1), ended: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(n.ctx)
	a.seeds[child.Group] = s
	a.hintSeeds(c)
	n.early.expect(child.Group)
	n.background.Go(func() {
		defer s.cancel()
		if s.err = s.grow(); s.err != nil {
			s.drop()
		}
		close(s.ended)
		if s.err != nil && n.ctx.Err() == nil {
			n.tellReplicas(&divided{group: child.Group, seed: s, err: s.err})
		}
	})
	if first, ok := child.Membership.Member(child.First); ok && first.Node == n.ID() {
		n.background.Go(s.takeLock)
	}
}

// hintSeeds has the parent's replica wake the seeds that there are of it.
func (a *replicasActor) hintSeeds(c *cell) {
	var all []*seed
	for _, s := range a.seeds { // in no order: each is woken
		if s.parent == c {
			all = append(all, s)
		}
	}
	c.seeds.Store(&all)
}

// weed ends the seeds of which nothing is to come any more.
func (a *replicasActor) weed() {
	for g, s := range a.seeds { // in no order: each on its own
		x, ok := s.parent.served()
		if ok && x.Split.Child(g) != nil && !s.parent.dropped.Load() {
			continue
		}
		delete(a.seeds, g)
		a.hintSeeds(s.parent)
		a.node.early.take(g)
		s.cancel()
		a.node.background.Go(func() {
			if <-s.ended; s.err == nil {
				s.drop()
			}
		})
	}
}

// wake has the seed look at its parent. Any goroutine may call it.
func (s *seed) wake() {
	select {
	case s.hint <- struct{}{}:
	default:
	}
}

// turnOf is a member's place in the order in which a child's members do what keeps
// their disks busy: the first master comes first.
func turnOf(child *partition.Child, r partition.ReplicaID) (turn int) {
	for _, m := range child.Membership.Members {
		if r != child.First && m.Replica != r && (m.Replica < r || m.Replica == child.First) {
			turn++
		}
	}
	return turn
}

// takeLock gets the lock of the child's group for its first master. That works
// without, so it is tried once.
func (s *seed) takeLock() {
	ctx, cancel := context.WithTimeout(s.ctx, lockWait)
	defer cancel()
	grants, err := s.node.control.AcquireLocks(ctx, []control.LockRequest{{Group: s.child.Group, Replica: s.replica}})
	if err != nil || grants[0].Number == 0 {
		s.node.logger.Debug("lock of a child not taken beforehand", "group", s.child.Group, "err", err)
		return
	}
	s.lock.Store(grants[0].Number)
}

// grow makes the seed and keeps it as new as its parent, until it is what the child
// begins with.
func (s *seed) grow() (err error) {
	defer func() {
		if r := recover(); r != nil { // of the partition kind
			err = &mailbox.Panic{Value: r, Stack: debug.Stack()}
		}
	}()
	if err := s.copy(); err != nil {
		return fmt.Errorf("make a seed of %s: %w", s.child.Group, err)
	}
	tick := time.NewTicker(seedLook)
	defer tick.Stop()
	for {
		adopted, err := s.follow()
		if err != nil {
			return fmt.Errorf("bring the seed of %s further: %w", s.child.Group, err)
		}
		if adopted {
			return nil
		}
		select {
		case <-s.hint:
		case <-tick.C:
		case <-s.ctx.Done():
			return partition.Errorf(partition.CodeClosed, "the seed of %s is not needed any more", s.child.Group)
		}
	}
}

// copy makes the seed's store of the parent's state as it is now.
func (s *seed) copy() error {
	select {
	case <-time.After(time.Duration(turnOf(s.child, s.replica)) * seedStagger):
	case <-s.ctx.Done():
		return partition.Errorf(partition.CodeClosed, "the seed of %s is not needed any more", s.child.Group)
	}
	n := s.node
	select {
	case n.sowing <- struct{}{}:
		defer func() { <-n.sowing }()
	case <-s.ctx.Done():
		return partition.Errorf(partition.CodeClosed, "the seed of %s is not needed any more", s.child.Group)
	}
	t, st := s.parent.table.Load(), s.parent.state.Load()
	if t == nil || st == nil {
		return partition.Errorf(partition.CodeUnavailable, "the replica of %s is not open", s.parent.group)
	}
	ctx, cancel := context.WithTimeout(s.ctx, divideWait)
	defer cancel()
	var err error
	if s.generation, err = n.engine.NextGeneration(s.child.Group, 0); err != nil {
		return err
	}
	if s.store, err = st.store.Seed(ctx, s.child.Group, s.generation); err != nil {
		return err
	}
	p, err := n.cfg.Kinds[t.Kind](partition.Spec{Table: t.Name, Group: s.parent.group})
	if err != nil {
		return err
	}
	v, err := s.store.View()
	if err != nil {
		return err
	}
	defer v.Close()
	if s.exec, err = replica.NewExecutor(p, v); err != nil {
		return err
	}
	if x := s.exec.Extent(); x.Split == nil || x.Split.Phase == partition.Activated {
		return partition.Errorf(partition.CodeRefused, "it is too late: %s", x.Describe())
	}
	return nil
}

// follow applies what the parent has applied since, through Activate at the most,
// and reports whether that has come.
func (s *seed) follow() (adopted bool, err error) {
	for s.ctx.Err() == nil {
		st := s.parent.state.Load()
		at, err := s.store.Applied()
		if err != nil || st == nil {
			return false, err
		}
		to := st.held.index()
		s.ready.Store(at+maxSeedLag >= to)
		if at >= to {
			return false, nil
		} else if s.store.NeedsRoom() {
			return false, nil
		} else if adopted, err = s.apply(at+1, to); err != nil || adopted {
			return adopted, err
		}
	}
	return false, nil
}

// apply applies records of the parent's log, all of them committed.
func (s *seed) apply(from, to partition.Index) (adopted bool, err error) {
	recs, err := s.node.log.Read(s.parent.group, from, to, maxApplyBytes)
	if err != nil {
		return false, err
	}
	for i, rec := range recs {
		if rec.Kind() == partition.KindActivate {
			recs = recs[:i+1]
			break
		}
	}
	if len(recs) == 0 {
		return false, fmt.Errorf("record %d is gone", from)
	}
	err = s.store.Apply(recs[len(recs)-1].Index(), func(tx partition.Writer) error {
		for _, rec := range recs {
			if _, err := s.exec.Apply(tx, rec); err != nil {
				return err
			}
		}
		x := s.exec.Extent()
		if x.Split.Child(s.child.Group) == nil || x.Split.Phase != partition.Activated {
			return nil
		}
		adopted = true
		_, err := replica.AdoptSeed(tx, s.parent.group, s.child.Group)
		return err
	})
	return adopted, err
}

// drop removes what there is of the seed on disk.
func (s *seed) drop() {
	if s.generation == 0 {
		return
	}
	if s.store != nil {
		_ = s.store.Close()
	}
	if err := s.node.engine.Drop(s.child.Group, s.generation); err != nil && s.node.ctx.Err() == nil {
		s.node.logger.Warn("seed of a child not removed", "group", s.child.Group, "err", err)
	}
}

// take waits until the seed is what the child begins with, and returns its state's
// generation. An error means that there is no seed.
func (s *seed) take(ctx context.Context) (uint32, error) {
	select {
	case <-s.ended:
	case <-ctx.Done():
		s.cancel()
		<-s.ended
	}
	if s.err != nil {
		return 0, s.err
	}
	return s.generation, s.store.Close()
}

// seededHere are the children of a split that has not been decided whose seeds here
// are as new as the parent.
func (c *cell) seededHere() (ready []partition.GroupID) {
	if all := c.seeds.Load(); all != nil {
		for _, s := range *all {
			if s.ready.Load() {
				ready = append(ready, s.child.Group)
			}
		}
	}
	return ready
}

// wakeSeeds tells the seeds of this replica that it has applied more.
func (c *cell) wakeSeeds() {
	if all := c.seeds.Load(); all != nil {
		for _, s := range *all {
			s.wake()
		}
	}
}

// maxEarly bounds what is kept for one replica that is about to be here.
const maxEarly = 64

// early keeps the messages for replicas of children that are about to be here: the
// members of a child begin within milliseconds, and who is first would have to send
// everything again. What is too much is lost, as any message may be.
type early struct {
	mu   sync.Mutex
	kept map[partition.GroupID][]*received
}

// expect begins to keep messages for a group.
func (e *early) expect(g partition.GroupID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.kept == nil {
		e.kept = make(map[partition.GroupID][]*received)
	}
	e.kept[g] = nil
}

func (e *early) expects(g partition.GroupID) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, ok := e.kept[g]
	return ok
}

// keep keeps a message, if its group is expected.
func (e *early) keep(g partition.GroupID, m *received) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	all, ok := e.kept[g]
	if ok && len(all) < maxEarly {
		e.kept[g] = append(all, m)
	}
	return ok
}

// take returns what was kept, and keeps nothing more.
func (e *early) take(g partition.GroupID) []*received {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := e.kept[g]
	delete(e.kept, g)
	return all
}
