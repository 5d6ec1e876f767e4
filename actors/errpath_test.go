package actors

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"pando.dev/pando/actors/client"
	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/kv"
)

// TestReplicaGivenUp: of a replica that fell silent, or stands still for want of
// room, everybody who asks is told why.
func TestReplicaGivenUp(t *testing.T) {
	why := partition.Errorf(partition.CodeCorrupt, "rot")
	n, c := &Node{}, &cell{group: 7}
	n.cells.put(c)
	if err := c.shows(nil); partition.CodeOf(err) != partition.CodeUnavailable {
		t.Errorf("while it is opened: %v", err)
	}
	c.stalled.Store(partition.Errorf(partition.CodeNoSpace, "full"))
	if r := n.reports([]partition.GroupID{7}); len(r) != 1 || r[0].Why != "full" {
		t.Errorf("without room: %+v", r)
	}
	c.broken.Store(why)
	if err := c.shows(nil); err != why {
		t.Errorf("a read: %v", err)
	}
	if r := n.reports([]partition.GroupID{7}); r[0].Role != "broken" || r[0].Why != "rot" {
		t.Errorf("a report: %+v", r)
	}
	if s := n.surveys([]partition.GroupID{7, 8}); len(s) != 1 || s[0].Broken != "rot" || s[0].Opening {
		t.Errorf("a survey: %+v", s)
	}
	if n.mayComeYet(&control.Group{ID: 9, Parent: 7}, 1) || n.mayComeYet(&control.Group{ID: 9, Parent: 8}, 1) {
		t.Error("a child may still come of a replica that was given up, or of none")
	}
	r := &heldReads{applied: 4}
	r.close(why)
	h := &heldRead{req: &client.Request{}}
	if fly, err := r.waitForWord(h); fly || err != why {
		t.Errorf("waiting for the master's word: %t, %v", fly, err)
	}
	if waits, err := r.wait(h, 5, 0); err != why || len(r.waiting) != 0 {
		t.Errorf("waiting for a record: %t, %v", waits, err)
	}
}

// TestWithoutTime: who has no time left is told that nothing is known, and nothing
// is done for him.
func TestWithoutTime(t *testing.T) {
	t.Parallel()
	c := startSingle(t, single(t, t.TempDir()))
	g := c.group(TableSpec{Name: "t"})
	n := c.any()
	over, cancel := context.WithCancel(t.Context())
	cancel()
	// The tender's answer may be there first.
	for name, f := range map[string]func() error{
		"a question of a member": func() error { _, err := n.serveMembers(over, "x", []byte(`{}`)); return err },
		"a change": func() error {
			_, err := n.changeHere(over, PartitionChange{Kind: ChangeAdd, Group: g.id, Node: n.ID(), Cancel: true})
			return err
		},
	} {
		eventually(t, name, func() error {
			if err := f(); partition.CodeOf(err) != partition.CodeTimeout {
				return errors.Join(errors.New("it was answered"), err)
			}
			return nil
		})
	}
}

