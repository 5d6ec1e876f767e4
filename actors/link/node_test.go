package link

import (
	"context"
	"flag"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.uber.org/goleak"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/lease"
	"pando.dev/pando/partition/replica"
)

// verbose shows the logs of the nodes in tests.
var verbose = flag.Bool("link.log", false, "show the logs of the nodes")

func TestMain(m *testing.M) {
	// The actor system's throttle of dead letters sleeps for a second and has no
	// way to be stopped.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/asynkron/protoactor-go/actor.NewDeadLetter.NewThrottle.func4.1"))
}

// wait bounds what a test waits for; it only matters when something is broken.
const wait = 20 * time.Second

// book tells nodes where the others are, as gossip would.
type book struct {
	mu sync.Mutex
	at map[partition.NodeID]entry
}

type entry struct {
	addr string
	boot uint64
}

func newBook() *book { return &book{at: make(map[partition.NodeID]entry)} }

func (b *book) set(n partition.NodeID, addr string, boot uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.at[n] = entry{addr, boot}
}

func (b *book) resolve(n partition.NodeID) (string, uint64, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, ok := b.at[n]
	return e.addr, e.boot, ok
}

// node is one node under test.
type node struct {
	*Links
	t      testing.TB
	system *actor.ActorSystem
	leases *lease.Table
	ups    chan entry // addr holds the node's id
	downs  chan entry
	frames chan Frame
	once   sync.Once
}

func logger() *slog.Logger {
	if *verbose {
		return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return slog.New(slog.NewTextHandler(io.Discard, nil))
}

func newSystem() *actor.ActorSystem {
	return actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger {
		return slog.New(slog.NewTextHandler(io.Discard, nil))
	}))
}

// startNode starts a node and enters it into the book. Change may adapt its
// config.
func startNode(t testing.TB, b *book, id partition.NodeID, boot uint64, change func(*Config)) *node {
	t.Helper()
	started := time.Now()
	now := func() partition.Time { return time.Since(started) + time.Hour }
	n := &node{t: t, system: newSystem(), ups: make(chan entry, 100), downs: make(chan entry, 100), frames: make(chan Frame, 10_000)}
	n.leases = lease.New(lease.Config{Self: id, Boot: boot, Now: now})
	n.leases.Open()
	c := Config{
		System: n.system, Node: id, Boot: boot, Cluster: "c", Resolve: b.resolve, Leases: n.leases, Now: now,
		OnFrame: func(_ partition.NodeID, f Frame) { n.frames <- f },
		OnUp:    func(n2 partition.NodeID, boot uint64) { n.ups <- entry{string(n2), boot} },
		OnDown:  func(n2 partition.NodeID, boot uint64) { n.downs <- entry{string(n2), boot} },
		OnCall: func(_ context.Context, from partition.NodeID, body []byte) []byte {
			return append([]byte(string(from)+":"), body...)
		},
		Logger: logger().With("self", id),
	}
	if change != nil {
		change(&c)
	}
	l, err := Start(c)
	if err != nil {
		t.Fatal(err)
	}
	n.Links = l
	b.set(id, l.Addr(), boot)
	t.Cleanup(n.stop)
	return n
}

// granted is until when another node's grant for its replica 1 counts here.
func (n *node) granted(g partition.GroupID, e partition.Epoch, by *node) partition.Time {
	return n.leases.Granted(g, e, by.c.Node, replica.Supporter{Replica: 1, Boot: by.c.Boot})
}

func (n *node) stop() {
	n.Close()
	n.once.Do(n.system.Shutdown)
}

// upWith waits for a link to a node and returns its boot.
func (n *node) upWith(id partition.NodeID) uint64 {
	n.t.Helper()
	return n.await(n.ups, id, "up")
}

func (n *node) downWith(id partition.NodeID) uint64 {
	n.t.Helper()
	return n.await(n.downs, id, "down")
}

func (n *node) await(from chan entry, id partition.NodeID, what string) uint64 {
	n.t.Helper()
	deadline := time.After(wait)
	for {
		select {
		case e := <-from:
			if e.addr == string(id) {
				return e.boot
			}
		case <-deadline:
			n.t.Fatalf("no %s of %s", what, id)
		}
	}
}

// eventually waits until ok holds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(wait); !ok(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("never: " + what)
		}
	}
}

func receive[T any](t testing.TB, from <-chan T) T {
	t.Helper()
	select {
	case x := <-from:
		return x
	case <-time.After(wait):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

// linked starts two nodes and links them.
func linked(t testing.TB, change func(*Config)) (a, b *node) {
	t.Helper()
	book := newBook()
	a, b = startNode(t, book, "a", 1, change), startNode(t, book, "b", 2, change)
	a.SetPeers([]partition.NodeID{"a", "b"})
	a.upWith("b")
	b.upWith("a")
	b.SetPeers([]partition.NodeID{"a", "b"})
	return a, b
}

func record(g partition.GroupID, i partition.Index, payload string) partition.Record {
	return partition.NewRecord(partition.Header{Group: g, Index: i, Epoch: 5, Kind: partition.KindCommand}, []byte(payload))
}

func pipe(t testing.TB) (client, server net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	got := make(chan net.Conn, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			close(got)
			return
		}
		got <- c
	}()
	if client, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	server = <-got
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}
