package replica

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"pando.dev/pando/partition"
)

// lone is one replica of a group of three whose host is the test: what it asks
// for is only noted.
type lone struct {
	t     *testing.T
	r     *Replica
	now   partition.Time
	work  []Work
	down  map[partition.NodeID]bool
	until partition.Time // what Revoke and Granted say
}

func (l *lone) Reachable(n partition.NodeID) bool { return !l.down[n] }
func (l *lone) Revoke(partition.GroupID, partition.ReplicaID, partition.Epoch, partition.NodeID) partition.Time {
	return l.until
}
func (l *lone) Granted(partition.GroupID, partition.Epoch, partition.NodeID, Supporter) partition.Time {
	return l.until
}

func loneConfig(l *lone) Config {
	return Config{Group: 7, Self: 1, Node: "n1", Neighbours: l, Rand: rand.New(rand.NewPCG(1, 1))}
}

func loneRestored(m *partition.Membership) Restored {
	g, err := partition.Genesis(7, m)
	if err != nil {
		panic(err)
	}
	return Restored{
		First: 1, Last: 1, LastSum: g.Checksum(), Runs: []EpochRun{{First: 1}},
		Configurations: []ConfigurationAt{{1, m}},
	}
}

func newLone(t *testing.T, change ...func(*Config, *Restored)) *lone {
	l := &lone{t: t, down: map[partition.NodeID]bool{}}
	cfg, res := loneConfig(l), loneRestored(members(3))
	for _, f := range change {
		f(&cfg, &res)
	}
	r, err := New(cfg, res)
	if err != nil {
		t.Fatal(err)
	}
	l.r = r
	l.ok(Tick{})
	return l
}

// step gives an input and keeps the work.
func (l *lone) step(in Input) error {
	l.now += time.Millisecond
	err := l.r.Step(Event{Now: l.now, Input: in})
	l.work = nil
	for w := range l.r.Ready() {
		l.work = append(l.work, w)
	}
	return err
}

func (l *lone) ok(in Input) {
	l.t.Helper()
	if err := l.step(in); err != nil {
		l.t.Fatalf("%T: %v", in, err)
	}
}

func (l *lone) from(id partition.ReplicaID, m Message) { l.t.Helper(); l.ok(received(id, m)) }

func received(id partition.ReplicaID, m Message) Received { return Received{From: id, Message: m} }

// synced says that everything is on disk, applied that all of it is applied.
func (l *lone) synced() { l.t.Helper(); l.ok(Persisted{l.r.seq}) }

func (l *lone) apply() {
	l.t.Helper()
	for l.r.asked != 0 {
		l.ok(Applied{l.r.asked})
	}
}

// sent returns the messages of the last step.
func (l *lone) sent() (out []string) {
	for _, w := range l.work {
		if s, ok := w.(*Send); ok {
			out = append(out, describe(s.Message))
		}
	}
	return out
}

func (l *lone) wantSent(want string) {
	l.t.Helper()
	if got := strings.Join(l.sent(), "; "); got != want {
		l.t.Errorf("sent %q, not %q", got, want)
	}
}

func workOf[W Work](l *lone) (out []W) {
	for _, w := range l.work {
		if x, ok := w.(W); ok {
			out = append(out, x)
		}
	}
	return out
}

var e12, e22, e31, e42 = partition.NewEpoch(1, 2), partition.NewEpoch(2, 2), partition.NewEpoch(3, 1), partition.NewEpoch(4, 2)

// chain makes records that continue the lone log or another chain.
func chain(prev partition.Position, sum uint32, epoch partition.Epoch, n int) []partition.Record {
	var out []partition.Record
	for range n {
		r := partition.NewRecord(partition.Header{Group: 7, Index: prev.Index + 1, Epoch: epoch, Prev: sum, Kind: partition.KindCommand}, []byte{0})
		out, prev, sum = append(out, r), r.Position(), r.Checksum()
	}
	return out
}

func (l *lone) genesis() (partition.Position, uint32) {
	g, _ := partition.Genesis(7, members(3))
	return g.Position(), g.Checksum()
}

