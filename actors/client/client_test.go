package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"pando.dev/pando/partition"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// inBubble runs a test with a cluster and a client under a fake clock. That the
// bubble ends proves that the client leaves no goroutine behind.
func inBubble(t *testing.T, f func(t *testing.T, c *cluster, cl *Client), splits ...string) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, splits...)
		cl := c.open(c.config())
		defer cl.Close()
		f(t, c, cl)
	})
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func mustPropose(t *testing.T, cl *Client, key, body string) Result {
	t.Helper()
	r, err := cl.Propose(within(t, time.Minute), "t", []byte(key), []byte(body))
	if err != nil || string(r.Body) != body+"#1" {
		t.Fatalf("propose %q: %q, %v", body, r.Body, err)
	}
	return r
}

func wantCode(t *testing.T, err error, code partition.Code) {
	t.Helper()
	if partition.CodeOf(err) != code {
		t.Fatalf("got %v, want code %s", err, code)
	}
}

func TestProposeAndRead(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster, cl *Client) {
		if r := mustPropose(t, cl, "a", "one"); r.Group != 1 {
			t.Errorf("key a in group %s", r.Group)
		}
		if r := mustPropose(t, cl, "m", "two"); r.Group != 2 {
			t.Errorf("key m in group %s", r.Group)
		}
		r, err := cl.Read(within(t, time.Second), "t", []byte("a"), []byte("q"), ReadOptions{})
		if err != nil || string(r.Body) != "read:q" {
			t.Fatalf("read: %q, %v", r.Body, err)
		}
		for name, o := range map[string]ReadOptions{
			"unknown level":          {Level: Stale + 1},
			"token with lease":       {Token: r.Token()},
			"index with session":     {Level: Session, MinIndex: 1},
			"age with session":       {Level: Session, MaxAge: time.Second},
			"age with quorum":        {Level: Quorum, MaxAge: time.Second},
			"age before it was born": {Level: Stale, MaxAge: -1},
		} {
			if _, err = cl.Read(t.Context(), "t", []byte("a"), nil, o); !errors.Is(err, partition.ErrInvalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if n := cl.calls.Load(); n != 0 {
			t.Errorf("%d operations in flight after refusals", n)
		}
		_, err = cl.Propose(t.Context(), "none", []byte("a"), nil)
		wantCode(t, err, partition.CodeNoSuchTable)
		_, err = cl.Propose(t.Context(), "t", make([]byte, MaxKeyBytes+1), nil)
		wantCode(t, err, partition.CodeTooLarge)
		_, err = cl.Propose(t.Context(), "t", nil, make([]byte, MaxCommandBytes+1))
		wantCode(t, err, partition.CodeTooLarge)
	}, "m")
}

// Redirects are followed, with a hint, with a wrong one, and without.
func TestRedirect(t *testing.T) {
	for _, hint := range []partition.NodeID{"n3", "n2", "nobody", ""} {
		inBubble(t, func(t *testing.T, c *cluster, cl *Client) {
			c.with(func() {
				c.groups[1].master = "n3"
				c.fault = func(n *fakeNode, r *Request) fault {
					if n.id != "n3" {
						return fault{before: partition.CodeNotMaster, master: hint}
					}
					return fault{}
				}
			})
			mustPropose(t, cl, "a", "one")
		})
	}
}

// A master dies with commands under way: connections break, answers are lost,
// and every command is executed once all the same.
func TestFailover(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster, cl *Client) {
		mustPropose(t, cl, "a", "before")
		n := 0
		c.with(func() {
			c.fault = func(f *fakeNode, r *Request) fault {
				if n++; f.id == "n1" && n > 10 {
					return fault{kill: true}
				}
				return fault{}
			}
		})
		all := goMany(t, cl, 200)
		synctest.Wait()
		c.crash("n1", "")
		began := time.Now()
		time.Sleep(280 * time.Millisecond)
		c.with(func() { c.groups[1].master = "n2" })
		all.wait(t, c)
		if d := time.Since(began); d > 400*time.Millisecond {
			t.Errorf("last command after %s, master back after 280 ms", d)
		}
	})
}

// many are commands given to Go.
type many struct {
	wg  sync.WaitGroup
	mu  sync.Mutex
	err map[string]error
	res map[string]Result
}

func goMany(t *testing.T, cl *Client, n int) *many {
	m := &many{err: map[string]error{}, res: map[string]Result{}}
	for i := range n {
		body := fmt.Sprintf("command %d", i)
		m.wg.Add(1)
		cl.Go(within(t, time.Minute), "t", []byte("a"), []byte(body), func(r Result, err error) {
			defer m.wg.Done()
			m.mu.Lock()
			defer m.mu.Unlock()
			m.err[body], m.res[body] = err, r
		})
	}
	return m
}

