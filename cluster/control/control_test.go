package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"pando.dev/pando/cluster/placement"
	"pando.dev/pando/partition"
)

func nodesOf(ids ...partition.NodeID) []placement.Node {
	var all []placement.Node
	for _, id := range ids {
		all = append(all, placement.Node{ID: id, Zone: "z-" + string(id)})
	}
	return all
}

func deadline(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// One node that expects one seat is ready at once, serves the whole API, and
// has everything after a restart.
func TestSingleSeat(t *testing.T) {
	n := newTestNet(t)
	a := n.start("a", 1)
	table, err := a.CreateTable(deadline(t, 10*time.Second), TableSpec{
		Name: "t", Kind: "kv", Replicas: 1, SplitPoints: [][]byte{[]byte("m")},
	})
	if err != nil {
		t.Fatal(err)
	}
	if table.Name != "t" || len(a.Catalog().Groups("t")) != 2 {
		t.Fatalf("table %+v, groups %d", table, len(a.Catalog().Groups("t")))
	}
	g, err := a.Catalog().Lookup("t", []byte("z"))
	if err != nil || g.ID != 2 || g.Membership.Members[0].Node != "a" {
		t.Fatalf("lookup: %+v, %v", g, err)
	}
	grants, err := a.AcquireLocks(deadline(t, 5*time.Second), []LockRequest{{Group: 1, Replica: 1}, {Group: 2, Replica: 1, Above: 9}, {Group: 7, Replica: 1}})
	if err != nil || grants[0].Number != 1 || grants[1].Number != 10 || grants[2].Err == nil {
		t.Fatalf("grants %+v, %v", grants, err)
	}
	n.stop("a")
	a = n.start("a", 1)
	a.wait(t, "catalog after restart", func() bool { return a.Catalog().Version == 1 })
	grants, err = a.AcquireLocks(deadline(t, 5*time.Second), []LockRequest{{Group: 2, Replica: 1}})
	if err != nil || grants[0].Number != 11 {
		t.Fatalf("a number was used again: %+v, %v", grants, err)
	}
	st := a.Status()
	if !st.HasSeat || st.Leader != "a" || st.State != Ready || !slices.Equal(st.Seats, []partition.NodeID{"a"}) {
		t.Fatalf("status %+v", st)
	}
}

// Three seats over loopback TCP: catalog and locks from every node, and the next
// grant soon after the leader has died.
func TestThreeSeats(t *testing.T) {
	n := newTestNet(t)
	ids := []partition.NodeID{"a", "b", "c"}
	for _, id := range ids {
		n.start(id, 3)
	}
	n.leader()
	ctx := deadline(t, 20*time.Second)
	if _, err := n.nodes["b"].CreateTable(ctx, TableSpec{Name: "t", Kind: "kv", Replicas: 3}); err != nil {
		t.Fatal(err)
	}
	number := uint64(0)
	for _, id := range ids {
		x := n.nodes[id]
		x.wait(t, "table", func() bool { _, ok := x.Catalog().Table("t"); return ok })
		grants, err := x.AcquireLocks(ctx, []LockRequest{{Group: 1, Replica: 1, Failover: id != "a"}})
		if err != nil {
			t.Fatal(err)
		}
		if number == 0 {
			number = grants[0].Number
		}
	}
	old := n.leader()
	n.stop(old.id)
	x := n.running()[0]
	start := time.Now()
	grants, err := x.AcquireLocks(ctx, []LockRequest{{Group: 1, Replica: 2, Failover: true}})
	if err != nil || grants[0].Number <= number {
		t.Fatalf("after the leader died: %+v, %v", grants, err)
	}
	t.Logf("next grant %v after the control leader died", time.Since(start).Round(time.Millisecond))
}

// Six nodes that expect three seats, started in any order: one control group,
// which everybody finds; the nodes without a seat have catalog and locks, too.
// With the majority of the seats gone the catalog stays readable everywhere, and
// what needs a decision says that nothing was done; when they come back it goes
// on.
func TestSixNodesThreeSeats(t *testing.T) {
	n := newTestNet(t)
	ids := []partition.NodeID{"a", "b", "c", "d", "e", "f"}
	for _, i := range rand.Perm(len(ids)) {
		n.start(ids[i], 3)
	}
	var group uint64
	for _, id := range ids {
		x := n.nodes[id]
		x.wait(t, "control group", func() bool { return x.Status().State == Ready })
		st := x.Status()
		if group == 0 {
			group = st.Group
		}
		if st.Group != group || len(st.Seats) != 3 || st.HasSeat != slices.Contains(st.Seats, id) {
			t.Fatalf("%s: %+v, another has group %x", id, st, group)
		}
	}
	seats := n.nodes["a"].Status().Seats
	var without []partition.NodeID
	for _, id := range ids {
		if !slices.Contains(seats, id) {
			without = append(without, id)
		}
	}
	x := n.nodes[without[0]]
	ctx := deadline(t, 20*time.Second)
	table, err := x.CreateTable(ctx, TableSpec{Name: "t", Kind: "kv", Replicas: 3, Nodes: nodesOf(without...)})
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := x.Catalog().Table("t"); !ok || got.ID != table.ID {
		t.Fatal("the node that made the table does not have it in its catalog")
	}
	for _, id := range ids {
		y := n.nodes[id]
		y.wait(t, "table", func() bool { _, ok := y.Catalog().Table("t"); return ok })
	}
	grants, err := x.AcquireLocks(ctx, []LockRequest{{Group: 1, Replica: 1}})
	if err != nil || grants[0].Number != 1 {
		t.Fatalf("%+v, %v", grants, err)
	}
	for _, id := range seats[:2] {
		n.stop(id)
	}
	if g, err := x.Catalog().Lookup("t", []byte("k")); err != nil || g.ID != 1 {
		t.Fatalf("without the control group: %+v, %v", g, err)
	}
	x.wait(t, "loss of the leader", func() bool { return x.Status().State == NoLeader })
	if _, err := x.AcquireLocks(deadline(t, 200*time.Millisecond), []LockRequest{{Group: 1, Replica: 1}}); err == nil {
		t.Fatal("a lock without a majority")
	}
	n.start(seats[0], 3)
	grants, err = x.AcquireLocks(ctx, []LockRequest{{Group: 1, Replica: 1}})
	if err != nil || grants[0].Number < 2 {
		t.Fatalf("after a seat came back: %+v, %v", grants, err)
	}
}

// Nodes that crash while the control group is being founded come to the same
// one when they are back.
func TestFoundingSurvivesRestarts(t *testing.T) {
	n := newTestNet(t)
	ids := []partition.NodeID{"a", "b", "c", "d"}
	for round := range 6 {
		for _, id := range ids {
			n.start(id, 3)
		}
		pause := time.NewTimer(time.Duration(rand.IntN(1+20*round)) * time.Millisecond)
		<-pause.C
		for _, i := range rand.Perm(len(ids)) {
			n.stop(ids[i])
		}
	}
	for _, id := range ids {
		n.start(id, 3)
	}
	groups := map[uint64]bool{}
	for _, id := range ids {
		x := n.nodes[id]
		x.wait(t, "control group", func() bool { return x.Status().State == Ready })
		groups[x.Status().Group] = true
	}
	if len(groups) != 1 {
		t.Fatalf("control groups %v", groups)
	}
}

// Two nodes of three cannot found anything, and say what they wait for.
func TestWaitingForSeats(t *testing.T) {
	n := newTestNet(t)
	a, b := n.start("a", 3), n.start("b", 3)
	n.until("reason", func() bool { return a.Status().Why != "" && b.Status().Why != "" })
	if st := a.Status(); st.State != WaitingForSeats || st.HasSeat {
		t.Fatalf("%+v", st)
	}
	_, err := a.CreateTable(deadline(t, 50*time.Millisecond), TableSpec{Name: "t", Kind: "kv", Replicas: 1})
	if !errors.Is(err, partition.ErrUnavailable) {
		t.Fatal(err)
	}
	if _, err := a.AcquireLocks(deadline(t, 50*time.Millisecond), []LockRequest{{Group: 1, Replica: 1}}); err == nil {
		t.Fatal("a lock without a control group")
	}
	n.start("c", 3)
	for _, x := range []*testNode{a, b} {
		x.wait(t, "control group", func() bool { return x.Status().State == Ready })
	}
}

// A node that was told of others founds nothing before it has met one.
func TestNotBeforeJoining(t *testing.T) {
	n := newTestNet(t)
	var joined atomic.Bool
	a := n.start("a", 1, func(c *Config) { c.Joined = joined.Load })
	n.until("reason", func() bool { return a.Status().Why != "" })
	if st := a.Status(); st.State != WaitingForSeats {
		t.Fatalf("%+v", st)
	}
	joined.Store(true)
	a.wait(t, "control group", func() bool { return a.Status().State == Ready })
}

// The lock of a node that is gone is free when its session has run out, and not
// before; that of a node that renews stays.
func TestSessionRunsOut(t *testing.T) {
	n := newTestNet(t)
	short := func(c *Config) { c.SessionTTL = 400 * time.Millisecond }
	a, b := n.start("a", 1, short), n.start("b", 0, short)
	ctx := deadline(t, 20*time.Second)
	if _, err := a.CreateTable(ctx, TableSpec{Name: "t", Kind: "kv", Replicas: 1, SplitPoints: [][]byte{[]byte("m")}, Nodes: nodesOf("a")}); err != nil {
		t.Fatal(err)
	}
	lock := func(x *testNode, g partition.GroupID, r partition.ReplicaID) LockGrant {
		grants, err := x.AcquireLocks(ctx, []LockRequest{{Group: g, Replica: r}})
		if err != nil {
			t.Fatal(err)
		}
		return grants[0]
	}
	if g := lock(b, 1, 2); g.Number != 1 {
		t.Fatalf("%+v", g)
	}
	if g := lock(a, 2, 1); g.Number != 1 {
		t.Fatalf("%+v", g)
	}
	if g := lock(a, 1, 1); g.Number != 0 || g.Holder.Node != "b" {
		t.Fatalf("granted while the holder lives: %+v", g)
	}
	n.stop("b")
	n.until("expiry", func() bool { return lock(a, 1, 1).Number == 2 })
	c := n.start("c", 0, short)
	c.wait(t, "table", func() bool { return c.Catalog().Version > 0 })
	if g := lock(c, 2, 2); g.Number != 0 {
		t.Fatalf("taken from a node that renews: %+v", g)
	}
}

// Masters' news reach every catalog; what is not about a node's own groups is
// refused.
func TestUpdateGroups(t *testing.T) {
	n := newTestNet(t)
	a, b := n.start("a", 1), n.start("b", 0)
	ctx := deadline(t, 20*time.Second)
	var splits [][]byte
	for i := range 500 {
		splits = append(splits, fmt.Appendf(nil, "key-%04d", i))
	}
	if _, err := b.CreateTable(ctx, TableSpec{Name: "t", Kind: "kv", Replicas: 2, SplitPoints: splits}); err != nil {
		t.Fatal(err)
	}
	var updates []GroupUpdate
	for _, g := range b.Catalog().Groups("t") {
		r, _ := g.Membership.OnNode("b")
		updates = append(updates, GroupUpdate{
			Group: g.ID, Range: g.Range, RangeVersion: g.RangeVersion, Membership: g.Membership,
			Epoch: partition.NewEpoch(1, r.Replica), Master: "b",
		})
	}
	if len(updates) != 501 {
		t.Fatalf("%d groups", len(updates))
	}
	if err := b.UpdateGroups(ctx, updates); err != nil {
		t.Fatal(err)
	}
	for _, x := range []*testNode{a, b} {
		x.wait(t, "masters", func() bool {
			return !slices.ContainsFunc(x.Catalog().Groups("t"), func(g *Group) bool { return g.Master != "b" })
		})
	}
	if err := a.UpdateGroups(ctx, updates[:1]); !errors.Is(err, partition.ErrUnauthorized) {
		t.Fatal(err)
	}
	if err := b.UpdateGroups(ctx, []GroupUpdate{{Group: 1}}); !errors.Is(err, partition.ErrInvalid) {
		t.Fatal(err)
	}
	if err := b.DropTable(ctx, "t", ""); err != nil {
		t.Fatal(err)
	}
	if err := b.UpdateGroups(ctx, updates); !errors.Is(err, partition.ErrNotFound) {
		t.Fatal(err)
	}
	if len(b.Catalog().AllGroups()) != 0 {
		t.Fatal("groups of the dropped table remain")
	}
}

// Bodies of every kind there is, and of those there are not, that are none: each
// gets a typed answer.
func TestHostileKinds(t *testing.T) {
	n := newTestNet(t)
	a := n.start("a", 1)
	a.wait(t, "leader", func() bool { return a.Status().State == Ready })
	rows := 0
	for k := range 256 {
		for what, body := range map[string][]byte{
			"nothing": nil, "reserved": {0xc1}, "cut short": {0x92}, "too few": {0x90}, "too many": append([]byte{0xdc, 0, 40}, bytes.Repeat([]byte{0xc0}, 40)...),
			"a string": {0xa1, 'x'}, "nested": append(bytes.Repeat([]byte{0x91}, 1000), 0xc0), "an array bomb": {0xdd, 0xff, 0xff, 0xff, 0xff}, "trailing": {0x90, 0x90},
		} {
			b := encode(kindRequest, &requestBody{TimeoutMs: 20, Body: append([]byte{codecVersion, byte(k)}, body...)})
			answer, err := decode[answerBody](kindAnswer, a.Serve(t.Context(), "x", b))
			if err != nil || answer.Error == nil && what != "too few" { // zero is a question that some kinds allow
				t.Errorf("kind %d, %s: %+v, %v", k, what, answer, err)
			}
			rows++
		}
	}
	t.Logf("%d rows", rows)
	if _, err := a.CreateTable(deadline(t, 10*time.Second), TableSpec{Name: "t", Kind: "kv", Replicas: 1}); err != nil {
		t.Fatal(err)
	}
}

// Requests that any node may send and no program of ours would: each gets a
// typed answer, and the seat goes on.
func TestHostileRequests(t *testing.T) {
	n := newTestNet(t)
	a := n.start("a", 1)
	a.wait(t, "leader", func() bool { return a.Status().State == Ready })
	wrap := func(body []byte) []byte {
		return encode(kindRequest, &requestBody{TimeoutMs: 100, Body: body})
	}
	body := func(k kind, v any) []byte { return wrap(command(t, k, v)) }
	other := encode(kindRequest, &requestBody{Group: 1, TimeoutMs: 100, Body: command(t, kindAskRenew, &askRenew{Boot: 1})})
	for what, x := range map[string]struct {
		request []byte
		code    partition.Code
	}{
		"nothing":              {nil, partition.CodeCorrupt},
		"too long":             {make([]byte, MaxCallBytes+1), partition.CodeTooLarge},
		"newer":                {[]byte{codecVersion + 1, 16, 0x90}, partition.CodeNewerFormat},
		"array bomb":           {[]byte{codecVersion, 16, 0xdd, 0x00, 0x10, 0x00, 0x00}, partition.CodeCorrupt},
		"inner bomb":           {wrap([]byte{codecVersion, byte(kindAskLocks), 0xdd, 0x7f, 0xff, 0xff, 0xff}), partition.CodeCorrupt},
		"binary bomb":          {wrap([]byte{codecVersion, byte(kindAskLocks), 0xc6, 0x40, 0, 0, 0}), partition.CodeCorrupt},
		"a command":            {body(kindLocks, &locksBody{Node: "a", Boot: 1}), partition.CodeInvalid},
		"another group":        {other, partition.CodeRefused},
		"too many locks":       {body(kindAskLocks, &locksBody{Boot: 1, Acquire: make([]acquireItem, MaxLockBatch+1)}), partition.CodeTooLarge},
		"seat nonsense":        {body(kindAskSeat, &askSeat{}), partition.CodeInvalid},
		"somebody's group":     {body(kindAskUpdate, &updateBody{Updates: []groupItem{{ID: 1, Master: "b"}}}), partition.CodeUnauthorized},
		"a broken group":       {body(kindAskUpdate, &updateBody{Updates: []groupItem{{ID: 1, Master: "x"}}}), partition.CodeNotFound},
		"no nodes":             {body(kindAskCreate, &askCreate{Table: tableBody{Token: "t", Name: "t", Kind: "kv", Replicas: 1, Rule: 1}}), partition.CodeRefused},
		"a bad policy":         {body(kindAskCreate, &askCreate{Table: tableBody{Token: "t", Name: "t", Kind: "kv", Replicas: 1, Rule: 9}, Nodes: []placeItem{{Node: "a"}}}), partition.CodeInvalid},
		"the catalog's end":    {body(kindAskCatalog, &askCatalog{After: since(1 << 62)}), 0},
		"a session of no boot": {body(kindAskRenew, &askRenew{}), partition.CodeInvalid},
	} {
		answer, err := decode[answerBody](kindAnswer, a.Serve(t.Context(), "x", x.request))
		if err != nil {
			t.Errorf("%s: %v", what, err)
		} else if got := partition.CodeOf(asNil(fromItem(answer.Error))); got != x.code {
			t.Errorf("%s: %v, want code %v", what, fromItem(answer.Error), x.code)
		}
	}
	if _, err := a.CreateTable(deadline(t, 10*time.Second), TableSpec{Name: "t", Kind: "kv", Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	// A lock belongs to the node that the link has identified, whatever it says.
	forged := body(kindAskLocks, &locksBody{Node: "b", Boot: 1, Acquire: []acquireItem{{Group: 1, Replica: 1}}})
	a.Serve(t.Context(), "x", forged)
	a.usableSeat().fsm.look(func(st *state) {
		if h := st.locks[1].holder; h.Node != "x" {
			t.Errorf("the lock belongs to %+v, asked has x", h)
		}
	})
}

// The seats file of another node, or a damaged one, is refused.
func TestDamagedSeatsFile(t *testing.T) {
	n := newTestNet(t)
	a := n.start("a", 1)
	a.wait(t, "leader", func() bool { return a.Status().State == Ready })
	n.stop("a")
	path := filepath.Join(n.dir, "a", seatsFile)
	good, err := os.ReadFile(path)
	mustDo(t, err)
	start := func(node partition.NodeID) error {
		c, err := Start(Config{
			Node: node, Boot: 9, Dir: filepath.Join(n.dir, "a"), Expect: 1,
			Transport: &testLink{done: make(chan struct{})}, Peers: func() []PeerInfo { return nil },
		})
		if err == nil {
			c.Close()
		}
		return err
	}
	if err := start("b"); !errors.Is(err, partition.ErrCorrupt) {
		t.Errorf("another node's seats: %v", err)
	}
	for i := range good {
		good[i] ^= 0xff
	}
	mustDo(t, os.WriteFile(path, good, 0o600))
	if err := start("a"); !errors.Is(err, partition.ErrCorrupt) {
		t.Errorf("damaged seats: %v", err)
	}
}

// A leader that stands still, as a process that is stopped does, is replaced
// like a dead one, and does not come back as leader.
func TestFrozenLeader(t *testing.T) {
	n := newTestNet(t)
	for _, id := range []partition.NodeID{"a", "b", "c"} {
		n.start(id, 3)
	}
	d := n.start("d", 3)
	ctx := deadline(t, 25*time.Second)
	if _, err := d.CreateTable(ctx, TableSpec{Name: "t", Kind: "kv", Replicas: 1, Nodes: nodesOf("d")}); err != nil {
		t.Fatal(err)
	}
	old := n.leader()
	old.link.frozen.Lock()
	start := time.Now()
	grants, err := d.AcquireLocks(ctx, []LockRequest{{Group: 1, Replica: 1}})
	took := time.Since(start)
	old.link.frozen.Unlock()
	if err != nil || grants[0].Number == 0 {
		t.Fatalf("%+v, %v", grants, err)
	}
	t.Logf("grant %v after the control leader froze", took.Round(time.Millisecond))
	n.until("one leader", func() bool {
		leaders := 0
		for _, x := range n.running() {
			if s := x.usableSeat(); s != nil && s.leads() {
				leaders++
			}
		}
		return leaders == 1 && old.Status().State == Ready
	})
}

// The log is cut behind a snapshot; a seat that was away for longer than what is
// left of it gets the snapshot, and a restart begins with it.
func TestSnapshotsReachASeatThatWasAway(t *testing.T) {
	n := newTestNet(t)
	small := func(c *Config) { c.SnapshotThreshold = 10 }
	ids := []partition.NodeID{"a", "b", "c"}
	for _, id := range ids {
		n.start(id, 3, small)
	}
	x := n.leader()
	ctx := deadline(t, 25*time.Second)
	if _, err := x.CreateTable(ctx, TableSpec{Name: "t", Kind: "kv", Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	away := ids[slices.IndexFunc(ids, func(id partition.NodeID) bool { return id != x.id })]
	n.stop(away)
	var last uint64
	for range 50 {
		grants, err := x.AcquireLocks(ctx, []LockRequest{{Group: 1, Replica: 1}})
		if err != nil {
			t.Fatal(err)
		}
		last = grants[0].Number
	}
	s := x.usableSeat()
	mustDo(t, s.raft.Snapshot().Error())
	first, err := s.store.FirstIndex()
	if err != nil || first < 40 {
		t.Fatalf("the log begins at %d, %v", first, err)
	}
	back := n.start(away, 3, small)
	n.until("state of the seat that was away", func() bool {
		var got uint64
		back.usableSeat().fsm.look(func(st *state) { got = st.locks[1].last })
		return got >= last
	})
	for _, id := range ids {
		n.stop(id)
	}
	for _, id := range ids {
		n.start(id, 3, small)
	}
	grants, err := n.nodes["a"].AcquireLocks(ctx, []LockRequest{{Group: 1, Replica: 2, Failover: true}})
	if err != nil || grants[0].Number <= last {
		t.Fatalf("after a restart of all: %+v, %v, last was %d", grants, err, last)
	}
}

// Many replicas that ask at the same time share few requests, and each gets its
// own answer.
func TestLocksAreBatched(t *testing.T) {
	n := newTestNet(t)
	a, b := n.start("a", 1), n.start("b", 0)
	ctx := deadline(t, 25*time.Second)
	var splits [][]byte
	for i := range 999 {
		splits = append(splits, fmt.Appendf(nil, "key-%04d", i))
	}
	if _, err := b.CreateTable(ctx, TableSpec{Name: "t", Kind: "kv", Replicas: 1, SplitPoints: splits}); err != nil {
		t.Fatal(err)
	}
	before := a.usableSeat().raft.LastIndex()
	start := time.Now()
	failures := make(chan error, 1000)
	for g := range partition.GroupID(1000) {
		go func() {
			grants, err := b.AcquireLocks(ctx, []LockRequest{{Group: g + 1, Replica: 1, Above: uint64(g)}})
			if err == nil && (grants[0].Group != g+1 || grants[0].Number <= uint64(g) || grants[0].Err != nil) {
				err = fmt.Errorf("group %d: %+v", g+1, grants[0])
			}
			failures <- err
		}()
	}
	for range 1000 {
		if err := <-failures; err != nil {
			t.Error(err)
		}
	}
	entries := a.usableSeat().raft.LastIndex() - before
	t.Logf("1000 locks in %v by %d log entries", time.Since(start).Round(time.Millisecond), entries)
	if entries > 500 {
		t.Errorf("1000 locks took %d log entries", entries)
	}
}

// How long a lock takes, and how long the first one after the leader's death:
// figures for the log, asserted nowhere.
func TestLockFigures(t *testing.T) {
	n := newTestNet(t)
	for _, id := range []partition.NodeID{"a", "b", "c"} {
		n.start(id, 3)
	}
	x := n.start("d", 3)
	ctx := deadline(t, 25*time.Second)
	if _, err := x.CreateTable(ctx, TableSpec{Name: "t", Kind: "kv", Replicas: 1, Nodes: nodesOf("d")}); err != nil {
		t.Fatal(err)
	}
	var took []time.Duration
	for range 200 {
		start := time.Now()
		if _, err := x.AcquireLocks(ctx, []LockRequest{{Group: 1, Replica: 1}}); err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	t.Log(took[190:])
	t.Logf("lock from a node without a seat: p50 %v, p99 %v", took[100], took[198])
}
