package wal_test

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/wal"
	"pando.dev/pando/wal/memfs"
)

var errDisk = errors.New("input/output error")

// TestPoison: a failed write or sync fails everything that waits, tells the
// owner once, and nothing is written or synced ever again (RELIABILITY D7).
func TestPoison(t *testing.T) {
	for _, kind := range []memfs.Kind{memfs.Write, memfs.Sync} {
		t.Run(kind.String(), func(t *testing.T) {
			fs := memfs.New(1)
			o := options()
			var fatal []error
			o.Fatal = func(err error) { fatal = append(fatal, err) }
			l, _ := open(t, fs, o)
			c := &chain{g: 1}
			mustAppend(t, l, wal.Write{Group: 1, Replica: 1, Promise: 1 << 16, Records: c.make(1<<16, 3, 50)})
			turns(l)
			after, failed := 0, false
			fs.OnOp(func(op memfs.Op) error {
				if failed && op.Changes() {
					after++
				}
				if op.Kind == kind {
					failed = true
					return errDisk
				}
				return nil
			})
			var got []error
			whole := *c
			for range 3 {
				if err := l.Append(wal.Write{Group: 1, Records: c.make(1<<16, 1, 50)}, func(err error) { got = append(got, err) }); err != nil {
					t.Fatal(err)
				}
			}
			turns(l)
			l.Settle()
			turns(l)
			if len(got) != 3 || len(fatal) != 1 || !errors.Is(fatal[0], errDisk) {
				t.Fatalf("done %v, fatal %v", got, fatal)
			}
			for _, err := range got {
				if !errors.Is(err, wal.ErrPoisoned) || partition.CodeOf(err) != partition.CodeUnknown {
					t.Fatalf("a waiting append got %v", err)
				}
			}
			err := l.Append(wal.Write{Group: 1, Promise: 9 << 16}, nil)
			if !errors.Is(err, wal.ErrPoisoned) || partition.CodeOf(err) != partition.CodeUnavailable {
				t.Fatalf("a later append got %v", err)
			}
			if _, err := l.Read(1, 1, 1, 100); !errors.Is(err, wal.ErrPoisoned) {
				t.Fatalf("a later read got %v", err)
			}
			if after != 0 {
				t.Fatalf("%d operations on the disk after the failure", after)
			}
			if !l.Stats().Poisoned {
				t.Fatal("not in the stats")
			}
			fs.OnOp(nil)
			l, _ = open(t, fs.Crash(1, 0), options())
			if s, _ := l.Summary(1); s.Last == 3 {
				sameRecords(t, l, &whole)
			} else if s.Last < 3 || s.Damage != nil {
				t.Fatalf("acknowledged records are gone: %+v", s)
			}
		})
	}
}

// TestFailedSyncIsBelievedFromDiskOnly: after a failed sync the cache may show
// a batch that the disk does not hold. A new start must not take it for
// durable: here a record that only the cache had would be acknowledged by
// telling of it, and then lost with the power.
func TestFailedSyncIsBelievedFromDiskOnly(t *testing.T) {
	for seed := range uint64(20) {
		fs := memfs.New(seed)
		l, _ := open(t, fs, options())
		c := &chain{g: 1}
		mustAppend(t, l, wal.Write{Group: 1, Replica: 1, Records: c.make(1<<16, 3, 900)})
		turns(l)
		fs.OnOp(func(op memfs.Op) error {
			if op.Kind == memfs.Sync {
				return errDisk
			}
			return nil
		})
		mustAppend(t, l, wal.Write{Group: 1, Records: c.make(1<<16, 3, 900)})
		turns(l)
		fs.OnOp(nil)
		l, _ = open(t, fs, options()) // the same machine, not rebooted
		told, _ := l.Summary(1)
		l, _ = open(t, fs.Crash(seed, 0), options())
		if got, err := l.Read(1, 1, told.Last, 1<<20); err != nil || len(got) != int(told.Last) {
			t.Fatalf("seed %d: told of record %d, the disk has %d (%v)", seed, told.Last, len(got), err)
		}
	}
}

