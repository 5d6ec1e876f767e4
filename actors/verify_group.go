package actors

import (
	"context"
	"fmt"
	"slices"
	"time"

	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
)

const (
	// verifyTries bounds the indexes that are tried for a partition.
	verifyTries = 8
	// verifyLook is the pause between two looks at how far the replicas are, and
	// verifyAhead how far ahead of a busy partition the first index is, in the time
	// that its writes take to get there; each further try doubles it.
	verifyLook  = 50 * time.Millisecond
	verifyAhead = 200 * time.Millisecond
	// verifyIdleWait is how long an index is waited for that no replica reaches: the
	// writes that were to get there have ceased.
	verifyIdleWait = 2 * time.Second
	// verifyBehind is how long those that are behind are waited for, once one is
	// there, and verifyGone for those whose nodes do not answer any more.
	verifyBehind = 30 * time.Second
	verifyGone   = 5 * time.Second
)

// verifyGroup is the verification of one partition.
type verifyGroup struct {
	node  *Node
	token string
	group *control.Group
	tell  func(VerifiedPartition)
	now   VerifiedPartition
}

// verify finds an index that all replicas are about to reach, and compares them
// there.
func (v *verifyGroup) verify(ctx context.Context) VerifiedPartition {
	v.now = VerifiedPartition{Group: v.group.ID, Verdict: VerdictRunning}
	for try := range verifyTries {
		index := v.choose(ctx, try)
		v.tell(v.now)
		if index == 0 {
			break
		}
		v.now.Index = index
		again := v.compareAt(ctx, index)
		if ctx.Err() != nil {
			break
		}
		if !again {
			v.judge()
			return v.now
		}
	}
	v.now.Verdict = VerdictIncomplete
	if v.now.Why == "" {
		v.now.Why = "its replicas could not be seen at one record"
	}
	return v.now
}

// choose lists the replicas, and returns an index that those which have a state
// have not gone beyond, 0 if there is none with a state.
func (v *verifyGroup) choose(ctx context.Context, try int) partition.Index {
	first, idle := v.look(ctx)
	if first == 0 || idle {
		return first
	}
	began := v.node.now()
	select {
	case <-time.After(verifyLook):
	case <-ctx.Done():
		return 0
	}
	last, _ := v.look(ctx)
	if last <= first {
		return last // they only have to catch up
	}
	ahead := float64(last-first) / float64(v.node.now()-began) * float64(verifyAhead<<try)
	return last + partition.Index(ahead) + 1
}

// look asks the members how far they are. It returns the end of the newest log, and
// whether all have applied it.
func (v *verifyGroup) look(ctx context.Context) (last partition.Index, idle bool) {
	reports, silent := v.node.collect(ctx, []*control.Group{v.group})
	v.now.Replicas, v.now.Why, idle = []VerifiedReplica{}, "", true
	for _, m := range everyMember(shape(v.group, reports)) {
		r, ok := reports[reportKey{v.group.ID, m.Node}]
		x := VerifiedReplica{Replica: m.Replica, Node: m.Node, Verdict: VerdictRunning}
		switch info := replicaInfo(m, r, ok, silent[m.Node]); {
		case m.Kind == partition.LogReplica:
			x.Verdict, x.Why = VerdictSkipped, "it keeps only the log"
		case !ok || r.Removed || r.Role == "opening" || r.Role == "broken":
			x.Verdict, x.Why = VerdictSkipped, info.Why
		default:
			last, idle = max(last, r.Last, r.Applied), idle && (last == 0 || last == r.Last) && r.Applied == r.Last
		}
		v.now.Replicas = append(v.now.Replicas, x)
	}
	if last == 0 {
		v.now.Why = "no replica answers that has a state"
	}
	return last, idle
}

// compareAt has the replicas sum up their states at an index, and follows them to
// the end. It reports true if the index was not a good one.
func (v *verifyGroup) compareAt(ctx context.Context, index partition.Index) (again bool) {
	ask := verifyAsk{Token: fmt.Sprintf("%s/%d", v.token, index), Group: v.group.ID, Index: index}
	defer v.endAll(ask)
	began := v.node.now()
	there := partition.Time(0) // when one was seen to be at the index
	heard := make([]partition.Time, len(v.now.Replicas))
	for {
		v.askEach(ctx, ask, heard)
		v.tell(v.now)
		open, passed := 0, false
		for _, x := range v.now.Replicas {
			passed = passed || x.Phase == verifyPassed
			if x.Verdict == VerdictRunning {
				open++
			}
			if there == 0 && x.Phase != "" && x.Phase != verifyWaiting {
				there = v.node.now()
			}
		}
		now := v.node.now()
		switch {
		case passed, there == 0 && now > began+verifyIdleWait:
			return true
		case open == 0, ctx.Err() != nil:
			return false
		case there != 0 && now > there+verifyBehind:
			v.giveUp()
		}
		select {
		case <-time.After(verifyLook):
		case <-ctx.Done():
		}
	}
}

