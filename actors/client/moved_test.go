package client

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"pando.dev/pando/partition"
)

// telling has replicas answer with the partitions that they know.
func (c *cluster) telling() {
	c.tells = func(*Request) (nodes []Node, parts []Partition) {
		was := c.routes
		c.publish()
		now := c.routes
		c.routes = was
		return now.Nodes, now.Tables[0].Partitions
	}
}

// TestStaleRoutes covers SPL-5, S7 and PG20: with routes of before a split a command
// takes one hop more, does not ask for routes, and is executed once; what comes
// after it goes the direct way.
func TestStaleRoutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3)
		c.telling()
		stats := &Stats{}
		cfg := c.config()
		cfg.Stats = stats
		cl := c.open(cfg)
		defer cl.Close()
		ctx := within(t, time.Minute)
		if _, err := cl.Propose(ctx, "t", []byte("a"), []byte("first")); err != nil {
			t.Fatal(err)
		}
		var asked int
		c.with(func() {
			c.split(1, "m", c.groups[1].members, "n2") // and the catalog has not heard of it
			asked = c.asked
		})
		before := stats.Attempts.Load()
		if _, err := cl.Propose(ctx, "t", []byte("x"), []byte("second")); err != nil {
			t.Fatal(err)
		}
		// To the parent, to the child for a session, to the child.
		if n := stats.Attempts.Load() - before; n != 3 {
			t.Errorf("%d requests for a command with old routes", n)
		}
		before = stats.Attempts.Load()
		for _, key := range []string{"y", "b"} {
			if _, err := cl.Propose(ctx, "t", []byte(key), []byte(key)); err != nil {
				t.Fatal(err)
			}
		}
		if n := stats.Attempts.Load() - before; n != 2 {
			t.Errorf("%d requests for two commands with new routes", n)
		}
		if r, err := cl.Read(ctx, "t", []byte("z"), []byte("q"), ReadOptions{}); err != nil || r.Group != 2 {
			t.Errorf("read: %+v, %v", r, err)
		}
		c.with(func() {
			if c.asked != asked {
				t.Errorf("the routes were asked for %d times", c.asked-asked)
			}
			for _, body := range []string{"first", "second", "y", "b"} {
				if c.executed[body] != 1 {
					t.Errorf("%s was executed %d times", body, c.executed[body])
				}
			}
		})
	})
}

// TestSplitUnderLostAnswer: a command that was executed by the parent before the
// split, and whose answer was lost, is answered by the child and not executed
// again.
func TestSplitUnderLostAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3)
		c.telling()
		cl := c.open(c.config())
		defer cl.Close()
		ctx := within(t, time.Minute)
		if _, err := cl.Propose(ctx, "t", []byte("a"), []byte("first")); err != nil {
			t.Fatal(err)
		}
		once := false
		c.with(func() {
			c.fault = func(n *fakeNode, r *Request) (f fault) {
				if string(r.Body) == "second" && !once {
					once = true
					f.kill = true
				}
				if string(r.Body) == "second" && r.Group == 1 && len(c.groups) == 1 {
					// Executed, and then divided, before the answer is lost.
					defer c.split(1, "m", c.groups[1].members, "n2")
					f.kill = false
					resp := c.execute(n, r, fault{})
					if resp.Code != 0 {
						t.Errorf("%+v", resp)
					}
					n.kill()
					f.dropped = true
				}
				return f
			}
		})
		r, err := cl.Propose(ctx, "t", []byte("x"), []byte("second"))
		if err != nil || string(r.Body) != "second#1" || r.Group != 2 {
			t.Errorf("%+v, %v", r, err)
		}
		c.with(func() {
			if c.executed["second"] != 1 {
				t.Errorf("executed %d times", c.executed["second"])
			}
		})
	})
}