// TestNoSpace: a host is told first that the disk is full, and records are
// refused later, before anything is written. Promises and reads go on, and it
// ends by itself.
func TestNoSpace(t *testing.T) {
	fs := memfs.New(1)
	fs.SetSpace(2<<20, 0)
	l, _ := open(t, fs, options())
	c := &chain{g: 1}
	mustAppend(t, l, wal.Write{Group: 1, Replica: 1, Records: c.make(1<<16, 3, 100)})
	turns(l)
	fs.SetSpace(2<<20, 2<<20-200<<10)
	turns(l)
	if !l.Full() {
		t.Fatal("the log does not tell that its disk is nearly full")
	}
	mustAppend(t, l, wal.Write{Group: 1, Records: c.make(1<<16, 1, 100)})
	turns(l)
	fs.SetSpace(2<<20, 2<<20-140<<10)
	turns(l)
	before := *c
	err := l.Append(wal.Write{Group: 1, Records: c.make(1<<16, 1, 100)}, nil)
	if !errors.Is(err, wal.ErrNoSpace) || !l.Stats().NoSpace {
		t.Fatalf("append on a full disk: %v", err)
	}
	*c = before
	sameRecords(t, l, c)
	mustAppend(t, l, wal.Write{Group: 1, Promise: 7 << 16})
	turns(l)
	fs.SetSpace(2<<20, 0)
	turns(l)
	mustAppend(t, l, wal.Write{Group: 1, Records: c.make(7<<16, 1, 100)})
	turns(l)
	sameRecords(t, l, c)
}

// TestReserve: on a full disk a write that may use the reserve is taken, with the
// promise that comes with it, until there is no space for a segment.
func TestReserve(t *testing.T) {
	fs := memfs.New(1)
	l, _ := open(t, fs, options())
	c := &chain{g: 1}
	mustAppend(t, l, wal.Write{Group: 1, Replica: 1, Records: c.make(1<<16, 3, 100)})
	turns(l)
	fs.SetSpace(2<<20, 2<<20-140<<10)
	turns(l)
	before := *c
	if err := l.Append(wal.Write{Group: 1, Records: c.make(1<<16, 1, 100)}, nil); !errors.Is(err, wal.ErrNoSpace) || !l.NoSpace() {
		t.Fatalf("append on a full disk: %v", err)
	}
	*c = before
	durable := false
	err := l.Append(wal.Write{Group: 1, Promise: 7 << 16, Records: c.make(7<<16, 1, 100), Reserve: true}, func(err error) { durable = err == nil })
	turns(l)
	if err != nil || !durable {
		t.Fatalf("append from the reserve: %v, durable %v", err, durable)
	}
	sameRecords(t, l, c)
	fs.SetSpace(1, 1)
	for range 40 {
		before = *c
		if err = l.Append(wal.Write{Group: 1, Records: c.make(7<<16, 1, 8000), Reserve: true}, nil); err != nil {
			*c = before
			break
		}
		turns(l)
	}
	if !errors.Is(err, wal.ErrNoSpace) {
		t.Fatalf("append when no segment can be made: %v", err)
	}
	fs.SetSpace(1<<20, 0)
	turns(l)
	if l.NoSpace() || l.Full() {
		t.Fatal("the log is full still, and has space")
	}
	sameRecords(t, l, c)
}

