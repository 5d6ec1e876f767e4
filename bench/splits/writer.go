package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"pando.dev/pando/actors/client"
	"pando.dev/pando/partition/kv"
)

// ack is a write that was acknowledged.
type ack struct {
	due, at time.Time
}

// writer sends writes at a steady rate, whatever comes back.
type writer struct {
	client *client.Client
	prefix atomic.Pointer[string]
	every  time.Duration
	value  []byte

	mu     sync.Mutex
	acks   []ack // in the order of at
	failed int
	why    error
}

// run writes until the context ends, and waits for what is under way.
func (w *writer) run(ctx context.Context) {
	var sent sync.WaitGroup
	due := time.Now()
	for i := 0; ctx.Err() == nil; i++ {
		if wait := time.Until(due); wait > 0 {
			time.Sleep(wait)
		}
		key := fmt.Appendf(nil, "%sw%04d", *w.prefix.Load(), i%1000)
		cmd, err := kv.Put(key, w.value)
		if err != nil {
			panic(err)
		}
		sent.Add(1)
		at := due
		w.client.Go(context.Background(), tableName, key, cmd, func(_ client.Result, err error) {
			defer sent.Done()
			w.note(at, err)
		})
		due = due.Add(w.every)
	}
	sent.Wait()
}

func (w *writer) note(due time.Time, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.failed++
		w.why = err
		return
	}
	w.acks = append(w.acks, ack{due, time.Now()})
}

// gap is the longest time without an acknowledgement that reaches into a window,
// and when it ended.
func (w *writer) gap(from, to time.Time) (longest time.Duration, end time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	i, _ := slices.BinarySearchFunc(w.acks, from, func(a ack, t time.Time) int { return a.at.Compare(t) })
	last := from
	if i > 0 {
		last = w.acks[i-1].at
	}
	for ; i < len(w.acks) && last.Before(to); i++ {
		if g := w.acks[i].at.Sub(last); g > longest {
			longest, end = g, w.acks[i].at
		}
		last = w.acks[i].at
	}
	return longest, end
}

// latencies are those of the writes that were due within a window.
func (w *writer) latencies(from, to time.Time) (all durations) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range w.acks {
		if !a.due.Before(from) && a.due.Before(to) {
			all = append(all, a.at.Sub(a.due))
		}
	}
	return all
}

// durations are measured times.
type durations []time.Duration

// at is the quantile p of the times, rounded up.
func (d durations) at(p float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	d = slices.Clone(d)
	slices.Sort(d)
	return d[min(len(d)-1, int(p*float64(len(d))))]
}

// ms is a time in milliseconds, as the tables print it.
func ms(d time.Duration) string { return fmt.Sprintf("%.1f", d.Seconds()*1000) }

func (d durations) row(name string) string {
	return fmt.Sprintf("%-34s %8s %8s %8s %8s  ms (%d)", name, ms(d.at(0.5)), ms(d.at(0.9)), ms(d.at(0.99)), ms(d.at(1)), len(d))
}
