package actors

import (
	"fmt"
	"log/slog"
	"net"
	"time"

	"pando.dev/pando/cluster/detector"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/kv"
	"pando.dev/pando/split"
	"pando.dev/pando/wal"
)

// Config is what a node is started with. Dir is required; the zero value of
// every other field works and gives a node for this machine only.
type Config struct {
	// Dir holds everything the node keeps: identity, log, stores, catalog.
	Dir string
	// Cluster is the name that all nodes of a cluster share (default "pando").
	// It is fixed on the first start.
	Cluster string
	// NodeID is used on the first start instead of a minted one.
	NodeID partition.NodeID
	// Zone is what fails together: a rack, a site (default "default").
	Zone string

	// Listen is where links, raft streams and clients connect (default
	// 127.0.0.1:7101). Gossip is for UDP and TCP (default 127.0.0.1:7201).
	// Advertise and GossipAdvertise, if set, are what other nodes dial instead.
	Listen, Advertise       string
	Gossip, GossipAdvertise string
	// HTTP is only told to others; who embeds a node serves it.
	HTTP string
	// Join says where other nodes may be found: "host:port" of their gossip
	// address, or "file:/path" with one address per line. Nodes seen earlier
	// are tried as well. It is ignored once the node belongs to a cluster.
	Join []string
	// Expect, if not 0, makes this node a candidate for a seat of the control
	// group, which starts when that many candidates have been seen: 1, 3 or 5.
	// More seats tolerate more failures and cost more per decision.
	Expect int

	// TLSDir holds ca.pem, cert.pem and key.pem, as `pando cert` makes them.
	// Without it the node refuses to listen beyond loopback.
	TLSDir string
	// GossipKeyFile holds the 32-byte gossip key in hexadecimal digits, as `pando cert gossip-key` makes it; without it the node
	// refuses to gossip beyond loopback.
	GossipKeyFile string

	// Kinds are the partition kinds besides the built-in "kv", by the name that
	// tables are created with. Every node that may hold a replica of a table needs
	// its kind; without it the replica is given up until the node is started with
	// it.
	Kinds map[string]partition.Factory

	// WALSegmentBytes is the size of a segment of the log (default 64 MiB, at
	// least 64 KiB, a multiple of 4 KiB); give all nodes the same. A node keeps at
	// least four, so it takes 256 MiB of disk at once. Smaller segments give space
	// back earlier; larger ones mean fewer rotations. A record is at most half of
	// a segment, and what the log knows of all replicas, about 300 bytes each, at
	// most a quarter of one: 64 MiB are enough for 50,000 replicas.
	WALSegmentBytes int64
	// WALCapBytes is how large the log may grow for the sake of members that are
	// away (default 4 GiB, and never more than half of what it has and what is free
	// on its disk). Beyond it the records they lack are let go, and they get a copy
	// of the state when they come back.
	WALCapBytes int64
	// MemoryBytes is what all replicas together may hold in memory before it is
	// flushed (default 256 MiB). More means fewer flushes and less written in
	// all; a restart after a crash replays at most this much, about a second per
	// 300 MiB. At the limit replicas wait for a flush and refuse commands.
	MemoryBytes int64
	// CacheBytes is the cache of all replicas together for what they read from
	// disk (default 256 MiB). It comes on top of MemoryBytes.
	CacheBytes int64
	// QueueMessages bounds the mailbox of one replica (default 16,384); a full
	// one answers busy. A queue longer than what the replica handles within its
	// clients' patience only makes them wait for a refusal.
	QueueMessages int
	// CopyBytesPerSecond bounds what this node sends of whole states to replicas
	// that are brought up (default 64 MiB/s, negative: no bound).
	CopyBytesPerSecond int64
	// MergeBytes is how much the partition may have that another one absorbs (default
	// 64 MiB): all of it goes through the other one's log, and is read once more while
	// it takes no requests.
	MergeBytes int64
	// Lease is the length of a grant between two nodes (default 300 ms, allowed
	// are 50 ms to 1 m); give all nodes the same. It is how long a node may be
	// silent before its masters lose their leases and others stand for election,
	// and it bounds how long a new master waits before it acknowledges: shorter
	// leases shorten a failover, longer ones outlast longer pauses. Heartbeats
	// come every 75 ms, so below 150 ms a single late one costs the lease.
	Lease time.Duration

	// LogAfter is how long a member may be away before a log replica stands in for
	// it on another node (default 10 s). A group that has lost a member survives
	// another loss again a moment later; a shorter time costs two changes of each
	// group for every node that only restarts.
	LogAfter time.Duration
	// ReplaceAfter is how long a member may be away before it is replaced for good
	// by a copy on another node (default 5 m). A node that was drained by an
	// operator is not replaced.
	ReplaceAfter time.Duration

	// Anomalies is what is done when nodes find that one of them limps, with a slow
	// disk or too little processor: act, the default, has it hand masterships over
	// while it is so, a tenth a minute; observe only says so, and off does not look.
	Anomalies string
	// AutoRebalance has this node, while it leads the control group, carry out by
	// itself what Rebalance would plan: for nodes that have come, and for those that
	// have carried too much for half a minute. Give all nodes the same.
	AutoRebalance bool

	// Logger receives what an operator would act on (default: nothing).
	Logger *slog.Logger
	// Fatal is called when the node must not go on, such as after a failed
	// sync; it must end the process. Default: panic.
	Fatal func(error)

	// diskFree, if set, is asked for the free and total bytes of the log's disk;
	// for tests, which cannot fill one.
	diskFree func() (free, total int64, err error)
	// logFS, if set, holds the log; for tests, which slow it down.
	logFS wal.FS
	// detect, if set, is how sensitive the detector is, and its Every how often this
	// node measures itself; for tests, which do not have minutes.
	detect detector.Config
	// onSplit, if set, is told of each step of a split before it is taken; for tests,
	// which stop nodes there.
	onSplit func(*Node, *split.Step)
	// onMerge is the same for merges, with the group that the step is of.
	onMerge func(*Node, partition.GroupID, *split.Step)
	// coldLook and coldFor, if set, are how often cold neighbours are looked for and
	// how long they have to be cold; for tests.
	coldLook, coldFor time.Duration
	// autoLook, if set, is how often AutoRebalance looks; for tests.
	autoLook time.Duration
	// untended leaves the groups mastered here as they are; for tests, which change
	// them on their own.
	untended bool
}

