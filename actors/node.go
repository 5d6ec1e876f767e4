package actors

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"pando.dev/pando/actors/cert"
	"pando.dev/pando/actors/client"
	"pando.dev/pando/actors/copies"
	"pando.dev/pando/actors/link"
	"pando.dev/pando/cluster"
	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/lease"
	"pando.dev/pando/partition/replica"
	"pando.dev/pando/partition/store"
	"pando.dev/pando/wal"
)

const (
	// maxQueueBytes bounds the requests in the mailbox of one replica.
	maxQueueBytes = 64 << 20
	// maxLoading bounds the replicas that are opened at once.
	maxLoading = 4
)

// Node is a running member of a cluster. Its methods may be called from any
// goroutine.
type Node struct {
	cfg    Config
	logger *slog.Logger
	start  time.Time

	identity   *cluster.Identity
	suspects   *suspects
	service    *service
	tender     *tender
	anomalies  *anomalies
	splitter   *splitter
	loads      *loads
	merger     *merger
	reclaiming chan struct{} // who removes keys of others, one at a time
	sowing     chan struct{} // who makes the store of a seed, maxSowing at a time
	asker      *asker
	verifier   *verifier
	log        *wal.Log
	engine     *store.Engine
	system     *actor.ActorSystem
	leases     *lease.Table
	neighbours *neighbours // the leases as the replicas see them
	secure     link.TLS    // nil: plaintext, on loopback only
	links      *link.Links
	gossip     *cluster.Gossip
	control    *control.Control
	local      *client.Client

	recalled     *control.Catalog // as this node knew it before it was stopped; may be old
	cells        cells
	early        early
	routing      routeCache
	locker       *locker
	announcer    *announcer
	returner     *returner
	counters     counters
	loading      chan struct{}
	controlGroup uint64        // which the replicas here were made by; 0: not known
	linkDown     chan struct{} // a link broke; see watchNeighbours

	supervisor *actor.PID
	replicas   atomic.Pointer[actor.PID]
	copies     *copies.Copies

	// members is who gossip said is there, at the last reconciliation.
	members atomic.Pointer[[]cluster.Node]
	// up is set when everything is assembled; before it, what comes from the
	// network is refused.
	up           atomic.Bool
	incarnations atomic.Uint64
	closing      atomic.Bool
	leave        bool            // set by Stop before closeAll: say goodbye
	stopped      chan struct{}   // closed when Stop has ended
	stopErr      error           // of Stop, once stopped is closed
	ending       atomic.Value    // string: what closeAll waits for, for who waits for it
	ctx          context.Context // ends when the node stops
	cancel       context.CancelFunc
	background   sync.WaitGroup
	writes       latencies    // of the log, for the governor of copies
	fetching     atomic.Int64 // reads that masters answer for this node
}

// Start opens the data directory, joins the cluster and starts the replicas that
// the node holds. It returns when the node answers; Ready says when it serves.
func Start(ctx context.Context, cfg Config) (*Node, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	n := &Node{cfg: cfg, start: time.Now(), loading: make(chan struct{}, maxLoading), linkDown: make(chan struct{}, 1), stopped: make(chan struct{})}
	n.loads = newLoads(n)
	n.tender, n.asker = newTender(n), &asker{node: n, hint: make(chan struct{}, 1)}
	n.merger = &merger{node: n, running: make(map[partition.GroupID]*merging)}
	n.splitter, n.reclaiming = &splitter{node: n, running: make(map[partition.GroupID]*splitting)}, make(chan struct{}, 1)
	n.sowing = make(chan struct{}, maxSowing)
	n.verifier = newVerifier(n)
	n.ctx, n.cancel = context.WithCancel(context.WithoutCancel(ctx))
	for _, step := range []func() error{n.openDisk, n.openNetwork, n.openCluster, n.openActors} {
		if err := step(); err != nil {
			n.closeAll()
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			n.closeAll()
			return nil, err
		}
	}
	n.logger.Info("node started", "link", n.LinkAddr(), "gossip", n.GossipAddr(), "boot", n.identity.Boot, "zone", cfg.Zone)
	return n, nil
}