// followed is a peer with three records of epoch 2.2, all on disk.
func followed(t *testing.T, change ...func(*Config, *Restored)) (*lone, []partition.Record) {
	l := newLone(t, change...)
	pos, sum := l.genesis()
	recs := chain(pos, sum, e22, 3)
	l.from(2, &Append{Epoch: e22, Prev: pos, PrevSum: sum, Commit: 2, Records: recs})
	l.synced()
	l.wantSent("ack epoch 2.2 match 4 commit 2")
	return l, recs
}

// elected is a master of epoch 3.1 that serves.
func elected(t *testing.T, change ...func(*Config, *Restored)) *lone {
	l := candidate(t, change...)
	l.from(2, &GatherAnswer{Epoch: e31, End: partition.Position{Index: 1}})
	l.synced()
	l.from(2, &AppendAck{Epoch: e31, Match: 2})
	l.apply()
	if l.r.phase != serving {
		t.Fatalf("not elected: %s", l.r.Status())
	}
	return l
}

// candidate is a candidate whose promise of 3.1 is on disk.
func candidate(t *testing.T, change ...func(*Config, *Restored)) *lone {
	l := locking3(t, change...)
	l.ok(Locked{Number: 3})
	l.synced()
	l.wantSent("gather epoch 3.1; gather epoch 3.1")
	return l
}

func locking3(t *testing.T, change ...func(*Config, *Restored)) *lone {
	l := newLone(t, change...)
	l.now = time.Second
	l.ok(Tick{})
	for _, id := range []partition.ReplicaID{2, 3} {
		l.from(id, &ProbeAnswer{End: partition.Position{Index: 1}})
	}
	if l.r.phase != locking {
		t.Fatalf("not locking: %s", l.r.Status())
	}
	return l
}

