package control

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"pando.dev/pando/cluster/internal/pulse"
	"pando.dev/pando/cluster/internal/stamp"
	"pando.dev/pando/partition"
)

const (
	// seatsFile is what must survive of the founding; seatsFormat its format.
	seatsFile   = "SEATS"
	seatsFormat = 1
	// foundingTick is how often a node looks whether it can found something.
	foundingTick = 50 * time.Millisecond
	// maxServing bounds the requests that are served at the same time, and
	// maxWaiting those that wait for the catalog to change.
	maxServing = 256
	maxWaiting = 2048
	// maxServeTime bounds one request whatever its sender wishes.
	maxServeTime = 5 * time.Second
)

// Control is a node's part of the control group: a seat, if it has one, and a
// client of the seats in any case. All methods may be called by any number of
// goroutines.
type Control struct {
	cfg     Config
	done    <-chan struct{} // closed by Close
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	closing sync.Once
	closed  error

	catalog atomic.Pointer[Catalog]
	// syncTo is one more than the catalog version that the leader named first
	// after this process had its session opened; 0 before that.
	syncTo  atomic.Uint64
	changed pulse.Pulse
	// stale is set once, when the control group refuses this process; see Stale.
	stale atomic.Pointer[partition.Error]

	// mu guards what is below. It is never held over a call to another node; it
	// is held over the small writes of the seats file.
	mu      sync.Mutex
	seats   seats
	seat    *seat // nil without one
	stopped error // why the seat stopped itself
	leader  leaderHint
	hint    uint64 // the newest catalog version that somebody mentioned
	// The catalog is as new as the leader's was at current; it will be so for
	// asked once it has reached version asks. Zero: never yet.
	current, asked time.Time
	asks           uint64
	lockQ          lockQueue

	hinted  pulse.Pulse
	serving chan struct{} // one token per request being served
	waiting chan struct{}
}

// leaderHint is who led when somebody said so last.
type leaderHint struct {
	node partition.NodeID
	at   partition.Time
}

// Start begins to look for the control group, or to found it, or goes on as the
// seat that this node was before.
func Start(cfg Config) (*Control, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("create the control group's directory: %w", err)
	}
	c := &Control{
		cfg: cfg, serving: make(chan struct{}, maxServing), waiting: make(chan struct{}, maxWaiting),
	}
	c.catalog.Store(&Catalog{})
	c.lockQ.ready = make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(context.Background())
	c.done, c.cancel = ctx.Done(), cancel
	if err := c.loadSeats(); err != nil {
		cancel()
		return nil, err
	}
	if c.seats.mine() {
		if err := c.takeSeat(ctx); err != nil {
			cancel()
			return nil, err
		}
	}
	for _, loop := range []func(context.Context){c.foundLoop, c.renewLoop, c.followLoop, c.lockLoop} {
		c.run(ctx, loop)
	}
	return c, nil
}

// run starts a loop of this node; ctx ends with Close.
func (c *Control) run(ctx context.Context, loop func(context.Context)) {
	c.wg.Add(1)
	go func() {
		defer c.wg.Done()
		loop(ctx)
	}()
}

// isClosed reports whether Close was called.
func (c *Control) isClosed() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// Close gives up the seat's share for now, ends everything and closes the
// transport. The catalog stays readable.
func (c *Control) Close() error {
	c.closing.Do(func() {
		c.cancel()
		c.wg.Wait() // nobody takes a seat any more
		c.mu.Lock()
		s := c.seat
		c.mu.Unlock()
		if s != nil {
			c.closed = s.close()
		} else {
			c.closed = c.cfg.Transport.Close()
		}
	})
	return c.closed
}

// Catalog returns the newest catalog that this node has. It may be stale, and
// it stays when the control group is down.
func (c *Control) Catalog() *Catalog { return c.catalog.Load() }

// Synced reports whether the catalog is as new as the leader's was when this
// process first reached it. Before that it may lack what was there long ago.
func (c *Control) Synced() bool {
	to := c.syncTo.Load()
	return to != 0 && c.Catalog().Version+1 >= to
}

// Admitted reports whether the control group has opened a session for this
// process. Before that it is not known whether the process runs on an old copy
// of the node's disk.
func (c *Control) Admitted() bool { return c.syncTo.Load() != 0 }

// Stale returns why this process may not act for its node, or nil: the control
// group has seen another process of the node that was started later, or in the
// same boot, so this one's disk was put back from a copy, or its directory was
// copied. It may have forgotten promises and acknowledgements. That stays so for
// the life of the process.
//
// The rule: a session carries the boot, which a start counts on the disk before
// anything else, and a random number of the process. A higher boot than that of
// the last session replaces it; the same boot with the same number is the same
// process; anything else is stale.
//
// What it does not see: a copy that was taken in the very run that came last,
// and put back when no other process was started since, has a higher boot as
// any restart does. Of two processes on copies of one directory the one with
// the lower boot is refused, which may be the one on the original. And until
// the control group has answered for the first time (Admitted) nothing is known
// at all.
func (c *Control) Stale() error { return asNil(c.stale.Load()) }

