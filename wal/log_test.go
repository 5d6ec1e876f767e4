package wal_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pando.dev/pando/partition"
	"pando.dev/pando/wal"
	"pando.dev/pando/wal/memfs"
)

const dir = "data/wal"

// zeros is the source of the log's secret in tests.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 7
	}
	return len(b), nil
}

// options are those of a small log that a test drives by hand.
func options() wal.Options {
	return wal.Options{
		Node: "n1", SegmentBytes: 64 << 10, Spares: 1, Manual: true, Rand: zeros{},
		Fatal: func(error) {},
	}
}

func open(t testing.TB, fs wal.FS, o wal.Options) (*wal.Log, *wal.Report) {
	t.Helper()
	l, r, err := wal.Open(fs, dir, o)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return l, r
}

// chain makes the records of a group, each chained to the one before.
type chain struct {
	g    partition.GroupID
	last partition.Index
	sum  uint32
	all  []partition.Record // all[i] has index i+1
}

func (c *chain) make(epoch partition.Epoch, n, size int) []partition.Record {
	var out []partition.Record
	for range n {
		payload := []byte(strings.Repeat(fmt.Sprintf("%s/%d;", c.g, c.last+1), size/5+1)[:size])
		r := partition.NewRecord(partition.Header{Group: c.g, Index: c.last + 1, Epoch: epoch, Prev: c.sum, Kind: partition.KindCommand}, payload)
		c.all = append(c.all, r)
		out = append(out, r)
		c.last, c.sum = r.Index(), r.Checksum()
	}
	return out
}

// snip forgets the records behind i.
func (c *chain) snip(i partition.Index) {
	c.all = c.all[:i]
	c.last, c.sum = i, 0
	if i > 0 {
		c.sum = c.all[i-1].Checksum()
	}
}

func mustAppend(t testing.TB, l *wal.Log, w wal.Write) {
	t.Helper()
	if err := l.Append(w, nil); err != nil {
		t.Fatalf("append: %v", err)
	}
}

func turns(l *wal.Log) {
	for l.Turn() {
	}
}

// sameRecords checks that the log has exactly the chain's records from first on.
func sameRecords(t testing.TB, l *wal.Log, c *chain) {
	t.Helper()
	s, ok := l.Summary(c.g)
	if !ok {
		t.Fatalf("%s is not in the log", c.g)
	}
	if s.Last != c.last || s.LastSum != c.sum {
		t.Fatalf("%s ends at %d (%08x), want %d (%08x)", c.g, s.Last, s.LastSum, c.last, c.sum)
	}
	var got []partition.Record
	for i := s.First; i <= s.Last; {
		some, err := l.Read(c.g, i, s.Last, 4096)
		if err != nil {
			t.Fatalf("read %s from %d: %v", c.g, i, err)
		}
		got = append(got, some...)
		i += partition.Index(len(some))
	}
	want := c.all[s.First-1 : c.last]
	if !slices.EqualFunc(got, want, func(a, b partition.Record) bool { return slices.Equal(a, b) }) {
		t.Fatalf("%s: read %d records that differ from the %d written", c.g, len(got), len(want))
	}
}

func TestAppendReadReopen(t *testing.T) {
	fs := memfs.New(1)
	l, rep := open(t, fs, options())
	if !rep.Fresh {
		t.Fatal("a new log is not reported as fresh")
	}
	a, b := &chain{g: 1}, &chain{g: 2}
	var acked []string
	done := func(name string) func(error) {
		return func(err error) { acked = append(acked, fmt.Sprint(name, err)) }
	}
	for i := range 40 {
		for _, c := range []*chain{a, b} {
			w := wal.Write{Group: c.g, Replica: 1, Promise: 1 << 16, Records: c.make(1<<16, 3, 100)}
			if err := l.Append(w, done(fmt.Sprint(c.g, i))); err != nil {
				t.Fatal(err)
			}
		}
		sameRecords(t, l, a) // not yet durable
		if i%3 == 0 {
			turns(l)
		}
	}
	turns(l)
	if len(acked) != 80 || acked[0] != "g1 0<nil>" && acked[0] != "g10<nil>" {
		t.Fatalf("%d done calls, first %q", len(acked), acked[0])
	}
	sameRecords(t, l, a)
	sameRecords(t, l, b)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(wal.Write{Group: 1, Promise: 2 << 16}, nil); !errors.Is(err, wal.ErrClosed) {
		t.Fatalf("append after close: %v", err)
	}
	l, rep = open(t, fs, options())
	if rep.Fresh || rep.Rot || rep.TornBytes != 0 || len(rep.Notes) != 0 {
		t.Fatalf("report of a clean log: %+v", rep)
	}
	sameRecords(t, l, a)
	sameRecords(t, l, b)
	for g, h := range l.Groups() {
		if h.Replica != 1 || h.Promise != 1<<16 {
			t.Fatalf("%s: hard state %+v", g, h)
		}
	}
}

// TestRealFiles runs the log as a node does: on the disk of the machine, with
// its goroutines.
func TestRealFiles(t *testing.T) {
	d := t.TempDir()
	o := wal.Options{Node: "n1", SegmentBytes: 1 << 20, Spares: 1}
	c := &chain{g: 9}
	for round := range 3 {
		l, rep, err := wal.Open(wal.OS{}, d, o)
		if err != nil {
			t.Fatal(err)
		}
		if rep.Fresh != (round == 0) || rep.Rot || len(rep.Notes) > 0 {
			t.Fatalf("round %d: %+v", round, rep)
		}
		if round > 0 {
			sameRecords(t, l, c)
		}
		acks := make(chan error, 100)
		for range 100 {
			if err := l.Append(wal.Write{Group: 9, Replica: 3, Records: c.make(1<<16, 10, 1000)}, func(err error) { acks <- err }); err != nil {
				t.Fatal(err)
			}
		}
		for range 100 {
			if err := <-acks; err != nil {
				t.Fatal(err)
			}
		}
		sameRecords(t, l, c)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
