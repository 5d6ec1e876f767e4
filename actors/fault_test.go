package actors

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pando.dev/pando/actors/client"
	"pando.dev/pando/actors/link"
	"pando.dev/pando/cluster/control"
	"pando.dev/pando/cluster/placement"
	"pando.dev/pando/partition"
	"pando.dev/pando/wal"
)

// heard keeps what a node logs.
type heard struct {
	mu   sync.Mutex
	text strings.Builder
}

func (h *heard) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.text.Write(b)
}

// says reports whether the text was logged since the last call.
func (h *heard) says(text string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	found := strings.Contains(h.text.String(), text)
	h.text.Reset()
	return found
}

// listened is a configuration of a node alone whose log is kept.
func listened(t *testing.T) (Config, *heard) {
	h := &heard{}
	cfg := single(t, t.TempDir())
	cfg.Logger = slog.New(slog.NewTextHandler(h, nil))
	return cfg, h
}

// hurried bounds a call that is to fail.
func hurried(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

// codeIs checks that an error is typed, with one of the codes and a reason.
func codeIs(t *testing.T, what string, err error, want ...partition.Code) {
	t.Helper()
	var e *partition.Error
	if !errors.As(err, &e) || e.Why == "" || !slices.Contains(want, e.Code) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// TestSmallFilesOnABadDisk: a small file that cannot be replaced stays what it was,
// who wanted it is told, and the next try succeeds.
func TestSmallFilesOnABadDisk(t *testing.T) {
	dir := t.TempDir()
	s, err := openSuspects(dir)
	if err != nil {
		t.Fatal(err)
	}
	w, err := openService(dir)
	if err != nil {
		t.Fatal(err)
	}
	drained := func(x *word) { x.Drain, x.Reason = placement.Maintenance, "test" }
	for _, way := range []string{".new", ""} { // it cannot be made; it cannot be put in its place
		undo := []func(){obstruct(t, s.path+way), obstruct(t, w.path+way)}
		if err := s.add(map[partition.GroupID]partition.ReplicaID{7: 3}, true); err == nil {
			t.Errorf("%q: the list was written", way)
		}
		if err := w.set(drained); err == nil || w.now().Drain != placement.InService {
			t.Errorf("%q: %v, the word is %+v", way, err, w.now())
		}
		for _, f := range undo {
			f()
		}
	}
	if err := errors.Join(s.add(nil, false), w.set(drained)); err != nil || w.now().Drain != placement.Maintenance {
		t.Errorf("with the way free: %v, %+v", err, w.now())
	}
	if again, err := openSuspects(dir); err != nil || !again.has(7, 3) {
		t.Errorf("read again: %v", err)
	}
	undo := obstruct(t, s.path)
	if err := s.strike(7, 4); err == nil {
		t.Error("a list with something in its place was removed")
	}
	undo()
	if err := s.add(nil, false); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(s.path); err == nil {
		t.Error("an empty list stays")
	}
}

// TestWithoutACatalog: a node that has met no control group refuses what needs one,
// each time with a reason, and waits for none longer than it was given.
func TestWithoutACatalog(t *testing.T) {
	t.Parallel()
	cfg := single(t, t.TempDir())
	cfg.Expect, cfg.Join = 3, []string{"127.0.0.1:1"}
	n := startSingle(t, cfg).any()
	asks := map[string]func(context.Context) error{
		"create": func(ctx context.Context) error { _, err := n.CreateTable(ctx, TableSpec{Name: "t"}); return err },
		"alter": func(ctx context.Context) error {
			_, err := n.AlterTable(ctx, "t", TableChange{Replicas: 1})
			return err
		},
		"drop":       func(ctx context.Context) error { return n.DropTable(ctx, "t") },
		"partitions": func(ctx context.Context) error { _, err := n.Partitions(ctx, ""); return err },
		"partition":  func(ctx context.Context) error { _, err := n.Partition(ctx, 1); return err },
		"change": func(ctx context.Context) error {
			_, err := n.BeginChange(ctx, PartitionChange{Kind: ChangeTransfer, Group: 1})
			return err
		},
		"ready":   func(context.Context) error { return n.Ready() },
		"propose": func(ctx context.Context) error { return put(ctx, n, "k", "v") },
	}
	for name, ask := range asks {
		codeIs(t, name, ask(hurried(t)), partition.CodeUnavailable, partition.CodeTimeout)
	}
	if st, err := n.Status(hurried(t)); err != nil || st.CanLose != -1 || !strings.Contains(st.Why, "no catalog") {
		t.Errorf("status: %+v, %v", st, err)
	}
	if plan, err := n.RecoverPlan(hurried(t), RecoverAsk{}); err != nil || plan.Control == "" || plan.Plan != "" {
		t.Errorf("a plan: %+v, %v", plan, err)
	}
	_, err := n.RecoverPlan(hurried(t), RecoverAsk{Groups: []partition.GroupID{9}})
	codeIs(t, "a plan for nothing", err, partition.CodeNotFound)
	eventually(t, "why it is alone", func() error {
		if err := n.Started(); err == nil || !strings.Contains(err.Error(), "joining by gossip fails") {
			return errors.Join(errors.New("it does not say"), err)
		}
		return nil
	})
}

// senseless are requests that a node cannot make sense of; g is a group of its own.
func senseless(n *Node, g partition.GroupID, dir string) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"a policy": func(ctx context.Context) error {
			_, err := n.CreateTable(ctx, TableSpec{Name: "u", Policy: "most"})
			return err
		},
		"another policy": func(ctx context.Context) error {
			_, err := n.AlterTable(ctx, "t", TableChange{Policy: "most"})
			return err
		},
		"a change of nothing": func(ctx context.Context) error {
			_, err := n.BeginChange(ctx, PartitionChange{Group: g})
			return err
		},
		"a node for a replica": func(ctx context.Context) error {
			_, err := n.BeginChange(ctx, PartitionChange{Kind: ChangeAdd, Group: g, Node: "x"})
			return err
		},
		"a change of no group": func(ctx context.Context) error {
			_, err := n.BeginChange(ctx, PartitionChange{Kind: ChangeAdd, Group: 99})
			return err
		},
		"a change elsewhere": func(ctx context.Context) error { _, err := n.changeHere(ctx, PartitionChange{Group: 99}); return err },
		"a plan":             func(ctx context.Context) error { _, err := n.RecoverApply(ctx, "nonsense", ""); return err },
		"a plan for a stranger": func(ctx context.Context) error {
			_, err := n.RecoverApply(ctx, "g99/n2/4f3a90c1d2e3f405", "")
			return err
		},
		"a node that is no dead": func(ctx context.Context) error {
			_, err := n.RecoverPlan(ctx, RecoverAsk{Dead: []partition.NodeID{n.ID()}})
			return err
		},
		"a reason": func(ctx context.Context) error {
			_, err := n.RecoverApply(ctx, "g1/n2/4f3a90c1d2e3f405", strings.Repeat("x", 10_000))
			return err
		},
		"a survey of a stranger": func(ctx context.Context) error {
			_, err := n.askSurvey(ctx, "x", []partition.GroupID{g})
			return err
		},
		"reports of a stranger": func(ctx context.Context) error {
			_, err := n.askReports(ctx, "x", []partition.GroupID{g})
			return err
		},
		"a decree to a stranger": func(ctx context.Context) error { return n.sendDecree(ctx, "x", &decree{Group: g}) },
		"a decree of nothing":    func(ctx context.Context) error { return n.sendDecree(ctx, n.ID(), &decree{Group: g}) },
		"a log replica of nothing": func(context.Context) error {
			return n.askToHost(99, placement.Step{Node: "x", Replica: 2, LogOnly: true}, 1)
		},
		"a log replica behind everything": func(context.Context) error {
			return n.askToHost(g, placement.Step{Node: "x", Replica: 2, LogOnly: true}, 1<<40)
		},
		"a copy for a stranger": func(context.Context) error { return n.askToHost(g, placement.Step{Node: "x", Replica: 2}, 1) },
		"a checkpoint":          func(ctx context.Context) error { _, err := (copyHost{n}).Checkpoint(ctx, 99, dir); return err },
		"a description":         func(context.Context) error { _, err := (copyHost{n}).Describe(g, 1<<40); return err },
	}
}

