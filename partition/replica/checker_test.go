package replica

import (
	"encoding/binary"
	"fmt"
	"slices"

	"pando.dev/pando/partition"
)

// checker knows everything and looks at every replica after each step. It
// panics with a violation at the first broken promise.
type checker struct {
	w            *world
	sums         map[partition.Position]uint32 // of every record ever made
	committed    []partition.Record            // committed[i] has index i+1
	executed     map[uint64]partition.Index    // by operation: the record that executed it
	results      map[uint64]uint64             // its first result
	masters      map[partition.Epoch][2]int    // node and boot
	looked       map[int]partition.Index       // per node: commit that was looked at
	lookedBoot   map[int]int
	floor        partition.Index // what every linearizable read must show
	ops          map[uint64]*op  // under way, by proposal
	reads        map[uint64]*op
	refused      map[uint64]string // operations that were said not to be executed
	nextID       uint64
	sessionLimit int
	decreed      bool // an operator has recovered the group: anything may be lost
	truncated    bool // some log does not begin with the genesis record

	changes, retired, copies                                                      int
	acked, unknown, leaseReads, quorumReads, elections, snips, retries, transfers int
}

// op is one call of a client.
type op struct {
	id      uint64 // of the operation: the same for retries
	read    bool
	node    *node
	config  *partition.Membership // a change of the group
	floor   partition.Index       // when it was called
	session partition.SessionID
	seq     uint64
	opens   bool
	hand    bool // a transfer
	done    func(*Reply, Result)
}

// violation is what the checker panics with.
type violation string

func newChecker(w *world) *checker {
	return &checker{
		w: w, sums: map[partition.Position]uint32{}, executed: map[uint64]partition.Index{},
		results: map[uint64]uint64{}, masters: map[partition.Epoch][2]int{},
		looked: map[int]partition.Index{}, lookedBoot: map[int]int{},
		ops: map[uint64]*op{}, reads: map[uint64]*op{}, refused: map[uint64]string{}, sessionLimit: MaxSessions,
	}
}

func (c *checker) violated(format string, args ...any) {
	panic(violation(fmt.Sprintf(format, args...)))
}

func (c *checker) genesis(rec partition.Record, _ *partition.Membership) {
	c.committed = append(c.committed, rec)
	c.sums[rec.Position()] = rec.Checksum()
}

// failed is told of every error of Step: none is expected in these worlds.
func (c *checker) failed(n *node, in Input, err error) {
	if partition.CodeOf(err) == partition.CodeInvalid {
		if _, ok := in.(Received); ok && c.w.mut != 0 {
			return
		}
	}
	c.violated("replica %d refuses %T: %v", n.id, in, err)
}

// persists checks log matching: one position names one record, and, since the
// checksums are chained, one log before it.
func (c *checker) persists(n *node, p *Persist) {
	for _, r := range p.Records {
		if sum, ok := c.sums[r.Position()]; ok && sum != r.Checksum() {
			c.violated("replica %d has another record %s than somebody before", n.id, r)
		}
		c.sums[r.Position()] = r.Checksum()
		if n.rep.isMaster() && r.Epoch() == n.rep.promised {
			c.appendsConfiguration(n, r)
		}
	}
	if !p.Snip {
		return
	}
	c.snips++
	im := &n.disk.seen // as it was before
	for i := p.After + 1; i <= im.last() && int(i) <= len(c.committed); i++ {
		if was := im.recs[i-im.first]; was.Checksum() == c.committed[i-1].Checksum() {
			c.snipped(n, was)
		}
	}
}

// snipped checks the loss of a record that is committed. A master of an older epoch
// may take it from a member that did not count when it was: as long as a durable set
// has it without that member, and the member did not know.
func (c *checker) snipped(n *node, rec partition.Record) {
	last := c.committedAt(partition.Index(len(c.committed)))
	if rec.Index() <= n.rep.commit || !last.Membership.Durable(func(id partition.ReplicaID) bool {
		o := c.w.node(id)
		return o != nil && o != n && !o.gone && o.disk.synced.has(rec.Position())
	}) {
		c.violated("replica %d snips %s, which is committed", n.id, rec)
	}
}

