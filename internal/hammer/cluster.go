package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"pando.dev/pando/actors"
	"pando.dev/pando/actors/client"
	"pando.dev/pando/actors/httpapi"
	"pando.dev/pando/partition"
)

// cluster is nodes that share a name. It belongs to the scenario's goroutine.
type cluster struct {
	t     *trial
	name  string
	nodes []*node
	// dialer makes how one client connects; nil: over the loopback.
	dialer func() client.Dialer
}

// node is one member: what it is started with, and its process.
type node struct {
	t                  *trial
	name, zone, dir    string
	cluster            string
	link, gossip, http string
	expect             int
	join               []string
	flags              []string // further ones
	wired              *network // that the node is reached through; nil: directly
	door               string   // where, then
	// begin starts its process and web asks it, in the namespace that it is in;
	// nil: as usual. secure says that it is asked over TLS.
	begin  func(*exec.Cmd) error
	web    *http.Client
	secure bool

	id     partition.NodeID // as it told when it was ready
	proc   *process
	starts int
	frozen bool // by SIGSTOP
}

const (
	// askWait bounds one question to a node.
	askWait = 2 * time.Second
	// lookEvery is the time between two looks at something awaited.
	lookEvery = 20 * time.Millisecond
	// readyWait bounds the start of nodes, a restart with replay included.
	readyWait = 60 * time.Second
)

