package wal_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pando.dev/pando/partition"
	"pando.dev/pando/wal"
	"pando.dev/pando/wal/memfs"
)

// filled makes a log of several segments in which everything is acknowledged
// and proven, and returns its files and its twin.
func filled(t testing.TB, seed uint64, steps int) (*memfs.FS, *workload) {
	t.Helper()
	fs, w := memfs.New(seed), newWorkload(seed)
	l, _ := open(t, fs, options())
	for i := range steps {
		if i == steps*2/3 { // with an end that was cut by a crash
			turns(l)
			l, _ = open(t, fs, options())
		}
		s := w.write()
		err := error(nil)
		if s.drop {
			err = l.Drop(s.w.Group, nil)
		} else {
			err = l.Append(s.w, nil)
		}
		if err != nil {
			t.Fatalf("step %d of %s: %v", i, s.w.Group, err)
		}
		if w.rand.IntN(2) == 0 {
			l.Turn()
		}
		if w.rand.IntN(5) == 0 {
			w.flush(l)
		}
	}
	turns(l)
	l.Settle()
	return fs.Crash(1, 0), w
}

// files returns the names of the log's segments, oldest first.
func files(t testing.TB, fs *memfs.FS) []string {
	t.Helper()
	all, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	all = slices.DeleteFunc(all, func(s string) bool { return !strings.HasSuffix(s, ".wal") })
	for i := range all {
		all[i] = dir + "/" + all[i]
	}
	return all
}

// honest checks a log after damage: each group is either what the twin says, or
// it is quarantined and named in the report, or a read says so. It returns how
// many are whole.
func honest(w *workload, l *wal.Log, rep *wal.Report) (whole int, complaint string) {
	named := map[partition.GroupID]bool{}
	for _, x := range rep.Lost {
		named[x.Group] = true
	}
	for id, x := range w.twin {
		s, ok := l.Summary(id)
		switch {
		case !ok:
			return 0, fmt.Sprintf("%s is silently gone", id)
		case s.Damage != nil:
			if !named[id] {
				return 0, fmt.Sprintf("%s is quarantined but not in the report", id)
			}
			if err := l.Append(wal.Write{Group: id, Promise: 1 << 50}, nil); partition.CodeOf(err) != partition.CodeCorrupt {
				return 0, fmt.Sprintf("an append to the quarantined %s gives %v", id, err)
			}
			continue
		}
		d := x.differs(l, &s)
		if strings.Contains(d, "not_found") { // a bad record that the state has moves the start
			s, _ = l.Summary(id)
			d = x.differs(l, &s)
		}
		if d != "" && !strings.Contains(d, "corrupt") {
			return 0, fmt.Sprintf("%s: %s", id, d)
		}
		whole++
	}
	for id := range l.Groups() {
		if s, _ := l.Summary(id); w.twin[id] == nil && s.Damage == nil {
			return 0, fmt.Sprintf("%s came back", id)
		}
	}
	return whole, ""
}

// TestOneBadByte flips a bit here and there in a log that was synced and proven,
// and reads everything back: nothing that was acknowledged is ever lost in
// silence, whatever the byte (RELIABILITY D4, D5).
func TestOneBadByte(t *testing.T) {
	for seed := range uint64(3) {
		fs, w := filled(t, seed, 120)
		r := rand.New(rand.NewPCG(seed, 2))
		whole, flips, refused, all := 0, 0, 0, 0
		for _, name := range files(t, fs) {
			b, _ := fs.ReadFile(name)
			for off := r.IntN(50); off < len(b); off += 1 + r.IntN(400) {
				c := fs.Crash(1, 0)
				if err := c.Flip(name, int64(off), 1<<r.IntN(8)); err != nil {
					t.Fatal(err)
				}
				flips++
				l, rep, err := wal.Open(c, dir, options())
				if err != nil {
					if code := partition.CodeOf(err); code != partition.CodeCorrupt && code != partition.CodeNewerFormat {
						t.Fatalf("seed %d, %s at %d: open: %v", seed, name, off, err)
					}
					refused++
					continue
				}
				n, complaint := honest(w, l, rep)
				if complaint != "" {
					t.Fatalf("seed %d, %s at %d: %s (%+v)", seed, name, off, complaint, rep)
				}
				whole += n
				all += len(w.twin)
			}
		}
		t.Logf("seed %d: %d flips, open refused %d times, %d of %d groups whole", seed, flips, refused, whole, all)
		if refused > 0 || whole*10 < all*9 {
			t.Errorf("seed %d: too much is given up for one bad byte", seed)
		}
	}
}

