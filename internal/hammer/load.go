package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"pando.dev/pando/actors/client"
	"pando.dev/pando/internal/history"
	"pando.dev/pando/partition"
)

const (
	// opWait bounds one operation: long enough that it outlasts every fault, so
	// that few outcomes are unknown, which makes histories hard to judge.
	opWait = 30 * time.Second
	// probeEvery is the time between two probes, and so the precision of the
	// time to the first write that was begun after a fault.
	probeEvery = 5 * time.Millisecond
	// maxProbes bounds the probes under way; during a long outage fewer begin.
	maxProbes = 512
	// probeList is the list of history that probes are the elements of, and the
	// prefix of their keys, behind the load's own.
	probeList = "probe/"
)

// target is what a load works on: the zero value is the usual table.
type target struct {
	table   string
	clients int // 0: as many as the flag says
	// prefixes are put before all keys, one after the other: they lead to
	// different partitions, or keep a load apart from an earlier one.
	prefixes []string
	every    time.Duration // between two probes; 0: probeEvery
}

// load is clients that write, read and compare-and-set for as long as they may,
// and one that creates a key of its own every few milliseconds, the probe,
// whether earlier ones were answered or not.
type load struct {
	history *history.History
	acks    *ackLog
	pace    time.Duration
	slots   int
	// prefixes and parts belong together, if there are several: when keys with
	// each prefix were acknowledged.
	prefixes []string
	parts    []*ackLog

	stopped atomic.Bool
	probed  atomic.Int64 // the probe that was begun last
	running sync.WaitGroup
	stores  []*table // that were opened here

	mu      sync.Mutex
	errs    map[string]int    // by code
	example map[string]string // the first of each
	doubled []string          // probes that were told of themselves
}

func newLoad(o options, prefixes ...string) *load {
	if len(prefixes) == 0 {
		prefixes = []string{""}
	}
	l := &load{
		history: history.New(), acks: newAckLog(), pace: o.pace, slots: or(o.slots, max(8, o.clients/4)),
		prefixes: prefixes, errs: map[string]int{}, example: map[string]string{},
	}
	for range prefixes {
		l.parts = append(l.parts, &ackLog{start: l.acks.start})
	}
	return l
}

// startLoad connects the clients and the probe and lets them begin.
func (c *cluster) startLoad(ctx context.Context) (*load, error) {
	return c.startLoadOn(ctx, target{})
}

// startLoadOn is startLoad on something else than the usual table.
func (c *cluster) startLoadOn(ctx context.Context, on target) (*load, error) {
	o := c.t.opts
	o.clients = or(on.clients, o.clients)
	if on.table == "" {
		on.table = tableName
	}
	l := newLoad(o, on.prefixes...)
	for range o.clients + 1 {
		s, err := c.openOn(ctx, on.table, c.links())
		if err != nil {
			l.close()
			return nil, err
		}
		l.stores = append(l.stores, s)
	}
	for i, s := range l.stores[1:] {
		l.begin(i, s, o.seed)
	}
	l.running.Go(func() { l.probe(l.stores[0], cmp.Or(on.every, probeEvery)) })
	return l, nil
}

// begin lets one client run on a store.
func (l *load) begin(id int, s store, seed uint64) {
	l.running.Go(func() { l.work(id, s, rand.New(rand.NewPCG(seed, uint64(id)+1))) })
}

// stop ends the load; operations under way come to their end first.
func (l *load) stop() {
	l.stopped.Store(true)
	l.running.Wait()
}

// close stops the load and disconnects its clients.
func (l *load) close() {
	l.stop()
	for _, s := range l.stores {
		s.close()
	}
	l.stores = nil
}

// seen is what a client last knew of a slot.
type seen struct{ key, value string }

// work is one client: one operation after the other.
func (l *load) work(id int, s store, rng *rand.Rand) {
	last := map[string]seen{}
	for n := 0; !l.stopped.Load(); n++ {
		slot, part := l.slot(rng.IntN(l.slots))
		op := history.Op{Key: l.history.Window(slot), Value: fmt.Sprintf("%d-%d", id, n)}
		switch draw := rng.IntN(10); {
		case draw < 4:
			op.Kind = history.Write
		case draw < 8:
			op.Kind, op.Value = history.Read, ""
		default:
			op.Kind = history.CAS
			if l := last[slot]; l.key == op.Key {
				op.Old = l.value
			}
		}
		level := client.Lease
		if rng.IntN(8) == 0 {
			level = client.Quorum
		}
		if value, ok := l.do(id, s, op, level, part); ok {
			last[slot] = seen{op.Key, value}
		}
		rest(l.pace, rng)
	}
}

// slot names a slot, and says which of the prefixes it has.
func (l *load) slot(n int) (name string, part int) {
	part = n % len(l.prefixes)
	return fmt.Sprintf("%sslot%d", l.prefixes[part], n), part
}

// someSlot draws one.
func (l *load) someSlot(rng *rand.Rand) string {
	name, _ := l.slot(rng.IntN(l.slots))
	return name
}

// acked notes that a write, invoked then, was acknowledged.
func (l *load) acked(begun time.Duration, part int) {
	l.acks.add(begun)
	if len(l.parts) > 1 {
		l.parts[part].add(begun)
	}
}

// rest waits for a drawn time around the mean.
func rest(mean time.Duration, rng *rand.Rand) {
	if mean > 0 {
		time.Sleep(mean/2 + time.Duration(rng.Int64N(int64(mean))))
	}
}

