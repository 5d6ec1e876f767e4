package control

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"pando.dev/pando/cluster/internal/logline"
	"pando.dev/pando/partition"
)

const (
	// commitNotice is how soon the other seats learn that something was
	// committed when nothing follows it, and so how far their catalogs are
	// behind.
	commitNotice = 25 * time.Millisecond
	// maxAppend bounds the entries of one message between seats.
	maxAppend = 128
	// trailingLogs are kept behind a snapshot, for a seat that was away briefly.
	trailingLogs = 1024
	// streamTimeout bounds one exchange between seats.
	streamTimeout = time.Second
	// logCache is how many entries are kept in memory for the other seats.
	logCache = 512
)

// seat is this node's share of the replicated log and its state. It exists from
// the founding on, or from the start if the node was a seat before.
type seat struct {
	fsm   *fsm
	raft  *raft.Raft
	store *store
	now   func() partition.Time

	stopping sync.Once
	stop     raft.Future // set by stopping
	observer *raft.Observer
	observed chan raft.Observation

	mu       sync.Mutex // guards renewals
	renewals renewals
	// ripe is the term of its own in which the state is known to be the newest.
	ripe atomic.Uint64
	// creating keeps two tables from being prepared for the same group ids.
	creating sync.Mutex
}

// openSeat starts the library on this node's store, which it founds with the
// given seats if it is empty. All seats found with the same set, so it does not
// matter which of them does it first.
func openSeat(c *Config, seats []partition.NodeID, changed func(), fatal func(error)) (*seat, error) {
	st, err := openStore(filepath.Join(c.Dir, "store"), c.Logger)
	if err != nil {
		return nil, err
	}
	s := &seat{
		fsm: newFSM(changed, fatal), store: st, now: c.Now,
		renewals: renewals{last: map[partition.NodeID]renewal{}}, observed: make(chan raft.Observation, 16),
	}
	if err := s.start(c, seats); err != nil {
		return nil, errors.Join(fmt.Errorf("start the control group's seat: %w", err), st.Close())
	}
	return s, nil
}

func (s *seat) start(c *Config, seats []partition.NodeID) error {
	logs := logline.New(c.Logger, "raft", map[string]slog.Level{"ERROR": slog.LevelInfo})
	rc := raft.DefaultConfig()
	rc.LocalID = raft.ServerID(c.Node)
	rc.HeartbeatTimeout, rc.ElectionTimeout, rc.LeaderLeaseTimeout = c.RaftTimeout, c.RaftTimeout, c.RaftTimeout
	rc.CommitTimeout, rc.MaxAppendEntries, rc.BatchApplyCh = commitNotice, maxAppend, true
	rc.SnapshotThreshold, rc.SnapshotInterval, rc.TrailingLogs = c.SnapshotThreshold, 10*time.Second, min(trailingLogs, c.SnapshotThreshold)
	rc.LogOutput, rc.LogLevel, rc.NoLegacyTelemetry = logs, "INFO", true

	cached, _ := raft.NewLogCache(logCache, s.store) // fails only without a capacity
	layer := &streams{t: c.Transport, self: nodeAddr(c.Node), open: map[*trackedConn]struct{}{}}
	trans := raft.NewNetworkTransport(layer, 3, streamTimeout, logs)
	has, err := raft.HasExistingState(cached, s.store, s.store)
	if err == nil && !has {
		err = raft.BootstrapCluster(rc, cached, s.store, s.store, trans, configuration(seats))
	}
	if err == nil {
		s.raft, err = raft.NewRaft(rc, s.fsm, cached, s.store, s.store, trans)
	}
	if err != nil {
		return errors.Join(err, trans.Close())
	}
	s.observer = raft.NewObserver(s.observed, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	})
	s.raft.RegisterObserver(s.observer)
	return nil
}

func configuration(seats []partition.NodeID) raft.Configuration {
	var c raft.Configuration
	for _, n := range seats {
		c.Servers = append(c.Servers, raft.Server{Suffrage: raft.Voter, ID: raft.ServerID(n), Address: raft.ServerAddress(n)})
	}
	return c
}

// close stops the library, and with it the transport, and closes the store.
func (s *seat) close() error {
	s.raft.DeregisterObserver(s.observer)
	return errors.Join(s.shutdown().Error(), s.store.Close())
}

// shutdown tells the library to stop. Whoever waits for the future knows that
// it has. The library answers only the first of several calls properly.
func (s *seat) shutdown() raft.Future {
	s.stopping.Do(func() { s.stop = s.raft.Shutdown() })
	return s.stop
}

// leader returns who leads, as far as this seat knows.
func (s *seat) leader() partition.NodeID {
	_, id := s.raft.LeaderWithID()
	return partition.NodeID(id)
}

func (s *seat) leads() bool { return s.raft.State() == raft.Leader }

// renew notes a sign of life and reports whether the node's session has to be
// opened by a command.
func (s *seat) renew(node partition.NodeID, boot, start uint64) (open bool, err *partition.Error) {
	s.fsm.look(func(st *state) {
		x, ok := st.sessions[node]
		err = x.stale(node, boot, start)
		open = !ok || x.boot < boot || x.expired || x.start == 0 && start != 0
	})
	if err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renewals.renew(s.now(), node, boot)
	return open, nil
}

// silent returns the sessions that this seat, if it leads, finds to have ended.
// One goroutine calls it, at most period apart.
func (s *seat) silent(ttl, period time.Duration) (all []sessionItem) {
	term := uint64(0)
	if s.leads() {
		term = s.raft.CurrentTerm()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fsm.look(func(st *state) { all = s.renewals.silent(s.now(), term, st.sessions, ttl, period) })
	return all
}