func (n *Node) openDisk() error {
	id, err := cluster.OpenIdentity(n.cfg.Dir, cluster.IdentityOptions{Cluster: n.cfg.Cluster, Node: n.cfg.NodeID})
	if err != nil {
		return err
	}
	n.identity = id
	n.logger = n.cfg.Logger.With("node", id.Node)
	n.anomalies = newAnomalies(n)
	if n.suspects, err = openSuspects(n.cfg.Dir); err != nil {
		return err
	}
	if n.service, err = openService(n.cfg.Dir); err != nil {
		return err
	}
	log, found, err := wal.Open(n.cfg.logFS, filepath.Join(n.cfg.Dir, "wal"), wal.Options{
		Node: id.Node, Incarnation: id.Boot, SegmentBytes: n.cfg.WALSegmentBytes, Logger: n.logger, Fatal: n.cfg.Fatal,
		DiskFree: n.cfg.diskFree, SoftCapBytes: n.cfg.WALCapBytes,
	})
	if err != nil {
		return fmt.Errorf("open the log in %s: %w", n.cfg.Dir, err)
	}
	n.log = log
	n.engine, err = store.NewEngine(store.Options{
		Dir: n.cfg.Dir, MemoryBytes: n.cfg.MemoryBytes, CacheBytes: n.cfg.CacheBytes, Logger: n.logger, Fatal: n.cfg.Fatal,
		Pace:    func(ctx context.Context, bytes int) error { return n.copies.Pace(ctx, bytes) },
		Durable: func(g partition.GroupID, generation uint32, i partition.Index) { n.log.SetFlushed(g, i, generation) },
	})
	if err != nil {
		return fmt.Errorf("open the stores in %s: %w", n.cfg.Dir, err)
	}
	return n.checkDisk(found)
}

// checkDisk reports what the log found, and refuses a node whose log was lost
// while its state was not: it would have forgotten its promises.
func (n *Node) checkDisk(found *wal.Report) error {
	for _, l := range found.Lost {
		n.logger.Error("records lost on disk", "group", l.Group, "from", l.From, "to", l.To, "why", l.Why)
	}
	for _, note := range found.Notes {
		n.logger.Warn("damage in the log", "what", note)
	}
	if found.Nameless {
		n.logger.Error("the end of the log is missing, and may have held replicas that nothing else names",
			"next", "nothing: what was here is replaced by its groups; look for what has cut or removed files below "+n.cfg.Dir)
		if err := n.suspects.add(nil, true); err != nil {
			return fmt.Errorf("write down that replicas may be lost: %w", err)
		}
	}
	if found.TornBytes > 0 {
		n.logger.Info("torn end of the log cut", "bytes", found.TornBytes)
	}
	on, err := n.engine.Generations()
	if err != nil {
		return fmt.Errorf("list the stores in %s: %w", n.cfg.Dir, err)
	}
	if found.Fresh && len(on) > 0 {
		return &partition.Error{
			Code: partition.CodeCorrupt,
			Why:  fmt.Sprintf("the log in %s is gone, but %d replicas are still there: the node has forgotten what it promised", n.cfg.Dir, len(on)),
			Next: "put the log back, or start this node anew in an empty directory",
		}
	}
	for _, s := range on {
		sum, ok := n.log.Summary(s.Group)
		if ok && (sum.Generation == s.Generation || sum.Damage != nil) {
			continue // of a damaged replica the log may not know the generation any more
		}
		if err := n.engine.Drop(s.Group, s.Generation); err != nil {
			return fmt.Errorf("remove a store that no log record names: %w", err)
		}
	}
	return nil
}

func (n *Node) openNetwork() error {
	n.system = actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger {
		return slog.New(demoted{n.logger.Handler()})
	}))
	n.leases = lease.New(lease.Config{Self: n.ID(), Boot: n.identity.Boot, Now: n.now, Lease: n.cfg.Lease})
	n.neighbours = newNeighbours(n.ID(), n.leases)
	if err := n.openLeases(); err != nil {
		return err
	}
	if err := n.openCertificates(); err != nil {
		return err
	}
	var err error
	n.copies, err = copies.New(copies.Config{
		Dir: n.cfg.Dir, Host: copyHost{n}, BytesPerSecond: n.cfg.CopyBytesPerSecond, Logger: n.logger,
		Verify: n.engine.Verify,
		Open: func(ctx context.Context, to partition.NodeID) (copies.Stream, error) {
			return n.links.OpenBulk(ctx, to)
		},
	})
	if err != nil {
		return fmt.Errorf("prepare copies in %s: %w", n.cfg.Dir, err)
	}
	links, err := link.Start(link.Config{
		System: n.system, Node: n.ID(), Boot: n.identity.Boot, Cluster: n.cfg.Cluster, Listen: n.cfg.Listen,
		TLS: n.secure, Leases: n.leases, Now: n.now, Logger: n.logger,
		Resolve: n.resolve, OnFrame: n.onFrame, OnCall: n.onCall,
		OnDown: func(partition.NodeID, uint64) {
			select {
			case n.linkDown <- struct{}{}:
			default: // a look is due already
			}
		},
		OnClient: n.serveClient,
		OnBulk:   func(from partition.NodeID, b *link.Bulk) { n.copies.Serve(from, b) },
	})
	if err != nil {
		return err
	}
	n.links = links
	return nil
}

