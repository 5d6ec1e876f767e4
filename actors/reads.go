package actors

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"pando.dev/pando/actors/client"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/lease"
)

// Reads that need no master: any full replica answers them from its state, if
// that reflects enough. What is enough is an index (session, stale with a least
// index) or evidence (stale with a greatest age): an index of which the master
// said, at a time that this node knows by its own clock, that no write beyond it
// was acknowledged then.
//
//	          reflects enough
//	arrives ------------------------------------------> answered
//	   |  ^  ^                                             ^
//	   |  |  `-- the master's word came -- waits for it    | the state got there
//	   |  `----- its evidence is too old -- waits for an index
//	   `---------------------------------------------------> refused: behind
//
// Waiting is bounded in time and number. It costs no goroutine, and a group
// whose reads do not wait has neither a timer nor a message.
const (
	// longestHold bounds how long a read waits for a state that reflects enough.
	// It is also bounded by half of the time that the client waits for this
	// answer, so that the client can ask another replica with the other half.
	longestHold = time.Second
	// indexWait bounds one question to the master.
	indexWait = 500 * time.Millisecond
	// maxAsks is for how many answers of the master one read waits. The first
	// may have been asked for long before the read came.
	maxAsks = 2
	// maxHeld and maxHeldBytes bound the reads of one replica that wait.
	maxHeld      = 1024
	maxHeldBytes = 8 << 20
)

// levelIndex is the level of a read that only wants the index that the state
// reflects. It never comes from outside.
const levelIndex client.Level = 255

// aged is how old something is that happened d ago by this node's clock, at
// most: the clock may run slow, and that of whoever judges fast.
func aged(d partition.Time) time.Duration {
	return d + d/(1_000_000/(2*lease.DefaultDriftPPM)) + 1
}

// youngUntil is the time until which aged stays within the bound.
func youngUntil(at partition.Time, bound time.Duration) partition.Time {
	return at + bound - bound/(1_000_000/(2*lease.DefaultDriftPPM)) - 1
}

// heldRead is one read of level session or stale. Whoever has it may go on with
// it: the goroutine that brought it, then, if it waits, whoever takes it out of
// its state's held reads.
type heldRead struct {
	node  *Node
	cell  *cell
	st    *openState
	req   *client.Request
	reply func(*client.Response)
	until partition.Time // it is answered or refused by then
	asks  int            // answers of the master that it waited for

	// Guarded by the held reads it is in.
	need  partition.Index // what it waits for; wordOfMaster: for that
	timer *time.Timer
}

// readAnywhere answers a read that any full replica may answer.
func (b backend) readAnywhere(c *cell, req *client.Request, reply func(*client.Response)) {
	st := c.state.Load()
	if err := c.shows(st); err != nil {
		reply(client.ErrorResponse(err))
		return
	}
	wait := longestHold
	if req.TimeoutMS > 0 {
		wait = min(wait, time.Duration(req.TimeoutMS)*time.Millisecond/2)
	}
	h := &heldRead{node: b.node, cell: c, st: st, req: req, reply: reply, until: b.node.now() + wait}
	h.step()
}

// shows says why the replica does not answer reads of its own state, if it does
// not: a log replica has none. A learner does, once it has one, and so does one in
// maintenance: its state is as good as any.
func (c *cell) shows(st *openState) *partition.Error {
	v := c.view.Load()
	if v == nil || st == nil {
		if b := c.broken.Load(); b != nil {
			return b
		}
		return partition.Errorf(partition.CodeUnavailable, "group %s is being opened on this node", c.group)
	}
	if m, ok := v.Configurations.Member(v.Self); !ok || m.Kind == partition.LogReplica {
		return partition.Errorf(partition.CodeUnavailable, "the replica of %s on this node has no part in reads", c.group)
	}
	return nil
}

