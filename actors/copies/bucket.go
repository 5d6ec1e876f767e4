package copies

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"pando.dev/pando/partition"
)

// leastBytes is the least rate, in bytes per second, and the least that is taken
// at once.
const leastBytes = 4096

// bucket bounds a rate. Whoever takes from it reserves the next time that is
// free, so all who wait come in the order in which they asked.
type bucket struct {
	mu   sync.Mutex
	rate float64   // bytes per second; 0 or less: no bound
	paid time.Time // until when the bytes taken so far last at the rate
}

// take waits until n more bytes may go.
func (b *bucket) take(ctx context.Context, n int) error {
	now := time.Now()
	b.mu.Lock()
	if b.rate <= 0 {
		b.mu.Unlock()
		return ctx.Err()
	}
	if earliest := now.Add(-seconds(bursts)); b.paid.Before(earliest) {
		b.paid = earliest
	}
	b.paid = b.paid.Add(seconds(float64(n) / b.rate))
	wait := b.paid.Sub(now)
	b.mu.Unlock()
	return sleep(ctx, wait)
}

// portion is how much to take at once, at most n: at a low rate less, so that
// whoever waits for it does not take the wait for silence.
func (b *bucket) portion(n int) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rate <= 0 {
		return n
	}
	return min(n, max(leastBytes, int(b.rate/4)))
}

func (b *bucket) set(bytesPerSecond int64) {
	rate := float64(bytesPerSecond)
	if bytesPerSecond > 0 {
		rate = max(rate, leastBytes)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if now := time.Now(); b.rate > 0 && rate > 0 && b.paid.After(now) { // what was taken lasts longer or shorter
		b.paid = now.Add(seconds(b.paid.Sub(now).Seconds() * b.rate / rate))
	} else if rate <= 0 {
		b.paid = time.Time{}
	}
	b.rate = rate
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// sleep waits, unless ctx ends before.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// turns lets a few at a time work, and a bounded number wait, in the order in
// which they came.
type turns struct {
	slots   chan struct{}
	waiting atomic.Int32
	limit   int
}

func newTurns(slots, limit int) *turns {
	return &turns{slots: make(chan struct{}, slots), limit: limit}
}

// take waits for a turn; done gives it back.
func (t *turns) take(ctx context.Context) error {
	select {
	case t.slots <- struct{}{}:
		return nil
	default:
	}
	defer t.waiting.Add(-1)
	if t.waiting.Add(1) > int32(t.limit) {
		return partition.Errorf(partition.CodeBusy, "%d copies are under way and %d wait", cap(t.slots), t.limit)
	}
	select {
	case t.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// why says what somebody waits for who has no turn yet.
func (t *turns) why(what string) string {
	if len(t.slots) < cap(t.slots) {
		return ""
	}
	return fmt.Sprintf("waits for one of %d %s copies", cap(t.slots), what)
}

func (t *turns) done() { <-t.slots }
