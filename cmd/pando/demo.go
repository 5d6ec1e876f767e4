package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"pando.dev/pando/actors"
	"pando.dev/pando/actors/httpapi"
	"pando.dev/pando/partition"
)

// demo is three nodes in this process, with a table and a load on it.
type demo struct {
	cli     *cli
	keep    bool
	noLoad  bool
	rate    int
	every   time.Duration
	verbose bool
	script  bool
	pause   time.Duration

	dir   string
	nodes []*member
}

const (
	demoTable   = "demo"
	demoSegment = 16 << 20 // bytes of a log segment
)

func (c *cli) demoCommand() *cobra.Command {
	d := &demo{cli: c}
	cmd := &cobra.Command{
		Use: "demo", Short: "Run three nodes in one process, with a small load", Args: cobra.NoArgs,
		Long: "Starts three nodes in three zones inside this process, creates the table demo, puts a\n" +
			"small load on it, and says what to try: a hot range, a split, a fourth node, a rebalance.\n" +
			"Ctrl-C ends it and removes its data. With --script it does all of that by itself, and ends.",
		Example: "  pando demo\n  pando demo --script",
		RunE:    func(cmd *cobra.Command, _ []string) error { return d.run(cmd.Context()) },
	}
	f := cmd.Flags()
	f.StringVar(&d.dir, "dir", "", "keep the data in this directory (default: a new one below the temporary directory)")
	f.BoolVar(&d.keep, "keep", false, "do not remove the data at the end")
	f.BoolVar(&d.noLoad, "no-load", false, "put no load on the table")
	f.IntVar(&d.rate, "rate", 500, "operations per second of the load")
	f.DurationVar(&d.every, "every", 5*time.Second, "how often to print a line about the load")
	f.BoolVar(&d.script, "script", false, "run the whole story, one command after the other, and end")
	f.DurationVar(&d.pause, "pause", 2*time.Second, "with --script: how long the load goes on between two commands")
	f.BoolVar(&d.verbose, "verbose", false, "print the nodes' logs")
	return cmd
}

func (d *demo) run(ctx context.Context) (err error) {
	switch {
	case d.rate < 1 || d.every <= 0:
		return &usageError{fmt.Errorf("rate %d and every %v must be positive", d.rate, d.every)}
	case d.script && d.noLoad:
		return &usageError{errors.New("--script is a story about a load, --no-load leaves none")}
	}
	if err := d.prepareDir(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stop(ctx)) }()
	if err := d.start(ctx); err != nil {
		return d.interrupted(ctx, err)
	}
	d.explain()
	switch {
	case d.script:
		return d.interrupted(ctx, d.scripted(ctx))
	case d.noLoad:
		<-ctx.Done()
	default:
		d.load(ctx, newDemoLoad())
	}
	return d.interrupted(ctx, context.Cause(ctx))
}

// interrupted turns the end that was asked for into success.
func (d *demo) interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled) {
		return nil
	}
	return err
}

// scripted runs the story while the load goes on.
func (d *demo) scripted(ctx context.Context) error {
	loading, end := context.WithCancel(ctx)
	l, ended := newDemoLoad(), make(chan struct{})
	go func() {
		defer close(ended)
		d.load(loading, l)
	}()
	err := d.tell(ctx, l)
	end()
	<-ended
	return err
}

func (d *demo) prepareDir() (err error) {
	if d.dir != "" {
		d.keep = true
		return os.MkdirAll(d.dir, 0o700)
	}
	if d.dir, err = os.MkdirTemp("", "pando-demo-"); err != nil {
		return fmt.Errorf("make a directory for the demo: %w", err)
	}
	return nil
}

