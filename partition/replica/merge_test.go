package replica

import (
	"encoding/binary"
	"fmt"
	"maps"
	"testing"

	"pgregory.net/rapid"

	"pando.dev/pando/partition"
)

// encoded is the payload of a record of the test.
func encoded(t testing.TB, x interface {
	AppendBinary(b []byte) ([]byte, error)
}) []byte {
	t.Helper()
	b, err := x.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// merger takes s in, step by step.
type merger struct {
	t    testing.TB
	task uint64
	p, s *place
	page int
	// What may be planted: rows are copied before the seal only, or without those
	// of sessions.
	unsealed, noSessions bool
}

func (m *merger) intend() Result {
	x, y := m.p.exec.Extent(), m.s.exec.Extent()
	in := partition.MergeIntent{Task: m.task, Range: x.Range, Version: x.Version, Source: m.s.group, SourceRange: y.Range}
	return m.p.apply(partition.KindMergeIntent, encoded(m.t, &in))
}

func (m *merger) seal() Result {
	x, y := m.p.exec.Extent(), m.s.exec.Extent()
	seal := partition.SourceSeal{Task: m.task, Range: y.Range, Version: y.Version, Survivor: m.p.group, Intent: x.Merge.Intent}
	return m.s.apply(partition.KindSourceSeal, encoded(m.t, &seal))
}

// copy takes all rows of the source in, and returns how many were not there.
func (m *merger) copy() (fresh int) {
	m.t.Helper()
	keys := m.p.exec.Extent().Merge.Range
	var from []byte
	for done := false; !done; {
		var a partition.Absorb
		var err error
		if a, done, err = SourceRows(m.s.state, keys, from, m.page); err != nil {
			m.t.Fatal(err)
		}
		from = SourceNext(&a, keys)
		has, err := HasAbsorbed(m.p.state, &a)
		if err != nil {
			m.t.Fatal(err)
		}
		if has || m.noSessions && IsSessions(&a) {
			continue
		}
		x := m.p.exec.Extent()
		a.Decision = x.MergeDecision()
		if res := m.p.apply(partition.KindAbsorb, encoded(m.t, &a)); res.Err != nil {
			m.t.Fatal(res.Err)
		}
		if has, _ := HasAbsorbed(m.p.state, &a); !has {
			m.t.Fatalf("rows %s are not there after they were taken in", a.Rows)
		}
		fresh++
	}
	return fresh
}

func (m *merger) decideMerge() {
	m.t.Helper()
	x, y := m.p.exec.Extent(), m.s.exec.Extent()
	d := partition.Merging{Decision: x.MergeDecision(), SourceVersion: y.Version, Top: y.At(y.Merge.At), Lineage: y.Lineage}
	if res := m.p.apply(partition.KindMerging, encoded(m.t, &d)); res.Err != nil {
		m.t.Fatal(res.Err)
	}
}

func (p *place) decideMerge(kinds ...partition.Kind) {
	p.t.Helper()
	for _, k := range kinds {
		x := p.exec.Extent()
		if res := p.apply(k, encoded(p.t, x.MergeDecision())); res.Err != nil {
			p.t.Fatalf("%s: %v", k, res.Err)
		}
	}
}

// all is a whole merge.
func (m *merger) all() {
	m.t.Helper()
	if res := m.intend(); res.Err != nil {
		m.t.Fatal(res.Err)
	}
	m.copy()
	if res := m.seal(); res.Err != nil {
		m.t.Fatal(res.Err)
	}
	m.copy()
	m.decideMerge()
	m.s.decideMerge(partition.KindSourceGone)
	m.p.decideMerge(partition.KindDone)
}

// two are neighbours: a group, and its child from f on.
func two(t testing.TB) (left, right *place) {
	p := newPlace(t, 3)
	none := partition.SessionID{}
	for _, k := range "bdfhm" {
		p.do(none, 0, fmt.Sprintf("set %c 1", k))
	}
	if res := p.intent(7, part(18, "f", "")); res.Err != nil {
		t.Fatal(res.Err)
	}
	p.decide(partition.KindSeal, partition.KindActivate)
	c := p.child(18)
	p.decide(partition.KindDone)
	return p, c
}

// A merge from its intent to its end, in the states that it leads to.
func TestExecutorMerge(t *testing.T) {
	p, s := two(t)
	none := partition.SessionID{}
	for i := range 40 { // the source's log is far ahead
		s.do(none, 0, fmt.Sprintf("set h %d", i))
	}
	own, theirs := p.open(), s.open()
	s.do(theirs, 1, "set k 1")
	m := &merger{t: t, task: 9, p: p, s: s, page: 30}
	if res := m.intend(); res.Err != nil {
		t.Fatal(res.Err)
	}
	if n := m.copy(); n < 3 {
		t.Errorf("%d pages", n)
	}
	if got := p.read(""); got != "b=1 d=1" {
		t.Errorf("before the decision the survivor shows %q", got)
	}
	s.do(theirs, 2, "set l 2")
	s.do(none, 0, "del m")
	if res := m.seal(); res.Err != nil {
		t.Fatal(res.Err)
	}
	top, before := s.next-1, maps.Clone(s.state.rows)
	for _, res := range []Result{s.do(theirs, 2, "set l 2"), s.do(none, 0, "set h 3"), s.apply(partition.KindSession, AppendOpenSession(nil))} {
		if res.Err == nil || res.Err.Code != partition.CodeBusy || !same(before, s.state.rows) {
			t.Errorf("sealed, the source gives %+v", res)
		}
	}
	if n := m.copy(); n == 0 || m.copy() != 0 {
		t.Errorf("%d pages have changed, and then some again", n)
	}
	m.decideMerge()
	s.decideMerge(partition.KindSourceGone)
	if res := s.do(none, 0, "set h 3"); res.Err == nil || res.Err.Code != partition.CodeWrongGroup {
		t.Errorf("the source has gone and gives %+v", res)
	}
	if _, err := s.exec.ReadRouted(s.state, 99, nil); partition.CodeOf(err) != partition.CodeWrongGroup {
		t.Errorf("a read of the source: %v", err)
	}
	if got := p.read(""); got != "b=1 d=1 f=1 h=39 k=1 l=2" {
		t.Errorf("merged, the survivor shows %q", got)
	}
	if res := p.do(theirs, 2, "set l 2"); !res.Repeated {
		t.Errorf("a command that the source has executed gives %+v", res)
	}
	if res := p.do(own, 1, "set z 1"); res.Err != nil || res.Repeated {
		t.Errorf("a command of the survivor's own session gives %+v", res)
	}
	x, y := p.exec.Extent(), s.exec.Extent()
	if x.At(p.next) <= y.At(top) || x.Lift == 0 || !x.Descends(18) {
		t.Errorf("indexes go on at %d, the source's ended at %d: %s", x.At(p.next), y.At(top), x.Describe())
	}
	if n := p.open(); n.Index != x.At(p.next-1) {
		t.Errorf("a session of index %d at record %d", n.Index, p.next-1)
	}
	p.decideMerge(partition.KindDone)
	if n := len(p.state.keys(stagedSessions())); n != 0 {
		t.Errorf("%d rows are left of the merge", n)
	}
	p.reload()
	if res := p.do(theirs, 1, "set k 1"); !res.Repeated {
		t.Errorf("after a restart %+v", res)
	}
}

// What is given up leaves nothing, and the source goes on.
func TestExecutorMergeAborted(t *testing.T) {
	p, s := two(t)
	m := &merger{t: t, task: 9, p: p, s: s, page: 1000}
	before, theirs := p.read(""), s.read("")
	if res := m.intend(); res.Err != nil {
		t.Fatal(res.Err)
	}
	if f := Foreign(p.exec.Extent()); len(f) != 0 {
		t.Errorf("%v may go while it is taken in", f)
	}
	m.copy()
	m.seal()
	p.decideMerge(partition.KindAbort)
	s.decideMerge(partition.KindSourceUnseal)
	if len(p.state.keys(stagedSessions()))+len(p.state.keys(Foreign(p.exec.Extent())[0])) != 0 {
		t.Error("rows are left of a merge that was given up")
	}
	if p.read("") != before || s.read("") != theirs || s.do(partition.SessionID{}, 0, "set h 9").Err != nil {
		t.Error("a merge that was given up has changed something")
	}
	x := s.exec.Extent()
	if res := m.p.apply(partition.KindAbsorb, encoded(t, &partition.Absorb{Rows: sourceRows(x.Range)[0]})); res.Err == nil || res.Err.Code != partition.CodeRefused {
		t.Errorf("rows for no merge: %+v", res)
	}
	m.task++
	m.all()
	if got := p.read(""); got != "b=1 d=1 f=1 h=9 m=1" {
		t.Errorf("the second try gives %q", got)
	}
}

// Rows that are not the source's, or no rows, are refused alike.
func TestAbsorbRefuses(t *testing.T) {
	p, s := two(t)
	m := &merger{t: t, task: 9, p: p, s: s, page: 1000}
	if res := m.intend(); res.Err != nil {
		t.Fatal(res.Err)
	}
	x := p.exec.Extent()
	for name, rows := range map[string]partition.KeyRange{
		"the survivor's keys": Rows(x.Range), "meta": {Lo: []byte{spaceMeta}, Hi: []byte{spaceMeta + 1}},
		"two spaces": {Lo: []byte{spaceSessions}, Hi: []byte{spaceUser + 1}},
	} {
		res := p.apply(partition.KindAbsorb, encoded(t, &partition.Absorb{Decision: x.MergeDecision(), Rows: rows}))
		if res.Err == nil || res.Err.Code != partition.CodeInvalid {
			t.Errorf("%s: %+v", name, res)
		}
	}
	if res := p.apply(partition.KindAbsorb, []byte{1, 2}); res.Err == nil {
		t.Error("no rows are taken in")
	}
	for _, from := range [][]byte{{spaceMeta}, {spaceUser, 'a'}, {spaceUser + 1}} {
		if _, _, err := SourceRows(s.state, s.exec.Extent().Range, from, 10); partition.CodeOf(err) != partition.CodeInvalid {
			t.Errorf("rows from %x on: %v", from, err)
		}
	}
}

// A session that only one of the groups has is kept, unless the other one has
// expired sessions: it may have been there.
func TestUniteSessions(t *testing.T) {
	p, s := two(t)
	both := partition.SessionID{Group: 3, Index: 1}
	for _, g := range []*place{p, s} {
		g.state.Set(g.exec.sessionKey(both), nil)
		g.reload()
	}
	own, theirs := p.open(), s.open()
	p.do(both, 1, "set b 1")
	s.do(both, 2, "set h 2")
	p.do(both, 3, "set b 3")
	s.do(both, 67, "set h 67") // in the slot of 3
	s.do(theirs, 1, "set h 1")
	p2, s2 := p.copied(), s.copied()
	(&merger{t: t, task: 9, p: p, s: s, page: 100}).all()
	for seq, want := range map[uint64]string{1: "again", 2: "again", 3: "expired", 67: "again"} {
		res := p.do(both, seq, "set h 0")
		if got := map[bool]string{true: "again", false: "expired"}[res.Repeated]; got != want || !res.Repeated && res.Err == nil {
			t.Errorf("number %d: %+v, not %s", seq, res, want)
		}
	}
	for _, id := range []partition.SessionID{own, theirs} {
		if p.exec.sessions.find(id) == nil {
			t.Errorf("session %v is gone", id)
		}
	}
	gone := s2.open() // the source forgets one
	s2.apply(partition.KindSession, AppendExpireSessions(nil, gone))
	(&merger{t: t, task: 9, p: p2, s: s2, page: 100}).all()
	if p2.exec.sessions.find(own) != nil || p2.exec.sessions.find(theirs) == nil || p2.exec.sessions.find(both) == nil {
		t.Error("the source has forgotten sessions, and the survivor keeps one that it may have known")
	}
	p2.reload()
	if p2.exec.sessions.find(own) != nil || len(p2.state.keys(partition.KeyRange{Lo: []byte{spaceSessions}, Hi: []byte{spaceSessions, 0}})) != 1 {
		t.Error("the survivor does not know that it has forgotten sessions")
	}
}

// Which session is the oldest decides which one expires: a replica that has applied
// the merge and one that starts behind it have to agree, though a row of the source
// has taken the place of one that was written later.
func TestUnitedSessionsAreThoseOfTheState(t *testing.T) {
	p, s := two(t)
	both := partition.SessionID{Group: 3, Index: 1}
	for _, g := range []*place{p, s} {
		g.state.Set(g.exec.sessionKey(both), nil)
		g.reload()
	}
	s.do(both, 67, "set h 67")
	for range 50 { // the survivor's indexes are greater
		p.do(partition.SessionID{}, 0, "set b 0")
	}
	p.do(both, 3, "set b 3") // in the slot of 67
	(&merger{t: t, task: 9, p: p, s: s, page: 100}).all()
	used := p.exec.sessions.find(both).used
	p.reload()
	if again := p.exec.sessions.find(both).used; used != again {
		t.Errorf("used at %d, and after a restart at %d", used, again)
	}
}

// copied is the place as it is, to go its own way.
func (p *place) copied() *place {
	c := &place{t: p.t, group: p.group, state: p.state.clone(), next: p.next}
	c.reload()
	return c
}

// SPL-1, SPL-4: whatever is split and merged and when, the groups together
// hold what one would, every command is executed once, and indexes only rise.
func TestMergeIsUnseen(t *testing.T) {
	most := 0
	rapid.Check(t, func(rt *rapid.T) {
		d := newDivided(t, rt, func(*merger) {})
		d.play(rt)
		most = max(most, d.merged)
	})
	if most < 2 {
		t.Errorf("at most %d merges in a run", most)
	}
}

// Each of these mistakes is seen.
func TestMergeIsSeen(t *testing.T) {
	for name, plant := range map[string]func(m *merger){
		"rows from before the seal":  func(m *merger) { m.unsealed = true },
		"sessions are left behind":   func(m *merger) { m.noSessions = true },
		"indexes start from the own": func(m *merger) { m.p.exec.extent.Lift = 0 },
		"":                           func(*merger) {},
	} {
		seen := false
		for seed := range 40 {
			var d *mergeable
			rapid.Custom(func(rt *rapid.T) (wrong bool) {
				defer func() { seen = recover() != nil || seen }()
				d = newDivided(panics{t}, rt, plant)
				d.play(rt)
				return false
			}).Example(seed)
			if seen {
				break
			}
		}
		if seen != (name != "") {
			t.Errorf("%q: noticed is %v", name, seen)
		}
	}
}

// panics is a test whose failures panic.
type panics struct{ testing.TB }

func (p panics) Fatal(args ...any)            { panic(fmt.Sprint(args...)) }
func (p panics) Fatalf(f string, args ...any) { panic(fmt.Sprintf(f, args...)) }

// mergeable is divided with merges.
type mergeable struct {
	*divided
	tb     testing.TB
	plant  func(*merger)
	merged int
}

func newDivided(tb testing.TB, rt *rapid.T, plant func(*merger)) *mergeable {
	d := &mergeable{tb: tb, plant: plant, divided: &divided{
		t: rt, model: newPlace(tb, 3), parts: []*place{newPlace(tb, 3)}, next: 10,
		origin: map[partition.SessionID]partition.SessionID{}, early: map[partition.GroupID]*place{},
	}}
	d.stray = d.parts[0].open()
	d.sessions, d.seq = []partition.SessionID{d.parts[0].open()}, []uint64{1}
	d.origin[d.sessions[0]] = d.model.open()
	return d
}

func (d *mergeable) play(rt *rapid.T) {
	acts := []func(*rapid.T){d.command, d.command, d.command, d.step, d.step, d.merge, d.retry, d.open, d.expire, d.reload}
	for range 150 {
		acts[rapid.IntRange(0, len(acts)-1).Draw(rt, "act")](rt)
		d.whole()
	}
}

// whole is check for a test that may panic.
func (d *mergeable) whole() {
	all := map[string][]byte{}
	for _, p := range d.parts {
		for k, v := range p.userRows() {
			if _, twice := all[k]; twice {
				d.tb.Fatalf("%q is in two groups", k)
			}
			all[k] = v
		}
		x := p.exec.Extent()
		for _, k := range p.state.keys(partition.KeyRange{Lo: []byte{spaceSessions}, Hi: []byte{spaceSessions + 1}}) {
			row := p.state.rows[k]
			if at := partition.Index(0); isSlot([]byte(k)) {
				if at = partition.Index(binary.LittleEndian.Uint64(row[8:])); at > x.At(p.next-1) {
					d.tb.Fatalf("a result of %d, the group is at %d", at, x.At(p.next-1))
				}
			}
		}
	}
	if !same(all, d.model.userRows()) {
		d.tb.Fatalf("%d rows together, %d of the model", len(all), len(d.model.state.rows))
	}
}

// merge merges two neighbours that do nothing else, with commands in between.
func (d *mergeable) merge(rt *rapid.T) {
	for i, p := range d.parts {
		for j, s := range d.parts {
			x, y := p.exec.Extent(), s.exec.Extent()
			if i == j || x.Version == 0 || x.Split != nil || y.Split != nil || len(x.Range.Hi) == 0 || string(x.Range.Hi) != string(y.Range.Lo) {
				continue
			}
			if rapid.Bool().Draw(rt, "not these") {
				continue
			}
			d.task++
			m := &merger{t: d.tb, task: d.task, p: p, s: s, page: rapid.IntRange(1, 200).Draw(rt, "page")}
			d.plant(m)
			if d.mergeTwo(rt, m) {
				d.parts = append(append([]*place(nil), d.parts[:j]...), d.parts[j+1:]...)
				d.merged++
			}
			return
		}
	}
}

func (d *mergeable) mergeTwo(rt *rapid.T, m *merger) bool {
	some := func() {
		for range rapid.IntRange(0, 4).Draw(rt, "commands") {
			d.command(rt)
			d.reload(rt)
		}
	}
	if res := m.intend(); res.Err != nil {
		d.tb.Fatal(res.Err)
	}
	some()
	m.copy()
	some()
	if res := m.seal(); res.Err != nil {
		d.tb.Fatal(res.Err)
	}
	some()
	if !m.unsealed {
		m.copy()
	}
	if rapid.IntRange(0, 3).Draw(rt, "give up") == 0 {
		m.p.decideMerge(partition.KindAbort)
		m.s.decideMerge(partition.KindSourceUnseal)
		return false
	}
	m.decideMerge()
	d.plant(m)
	m.s.decideMerge(partition.KindSourceGone)
	m.p.decideMerge(partition.KindDone)
	return true
}
