package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"pando.dev/pando/actors"
	"pando.dev/pando/partition"
)

// nodeFlags are the flags of pando node.
type nodeFlags struct {
	member              memberConfig
	id                  string
	drainTimeout        time.Duration
	logFormat, logLevel string
}

func (c *cli) nodeCommand() *cobra.Command {
	var n nodeFlags
	cmd := &cobra.Command{
		Use: "node", Short: "Run a node until it is told to stop; drain nodes", Args: noSuchCommand,
		Long: "Runs one node in the foreground. Prints one line with its addresses when it serves.\n" +
			"SIGTERM or Ctrl-C ends it in order: others take over first, at most for\n" +
			"--drain-timeout; a second one ends it at once. Beyond loopback it wants certificates (--tls-dir)\n" +
			"and a gossip key (--gossip-key-file); see pando cert.",
		Example: "  pando node --dir d1 --zone a --expect 3 --join 127.0.0.1:7201",
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.runNode(cmd.Context(), n) },
	}
	n.register(cmd)
	cmd.AddCommand(c.nodeLs(), c.nodeDrain(), c.nodeUndrain(), c.nodeDecommission(), c.nodeRecommission())
	return cmd
}

func (n *nodeFlags) register(cmd *cobra.Command) {
	f, cfg := cmd.Flags(), &n.member.node
	f.StringVar(&cfg.Dir, "dir", "", "data directory (required)")
	f.StringVar(&cfg.Cluster, "cluster", "pando", "name that all nodes of a cluster share; fixed on the first start")
	f.StringVar(&n.id, "id", "", "node id on the first start, instead of a minted one")
	f.StringVar(&cfg.Zone, "zone", "default", "what fails together with this node: a rack, a site")
	f.StringVar(&cfg.Listen, "listen", "127.0.0.1:7101", "address for links and clients")
	f.StringVar(&cfg.Advertise, "advertise", "", "what other nodes dial instead of --listen")
	f.StringVar(&cfg.Gossip, "gossip", "127.0.0.1:7201", "address for gossip, TCP and UDP")
	f.StringVar(&cfg.GossipAdvertise, "gossip-advertise", "", "what other nodes dial instead of --gossip")
	f.StringVar(&n.member.http, "http", defaultHTTP, "address for HTTP: health, metrics, API")
	f.StringVar(&n.member.httpAdvertise, "http-advertise", "", "what is told to others instead of --http")
	f.StringSliceVar(&cfg.Join, "join", nil, "gossip addresses of other nodes, host:port,..., or file:/path; may be repeated")
	f.IntVar(&cfg.Expect, "expect", 0, "take a seat of the control group when so many want one: 1, 3 or 5")
	f.StringVar(&cfg.GossipKeyFile, "gossip-key-file", "", "file with the gossip key, as made by pando cert gossip-key")
	f.Int64Var(&cfg.WALSegmentBytes, "wal-segment-bytes", 0, "size of a log segment (default 64 MiB)")
	f.Int64Var(&cfg.MemoryBytes, "memory-bytes", 0, "unflushed state of all replicas (default 256 MiB)")
	f.Int64Var(&cfg.CacheBytes, "cache-bytes", 0, "cache of all replicas (default 256 MiB)")
	f.BoolVar(&cfg.AutoRebalance, "auto-rebalance", false, "carry out by itself what pando rebalance would plan; give all nodes the same")
	f.DurationVar(&cfg.LogAfter, "log-after", 0, "how long a member is away before a log replica stands in (default 10s)")
	f.DurationVar(&cfg.ReplaceAfter, "replace-after", 0, "how long a member is away before it is replaced for good (default 5m)")
	f.StringVar(&cfg.Anomalies, "anomalies", "act", "when a node is found to limp: act (hand masterships over), observe or off")
	f.DurationVar(&n.drainTimeout, "drain-timeout", 10*time.Second, "how long a node that stops waits until others have taken over; 0 does not wait")
	f.BoolVar(&n.member.pprof, "pprof", false, "serve /debug/pprof/ to admins")
	f.StringVar(&n.logFormat, "log-format", "text", "log on the standard error as text or json")
	f.StringVar(&n.logLevel, "log-level", "info", "least level that is logged: debug, info, warn or error")
	must(cmd.MarkFlagDirname("dir"))
}

