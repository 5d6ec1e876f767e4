package wal_test

import (
	"errors"
	"testing"

	"pando.dev/pando/partition"
	"pando.dev/pando/wal"
	"pando.dev/pando/wal/memfs"
)

// TestRefusals: what an owner must never ask for is refused with nothing taken.
// Numbers stay gap-free and are not used again once committed (NOT-2, NOT-4).
func TestRefusals(t *testing.T) {
	l, _ := open(t, memfs.New(1), options())
	c := &chain{g: 1}
	mustAppend(t, l, wal.Write{Group: 1, Replica: 2, Promise: 5 << 16, Records: c.make(5<<16, 4, 10), Commit: 2})
	rec := func(h partition.Header) []partition.Record {
		return []partition.Record{partition.NewRecord(h, []byte("x"))}
	}
	next := partition.Header{Group: 1, Index: 5, Epoch: 5 << 16, Prev: c.sum, Kind: partition.KindCommand}
	with := func(change func(*partition.Header)) []partition.Record {
		h := next
		change(&h)
		return rec(h)
	}
	short := append(partition.Record(nil), rec(next)[0]...)
	for name, w := range map[string]wal.Write{
		"no replica":          {Group: 9, Promise: 1 << 16},
		"other replica":       {Group: 1, Replica: 3},
		"older promise":       {Group: 1, Promise: 4 << 16},
		"gap":                 {Group: 1, Records: with(func(h *partition.Header) { h.Index = 6 })},
		"used number":         {Group: 1, Records: with(func(h *partition.Header) { h.Index = 4 })},
		"older epoch":         {Group: 1, Records: with(func(h *partition.Header) { h.Epoch = 4 << 16 })},
		"broken chain":        {Group: 1, Records: with(func(h *partition.Header) { h.Prev++ })},
		"other group":         {Group: 1, Records: with(func(h *partition.Header) { h.Group = 2 })},
		"local kind":          {Group: 1, Records: with(func(h *partition.Header) { h.Kind = partition.KindLocal })},
		"cut record":          {Group: 1, Records: []partition.Record{short[:40]}},
		"tiny record":         {Group: 1, Records: []partition.Record{short[:7]}},
		"snip of committed":   {Group: 1, Snip: true, After: 1},
		"snip behind the end": {Group: 1, Snip: true, After: 5},
		"commit of nothing":   {Group: 1, Commit: 5},
		"install of old":      {Group: 1, Install: &wal.Install{Base: partition.Position{Index: 1}}},
		"install without configuration": {
			Group: 1, Install: &wal.Install{Base: partition.Position{Index: 9}, Configuration: rec(next)[0]},
		},
		"first record not 1": {Group: 7, Replica: 1, Records: rec(partition.Header{Group: 7, Index: 2, Kind: partition.KindNoop})},
	} {
		if err := l.Append(w, func(error) { t.Errorf("%s: done was called", name) }); partition.CodeOf(err) != partition.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	turns(l)
	sameRecords(t, l, c)
	if _, ok := l.Summary(7); ok {
		t.Error("a refused write made a replica")
	}
	if err := l.Append(wal.Write{Group: 1, Records: c.make(5<<16, 1, 60<<10)}, nil); partition.CodeOf(err) != partition.CodeTooLarge {
		t.Errorf("a write over the segment: %v", err)
	}
	if err := l.Drop(8, nil); partition.CodeOf(err) != partition.CodeNotFound {
		t.Errorf("drop of nothing: %v", err)
	}
}

// TestBusy: what waits for the disk is bounded.
func TestBusy(t *testing.T) {
	o := options()
	o.QueueBytes = 10 << 10
	l, _ := open(t, memfs.New(1), o)
	c := &chain{g: 1}
	var err error
	n := 0
	for ; err == nil && n < 100; n++ {
		before := *c
		if err = l.Append(wal.Write{Group: 1, Replica: 1, Records: c.make(1<<16, 1, 1000)}, nil); err != nil {
			*c = before
		}
	}
	if !errors.Is(err, wal.ErrBusy) || n < 8 || n > 11 {
		t.Fatalf("append %d: %v", n, err)
	}
	turns(l)
	mustAppend(t, l, wal.Write{Group: 1, Records: c.make(1<<16, 1, 1000)})
	sameRecords(t, l, c)
}

// TestManyReplicas: state tables may not eat the segments up.
func TestManyReplicas(t *testing.T) {
	l, _ := open(t, memfs.New(1), options())
	var err error
	n := 0
	for ; err == nil && n < 1000; n++ {
		err = l.Append(wal.Write{Group: partition.GroupID(n + 1), Replica: 1, Promise: 1 << 16}, nil)
		turns(l)
	}
	if partition.CodeOf(err) != partition.CodeTooLarge || n < 50 {
		t.Fatalf("replica %d: %v", n, err)
	}
	for g := range l.Groups() {
		mustAppend(t, l, wal.Write{Group: g, Promise: 2 << 16})
		turns(l)
	}
}

func TestReadBounds(t *testing.T) {
	l, _ := open(t, memfs.New(1), options())
	c := &chain{g: 1}
	for range 10 {
		mustAppend(t, l, wal.Write{Group: 1, Replica: 1, Records: c.make(1<<16, 5, 960)}) // 1000 B each
		l.Turn()
	}
	mustAppend(t, l, wal.Write{Group: 1, Records: c.make(2<<16, 5, 960)})
	for _, x := range []struct {
		from, to partition.Index
		max      int
		want     int
	}{
		{1, 55, 1, 1}, {1, 55, 2000, 2}, {1, 55, 2999, 2}, {1, 55, 1 << 20, 55}, {48, 52, 1 << 20, 5}, {55, 900, 1 << 20, 1},
		{50, 50, 0, 1}, {9, 8, 100, 0},
	} {
		got, err := l.Read(1, x.from, x.to, x.max)
		if err != nil || len(got) != x.want || len(got) > 0 && got[0].Index() != x.from {
			t.Errorf("read %d to %d, %d bytes: %d records, %v", x.from, x.to, x.max, len(got), err)
		}
	}
	for _, from := range []partition.Index{0, 56} {
		if _, err := l.Read(1, from, 99, 100); !errors.Is(err, partition.ErrNotFound) {
			t.Errorf("read from %d: %v", from, err)
		}
	}
	if _, err := l.Read(2, 1, 1, 100); !errors.Is(err, partition.ErrNotFound) {
		t.Errorf("read of nothing: %v", err)
	}
}

// TestSnip: what was snipped never comes back, also when the same number is
// used again in the same epoch's run, and before and after a restart
// (RELIABILITY L3).
func TestSnip(t *testing.T) {
	fs := memfs.New(1)
	l, _ := open(t, fs, options())
	c := &chain{g: 1}
	mustAppend(t, l, wal.Write{Group: 1, Replica: 1, Promise: 1 << 16, Records: c.make(1<<16, 9, 100)})
	l.Turn()
	c.snip(6)
	mustAppend(t, l, wal.Write{Group: 1, Promise: 2 << 16, Snip: true, After: 6})
	sameRecords(t, l, c)
	mustAppend(t, l, wal.Write{Group: 1, Records: c.make(1<<16, 1, 33)}) // again of epoch 1
	mustAppend(t, l, wal.Write{Group: 1, Snip: true, After: 7})          // nothing to remove
	c.snip(3)
	mustAppend(t, l, wal.Write{Group: 1, Promise: 3 << 16, Snip: true, After: 3, Records: c.make(3<<16, 2, 77)})
	for range 2 {
		sameRecords(t, l, c)
		s, _ := l.Summary(1)
		if len(s.Runs) != 2 || s.Runs[1] != (wal.Run{Epoch: 3 << 16, First: 4}) || s.Promise != 3<<16 {
			t.Fatalf("summary %+v", s)
		}
		turns(l)
		l, _ = open(t, fs.Crash(1, 0), options())
	}
	c.snip(0)
	mustAppend(t, l, wal.Write{Group: 1, Promise: 4 << 16, Snip: true, After: 0})
	turns(l)
	if s, _ := l.Summary(1); s.First != 1 || s.Last != 0 || s.LastSum != 0 || len(s.Runs) != 0 {
		t.Fatalf("an emptied log: %+v", s)
	}
}

// TestTruncation: a segment goes when no state needs it and no peer wants it;
// over the soft cap peers are not asked; the log says who holds it up.
func TestTruncation(t *testing.T) {
	fs := memfs.New(1)
	o := options()
	o.SoftCapBytes = 6 * 64 << 10
	l, _ := open(t, fs, o)
	hot, cold := &chain{g: 1}, &chain{g: 2}
	mustAppend(t, l, wal.Write{Group: 2, Replica: 1, Records: cold.make(1<<16, 3, 100)})
	write := func(n int) {
		for range n {
			mustAppend(t, l, wal.Write{Group: 1, Replica: 1, Records: hot.make(1<<16, 1, 7000)})
			turns(l)
			l.SetFlushed(1, hot.last, 0)
		}
	}
	write(35)
	if s := l.Stats(); s.Recycled != 0 || !s.Pinned {
		t.Fatalf("with an unflushed replica: %+v", s)
	}
	if pins := l.Pins(9); len(pins) != 1 || pins[0] != 2 {
		t.Fatalf("pinned by %v", pins)
	}
	l.SetFlushed(2, 3, 0)
	turns(l)
	if s := l.Stats(); s.Recycled == 0 || s.Segments != 2 || s.Pinned || s.Spares > 3 {
		t.Fatalf("after the flush: %+v", s)
	}
	s, _ := l.Summary(2)
	if s.First != 4 || s.Last != 3 || s.Before != (partition.Position{Index: 3, Epoch: 1 << 16}) || s.LastSum != cold.sum {
		t.Fatalf("a log that is all flushed: %+v", s)
	}
	from, _ := l.Summary(1)
	l.Retain(1, from.First)
	write(20)
	if now, _ := l.Summary(1); now.First != from.First {
		t.Fatalf("peers wanted %d, the log begins at %d", from.First, now.First)
	}
	write(40)
	if now, _ := l.Summary(1); now.First == from.First || l.Stats().LogBytes > o.SoftCapBytes {
		t.Fatalf("over the cap: first %d, %d bytes", now.First, l.Stats().LogBytes)
	}
	sameRecords(t, l, hot)
	l, _ = open(t, fs.Crash(1, 0), o)
	sameRecords(t, l, hot)
	sameRecords(t, l, cold)
	mustAppend(t, l, wal.Write{Group: 2, Records: cold.make(1<<16, 1, 10)})
	sameRecords(t, l, cold)
}

// TestVoidRecordsAreKeptUntilThatIsDurable: a snip, a drop or an install makes
// records void, but a segment that holds them goes only when that is durable.
// Otherwise a crash in between would leave a log that begins behind records
// which its state does not have.
func TestVoidRecordsAreKeptUntilThatIsDurable(t *testing.T) {
	config := partition.NewRecord(partition.Header{Group: 1, Index: 9, Kind: partition.KindMember}, []byte("c"))
	for name, void := range map[string]func(l *wal.Log) error{
		"snip": func(l *wal.Log) error { return l.Append(wal.Write{Group: 1, Snip: true, After: 2}, nil) },
		"drop": func(l *wal.Log) error { return l.Drop(1, nil) },
		"install": func(l *wal.Log) error {
			return l.Append(wal.Write{Group: 1, Install: &wal.Install{Base: partition.Position{Index: 9}, Configuration: config}}, nil)
		},
	} {
		fs := memfs.New(1)
		o := options()
		o.BatchBytes = 1024
		l, _ := open(t, fs, o)
		c, d := &chain{g: 1}, &chain{g: 2}
		mustAppend(t, l, wal.Write{Group: 1, Replica: 1, Records: c.make(1<<16, 6, 100), Commit: 2})
		l.SetFlushed(1, 2, 0)
		for range 30 {
			mustAppend(t, l, wal.Write{Group: 2, Replica: 1, Records: d.make(1<<16, 1, 7000)})
			turns(l)
			l.SetFlushed(2, d.last, 0)
		}
		for range 10 { // batches before, enough for a new segment
			mustAppend(t, l, wal.Write{Group: 2, Records: d.make(1<<16, 1, 7000)})
		}
		if err := void(l); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for range 10 {
			l.Turn()
		}
		l.SetFlushed(1, 2, 0)
		after, _ := open(t, fs.Crash(1, 0), options())
		sameRecords(t, after, c)
		if s, _ := after.Summary(1); s.First != 1 || s.Flushed > 2 {
			t.Fatalf("%s: %+v", name, s)
		}
		turns(l)
		if l.Stats().Recycled == 0 {
			t.Fatalf("%s: nothing was recycled in the end", name)
		}
	}
}

// TestHotPathAllocates nothing per record.
func TestHotPathAllocates(t *testing.T) {
	o := options()
	o.SegmentBytes = 64 << 20
	l, _ := open(t, memfs.New(1), o)
	c := &chain{g: 1}
	mustAppend(t, l, wal.Write{Group: 1, Replica: 1, Promise: 1 << 16})
	all := c.make(1<<16, 3000, 128)
	done := func(error) {}
	n := testing.AllocsPerRun(20, func() {
		for range 100 {
			if err := l.Append(wal.Write{Group: 1, Promise: 1 << 16, Records: all[:1]}, done); err != nil {
				t.Fatal(err)
			}
			all = all[1:]
		}
		l.Turn()
	})
	if n > 10 { // per batch: the disk in memory, an entry now and then
		t.Fatalf("%v allocations per 100 records", n)
	}
}

// afterRead is a file system that calls f after every read of a file.
type afterRead struct {
	*memfs.FS
	f func()
}

type afterReadFile struct {
	wal.File
	fs *afterRead
}

func (a *afterRead) Open(name string) (wal.File, error) {
	f, err := a.FS.Open(name)
	return &afterReadFile{f, a}, err
}

func (f *afterReadFile) ReadAt(b []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(b, off)
	if f.fs.f != nil {
		f.fs.f()
	}
	return n, err
}

// TestReadBesideWrite: a batch becomes durable in the middle of a read that
// began when it was not.
func TestReadBesideWrite(t *testing.T) {
	fs := &afterRead{FS: memfs.New(1)}
	o := options()
	o.BatchBytes = 1024 // each write gets a batch of its own
	l, _ := open(t, fs, o)
	c := &chain{g: 1}
	for range 3 {
		for range 4 {
			mustAppend(t, l, wal.Write{Group: 1, Replica: 1, Records: c.make(1<<16, 2, 700)})
		}
		l.Turn()
		fs.f = func() { l.Turn() }
		sameRecords(t, l, c)
		fs.f = nil
	}
}
