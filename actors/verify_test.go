package actors

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

// verified verifies a table, and fails the test if that does not come to an end.
func verified(t *testing.T, n *Node, table string) VerifyInfo {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	info, err := n.Verify(ctx, VerifyRequest{Table: table})
	if err != nil {
		t.Fatalf("verify: %v, %+v", err, info)
	}
	return info
}

// TestVerifyWhileWriting: replicas are compared at one record each while
// writes go on, also those of a partition that was split and whose replicas still
// have, or no longer have, the keys of the other.
func TestVerifyWhileWriting(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	c.table(TableSpec{Name: "t"})
	ctx, cancel := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	defer writers.Wait()
	defer cancel()
	for w := range 4 {
		writers.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if err := put(ctx, c.nodes[w%3], fmt.Sprintf("%c%04d", 'a'+byte(i%26), i), "v"); err != nil && ctx.Err() == nil {
					t.Errorf("put: %v", err)
					return
				}
			}
		})
	}
	same := func(partitions int) {
		t.Helper()
		info := verified(t, c.nodes[1], "t")
		if !info.Well() || info.Ended != partitions || len(info.Partitions) != partitions {
			t.Fatalf("%+v", info)
		}
		for _, p := range info.Partitions {
			if p.Verdict != VerdictSame || p.Index == 0 || len(p.Replicas) != 3 {
				t.Errorf("%+v", p)
			}
			for _, r := range p.Replicas {
				if r.Digest == "" || r.Digest != p.Replicas[0].Digest || r.Rows == 0 {
					t.Errorf("%s: %+v", p.Group, r)
				}
			}
		}
	}
	same(1)
	info, err := c.nodes[0].Split(t.Context(), SplitRequest{Table: "t", At: [][]byte{[]byte("m")}})
	if err == nil {
		_, err = c.nodes[0].AwaitSplit(t.Context(), info.Task)
	}
	if err != nil {
		t.Fatal(err)
	}
	same(2)
}

// TestVerifyStopsBetweenRecords: a state is seen right after one record, also if
// that one is in the middle of those that are applied at once; and nobody's view
// stays open.
func TestVerifyStopsBetweenRecords(t *testing.T) {
	n := bare(t)
	s, err := n.engine.Open(7, 1)
	if err != nil {
		t.Fatal(err)
	}
	a := &replicaActor{node: n, cell: &cell{group: 7}, state: &openState{store: s}}
	var recs []partition.Record
	for i := partition.Index(4); i <= 9; i++ {
		recs = append(recs, partition.NewRecord(partition.Header{Group: 7, Index: i, Epoch: partition.NewEpoch(1, 1), Kind: partition.KindNoop}, nil))
	}
	if got := a.untilView(recs); len(got) != len(recs) {
		t.Errorf("nobody waits: %d records", len(got))
	}
	a.applied = 3
	late, early, never := newViewAt(7), newViewAt(5), newViewAt(20)
	for _, m := range []*viewAt{late, early, never} {
		a.awaitView(m)
	}
	for _, want := range []int{2, 2, 2} { // to 5, to 7, to the end
		got := a.untilView(recs)
		if len(got) != want {
			t.Fatalf("from %d: %d records, want %d", recs[0].Index(), len(got), want)
		}
		recs = recs[len(got):]
		a.applied = got[len(got)-1].Index()
		a.giveViews()
	}
	for _, m := range []*viewAt{late, early} {
		if x := <-m.answer; x.err != nil || x.view.Close() != nil {
			t.Errorf("view at %d: %v", m.index, x.err)
		}
	}
	passed := newViewAt(8)
	a.awaitView(passed)
	if x := <-passed.answer; !errors.Is(x.err, partition.ErrRefused) {
		t.Errorf("a state that is over: %v", x.err)
	}
	never.abandon()
	a.applied = 20
	a.giveViews() // closes what nobody takes; the engine would not close otherwise
	for range maxViewsAt {
		a.awaitView(newViewAt(30))
	}
	one := newViewAt(30)
	a.awaitView(one)
	if x := <-one.answer; !errors.Is(x.err, partition.ErrBusy) {
		t.Errorf("one more than the limit: %v", x.err)
	}
	waits := a.views[0]
	a.refuseViews(partition.Errorf(partition.CodeUnknown, "it stops"))
	if x := <-waits.answer; !errors.Is(x.err, partition.ErrUnavailable) {
		t.Errorf("a replica that stops: %v", x.err)
	}
	a.state = nil
	logOnly := newViewAt(30)
	a.awaitView(logOnly)
	if x := <-logOnly.answer; !errors.Is(x.err, partition.ErrRefused) {
		t.Errorf("a replica without a state: %v", x.err)
	}
}

