package client

import (
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"pando.dev/pando/partition"
)

// group is what the client knows of a group of replicas beyond the routes: who
// is master, the sessions, and the calls that wait for either. It outlives the
// routes that name it.
type group struct {
	c  *Client
	id partition.GroupID

	mu     sync.Mutex
	master partition.NodeID // as learned from answers; "" if unknown
	turn   int              // which member is asked next when there is no master

	sessions []*session
	opening  int    // sessions being opened
	waiting  []wait // commands without a place in a session, in order
	crowded  bool   // in the client's crowd: it may have waiting commands

	// searching are the calls that back off because no master is known. One
	// that finds it wakes the rest.
	searching map[*call]uint32
}

// wait is a call in one of the places where calls wait, at the number of that
// wait. A call that has gone on in the meantime ignores what comes for it, but
// gives back the place in a session that comes along.
type wait struct {
	k *call
	n uint32
	s *session
	// seq is the number in s, if s is set.
	seq uint64
}

// member is a node that may serve a group, and the way to it.
type member struct {
	node partition.NodeID
	zone string
	peer peer
}

// choose returns the member to ask: the master if it is known and can be
// reached, otherwise one after the other. nil: none can be reached now.
func (g *group) choose(r *routing, members []member, now time.Time) *member {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.master != "" {
		if m := r.nodes[g.master]; m != nil && !m.peer.down(now) {
			return m
		}
		g.master = ""
	}
	for range members {
		g.turn++
		if m := &members[g.turn%len(members)]; !m.peer.down(now) {
			return m
		}
	}
	return nil
}

// presumed returns who is taken for the master, "" if nobody.
func (g *group) presumed() partition.NodeID {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.master
}

// hint takes a redirect of node to master. What another call has learned
// meanwhile is not given up for it; that the master is down, choose will see.
func (g *group) hint(node, master partition.NodeID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forgetLocked(node)
	if g.master == "" && master != node {
		g.master = master
	}
}

// forget says that node is not, or no longer, to be asked first.
func (g *group) forget(node partition.NodeID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forgetLocked(node)
}

func (g *group) forgetLocked(node partition.NodeID) {
	if g.master == node {
		g.master = ""
	}
}

// learn says that node has answered as master. It returns the calls that were
// looking for it.
func (g *group) learn(node partition.NodeID) []wait {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.master = node
	if len(g.searching) == 0 {
		return nil
	}
	var found []wait
	for k, n := range g.searching { // in no order: they go on side by side
		found = append(found, wait{k: k, n: n})
	}
	clear(g.searching)
	return found
}

// Back-off while a group has no master: short, because every millisecond here
// is one of the outage, but never more than searchRate tries per second of one
// client however many calls wait.
const (
	searchMin  = 5 * time.Millisecond
	searchMax  = 50 * time.Millisecond
	searchRate = 2000
	busyMin    = 2 * time.Millisecond
	busyMax    = 100 * time.Millisecond
	waitMax    = 2 * time.Second
)

// search enters a call that backs off and returns for how long.
func (g *group) search(k *call, n uint32, tries int) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.searching == nil {
		g.searching = map[*call]uint32{}
	}
	g.searching[k] = n
	d := backoff(tries, searchMin, searchMax)
	return max(d, jitter(min(waitMax, time.Duration(len(g.searching))*time.Second/searchRate)))
}

// leave takes a call out of the search.
func (g *group) leave(k *call) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.searching, k)
}

// backoff returns a jittered wait in [d, 2d) that grows from least to most.
func backoff(tries int, least, most time.Duration) time.Duration {
	d := least
	for range min(tries, 16) {
		d += d / 2
	}
	return jitter(min(d, most/2))
}

// jitter returns a time in [d, 2d).
func jitter(d time.Duration) time.Duration { return d + rand.N(max(d, 1)) }

// place returns a place in a session, or enters the call among the waiting and
// returns none and how many sessions the caller is to open.
func (g *group) place(k *call, n uint32) (s *session, seq uint64, open int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.waiting) == 0 {
		for _, s := range g.sessions {
			if !s.full() {
				return s, s.take(), 0
			}
		}
	}
	g.waiting = append(g.waiting, wait{k: k, n: n})
	if !g.crowded {
		g.crowded = true
		g.c.crowd.enter(g)
	}
	return nil, 0, g.toOpenLocked()
}

// toOpenLocked counts the sessions to be opened for those who wait, and takes
// them as being opened.
func (g *group) toOpenLocked() int {
	want := (len(g.waiting) + windowSize - 1) / windowSize
	n := max(0, min(want-g.opening, g.c.cfg.MaxSessions-len(g.sessions)-g.opening))
	g.opening += n
	return n
}

// release gives the number back and returns the call that takes a place.
func (g *group) release(s *session, seq uint64) []wait {
	g.mu.Lock()
	defer g.mu.Unlock()
	s.release(seq)
	return g.admitLocked()
}

// admitLocked takes as many waiting calls as there are places, in order.
func (g *group) admitLocked() []wait {
	if len(g.waiting) == 0 {
		return nil
	}
	n := 0
	for _, s := range g.sessions {
		for ; n < len(g.waiting) && !s.full(); n++ {
			g.waiting[n].s, g.waiting[n].seq = s, s.take()
		}
	}
	admitted := slices.Clone(g.waiting[:n])
	g.waiting = slices.Delete(g.waiting, 0, n)
	return admitted
}

// opened ends the opening of a session; s is nil if it failed. It returns the
// calls that may go on: those with a place or, after a failure, all.
func (g *group) opened(s *session) []wait {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.opening--
	if s == nil {
		all := g.waiting
		g.waiting = nil
		return all
	}
	g.sessions = append(g.sessions, s)
	return g.admitLocked()
}

// expired drops a session that the group no longer knows.
func (g *group) expired(s *session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s.dead = true
	g.sessions = slices.DeleteFunc(g.sessions, func(x *session) bool { return x == s })
}

// idle reports that no call waits here.
func (g *group) idle() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.waiting) == 0 && len(g.searching) == 0
}

// sweep takes out the calls that wait for a session and whose time is over; all
// takes also those that back off, which otherwise end by themselves.
func (g *group) sweep(now time.Time, all bool) (over []wait) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if all {
		for k, n := range g.searching { // in no order, as above
			over = append(over, wait{k: k, n: n})
		}
		clear(g.searching)
	}
	g.waiting = slices.DeleteFunc(g.waiting, func(w wait) bool {
		if all || !w.k.deadline.After(now) {
			over = append(over, w)
			return true
		}
		return false
	})
	if g.crowded && len(g.waiting) == 0 {
		g.crowded = false
		g.c.crowd.leave(g)
	}
	return over
}

// crowd is the groups in which commands wait for a session: few, however many
// groups there are, so that watching over deadlines costs nothing for the rest.
type crowd struct {
	mu     sync.Mutex // taken after a group's
	groups map[*group]bool
}

func (c *crowd) enter(g *group) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.groups == nil {
		c.groups = map[*group]bool{}
	}
	c.groups[g] = true
}

func (c *crowd) leave(g *group) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.groups, g)
}

// all returns the groups in no order: each is swept on its own.
func (c *crowd) all() []*group {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Keys(c.groups))
}