// look checks a replica after a step.
func (c *checker) look(n *node) {
	r := n.rep
	if r.phase >= leveling {
		me := [2]int{int(n.id), n.boot}
		if was, ok := c.masters[r.promised]; ok && was != me {
			c.violated("epoch %s has two masters: %v and %v", r.promised, was, me)
		} else if !ok {
			c.elections++
			c.masters[r.promised] = me
		}
	}
	if r.applied > r.commit || r.commit > r.log.last || r.durable > r.log.last || r.synced > r.promised {
		c.violated("replica %d: applied %d commit %d durable %d last %d", n.id, r.applied, r.commit, r.durable, r.log.last)
	}
	c.solos(n)
	if c.lookedBoot[int(n.id)] != n.boot {
		c.lookedBoot[int(n.id)], c.looked[int(n.id)] = n.boot, n.disk.seen.first-1
	}
	for i := c.looked[int(n.id)] + 1; i <= r.commit; i++ {
		c.commits(n, i)
	}
	c.looked[int(n.id)] = r.commit
}

// commits checks what a replica takes for committed.
func (c *checker) commits(n *node, i partition.Index) {
	rec := n.disk.seen.recs[i-n.disk.seen.first]
	if int(i) <= len(c.committed) {
		if was := c.committed[i-1]; was.Checksum() != rec.Checksum() {
			c.violated("replica %d commits %s at %d, where %s is committed", n.id, rec, i, was)
		}
		return
	}
	if !n.rep.isMaster() {
		c.violated("replica %d, no master, is the first to commit %s", n.id, rec)
	}
	// The new ones must be on the synced disks of a durable set.
	for _, m := range n.rep.log.active(i - 1) {
		if !m.Durable(func(id partition.ReplicaID) bool {
			o := c.w.node(id)
			return o != nil && !o.gone && o.disk.synced.has(rec.Position())
		}) {
			c.violated("replica %d commits %s, which no durable set of configuration %d has on disk", n.id, rec, m.Version)
		}
	}
	c.commitsConfiguration(n, rec)
	c.committed = append(c.committed, rec)
	if c.w.point != nil {
		c.w.point(n, "commits")
	}
}

// applied checks exactly-once and that equal indexes give equal states.
func (c *checker) applied(n *node, rec partition.Record, res Result) {
	i := rec.Index()
	if int(i) > len(c.committed) || c.committed[i-1].Checksum() != rec.Checksum() {
		c.violated("replica %d applies %s, which is not committed", n.id, rec)
	}
	if n.state.applied != i {
		c.violated("replica %d applies %d behind %d", n.id, i, n.state.applied)
	}
	if rec.Kind() == partition.KindCommand && res.Err == nil {
		_, _, body, _ := ParseCommand(rec.Payload())
		id, got := binary.LittleEndian.Uint64(body), binary.LittleEndian.Uint64(res.Data)
		if first, ok := c.results[id]; ok && first != got {
			c.violated("operation %d gives %d, it has given %d", id, got, first)
		}
		c.results[id] = got
	}
}

// lostHost makes all calls at a node unknown.
func (c *checker) lostHost(n *node) {
	for _, id := range sortedIDs(c.ops) {
		if o := c.ops[id]; o.node == n {
			delete(c.ops, id)
			c.unknown++
			if o.done != nil {
				o.done(&Reply{ID: id, Err: partition.ErrUnknown}, Result{})
			}
		}
	}
	for _, id := range sortedIDs(c.reads) {
		if c.reads[id].node == n {
			delete(c.reads, id)
		}
	}
}

