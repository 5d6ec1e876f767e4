package mailbox

import (
	"runtime"
	"runtime/debug"
	"sync"

	"github.com/asynkron/protoactor-go/actor"
)

const (
	// DefaultItems and DefaultBytes bound a box whose Config leaves them out.
	DefaultItems = 4_096
	DefaultBytes = 16 << 20
	// messagesPerTurn is how many single messages go before a waiting batch.
	messagesPerTurn = 64
	// keepItems is the room for items that a box always keeps, slackTurns how
	// many turns a larger one may stand nearly empty.
	keepItems  = 256
	slackTurns = 32
)

// Config bounds a box. The zero value of a field means its default. Both bounds
// hold for items and, on their own account, for messages of TryPostMessage, so
// a flood of one kind leaves the other its room. An item over Bytes is taken
// when the box is empty: a limit on single items belongs to the caller.
type Config struct {
	Items int // default DefaultItems
	Bytes int // default DefaultBytes
}

// Batch is everything that was posted since the last turn, in order. It and its
// Items belong to the box: they are valid until Receive returns, and the
// actor copies what it keeps.
type Batch[T any] struct {
	Items []T
	Bytes int
}

// Stats is what a box holds and has refused so far.
type Stats struct {
	Items, Bytes, Messages int
	Refused                uint64
}

// Box is an actor.Mailbox. One box serves one actor and stays with it over
// restarts. Its methods may be called from any goroutine.
//
//	system messages   always taken, first; suspend and resume are the box's own
//	messages          one Receive each: PostUserMessage (from Send, Request and
//	                  Poison) always takes them, TryPostMessage refuses when full
//	items             one Receive for all, as *Batch[T]; TryPost refuses when full
//
// Order is kept within each of the three, not between them; messages go before
// items, though not for ever.
type Box[T any] struct {
	limit Config

	mu        sync.Mutex
	system    queue[any]
	messages  queue[message]
	items     []T
	itemBytes int
	bounded   Config // what the messages in the queue take of their bounds
	refused   uint64
	scheduled bool // run is going or is about to: whoever sets it starts run
	suspended bool
	closed    bool

	// Owned by run, which exists once at a time.
	batch   *Batch[T]
	current any // what is being handled, for the report of a panic
	inRow   int // messages since the last batch
	slack   int // turns in a row that used little of a large room

	invoker    actor.MessageInvoker
	dispatcher actor.Dispatcher
	runOnce    func() // b.run, made once so that scheduling does not allocate
}

// message is one queued message; weight is what it takes of the bound.
type message struct {
	body    any
	bytes   int
	bounded bool
}

// New makes a box.
func New[T any](c Config) *Box[T] {
	if c.Items <= 0 {
		c.Items = DefaultItems
	}
	if c.Bytes <= 0 {
		c.Bytes = DefaultBytes
	}
	b := &Box[T]{limit: c, batch: &Batch[T]{}}
	b.runOnce = b.run
	return b
}

// Producer returns the function that actor.WithMailbox takes. It hands out this
// box, so props with it spawn one actor.
func (b *Box[T]) Producer() actor.MailboxProducer {
	return func() actor.Mailbox { return b }
}

// TryPost queues an item that counts for the given bytes. It never blocks; false
// means that the box is full or closed and that nothing was queued.
func (b *Box[T]) TryPost(item T, bytes int) bool {
	b.mu.Lock()
	if b.closed || len(b.items) >= b.limit.Items || (b.itemBytes+bytes > b.limit.Bytes && len(b.items) > 0) {
		b.refused++
		b.mu.Unlock()
		return false
	}
	b.items = append(b.items, item)
	b.itemBytes += bytes
	b.wakeAndUnlock(!b.suspended)
	return true
}

// TryPostMessage queues a message that gets a Receive of its own, in order with
// those of PostUserMessage, if the bounds allow. It is for what a peer may send.
func (b *Box[T]) TryPostMessage(body any, bytes int) bool {
	b.mu.Lock()
	if b.closed || b.bounded.Items >= b.limit.Items || (b.bounded.Bytes+bytes > b.limit.Bytes && b.bounded.Items > 0) {
		b.refused++
		b.mu.Unlock()
		return false
	}
	b.bounded.Items++
	b.bounded.Bytes += bytes
	b.messages.push(message{body: body, bytes: bytes, bounded: true})
	b.wakeAndUnlock(!b.suspended)
	return true
}

// PostUserMessage queues a message; it is never refused. It is meant for the
// node's own actors, which send a bounded number.
func (b *Box[T]) PostUserMessage(body any) {
	b.mu.Lock()
	b.messages.push(message{body: body})
	b.wakeAndUnlock(!b.suspended)
}

// Post is PostUserMessage for who must hear whether the message will be handled:
// false means that the box is closed. What is queued by then is in Rest.
func (b *Box[T]) Post(body any) bool {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return false
	}
	b.messages.push(message{body: body})
	b.wakeAndUnlock(!b.suspended)
	return true
}

// PostSystemMessage queues a message of the actor system before all others.
func (b *Box[T]) PostSystemMessage(body any) {
	b.mu.Lock()
	b.system.push(body)
	b.wakeAndUnlock(true)
}

// wakeAndUnlock starts a run if there is something to do and none is going. The
// flag and the queues share one lock, so no wake-up is lost.
func (b *Box[T]) wakeAndUnlock(work bool) {
	start := work && !b.scheduled && b.dispatcher != nil
	if start {
		b.scheduled = true
	}
	b.mu.Unlock()
	if start {
		b.dispatcher.Schedule(b.runOnce)
	}
}

