package actors

import (
	"time"

	"pando.dev/pando/actors/client"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

const (
	// holdWait bounds how long a request is held; then it is refused, and nothing
	// was done. A split undoes its seal long before.
	holdWait = 200 * time.Millisecond
	// holdLife bounds a hold of which nothing is sealed: whoever asked for it may be
	// gone.
	holdLife = 500 * time.Millisecond
	// maxHolding and maxHoldingBytes bound the requests of one replica that are held.
	maxHolding      = 4096
	maxHoldingBytes = 16 << 20
)

// hold is what a master keeps out of the log because it is about to leave the
// group. It is immutable.
//
// It begins in the order of the mailbox: what came before is in the log before the
// Seal, what comes later waits for the outcome. Reads under a lease, which do not
// come through the mailbox, look at it before and after.
type hold struct {
	since  partition.Time
	ranges []partition.KeyRange
}

func rangesOf(children []partition.Child) (all []partition.KeyRange) {
	for i := range children {
		all = append(all, children[i].Range)
	}
	return all
}

// touches reports whether a request may touch one of the ranges.
func touches(req *client.Request, ranges []partition.KeyRange) bool {
	for _, r := range ranges {
		if r.Contains(req.Key) || req.Op == client.OpRead && req.Wide && (len(r.Hi) == 0 || string(req.Key) < string(r.Hi)) {
			return true
		}
	}
	return false
}

// holds reports whether a request has to wait for the outcome of a split.
func (c *cell) holds(req *client.Request) bool {
	if req.Op == client.OpOpenSession {
		x, ok := c.served()
		return ok && x.IsSource()
	}
	if h := c.hold.Load(); h != nil && touches(req, h.ranges) {
		return true
	}
	return c.sealed(req)
}

// sealed reports whether a request touches what a split has sealed, as of the state.
func (c *cell) sealed(req *client.Request) bool {
	x, ok := c.served()
	switch {
	case !ok:
		return false
	case x.IsSource():
		return true
	}
	return x.Split != nil && x.Split.Phase == partition.Sealed && touches(req, rangesOf(x.Split.Children))
}

type (
	// beginHold has the replica hold what leaves; done is called once, on the actor.
	beginHold struct {
		ranges []partition.KeyRange
		done   func(error)
	}
	// endHold lets go of what was held.
	endHold struct{}
	// holdTick looks at what was held for too long.
	holdTick struct{ incarnation uint64 }
	// structural is a record of a split to be put into the log; done is called once,
	// when it was applied or will not be, or when nobody knows.
	structural struct {
		kind    partition.Kind
		payload []byte
		epoch   partition.Epoch // in which it was decided; 0: whichever
		done    func(partition.Index, error)
	}
	// holding is a request that is held.
	holding struct {
		item any // *proposal or *indexedRead
		at   partition.Time
		size int
	}
)

// splits takes what a split asks of the replica.
func (a *replicaActor) splits(item any) {
	switch m := item.(type) {
	case *structural:
		a.structure(m)
	case *beginHold:
		a.holdNow(m)
	case endHold:
		if x, ok := a.cell.served(); !ok || !a.node.comes(x, a.cell.hold.Load()) {
			a.release()
		}
	case holdTick:
		if m.incarnation == a.incarnation {
			a.holdTicked()
		}
	}
}

// admit reports whether a request may go on now. If not it was answered, or is held
// and goes on later.
func (a *replicaActor) admit(item any, req *client.Request, reply func(*client.Response)) bool {
	if req.Level == levelIndex && req.Op == client.OpRead {
		return true // it is for no key
	}
	if err := a.cell.check(req); err != nil {
		reply(a.node.refuse(a.cell, req, err))
		return false
	}
	if !a.cell.holds(req) {
		return true
	}
	size := len(req.Key) + len(req.Body)
	if len(a.holding) >= maxHolding || a.holdingBytes+size > maxHoldingBytes && a.holdingBytes > 0 {
		a.node.counters.busy.Add(1)
		reply(client.ErrorResponse(partition.Errorf(partition.CodeBusy, "%d requests wait for the outcome of a split of group %s, limit %d", len(a.holding), a.cell.group, maxHolding)))
		return false
	}
	a.holding = append(a.holding, holding{item: item, at: a.node.now(), size: size})
	a.holdingBytes += size
	a.tickHold()
	return false
}

// tickHold has holdTick come, if it is not on its way.
func (a *replicaActor) tickHold() {
	if a.ticking {
		return
	}
	a.ticking = true
	inc, box := a.incarnation, a.box
	time.AfterFunc(holdWait/4, func() { box.PostUserMessage(holdTick{inc}) })
}

// holdTicked refuses what was held for too long, and ends a hold that nobody ends.
func (a *replicaActor) holdTicked() {
	a.ticking = false
	now := a.node.now()
	if x, ok := a.cell.served(); ok && x.Split != nil && x.Split.Phase == partition.Activated {
		a.again()
	}
	n := 0
	for n < len(a.holding) && now-a.holding[n].at >= holdWait {
		a.holdingBytes -= a.holding[n].size
		refuseItem(a.holding[n].item, partition.Errorf(partition.CodeBusy, "the keys are about to move to another group"))
		n++
	}
	a.holding = append(a.holding[:0], a.holding[n:]...)
	h := a.cell.hold.Load()
	if x, ok := a.cell.served(); h != nil && now-h.since >= holdLife && (!ok || x.Split == nil || x.Split.Phase != partition.Sealed) {
		a.node.logger.Warn("a hold that nobody ends is over", "group", a.cell.group)
		a.release()
	}
	if len(a.holding) > 0 || a.cell.hold.Load() != nil {
		a.tickHold()
	}
}

// holdNow begins a hold: from here on what leaves stays out of the log.
func (a *replicaActor) holdNow(m *beginHold) {
	v := a.cell.view.Load()
	if v == nil || !v.Serving {
		m.done(a.cell.notMaster())
		return
	}
	a.flushProposals()
	a.cell.hold.Store(&hold{since: a.node.now(), ranges: m.ranges})
	a.tickHold()
	m.done(nil)
}

// release ends a hold, and goes on with what was held.
func (a *replicaActor) release() {
	a.cell.hold.Store(nil)
	a.again()
}

// again goes on with what was held, in order. What has to wait still is held again.
func (a *replicaActor) again() {
	x, ok := a.cell.served()
	if ok && (x.IsSource() || x.Split != nil && x.Split.Phase == partition.Activated && !a.node.comes(x, a.cell.hold.Load())) {
		a.cell.hold.Store(nil) // the keys are the children's, or the state holds them
	}
	if a.cell.hold.Load() != nil {
		return
	}
	held := a.holding
	a.holding, a.holdingBytes = nil, 0
	for _, h := range held {
		a.box.PostUserMessage(h.item)
	}
}

// comes reports whether what was held is to wait on although it has gone to a child,
// since that one's first master is to be here and does not serve yet: whoever is sent
// there too early has to come again. The child's replica says when it serves.
func (n *Node) comes(x *partition.Extent, h *hold) bool {
	if h == nil || x.Split == nil || x.Split.Phase != partition.Activated || n.now() >= h.since+holdWait {
		return false
	}
	for i := range x.Split.Children {
		child := &x.Split.Children[i]
		if m, _ := child.Membership.Member(child.First); m.Node != n.ID() {
			continue
		}
		c := n.cells.get(child.Group)
		if c == nil {
			return true
		}
		if v := c.view.Load(); v == nil || v.Master == 0 {
			return true
		} else if v.Master == v.Self && !v.Serving {
			return true
		}
	}
	return false
}

// arrived tells the parent's replica here that a child serves.
func (n *Node) arrived(child *cell) {
	if x, ok := child.served(); ok && x.Parent != 0 {
		if c := n.cells.get(x.Parent); c != nil && c.hold.Load() != nil {
			c.box.PostUserMessage(endHold{})
		}
	}
}

// dropHolding refuses all that is held: nothing of it is in the log.
func (a *replicaActor) dropHolding(why *partition.Error) {
	a.cell.hold.Store(nil)
	for _, h := range a.holding {
		refuseItem(h.item, why)
	}
	a.holding, a.holdingBytes = nil, 0
}

// structure puts a record of a split into the log, behind everything that came
// before.
func (a *replicaActor) structure(m *structural) {
	if err := decodable(m); err != nil {
		m.done(0, err)
		return
	}
	if v := a.cell.view.Load(); m.epoch != 0 && (v == nil || v.Epoch != m.epoch) {
		m.done(0, a.cell.notMaster())
		return
	}
	a.flushProposals()
	id := a.remember(call{done: m.done})
	a.proposals = append(a.proposals, replica.Proposal{ID: id, Kind: m.kind, Payload: m.payload})
	a.flushProposals()
}

// decodable refuses what no replica could apply: in the log it would have every
// member refuse it, or stop at it.
func decodable(m *structural) error {
	switch m.kind {
	case partition.KindIntent:
		return new(partition.Intent).UnmarshalBinary(m.payload)
	case partition.KindMergeIntent:
		return new(partition.MergeIntent).UnmarshalBinary(m.payload)
	case partition.KindSourceSeal:
		return new(partition.SourceSeal).UnmarshalBinary(m.payload)
	case partition.KindAbsorb:
		return new(partition.Absorb).UnmarshalBinary(m.payload)
	case partition.KindMerging:
		return new(partition.Merging).UnmarshalBinary(m.payload)
	}
	return new(partition.Decision).UnmarshalBinary(m.payload)
}
