package actors

import (
	"sync"
	"time"

	"pando.dev/pando/actors/copies"
)

// latencies collects how long the log took for writes, up to a bound.
type latencies struct {
	mu   sync.Mutex
	took []time.Duration
}

// maxLatencies bounds what is kept of one window: many more say nothing new.
const maxLatencies = 512

func (l *latencies) note(d time.Duration) {
	l.mu.Lock()
	if len(l.took) < maxLatencies {
		l.took = append(l.took, d)
	}
	l.mu.Unlock()
}

// take returns what was collected since the last time, in into's memory.
func (l *latencies) take(into []time.Duration) []time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := append(into[:0], l.took...)
	l.took = l.took[:0]
	return out
}

// timed measures how long the log takes to call done.
func (n *Node) timed(done func(error)) func(error) {
	at := n.now()
	return func(err error) {
		n.writes.note(n.now() - at)
		done(err)
	}
}

// governCopies keeps the rate of copies so that the writes beside them hardly take
// longer (PLACEMENT.md 3.9).
func (n *Node) governCopies() {
	g := copies.Governor{Most: n.copies.Rate()}
	if g.Most <= 0 {
		return
	}
	tick := time.NewTicker(copies.GovernEvery)
	defer tick.Stop()
	var took []time.Duration
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-tick.C:
		}
		took = n.writes.take(took)
		if rate := g.Window(took, n.copies.Busy()); rate != n.copies.Rate() {
			n.copies.SetRate(rate)
		}
	}
}
