package actors

import (
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"pando.dev/pando/actors/mailbox"
	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
	"pando.dev/pando/wal"
)

// diskWait bounds the wait for the disk before a replica is rebuilt; then it is
// tried again, so that one full disk does not hold up all that load.
const diskWait = time.Second

// loaded is what a replica's actor needs before it can run.
type loaded struct {
	self     partition.ReplicaID
	restored replica.Restored
	state    *openState // nil: the replica keeps only the log
}

// load opens a replica's state and reads what the log has of it. It blocks on
// the disk, so it runs on a goroutine of its own; how many do so at once is
// bounded, for a node may hold thousands of replicas when it starts. A panic, of
// a partition kind for one, becomes an error.
func (n *Node) load(c *cell, t *control.Table) (l *loaded, err error) {
	select {
	case n.loading <- struct{}{}:
		defer func() { <-n.loading }()
	case <-n.ctx.Done():
		return nil, partition.Errorf(partition.CodeClosed, "node %s is shutting down", n.ID())
	}
	defer func() {
		if r := recover(); r != nil {
			l, err = nil, &mailbox.Panic{Value: r, Stack: debug.Stack()}
		}
	}()
	if !c.fresh.Load() && !c.ran.Load() { // it was found on the disk
		if err := n.awaitAdmission(c.group); err != nil {
			return nil, err
		}
	}
	if c.ran.Load() {
		if err := n.awaitDisk(c.group); err != nil {
			return nil, fmt.Errorf("open %s: %w", c.group, err)
		}
	}
	return n.loadNow(c, t)
}

// admissionWait is how long after its start a node waits for the control group
// before its replicas take part without that one's word.
const admissionWait = 2 * time.Second

// awaitAdmission waits for the control group's word that this process runs on the
// disk that the node wrote last, and not on an old copy of it. If there is no word
// in time the replica takes part all the same, for a cluster must come up again
// when its control group does not.
func (n *Node) awaitAdmission(g partition.GroupID) error {
	limit := time.NewTimer(admissionWait - n.now())
	defer limit.Stop()
	for {
		changed := n.control.Changed()
		if err := n.control.Stale(); err != nil {
			return suspect(g, asError(err).Why)
		}
		if n.control.Admitted() {
			return nil
		}
		select {
		case <-changed:
		case <-limit.C:
			return nil
		case <-n.ctx.Done():
			return partition.Errorf(partition.CodeClosed, "node %s is shutting down", n.ID())
		}
	}
}

// awaitDisk waits until everything that was appended for the group is on disk.
// The log shows it before, and a machine takes for durable what it starts from:
// it would stand by promises and acknowledge records that a crash takes back.
func (n *Node) awaitDisk(g partition.GroupID) error {
	synced := make(chan error, 1)
	if err := n.log.Append(wal.Write{Group: g}, func(err error) { synced <- err }); err != nil {
		return err
	}
	limit := time.NewTimer(diskWait)
	defer limit.Stop()
	select {
	case err := <-synced:
		return err
	case <-limit.C:
		return partition.Errorf(partition.CodeBusy, "the log's disk has not taken what was written for %s", g)
	case <-n.ctx.Done():
		return partition.Errorf(partition.CodeClosed, "node %s is shutting down", n.ID())
	}
}

func (n *Node) loadNow(c *cell, t *control.Table) (*loaded, error) {
	g := c.group
	sum, ok := n.log.Summary(g)
	if !ok {
		return nil, fmt.Errorf("open %s: the log has no such replica", g)
	}
	if sum.Damage != nil {
		return nil, &partition.Error{
			Code: partition.CodeCorrupt,
			Why:  fmt.Sprintf("the log of %s on this node lost records that were on disk: %s", g, sum.Damage.Why),
			Next: "the replica stays silent; its group goes on with the other members",
		}
	}
	if n.suspects.has(g, sum.Replica) {
		return nil, suspect(g, "its disk was not the one that this node wrote last")
	}
	if sum.Generation == noState {
		restored, err := restore(sum, min(max(sum.Commit, sum.First-1), sum.Last))
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", g, err)
		}
		return &loaded{self: sum.Replica, restored: restored}, nil
	}
	factory, ok := n.cfg.Kinds[t.Kind]
	if !ok {
		return nil, &partition.Error{
			Code: partition.CodeRefused, Why: fmt.Sprintf("partition kind %q of table %q is not known to this node", t.Kind, t.Name),
			Next: "start the node with a factory for it in Config.Kinds",
		}
	}
	newKind := func() (partition.Partition, error) { return factory(partition.Spec{Table: t.Name, Group: g}) }
	st, err := n.openStore(c, sum.Generation, newKind)
	if err == nil && unmade(g, sum, st) {
		if err = n.remake(g, sum); err == nil {
			st, err = n.openStore(c, sum.Generation, newKind)
		}
	}
	if err != nil {
		return nil, err
	}
	applied, err := st.store.Applied()
	var restored replica.Restored
	if err == nil {
		restored, err = restore(sum, applied)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", g, err)
	}
	return &loaded{self: sum.Replica, restored: restored, state: st}, nil
}