// TestStateThatDoesNotOpen: a state whose kind cannot be made, that cannot be read or
// is none of a replica's is not opened, and says why.
func TestStateThatDoesNotOpen(t *testing.T) {
	t.Parallel()
	cfg := single(t, t.TempDir())
	n := startSingle(t, cfg).any()
	eventually(t, "ready", n.Ready)
	made := func() (partition.Partition, error) { return kv.New(partition.Spec{}) }
	open := func(what string, g partition.GroupID, kind func() (partition.Partition, error)) error {
		t.Helper()
		st, err := n.openStore(&cell{group: g}, 1, kind)
		if err == nil || st != nil {
			t.Fatalf("%s: it was opened", what)
		}
		return err
	}
	why := errors.New("no such kind")
	if err := open("a kind that is none", 90, func() (partition.Partition, error) { return nil, why }); !errors.Is(err, why) {
		t.Error(err)
	}
	stores := filepath.Join(cfg.Dir, "stores")
	dir := filepath.Join(stores, partition.GroupID(91).String())
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "1"), []byte("x"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := open("a file for a store", 91, made); err == nil {
		t.Error(err)
	}
	s, err := n.engine.Open(92, 1)
	if err != nil {
		t.Fatal(err)
	}
	row := []byte{0x02, 'e'} // where the extent stands
	for _, space := range []byte{0x01, 0x02, 0x03} {
		row[0] = space
		at, err := s.Applied()
		if err == nil {
			err = s.Apply(at+1, func(w partition.Writer) error { return w.Set(row, []byte("nonsense")) })
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	codeIs(t, "a state of nonsense", open("a state of nonsense", 92, made), partition.CodeCorrupt, partition.CodeNewerFormat)
	if _, err := n.openStore(&cell{group: 93}, 1, made); err != nil {
		t.Errorf("a new one: %v", err)
	}
	child := &partition.Child{Group: 94, Membership: &partition.Membership{}}
	codeIs(t, "a child without members", n.makeChild(1, nil, 5, child, 1, nil), partition.CodeInvalid)
}

// TestCatalogOnABadDisk: a node that cannot write the catalog down says so, and does
// when it can.
func TestCatalogOnABadDisk(t *testing.T) {
	t.Parallel()
	cfg, log := listened(t)
	c := startSingle(t, cfg)
	c.table(TableSpec{Name: "t"})
	path := filepath.Join(cfg.Dir, catalogFile)
	undo := obstruct(t, path+".new")
	c.table(TableSpec{Name: "u"})
	eventually(t, "a word about it", func() error {
		if !log.says("catalog not written down") {
			return errors.New("nothing is said")
		}
		return nil
	})
	undo()
	c.table(TableSpec{Name: "v"})
	eventually(t, "the catalog on disk", func() error {
		_, cat, err := readCatalog(path)
		if err == nil {
			if _, ok := cat.Table("v"); !ok {
				err = errors.New("it is old")
			}
		}
		return err
	})
}

// TestSilenceThatIsNotWritten: a process on an old copy of its disk that cannot write
// down which replicas it must not trust ends all the same, and does not begin anew.
func TestSilenceThatIsNotWritten(t *testing.T) {
	t.Parallel()
	cfg, log := listened(t)
	fatal := make(chan error, 1)
	cfg.Fatal = func(err error) { fatal <- err }
	n := startSingle(t, cfg).any()
	eventually(t, "ready", n.Ready)
	undo := obstruct(t, n.suspects.path+".new")
	why := partition.Errorf(partition.CodeRefused, "another process has the node's identity")
	n.stale(why)
	if err := <-fatal; !errors.Is(err, why) || errors.Is(err, partition.ErrSessionExpired) || !log.says("suspect replicas not written down") {
		t.Errorf("it ends with %v", err)
	}
	undo()
	n.stale(why)
	if err := <-fatal; !errors.Is(err, partition.ErrSessionExpired) {
		t.Errorf("with the list written it ends with %v", err)
	}
}

// TestOneNodeLeft: an answer that cannot be read leaves the outcome unknown. When
// the node with the control group has gone the other says of what it is asked that
// it cannot be known now.
func TestOneNodeLeft(t *testing.T) {
	t.Parallel()
	c := newClusterWith(t, 2, func(c *Config) { c.Expect = 1 })
	g := c.group(TableSpec{Name: "t", Replicas: 2})
	left := c.nodes[1]
	_, err := askNode[int](t.Context(), c.nodes[0], left.ID(), callMembers, memberAsk{Groups: []partition.GroupID{g.id}})
	codeIs(t, "an answer of another kind", err, partition.CodeUnknown)
	if left.control.Status().Leader == left.ID() {
		left = c.nodes[0]
	}
	c.stop(1 - g.at(left.ID()))
	for name, f := range map[string]func() error{
		"a table that it does not know": func() error { _, err := left.Partitions(hurried(t), "u"); return err },
		"a plan": func() error {
			_, err := left.keepPlan(hurried(t), PlanInfo{}, control.PlanSpec{Kind: control.TaskPlan, Token: "p"})
			return err
		},
	} {
		codeIs(t, name, f(), partition.CodeUnavailable, partition.CodeTimeout, partition.CodeUnknown)
	}
	rescue := &PartitionRescue{Group: g.id, Node: left.ID(), next: &partition.Membership{}}
	if out := left.carryOut(hurried(t), rescue, "test"); out.Done || out.Code == "" || out.Why == "" {
		t.Errorf("a decree that nobody gives: %+v", out)
	}
	last := left.cells.get(g.id).view.Load().Configurations.Last()
	mine, _ := last.OnNode(left.ID())
	next := last.Successor()
	for _, x := range last.Members {
		if x.Replica != mine.Replica {
			next.Remove(x.Replica)
		}
	}
	raw, err := partition.Configurations{last}.GoAlone(next, 1).AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	err = left.carryDecree(hurried(t), &decree{Group: g.id, Replica: mine.Replica, Membership: raw})
	codeIs(t, "a decree that nobody confirms", err, partition.CodeUnavailable, partition.CodeTimeout)
	err = left.carryDecree(hurried(t), &decree{Group: g.id, Replica: mine.Replica + 1, Membership: raw})
	codeIs(t, "a decree for another replica", err, partition.CodeRefused)
	solo := PartitionInfo{Group: g.id, Solo: "n1 alone"}
	if left.addPermit(hurried(t), &solo); solo.Solo == "n1 alone" {
		t.Error("it does not say that the control group was not asked")
	}
}

// TestCopyForNobody: a copied state of a replica that has gone meanwhile, or a try
// that has failed, is given up.
func TestCopyForNobody(t *testing.T) {
	t.Parallel()
	cfg, log := listened(t)
	n := startSingle(t, cfg).any()
	eventually(t, "ready", n.Ready)
	failed := errors.New("no")
	stopped := 0
	try := &bringing{hosting: hosting{Group: 6, Replica: 2}, cancel: func() { stopped++ }, err: failed}
	a := &replicasActor{
		node: n, catalog: &flip{whole: true, cat: &control.Catalog{}}, had: map[partition.GroupID]partition.ReplicaID{},
		bringing: map[partition.GroupID]*bringing{6: try}, leaving: map[partition.GroupID]*leaving{}, creating: map[partition.GroupID]bool{},
	}
	if a.reconcile(nil); len(a.bringing) != 0 || stopped != 1 {
		t.Errorf("%d are brought up, %d were stopped", len(a.bringing), stopped)
	}
	s, err := n.engine.Open(95, 1)
	if err == nil {
		_, err = s.Applied()
	}
	if err != nil {
		t.Fatal(err)
	}
	undo := obstruct(t, filepath.Join(cfg.Dir, "trash"))
	a.forgotten(&forgotten{group: 95, replica: 1, generation: 1})
	eventually(t, "a word about the state that stays", func() error {
		if !log.says("state not removed") {
			return errors.New("nothing is said")
		}
		return nil
	})
	undo()
}

// TestReplicaThatWasGivenUp: a replica that the log has and nobody runs any more is
// not brought up under its id.
func TestReplicaThatWasGivenUp(t *testing.T) {
	t.Parallel()
	n := startSingle(t, single(t, t.TempDir())).any()
	eventually(t, "ready", n.Ready)
	done := make(chan error, 1)
	m := &partition.Membership{Version: 1, Next: 3, Policy: partition.Policy{Rule: partition.Majority}, Members: []partition.Member{
		{Replica: 2, Node: n.ID(), Kind: partition.Full, Eligible: true},
	}}
	if err := n.create(96, m, func(err error) { done <- err }); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	a := &replicasActor{node: n, had: map[partition.GroupID]partition.ReplicaID{}}
	for replica, want := range map[partition.ReplicaID]partition.Code{1: partition.CodeRefused, 2: partition.CodeUnavailable, 3: partition.CodeBusy} {
		codeIs(t, "brought up", a.bring(nil, hosting{Group: 96, Replica: replica}), want)
	}
}

// TestSplitWithoutAKind: a split of a table whose kind cannot be made here, or for
// which there is no time to look for keys, is refused and changes nothing.
func TestSplitWithoutAKind(t *testing.T) {
	t.Parallel()
	cfg := single(t, t.TempDir())
	var broken atomic.Bool
	why := errors.New("it lacks a library")
	cfg.Kinds = map[string]partition.Factory{"odd": func(s partition.Spec) (partition.Partition, error) {
		if broken.Load() {
			return nil, why
		}
		return kv.New(s)
	}}
	c := startSingle(t, cfg)
	c.table(TableSpec{Name: "t", Kind: "odd"})
	n := c.any()
	if err := put(t.Context(), n, "k", "v"); err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if p, err := n.PlanSplit(over, SplitRequest{Table: "t", Into: 2}); err == nil {
		t.Errorf("planned without time: %+v", p)
	}
	broken.Store(true)
	if p, err := n.PlanSplit(t.Context(), SplitRequest{Table: "t", At: [][]byte{[]byte("m")}}); !errors.Is(err, why) {
		t.Errorf("planned without the kind: %+v, %v", p, err)
	}
	broken.Store(false)
	if _, err := n.PlanSplit(t.Context(), SplitRequest{Table: "t", At: [][]byte{[]byte("m")}}); err != nil {
		t.Error(err)
	}
}

// TestPastThatCannotBeRead: of a record that cannot be read the past says that, or
// what its kind alone tells, and the rest is told as it is.
func TestPastThatCannotBeRead(t *testing.T) {
	var recs []partition.Record
	kinds := []partition.Kind{partition.KindMember, partition.KindMode, partition.KindIntent, partition.KindSeal, partition.KindMergeIntent, partition.KindDone}
	for i, k := range kinds {
		recs = append(recs, partition.NewRecord(partition.Header{Group: 7, Index: partition.Index(i + 1), Kind: k}, []byte("nonsense")))
	}
	events := eventsOf(recs, 5)
	if len(events) != len(kinds) {
		t.Fatalf("%d events", len(events))
	}
	for i, want := range []string{"cannot be read", "cannot be read", "a split that cannot be read", "what leaves is held", "", "done everywhere (not known to be committed)"} {
		if !strings.Contains(events[i].Text, want) {
			t.Errorf("%s: %q", kinds[i], events[i].Text)
		}
	}
}

// TestQuestionsThatMakeNoSense: what another node asks and nobody can answer is
// refused with a reason.
func TestQuestionsThatMakeNoSense(t *testing.T) {
	t.Parallel()
	n := startSingle(t, single(t, t.TempDir())).any()
	eventually(t, "ready", n.Ready)
	ctx := hurried(t)
	for name, f := range map[string]func() ([]byte, error){
		"a read":                 func() ([]byte, error) { return n.serveRead(ctx, []byte("nonsense")) },
		"a past":                 func() ([]byte, error) { return n.serveHistory(ctx, []byte("{")) },
		"the past of a stranger": func() ([]byte, error) { return n.serveHistory(ctx, []byte("99")) },
		"a verification":         func() ([]byte, error) { return n.serveVerify([]byte("{")) },
		"the sums of a stranger": func() ([]byte, error) { return n.serveVerify([]byte(`{"group":99,"token":"x"}`)) },
	} {
		if b, err := f(); partition.CodeOf(err) == 0 || b != nil {
			t.Errorf("%s: %s, %v", name, b, err)
		}
	}
	if _, _, err := n.structural(99, 1, 5); err == nil {
		t.Error("records of a stranger")
	}
	_, err := n.askVerify(ctx, "x", verifyAsk{Group: 99, Token: "x"})
	codeIs(t, "a verification by a stranger", err, partition.CodeUnavailable, partition.CodeNotFound, partition.CodeTimeout)
}
