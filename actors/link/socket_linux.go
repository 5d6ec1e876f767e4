package link

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// tune makes the kernel give up on a peer that has not acknowledged anything for
// so long.
func tune(c net.Conn, d time.Duration) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return
	}
	// Best effort: without it, write deadlines and heartbeats do the same.
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
	})
}
