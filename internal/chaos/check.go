//go:build linux

package chaos

import (
	"errors"
	"fmt"
	"net"
	"time"
)

// Checked is what CheckHub has measured.
type Checked struct {
	// Idle is the shortest round trip without any delay, Delayed with checkDelay
	// each way.
	Idle, Delayed time.Duration
}

const (
	checkDelay = 20 * time.Millisecond
	checkTries = 20
	checkWait  = 5 * time.Second // for one datagram
)

// CheckHub tries the hub between two of its spaces, before anybody relies on it:
// a delay must delay, a cut must cut one way and not the other. It leaves both
// ways plain.
func CheckHub(h *Hub, a, b *Space, portA, portB int) (c Checked, err error) {
	defer func() {
		h.Set(portA, portB, Way{})
		h.Set(portB, portA, Way{})
		if err != nil {
			err = fmt.Errorf("check the hub: %w", err)
		}
	}()
	p, err := newProbe(a, b)
	if err != nil {
		return c, err
	}
	defer p.close()
	if c.Idle, err = p.shortest(); err != nil {
		return c, fmt.Errorf("without a delay: %w", err)
	}
	h.Set(portA, portB, Way{Delay: checkDelay})
	h.Set(portB, portA, Way{Delay: checkDelay})
	if c.Delayed, err = p.shortest(); err != nil {
		return c, fmt.Errorf("with a delay: %w", err)
	}
	if c.Delayed < 2*checkDelay || c.Delayed <= c.Idle {
		return c, fmt.Errorf("a round trip took %s with %s each way, and %s without", c.Delayed, checkDelay, c.Idle)
	}
	h.Set(portA, portB, Way{Cut: true})
	h.Set(portB, portA, Way{})
	return c, p.oneWay(func() { h.Set(portA, portB, Way{}) })
}

// probe is a socket on each of two spaces.
type probe struct{ a, b net.PacketConn }

func newProbe(a, b *Space) (*probe, error) {
	at, err := a.ListenPacket("udp4", a.Addr.String()+":0")
	if err != nil {
		return nil, err
	}
	bt, err := b.ListenPacket("udp4", b.Addr.String()+":0")
	if err != nil {
		at.Close()
		return nil, err
	}
	return &probe{at, bt}, nil
}

func (p *probe) close() {
	p.a.Close()
	p.b.Close()
}

// send sends a text from one socket to the other.
func send(from, to net.PacketConn, text string) error {
	_, err := from.WriteTo([]byte(text), to.LocalAddr())
	return err
}

// receive waits for the next text.
func receive(at net.PacketConn) (string, error) {
	b := make([]byte, 64)
	if err := at.SetReadDeadline(time.Now().Add(checkWait)); err != nil {
		return "", err
	}
	n, _, err := at.ReadFrom(b)
	return string(b[:n]), err
}

// shortest is the shortest of some round trips.
func (p *probe) shortest() (time.Duration, error) {
	best := time.Hour
	for range checkTries {
		began := time.Now()
		if err := send(p.a, p.b, "there"); err != nil {
			return 0, err
		}
		if _, err := receive(p.b); err != nil {
			return 0, err
		}
		if err := send(p.b, p.a, "back"); err != nil {
			return 0, err
		}
		if _, err := receive(p.a); err != nil {
			return 0, err
		}
		best = min(best, time.Since(began))
	}
	return best, nil
}

// oneWay wants what a sends to be lost until the cut is mended, and what b sends
// to arrive. Nobody waits for what must not come: packets keep their order, so
// the first to arrive tells.
func (p *probe) oneWay(mend func()) error {
	if err := send(p.a, p.b, "cut"); err != nil {
		return err
	}
	if err := send(p.b, p.a, "open"); err != nil {
		return err
	}
	if got, err := receive(p.a); err != nil || got != "open" {
		return fmt.Errorf("across the open way came %q, %w", got, orNil(err))
	}
	mend()
	if err := send(p.a, p.b, "mended"); err != nil {
		return err
	}
	if got, err := receive(p.b); err != nil || got != "mended" {
		return fmt.Errorf("across the way that had been cut came first %q, %w", got, orNil(err))
	}
	return nil
}

func orNil(err error) error {
	if err == nil {
		return errors.New("which was not sent there")
	}
	return err
}
