package replica

import (
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
