package link

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"pando.dev/pando/partition"
)

// peerEnv marks a child process that is a node, and tells it where its peer is.
const peerEnv = "PANDO_LINK_PEER"

// TestPeerChild is the child of TestKilledAndFrozenProcess. It lives until its
// input ends.
func TestPeerChild(t *testing.T) {
	addr := os.Getenv(peerEnv)
	if addr == "" {
		t.Skip("runs as a child of TestKilledAndFrozenProcess")
	}
	book := newBook()
	book.set("parent", addr, 1)
	n := startNode(t, book, "child", uint64(os.Getpid()), func(c *Config) { c.Silence = time.Second })
	n.SetPeers([]partition.NodeID{"parent"})
	os.Stdout.WriteString("listening on " + n.Addr() + "\n")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// TestKilledAndFrozenProcess: a process that is killed is noticed by its closed
// connections, one that is stopped by its heartbeats; it is linked again when it
// goes on.
func TestKilledAndFrozenProcess(t *testing.T) {
	n := startNode(t, newBook(), "parent", 1, func(c *Config) { c.Silence = time.Second })
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestPeerChild$")
	cmd.Env = append(os.Environ(), peerEnv+"="+n.Addr())
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "listening on ") {
		t.Fatal(line, err)
	}
	boot := n.upWith("child")
	if boot != uint64(cmd.Process.Pid) {
		t.Errorf("boot %d", boot)
	}
	eventually(t, "it is reachable", func() bool { return n.leases.Reachable("child") })

	signal := func(s os.Signal) time.Time {
		if err := cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		return time.Now()
	}
	at := signal(syscall.SIGSTOP)
	eventually(t, "it is unreachable", func() bool { return !n.leases.Reachable("child") })
	unreachable := time.Since(at)
	n.downWith("child")
	t.Logf("stopped: unreachable after %v, dropped after %v", unreachable, time.Since(at))
	at = signal(syscall.SIGCONT)
	n.upWith("child")
	eventually(t, "it is reachable", func() bool { return n.leases.Reachable("child") })
	t.Logf("continued: reachable after %v", time.Since(at))

	at = signal(syscall.SIGKILL)
	n.downWith("child")
	t.Logf("killed: down after %v", time.Since(at))
	if n.leases.Reachable("child") {
		t.Error("reachable after its death")
	}
}