// do makes one operation, records it, and returns what the key is now known to
// hold, if anything is.
func (l *load) do(id int, s store, op history.Op, level client.Level, part int) (value string, known bool) {
	ctx, cancel := context.WithTimeout(context.Background(), opWait)
	defer cancel()
	begun := l.acks.now()
	call := l.history.Invoke(id, op)
	result, value := history.Result{}, op.Value
	var err error
	switch op.Kind {
	case history.Write:
		err = s.put(ctx, op.Key, op.Value)
	case history.Read:
		result.Got, err = s.get(ctx, op.Key, level)
		value = result.Got
	case history.CAS:
		result.Swapped, _, err = s.swap(ctx, op.Key, op.Old, op.Value)
	}
	if !l.end(call, result, err) {
		return "", false
	}
	if op.Kind == history.Write || result.Swapped {
		l.acked(begun, part)
	}
	return value, op.Kind != history.CAS || result.Swapped
}

// end records how a call ended and reports whether it was answered.
func (l *load) end(call *history.Call, r history.Result, err error) bool {
	switch {
	case err == nil:
		call.Return(r)
		return true
	case nothingDone(err):
		call.Refused()
	default:
		call.Unknown()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	code := partition.CodeOf(err).String()
	if l.errs[code] == 0 {
		l.example[code] = err.Error()
	}
	l.errs[code]++
	return false
}

// nothingDone reports whether the client promises with this error that the
// operation never takes effect.
func nothingDone(err error) bool {
	var typed *partition.Error
	if !errors.As(err, &typed) {
		return false
	}
	switch typed.Code {
	case partition.CodeUnknown, partition.CodeInternal, partition.CodeSessionExpired:
		return false
	}
	return true
}

// probe creates keys, one with each prefix at a time, each of which exists only
// once, so that a command that was executed twice is told that its key is there
// already.
func (l *load) probe(s store, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	room := make(chan struct{}, maxProbes)
	var under sync.WaitGroup
	for n := 0; !l.stopped.Load(); n += len(l.prefixes) {
		<-tick.C
		l.probed.Store(int64(n))
		for i := range l.prefixes {
			room <- struct{}{}
			under.Go(func() {
				l.probeOnce(s, n+i)
				<-room
			})
		}
	}
	under.Wait()
}

func (l *load) probeOnce(s store, n int) {
	ctx, cancel := context.WithTimeout(context.Background(), opWait)
	defer cancel()
	element := fmt.Sprintf("%08d", n)
	part := n % len(l.prefixes)
	list := l.prefixes[part] + probeList
	begun := l.acks.now()
	call := l.history.Invoke(-1, history.Op{Kind: history.Append, Key: list, Value: element})
	created, place, err := s.swap(ctx, list+element, "", element)
	if !l.end(call, history.Result{Seq: place}, err) {
		return
	}
	if created {
		l.acked(begun, part)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.doubled = append(l.doubled, fmt.Sprintf("probe %s was told that its key is there already: it was executed twice", element))
}

// scanner is what the end of a load is read with.
type scanner interface {
	store
	scan(ctx context.Context, prefix string) (pairs map[string]string, keys []string, err error)
}

// judgeWait bounds the reads and the search at the end.
const judgeWait = 10 * time.Minute

// judge reads everything back that was acknowledged and judges the history. The
// load has been stopped.
func (t *trial) judge(ctx context.Context, l *load, s scanner) error {
	ctx, cancel := context.WithTimeout(ctx, judgeWait)
	defer cancel()
	t.tell("reading everything back")
	for _, prefix := range l.prefixes {
		list := prefix + probeList
		_, keys, err := s.scan(ctx, list)
		if err != nil {
			return fmt.Errorf("read the probes back: %w", err)
		}
		for i := range keys {
			keys[i] = strings.TrimPrefix(keys[i], list)
		}
		l.history.Observe(list, keys)
	}
	if err := l.readBack(ctx, s); err != nil {
		return err
	}
	t.tell("judging the history")
	report := l.history.Check(ctx)
	t.row("history", "%s", report)
	l.rowErrors(t)
	for _, d := range l.doubled {
		t.violate("%s", d)
	}
	if err := report.Err(); err != nil {
		t.violate("%v", err)
		return t.keepHistory(l, report.Dump)
	}
	return nil
}

// readBack reads every key that a write was acknowledged for, as one more
// client of the history.
func (l *load) readBack(ctx context.Context, s store) error {
	keys := make(chan string)
	var readers sync.WaitGroup
	var failed atomic.Pointer[error]
	for i := range 32 {
		readers.Go(func() {
			for key := range keys {
				call := l.history.Invoke(-2-i, history.Op{Kind: history.Read, Key: key})
				got, err := s.get(ctx, key, client.Quorum)
				if !l.end(call, history.Result{Got: got}, err) {
					err = fmt.Errorf("read %q back: %w", key, err)
					failed.Store(&err)
				}
			}
		})
	}
	for _, key := range l.history.Acknowledged() {
		keys <- key
	}
	close(keys)
	readers.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// rowErrors reports the errors that clients got.
func (l *load) rowErrors(t *trial) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.errs) == 0 {
		t.row("errors", "none")
	}
	for _, code := range slices.Sorted(maps.Keys(l.errs)) {
		t.row("errors", "%d %s, such as: %s", l.errs[code], code, l.example[code])
	}
	if n := l.errs[partition.CodeInternal.String()]; n > 0 {
		t.violate("%d operations met an internal error, such as: %s", n, l.example[partition.CodeInternal.String()])
	}
}
