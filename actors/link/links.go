package link

import (
	"context"
	"fmt"
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"pando.dev/pando/actors/mailbox"
	"pando.dev/pando/partition"
)

// closeWait bounds how long Close waits for goroutines of handlers.
const closeWait = 5 * time.Second

// Links are a node's connections to all others. Its methods may be called from
// any goroutine.
type Links struct {
	c        Config
	n        counters
	listener net.Listener
	registry *registry
	root     *actor.PID // supervisor of the link actors
	streams  chan net.Conn

	handshakes, clients, raft gate

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex // guards what follows and changes of peers
	closed  bool
	open    map[net.Conn]bool // connections that Close must close itself
	peers   atomic.Pointer[map[partition.NodeID]*link]
	exposed sync.Map // actor id -> Poster
}

// Start listens and begins to link.
func Start(c Config) (*Links, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	c.setDefaults()
	registry, err := newRegistry(c.Types)
	if err != nil {
		return nil, err
	}
	if err := takeAddress(c.System, Address(c.Node, c.Boot)); err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return nil, &partition.Error{Code: partition.CodeRefused, Why: fmt.Sprintf("listen for links on %s: %v", c.Listen, err),
			Next: "free the port or choose another listen address"}
	}
	l := &Links{c: c, listener: ln, registry: registry, streams: make(chan net.Conn, c.MaxStreams),
		handshakes: newGate(c.MaxHandshakes), clients: newGate(c.MaxClients), raft: newGate(c.MaxStreams),
		open: make(map[net.Conn]bool)}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.peers.Store(&map[partition.NodeID]*link{})
	l.root, err = c.Spawn(actor.PropsFromProducer(func() actor.Actor { return newSupervisor(l) }), "links")
	if err != nil {
		ln.Close()
		return nil, fmt.Errorf("spawn links: %w", err)
	}
	c.System.ProcessRegistry.RegisterAddressResolver(l.resolve)
	l.wg.Go(l.accept)
	return l, nil
}

// takeAddress makes addr the system's, once.
func takeAddress(system *actor.ActorSystem, addr string) error {
	switch at := system.ProcessRegistry.Address; at {
	case "nonhost", addr:
		system.ProcessRegistry.Address = addr
		return nil
	default:
		return partition.Errorf(partition.CodeInvalid, "the actor system has the address %s already, not %s", at, addr)
	}
}

// Addr is where the node listens.
func (l *Links) Addr() string { return l.listener.Addr().String() }

// SetPeers says to which nodes there should be links. A node that is no longer
// named keeps its link while that works.
func (l *Links) SetPeers(nodes []partition.NodeID) {
	want := make(map[partition.NodeID]bool, len(nodes))
	for _, n := range nodes {
		if n == l.c.Node {
			continue
		}
		want[n] = true
		if k := l.linkTo(n); k != nil {
			k.wanted.Store(true)
			k.post(evWanted{})
		}
	}
	for n, k := range *l.peers.Load() {
		if !want[n] && k.wanted.Swap(false) {
			k.post(evWanted{})
		}
	}
}

