package replica

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pando.dev/pando/partition"
)

// divisible is bank with what a split needs, and "wipe lo hi".
type divisible struct{ bank }

func (b divisible) Apply(w partition.Writer, c partition.Command) ([]byte, error) {
	if f := strings.Fields(string(c.Payload)); f[0] == "wipe" && len(f) == 3 {
		return nil, w.DeleteRange(partition.KeyRange{Lo: []byte(f[1]), Hi: []byte(f[2])})
	}
	return b.bank.Apply(w, c)
}

func (divisible) Span(payload []byte) (partition.KeyRange, error) {
	f := strings.Fields(string(payload))
	switch {
	case len(f) > 1 && (f[0] == "set" || f[0] == "del"):
		return partition.KeyRange{Lo: []byte(f[1]), Hi: []byte(f[1] + "\x00")}, nil
	case len(f) == 3 && f[0] == "wipe":
		return partition.KeyRange{Lo: []byte(f[1]), Hi: []byte(f[2])}, nil
	case f[0] == "wipe":
		return partition.KeyRange{}, nil
	}
	return partition.KeyRange{}, errors.New("touches nothing")
}

// place is a group's executor and state, with the next index at hand.
type place struct {
	t     testing.TB
	group partition.GroupID
	exec  *Executor
	state *mapState
	next  partition.Index
	seen  []Point
	past  *history // if set, what is applied is kept there
}

// founding is the parent's first configuration: n1 to n3, and a log replica.
func founding() *partition.Membership {
	m := &partition.Membership{Version: 1, Policy: partition.Policy{Rule: partition.Majority}, Next: 1}
	for _, n := range []partition.NodeID{"n1", "n2", "n3"} {
		m.Add(partition.Member{Node: n, Kind: partition.Full, Eligible: true})
	}
	return m
}

func newPlace(t testing.TB, g partition.GroupID) *place {
	p := &place{t: t, group: g, state: newMapState(), next: 1}
	p.reload()
	rec, err := partition.Genesis(g, founding())
	if err != nil {
		t.Fatal(err)
	}
	p.apply(rec.Kind(), rec.Payload())
	return p
}

func (p *place) reload() {
	p.t.Helper()
	x, err := NewExecutor(divisible{}, p.state)
	if err != nil {
		p.t.Fatal(err)
	}
	x.Observe(func(at Point) { p.seen = append(p.seen, at) })
	p.exec = x
}

func (p *place) apply(k partition.Kind, payload []byte) Result {
	p.t.Helper()
	rec := partition.NewRecord(partition.Header{Group: p.group, Index: p.next, Kind: k}, payload)
	p.next++
	if p.past != nil {
		p.past.states, p.past.records = append(p.past.states, p.state.clone()), append(p.past.records, rec)
	}
	res, err := p.exec.Apply(p.state, rec)
	if err != nil {
		p.t.Fatal(err)
	}
	return res
}

func (p *place) do(s partition.SessionID, seq uint64, cmd string) Result {
	p.t.Helper()
	return p.apply(partition.KindCommand, AppendCommand(nil, s, seq, []byte(cmd)))
}

func (p *place) open() partition.SessionID {
	p.t.Helper()
	return p.apply(partition.KindSession, AppendOpenSession(nil)).Session
}

// intent gives a part of everything to each child.
func (p *place) intent(task uint64, children ...partition.Child) Result {
	p.t.Helper()
	x := p.exec.Extent()
	in := partition.Intent{Task: task, Version: max(x.Version, 1), Range: x.Range, Children: children}
	b, err := in.AppendBinary(nil)
	if err != nil {
		p.t.Fatal(err)
	}
	return p.apply(partition.KindIntent, b)
}

// decide decides about the split under way.
func (p *place) decide(kinds ...partition.Kind) {
	p.t.Helper()
	for _, k := range kinds {
		x := p.exec.Extent()
		b, _ := x.Decision().AppendBinary(nil)
		if res := p.apply(k, b); res.Err != nil {
			p.t.Fatalf("%s: %v", k, res.Err)
		}
	}
}

func (p *place) read(q string) string {
	p.t.Helper()
	b, err := p.exec.Read(p.state, []byte(q))
	if err != nil {
		p.t.Fatal(err)
	}
	return string(b)
}

func part(g partition.GroupID, lo, hi string) partition.Child {
	c := partition.Child{Group: g, Membership: founding(), First: 1, Range: partition.KeyRange{Lo: []byte(lo)}}
	if hi != "" {
		c.Range.Hi = []byte(hi)
	}
	return c
}

// child makes a child from the state as it is.
func (p *place) child(g partition.GroupID) *place {
	p.t.Helper()
	c := &place{t: p.t, group: g, state: p.state.clone()}
	x, err := AdoptChild(c.state, p.group, g)
	if err != nil {
		p.t.Fatal(err)
	}
	c.next = x.Base + 1
	c.reload()
	return c
}

