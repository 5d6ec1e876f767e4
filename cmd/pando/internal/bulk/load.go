package bulk

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"sync"
	"time"

	"pando.dev/pando/partition"
)

// Put stores one pair. It retries by itself until ctx ends.
type Put func(ctx context.Context, key, value []byte) error

// LoadConfig says what to load and how. Source and Put are required.
type LoadConfig struct {
	Source *Reader
	Put    Put
	// From is the mark that the source goes on from; the zero value for a new
	// load. The counts go on from it.
	From Mark
	// Workers is how many writes are under way at once (default 64). Writes to
	// one key always go through the same worker, so the last one in the input
	// wins.
	Workers int
	// Patience is how long one pair is tried before the load gives up (default
	// 60 s); it must outlast a failover.
	Patience time.Duration
	// SkipBad counts bad records instead of ending the load.
	SkipBad bool
	// OnMark, if set, is told the position up to which everything is stored
	// each time it moves. It is called by one goroutine at a time and must be
	// quick: writes wait for it.
	OnMark func(Mark)
}

// Mark is a position of the input: everything before it is stored.
type Mark struct {
	Offset int64 `json:"offset"`
	Line   int64 `json:"line"` // number of the first line behind it
	Loaded int64 `json:"loaded"`
	Bytes  int64 `json:"bytes"` // of the values loaded
	Bad    int64 `json:"bad"`
}

// queueItems is how many items wait per worker; with Workers it bounds memory.
const queueItems = 16

// Load stores everything the source has, and returns the last mark. After an
// error everything before the mark is stored, and some of what is behind it may
// be: storing it again does no harm.
func Load(ctx context.Context, cfg LoadConfig) (Mark, error) {
	if cfg.Workers <= 0 {
		cfg.Workers = 64
	}
	if cfg.Patience <= 0 {
		cfg.Patience = time.Minute
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	l := &loader{cfg: cfg, ctx: ctx, stop: stop, mark: cfg.From}
	l.mark.Offset, l.mark.Line = cfg.Source.offset, cfg.Source.line
	var workers sync.WaitGroup
	queues := make([]chan pending, cfg.Workers)
	for i := range queues {
		queues[i] = make(chan pending, queueItems)
		workers.Go(func() { l.work(queues[i]) })
	}
	badInput := l.read(queues)
	for _, q := range queues {
		close(q)
	}
	workers.Wait() // what was read before a bad record is still stored
	if err := context.Cause(ctx); err != nil {
		return l.mark, err
	}
	return l.mark, badInput
}

// loader is one load under way.
type loader struct {
	cfg  LoadConfig
	ctx  context.Context // ends with the load's first error as its cause
	stop context.CancelCauseFunc

	mu    sync.Mutex
	mark  Mark
	queue []*step // read and not yet behind the mark, in the order of the input
}

// step is the part of an item that the mark waits for.
type step struct {
	end, line int64
	bytes     int
	done, bad bool
}

type pending struct {
	item Item
	step *step
}

// read hands items to the workers until the input ends or something fails; the
// error is the input's.
func (l *loader) read(queues []chan pending) error {
	seed := maphash.MakeSeed()
	for {
		item, err := l.cfg.Source.Next()
		var bad *BadRecordError
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.As(err, &bad) && l.cfg.SkipBad:
			l.add(&step{end: l.cfg.Source.offset, line: l.cfg.Source.line, done: true, bad: true})
			continue
		case errors.As(err, &bad):
			return &partition.Error{
				Code: partition.CodeInvalid, Why: bad.Error(),
				Next: "mend the input, or skip such records with --skip-bad",
			}
		case err != nil:
			return err
		}
		s := &step{end: item.End, line: l.cfg.Source.line, bytes: len(item.Value)}
		l.add(s)
		select {
		case queues[maphash.Bytes(seed, item.Key)%uint64(len(queues))] <- pending{item, s}:
		case <-l.ctx.Done():
			return nil // the cause says why
		}
	}
}

func (l *loader) work(queue <-chan pending) {
	for p := range queue {
		if l.ctx.Err() != nil {
			continue
		}
		ctx, cancel := context.WithTimeout(l.ctx, l.cfg.Patience)
		err := l.cfg.Put(ctx, p.item.Key, p.item.Value)
		cancel()
		if err != nil {
			l.stop(fmt.Errorf("store line %d: %w", p.item.Line, err))
			continue
		}
		l.finish(p.step)
	}
}

func (l *loader) add(s *step) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue = append(l.queue, s)
	if s.done {
		l.advance()
	}
}

func (l *loader) finish(s *step) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.done = true
	l.advance()
}

// advance moves the mark over everything that is done without a gap.
func (l *loader) advance() {
	n := 0
	for ; n < len(l.queue) && l.queue[n].done; n++ {
		s := l.queue[n]
		l.mark.Offset, l.mark.Line = s.end, s.line
		if s.bad {
			l.mark.Bad++
			continue
		}
		l.mark.Loaded++
		l.mark.Bytes += int64(s.bytes)
	}
	if n == 0 {
		return
	}
	clear(l.queue[:n])
	l.queue = l.queue[n:]
	if l.cfg.OnMark != nil {
		l.cfg.OnMark(l.mark)
	}
}
