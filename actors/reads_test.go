package actors

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pando.dev/pando/actors/client"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/kv"
)

// showing asks the replica of this node for a key, with the level and bounds of
// the request. The answer comes once, later perhaps.
func showing(n *Node, g partition.GroupID, r client.Request) <-chan *client.Response {
	route, _ := n.control.Catalog().Group(g)
	query, _ := kv.Get(r.Key)
	r.Op, r.Group, r.RangeVersion, r.Body = client.OpRead, g, route.RangeVersion, query
	answer := make(chan *client.Response, 2) // a second one would be a defect
	backend{n}.Read(&r, func(r *client.Response) { c := *r; answer <- &c })
	return answer
}

func session(key string, least partition.Index) client.Request {
	return client.Request{Level: client.Session, Key: []byte(key), MinIndex: least}
}

func stale(key string, age time.Duration) client.Request {
	return client.Request{Level: client.Stale, Key: []byte(key), MaxAge: age}
}

// idle reports whether no read waits, as the bookkeeping has it.
func (r *heldReads) idle() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.waiting) > 0 || r.bytes != 0 || r.asking {
		return fmt.Errorf("%d reads of %d bytes wait, asking %v", len(r.waiting), r.bytes, r.asking)
	}
	return nil
}

// replicaOn waits until the node has a replica of the only group with a state,
// which a peer has later than the master, and returns the group.
func (c *testCluster) replicaOn(n *Node) (g partition.GroupID) {
	c.tb.Helper()
	eventually(c.tb, "a replica with a state", func() error {
		all := groupsOf(n)
		if len(all) == 0 || n.cells.get(all[0]).state.Load() == nil {
			return errors.New("not yet")
		}
		g = all[0]
		return nil
	})
	return g
}

// TestHeldReads: a read that waits for a record is answered when that is applied
// and not before; one that waits in vain is refused at its deadline, and says
// where the replica is; too many are refused at once; and when the replica ends
// nobody goes on waiting.
func TestHeldReads(t *testing.T) {
	t.Parallel()
	c := startSingle(t, single(t, t.TempDir()))
	c.table(TableSpec{Name: "t"})
	n := c.any()
	if err := put(t.Context(), n, "k", "old"); err != nil {
		t.Fatal(err)
	}
	g := groupsOf(n)[0]
	st := n.cells.get(g).state.Load()
	now := st.held.index()
	if r := <-showing(n, g, session("k", now)); r.Code != 0 || valueOf(r.Body) != "old" || r.Index < now {
		t.Fatalf("what is there: %+v", r)
	}

	waiting := showing(n, g, session("k", now+1))
	select {
	case r := <-waiting:
		t.Fatalf("answered before its record: %+v", r)
	default:
	}
	if err := put(t.Context(), n, "k", "new"); err != nil {
		t.Fatal(err)
	}
	if r := <-waiting; r.Code != 0 || r.Index <= now || valueOf(r.Body) == "old" {
		t.Fatalf("after its record: %+v", r)
	}

	vain := session("k", 1<<40)
	vain.TimeoutMS = 40
	r := <-showing(n, g, vain)
	if r.Code != partition.CodeBehind || !strings.Contains(r.Why, fmt.Sprintf("at record %d", st.held.index())) || !strings.Contains(r.Why, "node ") {
		t.Fatalf("in vain: %+v", r)
	}

	var all []<-chan *client.Response
	for range maxHeld {
		all = append(all, showing(n, g, session("k", 1<<40)))
	}
	if r := <-showing(n, g, session("k", 1<<40)); r.Code != partition.CodeBusy {
		t.Errorf("over the limit: %+v", r)
	}
	if r := <-showing(n, g, session("k", now)); r.Code != 0 {
		t.Errorf("one that need not wait: %+v", r)
	}
	for i, answer := range all {
		if r := <-answer; r.Code != partition.CodeBehind {
			t.Fatalf("read %d: %+v", i, r)
		}
	}
	last := showing(n, g, session("k", 1<<40))
	st.damaged(partition.Errorf(partition.CodeCorrupt, "planted damage"))
	if r := <-last; r.Code != partition.CodeUnavailable {
		t.Errorf("when the replica ends: %+v", r)
	}
	if err := st.held.idle(); err != nil {
		t.Error(err)
	}
	for i, answer := range append(all, waiting, last) {
		select {
		case r := <-answer:
			t.Errorf("read %d was answered twice: %+v", i, r)
		default:
		}
	}
}

