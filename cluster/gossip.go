package cluster

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/serf/serf"

	"pando.dev/pando/cluster/internal/logline"
	"pando.dev/pando/cluster/internal/pulse"
	"pando.dev/pando/partition"
)

const (
	// eventQueue is how many events may wait. What does not fit is dropped, and
	// found by the next comparison.
	eventQueue = 8192
	// reconcileEvery is how often the members are compared without an event.
	reconcileEvery = time.Second
	// joinMin and joinMax bound the pause between attempts to join; rejoinEvery
	// is the pause between attempts to find those who are not here yet.
	joinMin     = 100 * time.Millisecond
	joinMax     = 5 * time.Second
	rejoinEvery = 15 * time.Second
	// announceMin and announceMax bound the pauses, each twice the one before,
	// after which a node that has started repeats that it is here.
	announceMin = time.Second
	announceMax = 16 * time.Second
	// maxAddressBytes bounds an address that a member tells of itself.
	maxAddressBytes = 255
	// maxGossipMembers bounds the members of all states.
	maxGossipMembers = 4096
	// staleAfter is how long after its start a node may still hear of its own
	// past without suspecting another process of its name.
	staleAfter = 10 * time.Second
)

// Gossip is this node's membership. All methods may be called by any number of
// goroutines.
type Gossip struct {
	cfg     GossipConfig
	serf    *serf.Serf
	addr    string
	started time.Time
	events  chan serf.Event
	changed pulse.Pulse
	done    chan struct{} // closed by Close
	wg      sync.WaitGroup
	leaving sync.WaitGroup // the library's leave, which may outlast Leave
	closing sync.Once
	closed  error

	tagMu sync.Mutex // one SetTags at a time: the library has no lock of its own

	mu         sync.Mutex
	tags       map[string]string
	status     GossipStatus
	refused    *partition.Error // by the merge check since the last attempt began
	remembered []string
	saved      []string                  // of them, what is on disk
	known      map[partition.NodeID]bool // the members of the last comparison
}

// StartGossip listens and begins to join. It returns when this node listens;
// Status tells whether it has met others.
func StartGossip(cfg GossipConfig) (*Gossip, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	g := &Gossip{cfg: cfg, started: time.Now(), events: make(chan serf.Event, eventQueue), done: make(chan struct{}), tags: cfg.tags()}
	sc, err := g.serfConfig()
	if err != nil {
		return nil, err
	}
	remembered, err := RememberedPeers(cfg.Dir)
	if err != nil {
		// They only save time; the providers and the others' memory remain.
		cfg.Logger.Warn("remembered peers not read", "err", err)
	}
	g.remembered, g.saved = remembered, remembered
	if g.serf, err = serf.Create(sc); err != nil {
		return nil, startError(cfg.Bind, err)
	}
	local := g.serf.Memberlist().LocalNode()
	g.addr = net.JoinHostPort(local.Addr.String(), strconv.Itoa(int(local.Port)))
	g.status.Address = g.addr
	g.run(g.drainLoop)
	g.run(g.joinLoop)
	g.run(g.reconcileLoop)
	g.run(g.announceLoop)
	return g, nil
}

func (g *Gossip) run(f func()) {
	g.wg.Add(1)
	go func() {
		defer g.wg.Done()
		f()
	}()
}

// serfConfig is the library's LAN profile with shorter intervals: a dead member
// is found in about 3 s, a stall of 2 s is tolerated.
func (g *Gossip) serfConfig() (*serf.Config, error) {
	host, port, err := bindAddress(g.cfg.Bind, len(g.cfg.Key) > 0)
	if err != nil {
		return nil, err
	}
	probe := cmp.Or(g.cfg.ProbeInterval, 500*time.Millisecond)
	out := logline.New(g.cfg.Logger, "gossip", map[string]slog.Level{"ERR": slog.LevelInfo, "WARN": slog.LevelDebug})

	ml := memberlist.DefaultLANConfig()
	ml.BindAddr, ml.BindPort, ml.AdvertisePort = host, port, port
	ml.ProbeInterval, ml.ProbeTimeout, ml.GossipInterval = probe, probe/2, min(100*time.Millisecond, probe/2)
	ml.SuspicionMult, ml.SuspicionMaxTimeoutMult = 4, 4
	ml.DeadNodeReclaimTime = time.Second
	ml.TCPTimeout = 10 * probe
	ml.SecretKey, ml.LogOutput = g.cfg.Key, out
	if err := setAdvertise(ml, g.cfg.Advertise); err != nil {
		return nil, err
	}

	c := serf.DefaultConfig()
	c.NodeName, c.Tags, c.MemberlistConfig, c.LogOutput = string(g.cfg.Node), maps.Clone(g.tags), ml, out
	c.EventCh, c.Merge = g.events, mergeCheck{g}
	c.SnapshotPath, c.RejoinAfterLeave = filepath.Join(g.cfg.Dir, "gossip.snap"), true
	c.EnableNameConflictResolution, c.ValidateNodeNames = false, true
	c.ReconnectInterval = 5 * time.Second
	c.ReconnectTimeout, c.TombstoneTimeout = 72*time.Hour, 24*time.Hour
	c.BroadcastTimeout = 500 * time.Millisecond
	c.LeavePropagateDelay = cmp.Or(g.cfg.LeaveDelay, time.Second)
	c.DisableCoordinates = true
	return c, nil
}