// owned is the state without what is not the group's.
func (p *place) owned() map[string][]byte {
	rows := maps.Clone(p.state.rows)
	for _, f := range Foreign(p.exec.Extent()) {
		for _, k := range p.state.keys(f) {
			delete(rows, k)
		}
	}
	return rows
}

func same(a, b map[string][]byte) bool { return maps.EqualFunc(a, b, bytes.Equal) }

// A split from its intent to its end, in the states that it leads to. S3: a range that
// was to be deleted before the split, and is when it is over, touches nothing of the
// keys that have moved.
func TestExecutorSplit(t *testing.T) {
	p := newPlace(t, 3)
	none := partition.SessionID{}
	for _, k := range "bdfhm" {
		p.do(none, 0, fmt.Sprintf("set %c 1", k))
	}
	s := p.open()
	p.do(s, 1, "set h 2")
	if res := p.intent(7, part(18, "f", "k"), part(19, "k", "")); res.Err != nil {
		t.Fatal(res.Err)
	}
	p.do(s, 2, "set f 3")
	u := p.open()
	p.do(u, 1, "set f 3")
	p.decide(partition.KindSeal)
	p.do(u, 65, "set b 1") // in the slot of 1
	before := p.owned()
	for cmd, code := range map[string]partition.Code{
		"set f 9": partition.CodeBusy, "del m": partition.CodeBusy, "wipe b g": partition.CodeBusy, "wipe": partition.CodeBusy, "set d 1": 0,
	} {
		if res := p.do(none, 0, cmd); code == 0 && res.Err != nil || code != 0 && (res.Err == nil || res.Err.Code != code) {
			t.Errorf("%s while sealed: %v", cmd, res.Err)
		}
	}
	if _, err := AdoptChild(p.state.clone(), 3, 18); partition.CodeOf(err) != partition.CodeRefused {
		t.Errorf("a child is made while it is sealed: %v", err)
	}
	if res := p.do(s, 3, "set f 4"); res.Err == nil || p.exec.sessions.find(s).max != 2 || !same(before, p.owned()) {
		t.Errorf("a refused command gives %+v and leaves its trace", res)
	}
	p.decide(partition.KindUnseal)
	if res := p.do(s, 3, "set f 4"); res.Err != nil || res.Repeated || string(res.Data) != "3" {
		t.Errorf("unsealed, the same command gives %+v", res)
	}
	p.decide(partition.KindSeal, partition.KindActivate)
	if got := p.read(""); got != "b=1 d=1" {
		t.Errorf("the parent shows %q", got)
	}
	for _, cmd := range []string{"set f 9", "wipe a z"} {
		if res := p.do(none, 0, cmd); res.Err == nil || res.Err.Code != partition.CodeWrongGroup {
			t.Errorf("%s when its keys are gone: %v", cmd, res.Err)
		}
	}
	p.children(s, u)
	p.decide(partition.KindDone)
	if n := len(p.state.keys(stagedRows())); n != 0 {
		t.Errorf("%d rows are left of the split", n)
	}
	if _, err := AdoptChild(p.state.clone(), 3, 18); partition.CodeOf(err) != partition.CodeRefused {
		t.Errorf("a child made when all is over: %v", err)
	}
	p.intent(8, part(20, "c", "f"))
	p.decide(partition.KindAbort)
	p.decideRefused(partition.KindSeal)
	for _, want := range []Point{AtIntent, AtSealed, AtUnsealed, AtActivated, AtSplitDone, AtSplitAborted, AtSplitRefused, AtOutside, AtStaged} {
		if !slices.Contains(p.seen, want) {
			t.Errorf("never at %s", want)
		}
	}
}

// children makes the children of TestExecutorSplit, at once and late; s has sent
// number 3 and u number 65 before.
func (p *place) children(s, u partition.SessionID) {
	t := p.t
	t.Helper()
	none := partition.SessionID{}
	c, d := p.child(18), p.child(19)
	if got := c.read("") + ", " + d.read(""); got != "f=4 h=2, m=1" {
		t.Errorf("the children show %q", got)
	}
	if m := c.exec.Configuration(); m.Index != p.exec.Extent().Split.At || m.Membership.Version != 1 || c.exec.Extent().Parent != 3 {
		t.Errorf("the child begins with %+v of %s", m, c.exec.Extent().Parent)
	}
	if res := c.do(u, 65, "set f 0"); !res.Repeated {
		t.Error("what the parent has executed before, the child executes again")
	}
	if res := p.do(none, 0, "nonsense"); res.Err != nil || string(res.Data) != "no such command" {
		t.Errorf("what touches nothing gives %+v", res)
	}
	if res := c.do(s, 3, "set f 4"); !res.Repeated || string(res.Data) != "3" {
		t.Errorf("a retry at the child gives %+v", res)
	}
	if s := d.open(); s != (partition.SessionID{Group: 19, Index: d.next - 1}) {
		t.Errorf("the child opens %+v", s)
	}
	p.do(s, 4, "set b 5")
	p.do(s, 66, "set b 6")  // in the slot of 2
	p.do(s, 130, "set b 6") // and again
	if late := p.child(18); !same(late.owned(), c.owned()) {
		t.Error("a child that is made later is another")
	}
}

