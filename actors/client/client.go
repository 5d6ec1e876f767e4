package client

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"pando.dev/pando/partition"
)

// Client sends commands and queries to the masters of a cluster's partitions.
// It may be used by any number of goroutines. Its errors are *partition.Error,
// possibly wrapped together with the context's:
//
//   - CodeUnknown: the command was sent, and the time ended before the outcome
//     was known. It was executed at most once.
//   - CodeTimeout: the time ended, and nothing was done.
//   - CodeBusy: the client's own bound on operations in flight; nothing was
//     done.
//   - CodeNoSuchTable, CodeInvalid, CodeTooLarge, CodeNoSpace, CodeRefused,
//     CodeUnauthorized, CodeNewerFormat: the request was refused; nothing was
//     done.
//   - CodeClosed: the client was closed; nothing was done.
//
// Everything else (redirects, no master, lost connections, busy nodes, expired
// sessions) is dealt with by trying again until the context ends.
type Client struct {
	cfg       Config
	life      context.Context // ends with Close
	endLife   context.CancelFunc
	running   sync.WaitGroup // every goroutine of the client
	refresher refresher
	routing   atomic.Pointer[routing]
	wakeup    chan struct{} // to the sweeper
	waiters   sync.Pool     // of chan outcome
	crowd     crowd

	calls, bytes atomic.Int64 // in flight
	openings     atomic.Int64 // sessions being opened

	mu      sync.Mutex
	closed  bool
	local   *localPeer
	peers   map[string]*remotePeer // by address
	retired []*remotePeer          // to be ended by the sweeper
	groups  map[partition.GroupID]*group
	learned []learned // from replicas, and not yet from the catalog
}

// Open makes a client and waits, as long as the context allows, until it has
// got the routes from a node. A client inside a node does not wait: its node may
// have no routes before others have started, too.
func Open(ctx context.Context, cfg Config) (*Client, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("open client: %w", err)
	}
	c := &Client{
		cfg: cfg.withDefaults(), wakeup: make(chan struct{}, 1),
		peers: map[string]*remotePeer{}, groups: map[partition.GroupID]*group{},
	}
	c.life, c.endLife = context.WithCancel(context.Background())
	c.refresher.c = c
	c.routing.Store(&routing{routes: &Routes{}})
	if cfg.Local.Backend != nil {
		c.local = newLocalPeer(cfg.Local.Backend)
	}
	c.running.Add(1)
	go c.watch()
	if c.local != nil {
		return c, nil
	}
	if err := c.Refresh(ctx); err != nil {
		c.Close()
		return nil, fmt.Errorf("open client: %w", err)
	}
	return c, nil
}

// Close ends the client. Operations in flight end with CodeUnknown if their
// command may have been sent and with CodeClosed otherwise; Close waits for
// the client's goroutines, so it must not be called from a callback.
func (c *Client) Close() {
	c.mu.Lock()
	c.closed = true
	c.endLife()
	peers := c.allPeersLocked()
	for _, p := range c.retired {
		peers = append(peers, p)
	}
	c.mu.Unlock()
	for _, p := range peers {
		p.close(errClosed())
	}
	c.running.Wait()
	c.sweep(time.Now())
}

// Propose executes a command on the partition that holds the key, exactly once,
// and returns its result.
func (c *Client) Propose(ctx context.Context, table string, key, command []byte) (Result, error) {
	return c.do(ctx, table, Request{Op: OpPropose, Key: key, Body: command}, ReadOptions{}, nil)
}

// Read answers a query from the partition that holds the key.
func (c *Client) Read(ctx context.Context, table string, key, query []byte, o ReadOptions) (Result, error) {
	return c.do(ctx, table, o.into(Request{Op: OpRead, Key: key, Body: query}), o, nil)
}

