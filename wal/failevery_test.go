package wal_test

import (
	"errors"
	"os"
	"strconv"
	"syscall"
	"testing"

	"pando.dev/pando/partition"
	"pando.dev/pando/wal"
	"pando.dev/pando/wal/memfs"
)

// diskFault fails operations of a disk by their number.
type diskFault struct {
	err    error
	at     int  // the first that fails, counted from 1; 0 is none
	sticky bool // and all after it, until it is healed
	n      int
	hits   int
	last   memfs.Op // what failed last
}

func (f *diskFault) hook(o memfs.Op) error {
	f.n++
	if f.at == 0 || f.n < f.at || !f.sticky && f.n > f.at {
		return nil
	}
	f.hits++
	f.last = o
	return f.err
}

// faultRun is one workload on a disk that fails.
type faultRun struct {
	crashRun
	f     *diskFault
	fatal error
	ended bool // no further step: the log is poisoned
}

// options are those of a small log, with a Fatal that does not end the test.
func (r *faultRun) options() wal.Options {
	o := options()
	o.Fatal = func(err error) { r.fatal = err }
	return o
}

// open opens the log; a fault that came once must not last, and one that lasts
// must end with the disk's trouble.
func (r *faultRun) open() {
	for range 3 {
		var err error
		if r.l, _, err = wal.Open(r.fs, dir, r.options()); err == nil {
			return
		}
	}
	if !r.f.sticky {
		r.t.Fatalf("seed %d, operation %d (%+v) failed once and the log does not open", r.seed, r.f.at, r.f.last)
	}
	r.f.at = 0
	r.l, _ = open(r.t, r.fs, r.options())
}

// write appends one step. What is refused for want of space is tried again on a
// healed disk; a poisoned log takes nothing any more.
func (r *faultRun) write() {
	s := r.w.write()
	number := len(r.w.steps)
	done := func(err error) {
		if err != nil {
			r.ended = true // whether it is on the disk is not known
			return
		}
		if number != r.acked+1 {
			r.t.Fatalf("seed %d: step %d done after step %d", r.seed, number, r.acked)
		}
		r.acked = number
	}
	try := func() error {
		if s.drop {
			return r.l.Drop(s.w.Group, done)
		}
		return r.l.Append(s.w, done)
	}
	// A snip reads; that may fail without an end of the log.
	err := try()
	for range 2 {
		if err != nil && !errors.Is(err, wal.ErrNoSpace) && r.fatal == nil {
			err = try()
		}
	}
	if err != nil && r.fatal == nil {
		if !r.f.sticky && !errors.Is(err, wal.ErrNoSpace) {
			r.t.Fatalf("seed %d, operation %d (%+v) failed once, and step %d again: %v", r.seed, r.f.at, r.f.last, number, err)
		}
		r.f.at = 0
		turns(r.l)
		err = try()
	}
	if err != nil {
		r.ended = true
		if !errors.Is(err, wal.ErrPoisoned) || r.fatal == nil {
			r.t.Fatalf("seed %d, operation %d (%+v): step %d: %v", r.seed, r.f.at, r.f.last, number, err)
		}
	}
}

// read reads a record of some replica. A read that fails says so and changes
// nothing: tried again, it works.
func (r *faultRun) read() {
	g := partition.GroupID(1 + r.w.rand.IntN(5))
	s, ok := r.l.Summary(g)
	if !ok || s.Last < s.First {
		return
	}
	i := s.First + partition.Index(r.w.rand.IntN(int(s.Last-s.First)+1))
	var err error
	for range 3 {
		var got []partition.Record
		if got, err = r.l.Read(g, i, s.Last, 1); err == nil {
			if len(got) != 1 || got[0].Index() != i {
				r.t.Fatalf("seed %d: read %s %d: %v", r.seed, g, i, got)
			}
			return
		}
	}
	if !r.f.sticky && r.fatal == nil {
		r.t.Fatalf("seed %d, operation %d (%+v) failed once, and record %d cannot be read: %v", r.seed, r.f.at, r.f.last, i, err)
	}
}