// TestVerifyCutsWhatIsApplied: of records that are applied at once the state is seen
// right after the one that is wanted, and the rest is applied in the next turn.
func TestVerifyCutsWhatIsApplied(t *testing.T) {
	n := bare(t)
	s, err := n.engine.Open(7, 1)
	if err != nil {
		t.Fatal(err)
	}
	n.splitter = &splitter{node: n, running: make(map[partition.GroupID]*splitting)}
	n.merger = &merger{node: n, running: make(map[partition.GroupID]*merging)}
	exec := &replica.Executor{}
	a := &replicaActor{node: n, cell: &cell{group: 7}, state: &openState{store: s, exec: exec, logger: n.logger}}
	a.begin()
	w := &replica.Apply{First: 1, Last: 4}
	for i := w.First; i <= w.Last; i++ {
		w.Records = append(w.Records, partition.NewRecord(partition.Header{Group: 7, Index: i, Epoch: partition.NewEpoch(1, 1), Kind: partition.KindNoop}, nil))
	}
	want := newViewAt(2)
	a.awaitView(want)
	if err := a.apply(w); err != nil || a.applied != 2 {
		t.Fatalf("applied %d, %v; want 2", a.applied, err)
	}
	x := <-want.answer
	if x.err != nil {
		t.Fatal(x.err)
	}
	w.First, w.Records = 3, w.Records[2:]
	if err := a.apply(w); err != nil || a.applied != 4 {
		t.Fatalf("applied %d, %v; want 4", a.applied, err)
	}
	at, err := x.view.Applied()
	if cerr := x.view.Close(); at != 2 || err != nil || cerr != nil {
		t.Errorf("the view shows %d, %v, %v", at, err, cerr)
	}
}

// TestVerifyLeavesOutForeign: rows of keys that are another group's do not
// count, and each of the group's own does.
func TestVerifyLeavesOutForeign(t *testing.T) {
	n := bare(t)
	sums := make(map[string]string)
	for i, keys := range [][]string{{"g", "h"}, {"a", "g", "h", "z"}, {"g", "h", "z"}, {"g"}, {"g", "i"}} {
		s, err := n.engine.Open(partition.GroupID(i+1), 1)
		if err != nil {
			t.Fatal(err)
		}
		x := partition.Extent{Range: partition.KeyRange{Lo: []byte("g"), Hi: []byte("n")}, Version: 3, Since: 3}
		row, err := x.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		err = s.Apply(1, func(w partition.Writer) error {
			for _, k := range keys {
				if err := w.Set(append([]byte{3}, k...), []byte("v")); err != nil {
					return err
				}
			}
			return w.Set([]byte{1, 'e'}, row)
		})
		if err != nil {
			t.Fatal(err)
		}
		v, err := s.View()
		if err != nil {
			t.Fatal(err)
		}
		sum, err := new(verifyPart).sumUp(t.Context(), v, func(context.Context, int) error { return nil })
		if cerr := v.Close(); err != nil || cerr != nil {
			t.Fatal(err, cerr)
		}
		sums[fmt.Sprint(keys)] = fmt.Sprintf("%x", sum)
	}
	if own := sums["[g h]"]; own != sums["[a g h z]"] || own != sums["[g h z]"] {
		t.Errorf("foreign rows count: %v", sums)
	} else if own == sums["[g]"] || own == sums["[g i]"] || sums["[g]"] == sums["[g i]"] {
		t.Errorf("own rows do not count: %v", sums)
	}
}

// unsteady is a partition kind that does on each node something else: what a
// verification has to find.
type unsteady struct{ own string }

func (u unsteady) Apply(w partition.Writer, c partition.Command) ([]byte, error) {
	return nil, w.Set(c.Payload, []byte(u.own))
}

func (u unsteady) Read(r partition.Reader, key []byte) ([]byte, error) {
	v, _, err := r.Get(key)
	return bytes.Clone(v), err
}

// TestVerifyDiffers: a replica that came to another state from the same log is
// named, and of two that differ both are.
func TestVerifyDiffers(t *testing.T) {
	t.Parallel()
	c := newClusterWith(t, 3, func(cfg *Config) {
		own := "the same"
		if cfg.NodeID == "n2" {
			own = "the sane"
		}
		cfg.Kinds = map[string]partition.Factory{"unsteady": func(partition.Spec) (partition.Partition, error) { return unsteady{own}, nil }}
	})
	c.table(TableSpec{Name: "t", Kind: "unsteady"})
	c.table(TableSpec{Name: "two", Kind: "unsteady", Nodes: []partition.NodeID{"n1", "n2"}, Policy: "all-in-sync"})
	for _, table := range []string{"t", "two"} {
		if _, err := c.nodes[0].Client().Propose(t.Context(), table, []byte("k"), []byte("k")); err != nil {
			t.Fatal(err)
		}
	}
	for table, want := range map[string]map[partition.NodeID]string{
		"t":   {"n1": VerdictSame, "n2": VerdictDiffers, "n3": VerdictSame},
		"two": {"n1": VerdictDiffers, "n2": VerdictDiffers},
	} {
		info := verified(t, c.nodes[2], table)
		if p := info.Partitions[0]; info.Well() || p.Verdict != VerdictDiffers || p.Why == "" {
			t.Errorf("%s: %+v", table, p)
		}
		for _, r := range info.Partitions[0].Replicas {
			if r.Verdict != want[r.Node] {
				t.Errorf("%s: %+v, want %s", table, r, want[r.Node])
			}
		}
	}
}

