package actors

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pando.dev/pando/actors/client"
	"pando.dev/pando/internal/history"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/kv"
)

// ackLog is what an omniscient observer knows of a key that one writer counts
// up: when each number was acknowledged, on the one clock of the test.
type ackLog struct {
	start time.Time
	mu    sync.Mutex
	at    []time.Duration // of the number i+1
	token client.Token    // of the newest
}

func (l *ackLog) now() time.Duration { return time.Since(l.start) }

// newest returns the greatest number acknowledged before t.
func (l *ackLog) newest(t time.Duration) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.at)
	for n > 0 && l.at[n-1] >= t {
		n--
	}
	return n
}

// latest returns the greatest acknowledged number and a token of it.
func (l *ackLog) latest() (int, client.Token) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.at), l.token
}

func (l *ackLog) ack(t client.Token) {
	at := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at = append(l.at, at)
	l.token = t
}

// judgeAge is the stale-bound checker: whoever is told that a state is at most
// age old, by a replica that answered after invoked, must be shown everything
// that was acknowledged before.
func (l *ackLog) judgeAge(invoked time.Duration, age, bound time.Duration, shown int) error {
	if bound > 0 && age > bound {
		return fmt.Errorf("an age of %s where %s was allowed", age, bound)
	}
	if want := l.newest(invoked - age); shown < want {
		return fmt.Errorf("%d is shown as at most %s old, %d was acknowledged before that", shown, age, want)
	}
	return nil
}

// sight is the session checker of one holder of a token: it never sees less than
// it saw, or than the writer of its token had written.
type sight struct{ number int }

func (s *sight) judge(written, shown int) error {
	if want := max(s.number, written); shown < want {
		return fmt.Errorf("%d is shown to a session that has seen %d", shown, want)
	}
	s.number = shown
	return nil
}

// TestCheckersOfReads: the two checkers tell what may be from what may not.
func TestCheckersOfReads(t *testing.T) {
	l := &ackLog{at: []time.Duration{10, 20, 30}}
	for _, x := range []struct {
		invoked, age, bound time.Duration
		shown               int
		bad                 bool
	}{
		{40, 5, 0, 3, false}, {40, 5, 0, 2, true}, {40, 10, 0, 2, false}, {40, 15, 20, 2, false}, {40, 15, 20, 1, true},
		{40, 15, 10, 3, true}, {5, 0, 0, 0, false}, {11, 0, 0, 0, true}, {40, 0, 0, 4, false},
	} {
		if err := l.judgeAge(x.invoked, x.age, x.bound, x.shown); (err != nil) != x.bad {
			t.Errorf("%+v: %v", x, err)
		}
	}
	var s sight
	for _, x := range []struct {
		written, shown int
		bad            bool
	}{{0, 0, false}, {2, 2, false}, {0, 5, false}, {6, 5, true}, {0, 4, true}, {0, 5, false}} {
		if err := s.judge(x.written, x.shown); (err != nil) != x.bad {
			t.Errorf("%+v: %v", x, err)
		}
	}
}

// crossingReads is a load on a cluster whose links are cut, and what came of it.
type crossingReads struct {
	t     *testing.T
	c     *testCluster
	group partition.GroupID
	log   *ackLog
	hist  *history.History
	done  atomic.Bool
	wg    sync.WaitGroup

	linear, sessions, direct, bounded, unbounded, behind, failed atomic.Int64
}

