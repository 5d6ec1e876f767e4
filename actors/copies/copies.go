package copies

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/wal"
)

// stageDir is the directory below the node's in which copies are made.
const stageDir = "stage"

// Copies makes and takes the copies of one node. Its methods may be called from
// any goroutine.
type Copies struct {
	cfg    Config
	root   *os.Root // of the stage: nothing that is done there leads out of it
	stage  string
	bucket bucket // what is sent
	reads  bucket // what is read for checksums
	gets   bucket // what is received
	out    *turns
	in     *turns

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	work   sync.WaitGroup // serves and fetches

	count counts

	mu          sync.Mutex
	closed      bool
	number      uint64 // of the last directory in the stage
	checkpoints map[checkpointID]*checkpoint
	making      int                          // checkpoints that are being made
	fetching    map[partition.GroupID]*fetch // at most one of each group
	kept        map[string]*leftover         // what fetches have left, by the directory's name
	reserved    int64                        // bytes that fetches will still write
	transfers   map[*transfer]struct{}
}

// counts are the counters of Status.
type counts struct {
	sent, received, reused, refused, damaged, resumed, broken, copies atomic.Int64
}

// Progress is one copy under way.
type Progress struct {
	Group    partition.GroupID
	Peer     partition.NodeID
	Incoming bool
	// Done of Total bytes are at their place; Total is 0 while the source is not
	// ready.
	Done, Total int64
	Since       time.Time
	// Waits is what the copy waits for, if it does not go on now.
	Waits string
}

// Status is a snapshot of what goes on, and counters since the start.
type Status struct {
	// Copies under way, by group.
	Copies []Progress
	// Waiting copies have no turn yet: in and out.
	WaitingIn, WaitingOut int
	Checkpoints           int // held
	Sent, Received        int64
	Reused                int64 // bytes of copies that were here already
	Fetched               int64 // copies received whole
	Resumed               int64 // transfers that went on where another had broken
	Broken                int64 // transfers that broke
	Damaged               int64 // files and messages that failed their check
	Refused               int64 // requests that were answered with a refusal
	// BytesPerSecond is the rate as it is set.
	BytesPerSecond int64
}

// transfer is the progress of one copy.
type transfer struct {
	Progress    // Peer and Waits are guarded by Copies.mu
	done, total atomic.Int64
}

// now is how far the transfer is. The caller holds Copies.mu.
func (t *transfer) now() Progress {
	p := t.Progress
	p.Done, p.Total = t.done.Load(), t.total.Load()
	return p
}

// wait says what a transfer waits for; nothing, if why is empty.
func (c *Copies) wait(t *transfer, why string) {
	c.mu.Lock()
	t.Waits = why
	c.mu.Unlock()
}

// New makes the copies of a node. What an earlier run left in the stage is
// removed, but for the tables of copies that came in.
func New(cfg Config) (*Copies, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	stage := filepath.Join(cfg.Dir, stageDir)
	if err := os.MkdirAll(stage, 0o700); err != nil {
		return nil, fmt.Errorf("make the stage: %w", err)
	}
	root, err := os.OpenRoot(stage)
	if err != nil {
		return nil, fmt.Errorf("open the stage: %w", err)
	}
	if cfg.Free == nil {
		cfg.Free = func() (int64, int64, error) { return wal.OS{}.FreeSpace(stage) }
	}
	c := &Copies{
		cfg: cfg, root: root, stage: stage, out: newTurns(cfg.Concurrent, cfg.Waiting), in: newTurns(cfg.Concurrent, cfg.Waiting),
		checkpoints: make(map[checkpointID]*checkpoint), fetching: make(map[partition.GroupID]*fetch),
		transfers: make(map[*transfer]struct{}), kept: make(map[string]*leftover),
	}
	if err := c.tidy(); err != nil {
		return nil, errors.Join(fmt.Errorf("tidy the stage %s: %w", stage, err), root.Close())
	}
	c.SetRate(cfg.BytesPerSecond)
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c, nil
}

// Close ends all copies and removes the checkpoints.
func (c *Copies) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.work.Wait()
	c.mu.Lock()
	held := slices.Collect(maps.Values(c.checkpoints))
	for _, l := range c.kept { // each on its own
		l.timer.Stop()
	}
	c.mu.Unlock()
	for _, p := range held {
		c.expire(p)
	}
	return c.root.Close()
}

// begin takes part in c.work, unless c is closed.
func (c *Copies) begin() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return partition.Errorf(partition.CodeClosed, "the node is shutting down")
	}
	c.work.Add(1)
	return nil
}

// SetRate changes how many bytes per second are sent from now on, all copies
// together, and received likewise; negative: no bound.
func (c *Copies) SetRate(bytesPerSecond int64) {
	c.bucket.set(bytesPerSecond)
	c.gets.set(bytesPerSecond)
	c.reads.set(bytesPerSecond * readsPerSend)
}

// Rate is what SetRate has set, 0 or less: no bound.
func (c *Copies) Rate() int64 {
	c.bucket.mu.Lock()
	defer c.bucket.mu.Unlock()
	return int64(c.bucket.rate)
}

// Busy reports whether a copy is under way, in or out.
func (c *Copies) Busy() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.transfers) > 0
}

// Pace waits until n more bytes of state files may be read for their checksums:
// the first checkpoint of a state after a start reads all of it.
func (c *Copies) Pace(ctx context.Context, n int) error { return c.reads.take(ctx, n) }

// Status tells what goes on.
func (c *Copies) Status() Status {
	s := Status{
		WaitingIn: int(c.in.waiting.Load()), WaitingOut: int(c.out.waiting.Load()),
		Sent: c.count.sent.Load(), Received: c.count.received.Load(), Reused: c.count.reused.Load(), Fetched: c.count.copies.Load(),
		Resumed: c.count.resumed.Load(), Broken: c.count.broken.Load(), Damaged: c.count.damaged.Load(), Refused: c.count.refused.Load(),
	}
	s.BytesPerSecond = c.Rate()
	c.mu.Lock()
	s.Checkpoints = len(c.checkpoints)
	for t := range c.transfers {
		s.Copies = append(s.Copies, t.now())
	}
	c.mu.Unlock()
	slices.SortFunc(s.Copies, func(a, b Progress) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Peer, b.Peer), a.Since.Compare(b.Since))
	})
	return s
}

// Fetching tells how far the fetch of a group is, and false if there is none.
func (c *Copies) Fetching(g partition.GroupID) (Progress, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.fetching[g]
	if f == nil {
		return Progress{}, false
	}
	return f.t.now(), true
}

// track shows a transfer in Status until the function it returns is called.
func (c *Copies) track(t *transfer) (end func()) {
	c.mu.Lock()
	c.transfers[t] = struct{}{}
	c.mu.Unlock()
	return func() {
		c.mu.Lock()
		delete(c.transfers, t)
		c.mu.Unlock()
	}
}

// name returns an unused name in the stage.
func (c *Copies) name(what string, g partition.GroupID) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.number++
	return fmt.Sprintf("%s-%s-%d", what, g, c.number)
}