func (n *Node) openStore(c *cell, generation uint32, newKind func() (partition.Partition, error)) (*openState, error) {
	g := c.group
	s, err := n.engine.Open(g, generation)
	if err != nil {
		return nil, fmt.Errorf("open the state of %s: %w", g, err)
	}
	p, err := newKind()
	if err != nil {
		return nil, fmt.Errorf("make the partition of %s: %w", g, err)
	}
	v, err := s.View()
	if c.dropped.Load() {
		// What this made is nobody's: the drop may have gone before.
		if err == nil {
			v.Close()
		}
		return nil, errors.Join(partition.Errorf(partition.CodeClosed, "%s is being dropped", g), n.engine.Drop(g, generation))
	}
	if err != nil {
		return nil, fmt.Errorf("read the state of %s: %w", g, err)
	}
	defer v.Close()
	exec, err := replica.NewExecutor(p, v)
	var applied partition.Index
	if err == nil {
		applied, err = v.Applied()
	}
	if err != nil {
		return nil, fmt.Errorf("read the state of %s: %w", g, err)
	}
	return &openState{
		store: s, exec: exec, logger: n.logger,
		held: heldReads{now: n.now, spawn: n.background.Go, applied: applied},
	}, nil
}

// restore puts together what the protocol continues from.
func restore(sum wal.Summary, applied partition.Index) (replica.Restored, error) {
	r := replica.Restored{
		Promised: sum.Promise, Commit: max(sum.Commit, applied), Applied: applied,
		First: sum.First, Last: sum.Last, BeforeFirst: sum.Before, LastSum: sum.LastSum,
	}
	if sum.Generation == 0 {
		r.Spared = sum.Flushed
	}
	if applied > sum.Last {
		return r, &partition.Error{
			Code: partition.CodeCorrupt,
			Why:  fmt.Sprintf("the state reflects record %d, but the log ends at %d: one of the two was rolled back", applied, sum.Last),
			Next: "the replica stays silent; its group goes on with the other members",
		}
	}
	if applied+1 < sum.First {
		return r, partition.Errorf(partition.CodeCorrupt, "the state reflects record %d, but the log begins at %d", applied, sum.First)
	}
	for _, run := range sum.Runs {
		r.Runs = append(r.Runs, replica.EpochRun(run))
	}
	for _, rec := range sum.Configurations {
		m := new(partition.Membership)
		if err := m.UnmarshalBinary(rec.Payload()); err != nil {
			return r, fmt.Errorf("configuration at %s: %w", rec.Position(), err)
		}
		r.Configurations = append(r.Configurations, replica.ConfigurationAt{Index: rec.Index(), Membership: m})
	}
	return r, nil
}

// create writes the first record of a new group's replica, the same on every
// member, and is done when it is on disk.
func (n *Node) create(g partition.GroupID, m *partition.Membership, done func(error)) error {
	me, ok := m.OnNode(n.ID())
	if !ok {
		return partition.Errorf(partition.CodeInternal, "group %s has no member on this node", g)
	}
	rec, err := partition.Genesis(g, m)
	if err != nil {
		return fmt.Errorf("create %s: %w", g, err)
	}
	return n.log.Append(wal.Write{
		Group: g, Replica: me.Replica, Commit: 1, Records: []partition.Record{rec},
	}, done)
}
