package mailbox

import (
	"io"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func quiet() *actor.ActorSystem {
	return actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger {
		return slog.New(slog.NewTextHandler(io.Discard, nil))
	}))
}

// spy records what a box delivers. It stands for the actor.
type spy struct {
	onUser   func(any)
	onSystem func(any)
	failures []any
	reasons  []any
	box      actor.Mailbox
}

func (s *spy) InvokeSystemMessage(m any) {
	if s.onSystem != nil {
		s.onSystem(m)
	}
}
func (s *spy) InvokeUserMessage(m any) { s.onUser(m) }
func (s *spy) EscalateFailure(reason, message any) {
	s.reasons, s.failures = append(s.reasons, reason), append(s.failures, message)
	s.box.PostSystemMessage(&actor.SuspendMailbox{})
}

// held is a dispatcher that runs nothing until told, so a test decides when a
// turn begins.
type held struct{ runs []func() }

func (h *held) Schedule(fn func()) { h.runs = append(h.runs, fn) }
func (h *held) Throughput() int    { return 300 }
func (h *held) turn() {
	runs := h.runs
	h.runs = nil
	for _, r := range runs {
		r()
	}
}

func start[T any](c Config, s *spy) (*Box[T], *held) {
	b, h := New[T](c), &held{}
	s.box = b
	b.RegisterHandlers(s, h)
	b.Start()
	return b, h
}

func TestWholeQueueInOneTurn(t *testing.T) {
	var got [][]int
	b, h := start[int](Config{}, &spy{onUser: func(m any) {
		got = append(got, slices.Clone(m.(*Batch[int]).Items))
	}})
	for i := range 5 {
		if !b.TryPost(i, 10) {
			t.Fatal("refused")
		}
	}
	if len(h.runs) != 1 {
		t.Fatalf("%d runs scheduled for five posts", len(h.runs))
	}
	h.turn()
	b.TryPost(5, 10)
	h.turn()
	if len(got) != 2 || !slices.Equal(got[0], []int{0, 1, 2, 3, 4}) || !slices.Equal(got[1], []int{5}) {
		t.Errorf("got %v", got)
	}
}

func TestBoundsByCountAndBytes(t *testing.T) {
	turns := 0
	b, h := start[int](Config{Items: 3, Bytes: 100}, &spy{onUser: func(any) { turns++ }})
	post := func(bytes int, want bool) {
		t.Helper()
		if got := b.TryPost(0, bytes); got != want {
			t.Errorf("TryPost of %d bytes: %v, want %v", bytes, got, want)
		}
		if got := b.TryPostMessage(0, bytes); got != want {
			t.Errorf("TryPostMessage of %d bytes: %v, want %v", bytes, got, want)
		}
	}
	post(60, true)
	post(41, false)
	post(40, true)
	post(0, true)
	post(0, false)
	if s := b.Stats(); s.Items != 3 || s.Bytes != 100 || s.Messages != 3 || s.Refused != 4 || b.UserMessageCount() != 6 {
		t.Errorf("%+v", s)
	}
	h.turn()
	if turns != 4 {
		t.Errorf("%d turns, want three messages and one batch", turns)
	}
	post(500, true) // alone, an item over the bound is taken
	post(1, false)
	h.turn()
	if s := b.Stats(); s.Items != 0 || s.Bytes != 0 || s.Messages != 0 {
		t.Errorf("%+v", s)
	}
}

func TestControlIsNeverRefused(t *testing.T) {
	n := 0
	b, h := start[int](Config{Items: 1}, &spy{onUser: func(any) { n++ }})
	b.TryPost(1, 1)
	for range 10_000 {
		b.PostUserMessage("go")
	}
	h.turn()
	if n != 10_001 {
		t.Errorf("%d deliveries", n)
	}
}

// TestOrder: system first, then messages, then items; but a flood of messages
// does not keep a batch waiting for ever.
func TestOrder(t *testing.T) {
	var got []string
	note := func(m any) {
		if _, ok := m.(*Batch[int]); ok {
			m = "batch"
		}
		got = append(got, m.(string))
	}
	b, h := start[int](Config{}, &spy{onUser: note, onSystem: note})
	b.TryPost(1, 1)
	for range 100 {
		b.PostUserMessage("m")
	}
	b.PostSystemMessage("s")
	h.turn()
	if got[0] != "s" || slices.Index(got, "batch") != 1+messagesPerTurn || len(got) != 102 {
		t.Errorf("%d deliveries: %v", len(got), got)
	}
}

func TestSuspendAndResume(t *testing.T) {
	n := 0
	b, h := start[int](Config{}, &spy{onUser: func(any) { n++ }})
	b.PostSystemMessage(&actor.SuspendMailbox{})
	h.turn()
	b.TryPost(1, 1)
	b.PostUserMessage("m")
	b.TryPostMessage("m", 1)
	if len(h.runs) != 0 {
		t.Error("a suspended box was scheduled for a user message")
	}
	b.PostSystemMessage(&actor.ResumeMailbox{})
	h.turn()
	if n != 3 {
		t.Errorf("%d deliveries after resume", n)
	}
}