func TestNewRefuses(t *testing.T) {
	for name, f := range map[string]func(*Config, *Restored){
		"no group":                  func(c *Config, _ *Restored) { c.Group = 0 },
		"no self":                   func(c *Config, _ *Restored) { c.Self = 0 },
		"no node":                   func(c *Config, _ *Restored) { c.Node = "" },
		"no neighbours":             func(c *Config, _ *Restored) { c.Neighbours = nil },
		"no chance":                 func(c *Config, _ *Restored) { c.Rand = nil },
		"first 0":                   func(_ *Config, r *Restored) { r.First = 0 },
		"last before first":         func(_ *Config, r *Restored) { r.First, r.Last = 5, 3 },
		"a wrong position before":   func(_ *Config, r *Restored) { r.BeforeFirst.Index = 4 },
		"applied behind the end":    func(_ *Config, r *Restored) { r.Applied = 2 },
		"no runs":                   func(_ *Config, r *Restored) { r.Runs = nil },
		"runs that begin too late":  func(_ *Config, r *Restored) { r.Runs[0].First = 2 },
		"runs out of order":         func(_ *Config, r *Restored) { r.Last, r.Runs = 2, []EpochRun{{0, 1}, {0, 2}} },
		"a run of an older epoch":   func(_ *Config, r *Restored) { r.BeforeFirst.Epoch = e12 },
		"no configuration":          func(_ *Config, r *Restored) { r.Configurations = nil },
		"an empty configuration":    func(_ *Config, r *Restored) { r.Configurations = []ConfigurationAt{{}} },
		"a configuration from afar": func(_ *Config, r *Restored) { r.Configurations[0].Index = 2 },
		"a record above the promise": func(_ *Config, r *Restored) {
			r.Last, r.Runs = 2, []EpochRun{{0, 1}, {e12, 2}}
		},
	} {
		l := &lone{}
		cfg, res := loneConfig(l), loneRestored(members(3))
		f(&cfg, &res)
		if _, err := New(cfg, res); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

// Every input that makes no sense is refused as a whole and changes nothing.
func TestStepRefuses(t *testing.T) {
	l, recs := followed(t)
	end, sum := recs[2].Position(), recs[2].Checksum()
	good := chain(end, sum, e22, 2)
	foreign := partition.NewRecord(partition.Header{Group: 8, Index: 5, Epoch: e22, Prev: sum, Kind: partition.KindCommand})
	local := partition.NewRecord(partition.Header{Group: 7, Index: 5, Epoch: e22, Prev: sum, Kind: partition.KindLocal})
	broken := partition.NewRecord(partition.Header{Group: 7, Index: 5, Epoch: e22, Prev: sum, Kind: partition.KindMember}, []byte{1, 2})
	pos, gsum := l.genesis()
	other := chain(pos, gsum, e12, 3)
	flipped := chain(recs[1].Position(), recs[1].Checksum()^1, e22, 2)
	app := func(prev partition.Position, sum uint32, r ...partition.Record) Received {
		return received(2, &Append{Epoch: e22, Prev: prev, PrevSum: sum, Records: r})
	}
	for _, c := range []struct {
		name string
		in   Input
		want partition.Code
	}{
		{"no input", nil, partition.CodeInvalid},
		{"no message", received(2, nil), partition.CodeInvalid},
		{"a message from nobody", received(0, &Probe{}), partition.CodeInvalid},
		{"a message from itself", received(1, &Probe{}), partition.CodeInvalid},
		{"a sync that was not asked for", Persisted{99}, partition.CodeInvalid},
		{"an apply that was not asked for", Applied{9}, partition.CodeInvalid},
		{"a truncation of what is not applied", Truncated{2}, partition.CodeInvalid},
		{"an apply of what is applied", Applied{0}, partition.CodeInvalid},
		{"an append in another's epoch", received(3, &Append{Epoch: e22}), partition.CodeInvalid},
		{"a gather in another's epoch", received(3, &Gather{Epoch: e42}), partition.CodeInvalid},
		{"a record cut short", app(end, sum, good[0][:20]), partition.CodeCorrupt},
		{"another group's record", app(end, sum, foreign), partition.CodeInvalid},
		{"a local record", app(end, sum, local), partition.CodeInvalid},
		{"a hole in the message", app(end, sum, good[1]), partition.CodeInvalid},
		{"a record above the epoch", app(end, sum, chain(end, sum, e31, 1)...), partition.CodeInvalid},
		{"a record of an older epoch", app(end, sum, chain(end, sum, e12, 1)...), partition.CodeInvalid},
		{"a broken chain", app(end, sum^1, good...), partition.CodeCorrupt},
		{"another checksum before", app(end, sum^1), partition.CodeCorrupt},
		{"another checksum inside", app(recs[1].Position(), recs[1].Checksum(), partition.NewRecord(partition.Header{
			Group: 7, Index: 4, Epoch: e22, Prev: recs[1].Checksum(), Kind: partition.KindNoop})), partition.CodeCorrupt},
		{"a chain that does not continue", app(recs[1].Position(), 0, flipped...), partition.CodeCorrupt},
		{"another chain behind the end", app(end, 0, chain(end, sum^1, e22, 1)...), partition.CodeCorrupt},
		{"a broken configuration", app(end, sum, broken), partition.CodeCorrupt},
		{"another committed record", app(pos, gsum, other...), partition.CodeCorrupt},
		{"another committed position", app(other[0].Position(), other[0].Checksum()), partition.CodeCorrupt},
	} {
		before := l.r.Status()
		err := l.step(c.in)
		if partition.CodeOf(err) != c.want {
			t.Errorf("%s: %v", c.name, err)
		}
		if after := l.r.Status(); after.String() != before.String() || len(l.sent()) != 0 {
			t.Errorf("%s: changes %s into %s, sends %v", c.name, before, after, l.sent())
		}
	}
}

// NOT-2, NOT-3: what is behind a hole is not taken, and a stale or shorter
// append never shortens the log.
func TestAppendFits(t *testing.T) {
	l, recs := followed(t)
	pos, sum := l.genesis()
	end, endSum := recs[2].Position(), recs[2].Checksum()
	later := chain(end, endSum, e22, 4)
	l.from(2, &Append{Epoch: e22, Prev: later[1].Position(), PrevSum: later[1].Checksum(), Records: later[2:]})
	l.wantSent("ack epoch 2.2 match 4 commit 2 want 5")
	l.from(2, &Append{Epoch: e22, Prev: pos, PrevSum: sum, Records: recs[:1]})
	l.wantSent("ack epoch 2.2 match 4 commit 2")
	l.from(2, &Append{Epoch: e22, Prev: pos, PrevSum: sum})
	if l.r.log.last != 4 || len(workOf[*Persist](l)) != 0 {
		t.Errorf("a stale append has changed the log: %s", l.r.Status())
	}
	l.from(2, &Append{Epoch: e22, Prev: end, PrevSum: endSum, Records: later, Commit: 99})
	l.wantSent("") // not before the disk has finished
	l.synced()
	l.wantSent("ack epoch 2.2 match 8 commit 8")

	// A newer master's log differs from index 4 on.
	fork := chain(recs[1].Position(), recs[1].Checksum(), e31, 1)
	if err := l.step(received(2, &Append{Epoch: e42, Prev: recs[1].Position(), PrevSum: recs[1].Checksum(), Records: fork})); partition.CodeOf(err) != partition.CodeCorrupt {
		t.Errorf("a committed record is replaced: %v", err)
	}
}

// A snip removes exactly what differs, and what was on its way to the disk does
// not count any more.
func TestSnipUnderway(t *testing.T) {
	l := newLone(t)
	pos, sum := l.genesis()
	recs := chain(pos, sum, e12, 5)
	l.from(2, &Append{Epoch: e12, Prev: pos, PrevSum: sum, Records: recs})
	seq := l.r.seq
	fork := chain(recs[1].Position(), recs[1].Checksum(), e22, 1)
	l.from(2, &Append{Epoch: e22, Prev: recs[3].Position(), PrevSum: recs[3].Checksum()})
	l.wantSent("") // its promise of 2.2 is not on disk
	l.from(2, &Append{Epoch: e22, Prev: recs[1].Position(), PrevSum: recs[1].Checksum(), Records: fork})
	p := workOf[*Persist](l)
	if len(p) != 1 || !p[0].Snip || p[0].After != 3 || len(p[0].Records) != 1 || p[0].Promise != e22 {
		t.Fatalf("persist %+v", p)
	}
	l.ok(Persisted{seq})
	if l.r.durable != 3 {
		t.Errorf("durable up to %d of a log that was snipped behind 3", l.r.durable)
	}
	l.synced()
	l.wantSent("ack epoch 2.2 match 4 commit 0")
	if l.r.log.last != 4 || !l.r.log.has(fork[0].Position()) {
		t.Errorf("log ends at %s", l.r.log.end())
	}
}

// The commit index is stored without a sync of its own: the log may end before.
func TestRestoredCommit(t *testing.T) {
	for _, c := range []struct{ commit, applied, want partition.Index }{{9, 0, 1}, {0, 1, 1}, {0, 0, 0}} {
		l := newLone(t, func(_ *Config, r *Restored) { r.Commit, r.Applied = c.commit, c.applied })
		if got := l.r.Status().Commit; got != c.want {
			t.Errorf("commit %d and applied %d give %d", c.commit, c.applied, got)
		}
	}
}

// A log whose beginning was truncated matches what lies before it.
func TestAppendBelowFirst(t *testing.T) {
	l, recs := followed(t)
	pos, sum := l.genesis()
	m := l.r.log.configs[0].Membership
	res := Restored{
		Promised: e22, Commit: 3, Applied: 3, First: 4, Last: 4, BeforeFirst: recs[1].Position(), LastSum: recs[2].Checksum(),
		Runs: []EpochRun{{e22, 4}}, Configurations: []ConfigurationAt{{1, m}}, Restarted: true,
	}
	r, err := New(loneConfig(l), res)
	if err != nil {
		t.Fatal(err)
	}
	l.r = r
	l.ok(Tick{})
	l.from(2, &Append{Epoch: e22, Prev: pos, PrevSum: sum, Records: recs[:1]})
	l.wantSent("ack epoch 2.2 match 2 commit 3")
	more := chain(recs[2].Position(), recs[2].Checksum(), e22, 1)
	l.from(2, &Append{Epoch: e22, Prev: pos, PrevSum: sum, Records: append(recs, more...)})
	l.synced()
	l.wantSent("ack epoch 2.2 match 5 commit 3")
	// What was truncated cannot be supplied: whoever lacks it finds the answer unfit.
	l.from(2, &Gather{Epoch: e42})
	l.synced()
	l.from(2, &Fetch{Epoch: e42, After: 1})
	l.wantSent("fetch answer epoch 4.2 after 3@2.2")
	l.from(2, &Fetch{Epoch: e42, After: 6})
	l.wantSent("fetch answer epoch 4.2 after 0@0.0")
	l.from(2, &Fetch{Epoch: e42, After: 3})
	l.wantSent("fetch answer epoch 4.2 after 3@2.2")
	if a := workOf[*Send](l)[0].Message.(*FetchAnswer); a.Through != 4 {
		t.Errorf("the host is to read up to %d", a.Through)
	}
}

// SMF-2: what is older than the promise is refused with the promise; but the
// replica that the promise names gets no answer to its own old messages, since
// that would look like support before the promise is on disk.
func TestOldEpochsRefused(t *testing.T) {
	l := newLone(t)
	l.from(2, &Gather{Epoch: e42})
	for _, m := range []Message{&Append{Epoch: e22}, &Gather{Epoch: e22}, &Fetch{Epoch: e22}, &ReadCheck{Epoch: e22, Seq: 1}, &Fetch{Epoch: e42}} {
		l.from(2, m)
		l.wantSent("")
	}
	for _, c := range []struct {
		m    Message
		want string
	}{
		{&Append{Epoch: partition.NewEpoch(2, 3)}, "ack epoch 4.2 match 0 commit 0"},
		{&Gather{Epoch: partition.NewEpoch(2, 3)}, "gather answer epoch 4.2 end 0@0.0 commit 0 lease 0s"},
		{&Fetch{Epoch: partition.NewEpoch(2, 3)}, "gather answer epoch 4.2 end 0@0.0 commit 0 lease 0s"},
		{&ReadCheck{Epoch: partition.NewEpoch(2, 3), Seq: 5}, "read confirm epoch 4.2 round 5 waiting false"},
	} {
		l.from(3, c.m)
		l.wantSent(c.want)
	}
	l.synced()
	l.wantSent("gather answer epoch 4.2 end 1@0.0 commit 0 lease 0s")
	l.from(2, &Gather{Epoch: e42}) // once more, as its answer was lost
	l.wantSent("gather answer epoch 4.2 end 1@0.0 commit 0 lease 0s")
	l.from(2, &ReadCheck{Epoch: e42, Seq: 9})
	l.wantSent("read confirm epoch 4.2 round 9 waiting false")
}

// Grants to earlier masters add up over promises; to one whose node is not
// known, a whole lease is assumed; and a member whose grants still run confirms
// no read.
func TestLeaseRemaining(t *testing.T) {
	l := newLone(t)
	l.from(2, &Gather{Epoch: e22})
	l.until = l.now + 100*time.Millisecond
	l.from(3, &Gather{Epoch: partition.NewEpoch(3, 3)})
	l.until = 0
	l.ok(received(9, &Gather{Epoch: partition.NewEpoch(4, 9)}))
	l.synced()
	l.wantSent("gather answer epoch 4.9 end 1@0.0 commit 0 lease 97ms")
	l.from(2, &Gather{Epoch: partition.NewEpoch(5, 2)})
	l.synced()
	if got := l.sent()[0]; got != "gather answer epoch 5.2 end 1@0.0 commit 0 lease 299ms" {
		t.Errorf("after a master on an unknown node: %s", got)
	}
	l.from(2, &ReadCheck{Epoch: partition.NewEpoch(5, 2), Seq: 1})
	l.wantSent("read confirm epoch 5.2 round 1 waiting true")

	l = newLone(t, func(_ *Config, r *Restored) { r.Restarted = true })
	l.from(2, &Gather{Epoch: e22})
	l.synced()
	l.wantSent("gather answer epoch 2.2 end 1@0.0 commit 0 lease 298ms")
}
