package wal

import (
	"slices"
	"testing"
	"time"
)

// The p99 is right to within a quarter, whatever the durations, and each call
// begins anew.
func TestSyncTimes(t *testing.T) {
	s := &syncTimes{born: time.Now()}
	if got := s.take(); got != (Syncs{}) {
		t.Fatalf("before the first: %+v", got)
	}
	for _, n := range []int{1, 2, 99, 100, 101, 1000} {
		for _, unit := range []time.Duration{1, 37, time.Microsecond, 3 * time.Millisecond, time.Minute} {
			var all []time.Duration
			for i := range n {
				d := unit * time.Duration(1+i*i%97)
				all = append(all, d)
				s.end(d)
			}
			slices.Sort(all)
			want := all[n-1-n/100]
			if got := s.take(); got.Count != n || got.Running != 0 || got.P99 < want || got.P99 > max(want+want/4+1, 8) {
				t.Errorf("%d of unit %v: %+v, want %v", n, unit, got, want)
			}
		}
	}
}

// A disk that hangs shows before its sync ends: the count would say nothing.
func TestSyncUnderWay(t *testing.T) {
	s := &syncTimes{born: time.Now().Add(-time.Hour)}
	s.began.Store(int64(59 * time.Minute))
	if got := s.take(); got.Count != 0 || got.Running < time.Minute || got.Running > 2*time.Minute {
		t.Errorf("%+v", got)
	}
	s.begin()
	if got := s.take(); got.Running > time.Minute {
		t.Errorf("%+v", got)
	}
	s.end(time.Second)
	if got := s.take(); got.Running != 0 || got.P99 != time.Second {
		t.Errorf("%+v", got)
	}
}