// linkTo returns the link to a node and makes it if there is none; nil if there
// are too many or Close was called.
func (l *Links) linkTo(n partition.NodeID) *link {
	if k := (*l.peers.Load())[n]; k != nil {
		return k
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	old := *l.peers.Load()
	if k := old[n]; k != nil {
		return k
	}
	if l.closed || len(old) >= l.c.MaxPeers {
		return nil
	}
	k := newLink(l, n)
	grown := maps.Clone(old)
	grown[n] = k
	l.peers.Store(&grown)
	l.c.System.Root.Send(l.root, k)
	return k
}

// drop forgets a link that has ended.
func (l *Links) drop(k *link) {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := *l.peers.Load()
	if old[k.node] != k {
		return
	}
	fewer := maps.Clone(old)
	delete(fewer, k.node)
	l.peers.Store(&fewer)
}

// Send sends a frame to a replica on another node. It does not block. A nil
// error means that the frame is on its way, not that it arrives; any other that
// it was not sent: CodeBusy if too much waits already, CodeUnavailable without a
// link.
func (l *Links) Send(to partition.NodeID, f Frame) error {
	if f.Kind < KindAppend || f.Kind > KindHandOver {
		return partition.Errorf(partition.CodeInvalid, "%s is no frame between replicas", f.Kind)
	}
	if limit, _ := classData.bound(f.Kind); f.bodyBytes() > limit {
		return partition.Errorf(partition.CodeTooLarge, "%s frame of %d bytes, limit %d", f.Kind, f.bodyBytes(), limit)
	}
	s := l.session(to)
	if s == nil {
		l.n.sendDown.Add(1)
		return partition.Errorf(partition.CodeUnavailable, "no link to node %s", to)
	}
	return s.send(s.data, &f)
}

// session returns the working session with a node, or nil.
func (l *Links) session(n partition.NodeID) *session {
	if k := (*l.peers.Load())[n]; k != nil {
		return k.session.Load()
	}
	return nil
}

// Close ends all connections and waits, bounded, for the handlers that serve
// them.
func (l *Links) Close() {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return
	}
	l.closed = true
	l.mu.Unlock()
	l.cancel()
	l.listener.Close()
	_ = l.c.System.Root.StopFuture(l.root).Wait()
	for _, k := range *l.peers.Load() {
		k.end(nil)
	}
	l.mu.Lock()
	for c := range l.open {
		c.Close()
	}
	l.mu.Unlock()
	l.drainStreams()
	done := make(chan struct{})
	go func() {
		l.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(closeWait):
		l.c.Logger.Warn("handlers of connections are still running")
	}
}

func (l *Links) drainStreams() {
	for {
		select {
		case c := <-l.streams:
			c.Close()
		default:
			return
		}
	}
}

// track notes a connection that is to be closed by Close; false if that was
// called already.
func (l *Links) track(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		c.Close()
		return false
	}
	l.open[c] = true
	return true
}

func (l *Links) untrack(c net.Conn) {
	l.mu.Lock()
	delete(l.open, c)
	l.mu.Unlock()
}

// supervisor is the parent of the link actors. It spawns one for each link it is
// sent, and restarts those that fail.
type supervisor struct {
	l       *Links
	backoff *mailbox.Backoff
	byPID   map[string]*link
}

func newSupervisor(l *Links) *supervisor {
	s := &supervisor{l: l, byPID: make(map[string]*link)}
	s.backoff = mailbox.NewBackoff(mailbox.BackoffConfig{OnRestart: s.onRestart, OnGiveUp: s.onGiveUp})
	return s
}

// Receive spawns links.
func (s *supervisor) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *link:
		props := actor.PropsFromProducer(func() actor.Actor { return &linkActor{link: m} }, actor.WithMailbox(m.box.Producer()))
		// The name carries a number, because the last actor for the same node may
		// not have ended yet.
		pid, err := ctx.SpawnNamed(props, fmt.Sprintf("%s:%d", m.node, m.number))
		if err != nil {
			s.l.c.Logger.Error("link was not spawned", "node", m.node, "err", err)
			s.l.drop(m)
			return
		}
		s.byPID[pid.Id] = m
	case *actor.Terminated:
		delete(s.byPID, m.Who.Id)
	case *actor.Stopping:
		s.backoff.Close()
	}
}

// HandleFailure restarts a failed link after a while.
func (s *supervisor) HandleFailure(system *actor.ActorSystem, sup actor.Supervisor, child *actor.PID, rs *actor.RestartStatistics, reason, message any) {
	s.backoff.HandleFailure(system, sup, child, rs, reason, message)
}

func (s *supervisor) onRestart(f mailbox.Failure) {
	s.l.n.bad[badPanic].Add(1)
	s.l.c.Logger.Error("link failed and is restarted", "actor", f.Child.Id, "err", f.Reason, "stack", stackOf(f.Reason), "delay", f.Delay)
}

func (s *supervisor) onGiveUp(f mailbox.Failure) {
	s.l.c.Logger.Error("link failed too often and is given up until the peers are set again", "actor", f.Child.Id, "err", f.Reason)
	if k := s.byPID[f.Child.Id]; k != nil {
		s.l.drop(k)
		k.end(nil)
	}
}

func stackOf(reason any) string {
	if p, ok := reason.(*mailbox.Panic); ok {
		return string(p.Stack)
	}
	return ""
}

// gate bounds how many of something there are.
type gate chan struct{}

func newGate(n int) gate { return make(gate, n) }

func (g gate) enter() bool {
	select {
	case g <- struct{}{}:
		return true
	default:
		return false
	}
}

func (g gate) leave() { <-g }
