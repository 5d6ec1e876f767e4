package main

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"
)

// ack is one acknowledged write, in time since the start of the log.
type ack struct{ invoked, at time.Duration }

// ackLog is when writes were acknowledged. Any goroutine may add to it.
type ackLog struct {
	start time.Time

	mu    sync.Mutex
	acks  []ack // in the order of at
	after time.Duration
	hit   chan time.Duration // gets the first ack of a write invoked at or after after
}

func newAckLog() *ackLog { return &ackLog{start: time.Now()} }

// now is the time since the start of the log.
func (a *ackLog) now() time.Duration { return time.Since(a.start) }

// add records that a write, invoked then, has been acknowledged now.
func (a *ackLog) add(invoked time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	x := ack{invoked, a.now()}
	a.acks = append(a.acks, x)
	if a.hit != nil && x.invoked >= a.after {
		a.hit <- x.at
		a.hit = nil
	}
}

// next promises the time of the first acknowledgement, from now on, of a write
// invoked at that time or later. One promise is open at a time.
func (a *ackLog) next(invoked time.Duration) <-chan time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.after, a.hit = invoked, make(chan time.Duration, 1)
	return a.hit
}

// count returns how many writes were acknowledged in [from, to).
func (a *ackLog) count(from, to time.Duration) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.indexLocked(to) - a.indexLocked(from)
}

// indexLocked is the place of the first ack at or after t.
func (a *ackLog) indexLocked(t time.Duration) int {
	i, _ := slices.BinarySearchFunc(a.acks, t, func(x ack, t time.Duration) int { return cmp.Compare(x.at, t) })
	return i
}

// longestGap returns the longest time without an acknowledgement that lies at
// least partly in [from, to]. Time before the first ack and after the last one
// counts.
func (a *ackLog) longestGap(from, to time.Duration) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	i := a.indexLocked(from)
	last := time.Duration(0)
	if i > 0 {
		last = a.acks[i-1].at
	}
	var longest time.Duration
	for ; i < len(a.acks) && last <= to; i++ {
		longest = max(longest, a.acks[i].at-last)
		last = a.acks[i].at
	}
	if last <= to && i == len(a.acks) {
		longest = max(longest, to-last)
	}
	return longest
}

// times are measured times.
type times []time.Duration

// percentile returns the smallest measured time that at least p percent of all
// are not above (nearest rank); 0 of none.
func (ts times) percentile(p int) time.Duration {
	if len(ts) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(ts))
	return sorted[max(0, (len(sorted)*p+99)/100-1)]
}

// String sums the times up.
func (ts times) String() string {
	if len(ts) == 0 {
		return "none"
	}
	ms := func(p int) string { return fmt.Sprintf("%.1f", float64(ts.percentile(p))/float64(time.Millisecond)) }
	return fmt.Sprintf("median %s, p90 %s, p99 %s, max %s ms (n %d)", ms(50), ms(90), ms(99), ms(100), len(ts))
}
