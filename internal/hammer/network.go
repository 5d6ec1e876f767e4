package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// network carries everything that is sent over links, between nodes and from
// clients, so that it can be cut between any two nodes: what is sent then is held
// back, as if packets were lost, and goes on when the cut is mended. Gossip, which
// only gives hints, is left alone.
//
// Every node tells others the address of a door here instead of its own. Who
// knocks is found out by the process that holds the other end of the connection.
type network struct {
	mu    sync.Mutex
	open  *sync.Cond // is told of every change
	cuts  map[[2]string]bool
	pids  map[string]int // of the nodes
	conns map[net.Conn]bool
	ended bool

	doors   []net.Listener
	running sync.WaitGroup
}

func newNetwork() *network {
	n := &network{cuts: map[[2]string]bool{}, pids: map[string]int{}, conns: map[net.Conn]bool{}}
	n.open = sync.NewCond(&n.mu)
	return n
}

// wire puts a door in front of every node of a cluster that has not been started.
func (c *cluster) wire() (*network, error) {
	w := newNetwork()
	for _, n := range c.nodes {
		door, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			w.close()
			return nil, fmt.Errorf("open a door: %w", err)
		}
		w.doors = append(w.doors, door)
		n.wired, n.door = w, door.Addr().String()
		n.flags = append(n.flags, "--advertise", n.door)
		w.running.Go(func() { w.serve(door, n.name, n.link) })
	}
	return w, nil
}

// started notes the process of a node.
func (w *network) started(name string, pid int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pids[name] = pid
}

// cut stops what one node sends to the other, and the other way round.
func (w *network) cut(a, b string) { w.set(a, b, true) }

// mend lets it go on.
func (w *network) mend(a, b string) { w.set(a, b, false) }

func (w *network) set(a, b string, cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cuts[[2]string{a, b}], w.cuts[[2]string{b, a}] = cut, cut
	w.open.Broadcast()
}

// close ends all connections and waits for their goroutines.
func (w *network) close() {
	w.mu.Lock()
	w.ended = true
	w.open.Broadcast()
	for _, d := range w.doors {
		d.Close()
	}
	for c := range w.conns { // in no order
		c.Close()
	}
	w.mu.Unlock()
	w.running.Wait()
}

// serve lets connections in for a node.
func (w *network) serve(door net.Listener, to, link string) {
	for {
		in, err := door.Accept()
		if err != nil {
			return // closed
		}
		w.running.Go(func() { w.carry(in, to, link) })
	}
}

// carry connects a visitor with the node and copies both ways until one ends.
func (w *network) carry(in net.Conn, to, link string) {
	if !w.enter(in) {
		return
	}
	defer w.leave(in)
	from, err := w.owner(in)
	if err != nil || !w.await(from, to) {
		return // whose it is not known may not pass a cut: it will dial again
	}
	out, err := net.Dial("tcp", link)
	if err != nil {
		return // the node is down, so the visitor is turned away
	}
	if !w.enter(out) {
		return
	}
	defer w.leave(out)
	back := make(chan struct{})
	w.running.Go(func() {
		defer close(back)
		w.copy(in, out, to, from)
	})
	w.copy(out, in, from, to)
	<-back
}

// copy carries bytes from src to dst, and closes both at the end.
func (w *network) copy(dst, src net.Conn, from, to string) {
	defer dst.Close()
	defer src.Close()
	b := make([]byte, 64<<10)
	for {
		n, err := src.Read(b)
		if n > 0 {
			if !w.await(from, to) {
				return
			}
			if _, err := dst.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			w.await(from, to) // the other side learns of it when the cut is mended
			return
		}
	}
}

// await waits while there is a cut, and returns false at the end of the network.
func (w *network) await(from, to string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.cuts[[2]string{from, to}] && !w.ended {
		w.open.Wait()
	}
	return !w.ended
}

func (w *network) enter(c net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		c.Close()
		return false
	}
	w.conns[c] = true
	return true
}

func (w *network) leave(c net.Conn) {
	c.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, c)
}

// ownerTries is how often the owner of a connection is looked for, ownerPause the
// time between: the kernel's list of sockets may lack one while others come and
// go, and a process is known a moment after it was started.
const (
	ownerTries = 20
	ownerPause = 5 * time.Millisecond
)

// owner names the node whose process has the other end of a connection, or "" for
// this process, whose clients are cut off from nobody.
func (w *network) owner(in net.Conn) (string, error) {
	for range ownerTries {
		if inode, err := socketOf(in.RemoteAddr(), in.LocalAddr()); err == nil {
			if name, ok := w.holder(inode); ok {
				return name, nil
			}
		}
		time.Sleep(ownerPause)
	}
	return "", fmt.Errorf("nobody is known to have %v", in.RemoteAddr())
}

// holder names the process that has a socket open; a socket has one owner.
func (w *network) holder(inode string) (string, bool) {
	if holds(os.Getpid(), inode) {
		return "", true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, pid := range w.pids {
		if holds(pid, inode) {
			return name, true
		}
	}
	return "", false
}

// socketOf finds the inode of the socket that is bound to one address of the
// loopback and connected to another. Both are needed: the kernel gives a port to
// several sockets at once if they lead to different places.
func socketOf(local, remote net.Addr) (inode string, err error) {
	l, ok := local.(*net.TCPAddr)
	r, ok2 := remote.(*net.TCPAddr)
	if !ok || !ok2 {
		return "", fmt.Errorf("%v to %v is no TCP connection", local, remote)
	}
	f, err := os.Open("/proc/net/tcp")
	if err != nil {
		return "", err
	}
	defer f.Close()
	from, to := fmt.Sprintf("0100007F:%04X", l.Port), fmt.Sprintf("0100007F:%04X", r.Port)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) > 9 && fields[1] == from && fields[2] == to && fields[3] == "01" {
			return fields[9], nil
		}
	}
	return "", errors.New("no such socket")
}

// holds reports whether a process has a socket open.
func holds(pid int, inode string) bool {
	dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	fds, err := os.ReadDir(dir)
	if err != nil {
		return false // it has ended
	}
	for _, fd := range fds {
		if at, err := os.Readlink(filepath.Join(dir, fd.Name())); err == nil && at == "socket:["+inode+"]" {
			return true
		}
	}
	return false
}

// isolate cuts a node off from all others of its cluster, or mends that.
func (c *cluster) isolate(w *network, n *node, cut bool) {
	for _, other := range c.nodes {
		if other != n {
			w.set(n.name, other.name, cut)
		}
	}
}
