package actors

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
	"pando.dev/pando/split"
)

// TestChildThatCannotBeMade: what is in the way of a child's state holds the split
// up before anything is held, and nothing else; it is said, once, and the split ends
// when the way is free. No key is lost (SPL-1, SPL-2).
func TestChildThatCannotBeMade(t *testing.T) {
	t.Parallel()
	cfg, log := listened(t)
	blocked := filepath.Join(cfg.Dir, "stores", "g2")
	var free, early atomic.Bool
	cfg.onSplit = func(_ *Node, s *split.Step) {
		if s.Kind == split.Hold && !free.Load() {
			early.Store(true)
		}
	}
	c := startSingle(t, cfg)
	n := c.any()
	c.group(TableSpec{Name: "t"})
	for i := range 20 {
		if err := put(t.Context(), n, fmt.Sprintf("k%03d", i), "v"); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(blocked, []byte("in the way"), 0o600); err != nil {
		t.Fatal(err)
	}
	info, err := n.Split(t.Context(), SplitRequest{Table: "t", At: [][]byte{[]byte("k010")}})
	if err != nil || info.Pieces[0].Group != 2 {
		t.Fatalf("%+v, %v", info, err)
	}
	eventually(t, "it is said that a replica is not made", func() error {
		if p, err := n.SplitStatus(info.Task); err != nil || !strings.Contains(p.Why, "made ready") || !log.says("make a seed of g2") {
			return fmt.Errorf("%+v, %v", p, err)
		}
		return nil
	})
	for _, key := range []string{"k003", "k013"} {
		if err := put(t.Context(), n, key, "v"); err != nil {
			t.Errorf("put %s: %v", key, err)
		}
	}
	if early.Load() {
		t.Error("the range was held before its child was prepared")
	}
	free.Store(true)
	if err := os.Remove(blocked); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := contextWithin(t, patience)
	defer cancel()
	if info, err = n.AwaitSplit(ctx, info.Task); err != nil {
		t.Fatalf("%+v, %v", info, err)
	}
	for i := range 20 {
		if v, err := get(t.Context(), n, fmt.Sprintf("k%03d", i)); err != nil || v != "v" {
			t.Errorf("key %d: %q, %v", i, v, err)
		}
	}
}

// changes are the requests for changes of the cluster, for a node and a group that
// may be there or not.
func changes(n *Node, g partition.GroupID, node partition.NodeID) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"abort": func(ctx context.Context) error { _, err := n.AbortTask(ctx, 99, "test"); return err },
		"start": func(ctx context.Context) error { _, err := n.StartPlan(ctx, 99); return err },
		"task":  func(context.Context) error { _, err := n.task(99); return err },
		"decommission": func(ctx context.Context) error {
			_, err := n.Decommission(ctx, BalanceOptions{Node: node})
			return err
		},
		"recommission": func(ctx context.Context) error { _, err := n.Recommission(ctx, node); return err },
		"split": func(ctx context.Context) error {
			_, err := n.Split(ctx, SplitRequest{Group: g, At: [][]byte{[]byte("k")}})
			return err
		},
		"plan a split": func(ctx context.Context) error {
			_, err := n.PlanSplit(ctx, SplitRequest{Group: g, Into: 2})
			return err
		},
		"split status": func(context.Context) error { _, err := n.SplitStatus(99); return err },
		"empty": func(context.Context) error {
			return n.emptyMore(&control.Task{ID: 99, Kind: control.TaskDecommission, State: control.TaskOpen, From: node})
		},
	}
}

// TestChangesWithoutACatalog: a node that has met no control group begins nothing.
func TestChangesWithoutACatalog(t *testing.T) {
	t.Parallel()
	cfg := single(t, t.TempDir())
	cfg.Expect, cfg.Join = 3, []string{"127.0.0.1:1"}
	n := startSingle(t, cfg).any()
	asks := changes(n, 1, n.ID())
	asks["tasks"] = func(ctx context.Context) error { _, err := n.Tasks(ctx); return err }
	asks["rebalance"] = func(ctx context.Context) error { _, err := n.Rebalance(ctx, BalanceOptions{}); return err }
	for name, ask := range asks {
		codeIs(t, name, ask(hurried(t)), partition.CodeUnavailable, partition.CodeTimeout, partition.CodeNotFound)
	}
}