// TestWhoAnswersReads: a log replica answers no reads; a learner with a state does,
// and a member in maintenance, and one that knows of no master.
func TestWhoAnswersReads(t *testing.T) {
	t.Parallel()
	c := startSingle(t, single(t, t.TempDir()))
	c.table(TableSpec{Name: "t"})
	n := c.any()
	g := groupsOf(n)[0]
	cell := n.cells.get(g)
	v := cell.view.Load()
	for _, x := range []struct {
		name string
		kind partition.MemberKind
		rest bool
		gone bool
		want partition.Code
	}{
		{name: "full", kind: partition.Full},
		{name: "in maintenance", kind: partition.Full, rest: true},
		{name: "log replica", kind: partition.LogReplica, want: partition.CodeUnavailable},
		{name: "learner", kind: partition.Learner},
		{name: "no member", gone: true, want: partition.CodeUnavailable},
	} {
		after, m := *v, *v.Configurations[0]
		after.Serving, after.Master = false, 0
		m.Members = []partition.Member{m.Members[0]}
		m.Members[0].Kind, m.Members[0].Eligible = x.kind, !x.rest
		if x.gone {
			m.Members = nil
		}
		after.Configurations = []*partition.Membership{&m}
		cell.view.Store(&after)
		for _, r := range []client.Request{session("k", 0), stale("k", 0)} {
			if got := <-showing(n, g, r); got.Code != x.want {
				t.Errorf("%s, level %s: %+v", x.name, r.Level, got)
			}
		}
		if x.want == 0 { // without a master nobody tells how old it is
			if got := <-showing(n, g, stale("k", time.Second)); got.Code != partition.CodeBehind {
				t.Errorf("%s, by age: %+v", x.name, got)
			}
		}
	}
	cell.view.Store(v)
}

// TestStaleAtACutOffReplica covers LEA-6 and LEA-4: a replica that is cut off goes
// on answering without bounds and by an index that it has, says that it is behind
// otherwise, and never claims an age that is not so; the old master no more than
// any other.
func TestStaleAtACutOffReplica(t *testing.T) {
	t.Parallel()
	for _, master := range []bool{false, true} {
		c, p := newCutCluster(t)
		c.table(TableSpec{Name: "t"})
		if err := put(t.Context(), c.any(), "k", "old"); err != nil {
			t.Fatal(err)
		}
		m := c.master("t")
		g := groupsOf(c.nodes[m])[0]
		at, other := c.nodes[m], c.nodes[(m+1)%3]
		if !master {
			at = c.nodes[(m+2)%3]
		}
		eventually(t, "an answer by age", func() error {
			if r := <-showing(at, g, stale("k", time.Second)); r.Code != 0 || !r.AgeKnown || r.Age > time.Second || valueOf(r.Body) != "old" {
				return fmt.Errorf("%+v", r)
			}
			return nil
		})
		old := at.cells.get(g).state.Load().held.index()
		p.cutOff(at.ID())
		if err := put(t.Context(), other, "k", "new"); err != nil {
			t.Fatal(err)
		}
		acked := time.Now()
		if r := <-showing(at, g, stale("k", 0)); r.Code != 0 || valueOf(r.Body) != "old" || r.Index != old {
			t.Errorf("without a bound: %+v", r)
		}
		if r := <-showing(at, g, session("k", old)); r.Code != 0 || valueOf(r.Body) != "old" {
			t.Errorf("by an index that it has: %+v", r)
		}
		if r := <-showing(at, g, session("k", old+1)); r.Code != partition.CodeBehind {
			t.Errorf("by an index that it has not: %+v", r)
		}
		eventually(t, "a refusal without a wait", func() error {
			if r := <-showing(at, g, session("k", old+1)); !strings.Contains(r.Why, "does not reach the master") {
				return fmt.Errorf("%+v", r)
			}
			return nil
		})
		for range 50 {
			before := time.Since(acked)
			r := <-showing(at, g, stale("k", 200*time.Millisecond))
			if r.Code == 0 && r.Age < before {
				t.Fatalf("%q is shown as at most %s old, %s after the next was acknowledged", valueOf(r.Body), r.Age, before)
			}
			if r.Code != 0 && (r.Code != partition.CodeBehind || !strings.Contains(r.Why, " old")) {
				t.Fatalf("%+v", r)
			}
			if r.Code != 0 && before > time.Second {
				break
			}
		}
		// The client finds somebody who is not cut off.
		seen := new(client.Seen)
		table := other.Client().KV("t").With(client.ReadOptions{Level: client.Stale, MaxAge: 300 * time.Millisecond, Seen: seen})
		if a, err := table.Get(t.Context(), []byte("k")); err != nil || string(a.Value) != "new" {
			t.Errorf("the others: %q, %v", a.Value, err)
		}
		p.cutOff("")
		eventually(t, "the cut-off node back", func() error {
			a, err := at.Client().KV("t").With(client.ReadOptions{Level: client.Session, Token: seen.Token()}).Get(t.Context(), []byte("k"))
			if err == nil && string(a.Value) != "new" {
				t.Fatalf("by the token of the newer one: %q", a.Value)
			}
			return err
		})
	}
}

