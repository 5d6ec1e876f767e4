package replica

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"pando.dev/pando/partition"
)

// divided is a parent with its children, and the same commands to a group that is
// never split.
type divided struct {
	t        *rapid.T
	model    *place
	parts    []*place // the parent first
	sessions []partition.SessionID
	origin   map[partition.SessionID]partition.SessionID // the model's
	seq      []uint64
	done     []sent
	early    map[partition.GroupID]*place // children as they were when they were made
	task     uint64
	next     partition.GroupID
	moved    int
	stray    partition.SessionID
}

type sent struct {
	session int
	seq     uint64
	cmd     string
	data    string
}

// owner returns the part that has the key.
func (d *divided) owner(key string) *place {
	for _, p := range d.parts {
		x := p.exec.Extent()
		if x.Version == 0 || x.Range.Contains([]byte(key)) {
			return p
		}
	}
	d.t.Fatalf("nobody has %q", key)
	return nil
}

// command sends a command to its owner, and to the model.
func (d *divided) command(t *rapid.T) {
	key := rapid.StringMatching("[a-p]").Draw(t, "key")
	cmd := fmt.Sprintf("set %s %d", key, len(d.done))
	if rapid.IntRange(0, 4).Draw(t, "what") == 0 {
		cmd = "del " + key
	}
	i := rapid.IntRange(0, len(d.sessions)-1).Draw(t, "session")
	s, seq := d.sessions[i], d.seq[i]
	for _, p := range d.parts { // who does not serve the key leaves no trace
		if x := p.exec.Extent(); x.Version != 0 && !x.Serves(keyOf(key)) {
			before := maps.Clone(p.state.rows)
			if res := p.do(s, seq, cmd); res.Err == nil || !same(before, p.state.rows) {
				t.Fatalf("%s has executed %s: %+v", p.group, cmd, res)
			}
		}
	}
	p := d.owner(key)
	if x := p.exec.Extent(); x.Version != 0 && !x.Serves(keyOf(key)) {
		return // sealed
	}
	d.seq[i]++
	res, want := p.do(s, seq, cmd), d.model.do(d.origin[s], seq, cmd)
	if string(res.Data) != string(want.Data) || res.Err != nil || res.Repeated {
		t.Fatalf("%s gives %+v, not %+v", cmd, res, want)
	}
	d.done = append(d.done, sent{i, seq, cmd, string(res.Data)})
}

func keyOf(k string) partition.KeyRange {
	return partition.KeyRange{Lo: []byte(k), Hi: []byte(k + "\x00")}
}

// retry sends a command again, to whoever has its key now.
func (d *divided) retry(t *rapid.T) {
	if len(d.done) == 0 {
		return
	}
	x := d.done[rapid.IntRange(max(0, len(d.done)-40), len(d.done)-1).Draw(t, "again")]
	if d.seq[x.session]-x.seq > SessionWindow/2 {
		return
	}
	p := d.owner(strings.Fields(x.cmd)[1])
	user := p.userRows()
	res := p.do(d.sessions[x.session], x.seq, x.cmd)
	if res.Err != nil || !res.Repeated || string(res.Data) != x.data || !same(user, p.userRows()) {
		t.Fatalf("%s again gives %+v, not %q", x.cmd, res, x.data)
	}
}

func (p *place) userRows() map[string][]byte {
	rows := p.owned()
	maps.DeleteFunc(rows, func(k string, _ []byte) bool { return k[0] != spaceUser })
	return rows
}

func (d *divided) open(t *rapid.T) {
	p := d.parts[rapid.IntRange(0, len(d.parts)-1).Draw(t, "at")]
	if len(d.sessions) < 6 && len(d.parts) == 1 {
		s := p.open()
		d.sessions, d.seq = append(d.sessions, s), append(d.seq, 1)
		d.origin[s] = d.model.open()
	}
}