// TestLostPages replaces a whole page, or several, by zeros. It spares the last
// batch of the log when it takes several: that the end is missing together with
// the proof that it was synced cannot be told from a torn tail.
func TestLostPages(t *testing.T) {
	for seed := range uint64(3) {
		fs, w := filled(t, seed, 120)
		for pages := 1; pages <= 3; pages += 2 {
			for i, name := range files(t, fs) {
				b, _ := fs.ReadFile(name)
				end := len(b)
				if i == len(files(t, fs))-1 && pages > 1 {
					end = lastBatch(t, name, b) - (pages-1)*4096
				}
				for off := 0; off < end; off += 4096 {
					lost := slices.Clone(b)
					clear(lost[off:min(off+pages*4096, len(b))])
					c := fs.Crash(1, 0)
					c.WriteFile(name, lost)
					l, rep, err := wal.Open(c, dir, options())
					if err != nil {
						t.Fatalf("seed %d, %d pages of %s at %d: open: %v", seed, pages, name, off, err)
					}
					if _, complaint := honest(w, l, rep); complaint != "" {
						t.Fatalf("seed %d, %d pages of %s at %d: %s (%+v)", seed, pages, name, off, complaint, rep)
					}
				}
			}
		}
	}
}

// lastBatch returns the offset of the last batch of a segment; behind it may be
// those of an earlier use of the file.
func lastBatch(t *testing.T, name string, b []byte) int {
	var number uint64
	if _, err := fmt.Sscanf(name, dir+"/%d.wal", &number); err != nil {
		t.Fatal(err)
	}
	for off := len(b) - 4096; off > 0; off -= 4096 {
		if string(b[off:off+4]) == "PNTB" && binary.LittleEndian.Uint64(b[off+24:]) == number {
			return off
		}
	}
	return 0
}

// oneEach makes a log of one segment with one batch per group and record.
func oneEach(t *testing.T, groups int, settle bool) (*memfs.FS, []*chain) {
	t.Helper()
	fs := memfs.New(1)
	l, _ := open(t, fs, options())
	var all []*chain
	for i := range groups {
		c := &chain{g: partition.GroupID(i + 1)}
		all = append(all, c)
		mustAppend(t, l, wal.Write{Group: c.g, Replica: 1, Promise: 1 << 16, Records: c.make(1<<16, 2, 500)})
		turns(l)
	}
	if settle {
		l.Settle()
	}
	return fs.Crash(1, 0), all
}

// TestTornTail: a batch that was being written when the power went is cut, and
// was never acknowledged; what was is there.
func TestTornTail(t *testing.T) {
	fs, all := oneEach(t, 4, false)
	name := files(t, fs)[0]
	// The fourth batch is at page 2+3; without a valid one behind it, damage to
	// it is a torn write.
	if err := fs.Flip(name, 5*4096+700, 1); err != nil {
		t.Fatal(err)
	}
	l, rep := open(t, fs, options())
	if rep.Rot || rep.TornBytes != 4096 || len(rep.Lost) != 0 {
		t.Fatalf("report %+v", rep)
	}
	for _, c := range all[:3] {
		sameRecords(t, l, c)
	}
	if _, ok := l.Summary(4); ok {
		t.Fatal("half a write is in the log")
	}
}

// TestRotIsNotCut: the same damage, once an empty batch has followed, is rot: it
// is reported, and only the group that it hit is quarantined, for good.
func TestRotIsNotCut(t *testing.T) {
	for name, at := range map[string]int64{"payload": 700, "last record": 900, "batch head": 20, "item length": 32 + 4} {
		t.Run(name, func(t *testing.T) {
			fs, all := oneEach(t, 4, true)
			if err := fs.Flip(files(t, fs)[0], 5*4096+at, 1); err != nil {
				t.Fatal(err)
			}
			l, rep := open(t, fs, options())
			if !rep.Rot || rep.TornBytes != 0 || len(rep.Lost) != 1 || rep.Lost[0].Group != 4 || len(rep.LostBatches) != 1 {
				t.Fatalf("report %+v", rep)
			}
			for range 3 { // and it stays so
				for _, c := range all[:3] {
					sameRecords(t, l, c)
					mustAppend(t, l, wal.Write{Group: c.g, Records: c.make(2<<16, 1, 10)})
				}
				s, ok := l.Summary(4)
				if !ok || s.Damage == nil {
					t.Fatalf("summary %+v %v", s, ok)
				}
				if err := l.Append(wal.Write{Group: 4, Promise: 5 << 16}, nil); !errors.Is(err, partition.ErrCorrupt) {
					t.Fatalf("append: %v", err)
				}
				if _, err := l.Read(4, 1, 2, 100); !errors.Is(err, partition.ErrCorrupt) {
					t.Fatalf("read: %v", err)
				}
				turns(l)
				fs = fs.Crash(1, 0)
				l, rep = open(t, fs, options())
				if rep.Rot {
					t.Fatal("reported anew")
				}
			}
			if err := l.Drop(4, nil); err != nil {
				t.Fatal(err)
			}
			c := &chain{g: 4}
			mustAppend(t, l, wal.Write{Group: 4, Replica: 2, Records: c.make(1<<16, 3, 10)})
			turns(l)
			sameRecords(t, l, c)
		})
	}
}