func setAdvertise(ml *memberlist.Config, advertise string) error {
	if advertise == "" {
		return nil
	}
	host := advertise
	if h, port, err := net.SplitHostPort(advertise); err == nil {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return partition.Errorf(partition.CodeInvalid, "advertised gossip address %q: %v", advertise, err)
		}
		host, ml.AdvertisePort = h, int(n)
	}
	if net.ParseIP(host) == nil {
		return partition.Errorf(partition.CodeInvalid, "advertised gossip address %q is not an IP address", advertise)
	}
	ml.AdvertiseAddr = host
	return nil
}

// Address is where others reach this node's gossip.
func (g *Gossip) Address() string { return g.addr }

// Members returns every member that is known, this node included, by id.
func (g *Gossip) Members() []Node {
	members := g.serf.Members()
	all := make([]Node, 0, len(members))
	for i := range members {
		all = append(all, nodeOf(&members[i]))
	}
	slices.SortFunc(all, func(a, b Node) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// Changed returns a channel that is closed when the members or the status
// change next. Take it first, then look, then wait.
func (g *Gossip) Changed() <-chan struct{} { return g.changed.Next() }

// Status tells how joining goes.
func (g *Gossip) Status() GossipStatus {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.status
}

// SetTag shows a value to the others; an empty one removes it. It may take
// seconds: it waits until the news has left this node.
func (g *Gossip) SetTag(key, value string) error {
	return g.setTags(func(tags map[string]string) {
		if tags[key] = value; value == "" {
			delete(tags, key)
		}
	})
}

// setTags changes the tags and tells the others, also if nothing has changed.
func (g *Gossip) setTags(change func(map[string]string)) error {
	g.tagMu.Lock()
	defer g.tagMu.Unlock()
	g.mu.Lock()
	next := maps.Clone(g.tags)
	g.mu.Unlock()
	change(next)
	if err := g.serf.SetTags(maps.Clone(next)); err != nil {
		return fmt.Errorf("set gossip tags: %w", err)
	}
	g.mu.Lock()
	g.tags = next
	g.mu.Unlock()
	g.changed.Fire()
	return nil
}

// Leave says goodbye, so that the others do not take this node for failed. It
// waits for the news to spread, at most for the timeout. Close follows.
func (g *Gossip) Leave(timeout time.Duration) error {
	done := make(chan error, 1)
	// Close waits for it: the library does not stand a shutdown under a leave.
	g.leaving.Go(func() { done <- g.serf.Leave() })
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case err := <-done:
		return err
	case <-t.C:
		return partition.Errorf(partition.CodeTimeout, "leaving the gossip took longer than %v; the others will see a failure", timeout)
	}
}

// Close ends gossip. Without Leave before it the others see a failure.
func (g *Gossip) Close() error {
	g.closing.Do(func() {
		close(g.done)
		g.wg.Wait()
		g.leaving.Wait()
		// Whoever waits for a change must not wait for ever.
		defer g.changed.Fire()
		drained := make(chan struct{})
		go g.drainRest(drained)
		if err := g.serf.Shutdown(); err != nil {
			g.closed = fmt.Errorf("stop gossip: %w", err)
		}
		close(drained)
	})
	return g.closed
}

// drainRest keeps the library's own goroutines from waiting for room while it
// stops.
func (g *Gossip) drainRest(stop <-chan struct{}) {
	for {
		select {
		case <-g.events:
		case <-stop:
			return
		}
	}
}

// drainLoop only says that something happened: what, is found by looking.
func (g *Gossip) drainLoop() {
	for {
		select {
		case <-g.events:
			g.changed.Fire()
		case <-g.done:
			return
		}
	}
}

// announceLoop repeats this node's presence for a while after the start. Who
// still holds its last incarnation, at another address, for alive or only just
// dead overhears the first news, and would not ask again for half a minute.
func (g *Gossip) announceLoop() {
	for wait := announceMin; wait <= announceMax; wait *= 2 {
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-g.done:
			t.Stop()
			return
		}
		if err := g.setTags(func(map[string]string) {}); err != nil {
			g.cfg.Logger.Debug("presence not repeated", "err", err)
		}
	}
}