// step takes some part of the parent's split on, or begins one.
func (d *divided) step(t *rapid.T) {
	p := d.parts[rapid.IntRange(0, len(d.parts)-1).Draw(t, "who")]
	x := p.exec.Extent()
	switch {
	case x.Split == nil:
		d.begin(t, p)
	case x.Split.Phase == partition.Intended && rapid.IntRange(0, 3).Draw(t, "give up") == 0:
		p.decide(partition.KindAbort)
	case x.Split.Phase == partition.Intended:
		p.decide(partition.KindSeal)
	case x.Split.Phase == partition.Sealed && rapid.IntRange(0, 2).Draw(t, "undo") == 0:
		p.decide(partition.KindUnseal)
	case x.Split.Phase == partition.Sealed:
		p.decide(partition.KindActivate)
		for _, c := range p.exec.Extent().Split.Children {
			made := p.child(c.Group)
			d.early[c.Group] = p.child(c.Group)
			d.parts = append(d.parts, made)
		}
		d.moved++
	default:
		d.makeAgain(t, p)
		if rapid.Bool().Draw(t, "done") {
			p.decide(partition.KindDone)
		}
	}
}

// makeAgain: a child that is made late is the one that was made at once.
func (d *divided) makeAgain(t *rapid.T, p *place) {
	for _, c := range p.exec.Extent().Split.Children {
		late, at := p.child(c.Group), d.early[c.Group]
		if !same(late.owned(), at.owned()) {
			t.Fatalf("%s made at %d differs from the one made at %d", c.Group, p.next-1, late.next-1)
		}
	}
}

func (d *divided) begin(t *rapid.T, p *place) {
	x := p.exec.Extent()
	cut := rapid.StringMatching("[a-p]").Draw(t, "cut")
	if x.Version != 0 && (!x.Range.Contains([]byte(cut)) || string(x.Range.Lo) == cut) || cut == "a" {
		return
	}
	d.task++
	d.next++
	c := part(d.next, cut, string(x.Range.Hi))
	if rapid.Bool().Draw(t, "lower") {
		c = part(d.next, string(x.Range.Lo), cut)
	}
	if res := p.intent(d.task, c); res.Err != nil {
		t.Fatal(res.Err)
	}
}

// expire forgets a session that was used early, in one part only.
func (d *divided) expire(t *rapid.T) {
	p := d.parts[rapid.IntRange(0, len(d.parts)-1).Draw(t, "where")]
	p.apply(partition.KindSession, AppendExpireSessions(nil, d.stray))
}

func (d *divided) reload(*rapid.T) {
	for _, p := range d.parts {
		p.reload()
	}
}

func (d *divided) check(t *rapid.T) {
	all := map[string][]byte{}
	for _, p := range d.parts {
		for k, v := range p.userRows() {
			if _, twice := all[k]; twice {
				t.Fatalf("%q is in two groups", k)
			}
			all[k] = v
		}
	}
	if !same(all, d.model.userRows()) {
		t.Fatalf("%d rows together, %d of the model", len(all), len(d.model.state.rows))
	}
}

// SPL-1, SPL-4: whatever is split and when, the groups together hold what one
// would, every command is executed once, by whoever it is sent to again, and a child
// that is made late is the one that is made at once.
func TestSplitIsUnseen(t *testing.T) {
	most := 0
	rapid.Check(t, func(rt *rapid.T) {
		d := &divided{
			t: rt, model: newPlace(t, 3), parts: []*place{newPlace(t, 3)}, next: 10,
			origin: map[partition.SessionID]partition.SessionID{}, early: map[partition.GroupID]*place{},
		}
		p := d.parts[0]
		d.stray = p.open()
		for i := range 70 {
			p.do(d.stray, uint64(i+1), "del a")
		}
		d.sessions, d.seq = []partition.SessionID{p.open()}, []uint64{1}
		d.origin[d.sessions[0]] = d.model.open()
		acts := []func(*rapid.T){d.command, d.command, d.command, d.step, d.step, d.retry, d.open, d.expire, d.reload}
		for range 150 {
			acts[rapid.IntRange(0, len(acts)-1).Draw(rt, "act")](rt)
			d.check(rt)
		}
		most = max(most, d.moved)
	})
	if most < 2 {
		t.Errorf("at most %d splits in a run", most)
	}
}
