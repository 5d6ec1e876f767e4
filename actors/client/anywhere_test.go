package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pando.dev/pando/partition"
)

// readAt reads key "a" and fails the test on an error.
func readAt(t *testing.T, cl *Client, o ReadOptions) Result {
	t.Helper()
	r, err := cl.Read(within(t, time.Minute), "t", []byte("a"), nil, o)
	if err != nil {
		t.Fatalf("read with %+v: %v", o, err)
	}
	return r
}

// TestSessionSeesItsOwn: with replicas that lag by anything, a Session read
// under one Seen never shows less than what was written and read under it
// before, whoever answers. The same holds for the token that is handed on.
func TestSessionSeesItsOwn(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster, cl *Client) {
		rng := rand.New(rand.NewPCG(1, 2))
		other := c.open(c.config())
		defer other.Close()
		seen := new(Seen)
		var last partition.Index
		for i := range 400 {
			c.with(func() {
				for _, id := range []partition.NodeID{"n2", "n3"} { // n1 is master
					c.nodes[id].lag = partition.Index(rng.IntN(5))
				}
			})
			switch rng.IntN(3) {
			case 0:
				mustPropose(t, other, "a", fmt.Sprint("o", i)) // may be seen, need not
			case 1:
				last = max(last, mustPropose(t, cl, "a", fmt.Sprint("w", i)).Index)
				seen.Add(Token{marks: []mark{{1, last}}})
			}
			o := ReadOptions{Level: Session, Seen: seen}
			if rng.IntN(2) == 0 { // as another process would have it
				handed, err := ParseToken(seen.Token().String())
				if err != nil {
					t.Fatal(err)
				}
				o = ReadOptions{Level: Session, Token: handed}
			}
			r := readAt(t, cl, o)
			if r.Index < last || o.Seen != nil && seen.index(1) < r.Index {
				t.Fatalf("step %d: shows %d after %d, seen %d", i, r.Index, last, seen.index(1))
			}
			if o.Seen == nil {
				seen.Add(r.Token())
			}
			last = r.Index
		}
		if n := cl.cfg.Stats.Behind.Load(); n == 0 {
			t.Error("no replica was ever too far behind: the test shows nothing")
		}
	})
}

// TestReadsSpread: the load of reads that anybody may answer goes to all, and
// moves no mastership in the client's mind.
func TestReadsSpread(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster, cl *Client) {
		for range 300 {
			readAt(t, cl, ReadOptions{Level: Stale})
		}
		for i := range 20 {
			readAt(t, cl, ReadOptions{Level: Stale})
			mustPropose(t, cl, "a", fmt.Sprint("still at the master", i))
		}
		if n := cl.cfg.Stats.Redirects.Load(); n != 0 {
			t.Errorf("%d redirects of writes after stale reads", n)
		}
		c.with(func() {
			for id, n := range c.nodes {
				if n.reads < 60 {
					t.Errorf("%s has answered %d of 300 reads", id, n.reads)
				}
			}
		})
	})
}

// TestReadsNearest: a replica in the client's zone is asked as long as it can
// be reached, one in maintenance only when no other answers.
func TestReadsNearest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 4)
		for i, zone := range []string{"a", "b", "c", "b"} {
			c.nodes[partition.NodeID(fmt.Sprint("n", i+1))].zone = zone
		}
		g := c.groups[1]
		g.members, g.resting = g.members[:3], g.members[3:] // n4 is nearest, and in maintenance
		c.publish()
		cfg := c.config()
		cfg.Zone = "b"
		cl := c.open(cfg)
		defer cl.Close()
		count := func(want map[partition.NodeID]bool) {
			t.Helper()
			before := map[partition.NodeID]int{}
			c.with(func() {
				for id, n := range c.nodes {
					before[id] = n.reads
				}
			})
			for range 50 {
				readAt(t, cl, ReadOptions{Level: Stale})
			}
			c.with(func() {
				for id, n := range c.nodes {
					if got := n.reads - before[id]; (got > 0) != want[id] {
						t.Errorf("%s was asked %d times, want any: %v", id, got, want[id])
					}
				}
			})
		}
		count(map[partition.NodeID]bool{"n2": true})
		c.crash("n2", "")
		count(map[partition.NodeID]bool{"n1": true, "n3": true})
		c.crash("n1", "")
		c.crash("n3", "")
		count(map[partition.NodeID]bool{"n4": true})
	})
}

