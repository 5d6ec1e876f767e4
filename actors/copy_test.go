package actors

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pando.dev/pando/actors/client"
	"pando.dev/pando/actors/copies"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/kv"
)

// learner makes a node a learner of the group and waits until that node's catalog
// knows it.
func (g *groupOf) learner(n *Node) partition.ReplicaID {
	g.tb.Helper()
	_, known := g.onNode(n.ID())
	m := g.change("a learner", func(m *partition.Membership) {
		m.Add(partition.Member{Node: n.ID(), Zone: known.cfg.Zone, Kind: partition.Learner, Eligible: true})
	})
	x, _ := m.OnNode(n.ID())
	eventually(g.tb, "the catalog has the learner", func() error {
		if c, ok := n.control.Catalog().Group(g.id); ok {
			if y, ok := c.Membership.Member(x.Replica); ok && y.Kind == partition.Learner {
				return nil
			}
		}
		return errors.New("not yet")
	})
	return x.Replica
}

// readAt asks a node's own replica for a key.
func (g *groupOf) readAt(n *Node, level client.Level, k string) (string, *client.Response) {
	g.tb.Helper()
	query, err := kv.Get([]byte(k))
	if err != nil {
		g.tb.Fatal(err)
	}
	x, _ := n.control.Catalog().Group(g.id)
	answer := make(chan client.Response, 1)
	req := &client.Request{ID: 77, Op: client.OpRead, Level: level, Group: g.id, RangeVersion: x.RangeVersion, Key: []byte(k), Body: query, TimeoutMS: 5000}
	backend{n}.Read(req, func(r *client.Response) { answer <- *r })
	res := <-answer
	if res.Code != 0 {
		return "", &res
	}
	got, err := kv.ParseGet(res.Body)
	if err != nil {
		g.tb.Fatal(err)
	}
	return string(got.Value), &res
}

// SCL-4: right after a node has become a member, and before anything of the state is
// there, it answers reads that any replica may answer by asking the master; when its
// copy has come it answers them itself, and the counter of such questions stands
// still. It answers no other reads.
func TestLearnerAnswersReads(t *testing.T) {
	t.Parallel()
	c := newClusterWith(t, 4, untended)
	g := c.group(TableSpec{Name: "t", Replicas: 3, Nodes: []partition.NodeID{"n1", "n2", "n3"}})
	table := c.any().Client().KV("t")
	for i := range 50 {
		if err := set(t, table, i); err != nil {
			t.Fatal(err)
		}
	}
	n4 := c.nodes[3]
	if _, res := g.readAt(n4, client.Stale, "key-000001"); res.Err() == nil {
		t.Error("a node that is no member answers")
	}
	id := g.learner(n4)
	const asked = 5
	for i := range asked {
		k := string(key(i))
		if v, res := g.readAt(n4, client.Stale, k); v != k || res.Index < 50 || res.ID != 77 {
			t.Fatalf("before its copy: %q, %+v", v, res)
		}
	}
	if got := n4.counters.readsFetched.Load(); got != asked {
		t.Errorf("%d reads were fetched, %d were asked", got, asked)
	}
	if _, res := g.readAt(n4, client.Lease, "key-000001"); res.Err() == nil {
		t.Error("it answers a read that is the master's")
	}
	if _, err := g.masterOf(t).call(t.Context(), "n4", callRead, nil); err == nil {
		t.Error("it takes no read for one")
	}
	g.bring(n4, hosting{Replica: id, Source: g.masterNode(), MinIndex: 1})
	g.level(n4)
	for i := range asked {
		k := string(key(i))
		if v, res := g.readAt(n4, client.Stale, k); v != k || res.Index < 50 {
			t.Fatalf("after its copy: %q, %+v", v, res)
		}
	}
	for _, x := range n4.Counters() {
		if x.Name == "reads_fetched_total" && x.Value != asked {
			t.Errorf("%v reads were fetched when the copy was there", x.Value-asked)
		}
	}
}

func (g *groupOf) masterOf(t *testing.T) *Node {
	t.Helper()
	n, _ := g.master()
	return n
}

// adders add to a few keys, one compare-and-set at a time, until it is stopped.
type adders struct {
	stop  func()
	acked [4]atomic.Int64
	fails atomic.Int64
}

func (c *testCluster) addUp(through *Node) *adders {
	ctx, cancel := context.WithCancel(c.tb.Context())
	x := &adders{}
	var all sync.WaitGroup
	x.stop = func() { cancel(); all.Wait() }
	c.tb.Cleanup(x.stop)
	table := through.Client().KV("t")
	for i := range x.acked {
		name := fmt.Appendf(nil, "counter-%d", i)
		all.Go(func() {
			last := int64(0)
			for ctx.Err() == nil {
				is := kv.IfAbsent(name)
				if last > 0 {
					is = kv.IfValue(name, strconv.AppendInt(nil, last, 10))
				}
				res, err := table.CompareAndSet(ctx, is, strconv.AppendInt(nil, last+1, 10))
				if err == nil && res.Applied {
					last++
					x.acked[i].Store(last)
				} else if ctx.Err() == nil {
					x.fails.Add(1)
				}
			}
		})
	}
	return x
}