// noteStale looks for the control group's word that this process is stale.
func (c *Control) noteStale(err error) {
	var typed *partition.Error
	if partition.CodeOf(err) != partition.CodeSessionExpired || !errors.As(err, &typed) || !c.stale.CompareAndSwap(nil, typed) {
		return
	}
	c.cfg.Logger.Error("this process runs on an old copy of the node's disk", "err", typed)
	c.changed.Fire()
	if c.cfg.OnStale != nil {
		c.cfg.OnStale(typed)
	}
}

// Changed returns a channel that is closed when the catalog or the status
// changes next. Take it first, then look, then wait.
func (c *Control) Changed() <-chan struct{} { return c.changed.Next() }

// Hint tells that somebody has seen this version of the catalog; a node with an
// older one fetches it now.
func (c *Control) Hint(version uint64) {
	if version <= c.Catalog().Version {
		return
	}
	c.mu.Lock()
	c.hint = max(c.hint, version)
	c.mu.Unlock()
	c.hinted.Fire()
}

// Status describes the control group as this node sees it now.
func (c *Control) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := Status{HasSeat: c.seats.mine(), State: WaitingForSeats, Why: c.seats.why, Stale: c.stale.Load()}
	if !c.seats.exists() {
		return st
	}
	st.Group, st.Seats = c.seats.st.Proposal.ID, slices.Clone(c.seats.st.Proposal.Seats)
	st.Leader = c.leaderLocked()
	switch {
	case c.stopped != nil:
		st.State, st.Why = Stopped, c.stopped.Error()
	case st.Leader == "":
		st.State, st.Why = NoLeader, fmt.Sprintf("fewer than half of the seats %s answer, or they are choosing a leader", st.Seats)
	default:
		st.State, st.Why = Ready, ""
	}
	return st
}

// leaderLocked returns who leads, as far as can be told: a seat asks its
// library, others remember for the time of a session.
func (c *Control) leaderLocked() partition.NodeID {
	if c.seat != nil && c.stopped == nil {
		return c.seat.leader()
	}
	if c.leader.node != "" && c.cfg.Now()-c.leader.at < c.cfg.SessionTTL {
		return c.leader.node
	}
	return ""
}

func (c *Control) loadSeats() error {
	path := filepath.Join(c.cfg.Dir, seatsFile)
	c.seats = seats{
		self: c.cfg.Node, expect: c.cfg.Expect, accepted: map[partition.NodeID]bool{},
		save: func(st seatState) error {
			return stamp.Write(path, seatsFormat, encode(kindSeatState, &st))
		},
	}
	b, err := stamp.Read(path, seatsFormat)
	if stamp.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	st, err := decode[seatState](kindSeatState, b)
	if err == nil {
		err = validateSeatState(st, c.cfg.Node)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	c.seats.resume(*st)
	return nil
}

// takeSeat starts this node's share of the log. The caller is Start, or the
// founding loop.
func (c *Control) takeSeat(ctx context.Context) error {
	c.mu.Lock()
	all := slices.Clone(c.seats.st.Proposal.Seats)
	c.mu.Unlock()
	s, err := openSeat(&c.cfg, all, c.publish, c.stopSeat)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.seat = s
	c.mu.Unlock()
	c.publish()
	c.cfg.Logger.Info("control seat taken", "seats", all)
	c.run(ctx, func(ctx context.Context) { c.watchLeader(ctx, s) })
	c.run(ctx, func(ctx context.Context) { c.expireLoop(ctx, s) })
	return nil
}

// publish shows the seat's catalog to this node's readers.
func (c *Control) publish() {
	c.mu.Lock()
	if c.seat != nil {
		c.catalog.Store(c.seat.fsm.catalog.Load())
	}
	c.mu.Unlock()
	c.changed.Fire()
}

// stopSeat is called by the log's goroutine when this program cannot follow the
// log any further. The node goes on as a client.
func (c *Control) stopSeat(err error) {
	c.cfg.Logger.Error("control seat stopped", "err", err)
	c.mu.Lock()
	c.stopped = err
	s := c.seat
	c.mu.Unlock()
	if s != nil {
		s.shutdown() // not waited for: it waits for this goroutine
	}
	c.changed.Fire()
}

// usableSeat returns this node's seat if it has one that works.
func (c *Control) usableSeat() *seat {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped != nil {
		return nil
	}
	return c.seat
}

// watchLeader tells whoever waits for a change that another seat leads.
func (c *Control) watchLeader(ctx context.Context, s *seat) {
	last := partition.NodeID("?")
	for {
		select {
		case o := <-s.observed:
			if l := partition.NodeID(o.Data.(raft.LeaderObservation).LeaderID); l != last {
				last = l
				c.cfg.Logger.Info("control leader changed", "leader", l)
				c.changed.Fire()
			}
		case <-ctx.Done():
			return
		}
	}
}

// foundLoop runs until this node has found or founded the control group.
func (c *Control) foundLoop(ctx context.Context) {
	for {
		done, err := c.foundOnce(ctx)
		if err != nil {
			c.cfg.Logger.Error("control group not founded yet", "err", err)
			c.mu.Lock()
			c.seats.why = err.Error()
			c.mu.Unlock()
		}
		if done || !c.pause(ctx, foundingTick) {
			return
		}
	}
}

func (c *Control) foundOnce(ctx context.Context) (done bool, err error) {
	v := viewOf(c.cfg.Node, c.cfg.Expect, c.cfg.Peers())
	c.mu.Lock()
	questions, err := c.seats.tick(v, rand.Uint64()|1, c.cfg.Joined())
	c.mu.Unlock()
	if err != nil {
		return false, err
	}
	for _, q := range questions {
		if err := c.askSeat(ctx, q); err != nil {
			return false, err
		}
	}
	c.mu.Lock()
	now, has := c.seats.st.Phase, c.seat != nil
	c.mu.Unlock()
	if now == founded && !has {
		if err := c.takeSeat(ctx); err != nil {
			return false, err
		}
	}
	if now == founded || now == known {
		c.changed.Fire()
		return true, nil
	}
	return false, c.meetSeat(ctx)
}

// askSeat puts one question and takes the answer. No answer is no error.
func (c *Control) askSeat(ctx context.Context, q seatQuestion) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.CallTimeout)
	defer cancel()
	a, err := c.callOnce(ctx, q.to, kindAskSeat, &q.ask)
	if err == nil && a.Error != nil {
		err = fromItem(a.Error)
	}
	var stands *seatAnswer
	if err == nil {
		stands, err = decode[seatAnswer](kindSeatAnswer, a.Body)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.seats.why = fmt.Sprintf("node %s, one of the seats %s, does not answer: %v", q.to, c.seats.st.Proposal.Seats, err)
		return nil
	}
	return c.seats.answered(q.to, q.ask.Proposal.ID, stands)
}