// Go is Propose without waiting: done is called exactly once, possibly before
// Go returns, from a goroutine of the client, which it must not block. Commands
// given to Go one after the other for one partition are sent in that order, but
// after a retry they may be executed in another one.
//
// Key and command must not be changed before done is called.
func (c *Client) Go(ctx context.Context, table string, key, command []byte, done func(Result, error)) {
	c.start(ctx, table, Request{Op: OpPropose, Key: key, Body: command}, ReadOptions{}, done)
}

// GoRead is Read without waiting, as Go is Propose.
func (c *Client) GoRead(ctx context.Context, table string, key, query []byte, o ReadOptions, done func(Result, error)) {
	c.start(ctx, table, o.into(Request{Op: OpRead, Key: key, Body: query}), o, done)
}

// Routes returns the client's present routes, which must not be changed.
func (c *Client) Routes() *Routes { return c.routing.Load().routes }

type outcome struct {
	result Result
	err    error
}

// do runs one operation and waits for its end. If span is set, all of it must be
// in the partition of the key.
func (c *Client) do(ctx context.Context, table string, r Request, o ReadOptions, span *partition.KeyRange) (Result, error) {
	k, err := c.newCall(ctx, table, r, nil)
	if err == nil {
		err = k.use(o)
	}
	if err != nil {
		return Result{}, err
	}
	k.span = span
	k.req.Wide = span != nil && r.Op == OpRead
	return c.wait(ctx, k)
}

// wait begins a call and waits for its end. Its channel is used again: exactly
// one outcome was put into it, and taken out.
func (c *Client) wait(ctx context.Context, k *call) (Result, error) {
	ended, ok := c.waiters.Get().(chan outcome)
	if !ok {
		ended = make(chan outcome, 1)
	}
	k.ended = ended
	k.begin()
	var o outcome
	select {
	case o = <-ended:
	case <-ctx.Done():
		k.cancel(ctx.Err())
		o = <-ended
	}
	c.waiters.Put(ended)
	return o.result, o.err
}

// start runs one operation on its own.
func (c *Client) start(ctx context.Context, table string, r Request, o ReadOptions, done func(Result, error)) {
	k, err := c.newCall(ctx, table, r, done)
	if err == nil {
		err = k.use(o)
	}
	if err != nil {
		done(Result{}, err)
		return
	}
	if ctx.Done() != nil {
		k.mu.Lock()
		k.stop = context.AfterFunc(ctx, func() { k.cancel(ctx.Err()) })
		k.mu.Unlock()
	}
	k.begin()
}

// newCall checks the bounds of one operation and enters it.
func (c *Client) newCall(ctx context.Context, table string, r Request, done func(Result, error)) (*call, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%w (%w)", partition.Errorf(partition.CodeTimeout, "%s on table %q was not begun in time", r.Op, table), err)
	}
	r.Group, r.Seq = 1, 0 // to be known later
	if err := r.check(); err != nil {
		return nil, err
	}
	size := len(r.Key) + len(r.Body)
	if err := c.enter(size); err != nil {
		return nil, err
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(c.cfg.Timeout)
	}
	return &call{c: c, table: table, deadline: deadline, size: size, done: done, req: r}, nil
}

// enter counts an operation in, or refuses it.
func (c *Client) enter(size int) error {
	if c.life.Err() != nil {
		return errClosed()
	}
	calls, bytes := c.calls.Add(1), c.bytes.Add(int64(size))
	if calls <= int64(c.cfg.MaxInFlight) && (bytes <= int64(c.cfg.MaxInFlightBytes) || calls == 1) {
		if calls == 1 {
			c.wakeSweeper()
		}
		return nil
	}
	c.leave(size)
	return &partition.Error{
		Code: partition.CodeBusy,
		Why:  fmt.Sprintf("%d operations with %d bytes in flight, limits %d and %d", calls-1, bytes-int64(size), c.cfg.MaxInFlight, c.cfg.MaxInFlightBytes),
		Next: "wait for earlier operations, or raise the client's limits",
	}
}

func errClosed() *partition.Error { return partition.Errorf(partition.CodeClosed, "client is closed") }