func (c *cli) runNode(ctx context.Context, n nodeFlags) error {
	if n.member.node.Dir == "" {
		return &usageError{errors.New("no data directory is given: --dir")}
	}
	if cfg := n.member.node; c.tlsDir != "" && cfg.Advertise == "" && everyInterface(cfg.Listen) {
		return &usageError{fmt.Errorf("nobody can dial %s: say with --advertise host:port where others reach this node", cfg.Listen)}
	}
	logger, err := newLogger(c.err, n.logFormat, n.logLevel)
	if err != nil {
		return err
	}
	cfg := n.member
	cfg.logger, cfg.node.Logger = logger, logger
	cfg.node.NodeID, cfg.node.TLSDir = partition.NodeID(n.id), c.tlsDir
	cfg.node.Fatal = c.fatal
	m, err := startMember(ctx, cfg)
	if err != nil {
		return err
	}
	err = m.waitReady(ctx, func(why error) { logger.Info("not ready yet", "why", why) })
	if err == nil {
		c.announce(cfg.node, m)
		select {
		case <-ctx.Done():
		case <-m.web.Done():
			err = errors.New("the HTTP listener has ended")
		}
	} else if ctx.Err() != nil {
		err = nil // stopped before it was ready, as it was told to
	}
	logger.Info("stopping")
	if err == nil {
		m.prepareStop(ctx, n.drainTimeout, cfg)
	}
	return errors.Join(err, m.stop(ctx))
}

// everyInterface reports whether addr listens everywhere, which is no address
// that another machine can dial.
func everyInterface(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false // is refused elsewhere
	}
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}

// fatal ends the process at once, as after a failed sync: what was promised on
// disk is not known to be there, so nothing more may be said.
func (c *cli) fatal(err error) {
	c.printError(fmt.Errorf("the node must not go on: %w", err))
	if errors.Is(err, partition.ErrSessionExpired) {
		startAgain()
	}
	os.Exit(exitError)
}

// startedAgain, in the environment, tells a process that it was started in the
// place of another one.
const startedAgain = "PANDO_STARTED_AGAIN"

// startAgain begins this program anew in the same process, once. A node whose disk
// was lost or put back from a copy has written down that it trusts none of its
// replicas, and takes part again with new ones. A second time there are two
// processes that use one identity, and an operator must end one of them.
func startAgain() {
	program, err := os.Executable()
	if err != nil || os.Getenv(startedAgain) != "" {
		return
	}
	// Only if this fails it returns; then the process ends.
	_ = syscall.Exec(program, os.Args, append(os.Environ(), startedAgain+"=1"))
}

// readyLine is what a node prints when it serves.
type readyLine struct {
	Node    partition.NodeID `json:"node"`
	Cluster string           `json:"cluster"`
	Zone    string           `json:"zone"`
	Link    string           `json:"link"`
	Gossip  string           `json:"gossip"`
	HTTP    string           `json:"http"`
}

func (c *cli) announce(cfg actors.Config, m *member) {
	l := readyLine{m.node.ID(), cfg.Cluster, cfg.Zone, m.node.LinkAddr(), m.node.GossipAddr(), m.web.Addr()}
	if c.output == "json" {
		c.printJSONLine(l)
		return
	}
	fmt.Fprintf(c.out, "node %s is ready: cluster %s, zone %s, link %s, gossip %s, http %s\n", l.Node, l.Cluster, l.Zone, l.Link, l.Gossip, l.HTTP)
}

func newLogger(w io.Writer, format, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, &usageError{fmt.Errorf("log level %q is none of debug, info, warn, error", level)}
	}
	opts := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return nil, &usageError{fmt.Errorf("log format %q is neither text nor json", format)}
}
