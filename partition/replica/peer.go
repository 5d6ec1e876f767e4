package replica

import (
	"pando.dev/pando/internal/planted"
	"pando.dev/pando/partition"
)

// peer is what a master knows of another member in this epoch.
//
//	unsure --- an answer without Want ---> sure
//	  ^  one message at a time              |  records stream within the window
//	  `---- Want, or no answer in time -----'
//
// Invariants: match < next; what is between them was sent and is not yet
// acknowledged (or, while unsure, may be in the peer's log anyhow).
type peer struct {
	id      partition.ReplicaID
	node    partition.NodeID
	voter   bool
	leaving bool // no member any more
	told    bool // a leaving one: it knows

	supports bool            // it has promised this epoch
	boot     uint64          // the newest incarnation of its node that said so
	match    partition.Index // it has the log up to here on disk
	next     partition.Index // the next record to send
	sure     bool            // its log is known to agree up to next
	waiting  bool            // unsure, and a message is under way
	reading  bool            // it has records from the log, next and perhaps more: only who has next answers it
	steps    int             // back since the logs were known to agree somewhere
	ask      bool            // send something, even if there is nothing new
	down     bool            // its node was reported down: do not send again
	state    bool            // it keeps the group's state
	behind   bool            // it needs a copy: the log begins behind next
	quiet    partition.Time  // it owes an answer, and has given none, since then; 0: it does not

	sent     []sentRange // behind match, ascending
	inFlight int         // bytes of sent

	commitSent, commitKnown partition.Index
	deadline                partition.Time // to send again; 0: nothing is outstanding
	tries                   int            // to send again since the last answer
}

// sentRange is one message with records: the last of them, and their size.
type sentRange struct {
	last  partition.Index
	bytes int
}

func (p *peer) ref() peerRef { return peerRef{id: p.id, node: p.node} }

// acknowledge takes an answer in the master's epoch.
func (p *peer) acknowledge(r *Replica, m *AppendAck) {
	p.down, p.state, p.quiet = false, m.State, 0
	progress := m.Match > p.match || m.Commit > p.commitKnown
	p.match = max(p.match, m.Match)
	p.commitKnown = max(p.commitKnown, m.Commit)
	n := 0
	for n < len(p.sent) && p.sent[n].last <= p.match {
		p.inFlight -= p.sent[n].bytes
		n++
	}
	p.sent = append(p.sent[:0], p.sent[n:]...)
	switch {
	case m.Want > p.match && m.Want <= r.log.last+1:
		if !p.sure && p.waiting && m.Want >= p.next {
			return // an echo: what it wants is on its way
		}
		p.stepBack(m.Want, max(m.Commit, p.match, r.log.before.Index)+1)
		progress = true
	case p.reading && m.Want == 0 && m.Match < p.next:
		// It answers something else, or comes twice. Were the records sent again, they
		// would be answered again, too: two answers under way would stay two for as long
		// as there is anything to read, and grow where messages are doubled.
	case m.Want == 0:
		p.sure, p.waiting, p.reading, p.steps = true, false, false, 0
		p.next = max(p.next, p.match+1)
		if len(p.sent) == 0 {
			p.next = p.match + 1
		}
	}
	if progress {
		p.tries, p.deadline = 0, 0
		if p.outstanding() {
			p.deadline = r.now + r.cfg.AnswerWait
		}
	}
	if !p.outstanding() {
		p.tries, p.deadline = 0, 0
	}
}

// stepBack looks for where the logs agree, which is at least before, from what
// the peer wants. It names the first record of the epoch in which its log differs,
// and the logs may differ in as many epochs as there were masters that did not
// commit anything: one round trip for each can take longer than a mastership lasts
// that commits nothing meanwhile. So every further step goes twice as far. What is
// sent without need is at most as much as what was.
func (p *peer) stepBack(want, before partition.Index) {
	step := partition.Index(1)<<min(p.steps, 32) - 1
	p.rewind(max(want-min(step, want-1), min(want, before)))
	p.steps++
}

// rewind starts anew at next, one message at a time.
func (p *peer) rewind(next partition.Index) {
	p.next, p.sure, p.waiting, p.reading = next, false, false, false
	p.sent, p.inFlight = p.sent[:0], 0
	p.ask = true
}

// outstanding reports whether an answer is still to come.
func (p *peer) outstanding() bool {
	return p.waiting || len(p.sent) > 0 || p.commitSent > p.commitKnown
}