// TestLogDoesNotFillItsDisk: long before a disk that is smaller than the soft cap
// is full, the log asks for the flushes that it waits for, and gives up what only
// peers still want.
func TestLogDoesNotFillItsDisk(t *testing.T) {
	const disk = 4 << 20
	for _, why := range []string{"a state that was not flushed", "a peer that is away"} {
		t.Run(why, func(t *testing.T) {
			fs := memfs.New(1)
			fs.SetSpace(disk, 0)
			l, _ := open(t, fs, options())
			hot, cold := &chain{g: 1}, &chain{g: 2}
			mustAppend(t, l, wal.Write{Group: 2, Replica: 1, Records: cold.make(1<<16, 3, 100)})
			if why == "a peer that is away" {
				l.SetFlushed(2, 3, 0)
				l.Retain(2, 1)
			}
			for i := range 3 * disk / 7000 {
				if err := l.Append(wal.Write{Group: 1, Replica: 1, Records: hot.make(1<<16, 1, 7000)}, nil); err != nil || l.Full() {
					t.Fatalf("write %d: full %v, %v: %+v", i, l.Full(), err, l.Stats())
				}
				turns(l)
				l.SetFlushed(1, hot.last, 0)
				if l.Stats().Pinned {
					for _, g := range l.Pins(9) {
						l.SetFlushed(g, 3, 0) // as the host would
					}
				}
			}
			if s := l.Stats(); s.CapBytes > disk/2 || s.LogBytes > s.CapBytes+2*64<<10 {
				t.Fatalf("a disk of %d bytes: %+v", disk, s)
			}
			sameRecords(t, l, hot)
		})
	}
}

// TestNoSpaceForSegment: when not even a segment can be made, what was taken
// waits, unharmed, until there is space.
func TestNoSpaceForSegment(t *testing.T) {
	fs := memfs.New(1)
	o := options()
	o.DiskFree = func() (int64, int64, error) { return 1 << 40, 1 << 40, nil } // a quota is not seen
	fs.SetSpace(3*64<<10, 0)
	l, _ := open(t, fs, o)
	c := &chain{g: 1}
	acked := 0
	for {
		r := *c
		if err := l.Append(wal.Write{Group: 1, Replica: 1, Records: c.make(1<<16, 1, 8000)}, func(err error) {
			if err != nil {
				t.Errorf("done: %v", err)
			}
			acked++
		}); err != nil {
			*c = r
			if !errors.Is(err, wal.ErrNoSpace) {
				t.Fatal(err)
			}
			break
		}
		l.Turn()
	}
	if n := int(c.last); acked >= n {
		t.Fatalf("%d acknowledged of %d: nothing waits", acked, n)
	}
	sameRecords(t, l, c)
	fs.SetSpace(1<<20, 0)
	turns(l)
	if acked != int(c.last) {
		t.Fatalf("%d acknowledged of %d", acked, c.last)
	}
	l, rep := open(t, fs.Crash(1, 0), o)
	if rep.Rot {
		t.Fatalf("%+v", rep)
	}
	sameRecords(t, l, c)
}

// TestSpareFailure: a spare that cannot be made is no failure of the log.
func TestSpareFailure(t *testing.T) {
	fs := memfs.New(1)
	l, _ := open(t, fs, options())
	fs.OnOp(func(op memfs.Op) error {
		if op.Kind == memfs.Create {
			return syscall.ENOSPC
		}
		return nil
	})
	c := &chain{g: 1}
	mustAppend(t, l, wal.Write{Group: 1, Replica: 1, Records: c.make(1<<16, 3, 100)})
	turns(l)
	if l.Stats().Poisoned {
		t.Fatal("poisoned by a missing spare")
	}
	sameRecords(t, l, c)
}