// TestReadsThroughCuts covers LEA-2 and LEA-6: while one node after the other is
// cut off, the master too, lease and quorum reads are linearizable with all
// writes (porcupine), session reads never go back behind their token, and no
// stale read is older than it says. PANDO_TEST_READS is how long it goes on.
func TestReadsThroughCuts(t *testing.T) {
	t.Parallel()
	length := 7 * time.Second
	if s := os.Getenv("PANDO_TEST_READS"); s != "" {
		var err error
		if length, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	c, p := newCutCluster(t)
	c.table(TableSpec{Name: "t"})
	x := &crossingReads{t: t, c: c, group: groupsOf(c.any())[0], log: &ackLog{start: time.Now()}, hist: history.New()}
	x.wg.Go(x.write)
	for i, n := range c.nodes {
		for j := range 2 {
			x.wg.Go(func() { x.readLinear(10*i+j, n) })
		}
		x.wg.Go(func() { x.readStale(uint64(i), n) })
		x.wg.Go(func() { x.readSession(uint64(i), n) })
		x.wg.Go(func() { x.readByToken(n) })
	}
	x.cut(p, length)
	x.done.Store(true)
	x.wg.Wait()
	t.Logf("%d writes acknowledged, %d linearizable operations, %d session reads through clients and %d at one replica, %d stale reads with an age, %d without, %d refused as behind, %d failed",
		len(x.log.at), x.linear.Load(), x.sessions.Load(), x.direct.Load(), x.bounded.Load(), x.unbounded.Load(), x.behind.Load(), x.failed.Load())
	for what, n := range map[string]int64{
		"linearizable operations": x.linear.Load(), "session reads": x.sessions.Load(), "reads by token": x.direct.Load(),
		"stale reads": x.bounded.Load(), "refusals": x.behind.Load(),
	} {
		if n < 20 {
			t.Errorf("only %d %s: the test shows little", n, what)
		}
	}
	report := x.hist.Check(t.Context())
	t.Log(report)
	if err := report.Err(); err != nil {
		t.Error(err)
	}
}

// cut cuts one node off after the other, and lets all meet in between.
func (x *crossingReads) cut(p *proxies, length time.Duration) {
	rng := rand.New(rand.NewPCG(uint64(length), 1))
	end := time.After(length)
	for i := 0; ; i++ {
		cut := x.c.nodes[rng.IntN(3)]
		if i%2 == 0 { // the master, as far as anybody knows
			for _, n := range x.c.nodes {
				if v := n.cells.get(x.group).view.Load(); v != nil && v.Serving {
					cut = n
				}
			}
		}
		p.cutOff(cut.ID())
		for _, pause := range []time.Duration{900 * time.Millisecond, 500 * time.Millisecond} {
			select {
			case <-end:
				p.cutOff("")
				return
			case <-time.After(pause):
			}
			p.cutOff("")
		}
	}
}

// write counts the key up, through whichever node's client takes it. A number is
// written only over the one before, so that a try whose outcome was unknown does
// nothing when it comes late; one that finds its number there has written it.
func (x *crossingReads) write() {
	seen := new(client.Seen)
	for i := 1; !x.done.Load(); i++ {
		for at := i; ; at++ {
			ctx, cancel := contextWithin(x.t, time.Second)
			t := x.c.nodes[at%3].Client().KV("t").With(client.ReadOptions{Seen: seen})
			cond := kv.IfAbsent([]byte("count"))
			if i > 1 {
				cond = kv.IfValue([]byte("count"), []byte(strconv.Itoa(i-1)))
			}
			_, err := t.CompareAndSet(ctx, cond, []byte(strconv.Itoa(i)))
			cancel()
			if err == nil {
				x.log.ack(seen.Token())
				break
			}
			if x.done.Load() {
				return
			}
		}
	}
}

// readLinear writes and reads keys at the linearizable levels.
func (x *crossingReads) readLinear(id int, n *Node) {
	rng := rand.New(rand.NewPCG(uint64(id), 2))
	t := n.Client().KV("t")
	i := 0
	x.paced(func() {
		i++
		key := x.hist.Window(fmt.Sprintf("key%d", rng.IntN(3)))
		ctx, cancel := contextWithin(x.t, time.Second)
		if rng.IntN(4) == 0 {
			value := fmt.Sprintf("%d-%d", id, i)
			call := x.hist.Invoke(id, history.Op{Kind: history.Write, Key: key, Value: value})
			_, err := t.Put(ctx, []byte(key), []byte(value))
			x.end(call, err, "")
		} else {
			level := client.Level(rng.IntN(2)) // lease or quorum
			call := x.hist.Invoke(id, history.Op{Kind: history.Read, Key: key})
			a, err := t.At(level).Get(ctx, []byte(key))
			x.end(call, err, string(a.Value))
		}
		cancel()
	})
}

func (x *crossingReads) end(call *history.Call, err error, got string) {
	switch {
	case err == nil:
		x.linear.Add(1)
		call.Return(history.Result{Got: got})
	case partition.CodeOf(err) == partition.CodeUnknown:
		call.Unknown()
	default:
		x.failed.Add(1)
		call.Refused()
	}
}

// paced calls what a client does, with pauses so that one machine bears the load
// of all of them, until the load is over.
func (x *crossingReads) paced(do func()) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !x.done.Load() {
		do()
		<-tick.C
	}
}

// readStale reads at one node's replica, cut off or not.
func (x *crossingReads) readStale(seed uint64, n *Node) {
	rng := rand.New(rand.NewPCG(seed, 3))
	bounds := []time.Duration{0, 30 * time.Millisecond, 300 * time.Millisecond, 2 * time.Second}
	x.paced(func() {
		bound := bounds[rng.IntN(len(bounds))]
		q := stale("count", bound)
		q.TimeoutMS = 600
		invoked := x.log.now()
		r := <-showing(n, x.group, q)
		switch {
		case r.Code != 0:
			x.behind.Add(1)
		case !r.AgeKnown && bound > 0:
			x.t.Errorf("no age where one was asked for: %+v", r)
		case !r.AgeKnown:
			x.unbounded.Add(1)
		default:
			x.bounded.Add(1)
			if err := x.log.judgeAge(invoked, r.Age, bound, number(r.Body)); err != nil {
				x.t.Errorf("at %s: %v", n.ID(), err)
			}
		}
	})
}

// readSession reads through one node's client, which picks the replica.
func (x *crossingReads) readSession(seed uint64, n *Node) {
	rng := rand.New(rand.NewPCG(seed, 4))
	var s sight
	t := n.Client().KV("t").At(client.Session)
	x.paced(func() {
		written := 0
		if rng.IntN(3) == 0 { // told by the writer
			number, token := x.log.latest()
			handed, err := client.ParseToken(token.String())
			if err != nil {
				x.t.Error(err)
			}
			t.Seen().Add(handed)
			written = number
		}
		ctx, cancel := contextWithin(x.t, time.Second)
		a, err := t.Get(ctx, []byte("count"))
		cancel()
		if err != nil {
			x.failed.Add(1)
			return
		}
		x.sessions.Add(1)
		shown, _ := strconv.Atoi(string(a.Value))
		if err := s.judge(written, shown); err != nil {
			x.t.Errorf("through %s: %v", n.ID(), err)
		}
	})
}

// readByToken reads at one node's replica what the writer has just written.
func (x *crossingReads) readByToken(n *Node) {
	var s sight
	var seen client.Seen
	x.paced(func() {
		written, token := x.log.latest()
		seen.Add(token)
		q := session("count", seen.Token().Index(x.group))
		q.TimeoutMS = 200
		r := <-showing(n, x.group, q)
		if r.Code != 0 {
			x.behind.Add(1)
			return
		}
		x.direct.Add(1)
		if err := s.judge(written, number(r.Body)); err != nil {
			x.t.Errorf("at %s: %v", n.ID(), err)
		}
	})
}

func number(body []byte) int {
	n, _ := strconv.Atoi(valueOf(body)) // absent: 0
	return n
}