// TestPanicHandsOverTheBatch: the failed batch goes with the failure and is
// not touched again, the stack is kept, what came later waits for the resume.
func TestPanicHandsOverTheBatch(t *testing.T) {
	var got []int
	s := &spy{}
	s.onUser = func(m any) {
		items := m.(*Batch[int]).Items
		if items[0] == 1 {
			panic("boom")
		}
		got = append(got, items...)
	}
	b, h := start[int](Config{}, s)
	b.TryPost(1, 1)
	b.TryPost(2, 1)
	h.turn()
	b.TryPost(3, 1)
	h.turn()
	if len(got) != 0 || len(s.failures) != 1 {
		t.Fatalf("delivered %v, failures %d", got, len(s.failures))
	}
	b.PostSystemMessage(&actor.ResumeMailbox{})
	h.turn()
	if !slices.Equal(got, []int{3}) {
		t.Errorf("delivered %v after the restart", got)
	}
	if failed := s.failures[0].(*Batch[int]); !slices.Equal(failed.Items, []int{1, 2}) {
		t.Errorf("the failure holds %v", failed.Items)
	}
	p := s.reasons[0].(*Panic)
	if p.Value != "boom" || !strings.Contains(string(p.Stack), "box_test.go") || p.Error() != "panic: boom" {
		t.Errorf("%v\n%s", p, p.Stack)
	}
}

func TestCloseReturnsTheRest(t *testing.T) {
	b, h := start[int](Config{}, &spy{onUser: func(any) { t.Error("delivered after close") }})
	b.TryPost(1, 1)
	b.TryPost(2, 1)
	if rest := b.Close(); !slices.Equal(rest, []int{1, 2}) {
		t.Errorf("rest %v", rest)
	}
	if b.TryPost(3, 1) || b.TryPostMessage("m", 1) {
		t.Error("a closed box took something")
	}
	h.turn()
}

// TestMemoryIsGivenBack: a burst's room and what a batch refers to do not stay.
func TestMemoryIsGivenBack(t *testing.T) {
	b, h := start[[]byte](Config{Items: 1 << 20, Bytes: 1 << 30}, &spy{onUser: func(any) {}})
	for range 100_000 {
		b.TryPost(nil, 1)
		b.PostUserMessage("m")
	}
	h.turn()
	for range 2 * slackTurns {
		b.TryPost(make([]byte, 1), 1)
		h.turn()
	}
	if c := cap(b.batch.Items) + cap(b.items) + cap(b.messages.s); c > 4*keepItems {
		t.Errorf("room for %d items is kept", c)
	}
	for _, x := range b.batch.Items[:cap(b.batch.Items)] {
		if x != nil {
			t.Error("the batch still refers to an item")
		}
	}
}

// TestStress: many producers, system and user messages at once, panics between;
// nothing taken is lost or reordered and no wake-up is missed. A missed one
// would leave the test waiting until its deadline.
func TestStress(t *testing.T) {
	const producers, each = 8, 20_000
	var handled, taken atomic.Int64
	var last [producers]int
	done := make(chan struct{})
	s := &spy{}
	s.onUser = func(m any) {
		n := 1
		if batch, ok := m.(*Batch[[2]int]); ok {
			n = len(batch.Items)
			for _, x := range batch.Items {
				if x[1] <= last[x[0]] {
					t.Errorf("producer %d: %d after %d", x[0], x[1], last[x[0]])
				}
				last[x[0]] = x[1]
			}
		}
		if handled.Add(int64(n)) == producers*each*2 {
			close(done)
		}
		if n == 7 {
			panic("seven") // after it was counted
		}
	}
	b := New[[2]int](Config{Items: 64})
	s.box = b
	b.RegisterHandlers(s, actor.NewDefaultDispatcher(300))
	b.Start()
	var wg sync.WaitGroup
	for p := range producers {
		wg.Go(func() {
			for i := 1; i <= each; i++ {
				for !b.TryPost([2]int{p, i}, 1) {
					b.PostSystemMessage(&actor.ResumeMailbox{})
					runtime.Gosched()
				}
				taken.Add(1)
				b.PostUserMessage(i)
			}
		})
	}
	wg.Wait()
	for {
		b.PostSystemMessage(&actor.ResumeMailbox{})
		select {
		case <-done:
			if taken.Load() != producers*each {
				t.Errorf("%d taken", taken.Load())
			}
			return
		case <-t.Context().Done():
			t.Fatalf("%d of %d handled", handled.Load(), producers*each*2)
		default:
			runtime.Gosched()
		}
	}
}

// counter is a real actor that adds up what it gets and panics on a negative.
type counter struct{ sum, starts *atomic.Int64 }

func (c *counter) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		c.starts.Add(1)
	case *Batch[int]:
		for _, x := range m.Items {
			if x < 0 {
				panic("negative")
			}
			c.sum.Add(int64(x))
		}
	}
}

