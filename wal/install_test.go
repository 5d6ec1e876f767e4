package wal_test

import (
	"errors"
	"fmt"
	"testing"

	"pando.dev/pando/partition"
	"pando.dev/pando/wal"
	"pando.dev/pando/wal/memfs"
)

// config is the record of some configuration of a group.
func config(g partition.GroupID, i partition.Index) partition.Record {
	return partition.NewRecord(partition.Header{Group: g, Index: i, Kind: partition.KindMember}, []byte("c"))
}

// base describes record i of a chain as a place to begin.
func (c *chain) base(i partition.Index, generation uint32) *wal.Install {
	r := c.all[i-1]
	return &wal.Install{Base: r.Position(), BaseSum: r.Checksum(), Generation: generation, Configuration: config(c.g, 1)}
}

// fat writes records of another group until some segments are full.
func fat(t *testing.T, l *wal.Log, d *chain, n int) {
	t.Helper()
	for range n {
		mustAppend(t, l, wal.Write{Group: d.g, Replica: 1, Records: d.make(1<<16, 1, 7000)})
		turns(l)
		l.SetFlushed(d.g, d.last, 0)
	}
}

// TestLogReplicaGetsState is the way of a log replica (CAT-3, CAT-9): its log
// begins behind a base, it lets go of what nobody needs, and when a state comes
// that is older than its end, but not than its beginning, everything behind that
// is kept, and is kept until the state has it.
func TestLogReplicaGetsState(t *testing.T) {
	fs := memfs.New(1)
	l, _ := open(t, fs, options())
	c, d := &chain{g: 1}, &chain{g: 2}
	c.make(1<<16, 20, 100) // elsewhere
	mustAppend(t, l, wal.Write{Group: 1, Replica: 4, Install: c.base(20, 0)})
	s, _ := l.Summary(1)
	if s.Generation != 0 || s.First != 21 || s.Last != 20 || s.Before != c.all[19].Position() || s.LastSum != c.sum ||
		s.Promise != 1<<16 || s.Commit != 20 || len(s.Configurations) != 1 {
		t.Fatalf("a log that begins behind a base: %+v", s)
	}
	for range 20 {
		mustAppend(t, l, wal.Write{Group: 1, Records: c.make(2<<16, 1, 500), Commit: c.last - 1})
		fat(t, l, d, 1)
	}
	if l.Stats().Recycled != 0 {
		t.Fatal("a record was let go that somebody may need")
	}
	l.SetFlushed(1, 30, 0)
	fat(t, l, d, 1)
	s, _ = l.Summary(1)
	if l.Stats().Recycled == 0 || s.First == 21 || s.First > 31 {
		t.Fatalf("what nobody needs was not let go: first %d", s.First)
	}
	old := wal.Write{Group: 1, Install: c.base(s.Before.Index-1, 1)}
	if err := l.Append(old, nil); !errors.Is(err, partition.ErrInvalid) {
		t.Fatalf("a state that is older than the log: %v", err)
	}
	l.SetFlushed(1, 36, 0)
	s, _ = l.Summary(1)
	at := s.Before.Index + 2 // a state may be older than what could have been let go
	var acked bool
	if err := l.Append(wal.Write{Group: 1, Install: c.base(at, 1)}, func(err error) { acked = err == nil }); err != nil {
		t.Fatal(err)
	}
	l.SetFlushed(1, 40, 0) // the log's owner said so before it knew
	l.SetFlushed(1, 40, 2) // and this is not in place
	turns(l)
	check := func(l *wal.Log) {
		t.Helper()
		s, _ := l.Summary(1)
		if s.Generation != 1 || s.Flushed != at || s.First > at+1 || s.Commit < 39 {
			t.Fatalf("with a state at %d: %+v", at, s)
		}
		sameRecords(t, l, c)
	}
	if check(l); !acked {
		t.Fatal("not acknowledged")
	}
	n := l.Stats().Recycled
	fat(t, l, d, 30)
	if check(l); l.Stats().Recycled > n+1 {
		t.Fatal("records went that the state does not have")
	}
	l, _ = open(t, fs.Crash(1, 0), options())
	check(l)
	l.SetFlushed(1, 40, 1)
	fat(t, l, d, 1)
	if s, _ := l.Summary(1); s.First != 41 || s.Flushed != 40 {
		t.Fatalf("after the state has all: %+v", s)
	}
}