// TestRotUnderRead: damage in a sealed segment is found by the read that meets
// it.
func TestRotUnderRead(t *testing.T) {
	for _, flushed := range []bool{false, true} {
		fs := memfs.New(1)
		l, _ := open(t, fs, options())
		c, d := &chain{g: 1}, &chain{g: 2}
		for range 40 {
			mustAppend(t, l, wal.Write{Group: 1, Replica: 1, Records: c.make(1<<16, 2, 900)})
			mustAppend(t, l, wal.Write{Group: 2, Replica: 1, Records: d.make(1<<16, 1, 900)})
			turns(l)
		}
		if flushed {
			l.Retain(1, 1)
			l.Retain(2, 1)
			l.SetFlushed(1, 80, 0)
		}
		b, _ := fs.ReadFile(files(t, fs)[0])
		at := strings.Index(string(b), "g1/7;")
		if at < 0 {
			t.Fatal("record 7 is not where it should be")
		}
		if err := fs.Flip(files(t, fs)[0], int64(at), 4); err != nil {
			t.Fatal(err)
		}
		l, rep := open(t, fs, options())
		if rep.Rot || len(rep.Notes) > 0 {
			t.Fatalf("report %+v", rep)
		}
		if flushed {
			l.SetFlushed(1, 80, 0)
		}
		if _, err := l.Read(1, 1, 10, 1<<20); !errors.Is(err, partition.ErrCorrupt) {
			t.Fatalf("read: %v", err)
		}
		s, _ := l.Summary(1)
		if flushed {
			if s.Damage != nil || s.First != 8 || s.Before.Index != 7 {
				t.Fatalf("the state has record 7, but: %+v", s)
			}
			if len(s.Runs) == 0 || s.Runs[0].First != s.First { // or no replica starts from it
				t.Fatalf("the log begins at %d, its runs are %+v", s.First, s.Runs)
			}
			sameRecords(t, l, c)
		} else if s.Damage == nil || s.Damage.From != 7 {
			t.Fatalf("not quarantined: %+v", s)
		}
		sameRecords(t, l, d)
		turns(l)
		l, _ = open(t, fs.Crash(1, 0), options())
		if s, _ := l.Summary(1); (s.Damage == nil) != flushed {
			t.Fatalf("after a restart: %+v", s)
		}
	}
}

// TestPayloadIsNoBatch: a client writes a value that holds the image of a later
// batch, on the grid, with the right numbers and an unkeyed checksum. When the
// batch around it is torn, it must not pass for a valid one, which would make
// the tear look like rot and smuggle its records in.
func TestPayloadIsNoBatch(t *testing.T) {
	fs := memfs.New(1)
	l, _ := open(t, fs, options())
	c := &chain{g: 1}
	mustAppend(t, l, wal.Write{Group: 1, Replica: 1, Records: c.make(1<<16, 1, 100)})
	turns(l)
	forged := partition.NewRecord(partition.Header{Group: 1, Index: 2, Epoch: 9 << 16, Prev: c.sum, Kind: partition.KindCommand}, []byte("forged"))
	le := binary.LittleEndian
	fake := le.AppendUint32(nil, 0x4254_4e50)
	fake = le.AppendUint32(fake, 0)
	fake = le.AppendUint32(fake, uint32(len(forged)))
	fake = le.AppendUint32(fake, 1)
	fake = le.AppendUint64(fake, 4) // the batch after the one that carries it
	fake = le.AppendUint64(fake, 1)
	fake = append(fake, forged...)
	le.PutUint32(fake[4:], partition.Checksum(fake[8:]))
	// Head and record header are before the payload: 72 bytes.
	payload := append(make([]byte, 4096-72), fake...)
	r := partition.NewRecord(partition.Header{Group: 1, Index: 2, Epoch: 1 << 16, Prev: c.sum, Kind: partition.KindCommand}, payload)
	mustAppend(t, l, wal.Write{Group: 1, Records: []partition.Record{r}})
	turns(l)
	image := fs.Crash(1, 0)
	name := files(t, image)[0]
	b, _ := image.ReadFile(name)
	if at := bytes.Index(b, fake); at < 0 || at%4096 != 0 {
		t.Fatalf("the image is at %d, not on the grid", at)
	}
	if err := image.Flip(name, 3*4096+200, 1); err != nil {
		t.Fatal(err)
	}
	l, rep := open(t, image, options())
	if rep.Rot || len(rep.Lost) > 0 || rep.TornBytes == 0 {
		t.Fatalf("report %+v", rep)
	}
	sameRecords(t, l, c)
}
