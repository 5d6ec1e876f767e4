package store

import (
	"slices"
	"testing"
	"time"
)

func TestPlan(t *testing.T) {
	const mb = 1 << 20
	old := dirtyStore{bytes: 1 * mb, since: 0}
	young := dirtyStore{bytes: 2 * mb, since: 50 * time.Second}
	large := dirtyStore{bytes: 5 * mb, since: 55 * time.Second}
	full := dirtyStore{bytes: 9 * mb, since: 59 * time.Second}
	with := func(s dirtyStore, f func(*dirtyStore)) dirtyStore {
		f(&s)
		return s
	}
	flushing := func(s *dirtyStore) { s.flushing = true }
	urgent := func(s *dirtyStore) { s.urgent = true }
	for _, c := range []struct {
		name   string
		now    time.Duration
		total  int64
		stores []dirtyStore
		want   []int
	}{
		{"nothing is due", 59 * time.Second, 8 * mb, []dirtyStore{old, young, large}, nil},
		{"one is too old", 60 * time.Second, 8 * mb, []dirtyStore{young, old, large}, []int{1}},
		{"the log asks: oldest first", 59 * time.Second, 8 * mb, []dirtyStore{with(large, urgent), young, with(old, urgent)}, []int{2, 0}},
		{"crowded: the largest, until below", 59 * time.Second, 14 * mb, []dirtyStore{old, young, large}, []int{2}},
		{"crowded, what is under way counts", 59 * time.Second, 14 * mb, []dirtyStore{old, young, with(large, flushing)}, nil},
		{"crowded: more than one", 59 * time.Second, 20 * mb, []dirtyStore{old, young, large}, []int{2, 1, 0}},
		{"a full memtable", 59 * time.Second, 9 * mb, []dirtyStore{full}, []int{0}},
		{"at most four", 61 * time.Second, 8 * mb, []dirtyStore{old, old, old, old, old, old}, []int{0, 1, 2, 3}},
		{"at most four with those under way", 61 * time.Second, 8 * mb, []dirtyStore{with(old, flushing), with(old, flushing), with(old, flushing), old, old}, []int{3}},
		{"old before large", 60 * time.Second, 100 * mb, []dirtyStore{full, large, old}, []int{2, 0, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := plan{full: 8 * mb, high: 12 * mb, total: c.total, age: time.Minute, now: c.now}
			for i, s := range c.stores {
				s.ref = i
				p.stores = append(p.stores, s)
			}
			if got := p.choose(); !slices.Equal(got, c.want) {
				t.Errorf("chose %v, want %v", got, c.want)
			}
		})
	}
}
