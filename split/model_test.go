package split

import (
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"time"

	"pando.dev/pando/partition"
)

// The model is a parent with three voters, perhaps with a learner, whose logs are
// replicated one record at a time, elected anew and snipped; a child of it; and the
// real Extent.Next and the real Next on top. Every state that can be reached within
// the bounds is visited.

const (
	mostMembers = 4
	mostRecords = 9
	firstIndex  = 101 // of the log's first record; the intent is the one before
	firstChild  = partition.GroupID(18)
)

// Kinds of the model's records. A record is its kind, the epoch, and how often the
// range version had changed when it was proposed: what it compares with.
const (
	noop = iota
	write1
	write2
	seal
	unseal
	activate
	done
	abort
)

func record(kind, epoch, changes uint8) uint8 { return kind | epoch<<3 | changes<<5 }
func kindOf(r uint8) uint8                    { return r & 7 }
func epochOf(r uint8) uint8                   { return r >> 3 & 3 }

var kinds = map[uint8]partition.Kind{
	seal: partition.KindSeal, unseal: partition.KindUnseal, activate: partition.KindActivate, done: partition.KindDone, abort: partition.KindAbort,
}

// memb is a member of the parent.
type memb struct {
	log                 [mostRecords]uint8
	n, promised, commit uint8
	leads, serves       bool // in the epoch promised; serves: it takes writes and drives the split
	lease               bool // it answers reads by itself
	held                bool
	made                uint8 // the child: 0, or 1 and what it begins with
}

// state is one state of the model.
type state struct {
	m             [mostMembers]memb
	epoch, writes uint8
	acked         uint8
	crashes       uint8
	served        uint8 // the newest epoch whose master has served; older leases have run out
	told, cancel  bool
	closed        bool // a master of before has said that the split is given up
}

// bounds are what the model is explored within, and which mistake it makes.
type bounds struct {
	members, epochs, writes, crashes uint8
	children                         [][]partition.ReplicaID // the members of each
	cancel, stale                    bool
	tries                            int

	openOnReceipt   bool // a child opens when the record is there, committed or not
	singleRecord    bool // Seal is the decision
	unsealActivated bool // an activated split can be unsealed
	unconfirmed     bool // Activate waits for nobody
	leasesRun       bool // a master serves while older leases run
	doneEarly       bool // Done waits for nobody
	untold          bool // a closed task is taken for one that is known to be activated
	serveUnapplied  bool // a master serves before its own first record is committed
}

// view is what a prefix of a log leads to.
type view struct {
	x       partition.Extent
	content uint8 // writes of the leaving range that were executed
	refused uint8
	changes uint8
}

type explorer struct {
	bounds
	parent *partition.Membership
	begun  partition.Extent
	views  map[prefix]*view
	steps  map[question]Step
	seen   map[[2]uint64]struct{}
	queue  []state
	from   []int32
	seeds  [2]maphash.Seed
	ends   map[string]int
}

type prefix struct {
	log [mostRecords]uint8
	n   uint8
}

// question is what Next goes by.
type question struct {
	v                           *view
	self, proposed              uint8
	held, expired, cancel, told bool
	closed                      bool
	match                       [mostMembers]uint8
	made                        uint8
}

func newExplorer(b bounds) *explorer {
	e := &explorer{
		bounds: b, parent: group("n1", "n2", "n3"), views: map[prefix]*view{}, steps: map[question]Step{},
		seen: map[[2]uint64]struct{}{}, seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}, ends: map[string]int{},
	}
	if b.members > 3 {
		e.parent.Add(partition.Member{Node: "n4", Kind: partition.Learner, Eligible: true})
	}
	in := partition.Intent{Task: 7, Range: keys("b", "t"), Version: 5}
	for i, members := range b.children {
		c := partition.Child{Group: firstChild + partition.GroupID(i), Range: keys("m", "t"), First: members[0]}
		if c.Membership = (&partition.Membership{Version: 1, Policy: e.parent.Policy, Next: e.parent.Next}); i > 0 {
			in.Children[i-1].Range.Hi, c.Range.Lo = []byte("p"), []byte("p")
		}
		for _, r := range members {
			x, _ := e.parent.Member(r)
			x.Kind = partition.Full
			c.Membership.Members = append(c.Membership.Members, x)
		}
		in.Children = append(in.Children, c)
	}
	payload, err := in.AppendBinary(nil)
	if err != nil {
		panic(err)
	}
	x, refused := partition.Extent{}.Next(partition.KindIntent, payload, firstIndex-1)
	if refused != nil {
		panic(refused)
	}
	e.begun = x
	return e
}

