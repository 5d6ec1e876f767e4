package exhaust

import (
	"crypto/sha256"
	"fmt"
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

// nodes numbers the states of single nodes and knows what each of them does next.
// Since most worlds differ in one node only, and few states of a node make many
// worlds, a machine takes far fewer steps than there are transitions.
type nodes struct {
	cfg     replica.Config
	slow    bool // applying takes a while
	disk    bool // writes are on the disk at once
	lock    bool // locks are granted at once
	change  func(*local, int) replica.Input
	command func(op, try int) replica.Proposal

	letters *letters
	byPrint map[print]uint32
	list    []*local
	known   map[question]*effect
	buf     []byte
	steps   uint64
	marks   []uint64 // by point
}

// print is what stands for a fingerprint: long enough that no two that differ share one.
type print [sha256.Size]byte

// question asks what a node does when something happens to it, lag after the last
// thing did.
type question struct {
	node   uint32
	action action
	lag    partition.Time
}

// effect is what a node does, besides becoming next.
type effect struct {
	next    uint32
	sends   []uint32
	replies []reply
	lost    []partition.Record // from the log, by a snip
	grant   *held              // to the node that the action names
	broken  string             // a property of the node alone that does not hold
}

type reply struct {
	id    uint64
	index partition.Index
	code  partition.Code // 0: done
}

// number returns the number of a node's state, which is not written any more.
func (k *nodes) number(l *local) uint32 {
	k.buf = l.fingerprint(k.buf[:0])
	sum := sha256.Sum256(k.buf)
	if n, ok := k.byPrint[sum]; ok {
		return n
	}
	n := uint32(len(k.list))
	k.byPrint[sum] = n
	k.list = append(k.list, l)
	return n
}

// after returns what a node does when something happens to it.
func (k *nodes) after(q question) *effect {
	if e, ok := k.known[q]; ok {
		return e
	}
	k.steps++
	d := doing{k: k, l: k.list[q.node].fork(), e: new(effect)}
	d.l.now += q.lag
	d.happen(q.action)
	if d.e.broken == "" && d.l.up {
		d.l.look()
		d.lead()
	}
	d.e.next = k.number(d.l)
	k.known[q] = d.e
	return d.e
}

// doing is one node while something happens to it.
type doing struct {
	k     *nodes
	l     *local
	e     *effect
	todo  []replica.Input // results of work done at once
	limit int
}

func (d *doing) fail(format string, args ...any) {
	if d.e.broken == "" {
		d.e.broken = fmt.Sprintf(format, args...)
	}
}

// lead notes in which epoch the replica is master.
func (d *doing) lead() {
	l := d.l
	if !l.status.master {
		return
	}
	if l.led == l.status.epoch && l.ledBoot != l.boot {
		d.fail("one master per epoch: replica %d was master in epoch %s before it started again, and is again", l.self+1, l.led)
	}
	l.led, l.ledBoot = l.status.epoch, l.boot
}

// happen lets an action happen. A panic of the machine or its host is a violation.
func (d *doing) happen(a action) {
	defer func() {
		if x := recover(); x != nil {
			d.fail("assertion: %v", x)
		}
	}()
	l, arg := d.l, a.arg()
	switch a.kind() {
	case deliver, repeat:
		x := d.k.letters.list[arg]
		d.step(replica.Received{
			From: partition.ReplicaID(x.from + 1), Node: nodeName(x.from), Boot: uint64(x.boot), Message: x.message,
		})
	case sync:
		d.sync()
	case applied:
		d.apply(l.applying)
	case locked, refused, outdated:
		above := l.asks[arg]
		l.asks = append(l.asks[:arg:arg], l.asks[arg+1:]...)
		switch a.kind() {
		case locked:
			d.step(replica.Locked{Number: above + 1})
		case refused:
			d.step(replica.LockRefused{})
		case outdated:
			d.step(replica.Locked{Number: above})
		}
	case alarm:
		l.now, l.alarm = max(l.now, l.alarm), 0
		d.step(replica.Tick{})
	case down:
		l.unreachable |= 1 << arg
		d.step(replica.NodeDown{Node: nodeName(arg)})
	case up:
		l.unreachable &^= 1 << arg
		d.step(replica.NodeUp{Node: nodeName(arg)})
	case crash, start:
		d.power(a)
	default:
		d.asked(a)
	}
}

// asked lets somebody outside the group want something.
func (d *doing) asked(a action) {
	l, arg := d.l, a.arg()
	switch a.kind() {
	case anew: // the argument is the node and its incarnation
		o := arg % maxReplicas
		l.met[o] = uint8(arg / maxReplicas)
		l.unreachable |= 1 << o
		d.step(replica.NodeDown{Node: nodeName(o)})
		l.unreachable &^= 1 << o
		d.step(replica.NodeUp{Node: nodeName(o)})
	case propose:
		d.step(replica.Propose{Proposals: []replica.Proposal{d.k.command(arg&15, arg>>4)}})
	case read:
		d.step(replica.ReadIndex{ID: readID + uint64(arg)})
	case transfer:
		d.step(replica.Transfer{ID: otherID, To: partition.ReplicaID(arg + 1)})
	case resign:
		d.step(replica.Resign{})
	case configure:
		d.step(d.k.change(l, arg))
	case grant:
		l.given[arg] = l.now + d.k.cfg.Lease
		d.e.grant = &held{boot: l.boot, floor: l.floor}
	}
}

// power takes a node's power or gives it back.
func (d *doing) power(a action) {
	l := d.l
	if a.kind() == crash {
		if a.arg()&flushes != 0 {
			l.flushed = l.applied
		}
		l.crash(l.synced.survivors(l.pending)[a.arg()&^flushes])
		return
	}
	if err := l.start(d.config()); err != nil {
		d.fail("start: replica %d: %v", l.self+1, err)
		return
	}
	d.step(replica.Tick{})
}

func (d *doing) config() replica.Config {
	c := d.k.cfg
	c.Point = func(p replica.Point) { d.k.marks[p]++ }
	return c
}

// step gives the machine one input and does all its work, and what follows at once.
func (d *doing) step(in replica.Input) {
	d.todo = append(d.todo, in)
	for len(d.todo) > 0 {
		in := d.todo[0]
		d.todo = d.todo[1:]
		if d.limit++; d.limit > 100 {
			d.fail("rest: replica %d does not come to rest", d.l.self+1)
			return
		}
		if err := d.l.rep.Step(replica.Event{Now: d.l.now, Input: in}); err != nil {
			d.fail("refused: replica %d refuses %T: %v", d.l.self+1, in, err)
			return
		}
		for x := range d.l.rep.Ready() {
			d.work(x)
		}
	}
}

func (d *doing) work(x replica.Work) {
	l := d.l
	switch x := x.(type) {
	case *replica.Persist:
		if x.Snip {
			d.e.lost = append(d.e.lost, l.seen.recs[x.After:]...)
		}
		l.seen = l.seen.with(x)
		l.pending = append(l.pending, x)
		if d.k.disk && x.Sync {
			l.synced, l.pending = l.seen, nil
			d.todo = append(d.todo, replica.Persisted{Seq: x.Seq})
		}
	case *replica.Send:
		d.send(x)
	case *replica.Apply:
		l.applying = x
		if !d.k.slow {
			d.apply(x)
		}
	case *replica.Reply:
		y := reply{id: x.ID, index: x.Index}
		if x.Err != nil {
			y.code = x.Err.Code
		}
		if y.code == 0 && l.applied < y.index {
			d.fail("applied: replica %d answers %d at %d, its state is at %d", l.self+1, x.ID, x.Index, l.applied)
		}
		d.e.replies = append(d.e.replies, y)
	case *replica.Alarm:
		l.alarm = x.At
	case *replica.AcquireLock:
		if d.k.lock {
			d.todo = append(d.todo, replica.Locked{Number: x.Above + 1})
			return
		}
		l.asks = append(l.asks, x.Above)
	case *replica.Publish:
		l.view = x.View
	}
}

// send gives a message to the network, with the records that the host is to read.
func (d *doing) send(x *replica.Send) {
	m := x.Message
	switch a := m.(type) {
	case *replica.Append:
		if a.Through > a.Prev.Index && len(a.Records) == 0 {
			c := *a
			c.Records = d.l.read(a.Prev.Index, a.Through, d.k.cfg.MaxAppendBytes)
			c.PrevSum, c.Through = c.Records[0].Prev(), 0
			m = &c
		}
	case *replica.FetchAnswer:
		if a.Through > a.Prev.Index && len(a.Records) == 0 {
			c := *a
			c.Records = d.l.read(a.Prev.Index, a.Through, d.k.cfg.MaxAppendBytes)
			c.PrevSum, c.Through = c.Records[0].Prev(), 0
			m = &c
		}
	}
	if to := nodeOf(x.Node); to >= 0 && int(x.To) == to+1 {
		d.e.sends = append(d.e.sends, d.k.letters.number(letter{from: d.l.self, to: to, boot: d.l.boot, message: m}))
	}
}

// sync puts the oldest write under way, and what came before it, on the disk.
func (d *doing) sync() {
	l := d.l
	for i, p := range l.pending {
		l.synced = l.synced.with(p)
		if p.Sync {
			l.pending = l.pending[i+1:]
			d.step(replica.Persisted{Seq: p.Seq})
			return
		}
	}
}

func (d *doing) apply(a *replica.Apply) {
	l := d.l
	l.applying, l.applied = nil, a.Last
	in := replica.Applied{Index: a.Last}
	if d.k.slow {
		d.step(in)
		return
	}
	d.todo = append(d.todo, in)
}

// Proposals, reads and everything else are told apart by their ids.
const (
	readID  = 1 << 16
	otherID = 1 << 17
)

// machineConfig is the Config that all replicas have. With it a master that is cut
// off sends again once, and gives up at its second alarm.
func machineConfig(c *Config) replica.Config {
	r := replica.Config{
		Lease: 300 * time.Millisecond, RetryMin: 20 * time.Millisecond, RetryMax: 160 * time.Millisecond,
		AnswerWait: 150 * time.Millisecond, DurabilityWait: 300 * time.Millisecond,
		MaxAppendBytes: 1 << 20, Planted: c.Planted,
	}
	if c.OneRecord {
		r.MaxAppendBytes = 1
	}
	return r
}