// TestWhatMakesNoSense is refused with its reason, and changes nothing.
func TestWhatMakesNoSense(t *testing.T) {
	t.Parallel()
	c := startSingle(t, single(t, t.TempDir()))
	g := c.group(TableSpec{Name: "t"})
	n := c.any()
	if err := put(t.Context(), n, "k", "v"); err != nil {
		t.Fatal(err)
	}
	_, cell := g.master()
	version := cell.view.Load().Configurations.Last().Version
	for name, ask := range senseless(n, g.id, t.TempDir()) {
		codeIs(t, name, ask(hurried(t)), partition.CodeInvalid, partition.CodeNotFound, partition.CodeUnavailable, partition.CodeRefused,
			partition.CodeTooLarge, partition.CodeNotMaster, partition.CodeTimeout)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if out := n.carryOut(over, &PartitionRescue{Group: g.id}, ""); out.Done || out.Code != partition.CodeTimeout.String() {
		t.Errorf("a plan without time: %+v", out)
	}
	if got := cell.view.Load().Configurations.Last().Version; got != version {
		t.Errorf("the membership version went from %d to %d", version, got)
	}
	if v, err := get(t.Context(), n, "k"); err != nil || v != "v" {
		t.Errorf("%q, %v", v, err)
	}
}

// TestWhatCannotBeRead: frames, connections, configurations and reports that cannot
// be read are counted or refused, and nothing else comes of them.
func TestWhatCannotBeRead(t *testing.T) {
	t.Parallel()
	c := startSingle(t, single(t, t.TempDir()))
	g := c.group(TableSpec{Name: "t"})
	n := c.any()
	_, cell := g.master()
	bad, stray := n.counters.badFrames.Load(), n.counters.strayFrames.Load()
	n.onFrame("x", link.Frame{Group: g.id, To: 1, From: 2, Kind: 200, Body: []byte("nonsense")})
	n.onFrame("x", link.Frame{Group: g.id, To: 9, From: 2})
	n.onFrame("x", link.Frame{Group: 99})
	if n.counters.badFrames.Load() != bad+1 || n.counters.strayFrames.Load() != stray+2 {
		t.Errorf("%d bad frames and %d stray ones", n.counters.badFrames.Load()-bad, n.counters.strayFrames.Load()-stray)
	}
	ours, theirs := net.Pipe()
	go func() {
		_, _ = theirs.Write([]byte(strings.Repeat("nonsense", 100))) // it is cut
		_ = theirs.Close()
	}()
	n.serveClient(ours, link.Peer{})
	garbage := partition.NewRecord(partition.Header{Group: 7, Index: 4, Kind: partition.KindMember}, []byte("nonsense"))
	sum := wal.Summary{Configurations: []partition.Record{garbage}, First: 1, Last: 5}
	if _, err := membersOf(sum); err == nil {
		t.Error("members of nonsense")
	}
	if _, err := restore(sum, 4); err == nil {
		t.Error("restored from nonsense")
	}
	if r := (report{Configs: [][]byte{[]byte("nonsense")}}); r.configurations() != nil {
		t.Error("a report of nonsense has configurations")
	}
	codeIs(t, "a group without a member here", n.create(9, &partition.Membership{}, nil), partition.CodeInternal)
	here := &partition.Membership{Version: 1, Members: []partition.Member{{Replica: 1, Node: n.ID(), Kind: partition.Full}}}
	if err := n.create(9, here, func(error) { t.Error("it was made") }); err == nil {
		t.Error("a group was made that nobody could be master of")
	}
	answered := make(chan *client.Response, 1)
	reply := func(r *client.Response) { answered <- r }
	route := cell.route.Load()
	why := partition.Errorf(partition.CodeNoSpace, "test")
	cell.stalled.Store(why)
	for name, x := range map[string]struct {
		req  client.Request
		want partition.Code
	}{
		"a group that is not here":  {client.Request{Op: client.OpPropose, Group: 99}, partition.CodeNotFound},
		"another range version":     {client.Request{Op: client.OpPropose, Group: g.id, RangeVersion: route.RangeVersion + 1}, partition.CodeWrongGroup},
		"a command without room":    {client.Request{Op: client.OpPropose, Group: g.id, RangeVersion: route.RangeVersion}, partition.CodeNoSpace},
		"a command that is too big": {client.Request{Op: client.OpPropose, Group: g.id, RangeVersion: route.RangeVersion, Body: make([]byte, 2<<20)}, partition.CodeTooLarge},
	} {
		(backend{n}).Propose(&x.req, reply)
		if r := <-answered; r.Code != x.want {
			t.Errorf("%s: %+v", name, r)
		}
	}
	cell.stalled.Store(nil)
	if err := put(t.Context(), n, "k", "v"); err != nil {
		t.Error(err)
	}
}

// TestListOfSuspectsOnABadDisk: what comes and goes is not held up by a list that
// cannot be written; it is said, and what is on the list stays silent. A list that
// must be there first is waited for.
func TestListOfSuspectsOnABadDisk(t *testing.T) {
	t.Parallel()
	cfg, log := listened(t)
	n := startSingle(t, cfg).any()
	eventually(t, "ready", n.Ready)
	if err := n.suspects.add(map[partition.GroupID]partition.ReplicaID{7: 1, 8: 1, 9: 1}, true); err != nil {
		t.Fatal(err)
	}
	undo := obstruct(t, n.suspects.path+".new")
	a := &replicasActor{
		node: n, catalog: &flip{whole: true, cat: &control.Catalog{}}, had: map[partition.GroupID]partition.ReplicaID{},
		bringing: map[partition.GroupID]*bringing{}, leaving: map[partition.GroupID]*leaving{}, creating: map[partition.GroupID]bool{},
	}
	came := func(g partition.GroupID) *bringing {
		return &bringing{hosting: hosting{Group: g, Replica: 2}, cancel: func() {}}
	}
	for text, f := range map[string]func(){
		"replaced replica not struck off":   func() { a.brought(nil, &brought{bringing: came(7)}) },
		"dropped replica not struck off":    func() { a.forgotten(&forgotten{group: 8, replica: 1}) },
		"replica not dropped":               func() { a.forgotten(&forgotten{group: 9, err: errors.New("no")}) },
		"lost replicas not written down":    func() { a.reconcile(nil) },
		"replica not brought up":            func() { a.copied(nil, &copied{bringing: came(6), err: errors.New("no")}) },
		"every replica of this node falls":  func() { codeOrNil(n.silence("test")) },
		"that replicas may be lost":         func() { n.logger.Info("", "err", n.checkDisk(&wal.Report{Nameless: true})) },
		"and may have held replicas that n": func() { _ = n.checkDisk(&wal.Report{Nameless: true}) },
	} {
		log.says("")
		if f(); !log.says(text) {
			t.Errorf("nothing is said of %q", text)
		}
	}
	if !n.suspects.has(9, 1) || !n.suspects.forgetful() {
		t.Errorf("the list was forgotten: %v %v", n.suspects.has(9, 1), n.suspects.forgetful())
	}
	undo()
	if err := n.suspects.add(nil, true); err != nil {
		t.Fatal(err)
	}
	if a.reconcile(nil); n.suspects.forgetful() {
		t.Error("it does not write down what was lost")
	}
	again, err := openSuspects(cfg.Dir)
	if err != nil || again.Forgetful || !again.has(9, 1) {
		t.Errorf("on disk: %+v, %v", again.suspectList, err)
	}
}

func codeOrNil(err error) partition.Code { return partition.CodeOf(err) }

// TestLogThatIsClosed: what needs the log or the stores when they are closed says so
// and waits for nothing.
func TestLogThatIsClosed(t *testing.T) {
	t.Parallel()
	cfg, log := listened(t)
	c := &testCluster{tb: t, cfgs: []Config{cfg}, nodes: []*Node{nil}}
	n, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.nodes[0] = n
	g := c.group(TableSpec{Name: "t"})
	if err := put(t.Context(), n, "k", "v"); err != nil {
		t.Fatal(err)
	}
	m, cell := g.master()
	table := cell.table.Load()
	membership := cell.view.Load().Configurations.Last()
	st := cell.state.Load()
	ctx, cancel := contextWithin(t, patience)
	defer cancel()
	if err := n.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func() error{
		"wait for the disk": func() error { return n.awaitDisk(g.id) },
		"load":              func() error { _, err := n.loadNow(cell, table); return err },
		"load anew":         func() error { _, err := n.load(cell, table); return err },
		"create":            func() error { return n.create(99, membership, nil) },
		"begin a log": func() error {
			return n.beginLog(hosting{Group: 99, Replica: 2, Base: partition.Position{Index: 1}}, nil)
		},
		"a query":        func() error { _, _, err := st.query(nil); return err },
		"ready":          n.Ready,
		"drain":          func() error { _, err := n.Drain(hurried(t), DrainOptions{}); return err },
		"create a table": func() error { _, err := n.CreateTable(hurried(t), TableSpec{Name: "u"}); return err },
		"alter a table":  func() error { _, err := n.AlterTable(hurried(t), "t", TableChange{Replicas: 1}); return err },
		"put":            func() error { return put(hurried(t), n, "k", "w") },
		"host":           func() error { return n.hostReplica(hurried(t), hosting{Group: 99, Replica: 1}) },
		"recover": func() error {
			raw, err := (&partition.Membership{Version: 2, Alone: 1, Members: membership.Members, Next: 2, Policy: membership.Policy}).AppendBinary(nil)
			return errors.Join(err, n.sendDecree(hurried(t), n.ID(), &decree{Group: g.id, Replica: 1, Membership: raw}))
		},
	} {
		began := time.Now()
		if err := f(); err == nil || time.Since(began) > patience/2 {
			t.Errorf("%s: %v after %v", name, err, time.Since(began))
		}
	}
	a := &replicasActor{node: n, leaving: map[partition.GroupID]*leaving{}}
	if a.forget(g.id, &leaving{cell: cell, stopped: true}); !log.says("replica not dropped") {
		t.Error("a replica was dropped from a log that is closed")
	}
	if m != n {
		t.Error("another node")
	}
	cfg.Listen = n.LinkAddr()
	again := startSingle(t, cfg)
	eventually(t, "the pair", func() error {
		v, err := get(t.Context(), again.any(), "k")
		if err == nil && v != "v" {
			err = errors.New(v)
		}
		return err
	})
}

// TestDrainOnABadDisk: a word that cannot be written down is not given; the node
// stays what it was, whatever it was asked, and does it when it can.
func TestDrainOnABadDisk(t *testing.T) {
	t.Parallel()
	c := newClusterWith(t, 2, func(c *Config) { c.Expect = 1 })
	c.table(TableSpec{Name: "t", Replicas: 2})
	n := c.nodes[1]
	undo := obstruct(t, filepath.Join(c.cfgs[1].Dir, drainFile+".new"))
	force := DrainOptions{Force: true, Reason: "test"}
	if _, err := n.PrepareStop(t.Context()); err == nil {
		t.Error("it prepares to stop")
	}
	if _, err := n.BeginDrain(t.Context(), force); err == nil || n.service.now().Drain != placement.InService {
		t.Errorf("drained: %v", err)
	}
	if _, err := c.nodes[0].BeginDrain(t.Context(), DrainOptions{Node: "n2", Force: true}); err == nil {
		t.Error("drained by another")
	}
	undo()
	if _, err := n.BeginDrain(t.Context(), force); err != nil || n.service.now().Drain != placement.Maintenance {
		t.Fatal(err)
	}
	undo = obstruct(t, filepath.Join(c.cfgs[1].Dir, drainFile+".new"))
	if _, err := n.Undrain(t.Context(), ""); err == nil || n.service.now().Drain != placement.Maintenance {
		t.Errorf("undrained: %v", err)
	}
	undo()
	if _, err := n.Undrain(t.Context(), ""); err != nil {
		t.Error(err)
	}
}
