package replica

import (
	"fmt"
	"iter"
	"slices"

	"pando.dev/pando/internal/planted"
	"pando.dev/pando/partition"
)

// phase is where a replica stands. Those from probing to fetching are an
// attempt to become master; those from leveling on are a mastership.
type phase uint8

const (
	following  phase = iota // a peer: it follows a master, or looks out for one
	probing                 // asks the members whether the master is gone
	waiting                 // lets better candidates go first
	locking                 // waits for the lock
	promising               // its own promise is on the way to the disk
	gathering               // waits for supporters
	fetching                // copies what a supporter's log has more
	leveling                // master: its first record is not committed yet
	recovering              // master: not applied yet, or old leases still run
	serving                 // master
)

var phaseNames = [...]string{
	"peer", "probing", "waiting", "locking", "promising", "gathering", "fetching",
	"leveling", "recovering", "master",
}

func (p phase) String() string { return phaseNames[p] }

// Replica is the protocol machine of one replica. It is not safe for concurrent
// use: one goroutine, that of its host, calls all methods.
type Replica struct {
	cfg Config

	now   partition.Time // of the newest event; never goes back
	begun bool           // the first event has been seen

	// The promise. promised never falls; synced is the promise known to be on
	// disk, at most promised. seen is the newest epoch heard of, promised or not.
	promised, synced, seen partition.Epoch
	promisedNode           partition.NodeID // node of the replica that promised names
	leaseUntil             partition.Time   // grants to earlier masters run until then
	leaseEpoch             partition.Epoch  // of the newest of these masters
	released               partition.Epoch  // no lease counts up to it
	restarted              bool
	appointed              *Appointed // until the first event

	log     *log
	durable partition.Index // the log up to here is on disk
	commit  partition.Index // never falls
	applied partition.Index // never falls, at most min(commit, durable)
	asked   partition.Index // Last of the Apply under way, 0 if there is none
	// everywhere: every eligible full voter has the log up to here on disk. settled
	// is the commit index that is on the own disk. Neither falls.
	everywhere, settled partition.Index
	active              partition.Configurations

	phase      phase
	master     partition.ReplicaID // of promised, 0 if there is none or it is not known
	masterDown bool                // the master's node was reported down
	deadline   partition.Time      // of the phase, 0 if it has none
	why        string              // the last reason not to be master

	removal   removal
	decree    *decree // nil: none
	permitSeq uint64  // of the last Permit
	follow    follow
	attempt   attempt
	mastery   mastery
	hand      handOver
	heir      heir
	successor peerRef   // to whom this replica has handed over, until somebody leads; id 0: nobody
	resigned  bool      // lets other candidates go first, until one leads
	writing   []written // Persists under way, oldest first
	seq       uint64    // of the last Persist
	stored    stored
	view      *View // the last that was published
	sends     []Work
	locks     []Work
	replies   []Work
	out       []Work         // of the last settle
	taken     int            // of out, that were yielded
	alarm     partition.Time // that the host was asked for, 0 if it has come
}

// written is a Persist under way: what is on disk when it is.
type written struct {
	seq     uint64
	last    partition.Index // lowered by every later snip
	promise partition.Epoch
	commit  partition.Index
}

// stored is what the last Persist said.
type stored struct {
	promise partition.Epoch
	commit  partition.Index
}

// New makes a replica from what is on its disk. The host's first event must be
// a Tick, from which the replica learns the time; nothing happens before.
func New(cfg Config, r Restored) (*Replica, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if err := r.validate(); err != nil {
		return nil, err
	}
	cfg.setDefaults()
	p := &Replica{
		cfg: cfg, promised: r.Promised, synced: r.Promised, seen: r.Promised,
		restarted: r.Restarted, appointed: r.Appointed, log: newLog(r, cfg.TailBytes),
		durable: r.Last, commit: min(max(r.Commit, r.Applied), r.Last), applied: r.Applied,
	}
	if cfg.LogOnly {
		p.applied = max(p.applied, r.BeforeFirst.Index) // it has no state that could lack it
		p.everywhere = max(r.BeforeFirst.Index, min(r.Spared, p.commit))
	} else if p.applied < r.BeforeFirst.Index {
		return nil, partition.Errorf(partition.CodeCorrupt, "the state reflects %d, the log begins at %d", p.applied, r.First)
	}
	p.commit = max(p.commit, r.BeforeFirst.Index) // only what is committed is let go of
	p.settled = max(p.commit, 1)
	p.stored = stored{promise: p.promised, commit: p.commit}
	p.setActive()
	if m, ok := p.active.Member(p.promised.Replica()); ok {
		p.promisedNode = m.Node
	}
	return p, nil
}