// openCertificates loads the node's certificates, if it has any, and refuses
// those of somebody else, which every other node would refuse later.
func (n *Node) openCertificates() error {
	if n.cfg.TLSDir == "" {
		return nil
	}
	files, err := cert.Open(n.cfg.TLSDir, n.logger, nil)
	if err != nil {
		return err
	}
	if files.Role() != cert.Node || files.Name() != string(n.ID()) {
		return &partition.Error{
			Code: partition.CodeRefused,
			Why:  fmt.Sprintf("the certificate in %s is for %s %q, this is node %s", n.cfg.TLSDir, files.Role(), files.Name(), n.ID()),
			Next: "make one for this data directory with: pando cert node --dir",
		}
	}
	n.secure = files
	return nil
}

// openLeases makes the lease table as strict as it was before the restart, and
// opens it: every replica on disk may have promised an epoch of which the
// holders of older leases were not told. One that lost records may have promised
// anything; if the members are lost as well the node grants nothing at all.
func (n *Node) openLeases() error {
	for g, hard := range n.log.Groups() {
		sum, ok := n.log.Summary(g)
		if !ok {
			continue
		}
		if sum.Damage != nil || n.suspects.has(g, hard.Replica) {
			if !n.distrust(g) {
				n.logger.Error("no leases are granted before the damaged replica is replaced", "group", g)
				return nil
			}
			continue
		}
		nodes, err := membersOf(sum)
		if err != nil {
			return err
		}
		for _, node := range nodes {
			n.leases.Revoke(g, sum.Replica, hard.Promise, node)
		}
	}
	n.leases.Open()
	return nil
}

func (n *Node) openCluster() error {
	var key []byte
	var err error
	if n.cfg.GossipKeyFile != "" {
		if key, err = cluster.ReadKey(n.cfg.GossipKeyFile); err != nil {
			return err
		}
	}
	n.gossip, err = cluster.StartGossip(cluster.GossipConfig{
		Node: n.ID(), Boot: n.identity.Boot, Cluster: n.cfg.Cluster, Zone: n.cfg.Zone, Bind: n.cfg.Gossip,
		Advertise: n.cfg.GossipAdvertise, LinkAddr: cmp.Or(n.cfg.Advertise, n.LinkAddr()), HTTPAddr: n.cfg.HTTP, Version: Version,
		Expect: n.cfg.Expect, Mode: n.service.now().tag(), Key: key, Dir: n.cfg.Dir, Join: n.cfg.Join, LeaveDelay: leaveDelay, Logger: n.logger,
	})
	if err != nil {
		return err
	}
	n.control, err = control.Start(control.Config{
		Node: n.ID(), Boot: n.identity.Boot, Dir: filepath.Join(n.cfg.Dir, "control"), Expect: n.cfg.Expect,
		Transport: controlTransport{n}, Peers: n.controlPeers, Joined: func() bool { return n.gossip.Status().Joined }, Now: n.now, Logger: n.logger,
		OnStale: func(err error) { n.background.Go(func() { n.stale(err) }) },
	})
	if err != nil {
		return fmt.Errorf("start the control group: %w", err)
	}
	n.recalled = n.recallCatalog()
	n.locker = &locker{service: n.control, ctx: n.ctx, spawn: n.background.Go}
	n.returner = &returner{service: n.control, ctx: n.ctx, spawn: n.background.Go, logger: n.logger}
	n.announcer = &announcer{catalog: n.control, ctx: n.ctx, spawn: n.background.Go}
	return nil
}