// shown is what a node's own state of the group comes to.
func (g *groupOf) shown(n *Node) (sum [32]byte, at partition.Index) {
	g.tb.Helper()
	v, err := n.cells.get(g.id).state.Load().store.View()
	if err != nil {
		g.tb.Fatal(err)
	}
	defer v.Close()
	if at, err = v.Applied(); err == nil {
		sum, err = v.Digest(g.tb.Context())
	}
	if err != nil {
		g.tb.Fatal(err)
	}
	return sum, at
}

// PFC-2, PFC-5, S5: while every write depends on the one before it, a node gets a copy
// and follows. Each write is in its state exactly once, the conditional ones with
// the outcome that they had: the state is the master's, and the counts are what was
// acknowledged. No write fails. PFC-6, SCL-5: the node that it shall be copied from is
// not there, so another one serves. PFC-7: it becomes a full member only with both
// copy and tail, and then its vote is enough with the master's.
func TestCopyUnderCounting(t *testing.T) {
	t.Parallel()
	c := newClusterWith(t, 4, untended)
	g := c.group(TableSpec{Name: "t", Replicas: 3, Nodes: []partition.NodeID{"n1", "n2", "n3"}})
	master, n4 := g.masterOf(t), c.nodes[3]
	if err := set(t, master.Client().KV("t"), 1); err != nil {
		t.Fatal(err)
	}
	w := c.addUp(master)
	reaches := func(n int64) {
		t.Helper()
		eventually(t, "some counting", func() error {
			if got := w.acked[0].Load(); got < n {
				return fmt.Errorf("%d", got)
			}
			return nil
		})
	}
	reaches(20)
	id := g.learner(n4)
	before := w.acked[0].Load()
	g.bring(n4, hosting{Replica: id, Source: "n9", MinIndex: 1})
	reaches(before + 20)
	g.change("the learner as a voter", func(m *partition.Membership) { m.At(id).Kind = partition.Full })
	reaches(w.acked[0].Load() + 20)
	w.stop()
	g.level(n4)
	if w.fails.Load() > 0 {
		t.Errorf("%d writes failed", w.fails.Load())
	}
	mine, at := g.shown(n4)
	if want, i := g.shown(g.masterOf(t)); mine != want || at != i {
		t.Errorf("the copy is at %d (%x), the master at %d (%x)", at, mine, i, want)
	}
	for i := range w.acked {
		v, res := g.readAt(n4, client.Stale, fmt.Sprint("counter-", i))
		if n, err := strconv.ParseInt(v, 10, 64); err != nil || n < w.acked[i].Load() || n > w.acked[i].Load()+1 { // the last one may not have been answered
			t.Errorf("counter %d is %q (%v), %d were acknowledged", i, v, res.Err(), w.acked[i].Load())
		}
	}
	if st := n4.copies.Status(); st.Fetched != 1 || st.Broken == 0 {
		t.Errorf("the copy: %+v", st)
	}
}

// PFC-3, CAT-6: records that a replica has before the copy comes are newer than it:
// what they say of a key wins over the copy that arrives later. A copy that is older
// than the log here begins is not taken.
func TestTailBeforeItsBase(t *testing.T) {
	t.Parallel()
	c := newClusterWith(t, 4, untended)
	g := c.group(TableSpec{Name: "t", Replicas: 3, Nodes: []partition.NodeID{"n1", "n2", "n3"}})
	table := c.any().Client().KV("t")
	write := func(round string) {
		t.Helper()
		for i := range 30 {
			if _, err := table.Put(t.Context(), key(i), []byte(round)); err != nil {
				t.Fatal(err)
			}
		}
	}
	write("base")
	master, mc := g.master()
	at, err := copyHost{master}.Describe(g.id, mc.status.Load().Everywhere)
	if err != nil {
		t.Fatal(err)
	}
	n4 := c.nodes[3]
	id := g.learner(n4)
	h := hosting{Group: g.id, Replica: id, LogOnly: true, Base: at.Position, BaseSum: at.Sum, Configuration: at.Configuration}
	g.bring(n4, h)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	base, err := n4.copies.Fetch(ctx, copies.Request{Group: g.id, From: master.ID(), MinIndex: n4.copyFrom(h)})
	if err != nil {
		t.Fatal(err)
	}
	write("tail")
	eventually(t, "the tail is in the log of the new replica", func() error {
		sum, _ := n4.log.Summary(g.id)
		if last := mc.status.Load().Last.Index; sum.Last < last || last < base.Base.Index+30 {
			return fmt.Errorf("it ends at %d, the master's at %d, the base is %d", sum.Last, last, base.Base.Index)
		}
		return nil
	})
	installed := make(chan error, 1)
	n4.cells.get(g.id).ask(&install{hosting: h, state: base, done: func(err error) { installed <- err }})
	select {
	case err := <-installed:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(patience):
		t.Fatal("not installed")
	}
	g.level(n4)
	for i := range 30 {
		if v, res := g.readAt(n4, client.Stale, string(key(i))); v != "tail" {
			t.Fatalf("key %d is %q: %v", i, v, res.Err())
		}
	}
	mine, _ := g.shown(n4)
	if want, _ := g.shown(g.masterOf(t)); mine != want {
		t.Error("the state is not the master's")
	}
}

