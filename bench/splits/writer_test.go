package main

import (
	"errors"
	"testing"
	"time"
)

// TestGap: a gap counts whole if it reaches into the window from before or beyond
// its end, and what lies outside does not count.
func TestGap(t *testing.T) {
	start := time.Now()
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	w := &writer{}
	for _, ms := range []int{0, 100, 102, 104, 154, 156, 400} {
		w.acks = append(w.acks, ack{at(ms) /* due */, at(ms)})
	}
	for _, c := range []struct{ from, to, gap, end int }{
		{101, 155, 50, 154}, // within
		{50, 103, 100, 100}, // from before
		{101, 157, 244, 400},
		{101, 104, 2, 102},
	} {
		gap, end := w.gap(at(c.from), at(c.to))
		if gap != at(c.gap).Sub(start) || !end.Equal(at(c.end)) {
			t.Errorf("from %d to %d: %v until %v", c.from, c.to, gap, end.Sub(start))
		}
	}
	w.note(start, errors.New("refused"))
	if l := w.latencies(at(0), at(500)); w.failed != 1 || len(l) != 7 {
		t.Errorf("%d failed, %d latencies", w.failed, len(l))
	}
}

// TestQuantiles: the largest is the quantile 1, and of none there is 0.
func TestQuantiles(t *testing.T) {
	d := durations{5, 1, 4, 2, 3}
	if d.at(0) != 1 || d.at(0.5) != 3 || d.at(1) != 5 || (durations{}).at(0.5) != 0 || d[0] != 5 {
		t.Errorf("%v %v %v", d.at(0), d.at(0.5), d.at(1))
	}
}