// wait checks that all commands succeeded and were executed once.
func (m *many) wait(t *testing.T, c *cluster) {
	t.Helper()
	m.wg.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	for body, err := range m.err {
		if err != nil || c.executed[body] != 1 || string(m.res[body].Body) != body+"#1" {
			t.Errorf("%s: %v, executed %d times, result %q", body, err, c.executed[body], m.res[body].Body)
		}
	}
}

// Commands given to Go are executed in order while nothing goes wrong.
func TestOrder(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster, cl *Client) {
		mustPropose(t, cl, "a", "first")
		goMany(t, cl, 60).wait(t, c)
		for i, body := range c.order[1:] {
			if body != fmt.Sprintf("command %d", i) {
				t.Fatalf("place %d: %s", i, body)
			}
		}
	})
}

// More commands than one session's window take more sessions, up to the limit,
// and the rest waits. The fake fails the test when a number leaves the window.
func TestSessionPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1)
		cfg := c.config()
		cfg.MaxSessions = 3
		cl := c.open(cfg)
		defer cl.Close()
		c.fault = func(*fakeNode, *Request) fault { return fault{late: time.Duration(rand.N(50)) * time.Millisecond} }
		goMany(t, cl, 1000).wait(t, c)
		if c.groups[1].opens != 3 {
			t.Errorf("%d sessions", c.groups[1].opens)
		}
	})
}

// A session that expired before the command was sent costs a new session; one
// that expired after an unknown try ends with CodeUnknown and no execution.
func TestSessionExpired(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster, cl *Client) {
		mustPropose(t, cl, "a", "one")
		c.with(func() { clear(c.groups[1].sessions) })
		mustPropose(t, cl, "a", "two")

		tries := 0
		c.with(func() {
			c.fault = func(n *fakeNode, r *Request) fault {
				if tries++; tries == 1 {
					return fault{after: partition.CodeUnknown}
				}
				return fault{expire: true}
			}
		})
		_, err := cl.Propose(within(t, time.Minute), "t", []byte("a"), []byte("three"))
		wantCode(t, err, partition.CodeUnknown)
		if !strings.Contains(err.Error(), "session_expired") {
			t.Errorf("%v does not say why", err)
		}
		if n := c.executed["three"]; n != 1 {
			t.Errorf("executed %d times", n)
		}
	})
}

// A retry carries the same session and number, whatever went wrong before.
func TestRetryKeepsNumber(t *testing.T) {
	for name, f := range map[string]fault{
		"killed":  {kill: true},
		"unknown": {after: partition.CodeUnknown},
		"late":    {late: 5 * time.Second},
		"fault":   {after: partition.CodeInternal},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *cluster, cl *Client) {
				mustPropose(t, cl, "a", "first")
				tries := 0
				c.with(func() {
					c.fault = func(*fakeNode, *Request) fault {
						if tries++; tries == 1 {
							return f
						}
						return fault{}
					}
				})
				mustPropose(t, cl, "a", "x")
				seen := c.seen["x"]
				if len(seen) < 2 || c.executed["x"] != 1 {
					t.Fatalf("seen %v, executed %d times", seen, c.executed["x"])
				}
				for _, s := range seen {
					if s != seen[0] {
						t.Errorf("sent under %v", seen)
					}
				}
			})
		})
	}
}

// What the caller is told when the time ends: unknown if the command may have
// been sent, a timeout otherwise.
func TestDeadline(t *testing.T) {
	propose := func(t *testing.T, cl *Client) error {
		_, err := cl.Propose(within(t, 3*time.Second), "t", []byte("a"), []byte("x"))
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v does not name the deadline", err)
		}
		return err
	}
	cases := []struct {
		name  string
		setup func(c *cluster)
		want  partition.Code
	}{
		{"no master", func(c *cluster) { c.groups[1].master = "" }, partition.CodeTimeout},
		{"refused", func(c *cluster) {
			for _, n := range c.nodes {
				n.refuse = true
				n.kill()
			}
		}, partition.CodeTimeout},
		{"dial hangs", func(c *cluster) {
			for _, n := range c.nodes {
				n.black = true
				n.kill()
			}
		}, partition.CodeTimeout},
		{"busy", func(c *cluster) {
			c.fault = func(*fakeNode, *Request) fault { return fault{before: partition.CodeBusy} }
		}, partition.CodeTimeout},
		{"lost answers", func(c *cluster) {
			c.fault = func(*fakeNode, *Request) fault { return fault{late: time.Minute} }
		}, partition.CodeUnknown},
		{"killed", func(c *cluster) {
			c.fault = func(*fakeNode, *Request) fault { return fault{kill: true} }
		}, partition.CodeUnknown},
		{"unknown, then no master", func(c *cluster) {
			c.fault = func(*fakeNode, *Request) fault {
				c.groups[1].master = ""
				return fault{dropped: true}
			}
		}, partition.CodeUnknown},
		{"unknown, then busy", func(c *cluster) {
			n := 0
			c.fault = func(*fakeNode, *Request) fault {
				if n++; n == 1 {
					return fault{after: partition.CodeUnknown}
				}
				return fault{before: partition.CodeBusy}
			}
		}, partition.CodeUnknown},
	}
	for _, x := range cases {
		t.Run(x.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *cluster, cl *Client) {
				mustPropose(t, cl, "a", "first")
				c.with(func() { x.setup(c) })
				synctest.Wait() // the client sees what was closed
				wantCode(t, propose(t, cl), x.want)
				if x.want == partition.CodeTimeout && c.executed["x"] != 0 {
					t.Error("timed out, but executed")
				}
				time.Sleep(2 * time.Minute) // late answers
			})
		})
	}
}

