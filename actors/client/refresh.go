package client

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"pando.dev/pando/partition"
)

// routing is the routes as the client uses them: with the ways to the nodes.
// It is immutable; a refresh makes the next one.
type routing struct {
	// number counts refreshes, also those that found nothing new. A call that
	// used one waits for a higher one.
	number uint64
	// asOf: everything that was in the catalog then is in the routes. Zero: nobody
	// knows.
	asOf   time.Time
	routes *Routes
	tables map[string]*tableRoutes
	groups map[partition.GroupID]*route
	nodes  map[partition.NodeID]*member
}

type tableRoutes struct {
	table  *Table
	routes []route // beside table.Partitions
}

// route is where one partition is served.
type route struct {
	*Partition
	group   *group
	members []member // those with an address
	// sites are all that have the state, with an address, nearest first.
	sites []site
}

// holds reports whether all of a span that begins in the partition is in it.
func (r *route) holds(span partition.KeyRange) bool {
	return len(r.Hi) == 0 || len(span.Hi) > 0 && bytes.Compare(span.Hi, r.Hi) <= 0
}

// edge returns the route of the first keys of a range or, if back, of the last
// ones; nil if there is none.
func (r *routing) edge(table string, keys partition.KeyRange, back bool) *route {
	t := r.tables[table]
	if !back || t == nil {
		return r.find(table, keys.Lo)
	}
	i := len(t.routes)
	if len(keys.Hi) > 0 {
		i, _ = slices.BinarySearchFunc(t.routes, keys.Hi, func(x route, k []byte) int { return bytes.Compare(x.Lo, k) })
	}
	if i == 0 {
		return nil
	}
	return &t.routes[i-1]
}

// find returns the route of the key, or nil.
func (r *routing) find(table string, key []byte) *route {
	t := r.tables[table]
	if t == nil {
		return nil
	}
	i, ok := slices.BinarySearchFunc(t.routes, key, func(x route, k []byte) int { return bytes.Compare(x.Lo, k) })
	if !ok {
		i--
	}
	if i < 0 || !t.routes[i].Range().Contains(key) {
		return nil
	}
	return &t.routes[i]
}

// refresher keeps the routes. However many calls want newer ones, one question
// is on its way at a time, and not more often than every RefreshInterval, so
// the load that clients put on the catalog does not grow with what goes wrong.
type refresher struct {
	c *Client

	mu      sync.Mutex
	waiting []wait
	running bool
	last    time.Time // when the last refresh began
	turn    int       // which source is asked next
	idle    int       // refreshes in a row that brought nothing
	err     error     // why the last refresh failed, if it did
}

// want enters a call that has used refresh number used and wants a newer one.
func (f *refresher) want(w wait, used uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting = append(f.waiting, w)
	if f.running || f.c.life.Err() != nil { // the sweep ends it then
		return
	}
	f.running = true
	f.c.running.Add(1)
	go f.run(used)
}

// run refreshes until nobody waits. used is what the first one has.
func (f *refresher) run(used uint64) {
	defer f.c.running.Done()
	for tries := 0; ; {
		if f.c.routing.Load().number <= used || tries > 0 {
			if !f.rest(tries) {
				f.stop(nil)
				return
			}
			if err := f.refresh(); err != nil {
				tries++
				f.c.cfg.Logger.Debug("cannot refresh routes", "err", err)
				if f.stop(err) {
					return
				}
				continue
			}
		}
		f.mu.Lock()
		waiting := f.waiting
		f.waiting, f.running, f.err = nil, false, nil
		f.mu.Unlock()
		wake(waiting)
		return
	}
}

// stop ends the runner if nobody waits, or if there was no error (the client is
// closed).
func (f *refresher) stop(err error) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
	if err == nil || len(f.waiting) == 0 {
		f.running = false
		return true
	}
	return false
}

// rest waits until the next refresh may begin; false: the client is closed.
func (f *refresher) rest(tries int) bool {
	f.mu.Lock()
	at := f.last.Add(f.c.cfg.RefreshInterval)
	f.mu.Unlock()
	d := time.Until(at)
	if tries > 0 {
		d = max(d, backoff(tries, redialMin, redialMax))
	}
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
		case <-f.c.life.Done():
			return false
		}
	}
	f.mu.Lock()
	f.last = time.Now()
	f.mu.Unlock()
	return f.c.life.Err() == nil
}

// refreshWait is how long one source is waited for before the next is asked.
const refreshWait = 500 * time.Millisecond

// forceAfter is after how many refreshes in a row that brought nothing newer,
// although somebody needed it, all is asked for and taken whatever its version:
// the cluster may have lost count. Routes that are too old cost time only.
const forceAfter = 8

