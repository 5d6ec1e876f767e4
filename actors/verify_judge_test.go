package actors

import (
	"context"
	"errors"
	"strings"
	"testing"

	"pando.dev/pando/partition"
)

// TestVerifyJudges: who is named when digests differ, files are damaged, or not all
// could be compared.
func TestVerifyJudges(t *testing.T) {
	for want, replicas := range map[string]string{ // a letter is a digest; ! damaged, - skipped, l keeps only the log
		"same ":                                "aaa",
		"same it is the only":                  "a",
		"same not compared: n3":                "aal",
		"incomplete not":                       "aa-",
		"incomplete not compared: ":            "---",
		"damaged the state on n2 is damaged":   "a!a",
		"differs the state on n3":              "aab",
		"differs the states on n1 and n2 diff": "ab",
		"differs the states on n1, n2 and n3":  "abc",
		"differs the state on n4":              "aaab!",
		"damaged the state on n1":              "!--",
	} {
		v := &verifyGroup{now: VerifiedPartition{Group: 1}}
		for i, c := range replicas {
			x := VerifiedReplica{Replica: partition.ReplicaID(i + 1), Node: partition.NodeID("n" + string(rune('1'+i))), Verdict: VerdictSame, Digest: string(c)}
			switch c {
			case '!':
				x.Verdict, x.Digest = VerdictDamaged, ""
			case '-':
				x.Verdict, x.Digest, x.Why = VerdictSkipped, "", "its node does not answer"
			case 'l':
				x.Verdict, x.Digest, x.Why = VerdictSkipped, "", "it keeps only the log"
			}
			v.now.Replicas = append(v.now.Replicas, x)
		}
		v.judge()
		if got := v.now.Verdict + " " + v.now.Why; !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, want %q", replicas, got, want)
		}
	}
	v := &verifyGroup{now: VerifiedPartition{Replicas: []VerifiedReplica{{Verdict: VerdictRunning, Phase: verifyWaiting}, {Verdict: VerdictRunning, Phase: verifyReading}}}}
	if v.giveUp(); v.now.Replicas[0].Verdict != VerdictSkipped || v.now.Replicas[1].Verdict != VerdictRunning {
		t.Errorf("given up: %+v", v.now.Replicas)
	}
}

// TestAwaitVerify: what passes is asked again, what does not ends it, and at the end
// of the time the reason is what was heard last.
func TestAwaitVerify(t *testing.T) {
	busy, broken := partition.Errorf(partition.CodeBusy, "full"), partition.Errorf(partition.CodeNoSuchTable, "none")
	for name, c := range map[string]struct {
		answers []error // nil: done
		want    error
		asked   int
	}{
		"busy for a while": {[]error{busy, busy, nil}, nil, 3},
		"refused":          {[]error{broken}, partition.ErrNoSuchTable, 1},
		"busy for ever":    {[]error{busy}, partition.ErrBusy, 0},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*verifyPoll)
		asked, told := 0, 0
		info, err := AwaitVerify(ctx, VerifyRequest{All: true}, func(_ context.Context, r VerifyRequest) (VerifyInfo, error) {
			err := c.answers[min(asked, len(c.answers)-1)]
			asked++
			return VerifyInfo{Token: r.Token, Done: err == nil}, err
		}, func(VerifyInfo) { told++ })
		cancel()
		if !errors.Is(err, c.want) || c.want == nil && err != nil || c.asked != 0 && asked != c.asked || c.want == nil && (!info.Done || info.Token == "" || told != asked) {
			t.Errorf("%s: %+v, %v after %d", name, info, err, asked)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*verifyPoll)
	defer cancel()
	_, err := AwaitVerify(ctx, VerifyRequest{}, func(context.Context, VerifyRequest) (VerifyInfo, error) { return VerifyInfo{Of: 3}, nil }, nil)
	if !errors.Is(err, partition.ErrTimeout) {
		t.Errorf("it takes too long: %v", err)
	}
}

// TestBytesHere: how much of a copy is here is read from what a replica's node tells.
func TestBytesHere(t *testing.T) {
	for why, want := range map[string][2]uint64{
		"the replica of g1 is being brought up on node n4: 7 of 9 bytes are here": {7, 9},
		"the replica of g1 is being brought up on node n4":                        {},
		"tried again: closed: 1 of 2 bytes are there":                             {},
		"": {},
	} {
		if done, total := bytesHere(why); done != want[0] || total != want[1] {
			t.Errorf("%q: %d of %d", why, done, total)
		}
	}
}

// TestNobodyToAsk: a node that has not learned the catalog says so, whatever of it
// is asked for.
func TestNobodyToAsk(t *testing.T) {
	t.Parallel()
	cfg := single(t, t.TempDir())
	cfg.Expect = 3 // and nobody else comes
	c := startSingle(t, cfg)
	n, ctx := c.any(), t.Context()
	_, check := n.Check(ctx)
	_, nodes := n.Nodes(ctx)
	_, partitionErr := n.Explain(ctx, "partition", "g1")
	_, node := n.Explain(ctx, "node", "n1")
	_, task := n.Explain(ctx, "task", "t1")
	_, history := n.History(ctx, 1)
	_, move := n.Move(ctx, MoveRequest{Group: 1})
	_, verify := n.BeginVerify(ctx, VerifyRequest{All: true, Token: "x"})
	for what, err := range map[string]error{"check": check, "nodes": nodes, "partition": partitionErr, "node": node, "task": task, "history": history, "move": move, "verify": verify} {
		if !errors.Is(err, partition.ErrUnavailable) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestEventTexts: each kind of record that changes a group is told in words, also
// one that cannot be read.
func TestEventTexts(t *testing.T) {
	decision, err := (&partition.Decision{Task: 4, Intent: 9, Version: 2}).AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	merge, err := (&partition.MergeIntent{
		Task: 4, Range: partition.KeyRange{Hi: []byte("m")}, Version: 1, Source: 8, SourceRange: partition.KeyRange{Lo: []byte("m")},
	}).AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	var recs []partition.Record
	var want []string
	for _, x := range []struct {
		kind    partition.Kind
		payload []byte
		has     string
	}{
		{partition.KindNoop, nil, "epoch 1.1: replica 1 becomes master"},
		{partition.KindMember, []byte("x"), "cannot be read"},
		{partition.KindIntent, []byte("x"), "cannot be read"},
		{partition.KindSeal, decision, "task t4, range version 2: what leaves is held"},
		{partition.KindUnseal, decision, "served again"},
		{partition.KindAbort, decision, "given up"},
		{partition.KindDone, []byte("x"), "it is done everywhere"},
		{partition.KindMergeIntent, merge, "task t4: a merge begins, g8 is to be absorbed"},
		{partition.KindMerging, nil, "the other group are this one's"},
		{partition.KindSourceSeal, nil, "absorb this one"},
		{partition.KindSourceUnseal, decision, "it serves again"},
		{partition.KindSourceGone, decision, "another group's, for ever"},
	} {
		h := partition.Header{Group: 7, Index: partition.Index(len(recs) + 1), Epoch: partition.NewEpoch(1, 1), Kind: x.kind}
		recs = append(recs, partition.NewRecord(h, x.payload))
		want = append(want, x.has)
	}
	for i, e := range eventsOf(recs, 3) {
		if !strings.Contains(e.Text, want[i]) || strings.Contains(e.Text, "not known to be committed") != (e.Index > 3) {
			t.Errorf("%s: %q, want %q", e.Kind, e.Text, want[i])
		}
	}
	if n := len(eventsOf(make([]partition.Record, 0), 0)); n != 0 {
		t.Errorf("%d events of nothing", n)
	}
}
