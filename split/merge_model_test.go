package split

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"slices"

	"pando.dev/pando/partition"
)

// The model of a merge is a source with three voters, whose logs are replicated one
// record at a time, elected anew and snipped; and a survivor, of whose log only what is
// committed is looked at, with masters that come and go and replicas that have applied
// any part of it. On top are the real Extent.Next and the real NextMerge, in both
// groups. What one group hears of the other may be as old as one likes.

const (
	sourceGroup   = partition.GroupID(18)
	survivorGroup = partition.GroupID(3)
	mostSource    = 8
	mostSurvivor  = 7
	firstSource   = partition.Index(501)
	firstSurvivor = partition.Index(101)
)

// Kinds of the source's records, behind noop, write1 and write2, and of the
// survivor's.
const (
	sSeal = 3 + iota
	sUnseal
	sGone
)

const (
	tIntent = 1 + iota
	tAbsorb // with the writes that the rows have, in bits 4 and 5
	tMerging
	tAbort
	tDone
)

var sourceKinds = map[uint8]partition.Kind{sSeal: partition.KindSourceSeal, sUnseal: partition.KindSourceUnseal, sGone: partition.KindSourceGone}

var survivorKinds = map[uint8]partition.Kind{
	tIntent: partition.KindMergeIntent, tMerging: partition.KindMerging, tAbort: partition.KindAbort, tDone: partition.KindDone,
}

// A record of the source is its kind, its epoch, the number of changes that it
// compares with, and the survivor's intent: its place in the survivor's log.
func sourceRecord(kind, epoch, changes, intent uint8) uint16 {
	return uint16(kind) | uint16(epoch)<<3 | uint16(changes)<<5 | uint16(intent)<<9
}

// smemb is a member of the source.
type smemb struct {
	log                        [mostSource]uint16
	n, promised, commit        uint8
	leads, serves, lease, held bool
}

// mstate is one state of the model.
type mstate struct {
	m             [3]smemb
	epoch, served uint8
	writes, acked uint8
	t             [mostSurvivor]uint8
	tn, tmasters  uint8
	asked         uint8 // intents for which somebody has asked for a seal
	// What the survivor's master has in memory.
	seen           uint8 // that the source 0: serves; 1: is sealed; 2: has gone
	seenAt         uint8 // intent that it is sealed for
	looked, sealed bool
	told           bool
}

type mbounds struct {
	epochs, writes, masters uint8
	tries                   uint8 // merges that are begun
	records                 uint8 // of the source, at most

	ownClock      bool // the source unseals by itself
	notExclusive  bool // an abort is taken behind the merge
	unseen        bool // a replica that has not seen the intent says that it is given up
	unsealedCopy  bool // rows from before the seal are taken for the last
	receivedSeal  bool // rows are taken from who has received the seal
	unwrittenCopy bool // rows count as taken in before they are committed
	leasesRun     bool // a master of the source serves while older leases run
	anyAttempt    bool // a seal for another attempt is taken for this one
	forgetful     bool // the survivor forgets before the source knows
	anyMember     bool // a member that does not serve says that the source is sealed
	unheld        bool // and nothing is held
}

type sview struct {
	x       partition.Extent
	content uint8
	refused uint8
	changes uint8
}

type tview struct {
	x      partition.Extent
	rows   uint8
	merged uint8 // rows when it was decided, bit 7 set
}

type mexplorer struct {
	mbounds
	members *partition.Membership
	sviews  map[sprefix]*sview
	tviews  map[tprefix]*tview
	seen    map[[2]uint64]struct{}
	queue   []mstate
	from    []int32
	seeds   [2]maphash.Seed
	ends    map[string]int
}

type (
	sprefix struct {
		log [mostSource]uint16
		n   uint8
	}
	tprefix struct {
		log [mostSurvivor]uint8
		n   uint8
	}
)

func newMergeExplorer(b mbounds) *mexplorer {
	return &mexplorer{
		mbounds: b, members: group("n1", "n2", "n3"), sviews: map[sprefix]*sview{}, tviews: map[tprefix]*tview{},
		seen: map[[2]uint64]struct{}{}, seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}, ends: map[string]int{},
	}
}

func (e *mexplorer) source(log *[mostSource]uint16, n uint8) *sview {
	p := sprefix{n: n}
	copy(p.log[:n], log[:n])
	if v := e.sviews[p]; v != nil {
		return v
	}
	v := &sview{x: partition.Extent{Range: keys("m", "t"), Version: 7, Since: 7}}
	for i, r := range p.log[:n] {
		switch k := uint8(r & 7); k {
		case noop:
		case write1, write2:
			if v.x.Serves(keys("n", "o")) {
				v.content |= k
			} else {
				v.refused |= k
			}
		default:
			x, refused := v.x.Next(sourceKinds[k], sourcePayload(r), firstSource+partition.Index(i))
			if refused == nil {
				v.x, v.changes = x, v.changes+1
			}
		}
	}
	e.sviews[p] = v
	return v
}