func (p *place) decideRefused(k partition.Kind) {
	p.t.Helper()
	b, _ := partition.Decision{Task: 8, Intent: 1, Version: 1}.AppendBinary(nil)
	before := maps.Clone(p.state.rows)
	if res := p.apply(k, b); res.Err == nil || !same(before, p.state.rows) {
		p.t.Errorf("%s of nothing: %+v", k, res)
	}
}

// A child has only members that some replica of the parent makes, now and when its
// range is sealed.
func TestSplitMakers(t *testing.T) {
	for name, edit := range map[string]func(m *partition.Membership){
		"another node":    func(m *partition.Membership) { m.At(2).Node = "n9" },
		"another replica": func(m *partition.Membership) { m.At(3).Replica = 4; m.Next = 5 },
	} {
		p := newPlace(t, 3)
		c := part(18, "f", "")
		edit(c.Membership)
		if res := p.intent(7, c); res.Err == nil || res.Err.Code != partition.CodeRefused {
			t.Errorf("%s: %v", name, res.Err)
		}
	}
	configure := func(p *place, edit func(m *partition.Membership)) {
		m := p.exec.Configuration().Membership.Successor()
		edit(m)
		b, _ := m.AppendBinary(nil)
		p.apply(partition.KindMember, b)
	}
	p := newPlace(t, 3)
	configure(p, func(m *partition.Membership) { m.At(3).Kind = partition.LogReplica })
	if res := p.intent(7, part(18, "f", "")); res.Err == nil {
		t.Error("a log replica is to make a child")
	}
	configure(p, func(m *partition.Membership) { m.At(3).Kind = partition.Learner })
	if res := p.intent(7, part(18, "f", "")); res.Err != nil {
		t.Errorf("a learner is to make a child: %v", res.Err)
	}
	configure(p, func(m *partition.Membership) { m.Remove(3) })
	x := p.exec.Extent()
	b, _ := x.Decision().AppendBinary(nil)
	if res := p.apply(partition.KindSeal, b); res.Err == nil || p.exec.Extent().Version != x.Version {
		t.Errorf("sealed with a maker gone: %v", res.Err)
	}
	empty := &place{t: t, group: 3, state: newMapState(), next: 2}
	empty.reload()
	if res := empty.intent(7, part(18, "f", "")); res.Err == nil {
		t.Error("a group without a configuration begins a split")
	}
}

// What a newer program would understand stops an older one, so that it does not
// come to another state.
func TestSplitOfNewerProgram(t *testing.T) {
	p := newPlace(t, 3)
	for k := partition.KindIntent; k <= partition.KindSourceGone+1; k++ {
		rec := partition.NewRecord(partition.Header{Group: 3, Index: p.next, Kind: k}, []byte{2})
		if _, err := p.exec.Apply(p.state, rec); partition.CodeOf(err) != partition.CodeNewerFormat {
			t.Errorf("%s: %v", k, err)
		}
	}
	p.state.rows[string(extentKey[:])] = []byte{9}
	if _, err := NewExecutor(divisible{}, p.state); partition.CodeOf(err) != partition.CodeNewerFormat {
		t.Errorf("an extent of a newer program: %v", err)
	}
	if _, err := p.exec.Read(p.state, nil); partition.CodeOf(err) != partition.CodeNewerFormat {
		t.Errorf("read by an extent of a newer program: %v", err)
	}
	if _, err := p.exec.ReadRouted(p.state, 1, nil); partition.CodeOf(err) != partition.CodeNewerFormat {
		t.Errorf("read by an extent of a newer program: %v", err)
	}
}

