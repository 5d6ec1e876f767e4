package replica

import (
	"fmt"
	"slices"
	"time"

	"pando.dev/pando/partition"
)

// client executes one operation after another in a session and retries until
// it knows the outcome.
type client struct {
	s       *schedule
	session partition.SessionID
	seq     uint64
	busy    bool
}

// runClients lets every client that is idle start its next operation.
func (s *schedule) runClients() {
	for _, c := range s.clients {
		c.next()
	}
}

func (c *client) next() {
	if c.busy {
		return
	}
	c.busy = true
	if c.session == (partition.SessionID{}) {
		c.open()
		return
	}
	c.seq++
	c.s.nextOp++
	c.try(c.s.nextOp, c.seq)
}

func (c *client) later(do func()) {
	c.s.w.after(c.s.w.between(time.Millisecond, 60*time.Millisecond), do)
}

func (c *client) open() {
	n := c.s.target()
	if !n.up || n.paused {
		c.later(c.open)
		return
	}
	c.s.w.check.propose(n, &op{opens: true, done: func(r *Reply, res Result) {
		if r.Err != nil {
			c.later(c.open)
			return
		}
		c.session, c.seq, c.busy = res.Session, 0, false
	}}, partition.KindSession, AppendOpenSession(nil))
}

func (c *client) try(id, seq uint64) {
	n := c.s.target()
	if !n.up || n.paused {
		c.later(func() { c.try(id, seq) })
		return
	}
	ck := c.s.w.check
	ck.write(n, &op{id: id, session: c.session, seq: seq, done: func(r *Reply, res Result) {
		switch {
		case r.Err != nil:
			ck.retries++
			c.later(func() { c.try(id, seq) })
		case res.Err != nil && res.Err.Code == partition.CodeSessionExpired:
			c.session, c.busy = partition.SessionID{}, false
		case res.Err != nil:
			ck.violated("operation %d gives %v", id, res.Err)
		default:
			c.busy = false
			if c.s.rng.IntN(20) == 0 {
				// A late retry of what has succeeded: it must give the same.
				session := c.session // by then there may be another
				c.later(func() {
					if m := c.s.w.master(); m != nil {
						ck.write(m, &op{id: id, session: session, seq: seq})
					}
				})
			}
		}
	}})
}

// reconfigure proposes a random change of the group at its master.
func (s *schedule) reconfigure() {
	m := s.w.master()
	if m == nil || len(m.rep.mastery.proposed) > 0 {
		return
	}
	last := m.rep.log.configs[len(m.rep.log.configs)-1]
	if last.Index > m.rep.commit || m.rep.commit < m.rep.mastery.first {
		return
	}
	c := *last.Membership
	c.Version++
	c.Members = slices.Clone(c.Members)
	i := s.p.pick(len(c.Members))
	kind := partition.KindMember
	switch s.p.pick(7) {
	case 0, 1:
		c.Members[i].Eligible = !c.Members[i].Eligible
		kind = partition.KindMode
	case 2:
		c.Members = slices.Delete(c.Members, i, i+1)
	case 3:
		c.Members[i].Weight = uint8(1 + s.p.pick(3))
	case 4:
		c.Policy = s.drawPolicy()
	case 5:
		if c.Members[i].Kind == partition.Learner {
			c.Members[i].Kind = partition.Full
		} else {
			c.Members[i].Kind = partition.LogReplica
		}
	case 6:
		if len(s.w.nodes) >= 7 || s.w.check.truncated {
			return
		}
		name := partition.NodeID(fmt.Sprintf("n%d", len(s.w.nodes)+1))
		n := s.w.addNode(name, s.w.check.committed[0])
		n.boots()
		kind := []partition.MemberKind{partition.Learner, partition.Learner, partition.Full}[s.p.pick(3)]
		c.Members = append(c.Members, partition.Member{
			Replica: n.id, Node: name, Zone: "x", Kind: kind, Eligible: true,
		})
		c.Next = n.id + 1
	}
	if c.Validate() != nil {
		return
	}
	m.reconfigure(kind, &c)
}

func (n *node) reconfigure(kind partition.Kind, c *partition.Membership) {
	payload, err := c.AppendBinary(nil)
	if err != nil {
		panic(err)
	}
	ck := n.w.check
	ck.nextID++
	ck.ops[ck.nextID] = &op{opens: true, node: n, floor: ck.floor}
	n.rep.mastery.proposed = append(n.rep.mastery.proposed, Proposal{ID: ck.nextID, Kind: kind, Payload: payload})
	n.take(Propose{})
}