func sourcePayload(r uint16) []byte {
	intent, version := firstSurvivor+partition.Index(r>>9), 7+partition.RangeVersion(r>>5&15)
	var b []byte
	if r&7 == sSeal {
		s := partition.SourceSeal{Task: 9, Range: keys("m", "t"), Version: version, Survivor: survivorGroup, Intent: intent}
		b, _ = s.AppendBinary(nil)
	} else {
		b, _ = partition.Decision{Task: 9, Intent: intent, Version: version}.AppendBinary(nil)
	}
	return b
}

func (e *mexplorer) survivor(log *[mostSurvivor]uint8, n uint8) *tview {
	p := tprefix{n: n}
	copy(p.log[:n], log[:n])
	if v := e.tviews[p]; v != nil {
		return v
	}
	v := &tview{x: partition.Extent{Range: keys("b", "m"), Version: 5, Since: 5}}
	for i, r := range p.log[:n] {
		e.applySurvivor(v, r, firstSurvivor+partition.Index(i))
	}
	e.tviews[p] = v
	return v
}

func (e *mexplorer) applySurvivor(v *tview, r uint8, at partition.Index) {
	if r&7 == tAbsorb {
		if v.x.Merge != nil && v.x.Merge.Phase == partition.Absorbing {
			v.rows = r >> 4
		}
		return
	}
	var b []byte
	switch d := v.decision(); r & 7 {
	case tIntent:
		in := partition.MergeIntent{Task: 9, Range: v.x.Range, Version: v.x.Version, Source: sourceGroup, SourceRange: keys("m", "t")}
		b, _ = in.AppendBinary(nil)
	case tMerging:
		b, _ = (&partition.Merging{Decision: d, SourceVersion: 8, Top: 600}).AppendBinary(nil)
	default:
		b, _ = d.AppendBinary(nil)
	}
	x, refused := v.x.Next(survivorKinds[r&7], b, at)
	if refused != nil && e.notExclusive && r&7 == tAbort && v.merged != 0 {
		x, refused = partition.Extent{Range: keys("b", "m"), Version: v.x.Version, Since: 5, Ended: 9}, nil
	}
	if refused != nil {
		return
	}
	if r&7 == tMerging {
		v.merged = v.rows | 1<<7
	}
	if r&7 == tIntent {
		v.rows = 0
	}
	if v.x = x; e.forgetful && x.Merge == nil {
		v.x.Lineage = nil
	}
}

// decision is one about the merge under way, if there is one.
func (v *tview) decision() partition.Decision {
	if v.x.Merge == nil {
		return partition.Decision{Task: 9, Version: v.x.Version}
	}
	return v.x.MergeDecision()
}

func (e *mexplorer) start() mstate {
	s := mstate{epoch: 1, served: 1, tmasters: 1}
	for i := range s.m {
		s.m[i].promised = 1
	}
	s.m[0].leads, s.m[0].serves, s.m[0].lease = true, true, true
	return s
}

func scommon(a, b *smemb) uint8 {
	n := min(a.n, b.n)
	for i := range n {
		if a.log[i] != b.log[i] {
			return i
		}
	}
	return n
}

// next calls add for every state that may follow.
func (e *mexplorer) next(s *mstate, add func(mstate)) {
	for i := range uint8(3) {
		if s.m[i].leads {
			e.replicate(s, i, add)
			e.commit(s, i, add)
		}
		if s.m[i].serves {
			e.write(s, i, add)
			e.listen(s, i, add)
		}
		if s.epoch < e.epochs {
			e.elect(s, i, add)
		}
		e.hear(s, i, add)
		e.take(s, i, add)
	}
	e.driveSurvivor(s, false, add)
	e.driveSurvivor(s, true, add)
	if s.tmasters < e.masters { // another master, which has nothing in memory
		t := *s
		t.tmasters++
		t.seen, t.seenAt, t.looked, t.sealed = 0, 0, false, false
		add(t)
	}
}

func sdown(m *smemb) { m.leads, m.serves, m.lease, m.held = false, false, false, false }

