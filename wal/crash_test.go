package wal_test

import (
	"flag"
	"fmt"
	"testing"

	"pando.dev/pando/partition"
	"pando.dev/pando/wal"
	"pando.dev/pando/wal/memfs"
)

// crashSeeds is how many workloads TestCrashEverywhere runs; the long mode of
// the package: go test ./wal -run Crash -crash-seeds 500.
var crashSeeds = flag.Int("crash-seeds", 4, "workloads in which every write and sync point crashes")

// crashRun drives one workload and crashes it at every operation that changes
// the disk.
type crashRun struct {
	t     *testing.T
	seed  uint64
	w     *workload
	fs    *memfs.FS
	l     *wal.Log
	acked int // steps reported durable
	floor []flushMark
	ops   int
	lost  int // crashes that lost something which was not acknowledged
}

// flushMark is what the owner said of a replica's state. The log knows it at
// once, whatever it has stored of the steps before.
type flushMark struct {
	group    partition.GroupID
	replica  partition.ReplicaID
	installs int // before it, of the group
	flushed  partition.Index
}

// at returns the twin after the first k steps. What was said of the states
// bounds where the log may begin.
func (c *crashRun) at(k int) twin {
	t := twin{}
	for _, s := range c.w.steps[:k] {
		t.apply(s)
	}
	for _, m := range c.floor {
		if x := t[m.group]; x != nil && x.replica == m.replica && x.installs == m.installs {
			x.flushed = max(x.flushed, m.flushed)
		}
	}
	return t
}

// verify checks that the log is what some first steps made of it, with no
// acknowledged step missing; it returns how many.
func (c *crashRun) verify(l *wal.Log, atLeast int, what string) int {
	c.t.Helper()
	first := ""
	for k := atLeast; k <= len(c.w.steps); k++ {
		d := c.at(k).differs(l)
		if d == "" {
			if k < len(c.w.steps) {
				c.lost++
			}
			return k
		}
		if first == "" {
			first = d
		}
	}
	c.t.Fatalf("seed %d, %s: the log is no prefix of %d steps with the %d acknowledged: %s",
		c.seed, what, len(c.w.steps), atLeast, first)
	return 0
}

// crash opens what a loss of power leaves, once cleanly, once with a second
// loss during the recovery; then it checks that the log goes on.
func (c *crashRun) crash(keep float64) {
	c.t.Helper()
	what := fmt.Sprintf("crash before operation %d keeping %v", c.ops, keep)
	image := c.fs.Crash(c.seed+uint64(c.ops), keep)
	second := c.ops % 11 // of the operations of the recovery
	var again *memfs.FS
	n := 0
	image.OnOp(func(o memfs.Op) error {
		if o.Changes() {
			if n == second {
				again = image.Crash(c.seed, 0.5)
			}
			n++
		}
		return nil
	})
	l, rep, err := wal.Open(image, dir, options())
	image.OnOp(nil)
	if err != nil {
		c.t.Fatalf("seed %d, %s: open: %v", c.seed, what, err)
	}
	if rep.Rot || len(rep.Lost) > 0 || len(rep.Notes) > 0 {
		c.t.Fatalf("seed %d, %s: report %+v", c.seed, what, rep)
	}
	k := c.verify(l, c.acked, what)
	c.goOn(image, l, k, what)
	if again != nil {
		l, rep, err = wal.Open(again, dir, options())
		if err != nil || rep.Rot || len(rep.Notes) > 0 {
			c.t.Fatalf("seed %d, %s, again in recovery at %d: %v %+v", c.seed, what, second, err, rep)
		}
		c.verify(l, c.acked, what+", and again in recovery")
	}
}

// kill opens what a killed process leaves, and then loses the power: what the
// new process has seen in its log, and told others, must be on disk.
func (c *crashRun) kill() {
	c.t.Helper()
	what := fmt.Sprintf("kill before operation %d", c.ops)
	image := c.fs.Fork()
	l, rep, err := wal.Open(image, dir, options())
	if err != nil || rep.Rot {
		c.t.Fatalf("seed %d, %s: open: %v %+v", c.seed, what, err, rep)
	}
	k := c.verify(l, c.acked, what)
	l, rep, err = wal.Open(image.Crash(c.seed, 0), dir, options())
	if err != nil || rep.Rot {
		c.t.Fatalf("seed %d, %s, then loss of power: open: %v %+v", c.seed, what, err, rep)
	}
	c.verify(l, k, what+", then loss of power")
}

