package chaos

import (
	"container/heap"
	"io"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"
)

// Counts is what became of the packets that came to a hub.
type Counts struct {
	Delivered, Cut, Lost, Repeated, Late, Corrupted, Replayed, Reset, Dropped uint64
}

// Hub carries packets between ports by their destination. Its methods may be
// called from any goroutine.
//
// One goroutine per port reads; one for all delivers what waits. A packet that
// nothing is to happen to, and that none before it waits for, is delivered by the
// reader itself.
type Hub struct {
	mu     sync.Mutex
	ports  []*port
	byAddr map[netip.Addr]int
	pairs  map[[2]int]*pair
	waits  waiting
	held   int // bytes that wait
	seq    uint64
	counts Counts
	closed bool

	seed    uint64
	began   time.Time
	kick    chan struct{} // the first that waits has changed
	ended   chan struct{}
	running sync.WaitGroup
}

// port is one space, as the hub sees it.
type port struct {
	number int
	device io.ReadWriteCloser
}

// pair is one direction between two ports. It is guarded by the hub's lock.
type pair struct {
	way     Way
	rng     *rand.Rand
	last    time.Time // when the latest packet that keeps the order is due
	free    time.Time // when a slow way has got rid of all that came
	waiting int
	held    [][]byte
	resets  bool // the segments of now end their connections
}

// NewHub makes a hub without ports. All that is drawn comes from the seed, for
// each pair by itself.
func NewHub(seed uint64) *Hub {
	h := &Hub{
		byAddr: map[netip.Addr]int{}, pairs: map[[2]int]*pair{}, seed: seed, began: time.Now(),
		kick: make(chan struct{}, 1), ended: make(chan struct{}),
	}
	h.running.Go(h.deliverWaiting)
	return h
}

// Join wires a space to the hub and returns the number of its port.
func (h *Hub) Join(s *Space) int { return h.attach(s.Addr, s.tun) }

// attach is Join for any device.
func (h *Hub) attach(addr netip.Addr, device io.ReadWriteCloser) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := &port{number: len(h.ports), device: device}
	h.ports = append(h.ports, p)
	h.byAddr[addr] = p.number
	h.running.Go(func() { h.read(p) })
	return p.number
}

// Set says how packets from one port to another fare from now on. What waits
// already is delivered as it was to be; what was held is delivered at once.
func (h *Hub) Set(from, to int, w Way) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.pair(from, to)
	p.way = w
	if w.Hold {
		return
	}
	for _, b := range p.held {
		h.held -= len(b)
		h.wait(p, to, b, time.Now(), false)
	}
	p.held = nil
}

// Way returns how packets from one port to another fare.
func (h *Hub) Way(from, to int) Way {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.pair(from, to).way
}

// Heal lets every packet through again.
func (h *Hub) Heal() {
	h.mu.Lock()
	var pairs [][2]int
	for at := range h.pairs { // each is set on its own
		pairs = append(pairs, at)
	}
	h.mu.Unlock()
	for _, at := range pairs {
		h.Set(at[0], at[1], Way{})
	}
}

// Reset breaks the connections between two ports that send within the time.
func (h *Hub) Reset(a, b int, within time.Duration) {
	h.setResets(a, b, true)
	time.AfterFunc(within, func() { h.setResets(a, b, false) })
}

func (h *Hub) setResets(a, b int, on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pair(a, b).resets, h.pair(b, a).resets = on, on
}

// Counts returns what became of the packets so far.
func (h *Hub) Counts() Counts {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.counts
}

// Close ends the hub and its ports' devices, and waits for its goroutines.
func (h *Hub) Close() {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return
	}
	h.closed = true
	for _, p := range h.ports {
		p.device.Close()
	}
	h.mu.Unlock()
	close(h.ended)
	h.running.Wait()
}

// pair is called with the lock held.
func (h *Hub) pair(from, to int) *pair {
	at := [2]int{from, to}
	p := h.pairs[at]
	if p == nil {
		p = &pair{rng: rand.New(rand.NewPCG(h.seed, uint64(from)<<32|uint64(to)))}
		h.pairs[at] = p
	}
	return p
}

// read forwards what a port sends until its device is closed.
func (h *Hub) read(p *port) {
	buf := make([]byte, packetBytes+64)
	for {
		n, err := p.device.Read(buf)
		if err != nil {
			return
		}
		if addr, ok := destination(buf[:n]); ok {
			h.forward(p.number, addr, buf[:n])
		}
	}
}

// forward decides what happens to a packet, which belongs to the caller again
// when it returns.
func (h *Hub) forward(from int, addr netip.Addr, b []byte) {
	h.mu.Lock()
	to, ok := h.byAddr[addr]
	if !ok || h.closed {
		h.mu.Unlock()
		return
	}
	p := h.pair(from, to)
	if p.resets {
		if b, ok = reset(b); ok {
			h.counts.Reset++
		}
	}
	if p.way.plain() && p.waiting == 0 {
		h.counts.Delivered++
		device := h.ports[to].device
		h.mu.Unlock()
		_, _ = device.Write(b) // lost if the device is full or closed, as packets are
		return
	}
	answer, refused := h.refuse(p, b)
	if !refused {
		h.treat(p, to, b)
	}
	device := h.ports[from].device
	h.mu.Unlock()
	if answer != nil {
		_, _ = device.Write(answer) // as above
	}
}