// reconcileLoop finds what no event told, and remembers who is here.
func (g *Gossip) reconcileLoop() {
	tick := time.NewTicker(reconcileEvery)
	defer tick.Stop()
	var last []Node
	for {
		changed := g.changed.Next()
		if now := g.Members(); !slices.Equal(now, last) {
			last = now
			g.note(now)
			g.remember(now)
			g.changed.Fire()
			continue
		}
		select {
		case <-changed:
		case <-tick.C:
		case <-g.serf.ShutdownCh():
			g.cfg.Logger.Error("gossip stopped by itself")
			return
		case <-g.done:
			return
		}
	}
}

// note keeps the ids for check, which must not ask the library.
func (g *Gossip) note(members []Node) {
	known := make(map[partition.NodeID]bool, len(members))
	for _, n := range members {
		known[n.ID] = true
	}
	g.mu.Lock()
	g.known = known
	g.mu.Unlock()
}

// remember writes down where the others are, if that has changed. A node that
// is alone keeps what it knew.
func (g *Gossip) remember(members []Node) {
	var now []string
	for _, n := range members {
		if n.ID != g.cfg.Node && n.Status == Alive {
			now = append(now, n.Gossip)
		}
	}
	slices.Sort(now)
	g.mu.Lock()
	same := len(now) == 0 || slices.Equal(now, g.saved)
	if !same {
		g.remembered = now
	}
	g.mu.Unlock()
	if same {
		return
	}
	if err := rememberPeers(g.cfg.Dir, now); err != nil {
		g.cfg.Logger.Warn("peers not remembered", "err", err)
		return // the next look tries again
	}
	g.mu.Lock()
	g.saved = now
	g.mu.Unlock()
}

// joinLoop tries to meet others, first often and then seldom: also those whom
// nobody here has met yet.
func (g *Gossip) joinLoop() {
	pause := joinMin
	for {
		joined := g.joinOnce()
		wait := rejoinEvery
		if !joined {
			wait = pause/2 + rand.N(pause)
			pause = min(2*pause, joinMax)
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-g.done:
			t.Stop()
			return
		}
	}
}

// joinOnce makes one attempt and reports whether this node has company, or
// needs none.
func (g *Gossip) joinOnce() bool {
	targets, err := resolveProviders(g.cfg.Join)
	g.mu.Lock()
	g.refused = nil
	targets = append(targets, g.remembered...)
	g.mu.Unlock()
	alone, missing := g.missing(targets)
	if len(missing) > 0 {
		if joinErr := g.joinEach(missing); joinErr != nil {
			err = joinError(missing, joinErr)
			g.mu.Lock()
			if g.refused != nil {
				err = g.refused
			}
			g.mu.Unlock()
		}
		alone, _ = g.missing(nil)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	joined := !alone || len(g.cfg.Join) == 0 && len(targets) == 0
	was := g.status
	g.status.Joined = g.status.Joined || joined
	g.status.Attempts++
	if g.status.Err = err; joined && g.refused == nil {
		g.status.Err = nil
	}
	if err != nil && !joined && (was.Err == nil || was.Err.Error() != err.Error()) {
		g.cfg.Logger.Warn("not joined yet", "attempts", g.status.Attempts, "err", err)
	}
	if was.Joined != g.status.Joined {
		g.cfg.Logger.Info("gossip joined", "attempts", g.status.Attempts)
	}
	g.changed.Fire()
	return joined
}

// joinEach tries one address after the other, each for seconds if nobody answers,
// until this node closes: whoever closes it waits for one of them at most. There is
// no error if any was reached.
func (g *Gossip) joinEach(addrs []string) (err error) {
	reached := 0
	for _, a := range addrs {
		select {
		case <-g.done:
			return nil
		default:
		}
		n, e := g.serf.Join([]string{a}, true)
		reached, err = reached+n, errors.Join(err, e)
	}
	if reached > 0 {
		return nil
	}
	return err
}

// missing returns the addresses at which no living member is, and whether this
// node is the only one.
func (g *Gossip) missing(targets []string) (alone bool, missing []string) {
	alone = true
	here := map[string]bool{g.addr: true}
	for _, n := range g.Members() {
		if n.Status == Alive {
			here[n.Gossip] = true
			alone = alone && n.ID == g.cfg.Node
		}
	}
	for _, a := range targets {
		if !here[a] && len(missing) < MaxJoinAddresses {
			here[a] = true
			missing = append(missing, a)
		}
	}
	return alone, missing
}

// mergeCheck keeps others out. The library asks it about every member that it
// hears of, so it is quick.
type mergeCheck struct{ g *Gossip }

// NotifyMerge refuses members of other clusters.
func (m mergeCheck) NotifyMerge(members []*serf.Member) error {
	for _, x := range members {
		if err := m.g.check(x); err != nil {
			m.g.mu.Lock()
			m.g.refused = err
			m.g.mu.Unlock()
			return err
		}
	}
	return nil
}

// check says why a member may not be one.
func (g *Gossip) check(x *serf.Member) *partition.Error {
	if name := x.Tags[tagCluster]; name != g.cfg.Cluster {
		return &partition.Error{
			Code: partition.CodeRefused,
			Why:  fmt.Sprintf("%s at %s belongs to the cluster %q, this node to %q", x.Name, memberAddress(x), name, g.cfg.Cluster),
			Next: "correct the join addresses, or the cluster name",
		}
	}
	if x.Name == string(g.cfg.Node) {
		g.checkSelf(x)
		return nil
	}
	if err := checkMember(x); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.known) >= maxGossipMembers && !g.known[partition.NodeID(x.Name)] {
		return partition.Errorf(partition.CodeTooLarge, "%s would be one member more than %d", x.Name, maxGossipMembers)
	}
	mine, other := g.tags[TagControlGroup], x.Tags[TagControlGroup]
	if mine != "" && other != "" && mine != other {
		return &partition.Error{
			Code: partition.CodeRefused,
			Why:  fmt.Sprintf("%s at %s belongs to the control group %s, this node to %s: two clusters were founded apart", x.Name, memberAddress(x), other, mine),
			Next: "keep them apart under different cluster names, or start one of them anew",
		}
	}
	return nil
}