// flipInState flips one bit of the table files below a directory, in the place
// that holds the mark.
func flipInState(t *testing.T, dir string, mark []byte) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "stores", "*", "*", "*.sst"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if i := bytes.Index(b, mark); i >= 0 {
			b[i+len(mark)/2] ^= 4
			if err := os.WriteFile(f, b, 0o600); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("the mark is in none of %v", files)
}

// TestVerifyFindsFlippedByte: a byte of a stopped replica's state changes on
// the disk. The node starts and serves, for nothing reads there; a verification
// finds it, the partition replaces the replica by itself, and another one finds
// everything well.
func TestVerifyFindsFlippedByte(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	c.table(TableSpec{Name: "t"})
	mark := make([]byte, 200) // cannot be compressed, so it is in the file as it is
	for i := range mark {
		mark[i] = byte(rand.Uint32())
	}
	for i := range 500 { // so many that the mark is in a block of its own
		value := bytes.Repeat([]byte{byte(i)}, 500)
		if i == 250 {
			value = mark
		}
		if err := put(t.Context(), c.any(), fmt.Sprintf("key%04d", i), string(value)); err != nil {
			t.Fatal(err)
		}
	}
	if info := verified(t, c.any(), "t"); info.Partitions[0].Verdict != VerdictSame {
		t.Fatalf("before: %+v", info)
	}
	victim := (c.master("t") + 1) % 3
	c.stop(victim) // which writes its state to files
	flipInState(t, c.cfgs[victim].Dir, mark)
	id := c.start(victim).ID()
	at := func() (VerifiedReplica, VerifyInfo) {
		info := verified(t, c.any(), "t")
		for _, r := range info.Partitions[0].Replicas {
			if r.Node == id {
				return r, info
			}
		}
		return VerifiedReplica{}, info
	}
	old := VerifiedReplica{}
	eventually(t, "the damage is found", func() error {
		r, info := at()
		if r.Verdict != VerdictDamaged || info.Well() || info.Partitions[0].Verdict != VerdictDamaged {
			return fmt.Errorf("%+v", info.Partitions[0])
		}
		old = r
		return nil
	})
	eventually(t, "the replica is replaced", func() error {
		r, info := at()
		if info.Partitions[0].Verdict != VerdictSame || r.Replica <= old.Replica {
			return fmt.Errorf("%+v", info.Partitions[0])
		}
		return nil
	})
	if got, err := get(t.Context(), c.nodes[victim], "key0250"); err != nil || got != string(mark) {
		t.Errorf("the value: %d bytes, %v", len(got), err)
	}
}

// TestVerifyRefuses: what cannot be verified is refused with the reason, and what
// cannot be compared is told.
func TestVerifyRefuses(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	c.table(TableSpec{Name: "t"})
	n := c.nodes[0]
	for _, x := range []struct {
		r    VerifyRequest
		want error
	}{
		{VerifyRequest{}, partition.ErrInvalid},
		{VerifyRequest{Table: "none"}, partition.ErrNoSuchTable},
		{VerifyRequest{Groups: []partition.GroupID{99}}, partition.ErrNotFound},
	} {
		if _, err := n.Verify(t.Context(), x.r); !errors.Is(err, x.want) {
			t.Errorf("%+v: %v", x.r, err)
		}
	}
	if _, err := n.serveVerify([]byte("{")); !errors.Is(err, partition.ErrInvalid) {
		t.Errorf("a question that cannot be read: %v", err)
	}
	if _, err := n.verifier.part(verifyAsk{Token: "x", Group: 99}); !errors.Is(err, partition.ErrNotFound) {
		t.Errorf("no such replica: %v", err)
	}
	if err := put(t.Context(), n, "a", "b"); err != nil {
		t.Fatal(err)
	}
	away := c.nodes[(c.master("t")+1)%3].ID()
	for i, m := range c.nodes {
		if m.ID() == away {
			c.stop(i)
		}
	}
	info := verified(t, c.any(), "t")
	if p := info.Partitions[0]; p.Verdict != VerdictIncomplete || info.Well() {
		t.Errorf("without %s: %+v", away, p)
	}
	for i := range maxVerifyRuns {
		if _, err := c.any().BeginVerify(t.Context(), VerifyRequest{All: true, Token: fmt.Sprint(i)}); i < maxVerifyRuns-1 && err != nil {
			t.Errorf("run %d: %v", i, err)
		}
	}
	if _, err := c.any().BeginVerify(t.Context(), VerifyRequest{All: true, Token: "more"}); !errors.Is(err, partition.ErrBusy) {
		t.Errorf("one more than the limit: %v", err)
	}
}
