package main

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// store is a log that makes a batch of payloads durable in one call.
type store interface {
	write(batch [][]byte) error
	close() error
}

// front turns blocking writes into batches for a store.
type front struct {
	s store
	// gather is how long it waits for writers to come back, as wal does.
	gather  time.Duration
	mu      sync.Mutex
	queue   []request
	waiting atomic.Int64
	wake    chan struct{}
	stop    chan struct{}
	ended   chan struct{}
}

type request struct {
	payload []byte
	done    chan error
}

func newFront(s store, gather time.Duration) *front {
	f := &front{s: s, gather: gather, wake: make(chan struct{}, 1), stop: make(chan struct{}), ended: make(chan struct{})}
	go f.run()
	return f
}

// writer returns the blocking write of one goroutine.
func (f *front) writer(int) func([]byte) error {
	done := make(chan error, 1)
	return func(payload []byte) error {
		f.mu.Lock()
		f.queue = append(f.queue, request{payload, done})
		f.waiting.Add(1)
		first := len(f.queue) == 1
		f.mu.Unlock()
		if first {
			select {
			case f.wake <- struct{}{}:
			default:
			}
		}
		return <-done
	}
}

func (f *front) run() {
	defer close(f.ended)
	var spare []request
	var batch [][]byte
	for {
		f.mu.Lock()
		all := f.queue
		f.queue = spare[:0]
		f.mu.Unlock()
		if len(all) == 0 {
			spare = all
			select {
			case <-f.wake:
				continue
			case <-f.stop:
				return
			}
		}
		batch = batch[:0]
		for _, r := range all {
			batch = append(batch, r.payload)
		}
		err := f.s.write(batch)
		f.waiting.Add(-int64(len(all)))
		for _, r := range all {
			r.done <- err
		}
		f.await(int64(len(all)) + f.waiting.Load())
		spare = all
	}
}

// await lets the writers of the last batch come back.
func (f *front) await(want int64) {
	if f.gather <= 0 || want < 2 || f.waiting.Load() >= want {
		return
	}
	end := time.Now().Add(f.gather)
	for f.waiting.Load() < want && time.Now().Before(end) {
		runtime.Gosched()
	}
}

func (f *front) close() error {
	close(f.stop)
	<-f.ended
	return f.s.close()
}