// start brings up the nodes and the table.
func (d *demo) start(ctx context.Context) error {
	for i, zone := range []string{"a", "b", "c"} {
		if err := d.startNode(ctx, i, zone); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var last error
	for _, m := range d.nodes {
		if err := m.waitReady(ctx, func(why error) { last = why }); err != nil {
			return errors.Join(err, last)
		}
	}
	return d.createTable(ctx)
}

// startNode starts a node, which joins the first.
func (d *demo) startNode(ctx context.Context, i int, zone string) error {
	logger := slog.New(slog.DiscardHandler)
	if d.verbose {
		logger = slog.New(slog.NewTextHandler(d.cli.err, nil))
	}
	id := fmt.Sprintf("n%d", i+1)
	cfg := memberConfig{logger: logger, http: freePort(7301 + i), node: actors.Config{
		Dir: filepath.Join(d.dir, id), Cluster: "demo", NodeID: partition.NodeID(id),
		Zone: zone, Listen: freePort(7101 + i), Gossip: freePort(7201 + i), Expect: 3, Logger: logger,
		WALSegmentBytes: demoSegment, MemoryBytes: 64 << 20, CacheBytes: 64 << 20, Fatal: d.cli.fatal,
	}}
	if len(d.nodes) > 0 {
		cfg.node.Join = []string{d.nodes[0].node.GossipAddr()}
	}
	m, err := startMember(ctx, cfg)
	if err != nil {
		return fmt.Errorf("start node %s: %w", id, err)
	}
	d.nodes = append(d.nodes, m)
	return nil
}

func (d *demo) createTable(ctx context.Context) error {
	spec := actors.TableSpec{Name: demoTable, Replicas: 3, SplitPoints: [][]byte{[]byte("user-25"), []byte("user-50"), []byte("user-75")}}
	if _, err := d.nodes[0].node.CreateTable(ctx, spec); err != nil && !errors.Is(err, partition.ErrExists) {
		return fmt.Errorf("create the table: %w", err)
	}
	api := &httpapi.Client{Addrs: []string{d.nodes[0].web.Addr()}}
	return waitForMasters(ctx, api, demoTable, 15*time.Second)
}

// freePort is the loopback address with the port, if it is free, and with any
// free port otherwise.
func freePort(port int) string {
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return "127.0.0.1:0"
	}
	_ = l.Close() // nothing was accepted
	return addr
}

func (d *demo) stop(ctx context.Context) error {
	errs := make([]error, len(d.nodes)+1)
	var all sync.WaitGroup
	for i, m := range d.nodes {
		all.Go(func() { errs[i] = m.stop(ctx) })
	}
	all.Wait()
	if !d.keep {
		errs[len(d.nodes)] = os.RemoveAll(d.dir)
	}
	return errors.Join(errs...)
}

// demoInfo is what the demo says of itself, for scripts.
type demoInfo struct {
	Dir   string      `json:"dir"`
	Table string      `json:"table"`
	Nodes []readyLine `json:"nodes"`
}

// explain says what runs where and what to try.
func (d *demo) explain() {
	info := demoInfo{Dir: d.dir, Table: demoTable}
	for i, m := range d.nodes {
		info.Nodes = append(info.Nodes, readyLine{
			m.node.ID(), "demo", string(rune('a' + i)), m.node.LinkAddr(), m.node.GossipAddr(), m.web.Addr(),
		})
	}
	if d.cli.output == "json" {
		d.cli.printJSONLine(info)
		return
	}
	kept := "removed at the end, --keep keeps it"
	if d.keep {
		kept = "kept"
	}
	w := d.cli.out
	fmt.Fprintf(w, "pando demo: 3 nodes in one process, data in %s (%s)\n\n", d.dir, kept)
	for _, n := range info.Nodes {
		fmt.Fprintf(w, "  %s  zone %s  http://%s  link %s  gossip %s\n", n.Node, n.Zone, n.HTTP, n.Link, n.Gossip)
	}
	if d.noLoad {
		fmt.Fprintf(w, "\n  no load; table %q has 4 partitions with 3 replicas each\n", demoTable)
	} else {
		fmt.Fprintf(w, "\n  load: %d operations a second on table %q (--no-load: none)\n", d.rate, demoTable)
	}
	if d.script {
		return
	}
	fmt.Fprintf(w, "\ntry in another terminal:\n")
	for _, s := range d.suggestions() {
		fmt.Fprintf(w, "  %s %s%s\n", program(), s, addrFlag(info.Nodes[0].HTTP))
	}
	if !d.noLoad {
		fmt.Fprintf(w, "\na story, which --script tells by itself:\n")
		for i, s := range d.story() {
			fmt.Fprintf(w, "  %d. %s\n     %s\n", i+1, s.what, d.commandLine(s))
		}
	}
	fmt.Fprintf(w, "\nCtrl-C ends it.\n")
}

// wordList is what most systems have to load.
const wordList = "/usr/share/dict/words"

// suggestions are commands that work as they stand.
func (d *demo) suggestions() []string {
	out := []string{"status", "members", "partition ls", "kv put demo hello world", "kv get demo hello", "kv scan demo --limit 5"}
	if _, err := os.Stat(wordList); err == nil {
		out = append(out, "table create words", "load words "+wordList, "export words --raw --to words.txt")
	}
	return out
}

// program is how this program is called again.
func program() string {
	exe, err := os.Executable()
	if err == nil && strings.Contains(exe, "go-build") {
		return "go run ./cmd/pando"
	}
	if strings.ContainsRune(os.Args[0], filepath.Separator) {
		return os.Args[0]
	}
	return "pando"
}

// addrFlag is the flag that reaches a node which is not at the default address.
func addrFlag(addr string) string {
	if addr == defaultHTTP {
		return ""
	}
	return " --addr " + addr
}