// TestChangesThatMakeNoSense: they are refused with a reason and leave no task, and
// what makes sense is done after them.
func TestChangesThatMakeNoSense(t *testing.T) {
	t.Parallel()
	c := startSingle(t, single(t, t.TempDir()))
	g := c.group(TableSpec{Name: "t"})
	n := c.any()
	if err := put(t.Context(), n, "k", "v"); err != nil {
		t.Fatal(err)
	}
	asks := changes(n, 99, "x")
	for name, r := range map[string]SplitRequest{
		"a split of no table":        {Table: "u", At: [][]byte{[]byte("k")}},
		"a split nowhere":            {Group: g.id},
		"a split both ways":          {Group: g.id, At: [][]byte{[]byte("k")}, Into: 2},
		"a split into too many":      {Group: g.id, Into: 99},
		"a split of one key":         {Group: g.id, Into: 3},
		"a split at the first key":   {Group: g.id, At: [][]byte{nil}},
		"a split to nodes not there": {Group: g.id, At: [][]byte{[]byte("k")}, NewNodes: true},
		"keys in disorder":           {Group: g.id, At: [][]byte{[]byte("m"), []byte("k")}},
	} {
		asks[name] = func(ctx context.Context) error { _, err := n.Split(ctx, r); return err }
	}
	asks["a plan for one node"] = func(ctx context.Context) error { _, err := n.Rebalance(ctx, BalanceOptions{Node: "x"}); return err }
	asks["the last node"] = func(ctx context.Context) error {
		_, err := n.Decommission(ctx, BalanceOptions{Node: n.ID()})
		return err
	}
	asks["keys of no group"] = func(ctx context.Context) error {
		_, err := n.splitKeysHere(ctx, splitKeysAsk{Group: 99, Into: 2})
		return err
	}
	asks["garbage for keys"] = func(ctx context.Context) error { _, err := n.serveSplitKeys(ctx, []byte("{")); return err }
	asks["garbage for surveys"] = func(context.Context) error { _, err := n.serveSurvey([]byte("{")); return err }
	asks["a garbage decree"] = func(ctx context.Context) error { return n.serveDecree(ctx, []byte("{")) }
	asks["garbage to host"] = func(ctx context.Context) error { return n.serveHost(ctx, []byte("{")) }
	for name, ask := range asks {
		codeIs(t, name, ask(hurried(t)), partition.CodeInvalid, partition.CodeNotFound, partition.CodeNoSuchTable, partition.CodeRefused,
			partition.CodeNotMaster, partition.CodeTimeout)
	}
	if all, err := n.Tasks(t.Context()); err != nil || len(all) > 0 {
		t.Errorf("tasks %+v, %v", all, err)
	}
	c.split(SplitRequest{Group: g.id, At: [][]byte{[]byte("k")}})
	if v, err := get(t.Context(), n, "k"); err != nil || v != "v" {
		t.Errorf("%q, %v", v, err)
	}
}

// TestStepsThatAreRefused: a step of a split or a move that the group or the
// catalog refuses is not taken for done: it is said, and comes again after a pause.
func TestStepsThatAreRefused(t *testing.T) {
	t.Parallel()
	log := &heard{}
	cfg := single(t, t.TempDir())
	cfg.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	c := startSingle(t, cfg)
	g := c.group(TableSpec{Name: "t"})
	n, cell := g.master()
	if err := put(t.Context(), n, "k", "v"); err != nil {
		t.Fatal(err)
	}
	r := &splitting{node: n, cell: cell, hint: make(chan struct{}, 1)}
	at := cell.view.Load().Configurations.Last()
	for i := range 3 {
		other := *at
		other.Version += 5
		if r.take(&split.Step{Kind: split.Configure, Membership: &other}); r.failures != i+1 || r.notBefore <= n.now()-splitBackOffMax {
			t.Errorf("%d failures, not before %s", r.failures, r.notBefore)
		}
		if !log.says("step of a split not taken") {
			t.Error("nothing is said")
		}
	}
	r.report(&split.Step{Kind: split.Wait, Why: "test"}, &split.Situation{Group: g.id, Now: 2 * reportEvery, Task: &split.Task{ID: 99}})
	eventually(t, "progress", func() error {
		if !log.says("progress of a split not told") {
			return errors.New("nothing is said")
		}
		return nil
	})
	tasks, x := newTaskRunner(n), &taskTry{}
	tasks.act(&control.Task{ID: 99, Kind: control.TaskMove, Group: g.id, From: "x", To: "y"}, cell, x)
	if x.notBefore <= n.now() || !log.says("task not reported") {
		t.Errorf("a move that nobody knows: %+v", x)
	}
	rep, _ := at.OnNode(n.ID())
	child := &partition.Child{Group: 99, Range: partition.KeyRange{Lo: []byte("k")}, Membership: at, First: rep.Replica}
	st := cell.state.Load()
	for range 2 { // what the first leaves must not matter to the second
		if err := n.makeChild(g.id, st, 1, child, rep.Replica, nil); err == nil || !strings.Contains(err.Error(), "make g99") {
			t.Errorf("a child of a group that is not split: %v", err)
		}
	}
	if _, here := n.log.Summary(99); here {
		t.Error("the log has it")
	}
	if v, err := get(t.Context(), n, "k"); err != nil || v != "v" {
		t.Errorf("%q, %v", v, err)
	}
}

