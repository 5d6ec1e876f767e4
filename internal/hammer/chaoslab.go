//go:build linux

package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"pando.dev/pando/actors/cert"
	"pando.dev/pando/actors/client"
	"pando.dev/pando/actors/link"
	"pando.dev/pando/internal/chaos"
	"pando.dev/pando/partition"
)

const (
	labNodes = 5
	// labSeats is how many nodes, the first, hold a seat of the control group.
	// The disks of the others may be lost or rolled back altogether.
	labSeats  = 3
	labBits   = 24
	diskBytes = 192 << 20
	// clientsAt and othersAt are the ports of two sets of clients, node i is at
	// i+1: what one set is cut off from, the other may reach.
	clientsAt, othersAt = 0, labNodes + 1
)

// lab is what the nodes of a chaos trial live in. Without root there is no hub
// and no disk, and the nodes share the loopback.
type lab struct {
	t       *trial
	hub     *chaos.Hub     // nil without root
	clients []*chaos.Space // at clientsAt and at othersAt
	opened  int            // clients, that they come to each set by turns
	spaces  []*chaos.Space // of the nodes
	nodes   []*patient
}

// patient is a node that harm is done to.
type patient struct {
	*node
	ordinal int
	disk    *chaos.Disk // nil without root
	// busy says that something is being done to it, excused that its process may
	// have ended by itself of it.
	busy, excused bool
}

func (p *patient) port() int { return p.ordinal + 1 }

