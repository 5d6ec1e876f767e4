package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pando.dev/pando/actors/httpapi"
)

// patience bounds every wait of the end-to-end tests. It is far longer than
// anything takes, so that a busy machine fails nothing.
const patience = 60 * time.Second

// processes is a cluster of pando node processes on this machine.
type processes struct {
	t     *testing.T
	nodes []*process
	flags []string // of every command that asks the cluster
}

// process is one node: what it is started with, and its present process.
type process struct {
	name, zone         string
	cluster            string
	dir                string
	link, gossip, http string
	expect             int
	join               []string
	secure             []string // further flags of a node with certificates

	cmd    *exec.Cmd
	ready  chan readyLine // has one when the process has said that it is ready
	exited chan struct{}
	log    *tail
}

// newProcesses prepares n nodes in zones of their own, of which none runs yet.
// The first seats have a seat each.
func newProcesses(t *testing.T, n, seats int) *processes {
	t.Helper()
	p := &processes{t: t}
	base := t.TempDir()
	addrs := freePorts(t, 3*n)
	for i := range n {
		ports := addrs[3*i:]
		x := &process{
			name: fmt.Sprintf("n%d", i+1), cluster: "e2e", zone: string(rune('a' + i)), dir: filepath.Join(base, fmt.Sprintf("n%d", i+1)),
			link: ports[0], gossip: ports[1], http: ports[2],
		}
		if i < seats {
			x.expect = seats
		}
		p.nodes = append(p.nodes, x)
	}
	for _, x := range p.nodes { // everybody knows everybody, so the order of starts does not matter
		for _, y := range p.nodes {
			if x != y {
				x.join = append(x.join, y.gossip)
			}
		}
	}
	t.Cleanup(p.killAll)
	return p
}

// freePorts are loopback addresses that nobody holds at the moment. They are
// below the ports that systems give to outgoing connections: otherwise some
// connection could take the port of a node while that is down.
func freePorts(t testing.TB, n int) (addrs []string) {
	t.Helper()
	const first, ports, tries = 20_000, 10_000, 1_000
	for range tries {
		addr := fmt.Sprintf("127.0.0.1:%d", first+rand.IntN(ports))
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		defer l.Close()
		if addrs = append(addrs, addr); len(addrs) == n {
			return addrs
		}
	}
	t.Fatalf("only %d of %d ports are free", len(addrs), n)
	return nil
}

// start starts the node's process. It does not wait.
func (p *processes) start(i int) {
	p.t.Helper()
	x := p.nodes[i]
	args := []string{
		"node", "--dir", x.dir, "--id", x.name, "--zone", x.zone, "--cluster", x.cluster, "--listen", x.link, "--gossip", x.gossip,
		"--http", x.http, "--join", strings.Join(x.join, ","), "-o", "json", "--wal-segment-bytes", "4194304", "--log-format", "json",
	}
	args = append(args, x.secure...)
	if x.expect > 0 {
		args = append(args, "--expect", fmt.Sprint(x.expect))
	}
	x.cmd = exec.Command("pando", args...)
	x.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // also when this test is killed
	out, err := x.cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	x.log = &tail{}
	x.cmd.Stderr = x.log
	if err := x.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	x.ready, x.exited = make(chan readyLine, 1), make(chan struct{})
	go x.watch(x.cmd, out, x.ready, x.exited)
}

// watch reads the process's output and reaps it.
func (x *process) watch(cmd *exec.Cmd, out io.Reader, ready chan<- readyLine, exited chan<- struct{}) {
	defer close(exited)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var l readyLine
		if json.Unmarshal(lines.Bytes(), &l) == nil {
			select {
			case ready <- l:
			default:
			}
		}
	}
	_ = cmd.Wait() // how it ended is in ProcessState
}

// waitReady waits until the nodes have said that they serve.
func (p *processes) waitReady(nodes ...int) {
	p.t.Helper()
	late := time.After(patience)
	for _, i := range nodes {
		x := p.nodes[i]
		select {
		case l := <-x.ready:
			if string(l.Node) != x.name || l.HTTP != x.http {
				p.t.Fatalf("%s said %+v", x.name, l)
			}
		case <-x.exited:
			p.t.Fatalf("%s ended with %v:\n%s", x.name, x.cmd.ProcessState, x.log)
		case <-late:
			p.t.Fatalf("%s is not ready:\n%s", x.name, x.log)
		}
	}
}

// kill ends the node's process as kill -9 does.
func (p *processes) kill(i int) {
	x := p.nodes[i]
	if x.cmd == nil {
		return
	}
	_ = x.cmd.Process.Kill() // it may be gone already
	<-x.exited
	x.cmd = nil
}

func (p *processes) killAll() {
	var all sync.WaitGroup
	for i := range p.nodes {
		all.Go(func() { p.kill(i) })
	}
	all.Wait()
	if p.t.Failed() {
		for _, x := range p.nodes {
			p.t.Logf("log of %s:\n%s", x.name, x.log)
		}
	}
}

// stop ends the node's process in order and returns its exit code.
func (p *processes) stop(i int) int {
	p.t.Helper()
	x := p.nodes[i]
	if err := x.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	select {
	case <-x.exited:
	case <-time.After(patience):
		p.t.Fatalf("%s does not stop:\n%s", x.name, x.log)
	}
	code := x.cmd.ProcessState.ExitCode()
	x.cmd = nil
	return code
}

// addrs are the HTTP addresses of all nodes.
func (p *processes) addrs() string {
	var out []string
	for _, x := range p.nodes {
		out = append(out, x.http)
	}
	return strings.Join(out, ",")
}

func (p *processes) api(i int) *httpapi.Client {
	return &httpapi.Client{Addrs: []string{p.nodes[i].http}}
}

// byName returns the index of the node with that id.
func (p *processes) byName(name string) int {
	for i, x := range p.nodes {
		if x.name == name {
			return i
		}
	}
	p.t.Fatalf("there is no node %q", name)
	return -1
}

// pando runs a command against the cluster and returns its standard output; a
// command that fails, fails the test.
func (p *processes) pando(args ...string) string {
	p.t.Helper()
	out, err := p.try(args...)
	if err != nil {
		p.t.Fatalf("pando %s: %v", strings.Join(args, " "), err)
	}
	return out
}

func (p *processes) try(args ...string) (string, error) {
	cmd := exec.Command("pando", append(slices.Concat(args, p.flags), "--addr", p.addrs())...)
	cmd.Dir = filepath.Dir(p.nodes[0].dir)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%w\n%s%s", err, out.String(), errOut.String())
	}
	return out.String(), nil
}

// eventually asks until the answer is yes.
func eventually(t testing.TB, what string, ask func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var last error
	if !poll(ctx, func() bool { last = ask(ctx); return last == nil }) {
		t.Fatalf("%s: %v", what, last)
	}
}

// tail keeps the end of a process's log.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailBytes = 16 << 10

func (l *tail) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf = append(l.buf, b...)
	if len(l.buf) > tailBytes {
		l.buf = append(l.buf[:0], l.buf[len(l.buf)-tailBytes:]...)
	}
	return len(b), nil
}

func (l *tail) String() string {
	if l == nil {
		return ""
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.buf)
}

// readFile returns a file's bytes.
func readFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
