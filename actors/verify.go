package actors

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
)

// To verify a partition each of its replicas takes a view of its state as it is
// right after one record, the same for all, and sums it up; then it reads its files
// again, past every cache, for their checksums. No write waits for either, and the
// rate of both is bounded like that of copies.
//
//	ask the members how far they are -> an index all are about to reach
//	each: view at the index -> digest -> checksums of the files
//	compare: who has another digest than most is named

const (
	// maxVerifyRuns bounds the verifications that a node carries out at a time for
	// those who ask, and verifyAtOnce the partitions of one that are under way.
	maxVerifyRuns = 4
	verifyAtOnce  = 2
	// verifyPoll is the pause between two looks at one.
	verifyPoll = 100 * time.Millisecond
)

// VerifyRequest says what is to be verified: partitions by id, all of a table, the
// one that has a key of a table, or, with All, every one.
type VerifyRequest struct {
	Groups []partition.GroupID `json:"groups,omitempty"`
	Table  string              `json:"table,omitempty"`
	Key    []byte              `json:"key,omitempty"`
	All    bool                `json:"all,omitempty"`
	// Token names the verification: the same one asks how far it is. Empty: one is
	// made.
	Token string `json:"token,omitempty"`
}

// The verdicts on a partition and on a replica.
const (
	VerdictSame       = "same"       // all that could be compared are equal, and their files whole
	VerdictDiffers    = "differs"    // a replica has another state than most
	VerdictDamaged    = "damaged"    // a replica's files fail their checksums
	VerdictIncomplete = "incomplete" // of a partition: not every replica was compared
	VerdictSkipped    = "skipped"    // of a replica: it was not compared
	VerdictRunning    = "running"
)

// VerifyInfo is how far a verification is, and what it has found.
type VerifyInfo struct {
	Token string `json:"token"`
	Done  bool   `json:"done"`
	// Ended of Of partitions are verified.
	Ended int   `json:"ended"`
	Of    int   `json:"of"`
	Rows  int64 `json:"rows"`  // read so far, of all replicas
	Bytes int64 `json:"bytes"` // of these rows
	// Partitions are all when it is done, and before that those that are under way
	// or not well.
	Partitions []VerifiedPartition `json:"partitions"`
}

// Well reports whether all replicas that have a state were compared and are equal.
func (i *VerifyInfo) Well() bool {
	return i.Done && !slices.ContainsFunc(i.Partitions, func(p VerifiedPartition) bool { return p.Verdict != VerdictSame })
}

// VerifiedPartition is what was found of a partition.
type VerifiedPartition struct {
	Group    partition.GroupID `json:"group"`
	Table    string            `json:"table"`
	Index    partition.Index   `json:"index"` // right after which the states were compared
	Verdict  string            `json:"verdict"`
	Why      string            `json:"why,omitempty"`
	Replicas []VerifiedReplica `json:"replicas"`
}

// VerifiedReplica is what was found of a replica.
type VerifiedReplica struct {
	Replica partition.ReplicaID `json:"replica"`
	Node    partition.NodeID    `json:"node"`
	Verdict string              `json:"verdict"`
	Phase   string              `json:"phase,omitempty"`
	Digest  string              `json:"digest,omitempty"`
	Rows    int64               `json:"rows,omitempty"`
	Bytes   int64               `json:"bytes,omitempty"`
	Files   int                 `json:"files,omitempty"`
	Why     string              `json:"why,omitempty"`
}

// verifyRun is a verification that this node was asked for.
type verifyRun struct {
	node   *Node
	token  string
	cancel context.CancelFunc
	idle   *time.Timer

	mu    sync.Mutex
	parts []VerifiedPartition
	ended int
	rows  int64 // of those that have ended
	bytes int64
	done  bool
	told  bool // that it is done
}

// BeginVerify begins a verification, or tells how far the one with the token is.
// One that nobody asks for ends by itself after a while.
func (n *Node) BeginVerify(_ context.Context, r VerifyRequest) (VerifyInfo, error) {
	v := n.verifier
	v.mu.Lock()
	run := v.runs[r.Token]
	v.mu.Unlock()
	if run == nil {
		groups, err := n.verifiable(&r)
		if err != nil {
			return VerifyInfo{}, err
		}
		if run, err = v.begin(&r, groups); err != nil {
			return VerifyInfo{}, err
		}
	}
	run.idle.Reset(verifyIdle)
	return run.info(), nil
}

// Verify verifies partitions and waits for the end; when ctx ends it returns what
// was found so far.
func (n *Node) Verify(ctx context.Context, r VerifyRequest) (VerifyInfo, error) {
	return AwaitVerify(ctx, r, n.BeginVerify, nil)
}

// AwaitVerify asks, by the given function, until a verification has ended, and
// tells, if told is not nil, how far it is.
func AwaitVerify(ctx context.Context, r VerifyRequest, ask func(context.Context, VerifyRequest) (VerifyInfo, error), told func(VerifyInfo)) (VerifyInfo, error) {
	if r.Token == "" {
		var b [12]byte
		_, _ = rand.Read(b[:]) // never fails
		r.Token = hex.EncodeToString(b[:])
	}
	tick := time.NewTicker(verifyPoll)
	defer tick.Stop()
	var last VerifyInfo
	var lastErr error
	for {
		info, err := ask(ctx, r)
		switch {
		case err == nil:
			last, lastErr = info, nil
		case ctx.Err() == nil && !passing(err):
			return last, err
		case ctx.Err() == nil:
			lastErr = err
		}
		if told != nil {
			told(last)
		}
		if last.Done {
			return last, nil
		}
		select {
		case <-ctx.Done():
			if lastErr != nil {
				return last, lastErr
			}
			return last, partition.Errorf(partition.CodeTimeout, "%d of %d partitions are verified: the time is up", last.Ended, last.Of)
		case <-tick.C:
		}
	}
}

