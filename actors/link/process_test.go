package link

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"pando.dev/pando/actors/mailbox"
	"pando.dev/pando/partition"
)

type ping struct {
	N    int
	Text string
}

type pong struct{ N int }

// unknown is registered on one side only.
type unknown struct{ N int }

func types(c *Config) {
	c.Types = []Type{{1, func() any { return new(ping) }}, {2, func() any { return new(pong) }}}
	if c.Node == "a" {
		c.Types = append(c.Types, Type{3, func() any { return new(unknown) }})
	}
}

// echo answers pings; everything else that it gets it passes on.
type echo struct{ got chan<- any }

func (e *echo) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *ping:
		if ctx.Sender() != nil {
			ctx.Respond(&pong{m.N + 1})
		}
	case *actor.Stopped, *actor.Terminated, *pong, *actor.DeadLetterResponse:
		e.got <- m
	}
}

// spawn starts an echo on a node and exposes it.
func spawn(t *testing.T, n *node, name string, box *mailbox.Box[int]) (*actor.PID, <-chan any) {
	t.Helper()
	got := make(chan any, 100)
	pid, err := n.system.Root.SpawnNamed(actor.PropsFromProducer(func() actor.Actor { return &echo{got} }, actor.WithMailbox(box.Producer())), name)
	if err != nil {
		t.Fatal(err)
	}
	n.Expose(pid, box)
	return pid, got
}

// remote is a PID as another node writes it.
func remote(n *node, pid *actor.PID) *actor.PID {
	return actor.NewPID(Address(n.c.Node, n.c.Boot), pid.Id)
}

func newBox() *mailbox.Box[int] { return mailbox.New[int](mailbox.Config{}) }

// TestLocationTransparency: requests, answers and sends across nodes, from a
// future and from actor to actor.
func TestLocationTransparency(t *testing.T) {
	a, b := linked(t, types)
	pb, _ := spawn(t, b, "echo", newBox())
	if pb.Address != "b#2" {
		t.Errorf("address %s", pb.Address)
	}
	for i := range 100 {
		res, err := a.system.Root.RequestFuture(remote(b, pb), &ping{N: i}, wait).Result()
		if p, ok := res.(*pong); err != nil || !ok || p.N != i+1 {
			t.Fatalf("%v, %v", res, err)
		}
	}
	pa, gotA := spawn(t, a, "asker", newBox())
	a.system.Root.RequestWithCustomSender(remote(b, pb), &ping{N: 7}, pa)
	if p, ok := receive(t, gotA).(*pong); !ok || p.N != 8 {
		t.Errorf("%+v", p)
	}
}