// TestOneQuestionForMany: however many reads want to know at once how new the
// state is, one question is on its way, and a replica that nobody reads asks
// none.
func TestOneQuestionForMany(t *testing.T) {
	t.Parallel()
	eventually(t, "a master that stays", func() error {
		c := newCluster(t, 3)
		c.table(TableSpec{Name: "t"})
		if err := put(t.Context(), c.any(), "k", "v"); err != nil {
			t.Fatal(err)
		}
		m := c.master("t")
		n := c.nodes[(m+1)%3]
		g := c.replicaOn(n)
		before := c.nodes[m].cells.get(g).view.Load()
		wrong := oneQuestionForMany(t, n, g, c.nodes[m].ID())
		if after := c.nodes[m].cells.get(g).view.Load(); before == nil || after == nil || !before.Serving || !after.Serving || after.Epoch != before.Epoch {
			return errors.New("the machine stalled, the master has changed")
		}
		if wrong != nil {
			t.Error(wrong)
		}
		return nil
	})
}

// oneQuestionForMany returns what is wrong with the reads at a replica that is
// not master.
func oneQuestionForMany(t *testing.T, n *Node, g partition.GroupID, master partition.NodeID) (wrong error) {
	bad := func(format string, args ...any) { wrong = errors.Join(wrong, fmt.Errorf(format, args...)) }
	st := n.cells.get(g).state.Load()
	const together = 200
	before := n.counters.indexAsked.Load()
	var all []<-chan *client.Response
	for range together {
		all = append(all, showing(n, g, stale("k", time.Minute)))
	}
	for _, answer := range all {
		if r := <-answer; r.Code != 0 || !r.AgeKnown {
			bad("%+v", r)
		}
	}
	// One that looked just before the word came, and waits just after, asks again.
	asked := n.counters.indexAsked.Load() - before
	if asked < 1 || asked > 2 {
		bad("%d questions for %d reads", asked, together)
	}
	// What is shorter than a round trip nobody but the master can promise.
	if r := <-showing(n, g, stale("k", 1)); r.Code != partition.CodeBehind || r.Master != master {
		bad("an age of a nanosecond: %+v", r)
	}
	if more := n.counters.indexAsked.Load() - before - asked; more != maxAsks {
		bad("%d questions for an age of a nanosecond", more)
	}
	if a, err := n.Client().KV("t").With(client.ReadOptions{Level: client.Stale, MaxAge: time.Second}).Get(t.Context(), []byte("k")); err != nil || string(a.Value) != "v" {
		bad("through the client: %q, %v", a.Value, err)
	}
	return errors.Join(wrong, st.held.idle())
}

// TestEvidenceIsProven: what the master said counts for a state only when that
// reflects it, and newer words take nothing away from older ones meanwhile.
func TestEvidenceIsProven(t *testing.T) {
	r := &heldReads{applied: 4}
	for i, x := range []struct {
		word    evidence // 0: none
		reached partition.Index
		proven  partition.Index // index of the evidence that counts
	}{
		{evidence{}, 5, 0},
		{evidence{index: 7, at: 10, known: true}, 6, 0},
		{evidence{}, 7, 7},
		{evidence{index: 9, at: 20, known: true}, 8, 7},
		{evidence{index: 12, at: 30, known: true}, 11, 9},
		{evidence{}, 20, 12},
		{evidence{index: 15, at: 40, known: true}, 20, 15},
	} {
		if x.word.known {
			r.landed(x.word)
			if got := r.evidence(false); got != x.word {
				t.Errorf("step %d: latest %+v", i, got)
			}
		}
		if x.reached > r.index() {
			r.reached(x.reached)
		}
		if got := r.evidence(true); got.index != x.proven || got.known != (x.proven > 0) {
			t.Errorf("step %d: proven %+v, want %d", i, got, x.proven)
		}
	}
}

// TestAgeCountsFromTheQuestion: however long the master takes to answer, the age
// counts from before it was asked. Its lease has lapsed here, and its replica is
// busy, so that the answer takes a round and its time.
func TestAgeCountsFromTheQuestion(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	c.table(TableSpec{Name: "t"})
	if err := put(t.Context(), c.any(), "k", "v"); err != nil {
		t.Fatal(err)
	}
	m := c.master("t")
	master, n := c.nodes[m], c.nodes[(m+1)%3]
	g := c.replicaOn(n)
	cell := master.cells.get(g)
	v := cell.view.Load()
	lapsed := *v
	lapsed.Supporters = nil
	entered, release := make(chan bool), make(chan bool)
	if !cell.box.TryPost(&indexedRead{
		req:   &client.Request{Op: client.OpRead, Level: levelIndex, Group: g},
		reply: func(*client.Response) { entered <- true; <-release },
	}, 0) {
		t.Fatal("the mailbox is full")
	}
	<-entered
	cell.view.Store(&lapsed)
	defer cell.view.CompareAndSwap(&lapsed, v)
	answer := showing(n, g, stale("k", time.Minute))
	asked := time.Now()
	var took time.Duration
	eventually(t, "a long wait", func() error {
		if took = time.Since(asked); took < 100*time.Millisecond {
			return fmt.Errorf("%s so far", took)
		}
		return nil
	})
	close(release)
	r := <-answer
	if r.Code != 0 || !r.AgeKnown || r.Age < took {
		t.Errorf("asked %s before the answer: %+v", took, r)
	}
}