// newCluster plans n nodes in zones a, b, c, a, ...; all want a seat out of
// expect and join by the gossip address of the first.
func (t *trial) newCluster(name string, n, expect int) (*cluster, error) {
	c := &cluster{t: t, name: name}
	for range n {
		if _, err := c.add(expect); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// add plans one more node.
func (c *cluster) add(expect int) (*node, error) {
	i := len(c.nodes)
	n := &node{
		t: c.t, name: fmt.Sprintf("%s-%d", c.name, i+1), zone: string(rune('a' + i%3)), cluster: c.name, expect: expect,
		flags: strings.Fields(c.t.opts.nodeFlags),
	}
	n.dir = filepath.Join(c.t.dir, n.name)
	for _, addr := range []*string{&n.link, &n.gossip, &n.http} {
		p, err := c.t.port()
		if err != nil {
			return nil, err
		}
		*addr = loopback(p)
	}
	if i > 0 {
		n.join = []string{c.nodes[0].gossip}
	}
	c.nodes = append(c.nodes, n)
	return n, nil
}

func (n *node) args() []string {
	args := []string{
		"node", "--dir", n.dir, "--cluster", n.cluster, "--zone", n.zone,
		"--listen", n.link, "--gossip", n.gossip, "--http", n.http,
	}
	if n.expect > 0 {
		args = append(args, "--expect", strconv.Itoa(n.expect))
	}
	for _, j := range n.join {
		args = append(args, "--join", j)
	}
	return append(args, n.flags...)
}

// start starts the node's process.
func (n *node) start() error {
	n.starts++
	begin := n.begin
	if begin == nil {
		begin = (*exec.Cmd).Start
	}
	p, err := n.t.startBy(begin, fmt.Sprintf("%s.%d", n.name, n.starts), n.args()...)
	if err != nil {
		return err
	}
	n.proc, n.frozen = p, false
	if n.wired != nil {
		n.wired.started(n.name, p.cmd.Process.Pid)
	}
	return nil
}

// kill ends the node with SIGKILL and waits until the process is gone.
func (n *node) kill() { n.proc.kill() }

// freeze stops the node's process, thaw lets it go on.
func (n *node) freeze() error {
	n.frozen = true
	return n.proc.signal(syscall.SIGSTOP)
}

func (n *node) thaw() error {
	n.frozen = false
	return n.proc.signal(syscall.SIGCONT)
}

// running reports whether the node can be asked.
func (n *node) running() bool { return n.proc != nil && !n.proc.ended() && !n.frozen }

// api is the node's HTTP door. Its questions end after askWait.
func (n *node) api() *httpapi.Client {
	return &httpapi.Client{Addrs: []string{n.http}, HTTP: n.asker(), TLS: n.secure}
}

// asker is what the node is asked with over HTTP.
func (n *node) asker() *http.Client {
	if n.web != nil {
		return n.web
	}
	return &http.Client{Timeout: askWait}
}

// ready returns nil when the node says that it serves.
func (n *node) ready(ctx context.Context) error {
	if n.proc.ended() {
		return &endedError{fmt.Errorf("%s ended: %s", n.name, n.proc.printed())}
	}
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	scheme := "http://"
	if n.secure {
		scheme = "https://"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+n.http+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := n.asker().Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s is not ready: %s", n.name, strings.TrimSpace(string(body)))
	}
	if err != nil || n.id != "" {
		return err
	}
	s, err := n.api().Status(ctx)
	n.id = s.Self
	return err
}

// endedError is a wait that is in vain, because a process has ended.
type endedError struct{ err error }

func (e *endedError) Error() string { return e.err.Error() }

// await looks until check returns nil, the limit is over or a process that is
// waited for has ended.
func await(ctx context.Context, limit time.Duration, what string, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var last error
	for {
		err := check(ctx)
		if ctx.Err() != nil && last != nil {
			err = last // this one was only cut short
		}
		last = err
		var ended *endedError
		if err == nil || errors.As(err, &ended) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s: not within %v: %w", what, limit, err)
		}
	}
}

// start starts nodes, in the order given, all at once.
func (c *cluster) start(nodes ...*node) error {
	for _, n := range nodes {
		if err := n.start(); err != nil {
			return err
		}
	}
	return nil
}

// awaitReady waits until the nodes are ready.
func (c *cluster) awaitReady(ctx context.Context, nodes ...*node) error {
	for _, n := range nodes {
		if err := await(ctx, readyWait, n.name+" is ready", n.ready); err != nil {
			return err
		}
	}
	return nil
}

// up starts all nodes and waits until they are ready.
func (c *cluster) up(ctx context.Context) error {
	if err := c.start(c.nodes...); err != nil {
		return err
	}
	return c.awaitReady(ctx, c.nodes...)
}

// https lists the HTTP addresses of the nodes that can be asked, for --addr.
func (c *cluster) https() string {
	var addrs []string
	for _, n := range c.nodes {
		if n.running() {
			addrs = append(addrs, n.http)
		}
	}
	return strings.Join(addrs, ",")
}

// links lists where clients connect, of all nodes.
func (c *cluster) links() []string {
	addrs := make([]string, len(c.nodes))
	for i, n := range c.nodes {
		addrs[i] = n.reached()
	}
	return addrs
}

// reached is where clients and other nodes reach the node.
func (n *node) reached() string { return cmp.Or(n.door, n.link) }

// byID finds a node.
func (c *cluster) byID(id partition.NodeID) (*node, error) {
	for _, n := range c.nodes {
		if n.id == id && id != "" {
			return n, nil
		}
	}
	return nil, fmt.Errorf("no node started here is %q", id)
}

// ask puts a question to the nodes that run, one after the other, until one
// answers.
func (c *cluster) ask(ctx context.Context, question func(context.Context, *httpapi.Client) error) error {
	errs := []error{errors.New("no node answers")}
	for _, n := range c.nodes {
		if !n.running() {
			continue
		}
		err := question(ctx, n.api())
		if err == nil {
			return nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", n.name, err))
	}
	return errors.Join(errs...)
}

// partitions describes a table.
func (c *cluster) partitions(ctx context.Context, table string) (ps []actors.PartitionInfo, err error) {
	err = c.ask(ctx, func(ctx context.Context, api *httpapi.Client) error {
		ps, err = api.Partitions(ctx, table)
		if err == nil && len(ps) == 0 {
			err = fmt.Errorf("table %q has no partition yet", table)
		}
		return err
	})
	return ps, err
}

// status asks how the cluster is.
func (c *cluster) status(ctx context.Context) (s actors.ClusterStatus, err error) {
	err = c.ask(ctx, func(ctx context.Context, api *httpapi.Client) error {
		s, err = api.Status(ctx)
		return err
	})
	return s, err
}