// goOn appends to every group, waits for the acknowledgement, and loses
// everything that was not synced.
func (c *crashRun) goOn(fs *memfs.FS, l *wal.Log, k int, what string) {
	c.t.Helper()
	t := c.at(k)
	acks := 0
	for id, x := range t {
		r := partition.NewRecord(partition.Header{
			Group: id, Index: x.last() + 1, Epoch: 1 << 40, Prev: x.sum(), Kind: partition.KindNoop,
		}, []byte("after the crash"))
		s := step{w: wal.Write{Group: id, Records: []partition.Record{r}}}
		if err := l.Append(s.w, func(err error) {
			if err == nil {
				acks++
			}
		}); err != nil {
			c.t.Fatalf("seed %d, %s: append: %v", c.seed, what, err)
		}
		t.apply(s)
	}
	turns(l)
	if acks != len(t) {
		c.t.Fatalf("seed %d, %s: %d of %d appends acknowledged", c.seed, what, acks, len(t))
	}
	l, rep, err := wal.Open(fs.Crash(1, 0), dir, options())
	if err != nil || rep.Rot {
		c.t.Fatalf("seed %d, %s: open again: %v %+v", c.seed, what, err, rep)
	}
	if d := t.differs(l); d != "" {
		c.t.Fatalf("seed %d, %s: after going on: %s", c.seed, what, d)
	}
}

func (c *crashRun) do() {
	l, w := c.l, c.w
	switch n := w.rand.IntN(10); {
	case n < 5:
		s := w.write()
		number := len(w.steps)
		done := func(err error) {
			if err != nil || number != c.acked+1 {
				c.t.Fatalf("seed %d: step %d done (%v) after step %d", c.seed, number, err, c.acked)
			}
			c.acked = number
		}
		err := error(nil)
		if s.drop {
			err = l.Drop(s.w.Group, done)
		} else {
			err = l.Append(s.w, done)
		}
		if err != nil {
			c.t.Fatalf("seed %d: step %d of %s: %v", c.seed, number, s.w.Group, err)
		}
	case n < 8:
		l.Turn()
	case n < 9:
		w.flush(l)
		for id, x := range w.twin {
			c.floor = append(c.floor, flushMark{group: id, replica: x.replica, installs: x.installs, flushed: x.flushed})
		}
	default:
		l.Settle()
	}
}

// TestCrashEverywhere loses power before every operation of random workloads
// that changes the disk: with nothing unsynced surviving, with all of it, and
// with each sector by chance; or it only kills the process there, and loses the
// power after the next one has opened the log. Whatever was reported durable is there (SMF, NOT-3:
// what was not is there wholly or not at all), no snipped record comes back
// (RELIABILITY L3), numbers have no gaps and none is used twice (NOT-4), and the
// summary is that of the dumb twin.
func TestCrashEverywhere(t *testing.T) {
	recycled, kept := uint64(0), 0
	for seed := range uint64(*crashSeeds) {
		c := &crashRun{t: t, seed: seed, w: newWorkload(seed), fs: memfs.New(seed)}
		c.fs.OnOp(func(o memfs.Op) error {
			if o.Changes() {
				if n := c.ops % 4; n == 3 {
					c.kill()
				} else {
					c.crash([]float64{0, 1, 0.5}[n])
				}
				c.ops++
			}
			return nil
		})
		o := options()
		c.l, _ = open(t, c.fs, o)
		c.w.before = func(g partition.GroupID) partition.Index {
			s, _ := c.l.Summary(g)
			return s.First - 1
		}
		for range 400 {
			c.do()
		}
		turns(c.l)
		if c.acked != len(c.w.steps) {
			t.Fatalf("seed %d: %d of %d steps acknowledged", seed, c.acked, len(c.w.steps))
		}
		if d := c.w.twin.differs(c.l); d != "" {
			t.Fatalf("seed %d: the running log: %s", seed, d)
		}
		s := c.l.Stats()
		t.Logf("seed %d: %d crash points, %d steps, %d installs that keep the log, %d segments begun, %d recycled, %d crashes lost something",
			seed, c.ops, len(c.w.steps), c.w.kept, s.Rotations, s.Recycled, c.lost)
		recycled += s.Recycled
		kept += c.w.kept
		if s.Rotations < 3 || c.lost == 0 {
			t.Errorf("seed %d: the workload is too weak", seed)
		}
	}
	if recycled == 0 || kept < *crashSeeds {
		t.Errorf("%d segments were recycled, and %d installs kept the log", recycled, kept)
	}
}
