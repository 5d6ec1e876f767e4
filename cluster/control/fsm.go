package control

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"pando.dev/pando/partition"
)

// fsm puts the state under the replicated log. The library calls Apply,
// Snapshot and Restore from one goroutine; mu is for the leader's questions
// beside it. Readers of the catalog take the pointer and never wait.
type fsm struct {
	mu      sync.Mutex
	state   *state
	stopped error // set once; the state no longer follows the log
	applied uint64

	catalog atomic.Pointer[Catalog]
	// changed is called after the catalog has changed, without mu.
	changed func()
	// fatal is called once, when the log holds what this program cannot apply.
	fatal func(error)
}

// result is what Apply returns to the leader.
type result struct {
	locks   *lockAnswer
	table   *tableAnswer
	permits *permitAnswer
	stale   bool // prepared for an older state; prepare it again
	err     *partition.Error
}

func newFSM(changed func(), fatal func(error)) *fsm {
	f := &fsm{state: newState(), changed: changed, fatal: fatal}
	f.catalog.Store(f.state.catalog)
	return f
}

// Apply executes one committed command. The answer is a result.
func (f *fsm) Apply(l *raft.Log) any {
	f.mu.Lock()
	if f.stopped != nil {
		err := f.stopped
		f.mu.Unlock()
		return result{err: asError(err)}
	}
	r, err := f.state.apply(l.Data)
	f.stopped = err
	f.applied = l.Index
	f.mu.Unlock()
	if err != nil {
		f.fatal(err)
		return result{err: asError(err)}
	}
	f.publish()
	return r
}

// publish shows the catalog to readers if it is another than before.
func (f *fsm) publish() {
	f.mu.Lock()
	c := f.state.catalog
	f.mu.Unlock()
	if f.catalog.Swap(c) != c {
		f.changed()
	}
}

// apply executes a command. An error, other than the one in the result, means
// that this program cannot know what the command does: it must not go on,
// because other seats may know.
func (s *state) apply(b []byte) (result, error) {
	k, err := kindOf(b)
	if err != nil {
		return s.refuse(err)
	}
	switch k {
	case kindLocks:
		return execute(s, k, b, s.locked)
	case kindLocksNoStart:
		return execute(s, k, b, func(c *locksNoStart) result { return s.locked(c.now()) })
	case kindSessions:
		return execute(s, k, b, func(c *sessionsBody) result { return result{err: s.applySessions(c)} })
	case kindSessionsNoStart:
		return execute(s, k, b, func(c *sessionsNoStart) result { return result{err: s.applySessions(c.now())} })
	case kindCreate:
		return execute(s, k, b, func(c *createBody) result {
			a, stale, refused := s.applyCreate(c)
			return result{table: a, stale: stale, err: refused}
		})
	case kindDrop:
		return execute(s, k, b, func(c *dropBody) result {
			a, refused := s.applyDrop(c)
			return result{table: a, err: refused}
		})
	case kindAlter:
		return execute(s, k, b, func(c *alterBody) result {
			a, refused := s.applyAlter(c)
			return result{table: a, err: refused}
		})
	case kindSplits:
		return execute(s, k, b, func(c *splitsBody) result {
			a, refused := s.applySplits(c)
			return result{table: a, err: refused}
		})
	case kindPermit:
		return execute(s, k, b, func(c *permitBody) result {
			a, refused := s.applyPermit(c)
			return result{permits: a, err: refused}
		})
	case kindUpdate:
		return execute(s, k, b, func(c *updateBody) result { return result{err: s.applyUpdate(c)} })
	}
	return s.applyTask(k, b)
}

// applyTask executes a command about tasks.
func (s *state) applyTask(k kind, b []byte) (result, error) {
	switch k {
	case kindSplit:
		return execute(s, k, b, func(c *splitBody) result {
			a, refused := s.applySplit(c)
			return result{table: a, err: refused}
		})
	case kindMerge:
		return execute(s, k, b, func(c *mergeBody) result {
			a, refused := s.applyMerge(c)
			return result{table: a, err: refused}
		})
	case kindPlan:
		return execute(s, k, b, func(c *planBody) result {
			a, refused := s.applyPlan(c)
			return result{table: a, err: refused}
		})
	case kindStart:
		return execute(s, k, b, func(c *startBody) result { return result{err: s.applyStart(c)} })
	case kindActivate:
		return execute(s, k, b, func(c *activateBody) result { return result{err: s.applyActivation(c)} })
	case kindReport:
		return execute(s, k, b, func(c *reportBody) result { return result{err: s.applyReport(c)} })
	case kindCancel:
		return execute(s, k, b, func(c *cancelBody) result { return result{err: s.applyCancel(c)} })
	}
	return s.refuse(partition.Errorf(partition.CodeNewerFormat, "a control command of kind %d, unknown to this program", k))
}

// execute decodes a command and carries it out.
func execute[T any](s *state, k kind, b []byte, f func(*T) result) (result, error) {
	c, err := decode[T](k, b)
	if err != nil {
		return s.refuse(err)
	}
	return f(c), nil
}

func (s *state) locked(b *locksBody) result {
	a, refused := s.applyLocks(b)
	return result{locks: a, err: refused}
}

// refuse tells a damaged command, which every seat refuses alike, from a newer
// one, at which this seat has to stop.
func (s *state) refuse(err error) (result, error) {
	if partition.CodeOf(err) == partition.CodeNewerFormat {
		return result{}, &partition.Error{
			Code: partition.CodeNewerFormat, Why: err.Error(),
			Next: "start a newer version of the program on this node",
		}
	}
	return result{err: asError(err)}, nil
}

// Snapshot is called between two Apply; what it returns is written beside them.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stopped != nil {
		return nil, fmt.Errorf("no snapshot of a state that stopped: %w", f.stopped)
	}
	return persist{f.state.snapshot()}, nil
}

// Restore replaces the state by a snapshot, or leaves it as it is.
func (f *fsm) Restore(r io.ReadCloser) error {
	defer r.Close()
	s, err := readState(r)
	if err != nil {
		return fmt.Errorf("restore the control group: %w", err)
	}
	f.mu.Lock()
	f.state = s
	f.mu.Unlock()
	f.publish()
	return nil
}

// persist writes a snapshot into the library's sink.
type persist struct{ s *snapshot }

// Persist writes and closes the sink, or cancels it.
func (p persist) Persist(sink raft.SnapshotSink) error {
	if err := p.s.write(sink); err != nil {
		sink.Cancel()
		return fmt.Errorf("write control snapshot: %w", err)
	}
	return sink.Close()
}

// Release has nothing to give back.
func (persist) Release() {}

// look calls f with the state as of now. f must be quick and must not keep it.
func (f *fsm) look(g func(*state)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	g(f.state)
}