// TestBehindAsksTheMaster: replicas that are too far behind cost two tries, then
// the master is asked, however many there are.
func TestBehindAsksTheMaster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 7)
		cl := c.open(c.config())
		defer cl.Close()
		mustPropose(t, cl, "a", "x")
		c.with(func() {
			for id, n := range c.nodes {
				if id != "n1" {
					n.lag = 2
				}
			}
		})
		for i := range 50 {
			before, began := cl.cfg.Stats.Attempts.Load(), time.Now()
			r := readAt(t, cl, ReadOptions{Level: Stale, MaxAge: time.Millisecond})
			if n := cl.cfg.Stats.Attempts.Load() - before; n > 3 || !r.AgeKnown || r.Age != 0 {
				t.Fatalf("read %d: %d attempts, %+v", i, n, r)
			}
			if d := time.Since(began); d != 0 {
				t.Fatalf("read %d waited %s before it asked the next", i, d)
			}
		}
	})
}

// TestBehindEverywhere: a read that nobody can answer in time ends at its
// deadline, with what the replicas know of themselves; one that somebody can
// answer later is answered then.
func TestBehindEverywhere(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster, cl *Client) {
		mustPropose(t, cl, "a", "x")
		c.with(func() {
			for _, n := range c.nodes {
				n.lag = 1
			}
		})
		o := ReadOptions{Level: Stale, MaxAge: time.Microsecond}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		began := time.Now()
		_, err := cl.Read(ctx, "t", []byte("a"), nil, o)
		if !errors.Is(err, partition.ErrBehind) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "is at record") {
			t.Errorf("%v", err)
		}
		if d := time.Since(began); d != 2*time.Second {
			t.Errorf("ended after %s", d)
		}
		if n := cl.cfg.Stats.Attempts.Load(); n > 400 {
			t.Errorf("%d attempts in two seconds", n)
		}
		time.AfterFunc(time.Second, func() { c.with(func() { c.nodes["n3"].lag = 0 }) })
		if r := readAt(t, cl, o); r.Age != 0 {
			t.Errorf("%+v", r)
		}
		if d := time.Since(began); d < 3*time.Second || d > 3200*time.Millisecond {
			t.Errorf("answered after %s", d)
		}
	})
}

// TestStaleWithoutMaster: what needs no master needs none.
func TestStaleWithoutMaster(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster, cl *Client) {
		seen := mustPropose(t, cl, "a", "x").Token()
		c.crash("n1", "")
		for _, o := range []ReadOptions{{Level: Stale}, {Level: Session, Token: seen}} {
			for range 20 {
				readAt(t, cl, o)
			}
		}
	})
}

// TestReplicaGone: a member that has no replica, is stopping or has its queue
// full is passed over at once.
func TestReplicaGone(t *testing.T) {
	for _, code := range []partition.Code{
		partition.CodeNotFound, partition.CodeClosed, partition.CodeBusy, partition.CodeUnavailable, partition.CodeNotMaster,
	} {
		inBubble(t, func(t *testing.T, c *cluster, cl *Client) {
			c.with(func() {
				c.fault = func(n *fakeNode, r *Request) (f fault) {
					if r.Op == OpRead && n.id != "n3" {
						f.before = code
					}
					return f
				}
			})
			began := time.Now()
			for range 20 {
				readAt(t, cl, ReadOptions{Level: Stale})
			}
			if d := time.Since(began); d != 0 {
				t.Errorf("%s: %s for 20 reads", code, d)
			}
		})
	}
}

// TestFrozenReplica: a replica that does not answer costs one attempt's time.
func TestFrozenReplica(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster, cl *Client) {
		c.with(func() {
			c.fault = func(n *fakeNode, r *Request) (f fault) {
				if r.Op == OpRead && n.id == "n2" {
					f.held = time.Hour
				}
				return f
			}
		})
		for range 20 {
			began := time.Now()
			readAt(t, cl, ReadOptions{Level: Session})
			if d := time.Since(began); d > cl.cfg.AttemptTimeout+sweepEvery {
				t.Fatalf("%s", d)
			}
		}
	})
}
