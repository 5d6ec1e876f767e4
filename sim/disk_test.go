package sim

import (
	"fmt"
	"testing"

	"pando.dev/pando/partition"
	"pando.dev/pando/sim/fault"
	"pando.dev/pando/wal"
)

// logWorld is a world of which only the disks are used.
func logWorld(seed uint64, real bool) *world {
	k := Calm()
	k.Nodes, k.Groups, k.Replicas, k.RealLog = 1, 3, 1, real
	return newWorld(&Plan{Seed: seed, Knobs: k}, nil)
}

// randomWrite is a write that a replica could make as its log is.
func randomWrite(m *image, g partition.GroupID, h uint64) wal.Write {
	w := wal.Write{Group: g, Replica: 1}
	if m.replica == 0 {
		w.Generation = 1
	}
	end, sum := m.end()
	epoch := max(m.promise, end.Epoch)
	if h%3 == 0 {
		epoch += 1 << 16
	}
	w.Promise = epoch
	if h%5 == 0 && m.last() > m.commit && m.replica != 0 && m.commit >= m.first {
		w.Snip, w.After = true, m.commit+partition.Index(pick(mix(h), int(m.last()-m.commit)))
		end, sum = m.at(w.After).Position(), m.at(w.After).Checksum()
	}
	for i := range pick(h>>8, 4) {
		r := partition.NewRecord(partition.Header{
			Group: g, Index: end.Index + 1, Epoch: epoch, Prev: sum, Kind: partition.KindCommand,
		}, make([]byte, pick(mix(h+uint64(i)), 300)))
		w.Records = append(w.Records, r)
		end, sum = r.Position(), r.Checksum()
	}
	if h>>16%3 == 0 {
		w.Commit = m.commit + partition.Index(pick(h>>24, int(end.Index-m.commit)+1))
		if w.Snip {
			w.Commit = m.commit
		}
	}
	return w
}

// put gives a write to a disk, as a node does.
func put(t *testing.T, d *disk, w wal.Write, quiet bool) {
	t.Helper()
	if err := d.log.append(&w, quiet); err != nil {
		t.Fatalf("%+v: %v", w, err)
	}
	d.seen[w.Group-1].apply(&w)
	d.pending = append(d.pending, pendingWrite{w: w, quiet: quiet})
}

func describeImage(m *image) string {
	end, sum := m.end()
	return fmt.Sprintf("replica %d promise %s %d to %s %08x", m.replica, m.promise, m.first, end, sum)
}

func describeDisk(images []image) (s string) {
	for i := range images {
		s += describeImage(&images[i]) + "; "
	}
	return s
}

// TestModelIsWeaker: whatever the real log has after a crash is one of the states
// that the model may come back with: a first part of the writes, each as a whole.
// And without a crash both show the same.
func TestModelIsWeaker(t *testing.T) {
	for seed := range uint64(60) {
		w, model := logWorld(seed, true), logWorld(seed, false)
		d, twin := w.nodes[0].disk, model.nodes[0].disk
		if d.open() != nil || twin.open() != nil {
			t.Fatal("no log")
		}
		for step := range uint64(80) {
			h := w.rnd.two(onOp, seed, step)
			switch h >> 40 % 10 {
			case 0:
				cycle(t, d, h)
				twin.crash(false)
				for gi := range d.seen { // go on from where the real one is
					twin.platter[gi] = d.seen[gi].clone()
				}
				if err := twin.open(); err != nil {
					t.Fatal(err)
				}
			case 1, 2, 3:
				for _, x := range []*disk{d, twin} {
					n, err := x.log.turn(len(x.pending))
					if err != nil || n != len(x.pending) {
						t.Fatalf("seed %d: %d of %d writes are durable: %v", seed, n, len(x.pending), err)
					}
					x.settled(n)
				}
			default:
				g := partition.GroupID(1 + pick(h>>8, 3))
				x := randomWrite(&d.seen[g-1], g, mix(h))
				quiet := h>>50%4 == 0
				put(t, d, x, quiet)
				put(t, twin, x, quiet)
			}
			if a, b := describeDisk(d.seen), describeDisk(twin.seen); a != b {
				t.Fatalf("seed %d step %d: the real log shows %s, the model %s", seed, step, a, b)
			}
			for gi := range d.seen {
				real, _ := d.log.summary(partition.GroupID(gi + 1))
				if real.Last != d.seen[gi].last() && d.seen[gi].replica != 0 {
					t.Fatalf("seed %d: the log ends at %d, it should at %d", seed, real.Last, d.seen[gi].last())
				}
			}
		}
	}
}

// cycle crashes the disk with the real log and checks what comes back.
func cycle(t *testing.T, d *disk, h uint64) {
	t.Helper()
	var may []string
	trial := make([]image, len(d.platter))
	for gi := range d.platter {
		trial[gi] = d.platter[gi].clone()
	}
	may = append(may, describeDisk(trial))
	for i := range d.pending {
		trial[d.pending[i].w.Group-1].apply(&d.pending[i].w)
		may = append(may, describeDisk(trial))
	}
	d.syncs += h // so that crashes differ
	d.crash(h>>20%2 == 0)
	if err := d.open(); err != nil {
		t.Fatal(err)
	}
	got := describeDisk(d.seen)
	for _, m := range may {
		if m == got {
			d.adopt()
			return
		}
	}
	t.Fatalf("after a crash there is %s, which is none of %q", got, may)
}