// refuse answers a packet that is refused, if it is of a connection. The lock is
// held.
func (h *Hub) refuse(p *pair, b []byte) (answer []byte, refused bool) {
	if !p.way.Refuse {
		return nil, false
	}
	h.counts.Cut++
	answer, _ = refusal(b)
	return answer, true
}

// treat does to a packet what its way says. The lock is held.
func (h *Hub) treat(p *pair, to int, b []byte) {
	w, now := &p.way, time.Now()
	switch {
	case w.Cut, w.Flap > 0 && now.Sub(h.began)/w.Flap%2 == 1:
		h.counts.Cut++
		return
	case p.chance(w.Loss):
		h.counts.Lost++
		return
	}
	b = append([]byte(nil), b...)
	if p.chance(w.Corrupt) && spoil(b, p.rng.Uint64()) {
		h.counts.Corrupted++
	}
	if w.Hold {
		if h.held += len(b); h.held > heldBytes {
			h.held -= len(b)
			h.counts.Dropped++
			return
		}
		p.held = append(p.held, b)
		return
	}
	at := now.Add(w.Delay + p.upTo(w.Jitter))
	if w.BytesPerSecond > 0 {
		p.free = later(p.free, now).Add(time.Duration(len(b)) * time.Second / time.Duration(w.BytesPerSecond))
		if p.free.Sub(now) > backlog {
			p.free = p.free.Add(-time.Duration(len(b)) * time.Second / time.Duration(w.BytesPerSecond))
			h.counts.Dropped++
			return
		}
		at = later(at, p.free)
	}
	late := p.chance(w.Late)
	if late {
		h.counts.Late++
		at = at.Add(p.upTo(w.LateBy))
	}
	h.wait(p, to, b, at, late)
	if p.chance(w.Repeat) {
		h.counts.Repeated++
		h.wait(p, to, b, at, late)
	}
	if p.chance(w.Replay) {
		h.counts.Replayed++
		h.wait(p, to, b, at.Add(p.upTo(replayWithin)), true)
	}
}

// chance draws with a probability; nothing is drawn for 0.
func (p *pair) chance(share float64) bool { return share > 0 && p.rng.Float64() < share }

func (p *pair) upTo(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return time.Duration(p.rng.Int64N(int64(d)))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// packet is one that waits.
type packet struct {
	at   time.Time
	seq  uint64
	pair *pair
	to   int
	b    []byte
	out  bool // out of order, so that none waits for it
}

// wait lets a packet wait until it is due; one in order, behind those before it.
// The lock is held.
func (h *Hub) wait(p *pair, to int, b []byte, at time.Time, out bool) {
	if h.held+len(b) > heldBytes {
		h.counts.Dropped++
		return
	}
	if !out {
		at = later(at, p.last)
		p.last = at
		p.waiting++
	}
	h.held += len(b)
	h.seq++
	heap.Push(&h.waits, packet{at: at, seq: h.seq, pair: p, to: to, b: b, out: out})
	if h.waits[0].seq == h.seq {
		select {
		case h.kick <- struct{}{}:
		default:
		}
	}
}

// deliverWaiting delivers what is due, until the hub is closed.
func (h *Hub) deliverWaiting() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-h.kick:
		case <-h.ended:
			return
		}
		timer.Reset(h.deliverDue())
	}
}

// deliverDue delivers all that is due and returns how long until the next.
func (h *Hub) deliverDue() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.waits) > 0 && !h.closed {
		first := h.waits[0]
		if d := time.Until(first.at); d > 0 {
			return d
		}
		heap.Pop(&h.waits)
		h.held -= len(first.b)
		h.counts.Delivered++
		// With the lock held, so that none of its pair overtakes it. A TUN device
		// takes a packet or loses it; it never waits for long.
		_, _ = h.ports[first.to].device.Write(first.b)
		if !first.out {
			first.pair.waiting--
		}
	}
	return time.Hour
}

// waiting is a heap of packets by when they are due.
type waiting []packet

func (w waiting) Len() int { return len(w) }
func (w waiting) Less(i, j int) bool {
	if !w[i].at.Equal(w[j].at) {
		return w[i].at.Before(w[j].at)
	}
	return w[i].seq < w[j].seq
}
func (w waiting) Swap(i, j int) { w[i], w[j] = w[j], w[i] }

// Push implements heap.Interface.
func (w *waiting) Push(x any) { *w = append(*w, x.(packet)) }

// Pop implements heap.Interface.
func (w *waiting) Pop() any {
	last := len(*w) - 1
	p := (*w)[last]
	(*w)[last] = packet{}
	*w = (*w)[:last]
	return p
}