// parent supervises one child with a Box.
type parent struct {
	strategy *Backoff
	child    *actor.Props
	pid      chan *actor.PID
}

func (p *parent) HandleFailure(system *actor.ActorSystem, s actor.Supervisor, child *actor.PID, rs *actor.RestartStatistics, reason, message any) {
	p.strategy.HandleFailure(system, s, child, rs, reason, message)
}

func (p *parent) Receive(ctx actor.Context) {
	switch ctx.Message().(type) {
	case *actor.Started:
		pid, err := ctx.SpawnNamed(p.child, "child")
		if err != nil {
			panic(err)
		}
		p.pid <- pid
	case *actor.Stopping:
		p.strategy.Close()
	}
}

// TestRestartsWithBackoff drives a real actor through its failures in virtual
// time: 50, 100 and 200 ms, then the end, told with its reason.
func TestRestartsWithBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sum, starts atomic.Int64
		var restarts, gaveUp []Failure
		b := New[int](Config{})
		p := &parent{pid: make(chan *actor.PID, 1), strategy: NewBackoff(BackoffConfig{
			OnRestart: func(f Failure) { restarts = append(restarts, f) },
			OnGiveUp:  func(f Failure) { gaveUp = append(gaveUp, f) },
		})}
		p.child = actor.PropsFromProducer(func() actor.Actor { return &counter{&sum, &starts} }, actor.WithMailbox(b.Producer()))
		system := quiet()
		root := system.Root.Spawn(actor.PropsFromProducer(func() actor.Actor { return p }))
		<-p.pid
		synctest.Wait()
		for n, want := range []time.Duration{50, 100, 200} {
			b.TryPost(-1, 1)
			synctest.Wait()
			b.TryPost(1, 1) // waits for the restart
			synctest.Wait()
			if got := restarts[n].Delay; got < want*time.Millisecond || got > want*time.Millisecond*5/4 {
				t.Errorf("restart %d after %v", n, got)
			}
			if sum.Load() != int64(n) {
				t.Errorf("delivered while suspended: %d", sum.Load())
			}
			time.Sleep(restarts[n].Delay)
			synctest.Wait()
			if starts.Load() != int64(n+2) || sum.Load() != int64(n+1) {
				t.Errorf("after restart %d: %d starts, sum %d", n, starts.Load(), sum.Load())
			}
		}
		b.TryPost(-1, 1)
		synctest.Wait()
		if len(gaveUp) != 1 || gaveUp[0].Count != 4 || gaveUp[0].Message.(*Batch[int]).Items[0] != -1 {
			t.Fatalf("gave up %+v", gaveUp)
		}
		_ = system.Root.StopFuture(root).Wait()
		time.Sleep(15 * time.Second) // the library's own timers
	})
}

func BenchmarkTryPost(b *testing.B) {
	for _, producers := range []int{1, 8} {
		b.Run(map[int]string{1: "1-producer", 8: "8-producers"}[producers], func(b *testing.B) {
			box := New[int](Config{Items: 1 << 16, Bytes: 1 << 40})
			s := &spy{onUser: func(any) {}, box: box}
			box.RegisterHandlers(s, actor.NewDefaultDispatcher(300))
			box.Start()
			b.ReportAllocs()
			var wg sync.WaitGroup
			for range producers {
				wg.Go(func() {
					for range b.N / producers {
						for !box.TryPost(1, 100) {
							runtime.Gosched()
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

// TestNoLostWakeUp posts the next item at the moment the box is about to fall
// idle, over and over: a post that finds the box scheduled when it is not any
// more would wait for ever.
func TestNoLostWakeUp(t *testing.T) {
	answer := make(chan int, 1)
	s := &spy{onUser: func(m any) { answer <- m.(*Batch[int]).Items[0] }}
	b := New[int](Config{})
	s.box = b
	b.RegisterHandlers(s, actor.NewDefaultDispatcher(300))
	b.Start()
	for i := range 20_000 {
		b.TryPost(i, 1)
		select {
		case <-answer:
		case <-time.After(10 * time.Second):
			t.Fatalf("item %d was not delivered", i)
		}
	}
}

// What a box held when its actor stopped is handed out, and later messages are
// refused to who must know: neither is lost without a word.
func TestBoxRest(t *testing.T) {
	b := New[int](Config{})
	if !b.Post("a") || !b.TryPostMessage("b", 5) || !b.TryPost(1, 1) {
		t.Fatal("an open box refuses")
	}
	if rest := b.Close(); len(rest) != 1 || b.Post("c") || b.TryPostMessage("d", 1) {
		t.Errorf("closed: %v", rest)
	}
	if rest := b.Rest(); len(rest) != 2 || rest[0] != "a" || rest[1] != "b" || len(b.Rest()) != 0 || b.Stats().Messages != 0 {
		t.Errorf("left: %v", rest)
	}
}