// checkMember keeps out what no node of ours says of itself: a catalog or the
// routes of clients that name it could not be written.
func checkMember(x *serf.Member) *partition.Error {
	err := ValidateNodeID(partition.NodeID(x.Name))
	for _, t := range []struct {
		tag   string
		limit int
	}{{tagZone, partition.MaxZoneBytes}, {tagLink, maxAddressBytes}, {tagHTTP, maxAddressBytes}} {
		if v := x.Tags[t.tag]; err == nil && len(v) > t.limit {
			err = partition.Errorf(partition.CodeInvalid, "its tag %q has %d bytes, limit %d", t.tag, len(v), t.limit)
		}
	}
	if err == nil {
		return nil
	}
	return partition.Errorf(partition.CodeInvalid, "a member at %s is none of ours: %v", memberAddress(x), err)
}

// checkSelf looks at what others tell about this node's id. They may still know
// its past, but not its future, nor another place of its present.
func (g *Gossip) checkSelf(x *serf.Member) {
	g.mu.Lock()
	defer g.mu.Unlock()
	boot, at := parseUint(x.Tags[tagBoot]), memberAddress(x)
	elsewhere := g.addr != "" && at != g.addr
	old := boot < g.cfg.Boot && time.Since(g.started) < staleAfter
	if boot <= g.cfg.Boot && (!elsewhere || old) {
		return
	}
	if g.status.Duplicate == nil {
		g.cfg.Logger.Error("another process uses this node's id", "boot", boot, "address", at)
	}
	g.status.Duplicate = &partition.Error{
		Code: partition.CodeRefused,
		Why:  fmt.Sprintf("another process runs as node %s at %s (boot %d, this is boot %d)", g.cfg.Node, at, boot, g.cfg.Boot),
		Next: "stop one of them; a copied data directory must not be started",
	}
	g.changed.Fire()
}

func nodeOf(m *serf.Member) Node {
	status := Failed
	switch m.Status {
	case serf.StatusAlive:
		status = Alive
	case serf.StatusLeaving, serf.StatusLeft:
		status = Left
	}
	return Node{
		ID: partition.NodeID(m.Name), Boot: parseUint(m.Tags[tagBoot]), Status: status, Zone: m.Tags[tagZone],
		Gossip: memberAddress(m), Link: m.Tags[tagLink], HTTP: m.Tags[tagHTTP], Version: m.Tags[tagVersion],
		Expect: int(min(parseUint(m.Tags[tagExpect]), 1<<10)), Seat: m.Tags[TagSeat] == "1", ControlGroup: m.Tags[TagControlGroup],
		Mode: m.Tags[TagMode], Sick: m.Tags[TagSick],
	}
}

func memberAddress(m *serf.Member) string {
	return net.JoinHostPort(m.Addr.String(), strconv.Itoa(int(m.Port)))
}
