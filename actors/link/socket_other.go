//go:build !linux

package link

import (
	"net"
	"time"
)

func tune(net.Conn, time.Duration) {}