// A final refusal after an unknown try must not be told as "nothing happened".
func TestRefusalAfterUnknown(t *testing.T) {
	for _, code := range []partition.Code{partition.CodeInvalid, partition.CodeRefused, partition.CodeTooLarge, partition.CodeUnauthorized} {
		for _, first := range []partition.Code{0, partition.CodeUnknown} {
			inBubble(t, func(t *testing.T, c *cluster, cl *Client) {
				mustPropose(t, cl, "a", "first")
				n := 0
				c.with(func() {
					c.fault = func(*fakeNode, *Request) fault {
						if n++; n == 1 && first != 0 {
							return fault{after: first}
						}
						return fault{before: code}
					}
				})
				_, err := cl.Propose(within(t, 3*time.Second), "t", []byte("a"), []byte("x"))
				if first == 0 {
					wantCode(t, err, code)
				} else {
					wantCode(t, err, partition.CodeUnknown)
				}
			})
		}
	}
}

// A canceled context ends an operation at once, and the error says so.
func TestCancel(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster, cl *Client) {
		mustPropose(t, cl, "a", "first")
		c.with(func() { c.fault = func(*fakeNode, *Request) fault { return fault{late: time.Minute} } })
		ctx, cancel := context.WithCancel(t.Context())
		began := time.Now()
		time.AfterFunc(50*time.Millisecond, cancel)
		_, err := cl.Propose(ctx, "t", []byte("a"), []byte("x"))
		wantCode(t, err, partition.CodeUnknown)
		if !errors.Is(err, context.Canceled) || time.Since(began) != 50*time.Millisecond {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		ended := make(chan error, 1)
		ctx, cancel = context.WithCancel(t.Context())
		cl.GoRead(ctx, "t", []byte("a"), nil, ReadOptions{}, func(_ Result, err error) { ended <- err })
		cancel()
		wantCode(t, <-ended, partition.CodeTimeout)
		_, err = cl.Propose(ctx, "t", []byte("a"), nil)
		wantCode(t, err, partition.CodeTimeout)
		time.Sleep(2 * time.Minute)
	})
}

// A node that is stopped but whose connections live is left for another one.
func TestFrozenMaster(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster, cl *Client) {
		mustPropose(t, cl, "a", "first")
		c.with(func() {
			c.fault = func(n *fakeNode, _ *Request) fault {
				if n.id == "n1" {
					return fault{dropped: true, late: 10 * time.Second}
				}
				return fault{}
			}
			c.groups[1].master = "n2"
		})
		began := time.Now()
		mustPropose(t, cl, "a", "x")
		if d := time.Since(began); d > 1200*time.Millisecond {
			t.Errorf("took %s", d)
		}
		began = time.Now()
		mustPropose(t, cl, "a", "y")
		if d := time.Since(began); d > 0 {
			t.Errorf("the frozen node was asked again: %s", d)
		}
		time.Sleep(time.Minute)
	})
}

// The client's own bounds refuse, and say so.
func TestBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1)
		cfg := c.config()
		cfg.MaxInFlight = 2
		cl := c.open(cfg)
		defer cl.Close()
		c.with(func() { c.groups[1].master = "" })
		all := goMany(t, cl, 2)
		_, err := cl.Propose(t.Context(), "t", []byte("a"), []byte("x"))
		wantCode(t, err, partition.CodeBusy)
		c.with(func() { c.groups[1].master = "n1" })
		all.wait(t, c)
		mustPropose(t, cl, "a", "x")
	})
}

