package mailbox

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

// Panic is the reason of a failure: what was thrown, and where.
type Panic struct {
	Value any
	Stack []byte
}

// Error returns the value without the stack.
func (p *Panic) Error() string { return fmt.Sprintf("panic: %v", p.Value) }

// Unwrap returns the value if it is an error.
func (p *Panic) Unwrap() error {
	err, _ := p.Value.(error)
	return err
}

// Failure describes a failed actor to the callbacks of a Backoff.
type Failure struct {
	Child *actor.PID
	// Reason is a *Panic for actors with a Box.
	Reason any
	// Message is what was being handled: a *Batch if it was items. Whoever
	// waits for an answer to one of them must be told by the callback.
	Message any
	// Count is how many failures of the child the window holds, this included.
	Count int
	// Delay is the wait before the restart; 0 when giving up.
	Delay time.Duration
}

// BackoffConfig shapes a Backoff. The zero value of each field works.
type BackoffConfig struct {
	// Base and Cap bound the wait before the n-th restart of the window:
	// min(Cap, Base*2^(n-1)), plus up to a quarter of it at random (defaults
	// 50 ms and 10 s).
	Base, Cap time.Duration
	// Limit is how many failures the Window allows; one more stops the child
	// (defaults 3 and 1 minute).
	Limit  int
	Window time.Duration
	// Fatal, if set, names the reasons for which a restart makes no sense, such
	// as damage on disk: the child is stopped at once.
	Fatal func(reason any) bool
	// OnRestart, if set, is told before each wait, OnGiveUp after a child was
	// told to stop. Both run where the supervisor handles failures: on its own
	// mailbox, or for children of the root on the child's. They must not block.
	OnRestart, OnGiveUp func(Failure)
}

// Backoff is an actor.SupervisorStrategy that restarts a failed child after a
// growing delay and gives up past a limit. While it waits, the child's mailbox
// is suspended, which is why that must be bounded. One Backoff serves one
// supervisor, which calls Close when it stops.
type Backoff struct {
	c BackoffConfig

	mu      sync.Mutex
	history map[string][]time.Time // failures of each child within the window
	waiting map[string]*time.Timer
	closed  bool
}

// NewBackoff makes a strategy.
func NewBackoff(c BackoffConfig) *Backoff {
	if c.Base <= 0 {
		c.Base = 50 * time.Millisecond
	}
	if c.Cap <= 0 {
		c.Cap = 10 * time.Second
	}
	if c.Limit <= 0 {
		c.Limit = 3
	}
	if c.Window <= 0 {
		c.Window = time.Minute
	}
	return &Backoff{c: c, history: make(map[string][]time.Time), waiting: make(map[string]*time.Timer)}
}

// HandleFailure restarts or stops the child. It does not block.
func (s *Backoff) HandleFailure(system *actor.ActorSystem, supervisor actor.Supervisor, child *actor.PID, _ *actor.RestartStatistics, reason any, message any) {
	f := Failure{Child: child, Reason: reason, Message: message, Count: s.record(child.Id, time.Now())}
	if f.Count > s.c.Limit || s.c.Fatal != nil && s.c.Fatal(reason) {
		s.Forget(child)
		supervisor.StopChildren(child)
		publish(system, f, actor.StopDirective)
		if s.c.OnGiveUp != nil {
			s.c.OnGiveUp(f)
		}
		return
	}
	f.Delay = s.delay(f.Count, rand.Float64())
	publish(system, f, actor.RestartDirective)
	if s.c.OnRestart != nil {
		s.c.OnRestart(f)
	}
	s.restartLater(supervisor, f)
}

func publish(system *actor.ActorSystem, f Failure, d actor.Directive) {
	system.EventStream.Publish(&actor.SupervisorEvent{Child: f.Child, Reason: f.Reason, Directive: d})
}

// restartLater restarts the child when its wait is over, unless it is forgotten
// or the strategy closed before: a restart that meets an actor while it stops
// would wake it up again.
func (s *Backoff) restartLater(supervisor actor.Supervisor, f Failure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	var t *time.Timer
	t = time.AfterFunc(f.Delay, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.waiting[f.Child.Id] != t {
			return
		}
		delete(s.waiting, f.Child.Id)
		supervisor.RestartChildren(f.Child)
	})
	s.waiting[f.Child.Id] = t
}

// record notes a failure and returns how many the window holds. It drops what
// has left the window, of all children, so the history stays small.
func (s *Backoff) record(id string, now time.Time) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for child, times := range s.history {
		for len(times) > 0 && now.Sub(times[0]) >= s.c.Window {
			times = times[1:]
		}
		if len(times) == 0 {
			delete(s.history, child)
		} else {
			s.history[child] = times
		}
	}
	s.history[id] = append(s.history[id], now)
	return len(s.history[id])
}

// delay is the wait before the n-th restart, n from 1, with chance in [0, 1).
func (s *Backoff) delay(n int, chance float64) time.Duration {
	d := s.c.Cap
	if n <= 30 {
		if grown := s.c.Base << (n - 1); grown > 0 && grown < s.c.Cap {
			d = grown
		}
	}
	return d + time.Duration(chance*float64(d)/4)
}

// Forget cancels the child's restart and drops its history. A supervisor calls
// it before it stops the child on purpose.
func (s *Backoff) Forget(child *actor.PID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.history, child.Id)
	if t := s.waiting[child.Id]; t != nil {
		t.Stop()
		delete(s.waiting, child.Id)
	}
}

// Close cancels all restarts. A supervisor calls it while it handles Stopping,
// before its children are stopped.
func (s *Backoff) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for id, t := range s.waiting {
		t.Stop()
		delete(s.waiting, id)
	}
}

var _ actor.SupervisorStrategy = (*Backoff)(nil)