func sortedIDs(m map[uint64]*op) []uint64 {
	var ids []uint64
	for id := range m {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// replied checks the answer of a call.
func (c *checker) replied(n *node, r *Reply, res Result) {
	o := c.ops[r.ID]
	if o == nil {
		o = c.reads[r.ID]
	}
	if o == nil || o.node != n {
		c.violated("replica %d answers %d, which nobody asked", n.id, r.ID)
	}
	delete(c.ops, r.ID)
	delete(c.reads, r.ID)
	if o.config != nil {
		c.configured(n, o, r)
	}
	switch {
	case r.Err == nil && o.read:
		c.quorumReads++
		c.reads1(n, o.floor, n.state.applied, "quorum")
		if n.state.applied < r.Index {
			c.violated("replica %d answers a read at %d, its state is at %d", n.id, r.Index, n.state.applied)
		}
	case r.Err == nil && o.hand:
	case r.Err == nil:
		if r.Index <= o.floor {
			c.violated("operation %d is acknowledged at %d, when it was called %d was visible", o.id, r.Index, o.floor)
		}
		if int(r.Index) > len(c.committed) {
			c.violated("operation %d is acknowledged at %d, not committed", o.id, r.Index)
		}
		if n.state.applied < r.Index {
			c.violated("operation %d is acknowledged at %d before it is applied", o.id, r.Index)
		}
		if !o.opens && res.Err == nil { // X4: the answer is that of this very record
			if got := binary.LittleEndian.Uint64(res.Data); got != c.results[o.id] || !res.Repeated && c.executed[o.id] != r.Index {
				c.violated("operation %d at %d is answered with %d; executed at %d it gave %d", o.id, r.Index, got, c.executed[o.id], c.results[o.id])
			}
		}
		c.acked++
		c.floor = max(c.floor, r.Index)
	case o.hand:
	case r.Err.Code == partition.CodeUnknown:
		c.unknown++
	case !o.read && !o.opens && o.session == (partition.SessionID{}):
		c.refused[o.id] = r.Err.Error()
		if at, ok := c.executed[o.id]; ok {
			c.violated("operation %d was refused (%v) but executed at %d", o.id, r.Err, at)
		}
	}
	if o.done != nil {
		o.done(r, res)
	}
}

// reads1 checks one linearizable read.
func (c *checker) reads1(n *node, floor, shows partition.Index, level string) {
	if shows < floor {
		c.violated("a %s read at replica %d shows %d, but %d was acknowledged before", level, n.id, shows, floor)
	}
	c.floor = max(c.floor, shows)
}

// tryLeaseRead reads at a node if its view allows it.
func (c *checker) tryLeaseRead(n *node) {
	if at, ok := n.leaseRead(); ok {
		c.leaseReads++
		c.reads1(n, c.floor, at, "lease")
	}
}

// propose starts an operation at a node. done may be nil.
func (c *checker) propose(n *node, o *op, kind partition.Kind, payload []byte) uint64 {
	c.nextID++
	o.node, o.floor = n, c.floor
	c.ops[c.nextID] = o
	id := c.nextID
	n.take(Propose{Proposals: []Proposal{{ID: id, Kind: kind, Payload: payload}}})
	return id
}

// write starts a command that executes operation o.id.
func (c *checker) write(n *node, o *op) uint64 {
	body := binary.LittleEndian.AppendUint64(nil, o.id)
	return c.propose(n, o, partition.KindCommand, AppendCommand(nil, o.session, o.seq, body))
}

// read starts a quorum read.
func (c *checker) read(n *node, o *op) {
	c.nextID++
	o.node, o.floor, o.read = n, c.floor, true
	c.reads[c.nextID] = o
	n.take(ReadIndex{ID: c.nextID})
}

// opPartition counts: each command carries the number of an operation, and its
// result is how many were executed before it. It reports what is executed twice.
type opPartition struct{ n *node }

func (p *opPartition) Apply(w partition.Writer, c partition.Command) ([]byte, error) {
	var count uint64
	if v, ok, err := w.Get([]byte("count")); err != nil {
		return nil, err
	} else if ok {
		count = binary.LittleEndian.Uint64(v)
	}
	v := binary.LittleEndian.AppendUint64(nil, count+1)
	key := append([]byte("op"), c.Payload...)
	if _, ok, _ := w.Get(key); ok {
		p.n.w.check.violated("operation %d is executed twice", binary.LittleEndian.Uint64(c.Payload))
	}
	id := binary.LittleEndian.Uint64(c.Payload)
	ck := p.n.w.check
	if why, ok := ck.refused[id]; ok {
		ck.violated("operation %d is executed at %d after it was refused: %s", id, c.Index, why)
	}
	ck.executed[id] = c.Index
	if err := w.Set(key, []byte{1}); err != nil {
		return nil, err
	}
	return v, w.Set([]byte("count"), v)
}

func (p *opPartition) Read(r partition.Reader, _ []byte) ([]byte, error) {
	v, _, err := r.Get([]byte("count"))
	return v, err
}

// describe prints a message as stories show it.
func describe(m Message) string {
	switch m := m.(type) {
	case *Append:
		s := fmt.Sprintf("append epoch %s after %s commit %d", m.Epoch, m.Prev, m.Commit)
		return s + describeRecords(m.Records)
	case *AppendAck:
		s := fmt.Sprintf("ack epoch %s match %d commit %d", m.Epoch, m.Match, m.Commit)
		if m.Want != 0 {
			s += fmt.Sprintf(" want %d", m.Want)
		}
		return s
	case *Gather:
		s := fmt.Sprintf("gather epoch %s", m.Epoch)
		if m.Released != 0 {
			s += fmt.Sprintf(", leases to %s are over", m.Released)
		}
		return s
	case *GatherAnswer:
		return fmt.Sprintf("gather answer epoch %s end %s commit %d lease %s", m.Epoch, m.End, m.Commit.Index, m.LeaseRemaining.Round(1e6))
	case *Fetch:
		return fmt.Sprintf("fetch epoch %s after %d", m.Epoch, m.After)
	case *FetchAnswer:
		s := fmt.Sprintf("fetch answer epoch %s after %s", m.Epoch, m.Prev)
		return s + describeRecords(m.Records)
	case *Probe:
		return fmt.Sprintf("probe epoch %s", m.Epoch)
	case *ProbeAnswer:
		s := fmt.Sprintf("probe answer epoch %s reachable %v master %v end %s", m.Promised, m.Reachable, m.Master, m.End)
		if m.Without != nil {
			s += fmt.Sprintf(" settled v%d, which is without you: %s", m.Settled, showConfig(m.Without))
		}
		return s
	case *HandOver:
		s := fmt.Sprintf("hand-over epoch %s: %s", m.Epoch, [...]string{
			HandPrepare: "prepare", HandReady: "ready", HandRefuse: "refuse", HandCancel: "cancel", HandGo: "go",
		}[m.Step])
		if m.Step == HandGo {
			s += fmt.Sprintf(", the log ends at %s", m.End)
		}
		return s
	case *ReadCheck:
		return fmt.Sprintf("read check epoch %s round %d", m.Epoch, m.Seq)
	case *ReadConfirm:
		return fmt.Sprintf("read confirm epoch %s round %d waiting %v", m.Epoch, m.Seq, m.Waiting)
	}
	return fmt.Sprintf("%T", m)
}

func describePersist(p *Persist, was partition.Epoch) string {
	s := fmt.Sprintf(" promise %s", p.Promise)
	if !p.Snip && len(p.Records) == 0 && p.Promise == was {
		s += fmt.Sprintf(" commit %d", p.Commit)
	}
	if p.Snip {
		s += fmt.Sprintf(" snip behind %d", p.After)
	}
	return s + describeRecords(p.Records)
}

func describeRecords(records []partition.Record) string {
	s := ""
	for _, r := range records {
		s += fmt.Sprintf(" [%s %s]", r.Position(), r.Kind())
		if m, _ := configurationIn(r); m != nil {
			s = s[:len(s)-1] + ": " + showConfig(m) + "]"
		}
	}
	return s
}

// transfer asks a replica to hand over. done may be nil.
func (c *checker) transfer(n *node, to partition.ReplicaID, done func(*Reply)) {
	c.nextID++
	epoch := n.rep.promised
	c.ops[c.nextID] = &op{opens: true, hand: true, node: n, done: func(r *Reply, _ Result) {
		if r.Err == nil && to != n.id {
			c.handed(epoch, to)
		}
		if done != nil {
			done(r)
		}
	}}
	n.take(Transfer{ID: c.nextID, To: to})
}

// handed checks that after an epoch somebody has led: to, if it is not 0.
func (c *checker) handed(epoch partition.Epoch, to partition.ReplicaID) {
	for e := range c.masters { // in no order: any will do
		if e > epoch && (to == 0 || e.Replica() == to) {
			c.transfers++
			return
		}
	}
	c.violated("%d was said to follow epoch %s, and does not lead", to, epoch)
}