// A split moves keys to a new group on another node: commands that were under
// way keep their place, others take one with the new group.
func TestSplit(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster, cl *Client) {
		mustPropose(t, cl, "z", "first")
		tries := 0
		c.with(func() {
			c.fault = func(n *fakeNode, r *Request) fault {
				if tries++; tries == 1 {
					return fault{after: partition.CodeUnknown} // executed by the parent
				}
				if tries == 2 {
					c.split(1, "m", []partition.NodeID{"n3"}, "n3")
					time.AfterFunc(100*time.Millisecond, func() { c.with(c.publish) })
				}
				return fault{}
			}
		})
		mustPropose(t, cl, "z", "under way")
		if seen := c.seen["under way"]; len(seen) != 2 || seen[0] != seen[1] || c.executed["under way"] != 1 {
			t.Errorf("seen %v, executed %d times", seen, c.executed["under way"])
		}
		if r := mustPropose(t, cl, "z", "later"); r.Group != 2 {
			t.Errorf("answered by %s", r.Group)
		}
		if s := c.seen["later"]; s[0].session.Group != 2 {
			t.Errorf("session %v", s)
		}
		mustPropose(t, cl, "a", "kept")
	})
}

// R12 of PLACEMENT.md: however many calls find their routes stale, refreshes do
// not run side by side nor more often than the interval.
func TestRefreshSingleFlight(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster, cl *Client) {
		mustPropose(t, cl, "a", "first")
		c.with(func() {
			c.groups[1].rangeVersion++
			c.asked = 0
		})
		all := goMany(t, cl, 500)
		time.Sleep(time.Second)
		c.with(func() {
			if c.asked < 10 || c.asked > 51 {
				t.Errorf("%d refreshes in 1 s, interval 20 ms", c.asked)
			}
			c.publish()
		})
		all.wait(t, c)
	})
}

// A node gets a new address; the old one ends.
func TestAddressChange(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster, cl *Client) {
		mustPropose(t, cl, "a", "first")
		c.with(func() {
			c.nodes["n1"].addr = "new:1"
			c.nodes["n1"].kill()
			c.publish()
		})
		mustPropose(t, cl, "a", "x")
	})
}

// Open says why it cannot.
func TestOpenFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1)
		c.nodes["n1"].refuse = true
		_, err := Open(within(t, time.Second), c.config())
		wantCode(t, err, partition.CodeTimeout)
		if !strings.Contains(err.Error(), "refused") && !strings.Contains(err.Error(), "reached") {
			t.Errorf("%v does not say why", err)
		}
		_, err = Open(t.Context(), Config{})
		wantCode(t, err, partition.CodeInvalid)
		_, err = Open(t.Context(), Config{Local: Local{Backend: c.nodes["n1"]}})
		wantCode(t, err, partition.CodeInvalid)
	})
}

// Close ends what is in flight and says what is known of it.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, "m")
		cl := c.open(c.config())
		mustPropose(t, cl, "a", "first")
		c.with(func() {
			c.groups[2].master = ""
			c.fault = func(n *fakeNode, r *Request) fault {
				if r.Group == 1 {
					return fault{late: time.Minute}
				}
				return fault{}
			}
		})
		codes := make(chan partition.Code, 3)
		for _, key := range []string{"a", "z"} {
			cl.Go(t.Context(), "t", []byte(key), []byte(key), func(_ Result, err error) { codes <- partition.CodeOf(err) })
		}
		synctest.Wait()
		cl.Close()
		got := []partition.Code{<-codes, <-codes}
		slices.Sort(got)
		if got[0] != partition.CodeUnknown || got[1] != partition.CodeClosed {
			t.Errorf("codes %v", got)
		}
		_, err := cl.Propose(t.Context(), "t", []byte("a"), nil)
		wantCode(t, err, partition.CodeClosed)
		time.Sleep(2 * time.Minute)
	})
}

// The client in a node's own process asks it without a socket, and the others
// over theirs.
func TestLocal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, "m")
		c.with(func() {
			c.groups[2].master = "n2"
			c.publish()
		})
		cl := c.open(Config{Dial: c.dial, Local: Local{Node: "n1", Backend: c.nodes["n1"]}})
		defer cl.Close()
		goMany(t, cl, 300).wait(t, c)
		if c.nodes["n1"].dials != 0 {
			t.Error("dialed itself")
		}
		mustPropose(t, cl, "z", "there")
		if c.nodes["n2"].dials != 1 {
			t.Errorf("%d connections", c.nodes["n2"].dials)
		}
		c.crash("n1", "n2") // as far as the fake goes: it answers, and is not master
		mustPropose(t, cl, "a", "after")
		c.with(func() { c.fault = func(*fakeNode, *Request) fault { return fault{late: time.Minute} } })
		_, err := cl.Propose(within(t, 3*time.Second), "t", []byte("a"), []byte("lost"))
		wantCode(t, err, partition.CodeUnknown)
		time.Sleep(2 * time.Minute)
	})
}
