package wal_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	"pando.dev/pando/partition"
	"pando.dev/pando/wal"
)

// twin is the dumb twin of a log: what one write after the other makes of it.
type twin map[partition.GroupID]*twinGroup

type twinGroup struct {
	replica partition.ReplicaID
	promise partition.Epoch
	// generation is that of the state that counts, installs how many there were.
	generation uint32
	installs   int
	commit     partition.Index
	flushed    partition.Index
	base       partition.Position
	baseSum    uint32
	config     partition.Record   // at base
	recs       []partition.Record // recs[i] has index base.Index+1+i
}

// step is one write of a workload, or a drop.
type step struct {
	w    wal.Write
	drop bool
}

func (x *twinGroup) last() partition.Index { return x.base.Index + partition.Index(len(x.recs)) }

func (x *twinGroup) at(i partition.Index) partition.Record { return x.recs[i-x.base.Index-1] }

func (x *twinGroup) sum() uint32 {
	if len(x.recs) == 0 {
		return x.baseSum
	}
	return x.recs[len(x.recs)-1].Checksum()
}

// sumAt is the checksum of the record at i, or of the base.
func (x *twinGroup) sumAt(i partition.Index) uint32 {
	if i == x.base.Index {
		return x.baseSum
	}
	return x.at(i).Checksum()
}

// holds reports whether the record at an install's base is there.
func (x *twinGroup) holds(n *wal.Install) bool {
	i := n.Base.Index
	return i >= x.base.Index && i <= x.last() && x.epochAt(i) == n.Base.Epoch && x.sumAt(i) == n.BaseSum
}

func (x *twinGroup) epochAt(i partition.Index) partition.Epoch {
	if i == x.base.Index {
		return x.base.Epoch
	}
	return x.at(i).Epoch()
}

func (t twin) apply(s step) {
	if s.drop {
		delete(t, s.w.Group)
		return
	}
	x := t[s.w.Group]
	if x == nil {
		x = &twinGroup{replica: s.w.Replica, generation: s.w.Generation}
		t[s.w.Group] = x
	}
	x.promise = max(x.promise, s.w.Promise)
	x.commit = max(x.commit, s.w.Commit)
	if n := s.w.Install; n != nil {
		if !x.holds(n) {
			x.base, x.baseSum, x.config, x.recs = n.Base, n.BaseSum, n.Configuration, nil
		}
		x.promise = max(x.promise, n.Base.Epoch)
		x.installs++
		x.commit, x.flushed, x.generation = max(x.commit, n.Base.Index), n.Base.Index, n.Generation
	}
	if s.w.Snip {
		x.recs = x.recs[:s.w.After-x.base.Index]
	}
	x.recs = append(slices.Clip(x.recs), s.w.Records...)
}

// configs are the newest configuration up to settled, and those behind it.
func (x *twinGroup) configs(settled partition.Index) []partition.Record {
	var all []partition.Record
	if x.config != nil {
		all = append(all, x.config)
	}
	for _, r := range x.recs {
		if r.Kind() != partition.KindMember {
			continue
		}
		if r.Index() <= settled {
			all = all[:0]
		}
		all = append(all, r)
	}
	return all
}

// differs says how the log differs from the twin, or returns "". What is only
// advice (commit, flushed, where the log begins) must be within its bounds.
func (t twin) differs(l *wal.Log) string {
	var ids []partition.GroupID
	for id := range l.Groups() {
		ids = append(ids, id)
	}
	if want := slices.Sorted(maps.Keys(t)); !slices.Equal(ids, want) {
		return fmt.Sprintf("groups %v, want %v", ids, want)
	}
	for _, id := range ids {
		s, _ := l.Summary(id)
		if d := t[id].differs(l, &s); d != "" {
			return fmt.Sprintf("%s: %s", id, d)
		}
	}
	return ""
}

func (x *twinGroup) differs(l *wal.Log, s *wal.Summary) string {
	switch {
	case s.Damage != nil:
		return fmt.Sprintf("quarantined: %+v", *s.Damage)
	case s.Replica != x.replica || s.Promise != x.promise:
		return fmt.Sprintf("replica %d promise %s, want %d %s", s.Replica, s.Promise, x.replica, x.promise)
	case s.Generation != x.generation:
		return fmt.Sprintf("generation %d, want %d", s.Generation, x.generation)
	case s.Last != x.last() || s.LastSum != x.sum():
		return fmt.Sprintf("end %d %08x, want %d %08x", s.Last, s.LastSum, x.last(), x.sum())
	case s.First <= x.base.Index || s.First > max(x.flushed, x.base.Index)+1:
		return fmt.Sprintf("first %d, base %d, flushed %d", s.First, x.base.Index, x.flushed)
	case s.Before != (partition.Position{Epoch: x.epochAt(s.First - 1), Index: s.First - 1}):
		return fmt.Sprintf("before %s, want epoch %s", s.Before, x.epochAt(s.First-1))
	case s.Commit > max(x.commit, x.flushed) || s.Flushed > x.flushed:
		return fmt.Sprintf("commit %d flushed %d, said were %d %d", s.Commit, s.Flushed, x.commit, x.flushed)
	}
	var runs []wal.Run
	for i := s.First; i <= s.Last; i++ {
		got, err := l.Read(x.recs[0].Group(), i, s.Last, 1)
		if err != nil || len(got) != 1 || !slices.Equal(got[0], x.at(i)) {
			return fmt.Sprintf("record %d: %v %v", i, got, err)
		}
		if n := len(runs); n == 0 || runs[n-1].Epoch != got[0].Epoch() {
			runs = append(runs, wal.Run{Epoch: got[0].Epoch(), First: i})
		}
	}
	if !slices.Equal(runs, s.Runs) {
		return fmt.Sprintf("runs %v, want %v", s.Runs, runs)
	}
	if want := x.configs(max(s.Commit, s.Flushed, s.First-1)); !slices.EqualFunc(s.Configurations, want, slices.Equal[partition.Record]) {
		return fmt.Sprintf("configurations %v, want %v", s.Configurations, want)
	}
	return ""
}