// verifiable returns the groups that a request names.
func (n *Node) verifiable(r *VerifyRequest) ([]*control.Group, error) {
	cat, err := n.catalog()
	if err != nil {
		return nil, err
	}
	var groups []*control.Group
	for _, id := range r.Groups {
		g, ok := cat.Group(id)
		if !ok {
			return nil, noSuchPartition(id)
		}
		groups = append(groups, g)
	}
	switch {
	case len(r.Groups) > 0:
	case r.Table != "" && r.Key != nil:
		g, err := cat.Lookup(r.Table, r.Key)
		if err != nil {
			return nil, err
		}
		groups = append(groups, g)
	case r.Table != "":
		if _, ok := cat.Table(r.Table); !ok {
			return nil, noSuchTable(r.Table)
		}
		groups = cat.Groups(r.Table)
	case r.All:
		groups = cat.AllGroups()
	default:
		return nil, &partition.Error{Code: partition.CodeInvalid, Why: "nothing is named that is to be verified", Next: "name a partition or a table, or all"}
	}
	return groups, nil
}

func noSuchPartition(id partition.GroupID) error {
	return &partition.Error{
		Code: partition.CodeNotFound, Why: fmt.Sprintf("there is no partition %s", id), Next: "list them with: pando partition ls",
	}
}

// begin begins a run, once per token.
func (v *verifier) begin(r *VerifyRequest, groups []*control.Group) (*verifyRun, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if run := v.runs[r.Token]; run != nil {
		return run, nil
	}
	if r.Token == "" || len(r.Token) > control.MaxTaskText {
		return nil, partition.Errorf(partition.CodeInvalid, "a verification wants a token of 1 to %d bytes", control.MaxTaskText)
	}
	open := 0
	for _, run := range v.runs { // counted only
		if !run.over() {
			open++
		}
	}
	if open >= maxVerifyRuns {
		return nil, partition.Errorf(partition.CodeBusy, "node %s carries out %d verifications, the limit", v.node.ID(), maxVerifyRuns)
	}
	ctx, cancel := context.WithCancel(v.node.ctx)
	run := &verifyRun{node: v.node, token: r.Token, cancel: cancel, parts: make([]VerifiedPartition, len(groups))}
	cat := v.node.control.Catalog()
	for i, g := range groups {
		run.parts[i] = VerifiedPartition{Group: g.ID, Replicas: []VerifiedReplica{}}
		if t, ok := cat.TableOf(g); ok {
			run.parts[i].Table = t.Name
		}
	}
	run.idle = time.AfterFunc(verifyIdle, func() {
		cancel()
		v.mu.Lock()
		delete(v.runs, r.Token)
		v.mu.Unlock()
	})
	v.runs[r.Token] = run
	v.node.background.Go(func() { run.all(ctx, groups) })
	return run, nil
}

// all verifies the groups, a few at a time.
func (r *verifyRun) all(ctx context.Context, groups []*control.Group) {
	slots := make(chan struct{}, verifyAtOnce)
	var work sync.WaitGroup
	for i, g := range groups {
		slots <- struct{}{}
		work.Go(func() {
			defer func() { <-slots }()
			v := &verifyGroup{node: r.node, token: r.token, group: g, tell: func(p VerifiedPartition) { r.note(i, p) }}
			r.note(i, v.verify(ctx))
			r.endOne(i)
		})
	}
	work.Wait()
	r.mu.Lock()
	r.done = true
	r.mu.Unlock()
	r.cancel()
}

func (r *verifyRun) note(i int, p VerifiedPartition) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p.Table, p.Replicas = r.parts[i].Table, slices.Clone(p.Replicas) // whoever tells goes on with its own
	r.parts[i] = p
}

func (r *verifyRun) endOne(i int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended++
	for _, x := range r.parts[i].Replicas {
		r.rows += x.Rows
		r.bytes += x.Bytes
	}
}

func (r *verifyRun) info() VerifyInfo {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told = r.done
	info := VerifyInfo{Token: r.token, Done: r.done, Ended: r.ended, Of: len(r.parts), Rows: r.rows, Bytes: r.bytes, Partitions: []VerifiedPartition{}}
	for _, p := range r.parts {
		if p.Verdict == VerdictRunning {
			for _, x := range p.Replicas {
				info.Rows += x.Rows
				info.Bytes += x.Bytes
			}
		}
		if r.done || p.Verdict != "" && p.Verdict != VerdictSame {
			info.Partitions = append(info.Partitions, p)
		}
	}
	return info
}

// over reports whether it is done and somebody knows.
func (r *verifyRun) over() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.told
}

// verifyAskWait bounds one question to a replica's node.
const verifyAskWait = 2 * time.Second

// askVerify asks a node about its part.
func (n *Node) askVerify(ctx context.Context, node partition.NodeID, ask verifyAsk) (verifyWord, error) {
	if node == n.ID() {
		return n.verifier.part(ask)
	}
	ctx, cancel := context.WithTimeout(ctx, verifyAskWait)
	defer cancel()
	word, err := askNode[verifyWord](ctx, n, node, callVerify, ask)
	if errors.Is(err, partition.ErrUnknown) {
		err = partition.Errorf(partition.CodeUnavailable, "%s", asError(err).Why) // it only reads
	}
	return word, err
}