// Step takes one event. An error means that the input was invalid or damaged
// and was ignored as a whole; the replica goes on.
func (r *Replica) Step(e Event) error {
	r.tell(e.Now)
	switch in := e.Input.(type) {
	case Tick:
		r.onTick()
	case Received:
		return r.onMessage(in)
	case Persisted:
		return r.onPersisted(in.Seq)
	case Applied:
		return r.onApplied(in.Index)
	case Truncated:
		return r.onTruncated(in.First)
	case Propose:
		r.onPropose(in.Proposals)
	case Configure:
		r.onConfigure(in)
	case Permitted:
		r.onPermitted(in)
	case PermitRefused:
		r.onPermitRefused(in)
	case Recover:
		r.onRecover(in)
	case ReadIndex:
		r.onReadIndex(in.ID)
	case Transfer:
		r.onTransfer(in)
	case Resign:
		r.onResign(in.Why)
	case Locked:
		r.onLocked(in.Number, in.Permit)
	case LockRefused:
		r.onLockRefused()
	case NodeDown:
		r.onNodeDown(in.Node)
	case NodeUp:
		r.onNodeUp(in.Node)
	default:
		return partition.Errorf(partition.CodeInvalid, "unknown input %T", e.Input)
	}
	return nil
}

// tell moves the clock. Events taken out of order do not turn it back.
func (r *Replica) tell(now partition.Time) {
	r.now = max(r.now, now)
	if r.begun {
		return
	}
	r.begun = true
	if r.restarted && !r.cfg.Planted.Has(planted.ForgetGrants) {
		// What was granted before is not on disk: assume the worst.
		r.leaseUntil, r.leaseEpoch = r.now+r.cfg.Lease, r.promised
		r.point(AtGrantsForgotten)
	}
	if r.cfg.Planted.Has(planted.ResumeMastership) && r.promised.Replica() == r.cfg.Self {
		r.becomeMaster()
		return
	}
	r.deadline = r.now + r.jitter(r.cfg.RetryMin)
	r.noticeRemoval()
	if r.appointed != nil {
		r.beginAppointed()
	}
}

func (r *Replica) onMessage(in Received) error {
	from := peerRef{id: in.From, node: in.Node, boot: in.Boot}
	if in.From == 0 || in.From == r.cfg.Self {
		return partition.Errorf(partition.CodeInvalid, "a message from replica %d", in.From)
	}
	if from.node == "" {
		from.node = r.nodeOf(in.From)
	}
	switch m := in.Message.(type) {
	case *Append:
		return r.onAppend(from, m)
	case *AppendAck:
		return r.onAppendAck(from, m)
	case *Gather:
		return r.onGather(from, m)
	case *GatherAnswer:
		r.onGatherAnswer(from, m)
	case *Fetch:
		r.onFetch(from, m)
	case *FetchAnswer:
		return r.onFetchAnswer(from, m)
	case *Probe:
		r.onProbe(from, m)
	case *ProbeAnswer:
		r.onProbeAnswer(from, m)
	case *HandOver:
		return r.onHandOver(from, m)
	case *ReadCheck:
		r.onReadCheck(from, m)
	case *ReadConfirm:
		r.onReadConfirm(from, m)
	default:
		return partition.Errorf(partition.CodeInvalid, "unknown message %T", in.Message)
	}
	return nil
}

// onTick looks at every deadline that may have come.
func (r *Replica) onTick() {
	r.alarm = 0
	r.handTick()
	if r.heir.from.id != 0 && !r.heir.taking && r.now >= r.heir.until {
		r.dropHeir(0)
	}
	if r.decree != nil && r.now >= r.decree.until {
		r.dropDecree(r.why)
	}
	if r.isMaster() {
		r.masterTick()
		return
	}
	if r.deadline == 0 || r.now < r.deadline {
		return
	}
	r.deadline = 0
	r.attemptTick()
}

// Ready yields what the host is to do since the last time, in order. Work that
// was not taken is yielded again.
func (r *Replica) Ready() iter.Seq[Work] {
	return func(yield func(Work) bool) {
		r.settle()
		for r.taken < len(r.out) {
			w := r.out[r.taken]
			r.out[r.taken] = nil
			r.taken++
			if !yield(w) {
				return
			}
		}
		r.out, r.taken = r.out[:0], 0
	}
}

// peerRef is another replica and where messages for it go.
type peerRef struct {
	id   partition.ReplicaID
	node partition.NodeID
	boot uint64 // incarnation of the node; 0: not known
}