// RegisterHandlers is called once, by the actor system, before Start.
func (b *Box[T]) RegisterHandlers(invoker actor.MessageInvoker, dispatcher actor.Dispatcher) {
	b.mu.Lock()
	b.invoker, b.dispatcher = invoker, dispatcher
	b.mu.Unlock()
}

// Start begins to deliver what was posted before the actor existed.
func (b *Box[T]) Start() {
	b.mu.Lock()
	b.wakeAndUnlock(b.pending())
}

func (b *Box[T]) pending() bool {
	return b.system.len() > 0 || !b.suspended && (b.messages.len() > 0 || len(b.items) > 0)
}

// UserMessageCount returns the messages and items that wait.
func (b *Box[T]) UserMessageCount() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.messages.len() + len(b.items)
}

// Stats returns what the box holds and has refused.
func (b *Box[T]) Stats() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	return Stats{Items: len(b.items), Bytes: b.itemBytes, Messages: b.messages.len(), Refused: b.refused}
}

// Close makes every further TryPost and TryPostMessage fail and returns the
// items that were not delivered. An actor calls it while it handles Stopping,
// and answers whoever waits for those items: a stopped actor gets no more of
// them, and the actor system would drop them without a word.
func (b *Box[T]) Close() []T {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	rest := b.items
	b.items, b.itemBytes = nil, 0
	return rest
}

// Rest takes out the messages that were not delivered. An actor calls it after
// Close, for the same reason.
func (b *Box[T]) Rest() (rest []any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.messages.len() > 0 {
		rest = append(rest, b.messages.pop().body)
	}
	b.bounded = Config{}
	return rest
}

// run delivers until nothing is left. A panic ends one process, not the run:
// the failure was escalated, which suspends the box by a system message.
func (b *Box[T]) run() {
	for b.process() {
		continue
	}
}

// process delivers turns and reports whether it must be called again.
func (b *Box[T]) process() (again bool) {
	defer func() {
		if r := recover(); r != nil {
			b.escalate(r)
			again = true
		}
	}()
	throughput := max(1, b.dispatcher.Throughput())
	for turn := 1; b.deliver(); turn++ {
		if turn%throughput == 0 {
			runtime.Gosched()
		}
	}
	return false
}

// escalate tells the supervisor. The batch that was being handled goes with the
// failure and is not used again; the rest of the queue waits.
func (b *Box[T]) escalate(reason any) {
	failed := b.current
	b.current = nil
	if failed == any(b.batch) {
		b.batch = &Batch[T]{}
	}
	b.invoker.EscalateFailure(&Panic{Value: reason, Stack: debug.Stack()}, failed)
}

// deliver handles one thing, or else clears the scheduled flag and returns
// false.
func (b *Box[T]) deliver() bool {
	b.mu.Lock()
	if b.system.len() > 0 {
		m := b.system.pop()
		b.deliverSystem(m) // unlocks
		return true
	}
	if b.suspended || b.messages.len() == 0 && len(b.items) == 0 {
		b.scheduled = false
		b.mu.Unlock()
		return false
	}
	if b.messages.len() > 0 && (b.inRow < messagesPerTurn || len(b.items) == 0) {
		m := b.messages.pop()
		if m.bounded {
			b.bounded.Items--
			b.bounded.Bytes -= m.bytes
		}
		b.mu.Unlock()
		b.inRow++
		b.invoke(m.body)
		return true
	}
	b.batch.Items, b.items = b.items, b.batch.Items[:0]
	b.batch.Bytes, b.itemBytes = b.itemBytes, 0
	b.mu.Unlock()
	b.inRow = 0
	b.invoke(b.batch)
	b.release()
	return true
}

// deliverSystem is called with the lock and gives it back.
func (b *Box[T]) deliverSystem(m any) {
	switch m.(type) {
	case *actor.SuspendMailbox:
		b.suspended = true
		b.mu.Unlock()
	case *actor.ResumeMailbox:
		b.suspended = false
		b.mu.Unlock()
	default:
		b.mu.Unlock()
		b.current = m
		b.invoker.InvokeSystemMessage(m)
		b.current = nil
	}
}

func (b *Box[T]) invoke(m any) {
	b.current = m
	b.invoker.InvokeUserMessage(m)
	b.current = nil
}

// release drops what the handled batch refers to, and its room if a burst made
// it much larger than what is used now.
func (b *Box[T]) release() {
	used := len(b.batch.Items)
	if c := cap(b.batch.Items); c > keepItems {
		if b.slack++; used > c/4 {
			b.slack = 0
		}
		if b.slack >= slackTurns {
			b.batch.Items = nil
			return
		}
	}
	clear(b.batch.Items)
	b.batch.Items = b.batch.Items[:0]
}

// queue is a first-in first-out queue that reuses its room.
type queue[T any] struct {
	s    []T
	head int
}

func (q *queue[T]) len() int { return len(q.s) - q.head }

func (q *queue[T]) push(x T) { q.s = append(q.s, x) }

// pop takes the oldest; the queue must not be empty.
func (q *queue[T]) pop() T {
	var zero T
	x := q.s[q.head]
	q.s[q.head] = zero
	q.head++
	switch {
	case q.head == len(q.s) && cap(q.s) > keepItems:
		q.s, q.head = nil, 0
	case q.head == len(q.s):
		q.s, q.head = q.s[:0], 0
	case q.head >= keepItems && q.head >= len(q.s)/2:
		n := copy(q.s, q.s[q.head:])
		clear(q.s[n:])
		q.s, q.head = q.s[:n], 0
	}
	return x
}

var _ actor.Mailbox = (*Box[int])(nil)
