package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"pando.dev/pando/actors/client"
	"pando.dev/pando/internal/history"
)

// pinnedReaders are clients that know the stopped node only.
const pinnedReaders = 8

// stopMaster stops the master's process for a while and lets it go on, with
// clients that ask it alone all the time: it must not answer from the past.
func stopMaster(ctx context.Context, t *trial) error {
	c, l, err := t.loaded(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	var s stops
	for i := range or(t.opts.rounds, 3) {
		if err := c.stopOnce(ctx, l, &s, i); err != nil {
			return fmt.Errorf("round %d: %w", i+1, err)
		}
	}
	if err := c.stopPeers(ctx, l); err != nil {
		return fmt.Errorf("with the peers stopped: %w", err)
	}
	l.stop()
	t.row("load", "%d clients, %d acknowledged writes", t.opts.clients, l.acks.count(0, l.acks.now()))
	t.row("time to write", "%s (from SIGSTOP to the first acknowledgement of a write begun after it)", s.back)
	t.row("asked the stopped node", "%d reads answered, %d not; after SIGCONT %d begun and %d answered", s.answered.Load(), s.failed.Load(), s.asked.Load(), s.after.Load())
	t.row("caught up", "%s (from SIGCONT)", s.catchUp)
	if err := t.judge(ctx, l, l.stores[0]); err != nil {
		return err
	}
	return c.compareReplicas(ctx, l.stores[0])
}

// stops is what stop-master measures.
type stops struct {
	back, catchUp    times
	answered, failed atomic.Int64 // reads of the clients that know the stopped node only
	asked, after     atomic.Int64 // begun after SIGCONT, and of these answered
	thawed           atomic.Bool
	quorum           bool // half of these clients read at this level
}

func (c *cluster) stopOnce(ctx context.Context, l *load, s *stops, round int) error {
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	n, before, err := c.master(ctx, tableName)
	if err != nil {
		return err
	}
	s.thawed.Store(false)
	release, err := c.pin(ctx, l, n, s, round)
	if err != nil {
		return err
	}
	defer release()
	if err := pause(ctx, 500*time.Millisecond); err != nil {
		return err
	}
	stopped := l.acks.now()
	if err := n.freeze(); err != nil {
		return err
	}
	acked, err := firstAck(ctx, l, stopped)
	if err != nil {
		return errors.Join(fmt.Errorf("with %s stopped: %w", n.name, err), n.thaw())
	}
	s.back = append(s.back, acked-stopped)
	if err := pause(ctx, max(0, c.t.opts.pause-(acked-stopped))); err != nil {
		return errors.Join(err, n.thaw())
	}
	thawed := l.acks.now()
	s.thawed.Store(true)
	if err := n.thaw(); err != nil {
		return err
	}
	if err := pause(ctx, 2*time.Second); err != nil { // of reads at the old master
		return err
	}
	if err := c.awaitCaughtUp(ctx, tableName); err != nil {
		return err
	}
	s.catchUp = append(s.catchUp, l.acks.now()-thawed)
	_, after, err := c.master(ctx, tableName)
	if err != nil {
		return err
	}
	if after.Epoch == before.Epoch {
		c.t.violate("%s was stopped for %s and is master as before, in epoch %s", n.name, c.t.opts.pause, after.Epoch)
	}
	c.t.tell("stopped %s: next write after %s, epoch %s to %s", n.name, acked-stopped, before.Epoch, after.Epoch)
	return nil
}

const (
	// aloneFor is how long the master is left alone, and aloneGrace what it is
	// given for what its peers had written before.
	aloneFor   = 3 * time.Second
	aloneGrace = 500 * time.Millisecond
)

// stopPeers leaves the master alone for a while. No write may be acknowledged
// then: nobody else has it.
func (c *cluster) stopPeers(ctx context.Context, l *load) error {
	master, _, err := c.master(ctx, tableName)
	if err != nil {
		return err
	}
	peers := slices.DeleteFunc(slices.Clone(c.nodes), func(n *node) bool { return n == master })
	if err := take(peers, "stopped"); err != nil {
		return err
	}
	from := l.acks.now()
	err = pause(ctx, aloneFor)
	to := l.acks.now()
	if err := errors.Join(err, bring(peers, "stopped")); err != nil {
		return err
	}
	if n := l.acks.count(from+aloneGrace, to); n > 0 {
		c.t.violate("%d writes were acknowledged while both peers of the master were stopped", n)
	}
	acked, err := firstAck(ctx, l, to)
	if err != nil {
		return err
	}
	c.t.row("master alone", "no write for %s, the next %s after SIGCONT of its peers", aloneFor-aloneGrace, (acked - to).Round(time.Millisecond))
	return c.awaitCaughtUp(ctx, tableName)
}

// pin starts clients that can reach one node only and read from it what the load
// writes, until they are released.
func (c *cluster) pin(ctx context.Context, l *load, n *node, s *stops, round int) (release func(), err error) {
	var stop atomic.Bool
	var readers sync.WaitGroup
	var stores []*table
	release = func() {
		stop.Store(true)
		readers.Wait()
		for _, r := range stores {
			r.close()
		}
	}
	for i := range pinnedReaders {
		r, err := openTable(ctx, c.name, tableName, []string{n.reached()})
		if err != nil {
			release()
			return nil, err
		}
		stores = append(stores, r)
		id := 1000*(round+1) + i
		readers.Go(func() { l.readPinned(id, r, s, &stop, c.t.opts.seed) })
	}
	return release, nil
}

// pinnedWait bounds one read at the stopped node. Those that wait in its socket
// when it goes on were begun before, so new ones must come all the time.
const pinnedWait = 400 * time.Millisecond

func (l *load) readPinned(id int, r store, s *stops, stop *atomic.Bool, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, uint64(id)))
	level := client.Lease
	if s.quorum && id%2 == 1 {
		level = client.Quorum
	}
	for !stop.Load() {
		op := history.Op{Kind: history.Read, Key: l.history.Window(l.someSlot(rng))}
		begunAfter := s.thawed.Load()
		if begunAfter {
			s.asked.Add(1)
		}
		ctx, cancel := context.WithTimeout(context.Background(), pinnedWait)
		call := l.history.Invoke(id, op)
		got, err := r.get(ctx, op.Key, level)
		cancel()
		if err != nil {
			call.Refused() // whatever became of a read that was not answered does not matter
			s.failed.Add(1)
			continue
		}
		call.Return(history.Result{Got: got})
		s.answered.Add(1)
		if begunAfter {
			s.after.Add(1)
		}
		rest(2*time.Millisecond, rng)
	}
}
