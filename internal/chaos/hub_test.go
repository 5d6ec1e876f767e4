package chaos

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// device is one end of a made-up wire.
type device struct {
	in   chan []byte
	out  chan []byte
	done chan struct{}
}

func newDevice() *device {
	return &device{in: make(chan []byte), out: make(chan []byte, 1000), done: make(chan struct{})}
}

func (d *device) Read(b []byte) (int, error) {
	select {
	case p := <-d.in:
		return copy(b, p), nil
	case <-d.done:
		return 0, errors.New("closed")
	}
}

func (d *device) Write(b []byte) (int, error) {
	d.out <- append([]byte(nil), b...)
	return len(b), nil
}

func (d *device) Close() error {
	close(d.done)
	return nil
}

func addr(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 77, 0, byte(n)}) }

// datagram is an IP packet with a number.
func datagram(to int, number byte) []byte {
	p := make([]byte, ipHeader+udpHeader+4)
	p[0] = 0x45
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	p[9] = protoUDP
	a := addr(to).As4()
	copy(p[16:], a[:])
	binary.BigEndian.PutUint16(p[ipHeader+4:], udpHeader+4)
	p[len(p)-1] = number
	seal(p, p[ipHeader:], protoUDP)
	return p
}

// numbers drains what was delivered by now.
func numbers(d *device) []byte {
	synctest.Wait()
	var got []byte
	for {
		select {
		case p := <-d.out:
			got = append(got, p[len(p)-1])
		default:
			return got
		}
	}
}

// bench is a hub between two made-up wires, in a bubble.
func bench(t *testing.T, f func(h *Hub, a, b *device)) {
	synctest.Test(t, func(*testing.T) {
		h := NewHub(7)
		defer h.Close()
		a, b := newDevice(), newDevice()
		h.attach(addr(0), a)
		h.attach(addr(1), b)
		f(h, a, b)
	})
}

func sendNumbers(d *device, from, to byte) {
	for n := from; n < to; n++ {
		d.in <- datagram(1, n)
	}
}

func ascending(b []byte) bool {
	for i := range b {
		if i > 0 && b[i] < b[i-1] {
			return false
		}
	}
	return true
}

func TestDelayKeepsTheOrder(t *testing.T) {
	bench(t, func(h *Hub, a, b *device) {
		h.Set(0, 1, Way{Delay: time.Second, Jitter: time.Second})
		sendNumbers(a, 0, 50)
		if got := numbers(b); len(got) != 0 {
			t.Errorf("%v arrived before their time", got)
		}
		h.Set(0, 1, Way{})
		sendNumbers(a, 50, 60) // may not overtake
		time.Sleep(2 * time.Second)
		if got := numbers(b); len(got) != 60 || !ascending(got) {
			t.Errorf("arrived %v", got)
		}
	})
}

func TestLateOnesAreOvertaken(t *testing.T) {
	bench(t, func(h *Hub, a, b *device) {
		h.Set(0, 1, Way{Late: 0.3, LateBy: time.Second})
		sendNumbers(a, 0, 50)
		time.Sleep(2 * time.Second)
		if got := numbers(b); len(got) != 50 || ascending(got) {
			t.Errorf("arrived %v", got)
		}
	})
}

func TestHeldComesAtTheEnd(t *testing.T) {
	bench(t, func(h *Hub, a, b *device) {
		h.Set(0, 1, Way{Hold: true})
		sendNumbers(a, 0, 20)
		time.Sleep(time.Minute)
		if got := numbers(b); len(got) != 0 {
			t.Errorf("%v arrived though held", got)
		}
		h.Heal()
		if got := numbers(b); len(got) != 20 || !ascending(got) {
			t.Errorf("arrived %v", got)
		}
	})
}

func TestFlapAndLossAndRepeat(t *testing.T) {
	bench(t, func(h *Hub, a, b *device) {
		h.Set(0, 1, Way{Flap: time.Second})
		for n := range byte(20) {
			sendNumbers(a, n, n+1)
			time.Sleep(100 * time.Millisecond)
		}
		if got := numbers(b); len(got) != 10 || got[9] != 9 {
			t.Errorf("of two half turns arrived %v", got)
		}
		h.Set(0, 1, Way{Loss: 0.5, Repeat: 0.5})
		sendNumbers(a, 0, 200)
		time.Sleep(time.Second)
		got := numbers(b)
		c := h.Counts()
		if c.Lost < 50 || c.Lost > 150 || c.Repeated < 20 || uint64(len(got)) != 200-c.Lost+c.Repeated {
			t.Errorf("%d arrived, %+v", len(got), c)
		}
	})
}

func TestSlowWay(t *testing.T) {
	bench(t, func(h *Hub, a, b *device) {
		h.Set(0, 1, Way{BytesPerSecond: 10 * (ipHeader + udpHeader + 4)}) // ten packets a second
		sendNumbers(a, 0, 50)
		time.Sleep(500 * time.Millisecond)
		if got := numbers(b); len(got) < 4 || len(got) > 6 {
			t.Errorf("%d in half a second", len(got))
		}
		time.Sleep(time.Minute)
		numbers(b)
		if c := h.Counts(); c.Dropped != 40 || c.Delivered != 10 {
			t.Errorf("a backlog of a second: %+v", c)
		}
	})
}

// TestSpoiledIsSealed wants a changed payload under a checksum that holds.
func TestSpoiledIsSealed(t *testing.T) {
	for draw := range uint64(100) {
		p := datagram(1, 9)
		before := append([]byte(nil), p...)
		if !spoil(p, draw*0x9e3779b97f4a7c15) {
			t.Fatal("nothing to spoil")
		}
		if string(before[ipHeader+udpHeader:]) == string(p[ipHeader+udpHeader:]) {
			t.Fatal("the payload is the same")
		}
		seg := p[ipHeader:]
		if s := sum(uint32(sum(protoUDP+uint32(len(seg)), p[12:20])), seg); s != 0xffff {
			t.Fatalf("checksum %#x", s)
		}
	}
}