// send queues a message that depends on nothing still on the way to the disk.
func (r *Replica) send(to peerRef, m Message) {
	r.sends = append(r.sends, &Send{To: to.id, Node: to.node, Message: m})
}

func (r *Replica) isMaster() bool { return r.phase >= leveling }

func (r *Replica) nodeOf(id partition.ReplicaID) partition.NodeID {
	m, _ := r.active.Member(id)
	return m.Node
}

// setActive takes over the configurations in force after the log or the commit
// index has changed.
func (r *Replica) setActive() {
	active := r.log.active(r.commit)
	if r.decree != nil {
		active = partition.Configurations{r.decree.next}
	}
	if c := r.log.newest(); c.Membership.Alone != 0 && c.Index > r.commit && r.cfg.Planted.Has(planted.JointAlone) {
		active = partition.Configurations{r.committed().Membership, c.Membership}
	}
	if r.cfg.Planted.Has(planted.NotJoint) {
		active = active[len(active)-1:]
	}
	if r.cfg.Planted.Has(planted.LearnerCounts) || r.cfg.Planted.Has(planted.IneligibleCounts) {
		active = r.miscounted(active)
	}
	if slices.Equal(active, r.active) {
		return
	}
	r.active = active
	if r.isMaster() {
		r.refreshPeers()
	}
}

// miscounted is a planted bug: members count that should not.
func (r *Replica) miscounted(active partition.Configurations) (wrong partition.Configurations) {
	for _, m := range active {
		c := *m
		c.Members = slices.Clone(m.Members)
		for j := range c.Members {
			x := &c.Members[j]
			if x.Kind == partition.Learner && r.cfg.Planted.Has(planted.LearnerCounts) {
				x.Kind = partition.Full
			}
			if r.cfg.Planted.Has(planted.IneligibleCounts) {
				x.Eligible = true
			}
		}
		wrong = append(wrong, &c)
	}
	return wrong
}

// electable reports whether this replica may be master: it is an eligible full
// member of an active configuration.
func (r *Replica) electable() bool {
	return !r.cfg.LogOnly && r.mayMaster(r.cfg.Self)
}

func (r *Replica) mayMaster(id partition.ReplicaID) bool {
	for _, m := range r.active {
		if x, ok := m.Member(id); ok && x.Kind == partition.Full && x.Eligible {
			return true
		}
	}
	return false
}

// members yields the members of all active configurations once each, as the newest
// describes them, without this replica.
func (r *Replica) members() iter.Seq[partition.Member] {
	return func(yield func(partition.Member) bool) {
		for i, m := range r.active {
			for _, x := range m.Members {
				if x.Replica == r.cfg.Self {
					continue
				}
				if i > 0 {
					if _, ok := r.active[0].Member(x.Replica); ok {
						continue
					}
				}
				if newest, _ := r.active.Member(x.Replica); !yield(newest) {
					return
				}
			}
		}
	}
}

// learnCommit learns that everything up to c is committed.
func (r *Replica) learnCommit(c partition.Index) {
	c = min(c, r.log.last)
	if c <= r.commit {
		return
	}
	before := r.commit
	r.commit = c
	r.setActive()
	r.log.forget(c)
	r.noticeRemoval()
	if r.committed().Index > before {
		r.point(AtConfigurationCommitted)
		if r.isMaster() {
			r.mastery.allKnow, r.mastery.knowing = false, -1
		}
	}
}

// committed is the newest configuration that is known to be committed.
func (r *Replica) committed() ConfigurationAt {
	c := r.log.configs[0]
	for _, x := range r.log.configs[1:] {
		if x.Index <= r.commit {
			c = x
		}
	}
	return c
}

// commitPosition is the last record that is known to be committed.
func (r *Replica) commitPosition() partition.Position {
	e, _ := r.log.epochAt(r.commit)
	return partition.Position{Epoch: e, Index: r.commit}
}

// jitter returns a random time between half of d and d.
func (r *Replica) jitter(d partition.Time) partition.Time {
	return d/2 + partition.Time(r.cfg.Rand.Int64N(int64(d/2)+1))
}

func (r *Replica) trace(what string) {
	if r.cfg.Trace != nil {
		r.cfg.Trace(TraceEvent{At: r.now, Group: r.cfg.Group, Self: r.cfg.Self, Epoch: r.promised, What: what})
	}
}

// assert stops the replica on a broken invariant; its host rebuilds it from the
// log.
func assert(ok bool, format string, args ...any) {
	if !ok {
		broken(format, args...)
	}
}

func broken(format string, args ...any) {
	panic("replica: " + fmt.Sprintf(format, args...))
}