// TestChangesOnAClosedNode: nothing begins on a node that has stopped, and nobody
// waits for it.
func TestChangesOnAClosedNode(t *testing.T) {
	t.Parallel()
	c := startSingle(t, single(t, t.TempDir()))
	g := c.group(TableSpec{Name: "t"})
	n := c.any()
	if err := put(t.Context(), n, "k", "v"); err != nil {
		t.Fatal(err)
	}
	asks := changes(n, g.id, n.ID())
	c.stop(0)
	asks["keys"] = func(ctx context.Context) error {
		_, err := n.splitKeysHere(ctx, splitKeysAsk{Group: g.id, Into: 2})
		return err
	}
	for name, ask := range asks {
		began := time.Now()
		if err := ask(hurried(t)); err == nil || time.Since(began) > patience/2 {
			t.Errorf("%s: %v after %v", name, err, time.Since(began))
		}
	}
}

// TestAwaitSplit: passing trouble is waited out, an end is told as what it is, and
// a wait without an end is never told of as a failure.
func TestAwaitSplit(t *testing.T) {
	t.Parallel()
	away := partition.Errorf(partition.CodeUnavailable, "away")
	info := func(state control.TaskState) SplitInfo {
		return SplitInfo{Task: 1, Group: 3, State: state.String(), Why: "because"}
	}
	type answer struct {
		info SplitInfo
		err  error
	}
	for name, x := range map[string]struct {
		answers []answer // the last one stays
		want    partition.Code
		says    string
	}{
		"done":                    {[]answer{{info(control.TaskOpen), nil}, {SplitInfo{}, away}, {info(control.TaskDone), nil}}, 0, ""},
		"not heard of at once":    {[]answer{{SplitInfo{}, partition.Errorf(partition.CodeNotFound, "no")}, {info(control.TaskDone), nil}}, 0, ""},
		"aborted":                 {[]answer{{info(control.TaskAborted), nil}}, partition.CodeRefused, "because"},
		"failed":                  {[]answer{{info(control.TaskOpen), nil}, {info(control.TaskFailed), nil}}, partition.CodeRefused, "because"},
		"never heard of again":    {[]answer{{info(control.TaskOpen), nil}, {SplitInfo{}, partition.Errorf(partition.CodeNotFound, "no")}}, partition.CodeNotFound, "no"},
		"refused":                 {[]answer{{SplitInfo{}, partition.Errorf(partition.CodeInvalid, "no")}}, partition.CodeInvalid, "no"},
		"open":                    {[]answer{{info(control.TaskOpen), nil}}, partition.CodeUnknown, "because"},
		"nobody answers any more": {[]answer{{info(control.TaskOpen), nil}, {SplitInfo{}, away}}, partition.CodeUnknown, "away"},
	} {
		asked := 0
		_, err := AwaitSplit(hurried(t), func(context.Context) (SplitInfo, error) {
			a := x.answers[min(asked, len(x.answers)-1)]
			asked++
			return a.info, a.err
		})
		if partition.CodeOf(err) != x.want || err != nil && !strings.Contains(err.Error(), x.says) {
			t.Errorf("%s: %v after %d questions", name, err, asked)
		}
	}
}