func (r *faultRun) do() {
	switch n := r.w.rand.IntN(12); {
	case n < 5:
		r.write()
	case n < 8:
		r.l.Turn()
	case n < 9:
		r.w.flush(r.l)
		for id, x := range r.w.twin {
			r.floor = append(r.floor, flushMark{group: id, replica: x.replica, installs: x.installs, flushed: x.flushed})
		}
	case n < 10:
		r.l.Settle()
	default:
		r.read()
	}
}

// after opens what is left, with power and without, and wants every
// acknowledged step. The log then goes on.
func (r *faultRun) after() {
	r.fs.OnOp(nil)
	for what, image := range map[string]*memfs.FS{"after a kill": r.fs.Fork(), "after a loss of power": r.fs.Crash(r.seed, 0), "after some loss": r.fs.Crash(r.seed, 0.5)} {
		l, rep, err := wal.Open(image, dir, options())
		if err != nil || rep.Rot || len(rep.Lost) > 0 {
			r.t.Fatalf("seed %d, operation %d (%+v), %s: %v %+v", r.seed, r.f.at, r.f.last, what, err, rep)
		}
		k := r.verify(l, r.acked, what)
		r.goOn(image, l, k, what)
	}
}

// runFault runs one workload and returns how many operations it took.
func runFault(t *testing.T, seed uint64, f *diskFault) int {
	r := &faultRun{f: f, crashRun: crashRun{t: t, seed: seed, w: newWorkload(seed), fs: memfs.New(seed)}}
	r.fs.OnOp(f.hook)
	r.open()
	r.w.before = func(g partition.GroupID) partition.Index {
		s, _ := r.l.Summary(g)
		return max(s.First, 1) - 1
	}
	for i := 0; i < 400 && !r.ended; i++ {
		r.do()
		if i%100 == 99 && !r.ended { // a restart in between reads what was written
			turns(r.l)
			_ = r.l.Close()
			if r.fatal == nil {
				r.open()
			}
		}
		r.ended = r.ended || r.fatal != nil
	}
	if r.fatal != nil && f.hits == 0 {
		t.Fatalf("seed %d: the log ended without a fault: %v", seed, r.fatal)
	}
	if r.fatal != nil && !errors.Is(r.fatal, f.err) {
		t.Fatalf("seed %d: the log ended with %v, the fault was %v", seed, r.fatal, f.err)
	}
	turns(r.l)
	_ = r.l.Close()
	ops := f.n
	r.after()
	return ops
}

// faultStride is which share of the operations fails: one in PANDO_FAULTS, or
// in few.
func faultStride(t *testing.T, few int) int {
	v := os.Getenv("PANDO_FAULTS")
	if v == "" {
		return few
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 {
		t.Fatalf("PANDO_FAULTS=%q: lets one operation in so many fail", v)
	}
	return n
}

// TestEveryOperationFails lets each operation on the disk fail, once or from
// then on, by an input/output error or for want of space. Whatever fails: a
// failed write or sync ends the log and nothing else does, a fault that came
// once does not last, and every acknowledged step is there afterwards
// (RELIABILITY D7, D9, D10, L7).
func TestEveryOperationFails(t *testing.T) {
	stride, runs := faultStride(t, 43), 0
	for seed := range uint64(3) {
		ops := runFault(t, seed, &diskFault{})
		for name, f := range map[string]diskFault{
			"EIO once": {err: syscall.EIO}, "EIO for long": {err: syscall.EIO, sticky: true},
			"no space once": {err: syscall.ENOSPC}, "no space for long": {err: syscall.ENOSPC, sticky: true},
		} {
			for at := 1 + int(seed); at <= ops; at += stride {
				x := f
				x.at = at
				runFault(t, seed, &x)
				if runs++; x.hits == 0 {
					t.Fatalf("%s, seed %d: operation %d of %d did not fail", name, seed, at, ops)
				}
			}
		}
		t.Logf("seed %d: %d operations", seed, ops)
	}
	t.Logf("%d runs", runs)
}
