package client

import (
	"testing"
	"testing/synctest"
	"time"

	"pando.dev/pando/partition"
)

// A connection that is dead without this side knowing is replaced.
func TestSilentConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1)
		cl := c.open(c.config())
		defer cl.Close()
		mustPropose(t, cl, "a", "first")
		silent := true
		c.with(func() {
			c.fault = func(n *fakeNode, _ *Request) fault {
				if silent && n.dials == 1 { // only the first connection is dead
					return fault{dropped: true, late: time.Hour}
				}
				return fault{}
			}
		})
		began := time.Now()
		mustPropose(t, cl, "a", "x")
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("took %s", d)
		}
		if c.nodes["n1"].dials != 2 {
			t.Errorf("%d connections", c.nodes["n1"].dials)
		}
		time.Sleep(2 * time.Hour)
	})
}

// The master's machine is gone without a word and hints still name it: calls go
// on as soon as there is another master, and new ones are not held up by the
// dialing to the dead one.
func TestVanishedMaster(t *testing.T) {
	for _, outage := range []time.Duration{100 * time.Millisecond, 1200 * time.Millisecond} {
		inBubble(t, func(t *testing.T, c *cluster, cl *Client) {
			mustPropose(t, cl, "a", "first")
			c.with(func() {
				c.nodes["n1"].black = true
				c.nodes["n1"].kill()
			})
			synctest.Wait() // the client sees that the connection ended
			began := time.Now()
			time.AfterFunc(outage, func() { c.with(func() { c.groups[1].master = "n3" }) })
			goMany(t, cl, 300).wait(t, c)
			if d := time.Since(began); d > outage+300*time.Millisecond {
				t.Errorf("took %s", d)
			}
			began = time.Now()
			mustPropose(t, cl, "a", "x")
			if d := time.Since(began); d > 0 {
				t.Errorf("took %s when all was well", d)
			}
		})
	}
}

// A command that was given up while its connection was being made is never
// sent, as its caller was told.
func TestGivenUpWhileDialing(t *testing.T) {
	for _, wait := range []time.Duration{50 * time.Millisecond, 700 * time.Millisecond} {
		inBubble(t, func(t *testing.T, c *cluster, cl *Client) {
			mustPropose(t, cl, "a", "first")
			c.with(func() {
				for _, n := range c.nodes {
					n.slow = 1900 * time.Millisecond
					n.kill()
				}
			})
			synctest.Wait()
			_, err := cl.Propose(within(t, wait), "t", []byte("a"), []byte("x"))
			wantCode(t, err, partition.CodeTimeout)
			ended := make(chan error, 1)
			cl.Go(within(t, wait), "t", []byte("a"), []byte("y"), func(_ Result, err error) { ended <- err })
			wantCode(t, <-ended, partition.CodeTimeout)
			mustPropose(t, cl, "a", "z")
			if len(c.order) != 2 {
				t.Errorf("executed: %q", c.order)
			}
		})
	}
}

// A number that was meant for a call that has just ended is not lost.
func TestNumberReturns(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster, cl *Client) {
		mustPropose(t, cl, "a", "first")
		g := cl.routing.Load().groups[1].group
		s := g.sessions[0]
		k := &call{c: cl, end: true}
		k.resume(wait{k: k, s: s, seq: s.take()})
		k = &call{c: cl, n: 2}
		k.resume(wait{k: k, n: 1, s: s, seq: s.take()})
		if s.oldest != s.next {
			t.Errorf("oldest outstanding %d, next %d", s.oldest, s.next)
		}
	})
}

// While a group has no master the client asks often enough to find it soon, and
// not more often than its rate, however many calls wait.
func TestSearchRate(t *testing.T) {
	for _, n := range []int{1, 3000} {
		synctest.Test(t, func(t *testing.T) {
			var stats Stats
			c := newCluster(t, 3)
			cfg := c.config()
			cfg.Stats, cfg.MaxSessions = &stats, 64
			cl := c.open(cfg)
			defer cl.Close()
			goMany(t, cl, n).wait(t, c) // opens the sessions
			c.with(func() {
				clear(c.executed)
				c.groups[1].master = ""
			})
			before := stats.Attempts.Load()
			all := goMany(t, cl, n)
			time.Sleep(4 * time.Second)
			tries := stats.Attempts.Load() - before - uint64(n)
			// Each call asks every member at once before it backs off.
			if most := uint64(4*searchRate + 8*n); tries > most || tries < 60 {
				t.Errorf("%d calls: %d tries in 4 s, at most %d wanted", n, tries, most)
			}
			began := time.Now()
			c.with(func() { c.groups[1].master = "n3" })
			all.wait(t, c)
			if d := time.Since(began); d > 110*time.Millisecond {
				t.Errorf("%d calls: the new master was found after %s", n, d)
			}
		})
	}
}

// A cluster that lost count of its routes is believed after a while.
func TestRoutesVersionGoesBack(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster, cl *Client) {
		mustPropose(t, cl, "a", "first")
		c.with(func() {
			c.routes.Version = 100
			r := *c.routes
			c.routes = &r
		})
		if err := cl.Refresh(within(t, time.Second)); err != nil || cl.Routes().Version != 100 {
			t.Fatal(err, cl.Routes().Version)
		}
		c.with(func() {
			c.groups[1].rangeVersion++
			c.publish()
			c.routes.Version = 7
		})
		mustPropose(t, cl, "a", "x")
		if v := cl.Routes().Version; v != 7 {
			t.Errorf("version %d", v)
		}
	})
}

// When the group has forgotten all sessions at once, every command that was not
// under way goes on in new ones.
func TestAllSessionsExpired(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster, cl *Client) {
		goMany(t, cl, 300).wait(t, c)
		c.with(func() {
			for _, g := range c.groups {
				clear(g.sessions)
			}
			clear(c.executed)
		})
		goMany(t, cl, 300).wait(t, c)
	})
}

// A group that takes no session fails those who wait for one with its reason.
func TestNoSession(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster, cl *Client) {
		c.with(func() {
			c.fault = func(_ *fakeNode, r *Request) fault {
				if r.Op == OpOpenSession {
					return fault{before: partition.CodeNoSpace}
				}
				return fault{}
			}
		})
		_, err := cl.Propose(within(t, time.Second), "t", []byte("a"), []byte("x"))
		wantCode(t, err, partition.CodeNoSpace)
	})
}

// A master that has left the group while the client was idle has no replica that
// could say who is master now: it is not asked again and again.
func TestMasterMovedAway(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster, cl *Client) {
		mustPropose(t, cl, "a", "before")
		c.with(func() {
			g := c.groups[1]
			g.members, g.master = []partition.NodeID{"n2", "n3"}, "n3"
			c.publish()
		})
		mustPropose(t, cl, "a", "after")
		c.with(func() { // and where the routes name one that is gone, too
			g := c.groups[1]
			g.members, g.master = []partition.NodeID{"n1", "n2"}, "n3"
			c.publish()
			g.master = "n2"
		})
		mustPropose(t, cl, "a", "at last")
	})
}