// TestRotIsFound: rot that is drawn for a log keeps clear of what nothing proves, so
// the next start finds it: a replica comes back with all that it had, or damaged, also
// if the log's files were used before.
func TestRotIsFound(t *testing.T) {
	found := 0
	for seed := range uint64(60) {
		w := logWorld(seed, true)
		d := w.nodes[0].disk
		if err := d.open(); err != nil {
			t.Fatal(err)
		}
		for step := range 200 + seed*40 {
			h := w.rnd.two(onOp, seed, step)
			gi := pick(h>>8, 3)
			put(t, d, randomWrite(&d.seen[gi], partition.GroupID(gi+1), mix(h)), false)
			if n, err := d.log.turn(len(d.pending)); err != nil || n != len(d.pending) {
				t.Fatalf("seed %d: %d of %d writes are durable: %v", seed, n, len(d.pending), err)
			}
			d.settled(len(d.pending))
			m := &d.seen[gi]
			d.let(partition.GroupID(gi+1), m.commit, m.commit, 1, true)
		}
		if err := d.log.settle(); err != nil {
			t.Fatal(err)
		}
		had := describeDisk(d.seen)
		d.hit, d.harmed = true, true
		for i := range uint64(8) {
			d.real.damage(&Fault{Class: fault.FlipLog, Arg: w.rnd.two(onDamage, seed, i)})
		}
		d.crash(false)
		if err := d.open(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		hurt := false
		for gi := range d.seen {
			hurt = hurt || d.seen[gi].damage != nil || d.suspects[gi] != 0
		}
		if now := describeDisk(d.seen); hurt {
			found++
		} else if now != had {
			t.Errorf("seed %d: there was %s, now there is %s, and nobody says why", seed, had, now)
		}
	}
	if found < 10 {
		t.Errorf("rot was found in %d logs of 60", found)
	}
}

// TestStateCrash: a crash takes a state back to its last flush, whatever happened
// since.
func TestStateCrash(t *testing.T) {
	rnd := chances(7)
	s := newState()
	kept := s.clone()
	for i := range uint64(3000) {
		h := rnd.two(onOp, i, 0)
		key := []byte{byte(h % 40)}
		s.applied++
		switch h >> 8 % 20 {
		case 0:
			s.flush()
			kept = s.clone()
		case 1:
			if c := s.flushedClone(); c.differs(kept) != "" || c.hash != kept.hash {
				t.Fatal("a copy of what is flushed is something else")
			}
			s.crash()
			if d := s.differs(kept); d != "" || s.hash != kept.hash || s.applied != kept.applied {
				t.Fatalf("step %d: after a crash %q differs, hash %x and %x, applied %d and %d", i, d, s.hash, kept.hash, s.applied, kept.applied)
			}
		case 2:
			if s.DeleteRange(partition.KeyRange{Lo: key, Hi: []byte{key[0] + 5}}) != nil {
				t.Fatal("delete")
			}
		case 3, 4:
			_ = s.Delete(key)
		default:
			_ = s.Set(key, []byte{byte(i), byte(h >> 16)})
		}
	}
}

// TestClock: a clock never goes back, whatever is done to it, and until is never
// late by more than a microsecond.
func TestClock(t *testing.T) {
	rnd := chances(3)
	c := clock{trueBase: 5}
	now, was := partition.Time(5), partition.Time(0)
	for i := range uint64(5000) {
		h := rnd.two(onClock, i, 0)
		now += partition.Time(h % 1e9)
		switch h >> 32 % 4 {
		case 0:
			c.rate(now, int64(h>>40%600_000)-300_000)
		case 1:
			c.jump(now, partition.Time(h>>40%1e6))
		}
		at := c.at(now)
		if at < was {
			t.Fatalf("step %d: the clock goes from %d back to %d", i, was, at)
		}
		was = at
		target := at + partition.Time(h>>20%1e9)
		if d := c.until(now, target); c.at(now+d) < target-1000 || d > 1000 && c.at(now+d-1000) >= target+1000 {
			t.Fatalf("step %d: until %d it is %d, then the clock shows %d", i, target, d, c.at(now+d))
		}
	}
}

// TestEngineOrder: events come by time, and those of one time in the order in which
// they were asked for.
func TestEngineOrder(t *testing.T) {
	var e engine
	rnd := chances(1)
	for i := range uint64(2000) {
		e.at(partition.Time(rnd.two(onOp, i, 0)%50), evTick, 0).a = i
	}
	var x event
	var last partition.Time
	var seq uint64
	for n := uint64(0); e.next(1000, &x); n++ {
		if e.now < last || e.now == last && x.a < seq && n > 0 && x.b == 0 {
			t.Fatalf("event %d at %s after %d at %s", x.a, e.now, seq, last)
		}
		last, seq = e.now, x.a
		if n < 500 { // more come while others go
			y := e.after(partition.Time(rnd.two(onOp, n, 1)%20), evTick, 0)
			y.a, y.b = 5000+n, 1
			seq = 0
		}
	}
	if len(e.soon)+e.later != 0 || len(e.free) != len(e.slab) {
		t.Fatalf("%d events are left, %d of %d places are free", len(e.soon)+e.later, len(e.free), len(e.slab))
	}
}