// askEach asks every replica that is not done, all at once.
func (v *verifyGroup) askEach(ctx context.Context, ask verifyAsk, heard []partition.Time) {
	n := v.node
	inParallel(len(v.now.Replicas), func(i int) {
		x := &v.now.Replicas[i]
		if x.Verdict != VerdictRunning || x.Phase == verifyDone {
			return
		}
		word, err := n.askVerify(ctx, x.Node, ask)
		if heard[i] == 0 {
			heard[i] = n.now()
		}
		switch {
		case err != nil && ctx.Err() == nil && (n.now() > heard[i]+verifyGone || !passing(err)):
			x.Verdict, x.Phase, x.Why = VerdictSkipped, "", asError(err).Why
			return
		case err != nil:
			return
		}
		heard[i] = n.now()
		x.Phase, x.Digest, x.Rows, x.Bytes, x.Files, x.Why = word.Phase, word.Sum, word.Rows, word.Bytes, word.Files, word.Why
		switch word.Phase {
		case verifyDone:
			x.Verdict = VerdictSame // until they are compared
		case verifyDamaged:
			x.Verdict = VerdictDamaged
		case verifyFailed:
			x.Verdict = VerdictSkipped
		}
	})
}

// giveUp leaves out those that do not reach the index.
func (v *verifyGroup) giveUp() {
	for i := range v.now.Replicas {
		if x := &v.now.Replicas[i]; x.Verdict == VerdictRunning && x.Phase == verifyWaiting {
			x.Verdict, x.Why = VerdictSkipped, fmt.Sprintf("it has not come to record %d in %s", v.now.Index, verifyBehind)
		}
	}
}

// endAll lets the nodes forget their parts.
func (v *verifyGroup) endAll(ask verifyAsk) {
	ask.End = true
	ctx, cancel := context.WithTimeout(v.node.ctx, verifyAskWait)
	defer cancel()
	inParallel(len(v.now.Replicas), func(i int) {
		if x := &v.now.Replicas[i]; x.Phase != "" {
			_, _ = v.node.askVerify(ctx, x.Node, ask) // it forgets by itself, too
		}
	})
}

// judge compares the digests.
func (v *verifyGroup) judge() {
	p := &v.now
	count, compared := make(map[string]int), 0
	for _, x := range p.Replicas {
		if x.Verdict == VerdictSame {
			count[x.Digest]++
			compared++
		}
	}
	p.Verdict, p.Why = VerdictSame, ""
	right := ""
	for sum, n := range count { // at most one has more than half
		if 2*n > compared {
			right = sum
		}
	}
	for i := range p.Replicas {
		x := &p.Replicas[i]
		x.Phase = ""
		if x.Verdict == VerdictSame && x.Digest != right {
			x.Verdict, x.Why = VerdictDiffers, "its state is not that of most"
			if right == "" {
				x.Why = "no state is that of most"
			}
		}
	}
	p.sumUp(compared)
}

// sumUp is the verdict on the partition.
func (p *VerifiedPartition) sumUp(compared int) {
	named := func(verdict string) (nodes []partition.NodeID) {
		for _, x := range p.Replicas {
			if x.Verdict == verdict {
				nodes = append(nodes, x.Node)
			}
		}
		slices.Sort(nodes)
		return nodes
	}
	damaged, differs, skipped := named(VerdictDamaged), named(VerdictDiffers), named(VerdictSkipped)
	switch {
	case len(differs) > 0:
		p.Verdict, p.Why = VerdictDiffers, fmt.Sprintf("the state on %s is not that of most replicas", join(differs, "and"))
		if len(differs) == compared {
			p.Why = fmt.Sprintf("the states on %s differ, and none is that of most", join(differs, "and"))
		}
	case len(damaged) > 0:
		p.Verdict, p.Why = VerdictDamaged, fmt.Sprintf("the state on %s is damaged; the partition replaces it", join(damaged, "and"))
	case len(skipped) > 0:
		p.Verdict, p.Why = VerdictIncomplete, fmt.Sprintf("not compared: %s", join(skipped, "and"))
		for _, x := range p.Replicas {
			if x.Verdict == VerdictSkipped && x.Why != "it keeps only the log" {
				return
			}
		}
		p.Verdict = VerdictSame // a replica without a state has nothing to compare
	case compared == 1:
		p.Why = "it is the only replica; its files are whole"
	}
}