// workload makes random steps that a correct owner may take.
type workload struct {
	rand   *rand.Rand
	twin   twin
	steps  []step
	number uint64 // of the newest epoch
	next   partition.ReplicaID
	// before tells where a group's log begins; nil: at what is flushed.
	before func(partition.GroupID) partition.Index
	kept   int // installs that kept the log
}

func newWorkload(seed uint64) *workload {
	return &workload{rand: rand.New(rand.NewPCG(seed, 1)), twin: twin{}, next: 1}
}

// record makes the next record of a group whose end is given.
func (w *workload) record(g partition.GroupID, index partition.Index, epoch partition.Epoch, prev uint32) partition.Record {
	kind := partition.KindCommand
	if index == 1 || w.rand.IntN(8) == 0 {
		kind = partition.KindMember
	}
	size := w.rand.IntN(300)
	if kind != partition.KindMember && w.rand.IntN(12) == 0 {
		size = w.rand.IntN(9000)
	}
	payload := make([]byte, size)
	for i := range payload {
		payload[i] = byte(w.rand.Uint32())
	}
	return partition.NewRecord(partition.Header{Group: g, Index: index, Epoch: epoch, Prev: prev, Kind: kind}, payload)
}

// write makes one step and takes it over; the caller appends it.
func (w *workload) write() step {
	g := partition.GroupID(1 + w.rand.IntN(5))
	x := w.twin[g]
	s := step{w: wal.Write{Group: g}}
	switch {
	case x == nil:
		s.w.Replica = w.next
		w.next++
		x = &twinGroup{}
		if w.rand.IntN(3) == 0 {
			w.install(&s.w, x) // a log that begins in the middle
		} else {
			s.w.Generation = w.rand.Uint32N(3)
		}
	case w.rand.IntN(40) == 0:
		s.drop = true
	case w.rand.IntN(20) == 0:
		w.install(&s.w, x)
	}
	if !s.drop && s.w.Install == nil {
		w.grow(&s.w, x)
	}
	w.steps = append(w.steps, s)
	w.twin.apply(s)
	return s
}

// install puts a state in place, or takes it away: at a record that the log has,
// or at another, which voids it.
func (w *workload) install(s *wal.Write, x *twinGroup) {
	base := partition.Position{Index: max(x.commit, x.flushed) + partition.Index(w.rand.IntN(9)), Epoch: x.promise}
	if base.Index == 0 {
		base.Index = 3
	}
	sum := w.rand.Uint32()
	first := max(x.flushed, x.base.Index, 1)
	if w.before != nil {
		first = max(w.before(s.Group), 1)
	}
	keeps := len(x.recs) > 0 && first <= x.last() && w.rand.IntN(3) > 0
	if keeps {
		i := first + partition.Index(w.rand.IntN(int(x.last()-first)+1))
		base, sum = partition.Position{Index: i, Epoch: x.epochAt(i)}, x.sumAt(i)
		w.kept++
	}
	s.Install = &wal.Install{
		Base: base, BaseSum: sum, Generation: (x.generation + 1) * w.rand.Uint32N(4) / 2,
		Configuration: partition.NewRecord(partition.Header{Group: s.Group, Index: base.Index, Kind: partition.KindMember}, []byte("c")),
	}
	if w.rand.IntN(3) == 0 {
		w.number++
		s.Promise = partition.NewEpoch(w.number, 1)
	}
	end, last := base.Index, sum
	if keeps {
		end, last = x.last(), x.sum()
	}
	epoch := max(x.promise, base.Epoch, s.Promise)
	for range w.rand.IntN(3) {
		r := w.record(s.Group, end+1, epoch, last)
		s.Records = append(s.Records, r)
		end, last = end+1, r.Checksum()
	}
}

// grow adds a promise, a snip and records, each perhaps.
func (w *workload) grow(s *wal.Write, x *twinGroup) {
	end, sum, epoch := x.last(), x.sum(), x.epochAt(x.last())
	floor := max(x.commit, x.flushed, x.base.Index)
	if w.rand.IntN(6) == 0 {
		w.number++
		s.Promise = partition.NewEpoch(w.number, 1)
		epoch = s.Promise
		if end > floor && w.rand.IntN(2) == 0 {
			end = floor + partition.Index(w.rand.IntN(int(end-floor)+1))
			s.Snip, s.After = true, end
			sum = x.baseSum
			if end > x.base.Index {
				sum = x.at(end).Checksum()
			}
		}
	}
	for range w.rand.IntN(4) {
		r := w.record(s.Group, end+1, epoch, sum)
		s.Records = append(s.Records, r)
		end, sum = end+1, r.Checksum()
	}
	if w.rand.IntN(3) == 0 && end > floor {
		s.Commit = floor + partition.Index(w.rand.IntN(int(end-floor)+1))
	}
}

// flush moves a group's flushed index up to its commit.
func (w *workload) flush(l *wal.Log) {
	g := partition.GroupID(1 + w.rand.IntN(5))
	if x := w.twin[g]; x != nil && x.commit > x.flushed {
		x.flushed += partition.Index(w.rand.IntN(int(x.commit-x.flushed)) + 1)
		l.SetFlushed(g, x.flushed, x.generation)
		l.SetFlushed(g, x.last(), x.generation+1) // not yet in place: nothing of it counts
	}
}