// newLab makes namespaces, disks and certificates, and plans the nodes.
func newLab(t *trial, real bool) (l *lab, c *cluster, err error) {
	l, c = &lab{t: t}, &cluster{t: t, name: "chaos"}
	if !real {
		return l, c, l.plainNodes(c)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	l.hub = chaos.NewHub(t.opts.seed)
	if err := l.addClients(clientsAt); err != nil {
		return l, nil, err
	}
	files, err := l.certify(c)
	if err != nil {
		return l, nil, err
	}
	for i := range labNodes {
		if err := l.addNode(c, i, files); err != nil {
			return l, nil, err
		}
	}
	if err := l.addClients(othersAt); err != nil {
		return l, nil, err
	}
	c.dialer = func() client.Dialer { return l.dialer(c.name, files) }
	checked, err := chaos.CheckHub(l.hub, l.clients[0], l.spaces[0], clientsAt, 1)
	if err != nil {
		return l, nil, err
	}
	t.row("network", "%d namespaces over one hub: a round trip takes %s, %s with 20ms each way, a one-way cut is one-way", labNodes+len(l.clients), checked.Idle, checked.Delayed)
	t.row("disks", "%d of ext4 with %d MiB each on loop devices", labNodes, diskBytes>>20)
	return l, c, nil
}

// addClients makes the namespace of a set of clients.
func (l *lab) addClients(port int) error {
	s, err := l.space(port)
	if s != nil {
		l.clients = append(l.clients, s)
	}
	return err
}

// dialer is how one client connects: those of one set from one namespace.
func (l *lab) dialer(cluster string, files *cert.Files) client.Dialer {
	s := l.clients[l.opened%len(l.clients)]
	l.opened++
	return func(ctx context.Context, addr string) (conn net.Conn, err error) {
		err = s.Enter(func() (err error) {
			conn, err = link.DialClient(ctx, addr, link.ClientConfig{Cluster: cluster, TLS: files})
			return err
		})
		return conn, err
	}
}

// plainNodes plans nodes that share the loopback and the file system.
func (l *lab) plainNodes(c *cluster) error {
	for i := range labNodes {
		n, err := c.add(labSeats)
		if err != nil {
			return err
		}
		l.plan(n, i)
	}
	return nil
}

// plan makes a patient of a node.
func (l *lab) plan(n *node, i int) *patient {
	if i >= labSeats {
		n.expect = 0
	}
	n.zone = string(rune('a' + i%labSeats))
	n.flags = append(n.flags,
		"--id", fmt.Sprintf("n%d", i+1),
		"--wal-segment-bytes", strconv.Itoa(2<<20), "--memory-bytes", strconv.Itoa(4<<20),
		"--log-after", "5s", "--replace-after", "20s", "--drain-timeout", "5s")
	n.id = partition.NodeID(fmt.Sprintf("n%d", i+1))
	p := &patient{node: n, ordinal: i}
	l.nodes = append(l.nodes, p)
	return p
}

func (l *lab) space(port int) (*chaos.Space, error) {
	s, err := chaos.NewSpace(netip.AddrFrom4([4]byte{10, 77, 0, byte(port + 1)}), labBits)
	if err != nil {
		return nil, err
	}
	if got := l.hub.Join(s); got != port {
		return s, fmt.Errorf("the hub gave port %d instead of %d", got, port)
	}
	return s, nil
}

// certify makes the certificates of all nodes and of the clients, and the key of
// gossip.
func (l *lab) certify(c *cluster) (*cert.Files, error) {
	a, err := cert.NewAuthority(c.name, 0, nil)
	if err != nil {
		return nil, err
	}
	for i := range labNodes {
		id, err := a.Issue(fmt.Sprintf("n%d", i+1), cert.Node, 0)
		if err != nil {
			return nil, err
		}
		if err := id.Write(l.tls(i)); err != nil {
			return nil, err
		}
	}
	id, err := a.Issue("hammer", cert.Admin, 0)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(l.t.dir, "tls-clients")
	if err := id.Write(dir); err != nil {
		return nil, err
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key) // it never fails
	if err := os.WriteFile(l.gossipKey(), []byte(hex.EncodeToString(key)+"\n"), 0o600); err != nil {
		return nil, err
	}
	return cert.Open(dir, nil, nil)
}

func (l *lab) tls(i int) string  { return filepath.Join(l.t.dir, fmt.Sprintf("tls-n%d", i+1)) }
func (l *lab) gossipKey() string { return filepath.Join(l.t.dir, "gossip.key") }

// addNode makes the namespace and the disk of one node.
func (l *lab) addNode(c *cluster, i int, files *cert.Files) error {
	s, err := l.space(i + 1)
	if s != nil {
		l.spaces = append(l.spaces, s)
	}
	if err != nil {
		return err
	}
	n := &node{
		t: l.t, name: fmt.Sprintf("n%d", i+1), cluster: c.name, expect: labSeats,
		link: s.Addr.String() + ":7101", gossip: s.Addr.String() + ":7201", http: "127.0.0.1:7301",
		flags: append(strings.Fields(l.t.opts.nodeFlags), "--tls-dir", l.tls(i), "--gossip-key-file", l.gossipKey()),
		begin: s.Start, secure: true,
	}
	n.web = &http.Client{Timeout: askWait, Transport: &http.Transport{TLSClientConfig: files.Client(""), DialContext: s.Dial}}
	if i > 0 {
		n.join = []string{l.nodes[0].gossip}
	}
	c.nodes = append(c.nodes, n)
	p := l.plan(n, i)
	mnt := filepath.Join(l.t.dir, "disk-"+n.name)
	if p.disk, err = chaos.NewDisk(mnt, filepath.Join(l.t.dir, "under-"+n.name), diskBytes); err != nil {
		return err
	}
	n.dir = filepath.Join(mnt, "data")
	return nil
}

// close ends the nodes and takes away what is around them.
func (l *lab) close() error {
	l.t.killAll()
	var errs []error
	for _, p := range l.nodes {
		if p.web != nil {
			p.web.CloseIdleConnections()
		}
		if p.disk != nil {
			errs = append(errs, p.disk.Close())
		}
	}
	if l.hub != nil {
		l.hub.Close()
	}
	for _, s := range append(l.spaces, l.clients...) {
		s.Close()
	}
	return errors.Join(errs...)
}