// view applies the first n records of a log.
func (e *explorer) view(log *[mostRecords]uint8, n uint8) *view {
	p := prefix{n: n}
	copy(p.log[:n], log[:n])
	if v := e.views[p]; v != nil {
		return v
	}
	v := &view{x: e.begun}
	for i, r := range p.log[:n] {
		switch k := kindOf(r); k {
		case noop:
		case write1, write2:
			if v.x.Serves(keys("n", "o")) {
				v.content |= k
			} else {
				v.refused |= k
			}
		default:
			e.decide(v, r, partition.Index(firstIndex+i))
		}
	}
	e.views[p] = v
	return v
}

func (e *explorer) decide(v *view, r uint8, at partition.Index) {
	d := partition.Decision{Task: 7, Intent: firstIndex - 1, Version: 5 + partition.RangeVersion(r>>5)}
	payload, _ := d.AppendBinary(nil)
	x, refused := v.x.Next(kinds[kindOf(r)], payload, at)
	if s := v.x.Split; refused != nil && e.unsealActivated && kindOf(r) == unseal && s != nil && s.Phase == partition.Activated {
		x, refused = e.begun, nil
		x.Version, x.Split = v.x.Version, e.begun.Split
	}
	if refused == nil {
		v.changes += uint8(x.Version - v.x.Version)
		v.x = x
	}
}

// phase is 0 when the split is over.
func (v *view) phase() partition.Phase {
	if v.x.Split == nil {
		return 0
	}
	return v.x.Split.Phase
}

// common is how many records two logs begin with alike.
func common(a, b *memb) uint8 {
	n := min(a.n, b.n)
	for i := range n {
		if a.log[i] != b.log[i] {
			return i
		}
	}
	return n
}

// start is the intent applied everywhere, and n1 master.
func (e *explorer) start() state {
	s := state{epoch: 1, served: 1}
	for i := range e.members {
		s.m[i].promised = 1
	}
	s.m[0].leads, s.m[0].serves, s.m[0].lease = true, true, true
	return s
}

// next calls add for every state that may follow.
func (e *explorer) next(s *state, add func(state)) {
	for i := range e.members {
		if s.m[i].leads {
			e.replicate(s, i, add)
			e.commit(s, i, add)
		}
		if s.m[i].serves {
			e.write(s, i, add)
			e.drive(s, i, false, add)
			e.drive(s, i, true, add)
		}
		if i < 3 && s.epoch < e.epochs {
			e.elect(s, i, add)
		}
		e.open(s, i, add)
		if s.crashes < e.crashes {
			t := *s
			t.crashes++
			down(&t.m[i])
			t.m[i].commit = 0
			add(t)
		}
	}
	if e.stale && !s.closed && !s.told { // once it is told, nobody can say so
		t := *s
		t.closed = true
		add(t)
	}
	if e.cancel && !s.cancel {
		t := *s
		t.cancel = true
		add(t)
	}
}

// down ends what a member has in memory only.
func down(m *memb) { m.leads, m.serves, m.lease, m.held = false, false, false, false }

// replicate sends a member the first record that it lacks, or the commit index.
func (e *explorer) replicate(s *state, i uint8, add func(state)) {
	m := &s.m[i]
	for j := range e.members {
		p := &s.m[j]
		if j == i || p.promised > m.promised {
			continue
		}
		k := common(m, p)
		if k < m.n {
			t := *s
			q := &t.m[j]
			if q.promised < m.promised {
				down(q)
			}
			for x := k; x < q.n; x++ {
				q.log[x] = 0
			}
			q.log[k], q.n, q.promised = m.log[k], k+1, m.promised
			add(t)
		}
		if c := min(m.commit, k); p.promised == m.promised && p.commit < c {
			t := *s
			t.m[j].commit = c
			add(t)
		}
	}
}

