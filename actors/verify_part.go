package actors

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"sync"
	"sync/atomic"
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
	"pando.dev/pando/partition/store"
)

const (
	// maxVerifyParts bounds the replicas that a node verifies at a time, and
	// verifyIdle is how long it goes on with one that nobody asks for.
	maxVerifyParts = 16
	verifyIdle     = 30 * time.Second
	// paceBytes is how much of a state is read between two looks at the rate.
	paceBytes = 1 << 20
)

// The phases of a replica's part of a verification.
const (
	verifyWaiting = "waiting" // for its state to reach the index
	verifyReading = "reading" // the state, for its digest
	verifyFiles   = "files"   // the state's files, for their checksums
	verifyDone    = "done"
	verifyPassed  = "passed" // the state is beyond the index
	verifyDamaged = "damaged"
	verifyFailed  = "failed"
)

// verifyAsk begins a replica's part of a verification, or asks how far it is: the
// same one is begun once. End ends it.
type verifyAsk struct {
	Token string            `json:"token"`
	Group partition.GroupID `json:"group"`
	Index partition.Index   `json:"index"`
	End   bool              `json:"end,omitempty"`
}

// verifyWord is how far a part is.
type verifyWord struct {
	Phase string `json:"phase"`
	Sum   string `json:"sum,omitempty"`
	Rows  int64  `json:"rows,omitempty"`
	Bytes int64  `json:"bytes,omitempty"` // read so far
	Files int    `json:"files,omitempty"` // whose checksums are right
	Why   string `json:"why,omitempty"`
}

// verifyPart is one replica's part of a verification.
type verifyPart struct {
	cancel context.CancelFunc
	idle   *time.Timer // ends it when nobody asks
	rows   atomic.Int64
	bytes  atomic.Int64

	mu   sync.Mutex
	word verifyWord
}

// verifier has the verifications that this node takes part in, and those that it
// was asked for.
type verifier struct {
	node *Node

	mu    sync.Mutex
	parts map[verifyAsk]*verifyPart // by their ask
	runs  map[string]*verifyRun     // by token
}

func newVerifier(n *Node) *verifier {
	return &verifier{node: n, parts: make(map[verifyAsk]*verifyPart), runs: make(map[string]*verifyRun)}
}

// serveVerify answers another node's ask.
func (n *Node) serveVerify(body []byte) ([]byte, error) {
	var ask verifyAsk
	if err := json.Unmarshal(body, &ask); err != nil || ask.Group == 0 || ask.Token == "" {
		return nil, partition.Errorf(partition.CodeInvalid, "a question about a verification that cannot be read")
	}
	word, err := n.verifier.part(ask)
	if err != nil {
		return nil, err
	}
	return json.Marshal(word)
}

// part begins a part, or tells how far it is.
func (v *verifier) part(ask verifyAsk) (verifyWord, error) {
	end := ask.End
	ask.End = false
	v.mu.Lock()
	defer v.mu.Unlock()
	p := v.parts[ask]
	switch {
	case p != nil && end:
		p.cancel()
		p.idle.Stop()
		delete(v.parts, ask)
		return p.tell(), nil
	case p != nil:
		p.idle.Reset(verifyIdle)
		return p.tell(), nil
	case end:
		return verifyWord{Phase: verifyFailed, Why: "it is over"}, nil
	case len(v.parts) >= maxVerifyParts:
		return verifyWord{}, partition.Errorf(partition.CodeBusy, "node %s verifies %d replicas, the limit", v.node.ID(), maxVerifyParts)
	}
	c := v.node.cells.get(ask.Group)
	if c == nil {
		return verifyWord{}, partition.Errorf(partition.CodeNotFound, "node %s has no replica of %s", v.node.ID(), ask.Group)
	}
	st := c.state.Load()
	if st == nil {
		return verifyWord{}, partition.Errorf(partition.CodeUnavailable, "the replica of %s on node %s has no state open", ask.Group, v.node.ID())
	}
	ctx, cancel := context.WithCancel(v.node.ctx)
	p = &verifyPart{cancel: cancel, word: verifyWord{Phase: verifyWaiting}}
	p.idle = time.AfterFunc(verifyIdle, func() {
		cancel()
		v.mu.Lock()
		delete(v.parts, ask)
		v.mu.Unlock()
	})
	v.parts[ask] = p
	v.node.background.Go(func() { p.run(ctx, v.node, c, st, ask.Index) })
	return p.tell(), nil
}

