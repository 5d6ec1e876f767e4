package lease

import (
	"time"

	"pando.dev/pando/internal/planted"
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
		t.c.point(AtDeadBeat)
		return Answer{}, false
	}
	t.learn(p, b.Boot)
	if b.PeerBoot == t.c.Boot || t.c.Planted.Has(planted.AckOfAnotherBoot) {
		t.acknowledge(p, b.Acked)
	}
	a = Answer{Seq: b.Seq, Boot: t.c.Boot, HolderBoot: b.Boot}
	a.Revoked, a.Revision, a.More = p.unacknowledged()
	if len(a.Revoked) > 0 {
		if p.sentRevision >= a.Revision {
			t.c.point(AtRevokedAgain)
		}
		p.sentRevision = max(p.sentRevision, a.Revision)
	}
	t.spoil(p, &a)
	switch {
	case !t.open.Load():
		t.c.point(AtWithheldClosed)
	case a.More || p.withheld:
		t.c.point(AtWithheldMore)
	default:
		a.Lease = t.c.Lease
		p.granted = max(p.granted, now+t.c.Lease)
		t.c.point(AtGrant)
	}
	return a, true
}

// spoil makes the mistakes that are planted in answers.
func (t *Table) spoil(p *peer, a *Answer) {
	switch {
	case t.c.Planted.Has(planted.RevocationLost):
		a.Revoked = nil
	case t.c.Planted.Has(planted.RevocationOnce):
		p.acknowledge(a.Revision)
	}
}

// learn is peer.learn. mu is held.
func (t *Table) learn(p *peer, boot uint64) {
	if p.boot != 0 && boot > p.boot {
		t.c.point(AtPeerRestarted)
	}
	p.learn(boot)
}

// acknowledge is peer.acknowledge. mu is held.
func (t *Table) acknowledge(p *peer, upTo uint64) {
	n := len(p.revoked)
	if p.acknowledge(upTo); len(p.revoked) < n {
		t.c.point(AtAcknowledged)
	}
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
	its := sent.seq == a.Seq || t.c.Planted.Has(planted.AnswerToAnother)
	if a.HolderBoot != t.c.Boot || a.Boot < p.boot || !its || a.Seq == 0 {
		p.refused++
		t.c.point(AtStaleAnswer)
		return Renewal{}
	}
	r := Renewal{OK: true, RTT: max(0, now-sent.at), Again: a.More, Restarted: p.boot != 0 && a.Boot > p.boot}
	t.learn(p, a.Boot)
	t.takeRevocations(p, a.Revoked)
	p.applied = max(p.applied, a.Revision)
	if a.Lease > 0 {
		length := min(a.Lease, t.c.Lease)
		if !t.c.Planted.Has(planted.NoDrift) {
			length -= length*time.Duration(t.c.DriftPPM)/1_000_000 + 1
		}
		if t.c.Planted.Has(planted.FromAnswer) {
			sent.at = now
		}
		p.hold(sent.at + length)
		t.c.point(AtHeld)
	}
	p.answered.Store(max(1, int64(now)))
	return r
}

// takeRevocations acts on the revocations of an answer. mu is held.
func (t *Table) takeRevocations(p *peer, revoked []Revocation) {
	if t.c.Planted.Has(planted.RevocationLate) {
		revoked, p.late = p.late, revoked
	}
	if len(revoked) > 0 {
		t.c.point(AtRevocationTaken)
	}
	if !p.floors.raise(revoked, t.c.MaxRevoked) {
		p.distrust.Store(true)
		t.c.point(AtDistrust)
	}
}