// matched reports whether a member is known to have the first n records of i's log.
func matched(s *state, i, j, n uint8) bool {
	return i == j || s.m[j].promised == s.m[i].promised && common(&s.m[i], &s.m[j]) >= n
}

// commit counts, and lets a master serve.
func (e *explorer) commit(s *state, i uint8, add func(state)) {
	m := &s.m[i]
	for n := m.n; n > m.commit && epochOf(m.log[n-1]) == m.promised; n-- {
		on := 0
		for j := range uint8(3) {
			if matched(s, i, j, n) {
				on++
			}
		}
		if on < 2 {
			continue
		}
		t := *s
		t.m[i].commit = n
		t.acked |= e.view(&m.log, n).content &^ e.view(&m.log, m.commit).content
		add(t)
		break
	}
	if !m.serves && (m.commit > 0 && epochOf(m.log[m.commit-1]) == m.promised || e.serveUnapplied) {
		t := *s
		for j := range t.m {
			t.m[j].lease = t.m[j].lease && e.leasesRun // those of before have run out
		}
		q := &t.m[i]
		t.served = max(t.served, q.promised)
		q.serves, q.lease, q.held = true, q.promised == t.served, e.view(&q.log, q.commit).phase() == partition.Sealed
		add(t)
	}
}

// push puts a record into i's log; there may be no room in the model.
func push(s *state, i, kind, changes uint8, add func(state)) {
	if s.m[i].n == mostRecords {
		return
	}
	m := &s.m[i]
	m.log[m.n] = record(kind, m.promised, changes)
	m.n++
	add(*s)
}

// write takes a client's write of the leaving range.
func (e *explorer) write(s *state, i uint8, add func(state)) {
	m := &s.m[i]
	v := e.view(&m.log, m.commit)
	if m.held || s.writes == e.writes || !v.x.Serves(keys("n", "o")) {
		return
	}
	t := *s
	t.writes++
	push(&t, i, t.writes, 0, add)
}

// elect makes i master by itself and one other voter.
func (e *explorer) elect(s *state, i uint8, add func(state)) {
	for j := range uint8(3) {
		if i == j {
			continue
		}
		t := *s
		t.epoch++
		m, o := &t.m[i], &t.m[j]
		down(m)
		down(o)
		m.promised, o.promised = t.epoch, t.epoch
		if newer(o, m) {
			m.log, m.n = o.log, o.n
		}
		m.leads = true
		push(&t, i, noop, 0, add)
	}
}

func newer(a, b *memb) bool {
	last := func(m *memb) (e uint8) {
		if m.n > 0 {
			e = epochOf(m.log[m.n-1])
		}
		return e
	}
	return last(a) > last(b) || last(a) == last(b) && a.n > b.n
}

// makes reports whether a member makes a child.
func (e *explorer) makes(i uint8) bool {
	for _, members := range e.children {
		if slices.Contains(members, partition.ReplicaID(i+1)) {
			return true
		}
	}
	return false
}

// open makes the children on a member.
func (e *explorer) open(s *state, i uint8, add func(state)) {
	m := &s.m[i]
	if m.made != 0 || !e.makes(i) {
		return
	}
	n := m.commit
	if e.openOnReceipt {
		n = m.n
	}
	v := e.view(&m.log, n)
	if v.phase() == partition.Activated || e.singleRecord && v.phase() == partition.Sealed {
		t := *s
		t.m[i].made = 1 | v.content<<1
		add(t)
	}
}

// drive asks Next and does what it says.
func (e *explorer) drive(s *state, i uint8, expired bool, add func(state)) {
	m := &s.m[i]
	q := question{v: e.view(&m.log, m.commit), self: i, held: m.held, expired: expired, cancel: s.cancel, told: s.told, closed: s.closed}
	for n := m.commit; n < m.n && q.proposed == 0; n++ {
		if k := kindOf(m.log[n]); k >= seal {
			q.proposed = k
		}
	}
	for j := range e.members {
		if s.m[j].promised == m.promised {
			q.match[j] = common(m, &s.m[j])
		}
		if s.m[j].made != 0 {
			q.made |= 1 << j
		}
	}
	step, ok := e.steps[q]
	if !ok {
		step = e.ask(&q)
		e.steps[q] = step
	}
	t := *s
	switch step.Kind {
	case Hold:
		t.m[i].held = true
		add(t)
	case Release:
		t.m[i].held = false
		add(t)
	case Tell:
		t.told = t.told || step.Report.Phase == partition.Activated
		add(t)
	case Propose:
		for k, kind := range kinds {
			if kind == step.Record {
				push(&t, i, k, q.v.changes, add)
			}
		}
	}
}