// tick sends again what was not answered in time, unless the node is down: then
// NodeUp does.
func (p *peer) tick(r *Replica) {
	if p.deadline == 0 || r.now < p.deadline {
		return
	}
	p.deadline = 0
	if p.next < r.log.first && !p.leaving {
		return // it needs a copy
	}
	if !r.cfg.Neighbours.Reachable(p.node) {
		p.down = true
		return
	}
	if r.cfg.Planted.Has(planted.NoResend) {
		return
	}
	p.tries++
	r.point(AtResent)
	p.again(r)
}

// again starts anew behind what the peer is known to have. If nothing is known,
// or too little, a question for the end of its log comes first.
func (p *peer) again(r *Replica) {
	if p.match == 0 || p.match+1 < r.log.first {
		p.rewind(r.log.last + 1)
		return
	}
	p.rewind(p.match + 1)
}

// peersOn notes that a node has gone or come back.
func (r *Replica) peersOn(n partition.NodeID, up bool) {
	for _, p := range r.mastery.peers {
		if p.node != n {
			continue
		}
		p.down = !up
		p.deadline, p.tries, p.quiet = 0, 0, 0
		if up {
			p.again(r)
		}
	}
}

// feed sends a peer what it lacks, within its window, and at least the commit
// index if it has not heard of it.
func (p *peer) feed(r *Replica) {
	if p.down {
		return
	}
	l := r.log
	if behind := p.next < l.first; behind != p.behind {
		if p.behind = behind; behind {
			r.point(AtBehind)
		}
	}
	if p.behind {
		return // it needs a copy
	}
	for p.next <= l.last && p.inFlight < r.cfg.MaxInFlightBytes && !p.waiting {
		m := p.append(r)
		m.Records, m.Through = r.supply(p.next - 1)
		r.send(p.ref(), m)
		if m.Through != 0 {
			// How much of it the host will send is not known: wait.
			p.sure, p.waiting, p.reading = false, true, true
			break
		}
		last, bytes := p.next-1, 0
		for _, x := range m.Records {
			last++
			bytes += len(x)
		}
		p.sent = append(p.sent, sentRange{last: last, bytes: bytes})
		p.inFlight += bytes
		if r.cfg.Planted.Has(planted.CountSent) {
			p.match = max(p.match, last)
		}
		if p.sure {
			p.next = last + 1
		} else {
			p.waiting = true
		}
	}
	if !p.waiting && (p.ask || p.next > l.last && p.commitSent < r.commit) {
		r.send(p.ref(), p.append(r))
		p.waiting = !p.sure
	}
	if p.quiet == 0 && p.outstanding() {
		p.quiet = max(r.now, 1)
	}
	if p.deadline == 0 && p.outstanding() {
		p.deadline = r.now + min(r.cfg.AnswerWait<<min(p.tries, 16), max(r.cfg.RetryMax, r.cfg.AnswerWait))
	}
}

// append makes a message that continues at next.
func (p *peer) append(r *Replica) *Append {
	l := r.log
	m := &Append{Epoch: r.promised, Commit: r.commit, Everywhere: r.everywhere}
	e, _ := l.epochAt(p.next - 1)
	m.Prev = partition.Position{Epoch: e, Index: p.next - 1}
	m.PrevSum, _ = l.sumAt(p.next - 1)
	p.commitSent = max(p.commitSent, min(r.commit, r.log.last))
	p.ask = false
	return m
}

// farewells is how often a member that has left is told so, unless its node comes
// back meanwhile; the pause doubles.
const farewells = 8

// farewell tells a member that it has left the group, whatever it has of the log.
// When it asks whether it is still needed, it knows.
func (p *peer) farewell(r *Replica) {
	if p.deadline != 0 || p.down || p.told {
		return
	}
	r.send(p.ref(), r.probeAnswer(p.id))
	p.deadline = r.now + min(r.cfg.AnswerWait<<min(p.tries, 16), maxRetireWait)
}

// feedAll feeds every peer and forgets those that have left.
func (r *Replica) feedAll() {
	m := &r.mastery
	kept := m.peers[:0]
	for _, p := range m.peers {
		if p.leaving {
			p.farewell(r)
		} else {
			p.feed(r)
		}
		if !p.leaving || !p.told && p.tries < farewells {
			kept = append(kept, p)
		}
	}
	clear(m.peers[len(kept):])
	m.peers = kept
}
