package exhaust

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

// maxReplicas bounds a configuration.
const maxReplicas = 5

// group is the group of every configuration.
const group partition.GroupID = 1

// local is one node: the real machine, and its host with the disk. It is never
// written after it was numbered, so that worlds share it.
type local struct {
	self int // ordinal; the replica is self+1
	up   bool
	boot uint8
	now  partition.Time // of the newest event on the own clock

	// The disk: what is safe, what is on the way, what a read sees, and how far the
	// state that is safe goes.
	synced, seen image
	pending      []*replica.Persist
	flushed      partition.Index

	// The rest is lost by a crash.
	rep         *replica.Replica
	view        *replica.View
	applied     partition.Index
	applying    *replica.Apply // under way
	alarm       partition.Time // 0: none
	asks        []uint64       // to the lock service: numbers above these are wanted
	unreachable uint8          // nodes, as bits
	met         [maxReplicas]uint8
	given       [maxReplicas]partition.Time // grants to others run until then
	floor       partition.Epoch             // grants count from this epoch on
	held        [maxReplicas]held

	// What the properties need to know. led is the newest epoch in which this
	// replica was master, and ledBoot the incarnation it was that in.
	led     partition.Epoch
	ledBoot uint8
	status  status
}

// held is a grant of another node.
type held struct {
	boot  uint8
	floor partition.Epoch
	until partition.Time
}

// status is what the machine says of itself.
type status struct {
	epoch    partition.Epoch
	commit   partition.Index
	master   bool
	serving  bool
	takes    bool // commands: as master, or as one to be
	leaseEnd partition.Time
}

func nodeName(n int) partition.NodeID { return partition.NodeID(fmt.Sprintf("n%d", n+1)) }

// nodeOf is the ordinal of a node, -1 if there is none of that name.
func nodeOf(name partition.NodeID) int {
	if len(name) != 2 || name[0] != 'n' || name[1] < '1' || name[1] > '0'+maxReplicas {
		return -1
	}
	return int(name[1] - '1')
}

// fixed is a source of chance that always says the same: jitter is a part of the
// pause that differs from node to node and nothing else. It is so made that no
// draw is repeated.
type fixed uint64

func (f fixed) Uint64() uint64 { return uint64(f) }

func chance(self int) *rand.Rand { return rand.New(fixed(uint64(self+1)<<61 + 1)) }

// fork returns a node to be changed.
func (l *local) fork() *local {
	c := *l
	c.pending, c.asks = slices.Clone(l.pending), slices.Clone(l.asks)
	if l.rep != nil {
		c.rep = l.rep.Clone(&c, chance(l.self))
	}
	return &c
}

// crash stops a node, of whose disk im is left.
func (l *local) crash(im image) {
	*l = local{
		self: l.self, boot: l.boot, now: l.now, synced: im, seen: im, flushed: l.flushed,
		led: l.led, ledBoot: l.ledBoot,
	}
}

// start makes the machine from what is on the disk.
func (l *local) start(c replica.Config) error {
	l.boot++
	l.up, l.applied, l.floor = true, l.flushed, l.synced.promise
	c.Group, c.Self, c.Node = group, partition.ReplicaID(l.self+1), nodeName(l.self)
	c.Neighbours, c.Rand = l, chance(l.self)
	rep, err := replica.New(c, l.synced.restored(l.applied, l.boot > 1))
	l.rep = rep
	return err
}

// look notes what the machine says of itself.
func (l *local) look() {
	s := l.rep.Status()
	v := l.view
	l.status = status{epoch: s.Epoch, commit: s.Commit, serving: s.Serving}
	switch s.Role {
	case "master", "recovering":
		l.status.master, l.status.takes = true, true
	case "leveling":
		l.status.master = true
	default:
		l.status.takes = v != nil && v.Next == nodeName(l.self)
	}
	if v != nil {
		l.status.leaseEnd = v.LeaseEnd(l)
	}
}

// Reachable implements replica.Neighbours by the hints that were given.
func (l *local) Reachable(n partition.NodeID) bool {
	o := nodeOf(n)
	return o == l.self || o >= 0 && l.unreachable&(1<<o) == 0
}

// Revoke implements replica.Neighbours.
func (l *local) Revoke(_ partition.GroupID, _ partition.ReplicaID, e partition.Epoch, holder partition.NodeID) partition.Time {
	l.floor = e
	if o := nodeOf(holder); o >= 0 {
		return l.given[o]
	}
	return slices.Max(l.given[:])
}

// Granted implements replica.Neighbours.
func (l *local) Granted(_ partition.GroupID, e partition.Epoch, by partition.NodeID, s replica.Supporter) partition.Time {
	o := nodeOf(by)
	if o < 0 {
		return 0
	}
	if h := l.held[o]; h.floor <= e && uint64(h.boot) == s.Boot {
		return h.until
	}
	return 0
}

// read gives records behind after from the log, at most limit bytes of them but at
// least one.
func (l *local) read(after, through partition.Index, limit int) []partition.Record {
	recs := l.seen.recs[after:through]
	size := 0
	for i, r := range recs {
		if size += len(r); i > 0 && size > limit {
			return recs[:i]
		}
	}
	return recs
}

// fingerprint appends everything that the node's future depends on, and what the
// properties need.
func (l *local) fingerprint(b []byte) []byte {
	b = append(b, byte(l.self), l.boot, l.ledBoot)
	b = appendFlags(b, l.up)
	b = appendNumbers(b, uint64(l.led), uint64(l.flushed))
	b = appendImage(b, &l.synced)
	if !l.up {
		return b
	}
	b = appendNumbers(b, uint64(len(l.pending)))
	for _, p := range l.pending {
		b = appendNumbers(b, uint64(p.Promise), uint64(p.Commit), uint64(p.After))
		b = appendFlags(b, p.Snip, p.Sync)
		b = appendNumbers(b, uint64(len(p.Records)))
		for _, r := range p.Records {
			b = appendNumbers(b, uint64(r.Checksum()))
		}
	}
	b = appendNumbers(b, uint64(l.applied))
	if l.applying != nil {
		b = appendNumbers(append(b, 1), uint64(l.applying.First), uint64(l.applying.Last))
	} else {
		b = append(b, 0)
	}
	b = l.appendTime(b, l.alarm, true)
	b = appendNumbers(b, uint64(len(l.asks)))
	b = appendNumbers(b, l.asks...)
	b = append(append(b, l.unreachable), l.met[:]...)
	b = appendNumbers(b, uint64(l.floor))
	for o := range l.given {
		b = l.appendTime(b, l.given[o], false)
		if h := l.held[o]; h.until > l.now {
			b = appendNumbers(append(b, h.boot), uint64(h.floor))
			b = l.appendTime(b, h.until, false)
		} else {
			b = append(b, 0)
		}
	}
	return l.rep.AppendFingerprint(b)
}

// appendTime appends what is left until a time. If it is over, that is all that
// counts, except of an alarm.
func (l *local) appendTime(b []byte, t partition.Time, exact bool) []byte {
	if t == 0 || !exact && t <= l.now {
		return append(b, 0)
	}
	return appendNumbers(append(b, 1), uint64(t-l.now)) // also of a past one
}

func appendImage(b []byte, im *image) []byte {
	b = appendNumbers(b, uint64(im.promise), uint64(im.commit), uint64(len(im.recs)))
	for _, r := range im.recs {
		b = appendNumbers(b, uint64(r.Epoch()), uint64(r.Checksum()))
	}
	return b
}