// meetSeat asks a node that says it has a seat which control group that is.
func (c *Control) meetSeat(ctx context.Context) error {
	for _, p := range c.cfg.Peers() {
		if !p.Seat || p.Node == c.cfg.Node {
			continue
		}
		one, cancel := context.WithTimeout(ctx, c.cfg.CallTimeout)
		a, err := c.callOnce(one, p.Node, kindAskRenew, &askRenew{Boot: c.cfg.Boot, Start: c.cfg.Start})
		cancel()
		if err != nil || a.Group == 0 {
			continue
		}
		r, err := decode[renewAnswer](kindRenewAnswer, a.Body)
		if err != nil {
			continue
		}
		c.mu.Lock()
		err = c.seats.learn(proposal{ID: a.Group, Seats: r.Seats})
		c.mu.Unlock()
		return err
	}
	return nil
}

// pause waits and reports false when ctx ends, or Control is closed, first.
func (c *Control) pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	case <-c.done:
		return false
	}
}

// expireLoop, on the leader, records the sessions that were not renewed.
func (c *Control) expireLoop(ctx context.Context, s *seat) {
	period := c.cfg.SessionTTL / 8
	for c.pause(ctx, period) {
		silent := s.silent(c.cfg.SessionTTL, period)
		for some := range slices.Chunk(silent, MaxLockBatch) {
			one, cancel := context.WithTimeout(ctx, c.cfg.SessionTTL)
			_, err := s.propose(one, kindSessions, &sessionsBody{Expire: some})
			cancel()
			if err != nil {
				break // another leader will see for itself
			}
			for _, x := range some {
				c.cfg.Logger.Info("session expired", "node", x.Node, "boot", x.Boot)
			}
		}
	}
}

// renewLoop keeps this node's session.
func (c *Control) renewLoop(ctx context.Context) {
	var last State
	for {
		asked := time.Now()
		one, cancel := context.WithTimeout(ctx, c.cfg.SessionTTL/2)
		a, err := c.ask(one, kindAskRenew, &askRenew{Boot: c.cfg.Boot, Start: c.cfg.Start})
		cancel()
		if err == nil {
			// Whoever waits for Synced may have seen the catalog already, so that
			// nothing else would tell of it.
			if c.syncTo.CompareAndSwap(0, a.Catalog+1) {
				c.changed.Fire()
			}
			c.noteAge(asked, a.Catalog)
			c.Hint(a.Catalog)
		} else if c.noteStale(err); !errors.Is(err, partition.ErrUnavailable) && !errors.Is(err, partition.ErrUnknown) {
			c.cfg.Logger.Warn("session not renewed", "err", err)
		}
		// Time alone can change what is known of the leader.
		if now := c.Status().State; now != last {
			last = now
			c.changed.Fire()
		}
		if !c.pause(ctx, c.cfg.SessionTTL/4) {
			return
		}
	}
}
