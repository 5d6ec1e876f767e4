package lease

import (
	"time"

	"pando.dev/pando/partition"
)

// Beat asks a peer for a grant. It is a heartbeat, too.
type Beat struct {
	Seq  uint64 // of the sender, per peer
	Boot uint64 // the sender's incarnation
	// PeerBoot is the incarnation of the receiver that the sender knows, and
	// Acked the receiver's revision up to which the sender has acted on its
	// revocations. It means nothing to another incarnation.
	PeerBoot uint64
	Acked    uint64
}

// Answer answers a Beat.
type Answer struct {
	Seq        uint64 // of the beat
	Boot       uint64 // the sender's incarnation
	HolderBoot uint64 // the beat's
	// Lease is how long the grant runs; 0: nothing is renewed.
	Lease time.Duration
	// Revoked are the groups excluded from the grant in epochs below the given
	// one, as far as the holder has not acknowledged them; Revision is what it
	// acknowledges. More: there are others, so beat again at once.
	Revoked  []Revocation
	Revision uint64
	More     bool
}

// Revocation says that the sender's replica of the group has promised Epoch: the
// sender's grants count for nothing older, and for no replica of the group that
// it held before this one.
type Revocation struct {
	Group   partition.GroupID
	Replica partition.ReplicaID
	Epoch   partition.Epoch
}

// Renewal is what an answer did.
type Renewal struct {
	// OK: the answer was taken; the peer lives.
	OK bool
	// RTT is the time from the beat to the answer.
	RTT time.Duration
	// Again asks for the next beat at once.
	Again bool
	// Restarted: the peer is a newer incarnation than known so far.
	Restarted bool
}

// Beat returns the next beat for a peer. The link sends it at once or not at
// all: the grant counts from now. ok is false if the table is full.
func (t *Table) Beat(now partition.Time, n partition.NodeID) (b Beat, ok bool) {
	p := t.peer(n)
	if p == nil {
		return Beat{}, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seq++
	p.sent[p.seq%beatWindow] = sentBeat{seq: p.seq, at: now}
	return Beat{Seq: p.seq, Boot: t.c.Boot, PeerBoot: p.boot, Acked: p.applied}, true
}

// OnBeat grants the peer a lease, if nothing speaks against it, and returns the
// answer. now must have been read after the beat came in. ok is false for a
// beat of a dead incarnation, or if the table is full: it gets no answer.
func (t *Table) OnBeat(now partition.Time, n partition.NodeID, b Beat) (a Answer, ok bool) {
	p := t.peer(n)
	if p == nil {
		return Answer{}, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if b.Boot < p.boot {
		p.refused++
		return Answer{}, false
	}
	p.learn(b.Boot)
	if b.PeerBoot == t.c.Boot {
		p.acknowledge(b.Acked)
	}
	a = Answer{Seq: b.Seq, Boot: t.c.Boot, HolderBoot: b.Boot}
	a.Revoked, a.Revision, a.More = p.unacknowledged()
	if t.open.Load() && !a.More && !p.withheld {
		a.Lease = t.c.Lease
		p.granted = max(p.granted, now+t.c.Lease)
	}
	return a, true
}

// OnAnswer acts on the revocations of an answer and then counts its renewal.
func (t *Table) OnAnswer(now partition.Time, n partition.NodeID, a Answer) Renewal {
	p := (*t.peers.Load())[n]
	if p == nil {
		return Renewal{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	sent := p.sent[a.Seq%beatWindow]
	if a.HolderBoot != t.c.Boot || a.Boot < p.boot || sent.seq != a.Seq || a.Seq == 0 {
		p.refused++
		return Renewal{}
	}
	r := Renewal{OK: true, RTT: max(0, now-sent.at), Again: a.More, Restarted: p.boot != 0 && a.Boot > p.boot}
	p.learn(a.Boot)
	if !p.floors.raise(a.Revoked, t.c.MaxRevoked) {
		p.distrust.Store(true)
	}
	p.applied = max(p.applied, a.Revision)
	if a.Lease > 0 {
		length := min(a.Lease, t.c.Lease)
		length -= length*time.Duration(t.c.DriftPPM)/1_000_000 + 1
		p.hold(sent.at + length)
	}
	p.answered.Store(max(1, int64(now)))
	return r
}