// TestNeverAnOlderVersion (S7): the catalog's routes of before a split do not take back
// what a replica has told, and those of after do.
func TestNeverAnOlderVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3)
		c.telling()
		cl := c.open(c.config())
		defer cl.Close()
		ctx := within(t, time.Minute)
		c.with(func() { c.split(1, "m", c.groups[1].members, "n2") })
		if _, err := cl.Propose(ctx, "t", []byte("x"), []byte("x")); err != nil {
			t.Fatal(err)
		}
		c.with(func() { // an address has changed, and the split is not known yet
			r := *c.routes
			r.Version++
			c.routes = &r
		})
		if err := cl.Refresh(ctx); err != nil {
			t.Fatal(err)
		}
		if p := cl.Routes().Table("t").Partition([]byte("x")); p.Group != 2 || p.RangeVersion != 2 {
			t.Errorf("taken back to %+v", p)
		}
		c.with(func() {
			c.split(2, "r", c.groups[1].members, "n3")
			c.publish()
		})
		if err := cl.Refresh(ctx); err != nil {
			t.Fatal(err)
		}
		if p := cl.Routes().Table("t").Partition([]byte("x")); p.Group != 3 {
			t.Errorf("what is newer was not taken: %+v", p)
		}
		cl.mu.Lock()
		defer cl.mu.Unlock()
		if len(cl.learned) != 0 {
			t.Errorf("still remembered: %+v", cl.learned)
		}
	})
}

// TestSplice: a partition takes the place of older ones, in every position.
func TestSplice(t *testing.T) {
	part := func(g int, lo, hi string, v int) Partition {
		return Partition{Group: partition.GroupID(g), Lo: []byte(lo), Hi: []byte(hi), RangeVersion: partition.RangeVersion(v)}
	}
	show := func(all []Partition) (s string) {
		for _, p := range all {
			s += fmt.Sprintf("g%d v%d [%s,%s) ", p.Group, p.RangeVersion, p.Lo, p.Hi)
		}
		return s
	}
	two := []Partition{part(1, "", "m", 3), part(2, "m", "", 1)}
	for _, x := range []struct {
		p    Partition
		want string
	}{
		{part(3, "f", "m", 5), "g1 v3 [,f) g3 v5 [f,m) g2 v1 [m,) "},
		{part(1, "", "f", 5), "g1 v5 [,f) g1 v3 [f,m) g2 v1 [m,) "},
		{part(3, "c", "f", 5), "g1 v3 [,c) g3 v5 [c,f) g1 v3 [f,m) g2 v1 [m,) "},
		{part(3, "f", "q", 5), "g1 v3 [,f) g3 v5 [f,q) g2 v1 [q,) "},
		{part(3, "", "", 5), "g3 v5 [,) "},
		{part(3, "f", "m", 3), ""}, // not newer
		{part(3, "f", "q", 2), ""}, // newer than one of two
		{part(2, "m", "", 1), ""},  // known
	} {
		if got := show(splice(two, &x.p)); got != x.want {
			t.Errorf("%s into it: %q, want %q", show([]Partition{x.p}), got, x.want)
		}
	}
}

// TestMovedFromOutside: what is cut short or has numbers that lead nowhere is
// refused, whatever the byte.
func TestMovedFromOutside(t *testing.T) {
	nodes := []Node{{ID: "n1", Addr: "n1:1"}, {ID: "n2", Addr: "n2:1", Zone: "z"}, {ID: "n3", Addr: "n3:1"}}
	parts := []Partition{
		{Group: 1, Hi: []byte("m"), RangeVersion: 5, Members: []partition.NodeID{"n1", "n2"}, Master: "n1"},
		{Group: 2, Lo: []byte("m"), RangeVersion: 5, Members: []partition.NodeID{"n2"}, Resting: []partition.NodeID{"n1"}},
	}
	b := Moved(partition.ErrWrongGroup, nodes, parts).Body
	n, p, err := parseMoved(b)
	if err != nil || len(n) != 2 || fmt.Sprint(p) != fmt.Sprint(parts) {
		t.Fatalf("%+v, %+v, %v", n, p, err)
	}
	for i := range b {
		if _, _, err := parseMoved(b[:i]); err == nil {
			t.Errorf("cut at %d and accepted", i)
		}
		for _, with := range []byte{0, 0x7f, 0xff} {
			bad := append([]byte{}, b...)
			bad[i] = with
			_, _, _ = parseMoved(bad) // must not panic
		}
	}
}
