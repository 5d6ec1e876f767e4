package control

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"pando.dev/pando/partition"
)

// Which process of a node is taken for the one that was started last on the
// node's disk.
func TestStaleProcesses(t *testing.T) {
	type process struct{ boot, start uint64 }
	last := process{boot: 7, start: 700}
	for _, x := range []struct {
		what  string
		p     process
		stale bool
	}{
		{"the same process", last, false},
		{"started again", process{8, 800}, false},
		{"started again twice", process{9, 900}, false},
		{"the disk put back, started again", process{7, 701}, true},
		{"the disk put back further", process{5, 500}, true},
		{"the process before it, still there", process{6, 600}, true},
		{"a copied directory, started less often", process{7, 702}, true},
	} {
		for _, over := range []string{"", "a snapshot", "expiry"} {
			s := newState()
			open := func(p process) *partition.Error {
				return applied(t, s, kindSessions, &sessionsBody{Open: []sessionItem{{Node: "a", Boot: p.boot, Start: p.start}}}).err
			}
			if err := open(last); err != nil {
				t.Fatal(err)
			}
			switch over {
			case "a snapshot":
				var err error
				if s, err = readState(bytes.NewReader(bytesOf(t, s))); err != nil {
					t.Fatal(err)
				}
			case "expiry":
				applied(t, s, kindSessions, &sessionsBody{Expire: []sessionItem{{Node: "a", Boot: last.boot}}})
			}
			err := open(x.p)
			if (err != nil) != x.stale || err != nil && (!errors.Is(err, partition.ErrSessionExpired) || !strings.Contains(err.Why, "older copy") || err.Next == "") {
				t.Errorf("%s, over %q: %v, want stale %t", x.what, over, err, x.stale)
			}
			locks := applied(t, s, kindLocks, &locksBody{Node: "a", Boot: x.p.boot, Start: x.p.start})
			if (locks.err != nil) != x.stale {
				t.Errorf("%s, over %q, asking for locks: %v", x.what, over, locks.err)
			}
		}
	}
	// Not known to programs before there were starts: nothing is concluded.
	s := newState()
	if err := s.openSession("a", 7, 0); err != nil {
		t.Fatal(err)
	}
	if err := s.openSession("a", 7, 700); err != nil || s.sessions["a"].start != 700 {
		t.Errorf("a session without a start took no start: %v", err)
	}
	if err := s.openSession("a", 7, 701); err == nil {
		t.Error("another start of the same boot was accepted")
	}
}

// A node whose disk was put back is told so by the control group, and tells its
// host, while the one that the session is of goes on.
func TestStaleNodeIsTold(t *testing.T) {
	n := newTestNet(t)
	for _, id := range []partition.NodeID{"a", "b", "c"} {
		n.start(id, 3)
	}
	n.leader()
	ctx := deadline(t, 20*time.Second)
	x := n.start("d", 3)
	x.wait(t, "session", x.Admitted)
	boot := x.cfg.Boot
	n.stop("d")
	if x.Stale() != nil {
		t.Fatal(x.Stale())
	}
	var mu sync.Mutex
	var told []error
	back := func(c *Config) {
		c.Boot = boot // as if the copy had been taken one start before
		c.OnStale = func(err error) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, err)
		}
	}
	y := n.start("d", 3, back)
	y.wait(t, "word that it is stale", func() bool { return y.Stale() != nil })
	if !errors.Is(y.Stale(), partition.ErrSessionExpired) || y.Status().Stale == nil || y.Admitted() {
		t.Fatalf("%v, %+v", y.Stale(), y.Status())
	}
	if _, err := y.AcquireLocks(ctx, []LockRequest{{Group: 1, Replica: 1}}); !errors.Is(err, partition.ErrSessionExpired) {
		t.Fatalf("a lock for a stale node: %v", err)
	}
	n.stop("d")
	mu.Lock()
	defer mu.Unlock()
	if len(told) != 1 {
		t.Fatalf("its host was told %d times", len(told))
	}
}

// What programs wrote before there were starts is still read.
func TestCommandsWithoutStart(t *testing.T) {
	s := newState()
	create(t, s, "t", 1, nil, "a")
	if r := applied(t, s, kindSessionsNoStart, &sessionsNoStart{Open: []heldSession{{Node: "a", Boot: 3}, {Node: "b", Boot: 4}}, Expire: []heldSession{{Node: "b", Boot: 4}}}); r.err != nil {
		t.Fatal(r.err)
	}
	r := applied(t, s, kindLocksNoStart, &locksNoStart{
		Node: "a", Boot: 3, Acquire: []acquireNoStart{{Group: 1, Replica: 1, Above: 5, Failover: true}}, Release: []releaseItem{{Group: 1, Replica: 1, Number: 1}},
	})
	if r.err != nil || r.locks.Grants[0].Number != 6 || s.sessions["a"].boot != 3 {
		t.Fatalf("%+v", r)
	}
}