func (p *verifyPart) tell() verifyWord {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.word
	w.Rows, w.Bytes = p.rows.Load(), p.bytes.Load()
	return w
}

func (p *verifyPart) set(change func(*verifyWord)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.word)
}

// run waits for the state, reads it and then its files. Damage ends the replica as
// it does when a read comes by it: the group replaces it.
func (p *verifyPart) run(ctx context.Context, n *Node, c *cell, st *openState, at partition.Index) {
	defer p.cancel()
	sum, err := p.digest(ctx, n, c, at)
	var files store.Scrubbed
	if err == nil {
		p.set(func(w *verifyWord) { w.Phase, w.Sum = verifyFiles, hex.EncodeToString(sum) })
		files, err = st.store.Scrub(ctx)
	}
	p.set(func(w *verifyWord) {
		switch {
		case err == nil:
			w.Phase, w.Files = verifyDone, files.Files
		case errors.Is(err, partition.ErrCorrupt):
			w.Phase, w.Sum, w.Why = verifyDamaged, "", asError(err).Why
		case w.Phase == verifyWaiting && errors.Is(err, partition.ErrRefused):
			w.Phase, w.Why = verifyPassed, asError(err).Why
		default:
			w.Phase, w.Why = verifyFailed, err.Error()
		}
		w.Why = w.Why[:min(len(w.Why), maxWhyBytes)]
	})
	if errors.Is(err, partition.ErrCorrupt) && ctx.Err() == nil {
		n.logger.Error("damaged state found by a verification", "group", c.group, "err", err)
		st.damaged(fmt.Errorf("verify %s: %w", c.group, err))
	}
}

// digest sums up the state as it is right after a record.
func (p *verifyPart) digest(ctx context.Context, n *Node, c *cell, at partition.Index) ([]byte, error) {
	want := newViewAt(at)
	c.ask(want)
	var got viewAnswer
	select {
	case got = <-want.answer:
	case <-ctx.Done():
		want.abandon()
		return nil, ctx.Err()
	}
	if got.err != nil {
		return nil, got.err
	}
	defer got.view.Close()
	p.set(func(w *verifyWord) { w.Phase = verifyReading })
	return p.sumUp(ctx, got.view, n.copies.Pace)
}

// sumUp is the digest of what a state holds of its group: all replicas have the
// same one at the same index. Rows of keys that are no longer the group's are left
// out, for each replica removes them in its own time.
func (p *verifyPart) sumUp(ctx context.Context, state partition.Reader, pace func(context.Context, int) error) ([]byte, error) {
	x, err := replica.ExtentOf(state)
	if err != nil {
		return nil, fmt.Errorf("read extent: %w", err)
	}
	h, unpaid := sha256.New(), 0
	for _, rows := range without(partition.KeyRange{}, replica.Foreign(x)) {
		for pair, err := range state.Scan(rows) {
			if err != nil {
				return nil, err
			}
			addRow(h, pair)
			n := len(pair.Key) + len(pair.Value)
			p.rows.Add(1)
			p.bytes.Add(int64(n))
			if unpaid += n; unpaid >= paceBytes {
				if err := pace(ctx, unpaid); err != nil {
					return nil, err
				}
				unpaid = 0
			}
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	return h.Sum(nil), nil
}

func addRow(h hash.Hash, p partition.Pair) {
	var head [8]byte
	binary.LittleEndian.PutUint32(head[:], uint32(len(p.Key)))
	binary.LittleEndian.PutUint32(head[4:], uint32(len(p.Value)))
	h.Write(head[:])
	h.Write(p.Key)
	h.Write(p.Value)
}

// without returns what is left of a range without others, which are in order.
func without(r partition.KeyRange, others []partition.KeyRange) []partition.KeyRange {
	var left []partition.KeyRange
	for _, o := range others {
		if before := (partition.KeyRange{Lo: r.Lo, Hi: o.Lo}); !before.Empty() && len(o.Lo) > 0 {
			left = append(left, before)
		}
		if len(o.Hi) == 0 {
			return left
		}
		r.Lo = o.Hi
	}
	return append(left, r)
}