// TestDeadLetters: a request that cannot be delivered is answered at once.
func TestDeadLetters(t *testing.T) {
	a, b := linked(t, types)
	full := mailbox.New[int](mailbox.Config{Items: 1})
	full.TryPostMessage("stuck", 1) // no actor takes it
	b.Expose(actor.NewPID("", "full"), full)
	hidden, err := b.system.Root.SpawnNamed(actor.PropsFromFunc(func(actor.Context) {}), "hidden")
	if err != nil {
		t.Fatal(err)
	}
	for name, pid := range map[string]*actor.PID{
		"nobody":              actor.NewPID("b#2", "nobody"),
		"not exposed":         remote(b, hidden),
		"full mailbox":        actor.NewPID("b#2", "full"),
		"another incarnation": actor.NewPID("b#1", "echo"),
		"own past":            actor.NewPID("a#7", "echo"),
		"no link":             actor.NewPID("z#1", "echo"),
		"no address":          actor.NewPID("nonsense", "echo"),
		"too long a name":     actor.NewPID("b#2", strings.Repeat("x", 300)),
	} {
		if _, err := a.system.Root.RequestFuture(pid, &ping{}, wait).Result(); !errors.Is(err, actor.ErrDeadLetter) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, m := range map[string]any{"not registered": "text", "unknown to the peer": &unknown{1}, "too large": &ping{Text: strings.Repeat("x", MaxControlBytes)}} {
		if _, err := a.system.Root.RequestFuture(actor.NewPID("b#2", "nobody"), m, wait).Result(); !errors.Is(err, actor.ErrDeadLetter) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s := b.Stats(); s.UnknownType != 1 || s.Undelivered != 2 || s.Forbidden != 1 {
		t.Errorf("%+v", s)
	}
}

// TestWatchAcrossNodes: a watcher hears of the end of an actor, of one that was
// never there, and of the end of a node.
func TestWatchAcrossNodes(t *testing.T) {
	a, b := linked(t, types)
	pb, gotB := spawn(t, b, "watched", newBox())
	pa, gotA := spawn(t, a, "watcher", newBox())
	proc, _ := a.system.ProcessRegistry.Get(remote(b, pb))
	watch := func(id string) { proc.SendSystemMessage(actor.NewPID("b#2", id), &actor.Watch{Watcher: pa}) }
	terminated := func() *actor.Terminated {
		t.Helper()
		m, ok := receive(t, gotA).(*actor.Terminated)
		if !ok {
			t.Fatal("no Terminated")
		}
		return m
	}
	watch("nobody")
	if m := terminated(); m.Who.Id != "nobody" || m.Who.Address != "b#2" || m.Why != actor.TerminatedReason_NotFound {
		t.Errorf("%+v", m)
	}
	watch("watched")
	eventually(t, "the watch has arrived", func() bool { return watching(b, "a") == 1 })
	b.system.Root.Stop(pb)
	if m := terminated(); m.Who.Id != "watched" || m.Why != actor.TerminatedReason_Stopped {
		t.Errorf("%+v", m)
	}
	if _, ok := receive(t, gotB).(*actor.Stopped); !ok {
		t.Error("not stopped")
	}
	pc, _ := spawn(t, b, "second", newBox())
	watch("second")
	eventually(t, "the watch has arrived", func() bool { return watching(b, "a") == 1 })
	proc.SendSystemMessage(remote(b, pc), &actor.Unwatch{Watcher: pa})
	eventually(t, "the unwatch has arrived", func() bool { return watching(b, "a") == 0 })
	watch("second")
	eventually(t, "the watch has arrived", func() bool { return watching(b, "a") == 1 })
	b.Close()
	if m := terminated(); m.Who.Id != "second" || m.Why != actor.TerminatedReason_AddressTerminated {
		t.Errorf("%+v", m)
	}
	watch("second")
	if m := terminated(); m.Why != actor.TerminatedReason_AddressTerminated {
		t.Errorf("%+v", m)
	}
}

// watching counts the actors of a peer that watch one of n's.
func watching(n *node, peer partition.NodeID) int {
	k := (*n.peers.Load())[peer]
	k.watches.mu.Lock()
	defer k.watches.mu.Unlock()
	return len(k.watches.in)
}

// TestNobodyStopsRemoteActors: neither our side sends what would, nor does the
// other side's honour it.
func TestNobodyStopsRemoteActors(t *testing.T) {
	a, b := linked(t, types)
	pb, gotB := spawn(t, b, "victim", newBox())
	a.system.Root.Stop(remote(b, pb))
	a.system.Root.Poison(remote(b, pb))
	proc, _ := a.system.ProcessRegistry.Get(remote(b, pb))
	proc.SendSystemMessage(remote(b, pb), &actor.Stop{})
	proc.SendSystemMessage(remote(b, pb), &actor.Restart{})
	// A Terminated that nobody waits for, straight onto the wire.
	e := encoder{b: []byte{doTerminated, 0}}
	e.name("echo").name("victim")
	s := a.session("b")
	if err := s.send(s.control, &Frame{Kind: kindWatch, Body: e.b}); err != nil {
		t.Fatal(err)
	}
	if res, err := a.system.Root.RequestFuture(remote(b, pb), &ping{N: 1}, wait).Result(); err != nil || res.(*pong).N != 2 {
		t.Fatalf("%v, %v", res, err)
	}
	if len(gotB) != 0 || a.Stats().Forbidden != 3 || a.Stats().UnknownType != 1 || b.Stats().Forbidden != 1 {
		t.Errorf("%d messages, %+v, %+v", len(gotB), a.Stats(), b.Stats())
	}
}

// TestLateAnswerOfADeadIncarnation: an answer meant for a former life of a node
// does not reach the future of the next, although their names are alike.
func TestLateAnswerOfADeadIncarnation(t *testing.T) {
	a, b := linked(t, types)
	var asker atomic.Pointer[actor.PID]
	box := newBox()
	pid, err := b.system.Root.SpawnNamed(actor.PropsFromFunc(func(ctx actor.Context) {
		if _, ok := ctx.Message().(*ping); ok {
			asker.Store(ctx.Sender())
		}
	}, actor.WithMailbox(box.Producer())), "slow")
	if err != nil {
		t.Fatal(err)
	}
	b.Expose(pid, box)
	old := a.system.Root.RequestFuture(remote(b, pid), &ping{}, wait)
	eventually(t, "the request has arrived", func() bool { return asker.Load() != nil })
	a.Close()
	b.downWith("a")
	a2 := startNode(t, newBook(), "a", 3, func(c *Config) { types(c); c.Resolve = b.c.Resolve })
	a2.SetPeers([]partition.NodeID{"b"})
	a2.upWith("b")
	b.upWith("a")
	future := a2.system.Root.RequestFuture(remote(b, pid), &ping{}, 100*time.Millisecond)
	fresh := actor.NewPID(asker.Load().Address, future.PID().Id)
	b.system.Root.Send(fresh, &pong{99}) // to the dead one's address
	if res, err := future.Result(); !errors.Is(err, actor.ErrTimeout) {
		t.Errorf("the new incarnation's future got %v, %v", res, err)
	}
	_ = old
}

func TestRegistryRefusesOpenTypes(t *testing.T) {
	type inner struct{ X any }
	type loop struct{ Next []*loop }
	for name, v := range map[string]func() any{
		"any":            func() any { return new(struct{ X any }) },
		"map of any":     func() any { return new(struct{ X map[string]any }) },
		"deep any":       func() any { return new(struct{ X []map[string]*inner }) },
		"recursive":      func() any { return new(loop) },
		"keys":           func() any { return new(struct{ X map[int]int }) },
		"no pointer":     func() any { return struct{}{} },
		"pointer to int": func() any { return new(int) },
		"func":           func() any { return new(struct{ X func() }) },
		"nil":            func() any { return nil },
	} {
		if _, err := newRegistry([]Type{{1, v}}); !errors.Is(err, partition.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ok := func() any { return new(ping) }
	if _, err := newRegistry([]Type{{1, ok}, {1, ok}}); !errors.Is(err, partition.ErrInvalid) {
		t.Errorf("twice: %v", err)
	}
	if _, err := newRegistry([]Type{{1, nil}}); !errors.Is(err, partition.ErrInvalid) {
		t.Errorf("without New: %v", err)
	}
}

func TestAddress(t *testing.T) {
	for addr, want := range map[string]bool{"n#1": true, "a#b#9": true, "#1": false, "n": false, "n#": false, "n#0": false, "n#-1": false, "n#x": false,
		strings.Repeat("n", 65) + "#1": false, "nonhost": false} {
		n, boot, ok := ParseAddress(addr)
		if ok != want || ok && Address(n, boot) != addr {
			t.Errorf("%s: %s %d %v", addr, n, boot, ok)
		}
	}
}