// ask puts the question to Next, and makes the mistakes of the driver.
func (e *explorer) ask(q *question) Step {
	s := Situation{
		Group: 3, Self: partition.ReplicaID(q.self + 1), Now: time.Hour, Serving: true, Since: time.Hour, Extent: q.v.x, Membership: e.parent,
		Task:     &Task{ID: 7, Version: 5, Activated: q.told, Children: []Wanted{{Group: firstChild, Range: keys("m", "t")}}},
		Proposed: kinds[q.proposed], Held: q.held, HeldSince: time.Hour, Limits: Limits{Tries: e.tries},
	}
	if q.expired {
		s.HeldSince -= time.Second
	}
	if q.closed && !q.told {
		s.Task, s.Gone = nil, true
		s.Told = e.untold
	}
	if q.cancel && s.Task != nil {
		s.Task.Cancel = "somebody asked"
	}
	for j := range e.members {
		p := Peer{Replica: partition.ReplicaID(j + 1), Up: true, State: true, Prepared: true, Match: firstIndex - 1 + partition.Index(q.match[j])}
		if q.made>>j&1 == 1 || e.doneEarly {
			p.Made = []partition.GroupID{firstChild, firstChild + 1}
		}
		if e.unconfirmed {
			p.Match = firstIndex + mostRecords
		}
		s.Peers = append(s.Peers, p)
	}
	if e.unsealActivated && q.v.phase() == partition.Activated && q.cancel {
		return Step{Kind: Propose, Record: partition.KindUnseal}
	}
	return Next(s)
}

// run visits every state, up to a limit, and returns what is wrong with the first
// that is wrong.
func (e *explorer) run(limit int) (wrong string) {
	var at int32 = -1
	add := func(s state) {
		k := [2]uint64{maphash.Comparable(e.seeds[0], s), maphash.Comparable(e.seeds[1], s)}
		if _, old := e.seen[k]; !old {
			e.seen[k] = struct{}{}
			e.queue, e.from = append(e.queue, s), append(e.from, at)
		}
	}
	add(e.start())
	for at = 0; int(at) < len(e.queue); at++ {
		s := e.queue[at]
		if wrong = e.check(&s); wrong != "" {
			return wrong + ":\n" + e.trace(at)
		}
		if len(e.queue) > limit {
			return fmt.Sprintf("more than %d states", limit)
		}
		e.note(&s)
		e.next(&s, add)
	}
	return ""
}

// note counts how splits end.
func (e *explorer) note(s *state) {
	for i := range e.members {
		v := e.view(&s.m[i].log, s.m[i].commit)
		switch {
		case v.phase() == 0 && v.x.Done:
			e.ends["done"]++
		case v.phase() == 0:
			e.ends["aborted"]++
		case v.phase() == partition.Activated && s.m[i].made == 0 && s.epoch > 1:
			e.ends["late"]++
		}
		if v.refused != 0 {
			e.ends["refused"]++
		}
	}
}

// trace is the way to a state.
func (e *explorer) trace(at int32) string {
	var lines []string
	for ; at >= 0; at = e.from[at] {
		s := &e.queue[at]
		line := fmt.Sprintf("acked %b told %v cancel %v", s.acked, s.told, s.cancel)
		for i := range e.members {
			m := &s.m[i]
			line += fmt.Sprintf(" | n%d e%d", i+1, m.promised)
			for n := range m.n {
				line += fmt.Sprintf(" %c%d", "n12SUADX"[kindOf(m.log[n])], epochOf(m.log[n]))
			}
			line += fmt.Sprintf(" c%d made %b", m.commit, m.made)
			for what, is := range map[string]bool{" leads": m.leads && !m.serves, " serves": m.serves, " held": m.held} {
				if is {
					line += what
				}
			}
		}
		lines = append([]string{line}, lines...)
	}
	return strings.Join(lines, "\n")
}
