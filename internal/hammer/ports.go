package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
)

const (
	lowestPort = 10000
	// outgoingPorts is where Linux says which ports outgoing connections get.
	// A node that is restarted must find its ports free, so they are taken from
	// below.
	outgoingPorts = "/proc/sys/net/ipv4/ip_local_port_range"
)

// port returns a port of the loopback that is free for TCP and UDP and was not
// handed out before.
func (t *trial) port() (int, error) {
	highest := 32768
	if b, err := os.ReadFile(outgoingPorts); err == nil {
		if _, err := fmt.Sscan(string(b), &highest); err != nil {
			return 0, fmt.Errorf("read %s: %w", outgoingPorts, err)
		}
	}
	if highest <= lowestPort {
		return 0, fmt.Errorf("no port between %d and %d, which outgoing connections take", lowestPort, highest)
	}
	// Not by the seed: trials with the same seed may run at once.
	for range 1000 {
		p := lowestPort + int(rand.Uint64()%uint64(highest-lowestPort))
		if t.ports[p] || !free(p) {
			continue
		}
		t.ports[p] = true
		return p, nil
	}
	return 0, errors.New("found no free port")
}

// free reports whether nobody uses the port.
func free(port int) bool {
	addr := loopback(port)
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return false
	}
	defer l.Close()
	u, err := net.ListenPacket("udp", addr)
	if err != nil {
		return false
	}
	return u.Close() == nil
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