// refresh asks one source after the other. It starts with another one each
// time: one node may lag behind the catalog.
func (f *refresher) refresh() error {
	old := f.c.routing.Load()
	sources := f.c.sources(old)
	f.turn++
	have := old.routes.Version
	if f.idle >= forceAfter {
		have = 0
	}
	var failed error
	for i := range sources {
		p := sources[(f.turn+i)%len(sources)]
		if p.down(time.Now()) {
			continue
		}
		r, asOf, err := f.ask(p, have)
		if err == nil {
			f.idle++
			if have == 0 || r != nil && r.Version > have {
				f.idle = 0
			} else {
				r = nil
			}
			if r == nil || r.Version >= old.routes.Version {
				asOf = later(asOf, old.asOf) // a newer version misses nothing that an older one has
			}
			f.c.install(r, asOf)
			return nil
		}
		failed = err
		if f.c.life.Err() != nil {
			break
		}
	}
	if failed == nil {
		failed = partition.Errorf(partition.CodeUnavailable, "none of %d nodes can be reached", len(sources))
	}
	return fmt.Errorf("refresh routes: %w", failed)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// ask gets the routes from one source, nil if it has none above have, and for
// when it vouches for its catalog; zero if it does not.
func (f *refresher) ask(p peer, have uint64) (r *Routes, asOf time.Time, err error) {
	q := &question{answer: make(chan error, 1)}
	req := Request{Op: OpRoutes, RangeVersion: partition.RangeVersion(have)}
	req.TimeoutMS = timeoutMS(float64(refreshWait / time.Millisecond))
	asked := time.Now()
	_, run, err := p.send(attempt{to: q, deadline: asked.Add(refreshWait)}, &req)
	if err != nil {
		return nil, asOf, err
	}
	if run != nil {
		run()
	}
	f.c.cfg.Stats.Refreshes.Add(1)
	f.c.wakeSweeper()
	err = <-q.answer // comes for certain: the sweep ends every attempt
	if q.aged {
		asOf = asked.Add(-q.age)
	}
	return q.routes, asOf, err
}

// question is a request for the routes.
type question struct {
	routes *Routes
	age    time.Duration
	aged   bool
	answer chan error
}

func (q *question) answered(_ uint32, r *Response) {
	if err := r.Err(); err != nil {
		q.answer <- err
		return
	}
	var err error
	q.age, q.aged = r.Age, r.AgeKnown
	if len(r.Body) > 0 {
		q.routes, err = ParseRoutes(r.Body)
	}
	q.answer <- err
}

func (q *question) lost(_ uint32, _ bool, why error) { q.answer <- why }

// sweep takes out the waiting calls whose time is over.
func (f *refresher) sweep(now time.Time, all bool) (over []wait) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting = slices.DeleteFunc(f.waiting, func(w wait) bool {
		if all || !w.k.deadline.After(now) {
			over = append(over, w)
			return true
		}
		return false
	})
	return over
}

// failure is why the routes could not be refreshed lately, or nil.
func (f *refresher) failure() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// sources are the nodes to ask for the routes: this process, the nodes of the
// routes in any order, and the first addresses.
func (c *Client) sources(r *routing) []peer {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []peer
	if c.local != nil {
		return []peer{c.local}
	}
	seen := map[string]bool{}
	add := func(addr string) {
		if !seen[addr] && addr != "" && c.cfg.Dial != nil {
			seen[addr] = true
			all = append(all, c.peerLocked(addr))
		}
	}
	for _, n := range r.routes.Nodes {
		add(n.Addr)
	}
	for _, i := range rand.Perm(len(c.cfg.Addrs)) {
		add(c.cfg.Addrs[i])
	}
	return all
}

// install makes routes the current ones; nil keeps the old ones. They are as new
// as the catalog was at asOf.
func (c *Client) install(r *Routes, asOf time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.routing.Load()
	if r == nil {
		next := *old
		next.number++
		next.asOf = asOf
		c.routing.Store(&next)
		return
	}
	c.routing.Store(c.routingLocked(c.relearnLocked(r), old.number+1, asOf))
}

// routingLocked makes the routes usable.
func (c *Client) routingLocked(r *Routes, number uint64, asOf time.Time) *routing {
	next := &routing{
		number: number, asOf: asOf, routes: r, tables: map[string]*tableRoutes{},
		groups: map[partition.GroupID]*route{}, nodes: map[partition.NodeID]*member{},
	}
	for i := range r.Nodes {
		n := &r.Nodes[i]
		if p := c.wayLocked(n); p != nil {
			next.nodes[n.ID] = &member{node: n.ID, zone: n.Zone, peer: p}
		}
	}
	for i := range r.Tables {
		t := &r.Tables[i]
		tr := &tableRoutes{table: t, routes: make([]route, len(t.Partitions))}
		for j := range t.Partitions {
			tr.routes[j] = c.routeLocked(&t.Partitions[j], next)
			next.groups[t.Partitions[j].Group] = &tr.routes[j]
		}
		next.tables[t.Name] = tr
	}
	c.forgetLocked(next)
	return next
}

// wayLocked returns the peer of a node, or nil if there is no way to it.
func (c *Client) wayLocked(n *Node) peer {
	switch {
	case c.local != nil && n.ID == c.cfg.Local.Node:
		return c.local
	case n.Addr == "" || c.cfg.Dial == nil:
		return nil
	}
	return c.peerLocked(n.Addr)
}

func (c *Client) routeLocked(p *Partition, r *routing) route {
	g := c.groups[p.Group]
	if g == nil {
		g = &group{c: c, id: p.Group}
		c.groups[p.Group] = g
	}
	g.mu.Lock()
	if g.master == "" {
		g.master = p.Master
	}
	g.mu.Unlock()
	rt := route{Partition: p, group: g}
	for _, m := range p.Members {
		if x := r.nodes[m]; x != nil {
			rt.members = append(rt.members, *x)
		}
	}
	rt.sites = c.sitesOf(&rt, r)
	return rt
}

// forgetLocked drops the groups and ends the connections that the routes do not
// name any more. A call that still uses one sees a lost connection.
func (c *Client) forgetLocked(r *routing) {
	for id := range c.groups { // order does not matter
		if r.groups[id] == nil && c.groups[id].idle() {
			delete(c.groups, id)
		}
	}
	keep := map[string]bool{}
	for _, n := range r.routes.Nodes {
		keep[n.Addr] = true
	}
	for _, a := range c.cfg.Addrs {
		keep[a] = true
	}
	for addr, p := range c.peers { // order does not matter
		if !keep[addr] {
			delete(c.peers, addr)
			c.retired = append(c.retired, p)
		}
	}
}
