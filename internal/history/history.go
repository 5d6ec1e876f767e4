package history

import (
	"fmt"
	"sync"
	"time"
)

const (
	// MaxOperations bounds the operations of one key that Check accepts.
	MaxOperations = 1000
	// spareOperations are left by Window for reads after the load has ended.
	spareOperations = 100
)

// Kind says what an operation does.
type Kind string

const (
	// Write sets Key to Value.
	Write Kind = "write"
	// Read asks for the value of Key.
	Read Kind = "read"
	// CAS sets Key to Value if it is Old.
	CAS Kind = "cas"
	// Append adds the element Value to the list Key, or one to the counter Key.
	Append Kind = "append"
)

// Op is what a client asks for.
type Op struct {
	Kind  Kind   `json:"op"`
	Key   string `json:"key"`
	Value string `json:"value,omitempty"` // not empty, except for Read
	Old   string `json:"old,omitempty"`   // of CAS; empty: the key must be absent
}

// Result is what a client was told.
type Result struct {
	Got     string `json:"got,omitempty"`     // of Read; empty: the key is absent
	Swapped bool   `json:"swapped,omitempty"` // of CAS
	// Seq is the place of an appended element or the value of the counter with
	// it, from 1 on; 0 if it was not told.
	Seq uint64 `json:"seq,omitempty"`
}

// Outcome says how a call ended.
type Outcome string

const (
	// OutcomeOpen is a call that has not ended; it is judged like an unknown one.
	OutcomeOpen Outcome = "open"
	// OutcomeOK is a call that was answered.
	OutcomeOK Outcome = "ok"
	// OutcomeUnknown is a call that may or may not have taken effect, or may yet.
	OutcomeUnknown Outcome = "unknown"
	// OutcomeRefused is a call that certainly never takes effect.
	OutcomeRefused Outcome = "refused"
)

// Event is one operation as it was recorded, and one line of a dump. Called and Ended come from one
// counter, so they order all events of a history; Ended is 0 if the call is
// open. The times since the start of the history are for the reader only.
type Event struct {
	Client int `json:"client"`
	Op
	Outcome Outcome `json:"outcome"`
	Result
	Called   uint64        `json:"called"`
	Ended    uint64        `json:"ended,omitempty"`
	CalledAt time.Duration `json:"called_ns"`
	EndedAt  time.Duration `json:"ended_ns,omitempty"`
}

// History is a recording. Any number of clients may record at once.
type History struct {
	start time.Time

	mu       sync.Mutex
	clock    uint64
	calls    []*Call
	windows  map[string]window
	lists    map[string][]string
	counters map[string]uint64
}

// window is how far Window is with a slot.
type window struct {
	generation, used int
}

// New returns an empty history.
func New() *History {
	return &History{
		start:    time.Now(),
		windows:  map[string]window{},
		lists:    map[string][]string{},
		counters: map[string]uint64{},
	}
}

// Call is an operation under way. It belongs to the client that made it.
type Call struct {
	h *History
	e Event // guarded by h.mu
}

// Invoke records that a client is about to ask for op. It must be called before
// the request leaves. A client number may have several calls under way.
func (h *History) Invoke(client int, op Op) *Call {
	at := time.Since(h.start)
	c := &Call{h: h, e: Event{Client: client, Op: op, Outcome: OutcomeOpen, CalledAt: at}}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	c.e.Called = h.clock
	h.calls = append(h.calls, c)
	return c
}

// Return records the answer. It must be called after the answer arrived.
func (c *Call) Return(r Result) { c.end(OutcomeOK, r) }

// Unknown records that nobody can tell whether the operation takes effect.
func (c *Call) Unknown() { c.end(OutcomeUnknown, Result{}) }

// Refused records that the operation certainly never takes effect. If its value
// shows up all the same, that is a violation.
func (c *Call) Refused() { c.end(OutcomeRefused, Result{}) }

func (c *Call) end(o Outcome, r Result) {
	h := c.h
	at := time.Since(h.start)
	h.mu.Lock()
	defer h.mu.Unlock()
	if c.e.Outcome != OutcomeOpen {
		panic(fmt.Sprintf("history: a call of client %d on %q ended twice", c.e.Client, c.e.Key))
	}
	h.clock++
	c.e.Outcome, c.e.Result, c.e.Ended, c.e.EndedAt = o, r, h.clock, at
}

// Window returns the key that stands for a slot at the moment and counts one
// operation on it. Before a key has had MaxOperations it is left for a fresh
// one, such as "slot.1" after "slot.0", with some operations to spare for reads
// at the end.
func (h *History) Window(slot string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	w := h.windows[slot]
	if w.used == MaxOperations-spareOperations {
		w = window{generation: w.generation + 1}
	}
	w.used++
	h.windows[slot] = w
	return fmt.Sprintf("%s.%d", slot, w.generation)
}

// Observe records what a list holds when nothing is under way any more: every
// element, in the list's order. Without it the list's elements are not checked.
func (h *History) Observe(list string, elements []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lists[list] = append([]string{}, elements...)
}

// ObserveCount records the value of a counter when nothing is under way any
// more. Without it the counter's value is not checked.
func (h *History) ObserveCount(counter string, n uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counters[counter] = n
}

// Events returns a copy of what was recorded so far, in the order of the calls.
func (h *History) Events() []Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	events := make([]Event, len(h.calls))
	for i, c := range h.calls {
		events[i] = c.e
	}
	return events
}

// Acknowledged returns, in order, the keys that a write or a swap was
// acknowledged for: those to read back at the end.
func (h *History) Acknowledged() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	seen := map[string]bool{}
	var keys []string
	for _, c := range h.calls {
		changed := c.e.Kind == Write || c.e.Kind == CAS && c.e.Swapped
		if changed && c.e.Outcome == OutcomeOK && !seen[c.e.Key] {
			seen[c.e.Key] = true
			keys = append(keys, c.e.Key)
		}
	}
	return keys
}