// leave counts an operation out.
func (c *Client) leave(size int) {
	c.calls.Add(-1)
	c.bytes.Add(int64(-size))
}

// Refresh waits until the client has asked a node for newer routes.
func (c *Client) Refresh(ctx context.Context) error {
	k, err := c.newCall(ctx, "", Request{Op: OpRoutes}, nil)
	if err == nil {
		_, err = c.wait(ctx, k)
	}
	return err
}

// openSession opens one more session with the group, for which g.opening has
// been raised.
func (g *group) openSession() {
	g.c.openings.Add(1) // not bound by MaxInFlight: it serves operations that are
	g.c.wakeSweeper()
	k := &call{
		c: g.c, group: g, deadline: time.Now().Add(g.c.cfg.Timeout), req: Request{Op: OpOpenSession},
		done: func(r Result, err error) {
			if err != nil {
				g.noSession(err)
				return
			}
			g.c.cfg.Stats.Sessions.Add(1)
			wake(g.opened(newSession(g, partition.SessionID{Group: r.Group, Index: r.Index})))
		},
	}
	k.begin()
}

// noSession tells those who wait for a session why there is none. If it is a
// matter of routes or time they look for another way; otherwise it is final.
func (g *group) noSession(err error) {
	waits := g.opened(nil)
	switch partition.CodeOf(err) {
	case partition.CodeNotFound, partition.CodeWrongGroup, partition.CodeTimeout:
		for _, w := range waits {
			w.k.retry(w, err)
		}
	default:
		for _, w := range waits {
			w.k.over(w, err)
		}
	}
}

// sweepEvery is how exactly deadlines are kept of operations that nobody waits
// for with their context.
const sweepEvery = 10 * time.Millisecond

func (c *Client) wakeSweeper() {
	select {
	case c.wakeup <- struct{}{}:
	default:
	}
}

// watch is the goroutine that ends waits whose time is over. It sleeps while
// nothing is in flight.
func (c *Client) watch() {
	defer c.running.Done()
	for {
		select {
		case <-c.wakeup:
		case <-c.life.Done():
			return
		}
		tick := time.NewTicker(sweepEvery)
		for c.calls.Load() > 0 || c.openings.Load() > 0 {
			select {
			case now := <-tick.C:
				c.sweep(now)
			case <-c.life.Done():
				tick.Stop()
				return
			}
		}
		tick.Stop()
		c.sweep(time.Now()) // ends what the last call left behind
	}
}

// sweep ends what is over at now; all, if the client is closed.
func (c *Client) sweep(now time.Time) {
	c.mu.Lock()
	peers, closed := c.allPeersLocked(), c.closed
	retired := c.retired
	c.retired = nil
	groups := c.crowd.all()
	if closed {
		groups = slices.Collect(maps.Values(c.groups)) // in no order: each is swept on its own
	}
	c.mu.Unlock()
	for _, p := range retired {
		p.close(partition.Errorf(partition.CodeUnavailable, "the routes do not name %s any more", p.addr))
	}
	for _, p := range peers {
		p.sweep(now)
	}
	var reason error
	if closed {
		reason = errClosed()
	}
	for _, g := range groups {
		for _, w := range g.sweep(now, closed) {
			w.k.over(w, reason)
		}
	}
	for _, w := range c.refresher.sweep(now, closed) {
		w.k.over(w, reason)
	}
}

func (c *Client) allPeersLocked() []peer {
	all := make([]peer, 0, len(c.peers)+1)
	if c.local != nil {
		all = append(all, c.local)
	}
	for _, p := range c.peers { // in no order: each is swept on its own
		all = append(all, p)
	}
	return all
}

// peerLocked returns the peer of an address.
func (c *Client) peerLocked(addr string) *remotePeer {
	p := c.peers[addr]
	if p == nil {
		p = newRemotePeer(c, addr)
		if c.closed {
			p.closed = errClosed()
		}
		c.peers[addr] = p
	}
	return p
}
