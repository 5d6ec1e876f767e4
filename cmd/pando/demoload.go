package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"pando.dev/pando/actors/httpapi"
)

const (
	demoWorkers = 16
	demoKeys    = 10_000
	// demoPatience bounds one operation of the load.
	demoPatience = 5 * time.Second
	// histogram bounds, in microseconds
	shortestUS, longestUS = 1, 10_000_000
)

// demoLoad counts what the load did since the last line.
type demoLoad struct {
	hot atomic.Pointer[string] // most of the load goes to keys that begin so; nil: none

	mu     sync.Mutex
	taken  *hdrhistogram.Histogram // microseconds
	errors int
	done   int64 // of all lines
	failed int
}

func newDemoLoad() *demoLoad {
	return &demoLoad{taken: hdrhistogram.New(shortestUS, longestUS, 3)}
}

func (l *demoLoad) setHot(prefix string) {
	if prefix == "" {
		l.hot.Store(nil)
		return
	}
	l.hot.Store(&prefix)
}

// all is what the load has done since it began, and how much of it failed.
func (l *demoLoad) all() (done int64, failed int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.done, l.failed
}

// key chooses what is read or written: any user, or mostly a hot one.
func (l *demoLoad) key() []byte {
	if hot := l.hot.Load(); hot != nil && rand.IntN(10) > 0 {
		return fmt.Appendf(nil, "%s%02d", *hot, rand.IntN(100))
	}
	return fmt.Appendf(nil, "user-%04d", rand.IntN(demoKeys))
}

// demoLine is one line about the load.
type demoLine struct {
	OpsPerSecond float64 `json:"ops_per_second"`
	P50Ms        float64 `json:"p50_ms"`
	P99Ms        float64 `json:"p99_ms"`
	Errors       int     `json:"errors"`
	Status       string  `json:"status"`
}

// load writes and reads the table, through all nodes, until ctx ends.
func (d *demo) load(ctx context.Context, l *demoLoad) {
	tickets := make(chan struct{}, demoWorkers)
	var all sync.WaitGroup
	for i := range demoWorkers {
		store := httpapi.ClientStore{Client: d.nodes[i%len(d.nodes)].node.Client()}
		all.Go(func() {
			for range tickets {
				l.operate(ctx, store)
			}
		})
	}
	all.Go(func() { d.pace(ctx, tickets) })
	all.Go(func() { d.watchHot(ctx, l) })
	d.report(ctx, l)
	all.Wait()
}

// pace hands out one ticket per operation, as many as the rate allows. When all
// workers are busy tickets are lost: the load is small, not a benchmark.
func (d *demo) pace(ctx context.Context, tickets chan<- struct{}) {
	defer close(tickets)
	const ticks = 100 // a second
	tick := time.NewTicker(time.Second / ticks)
	defer tick.Stop()
	due := 0.0
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for due += float64(d.rate) / ticks; due >= 1; due-- {
			select {
			case tickets <- struct{}{}:
			default:
			}
		}
	}
}

// operate does one operation: two reads to a write.
func (l *demoLoad) operate(ctx context.Context, store httpapi.Store) {
	ctx, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	key := l.key()
	began := time.Now()
	var err error
	if rand.IntN(3) == 0 {
		_, err = store.Put(ctx, demoTable, key, []byte("seen "+strconv.FormatInt(began.UnixNano(), 10)), httpapi.Condition{})
	} else if _, err = store.Get(ctx, demoTable, key, httpapi.ReadOptions{}); isNotFound(err) {
		err = nil
	}
	took := time.Since(began).Microseconds()
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil:
		_ = l.taken.RecordValue(min(max(took, shortestUS), longestUS)) // within the bounds
		l.done++
	case ctx.Err() != context.Canceled:
		l.errors++
		l.failed++
	}
}

// report prints a line at each interval.
func (d *demo) report(ctx context.Context, l *demoLoad) {
	tick := time.NewTicker(d.every)
	defer tick.Stop()
	began := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			line := l.line(now.Sub(began))
			began = now
			if s, err := d.nodes[0].node.Status(ctx); err == nil {
				line.Status = firstLine(s)
			}
			d.cli.printDemoLine(now, line)
		}
	}
}

func (l *demoLoad) line(span time.Duration) demoLine {
	l.mu.Lock()
	defer l.mu.Unlock()
	ms := func(quantile float64) float64 { return float64(l.taken.ValueAtQuantile(quantile)) / 1000 }
	x := demoLine{OpsPerSecond: float64(l.taken.TotalCount()) / span.Seconds(), P50Ms: ms(50), P99Ms: ms(99), Errors: l.errors}
	l.taken.Reset()
	l.errors = 0
	return x
}

func (c *cli) printDemoLine(now time.Time, x demoLine) {
	if c.output == "json" {
		c.printJSONLine(x)
		return
	}
	fmt.Fprintf(c.out, "%s  %.0f op/s  p50 %.1f ms  p99 %.1f ms  errors %d  %s\n",
		now.Format(time.TimeOnly), x.OpsPerSecond, x.P50Ms, x.P99Ms, x.Errors, x.Status)
}