func (n *Node) openActors() error {
	root := newSupervisor(n)
	props := actor.PropsFromProducer(func() actor.Actor { return root }, actor.WithSupervisor(root.strategy))
	pid, err := n.system.Root.SpawnNamed(props, "node")
	if err != nil {
		return fmt.Errorf("start the node's supervisor: %w", err)
	}
	n.supervisor = pid
	n.background.Go(n.keepLogShort)
	n.background.Go(n.watchNeighbours)
	n.background.Go(n.tellSeat)
	n.background.Go(n.tellMode)
	n.background.Go(n.tender.tick)
	n.background.Go(n.splitter.watch)
	n.background.Go(n.loads.run)
	n.background.Go(n.merger.watch)
	n.background.Go(n.asker.run)
	n.background.Go(newTaskRunner(n).run)
	n.background.Go(n.emptyNodes)
	if n.cfg.AutoRebalance {
		n.background.Go(n.autoBalance)
	}
	n.background.Go(n.governCopies)
	n.background.Go(n.rememberCatalog)
	n.background.Go(n.anomalies.run)
	n.background.Go(n.anomalies.tellSick)
	n.local, err = client.Open(n.ctx, client.Config{
		Local: client.Local{Node: n.ID(), Backend: backend{n}}, Dial: n.dialNode, Zone: n.cfg.Zone, Logger: n.logger,
	})
	return err
}

// Stop ends the node in order: it takes no more requests, stops its replicas and
// links, so that others take over at once, says goodbye, and makes everything
// appended durable. If ctx ends first it returns, and the end goes on. A further
// call waits for the same end.
func (n *Node) Stop(ctx context.Context) error {
	if !n.closing.Swap(true) {
		n.leave = true
		go func() {
			n.stopErr = n.closeAll()
			close(n.stopped)
		}()
	}
	select {
	case <-n.stopped:
		return n.stopErr
	case <-ctx.Done():
		return fmt.Errorf("stop node %s: still waiting for %v: %w", n.ID(), n.ending.Load(), ctx.Err())
	}
}

// closeAll closes what was opened, the other way round.
func (n *Node) closeAll() error {
	n.closing.Store(true)
	n.ending.Store("its masterships")
	if n.up.Load() {
		n.resignAll()
	}
	n.cancel()
	var errs []error
	n.ending.Store("its client")
	if n.local != nil {
		n.local.Close()
	}
	n.ending.Store("its actors")
	if n.supervisor != nil {
		errs = append(errs, n.system.Root.StopFuture(n.supervisor).Wait())
	}
	n.ending.Store("the control group")
	if n.control != nil {
		errs = append(errs, n.control.Close())
	}
	n.ending.Store("copies and links")
	if n.copies != nil {
		errs = append(errs, n.copies.Close())
	}
	if n.links != nil {
		n.links.Close()
	}
	n.ending.Store("gossip")
	if n.gossip != nil {
		if n.leave {
			if err := n.gossip.Leave(leaveWait); err != nil {
				n.logger.Info("left without word", "err", err)
			}
		}
		errs = append(errs, n.gossip.Close())
	}
	n.ending.Store("what runs in the background")
	n.background.Wait()
	n.ending.Store("the log and the state")
	if n.system != nil {
		n.system.Shutdown()
	}
	if n.log != nil {
		errs = append(errs, n.log.Close())
	}
	if n.engine != nil {
		errs = append(errs, n.engine.Close())
	}
	if n.identity != nil {
		errs = append(errs, n.identity.Close())
	}
	return errors.Join(errs...)
}

// ID is the node's id.
func (n *Node) ID() partition.NodeID { return n.identity.Node }

// Client returns the node's own client: it answers from the replicas here
// without a socket and reaches the others over the network.
func (n *Node) Client() *client.Client { return n.local }

// LinkAddr is where links and clients connect.
func (n *Node) LinkAddr() string { return n.links.Addr() }

// GossipAddr is where other nodes join.
func (n *Node) GossipAddr() string { return n.gossip.Address() }

// now is the clock of all events and leases of this node.
func (n *Node) now() partition.Time { return time.Since(n.start) }

// trace reports what the protocol machines do.
func (n *Node) trace(e replica.TraceEvent) {
	n.logger.Debug(e.What, "group", e.Group, "replica", e.Self, "epoch", e.Epoch.String())
}