// step answers the read, refuses it, or lets it wait for what it lacks.
func (h *heldRead) step() {
	for {
		need, ev := h.req.MinIndex, h.evidence()
		expires := h.until
		if h.req.MaxAge > 0 {
			if !h.young(ev) {
				h.ask()
				return
			}
			need = max(need, ev.index)
			expires = min(expires, youngUntil(ev.at, h.req.MaxAge))
		}
		if need > h.st.held.index() && !h.node.hearsMaster(h.cell) {
			// What is missing will not come soon, and other replicas may have it.
			h.behind("it does not reach the master")
			return
		}
		waits, err := h.st.held.wait(h, need, expires)
		if err != nil {
			h.refuse(err)
		}
		if waits || err != nil {
			return
		}
		if h.req.MinIndex+partition.Index(h.req.MaxAge) > 0 && h.cell.sealed(h.req) {
			h.behind("the keys are about to move") // where they go there may be newer writes before this state shows it
			return
		}
		res := h.node.read(h.cell, h.st, h.req)
		if res.Code == 0 && h.req.MaxAge > 0 && !h.young(ev) {
			continue // reading took too long for it
		}
		if res.Code == 0 {
			h.count()
			if ev.known {
				res.Age, res.AgeKnown = aged(h.node.now()-ev.at), true
			}
		}
		h.reply(res)
		return
	}
}

// evidence is that of this replica itself, if it is master under a lease; else
// the master's word that the state reflects, if that is young enough for the
// read; else the master's last word.
func (h *heldRead) evidence() evidence {
	if ev, ok := h.node.ownEvidence(h.cell, h.st); ok {
		h.st.held.note(ev)
		return ev
	}
	if ev := h.st.held.evidence(true); h.req.MaxAge == 0 || h.young(ev) {
		return ev
	}
	return h.st.held.evidence(false)
}

func (h *heldRead) young(ev evidence) bool {
	return ev.known && h.node.now() <= youngUntil(ev.at, h.req.MaxAge)
}

// hearsMaster reports whether the replica's node can get newer records, as far as
// it knows. A master without a lease may have been replaced.
func (n *Node) hearsMaster(c *cell) bool {
	v := c.view.Load()
	if v != nil && v.Master == v.Self {
		return n.now() < v.LeaseEnd(n.leases)
	}
	m := c.master()
	return m != "" && n.neighbours.Reachable(m)
}

// ask lets the read wait for the master's word, and asks for it if nobody has.
func (h *heldRead) ask() {
	if h.asks == maxAsks || h.node.now() >= h.until {
		h.behind(fmt.Sprintf("the master's word came, and reached this state, later than the %s that the read allows", h.req.MaxAge))
		return
	}
	h.asks++
	fly, err := h.st.held.waitForWord(h)
	switch {
	case err != nil:
		h.refuse(err)
	case fly:
		h.node.askMaster(h.cell, h.st)
	}
}

// expired goes on with a read whose wait is over without what it waited for.
func (h *heldRead) expired(need partition.Index) {
	switch {
	case h.node.now() < h.until: // its evidence grew too old
		h.step()
	case need == wordOfMaster:
		h.behind("the master does not answer in time")
	default:
		h.behind(fmt.Sprintf("record %d is not applied in time", need))
	}
}

// behind refuses the read because of the replica's state, and says what is known
// of it.
func (h *heldRead) behind(why string) {
	h.node.counters.readsBehind.Add(1)
	text := fmt.Sprintf("%s: node %s shows group %s at record %d", why, h.node.ID(), h.cell.group, h.st.held.index())
	if ev := h.st.held.evidence(true); ev.known {
		text += fmt.Sprintf(", at most %s old", aged(h.node.now()-ev.at).Round(time.Millisecond))
	} else {
		text += ", how old is not known"
	}
	h.refuse(&partition.Error{Code: partition.CodeBehind, Why: text, Master: h.cell.master()})
}

func (h *heldRead) refuse(err *partition.Error) { h.reply(client.ErrorResponse(err)) }

func (h *heldRead) count() {
	if h.req.Level == client.Session {
		h.node.counters.sessionReads.Add(1)
	} else {
		h.node.counters.staleReads.Add(1)
	}
}

