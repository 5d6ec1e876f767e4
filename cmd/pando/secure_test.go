package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestSecuredCluster: three nodes that listen for everybody, with certificates
// and a gossip key that the command line made. Who has no certificate, one of
// another authority, or not the role, gets nothing.
func TestSecuredCluster(t *testing.T) {
	t.Parallel()
	p := newProcesses(t, 3, 3)
	base := filepath.Dir(p.nodes[0].dir)
	in := func(name string) string { return filepath.Join(base, name) }
	p.make("cert", "ca", "--ca", in("ca"), "--cluster", "e2e")
	p.make("cert", "ca", "--ca", in("otherca"), "--cluster", "e2e")
	p.make("cert", "gossip-key", "--out", in("key"))
	p.make("cert", "client", "--ca", in("ca"), "--name", "ann", "--out", in("ann"))
	p.make("cert", "client", "--ca", in("ca"), "--name", "bob", "--role", "admin", "--out", in("bob"))
	p.make("cert", "client", "--ca", in("otherca"), "--name", "eve", "--role", "admin", "--out", in("eve"))
	for i, x := range p.nodes {
		p.make("cert", "node", "--ca", in("ca"), "--dir", x.dir, "--id", x.name, "--out", in("tls-"+x.name))
		x.secure = []string{"--tls-dir", in("tls-" + x.name), "--gossip-key-file", in("key")}
		if i == 0 { // one of them listens on every interface
			x.secure = append(x.secure, "--listen", everywhere(x.link), "--advertise", x.link, "--gossip", everywhere(x.gossip),
				"--gossip-advertise", x.gossip, "--http-advertise", x.http)
		}
		p.start(i)
	}
	p.waitReady(0, 1, 2)

	p.flags = []string{"--tls-dir", in("bob")}
	p.pando("status", "--wait", "30s")
	p.pando("table", "create", "safe")
	p.flags = []string{"--tls-dir", in("ann")}
	p.refused(t, "unauthorized", "table", "create", "unsafe")
	p.pando("kv", "put", "safe", "key", "value")
	if err := os.WriteFile(in("lines.txt"), inputLines(500), 0o600); err != nil {
		t.Fatal(err)
	}
	p.pando("load", "safe", in("lines.txt"), "-q")
	if out := p.pando("export", "safe", "--raw", "-q"); strings.Count(out, "\n") != 501 {
		t.Errorf("%d lines come back", strings.Count(out, "\n"))
	}
	p.flags = []string{"--tls-dir", in("eve")}
	p.refused(t, "unauthorized", "status")
	p.flags = nil
	p.refused(t, "invalid", "status")
	p.refused(t, "invalid", "export", "safe")
}

// everywhere is the address with all interfaces instead of one.
func everywhere(addr string) string {
	_, port, err := net.SplitHostPort(addr)
	must(err)
	return "0.0.0.0:" + port
}

// make runs a command that asks nobody.
func (p *processes) make(args ...string) {
	p.t.Helper()
	if out, err := exec.Command("pando", args...).CombinedOutput(); err != nil {
		p.t.Fatalf("pando %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// refused runs a command that must end with an error of that code.
func (p *processes) refused(t *testing.T, code string, args ...string) {
	t.Helper()
	out, err := p.try(args...)
	if err == nil || !strings.Contains(err.Error(), "error: "+code+"\n") {
		t.Errorf("pando %s with %v: %v, want %s\n%s", strings.Join(args, " "), p.flags, err, code, out)
	}
}