// TestInstallIsChosenByTheRecord: the log is kept if it has the very record at
// the base, at its end, in the middle, or just before its beginning; otherwise it
// is void. A promise is raised to the base's epoch and never falls.
func TestInstallIsChosenByTheRecord(t *testing.T) {
	other := &chain{g: 1}
	other.make(1<<16, 5, 50)
	other.make(9<<16, 25, 60)
	for name, x := range map[string]struct {
		base func(c *chain) *wal.Install
		keep bool
	}{
		"in the middle":  {func(c *chain) *wal.Install { return c.base(15, 2) }, true},
		"at the end":     {func(c *chain) *wal.Install { return c.base(20, 2) }, true},
		"before the log": {func(c *chain) *wal.Install { return c.base(10, 2) }, true},
		"another record": {func(*chain) *wal.Install { return other.base(15, 2) }, false},
		"beyond the end": {func(*chain) *wal.Install { return other.base(25, 2) }, false},
		"another sum": {func(c *chain) *wal.Install {
			n := c.base(15, 2)
			n.BaseSum++
			return n
		}, false},
	} {
		fs := memfs.New(1)
		l, _ := open(t, fs, options())
		c := &chain{g: 1}
		c.make(1<<16, 10, 50)
		mustAppend(t, l, wal.Write{Group: 1, Replica: 3, Install: c.base(10, 1), Promise: 7 << 16})
		mustAppend(t, l, wal.Write{Group: 1, Records: c.make(7<<16, 10, 50), Commit: 12})
		n := x.base(c)
		w := wal.Write{Group: 1, Install: n}
		if name == "at the end" { // records may follow in the same write
			w.Records = c.make(7<<16, 2, 50)
		}
		mustAppend(t, l, w)
		turns(l)
		l.Settle()
		for range 2 {
			s, _ := l.Summary(1)
			want := max(7<<16, n.Base.Epoch)
			if s.Promise != want || s.Generation != 2 || s.Flushed != n.Base.Index || s.Commit != max(12, n.Base.Index) {
				t.Fatalf("%s: %+v", name, s)
			}
			if x.keep {
				sameRecords(t, l, c)
			} else if s.Before != n.Base || s.Last != n.Base.Index || s.LastSum != n.BaseSum {
				t.Fatalf("%s: the log was not void: %+v", name, s)
			}
			l, _ = open(t, fs.Crash(1, 0), options())
		}
	}
}

// TestBaseAt: what a log says of a place is what another log begins with.
func TestBaseAt(t *testing.T) {
	l, _ := open(t, memfs.New(1), options())
	c := &chain{g: 1}
	c.make(1<<16, 3, 10)
	mustAppend(t, l, wal.Write{Group: 1, Replica: 3, Install: c.base(3, 1)})
	mustAppend(t, l, wal.Write{Group: 1, Records: c.make(1<<16, 4, 50)})
	member := partition.NewRecord(partition.Header{Group: 1, Index: 8, Epoch: 1 << 16, Prev: c.sum, Kind: partition.KindMember}, []byte("m"))
	c.all, c.last, c.sum = append(c.all, member), 8, member.Checksum()
	mustAppend(t, l, wal.Write{Group: 1, Records: []partition.Record{member}})
	mustAppend(t, l, wal.Write{Group: 1, Records: c.make(2<<16, 2, 50), Commit: 9})
	turns(l)
	for i := partition.Index(0); i <= 11; i++ {
		n, err := l.BaseAt(1, i)
		if i < 3 || i > 10 {
			if !errors.Is(err, partition.ErrNotFound) {
				t.Fatalf("at %d: %+v, %v", i, n, err)
			}
			continue
		}
		want := config(1, 1)
		if i >= 8 {
			want = member
		}
		if err != nil || n.Base != c.all[i-1].Position() || n.BaseSum != c.all[i-1].Checksum() || string(n.Configuration) != string(want) {
			t.Fatalf("at %d: %+v, %v", i, n, err)
		}
	}
	if _, err := l.BaseAt(5, 1); !errors.Is(err, partition.ErrNotFound) {
		t.Fatal(err)
	}
}

// replaced drives the replacement of a damaged replica, and checks what a crash
// leaves at each moment.
type replaced struct {
	t    *testing.T
	what string
	fs   *memfs.FS
	c    *chain // of group 4, as the new replica must have it
	// together: the new replica comes in the batch in which the old one goes.
	together bool
	ops      int
	acked    int // 1: the drop, 2: the install, 3: its first records
	seen     map[string]int
}