func (e *mexplorer) replicate(s *mstate, i uint8, add func(mstate)) {
	m := &s.m[i]
	for j := range uint8(3) {
		p := &s.m[j]
		if j == i || p.promised > m.promised {
			continue
		}
		k := scommon(m, p)
		if k < m.n {
			t := *s
			q := &t.m[j]
			if q.promised < m.promised {
				sdown(q)
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

func sepoch(r uint16) uint8 { return uint8(r >> 3 & 3) }

func (e *mexplorer) commit(s *mstate, i uint8, add func(mstate)) {
	m := &s.m[i]
	for n := m.n; n > m.commit && sepoch(m.log[n-1]) == m.promised; n-- {
		on := 0
		for j := range uint8(3) {
			if i == j || s.m[j].promised == m.promised && scommon(m, &s.m[j]) >= n {
				on++
			}
		}
		if on < 2 {
			continue
		}
		t := *s
		t.m[i].commit = n
		t.acked |= e.source(&m.log, n).content &^ e.source(&m.log, m.commit).content
		add(t)
		break
	}
	if !m.serves && m.commit > 0 && sepoch(m.log[m.commit-1]) == m.promised {
		t := *s
		for j := range t.m {
			t.m[j].lease = t.m[j].lease && e.leasesRun // those of before have run out
		}
		q := &t.m[i]
		t.served = max(t.served, q.promised)
		q.serves, q.lease, q.held = true, q.promised == t.served, e.source(&q.log, q.commit).x.IsSource()
		add(t)
	}
}

func (e *mexplorer) push(s *mstate, i uint8, kind, changes, intent uint8, add func(mstate)) {
	m := &s.m[i]
	if m.n == min(e.records, mostSource) {
		return
	}
	m.log[m.n] = sourceRecord(kind, m.promised, changes, intent)
	m.n++
	add(*s)
}

func (e *mexplorer) write(s *mstate, i uint8, add func(mstate)) {
	m := &s.m[i]
	if m.held || s.writes == e.writes || !e.source(&m.log, m.commit).x.Serves(keys("n", "o")) {
		return
	}
	t := *s
	t.writes++
	e.push(&t, i, t.writes, 0, 0, add)
}

func (e *mexplorer) elect(s *mstate, i uint8, add func(mstate)) {
	last := func(m *smemb) uint8 {
		if m.n == 0 {
			return 0
		}
		return sepoch(m.log[m.n-1])
	}
	for j := range uint8(3) {
		if i == j {
			continue
		}
		t := *s
		t.epoch++
		m, o := &t.m[i], &t.m[j]
		sdown(m)
		sdown(o)
		m.promised, o.promised = t.epoch, t.epoch
		if last(o) > last(m) || last(o) == last(m) && o.n > m.n {
			m.log, m.n = o.log, o.n
		}
		m.leads = true
		e.push(&t, i, noop, 0, 0, add)
	}
}

// listen has a master of the source do what follows when it hears that it is to be
// sealed, for an attempt of any time, or what any replica of the survivor says of the
// attempt that it is sealed for; or when it hears nothing.
func (e *mexplorer) listen(s *mstate, i uint8, add func(mstate)) {
	m := &s.m[i]
	v := e.source(&m.log, m.commit)
	e.driveSource(s, i, v, 0, partition.Undecided, add)
	if v.x.Merge == nil {
		for intent := range s.tn {
			if s.asked>>intent&1 == 1 {
				e.driveSource(s, i, v, intent+1, partition.Undecided, add)
			}
		}
		return
	}
	intent := v.x.Merge.Intent
	for n := range s.tn + 1 {
		x := e.survivor(&s.t, n).x
		applied := firstSurvivor + partition.Index(n) - 1
		if e.unseen {
			applied = max(applied, intent)
		}
		if o := x.Outcome(9, intent, sourceGroup, applied); o != partition.Undecided {
			e.driveSource(s, i, v, 0, o, add)
		}
	}
}

// driveSource asks NextMerge for a master of the source, which is asked for a seal for
// the attempt before wanted, if it is not 0.
func (e *mexplorer) driveSource(s *mstate, i uint8, v *sview, wanted uint8, heard partition.Outcome, add func(mstate)) {
	m := &s.m[i]
	q := e.situation(sourceGroup, v.x)
	q.Held, q.HeldSince, q.Outcome = m.held || e.unheld && wanted != 0, q.Now, heard
	for n := m.commit; n < m.n && q.Proposed == 0; n++ {
		q.Proposed = sourceKinds[uint8(m.log[n]&7)]
	}
	intent := wanted - 1
	if v.x.Merge != nil {
		intent = uint8(v.x.Merge.Intent - firstSurvivor)
	} else if wanted != 0 {
		q.Wanted = &partition.SourceSeal{Task: 9, Range: v.x.Range, Version: v.x.Version, Survivor: survivorGroup, Intent: firstSurvivor + partition.Index(intent)}
	}
	t := *s
	if e.ownClock && q.Proposed == 0 && v.x.Merge != nil && v.x.Merge.Phase == partition.SourceSealed {
		e.push(&t, i, sUnseal, v.changes, intent, add)
		t = *s
	}
	switch step := NextMerge(q); step.Kind {
	case Hold:
		t.m[i].held = true
		add(t)
	case Release:
		t.m[i].held = false
		add(t)
	case Propose:
		for k, kind := range sourceKinds {
			if kind == step.Record {
				e.push(&t, i, k, v.changes, intent, add)
			}
		}
	}
}

func compareMembs(a, b smemb) int {
	bits := func(m *smemb) (n int) {
		for i, is := range []bool{m.leads, m.serves, m.lease, m.held} {
			if is {
				n |= 1 << i
			}
		}
		return n
	}
	return cmp.Or(
		slices.Compare(a.log[:], b.log[:]), cmp.Compare(a.n, b.n), cmp.Compare(a.promised, b.promised), cmp.Compare(a.commit, b.commit),
		cmp.Compare(bits(&a), bits(&b)),
	)
}

func (e *mexplorer) run(limit int) (wrong string) {
	var at int32 = -1
	add := func(s mstate) {
		slices.SortFunc(s.m[:], compareMembs) // they are all alike
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
		e.next(&s, add)
	}
	return ""
}
