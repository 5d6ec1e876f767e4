package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/lease"
	"pando.dev/pando/partition/replica"
)

func TestFramesTravelBothWays(t *testing.T) {
	a, b := linked(t, nil)
	for i := range 100 {
		f := Frame{Group: 7, From: 1, To: 2}
		EncodeReplica(&f, &replica.Append{Epoch: 5, Records: []partition.Record{record(7, 1, fmt.Sprint("payload ", i))}})
		if err := a.Send("b", f); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 100 {
		f := receive(t, b.frames)
		m, err := DecodeReplica(f)
		if err != nil || f.Group != 7 || f.From != 1 || f.To != 2 {
			t.Fatalf("%+v: %v", f, err)
		}
		if got := string(m.(*replica.Append).Records[0].Payload()); got != fmt.Sprint("payload ", i) {
			t.Fatalf("frame %d holds %q", i, got)
		}
	}
	f := Frame{Group: 7, From: 2, To: 1}
	EncodeReplica(&f, &replica.AppendAck{Epoch: 5, Match: 1})
	if err := b.Send("a", f); err != nil {
		t.Fatal(err)
	}
	if m, err := DecodeReplica(receive(t, a.frames)); err != nil || m.(*replica.AppendAck).Match != 1 {
		t.Fatalf("%+v, %v", m, err)
	}
}

func TestSendIsRefused(t *testing.T) {
	a, _ := linked(t, nil)
	for name, c := range map[string]struct {
		to   partition.NodeID
		f    Frame
		want error
	}{
		"no link":       {"z", Frame{Kind: KindGather}, partition.ErrUnavailable},
		"control frame": {"b", Frame{Kind: kindBeat}, partition.ErrInvalid},
		"too large":     {"b", Frame{Kind: KindAppend, Body: make([]byte, MaxAppendBytes+1)}, partition.ErrTooLarge},
		"small kind":    {"b", Frame{Kind: KindGather, Body: make([]byte, 1000)}, partition.ErrTooLarge},
	} {
		if err := a.Send(c.to, c.f); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestLargestFrames go through whole, and so do small ones between them.
func TestLargestFrames(t *testing.T) {
	a, b := linked(t, nil)
	payload := bytes.Repeat([]byte("0123456789abcdef"), MaxAppendBytes/16)
	var want []int
	for i := range 12 {
		f := Frame{Kind: KindAppend, Group: 1, From: 1, To: 2, Body: payload[:5+(len(payload)-5)*(i%3)/2]}
		want = append(want, len(f.Body))
		for a.Send("b", f) != nil { // CodeBusy while 16 MiB wait
			eventually(t, "room", func() bool { return a.Peers()[0].DataQueue < 4<<20 })
		}
	}
	for i, n := range want {
		if f := receive(t, b.frames); len(f.Body) != n || !bytes.Equal(f.Body, payload[:n]) {
			t.Fatalf("frame %d: %d bytes, want %d", i, len(f.Body), n)
		}
	}
}

func TestCalls(t *testing.T) {
	a, b := linked(t, nil)
	ctx := t.Context()
	for _, n := range []int{0, 1, partBytes, partBytes + 1, MaxCallBytes - 2} {
		body := bytes.Repeat([]byte{7}, n)
		got, err := a.Call(ctx, "b", body)
		if err != nil || !bytes.Equal(got, append([]byte("a:"), body...)) {
			t.Errorf("%d bytes: %d back, %v", n, len(got), err)
		}
	}
	if got, err := b.Call(ctx, "b", []byte("x")); err != nil || string(got) != "b:x" {
		t.Errorf("to itself: %q, %v", got, err)
	}
	if _, err := a.Call(ctx, "b", make([]byte, MaxCallBytes)); !errors.Is(err, partition.ErrTooLarge) {
		t.Errorf("an answer over the limit: %v", err)
	}
	if _, err := a.Call(ctx, "b", make([]byte, MaxCallBytes+1)); !errors.Is(err, partition.ErrTooLarge) {
		t.Errorf("a request over the limit: %v", err)
	}
	if _, err := a.Call(ctx, "z", nil); !errors.Is(err, partition.ErrUnavailable) {
		t.Errorf("without a link: %v", err)
	}
}

// TestCallOutcomes: a deadline or a broken link means that the outcome is not
// known; too many calls and a panic have answers of their own.
func TestCallOutcomes(t *testing.T) {
	release, entered := make(chan struct{}), make(chan struct{}, 10)
	a, b := linked(t, func(c *Config) {
		c.MaxCalls = 2
		c.OnCall = func(ctx context.Context, _ partition.NodeID, body []byte) []byte {
			if string(body) == "panic" {
				panic("boom")
			}
			entered <- struct{}{}
			if string(body) == "until closed" {
				<-ctx.Done()
			}
			select {
			case <-release:
			case <-ctx.Done():
			}
			return nil
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	results := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := a.Call(ctx, "b", nil)
			results <- err
		}()
		receive(t, entered)
	}
	if _, err := a.Call(ctx, "b", nil); !errors.Is(err, partition.ErrBusy) {
		t.Errorf("a third call: %v", err)
	}
	cancel()
	for range 2 {
		if err := receive(t, results); !errors.Is(err, partition.ErrUnknown) {
			t.Errorf("after the deadline: %v", err)
		}
	}
	close(release)
	eventually(t, "all calls are served", func() bool { return (*b.peers.Load())["a"].calls.serving.Load() == 0 })
	if _, err := a.Call(t.Context(), "b", []byte("panic")); !errors.Is(err, partition.ErrUnknown) {
		t.Errorf("a panic: %v", err)
	}
	if b.Stats().Bad.Panic != 1 {
		t.Error("the panic was not counted")
	}
	broken := make(chan error, 1)
	go func() {
		_, err := a.Call(t.Context(), "b", []byte("until closed"))
		broken <- err
	}()
	receive(t, entered)
	b.Close()
	if err := receive(t, broken); !errors.Is(err, partition.ErrUnknown) {
		t.Errorf("after the link broke: %v", err)
	}
}

// TestRestartOfThePeer: a broken connection is noticed at once, the next
// incarnation is linked without waiting for the book, and the old one's boot is
// not accepted any more.
func TestRestartOfThePeer(t *testing.T) {
	book := newBook()
	a, b := startNode(t, book, "a", 1, nil), startNode(t, book, "b", 2, nil)
	a.SetPeers([]partition.NodeID{"b"})
	if boot := a.upWith("b"); boot != 2 {
		t.Errorf("boot %d", boot)
	}
	addr := b.Addr()
	b.stop()
	if boot := a.downWith("b"); boot != 2 {
		t.Errorf("boot %d went down", boot)
	}
	if a.leases.Reachable("b") {
		t.Error("reachable after its connections closed")
	}
	if err := a.Send("b", Frame{Kind: KindGather}); !errors.Is(err, partition.ErrUnavailable) {
		t.Errorf("send to a dead node: %v", err)
	}
	b = startNode(t, book, "b", 3, func(c *Config) { c.Listen = addr })
	book.set("b", addr, 2) // gossip has not noticed
	if boot := a.upWith("b"); boot != 3 {
		t.Errorf("boot %d came up", boot)
	}
	b.upWith("a")
	old := startNode(t, newBook(), "b", 2, func(c *Config) { c.Resolve = book.resolve })
	old.SetPeers([]partition.NodeID{"a"})
	eventually(t, "the old incarnation is refused", func() bool { return a.Stats().Refused[RefusedStale] > 0 })
	if len(a.downs) != 0 {
		t.Error("the old incarnation disturbed the new one's link")
	}
}

// TestHeartbeatsCarryLeases: both sides are reachable and hold a grant.
func TestHeartbeatsCarryLeases(t *testing.T) {
	a, b := linked(t, nil)
	eventually(t, "leases", func() bool {
		return a.leases.Reachable("b") && b.leases.Reachable("a") && a.granted(1, 5, b) > 0 && b.granted(1, 5, a) > 0
	})
	b.leases.Revoke(1, 1, 6, "a")
	eventually(t, "the revocation arrives", func() bool { return a.granted(1, 5, b) == 0 })
	eventually(t, "it is acknowledged", func() bool { s, _ := b.leases.Stats("a"); return s.Revoked == 0 })
	if p := a.Peers(); len(p) != 1 || !p[0].Up || p[0].Boot != 2 || p[0].RTT <= 0 || p[0].Node != "b" {
		t.Errorf("%+v", p)
	}
}

// TestBothDial: whoever comes first, one link stays and works in both
// directions, over and over.
func TestBothDial(t *testing.T) {
	for range 10 {
		book := newBook()
		a, b := startNode(t, book, "a", 1, nil), startNode(t, book, "b", 2, nil)
		b.SetPeers([]partition.NodeID{"a"})
		a.SetPeers([]partition.NodeID{"b"})
		eventually(t, "one session on both sides", func() bool {
			x, y := a.session("b"), b.session("a")
			return x != nil && y != nil && x.id == y.id
		})
		if _, err := a.Call(t.Context(), "b", nil); err != nil {
			t.Error(err)
		}
		a.stop()
		b.stop()
	}
}

// TestOneSideIsEnough: a link exists when either knows the other's address.
func TestOneSideIsEnough(t *testing.T) {
	for _, dialer := range []partition.NodeID{"a", "b"} {
		book := newBook()
		nodes := map[partition.NodeID]*node{"a": startNode(t, book, "a", 1, nil), "b": startNode(t, book, "b", 2, nil)}
		other := map[partition.NodeID]partition.NodeID{"a": "b", "b": "a"}[dialer]
		nodes[dialer].SetPeers([]partition.NodeID{other})
		nodes[dialer].upWith(other)
		nodes[other].upWith(dialer)
		if _, err := nodes[other].Call(t.Context(), dialer, nil); err != nil {
			t.Error(err)
		}
		nodes[dialer].stop() // the other has no wish for the link and forgets it
		nodes[other].downWith(dialer)
		eventually(t, "the link is forgotten", func() bool { return len(nodes[other].Peers()) == 0 })
		nodes[other].stop()
	}
}

func TestStreams(t *testing.T) {
	a, b := linked(t, nil)
	out, err := a.DialStream("b", wait)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	in, err := b.AcceptStream()
	if err != nil || PeerOf(in) != "a" || PeerOf(out) != "" {
		t.Fatal(err, PeerOf(in))
	}
	go func() {
		_, _ = io.Copy(in, in)
		in.Close()
	}()
	if _, err := out.Write([]byte("raft")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(out, got); err != nil || string(got) != "raft" {
		t.Fatal(string(got), err)
	}
	if b.Stats().Streams != 1 {
		t.Error("not counted")
	}
	out.Close()
	eventually(t, "the stream is given back", func() bool { return b.Stats().Streams == 0 })
	b.Close()
	if _, err := b.AcceptStream(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if _, err := a.DialStream("b", wait); err == nil {
		t.Error("dialed a closed node")
	}
	if _, err := a.DialStream("nobody", wait); !errors.Is(err, partition.ErrUnavailable) {
		t.Errorf("to nobody: %v", err)
	}
}

func TestClients(t *testing.T) {
	peers := make(chan Peer, 1)
	book := newBook()
	n := startNode(t, book, "a", 1, func(c *Config) {
		c.MaxClients = 1
		c.OnClient = func(conn net.Conn, p Peer) {
			peers <- p
			_, _ = io.Copy(conn, conn)
		}
	})
	c, err := DialClient(t.Context(), n.Addr(), ClientConfig{Cluster: "c", Node: "a"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if p := receive(t, peers); p.Role != "local" || p.Addr != c.LocalAddr().String() {
		t.Errorf("%+v", p)
	}
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	var refused *RefusedError
	if _, err := DialClient(t.Context(), n.Addr(), ClientConfig{Cluster: "c"}); !errors.As(err, &refused) || refused.Refusal != RefusedBusy || !errors.Is(err, partition.ErrBusy) {
		t.Errorf("a second client: %v", err)
	}
	if _, err := DialClient(t.Context(), n.Addr(), ClientConfig{Cluster: "other"}); !errors.As(err, &refused) || refused.Refusal != RefusedCluster {
		t.Errorf("of another cluster: %v", err)
	}
	if _, err := DialClient(t.Context(), n.Addr(), ClientConfig{Cluster: "c", Node: "b"}); !errors.As(err, &refused) || refused.Refusal != RefusedNode {
		t.Errorf("for another node: %v", err)
	}
	if s := n.Stats(); s.Clients != 1 || s.Refused[RefusedBusy] != 1 || s.Refused[RefusedCluster] != 1 || s.Refused[RefusedNode] != 1 {
		t.Errorf("%+v", s)
	}
}

func TestRefusesToListenBeyondLoopback(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", ":0", "192.0.2.1:7000", "[::]:0", "example.com:0"} {
		_, err := Start(Config{System: newSystem(), Node: "a", Boot: 1, Cluster: "c", Listen: addr,
			Resolve: newBook().resolve, Leases: startNode(t, newBook(), "a", 1, nil).leases, Now: func() partition.Time { return 0 }})
		var e *partition.Error
		if !errors.As(err, &e) || e.Code != partition.CodeRefused || e.Next == "" {
			t.Errorf("%s: %v", addr, err)
		}
	}
	if _, err := DialClient(t.Context(), "192.0.2.1:1", ClientConfig{Cluster: "c"}); !errors.Is(err, partition.ErrRefused) {
		t.Errorf("dial beyond loopback: %v", err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	for i, c := range []Config{{}, {System: newSystem()}, {System: newSystem(), Node: "a"}, {System: newSystem(), Node: "a", Boot: 1},
		{System: newSystem(), Node: "a", Boot: 1, Cluster: "c"}} {
		if _, err := Start(c); !errors.Is(err, partition.ErrInvalid) {
			t.Errorf("config %d: %v", i, err)
		}
	}
	n := startNode(t, newBook(), "a", 1, nil)
	c := n.c
	c.Listen = n.Addr()
	if _, err := Start(c); !errors.Is(err, partition.ErrRefused) {
		t.Errorf("a port in use: %v", err)
	}
	c.Boot = 2
	if _, err := Start(c); !errors.Is(err, partition.ErrInvalid) {
		t.Errorf("another address for the same system: %v", err)
	}
}

// TestSlowPeerIsRefusedNotWaitedFor: a peer that takes nothing fills the queue,
// then Send refuses at once, and control goes on beside it.
func TestSlowPeerIsRefusedNotWaitedFor(t *testing.T) {
	hold := make(chan struct{})
	a, _ := linked(t, func(c *Config) {
		if c.Node == "b" {
			c.OnFrame = func(partition.NodeID, Frame) { <-hold }
		}
	})
	defer close(hold)
	var err error
	for range 100 {
		if err = a.Send("b", Frame{Kind: KindAppend, Body: make([]byte, MaxAppendBytes)}); err != nil {
			break
		}
	}
	if p := a.Peers()[0]; !errors.Is(err, partition.ErrBusy) || p.Busy != 1 || p.DataQueue > defaultQueueBytes || a.Stats().SendBusy != 1 {
		t.Errorf("%v, %+v", err, p)
	}
	for range 10 {
		if _, err := a.Call(t.Context(), "b", nil); err != nil {
			t.Errorf("control beside full data: %v", err)
		}
	}
}

// TestFrozenPeer: a peer whose connections stand but which answers nothing is
// unreachable after a lease, and dropped after the silence.
func TestFrozenPeer(t *testing.T) {
	book := newBook()
	n := startNode(t, book, "n", 1, func(c *Config) { c.Silence = time.Second })
	open := func(cl class) net.Conn {
		c, _, err := dialTo(t.Context(), n.Addr(), hello{class: cl, session: 9, cluster: "c", from: "frozen", boot: 3, to: "n"}, nil, wait)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	control := open(classControl)
	_ = open(classData)
	n.upWith("frozen")
	// It answers for a while, then freezes.
	frames := frameReader{conn: control, class: classControl}
	for answered := 0; answered < 3; {
		f, err := frames.next()
		if err != nil {
			t.Fatal(err)
		}
		if f.Kind == kindBeat {
			b, _ := decodeBeat(f.Body)
			a := Frame{Kind: kindBeatAnswer}
			a.Body, a.Flags = encodeAnswer(lease.Answer{Seq: b.Seq, Boot: 3, HolderBoot: 1, Lease: time.Second})
			if _, err := control.Write(a.append(nil)); err != nil {
				t.Fatal(err)
			}
			answered++
		}
	}
	eventually(t, "it is reachable", func() bool { return n.leases.Reachable("frozen") || !n.Peers()[0].Up })
	eventually(t, "it is unreachable", func() bool { return !n.leases.Reachable("frozen") })
	if boot := n.downWith("frozen"); boot != 3 || n.Stats().Silent == 0 {
		t.Errorf("boot %d, %+v", boot, n.Stats())
	}
}

// TestLinkSurvivesPanics: a handler that panics costs the link, not the node.
func TestLinkSurvivesPanics(t *testing.T) {
	var once sync.Once
	a, b := linked(t, func(c *Config) {
		if c.Node == "b" {
			c.OnFrame = func(partition.NodeID, Frame) { once.Do(func() { panic("boom") }) }
		}
	})
	if err := a.Send("b", Frame{Kind: KindGather, Body: make([]byte, 8)}); err != nil {
		t.Fatal(err)
	}
	a.downWith("b")
	b.downWith("a")
	a.upWith("b")
	if b.Stats().Bad.Panic != 1 {
		t.Errorf("%+v", b.Stats().Bad)
	}
}

// TestLinkActorIsRestarted: a panic in the link's own actor ends its session;
// the supervisor starts it anew and it links again.
func TestLinkActorIsRestarted(t *testing.T) {
	var fail atomic.Bool
	fail.Store(true)
	a, b := linked(t, func(c *Config) {
		if down := c.OnDown; c.Node == "b" {
			c.OnDown = func(n partition.NodeID, boot uint64) {
				down(n, boot)
				if fail.Swap(false) {
					panic("boom")
				}
			}
		}
	})
	s := a.session("b")
	s.control.close()
	a.downWith("b")
	b.downWith("a")
	a.upWith("b")
	b.upWith("a")
	if _, err := a.Call(t.Context(), "b", nil); err != nil || b.Stats().Bad.Panic != 1 {
		t.Errorf("%v, %+v", err, b.Stats().Bad)
	}
}