// crash opens what is left; the damaged replica is still known as damaged, or
// gone, or there is the new one.
func (r *replaced) crash() {
	r.t.Helper()
	image := r.fs.Crash(uint64(r.ops), []float64{0, 1, 0.5}[r.ops%3])
	for round := range 3 { // what was found once is found again
		what := fmt.Sprintf("%s, crash %d, start %d", r.what, r.ops, round)
		l, rep, err := wal.Open(image, dir, options())
		if err != nil {
			r.t.Fatalf("%s: %v", what, err)
		}
		s, ok := l.Summary(4)
		at := ""
		switch {
		case !ok:
			at = "gone"
		case s.Replica <= 1: // 0: its name is lost, too
			at = "damaged"
		case s.Last == 50:
			at = "new"
		default:
			at = "grown"
		}
		switch {
		case at == "damaged" && s.Damage == nil, at != "damaged" && (s.Damage != nil || len(rep.Lost) > 0),
			r.acked == 3 && at != "grown", r.acked >= 2 && at == "gone", r.acked >= 1 && at == "damaged":
			r.t.Fatalf("%s: %s with %d acknowledged: %+v %+v", what, at, r.acked, s, rep)
		case at == "new", at == "grown":
			if s.Replica != 9 || s.Generation != 6 || s.Promise != 8<<16 || s.Before.Index > 50 {
				r.t.Fatalf("%s: %+v", what, s)
			}
			d := *r.c
			d.snip(s.Last)
			sameRecords(r.t, l, &d)
		}
		r.seen[at]++
		turns(l)
		image = image.Crash(1, 0)
	}
}

// run drops the damaged replica and brings up the new one.
func (r *replaced) run(l *wal.Log, others []*chain) {
	r.fs.OnOp(func(o memfs.Op) error {
		if o.Changes() {
			r.crash()
			r.ops++
		}
		return nil
	})
	defer r.fs.OnOp(nil)
	noise := func() {
		for _, d := range others {
			mustAppend(r.t, l, wal.Write{Group: d.g, Records: d.make(2<<16, 1, 6000)})
			l.SetFlushed(d.g, d.last, 0)
		}
	}
	done := func(n int) func(error) {
		return func(err error) {
			if err != nil {
				r.t.Fatal(err)
			}
			r.acked = n
		}
	}
	if err := l.Drop(4, done(1)); err != nil {
		r.t.Fatal(err)
	}
	if !r.together {
		noise()
		turns(l)
	}
	w := wal.Write{Group: 4, Replica: 9, Promise: 8 << 16, Install: r.c.base(50, 6)}
	if err := l.Append(w, done(2)); err != nil {
		r.t.Fatal(err)
	}
	noise()
	turns(l)
	if err := l.Append(wal.Write{Group: 4, Records: r.c.make(8<<16, 3, 500)}, done(3)); err != nil {
		r.t.Fatal(err)
	}
	for range 4 {
		noise()
		turns(l)
		l.Settle()
	}
	if r.acked != 3 {
		r.t.Fatalf("%s: %d acknowledged", r.what, r.acked)
	}
	sameRecords(r.t, l, r.c)
}