func (c Config) withDefaults() Config {
	def := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	def(&c.Cluster, "pando")
	def(&c.Zone, "default")
	def(&c.Listen, "127.0.0.1:7101")
	def(&c.Gossip, "127.0.0.1:7201")
	if c.WALSegmentBytes == 0 {
		c.WALSegmentBytes = 64 << 20
	}
	if c.MemoryBytes == 0 {
		c.MemoryBytes = 256 << 20
	}
	if c.CacheBytes == 0 {
		c.CacheBytes = 256 << 20
	}
	if c.MergeBytes <= 0 {
		c.MergeBytes = split.MergeBytes
	}
	if c.QueueMessages == 0 {
		c.QueueMessages = 16384
	}
	if c.Lease == 0 {
		c.Lease = 300 * time.Millisecond
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Fatal == nil {
		c.Fatal = func(err error) { panic(err) }
	}
	if c.logFS == nil {
		c.logFS = wal.OS{}
	}
	kinds := map[string]partition.Factory{"kv": kv.New}
	for name, f := range c.Kinds {
		kinds[name] = f
	}
	c.Kinds = kinds
	return c
}

// unspecified reports whether a host stands for all addresses of the machine.
func unspecified(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}

func (c Config) validate() error {
	switch {
	case c.Dir == "":
		return &partition.Error{Code: partition.CodeInvalid, Why: "no data directory is given", Next: "set Dir (--dir)"}
	case c.Expect != 0 && c.Expect != 1 && c.Expect != 3 && c.Expect != 5:
		return &partition.Error{
			Code: partition.CodeInvalid, Why: fmt.Sprintf("%d seats are expected for the control group", c.Expect),
			Next: "use 1, 3 or 5",
		}
	case len(c.Zone) > partition.MaxZoneBytes:
		return partition.Errorf(partition.CodeTooLarge, "a zone name of %d bytes, limit %d", len(c.Zone), partition.MaxZoneBytes)
	case c.Lease < 50*time.Millisecond || c.Lease > time.Minute:
		return partition.Errorf(partition.CodeInvalid, "a lease of %v, allowed are 50ms to 1m", c.Lease)
	}
	if host, _, err := net.SplitHostPort(c.Listen); c.TLSDir != "" && c.Advertise == "" && err == nil && unspecified(host) {
		return &partition.Error{
			Code: partition.CodeInvalid, Why: fmt.Sprintf("others cannot dial %s", c.Listen),
			Next: "set Advertise (--advertise) to the address of this node",
		}
	}
	if _, err := detector.ParseMode(c.Anomalies); err != nil {
		return err
	}
	for name := range c.Kinds {
		if name == "" || c.Kinds[name] == nil {
			return partition.Errorf(partition.CodeInvalid, "partition kind %q has no factory", name)
		}
	}
	return nil
}