// Read shows what was served as of the state that it is asked of, whatever was
// applied since, and refuses who believes something else (SPL-5; R3: a read that was
// confirmed before a split and is answered after it).
func TestReadRouted(t *testing.T) {
	p := newPlace(t, 3)
	p.do(partition.SessionID{}, 0, "set b 1")
	p.do(partition.SessionID{}, 0, "set m 1")
	if got, err := p.exec.ReadRouted(p.state, 9, nil); err != nil || string(got) != "b=1 m=1" {
		t.Errorf("before any split: %q, %v", got, err)
	}
	p.intent(7, part(18, "f", ""))
	p.decide(partition.KindSeal)
	old := p.state.clone()
	p.decide(partition.KindActivate)
	for _, c := range []struct {
		state *mapState
		v     partition.RangeVersion
		want  string
		code  partition.Code
	}{
		{old, 1, "b=1 m=1", 0}, {old, 2, "b=1 m=1", 0}, {old, 3, "", partition.CodeBehind}, {old, 0, "", partition.CodeWrongGroup},
		{p.state, 3, "b=1", 0}, {p.state, 2, "", partition.CodeWrongGroup}, {p.state, 4, "", partition.CodeBehind},
	} {
		if got, err := p.exec.ReadRouted(c.state, c.v, nil); string(got) != c.want || partition.CodeOf(err) != c.code {
			t.Errorf("version %d shows %q, %v", c.v, got, err)
		}
	}
}

// careless is a kind that does not say what it touches: the mask keeps it within.
type careless struct{ bank }

func TestMask(t *testing.T) {
	s := newMapState()
	for _, k := range []string{"a", "f", "m"} {
		s.rows[string(append([]byte{spaceUser}, k...))] = []byte("1")
	}
	w := userWriter{userReader: userReader{r: s, mask: part(1, "c", "k").Range}, w: s}
	for _, k := range []string{"a", "m", "k", "b"} {
		if _, ok, _ := w.Get([]byte(k)); ok {
			t.Errorf("%s is seen", k)
		}
		if w.Set([]byte(k), []byte("2")) != nil || w.Delete([]byte(k)) != nil {
			t.Errorf("%s cannot be left alone", k)
		}
	}
	if v, ok, _ := w.Get([]byte("f")); !ok || string(v) != "1" {
		t.Error("f is not seen")
	}
	var seen string
	for _, r := range []partition.KeyRange{{}, {Lo: []byte("l")}, {Hi: []byte("b")}, {Lo: []byte("e"), Hi: []byte("z")}} {
		for p := range w.Scan(r) {
			seen += string(p.Key)
		}
		for p := range w.ScanBack(r) {
			seen += string(p.Key)
		}
	}
	if seen != "ffff" {
		t.Errorf("scans show %q", seen)
	}
	if got := w.within(partition.KeyRange{Lo: []byte("l")}); !got.Equal(noKeys()) {
		t.Errorf("of what is masked %s is asked for", got)
	}
	w.DeleteRange(partition.KeyRange{Lo: []byte("l")})
	w.DeleteRange(partition.KeyRange{Hi: []byte("b")})
	if len(s.rows) != 3 {
		t.Error("a range is deleted behind the mask")
	}
	w.DeleteRange(partition.KeyRange{})
	if len(s.rows) != 2 || len(s.keys(noKeys())) != 0 {
		t.Errorf("%d rows are left", len(s.rows))
	}
	if f := Foreign(partition.Extent{}); f != nil {
		t.Errorf("of a group that was never split %v is foreign", f)
	}
	x := partition.Extent{Version: 1, Range: part(1, "c", "k").Range}
	if f := Foreign(x); len(f) != 2 || f[0].String() != `["\x03","\x03c")` || f[1].String() != `["\x03k","\x04")` {
		t.Errorf("foreign are %v", f)
	}
}

// A kind that does not say what its commands touch is masked nevertheless.
func TestMaskOfAnyKind(t *testing.T) {
	p := newPlace(t, 3)
	p.do(partition.SessionID{}, 0, "set m 1")
	p.intent(7, part(18, "f", ""))
	p.decide(partition.KindSeal, partition.KindActivate)
	x, err := NewExecutor(careless{}, p.state)
	if err != nil {
		t.Fatal(err)
	}
	p.exec = x
	before := maps.Clone(p.state.rows)
	if res := p.do(partition.SessionID{}, 0, "set m 2"); res.Err != nil || string(res.Data) != "" || !same(before, p.state.rows) {
		t.Errorf("it gives %+v and has written", res)
	}
}

// The records of splits and merges are proposed like commands, and no other kind is. What
// they say is nobody's business before they are applied.
func TestProposeStructure(t *testing.T) {
	l := elected(t)
	var ps []Proposal
	for k := partition.KindIntent; k <= partition.KindSourceGone+1; k++ {
		ps = append(ps, Proposal{ID: uint64(k), Kind: k, Payload: []byte("x")})
	}
	l.ok(Propose{ps})
	l.wantReplies("28:invalid")
	p := workOf[*Persist](l)
	if len(p) != 1 || len(p[0].Records) != 12 || p[0].Records[11].Kind() != partition.KindSourceGone {
		t.Fatalf("in the log: %+v", p)
	}
	l.synced()
	l.from(2, &AppendAck{Epoch: e31, Match: 14})
	if a := workOf[*Apply](l); len(a) != 1 || a[0].Last != 14 || a[0].IDs[0] != 16 {
		t.Fatalf("apply %+v", a)
	}
}