// PFC-6, SCL-5: the node that a state is copied from stops in the middle. The copy
// comes from another one, whole, and the replica that gets it follows.
func TestSourceStopsInTheMiddle(t *testing.T) {
	t.Parallel()
	c := newClusterWith(t, 4, func(cfg *Config) { cfg.untended, cfg.CopyBytesPerSecond = true, 1<<20 })
	g := c.group(TableSpec{Name: "t", Replicas: 3, Nodes: []partition.NodeID{"n1", "n2", "n3"}})
	master, n4 := g.masterOf(t), c.nodes[3]
	table := master.Client().KV("t")
	value := make([]byte, 16<<10)
	for i := range 60 {
		_, _ = rand.Read(value)
		if _, err := table.Put(t.Context(), key(i), value); err != nil {
			t.Fatal(err)
		}
	}
	source := g.peers()[0]
	id := g.learner(n4)
	h := hosting{Group: g.id, Replica: id, Source: source, MinIndex: 1}
	at, from := c.onNode(source)
	g.level(from)
	var busy error
	eventually(t, "a part of the copy", func() error {
		busy = n4.hostReplica(t.Context(), h)
		if p, ok := n4.copies.Fetching(g.id); !ok || p.Peer != source || p.Done < 200<<10 {
			return fmt.Errorf("%+v, %w", p, busy)
		}
		return nil
	})
	if why := asError(busy).Why; !errors.Is(busy, partition.ErrBusy) || !strings.Contains(why, "bytes are here") {
		t.Errorf("under way it says %q", why)
	}
	c.stop(at)
	g.bring(n4, h)
	g.level(n4)
	mine, i := g.shown(n4)
	if want, j := g.shown(g.masterOf(t)); mine != want || i != j {
		t.Errorf("the copy is at %d (%x), the master at %d (%x)", i, mine, j, want)
	}
	if st := n4.copies.Status(); st.Fetched != 1 || st.Broken == 0 || st.Damaged > 0 {
		t.Errorf("the copy: %+v", st)
	}
}

// PG3, SCL-7: a node's copies slow down when its log takes longer for writes than
// without a copy, and are as fast as they may be when that is over.
func TestCopiesAreGoverned(t *testing.T) {
	t.Parallel()
	const most = 4 << 20
	c := newClusterWith(t, 3, func(cfg *Config) {
		cfg.untended, cfg.CopyBytesPerSecond = true, most
		if cfg.NodeID == "n2" { // it takes so long that the copy outlasts the test
			cfg.CopyBytesPerSecond = 128 << 10
		}
	})
	g := c.group(TableSpec{Name: "t", Replicas: 1, Nodes: []partition.NodeID{"n1"}})
	n1, n2 := g.masterOf(t), c.nodes[1]
	value := make([]byte, 64<<10)
	for i := range 100 {
		_, _ = rand.Read(value)
		if _, err := n1.Client().KV("t").Put(t.Context(), key(i), value); err != nil {
			t.Fatal(err)
		}
	}
	var took atomic.Int64
	took.Store(int64(time.Millisecond))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var noting sync.WaitGroup
	defer noting.Wait()
	defer stop()
	noting.Go(func() { // as if so many were written
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ctx.Err() == nil; n++ {
			<-tick.C
			for range 10 {
				n1.writes.note(time.Duration(took.Load()))
			}
		}
	})
	rate := func(what string, fits func(int64) bool) {
		t.Helper()
		eventually(t, what, func() error {
			if r := n1.copies.Status().BytesPerSecond; !fits(r) {
				return fmt.Errorf("%d bytes per second", r)
			}
			return nil
		})
	}
	quiet := time.NewTimer(5 * copies.GovernEvery)
	<-quiet.C
	id := g.learner(n2)
	h := hosting{Group: g.id, Replica: id, Source: n1.ID(), MinIndex: 1}
	eventually(t, "a copy", func() error {
		if p, ok := n2.copies.Fetching(g.id); !ok || p.Done == 0 {
			return fmt.Errorf("%+v, %w", p, n2.hostReplica(t.Context(), h))
		}
		return nil
	})
	took.Store(int64(20 * time.Millisecond))
	rate("slow", func(r int64) bool { return r <= 1<<20 })
	took.Store(int64(time.Millisecond))
	rate("fast again", func(r int64) bool { return r == most })
	if st := n2.copies.Status(); len(st.Copies) != 1 || st.BytesPerSecond != 128<<10 {
		t.Errorf("the copy was over before: %+v", st)
	}
}