func TestWrongNodeAndNewerFormat(t *testing.T) {
	fs := memfs.New(1)
	l, rep := open(t, fs, options())
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if rep.Incarnation != 1 {
		t.Fatalf("incarnation %d", rep.Incarnation)
	}
	o := options()
	o.Node = "n2"
	if _, _, err := wal.Open(fs, dir, o); !errors.Is(err, wal.ErrWrongNode) || !strings.Contains(err.Error(), "n1") {
		t.Fatalf("another node's log: %v", err)
	}
	o = options()
	o.Incarnation = 77
	l, rep = open(t, fs, o)
	if rep.Fresh || rep.Incarnation != 77 || rep.LastIncarnation != 1 {
		t.Fatalf("report %+v", rep)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, rep = open(t, fs, options())
	if rep.Incarnation != 78 {
		t.Fatalf("incarnation %d after 77", rep.Incarnation)
	}
	// A header as a newer version would write it: same magic and checksum.
	name := files(t, fs)[0]
	b, _ := fs.ReadFile(name)
	for _, at := range []int{0, 2048} {
		h := b[at : at+144]
		h[12] = 9
		sum := partition.Checksum(h[12:])
		h[8], h[9], h[10], h[11] = byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24)
	}
	fs.WriteFile(name, b)
	if _, _, err := wal.Open(fs, dir, options()); partition.CodeOf(err) != partition.CodeNewerFormat {
		t.Fatalf("a newer log: %v", err)
	}
	_, rep = open(t, memfs.New(1), options())
	if !rep.Fresh {
		t.Fatal("a wiped directory is not reported")
	}
	if _, _, err := wal.Open(fs, dir, wal.Options{}); partition.CodeOf(err) != partition.CodeInvalid {
		t.Fatalf("no node id: %v", err)
	}
}

// TestIdleProof: without any further append, an empty batch follows the last
// within Options.Idle, and then the disk is left alone.
func TestIdleProof(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := memfs.New(1)
		o := options()
		o.Manual = false
		l, _ := open(t, fs, o)
		c := &chain{g: 1}
		acked := make(chan error, 1)
		if err := l.Append(wal.Write{Group: 1, Replica: 1, Generation: 3, Records: c.make(1<<16, 1, 100)}, func(err error) { acked <- err }); err != nil {
			t.Fatal(err)
		}
		if err := <-acked; err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		n := l.Stats().Batches
		time.Sleep(60 * time.Millisecond)
		synctest.Wait()
		if got := l.Stats().Batches; got != n+1 {
			t.Fatalf("%d batches, then %d: no proof followed", n, got)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := l.Stats().Batches; got != n+1 {
			t.Fatalf("an idle log wrote %d batches", got-n-1)
		}
		l.SetFlushed(1, 1, 3)
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l, _ = open(t, fs.Crash(1, 0), options())
		if s, _ := l.Summary(1); s.Flushed != 1 || s.Generation != 3 || s.Commit != 1 {
			t.Fatalf("progress was not stored: %+v", s)
		}
	})
}

// TestManyWriters runs everything at once, for the race detector: writers,
// readers, flushes, restarts.
func TestManyWriters(t *testing.T) {
	fs := memfs.New(1)
	o := options()
	o.Manual, o.SegmentBytes = false, 256<<10
	o.Fatal = func(err error) { t.Errorf("fatal: %v", err) }
	const writers = 8
	chains := make([]*chain, writers)
	for i := range chains {
		chains[i] = &chain{g: partition.GroupID(i + 1)}
	}
	for range 3 {
		l, rep := open(t, fs, o)
		if rep.Rot {
			t.Fatalf("%+v", rep)
		}
		var wg sync.WaitGroup
		var acked atomic.Int64
		for _, c := range chains {
			wg.Go(func() {
				for range 200 {
					if err := l.Append(wal.Write{Group: c.g, Replica: 1, Records: c.make(1<<16, 2, 400)}, func(err error) {
						if err == nil {
							acked.Add(1)
						}
					}); err != nil {
						t.Errorf("append: %v", err)
						return
					}
					if got, err := l.Read(c.g, c.last-1, c.last, 1<<20); err != nil || len(got) != 2 {
						t.Errorf("read: %d %v", len(got), err)
					}
					if c.last > 40 {
						l.SetFlushed(c.g, c.last-40, 0)
					}
				}
				l.SetFlushed(c.g, c.last, 0)
			})
		}
		wg.Wait()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if acked.Load() != writers*200 {
			t.Fatalf("%d acknowledged", acked.Load())
		}
		if s := l.Stats(); s.Recycled == 0 {
			t.Errorf("nothing was recycled: %+v", s)
		}
	}
	l, _ := open(t, fs, options())
	for _, c := range chains {
		sameRecords(t, l, c)
	}
}