// ownEvidence is that of a master with a lease, which needs nobody: the index is
// taken first and the lease checked after, as for any read under it.
func (n *Node) ownEvidence(c *cell, st *openState) (evidence, bool) {
	at, v := n.now(), c.view.Load()
	if v == nil || !v.Serving {
		return evidence{}, false
	}
	index := st.held.index() // not behind any record that was acknowledged
	after := c.view.Load()
	if after == nil || after.Epoch != v.Epoch || n.now() >= after.LeaseEnd(n.leases) {
		return evidence{}, false
	}
	return evidence{index: index, at: at, known: true}, true
}

// askMaster gets the master's word for all reads of the state that wait for it.
// The time counts from before the question.
func (n *Node) askMaster(c *cell, st *openState) {
	at := n.now()
	landed := func(index partition.Index, err error) {
		for _, h := range st.held.landed(evidence{index: index, at: at, known: err == nil}) {
			if err != nil {
				h.behind(fmt.Sprintf("how new it is cannot be learned (%v)", err))
			} else {
				h.step()
			}
		}
	}
	master := c.master()
	if master == "" {
		landed(0, c.notMaster())
		return
	}
	n.counters.indexAsked.Add(1)
	n.background.Go(func() {
		ctx, cancel := context.WithTimeout(n.ctx, indexWait)
		defer cancel()
		landed(n.indexAt(ctx, c.group, master))
	})
}

// indexAt returns an index of which the master of a group says that no write
// beyond it was acknowledged before it was asked.
func (n *Node) indexAt(ctx context.Context, g partition.GroupID, master partition.NodeID) (partition.Index, error) {
	if master == n.ID() {
		return n.masterIndex(ctx, g)
	}
	answer, err := n.call(ctx, master, callIndex, binary.BigEndian.AppendUint64(nil, uint64(g)))
	if err != nil {
		return 0, err
	}
	if len(answer) != 8 {
		return 0, partition.Errorf(partition.CodeCorrupt, "node %s answers with %d bytes, expected 8", master, len(answer))
	}
	return partition.Index(binary.BigEndian.Uint64(answer)), nil
}

// serveIndex answers indexAt of another node.
func (n *Node) serveIndex(ctx context.Context, body []byte) ([]byte, error) {
	if len(body) != 8 {
		return nil, partition.Errorf(partition.CodeInvalid, "a question for an index of %d bytes, expected 8", len(body))
	}
	index, err := n.masterIndex(ctx, partition.GroupID(binary.BigEndian.Uint64(body)))
	if err != nil {
		return nil, err
	}
	return binary.BigEndian.AppendUint64(nil, uint64(index)), nil
}

// masterIndex is indexAt on the master: under its lease at once, else after a
// round among the members.
func (n *Node) masterIndex(ctx context.Context, g partition.GroupID) (partition.Index, error) {
	c := n.cells.get(g)
	if c == nil {
		return 0, partition.Errorf(partition.CodeNotFound, "node %s has no replica of group %s", n.ID(), g)
	}
	st, v := c.state.Load(), c.view.Load()
	if st == nil || v == nil || !v.Serving {
		return 0, c.notMaster()
	}
	if ev, ok := n.ownEvidence(c, st); ok {
		return ev.index, nil
	}
	n.counters.quorumReads.Add(1)
	answer := make(chan client.Response, 1)
	ask := &indexedRead{
		req:   &client.Request{Op: client.OpRead, Level: levelIndex, Group: g},
		reply: func(r *client.Response) { answer <- *r },
	}
	if !c.box.TryPost(ask, 0) {
		n.counters.busy.Add(1)
		return 0, partition.Errorf(partition.CodeBusy, "the queue of group %s is full", g)
	}
	select {
	case r := <-answer:
		if err := r.Err(); err != nil {
			return 0, err
		}
		return r.Index, nil
	case <-ctx.Done():
		return 0, partition.Errorf(partition.CodeTimeout, "the members of %s do not confirm in time", g)
	}
}