// TestDamagedReplicaIsReplaced: a replica that lost records to rot is dropped
// and comes back under a new id, with a state and a base of its own; or it was
// found damaged by a read. Whatever moment the power fails at, and a second and
// third start behind it, the loss of the old one is never put down to the new,
// and the old one never comes back as whole.
func TestDamagedReplicaIsReplaced(t *testing.T) {
	seen := map[string]int{}
	for name, at := range map[string]int64{"payload": 700, "last record": 900, "batch head": 20, "item length": 32 + 4} {
		fs, all := oneEach(t, 4, true)
		if err := fs.Flip(files(t, fs)[0], 5*4096+at, 1); err != nil {
			t.Fatal(err)
		}
		for _, together := range []bool{false, true} {
			fs := fs.Fork()
			l, rep := open(t, fs, options())
			if len(rep.Lost) != 1 || rep.Lost[0].Group != 4 {
				t.Fatalf("%s: %+v", name, rep)
			}
			var others []*chain
			for _, c := range all[:3] {
				d := *c
				others = append(others, &d)
			}
			r := &replaced{t: t, what: fmt.Sprint(name, ", together ", together), fs: fs, c: &chain{g: 4}, seen: seen, together: together}
			r.c.make(5<<16, 50, 40)
			r.run(l, others)
		}
	}
	fs, all := oneEach(t, 4, true)
	l, _ := open(t, fs, options())
	if err := fs.Flip(files(t, fs)[0], 5*4096+700, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Read(4, 1, 9, 1<<20); !errors.Is(err, partition.ErrCorrupt) {
		t.Fatalf("read: %v", err)
	}
	turns(l)
	r := &replaced{t: t, what: "found by a read", fs: fs, c: &chain{g: 4}, seen: seen}
	r.c.make(5<<16, 50, 40)
	r.run(l, all[:3])
	t.Logf("seen: %v", seen)
	for _, at := range []string{"damaged", "gone", "new", "grown"} {
		if seen[at] == 0 {
			t.Errorf("no crash left it %s: %v", at, seen)
		}
	}
}

// TestOldDamageIsNotTheNewReplicas: what rots of a replica that was dropped and
// replaced since costs the new one nothing, whether the drop is read, or is lost
// too and only the next state table shows that there is another replica.
func TestOldDamageIsNotTheNewReplicas(t *testing.T) {
	const oldRecords, drop, trailer = 5, 7, 15 // pages of the first segment
	for name, x := range map[string]struct {
		flips []int64
		next  bool // there is a further segment
	}{
		"old records":                   {[]int64{oldRecords}, false},
		"old records, no footer":        {[]int64{oldRecords, trailer}, true},
		"old records, drop, no footer":  {[]int64{oldRecords, drop, trailer}, true},
		"old records, which nobody saw": {[]int64{oldRecords}, true},
	} {
		fs := memfs.New(1)
		l, _ := open(t, fs, options())
		first := &chain{g: 1}
		for g := range partition.GroupID(4) {
			c := &chain{g: g + 1}
			mustAppend(t, l, wal.Write{Group: c.g, Replica: 1, Records: c.make(1<<16, 2, 500)})
			turns(l)
			if g == 0 {
				first = c
			}
		}
		l.Settle()
		if err := l.Drop(4, nil); err != nil {
			t.Fatal(err)
		}
		turns(l)
		c := &chain{g: 4}
		c.make(3<<16, 9, 20)
		mustAppend(t, l, wal.Write{Group: 4, Replica: 3, Install: c.base(9, 2), Records: c.make(3<<16, 2, 20)})
		turns(l)
		for l.Settle(); x.next && l.Stats().Segments == 1; turns(l) {
			mustAppend(t, l, wal.Write{Group: 1, Records: first.make(1<<16, 1, 3500)})
		}
		l.Settle()
		for _, page := range x.flips {
			off := page*4096 + 30 // within the first item, or the trailer
			if page == oldRecords {
				off += 600
			}
			if err := fs.Flip(files(t, fs)[0], off, 1); err != nil {
				t.Fatal(err)
			}
		}
		l, rep := open(t, fs, options())
		if scanned := !x.next || len(x.flips) > 1; rep.Rot != scanned || len(rep.Lost) > 0 {
			t.Fatalf("%s: %+v", name, rep)
		}
		sameRecords(t, l, c)
		sameRecords(t, l, first)
	}
}

// TestOlderStateNeedsItsRecordsAgain: what was flushed need not be any more when
// a state takes over that is older, and the search for a segment to let go must
// not go on where it stopped.
func TestOlderStateNeedsItsRecordsAgain(t *testing.T) {
	fs := memfs.New(1)
	l, _ := open(t, fs, options())
	c, d := &chain{g: 1}, &chain{g: 2}
	mustAppend(t, l, wal.Write{Group: 1, Replica: 1, Generation: 1, Records: c.make(1<<16, 8, 100), Commit: 8})
	mustAppend(t, l, wal.Write{Group: 2, Replica: 1, Generation: 1, Records: d.make(1<<16, 1, 100)})
	l.SetFlushed(1, 8, 1)
	for range 30 {
		mustAppend(t, l, wal.Write{Group: 2, Records: d.make(1<<16, 1, 7000)})
		turns(l)
	}
	if l.Stats().Recycled > 0 {
		t.Fatal("the second group did not hold the first segment")
	}
	mustAppend(t, l, wal.Write{Group: 1, Install: c.base(3, 2)})
	turns(l)
	l.SetFlushed(2, d.last, 1)
	turns(l)
	if s, _ := l.Summary(1); s.First > 4 || s.Flushed != 3 || l.Stats().Recycled > 0 {
		t.Fatalf("%+v", s)
	}
	sameRecords(t, l, c)
	l.SetFlushed(1, 8, 2)
	if turns(l); l.Stats().Recycled == 0 {
		t.Fatal("nothing is let go")
	}
}
